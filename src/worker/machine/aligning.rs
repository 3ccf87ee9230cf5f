//! Alignment: how far the partitions of the group are, and which of this worker's wait for them.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::{Worker, log_failed};
use crate::planted::{Bug, is_planted};
use crate::record::TopicPartition;
use crate::task::Task;
use crate::topology::plan::Alignment;
use crate::worker::alignment::Standing;
use crate::worker::job::{Exit, Job};
use crate::worker::port::{Log, LogError};

/// The others are asked for no more often than this: they commit some ten times a second.
const ASK_INTERVAL_MS_MIN: u64 = 100;
/// While something waits they are asked so many times as often.
const ASKS_PER_WAIT: u64 = 10;
/// When nobody has answered for so long, that is told, and told again as often.
const UNANSWERED_MS: u64 = 30_000;

/// The least watermark of each group.
type Least = BTreeMap<Arc<str>, i64>;

/// What is known of partitions that are aligned with one another.
#[derive(Default)]
pub(super) struct Known {
    /// How far each is, of those that somebody has committed something of; what others have done since is not known.
    standings: BTreeMap<TopicPartition, Standing>,
    /// Of those among them that are not this worker's own.
    least_of_others: Least,
    asking: bool,
    /// The question of this epoch was answered, or failed.
    pub(super) is_answered: bool,
    asked_ms: u64,
    /// When there was an answer, or somebody was told that there is none.
    heard_ms: u64,
}

impl<L: Log> Worker<L> {
    /// Asks how far the others are, if it is time, and tells the tasks whose sources are aligned whom they wait for.
    /// What is held back is paused once something of it has come, so that it takes no other partition's place.
    pub(super) fn align(&mut self, now_ms: u64) -> Result<(), Exit> {
        if !self.tasks.values().any(|task| task.spec().alignment.is_some()) {
            return Ok(());
        }
        // Of two that wait for one another in turn, each goes on when it has heard of the other.
        let is_waiting = self.tasks.values().any(Task::is_held_back);
        let interval_ms = self.spec.limits.watermark_interval_ms / if is_waiting { ASKS_PER_WAIT } else { 1 };
        let interval_ms = interval_ms.max(ASK_INTERVAL_MS_MIN);
        let known = &mut self.known;
        if !known.asking && (!known.is_answered || now_ms >= known.asked_ms + interval_ms) {
            (known.asking, known.asked_ms) = (true, now_ms);
            self.step.jobs.push(Job::Ask { application: self.spec.application.clone() });
        }
        let waits = !known.is_answered;
        let least_ms = self.least_watermarks();
        let mut failed = None;
        for task in self.tasks.values_mut() {
            let Some(alignment) = &task.spec().alignment else { continue };
            let least_ms = least_ms.get(&alignment.group).copied();
            task.align(least_ms, waits, now_ms);
            let Some(pause) = task.turn_intake() else { continue };
            if let Err(error) = self.log.pause(&task.spec().source, pause) {
                failed = Some(error);
                break;
            }
        }
        match failed {
            None => Ok(()),
            Some(LogError::Retry(message)) => self.recover(&message),
            Some(error) => Err(log_failed(error)),
        }
    }

    /// The least watermark of each group, of those that are waited for. This worker knows best how far its own
    /// tasks are.
    fn least_watermarks(&self) -> Least {
        let mut least = self.known.least_of_others.clone();
        for task in self.tasks.values() {
            if let (Some(alignment), Some(standing)) = (&task.spec().alignment, task.standing()) {
                add(&mut least, alignment, standing);
            }
        }
        least
    }

    /// To be called when the others, or this worker's own tasks, are not the same any more.
    pub(super) fn look_at_others(&mut self) {
        let own: HashSet<&TopicPartition> = self.tasks.values().map(|task| &task.spec().source).collect();
        let mut least = Least::new();
        for (partition, standing) in &self.known.standings {
            let stage = self.spec.stages.iter().find(|stage| *stage.topic == *partition.topic);
            if let Some(alignment) = stage.and_then(|stage| stage.alignment.as_ref())
                && !own.contains(partition)
            {
                add(&mut least, alignment, *standing);
            }
        }
        self.known.least_of_others = least;
    }

    /// An answer that does not come changes nothing: what was known before is older, so it holds back for longer.
    pub(super) fn asked(&mut self, answer: Result<Vec<(TopicPartition, Standing)>, LogError>, now_ms: u64) {
        let known = &mut self.known;
        (known.asking, known.is_answered) = (false, true);
        match answer {
            Ok(standings) => {
                known.standings = standings.into_iter().collect();
                known.heard_ms = now_ms;
                self.look_at_others();
                for task in self.tasks.values_mut() {
                    task.recall(self.known.standings.get(&task.spec().source).copied());
                }
            }
            Err(error) if now_ms >= known.heard_ms + UNANSWERED_MS => {
                tracing::warn!(
                    "how far the partitions of other processes are is not known anew for {} ms; aligned partitions are \
                     held back by what was known before: {error}",
                    now_ms - known.heard_ms
                );
                known.heard_ms = now_ms;
            }
            Err(error) => tracing::debug!("asking how far other partitions are: {error}"),
        }
    }

    /// How far each partition is, as was told last: for a second opinion.
    pub fn told_standings(&self) -> &BTreeMap<TopicPartition, Standing> {
        &self.known.standings
    }
}

fn add(least: &mut Least, alignment: &Alignment, standing: Standing) {
    let Some(watermark_ms) = standing.awaited_ms() else { return };
    let least_ms = least.entry(alignment.group.clone()).or_insert(watermark_ms);
    let greatest = is_planted(Bug::AlignedWithGreatest);
    *least_ms = if greatest { watermark_ms.max(*least_ms) } else { watermark_ms.min(*least_ms) };
}
