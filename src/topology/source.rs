//! Sources of a topology file.

use std::sync::Arc;

use crate::expression::Expression;
use crate::record::{EACH, Field, FieldForm, SourceField, SourceSchema, Type, shown_path};

use super::diagnostic::{Span, known_names, nearest, quoted};
use super::plan::{Alignment, EventTime, EventTimePlan, OnError, SourcePlan, Start};
use super::reader::{Fields, Reader, Text};
use super::stream::{Stream, check_field_name};
use super::yaml::{Data, Entry, Node};

/// How far a watermark stays behind by default: enough for several producers of one partition whose
/// clocks and batches differ a little.
const MAX_OUT_OF_ORDERNESS_MS: i64 = 5_000;

/// How far in the future a record may be dated by default: a day.
const MAX_AHEAD_MS: i64 = 24 * 60 * 60 * 1000;

const KEYS: [&str; 8] =
    ["topic", "partitioned_by", "format", "schema", "event_time", "start", "on_error", "create"];

const EVENT_TIME_KEYS: [&str; 7] =
    ["field", "expression", "punctuated", "max_out_of_orderness", "max_ahead", "idle_timeout", "alignment"];

/// A field's type as the file names it.
const TYPES: [(&str, Type, FieldForm); 6] = [
    ("string", Type::String, FieldForm::Plain),
    ("bool", Type::Bool, FieldForm::Plain),
    ("int", Type::Int, FieldForm::Plain),
    ("double", Type::Double, FieldForm::Plain),
    ("timestamp_ms", Type::Timestamp, FieldForm::Plain),
    ("timestamp", Type::Timestamp, FieldForm::Rfc3339),
];

/// Names that other systems have for these types.
const SYNONYMS: [(&str, &str); 14] = [
    ("boolean", "bool"),
    ("integer", "int"),
    ("long", "int"),
    ("bigint", "int"),
    ("int64", "int"),
    ("int32", "int"),
    ("float", "double"),
    ("float64", "double"),
    ("number", "double"),
    ("decimal", "double"),
    ("text", "string"),
    ("varchar", "string"),
    ("datetime", "timestamp"),
    ("date-time", "timestamp"),
];

/// A source and where its parts stand.
pub(super) struct SourceDraft {
    pub plan: SourcePlan,
    pub stream: Stream,
    pub id_span: Span,
    pub topic_span: Span,
    pub dead_letter_span: Option<Span>,
}

/// Reads a source.
pub(super) fn read_source(entry: &Entry, reader: &mut Reader) -> SourceDraft {
    let what = format!("source `{}`", entry.key);
    reader.check_id(&entry.key, entry.key_span, "a source's id");
    let mut draft = SourceDraft {
        plan: SourcePlan {
            id: entry.key.clone(),
            topic: String::new(),
            create: None,
            start: Start::default(),
            partitioned_by: Vec::new(),
            schema: SourceSchema::default(),
            event_time: EventTimePlan {
                time: EventTime::Record,
                punctuated: None,
                max_out_of_orderness_ms: MAX_OUT_OF_ORDERNESS_MS,
                max_ahead_ms: MAX_AHEAD_MS,
                idle_timeout_ms: None,
            },
            alignment: None,
            on_error: OnError::Fail,
        },
        stream: Stream::opaque(),
        id_span: entry.key_span,
        topic_span: entry.key_span,
        dead_letter_span: None,
    };
    let Some(fields) = reader.fields(&entry.value, &what, entry.key_span) else { return draft };
    reader.check_keys(&fields, &KEYS);
    if let Some(topic) = reader
        .required(&fields, "topic", "name the Kafka topic that it reads")
        .and_then(|node| reader.topic(node))
    {
        draft.topic_span = topic.span;
        draft.plan.topic = topic.value;
    }
    reader.format(&fields);
    draft.plan.create = reader.create(&fields);
    (draft.plan.on_error, draft.dead_letter_span) = reader.on_error(&fields);
    if let Some(node) = fields.get("start") {
        let choices = [("earliest", Start::Earliest), ("latest", Start::Latest)];
        draft.plan.start = reader.choice(node, "`start`", &choices, &[]).unwrap_or_default();
    }
    let help =
        "declare the fields that the topology uses, as in `schema: { customer: string, amount: double }`";
    if let Some(node) = reader.required(&fields, "schema", help) {
        (draft.plan.schema, draft.stream) = read_schema(node, &what, reader);
    }
    draft.stream.source.clone_from(&entry.key);
    read_event_time(&fields, &mut draft, reader);
    read_partitioned_by(&fields, &mut draft, reader);
    draft
}

fn read_schema(node: &Node, what: &str, reader: &mut Reader) -> (SourceSchema, Stream) {
    let mut schema = SourceSchema::default();
    let Some(entries) = reader.entries(node, &format!("the schema of {what}")) else {
        return (schema, Stream::opaque());
    };
    if entries.is_empty() {
        reader
            .problems
            .error(node.span, format!("the schema of {what} declares no field"))
            .help("declare at least one, as in `schema: { customer: string }`");
    }
    let mut broken = Vec::new();
    let mut paths: Vec<(Vec<String>, &str)> = Vec::new();
    for entry in entries {
        let help =
            "a field with another name in the records has a path: `name: { type: string, path: its-name }`";
        check_field_name(&entry.key, entry.key_span, help, reader);
        let Some((field, path)) = read_field(entry, reader) else {
            broken.push(entry.key.clone());
            continue;
        };
        check_path(entry, &path, &paths, reader);
        paths.push((path.clone(), &entry.key));
        schema.fields.push(SourceField { field, path });
    }
    let stream = Stream { schema: schema.schema(), broken, meta: true, ..Stream::default() };
    (schema, stream)
}

/// A field's declaration: `type`, or `{ type, path }`, of a list with `nullable`, too.
fn read_field(entry: &Entry, reader: &mut Reader) -> Option<(Field, Vec<String>)> {
    let mut path = Some(vec![entry.key.clone()]);
    let mut declared = &*entry.value;
    let mut nullable_list = None;
    if let Data::Mapping(_) = &entry.value.data {
        let what = format!("field `{}`", entry.key);
        let fields = reader.fields(&entry.value, &what, entry.key_span)?;
        reader.check_keys(&fields, &["type", "path", "nullable"]);
        if let Some(node) = fields.get("path") {
            path = read_path(node, reader);
        }
        nullable_list = fields.entry("nullable");
        declared = reader.required(&fields, "type", "give it one, as in `type: string`")?;
    }
    let name = entry.key.clone();
    if let Data::Sequence(items) = &declared.data {
        let [element] = &items[..] else {
            let message = format!("the elements of the list `{name}` must have one type");
            reader.problems.error(declared.span, message).help("as in `[string]`, or `[string?]` with nulls");
            return None;
        };
        let (ty, elements_nullable, form) = read_type(element, reader)?;
        let nullable = match nullable_list {
            Some(entry) => reader.bool(&entry.value, "`nullable`")?,
            None => false,
        };
        let mut path = path?;
        if path.last().is_some_and(|key| key == EACH) {
            path.pop(); // each element of an array, that is the array
        }
        return Some((Field { name, ty: ty.list(elements_nullable)?, nullable, form }, path));
    }
    let (ty, nullable, form) = read_type(declared, reader)?;
    if let Some(entry) = nullable_list {
        let help = "it is for lists: of any other type write a `?` behind the type, as in `double?`";
        reader.problems.error(entry.key_span, format!("field `{name}` has `nullable`")).help(help);
    }
    let path = path?;
    if path.iter().any(|key| key == EACH) {
        let message = format!("the path of field `{name}` goes through an array, and it is no list");
        reader.problems.error(entry.key_span, message).help(format!("as in `type: [{ty}]`"));
        return None;
    }
    Some((Field { name, ty, nullable, form }, path))
}

/// The name of a type: the type, whether it may be null, and its form.
fn read_type(node: &Node, reader: &mut Reader) -> Option<(Type, bool, FieldForm)> {
    let declared = reader.text(node, "a field's type")?;
    let (name, nullable) = match declared.value.strip_suffix('?') {
        Some(name) => (name, true),
        None => (declared.value.as_str(), false),
    };
    let Some((_, ty, form)) = TYPES.iter().find(|(known, ..)| *known == name) else {
        report_type(&declared, name, nullable, reader);
        return None;
    };
    Some((*ty, nullable, *form))
}

fn report_type(declared: &Text, name: &str, nullable: bool, reader: &mut Reader) {
    let names: Vec<&str> = TYPES.iter().map(|(known, ..)| *known).collect();
    let synonym = SYNONYMS.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, ours)| *ours);
    let help = match synonym.or_else(|| nearest(name, names.iter().copied())) {
        Some(near) => format!("did you mean `{near}{}`?", if nullable { "?" } else { "" }),
        None => format!("types: {}, each with `?` behind it if it may be null", quoted(&names)),
    };
    reader.problems.error(declared.span, format!("unknown type `{}`", declared.value)).help(help);
}

/// A path: keys with dots between them, or a list of keys that may hold dots themselves.
fn read_path(node: &Node, reader: &mut Reader) -> Option<Vec<String>> {
    let keys = match &node.data {
        Data::Sequence(items) => {
            let keys: Vec<_> = items.iter().map(|item| reader.text(item, "a key of the path")).collect();
            keys.into_iter().map(|key| key.map(|key| key.value)).collect::<Option<Vec<String>>>()?
        }
        _ => split_path(&reader.text(node, "`path`")?.value),
    };
    if keys.iter().filter(|key| *key == EACH).count() > 1 || keys.first().is_some_and(|key| key == EACH) {
        reader
            .problems
            .error(node.span, "the path goes through more than one array")
            .help("there are no lists of lists: a path has `[]` once, behind the key of an array");
        return None;
    }
    if keys.is_empty() || keys.iter().any(String::is_empty) {
        reader
            .problems
            .error(node.span, "the path has an empty key")
            .help("write the keys from the record's root with dots between them: `path: body.temp`");
        return None;
    }
    Some(keys)
}

/// The keys of a path: `items[].sku` is `items`, each of its elements, `sku`.
fn split_path(text: &str) -> Vec<String> {
    let keys = text.split('.').flat_map(|key| {
        let name = key.trim_end_matches(EACH);
        let mut keys = vec![name];
        keys.resize(1 + (key.len() - name.len()) / EACH.len(), EACH);
        keys
    });
    keys.map(str::to_owned).collect()
}

/// Two fields cannot be read at one place, nor one inside of another, which is no object.
fn check_path(entry: &Entry, path: &[String], others: &[(Vec<String>, &str)], reader: &mut Reader) {
    for (other, name) in others {
        let shown = shown_path(path);
        // Where they part one wants an array and the other an object.
        let parting = other.iter().zip(path).find(|(one, two)| one != two);
        let is_both = parting.is_some_and(|(one, two)| one == EACH || two == EACH);
        if other == path {
            reader
                .problems
                .error(
                    entry.key_span,
                    format!("fields `{name}` and `{}` have the same path `{shown}`", entry.key),
                )
                .help(format!(
                    "declare one of them; `set: {{ {}: '{name}' }}` in a map makes a copy",
                    entry.key
                ));
        } else if other.starts_with(path) || path.starts_with(other) || is_both {
            let message = format!(
                "the paths of `{name}` (`{}`) and `{}` (`{shown}`) lead through each other",
                shown_path(other),
                entry.key
            );
            reader
                .problems
                .error(entry.key_span, message)
                .help("a field's value is no object: declare only what is inside, or only the outer one");
        }
    }
}

fn read_event_time(fields: &Fields, draft: &mut SourceDraft, reader: &mut Reader) {
    let Some(entry) = fields.entry("event_time") else { return };
    let what = format!("`event_time` of {}", fields.what);
    let Some(inner) = reader.fields(&entry.value, &what, entry.key_span) else { return };
    reader.check_keys(&inner, &EVENT_TIME_KEYS);
    if let Some(punctuated) = read_expression(&inner, "punctuated", Type::Bool, &draft.stream, reader) {
        draft.plan.event_time.punctuated = Some(punctuated);
        // Whoever marks records has waited already.
        draft.plan.event_time.max_out_of_orderness_ms = 0;
    }
    if let Some(ms) =
        inner.get("max_out_of_orderness").and_then(|node| reader.duration(node, "`max_out_of_orderness`"))
    {
        draft.plan.event_time.max_out_of_orderness_ms = ms;
    }
    if let Some(ms) = inner.get("max_ahead").and_then(|node| reader.duration(node, "`max_ahead`")) {
        draft.plan.event_time.max_ahead_ms = ms;
    }
    if let Some(node) = inner.get("idle_timeout") {
        draft.plan.event_time.idle_timeout_ms =
            reader.length(node, "`idle_timeout`", "as in `idle_timeout: 30s`");
    }
    draft.plan.alignment = read_alignment(&inner, reader);
    if let (Some(_), Some(expression)) = (inner.entry("field"), inner.entry("expression")) {
        reader
            .problems
            .error(expression.key_span, format!("{what} has both `field` and `expression`"))
            .help("one of them dates records: an expression can name the field");
    }
    let dated = inner.get("field").is_some() || inner.get("expression").is_some();
    if let Some(time) = read_expression(&inner, "expression", Type::Timestamp, &draft.stream, reader) {
        draft.plan.event_time.time = EventTime::Expression(time);
    } else if let Some(name) = inner.get("field").and_then(|node| reader.text(node, "`field`")) {
        if let Some(slot) = event_time_field(&name, &draft.stream, reader) {
            draft.plan.event_time.time = EventTime::Field(slot);
        }
    } else if let Some(ahead) = inner.entry("max_ahead").filter(|_| !dated) {
        reader
            .problems
            .warning(
                ahead.key_span,
                "`max_ahead` has no effect: the event time is the record's own timestamp",
            )
            .help("it guards an event time that is taken from a `field` or computed");
    }
}

/// `alignment: { group, max_drift }`.
fn read_alignment(event_time: &Fields, reader: &mut Reader) -> Option<Alignment> {
    let entry = event_time.entry("alignment")?;
    let what = format!("`alignment` in {}", event_time.what);
    let fields = reader.fields(&entry.value, &what, entry.key_span)?;
    reader.check_keys(&fields, &["group", "max_drift"]);
    let help = "name the group; sources that name the same one wait for one another";
    let group = reader.required(&fields, "group", help).and_then(|node| reader.text(node, "`group`"));
    if let Some(group) = &group {
        reader.check_id(&group.value, group.span, "a group's name");
    }
    let help = "as in `max_drift: 1m`: a partition further ahead of the group's slowest one waits for it";
    let max_drift_ms = reader
        .required(&fields, "max_drift", help)
        .and_then(|node| reader.length(node, "`max_drift`", "as in `max_drift: 1m`"));
    Some(Alignment { group: group?.value.as_str().into(), max_drift_ms: max_drift_ms? })
}

/// An expression of a type, on the source's rows.
fn read_expression(
    fields: &Fields,
    key: &str,
    ty: Type,
    stream: &Stream,
    reader: &mut Reader,
) -> Option<Arc<Expression>> {
    let text = reader.code(fields.get(key)?, &format!("`{key}` must be an expression"))?;
    let expression = stream.compile_all(&text, reader)?;
    if expression.ty() != ty {
        let span = text.part(0, text.value.trim_end().chars().count());
        reader.problems.error(span, format!("`{key}` is of type {}, not {ty}", expression.ty()));
        return None;
    }
    Some(Arc::new(expression))
}

fn event_time_field(name: &Text, stream: &Stream, reader: &mut Reader) -> Option<usize> {
    let field = stream.schema.fields.iter().find(|field| field.name == name.value);
    let candidates: Vec<&str> = stream
        .schema
        .fields
        .iter()
        .filter(|field| field.ty == Type::Timestamp && !field.nullable)
        .map(|field| field.name.as_str())
        .collect();
    let message = match field {
        None if stream.may_have(&name.value) => return None,
        None => format!("the event time's field `{}` is not in the schema", name.value),
        Some(field) if field.ty != Type::Timestamp => {
            format!("the event time's field `{}` is of type {}, not a timestamp", name.value, field.ty)
        }
        Some(field) if field.nullable => {
            format!("the event time's field `{}` may be null", name.value)
        }
        Some(_) => return stream.schema.position(&name.value),
    };
    let help = match candidates.is_empty() {
        true => "declare a field of type `timestamp_ms` or `timestamp` (without `?`)".to_owned(),
        false => known_names(&name.value, &candidates),
    };
    reader.problems.error(name.span, message).help(help);
    None
}

fn read_partitioned_by(fields: &Fields, draft: &mut SourceDraft, reader: &mut Reader) {
    let Some(node) = fields.get("partitioned_by") else { return };
    let problems_before = reader.problems.len();
    let names = reader.names(node, "`partitioned_by`").unwrap_or_default();
    if names.is_empty() && problems_before == reader.problems.len() {
        reader
            .problems
            .error(node.span, "`partitioned_by` is empty")
            .help("name the fields that make up the key of the topic's records, or leave it out");
    }
    for name in &names {
        draft.stream.key_slot(name, "`partitioned_by`", reader);
    }
    draft.stream.partitioning_broken |= problems_before < reader.problems.len();
    draft.stream.partitioned_by =
        names.iter().map(|name| (name.value.clone(), vec![name.value.clone()])).collect();
    draft.plan.partitioned_by = names.into_iter().map(|name| name.value).collect();
}
