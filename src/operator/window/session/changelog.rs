//! Changelogs of sessions: one that grows, or joins others, takes the place of those that it was.
//!
//! Where rows are not made after each update one keeps what was told, until it is told itself, as long as it ends then. What
//! was told with another end is taken back at once: later the watermark behind might have passed it. So an entry has a
//! bound as well.

use super::joined::Joined;
use super::{Session, SessionOperator, change, visit_session};
use crate::expression::EvaluationError;
use crate::operator::window::{Aggregator, EmitRows, Firing, KeySelector, WindowResult, told};
use crate::operator::{Context, OperatorError};
use crate::planted::{Bug, is_planted};
use crate::record::RecordType;
use crate::state::store::StoreError;
use crate::window::WindowRange;

/// The sessions that a record joins and of which a row was told, as they were then.
pub(super) type ToldSessions<V> = Vec<Session<V>>;

/// Of a changelog a record joins at most so many sessions: it may take back a row of each, and then makes two of its own.
const JOINED_MAX: usize = 98;

impl<R, O, K, A, F> SessionOperator<R, O, K, A, F>
where
    R: RecordType,
    O: RecordType,
    K: KeySelector<R>,
    A: Aggregator<R>,
    F: WindowResult<A::Value, O>,
{
    /// Whether a row of the key's session that ends then was told.
    fn is_told(&self, end_ms: i64) -> bool {
        match self.state.spec.emit {
            EmitRows::OnClose => false,
            EmitRows::OnTime => self.has_fired(end_ms),
            EmitRows::OnUpdate => true,
        }
    }

    /// Whether the key's session that ends then has fired.
    pub(super) fn has_fired(&self, end_ms: i64) -> bool {
        self.state.fired.has(end_ms, &self.key)
    }

    /// A record with a gap of its own may join any number of sessions: the error says that these are too many.
    pub(super) fn may_join(&self, joined: &Joined) -> Result<(), EvaluationError> {
        match joined.sessions.len() {
            sessions if self.state.spec.changelog && sessions > JOINED_MAX => Err(EvaluationError {
                message: format!("it joins {sessions} sessions, and in a changelog at most {JOINED_MAX}"),
            }),
            _ => Ok(()),
        }
    }

    /// What was told of the sessions that a record joins, if there is a changelog whose rows are made after each update.
    pub(super) fn told(&self, joined: &Joined) -> Result<ToldSessions<A::Value>, StoreError> {
        let mut told = ToldSessions::new();
        if !self.state.spec.changelog || self.state.tells_later {
            return Ok(told);
        }
        let aggregator = &self.state.table.codec().0;
        for range in joined.sessions.iter().filter(|range| self.is_told(range.end_ms)) {
            self.visit(&self.key, range.end_ms, |session| {
                // What cannot be put together could not be told either.
                let value = aggregator.copied(&session.value);
                told.extend(value.map(|value| Session { range: *range, value }));
            })?;
        }
        Ok(told)
    }

    /// Makes the rows that lead from what was told to the session that it is now a part of, of which nothing is told before
    /// it has fired.
    pub(super) fn tell(
        &mut self,
        range: WindowRange,
        told: ToldSessions<A::Value>,
        context: &mut Context<'_, '_>,
    ) -> Result<(), OperatorError> {
        let is_told = self.is_told(range.end_ms);
        let (key, outlet) = (&self.key[..], &mut self.outlet);
        let mut before = None;
        for session in &told {
            if is_told && session.range == range {
                before = Some((range, &session.value));
            } else {
                outlet.retract(key, (session.range, &session.value), context)?;
            }
        }
        if !is_told {
            return Ok(());
        }
        let bucket_end_ms = self.state.spec.windows.bucket_end(range.end_ms);
        let mut emitted = Ok(());
        visit_session(&self.state.table, bucket_end_ms, key, range.end_ms, |session| {
            emitted = outlet.emit_change(key, before, (range, Ok(&session.value)), context);
        })?;
        emitted
    }

    /// What was told of the sessions that become parts of one, where rows are not made after each update, in the order of time.
    pub(super) fn told_of_parts(
        &self,
        joined: &Joined,
        told: &mut ToldSessions<A::Value>,
    ) -> Result<(), StoreError> {
        let aggregator = &self.state.table.codec().0;
        for range in &joined.sessions {
            self.visit(&self.key, range.end_ms, |session| {
                let row = match aggregator.told(&session.value) {
                    row if row.is_current(self.has_fired(range.end_ms)) => Some((*range, &session.value)),
                    row => row.row(),
                };
                let copied = row.map(|(range, value)| (range, aggregator.copied(value)));
                told.extend(copied.and_then(|(range, value)| Some(Session { range, value: value.ok()? })));
            })?;
        }
        Ok(())
    }

    /// Takes back what was told of the key's sessions.
    pub(super) fn take_back(
        &mut self,
        told: &[Session<A::Value>],
        context: &mut Context<'_, '_>,
    ) -> Result<(), OperatorError> {
        let mut told = told.iter().filter(|_| !is_planted(Bug::PartNotTakenBack));
        told.try_for_each(|Session { range, value }| self.outlet.retract(&self.key, (*range, value), context))
    }

    /// What follows an update where rows are not made after each: a session that has fired, and makes no refinements by the clock,
    /// is told.
    pub(super) fn updated_later(
        &mut self,
        range: WindowRange,
        context: &mut Context<'_, '_>,
    ) -> Result<(), OperatorError> {
        if self.state.spec.emit != EmitRows::OnTime || !self.has_fired(range.end_ms) {
            return Ok(());
        }
        let key = std::mem::take(&mut self.key);
        self.tell_later(range.end_ms, &key, Firing::Refinement, context)?;
        self.key = key;
        Ok(())
    }

    /// Makes the rows that lead from what was told to the session of `key` that ends at `end_ms`. Returns whether there is one.
    pub(super) fn tell_later(
        &mut self,
        end_ms: i64,
        key: &[u8],
        firing: Firing,
        context: &mut Context<'_, '_>,
    ) -> Result<bool, OperatorError> {
        let bucket_end_ms = self.state.spec.windows.bucket_end(end_ms);
        let has_fired = firing == Firing::Refinement;
        let mut is_current = None;
        self.visit(key, end_ms, |session| {
            let told = self.state.table.codec().0.told(&session.value);
            is_current = Some(told.is_current(has_fired));
        })?;
        if is_current != Some(false) {
            return Ok(is_current.is_some());
        }
        // One that fires is told by that.
        let told = match firing {
            Firing::Changelog(_) => None,
            _ => Some(change(&mut self.state.table, bucket_end_ms, key, |aggregator, session| {
                let told = told::Told::now(has_fired);
                session.as_mut().map(|session| aggregator.set_told(&mut session.value, told))
            })?),
        };
        let (outlet, aggregator, mut made) = (&mut self.outlet, &self.state.table.codec().0, Ok(()));
        visit_session(&self.state.table, bucket_end_ms, key, end_ms, |Session { range, value }| {
            let told = told.as_ref().map_or(Some(aggregator.told(value)), Option::as_ref);
            let row = told.and_then(told::Told::row);
            // What begins elsewhere is another one.
            let (before, other) = match row {
                Some((before, _)) if before != *range => (None, row),
                row => (row, None),
            };
            made = other
                .map_or(Ok(()), |other| outlet.retract(key, other, context))
                .and_then(|()| outlet.emit_change(key, before, (*range, Ok(value)), context));
        })?;
        made.map(|()| true)
    }
}
