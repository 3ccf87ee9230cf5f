//! What the brokers of the model refuse, and what a client makes of it.

use crate::worker::port::{CommitError, LogError};

/// An error of the Kafka protocol (or, where it says so, of librdkafka itself), by its name there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The offset is below the log start or above the high watermark.
    OffsetOutOfRange,
    /// There is no such topic, or it has no such partition.
    UnknownTopicOrPartition,
    /// A record is larger than the client or the topic takes.
    MessageTooLarge,
    /// The generation is not the group's.
    IllegalGeneration,
    /// The group has no such member.
    UnknownMemberId,
    /// The group rebalances; join it again.
    RebalanceInProgress,
    /// The instance id belongs to another member.
    FencedInstanceId,
    /// A newer producer has the transactional id, or the coordinator has aborted the transaction.
    ProducerFenced,
    /// As `ProducerFenced`, told by the leader of a partition.
    InvalidProducerEpoch,
    /// The transactional id is unknown, or has another producer id.
    InvalidProducerIdMapping,
    /// The transaction is not in a state in which this may be asked.
    InvalidTxnState,
    /// The transaction before is not complete yet. Try again.
    ConcurrentTransactions,
    /// A transaction that is open holds offsets that were asked for. Try again.
    UnstableOffsetCommit,
    /// The group has members.
    NonEmptyGroup,
    /// More replicas than there are brokers.
    InvalidReplicationFactor,
    /// A setting of a topic that is none.
    InvalidConfig,
    /// The number of partitions is not positive.
    InvalidPartitions,
    /// The transaction may not last so long.
    InvalidTransactionTimeout,
    /// The session may not be so short or long.
    InvalidSessionTimeout,
    /// The batch does not follow the last one of its producer.
    OutOfOrderSequence,
    /// The broker does not coordinate this group or transactional id (any more). Try again.
    NotCoordinator,
    /// The coordinator is not known. Try again.
    CoordinatorNotAvailable,
    /// The coordinator reads its log. Try again.
    CoordinatorLoadInProgress,
    /// The broker does not lead the partition (any more). Try again.
    NotLeader,
    /// Too few replicas are in sync. Try again.
    NotEnoughReplicas,
    /// A new leader does not know its high watermark yet. Try again.
    OffsetNotAvailable,
    /// The broker did not get it done in time; it may still. Try again.
    RequestTimedOut,
    /// The broker cannot reach its disk. Try again.
    StorageError,
    /// The user has no right to this topic.
    TopicAuthorizationFailed,
    /// The user has no right to this group.
    GroupAuthorizationFailed,
    /// The user has no right to this transactional id.
    TransactionalIdAuthorizationFailed,
    /// librdkafka's own: no answer came in time.
    TimedOut,
    /// librdkafka's own: the call does not fit the state of the client.
    State,
}

/// What a client has to do about an error in a transaction, as librdkafka flags it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The same call again.
    Retry,
    /// Abort the transaction; the producer may go on.
    Abort,
    /// The producer is of no more use.
    Fatal,
}

impl Code {
    /// Whether it passes by itself: a client asks again until its time is up.
    pub fn passes(self) -> bool {
        matches!(
            self,
            Code::ConcurrentTransactions
                | Code::UnstableOffsetCommit
                | Code::NotCoordinator
                | Code::CoordinatorNotAvailable
                | Code::CoordinatorLoadInProgress
                | Code::NotLeader
                | Code::NotEnoughReplicas
                | Code::OffsetNotAvailable
                | Code::RequestTimedOut
                | Code::StorageError
        )
    }

    /// What a producer has to do about it in the middle of a transaction.
    pub fn severity(self) -> Severity {
        match self {
            code if code.passes() => Severity::Retry,
            Code::TimedOut => Severity::Retry,
            Code::ProducerFenced
            | Code::InvalidProducerEpoch
            | Code::InvalidProducerIdMapping
            | Code::InvalidTxnState
            | Code::TransactionalIdAuthorizationFailed
            | Code::InvalidTransactionTimeout => Severity::Fatal,
            _ => Severity::Abort,
        }
    }

    /// The error of a port, saying what was tried.
    pub fn during(self, tried: &str) -> LogError {
        let text = format!("{tried}: the model says {self:?}");
        match self {
            code if code.passes() => LogError::Retry(text),
            Code::OffsetOutOfRange => LogError::OutOfRange(text),
            Code::FencedInstanceId | Code::ProducerFenced | Code::InvalidProducerEpoch => {
                LogError::Fenced(text)
            }
            Code::UnknownTopicOrPartition
            | Code::MessageTooLarge
            | Code::InvalidReplicationFactor
            | Code::InvalidTransactionTimeout
            | Code::InvalidSessionTimeout
            | Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
            | Code::NonEmptyGroup => LogError::Stop(text),
            Code::RebalanceInProgress | Code::TimedOut => LogError::Retry(text),
            _ => LogError::Client(text),
        }
    }

    /// The error of a commit, saying what was tried.
    pub fn during_commit(self, tried: &str) -> CommitError {
        match self.during(tried) {
            LogError::Stop(text) => CommitError::Stop(text),
            other => CommitError::Doubt(other.to_string()),
        }
    }
}
