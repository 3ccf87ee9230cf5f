//! Changelogs of sessions: one that grows, or joins others, takes the place of those that it was.

use super::joined::Joined;
use super::{Session, SessionOperator, visit_session};
use crate::operator::window::{Aggregator, EmitRows, KeySelector, WindowResult};
use crate::operator::{Context, OperatorError};
use crate::record::RecordType;
use crate::state::store::StoreError;
use crate::window::WindowRange;

/// The sessions that a record joins and of which a row was told, as they were then.
pub(super) type Told<V> = Vec<Session<V>>;

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
            EmitRows::OnTime => self.state.fired.has(end_ms, &self.key),
            EmitRows::OnUpdate => true,
        }
    }

    /// What was told of the sessions that a record joins, if there is a changelog.
    pub(super) fn told(&self, joined: &Joined) -> Result<Told<A::Value>, StoreError> {
        let mut told = Told::new();
        if !self.state.spec.changelog {
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
        told: Told<A::Value>,
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
}
