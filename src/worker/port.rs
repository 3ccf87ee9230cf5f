//! The narrow ports through which the worker meets the world: the log, its transactions, the
//! changelog. rdkafka implements them in production (`kafka`); an in-process model of Kafka can serve
//! them as well.
//!
//! Nothing here blocks unless its documentation says so; what blocks is called from a blocking thread.

use std::sync::Arc;

pub use crate::record::{OutputRecord, TopicId};

use super::alignment::Standing;
use crate::record::{Records, TopicPartition};

/// The group member that an assignment was made to. A commit is valid only under it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// The group's generation; never negative.
    pub generation: i32,
    /// The member id; never empty.
    pub id: String,
}

/// What the group told a consumer since the last poll.
#[derive(Debug)]
pub enum LogEvent {
    /// These partitions are this consumer's now. Reading starts with [`Log::start`].
    Assigned {
        /// All of them; the eager protocol always hands out the whole assignment.
        partitions: Vec<TopicPartition>,
        /// The identity that the assignment came with.
        member: Member,
    },
    /// The group is rebalancing and wants all partitions back; answer with [`Log::release`], after a
    /// running commit has returned.
    Revoked,
    /// The partitions have a new owner already (the session ended): as `Revoked`, and nothing more may
    /// be committed.
    Lost,
}

/// What can go wrong at a port. Every message says what was tried, where, and what the broker said.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    /// It may work later: a broker away, a time-out, a coordinator that moves. Try again.
    #[error("{0}")]
    Retry(String),
    /// The position is not in the log any more (or not yet).
    #[error("{0}")]
    OutOfRange(String),
    /// Another process uses this identity, or the transactional id has a newer owner.
    #[error("{0}")]
    Fenced(String),
    /// The client cannot go on; a new one can.
    #[error("{0}")]
    Client(String),
    /// It will never work without an operator: missing rights, a missing topic, a wrong setting.
    #[error("{0}")]
    Stop(String),
}

/// A consumer that is a member of the application's group. It lives on the worker's thread.
pub trait Log {
    /// Serves the client and returns what the group said, one event at a time. Never blocks. Must be
    /// called at least once a second.
    fn poll(&mut self) -> Result<Option<LogEvent>, LogError>;
    /// Starts reading each partition at its offset. Called when the tasks are restored: once per
    /// assignment, and once more after each recovery, when what was fetched before is dropped.
    fn start(&mut self, positions: &[(TopicPartition, i64)]) -> Result<(), LogError>;
    /// Takes no more records of a started partition, and hands out none that have arrived and were not fetched; or goes
    /// on with it, behind the last that was fetched. Forgotten at the next start and release.
    fn pause(&mut self, partition: &TopicPartition, paused: bool) -> Result<(), LogError>;
    /// Gives all partitions back and answers a revocation. What was fetched is dropped.
    fn release(&mut self) -> Result<(), LogError>;
    /// Up to `records_max` records that have arrived, in offset order per partition, one element per
    /// partition. Never blocks; empty when nothing has arrived.
    fn fetch(&mut self, records_max: usize) -> Result<Vec<Box<dyn Records>>, LogError>;
    /// How far a started partition has been fetched: the offset after the last record, and past the
    /// markers and aborted records behind it once its end was reached. That is how a bounded run notices
    /// an end that has no record before it. `None` before the first record or end.
    fn read_up_to(&self, partition: &TopicPartition) -> Option<i64>;
    /// For each assigned partition, the offset after the last record that this consumer may see (its
    /// last stable offset) as far as the client knows it, for lag; `None` if it does not know yet.
    fn end_offset(&self, partition: &TopicPartition) -> Option<i64>;
    /// Leaves the group for good, also as a static member, and closes. Blocks, at most `limit_ms`.
    fn leave(&mut self, limit_ms: u64) -> Result<(), LogError>;
}

/// All that one checkpoint writes: one Kafka transaction.
#[derive(Clone, Debug, Default)]
pub struct Transaction {
    /// The outputs and dead letters of all tasks. Their offsets are of no interest.
    pub outputs: Vec<OutputRecord>,
    /// The changelog records of all tasks, per changelog partition in order. Their offsets come back
    /// in the [`Receipt`].
    pub changes: Vec<(TopicPartition, Vec<Arc<Vec<u8>>>)>,
    /// Of each partition that advanced. Never empty.
    pub offsets: Vec<SourceOffset>,
}

/// How far a source partition has been processed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceOffset {
    /// Which.
    pub partition: TopicPartition,
    /// The offset of the next record to read.
    pub next_offset: i64,
    /// Whether a bounded run has finished the partition. The mark is committed with the offset, as its
    /// metadata; the next commit of the partition without it takes it away.
    pub finished: bool,
    /// Of a source that is aligned with others: how far it is, for the others. Committed with the offset, as its
    /// metadata, unless the partition is finished.
    pub standing: Option<Standing>,
}

impl From<(TopicPartition, i64)> for SourceOffset {
    /// An offset without a mark.
    fn from((partition, next_offset): (TopicPartition, i64)) -> Self {
        SourceOffset { partition, next_offset, finished: false, standing: None }
    }
}

/// Proof that a transaction is committed.
#[derive(Debug, Default)]
pub struct Receipt {
    /// For each entry of [`Transaction::changes`], in its order, the offset of each of its records.
    pub change_offsets: Vec<Vec<i64>>,
}

/// How a commit ended when it did not succeed for certain.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// Whether it happened is unknown, or it did not happen: start over from what is committed, with a
    /// new producer. Carries the reason.
    #[error("{0}")]
    Doubt(String),
    /// The member of the commit is not the member that owns the partitions: nothing was sent.
    #[error("{0}")]
    NotOwner(String),
    /// As `Doubt`, and it will fail again without an operator: missing rights, no topic, too large.
    #[error("{0}")]
    Stop(String),
}

/// A transactional producer. All its calls block; it lives on a blocking thread while one runs.
pub trait TransactionLog {
    /// (Re)creates the producer under its transactional id and fences the one before: whatever was
    /// open is aborted. Called before the first commit and after every `CommitError`. Blocks, at most
    /// `limit_ms`.
    fn init(&mut self, limit_ms: u64) -> Result<(), LogError>;
    /// Begins a transaction, writes everything, sends the offsets under `member` (after checking that
    /// the consumer is still that member), commits. After an error the producer is unusable until
    /// [`init`](TransactionLog::init).
    fn commit(&mut self, transaction: Transaction, member: &Member) -> Result<Receipt, CommitError>;
}

/// What a restore does with a record, given its offset and its value. An error ends the reading.
pub type Apply<'a> = dyn FnMut(i64, &[u8]) -> Result<(), String> + 'a;

/// Reads what a restore needs. All calls block; each restore has its own.
pub trait ChangelogReader {
    /// The group's committed offsets, stable: a transaction that is still open on them is waited out
    /// (at most `limit_ms` in all). `None` where there is none.
    fn committed_offsets(
        &mut self,
        partitions: &[TopicPartition],
        limit_ms: u64,
    ) -> Result<Vec<Option<i64>>, LogError>;
    /// The oldest offset of a partition.
    fn log_start(&mut self, partition: &TopicPartition) -> Result<i64, LogError>;
    /// The end of a partition, records of open transactions included (read_uncommitted).
    fn high_watermark(&mut self, partition: &TopicPartition) -> Result<i64, LogError>;
    /// The end of what is decided: the first offset of the oldest open transaction, or the high
    /// watermark (read_committed).
    fn last_stable_offset(&mut self, partition: &TopicPartition) -> Result<i64, LogError>;
    /// The producer ids with an open transaction on the partition, oldest first, for messages; empty
    /// when the client cannot tell.
    fn open_transactions(&mut self, partition: &TopicPartition) -> Vec<i64>;
    /// Calls `apply` with each committed record in `from..to` in order: its offset and value. Returns
    /// when the position has reached `to` (markers and aborted records included), or with `Retry`
    /// after `stall_ms` without progress, or with `OutOfRange` (never an automatic reset), or with `Stop`
    /// when `apply` fails.
    fn read(
        &mut self,
        partition: &TopicPartition,
        from: i64,
        to: i64,
        stall_ms: u64,
        apply: &mut Apply<'_>,
    ) -> Result<(), LogError>;
}

/// A topic as it should be, or as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// How many partitions.
    pub partitions: i32,
    /// How many replicas of each.
    pub replication: i32,
    /// Settings.
    pub config: Vec<(String, String)>,
}

/// A topic as the cluster describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicDescription {
    /// Its identity.
    pub id: TopicId,
    /// How many partitions.
    pub partitions: i32,
    /// Its effective settings, by name.
    pub config: std::collections::BTreeMap<String, String>,
}

/// Administration. All calls block, at most a time-out of their own (30 s).
pub trait LogAdmin {
    /// The names of all topics that begin with `prefix`, in ascending order.
    fn list(&mut self, prefix: &str) -> Result<Vec<String>, LogError>;
    /// Describes topics; `None` for one that does not exist.
    fn describe(&mut self, topics: &[String]) -> Result<Vec<Option<TopicDescription>>, LogError>;
    /// Creates a topic and waits until its leaders are known. A topic that exists is no error.
    fn create(&mut self, topic: &TopicSpec) -> Result<(), LogError>;
    /// Deletes topics. A topic that does not exist is no error.
    fn delete(&mut self, topics: &[String]) -> Result<(), LogError>;
    /// Deletes the records of a partition before `offset`; returns the log start afterwards.
    fn delete_records(&mut self, partition: &TopicPartition, offset: i64) -> Result<i64, LogError>;
    /// All committed offsets of a group.
    fn group_offsets(&mut self, group: &str) -> Result<Vec<(TopicPartition, i64)>, LogError>;
    /// The partitions whose committed offset is marked as [finished](Transaction::finished).
    fn finished_partitions(&mut self, group: &str) -> Result<Vec<TopicPartition>, LogError>;
    /// How far the partitions are that are aligned with others, of those that have committed that: as of their last
    /// commit. A transaction that is open on them is not waited for.
    fn standings(&mut self, group: &str) -> Result<Vec<(TopicPartition, Standing)>, LogError>;
    /// The members of a group; empty when it is idle or unknown.
    fn group_members(&mut self, group: &str) -> Result<Vec<String>, LogError>;
    /// Deletes a group and its offsets. An unknown group is no error.
    fn delete_group(&mut self, group: &str) -> Result<(), LogError>;
}
