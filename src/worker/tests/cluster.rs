//! A small cluster in memory, driven by the tests: partitions with transactions, committed offsets of one
//! group, and nothing that happens by itself.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::record::{Records, SourceRecord, TopicPartition};
use crate::worker::alignment::Standing;
use crate::worker::port::{
    Apply, ChangelogReader, CommitError, Log, LogError, LogEvent, Member, Receipt, SourceOffset, Transaction,
    TransactionLog,
};

/// What a commit call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It commits, and says so.
    Good,
    /// Nothing is written; it fails.
    FailsBefore,
    /// All is written, and the transaction stays open; it fails.
    StaysOpen,
    /// The coordinator has decided to commit and has not written the markers yet; it fails.
    Prepared,
    /// It commits, and fails.
    FailsAfter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Committed,
    Aborted,
    Open(i64),
    Marker,
}

struct Entry {
    state: State,
    value: Vec<u8>,
}

/// A partition. Offsets are places in `entries`.
#[derive(Default)]
struct Partition {
    entries: Vec<Entry>,
    log_start: i64,
}

impl Partition {
    fn high_watermark(&self) -> i64 {
        self.entries.len() as i64
    }

    fn last_stable(&self) -> i64 {
        let open = self.entries.iter().position(|entry| matches!(entry.state, State::Open(_)));
        open.unwrap_or(self.entries.len()) as i64
    }
}

/// An open transaction.
struct Open {
    prepared: bool,
    partitions: Vec<TopicPartition>,
    offsets: Vec<SourceOffset>,
}

/// Called before each look-up, with its name.
pub type Hook = Box<dyn FnMut(&mut Content, &str) + Send>;

/// What the cluster holds.
#[derive(Default)]
pub struct Content {
    partitions: BTreeMap<TopicPartition, Partition>,
    open: BTreeMap<i64, Open>,
    /// The group's committed offsets.
    pub group: BTreeMap<TopicPartition, i64>,
    /// How far its partitions are, of those that tell.
    pub standings: BTreeMap<TopicPartition, Standing>,
    /// The group's members, as they are now.
    pub members: Vec<Member>,
    /// What the next look-up of this name fails with.
    pub fails: Option<(&'static str, LogError)>,
    /// The look-ups so far, by name.
    pub lookups: Vec<String>,
}

impl Content {
    fn partition(&mut self, partition: &TopicPartition) -> &mut Partition {
        self.partitions.entry(partition.clone()).or_default()
    }

    /// Appends a committed record.
    pub fn append(&mut self, partition: &TopicPartition, value: &[u8]) {
        self.partition(partition).entries.push(Entry { state: State::Committed, value: value.to_vec() });
    }

    /// Appends a control marker that belongs to nothing of interest.
    pub fn append_marker(&mut self, partition: &TopicPartition) {
        self.partition(partition).entries.push(Entry { state: State::Marker, value: Vec::new() });
    }

    /// Writes a transaction that stays open; returns the offsets of its changelog records.
    pub fn write(&mut self, producer: i64, transaction: &Transaction) -> Vec<Vec<i64>> {
        assert!(!self.open.contains_key(&producer), "a producer has one transaction at a time");
        let mut partitions = Vec::new();
        let mut put = |content: &mut Content, partition: &TopicPartition, value: &[u8]| {
            if !partitions.contains(partition) {
                partitions.push(partition.clone());
            }
            let entries = &mut content.partition(partition).entries;
            entries.push(Entry { state: State::Open(producer), value: value.to_vec() });
            entries.len() as i64 - 1
        };
        for output in &transaction.outputs {
            let partition = TopicPartition { topic: output.topic.clone(), partition: output.partition };
            put(self, &partition, output.value.as_deref().unwrap_or_default());
        }
        let changes = transaction.changes.iter();
        let offsets = changes
            .map(|(partition, records)| records.iter().map(|record| put(self, partition, record)).collect())
            .collect();
        let open = Open { prepared: false, partitions, offsets: transaction.offsets.clone() };
        self.open.insert(producer, open);
        offsets
    }

    /// Ends a producer's open transaction, if there is one.
    pub fn end(&mut self, producer: i64, commit: bool) {
        let Some(open) = self.open.remove(&producer) else { return };
        for partition in &open.partitions {
            let entries = &mut self.partition(partition).entries;
            for entry in entries.iter_mut().filter(|entry| entry.state == State::Open(producer)) {
                entry.state = if commit { State::Committed } else { State::Aborted };
            }
            entries.push(Entry { state: State::Marker, value: Vec::new() });
        }
        if commit {
            self.commit_offsets(open.offsets);
        }
    }

    fn commit_offsets(&mut self, offsets: Vec<SourceOffset>) {
        for SourceOffset { partition, next_offset, finished, standing } in offsets {
            self.group.insert(partition.clone(), next_offset);
            match standing.filter(|_| !finished) {
                Some(standing) => self.standings.insert(partition, standing),
                None => self.standings.remove(&partition),
            };
        }
    }

    /// Marks a producer's open transaction as decided.
    pub fn prepare(&mut self, producer: i64) {
        if let Some(open) = self.open.get_mut(&producer) {
            open.prepared = true;
        }
    }

    /// The group has the offsets of a producer's decided transaction; its markers are still missing.
    pub fn land_offsets(&mut self, producer: i64) {
        if let Some(open) = self.open.get_mut(&producer).filter(|open| open.prepared) {
            let offsets = std::mem::take(&mut open.offsets);
            self.commit_offsets(offsets);
        }
    }

    /// Ends a producer's transaction, if it is decided.
    pub fn land(&mut self, producer: i64) {
        if self.open.get(&producer).is_some_and(|open| open.prepared) {
            self.end(producer, true);
        }
    }

    /// Ends a transaction as the coordinator does when its producer is fenced or times out.
    pub fn fence(&mut self, producer: i64) {
        let prepared = self.open.get(&producer).is_some_and(|open| open.prepared);
        self.end(producer, prepared);
    }

    /// Deletes the records before `offset`.
    pub fn cut(&mut self, partition: &TopicPartition, offset: i64) -> i64 {
        let partition = self.partition(partition);
        assert!(offset <= partition.high_watermark());
        partition.log_start = partition.log_start.max(offset);
        partition.log_start
    }

    /// The committed records of a partition with their offsets, those that were cut included.
    pub fn committed(&self, partition: &TopicPartition) -> Vec<(i64, Vec<u8>)> {
        let Some(partition) = self.partitions.get(partition) else { return Vec::new() };
        let entries = partition.entries.iter().enumerate();
        let committed = entries.filter(|(_, entry)| entry.state == State::Committed);
        committed.map(|(offset, entry)| (offset as i64, entry.value.clone())).collect()
    }

    /// The end of a partition.
    pub fn high_watermark(&self, partition: &TopicPartition) -> i64 {
        self.partitions.get(partition).map_or(0, Partition::high_watermark)
    }

    /// The first offset of a partition.
    pub fn log_start(&self, partition: &TopicPartition) -> i64 {
        self.partitions.get(partition).map_or(0, |partition| partition.log_start)
    }

    fn last_stable(&self, partition: &TopicPartition) -> i64 {
        self.partitions.get(partition).map_or(0, Partition::last_stable)
    }
}

/// The cluster. Clones share it.
#[derive(Clone, Default)]
pub struct Cluster {
    content: Arc<Mutex<Content>>,
    hook: Arc<Mutex<Option<Hook>>>,
}

impl Cluster {
    /// What it holds.
    pub fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap()
    }

    /// Calls `hook` before each look-up from now on.
    pub fn hook(&self, hook: impl FnMut(&mut Content, &str) + Send + 'static) {
        *self.hook.lock().unwrap() = Some(Box::new(hook));
    }

    fn look_up(&self, name: &str) -> Result<MutexGuard<'_, Content>, LogError> {
        let mut content = self.content();
        content.lookups.push(name.to_owned());
        if let Some(hook) = &mut *self.hook.lock().unwrap() {
            hook(&mut content, name);
        }
        match content.fails.take_if(|(fails, _)| *fails == name) {
            Some((_, error)) => Err(error),
            None => Ok(content),
        }
    }

    /// A transactional producer.
    pub fn producer(&self, id: i64) -> TestProducer {
        TestProducer { cluster: self.clone(), id, fate: Fate::Good }
    }
}

/// A producer; `fate` is that of its next commit.
pub struct TestProducer {
    cluster: Cluster,
    id: i64,
    /// What the next commit does.
    pub fate: Fate,
}

impl TransactionLog for TestProducer {
    fn init(&mut self, _limit_ms: u64) -> Result<(), LogError> {
        self.cluster.content().fence(self.id);
        Ok(())
    }

    fn commit(&mut self, transaction: Transaction, member: &Member) -> Result<Receipt, CommitError> {
        let fate = std::mem::replace(&mut self.fate, Fate::Good);
        let mut content = self.cluster.content();
        assert!(!transaction.offsets.is_empty(), "every transaction sends offsets");
        if !content.members.contains(member) {
            return Err(CommitError::NotOwner(format!("{member:?} is no member")));
        }
        let doubt = Err(CommitError::Doubt(format!("{fate:?}")));
        if fate == Fate::FailsBefore {
            return doubt;
        }
        let change_offsets = content.write(self.id, &transaction);
        match fate {
            Fate::Good => content.end(self.id, true),
            Fate::FailsAfter => {
                content.end(self.id, true);
                return doubt;
            }
            Fate::Prepared => {
                content.prepare(self.id);
                return doubt;
            }
            Fate::StaysOpen | Fate::FailsBefore => return doubt,
        }
        Ok(Receipt { change_offsets })
    }
}

impl ChangelogReader for Cluster {
    fn committed_offsets(
        &mut self,
        partitions: &[TopicPartition],
        _limit_ms: u64,
    ) -> Result<Vec<Option<i64>>, LogError> {
        let content = self.look_up("committed")?;
        let touches = |open: &Open| open.offsets.iter().any(|sent| partitions.contains(&sent.partition));
        if content.open.values().any(touches) {
            return Err(LogError::Retry("a transaction is open on the group's offsets".into()));
        }
        Ok(partitions.iter().map(|partition| content.group.get(partition).copied()).collect())
    }

    fn log_start(&mut self, partition: &TopicPartition) -> Result<i64, LogError> {
        Ok(self.look_up("log start")?.log_start(partition))
    }

    fn high_watermark(&mut self, partition: &TopicPartition) -> Result<i64, LogError> {
        Ok(self.look_up("high watermark")?.high_watermark(partition))
    }

    fn last_stable_offset(&mut self, partition: &TopicPartition) -> Result<i64, LogError> {
        Ok(self.look_up("last stable")?.last_stable(partition))
    }

    fn open_transactions(&mut self, partition: &TopicPartition) -> Vec<i64> {
        let content = self.content();
        let open = content.open.iter().filter(|(_, open)| open.partitions.contains(partition));
        open.map(|(producer, _)| *producer).collect()
    }

    fn read(
        &mut self,
        partition: &TopicPartition,
        from: i64,
        to: i64,
        _stall_ms: u64,
        apply: &mut Apply<'_>,
    ) -> Result<(), LogError> {
        for offset in from..to {
            let content = self.look_up("read")?;
            if offset < content.log_start(partition) {
                return Err(LogError::OutOfRange(format!("{partition}: offset {offset} was cut")));
            }
            let entry = &content.partitions[partition].entries[offset as usize];
            match entry.state {
                State::Committed => {
                    let value = entry.value.clone();
                    drop(content);
                    apply(offset, &value).map_err(LogError::Stop)?;
                }
                State::Open(_) => return Err(LogError::Retry("undecided".into())),
                State::Aborted | State::Marker => {}
            }
        }
        Ok(())
    }
}

/// Records of a partition.
pub struct Batch {
    partition: TopicPartition,
    records: Vec<(i64, Vec<u8>)>,
}

impl Batch {
    /// These records, by offset.
    pub fn of(partition: &TopicPartition, records: Vec<(i64, Vec<u8>)>) -> Box<dyn Records> {
        Box::new(Batch { partition: partition.clone(), records })
    }
}

impl Records for Batch {
    fn topic_partition(&self) -> &TopicPartition {
        &self.partition
    }

    fn len(&self) -> usize {
        self.records.len()
    }

    fn bytes(&self) -> usize {
        self.records.iter().map(|(_, value)| value.len()).sum()
    }

    fn record(&self, index: usize) -> SourceRecord<'_> {
        let (offset, value) = &self.records[index];
        SourceRecord {
            offset: *offset,
            timestamp_ms: -1,
            key: None,
            value: Some(value),
            records: self,
            index,
        }
    }

    fn headers<'b>(&'b self, _index: usize, _visit: &mut dyn FnMut(&'b str, Option<&'b [u8]>)) {}
}

/// What a test sees and sets of a consumer.
#[derive(Default)]
pub struct Consumer {
    /// What it tells next.
    pub events: VecDeque<LogEvent>,
    /// What it tells the worker about its assignment; `None` once released.
    pub assigned: Option<Member>,
    /// Where it reads.
    pub positions: BTreeMap<TopicPartition, i64>,
    /// What it takes nothing of for now.
    pub paused: BTreeSet<TopicPartition>,
    /// A commit of its worker is running.
    pub committing: bool,
    /// How often it was released.
    pub released: usize,
    /// How often records were asked for.
    pub fetches: usize,
    /// It has left the group, or tried to.
    pub left: bool,
    /// What the next poll fails with.
    pub fails: Option<LogError>,
    /// What the next fetch fails with.
    pub fetch_fails: Option<LogError>,
    /// What leaving fails with.
    pub leave_fails: Option<LogError>,
}

/// A consumer.
#[derive(Clone, Default)]
pub struct TestLog {
    cluster: Cluster,
    consumer: Arc<Mutex<Consumer>>,
}

impl TestLog {
    /// A consumer of this cluster.
    pub fn new(cluster: &Cluster) -> Self {
        TestLog { cluster: cluster.clone(), consumer: Arc::default() }
    }

    /// What it does.
    pub fn consumer(&self) -> MutexGuard<'_, Consumer> {
        self.consumer.lock().unwrap()
    }
}

impl Log for TestLog {
    fn poll(&mut self) -> Result<Option<LogEvent>, LogError> {
        let mut consumer = self.consumer();
        if let Some(error) = consumer.fails.take() {
            return Err(error);
        }
        let event = consumer.events.pop_front();
        if let Some(LogEvent::Assigned { member, .. }) = &event {
            consumer.assigned = Some(member.clone());
        }
        Ok(event)
    }

    fn start(&mut self, positions: &[(TopicPartition, i64)]) -> Result<(), LogError> {
        let mut consumer = self.consumer();
        assert!(consumer.assigned.is_some(), "started without an assignment");
        consumer.positions = positions.iter().cloned().collect();
        consumer.paused.clear();
        Ok(())
    }

    fn pause(&mut self, partition: &TopicPartition, paused: bool) -> Result<(), LogError> {
        let mut consumer = self.consumer();
        assert!(consumer.positions.contains_key(partition), "{partition} was not started");
        let turned = if paused {
            consumer.paused.insert(partition.clone())
        } else {
            consumer.paused.remove(partition)
        };
        assert!(turned, "{partition} is paused already, or not paused");
        Ok(())
    }

    fn release(&mut self) -> Result<(), LogError> {
        let mut consumer = self.consumer();
        assert!(!consumer.committing, "released while a commit was running");
        consumer.assigned = None;
        consumer.positions.clear();
        consumer.released += 1;
        Ok(())
    }

    fn fetch(&mut self, records_max: usize) -> Result<Vec<Box<dyn Records>>, LogError> {
        let (content, mut consumer) = (self.cluster.content(), self.consumer());
        if let Some(error) = consumer.fetch_fails.take() {
            return Err(error);
        }
        consumer.fetches += 1;
        let mut left = records_max;
        let mut fetched = Vec::new();
        let Consumer { positions, paused, .. } = &mut *consumer;
        for (partition, position) in
            positions.iter_mut().filter(|(partition, _)| !paused.contains(*partition))
        {
            let mut records = Vec::new();
            let stable = content.last_stable(partition);
            while *position < stable && left > 0 {
                let entry = &content.partitions[partition].entries[*position as usize];
                if entry.state == State::Committed {
                    records.push((*position, entry.value.clone()));
                    left -= 1;
                }
                *position += 1;
            }
            if !records.is_empty() {
                fetched.push(Batch::of(partition, records));
            }
        }
        Ok(fetched)
    }

    fn read_up_to(&self, partition: &TopicPartition) -> Option<i64> {
        self.consumer().positions.get(partition).copied()
    }

    fn end_offset(&self, partition: &TopicPartition) -> Option<i64> {
        Some(self.cluster.content().last_stable(partition))
    }

    fn leave(&mut self, _limit_ms: u64) -> Result<(), LogError> {
        let mut consumer = self.consumer();
        assert!(!consumer.committing, "left while a commit was running");
        assert!(!consumer.left, "left twice");
        consumer.left = true;
        consumer.assigned = None;
        consumer.leave_fails.take().map_or(Ok(()), Err)
    }
}
