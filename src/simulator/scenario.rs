//! What is simulated, and what came out.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::operator::Counters;
use crate::record::TopicPartition;
use crate::state::header::OperatorState;
use crate::task::TaskId;
use crate::topology::plan::Plan;

/// A record of the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// Where it is appended.
    pub partition: TopicPartition,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Its headers, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Its timestamp in milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
}

/// What happens from outside, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A record is appended to a source topic.
    Append(Input),
    /// So many milliseconds pass (processing time).
    Advance(u64),
}

/// How the steps follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Each record is processed and committed before the next one comes.
    OneByOne,
    /// Everything is there before anything runs; no time passes between.
    AllAtOnce,
    /// Records come while others are processed, at moments that the seed chooses.
    Mixed,
}

/// Where a commit is when its process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitPoint {
    /// Nothing was sent.
    Before,
    /// Everything is written, the end of the transaction was not asked for.
    Written,
    /// The transaction is committed, nothing in the process knows.
    Committed,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Faults {
    /// Nothing.
    None,
    /// The process of the commit with this number (from 0, over all processes) dies in it.
    CrashAt {
        /// The number.
        commit: u64,
        /// The place in it.
        point: CommitPoint,
    },
    /// Anything, as the seed chooses, until all of the input was appended; then nothing more.
    Seeded,
}

/// What is simulated.
#[derive(Clone)]
pub struct Scenario {
    /// The topology.
    pub plan: Arc<Plan>,
    /// Topics that exist before it starts, with their number of partitions. Others are created if the
    /// topology says so.
    pub topics: BTreeMap<String, i32>,
    /// What happens from outside.
    pub steps: Vec<Step>,
    /// Their pace.
    pub pace: Pace,
    /// Whether the run ends at the end of the input, and closes its windows there.
    pub bounded: bool,
    /// How many of the last steps come only when a bounded run has begun: its end lies before them.
    pub after_the_end: usize,
    /// Whether it goes on until every source that can be idle is.
    pub until_idle: bool,
    /// How many processes run.
    pub processes: usize,
    /// How many workers each has.
    pub workers: usize,
    /// What goes wrong.
    pub faults: Faults,
    /// Whether the stores are RocksDB in temporary folders, in memory where there is a file system for that,
    /// and not stores in memory: tens of times as slow.
    pub rocks: bool,
    /// What is left to chance is decided by this: the same seed, the same history.
    pub seed: u64,
}

/// A committed record of a topic that the topology writes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Its headers, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Its timestamp in milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
}

/// What came out when everything was processed and all processes had stopped in order.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The committed records of each sink, dead-letter and late topic, by partition and offset.
    pub topics: BTreeMap<String, Vec<Written>>,
    /// What the tasks counted, added up over their acknowledged commits: after a fault some may be
    /// missing.
    pub counters: Counters,
    /// The content of each task's store: encoded keys and values.
    pub state: BTreeMap<TaskId, BTreeMap<Vec<u8>, Vec<u8>>>,
    /// What the operators of each task keep beside it, as of the last checkpoint.
    pub operators: BTreeMap<TaskId, Vec<OperatorState>>,
    /// How many commits were begun: the numbers that [`Faults::CrashAt`] may name.
    pub commits: u64,
}

/// Why a simulation did not come to its end, or ended wrongly.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{what}")]
pub struct Failure {
    /// What is wrong.
    pub what: String,
}
