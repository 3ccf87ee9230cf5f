//! When sessions end.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::operator::window::state::Derived;

/// The ends of the sessions in one bucket, the first to end first.
pub(super) struct Timers {
    pub bucket_end_ms: i64,
    /// Some are of sessions that have grown since.
    pub ends: BinaryHeap<Reverse<(i64, Box<[u8]>)>>,
    /// Memory in use, about.
    pub bytes: usize,
}

/// About what a timer takes beside its key.
const TIMER_BYTES: usize = 40;

impl Timers {
    pub fn push(&mut self, end_ms: i64, key: Box<[u8]>) {
        self.bytes += TIMER_BYTES + key.len();
        self.ends.push(Reverse((end_ms, key)));
    }

    /// The first end at or before `due_ms`, with its key.
    pub fn pop(&mut self, due_ms: i64) -> Option<(i64, Box<[u8]>)> {
        self.ends.peek().filter(|Reverse((end_ms, _))| *end_ms <= due_ms)?;
        let Reverse((end_ms, key)) = self.ends.pop()?;
        self.bytes -= TIMER_BYTES + key.len();
        Some((end_ms, key))
    }
}

impl Derived for Option<Timers> {
    fn bytes(&self) -> usize {
        self.as_ref().map_or(0, |timers| timers.bytes)
    }
}
