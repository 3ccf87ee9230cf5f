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
