//! Window operators of a topology file.

use std::sync::Arc;

use crate::expression::Expression;
use crate::record::{Field, FieldForm, Type};
use crate::window::{AlignedWindows, SessionWindows, WindowKind};

use super::aggregate::{FUNCTIONS, function, split_call};
use super::diagnostic::{Span, known_names, quoted};
use super::plan::{AggregateFunction, AggregatePlan, Emit, Late, WindowPlan, Windows};
use super::reader::{Fields, Reader, Text};
use super::stream::{Stream, check_field_name};
use super::yaml::{Data, Entry, Node};

/// Checks a window operator; also returns the rows that it emits and where its late topic stands.
pub(super) fn check_window(
    fields: &Fields,
    input: &Stream,
    reader: &mut Reader,
) -> (Option<WindowPlan>, Stream, Option<Span>) {
    let mut stream = Stream { source: input.source.clone(), ..Stream::default() };
    let key = check_key_by(fields, input, &mut stream, reader);
    let windows = read_windows(fields, reader);
    for name in ["window_start", "window_end"] {
        let field = plain(name, Type::Timestamp, false);
        stream.add(name, Some(field), fields.owner, &fields.what, reader);
    }
    let aggregates = check_aggregates(fields, input, &mut stream, reader);
    let emit = match fields.get("emit") {
        Some(node) => {
            let choices =
                [("on_close", Emit::OnClose), ("on_time", Emit::OnTime), ("on_update", Emit::OnUpdate)];
            reader.choice(node, "`emit`", &choices, &[])
        }
        None => Some(Emit::default()),
    };
    if let Some(mark) = emit.and_then(Emit::mark) {
        let span = fields.entry("emit").map_or(fields.owner, |entry| entry.value.span);
        stream.add(mark, Some(plain(mark, Type::Bool, false)), span, &fields.what, reader);
    }
    let (late, late_span) = read_late(fields, reader);
    let plan = (|| {
        let (windows, allowed_lateness_ms) = windows?;
        Some(WindowPlan {
            key: key?,
            windows,
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

/// The windows and the allowed lateness in milliseconds.
fn read_windows(fields: &Fields, reader: &mut Reader) -> Option<(Windows, i64)> {
    let help = "as in `window: { type: tumbling, size: 1m }`";
    let node = reader.required(fields, "window", help)?;
    let owner = fields.entry("window").map_or(fields.owner, |entry| entry.key_span);
    let inner = reader.fields(node, &format!("`window` of {}", fields.what), owner)?;
    let ty = reader
        .required(&inner, "type", "add `type: tumbling`")
        .and_then(|node| reader.choice(node, "a window's type", &SHAPES, &["global", "count"]));
    if ty == Some(Shape::Session) {
        return read_sessions(&inner, reader);
    }
    let interval = match ty {
        Some(Shape::Sliding) => Some(("slide", "say how often a window begins, as in `slide: 10s`")),
        Some(Shape::Cumulative) => Some(("step", "say how much longer each window is, as in `step: 10s`")),
        _ => None,
    };
    let mut known = vec!["type", "size", "offset", "allowed_lateness"];
    match (ty, interval) {
        (None, _) => known.extend(["slide", "step", "gap"]),
        (_, interval) => known.extend(interval.map(|(key, _)| key)),
    }
    reader.check_keys(&inner, &known);
    let size = read_length(&inner, "size", "give the window's length, as in `size: 1m`", reader);
    let interval = match interval {
        Some((key, help)) => read_length(&inner, key, help, reader).map(Some),
        None => Some(None),
    };
    let mut optional = |key: &str| match inner.get(key) {
        Some(node) => reader.duration(node, &format!("`{key}`")),
        None => Some(0),
    };
    let (lateness, offset) = (optional("allowed_lateness"), optional("offset"));
    let (ty, size, interval) = (ty?, size?, interval?);
    let windows = match (ty, interval) {
        (Shape::Sliding, Some(slide)) => AlignedWindows::sliding(size, slide),
        (Shape::Cumulative, Some(step)) => AlignedWindows::cumulative(size, step),
        _ => AlignedWindows::tumbling(size),
    };
    let offset = offset?;
    check_lengths(&inner, &windows, offset, reader)?;
    Some((Windows::Aligned(windows.with_offset(offset)), lateness?))
}

/// Sessions and the allowed lateness in milliseconds.
fn read_sessions(fields: &Fields, reader: &mut Reader) -> Option<(Windows, i64)> {
    reader.check_keys(fields, &["type", "gap", "allowed_lateness"]);
    let help = "say after which time without rows a session ends, as in `gap: 30m`";
    let gap = read_length(fields, "gap", help, reader);
    let lateness = match fields.get("allowed_lateness") {
        Some(node) => reader.duration(node, "`allowed_lateness`"),
        None => Some(0),
    };
    Some((Windows::Session(SessionWindows::new(gap?)), lateness?))
}

/// A length of more than 0, in milliseconds.
fn read_length(fields: &Fields, key: &str, help: &str, reader: &mut Reader) -> Option<i64> {
    let node = reader.required(fields, key, help)?;
    let length = reader.duration(node, &format!("`{key}`"))?;
    if length == 0 {
        reader.problems.error(node.span, format!("a window's {key} must be more than 0")).help(help);
        return None;
    }
    Some(length)
}

/// Whether the lengths of a window fit one another; reports it if not.
fn check_lengths(
    fields: &Fields,
    windows: &AlignedWindows,
    offset_ms: i64,
    reader: &mut Reader,
) -> Option<()> {
    let span = |key: &str| fields.get(key).map_or(fields.owner, |node| node.span);
    let (size_ms, period) = match windows.kind() {
        WindowKind::Tumbling { size_ms } => (size_ms, ("size", size_ms)),
        WindowKind::Sliding { size_ms, slide_ms } => (size_ms, ("slide", slide_ms)),
        WindowKind::Cumulative { size_ms, .. } => (size_ms, ("size", size_ms)),
    };
    if let WindowKind::Cumulative { size_ms, step_ms } = windows.kind()
        && size_ms % step_ms != 0
    {
        let (size, step) = (duration(size_ms), duration(step_ms));
        reader
            .problems
            .error(span("step"), format!("`size` ({size}) is not a multiple of `step` ({step})"))
            .help("the last of the growing windows must be as long as `size`");
        return None;
    }
    if windows.panes_max() > PANES_MAX {
        let (size, pane) = (duration(size_ms), duration(windows.pane_ms()));
        reader
            .problems
            .error(fields.owner, format!("a window of {size} would consist of more than {PANES_MAX} parts of {pane}"))
            .help(
                "windows that overlap share parts as long as the greatest common divisor of their lengths: choose \
                 lengths that have more in common",
            );
        return None;
    }
    if offset_ms >= period.1 {
        let length = duration(period.1);
        reader
            .problems
            .error(span("offset"), format!("`offset` must be less than `{}` ({length})", period.0))
            .help("windows recur, so a larger offset is the same as a smaller one");
        return None;
    }
    Some(())
}

/// The kinds of windows, and what they are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Tumbling,
    Sliding,
    Cumulative,
    Session,
}

const SHAPES: [(&str, Shape); 4] = [
    ("tumbling", Shape::Tumbling),
    ("sliding", Shape::Sliding),
    ("cumulative", Shape::Cumulative),
    ("session", Shape::Session),
];

/// A window has at most so many panes: a row is made of as many values.
const PANES_MAX: i64 = 10_000;

/// Windows as text, for people and for fingerprints: its form never changes.
pub(super) fn description(windows: &Windows) -> String {
    let windows = match windows {
        Windows::Aligned(windows) => windows,
        Windows::Session(windows) => return format!("session {}", duration(windows.gap_ms())),
    };
    let mut text = match windows.kind() {
        WindowKind::Tumbling { size_ms } => format!("tumbling {}", duration(size_ms)),
        WindowKind::Sliding { size_ms, slide_ms } => {
            format!("sliding {} every {}", duration(size_ms), duration(slide_ms))
        }
        WindowKind::Cumulative { size_ms, step_ms } => {
            format!("cumulative {} by {}", duration(size_ms), duration(step_ms))
        }
    };
    if windows.offset_ms() != 0 {
        text.push_str(&format!(" offset {}", duration(windows.offset_ms())));
    }
    text
}

/// A duration in the largest unit that takes a whole number of it.
pub(super) fn duration(ms: i64) -> String {
    const UNITS: [(i64, &str); 4] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    match UNITS.iter().find(|(unit, _)| ms != 0 && ms % unit == 0) {
        Some((unit, name)) => format!("{}{name}", ms / unit),
        None => format!("{ms}ms"),
    }
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
    match &entry.value.data {
        Data::Mapping(_) => check_long_aggregate(entry, input, reader),
        _ => check_short_aggregate(entry, input, reader),
    }
}

/// An aggregate as text: `sum(amount)`.
fn check_short_aggregate(entry: &Entry, input: &Stream, reader: &mut Reader) -> Option<AggregatePlan> {
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
    let function = known_function(&name, text.part(call.function.0, call.function.1), reader)?;
    if compares(function) {
        reader
            .problems
            .error(text.part(call.function.0, characters.len()), format!("`{name}` needs two expressions"))
            .help(format!("write it as a mapping: `{}`", long_form(&name)));
        return None;
    }
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
    let (start, end) = call.argument.unwrap_or(call.function);
    let ty = output_type(function, &name, argument.as_ref(), text.part(start, end), reader)?;
    let argument = argument.map(Arc::new);
    Some(AggregatePlan { name: entry.key.clone(), function, argument, by: None, condition: None, ty })
}

/// An aggregate as a mapping: `{ sum: { of: 'amount', where: 'amount > 10.0' } }`.
fn check_long_aggregate(entry: &Entry, input: &Stream, reader: &mut Reader) -> Option<AggregatePlan> {
    let entries = reader.entries(&entry.value, &format!("`{}`", entry.key))?;
    let [call] = entries else {
        reader
            .problems
            .error(entry.value.span, format!("`{}` must have one key, the function", entry.key))
            .help(format!("as in `{}`", long_form("sum")));
        return None;
    };
    let function = known_function(&call.key, call.key_span, reader)?;
    let what = format!("`{}` of `{}`", call.key, entry.key);
    let fields = reader.fields(&call.value, &what, call.key_span)?;
    let keys: &[&str] = if compares(function) { &["of", "by", "where"] } else { &["of", "where"] };
    reader.check_keys(&fields, keys);
    let help = format!("as in `{}`", long_form(&call.key));
    let argument = match function {
        AggregateFunction::Count => fields.get("of"),
        _ => Some(reader.required(&fields, "of", &help)?),
    };
    let mut expression = |key: &str, node: Option<&Node>| match node {
        None => Some(None),
        Some(node) => {
            let text = reader.code(node, &format!("`{key}` of {what} must be an expression"))?;
            let expression = input.compile_all(&text, reader)?;
            Some(Some((expression, text.part(0, text.value.trim_end().chars().count()))))
        }
    };
    let argument = expression("of", argument);
    let condition = expression("where", fields.get("where"));
    let by = expression("by", fields.get("by").filter(|_| compares(function)));
    let (argument, condition, by) = (argument?, condition?, by?);
    if compares(function) {
        reader.required(&fields, "by", &help)?;
    }
    if let Some((by, span)) = &by
        && !ORDERED.contains(&by.ty())
    {
        refuse_type(&call.key, by.ty(), &ORDERED, *span, reader);
        return None;
    }
    if let Some((condition, span)) = &condition
        && condition.ty() != Type::Bool
    {
        let message = format!("`where` is of type {}, not bool", condition.ty());
        reader.problems.error(*span, message).help("write a condition, as in `amount > 0.0`");
        return None;
    }
    let span = argument.as_ref().map_or(call.key_span, |(_, span)| *span);
    let of = |part: Option<(Expression, Span)>| part.map(|(expression, _)| Arc::new(expression));
    let ty = output_type(function, &call.key, argument.as_ref().map(|(argument, _)| argument), span, reader)?;
    let (argument, by, condition) = (of(argument), of(by), of(condition));
    Some(AggregatePlan { name: entry.key.clone(), function, argument, by, condition, ty })
}

/// Whether a function compares something else than its argument.
fn compares(function: AggregateFunction) -> bool {
    matches!(function, AggregateFunction::MinBy | AggregateFunction::MaxBy)
}

/// A function as a mapping, for help.
fn long_form(name: &str) -> String {
    match function(name).is_some_and(compares) {
        true => format!("{{ {name}: {{ of: customer, by: amount }} }}"),
        false => format!("{{ {name}: {{ of: amount, where: 'amount > 10.0' }} }}"),
    }
}

fn known_function(name: &str, span: Span, reader: &mut Reader) -> Option<AggregateFunction> {
    let known = function(name);
    if known.is_none() {
        let names: Vec<&str> = FUNCTIONS.iter().map(|(name, _)| *name).collect();
        reader.problems.error(span, format!("unknown aggregate `{name}`")).help(known_names(name, &names));
    }
    known
}

const NUMBERS: [Type; 2] = [Type::Int, Type::Double];
const ORDERED: [Type; 5] = [Type::Int, Type::Double, Type::Timestamp, Type::Duration, Type::String];

/// The type of an aggregate's result; reports an argument that it cannot take.
fn output_type(
    function: AggregateFunction,
    name: &str,
    argument: Option<&Expression>,
    span: Span,
    reader: &mut Reader,
) -> Option<Type> {
    use AggregateFunction as F;
    let Some(ty) = argument.map(Expression::ty) else { return Some(Type::Int) };
    let (accepted, output): (&[Type], Type) = match function {
        F::Count => return Some(Type::Int),
        F::First | F::Last | F::MinBy | F::MaxBy => return Some(ty),
        F::Sum => (&NUMBERS, ty),
        F::Avg | F::Variance | F::VariancePop | F::Stddev | F::StddevPop => (&NUMBERS, Type::Double),
        F::Min | F::Max => (&ORDERED, ty),
    };
    if accepted.contains(&ty) {
        return Some(output);
    }
    refuse_type(name, ty, accepted, span, reader);
    None
}

fn refuse_type(name: &str, ty: Type, accepted: &[Type], span: Span, reader: &mut Reader) {
    let names: Vec<String> = accepted.iter().map(Type::to_string).collect();
    reader
        .problems
        .error(span, format!("`{name}` cannot take a value of type {ty}"))
        .help(format!("it takes {}; convert the value or count it", names.join(", ")));
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
