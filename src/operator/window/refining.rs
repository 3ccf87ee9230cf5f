//! Refinements that are made now and then by the clock, and not after each record.
//!
//! Which windows have changed since they fired is remembered in memory alone. Where an operator does not know, since it
//! has just been restored, or it was too much, it makes a refinement of each window that had fired by then. What is
//! outstanding is made before its window closes.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use super::early::{CHANGED_BYTES, CHANGED_BYTES_MAX, CHANGED_MAX, Place, next_due};
use super::{Aggregator, Firing, KeySelector, WindowOperator, WindowResult};
use crate::operator::{Context, OperatorError, Progress};
use crate::record::RecordType;
use crate::window::PanedWindows;

/// What refinements are due of.
pub(super) struct Refining {
    every_ms: i64,
    /// When the next are; `None`: nothing has changed.
    due_ms: Option<i64>,
    /// They are being made.
    in_round: bool,
    /// Windows' ends and keys that have changed.
    changed: BTreeSet<(i64, Box<[u8]>)>,
    bytes: usize,
    unknown: Option<Unknown>,
}

/// Windows of which nobody knows whether they have changed.
struct Unknown {
    /// From here on.
    from: Place,
    /// Those that end here or before.
    until_ms: i64,
}

impl Refining {
    /// Every so often; nothing has fired.
    pub fn new(every_ms: i64) -> Self {
        let (every_ms, changed) = (every_ms.max(1), BTreeSet::new());
        Refining { every_ms, due_ms: None, in_round: false, changed, bytes: 0, unknown: None }
    }

    /// The same, when windows have fired that end at or before this instant, and nothing is known of them.
    pub fn forget(&mut self, fired_ms: Option<i64>) {
        let from = Place { end_ms: i64::MIN, from: Vec::new() };
        let unknown = fired_ms.map(|until_ms| Unknown { from, until_ms });
        *self = Refining { due_ms: self.due_ms, unknown, ..Refining::new(self.every_ms) };
    }

    /// Memory in use, about, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// A key has changed in a window that has fired, as all have that end at or before `fired_ms`.
    fn note(&mut self, end_ms: i64, key: &[u8], fired_ms: i64) {
        if self.unknown.as_ref().is_some_and(|unknown| end_ms <= unknown.until_ms) {
            return;
        }
        if self.changed.insert((end_ms, key.into())) {
            self.bytes += CHANGED_BYTES + key.len();
        }
        if self.changed.len() > CHANGED_MAX || self.bytes > CHANGED_BYTES_MAX {
            self.forget(Some(fired_ms));
        }
    }

    /// When refinements are due.
    fn set_due(&mut self, clock_ms: i64) -> Option<i64> {
        if self.changed.is_empty() && self.unknown.is_none() {
            self.due_ms = None;
            return None;
        }
        self.due_ms = Some(next_due(self.every_ms, self.due_ms, clock_ms));
        self.due_ms
    }

    /// The first of those that have changed, if its window ends at or before `until_ms`.
    fn pop(&mut self, until_ms: i64) -> Option<(i64, Box<[u8]>)> {
        self.changed.first().filter(|(end_ms, _)| *end_ms <= until_ms)?;
        let (end_ms, key) = self.changed.pop_first()?;
        self.bytes -= CHANGED_BYTES + key.len();
        Some((end_ms, key))
    }
}

impl<R, O, K, A, F, W> WindowOperator<R, O, K, A, F, W>
where
    R: RecordType,
    O: RecordType,
    K: KeySelector<R>,
    A: Aggregator<R>,
    F: WindowResult<A::Value, O>,
    W: PanedWindows,
{
    /// Notes that the key has changed in a window that has fired.
    pub(super) fn refine_later(&mut self, end_ms: i64, context: &mut Context<'_, '_>) {
        if let Some(refining) = self.state.refining.as_mut() {
            refining.note(end_ms, &self.key, self.state.fired.end_ms);
            context.staged.wake_at(refining.set_due(context.clock_ms));
        }
    }

    /// Makes the refinements that are due by the clock, and those of windows that end at or before `closed_ms`, which
    /// close.
    pub(super) fn refine(
        &mut self,
        closed_ms: i64,
        context: &mut Context<'_, '_>,
    ) -> Result<Progress, OperatorError> {
        let Some(mut refining) = self.state.refining.take() else { return Ok(Progress::Done) };
        refining.in_round |= refining.due_ms.is_some_and(|due_ms| due_ms <= context.clock_ms);
        let until_ms = if refining.in_round { i64::MAX } else { closed_ms };
        let progress = self.refine_until(&mut refining, until_ms, context);
        if let Ok(Progress::Done) = progress {
            refining.due_ms = refining.due_ms.filter(|_| !refining.in_round);
            refining.in_round = false;
            context.staged.wake_at(refining.set_due(context.clock_ms));
        }
        self.state.refining = Some(refining);
        progress
    }

    /// Makes those of windows that end at or before `until_ms`.
    fn refine_until(
        &mut self,
        refining: &mut Refining,
        until_ms: i64,
        context: &mut Context<'_, '_>,
    ) -> Result<Progress, OperatorError> {
        while let Some((end_ms, key)) = refining.pop(until_ms) {
            let (window, outlet) = (self.state.spec.windows.ending_at(end_ms), &mut self.outlet);
            let mut emitted = Ok(());
            self.state.table.visit_key(end_ms..=end_ms, &key, |_, value| {
                emitted = outlet.emit((&key, window, Ok(value), Firing::Refinement), context);
                ControlFlow::Continue(())
            })?;
            emitted?;
            if context.made_row() {
                return Ok(Progress::Full);
            }
        }
        let Some(Unknown { from, until_ms: all_ms }) = refining.unknown.take() else {
            return Ok(Progress::Done);
        };
        let outlet = &mut self.outlet;
        let ends = i64::MIN..=until_ms.min(all_ms);
        let left = self.state.fire_within(ends, from, context, &mut |under, key, values, context| {
            // Windows that do not overlap are a pane each.
            let window = under.windows.ending_at(under.end_ms);
            let mut values = values.iter();
            values.try_for_each(|value| outlet.emit((key, window, Ok(*value), Firing::Refinement), context))
        })?;
        let progress = if left.is_some() { Progress::Full } else { Progress::Done };
        if left.is_some() || until_ms < all_ms {
            // What closes now has made its own, and takes no more.
            let from = left.unwrap_or(Place { end_ms: until_ms.saturating_add(1), from: Vec::new() });
            refining.unknown = Some(Unknown { from, until_ms: all_ms });
        }
        Ok(progress)
    }
}
