//! What the group says and is told: partitions come, partitions go, the worker leaves.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Assignment, Worker, log_failed};
use crate::planted::{Bug, is_planted};
use crate::record::TopicPartition;
use crate::worker::job::{Exit, WorkerEvent};
use crate::worker::phase::Phase;
use crate::worker::port::{Log, LogError, LogEvent, Member};

impl<L: Log> Worker<L> {
    pub(super) fn poll(&mut self) -> Result<(), Exit> {
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
        self.was_assigned = true;
        self.assignment = Some(Assignment { partitions, member });
        if self.phase == Phase::Idle {
            self.begin_restore();
        }
    }

    /// The partitions have to go back; at once, unless a commit is running.
    fn revoked(&mut self) -> Result<(), Exit> {
        if is_planted(Bug::CommitAfterRelease) && self.phase == Phase::Running {
            self.begin_checkpoint(self.last_commit_ms)?;
            return self.release();
        }
        if is_planted(Bug::CommitAsNewerMember) && self.phase == Phase::Running {
            return self.log.release().map_err(log_failed);
        }
        if self.phase == Phase::Committing && !is_planted(Bug::ReleaseDuringCommit) {
            self.release_due = true;
            self.known.forget_own();
            return Ok(());
        }
        self.release()
    }

    /// Gives the partitions back. What is in memory and not committed is dropped; others will do it.
    pub(super) fn release(&mut self) -> Result<(), Exit> {
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
    pub(super) fn drop_tasks(&mut self) {
        self.epoch += 1;
        self.cancelled.store(true, Ordering::Relaxed);
        self.cancelled = Arc::default();
        self.tasks.clear();
        self.restored.clear();
        self.to_restore.clear();
        self.checkpoint = None;
        self.known.forget_own();
    }

    /// Leaves the group, unless something has to be committed first.
    pub(super) fn try_leave(&mut self, now_ms: u64) -> Result<(), Exit> {
        match self.phase {
            Phase::Committing | Phase::Leaving | Phase::Stopped => return Ok(()),
            Phase::Running if self.tasks.values_mut().any(|task| task.is_dirty(now_ms)) => return Ok(()),
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
