//! Early records of sessions.

use std::ops::RangeInclusive;

use super::{Joined, Session, SessionOperator, change, visit_session};
use crate::operator::window::early::{Changed, Place, Round};
use crate::operator::window::state::WindowState;
use crate::operator::window::{Aggregator, Firing, KeySelector, WindowResult, behind, is_early_at};
use crate::operator::{Context, OperatorError, Progress};
use crate::record::RecordType;
use crate::state::store::StoreError;
use crate::window::EarlyFiring;

impl<R, O, K, A, F> SessionOperator<R, O, K, A, F>
where
    R: RecordType,
    O: RecordType,
    K: KeySelector<R>,
    A: Aggregator<R>,
    F: WindowResult<A::Value, O>,
{
    /// Has the session of `key` that ends at `end_ms` begin anew with what it counts.
    pub(super) fn purge(&mut self, end_ms: i64, key: &[u8]) -> Result<(), StoreError> {
        let bucket_end_ms = self.state.spec.windows.bucket_end(end_ms);
        change(&mut self.state.table, bucket_end_ms, key, |aggregator, session| {
            if let Some(session) = session {
                session.value = aggregator.create();
            }
        })
    }

    /// Makes the early record of a session if with its last record it has one.
    pub(super) fn fire_counted(
        &mut self,
        joined: &Joined,
        is_due: bool,
        context: &mut Context<'_, '_>,
    ) -> Result<(), OperatorError> {
        let WindowState { spec, table, fired, .. } = &self.state;
        let end_ms = joined.whole.end_ms;
        let counts = matches!(spec.early, Some(EarlyFiring::EveryRows(_)));
        if spec.early.is_none() || end_ms <= fired.end_ms || !(counts || is_due) {
            return Ok(());
        }
        let (aggregator, mut fires) = (&table.codec().0, is_due);
        visit_session(table, spec.windows.bucket_end(end_ms), &self.key, end_ms, |session| {
            fires |= is_early_at(spec.early, joined.rows, aggregator.rows(&session.value));
        })?;
        if fires {
            let key = std::mem::take(&mut self.key);
            self.fire_one(end_ms, &key, Firing::Early, context)?;
            self.key = key;
        }
        Ok(())
    }

    /// Makes the early records that are due by a time.
    pub(super) fn fire_early(&mut self, context: &mut Context<'_, '_>) -> Result<Progress, OperatorError> {
        let left = match self.state.early_round(context) {
            Some(Round::Changed(changed)) => self.fire_changed(changed, context)?.map(Round::Changed),
            Some(Round::All(place)) if self.early.purge || self.state.tells_later => {
                self.fire_each(self.state.unfired(), place, Firing::Early, context)?.map(Round::All)
            }
            Some(Round::All(place)) => {
                let (unfired, outlet) = (self.state.unfired(), &mut self.outlet);
                let left =
                    self.state.fire_within(unfired, place, context, &mut |fired, key, values, context| {
                        let mut sessions = values.iter().filter_map(|session| session.as_ref());
                        sessions.try_for_each(|Session { range, value }| match fired.has(range.end_ms, key) {
                            true => Ok(()),
                            false => outlet.emit((key, *range, Ok(value), Firing::Early), context),
                        })
                    })?;
                left.map(Round::All)
            }
            // Sessions are no panes.
            Some(Round::OfPanes { .. }) | None => None,
        };
        Ok(self.state.early_left(left))
    }

    /// Early records of these sessions' ends and keys, the last one first; what is left over. Those that have grown
    /// since stand there again with another end.
    fn fire_changed(
        &mut self,
        mut changed: Changed,
        context: &mut Context<'_, '_>,
    ) -> Result<Option<Changed>, OperatorError> {
        while let Some((end_ms, key)) = changed.pop() {
            if self.state.fired.has(end_ms, &key) {
                continue;
            }
            self.fire_one(end_ms, &key, Firing::Early, context)?;
            // One of which there is nothing to tell was read all the same.
            if context.made_row() {
                return Ok(Some(changed));
            }
        }
        Ok(None)
    }

    /// Records of all sessions whose ends lie within `ends`, from `place` on, one by one, since that changes what they keep;
    /// where there may be more.
    pub(super) fn fire_each(
        &mut self,
        ends: RangeInclusive<i64>,
        place: Place,
        firing: Firing,
        context: &mut Context<'_, '_>,
    ) -> Result<Option<Place>, OperatorError> {
        let buckets = *ends.start()..=self.state.spec.windows.bucket_end(*ends.end());
        let mut next = Some(place);
        while let Some(place) = next.take() {
            let end_of = |session: &Option<Session<A::Value>>| session.as_ref().map(|it| it.range.end_ms);
            let (mut found, more) = self.state.keys_within(buckets.clone(), place, end_of)?;
            next = more;
            while let Some((end_ms, key)) = found.pop() {
                if ends.contains(&end_ms) {
                    self.fire_one(end_ms, &key, firing, context)?;
                }
                if context.made_row() {
                    let end_ms = self.state.spec.windows.bucket_end(end_ms);
                    return Ok(Some(Place { end_ms, from: behind(&key) }));
                }
            }
        }
        Ok(None)
    }
}
