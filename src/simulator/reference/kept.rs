//! Behind sources that may be idle: which rows come late depends on what was there when, so that nobody can say what
//! a window counts. But each row counts once in its window, or is late for it, once. Nor can anybody say in which window
//! of processing time a row counts; but it does in one, once.

use std::collections::BTreeMap;

use super::compare::is;
use super::json::Json;
use super::rekeyed::SentRow;
use super::written::late_row;
use super::{Row, object};
use crate::simulator::Written;
use crate::simulator::generate::{Generated, OperatorKind, Window};
use crate::simulator::reference::windows;
use crate::topology::plan::StreamRef;
use crate::window::TimeDomain;

/// For each key, as the text of its JSON values, and each window by its end: how many rows.
type Counts = BTreeMap<(i64, String), i64>;

/// What a window that is fed by such sources must have counted, or called late.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The topic of its rows.
    pub(super) sink: String,
    /// That of its late rows.
    pub(super) late: String,
    window: Window,
    /// The field that counts.
    count: String,
    /// The fields of its key.
    names: Vec<String>,
    counts: Counts,
    /// Its rows as they are written if they come late.
    late_rows: Vec<Row>,
}

/// Of the operator with this number, for each of its sinks; `rows` are those that were sent to it.
pub(super) fn kept(
    generated: &Generated,
    index: usize,
    rows: &[SentRow],
    told_ms: &[Option<i64>],
) -> Option<Vec<Kept>> {
    let operator = &generated.operators[index];
    let OperatorKind::Window(window) = &operator.kind else { return None };
    let fields = generated.fields(operator.input);
    let names: Vec<String> = window.key.iter().map(|slot| fields[*slot].name.clone()).collect();
    let mut counts = Counts::new();
    for event in rows.iter().map(SentRow::event) {
        let key = key_of(&names, &object(&fields, event.row))?;
        for end_ms in ends(window, event.time_ms) {
            *counts.entry((end_ms, key.clone())).or_default() += 1;
        }
    }
    // All are idle in the end, and the watermark is the greatest.
    let watermark_ms = told_ms.iter().max().copied().flatten();
    let closed = |end_ms: i64| watermark_ms.is_some_and(|at_ms| end_ms + window.allowed_lateness_ms <= at_ms);
    let by_clock = window.time == TimeDomain::Processing;
    counts.retain(|(end_ms, _), _| generated.bounded || by_clock || closed(*end_ms));
    let late = window.late.clone().unwrap_or_default();
    let count = window.aggregates.first()?.name.clone();
    let partitions = generated.partitions(&late);
    let late_rows = rows.iter().map(|row| late_row(&row.event(), &fields, 0, partitions)).collect();
    let window = window.clone();
    let kept = Kept { sink: String::new(), late, window, count, names, counts, late_rows };
    let sinks = generated.sinks.iter().filter(|sink| sink.input == StreamRef::Operator(index));
    Some(sinks.map(|sink| Kept { sink: sink.topic.clone(), ..kept.clone() }).collect())
}

/// The ends of the windows that a row counts in; of processing time nobody knows which it is, but that it is one.
fn ends(window: &Window, time_ms: i64) -> Vec<i64> {
    match window.time {
        TimeDomain::Event => windows::ends(window, time_ms),
        TimeDomain::Processing => vec![0],
    }
}

impl Kept {
    /// Whether that is what was written.
    pub(super) fn check(&self, written: &BTreeMap<String, Vec<Written>>) -> Result<(), String> {
        let rows = |topic: &String| written.get(topic).map(Vec::as_slice).unwrap_or_default();
        let mut counts = Counts::new();
        let unreadable =
            |row: &Written| format!("{:?} is no row", row.value.as_deref().map(String::from_utf8_lossy));
        for row in rows(&self.sink) {
            let value = row.value.as_deref().unwrap_or_default();
            let key = key_of(&self.names, value).ok_or_else(|| unreadable(row))?;
            let end_ms = number(value, "window_end").ok_or_else(|| unreadable(row))?;
            let count = number(value, &self.count).ok_or_else(|| unreadable(row))?;
            let end_ms = if self.window.time == TimeDomain::Processing { 0 } else { end_ms };
            *counts.entry((end_ms, key)).or_default() += count;
        }
        for row in rows(&self.late) {
            if !self.late_rows.iter().any(|late| is(row, late)) {
                return Err(format!("{}: no row that is late is {row:?}", self.late));
            }
            let key = key_of(&self.names, row.value.as_deref().unwrap_or_default());
            let key = key.ok_or_else(|| unreadable(row))?;
            for end_ms in windows::ends(&self.window, row.timestamp_ms) {
                *counts.entry((end_ms, key.clone())).or_default() += 1;
            }
        }
        match counts == self.counts {
            true => Ok(()),
            false => Err(format!(
                "{} and {} hold {counts:?} rows by window and key instead of {:?}",
                self.sink, self.late, self.counts
            )),
        }
    }
}

/// The values of these fields in a row, as text that is the same for equal values.
fn key_of(names: &[String], value: &[u8]) -> Option<String> {
    let json = Json::parse(value)?;
    let values: Option<Vec<String>> =
        names.iter().map(|name| Some(format!("{:?}", json.member(name)?))).collect();
    Some(values?.join(" "))
}

fn number(value: &[u8], name: &str) -> Option<i64> {
    match Json::parse(value)?.member(name)? {
        Json::Number(text) => text.parse().ok(),
        _ => None,
    }
}
