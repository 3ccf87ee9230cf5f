//! Operators of a topology file that make rows of the elements of lists.

use std::sync::Arc;

use super::operator::{carried, check_keep_and_drop};
use super::plan::{FlatMapPlan, MapSlot, OperatorKind};
use super::reader::{Fields, Reader};
use super::stream::{Stream, check_field_name};
use crate::record::{Field, FieldForm, Type};

/// Checks a flat map.
pub(super) fn check_flat_map(
    fields: &Fields,
    input: &Stream,
    reader: &mut Reader,
) -> (Option<OperatorKind>, Stream) {
    let keeps = check_keep_and_drop(fields, input, &[], reader);
    let outer = match fields.get("outer") {
        Some(node) => reader.bool(node, "`outer`"),
        None => Some(false),
    };
    let mut stream = Stream {
        opaque: input.opaque,
        meta: input.meta,
        ways: input.ways,
        source: input.source.clone(),
        partitioning_broken: input.partitioning_broken,
        broken: input.broken.iter().filter(|name| keeps(name)).cloned().collect(),
        ..Stream::default()
    };
    let kept = input.schema.fields.iter().enumerate().filter(|(_, field)| keeps(&field.name));
    let kept: Vec<usize> = kept.map(|(slot, _)| slot).collect();
    stream.schema.fields.extend(kept.iter().map(|slot| input.schema.fields[*slot].clone()));
    let slots: Vec<MapSlot> = kept.iter().map(|slot| MapSlot::Input(*slot)).collect();
    stream.partitioned_by = carried(input, &slots, &stream);
    let each = check_each(fields, input, outer == Some(true), &mut stream, reader);
    let position = fields.get("position").map(|node| reader.text(node, "`position`"));
    if let Some(Some(name)) = &position {
        check_field_name(&name.value, name.span, "choose another name", reader);
        let nullable = outer == Some(true);
        let field = Field { name: name.value.clone(), ty: Type::Int, nullable, form: FieldForm::Plain };
        stream.add(&name.value, Some(field), name.span, &fields.what, reader);
    }
    let position = position.is_some();
    let plan = (|| Some(FlatMapPlan { kept, each: each?, position, outer: outer? }))();
    (plan.map(OperatorKind::FlatMap), stream)
}

/// The lists, whose elements become fields of the stream.
fn check_each(
    fields: &Fields,
    input: &Stream,
    outer: bool,
    stream: &mut Stream,
    reader: &mut Reader,
) -> Option<Vec<Arc<crate::expression::Expression>>> {
    let help = "name new fields and the lists whose elements they are, as in `each: { sku: skus }`";
    let node = reader.required(fields, "each", help)?;
    let entries = reader.entries(node, "`each`")?;
    if entries.is_empty() {
        reader.problems.error(node.span, "`each` is empty").help(help);
    }
    let mut each = Vec::new();
    for entry in entries {
        check_field_name(&entry.key, entry.key_span, "choose another name", reader);
        let text = reader.code(&entry.value, &format!("`{}` must be an expression", entry.key));
        let list = text.and_then(|text| {
            let list = input.compile_all(&text, reader)?;
            match list.ty() {
                Type::List(of) => Some((list, of)),
                ty => {
                    let span = text.part(0, text.value.trim_end().chars().count());
                    let message = format!("`{}` is of type {ty}, not a list", entry.key);
                    reader.problems.error(span, message).help(help);
                    None
                }
            }
        });
        // Elements of a field are written in the form in which that was declared.
        let field = list.as_ref().map(|(list, of)| Field {
            name: entry.key.clone(),
            ty: of.element.ty(),
            nullable: of.nullable || outer,
            form: list.as_field().map_or(FieldForm::Plain, |slot| input.schema.fields[slot].form),
        });
        stream.add(&entry.key, field, entry.key_span, &fields.what, reader);
        each.extend(list.map(|(list, _)| Arc::new(list)));
    }
    (!each.is_empty() && each.len() == entries.len()).then_some(each)
}
