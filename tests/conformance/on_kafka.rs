//! A real broker as a world. Its address is in `THALWEG_TEST_BOOTSTRAP`; without one these tests fail.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use thalweg::kafka::{ConnectionSettings, KafkaAdmin, KafkaChangelogReader, KafkaLog, KafkaTransactionLog};
use thalweg::record::TopicPartition;
use thalweg::worker::port::{Log, TransactionLog};

use crate::common;
use crate::support::broker::{Broker, PASSWORD};
use crate::support::proxy::Proxy;
use crate::support::thalweg::signal;
use crate::support::{Folder, kafka, rights};
use crate::world::{Call, Class, Lab, Operation, Plain, Resource, Steps, Who, World};

const LIMIT: Duration = Duration::from_secs(30);

/// A broker: the one that all share, where names keep them apart, or one for a few scenarios alone.
pub struct OnKafka {
    began: Instant,
    bootstrap: String,
    /// Settings of the application's clients.
    as_user: Vec<(String, String)>,
    own: Option<Arc<Own>>,
}

/// A broker of its own. The folder goes last.
struct Own {
    broker: Mutex<Broker>,
    proxy: Option<Arc<Proxy>>,
    restricted: Option<String>,
    users: AtomicUsize,
    _dir: Folder,
}

impl Default for OnKafka {
    fn default() -> Self {
        let bootstrap = std::env::var("THALWEG_TEST_BOOTSTRAP")
            .expect("THALWEG_TEST_BOOTSTRAP must hold the address of a Kafka broker, e.g. 127.0.0.1:9092");
        OnKafka { began: Instant::now(), bootstrap, as_user: Vec::new(), own: None }
    }
}

/// How many scenarios can have a user of their own.
const USERS: [&str; 10] = ["u0", "u1", "u2", "u3", "u4", "u5", "u6", "u7", "u8", "u9"];

impl OnKafka {
    /// A broker behind a proxy.
    pub fn behind_a_proxy() -> OnKafka {
        let dir = Folder::new();
        let (broker, proxy) = Broker::start_with_proxy(dir.path());
        let bootstrap = proxy.bootstrap();
        OnKafka::own(dir, broker, bootstrap, Some(proxy.into()), None)
    }

    /// A broker that can be stopped.
    pub fn alone() -> OnKafka {
        let dir = Folder::new();
        let broker = Broker::start(dir.path());
        let bootstrap = broker.bootstrap();
        OnKafka::own(dir, broker, bootstrap, None, None)
    }

    /// A broker that knows users.
    pub fn with_rights() -> OnKafka {
        let dir = Folder::new();
        let (broker, restricted) = Broker::start_with_rights(dir.path(), &USERS);
        let bootstrap = broker.bootstrap();
        OnKafka::own(dir, broker, bootstrap, None, Some(restricted))
    }

    fn own(
        dir: Folder,
        broker: Broker,
        bootstrap: String,
        proxy: Option<Arc<Proxy>>,
        restricted: Option<String>,
    ) -> OnKafka {
        let (broker, users) = (Mutex::new(broker), AtomicUsize::new(0));
        let own = Own { broker, proxy, restricted, users, _dir: dir };
        let lab = OnKafka { began: Instant::now(), bootstrap, as_user: Vec::new(), own: Some(own.into()) };
        lab.await_coordinator();
        lab
    }

    /// A fresh broker makes its topic of offsets when somebody first asks for a group's coordinator, and refuses to
    /// tell meanwhile; while it loads the topic it may also say that it is no coordinator. A producer that sends
    /// offsets asks three times within milliseconds, and then waits for ever: librdkafka drops the last refusal. So
    /// somebody patient asks first.
    fn await_coordinator(&self) {
        let asker = anonymous(self.config(), "first");
        let mut any = TopicPartitionList::new();
        any.add_partition("any", 0);
        let until = Instant::now() + LIMIT;
        while let Err(error) = asker.committed_offsets(any.clone(), LIMIT) {
            let starting = matches!(
                error.rdkafka_error_code(),
                Some(
                    RDKafkaErrorCode::NotCoordinator
                        | RDKafkaErrorCode::CoordinatorNotAvailable
                        | RDKafkaErrorCode::CoordinatorLoadInProgress
                )
            );
            assert!(starting && Instant::now() < until, "no coordinator: {error}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn broker(&self) -> std::sync::MutexGuard<'_, Broker> {
        self.own.as_ref().expect("a broker of its own").broker.lock().unwrap()
    }

    fn proxy(&self) -> Arc<Proxy> {
        self.own.as_ref().and_then(|own| own.proxy.clone()).expect("a proxy")
    }

    fn settings(&self, who: &Who) -> ConnectionSettings {
        let mut librdkafka = vec![
            ("max.poll.interval.ms".to_string(), who.max_poll_interval_ms.to_string()),
            ("topic.metadata.refresh.interval.ms".to_string(), "1000".to_string()),
        ];
        librdkafka.extend(self.as_user.iter().cloned());
        ConnectionSettings {
            bootstrap_servers: self.bootstrap.clone(),
            librdkafka,
            group: who.group.clone(),
            instance_id: who.instance.clone(),
            session_timeout_ms: who.session_timeout_ms,
            transactional_id: who.transactional_id.clone(),
            transaction_timeout_ms: who.transaction_timeout_ms,
            fetch_queue_bytes_max: 64 << 20,
        }
    }

    /// What clients of the tests' own begin with.
    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap);
        for (name, value) in &self.as_user {
            config.set(name, value);
        }
        config
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
        KafkaLog::new(&self.settings(who), topics).unwrap()
    }

    fn producer(&self, who: &Who, log: &KafkaLog) -> KafkaTransactionLog {
        KafkaTransactionLog::new(&self.settings(who), log, None)
    }

    fn steps(&self, who: &Who) -> KafkaSteps {
        KafkaSteps::new(self.config(), who)
    }

    fn plain(&self, who: &Who, topics: &[String]) -> KafkaPlain {
        let mut config = self.config();
        config
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
        KafkaChangelogReader::new(&self.settings(&Who::of(group, "reader"))).unwrap()
    }

    fn admin(&self) -> KafkaAdmin {
        KafkaAdmin::new(&self.settings(&Who::of("admin", "0"))).unwrap()
    }

    fn append(&self, partition: &TopicPartition, value: &str) {
        let writer = kafka::Writer::new(&self.bootstrap);
        writer.send(&partition.topic, partition.partition, None, Some(value.as_bytes()), 1);
        writer.flush();
    }

    fn grow(&self, topic: &str, partitions: usize) {
        kafka::Admin::new(&self.bootstrap).raise_partitions(topic, i32::try_from(partitions).unwrap());
    }

    fn commit_as_nobody(&self, group: &str, offsets: &[(TopicPartition, i64)]) -> bool {
        anonymous(self.config(), group).commit(&list(offsets), CommitMode::Sync).is_ok()
    }

    fn zombie(&self, who: &Who, source: &TopicPartition, meanwhile: &mut dyn FnMut()) -> [String; 2] {
        let process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "zombie_process", "--ignored", "--nocapture"])
            .env(ZOMBIE, format!("{} {}", who.group, source.topic))
            .stdout(Stdio::piped())
            .spawn();
        let mut process = Process(process.unwrap());
        let mut lines = BufReader::new(process.0.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut line = |what: &str| {
            let said = lines.find_map(|line| line.split_once(what).map(|(_, rest)| rest.to_owned()));
            said.unwrap_or_else(|| panic!("the process ended before it said {what:?}"))
        };
        line("it has committed");
        signal(process.0.id(), "STOP");
        meanwhile();
        signal(process.0.id(), "CONT");
        [line("its commit: "), line("it is told: ")]
    }

    fn uncommitted(&self, partition: &TopicPartition) -> Vec<(i64, String)> {
        let consumer = anonymous(self.config(), "uncommitted");
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
fn anonymous(mut config: ClientConfig, group: &str) -> BaseConsumer {
    config
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

    fn commit(&self, offsets: &[(TopicPartition, i64)]) -> bool {
        self.0.commit(&list(offsets), CommitMode::Sync).is_ok()
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

/// Ends with the scenario, also while it is stopped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).expect("the end of our child");
    }
}

/// What a process is to do that will be stopped: its group and its topic.
const ZOMBIE: &str = "THALWEG_TEST_ZOMBIE";

/// A process that is stopped and goes on: see [`World::zombie`].
pub fn zombie_process() {
    let told = std::env::var(ZOMBIE).expect("a scenario starts this process");
    let (group, topic) = told.split_once(' ').unwrap();
    let (world, who) = (OnKafka::default(), Who::of(group, "0"));
    let source = TopicPartition::new(topic, 0);
    let mut log = world.log(&who, &[topic.to_string()]);
    let (_, member) = common::assigned(&world, &mut log);
    let mut producer = world.producer(&who, &log);
    producer.init(common::INIT_MS).unwrap();
    producer.commit(common::offset(&source, 1), &member).unwrap();
    println!("it has committed");
    let mut looked_ms = world.now_ms();
    while world.now_ms() < looked_ms + 2_000 {
        looked_ms = world.now_ms();
        assert!(log.poll().unwrap().is_none());
        world.pass(10);
    }
    let late = producer.commit(common::offset(&source, 99), &member);
    println!("its commit: {}", common::commit_class(&late));
    println!("it is told: {}", common::told(&world, &mut log));
}

/// The request that carries out a call, at the proxy.
fn hold(proxy: &Proxy, call: &Call) {
    match call {
        Call::Write(..) => proxy.hold_next_records(),
        Call::Offsets(..) => proxy.hold_next_offsets(),
        Call::Commit => proxy.hold_next_end(),
    }
}

impl Lab for OnKafka {
    fn dies_in(&self, mut steps: KafkaSteps, call: Call, after_ms: u64) {
        let proxy = self.proxy();
        hold(&proxy, &call);
        std::thread::spawn(move || {
            // Nobody hears of the outcome.
            let _ = match &call {
                Call::Write(partition, value) => steps.write(partition, value),
                Call::Offsets(group, offsets) => steps.send_offsets_as_nobody(group, offsets),
                Call::Commit => steps.commit(),
            };
            std::mem::forget(steps);
        });
        proxy.holds(LIMIT);
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(after_ms));
            proxy.release();
        });
    }

    fn impatient(&self, who: &Who) -> KafkaSteps {
        let mut config = self.config();
        config.set("socket.timeout.ms", "1000");
        KafkaSteps::new(config, who)
    }

    fn commits_twice(&self, steps: &mut KafkaSteps, after_ms: u64) -> Result<(), Class> {
        let proxy = self.proxy();
        hold(&proxy, &Call::Commit);
        let result = steps.commit();
        proxy.holds(LIMIT);
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(after_ms));
            proxy.release();
        });
        result
    }

    fn restart(&self) {
        let mut broker = self.broker();
        broker.stop();
        broker.restart();
    }

    fn crash(&self) {
        let mut broker = self.broker();
        broker.kill();
        broker.restart();
    }

    fn pause(&self, ms: u64) {
        // Not held by the thread: if the test is over before the pause, the broker goes with it, and would stay
        // for ever if it were left to a thread that the process does not wait for.
        let own = Arc::downgrade(self.own.as_ref().expect("a broker of its own"));
        let paused = self.broker().pause();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(ms));
            let Some(own) = own.upgrade() else { return };
            let broker = own.broker.lock().unwrap();
            if broker.pid() == Some(paused) {
                broker.go_on();
            }
        });
    }

    fn restricted(&self, to: &[Resource<'_>], missing: (Resource<'_>, Operation)) -> OnKafka {
        let own = self.own.clone().expect("a broker of its own");
        let user = USERS[own.users.fetch_add(1, Ordering::Relaxed)];
        let mut rules = Vec::new();
        for resource in to {
            use rights::Operation::{Create, Delete, Describe, DescribeConfigs, Read, Write};
            let (kind, prefix, operations): (_, _, &[rights::Operation]) = match resource {
                Resource::Topic(name) => {
                    (rights::Resource::Topic, name, &[Read, Write, Create, Delete, Describe, DescribeConfigs])
                }
                Resource::Group(name) => (rights::Resource::Group, name, &[Read, Describe]),
                Resource::TransactionalId(name) => (rights::Resource::Transaction, name, &[Write, Describe]),
            };
            let left_out = match missing.1 {
                Operation::Read => Read,
                Operation::Write => Write,
                Operation::Delete => Delete,
            };
            let granted = operations.iter().filter(|one| missing.0 != *resource || **one != left_out);
            rules.extend(granted.map(|operation| rights::Rule {
                user: user.into(),
                resource: kind,
                prefix: prefix.to_string(),
                operation: *operation,
            }));
        }
        rights::grant(&self.bootstrap, &rules);
        let as_user = [
            ("security.protocol", "SASL_PLAINTEXT"),
            ("sasl.mechanism", "PLAIN"),
            ("sasl.username", user),
            ("sasl.password", PASSWORD),
        ];
        OnKafka {
            began: self.began,
            bootstrap: own.restricted.clone().expect("a listener that knows users"),
            as_user: as_user.map(|(name, value)| (name.into(), value.into())).to_vec(),
            own: Some(own),
        }
    }
}

pub struct KafkaSteps {
    producer: ThreadedProducer<Deliveries>,
    deliveries: Deliveries,
    /// For a consumer that is nobody.
    nobody: ClientConfig,
}

impl KafkaSteps {
    fn new(mut config: ClientConfig, who: &Who) -> KafkaSteps {
        let (deliveries, nobody) = (Deliveries::default(), config.clone());
        let producer = config
            .set("transactional.id", &who.transactional_id)
            .set("transaction.timeout.ms", who.transaction_timeout_ms.to_string())
            .set("message.timeout.ms", who.transaction_timeout_ms.to_string())
            .set("allow.auto.create.topics", "false")
            .set("retry.backoff.ms", "1")
            .create_with_context(deliveries.clone())
            .unwrap();
        KafkaSteps { producer, deliveries, nobody }
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
        self.send_offsets(&anonymous(self.nobody.clone(), group).group_metadata().unwrap(), offsets)
    }

    fn commit(&mut self) -> Result<(), Class> {
        self.producer.commit_transaction(LIMIT).map_err(|error| self.class(&error))
    }

    fn abort(&mut self) -> Result<(), Class> {
        self.producer.abort_transaction(LIMIT).map_err(|error| self.class(&error))
    }
}
