//! Keyed windows.
//!
//! - [`WindowOperator`]: windows that are aligned to the clock or to a calendar.
//! - [`SessionOperator`]: windows that last as long as records follow one another.
//! - [`GlobalWindowOperator`]: windows that no time closes.
//! - [`LocalAggregate`]: the first of two steps, where records change keys between the two.
//!
//! What else is kept per key for a length of event time lies as sessions do (`expiring`).

mod aligned;
mod changelog;
mod early;
mod expiring;
mod global;
mod local;
mod refining;
mod rows;
mod session;
mod state;
mod told;

use std::sync::Arc;

use bumpalo::Bump;

use super::staged::{add, provenance};
use super::{Context, ErrorPolicy, OperatorError, OutputTarget, Readers};
use crate::expression::EvaluationError;
use crate::planted::{Bug, is_planted};
use crate::record::{Event, OutputRecord, RecordType};
use crate::state::header::OperatorState;
use crate::state::key::STATE_KEY_BYTES_MAX;
use crate::state::{ValueCodec, WindowTable};
use crate::time::MIN_TIME_MS;
use crate::window::{AlignedWindows, EarlyFiring, TimeDomain, WindowRange};

pub use aligned::WindowOperator;
pub use changelog::RowKind;
pub use early::EarlyRecords;
pub(super) use expiring::{Expiring, ExpiringSpec, Retention};
pub use global::{
    Condition, Fires, GlobalTrigger, GlobalWindowOperator, GlobalWindowSpec, Kept, KeptCodec, RowCondition,
    row_trigger,
};
pub use local::{LocalAggregate, PartialResult};
pub(super) use rows::begin_row;
pub use rows::{RowGap, RowKey, RowResults, local_row_windows, row_windows};
pub use session::{Session, SessionCodec, SessionGap, SessionOperator};
pub use told::Told;

/// Takes a record's key, as bytes.
pub trait KeySelector<R: RecordType> {
    /// Appends the key to `key`; two records belong together if and only if their bytes are equal.
    fn select(&self, record: &R::Of<'_>, key: &mut Vec<u8>) -> Result<(), EvaluationError>;
    /// The record as text, for dead letters and late records.
    fn render(&self, record: &R::Of<'_>) -> Vec<u8>;
}

/// An aggregate that is updated record by record; its value is kept per key and window.
pub trait Aggregator<R: RecordType>: ValueCodec {
    /// What one record adds.
    type Input<'b>;
    /// What `event` adds, or why it adds nothing.
    fn input<'b>(&self, event: &Event<'b, R>, arena: &'b Bump) -> Result<Self::Input<'b>, EvaluationError>;
    /// The value over no records.
    fn create(&self) -> Self::Value;
    /// Adds to the value. On an error the value is as before.
    fn add(&self, value: &mut Self::Value, input: Self::Input<'_>) -> Result<(), EvaluationError>;
    /// How many records the value is over. Only asked for early records by their number, and where windows begin anew with
    /// them.
    fn rows(&self, _value: &Self::Value) -> i64 {
        0
    }
    /// How many records a record stands for.
    fn rows_of(&self, _event: &Event<'_, R>) -> u64 {
        1
    }
    /// Adds what `later` holds, the value over records of a later pane. On an error the value does not matter any
    /// more.
    fn merge(&self, value: &mut Self::Value, later: &Self::Value) -> Result<(), EvaluationError>;
    /// The same value once more.
    fn copied(&self, value: &Self::Value) -> Result<Self::Value, EvaluationError> {
        let mut copy = self.create();
        self.merge(&mut copy, value).map(|()| copy)
    }
    /// Whether a value keeps what was told of its window. Only asked for a changelog whose records are not made after each
    /// update: without this there is none.
    fn keeps_told(&self) -> bool {
        false
    }
    /// What was told of the window of a value.
    fn told<'v>(&self, _value: &'v Self::Value) -> &'v Told<Self::Value> {
        &Told::WithFiring
    }
    /// Changes that, and returns what it was.
    fn set_told(&self, _value: &mut Self::Value, _told: Told<Self::Value>) -> Told<Self::Value> {
        Told::WithFiring
    }
    /// The value over no records of a pane that is there for what was told alone, until a record is added to it.
    fn hollow(&self) -> Self::Value {
        self.create()
    }
    /// Whether a value is that.
    fn is_hollow(&self, _value: &Self::Value) -> bool {
        false
    }
}

/// Makes a record of a window's value.
pub trait WindowResult<V, O: RecordType> {
    /// The record.
    fn make<'b>(
        &self,
        key: &[u8],
        window: WindowRange,
        value: &V,
        firing: Firing,
        arena: &'b Bump,
    ) -> Result<O::Of<'b>, EvaluationError>;
    /// A made record as text, for messages about it.
    fn describe(&self, key: &[u8], window: WindowRange) -> Vec<u8>;
}

/// When a window makes records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmitRows {
    /// Once, when it closes.
    OnClose,
    /// When the watermark reaches its end, and after every record that comes later and that it still takes.
    OnTime,
    /// After every record, and when it closes.
    OnUpdate,
}

/// Why a window makes a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firing {
    /// It was updated, and goes on taking records.
    Update,
    /// It was updated since its last record, and is not over.
    Early,
    /// The watermark reached its end.
    OnTime,
    /// It was updated after the watermark had reached its end.
    Refinement,
    /// It closed: no further record follows.
    Close,
    /// There is a changelog, and this is what the record does.
    Changelog(RowKind),
}

/// What becomes of late records, which are counted in any case.
#[derive(Clone, Debug)]
pub enum LateRecords {
    /// Left out.
    Drop,
    /// Written here.
    Write(Arc<OutputTarget>),
}

/// What a window operator is told beside its functions.
#[derive(Clone, Debug)]
pub struct WindowSpec<W = AlignedWindows> {
    /// The operator's id.
    pub id: Arc<str>,
    /// What its state depends on.
    pub fingerprint: String,
    /// Which windows there are.
    pub windows: W,
    /// Whose time they are cut from.
    pub time: TimeDomain,
    /// How long after its end a window still takes records.
    pub allowed_lateness_ms: i64,
    /// When it makes records.
    pub emit: EmitRows,
    /// Whether they are a changelog: each record takes back, or takes the place of, what was told before, and none comes at the
    /// close that changes nothing. With early ones, or refinements by the clock, only if the [`Aggregator`] keeps what was told;
    /// if not, there are none of these. Not of windows that begin anew with early ones.
    pub changelog: bool,
    /// When it makes records of windows that are not over as well. To count records is up to the [`Aggregator`].
    pub early: Option<EarlyFiring>,
    /// What becomes of late records.
    pub late: LateRecords,
}

impl<W> WindowSpec<W> {
    /// The same of other windows.
    pub fn with_windows<V>(self, windows: V) -> WindowSpec<V> {
        let WindowSpec { id, fingerprint, time, allowed_lateness_ms, emit, changelog, early, late, .. } =
            self;
        WindowSpec { id, fingerprint, windows, time, allowed_lateness_ms, emit, changelog, early, late }
    }

    /// Windows that end at or before this instant are due when the watermark is at `watermark_ms`.
    fn due_ms(&self, watermark_ms: i64) -> i64 {
        match self.emit {
            EmitRows::OnTime => watermark_ms,
            EmitRows::OnClose | EmitRows::OnUpdate => self.closed_ms(watermark_ms),
        }
    }

    /// Windows that end at or before this instant are closed when the watermark is at `watermark_ms`.
    fn closed_ms(&self, watermark_ms: i64) -> i64 {
        watermark_ms.saturating_sub(self.allowed_lateness_ms)
    }

    /// What a window makes when it is due; `None` if all has been told.
    fn due_firing(&self) -> Option<Firing> {
        match self.emit {
            EmitRows::OnUpdate if self.changelog => None,
            _ if self.changelog => Some(Firing::Changelog(RowKind::Insert)),
            EmitRows::OnTime => Some(Firing::OnTime),
            EmitRows::OnClose | EmitRows::OnUpdate => Some(Firing::Close),
        }
    }

    /// Counts a late record, which stands for `rows`, and writes it where it belongs.
    fn put_late<R: RecordType>(
        &self,
        event: &Event<'_, R>,
        rows: u64,
        keys: &impl KeySelector<R>,
        errors: &ErrorPolicy,
        context: &mut Context<'_, '_>,
    ) -> Result<(), OperatorError> {
        add(&mut context.staged.counters.late, &self.id, rows);
        let LateRecords::Write(target) = &self.late else { return Ok(()) };
        let key = event.source.and_then(|source| source.key).map(<[u8]>::to_vec);
        let record = OutputRecord {
            topic: target.topic.clone(),
            partition: context.staged.partition_by(event.source.as_ref(), target.partitions),
            key,
            value: Some(keys.render(&event.record)),
            headers: event.source.as_ref().map(provenance).unwrap_or_default(),
            timestamp_ms: event.time_ms,
        };
        if let Some(message) = target.refuses(&record) {
            let value = record.value.unwrap_or_default();
            return errors.refuse(&message, event, || value, context);
        }
        context.staged.push(record);
        Ok(())
    }
}

/// Whether a window that was over `before` records has come to, or beyond, a number at which it makes an early one.
fn is_early_at(early: Option<EarlyFiring>, before: i64, rows: i64) -> bool {
    matches!(early, Some(EarlyFiring::EveryRows(every)) if every > 0 && rows / every > before / every)
}

/// How far the windows of an operator have fired, which is part of its state.
struct Fired {
    /// Up to here windows fire and records are late.
    watermark_ms: i64,
    /// The windows that end here or before have fired.
    end_ms: i64,
    /// The key at which the firing of the windows that end next goes on; empty if it has not begun.
    from: Vec<u8>,
}

impl Fired {
    /// Nothing has.
    fn nothing() -> Fired {
        Fired { watermark_ms: MIN_TIME_MS, end_ms: MIN_TIME_MS, from: Vec::new() }
    }

    /// Whether the window of a key that ends at `end_ms` has.
    fn has(&self, end_ms: i64, key: &[u8]) -> bool {
        end_ms <= self.end_ms || (end_ms == self.end_ms.saturating_add(1) && key < &self.from[..])
    }

    fn saved<W>(&self, spec: &WindowSpec<W>) -> OperatorState {
        OperatorState {
            id: spec.id.to_string(),
            fingerprint: spec.fingerprint.clone(),
            firing_cursor: self.from.clone(),
            fired_watermark_ms: (self.watermark_ms > MIN_TIME_MS).then_some(self.watermark_ms),
            fired_end_ms: (self.end_ms > MIN_TIME_MS).then_some(self.end_ms),
            fired_on_time: spec.emit == EmitRows::OnTime,
        }
    }

    /// As it was saved, perhaps by an operator that made its rows at another time.
    fn restored<W>(saved: Option<&OperatorState>, spec: &WindowSpec<W>) -> Fired {
        let Some(saved) = saved else { return Fired::nothing() };
        let watermark_ms = saved.fired_watermark_ms.unwrap_or(MIN_TIME_MS);
        let closed_ms = spec.closed_ms(watermark_ms);
        let mut from = saved.firing_cursor.clone();
        let end_ms = match saved.fired_end_ms {
            Some(end_ms) if !is_planted(Bug::FiredEndNotRestored) => end_ms,
            // Before there was `fired_end_ms`, windows fired when they closed, and were removed when they had fired.
            _ if from.is_empty() => closed_ms,
            _ => MIN_TIME_MS,
        };
        if saved.fired_on_time && spec.emit != EmitRows::OnTime {
            // Those that have ended and are not closed make a row when they close.
            from.clear();
            return Fired { watermark_ms, end_ms: end_ms.min(closed_ms), from };
        }
        if is_planted(Bug::CursorNotRestored) {
            from.clear();
        }
        Fired { watermark_ms, end_ms, from }
    }
}

/// Where the records that windows make go.
struct Outlet<O: RecordType, F> {
    results: F,
    errors: ErrorPolicy,
    readers: Readers<O>,
}

impl<O: RecordType, F> Outlet<O, F> {
    /// Makes a record of a key's value in a window and hands it on. One that cannot be made is an error of
    /// that record, not of the one that changed the value: that counts.
    fn emit<V>(
        &mut self,
        row: (&[u8], WindowRange, Result<&V, EvaluationError>, Firing),
        context: &mut Context<'_, '_>,
    ) -> Result<(), OperatorError>
    where
        F: WindowResult<V, O>,
    {
        self.emit_if(row, None, context).map(drop)
    }

    /// The same, if the condition holds of the record. Returns whether one was made.
    fn emit_if<V>(
        &mut self,
        (key, window, value, firing): (&[u8], WindowRange, Result<&V, EvaluationError>, Firing),
        condition: Option<&dyn Condition<O>>,
        context: &mut Context<'_, '_>,
    ) -> Result<bool, OperatorError>
    where
        F: WindowResult<V, O>,
    {
        let made = value.and_then(|value| self.results.make(key, window, value, firing, context.arena));
        let made = made.and_then(|record| {
            let event = Event { record, time_ms: window.end_ms - 1, source: None };
            let holds = condition.map_or(Ok(true), |condition| condition.holds(&event, context.arena))?;
            Ok(holds.then_some(event))
        });
        match made {
            Ok(Some(event)) => self.readers.process(event, context).map(|()| true),
            Ok(None) => Ok(false),
            Err(error) => {
                let describe = || self.results.describe(key, window);
                self.errors.handle(&error.message, None, describe, context.staged)?;
                Ok(false)
            }
        }
    }
}

/// Takes a record's key into `key`, whatever that held.
pub(super) fn select<R: RecordType>(
    keys: &impl KeySelector<R>,
    record: &R::Of<'_>,
    key: &mut Vec<u8>,
) -> Result<(), EvaluationError> {
    key.clear();
    keys.select(record, key)?;
    fits(key)
}

/// Has a table look for the entries of records in the windows that `end_of` names for their event times.
fn prefetch<R: RecordType, C: ValueCodec>(
    table: &mut WindowTable<C>,
    keys: &impl KeySelector<R>,
    key: &mut Vec<u8>,
    events: &[Event<'_, R>],
    end_of: impl Fn(i64) -> i64,
) {
    for event in events {
        key.clear();
        if keys.select(&event.record, key).is_ok() {
            table.prefetch_later(end_of(event.time_ms), key);
        }
    }
    table.prefetch();
}

/// A key that is too long would make an entry that fits no changelog record.
fn fits(key: &[u8]) -> Result<(), EvaluationError> {
    if key.len() > STATE_KEY_BYTES_MAX {
        return Err(EvaluationError {
            message: format!("the key takes {} bytes, more than {STATE_KEY_BYTES_MAX}", key.len()),
        });
    }
    Ok(())
}

/// The least key behind `key`; never empty, as a key may be.
fn behind(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}
