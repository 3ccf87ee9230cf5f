//! What windows told last whose rows are a changelog, and are not made after each update: early ones, and refinements in
//! batches.
//!
//! It is kept as late as can be: an entry says nothing of it before a row comes that changes what was told. Then it keeps the
//! value as it was, until the window is told again. That a window has fired, which tells it, is known of all at once
//! (`Fired`), and written to none of them.
//!
//! What was told of a window lies in the entry of its key under its end. Of windows that overlap the entry may be there for that
//! alone, with a pane of no record.

use std::ops::{ControlFlow, RangeInclusive};

use smallvec::SmallVec;

use super::aligned::{copies, merge, merge_within, panes_before};
use super::early::Place;
use super::state::WindowState;
use super::{Aggregator, EmitRows, KeySelector, Outlet, WindowOperator, WindowResult, behind};
use crate::operator::{Context, OperatorError};
use crate::planted::{Bug, is_planted};
use crate::record::RecordType;
use crate::window::{PanedWindows, WindowRange};

/// What was told last of a window.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Told<V> {
    /// Nothing before it fired; what it holds, if it has.
    #[default]
    WithFiring,
    /// What it holds.
    Current,
    /// Something else than it holds now.
    Before {
        /// The window as it was, and its value; `None`: nothing was told.
        row: Option<(WindowRange, V)>,
        /// Whether it has changed since it fired. If not, and it has fired since, that has told what it holds.
        has_fired: bool,
    },
}

impl<V> Told<V> {
    /// What was told of a window that has just been.
    pub fn now(has_fired: bool) -> Told<V> {
        if has_fired { Told::WithFiring } else { Told::Current }
    }

    /// Whether it is what the window holds, which has fired or not.
    pub fn is_current(&self, has_fired: bool) -> bool {
        match self {
            Told::WithFiring => has_fired,
            Told::Current => true,
            Told::Before { has_fired: then, .. } => has_fired && !then && !is_planted(Bug::FiringNotTold),
        }
    }

    /// The row that was told, if it is not what the window holds.
    pub fn row(&self) -> Option<(WindowRange, &V)> {
        match self {
            Told::Before { row: Some((window, value)), .. } => Some((*window, value)),
            Told::Before { row: None, .. } | Told::WithFiring | Told::Current => None,
        }
    }

    /// The same after a change. `told`: what the window held before it, if that was told.
    pub fn changed(self, told: Option<Option<(WindowRange, V)>>, has_fired: bool) -> Told<V> {
        match (told, self) {
            (Some(row), _) | (None, Told::Before { row, .. }) => Told::Before { row, has_fired },
            (None, _) if has_fired => Told::Before { row: None, has_fired },
            (None, other) => other,
        }
    }
}

/// Keeps in a value that has changed what was told of it. `told`: what its window held before, if that was told.
pub(super) fn keep<R: RecordType, A: Aggregator<R>>(
    aggregator: &A,
    value: &mut A::Value,
    told: Option<Option<(WindowRange, A::Value)>>,
    has_fired: bool,
) {
    match (&told, aggregator.told(value)) {
        // Most have changed since they were told, or were not.
        (None, Told::Before { has_fired: then, .. }) if *then == has_fired => {}
        (None, Told::WithFiring) if !has_fired => {}
        _ => {
            let before = aggregator.set_told(value, Told::WithFiring);
            aggregator.set_told(value, before.changed(told, has_fired));
        }
    }
}

impl<O: RecordType, F> Outlet<O, F> {
    /// Makes the rows that lead from what was told of a key's window to what it holds as it fires: that of its panes. If they
    /// are shared with others nothing was told before.
    pub(super) fn tell_fired<R: RecordType, A: Aggregator<R>>(
        &mut self,
        aggregator: &A,
        key: &[u8],
        (window, values, is_shared): (WindowRange, &[&A::Value], bool),
        context: &mut Context<'_, '_>,
    ) -> Result<(), OperatorError>
    where
        F: WindowResult<A::Value, O>,
    {
        if let [value] = values
            && !is_shared
        {
            let told = aggregator.told(value);
            return match told.is_current(false) {
                true => Ok(()),
                false => self.emit_change(key, told.row(), (window, Ok(*value)), context),
            };
        }
        let mut there = values.iter().filter(|value| !aggregator.is_hollow(value)).map(|value| Ok(*value));
        let Some(first) = there.next() else { return Ok(()) };
        let merged = merge(aggregator, std::iter::once(first).chain(there));
        let value = merged.as_ref().map_err(Clone::clone);
        self.emit_change(key, None, (window, value), context)
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
    /// Whether a change of an entry changes what was told, or may.
    pub(super) fn is_told(&self, pane_end_ms: i64, value: &A::Value) -> bool {
        let (state, aggregator) = (&self.state, self.state.table.codec());
        if !state.tells_later {
            let WindowState { spec, fired, .. } = state;
            return spec.changelog && (spec.emit == EmitRows::OnUpdate || pane_end_ms <= fired.end_ms);
        }
        let has_fired = pane_end_ms <= state.fired.end_ms;
        // Those of the windows that overlap are seen one by one.
        if state.spec.windows.overlap() > 1 {
            has_fired
        } else {
            aggregator.told(value).is_current(has_fired)
        }
    }

    /// What follows an update of the key's value in a pane where it is not told after each: what was told of windows is kept. Those
    /// that have fired make their refinements, now or by the clock.
    pub(super) fn updated_later(
        &mut self,
        pane_end_ms: i64,
        context: &mut Context<'_, '_>,
    ) -> Result<(), OperatorError> {
        if self.state.spec.emit != EmitRows::OnTime {
            return Ok(());
        }
        let fired = self.state.extent();
        let windows = &self.state.spec.windows;
        let ends = windows.ends_after(pane_end_ms, fired.after_ms);
        let ends: SmallVec<[i64; 4]> = ends.take_while(|end_ms| *end_ms <= fired.until_ms).collect();
        let Some(first_ms) = ends.first() else { return Ok(()) };
        if windows.overlap() > 1 {
            let first_ms = *self.panes(windows.ending_at(*first_ms)).start();
            self.keep_told(pane_end_ms, first_ms, &ends)?;
        }
        if let Some(refining) = &mut self.state.refining {
            ends.iter().for_each(|end_ms| refining.note(*end_ms, &self.key, fired));
            context.staged.wake_at(refining.set_due(context.clock_ms));
            return Ok(());
        }
        let key = std::mem::take(&mut self.key);
        ends.iter().try_for_each(|end_ms| self.tell(*end_ms, &key, true, context).map(drop))?;
        self.key = key;
        Ok(())
    }

    /// Keeps what was told of windows that overlap and have fired, when a pane of them has changed. All of their panes end at
    /// `first_ms` or later.
    fn keep_told(&mut self, pane_end_ms: i64, first_ms: i64, ends: &[i64]) -> Result<(), OperatorError> {
        let before = self.before.take();
        let mut panes = None;
        for end_ms in ends {
            let mut is_current = true;
            self.state.table.visit_key(*end_ms..=*end_ms, &self.key, |_, value| {
                is_current = self.state.table.codec().told(value).is_current(true);
                ControlFlow::Break(())
            })?;
            if !is_current {
                continue;
            }
            if panes.is_none() {
                let last_ms = self.state.spec.windows.last_end(pane_end_ms).unwrap_or(pane_end_ms);
                panes = Some(copies(&self.state.table, first_ms..=last_ms, &self.key)?);
            }
            let window = self.state.spec.windows.ending_at(*end_ms);
            let (within, aggregator) = (self.panes(window), self.state.table.codec());
            let changed = (pane_end_ms, before.as_ref());
            let were = panes.iter().flat_map(|panes| panes_before(panes, changed));
            // What cannot be put together could not be told either.
            let row = merge_within(aggregator, were, &within).and_then(Result::ok);
            let entry = self.state.table.entry(*end_ms, &self.key, A::hollow)?;
            let (aggregator, value) = self.state.table.value_mut(entry);
            let heap_before = aggregator.heap_bytes(value);
            let row = row.map(|row| (window, row));
            aggregator.set_told(value, Told::Before { row, has_fired: true });
            self.state.table.heap_changed(entry, heap_before);
        }
        Ok(())
    }

    /// Makes the rows that lead from what was told of a key's window, which has fired or not, to what it holds. Says of how many
    /// parts that is; of none if nothing has changed.
    pub(super) fn tell(
        &mut self,
        end_ms: i64,
        key: &[u8],
        has_fired: bool,
        context: &mut Context<'_, '_>,
    ) -> Result<usize, OperatorError> {
        let mut is_current = true;
        let table = &self.state.table;
        table.visit_key(end_ms..=end_ms, key, |_, value| {
            is_current = table.codec().told(value).is_current(has_fired);
            ControlFlow::Break(())
        })?;
        if is_current {
            return Ok(0);
        }
        let entry = self.state.table.entry(end_ms, key, A::hollow)?;
        let (aggregator, value) = self.state.table.value_mut(entry);
        let heap_before = aggregator.heap_bytes(value);
        let told = aggregator.set_told(value, Told::now(has_fired));
        self.state.table.heap_changed(entry, heap_before);
        let window = self.state.spec.windows.ending_at(end_ms);
        if self.state.spec.windows.overlap() == 1 {
            let value = self.state.table.value(entry);
            return self.outlet.emit_change(key, told.row(), (window, Ok(value)), context).map(|()| 1);
        }
        let panes = copies(&self.state.table, self.panes(window), key)?;
        let values = panes.iter().map(|(_, value)| value.as_ref().map_err(Clone::clone));
        let merged = merge(self.state.table.codec(), values);
        let value = merged.as_ref().map_err(Clone::clone);
        self.outlet.emit_change(key, told.row(), (window, value), context)?;
        Ok(panes.len())
    }

    /// The same of all windows whose ends lie within `ends`, from `place` on; where there are more.
    pub(super) fn tell_all(
        &mut self,
        ends: RangeInclusive<i64>,
        place: Place,
        has_fired: bool,
        context: &mut Context<'_, '_>,
    ) -> Result<Option<Place>, OperatorError> {
        let mut next = Some(place);
        while let Some(place) = next.take() {
            let (mut found, more) = self.state.keys_within(ends.clone(), place, |_| None)?;
            next = more;
            while let Some((end_ms, key)) = found.pop() {
                let parts = self.tell(end_ms, &key, has_fired, context)?;
                // One of which there is nothing to tell was looked for all the same.
                if context.made_row_of(parts.max(1)) {
                    return Ok(Some(Place { end_ms, from: behind(&key) }));
                }
            }
        }
        Ok(None)
    }
}
