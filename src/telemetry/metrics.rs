//! The metrics of a process and the handles to them.
//!
//! A handle is a few atomics: take it once, at the start or when a partition is assigned, and add to
//! it once per batch or checkpoint. Series of a partition vanish when their handle is dropped, that
//! is, when the partition moves away; if it comes back they begin at zero, which Prometheus' `rate`
//! takes for the restart of a counter.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::series::{Known, Labels, Live, encode_counters, encode_gauges};
use super::{Health, Monotonic};
use crate::time::MIN_TIME_MS;

/// The media type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of a process. One per process; share it by `Arc`.
pub struct Metrics {
    registry: Registry,
    series: Arc<AllSeries>,
    records_out: Family<Labels<1>, Counter>,
    records_late: Family<Labels<1>, Counter>,
    duplicates: Family<Labels<1>, Counter>,
    records_failed: Family<Labels<1>, Counter>,
    dead_letters: Family<Labels<1>, Counter>,
    /// Transactions that were begun and did not commit, or not for certain.
    pub transactions_aborted: Counter,
    /// How often a worker was told that its partitions have another owner.
    pub members_fenced: Counter,
    /// How often a topic of the application's own was to be cut and was not.
    pub changelog_cuts_failed: Counter,
    checkpoint_duration_seconds: Histogram,
}

impl Metrics {
    /// No series yet but those of `health`. Ages are taken from `now`.
    pub fn new(health: Arc<Health>, now: Monotonic) -> Metrics {
        let series = Arc::new(AllSeries {
            sources: Live::default(),
            tasks: Live::default(),
            workers: Live::default(),
            health,
            now,
        });
        let mut metrics = Metrics {
            registry: Registry::default(),
            series: Arc::clone(&series),
            records_out: Family::default(),
            records_late: Family::default(),
            duplicates: Family::default(),
            records_failed: Family::default(),
            dead_letters: Family::default(),
            transactions_aborted: Counter::default(),
            members_fenced: Counter::default(),
            changelog_cuts_failed: Counter::default(),
            // 1 ms to 32 s.
            checkpoint_duration_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 16)),
        };
        metrics.register();
        metrics.registry.register_collector(Box::new(series));
        metrics
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("thalweg_records_out", "Records committed to a topic", self.records_out.clone());
        r.register("thalweg_records_late", "Records too late for their operator", self.records_late.clone());
        r.register(
            "thalweg_duplicates",
            "Records dropped because they repeat others of their key",
            self.duplicates.clone(),
        );
        r.register(
            "thalweg_records_failed",
            "Records that could not be decoded or that an operator failed on",
            self.records_failed.clone(),
        );
        r.register("thalweg_dead_letters", "Dead letters committed to a topic", self.dead_letters.clone());
        r.register(
            "thalweg_transactions_aborted",
            "Transactions that did not commit, or not for certain",
            self.transactions_aborted.clone(),
        );
        r.register(
            "thalweg_members_fenced",
            "How often a worker was told that its partitions have another owner",
            self.members_fenced.clone(),
        );
        r.register(
            "thalweg_changelog_cuts_failed",
            "How often a topic of the application's own was to be cut and was not",
            self.changelog_cuts_failed.clone(),
        );
        r.register(
            "thalweg_checkpoint_duration_seconds",
            "From the decision to commit to the acknowledgement",
            self.checkpoint_duration_seconds.clone(),
        );
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        r.register("thalweg_build", "The version of this binary", build);
    }

    /// A source topic's partition, while it is assigned to this process.
    pub fn source(&self, topic: &str, partition: i32) -> Arc<SourceMetrics> {
        let labels = [("topic", topic.to_owned()), ("partition", partition.to_string())];
        self.series
            .sources
            .get(labels, || SourceMetrics { records_in: AtomicU64::new(0), lag_records: Known::not_yet() })
    }

    /// A task, while it is assigned to this process.
    pub fn task(&self, stage: &str, partition: i32) -> Arc<TaskMetrics> {
        let labels = [("stage", stage.to_owned()), ("partition", partition.to_string())];
        self.series.tasks.get(labels, TaskMetrics::new)
    }

    /// A worker, while it runs.
    pub fn worker(&self, worker: usize) -> Arc<WorkerMetrics> {
        let now = Arc::clone(&self.series.now);
        let duration_seconds = self.checkpoint_duration_seconds.clone();
        self.series.workers.get([("worker", worker.to_string())], || WorkerMetrics {
            checkpoints: AtomicU64::new(0),
            fresh_ms: AtomicU64::new(now()),
            duration_seconds,
            now,
        })
    }

    /// Records committed to a topic by sinks and late sinks.
    pub fn records_out(&self, topic: &str) -> Counter {
        self.records_out.get_or_create_owned(&[("topic", topic.to_owned())])
    }

    /// Records that came too late for their window or deduplication. `operator`: its id.
    pub fn records_late(&self, operator: &str) -> Counter {
        self.records_late.get_or_create_owned(&[("operator", operator.to_owned())])
    }

    /// Records that a deduplication dropped. `operator`: its id.
    pub fn duplicates(&self, operator: &str) -> Counter {
        self.duplicates.get_or_create_owned(&[("operator", operator.to_owned())])
    }

    /// Records that could not be decoded, dated, computed or written. `operator`: the id of the
    /// source, operator or sink.
    pub fn records_failed(&self, operator: &str) -> Counter {
        self.records_failed.get_or_create_owned(&[("operator", operator.to_owned())])
    }

    /// Records committed to a dead-letter topic.
    pub fn dead_letters(&self, topic: &str) -> Counter {
        self.dead_letters.get_or_create_owned(&[("topic", topic.to_owned())])
    }

    /// All of it, as text of the type [`CONTENT_TYPE`].
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::with_capacity(16 << 10);
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// The metrics of a source topic's partition.
#[derive(Debug)]
pub struct SourceMetrics {
    records_in: AtomicU64,
    lag_records: Known,
}

impl SourceMetrics {
    /// Counts records read, malformed ones included, when they are processed.
    pub fn add_records_in(&self, records: u64) {
        self.records_in.fetch_add(records, Ordering::Relaxed);
    }

    /// How many records are visible in the partition and not processed yet.
    pub fn set_lag(&self, records: i64) {
        self.lag_records.set(records);
    }
}

/// The metrics of a task.
#[derive(Debug)]
pub struct TaskMetrics {
    watermark_ms: Known,
    idle: Known,
    alignment_drift_ms: Known,
    alignment_held_ms: Known,
    upstream_tasks_unheard: Known,
    restore_records: AtomicU64,
    restore_progress_ratio: Gauge<f64, AtomicU64>,
    state_bytes: Known,
    cache_bytes: Known,
    changelog_cut_offset: Known,
    flushed_offset: Known,
}

impl TaskMetrics {
    fn new() -> TaskMetrics {
        TaskMetrics {
            watermark_ms: Known::not_yet(),
            idle: Known::not_yet(),
            alignment_drift_ms: Known::not_yet(),
            alignment_held_ms: Known::not_yet(),
            upstream_tasks_unheard: Known::not_yet(),
            restore_records: AtomicU64::new(0),
            restore_progress_ratio: Gauge::default(),
            state_bytes: Known::not_yet(),
            cache_bytes: Known::not_yet(),
            changelog_cut_offset: Known::not_yet(),
            flushed_offset: Known::not_yet(),
        }
    }

    /// The task's watermark; [`MIN_TIME_MS`](crate::time::MIN_TIME_MS) shows nothing.
    pub fn set_watermark(&self, watermark_ms: i64) {
        self.watermark_ms.set(watermark_ms);
    }

    /// Whether the stages behind a change of keys do not wait for the task.
    pub fn set_idle(&self, idle: bool) {
        self.idle.set(i64::from(idle));
    }

    /// How far the task's watermark is ahead of the least that it is aligned with, if there is one, and for how long
    /// it was held back in all.
    pub fn set_alignment(&self, drift_ms: Option<i64>, held_back_ms: u64) {
        self.alignment_drift_ms.set(drift_ms.unwrap_or(MIN_TIME_MS));
        self.alignment_held_ms.set(clamped(held_back_ms));
    }

    /// How many of the tasks before a change of keys have not said anything yet.
    pub fn set_upstream_tasks_unheard(&self, tasks: usize) {
        self.upstream_tasks_unheard.set(i64::try_from(tasks).unwrap_or(i64::MAX));
    }

    /// Counts changelog records that a restore has read, and says how much of it is done: 0 to 1.
    /// Called once per some thousand records, and with ratio 1 when nothing is left.
    pub fn add_restored(&self, records: u64, ratio: f64) {
        self.restore_records.fetch_add(records, Ordering::Relaxed);
        self.restore_progress_ratio.set(ratio.clamp(0.0, 1.0));
    }

    /// Bytes of the task's store.
    pub fn set_state_bytes(&self, bytes: u64) {
        self.state_bytes.set(clamped(bytes));
    }

    /// Bytes of the task's state in memory.
    pub fn set_cache_bytes(&self, bytes: u64) {
        self.cache_bytes.set(clamped(bytes));
    }

    /// The log start of the changelog after the last cut.
    pub fn set_changelog_cut(&self, offset: i64) {
        self.changelog_cut_offset.set(offset);
    }

    /// The changelog offset that the store has flushed and synced.
    pub fn set_flushed(&self, offset: i64) {
        self.flushed_offset.set(offset);
    }
}

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

fn clamped(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The metrics of a worker.
pub struct WorkerMetrics {
    checkpoints: AtomicU64,
    fresh_ms: AtomicU64,
    duration_seconds: Histogram,
    now: Monotonic,
}

impl WorkerMetrics {
    /// A checkpoint was committed; it took `duration_ms`.
    pub fn checkpoint_done(&self, duration_ms: u64) {
        self.checkpoints.fetch_add(1, Ordering::Relaxed);
        self.duration_seconds.observe(duration_ms as f64 / 1000.0);
        self.nothing_to_commit();
    }

    /// A checkpoint was due and there was nothing to commit: what is committed is fresh all the same,
    /// and the age starts again.
    pub fn nothing_to_commit(&self) {
        self.fresh_ms.store((self.now)(), Ordering::Relaxed);
    }
}

/// Every series that comes and goes, and every value that is computed at the scrape.
struct AllSeries {
    sources: Live<2, SourceMetrics>,
    tasks: Live<2, TaskMetrics>,
    workers: Live<1, WorkerMetrics>,
    health: Arc<Health>,
    now: Monotonic,
}

impl fmt::Debug for AllSeries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AllSeries").finish_non_exhaustive()
    }
}

impl Collector for AllSeries {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        self.encode_sources(&mut encoder)?;
        self.encode_tasks(&mut encoder)?;
        self.encode_workers(&mut encoder)?;
        self.encode_states(&mut encoder)
    }
}

impl AllSeries {
    fn encode_sources(&self, e: &mut DescriptorEncoder) -> fmt::Result {
        let all = self.sources.all();
        encode_counters(e, "thalweg_records_in", "Records read and processed.", &all, |s| {
            s.records_in.load(Ordering::Relaxed)
        })?;
        encode_gauges(e, "thalweg_lag_records", "Records visible and not processed yet.", &all, |s| {
            s.lag_records.get()
        })
    }

    fn encode_tasks(&self, e: &mut DescriptorEncoder) -> fmt::Result {
        let all = self.tasks.all();
        encode_gauges(e, "thalweg_watermark_ms", "The task's watermark, since the Unix epoch.", &all, |t| {
            t.watermark_ms.get()
        })?;
        encode_gauges(e, "thalweg_idle", "1 if later stages do not wait for the task.", &all, |t| {
            t.idle.get()
        })?;
        let help = "How far the watermark is ahead of the least that it is aligned with.";
        encode_gauges(e, "thalweg_alignment_drift_seconds", help, &all, |t| {
            t.alignment_drift_ms.get().map(seconds)
        })?;
        let aligned = all.iter().filter(|(_, task)| task.alignment_held_ms.get().is_some());
        let aligned = aligned.cloned().collect();
        let help = "How long the task waited for those that it is aligned with.";
        encode_counters(e, "thalweg_alignment_held_seconds", help, &aligned, |t| {
            t.alignment_held_ms.get().map(seconds).unwrap_or_default()
        })?;
        let help = "Upstream tasks that have told no watermark yet.";
        encode_gauges(e, "thalweg_upstream_tasks_unheard", help, &all, |t| t.upstream_tasks_unheard.get())?;
        encode_counters(e, "thalweg_restore_records", "Changelog records read to restore.", &all, |t| {
            t.restore_records.load(Ordering::Relaxed)
        })?;
        encode_gauges(e, "thalweg_restore_progress_ratio", "How much is restored, 0 to 1.", &all, |t| {
            Some(t.restore_progress_ratio.get())
        })?;
        encode_gauges(e, "thalweg_state_bytes", "Bytes of the task's store on disk.", &all, |t| {
            t.state_bytes.get()
        })?;
        encode_gauges(e, "thalweg_cache_bytes", "Bytes of the task's state in memory.", &all, |t| {
            t.cache_bytes.get()
        })?;
        encode_gauges(e, "thalweg_changelog_cut_offset", "The changelog's start.", &all, |t| {
            t.changelog_cut_offset.get()
        })?;
        encode_gauges(e, "thalweg_flushed_offset", "The changelog offset safe on disk.", &all, |t| {
            t.flushed_offset.get()
        })
    }

    fn encode_workers(&self, e: &mut DescriptorEncoder) -> fmt::Result {
        let all = self.workers.all();
        encode_counters(e, "thalweg_checkpoints", "Checkpoints committed.", &all, |w| {
            w.checkpoints.load(Ordering::Relaxed)
        })?;
        let now = (self.now)();
        encode_gauges(
            e,
            "thalweg_checkpoint_age_seconds",
            "Since the last checkpoint that was committed or had nothing to commit.",
            &all,
            |w| Some(now.saturating_sub(w.fresh_ms.load(Ordering::Relaxed)) as f64 / 1000.0),
        )
    }

    fn encode_states(&self, e: &mut DescriptorEncoder) -> fmt::Result {
        let help = "1 for the state that the worker is in.";
        let mut metric = e.encode_descriptor("thalweg_worker_state", help, None, MetricType::Gauge)?;
        for (worker, state) in self.health.phases().into_iter().enumerate() {
            let labels: Labels<2> = [("worker", worker.to_string()), ("state", state.to_owned())];
            ConstGauge::new(1_i64).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
