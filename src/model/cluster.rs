//! The cluster: topics, coordinators, consumers, and the virtual time that they share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::model::consumer::Consumer;
use crate::model::error::Code;
use crate::model::faults::{Operation, Resource, Service};
use crate::model::group::{Group, anonymous};
use crate::model::partition::{Isolation, Partition, Record};
use crate::model::producer::Membership;
use crate::model::request::Request;
use crate::model::transactions::{Marker, Target, Transactions};
use crate::record::{TopicId, TopicPartition};
use crate::worker::port::{TopicDescription, TopicSpec};

/// How often consumers look at their topics (`topic.metadata.refresh.interval.ms`).
const METADATA_REFRESH_MS: u64 = 300_000;
/// How often consumers are polled where nobody tells them to be.
const POLLED_MS: u64 = 10_000;
/// What a topic is set to if its creator does not say otherwise.
const TOPIC_DEFAULTS: [(&str, &str); 5] = [
    ("cleanup.policy", "delete"),
    ("max.message.bytes", "1048588"),
    ("retention.bytes", "-1"),
    ("retention.ms", "604800000"),
    ("segment.bytes", "1073741824"),
];

/// A consumer, for what is done to it from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConsumerId(pub(super) u64);

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
    /// How many brokers there are; a topic cannot have more replicas.
    pub brokers: i32,
    pub topics: BTreeMap<String, Topic>,
    pub transactions: Transactions,
    pub groups: BTreeMap<String, Group>,
    pub consumers: BTreeMap<u64, Consumer>,
    /// Requests that the network holds back, by the time at which they arrive and their number.
    pub late: BTreeMap<(u64, u64), Request>,
    /// Services that are away, and until when.
    pub away: BTreeMap<Service, u64>,
    /// Rights that nobody has.
    pub denied: BTreeSet<(Resource, Operation)>,
    /// How often consumers look at their topics, if it was set.
    pub metadata_refresh_ms: Option<u64>,
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
        // -1 is the brokers' default, which is 1.
        if spec.replication != -1 && !(1..=self.brokers).contains(&spec.replication) {
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
            let late = self.late.first_key_value().is_some_and(|((due_ms, _), _)| *due_ms <= self.now_ms);
            if late && let Some((_, request)) = self.late.pop_first() {
                // Nobody waits for the answer.
                let _ = self.answer(&request);
            }
            let due = self.transactions.next_ms().is_some_and(|next_ms| next_ms <= self.now_ms);
            if due && self.away_until(&Service::Transactions).is_none() {
                self.write_markers();
            }
            if !self.step_consumers() && !late {
                return;
            }
        }
    }

    fn write_markers(&mut self) {
        let (now_ms, away) = (self.now_ms, &self.away);
        let held = |partition: &TopicPartition| {
            let until_ms = away.get(&Service::Leader(partition.clone())).copied();
            until_ms.filter(|until_ms| *until_ms > now_ms)
        };
        let markers = self.transactions.tick(now_ms, &|one| if away.is_empty() { None } else { held(one) });
        for Marker { writer, commit, target } in markers {
            match target {
                // One that was deleted in the meantime gets no marker.
                Target::Partition(partition) => {
                    if let Ok(partition) = self.partition(&partition) {
                        partition.end_transaction(writer, commit);
                    }
                }
                Target::Group(group) => self.group(&group).end_transaction(writer, commit),
            }
        }
    }

    fn step_consumers(&mut self) -> bool {
        if self.away_until(&Service::Groups).is_some() {
            return false;
        }
        let State { consumers, groups, topics, numbers, now_ms, denied, .. } = self;
        let refresh_ms = self.metadata_refresh_ms.unwrap_or(METADATA_REFRESH_MS);
        let count = |topic: &str| topics.get(topic).map_or(0, |topic| topic.partitions.len() as i32);
        let mut moved = false;
        for consumer in consumers.values_mut().filter(|consumer| consumer.steps(*now_ms)) {
            let name = &consumer.settings.group;
            if !denied.is_empty() && denied.contains(&(Resource::Group(name.clone()), Operation::Read)) {
                consumer.deny();
                continue;
            }
            if !groups.contains_key(name) {
                groups.insert(name.clone(), Group::new(*now_ms));
            }
            if let Some(group) = groups.get_mut(name) {
                let refresh_ms = *now_ms + refresh_ms;
                moved |= consumer.step(group, numbers, &count, *now_ms, refresh_ms);
            }
        }
        moved
    }

    /// Holds a request back for so long.
    pub fn delay(&mut self, request: &Request, ms: u64) {
        self.numbers += 1;
        self.late.insert((self.now_ms.saturating_add(ms), self.numbers), request.clone());
    }

    /// When something happens by itself next.
    fn next_ms(&self) -> Option<u64> {
        let later = |service| self.away_until(&service).unwrap_or(0);
        let groups = self.groups.values().filter_map(Group::next_ms).min();
        let consumers = self.consumers.values().filter_map(|consumer| consumer.next_ms(self.now_ms)).min();
        let late = self.late.first_key_value().map(|((due_ms, _), _)| *due_ms);
        let back = self.away.values().copied().filter(|until_ms| *until_ms > self.now_ms).min();
        let groups = groups.map(|next_ms| next_ms.max(later(Service::Groups)));
        let transactions = self.transactions.next_ms();
        let transactions = transactions.map(|next_ms| next_ms.max(later(Service::Transactions)));
        [groups, consumers, late, back, transactions].into_iter().flatten().min()
    }

    /// Moves virtual time to the next thing that happens by itself, at most to `limit_ms`.
    pub fn advance_once(&mut self, limit_ms: u64) {
        self.settle();
        let next_ms = self.next_ms().unwrap_or(limit_ms).min(limit_ms);
        self.now_ms = next_ms.max(self.now_ms);
        if !self.away.is_empty() {
            self.away.retain(|_, until_ms| *until_ms > self.now_ms);
        }
        self.tick_consumers();
        if self.away_until(&Service::Groups).is_none() {
            self.groups.values_mut().for_each(|group| group.tick(self.now_ms));
        }
        self.settle();
    }

    pub(super) fn tick_consumers(&mut self) {
        let there = self.away_until(&Service::Groups).is_none();
        let State { consumers, groups, topics, now_ms, .. } = self;
        let refresh_ms = *now_ms + self.metadata_refresh_ms.unwrap_or(METADATA_REFRESH_MS);
        let count = |topic: &str| topics.get(topic).map_or(0, |topic| topic.partitions.len() as i32);
        for consumer in consumers.values_mut() {
            consumer.refresh(&count, *now_ms, refresh_ms);
            let group = groups.get_mut(&consumer.settings.group);
            consumer.tick(group.filter(|_| there), *now_ms);
        }
    }
}

/// A cluster. Clones share it.
#[derive(Clone, Default)]
pub struct Cluster {
    state: Arc<Mutex<State>>,
}

impl Cluster {
    /// An empty cluster of one broker at time 0.
    pub fn new() -> Cluster {
        Cluster::of_brokers(1)
    }

    /// An empty cluster of so many brokers: topics may have as many replicas, of which nothing is modelled.
    pub fn of_brokers(brokers: i32) -> Cluster {
        let cluster = Cluster::default();
        cluster.state().brokers = brokers;
        cluster
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

    /// The same, while everybody who has a consumer polls it as often as it has to be.
    pub fn advance_polling(&self, ms: u64) {
        let mut state = self.state();
        let end_ms = state.now_ms.saturating_add(ms);
        while state.now_ms < end_ms {
            let now_ms = state.now_ms;
            state.consumers.values_mut().for_each(|consumer| consumer.polled(now_ms));
            state.advance_once(end_ms.min(now_ms + POLLED_MS));
        }
    }

    /// How long it takes until the last marker of a transaction is written, after its end was decided and
    /// answered; 0 at first. They are written one by one.
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

    /// Commits offsets without a transaction, under a membership of now or of before, or as nobody: what tools
    /// and other applications do. The coordinator checks more than in a transaction.
    pub fn commit_offsets(
        &self,
        group: &str,
        under: Option<&Membership>,
        offsets: &[(TopicPartition, i64)],
    ) -> Result<(), Code> {
        let mut state = self.state();
        state.settle();
        let who = under.map_or_else(anonymous, |under| under.identity.clone());
        state.group(group).commit(&who, offsets)
    }

    /// All partitions of all topics, in order.
    pub fn all_partitions(&self) -> Vec<TopicPartition> {
        let state = self.state();
        let of = |(name, topic): (&String, &Topic)| {
            let name = name.clone();
            (0..topic.partitions.len() as i32).map(move |index| TopicPartition::new(&name, index))
        };
        state.topics.iter().flat_map(of).collect()
    }

    /// All committed records of a partition with their offsets, in order, also those before the log start.
    /// Empty if there is no such partition.
    pub fn log(&self, partition: &TopicPartition) -> Vec<(i64, Arc<Record>)> {
        let mut state = self.state();
        state.partition(partition).map(|found| found.committed()).unwrap_or_default()
    }

    /// The committed offset of a partition in a group, whether or not a transaction is open on it.
    pub fn committed_offset(&self, group: &str, partition: &TopicPartition) -> Option<i64> {
        self.state().groups.get(group).and_then(|group| group.committed(partition, false).ok().flatten())
    }

    /// The first offset of a partition that was ever committed in a group, in a transaction.
    pub fn first_committed_offset(&self, group: &str, partition: &TopicPartition) -> Option<i64> {
        self.state().groups.get(group).and_then(|group| group.first_committed(partition))
    }

    /// What was committed for partitions that the committing member did not own in the group's generation
    /// just then, which Kafka does not check: in words, per group in order.
    pub fn foreign_commits(&self) -> Vec<String> {
        self.state().groups.values().flat_map(|group| group.foreign_commits()).cloned().collect()
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
