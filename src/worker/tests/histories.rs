//! Random histories of two workers: records, rebalances, lost sessions, failed commits, crashes, lost
//! disks, corrupt stores, in any order. When the faults stop, what is committed is what the input says.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::cluster::{Cluster, Fate, TestLog, TestProducer};
use super::topology::{out, record, source, worker_spec};
use crate::state::apply::ApplyError;
use crate::state::memory::MemoryStores;
use crate::state::store::StoreError;
use crate::task::{RestoreHost, TaskId, restore};
use crate::worker::port::{LogError, LogEvent, Member, TransactionLog};
use crate::worker::{Exit, Job, JobDone, Phase, Step, Worker, WorkerEvent, WorkerSpec};

const PARTITIONS: i32 = 3;

/// A xorshift generator: the same seed, the same history.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }
}

struct Host<'h>(&'h std::sync::atomic::AtomicBool);

impl RestoreHost for Host<'_> {
    fn pause(&self, _ms: u64) {}

    fn is_cancelled(&self) -> bool {
        self.0.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn progress(&self, _: &TaskId, _: i64, _: i64, _: i64, _: u64) {}

    fn crash_point(&self, _: &str) {}
}

/// A process with one worker.
struct Process {
    worker: Worker<TestLog>,
    log: TestLog,
    producer: TestProducer,
    stores: MemoryStores,
    jobs: Vec<Job>,
    /// What the group has told it and not taken back; the consumer may not have heard it yet.
    owns: Option<Member>,
}

impl Process {
    fn new(cluster: &Cluster, index: usize, spec: &Arc<WorkerSpec>) -> Self {
        let log = TestLog::new(cluster);
        Process {
            worker: Worker::new(spec.clone(), log.clone()),
            log,
            producer: cluster.producer(index as i64),
            stores: MemoryStores::new(),
            jobs: Vec::new(),
            owns: None,
        }
    }

    fn count(&self, is: impl Fn(&Job) -> bool) -> usize {
        self.jobs.iter().filter(|job| is(job)).count()
    }

    fn has_flush(&self, id: &TaskId) -> bool {
        self.count(|job| matches!(job, Job::Flush { task, .. } if task == id)) > 0
    }

    /// Takes what a step asked for, and sees that it may ask so.
    fn take(&mut self, step: Step) -> Option<Exit> {
        for job in step.jobs {
            if let Job::Commit { member, .. } = &job {
                let consumer = self.log.consumer();
                assert_eq!(consumer.assigned.as_ref(), Some(member), "a commit without its assignment");
                assert_eq!(self.worker.phase(), Phase::Committing);
            }
            self.jobs.push(job);
        }
        let producing = self.count(|job| matches!(job, Job::Commit { .. } | Job::Init));
        assert!(producing <= 1, "two jobs of the producer at once");
        assert!(self.count(|job| matches!(job, Job::Restore { .. })) <= 1);
        self.log.consumer().committing = self.count(|job| matches!(job, Job::Commit { .. })) > 0;
        step.exit
    }

    fn step(&mut self, now_ms: u64) -> Option<Exit> {
        let step = self.worker.step(now_ms);
        self.take(step)
    }
}

struct History {
    random: Random,
    cluster: Cluster,
    spec: Arc<WorkerSpec>,
    processes: Vec<Process>,
    generation: i32,
    /// All have to give their partitions back; then they get new ones.
    rebalancing: bool,
    now_ms: u64,
    time_ms: i64,
    faults: bool,
    seen: BTreeMap<&'static str, u64>,
}

impl History {
    fn new(seed: u64) -> Self {
        let cluster = Cluster::default();
        let spec = Arc::new(worker_spec());
        let processes = (0..2).map(|index| Process::new(&cluster, index, &spec)).collect();
        History {
            random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            cluster,
            spec,
            processes,
            generation: 0,
            rebalancing: true,
            now_ms: 0,
            time_ms: 100_000,
            faults: true,
            seen: BTreeMap::new(),
        }
    }

    fn saw(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    // ---- what happens ----

    fn happen(&mut self) {
        let index = self.random.below(2) as usize;
        match self.random.below(100) {
            0..40 => self.step(index),
            40..75 => self.do_job(index),
            75..88 => self.append(),
            88..94 => self.now_ms += self.random.below(150),
            94 => self.rebalance(),
            95 if self.random.one_in(3) => self.lose(index),
            96 if self.random.one_in(4) => self.crash(index),
            97 => {
                self.cluster.content().append_marker(&source(0));
            }
            _ => self.hand_out(),
        }
    }

    fn append(&mut self) {
        let partition = source(self.random.below(PARTITIONS as u64) as i32);
        self.time_ms += self.random.below(2_500) as i64;
        let time_ms = self.time_ms - self.random.below(9_000) as i64;
        let key = ["a", "b", "c", "d", "e", "f"][self.random.below(6) as usize];
        let value = self.random.below(100) as i64;
        self.cluster.content().append(&partition, &record(key, value, time_ms));
    }

    fn step(&mut self, index: usize) {
        let exit = self.processes[index].step(self.now_ms);
        self.ended(index, exit);
    }

    fn ended(&mut self, index: usize, exit: Option<Exit>) {
        if let Some(exit) = exit {
            assert!(matches!(&exit, Exit::Failed(why) if why.contains("started over")), "{exit:?}");
            self.saw("gave up");
            self.crash(index);
        }
    }

    fn do_job(&mut self, index: usize) {
        let (random, process) = (&mut self.random, &mut self.processes[index]);
        if process.jobs.is_empty() {
            return;
        }
        let place = random.below(process.jobs.len() as u64) as usize;
        // The lease of a store: a restore waits for a running flush.
        if matches!(&process.jobs[place], Job::Restore { request, .. } if process.has_flush(&request.spec.id))
        {
            return;
        }
        let job = process.jobs.remove(place);
        let fails = self.faults && random.one_in(12);
        let (what, done) = self.run(index, job, fails);
        self.saw(what);
        let process = &mut self.processes[index];
        process.log.consumer().committing = false;
        let step = process.worker.job_done(done, self.now_ms);
        let happened = step.events.iter().any(|event| matches!(event, WorkerEvent::Committed { .. }));
        assert!(!happened || what == "committed");
        let exit = self.processes[index].take(step);
        self.ended(index, exit);
    }

    fn run(&mut self, index: usize, job: Job, fails: bool) -> (&'static str, JobDone) {
        let (random, process) = (&mut self.random, &mut self.processes[index]);
        match job {
            Job::Init if fails => ("init failed", JobDone::Init(Err(LogError::Retry("no broker".into())))),
            Job::Init => ("init", JobDone::Init(process.producer.init(1))),
            Job::Restore { epoch, request, cancelled } => {
                let task = request.spec.id.clone();
                // What was decided lands in between: first the group's offsets, then the markers.
                let mut random = Random(random.below(u64::MAX) | 1);
                let read_fails = fails.then(|| random.below(20));
                let mut reads = 0;
                self.cluster.hook(move |content, name| {
                    let producer = random.below(2) as i64;
                    match random.below(12) {
                        0 => content.land_offsets(producer),
                        1 => content.land(producer),
                        _ => {}
                    }
                    reads += u64::from(name == "read");
                    if read_fails.is_some_and(|at| at == reads) {
                        content.fails = Some(("read", LogError::Retry("no broker".into())));
                    }
                });
                let result = restore(&request, &mut self.cluster, &process.stores, &Host(&cancelled));
                let what = match &result {
                    Ok(restored) if restored.records_read > 0 => "restored",
                    Ok(_) => "restored from nothing",
                    Err(_) => "restore failed",
                };
                self.cluster.content().fails = None;
                self.cluster.content().lookups.clear();
                (what, JobDone::Restored { epoch, task, result })
            }
            Job::Commit { transaction, member } => {
                let fates = [Fate::FailsBefore, Fate::StaysOpen, Fate::Prepared, Fate::FailsAfter];
                if self.faults && random.one_in(4) {
                    process.producer.fate = fates[random.below(4) as usize];
                }
                let result = process.producer.commit(transaction, &member);
                (if result.is_ok() { "committed" } else { "commit failed" }, JobDone::Committed(result))
            }
            Job::Flush { epoch, task, .. } if fails => {
                let error = ApplyError::Store(StoreError::Corrupt("a bad block".into()));
                ("flush failed", JobDone::Flushed { epoch, task, result: Err(error) })
            }
            Job::Flush { epoch, task, job } => {
                ("flushed", JobDone::Flushed { epoch, task, result: job.run(&|| ()) })
            }
            Job::Cut { epoch, task, .. } if fails => {
                ("cut failed", JobDone::Cut { epoch, task, result: Err(LogError::Retry("no broker".into())) })
            }
            Job::Cut { epoch, task, partition, offset } => {
                let log_start = self.cluster.content().cut(&partition, offset);
                ("cut", JobDone::Cut { epoch, task, result: Ok(log_start) })
            }
        }
    }

    /// The group asks for all partitions back.
    fn rebalance(&mut self) {
        if self.rebalancing {
            return;
        }
        self.rebalancing = true;
        for process in &mut self.processes {
            if process.owns.is_some() {
                process.log.consumer().events.push_back(LogEvent::Revoked);
            }
        }
        self.saw("rebalance");
    }

    /// Once all have given their partitions back, they get new ones. Who has not answered the loss of
    /// its session yet does not take part, and joins later.
    fn hand_out(&mut self) {
        let mut joined = [false; 2];
        for (process, joined) in self.processes.iter_mut().zip(&mut joined) {
            let consumer = process.log.consumer();
            *joined = consumer.events.is_empty() && consumer.assigned.is_none();
            if *joined {
                process.owns = None;
            }
        }
        if !self.rebalancing && joined.contains(&true) {
            self.rebalance();
        }
        let owned = self.processes.iter().any(|process| process.owns.is_some());
        if !self.rebalancing || owned || !joined.contains(&true) {
            return;
        }
        self.rebalancing = false;
        self.generation += 1;
        let mut partitions = [Vec::new(), Vec::new()];
        for number in 0..PARTITIONS {
            let owner = self.random.below(2) as usize;
            partitions[if joined[owner] { owner } else { 1 - owner }].push(source(number));
        }
        let mut members = Vec::new();
        for (index, partitions) in partitions.into_iter().enumerate().filter(|(index, _)| joined[*index]) {
            let member = Member { generation: self.generation, id: format!("member {index}") };
            members.push(member.clone());
            let process = &mut self.processes[index];
            process.owns = Some(member.clone());
            process.log.consumer().events.push_back(LogEvent::Assigned { partitions, member });
        }
        self.cluster.content().members = members;
        self.saw("assigned");
    }

    /// The session of a process ends: the others go on without it.
    fn lose(&mut self, index: usize) {
        let process = &mut self.processes[index];
        let Some(member) = process.owns.take() else { return };
        self.cluster.content().members.retain(|other| *other != member);
        let mut consumer = process.log.consumer();
        consumer.events.retain(|event| !matches!(event, LogEvent::Revoked));
        consumer.events.push_back(LogEvent::Lost);
        drop(consumer);
        self.rebalance();
        self.saw("lost");
    }

    /// A process dies, with its jobs; perhaps the machine, perhaps the disk.
    fn crash(&mut self, index: usize) {
        let producer = self.processes[index].producer.fate;
        assert_eq!(producer, Fate::Good);
        if let Some(member) = self.processes[index].owns.take() {
            self.cluster.content().members.retain(|other| *other != member);
        }
        self.rebalance();
        let mut jobs = std::mem::take(&mut self.processes[index].jobs);
        let commit = jobs.iter().position(|job| matches!(job, Job::Commit { .. }));
        if let Some(place) = commit.filter(|_| self.random.one_in(2)) {
            let job = jobs.remove(place);
            self.run(index, job, false);
        }
        drop(jobs);
        let stores = self.processes[index].stores.clone();
        let mut process = Process::new(&self.cluster, index, &self.spec);
        match self.random.below(3) {
            0 => {}
            1 => {
                stores.crash_keeping(self.random.below(3) as usize);
                process.stores = stores;
            }
            _ => process.stores = stores,
        }
        self.processes[index] = process;
        self.saw("crash");
    }

    // ---- the end ----

    /// Everything goes well until nothing is left to do.
    fn settle(&mut self) {
        self.faults = false;
        for _ in 0..400 {
            for index in 0..2 {
                self.step(index);
                for _ in 0..4 {
                    self.do_job(index);
                }
            }
            self.hand_out();
            self.now_ms += 60;
        }
    }

    fn check(&self) {
        let content = self.cluster.content();
        let mut expected: Vec<String> = Vec::new();
        for number in 0..PARTITIONS {
            let records = content.committed(&source(number));
            let next = records.last().map(|(offset, _)| offset + 1);
            let committed = content.group.get(&source(number)).copied();
            assert_eq!(committed, next, "everything is read of partition {number}");
            expected.extend(fold(records.into_iter().map(|(_, value)| value)));
        }
        expected.sort();
        let found = content.committed(&out()).into_iter().map(|(_, value)| String::from_utf8(value).unwrap());
        let mut found: Vec<String> = found.collect();
        found.sort();
        assert_eq!(found, expected);
    }
}

/// What the topology makes of the records of one partition.
fn fold(records: impl Iterator<Item = Vec<u8>>) -> Vec<String> {
    let mut rows = Vec::new();
    let mut windows: BTreeMap<(i64, String), (i64, i64)> = BTreeMap::new();
    let mut watermark = i64::MIN;
    for record in records {
        let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
        let (key, time) = (record["k"].as_str().unwrap(), record["t"].as_i64().unwrap());
        let end = (time / 10_000 + 1) * 10_000;
        if watermark < end + 3_000 {
            let sums = windows.entry((end, key.to_owned())).or_default();
            *sums = (sums.0 + 1, sums.1 + record["v"].as_i64().unwrap());
            rows.push(row(end, key, *sums, false));
        }
        watermark = watermark.max(time - 2_000);
        while let Some(first) = windows.first_entry() {
            if watermark < first.key().0 + 3_000 {
                break;
            }
            let ((end, key), sums) = first.remove_entry();
            rows.push(row(end, &key, sums, true));
        }
    }
    rows
}

fn row(end: i64, key: &str, (n, total): (i64, i64), last: bool) -> String {
    let start = end - 10_000;
    format!(
        r#"{{"k":"{key}","window_start":{start},"window_end":{end},"n":{n},"total":{total},"final":{last}}}"#
    )
}

fn run(seed: u64, events: usize) -> BTreeMap<&'static str, u64> {
    let mut history = History::new(seed);
    for _ in 0..events {
        history.happen();
    }
    history.settle();
    history.check();
    history.seen
}

/// How many histories a run of the tests plays; more with `THALWEG_HISTORIES`.
const HISTORIES: u64 = 1_000;

#[test]
fn what_is_committed_is_what_the_input_says() {
    let histories = std::env::var("THALWEG_HISTORIES").map_or(HISTORIES, |text| text.parse().unwrap());
    let mut seen: BTreeMap<&'static str, u64> = BTreeMap::new();
    let mut failed = VecDeque::new();
    for seed in 1..=histories {
        match std::panic::catch_unwind(|| run(seed, 600)) {
            Ok(saw) => saw.into_iter().for_each(|(what, times)| *seen.entry(what).or_default() += times),
            Err(_) => failed.push_back(seed),
        }
        assert!(failed.len() < 5, "these seeds fail: {failed:?}");
    }
    assert!(failed.is_empty(), "these seeds fail: {failed:?}");
    for what in ["restored", "commit failed", "flushed", "flush failed", "cut", "lost", "crash", "rebalance"]
    {
        assert!(seen.get(what).is_some_and(|times| *times > histories / 10), "{what} is too rare: {seen:?}");
    }
}
