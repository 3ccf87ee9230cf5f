//! Sessions: windows that last as long as records follow one another.
//!
//! A session lies in the bucket in which it ends, so that sessions which end together lie together, as windows do that
//! are aligned: firing them needs no scan of others, and what has closed is one range to delete. A session that grows
//! beyond its bucket moves to a later one and leaves an empty entry behind, which goes with the bucket. Of the bucket
//! that comes next the ends are kept in a heap, which can be made anew from the entries and is no part of the state.
//!
//! A record looks for its session in the buckets from its own time on, until it has found one that ends later: as many
//! look-ups as there are gaps between it and that, or the newest record of all.

mod changelog;
mod codec;
mod early;
mod joined;
mod refining;
mod timers;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::ControlFlow;

use bumpalo::Bump;

use super::early::EarlyRecords;
use super::refining::Refines;
use super::state::WindowState;
use super::told::keep;
use super::{
    Aggregator, EmitRows, Firing, KeySelector, Outlet, WindowResult, WindowSpec, behind, prefetch, select,
};
use crate::expression::EvaluationError;
use crate::operator::{Context, ErrorPolicy, Operator, OperatorError, Progress, Readers};
use crate::planted::{Bug, is_planted};
use crate::record::{Event, RecordType};
use crate::state::store::StoreError;
use crate::state::{Stateful, ValueCodec, WindowTable};
use crate::window::{SessionWindows, WindowRange};
use changelog::ToldSessions;
pub use codec::{Session, SessionCodec};
use joined::Joined;
use timers::Timers;

/// For how long a record keeps its session open.
pub trait SessionGap<R: RecordType> {
    /// The gap in milliseconds, or why there is none.
    fn gap_ms(&self, event: &Event<'_, R>, arena: &Bump) -> Result<i64, EvaluationError>;
}

/// A gap that a record has of its own is at most this long: a hundred years.
const GAP_MS_MAX: i64 = 36_525 * 86_400_000;

/// Says that a session is none that could have been written where it lies.
fn damage(range: WindowRange) -> StoreError {
    StoreError::Corrupt(format!(
        "a session from {} to {} is not one of its bucket",
        range.start_ms, range.end_ms
    ))
}

/// Shows `visit` the session of `key` in a bucket, if it ends at `end_ms`.
fn visit_session<A: ValueCodec>(
    table: &WindowTable<SessionCodec<A>>,
    bucket_end_ms: i64,
    key: &[u8],
    end_ms: i64,
    mut visit: impl FnMut(&Session<A::Value>),
) -> Result<(), StoreError> {
    table.visit_key(bucket_end_ms..=bucket_end_ms, key, |_, session| {
        session.iter().filter(|session| session.range.end_ms == end_ms).for_each(&mut visit);
        ControlFlow::Continue(())
    })
}

/// Changes the session of `key` in a bucket.
fn change<A: ValueCodec, T>(
    table: &mut WindowTable<SessionCodec<A>>,
    bucket_end_ms: i64,
    key: &[u8],
    change: impl FnOnce(&A, &mut Option<Session<A::Value>>) -> T,
) -> Result<T, StoreError> {
    let entry = table.entry(bucket_end_ms, key, |_| None)?;
    let (codec, session) = table.value_mut(entry);
    let heap_before = codec.heap_bytes(session);
    let changed = change(&codec.0, session);
    table.heap_changed(entry, heap_before);
    Ok(changed)
}

/// The operator. `K` selects keys, `A` aggregates, `F` makes the results.
pub struct SessionOperator<R: RecordType, O: RecordType, K, A: ValueCodec, F> {
    /// The sessions by key and the bucket in which they end, and the timers of the first bucket in which one may fire,
    /// once it has been looked for.
    state: WindowState<SessionWindows, SessionCodec<A>, Option<Timers>>,
    /// The gaps of records that have their own.
    gaps: Option<Box<dyn SessionGap<R>>>,
    early: EarlyRecords<R>,
    keys: K,
    outlet: Outlet<O, F>,
    key: Vec<u8>,
}

impl<R, O, K, A, F> SessionOperator<R, O, K, A, F>
where
    R: RecordType,
    O: RecordType,
    K: KeySelector<R>,
    A: Aggregator<R>,
    F: WindowResult<A::Value, O>,
{
    /// An operator without state, to be restored before use.
    pub fn new(
        spec: WindowSpec<SessionWindows>,
        keys: K,
        aggregator: A,
        results: F,
        errors: ErrorPolicy,
        readers: Readers<O>,
    ) -> Self {
        let keeps_told = aggregator.keeps_told();
        SessionOperator {
            state: WindowState::new(spec, SessionCodec::new(aggregator), keeps_told),
            gaps: None,
            early: EarlyRecords::of_all(),
            keys,
            outlet: Outlet { results, errors, readers },
            key: Vec::new(),
        }
    }

    /// With more to know of early records. Those of a changelog do not begin anew.
    pub fn with_early(self, early: EarlyRecords<R>) -> Self {
        let purge = early.purge && !self.state.spec.changelog;
        SessionOperator { early: EarlyRecords { purge, ..early }, ..self }
    }

    /// With records that have their own gaps, none of which is less than that of the windows: such a record is an error.
    pub fn with_gaps(self, gaps: Option<Box<dyn SessionGap<R>>>) -> Self {
        SessionOperator { gaps, ..self }
    }

    /// The window of a record by itself.
    fn alone(&self, event: &Event<'_, R>, arena: &Bump) -> Result<WindowRange, EvaluationError> {
        let least_ms = self.state.spec.windows.gap_ms();
        let gap_ms = match &self.gaps {
            None => least_ms,
            Some(gaps) => gaps.gap_ms(event, arena)?,
        };
        if gap_ms < least_ms || gap_ms > GAP_MS_MAX {
            let message = format!("the gap of {gap_ms} ms is not within {least_ms} and {GAP_MS_MAX} ms");
            return Err(EvaluationError { message });
        }
        Ok(WindowRange { start_ms: event.time_ms, end_ms: event.time_ms + gap_ms })
    }

    /// Whether a session cannot be one of this bucket.
    fn is_damaged(&self, range: WindowRange, bucket_end_ms: i64) -> bool {
        let windows = &self.state.spec.windows;
        windows.bucket_end(range.end_ms) != bucket_end_ms || range.end_ms - range.start_ms < windows.gap_ms()
    }

    /// Adds a record to its session; the error says why it cannot be. Of what was `told` of those that it joins, if that is
    /// kept, one stays with the session.
    fn add(
        &mut self,
        input: A::Input<'_>,
        joined: &Joined,
        told: &mut ToldSessions<A::Value>,
    ) -> Result<Result<(), EvaluationError>, StoreError> {
        let bucket_end_ms = self.state.spec.windows.bucket_end(joined.whole.end_ms);
        let tells_later = self.state.tells_later;
        let has_fired = self.has_fired(joined.whole.end_ms);
        // What was told of one that ends elsewhere now is taken back.
        let stays = |range: &WindowRange| match tells_later {
            true => range.end_ms == joined.whole.end_ms,
            false => self.state.spec.windows.bucket_end(range.end_ms) == bucket_end_ms,
        };
        if let [range] = &joined.sessions[..]
            && stays(range)
        {
            let had_fired = self.has_fired(range.end_ms);
            let added = self.change(bucket_end_ms, |aggregator, session| {
                let Session { range, value } = session.as_mut()?;
                let before = (tells_later && aggregator.told(value).is_current(had_fired))
                    .then(|| aggregator.copied(value).ok().map(|value| (*range, value)));
                Some(aggregator.add(value, input).map(|()| {
                    if tells_later {
                        keep(aggregator, value, before, has_fired);
                    }
                    *range = joined.whole;
                }))
            })?;
            return added.ok_or_else(|| damage(joined.whole));
        }
        let mut value = match self.merged(input, joined)? {
            Ok(value) => value,
            Err(error) => return Ok(Err(error)),
        };
        if tells_later {
            self.told_of_parts(joined, told)?;
            let stays = told.iter().position(|told| told.range.end_ms == joined.whole.end_ms);
            let kept = stays.map(|place| told.remove(place)).map(|Session { range, value }| (range, value));
            keep(&self.state.table.codec().0, &mut value, kept.map(Some), has_fired);
        }
        for range in &joined.sessions {
            self.change(self.state.spec.windows.bucket_end(range.end_ms), |_, session| *session = None)?;
        }
        let whole = Session { range: joined.whole, value };
        self.change(bucket_end_ms, |_, session| *session = Some(whole)).map(Ok)
    }

    /// Changes the key's session in a bucket.
    fn change<T>(
        &mut self,
        bucket_end_ms: i64,
        changes: impl FnOnce(&A, &mut Option<Session<A::Value>>) -> T,
    ) -> Result<T, StoreError> {
        change(&mut self.state.table, bucket_end_ms, &self.key, changes)
    }

    /// Shows `visit` the session of `key` that ends at `end_ms`, if there is one.
    fn visit(
        &self,
        key: &[u8],
        end_ms: i64,
        visit: impl FnMut(&Session<A::Value>),
    ) -> Result<(), StoreError> {
        visit_session(&self.state.table, self.state.spec.windows.bucket_end(end_ms), key, end_ms, visit)
    }

    /// Notes when a session ends if it ends in the bucket that comes next, and did not end then before.
    fn note_end(&mut self, joined: &Joined) {
        let end_ms = joined.whole.end_ms;
        let bucket_end_ms = self.state.spec.windows.bucket_end(end_ms);
        if let Some(timers) =
            self.state.derived.as_mut().filter(|timers| timers.bucket_end_ms == bucket_end_ms)
            && end_ms > self.state.fired.end_ms
            && !is_planted(Bug::SessionEndNotNoted)
            && joined.sessions.iter().all(|session| session.end_ms != end_ms)
        {
            timers.push(end_ms, self.key[..].into());
        }
    }

    /// Makes the record that follows an update of a session; of a changelog those that lead to it from what was told.
    fn updated(
        &mut self,
        range: WindowRange,
        told: ToldSessions<A::Value>,
        context: &mut Context<'_, '_>,
    ) -> Result<(), OperatorError> {
        if self.state.tells_later {
            return self.updated_later(range, context);
        }
        if self.state.spec.changelog {
            return self.tell(range, told, context);
        }
        let firing = match self.state.spec.emit {
            EmitRows::OnUpdate => Firing::Update,
            EmitRows::OnTime if range.end_ms <= self.state.fired.end_ms => Firing::Refinement,
            EmitRows::OnTime | EmitRows::OnClose => return Ok(()),
        };
        let key = std::mem::take(&mut self.key);
        let fired = self.fire_one(range.end_ms, &key, firing, context).map(drop);
        self.key = key;
        fired
    }

    /// The ends of the bucket's sessions that have not fired.
    fn timers(&mut self, bucket_end_ms: i64) -> Result<Timers, StoreError> {
        let mut all: Vec<(WindowRange, Box<[u8]>)> = Vec::new();
        let bucket = bucket_end_ms..=bucket_end_ms;
        let flow = self.state.table.visit::<StoreError>(bucket, &[], &mut |_, key, values| {
            let sessions = values.iter().filter_map(|session| session.as_ref());
            all.extend(sessions.map(|session| (session.range, key.into())));
            Ok(ControlFlow::Continue(()))
        })?;
        debug_assert!(flow.is_continue());
        let mut timers = Timers { bucket_end_ms, ends: BinaryHeap::new(), bytes: 0 };
        for (range, key) in all {
            if self.is_damaged(range, bucket_end_ms) {
                return Err(damage(range));
            }
            if !self.state.fired.has(range.end_ms, &key) {
                timers.push(range.end_ms, key);
            }
        }
        Ok(timers)
    }

    /// Makes a record of the session of `key` that ends at `end_ms`. Returns whether there is one.
    fn fire_one(
        &mut self,
        end_ms: i64,
        key: &[u8],
        firing: Firing,
        context: &mut Context<'_, '_>,
    ) -> Result<bool, OperatorError> {
        if self.state.tells_later {
            return self.tell_later(end_ms, key, firing, context);
        }
        let bucket_end_ms = self.state.spec.windows.bucket_end(end_ms);
        let (outlet, early, mut emitted) = (&mut self.outlet, &self.early, None);
        let aggregator = &self.state.table.codec().0;
        visit_session(&self.state.table, bucket_end_ms, key, end_ms, |session| {
            if !early.is_empty(aggregator, &session.value) {
                emitted = Some(outlet.emit((key, session.range, Ok(&session.value), firing), context));
            }
        })?;
        let is_made = emitted.transpose()?.is_some();
        if is_made && self.early.begins_anew(firing) {
            self.purge(end_ms, key)?;
        }
        Ok(is_made)
    }

    /// Fires the sessions that end at or before `due_ms`.
    fn fire(&mut self, due_ms: i64, context: &mut Context<'_, '_>) -> Result<Progress, OperatorError> {
        // Where all has been told nobody has to know which they are.
        let firing = self.state.spec.due_firing();
        while let Some(firing) = firing
            && let Some(bucket_end_ms) =
                self.state.table.first_end_where(|end_ms| end_ms > self.state.fired.end_ms)
            && self.state.spec.windows.bucket_start(bucket_end_ms) < due_ms
        {
            let mut timers = match self.state.derived.take() {
                Some(timers) if timers.bucket_end_ms == bucket_end_ms => timers,
                _ => self.timers(bucket_end_ms)?,
            };
            while let Some((end_ms, key)) = timers.pop(due_ms) {
                if self.fire_one(end_ms, &key, firing, context)? && context.made_row() {
                    (self.state.fired.end_ms, self.state.fired.from) = (end_ms - 1, behind(&key));
                    self.state.derived = Some(timers);
                    return Ok(Progress::Full);
                }
            }
            if due_ms < bucket_end_ms {
                self.state.derived = Some(timers);
                break;
            }
            (self.state.fired.end_ms, self.state.fired.from) = (bucket_end_ms, Vec::new());
        }
        // In a bounded run what is due has been more than the watermark says.
        if due_ms > self.state.fired.end_ms {
            (self.state.fired.end_ms, self.state.fired.from) = (due_ms, Vec::new());
        }
        Ok(Progress::Done)
    }

    /// No session fires before this instant; `None` if there is none that has not.
    fn next_end(&self) -> Option<i64> {
        self.state.spec.due_firing()?;
        let fired_ms = self.state.fired.end_ms;
        let bucket_end_ms = self.state.table.first_end_where(|end_ms| end_ms > fired_ms)?;
        let timers = self.state.derived.as_ref().filter(|timers| timers.bucket_end_ms == bucket_end_ms);
        Some(match timers {
            Some(timers) => timers.ends.peek().map_or(bucket_end_ms, |Reverse((end_ms, _))| *end_ms),
            None => self.state.spec.windows.bucket_start(bucket_end_ms) + 1,
        })
    }

    /// Removes the buckets whose sessions have all fired and are done.
    fn remove(&mut self, is_done: impl Fn(&Self, i64) -> bool) {
        while let Some(bucket_end_ms) = self.state.table.first_end_ms()
            && bucket_end_ms <= self.state.fired.end_ms
            && is_done(self, bucket_end_ms)
        {
            self.state.table.remove_first();
        }
    }
}

impl<R, O, K, A, F> Operator<R> for SessionOperator<R, O, K, A, F>
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
        let event = self.state.dated(event, context);
        let selected = select(&self.keys, &event.record, &mut self.key);
        let (mut is_due, mut told) = (false, ToldSessions::new());
        let added = match selected.and_then(|()| self.alone(&event, context.arena)) {
            Ok(alone) => {
                let joined = self.join(alone)?;
                if self.state.is_closed(joined.whole.end_ms) {
                    return self.state.spec.put_late(&event, 1, &self.keys, &self.outlet.errors, context);
                }
                let checked = self.may_join(&joined).and_then(|()| self.early.is_due(&event, context.arena));
                let checked = checked.and_then(|holds| {
                    is_due = holds;
                    self.state.table.codec().0.input(&event, context.arena)
                });
                match checked {
                    Ok(input) => {
                        told = self.told(&joined)?;
                        self.add(input, &joined, &mut told)?.map(|()| joined)
                    }
                    Err(error) => Err(error),
                }
            }
            Err(error) => Err(error),
        };
        match added {
            Ok(joined) => {
                self.note_end(&joined);
                self.state.wake(|| Some(joined.whole.end_ms), context);
                let before = joined.sessions.iter().map(|session| session.end_ms);
                if joined.whole.end_ms > self.state.fired.end_ms {
                    self.state.changed(joined.whole.end_ms, before, &self.key, context);
                }
                if self.state.tells_later {
                    self.take_back(&std::mem::take(&mut told), context)?;
                }
                self.fire_counted(&joined, is_due, context)?;
                match self.refine_later(&joined, context) {
                    true => Ok(()),
                    false => self.updated(joined.whole, told, context),
                }
            }
            Err(error) => {
                let render = || self.keys.render(&event.record);
                self.outlet.errors.refuse(&error.message, &event, render, context)
            }
        }
    }

    fn prefetch(&mut self, events: &[Event<'_, R>]) {
        let windows = self.state.spec.windows;
        let end_of = |time_ms: i64| windows.bucket_end(time_ms + windows.gap_ms());
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
        if self.fire(self.state.spec.due_ms(self.state.fired.watermark_ms), context)? == Progress::Full {
            return Ok(Progress::Full);
        }
        self.remove(|operator, bucket_end_ms| operator.state.is_closed(bucket_end_ms));
        if self.fire_early(context)? == Progress::Full {
            return Ok(Progress::Full);
        }
        self.state.wake(|| self.next_end(), context);
        // Rows of sessions that are still open lie at or after this instant.
        let behind_ms = self.state.closed_ms();
        self.outlet.readers.advance(behind_ms, context)
    }

    fn finish<'b>(&mut self, context: &mut Context<'_, 'b>) -> Result<Progress, OperatorError> {
        if self.refine(i64::MAX, context)? == Progress::Full
            || self.fire(i64::MAX, context)? == Progress::Full
        {
            return Ok(Progress::Full);
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
