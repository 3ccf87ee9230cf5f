//! Aggregates of some values.

use std::cmp::Ordering;

use super::evaluate::{Failed, double, finite};
use crate::simulator::generate::Aggregate;
use crate::simulator::generate::formula::Value;
use crate::topology::plan::{AggregateFunction, Parameter};

/// An aggregate of some values.
#[derive(Clone, Debug)]
pub(super) struct Fold {
    /// How many were not null.
    count: i64,
    /// Their sum, least, greatest, first or last, or that of the best row; of an average the sum as a double, of a
    /// variance the mean.
    value: Value,
    /// Of a variance: the sum of the squared distances from the mean.
    squares: f64,
    /// The best row's value that is compared.
    by: Value,
    /// The event time of the row that `value` is of.
    time_ms: i64,
    /// Of numbers of different values: these. Of quantiles: all values.
    values: Vec<Value>,
    /// Of the best rows: what is compared, the event time and the value of each.
    top: Vec<(Value, i64, Value)>,
}

impl Default for Fold {
    fn default() -> Fold {
        let (value, by, values, top) = (Value::Null, Value::Null, Vec::new(), Vec::new());
        Fold { count: 0, value, squares: 0.0, by, time_ms: 0, values, top }
    }
}

/// What a row adds.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub argument: Value,
    pub by: Value,
    pub time_ms: i64,
}

impl Fold {
    /// With one more row. Null changes nothing.
    pub fn with(&self, aggregate: &Aggregate, sample: &Sample) -> Result<Fold, Failed> {
        use AggregateFunction as F;
        let function = aggregate.function;
        let Sample { argument, by, time_ms } = sample;
        let decides = if matches!(function, F::MinBy | F::MaxBy | F::TopN) { by } else { argument };
        if *decides == Value::Null {
            return Ok(self.clone());
        }
        let values = match function {
            F::CountDistinct | F::ApproxCountDistinct | F::ApproxQuantile | F::Collect => {
                vec![argument.clone()]
            }
            _ => Vec::new(),
        };
        let (value, by, time_ms) = (argument.clone(), by.clone(), *time_ms);
        let top = vec![(by.clone(), time_ms, value.clone())];
        let of_row = Fold { count: 1, value, squares: 0.0, by, time_ms, values, top };
        // What comes first is added to zero, which is never a negative one then.
        let one = match function {
            F::Avg | F::Variance | F::VariancePop | F::Stddev | F::StddevPop => {
                Fold { value: Value::Double(0.0 + double(argument).ok_or(Failed)?), ..of_row }
            }
            F::Sum => match argument {
                Value::Double(value) => Fold { value: Value::Double(0.0 + value), ..of_row },
                _ => of_row,
            },
            _ => of_row,
        };
        if self.count == 0 {
            return match one.value {
                Value::Double(value) if function == F::Sum => finite(value).map(|_| one),
                _ => Ok(one),
            };
        }
        match (function, &self.value, &one.value) {
            // One at a time a mean moves by its share of the distance.
            (
                F::Variance | F::VariancePop | F::Stddev | F::StddevPop,
                Value::Double(mean),
                Value::Double(value),
            ) => {
                let count = self.count + 1;
                let moved = mean + (value - mean) / count as f64;
                let squares = self.squares + (value - mean) * (value - moved);
                Ok(Fold {
                    count,
                    value: Value::Double(finite(moved)?),
                    squares: finite(squares)?,
                    ..self.clone()
                })
            }
            // Of rows at one time the one that came last is the last.
            (F::Last, ..) if time_ms >= self.time_ms => Ok(one),
            (F::Last, ..) => Ok(self.clone()),
            (F::First, ..) => Ok(if time_ms < self.time_ms { one } else { self.clone() }),
            _ => self.and(aggregate, &one),
        }
    }

    /// Together with a fold of later rows.
    pub fn and(&self, aggregate: &Aggregate, later: &Fold) -> Result<Fold, Failed> {
        use AggregateFunction as F;
        let function = aggregate.function;
        if self.count == 0 || later.count == 0 {
            return Ok(if self.count == 0 { later.clone() } else { self.clone() });
        }
        let count = self.count + later.count;
        let better = |ordering: Ordering| match function {
            F::Min | F::MinBy => ordering.is_gt(),
            _ => ordering.is_lt(),
        };
        let chosen = |is_later: bool| Fold { count, ..if is_later { later.clone() } else { self.clone() } };
        Ok(match (function, &self.value, &later.value) {
            (F::Count, ..) => Fold { count, ..self.clone() },
            (F::Sum | F::Avg, Value::Double(a), Value::Double(b)) => {
                Fold { count, value: Value::Double(finite(a + b)?), ..self.clone() }
            }
            (F::Sum, Value::Int(a), Value::Int(b)) => {
                Fold { count, value: Value::Int(a.checked_add(*b).ok_or(Failed)?), ..self.clone() }
            }
            (F::Variance | F::VariancePop | F::Stddev | F::StddevPop, Value::Double(a), Value::Double(b)) => {
                let (distance, here, there) = (b - a, self.count as f64, later.count as f64);
                let mean = finite(a + distance * (there / count as f64))?;
                let between = distance * distance * (here * there / count as f64);
                let squares = finite(self.squares + later.squares + between)?;
                Fold { count, value: Value::Double(mean), squares, ..self.clone() }
            }
            (F::CountDistinct | F::ApproxCountDistinct, ..) => {
                let mut values = self.values.clone();
                values.extend(later.values.iter().filter(|value| !self.values.contains(value)).cloned());
                match aggregate.parameter {
                    Parameter::Max(most) if values.len() > most => return Err(Failed),
                    _ => Fold { count, values, ..self.clone() },
                }
            }
            (F::Collect, ..) => {
                let values = [&self.values[..], &later.values].concat();
                match aggregate.parameter {
                    Parameter::Max(most) if values.len() > most => return Err(Failed),
                    _ => Fold { count, values, ..self.clone() },
                }
            }
            (F::TopN, ..) => {
                let mut top = [&self.top[..], &later.top].concat();
                // Of equal ones the earlier row; of those the one that came first, which stands first.
                top.sort_by(|(by, time_ms, _), (other, other_ms, _)| {
                    order(other, by).then(time_ms.cmp(other_ms))
                });
                if let Parameter::Number(rows) = aggregate.parameter {
                    top.truncate(rows);
                }
                Fold { count, top, ..self.clone() }
            }
            (F::ApproxQuantile, ..) => {
                let values = [&self.values[..], &later.values].concat();
                Fold { count, values, ..self.clone() }
            }
            (F::First, ..) => chosen(later.time_ms < self.time_ms),
            (F::Last, ..) => chosen(later.time_ms >= self.time_ms),
            (F::MinBy | F::MaxBy, ..) => {
                let order = order(&self.by, &later.by);
                chosen(better(order) || order.is_eq() && later.time_ms < self.time_ms)
            }
            (_, best, other) => chosen(better(order(best, other))),
        })
    }

    /// What stands in a window's row.
    pub fn result(&self, aggregate: &Aggregate) -> Value {
        use AggregateFunction as F;
        let function = aggregate.function;
        let variance = |of: i64| {
            if of > 0 { Value::Double(self.squares / of as f64) } else { Value::Null }
        };
        let root = |value: Value| match value {
            Value::Double(value) => Value::Double(value.sqrt()),
            other => other,
        };
        match (function, &self.value) {
            (F::Count, _) => Value::Int(self.count),
            (F::Avg, Value::Double(sum)) => Value::Double(sum / self.count as f64),
            (F::Variance, _) => variance(self.count - 1),
            (F::VariancePop, _) => variance(self.count),
            (F::Stddev, _) => root(variance(self.count - 1)),
            (F::StddevPop, _) => root(variance(self.count)),
            // Of as few values as a history has the estimate is the number: unit tests show how far it is from larger
            // ones.
            (F::CountDistinct | F::ApproxCountDistinct, _) => Value::Int(self.values.len() as i64),
            (F::ApproxQuantile, _) => match aggregate.parameter {
                Parameter::Quantile(q) => quantile(&self.values, q),
                Parameter::None | Parameter::Max(_) | Parameter::Number(_) => Value::Null,
            },
            (F::Collect | F::TopN, _) if self.count == 0 => Value::Null,
            (F::Collect, _) => Value::List(self.values.clone().into()),
            (F::TopN, _) => Value::List(self.top.iter().map(|(_, _, value)| value.clone()).collect()),
            (_, value) => value.clone(),
        }
    }
}

/// A quantile of some numbers by its definition: what stands there when they are sorted, or rather the middle of the
/// bucket in which that lies. With any number within the stated error operators behind could come to other rows.
fn quantile(values: &[Value], q: f64) -> Value {
    let mut numbers: Vec<f64> = values.iter().filter_map(double).collect();
    numbers.sort_by(f64::total_cmp);
    match numbers.len().checked_sub(1) {
        Some(last) => Value::Double(middle(numbers[(q * last as f64).floor() as usize])),
        None => Value::Null,
    }
}

/// The middle of a number's bucket, of which there are 50 for each power of two.
fn middle(number: f64) -> f64 {
    const PARTS: u128 = 50;
    let (mut power, mut rest) = (number.signum(), number.abs());
    if rest < f64::MIN_POSITIVE {
        return 0.0;
    }
    while rest >= 2.0 {
        (power, rest) = (power * 2.0, rest / 2.0);
    }
    while rest < 1.0 {
        (power, rest) = (power / 2.0, rest * 2.0);
    }
    // No rounding: it is less than 1, and has the 52 bits of a double.
    let digits = ((rest - 1.0) * (1_u64 << 52) as f64) as u128;
    let is_below = |part: &u128| (part << 52) <= digits * PARTS;
    let part = (0..PARTS).rev().find(is_below).unwrap_or(0);
    let (lower, upper) = ((PARTS + part) as f64, (PARTS + part + 1) as f64);
    // The harmonic mean is equally far from both, relative to them. It is rounded once.
    power * (2.0 * lower * upper / ((lower + upper) * PARTS as f64))
}

/// The order of two values of one type. Of the zeros the negative one is less: nowhere said, and seen
/// only in how a least or greatest value is written.
fn order(left: &Value, right: &Value) -> Ordering {
    match (left, right) {
        (Value::Int(a), Value::Int(b))
        | (Value::Timestamp(a), Value::Timestamp(b))
        | (Value::Duration(a), Value::Duration(b)) => a.cmp(b),
        (Value::Double(a), Value::Double(b)) => a.total_cmp(b),
        (Value::Text(a), Value::Text(b)) => a.cmp(b),
        _ => Ordering::Equal,
    }
}
