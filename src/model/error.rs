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
    /// What a producer has to do about it in the middle of a transaction.
    pub fn severity(self) -> Severity {
        match self {
            Code::ConcurrentTransactions | Code::UnstableOffsetCommit => Severity::Retry,
            Code::ProducerFenced
            | Code::InvalidProducerEpoch
            | Code::InvalidProducerIdMapping
            | Code::InvalidTxnState
            | Code::InvalidTransactionTimeout => Severity::Fatal,
            _ => Severity::Abort,
        }
    }

    /// The error of a port, saying what was tried.
    pub fn during(self, tried: &str) -> LogError {
        let text = format!("{tried}: the model says {self:?}");
        match self {
            Code::OffsetOutOfRange => LogError::OutOfRange(text),
            Code::FencedInstanceId | Code::ProducerFenced | Code::InvalidProducerEpoch => {
                LogError::Fenced(text)
            }
            Code::UnknownTopicOrPartition
            | Code::MessageTooLarge
            | Code::InvalidReplicationFactor
            | Code::InvalidTransactionTimeout
            | Code::InvalidSessionTimeout
            | Code::NonEmptyGroup => LogError::Stop(text),
            Code::RebalanceInProgress | Code::ConcurrentTransactions | Code::UnstableOffsetCommit => {
                LogError::Retry(text)
            }
            Code::IllegalGeneration
            | Code::UnknownMemberId
            | Code::InvalidProducerIdMapping
            | Code::InvalidTxnState
            | Code::InvalidConfig
            | Code::InvalidPartitions
            | Code::State => LogError::Client(text),
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
