//! Transactions, with all that their errors say.
//!
//! Safety: plain calls on a live handle; each error object is owned and freed by `check_owned`.
#![allow(unsafe_code)]

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use rdkafka::bindings as rd;

use super::client::Client;
use super::error::Failure;
use super::group::Membership;
use super::list::list;
use super::timeout;
use crate::worker::port::SourceOffset;

/// How long after its time limit librdkafka may still answer by itself.
const ANSWER_WAIT: Duration = Duration::from_millis(500);

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

    /// Adds the offsets to the transaction, as the member that `membership` was taken from. Each gets what
    /// there is of `metadata` for it.
    ///
    /// While librdkafka looks for the group's coordinator it keeps no time limit (its issue 5456), and if that
    /// broker is gone from the cluster's metadata it looks no more until some other connection changes (5511). So
    /// it is called on a thread of its own, and one that is not back in time is left behind. It frees its share of
    /// this client and of the membership when it comes back, which is at the latest when the brokers close
    /// connections that nobody uses; until then nothing more can be done with this client's transaction.
    pub fn send_offsets(
        self: &Arc<Self>,
        offsets: &[SourceOffset],
        metadata: impl Fn(&SourceOffset) -> Option<String>,
        membership: &Arc<Membership>,
        timeout_ms: u64,
    ) -> Result<(), Failure> {
        let list = list(offsets.iter().map(|offset| (&offset.partition, offset.next_offset)))?;
        for (offset, mut element) in offsets.iter().zip(list.elements()) {
            if let Some(metadata) = metadata(offset) {
                element.set_metadata(metadata);
            }
        }
        let (client, membership) = (self.clone(), membership.clone());
        let (answer, answered) = mpsc::sync_channel(1);
        let spawned = thread::Builder::new().name("send offsets".into()).spawn(move || {
            // SAFETY: handles that this closure owns or shares, copied by the call.
            let result = unsafe {
                Failure::check_owned(rd::rd_kafka_send_offsets_to_transaction(
                    client.ptr(),
                    list.ptr(),
                    membership.ptr(),
                    timeout(timeout_ms),
                ))
            };
            // Before the answer: who has it may be about to end this client and to make another.
            drop((client, list, membership));
            // Nobody may be waiting any more.
            let _left_behind = answer.send(result);
        });
        let timed_out = |text: String| Failure {
            text,
            ..Failure::of(rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__TIMED_OUT)
        };
        if let Err(error) = spawned {
            return Err(timed_out(format!("no thread to send them on: {error}")));
        }
        let limit = Duration::from_millis(timeout_ms) + ANSWER_WAIT;
        answered.recv_timeout(limit).unwrap_or_else(|_| {
            Err(timed_out(format!("librdkafka did not come back in {} ms", limit.as_millis())))
        })
    }

    /// Commits. All deliveries must have been taken from the events before, or it waits for them.
    pub fn commit(&self, timeout_ms: u64) -> Result<(), Failure> {
        // SAFETY: a live client; the error is owned by `check_owned`.
        unsafe { Failure::check_owned(rd::rd_kafka_commit_transaction(self.ptr(), timeout(timeout_ms))) }
    }
}
