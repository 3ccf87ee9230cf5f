//! Starting over and restoring: from a new producer to tasks that read on from what is committed. Every
//! assignment comes this way, and so does every recovery.

use std::sync::Arc;

use super::{StageSpec, Worker, log_failed};
use crate::planted::{Bug, is_planted};
use crate::record::TopicPartition;
use crate::task::{Changelog, RestoreError, RestoreRequest, Restored, Task, TaskId, TaskSpec};
use crate::worker::job::{Exit, Job, WorkerEvent};
use crate::worker::phase::Phase;
use crate::worker::port::{Log, LogError};

/// A recovery that is not followed by a successful commit so many times in a row ends the process.
const RECOVERIES_IN_A_ROW_MAX: u32 = 20;
/// How long to wait before something that failed is tried again.
const RETRY_MS: u64 = 500;

impl<L: Log> Worker<L> {
    /// On any doubt: forget what is in memory, replace the producer, start from what is committed.
    pub(super) fn recover(&mut self, why: &str) -> Result<(), Exit> {
        self.recoveries += 1;
        if self.recoveries > RECOVERIES_IN_A_ROW_MAX {
            return Err(Exit::Failed(format!(
                "started over {RECOVERIES_IN_A_ROW_MAX} times without a single commit; the last reason: {why}"
            )));
        }
        tracing::warn!("starting over from the last checkpoint: {why}");
        self.step.events.push(WorkerEvent::Aborted(why.to_owned()));
        if !is_planted(Bug::CacheKept) {
            self.drop_tasks();
        }
        if self.release_due {
            self.release()?;
        }
        self.become_phase(Phase::Starting);
        Ok(())
    }

    pub(super) fn start_producer(&mut self, now_ms: u64) {
        if !self.init_running && now_ms >= self.retry_at_ms {
            self.init_running = true;
            self.step.jobs.push(Job::Init);
        }
    }

    pub(super) fn init_done(&mut self, result: Result<(), LogError>, now_ms: u64) -> Result<(), Exit> {
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

    pub(super) fn begin_restore(&mut self) {
        self.become_phase(Phase::Restoring);
        self.retry_at_ms = 0;
        if is_planted(Bug::CacheKept) && !self.tasks.is_empty() {
            return;
        }
        self.drop_tasks();
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
            repartitioned_by: stage.repartitioned_by.clone(),
            idle_timeout_ms: stage.idle_timeout_ms,
            alignment: stage.alignment.clone(),
            sends_to: stage.sends_to.clone(),
        }
    }

    fn stage(&self, task: &TaskId) -> Option<&StageSpec> {
        self.spec.stages.iter().find(|stage| stage.id == task.stage)
    }

    pub(super) fn restore_next(&mut self, now_ms: u64) -> Result<(), Exit> {
        if self.restore_running || self.look_running || now_ms < self.retry_at_ms {
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

    pub(super) fn restore_done(
        &mut self,
        epoch: u64,
        task: &TaskId,
        result: Result<Restored, RestoreError>,
        now_ms: u64,
    ) -> Result<(), Exit> {
        self.restore_running = false;
        if epoch != self.epoch && !is_planted(Bug::OldRestoreApplied) {
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
            Err(RestoreError::Changed(message)) => {
                // Nobody starts it again as it is, and whoever mends it, by a reset or by the flags of a run,
                // need not wait until its session ends.
                self.try_leave(now_ms)?;
                return Err(Exit::Refused(message));
            }
            Err(RestoreError::Refused(message)) => return Err(Exit::Failed(message)),
        }
        Ok(())
    }

    fn all_restored(&mut self, now_ms: u64) -> Result<(), Exit> {
        let limits = Arc::new(self.spec.limits.shared_among(self.restored.len()));
        let mut positions = Vec::new();
        #[cfg(any(test, feature = "planted-bugs"))]
        for task in self.tasks.values_mut().filter(|_| is_planted(Bug::CacheKept)) {
            positions.push((task.spec().source.clone(), task.rewind()));
        }
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
}
