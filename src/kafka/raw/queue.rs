//! Queues of events and of fetched records, and the one call from librdkafka into this crate.
//!
//! Safety: a [`Queue`] owns its handle, which is never null and is freed once, before the client. What it
//! stands for is counted by librdkafka: partitions may still be forwarded into a queue that is gone
//! here, and what is sent to it then is freed by librdkafka. The wake-up is called and exchanged under one
//! and the same lock; see [`Queue::set_wake`].
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;

use rdkafka::bindings as rd;

use super::client::Client;
use super::error::Failure;
use super::event::{Event, read_event};
use super::{c_string, timeout};
use crate::record::TopicPartition;

impl Client {
    /// The queue of all events. For a member of a group this is the consumer's queue, into which the
    /// client's own is forwarded.
    pub fn events(self: &Arc<Self>) -> Queue {
        // SAFETY: the returned handles are owned references; `get_consumer` is null without a group.
        let ptr = unsafe {
            let consumer = rd::rd_kafka_queue_get_consumer(self.ptr());
            if consumer.is_null() {
                rd::rd_kafka_queue_get_main(self.ptr())
            } else {
                rd::rd_kafka_poll_set_consumer(self.ptr());
                consumer
            }
        };
        Queue { ptr, wake: None, client: self.clone() }
    }

    /// A new, empty queue.
    pub fn queue(self: &Arc<Self>) -> Queue {
        // SAFETY: an owned handle, never null.
        Queue { ptr: unsafe { rd::rd_kafka_queue_new(self.ptr()) }, wake: None, client: self.clone() }
    }

    /// Sends what is fetched of `partition` from now on into `queue`.
    pub fn forward(self: &Arc<Self>, partition: &TopicPartition, queue: &Queue) -> Result<(), Failure> {
        let target = queue.of(self);
        let topic = c_string(&partition.topic);
        // SAFETY: the source handle is owned and freed here; librdkafka keeps its own reference to the
        // target, so that dropping `queue` later is no matter.
        unsafe {
            let source = rd::rd_kafka_queue_get_partition(self.ptr(), topic.as_ptr(), partition.partition);
            if source.is_null() {
                return Err(Failure::of(rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION));
            }
            rd::rd_kafka_queue_forward(source, target);
            rd::rd_kafka_queue_destroy(source);
        }
        Ok(())
    }
}

/// What is called when a queue that was empty no longer is.
pub type Wake = Box<dyn Fn() + Send + Sync>;

/// A queue of events or of fetched records.
pub struct Queue {
    ptr: *mut rd::rd_kafka_queue_t,
    wake: Option<Arc<Wake>>,
    client: Arc<Client>,
}

// SAFETY: point 1 of the room's argument; a `Wake` is `Send` and `Sync`.
unsafe impl Send for Queue {}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: the handle is owned and freed once, before the client (point 2).
        unsafe {
            if self.wake.is_some() {
                rd::rd_kafka_queue_cb_event_enable(self.ptr, None, ptr::null_mut());
            }
            rd::rd_kafka_queue_destroy(self.ptr);
        }
    }
}

impl Queue {
    /// Has `wake` called by one of librdkafka's threads whenever the queue stops being empty. It must
    /// not call into Kafka and must return at once; a panic in it ends the process.
    pub fn set_wake(&mut self, wake: Arc<Wake>) {
        unsafe extern "C" fn call(_: *mut rd::rd_kafka_t, wake: *mut c_void) {
            // SAFETY: points to the `Wake` that the queue's `Arc` keeps alive, see below.
            unsafe { (*wake.cast_const().cast::<Wake>())() }
        }
        let opaque = Arc::as_ptr(&wake).cast_mut().cast::<c_void>();
        // SAFETY: librdkafka calls it under the queue's lock and replaces or removes it under the same
        // lock (`rd_kafka_q_cb_event_enable`, `rd_kafka_q_io_event`), so after this call the former one
        // is called no more, and after the removal in `drop` this one is not: the `Arc` outlives it.
        unsafe { rd::rd_kafka_queue_cb_event_enable(self.ptr, Some(call), opaque) };
        self.wake = Some(wake);
    }

    /// The next event, waiting up to `timeout_ms` for one.
    pub fn poll(&self, timeout_ms: u64) -> Option<Event> {
        // SAFETY: the event is owned, read and then freed here.
        unsafe {
            let event = rd::rd_kafka_queue_poll(self.ptr, timeout(timeout_ms));
            if event.is_null() {
                return None;
            }
            let read = read_event(event);
            rd::rd_kafka_event_destroy(event);
            Some(read)
        }
    }

    pub(super) fn ptr(&self) -> *mut rd::rd_kafka_queue_t {
        self.ptr
    }

    /// The handle for something that `client` is to put into the queue. What a queue holds has to go before
    /// its client, so another client's must not come into it.
    pub(super) fn of(&self, client: &Arc<Client>) -> *mut rd::rd_kafka_queue_t {
        assert!(Arc::ptr_eq(client, &self.client), "what a queue holds belongs to its client");
        self.ptr
    }

    pub(super) fn client(&self) -> &Arc<Client> {
        &self.client
    }
}
