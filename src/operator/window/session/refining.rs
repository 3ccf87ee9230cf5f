//! Refinements of sessions by the clock.
//!
//! One that has fired and grows beyond what has fired is due again by itself; one that becomes a part of another is told
//! of by that.

use super::{Joined, Session, SessionOperator};
use crate::operator::window::early::Place;
use crate::operator::window::refining::{Refines, Refining};
use crate::operator::window::{Aggregator, Firing, KeySelector, WindowResult};
use crate::operator::{Context, OperatorError};
use crate::record::RecordType;

impl<R, O, K, A, F> SessionOperator<R, O, K, A, F>
where
    R: RecordType,
    O: RecordType,
    K: KeySelector<R>,
    A: Aggregator<R>,
    F: WindowResult<A::Value, O>,
{
    /// With refinements by the clock, so often, and not after each record.
    pub fn with_refinements(mut self, every_ms: Option<i64>) -> Self {
        self.state.refine_every(every_ms);
        self
    }

    /// Notes which session of those that have fired has changed, and which there are no more, if refinements are made by the
    /// clock. Returns whether they are.
    pub(super) fn refine_later(&mut self, joined: &Joined, context: &mut Context<'_, '_>) -> bool {
        let fired = self.state.extent();
        let Some(refining) = &mut self.state.refining else { return false };
        let end_ms = joined.whole.end_ms;
        let before = joined.sessions.iter().map(|session| session.end_ms);
        before
            .filter(|before_ms| *before_ms <= fired.until_ms && *before_ms != end_ms)
            .for_each(|before_ms| refining.forget_one(before_ms, &self.key));
        if end_ms <= fired.until_ms {
            refining.note(end_ms, &self.key, fired);
            context.staged.wake_at(refining.set_due(context.clock_ms));
        }
        true
    }
}

impl<R, O, K, A, F> Refines for SessionOperator<R, O, K, A, F>
where
    R: RecordType,
    O: RecordType,
    K: KeySelector<R>,
    A: Aggregator<R>,
    F: WindowResult<A::Value, O>,
{
    fn refining(&mut self) -> &mut Option<Refining> {
        &mut self.state.refining
    }

    fn lies_under(&self, end_ms: i64) -> i64 {
        self.state.spec.windows.bucket_end(end_ms)
    }

    fn refine_one(
        &mut self,
        end_ms: i64,
        key: &[u8],
        context: &mut Context<'_, '_>,
    ) -> Result<usize, OperatorError> {
        self.fire_one(end_ms, key, Firing::Refinement, context).map(usize::from)
    }

    fn refine_all(
        &mut self,
        place: Place,
        until_ms: i64,
        context: &mut Context<'_, '_>,
    ) -> Result<Option<Place>, OperatorError> {
        let closed_ms = self.state.closed_ms();
        if self.state.tells_later || self.early.begins_anew(Firing::Refinement) {
            let open = closed_ms.saturating_add(1)..=until_ms;
            return self.fire_each(open, place, Firing::Refinement, context);
        }
        let buckets = i64::MIN..=self.state.spec.windows.bucket_end(until_ms);
        let outlet = &mut self.outlet;
        self.state.fire_within(buckets, place, context, &mut |_, key, values, context| {
            let sessions = values.iter().filter_map(|session| session.as_ref());
            let mut due =
                sessions.filter(|Session { range, .. }| range.end_ms > closed_ms && range.end_ms <= until_ms);
            due.try_for_each(|Session { range, value }| {
                outlet.emit((key, *range, Ok(value), Firing::Refinement), context)
            })
        })
    }
}
