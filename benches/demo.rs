//! A topology at work: a broker, orders, Thalweg, and what comes out, live in this terminal.
//!
//! Ctrl-C, or the end of `DEMO_SECONDS`, ends all of it in order; then the results are compared with what
//! they must be. Exit code 1 if they differ. `DEMO_RATE` is the number of orders per second.
#![allow(clippy::disallowed_methods, reason = "the demo lives in real time")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use support::broker::Broker;
use support::kafka::{Admin, Isolation, Reader, Record, Writer};
use support::orders::{Generated, Generator, Orders, close_windows};
use support::reference::{Windows, fold};
use support::thalweg::{Metrics, Start, Thalweg};
use support::{env_or, unix_ms};

const WINDOW_S: i64 = 5;
const LATENESS_S: i64 = 2;
const INPUT: &str = "orders";
const REJECTED: &str = "orders-rejected";
const OUTPUT: &str = "revenue-per-minute";
const PARTITIONS: i32 = 4;
/// Everything is kept in memory for the comparison at the end; so a demo that nobody ends ends itself.
const SECONDS_MAX: u64 = 900;

fn main() -> ExitCode {
    let seconds = env_or("DEMO_SECONDS", SECONDS_MAX).min(SECONDS_MAX);
    let stop = stop_on_ctrl_c();
    let dir = support::Folder::new();
    println!("starting Apache Kafka…");
    let broker = Broker::start_apart(&dir.path().join("kafka"));
    let bootstrap = broker.bootstrap();
    let topics = [(INPUT, PARTITIONS), (OUTPUT, PARTITIONS), (REJECTED, 1)];
    Admin::new(&bootstrap).create(&topics);
    println!("starting thalweg run topologies/revenue_per_minute.yaml, with windows of {WINDOW_S} s…");
    let mut thalweg = start(&bootstrap, dir.path()).spawn();
    let traffic = Traffic::start(&bootstrap, env_or("DEMO_RATE", 1_000), stop.clone());
    let mut view = View::new(&bootstrap);
    let begun = Instant::now();
    while !stop.load(Ordering::Relaxed) && begun.elapsed().as_secs() < seconds {
        if let Some(status) = thalweg.ended() {
            eprintln!("thalweg ended by itself with {status}; its log:\n{}", thalweg.log());
            return ExitCode::FAILURE;
        }
        view.show(&thalweg, traffic.written.load(Ordering::Relaxed), begun.elapsed());
        std::thread::sleep(Duration::from_millis(500));
    }
    println!("\nending: closing the open windows…");
    stop.store(true, Ordering::Relaxed);
    let (writer, orders) = traffic.thread.join().expect("the orders were written");
    close_windows(&writer, INPUT, &orders, 3_600_000);
    let agrees = summary(&bootstrap, &mut thalweg);
    if agrees { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn start(bootstrap: &str, dir: &Path) -> Start {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("topologies/revenue_per_minute.yaml");
    let mut start = Start::new(&file, bootstrap, &dir.join("state")).workers(2);
    start.apart = true;
    start.environment = vec![
        ("WINDOW".to_string(), format!("{WINDOW_S}s")),
        ("ALLOWED_LATENESS".to_string(), format!("{LATENESS_S}s")),
    ];
    start
}

/// Ctrl-C sets a flag; everything is then ended in order.
fn stop_on_ctrl_c() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let pressed = stop.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(tokio::signal::ctrl_c()).expect("a handler for Ctrl-C");
        pressed.store(true, Ordering::Relaxed);
    });
    stop
}

/// Orders dated now, as they come.
struct Traffic {
    written: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<(Writer, Generator)>,
}

impl Traffic {
    fn start(bootstrap: &str, per_second: u64, stop: Arc<AtomicBool>) -> Traffic {
        let spec = Orders {
            seed: unix_ms() as u64,
            keys: 50,
            partitions: PARTITIONS,
            start_ms: unix_ms(),
            step_ms: 1_000.0 / per_second as f64,
            disorder_ms: 4_000,
            late_share: 0.002,
            late_ms: 60_000,
            malformed_share: 0.0,
            null_share: 0.001,
            odd_share: 0.0,
        };
        let (writer, written) = (Writer::new(bootstrap), Arc::new(AtomicU64::new(0)));
        let count = written.clone();
        let thread = std::thread::spawn(move || {
            let mut orders = Generator::new(spec);
            let mut order = Generated::default();
            while !stop.load(Ordering::Relaxed) {
                while orders.now_ms() <= unix_ms() {
                    orders.next(&mut order);
                    let value = (!order.null).then_some(order.value.as_slice());
                    writer.send(INPUT, order.partition, Some(&order.key), value, order.timestamp_ms);
                    count.fetch_add(1, Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            writer.flush();
            (writer, orders)
        });
        Traffic { written, thread }
    }
}

/// The live view: redrawn on a terminal, a line every five seconds elsewhere.
struct View {
    results: Reader,
    last: Option<(Instant, f64)>,
    terminal: bool,
    shown: Option<Instant>,
}

impl View {
    fn new(bootstrap: &str) -> View {
        let results = Reader::new(bootstrap, OUTPUT, Isolation::Committed);
        View { results, last: None, terminal: std::io::stdout().is_terminal(), shown: None }
    }

    fn show(&mut self, thalweg: &Thalweg, written: u64, elapsed: Duration) {
        self.results.read_to_end();
        let metrics = thalweg.metrics().unwrap_or_default();
        let records_in = metrics.sum("thalweg_records_in_total");
        let rate = self.last.map_or(0.0, |(at, before)| (records_in - before) / at.elapsed().as_secs_f64());
        self.last = Some((Instant::now(), records_in));
        let text = if self.terminal {
            format!("\x1b[H\x1b[2J{}", self.screen(&metrics, written, rate, elapsed))
        } else if self.shown.is_none_or(|at| at.elapsed() >= Duration::from_secs(5)) {
            self.shown = Some(Instant::now());
            format!(
                "{:3} s: {written} orders written, {records_in} read ({rate:.0}/s), lag {}, {} checkpoints \
                 ({:.1} ms), watermark {}, {} results\n",
                elapsed.as_secs(),
                metrics.sum("thalweg_lag_records"),
                metrics.sum("thalweg_checkpoints_total"),
                checkpoint_ms(&metrics),
                watermark(&metrics),
                self.results.records.len()
            )
        } else {
            return;
        };
        let mut out = std::io::stdout().lock();
        // A terminal that went away ends the demo at its next line, as it would any program.
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).expect("the terminal takes text");
    }

    fn screen(&self, metrics: &Metrics, written: u64, rate: f64, elapsed: Duration) -> String {
        let mut s = String::new();
        let mut line = |name: &str, value: String| writeln!(s, "  {name:<14}{value}").expect("a String");
        line("Thalweg", format!("revenue per customer and {WINDOW_S} s, exactly once   (Ctrl-C ends it)\n"));
        line("running", format!("{} s", elapsed.as_secs()));
        line("orders", format!("{written} written, {} read", metrics.sum("thalweg_records_in_total")));
        line("input rate", format!("{rate:.0} records/s"));
        line("lag", format!("{} records", metrics.sum("thalweg_lag_records")));
        line("watermark", watermark(metrics));
        let checkpoints = metrics.sum("thalweg_checkpoints_total");
        line("checkpoints", format!("{checkpoints}, {:.1} ms each on average", checkpoint_ms(metrics)));
        let (state, cache) = (metrics.sum("thalweg_state_bytes"), metrics.sum("thalweg_cache_bytes"));
        line("state", format!("{:.0} KiB in stores, {:.0} KiB cached", state / 1024.0, cache / 1024.0));
        line(
            "late, bad",
            format!(
                "{}, {}",
                metrics.sum("thalweg_records_late_total"),
                metrics.sum("thalweg_dead_letters_total")
            ),
        );
        let results = &self.results.records;
        line("results", format!("{} committed; the newest:\n", results.len()));
        for record in results.iter().rev().take(10) {
            let row = record.json();
            let at = |name: &str| clock(row[name].as_i64().unwrap_or(0));
            let (from, to) = (at("window_start"), at("window_end"));
            let customer = row["customer"].as_str().unwrap_or_default();
            let revenue = row["revenue"].as_f64().unwrap_or(0.0);
            writeln!(s, "    {from} - {to}  {customer}  {:>4} orders  {revenue:>10.2}", row["orders"])
                .expect("a String");
        }
        s
    }
}

fn checkpoint_ms(metrics: &Metrics) -> f64 {
    let count = metrics.sum("thalweg_checkpoint_duration_seconds_count");
    metrics.sum("thalweg_checkpoint_duration_seconds_sum") / count.max(1.0) * 1_000.0
}

/// The oldest of the partitions' watermarks, and how far it is behind the clock.
fn watermark(metrics: &Metrics) -> String {
    match metrics.min("thalweg_watermark_ms") {
        Some(ms) if ms > 0.0 => {
            let behind_s = (unix_ms() as f64 - ms) / 1_000.0;
            format!("{} ({behind_s:.1} s behind)", clock(ms as i64))
        }
        _ => "none yet".to_string(),
    }
}

fn clock(ms: i64) -> String {
    let s = ms.div_euclid(1_000).rem_euclid(86_400);
    format!("{:02}:{:02}:{:02}", s / 3_600, s / 60 % 60, s % 60)
}

/// Waits for the last results, ends Thalweg, prints the totals. Returns whether every window came out
/// once, with exactly the orders and the revenue that the input gives.
fn summary(bootstrap: &str, thalweg: &mut Thalweg) -> bool {
    let input = Reader::all(bootstrap, INPUT);
    let windows = Windows {
        keep: |order| order.status == "paid" && order.amount > 0.0,
        key: |order| order.customer.clone(),
        size_ms: WINDOW_S * 1_000,
        lateness_ms: LATENESS_S * 1_000,
        disorder_ms: 5_000,
    };
    let folded = fold(&input, windows, false);
    let mut expected = BTreeMap::new();
    for ((customer, start), window) in folded.windows.iter().filter(|(_, w)| w.closed) {
        let revenue = window.orders.iter().fold(0.0, |sum, order| sum + order.amount);
        expected.insert((customer.clone(), *start), (window.orders.len() as u64, revenue));
    }
    let mut results = Reader::new(bootstrap, OUTPUT, Isolation::Committed);
    let begun = Instant::now();
    while results.records.len() < expected.len() && begun.elapsed() < Duration::from_secs(30) {
        results.read_to_end();
    }
    let metrics = thalweg.metrics().unwrap_or_default();
    thalweg.stop(Duration::from_secs(10));
    results.read_to_end();
    let rejected = Reader::all(bootstrap, REJECTED).len();
    let actual: Vec<_> = results.records.iter().map(row).collect();
    let total =
        |rows: &mut dyn Iterator<Item = (u64, f64)>| rows.fold((0, 0.0), |t, r| (t.0 + r.0, t.1 + r.1));
    let (orders, revenue) = total(&mut actual.iter().map(|(_, row)| *row));
    let (orders_due, revenue_due) = total(&mut expected.values().copied());
    let late = folded.late.len();
    println!("records in     {} ({late} late, {rejected} rejected)", input.len());
    println!("windows out    {} of {}", actual.len(), expected.len());
    println!("in them        {orders} orders of {orders_due}, revenue {revenue:.2} of {revenue_due:.2}");
    let (checkpoints, ms) = (metrics.sum("thalweg_checkpoints_total"), checkpoint_ms(&metrics));
    println!("checkpoints    {checkpoints}, {ms:.1} ms each on average");
    let distinct: BTreeMap<_, _> = actual.iter().cloned().collect();
    let agrees = distinct.len() == actual.len() && distinct == expected && rejected == folded.rejected.len();
    println!("{}", if agrees { "the totals agree" } else { "THE TOTALS DIFFER" });
    agrees
}

fn row(record: &Record) -> ((String, i64), (u64, f64)) {
    let json = record.json();
    let customer = json["customer"].as_str().expect("a customer").to_string();
    let start = json["window_start"].as_i64().expect("a start");
    ((customer, start), (json["orders"].as_u64().expect("a count"), json["revenue"].as_f64().expect("a sum")))
}
