//! Lists of partitions with their offsets.
//!
//! Safety: a list that librdkafka lends is copied, element by element, before its owner is freed. No
//! element is borrowed: its code may be one that the bindings have no name for (see `code`).
#![allow(unsafe_code)]

use std::ffi::c_int;

use rdkafka::bindings as rd;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use super::code;
use super::error::{Failure, string};
use crate::record::TopicPartition;

/// A list to pass in.
pub(super) fn list(partitions: &[(TopicPartition, i64)]) -> Result<TopicPartitionList, Failure> {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for (partition, offset) in partitions {
        list.add_partition_offset(&partition.topic, partition.partition, Offset::Offset(*offset)).map_err(
            |error| Failure {
                code: RDKafkaErrorCode::InvalidArgument,
                text: format!("offset {offset} of {partition}: {error}"),
                fatal: false,
                retriable: false,
            },
        )?;
    }
    Ok(list)
}

/// Copies the partitions of a list, their offsets and codes.
///
/// # Safety
/// `list` is null or a live list.
pub(super) unsafe fn partitions_of(
    list: *const rd::rd_kafka_topic_partition_list_t,
) -> Vec<(TopicPartition, i64, c_int)> {
    if list.is_null() {
        return Vec::new();
    }
    // SAFETY: `elems` points to `cnt` elements, each with a topic's name.
    unsafe {
        let count = usize::try_from((*list).cnt).unwrap_or(0);
        (0..count)
            .map(|index| {
                let element = (*list).elems.add(index);
                let partition = TopicPartition::new(&string((*element).topic), (*element).partition);
                (partition, (*element).offset, code::code_at(&raw const (*element).err))
            })
            .collect()
    }
}
