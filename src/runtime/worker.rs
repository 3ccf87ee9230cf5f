//! The actor around a worker: gives it time, runs its jobs on blocking threads, tells what happens.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;

use super::coordinator::{Coordinator, Share, WorkerEnded, WorkerFinished};
use super::crashing::CrashingLog;
use super::jobs::{Shared, run_ask, run_cut, run_flush, run_restore};
use crate::kafka::{KafkaChangelogReader, KafkaLog, KafkaTransactionLog};
use crate::operator::Counters;
use crate::record::TopicPartition;
use crate::task::{Task, TaskId, TaskSpec};
use crate::telemetry::metrics::{SourceMetrics, TaskMetrics, WorkerMetrics};
use crate::telemetry::{Health, clock_ms};
use crate::worker::port::{ChangelogReader, Log, TransactionLog};
use crate::worker::{Exit, Job, JobDone, Phase, Step, Worker, WorkerEvent, WorkerSpec};

/// With nothing to do, the worker looks again after this long; arriving records wake it earlier.
const IDLE_MS: u64 = 5;
/// How often gauges are updated.
const REPORT_INTERVAL_MS: u64 = 500;
/// How long making a producer may take.
const INIT_LIMIT_MS: u64 = 30_000;

/// What a worker is made of.
pub struct Parts {
    /// Its number, from 0.
    pub index: usize,
    /// What it does.
    pub spec: Arc<WorkerSpec>,
    /// Its consumer.
    pub log: KafkaLog,
    /// Its producer.
    pub transactions: KafkaTransactionLog,
    /// What it restores from.
    pub reader: KafkaChangelogReader,
    /// What all workers share.
    pub shared: Arc<Shared>,
    /// Where it tells how it is.
    pub health: Arc<Health>,
    /// Who is told how it ends.
    pub coordinator: Addr<Coordinator>,
}

/// The actor; it lives on an arbiter of its own.
pub struct WorkerActor {
    index: usize,
    worker: Worker<CrashingLog<KafkaLog>>,
    /// Away while a job uses it.
    transactions: Option<KafkaTransactionLog>,
    /// Away while a job uses it.
    reader: Option<KafkaChangelogReader>,
    shared: Arc<Shared>,
    health: Arc<Health>,
    coordinator: Addr<Coordinator>,
    metrics: Arc<WorkerMetrics>,
    series: BTreeMap<TaskId, (Arc<SourceMetrics>, Arc<TaskMetrics>)>,
    /// A step is under way to this actor.
    step_due: bool,
    idle_timer: Option<SpawnHandle>,
    reported_ms: u64,
    told_phase: Option<Phase>,
    told_share: Option<Share>,
    has_committed: bool,
    ended: bool,
}

/// Do a step.
#[derive(Message)]
#[rtype(result = "()")]
struct DoStep;

/// Records or events have arrived.
#[derive(Message)]
#[rtype(result = "()")]
struct Wake;

/// Commit, leave the group and stop.
#[derive(Message)]
#[rtype(result = "()")]
pub struct StopWorker;

/// These sources of a bounded run are not marked as finished.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Unmarked(pub Vec<TopicPartition>);

impl WorkerActor {
    /// Makes the actor; to be called on its arbiter.
    pub fn new(parts: Parts, context: &mut Context<Self>) -> Self {
        let mut log = parts.log;
        let address = context.address();
        log.set_wake(Box::new(move || address.do_send(Wake)));
        WorkerActor {
            metrics: parts.shared.metrics.worker(parts.index),
            index: parts.index,
            worker: Worker::new(
                parts.spec,
                CrashingLog::new(log, parts.shared.crash.clone()),
                &parts.shared.neighbours,
            ),
            transactions: Some(parts.transactions),
            reader: Some(parts.reader),
            shared: parts.shared,
            health: parts.health,
            coordinator: parts.coordinator,
            series: BTreeMap::new(),
            step_due: false,
            idle_timer: None,
            reported_ms: 0,
            told_phase: None,
            told_share: None,
            has_committed: false,
            ended: false,
        }
    }

    fn now_ms(&self) -> u64 {
        (self.shared.now)()
    }

    /// Has a step done soon: at once if there is more to do, else after a moment.
    fn schedule(&mut self, busy: bool, context: &mut Context<Self>) {
        if self.ended || self.step_due {
            return;
        }
        if busy {
            self.step_due = true;
            if let Some(timer) = self.idle_timer.take() {
                context.cancel_future(timer);
            }
            context.notify(DoStep);
        } else if self.idle_timer.is_none() {
            self.idle_timer = Some(context.notify_later(DoStep, Duration::from_millis(IDLE_MS)));
        }
    }

    fn took(&mut self, step: Step, context: &mut Context<Self>) {
        for event in step.events {
            self.tell(event);
        }
        for job in step.jobs {
            self.start(job, context);
        }
        if let Some(exit) = step.exit {
            // Its last word: what it could still tell is no longer so.
            return self.end(exit, context);
        }
        self.report();
        self.schedule(step.busy, context);
    }

    fn end(&mut self, exit: Exit, context: &mut Context<Self>) {
        self.ended = true;
        self.health.set(self.index, Phase::Stopped, "stopped");
        let was_assigned = self.worker.was_assigned();
        self.coordinator.do_send(WorkerEnded { index: self.index, exit, was_assigned });
        context.stop();
    }

    /// Runs a job on a blocking thread and comes back with its end.
    fn start(&mut self, job: Job, context: &mut Context<Self>) {
        let shared = self.shared.clone();
        match job {
            Job::Init => {
                let Some(mut transactions) = self.transactions.take() else {
                    return self.end(busy("producer"), context);
                };
                self.block_on(context, move || {
                    let done = JobDone::Init(transactions.init(INIT_LIMIT_MS));
                    (done, Returned::Transactions(transactions))
                });
            }
            Job::Commit { transaction, member } => {
                let Some(mut transactions) = self.transactions.take() else {
                    return self.end(busy("producer"), context);
                };
                self.block_on(context, move || {
                    let done = JobDone::Committed(transactions.commit(transaction, &member));
                    (done, Returned::Transactions(transactions))
                });
            }
            Job::Restore { epoch, request, cancelled } => {
                self.show(&request.spec);
                let Some(mut reader) = self.reader.take() else { return self.end(busy("reader"), context) };
                self.block_on(context, move || {
                    let result = run_restore(&shared, &mut reader, &request, &cancelled);
                    let task = request.spec.id.clone();
                    (JobDone::Restored { epoch, task, result }, Returned::Reader(reader))
                });
            }
            Job::Look { epoch, task, partition } => {
                let Some(mut reader) = self.reader.take() else { return self.end(busy("reader"), context) };
                self.block_on(context, move || {
                    let result = reader.last_stable_offset(&partition);
                    (JobDone::Looked { epoch, task, result }, Returned::Reader(reader))
                });
            }
            Job::Flush { epoch, task, job } => self.block_on(context, move || {
                (JobDone::Flushed { epoch, task, result: run_flush(&shared, job) }, Returned::Nothing)
            }),
            Job::Ask { epoch, application } => self.block_on(context, move || {
                (JobDone::Asked { epoch, result: run_ask(&shared, &application) }, Returned::Nothing)
            }),
            Job::Cut { epoch, task, partition, offset } => self.block_on(context, move || {
                let result = run_cut(&shared, &partition, offset);
                (JobDone::Cut { epoch, task, partition, result }, Returned::Nothing)
            }),
        }
    }

    /// Begins the series of a task: they last as long as this actor holds them.
    fn show(&mut self, spec: &TaskSpec) {
        let (id, source, metrics) = (&spec.id, &spec.source, &self.shared.metrics);
        self.series.entry(id.clone()).or_insert_with(|| {
            (metrics.source(&source.topic, source.partition), metrics.task(&id.stage, id.partition))
        });
    }

    fn block_on(
        &mut self,
        context: &mut Context<Self>,
        job: impl FnOnce() -> (JobDone, Returned) + Send + 'static,
    ) {
        let done = actix_rt::task::spawn_blocking(job).into_actor(self);
        context.spawn(done.map(|done, actor, context| {
            // A panic in a job ends the process in the panic hook, before it could be seen here.
            let Ok((done, returned)) = done else { return };
            match returned {
                Returned::Transactions(transactions) => actor.transactions = Some(transactions),
                Returned::Reader(reader) => actor.reader = Some(reader),
                Returned::Nothing => {}
            }
            let now_ms = actor.now_ms();
            let step = actor.worker.job_done(done, now_ms);
            actor.took(step, context);
        }));
    }

    // ---- telling ----

    fn tell(&mut self, event: WorkerEvent) {
        match event {
            WorkerEvent::Committed { counters, duration_ms } => {
                self.has_committed = true;
                self.metrics.checkpoint_done(duration_ms);
                for (task, counters) in &counters {
                    self.count(task, counters);
                }
                if self.worker.tasks_mut().any(|task| task.is_sweeping()) {
                    self.shared.crash.hit("between_chunks");
                }
            }
            WorkerEvent::NothingToCommit => self.metrics.nothing_to_commit(),
            WorkerEvent::Aborted(_) => {
                self.shared.metrics.transactions_aborted.inc();
            }
            WorkerEvent::Fenced(why) => {
                tracing::warn!(worker = self.index, "not the owner of the partitions any more: {why}");
                self.shared.metrics.members_fenced.inc();
            }
            WorkerEvent::Restored { .. } => {}
            WorkerEvent::CutFailed { task, error } => {
                self.shared.metrics.changelog_cuts_failed.inc();
                tracing::warn!(
                    %task,
                    "a topic of the application's own was not cut and only grows; that needs the Delete right on it: {error}"
                );
            }
        }
    }

    fn count(&mut self, task: &TaskId, counters: &Counters) {
        let metrics = &self.shared.metrics;
        if let Some((source, _)) = self.series.get(task) {
            source.add_records_in(counters.records_in);
        }
        for (topic, records) in &counters.records_out {
            metrics.records_out(topic).inc_by(*records);
        }
        for (operator, records) in &counters.late {
            metrics.records_late(operator).inc_by(*records);
        }
        for (operator, records) in &counters.duplicates {
            metrics.duplicates(operator).inc_by(*records);
        }
        for (operator, records) in &counters.failed {
            metrics.records_failed(operator).inc_by(*records);
        }
        for (topic, records) in &counters.dead_letters {
            metrics.dead_letters(topic).inc_by(*records);
        }
    }

    /// Updates what is shown of the worker, if it is time or its phase has changed.
    fn report(&mut self) {
        let (now_ms, phase) = (self.now_ms(), self.worker.phase());
        self.health.beat(self.index);
        let steady = |phase| matches!(phase, Some(Phase::Running | Phase::Committing));
        let changed = self.told_phase != Some(phase) && !(steady(self.told_phase) && steady(Some(phase)));
        if !changed && now_ms < self.reported_ms + REPORT_INTERVAL_MS {
            return;
        }
        self.reported_ms = now_ms;
        self.told_phase = Some(phase);
        self.health.set(self.index, phase, "");
        self.report_tasks();
        self.report_finished();
    }

    /// Tells the coordinator when the worker's share of a bounded run is done, and when it is not any
    /// more, because partitions have moved.
    fn report_finished(&mut self) {
        let share = match self.worker.is_finished() {
            false => None,
            true if self.worker.sources().is_empty() => Some(Share::Nothing),
            true if self.has_committed => Some(Share::Done),
            true => Some(Share::DoneBefore),
        };
        if share != self.told_share {
            self.told_share = share;
            let sources = self.worker.sources().into_iter().map(|(_, source)| source).collect();
            let share = share.map(|share| (share, sources));
            self.coordinator.do_send(WorkerFinished { index: self.index, share });
        }
    }

    fn report_tasks(&mut self) {
        let ends: BTreeMap<TaskId, Option<i64>> = self
            .worker
            .sources()
            .into_iter()
            .map(|(task, source)| (task, self.worker.log().end_offset(&source)))
            .collect();
        if self.worker.phase() != Phase::Restoring {
            self.series.retain(|task, _| ends.contains_key(task));
        }
        for task in self.worker.tasks_mut() {
            let id = task.spec().id.clone();
            let Some((source, series)) = self.series.get(&id) else { continue };
            if let Some(end) = ends.get(&id).copied().flatten() {
                source.set_lag((end - task.next_offset()).max(0));
            }
            report_task(task, series);
        }
    }
}

fn report_task(task: &mut Task, series: &TaskMetrics) {
    if let Some(watermark_ms) = task.watermark_ms() {
        series.set_watermark(watermark_ms);
    }
    if let Some(idle) = task.is_idle() {
        series.set_idle(idle);
    }
    if let Some(held_back_ms) = task.held_back_ms() {
        series.set_alignment(task.drift_ms(), held_back_ms);
    }
    if let Some(tasks) = task.upstream_tasks_unheard() {
        series.set_upstream_tasks_unheard(tasks);
    }
    if let Some((log_start, flushed)) = task.changelog_offsets() {
        series.set_changelog_cut(log_start);
        series.set_flushed(flushed);
        series.set_state_bytes(task.store_bytes());
    }
    series.set_cache_bytes(task.memory().total as u64);
}

/// Two jobs at a time that need the same client: the state machine has a bug, and to carry on would be to
/// wait for ever.
fn busy(client: &str) -> Exit {
    Exit::Failed(format!("a job asked for the {client} while another one had it; please report this"))
}

/// What a job gives back.
enum Returned {
    Transactions(KafkaTransactionLog),
    Reader(KafkaChangelogReader),
    Nothing,
}

impl Actor for WorkerActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        self.schedule(true, context);
    }
}

impl Handler<DoStep> for WorkerActor {
    type Result = ();

    fn handle(&mut self, _: DoStep, context: &mut Self::Context) {
        self.step_due = false;
        self.idle_timer = None;
        if !self.ended {
            let now_ms = self.now_ms();
            let step = self.worker.step(now_ms, clock_ms());
            self.took(step, context);
        }
    }
}

impl Handler<Wake> for WorkerActor {
    type Result = ();

    fn handle(&mut self, _: Wake, context: &mut Self::Context) {
        self.schedule(true, context);
    }
}

impl Handler<Unmarked> for WorkerActor {
    type Result = ();

    fn handle(&mut self, unmarked: Unmarked, _: &mut Self::Context) {
        self.worker.mark_again(&unmarked.0);
    }
}

impl Handler<StopWorker> for WorkerActor {
    type Result = ();

    fn handle(&mut self, _: StopWorker, context: &mut Self::Context) {
        self.worker.stop();
        self.schedule(true, context);
    }
}
