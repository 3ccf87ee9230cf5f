//! Refinements that are made now and then by the clock, and not after each record.
//!
//! Which windows have changed since they fired is remembered in memory alone. Where an operator does not know, since it
//! has just been restored, or it was too much, it makes a refinement of each window that had fired by then. What is
//! outstanding is made before its window closes: before the watermark with which it does is a part of the state, so that
//! whoever is restored knows by it which windows have closed, and have made all that they make.

use std::collections::{BTreeMap, BTreeSet};

use super::aligned::{copies, merge};
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
    /// The keys that have changed, by their windows' ends.
    changed: BTreeMap<i64, BTreeSet<Box<[u8]>>>,
    count: usize,
    bytes: usize,
    unknown: Option<Unknown>,
}

/// Windows of which nobody knows whether they have changed.
struct Unknown {
    /// From where this lies on.
    from: Place,
    /// Those that end here or before.
    until_ms: i64,
}

/// Windows that end within a stretch of time.
#[derive(Clone, Copy)]
pub(super) struct Extent {
    /// They end later than this.
    pub after_ms: i64,
    /// They end here or before.
    pub until_ms: i64,
}

impl Unknown {
    /// Those of an extent, if it is one.
    fn of(Extent { after_ms, until_ms }: Extent) -> Option<Unknown> {
        let from = Place { end_ms: after_ms.saturating_add(1), from: Vec::new() };
        (after_ms < until_ms).then_some(Unknown { from, until_ms })
    }

    /// Whether one that ends at `end_ms` is one of them. What lies together is left behind together.
    fn has(&self, end_ms: i64) -> bool {
        (self.from.end_ms..=self.until_ms).contains(&end_ms)
    }
}

impl Refining {
    /// Every so often; nothing has fired.
    pub fn new(every_ms: i64) -> Self {
        let (every_ms, changed) = (every_ms.max(1), BTreeMap::new());
        Refining { every_ms, due_ms: None, in_round: false, changed, count: 0, bytes: 0, unknown: None }
    }

    /// The same, when these windows have fired and are not closed, and nothing is known of them.
    pub fn forget(&mut self, fired: Extent) {
        *self = Refining { due_ms: self.due_ms, unknown: Unknown::of(fired), ..Refining::new(self.every_ms) };
    }

    /// Memory in use, about, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// A key has changed in a window that has fired. `fired` are all that have and are not closed.
    pub fn note(&mut self, end_ms: i64, key: &[u8], fired: Extent) {
        if self.unknown.as_ref().is_some_and(|unknown| unknown.has(end_ms)) {
            return;
        }
        let keys = self.changed.entry(end_ms).or_default();
        if !keys.contains(key) {
            keys.insert(key.into());
            self.count += 1;
            self.bytes += CHANGED_BYTES + key.len();
        }
        if self.count > CHANGED_MAX || self.bytes > CHANGED_BYTES_MAX {
            self.forget(fired);
        }
    }

    /// The window of a key that ended at `end_ms` has become a part of another one.
    pub fn forget_one(&mut self, end_ms: i64, key: &[u8]) {
        if let Some(keys) = self.changed.get_mut(&end_ms)
            && keys.remove(key)
        {
            self.count -= 1;
            self.bytes -= CHANGED_BYTES + key.len();
            if keys.is_empty() {
                self.changed.remove(&end_ms);
            }
        }
    }

    /// When refinements are due.
    pub fn set_due(&mut self, clock_ms: i64) -> Option<i64> {
        if self.changed.is_empty() && self.unknown.is_none() {
            self.due_ms = None;
            return None;
        }
        self.due_ms = Some(next_due(self.every_ms, self.due_ms, clock_ms));
        self.due_ms
    }

    /// The first of those that have changed, if its window ends at or before `until_ms`.
    fn pop(&mut self, until_ms: i64) -> Option<(i64, Box<[u8]>)> {
        let mut first = self.changed.first_entry().filter(|first| *first.key() <= until_ms)?;
        let (end_ms, key) = (*first.key(), first.get_mut().pop_first()?);
        if first.get().is_empty() {
            first.remove();
        }
        self.count -= 1;
        self.bytes -= CHANGED_BYTES + key.len();
        Some((end_ms, key))
    }
}

/// An operator whose windows make refinements by the clock.
pub(super) trait Refines {
    /// What they are due of, if they are made so.
    fn refining(&mut self) -> &mut Option<Refining>;

    /// The end under which windows that end then lie, together with those that end a little earlier.
    fn lies_under(&self, end_ms: i64) -> i64;

    /// Makes that of a key's window, and says of how many parts it is.
    fn refine_one(
        &mut self,
        end_ms: i64,
        key: &[u8],
        context: &mut Context<'_, '_>,
    ) -> Result<usize, OperatorError>;

    /// Makes those of all windows that lie at `place` or behind it, end at or before `until_ms` and are not closed, until a
    /// call's limit is reached. Returns where that is.
    fn refine_all(
        &mut self,
        place: Place,
        until_ms: i64,
        context: &mut Context<'_, '_>,
    ) -> Result<Option<Place>, OperatorError>;

    /// Makes the refinements that are due by the clock, and those of windows that end at or before `closed_ms`, which
    /// close.
    fn refine(&mut self, closed_ms: i64, context: &mut Context<'_, '_>) -> Result<Progress, OperatorError> {
        let Some(mut refining) = self.refining().take() else { return Ok(Progress::Done) };
        refining.in_round |= refining.due_ms.is_some_and(|due_ms| due_ms <= context.clock_ms);
        let until_ms = if refining.in_round { i64::MAX } else { closed_ms };
        let progress = self.refine_until(&mut refining, until_ms, context);
        if let Ok(Progress::Done) = progress {
            refining.due_ms = refining.due_ms.filter(|_| !refining.in_round);
            refining.in_round = false;
            context.staged.wake_at(refining.set_due(context.clock_ms));
        }
        *self.refining() = Some(refining);
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
            let parts = self.refine_one(end_ms, &key, context)?;
            // One of which there is nothing to tell was looked for all the same.
            if context.made_row_of(parts.max(1)) {
                return Ok(Progress::Full);
            }
        }
        // What lies together with one that closes makes its own now, too.
        let made_ms = self.lies_under(until_ms);
        let Some(Unknown { from, until_ms: all_ms }) =
            refining.unknown.take_if(|unknown| unknown.from.end_ms <= made_ms)
        else {
            return Ok(Progress::Done);
        };
        let left = self.refine_all(from, made_ms.min(all_ms), context)?;
        let progress = if left.is_some() { Progress::Full } else { Progress::Done };
        if left.is_some() || made_ms < all_ms {
            let from = left.unwrap_or(Place { end_ms: made_ms.saturating_add(1), from: Vec::new() });
            refining.unknown = Some(Unknown { from, until_ms: all_ms });
        }
        Ok(progress)
    }
}

impl<R, O, K, A, F, W> Refines for WindowOperator<R, O, K, A, F, W>
where
    R: RecordType,
    O: RecordType,
    K: KeySelector<R>,
    A: Aggregator<R>,
    F: WindowResult<A::Value, O>,
    W: PanedWindows,
{
    fn refining(&mut self) -> &mut Option<Refining> {
        &mut self.state.refining
    }

    /// Each is known by its end, wherever its panes lie.
    fn lies_under(&self, end_ms: i64) -> i64 {
        end_ms
    }

    fn refine_one(
        &mut self,
        end_ms: i64,
        key: &[u8],
        context: &mut Context<'_, '_>,
    ) -> Result<usize, OperatorError> {
        if self.state.tells_later {
            return self.tell(end_ms, key, true, context);
        }
        if self.early.begins_anew(Firing::Refinement) {
            return self.fire_anew(end_ms, key, Firing::Refinement, context).map(usize::from);
        }
        let window = self.state.spec.windows.ending_at(end_ms);
        let panes = copies(&self.state.table, self.panes(window), key)?;
        let merged = match &panes[..] {
            [] => return Ok(0),
            [_] => None,
            panes => {
                let values = panes.iter().map(|(_, value)| value.as_ref().map_err(Clone::clone));
                Some(merge(self.state.table.codec(), values))
            }
        };
        let value = merged.as_ref().unwrap_or(&panes[0].1).as_ref().map_err(Clone::clone);
        self.outlet.emit((key, window, value, Firing::Refinement), context)?;
        Ok(panes.len())
    }

    fn refine_all(
        &mut self,
        place: Place,
        until_ms: i64,
        context: &mut Context<'_, '_>,
    ) -> Result<Option<Place>, OperatorError> {
        let until = i64::MIN..=until_ms;
        if self.state.tells_later {
            return self.tell_all(until, place, true, context);
        }
        self.emit_within(until, place, Firing::Refinement, context)
    }
}
