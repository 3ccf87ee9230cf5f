//! Checkpoints: what all tasks have done since the last one becomes one transaction.

use super::{Checkpoint, Worker};
use crate::planted::{Bug, is_planted};
use crate::worker::job::{Exit, Job, WorkerEvent};
use crate::worker::phase::Phase;
use crate::worker::port::{CommitError, Log, Receipt, SourceOffset, Transaction};

impl<L: Log> Worker<L> {
    /// Prepares a checkpoint of all tasks; false if nothing has happened since the last.
    pub(super) fn begin_checkpoint(&mut self, now_ms: u64) -> Result<bool, Exit> {
        self.last_commit_ms = now_ms;
        let Some(member) = self.assignment.as_ref().map(|assignment| assignment.member.clone()) else {
            return Ok(false);
        };
        let mut transaction = Transaction::default();
        let mut tasks = Vec::new();
        let mut failed = None;
        for (id, task) in &mut self.tasks {
            let contribution = match task.prepare(now_ms) {
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
            if !is_planted(Bug::OffsetsOfOneTaskLeftOut) || tasks.is_empty() {
                transaction.offsets.push(SourceOffset {
                    partition: contribution.source,
                    next_offset: contribution.next_offset,
                    finished: contribution.finished,
                    standing: contribution.standing,
                });
            }
            tasks.push((id.clone(), changes));
        }
        if let Some((id, error)) = failed {
            self.operator_failed(&id, error)?;
            return Ok(true);
        }
        if tasks.is_empty() {
            self.step.events.push(WorkerEvent::NothingToCommit);
            return Ok(false);
        }
        self.become_phase(Phase::Committing);
        self.checkpoint = Some(Checkpoint { tasks, began_ms: now_ms });
        self.step.jobs.push(Job::Commit { transaction, member });
        Ok(true)
    }

    pub(super) fn commit_done(
        &mut self,
        result: Result<Receipt, CommitError>,
        now_ms: u64,
    ) -> Result<(), Exit> {
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
        let mut broken = None;
        for (id, changes) in &checkpoint.tasks {
            let offsets = changes.and_then(|place| receipt.change_offsets.get(place));
            let Some(task) = self.tasks.get_mut(id) else { continue };
            match task.committed(offsets.map_or(&[], Vec::as_slice), now_ms) {
                Ok(counted) => counters.push((id.clone(), counted)),
                Err(error) => broken = Some((id.clone(), error)),
            }
        }
        let duration_ms = now_ms.saturating_sub(checkpoint.began_ms);
        self.step.events.push(WorkerEvent::Committed { counters, duration_ms });
        if self.release_due {
            return self.release();
        }
        if let Some((task, error)) = broken {
            return self.operator_failed(&task, error);
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
}
