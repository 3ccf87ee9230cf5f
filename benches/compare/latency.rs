//! From a record's instant to the committed result that a reader sees, at a fixed rate of input.
//!
//! The generator's schedule does not wait for anybody, each record carries the instant at which it was due,
//! and what is measured ends when a read_committed consumer has the result: a pause shows in all records
//! that were due in it (no coordinated omission).

use std::ops::Range;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::check::read;
use crate::cluster::Cluster;
use crate::measure::{Machine, Usage};
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

/// A result, or an order of the input.
#[derive(Deserialize)]
struct Row<'a> {
    created_at: i64,
    status: Option<&'a str>,
}

/// The latency of projecting orders, as a line of JSON, in milliseconds; without a system that of the input
/// itself: what generator, broker, reader and machine come to, which is in every system's latency.
pub fn latency(cluster: &Cluster, system: Option<&System>, load: Load, dir: &Path) -> Value {
    let name = system.map_or("nothing", |system| system.name);
    let id = format!("bench-latency-{name}-{}-{}", load.rate, load.commit_ms);
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
    let log = start.state_dir.with_extension("log");
    let mut process = system.map(|system| Process::spawn(system, &start, &log));
    let generator = generate(cluster, &input, load);
    let began_ms = unix_ms();
    let counted =
        began_ms + WARM_UP.as_millis() as i64..began_ms + (WARM_UP + load.duration).as_millis() as i64;
    let heard =
        listen(&cluster.reader(if system.is_some() { &output } else { &input }), &counted, &mut process);
    let generated = generator.wait_with_output().expect("the generator's end");
    assert!(generated.status.success(), "the generator failed");
    let told: Value = serde_json::from_slice(&generated.stdout).expect("its line");
    if let Some(process) = process {
        process.stop();
    }
    let due = paid_in(cluster, &input, &counted);
    cluster.forget(&id);
    let Heard { mut waits_ms, before, after } = heard;
    waits_ms.sort_unstable();
    let last = waits_ms.len().saturating_sub(1);
    let at = |share: f64| waits_ms.get(((waits_ms.len() as f64 * share) as usize).min(last));
    let span = before.zip(after);
    let cpu_s = span.and_then(|(before, after)| Some(after.0? - before.0?));
    json!({
        "latency_of": name,
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
        // What the host took: nobody's latency can be better than that lets it.
        "stolen_share": span.map(|(before, after)| after.1.stolen_since(&before.1)),
        "cores": cpu_s.map(|cpu_s| cpu_s / load.duration.as_secs_f64()),
    })
}

/// Orders of now, at the load's rate, until its duration is over.
fn generate(cluster: &Cluster, topic: &str, load: Load) -> Child {
    let records = load.rate * (WARM_UP + load.duration).as_secs();
    Command::new(binary())
        .args(["bench", "generate", "orders", "--topic", topic, "--no-close", "--disorder", "0s"])
        .args(["--rate", &load.rate.to_string(), "--records", &records.to_string()])
        .args(["--bootstrap-servers", &cluster.bootstrap()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the generator starts")
}

/// What a reader heard.
struct Heard {
    /// How late each result was that counts.
    waits_ms: Vec<i64>,
    /// When the counting begins and when it ends: the CPU time of the process, if there is one, and of the machine.
    before: Option<(Option<f64>, Machine)>,
    after: Option<(Option<f64>, Machine)>,
}

/// Reads results until those due in `counted` have come, or nothing has come for long.
fn listen(consumer: &BaseConsumer, counted: &Range<i64>, process: &mut Option<Process>) -> Heard {
    let mut heard = Heard { waits_ms: Vec::new(), before: None, after: None };
    let mut last = Instant::now();
    while unix_ms() < counted.end || last.elapsed() < SILENCE {
        let look = || (process.as_ref().map(|process| Usage::of(process.pid()).cpu_s), Machine::now());
        if unix_ms() >= counted.start {
            heard.before.get_or_insert_with(look);
        }
        if unix_ms() >= counted.end {
            heard.after.get_or_insert_with(look);
        }
        if let Some(process) = process {
            process.check_runs();
        }
        let message = match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => message,
            None | Some(Err(KafkaError::PartitionEOF(_))) => continue,
            Some(Err(error)) => panic!("{error}"),
        };
        let row: Row<'_> = serde_json::from_slice(message.payload().expect("a value")).expect("a row");
        last = Instant::now();
        // Results have no status: all of them are paid.
        if counted.contains(&row.created_at) && row.status.is_none_or(|status| status == "paid") {
            heard.waits_ms.push((unix_ms() - row.created_at).max(0));
        }
    }
    heard
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
