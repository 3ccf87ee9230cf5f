//! Tests of tasks and their restore, on the small cluster of the worker's tests.

mod repartition;
mod restoring;
mod running;
mod two_phase;

use std::cell::Cell;
use std::sync::Arc;

use super::{RestoreHost, RestoreRequest, Restored, Task, TaskId, TaskLimits, TaskSpec, restore};
use crate::state::memory::MemoryStores;
use crate::task::RestoreError;
use crate::worker::port::{SourceOffset, Transaction};
use crate::worker::tests::cluster::{Batch, Cluster};
use crate::worker::tests::topology::{limits, rekeyed, source, stage, task_spec};

/// Counts the pauses; is called off after so many of them.
#[derive(Default)]
struct Host {
    pauses: Cell<u64>,
    cancelled_after: Option<u64>,
}

impl RestoreHost for Host {
    fn pause(&self, _ms: u64) {
        self.pauses.set(self.pauses.get() + 1);
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled_after.is_some_and(|pauses| self.pauses.get() >= pauses)
    }

    fn progress(&self, _: &TaskId, _: i64, _: i64, _: i64, _: u64) {}

    fn crash_point(&self, _: &str) {}
}

fn request(spec: TaskSpec) -> RestoreRequest {
    RestoreRequest {
        spec: Arc::new(spec),
        operators: stage(|text| text).0,
        corrupt: None,
        stall_ms: 100,
        buffer_bytes_max: 300,
    }
}

fn restore_with(cluster: &Cluster, stores: &MemoryStores, spec: TaskSpec) -> Result<Restored, RestoreError> {
    restore(&request(spec), &mut cluster.clone(), stores, &Host::default())
}

/// The task of partition 0, restored.
pub(crate) fn restored(cluster: &Cluster, stores: &MemoryStores) -> Restored {
    restore_with(cluster, stores, task_spec(0)).unwrap()
}

/// A task of the topology that `change` makes, restored.
fn task_of(
    cluster: &Cluster,
    stores: &MemoryStores,
    spec: TaskSpec,
    change: impl Fn(String) -> String,
) -> Result<Task, RestoreError> {
    task_within(limits(), cluster, stores, spec, change)
}

/// The same, within other bounds.
fn task_within(
    limits: TaskLimits,
    cluster: &Cluster,
    stores: &MemoryStores,
    spec: TaskSpec,
    change: impl Fn(String) -> String,
) -> Result<Task, RestoreError> {
    let (operators, pipelines) = stage(change);
    let request = RestoreRequest { operators, ..request(spec) };
    let restored = restore(&request, &mut cluster.clone(), stores, &Host::default())?;
    Ok(Task::new(request.spec, Arc::new(limits), pipelines(), restored).unwrap())
}

fn task(cluster: &Cluster, stores: &MemoryStores) -> Task {
    task_of(cluster, stores, task_spec(0), |text| text).unwrap()
}

/// Hands the task what the source holds from its position on.
fn feed(cluster: &Cluster, task: &mut Task) {
    let from = task.next_offset();
    let records = cluster.content().committed(&source(0));
    let records: Vec<_> = records.into_iter().filter(|(offset, _)| *offset >= from).collect();
    if !records.is_empty() {
        task.enqueue(Batch::of(&source(0), records)).unwrap();
    }
}

/// The task's contribution as a transaction.
fn transaction(task: &mut Task) -> Option<Transaction> {
    transaction_at(task, 0)
}

fn transaction_at(task: &mut Task, now_ms: u64) -> Option<Transaction> {
    let contribution = task.prepare(now_ms).unwrap()?;
    let changelog = task.spec().changelog.as_ref().map(|changelog| changelog.partition.clone());
    let changes = changelog.map(|partition| (partition, contribution.changes));
    Some(Transaction {
        outputs: contribution.outputs,
        changes: changes.into_iter().collect(),
        offsets: vec![SourceOffset {
            partition: contribution.source,
            next_offset: contribution.next_offset,
            finished: contribution.finished,
            standing: contribution.standing,
        }],
    })
}

/// Commits what the task has; false if that is nothing.
fn commit(cluster: &Cluster, task: &mut Task) -> bool {
    let Some(transaction) = transaction(task) else { return false };
    commit_of(cluster, task, &transaction);
    true
}

fn commit_of(cluster: &Cluster, task: &mut Task, transaction: &Transaction) {
    let mut content = cluster.content();
    let offsets = content.write(0, transaction);
    content.end(0, true);
    task.committed(offsets.first().map_or(&[], Vec::as_slice), 0).unwrap();
}

/// Processes and commits all that the source holds.
fn drain(cluster: &Cluster, task: &mut Task) {
    feed(cluster, task);
    loop {
        let taken = task.run(100).unwrap();
        if !commit(cluster, task) && taken == 0 {
            return;
        }
    }
}

fn flush(task: &mut Task) {
    if let Some(job) = task.flush_job(0, true) {
        let flushed = job.run(&|| ()).unwrap();
        task.flushed(flushed);
    }
}
