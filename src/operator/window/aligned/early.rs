//! Early records of windows that are known beforehand.

use std::ops::ControlFlow;

use super::{Panes, WindowOperator, copies, merge_within};
use crate::operator::window::early::{Changed, Round};
use crate::operator::window::state::WindowState;
use crate::operator::window::{Aggregator, Firing, KeySelector, WindowResult, is_early_at};
use crate::operator::{Context, OperatorError, Progress};
use crate::record::RecordType;
use crate::state::EntryRef;
use crate::state::store::StoreError;
use crate::window::{EarlyFiring, PanedWindows};

impl<R, O, K, A, F, W> WindowOperator<R, O, K, A, F, W>
where
    R: RecordType,
    O: RecordType,
    K: KeySelector<R>,
    A: Aggregator<R>,
    F: WindowResult<A::Value, O>,
    W: PanedWindows,
{
    /// Makes the early records that windows with a pane have with its last record. Not all of them have fired.
    pub(super) fn fire_counted(
        &mut self,
        pane_end_ms: i64,
        (entry, is_due): (EntryRef, bool),
        context: &mut Context<'_, '_>,
    ) -> Result<(), OperatorError> {
        let WindowState { spec, table, .. } = &self.state;
        let counts = matches!(spec.early, Some(EarlyFiring::EveryRows(_)));
        if spec.early.is_none() || !(counts || is_due) {
            return Ok(());
        }
        if spec.windows.overlap() > 1 {
            return self.fire_counted_of_panes(pane_end_ms, is_due, context);
        }
        let value = table.value(entry);
        let rows = table.codec().rows(value);
        if !is_due && !is_early_at(spec.early, rows - 1, rows) {
            return Ok(());
        }
        // Windows that do not overlap are a pane each.
        if self.state.tells_later {
            let key = std::mem::take(&mut self.key);
            let told = self.tell(pane_end_ms, &key, false, context).map(drop);
            self.key = key;
            return told;
        }
        let window = spec.windows.ending_at(pane_end_ms);
        self.outlet.emit((&self.key, window, Ok(value), Firing::Early), context)?;
        if self.early.purge {
            self.purge(entry);
        }
        Ok(())
    }

    /// The same of windows that overlap: each has a number of records of its own.
    fn fire_counted_of_panes(
        &mut self,
        pane_end_ms: i64,
        is_due: bool,
        context: &mut Context<'_, '_>,
    ) -> Result<(), OperatorError> {
        let WindowState { spec, table, fired, .. } = &self.state;
        let mut ends: Vec<i64> = spec.windows.ends_after(pane_end_ms, fired.end_ms).collect();
        let (Some(first_ms), Some(last_ms)) = (ends.first(), ends.last()) else { return Ok(()) };
        if !is_due {
            let within = *self.panes(spec.windows.ending_at(*first_ms)).start()..=*last_ms;
            let mut counts = Vec::new();
            table.visit_key(within, &self.key, |end_ms, value| {
                counts.push((end_ms, table.codec().rows(value)));
                ControlFlow::Continue(())
            })?;
            ends.retain(|end_ms| {
                let panes = self.panes(spec.windows.ending_at(*end_ms));
                let of_window = counts.iter().filter(|(end_ms, _)| panes.contains(end_ms));
                let rows = of_window.map(|(_, rows)| rows).sum();
                is_early_at(spec.early, rows - 1, rows)
            });
        }
        let (Some(first_ms), Some(last_ms)) = (ends.first(), ends.last()) else { return Ok(()) };
        let panes = self.panes_within((*first_ms, *last_ms), &self.key)?;
        let key = std::mem::take(&mut self.key);
        let emitted =
            ends.into_iter().try_for_each(|end_ms| self.emit_merged(end_ms, &key, &panes, context).map(drop));
        self.key = key;
        emitted
    }

    /// What lies in the panes of a key's windows, from that which ends first to that which ends last.
    fn panes_within(
        &self,
        (first_ms, last_ms): (i64, i64),
        key: &[u8],
    ) -> Result<Panes<A::Value>, StoreError> {
        let first = self.panes(self.state.spec.windows.ending_at(first_ms));
        copies(&self.state.table, *first.start()..=last_ms, key)
    }

    /// Makes the early record of a key's window of which these are the panes, with others; says how many panes it has.
    fn emit_merged(
        &mut self,
        end_ms: i64,
        key: &[u8],
        panes: &Panes<A::Value>,
        context: &mut Context<'_, '_>,
    ) -> Result<usize, OperatorError> {
        let window = self.state.spec.windows.ending_at(end_ms);
        let within = self.panes(window);
        let now = || panes.iter().map(|(end_ms, value)| (*end_ms, value));
        let Some(merged) = merge_within(self.state.table.codec(), now(), &within) else { return Ok(0) };
        let value = merged.as_ref().map_err(Clone::clone);
        self.outlet.emit((key, window, value, Firing::Early), context)?;
        Ok(now().filter(|(end_ms, _)| within.contains(end_ms)).count())
    }

    /// Makes the early records that are due by a time.
    pub(super) fn fire_early(&mut self, context: &mut Context<'_, '_>) -> Result<Progress, OperatorError> {
        let left = match self.state.early_round(context) {
            Some(Round::Changed(changed)) => self.fire_changed(changed, context)?.map(Round::Changed),
            Some(Round::OfPanes { changed, told_ms }) => self.fire_panes(changed, told_ms, context)?,
            Some(Round::All(place)) => {
                let unfired = self.state.unfired();
                let left = match self.state.tells_later {
                    true => self.tell_all(unfired, place, false, context),
                    false => self.emit_within(unfired, place, Firing::Early, context),
                };
                left?.map(Round::All)
            }
            None => None,
        };
        Ok(self.state.early_left(left))
    }

    /// Early records of these windows' ends and keys, the last one first; what is left over.
    fn fire_changed(
        &mut self,
        mut changed: Changed,
        context: &mut Context<'_, '_>,
    ) -> Result<Option<Changed>, OperatorError> {
        while let Some((end_ms, key)) = changed.pop() {
            if end_ms <= self.state.fired.end_ms {
                continue;
            }
            if self.state.tells_later {
                self.tell(end_ms, &key, false, context)?;
            } else if self.early.purge {
                self.fire_anew(end_ms, &key, Firing::Early, context)?;
            } else {
                let (window, outlet) = (self.state.spec.windows.ending_at(end_ms), &mut self.outlet);
                let mut emitted = Ok(());
                // Windows that do not overlap are a pane each.
                self.state.table.visit_key(end_ms..=end_ms, &key, |_, value| {
                    emitted = outlet.emit((&key, window, Ok(value), Firing::Early), context);
                    ControlFlow::Continue(())
                })?;
                emitted?;
            }
            // One of which there is nothing to tell was read all the same.
            if context.made_row() {
                return Ok(Some(changed));
            }
        }
        Ok(None)
    }

    /// Early records of the windows that have these panes, but for those of the first key that end at `told_ms` or before;
    /// what is left over.
    fn fire_panes(
        &mut self,
        mut changed: Changed,
        mut told_ms: i64,
        context: &mut Context<'_, '_>,
    ) -> Result<Option<Round>, OperatorError> {
        while let Some((_, key)) = changed.last() {
            // Those of a key lie together, the first one last.
            let begin = changed.iter().rposition(|(_, other)| other != key).map_or(0, |place| place + 1);
            let of_key = &changed[begin..];
            let ends = self.ends_of(of_key, told_ms.max(self.state.fired.end_ms));
            if let (Some(first_ms), Some(last_ms)) = (ends.first(), ends.last()) {
                let panes = self.panes_within((*first_ms, *last_ms), key)?;
                for end_ms in ends {
                    let parts = self.emit_merged(end_ms, key, &panes, context)?;
                    if context.made_row_of(parts) {
                        return Ok(Some(Round::OfPanes { changed, told_ms: end_ms }));
                    }
                }
            }
            changed.truncate(begin);
            told_ms = i64::MIN;
        }
        Ok(None)
    }

    /// The ends of the windows that have these panes of a key, the first one last, and end after `told_ms`: each once, in
    /// ascending order.
    fn ends_of(&self, of_key: &[(i64, Box<[u8]>)], told_ms: i64) -> Vec<i64> {
        let mut ends: Vec<i64> = Vec::new();
        for (pane_end_ms, _) in of_key.iter().rev() {
            let told_ms = ends.last().copied().unwrap_or(told_ms);
            ends.extend(self.state.spec.windows.ends_after(*pane_end_ms, told_ms));
        }
        ends
    }
}
