//! What a task adds to a checkpoint.

use std::sync::Arc;

use super::{Changes, Contribution, Pending, Task, empty};
use crate::operator::{Counters, OperatorError, StageTime};
use crate::planted::{Bug, is_planted};
use crate::state::header::{Header, OperatorState, SourcePosition};
use crate::state::store::StoreError;
use crate::task::sweep::{SweepPace, operators_in_key_order};

impl Task {
    /// What the task adds to a checkpoint; `None` if nothing has happened. Nothing may be processed
    /// until [`committed`](Task::committed); if the commit fails, the task is dropped.
    ///
    /// # Errors
    /// When the state cannot be read, or when a record that an operator had held back cannot go on.
    pub fn prepare(&mut self, now_ms: u64) -> Result<Option<Contribution>, OperatorError> {
        if !self.is_dirty(now_ms) {
            return Ok(None);
        }
        if self.staged.holds_back() && !is_planted(Bug::PartsHeldBeyondCheckpoint) {
            empty(&mut self.arena);
            self.pipeline.hand_on(&self.arena, &mut self.staged)?;
            self.staged.has_handed_on();
        }
        let changes = self.collect_changes()?;
        #[cfg(any(test, feature = "planted-bugs"))]
        if let (Some(changes), Some(durable)) = (&changes, &self.durable)
            && is_planted(Bug::StoreBeforeAck)
        {
            durable.write_early(changes)?;
        }
        self.staged.send_due(now_ms, self.limits.watermark_interval_ms);
        let (outputs, counters) = self.staged.take();
        let contribution = Contribution {
            outputs,
            changes: changes.as_ref().map_or_else(Vec::new, |changes| changes.records.clone()),
            source: self.spec.source.clone(),
            next_offset: self.next_offset,
            finished: self.finished,
            standing: self.standing(),
        };
        let (next_offset, standing) = (self.next_offset, contribution.standing);
        self.pending = Some(Pending { next_offset, standing, counters, changes });
        Ok(Some(contribution))
    }

    /// The delta, and the chunk that follows it, unless the sweep rests; `None` without state.
    fn collect_changes(&mut self) -> Result<Option<Changes>, StoreError> {
        let operators = self.saved_operators();
        let StageTime { max_event_time_ms, watermark_ms, upstreams } = self.pipeline.time();
        let source = SourcePosition {
            topic: self.spec.source.topic.to_string(),
            partition: self.spec.source.partition,
            next_offset: self.next_offset,
            max_event_time_ms,
            end_offset: self.end_offset,
            upstreams,
            key: self.spec.repartitioned_by.clone().unwrap_or_default(),
        };
        let Some(durable) = &mut self.durable else { return Ok(None) };
        let checkpoint = durable.checkpoint + 1;
        for (from, to) in durable.dropped.drain(..) {
            durable.delta.delete_range(&from, &to);
        }
        self.pipeline.visit(&mut |operator| operator.collect_ranges(&mut durable.delta));
        for id in operators_in_key_order(&mut *self.pipeline) {
            self.pipeline.visit(&mut |operator| {
                if operator.id() == id {
                    operator.collect_points(checkpoint, &mut durable.delta);
                }
            });
        }
        let (sweep, chunk) = match durable.pace {
            SweepPace::Resting { .. } => (durable.sweep.clone(), None),
            SweepPace::Sweeping { .. } => {
                let least = self.limits.chunk_bytes_min;
                let bytes =
                    durable.delta.body_bytes().clamp(least, (self.limits.staged_bytes_max / 4).max(least));
                let (sweep, chunk) = durable.sweep.advance(&mut *self.pipeline, bytes, &mut durable.chunk)?;
                (sweep, Some(chunk))
            }
        };
        let header = Header {
            checkpoint,
            sources: vec![source],
            watermark_ms,
            operators,
            sweep: sweep.under_way.clone(),
            restore_point: sweep.restore_point,
            finished: self.finished,
            ended_to: if self.finished { self.spec.sends_to.clone() } else { Vec::new() },
            ..Header::default()
        };
        let mut records = durable.delta.finish(&header);
        let chunk = match chunk.filter(|chunk| chunk.entries > 0) {
            Some(chunk) => durable.chunk.finish(checkpoint, &chunk.from, &chunk.to),
            None => Vec::new(),
        };
        let pace =
            durable.pace.after(bytes_of(&records), bytes_of(&chunk), sweep.under_way.is_none(), &self.limits);
        let place = if is_planted(Bug::ChunkBeforeDelta) { 0 } else { records.len() };
        records.splice(place..place, chunk);
        Ok(Some(Changes { records: records.into_iter().map(Arc::new).collect(), header, sweep, pace }))
    }

    fn saved_operators(&mut self) -> Vec<OperatorState> {
        let mut operators = Vec::new();
        self.pipeline.visit(&mut |operator| operators.push(operator.saved()));
        operators
    }

    /// Learns that the last contribution is committed, and at which offsets its changelog records
    /// stand. Returns what happened since the checkpoint before.
    ///
    /// # Errors
    /// When there is not an offset for each record: where the changelog stands is in doubt.
    pub fn committed(&mut self, change_offsets: &[i64], now_ms: u64) -> Result<Counters, OperatorError> {
        let Some(pending) = self.pending.take() else { return Ok(Counters::default()) };
        let records = pending.changes.as_ref().map_or(0, |changes| changes.records.len());
        if records != change_offsets.len() {
            return Err(OperatorError::Broken(format!(
                "{}: {records} changelog records were committed at {} offsets",
                self.spec.id,
                change_offsets.len()
            )));
        }
        self.committed_offset = pending.next_offset;
        self.aligned.committed = pending.standing;
        self.anchor_due = false;
        self.committed_finished =
            pending.changes.as_ref().map_or(self.finished, |changes| changes.header.finished);
        if let (Some(durable), Some(mut changes)) = (&mut self.durable, pending.changes)
            && let Some(first) = change_offsets.first()
        {
            changes.sweep.resolve(*first);
            durable.checkpoint = changes.header.checkpoint;
            durable.sweep = changes.sweep;
            durable.pace = changes.pace;
            durable.header_stale = false;
            durable.unflushed.push(change_offsets.iter().copied().zip(changes.records).collect(), now_ms);
        }
        Ok(pending.counters)
    }
}

fn bytes_of(records: &[Vec<u8>]) -> usize {
    records.iter().map(Vec::len).sum()
}

#[cfg(any(test, feature = "planted-bugs"))]
impl super::Durable {
    /// [`Bug::StoreBeforeAck`].
    fn write_early(&self, changes: &Changes) -> Result<(), StoreError> {
        use crate::state::codec::read_record;
        use crate::state::merge::Merge;

        let Some(position) = self.store.position()? else { return Ok(()) };
        let mut merge = Merge::new();
        // What it has just written can be read.
        changes
            .records
            .iter()
            .filter_map(|record| read_record(record).ok())
            .for_each(|record| merge.add(record));
        self.store.write(&merge.finish(), &position)
    }
}
