//! A checked topology: what the engine is built from.

use std::sync::Arc;

use crate::expression::Expression;
use crate::record::{Schema, SourceSchema, Type};
use crate::window::{AlignedWindows, SessionWindows};

/// A topology whose names, types and keys have been checked.
#[derive(Debug)]
pub struct Plan {
    /// The application: its consumer group and the prefix of the topics that it owns.
    pub name: String,
    /// In the order of the file.
    pub sources: Vec<SourcePlan>,
    /// In an order in which each comes after its input.
    pub operators: Vec<OperatorPlan>,
    /// In the order of the file.
    pub sinks: Vec<SinkPlan>,
}

/// Where a stream comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StreamRef {
    /// The rows of `sources[i]`.
    Source(usize),
    /// The rows that `operators[i]` emits.
    Operator(usize),
}

/// What happens to a record that cannot be decoded or that an operator fails on.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum OnError {
    /// The process stops with exit code 1.
    #[default]
    Fail,
    /// It is counted and left out.
    Skip,
    /// It is counted and written to this topic.
    DeadLetter(String),
}

/// A topic that the application may create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateTopic {
    /// How many partitions.
    pub partitions: i32,
    /// How many replicas of each; [`REPLICATION_OF_CLUSTER`](CreateTopic::REPLICATION_OF_CLUSTER) if
    /// the file does not say.
    pub replication: i32,
    /// Topic settings, in the order of the file.
    pub config: Vec<(String, String)>,
}

impl CreateTopic {
    /// As many replicas as the cluster gives a topic by default; what Kafka's protocol means by -1.
    pub const REPLICATION_OF_CLUSTER: i32 = -1;
}

/// Where reading begins in a partition without a committed offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Start {
    /// At the oldest record.
    #[default]
    Earliest,
    /// After the newest record.
    Latest,
}

/// A source.
#[derive(Debug)]
pub struct SourcePlan {
    /// Its id in the file.
    pub id: String,
    /// The topic that it reads.
    pub topic: String,
    /// Created if it is missing and this is given.
    pub create: Option<CreateTopic>,
    /// Where it starts.
    pub start: Start,
    /// The fields whose values decide a record's partition; empty: unknown.
    pub partitioned_by: Vec<String>,
    /// What its JSON records look like.
    pub schema: SourceSchema,
    /// How it is dated.
    pub event_time: EventTimePlan,
    /// What becomes of records that cannot be decoded or dated.
    pub on_error: OnError,
}

/// A source's event time and watermark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventTimePlan {
    /// The slot of the timestamp field; `None` for the record's Kafka timestamp.
    pub field: Option<usize>,
    /// How far behind the newest event time the watermark stays.
    pub max_out_of_orderness_ms: i64,
    /// An event time further after the record's Kafka timestamp than this is an error.
    pub max_ahead_ms: i64,
}

/// An operator.
#[derive(Debug)]
pub struct OperatorPlan {
    /// Its id in the file: the identity of its state.
    pub id: String,
    /// The stream that it reads.
    pub input: StreamRef,
    /// The rows that it emits.
    pub schema: Schema,
    /// What becomes of records that it fails on.
    pub on_error: OnError,
    /// What it does.
    pub kind: OperatorKind,
}

/// What an operator does.
#[derive(Debug)]
pub enum OperatorKind {
    /// Passes the rows for which the predicate is true.
    Filter {
        /// Of type bool, perhaps null.
        predicate: Arc<Expression>,
    },
    /// Computes a row from each row: one entry for each field of the output schema.
    Map {
        /// How each output slot is made.
        slots: Vec<MapSlot>,
    },
    /// Groups rows by key and time and aggregates them.
    Window(WindowPlan),
}

/// How a map makes a slot.
#[derive(Clone, Debug)]
pub enum MapSlot {
    /// A copy of this input slot.
    Input(usize),
    /// The value of an expression on the input row.
    Expression(Arc<Expression>),
}

/// A keyed window. Its rows: the key fields, `window_start`, `window_end`, the aggregates, and perhaps a
/// [mark](Emit::mark).
#[derive(Debug)]
pub struct WindowPlan {
    /// The input slots of the key, in declared order.
    pub key: Vec<usize>,
    /// Which windows there are.
    pub windows: Windows,
    /// How long after its end a window still takes records.
    pub allowed_lateness_ms: i64,
    /// In declared order.
    pub aggregates: Vec<AggregatePlan>,
    /// When rows are emitted.
    pub emit: Emit,
    /// What becomes of late records.
    pub late: Late,
}

/// Which windows there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Windows {
    /// Those of the clock.
    Aligned(AlignedWindows),
    /// Those that last as long as rows follow one another.
    Session(SessionWindows),
}

/// When a window emits rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Emit {
    /// Once, when no more record is accepted.
    #[default]
    OnClose,
    /// When the watermark reaches the window's end, and after each record that comes later and is accepted.
    OnTime,
    /// After each record, and once more at the close.
    OnUpdate,
}

impl Emit {
    /// The bool field at the end of the rows that tells them apart: `refinement` is true for those after the
    /// window's end, `final` for that of the close.
    pub fn mark(self) -> Option<&'static str> {
        match self {
            Emit::OnClose => None,
            Emit::OnTime => Some("refinement"),
            Emit::OnUpdate => Some("final"),
        }
    }
}

/// What becomes of a late record; it is counted in any case.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Late {
    /// Left out.
    #[default]
    Drop,
    /// Written to this topic.
    Topic(String),
}

/// One aggregate of a window.
#[derive(Clone, Debug)]
pub struct AggregatePlan {
    /// The output field.
    pub name: String,
    /// What is computed.
    pub function: AggregateFunction,
    /// Of what; `None` only for a count of rows.
    pub argument: Option<Arc<Expression>>,
    /// What `min_by` and `max_by` compare.
    pub by: Option<Arc<Expression>>,
    /// Only rows for which this is true count.
    pub condition: Option<Arc<Expression>>,
    /// The output's type.
    pub ty: Type,
}

/// The aggregate functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AggregateFunction {
    /// `count()` counts rows, `count(x)` those whose x is not null.
    Count,
    /// Of ints (exact, or an overflow error) or doubles (folded in offset order).
    Sum,
    /// The least by value: int, double, timestamp, duration or string.
    Min,
    /// The greatest by value.
    Max,
    /// Of ints or doubles; a double.
    Avg,
    /// Of a sample: divided by one less than the count; null over fewer than two values. A double.
    Variance,
    /// Of a population: divided by the count. A double.
    VariancePop,
    /// The square root of [`Variance`](AggregateFunction::Variance).
    Stddev,
    /// The square root of [`VariancePop`](AggregateFunction::VariancePop).
    StddevPop,
    /// The value with the least event time; of several the first that came.
    First,
    /// The value with the greatest event time; of several the last that came.
    Last,
    /// The value of the row in which another one is the least; of several the one with the least event time, of
    /// those the first that came.
    MinBy,
    /// The same of the greatest.
    MaxBy,
}

/// A sink.
#[derive(Debug)]
pub struct SinkPlan {
    /// Its id in the file.
    pub id: String,
    /// The stream that it writes.
    pub input: StreamRef,
    /// The topic that it writes to.
    pub topic: String,
    /// Created if it is missing and this is given.
    pub create: Option<CreateTopic>,
    /// The slots of the key, in declared order; empty: records without a key.
    pub key: Vec<usize>,
    /// What becomes of rows that cannot be written.
    pub on_error: OnError,
}

impl Plan {
    /// The schema of a stream.
    pub fn stream_schema(&self, stream: StreamRef) -> Schema {
        match stream {
            StreamRef::Source(i) => self.sources[i].schema.schema(),
            StreamRef::Operator(i) => self.operators[i].schema.clone(),
        }
    }

    /// The source whose records a stream is made of: the stage that it belongs to.
    pub fn stage_of(&self, mut stream: StreamRef) -> usize {
        loop {
            match stream {
                StreamRef::Source(i) => return i,
                StreamRef::Operator(i) => stream = self.operators[i].input,
            }
        }
    }
}
