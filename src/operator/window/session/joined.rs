//! Which sessions a record makes one.

use std::ops::{ControlFlow, RangeInclusive};

use smallvec::SmallVec;

use super::{Session, SessionOperator, damage};
use crate::expression::EvaluationError;
use crate::operator::window::{Aggregator, KeySelector, WindowResult};
use crate::planted::{Bug, is_planted};
use crate::record::RecordType;
use crate::state::store::StoreError;
use crate::window::WindowRange;

/// What a record joins.
pub(super) struct Joined {
    /// The open sessions that it touches, in the order of time.
    pub sessions: SmallVec<[WindowRange; 2]>,
    /// Of how many records the largest of them is.
    pub rows: i64,
    /// The one that they and it are then.
    pub whole: WindowRange,
}

impl<R, O, K, A, F> SessionOperator<R, O, K, A, F>
where
    R: RecordType,
    O: RecordType,
    K: KeySelector<R>,
    A: Aggregator<R>,
    F: WindowResult<A::Value, O>,
{
    /// The buckets in which a session may end that a window which begins at `start_ms` touches.
    fn buckets_from(&self, start_ms: i64) -> RangeInclusive<i64> {
        self.state.spec.windows.bucket_end(start_ms)..=i64::MAX
    }

    /// What a record that is the window `alone` by itself joins.
    pub(super) fn join(&self, alone: WindowRange) -> Result<Joined, StoreError> {
        let mut joined = Joined { sessions: SmallVec::new(), rows: 0, whole: alone };
        let mut damaged = None;
        self.state.table.visit_key(
            self.buckets_from(alone.start_ms),
            &self.key,
            |bucket_end_ms, session| {
                let Some(Session { range, value }) = session else { return ControlFlow::Continue(()) };
                if self.is_damaged(*range, bucket_end_ms) {
                    damaged = Some(*range);
                    return ControlFlow::Break(());
                }
                if self.state.is_closed(range.end_ms) && !is_planted(Bug::ClosedSessionJoined) {
                    return ControlFlow::Continue(());
                }
                if range.touches(&alone) {
                    joined.sessions.push(*range);
                    joined.rows = joined.rows.max(self.state.table.codec().0.rows(value));
                    joined.whole = joined.whole.cover(range);
                    if is_planted(Bug::SessionsNotJoined) {
                        return ControlFlow::Break(());
                    }
                }
                // Open sessions do not touch: those behind one that ends later are too far away.
                if range.end_ms < alone.end_ms { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            },
        )?;
        match damaged {
            Some(range) => Err(damage(range)),
            None => Ok(joined),
        }
    }

    /// The value of the sessions that a record makes one. It is added to the first of them, as if there were no
    /// other; then the others are.
    pub(super) fn merged(
        &self,
        input: A::Input<'_>,
        joined: &Joined,
    ) -> Result<Result<A::Value, EvaluationError>, StoreError> {
        let aggregator = &self.state.table.codec().0;
        let mut merged = aggregator.create();
        let mut sum = Ok(());
        let mut input = Some(input);
        for range in &joined.sessions {
            self.visit(&self.key, range.end_ms, |session| {
                if sum.is_ok() {
                    sum = aggregator.merge(&mut merged, &session.value);
                }
            })?;
            if let Some(input) = input.take().filter(|_| sum.is_ok()) {
                sum = aggregator.add(&mut merged, input);
            }
        }
        if let Some(input) = input {
            sum = aggregator.add(&mut merged, input);
        }
        Ok(sum.map(|()| merged))
    }
}
