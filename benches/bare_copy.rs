//! The least that a program can do with orders under exactly-once: what is paid is decoded, projected to four fields,
//! encoded and written, with the offsets of what was read, in a transaction at each interval. One thread, one
//! producer, librdkafka through its safe bindings. No state, no recovery: a restart begins anew. What it waits for at
//! a commit, everybody waits for.
//!
//! `bare_copy BOOTSTRAP INPUT OUTPUT GROUP COMMIT_MS` runs until it is stopped.
#![allow(clippy::disallowed_methods, reason = "the interval is one of real time")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Deserialize)]
struct Order<'a> {
    order_id: &'a str,
    customer: &'a str,
    amount: i64,
    status: &'a str,
    created_at: i64,
}

#[derive(Serialize)]
struct Row<'a> {
    order_id: &'a str,
    customer: &'a str,
    amount: i64,
    created_at: i64,
}

/// For what is answered at once, if anything is.
const LIMIT: Duration = Duration::from_secs(30);

fn main() {
    // As thalweg does.
    #[cfg(target_os = "linux")]
    let _refused = rustix::thread::disable_transparent_huge_pages(true);
    let arguments: Vec<String> = std::env::args().collect();
    let [_, bootstrap, input, output, group, commit_ms] = &arguments[..] else {
        eprintln!("usage: bare_copy BOOTSTRAP INPUT OUTPUT GROUP COMMIT_MS");
        std::process::exit(2);
    };
    let interval = Duration::from_millis(commit_ms.parse().expect("COMMIT_MS is a number"));
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("fetch.queue.backoff.ms", "1")
        .set("queued.min.messages", "1000000")
        .set("queued.max.messages.kbytes", "65536")
        .create()
        .expect("a consumer");
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("transactional.id", group)
        .set("compression.codec", "lz4")
        .set("linger.ms", "1")
        .set("batch.num.messages", "100000")
        .set("queue.buffering.max.messages", "0")
        .set("retry.backoff.ms", "1")
        .create()
        .expect("a producer");
    producer.init_transactions(LIMIT).expect("a producer id");
    assign_all(&consumer, input);
    loop {
        copy(&consumer, &producer, output, interval);
    }
}

/// Takes what comes within an interval into one transaction.
fn copy(consumer: &BaseConsumer, producer: &BaseProducer, output: &str, interval: Duration) {
    let until = Instant::now() + interval;
    let mut next_offsets = BTreeMap::new();
    let mut row = Vec::new();
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        let Some(record) = consumer.poll(left) else { continue };
        let record = record.expect("a record");
        if next_offsets.is_empty() {
            producer.begin_transaction().expect("a transaction begins");
        }
        next_offsets
            .insert((record.topic().to_owned(), record.partition()), Offset::Offset(record.offset() + 1));
        let order: Order<'_> = sonic_rs::from_slice(record.payload().unwrap_or_default()).expect("an order");
        if order.status == "paid" {
            row.clear();
            let Order { order_id, customer, amount, created_at, .. } = order;
            let fields = Row { order_id, customer, amount, created_at };
            sonic_rs::to_writer(&mut row, &fields).expect("a row");
            producer
                .send(BaseRecord::to(output).key(customer).payload(&row[..]))
                .map_err(|e| e.0)
                .expect("room");
        }
    }
    if next_offsets.is_empty() {
        return;
    }
    // librdkafka's own flush would look for deliveries every 100 ms.
    while producer.in_flight_count() > 0 {
        producer.poll(Duration::from_millis(100));
    }
    let offsets = TopicPartitionList::from_topic_map(&next_offsets.into_iter().collect()).expect("offsets");
    let member = consumer.group_metadata().expect("a group");
    producer.send_offsets_to_transaction(&offsets, &member, LIMIT).expect("offsets are taken");
    producer.commit_transaction(LIMIT).expect("a commit");
}

fn assign_all(consumer: &BaseConsumer, topic: &str) {
    let metadata = consumer.fetch_metadata(Some(topic), LIMIT).expect("the topic's metadata");
    let mut assignment = TopicPartitionList::new();
    for partition in metadata.topics()[0].partitions() {
        assignment.add_partition_offset(topic, partition.id(), Offset::Beginning).expect("a partition");
    }
    consumer.assign(&assignment).expect("an assignment");
}
