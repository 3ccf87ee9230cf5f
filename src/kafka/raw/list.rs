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

/// A partition of a list that librdkafka lent.
pub struct Element {
    pub partition: TopicPartition,
    pub offset: i64,
    pub err: c_int,
    /// What was committed with the offset; empty where there is none.
    pub metadata: Vec<u8>,
}

/// A list to pass in.
pub(super) fn list<'p>(
    partitions: impl ExactSizeIterator<Item = (&'p TopicPartition, i64)>,
) -> Result<TopicPartitionList, Failure> {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for (partition, offset) in partitions {
        list.add_partition_offset(&partition.topic, partition.partition, Offset::Offset(offset)).map_err(
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

/// Copies the elements of a list.
///
/// # Safety
/// `list` is null or a live list.
pub(super) unsafe fn partitions_of(list: *const rd::rd_kafka_topic_partition_list_t) -> Vec<Element> {
    if list.is_null() {
        return Vec::new();
    }
    // SAFETY: `elems` points to `cnt` elements, each with a topic's name and its metadata, if any.
    unsafe {
        let count = usize::try_from((*list).cnt).unwrap_or(0);
        (0..count)
            .map(|index| {
                let element = (*list).elems.add(index);
                let partition = TopicPartition::new(&string((*element).topic), (*element).partition);
                let metadata = match (*element).metadata_size {
                    0 => Vec::new(),
                    size => std::slice::from_raw_parts((*element).metadata.cast(), size).to_vec(),
                };
                let err = code::code_at(&raw const (*element).err);
                Element { partition, offset: (*element).offset, err, metadata }
            })
            .collect()
    }
}
