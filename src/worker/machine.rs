//! The state machine.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::job::{Exit, Job, JobDone, WorkerEvent};
use super::phase::Phase;
use super::port::{CommitError, Log, LogError, LogEvent, Member, Receipt, Transaction};
use crate::operator::{OperatorError, PipelineFactory};
use crate::record::TopicPartition;
use crate::state::apply::ApplyError;
use crate::state::store::StoreError;
use crate::task::{
    Changelog, Flushed, RestoreError, RestoreRequest, Restored, Task, TaskId, TaskLimits, TaskSpec,
};
use crate::topology::plan::Start;
use crate::worker::port::TopicId;

/// A stage, as a worker sees it.
#[derive(Clone)]
pub struct StageSpec {
    /// Its id: that of its source.
    pub id: Arc<str>,
    /// The topic that it reads.
    pub topic: String,
    /// Where it begins without committed offsets.
    pub start: Start,
    /// Its changelog topic, that topic's identity and largest record; `None` without state.
    pub changelog: Option<(String, TopicId, usize)>,
    /// Ids and fingerprints of its stateful operators.
    pub operators: Vec<(String, String)>,
    /// Makes its tasks' operators.
    pub pipelines: PipelineFactory,
}

/// What a worker is told.
#[derive(Clone)]
pub struct WorkerSpec {
    /// The stages of the topology.
    pub stages: Vec<StageSpec>,
    /// Whether this is a bounded run.
    pub bounded: bool,
    /// Operators whose state is given up.
    pub drop_state: Vec<String>,
    /// The time between checkpoints.
    pub commit_interval_ms: u64,
    /// How many records are fetched, and how many a task processes, in one step.
    pub batch_records_max: usize,
    /// Nothing is fetched while batches of this many bytes wait.
    pub batch_bytes_max: usize,
    /// Above this much memory that cannot be evicted, nothing is read.
    pub pinned_bytes_max: usize,
    /// How long a restore waits for something that makes no progress.
    pub stall_ms: u64,
    /// How many bytes of changes a restore merges before it writes them.
    pub restore_buffer_bytes: usize,
    /// How long leaving the group may take.
    pub leave_limit_ms: u64,
    /// The bounds of all tasks of the worker together; they are shared evenly.
    pub limits: TaskLimits,
}

/// What a step did.
#[derive(Default)]
pub struct Step {
    /// To be run on blocking threads.
    pub jobs: Vec<Job>,
    /// What happened, for metrics and logs.
    pub events: Vec<WorkerEvent>,
    /// Whether there is more to do at once; otherwise the next step may wait a little, or until a job
    /// is done.
    pub busy: bool,
    /// The worker's end.
    pub exit: Option<Exit>,
}

/// A recovery that is not followed by a successful commit so many times in a row ends the process.
const RECOVERIES_IN_A_ROW_MAX: u32 = 20;
/// How long to wait before something that failed is tried again.
const RETRY_MS: u64 = 500;

struct Assignment {
    partitions: Vec<TopicPartition>,
    member: Member,
}

struct Checkpoint {
    /// The tasks that take part, and each one's place among the transaction's changes.
    tasks: Vec<(TaskId, Option<usize>)>,
    began_ms: u64,
}

/// The worker.
pub struct Worker<L> {
    spec: Arc<WorkerSpec>,
    log: L,
    phase: Phase,
    /// Rises with every assignment, release and recovery; what belongs to another one is dropped.
    epoch: u64,
    assignment: Option<Assignment>,
    tasks: BTreeMap<TaskId, Task>,
    restored: Vec<(Arc<TaskSpec>, Restored)>,
    to_restore: VecDeque<Arc<TaskSpec>>,
    restore_running: bool,
    cancelled: Arc<AtomicBool>,
    /// Stores found corrupt, with what was found: the next restore sets them aside.
    corrupt: BTreeMap<TaskId, String>,
    checkpoint: Option<Checkpoint>,
    /// The group wants the partitions back once the commit has returned.
    release_due: bool,
    init_running: bool,
    retry_at_ms: u64,
    last_commit_ms: u64,
    recoveries: u32,
    flushes_running: usize,
    stopping: bool,
    step: Step,
}

impl<L: Log> Worker<L> {
    /// A worker that reads `log`. It begins with a [`Job::Init`].
    pub fn new(spec: Arc<WorkerSpec>, log: L) -> Self {
        Worker {
            spec,
            log,
            phase: Phase::Starting,
            epoch: 0,
            assignment: None,
            tasks: BTreeMap::new(),
            restored: Vec::new(),
            to_restore: VecDeque::new(),
            restore_running: false,
            cancelled: Arc::default(),
            corrupt: BTreeMap::new(),
            checkpoint: None,
            release_due: false,
            init_running: false,
            retry_at_ms: 0,
            last_commit_ms: 0,
            recoveries: 0,
            flushes_running: 0,
            stopping: false,
            step: Step::default(),
        }
    }

    /// What it is doing.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Its tasks; empty while they are being restored.
    pub fn tasks_mut(&mut self) -> impl Iterator<Item = &mut Task> {
        self.tasks.values_mut()
    }

    /// Its tasks' names and the partitions that they read.
    pub fn sources(&self) -> Vec<(TaskId, TopicPartition)> {
        self.tasks.iter().map(|(id, task)| (id.clone(), task.spec().source.clone())).collect()
    }

    /// The log that it reads.
    pub fn log(&self) -> &L {
        &self.log
    }

    /// Whether every task that it has is done with a bounded run, and committed as such.
    pub fn is_finished(&self) -> bool {
        self.spec.bounded && self.phase == Phase::Running && self.tasks.values().all(Task::is_finished)
    }

    /// Asks it to commit, leave the group and stop.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// Does a bounded amount of work. `now_ms` is a monotonic time.
    pub fn step(&mut self, now_ms: u64) -> Step {
        if let Err(exit) = self.try_step(now_ms) {
            self.cancelled.store(true, Ordering::Relaxed);
            self.step.exit = Some(exit);
        }
        std::mem::take(&mut self.step)
    }

    fn try_step(&mut self, now_ms: u64) -> Result<(), Exit> {
        if !matches!(self.phase, Phase::Leaving | Phase::Stopped) {
            self.poll()?;
        }
        if self.stopping {
            self.try_leave(now_ms)?;
        }
        match self.phase {
            Phase::Starting => self.start_producer(now_ms),
            Phase::Restoring => self.restore_next(now_ms)?,
            Phase::Running => self.run(now_ms)?,
            Phase::Leaving if self.flushes_running == 0 => {
                self.become_phase(Phase::Stopped);
                self.step.exit = Some(Exit::Stopped);
            }
            Phase::Idle | Phase::Committing | Phase::Leaving | Phase::Stopped => {}
        }
        Ok(())
    }

    /// Hears the end of a job.
    pub fn job_done(&mut self, done: JobDone, now_ms: u64) -> Step {
        let result = match done {
            JobDone::Init(result) => self.init_done(result, now_ms),
            JobDone::Restored { epoch, task, result } => self.restore_done(epoch, &task, result, now_ms),
            JobDone::Committed(result) => self.commit_done(result, now_ms),
            JobDone::Flushed { epoch, task, result } => self.flush_done(epoch, &task, result),
            JobDone::Cut { epoch, task, result } => {
                self.cut_done(epoch, &task, result);
                Ok(())
            }
        };
        if let Err(exit) = result {
            self.cancelled.store(true, Ordering::Relaxed);
            self.step.exit = Some(exit);
        }
        self.step.busy = true;
        std::mem::take(&mut self.step)
    }

    fn become_phase(&mut self, next: Phase) {
        assert!(self.phase.may_become(next), "{:?} may not become {next:?}", self.phase);
        tracing::debug!(from = ?self.phase, to = ?next, epoch = self.epoch, "worker");
        self.phase = next;
    }

    // ---- the group ----

    fn poll(&mut self) -> Result<(), Exit> {
        loop {
            match self.log.poll() {
                Ok(None) => return Ok(()),
                Ok(Some(LogEvent::Assigned { partitions, member })) => self.assigned(partitions, member),
                Ok(Some(LogEvent::Revoked)) => self.revoked()?,
                Ok(Some(LogEvent::Lost)) => {
                    self.step.events.push(WorkerEvent::Fenced("the group gave the partitions away".into()));
                    self.revoked()?;
                }
                Err(LogError::Retry(message)) => {
                    tracing::warn!("{message}");
                    return Ok(());
                }
                Err(error) => return Err(log_failed(error)),
            }
            self.step.busy = true;
        }
    }

    fn assigned(&mut self, partitions: Vec<TopicPartition>, member: Member) {
        tracing::info!(
            generation = member.generation,
            partitions = %partitions.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            "partitions assigned"
        );
        self.assignment = Some(Assignment { partitions, member });
        if self.phase == Phase::Idle {
            self.begin_restore();
        }
    }

    /// The partitions have to go back; at once, unless a commit is running.
    fn revoked(&mut self) -> Result<(), Exit> {
        if self.phase == Phase::Committing {
            self.release_due = true;
            return Ok(());
        }
        self.release()
    }

    /// Gives the partitions back. What is in memory and not committed is dropped; others will do it.
    fn release(&mut self) -> Result<(), Exit> {
        self.release_due = false;
        self.assignment = None;
        self.drop_tasks();
        self.log.release().map_err(log_failed)?;
        tracing::info!("partitions given back");
        if !matches!(self.phase, Phase::Starting | Phase::Idle) {
            self.become_phase(Phase::Idle);
        }
        Ok(())
    }

    /// Forgets everything that is not committed, and whatever is still running for it.
    fn drop_tasks(&mut self) {
        self.epoch += 1;
        self.cancelled.store(true, Ordering::Relaxed);
        self.cancelled = Arc::default();
        self.tasks.clear();
        self.restored.clear();
        self.to_restore.clear();
        self.checkpoint = None;
    }

    // ---- starting over ----

    /// On any doubt: forget what is in memory, replace the producer, start from what is committed.
    fn recover(&mut self, why: &str) -> Result<(), Exit> {
        self.recoveries += 1;
        if self.recoveries > RECOVERIES_IN_A_ROW_MAX {
            return Err(Exit::Failed(format!(
                "started over {RECOVERIES_IN_A_ROW_MAX} times without a single commit; the last reason: {why}"
            )));
        }
        tracing::warn!("starting over from the last checkpoint: {why}");
        self.step.events.push(WorkerEvent::Aborted(why.to_owned()));
        self.drop_tasks();
        if self.release_due {
            self.release()?;
        }
        self.become_phase(Phase::Starting);
        Ok(())
    }

    fn start_producer(&mut self, now_ms: u64) {
        if !self.init_running && now_ms >= self.retry_at_ms {
            self.init_running = true;
            self.step.jobs.push(Job::Init);
        }
    }

    fn init_done(&mut self, result: Result<(), LogError>, now_ms: u64) -> Result<(), Exit> {
        self.init_running = false;
        match result {
            Ok(()) if self.phase != Phase::Starting => {}
            Ok(()) if self.assignment.is_some() => self.begin_restore(),
            Ok(()) => self.become_phase(Phase::Idle),
            Err(LogError::Retry(message) | LogError::Client(message)) => {
                tracing::warn!("{message}");
                self.retry_at_ms = now_ms + RETRY_MS;
            }
            Err(error) => return Err(log_failed(error)),
        }
        Ok(())
    }

    fn begin_restore(&mut self) {
        self.become_phase(Phase::Restoring);
        self.drop_tasks();
        self.retry_at_ms = 0;
        let Some(assignment) = &self.assignment else { return };
        for partition in &assignment.partitions {
            if let Some(stage) = self.spec.stages.iter().find(|stage| *stage.topic == *partition.topic) {
                self.to_restore.push_back(Arc::new(self.task_spec(stage, partition)));
            }
        }
    }

    fn task_spec(&self, stage: &StageSpec, partition: &TopicPartition) -> TaskSpec {
        TaskSpec {
            id: TaskId { stage: stage.id.clone(), partition: partition.partition },
            source: partition.clone(),
            start: stage.start,
            changelog: stage.changelog.as_ref().map(|(topic, topic_id, record_bytes_max)| Changelog {
                partition: TopicPartition::new(topic, partition.partition),
                topic_id: *topic_id,
                record_bytes_max: *record_bytes_max,
            }),
            bounded: self.spec.bounded,
            drop_state: self.spec.drop_state.clone(),
        }
    }

    fn stage(&self, task: &TaskId) -> Option<&StageSpec> {
        self.spec.stages.iter().find(|stage| stage.id == task.stage)
    }

    fn restore_next(&mut self, now_ms: u64) -> Result<(), Exit> {
        if self.restore_running || now_ms < self.retry_at_ms {
            return Ok(());
        }
        let Some(spec) = self.to_restore.front().cloned() else { return self.all_restored(now_ms) };
        let operators = self.stage(&spec.id).map(|stage| stage.operators.clone()).unwrap_or_default();
        self.restore_running = true;
        self.step.jobs.push(Job::Restore {
            epoch: self.epoch,
            request: RestoreRequest {
                corrupt: self.corrupt.remove(&spec.id),
                spec,
                operators,
                stall_ms: self.spec.stall_ms,
                buffer_bytes_max: self.spec.restore_buffer_bytes,
            },
            cancelled: self.cancelled.clone(),
        });
        Ok(())
    }

    fn restore_done(
        &mut self,
        epoch: u64,
        task: &TaskId,
        result: Result<Restored, RestoreError>,
        now_ms: u64,
    ) -> Result<(), Exit> {
        self.restore_running = false;
        if epoch != self.epoch {
            return Ok(());
        }
        match result {
            Ok(restored) => {
                self.step
                    .events
                    .push(WorkerEvent::Restored { task: task.clone(), records: restored.records_read });
                if let Some(spec) = self.to_restore.pop_front() {
                    self.restored.push((spec, restored));
                }
            }
            Err(RestoreError::Retry(message)) => {
                tracing::warn!(%task, "{message}");
                self.retry_at_ms = now_ms + RETRY_MS;
            }
            Err(RestoreError::Cancelled) => {}
            Err(RestoreError::Broken(message)) => return Err(Exit::Rebuild(message)),
            Err(RestoreError::Changed(message)) => return Err(Exit::Refused(message)),
            Err(RestoreError::Refused(message)) => return Err(Exit::Failed(message)),
        }
        Ok(())
    }

    fn all_restored(&mut self, now_ms: u64) -> Result<(), Exit> {
        let limits = Arc::new(self.spec.limits.shared_among(self.restored.len()));
        let mut positions = Vec::new();
        for (spec, restored) in std::mem::take(&mut self.restored) {
            let Some(stage) = self.stage(&spec.id) else { continue };
            let pipeline = (stage.pipelines)();
            let (id, source) = (spec.id.clone(), spec.source.clone());
            match Task::new(spec, limits.clone(), pipeline, restored) {
                Ok(task) => {
                    positions.push((source, task.next_offset()));
                    self.tasks.insert(id, task);
                }
                Err(error) => return self.store_failed(&id, error),
            }
        }
        match self.log.start(&positions) {
            Ok(()) => {}
            Err(LogError::Retry(message)) => return self.recover(&message),
            Err(error) => return Err(log_failed(error)),
        }
        self.last_commit_ms = now_ms;
        self.become_phase(Phase::Running);
        self.step.busy = true;
        // What a former owner could not cut any more.
        for (id, task) in &mut self.tasks {
            if let Some((partition, offset)) = task.cut_job() {
                self.step.jobs.push(Job::Cut { epoch: self.epoch, task: id.clone(), partition, offset });
            }
        }
        Ok(())
    }

    // ---- running ----

    fn run(&mut self, now_ms: u64) -> Result<(), Exit> {
        let pinned: usize = self.tasks.values_mut().map(|task| task.memory().pinned).sum();
        let over = pinned > self.spec.pinned_bytes_max;
        let due = over || self.commit_due(now_ms);
        if due && self.begin_checkpoint(now_ms)? {
            return Ok(());
        }
        self.start_flushes(now_ms, over);
        if !over {
            self.fetch()?;
        }
        self.process()
    }

    fn commit_due(&mut self, now_ms: u64) -> bool {
        now_ms >= self.last_commit_ms + self.spec.commit_interval_ms
            || self.tasks.values_mut().any(|task| task.is_full() || task.has_much_to_commit())
            || (self.stopping && self.tasks.values().any(Task::is_dirty))
    }

    fn fetch(&mut self) -> Result<(), Exit> {
        let queued: usize = self.tasks.values().map(Task::queued_records).sum();
        let bytes: usize = self.tasks.values().map(Task::queued_bytes).sum();
        if queued >= self.spec.batch_records_max || bytes >= self.spec.batch_bytes_max {
            return Ok(());
        }
        let fetched = match self.log.fetch(self.spec.batch_records_max) {
            Ok(fetched) => fetched,
            Err(LogError::Retry(message)) => {
                tracing::warn!("{message}");
                return Ok(());
            }
            Err(error) => return Err(log_failed(error)),
        };
        self.step.busy |= !fetched.is_empty();
        for records in fetched {
            let from = records.topic_partition();
            let Some((id, task)) = self.tasks.iter_mut().find(|(_, task)| task.spec().source == *from) else {
                continue;
            };
            let id = id.clone();
            if let Err(error) = task.enqueue(records) {
                return self.operator_failed(&id, error);
            }
        }
        if self.spec.bounded {
            for task in self.tasks.values_mut() {
                if let Some(offset) = self.log.read_up_to(&task.spec().source) {
                    task.source_read_up_to(offset);
                }
            }
        }
        Ok(())
    }

    fn process(&mut self) -> Result<(), Exit> {
        let mut failed = None;
        for (id, task) in &mut self.tasks {
            match task.run(self.spec.batch_records_max) {
                Ok(taken) => self.step.busy |= taken > 0 || task.is_full(),
                Err(error) => {
                    failed = Some((id.clone(), error));
                    break;
                }
            }
        }
        match failed {
            Some((id, error)) => self.operator_failed(&id, error),
            None => Ok(()),
        }
    }

    fn operator_failed(&mut self, task: &TaskId, error: OperatorError) -> Result<(), Exit> {
        match error {
            OperatorError::Fail(message) => Err(Exit::Failed(message)),
            OperatorError::Store(error) => self.store_failed(task, error),
            OperatorError::Broken(message) => self.recover(&message),
        }
    }

    fn store_failed(&mut self, task: &TaskId, error: StoreError) -> Result<(), Exit> {
        match error {
            StoreError::Corrupt(message) => {
                self.corrupt.insert(task.clone(), message.clone());
                self.recover(&format!("the store of task {task} is corrupt: {message}"))
            }
            StoreError::Io(message) => Err(Exit::Failed(message)),
        }
    }

    // ---- checkpoints ----

    /// Prepares a checkpoint of all tasks; false if nothing has happened since the last.
    fn begin_checkpoint(&mut self, now_ms: u64) -> Result<bool, Exit> {
        self.last_commit_ms = now_ms;
        let Some(member) = self.assignment.as_ref().map(|assignment| assignment.member.clone()) else {
            return Ok(false);
        };
        let mut transaction = Transaction::default();
        let mut tasks = Vec::new();
        let mut failed = None;
        for (id, task) in &mut self.tasks {
            let contribution = match task.prepare() {
                Ok(Some(contribution)) => contribution,
                Ok(None) => continue,
                Err(error) => {
                    failed = Some((id.clone(), error));
                    break;
                }
            };
            let changes = match &task.spec().changelog {
                Some(changelog) if !contribution.changes.is_empty() => {
                    transaction.changes.push((changelog.partition.clone(), contribution.changes));
                    Some(transaction.changes.len() - 1)
                }
                _ => None,
            };
            transaction.outputs.extend(contribution.outputs);
            transaction.offsets.push((contribution.source, contribution.next_offset));
            tasks.push((id.clone(), changes));
        }
        if let Some((id, error)) = failed {
            self.store_failed(&id, error)?;
            return Ok(true);
        }
        if tasks.is_empty() {
            return Ok(false);
        }
        self.become_phase(Phase::Committing);
        self.checkpoint = Some(Checkpoint { tasks, began_ms: now_ms });
        self.step.jobs.push(Job::Commit { transaction, member });
        Ok(true)
    }

    fn commit_done(&mut self, result: Result<Receipt, CommitError>, now_ms: u64) -> Result<(), Exit> {
        let receipt = match result {
            Ok(receipt) => receipt,
            Err(CommitError::Stop(message)) => return Err(Exit::Failed(message)),
            Err(CommitError::NotOwner(message)) => {
                self.step.events.push(WorkerEvent::Fenced(message.clone()));
                return self.recover(&message);
            }
            Err(CommitError::Doubt(message)) => return self.recover(&message),
        };
        self.recoveries = 0;
        let Some(checkpoint) = self.checkpoint.take() else { return Ok(()) };
        let mut counters = Vec::with_capacity(checkpoint.tasks.len());
        for (id, changes) in &checkpoint.tasks {
            let offsets = changes.and_then(|place| receipt.change_offsets.get(place));
            if let Some(task) = self.tasks.get_mut(id) {
                counters.push((id.clone(), task.committed(offsets.map_or(&[], Vec::as_slice), now_ms)));
            }
        }
        let duration_ms = now_ms.saturating_sub(checkpoint.began_ms);
        self.step.events.push(WorkerEvent::Committed { counters, duration_ms });
        if self.release_due {
            return self.release();
        }
        // Of the tasks that are here: what became of another one's store is for its next restore.
        if let Some((task, why)) = self.corrupt.iter().find(|(task, _)| self.tasks.contains_key(task)) {
            let why = format!("the store of task {task} is corrupt: {why}");
            return self.recover(&why);
        }
        self.become_phase(Phase::Running);
        self.start_flushes(now_ms, false);
        Ok(())
    }

    // ---- the stores ----

    fn start_flushes(&mut self, now_ms: u64, force: bool) {
        for (id, task) in &mut self.tasks {
            if let Some(job) = task.flush_job(now_ms, force) {
                self.flushes_running += 1;
                self.step.jobs.push(Job::Flush { epoch: self.epoch, task: id.clone(), job });
            }
        }
    }

    fn flush_done(
        &mut self,
        epoch: u64,
        task: &TaskId,
        result: Result<Flushed, ApplyError>,
    ) -> Result<(), Exit> {
        self.flushes_running -= 1;
        match result {
            Ok(flushed) if epoch == self.epoch => {
                let Some(task) = self.tasks.get_mut(task) else { return Ok(()) };
                task.flushed(flushed);
                if let Some((partition, offset)) = task.cut_job() {
                    let (epoch, task) = (self.epoch, task.spec().id.clone());
                    self.step.jobs.push(Job::Cut { epoch, task, partition, offset });
                }
                Ok(())
            }
            // The restore that follows, here or elsewhere, deals with whatever it finds.
            _ if epoch != self.epoch => Ok(()),
            Ok(_) => Ok(()),
            Err(_) if self.phase == Phase::Leaving => Ok(()),
            Err(ApplyError::Store(error)) => self.flush_failed(task, error),
            Err(error) => self.flush_failed(task, StoreError::Corrupt(error.to_string())),
        }
    }

    /// As [`store_failed`](Self::store_failed); but while a commit is running, only its end may lead on.
    fn flush_failed(&mut self, task: &TaskId, error: StoreError) -> Result<(), Exit> {
        if self.phase == Phase::Committing
            && let StoreError::Corrupt(message) = error
        {
            self.corrupt.insert(task.clone(), message);
            return Ok(());
        }
        self.store_failed(task, error)
    }

    fn cut_done(&mut self, epoch: u64, task: &TaskId, result: Result<i64, LogError>) {
        if let Err(error) = &result {
            let error = error.to_string();
            self.step.events.push(WorkerEvent::CutFailed { task: task.clone(), error });
        }
        if epoch == self.epoch
            && let Some(task) = self.tasks.get_mut(task)
        {
            task.cut(result.ok());
        }
    }

    // ---- leaving ----

    /// Leaves the group, unless something has to be committed first.
    fn try_leave(&mut self, now_ms: u64) -> Result<(), Exit> {
        match self.phase {
            Phase::Committing | Phase::Leaving | Phase::Stopped => return Ok(()),
            Phase::Running if self.tasks.values().any(Task::is_dirty) => return Ok(()),
            _ => {}
        }
        self.start_flushes(now_ms, true);
        self.drop_tasks();
        self.become_phase(Phase::Leaving);
        if let Err(error) = self.log.leave(self.spec.leave_limit_ms) {
            // Everything is committed; the group only notices later that this member has gone.
            tracing::warn!("{error}");
        }
        Ok(())
    }
}

fn log_failed(error: LogError) -> Exit {
    match error {
        LogError::Client(message) => Exit::Rebuild(message),
        LogError::Retry(message)
        | LogError::OutOfRange(message)
        | LogError::Fenced(message)
        | LogError::Stop(message) => Exit::Failed(message),
    }
}
