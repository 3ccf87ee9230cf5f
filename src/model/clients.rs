//! The four ports of the worker, served by the model; here the one for a member of a group.

use std::sync::Arc;

pub use crate::model::admin::ModelAdmin;
pub use crate::model::committer::ModelTransactionLog;
pub use crate::model::reader::ModelReader;

use crate::model::cluster::{ClientSettings, Cluster, ConsumerId, State};
use crate::model::consumer::Consumer;
use crate::model::error::Code;
use crate::model::faults::{Operation, Resource, Service};
use crate::model::partition::{Isolation, Record};
use crate::model::producer::Membership;
use crate::planted::{Bug, is_planted};
use crate::record::{Records, SourceRecord, TopicPartition};
use crate::worker::port::{Log, LogError, LogEvent};

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

    /// The consumer, for what is done to it from outside.
    pub fn consumer(&self) -> ConsumerId {
        ConsumerId(self.id)
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
                Some(code) if consumer.is_fenced_by_itself() => Err(LogError::Client(format!(
                    "{tried} (group {}): the model says {code:?} to one that has lost its partitions",
                    self.group
                ))),
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
            if let Some(topic) = consumer.missing.pop_front() {
                return Err(Code::UnknownTopicOrPartition.during(&format!("consuming topic {topic}")));
            }
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
            if is_planted(Bug::OldBatchApplied) && !consumer.positions.is_empty() {
                return Ok(());
            }
            consumer.stop();
            consumer.positions = positions.iter().cloned().collect();
            Ok(())
        });
        started.map(drop)
    }

    fn pause(&mut self, partition: &TopicPartition, paused: bool) -> Result<(), LogError> {
        let turned = self.with("pausing", |consumer, _| {
            if paused {
                consumer.paused.insert(partition.clone());
            } else {
                consumer.paused.remove(partition);
            }
            Ok(())
        });
        turned.map(drop)
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

    /// Takes no time, also where it fails because nobody answers.
    fn leave(&mut self, _limit_ms: u64) -> Result<(), LogError> {
        let mut state = self.cluster.state();
        let now_ms = state.now_ms;
        let there = state.away_until(&Service::Groups).is_none();
        let State { consumers, groups, .. } = &mut *state;
        let Some(consumer) = consumers.get_mut(&self.id) else { return Ok(()) };
        let there = there && consumer.cut_off_ms <= now_ms;
        let left = consumer.leave(groups.get_mut(&self.group).filter(|_| there), now_ms);
        state.settle();
        if there || !left {
            return Ok(());
        }
        Err(LogError::Retry(format!(
            "leaving group {}: no answer; the group waits for this member until its session ends",
            self.group
        )))
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
        if consumer.paused.contains(partition) || state.leader_away_until(partition).is_some() {
            continue;
        }
        let may = state.may(|| Resource::Topic(partition.topic.to_string()), Operation::Read);
        let found = if may { state.partition(partition) } else { Err(Code::TopicAuthorizationFailed) };
        let read = found.and_then(|found| {
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
