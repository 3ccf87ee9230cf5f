//! A simulated process: workers with their clients and jobs, and a disk.

mod aligned;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use crate::model::clients::{ModelAdmin, ModelLog, ModelReader, ModelTransactionLog};
use crate::model::{ClientSettings, ConsumerId, Mishap};
use crate::record::{Records, TopicPartition};
use crate::simulator::disk::Disk;
use crate::simulator::job::{Clients, Finished, Running, begin, late_ms};
use crate::simulator::paths;
use crate::simulator::shared::Shared;
use crate::simulator::trace::Who;
use crate::task::TaskId;
use crate::worker::bounded::{LOOK_INTERVAL_MS, unfinished};
use crate::worker::neighbours::Neighbours;
use crate::worker::port::{Log, LogError, LogEvent};
use crate::worker::{Exit, Job, JobDone, Phase, Rebuilds, Step, Worker, WorkerEvent, WorkerSpec};

/// What the processes of a simulation have in common.
pub struct Common {
    /// What is shared by everything.
    pub shared: Rc<Shared>,
    /// What each worker does.
    pub spec: Arc<WorkerSpec>,
    /// The topics that are read.
    pub sources: Vec<String>,
    /// All of their partitions.
    pub source_partitions: Vec<TopicPartition>,
    /// The consumer group, and the begin of each transactional id.
    pub application: String,
    /// How long a member may be silent.
    pub session_timeout_ms: u64,
    /// How long a transaction may stay open.
    pub transaction_timeout_ms: u64,
}

impl Common {
    fn client(&self, identity: usize, worker: usize) -> ClientSettings {
        ClientSettings {
            group: self.application.clone(),
            instance_id: Some(format!("identity {identity} worker {worker}")),
            session_timeout_ms: self.session_timeout_ms,
            max_poll_interval_ms: 60_000,
            transactional_id: format!("{}-{identity}-{worker}", self.application),
            transaction_timeout_ms: self.transaction_timeout_ms,
        }
    }
}

/// Polls and fetches fail, or come to nothing, once in so many.
const CALLS_PER_FAULT: u64 = 400;

/// A consumer whose answers may be late or errors.
pub struct FaultyLog {
    inner: ModelLog,
    shared: Rc<Shared>,
    who: Who,
    /// The partitions were wanted back since this was last looked at.
    revoked: Cell<bool>,
    /// How often it was asked for records.
    fetches: u64,
}

impl FaultyLog {
    fn fails(&self, what: &'static str) -> Option<LogError> {
        self.shared.strike(CALLS_PER_FAULT)?;
        self.shared.note(self.who, what, String::new);
        Some(LogError::Retry(format!("{what} (simulated)")))
    }
}

impl Log for FaultyLog {
    fn poll(&mut self) -> Result<Option<LogEvent>, LogError> {
        if let Some(error) = self.fails("poll failed") {
            return Err(error);
        }
        let event = self.inner.poll()?;
        let what = match &event {
            None => return Ok(None),
            Some(LogEvent::Assigned { .. }) => "assigned",
            Some(LogEvent::Revoked) => "revoked",
            Some(LogEvent::Lost) => "session lost",
        };
        self.revoked.set(self.revoked.get() || matches!(event, Some(LogEvent::Revoked)));
        self.shared.note(self.who, what, || match &event {
            Some(LogEvent::Assigned { partitions, member }) => {
                let names: Vec<String> = partitions.iter().map(ToString::to_string).collect();
                format!("generation {}, {}", member.generation, names.join(" "))
            }
            _ => String::new(),
        });
        Ok(event)
    }

    fn start(&mut self, positions: &[(TopicPartition, i64)]) -> Result<(), LogError> {
        match self.fails("start failed") {
            Some(error) => Err(error),
            None => self.inner.start(positions),
        }
    }

    fn pause(&mut self, partition: &TopicPartition, paused: bool) -> Result<(), LogError> {
        let what = if paused { "partition paused" } else { "partition resumed" };
        self.shared.note(self.who, what, || partition.to_string());
        self.inner.pause(partition, paused)
    }

    fn release(&mut self) -> Result<(), LogError> {
        self.inner.release()
    }

    fn fetch(&mut self, records_max: usize) -> Result<Vec<Box<dyn Records>>, LogError> {
        self.fetches += 1;
        match self.fails("fetch failed") {
            Some(error) => Err(error),
            None => self.inner.fetch(records_max),
        }
    }

    fn read_up_to(&self, partition: &TopicPartition) -> Option<i64> {
        self.inner.read_up_to(partition)
    }

    fn end_offset(&self, partition: &TopicPartition) -> Option<i64> {
        self.inner.end_offset(partition)
    }

    fn leave(&mut self, limit_ms: u64) -> Result<(), LogError> {
        self.inner.leave(limit_ms)
    }
}

/// A worker's place in a process.
pub struct Seat {
    /// Who it is.
    pub who: Who,
    /// The worker.
    pub worker: Worker<FaultyLog>,
    clients: Clients,
    running: Vec<Running>,
    /// Jobs that have ended and are not told yet, with the time from which on they may be.
    finished: Vec<(u64, Finished)>,
    /// It has stopped in order.
    pub stopped: bool,
    rebuilds: Rebuilds,
}

/// What a step, or the end of a job, led to.
#[derive(Default)]
pub struct Told {
    /// What happened.
    pub events: Vec<WorkerEvent>,
    /// Whether there is more to do at once.
    pub busy: bool,
    /// The worker's end.
    pub exit: Option<Exit>,
}

impl Seat {
    fn new(common: &Common, neighbours: &Neighbours, identity: usize, number: usize, worker: usize) -> Seat {
        let cluster = &common.shared.cluster;
        let client = common.client(identity, worker);
        let inner = ModelLog::new(cluster, &client, &common.sources);
        let producer = ModelTransactionLog::new(cluster, &client, &inner);
        let reader = ModelReader::new(cluster, &client.group);
        let who = Who::Worker(number, worker);
        let shared = common.shared.clone();
        let log = FaultyLog { inner, shared, who, revoked: Cell::new(false), fetches: 0 };
        Seat {
            who,
            worker: Worker::new(common.spec.clone(), log, neighbours),
            clients: Clients { producer: Some(producer), reader: Some(reader) },
            running: Vec::new(),
            finished: Vec::new(),
            rebuilds: Rebuilds::default(),
            stopped: false,
        }
    }

    /// Lets the worker do a step; `told` is what the others of its process have told it.
    fn step(&mut self, common: &Common, disk: &Disk, told: &aligned::Told) -> Result<Told, String> {
        let over = self.intake_over_limit(&common.spec);
        let ahead = self.too_far_ahead(&common.spec, told);
        let step = self.worker.step(common.shared.now_ms(), common.shared.clock_ms());
        self.check_intake(&common.spec, over)?;
        self.check_alignment(&ahead)?;
        if self.worker.log().revoked.take() && self.worker.phase() == Phase::Committing {
            common.shared.note(self.who, "commit ends while partitions are wanted back", String::new);
        }
        self.take(step, common, disk)
    }

    /// Lets one of its jobs go on, or tells the worker of one that has ended. `None` when there is none
    /// for which it is time.
    pub fn go_on(
        &mut self,
        common: &Common,
        disk: &Disk,
        place: impl FnOnce(usize) -> usize,
    ) -> Result<Option<Told>, String> {
        let now_ms = common.shared.now_ms();
        let due: Vec<usize> =
            (0..self.running.len()).filter(|at| self.running[*at].resume_ms <= now_ms).collect();
        let told: Vec<usize> = (0..self.finished.len()).filter(|at| self.finished[*at].0 <= now_ms).collect();
        let choices = due.len() + told.len();
        if choices == 0 {
            return Ok(None);
        }
        let chosen = place(choices);
        if let Some(at) = due.get(chosen) {
            if let Some(finished) = self.running[*at].resume() {
                self.running.swap_remove(*at).end();
                let late_ms = late_ms(&common.shared, self.who, "job's end told late");
                let is_flush = matches!(finished.done, JobDone::Flushed { .. });
                let busy_ms = if is_flush { common.shared.disk_busy_until_ms() } else { 0 };
                self.finished.push((busy_ms.max(now_ms + late_ms), finished));
            }
            return Ok(Some(Told::default()));
        }
        let (_, finished) = self.finished.remove(told[chosen - due.len()]);
        self.tell(finished, common, disk).map(Some)
    }

    fn tell(&mut self, finished: Finished, common: &Common, disk: &Disk) -> Result<Told, String> {
        let Finished { done, clients } = finished;
        self.clients.producer = clients.producer.or(self.clients.producer.take());
        self.clients.reader = clients.reader.or(self.clients.reader.take());
        paths::of_job_done(&done, self.who, &common.shared);
        let flushed = if let JobDone::Flushed { task, .. } = &done { self.flushed(task) } else { None };
        let step = self.worker.job_done(done, common.shared.now_ms());
        if let Some((task, before)) = flushed
            && let Some((_, now)) = self.flushed(&task).filter(|(_, now)| *now < before)
        {
            return Err(format!(
                "{}: task {task} was flushed up to {before}, and is back at {now}",
                self.who
            ));
        }
        self.take(step, common, disk)
    }

    /// Up to which changelog offset the store of a task holds everything, as far as the task knows.
    fn flushed(&mut self, task: &TaskId) -> Option<(TaskId, i64)> {
        let task = self.worker.tasks_mut().find(|found| found.spec().id == *task)?;
        Some((task.spec().id.clone(), task.changelog_offsets()?.1))
    }

    fn take(&mut self, step: Step, common: &Common, disk: &Disk) -> Result<Told, String> {
        for job in step.jobs {
            self.check(&job)?;
            let running = begin(job, self.who, &mut self.clients, disk, &common.shared)
                .map_err(|why| format!("{}: {why}", self.who))?;
            common.shared.note(self.who, running.what, String::new);
            self.running.push(running);
        }
        Ok(Told { events: step.events, busy: step.busy, exit: step.exit })
    }

    fn check(&self, job: &Job) -> Result<(), String> {
        let runs = |what: &str| self.running.iter().any(|running| running.what == what);
        let twice = match job {
            Job::Init | Job::Commit { .. } => runs("init") || runs("commit"),
            Job::Restore { .. } | Job::Look { .. } => runs("restore") || runs("look"),
            Job::Ask { .. } => runs("ask"),
            Job::Flush { .. } | Job::Cut { .. } => false,
        };
        if twice {
            return Err(format!("{}: two jobs at once of which there may be one", self.who));
        }
        if let Job::Flush { task, .. } = job
            && self.running.iter().any(|running| running.flushes.as_ref() == Some(task))
        {
            return Err(format!("{}: two flushes of task {task} at once", self.who));
        }
        if matches!(job, Job::Commit { .. }) && self.worker.phase() != Phase::Committing {
            return Err(format!("{}: a commit in phase {:?}", self.who, self.worker.phase()));
        }
        Ok(())
    }

    /// What was taken in so far, if so much is pinned that nothing more may be.
    fn intake_over_limit(&mut self, spec: &WorkerSpec) -> Option<Intake> {
        if self.worker.phase() != Phase::Running {
            return None;
        }
        let pinned: usize = self.worker.tasks_mut().map(|task| task.memory().pinned).sum();
        if pinned <= spec.pinned_bytes_max {
            return None;
        }
        let note = "memory limit reached";
        self.worker.log().shared.note(self.who, note, || format!("{pinned} bytes are pinned"));
        Some(self.intake(pinned))
    }

    fn intake(&mut self, pinned: usize) -> Intake {
        let tasks = self.worker.tasks_mut();
        let positions = tasks.map(|task| (task.next_offset(), task.queued_records())).collect();
        Intake { pinned, fetches: self.worker.log().fetches, positions }
    }

    /// What is pinned has a limit: a step that begins above it takes in nothing (`over` is how it began), and
    /// what waits is never as much as two batches.
    ///
    /// That is all that the engine promises, and it is exact, where a number of bytes would be an estimate.
    /// What is pinned grows in two ways: by records that a step processes, and by the delta and the chunk of
    /// a checkpoint. A step takes one batch of each task, and only a step that began at or below the limit
    /// takes any; above it there is no more than one checkpoint, as it leaves nothing to commit. So what is
    /// pinned is at most the limit, one batch, and one checkpoint. What those weigh is up to the records
    /// and to how much the buffers of hash tables grow, which no bound that is worth checking foresees.
    fn check_intake(&mut self, spec: &WorkerSpec, over: Option<Intake>) -> Result<(), String> {
        // What is paused waits beside that, of each task for itself.
        let waiting = self.worker.tasks_mut().map(|task| (task.is_paused(), task.queued_records()));
        let (paused, others): (Vec<_>, Vec<_>) = waiting.partition(|(paused, _)| *paused);
        let of_others: usize = others.iter().map(|(_, waiting)| waiting).sum();
        let of_paused = paused.iter().map(|(_, waiting)| *waiting).max().unwrap_or_default();
        let waiting = of_others.max(of_paused);
        if waiting >= 2 * spec.batch_records_max {
            let batch = spec.batch_records_max;
            return Err(format!("{}: {waiting} records wait, with batches of {batch}", self.who));
        }
        let Some(before) = over else { return Ok(()) };
        let mut now = self.intake(before.pinned);
        if now.positions.is_empty() {
            // They were given back.
            now.positions.clone_from(&before.positions);
        }
        if now != before {
            let (limit, pinned) = (spec.pinned_bytes_max, before.pinned);
            return Err(format!(
                "{}: {pinned} bytes are pinned, with a limit of {limit}, and records are taken in",
                self.who
            ));
        }
        Ok(())
    }

    /// Its consumer.
    pub fn consumer(&self) -> ConsumerId {
        self.worker.log().inner.consumer()
    }

    /// What happens to its consumer's next request to the group.
    pub fn disturb(&self, mishap: Mishap) {
        self.worker.log().shared.cluster.disturb(self.consumer(), mishap);
    }

    fn end(self) {
        self.running.into_iter().for_each(Running::end);
    }
}

/// How far a worker has read.
#[derive(PartialEq)]
struct Intake {
    pinned: usize,
    /// How often it asked for records.
    fetches: u64,
    /// Of each task the next offset, and how many records wait.
    positions: Vec<(i64, usize)>,
}

/// A process.
pub struct Process {
    /// Its number in the story.
    pub number: usize,
    /// Which state directory it has: its clients' names come from it.
    pub identity: usize,
    /// Its disk.
    pub disk: Disk,
    /// Its workers.
    pub seats: Vec<Seat>,
    neighbours: Neighbours,
    /// It is paused until then.
    pub frozen_until_ms: Option<u64>,
    /// It was paused, and has neither committed nor been fenced since.
    pub was_frozen: bool,
    /// It has done its share of a bounded run, and waits for the others.
    waits: bool,
    /// When it asks for them next.
    look_ms: u64,
    /// Another process has its identity now: when it ends, nobody starts it again.
    pub replaced: bool,
    /// It leaves in order, and starts again.
    pub leaving: bool,
    /// It was a bounded run, and is over.
    pub finished: bool,
    /// Jobs of workers that were replaced: their end interests nobody.
    orphans: Vec<Running>,
}

impl Process {
    /// A process that starts.
    pub fn start(common: &Common, number: usize, identity: usize, disk: Disk, workers: usize) -> Process {
        let neighbours = Neighbours::default();
        let seat = |worker| Seat::new(common, &neighbours, identity, number, worker);
        Process {
            seats: (0..workers).map(seat).collect(),
            neighbours,
            number,
            identity,
            disk,
            frozen_until_ms: None,
            was_frozen: false,
            waits: false,
            look_ms: 0,
            replaced: false,
            leaving: false,
            finished: false,
            orphans: Vec::new(),
        }
    }

    /// Lets one of its workers do a step.
    pub fn step(&mut self, common: &Common, at: usize) -> Result<Told, String> {
        let told = self.told_by_others(at);
        self.seats[at].step(common, &self.disk, &told)
    }

    /// Pauses it, as SIGSTOP does, or wakes it.
    pub fn freeze(&mut self, until_ms: Option<u64>) {
        self.frozen_until_ms = until_ms;
        self.was_frozen |= until_ms.is_some();
        for seat in &self.seats {
            let log = seat.worker.log();
            log.shared.cluster.freeze(log.inner.consumer(), until_ms.is_some());
        }
    }

    /// Lets nothing through between it and its group until then.
    pub fn cut_off(&self, until_ms: u64) {
        for seat in &self.seats {
            let log = seat.worker.log();
            log.shared.cluster.cut_off(log.inner.consumer(), until_ms);
        }
    }

    /// Asks all workers to stop.
    pub fn stop(&mut self) {
        self.leaving = true;
        self.seats.iter_mut().for_each(|seat| seat.worker.stop());
    }

    /// Whether all workers have stopped.
    pub fn has_stopped(&self) -> bool {
        self.seats.iter().all(|seat| seat.stopped)
    }

    /// Whether a bounded run is over, as far as it knows: it asks now and then once it has done its share.
    pub fn is_finished(&mut self, common: &Common) -> bool {
        let now_ms = common.shared.now_ms();
        let has_done = self.seats.iter().all(|seat| seat.worker.is_finished());
        if now_ms < self.look_ms || !(self.waits || has_done) {
            return false;
        }
        let mut admin = ModelAdmin::new(&common.shared.cluster);
        let Ok(left) = unfinished(&mut admin, &common.application, &common.source_partitions) else {
            return false;
        };
        let own = self.seats.iter().filter(|seat| seat.worker.is_finished()).flat_map(|s| s.worker.sources());
        let own: Vec<TopicPartition> = own.map(|(_, source)| source).collect();
        if left.iter().all(|partition| own.contains(partition)) {
            return true;
        }
        if self.waits {
            self.seats.iter_mut().for_each(|seat| seat.worker.mark_again(&left));
        }
        (self.waits, self.look_ms) = (true, now_ms + LOOK_INTERVAL_MS);
        false
    }

    /// Whether a worker whose consumer is broken may be replaced once more.
    pub fn may_rebuild(&mut self, at: usize) -> bool {
        let Seat { worker, rebuilds, .. } = &mut self.seats[at];
        rebuilds.again(worker.was_assigned())
    }

    /// Puts a new worker in the place of one whose consumer is broken. Its jobs run on.
    pub fn rebuild(&mut self, common: &Common, at: usize) {
        let seat = Seat::new(common, &self.neighbours, self.identity, self.number, at);
        let old = std::mem::replace(&mut self.seats[at], seat);
        self.seats[at].rebuilds = old.rebuilds;
        self.orphans.extend(old.running);
        if self.leaving {
            self.seats[at].worker.stop();
        }
    }

    /// Lets a job of a worker that is gone go on.
    pub fn go_on_orphan(&mut self, shared: &Shared) {
        let now_ms = shared.now_ms();
        if let Some(at) = self.orphans.iter().position(|orphan| orphan.resume_ms <= now_ms)
            && self.orphans[at].resume().is_some()
        {
            self.orphans.swap_remove(at).end();
        }
    }

    /// The tasks that run here, that are its own as the group sees it, and whose logs nobody else has cut: a
    /// member that does not know yet that it is none any more may do that, at the owner's cost.
    pub fn owned(&self) -> Vec<TaskId> {
        let mut owned = Vec::new();
        for seat in &self.seats {
            let log = seat.worker.log();
            let owns = |partition: &TopicPartition| log.shared.cluster.owns(log.inner.consumer(), partition);
            let cut_it = |task: &TaskId| log.shared.cutters.borrow().get(task) == Some(&seat.who);
            let tasks = seat.worker.sources().into_iter();
            let tasks = tasks.filter(|(task, partition)| owns(partition) && cut_it(task));
            owned.extend(tasks.map(|(task, _)| task));
        }
        owned
    }

    /// It dies where it is. What is left is its disk.
    pub fn die(self) -> Disk {
        self.orphans.into_iter().for_each(Running::end);
        self.seats.into_iter().for_each(Seat::end);
        self.disk
    }
}
