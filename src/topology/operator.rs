//! Operators of a topology file: their common keys, filters and maps.

use std::sync::Arc;

use crate::expression::Expression;
use crate::record::{Field, FieldForm, Type};

use super::branch::{check_branches, read_branches};
use super::diagnostic::Span;
use super::flat_map::check_flat_map;
use super::keyed::{KeyedDraft, check_deduplicate, check_lag};
use super::plan::{MapSlot, OnError, OperatorKind};
use super::reader::{Fields, Reader, Text};
use super::stream::{Stream, check_field_name};
use super::two_phase::LocalDraft;
use super::union::{check_union, read_inputs};
use super::window::{WindowDraft, check_window};
use super::yaml::{Data, Entry, Node};

/// The kinds of operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Branch,
    Deduplicate,
    Filter,
    FlatMap,
    Lag,
    Map,
    /// A branch, by its number: no type of a file.
    Output(usize),
    Repartition,
    Union,
    Window,
}

const WORDS: [(&str, Word); 9] = [
    ("branch", Word::Branch),
    ("deduplicate", Word::Deduplicate),
    ("filter", Word::Filter),
    ("flat_map", Word::FlatMap),
    ("lag", Word::Lag),
    ("map", Word::Map),
    ("repartition", Word::Repartition),
    ("union", Word::Union),
    ("window", Word::Window),
];

const BRANCH_KEYS: [&str; 5] = ["type", "input", "branches", "otherwise", "on_error"];
const DEDUPLICATE_KEYS: [&str; 6] = ["type", "input", "key_by", "within", "late", "on_error"];
const FILTER_KEYS: [&str; 4] = ["type", "input", "where", "on_error"];
const FLAT_MAP_KEYS: [&str; 8] = ["type", "input", "each", "keep", "drop", "position", "outer", "on_error"];
const LAG_KEYS: [&str; 6] = ["type", "input", "key_by", "set", "ttl", "on_error"];
const MAP_KEYS: [&str; 6] = ["type", "input", "set", "keep", "drop", "on_error"];
const REPARTITION_KEYS: [&str; 5] = ["type", "input", "key_by", "partitions", "on_error"];
const WINDOW_KEYS: [&str; 11] = [
    "type",
    "input",
    "key_by",
    "two_phase",
    "window",
    "aggregate",
    "emit",
    "changelog",
    "late",
    "ttl",
    "on_error",
];

/// The keys of an operator whose type is not known.
const ALL_KEYS: [&str; 23] = [
    "type",
    "input",
    "inputs",
    "on_error",
    "where",
    "set",
    "keep",
    "drop",
    "key_by",
    "partitions",
    "two_phase",
    "window",
    "aggregate",
    "emit",
    "changelog",
    "late",
    "within",
    "ttl",
    "branches",
    "otherwise",
    "each",
    "position",
    "outer",
];

/// Kinds that are designed and not built yet.
const WORDS_LATER: [&str; 4] = ["join", "reduce", "process", "lookup"];

/// A topic has at most so many partitions.
const PARTITIONS_MAX: i32 = 10_000;

/// An operator whose input and place in the order are not known yet.
pub(super) struct OperatorHead<'n> {
    pub id: String,
    pub id_span: Span,
    pub word: Option<Word>,
    /// One, but of a union.
    pub inputs: Vec<Text>,
    /// The names of its branches, if it splits its rows.
    pub branches: Vec<Text>,
    pub fields: Option<Fields<'n>>,
}

/// An operator and where its parts stand.
pub(super) struct OperatorDraft {
    /// `None` if a mistake leaves nothing to build, or if it is a repartition and nothing else.
    pub kind: Option<OperatorKind>,
    /// What its input has to go through first.
    pub repartition: Option<RepartitionDraft>,
    /// What comes before that, under the same id.
    pub local: Option<LocalDraft>,
    pub stream: Stream,
    pub on_error: OnError,
    pub dead_letter_span: Option<Span>,
    pub late: Option<(String, Span)>,
}

impl OperatorDraft {
    fn take(&mut self, keyed: KeyedDraft) {
        let late_topic = keyed.kind.as_ref().and_then(OperatorKind::late_topic).map(str::to_owned);
        self.late = late_topic.zip(keyed.late_span);
        (self.kind, self.stream, self.repartition) = (keyed.kind, keyed.stream, keyed.repartition);
    }
}

/// A change of keys.
pub(super) struct RepartitionDraft {
    /// The slots of the new key.
    pub key: Vec<usize>,
    /// How many partitions the topic gets, if the file says.
    pub partitions: Option<i32>,
}

/// Reads what is needed to put the operators in order.
pub(super) fn read_head<'n>(entry: &'n Entry, reader: &mut Reader) -> OperatorHead<'n> {
    reader.check_id(&entry.key, entry.key_span, "an operator's id");
    let what = format!("operator `{}`", entry.key);
    let mut head = OperatorHead {
        id: entry.key.clone(),
        id_span: entry.key_span,
        word: None,
        inputs: Vec::new(),
        branches: Vec::new(),
        fields: None,
    };
    let Some(fields) = reader.fields(&entry.value, &what, entry.key_span) else { return head };
    let words = WORDS.map(|(word, _)| format!("`{word}`")).join(", ");
    if let Some(node) = reader.required(&fields, "type", &format!("one of {words}")) {
        head.word = reader.choice(node, "an operator's type", &WORDS, &WORDS_LATER);
    }
    head.inputs = match head.word {
        Some(Word::Union) => read_inputs(&fields, reader),
        None if fields.get("input").is_none() && fields.get("inputs").is_some() => Vec::new(),
        _ => read_input(&fields, reader).into_iter().collect(),
    };
    if head.word == Some(Word::Branch) {
        head.branches = read_branches(&fields, reader);
    }
    head.fields = Some(fields);
    head
}

/// The `input` of an operator or sink.
pub(super) fn read_input(fields: &Fields, reader: &mut Reader) -> Option<Text> {
    let node = reader.required(fields, "input", "name the source or operator whose rows it reads")?;
    reader.text(node, "`input`")
}

/// Checks an operator against the streams that it reads.
pub(super) fn check_operator(head: &OperatorHead, inputs: &[&Stream], reader: &mut Reader) -> OperatorDraft {
    let mut draft = OperatorDraft {
        kind: None,
        repartition: None,
        local: None,
        stream: Stream::opaque(),
        on_error: OnError::Fail,
        dead_letter_span: None,
        late: None,
    };
    let unknown = Stream::opaque();
    let input = inputs.first().copied().unwrap_or(&unknown);
    if let Some(Word::Output(branch)) = head.word {
        draft.kind = Some(OperatorKind::Output { branch });
        draft.stream = input.clone();
    }
    let Some(fields) = &head.fields else { return draft };
    (draft.on_error, draft.dead_letter_span) = reader.on_error(fields);
    match head.word {
        None => reader.check_keys(fields, &ALL_KEYS),
        Some(Word::Output(_)) => {}
        Some(Word::Branch) => {
            reader.check_keys(fields, &BRANCH_KEYS);
            draft.kind = check_branches(fields, &head.branches, input, reader);
            draft.stream = input.clone();
        }
        Some(Word::Deduplicate) => {
            reader.check_keys(fields, &DEDUPLICATE_KEYS);
            draft.take(check_deduplicate(fields, input, reader));
        }
        Some(Word::Filter) => {
            reader.check_keys(fields, &FILTER_KEYS);
            draft.kind = check_filter(fields, input, reader);
            draft.stream = input.clone();
        }
        Some(Word::FlatMap) => {
            reader.check_keys(fields, &FLAT_MAP_KEYS);
            (draft.kind, draft.stream) = check_flat_map(fields, input, reader);
        }
        Some(Word::Lag) => {
            reader.check_keys(fields, &LAG_KEYS);
            draft.take(check_lag(fields, input, reader));
        }
        Some(Word::Map) => {
            reader.check_keys(fields, &MAP_KEYS);
            let (slots, stream) = check_map(fields, input, reader);
            draft.kind = Some(OperatorKind::Map { slots });
            draft.stream = stream;
        }
        Some(Word::Repartition) => {
            reader.check_keys(fields, &REPARTITION_KEYS);
            (draft.repartition, draft.stream) = check_repartition(fields, input, reader);
        }
        Some(Word::Union) => {
            reader.check_keys(fields, &["type", "inputs"]);
            (draft.kind, draft.stream) = check_union(head, inputs, reader);
        }
        Some(Word::Window) => {
            reader.check_keys(fields, &WINDOW_KEYS);
            let window = check_window(fields, input, reader);
            let WindowDraft { kind, stream, repartition, local, late_span } = window;
            draft.local = local;
            draft.take(KeyedDraft { kind, stream, repartition, late_span });
        }
    }
    draft
}

/// The fields of `key_by` with their slots; a slot is `None` if the field is not known.
pub(super) fn check_key_by(
    fields: &Fields,
    input: &Stream,
    help: &str,
    reader: &mut Reader,
) -> (Vec<Option<usize>>, Vec<Text>) {
    let Some(node) = reader.required(fields, "key_by", help) else { return (Vec::new(), Vec::new()) };
    let names = reader.names(node, "`key_by`").unwrap_or_default();
    if matches!(&node.data, Data::Sequence(items) if items.is_empty()) {
        reader.problems.error(node.span, "`key_by` is empty").help(help);
    }
    let slots = names.iter().map(|name| input.key_slot(name, "`key_by`", reader)).collect();
    (slots, names)
}

fn check_repartition(
    fields: &Fields,
    input: &Stream,
    reader: &mut Reader,
) -> (Option<RepartitionDraft>, Stream) {
    let help = "name the fields whose values are to decide a row's partition, as in `key_by: [customer]`";
    let (slots, names) = check_key_by(fields, input, help, reader);
    let partitions = match fields.get("partitions") {
        Some(node) => reader.int(node, "`partitions`", 1..=PARTITIONS_MAX).map(Some),
        None => Some(None),
    };
    let names: Vec<String> = names.into_iter().map(|name| name.value).collect();
    let key: Option<Vec<usize>> = slots.into_iter().collect();
    let key = key.filter(|key| !key.is_empty());
    let mut stream = input.repartitioned(&names);
    stream.partitioning_broken |= key.is_none();
    let draft = (|| Some(RepartitionDraft { key: key?, partitions: partitions? }))();
    (draft, stream)
}

fn check_filter(fields: &Fields, input: &Stream, reader: &mut Reader) -> Option<OperatorKind> {
    let help = "give the condition that rows must meet, as in `where: 'amount > 0.0'`";
    let node = reader.required(fields, "where", help)?;
    let predicate = check_condition(node, "`where`", input, reader)?;
    Some(OperatorKind::Filter { predicate: Arc::new(predicate) })
}

/// An expression of type bool.
pub(super) fn check_condition(
    node: &Node,
    what: &str,
    input: &Stream,
    reader: &mut Reader,
) -> Option<Expression> {
    let text = reader.code(node, &format!("{what} must be an expression"))?;
    let condition = input.compile_all(&text, reader)?;
    if condition.ty() != Type::Bool {
        let span = text.part(0, text.value.trim_end().chars().count());
        let message = format!("{what} is of type {}, not bool", condition.ty());
        reader.problems.error(span, message).help("write a condition, as in `amount > 0.0`");
        return None;
    }
    Some(condition)
}

/// A field that `set` makes. `made` is `None` if its expression is wrong.
pub(super) struct SetField {
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
        ways: input.ways,
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
pub(super) fn check_keep_and_drop(
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
pub(super) fn carried(input: &Stream, slots: &[MapSlot], stream: &Stream) -> Vec<(String, Vec<String>)> {
    let names_of = |old: &[String]| -> Vec<String> {
        let copied = slots.iter().zip(&stream.schema.fields).filter(|(slot, _)| match slot {
            MapSlot::Input(i) => old.contains(&input.schema.fields[*i].name),
            MapSlot::Expression(_) => false,
        });
        copied.map(|(_, field)| field.name.clone()).collect()
    };
    input.partitioned_by.iter().map(|(field, old)| (field.clone(), names_of(old))).collect()
}
