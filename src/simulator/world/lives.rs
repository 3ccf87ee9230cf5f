//! Processes come and go.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Change, Down, RESTART_MS, World, stages};
use crate::model::clients::ModelAdmin;
use crate::record::TopicPartition;
use crate::simulator::disk::{Disk, Kind};
use crate::simulator::process::Process;
use crate::simulator::trace::Who;
use crate::worker::{WorkerSpec, topics};

impl World {
    pub(super) fn start_new(&mut self) -> Result<(), String> {
        self.identities += 1;
        self.start(self.identities, self.new_disk()?);
        Ok(())
    }

    /// An empty disk of the kind that this history has.
    pub(in crate::simulator) fn new_disk(&self) -> Result<Disk, String> {
        Disk::new(Kind::of(&self.scenario))
    }

    /// What takes the place of the topology later.
    pub(in crate::simulator) fn change_later(&mut self, change: Change) {
        self.change = Some(change);
    }

    /// All processes finish what there is, stop in order, and start with another topology.
    pub(super) fn change_topology(&mut self, change: Change) -> Result<(), String> {
        self.note(Who::World, "topology changed", || change.drop_state.join(", "));
        self.common.shared.faults.borrow_mut().on = false;
        self.mend();
        self.settle()?;
        self.stop()?;
        self.over = false;
        self.changed_at = self.source_ends();
        let mut admin = ModelAdmin::new(&self.common.shared.cluster);
        let topics = topics::prepare(&mut admin, &change.plan, self.scenario.bounded, 1, None)
            .map_err(|error| error.to_string())?;
        self.common.spec = Arc::new(WorkerSpec {
            stages: stages(&self.scenario, &change.plan, &topics)?,
            drop_state: change.drop_state,
            ..(*self.common.spec).clone()
        });
        self.common.shared.faults.borrow_mut().on = true;
        // Of two with one identity the last one goes on.
        let disks: BTreeMap<usize, Disk> = std::mem::take(&mut self.disks).into_iter().collect();
        for (identity, disk) in disks {
            self.start(identity, disk);
        }
        Ok(())
    }

    /// Where each source partition ends.
    pub(super) fn source_ends(&self) -> BTreeMap<TopicPartition, i64> {
        let mut ends = BTreeMap::new();
        for source in &self.common.sources {
            for number in 0..self.partitions(source) {
                let partition = TopicPartition::new(source, number);
                let end = self.common.shared.cluster.high_watermark(&partition);
                ends.insert(partition, end);
            }
        }
        ends
    }

    pub(super) fn start(&mut self, identity: usize, disk: Disk) {
        let number = self.started;
        self.started += 1;
        self.note(Who::Process(number), "started", || format!("identity {identity}"));
        self.processes.push(Process::start(
            &self.common,
            number,
            identity,
            disk,
            self.scenario.workers.max(1),
        ));
    }

    /// Wakes who was paused, starts who was down, ends who has stopped.
    pub(super) fn wake(&mut self) -> Result<(), String> {
        let now_ms = self.now_ms();
        for at in 0..self.processes.len() {
            if self.processes[at].frozen_until_ms.is_some_and(|until_ms| until_ms <= now_ms) {
                self.processes[at].freeze(None);
                let process = &self.processes[at];
                let what = if process.replaced { "replaced process woken" } else { "zombie woken" };
                self.note(Who::Process(process.number), what, String::new);
            }
        }
        while let Some(at) = self.down.iter().position(|down| down.restart_ms <= now_ms) {
            let Down { identity, disk, .. } = self.down.swap_remove(at);
            self.start(identity, disk);
        }
        for at in (0..self.processes.len()).rev() {
            if self.scenario.bounded
                && !self.processes[at].leaving
                && self.processes[at].is_finished(&self.common)
            {
                self.note(Who::Process(self.processes[at].number), "bounded run finished", String::new);
                self.processes[at].finished = true;
                self.processes[at].stop();
            }
            if self.processes[at].has_stopped() {
                self.retire(at)?;
            }
        }
        Ok(())
    }

    /// A process that has stopped in order is started again, unless it was to end.
    fn retire(&mut self, at: usize) -> Result<(), String> {
        let process = self.processes.remove(at);
        let Process { identity, replaced, finished, .. } = process;
        // It closes its stores; what it flushed last is synced.
        let disk = process.die().after_crash(0)?;
        self.check_violations(&disk)?;
        self.check_disk(&disk)?;
        if finished || self.over {
            self.disks.push((identity, disk));
        } else if !replaced {
            self.down.push(Down { identity, disk, restart_ms: self.now_ms() + RESTART_MS });
        }
        Ok(())
    }
}
