//! The exactly-once campaign. Two processes of one application share a topic while orders arrive. They
//! are killed at random moments, stopped until the group has given them up and woken as zombies; their
//! state directories vanish or are damaged; the broker is killed. In the end the committed output must
//! be that of a run in which nothing happened.
//!
//! `KILLS` (30) sets the length, `SEED` repeats a run's decisions (not its timing).

#![allow(clippy::disallowed_methods, reason = "tests live in real time; the engine does not")]

#[path = "support/store.rs"]
mod store;
mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::application::{Application, SHARED};
use support::broker::Broker;
use support::kafka::{Admin, Isolation, Reader, Writer};
use support::orders::{Generator, Orders, close_windows, produce};
use support::random::Random;
use support::thalweg::{CRASH_POINTS, CRASHED, Start, Thalweg, signal};
use support::{env_or, unique, unix_ms};

const PROCESSES: usize = 2;
const WORKERS: u32 = 2;
const PARTITIONS: i32 = 6;
const READY: Duration = Duration::from_secs(120);
/// Longer than the session time-out.
const ZOMBIE_SLEEP: Duration = Duration::from_secs(9);
const END: Duration = Duration::from_secs(180);

/// What happened.
#[derive(Debug, Default)]
struct Counts {
    kills: u64,
    kills_in_shutdown: u64,
    crash_points: u64,
    zombies: u64,
    zombies_fenced: u64,
    broker_kills: u64,
    states_lost: u64,
    states_damaged: u64,
    stores_compared: u64,
}

struct Campaign {
    broker: Broker,
    application: Application,
    random: Random,
    processes: Vec<Option<Thalweg>>,
    /// Armed crash points, by process.
    armed: Vec<bool>,
    next_crash_point: usize,
    counts: Counts,
}

#[test]
fn the_output_is_that_of_a_run_without_faults() {
    let kills: u64 = env_or("KILLS", 30);
    let seed: u64 = env_or("SEED", unix_ms() as u64);
    println!("campaign: KILLS={kills} SEED={seed}");
    let dir = support::Folder::new();
    let broker = Broker::start_to_be_killed(&dir.path().join("kafka"));
    let bootstrap = broker.bootstrap();
    let input = unique("orders");
    Admin::new(&bootstrap).create(&[(&input, PARTITIONS)]);
    let application = Application::new(&SHARED, &bootstrap, &input, dir.path());
    // A long campaign has a slower stream: its input must fit into memory in the end.
    let per_second = (1_500 * 30 / kills.max(1)).clamp(100, 1_500);
    let traffic = Traffic::start(&bootstrap, &input, seed, per_second);

    let mut campaign = Campaign {
        broker,
        application,
        random: Random::new(seed),
        processes: (0..PROCESSES).map(|_| None).collect(),
        armed: vec![false; PROCESSES],
        next_crash_point: 0,
        counts: Counts::default(),
    };
    campaign.run(kills);
    let (writer, orders) = traffic.stop();
    campaign.finish(&writer, &orders, &input);
}

impl Campaign {
    fn run(&mut self, kills: u64) {
        let (zombies, broker_kills) = ((kills / 10).clamp(3, 30), 2);
        // A long campaign comes to every point three times. A short one dies a few times with a transaction
        // open, which random kills hit only now and then.
        let points: &[&'static str] = if kills >= 300 { &CRASH_POINTS } else { &CRASH_POINTS[..1] };
        let crash_points = 3 * points.len();
        (0..PROCESSES).for_each(|i| self.start(i, None));
        let start = Instant::now();
        while self.counts.kills < kills {
            let done = self.counts.kills;
            let victim = self.random.below(PROCESSES as u64) as usize;
            self.revive();
            self.pause(2_500);
            if done * zombies >= (self.counts.zombies + 1) * kills.saturating_sub(5) {
                self.zombie(victim);
            } else if done * (broker_kills + 1) >= (self.counts.broker_kills + 1) * kills {
                self.kill_broker();
            } else {
                self.kill(victim);
                if self.random.chance(0.3) {
                    self.compare_stores(victim);
                }
                self.maybe_damage_state(victim);
                if self.random.chance(0.5) {
                    self.pause(2_000);
                }
                let due = (self.counts.crash_points as usize) < crash_points;
                let arm =
                    (due && self.random.chance(0.7)).then(|| points[self.next_crash_point % points.len()]);
                self.start(victim, arm);
            }
            if done / 50 != self.counts.kills / 50 {
                println!("campaign: {:?} after {} s", self.counts, start.elapsed().as_secs());
            }
        }
        println!("campaign: {:?} after {} s", self.counts, start.elapsed().as_secs());
    }

    /// Sleeps a random time: the moments of the faults are what the campaign varies.
    fn pause(&mut self, ms_max: u64) {
        std::thread::sleep(Duration::from_millis(self.random.below(ms_max)));
    }

    fn state_dir(&self, process: usize) -> PathBuf {
        self.start_of(process).state_dir
    }

    fn start_of(&self, process: usize) -> Start {
        self.application.start(&format!("state{process}")).workers(WORKERS).busy_state().session_of_6_s()
    }

    fn start(&mut self, process: usize, arm: Option<&str>) {
        let mut start = self.start_of(process);
        if let Some(point) = arm {
            self.next_crash_point += 1;
            start = start.crash_at(point, 1 + self.random.below(3) as u32);
        }
        self.armed[process] = arm.is_some();
        self.processes[process] = Some(start.spawn());
    }

    /// Starts again what died at its crash point. Nothing else may have ended by itself.
    fn revive(&mut self) {
        for i in 0..PROCESSES {
            let process = self.processes[i].as_mut().expect("started");
            if process.ended().is_none() {
                continue;
            }
            let code = process.exit_code(READY);
            assert!(
                self.armed[i] && CRASHED.contains(&code),
                "process {i} ended by itself with {code}; its log:\n{}",
                process.log()
            );
            self.counts.crash_points += 1;
            self.start(i, None);
        }
    }

    /// SIGKILL: at work, in a shutdown, or soon after the start, in a restore or a rebalance.
    fn kill(&mut self, victim: usize) {
        let process = self.processes[victim].as_mut().expect("started");
        if self.random.chance(0.15) && process.ended().is_none() {
            signal(process.pid(), "TERM");
            std::thread::sleep(Duration::from_millis(self.random.below(400)));
            self.counts.kills_in_shutdown += 1;
        }
        process.kill();
        self.counts.kills += 1;
    }

    /// What RocksDB holds after a kill is what the committed changelog says, up to the store's offset.
    fn compare_stores(&mut self, victim: usize) {
        let stores = store::stores(&self.state_dir(victim), "orders");
        let bootstrap = self.broker.bootstrap();
        let topic = self.application.changelog();
        // The log start last: a cut while the log was read leaves no more than what lies behind it.
        let log = Reader::all(&bootstrap, &topic);
        let bounds = Admin::new(&bootstrap).bounds(&topic);
        for (path, partition) in stores {
            let start = bounds[partition as usize].0;
            let records: Vec<_> =
                log.iter().filter(|r| r.partition == partition && r.offset >= start).collect();
            if store::equals_the_changelog(&path, &records, start) {
                self.counts.stores_compared += 1;
            }
        }
    }

    fn maybe_damage_state(&mut self, victim: usize) {
        let dir = self.state_dir(victim);
        if self.random.chance(0.1) {
            // A process killed at its very start has none yet.
            self.counts.states_lost += u64::from(std::fs::remove_dir_all(&dir).is_ok());
        } else if self.random.chance(0.15) && damage_a_file(&dir, &mut self.random) {
            self.counts.states_damaged += 1;
        }
    }

    /// Stops a process until the group and the transaction coordinator have given it up, then lets it go
    /// on: it believes that it still owns its partitions.
    fn zombie(&mut self, victim: usize) {
        let process = self.processes[victim].as_mut().expect("started");
        if self.armed[victim] {
            return; // It may die by itself; a later one is stopped.
        }
        process.ready(READY);
        let before = fenced(process);
        process.pause();
        std::thread::sleep(ZOMBIE_SLEEP);
        process.go_on();
        self.counts.zombies += 1;
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(20) {
            let ended = process.ended();
            assert!(ended.is_none(), "nobody has its name, so it goes on; its log:\n{}", process.log());
            if fenced(process) > before {
                self.counts.zombies_fenced += 1;
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn kill_broker(&mut self) {
        self.broker.kill();
        self.pause(3_000);
        self.broker.restart();
        self.counts.broker_kills += 1;
    }

    fn finish(&mut self, writer: &Writer, orders: &Generator, input: &str) {
        self.revive();
        for i in (0..PROCESSES).filter(|i| self.armed[*i]).collect::<Vec<_>>() {
            self.kill(i);
            self.start(i, None);
        }
        close_windows(writer, input, orders, 3_600_000);
        let expected = self.application.expected(false);
        self.application.wait_for_outputs(&expected, END);
        for process in self.processes.iter_mut().flatten() {
            process.ready(READY);
            process.stop(Duration::from_secs(10));
        }
        self.application.check(&expected);
        let aborted = aborted_transactions(&self.application);
        println!("campaign: {} records, at least {aborted} aborted transactions", expected.input.len());
        assert!(self.counts.zombies_fenced > 0, "void: no zombie was fenced: {:?}", self.counts);
        assert!(aborted > 0, "void: no transaction was aborted: {:?}", self.counts);
        assert!(self.counts.stores_compared > 0, "void: no store was compared: {:?}", self.counts);
        assert_eq!(self.counts.broker_kills, 2, "void: {:?}", self.counts);
    }
}

/// How often a process has found that it no longer was who it believed to be.
fn fenced(process: &Thalweg) -> f64 {
    process.metric("thalweg_members_fenced_total")
}

/// Overwrites the middle of a random file of a store. The process is dead.
fn damage_a_file(dir: &Path, random: &mut Random) -> bool {
    let mut files = Vec::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            if path.is_dir() {
                folders.push(path);
            } else if extension == "sst" || name == "CURRENT" || name.starts_with("MANIFEST") {
                files.push(path);
            }
        }
    }
    files.sort();
    if files.is_empty() {
        return false;
    }
    let file = random.pick(&files);
    let mut bytes = std::fs::read(file).expect("a file of the store");
    let (from, length) = (bytes.len() / 2, bytes.len());
    bytes[from..length.min(from + 64)].fill(0xa5);
    std::fs::write(file, bytes).expect("a file of the store");
    true
}

/// The transactions whose outputs were aborted, at least: runs of aborted records in one partition.
fn aborted_transactions(application: &Application) -> usize {
    let topic = application.copies();
    let mut all = Reader::new(&application.bootstrap, topic, Isolation::Uncommitted);
    all.read_to_end();
    let committed: std::collections::BTreeSet<_> =
        Reader::all(&application.bootstrap, topic).iter().map(|r| (r.partition, r.offset)).collect();
    let mut aborted: Vec<_> =
        all.records.iter().map(|r| (r.partition, r.offset)).filter(|r| !committed.contains(r)).collect();
    aborted.sort();
    let runs = |partition| {
        let offsets: Vec<i64> = aborted.iter().filter(|(p, _)| *p == partition).map(|(_, o)| *o).collect();
        offsets.windows(2).filter(|w| w[1] != w[0] + 1).count() + usize::from(!offsets.is_empty())
    };
    (0..PARTITIONS).map(runs).max().unwrap_or(0)
}

/// Orders that arrive while the campaign runs.
struct Traffic {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<(Writer, Generator)>,
}

impl Traffic {
    fn start(bootstrap: &str, topic: &str, seed: u64, per_second: u64) -> Traffic {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, topic, writer) = (stop.clone(), topic.to_string(), Writer::new(bootstrap));
        let spec = Orders { seed, keys: 300, partitions: PARTITIONS, step_ms: 25.0, ..Orders::default() };
        let mut orders = Generator::new(spec);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                produce(&writer, &topic, &mut orders, per_second / 20);
                std::thread::sleep(Duration::from_millis(50));
            }
            (writer, orders)
        });
        Traffic { stop, thread }
    }

    fn stop(self) -> (Writer, Generator) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the traffic did not fail")
    }
}
