//! The one path from the changelog into a store: flush, restart and restore.
//!
//! A caller opens an [`Applier`], pushes every committed record from [`Applier::from`] on, in log order,
//! and ends it. The store moves from checkpoint to checkpoint and never stops within one, so that it
//! always is the state of the checkpoint in its position, except during a restore.
//!
//! A store that is whole leaves chunks alone: it holds their entries already. An empty store needs
//! them, since what they hold was put before the log start. It begins at the log start, skips what is
//! left of the checkpoint that was cut there (the restore point lies behind it, or the restore is
//! refused in the end), and is marked as restoring until it has seen the end.

use std::sync::Arc;

use super::codec::{CodecError, RecordHeader, read_header, read_record};
use super::header::Header;
use super::merge::Merge;
use super::store::{Store, StoreError, StorePosition};
use crate::planted::{Bug, is_planted};
use crate::record::TopicId;

/// What an [`Applier`] failed at. The caller adds the topic and partition.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ApplyError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record that cannot be read.
    #[error(
        "cannot read the changelog record at offset {offset}: {error}. If the changelog is damaged, \
         `thalweg reset` starts the application anew"
    )]
    Record {
        /// Where it stands.
        offset: i64,
        /// Why.
        error: CodecError,
    },
    /// A record does not follow the one before it.
    #[error(
        "the changelog's chain is broken at offset {offset}: found {found}, but {expected} comes next. \
         Records were deleted or written by something else than this application, or the topic was \
         created again. Restore the topic from a backup, or start anew with `thalweg reset`"
    )]
    BrokenChain {
        /// Where it broke.
        offset: i64,
        /// What had to come.
        expected: String,
        /// What came.
        found: String,
    },
    /// The log does not reach back to where a restore must begin.
    #[error(
        "the state cannot be restored: the changelog starts at offset {log_start}, but {needed}. \
         Records were deleted by something else than this application. Restore the topic from a \
         backup, or start anew with `thalweg reset`"
    )]
    Cut {
        /// Where the restore began.
        log_start: i64,
        /// Where it had to begin.
        needed: String,
    },
    /// The store follows another topic, or has read further than the log reaches.
    #[error("the store does not belong to this changelog: {0}. Destroy it and restore from the changelog")]
    Foreign(String),
}

/// What a store is good for when its task is assigned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// It goes on at this offset: it is whole, or a restore goes on that was interrupted.
    Continue(i64),
    /// It is new and starts at this offset, the log start.
    Fill(i64),
    /// It is of no use, for this reason: destroy it, then fill a new one.
    Useless(String),
}

/// Decides where a store with this position starts, given its changelog's identity and bounds.
pub fn start(
    position: Option<&StorePosition>,
    topic_id: TopicId,
    log_start: i64,
    high_watermark: i64,
) -> Start {
    let Some(position) = position else { return Start::Fill(log_start) };
    let next_offset = position.next_offset;
    if position.topic_id != topic_id {
        return Start::Useless("it follows a changelog that was deleted; the topic was created again".into());
    }
    if !(log_start..=high_watermark).contains(&next_offset) {
        return Start::Useless(format!(
            "it stands at offset {next_offset}, but the changelog reaches from {log_start} to {high_watermark}"
        ));
    }
    Start::Continue(next_offset)
}

/// What an [`Applier`] has done.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// Where the store stands now.
    pub position: StorePosition,
    /// Records pushed.
    pub records: u64,
    /// Bytes of the records pushed.
    pub bytes: u64,
}

/// Applies committed changelog records to a store.
pub struct Applier {
    store: Arc<dyn Store>,
    buffer_bytes_max: usize,
    merge: Merge,
    /// Where the store will stand after the checkpoint under way.
    position: StorePosition,
    /// Where the store stands.
    stored: Option<StorePosition>,
    chain: Chain,
    records: u64,
    bytes: u64,
}

/// What has been seen of the checkpoint under way, which is that of `position.header`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chain {
    /// Nothing yet: a new store, which skips records up to the first delta.
    Before,
    /// As much as the store holds: the delta, and perhaps a part of its chunk.
    Stored,
    /// The delta, up to and without this part.
    Delta { part: u32, parts: u32 },
    /// The delta, and of its chunk, if it has one, up to and without this part.
    Chunk { part: u32, parts: u32 },
}

impl Applier {
    /// Goes on where the store stands, or at `log_start` if it is new. Merges up to
    /// `buffer_bytes_max` bytes, and a checkpoint more, before it writes.
    pub fn new(
        store: Arc<dyn Store>,
        topic_id: TopicId,
        log_start: i64,
        buffer_bytes_max: usize,
    ) -> Result<Applier, ApplyError> {
        let stored = store.position()?;
        if stored.as_ref().is_some_and(|stored| stored.topic_id != topic_id) {
            return Err(ApplyError::Foreign("it follows a topic of the same name that was deleted".into()));
        }
        let mut position = stored.clone().unwrap_or(StorePosition {
            topic_id,
            next_offset: log_start,
            header: None,
            restoring: true,
            restored_from: log_start,
        });
        position.restoring &= !is_planted(Bug::RestoringForgotten);
        let chain = match position.header {
            Some(_) => Chain::Stored,
            None => Chain::Before,
        };
        let merge = Merge::new();
        Ok(Applier { store, buffer_bytes_max, merge, position, stored, chain, records: 0, bytes: 0 })
    }

    /// The offset from which on records must be pushed.
    pub fn from(&self) -> i64 {
        self.position.next_offset
    }

    /// Records and bytes pushed so far.
    pub fn progress(&self) -> (u64, u64) {
        (self.records, self.bytes)
    }

    /// Takes the next committed record. May write to the store. After an error the applier is of no
    /// use; the store stands at some checkpoint.
    pub fn push(&mut self, offset: i64, record: &[u8]) -> Result<(), ApplyError> {
        let record_error = |error| ApplyError::Record { offset, error };
        if offset < self.position.next_offset {
            let expected = format!("an offset from {} on", self.position.next_offset);
            return Err(broken(offset, expected, format!("offset {offset}")));
        }
        self.records += 1;
        self.bytes += record.len() as u64;
        let needed = match read_header(record).map_err(record_error)? {
            RecordHeader::Delta(header) if header.part == 0 => {
                self.begin(offset, header)?;
                true
            }
            RecordHeader::Delta(header) => {
                self.go_on(offset, &header)? && !(self.position.restoring && is_planted(Bug::LaterPartsLost))
            }
            RecordHeader::Chunk(header) => {
                self.chunk(offset, header.checkpoint, header.part, header.parts)? && self.position.restoring
            }
        };
        if needed {
            self.merge.add(read_record(record).map_err(record_error)?);
        }
        self.position.next_offset = offset + 1;
        Ok(())
    }

    /// Ends: all records before `end_offset` have been pushed. Returns where the store stands.
    pub fn finish(mut self, end_offset: i64) -> Result<Applied, ApplyError> {
        if let Some(missing) = self.missing() {
            return Err(broken(end_offset, missing, "the end of the log".into()));
        }
        if end_offset < self.position.next_offset {
            return Err(ApplyError::Foreign(format!(
                "it stands at offset {}, but the changelog ends at {end_offset}",
                self.position.next_offset
            )));
        }
        if self.position.restoring {
            self.check_restore()?;
        }
        self.position.restoring = false;
        self.position.next_offset = end_offset;
        self.write()?;
        Ok(Applied { position: self.position, records: self.records, bytes: self.bytes })
    }

    /// The first record of a delta: the checkpoint before it is complete.
    fn begin(&mut self, offset: i64, mut header: Header) -> Result<(), ApplyError> {
        let found = || format!("the delta of checkpoint {}", header.checkpoint);
        if let Some(missing) = self.missing() {
            return Err(broken(offset, missing, found()));
        }
        // A log that was never cut has the task's first checkpoint.
        let next = match &self.position.header {
            Some(last) => Some(last.checkpoint + 1),
            None => (self.position.restored_from == 0).then_some(1),
        };
        if let Some(next) = next.filter(|next| *next != header.checkpoint) {
            return Err(broken(offset, format!("the delta of checkpoint {next}"), found()));
        }
        if self.position.header.is_some() && self.merge.bytes() >= self.buffer_bytes_max {
            self.position.next_offset = offset;
            self.write()?;
        }
        header.resolve(offset);
        self.chain = Chain::Delta { part: 1, parts: header.parts };
        self.position.header = Some(header);
        Ok(())
    }

    /// A later record of a delta; false if it is to be skipped.
    fn go_on(&mut self, offset: i64, header: &Header) -> Result<bool, ApplyError> {
        let found = format!("part {} of {} of checkpoint {}", header.part, header.parts, header.checkpoint);
        match self.chain {
            Chain::Before if self.position.restored_from > 0 => Ok(false),
            Chain::Delta { part, parts }
                if part == header.part && parts == header.parts && self.checkpoint() == header.checkpoint =>
            {
                self.chain = Chain::Delta { part: part + 1, parts };
                Ok(true)
            }
            _ => Err(broken(offset, self.missing().unwrap_or("a delta's first record".into()), found)),
        }
    }

    /// A record of a chunk; false if it is to be skipped.
    fn chunk(&mut self, offset: i64, checkpoint: u64, part: u32, parts: u32) -> Result<bool, ApplyError> {
        let follows = match self.chain {
            Chain::Before if self.position.restored_from > 0 => return Ok(false),
            Chain::Before => false,
            Chain::Stored => true,
            Chain::Delta { part: seen, parts: of } => seen == of && part == 0,
            Chain::Chunk { part: seen, parts: of } => part == seen && parts == of,
        };
        if !follows || self.checkpoint() != checkpoint {
            let found = format!("part {part} of {parts} of a chunk of checkpoint {checkpoint}");
            let expected = self.missing().unwrap_or("a delta's first record".into());
            return Err(broken(offset, expected, found));
        }
        self.chain = Chain::Chunk { part: part + 1, parts };
        Ok(true)
    }

    /// What the checkpoint under way lacks, if it is not complete.
    fn missing(&self) -> Option<String> {
        let checkpoint = self.checkpoint();
        match self.chain {
            Chain::Delta { part, parts } if part < parts => {
                Some(format!("part {part} of {parts} of the delta of checkpoint {checkpoint}"))
            }
            Chain::Chunk { part, parts } if part < parts => {
                Some(format!("part {part} of {parts} of the chunk of checkpoint {checkpoint}"))
            }
            _ => None,
        }
    }

    fn checkpoint(&self) -> u64 {
        self.position.header.as_ref().map_or(0, |header| header.checkpoint)
    }

    /// Whether what began at the log start has found everything.
    fn check_restore(&self) -> Result<(), ApplyError> {
        let log_start = self.position.restored_from;
        let needed = match &self.position.header {
            Some(header) if log_start > header.restore_point => {
                format!("its newest complete sweep began at offset {}", header.restore_point)
            }
            None if log_start > 0 => "what was before is gone, and no checkpoint follows".into(),
            _ => return Ok(()),
        };
        Err(ApplyError::Cut { log_start, needed })
    }

    /// Writes what is merged, and the position.
    fn write(&mut self) -> Result<(), ApplyError> {
        if self.stored.as_ref() == Some(&self.position) {
            return Ok(());
        }
        let writes = std::mem::take(&mut self.merge).finish();
        self.position.next_offset -= i64::from(is_planted(Bug::OffsetMovedBack));
        self.store.write(&writes, &self.position)?;
        self.stored = Some(self.position.clone());
        Ok(())
    }
}

fn broken(offset: i64, expected: String, found: String) -> ApplyError {
    ApplyError::BrokenChain { offset, expected, found }
}

#[cfg(test)]
mod tests;
