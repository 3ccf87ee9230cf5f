//! Generated aggregates.

use super::Stream;
use super::formula::{Formula, Scope};
use crate::random::Random;
use crate::record::Type;
use crate::topology::plan::{AggregateFunction, Parameter};

/// An aggregate.
#[derive(Clone, Debug)]
pub struct Aggregate {
    /// The output's field.
    pub name: String,
    /// What is computed.
    pub function: AggregateFunction,
    /// Of what; `None`: of rows.
    pub argument: Option<Formula>,
    /// What `min_by` and `max_by` compare.
    pub by: Option<Formula>,
    /// Only rows for which it is true count.
    pub condition: Option<Formula>,
    /// What else it is told.
    pub parameter: Parameter,
    /// The type of the result.
    pub ty: Type,
}

/// A count of rows.
pub(super) fn count(name: String) -> Aggregate {
    let function = AggregateFunction::Count;
    let parameter = Parameter::None;
    Aggregate { name, function, argument: None, by: None, condition: None, parameter, ty: Type::Int }
}

/// Whether an aggregate takes any value, whatever it has taken before.
pub(super) fn takes_any(aggregate: &Aggregate) -> bool {
    use AggregateFunction as F;
    match aggregate.function {
        F::Sum | F::Avg | F::Variance | F::VariancePop | F::Stddev | F::StddevPop => false,
        F::CountDistinct | F::Collect => aggregate.parameter == Parameter::Max(Parameter::MAX_DEFAULT),
        _ => true,
    }
}

/// An aggregate of a window on `input`.
pub(super) fn aggregate(name: String, input: &Stream, random: &mut Random) -> Aggregate {
    let scope = Scope { fields: &input.fields, meta: input.meta };
    use AggregateFunction as F;
    // What does not depend on the order of rows, nor on that of additions.
    let of_any_order =
        [F::Count, F::Min, F::Max, F::CountDistinct, F::ApproxCountDistinct, F::ApproxQuantile];
    let of_order = [
        F::Count,
        F::Sum,
        F::Sum,
        F::Min,
        F::Max,
        F::Avg,
        F::Variance,
        F::VariancePop,
        F::Stddev,
        F::StddevPop,
        F::First,
        F::Last,
        F::MinBy,
        F::MaxBy,
        F::CountDistinct,
        F::ApproxCountDistinct,
        F::ApproxQuantile,
        F::Collect,
        F::TopN,
    ];
    let function = if input.rekeyed { *random.pick(&of_any_order) } else { *random.pick(&of_order) };
    let ordered = [Type::Int, Type::Double, Type::String, Type::Timestamp, Type::Duration];
    let types: &[Type] = match function {
        F::Count => &[Type::Int, Type::Double, Type::String, Type::Bool],
        F::First | F::Last | F::MinBy | F::MaxBy => &[Type::Int, Type::String, Type::Bool, Type::Timestamp],
        F::Min | F::Max => &ordered,
        F::CountDistinct | F::ApproxCountDistinct | F::Collect | F::TopN => {
            &[Type::Int, Type::Double, Type::String, Type::Bool, Type::Timestamp, Type::Duration]
        }
        _ => &[Type::Int, Type::Double],
    };
    let ty = *random.pick(types);
    let depth = random.below(3) as u32;
    let condition = random.one_in(4).then(|| scope.formula(Type::Bool, depth, random));
    let argument = match function == F::Count && random.one_in(2) {
        true => None,
        false => Some(scope.formula(ty, depth, random)),
    };
    // A list as a whole.
    let mut chance = random.fork("list");
    let list = input.fields.iter().position(|field| field.ty.is_list() && chance.one_in(2));
    let (argument, ty) = match (function, list) {
        (F::First | F::Last | F::MinBy | F::MaxBy, Some(slot)) => {
            (Some(Formula::Field(slot)), input.fields[slot].ty)
        }
        _ => (argument, ty),
    };
    let by = match function {
        F::MinBy | F::MaxBy | F::TopN => Some(scope.formula(*random.pick(&ordered), depth, random)),
        _ => None,
    };
    let ty = match function {
        F::Count | F::CountDistinct | F::ApproxCountDistinct => Type::Int,
        F::Avg | F::Variance | F::VariancePop | F::Stddev | F::StddevPop | F::ApproxQuantile => Type::Double,
        F::Collect | F::TopN => ty.list(true).unwrap_or(ty),
        _ => ty,
    };
    let parameter = match function {
        // Which value is one too many depends on the order.
        F::CountDistinct if input.rekeyed => Parameter::Max(Parameter::MAX_DEFAULT),
        F::TopN => Parameter::Number(*random.pick(&[1, 2, 3, 10])),
        F::CountDistinct | F::Collect => Parameter::Max(*random.pick(&[1, 2, 4, Parameter::MAX_DEFAULT])),
        F::ApproxQuantile => Parameter::Quantile(*random.pick(&[0.0, 0.25, 0.5, 0.9, 1.0])),
        _ => Parameter::None,
    };
    Aggregate { name, function, argument, by, condition, parameter, ty }
}
