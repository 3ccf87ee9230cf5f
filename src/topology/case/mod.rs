//! The tests of a topology file: what goes in, what must come out.
//!
//! Read and checked here (`read`, `expect`, `json`), run by [`testing`](crate::testing).

mod expect;
mod json;
mod read;

use std::sync::Arc;

pub use json::Json;
pub(super) use read::{Scope, Target, read_cases};

use crate::expression::Expression;
use crate::record::Schema;

/// A case of a topology's `tests`.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its name, unique in the file.
    pub name: String,
    /// The line of the file on which it begins, from 1.
    pub line: usize,
    /// How many partitions each topic has; `None` if the case does not say.
    pub partitions: Option<i32>,
    /// Whether the end of the input closes all windows.
    pub bounded: bool,
    /// Whether it is also run with crashes and faults.
    pub crashes: bool,
    /// What happens, in order.
    pub steps: Vec<CaseStep>,
    /// What sinks, dead-letter and late topics must hold. Those that are not named: see the runner.
    pub outputs: Vec<ExpectedRows>,
    /// How many records come late, per operator.
    pub late: Vec<ExpectedCount>,
    /// How many records fail, per source, operator or sink.
    pub failed: Vec<ExpectedCount>,
    /// The windows that must be open at the end, per window operator.
    pub state: Vec<ExpectedRows>,
}

/// What happens in a case.
#[derive(Clone, Debug)]
pub enum CaseStep {
    /// A record arrives.
    Record(CaseRecord),
    /// So many milliseconds of processing time pass.
    Advance(u64),
}

/// A record of the input.
#[derive(Clone, Debug, Default)]
pub struct CaseRecord {
    /// The line on which it stands, from 1.
    pub line: usize,
    /// The index of its source in the plan.
    pub source: usize,
    /// Its value's bytes; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Its key; `None`: made of the fields that the source is partitioned by.
    pub key: Option<Json>,
    /// Its Kafka timestamp in milliseconds since the Unix epoch; `None`: its event time, if its value has one.
    pub timestamp_ms: Option<i64>,
    /// Its partition; `None`: the one that its key leads to.
    pub partition: Option<i32>,
    /// Its headers, in their order.
    pub headers: Vec<(String, String)>,
}

/// What a topic, or a window operator's state, must hold.
#[derive(Clone, Debug)]
pub struct ExpectedRows {
    /// As the case names it: a sink's or operator's id, or a topic.
    pub name: String,
    /// The topic; empty for state.
    pub topic: String,
    /// The line on which it stands, from 1.
    pub line: usize,
    /// Whether the records of each key must come in this order.
    pub ordered: bool,
    /// Whether fields that are left out must be null or absent, rather than anything.
    pub exact: bool,
    /// By how much doubles may differ.
    pub tolerance: f64,
    /// The fields of the rows, if they are known.
    pub schema: Option<Schema>,
    /// The records.
    pub records: Vec<ExpectedRecord>,
}

/// A record that must be there.
#[derive(Clone, Debug, Default)]
pub struct ExpectedRecord {
    /// The line on which it stands, from 1.
    pub line: usize,
    /// Its value; `None`: any.
    pub value: Option<ExpectedValue>,
    /// Its key; `None`: any.
    pub key: Option<Json>,
    /// Its timestamp in milliseconds since the Unix epoch; `None`: any.
    pub timestamp_ms: Option<i64>,
    /// What its header `thalweg.error` contains; `None`: anything.
    pub error: Option<String>,
    /// Headers that it has, with these values; it may have more.
    pub headers: Vec<(String, String)>,
    /// A condition that its row meets.
    pub condition: Option<Arc<Expression>>,
}

/// A value that must be there.
#[derive(Clone, Debug, PartialEq)]
pub enum ExpectedValue {
    /// A JSON value.
    Json(Json),
    /// These bytes.
    Raw(String),
}

/// A count that must be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedCount {
    /// The source, operator or sink that counts.
    pub id: String,
    /// How many.
    pub count: u64,
    /// The line on which it stands, from 1.
    pub line: usize,
}
