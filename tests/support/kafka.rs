//! Topics, writing and reading, for tests.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::wait_for;

const LIMIT: Duration = Duration::from_secs(60);

/// A record as it stands in a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where.
    pub partition: i32,
    /// Where.
    pub offset: i64,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Its timestamp.
    pub timestamp_ms: i64,
    /// Its headers.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Record {
    /// The text of its key.
    pub fn key_text(&self) -> &str {
        std::str::from_utf8(self.key.as_deref().expect("a key")).expect("a key of text")
    }

    /// Its value as JSON.
    pub fn json(&self) -> serde_json::Value {
        let value = self.value.as_deref().expect("a value");
        serde_json::from_slice(value).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(value)))
    }

    /// The text of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(n, _)| n == name)?;
        std::str::from_utf8(value.as_deref()?).ok()
    }

    /// The partition and offset of the source record, from the headers of a dead letter or late record.
    pub fn source(&self) -> (i32, i64) {
        let number = |name| {
            let text = self.header(name).unwrap_or_else(|| panic!("header {name} of {self:?}"));
            text.parse::<i64>().unwrap_or_else(|_| panic!("header {name} is no number: {text}"))
        };
        (number("thalweg.partition") as i32, number("thalweg.offset"))
    }
}

fn config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("reconnect.backoff.max.ms", "500")
        .set_log_level(rdkafka::config::RDKafkaLogLevel::Critical);
    config
}

/// Whether a broker answers and knows a controller, so that topics can be created.
pub fn serves(bootstrap: &str) -> bool {
    let Ok(consumer) = config(bootstrap).create::<BaseConsumer>() else { return false };
    let Ok(metadata) = consumer.fetch_metadata(None, Duration::from_secs(2)) else { return false };
    !metadata.brokers().is_empty()
}

/// Administration of a broker.
pub struct Admin {
    client: AdminClient<DefaultClientContext>,
    runtime: tokio::runtime::Runtime,
}

impl Admin {
    /// Connects.
    pub fn new(bootstrap: &str) -> Admin {
        Admin {
            client: config(bootstrap).create().expect("an admin client"),
            runtime: tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime"),
        }
    }

    /// Creates topics with as many replicas as the brokers give by default; one that exists is an error.
    pub fn create(&self, topics: &[(&str, i32)]) {
        let new: Vec<_> = topics
            .iter()
            .map(|(name, partitions)| NewTopic::new(name, *partitions, TopicReplication::Fixed(-1)))
            .collect();
        self.create_topics(&new);
    }

    /// Creates topics with settings of their own.
    pub fn create_topics(&self, topics: &[NewTopic<'_>]) {
        let options = AdminOptions::new().operation_timeout(Some(LIMIT)).request_timeout(Some(LIMIT));
        let results = self.runtime.block_on(self.client.create_topics(topics, &options)).expect("creation");
        for result in results {
            if let Err((topic, code)) = result {
                panic!("creating topic {topic}: {code}");
            }
        }
        for topic in topics {
            wait_for("the new topic's leaders", LIMIT, || {
                (self.partitions(topic.name) == Some(topic.num_partitions)).then_some(())
            });
        }
    }

    /// Raises a topic's number of partitions.
    pub fn raise_partitions(&self, topic: &str, partitions: i32) {
        let new = NewPartitions::new(topic, partitions as usize);
        let options = AdminOptions::new().operation_timeout(Some(LIMIT));
        let results = self.runtime.block_on(self.client.create_partitions([&new], &options)).expect("more");
        assert!(results.iter().all(Result::is_ok), "more partitions for {topic}: {results:?}");
        wait_for("the new partitions' leaders", LIMIT, || {
            (self.partitions(topic) == Some(partitions)).then_some(())
        });
    }

    /// Sets one setting of a topic, and all others of it back to the defaults.
    pub fn set(&self, topic: &str, name: &str, value: &str) {
        let config = AlterConfig::new(ResourceSpecifier::Topic(topic)).set(name, value);
        let results = self.runtime.block_on(self.client.alter_configs([&config], &AdminOptions::new()));
        assert!(results.expect("a change").iter().all(Result::is_ok), "setting {name} of {topic}");
    }

    /// Deletes a topic.
    pub fn delete(&self, topic: &str) {
        let options = AdminOptions::new().operation_timeout(Some(LIMIT));
        let results = self.runtime.block_on(self.client.delete_topics(&[topic], &options)).expect("deletion");
        assert!(results.iter().all(Result::is_ok), "deleting {topic}: {results:?}");
        wait_for("the topic to vanish", LIMIT, || self.partitions(topic).is_none().then_some(()));
    }

    /// How many partitions a topic has; `None` while it does not exist or some have no leader.
    pub fn partitions(&self, topic: &str) -> Option<i32> {
        let metadata = self.client.inner().fetch_metadata(Some(topic), Duration::from_secs(10)).ok()?;
        let topic = metadata.topics().first()?;
        let ready = topic.error().is_none() && topic.partitions().iter().all(|p| p.leader() >= 0);
        (ready && !topic.partitions().is_empty()).then(|| topic.partitions().len() as i32)
    }

    /// The first offset and the one after the last, per partition.
    pub fn bounds(&self, topic: &str) -> Vec<(i64, i64)> {
        let count = self.partitions(topic).unwrap_or_else(|| panic!("topic {topic} does not exist"));
        let bounds = |p| self.client.inner().fetch_watermarks(topic, p, Duration::from_secs(10));
        (0..count).map(|p| bounds(p).expect("a partition's bounds")).collect()
    }

    /// How many members a consumer group has.
    pub fn group_members(&self, group: &str) -> usize {
        let groups = self.client.inner().fetch_group_list(Some(group), LIMIT).expect("the list of groups");
        groups.groups().iter().filter(|g| g.name() == group).map(|g| g.members().len()).sum()
    }

    /// Deletes a group that has no members, with its offsets.
    pub fn delete_group(&self, group: &str) {
        let deleted = self.runtime.block_on(self.client.delete_groups(&[group], &AdminOptions::new()));
        assert!(deleted.expect("an answer").iter().all(Result::is_ok), "deleting {group}");
    }

    /// As [`delete_group`](Admin::delete_group), if that can be.
    pub fn try_delete_group(&self, group: &str) {
        let _ = self.runtime.block_on(self.client.delete_groups(&[group], &AdminOptions::new()));
    }

    /// Commits an offset of a partition for a group that has no members.
    pub fn set_offset(bootstrap: &str, group: &str, topic: &str, partition: i32, offset: i64) {
        let consumer: BaseConsumer = config(bootstrap).set("group.id", group).create().expect("a consumer");
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(topic, partition, Offset::Offset(offset)).expect("an offset");
        consumer.commit(&offsets, CommitMode::Sync).expect("the offset is committed");
    }

    /// Whether a transaction that is still open has sent offsets of this topic for the group.
    pub fn offsets_are_undecided(bootstrap: &str, group: &str, topic: &str, partitions: i32) -> bool {
        let consumer: BaseConsumer = config(bootstrap)
            .set("group.id", group)
            .set("isolation.level", "read_committed")
            .create()
            .expect("a consumer");
        let mut asked = TopicPartitionList::new();
        asked.add_partition_range(topic, 0, partitions - 1);
        // The broker answers UNSTABLE_OFFSET_COMMIT, and librdkafka asks again until the time is up.
        consumer.committed_offsets(asked, Duration::from_millis(500)).is_err()
    }

    /// All topics.
    pub fn topics(&self) -> Vec<String> {
        let metadata = self.client.inner().fetch_metadata(None, LIMIT).expect("the list of topics");
        metadata.topics().iter().map(|t| t.name().to_string()).collect()
    }
}

/// A producer without transactions that keeps the order of what it is given per partition.
pub struct Writer {
    producer: ThreadedProducer<Delivery>,
}

/// Panics, in the producer's thread, would be lost: failures are kept until the flush.
#[derive(Clone, Default)]
struct Delivery(std::sync::Arc<std::sync::Mutex<Vec<KafkaError>>>);

impl rdkafka::ClientContext for Delivery {}

impl rdkafka::producer::ProducerContext for Delivery {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &rdkafka::producer::DeliveryResult<'_>, _: ()) {
        if let Err((error, _)) = result {
            self.0.lock().expect("not poisoned").push(error.clone());
        }
    }
}

impl Writer {
    /// Connects.
    pub fn new(bootstrap: &str) -> Writer {
        Writer::with_linger(bootstrap, "5")
    }

    /// For millions of records at once.
    pub fn fast(bootstrap: &str) -> Writer {
        Writer::with_linger(bootstrap, "100")
    }

    fn with_linger(bootstrap: &str, linger_ms: &str) -> Writer {
        let producer = config(bootstrap)
            .set("enable.idempotence", "true")
            .set("compression.type", "lz4")
            .set("linger.ms", linger_ms)
            .set("queue.buffering.max.messages", "1000000")
            .create_with_context(Delivery::default())
            .expect("a producer");
        Writer { producer }
    }

    /// Hands a record over; waits while the queue is full.
    pub fn send(
        &self,
        topic: &str,
        partition: i32,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        timestamp_ms: i64,
    ) {
        self.send_with(topic, partition, key, value, timestamp_ms, &[]);
    }

    /// As [`send`](Writer::send), with headers.
    pub fn send_with(
        &self,
        topic: &str,
        partition: i32,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        timestamp_ms: i64,
        headers: &[(&str, &str)],
    ) {
        let mut record = BaseRecord::<[u8], [u8], ()>::with_opaque_to(topic, ()).partition(partition);
        record.timestamp = Some(timestamp_ms);
        record.key = key;
        record.payload = value;
        if !headers.is_empty() {
            let mut owned = OwnedHeaders::new();
            for (key, value) in headers {
                owned = owned.insert(Header { key, value: Some(*value) });
            }
            record = record.headers(owned);
        }
        loop {
            match self.producer.send(record) {
                Ok(()) => return,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again)) => {
                    record = again;
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err((error, _)) => panic!("producing to {topic}[{partition}]: {error}"),
            }
        }
    }

    /// Returns when the broker has everything.
    pub fn flush(&self) {
        self.producer.flush(LIMIT * 2).expect("the broker takes all records");
        let failures = self.producer.context().0.lock().expect("not poisoned").clone();
        assert!(failures.is_empty(), "records that the broker did not take: {failures:?}");
    }
}

/// What a reader sees of transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// What is committed.
    Committed,
    /// Aborted and undecided records as well.
    Uncommitted,
}

/// Follows a topic from its first record; keeps all that it has read.
pub struct Reader {
    consumer: BaseConsumer,
    topic: String,
    /// Per partition, the offset to go on from.
    next: Vec<i64>,
    /// In the order of arrival: per partition by offset.
    pub records: Vec<Record>,
}

impl Reader {
    /// Starts at the beginning of every partition. Waits for the topic if it does not exist yet.
    pub fn new(bootstrap: &str, topic: &str, isolation: Isolation) -> Reader {
        let isolation = match isolation {
            Isolation::Committed => "read_committed",
            Isolation::Uncommitted => "read_uncommitted",
        };
        let consumer: BaseConsumer = config(bootstrap)
            .set("group.id", "thalweg-tests-that-commit-nothing")
            .set("isolation.level", isolation)
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "earliest")
            .set("fetch.wait.max.ms", "20")
            .set("fetch.queue.backoff.ms", "5")
            .create()
            .expect("a consumer");
        let partitions = wait_for(&format!("topic {topic}"), LIMIT, || {
            let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(5)).ok()?;
            let count = metadata.topics().first()?.partitions().len();
            (count > 0).then_some(count)
        });
        Reader { consumer, topic: topic.to_string(), next: vec![0; partitions], records: Vec::new() }
    }

    /// Reads to the end of every partition as it is now (to its last stable offset, where only committed
    /// records are read); returns how many records are new.
    pub fn read_to_end(&mut self) -> usize {
        // An end is reported once per assignment, and a position never passes a marker at the end: so
        // each call assigns anew.
        let mut assignment = TopicPartitionList::new();
        for (p, next) in self.next.iter().enumerate() {
            let offset = Offset::Offset(*next);
            assignment.add_partition_offset(&self.topic, p as i32, offset).expect("a partition");
        }
        self.consumer.assign(&assignment).expect("an assignment");
        let before = self.records.len();
        let mut ended = BTreeSet::new();
        let mut progress = Instant::now();
        while ended.len() < self.next.len() {
            match self.consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    let next = &mut self.next[message.partition() as usize];
                    if message.offset() >= *next {
                        *next = message.offset() + 1;
                        self.records.push(record(&message));
                    }
                    progress = Instant::now();
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    ended.insert(partition);
                    progress = Instant::now();
                }
                // A broker that is away: librdkafka tries again.
                Some(Err(_)) | None => {}
            }
            assert!(progress.elapsed() < LIMIT, "no progress reading {} to its end", self.topic);
        }
        self.records.len() - before
    }

    /// Reads on until there are `count` records in all; panics after `limit`.
    pub fn read_until(&mut self, count: usize, limit: Duration) {
        let start = Instant::now();
        while self.records.len() < count {
            if self.read_to_end() == 0 {
                std::thread::sleep(Duration::from_millis(50));
            }
            let found = self.records.len();
            assert!(
                found >= count || start.elapsed() < limit,
                "{} holds {found} of {count} records after {limit:?}",
                self.topic
            );
        }
    }

    /// All committed records of a topic.
    pub fn all(bootstrap: &str, topic: &str) -> Vec<Record> {
        let mut reader = Reader::new(bootstrap, topic, Isolation::Committed);
        reader.read_to_end();
        reader.records
    }
}

fn record(message: &impl Message<Headers = rdkafka::message::BorrowedHeaders>) -> Record {
    Record {
        partition: message.partition(),
        offset: message.offset(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        timestamp_ms: message.timestamp().to_millis().unwrap_or(-1),
        headers: message.headers().map_or_else(Vec::new, |headers| {
            headers.iter().map(|h| (h.key.to_string(), h.value.map(<[u8]>::to_vec))).collect()
        }),
    }
}
