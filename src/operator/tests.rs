//! The operators, each by itself; [`conformance`](super::conformance) has what holds for all of them.

mod across;
mod anew;
mod branch;
mod calendar;
pub(super) mod changelog;
mod deduplicate;
mod early;
mod errors;
mod flat_map;
mod global;
mod lag;
mod matrix;
mod processing;
mod refining;
mod repartition;
mod session;
mod told;
mod two_phase;
mod window;

pub(super) use branch::branches;
pub(super) use flat_map::each_of;
pub(super) use window::{number, numbers};

use std::sync::Arc;

use bumpalo::Bump;

use super::*;
use crate::expression::{Expression, Scope};
use crate::format::json::Encoder;
use crate::record::{
    Dynamic, Field, FieldForm, OutputRecord, Records, Schema, SourceField, SourceRecord, SourceSchema,
    TopicPartition, Type,
};
use crate::state::apply::Applier;
use crate::state::codec::DeltaWriter;
use crate::state::header::{Header, OperatorState};
use crate::state::memory::MemoryStores;
use crate::state::store::StoreFactory;
use crate::topology::plan::{
    AggregateFunction, AggregatePlan, EventTime, FiresPlan, FlatMapPlan, MapSlot, Parameter, TriggerPlan,
    Windows,
};
use crate::window::{AlignedWindows, EarlyFiring, SessionWindows, TimeDomain};
pub(super) use calendar::days;

/// A record of the topic `orders`.
#[derive(Clone, Debug, Default)]
pub(super) struct Input {
    pub offset: i64,
    pub timestamp_ms: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// Records of `orders[1]`.
pub(super) struct Batch {
    partition: TopicPartition,
    inputs: Vec<Input>,
}

impl Batch {
    pub(super) fn new(inputs: Vec<Input>) -> Batch {
        Batch { partition: TopicPartition::new("orders", 1), inputs }
    }
}

impl Records for Batch {
    fn topic_partition(&self) -> &TopicPartition {
        &self.partition
    }
    fn len(&self) -> usize {
        self.inputs.len()
    }
    fn bytes(&self) -> usize {
        0
    }
    fn record(&self, index: usize) -> SourceRecord<'_> {
        let input = &self.inputs[index];
        let (key, value) = (input.key.as_deref(), input.value.as_deref());
        SourceRecord {
            offset: input.offset,
            timestamp_ms: input.timestamp_ms,
            key,
            value,
            records: self,
            index,
        }
    }
    fn headers<'b>(&'b self, index: usize, visit: &mut dyn FnMut(&'b str, Option<&'b [u8]>)) {
        self.inputs[index].headers.iter().for_each(|(name, value)| visit(name, value.as_deref()));
    }
}

/// An order of `customer` at `at_ms`, whose key is the customer.
pub(super) fn order(customer: &str, amount: &str, at_ms: i64) -> Input {
    let value = format!(r#"{{"customer":"{customer}","amount":{amount},"at":{at_ms}}}"#);
    Input {
        key: Some(customer.as_bytes().to_vec()),
        value: Some(value.into_bytes()),
        timestamp_ms: at_ms,
        ..Input::default()
    }
}

fn field(name: &str, ty: Type, nullable: bool) -> Field {
    Field { name: name.into(), ty, nullable, form: FieldForm::Plain }
}

pub(super) fn source_schema() -> SourceSchema {
    let fields = [
        field("customer", Type::String, true),
        field("amount", Type::Int, true),
        field("price", Type::Double, true),
        field("at", Type::Timestamp, false),
    ];
    SourceSchema {
        fields: fields.map(|field| SourceField { path: vec![field.name.clone()], field }).to_vec(),
    }
}

pub(super) fn orders() -> Schema {
    source_schema().schema()
}

pub(super) fn expression(schema: &Schema, text: &str) -> Arc<Expression> {
    Arc::new(Expression::compile(text, &Scope { schema, meta: false }).unwrap())
}

pub(super) fn target(topic: &str) -> Arc<OutputTarget> {
    Arc::new(OutputTarget { topic: topic.into(), partitions: 3, record_bytes_max: 1 << 20 })
}

pub(super) fn rejected(operator: &str) -> ErrorPolicy {
    ErrorPolicy::dead_letter(operator, target("rejected"))
}

pub(super) type Reader = Box<dyn Operator<Dynamic>>;

pub(super) fn source(max_out_of_orderness_ms: i64, readers: Vec<Reader>) -> Box<dyn Pipeline> {
    let schema = source_schema();
    let timing = Timing { max_out_of_orderness_ms, punctuated: false, max_ahead_ms: 1_000 };
    let rows = JsonRows::new(&schema, EventTime::Field(3), None);
    Box::new(Source::<Dynamic, _>::new(rows, timing, rejected("orders"), Readers::new(readers)))
}

pub(super) fn filter(schema: &Schema, predicate: &str, errors: ErrorPolicy, readers: Vec<Reader>) -> Reader {
    let encoder = Arc::new(Encoder::new(schema));
    let predicate = expression(schema, predicate);
    Box::new(Filter::<Dynamic, _>::new(RowFilter { predicate, encoder }, errors, Readers::new(readers)))
}

/// Replaces the field `amount`.
pub(super) fn map_amount(schema: &Schema, amount: &str, readers: Vec<Reader>) -> Reader {
    let encoder = Arc::new(Encoder::new(schema));
    let mut slots: Vec<_> = (0..schema.fields.len()).map(MapSlot::Input).collect();
    slots[1] = MapSlot::Expression(expression(schema, amount));
    Box::new(Map::<Dynamic, Dynamic, _>::new(
        RowMap { slots, encoder },
        rejected("doubled"),
        Readers::new(readers),
    ))
}

/// Writes to `topic`, by the first field.
pub(super) fn sink(schema: &Schema, topic: &str) -> Reader {
    sink_to(schema, target(topic), rejected("written"))
}

pub(super) fn sink_to(schema: &Schema, target: Arc<OutputTarget>, errors: ErrorPolicy) -> Reader {
    let key = vec![(schema.fields[0].name.clone(), FieldForm::Plain, 0)];
    Box::new(Sink::new(RowWriter { encoder: Arc::new(Encoder::new(schema)), key }, target, errors))
}

/// Drops what repeats another row of the first field.
pub(super) fn deduplicate(
    schema: &Schema,
    within_ms: i64,
    late: LateRecords,
    readers: Vec<Reader>,
) -> Reader {
    let spec = DeduplicateSpec { id: "once".into(), fingerprint: "of a test".into(), within_ms, late };
    let (keys, readers) = (first_field(schema), Readers::new(readers));
    Box::new(Deduplicate::<Dynamic, _>::new(spec, keys, rejected("once"), readers))
}

pub(super) fn row_lag(schema: &Schema, values: &[&str]) -> RowLag {
    let values = values.iter().enumerate();
    RowLag::new(values.map(|(number, text)| (format!("before{number}"), expression(schema, text))).collect())
}

/// Adds what these expressions had in the row of the first field before; `readers` are those of its rows.
pub(super) fn lag(
    schema: &Schema,
    ttl_ms: Option<i64>,
    values: &[&str],
    readers: impl FnOnce(&Schema) -> Vec<Reader>,
) -> Reader {
    let mut rows = schema.clone();
    let types = values.iter().map(|text| expression(schema, text).ty()).enumerate();
    rows.fields.extend(types.map(|(number, ty)| field(&format!("before{number}"), ty, true)));
    let spec = LagSpec { id: "before".into(), fingerprint: "of a test".into(), ttl_ms };
    let (keys, readers) = (first_field(schema), Readers::new(readers(&rows)));
    Box::new(Lag::<Dynamic, Dynamic, _, _>::new(
        spec,
        keys,
        row_lag(schema, values),
        rejected("before"),
        readers,
    ))
}

/// A window of no time over the first field.
#[derive(Clone, Debug)]
pub(super) struct Gathered {
    pub trigger: TriggerPlan,
    pub ttl_ms: Option<i64>,
    pub aggregates: Vec<AggregatePlan>,
}

impl Gathered {
    /// With a count of rows.
    pub fn new(trigger: TriggerPlan) -> Gathered {
        let aggregates = vec![aggregate(&orders(), "rows", AggregateFunction::Count, None, Type::Int)];
        Gathered { trigger, ttl_ms: None, aggregates }
    }

    /// Of all rows of a key.
    pub fn global(fires: FiresPlan, purge: bool) -> Gathered {
        Gathered::new(TriggerPlan::Global { fires, purge })
    }

    pub fn schema(&self, input: &Schema) -> Schema {
        let mut fields = vec![input.fields[0].clone()];
        fields.extend(["window_start", "window_end"].map(|name| field(name, Type::Timestamp, false)));
        fields.extend(self.aggregates.iter().map(|plan| field(&plan.name, plan.ty, true)));
        if let TriggerPlan::Changelog = self.trigger {
            fields.push(field("op", Type::String, false));
        }
        Schema { fields }
    }

    pub fn reads(&self, input: &Schema, readers: Vec<Reader>) -> Reader {
        let (id, fingerprint) = ("gathered".into(), "of a test".into());
        let spec = GlobalWindowSpec { id, fingerprint, ttl_ms: self.ttl_ms };
        let panes = match &self.trigger {
            TriggerPlan::Count(windows) => windows.panes(),
            TriggerPlan::Global { .. } | TriggerPlan::Changelog => 1,
        };
        let aggregates = || RowAggregates::new(self.aggregates.clone()).in_panes(panes as usize);
        let results = RowResults::new(&self.schema(input), 1, aggregates(), Vec::new());
        let functions = (first_field(input), aggregates(), results);
        let trigger = row_trigger(&self.trigger);
        let operator =
            GlobalWindowOperator::new(spec, trigger, functions, rejected("gathered"), Readers::new(readers));
        Box::new(operator)
    }
}

fn first_field(schema: &Schema) -> RowKey {
    RowKey { fields: vec![(schema.fields[0].name.clone(), 0)], encoder: Arc::new(Encoder::new(schema)) }
}

pub(super) fn tumbling(size_ms: i64) -> Windows {
    Windows::Aligned(AlignedWindows::tumbling(size_ms))
}

pub(super) fn sliding(size_ms: i64, slide_ms: i64) -> Windows {
    Windows::Aligned(AlignedWindows::sliding(size_ms, slide_ms))
}

pub(super) fn session(gap_ms: i64) -> Windows {
    Windows::Session(SessionWindows::new(gap_ms))
}

/// A window over the first field.
#[derive(Clone, Debug)]
pub(super) struct Windowed {
    pub id: &'static str,
    pub windows: Windows,
    pub gap: Option<Arc<Expression>>,
    pub time: TimeDomain,
    pub allowed_lateness_ms: i64,
    pub emit: EmitRows,
    pub changelog: bool,
    pub early: Option<EarlyFiring>,
    pub early_when: Option<Arc<Expression>>,
    pub purge: bool,
    pub refine_every_ms: Option<i64>,
    pub late: LateRecords,
    pub aggregates: Vec<AggregatePlan>,
    /// Its rows hold accumulators, which it merges.
    pub merges: bool,
}

impl Windowed {
    /// Windows of ten milliseconds with a count of rows.
    pub fn new(id: &'static str) -> Windowed {
        let aggregates = vec![aggregate(&orders(), "rows", AggregateFunction::Count, None, Type::Int)];
        let (emit, late) = (EmitRows::OnClose, LateRecords::Drop);
        let windows = tumbling(10);
        let time = TimeDomain::Event;
        Windowed {
            id,
            windows,
            gap: None,
            time,
            allowed_lateness_ms: 0,
            emit,
            changelog: false,
            early: None,
            early_when: None,
            purge: false,
            refine_every_ms: None,
            late,
            aggregates,
            merges: false,
        }
    }

    pub fn schema(&self, input: &Schema) -> Schema {
        let mut fields = vec![input.fields[0].clone()];
        fields.push(field("window_start", Type::Timestamp, false));
        fields.push(field("window_end", Type::Timestamp, false));
        fields.extend(self.aggregates.iter().map(|plan| field(&plan.name, plan.ty, true)));
        if self.early.is_some() && !self.changelog {
            fields.push(field("early", Type::Bool, false));
        }
        match self.emit {
            _ if self.changelog => fields.push(field("op", Type::String, false)),
            EmitRows::OnClose => {}
            EmitRows::OnTime | EmitRows::OnUpdate => fields.push(field("mark", Type::Bool, false)),
        }
        Schema { fields }
    }

    pub fn reads(&self, input: &Schema, readers: Vec<Reader>) -> Reader {
        let spec = WindowSpec {
            time: self.time,
            id: self.id.into(),
            fingerprint: "of a test".into(),
            windows: (),
            allowed_lateness_ms: self.allowed_lateness_ms,
            emit: self.emit,
            changelog: self.changelog,
            early: self.early,
            late: self.late.clone(),
        };
        let mark = match self.emit {
            _ if self.changelog => None,
            EmitRows::OnClose => None,
            EmitRows::OnTime => Some(Firing::Refinement),
            EmitRows::OnUpdate => Some(Firing::Close),
        };
        let early = self.early.filter(|_| !self.changelog);
        let marks = early.map(|_| Firing::Early).into_iter().chain(mark).collect();
        let aggregates = || {
            let aggregates = RowAggregates::new(self.aggregates.clone());
            let aggregates = match self.early {
                Some(EarlyFiring::EveryRows(_)) => aggregates.counting_rows(),
                _ if self.merges || self.purge => aggregates.counting_rows(),
                _ => aggregates,
            };
            let tells_later = self.changelog && (self.early.is_some() || self.refine_every_ms.is_some());
            if tells_later { aggregates.keeping_told() } else { aggregates }
        };
        let results = RowResults::new(&self.schema(input), 1, aggregates(), marks);
        let key = first_field(input);
        let (errors, readers) = (rejected(self.id), Readers::new(readers));
        let windows = (self.windows.clone(), self.gap.clone().map(RowGap));
        let when = self.early_when.clone().map(|when| Box::new(RowCondition(when)) as Box<_>);
        let early = (EarlyRecords { when, purge: self.purge }, self.refine_every_ms);
        if self.merges {
            let merged = MergedRows::new(aggregates());
            return row_windows(windows, early, spec, (key, merged, results), errors, readers);
        }
        row_windows(windows, early, spec, (key, aggregates(), results), errors, readers)
    }
}

pub(super) fn aggregate(
    schema: &Schema,
    name: &str,
    function: AggregateFunction,
    argument: Option<&str>,
    ty: Type,
) -> AggregatePlan {
    let argument = argument.map(|text| expression(schema, text));
    let parameter = Parameter::None;
    AggregatePlan { name: name.into(), function, argument, by: None, condition: None, parameter, ty }
}

/// Gives every operator with state an empty store.
pub(super) fn start(pipeline: &mut dyn Pipeline) {
    let store = MemoryStores::new().open("task").unwrap();
    pipeline.visit(&mut |operator| operator.restore(store.clone(), None, 0).unwrap());
}

/// Ends a process after a checkpoint and has another one go on. `change` changes what operators saved.
pub(super) fn hand_over(from: &mut dyn Pipeline, to: &mut dyn Pipeline, change: impl Fn(&mut OperatorState)) {
    let (mut saved, mut delta) = (Vec::new(), DeltaWriter::new(1 << 20));
    from.visit(&mut |operator| {
        saved.push(operator.saved());
        operator.collect_ranges(&mut delta);
        operator.collect_points(1, &mut delta);
    });
    let store = MemoryStores::new().open("task").unwrap();
    let mut applier = Applier::new(store.clone(), [9; 16], 0, usize::MAX).unwrap();
    for record in delta.finish(&Header { checkpoint: 1, ..Header::default() }) {
        applier.push(0, &record).unwrap();
    }
    applier.finish(1).unwrap();
    saved.iter_mut().for_each(change);
    to.restore_time(from.time());
    to.visit(&mut |operator| {
        let saved = saved.iter().find(|saved| saved.id == operator.id());
        operator.restore(store.clone(), saved, 1).unwrap();
    });
}

/// Runs inputs through a pipeline without an end.
pub(super) fn run(mut pipeline: Box<dyn Pipeline>, inputs: Vec<Input>) -> Result<Staged, OperatorError> {
    start(&mut *pipeline);
    go_on(&mut *pipeline, inputs)
}

/// Runs more inputs through a pipeline.
pub(super) fn go_on(pipeline: &mut dyn Pipeline, inputs: Vec<Input>) -> Result<Staged, OperatorError> {
    let mut staged = Staged::new(usize::MAX, usize::MAX).of_partition(1);
    let batch = Batch::new(inputs);
    for index in 0..batch.len() {
        assert_eq!(pipeline.process(batch.record(index), &Bump::new(), &mut staged)?, Progress::Done);
    }
    Ok(staged)
}

/// What was written to a topic, as text.
pub(super) fn written(staged: &Staged, topic: &str) -> Vec<String> {
    let records = staged.outputs.iter().filter(|record| &*record.topic == topic);
    records.map(|record| String::from_utf8(record.value.clone().unwrap_or_default()).unwrap()).collect()
}

pub(super) fn header(record: &OutputRecord, name: &str) -> Option<String> {
    let found = record.headers.iter().find(|(header, _)| header == name)?;
    Some(String::from_utf8(found.1.clone()?).unwrap())
}
