//! One stage on one partition: the unit of state, ordering and parallelism.

mod build;
mod restore;
mod running;
mod sweep;
#[cfg(test)]
pub(crate) mod tests;
mod unflushed;

use std::fmt;
use std::sync::Arc;

pub use build::{BuildError, Targets, pipeline_factory};
pub use restore::{RestoreError, RestoreHost, RestoreRequest, Restored, restore};
pub use running::{Contribution, Task, TaskLimits};
pub use unflushed::{FlushJob, Flushed};

use crate::record::TopicPartition;
use crate::topology::plan::{Alignment, Start};
use crate::worker::port::TopicId;

/// A task's name: its stage and its partition number.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId {
    /// The stage: the id of its source, or of the operator that changes keys.
    pub stage: Arc<str>,
    /// The partition.
    pub partition: i32,
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.stage, self.partition)
    }
}

/// What a task is, before anything runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskSpec {
    /// Its name.
    pub id: TaskId,
    /// The partition that it reads.
    pub source: TopicPartition,
    /// Where it begins without a committed offset.
    pub start: Start,
    /// Where its state changes go; `None` for a task without state.
    pub changelog: Option<Changelog>,
    /// Whether it ends at the end that its source has when it first starts.
    pub bounded: bool,
    /// Operators whose state is given up.
    pub drop_state: Vec<String>,
    /// It reads a repartition topic, whose rows are spread by this key: nobody else does, and what is committed is cut
    /// off. A bounded run of it ends when those of all have ended that write the topic.
    pub repartitioned_by: Option<String>,
    /// When the source has had nothing for so long, the stages behind it do not wait for it any more; `None`: they
    /// always do.
    pub idle_timeout_ms: Option<u64>,
    /// How its source is aligned with others.
    pub alignment: Option<Alignment>,
    /// The topics through which it sends to later stages.
    pub sends_to: Vec<String>,
}

/// A task's changelog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changelog {
    /// The partition.
    pub partition: TopicPartition,
    /// The identity of its topic.
    pub topic_id: TopicId,
    /// The largest record that it takes, in bytes.
    pub record_bytes_max: usize,
}
