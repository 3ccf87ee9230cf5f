//! Windows that no time closes: of so many records of a key, and the one of all of them.
//!
//! The records of a key are taken in the order of their offsets, whatever their event times: none comes late, and the
//! watermark only decides when a key is forgotten. An entry holds all that is kept of a key, and lies where it expires,
//! as what a lag keeps does: it moves on with the key's greatest event time.

mod codec;

use std::ops::ControlFlow;
use std::sync::Arc;

use bumpalo::Bump;

use super::{
    Aggregator, Expiring, ExpiringSpec, Firing, KeySelector, LateRecords, Outlet, Retention, WindowResult,
    select,
};
use crate::expression::{Environment, EvaluationError, Expression};
use crate::operator::{Context, ErrorPolicy, Operator, OperatorError, Progress, Readers};
use crate::record::{Dynamic, Event, RecordType};
use crate::state::store::StoreError;
use crate::state::{Stateful, ValueCodec};
use crate::topology::plan::{FiresPlan, TriggerPlan};
use crate::window::{CountWindows, PaneOf, WindowRange};
pub use codec::KeptCodec;

/// Says whether something holds of a record.
pub trait Condition<R: RecordType> {
    /// Whether it does, or why that cannot be said.
    fn holds(&self, event: &Event<'_, R>, arena: &Bump) -> Result<bool, EvaluationError>;
}

/// When a key's window makes a record.
pub enum GlobalTrigger<I: RecordType, O: RecordType> {
    /// The windows are of so many records; each makes one when it is full, and begins without those that are no part of
    /// it.
    Count(CountWindows),
    /// There is one window of all records.
    Global {
        /// After which records it makes one.
        fires: Fires<I, O>,
        /// Whether it begins anew then.
        purge: bool,
    },
    /// The same, and its records are a changelog: after each record, one that takes back what was told, and one that takes its
    /// place.
    Changelog,
}

/// After which records a window of all records makes one.
pub enum Fires<I: RecordType, O: RecordType> {
    /// After every so many.
    EveryRows(i64),
    /// After those of which this holds.
    When(Box<dyn Condition<I>>),
    /// If this holds of what it would make.
    Having(Box<dyn Condition<O>>),
}

/// What such an operator is told beside its functions.
#[derive(Clone, Debug)]
pub struct GlobalWindowSpec {
    /// The operator's id.
    pub id: Arc<str>,
    /// What its state depends on.
    pub fingerprint: String,
    /// How long a key is kept after the greatest event time of its records; `None`: for ever.
    pub ttl_ms: Option<i64>,
}

/// What is kept of a key.
pub struct Kept<V> {
    /// The greatest event time of its records.
    pub newest_ms: i64,
    /// How many records have come since its window made one.
    pub rows: i64,
    /// The records of its window, in the order in which they came.
    pub panes: Vec<Pane<V>>,
}

/// Some records of a key that came one after the other.
pub struct Pane<V> {
    /// From the least event time of them to just behind the greatest.
    pub range: WindowRange,
    /// Their value.
    pub value: V,
}

impl<V> Kept<V> {
    /// The window from the first of its records to the last by event time; `None` if it is of none.
    pub fn range(&self) -> Option<WindowRange> {
        self.panes.iter().map(|pane| pane.range).reduce(|range, other| range.cover(&other))
    }

    /// Adds a record; on an error nothing changes.
    fn add<R: RecordType, A: Aggregator<R, Value = V>>(
        &mut self,
        aggregator: &A,
        pane: PaneOf,
        input: A::Input<'_>,
        time_ms: i64,
    ) -> Result<(), EvaluationError> {
        let alone = WindowRange { start_ms: time_ms, end_ms: time_ms + 1 };
        match (pane, self.panes.last_mut()) {
            (PaneOf::Neither, _) => {}
            (PaneOf::Last, Some(pane)) => {
                aggregator.add(&mut pane.value, input)?;
                pane.range = pane.range.cover(&alone);
            }
            (PaneOf::Next | PaneOf::Last, _) => {
                let mut value = aggregator.create();
                aggregator.add(&mut value, input)?;
                self.panes.push(Pane { range: alone, value });
            }
        }
        self.rows += 1;
        self.newest_ms = self.newest_ms.max(time_ms);
        Ok(())
    }

    /// What was told of it, if a record is made after each one that is added to its one pane.
    fn told<R: RecordType, A: Aggregator<R, Value = V>>(&self, aggregator: &A) -> Option<Pane<V>> {
        let Pane { range, value } = self.panes.last()?;
        // What cannot be put together could not be told either.
        Some(Pane { range: *range, value: aggregator.copied(value).ok()? })
    }

    /// A record was made of it: all but the last `panes` panes go.
    fn fired(&mut self, panes: usize) {
        self.rows = 0;
        self.panes.drain(..self.panes.len().saturating_sub(panes));
    }
}

/// A record on its way into the window of its key.
struct Taken<I> {
    input: I,
    time_ms: i64,
    /// After it a record is made, if that is for it to say.
    is_due: bool,
}

/// What becomes of a key's window with a record.
struct Firings<I: RecordType, O: RecordType, F> {
    trigger: GlobalTrigger<I, O>,
    outlet: Outlet<O, F>,
}

impl<I: RecordType, O: RecordType, F> Firings<I, O, F> {
    /// Whether `event` is one after which a record is made, if that is for it to say.
    fn is_due(&self, event: &Event<'_, I>, arena: &Bump) -> Result<bool, EvaluationError> {
        match &self.trigger {
            GlobalTrigger::Global { fires: Fires::When(condition), .. } => condition.holds(event, arena),
            _ => Ok(false),
        }
    }

    /// Adds a record to what is kept of its key and makes the one that follows. The inner error says why it cannot be
    /// added: then nothing has changed.
    fn take<A>(
        &mut self,
        aggregator: &A,
        (key, kept): (&[u8], &mut Kept<A::Value>),
        taken: Taken<A::Input<'_>>,
        context: &mut Context<'_, '_>,
    ) -> Result<Result<(), EvaluationError>, OperatorError>
    where
        A: Aggregator<I>,
        F: WindowResult<A::Value, O>,
    {
        let Taken { input, time_ms, is_due } = taken;
        let (pane, told) = match &self.trigger {
            GlobalTrigger::Count(windows) => (windows.pane_of(kept.rows), None),
            GlobalTrigger::Global { .. } => (PaneOf::Last, None),
            GlobalTrigger::Changelog => (PaneOf::Last, kept.told::<I, A>(aggregator)),
        };
        if let Err(error) = kept.add::<I, A>(aggregator, pane, input, time_ms) {
            return Ok(Err(error));
        }
        match &self.trigger {
            GlobalTrigger::Count(windows) if kept.rows >= windows.slide() => {
                let panes = windows.panes_kept() as usize;
                self.emit(aggregator, key, kept, context)?;
                kept.fired(panes);
            }
            GlobalTrigger::Count(_) => {}
            GlobalTrigger::Changelog => {
                let told = told.as_ref().map(|pane| (pane.range, &pane.value));
                if let Some(pane) = kept.panes.last() {
                    self.outlet.emit_change(key, told, (pane.range, Ok(&pane.value)), context)?;
                }
                kept.fired(1);
            }
            GlobalTrigger::Global { fires, purge } => {
                let (panes, is_due) = (
                    usize::from(!purge),
                    match fires {
                        Fires::EveryRows(rows) => kept.rows >= *rows,
                        Fires::When(_) => is_due,
                        Fires::Having(_) => true,
                    },
                );
                if is_due && self.emit(aggregator, key, kept, context)? {
                    kept.fired(panes);
                }
            }
        }
        Ok(Ok(()))
    }

    /// Makes the record of a key's window, or what takes its place if that is not possible. Returns whether it was one
    /// that is to be made.
    fn emit<A>(
        &mut self,
        aggregator: &A,
        key: &[u8],
        kept: &Kept<A::Value>,
        context: &mut Context<'_, '_>,
    ) -> Result<bool, OperatorError>
    where
        A: Aggregator<I>,
        F: WindowResult<A::Value, O>,
    {
        let Some(range) = kept.range() else { return Ok(true) };
        let having = match &self.trigger {
            GlobalTrigger::Global { fires: Fires::Having(condition), .. } => Some(&**condition),
            _ => None,
        };
        let made = if let [pane] = &kept.panes[..] {
            self.outlet.emit_if((key, range, Ok(&pane.value), Firing::Close), having, context)?
        } else {
            let mut merged = aggregator.create();
            let sum = kept.panes.iter().try_for_each(|pane| aggregator.merge(&mut merged, &pane.value));
            self.outlet.emit_if((key, range, sum.map(|()| &merged), Firing::Close), having, context)?
        };
        // One that cannot be made was due all the same, unless nobody knows.
        Ok(made || having.is_none())
    }
}

/// The operator. `K` selects keys, `A` aggregates, `F` makes the results.
pub struct GlobalWindowOperator<I: RecordType, O: RecordType, K, A: ValueCodec, F> {
    kept: Expiring<KeptCodec<A>>,
    firings: Firings<I, O, F>,
    keys: K,
    key: Vec<u8>,
}

impl<I, O, K, A, F> GlobalWindowOperator<I, O, K, A, F>
where
    I: RecordType,
    O: RecordType,
    K: KeySelector<I>,
    A: Aggregator<I>,
    F: WindowResult<A::Value, O>,
{
    /// An operator without state, to be restored before use.
    pub fn new(
        spec: GlobalWindowSpec,
        trigger: GlobalTrigger<I, O>,
        (keys, aggregator, results): (K, A, F),
        errors: ErrorPolicy,
        readers: Readers<O>,
    ) -> Self {
        let GlobalWindowSpec { id, fingerprint, ttl_ms } = spec;
        let retention = ttl_ms.map_or(Retention::for_ever(), Retention::of_ms);
        let spec = ExpiringSpec { id, fingerprint, retention, late: LateRecords::Drop };
        let firings = Firings { trigger, outlet: Outlet { results, errors, readers } };
        let kept = Expiring::new(spec, KeptCodec::new(aggregator));
        GlobalWindowOperator { kept, firings, keys, key: Vec::new() }
    }

    /// The greatest event time of the key's records, unless it is forgotten.
    fn newest(&self) -> Result<Option<i64>, StoreError> {
        let mut newest_ms = None;
        self.kept.visit(self.kept.first_end()..=i64::MAX, &self.key, |kept| match kept {
            // At most one counts.
            Some(kept) if self.kept.counts(self.kept.end(kept.newest_ms)) => {
                newest_ms = Some(kept.newest_ms);
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        })?;
        Ok(newest_ms)
    }

    /// Takes a record of the key; the inner error says why it cannot be taken.
    fn take(
        &mut self,
        taken: Taken<A::Input<'_>>,
        context: &mut Context<'_, '_>,
    ) -> Result<Result<(), EvaluationError>, OperatorError> {
        let newest_ms = self.newest()?;
        let GlobalWindowOperator { kept: table, firings, key, .. } = self;
        let key = &key[..];
        let was_at_ms = newest_ms.map(|newest_ms| table.end(newest_ms));
        let end_ms = table.end(newest_ms.map_or(taken.time_ms, |newest_ms| newest_ms.max(taken.time_ms)));
        if was_at_ms.is_some_and(|was_at_ms| table.lie_together(was_at_ms, end_ms)) {
            return table.change(
                end_ms,
                key,
                |_| None,
                |codec, kept| match kept {
                    Some(kept) => firings.take(&codec.0, (key, kept), taken, context),
                    None => {
                        Err(StoreError::Corrupt(format!("an entry of the key {key:02x?} is gone")).into())
                    }
                },
            )?;
        }
        let moved = match was_at_ms {
            Some(was_at_ms) => table.change(was_at_ms, key, |_| None, |_, kept| kept.take())?,
            None => None,
        };
        let is_new = moved.is_none();
        let mut kept = moved.unwrap_or_else(|| Kept { newest_ms: taken.time_ms, rows: 0, panes: Vec::new() });
        let added = firings.take(&table.codec().0, (key, &mut kept), taken, context)?;
        // What a record leaves that comes so late that its key is forgotten at once is nothing.
        let end_ms = table.end(kept.newest_ms);
        if (is_new && added.is_err()) || table.is_expired(end_ms) {
            return Ok(added);
        }
        table.change(end_ms, key, |_| None, |_, entry| *entry = Some(kept))?;
        Ok(added)
    }
}

impl<I, O, K, A, F> Operator<I> for GlobalWindowOperator<I, O, K, A, F>
where
    I: RecordType,
    O: RecordType,
    K: KeySelector<I> + 'static,
    A: Aggregator<I> + 'static,
    F: WindowResult<A::Value, O> + 'static,
{
    fn process<'b>(
        &mut self,
        event: Event<'b, I>,
        context: &mut Context<'_, 'b>,
    ) -> Result<(), OperatorError> {
        let time_ms = event.time_ms;
        let taken = select(&self.keys, &event.record, &mut self.key)
            .and_then(|()| self.firings.is_due(&event, context.arena))
            .and_then(|is_due| {
                let input = self.kept.codec().0.input(&event, context.arena)?;
                Ok(Taken { input, time_ms, is_due })
            });
        let taken = match taken {
            Ok(taken) => self.take(taken, context)?,
            Err(error) => Err(error),
        };
        match taken {
            Ok(()) => Ok(()),
            Err(error) => {
                let render = || self.keys.render(&event.record);
                self.firings.outlet.errors.refuse(&error.message, &event, render, context)
            }
        }
    }

    fn prefetch(&mut self, events: &[Event<'_, I>]) {
        self.kept.prefetch(&self.keys, &mut self.key, events);
    }

    fn advance<'b>(
        &mut self,
        watermark_ms: i64,
        context: &mut Context<'_, 'b>,
    ) -> Result<Progress, OperatorError> {
        self.kept.advance(watermark_ms);
        self.firings.outlet.readers.advance(watermark_ms, context)
    }

    /// A window that is not full makes nothing.
    fn finish<'b>(&mut self, context: &mut Context<'_, 'b>) -> Result<Progress, OperatorError> {
        self.kept.clear();
        self.firings.outlet.readers.finish(context)
    }

    fn hand_on<'b>(&mut self, context: &mut Context<'_, 'b>) -> Result<(), OperatorError> {
        self.firings.outlet.readers.hand_on(context)
    }

    fn visit(&mut self, visit: &mut dyn FnMut(&mut dyn Stateful)) {
        visit(self.kept.stateful());
        self.firings.outlet.readers.visit(visit);
    }
}

/// When windows over rows make some.
pub fn row_trigger(trigger: &TriggerPlan) -> GlobalTrigger<Dynamic, Dynamic> {
    match trigger {
        TriggerPlan::Count(windows) => GlobalTrigger::Count(*windows),
        TriggerPlan::Global { fires, purge } => {
            let condition = |condition: &Arc<Expression>| Box::new(RowCondition(condition.clone()));
            let fires = match fires {
                FiresPlan::EveryRows(rows) => Fires::EveryRows(*rows),
                FiresPlan::When(expression) => Fires::When(condition(expression)),
                FiresPlan::Having(expression) => Fires::Having(condition(expression)),
            };
            GlobalTrigger::Global { fires, purge: *purge }
        }
        TriggerPlan::Changelog => GlobalTrigger::Changelog,
    }
}

/// A condition on rows: an expression; null does not hold.
pub struct RowCondition(pub Arc<Expression>);

impl Condition<Dynamic> for RowCondition {
    fn holds(&self, event: &Event<'_, Dynamic>, arena: &Bump) -> Result<bool, EvaluationError> {
        self.0.test(&Environment::new(event.record, event.source, arena))
    }
}
