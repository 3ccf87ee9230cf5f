//! What whoever plays the world around the clients may do and see, without being a client.

use std::sync::Arc;

use crate::model::cluster::{Cluster, ConsumerId};
use crate::model::partition::{Partition, Record};
use crate::record::TopicPartition;

impl Cluster {
    /// Appends a record without a transaction, as somebody else's producer would; returns its offset.
    /// `None` if there is no such partition.
    pub fn append_record(&self, partition: &TopicPartition, record: Record) -> Option<i64> {
        self.state().partition(partition).ok().map(|partition| partition.append(record))
    }

    /// All records of a partition that are committed, also those before the log start and those whose
    /// markers are still to come: an end that was asked for and written down cannot be taken back. Empty if
    /// there is no such partition.
    pub fn decided(&self, partition: &TopicPartition) -> Vec<(i64, Arc<Record>)> {
        let mut state = self.state();
        let deciders = state.transactions.deciders();
        state.partition(partition).map(|found| found.decided(&deciders)).unwrap_or_default()
    }

    /// Whether a consumer owns a partition, as its group sees it now.
    pub fn owns(&self, consumer: ConsumerId, partition: &TopicPartition) -> bool {
        let state = self.state();
        let Some(consumer) = state.consumers.get(&consumer.0) else { return false };
        let (Some(who), Some(group)) = (consumer.identity(), state.groups.get(&consumer.settings.group))
        else {
            return false;
        };
        group.owns(&who.member, partition)
    }

    /// Whether a transaction is committed whose markers are still to come: neither its records nor its
    /// offsets can be seen yet by those who read what is committed.
    pub fn has_markers_to_write(&self) -> bool {
        !self.state().transactions.deciders().is_empty()
    }

    fn end_of(&self, partition: &TopicPartition, end: impl Fn(&Partition) -> i64) -> i64 {
        self.state().partition(partition).map_or(0, |partition| end(partition))
    }

    /// The oldest offset of a partition; 0 if there is no such partition.
    pub fn log_start(&self, partition: &TopicPartition) -> i64 {
        self.end_of(partition, Partition::log_start)
    }

    /// The offset behind the last entry of a partition; 0 if there is no such partition.
    pub fn high_watermark(&self, partition: &TopicPartition) -> i64 {
        self.end_of(partition, Partition::high_watermark)
    }

    /// The offset of the last committed record of a partition; `None` if it has none.
    pub fn last_offset(&self, partition: &TopicPartition) -> Option<i64> {
        self.state().partition(partition).ok().and_then(|partition| partition.last_committed())
    }

    /// How many partitions a topic has; 0 if there is no such topic.
    pub fn partition_count(&self, topic: &str) -> i32 {
        self.state().topics.get(topic).map_or(0, |topic| topic.partitions.len() as i32)
    }
}
