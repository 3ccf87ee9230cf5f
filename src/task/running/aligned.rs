//! How a task waits for others that its source is aligned with.

use super::Task;
use super::idle::Drained;
use crate::worker::alignment::Standing;

/// Of a task whose source is aligned with others.
#[derive(Default)]
pub(super) struct Aligned {
    /// The least watermark of its group; `None` while nobody is waited for.
    least_ms: Option<i64>,
    /// Of a task that has no watermark yet: what its partition had committed before, by whatever process.
    former_ms: Option<i64>,
    /// Nobody has asked yet how far the others are.
    waits: bool,
    /// When it was last told of the others, and whether it was held back then.
    told_ms: Option<u64>,
    was_held_back: bool,
    held_back_ms: u64,
    /// Its source is paused.
    paused: bool,
    pub(super) drained: Drained,
    /// Its source has had nothing to read for so long that nobody waits for it.
    pub(super) idle: bool,
    /// What is committed of it, by the process that it runs in.
    pub(super) committed: Option<Standing>,
}

impl Task {
    /// Learns the least watermark of its group, its own included. While it `waits` until somebody has told how far the
    /// others are, it reads nothing at all.
    pub fn align(&mut self, least_ms: Option<i64>, waits: bool, now_ms: u64) {
        let aligned = &mut self.aligned;
        if let Some(told_ms) = aligned.told_ms.filter(|_| aligned.was_held_back) {
            aligned.held_back_ms += now_ms.saturating_sub(told_ms);
        }
        (aligned.least_ms, aligned.waits, aligned.told_ms) = (least_ms, waits, Some(now_ms));
        self.aligned.was_held_back = !waits && self.is_held_back();
    }

    /// Learns what is committed of its partition. A task without state does not restore its watermark, and others wait
    /// for what its partition had: it goes on from there, so that it can tell that it is idle.
    pub fn recall(&mut self, told: Option<Standing>) {
        if self.watermark_ms().is_none() {
            self.aligned.former_ms = told.map(|standing| standing.watermark_ms);
        }
    }

    fn aligned_ms(&self) -> Option<i64> {
        self.watermark_ms().or(self.aligned.former_ms)
    }

    /// Whether it reads nothing now since others are to come nearer first.
    pub fn is_held_back(&self) -> bool {
        let Some(alignment) = self.spec.alignment.as_ref().filter(|_| !self.finished) else { return false };
        self.aligned.waits || alignment.holds_back(self.aligned_ms(), self.aligned.least_ms)
    }

    /// How far it has come; `None` before its first record, if it is done, and if it is not aligned with others.
    pub fn standing(&self) -> Option<Standing> {
        self.spec.alignment.as_ref().filter(|_| !self.finished)?;
        Some(Standing { watermark_ms: self.aligned_ms()?, idle: self.aligned.idle })
    }

    /// Whether its source is to be paused (`true`) or resumed (`false`) now; `None` if it stays as it is. It is paused when
    /// it is held back and what waits of such sources `is_crowding` others out, and resumed when what had come of it is
    /// processed: a consumer that is paused throws away what it has fetched ahead.
    pub fn turn_intake(&mut self, is_crowding: bool) -> Option<bool> {
        let pause = self.queued_records > 0 && (self.aligned.paused || (is_crowding && self.is_held_back()));
        let turns = pause != self.aligned.paused;
        self.aligned.paused = pause;
        turns.then_some(pause)
    }

    /// Whether its source is paused.
    pub fn is_paused(&self) -> bool {
        self.aligned.paused
    }

    /// How far its watermark is ahead of the least one of its group, in milliseconds; `None` without one.
    pub fn drift_ms(&self) -> Option<i64> {
        Some(self.aligned_ms()?.saturating_sub(self.aligned.least_ms?))
    }

    /// For how long it was held back since it started, in milliseconds; `None` if it is not aligned with others.
    pub fn held_back_ms(&self) -> Option<u64> {
        self.spec.alignment.as_ref().map(|_| self.aligned.held_back_ms)
    }
}
