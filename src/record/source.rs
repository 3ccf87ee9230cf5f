//! Records as the log hands them over.

use std::fmt;

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: std::sync::Arc<str>,
    /// The partition's number, from 0.
    pub partition: i32,
}

impl TopicPartition {
    /// The partition numbered `partition` of `topic`.
    pub fn new(topic: &str, partition: i32) -> Self {
        TopicPartition { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.topic, self.partition)
    }
}

/// The identity of a topic: a topic that was deleted and created again has another one.
pub type TopicId = [u8; 16];

/// Records of one topic partition in offset order, as the log handed them over. They own their bytes
/// until dropped.
pub trait Records: Send {
    /// The partition that all of them belong to.
    fn topic_partition(&self) -> &TopicPartition;
    /// How many there are.
    fn len(&self) -> usize;
    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Their keys and values, in bytes.
    fn bytes(&self) -> usize;
    /// The record at `index`, which must be below [`len`](Records::len).
    fn record(&self, index: usize) -> SourceRecord<'_>;
    /// Calls `visit` with each header of the record at `index`, in order.
    fn headers<'b>(&'b self, index: usize, visit: &mut dyn FnMut(&'b str, Option<&'b [u8]>));
    /// Whether their values are known. Records that come with rows through a change of keys may be without them.
    fn has_values(&self) -> bool {
        true
    }
}

/// One record of a source.
#[derive(Clone, Copy)]
pub struct SourceRecord<'b> {
    /// Its offset in its partition.
    pub offset: i64,
    /// Its Kafka timestamp in milliseconds since the Unix epoch; -1 if the record has none.
    pub timestamp_ms: i64,
    /// Its key.
    pub key: Option<&'b [u8]>,
    /// Its value; `None` is a tombstone.
    pub value: Option<&'b [u8]>,
    /// The batch that it stands in: its partition and its headers.
    pub records: &'b dyn Records,
    /// Its place in that batch.
    pub index: usize,
}
