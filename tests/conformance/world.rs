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
    /// Commits offsets without a transaction, as who it is now; whether that was taken.
    fn commit(&self, offsets: &[(TopicPartition, i64)]) -> bool;
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
    /// Appends a value outside of any transaction.
    fn append(&self, partition: &TopicPartition, value: &str);
    /// Raises the number of partitions of a topic.
    fn grow(&self, topic: &str, partitions: usize);
    /// Commits a group's offsets without a transaction and without being a member; whether that was taken.
    fn commit_as_nobody(&self, group: &str, offsets: &[(TopicPartition, i64)]) -> bool;
    /// A process of its own joins as `who` for a topic of one partition, and commits the offset 1. It is
    /// stopped while `meanwhile` is done, and commits the offset 99 as soon as it goes on. Returns the class of
    /// that commit, and what its consumer tells it then.
    fn zombie(&self, who: &Who, source: &TopicPartition, meanwhile: &mut dyn FnMut()) -> [String; 2];
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

/// A call of a producer.
#[derive(Clone, Debug)]
pub enum Call {
    Write(TopicPartition, String),
    Offsets(String, Vec<(TopicPartition, i64)>),
    Commit,
}

/// Something that an application may have a right to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource<'n> {
    Topic(&'n str),
    Group(&'n str),
    TransactionalId(&'n str),
}

/// A right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Read,
    Write,
    Delete,
}

/// A world whose network and brokers fail when they are told to.
pub trait Lab: World {
    /// The process of a producer makes a call and dies. The call's last request arrives so many milliseconds
    /// later.
    fn dies_in(&self, steps: Self::Steps, call: Call, after_ms: u64);
    /// A producer that waits a second for an answer before it asks again.
    fn impatient(&self, who: &Who) -> Self::Steps;
    /// An impatient producer commits; the request takes so long that the client asks again, and the first one arrives so many
    /// milliseconds after the answer to the second.
    fn commits_twice(&self, steps: &mut Self::Steps, after_ms: u64) -> Result<(), Class>;
    /// The brokers stop in order and start again.
    fn restart(&self);
    /// The brokers die and start again.
    fn crash(&self);
    /// For so long, from now on, nobody answers.
    fn pause(&self, ms: u64);
    /// The same world for an application that has all rights to these but one.
    fn restricted(&self, to: &[Resource<'_>], missing: (Resource<'_>, Operation)) -> Self;
}
