//! Streams of events for benchmarks, by seed, and how they are written to Kafka: `thalweg bench generate`.
//!
//! - [`orders`]: orders of customers, keyed by customer, for keyed windows.
//! - [`nexmark`]: persons, auctions and bids of the Nexmark benchmark.
//! - [`zipf`]: keys that are not equally frequent.
//! - [`send`]: the records one after the other, as fast as they are taken or on a schedule.
//! - [`kafka`]: topics, and a producer that loses and repeats nothing.
//!
//! The same seed and options give the same records in the same order in each partition, byte by byte, on
//! every machine whose C library computes `exp`, `ln` and `pow` to the same last bit (Zipf's keys and
//! Nexmark's prices need them). With a rate the event times are those of the run, and all else is the same.
#![allow(
    clippy::disallowed_methods,
    reason = "this is the outside: a schedule is kept by the clock, and its event times are the clock's"
)]

pub mod kafka;
pub mod nexmark;
pub mod orders;
pub mod send;
mod text;
mod timeline;
pub mod zipf;

pub use timeline::Timeline;

/// A record to write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The place of its topic among those of the stream.
    pub topic: usize,
    /// The partition of it.
    pub partition: i32,
    /// The key; empty: it has none.
    pub key: Vec<u8>,
    /// The value, JSON.
    pub value: Vec<u8>,
    /// The event time, which is the record's timestamp as well.
    pub timestamp_ms: i64,
}

impl Record {
    /// The key, if it has one.
    pub fn key(&self) -> Option<&[u8]> {
        (!self.key.is_empty()).then_some(self.key.as_slice())
    }
}

/// What makes records, one after the other.
pub trait Stream {
    /// Puts the next record in the place of the one before; false at the end.
    fn next(&mut self, record: &mut Record) -> bool;
}

#[cfg(test)]
mod tests {
    use super::{Record, Stream};

    /// The records of a stream, to its end.
    pub fn all(stream: &mut dyn Stream) -> Vec<Record> {
        let mut record = Record::default();
        let mut all = Vec::new();
        while stream.next(&mut record) {
            all.push(record.clone());
        }
        all
    }

    /// A record's value.
    pub fn json(record: &Record) -> serde_json::Value {
        serde_json::from_slice(&record.value).unwrap()
    }

    /// FNV-1a of all that is written.
    pub fn hash(records: &[Record]) -> u64 {
        let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        records.iter().fold(0xcbf2_9ce4_8422_2325, |hash, record| {
            let numbers =
                [record.topic as u64, u64::from(record.partition.unsigned_abs()), record.timestamp_ms as u64];
            let hash =
                numbers.iter().flat_map(|n| n.to_le_bytes()).fold(hash, |hash, byte| step(hash, &byte));
            record.key.iter().chain(&record.value).fold(hash, step)
        })
    }
}
