//! The four ports of the worker, served by the model.

use std::sync::Arc;

use crate::model::cluster::{ClientSettings, Cluster, State};
use crate::model::consumer::Consumer;
use crate::model::error::Code;
use crate::model::group::{Group, Identity};
use crate::model::partition::{Found, Isolation, Partition, Record};
use crate::model::producer::{Membership, Producer};
use crate::record::{OutputRecord, Records, SourceRecord, TopicPartition};
use crate::worker::port::{
    Apply, ChangelogReader, CommitError, Log, LogAdmin, LogError, LogEvent, Member, Receipt,
    TopicDescription, TopicSpec, Transaction, TransactionLog,
};

/// Records of a partition, as fetched.
struct Batch {
    partition: TopicPartition,
    records: Vec<(i64, Arc<Record>)>,
}

impl Records for Batch {
    fn topic_partition(&self) -> &TopicPartition {
        &self.partition
    }

    fn len(&self) -> usize {
        self.records.len()
    }

    fn bytes(&self) -> usize {
        let bytes = |part: &Option<Vec<u8>>| part.as_ref().map_or(0, Vec::len);
        self.records.iter().map(|(_, record)| bytes(&record.key) + bytes(&record.value)).sum()
    }

    fn record(&self, index: usize) -> SourceRecord<'_> {
        let (offset, record) = &self.records[index];
        SourceRecord {
            offset: *offset,
            timestamp_ms: record.timestamp_ms,
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            records: self,
            index,
        }
    }

    fn headers<'b>(&'b self, index: usize, visit: &mut dyn FnMut(&'b str, Option<&'b [u8]>)) {
        for (name, value) in &self.records[index].1.headers {
            visit(name, value.as_deref());
        }
    }
}

/// A member of a group. Dropped without [`leave`](Log::leave) it falls silent, as a process that dies.
pub struct ModelLog {
    cluster: Cluster,
    group: String,
    id: u64,
}

impl ModelLog {
    /// A consumer that joins the group for `topics`.
    pub fn new(cluster: &Cluster, settings: &ClientSettings, topics: &[String]) -> ModelLog {
        let id = cluster.state().add_consumer(settings, topics);
        ModelLog { cluster: cluster.clone(), group: settings.group.clone(), id }
    }

    /// Who the consumer is in its group just now, if it is anybody: to commit under later, when it may
    /// not be true any more.
    pub fn membership(&self) -> Option<Membership> {
        let state = self.cluster.state();
        let identity = state.consumers.get(&self.id)?.identity()?.clone();
        Some(Membership { group: self.group.clone(), identity })
    }

    /// Does something with the consumer, if it has not left or been fenced.
    fn with<T>(
        &self,
        tried: &str,
        act: impl FnOnce(&mut Consumer, u64) -> Result<T, LogError>,
    ) -> Result<Option<T>, LogError> {
        let mut state = self.cluster.state();
        state.settle();
        let now_ms = state.now_ms;
        let result = match state.consumers.get_mut(&self.id) {
            Some(consumer) if !consumer.left() => match consumer.failed() {
                Some(code) => Err(code.during(&format!("{tried} (group {})", self.group))),
                None => act(consumer, now_ms).map(Some),
            },
            _ => Ok(None),
        };
        state.settle();
        result
    }
}

impl Drop for ModelLog {
    fn drop(&mut self) {
        self.cluster.state().consumers.remove(&self.id);
    }
}

impl Log for ModelLog {
    fn poll(&mut self) -> Result<Option<LogEvent>, LogError> {
        let event = self.with("consuming", |consumer, now_ms| {
            consumer.polled(now_ms);
            let event = consumer.events.pop_front();
            if matches!(event, Some(LogEvent::Assigned { .. })) {
                consumer.stop();
            }
            Ok(event)
        })?;
        Ok(event.flatten())
    }

    fn start(&mut self, positions: &[(TopicPartition, i64)]) -> Result<(), LogError> {
        let group = self.group.clone();
        let started = self.with("starting to read", |consumer, _| {
            if consumer.revoking() {
                return Err(LogError::Retry(format!(
                    "starting to read (group {group}): the group wants the partitions back; release them first"
                )));
            }
            consumer.stop();
            consumer.positions = positions.iter().cloned().collect();
            Ok(())
        });
        started.map(drop)
    }

    fn release(&mut self) -> Result<(), LogError> {
        let released = self.with("giving partitions back", |consumer, _| {
            consumer.released();
            Ok(())
        });
        released.map(drop)
    }

    fn fetch(&mut self, records_max: usize) -> Result<Vec<Box<dyn Records>>, LogError> {
        let mut state = self.cluster.state();
        state.settle();
        let now_ms = state.now_ms;
        let Some(mut consumer) = state.consumers.remove(&self.id) else { return Ok(Vec::new()) };
        consumer.polled(now_ms);
        let fetched = fetch(&mut state, &mut consumer, records_max);
        state.consumers.insert(self.id, consumer);
        fetched
            .map_err(|(partition, code)| code.during(&format!("reading {partition} (group {})", self.group)))
    }

    fn read_up_to(&self, partition: &TopicPartition) -> Option<i64> {
        self.cluster.state().consumers.get(&self.id)?.read_up_to.get(partition).copied()
    }

    fn end_offset(&self, partition: &TopicPartition) -> Option<i64> {
        self.cluster.state().consumers.get(&self.id)?.ends.get(partition).copied()
    }

    /// Takes no time, so it succeeds within any limit.
    fn leave(&mut self, _limit_ms: u64) -> Result<(), LogError> {
        let mut state = self.cluster.state();
        let now_ms = state.now_ms;
        let State { consumers, groups, .. } = &mut *state;
        if let (Some(consumer), Some(group)) = (consumers.get_mut(&self.id), groups.get_mut(&self.group)) {
            consumer.leave(group, now_ms);
        }
        state.settle();
        Ok(())
    }
}

/// What has arrived for a consumer. A partition that fails leaves what others have for the next fetch.
fn fetch(
    state: &mut State,
    consumer: &mut Consumer,
    records_max: usize,
) -> Result<Vec<Box<dyn Records>>, (TopicPartition, Code)> {
    let mut fetched: Vec<Box<dyn Records>> = Vec::new();
    let mut left = records_max;
    for (partition, position) in &mut consumer.positions {
        if left == 0 {
            break;
        }
        let read = state.partition(partition).and_then(|found| {
            let read = found.read(*position, i64::MAX, left, Isolation::Committed)?;
            Ok((read, found.last_stable_offset()))
        });
        let (found, end) = match read {
            Ok(read) => read,
            Err(code) if fetched.is_empty() => return Err((partition.clone(), code)),
            // Told by the next fetch, when nothing else has arrived.
            Err(_) => continue,
        };
        *position = found.next;
        if let Some((last, _)) = found.records.last() {
            consumer.read_up_to.insert(partition.clone(), last + 1);
        }
        if found.next == end {
            // The end lies behind the last marker or aborted record.
            consumer.read_up_to.insert(partition.clone(), end);
            let known = consumer.ends.entry(partition.clone()).or_insert(end);
            *known = end.max(*known);
        }
        left -= found.records.len();
        if !found.records.is_empty() {
            fetched.push(Box::new(Batch { partition: partition.clone(), records: found.records }));
        }
    }
    Ok(fetched)
}

/// The transactional producer of one worker.
pub struct ModelTransactionLog {
    cluster: Cluster,
    settings: ClientSettings,
    consumer: u64,
    /// `None` before the first `init` and after an error.
    producer: Option<Producer>,
}

impl ModelTransactionLog {
    /// A producer that commits for `log`.
    pub fn new(cluster: &Cluster, settings: &ClientSettings, log: &ModelLog) -> ModelTransactionLog {
        let (cluster, settings) = (cluster.clone(), settings.clone());
        ModelTransactionLog { cluster, settings, consumer: log.id, producer: None }
    }

    /// The identity that offsets are sent under, if the consumer still is this member.
    fn identity(&self, member: &Member) -> Result<Identity, CommitError> {
        let state = self.cluster.state();
        let now = state.consumers.get(&self.consumer).and_then(Consumer::identity);
        match now {
            Some(now) if now.generation == member.generation && now.member == member.id => Ok(now.clone()),
            now => Err(CommitError::NotOwner(format!(
                "committing for member {} of generation {} of group {}: the consumer is {now:?}; nothing was sent",
                member.id, member.generation, self.settings.group
            ))),
        }
    }

    fn run(
        &self,
        producer: &mut Producer,
        transaction: &Transaction,
        who: &Identity,
    ) -> Result<Receipt, CommitError> {
        producer.begin().map_err(|code| code.during_commit("beginning a transaction"))?;
        let now_ms = i64::try_from(self.cluster.now_ms()).unwrap_or(i64::MAX);
        for output in &transaction.outputs {
            let partition = TopicPartition { topic: output.topic.clone(), partition: output.partition };
            let written = producer.write(&partition, of_output(output, now_ms));
            written.map_err(|code| code.during_commit(&format!("writing to {partition}")))?;
        }
        let mut receipt = Receipt::default();
        for (partition, values) in &transaction.changes {
            let mut offsets = Vec::new();
            for value in values {
                let written = producer.write_value(partition, value);
                offsets.push(written.map_err(|code| code.during_commit(&format!("writing to {partition}")))?);
            }
            receipt.change_offsets.push(offsets);
        }
        let sent = producer.send_offsets(&self.settings.group, who, &transaction.offsets);
        sent.map_err(|code| code.during_commit("sending the offsets of a transaction"))?;
        producer.commit().map_err(|code| code.during_commit("committing a transaction"))?;
        Ok(receipt)
    }
}

fn of_output(output: &OutputRecord, now_ms: i64) -> Record {
    Record {
        key: output.key.clone(),
        value: output.value.clone(),
        headers: output.headers.clone(),
        // As the producer on librdkafka writes times that cannot be written.
        timestamp_ms: if output.timestamp_ms == -1 { now_ms } else { output.timestamp_ms.max(1) },
    }
}

impl TransactionLog for ModelTransactionLog {
    fn init(&mut self, limit_ms: u64) -> Result<(), LogError> {
        self.producer = None;
        let mut producer = Producer::new(&self.cluster, &self.settings);
        let tried = || format!("initialising the transactions of {}", self.settings.transactional_id);
        producer.init(limit_ms).map_err(|code| code.during(&tried()))?;
        self.producer = Some(producer);
        Ok(())
    }

    fn commit(&mut self, transaction: Transaction, member: &Member) -> Result<Receipt, CommitError> {
        // Taken out, so that an error on the way leaves none behind.
        let Some(mut producer) = self.producer.take() else {
            return Err(CommitError::Doubt(
                "committing: the producer is not initialised; nothing was sent".into(),
            ));
        };
        if transaction.offsets.is_empty() {
            return Err(CommitError::Doubt("committing: no offsets were given; nothing was sent".into()));
        }
        let who = self.identity(member)?;
        let receipt = self.run(&mut producer, &transaction, &who)?;
        self.producer = Some(producer);
        Ok(receipt)
    }
}

/// Reads what a restore needs.
pub struct ModelReader {
    cluster: Cluster,
    group: String,
}

impl ModelReader {
    /// A reader of this group's offsets and of any changelog.
    pub fn new(cluster: &Cluster, group: &str) -> ModelReader {
        ModelReader { cluster: cluster.clone(), group: group.to_owned() }
    }

    fn look_up<T>(
        &self,
        partition: &TopicPartition,
        look: impl FnOnce(&mut Partition) -> T,
    ) -> Result<T, LogError> {
        let mut state = self.cluster.state();
        state.settle();
        let found = state.partition(partition).map(look);
        found.map_err(|code| code.during(&format!("looking up the ends of {partition}")))
    }
}

impl ChangelogReader for ModelReader {
    fn committed_offsets(
        &mut self,
        partitions: &[TopicPartition],
        limit_ms: u64,
    ) -> Result<Vec<Option<i64>>, LogError> {
        let found = self.cluster.state().wait(limit_ms, |state| {
            let group = state.group(&self.group);
            partitions.iter().map(|partition| group.committed(partition, true)).collect()
        });
        let tried = || format!("reading the committed offsets of group {} within {limit_ms} ms", self.group);
        found.map_err(|code| code.during(&tried()))
    }

    fn log_start(&mut self, partition: &TopicPartition) -> Result<i64, LogError> {
        self.look_up(partition, |partition| partition.log_start())
    }

    fn high_watermark(&mut self, partition: &TopicPartition) -> Result<i64, LogError> {
        self.look_up(partition, |partition| partition.high_watermark())
    }

    fn last_stable_offset(&mut self, partition: &TopicPartition) -> Result<i64, LogError> {
        self.look_up(partition, |partition| partition.last_stable_offset())
    }

    /// Told, where the client on librdkafka cannot.
    fn open_transactions(&mut self, partition: &TopicPartition) -> Vec<i64> {
        self.look_up(partition, |partition| partition.open_transactions()).unwrap_or_default()
    }

    fn read(
        &mut self,
        partition: &TopicPartition,
        from: i64,
        to: i64,
        stall_ms: u64,
        apply: &mut Apply<'_>,
    ) -> Result<(), LogError> {
        /// How many records are taken at once.
        const BATCH_RECORDS_MAX: usize = 1_000;
        let mut position = from;
        let mut stalled_ms = self.cluster.now_ms() + stall_ms;
        while position < to {
            let mut state = self.cluster.state();
            state.settle();
            let found = state
                .partition(partition)
                .and_then(|log| log.read(position, to, BATCH_RECORDS_MAX, Isolation::Committed));
            let found = match found {
                // librdkafka waits for the topic to come.
                Err(Code::UnknownTopicOrPartition) => Ok(Found { records: Vec::new(), next: position }),
                found => found,
            };
            let found =
                found.map_err(|code| code.during(&format!("reading {partition} at offset {position}")))?;
            if found.next > position {
                position = found.next;
                stalled_ms = state.now_ms + stall_ms;
            } else if state.now_ms < stalled_ms {
                state.advance_once(stalled_ms);
            } else {
                return Err(LogError::Retry(format!(
                    "reading {partition} from offset {from} to {to}: nothing has come after {position} for \
                     {stall_ms} ms"
                )));
            }
            // What is applied may look at the cluster.
            drop(state);
            for (offset, record) in found.records {
                apply(offset, record.value.as_deref().unwrap_or_default()).map_err(|error| {
                    LogError::Stop(format!("applying {partition} at offset {offset}: {error}"))
                })?;
            }
        }
        Ok(())
    }
}

/// Administration.
pub struct ModelAdmin {
    cluster: Cluster,
}

impl ModelAdmin {
    /// An admin client.
    pub fn new(cluster: &Cluster) -> ModelAdmin {
        ModelAdmin { cluster: cluster.clone() }
    }
}

impl LogAdmin for ModelAdmin {
    fn list(&mut self, prefix: &str) -> Result<Vec<String>, LogError> {
        let state = self.cluster.state();
        Ok(state.topics.keys().filter(|name| name.starts_with(prefix)).cloned().collect())
    }

    fn describe(&mut self, topics: &[String]) -> Result<Vec<Option<TopicDescription>>, LogError> {
        let state = self.cluster.state();
        Ok(topics.iter().map(|topic| state.describe(topic)).collect())
    }

    fn create(&mut self, topic: &TopicSpec) -> Result<(), LogError> {
        let created = self.cluster.state().create(topic);
        created.map_err(|code| code.during(&format!("creating topic {}", topic.name)))
    }

    fn delete(&mut self, topics: &[String]) -> Result<(), LogError> {
        let mut state = self.cluster.state();
        topics.iter().for_each(|topic| state.delete(topic));
        Ok(())
    }

    fn delete_records(&mut self, partition: &TopicPartition, offset: i64) -> Result<i64, LogError> {
        let mut state = self.cluster.state();
        let deleted = state.partition(partition).and_then(|found| found.delete_records(offset));
        let tried = format!("deleting the records of {partition} before offset {offset}");
        deleted.map_err(|code| match code {
            // librdkafka finds no leader to ask, and has no other word for it than "failed".
            Code::UnknownTopicOrPartition => LogError::Client(format!("{tried}: the model says {code:?}")),
            code => code.during(&tried),
        })
    }

    fn group_offsets(&mut self, group: &str) -> Result<Vec<(TopicPartition, i64)>, LogError> {
        let mut state = self.cluster.state();
        state.settle();
        Ok(state.groups.get(group).map(Group::all_committed).unwrap_or_default())
    }

    fn group_members(&mut self, group: &str) -> Result<Vec<String>, LogError> {
        let mut state = self.cluster.state();
        state.settle();
        Ok(state.groups.get(group).map(Group::members).unwrap_or_default())
    }

    fn delete_group(&mut self, group: &str) -> Result<(), LogError> {
        let mut state = self.cluster.state();
        if state.groups.get(group).is_some_and(|found| !found.members().is_empty()) {
            return Err(Code::NonEmptyGroup.during(&format!("deleting group {group}")));
        }
        state.groups.remove(group);
        Ok(())
    }
}
