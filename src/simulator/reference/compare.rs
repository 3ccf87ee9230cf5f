//! What was written beside what must be.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::json::Json;
use super::{ERROR, Expected, OPERATOR, Row, Writer};
use crate::record::TopicPartition;
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
            Some(early) => without_early(topic, early, rows)?,
            None => rows.iter().collect(),
        };
        let writers = expected.topics.get(topic).unwrap_or(&nothing);
        let (writers, rows) = without_repeats(&expected.repeated, writers, rows);
        let writers = &*writers;
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

/// Of an operator that several rows of one record may fail on in several tasks, or in one of which it sees them apart,
/// the first letter of a record; and in no order.
fn without_repeats<'e, 'w>(
    repeated: &BTreeSet<String>,
    writers: &'e BTreeMap<Writer, Vec<Row>>,
    mut written: Vec<&'w Written>,
) -> (Cow<'e, BTreeMap<Writer, Vec<Row>>>, Vec<&'w Written>) {
    if !writers.keys().any(|writer| repeated.contains(&writer.id)) {
        return (Cow::Borrowed(writers), written);
    }
    let letter = |headers: &[(String, Option<Vec<u8>>)]| -> Option<Vec<(String, Option<Vec<u8>>)>> {
        let (_, operator) = headers.iter().find(|(name, _)| name == OPERATOR)?;
        let operator = String::from_utf8_lossy(operator.as_deref()?).into_owned();
        let others = headers.iter().filter(|(name, _)| name != ERROR).cloned();
        repeated.contains(&operator).then(|| others.collect())
    };
    let mut seen = BTreeSet::new();
    written.retain(|row| letter(&row.headers).is_none_or(|letter| seen.insert(letter)));
    let mut seen = BTreeSet::new();
    let mut others = BTreeMap::<Writer, Vec<Row>>::new();
    for (writer, rows) in writers {
        for row in rows {
            let mut writer = writer.clone();
            if let Some(letter) = letter(&row.headers) {
                if !seen.insert(letter) {
                    continue;
                }
                writer.task = TopicPartition::new(&format!("of repeated rows, {}", seen.len()), 0);
            }
            others.entry(writer).or_default().push(row.clone());
        }
    }
    (Cow::Owned(others), written)
}

/// What windows have held, row by row.
#[derive(Clone, Debug, Default)]
pub struct States {
    /// By what tells a window of a key.
    windows: BTreeMap<Vec<String>, Vec<String>>,
    /// Which of them was told last, in each partition: rows of several stand in no order.
    told: BTreeMap<(i32, Vec<String>), usize>,
}

impl States {
    /// A window holds this now.
    pub(super) fn push(&mut self, window: Vec<String>, row: String) {
        self.windows.entry(window).or_default().push(row);
    }

    /// A row in a partition tells what its window held at some time, not before what was told there of it last. Says whether
    /// it did.
    pub(super) fn go_to(&mut self, partition: i32, window: Vec<String>, row: &str) -> bool {
        let Some(states) = self.windows.get(&window) else { return false };
        let told = self.told.entry((partition, window)).or_default();
        let ahead = states[*told..].iter().position(|state| state == row);
        *told += ahead.unwrap_or(0);
        ahead.is_some()
    }
}

/// What is known of early rows that come by a time.
#[derive(Clone, Debug, Default)]
pub struct EarlyRows {
    /// The fields that tell the key and the window.
    pub names: Vec<String>,
    /// What the windows have held, as early rows; `None` where the order of rows is not known.
    pub states: Option<States>,
}

impl EarlyRows {
    /// What tells the window of a row, and whether it is an early one.
    pub(super) fn told(&self, row: &[u8]) -> Option<(Vec<String>, bool)> {
        let json = Json::parse(row)?;
        let member = |name: &str| json.member(name).map(|value| format!("{value:?}"));
        let window: Option<Vec<String>> = self.names.iter().map(|name| member(name)).collect();
        Some((window?, member(EARLY_MARK) == Some(format!("{:?}", Json::Bool(true)))))
    }
}

/// The rows that are not early. An early one tells what a window that has made no other row has so far, and not less than the
/// one before it.
fn without_early<'r>(
    topic: &str,
    early: &EarlyRows,
    rows: &'r [Written],
) -> Result<Vec<&'r Written>, String> {
    let (mut others, mut over, mut states) = (Vec::new(), BTreeSet::new(), early.states.clone());
    let mut in_order: Vec<&Written> = rows.iter().collect();
    in_order.sort_by_key(|row| (row.partition, row.offset));
    for row in in_order {
        let value = row.value.as_deref().unwrap_or_default();
        let text = String::from_utf8_lossy(value);
        let wrong = |what: &str| Err(format!("{topic}[{}]: {what}: {text}", row.partition));
        let Some((window, is_early)) = early.told(value) else { return wrong("no row of a window") };
        if !is_early {
            over.insert((row.partition, window));
            others.push(row);
        } else if over.contains(&(row.partition, window.clone())) {
            return wrong("an early row of a window that is over");
        } else if states.as_mut().is_some_and(|states| !states.go_to(row.partition, window, &text)) {
            return wrong("an early row of what its window did not hold then");
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
pub(super) fn is(written: &Written, row: &Row) -> bool {
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
