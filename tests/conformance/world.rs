//! What a scenario is written against: makers of clients, and time.

use thalweg::worker::port::{ChangelogReader, Log, LogAdmin, TransactionLog};

use thalweg::record::TopicPartition;

/// How long a scenario waits for what must come.
pub const PATIENCE_MS: u64 = 60_000;

/// Who a client is.
#[derive(Clone, Debug)]
pub struct Who {
    pub group: String,
    pub instance: Option<String>,
    pub session_timeout_ms: u64,
    pub max_poll_interval_ms: u64,
    pub transactional_id: String,
    pub transaction_timeout_ms: u64,
}

impl Who {
    /// A static member of a group, with a transactional id of its own.
    pub fn of(group: &str, worker: &str) -> Who {
        Who {
            group: group.into(),
            instance: Some(format!("{group}-{worker}")),
            session_timeout_ms: 6_000,
            max_poll_interval_ms: 300_000,
            transactional_id: format!("{group}-{worker}"),
            transaction_timeout_ms: 10_000,
        }
    }
}

/// What the client says is to be done about an error in a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Retry,
    Abort,
    Fatal,
}

/// A transactional producer, call by call.
pub trait Steps {
    type Membership;
    fn init(&mut self) -> Result<(), Class>;
    fn begin(&mut self) -> Result<(), Class>;
    /// Writes a value and waits for its acknowledgement.
    fn write(&mut self, partition: &TopicPartition, value: &str) -> Result<(), Class>;
    /// Sends a group's offsets without being a member of it.
    fn send_offsets_as_nobody(&mut self, group: &str, offsets: &[(TopicPartition, i64)])
    -> Result<(), Class>;
    /// Sends offsets under a membership, of now or of before.
    fn send_offsets(
        &mut self,
        under: &Self::Membership,
        offsets: &[(TopicPartition, i64)],
    ) -> Result<(), Class>;
    fn commit(&mut self) -> Result<(), Class>;
    fn abort(&mut self) -> Result<(), Class>;
}

/// A member of a group that answers every rebalance at once.
pub trait Plain {
    type Membership;
    /// Serves it; returns how many partitions it has now.
    fn serve(&mut self) -> usize;
    /// Who it is now.
    fn membership(&self) -> Self::Membership;
    fn leave(self);
}

/// Kafka, or the model of it.
pub trait World {
    type Log: Log;
    type Producer: TransactionLog;
    type Membership;
    type Steps: Steps<Membership = Self::Membership>;
    type Plain: Plain<Membership = Self::Membership>;
    type Reader: ChangelogReader;
    type Admin: LogAdmin;

    /// A name that nothing else has.
    fn unique(&self, what: &str) -> String;
    /// A consumer that joins its group for these topics. Dropped, it falls silent.
    fn log(&self, who: &Who, topics: &[String]) -> Self::Log;
    /// A producer that commits for `log`.
    fn producer(&self, who: &Who, log: &Self::Log) -> Self::Producer;
    /// A producer under the same id, call by call.
    fn steps(&self, who: &Who) -> Self::Steps;
    /// A member of the group with the same identity as [`log`](World::log).
    fn plain(&self, who: &Who, topics: &[String]) -> Self::Plain;
    fn reader(&self, group: &str) -> Self::Reader;
    fn admin(&self) -> Self::Admin;
    /// What a read_uncommitted reader sees of a partition, from its log start to its high watermark.
    fn uncommitted(&self, partition: &TopicPartition) -> Vec<(i64, String)>;
    /// Lets time pass.
    fn pass(&self, ms: u64);
    fn now_ms(&self) -> u64;

    /// Looks again and again until it is as expected: markers come after a commit has returned.
    fn until_is<T: PartialEq + std::fmt::Debug>(&self, expected: T, mut look: impl FnMut() -> T) {
        let end_ms = self.now_ms() + PATIENCE_MS;
        loop {
            let found = look();
            if found == expected {
                return;
            }
            assert!(self.now_ms() < end_ms, "waited {PATIENCE_MS} ms for {expected:?}, found {found:?}");
            self.pass(5);
        }
    }

    /// Looks again and again until something is found.
    fn until<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let end_ms = self.now_ms() + PATIENCE_MS;
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(self.now_ms() < end_ms, "waited {PATIENCE_MS} ms for {what}");
            self.pass(5);
        }
    }
}
