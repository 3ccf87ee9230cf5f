//! Whether the process makes progress, and whether it does its work.

use std::sync::{Mutex, PoisonError};

use super::Monotonic;
use crate::worker::Phase;

/// A worker that has not shown a sign of life for this long is stuck. Its loop comes by at least once
/// a second, whatever the brokers do, since all that blocks runs on other threads.
pub const HEARTBEAT_AGE_MAX_MS: u64 = 60_000;

/// The name of a phase in metrics and in the answers of `/readyz`.
pub fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Starting => "starting",
        Phase::Idle => "idle",
        Phase::Restoring => "restoring",
        Phase::Running => "running",
        Phase::Committing => "committing",
        Phase::Leaving => "leaving",
        Phase::Stopped => "stopped",
    }
}

/// Why a worker is not ready, or not alive.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Complaint {
    /// The worker's number, from 0.
    pub worker: usize,
    /// The name of its phase.
    pub phase: &'static str,
    /// What it restores or waits for, or how long it has been silent.
    pub detail: String,
}

#[derive(Debug)]
struct WorkerHealth {
    phase: Phase,
    detail: String,
    beat_ms: u64,
}

/// The health of a process: each worker's phase and last sign of life.
///
/// The runtime writes it, [`crate::service`] and [`Metrics`](super::Metrics) read it.
pub struct Health {
    workers: Mutex<Vec<WorkerHealth>>,
    now: Monotonic,
}

impl Health {
    /// Of a process of `workers` workers, all of them starting now.
    pub fn new(workers: usize, now: Monotonic) -> Health {
        let beat_ms = now();
        let starting = || WorkerHealth { phase: Phase::Starting, detail: String::new(), beat_ms };
        Health { workers: Mutex::new(std::iter::repeat_with(starting).take(workers).collect()), now }
    }

    /// A worker's sign of life. Whoever waits on behalf of a worker that has not started yet (for a
    /// broker that is away) gives it for that worker.
    pub fn beat(&self, worker: usize) {
        let now = (self.now)();
        self.with(worker, |health| health.beat_ms = now);
    }

    /// A worker's phase; a sign of life, too. `detail`, for people: what it restores and how far it
    /// is, what it waits for, why it starts over.
    pub fn set(&self, worker: usize, phase: Phase, detail: &str) {
        let beat_ms = (self.now)();
        self.with(worker, |health| *health = WorkerHealth { phase, detail: detail.to_owned(), beat_ms });
    }

    /// The name of each worker's phase.
    pub fn phases(&self) -> Vec<&'static str> {
        self.lock().iter().map(|health| phase_name(health.phase)).collect()
    }

    /// The workers that have been silent for more than [`HEARTBEAT_AGE_MAX_MS`]; none: alive.
    pub fn stuck(&self) -> Vec<Complaint> {
        let now = (self.now)();
        self.complaints(|health| {
            let age_ms = now.saturating_sub(health.beat_ms);
            let silent = age_ms > HEARTBEAT_AGE_MAX_MS && health.phase != Phase::Stopped;
            silent.then(|| format!("no sign of life for {} s", age_ms / 1000))
        })
    }

    /// The workers that do not consume; none: ready. A worker that was assigned no partition is ready, a
    /// stuck one is not.
    pub fn not_ready(&self) -> Vec<Complaint> {
        let stuck = self.stuck();
        let mut complaints = self.complaints(|health| {
            let consumes = matches!(health.phase, Phase::Running | Phase::Committing);
            (!consumes).then(|| health.detail.clone())
        });
        complaints.retain(|complaint| stuck.iter().all(|other| other.worker != complaint.worker));
        complaints.extend(stuck);
        complaints.sort_by_key(|complaint| complaint.worker);
        complaints
    }

    fn complaints(&self, why: impl Fn(&WorkerHealth) -> Option<String>) -> Vec<Complaint> {
        let complaint = |(worker, health): (usize, &WorkerHealth)| {
            Some(Complaint { worker, phase: phase_name(health.phase), detail: why(health)? })
        };
        self.lock().iter().enumerate().filter_map(complaint).collect()
    }

    fn with(&self, worker: usize, change: impl FnOnce(&mut WorkerHealth)) {
        let mut workers = self.lock();
        debug_assert!(worker < workers.len(), "worker {worker} of {}", workers.len());
        if let Some(health) = workers.get_mut(worker) {
            change(health);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<WorkerHealth>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Health").field("workers", &self.workers).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn health(workers: usize) -> (Health, Arc<AtomicU64>) {
        let time = Arc::new(AtomicU64::new(5));
        let clock = Arc::clone(&time);
        (Health::new(workers, Arc::new(move || clock.load(Ordering::Relaxed))), time)
    }

    #[test]
    fn ready_only_when_every_worker_runs() {
        let (health, _) = health(2);
        health.set(0, Phase::Running, "");
        health.set(1, Phase::Restoring, "orders[3]: 40 of 900 records");
        let not_ready = health.not_ready();
        assert_eq!(not_ready.len(), 1);
        assert_eq!((not_ready[0].worker, not_ready[0].phase), (1, "restoring"));
        assert_eq!(not_ready[0].detail, "orders[3]: 40 of 900 records");
        health.set(1, Phase::Running, "");
        assert_eq!(health.not_ready(), []);
    }

    #[test]
    fn a_silent_worker_is_neither_alive_nor_ready() {
        let (health, time) = health(2);
        health.set(0, Phase::Running, "");
        health.set(1, Phase::Running, "");
        time.store(5 + HEARTBEAT_AGE_MAX_MS, Ordering::Relaxed);
        assert_eq!(health.stuck(), []);
        health.beat(1);
        time.store(5 + HEARTBEAT_AGE_MAX_MS + 1, Ordering::Relaxed);
        assert_eq!(health.stuck().len(), 1);
        assert_eq!(health.stuck()[0].worker, 0);
        assert_eq!(health.not_ready(), health.stuck());
        health.beat(0);
        assert_eq!(health.stuck(), []);
    }

    #[test]
    fn a_stopped_worker_may_be_silent() {
        let (health, time) = health(1);
        health.set(0, Phase::Stopped, "");
        time.store(10 * HEARTBEAT_AGE_MAX_MS, Ordering::Relaxed);
        assert_eq!(health.stuck(), []);
        assert_eq!(health.not_ready()[0].phase, "stopped");
    }
}
