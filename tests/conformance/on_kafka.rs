//! A real broker as a world. Its address is in `THALWEG_TEST_BOOTSTRAP`; without one these tests fail.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use thalweg::kafka::{ConnectionSettings, KafkaAdmin, KafkaChangelogReader, KafkaLog, KafkaTransactionLog};
use thalweg::record::TopicPartition;

use crate::world::{Class, Plain, Steps, Who, World};

const LIMIT: Duration = Duration::from_secs(30);

/// The broker that all share; names keep them apart.
pub struct OnKafka {
    began: Instant,
}

impl Default for OnKafka {
    fn default() -> Self {
        OnKafka { began: Instant::now() }
    }
}

fn bootstrap() -> String {
    std::env::var("THALWEG_TEST_BOOTSTRAP")
        .expect("THALWEG_TEST_BOOTSTRAP must hold the address of a Kafka broker, e.g. 127.0.0.1:9092")
}

fn settings(who: &Who) -> ConnectionSettings {
    ConnectionSettings {
        bootstrap_servers: bootstrap(),
        librdkafka: vec![("max.poll.interval.ms".into(), who.max_poll_interval_ms.to_string())],
        group: who.group.clone(),
        instance_id: who.instance.clone(),
        session_timeout_ms: who.session_timeout_ms,
        transactional_id: who.transactional_id.clone(),
        transaction_timeout_ms: who.transaction_timeout_ms,
        fetch_queue_bytes_max: 64 << 20,
    }
}

impl World for OnKafka {
    type Log = KafkaLog;
    type Producer = KafkaTransactionLog;
    type Membership = ConsumerGroupMetadata;
    type Steps = KafkaSteps;
    type Plain = KafkaPlain;
    type Reader = KafkaChangelogReader;
    type Admin = KafkaAdmin;

    fn unique(&self, what: &str) -> String {
        static COUNTER: AtomicUsize = AtomicUsize::new(0);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        format!("conformance-{what}-{now}-{}-{number}", std::process::id())
    }

    fn log(&self, who: &Who, topics: &[String]) -> KafkaLog {
        KafkaLog::new(&settings(who), topics).unwrap()
    }

    fn producer(&self, who: &Who, log: &KafkaLog) -> KafkaTransactionLog {
        KafkaTransactionLog::new(&settings(who), log, None)
    }

    fn steps(&self, who: &Who) -> KafkaSteps {
        KafkaSteps::new(who)
    }

    fn plain(&self, who: &Who, topics: &[String]) -> KafkaPlain {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", bootstrap())
            .set("group.id", &who.group)
            .set("partition.assignment.strategy", "range")
            .set("session.timeout.ms", who.session_timeout_ms.to_string())
            .set("max.poll.interval.ms", who.max_poll_interval_ms.to_string())
            .set("heartbeat.interval.ms", "1000")
            .set("enable.auto.commit", "false");
        if let Some(instance) = &who.instance {
            config.set("group.instance.id", instance);
        }
        let consumer: BaseConsumer = config.create().unwrap();
        consumer.subscribe(&topics.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
        KafkaPlain(consumer)
    }

    fn reader(&self, group: &str) -> KafkaChangelogReader {
        KafkaChangelogReader::new(&settings(&Who::of(group, "reader"))).unwrap()
    }

    fn admin(&self) -> KafkaAdmin {
        KafkaAdmin::new(&settings(&Who::of("admin", "0"))).unwrap()
    }

    fn uncommitted(&self, partition: &TopicPartition) -> Vec<(i64, String)> {
        let consumer = anonymous("uncommitted");
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&partition.topic, partition.partition, Offset::Beginning).unwrap();
        consumer.assign(&list).unwrap();
        let mut seen = Vec::new();
        self.until("the end of the partition", || match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                let value = String::from_utf8(message.payload().unwrap().to_vec()).unwrap();
                seen.push((message.offset(), value));
                None
            }
            Some(Err(KafkaError::PartitionEOF(_))) => Some(()),
            Some(Err(error)) => panic!("reading {partition}: {error}"),
            None => None,
        });
        seen
    }

    fn pass(&self, ms: u64) {
        std::thread::sleep(Duration::from_millis(ms));
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap()
    }
}

fn list(offsets: &[(TopicPartition, i64)]) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in offsets {
        let offset = Offset::Offset(*offset);
        list.add_partition_offset(&partition.topic, partition.partition, offset).unwrap();
    }
    list
}

/// A consumer that never joins its group.
fn anonymous(group: &str) -> BaseConsumer {
    ClientConfig::new()
        .set("bootstrap.servers", bootstrap())
        .set("group.id", group)
        .set("isolation.level", "read_uncommitted")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "error")
        .create()
        .unwrap()
}

pub struct KafkaPlain(BaseConsumer);

impl Plain for KafkaPlain {
    type Membership = ConsumerGroupMetadata;

    fn serve(&mut self) -> usize {
        // A fenced one tells an error.
        let _ = self.0.poll(Duration::from_millis(5));
        self.0.assignment().unwrap().count()
    }

    fn membership(&self) -> ConsumerGroupMetadata {
        self.0.group_metadata().unwrap()
    }

    /// A dynamic member's close leaves the group.
    fn leave(self) {}
}

/// The first delivery that failed.
#[derive(Clone, Default)]
struct Deliveries(Arc<Mutex<Option<KafkaError>>>);

impl ClientContext for Deliveries {
    fn log(&self, _: rdkafka::config::RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: KafkaError, _: &str) {}
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, _: ()) {
        if let Err((error, _)) = result {
            self.0.lock().unwrap().get_or_insert(error.clone());
        }
    }
}

pub struct KafkaSteps {
    producer: ThreadedProducer<Deliveries>,
    deliveries: Deliveries,
}

impl KafkaSteps {
    fn new(who: &Who) -> KafkaSteps {
        let deliveries = Deliveries::default();
        let producer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap())
            .set("transactional.id", &who.transactional_id)
            .set("transaction.timeout.ms", who.transaction_timeout_ms.to_string())
            .set("message.timeout.ms", who.transaction_timeout_ms.to_string())
            .set("allow.auto.create.topics", "false")
            .set("retry.backoff.ms", "1")
            .create_with_context(deliveries.clone())
            .unwrap();
        KafkaSteps { producer, deliveries }
    }

    fn class(&self, error: &KafkaError) -> Class {
        if self.producer.client().fatal_error().is_some() {
            return Class::Fatal;
        }
        match error {
            KafkaError::Transaction(error) if error.is_fatal() => Class::Fatal,
            KafkaError::Transaction(error) if error.txn_requires_abort() => Class::Abort,
            KafkaError::Transaction(error) if error.is_retriable() => Class::Retry,
            _ => Class::Abort,
        }
    }
}

impl Steps for KafkaSteps {
    type Membership = ConsumerGroupMetadata;

    fn send_offsets(
        &mut self,
        under: &ConsumerGroupMetadata,
        offsets: &[(TopicPartition, i64)],
    ) -> Result<(), Class> {
        let sent = self.producer.send_offsets_to_transaction(&list(offsets), under, LIMIT);
        sent.map_err(|error| self.class(&error))
    }

    fn init(&mut self) -> Result<(), Class> {
        self.producer.init_transactions(LIMIT).map_err(|error| self.class(&error))
    }

    fn begin(&mut self) -> Result<(), Class> {
        self.producer.begin_transaction().map_err(|error| self.class(&error))
    }

    fn write(&mut self, partition: &TopicPartition, value: &str) -> Result<(), Class> {
        let record =
            BaseRecord::<(), str>::to(&partition.topic).partition(partition.partition).payload(value);
        self.producer.send(record).map_err(|(error, _)| self.class(&error))?;
        self.producer.flush(LIMIT).map_err(|error| self.class(&error))?;
        match self.deliveries.0.lock().unwrap().take() {
            Some(error) => Err(self.class(&error)),
            None => Ok(()),
        }
    }

    fn send_offsets_as_nobody(
        &mut self,
        group: &str,
        offsets: &[(TopicPartition, i64)],
    ) -> Result<(), Class> {
        self.send_offsets(&anonymous(group).group_metadata().unwrap(), offsets)
    }

    fn commit(&mut self) -> Result<(), Class> {
        self.producer.commit_transaction(LIMIT).map_err(|error| self.class(&error))
    }

    fn abort(&mut self) -> Result<(), Class> {
        self.producer.abort_transaction(LIMIT).map_err(|error| self.class(&error))
    }
}
