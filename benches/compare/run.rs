//! One run of one system on one workload: from its start to the commit of the last record.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::check::{Content, observed};
use crate::cluster::{Cluster, Progress};
use crate::measure::{Sample, Usage, Written, size, steady};
use crate::process::{LOOK, Process};
use crate::systems::{Start, System};
use crate::workload::Workload;

/// No run may take longer.
const LIMIT: Duration = Duration::from_secs(1_800);
/// What it writes behind the commit of its last record must come within this time.
const OUTPUT_LIMIT: Duration = Duration::from_secs(60);

/// What one run took.
#[derive(Clone, Debug)]
pub struct Run {
    /// Which system.
    pub system: &'static str,
    /// Which workload.
    pub workload: String,
    /// Records of the input, the closing ones included.
    pub records: u64,
    /// From the process's start to the commit of the last record.
    pub wall_s: f64,
    /// In the same time.
    pub cpu_s: f64,
    /// CPU seconds per million records while it is neither starting nor ending.
    pub steady_cpu_s: Option<f64>,
    /// Records per second in the same part of the run.
    pub steady_records_per_s: Option<f64>,
    /// CPU seconds per million records of the broker, where it is ours, in the same part of the run.
    pub steady_broker_cpu_s: Option<f64>,
    /// The highest resident memory.
    pub rss_max_bytes: u64,
    /// Written to internal topics.
    pub changelog_bytes: Option<u64>,
    /// On the local disk in the end.
    pub state_bytes: u64,
    /// Whether the committed output is that of an independent fold; `None` for a system that writes none.
    pub right: Option<bool>,
    /// Rows of the output, committed ones.
    pub rows: u64,
}

impl Run {
    /// As a line of JSON, with per-million figures rather than totals.
    pub fn json(&self) -> Value {
        let per_million = |total: f64| total * 1e6 / self.records as f64;
        json!({
            "system": self.system,
            "workload": self.workload,
            "records": self.records,
            "cpu_s_per_million": per_million(self.cpu_s),
            "steady_cpu_s_per_million": self.steady_cpu_s,
            "steady_records_per_s": self.steady_records_per_s,
            "steady_broker_cpu_s_per_million": self.steady_broker_cpu_s,
            "records_per_s": self.records as f64 / self.wall_s,
            "rss_max_mib": self.rss_max_bytes as f64 / f64::from(1 << 20),
            "changelog_mb_per_million": self.changelog_bytes.map(|bytes| per_million(bytes as f64) / 1e6),
            "state_mb": self.state_bytes as f64 / 1e6,
            "rows": self.rows,
            "right": self.right,
        })
    }
}

/// Runs `system` on `workload`; its files stand under `dir`, and go with it.
pub fn run(
    cluster: &Cluster,
    system: &System,
    workload: &Workload,
    round: u64,
    expected: Content,
    dir: &Path,
) -> Run {
    let id = format!("bench-{}-{}-{round}", workload.name, system.name);
    let input = workload.input.topic();
    let total = cluster.records(&input);
    let output = format!("{id}-output");
    cluster.admin().create(&[(&output, workload.input.partitions)]);
    let start = Start {
        bootstrap: cluster.bootstrap(),
        job: workload.job,
        input: input.clone(),
        output: output.clone(),
        id: id.clone(),
        commit_ms: workload.commit_ms,
        state_dir: dir.join(&id),
        threads: 2,
        restores: false,
    };
    let progress = Progress::new(cluster, &id, &input);
    let internal = {
        let (id, output) = (id.clone(), output.clone());
        move |folder: &str| folder.contains(&id) && !folder.starts_with(&output)
    };
    let mut written = cluster.data().map(|data| Written::new(data, internal));
    let log = start.state_dir.with_extension("log");
    let mut process = Process::spawn(system, &start, &log);
    let watched = watch(cluster, system, &mut process, &progress, &mut written, total);
    let samples = &watched.samples;
    let mut run = Run {
        system: system.name,
        workload: workload.name.clone(),
        records: total,
        wall_s: samples.last().map_or(0.0, |sample| sample.wall_s),
        cpu_s: watched.usage.cpu_s,
        steady_cpu_s: steady(samples, total, |sample| sample.cpu_s),
        steady_records_per_s: steady(samples, total, |sample| sample.wall_s).map(|seconds| 1e6 / seconds),
        steady_broker_cpu_s: cluster
            .broker_pid()
            .and_then(|_| steady(samples, total, |sample| sample.broker_cpu_s)),
        rss_max_bytes: watched.usage.rss_max_bytes,
        changelog_bytes: written.map(|written| written.bytes()),
        state_bytes: size(&start.state_dir),
        right: None,
        rows: 0,
    };
    if system.writes() {
        let found = settled(cluster, workload, &output, expected);
        (run.rows, run.right) = (found.rows, Some(found == expected));
    } else {
        tell_of_itself(&mut run, &std::fs::read_to_string(&log).expect("its line"));
    }
    process.stop();
    cluster.forget(&id);
    let _ = std::fs::remove_dir_all(&start.state_dir);
    run
}

/// What was seen of a process until it was done.
struct Watched {
    samples: Vec<Sample>,
    /// The last that was seen of it.
    usage: Usage,
}

/// Looks at a process, again and again, until it has committed `total` records, or has ended if it commits none.
fn watch(
    cluster: &Cluster,
    system: &System,
    process: &mut Process,
    progress: &Progress,
    written: &mut Option<Written>,
    total: u64,
) -> Watched {
    let broker_s = || cluster.broker_pid().map_or(0.0, |pid| Usage::of(pid).cpu_s);
    let (begun, broker_before_s) = (Instant::now(), broker_s());
    let mut watched = Watched { samples: Vec::new(), usage: Usage::default() };
    while watched.samples.last().is_none_or(|sample| sample.records < total) {
        if system.writes() {
            process.check_runs();
        } else if process.has_ended() {
            break;
        }
        assert!(begun.elapsed() < LIMIT, "{} has no end", system.name);
        std::thread::sleep(LOOK);
        let records = progress.committed().unwrap_or(0);
        watched.usage = Usage::of(process.pid());
        written.iter_mut().for_each(Written::observe);
        watched.samples.push(Sample {
            wall_s: begun.elapsed().as_secs_f64(),
            cpu_s: watched.usage.cpu_s,
            broker_cpu_s: broker_s() - broker_before_s,
            records,
        });
    }
    watched
}

/// The committed output, once it is what it must be or nothing more comes.
fn settled(cluster: &Cluster, workload: &Workload, output: &str, expected: Content) -> Content {
    let waiting = Instant::now();
    let mut found = observed(cluster, workload.job, output);
    while found != expected && waiting.elapsed() < OUTPUT_LIMIT {
        std::thread::sleep(Duration::from_secs(2));
        found = observed(cluster, workload.job, output);
    }
    found
}

/// The bare loop commits nothing: it says itself what it took.
fn tell_of_itself(run: &mut Run, line: &str) {
    let told: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let number = |name: &str| told[name].as_f64().unwrap_or_else(|| panic!("no `{name}` in {line}"));
    assert_eq!(told["failed"], 0);
    run.wall_s = number("wall_s");
    run.cpu_s = number("cpu_s");
    run.steady_cpu_s = Some(number("steady_cpu_s_per_million"));
    run.rss_max_bytes = number("rss_max_bytes") as u64;
    run.steady_records_per_s = None;
    run.steady_broker_cpu_s = None;
    run.changelog_bytes = None;
}
