//! From a checked topology to the operators of a task.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::format::json::Encoder;
use crate::operator::{
    EmitRows, ErrorPolicy, Filter, Firing, JsonRows, LateRecords, Map, Operator, OutputTarget,
    PipelineFactory, Readers, RowAggregates, RowFilter, RowKey, RowMap, RowResults, RowWriter, Sink, Source,
    Timing, WindowSpec, row_windows,
};
use crate::record::{Dynamic, Schema};
use crate::topology::plan::{
    Emit, Late, OnError, OperatorKind, OperatorPlan, Plan, SinkPlan, StreamRef, WindowPlan,
};

/// The topics that an application writes to, by name.
pub type Targets = BTreeMap<String, Arc<OutputTarget>>;

/// A topic that the topology writes to is not among the targets.
#[derive(Clone, Debug, thiserror::Error)]
#[error("topic {0} is written to, but is not known")]
pub struct BuildError(String);

/// Makes the pipelines of a stage's tasks: `stage` is the index of its source.
///
/// # Errors
/// If `targets` lacks a topic that the topology writes to.
pub fn pipeline_factory(
    plan: Arc<Plan>,
    stage: usize,
    targets: Arc<Targets>,
) -> Result<PipelineFactory, BuildError> {
    // Built once, so that a missing target shows before anything runs; the closure cannot fail then.
    build(&plan, stage, &targets)?;
    Ok(Arc::new(move || match build(&plan, stage, &targets) {
        Ok(pipeline) => pipeline,
        Err(error) => unreachable!("{error}, although it was when the factory was made"),
    }))
}

fn build(
    plan: &Plan,
    stage: usize,
    targets: &Targets,
) -> Result<Box<dyn crate::operator::Pipeline>, BuildError> {
    let source = &plan.sources[stage];
    let builder = Builder { plan, targets };
    let timing = Timing {
        max_out_of_orderness_ms: source.event_time.max_out_of_orderness_ms,
        max_ahead_ms: source.event_time.max_ahead_ms,
    };
    Ok(Box::new(Source::<Dynamic, _>::new(
        JsonRows::new(&source.schema, source.event_time.field),
        timing,
        builder.errors(&source.id, &source.on_error)?,
        builder.readers(StreamRef::Source(stage))?,
    )))
}

struct Builder<'p> {
    plan: &'p Plan,
    targets: &'p Targets,
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

    fn readers(&self, stream: StreamRef) -> Result<Readers<Dynamic>, BuildError> {
        let schema = self.plan.stream_schema(stream);
        let mut readers: Vec<Box<dyn Operator<Dynamic>>> = Vec::new();
        for (index, operator) in self.plan.operators.iter().enumerate() {
            if operator.input == stream {
                readers.push(self.operator(index, operator, &schema)?);
            }
        }
        for sink in &self.plan.sinks {
            if sink.input == stream {
                readers.push(self.sink(sink, &schema)?);
            }
        }
        Ok(Readers::new(readers))
    }

    fn operator(
        &self,
        index: usize,
        operator: &OperatorPlan,
        input: &Schema,
    ) -> Result<Box<dyn Operator<Dynamic>>, BuildError> {
        let readers = self.readers(StreamRef::Operator(index))?;
        let errors = self.errors(&operator.id, &operator.on_error)?;
        let encoder = Arc::new(Encoder::new(input));
        Ok(match &operator.kind {
            OperatorKind::Filter { predicate } => {
                Box::new(Filter::new(RowFilter { predicate: predicate.clone(), encoder }, errors, readers))
            }
            OperatorKind::Map { slots } => {
                Box::new(Map::new(RowMap { slots: slots.clone(), encoder }, errors, readers))
            }
            OperatorKind::Window(window) => self.window(operator, window, input, encoder, errors, readers)?,
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
        let late = match &window.late {
            Late::Drop => LateRecords::Drop,
            Late::Topic(topic) => LateRecords::Write(self.target(topic)?),
        };
        let spec = WindowSpec {
            id: operator.id.as_str().into(),
            fingerprint: operator.fingerprint().unwrap_or_default(),
            windows: (),
            allowed_lateness_ms: window.allowed_lateness_ms,
            emit: match window.emit {
                Emit::OnClose => EmitRows::OnClose,
                Emit::OnTime => EmitRows::OnTime,
                Emit::OnUpdate => EmitRows::OnUpdate,
            },
            late,
        };
        let fields = window.key.iter().map(|slot| (input.fields[*slot].name.clone(), *slot)).collect();
        let marks = match window.emit {
            Emit::OnClose => None,
            Emit::OnTime => Some(Firing::Refinement),
            Emit::OnUpdate => Some(Firing::Close),
        };
        let aggregates = RowAggregates::new(window.aggregates.clone());
        let results = RowResults::new(&operator.schema, window.key.len(), aggregates, marks);
        let keys = RowKey { fields, encoder };
        let aggregates = window.aggregates.clone();
        Ok(row_windows(window.windows, spec, keys, aggregates, results, errors, readers))
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
