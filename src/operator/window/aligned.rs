//! Windows that are known before records come: tumbling, sliding, cumulative, of a calendar.
//!
//! A record is added to its pane; a window's value is that of its panes, merged in the order of time.

mod anew;
mod early;

use std::ops::{ControlFlow, RangeInclusive};

use super::early::{Early, EarlyRecords, Place};
use super::refining::{Extent, Refines};
use super::state::{Derived, WindowState};
use super::told::keep;
use super::{
    Aggregator, EmitRows, Firing, KeySelector, Outlet, WindowResult, WindowSpec, behind, prefetch, select,
};
use crate::expression::EvaluationError;
use crate::operator::{Context, ErrorPolicy, Operator, OperatorError, Progress, Readers};
use crate::planted::{Bug, is_planted};
use crate::record::{Event, RecordType};
use crate::state::store::StoreError;
use crate::state::{EntryRef, Stateful, ValueCodec, WindowTable};
use crate::time::MIN_TIME_MS;
use crate::window::{AlignedWindows, PanedWindows, WindowRange};

/// No window fires or closes before the watermark comes to here.
pub(super) struct Quiet {
    until_ms: i64,
}

impl Default for Quiet {
    fn default() -> Quiet {
        Quiet { until_ms: MIN_TIME_MS }
    }
}

impl Derived for Quiet {
    fn bytes(&self) -> usize {
        0
    }
}

/// The value over panes, in the order of time.
pub(super) fn merge<'v, R: RecordType, A: Aggregator<R>>(
    aggregator: &A,
    panes: impl IntoIterator<Item = Result<&'v A::Value, EvaluationError>>,
) -> Result<A::Value, EvaluationError>
where
    A::Value: 'v,
{
    let mut merged = aggregator.create();
    panes.into_iter().try_for_each(|value| aggregator.merge(&mut merged, value?))?;
    Ok(merged)
}

/// Ends of panes and what was copied of them.
pub(super) type Panes<V> = Vec<(i64, Result<V, EvaluationError>)>;

/// Those of a key whose ends lie within `ends`.
pub(super) fn copies<R: RecordType, A: Aggregator<R>>(
    table: &WindowTable<A>,
    ends: RangeInclusive<i64>,
    key: &[u8],
) -> Result<Panes<A::Value>, StoreError> {
    let mut panes = Vec::new();
    table.visit_key(ends, key, |end_ms, value| {
        if !table.codec().is_hollow(value) {
            panes.push((end_ms, table.codec().copied(value)));
        }
        ControlFlow::Continue(())
    })?;
    Ok(panes)
}

/// The value over those of a key's panes that lie within a window, as they are; `None` if none does.
pub(super) fn merge_within<'v, R: RecordType, A: Aggregator<R>>(
    aggregator: &A,
    panes: impl IntoIterator<Item = (i64, &'v Result<A::Value, EvaluationError>)>,
    within: &RangeInclusive<i64>,
) -> Option<Result<A::Value, EvaluationError>>
where
    A::Value: 'v,
{
    let of_window = panes.into_iter().filter(|(end_ms, _)| within.contains(end_ms));
    let mut values = of_window.map(|(_, value)| value.as_ref().map_err(Clone::clone)).peekable();
    values.peek().is_some().then(|| merge(aggregator, values))
}

/// A key's panes as they were before that which ends then has changed, which held `before` if it was there.
pub(super) fn panes_before<'v, V>(
    panes: &'v Panes<V>,
    (changed_ms, before): (i64, Option<&'v Result<V, EvaluationError>>),
) -> impl Iterator<Item = (i64, &'v Result<V, EvaluationError>)> {
    panes.iter().filter_map(move |(end_ms, value)| {
        let was = if *end_ms == changed_ms { before } else { Some(value) };
        was.map(|was| (*end_ms, was))
    })
}

/// The operator. `K` selects keys, `A` aggregates, `F` makes the results, `W` are the windows.
pub struct WindowOperator<R: RecordType, O: RecordType, K, A: ValueCodec, F, W = AlignedWindows> {
    /// The value of each key and pane.
    pub(super) state: WindowState<W, A, Quiet>,
    pub(super) early: EarlyRecords<R>,
    keys: K,
    pub(super) outlet: Outlet<O, F>,
    pub(super) key: Vec<u8>,
    /// Where there is a changelog that tells of a window with the pane of the record at hand: what that held before it, if it
    /// was there.
    pub(super) before: Option<Result<A::Value, EvaluationError>>,
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
    /// An operator without state, to be restored before use.
    pub fn new(
        spec: WindowSpec<W>,
        keys: K,
        aggregator: A,
        results: F,
        errors: ErrorPolicy,
        readers: Readers<O>,
    ) -> Self {
        let (overlaps, keeps_told) = (spec.windows.overlap() > 1, aggregator.keeps_told());
        // What was told early of windows that overlap is kept nowhere.
        let early = spec.early.filter(|_| !(overlaps && spec.changelog));
        let mut state = WindowState::new(WindowSpec { early, ..spec }, aggregator, keeps_told);
        if overlaps {
            state.early = state.early.map(Early::of_panes);
        }
        WindowOperator {
            state,
            early: EarlyRecords::of_all(),
            keys,
            outlet: Outlet { results, errors, readers },
            key: Vec::new(),
            before: None,
        }
    }

    /// With more to know of early records. Windows that overlap do not begin anew: they share what they hold. Nor do those of
    /// a changelog.
    pub fn with_early(self, early: EarlyRecords<R>) -> Self {
        let WindowSpec { windows, changelog, .. } = &self.state.spec;
        let purge = early.purge && windows.overlap() == 1 && !changelog;
        WindowOperator { early: EarlyRecords { purge, ..early }, ..self }
    }

    /// With refinements by the clock, so often, and not after each record.
    pub fn with_refinements(mut self, every_ms: Option<i64>) -> Self {
        self.state.refine_every(every_ms);
        self
    }

    /// Where the ends of a window's panes lie.
    pub(super) fn panes(&self, window: WindowRange) -> RangeInclusive<i64> {
        let (first_ms, last_ms) = self.state.spec.windows.panes(window).into_inner();
        let forgotten = is_planted(Bug::PaneForgotten) && first_ms < last_ms;
        first_ms + i64::from(forgotten)..=last_ms
    }

    /// Adds a record to its pane, and says whether an early one comes after it; the error says why it cannot be added.
    fn add<'b>(
        &mut self,
        event: &Event<'b, R>,
        pane_end_ms: i64,
        context: &Context<'_, 'b>,
    ) -> Result<Result<(EntryRef, bool), EvaluationError>, OperatorError> {
        let checked = select(&self.keys, &event.record, &mut self.key)
            .and_then(|()| self.early.is_due(event, context.arena))
            .and_then(|is_due| Ok((self.state.table.codec().input(event, context.arena)?, is_due)));
        let (input, is_due) = match checked {
            Ok(checked) => checked,
            Err(error) => return Ok(Err(error)),
        };
        let entry = self.state.table.entry(pane_end_ms, &self.key, A::create)?;
        let is_told = self.is_told(pane_end_ms, self.state.table.value(entry));
        let (aggregator, value) = self.state.table.value_mut(entry);
        let heap_before = aggregator.heap_bytes(value);
        if is_told {
            let is_there = !entry.is_new() && !aggregator.is_hollow(value);
            self.before = is_there.then(|| aggregator.copied(value));
        }
        if let Err(error) = aggregator.add(value, input) {
            self.state.table.take_back(entry);
            return Ok(Err(error));
        }
        if self.state.tells_later && self.state.spec.windows.overlap() == 1 {
            let window = self.state.spec.windows.ending_at(pane_end_ms);
            let told = is_told.then(|| Some((window, self.before.take()?.ok()?)));
            keep(aggregator, value, told, pane_end_ms <= self.state.fired.end_ms);
        }
        self.state.table.heap_changed(entry, heap_before);
        Ok(Ok((entry, is_due)))
    }

    /// Makes the records that follow an update of the key's value in a pane: one for each window that takes records
    /// and makes some on update, or has ended; of a changelog those that lead to it from what was told.
    fn updated(
        &mut self,
        pane_end_ms: i64,
        entry: EntryRef,
        context: &mut Context<'_, '_>,
    ) -> Result<(), OperatorError> {
        let (firing, until_ms) = match self.state.spec.emit {
            EmitRows::OnClose => return Ok(()),
            EmitRows::OnTime => (Firing::Refinement, self.state.fired.end_ms),
            EmitRows::OnUpdate => (Firing::Update, i64::MAX),
        };
        if self.state.tells_later {
            return self.updated_later(pane_end_ms, context);
        }
        let windows = &self.state.spec.windows;
        let closed_ms = self.state.closed_ms();
        let first_ms = windows.next_end(pane_end_ms, closed_ms).filter(|end_ms| *end_ms <= until_ms);
        let Some(first) = first_ms.map(|end_ms| windows.ending_at(end_ms)) else { return Ok(()) };
        let ends = || windows.ends_after(pane_end_ms, closed_ms).take_while(|end_ms| *end_ms <= until_ms);
        if let Some(refining) = self.state.refining.as_mut().filter(|_| firing == Firing::Refinement) {
            let fired = Extent { after_ms: closed_ms, until_ms };
            ends().for_each(|end_ms| refining.note(end_ms, &self.key, fired));
            context.staged.wake_at(refining.set_due(context.clock_ms));
            return Ok(());
        }
        if windows.overlap() == 1 {
            return self.updated_alone(first, entry, firing, context);
        }
        let (key, changelog, before) = (&self.key[..], self.state.spec.changelog, self.before.take());
        // Each pane is looked up once, however many of the windows have it.
        let last_ms = windows.last_end(pane_end_ms).unwrap_or(pane_end_ms);
        let within = *self.panes(first).start()..=last_ms;
        let aggregator = self.state.table.codec();
        let panes = copies(&self.state.table, within, key)?;
        for end_ms in ends() {
            let window = windows.ending_at(end_ms);
            let within = self.panes(window);
            let now = panes.iter().map(|(end_ms, value)| (*end_ms, value));
            let Some(sum) = merge_within(aggregator, now, &within) else { continue };
            let value = sum.as_ref().map_err(Clone::clone);
            if !changelog {
                self.outlet.emit((key, window, value, firing), context)?;
                continue;
            }
            let were = panes_before(&panes, (pane_end_ms, before.as_ref()));
            let told = merge_within(aggregator, were, &within);
            let told = told.as_ref().and_then(|told| Some((window, told.as_ref().ok()?)));
            self.outlet.emit_change(key, told, (window, value), context)?;
        }
        Ok(())
    }

    /// The same of a window that is a pane.
    fn updated_alone(
        &mut self,
        window: WindowRange,
        entry: EntryRef,
        firing: Firing,
        context: &mut Context<'_, '_>,
    ) -> Result<(), OperatorError> {
        let (key, value) = (&self.key[..], Ok(self.state.table.value(entry)));
        if self.state.spec.changelog {
            let before = self.before.take();
            let told = before.as_ref().and_then(|before| Some((window, before.as_ref().ok()?)));
            return self.outlet.emit_change(key, told, (window, value), context);
        }
        self.outlet.emit((key, window, value, firing), context)?;
        if self.early.begins_anew(firing) {
            self.purge(entry);
        }
        Ok(())
    }

    /// The end of the next window to fire, whether it is due or not.
    fn next_end(&self) -> Option<i64> {
        self.next_end_after(self.state.fired.end_ms)
    }

    /// The end of the first window after `after_ms` of which there is a pane.
    pub(super) fn next_end_after(&self, after_ms: i64) -> Option<i64> {
        let windows = &self.state.spec.windows;
        let next = |pane_end_ms| windows.next_end(pane_end_ms, after_ms);
        next(self.state.table.first_end_where(|pane_end_ms| next(pane_end_ms).is_some())?)
    }

    /// Fires the windows that are due and closes those that have ended long enough ago.
    fn fire_due(&mut self, context: &mut Context<'_, '_>) -> Result<Progress, OperatorError> {
        let due_ms = self.state.spec.due_ms(self.state.fired.watermark_ms);
        while let Some(end_ms) = self.next_end().filter(|end_ms| *end_ms <= due_ms) {
            if self.fire(end_ms, context)? == Progress::Full {
                return Ok(Progress::Full);
            }
        }
        self.state.fired.end_ms = self.state.fired.end_ms.max(due_ms);
        self.remove(|operator, end_ms| operator.state.is_closed(end_ms));
        self.state.derived.until_ms = self.quiet_until();
        Ok(Progress::Done)
    }

    /// Up to which watermark nothing fires or closes, now that all has that is due.
    fn quiet_until(&self) -> i64 {
        let spec = &self.state.spec;
        let lateness_ms = spec.allowed_lateness_ms;
        let next_end = |after_ms| spec.windows.next_end_after(after_ms);
        let closes_ms = next_end(self.state.closed_ms()).saturating_add(lateness_ms);
        let (fires_ms, behind_ms) = match spec.emit {
            EmitRows::OnTime => (next_end(self.state.fired.watermark_ms), 0),
            EmitRows::OnClose | EmitRows::OnUpdate => (closes_ms, lateness_ms),
        };
        // What is there may lie under the end of a window that there was when it came, and is no more.
        let there_ms = self.next_end().map_or(i64::MAX, |end_ms| end_ms.saturating_add(behind_ms));
        closes_ms.min(fires_ms).min(there_ms)
    }

    /// Makes the records of the window that ends at `end_ms`, from where it was left, and closes what ends with it.
    fn fire<'b>(&mut self, end_ms: i64, context: &mut Context<'_, 'b>) -> Result<Progress, OperatorError> {
        let Some(firing) = self.state.spec.due_firing() else {
            (self.state.fired.end_ms, self.state.fired.from) = (end_ms, Vec::new());
            self.remove(|operator, end_ms| operator.state.is_closed(end_ms));
            return Ok(Progress::Done);
        };
        let from = std::mem::take(&mut self.state.fired.from);
        if let Some(next) = self.emit_all(end_ms, &from, firing, context)? {
            self.state.fired.from = next;
            return Ok(Progress::Full);
        }
        self.state.fired.end_ms = end_ms;
        self.remove(|operator, end_ms| operator.state.is_closed(end_ms));
        Ok(Progress::Done)
    }

    /// Makes the records of the window that ends at `end_ms`, from a key on. Returns at which key there are more when a
    /// call's limit is reached.
    pub(super) fn emit_all(
        &mut self,
        end_ms: i64,
        from: &[u8],
        firing: Firing,
        context: &mut Context<'_, '_>,
    ) -> Result<Option<Vec<u8>>, OperatorError> {
        if self.early.begins_anew(firing) {
            return self.fire_all_anew(end_ms, from, firing, context);
        }
        let window = self.state.spec.windows.ending_at(end_ms);
        let (panes, tells_later) = (self.panes(window), self.state.tells_later);
        let is_shared = self.state.spec.windows.overlap() > 1;
        let (outlet, early, mut next) = (&mut self.outlet, &self.early, None);
        let flow = self.state.table.visit::<OperatorError>(panes, from, &mut |aggregator, key, values| {
            match values {
                [value] if early.is_empty(aggregator, value) => {}
                values if tells_later => {
                    outlet.tell_fired(aggregator, key, (window, values, is_shared), context)?
                }
                [value] => outlet.emit((key, window, Ok(*value), firing), context)?,
                _ => {
                    let merged = merge(aggregator, values.iter().map(|value| Ok(*value)));
                    let value = merged.as_ref().map_err(Clone::clone);
                    outlet.emit((key, window, value, firing), context)?;
                }
            }
            if context.made_row_of(values.len()) {
                next = Some(behind(key));
                return Ok(ControlFlow::Break(()));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        debug_assert_eq!(flow.is_break(), next.is_some());
        Ok(next)
    }

    /// The same of all windows whose ends lie within `ends`, from `place` on; where there are more.
    pub(super) fn emit_within(
        &mut self,
        ends: RangeInclusive<i64>,
        place: Place,
        firing: Firing,
        context: &mut Context<'_, '_>,
    ) -> Result<Option<Place>, OperatorError> {
        let Place { end_ms: place_ms, from } = place;
        let mut after_ms = place_ms.max(*ends.start()).saturating_sub(1);
        while let Some(end_ms) = self.next_end_after(after_ms).filter(|end_ms| end_ms <= ends.end()) {
            let from = if end_ms == place_ms { &from[..] } else { &[] };
            if let Some(from) = self.emit_all(end_ms, from, firing, context)? {
                return Ok(Some(Place { end_ms, from }));
            }
            after_ms = end_ms;
        }
        Ok(None)
    }

    /// Removes the panes whose windows have all fired and are done.
    fn remove(&mut self, is_done: impl Fn(&Self, i64) -> bool) {
        while let Some(pane_end_ms) = self.state.table.first_end_ms() {
            let last_ms = self.state.spec.windows.last_end(pane_end_ms);
            if last_ms.is_some_and(|last_ms| last_ms > self.state.fired.end_ms || !is_done(self, last_ms)) {
                return;
            }
            self.state.table.remove_first();
        }
    }
}

impl<R, O, K, A, F, W> Operator<R> for WindowOperator<R, O, K, A, F, W>
where
    R: RecordType,
    O: RecordType,
    K: KeySelector<R> + 'static,
    A: Aggregator<R> + 'static,
    F: WindowResult<A::Value, O> + 'static,
    W: PanedWindows + 'static,
{
    fn process<'b>(
        &mut self,
        event: Event<'b, R>,
        context: &mut Context<'_, 'b>,
    ) -> Result<(), OperatorError> {
        let event = self.state.dated(event, context);
        let pane_end_ms = self.state.spec.windows.pane_end(event.time_ms);
        // Between windows a record belongs to none.
        let Some(last_ms) = self.state.spec.windows.last_end(pane_end_ms) else { return Ok(()) };
        if self.state.is_closed(last_ms) {
            let rows = self.state.table.codec().rows_of(&event);
            return self.state.spec.put_late(&event, rows, &self.keys, &self.outlet.errors, context);
        }
        match self.add(&event, pane_end_ms, context)? {
            Ok((entry, is_due)) => {
                let WindowState { spec, fired, .. } = &self.state;
                self.state.wake(|| spec.windows.next_end(pane_end_ms, fired.end_ms), context);
                self.updated(pane_end_ms, entry, context)?;
                if last_ms <= self.state.fired.end_ms {
                    return Ok(());
                }
                self.state.changed(pane_end_ms, std::iter::empty(), &self.key, context);
                self.fire_counted(pane_end_ms, (entry, is_due), context)
            }
            Err(error) => {
                let rows = self.state.table.codec().rows_of(&event);
                let render = || self.keys.render(&event.record);
                self.outlet.errors.refuse(&error.message, &event, render, context)?;
                self.outlet.errors.count_more(rows.saturating_sub(1), context.staged);
                Ok(())
            }
        }
    }

    fn prefetch(&mut self, events: &[Event<'_, R>]) {
        let windows = &self.state.spec.windows;
        let end_of = |time_ms| windows.pane_end(time_ms);
        prefetch(&mut self.state.table, &self.keys, &mut self.key, events, end_of);
    }

    fn advance<'b>(
        &mut self,
        watermark_ms: i64,
        context: &mut Context<'_, 'b>,
    ) -> Result<Progress, OperatorError> {
        let time_ms = self.state.time_at(watermark_ms, context);
        if self.refine(self.state.spec.closed_ms(time_ms), context)? == Progress::Full {
            return Ok(Progress::Full);
        }
        self.state.fired.watermark_ms = time_ms;
        if self.state.fired.watermark_ms >= self.state.derived.until_ms
            && self.fire_due(context)? == Progress::Full
        {
            return Ok(Progress::Full);
        }
        if self.fire_early(context)? == Progress::Full {
            return Ok(Progress::Full);
        }
        self.state.wake(|| self.next_end(), context);
        // Rows of windows that are still open lie at or after this instant: behind this operator,
        // time stands as far back as the lateness that it allows.
        let behind_ms = self.state.closed_ms();
        self.outlet.readers.advance(behind_ms, context)
    }

    fn finish<'b>(&mut self, context: &mut Context<'_, 'b>) -> Result<Progress, OperatorError> {
        if self.refine(i64::MAX, context)? == Progress::Full {
            return Ok(Progress::Full);
        }
        while let Some(end_ms) = self.next_end() {
            if self.fire(end_ms, context)? == Progress::Full {
                return Ok(Progress::Full);
            }
            // Who is restored in between makes refinements of all that has fired: they take all of their panes.
            if self.state.refining.is_none() {
                self.remove(|_, _| true);
            }
        }
        self.remove(|_, _| true);
        self.outlet.readers.finish(context)
    }

    fn hand_on<'b>(&mut self, context: &mut Context<'_, 'b>) -> Result<(), OperatorError> {
        self.outlet.readers.hand_on(context)
    }

    fn visit(&mut self, visit: &mut dyn FnMut(&mut dyn Stateful)) {
        visit(&mut self.state);
        self.outlet.readers.visit(visit);
    }
}
