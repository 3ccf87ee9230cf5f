//! What scenarios have in common.

use thalweg::record::{Records, TopicPartition};
use thalweg::worker::port::{
    ChangelogReader, CommitError, Log, LogAdmin, LogError, LogEvent, Member, OutputRecord, TopicSpec,
    Transaction, TransactionLog,
};

use crate::world::{Who, World};

pub const INIT_MS: u64 = 30_000;

/// Creates a topic; returns its name.
pub fn create(world: &impl World, what: &str, partitions: i32) -> String {
    create_with(world, what, partitions, &[])
}

pub fn create_with(world: &impl World, what: &str, partitions: i32, config: &[(&str, &str)]) -> String {
    let name = world.unique(what);
    let config = config.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    world.admin().create(&TopicSpec { name: name.clone(), partitions, replication: 1, config }).unwrap();
    name
}

/// Partition 0 of a new topic.
pub fn single(world: &impl World, what: &str) -> TopicPartition {
    TopicPartition::new(&create(world, what, 1), 0)
}

/// Polls until the log is assigned something.
pub fn assigned<W: World>(world: &W, log: &mut W::Log) -> (Vec<TopicPartition>, Member) {
    world.until("an assignment", || match log.poll().unwrap() {
        Some(LogEvent::Assigned { partitions, member }) => Some((partitions, member)),
        Some(LogEvent::Revoked | LogEvent::Lost) => {
            log.release().unwrap();
            None
        }
        None => None,
    })
}

/// Starts reading partitions from their beginnings.
pub fn start(log: &mut impl Log, partitions: &[TopicPartition]) {
    log.start(&partitions.iter().map(|partition| (partition.clone(), 0)).collect::<Vec<_>>()).unwrap();
}

/// A record as it was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub partition: TopicPartition,
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    pub timestamp_ms: i64,
}

pub fn seen(records: &dyn Records) -> Vec<Seen> {
    let of = |index| {
        let record = records.record(index);
        let mut headers = Vec::new();
        records.headers(index, &mut |name, value| headers.push((name.into(), value.map(<[u8]>::to_vec))));
        Seen {
            partition: records.topic_partition().clone(),
            offset: record.offset,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers,
            timestamp_ms: record.timestamp_ms,
        }
    };
    (0..records.len()).map(of).collect()
}

/// Fetches until there are `count` records.
pub fn fetch<W: World>(world: &W, log: &mut W::Log, count: usize) -> Vec<Seen> {
    let mut all = Vec::new();
    world.until("records", || {
        assert!(log.poll().unwrap().is_none());
        for batch in log.fetch(1_000).unwrap() {
            all.extend(seen(&*batch));
        }
        (all.len() >= count).then_some(())
    });
    all
}

/// A consumer that owns the one partition of a topic, and a producer that commits for it.
pub struct Pair<'w, W: World> {
    pub world: &'w W,
    pub log: W::Log,
    pub producer: W::Producer,
    pub member: Member,
    pub source: TopicPartition,
    pub who: Who,
}

impl<'w, W: World> Pair<'w, W> {
    pub fn new(world: &'w W, what: &str) -> Pair<'w, W> {
        let source = single(world, &format!("{what}-in"));
        let who = Who::of(&world.unique(what), "0");
        let mut log = world.log(&who, &[source.topic.to_string()]);
        let (partitions, member) = assigned(world, &mut log);
        assert_eq!(partitions, std::slice::from_ref(&source));
        let mut producer = world.producer(&who, &log);
        producer.init(INIT_MS).unwrap();
        Pair { world, log, producer, member, source, who }
    }

    pub fn transaction(&self, offset: i64) -> Transaction {
        Transaction { offsets: vec![(self.source.clone(), offset).into()], ..Transaction::default() }
    }

    pub fn changing(&self, changelog: &TopicPartition, values: &[&str], offset: i64) -> Transaction {
        let values = values.iter().map(|value| value.as_bytes().to_vec().into()).collect();
        Transaction { changes: vec![(changelog.clone(), values)], ..self.transaction(offset) }
    }

    pub fn commit(&mut self, transaction: Transaction) {
        self.producer.commit(transaction, &self.member).unwrap();
    }

    pub fn reader(&self) -> W::Reader {
        self.world.reader(&self.who.group)
    }

    pub fn committed(&self) -> Option<i64> {
        self.reader().committed_offsets(std::slice::from_ref(&self.source), 30_000).unwrap()[0]
    }
}

/// A transaction of one offset.
pub fn offset(partition: &TopicPartition, offset: i64) -> Transaction {
    Transaction { offsets: vec![(partition.clone(), offset).into()], ..Transaction::default() }
}

/// What a log that was stopped tells.
pub fn told<W: World>(world: &W, log: &mut W::Log) -> String {
    world.until("what is told", || match log.poll() {
        Ok(None) => None,
        Ok(Some(LogEvent::Lost)) => Some("lost".into()),
        other => Some(format!("{other:?}")),
    })
}

pub fn output(partition: &TopicPartition, value: &str) -> OutputRecord {
    OutputRecord {
        topic: partition.topic.clone(),
        partition: partition.partition,
        key: None,
        value: Some(value.as_bytes().to_vec()),
        headers: Vec::new(),
        timestamp_ms: -1,
    }
}

/// What a restore reads: offsets and values.
pub fn read(
    reader: &mut impl ChangelogReader,
    partition: &TopicPartition,
    from: i64,
    to: i64,
) -> Result<Vec<(i64, String)>, LogError> {
    let mut all = Vec::new();
    reader.read(partition, from, to, 10_000, &mut |offset, value| {
        all.push((offset, String::from_utf8(value.to_vec()).unwrap()));
        Ok(())
    })?;
    Ok(all)
}

/// Log start, last stable offset, high watermark.
pub fn ends(reader: &mut impl ChangelogReader, partition: &TopicPartition) -> [i64; 3] {
    [
        reader.log_start(partition).unwrap(),
        reader.last_stable_offset(partition).unwrap(),
        reader.high_watermark(partition).unwrap(),
    ]
}

/// Offsets and values, for comparing.
pub fn values(expected: &[(i64, &str)]) -> Vec<(i64, String)> {
    expected.iter().map(|(offset, value)| (*offset, value.to_string())).collect()
}

/// The class of a port's error.
pub fn class<T: std::fmt::Debug>(result: &Result<T, LogError>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(LogError::Retry(_)) => "retry",
        Err(LogError::OutOfRange(_)) => "out of range",
        Err(LogError::Fenced(_)) => "fenced",
        Err(LogError::Client(_)) => "client",
        Err(LogError::Stop(_)) => "stop",
    }
}

/// The class of a commit's error.
pub fn commit_class<T: std::fmt::Debug>(result: &Result<T, CommitError>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(CommitError::Doubt(_)) => "doubt",
        Err(CommitError::NotOwner(_)) => "not owner",
        Err(CommitError::Stop(_)) => "stop",
    }
}
