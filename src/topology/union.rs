//! Unions of a topology file.

use super::diagnostic::quoted;
use super::operator::OperatorHead;
use super::plan::OperatorKind;
use super::reader::{Fields, Reader, Text};
use super::stream::Stream;

/// On how many ways rows may come to a union, through others before it.
const WAYS_MAX: usize = 100;

/// The `inputs` of a union: at least two.
pub(super) fn read_inputs(fields: &Fields, reader: &mut Reader) -> Vec<Text> {
    let help = "name the sources or operators whose rows come together, as in `inputs: [web, shop]`";
    let Some(node) = reader.required(fields, "inputs", help) else { return Vec::new() };
    let problems_before = reader.problems.len();
    let names = reader.names(node, "`inputs`").unwrap_or_default();
    if names.len() < 2 && reader.problems.len() == problems_before {
        reader.problems.error(node.span, "a union has at least two `inputs`").help(help);
    }
    names
}

/// Checks that all inputs have the same fields, in any order; the rows have them in that of the first.
pub(super) fn check_union(
    head: &OperatorHead,
    inputs: &[&Stream],
    reader: &mut Reader,
) -> (Option<OperatorKind>, Stream) {
    let Some((first, others)) = inputs.split_first() else { return (None, Stream::opaque()) };
    let ways = inputs.iter().map(|input| input.ways.max(1)).sum();
    if ways > WAYS_MAX {
        reader
            .problems
            .error(head.id_span, format!("rows come to `{}` on {ways} ways, more than {WAYS_MAX}", head.id))
            .help("what is behind a union is run once for each way: let fewer unions read one another");
    }
    let mut stream = Stream {
        ways,
        opaque: inputs.iter().any(|input| input.opaque),
        meta: inputs.iter().all(|input| input.meta),
        // Rows of a key lie in partitions of several topics, or in several places of one.
        partitioned_by: Vec::new(),
        partitioning_broken: inputs.iter().any(|input| input.partitioning_broken),
        ..(*first).clone()
    };
    let mut slots = vec![(0..first.schema.fields.len()).collect::<Vec<usize>>()];
    for (input, name) in others.iter().zip(&head.inputs[1..]) {
        check_same_fields((first, &head.inputs[0]), (input, name), reader);
        for field in &input.schema.fields {
            let of_first = stream.schema.fields.iter_mut().find(|of_first| of_first.name == field.name);
            if let Some(of_first) = of_first {
                of_first.nullable |= field.nullable;
                of_first.ty = of_first.ty.common(field.ty).unwrap_or(of_first.ty);
            }
        }
        let places = first.schema.fields.iter().map(|field| input.schema.position(&field.name));
        slots.extend(places.collect::<Option<Vec<usize>>>());
    }
    (Some(OperatorKind::Union { slots }), stream)
}

/// Reports fields that only one of two streams has, or that are of different types.
fn check_same_fields(
    (first, first_name): (&Stream, &Text),
    (other, name): (&Stream, &Text),
    reader: &mut Reader,
) {
    if first.opaque || other.opaque {
        return;
    }
    let (one, two) = (&first_name.value, &name.value);
    let help = "let a map bring both to the same fields before they come together";
    let lacking = |of: &Stream, in_: &Stream| -> Vec<String> {
        let fields = of.schema.fields.iter().map(|field| field.name.clone());
        fields.filter(|field| in_.schema.position(field).is_none() && !in_.may_have(field)).collect()
    };
    for (fields, has, lacks) in [(lacking(first, other), one, two), (lacking(other, first), two, one)] {
        if !fields.is_empty() {
            let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
            let message = format!("`{has}` has {}, and `{lacks}` has not", quoted(&fields));
            reader.problems.error(name.span, message).help(help);
        }
    }
    for field in &first.schema.fields {
        let Some(slot) = other.schema.position(&field.name) else { continue };
        let ty = other.schema.fields[slot].ty;
        if field.ty.common(ty).is_none() {
            let message =
                format!("`{}` is of type {} in `{one}` and of type {ty} in `{two}`", field.name, field.ty);
            reader.problems.error(name.span, message).help(help);
        }
    }
}
