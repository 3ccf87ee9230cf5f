//! Alignment: how far the partitions of the group are, and which of this worker's wait for them.

use std::collections::{BTreeMap, HashSet};

use super::{Worker, log_failed};
use crate::record::TopicPartition;
use crate::task::Task;
use crate::worker::alignment::{Least, Standing};
use crate::worker::job::{Exit, Job};
use crate::worker::neighbours::{Neighbour, Neighbours, Others};
use crate::worker::port::{Log, LogError};

/// The others are asked for no more often than this: they commit some ten times a second.
const ASK_INTERVAL_MS_MIN: u64 = 100;
/// While something waits they are asked so many times as often.
const ASKS_PER_WAIT: u64 = 10;
/// When nobody has answered for so long, that is told, and told again as often.
const UNANSWERED_MS: u64 = 30_000;

/// What is known of partitions that are aligned with one another.
pub(super) struct Known {
    /// How far each is, of those that somebody has committed something of; what others have done since is not known.
    standings: BTreeMap<TopicPartition, Standing>,
    /// Of those among them that no worker of this process has.
    least_elsewhere: Least,
    /// The other workers of this process.
    neighbour: Neighbour,
    neighbours: Others,
    asking: bool,
    /// The question of this epoch was answered, or failed.
    is_answered: bool,
    asked_ms: u64,
    /// When there was an answer, or the first question without one, or when somebody was told that there is none.
    heard_ms: Option<u64>,
}

impl Known {
    pub(super) fn new(neighbours: &Neighbours) -> Self {
        Known {
            standings: BTreeMap::new(),
            least_elsewhere: Least::default(),
            neighbour: neighbours.join(),
            neighbours: Others::default(),
            asking: false,
            is_answered: false,
            asked_ms: 0,
            heard_ms: None,
        }
    }

    /// The worker's partitions are not its own any more, or are to begin anew.
    pub(super) fn forget_own(&mut self) {
        (self.is_answered, self.heard_ms) = (false, None);
        self.neighbour.end();
    }
}

impl<L: Log> Worker<L> {
    /// Asks how far the others are, if it is time, and tells the tasks whose sources are aligned whom they wait for.
    pub(super) fn align(&mut self, now_ms: u64) -> Result<(), Exit> {
        if !self.has_aligned_tasks() {
            return Ok(());
        }
        // Of two that wait for one another in turn, each goes on when it has heard of the other.
        let is_waiting = self.tasks.values().any(Task::is_held_back);
        let interval_ms = self.spec.limits.watermark_interval_ms / if is_waiting { ASKS_PER_WAIT } else { 1 };
        let interval_ms = interval_ms.max(ASK_INTERVAL_MS_MIN);
        let known = &mut self.known;
        if !known.asking && (!known.is_answered || now_ms >= known.asked_ms + interval_ms) {
            (known.asking, known.asked_ms) = (true, now_ms);
            let application = self.spec.application.clone();
            self.step.jobs.push(Job::Ask { epoch: self.epoch, application });
        }
        let waits = !known.is_answered;
        let mut least = Least::default();
        if known.neighbour.hear(&mut known.neighbours, &mut least) {
            self.look_elsewhere();
        }
        least.add_all(&self.known.least_elsewhere);
        least.add_all(&self.own_least());
        for task in self.tasks.values_mut() {
            let Some(alignment) = &task.spec().alignment else { continue };
            let least_ms = least.of(&alignment.group);
            task.align(least_ms, waits, now_ms);
        }
        self.turn_intakes()
    }

    /// Pauses what is held back once as much of it waits as would keep all others from being fetched; and resumes it when
    /// that is processed.
    fn turn_intakes(&mut self) -> Result<(), Exit> {
        let others_go_on = self.tasks.values().any(|task| !task.is_held_back() && !task.is_finished());
        let is_crowded =
            others_go_on && self.is_batch_waiting(|task| task.is_held_back() && !task.is_paused());
        let mut failed = None;
        for task in self.tasks.values_mut() {
            let Some(pause) = task.turn_intake(is_crowded) else { continue };
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

    fn has_aligned_tasks(&self) -> bool {
        self.tasks.values().any(|task| task.spec().alignment.is_some())
    }

    /// The least watermark of each group, of this worker's own tasks: it knows best how far those are.
    fn own_least(&self) -> Least {
        let mut least = Least::default();
        for task in self.tasks.values() {
            if let (Some(alignment), Some(standing)) = (&task.spec().alignment, task.standing()) {
                least.add(alignment, standing);
            }
        }
        least
    }

    /// Tells the other workers of the process how far this one's tasks are.
    pub(super) fn tell_neighbours(&mut self) {
        if self.has_aligned_tasks() {
            self.known.neighbour.tell(self.own_least());
        }
    }

    /// To be called when what others have committed, or whose partitions of it count, is not the same any more.
    fn look_elsewhere(&mut self) {
        let own: HashSet<&TopicPartition> = self.tasks.values().map(|task| &task.spec().source).collect();
        let mut least = Least::default();
        for (partition, standing) in &self.known.standings {
            let stage = self.spec.stages.iter().find(|stage| *stage.topic == *partition.topic);
            if let Some(alignment) = stage.and_then(|stage| stage.alignment.as_ref())
                && !own.contains(partition)
                && !self.known.neighbours.partitions.contains(partition)
            {
                least.add(alignment, *standing);
            }
        }
        self.known.least_elsewhere = least;
    }

    /// An answer that does not come changes nothing: what was known before is older, so it holds back for longer.
    pub(super) fn asked(
        &mut self,
        epoch: u64,
        answer: Result<Vec<(TopicPartition, Standing)>, LogError>,
        now_ms: u64,
    ) {
        let known = &mut self.known;
        known.asking = false;
        if epoch != self.epoch {
            return;
        }
        match answer {
            Ok(standings) => {
                known.standings = standings.into_iter().collect();
                known.heard_ms = Some(now_ms);
                for task in self.tasks.values_mut() {
                    task.recall(known.standings.get(&task.spec().source).copied());
                }
            }
            Err(error) => {
                let heard_ms = *known.heard_ms.get_or_insert(now_ms);
                if now_ms >= heard_ms + UNANSWERED_MS {
                    tracing::warn!(
                        "how far the partitions of other processes are is not known anew for {} ms; aligned partitions \
                         are held back by what was known before: {error}",
                        now_ms - heard_ms
                    );
                    known.heard_ms = Some(now_ms);
                } else {
                    tracing::debug!("asking how far other partitions are: {error}");
                }
            }
        }
        self.look_elsewhere();
        if !std::mem::replace(&mut self.known.is_answered, true) && !self.release_due {
            let aligned = self.tasks.values().filter(|task| task.spec().alignment.is_some());
            let partitions = aligned.map(|task| task.spec().source.clone()).collect();
            self.known.neighbour.begin(partitions, self.own_least());
        }
        self.tell_neighbours();
    }

    /// How far each partition is, as was told last: for a second opinion.
    pub fn told_standings(&self) -> &BTreeMap<TopicPartition, Standing> {
        &self.known.standings
    }

    /// Whether it tells the other workers of its process how far its partitions are: for a second opinion.
    pub fn tells_neighbours(&self) -> bool {
        self.known.neighbour.tells()
    }
}
