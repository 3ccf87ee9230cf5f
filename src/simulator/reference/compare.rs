//! What was written beside what must be.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::json::Json;
use super::{ERROR, Expected, Row, Writer};
use crate::simulator::Written;
use crate::topology::plan::EARLY_MARK;

/// How many rows of a difference are shown.
const SHOWN_MAX: usize = 5;

/// Whether what was written is what must be: each row once, those of one writer in its order.
///
/// # Errors
/// The first difference, by topic and partition: what is missing, too much, twice or in another order.
pub fn compare(expected: &Expected, written: &BTreeMap<String, Vec<Written>>) -> Result<(), String> {
    let nothing = BTreeMap::new();
    expected.kept.iter().try_for_each(|kept| kept.check(written))?;
    for (topic, sums) in &expected.sums {
        sums.check(topic, written.get(topic).map(Vec::as_slice).unwrap_or_default())?;
    }
    let is_kept = |topic: &str| {
        expected.kept.iter().any(|kept| kept.sink == *topic || kept.late == *topic)
            || expected.sums.contains_key(topic)
    };
    for (topic, rows) in written.iter().filter(|(topic, _)| !is_kept(topic)) {
        let rows = match expected.with_early.get(topic) {
            Some(names) => without_early(topic, names, rows)?,
            None => rows.iter().collect(),
        };
        let writers = expected.topics.get(topic).unwrap_or(&nothing);
        match (expected.refined.get(topic), expected.folded.get(topic)) {
            (Some(refined), _) => refined.check(topic, writers, rows)?,
            (None, Some(folded)) => folded.check(topic, writers, rows)?,
            (None, None) => compare_topic(topic, writers, &rows)?,
        }
    }
    let unwritten = |topic: &str| !written.contains_key(topic) && !expected.sums.contains_key(topic);
    for (topic, writers) in expected.topics.iter().filter(|(topic, _)| unwritten(topic)) {
        compare_topic(topic, writers, &[])?;
    }
    Ok(())
}

/// The rows that are not early. An early one tells what it has so far of a window that has made no other row.
fn without_early<'r>(topic: &str, names: &[String], rows: &'r [Written]) -> Result<Vec<&'r Written>, String> {
    let (mut others, mut over) = (Vec::new(), BTreeSet::new());
    let mut in_order: Vec<&Written> = rows.iter().collect();
    in_order.sort_by_key(|row| (row.partition, row.offset));
    for row in in_order {
        let json = row.value.as_deref().and_then(Json::parse);
        let member =
            |name: &str| json.as_ref().and_then(|json| json.member(name)).map(|value| format!("{value:?}"));
        let window: Vec<Option<String>> = names.iter().map(|name| member(name)).collect();
        if member(EARLY_MARK) != Some(format!("{:?}", Json::Bool(true))) {
            over.insert((row.partition, window));
            others.push(row);
        } else if over.contains(&(row.partition, window)) {
            let value = row.value.as_deref().map(String::from_utf8_lossy);
            return Err(format!(
                "{topic}[{}]: an early row of a window that is over: {value:?}",
                row.partition
            ));
        }
    }
    Ok(others)
}

/// Whether the rows of a topic are those of its writers.
pub(super) fn compare_topic(
    topic: &str,
    writers: &BTreeMap<Writer, Vec<Row>>,
    rows: &[&Written],
) -> Result<(), String> {
    let mut partitions: BTreeMap<i32, Partition> = BTreeMap::new();
    for (writer, rows) in writers {
        let mut of_partition: BTreeMap<i32, Vec<&Row>> = BTreeMap::new();
        for row in rows {
            of_partition.entry(row.partition).or_default().push(row);
        }
        for (partition, rows) in of_partition {
            partitions.entry(partition).or_default().writers.push((writer, rows));
        }
    }
    for row in rows {
        partitions.entry(row.partition).or_default().written.push(row);
    }
    for (number, mut partition) in partitions {
        partition.written.sort_by_key(|row| row.offset);
        if !partition.is_a_mix() {
            partition.difference().map_err(|difference| format!("{topic}[{number}]: {difference}"))?;
        }
    }
    Ok(())
}

/// One partition of a topic.
#[derive(Default)]
struct Partition<'r> {
    writers: Vec<(&'r Writer, Vec<&'r Row>)>,
    written: Vec<&'r Written>,
}

impl Partition<'_> {
    /// Whether each written row is the next one of some writer. If two are at the same row the first one
    /// is taken, which may be the wrong one.
    fn is_a_mix(&self) -> bool {
        let mut next = vec![0; self.writers.len()];
        let total: usize = self.writers.iter().map(|(_, rows)| rows.len()).sum();
        total == self.written.len()
            && self.written.iter().all(|written| {
                let mut writers = self.writers.iter().zip(&mut next);
                let found =
                    writers.find(|((_, rows), next)| rows.get(**next).is_some_and(|row| is(written, row)));
                found.map(|(_, next)| *next += 1).is_some()
            })
    }

    /// What is wrong; nothing if each row is there as often as it must be, and those of each writer are in
    /// order.
    fn difference(&self) -> Result<(), String> {
        let mut left: Vec<Option<&Written>> = self.written.iter().map(|written| Some(*written)).collect();
        let mut missing = Vec::new();
        for (writer, rows) in &self.writers {
            for (place, row) in rows.iter().enumerate() {
                match left.iter_mut().find(|left| left.is_some_and(|written| is(written, row))) {
                    Some(found) => *found = None,
                    None => missing.push((writer, place, row)),
                }
            }
        }
        let mut text = String::new();
        for (writer, place, row) in missing.iter().take(SHOWN_MAX) {
            let _ = write!(text, "\n  missing: row {place} of {}, {}", show_writer(writer), show(row));
        }
        for written in left.iter().flatten().take(SHOWN_MAX) {
            let known = self.writers.iter().any(|(_, rows)| rows.iter().any(|row| is(written, row)));
            let what = if known { "twice" } else { "unexpected" };
            let _ = write!(text, "\n  {what}: at offset {}, {}", written.offset, show(&row_of(written)));
        }
        if !text.is_empty() {
            let extra = left.iter().flatten().count();
            return Err(format!(
                "of {} rows {} are missing; of {} written {extra} are too much{text}",
                self.writers.iter().map(|(_, rows)| rows.len()).sum::<usize>(),
                missing.len(),
                self.written.len()
            ));
        }
        for (writer, rows) in &self.writers {
            let mut written = self.written.iter();
            for (place, row) in rows.iter().enumerate() {
                if !written.any(|written| is(written, row)) {
                    let writer = show_writer(writer);
                    return Err(format!(
                        "row {place} of {writer} is written before one that comes before it: {}",
                        show(row)
                    ));
                }
            }
        }
        Ok(())
    }
}

/// Whether a written record is the expected row.
fn is(written: &Written, row: &Row) -> bool {
    written.value == row.value
        && written.key == row.key
        && row.timestamp_ms.is_none_or(|timestamp_ms| timestamp_ms == written.timestamp_ms)
        && written.headers.len() == row.headers.len()
        && written.headers.iter().zip(&row.headers).all(|((name, value), (expected, wanted))| {
            name == expected
                && match wanted {
                    None if expected == ERROR => value.as_ref().is_some_and(|text| !text.is_empty()),
                    wanted => value == wanted,
                }
        })
}

fn row_of(written: &Written) -> Row {
    Row {
        partition: written.partition,
        key: written.key.clone(),
        value: written.value.clone(),
        headers: written.headers.clone(),
        timestamp_ms: Some(written.timestamp_ms),
    }
}

fn show_writer(writer: &Writer) -> String {
    format!("{} in the task of {}", writer.id, writer.task)
}

fn show(row: &Row) -> String {
    let text = |bytes: Option<&Vec<u8>>| match bytes {
        Some(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        None => "null".to_owned(),
    };
    let mut shown = format!("key {}, value {}", text(row.key.as_ref()), text(row.value.as_ref()));
    if let Some(ms) = row.timestamp_ms {
        let _ = write!(shown, ", timestamp {ms}");
    }
    for (name, value) in &row.headers {
        let _ = write!(shown, ", {name}: {}", text(value.as_ref()));
    }
    shown
}
