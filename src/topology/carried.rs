//! What of the source's records goes with rows through changes of keys: what is asked for behind them, and no more.

use std::sync::Arc;

use super::plan::{
    AggregatePlan, FiresPlan, GlobalWindowPlan, MapSlot, OnError, OperatorKind, OperatorPlan, Phase, Plan,
    StreamRef, TriggerPlan, WindowPlan,
};
use crate::expression::Expression;
use crate::format::block::Carried;

/// What is asked for of the records that the rows of a stream come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// What of them.
    pub carried: Carried,
    /// Whether an expression asks: there is no doing without.
    pub by_expression: bool,
}

impl Asked {
    fn and(self, other: Asked) -> Asked {
        Asked {
            carried: self.carried.max(other.carried),
            by_expression: self.by_expression || other.by_expression,
        }
    }

    /// A dead letter is the record.
    fn of_policy(on_error: &OnError) -> Asked {
        let carried =
            if matches!(on_error, OnError::DeadLetter(_)) { Carried::Whole } else { Carried::Nothing };
        Asked { carried, by_expression: false }
    }

    fn of_operator(operator: &OperatorPlan) -> Asked {
        let mut asked = Asked::of_policy(&operator.on_error);
        if operator.kind.late_topic().is_some() {
            asked.carried = asked.carried.max(Carried::Meta);
        }
        if operator.kind.uses_meta() {
            asked = asked.and(Asked { carried: Carried::Meta, by_expression: true });
        }
        asked
    }
}

impl Plan {
    /// What goes with the rows of a repartition topic, by its place among the plan's.
    pub fn carried_by(&self, repartition: usize) -> Asked {
        match self.has_records(self.repartitions[repartition].input) {
            true => self.asked_of(StreamRef::Repartition(repartition)),
            false => Asked::default(),
        }
    }

    /// Whether rows of a stream come from one record of a source each; of a union it may be so of some.
    fn has_records(&self, stream: StreamRef) -> bool {
        let mut streams = Streams::from(stream);
        while let Some(stream) = streams.next() {
            match stream {
                StreamRef::Source(_) => return true,
                StreamRef::Repartition(i) => streams.add(self.repartitions[i].input),
                StreamRef::Operator(i) => {
                    let OperatorPlan { kind, inputs, .. } = &self.operators[i];
                    let inputs = inputs.iter().filter(|_| !kind.makes_rows_of_many());
                    inputs.for_each(|input| streams.add(*input));
                }
            }
        }
        false
    }

    /// By all that comes behind a stream, up to the next windows.
    fn asked_of(&self, stream: StreamRef) -> Asked {
        let (mut asked, mut streams) = (Asked::default(), Streams::from(stream));
        while let Some(stream) = streams.next() {
            let operators = self.operators.iter().enumerate();
            for (index, operator) in operators.filter(|(_, operator)| operator.inputs.contains(&stream)) {
                asked = asked.and(Asked::of_operator(operator));
                if !operator.kind.makes_rows_of_many() {
                    streams.add(StreamRef::Operator(index));
                }
            }
            let repartitions = self.repartitions.iter().enumerate();
            for (index, repartition) in repartitions.filter(|(_, repartition)| repartition.input == stream) {
                asked = asked.and(Asked::of_policy(&repartition.on_error));
                streams.add(StreamRef::Repartition(index));
            }
            let sinks = self.sinks.iter().filter(|sink| sink.input == stream);
            asked = sinks.fold(asked, |asked, sink| asked.and(Asked::of_policy(&sink.on_error)));
        }
        asked
    }
}

/// Streams to be looked at, each once, however many ways lead to it.
struct Streams {
    all: Vec<StreamRef>,
    seen: usize,
}

impl Streams {
    fn from(stream: StreamRef) -> Streams {
        Streams { all: vec![stream], seen: 0 }
    }

    fn add(&mut self, stream: StreamRef) {
        if !self.all.contains(&stream) {
            self.all.push(stream);
        }
    }

    fn next(&mut self) -> Option<StreamRef> {
        let next = self.all.get(self.seen).copied();
        self.seen += usize::from(next.is_some());
        next
    }
}

impl OperatorKind {
    /// Whether its rows come from no single record.
    fn makes_rows_of_many(&self) -> bool {
        matches!(self, OperatorKind::Window(_) | OperatorKind::GlobalWindow(_))
    }

    /// Whether an expression that it evaluates on its input's rows asks for `meta`.
    fn uses_meta(&self) -> bool {
        let any =
            |expressions: &[Arc<Expression>]| expressions.iter().any(|expression| expression.uses_meta());
        let of_aggregates = |aggregates: &[AggregatePlan]| {
            let mut all = aggregates.iter().flat_map(|AggregatePlan { argument, by, condition, .. }| {
                [argument, by, condition].into_iter().flatten()
            });
            all.any(|expression| expression.uses_meta())
        };
        match self {
            OperatorKind::Filter { predicate } => predicate.uses_meta(),
            OperatorKind::Map { slots } => slots.iter().any(|slot| match slot {
                MapSlot::Expression(expression) => expression.uses_meta(),
                MapSlot::Input(_) => false,
            }),
            OperatorKind::FlatMap(flat_map) => any(&flat_map.each),
            OperatorKind::Branch { conditions, .. } => any(conditions),
            OperatorKind::Lag(lag) => any(&lag.values),
            // What it merges was made of the rows before.
            OperatorKind::Window(WindowPlan { phase: Phase::Global, .. }) => false,
            OperatorKind::Window(WindowPlan { gap, early_when, aggregates, .. }) => {
                let own = gap.iter().chain(early_when);
                of_aggregates(aggregates) || own.into_iter().any(|expression| expression.uses_meta())
            }
            OperatorKind::GlobalWindow(GlobalWindowPlan { trigger, aggregates, .. }) => {
                let fires = match trigger {
                    TriggerPlan::Global { fires: FiresPlan::When(condition), .. } => condition.uses_meta(),
                    _ => false,
                };
                fires || of_aggregates(aggregates)
            }
            OperatorKind::Output { .. } | OperatorKind::Union { .. } | OperatorKind::Deduplicate(_) => false,
        }
    }
}
