//! Running: records are fetched, queued with their tasks and processed, until a checkpoint is due.

use super::{Worker, log_failed};
use crate::operator::OperatorError;
use crate::planted::{Bug, is_planted};
use crate::state::store::StoreError;
use crate::task::{Task, TaskId};
use crate::worker::job::{Exit, Job};
use crate::worker::phase::Phase;
use crate::worker::port::{Log, LogError};

impl<L: Log> Worker<L> {
    pub(super) fn run(&mut self, now_ms: u64, clock_ms: i64) -> Result<(), Exit> {
        let pinned: usize = self.tasks.values_mut().map(|task| task.memory().pinned).sum();
        let over = pinned > self.spec.pinned_bytes_max && !is_planted(Bug::MemoryUnbounded);
        let due = over || self.commit_due(now_ms);
        if due && self.begin_checkpoint(now_ms)? {
            return Ok(());
        }
        self.start_flushes(now_ms, over);
        if over {
            // What is pinned has to reach the stores first; nothing that would pin more is done.
            return Ok(());
        }
        self.align(now_ms)?;
        if self.phase != Phase::Running {
            return Ok(());
        }
        self.fetch()?;
        self.look_for_idle_sources(now_ms);
        self.process(clock_ms)?;
        self.tell_neighbours();
        self.cut_sources(now_ms);
        Ok(())
    }

    /// A source has nothing for now if all that is there was fetched, as far as the client knows. A client that hears
    /// nothing knows nothing, so before a source counts as idle its broker is asked.
    fn look_for_idle_sources(&mut self, now_ms: u64) {
        for (id, task) in &mut self.tasks {
            if !task.is_waited_for() {
                continue;
            }
            let source = &task.spec().source;
            let (read, end) = (self.log.read_up_to(source), self.log.end_offset(source));
            task.source_drained(read.is_some() && read >= end, now_ms);
            if !self.look_running && task.may_be_idle(now_ms) {
                self.look_running = true;
                let partition = task.spec().source.clone();
                self.step.jobs.push(Job::Look { epoch: self.epoch, task: id.clone(), partition });
            }
        }
    }

    pub(super) fn looked(&mut self, epoch: u64, task: &TaskId, result: Result<i64, LogError>, now_ms: u64) {
        self.look_running = false;
        let Some(task) = self.tasks.get_mut(task).filter(|_| epoch == self.epoch) else { return };
        let read = self.log.read_up_to(&task.spec().source);
        task.looked(result.is_ok_and(|end| read >= Some(end)), now_ms);
    }

    fn commit_due(&mut self, now_ms: u64) -> bool {
        now_ms >= self.last_commit_ms + self.spec.commit_interval_ms
            || self.tasks.values_mut().any(|task| task.is_full() || task.has_much_to_commit())
            || (self.stopping && self.tasks.values_mut().any(|task| task.is_dirty(now_ms)))
    }

    /// Whether as much waits with these tasks as may: nothing more is fetched for them.
    pub(super) fn is_batch_waiting(&self, of: impl Fn(&Task) -> bool) -> bool {
        let waiting = || self.tasks.values().filter(|task| of(task));
        let records: usize = waiting().map(Task::queued_records).sum();
        let bytes: usize = waiting().map(Task::queued_bytes).sum();
        records >= self.spec.batch_records_max || bytes >= self.spec.batch_bytes_max
    }

    fn fetch(&mut self) -> Result<(), Exit> {
        if self.is_batch_waiting(|task| !task.is_paused()) {
            return Ok(());
        }
        let fetched = match self.log.fetch(self.spec.batch_records_max) {
            Ok(fetched) => fetched,
            Err(LogError::Retry(message)) => {
                tracing::warn!("{message}");
                return Ok(());
            }
            // The owner of a repartition topic cuts it. Who still believes to be one may hear of that before it hears
            // that it is none any more.
            Err(LogError::OutOfRange(message))
                if self.spec.stages.iter().any(|stage| stage.repartitioned_by.is_some()) =>
            {
                return self.recover(&message);
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

    fn process(&mut self, clock_ms: i64) -> Result<(), Exit> {
        let mut failed = None;
        for (id, task) in &mut self.tasks {
            task.tell_time(clock_ms);
            match task.run(self.spec.batch_records_max) {
                Ok(taken) => self.step.busy |= taken > 0 || task.is_full() || task.is_going_on(),
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

    pub(super) fn operator_failed(&mut self, task: &TaskId, error: OperatorError) -> Result<(), Exit> {
        match error {
            OperatorError::Fail(message) => Err(Exit::Failed(message)),
            OperatorError::Store(error) => self.store_failed(task, error),
            OperatorError::Broken(message) => self.recover(&message),
        }
    }

    pub(super) fn store_failed(&mut self, task: &TaskId, error: StoreError) -> Result<(), Exit> {
        match error {
            StoreError::Corrupt(message) => {
                self.corrupt.insert(task.clone(), message.clone());
                self.recover(&format!("the store of task {task} is corrupt: {message}"))
            }
            StoreError::Io(message) => Err(Exit::Failed(message)),
        }
    }
}
