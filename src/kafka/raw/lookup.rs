//! Looking up a group's committed offsets and the ends of a partition, each under the client's own
//! isolation level.
//!
//! Safety: plain calls on a live handle that fill what the caller owns, or nothing when time is up:
//! a reply that comes later does not reach it (librdkafka gives it to a copy, or drops it with the
//! call's reply queue).
#![allow(unsafe_code)]

use super::client::Client;
use super::error::Failure;
use super::list::{list, partitions_of};
use super::{c_string, code, timeout};
use crate::record::TopicPartition;

impl Client {
    /// The group's committed offsets: for each partition its offset (below 0: none) or its error.
    pub fn committed(
        &self,
        partitions: &[TopicPartition],
        timeout_ms: u64,
    ) -> Result<Vec<Result<i64, Failure>>, Failure> {
        let list = list(partitions.iter().map(|partition| (partition, 0)))?;
        // SAFETY: a live list, filled in place and read before it is freed.
        unsafe {
            Failure::check(code::rd_kafka_committed(self.ptr(), list.ptr(), timeout(timeout_ms)))?;
            let found = partitions_of(list.ptr());
            Ok(found.into_iter().map(|found| Failure::check(found.err).map(|()| found.offset)).collect())
        }
    }

    /// Asks the leader for the first and the end offset of a partition; with `read_committed` the end
    /// is the last stable offset.
    pub fn watermarks(&self, partition: &TopicPartition, timeout_ms: u64) -> Result<(i64, i64), Failure> {
        let topic = c_string(&partition.topic);
        let (mut low, mut high) = (-1, -1);
        // SAFETY: plain out parameters.
        Failure::check(unsafe {
            code::rd_kafka_query_watermark_offsets(
                self.ptr(),
                topic.as_ptr(),
                partition.partition,
                &mut low,
                &mut high,
                timeout(timeout_ms),
            )
        })?;
        Ok((low, high))
    }
}
