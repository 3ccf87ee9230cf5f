//! Transactions, with all that their errors say.
//!
//! Safety: plain calls on a live handle; each error object is owned and freed by `check_owned`.
#![allow(unsafe_code)]

use rdkafka::bindings as rd;

use super::client::Client;
use super::error::Failure;
use super::group::Membership;
use super::list::list;
use super::timeout;
use crate::worker::port::SourceOffset;

impl Client {
    /// Fences the producers before this one; see `rd_kafka_init_transactions`.
    pub fn init_transactions(&self, timeout_ms: u64) -> Result<(), Failure> {
        // SAFETY: a live client; the error is owned by `check_owned`.
        unsafe { Failure::check_owned(rd::rd_kafka_init_transactions(self.ptr(), timeout(timeout_ms))) }
    }

    /// Begins a transaction.
    pub fn begin(&self) -> Result<(), Failure> {
        // SAFETY: as above.
        unsafe { Failure::check_owned(rd::rd_kafka_begin_transaction(self.ptr())) }
    }

    /// Adds the offsets to the transaction, as the member that `membership` was taken from. Those of finished
    /// partitions get `mark` for their metadata.
    pub fn send_offsets(
        &self,
        offsets: &[SourceOffset],
        mark: &str,
        membership: &Membership,
        timeout_ms: u64,
    ) -> Result<(), Failure> {
        let list = list(offsets.iter().map(|offset| (&offset.partition, offset.next_offset)))?;
        for SourceOffset { partition, .. } in offsets.iter().filter(|offset| offset.finished) {
            if let Some(mut element) = list.find_partition(&partition.topic, partition.partition) {
                element.set_metadata(mark);
            }
        }
        // SAFETY: live handles, copied by the call.
        unsafe {
            Failure::check_owned(rd::rd_kafka_send_offsets_to_transaction(
                self.ptr(),
                list.ptr(),
                membership.ptr(),
                timeout(timeout_ms),
            ))
        }
    }

    /// Commits. All deliveries must have been taken from the events before, or it waits for them.
    pub fn commit(&self, timeout_ms: u64) -> Result<(), Failure> {
        // SAFETY: a live client; the error is owned by `check_owned`.
        unsafe { Failure::check_owned(rd::rd_kafka_commit_transaction(self.ptr(), timeout(timeout_ms))) }
    }
}
