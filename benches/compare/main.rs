//! Compares Thalweg with Kafka Streams, Flink and a bare loop: the same jobs on the same topics and broker,
//! in turn. Asserts nothing about speed.
//!
//! What the throughput part writes is compared with a fold of the input, and what the latency part writes is
//! counted; the recovery part writes nothing until its window closes. Wrong results end it with exit code 1.
//!
//! Writes a line of JSON per run, tables and charts into `OUT` (`bench-results`). The environment chooses what
//! runs, and says how much:
//!
//! - `BOOTSTRAP`: a cluster that is there; otherwise a broker is started.
//! - `PARTS`: `throughput,latency,recovery`. `SYSTEMS`, `WORKLOADS`: names, or begins of names; without them all
//!   workloads, and all systems but those that are Thalweg without a part (`make ablations`).
//! - Throughput: `RECORDS` (10,000,000), `ROUNDS` (3).
//! - Latency: `RATE` (20,000 records a second), `SECONDS` (60), `COMMITS_MS` (10,20,50,100).
//! - Recovery: `STATE_KEYS` (10,000,000).
//! - `QUICK=1`: a million records, one round, the main workloads: some ten minutes.

#![allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]

mod check;
mod cluster;
mod latency;
mod measure;
mod process;
mod recovery;
mod report;
mod run;
#[path = "../../tests/support/mod.rs"]
mod support;
mod systems;
mod workload;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use check::{Content, expected};
use cluster::Cluster;
use latency::Load;
use support::env_or;
use systems::System;
use workload::{Input, Job};

/// What `QUICK=1` leaves.
const QUICK_WORKLOADS: &str = "w1-100ms,w2";

fn main() -> ExitCode {
    let quick = std::env::var("QUICK").is_ok_and(|text| text == "1");
    let systems = chosen(systems::ALL.to_vec(), "SYSTEMS", systems::USUAL, |system| system.name);
    let out = PathBuf::from(text_or("OUT", "bench-results"));
    fs::create_dir_all(&out).expect("the folder for results");
    if systems.iter().any(System::is_peer) {
        build_peers();
    }
    let dir = support::Folder::new();
    let bootstrap = Some(text_or("BOOTSTRAP", "")).filter(|text| !text.is_empty());
    let cluster = Cluster::new(bootstrap, dir.path());
    let journal = File::create(out.join("results.jsonl")).expect("the file for results");
    let mut bench = Bench { quick, systems, cluster, dir, journal, results: Vec::new() };
    bench.note(about());
    let parts = text_or("PARTS", if quick { "throughput,latency" } else { "throughput,latency,recovery" });
    for part in parts.split(',') {
        match part.trim() {
            "throughput" => bench.throughput(),
            "latency" => bench.latency(),
            "recovery" => bench.recovery(),
            other => panic!("PARTS={parts}: there is no part `{other}`"),
        }
    }
    let report = report::report(&bench.results);
    fs::write(out.join("report.md"), &report).expect("the report is written");
    for workload in report::workloads(&bench.results) {
        let chart = report::chart(&bench.results, workload);
        fs::write(out.join(format!("{workload}.svg")), chart).expect("the chart is written");
    }
    println!("{report}");
    if bench.results.iter().any(report::is_wrong) {
        eprintln!("bench: there were wrong results");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

struct Bench {
    quick: bool,
    systems: Vec<System>,
    cluster: Cluster,
    dir: support::Folder,
    journal: File,
    results: Vec<Value>,
}

impl Bench {
    fn note(&mut self, result: Value) {
        println!("{result}");
        writeln!(self.journal, "{result}").expect("the results are written");
        self.results.push(result);
    }

    fn throughput(&mut self) {
        let records = env_or("RECORDS", if self.quick { 1_000_000 } else { 10_000_000 });
        let otherwise = if self.quick { QUICK_WORKLOADS } else { "" };
        let workloads = chosen(workload::all(records), "WORKLOADS", otherwise, |workload| &workload.name);
        let rounds: u64 = env_or("ROUNDS", if self.quick { 1 } else { 3 });
        let mut contents: HashMap<(Job, String), Content> = HashMap::new();
        for workload in &workloads {
            workload.input.generate(&self.cluster);
            let topic = workload.input.topic();
            let content = *contents
                .entry((workload.job, topic.clone()))
                .or_insert_with(|| expected(&self.cluster, workload.job, &topic));
            for round in 1..=rounds {
                for system in self.systems.clone().iter().filter(|system| system.does(workload.job)) {
                    let run = run::run(&self.cluster, system, workload, round, content, self.dir.path());
                    self.note(run.json());
                }
            }
        }
    }

    /// At a rate that all can follow, and at half of what each did in the projection; before them, that of the
    /// input alone.
    fn latency(&mut self) {
        let common: u64 = env_or("RATE", 20_000);
        let duration = Duration::from_secs(env_or("SECONDS", if self.quick { 10 } else { 60 }));
        let commits = text_or("COMMITS_MS", if self.quick { "20" } else { "10,20,50,100" });
        let commits = commits.split(',').map(|text| text.trim().parse().expect("COMMITS_MS are numbers"));
        let commits: Vec<u64> = commits.collect();
        let alone = Load { rate: common, duration, commit_ms: 0 };
        let floor = latency::latency(&self.cluster, None, alone, self.dir.path());
        self.note(floor);
        let systems = self.systems.clone();
        for system in systems.iter().filter(|system| system.writes() && system.does(Job::Project)) {
            let most = report::most_records_per_s(&self.results, system.name, "w2");
            let rates = [Some(common), most.map(|most| (most / 2.0) as u64)];
            for rate in rates.into_iter().flatten() {
                for &commit_ms in &commits {
                    let load = Load { rate, duration, commit_ms };
                    let result = latency::latency(&self.cluster, Some(system), load, self.dir.path());
                    self.note(result);
                }
            }
        }
    }

    fn recovery(&mut self) {
        let keys = env_or("STATE_KEYS", if self.quick { 1_000_000 } else { 10_000_000 });
        // So many that nearly all customers have come.
        let input = Input { bids: false, records: keys * 2, keys, zipf: None, partitions: 4 };
        let systems = self.systems.clone();
        for system in systems.iter().filter(|system| system.writes() && system.does(Job::Day)) {
            for result in recovery::recovery(&self.cluster, system, &input, self.dir.path()) {
                self.note(result);
            }
        }
    }
}

/// An environment variable, or what stands for it where it is missing or empty.
fn text_or(name: &str, otherwise: &str) -> String {
    std::env::var(name).ok().filter(|text| !text.is_empty()).unwrap_or_else(|| otherwise.to_owned())
}

/// The elements whose name begins with one of those in the environment variable, or in `otherwise`; all, if
/// neither names any.
fn chosen<T>(all: Vec<T>, variable: &str, otherwise: &str, name: impl Fn(&T) -> &str) -> Vec<T> {
    let text = text_or(variable, otherwise);
    let wanted: Vec<&str> = text.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
    let is_wanted =
        |element: &T| wanted.is_empty() || wanted.iter().any(|word| name(element).starts_with(word));
    let chosen: Vec<T> = all.into_iter().filter(is_wanted).collect();
    assert!(!chosen.is_empty(), "{variable}={text} names none");
    chosen
}

fn build_peers() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/peers.sh");
    let built = std::process::Command::new(script).arg("build").status().expect("peers.sh starts");
    assert!(built.success(), "the peers are not built");
}

/// What the figures depend on.
fn about() -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let of = |text: &str, field: &str| {
        let line = text.lines().find(|line| line.starts_with(field)).unwrap_or_default();
        line.split_once(':').map_or(String::new(), |(_, value)| value.trim().to_owned())
    };
    json!({
        "about": {
            "cpu": of(&read("/proc/cpuinfo"), "model name"),
            "cores": std::thread::available_parallelism().map_or(0, usize::from),
            "memory": of(&read("/proc/meminfo"), "MemTotal"),
            "kernel": read("/proc/sys/kernel/osrelease").trim(),
            "thalweg": env!("CARGO_PKG_VERSION"),
            "unix_ms": support::unix_ms(),
        }
    })
}
