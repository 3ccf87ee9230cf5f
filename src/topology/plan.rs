//! A checked topology: what the engine is built from.

mod aggregate;
mod global;

use std::sync::Arc;

use crate::expression::Expression;
use crate::record::{Schema, SourceSchema, Type};
use crate::window::{AlignedWindows, Calendar, EarlyFiring, SessionWindows, TimeDomain};

pub use aggregate::{AggregateFunction, AggregatePlan, Parameter};
pub use global::{FiresPlan, GlobalWindowPlan, TriggerPlan};

/// A topology whose names, types and keys have been checked.
#[derive(Debug)]
pub struct Plan {
    /// The application: its consumer group and the prefix of the topics that it owns.
    pub name: String,
    /// In the order of the file.
    pub sources: Vec<SourcePlan>,
    /// In an order in which each comes after its input.
    pub operators: Vec<OperatorPlan>,
    /// In an order in which each comes after those that its input comes from.
    pub repartitions: Vec<RepartitionPlan>,
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
    /// The rows of another stream as they come out of the topic of `repartitions[i]`.
    Repartition(usize),
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
    /// How its partitions wait for one another, and for those of other sources.
    pub alignment: Option<Alignment>,
    /// What becomes of records that cannot be decoded or dated.
    pub on_error: OnError,
}

/// How a source is aligned with others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alignment {
    /// The sources of one group wait for one another.
    pub group: Arc<str>,
    /// A partition whose watermark is further ahead of the group's least one is not read.
    pub max_drift_ms: i64,
}

/// What dates a record.
#[derive(Clone, Debug)]
pub enum EventTime {
    /// Its Kafka timestamp.
    Record,
    /// The timestamp in this slot.
    Field(usize),
    /// The value of an expression of type timestamp.
    Expression(Arc<Expression>),
}

/// A source's event time and watermark.
#[derive(Clone, Debug)]
pub struct EventTimePlan {
    /// What dates a record.
    pub time: EventTime,
    /// Only records for which this is true carry a watermark; `None`: all do.
    pub punctuated: Option<Arc<Expression>>,
    /// How far behind the newest event time the watermark stays.
    pub max_out_of_orderness_ms: i64,
    /// An event time further after the record's Kafka timestamp than this is an error.
    pub max_ahead_ms: i64,
    /// When a partition has had no records for so long, the stages behind a change of keys do not wait for it; `None`:
    /// they always do.
    pub idle_timeout_ms: Option<i64>,
}

/// An operator.
#[derive(Debug)]
pub struct OperatorPlan {
    /// Its id in the file: the identity of its state.
    pub id: String,
    /// The streams that it reads: one, but of a union.
    pub inputs: Vec<StreamRef>,
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
    /// Makes a row of each element of lists.
    FlatMap(FlatMapPlan),
    /// Passes each row to the first branch whose condition is true. Its [outputs](OperatorKind::Output) read it, and
    /// nothing else.
    Branch {
        /// Of type bool, perhaps null.
        conditions: Vec<Arc<Expression>>,
        /// Whether there is one more branch, for rows of which no condition is true.
        otherwise: bool,
    },
    /// Passes the rows of a branch.
    Output {
        /// Its number among the branches of the operator that it reads.
        branch: usize,
    },
    /// Passes the rows of all of its inputs.
    Union {
        /// For each input, the slot that each of the output's fields has there.
        slots: Vec<Vec<usize>>,
    },
    /// Groups rows by key and time and aggregates them.
    Window(WindowPlan),
    /// Groups rows by key and their number, or another condition, and aggregates them.
    GlobalWindow(GlobalWindowPlan),
    /// Drops the rows that repeat another one of their key.
    Deduplicate(DeduplicatePlan),
    /// Adds to each row what expressions had in the row of its key before it.
    Lag(LagPlan),
}

impl OperatorKind {
    /// What becomes of late rows; `None` if it calls none late.
    pub fn late(&self) -> Option<&Late> {
        match self {
            OperatorKind::Window(window) => Some(&window.late),
            OperatorKind::Deduplicate(deduplicate) => Some(&deduplicate.late),
            _ => None,
        }
    }

    /// The topic that takes late rows.
    pub fn late_topic(&self) -> Option<&str> {
        match self.late() {
            Some(Late::Topic(topic)) => Some(topic),
            Some(Late::Drop) | None => None,
        }
    }
}

/// How a map makes a slot.
#[derive(Clone, Debug)]
pub enum MapSlot {
    /// A copy of this input slot.
    Input(usize),
    /// The value of an expression on the input row.
    Expression(Arc<Expression>),
}

/// Which rows are made of a row with lists. Theirs are the fields that are kept, then one for each of the lists, then
/// perhaps the element's place.
#[derive(Clone, Debug)]
pub struct FlatMapPlan {
    /// The input's slots that are kept, in ascending order.
    pub kept: Vec<usize>,
    /// Of type list, in declared order; at least one.
    pub each: Vec<Arc<Expression>>,
    /// Whether the last field is the place of the element, from 0.
    pub position: bool,
    /// Whether a row without elements makes one with nulls in their place.
    pub outer: bool,
}

/// A keyed window. Its rows: the key fields, `window_start`, `window_end`, the aggregates, and perhaps
/// [marks](WindowPlan::marks).
#[derive(Debug)]
pub struct WindowPlan {
    /// The input slots of the key, in declared order.
    pub key: Vec<usize>,
    /// Which windows there are.
    pub windows: Windows,
    /// Of sessions of rows with their own gaps: the gap, of type duration.
    pub gap: Option<Arc<Expression>>,
    /// Whose time they are cut from.
    pub time: TimeDomain,
    /// How long after its end a window still takes records.
    pub allowed_lateness_ms: i64,
    /// In declared order.
    pub aggregates: Vec<AggregatePlan>,
    /// When rows are emitted.
    pub emit: Emit,
    /// Whether they are a changelog.
    pub changelog: bool,
    /// When rows are emitted of windows that are not over.
    pub early: Option<EarlyFiring>,
    /// After which rows of the input, if it is for those to say: an expression of type bool.
    pub early_when: Option<Arc<Expression>>,
    /// Whether a window begins anew with each row that it makes before it closes.
    pub purge: bool,
    /// How often by the clock refinements are emitted; `None`: after each row.
    pub refine_every_ms: Option<i64>,
    /// What becomes of late records.
    pub late: Late,
    /// Which step of the aggregation this is.
    pub phase: Phase,
}

/// A step of an aggregation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Phase {
    /// The only one: of rows results are made.
    #[default]
    Whole,
    /// The first of two: what a task's rows of a key and pane came to since the last checkpoint goes to the task of the
    /// key. Its rows: the key fields, and the accumulators, of type bytes.
    Local,
    /// The second: of those results are made.
    Global,
}

impl WindowPlan {
    /// Whether the number of rows is kept beside the aggregates.
    pub fn counts_rows(&self) -> bool {
        // Of a value that comes late it is known how many rows it stands for.
        let in_steps = self.phase != Phase::Whole;
        in_steps || self.purge || matches!(self.early, Some(EarlyFiring::EveryRows(_)))
    }

    /// Whether its rows are a changelog that tells not after each update what has changed, so that what was told is kept.
    pub fn tells_later(&self) -> bool {
        self.changelog && (self.early.is_some() || self.refine_every_ms.is_some())
    }

    /// The fields at the end of the rows that tell them apart.
    pub fn marks(&self) -> impl Iterator<Item = (&'static str, Type)> {
        marks(self.emit, self.early, self.changelog)
    }
}

/// The fields at the end of a window's rows that tell them apart.
pub fn marks(
    emit: Emit,
    early: Option<EarlyFiring>,
    changelog: bool,
) -> impl Iterator<Item = (&'static str, Type)> {
    let marks = early.map(|_| EARLY_MARK).into_iter().chain(emit.mark()).filter(move |_| !changelog);
    changelog.then_some((OP_FIELD, Type::String)).into_iter().chain(marks.map(|mark| (mark, Type::Bool)))
}

/// The field that says what a row of a changelog does.
pub const OP_FIELD: &str = "op";

/// The bool field that is true for rows of windows that are not over.
pub const EARLY_MARK: &str = "early";

/// A deduplication: a row passes unless one of its key has passed that is less than a length away in event time. Its
/// rows are those of its input.
#[derive(Debug)]
pub struct DeduplicatePlan {
    /// The slots of the key, in declared order.
    pub key: Vec<usize>,
    /// The length.
    pub within_ms: i64,
    /// What becomes of late records.
    pub late: Late,
}

/// What rows get of the one before them in their key. The rows: the input's fields, then one for each expression.
#[derive(Debug)]
pub struct LagPlan {
    /// The slots of the key, in declared order.
    pub key: Vec<usize>,
    /// On the input's rows, in declared order.
    pub values: Vec<Arc<Expression>>,
    /// How long a key is remembered after the greatest event time of its rows; `None`: for ever.
    pub ttl_ms: Option<i64>,
}

/// Which windows there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Windows {
    /// Those of the clock.
    Aligned(AlignedWindows),
    /// The units of a time zone's calendar.
    Calendar(Calendar),
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

/// A change of keys: a stream that goes through a topic of the engine's own, so that all rows of a key meet in one
/// task.
#[derive(Debug)]
pub struct RepartitionPlan {
    /// The id of the operator that needs it: the stage behind it is called so.
    pub id: String,
    /// The stream.
    pub input: StreamRef,
    /// Its rows.
    pub schema: Schema,
    /// The slots of the key, in declared order.
    pub key: Vec<usize>,
    /// How many partitions the topic gets; `None`: as many as those have that the stream comes from.
    pub partitions: Option<i32>,
    /// What becomes of rows that cannot be sent: their key is null, or they are too large.
    pub on_error: OnError,
}

impl RepartitionPlan {
    /// The key, for people and to be compared with: its form never changes.
    pub fn key_text(&self) -> String {
        let field =
            |slot: &usize| format!("{}: {}", self.schema.fields[*slot].name, self.schema.fields[*slot].ty);
        self.key.iter().map(field).collect::<Vec<_>>().join(", ")
    }
}

/// A way on which rows come to a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The stage that they come from, by its place among the [stages](Plan::stages).
    pub stage: usize,
    /// The id of that stage, and of each input by which a union was entered, with `/` between them.
    pub name: String,
}

impl Route {
    /// The way on through a union, by the input with this id.
    pub fn through(&self, input: &str) -> Route {
        Route { stage: self.stage, name: format!("{}/{input}", self.name) }
    }
}

/// Where a stage takes its records from.
#[derive(Clone, Copy, Debug)]
pub enum StageInput<'p> {
    /// A source.
    Source(&'p SourcePlan),
    /// A repartition topic.
    Repartition(&'p RepartitionPlan),
}

impl<'p> StageInput<'p> {
    /// The stage's id.
    pub fn id(self) -> &'p str {
        match self {
            StageInput::Source(source) => &source.id,
            StageInput::Repartition(repartition) => &repartition.id,
        }
    }
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
    /// How many operators the file has: a branch is none by itself, nor is the first step of an aggregation.
    pub fn operator_count(&self) -> usize {
        let is_part = |kind: &OperatorKind| match kind {
            OperatorKind::Output { .. } => true,
            OperatorKind::Window(window) => window.phase == Phase::Local,
            _ => false,
        };
        self.operators.iter().filter(|operator| !is_part(&operator.kind)).count()
    }

    /// The outputs of the operator with this place, which splits its rows, in the order of its branches.
    pub fn outputs(&self, operator: usize) -> Vec<usize> {
        let reads = |output: &OperatorPlan| output.inputs.first() == Some(&StreamRef::Operator(operator));
        let outputs = self.operators.iter().enumerate().filter_map(|(place, output)| match output.kind {
            OperatorKind::Output { branch } if reads(output) => Some((branch, place)),
            _ => None,
        });
        let mut outputs: Vec<(usize, usize)> = outputs.collect();
        outputs.sort_unstable();
        outputs.into_iter().map(|(_, place)| place).collect()
    }

    /// The schema of a stream.
    pub fn stream_schema(&self, stream: StreamRef) -> Schema {
        match stream {
            StreamRef::Source(i) => self.sources[i].schema.schema(),
            StreamRef::Operator(i) => self.operators[i].schema.clone(),
            StreamRef::Repartition(i) => self.repartitions[i].schema.clone(),
        }
    }

    /// What each stage reads: first the sources, then the repartition topics.
    pub fn stages(&self) -> impl Iterator<Item = StageInput<'_>> {
        let sources = self.sources.iter().map(StageInput::Source);
        sources.chain(self.repartitions.iter().map(StageInput::Repartition))
    }

    /// The stream that a stage begins with.
    pub fn head_of(&self, stage: usize) -> StreamRef {
        match stage.checked_sub(self.sources.len()) {
            None => StreamRef::Source(stage),
            Some(repartition) => StreamRef::Repartition(repartition),
        }
    }

    /// The ways on which rows come to a stream from the topics of stages: one, unless unions lie between.
    pub fn routes(&self, stream: StreamRef) -> Vec<Route> {
        let operator = match stream {
            StreamRef::Source(i) => return vec![Route { stage: i, name: self.sources[i].id.clone() }],
            StreamRef::Repartition(i) => {
                let name = self.repartitions[i].id.clone();
                return vec![Route { stage: self.sources.len() + i, name }];
            }
            StreamRef::Operator(i) => &self.operators[i],
        };
        let mut routes = Vec::new();
        for input in &operator.inputs {
            let through = self.routes(*input).into_iter().map(|route| match operator.kind {
                OperatorKind::Union { .. } => route.through(self.stream_id(*input)),
                _ => route,
            });
            routes.extend(through);
        }
        routes
    }

    /// Whether rows of a stage come to a stream without a change of keys; the stage by its place among the
    /// [stages](Plan::stages).
    pub fn is_of_stage(&self, stream: StreamRef, stage: usize) -> bool {
        self.routes(stream).iter().any(|route| route.stage == stage)
    }

    /// The changes of keys that a stage ends with.
    pub fn sends_of(&self, stage: usize) -> impl Iterator<Item = &RepartitionPlan> {
        self.repartitions.iter().filter(move |repartition| self.is_of_stage(repartition.input, stage))
    }

    /// How many partitions a new repartition topic gets, if each stage has so many tasks.
    pub fn partitions_of(&self, repartition: &RepartitionPlan, tasks: &[i32]) -> i32 {
        let before = self.routes(repartition.input).into_iter().map(|route| tasks[route.stage]);
        repartition.partitions.or_else(|| before.max()).unwrap_or(1)
    }

    /// A stream's id.
    pub fn stream_id(&self, stream: StreamRef) -> &str {
        match stream {
            StreamRef::Source(i) => &self.sources[i].id,
            StreamRef::Operator(i) => &self.operators[i].id,
            StreamRef::Repartition(i) => &self.repartitions[i].id,
        }
    }

    /// The name of the topic that a stage reads.
    pub fn topic_of(&self, stage: StageInput<'_>) -> String {
        match stage {
            StageInput::Source(source) => source.topic.clone(),
            StageInput::Repartition(repartition) => self.repartition_topic(repartition),
        }
    }

    /// The name of a repartition topic.
    pub fn repartition_topic(&self, repartition: &RepartitionPlan) -> String {
        format!("thalweg.{}.{}.repartition", self.name, repartition.id)
    }
}
