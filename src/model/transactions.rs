//! The transaction coordinator: who may write under a transactional id, and how its transactions end.
//!
//! As a client without the second part of KIP-890 meets it (librdkafka is one): an epoch is raised by a
//! new producer and by a time-out, not by each transaction.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::error::Code;
use crate::record::TopicPartition;

/// How often the coordinator looks for transactions that have timed out
/// (`transaction.abort.timed.out.transaction.cleanup.interval.ms`).
pub const TIME_OUT_CHECK_MS: u64 = 10_000;
/// The longest time-out that a producer may ask for (`transaction.max.timeout.ms`).
pub const TIME_OUT_MS_MAX: u64 = 900_000;

/// A producer, as the brokers know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Writer {
    /// The producer id.
    pub producer: i64,
    /// Its epoch; a higher one fences the lower ones.
    pub epoch: i16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// None yet.
    Empty,
    /// Open since this time.
    Ongoing(u64),
    /// Decided to commit or not; the markers are written at this time.
    Prepared(bool, u64),
    /// Ended so.
    Complete(bool),
}

/// One transactional id.
struct Transactional {
    writer: Writer,
    time_out_ms: u64,
    phase: Phase,
    partitions: BTreeSet<TopicPartition>,
    groups: BTreeSet<String>,
}

/// A transaction whose markers are to be written now.
#[derive(Debug)]
pub struct Ended {
    /// Whose, with the epoch of the markers.
    pub writer: Writer,
    /// How it ended.
    pub commit: bool,
    /// Where it wrote, or meant to.
    pub partitions: BTreeSet<TopicPartition>,
    /// Whose offsets it holds.
    pub groups: BTreeSet<String>,
}

/// All transactional ids.
#[derive(Default)]
pub struct Transactions {
    ids: BTreeMap<String, Transactional>,
    producers: i64,
    /// How long the markers take after a transaction is decided.
    pub marker_delay_ms: u64,
}

impl Transactions {
    /// Makes the caller the one producer of the id (InitProducerId). Aborts a transaction that is open,
    /// and has to be asked again until that is done.
    pub fn init(&mut self, id: &str, time_out_ms: u64, now_ms: u64) -> Result<Writer, Code> {
        if time_out_ms == 0 || time_out_ms > TIME_OUT_MS_MAX {
            return Err(Code::InvalidTransactionTimeout);
        }
        let delay_ms = self.marker_delay_ms;
        let fresh = Writer { producer: self.producers, epoch: 0 };
        let Some(found) = self.ids.get_mut(id) else {
            self.producers += 1;
            let (partitions, groups) = Default::default();
            let new = Transactional { writer: fresh, time_out_ms, phase: Phase::Empty, partitions, groups };
            self.ids.insert(id.to_owned(), new);
            return Ok(fresh);
        };
        match found.phase {
            Phase::Ongoing(_) => {
                // Fenced from now on; the caller's own epoch comes when this is over.
                found.writer.epoch += 1;
                found.phase = Phase::Prepared(false, now_ms + delay_ms);
                Err(Code::ConcurrentTransactions)
            }
            Phase::Prepared(..) => Err(Code::ConcurrentTransactions),
            Phase::Empty | Phase::Complete(_) => {
                // The last but one is kept for fencing, as the coordinator does.
                if found.writer.epoch >= i16::MAX - 2 {
                    self.producers += 1;
                    found.writer = fresh;
                } else {
                    found.writer.epoch += 1;
                }
                found.time_out_ms = time_out_ms;
                found.phase = Phase::Empty;
                Ok(found.writer)
            }
        }
    }

    fn of(&mut self, id: &str, writer: Writer) -> Result<&mut Transactional, Code> {
        match self.ids.get_mut(id) {
            Some(found) if found.writer.producer != writer.producer => Err(Code::InvalidProducerIdMapping),
            Some(found) if found.writer.epoch != writer.epoch => Err(Code::ProducerFenced),
            Some(found) => Ok(found),
            None => Err(Code::InvalidProducerIdMapping),
        }
    }

    /// The id's transaction, begun with its first partition or group if there is none.
    fn open(&mut self, id: &str, writer: Writer, now_ms: u64) -> Result<&mut Transactional, Code> {
        let found = self.of(id, writer)?;
        match found.phase {
            Phase::Prepared(..) => return Err(Code::ConcurrentTransactions),
            Phase::Ongoing(_) => {}
            Phase::Empty | Phase::Complete(_) => found.phase = Phase::Ongoing(now_ms),
        }
        Ok(found)
    }

    /// Adds a partition to the transaction (AddPartitionsToTxn).
    pub fn add_partition(
        &mut self,
        id: &str,
        writer: Writer,
        partition: &TopicPartition,
        now_ms: u64,
    ) -> Result<(), Code> {
        self.open(id, writer, now_ms)?.partitions.insert(partition.clone());
        Ok(())
    }

    /// Adds a group's offsets to the transaction (AddOffsetsToTxn).
    pub fn add_group(&mut self, id: &str, writer: Writer, group: &str, now_ms: u64) -> Result<(), Code> {
        self.open(id, writer, now_ms)?.groups.insert(group.to_owned());
        Ok(())
    }

    /// Decides the transaction (EndTxn). It is answered when that is written down; the markers follow.
    pub fn end(&mut self, id: &str, writer: Writer, commit: bool, now_ms: u64) -> Result<(), Code> {
        let delay_ms = self.marker_delay_ms;
        let found = self.of(id, writer)?;
        match found.phase {
            Phase::Ongoing(_) => {
                found.phase = Phase::Prepared(commit, now_ms + delay_ms);
                Ok(())
            }
            Phase::Complete(was) if was == commit => Ok(()),
            Phase::Prepared(was, _) if was == commit => Err(Code::ConcurrentTransactions),
            Phase::Empty | Phase::Prepared(..) | Phase::Complete(_) => Err(Code::InvalidTxnState),
        }
    }

    /// When something happens here by itself next.
    pub fn next_ms(&self) -> Option<u64> {
        let next = self.ids.values().filter_map(|found| match found.phase {
            Phase::Ongoing(since_ms) => Some(timed_out_ms(since_ms, found.time_out_ms)),
            Phase::Prepared(_, due_ms) => Some(due_ms),
            Phase::Empty | Phase::Complete(_) => None,
        });
        next.min()
    }

    /// Times transactions out, and hands over those whose markers are due.
    pub fn tick(&mut self, now_ms: u64) -> Vec<Ended> {
        let mut ended = Vec::new();
        for found in self.ids.values_mut() {
            match found.phase {
                Phase::Ongoing(since_ms) if timed_out_ms(since_ms, found.time_out_ms) <= now_ms => {
                    found.writer.epoch += 1;
                    found.phase = Phase::Prepared(false, now_ms + self.marker_delay_ms);
                }
                _ => {}
            }
            match found.phase {
                Phase::Prepared(commit, due_ms) if due_ms <= now_ms => {
                    found.phase = Phase::Complete(commit);
                    ended.push(Ended {
                        writer: found.writer,
                        commit,
                        partitions: std::mem::take(&mut found.partitions),
                        groups: std::mem::take(&mut found.groups),
                    });
                }
                _ => {}
            }
        }
        ended
    }
}

/// When the coordinator notices that a transaction has lasted too long.
fn timed_out_ms(since_ms: u64, time_out_ms: u64) -> u64 {
    (since_ms + time_out_ms + 1).next_multiple_of(TIME_OUT_CHECK_MS)
}
