//! The systems that are compared, and how each is started.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::free_port;
use crate::support::thalweg::binary;
use crate::workload::Job;

/// A system at one of its settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct System {
    /// What it is called.
    pub name: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// At its defaults.
    Thalweg,
    /// Without a part of the hot path (`src/ablation.rs`), or with all.
    Ablated { without: &'static str },
    /// Consumes, decodes and counts, and nothing more.
    Bare,
    /// A JVM's jar, at one of its variants; for windows alone, or for all.
    Peer { jar: &'static str, variant: &'static str, only_windows: bool },
}

/// All of them.
pub const ALL: &[System] = &[
    System { name: "thalweg", kind: Kind::Thalweg },
    ablated("all-parts", ""),
    ablated("without-write-behind-and-cache", "cache,write-behind"),
    ablated("without-write-behind", "write-behind"),
    ablated("without-packed-delta", "packed-delta"),
    ablated("without-template", "template"),
    ablated("without-batches", "batches"),
    System { name: "bare-loop", kind: Kind::Bare },
    peer("kafka-streams-heap", "kafka-streams", "close-heap", false),
    peer("kafka-streams-rocksdb", "kafka-streams", "close", true),
    peer("flink-heap", "flink", "hashmap", false),
    peer("flink-rocksdb", "flink", "rocksdb", true),
];

/// What is measured if nothing is chosen: all but the parts of Thalweg.
pub const USUAL: &str = "thalweg,bare-loop,kafka-streams,flink";

const fn peer(name: &'static str, jar: &'static str, variant: &'static str, only_windows: bool) -> System {
    System { name, kind: Kind::Peer { jar, variant, only_windows } }
}

const fn ablated(name: &'static str, without: &'static str) -> System {
    System { name, kind: Kind::Ablated { without } }
}

/// What a system is started with.
#[derive(Clone, Debug)]
pub struct Start {
    /// The cluster's address.
    pub bootstrap: String,
    /// What it computes.
    pub job: Job,
    /// From which topic.
    pub input: String,
    /// Into which topic.
    pub output: String,
    /// The application: its consumer group.
    pub id: String,
    /// How often it commits.
    pub commit_ms: u64,
    /// Its local state.
    pub state_dir: PathBuf,
    /// Worker threads.
    pub threads: u32,
    /// It was killed before, and goes on: a peer that has to be told is told.
    pub restores: bool,
}

impl System {
    /// Whether it does this job at all, or differs from another system in it.
    pub fn does(&self, job: Job) -> bool {
        match self.kind {
            Kind::Thalweg | Kind::Ablated { .. } => true,
            Kind::Bare => matches!(job, Job::Window | Job::Project),
            // For times to recover: without a store on disk it comes back under new transactional ids, and waits.
            Kind::Peer { variant: "close-heap", .. } => job != Job::Day,
            Kind::Peer { only_windows, .. } => !only_windows || job.window_ms().is_some(),
        }
    }

    /// Whether it writes results, which can be checked.
    pub fn writes(&self) -> bool {
        self.kind != Kind::Bare
    }

    /// Whether its state is on a local disk that can be lost. Flink's is wherever its checkpoints are.
    pub fn has_a_disk_to_lose(&self) -> bool {
        !matches!(self.kind, Kind::Peer { jar: "flink", .. })
    }

    /// Deletes the stores of all tasks, and not the file beside them by which the process is known again, which
    /// both have: with another name Kafka Streams would wait for the dead one's transactions.
    pub fn lose_disk(&self, start: &Start) {
        let application = start.state_dir.join(&start.id);
        let stores = std::fs::read_dir(&application).expect("the application's folder").flatten();
        for store in stores.map(|entry| entry.path()).filter(|path| path.is_dir()) {
            std::fs::remove_dir_all(&store).unwrap_or_else(|error| panic!("{}: {error}", store.display()));
        }
    }

    /// Whether it needs `tests/support/peers.sh build`.
    pub fn is_peer(&self) -> bool {
        matches!(self.kind, Kind::Peer { .. })
    }

    /// Its process.
    pub fn command(&self, start: &Start) -> Command {
        match self.kind {
            Kind::Thalweg => thalweg(binary(), start),
            Kind::Ablated { without } => {
                let mut command = thalweg(binary().with_file_name("examples").join("ablated"), start);
                command.env("THALWEG_WITHOUT", without);
                command
            }
            Kind::Bare => {
                let mut command = Command::new(binary().with_file_name("examples").join("bare_loop"));
                command.args([&start.bootstrap, &start.input, start.job.name()]);
                command
            }
            Kind::Peer { jar, variant, .. } => jvm(start, jar, variant),
        }
    }
}

const EMIT_EACH_SECOND: &str = "__emit.interval.ms.kstreams.windowed.aggregation__=1000";

fn thalweg(binary: PathBuf, start: &Start) -> Command {
    let file = format!("benches/compare/topologies/{}.yaml", start.job.name());
    let mut command = Command::new(binary);
    command
        .arg("run")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(file))
        .args(["--bootstrap-servers", &start.bootstrap])
        .args(["--workers", &start.threads.to_string()])
        .args(["--commit-interval", &format!("{}ms", start.commit_ms)])
        .args(["--listen", &format!("127.0.0.1:{}", free_port())])
        .arg("--state-dir")
        .arg(&start.state_dir)
        .env("ID", &start.id)
        .env("INPUT", &start.input)
        .env("OUTPUT", &start.output)
        .envs(start.job.window_ms().map(|size_ms| ("WINDOW", format!("{size_ms}ms"))));
    command
}

/// Heap and collector as `benches/peers/README.md` argues.
fn jvm(start: &Start, jar: &str, variant: &str) -> Command {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/peers.sh");
    let found = Command::new(script).args(["jar", jar]).output().expect("peers.sh starts");
    assert!(found.status.success(), "peers.sh does not say where {jar} is");
    let path = String::from_utf8(found.stdout).expect("a path of text");
    let mut command = Command::new("java");
    command
        .args(["-Xms2g", "-Xmx2g", "-XX:+UseParallelGC", "-jar"])
        .arg(path.trim())
        .args([
            format!("workload={}", start.job.name()),
            format!("variant={variant}"),
            format!("bootstrap={}", start.bootstrap),
            format!("input={}", start.input),
            format!("output={}", start.output),
            format!("id={}", start.id),
            format!("commit_ms={}", start.commit_ms),
            format!("threads={}", start.threads),
            format!("state_dir={}", start.state_dir.display()),
        ])
        .args(start.job.window_ms().map(|size_ms| format!("window_ms={size_ms}")))
        // Kafka Streams finds its state by itself. It looks for windows to close at each record, as
        // `benches/peers/README.md` says; with one window that stays open that would be all that it does.
        .args((jar == "flink" && start.restores).then_some("restore=latest"))
        .args((jar == "kafka-streams" && start.job == Job::Day).then_some(EMIT_EACH_SECOND));
    command
}
