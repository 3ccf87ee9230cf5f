//! A topology on an input of JSON lines, with no Kafka and nothing that lasts: `thalweg run --embedded`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::input::Producer;
use super::{Play, topics};
use crate::format::json::{decode_value, write_string};
use crate::simulator::{Faults, Pace, Scenario, Step, Written};
use crate::time::parse_rfc3339_ms;
use crate::topology::case::{CaseRecord, Json};
use crate::topology::plan::{OperatorKind, OperatorPlan};
use crate::topology::{Plan, TopicRole};

/// What an embedded run leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Printed {
    /// What sinks, dead-letter and late topics hold, as JSON lines.
    pub lines: String,
    /// What was counted, for people: one line each for records in, records out, dead letters, late and
    /// failed records.
    pub summary: String,
}

/// Why an embedded run has no results.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NotRun {
    /// A line of the input is no record of the topology: mend it.
    #[error("{0}")]
    Input(String),
    /// The topology stopped at a record, as its `on_error: fail` says.
    #[error("{0}")]
    Failed(String),
}

/// Plays `input`, JSON lines, to its end, where all windows close. `plan` is what
/// [`prepare`](super::prepare) made.
///
/// Of a topology with one source a line is a record's value as it is, JSON or not; of one with several it
/// is an object of `source`, `value` and, where wanted, `key` and `timestamp`. Empty lines are passed over.
///
/// # Errors
/// A line that names no source, or why the topology stopped.
pub fn run(plan: &Arc<Plan>, input: &str, play: &Play<'_>) -> Result<Printed, NotRun> {
    let mut producer = Producer::new(plan, 1);
    let mut read = vec![0; plan.sources.len()];
    let mut steps = Vec::new();
    for (place, line) in input.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let wrong = |error| NotRun::Input(format!("line {} of the input: {error}", place + 1));
        let record = record(plan, line).map_err(wrong)?;
        read[record.source] += 1;
        steps.push(Step::Append(producer.input(plan, &record)));
    }
    let outcome = play(&Scenario {
        plan: plan.clone(),
        topics: topics::all(plan, 1),
        steps,
        pace: Pace::AllAtOnce,
        bounded: true,
        processes: 1,
        workers: 1,
        faults: Faults::None,
        after_the_end: 0,
        until_idle: false,
        rocks: false,
        seed: 0,
    })
    .map_err(|failure| NotRun::Failed(failure.to_string()))?;

    let (mut lines, mut out, mut dead) = (String::new(), Vec::new(), Vec::new());
    for topic in crate::topology::topics(plan).iter().filter(|topic| topic.role != TopicRole::Source) {
        // A sink has its topic for itself.
        let (kind, name) = match (topic.role, topic.users.first()) {
            (TopicRole::Sink, Some(sink)) => ("sink", sink),
            _ => ("topic", &topic.topic),
        };
        let written = outcome.topics.get(&topic.topic).map(Vec::as_slice).unwrap_or_default();
        written.iter().for_each(|written| write_line(kind, name, written, &mut lines));
        let counts = if topic.role == TopicRole::DeadLetter { &mut dead } else { &mut out };
        counts.push((name.to_owned(), written.len() as u64));
    }
    let read = plan.sources.iter().map(|source| source.id.clone()).zip(read).collect();
    let counted = |counts: &BTreeMap<Arc<str>, u64>| {
        counts.iter().map(|(id, count)| (id.to_string(), *count)).collect::<Vec<_>>()
    };
    // Nobody asks for duplicates where nothing looks for any.
    let looks = |operator: &OperatorPlan| matches!(operator.kind, OperatorKind::Deduplicate(_));
    let duplicates = match plan.operators.iter().any(looks) {
        true => sum(["duplicate", "duplicates"], counted(&outcome.counters.duplicates)),
        false => String::new(),
    };
    let summary = [
        sum(["record in", "records in"], read),
        sum(["record out", "records out"], out),
        sum(["dead letter", "dead letters"], dead),
        sum(["record came late", "records came late"], counted(&outcome.counters.late)),
        duplicates,
        sum(["record failed", "records failed"], counted(&outcome.counters.failed)),
    ];
    Ok(Printed { lines, summary: summary.concat() })
}

/// A line of the summary: how many of what, and of which source, operator, sink or topic each.
fn sum([one, several]: [&str; 2], counts: Vec<(String, u64)>) -> String {
    let all: u64 = counts.iter().map(|(_, count)| count).sum();
    let mut line = format!("{all} {}", if all == 1 { one } else { several });
    let mut separator = ": ";
    for (name, count) in counts.iter().filter(|_| all > 0) {
        // Writing to a string cannot fail.
        let _ = write!(line, "{separator}{name} {count}");
        separator = ", ";
    }
    line.push('\n');
    line
}

/// A line of an input with several sources.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'l> {
    source: String,
    #[serde(borrow)]
    value: sonic_rs::LazyValue<'l>,
    #[serde(default, deserialize_with = "present")]
    key: Option<Value>,
    timestamp: Option<Value>,
}

/// Tells `null` from what is not there.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

fn record(plan: &Plan, line: &str) -> Result<CaseRecord, String> {
    if plan.sources.len() == 1 {
        return Ok(CaseRecord { value: Some(line.trim().as_bytes().to_vec()), ..CaseRecord::default() });
    }
    let sources: Vec<&str> = plan.sources.iter().map(|source| source.id.as_str()).collect();
    let sources = sources.join(", ");
    let Line { source, value, key, timestamp } = sonic_rs::from_str(line).map_err(|error| {
        let error = error.to_string();
        let error = error.lines().next().unwrap_or_default();
        format!(
            "{error}; the topology has several sources, so write {{\"source\": …, \"value\": {{…}}}}, with one of \
             {sources}, and if need be \"key\" and \"timestamp\""
        )
    })?;
    let value = value.as_raw_str();
    Ok(CaseRecord {
        line: 0,
        source: plan
            .sources
            .iter()
            .position(|known| known.id == source)
            .ok_or_else(|| format!("there is no source `{source}`; there are {sources}"))?,
        value: (value != "null").then(|| value.as_bytes().to_vec()),
        key: key.map(|key| match key {
            Value::Null => Json::Null,
            Value::String(text) => Json::String(text),
            other => Json::String(other.to_string()),
        }),
        timestamp_ms: timestamp.map(|timestamp| instant(&timestamp)).transpose()?,
        partition: None,
        headers: Vec::new(),
    })
}

fn instant(timestamp: &Value) -> Result<i64, String> {
    let ms = match timestamp {
        Value::String(text) => parse_rfc3339_ms(text),
        other => other.as_i64(),
    };
    ms.ok_or_else(|| {
        format!("the timestamp {timestamp} is neither milliseconds since 1970-01-01 UTC nor RFC 3339 text")
    })
}

fn write_line(kind: &str, name: &str, written: &Written, out: &mut String) {
    let mut line = format!("{{\"{kind}\":{},\"key\":", quoted(name.as_bytes()));
    line.push_str(&written.key.as_deref().map_or_else(|| "null".to_owned(), quoted));
    // Writing to a string cannot fail.
    let _ = write!(line, ",\"timestamp\":{},\"value\":", written.timestamp_ms);
    match written.value.as_deref() {
        None => line.push_str("null"),
        Some(value) if decode_value::<Value>(value).is_ok() => {
            line.push_str(&String::from_utf8_lossy(value).replace(['\n', '\r'], " "))
        }
        Some(value) => line.push_str(&quoted(value)),
    }
    for (name, header) in [("error", "thalweg.error"), ("operator", "thalweg.operator")] {
        let value = written.headers.iter().find(|(known, _)| known == header);
        if let Some((_, Some(value))) = value {
            let _ = write!(line, ",\"{name}\":{}", quoted(value));
        }
    }
    line.push_str("}\n");
    out.push_str(&line);
}

/// Bytes as a JSON string; what is no UTF-8 becomes U+FFFD.
fn quoted(bytes: &[u8]) -> String {
    let mut text = Vec::with_capacity(bytes.len() + 2);
    write_string(&String::from_utf8_lossy(bytes), &mut text);
    String::from_utf8_lossy(&text).into_owned()
}
