//! Measures Thalweg beside the bare loop on the same orders and the same broker, a few times in turn, and
//! the time from a SIGKILL to the next committed output with much state. Prints lines of JSON and a table;
//! asserts nothing.
//!
//! `RECORDS` (10,000,000), `KEYS` (100,000), `ROUNDS` (3), `STATE_RECORDS` (8,000,000; 0: not measured)
//! and `SEED` (1) change the sizes.

#![allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use support::broker::Broker;
use support::kafka::{Admin, Isolation, Reader, Writer};
use support::orders::{Generator, Orders, produce};
use support::thalweg::{Start, Thalweg};
use support::{env_or, unix_ms, wait_for};

const PARTITIONS: i32 = 4;
const LIMIT: Duration = Duration::from_secs(3_600);

fn main() {
    let dir = support::Folder::new();
    let broker = Broker::start(&dir.path().join("kafka"));
    let records: u64 = env_or("RECORDS", 10_000_000);
    let rounds: u64 = env_or("ROUNDS", 3);
    // Ten minutes of event time, whatever the number of records.
    let spec = Orders {
        seed: env_or("SEED", 1),
        keys: env_or("KEYS", 100_000),
        step_ms: 600_000.0 / records as f64,
        ..clean()
    };
    generate(&broker, "orders", spec, records);
    let mut table = Vec::new();
    for round in 1..=rounds {
        let thalweg = thalweg_round(&broker, dir.path(), round, records);
        let bare = bare_round(&broker, records);
        println!("{{\"round\":{round},\"thalweg\":{},\"bare_loop\":{}}}", thalweg.json(), bare.json());
        table.push((thalweg, bare));
    }
    summary(&mut table);
    let state_records: u64 = env_or("STATE_RECORDS", 8_000_000);
    if state_records > 0 {
        kill_with_large_state(&broker, dir.path(), state_records);
    }
}

fn clean() -> Orders {
    Orders {
        partitions: PARTITIONS,
        late_share: 0.0,
        malformed_share: 0.0,
        null_share: 0.0,
        odd_share: 0.0,
        ..Orders::default()
    }
}

fn generate(broker: &Broker, topic: &str, spec: Orders, records: u64) {
    Admin::new(&broker.bootstrap()).create(&[(topic, PARTITIONS)]);
    let start = Instant::now();
    produce(&Writer::fast(&broker.bootstrap()), topic, &mut Generator::new(spec), records);
    println!(
        "{{\"generated\":{records},\"topic\":\"{topic}\",\"wall_s\":{:.1}}}",
        start.elapsed().as_secs_f64()
    );
}

/// What one run took.
#[derive(Clone, Debug, Default)]
struct Run {
    records: u64,
    cpu_s: f64,
    wall_s: f64,
    rss_max_bytes: u64,
    changelog_bytes: u64,
}

impl Run {
    fn cpu_s_per_million(&self) -> f64 {
        self.cpu_s * 1e6 / self.records as f64
    }

    fn json(&self) -> String {
        format!(
            "{{\"cpu_s_per_million\":{:.3},\"cpu_s\":{:.2},\"wall_s\":{:.2},\"rss_max_mib\":{},\
             \"changelog_mb_per_million\":{:.2}}}",
            self.cpu_s_per_million(),
            self.cpu_s,
            self.wall_s,
            self.rss_max_bytes >> 20,
            self.changelog_bytes as f64 / self.records as f64,
        )
    }
}

fn start(broker: &Broker, file: &str, state_dir: PathBuf, environment: &[(&str, String)]) -> Start {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches").join(file);
    let mut start = Start::new(&file, &broker.bootstrap(), &state_dir).workers(2).commit_interval("100ms");
    start.environment = environment.iter().map(|(k, v)| (k.to_string(), v.clone())).collect();
    start
}

fn thalweg_round(broker: &Broker, dir: &Path, round: u64, records: u64) -> Run {
    let environment = [("ROUND", round.to_string()), ("ORDERS", "orders".to_string())];
    let start = start(broker, "revenue.yaml", dir.join(format!("state{round}")), &environment);
    // The log is cut while it grows: its end offsets and live bytes say nothing about what was written.
    let changelog = format!("thalweg.bench-revenue-{round}.orders.changelog");
    let begun = Instant::now();
    let mut process = start.clone().bounded().spawn();
    let mut run = Run { records, ..Run::default() };
    let mut sizes = Written::new(broker, &changelog);
    let status = loop {
        if let Some(status) = process.ended() {
            break status;
        }
        run.observe(process.pid());
        sizes.observe();
        assert!(begun.elapsed() < LIMIT, "no end");
        std::thread::sleep(Duration::from_millis(20));
    };
    run.wall_s = begun.elapsed().as_secs_f64();
    assert!(status.success(), "{status}; its log:\n{}", process.log());
    sizes.observe();
    run.changelog_bytes = sizes.total();
    run
}

impl Run {
    /// CPU time and the highest memory of a process that is still there, from /proc.
    fn observe(&mut self, pid: u32) {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        // Fields 14 and 15 behind the name, which is in parentheses: ticks of 10 ms.
        let stat = read("stat");
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
        self.cpu_s = self.cpu_s.max((ticks(11) + ticks(12)) as f64 / 100.0);
        let status = read("status");
        let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or("0");
        let kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap_or(0);
        self.rss_max_bytes = self.rss_max_bytes.max(kib * 1024);
    }
}

/// The bytes ever written to a topic: the greatest size seen of each segment file, also of those that
/// were deleted since. (A segment is there for seconds at least: it is deleted a second after the cut.)
struct Written {
    data: PathBuf,
    topic: String,
    segments: std::collections::BTreeMap<PathBuf, u64>,
}

impl Written {
    fn new(broker: &Broker, topic: &str) -> Written {
        Written { data: broker.data(), topic: topic.to_string(), segments: Default::default() }
    }

    fn observe(&mut self) {
        for partition in 0..PARTITIONS {
            let folder = self.data.join(format!("{}-{partition}", self.topic));
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.extension().is_some_and(|e| e == "log") {
                    let bytes = entry.metadata().map_or(0, |m| m.len());
                    let greatest = self.segments.entry(path).or_default();
                    *greatest = bytes.max(*greatest);
                }
            }
        }
    }

    fn total(&self) -> u64 {
        self.segments.values().sum()
    }
}

fn bare_round(broker: &Broker, records: u64) -> Run {
    let program = support::thalweg::binary().with_file_name("examples").join("bare_loop");
    let output =
        Command::new(program).args([&broker.bootstrap(), "orders"]).output().expect("bare_loop starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a line of JSON");
    assert_eq!(json["failed"], 0);
    let number = |name: &str| json[name].as_f64().expect("a number");
    Run {
        records,
        cpu_s: number("cpu_s"),
        wall_s: number("wall_s"),
        rss_max_bytes: number("rss_max_bytes") as u64,
        changelog_bytes: 0,
    }
}

fn summary(table: &mut [(Run, Run)]) {
    let median = |of: &dyn Fn(&(Run, Run)) -> f64| {
        let mut values: Vec<f64> = table.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let thalweg = median(&|(t, _)| t.cpu_s_per_million());
    let bare = median(&|(_, b)| b.cpu_s_per_million());
    println!("CPU-s per million records   thalweg {thalweg:.3}   bare loop {bare:.3}");
    println!(
        "ratio (median of rounds)    {:.2}",
        median(&|(t, b)| t.cpu_s_per_million() / b.cpu_s_per_million())
    );
    println!(
        "million records per second  thalweg {:.2}   bare loop {:.2}",
        median(&|(t, _)| t.records as f64 / t.wall_s / 1e6),
        median(&|(_, b)| b.records as f64 / b.wall_s / 1e6)
    );
    println!(
        "peak memory, MiB            thalweg {:.0}",
        median(&|(t, _)| t.rss_max_bytes as f64 / 1_048_576.0)
    );
    println!(
        "changelog, MB per million   thalweg {:.2}",
        median(&|(t, _)| t.changelog_bytes as f64 / t.records as f64)
    );
}

/// Fills a window that stays open, then kills the process while probes pass, and waits for the next one
/// to be committed.
fn kill_with_large_state(broker: &Broker, dir: &Path, records: u64) {
    let bootstrap = broker.bootstrap();
    let topic = "orders-for-state";
    let spec = Orders { seed: 2, keys: 100_000, step_ms: 0.01, ..clean() };
    generate(broker, topic, spec, records);
    let start = start(broker, "large_state.yaml", dir.join("large-state"), &[("ORDERS", topic.to_string())]);
    let mut process = start.spawn();
    process.ready(LIMIT);
    let writer = Writer::new(&bootstrap);
    let probe = || {
        let now_ms = Orders::default().start_ms + 3_600_000;
        let value = format!(
            "{{\"order_id\":\"probe\",\"customer\":\"probe\",\"amount\":1.0,\"created_at\":{now_ms}}}"
        );
        (0..PARTITIONS)
            .for_each(|p| writer.send(topic, p, Some(b"probe"), Some(value.as_bytes()), unix_ms()));
        writer.flush();
    };
    wait_for("all orders to be in the state", LIMIT, || {
        // A partition that moves between workers counts anew, so the count alone does not tell.
        let many = process.metric("thalweg_records_in_total") >= records as f64 / 2.0;
        (many && process.metric("thalweg_lag_records") == 0.0).then_some(())
    });
    let mut reader = Reader::new(&bootstrap, "bench-probes", Isolation::Committed);
    probe();
    reader.read_until(PARTITIONS as usize, LIMIT);
    let state_bytes = process.metric("thalweg_state_bytes");
    process.kill();
    let killed = Instant::now();
    let restarted = start.spawn();
    let first = next_output(&mut reader, &probe, killed);
    println!(
        "{{\"state_bytes\":{state_bytes},\"restored_records\":{},\"first_output_s\":{first:.2}}}",
        restarted.metric("thalweg_restore_records_total"),
    );
    println!("SIGKILL to next output, s   {first:.2} with {:.2} GB of state", state_bytes / 1e9);
    shut(restarted);
}

fn next_output(reader: &mut Reader, probe: &dyn Fn(), killed: Instant) -> f64 {
    loop {
        probe();
        if reader.read_to_end() > 0 {
            return killed.elapsed().as_secs_f64();
        }
        assert!(killed.elapsed() < LIMIT, "no output after the restart");
    }
}

fn shut(mut process: Thalweg) {
    process.stop(Duration::from_secs(60));
}
