//! The aggregates of a window.

use std::sync::Arc;

use crate::expression::Expression;
use crate::record::Type;

/// One aggregate of a window.
#[derive(Clone, Debug)]
pub struct AggregatePlan {
    /// The output field.
    pub name: String,
    /// What is computed.
    pub function: AggregateFunction,
    /// Of what; `None` only for a count of rows.
    pub argument: Option<Arc<Expression>>,
    /// What `min_by`, `max_by` and `top_n` compare.
    pub by: Option<Arc<Expression>>,
    /// Only rows for which this is true count.
    pub condition: Option<Arc<Expression>>,
    /// What else it is told.
    pub parameter: Parameter,
    /// The output's type.
    pub ty: Type,
}

/// What an aggregate is told beside expressions. It says when an argument is refused or how a result is made, not what
/// the state means, so that another one goes on with the same state.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Parameter {
    /// Nothing.
    #[default]
    None,
    /// How many values `count_distinct` and `collect` keep at most.
    Max(usize),
    /// How many rows `top_n` keeps: the state depends on it.
    Number(usize),
    /// Which quantile, from 0 to 1.
    Quantile(f64),
}

impl Parameter {
    /// What `count_distinct` and `collect` keep if the file does not say.
    pub const MAX_DEFAULT: usize = 1_000;
    /// What `count_distinct` may be told to keep.
    pub const MAX_LIMIT: usize = 20_000;
    /// What `collect` may be told to keep: its values take more room where they are stored.
    pub const COLLECT_LIMIT: usize = 18_000;
    /// What `top_n` may be told to keep.
    pub const NUMBER_LIMIT: usize = 1_000;
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
    /// How many different values there are: exactly, of a bounded number of them. An int.
    CountDistinct,
    /// The same of any number, about. An int.
    ApproxCountDistinct,
    /// A quantile of ints or doubles, about. A double.
    ApproxQuantile,
    /// The values in the order in which they came, of a bounded number of them. A list.
    Collect,
    /// The values of the rows in which another one is the greatest, from the greatest on; of equal ones as `max_by` does.
    /// A list.
    TopN,
}
