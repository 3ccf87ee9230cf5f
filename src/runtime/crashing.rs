//! A log with a crash point: what a process that dies while it gives partitions back leaves behind.

use crate::record::{Records, TopicPartition};
use crate::telemetry::crash::CrashPoints;
use crate::worker::port::{Log, LogError, LogEvent};

/// `inner`, with the crash point `during_revoke` before partitions are given back.
pub struct CrashingLog<L> {
    inner: L,
    crash: CrashPoints,
}

impl<L> CrashingLog<L> {
    /// See the type.
    pub fn new(inner: L, crash: CrashPoints) -> Self {
        CrashingLog { inner, crash }
    }
}

impl<L: Log> Log for CrashingLog<L> {
    fn poll(&mut self) -> Result<Option<LogEvent>, LogError> {
        self.inner.poll()
    }

    fn start(&mut self, positions: &[(TopicPartition, i64)]) -> Result<(), LogError> {
        self.inner.start(positions)
    }

    fn pause(&mut self, partition: &TopicPartition, paused: bool) -> Result<(), LogError> {
        self.inner.pause(partition, paused)
    }

    fn release(&mut self) -> Result<(), LogError> {
        self.crash.hit("during_revoke");
        self.inner.release()
    }

    fn fetch(&mut self, records_max: usize) -> Result<Vec<Box<dyn Records>>, LogError> {
        self.inner.fetch(records_max)
    }

    fn read_up_to(&self, partition: &TopicPartition) -> Option<i64> {
        self.inner.read_up_to(partition)
    }

    fn end_offset(&self, partition: &TopicPartition) -> Option<i64> {
        self.inner.end_offset(partition)
    }

    fn leave(&mut self, limit_ms: u64) -> Result<(), LogError> {
        self.inner.leave(limit_ms)
    }
}
