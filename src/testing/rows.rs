//! Whether records are those that a case expects, and in what they differ.

use std::collections::BTreeMap;

use bumpalo::Bump;
use serde_json::Value;

use super::Difference;
use crate::expression::Environment;
use crate::format::json::{Decoder, decode_value};
use crate::record::{Schema, Slot, SourceField, SourceSchema};
use crate::simulator::Written;
use crate::topology::case::{ExpectedRecord, ExpectedRows, ExpectedValue, Json};

/// So many differences of one topic are shown; more are counted.
const SHOWN_MAX: usize = 10;
/// Of a longer text this many characters are shown.
const TEXT_CHARS_MAX: usize = 400;
/// Where more records than these could stand for one another, the first possible one is taken.
const SEARCHED_MAX: usize = 200;
/// How many ways of assigning records are tried.
const WAYS_MAX: usize = 20_000;

/// A record that was written, or a row of the state.
pub(super) struct Found {
    record: Written,
    json: Option<Value>,
}

impl Found {
    /// A record of a topic.
    pub fn written(record: &Written) -> Found {
        Found {
            json: record.value.as_deref().and_then(|value| decode_value(value).ok()),
            record: record.clone(),
        }
    }

    /// A row of the state.
    pub fn row(value: Vec<u8>) -> Found {
        let record = Written {
            partition: 0,
            offset: 0,
            key: None,
            value: Some(value),
            headers: Vec::new(),
            timestamp_ms: 0,
        };
        Found::written(&record)
    }

    /// As text; with its headers if `headers`.
    fn text(&self, headers: bool) -> String {
        let value = self.record.value.as_deref().map(String::from_utf8_lossy);
        let mut text = cut(value.as_deref().unwrap_or("(a tombstone)"));
        if let Some(error) = self.header("thalweg.error") {
            let operator = self.header("thalweg.operator").unwrap_or_default();
            text.push_str(&format!("\n      because `{operator}` failed: {error}"));
        }
        if headers {
            text.push_str(&format!("\n      with {}", self.headers()));
        }
        text
    }

    fn headers(&self) -> String {
        let shown = |(name, value): &(String, Option<Vec<u8>>)| match value {
            Some(value) => format!("{name} `{}`", cut(&String::from_utf8_lossy(value))),
            None => format!("{name} without a value"),
        };
        let headers: Vec<String> = self.record.headers.iter().map(shown).collect();
        match headers.len() {
            0 => "no headers".to_owned(),
            1 => format!("the header {}", headers[0]),
            _ => format!("the headers {}", headers.join(", ")),
        }
    }

    fn header(&self, name: &str) -> Option<String> {
        let (_, value) = self.record.headers.iter().find(|(header, _)| header == name)?;
        Some(String::from_utf8_lossy(value.as_deref()?).into_owned())
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(TEXT_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn key_text(key: Option<&[u8]>) -> String {
    key.map_or_else(|| "no key".to_owned(), |key| format!("`{}`", cut(&String::from_utf8_lossy(key))))
}

/// What `found` has that is not as expected.
pub(super) fn differences(expected: &ExpectedRows, found: &[Found]) -> Vec<Difference> {
    let matcher = Matcher { expected, found };
    if matcher.all_match() {
        return Vec::new();
    }
    let pairs = matcher.pairs();
    let mut lost: Vec<usize> = (0..expected.records.len()).filter(|e| pairs[*e].is_none()).collect();
    let mut extra: Vec<usize> = (0..found.len()).filter(|f| !pairs.contains(&Some(*f))).collect();
    let what = &expected.name;
    let headers = expected.records.iter().any(|record| !record.headers.is_empty());
    let mut differences = Vec::new();
    lost.retain(|e| {
        let record = &expected.records[*e];
        let Some(place) = matcher.nearest(record, &extra) else { return true };
        let found = &found[extra.remove(place)];
        let why = matcher.explain(record, found).join("\n      ");
        let text = format!(
            "`{what}`: a record differs\n    - {}\n    + {}\n      {why}",
            shown(record),
            found.text(!record.headers.is_empty())
        );
        differences.push(Difference { line: record.line, text, missing: false });
        false
    });
    differences.extend(lost.into_iter().map(|e| {
        let record = &expected.records[e];
        let text = format!("`{what}`: a record is missing\n    - {}", shown(record));
        Difference { line: record.line, text, missing: true }
    }));
    differences.extend(extra.into_iter().map(|f| {
        let text = format!("`{what}`: a record is not expected\n    + {}", found[f].text(headers));
        Difference { line: expected.line, text, missing: false }
    }));
    if differences.is_empty() {
        differences.push(matcher.disorder(&pairs));
    }
    if differences.len() > SHOWN_MAX {
        let more = differences.len() - SHOWN_MAX;
        differences.truncate(SHOWN_MAX);
        let text = format!("`{what}`: {more} more such differences");
        differences.push(Difference { line: expected.line, text, missing: false });
    }
    differences
}

/// An expected record as text.
fn shown(record: &ExpectedRecord) -> String {
    let mut parts = Vec::new();
    match &record.value {
        Some(ExpectedValue::Json(value)) => parts.push(cut(&value.to_string())),
        Some(ExpectedValue::Raw(text)) => parts.push(cut(text)),
        None => {}
    }
    if let Some(key) = &record.key {
        parts.push(format!("key {}", key_text(key.key_bytes().as_deref())));
    }
    if let Some(ms) = record.timestamp_ms {
        parts.push(format!("timestamp {ms}"));
    }
    if let Some(error) = &record.error {
        parts.push(format!("error `{error}`"));
    }
    parts.extend(record.headers.iter().map(|(name, value)| format!("header {name} `{value}`")));
    if let Some(condition) = &record.condition {
        parts.push(format!("where {}", condition.source()));
    }
    if parts.is_empty() { "(any record)".to_owned() } else { parts.join(", ") }
}

struct Matcher<'m> {
    expected: &'m ExpectedRows,
    found: &'m [Found],
}

impl Matcher<'_> {
    fn matches(&self, record: usize, found: usize) -> bool {
        self.explain(&self.expected.records[record], &self.found[found]).is_empty()
    }

    /// Whether the found records are the expected ones, each once, in order if that matters.
    fn all_match(&self) -> bool {
        if self.expected.records.len() != self.found.len() {
            return false;
        }
        if !self.expected.ordered {
            return self.pairs().iter().all(Option::is_some);
        }
        let queues = self.queues();
        let mut heads = vec![0; queues.len()];
        let mut ways = WAYS_MAX;
        self.place(0, &queues, &mut heads, &mut ways)
    }

    /// The found records by key, each in its order. Records of different partitions have none among them.
    fn queues(&self) -> Vec<Vec<usize>> {
        let mut queues: BTreeMap<(i32, Option<&[u8]>), Vec<usize>> = BTreeMap::new();
        for (place, found) in self.found.iter().enumerate() {
            queues.entry((found.record.partition, found.record.key.as_deref())).or_default().push(place);
        }
        queues.into_values().collect()
    }

    /// Whether the expected records from `from` on are those of the queues behind their heads: each one
    /// must be the next of some key.
    fn place(&self, from: usize, queues: &[Vec<usize>], heads: &mut [usize], ways: &mut usize) -> bool {
        let searched = self.found.len() <= SEARCHED_MAX;
        for record in from..self.expected.records.len() {
            let mut next = (0..queues.len()).filter(|queue| {
                queues[*queue].get(heads[*queue]).is_some_and(|found| self.matches(record, *found))
            });
            let Some(first) = next.next() else { return false };
            let others: Vec<usize> = if searched { next.collect() } else { Vec::new() };
            for queue in others {
                *ways = ways.saturating_sub(1);
                heads[queue] += 1;
                if *ways > 0 && self.place(record + 1, queues, &mut heads.to_vec(), ways) {
                    return true;
                }
                heads[queue] -= 1;
            }
            heads[first] += 1;
        }
        true
    }

    /// For each expected record one that was found, as many as possible, whatever their order.
    fn pairs(&self) -> Vec<Option<usize>> {
        let mut owners: Vec<Option<usize>> = vec![None; self.found.len()];
        for record in 0..self.expected.records.len() {
            let mut seen = vec![false; self.found.len()];
            self.claim(record, &mut owners, &mut seen);
        }
        let mut pairs = vec![None; self.expected.records.len()];
        for (found, owner) in owners.iter().enumerate() {
            if let Some(owner) = owner {
                pairs[*owner] = Some(found);
            }
        }
        pairs
    }

    /// Gives a record to `record`, if need be by giving its owner another one (Kuhn's matching).
    fn claim(&self, record: usize, owners: &mut [Option<usize>], seen: &mut [bool]) -> bool {
        let fitting: Vec<usize> =
            (0..self.found.len()).filter(|found| !seen[*found] && self.matches(record, *found)).collect();
        if let Some(free) = fitting.iter().find(|found| owners[**found].is_none()) {
            owners[*free] = Some(record);
            return true;
        }
        if self.found.len() > SEARCHED_MAX {
            return false;
        }
        for found in fitting {
            if std::mem::replace(&mut seen[found], true) {
                continue;
            }
            if owners[found].is_none_or(|owner| self.claim(owner, owners, seen)) {
                owners[found] = Some(record);
                return true;
            }
        }
        false
    }

    /// The place in `extra` of the record that was most likely meant, if any has something in common.
    fn nearest(&self, record: &ExpectedRecord, extra: &[usize]) -> Option<usize> {
        let only = || (extra.len() == 1 && self.expected.records.len() == 1).then_some(0);
        let fields = match &record.value {
            Some(ExpectedValue::Json(Json::Object(fields))) => fields,
            Some(ExpectedValue::Raw(text)) => {
                let same =
                    |found: &usize| self.found[*found].record.value.as_deref() == Some(text.as_bytes());
                return extra.iter().position(same).or_else(only);
            }
            _ => return only(),
        };
        let equal_fields = |found: &Found| {
            let same = |(name, value): &&(String, Json)| {
                found
                    .json
                    .as_ref()
                    .and_then(|json| json.get(name))
                    .is_some_and(|json| self.equal(value, json))
            };
            fields.iter().filter(same).count()
        };
        let scores =
            extra.iter().enumerate().map(|(place, found)| (equal_fields(&self.found[*found]), place));
        // Of several that are as near, the first.
        let (score, place) = scores.max_by_key(|(score, place)| (*score, std::cmp::Reverse(*place)))?;
        (score > 0).then_some(place)
    }

    /// All records are there, and not in their order.
    fn disorder(&self, pairs: &[Option<usize>]) -> Difference {
        let mut lines: BTreeMap<usize, usize> = BTreeMap::new();
        for (record, found) in pairs.iter().enumerate() {
            lines.extend(found.map(|found| (found, self.expected.records[record].line)));
        }
        let mut text =
            format!("`{}`: the records are right, but not in this order. They came so:", self.expected.name);
        for queue in self.queues() {
            let out_of_order = queue.windows(2).any(|pair| lines.get(&pair[0]) > lines.get(&pair[1]));
            for found in queue.iter().filter(|_| out_of_order).take(SHOWN_MAX) {
                let line = lines.get(found).copied().unwrap_or_default();
                text.push_str(&format!("\n    + {} (line {line})", self.found[*found].text(false)));
            }
        }
        text.push_str("\n      `order: any` compares them as a set");
        Difference { line: self.expected.line, text, missing: false }
    }

    /// What of a found record is not as expected, one text each; empty if it is.
    fn explain(&self, record: &ExpectedRecord, found: &Found) -> Vec<String> {
        let mut reasons = Vec::new();
        match &record.value {
            None => {}
            Some(ExpectedValue::Raw(text)) if found.record.value.as_deref() == Some(text.as_bytes()) => {}
            Some(ExpectedValue::Raw(_)) => reasons.push("the text differs".to_owned()),
            Some(ExpectedValue::Json(value)) => self.explain_value(value, found, &mut reasons),
        }
        if let Some(key) = &record.key {
            let key = key.key_bytes();
            if key != found.record.key {
                let (key, other) = (key_text(key.as_deref()), key_text(found.record.key.as_deref()));
                reasons.push(format!("the key: expected {key}, found {other}"));
            }
        }
        if let Some(ms) = record.timestamp_ms.filter(|ms| *ms != found.record.timestamp_ms) {
            reasons.push(format!("the timestamp: expected {ms}, found {}", found.record.timestamp_ms));
        }
        if let Some(error) = &record.error
            && found.header("thalweg.error").is_none_or(|header| !header.contains(error))
        {
            reasons.push(format!("the error does not contain `{error}`"));
        }
        for (name, value) in &record.headers {
            match found.header(name) {
                Some(other) if other == *value => {}
                Some(other) => {
                    reasons.push(format!("the header {name}: expected `{value}`, found `{other}`"))
                }
                None => reasons.push(format!("there is no header {name}")),
            }
        }
        if let Some(condition) = &record.condition {
            reasons.extend(self.explain_condition(condition, found));
        }
        reasons
    }

    fn explain_value(&self, value: &Json, found: &Found, reasons: &mut Vec<String>) {
        let Some(json) = &found.json else {
            if *value != Json::Null || found.record.value.is_some() {
                reasons.push("the value is no JSON".to_owned());
            }
            return;
        };
        let (Json::Object(fields), Value::Object(others)) = (value, json) else {
            if !self.equal(value, json) {
                reasons.push("the value differs".to_owned());
            }
            return;
        };
        for (name, value) in fields {
            let other = others.get(name).unwrap_or(&Value::Null);
            if !self.equal(value, other) {
                reasons.push(format!("{name}: expected {value}, found {other}"));
            }
        }
        for (name, other) in others.iter().filter(|(_, other)| self.expected.exact && !other.is_null()) {
            if !fields.iter().any(|(field, _)| field == name) {
                reasons.push(format!("{name}: expected none, found {other}"));
            }
        }
    }

    /// Whether a JSON value is the expected one. Numbers are compared by value.
    fn equal(&self, value: &Json, other: &Value) -> bool {
        match (value, other) {
            (Json::Null, Value::Null) => true,
            (Json::Bool(value), Value::Bool(other)) => value == other,
            (Json::String(value), Value::String(other)) => value == other,
            (Json::Int(value), Value::Number(other)) => match other.as_i64() {
                Some(other) => *value == other,
                None => other.as_f64().is_some_and(|other| self.near(*value as f64, other)),
            },
            (Json::Double(value), Value::Number(other)) => {
                other.as_f64().is_some_and(|other| self.near(*value, other))
            }
            (Json::List(values), Value::Array(others)) => {
                values.len() == others.len()
                    && values.iter().zip(others).all(|(value, other)| self.equal(value, other))
            }
            (Json::Object(fields), Value::Object(others)) => {
                let known = |name: &String| fields.iter().any(|(field, _)| field == name);
                fields.iter().all(|(name, value)| self.equal(value, others.get(name).unwrap_or(&Value::Null)))
                    && (!self.expected.exact
                        || others.iter().all(|(name, other)| other.is_null() || known(name)))
            }
            _ => false,
        }
    }

    fn near(&self, value: f64, other: f64) -> bool {
        value == other || (value - other).abs() <= self.expected.tolerance
    }

    fn explain_condition(&self, condition: &crate::expression::Expression, found: &Found) -> Option<String> {
        let source = condition.source();
        let schema = self.expected.schema.as_ref()?;
        let arena = Bump::new();
        let mut row = vec![Slot::Null; schema.fields.len()];
        let value = found.record.value.as_deref().unwrap_or_default();
        if let Err(error) = Decoder::new(&written_schema(schema)).decode(value, &arena, &mut row) {
            return Some(format!("`{source}` cannot be computed: {error}"));
        }
        match condition.test(&Environment::new(&row, None, &arena)) {
            Ok(true) => None,
            Ok(false) => Some(format!("`{source}` is not true")),
            Err(error) => Some(format!("`{source}` failed: {error}")),
        }
    }
}

/// Rows as they are read back from what was written of them.
fn written_schema(schema: &Schema) -> SourceSchema {
    let fields = schema
        .fields
        .iter()
        .map(|field| SourceField { path: vec![field.name.clone()], field: field.clone() });
    SourceSchema { fields: fields.collect() }
}
