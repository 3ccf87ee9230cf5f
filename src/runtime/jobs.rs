//! What a worker's jobs do, on blocking threads.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::leases::Leases;
use crate::kafka::{KafkaAdmin, KafkaChangelogReader};
use crate::record::TopicPartition;
use crate::state::apply::ApplyError;
use crate::task::{FlushJob, Flushed, RestoreError, RestoreHost, RestoreRequest, Restored, TaskId, restore};
use crate::telemetry::crash::CrashPoints;
use crate::telemetry::{Metrics, Monotonic};
use crate::worker::alignment::Standing;
use crate::worker::neighbours::Neighbours;
use crate::worker::port::{LogAdmin, LogError};

/// What the workers of a process share.
pub struct Shared {
    /// The stores.
    pub stores: Leases,
    /// The admin client; its calls take turns.
    pub admin: Arc<Mutex<KafkaAdmin>>,
    /// How far each one's partitions are, for the others.
    pub neighbours: Neighbours,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
    /// Where tests crash.
    pub crash: CrashPoints,
    /// The time.
    pub now: Monotonic,
}

/// A restore that takes longer says how far it is, this often.
const PROGRESS_INTERVAL_MS: u64 = 1_000;

/// Restores a task.
pub fn run_restore(
    shared: &Shared,
    reader: &mut KafkaChangelogReader,
    request: &RestoreRequest,
    cancelled: &AtomicBool,
) -> Result<Restored, RestoreError> {
    let began_ms = (shared.now)();
    let host = Host { shared, cancelled, told_ms: AtomicU64::new(began_ms), counted: AtomicU64::new(0) };
    let restored = restore(request, reader, &shared.stores.lessee(cancelled), &host)?;
    tracing::info!(
        task = %request.spec.id,
        records = restored.records_read,
        next_offset = restored.next_offset,
        checkpoint = restored.header.as_ref().map_or(0, |header| header.checkpoint),
        ms = (shared.now)().saturating_sub(began_ms),
        "restored"
    );
    Ok(restored)
}

struct Host<'h> {
    shared: &'h Shared,
    cancelled: &'h AtomicBool,
    told_ms: AtomicU64,
    counted: AtomicU64,
}

impl RestoreHost for Host<'_> {
    fn pause(&self, ms: u64) {
        #[expect(clippy::disallowed_methods, reason = "a blocking thread that has nothing else to do")]
        std::thread::sleep(Duration::from_millis(ms));
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    fn progress(&self, task: &TaskId, from: i64, at: i64, to: i64, records: u64) {
        let now_ms = (self.shared.now)();
        let due = now_ms >= self.told_ms.load(Ordering::Relaxed) + PROGRESS_INTERVAL_MS;
        if !due && at < to {
            return;
        }
        let ratio = if to > from { (at - from) as f64 / (to - from) as f64 } else { 1.0 };
        let counted = self.counted.swap(records, Ordering::Relaxed);
        let metrics = self.shared.metrics.task(&task.stage, task.partition);
        metrics.add_restored(records.saturating_sub(counted), ratio);
        if due {
            self.told_ms.store(now_ms, Ordering::Relaxed);
            tracing::info!(%task, offset = at, end = to, records, percent = (ratio * 100.0) as u32, "restoring");
        }
    }

    fn crash_point(&self, name: &str) {
        self.shared.crash.hit(name);
    }
}

/// Writes committed changes to a store.
pub fn run_flush(shared: &Shared, job: FlushJob) -> Result<Flushed, ApplyError> {
    shared.crash.hit("before_flush");
    job.run(&|| shared.crash.hit("during_flush"))
}

/// Asks how far the partitions are that are aligned with others.
pub fn run_ask(shared: &Shared, application: &str) -> Result<Vec<(TopicPartition, Standing)>, LogError> {
    let mut admin = shared.admin.lock().unwrap_or_else(PoisonError::into_inner);
    admin.standings(application)
}

/// Cuts a changelog.
pub fn run_cut(shared: &Shared, partition: &TopicPartition, offset: i64) -> Result<i64, LogError> {
    shared.crash.hit("before_delete_records");
    let mut admin = shared.admin.lock().unwrap_or_else(PoisonError::into_inner);
    let log_start = admin.delete_records(partition, offset);
    shared.crash.hit("after_delete_records");
    log_start
}
