//! What window operators keep, and what a checkpoint needs of it.

use std::ops::{ControlFlow, RangeInclusive};
use std::sync::Arc;

use super::early::{Changed, Early, KEYS_AT_ONCE, Place, Round};
use super::refining::{Extent, Refining};
use super::{EmitRows, Fired, WindowSpec, behind};
use crate::operator::{Context, OperatorError, Progress};
use crate::record::{Event, RecordType};
use crate::state::codec::DeltaWriter;
use crate::state::header::OperatorState;
use crate::state::store::{Store, StoreError};
use crate::state::{MemoryUse, PutEntry, Stateful, ValueCodec, WindowTable};
use crate::window::TimeDomain;

/// What an operator remembers of its state and can make anew from it: it starts without, and goes when memory is short.
pub(super) trait Derived: Default {
    /// Memory in use, about, in bytes.
    fn bytes(&self) -> usize;
}

/// Makes the rows of a key's entries under one end, knowing what has fired.
pub(super) type EmitEach<'e, V> =
    dyn FnMut(&Fired, &[u8], &[&V], &mut Context<'_, '_>) -> Result<(), OperatorError> + 'e;

/// The state of a window operator: entries, and how far its windows have fired.
pub(super) struct WindowState<W, C: ValueCodec, D> {
    pub spec: WindowSpec<W>,
    pub table: WindowTable<C>,
    pub fired: Fired,
    pub derived: D,
    /// Where rows are made by a time of windows that are not over.
    pub early: Option<Early>,
    /// Where refinements are made now and then by the clock.
    pub refining: Option<Refining>,
    /// Whether the values keep what was told, for a changelog whose rows are not made after each update.
    pub tells_later: bool,
}

impl<W, C: ValueCodec, D: Derived> WindowState<W, C, D> {
    /// Nothing, to be restored before use. `keeps_told`: values keep what was told.
    pub fn new(spec: WindowSpec<W>, codec: C, keeps_told: bool) -> Self {
        let table = WindowTable::new(&spec.id, codec);
        // On update all is told at once.
        let tells_later = spec.changelog && keeps_told && spec.emit != EmitRows::OnUpdate;
        let spec = WindowSpec { early: spec.early.filter(|_| !spec.changelog || tells_later), ..spec };
        let (early, fired) = (Early::of(spec.early), Fired::nothing());
        WindowState { spec, table, fired, derived: D::default(), early, refining: None, tells_later }
    }

    /// Has refinements made by the clock, so often, and not after each record.
    pub fn refine_every(&mut self, every_ms: Option<i64>) {
        let may_refine = self.spec.emit == EmitRows::OnTime && (!self.spec.changelog || self.tells_later);
        self.refining = every_ms.filter(|_| may_refine).map(Refining::new);
    }

    /// The event as the windows date it: in processing time it happens now, and never before what has happened.
    pub fn dated<'b, R: RecordType>(&self, event: Event<'b, R>, context: &Context<'_, 'b>) -> Event<'b, R> {
        match self.spec.time {
            TimeDomain::Event => event,
            TimeDomain::Processing => {
                Event { time_ms: context.clock_ms.max(self.fired.watermark_ms), ..event }
            }
        }
    }

    /// How far time has come with a watermark; in processing time what the clock shows, whatever the watermark.
    pub fn time_at(&self, watermark_ms: i64, context: &Context<'_, '_>) -> i64 {
        let at_ms = match self.spec.time {
            TimeDomain::Event => watermark_ms,
            TimeDomain::Processing => context.clock_ms,
        };
        self.fired.watermark_ms.max(at_ms)
    }

    /// In processing time: asks to be told the time when the next window is due, which `due_ms` knows. And when early
    /// rows are.
    pub fn wake(&self, due_ms: impl FnOnce() -> Option<i64>, context: &mut Context<'_, '_>) {
        if self.spec.time == TimeDomain::Processing {
            context.staged.wake_at(due_ms());
        }
        self.early.iter().for_each(|early| early.wake(context));
    }

    /// `key` has changed in the window, or the pane, that ends at `end_ms`, and not in those of it that ended at `before`, which are
    /// a part of that now. Not all of its windows have fired.
    pub fn changed(
        &mut self,
        end_ms: i64,
        before: impl Iterator<Item = i64>,
        key: &[u8],
        context: &mut Context<'_, '_>,
    ) {
        if let Some(early) = &mut self.early {
            before
                .filter(|before_ms| *before_ms != end_ms)
                .for_each(|before_ms| early.forget_one(before_ms, key));
            early.note(end_ms, key, early.now_ms(self.fired.watermark_ms, context));
            early.wake(context);
        }
    }

    /// The early rows that are due now. Windows that are firing make their own first: which of their keys have done so
    /// is not for these to know.
    pub fn early_round(&mut self, context: &Context<'_, '_>) -> Option<Round> {
        let is_firing = !self.fired.from.is_empty();
        let early = self.early.as_mut().filter(|_| !is_firing)?;
        early.round(early.now_ms(self.fired.watermark_ms, context))
    }

    /// Shows `emit` the entries whose ends lie within `ends`, from `place` on, until a call's limit is reached. Returns where
    /// that is.
    pub fn fire_within(
        &mut self,
        ends: RangeInclusive<i64>,
        mut place: Place,
        context: &mut Context<'_, '_>,
        emit: &mut EmitEach<'_, C::Value>,
    ) -> Result<Option<Place>, OperatorError> {
        let WindowState { table, fired, .. } = self;
        let at_or_after = |end_ms: i64| move |other_ms: i64| other_ms >= end_ms;
        while let Some(end_ms) = table
            .first_end_where(at_or_after(place.end_ms.max(*ends.start())))
            .filter(|end_ms| end_ms <= ends.end())
        {
            if end_ms > place.end_ms {
                place = Place { end_ms, from: Vec::new() };
            }
            let mut next = Vec::new();
            let flow =
                table.visit::<OperatorError>(end_ms..=end_ms, &place.from, &mut |_, key, values| {
                    emit(fired, key, values, context)?;
                    if context.made_row() {
                        next = behind(key);
                        return Ok(ControlFlow::Break(()));
                    }
                    Ok(ControlFlow::Continue(()))
                })?;
            if flow.is_break() {
                return Ok(Some(Place { end_ms, from: next }));
            }
            let Some(after_ms) = end_ms.checked_add(1) else { break };
            place = Place { end_ms: after_ms, from: Vec::new() };
        }
        Ok(None)
    }

    /// The keys of entries whose ends lie within `ends`, from `place` on, the last one first, each with the end that `end_of`
    /// gives for what lies there; some at a time. And the place from which there are more.
    pub fn keys_within(
        &mut self,
        ends: RangeInclusive<i64>,
        mut place: Place,
        end_of: impl Fn(&C::Value) -> Option<i64>,
    ) -> Result<(Changed, Option<Place>), StoreError> {
        let mut found = Changed::new();
        let at_or_after = |end_ms: i64| move |other_ms: i64| other_ms >= end_ms;
        while let Some(end_ms) = self
            .table
            .first_end_where(at_or_after(place.end_ms.max(*ends.start())))
            .filter(|end_ms| end_ms <= ends.end())
        {
            if end_ms > place.end_ms {
                place = Place { end_ms, from: Vec::new() };
            }
            let mut next = None;
            let flow =
                self.table.visit::<StoreError>(end_ms..=end_ms, &place.from, &mut |_, key, values| {
                    let ends = values.iter().map(|value| end_of(value).unwrap_or(end_ms));
                    found.extend(ends.map(|end_ms| (end_ms, key.into())));
                    if found.len() < KEYS_AT_ONCE {
                        return Ok(ControlFlow::Continue(()));
                    }
                    next = Some(behind(key));
                    Ok(ControlFlow::Break(()))
                })?;
            found.reverse();
            match (flow, next) {
                (ControlFlow::Break(()), Some(from)) => return Ok((found, Some(Place { end_ms, from }))),
                _ if !found.is_empty() => {
                    let after_ms = end_ms.checked_add(1);
                    return Ok((found, after_ms.map(|end_ms| Place { end_ms, from: Vec::new() })));
                }
                _ => {}
            }
            let Some(after_ms) = end_ms.checked_add(1) else { break };
            place = Place { end_ms: after_ms, from: Vec::new() };
        }
        Ok((found, None))
    }

    /// What is left over of them is made in a later call.
    pub fn early_left(&mut self, left: Option<Round>) -> Progress {
        match (left, &mut self.early) {
            (Some(left), Some(early)) => {
                early.go_on_with(left);
                Progress::Full
            }
            _ => Progress::Done,
        }
    }

    /// Memory in use beside the entries, about.
    fn remembered_bytes(&self) -> usize {
        let refining = self.refining.as_ref().map_or(0, Refining::bytes);
        self.derived.bytes() + self.early.as_ref().map_or(0, Early::bytes) + refining
    }

    /// The ends of windows that have not fired.
    pub fn unfired(&self) -> RangeInclusive<i64> {
        self.fired.end_ms.saturating_add(1)..=i64::MAX
    }

    /// Whether the window that ends at `end_ms` is closed.
    pub fn is_closed(&self, end_ms: i64) -> bool {
        end_ms <= self.closed_ms()
    }

    /// Which windows have fired and are not closed.
    pub fn extent(&self) -> Extent {
        Extent { after_ms: self.closed_ms(), until_ms: self.fired.end_ms }
    }

    /// Windows that end at or before this instant are closed: rows of open ones lie at or after it.
    pub fn closed_ms(&self) -> i64 {
        self.spec.closed_ms(self.fired.watermark_ms)
    }
}

impl<W, C: ValueCodec, D: Derived> Stateful for WindowState<W, C, D> {
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
        self.fired = Fired::restored(saved, &self.spec);
        self.derived = D::default();
        self.early.iter_mut().for_each(Early::restart);
        let extent = self.extent();
        self.refining.iter_mut().for_each(|refining| refining.forget(extent));
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
        let mut memory = self.table.memory();
        memory.total += self.remembered_bytes();
        memory
    }

    fn evict(&mut self, bytes: usize) {
        let MemoryUse { total, pinned, .. } = self.table.memory();
        self.table.evict(bytes);
        if bytes > total - pinned && self.remembered_bytes() > 0 {
            // It comes last: whoever needs it again reads entries anew.
            self.derived = D::default();
            self.early.iter_mut().for_each(Early::forget);
            let extent = self.extent();
            // Walking through all that has fired it remembers nothing, and goes on where it is.
            let remembers = self.refining.iter_mut().filter(|refining| refining.bytes() > 0);
            remembers.for_each(|refining| refining.forget(extent));
        }
    }
}
