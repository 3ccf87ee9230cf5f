//! What a client tells, copied from its events.
//!
//! Safety: each accessor is called on the type of event that it is for; what it lends is copied before the
//! event is freed. Messages of a delivery report are not borrowed: their codes may be ones that the
//! bindings have no name for (see `code`).
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::ptr;

use rdkafka::bindings as rd;

use super::code;
use super::error::{Failure, string};
use super::list::partitions_of;
use crate::record::TopicPartition;

/// What a client tells.
#[derive(Debug)]
pub enum Event {
    /// The group gives these partitions; the answer is [`Client::assign`](super::Client::assign).
    Assign(Vec<TopicPartition>),
    /// The group takes all partitions; the answer is [`Client::assign`](super::Client::assign) of `None`.
    Revoke,
    /// Something is wrong.
    Error(Failure),
    /// A line for the log: syslog level, facility, text.
    Log(c_int, String, String),
    /// Statistics, as JSON.
    Statistics(String),
    /// Records were written, or were not.
    Delivered(Vec<Delivery>),
    /// Records arrived where none should.
    Records,
    /// Nothing of interest.
    Other,
}

/// The fate of one record.
#[derive(Debug)]
pub struct Delivery {
    /// [`Outgoing::tag`](super::Outgoing::tag).
    pub tag: usize,
    /// Its offset, or why it has none.
    pub offset: Result<i64, Failure>,
}

/// Copies an event.
///
/// # Safety
/// `event` is live and not null.
pub(super) unsafe fn read_event(event: *mut rd::rd_kafka_event_t) -> Event {
    // SAFETY: each accessor is called on the type of event that it is for; what it lends is copied.
    unsafe {
        match rd::rd_kafka_event_type(event) {
            rd::RD_KAFKA_EVENT_REBALANCE => match code::named(code::rd_kafka_event_error(event)) {
                Some(rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS) => {
                    let list = rd::rd_kafka_event_topic_partition_list(event);
                    Event::Assign(partitions_of(list).into_iter().map(|element| element.partition).collect())
                }
                _ => Event::Revoke,
            },
            rd::RD_KAFKA_EVENT_ERROR => Event::Error(Failure {
                text: string(rd::rd_kafka_event_error_string(event)),
                fatal: rd::rd_kafka_event_error_is_fatal(event) != 0,
                ..Failure::of_code(code::rd_kafka_event_error(event))
            }),
            rd::RD_KAFKA_EVENT_LOG => {
                let (mut facility, mut text, mut level) = (ptr::null(), ptr::null(), 0);
                rd::rd_kafka_event_log(event, &mut facility, &mut text, &mut level);
                Event::Log(level, string(facility), string(text))
            }
            rd::RD_KAFKA_EVENT_STATS => Event::Statistics(string(rd::rd_kafka_event_stats(event))),
            rd::RD_KAFKA_EVENT_DR => {
                let mut deliveries = Vec::with_capacity(rd::rd_kafka_event_message_count(event));
                loop {
                    let message = rd::rd_kafka_event_message_next(event);
                    if message.is_null() {
                        break;
                    }
                    deliveries.push(read_delivery(message));
                }
                Event::Delivered(deliveries)
            }
            rd::RD_KAFKA_EVENT_FETCH => Event::Records,
            _ => Event::Other,
        }
    }
}

/// Copies one message's part of a delivery report.
///
/// # Safety
/// `message` is a live message of a delivery report.
unsafe fn read_delivery(message: *const rd::rd_kafka_message_t) -> Delivery {
    // SAFETY: live, as the caller promises; the topic's handle, if there is one, lives as long.
    unsafe {
        let failed = |failure: Failure| {
            let rkt = (*message).rkt;
            let topic = if rkt.is_null() { String::new() } else { string(rd::rd_kafka_topic_name(rkt)) };
            let text = format!("{topic}[{}]: {}", (*message).partition, failure.text);
            Failure { text, ..failure }
        };
        let delivered = Failure::check(code::code_at(&raw const (*message).err));
        let offset = delivered.map(|()| (*message).offset).map_err(failed);
        Delivery { tag: (*message)._private.addr(), offset }
    }
}
