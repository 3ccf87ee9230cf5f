//! Window operators of a topology file.

use std::sync::Arc;

use crate::expression::Expression;
use crate::record::{Field, FieldForm, Type};

use super::aggregate::{Call, FUNCTIONS, function, split_call};
use super::diagnostic::{Span, known_names, quoted};
use super::plan::{AggregateFunction, AggregatePlan, Emit, Late, WindowPlan};
use super::reader::{Fields, Reader, Text};
use super::stream::{Stream, check_field_name};
use super::yaml::{Data, Entry};

/// Checks a window operator; also returns the rows that it emits and where its late topic stands.
pub(super) fn check_window(
    fields: &Fields,
    input: &Stream,
    reader: &mut Reader,
) -> (Option<WindowPlan>, Stream, Option<Span>) {
    let mut stream = Stream { source: input.source.clone(), ..Stream::default() };
    let key = check_key_by(fields, input, &mut stream, reader);
    let lengths = read_lengths(fields, reader);
    for name in ["window_start", "window_end"] {
        let field = plain(name, Type::Timestamp, false);
        stream.add(name, Some(field), fields.owner, &fields.what, reader);
    }
    let aggregates = check_aggregates(fields, input, &mut stream, reader);
    let emit = match fields.get("emit") {
        Some(node) => {
            let choices = [("on_close", Emit::OnClose), ("on_update", Emit::OnUpdate)];
            reader.choice(node, "`emit`", &choices, &["on_time"])
        }
        None => Some(Emit::default()),
    };
    if emit == Some(Emit::OnUpdate) {
        let span = fields.entry("emit").map_or(fields.owner, |entry| entry.value.span);
        stream.add("final", Some(plain("final", Type::Bool, false)), span, &fields.what, reader);
    }
    let (late, late_span) = read_late(fields, reader);
    let plan = (|| {
        let (size_ms, allowed_lateness_ms) = lengths?;
        Some(WindowPlan {
            key: key?,
            size_ms,
            allowed_lateness_ms,
            aggregates: aggregates?,
            emit: emit?,
            late,
        })
    })();
    (plan, stream, late_span)
}

fn plain(name: &str, ty: Type, nullable: bool) -> Field {
    Field { name: name.to_owned(), ty, nullable, form: FieldForm::Plain }
}

/// The key's slots. Its fields become the first of the window's rows; they are never null there.
fn check_key_by(
    fields: &Fields,
    input: &Stream,
    stream: &mut Stream,
    reader: &mut Reader,
) -> Option<Vec<usize>> {
    stream.partitioning_broken = true; // until the key is known to cover the partitioning
    let help = "name the fields by which rows are grouped, as in `key_by: [customer]`";
    let node = reader.required(fields, "key_by", help)?;
    let names = reader.names(node, "`key_by`")?;
    if names.is_empty() {
        if matches!(&node.data, Data::Sequence(items) if items.is_empty()) {
            reader.problems.error(node.span, "`key_by` is empty").help(help);
        }
        return None;
    }
    let mut slots = Vec::new();
    for name in &names {
        let slot = input.slot(name, "`key_by`", reader);
        let field = slot.map(|slot| Field { nullable: false, ..input.schema.fields[slot].clone() });
        stream.add(&name.value, field, name.span, &fields.what, reader);
        slots.extend(slot);
    }
    if slots.len() < names.len() {
        return None;
    }
    if !covers(&names, node.span, input, reader) {
        return None;
    }
    stream.partitioning_broken = input.partitioning_broken;
    stream.partitioned_by = input.partitioned_by.clone();
    for (_, carried) in &mut stream.partitioned_by {
        carried.retain(|name| names.iter().any(|key| key.value == *name));
    }
    Some(slots)
}

/// Whether all rows of one key lie in one partition; reports it if not.
fn covers(key: &[Text], span: Span, input: &Stream, reader: &mut Reader) -> bool {
    if input.opaque || input.partitioning_broken {
        return true;
    }
    let source = &input.source;
    if input.partitioned_by.is_empty() {
        let names: Vec<&str> = key.iter().map(|name| name.value.as_str()).collect();
        reader
            .problems
            .error(span, format!("source `{source}` does not say by which fields its topic is partitioned"))
            .help(format!(
                "a window needs all records of one key in one partition. If the topic's record key decides that, \
                 declare the fields it is made of on the source, as in `partitioned_by: [{}]`. Repartitioning \
                 inside a topology is not available yet",
                names.join(", ")
            ));
        return false;
    }
    let in_key = |names: &[String]| names.iter().any(|name| key.iter().any(|key| key.value == *name));
    let missing: Vec<_> = input.partitioned_by.iter().filter(|(_, names)| !in_key(names)).collect();
    if missing.is_empty() {
        return true;
    }
    let lost: Vec<&str> =
        missing.iter().filter(|(_, names)| names.is_empty()).map(|(field, _)| field.as_str()).collect();
    let to_add: Vec<&str> =
        missing.iter().filter_map(|(_, names)| names.first()).map(String::as_str).collect();
    let all: Vec<&str> = input.partitioned_by.iter().map(|(field, _)| field.as_str()).collect();
    let remedy = match lost.is_empty() {
        true => format!("add {} to `key_by`", quoted(&to_add)),
        false => format!("let {} through unchanged and name it in `key_by`", quoted(&lost)),
    };
    reader
        .problems
        .error(
            span,
            format!("`key_by` does not cover {}, by which the topic of source `{source}` is partitioned", quoted(&all)),
        )
        .help(format!(
            "records of one key would lie in several partitions, and repartitioning is not available yet: {remedy}, \
             or have the topic written with a key that `key_by` covers and declare it in `partitioned_by`"
        ));
    false
}

/// The window's size and allowed lateness in milliseconds.
fn read_lengths(fields: &Fields, reader: &mut Reader) -> Option<(i64, i64)> {
    let help = "as in `window: { type: tumbling, size: 1m }`";
    let node = reader.required(fields, "window", help)?;
    let owner = fields.entry("window").map_or(fields.owner, |entry| entry.key_span);
    let inner = reader.fields(node, &format!("`window` of {}", fields.what), owner)?;
    reader.check_keys(&inner, &["type", "size", "allowed_lateness"]);
    let ty = reader.required(&inner, "type", "add `type: tumbling`").and_then(|node| {
        reader.choice(
            node,
            "a window's type",
            &[("tumbling", ())],
            &["sliding", "session", "global", "count"],
        )
    });
    let size =
        reader.required(&inner, "size", "give the window's length, as in `size: 1m`").and_then(|node| {
            let size = reader.duration(node, "`size`")?;
            if size == 0 {
                reader.problems.error(node.span, "a window's size must be more than 0").help(help);
            }
            Some(size)
        });
    let lateness = match inner.get("allowed_lateness") {
        Some(node) => reader.duration(node, "`allowed_lateness`"),
        None => Some(0),
    };
    ty?;
    Some((size?, lateness?))
}

fn check_aggregates(
    fields: &Fields,
    input: &Stream,
    stream: &mut Stream,
    reader: &mut Reader,
) -> Option<Vec<AggregatePlan>> {
    let help = "say what is computed, as in `aggregate: { orders: 'count()' }`";
    let node = reader.required(fields, "aggregate", help)?;
    let entries = reader.entries(node, "`aggregate`")?;
    if entries.is_empty() {
        reader.problems.error(node.span, format!("{} has no aggregate", fields.what)).help(help);
    }
    let mut aggregates = Vec::new();
    for entry in entries {
        check_field_name(&entry.key, entry.key_span, "choose another name", reader);
        let aggregate = check_aggregate(entry, input, reader);
        let field = aggregate
            .as_ref()
            .map(|aggregate| plain(&entry.key, aggregate.ty, aggregate.function != AggregateFunction::Count));
        stream.add(&entry.key, field, entry.key_span, &fields.what, reader);
        aggregates.extend(aggregate);
    }
    (aggregates.len() == entries.len()).then_some(aggregates)
}

fn check_aggregate(entry: &Entry, input: &Stream, reader: &mut Reader) -> Option<AggregatePlan> {
    let text =
        reader.code(&entry.value, &format!("`{}` must be an aggregate such as `sum(amount)`", entry.key))?;
    let characters: Vec<char> = text.value.chars().collect();
    let call = match split_call(&characters) {
        Ok(call) => call,
        Err(mistake) => {
            reader.problems.error(text.part(mistake.start, mistake.end), mistake.message).help(mistake.help);
            return None;
        }
    };
    let name: String = characters[call.function.0..call.function.1].iter().collect();
    let Some(function) = function(&name) else {
        let names: Vec<&str> = FUNCTIONS.iter().map(|(name, _)| *name).collect();
        let span = text.part(call.function.0, call.function.1);
        reader.problems.error(span, format!("unknown aggregate `{name}`")).help(known_names(&name, &names));
        return None;
    };
    let argument = match call.argument {
        Some(part) => Some(input.compile(&text, part, reader)?),
        None if function == AggregateFunction::Count => None,
        None => {
            let span = text.part(call.function.0, characters.len());
            reader
                .problems
                .error(span, format!("`{name}` needs an argument"))
                .help(format!("name a field or write an expression: `{name}(amount)`"));
            return None;
        }
    };
    let ty = output_type(function, &name, argument.as_ref(), &text, &call, reader)?;
    Some(AggregatePlan { name: entry.key.clone(), function, argument: argument.map(Arc::new), ty })
}

/// The type of an aggregate's result; reports an argument that it cannot take.
fn output_type(
    function: AggregateFunction,
    name: &str,
    argument: Option<&Expression>,
    text: &Text,
    call: &Call,
    reader: &mut Reader,
) -> Option<Type> {
    let number = [Type::Int, Type::Double];
    let ordered = [Type::Int, Type::Double, Type::Timestamp, Type::Duration, Type::String];
    let Some(ty) = argument.map(Expression::ty) else { return Some(Type::Int) };
    let (accepted, output): (&[Type], Type) = match function {
        AggregateFunction::Count => return Some(Type::Int),
        AggregateFunction::Sum => (&number, ty),
        AggregateFunction::Avg => (&number, Type::Double),
        AggregateFunction::Min | AggregateFunction::Max => (&ordered, ty),
    };
    if accepted.contains(&ty) {
        return Some(output);
    }
    let (start, end) = call.argument.unwrap_or(call.function);
    let names: Vec<String> = accepted.iter().map(Type::to_string).collect();
    reader
        .problems
        .error(text.part(start, end), format!("`{name}` cannot take a value of type {ty}"))
        .help(format!("it takes {}; convert the value or count it", names.join(", ")));
    None
}

/// `late: drop | { topic: … }`, and where the topic stands.
fn read_late(fields: &Fields, reader: &mut Reader) -> (Late, Option<Span>) {
    let Some(entry) = fields.entry("late") else { return (Late::Drop, None) };
    if !matches!(entry.value.data, Data::Mapping(_)) {
        reader.choice(&entry.value, "`late`", &[("drop", ()), ("{ topic: … }", ())], &[]);
        return (Late::Drop, None);
    }
    let what = format!("`late` of {}", fields.what);
    let Some(inner) = reader.fields(&entry.value, &what, entry.key_span) else { return (Late::Drop, None) };
    reader.check_keys(&inner, &["topic"]);
    let topic = reader.required(&inner, "topic", "name the topic that takes late records");
    match topic.and_then(|node| reader.topic(node)) {
        Some(topic) => (Late::Topic(topic.value), Some(topic.span)),
        None => (Late::Drop, None),
    }
}
