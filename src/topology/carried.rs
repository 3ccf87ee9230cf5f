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
        match stream {
            StreamRef::Source(_) => true,
            StreamRef::Repartition(i) => self.has_records(self.repartitions[i].input),
            StreamRef::Operator(i) => {
                let OperatorPlan { kind, inputs, .. } = &self.operators[i];
                !kind.makes_rows_of_many() && inputs.iter().any(|input| self.has_records(*input))
            }
        }
    }

    /// By all that comes behind a stream, up to the next windows.
    fn asked_of(&self, stream: StreamRef) -> Asked {
        let mut asked = Asked::default();
        for (index, operator) in self.operators.iter().enumerate() {
            if !operator.inputs.contains(&stream) {
                continue;
            }
            asked = asked.and(Asked::of_operator(operator));
            if !operator.kind.makes_rows_of_many() {
                asked = asked.and(self.asked_of(StreamRef::Operator(index)));
            }
        }
        for (index, repartition) in self.repartitions.iter().enumerate() {
            if repartition.input == stream {
                asked = asked.and(Asked::of_policy(&repartition.on_error));
                asked = asked.and(self.asked_of(StreamRef::Repartition(index)));
            }
        }
        let sinks = self.sinks.iter().filter(|sink| sink.input == stream);
        sinks.fold(asked, |asked, sink| asked.and(Asked::of_policy(&sink.on_error)))
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
