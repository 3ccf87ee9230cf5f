//! The end of a history: what was committed, and whether all that must hold does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::model::Record;
use crate::model::clients::ModelReader;
use crate::record::TopicPartition;
use crate::simulator::disk::Disk;
use crate::simulator::oracle::{self, State};
use crate::simulator::scenario::{Outcome, Written};
use crate::simulator::world::World;
use crate::task::{Changelog, RestoreHost, RestoreRequest, TaskId, TaskSpec, restore};
use crate::topology::{TopicRole, topics};
use crate::worker::StageSpec;

/// A task with state, and the records of its changelog.
struct Logged<'w> {
    id: TaskId,
    stage: &'w StageSpec,
    changelog: Changelog,
    records: Vec<(i64, Arc<Record>)>,
}

/// A restore that nobody disturbs.
struct Calm;

impl RestoreHost for Calm {
    fn pause(&self, _: u64) {}

    fn is_cancelled(&self) -> bool {
        false
    }

    fn progress(&self, _: &TaskId, _: i64, _: i64, _: i64, _: u64) {}

    fn crash_point(&self, _: &str) {}
}

impl World {
    /// What came out, after all that must hold was checked.
    pub fn outcome(&self) -> Result<Outcome, String> {
        let foreign = self.shared().cluster.foreign_commits();
        if let Some(commit) = foreign.first() {
            return Err(format!("offsets were committed by somebody who does not own them: {commit}"));
        }
        if let Some(violation) = self.disks.iter().find_map(|(_, disk)| disk.violation()) {
            return Err(violation);
        }
        let (mut state, mut operators) = (BTreeMap::new(), BTreeMap::new());
        let new_disk = self.new_disk()?;
        for task in self.logged() {
            let at = |why: String| format!("task {}: {why}", task.id);
            let sweeps = oracle::headers_only_rise(&task.records).map_err(at)?;
            self.shared().trace.borrow_mut().add("sweep complete", sweeps);
            for (_, disk) in &self.disks {
                self.compare(disk, &task)?;
            }
            state.insert(task.id.clone(), self.restore_anew(&new_disk, &task)?);
            let header = oracle::last_header(&task.records);
            if task.stage.repartitioned_by.is_some() {
                let source = TopicPartition::new(&task.stage.topic, task.id.partition);
                let blocks = self.shared().cluster.decided(&source);
                oracle::upstreams_are_as_told(&task.records, &blocks).map_err(at)?;
            }
            operators.insert(task.id.clone(), header.map(|header| header.operators).unwrap_or_default());
        }
        let (counters, commits) = (self.counters.clone(), self.shared().commits.get());
        let outcome = Outcome { topics: self.written(), counters, state, operators, commits };
        self.hash(&outcome);
        Ok(outcome)
    }

    /// What came out is part of the history's hash.
    fn hash(&self, outcome: &Outcome) {
        let mut trace = self.shared().trace.borrow_mut();
        for record in outcome.topics.values().flatten() {
            trace.hash(&record.offset.to_le_bytes());
            trace.hash(record.key.as_deref().unwrap_or_default());
            trace.hash(record.value.as_deref().unwrap_or_default());
        }
        for (key, value) in outcome.state.values().flatten() {
            trace.hash(key);
            trace.hash(value);
        }
    }

    /// Compares the stores of a disk that nobody uses with the changelogs.
    pub(super) fn check_disk(&self, disk: &Disk) -> Result<(), String> {
        self.logged().iter().try_for_each(|task| self.compare(disk, task))
    }

    /// A crash does not throw the stores of `owned` tasks behind the begin of their changelogs: they are
    /// still of use.
    pub(super) fn check_reach(&self, disk: &Disk, owned: &[TaskId]) -> Result<(), String> {
        for task in self.logged().iter().filter(|task| owned.contains(&task.id)) {
            let name = task.id.to_string();
            if !disk.names()?.contains(&name) {
                continue;
            }
            let content = disk.content(&name).map_err(|error| error.to_string())?;
            let at = content.position.map_or(0, |position| position.next_offset);
            let log_start = self.shared().cluster.log_start(&task.changelog.partition);
            if at < log_start {
                return Err(format!(
                    "task {name}: after a crash the store is at changelog offset {at}, and the log begins at {log_start}"
                ));
            }
        }
        Ok(())
    }

    fn compare(&self, disk: &Disk, task: &Logged<'_>) -> Result<(), String> {
        let name = task.id.to_string();
        if !disk.names()?.contains(&name) {
            return Ok(());
        }
        let content = disk.content(&name).map_err(|error| error.to_string())?;
        let end = self.shared().cluster.high_watermark(&task.changelog.partition);
        let compared = oracle::store_equals_changelog(&content, &task.records, end)
            .map_err(|why| format!("task {name}: {why}"))?;
        if compared {
            self.shared().trace.borrow_mut().add("store compared with its changelog", 1);
        }
        Ok(())
    }

    /// What a new owner restores, on whose disk there is nothing of the task, is the fold of the whole changelog.
    fn restore_anew(&self, disk: &Disk, task: &Logged<'_>) -> Result<State, String> {
        let cluster = &self.shared().cluster;
        let (cancelled, pause, note) = (AtomicBool::new(false), |_: u64| {}, |_: &'static str| {});
        let request = RestoreRequest {
            spec: Arc::new(TaskSpec {
                id: task.id.clone(),
                source: TopicPartition::new(&task.stage.topic, task.id.partition),
                start: task.stage.start,
                changelog: Some(task.changelog.clone()),
                bounded: self.scenario.bounded,
                drop_state: Vec::new(),
                repartitioned_by: task.stage.repartitioned_by.clone(),
                idle_timeout_ms: task.stage.idle_timeout_ms,
                alignment: task.stage.alignment.clone(),
                sends_to: task.stage.sends_to.clone(),
            }),
            operators: task.stage.operators.clone(),
            corrupt: None,
            stall_ms: 1_000,
            buffer_bytes_max: 500,
        };
        let mut reader = ModelReader::new(cluster, &self.common.application);
        let restored = restore(&request, &mut reader, &disk.lessee(&pause, &note, &cancelled), &Calm)
            .map_err(|error| format!("task {}, restored from the log alone: {error}", task.id))?;
        drop(restored);
        let content = disk.content(&task.id.to_string()).map_err(|error| error.to_string())?;
        let expected = oracle::fold(&task.records, i64::MAX)?;
        match oracle::difference(&content.entries, &expected) {
            None => Ok(expected),
            Some(difference) => Err(format!("task {}, restored from the log alone: {difference}", task.id)),
        }
    }

    /// Where a bounded run of a source's partition ends, as is committed with the state.
    pub(super) fn end_offset(&self, source: &TopicPartition) -> Option<i64> {
        let mut logged = self.logged().into_iter();
        let task =
            logged.find(|task| task.stage.topic == *source.topic && task.id.partition == source.partition)?;
        oracle::last_header(&task.records)?.sources.first()?.end_offset
    }

    fn logged(&self) -> Vec<Logged<'_>> {
        let mut logged = Vec::new();
        for stage in &self.common.spec.stages {
            let Some((topic, topic_id, record_bytes_max)) = &stage.changelog else { continue };
            for partition in 0..self.partitions(&stage.topic) {
                let changelog = Changelog {
                    partition: TopicPartition::new(topic, partition),
                    topic_id: *topic_id,
                    record_bytes_max: *record_bytes_max,
                };
                let records = self.shared().cluster.decided(&changelog.partition);
                logged.push(Logged {
                    id: TaskId { stage: stage.id.clone(), partition },
                    stage,
                    changelog,
                    records,
                });
            }
        }
        logged
    }

    /// How many partitions a topic has.
    pub(super) fn partitions(&self, topic: &str) -> i32 {
        self.shared().cluster.partition_count(topic)
    }

    fn written(&self) -> BTreeMap<String, Vec<Written>> {
        let mut written = BTreeMap::new();
        for topic in topics(&self.scenario.plan) {
            if topic.role == TopicRole::Source {
                continue;
            }
            let records: &mut Vec<Written> = written.entry(topic.topic.clone()).or_default();
            for partition in 0..self.partitions(&topic.topic) {
                let log = self.shared().cluster.decided(&TopicPartition::new(&topic.topic, partition));
                records.extend(log.into_iter().map(|(offset, record)| Written {
                    partition,
                    offset,
                    key: record.key.clone(),
                    value: record.value.clone(),
                    headers: record.headers.clone(),
                    timestamp_ms: record.timestamp_ms,
                }));
            }
        }
        written
    }
}
