//! The end of a history: nothing goes wrong any more, and all that is to follow follows.

use std::collections::BTreeMap;

use super::World;
use crate::record::TopicPartition;
use crate::simulator::process::Process;

/// What is to be done is done within this time once nothing goes wrong any more: an open transaction of
/// a dead process, its session and a rebalance come before.
const DONE_LIMIT_MS: u64 = 300_000;
/// While there is something to do, so much time passes in a round.
const BUSY_MS: u64 = 5;
/// While there is not, twice as much as in the round before, up to this.
const IDLE_MS_MAX: u64 = 320;

impl World {
    /// Ends what went wrong and lasts.
    pub(super) fn mend(&mut self) {
        self.common.shared.cluster.set_marker_delay_ms(0);
        self.down.iter().for_each(|down| down.disk.set_full(false));
        for process in &mut self.processes {
            process.disk.set_full(false);
            process.frozen_until_ms = process.frozen_until_ms.map(|_| 0);
        }
    }

    /// Everything goes on until nothing is left to do.
    pub(super) fn settle(&mut self) -> Result<(), String> {
        let limit_ms = self.now_ms() + DONE_LIMIT_MS;
        while !self.is_done() {
            self.round()?;
            if self.now_ms() > limit_ms {
                return Err(format!("not done within {DONE_LIMIT_MS} ms: {}", self.what_is_missing()));
            }
        }
        Ok(())
    }

    /// Stops all processes in order.
    pub(super) fn stop(&mut self) -> Result<(), String> {
        self.over = true;
        let limit_ms = self.now_ms() + DONE_LIMIT_MS;
        while !self.processes.is_empty() || !self.down.is_empty() {
            self.processes.iter_mut().filter(|process| !process.leaving).for_each(Process::stop);
            self.round()?;
            if self.now_ms() > limit_ms {
                return Err(format!("not stopped within {DONE_LIMIT_MS} ms"));
            }
        }
        // Transactions whose producers are gone for good end by themselves.
        self.advance(DONE_LIMIT_MS);
        Ok(())
    }

    /// Everybody does what there is to do; then time passes.
    fn round(&mut self) -> Result<(), String> {
        let mut at = 0;
        let mut went_on = false;
        while at < self.processes.len() {
            let number = self.processes[at].number;
            let is_there = |world: &World| world.processes.get(at).is_some_and(|p| p.number == number);
            if self.processes[at].frozen_until_ms.is_none() {
                for seat in 0..self.processes[at].seats.len() {
                    if is_there(self) {
                        went_on |= self.step(at, seat)?;
                    }
                    while is_there(self) && self.go_on(at, seat)? {
                        went_on = true;
                        self.bury_the_dying()?;
                    }
                }
            }
            let shared = self.common.shared.clone();
            if is_there(self) {
                self.processes[at].go_on_orphan(&shared);
                at += 1;
            }
        }
        self.idle_ms = if went_on { BUSY_MS } else { IDLE_MS_MAX.min(2 * self.idle_ms) };
        self.advance(self.idle_ms);
        self.wake()?;
        if self.scenario.bounded
            && self.processes.is_empty()
            && self.down.is_empty()
            && !self.common.shared.cluster.has_markers_to_write()
            && self.unread().is_some()
        {
            return Err(format!("a bounded run ended early: {}", self.what_is_missing()));
        }
        Ok(())
    }

    /// Where a source partition is read from that starts at the newest record: the position that the group
    /// committed first. Whatever was processed before that would be processed from another position after a
    /// crash, so a task commits where it starts before anything else, and no row comes from further ahead.
    pub(in crate::simulator) fn anchor(&self, partition: &TopicPartition) -> Result<i64, String> {
        let anchor = self.common.shared.cluster.first_committed_offset(&self.common.application, partition);
        let anchor = anchor.unwrap_or_else(|| self.common.shared.cluster.high_watermark(partition));
        let began_at = self.began_at.get(partition).copied().unwrap_or(0);
        if anchor < began_at {
            return Err(format!("{partition} is read from {anchor} on, and had {began_at} records before"));
        }
        Ok(anchor)
    }

    /// Whether everything appended so far is processed and committed: also what a task closes bit by bit.
    fn is_done(&mut self) -> bool {
        if self.unread().is_some() {
            return false;
        }
        if self.scenario.bounded {
            return self.processes.is_empty() && self.down.is_empty();
        }
        let partitions: i32 = self.common.sources.iter().map(|source| self.partitions(source)).sum();
        let cluster = &self.common.shared.cluster;
        let clock_ms = self.common.shared.clock_ms();
        let mut owned = 0;
        for seat in self.processes.iter_mut().filter(|process| !process.leaving).flat_map(|p| &mut p.seats) {
            let consumer = seat.consumer();
            for task in seat.worker.tasks_mut() {
                // What is due only by the clock is waited for at the very end.
                let is_due = |due_ms: i64| self.over_soon || due_ms <= clock_ms;
                let waits = (self.over_soon && task.awaits_idleness()) || task.due_ms().is_some_and(is_due);
                if task.is_going_on() || task.is_dirty(u64::MAX) || waits {
                    return false;
                }
                // Another one may believe that it is its own as well.
                owned += i32::from(cluster.owns(consumer, &task.spec().source));
            }
        }
        owned == partitions
    }

    /// A partition of which not everything is read, with the offset that is missing.
    fn unread(&self) -> Option<(TopicPartition, i64)> {
        let cluster = &self.common.shared.cluster;
        for source in &self.common.sources {
            for number in 0..self.partitions(source) {
                let partition = TopicPartition::new(source, number);
                let Some(last) = cluster.last_offset(&partition) else { continue };
                let committed = cluster.committed_offset(&self.common.application, &partition);
                let is_unread = |last: i64| committed.is_none_or(|committed| committed <= last);
                if !is_unread(last) {
                    continue;
                }
                // What lies behind the end of a bounded run is none of its business.
                let end = self.scenario.bounded.then(|| self.end_offset(&partition)).flatten();
                let last = end.map_or(last, |end| last.min(end - 1));
                if is_unread(last) {
                    return Some((partition, last));
                }
            }
        }
        None
    }

    fn what_is_missing(&self) -> String {
        let phases: BTreeMap<String, String> = self
            .processes
            .iter()
            .flat_map(|process| &process.seats)
            .map(|seat| (seat.who.to_string(), format!("{:?}", seat.worker.phase())))
            .collect();
        format!("unread: {:?}; {} processes down; {phases:?}", self.unread(), self.down.len())
    }
}
