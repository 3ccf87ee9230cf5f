//! What `rdkafka`'s admin client cannot ask for: topics' ids, a group's offsets.
//!
//! Safety: options and request objects are owned here and freed when the call has copied them. Each request
//! has a queue of its own, so the event that comes is its result; it is owned here, read and then freed.
//! A reply after the time-out goes to a queue that only librdkafka still knows, which drops it.
#![allow(unsafe_code)]

use std::ffi::c_char;
use std::ptr;
use std::sync::Arc;

use rdkafka::bindings as rd;

use super::client::Client;
use super::error::{Failure, string};
use super::list::{Element, partitions_of};
use super::{c_string, code, timeout};
use crate::worker::port::TopicId;

/// What [`describe_topics`] finds out about one topic: its id and its number of partitions.
pub type TopicFound = Result<(TopicId, i32), Failure>;

/// Sends an admin request and waits for its result, of which `read` makes a copy.
fn request<R>(
    client: &Arc<Client>,
    op: rd::rd_kafka_admin_op_t,
    timeout_ms: u64,
    send: impl FnOnce(*mut rd::rd_kafka_t, *mut rd::rd_kafka_AdminOptions_t, *mut rd::rd_kafka_queue_t),
    read: impl FnOnce(*mut rd::rd_kafka_event_t) -> R,
) -> Result<R, Failure> {
    let queue = client.queue();
    let mut text = [0 as c_char; 256];
    // SAFETY: the options are owned and freed after the request has copied them; the event is owned,
    // read and freed here. A reply after the time-out goes to a queue that is gone and is dropped.
    unsafe {
        let rk = client.ptr();
        let options = rd::rd_kafka_AdminOptions_new(rk, op);
        let ms = timeout(timeout_ms);
        rd::rd_kafka_AdminOptions_set_request_timeout(options, ms, text.as_mut_ptr(), text.len());
        send(rk, options, queue.ptr());
        rd::rd_kafka_AdminOptions_destroy(options);
        let event = rd::rd_kafka_queue_poll(queue.ptr(), timeout(timeout_ms.saturating_add(1_000)));
        if event.is_null() {
            return Err(Failure::of(rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__TIMED_OUT));
        }
        let result = match Failure::check(code::rd_kafka_event_error(event)) {
            Ok(()) => Ok(read(event)),
            Err(failure) => Err(Failure { text: string(rd::rd_kafka_event_error_string(event)), ..failure }),
        };
        rd::rd_kafka_event_destroy(event);
        result
    }
}

/// Looks topics up by name; the answers are in the order of the names.
pub fn describe_topics(
    client: &Arc<Client>,
    names: &[String],
    timeout_ms: u64,
) -> Result<Vec<TopicFound>, Failure> {
    let c_names = names.iter().map(|name| c_string(name)).collect::<Vec<_>>();
    let mut pointers = c_names.iter().map(|name| name.as_ptr()).collect::<Vec<_>>();
    let op = rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
    let found = request(
        client,
        op,
        timeout_ms,
        // SAFETY: the collection is owned, copied by the request and freed.
        |rk, options, queue| unsafe {
            let topics = rd::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
            rd::rd_kafka_DescribeTopics(rk, topics, options, queue);
            rd::rd_kafka_TopicCollection_destroy(topics);
        },
        // SAFETY: the event is the result of this request; all that it lends is copied.
        |event| unsafe {
            let mut count = 0;
            let result = rd::rd_kafka_event_DescribeTopics_result(event);
            let topics = rd::rd_kafka_DescribeTopics_result_topics(result, &mut count);
            (0..count).map(|index| read_topic(*topics.add(index))).collect::<Vec<_>>()
        },
    )?;
    let missing = || Failure::of(rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
    let lookup =
        |name: &String| found.iter().find(|(found, _)| found == name).map(|(_, topic)| topic.clone());
    Ok(names.iter().map(|name| lookup(name).unwrap_or_else(|| Err(missing()))).collect())
}

/// # Safety
/// `topic` is live.
unsafe fn read_topic(topic: *const rd::rd_kafka_TopicDescription_t) -> (String, TopicFound) {
    // SAFETY: as the caller promises; what is lent is copied.
    unsafe {
        let name = string(rd::rd_kafka_TopicDescription_name(topic));
        if let Some(failure) = Failure::decode(rd::rd_kafka_TopicDescription_error(topic)) {
            return (name, Err(failure));
        }
        let mut partitions = 0;
        rd::rd_kafka_TopicDescription_partitions(topic, &mut partitions);
        let uuid = rd::rd_kafka_TopicDescription_topic_id(topic);
        let mut id = [0; 16];
        id[..8].copy_from_slice(&rd::rd_kafka_Uuid_most_significant_bits(uuid).to_be_bytes());
        id[8..].copy_from_slice(&rd::rd_kafka_Uuid_least_significant_bits(uuid).to_be_bytes());
        (name, Ok((id, i32::try_from(partitions).unwrap_or(i32::MAX))))
    }
}

/// All committed offsets of a group with their metadata; empty when it is unknown.
pub fn group_offsets(client: &Arc<Client>, group: &str, timeout_ms: u64) -> Result<Vec<Element>, Failure> {
    let group = c_string(group);
    let op = rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS;
    request(
        client,
        op,
        timeout_ms,
        // SAFETY: the request object is owned, copied by the call and freed; null: all partitions.
        |rk, options, queue| unsafe {
            let mut wanted = rd::rd_kafka_ListConsumerGroupOffsets_new(group.as_ptr(), ptr::null());
            rd::rd_kafka_ListConsumerGroupOffsets(rk, &mut wanted, 1, options, queue);
            rd::rd_kafka_ListConsumerGroupOffsets_destroy(wanted);
        },
        // SAFETY: the event is the result of this request; all that it lends is copied.
        |event| unsafe {
            let mut count = 0;
            let result = rd::rd_kafka_event_ListConsumerGroupOffsets_result(event);
            let groups = rd::rd_kafka_ListConsumerGroupOffsets_result_groups(result, &mut count);
            let Some(group) = (count > 0).then(|| *groups) else { return Ok(Vec::new()) };
            if let Some(failure) = Failure::decode(rd::rd_kafka_group_result_error(group)) {
                return Err(failure);
            }
            let mut found = partitions_of(rd::rd_kafka_group_result_partitions(group));
            found.iter().try_for_each(|element| Failure::check(element.err))?;
            found.retain(|element| element.offset >= 0);
            Ok(found)
        },
    )?
}
