//! Changes of keys: what was sent is taken as one heap of rows, whoever sent it and whenever it came.
//!
//! That is enough where nothing comes late: the generator has the times of such a source advance with its
//! watermark, and has nothing behind a change of keys depend on the order of rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::evaluate::Origin;
use super::kept::kept;
use super::{ByClock, Event, Expected, Failed, OpenWindows, Row, Shape, Task, Value, Writer};
use crate::record::TopicPartition;
use crate::simulator::Input;
use crate::simulator::generate::{Generated, OperatorKind, Shape as WindowShape};
use crate::topology::plan::StreamRef;

/// What goes to the stages behind changes of keys, by the number of the operator.
#[derive(Default)]
pub(super) struct Sent {
    /// The rows.
    rows: BTreeMap<usize, Vec<SentRow>>,
    /// What each task told last; `None`: nothing.
    told_ms: BTreeMap<usize, Vec<Option<i64>>>,
}

/// A row that is sent, or that goes by the clock.
pub(super) struct SentRow {
    row: Vec<Value>,
    time_ms: i64,
    /// The record that it comes from, and its offset.
    origin: Option<(Arc<Input>, i64)>,
}

impl SentRow {
    pub fn of(event: &Event<'_>) -> SentRow {
        let origin = event.origin.map(|Origin { input, offset }| (input.clone(), offset));
        SentRow { row: event.row.to_vec(), time_ms: event.time_ms, origin }
    }

    pub fn event(&self) -> Event<'_> {
        let origin = self.origin.as_ref().map(|(input, offset)| Origin { input, offset: *offset });
        Event { row: &self.row, time_ms: self.time_ms, origin }
    }
}

impl Task<'_, '_> {
    /// Sends a row to the stage of an operator.
    pub(super) fn send(&mut self, index: usize, key: &[usize], event: &Event<'_>) -> Result<(), Failed> {
        if key.iter().any(|slot| event.row[*slot] == Value::Null) {
            return Err(Failed);
        }
        match &self.generated.operators[index].kind {
            OperatorKind::Window(window) if window.is_two_phase() => self.out.put_together += 1,
            _ => self.out.records += 1,
        }
        self.sent.rows.entry(index).or_default().push(SentRow::of(event));
        Ok(())
    }

    /// Takes a row that was sent.
    fn arrive(&mut self, index: usize, event: &Event<'_>) {
        let operator = &self.generated.operators[index];
        let fields = self.generated.fields(operator.input);
        let result = match &operator.kind {
            OperatorKind::Window(window) if window.shape == WindowShape::Session => {
                self.follow(index, operator, window, &fields, event)
            }
            OperatorKind::Window(window) => self.group(index, operator, window, &fields, event),
            _ => {
                self.process(StreamRef::Operator(index), event);
                Ok(())
            }
        };
        if result.is_err() {
            self.failed(&operator.id, &operator.on_error, event.origin, Vec::new);
        }
    }

    /// A watermark has come everywhere.
    pub(super) fn arrived(&mut self) {
        self.told_ms.append(&mut self.passing_ms);
    }

    /// Says how far it came, to those operators that read what it sends. `head` is its stage, as
    /// [`Generated::heads_of`] numbers them.
    pub(super) fn tell(&mut self, head: usize) {
        let generated = self.generated;
        let of_stage = |index: &usize| generated.rekeys(*index) && generated.heads_of(*index).contains(&head);
        for index in (0..generated.operators.len()).filter(of_stage) {
            let told = self.told_ms.get(&index).copied();
            self.sent.told_ms.entry(index).or_default().push(told);
        }
    }
}

/// What the stages behind changes of keys write.
pub(super) fn behind(
    generated: &Generated,
    shape: &Shape<'_>,
    sent: &mut Sent,
    by_clock: &mut ByClock,
    out: &mut Expected,
) {
    for index in (0..generated.operators.len()).filter(|index| generated.rekeys(*index)) {
        let partition = TopicPartition::new(&format!("behind {}", generated.operators[index].id), 0);
        let rows = sent.rows.remove(&index).unwrap_or_default();
        let told_ms = sent.told_ms.remove(&index).unwrap_or_default();
        if generated.may_be_idle(index) {
            out.kept.extend(kept(generated, index, &rows, &told_ms).into_iter().flatten());
            continue;
        }
        let mut task = Task {
            generated,
            shape,
            partition: &partition,
            windows: generated.operators.iter().map(|_| OpenWindows::default()).collect(),
            max_time_ms: None,
            rows: BTreeMap::new(),
            told_ms: BTreeMap::new(),
            passing_ms: BTreeMap::new(),
            refused: BTreeMap::new(),
            is_in_order: false,
            sent: &mut *sent,
            by_clock: &mut *by_clock,
            out: &mut *out,
        };
        for row in &rows {
            task.arrive(index, &row.event());
        }
        // One that has told nothing is waited for.
        if let Some(watermark_ms) = told_ms.into_iter().min().flatten() {
            task.advance_operator(index, watermark_ms);
            task.arrived();
        }
        task.tell(generated.sources.len() + index);
        task.end_in_any_order();
    }
}

impl Task<'_, '_> {
    /// Hands over what was written: by which task, and so in which order, nobody knows.
    fn end_in_any_order(self) {
        for ((topic, id), rows) in self.rows {
            let writers = self.out.topics.entry(topic.to_owned()).or_default();
            for (number, row) in (0..).zip(rows) {
                let task = TopicPartition::new(&self.partition.topic, number);
                writers.insert(Writer { id: id.to_owned(), task }, Vec::<Row>::from([row]));
            }
        }
    }
}
