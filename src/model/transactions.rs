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
    /// Decided to commit or not; markers are still to be written.
    Prepared(bool),
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
    /// How many of its transactions were decided.
    decided: u64,
    /// The markers still to be written, each at its time.
    markers: Vec<(u64, Target)>,
}

/// Where a marker goes.
#[derive(Clone, Debug)]
pub enum Target {
    /// To a partition that was added to the transaction.
    Partition(TopicPartition),
    /// To the offsets of a group.
    Group(String),
}

/// A marker that is to be written now.
#[derive(Debug)]
pub struct Marker {
    /// Whose transaction ends, with the epoch of the marker.
    pub writer: Writer,
    /// How it ends.
    pub commit: bool,
    /// Where.
    pub target: Target,
}

impl Transactional {
    /// The end is decided. Its markers are written by and by, the last one after `delay_ms`: those of groups
    /// last in one transaction, first in the next.
    fn prepare(&mut self, commit: bool, now_ms: u64, delay_ms: u64) {
        let partitions = std::mem::take(&mut self.partitions).into_iter().map(Target::Partition);
        let groups = std::mem::take(&mut self.groups).into_iter().map(Target::Group);
        self.decided += 1;
        let targets: Vec<Target> = match self.decided.is_multiple_of(2) {
            true => groups.chain(partitions).collect(),
            false => partitions.chain(groups).collect(),
        };
        let count = targets.len() as u64;
        self.markers =
            (1..).zip(targets).map(|(place, target)| (now_ms + delay_ms * place / count, target)).collect();
        self.phase = Phase::Prepared(commit);
    }
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
            let (decided, markers, phase) = (0, Vec::new(), Phase::Empty);
            let new =
                Transactional { writer: fresh, time_out_ms, phase, partitions, groups, decided, markers };
            self.ids.insert(id.to_owned(), new);
            return Ok(fresh);
        };
        match found.phase {
            Phase::Ongoing(_) => {
                // Fenced from now on; the caller's own epoch comes when this is over.
                found.writer.epoch += 1;
                found.prepare(false, now_ms, delay_ms);
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

    /// Whether a partition was added to the transaction that is open (AddPartitionsToTxn in the words of a
    /// leader, which asks before it begins a transaction of its own).
    pub fn verify(&mut self, id: &str, writer: Writer, partition: &TopicPartition) -> Result<(), Code> {
        let found = self.verified(id, writer)?;
        if found.partitions.contains(partition) { Ok(()) } else { Err(Code::InvalidTxnState) }
    }

    /// Whether a group was added to the transaction that is open.
    pub fn verify_group(&mut self, id: &str, writer: Writer, group: &str) -> Result<(), Code> {
        let found = self.verified(id, writer)?;
        if found.groups.contains(group) { Ok(()) } else { Err(Code::InvalidTxnState) }
    }

    fn verified(&mut self, id: &str, writer: Writer) -> Result<&Transactional, Code> {
        let found = self.of(id, writer).map_err(|code| match code {
            // In the words that a leader has.
            Code::ProducerFenced => Code::InvalidProducerEpoch,
            code => code,
        })?;
        match found.phase {
            Phase::Ongoing(_) => Ok(found),
            Phase::Prepared(..) => Err(Code::NotEnoughReplicas),
            Phase::Empty | Phase::Complete(_) => Err(Code::InvalidTxnState),
        }
    }

    /// Decides the transaction (EndTxn). It is answered when that is written down; the markers follow.
    pub fn end(&mut self, id: &str, writer: Writer, commit: bool, now_ms: u64) -> Result<(), Code> {
        let delay_ms = self.marker_delay_ms;
        let found = self.of(id, writer)?;
        match found.phase {
            Phase::Ongoing(_) => {
                found.prepare(commit, now_ms, delay_ms);
                Ok(())
            }
            Phase::Complete(was) if was == commit => Ok(()),
            Phase::Prepared(was) if was == commit => Err(Code::ConcurrentTransactions),
            Phase::Empty | Phase::Prepared(..) | Phase::Complete(_) => Err(Code::InvalidTxnState),
        }
    }

    /// The producers whose transactions are decided to commit, with their markers still to come.
    pub fn deciders(&self) -> Vec<i64> {
        let decided = self.ids.values().filter(|found| matches!(found.phase, Phase::Prepared(true)));
        decided.map(|found| found.writer.producer).collect()
    }

    /// When something happens here by itself next.
    pub fn next_ms(&self) -> Option<u64> {
        let next = self.ids.values().filter_map(|found| match found.phase {
            Phase::Ongoing(since_ms) => Some(timed_out_ms(since_ms, found.time_out_ms)),
            Phase::Prepared(_) => Some(found.markers.iter().map(|(due_ms, _)| *due_ms).min().unwrap_or(0)),
            Phase::Empty | Phase::Complete(_) => None,
        });
        next.min()
    }

    /// Times transactions out, and hands over the markers that are due. `held` tells until when the leader of
    /// a partition is away: the marker for it waits.
    pub fn tick(&mut self, now_ms: u64, held: &dyn Fn(&TopicPartition) -> Option<u64>) -> Vec<Marker> {
        let delay_ms = self.marker_delay_ms;
        let mut due = Vec::new();
        for found in self.ids.values_mut() {
            match found.phase {
                Phase::Ongoing(since_ms) if timed_out_ms(since_ms, found.time_out_ms) <= now_ms => {
                    found.writer.epoch += 1;
                    found.prepare(false, now_ms, delay_ms);
                }
                _ => {}
            }
            let Phase::Prepared(commit) = found.phase else { continue };
            let writer = found.writer;
            found.markers.retain_mut(|(due_ms, target)| {
                if *due_ms > now_ms {
                    return true;
                }
                if let Target::Partition(partition) = target
                    && let Some(until_ms) = held(partition)
                {
                    *due_ms = until_ms;
                    return true;
                }
                due.push(Marker { writer, commit, target: target.clone() });
                false
            });
            if found.markers.is_empty() {
                found.phase = Phase::Complete(commit);
            }
        }
        due
    }
}

/// When the coordinator notices that a transaction has lasted too long.
fn timed_out_ms(since_ms: u64, time_out_ms: u64) -> u64 {
    (since_ms + time_out_ms + 1).next_multiple_of(TIME_OUT_CHECK_MS)
}
