//! Operators: what a stage does with its records, one file each, one contract.
//!
//! Operators form a tree: each owns the operators that read its stream and calls them directly, record
//! by record. They are pure and synchronous; whatever they want written is staged in the [`Context`]
//! and leaves with the checkpoint.

mod aggregate;
mod branch;
mod deduplicate;
mod errors;
mod filter;
mod flat_map;
mod lag;
mod map;
mod repartition;
mod sink;
mod source;
mod staged;
pub mod typed;
mod window;

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod tests;

use bumpalo::Bump;

pub use aggregate::{
    Accumulators, MergedRows, PartialRows, RowAggregates, RowInput, pane_bytes, reserved_bytes,
};
pub use branch::{Branch, Choose, RowChoice};
pub use deduplicate::{Deduplicate, DeduplicateSpec};
pub use errors::ErrorPolicy;
pub use filter::{Filter, Predicate, RowFilter};
pub use flat_map::{FlatMap, FlatMapFunction, RowFlatMap, Unfolded};
pub use lag::{Lag, LagFunction, LagSpec, RowLag};
pub use map::{Map, MapFunction, RowMap};
pub use repartition::{Exchange, Repartition, RepartitionSource, RowTransfer, Transfer};
pub use sink::{RecordWriter, RowWriter, Sink, Written};
pub use source::{Decode, Decoded, JsonRows, Pipeline, PipelineFactory, Source, StageTime, Timing};
pub use staged::{Counters, OutputTarget, Staged};
pub use window::{
    Aggregator, Condition, EarlyRecords, EmitRows, Fires, Firing, GlobalTrigger, GlobalWindowOperator,
    GlobalWindowSpec, Kept, KeptCodec, KeySelector, LateRecords, LocalAggregate, PartialResult, RowCondition,
    RowGap, RowKey, RowKind, RowResults, Session, SessionCodec, SessionGap, SessionOperator, WindowOperator,
    WindowResult, WindowSpec, local_row_windows, row_trigger, row_windows,
};

use crate::record::{Event, RecordType};
use crate::state::Stateful;
use crate::state::store::StoreError;

/// Why a task cannot go on. Everything since the last checkpoint is dropped.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OperatorError {
    /// A record failed and its `on_error` is `fail`: the process stops.
    #[error("{0}")]
    Fail(String),
    /// The store failed while state was read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What was read from the state cannot be what was written.
    #[error("{0}")]
    Broken(String),
}

/// How far an operator came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Progress {
    /// All is done.
    Done,
    /// A limit was reached, that of the checkpoint or that of one call: call again, with the same
    /// arguments; after the checkpoint, if that is full.
    Full,
}

/// What operators work with while a record passes.
pub struct Context<'c, 'b> {
    /// Memory for what the processing of a run of records makes; freed after the run.
    pub arena: &'b Bump,
    /// What leaves with the next checkpoint.
    pub staged: &'c mut Staged,
    /// What the process's clock shows, in milliseconds since the Unix epoch. It may have been set back.
    pub clock_ms: i64,
    /// How many more rows operators may make by themselves in this call.
    rows_left: usize,
}

/// A call ends when what it made takes so much memory.
const CALL_BYTES_MAX: usize = 4 << 20;

impl<'c, 'b> Context<'c, 'b> {
    /// Of one call of a pipeline.
    pub fn new(arena: &'b Bump, staged: &'c mut Staged) -> Self {
        Context { arena, rows_left: staged.rows_per_call(), clock_ms: staged.clock_ms(), staged }
    }

    /// Counts a row that an operator made by itself, of which it may make any number. Returns whether
    /// it goes on in a later call: rows that nobody writes take memory, too.
    fn made_row(&mut self) -> bool {
        self.made_row_of(1)
    }

    /// The same of a row that was put together from so many parts.
    fn made_row_of(&mut self, parts: usize) -> bool {
        self.rows_left = self.rows_left.saturating_sub(parts);
        self.rows_left == 0 || self.staged.is_full() || self.arena.allocated_bytes() > CALL_BYTES_MAX
    }
}

/// A reader of a stream.
///
/// Called by the operator (or source) that makes the stream, on the task's thread.
pub trait Operator<R: RecordType> {
    /// Takes one record.
    ///
    /// A record that cannot be processed goes where the operator's [`ErrorPolicy`] says; an error
    /// means that the task cannot go on.
    fn process<'b>(
        &mut self,
        event: Event<'b, R>,
        context: &mut Context<'_, 'b>,
    ) -> Result<(), OperatorError>;

    /// Learns which records it will be given next, in this order, unless the task stops before, so that what it
    /// keeps for them can be on its way to the processor's caches. Changes nothing. It is not told of those that
    /// an operator before it may drop or change.
    fn prefetch(&mut self, _events: &[Event<'_, R>]) {}

    /// Learns that no record with an event time before `watermark_ms` is expected any more, or what the clock shows
    /// ([`Context::clock_ms`]); emits what became due, then tells its own readers. Never called with a lower value than
    /// before. With the same value it is called when [`Progress::Full`] has asked for a repetition, also of
    /// [`finish`](Operator::finish), and when it is time to tell the time: with the least number that there is if there
    /// is no watermark yet.
    fn advance<'b>(
        &mut self,
        watermark_ms: i64,
        context: &mut Context<'_, 'b>,
    ) -> Result<Progress, OperatorError>;

    /// Ends the stream: everything still open is due. For bounded runs only.
    fn finish<'b>(&mut self, context: &mut Context<'_, 'b>) -> Result<Progress, OperatorError>;

    /// A checkpoint follows: hands on what it has [held back](Staged::hold_back) and is no state, then has its own
    /// readers do so.
    fn hand_on<'b>(&mut self, context: &mut Context<'_, 'b>) -> Result<(), OperatorError>;

    /// Shows its state, and that of all operators behind it, to `visit`.
    fn visit(&mut self, visit: &mut dyn FnMut(&mut dyn Stateful));
}

/// The readers of one stream.
pub struct Readers<R: RecordType>(Vec<Box<dyn Operator<R>>>);

impl<R: RecordType> Readers<R> {
    /// A stream that these operators read, in this order.
    pub fn new(readers: Vec<Box<dyn Operator<R>>>) -> Self {
        Readers(readers)
    }

    /// Hands a record to every reader.
    pub fn process<'b>(
        &mut self,
        event: Event<'b, R>,
        context: &mut Context<'_, 'b>,
    ) -> Result<(), OperatorError> {
        let Some((last, others)) = self.0.split_last_mut() else { return Ok(()) };
        for reader in others {
            reader.process(event.clone(), context)?;
        }
        last.process(event, context)
    }

    /// Tells every reader what may come.
    pub fn prefetch(&mut self, events: &[Event<'_, R>]) {
        self.0.iter_mut().for_each(|reader| reader.prefetch(events));
    }

    /// Tells every reader the watermark. A reader that was done already is told again after a
    /// [`Progress::Full`], which changes nothing for it.
    pub fn advance<'b>(
        &mut self,
        watermark_ms: i64,
        context: &mut Context<'_, 'b>,
    ) -> Result<Progress, OperatorError> {
        for reader in &mut self.0 {
            if reader.advance(watermark_ms, context)? == Progress::Full {
                return Ok(Progress::Full);
            }
        }
        Ok(Progress::Done)
    }

    /// Ends the stream for every reader.
    pub fn finish<'b>(&mut self, context: &mut Context<'_, 'b>) -> Result<Progress, OperatorError> {
        for reader in &mut self.0 {
            if reader.finish(context)? == Progress::Full {
                return Ok(Progress::Full);
            }
        }
        Ok(Progress::Done)
    }

    /// Has every reader hand on what it holds back.
    pub fn hand_on<'b>(&mut self, context: &mut Context<'_, 'b>) -> Result<(), OperatorError> {
        self.0.iter_mut().try_for_each(|reader| reader.hand_on(context))
    }

    /// Shows the state of every reader.
    pub fn visit(&mut self, visit: &mut dyn FnMut(&mut dyn Stateful)) {
        for reader in &mut self.0 {
            reader.visit(visit);
        }
    }
}
