//! The paths of the protocol that histories are to take, and how they are recognised.

use crate::model::request::Request;
use crate::simulator::shared::Shared;
use crate::simulator::trace::Who;
use crate::task::{RestoreError, Restored, TaskSpec};
use crate::worker::JobDone;
use crate::worker::port::CommitError;

/// Paths that a campaign has to have taken: one that was never taken is a finding.
pub const PATHS: [&str; 35] = [
    "commit acknowledged",
    "commit in doubt",
    "commit of no owner",
    "commit unknown and committed",
    "commit unknown and aborted",
    "commit ends while partitions are wanted back",
    "zombie woken",
    "zombie fenced",
    "replaced process woken",
    "restored",
    "restored from nothing",
    "restore failed",
    "restore called off",
    "out of range during restore",
    "log start moved back",
    "new owner in the middle of a sweep",
    "sweep complete",
    "store compared with its changelog",
    "store dropped",
    "store set aside",
    "flushed",
    "flush failed",
    "cut",
    "cut failed",
    "worker replaced",
    "process gave up",
    "bounded run finished",
    "history on RocksDB",
    "memory limit reached",
    "slow disks",
    "topology changed",
    "repartition topic cut",
    "source that may be idle looked at",
    "partition paused",
    "partition resumed",
];

/// Notes what became of a job.
pub fn of_job_done(done: &JobDone, who: Who, shared: &Shared) {
    match done {
        JobDone::Init(Ok(())) => shared.note(who, "producer made", String::new),
        JobDone::Init(Err(error)) => shared.note(who, "no producer", || error.to_string()),
        JobDone::Committed(Ok(_)) => shared.note(who, "commit acknowledged", String::new),
        JobDone::Committed(Err(error)) => {
            let what = match error {
                CommitError::Doubt(_) => "commit in doubt",
                CommitError::NotOwner(_) => "commit of no owner",
                CommitError::Stop(_) => "commit refused for good",
            };
            shared.note(who, what, || error.to_string());
        }
        JobDone::Restored { task, result: Ok(restored), .. } => {
            shared.note(who, "restored", || {
                format!(
                    "{task} at offset {}, checkpoint {}, {} changelog records read",
                    restored.next_offset,
                    restored.header.as_ref().map_or(0, |header| header.checkpoint),
                    restored.records_read
                )
            });
        }
        JobDone::Restored { task, result: Err(error), .. } => {
            let called_off = matches!(error, RestoreError::Cancelled);
            let what = if called_off { "restore called off" } else { "restore failed" };
            shared.note(who, what, || format!("{task}: {error}"));
        }
        JobDone::Flushed { task, result: Ok(flushed), .. } => shared.note(who, "flushed", || {
            format!("{task}, checkpoint {}, changelog offset {}", flushed.checkpoint, flushed.next_offset)
        }),
        JobDone::Flushed { task, result: Err(error), .. } => {
            shared.note(who, "flush failed", || format!("{task}: {error}"));
        }
        JobDone::Looked { task, result: Ok(_), .. } => {
            shared.note(who, "source that may be idle looked at", || task.to_string());
        }
        JobDone::Looked { task, result: Err(error), .. } => {
            shared.note(who, "source not looked at", || format!("{task}: {error}"));
        }
        JobDone::Asked { result: Ok(_), .. } => {}
        JobDone::Asked { result: Err(error), .. } => {
            shared.note(who, "nobody told how far others are", || error.to_string())
        }
        JobDone::Cut { partition, result: Ok(log_start), .. }
            if partition.topic.ends_with(".repartition") =>
        {
            shared.note(who, "repartition topic cut", || format!("{partition}, log start {log_start}"));
        }
        JobDone::Cut { task, result: Ok(log_start), .. } => {
            shared.cutters.borrow_mut().insert(task.clone(), who);
            shared.note(who, "cut", || format!("{task}, log start {log_start}"));
        }
        JobDone::Cut { task, result: Err(error), .. } => {
            shared.note(who, "cut failed", || format!("{task}: {error}"));
        }
    }
}

/// Notes what a restore found.
pub fn of_restore(spec: &TaskSpec, restored: &Restored, who: Who, shared: &Shared) {
    let before = shared.owners.borrow_mut().insert(spec.id.clone(), who);
    let sweep = restored.header.as_ref().and_then(|header| header.sweep.as_ref());
    if before.is_some_and(|before| before != who) && sweep.is_some_and(|sweep| !sweep.cursor.is_empty()) {
        shared.note(who, "new owner in the middle of a sweep", || spec.id.to_string());
    }
    if restored.header.is_none() {
        shared.note(who, "restored from nothing", || spec.id.to_string());
    }
    let doubt = shared.doubts.borrow_mut().remove(&spec.source);
    if let Some(offset) = doubt {
        let committed = restored.next_offset >= offset;
        let what = if committed { "commit unknown and committed" } else { "commit unknown and aborted" };
        shared.note(who, what, || format!("{} up to offset {offset}", spec.source));
    }
}

/// Notes what a request asks in vain.
pub fn of_request(request: &Request, who: Who, shared: &Shared) {
    if let Request::Fetch { partition, from, .. } = request
        && *from < shared.cluster.log_start(partition)
    {
        shared.note(who, "out of range during restore", || format!("{partition} at offset {from}"));
    }
}
