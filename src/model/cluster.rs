//! The cluster: topics, coordinators, consumers, and the virtual time that they share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::model::consumer::Consumer;
use crate::model::error::Code;
use crate::model::group::Group;
use crate::model::partition::{Isolation, Partition, Record};
use crate::model::transactions::Transactions;
use crate::record::{TopicId, TopicPartition};
use crate::worker::port::{TopicDescription, TopicSpec};

/// How many brokers the cluster has; a topic cannot have more replicas.
const BROKERS: i32 = 1;
/// What a topic is set to if its creator does not say otherwise.
const TOPIC_DEFAULTS: [(&str, &str); 5] = [
    ("cleanup.policy", "delete"),
    ("max.message.bytes", "1048588"),
    ("retention.bytes", "-1"),
    ("retention.ms", "604800000"),
    ("segment.bytes", "1073741824"),
];

/// Who a client is.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// The consumer group.
    pub group: String,
    /// The static member's name in it; `None` is a dynamic member.
    pub instance_id: Option<String>,
    /// How long a member may be silent before its partitions go to others.
    pub session_timeout_ms: u64,
    /// How long a consumer's user may not call it, and how long a rebalance waits for a member.
    pub max_poll_interval_ms: u64,
    /// The producer's identity.
    pub transactional_id: String,
    /// How long a transaction may stay open.
    pub transaction_timeout_ms: u64,
}

/// A topic.
pub(super) struct Topic {
    pub id: TopicId,
    pub config: BTreeMap<String, String>,
    pub partitions: Vec<Partition>,
}

impl Topic {
    /// The largest batch that it takes.
    pub fn batch_bytes_max(&self) -> usize {
        self.config.get("max.message.bytes").and_then(|bytes| bytes.parse().ok()).unwrap_or(usize::MAX)
    }
}

/// All that the cluster holds.
#[derive(Default)]
pub(super) struct State {
    pub now_ms: u64,
    pub topics: BTreeMap<String, Topic>,
    pub transactions: Transactions,
    pub groups: BTreeMap<String, Group>,
    pub consumers: BTreeMap<u64, Consumer>,
    /// Numbers handed out so far, to topics, consumers and members.
    pub numbers: u64,
}

impl State {
    /// Looks a partition up.
    pub fn partition(&mut self, partition: &TopicPartition) -> Result<&mut Partition, Code> {
        let topic = self.topics.get_mut(&*partition.topic).ok_or(Code::UnknownTopicOrPartition)?;
        let index = usize::try_from(partition.partition).map_err(|_| Code::UnknownTopicOrPartition)?;
        topic.partitions.get_mut(index).ok_or(Code::UnknownTopicOrPartition)
    }

    /// A group; made when it is first asked for.
    pub fn group(&mut self, name: &str) -> &mut Group {
        let now_ms = self.now_ms;
        self.groups.entry(name.to_owned()).or_insert_with(|| Group::new(now_ms))
    }

    /// Takes a consumer in, which joins by itself.
    pub fn add_consumer(&mut self, settings: &ClientSettings, topics: &[String]) -> u64 {
        self.numbers += 1;
        let id = self.numbers;
        self.consumers.insert(id, Consumer::new(settings.clone(), topics.to_vec(), self.now_ms));
        self.settle();
        id
    }

    /// Creates a topic; one that exists stays as it is.
    pub fn create(&mut self, spec: &TopicSpec) -> Result<(), Code> {
        if self.topics.contains_key(&spec.name) {
            return Ok(());
        }
        if spec.partitions < 1 {
            return Err(Code::InvalidPartitions);
        }
        if !(1..=BROKERS).contains(&spec.replication) {
            return Err(Code::InvalidReplicationFactor);
        }
        let set = spec.config.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let config = TOPIC_DEFAULTS.into_iter().chain(set).map(|(name, value)| (name.into(), value.into()));
        self.numbers += 1;
        let mut id = [0; 16];
        id[8..].copy_from_slice(&self.numbers.to_be_bytes());
        let partitions = (0..spec.partitions).map(|_| Partition::default()).collect();
        let topic = Topic { id, config: config.collect(), partitions };
        self.topics.insert(spec.name.clone(), topic);
        Ok(())
    }

    /// Deletes a topic, and the groups' offsets on it.
    pub fn delete(&mut self, topic: &str) {
        self.topics.remove(topic);
        self.groups.values_mut().for_each(|group| group.forget_topic(topic));
    }

    /// Describes a topic.
    pub fn describe(&self, topic: &str) -> Option<TopicDescription> {
        let topic = self.topics.get(topic)?;
        let partitions = topic.partitions.len() as i32;
        Some(TopicDescription { id: topic.id, partitions, config: topic.config.clone() })
    }

    /// Lets everything happen that needs no time.
    pub fn settle(&mut self) {
        loop {
            for ended in self.transactions.tick(self.now_ms) {
                for partition in &ended.partitions {
                    // One that was deleted in the meantime gets no marker.
                    if let Ok(partition) = self.partition(partition) {
                        partition.end_transaction(ended.writer, ended.commit);
                    }
                }
                for group in &ended.groups {
                    self.group(group).end_transaction(ended.writer.producer, ended.commit);
                }
            }
            if !self.step_consumers() {
                return;
            }
        }
    }

    fn step_consumers(&mut self) -> bool {
        let State { consumers, groups, topics, numbers, now_ms, .. } = self;
        let count = |topic: &str| topics.get(topic).map_or(0, |topic| topic.partitions.len() as i32);
        let mut moved = false;
        for consumer in consumers.values_mut() {
            let name = consumer.settings.group.clone();
            let group = groups.entry(name).or_insert_with(|| Group::new(*now_ms));
            moved |= consumer.step(group, numbers, &count, *now_ms);
        }
        moved
    }

    /// When something happens by itself next.
    fn next_ms(&self) -> Option<u64> {
        let groups = self.groups.values().filter_map(Group::next_ms);
        let consumers = self.consumers.values().filter_map(Consumer::next_ms);
        groups.chain(consumers).chain(self.transactions.next_ms()).min()
    }

    /// Moves virtual time to the next thing that happens by itself, at most to `limit_ms`.
    pub fn advance_once(&mut self, limit_ms: u64) {
        self.settle();
        let next_ms = self.next_ms().unwrap_or(limit_ms).min(limit_ms);
        self.now_ms = next_ms.max(self.now_ms);
        let State { consumers, groups, now_ms, .. } = self;
        for consumer in consumers.values_mut() {
            if let Some(group) = groups.get_mut(&consumer.settings.group) {
                consumer.tick(group, *now_ms);
            }
        }
        groups.values_mut().for_each(|group| group.tick(*now_ms));
        self.settle();
    }

    /// Asks again, moving virtual time in between, until there is an answer other than "try again" or
    /// `limit_ms` from now is reached.
    pub fn wait<T>(
        &mut self,
        limit_ms: u64,
        mut ask: impl FnMut(&mut State) -> Result<T, Code>,
    ) -> Result<T, Code> {
        let end_ms = self.now_ms.saturating_add(limit_ms);
        loop {
            self.settle();
            match ask(self) {
                Err(Code::ConcurrentTransactions | Code::UnstableOffsetCommit) if self.now_ms < end_ms => {
                    self.advance_once(end_ms);
                }
                answer => return answer,
            }
        }
    }
}

/// A cluster. Clones share it.
#[derive(Clone, Default)]
pub struct Cluster {
    state: Arc<Mutex<State>>,
}

impl Cluster {
    /// An empty cluster at time 0.
    pub fn new() -> Cluster {
        Cluster::default()
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way; a test that panics elsewhere may still look.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The virtual time in milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.state().now_ms
    }

    /// Lets `ms` of virtual time pass: heartbeats are sent, sessions and transactions time out.
    pub fn advance(&self, ms: u64) {
        let mut state = self.state();
        let end_ms = state.now_ms.saturating_add(ms);
        while state.now_ms < end_ms {
            state.advance_once(end_ms);
        }
    }

    /// How long the markers of a transaction take after its end was decided and answered; 0 at first.
    /// Holds for transactions that end from now on.
    pub fn set_marker_delay_ms(&self, ms: u64) {
        self.state().transactions.marker_delay_ms = ms;
    }

    /// Appends a record without a transaction, as somebody else's producer would; returns its offset.
    /// `None` if there is no such partition.
    pub fn append(
        &self,
        partition: &TopicPartition,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Option<i64> {
        let mut state = self.state();
        let timestamp_ms = i64::try_from(state.now_ms).unwrap_or(i64::MAX);
        let (key, value) = (key.map(<[u8]>::to_vec), value.map(<[u8]>::to_vec));
        let record = Record { key, value, headers: Vec::new(), timestamp_ms };
        state.partition(partition).ok().map(|partition| partition.append(record))
    }

    /// What a reader of this kind sees of a partition, from its log start on: offsets and values.
    /// Empty if there is no such partition.
    pub fn seen(&self, partition: &TopicPartition, committed: bool) -> Vec<(i64, Option<Vec<u8>>)> {
        let isolation = if committed { Isolation::Committed } else { Isolation::Uncommitted };
        let mut state = self.state();
        let Ok(partition) = state.partition(partition) else { return Vec::new() };
        let found = partition.read(partition.log_start(), i64::MAX, usize::MAX, isolation);
        let records = found.map(|found| found.records).unwrap_or_default();
        records.into_iter().map(|(offset, record)| (offset, record.value.clone())).collect()
    }
}
