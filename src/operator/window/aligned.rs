//! Windows that are aligned to the clock: tumbling, sliding, cumulative.
//!
//! A record is added to its pane; a window's value is that of its panes, merged in the order of time.

use std::ops::{ControlFlow, RangeInclusive};
use std::sync::Arc;

use super::{
    Aggregator, EmitRows, Fired, Firing, KeySelector, Outlet, WindowResult, WindowSpec, behind, fits,
};
use crate::expression::EvaluationError;
use crate::operator::{Context, ErrorPolicy, Operator, OperatorError, Progress, Readers};
use crate::planted::{Bug, is_planted};
use crate::record::{Event, RecordType};
use crate::state::codec::DeltaWriter;
use crate::state::header::OperatorState;
use crate::state::store::{Store, StoreError};
use crate::state::{EntryRef, MemoryUse, PutEntry, Stateful, ValueCodec, WindowTable};
use crate::time::MIN_TIME_MS;
use crate::window::WindowRange;

/// The operator. `K` selects keys, `A` aggregates, `F` makes the results.
pub struct WindowOperator<R: RecordType, O: RecordType, K, A: ValueCodec, F> {
    spec: WindowSpec,
    keys: K,
    outlet: Outlet<O, F>,
    /// The value of each key and pane.
    table: WindowTable<A>,
    fired: Fired,
    /// No window fires or closes before the watermark comes to here.
    quiet_until_ms: i64,
    key: Vec<u8>,
    input: std::marker::PhantomData<R>,
}

impl<R, O, K, A, F> WindowOperator<R, O, K, A, F>
where
    R: RecordType,
    O: RecordType,
    K: KeySelector<R>,
    A: Aggregator<R>,
    F: WindowResult<A::Value, O>,
{
    /// An operator without state, to be restored before use.
    pub fn new(
        spec: WindowSpec,
        keys: K,
        aggregator: A,
        results: F,
        errors: ErrorPolicy,
        readers: Readers<O>,
    ) -> Self {
        WindowOperator {
            table: WindowTable::new(&spec.id, aggregator),
            spec,
            keys,
            outlet: Outlet { results, errors, readers },
            fired: Fired::nothing(),
            quiet_until_ms: MIN_TIME_MS,
            key: Vec::new(),
            input: std::marker::PhantomData,
        }
    }

    fn is_closed(&self, end_ms: i64) -> bool {
        end_ms <= self.spec.closed_ms(self.fired.watermark_ms)
    }

    /// Where the ends of a window's panes lie.
    fn panes(&self, window: WindowRange) -> RangeInclusive<i64> {
        let first_ms = self.spec.windows.pane_end(window.start_ms);
        let forgotten = is_planted(Bug::PaneForgotten) && first_ms < window.end_ms;
        first_ms + i64::from(forgotten)..=window.end_ms
    }

    /// Adds a record to its pane; the error says why it cannot be.
    fn add<'b>(
        &mut self,
        event: &Event<'b, R>,
        pane_end_ms: i64,
        context: &Context<'_, 'b>,
    ) -> Result<Result<EntryRef, EvaluationError>, OperatorError> {
        self.key.clear();
        let selected = self.keys.select(&event.record, &mut self.key).and_then(|()| fits(&self.key));
        let input = match selected.and_then(|()| self.table.codec().input(event, context.arena)) {
            Ok(input) => input,
            Err(error) => return Ok(Err(error)),
        };
        let entry = self.table.entry(pane_end_ms, &self.key, A::create)?;
        let (aggregator, value) = self.table.value_mut(entry);
        let heap_before = aggregator.heap_bytes(value);
        if let Err(error) = aggregator.add(value, input) {
            self.table.take_back(entry);
            return Ok(Err(error));
        }
        self.table.heap_changed(entry, heap_before);
        Ok(Ok(entry))
    }

    /// Makes the records that follow an update of the key's value in a pane: one for each window that takes records
    /// and makes some on update, or has ended.
    fn updated(
        &mut self,
        pane_end_ms: i64,
        entry: EntryRef,
        context: &mut Context<'_, '_>,
    ) -> Result<(), OperatorError> {
        let (firing, until_ms) = match self.spec.emit {
            EmitRows::OnClose => return Ok(()),
            EmitRows::OnTime => (Firing::Refinement, self.fired.end_ms),
            EmitRows::OnUpdate => (Firing::Update, i64::MAX),
        };
        let windows = self.spec.windows;
        let closed_ms = self.spec.closed_ms(self.fired.watermark_ms);
        let mut ends =
            windows.ends_after(pane_end_ms, closed_ms).take_while(|end_ms| *end_ms <= until_ms).peekable();
        let Some(first_ms) = ends.peek() else { return Ok(()) };
        let first = windows.ending_at(*first_ms);
        if windows.overlap() == 1 {
            let row = (&self.key[..], first, Ok(self.table.value(entry)), firing);
            return self.outlet.emit(row, context);
        }
        // Each pane is looked up once, however many of the windows have it.
        let aggregator = self.table.codec();
        let mut panes = Vec::new();
        self.table.visit_key(*self.panes(first).start()..=i64::MAX, &self.key, |end_ms, value| {
            let mut copy = aggregator.create();
            let copied = aggregator.merge(&mut copy, value);
            panes.push((end_ms, copied.map(|()| copy)));
            ControlFlow::Continue(())
        })?;
        for end_ms in ends {
            let window = windows.ending_at(end_ms);
            let within = self.panes(window);
            let mut merged = self.table.codec().create();
            let mut of_window = panes.iter().filter(|(pane_end_ms, _)| within.contains(pane_end_ms));
            let sum = of_window.try_for_each(|(_, value)| {
                self.table.codec().merge(&mut merged, value.as_ref().map_err(Clone::clone)?)
            });
            self.outlet.emit((&self.key, window, sum.map(|()| &merged), firing), context)?;
        }
        Ok(())
    }

    /// The end of the next window to fire, whether it is due or not.
    fn next_end(&self) -> Option<i64> {
        let (windows, fired_ms) = (&self.spec.windows, self.fired.end_ms);
        let fires = |pane_end_ms| windows.next_end(pane_end_ms, fired_ms);
        fires(self.table.first_end_where(|pane_end_ms| fires(pane_end_ms).is_some())?)
    }

    /// Fires the windows that are due and closes those that have ended long enough ago.
    fn fire_due(&mut self, context: &mut Context<'_, '_>) -> Result<Progress, OperatorError> {
        let due_ms = self.spec.due_ms(self.fired.watermark_ms);
        while let Some(end_ms) = self.next_end().filter(|end_ms| *end_ms <= due_ms) {
            if self.fire(end_ms, context)? == Progress::Full {
                return Ok(Progress::Full);
            }
        }
        self.fired.end_ms = self.fired.end_ms.max(due_ms);
        self.remove(|operator, end_ms| operator.is_closed(end_ms));
        let lateness_ms = self.spec.allowed_lateness_ms;
        let next_end = |after_ms| self.spec.windows.next_end_after(after_ms);
        self.quiet_until_ms =
            next_end(self.spec.closed_ms(self.fired.watermark_ms)).saturating_add(lateness_ms);
        if self.spec.emit == EmitRows::OnTime {
            self.quiet_until_ms = self.quiet_until_ms.min(next_end(self.fired.watermark_ms));
        }
        Ok(Progress::Done)
    }

    /// Makes the records of the window that ends at `end_ms`, from where it was left, and closes what ends with it.
    fn fire<'b>(&mut self, end_ms: i64, context: &mut Context<'_, 'b>) -> Result<Progress, OperatorError> {
        let window = self.spec.windows.ending_at(end_ms);
        let firing = self.spec.due_firing();
        let from = std::mem::take(&mut self.fired.from);
        let panes = self.panes(window);
        let (outlet, next) = (&mut self.outlet, &mut self.fired.from);
        let flow = self.table.visit::<OperatorError>(panes, &from, &mut |aggregator, key, values| {
            let row = match values {
                [value] => outlet.emit((key, window, Ok(*value), firing), context),
                _ => {
                    let mut merged = aggregator.create();
                    let sum = values.iter().try_for_each(|value| aggregator.merge(&mut merged, value));
                    outlet.emit((key, window, sum.map(|()| &merged), firing), context)
                }
            };
            row?;
            if context.made_row() {
                *next = behind(key);
                return Ok(ControlFlow::Break(()));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        if flow.is_break() {
            return Ok(Progress::Full);
        }
        self.fired.end_ms = end_ms;
        self.remove(|operator, end_ms| operator.is_closed(end_ms));
        Ok(Progress::Done)
    }

    /// Removes the panes whose windows have all fired and are done.
    fn remove(&mut self, is_done: impl Fn(&Self, i64) -> bool) {
        while let Some(pane_end_ms) = self.table.first_end_ms() {
            let last_ms = self.spec.windows.last_end(pane_end_ms);
            if last_ms.is_some_and(|last_ms| last_ms > self.fired.end_ms || !is_done(self, last_ms)) {
                return;
            }
            self.table.remove_first();
        }
    }
}

impl<R, O, K, A, F> Operator<R> for WindowOperator<R, O, K, A, F>
where
    R: RecordType,
    O: RecordType,
    K: KeySelector<R> + 'static,
    A: Aggregator<R> + 'static,
    F: WindowResult<A::Value, O> + 'static,
{
    fn process<'b>(
        &mut self,
        event: Event<'b, R>,
        context: &mut Context<'_, 'b>,
    ) -> Result<(), OperatorError> {
        let pane_end_ms = self.spec.windows.pane_end(event.time_ms);
        // Between windows a record belongs to none.
        let Some(last_ms) = self.spec.windows.last_end(pane_end_ms) else { return Ok(()) };
        if self.is_closed(last_ms) {
            return self.spec.put_late(&event, &self.keys, &self.outlet.errors, context);
        }
        match self.add(&event, pane_end_ms, context)? {
            Ok(entry) => self.updated(pane_end_ms, entry, context),
            Err(error) => self.outlet.errors.handle(
                &error.message,
                event.source.as_ref(),
                || self.keys.render(&event.record),
                context.staged,
            ),
        }
    }

    fn prefetch(&mut self, events: &[Event<'_, R>]) {
        for event in events {
            self.key.clear();
            if self.keys.select(&event.record, &mut self.key).is_ok() {
                self.table.prefetch_later(self.spec.windows.pane_end(event.time_ms), &self.key);
            }
        }
        self.table.prefetch();
    }

    fn advance<'b>(
        &mut self,
        watermark_ms: i64,
        context: &mut Context<'_, 'b>,
    ) -> Result<Progress, OperatorError> {
        self.fired.watermark_ms = self.fired.watermark_ms.max(watermark_ms);
        if self.fired.watermark_ms >= self.quiet_until_ms && self.fire_due(context)? == Progress::Full {
            return Ok(Progress::Full);
        }
        // Rows of windows that are still open lie at or after this instant: behind this operator,
        // time stands as far back as the lateness that it allows.
        let behind_ms = self.spec.closed_ms(self.fired.watermark_ms);
        self.outlet.readers.advance(behind_ms, context)
    }

    fn finish<'b>(&mut self, context: &mut Context<'_, 'b>) -> Result<Progress, OperatorError> {
        while let Some(end_ms) = self.next_end() {
            if self.fire(end_ms, context)? == Progress::Full {
                return Ok(Progress::Full);
            }
            self.remove(|_, _| true);
        }
        self.remove(|_, _| true);
        self.outlet.readers.finish(context)
    }

    fn visit(&mut self, visit: &mut dyn FnMut(&mut dyn Stateful)) {
        visit(self);
        self.outlet.readers.visit(visit);
    }
}

impl<R: RecordType, O: RecordType, K, A: ValueCodec, F> Stateful for WindowOperator<R, O, K, A, F> {
    fn id(&self) -> &str {
        &self.spec.id
    }

    fn fingerprint(&self) -> &str {
        &self.spec.fingerprint
    }

    fn key_range(&self) -> (Vec<u8>, Vec<u8>) {
        self.table.key_range()
    }

    fn saved(&self) -> OperatorState {
        self.fired.saved(&self.spec)
    }

    fn restore(
        &mut self,
        store: Arc<dyn Store>,
        saved: Option<&OperatorState>,
        checkpoint: u64,
    ) -> Result<(), StoreError> {
        self.table.restore(store, checkpoint)?;
        if saved.is_none() {
            // What the store holds under this id is another operator's; the next delta deletes it.
            while self.table.first_end_ms().is_some() {
                self.table.remove_first();
            }
        }
        self.quiet_until_ms = MIN_TIME_MS;
        self.fired = Fired::restored(saved, &self.spec);
        Ok(())
    }

    fn collect_ranges(&mut self, delta: &mut DeltaWriter) {
        self.table.collect_ranges(delta);
    }

    fn collect_points(&mut self, checkpoint: u64, delta: &mut DeltaWriter) {
        self.table.collect_points(checkpoint, delta);
    }

    fn chunk(
        &mut self,
        from: &[u8],
        bytes_max: usize,
        put: &mut PutEntry<'_>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.table.chunk(from, bytes_max, put)
    }

    fn flushed(&mut self, checkpoint: u64) {
        self.table.flushed(checkpoint);
    }

    fn memory(&self) -> MemoryUse {
        self.table.memory()
    }

    fn evict(&mut self, bytes: usize) {
        self.table.evict(bytes);
    }
}
