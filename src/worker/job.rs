//! What a worker asks of its shell, and what it hears back.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::alignment::Standing;
use super::port::{CommitError, LogError, Member, Receipt, Transaction};
use crate::operator::Counters;
use crate::record::TopicPartition;
use crate::state::apply::ApplyError;
use crate::task::{FlushJob, Flushed, RestoreError, RestoreRequest, Restored, TaskId};

/// Work that blocks. At most one `Init` or `Commit`, one `Restore` or `Look` and one `Ask` of a worker run at a time; per
/// task, at most one `Flush`, and one `Cut` of each of its topics.
pub enum Job {
    /// [`TransactionLog::init`](super::port::TransactionLog::init).
    Init,
    /// [`restore`](crate::task::restore).
    Restore {
        /// To be handed back.
        epoch: u64,
        /// What to restore.
        request: RestoreRequest,
        /// Set when nobody waits for it any more.
        cancelled: Arc<AtomicBool>,
    },
    /// [`TransactionLog::commit`](super::port::TransactionLog::commit).
    Commit {
        /// What to commit.
        transaction: Transaction,
        /// Under whose membership.
        member: Member,
    },
    /// [`FlushJob::run`].
    Flush {
        /// To be handed back.
        epoch: u64,
        /// To be handed back.
        task: TaskId,
        /// What to flush.
        job: FlushJob,
    },
    /// [`ChangelogReader::last_stable_offset`](super::port::ChangelogReader::last_stable_offset) of a source.
    Look {
        /// To be handed back.
        epoch: u64,
        /// To be handed back.
        task: TaskId,
        /// Where to look.
        partition: TopicPartition,
    },
    /// [`LogAdmin::standings`](super::port::LogAdmin::standings).
    Ask {
        /// To be handed back.
        epoch: u64,
        /// The consumer group.
        application: String,
    },
    /// [`LogAdmin::delete_records`](super::port::LogAdmin::delete_records).
    Cut {
        /// To be handed back.
        epoch: u64,
        /// To be handed back.
        task: TaskId,
        /// What to cut.
        partition: TopicPartition,
        /// Up to where.
        offset: i64,
    },
}

/// A job's end.
pub enum JobDone {
    /// Of [`Job::Init`].
    Init(Result<(), LogError>),
    /// Of [`Job::Restore`].
    Restored {
        /// The job's.
        epoch: u64,
        /// The task.
        task: TaskId,
        /// What came of it.
        result: Result<Restored, RestoreError>,
    },
    /// Of [`Job::Commit`].
    Committed(Result<Receipt, CommitError>),
    /// Of [`Job::Flush`].
    Flushed {
        /// The job's.
        epoch: u64,
        /// The task.
        task: TaskId,
        /// What came of it.
        result: Result<Flushed, ApplyError>,
    },
    /// Of [`Job::Look`].
    Looked {
        /// The job's.
        epoch: u64,
        /// The task.
        task: TaskId,
        /// The offset behind all that can be read.
        result: Result<i64, LogError>,
    },
    /// Of [`Job::Ask`].
    Asked {
        /// The job's.
        epoch: u64,
        /// How far partitions are, of those that have committed that.
        result: Result<Vec<(TopicPartition, Standing)>, LogError>,
    },
    /// Of [`Job::Cut`].
    Cut {
        /// The job's.
        epoch: u64,
        /// The task.
        task: TaskId,
        /// What was to be cut.
        partition: TopicPartition,
        /// The log start afterwards.
        result: Result<i64, LogError>,
    },
}

/// Why a worker stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It was asked to, and everything is committed.
    Stopped,
    /// The process cannot go on: exit code 1.
    Failed(String),
    /// The topology does not fit the state: exit code 2.
    Refused(String),
    /// The consumer is broken: a new worker may go on.
    Rebuild(String),
}

/// What happened, for metrics and logs.
#[derive(Clone, Debug)]
pub enum WorkerEvent {
    /// A checkpoint is committed.
    Committed {
        /// What each task did since the one before.
        counters: Vec<(TaskId, Counters)>,
        /// From the decision to the acknowledgement.
        duration_ms: u64,
    },
    /// A checkpoint was due, and there was nothing to commit.
    NothingToCommit,
    /// A transaction was given up; everything since the last checkpoint is done again.
    Aborted(String),
    /// A commit was refused, or the partitions were taken away, because this member is not their owner
    /// any more.
    Fenced(String),
    /// A task is restored.
    Restored {
        /// The task.
        task: TaskId,
        /// How many changelog records were read.
        records: u64,
    },
    /// The log of a task was not cut.
    CutFailed {
        /// The task.
        task: TaskId,
        /// Why.
        error: String,
    },
}
