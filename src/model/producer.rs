//! A transactional producer, call by call, as librdkafka offers it: what a checkpoint's commit is made of.

use crate::model::cluster::{ClientSettings, Cluster, State};
use crate::model::error::{Code, Severity};
use crate::model::group::{Identity, anonymous};
use crate::model::partition::Record;
use crate::model::transactions::Writer;
use crate::record::TopicPartition;

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

/// A transactional producer. Its calls block as the ports do: see the module [`model`](crate::model).
pub struct Producer {
    cluster: Cluster,
    id: String,
    time_out_ms: u64,
    phase: Phase,
    writer: Writer,
    /// What was added to the transaction.
    partitions: Vec<TopicPartition>,
    /// Whether the coordinator knows of the transaction.
    begun: bool,
}

impl Producer {
    /// One that is not initialised yet.
    pub fn new(cluster: &Cluster, settings: &ClientSettings) -> Producer {
        Producer {
            cluster: cluster.clone(),
            id: settings.transactional_id.clone(),
            time_out_ms: settings.transaction_timeout_ms,
            phase: Phase::New,
            writer: Writer { producer: -1, epoch: -1 },
            partitions: Vec::new(),
            begun: false,
        }
    }

    /// Becomes the one producer of its id. Blocks, at most `limit_ms`.
    pub fn init(&mut self, limit_ms: u64) -> Result<(), Code> {
        if self.phase != Phase::New {
            return Err(Code::State);
        }
        let ask = |state: &mut State| state.transactions.init(&self.id, self.time_out_ms, state.now_ms);
        self.writer = self.cluster.state().wait(limit_ms, ask)?;
        self.phase = Phase::Ready;
        Ok(())
    }

    /// Begins a transaction. The coordinator does not hear of it before something is added to it.
    pub fn begin(&mut self) -> Result<(), Code> {
        match self.phase {
            Phase::Ready => {}
            Phase::Failed(code) | Phase::Fatal(code) => return Err(code),
            Phase::New | Phase::Open => return Err(Code::State),
        }
        (self.phase, self.begun) = (Phase::Open, false);
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

    /// Writes a record and waits for its offset.
    pub(super) fn write(&mut self, partition: &TopicPartition, record: Record) -> Result<i64, Code> {
        self.check_open()?;
        let (id, writer, limit_ms) = (self.id.clone(), self.writer, self.time_out_ms);
        let added = self.partitions.contains(partition);
        let bytes = record.batch_bytes();
        let mut state = self.cluster.state();
        let result = state.wait(limit_ms, |state| {
            state.partition(partition)?;
            if bytes > RECORD_BYTES_MAX {
                return Err(Code::MessageTooLarge);
            }
            if !added {
                state.transactions.add_partition(&id, writer, partition, state.now_ms)?;
            }
            let limit = state.topics.get(&*partition.topic).map_or(0, |topic| topic.batch_bytes_max());
            if bytes > limit {
                return Err(Code::MessageTooLarge);
            }
            state.partition(partition)?.append_open(writer, record.clone())
        });
        drop(state);
        if result.is_ok() && !added {
            self.partitions.push(partition.clone());
        }
        self.begun |= result.is_ok() || result == Err(Code::MessageTooLarge);
        self.note(result)
    }

    /// Writes a value without a key and waits for its offset.
    pub fn write_value(&mut self, partition: &TopicPartition, value: &[u8]) -> Result<i64, Code> {
        let timestamp_ms = i64::try_from(self.cluster.now_ms()).unwrap_or(i64::MAX);
        let value = Some(value.to_vec());
        self.write(partition, Record { key: None, value, headers: Vec::new(), timestamp_ms })
    }

    /// Sends a group's offsets under this identity.
    pub(super) fn send_offsets(
        &mut self,
        group: &str,
        who: &Identity,
        offsets: &[(TopicPartition, i64)],
    ) -> Result<(), Code> {
        self.check_open()?;
        let (id, writer, limit_ms) = (self.id.clone(), self.writer, self.time_out_ms);
        let mut begun = false;
        let result = self.cluster.state().wait(limit_ms, |state| {
            state.transactions.add_group(&id, writer, group, state.now_ms)?;
            begun = true;
            for (partition, _) in offsets {
                state.partition(partition)?;
            }
            state.group(group).commit_pending(who, writer.producer, offsets)
        });
        self.begun |= begun;
        self.note(result)
    }

    /// Sends a group's offsets under a membership, be it of now or of before: the coordinator decides.
    pub fn send_offsets_as(
        &mut self,
        membership: &Membership,
        offsets: &[(TopicPartition, i64)],
    ) -> Result<(), Code> {
        self.send_offsets(&membership.group, &membership.identity, offsets)
    }

    /// Sends a group's offsets as nobody: what librdkafka does for a consumer that has not joined. The
    /// coordinator takes them, whoever the members of the group are.
    pub fn send_offsets_as_nobody(
        &mut self,
        group: &str,
        offsets: &[(TopicPartition, i64)],
    ) -> Result<(), Code> {
        self.send_offsets(group, &anonymous(), offsets)
    }

    /// Commits the transaction; returns when the coordinator has decided it.
    pub fn commit(&mut self) -> Result<(), Code> {
        self.check_open()?;
        self.end(true)
    }

    /// Aborts the transaction.
    pub fn abort(&mut self) -> Result<(), Code> {
        match self.phase {
            Phase::Open | Phase::Failed(_) => self.end(false),
            Phase::Fatal(code) => Err(code),
            Phase::New | Phase::Ready => Err(Code::State),
        }
    }

    fn end(&mut self, commit: bool) -> Result<(), Code> {
        // librdkafka asks nobody about a transaction that nothing was added to.
        if self.begun {
            let (id, writer, limit_ms) = (self.id.clone(), self.writer, self.time_out_ms);
            let ask = |state: &mut State| state.transactions.end(&id, writer, commit, state.now_ms);
            let mut state = self.cluster.state();
            let result = state.wait(limit_ms, ask);
            state.settle();
            drop(state);
            self.note(result)?;
        }
        self.phase = Phase::Ready;
        Ok(())
    }
}
