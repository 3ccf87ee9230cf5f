//! The port for commits.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::clients::ModelLog;
use crate::model::cluster::{ClientSettings, Cluster};
use crate::model::consumer::Consumer;
use crate::model::error::Code;
use crate::model::group::{Identity, anonymous};
use crate::model::link::{Direct, Link, Linked};
use crate::model::partition::Record;
use crate::model::producer::Producer;
use crate::planted::{Bug, is_planted};
use crate::record::{OutputRecord, TopicPartition};
use crate::worker::port::{CommitError, LogError, Member, Receipt, Transaction, TransactionLog};

/// The transactional producer of one worker.
///
/// As the one on librdkafka it replaces itself before the next transaction if during the last one a
/// request was sent twice or may still be on its way: such a copy could end the next transaction. As there, the
/// records go out beside the offsets: those of every other partition, of all others the next time, are written
/// after the offsets are accepted.
pub struct ModelTransactionLog {
    cluster: Cluster,
    settings: ClientSettings,
    consumer: u64,
    /// `None` before the first `init` and after an error.
    producer: Option<Producer>,
    /// How many transactions were begun.
    begun: usize,
}

impl ModelTransactionLog {
    /// A producer that commits for `log`.
    pub fn new(cluster: &Cluster, settings: &ClientSettings, log: &ModelLog) -> ModelTransactionLog {
        let (cluster, settings) = (cluster.clone(), settings.clone());
        ModelTransactionLog { cluster, settings, consumer: log.consumer().0, producer: None, begun: 0 }
    }

    /// This client, over a link.
    pub fn over<'l>(&'l mut self, link: &'l dyn Link) -> Linked<'l, ModelTransactionLog> {
        Linked { client: self, link }
    }

    /// [`TransactionLog::init`] over a link.
    pub fn init_over(&mut self, link: &dyn Link, limit_ms: u64) -> Result<(), LogError> {
        self.producer = None;
        let mut producer = Producer::new(&self.cluster, &self.settings);
        let tried = || format!("initialising the transactions of {}", self.settings.transactional_id);
        producer.init_over(link, limit_ms).map_err(|code| code.during(&tried()))?;
        self.producer = Some(producer);
        Ok(())
    }

    /// [`TransactionLog::commit`] over a link. Blocks, at most about as long as a transaction may last.
    pub fn commit_over(
        &mut self,
        link: &dyn Link,
        transaction: Transaction,
        member: &Member,
    ) -> Result<Receipt, CommitError> {
        // Taken out, so that an error on the way leaves none behind.
        let Some(mut producer) = self.producer.take() else {
            return Err(CommitError::Doubt(
                "committing: the producer is not initialised; nothing was sent".into(),
            ));
        };
        if transaction.offsets.is_empty() {
            return Err(CommitError::Doubt("committing: no offsets were given; nothing was sent".into()));
        }
        if producer.suspect() && !is_planted(Bug::ProducerKept) {
            producer = self.replaced(link)?;
        }
        let who = self.identity(member)?;
        self.begun += 1;
        let again = is_planted(Bug::DoubtTakenAsFailed).then(|| transaction.clone());
        let mut result = self.run(link, &mut producer, transaction, &who);
        if let (Err(CommitError::Doubt(_)), Some(again)) = (&result, again) {
            producer = self.replaced(link)?;
            result = self.run(link, &mut producer, again, &who);
        }
        let receipt = result?;
        self.producer = Some(producer);
        Ok(receipt)
    }

    /// A new producer, which fences the one before.
    fn replaced(&self, link: &dyn Link) -> Result<Producer, CommitError> {
        let mut producer = Producer::new(&self.cluster, &self.settings);
        let tried = format!("replacing the producer {}", self.settings.transactional_id);
        let replaced = producer.init_over(link, self.settings.transaction_timeout_ms);
        replaced.map_err(|code| code.during_commit(&tried))?;
        Ok(producer)
    }

    /// The identity that offsets are sent under, if the consumer still is this member.
    fn identity(&self, member: &Member) -> Result<Identity, CommitError> {
        let state = self.cluster.state();
        let now = state.consumers.get(&self.consumer).and_then(Consumer::identity);
        match now {
            Some(now) if now.generation == member.generation && now.member == member.id => Ok(now.clone()),
            Some(now) if is_planted(Bug::MembershipNotCompared) => Ok(now.clone()),
            None if is_planted(Bug::CommitAsNobody) => Ok(anonymous()),
            now => Err(CommitError::NotOwner(format!(
                "committing for member {} of generation {} of group {}: the consumer is {now:?}; nothing was sent",
                member.id, member.generation, self.settings.group
            ))),
        }
    }

    fn run(
        &self,
        link: &dyn Link,
        producer: &mut Producer,
        mut transaction: Transaction,
        who: &Identity,
    ) -> Result<Receipt, CommitError> {
        if is_planted(Bug::DeadLetterOutside) {
            self.write_dead_letters(&mut transaction);
        }
        let failed = |tried: &str| {
            let tried = tried.to_owned();
            move |code: Code| code.during_commit(&tried)
        };
        let end_ms = self.cluster.now_ms() + self.settings.transaction_timeout_ms;
        producer.begin().map_err(failed("beginning a transaction"))?;
        let offsets = transaction.offsets.clone();
        let (mut batches, changes) = self.batches(transaction);
        batches.retain(|_, records| !records.is_empty());
        let added = producer.add(link, batches.keys().cloned(), end_ms);
        added.map_err(|code| code.during_commit(&format!("writing to {:?}", batches.keys())))?;
        let mut placed = BTreeMap::new();
        let mut write = |producer: &mut Producer,
                         (partition, records): (TopicPartition, Vec<Arc<Record>>)| {
            let written = producer.write(link, &partition, records, end_ms);
            let first = written.map_err(|code| code.during_commit(&format!("writing to {partition}")))?;
            placed.insert(partition, first);
            Ok(())
        };
        let (late, early): (Vec<_>, Vec<_>) =
            batches.into_iter().enumerate().partition(|(place, _)| (place + self.begun) % 2 == 1);
        early.into_iter().try_for_each(|(_, batch)| write(producer, batch))?;
        if !is_planted(Bug::OffsetsNotSent) || offsets.iter().any(|offset| offset.next_offset % 4 != 0) {
            let sent = producer.send_offsets(link, &self.settings.group, who, offsets, end_ms);
            sent.map_err(failed("sending the offsets of a transaction"))?;
        }
        late.into_iter().try_for_each(|(_, batch)| write(producer, batch))?;
        match producer.commit_over(link, end_ms) {
            Err(_) if is_planted(Bug::DoubtTakenAsDone) => {}
            ended => ended.map_err(failed("committing a transaction"))?,
        }
        let of = |Change { partition, place, count }: Change| {
            let first = placed.get(&partition).map_or(0, |first| first + place);
            (first..first + count).collect()
        };
        Ok(Receipt { change_offsets: changes.into_iter().map(of).collect() })
    }

    /// [`Bug::DeadLetterOutside`].
    fn write_dead_letters(&self, transaction: &mut Transaction) {
        let now_ms = i64::try_from(self.cluster.now_ms()).unwrap_or(i64::MAX);
        let is_letter =
            |output: &mut OutputRecord| output.headers.iter().any(|(name, _)| name == "thalweg.error");
        for letter in transaction.outputs.extract_if(.., is_letter) {
            let partition = TopicPartition { topic: letter.topic.clone(), partition: letter.partition };
            self.cluster.append_record(&partition, of_output(letter, now_ms));
        }
    }

    /// The records of each partition, and where among them each of the changes stands.
    fn batches(&self, transaction: Transaction) -> (BTreeMap<TopicPartition, Vec<Arc<Record>>>, Vec<Change>) {
        let now_ms = i64::try_from(self.cluster.now_ms()).unwrap_or(i64::MAX);
        let mut batches: BTreeMap<TopicPartition, Vec<Arc<Record>>> = BTreeMap::new();
        for output in transaction.outputs {
            let partition = TopicPartition { topic: output.topic.clone(), partition: output.partition };
            batches.entry(partition).or_default().push(of_output(output, now_ms).into());
        }
        let mut changes = Vec::new();
        for (partition, values) in transaction.changes {
            let batch = batches.entry(partition.clone()).or_default();
            changes.push(Change { partition, place: batch.len() as i64, count: values.len() as i64 });
            batch.extend(values.into_iter().map(|value| {
                let value = Some(Arc::unwrap_or_clone(value));
                Arc::new(Record { key: None, value, headers: Vec::new(), timestamp_ms: now_ms })
            }));
        }
        (batches, changes)
    }
}

/// Where the records of an entry of a transaction's changes stand: so many, from this place among those
/// of the partition on.
struct Change {
    partition: TopicPartition,
    place: i64,
    count: i64,
}

fn of_output(output: OutputRecord, now_ms: i64) -> Record {
    Record {
        key: output.key,
        value: output.value,
        headers: output.headers,
        // As the producer on librdkafka writes times that cannot be written.
        timestamp_ms: if output.timestamp_ms == -1 { now_ms } else { output.timestamp_ms.max(1) },
    }
}

impl TransactionLog for ModelTransactionLog {
    fn init(&mut self, limit_ms: u64) -> Result<(), LogError> {
        let direct = Direct::new(&self.cluster);
        self.init_over(&direct, limit_ms)
    }

    fn commit(&mut self, transaction: Transaction, member: &Member) -> Result<Receipt, CommitError> {
        let direct = Direct::new(&self.cluster);
        self.commit_over(&direct, transaction, member)
    }
}

impl TransactionLog for Linked<'_, ModelTransactionLog> {
    fn init(&mut self, limit_ms: u64) -> Result<(), LogError> {
        self.client.init_over(self.link, limit_ms)
    }

    fn commit(&mut self, transaction: Transaction, member: &Member) -> Result<Receipt, CommitError> {
        self.client.commit_over(self.link, transaction, member)
    }
}
