//! Keys and results of windows over rows.

use std::sync::Arc;

use bumpalo::Bump;

use super::{
    Aggregator, EarlyRecords, Firing, KeySelector, LocalAggregate, SessionGap, SessionOperator,
    WindowOperator, WindowResult, WindowSpec,
};
use crate::expression::{Environment, EvaluationError, Expression};
use crate::format::json::Encoder;
use crate::format::key::{decode_state_key, encode_state_key};
use crate::operator::aggregate::{Accumulators, PartialRows, RowAggregates};
use crate::operator::{ErrorPolicy, Operator, Readers};
use crate::record::{Dynamic, Event, Row, Schema, Slot};
use crate::topology::plan::Windows;
use crate::window::{CalendarWindows, WindowRange};

/// Takes the key of a row: some of its slots.
pub struct RowKey {
    /// The slots, in declared order, with the fields' names.
    pub fields: Vec<(String, usize)>,
    /// Renders rows of the stream.
    pub encoder: Arc<Encoder>,
}

impl KeySelector<Dynamic> for RowKey {
    fn select(&self, record: &Row<'_>, key: &mut Vec<u8>) -> Result<(), EvaluationError> {
        for (name, slot) in &self.fields {
            if record[*slot].is_null() {
                return Err(EvaluationError { message: format!("the key field `{name}` is null") });
            }
            encode_state_key(&[record[*slot]], key);
        }
        Ok(())
    }

    fn render(&self, record: &Row<'_>) -> Vec<u8> {
        self.encoder.to_vec(record)
    }
}

/// The gap that a row keeps its session open for: the value of an expression.
pub struct RowGap(pub Arc<Expression>);

impl SessionGap<Dynamic> for RowGap {
    fn gap_ms(&self, event: &Event<'_, Dynamic>, arena: &Bump) -> Result<i64, EvaluationError> {
        match self.0.eval(&Environment::new(event.record, event.source, arena))? {
            Slot::Duration(gap_ms) => Ok(gap_ms),
            _ => Err(EvaluationError { message: "the gap is null".to_owned() }),
        }
    }
}

/// A row of `fields`, with the key's in the first slots and nothing in the others.
pub(in crate::operator) fn begin_row<'b>(
    key: &[u8],
    key_fields: usize,
    fields: usize,
    arena: &'b Bump,
) -> Result<&'b mut [Slot<'b>], EvaluationError> {
    let row = arena.alloc_slice_fill_copy(fields, Slot::Null);
    let key: &'b [u8] = arena.alloc_slice_copy(key);
    decode_state_key(key, arena, &mut row[..key_fields])
        .map_err(|error| EvaluationError { message: format!("the key {key:02x?}: {error}") })?;
    Ok(row)
}

/// Makes rows: the key's fields, the window's start and end, the aggregates, and perhaps marks, or what a row of a
/// changelog does.
pub struct RowResults {
    key_fields: usize,
    aggregates: RowAggregates,
    marks: Vec<Firing>,
    row_fields: usize,
    /// Writes the key's fields and the window's start and end.
    head: Encoder,
}

impl RowResults {
    /// Rows of `schema`, of whose fields the first `key_fields` are the key's. The last ones are
    /// bools, one for each of `marks`, that are true for rows of that firing; or one string for what a row of a changelog does.
    pub fn new(schema: &Schema, key_fields: usize, aggregates: RowAggregates, marks: Vec<Firing>) -> Self {
        let head = Schema { fields: schema.fields[..key_fields + 2].to_vec() };
        let (row_fields, head) = (schema.fields.len(), Encoder::new(&head));
        RowResults { key_fields, aggregates, marks, row_fields, head }
    }

    /// The key and the window, in the first slots of a row of `fields`.
    fn begin<'b>(
        &self,
        key: &[u8],
        window: WindowRange,
        fields: usize,
        arena: &'b Bump,
    ) -> Result<&'b mut [Slot<'b>], EvaluationError> {
        let row = begin_row(key, self.key_fields, fields, arena)?;
        row[self.key_fields] = Slot::Timestamp(window.start_ms);
        row[self.key_fields + 1] = Slot::Timestamp(window.end_ms);
        Ok(row)
    }
}

impl WindowResult<Accumulators, Dynamic> for RowResults {
    fn make<'b>(
        &self,
        key: &[u8],
        window: WindowRange,
        value: &Accumulators,
        firing: Firing,
        arena: &'b Bump,
    ) -> Result<Row<'b>, EvaluationError> {
        let row = self.begin(key, window, self.row_fields, arena)?;
        let results = &mut row[self.key_fields + 2..];
        self.aggregates.results(value, results, arena);
        for (marked, mark) in self.marks.iter().rev().zip(results.iter_mut().rev()) {
            *mark = Slot::Bool(firing == *marked);
        }
        if let (Firing::Changelog(kind), Some(op)) = (firing, results.last_mut()) {
            *op = Slot::String(kind.name());
        }
        Ok(row)
    }

    fn describe(&self, key: &[u8], window: WindowRange) -> Vec<u8> {
        match self.begin(key, window, self.key_fields + 2, &Bump::new()) {
            Ok(row) => self.head.to_vec(row),
            Err(error) => error.message.into_bytes(),
        }
    }
}

/// The operator of windows over rows.
pub fn row_windows<A: Aggregator<Dynamic, Value = Accumulators> + 'static>(
    (windows, gap): (Windows, Option<RowGap>),
    (early, refine_every_ms): (EarlyRecords<Dynamic>, Option<i64>),
    spec: WindowSpec<()>,
    (keys, aggregates, results): (RowKey, A, RowResults),
    errors: ErrorPolicy,
    readers: Readers<Dynamic>,
) -> Box<dyn Operator<Dynamic>> {
    match windows {
        Windows::Aligned(windows) => {
            let spec = spec.with_windows(windows);
            let windows = WindowOperator::new(spec, keys, aggregates, results, errors, readers);
            Box::new(windows.with_early(early).with_refinements(refine_every_ms))
        }
        Windows::Calendar(calendar) => {
            let spec = spec.with_windows(CalendarWindows::new(calendar));
            let windows = WindowOperator::new(spec, keys, aggregates, results, errors, readers);
            Box::new(windows.with_early(early).with_refinements(refine_every_ms))
        }
        Windows::Session(windows) => {
            let spec = spec.with_windows(windows);
            let sessions = SessionOperator::new(spec, keys, aggregates, results, errors, readers);
            let sessions = sessions.with_early(early).with_refinements(refine_every_ms);
            Box::new(sessions.with_gaps(gap.map(|gap| Box::new(gap) as Box<dyn SessionGap<Dynamic>>)))
        }
    }
}

/// The first of two steps: the operator that puts rows together before they are sent. Only of windows that have panes.
pub fn local_row_windows(
    windows: &Windows,
    keys: RowKey,
    aggregates: RowAggregates,
    results: PartialRows,
    errors: ErrorPolicy,
    readers: Readers<Dynamic>,
) -> Option<Box<dyn Operator<Dynamic>>> {
    Some(match windows {
        Windows::Aligned(windows) => {
            Box::new(LocalAggregate::new(*windows, keys, aggregates, results, errors, readers))
        }
        Windows::Calendar(calendar) => {
            let windows = CalendarWindows::new(calendar.clone());
            Box::new(LocalAggregate::new(windows, keys, aggregates, results, errors, readers))
        }
        Windows::Session(_) => return None,
    })
}
