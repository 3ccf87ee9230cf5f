//! Operators of a topology file: their common keys, filters and maps.

use std::sync::Arc;

use crate::record::{Field, FieldForm, Type};

use super::diagnostic::{Span, known_names};
use super::plan::{Late, MapSlot, OnError, OperatorKind};
use super::reader::{Fields, Reader, Text};
use super::stream::{Stream, check_field_name};
use super::window::check_window;
use super::yaml::Entry;

/// The kinds of operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Filter,
    Map,
    Window,
}

const WORDS: [(&str, Word); 3] = [("filter", Word::Filter), ("map", Word::Map), ("window", Word::Window)];

const FILTER_KEYS: [&str; 4] = ["type", "input", "where", "on_error"];
const MAP_KEYS: [&str; 6] = ["type", "input", "set", "keep", "drop", "on_error"];
const WINDOW_KEYS: [&str; 8] = ["type", "input", "key_by", "window", "aggregate", "emit", "late", "on_error"];

/// The keys of an operator whose type is not known.
const ALL_KEYS: [&str; 12] = [
    "type",
    "input",
    "on_error",
    "where",
    "set",
    "keep",
    "drop",
    "key_by",
    "window",
    "aggregate",
    "emit",
    "late",
];

/// Kinds that are designed and not built yet.
const WORDS_LATER: [&str; 8] =
    ["join", "reduce", "process", "flat_map", "union", "repartition", "deduplicate", "lookup"];

/// An operator whose input and place in the order are not known yet.
pub(super) struct OperatorHead<'n> {
    pub id: String,
    pub id_span: Span,
    pub word: Option<Word>,
    pub input: Option<Text>,
    fields: Option<Fields<'n>>,
}

/// An operator and where its parts stand.
pub(super) struct OperatorDraft {
    /// `None` if a mistake leaves nothing to build.
    pub kind: Option<OperatorKind>,
    pub stream: Stream,
    pub on_error: OnError,
    pub dead_letter_span: Option<Span>,
    pub late: Option<(String, Span)>,
}

/// Reads what is needed to put the operators in order.
pub(super) fn read_head<'n>(entry: &'n Entry, reader: &mut Reader) -> OperatorHead<'n> {
    reader.check_id(&entry.key, entry.key_span, "an operator's id");
    let what = format!("operator `{}`", entry.key);
    let mut head = OperatorHead {
        id: entry.key.clone(),
        id_span: entry.key_span,
        word: None,
        input: None,
        fields: None,
    };
    let Some(fields) = reader.fields(&entry.value, &what, entry.key_span) else { return head };
    if let Some(node) = reader.required(&fields, "type", "one of `filter`, `map`, `window`") {
        head.word = reader.choice(node, "an operator's type", &WORDS, &WORDS_LATER);
    }
    head.input = read_input(&fields, reader);
    head.fields = Some(fields);
    head
}

/// The `input` of an operator or sink.
pub(super) fn read_input(fields: &Fields, reader: &mut Reader) -> Option<Text> {
    let node = reader.required(fields, "input", "name the source or operator whose rows it reads")?;
    reader.text(node, "`input`")
}

/// Checks an operator against the stream that it reads.
pub(super) fn check_operator(head: &OperatorHead, input: &Stream, reader: &mut Reader) -> OperatorDraft {
    let mut draft = OperatorDraft {
        kind: None,
        stream: Stream::opaque(),
        on_error: OnError::Fail,
        dead_letter_span: None,
        late: None,
    };
    let Some(fields) = &head.fields else { return draft };
    (draft.on_error, draft.dead_letter_span) = reader.on_error(fields);
    match head.word {
        None => reader.check_keys(fields, &ALL_KEYS),
        Some(Word::Filter) => {
            reader.check_keys(fields, &FILTER_KEYS);
            draft.kind = check_filter(fields, input, reader);
            draft.stream = input.clone();
        }
        Some(Word::Map) => {
            reader.check_keys(fields, &MAP_KEYS);
            let (slots, stream) = check_map(fields, input, reader);
            draft.kind = Some(OperatorKind::Map { slots });
            draft.stream = stream;
        }
        Some(Word::Window) => {
            reader.check_keys(fields, &WINDOW_KEYS);
            let (plan, stream, late_span) = check_window(fields, input, reader);
            if let (Some(plan), Some(span)) = (&plan, late_span)
                && let Late::Topic(topic) = &plan.late
            {
                draft.late = Some((topic.clone(), span));
            }
            draft.kind = plan.map(OperatorKind::Window);
            draft.stream = stream;
        }
    }
    draft
}

fn check_filter(fields: &Fields, input: &Stream, reader: &mut Reader) -> Option<OperatorKind> {
    let help = "give the condition that rows must meet, as in `where: 'amount > 0.0'`";
    let node = reader.required(fields, "where", help)?;
    let text = reader.code(node, "`where` must be an expression")?;
    let predicate = input.compile_all(&text, reader)?;
    if predicate.ty() != Type::Bool {
        reader
            .problems
            .error(
                text.part(0, text.value.trim_end().chars().count()),
                format!("`where` is of type {}, not bool", predicate.ty()),
            )
            .help("write a condition, as in `amount > 0.0`");
        return None;
    }
    Some(OperatorKind::Filter { predicate: Arc::new(predicate) })
}

/// A field that `set` makes. `made` is `None` if its expression is wrong.
struct SetField {
    name: String,
    made: Option<(MapSlot, Field)>,
}

fn check_map(fields: &Fields, input: &Stream, reader: &mut Reader) -> (Vec<MapSlot>, Stream) {
    if fields.get("set").is_none() && fields.get("keep").is_none() && fields.get("drop").is_none() {
        reader
            .problems
            .error(fields.owner, format!("{} has none of `set`, `keep` and `drop`", fields.what))
            .help("`set` computes fields, `keep` or `drop` chooses among those of the input");
    }
    let set = check_set(fields, input, reader);
    let keeps = check_keep_and_drop(fields, input, &set, reader);

    let mut stream = Stream {
        opaque: input.opaque,
        meta: input.meta,
        source: input.source.clone(),
        partitioning_broken: input.partitioning_broken,
        ..Stream::default()
    };
    let mut slots = Vec::new();
    let mut emit = |set: &SetField, stream: &mut Stream| match &set.made {
        Some((slot, field)) => {
            slots.push(slot.clone());
            stream.schema.fields.push(field.clone());
        }
        None => stream.broken.push(set.name.clone()),
    };
    for (i, field) in input.schema.fields.iter().enumerate() {
        if let Some(set) = set.iter().find(|set| set.name == field.name) {
            emit(set, &mut stream);
        } else if keeps(&field.name) {
            let same = SetField { name: field.name.clone(), made: Some((MapSlot::Input(i), field.clone())) };
            emit(&same, &mut stream);
        }
    }
    for set in set.iter().filter(|set| input.schema.position(&set.name).is_none()) {
        emit(set, &mut stream);
    }
    let broken = input.broken.iter().filter(|name| keeps(name) && !set.iter().any(|set| set.name == **name));
    stream.broken.extend(broken.cloned());
    stream.partitioned_by = carried(input, &slots, &stream);
    if stream.names().is_empty() && !stream.opaque {
        reader
            .problems
            .error(fields.owner, format!("the rows of {} have no fields", fields.what))
            .help("keep or set at least one");
    }
    (slots, stream)
}

fn check_set(fields: &Fields, input: &Stream, reader: &mut Reader) -> Vec<SetField> {
    let Some(node) = fields.get("set") else { return Vec::new() };
    let entries = reader.entries(node, "`set`").unwrap_or_default();
    let mut set = Vec::new();
    for entry in entries {
        check_field_name(&entry.key, entry.key_span, "choose another name", reader);
        let expression = reader
            .code(&entry.value, &format!("`{}` must be an expression", entry.key))
            .and_then(|text| input.compile_all(&text, reader));
        let made = expression.map(|expression| match expression.as_field() {
            // A renamed field: the value itself, written in the form in which it was declared.
            Some(slot) => {
                let field = Field { name: entry.key.clone(), ..input.schema.fields[slot].clone() };
                (MapSlot::Input(slot), field)
            }
            None => {
                let (ty, nullable) = (expression.ty(), expression.nullable());
                let field = Field { name: entry.key.clone(), ty, nullable, form: FieldForm::Plain };
                (MapSlot::Expression(Arc::new(expression)), field)
            }
        });
        set.push(SetField { name: entry.key.clone(), made });
    }
    set
}

/// Which fields of the input stay.
fn check_keep_and_drop(
    fields: &Fields,
    input: &Stream,
    set: &[SetField],
    reader: &mut Reader,
) -> impl Fn(&str) -> bool + use<> {
    if let (Some(_), Some(drop)) = (fields.entry("keep"), fields.entry("drop")) {
        reader
            .problems
            .error(drop.key_span, format!("{} has both `keep` and `drop`", fields.what))
            .help("`keep` leaves out whatever it does not name: one of the two is enough");
    }
    let is_set = |name: &str| set.iter().any(|set| set.name == name);
    let keep = fields.get("keep").map(|node| reader.names(node, "`keep`").unwrap_or_default());
    for name in keep.iter().flatten() {
        if !is_set(&name.value) {
            input.slot(name, "`keep`", reader);
        }
    }
    let drop = fields.get("drop").map(|node| reader.names(node, "`drop`").unwrap_or_default());
    for name in drop.iter().flatten() {
        if is_set(&name.value) {
            reader
                .problems
                .error(name.span, format!("`{}` is set and dropped at once", name.value))
                .help("`set` replaces the input's field of that name: leave it out of `drop`");
        } else {
            input.slot(name, "`drop`", reader);
        }
    }
    let keep: Option<Vec<String>> = keep.map(|names| names.into_iter().map(|name| name.value).collect());
    let drop: Vec<String> = drop.into_iter().flatten().map(|name| name.value).collect();
    move |name| {
        keep.as_ref().is_none_or(|keep| keep.iter().any(|kept| kept == name))
            && !drop.iter().any(|dropped| dropped == name)
    }
}

/// Under which names the fields of `partitioned_by` are in a map's rows. `slots` are those of the
/// fields of `stream`, in order.
fn carried(input: &Stream, slots: &[MapSlot], stream: &Stream) -> Vec<(String, Vec<String>)> {
    let names_of = |old: &[String]| -> Vec<String> {
        let copied = slots.iter().zip(&stream.schema.fields).filter(|(slot, _)| match slot {
            MapSlot::Input(i) => old.contains(&input.schema.fields[*i].name),
            MapSlot::Expression(_) => false,
        });
        copied.map(|(_, field)| field.name.clone()).collect()
    };
    input.partitioned_by.iter().map(|(field, old)| (field.clone(), names_of(old))).collect()
}

/// Reports an id that is neither a source's nor an operator's.
pub(super) fn report_unknown_input(input: &Text, known: &[&str], reader: &mut Reader) {
    reader
        .problems
        .error(input.span, format!("there is no source or operator `{}`", input.value))
        .help(known_names(&input.value, known));
}
