//! A transactional producer, call by call, as librdkafka offers it: what a checkpoint's commit is made of.
//!
//! Simpler than librdkafka: it sends one request at a time and waits for the answer; after a batch of
//! unknown outcome and the abort of its transaction it has to be initialised again.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::cluster::{ClientSettings, Cluster};
use crate::model::error::{Code, Severity};
use crate::model::group::{Identity, anonymous};
use crate::model::link::{Direct, Link};
use crate::model::partition::Record;
use crate::model::request::{Request, Response};
use crate::model::transactions::Writer;
use crate::record::TopicPartition;
use crate::worker::port::SourceOffset;

/// The largest record that a client takes (librdkafka's `message.max.bytes`).
const RECORD_BYTES_MAX: usize = 1_000_000;

/// Who a consumer was in its group when it was asked ([`ModelLog::membership`]).
///
/// [`ModelLog::membership`]: crate::model::clients::ModelLog::membership
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    pub(super) group: String,
    pub(super) identity: Identity,
}

/// Where a producer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Not initialised.
    New,
    /// Between two transactions.
    Ready,
    /// In a transaction.
    Open,
    /// In a transaction that can only be aborted, because of this.
    Failed(Code),
    /// Of no more use, because of this.
    Fatal(Code),
}

/// A transactional producer. Its public calls block as the ports do, each at most as long as a transaction
/// may last: see the module [`model`](crate::model).
pub struct Producer {
    cluster: Cluster,
    id: Arc<str>,
    time_out_ms: u64,
    phase: Phase,
    writer: Writer,
    /// What was added to the transaction.
    partitions: Vec<TopicPartition>,
    /// Whether the coordinator knows of the transaction, or may know.
    begun: bool,
    /// The number of the next record to each partition.
    sequences: BTreeMap<TopicPartition, i32>,
    /// The outcome of a batch is unknown: the numbers are not right any more.
    unsure: bool,
    /// Some request of this transaction may have been sent twice, or may still be on its way.
    suspect: bool,
}

impl Producer {
    /// One that is not initialised yet.
    pub fn new(cluster: &Cluster, settings: &ClientSettings) -> Producer {
        Producer {
            cluster: cluster.clone(),
            id: settings.transactional_id.as_str().into(),
            time_out_ms: settings.transaction_timeout_ms,
            phase: Phase::New,
            writer: Writer { producer: -1, epoch: -1 },
            partitions: Vec::new(),
            begun: false,
            sequences: BTreeMap::new(),
            unsure: false,
            suspect: false,
        }
    }

    /// Whether a request since the transaction began may have been sent twice, or may still be on its way.
    pub(super) fn suspect(&self) -> bool {
        self.suspect
    }

    fn ask(&mut self, link: &dyn Link, request: &Request, end_ms: u64) -> Result<Response, Code> {
        let asked = self.cluster.ask(link, request, end_ms);
        self.suspect |= asked.suspect;
        asked.answer
    }

    fn limit_ms(&self) -> u64 {
        self.cluster.now_ms() + self.time_out_ms
    }

    /// Becomes the one producer of its id. Blocks, at most `limit_ms`.
    pub fn init(&mut self, limit_ms: u64) -> Result<(), Code> {
        let direct = Direct::new(&self.cluster);
        self.init_over(&direct, limit_ms)
    }

    pub(super) fn init_over(&mut self, link: &dyn Link, limit_ms: u64) -> Result<(), Code> {
        if self.phase != Phase::New {
            return Err(Code::State);
        }
        let request = Request::InitProducerId { id: self.id.clone(), time_out_ms: self.time_out_ms };
        let end_ms = self.cluster.now_ms().saturating_add(limit_ms);
        let Response::Writer(writer) = self.ask(link, &request, end_ms)? else { return Err(Code::State) };
        self.writer = writer;
        self.sequences.clear();
        (self.unsure, self.suspect, self.phase) = (false, false, Phase::Ready);
        Ok(())
    }

    /// Begins a transaction. The coordinator does not hear of it before something is added to it.
    pub fn begin(&mut self) -> Result<(), Code> {
        match self.phase {
            Phase::Ready => {}
            Phase::Failed(code) | Phase::Fatal(code) => return Err(code),
            Phase::New | Phase::Open => return Err(Code::State),
        }
        (self.phase, self.begun, self.suspect) = (Phase::Open, false, false);
        self.partitions.clear();
        Ok(())
    }

    fn check_open(&self) -> Result<(), Code> {
        match self.phase {
            Phase::Open => Ok(()),
            Phase::Failed(code) | Phase::Fatal(code) => Err(code),
            Phase::New | Phase::Ready => Err(Code::State),
        }
    }

    /// Notes what an error does to the producer.
    fn note<T>(&mut self, result: Result<T, Code>) -> Result<T, Code> {
        if let Err(code) = &result {
            match code.severity() {
                Severity::Retry => {}
                Severity::Abort => self.phase = Phase::Failed(*code),
                Severity::Fatal => self.phase = Phase::Fatal(*code),
            }
        }
        result
    }

    /// Adds partitions to the transaction, those that are not in it yet. Blocks until `end_ms`.
    pub(super) fn add(
        &mut self,
        link: &dyn Link,
        partitions: impl IntoIterator<Item = TopicPartition>,
        end_ms: u64,
    ) -> Result<(), Code> {
        self.check_open()?;
        let new: Vec<_> = partitions.into_iter().filter(|one| !self.partitions.contains(one)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let request = Request::AddPartitions {
            id: self.id.clone(),
            writer: self.writer,
            partitions: new.as_slice().into(),
        };
        let result = self.ask(link, &request, end_ms);
        self.begun |= matches!(result, Ok(_) | Err(Code::TimedOut));
        if result.is_ok() {
            self.partitions.extend(new);
        }
        self.note(result).map(drop)
    }

    /// Writes records to a partition that was added, and waits for the offset of the first; the others follow
    /// it. Blocks until `end_ms`.
    pub(super) fn write(
        &mut self,
        link: &dyn Link,
        partition: &TopicPartition,
        records: Vec<Arc<Record>>,
        end_ms: u64,
    ) -> Result<i64, Code> {
        self.check_open()?;
        if records.iter().any(|record| record.batch_bytes() > RECORD_BYTES_MAX) {
            return self.note(Err(Code::MessageTooLarge));
        }
        let sequence = self.sequences.get(partition).copied().unwrap_or(0);
        let count = i32::try_from(records.len()).unwrap_or(i32::MAX);
        let request = Request::Produce {
            id: self.id.clone(),
            writer: self.writer,
            partition: partition.clone(),
            sequence,
            records: records.into(),
        };
        let result = self.ask(link, &request, end_ms).and_then(Response::offset);
        if result.is_ok() {
            self.sequences.insert(partition.clone(), sequence + count);
        } else if result == Err(Code::TimedOut) {
            self.unsure = true;
            self.phase = Phase::Failed(Code::TimedOut);
        }
        self.note(result)
    }

    /// Writes a value without a key and waits for its offset.
    pub fn write_value(&mut self, partition: &TopicPartition, value: &[u8]) -> Result<i64, Code> {
        let (direct, end_ms) = (Direct::new(&self.cluster), self.limit_ms());
        self.write_value_over(&direct, partition, value, end_ms)
    }

    /// [`write_value`](Producer::write_value) over a link, until `end_ms`.
    pub fn write_value_over(
        &mut self,
        link: &dyn Link,
        partition: &TopicPartition,
        value: &[u8],
        end_ms: u64,
    ) -> Result<i64, Code> {
        let timestamp_ms = i64::try_from(self.cluster.now_ms()).unwrap_or(i64::MAX);
        let value = Some(value.to_vec());
        let record = Record { key: None, value, headers: Vec::new(), timestamp_ms };
        self.add(link, [partition.clone()], end_ms)?;
        self.write(link, partition, vec![record.into()], end_ms)
    }

    /// Sends a group's offsets under this identity. Blocks until `end_ms`.
    pub(super) fn send_offsets(
        &mut self,
        link: &dyn Link,
        group: &str,
        who: &Identity,
        offsets: Vec<SourceOffset>,
        end_ms: u64,
    ) -> Result<(), Code> {
        self.check_open()?;
        let (id, writer, group) = (self.id.clone(), self.writer, Arc::<str>::from(group));
        let add = Request::AddOffsets { id: id.clone(), writer, group: group.clone() };
        let added = self.ask(link, &add, end_ms);
        self.begun |= matches!(added, Ok(_) | Err(Code::TimedOut));
        self.note(added)?;
        let (who, offsets) = (who.clone(), offsets.into());
        let commit = Request::TxnOffsetCommit { id, writer, group, who, offsets };
        let result = self.ask(link, &commit, end_ms);
        self.note(result).map(drop)
    }

    /// Sends a group's offsets under a membership, be it of now or of before: the coordinator decides.
    pub fn send_offsets_as(
        &mut self,
        membership: &Membership,
        offsets: &[(TopicPartition, i64)],
    ) -> Result<(), Code> {
        let (direct, end_ms) = (Direct::new(&self.cluster), self.limit_ms());
        self.send_offsets(&direct, &membership.group, &membership.identity, unmarked(offsets), end_ms)
    }

    /// Sends a group's offsets as nobody: what librdkafka does for a consumer that has not joined. The
    /// coordinator takes them, whoever the members of the group are.
    pub fn send_offsets_as_nobody(
        &mut self,
        group: &str,
        offsets: &[(TopicPartition, i64)],
    ) -> Result<(), Code> {
        let (direct, end_ms) = (Direct::new(&self.cluster), self.limit_ms());
        self.send_offsets_as_nobody_over(&direct, group, offsets, end_ms)
    }

    /// [`send_offsets_as_nobody`](Producer::send_offsets_as_nobody) over a link, until `end_ms`.
    pub fn send_offsets_as_nobody_over(
        &mut self,
        link: &dyn Link,
        group: &str,
        offsets: &[(TopicPartition, i64)],
        end_ms: u64,
    ) -> Result<(), Code> {
        self.send_offsets(link, group, &anonymous(), unmarked(offsets), end_ms)
    }

    /// Commits the transaction; returns when the coordinator has decided it.
    pub fn commit(&mut self) -> Result<(), Code> {
        let (direct, end_ms) = (Direct::new(&self.cluster), self.limit_ms());
        self.commit_over(&direct, end_ms)
    }

    /// [`commit`](Producer::commit) over a link, until `end_ms`.
    pub fn commit_over(&mut self, link: &dyn Link, end_ms: u64) -> Result<(), Code> {
        self.check_open()?;
        self.end(link, true, end_ms)
    }

    /// Aborts the transaction.
    pub fn abort(&mut self) -> Result<(), Code> {
        match self.phase {
            Phase::Open | Phase::Failed(_) => {
                let (direct, end_ms) = (Direct::new(&self.cluster), self.limit_ms());
                self.end(&direct, false, end_ms)
            }
            Phase::Fatal(code) => Err(code),
            Phase::New | Phase::Ready => Err(Code::State),
        }
    }

    fn end(&mut self, link: &dyn Link, commit: bool, end_ms: u64) -> Result<(), Code> {
        // librdkafka asks nobody about a transaction that nothing was added to.
        if self.begun {
            let request = Request::EndTxn { id: self.id.clone(), writer: self.writer, commit };
            let result = self.ask(link, &request, end_ms);
            self.note(result)?;
        }
        self.phase = if self.unsure { Phase::New } else { Phase::Ready };
        Ok(())
    }
}

fn unmarked(offsets: &[(TopicPartition, i64)]) -> Vec<SourceOffset> {
    offsets.iter().cloned().map(SourceOffset::from).collect()
}
