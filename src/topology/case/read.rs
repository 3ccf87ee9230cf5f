//! Reads the cases of a topology file.

use std::collections::BTreeMap;

use crate::time::parse_rfc3339_ms;
use crate::topology::diagnostic::{Span, known_names};
use crate::topology::reader::{Fields, Reader};
use crate::topology::stream::Stream;
use crate::topology::topics::TopicRole;
use crate::topology::yaml::{Data, Entry, Kind, Node};

use super::{Case, CaseRecord, CaseStep, ExpectedCount, ExpectedRows};

const CASE_KEYS: [&str; 9] =
    ["name", "partitions", "bounded", "crashes", "input", "expect", "late", "failed", "state"];
const RECORD_KEYS: [&str; 8] =
    ["source", "value", "raw", "key", "timestamp", "headers", "partition", "advance"];

/// A file has at most so many cases.
const CASES_MAX: usize = 1_000;
/// A case has at most so many steps. More make no better test, and every one is a commit to crash in.
const STEPS_MAX: usize = 10_000;
/// A case advances the clock by at most a day: every heartbeat of that time is played.
const ADVANCED_MS_MAX: u64 = 24 * 3_600_000;
/// A topic of a case has at most so many partitions.
pub(super) const PARTITIONS_MAX: i32 = 64;

/// A topic that a case may expect records in.
pub(in crate::topology) struct Target<'s> {
    /// A sink's id, or the topic's name.
    pub name: &'s str,
    /// The topic.
    pub topic: &'s str,
    pub role: TopicRole,
    /// What its rows look like, if all are of one kind.
    pub stream: Option<&'s Stream>,
}

/// What cases may name.
pub(in crate::topology) struct Scope<'s> {
    /// The ids of the sources, in the plan's order.
    pub sources: Vec<&'s str>,
    /// Sinks first.
    pub targets: Vec<Target<'s>>,
    /// The ids of the operators that are no windows.
    pub operators: Vec<&'s str>,
    /// The ids of the window operators, and the rows of their open windows.
    pub windows: Vec<(&'s str, Stream)>,
    /// The ids of the other operators that call rows late.
    pub late: Vec<&'s str>,
    /// The ids of the sinks.
    pub sinks: Vec<&'s str>,
}

/// Reads and checks `tests` of the topology's `fields`.
pub(in crate::topology) fn read_cases(fields: &Fields, scope: &Scope, reader: &mut Reader) -> Vec<Case> {
    let Some(node) = fields.get("tests") else { return Vec::new() };
    let help = "as in `tests: [{ name: …, input: […], expect: { … } }]`";
    let Some(items) = reader.list(node, "`tests`", help, CASES_MAX) else { return Vec::new() };
    let mut names: BTreeMap<String, Span> = BTreeMap::new();
    let mut cases = Vec::new();
    for item in items {
        if let Some((case, name_span)) = read_case(item, scope, reader) {
            if let Some(first) = names.insert(case.name.clone(), name_span) {
                reader
                    .problems
                    .error(name_span, format!("there are two tests called `{}`", case.name))
                    .first_at(first);
            }
            cases.push(case);
        }
    }
    cases
}

fn read_case(node: &Node, scope: &Scope, reader: &mut Reader) -> Option<(Case, Span)> {
    let start = Span { start: node.span.start, end: node.span.start };
    reader.count_part(start)?;
    let fields = reader.fields(node, "a test", start)?;
    reader.check_keys(&fields, &CASE_KEYS);
    let name = reader
        .required(&fields, "name", "name it by what it shows, as in `name: two orders in one minute`")
        .and_then(|node| reader.text(node, "a test's `name`"));
    if let Some(name) = name.as_ref().filter(|name| name.value.trim().is_empty()) {
        reader.problems.error(name.span, "a test's `name` is empty").help("name it by what it shows");
    }
    let partitions = fields
        .get("partitions")
        .and_then(|node| reader.int(node, "`partitions` of a test", 1..=PARTITIONS_MAX));
    let flag = |key: &str, default, reader: &mut Reader| match fields.get(key) {
        Some(node) => reader.bool(node, &format!("`{key}`")).unwrap_or(default),
        None => default,
    };
    let (bounded, crashes) = (flag("bounded", false, reader), flag("crashes", true, reader));
    let steps = reader
        .required(&fields, "input", "list the records that come in; `input: []` if there are none")
        .map(|node| read_steps(node, scope, partitions, reader));
    let windows: Vec<&str> = scope.windows.iter().map(|(id, _)| *id).collect();
    let late: Vec<&str> = windows.iter().chain(&scope.late).copied().collect();
    let failing = [&scope.sources, &scope.operators, &windows, &scope.sinks].into_iter().flatten();
    let failing: Vec<&str> = failing.copied().collect();
    let case = Case {
        line: reader.line(start),
        partitions,
        bounded,
        crashes,
        steps: steps.unwrap_or_default(),
        outputs: read_outputs(&fields, scope, reader),
        late: read_counts(&fields, "late", &late, reader),
        failed: read_counts(&fields, "failed", &failing, reader),
        state: read_state(&fields, scope, reader),
        name: name.as_ref().map(|name| name.value.clone())?,
    };
    // An empty mapping says no more than none.
    let says = |key: &str| match fields.get(key).map(|node| &node.data) {
        None => false,
        Some(Data::Mapping(entries)) => !entries.is_empty(),
        Some(_) => true,
    };
    if !["expect", "late", "failed", "state"].into_iter().any(says) {
        let sink = scope.sinks.first().copied().unwrap_or("SINK");
        let message = format!("the test `{}` expects nothing", case.name);
        reader.problems.error(fields.owner, message).help(format!(
            "add `expect: {{ {sink}: [{{ … }}] }}` with the rows that come out, or `expect: {{ {sink}: [] }}` if none \
             may; or counts (`late`, `failed`) or open windows (`state`)"
        ));
    }
    Some((case, name?.span))
}

fn read_steps(node: &Node, scope: &Scope, partitions: Option<i32>, reader: &mut Reader) -> Vec<CaseStep> {
    let help = "as in `input: [{ source: orders, value: { customer: ann } }]`";
    let Some(items) = reader.list(node, "`input`", help, STEPS_MAX) else { return Vec::new() };
    let (mut steps, mut advanced_ms) = (Vec::new(), 0);
    for item in items {
        let start = Span { start: item.span.start, end: item.span.start };
        if reader.count_part(start).is_none() {
            break;
        }
        let Some(fields) = reader.fields(item, "a step of `input`", start) else { continue };
        match fields.get("advance") {
            Some(node) => {
                reader.check_keys(&fields, &["advance"]);
                let ms = reader.duration(node, "`advance`").and_then(|ms| u64::try_from(ms).ok());
                advanced_ms += ms.unwrap_or(0);
                if advanced_ms > ADVANCED_MS_MAX {
                    reader
                        .problems
                        .error(node.span, "a test advances the clock by more than a day in all")
                        .help("event time moves with the records and needs no `advance`");
                    break;
                }
                steps.extend(ms.map(CaseStep::Advance));
            }
            None => steps.extend(read_record(&fields, scope, partitions, reader).map(CaseStep::Record)),
        }
    }
    steps
}

fn read_record(
    fields: &Fields,
    scope: &Scope,
    partitions: Option<i32>,
    reader: &mut Reader,
) -> Option<CaseRecord> {
    reader.check_keys(fields, &RECORD_KEYS);
    let source = match (fields.get("source"), &scope.sources[..]) {
        (None, [_]) => Some(0),
        (None, _) => {
            reader.required(fields, "source", "name the source whose topic it arrives in");
            None
        }
        (Some(node), _) => reader.text(node, "`source`").and_then(|id| {
            let found = scope.sources.iter().position(|source| *source == id.value);
            if found.is_none() {
                let help = known_names(&id.value, &scope.sources);
                reader.problems.error(id.span, format!("there is no source `{}`", id.value)).help(help);
            }
            found
        }),
    };
    let value = match (fields.entry("value"), fields.entry("raw")) {
        (Some(_), Some(raw)) => {
            reader
                .problems
                .error(raw.key_span, "a record has both `value` and `raw`")
                .help("`value` is YAML and becomes JSON; `raw` is the text itself");
            None
        }
        (Some(value), None) => reader.json(&value.value, "a record's `value`").map(|value| match value {
            super::Json::Null => None,
            value => Some(value.to_string().into_bytes()),
        }),
        (None, Some(raw)) => reader.text(&raw.value, "`raw`").map(|text| Some(text.value.into_bytes())),
        (None, None) => {
            let help = "give its `value`, as in `value: { customer: ann }` (`null` for a tombstone), or its text as \
                        `raw`";
            reader.required(fields, "value", help);
            None
        }
    };
    let partition = fields.get("partition").and_then(|node| {
        let partition = reader.int(node, "`partition`", 0..=partitions.unwrap_or(PARTITIONS_MAX) - 1);
        if partitions.is_none() && partition.is_some() {
            reader
                .problems
                .error(node.span, "a record has a `partition`, but the test does not say how many there are")
                .help("add `partitions: 2`, or as many as the test is to have, beside the test's `name`");
        }
        partition
    });
    Some(CaseRecord {
        line: reader.line(fields.owner),
        source: source?,
        value: value?,
        key: fields.get("key").and_then(|node| reader.json(node, "a record's `key`")),
        timestamp_ms: fields.get("timestamp").and_then(|node| reader.timestamp(node)),
        partition,
        headers: reader.headers(fields),
    })
}

fn read_outputs(fields: &Fields, scope: &Scope, reader: &mut Reader) -> Vec<ExpectedRows> {
    let Some(node) = fields.get("expect") else { return Vec::new() };
    let entries = reader.entries(node, "`expect`").unwrap_or_default();
    let mut outputs = Vec::new();
    for entry in entries {
        match scope.targets.iter().find(|target| target.name == entry.key) {
            Some(target) => outputs.extend(reader.expected_rows(entry, target)),
            None => report_unknown_target(entry, scope, reader),
        }
    }
    outputs
}

fn report_unknown_target(entry: &Entry, scope: &Scope, reader: &mut Reader) {
    let names: Vec<&str> = scope.targets.iter().map(|target| target.name).collect();
    let help = match scope.targets.iter().find(|target| target.topic == entry.key) {
        Some(target) => format!("a sink is named by its id: `{}`", target.name),
        None => known_names(&entry.key, &names),
    };
    let message = format!("there is no sink, dead-letter topic or late topic `{}`", entry.key);
    reader.problems.error(entry.key_span, message).help(help);
}

fn read_counts(fields: &Fields, key: &str, known: &[&str], reader: &mut Reader) -> Vec<ExpectedCount> {
    let Some(node) = fields.get(key) else { return Vec::new() };
    let mut counts = Vec::new();
    for entry in reader.entries(node, &format!("`{key}`")).unwrap_or_default() {
        if !known.contains(&entry.key.as_str()) {
            let what = if key == "late" { "window or deduplication" } else { "source, operator or sink" };
            let message = format!("there is no {what} `{}`", entry.key);
            reader.problems.error(entry.key_span, message).help(known_names(&entry.key, known));
        }
        let what = format!("the count of `{}`", entry.key);
        if let Some(count) = reader.int(&entry.value, &what, 0..=i32::MAX) {
            let line = reader.line(entry.key_span);
            counts.push(ExpectedCount { id: entry.key.clone(), count: count.unsigned_abs().into(), line });
        }
    }
    counts
}

fn read_state(fields: &Fields, scope: &Scope, reader: &mut Reader) -> Vec<ExpectedRows> {
    let Some(node) = fields.get("state") else { return Vec::new() };
    let mut states = Vec::new();
    for entry in reader.entries(node, "`state`").unwrap_or_default() {
        match scope.windows.iter().find(|(id, _)| *id == entry.key) {
            Some((_, stream)) => states.extend(reader.expected_state(entry, stream)),
            None => {
                let windows: Vec<&str> = scope.windows.iter().map(|(id, _)| *id).collect();
                let message = format!("there is no window operator `{}`", entry.key);
                reader.problems.error(entry.key_span, message).help(known_names(&entry.key, &windows));
            }
        }
    }
    states
}

impl Reader<'_> {
    /// The items of a list.
    pub(super) fn list<'n>(
        &mut self,
        node: &'n Node,
        what: &str,
        help: &str,
        max: usize,
    ) -> Option<&'n [std::rc::Rc<Node>]> {
        match &node.data {
            Data::Sequence(items) if items.len() <= max => Some(items),
            Data::Sequence(items) => {
                let message = format!("{what} has {} entries, more than {max}", items.len());
                self.problems.error(node.span, message).help("make several of it");
                None
            }
            _ => {
                self.mismatch(node, &format!("{what} must be a list")).help(help);
                None
            }
        }
    }

    /// `true` or `false`.
    pub(in crate::topology) fn bool(&mut self, node: &Node, what: &str) -> Option<bool> {
        let must = format!("{what} must be true or false");
        let scalar = self.scalar(node, &must)?;
        if scalar.kind != Kind::Bool {
            self.mismatch(node, &must);
            return None;
        }
        Some(scalar.text.value.eq_ignore_ascii_case("true"))
    }

    /// An instant: milliseconds since 1970, or RFC 3339 text.
    pub(super) fn timestamp(&mut self, node: &Node) -> Option<i64> {
        let must = "`timestamp` must be in milliseconds since 1970-01-01 UTC, or RFC 3339 text such as \
                    \"2026-03-01T12:00:00Z\"";
        let scalar = self.scalar(node, must)?;
        let text = &scalar.text.value;
        let ms = match scalar.kind {
            Kind::Int => text.parse().ok(),
            Kind::String => parse_rfc3339_ms(text),
            _ => None,
        };
        if ms.is_none() {
            self.mismatch(node, must);
        }
        ms
    }
}
