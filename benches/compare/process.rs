//! Processes of the systems that are compared.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::support::thalweg::signal;
use crate::systems::{Start, System};

/// Between two looks at a process.
pub const LOOK: Duration = Duration::from_millis(50);
/// How long an orderly stop may take.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// A process that ends with us.
pub struct Process {
    child: Child,
    system: &'static str,
    log: PathBuf,
}

impl Process {
    /// Starts a system. What it prints goes to the end of `log`.
    pub fn spawn(system: &System, start: &Start, log: &Path) -> Process {
        let file = File::options().create(true).append(true).open(log).expect("the log file");
        let child = system
            .command(start)
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a second handle"))
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", system.name));
        Process { child, system: system.name, log: log.to_owned() }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_some()
    }

    /// Panics if it has ended.
    pub fn check_runs(&mut self) {
        if self.has_ended() {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            panic!("{} ended; the end of its log:\n{}", self.system, crate::support::tail(&log, 4_000));
        }
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().expect("SIGKILL");
        self.child.wait().expect("its end");
    }

    /// Ends it in order; by force if that takes too long.
    pub fn stop(mut self) {
        if !self.has_ended() {
            signal(self.pid(), "TERM");
        }
        let asked = Instant::now();
        while !self.has_ended() && asked.elapsed() < STOP_LIMIT {
            std::thread::sleep(LOOK);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing to do for one that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
