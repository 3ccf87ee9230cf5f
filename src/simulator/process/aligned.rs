//! Whether who is ahead of others waits for them: a second opinion on alignment.

use std::collections::BTreeMap;

use super::{Process, Seat};
use crate::record::TopicPartition;
use crate::task::TaskId;
use crate::topology::plan::Alignment;
use crate::worker::WorkerSpec;
use crate::worker::alignment::Standing;

/// How far the partitions of other workers of a process are; `None` of one that nobody waits for.
pub(super) type Told = BTreeMap<TopicPartition, Option<Standing>>;

impl Process {
    /// What its other workers have told the one at this place.
    pub(super) fn told_by_others(&mut self, at: usize) -> Told {
        let mut told = Told::new();
        for (other, seat) in self.seats.iter_mut().enumerate() {
            if other != at && seat.worker.tells_neighbours() {
                let aligned = seat.worker.tasks_mut().filter(|task| task.spec().alignment.is_some());
                told.extend(aligned.map(|task| (task.spec().source.clone(), task.standing())));
            }
        }
        told
    }
}

impl Seat {
    /// The tasks that are further ahead of the least of their group than they may be, as far as its worker was told,
    /// with the next record of each.
    pub(super) fn too_far_ahead(&mut self, spec: &WorkerSpec, told: &Told) -> BTreeMap<TaskId, i64> {
        let committed = self.worker.told_standings().iter();
        let mut standings: Told =
            committed.map(|(partition, standing)| (partition.clone(), Some(*standing))).collect();
        standings.extend(told.clone());
        let mut aligned = Vec::new();
        for task in self.worker.tasks_mut() {
            let Some(alignment) = task.spec().alignment.clone() else { continue };
            let own = task.standing();
            standings.insert(task.spec().source.clone(), own);
            aligned.extend(own.map(|own| (task.spec().id.clone(), alignment, own, task.next_offset())));
        }
        let in_group = |topic: &str, group: &str| {
            let mut stages = spec.stages.iter().filter(|stage| stage.topic == topic);
            stages.any(|stage| stage.alignment.as_ref().is_some_and(|alignment| *alignment.group == *group))
        };
        let is_ahead = |alignment: &Alignment, own: Standing| {
            standings.iter().any(|(other, standing)| {
                in_group(&other.topic, &alignment.group)
                    && standing.is_some_and(|standing| {
                        !standing.idle && own.watermark_ms > standing.watermark_ms + alignment.max_drift_ms
                    })
            })
        };
        let ahead = aligned.into_iter().filter(|(_, alignment, own, _)| is_ahead(alignment, *own));
        ahead.map(|(id, _, _, next)| (id, next)).collect()
    }

    /// Those that were too far ahead have taken nothing in.
    pub(super) fn check_alignment(&mut self, ahead: &BTreeMap<TaskId, i64>) -> Result<(), String> {
        for task in self.worker.tasks_mut() {
            let (id, next) = (&task.spec().id, task.next_offset());
            if let Some(before) = ahead.get(id).filter(|before| next > **before) {
                let why = "was too far ahead of others, and is read on";
                return Err(format!("{}: task {id} {why}, from {before} to {next}", self.who));
            }
        }
        Ok(())
    }
}
