//! The state machine: the worker, its two entry points [`step`](Worker::step) and
//! [`job_done`](Worker::job_done), and its phases. What it does in them stands in files of its own, in
//! the order of a worker's life:
//!
//! - `group`: partitions are assigned and given back; the group is left.
//! - `restoring`: the producer and the tasks are made, at first and after any doubt.
//! - `running`: records are fetched and processed.
//! - `aligning`: partitions that are ahead of others wait for them.
//! - `checkpoint`: what was processed is committed.
//! - `stores`: what was committed is flushed, and the log is cut.

mod aligning;
mod checkpoint;
mod group;
mod restoring;
mod running;
mod stores;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::job::{Exit, Job, JobDone, WorkerEvent};
use super::neighbours::Neighbours;
use super::phase::Phase;
use super::port::{Log, LogError, Member, TopicId};
use crate::operator::PipelineFactory;
use crate::planted::{Bug, is_planted};
use crate::record::TopicPartition;
use crate::task::{Restored, Task, TaskId, TaskLimits, TaskSpec};
use crate::topology::plan::{Alignment, Start};

/// A stage, as a worker sees it.
#[derive(Clone)]
pub struct StageSpec {
    /// Its id: that of its source, or of the operator that changes keys.
    pub id: Arc<str>,
    /// The topic that it reads.
    pub topic: String,
    /// The topic is a repartition topic, whose rows are spread by this key.
    pub repartitioned_by: Option<String>,
    /// Where it begins without committed offsets.
    pub start: Start,
    /// When a partition has had nothing for so long, the stages behind it do not wait for it any more.
    pub idle_timeout_ms: Option<u64>,
    /// How it is aligned with other sources.
    pub alignment: Option<Alignment>,
    /// The topics through which it sends to later stages.
    pub sends_to: Vec<String>,
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
    /// The application's name: its consumer group.
    pub application: String,
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

/// What the group gave, and to whom: commits are made as that member and no other.
struct Assignment {
    partitions: Vec<TopicPartition>,
    member: Member,
}

/// The checkpoint whose commit is running.
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
    /// What the current step or the end of a job leads to; taken when it returns.
    step: Step,
    /// Rises with every assignment, release and recovery; what belongs to another one is dropped.
    epoch: u64,
    assignment: Option<Assignment>,
    /// The group has told it its partitions before.
    was_assigned: bool,
    tasks: BTreeMap<TaskId, Task>,
    /// Tasks restored so far; they become `tasks` together, when `to_restore` is empty.
    restored: Vec<(Arc<TaskSpec>, Restored)>,
    to_restore: VecDeque<Arc<TaskSpec>>,
    restore_running: bool,
    look_running: bool,
    /// Tells the restores of this epoch that nobody waits for them any more.
    cancelled: Arc<AtomicBool>,
    /// Stores found corrupt, with what was found: the next restore sets them aside.
    corrupt: BTreeMap<TaskId, String>,
    known: aligning::Known,
    checkpoint: Option<Checkpoint>,
    /// The group wants the partitions back once the commit has returned.
    release_due: bool,
    init_running: bool,
    /// Before this time neither a producer nor a restore is tried again.
    retry_at_ms: u64,
    last_commit_ms: u64,
    /// Since the last commit that succeeded.
    recoveries: u32,
    flushes_running: usize,
    stopping: bool,
}

impl<L: Log> Worker<L> {
    /// A worker that reads `log`, beside others in its process. It begins with a [`Job::Init`].
    pub fn new(spec: Arc<WorkerSpec>, log: L, neighbours: &Neighbours) -> Self {
        Worker {
            spec,
            log,
            phase: Phase::Starting,
            step: Step::default(),
            epoch: 0,
            assignment: None,
            was_assigned: false,
            tasks: BTreeMap::new(),
            restored: Vec::new(),
            to_restore: VecDeque::new(),
            restore_running: false,
            look_running: false,
            cancelled: Arc::default(),
            corrupt: BTreeMap::new(),
            known: aligning::Known::new(neighbours),
            checkpoint: None,
            release_due: false,
            init_running: false,
            retry_at_ms: 0,
            last_commit_ms: 0,
            recoveries: 0,
            flushes_running: 0,
            stopping: false,
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

    /// Whether the group has ever told it its partitions.
    pub fn was_assigned(&self) -> bool {
        self.was_assigned
    }

    /// Has those of its tasks that have finished `unmarked` sources mark their offsets as finished once more.
    pub fn mark_again(&mut self, unmarked: &[TopicPartition]) {
        for task in self.tasks.values_mut().filter(|task| unmarked.contains(&task.spec().source)) {
            task.mark_again();
        }
    }

    /// Whether every task that it has is done with a bounded run, and committed as such.
    pub fn is_finished(&self) -> bool {
        self.spec.bounded && self.phase == Phase::Running && self.tasks.values().all(Task::is_finished)
    }

    /// Asks it to commit, leave the group and stop.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// Does a bounded amount of work. `now_ms` is a monotonic time, `clock_ms` what the clock shows, in milliseconds
    /// since the Unix epoch.
    pub fn step(&mut self, now_ms: u64, clock_ms: i64) -> Step {
        if let Err(exit) = self.try_step(now_ms, clock_ms) {
            self.exit(exit);
        }
        std::mem::take(&mut self.step)
    }

    fn try_step(&mut self, now_ms: u64, clock_ms: i64) -> Result<(), Exit> {
        if !matches!(self.phase, Phase::Leaving | Phase::Stopped) {
            self.poll()?;
        }
        if self.stopping {
            self.try_leave(now_ms)?;
        }
        match self.phase {
            Phase::Starting => self.start_producer(now_ms),
            Phase::Restoring => self.restore_next(now_ms)?,
            Phase::Running => self.run(now_ms, clock_ms)?,
            Phase::Committing if is_planted(Bug::CommitDuringCommit) => self.run(now_ms, clock_ms)?,
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
            JobDone::Looked { epoch, task, result } => {
                self.looked(epoch, &task, result, now_ms);
                Ok(())
            }
            JobDone::Asked { epoch, result } => {
                self.asked(epoch, result, now_ms);
                Ok(())
            }
            JobDone::Cut { epoch, task, partition, result } => {
                self.cut_done(epoch, &task, &partition, result);
                Ok(())
            }
        };
        if let Err(exit) = result {
            self.exit(exit);
        }
        self.step.busy = true;
        std::mem::take(&mut self.step)
    }

    /// It ends: nobody is to wait for it.
    fn exit(&mut self, exit: Exit) {
        self.cancelled.store(true, Ordering::Relaxed);
        self.known.forget_own();
        self.step.exit = Some(exit);
    }

    fn become_phase(&mut self, next: Phase) {
        assert!(self.phase.may_become(next), "{:?} may not become {next:?}", self.phase);
        tracing::debug!(from = ?self.phase, to = ?next, epoch = self.epoch, "worker");
        self.phase = next;
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
