//! From a record's instant to the committed result that a reader sees, at a fixed rate of input.
//!
//! The generator's schedule does not wait for anybody, each record carries the instant at which it was due,
//! and what is measured ends when a read_committed consumer has the result: a pause shows in all records
//! that were due in it (no coordinated omission).

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::measure::Usage;
use crate::process::Process;
use crate::support::thalweg::binary;
use crate::support::unix_ms;
use crate::systems::{Start, System};
use crate::workload::Job;

const PARTITIONS: i32 = 4;
/// What is due before that is not counted: JITs compile, caches fill.
const WARM_UP: Duration = Duration::from_secs(20);
/// How long what was due last may take to come.
const TAIL: Duration = Duration::from_secs(30);

/// How it is measured.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Records per second.
    pub rate: u64,
    /// How long, behind the warm-up.
    pub duration: Duration,
    /// How often the system commits.
    pub commit_ms: u64,
}

#[derive(Deserialize)]
struct Row {
    created_at: i64,
}

/// The latency of projecting orders, as a line of JSON, in milliseconds.
pub fn latency(cluster: &Cluster, system: &System, load: Load, dir: &Path) -> Value {
    let id = format!("bench-latency-{}-{}-{}", system.name, load.rate, load.commit_ms);
    let (input, output) = (format!("{id}-input"), format!("{id}-output"));
    cluster.admin().create(&[(&input, PARTITIONS), (&output, PARTITIONS)]);
    let start = Start {
        bootstrap: cluster.bootstrap(),
        job: Job::Project,
        input: input.clone(),
        output: output.clone(),
        id: id.clone(),
        commit_ms: load.commit_ms,
        state_dir: dir.join(&id),
        threads: 2,
        restores: false,
    };
    let mut process = Process::spawn(system, &start, &start.state_dir.with_extension("log"));
    let whole = WARM_UP + load.duration;
    let records = load.rate * whole.as_secs();
    let mut generator = Command::new(binary())
        .args(["bench", "generate", "orders", "--topic", &input, "--no-close", "--disorder", "0s"])
        .args(["--rate", &load.rate.to_string(), "--records", &records.to_string()])
        .args(["--bootstrap-servers", &cluster.bootstrap()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("the generator starts");
    let began_ms = unix_ms();
    let from_ms = began_ms + WARM_UP.as_millis() as i64;
    let until_ms = began_ms + whole.as_millis() as i64;
    let consumer = reader(cluster, &output);
    let mut waits_ms: Vec<u32> = Vec::new();
    let mut cpu_before_s = None;
    let mut heard = Instant::now();
    while unix_ms() < until_ms || heard.elapsed() < Duration::from_secs(2) {
        process.check_runs();
        if cpu_before_s.is_none() && unix_ms() >= from_ms {
            cpu_before_s = Some(Usage::of(process.pid()).cpu_s);
        }
        let Some(polled) = consumer.poll(Duration::from_millis(100)) else { continue };
        let message = polled.expect("a record");
        let row: Row = serde_json::from_slice(message.payload().expect("a value")).expect("a row");
        let now_ms = unix_ms();
        heard = Instant::now();
        if (from_ms..until_ms).contains(&row.created_at) {
            waits_ms.push((now_ms - row.created_at).max(0) as u32);
        }
        if now_ms > until_ms + TAIL.as_millis() as i64 {
            break;
        }
    }
    let cpu_s = Usage::of(process.pid()).cpu_s - cpu_before_s.unwrap_or(0.0);
    assert!(generator.wait().expect("the generator's end").success());
    process.stop();
    waits_ms.sort_unstable();
    let at = |share: f64| waits_ms.get(((waits_ms.len() as f64 * share) as usize).min(waits_ms.len() - 1));
    json!({
        "latency_of": system.name,
        "rate": load.rate,
        "commit_ms": load.commit_ms,
        "results": waits_ms.len(),
        "p50_ms": at(0.5),
        "p99_ms": at(0.99),
        "p999_ms": at(0.999),
        "max_ms": waits_ms.last(),
        "cores": cpu_s / load.duration.as_secs_f64(),
    })
}

fn reader(cluster: &Cluster, topic: &str) -> BaseConsumer {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap())
        .set("group.id", "bench-that-commits-nothing")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("fetch.wait.max.ms", "5")
        .set("fetch.queue.backoff.ms", "1")
        .create()
        .expect("a consumer");
    let mut assignment = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        assignment.add_partition_offset(topic, partition, Offset::Beginning).expect("a partition");
    }
    consumer.assign(&assignment).expect("an assignment");
    consumer
}
