//! What a task does for its store, its cache and its changelog, between checkpoints.

use super::{Durable, SourceCuts, Task};
use crate::ablation::{Part, is_off};
use crate::planted::{Bug, is_planted};
use crate::record::TopicPartition;
use crate::state::MemoryUse;
use crate::task::unflushed::{FlushJob, Flushed};

impl Task {
    /// Committed changes to be written to the store, if it is time. At most one such job at a time.
    pub fn flush_job(&mut self, now_ms: u64, force: bool) -> Option<FlushJob> {
        let (bytes_max, age_max_ms) = (self.limits.flush_bytes, self.limits.flush_interval_ms);
        let Durable { unflushed, store, topic_id, .. } = self.durable.as_mut()?;
        unflushed.job(store, *topic_id, bytes_max, age_max_ms, now_ms, force)
    }

    /// Learns that a flush is done; evicts what the cache holds above its budget.
    pub fn flushed(&mut self, flushed: Flushed) {
        let Some(durable) = &mut self.durable else { return };
        durable.unflushed.flushed();
        durable.flushed_offset = flushed.next_offset;
        self.pipeline.visit(&mut |operator| operator.flushed(flushed.checkpoint));
        self.evict();
    }

    /// Evicts what the cache holds above its budget: from each operator its share.
    fn evict(&mut self) {
        let memory = self.memory();
        let bytes_max = if is_off(Part::Cache) { 0 } else { self.limits.cache_bytes_max };
        if memory.total > bytes_max {
            let over = memory.total - bytes_max;
            let evictable = (memory.total - memory.pinned).max(1);
            self.pipeline.visit(&mut |operator| {
                let own = operator.memory();
                let own_evictable = own.total - own.pinned;
                operator.evict((over as u128 * own_evictable as u128 / evictable as u128) as usize);
            });
        }
    }

    /// Where the changelog may be cut now, if that is further than before. At most one cut at a time.
    pub fn cut_job(&mut self) -> Option<(TopicPartition, i64)> {
        let durable = self.durable.as_mut()?;
        let restore_point = match &durable.sweep.under_way {
            Some(sweep) if is_planted(Bug::CutAtSweepUnderWay) => sweep.first_offset,
            _ => durable.sweep.restore_point,
        };
        let offset = restore_point.min(durable.flushed_offset);
        if durable.cutting || offset <= durable.cut_offset {
            return None;
        }
        durable.cutting = true;
        Some((durable.changelog.clone(), offset))
    }

    /// Where the repartition topic that the task reads may be cut now, if it is time: nobody reads again what is
    /// committed. At most one cut at a time.
    pub fn cut_source_job(&mut self, now_ms: u64) -> Option<(TopicPartition, i64)> {
        let offset =
            if is_planted(Bug::SourceCutUncommitted) { self.next_offset } else { self.committed_offset };
        let due = self.spec.repartitioned_by.is_some()
            && !self.cuts.running
            && offset > self.cuts.offset
            && now_ms >= self.cuts.last_ms + self.limits.cut_interval_ms;
        if !due {
            return None;
        }
        self.cuts = SourceCuts { running: true, last_ms: now_ms, ..self.cuts };
        Some((self.spec.source.clone(), offset))
    }

    /// [`Bug::CacheKept`]: goes back to what is committed, but for the state. Returns where to read on.
    #[cfg(any(test, feature = "planted-bugs"))]
    pub(crate) fn rewind(&mut self) -> i64 {
        self.queue.clear();
        (self.queued_records, self.pending) = (0, None);
        let _ = self.staged.take();
        self.next_offset = self.committed_offset;
        self.next_offset
    }

    /// Learns where a partition starts after a cut; `None` if the cut failed, which is tried again later: of the
    /// changelog after the next flush.
    pub fn cut(&mut self, partition: &TopicPartition, log_start: Option<i64>) {
        if *partition == self.spec.source {
            self.cuts.running = false;
            self.cuts.offset = log_start.unwrap_or(self.cuts.offset);
        } else if let Some(durable) = &mut self.durable {
            durable.cutting = false;
            durable.cut_offset = log_start.unwrap_or(durable.cut_offset);
        }
    }

    /// Where the changelog starts, and up to where the store holds it; `None` without state.
    pub fn changelog_offsets(&self) -> Option<(i64, i64)> {
        self.durable.as_ref().map(|durable| (durable.cut_offset, durable.flushed_offset))
    }

    /// Whether a sweep has begun and not ended.
    pub fn is_sweeping(&self) -> bool {
        self.durable.as_ref().is_some_and(|durable| durable.sweep.under_way.is_some())
    }

    /// Bytes of the store; 0 without state.
    pub fn store_bytes(&self) -> u64 {
        self.durable.as_ref().map_or(0, |durable| durable.store.bytes())
    }

    /// Memory in use, committed and unflushed changes included.
    pub fn memory(&mut self) -> MemoryUse {
        let mut memory = MemoryUse::default();
        self.pipeline.visit(&mut |operator| {
            let own = operator.memory();
            memory.total += own.total;
            memory.pinned += own.pinned;
            memory.dirty += own.dirty;
        });
        let unflushed = self.durable.as_ref().map_or(0, |durable| durable.unflushed.bytes());
        let held = self.staged.bytes() + unflushed;
        MemoryUse { total: memory.total + held, pinned: memory.pinned + held, dirty: memory.dirty }
    }
}
