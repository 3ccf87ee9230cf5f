//! Reads what a case expects of a topic or of a window's state.

use std::sync::Arc;

use crate::expression::Expression;
use crate::record::{Field, FieldForm, Type};
use crate::time::{format_rfc3339_ms, parse_rfc3339_ms};
use crate::topology::diagnostic::{Span, known_names};
use crate::topology::reader::{Fields, Reader};
use crate::topology::stream::Stream;
use crate::topology::topics::TopicRole;
use crate::topology::yaml::{Data, Entry, Node};

use super::read::Target;
use super::{ExpectedRecord, ExpectedRows, ExpectedValue, Json};

const EXPECTED_KEYS: [&str; 5] = ["rows", "records", "order", "fields", "tolerance"];
const STATE_KEYS: [&str; 3] = ["rows", "fields", "tolerance"];
const RECORD_KEYS: [&str; 7] = ["value", "raw", "key", "timestamp", "error", "headers", "where"];

/// At most so many records are expected of one topic.
const RECORDS_MAX: usize = 100_000;

const LIST_HELP: &str = "list the rows, as in `[{ customer: ann, orders: 2 }]`; `[]` if there must be none";

const LISTED_VALUE_HELP: &str = "write the row itself, `[{ customer: ann }]`, or `records: [{ value: { customer: ann } }]` \
                                 in place of the list";

/// Where an expected row stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In a list of rows of a topic: records could stand in the list's place.
    TopicRows,
    /// In a list of rows of a window's state.
    StateRows,
    /// In a record, as its value.
    Record,
}

impl Reader<'_> {
    /// What a topic must hold.
    pub(super) fn expected_rows(&mut self, entry: &Entry, target: &Target) -> Option<ExpectedRows> {
        let mut expected = ExpectedRows {
            name: entry.key.clone(),
            topic: target.topic.to_owned(),
            line: self.line(entry.key_span),
            ordered: true,
            exact: true,
            tolerance: 0.0,
            schema: target.stream.map(|stream| stream.schema.clone()),
            records: Vec::new(),
        };
        let what = format!("what is expected of `{}`", entry.key);
        let Some(fields) = self.row_list(entry, &what, target.stream, &mut expected)? else {
            return Some(expected);
        };
        self.check_keys(&fields, &EXPECTED_KEYS);
        if let Some(node) = fields.get("order") {
            let choices = [("per_key", true), ("any", false)];
            expected.ordered = self.choice(node, "`order`", &choices, &[]).unwrap_or(true);
        }
        self.options(&fields, &mut expected);
        match (fields.entry("rows"), fields.entry("records")) {
            (Some(rows), None) => {
                expected.records = self.rows(&rows.value, &what, target.stream, Place::TopicRows)?;
            }
            (None, Some(records)) => {
                let items = self.list(&records.value, "`records`", "as in `[{ key: ann }]`", RECORDS_MAX)?;
                let records: Vec<_> = items.iter().map(|item| self.expected_record(item, target)).collect();
                expected.records = records.into_iter().collect::<Option<_>>()?;
            }
            (Some(_), Some(records)) => {
                self.problems
                    .error(records.key_span, format!("{what} has both `rows` and `records`"))
                    .help("`records` can hold rows, too: `{ value: { … } }`");
            }
            (None, None) => {
                let help = "add `rows: […]`, or `records: […]` to look at keys, headers and conditions, too";
                self.required(&fields, "rows", help);
            }
        }
        Some(expected)
    }

    /// What a window operator's state must hold; `stream` is what it emits.
    pub(super) fn expected_state(&mut self, entry: &Entry, stream: &Stream) -> Option<ExpectedRows> {
        let mut expected = ExpectedRows {
            name: entry.key.clone(),
            topic: String::new(),
            line: self.line(entry.key_span),
            ordered: false,
            exact: true,
            tolerance: 0.0,
            schema: Some(stream.schema.clone()),
            records: Vec::new(),
        };
        let what = format!("the state of `{}`", entry.key);
        let Some(fields) = self.row_list(entry, &what, Some(stream), &mut expected)? else {
            return Some(expected);
        };
        self.check_keys(&fields, &STATE_KEYS);
        self.options(&fields, &mut expected);
        let node = self.required(&fields, "rows", LIST_HELP)?;
        expected.records = self.rows(node, &what, Some(stream), Place::StateRows)?;
        Some(expected)
    }

    /// A list of rows is read right away (`Some(None)`); of a mapping the fields are returned.
    fn row_list<'n>(
        &mut self,
        entry: &'n Entry,
        what: &str,
        stream: Option<&Stream>,
        expected: &mut ExpectedRows,
    ) -> Option<Option<Fields<'n>>> {
        match &entry.value.data {
            Data::Mapping(_) => Some(Some(self.fields(&entry.value, what, entry.key_span)?)),
            _ => {
                let of_topic = !expected.topic.is_empty();
                let place = if of_topic { Place::TopicRows } else { Place::StateRows };
                expected.records = self.rows(&entry.value, what, stream, place)?;
                Some(None)
            }
        }
    }

    fn options(&mut self, fields: &Fields, expected: &mut ExpectedRows) {
        if let Some(node) = fields.get("fields") {
            let choices = [("exact", true), ("some", false)];
            expected.exact = self.choice(node, "`fields`", &choices, &[]).unwrap_or(true);
        }
        let Some(node) = fields.get("tolerance") else { return };
        expected.tolerance = match self.json(node, "`tolerance`") {
            None => return,
            Some(Json::Int(value)) => value as f64,
            Some(Json::Double(value)) => value,
            Some(_) => -1.0,
        };
        if expected.tolerance < 0.0 {
            self.problems
                .error(node.span, "`tolerance` must be a number of at least 0")
                .help("by how much doubles may differ, as in `tolerance: 0.001`");
        }
    }

    /// A list of rows.
    fn rows(
        &mut self,
        node: &Node,
        what: &str,
        stream: Option<&Stream>,
        place: Place,
    ) -> Option<Vec<ExpectedRecord>> {
        let items = self.list(node, what, LIST_HELP, RECORDS_MAX)?;
        let rows: Vec<_> = items
            .iter()
            .map(|item| {
                if !matches!(item.data, Data::Mapping(_)) {
                    self.mismatch(item, "an expected row must be a mapping").help(
                        "a record that is no JSON object: `records: [{ raw: '…' }]` in place of the list",
                    );
                    return None;
                }
                let value = self.row(item, stream, place)?;
                let line = self.line(item.span);
                Some(ExpectedRecord { line, value: Some(value), ..ExpectedRecord::default() })
            })
            .collect();
        rows.into_iter().collect()
    }

    /// A value, checked against the rows' fields where they are known.
    fn row(&mut self, node: &Node, stream: Option<&Stream>, place: Place) -> Option<ExpectedValue> {
        let json = self.json(node, "an expected value")?;
        let (Some(stream), Data::Mapping(entries), Json::Object(values)) = (stream, &node.data, json.clone())
        else {
            return Some(ExpectedValue::Json(json));
        };
        let mut fields = Vec::new();
        for (entry, (name, value)) in entries.iter().zip(values) {
            let field = stream.schema.fields.iter().find(|field| field.name == name);
            let value = match field {
                Some(field) => {
                    let Some(value) = self.fitting(entry, value, field, None) else { continue };
                    value
                }
                None if stream.may_have(&name) => value,
                None => {
                    let help = match RECORD_KEYS.iter().find(|key| place == Place::TopicRows && **key == name)
                    {
                        Some(&"value") => LISTED_VALUE_HELP.to_owned(),
                        Some(key) => format!(
                            "`{key}` is for records: `records: [{{ value: {{ … }}, {key}: … }}]` in place of the list \
                             of rows"
                        ),
                        None => known_names(&name, &stream.names()),
                    };
                    self.problems
                        .error(entry.key_span, format!("the expected rows have no field `{name}`"))
                        .help(help);
                    continue;
                }
            };
            fields.push((name, value));
        }
        Some(ExpectedValue::Json(Json::Object(fields)))
    }

    /// An expected value, or the element of a list in this place, as the field's form writes it; reported if no row can
    /// hold it.
    fn fitting(&mut self, entry: &Entry, value: Json, field: &Field, place: Option<usize>) -> Option<Json> {
        let fitting = match (field.ty, field.form, value) {
            (_, _, Json::Null) if field.nullable => Ok(Json::Null),
            (Type::List(of), form, Json::List(values)) => {
                let (name, ty, nullable) = (field.name.clone(), of.element.ty(), of.nullable);
                let element = Field { name, ty, nullable, form };
                let values = values.into_iter().enumerate();
                let values: Vec<_> =
                    values.map(|(place, value)| self.fitting(entry, value, &element, Some(place))).collect();
                return values.into_iter().collect::<Option<Vec<Json>>>().map(Json::List);
            }
            (Type::Timestamp, form, value) => timestamp(&value, form).ok_or(value),
            (Type::String | Type::Bytes, _, value @ Json::String(_))
            | (Type::Bool, _, value @ Json::Bool(_))
            | (Type::Int | Type::Duration | Type::Double, _, value @ Json::Int(_))
            | (Type::Double, _, value @ Json::Double(_)) => Ok(value),
            (_, _, value) => Err(value),
        };
        match fitting {
            Ok(value) => Some(value),
            Err(value) => {
                let help = match field.ty {
                    Type::Timestamp => "write milliseconds since 1970-01-01 UTC, or RFC 3339 text".to_owned(),
                    Type::String => format!("quote it: \"{value}\""),
                    ty => format!("no row can hold that: give a value of type {ty}"),
                };
                let (name, ty, found) = (&field.name, field.ty, value.kind());
                let message = match place {
                    None => format!("field `{name}` is of type {ty}, found {found}"),
                    Some(place) => {
                        let one = match ty {
                            Type::Int => "an int".to_owned(),
                            Type::Bytes => "bytes".to_owned(),
                            ty => format!("a {ty}"),
                        };
                        format!("element {place} of `{name}` must be {one}, found {found}")
                    }
                };
                self.problems.error(entry.value.span, message).help(help);
                None
            }
        }
    }

    fn expected_record(&mut self, node: &Node, target: &Target) -> Option<ExpectedRecord> {
        let start = Span { start: node.span.start, end: node.span.start };
        self.count_part(start)?;
        let fields = self.fields(node, &format!("an expected record of `{}`", target.name), start)?;
        self.check_keys(&fields, &RECORD_KEYS);
        let value = match (fields.get("value"), fields.entry("raw")) {
            (Some(node), None) => self.row(node, target.stream, Place::Record),
            (None, Some(raw)) => self.text(&raw.value, "`raw`").map(|text| ExpectedValue::Raw(text.value)),
            (None, None) => None,
            (Some(_), Some(raw)) => {
                self.problems
                    .error(raw.key_span, "an expected record has both `value` and `raw`")
                    .help("`value` is compared as JSON, `raw` byte by byte");
                None
            }
        };
        Some(ExpectedRecord {
            line: self.line(start),
            value,
            key: fields.get("key").and_then(|node| self.json(node, "a record's `key`")),
            timestamp_ms: fields.get("timestamp").and_then(|node| self.timestamp(node)),
            error: fields.entry("error").and_then(|entry| self.error_text(entry, target)),
            headers: self.headers(&fields),
            condition: fields.entry("where").and_then(|entry| self.condition(entry, target)),
        })
    }

    /// What `headers` says.
    pub(super) fn headers(&mut self, fields: &Fields) -> Vec<(String, String)> {
        let Some(node) = fields.get("headers") else { return Vec::new() };
        let mut headers = Vec::new();
        for entry in self.entries(node, "`headers`").unwrap_or_default() {
            let must = format!("the header `{}` must have a value", entry.key);
            headers.extend(self.code(&entry.value, &must).map(|text| (entry.key.clone(), text.value)));
        }
        headers
    }

    fn error_text(&mut self, entry: &Entry, target: &Target) -> Option<String> {
        if target.role != TopicRole::DeadLetter {
            self.problems
                .error(
                    entry.key_span,
                    format!("only dead letters have an `error`; `{}` has none", target.name),
                )
                .help("leave it out");
            return None;
        }
        Some(self.text(&entry.value, "`error`")?.value)
    }

    fn condition(&mut self, entry: &Entry, target: &Target) -> Option<Arc<Expression>> {
        let Some(stream) = target.stream else {
            if target.role == TopicRole::Sink {
                return None; // its input is not known, which is reported
            }
            self.problems
                .error(entry.key_span, format!("the fields of `{}` are not known to `where`", target.name))
                .help("give the `value`, or its text as `raw`");
            return None;
        };
        let text = self.code(&entry.value, "`where` must be an expression")?;
        // A written record is looked at, not one that is read: there is no `meta`.
        let stream = Stream { meta: false, ..stream.clone() };
        let expression = stream.compile_all(&text, self)?;
        if expression.ty() != Type::Bool {
            self.problems
                .error(text.span, format!("`where` is of type {}, not bool", expression.ty()))
                .help("write a condition, as in `amount > 0.0`");
            return None;
        }
        Some(Arc::new(expression))
    }
}

/// An instant as a field's form writes it, however the case did.
fn timestamp(value: &Json, form: FieldForm) -> Option<Json> {
    let ms = match value {
        Json::Int(ms) => *ms,
        Json::String(text) => parse_rfc3339_ms(text)?,
        _ => return None,
    };
    let mut text = String::new();
    match form {
        FieldForm::Rfc3339 if format_rfc3339_ms(ms, &mut text) => Some(Json::String(text)),
        _ => Some(Json::Int(ms)),
    }
}
