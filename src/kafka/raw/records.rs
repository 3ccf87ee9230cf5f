//! Fetched records, read where librdkafka has them.
//!
//! Safety: a message that was taken from a queue belongs to this crate until it is freed: to one
//! [`RawRecords`], or, when it tells an end or an error, to the call that reads and frees it. It needs
//! neither its queue nor its assignment: it counts its partition, its topic and its fetch buffer
//! (`rd_kafka_op_t.rko_rktp`, `rkm_rkmessage.rkt`, `rko_u.fetch.rkbuf`), and its client outlives it.
//! Keys, values and headers are borrowed from the `RawRecords`, which frees them with all its messages
//! and changes none of them.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_int, c_void};
use std::ptr;
use std::sync::Arc;

use rdkafka::bindings as rd;

use super::client::Client;
use super::error::{Failure, string};
use super::queue::Queue;
use super::{code, timeout};
use crate::record::{Records, SourceRecord, TopicPartition};

impl Queue {
    /// Takes up to `records_max` records that have arrived, waiting up to `timeout_ms` for the first.
    /// `known` are partitions whose names need not be made anew.
    pub fn consume(&self, records_max: usize, timeout_ms: u64, known: &[TopicPartition]) -> Arrived {
        let mut messages = Vec::with_capacity(records_max);
        // SAFETY: librdkafka writes up to the capacity and says how many; they are owned from then on
        // and pass, each exactly once, to a `RawRecords` or are freed by `Arrived::add`.
        unsafe {
            let count = rd::rd_kafka_consume_batch_queue(
                self.ptr(),
                timeout(timeout_ms),
                messages.as_mut_ptr(),
                records_max,
            );
            messages.set_len(usize::try_from(count).unwrap_or(0));
        }
        let mut arrived = Arrived::default();
        for message in messages {
            // SAFETY: live, of this queue's client, and given away here, once.
            unsafe { arrived.add(message, known, self.client()) };
        }
        arrived
    }
}

/// What [`Queue::consume`] took.
#[derive(Default)]
pub struct Arrived {
    /// Records, one element per partition.
    pub batches: Vec<RawRecords>,
    /// Partitions whose end was reached (with `enable.partition.eof`), and where: past all markers.
    pub ends: Vec<(TopicPartition, i64)>,
    /// Partitions that cannot be read, from which offset, and why.
    pub failures: Vec<(TopicPartition, i64, Failure)>,
}

impl Arrived {
    /// Takes over a message, whatever it says.
    ///
    /// # Safety
    /// `message` is live, of `client`, and the caller's to give away.
    unsafe fn add(
        &mut self,
        message: *mut rd::rd_kafka_message_t,
        known: &[TopicPartition],
        client: &Arc<Client>,
    ) {
        use rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__PARTITION_EOF;
        // SAFETY: live until it is freed, here and once, or given to a batch.
        unsafe {
            let code = code::code_at(&raw const (*message).err);
            if code == code::NO_ERROR {
                return self.add_record(message, known, client);
            }
            let partition = partition_of(message, known);
            let offset = (*message).offset;
            if code == RD_KAFKA_RESP_ERR__PARTITION_EOF as c_int {
                self.ends.push((partition, offset));
            } else {
                let text = string(rd::rd_kafka_message_errstr(message));
                self.failures.push((partition, offset, Failure { text, ..Failure::of_code(code) }));
            }
            rd::rd_kafka_message_destroy(message);
        }
    }

    /// # Safety
    /// As [`add`](Self::add), and the message is a record.
    unsafe fn add_record(
        &mut self,
        message: *mut rd::rd_kafka_message_t,
        known: &[TopicPartition],
        client: &Arc<Client>,
    ) {
        // SAFETY: live, as the caller promises; its code is "no error", so it may be borrowed.
        let m = unsafe { &*message };
        // Records of a partition come in long runs: look from the end. A topic's handle stays the same
        // as long as a message counts it, so it tells topics apart.
        let found = self
            .batches
            .iter()
            .rposition(|batch| batch.rkt == m.rkt && batch.partition.partition == m.partition);
        let place = found.unwrap_or(self.batches.len());
        if found.is_none() {
            self.batches.push(RawRecords {
                messages: Vec::new(),
                rkt: m.rkt,
                // SAFETY: as above.
                partition: unsafe { partition_of(message, known) },
                bytes: 0,
                _client: client.clone(),
            });
        }
        let batch = &mut self.batches[place];
        batch.bytes += m.key_len + m.len;
        batch.messages.push(message);
    }
}

/// # Safety
/// `message` is live.
unsafe fn partition_of(message: *const rd::rd_kafka_message_t, known: &[TopicPartition]) -> TopicPartition {
    // SAFETY: live, as the caller promises. Its topic's handle, or null for an error of no topic, lives as
    // long, and the name as long as the handle.
    let (topic, partition) = unsafe {
        let rkt = (*message).rkt;
        let topic = if rkt.is_null() { c"" } else { CStr::from_ptr(rd::rd_kafka_topic_name(rkt)) };
        (topic, (*message).partition)
    };
    let found = known.iter().find(|p| p.partition == partition && p.topic.as_bytes() == topic.to_bytes());
    found.cloned().unwrap_or_else(|| TopicPartition::new(&topic.to_string_lossy(), partition))
}

/// Records of one partition as librdkafka's own messages; nothing is copied.
pub struct RawRecords {
    /// Messages without an error. librdkafka gets these pointers, not borrowed messages: what it reads of
    /// a message, its timestamp and headers, lies behind the part that the bindings know.
    messages: Vec<*mut rd::rd_kafka_message_t>,
    rkt: *mut rd::rd_kafka_topic_t,
    partition: TopicPartition,
    bytes: usize,
    _client: Arc<Client>,
}

// SAFETY: the messages are owned by this value alone, and librdkafka lets any thread read and free
// them. (Not `Sync`: reading headers parses them into the message.)
unsafe impl Send for RawRecords {}

impl Drop for RawRecords {
    fn drop(&mut self) {
        for message in &self.messages {
            // SAFETY: owned, freed once, before the client (`_client` is dropped after this).
            unsafe { rd::rd_kafka_message_destroy(*message) }
        }
    }
}

impl RawRecords {
    fn message(&self, index: usize) -> &rd::rd_kafka_message_t {
        // SAFETY: live as long as `self`, and nothing writes to this part of a message.
        unsafe { &*self.messages[index] }
    }

    /// The offset after the last record.
    pub fn next_offset(&self) -> i64 {
        self.messages.len().checked_sub(1).map_or(0, |last| self.message(last).offset + 1)
    }
}

/// The bytes at `data`, or `None` for null.
///
/// # Safety
/// `data` is null or points to `len` bytes that live as long as `'b`.
unsafe fn bytes<'b>(data: *const c_void, len: usize) -> Option<&'b [u8]> {
    // SAFETY: as the caller promises.
    (!data.is_null()).then(|| unsafe { std::slice::from_raw_parts(data.cast::<u8>(), len) })
}

impl Records for RawRecords {
    fn topic_partition(&self) -> &TopicPartition {
        &self.partition
    }

    fn len(&self) -> usize {
        self.messages.len()
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn record(&self, index: usize) -> SourceRecord<'_> {
        let m = self.message(index);
        // SAFETY: a live message, whose bytes live as long as it does.
        unsafe {
            SourceRecord {
                offset: m.offset,
                timestamp_ms: rd::rd_kafka_message_timestamp(self.messages[index], ptr::null_mut()),
                key: bytes(m.key, m.key_len),
                value: bytes(m.payload, m.len),
                records: self,
                index,
            }
        }
    }

    fn headers<'b>(&'b self, index: usize, visit: &mut dyn FnMut(&'b str, Option<&'b [u8]>)) {
        let mut headers = ptr::null_mut();
        // SAFETY: the headers, their names and values belong to the message and live as long as it.
        // They are parsed at the first call, by one thread at a time (not `Sync`).
        unsafe {
            if Failure::check(code::rd_kafka_message_headers(self.messages[index], &mut headers)).is_err() {
                return; // There are none.
            }
            for place in 0.. {
                let (mut name, mut value, mut len) = (ptr::null(), ptr::null(), 0);
                let found = code::rd_kafka_header_get_all(headers, place, &mut name, &mut value, &mut len);
                if Failure::check(found).is_err() {
                    return; // That was the last one.
                }
                // Kafka's header names are UTF-8; one that is not gets the replacement character.
                visit(CStr::from_ptr(name).to_str().unwrap_or("\u{fffd}"), bytes(value, len));
            }
        }
    }
}
