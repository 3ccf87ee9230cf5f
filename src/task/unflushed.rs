//! Committed changes that the store does not hold yet.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::planted::{Bug, is_planted};
use crate::record::TopicId;
use crate::state::apply::{Applier, ApplyError};
use crate::state::codec::read_header;
use crate::state::store::Store;

/// A changelog record and its offset.
type Placed = (i64, Arc<Vec<u8>>);

/// The changelog records of one committed checkpoint.
struct Committed {
    records: Vec<Placed>,
    bytes: usize,
    at_ms: u64,
}

/// Checkpoints in order, as the bytes that went into the log.
#[derive(Default)]
pub struct Unflushed {
    waiting: VecDeque<Committed>,
    waiting_bytes: usize,
    /// Bytes that a running flush works on; 0 if none runs.
    flushing_bytes: usize,
}

/// Committed changes on their way into the store.
pub struct FlushJob {
    store: Arc<dyn Store>,
    topic_id: TopicId,
    records: Vec<Placed>,
    next_offset: i64,
}

/// A flush that succeeded: the store is at this checkpoint and safe on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flushed {
    /// The checkpoint.
    pub checkpoint: u64,
    /// The changelog offset after it.
    pub next_offset: i64,
}

impl FlushJob {
    /// Writes to the store and syncs it. Blocks on the disk. `between` is called when the store has
    /// been written and not synced.
    pub fn run(self, between: &dyn Fn()) -> Result<Flushed, ApplyError> {
        match self.try_run(between) {
            Err(_) if is_planted(Bug::FailedFlushTakenAsDone) => {
                let last = self.records.last().and_then(|(_, record)| read_header(record).ok());
                let checkpoint = last.map_or(0, |header| header.checkpoint());
                Ok(Flushed { checkpoint, next_offset: self.next_offset })
            }
            result => result,
        }
    }

    fn try_run(&self, between: &dyn Fn()) -> Result<Flushed, ApplyError> {
        // The job is bounded already: it is merged as one.
        let mut applier = Applier::new(self.store.clone(), self.topic_id, 0, usize::MAX)?;
        for (offset, record) in &self.records {
            applier.push(*offset, record)?;
        }
        let applied = applier.finish(self.next_offset)?;
        between();
        if !is_planted(Bug::CutBeforeSync) {
            self.store.sync()?;
        }
        let checkpoint = applied.position.header.as_ref().map_or(0, |header| header.checkpoint);
        Ok(Flushed { checkpoint, next_offset: self.next_offset })
    }
}

impl Unflushed {
    /// Bytes held, those of a running flush included.
    pub fn bytes(&self) -> usize {
        self.waiting_bytes + self.flushing_bytes
    }

    /// Takes a committed checkpoint's records, with their offsets in ascending order; there is at least
    /// one.
    pub fn push(&mut self, records: Vec<Placed>, now_ms: u64) {
        let bytes = records.iter().map(|(_, record)| record.len()).sum();
        self.waiting_bytes += bytes;
        self.waiting.push_back(Committed { records, bytes, at_ms: now_ms });
    }

    /// A flush into `store`, if one is due: of whole checkpoints, the oldest first, until they have
    /// `bytes_max` bytes. At most one runs at a time.
    pub fn job(
        &mut self,
        store: &Arc<dyn Store>,
        topic_id: TopicId,
        bytes_max: usize,
        age_max_ms: u64,
        now_ms: u64,
        force: bool,
    ) -> Option<FlushJob> {
        let oldest_ms = self.waiting.front()?.at_ms;
        let due = self.waiting_bytes >= bytes_max || now_ms.saturating_sub(oldest_ms) >= age_max_ms;
        if self.flushing_bytes > 0 || !(due || force) {
            return None;
        }
        let mut records = Vec::new();
        while self.flushing_bytes < bytes_max
            && let Some(checkpoint) = self.waiting.pop_front()
        {
            self.waiting_bytes -= checkpoint.bytes;
            self.flushing_bytes += checkpoint.bytes;
            records.extend(checkpoint.records);
        }
        let next_offset = records.last().map(|(offset, _)| offset + 1)?;
        Some(FlushJob { store: store.clone(), topic_id, records, next_offset })
    }

    /// The running flush has ended.
    pub fn flushed(&mut self) {
        self.flushing_bytes = 0;
    }
}

#[cfg(test)]
mod tests;
