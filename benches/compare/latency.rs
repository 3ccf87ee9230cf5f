//! From a record's instant to the committed result that a reader sees, at a fixed rate of input.
//!
//! The generator's schedule does not wait for anybody, each record carries the instant at which it was due,
//! and what is measured ends when a read_committed consumer has the result: a pause shows in all records
//! that were due in it (no coordinated omission).

use std::ops::Range;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::check::read;
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
/// After the end of the input: when nothing has come for so long, the rest is missing.
const SILENCE: Duration = Duration::from_secs(15);

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
    let generator = Command::new(binary())
        .args(["bench", "generate", "orders", "--topic", &input, "--no-close", "--disorder", "0s"])
        .args(["--rate", &load.rate.to_string(), "--records", &records.to_string()])
        .args(["--bootstrap-servers", &cluster.bootstrap()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the generator starts");
    let began_ms = unix_ms();
    let counted = began_ms + WARM_UP.as_millis() as i64..began_ms + whole.as_millis() as i64;
    let consumer = reader(cluster, &output);
    let mut waits_ms: Vec<i64> = Vec::new();
    let (mut cpu_before_s, mut cpu_after_s) = (None, None);
    let mut heard = Instant::now();
    while unix_ms() < counted.end || heard.elapsed() < SILENCE {
        process.check_runs();
        if unix_ms() >= counted.start {
            cpu_before_s.get_or_insert_with(|| Usage::of(process.pid()).cpu_s);
        }
        if unix_ms() >= counted.end {
            cpu_after_s.get_or_insert_with(|| Usage::of(process.pid()).cpu_s);
        }
        let Some(polled) = consumer.poll(Duration::from_millis(100)) else { continue };
        let message = polled.expect("a record");
        let row: Row = serde_json::from_slice(message.payload().expect("a value")).expect("a row");
        heard = Instant::now();
        if counted.contains(&row.created_at) {
            waits_ms.push((unix_ms() - row.created_at).max(0));
        }
    }
    let generated = generator.wait_with_output().expect("the generator's end");
    assert!(generated.status.success(), "the generator failed");
    let told: Value = serde_json::from_slice(&generated.stdout).expect("its line");
    process.stop();
    let due = paid_in(cluster, &input, &counted);
    cluster.forget(&id);
    waits_ms.sort_unstable();
    let last = waits_ms.len().saturating_sub(1);
    let at = |share: f64| waits_ms.get(((waits_ms.len() as f64 * share) as usize).min(last));
    let cpu_s = cpu_after_s.zip(cpu_before_s).map(|(after, before)| after - before);
    json!({
        "latency_of": system.name,
        "rate": load.rate,
        "commit_ms": load.commit_ms,
        "results": waits_ms.len(),
        // More than none: a result was lost, or came later than anybody waited.
        "missing": due as i64 - waits_ms.len() as i64,
        "generator_lag_max_ms": told["lag_max_ms"],
        "p50_ms": at(0.5),
        "p99_ms": at(0.99),
        "p999_ms": at(0.999),
        "max_ms": waits_ms.last(),
        "cores": cpu_s.map(|cpu_s| cpu_s / load.duration.as_secs_f64()),
    })
}

#[derive(Deserialize)]
struct Order<'a> {
    status: &'a str,
    created_at: i64,
}

/// How many of the input's orders in a span of time are paid: each has a result.
fn paid_in(cluster: &Cluster, input: &str, counted: &Range<i64>) -> u64 {
    let mut due = 0;
    read(cluster, input, &mut |value| {
        let order: Order<'_> = serde_json::from_slice(value).expect("an order");
        due += u64::from(order.status == "paid" && counted.contains(&order.created_at));
    });
    due
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
