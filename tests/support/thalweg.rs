//! The binary as a process: started, signalled, killed, watched through its log and its metrics.

use std::fmt::Display;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use super::{free_port, tail, wait_for};

/// How a process ends at a crash point, as a shell would say it: by SIGKILL or by SIGABRT. (A panic, or
/// any error that the engine knows of, ends with 1.)
pub const CRASHED: [i32; 2] = [137, 134];

/// The places where `THALWEG_CRASH_POINT` lets a process die.
pub const CRASH_POINTS: [&str; 10] = [
    "offsets_sent",
    "commit_sent",
    "committed",
    "before_flush",
    "during_flush",
    "between_chunks",
    "before_delete_records",
    "after_delete_records",
    "during_restore",
    "during_revoke",
];

/// See [`Start::busy_state`].
const BUSY_STATE: [(&str, &str); 4] = [
    ("state.flush_interval", "500ms"),
    ("state.flush_bytes", "64KiB"),
    ("state.chunk_bytes_floor", "16KiB"),
    ("state.changelog_growth_floor", "16KiB"),
];

/// The binary: beside this test, or beside this example.
pub fn binary() -> PathBuf {
    if let Some(path) = option_env!("CARGO_BIN_EXE_thalweg") {
        return PathBuf::from(path);
    }
    let this = std::env::current_exe().expect("this program's path");
    let target = this.parent().and_then(Path::parent).expect("target/<profile>/examples");
    target.join("thalweg")
}

/// Runs the binary to its end with `arguments`; for commands that need no broker.
pub fn run_to_end(arguments: &[&str]) -> Output {
    Command::new(binary()).args(arguments).stdin(Stdio::null()).output().expect("the binary starts")
}

/// Sends a signal to a process of ours.
pub fn signal(pid: u32, name: &str) {
    let done = Command::new("sh").arg("-c").arg(format!("kill -{name} {pid}")).status();
    assert!(done.expect("sh starts").success(), "kill -{name} {pid}");
}

/// How to start it.
#[derive(Clone, Debug)]
pub struct Start {
    /// The topology file.
    pub file: PathBuf,
    /// The broker.
    pub bootstrap: String,
    /// The state directory.
    pub state_dir: PathBuf,
    /// Where its log goes; `None`: beside the state directory.
    pub log: Option<PathBuf>,
    /// Worker threads.
    pub workers: u32,
    /// Such as `100ms`.
    pub commit_interval: String,
    /// Ends at the end of the input.
    pub bounded: bool,
    /// More arguments.
    pub arguments: Vec<String>,
    /// Environment variables.
    pub environment: Vec<(String, String)>,
    /// Out of reach of a Ctrl-C in this terminal, for a program that ends it in order then.
    pub apart: bool,
}

impl Start {
    /// One worker, 100 ms, unbounded.
    pub fn new(file: &Path, bootstrap: &str, state_dir: &Path) -> Start {
        Start {
            file: file.to_path_buf(),
            bootstrap: bootstrap.to_string(),
            state_dir: state_dir.to_path_buf(),
            log: None,
            workers: 1,
            commit_interval: "100ms".to_string(),
            bounded: false,
            arguments: Vec::new(),
            environment: Vec::new(),
            apart: false,
        }
    }

    /// With so many workers.
    pub fn workers(mut self, workers: u32) -> Start {
        self.workers = workers;
        self
    }

    /// With this commit interval.
    pub fn commit_interval(mut self, interval: &str) -> Start {
        self.commit_interval = interval.to_string();
        self
    }

    /// To the end of the input.
    pub fn bounded(mut self) -> Start {
        self.bounded = true;
        self
    }

    /// With `--set section.key=value`.
    pub fn set(mut self, key: &str, value: impl Display) -> Start {
        self.arguments.push("--set".to_string());
        self.arguments.push(format!("{key}={value}"));
        self
    }

    /// Where the group gives a silent process up after 6 s.
    pub fn session_of_6_s(self) -> Start {
        self.set("kafka.session_timeout", "6s")
    }

    /// With settings under which flushes, chunks and cuts of the changelog, seconds or minutes apart by
    /// default, happen all the time.
    pub fn busy_state(self) -> Start {
        BUSY_STATE.iter().fold(self, |start, (key, value)| start.set(key, value))
    }

    /// Dies at a named point, the `nth` time that it gets there.
    pub fn crash_at(mut self, point: &str, nth: u32) -> Start {
        self.environment.push(("THALWEG_CRASH_POINT".to_string(), format!("{point}:{nth}")));
        self
    }

    /// Starts the process.
    pub fn spawn(&self) -> Thalweg {
        // Not below the state directory: the process may find that missing, and tests delete it.
        let mut beside = self.state_dir.clone().into_os_string();
        beside.push(".log");
        let log = self.log.clone().unwrap_or_else(|| PathBuf::from(beside));
        let out = std::fs::File::options().create(true).append(true).open(&log).expect("the log file");
        let port = free_port();
        let mut command = Command::new(binary());
        command.arg("run").arg(&self.file);
        if self.bounded {
            command.arg("--bounded");
        }
        command
            .args(["--bootstrap-servers", &self.bootstrap])
            .arg("--state-dir")
            .arg(&self.state_dir)
            .args(["--workers", &self.workers.to_string()])
            .args(["--commit-interval", &self.commit_interval])
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .args(&self.arguments)
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(out.try_clone().expect("a second handle"))
            .stderr(out);
        if self.apart {
            command.process_group(0);
        }
        let log_start = std::fs::metadata(&log).map_or(0, |m| m.len());
        let process = command.spawn().expect("the binary starts");
        Thalweg { process, port, log, log_start, ended: None }
    }

    /// Runs a bounded topology to its end, which must be a good one.
    pub fn run_bounded(&self, limit: Duration) -> Thalweg {
        let mut process = self.clone().bounded().spawn();
        let status = process.wait(limit);
        assert_eq!(status.code(), Some(0), "the bounded run failed; its log:\n{}", process.log());
        process
    }
}

/// A running process. Dropping it kills it; its log is printed if the test is failing then.
pub struct Thalweg {
    process: Child,
    port: u16,
    log: PathBuf,
    log_start: u64,
    ended: Option<ExitStatus>,
}

impl Thalweg {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.process.try_wait().expect("it is our child");
        }
        self.ended
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(start.elapsed() < limit, "no end after {limit:?}; its log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until it ends by itself; its exit code, 137 for one that was killed.
    pub fn exit_code(&mut self, limit: Duration) -> i32 {
        let status = self.wait(limit);
        status.code().or_else(|| status.signal().map(|s| 128 + s)).expect("an exit code or a signal")
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if self.ended().is_none() {
            self.process.kill().expect("SIGKILL");
            self.ended = Some(self.process.wait().expect("its end"));
        }
    }

    /// SIGSTOP: it goes on where it was after [`go_on`](Thalweg::go_on), not knowing that time passed.
    pub fn pause(&self) {
        signal(self.pid(), "STOP");
    }

    /// SIGCONT.
    pub fn go_on(&self) {
        signal(self.pid(), "CONT");
    }

    /// SIGTERM; the process must end with exit code 0 within `limit`.
    pub fn stop(&mut self, limit: Duration) {
        signal(self.pid(), "TERM");
        let code = self.exit_code(limit);
        assert_eq!(code, 0, "after SIGTERM; its log:\n{}", self.log());
    }

    /// Waits until `/readyz` says that it is restored and consumes.
    pub fn ready(&mut self, limit: Duration) {
        wait_for(&format!("/readyz on port {}", self.port), limit, || {
            if let Some(status) = self.ended() {
                panic!("it ended with {status} before it was ready; its log:\n{}", self.log());
            }
            matches!(self.get("/readyz"), Some((200, _))).then_some(())
        });
    }

    /// What it has logged since its start.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes[(self.log_start as usize).min(bytes.len())..]).into_owned();
        tail(&text, 20_000).to_string()
    }

    /// A path of its HTTP server: status and body. `None` if nobody answers within 2 s.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        let address = ([127, 0, 0, 1], self.port).into();
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        // Version 1.0: the body ends with the connection, and is in one piece.
        write!(stream, "GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split_whitespace().nth(1)?.parse().ok()?;
        Some((status, body.to_string()))
    }

    /// Its metrics now. `None` if it does not answer.
    pub fn metrics(&self) -> Option<Metrics> {
        let (status, body) = self.get("/metrics")?;
        (status == 200).then(|| Metrics::parse(&body))
    }

    /// The sum of a metric over its labels; 0 while it does not exist or nobody answers.
    pub fn metric(&self, name: &str) -> f64 {
        self.metrics().map_or(0.0, |m| m.sum(name))
    }
}

impl Drop for Thalweg {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- {}, its end:\n{}", self.log.display(), self.log());
        }
    }
}

/// A scrape.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Vec<(String, String, f64)>);

impl Metrics {
    /// Reads the Prometheus text format.
    pub fn parse(text: &str) -> Metrics {
        let mut samples = Vec::new();
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            // A label's value may hold spaces: the number is what follows the last one.
            let Some((series, value)) = line.rsplit_once(' ') else { panic!("no sample: {line}") };
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let value = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
            samples.push((name.to_string(), labels.trim_end_matches('}').to_string(), value));
        }
        Metrics(samples)
    }

    /// The values of a metric with their labels, as they are written.
    pub fn of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        self.0.iter().filter(move |(n, _, _)| n == name).map(|(_, labels, value)| (labels.as_str(), *value))
    }

    /// The sum over all labels.
    pub fn sum(&self, name: &str) -> f64 {
        // The sum of nothing would be -0.
        self.of(name).map(|(_, value)| value).fold(0.0, |sum, value| sum + value)
    }

    /// The least over all labels.
    pub fn min(&self, name: &str) -> Option<f64> {
        self.of(name).map(|(_, value)| value).reduce(f64::min)
    }
}
