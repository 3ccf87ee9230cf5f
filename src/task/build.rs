//! From a checked topology to the operators of a task.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::format::json::Encoder;
use crate::operator::{
    Branch, Deduplicate, DeduplicateSpec, EarlyRecords, EmitRows, ErrorPolicy, Exchange, Filter, Firing,
    FlatMap, GlobalWindowOperator, GlobalWindowSpec, JsonRows, Lag, LagSpec, LateRecords, Map, MergedRows,
    Operator, OutputTarget, PartialRows, Pipeline, PipelineFactory, Readers, Repartition, RepartitionSource,
    RowAggregates, RowChoice, RowCondition, RowFilter, RowFlatMap, RowGap, RowKey, RowLag, RowMap,
    RowResults, RowTransfer, RowWriter, Sink, Source, Timing, Transfer, WindowSpec, local_row_windows,
    row_trigger, row_windows,
};
use crate::record::{Dynamic, Schema};
use crate::topology::plan::{
    Emit, EventTimePlan, Late, MapSlot, OnError, OperatorKind, OperatorPlan, Phase, Plan, RepartitionPlan,
    Route, SinkPlan, StageInput, StreamRef, WindowPlan,
};

/// The topics that an application writes to, by name.
pub type Targets = BTreeMap<String, Arc<OutputTarget>>;

/// A topic that the topology writes to is not among the targets.
#[derive(Clone, Debug, thiserror::Error)]
#[error("topic {0} is written to, but is not known")]
pub struct BuildError(String);

/// Makes the pipelines of the tasks of the stage with this number; `tasks` says how many each stage has.
///
/// # Errors
/// If `targets` lacks a topic that the topology writes to.
pub fn pipeline_factory(
    plan: Arc<Plan>,
    stage: usize,
    targets: Arc<Targets>,
    tasks: Arc<[i32]>,
) -> Result<PipelineFactory, BuildError> {
    // Built once, so that a missing target shows before anything runs; the closure cannot fail then.
    build(&plan, stage, &targets, &tasks)?;
    Ok(Arc::new(move || match build(&plan, stage, &targets, &tasks) {
        Ok(pipeline) => pipeline,
        Err(error) => unreachable!("{error}, although it was when the factory was made"),
    }))
}

fn build(
    plan: &Plan,
    stage: usize,
    targets: &Targets,
    tasks: &[i32],
) -> Result<Box<dyn Pipeline>, BuildError> {
    let mut builder = Builder { plan, targets, exchanges: Vec::new() };
    let head = plan.head_of(stage);
    let readers = builder.readers(head, &Route { stage, name: plan.stream_id(head).to_owned() })?;
    let readers = Readers::new(readers);
    match plan.stages().nth(stage) {
        Some(StageInput::Source(source)) => {
            let timing = Timing {
                max_out_of_orderness_ms: source.event_time.max_out_of_orderness_ms,
                punctuated: source.event_time.punctuated.is_some(),
                max_ahead_ms: source.event_time.max_ahead_ms,
            };
            let errors = builder.errors(&source.id, &source.on_error)?;
            let EventTimePlan { time, punctuated, .. } = source.event_time.clone();
            let rows = JsonRows::new(&source.schema, time, punctuated);
            let pipeline = Source::<Dynamic, _>::new(rows, timing, errors, readers);
            Ok(Box::new(pipeline.with_exchanges(builder.exchanges)))
        }
        Some(StageInput::Repartition(repartition)) => {
            let routes = plan.routes(repartition.input).into_iter();
            let streams: Vec<(Arc<str>, i32)> =
                routes.map(|route| (route.name.into(), tasks[route.stage])).collect();
            let rows = RowTransfer::new(&repartition.schema);
            let source = RepartitionSource::<Dynamic, _>::new(rows, &streams, readers, builder.exchanges);
            let asked = plan.carried_by(stage - plan.sources.len());
            Ok(Box::new(source.needing_records(asked.by_expression)))
        }
        None => unreachable!("there is no stage {stage}"),
    }
}

struct Builder<'p> {
    plan: &'p Plan,
    targets: &'p Targets,
    /// The ways to other stages that were met, in the order of their places.
    exchanges: Vec<Arc<Exchange>>,
}

impl Builder<'_> {
    fn target(&self, topic: &str) -> Result<Arc<OutputTarget>, BuildError> {
        self.targets.get(topic).cloned().ok_or_else(|| BuildError(topic.to_owned()))
    }

    fn errors(&self, id: &str, on_error: &OnError) -> Result<ErrorPolicy, BuildError> {
        Ok(match on_error {
            OnError::Fail => ErrorPolicy::fail(id),
            OnError::Skip => ErrorPolicy::skip(id),
            OnError::DeadLetter(topic) => ErrorPolicy::dead_letter(id, self.target(topic)?),
        })
    }

    fn late(&self, late: &Late) -> Result<LateRecords, BuildError> {
        Ok(match late {
            Late::Drop => LateRecords::Drop,
            Late::Topic(topic) => LateRecords::Write(self.target(topic)?),
        })
    }

    /// What reads a stream of whose rows these come on `route`. What is behind a union is made for each of its inputs:
    /// nothing there has state.
    fn readers(
        &mut self,
        stream: StreamRef,
        route: &Route,
    ) -> Result<Vec<Box<dyn Operator<Dynamic>>>, BuildError> {
        let plan = self.plan;
        let schema = plan.stream_schema(stream);
        let mut readers: Vec<Box<dyn Operator<Dynamic>>> = Vec::new();
        for (index, operator) in plan.operators.iter().enumerate() {
            let Some(place) = operator.inputs.iter().position(|input| *input == stream) else { continue };
            match &operator.kind {
                OperatorKind::Union { slots } => {
                    let behind =
                        self.readers(StreamRef::Operator(index), &route.through(plan.stream_id(stream)))?;
                    readers.extend(in_order_of_slots(&slots[place], &schema, &operator.id, behind));
                }
                _ => readers.push(self.operator(index, operator, &schema, route)?),
            }
        }
        for (index, repartition) in plan.repartitions.iter().enumerate() {
            if repartition.input == stream {
                readers.push(self.repartition(index, repartition, &schema, route)?);
            }
        }
        for sink in &plan.sinks {
            if sink.input == stream {
                readers.push(self.sink(sink, &schema)?);
            }
        }
        Ok(readers)
    }

    fn operator(
        &mut self,
        index: usize,
        operator: &OperatorPlan,
        input: &Schema,
        route: &Route,
    ) -> Result<Box<dyn Operator<Dynamic>>, BuildError> {
        if let OperatorKind::Branch { conditions, otherwise } = &operator.kind {
            let conditions = conditions.clone();
            let choice =
                RowChoice { conditions, otherwise: *otherwise, encoder: Arc::new(Encoder::new(input)) };
            let errors = self.errors(&operator.id, &operator.on_error)?;
            let outputs = self.plan.outputs(index).into_iter();
            let branches =
                outputs.map(|output| self.readers(StreamRef::Operator(output), route).map(Readers::new));
            let branches = branches.collect::<Result<Vec<_>, _>>()?;
            return Ok(Box::new(Branch::<Dynamic, _>::new(choice, errors, branches)));
        }
        let readers = Readers::new(self.readers(StreamRef::Operator(index), route)?);
        let errors = self.errors(&operator.id, &operator.on_error)?;
        let encoder = Arc::new(Encoder::new(input));
        Ok(match &operator.kind {
            OperatorKind::Filter { predicate } => {
                Box::new(Filter::new(RowFilter { predicate: predicate.clone(), encoder }, errors, readers))
            }
            OperatorKind::Map { slots } => {
                Box::new(Map::new(RowMap { slots: slots.clone(), encoder }, errors, readers))
            }
            OperatorKind::Window(window) if window.phase == Phase::Local => {
                let aggregates = || RowAggregates::of(window);
                let results = PartialRows::new(&operator.schema, aggregates());
                let keys = row_key(&window.key, input, encoder);
                local_row_windows(&window.windows, keys, aggregates(), results, errors, readers)
                    .unwrap_or_else(|| unreachable!("windows of two steps have panes"))
            }
            OperatorKind::FlatMap(plan) => {
                let names = operator.schema.fields[plan.kept.len()..].iter().map(|field| field.name.clone());
                let function = RowFlatMap::new(plan.clone(), names.collect(), encoder);
                Box::new(FlatMap::new(function, errors, readers))
            }
            OperatorKind::Window(window) => self.window(operator, window, input, encoder, errors, readers)?,
            OperatorKind::GlobalWindow(window) => {
                let spec = GlobalWindowSpec {
                    id: operator.id.as_str().into(),
                    fingerprint: operator.fingerprint().unwrap_or_default(),
                    ttl_ms: window.ttl_ms,
                };
                let aggregates = || RowAggregates::new(window.aggregates.clone()).in_panes(window.panes());
                let results = RowResults::new(&operator.schema, window.key.len(), aggregates(), Vec::new());
                let functions = (row_key(&window.key, input, encoder), aggregates(), results);
                let trigger = row_trigger(&window.trigger);
                Box::new(GlobalWindowOperator::new(spec, trigger, functions, errors, readers))
            }
            OperatorKind::Deduplicate(deduplicate) => {
                let spec = DeduplicateSpec {
                    id: operator.id.as_str().into(),
                    fingerprint: operator.fingerprint().unwrap_or_default(),
                    within_ms: deduplicate.within_ms,
                    late: self.late(&deduplicate.late)?,
                };
                let keys = row_key(&deduplicate.key, input, encoder);
                Box::new(Deduplicate::new(spec, keys, errors, readers))
            }
            OperatorKind::Lag(lag) => {
                let spec = LagSpec {
                    id: operator.id.as_str().into(),
                    fingerprint: operator.fingerprint().unwrap_or_default(),
                    ttl_ms: lag.ttl_ms,
                };
                let names =
                    operator.schema.fields[input.fields.len()..].iter().map(|field| field.name.clone());
                let function = RowLag::new(names.zip(lag.values.iter().cloned()).collect());
                Box::new(Lag::new(spec, row_key(&lag.key, input, encoder), function, errors, readers))
            }
            OperatorKind::Branch { .. } | OperatorKind::Output { .. } | OperatorKind::Union { .. } => {
                unreachable!("it is what is behind it")
            }
        })
    }

    fn window(
        &self,
        operator: &OperatorPlan,
        window: &WindowPlan,
        input: &Schema,
        encoder: Arc<Encoder>,
        errors: ErrorPolicy,
        readers: Readers<Dynamic>,
    ) -> Result<Box<dyn Operator<Dynamic>>, BuildError> {
        let spec = WindowSpec {
            id: operator.id.as_str().into(),
            fingerprint: operator.fingerprint().unwrap_or_default(),
            windows: (),
            time: window.time,
            allowed_lateness_ms: window.allowed_lateness_ms,
            emit: match window.emit {
                Emit::OnClose => EmitRows::OnClose,
                Emit::OnTime => EmitRows::OnTime,
                Emit::OnUpdate => EmitRows::OnUpdate,
            },
            changelog: window.changelog,
            early: window.early,
            late: self.late(&window.late)?,
        };
        let keys = row_key(&window.key, input, encoder);
        let windows = (window.windows.clone(), window.gap.clone().map(RowGap));
        let mark = match window.emit {
            _ if window.changelog => None,
            Emit::OnClose => None,
            Emit::OnTime => Some(Firing::Refinement),
            Emit::OnUpdate => Some(Firing::Close),
        };
        let early = window.early.filter(|_| !window.changelog);
        let marks = early.map(|_| Firing::Early).into_iter().chain(mark).collect();
        let aggregates = RowAggregates::of(window);
        let results = RowResults::new(&operator.schema, window.key.len(), aggregates, marks);
        let aggregates = RowAggregates::of(window);
        let when = window.early_when.clone().map(RowCondition);
        let early = EarlyRecords { when: when.map(|when| Box::new(when) as Box<_>), purge: window.purge };
        let early = (early, window.refine_every_ms);
        Ok(match window.phase {
            Phase::Global => {
                let aggregates = MergedRows::new(aggregates);
                row_windows(windows, early, spec, (keys, aggregates, results), errors, readers)
            }
            Phase::Whole | Phase::Local => {
                row_windows(windows, early, spec, (keys, aggregates, results), errors, readers)
            }
        })
    }

    fn repartition(
        &mut self,
        index: usize,
        repartition: &RepartitionPlan,
        schema: &Schema,
        route: &Route,
    ) -> Result<Box<dyn Operator<Dynamic>>, BuildError> {
        let rows = RowTransfer::new(schema);
        let exchange = Arc::new(Exchange {
            target: self.target(&self.plan.repartition_topic(repartition))?,
            stream: route.name.as_str().into(),
            layout: rows.layout().clone(),
            carried: self.plan.carried_by(index).carried,
        });
        let place = self.exchanges.len();
        self.exchanges.push(exchange.clone());
        let keys = row_key(&repartition.key, schema, Arc::new(Encoder::new(schema)));
        let errors = self.errors(&repartition.id, &repartition.on_error)?;
        Ok(Box::new(Repartition::new(exchange, place, keys, rows, errors)))
    }

    fn sink(&self, sink: &SinkPlan, schema: &Schema) -> Result<Box<dyn Operator<Dynamic>>, BuildError> {
        let key = sink
            .key
            .iter()
            .map(|slot| (schema.fields[*slot].name.clone(), schema.fields[*slot].form, *slot))
            .collect();
        let writer = RowWriter { encoder: Arc::new(Encoder::new(schema)), key };
        let errors = self.errors(&sink.id, &sink.on_error)?;
        Ok(Box::new(Sink::new(writer, self.target(&sink.topic)?, errors)))
    }
}

/// Readers of rows whose slots come in this order in rows of `schema`.
fn in_order_of_slots(
    slots: &[usize],
    schema: &Schema,
    id: &str,
    readers: Vec<Box<dyn Operator<Dynamic>>>,
) -> Vec<Box<dyn Operator<Dynamic>>> {
    if slots.iter().copied().eq(0..schema.fields.len()) {
        return readers;
    }
    let slots = slots.iter().map(|slot| MapSlot::Input(*slot)).collect();
    let map = RowMap { slots, encoder: Arc::new(Encoder::new(schema)) };
    // Copying slots cannot fail.
    vec![Box::new(Map::new(map, ErrorPolicy::fail(id), Readers::new(readers)))]
}

fn row_key(slots: &[usize], schema: &Schema, encoder: Arc<Encoder>) -> RowKey {
    let fields = slots.iter().map(|slot| (schema.fields[*slot].name.clone(), *slot)).collect();
    RowKey { fields, encoder }
}
