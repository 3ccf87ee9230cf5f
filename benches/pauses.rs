//! How long a worker's thread is kept by one call while a large window is filled and closed. Runs a task on a RocksDB
//! store in the temporary folder, within the bounds that the settings have by default for one of two workers, as a worker
//! runs it: a step asks for the memory in use, takes a checkpoint if one is due, and processes up to a thousand records.
//!
//! `KEYS` (a million) keys have a record each in one window; then one record has the watermark pass its end, and it is
//! closed over as many steps and checkpoints as that takes. A checkpoint is due every `CHECKPOINT_STEPS` (14) steps, or
//! when the task says so; a flush every ten checkpoints, in which the store's part, of another thread, is not timed.
//! `CACHE_MIB` (1024) is what may stay in memory: with less, entries are evicted. `ROUNDS` (5) rounds.
//!
//! Prints for each kind of call how many there were, the longest in milliseconds, as the median and the least of all
//! rounds (the machine may stop any of them), and the sum of all; then the CPU time of its thread. It asserts nothing
//! about time.
#![allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use thalweg::operator::OutputTarget;
use thalweg::random::Random;
use thalweg::record::{Records, SourceRecord, TopicPartition};
use thalweg::rocks::{RocksSettings, RocksStores};
use thalweg::state::store::StoreFactory;
use thalweg::task::{Changelog, Restored, Targets, Task, TaskId, TaskLimits, TaskSpec, pipeline_factory};
use thalweg::topology::{self, plan::Start};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const WINDOW: &str = include_str!("compare/topologies/window.yaml");
/// The minute in which all orders but the last lie.
const START_MS: i64 = 1_700_000_040_000;
const BATCH_RECORDS: usize = 1_000;
const CHECKPOINT_MS: u64 = 100;
const MIB: usize = 1 << 20;

fn number(name: &str, default: usize) -> usize {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty());
    text.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// Orders of 200 bytes as the log hands them over.
struct Batch {
    partition: TopicPartition,
    first: i64,
    orders: Vec<(i64, Vec<u8>)>,
}

impl Batch {
    /// An order of each of these customers, the first at this offset.
    fn of(customers: &[u32], first: i64, created_at_ms: i64) -> Box<Batch> {
        let order = |customer: &u32| {
            let value = format!(
                "{{\"order_id\":\"order-{customer:010}\",\"customer\":\"customer-{customer:07}\",\"amount\":1234,\
                 \"status\":\"paid\",\"created_at\":{created_at_ms},\"currency\":\"EUR\",\"note\":\"{:36}\"}}",
                ""
            );
            (created_at_ms, value.into_bytes())
        };
        let orders = customers.iter().map(order).collect();
        Box::new(Batch { partition: TopicPartition::new("input", 0), first, orders })
    }
}

impl Records for Batch {
    fn topic_partition(&self) -> &TopicPartition {
        &self.partition
    }

    fn len(&self) -> usize {
        self.orders.len()
    }

    fn bytes(&self) -> usize {
        self.orders.iter().map(|(_, value)| value.len()).sum()
    }

    fn record(&self, index: usize) -> SourceRecord<'_> {
        let (timestamp_ms, value) = &self.orders[index];
        let (timestamp_ms, offset) = (*timestamp_ms, self.first + index as i64);
        SourceRecord { offset, timestamp_ms, key: None, value: Some(value), records: self, index }
    }

    fn headers<'b>(&'b self, _index: usize, _visit: &mut dyn FnMut(&'b str, Option<&'b [u8]>)) {}
}

/// The times of the calls, by kind.
#[derive(Default)]
struct Times(BTreeMap<&'static str, Vec<Duration>>);

impl Times {
    fn time<T>(&mut self, kind: &'static str, call: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let result = call();
        self.0.entry(kind).or_default().push(began.elapsed());
        result
    }

    /// As if the last call of this kind had been another.
    fn rename_last(&mut self, kind: &'static str, other: &'static str) {
        let last = self.0.get_mut(kind).and_then(Vec::pop);
        self.0.entry(other).or_default().extend(last);
    }
}

/// What a worker does with a task.
struct Rig {
    task: Task,
    times: Times,
    now_ms: u64,
    changelog_offset: i64,
    steps: usize,
    checkpoint_steps: usize,
    rows: usize,
    pinned_bytes_max: usize,
    _folder: tempfile::TempDir,
}

impl Rig {
    fn new() -> Rig {
        let environment = |name: &str| ["ID", "INPUT", "OUTPUT"].contains(&name).then(|| name.to_lowercase());
        let no_file = |_: &str| Err("there are no files here".to_owned());
        let plan = topology::parse(WINDOW, "pauses.yaml", &no_file, &environment).expect("no mistakes").plan;
        let target = OutputTarget { topic: "output".into(), partitions: 4, record_bytes_max: MIB };
        let targets = Targets::from([("output".to_owned(), Arc::new(target))]);
        let factory =
            pipeline_factory(Arc::new(plan), 0, Arc::new(targets), Arc::new([4])).expect("all targets");
        let topic_id = [1; 16];
        let spec = TaskSpec {
            id: TaskId { stage: "orders".into(), partition: 0 },
            source: TopicPartition::new("input", 0),
            start: Start::Earliest,
            changelog: Some(Changelog {
                partition: TopicPartition::new("changelog", 0),
                topic_id,
                record_bytes_max: MIB,
            }),
            bounded: false,
            drop_state: Vec::new(),
            repartitioned_by: None,
            idle_timeout_ms: None,
            alignment: None,
            sends_to: Vec::new(),
        };
        let folder = tempfile::tempdir().expect("a folder for the store");
        let stores = RocksStores::open(folder.path(), &RocksSettings::default()).expect("RocksDB");
        let store = stores.open("task").expect("a new store");
        let restored = Restored {
            store: Some(store),
            header: None,
            next_offset: 0,
            unanchored: false,
            end_offset: None,
            synced_offset: 0,
            log_start: 0,
            records_read: 0,
        };
        let cache_bytes_max = number("CACHE_MIB", 1024) * MIB;
        let limits = TaskLimits {
            staged_records_max: 50_000,
            staged_bytes_max: 12 * MIB,
            changelog_part_bytes: 512 << 10,
            chunk_bytes_min: 16 << 10,
            rest_percent: 100,
            rest_bytes_min: MIB,
            flush_bytes: 3 * MIB,
            flush_interval_ms: 10 * CHECKPOINT_MS,
            cache_bytes_max,
            watermark_interval_ms: 1_000,
            cut_interval_ms: 10_000,
        };
        let task = Task::new(Arc::new(spec), Arc::new(limits), factory(), restored).expect("no state");
        Rig {
            task,
            times: Times::default(),
            now_ms: 0,
            changelog_offset: 0,
            steps: 0,
            checkpoint_steps: number("CHECKPOINT_STEPS", 14),
            rows: 0,
            pinned_bytes_max: cache_bytes_max,
            _folder: folder,
        }
    }

    /// One step of a worker; the processing counts as `kind`. Returns whether anything is left to do.
    fn step(&mut self, kind: &'static str) -> bool {
        self.steps += 1;
        let task = &mut self.task;
        let (pinned, due) =
            self.times.time("memory", || (task.memory().pinned, task.is_full() || task.has_much_to_commit()));
        let over = pinned > self.pinned_bytes_max;
        if over || due || self.steps.is_multiple_of(self.checkpoint_steps) {
            self.checkpoint(if kind == "fill" { "prepare, filling" } else { "prepare, later" });
        }
        self.flush(over);
        let task = &mut self.task;
        self.times.time(kind, || task.run(BATCH_RECORDS)).expect("orders");
        self.task.is_going_on() || self.task.is_full() || self.task.queued_records() > 0
    }

    fn checkpoint(&mut self, kind: &'static str) {
        self.now_ms += CHECKPOINT_MS;
        let (task, now_ms) = (&mut self.task, self.now_ms);
        let prepared = self.times.time(kind, || task.prepare(now_ms)).expect("a store that works");
        let Some(contribution) = prepared else { return };
        self.rows += contribution.outputs.len();
        let first = self.changelog_offset;
        self.changelog_offset += contribution.changes.len() as i64;
        let offsets: Vec<i64> = (first..self.changelog_offset).collect();
        self.times.time("committed", || task.committed(&offsets, now_ms)).expect("an offset for each");
    }

    fn flush(&mut self, force: bool) {
        if let Some(job) = self.task.flush_job(self.now_ms, force) {
            let flushed = job.run(&|| ()).expect("a store that works");
            let task = &mut self.task;
            self.times.time("flushed", || task.flushed(flushed));
        }
    }
}

/// The CPU time of the main thread so far, in milliseconds: RocksDB's own come on top.
fn cpu_ms() -> f64 {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).map_or(f64::NAN, |ns| ns / 1e6)
}

/// Fills a window with an entry of each customer and closes it. Returns the times of the calls, and the CPU time of
/// filling, making the orders included, and of closing.
fn round(customers: &[u32]) -> (Times, [f64; 2]) {
    let began_ms = cpu_ms();
    let mut rig = Rig::new();
    let mut offset = 0;
    for customers in customers.chunks(BATCH_RECORDS) {
        rig.task.enqueue(Batch::of(customers, offset, START_MS + 30_000)).expect("in order");
        offset += customers.len() as i64;
        while rig.step("fill") {}
    }
    let filled_ms = cpu_ms();
    rig.task.enqueue(Batch::of(&[u32::MAX], offset, START_MS + 120_000)).expect("in order");
    let mut first = true;
    while rig.step("fire") {
        if std::mem::take(&mut first) {
            rig.times.rename_last("fire", "fire, first");
        }
    }
    rig.times.rename_last("fire", "fire, last: removal");
    for _ in 0..10 * rig.checkpoint_steps {
        rig.step("idle");
    }
    assert_eq!(rig.rows, customers.len(), "a row of each key");
    (rig.times, [filled_ms - began_ms, cpu_ms() - filled_ms])
}

/// The median and the least.
fn median_and_least(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[values.len() / 2], values[0])
}

fn main() {
    #[cfg(target_os = "linux")]
    let _refused = rustix::thread::disable_transparent_huge_pages(true);
    let mut customers: Vec<u32> = (0..number("KEYS", 1_000_000) as u32).collect();
    let mut random = Random::new(1);
    for place in (1..customers.len()).rev() {
        customers.swap(place, random.place(place + 1));
    }
    let rounds: Vec<(Times, [f64; 2])> = (0..number("ROUNDS", 5)).map(|_| round(&customers)).collect();
    println!("| call | calls | longest, median ms | longest, least ms | sum, median ms |");
    println!("| --- | ---: | ---: | ---: | ---: |");
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    for (kind, calls) in &rounds[0].0.0 {
        let of_kind: Vec<&Vec<Duration>> = rounds.iter().filter_map(|(times, _)| times.0.get(kind)).collect();
        let longest = of_kind.iter().map(|calls| ms(calls.iter().max().copied().unwrap_or_default()));
        let (median, least) = median_and_least(longest.collect());
        let (sum, _) = median_and_least(of_kind.iter().map(|calls| ms(calls.iter().sum())).collect());
        println!("| {kind} | {} | {median:.1} | {least:.1} | {sum:.0} |", calls.len());
    }
    for (place, phase) in ["filling", "closing"].into_iter().enumerate() {
        let (median, least) = median_and_least(rounds.iter().map(|(_, cpu)| cpu[place]).collect());
        println!("CPU time of {phase}, median and least: {median:.0} and {least:.0} ms");
    }
}
