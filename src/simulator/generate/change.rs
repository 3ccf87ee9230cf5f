//! Generated topologies that take the place of others.

use super::{Generated, OperatorKind};
use crate::random::Random;
use crate::topology::plan::AggregateFunction;
use crate::window::{EarlyFiring, TimeDomain};

/// A topology that takes the place of another one: one of its windows computes something else, and its state
/// is given up. Its rows have the same fields as before.
#[derive(Clone, Debug)]
pub struct Changed {
    /// The topology.
    pub generated: Generated,
    /// The number of the operator.
    pub operator: usize,
}

impl Generated {
    /// The topology that takes its place later, if it has a window that may become another one: with the
    /// window whose state is given up.
    pub fn changed(&self, random: &mut Random) -> Option<Changed> {
        if (0..self.operators.len()).any(|operator| self.rekeys(operator)) {
            return None; // from which row on is not known
        }
        let mut places = Vec::new();
        for (number, operator) in self.operators.iter().enumerate() {
            let OperatorKind::Window(window) = &operator.kind else { continue };
            let by_time = matches!(window.early, Some(EarlyFiring::EveryMs(..)));
            let by_time = ((window.purge || window.changelog) && by_time) || window.refine_every_ms.is_some();
            if window.time == TimeDomain::Processing || by_time {
                continue; // what its open windows have told when they are given up is not known
            }
            let aggregates = window.aggregates.iter().enumerate();
            let others =
                aggregates.filter_map(|(at, aggregate)| Some((number, at, other(aggregate.function)?)));
            places.extend(others);
        }
        if places.is_empty() {
            return None;
        }
        let (operator, at, function) = *random.pick(&places);
        let mut generated = self.clone();
        if let OperatorKind::Window(window) = &mut generated.operators[operator].kind {
            window.aggregates[at].function = function;
        }
        Some(Changed { generated, operator })
    }
}

/// What may be computed instead, with a result of the same type.
fn other(function: AggregateFunction) -> Option<AggregateFunction> {
    match function {
        AggregateFunction::Sum | AggregateFunction::Min => Some(AggregateFunction::Max),
        AggregateFunction::Max => Some(AggregateFunction::Min),
        AggregateFunction::First => Some(AggregateFunction::Last),
        AggregateFunction::Variance => Some(AggregateFunction::Stddev),
        _ => None,
    }
}
