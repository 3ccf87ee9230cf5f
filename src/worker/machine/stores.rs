//! The stores behind the checkpoints: what is committed is flushed, what is flushed is cut off the log.

use super::Worker;
use crate::planted::{Bug, is_planted};
use crate::record::TopicPartition;
use crate::state::apply::ApplyError;
use crate::state::store::StoreError;
use crate::task::{Flushed, TaskId};
use crate::worker::job::{Exit, Job, WorkerEvent};
use crate::worker::phase::Phase;
use crate::worker::port::{Log, LogError};

impl<L: Log> Worker<L> {
    pub(super) fn start_flushes(&mut self, now_ms: u64, force: bool) {
        for (id, task) in &mut self.tasks {
            if let Some(job) = task.flush_job(now_ms, force) {
                self.flushes_running += 1;
                self.step.jobs.push(Job::Flush { epoch: self.epoch, task: id.clone(), job });
            }
        }
    }

    pub(super) fn flush_done(
        &mut self,
        epoch: u64,
        task: &TaskId,
        result: Result<Flushed, ApplyError>,
    ) -> Result<(), Exit> {
        self.flushes_running -= 1;
        match result {
            Ok(flushed) if epoch == self.epoch || is_planted(Bug::OldFlushApplied) => {
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

    /// Cuts repartition topics behind what is committed.
    pub(super) fn cut_sources(&mut self, now_ms: u64) {
        for (id, task) in &mut self.tasks {
            if let Some((partition, offset)) = task.cut_source_job(now_ms) {
                self.step.jobs.push(Job::Cut { epoch: self.epoch, task: id.clone(), partition, offset });
            }
        }
    }

    pub(super) fn cut_done(
        &mut self,
        epoch: u64,
        task: &TaskId,
        partition: &TopicPartition,
        result: Result<i64, LogError>,
    ) {
        if let Err(error) = &result {
            let error = error.to_string();
            self.step.events.push(WorkerEvent::CutFailed { task: task.clone(), error });
        }
        if epoch == self.epoch
            && let Some(task) = self.tasks.get_mut(task)
        {
            task.cut(partition, result.ok());
        }
    }
}
