//! A partition: its log and what may be seen of it.
//!
//! Simpler than Kafka: one replica, so what is appended is below the high watermark at once; a record is
//! a batch of its own, so size limits apply to it alone, uncompressed; a decided record carries its
//! outcome, where Kafka keeps an index of aborted ranges (readers see the same); what a cut hides stays
//! in memory, as it may stay in the active segment.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::model::error::Code;
use crate::model::transactions::Writer;

/// A record as it stands in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// The headers, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Its time in milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
}

/// What the leader adds to the keys, values and headers of a batch that holds one record, about.
const BATCH_OVERHEAD_BYTES: usize = 70;

impl Record {
    /// Its size in a batch of its own, uncompressed.
    pub fn batch_bytes(&self) -> usize {
        let bytes = |part: &Option<Vec<u8>>| part.as_ref().map_or(0, Vec::len);
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + bytes(value)).sum();
        BATCH_OVERHEAD_BYTES + bytes(&self.key) + bytes(&self.value) + headers
    }
}

/// What a reader sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Everything up to the high watermark.
    Uncommitted,
    /// What is committed, up to the last stable offset.
    Committed,
}

enum Entry {
    /// Written under the transaction of this producer, which is open.
    Open(i64, Arc<Record>),
    Committed(Arc<Record>),
    Aborted(Arc<Record>),
    /// A control record: a transaction ended here.
    Marker,
}

/// What a read found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Records with their offsets, in order.
    pub records: Vec<(i64, Arc<Record>)>,
    /// The offset behind what was looked at: the last record, or the markers and aborted records behind
    /// it.
    pub next: i64,
}

/// How many batches of a producer the leader knows again (as Kafka's).
const BATCHES_KNOWN: usize = 5;

/// What the leader knows of a producer.
struct Known {
    /// The newest epoch that it has written or ended a transaction with.
    epoch: i16,
    /// The number that its next batch must begin with.
    next: i32,
    /// Its last batches: number and offset of the first record, how many records.
    batches: VecDeque<(i32, i64, usize)>,
}

/// The log of a partition. Offsets are places in it.
#[derive(Default)]
pub struct Partition {
    entries: Vec<Entry>,
    log_start: i64,
    /// The first offset of each producer's open transaction.
    open: BTreeMap<i64, i64>,
    /// The producers, by id.
    known: BTreeMap<i64, Known>,
}

impl Partition {
    /// The oldest offset that may be read.
    pub fn log_start(&self) -> i64 {
        self.log_start
    }

    /// The offset behind the last entry.
    pub fn high_watermark(&self) -> i64 {
        self.entries.len() as i64
    }

    /// The records that are committed, or will be since one of these producers has decided so, with their
    /// offsets, those before the log start included.
    pub fn decided(&self, deciders: &[i64]) -> Vec<(i64, Arc<Record>)> {
        let records = (0..).zip(&self.entries).filter_map(|(offset, entry)| match entry {
            Entry::Committed(record) => Some((offset, record.clone())),
            Entry::Open(producer, record) if deciders.contains(producer) => Some((offset, record.clone())),
            Entry::Open(..) | Entry::Aborted(_) | Entry::Marker => None,
        });
        records.collect()
    }

    /// The offset of the last committed record.
    pub fn last_committed(&self) -> Option<i64> {
        let last = self.entries.iter().rposition(|entry| matches!(entry, Entry::Committed(_)))?;
        Some(last as i64)
    }

    /// The first offset of the oldest open transaction, or the high watermark. A cut through an open
    /// transaction takes it along.
    pub fn last_stable_offset(&self) -> i64 {
        let open = self.open.values().min().copied();
        open.unwrap_or_else(|| self.high_watermark()).max(self.log_start)
    }

    /// The end of what a reader may see.
    pub fn end(&self, isolation: Isolation) -> i64 {
        match isolation {
            Isolation::Uncommitted => self.high_watermark(),
            Isolation::Committed => self.last_stable_offset(),
        }
    }

    /// The producer ids with an open transaction, oldest first.
    pub fn open_transactions(&self) -> Vec<i64> {
        let mut open: Vec<(i64, i64)> =
            self.open.iter().map(|(producer, first)| (*first, *producer)).collect();
        open.sort_unstable();
        open.into_iter().map(|(_, producer)| producer).collect()
    }

    /// Appends a record outside of any transaction; returns its offset.
    pub fn append(&mut self, record: Record) -> i64 {
        self.entries.push(Entry::Committed(Arc::new(record)));
        self.high_watermark() - 1
    }

    /// Whether the producer has a transaction open here.
    pub fn is_open(&self, producer: i64) -> bool {
        self.open.contains_key(&producer)
    }

    /// Appends a batch of a transaction; returns the offset of its first record. The leader refuses an
    /// epoch older than the newest that it has seen, and knows a batch again that comes twice.
    pub fn append_open(
        &mut self,
        writer: Writer,
        sequence: i32,
        records: &[Arc<Record>],
    ) -> Result<i64, Code> {
        let offset = self.high_watermark();
        let known = self.known(writer);
        if writer.epoch < known.epoch {
            return Err(Code::InvalidProducerEpoch);
        }
        let again =
            known.batches.iter().find(|(first, _, count)| (*first, *count) == (sequence, records.len()));
        if let Some((_, offset, _)) = again {
            return Ok(*offset);
        }
        if sequence != known.next {
            return Err(Code::OutOfOrderSequence);
        }
        known.next += i32::try_from(records.len()).unwrap_or(i32::MAX);
        if known.batches.len() == BATCHES_KNOWN {
            known.batches.pop_front();
        }
        known.batches.push_back((sequence, offset, records.len()));
        self.open.entry(writer.producer).or_insert(offset);
        self.entries.extend(records.iter().map(|record| Entry::Open(writer.producer, record.clone())));
        Ok(offset)
    }

    /// What is known of a producer. A newer epoch begins anew.
    fn known(&mut self, writer: Writer) -> &mut Known {
        let fresh = || Known { epoch: writer.epoch, next: 0, batches: VecDeque::new() };
        let known = self.known.entry(writer.producer).or_insert_with(fresh);
        if known.epoch < writer.epoch {
            *known = fresh();
        }
        known
    }

    /// Writes the control marker that ends a transaction. The coordinator writes one to each partition
    /// that was added to the transaction, also where nothing was written.
    pub fn end_transaction(&mut self, writer: Writer, commit: bool) {
        self.known(writer);
        if let Some(first) = self.open.remove(&writer.producer) {
            for entry in &mut self.entries[place(first)..] {
                match entry {
                    Entry::Open(producer, record) if *producer == writer.producer => {
                        let record = record.clone();
                        *entry = if commit { Entry::Committed(record) } else { Entry::Aborted(record) };
                    }
                    _ => {}
                }
            }
        }
        self.entries.push(Entry::Marker);
    }

    /// All committed records with their offsets, also those that are deleted.
    pub fn committed(&self) -> Vec<(i64, Arc<Record>)> {
        self.decided(&[])
    }

    /// Hides what lies before `offset` (-1: before the high watermark); returns the log start, which
    /// never moves back by this.
    pub fn delete_records(&mut self, offset: i64) -> Result<i64, Code> {
        let offset = if offset == -1 { self.high_watermark() } else { offset };
        if !(0..=self.high_watermark()).contains(&offset) {
            return Err(Code::OffsetOutOfRange);
        }
        self.log_start = self.log_start.max(offset);
        Ok(self.log_start)
    }

    /// What was deleted from `to` on is there again; returns the log start.
    pub fn move_log_start_back(&mut self, to: i64) -> i64 {
        self.log_start = self.log_start.min(to.max(0));
        self.log_start
    }

    /// The records that a reader sees from `from` on, at most `records_max`, none at or behind `to`.
    /// A position between the last stable offset and the high watermark is within the log: nothing is
    /// seen there yet.
    pub fn read(&self, from: i64, to: i64, records_max: usize, isolation: Isolation) -> Result<Found, Code> {
        if !(self.log_start..=self.high_watermark()).contains(&from) {
            return Err(Code::OffsetOutOfRange);
        }
        let mut found = Found { records: Vec::new(), next: from };
        let end = to.min(self.end(isolation));
        while found.next < end && found.records.len() < records_max {
            match &self.entries[place(found.next)] {
                Entry::Committed(record) => found.records.push((found.next, record.clone())),
                Entry::Open(_, record) | Entry::Aborted(record) if isolation == Isolation::Uncommitted => {
                    found.records.push((found.next, record.clone()));
                }
                Entry::Open(..) | Entry::Aborted(_) | Entry::Marker => {}
            }
            found.next += 1;
        }
        Ok(found)
    }
}

/// The place of an offset, which is not negative.
fn place(offset: i64) -> usize {
    usize::try_from(offset).unwrap_or(0)
}
