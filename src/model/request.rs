//! What clients ask the cluster for, as values: a network may lose, repeat and delay them.
//!
//! As in Kafka, with these differences: one request asks for offsets of any kind of end, and a fetch is
//! for one partition and answers at once. What a consumer does in its group (join, sync, heartbeats) is no
//! request here; see [`Cluster::freeze`](crate::model::Cluster::freeze).

use std::sync::Arc;

use crate::model::error::Code;
use crate::model::group::Identity;
use crate::model::partition::{Found, Isolation, Record};
use crate::model::transactions::Writer;
use crate::record::TopicPartition;
use crate::worker::port::SourceOffset;

/// An end of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The oldest offset.
    LogStart,
    /// The offset behind the last record that is decided.
    LastStable,
    /// The offset behind the last record.
    HighWatermark,
}

/// What a client asks for.
#[derive(Clone, Debug)]
pub enum Request {
    /// To become the one producer of a transactional id. Answered by [`Response::Writer`].
    InitProducerId {
        /// The transactional id.
        id: Arc<str>,
        /// How long its transactions may last.
        time_out_ms: u64,
    },
    /// To add partitions to the transaction.
    AddPartitions {
        /// The transactional id.
        id: Arc<str>,
        /// The producer.
        writer: Writer,
        /// The partitions.
        partitions: Arc<[TopicPartition]>,
    },
    /// To append a batch to a partition of the transaction. Answered by the [`Response::Offset`] of its
    /// first record; the others follow it without a gap.
    Produce {
        /// The transactional id.
        id: Arc<str>,
        /// The producer.
        writer: Writer,
        /// The partition.
        partition: TopicPartition,
        /// The number of the batch's first record among all that the producer has sent to the partition
        /// in its epoch.
        sequence: i32,
        /// The records.
        records: Arc<[Arc<Record>]>,
    },
    /// To add a group's offsets to the transaction.
    AddOffsets {
        /// The transactional id.
        id: Arc<str>,
        /// The producer.
        writer: Writer,
        /// The group.
        group: Arc<str>,
    },
    /// To commit a group's offsets with the transaction.
    TxnOffsetCommit {
        /// The transactional id.
        id: Arc<str>,
        /// The producer.
        writer: Writer,
        /// The group.
        group: Arc<str>,
        /// The member in whose name.
        who: Identity,
        /// The offsets. Their mark is all that the model keeps of an offset's metadata.
        offsets: Arc<[SourceOffset]>,
    },
    /// To end the transaction.
    EndTxn {
        /// The transactional id.
        id: Arc<str>,
        /// The producer.
        writer: Writer,
        /// Whether to commit it.
        commit: bool,
    },
    /// For a group's committed offsets, once no open transaction holds them. Answered by
    /// [`Response::Offsets`].
    OffsetFetch {
        /// The group.
        group: Arc<str>,
        /// Whose offsets.
        partitions: Arc<[TopicPartition]>,
    },
    /// For an end of a partition. Answered by [`Response::Offset`].
    ListOffsets {
        /// The partition.
        partition: TopicPartition,
        /// Which end.
        end: End,
    },
    /// For records. Answered by [`Response::Records`].
    Fetch {
        /// The partition.
        partition: TopicPartition,
        /// From this offset on.
        from: i64,
        /// None at or behind this one.
        to: i64,
        /// At most so many.
        records_max: usize,
        /// Which of them.
        isolation: Isolation,
    },
    /// To delete what lies before an offset. Answered by the log start, a [`Response::Offset`].
    DeleteRecords {
        /// The partition.
        partition: TopicPartition,
        /// The offset; -1 is the high watermark.
        offset: i64,
    },
}

impl Request {
    /// What it is, for a trace.
    pub fn name(&self) -> &'static str {
        match self {
            Request::InitProducerId { .. } => "InitProducerId",
            Request::AddPartitions { .. } => "AddPartitionsToTxn",
            Request::Produce { .. } => "Produce",
            Request::AddOffsets { .. } => "AddOffsetsToTxn",
            Request::TxnOffsetCommit { .. } => "TxnOffsetCommit",
            Request::EndTxn { commit: true, .. } => "EndTxn(commit)",
            Request::EndTxn { commit: false, .. } => "EndTxn(abort)",
            Request::OffsetFetch { .. } => "OffsetFetch",
            Request::ListOffsets { .. } => "ListOffsets",
            Request::Fetch { .. } => "Fetch",
            Request::DeleteRecords { .. } => "DeleteRecords",
        }
    }

    /// The errors that brokers answer it with for reasons of their own, while they start, stop, move
    /// leaders and coordinators about, or are too slow. A client asks again.
    pub fn passing_errors(&self) -> &'static [Code] {
        match self {
            Request::InitProducerId { .. } | Request::AddPartitions { .. } | Request::AddOffsets { .. } => &[
                Code::NotCoordinator,
                Code::CoordinatorNotAvailable,
                Code::CoordinatorLoadInProgress,
                Code::ConcurrentTransactions,
            ],
            Request::EndTxn { .. } | Request::TxnOffsetCommit { .. } | Request::OffsetFetch { .. } => {
                &[Code::NotCoordinator, Code::CoordinatorNotAvailable, Code::CoordinatorLoadInProgress]
            }
            Request::Produce { .. } => {
                &[Code::NotLeader, Code::NotEnoughReplicas, Code::RequestTimedOut, Code::StorageError]
            }
            Request::ListOffsets { .. } | Request::Fetch { .. } => {
                &[Code::NotLeader, Code::OffsetNotAvailable, Code::StorageError]
            }
            Request::DeleteRecords { .. } => &[Code::NotLeader, Code::RequestTimedOut],
        }
    }
}

/// What the cluster answers.
#[derive(Clone, Debug)]
pub enum Response {
    /// It is done.
    Done,
    /// The producer that the client is from now on.
    Writer(Writer),
    /// An offset.
    Offset(i64),
    /// The committed offset of each partition.
    Offsets(Vec<Option<i64>>),
    /// Records.
    Records(Found),
}

impl Response {
    /// The offset. Another kind of answer is [`Code::State`].
    pub(super) fn offset(self) -> Result<i64, Code> {
        if let Response::Offset(offset) = self { Ok(offset) } else { Err(Code::State) }
    }
}
