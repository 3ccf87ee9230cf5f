//! When a task's source has nothing to read for so long that nobody waits for it.

use super::Task;

/// Since when there has been nothing to process, and nothing to read.
#[derive(Default)]
pub(super) struct Drained {
    since_ms: Option<u64>,
    /// The broker has confirmed it, after the time that it takes to be idle.
    is_confirmed: bool,
}

impl Drained {
    fn note(&mut self, drained: bool, now_ms: u64) {
        self.since_ms = self.since_ms.or(Some(now_ms)).filter(|_| drained);
        self.is_confirmed &= drained;
    }

    fn may_be_idle(&self, timeout_ms: u64, now_ms: u64) -> bool {
        !self.is_confirmed && self.since_ms.is_some_and(|since_ms| now_ms >= since_ms + timeout_ms)
    }

    fn looked(&mut self, drained: bool, timeout_ms: u64, now_ms: u64) {
        self.is_confirmed = drained && (self.is_confirmed || self.may_be_idle(timeout_ms, now_ms));
        self.since_ms = self.since_ms.filter(|_| drained);
    }
}

impl Task {
    /// Learns whether the source has no record behind those that were [handed over](Task::enqueue). A source that has
    /// had nothing to process for a while is idle; as long as anything waits, it is not, however long that takes.
    pub fn source_drained(&mut self, drained: bool, now_ms: u64) {
        // Nor is it while it may not be read.
        let waits = self.is_going_on() || self.staged.is_full() || self.is_held_back();
        let drained = drained && self.queue.is_empty() && !waits;
        self.aligned.drained.note(drained, now_ms);
        self.aligned.idle = self.aligned.drained.is_confirmed;
        // Other stages wait for what is due by the clock or with the checkpoint, too, whose rows come then.
        let drained = drained && self.staged.due_ms().is_none() && !self.staged.holds_back();
        self.drained.note(drained, now_ms);
        self.idle = self.drained.is_confirmed || (drained && self.pipeline.is_idle());
        self.staged.set_idle(self.idle);
    }

    /// Whether the source is idle if its broker has nothing more, which is to be [asked](Task::looked).
    pub fn may_be_idle(&self, now_ms: u64) -> bool {
        self.spec.idle_timeout_ms.is_some_and(|timeout_ms| {
            (self.staged.has_exchanges() && self.drained.may_be_idle(timeout_ms, now_ms))
                || (self.spec.alignment.is_some() && self.aligned.drained.may_be_idle(timeout_ms, now_ms))
        })
    }

    /// Learns whether the broker has nothing more. If it has, or does not answer, the time begins anew; so it does if
    /// something came while it was asked.
    pub fn looked(&mut self, drained: bool, now_ms: u64) {
        let Some(timeout_ms) = self.spec.idle_timeout_ms else { return };
        self.drained.looked(drained, timeout_ms, now_ms);
        self.aligned.drained.looked(drained, timeout_ms, now_ms);
    }

    /// Whether stages behind a change of keys, or partitions that it is aligned with, wait for its watermark.
    pub fn is_waited_for(&self) -> bool {
        self.staged.has_exchanges() || self.spec.alignment.is_some()
    }

    /// Whether its source will be idle if nothing more comes: a simulation waits for that.
    pub fn awaits_idleness(&self) -> bool {
        let by_stages = self.staged.has_exchanges() && !self.idle;
        let by_aligned = self.spec.alignment.is_some() && !self.aligned.idle;
        self.spec.idle_timeout_ms.is_some() && (by_stages || by_aligned) && !self.finished
    }
}
