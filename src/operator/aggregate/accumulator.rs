//! What aggregates remember, and how it changes.

use std::borrow::Cow;
use std::cmp::Ordering;

use bumpalo::Bump;
use smallvec::SmallVec;

use super::collected::{Collected, Top};
use super::ddsketch::DdSketch;
use super::distinct::{Bounds, Distinct, Identity, Texts};
use super::hyperloglog::HyperLogLog;
use super::told::KeptTold;
use crate::record::{Slot, Type};
use crate::topology::plan::{AggregateFunction, AggregatePlan, Parameter};

/// The accumulators of one key and window, in the order of the aggregates.
pub type Accumulators = SmallVec<[Accumulator; 2]>;

/// What an aggregate remembers.
#[derive(Clone, Debug, PartialEq)]
pub enum Accumulator {
    /// Rows counted.
    Count(i64),
    /// The exact sum of ints; `None` over nothing.
    SumInt(Option<i64>),
    /// The sum of doubles, in the order in which they came.
    SumDouble(Option<f64>),
    /// The least or greatest value so far.
    Extreme(Option<Held>),
    /// What an average is made of.
    Avg {
        /// The sum, as a double.
        sum: f64,
        /// Of how many values.
        count: i64,
    },
    /// What variances are made of.
    Moments(Box<Moments>),
    /// The first or last value so far, by event time.
    Timed(Option<Box<Timed>>),
    /// The value of the row in which another one was the least or greatest so far.
    Best(Option<Box<Best>>),
    /// Different values.
    Distinct(Box<Distinct>),
    /// What the number of different values is estimated by.
    HyperLogLog(Box<HyperLogLog>),
    /// What quantiles are estimated by.
    DdSketch(Box<DdSketch>),
    /// Values in their order.
    Collected(Box<Collected>),
    /// The best rows.
    Top(Box<Top>),
    /// No aggregate: what was told of the window of those before it. `None`: nothing but what it tells as it fires.
    Told(Option<Box<KeptTold>>),
}

/// A value that is kept.
#[derive(Clone, Debug, PartialEq)]
pub enum Held {
    /// An int, a timestamp or a duration.
    Whole(i64),
    /// A double.
    Double(f64),
    /// Text.
    Text(Box<str>),
    /// A bool.
    Bool(bool),
    /// Bytes.
    Bytes(Box<[u8]>),
    /// A list; `None` is null.
    List(Box<[Option<Held>]>),
}

/// Count, mean and the sum of squared distances from it, updated as B. P. Welford does (Technometrics 4(3), 1962) and
/// merged as T. Chan, G. Golub and R. LeVeque do (Stanford STAN-CS-79-773, 1979).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moments {
    /// Of how many values.
    pub count: i64,
    /// Their mean.
    pub mean: f64,
    /// The sum of the squares of their distances from the mean.
    pub squares: f64,
}

/// A value and the event time of its row, in milliseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Timed {
    /// The event time.
    pub time_ms: i64,
    /// The value.
    pub value: Held,
}

/// The value of the best row so far.
#[derive(Clone, Debug, PartialEq)]
pub struct Best {
    /// What is compared.
    pub by: Held,
    /// The row's event time: of equal rows the earliest counts.
    pub time_ms: i64,
    /// The value; it may be null.
    pub value: Option<Held>,
}

/// What one row adds to one aggregate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample<'b> {
    pub argument: Slot<'b>,
    pub by: Slot<'b>,
    pub time_ms: i64,
}

/// Why something cannot be added.
pub(super) type Refusal = Cow<'static, str>;

const INT_OVERFLOW: &str = "the sum overflows an int";
const DOUBLE_OVERFLOW: &str = "the sum overflows a double";

/// A number as a double; ints are promoted.
fn double(slot: &Slot<'_>) -> f64 {
    match slot {
        Slot::Int(value) => *value as f64,
        Slot::Double(value) => *value,
        _ => 0.0,
    }
}

fn finite(value: f64) -> Result<f64, &'static str> {
    if value.is_finite() { Ok(value) } else { Err(DOUBLE_OVERFLOW) }
}

/// The order of two values of one type that has one.
fn order(left: &Slot<'_>, right: &Slot<'_>) -> Ordering {
    use Slot::{Double, Duration, Int, String, Timestamp};
    match (left, right) {
        (Int(a) | Timestamp(a) | Duration(a), Int(b) | Timestamp(b) | Duration(b)) => a.cmp(b),
        (String(a), String(b)) => a.cmp(b),
        (Double(_), _) | (_, Double(_)) => double(left).total_cmp(&double(right)),
        _ => Ordering::Equal,
    }
}

/// Whether `value` is better than `best`.
fn is_better(function: AggregateFunction, value: &Slot<'_>, best: &Slot<'_>) -> bool {
    match function {
        AggregateFunction::Min | AggregateFunction::MinBy => order(value, best).is_lt(),
        _ => order(value, best).is_gt(),
    }
}

impl Held {
    /// Of a slot; `None` for null.
    pub fn of(slot: &Slot<'_>) -> Option<Held> {
        Some(match slot {
            Slot::Null => return None,
            Slot::Int(value) | Slot::Timestamp(value) | Slot::Duration(value) => Held::Whole(*value),
            Slot::Double(value) => Held::Double(*value),
            Slot::String(text) => Held::Text((*text).into()),
            Slot::Bool(value) => Held::Bool(*value),
            Slot::Bytes(bytes) => Held::Bytes((*bytes).into()),
            Slot::List(elements) => Held::List(elements.iter().map(Held::of).collect()),
        })
    }

    /// As a slot, for comparisons: a timestamp or duration becomes an int. Lists are not compared.
    pub(super) fn slot(&self) -> Slot<'_> {
        match self {
            Held::Whole(value) => Slot::Int(*value),
            Held::Double(value) => Slot::Double(*value),
            Held::Text(text) => Slot::String(text),
            Held::Bool(value) => Slot::Bool(*value),
            Held::Bytes(bytes) => Slot::Bytes(bytes),
            Held::List(_) => Slot::Null,
        }
    }

    /// As a slot of type `ty`.
    pub fn result<'b>(&self, ty: Type, arena: &'b Bump) -> Slot<'b> {
        match self {
            Held::Whole(value) => match ty {
                Type::Timestamp => Slot::Timestamp(*value),
                Type::Duration => Slot::Duration(*value),
                _ => Slot::Int(*value),
            },
            Held::Double(value) => Slot::Double(*value),
            Held::Text(text) => Slot::String(arena.alloc_str(text)),
            Held::Bool(value) => Slot::Bool(*value),
            Held::Bytes(bytes) => Slot::Bytes(arena.alloc_slice_copy(bytes)),
            Held::List(elements) => list(elements.iter().map(Option::as_ref), ty, arena),
        }
    }

    /// Bytes outside itself.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Held::Text(text) => text.len(),
            Held::Bytes(bytes) => bytes.len(),
            Held::List(elements) => {
                size_of_val(&elements[..]) + elements.iter().flatten().map(Held::heap_bytes).sum::<usize>()
            }
            Held::Whole(_) | Held::Double(_) | Held::Bool(_) => 0,
        }
    }
}

/// Values as a list of type `ty`.
fn list<'h, 'b>(
    values: impl ExactSizeIterator<Item = Option<&'h Held>>,
    ty: Type,
    arena: &'b Bump,
) -> Slot<'b> {
    let Type::List(of) = ty else { return Slot::Null };
    let value = |held: Option<&Held>| held.map_or(Slot::Null, |held| held.result(of.element.ty(), arena));
    Slot::List(arena.alloc_slice_fill_iter(values.map(value)))
}

impl Moments {
    /// With one more value.
    fn with(&self, value: f64) -> Moments {
        let count = self.count.saturating_add(1);
        let distance = value - self.mean;
        let mean = self.mean + distance / count as f64;
        Moments { count, mean, squares: self.squares + distance * (value - mean) }
    }

    /// Of both.
    fn and(&self, other: &Moments) -> Moments {
        if self.count == 0 || other.count == 0 {
            return if self.count == 0 { *other } else { *self };
        }
        let (count, of_other) = (self.count.saturating_add(other.count) as f64, other.count as f64);
        let distance = other.mean - self.mean;
        Moments {
            count: self.count.saturating_add(other.count),
            mean: self.mean + distance * (of_other / count),
            squares: self.squares
                + other.squares
                + distance * distance * (self.count as f64 * of_other / count),
        }
    }

    fn finite(self) -> Result<Moments, &'static str> {
        finite(self.mean).and_then(|_| finite(self.squares)).map(|_| self)
    }

    fn result(&self, function: AggregateFunction) -> Option<f64> {
        use AggregateFunction::{Stddev, StddevPop, Variance};
        let of = self.count - i64::from(matches!(function, Variance | Stddev));
        let variance = (of > 0).then(|| self.squares / of as f64)?;
        Some(if matches!(function, Stddev | StddevPop) { variance.sqrt() } else { variance })
    }
}

impl Accumulator {
    /// Over nothing.
    pub(super) fn new(plan: &AggregatePlan) -> Accumulator {
        use AggregateFunction as F;
        match (plan.function, plan.ty) {
            (F::Count, _) => Accumulator::Count(0),
            (F::Sum, Type::Int) => Accumulator::SumInt(None),
            (F::Sum, _) => Accumulator::SumDouble(None),
            (F::Min | F::Max, _) => Accumulator::Extreme(None),
            (F::Avg, _) => Accumulator::Avg { sum: 0.0, count: 0 },
            (F::Variance | F::VariancePop | F::Stddev | F::StddevPop, _) => {
                Accumulator::Moments(Box::default())
            }
            (F::First | F::Last, _) => Accumulator::Timed(None),
            (F::MinBy | F::MaxBy, _) => Accumulator::Best(None),
            (F::CountDistinct, _) => Accumulator::Distinct(Box::new(match of_texts(plan) {
                true => Distinct::Texts(Texts::default()),
                false => Distinct::Numbers(Vec::new()),
            })),
            (F::ApproxCountDistinct, _) => Accumulator::HyperLogLog(Box::default()),
            (F::ApproxQuantile, _) => Accumulator::DdSketch(Box::default()),
            (F::Collect, _) => Accumulator::Collected(Box::default()),
            (F::TopN, _) => Accumulator::Top(Box::default()),
        }
    }

    /// Whether a sample can be added; the error says why not. What is kept of many values stays within `bounds`.
    pub(super) fn check(&self, sample: &Sample<'_>, bounds: Bounds) -> Result<(), Refusal> {
        if let Accumulator::Top(top) = self {
            return Ok(top.check(sample, bounds)?);
        }
        if sample.argument.is_null() {
            return Ok(());
        }
        match (self, &sample.argument) {
            (Accumulator::SumInt(Some(sum)), Slot::Int(value)) => {
                sum.checked_add(*value).ok_or(INT_OVERFLOW)?;
            }
            (Accumulator::SumDouble(sum), value) => drop(finite(sum.unwrap_or(0.0) + double(value))?),
            (Accumulator::Avg { sum, .. }, value) => drop(finite(sum + double(value))?),
            (Accumulator::Moments(moments), value) => drop(moments.with(double(value)).finite()?),
            (Accumulator::Distinct(distinct), value) => {
                Identity::of(value).map_or(Ok(()), |value| distinct.check(value, bounds))?;
            }
            (Accumulator::Collected(collected), value) => collected.check(value, bounds)?,
            _ => {}
        }
        Ok(())
    }

    /// Adds a sample that was [checked](Accumulator::check) with these bounds.
    pub(super) fn add(&mut self, function: AggregateFunction, sample: Sample<'_>, bounds: Bounds) {
        let Sample { argument, by, time_ms } = sample;
        // In a row that is best by another value the value itself may be null.
        if argument.is_null() && !matches!(self, Accumulator::Best(_) | Accumulator::Top(_)) {
            return;
        }
        match self {
            Accumulator::Count(count) => *count += 1,
            Accumulator::SumInt(sum) => {
                if let Slot::Int(value) = argument {
                    *sum = Some(sum.unwrap_or(0) + value);
                }
            }
            Accumulator::SumDouble(sum) => *sum = Some(sum.unwrap_or(0.0) + double(&argument)),
            Accumulator::Avg { sum, count } => {
                *sum += double(&argument);
                *count += 1;
            }
            Accumulator::Moments(moments) => **moments = moments.with(double(&argument)),
            Accumulator::Extreme(best) => {
                if best.as_ref().is_none_or(|best| is_better(function, &argument, &best.slot())) {
                    *best = Held::of(&argument);
                }
            }
            Accumulator::Timed(timed) => {
                let replaces = timed.as_ref().is_none_or(|timed| timed.is_replaced_by(function, time_ms));
                if let Some(value) = replaces.then(|| Held::of(&argument)).flatten() {
                    *timed = Some(Box::new(Timed { time_ms, value }));
                }
            }
            Accumulator::Best(best) => {
                let replaces = best.as_ref().is_none_or(|best| best.is_replaced_by(function, &by, time_ms));
                if let Some(by) = replaces.then(|| Held::of(&by)).flatten() {
                    *best = Some(Box::new(Best { by, time_ms, value: Held::of(&argument) }));
                }
            }
            Accumulator::Distinct(distinct) => drop(Identity::of(&argument).map(|value| distinct.add(value))),
            Accumulator::HyperLogLog(sketch) => drop(Identity::of(&argument).map(|value| sketch.add(value))),
            Accumulator::DdSketch(sketch) => sketch.add(double(&argument)),
            Accumulator::Collected(collected) => collected.add(&argument),
            Accumulator::Top(top) => top.add(&sample, bounds.values),
            Accumulator::Told(_) => {}
        }
    }

    /// Adds what rows of a later pane added to `later`. On an error the accumulator does not matter any more.
    pub(super) fn merge(
        &mut self,
        function: AggregateFunction,
        later: &Accumulator,
        bounds: Bounds,
    ) -> Result<(), Refusal> {
        match (self, later) {
            (Accumulator::Count(count), Accumulator::Count(later)) => *count += later,
            (Accumulator::SumInt(sum), Accumulator::SumInt(Some(later))) => {
                *sum = Some(sum.unwrap_or(0).checked_add(*later).ok_or(INT_OVERFLOW)?);
            }
            (Accumulator::SumDouble(sum), Accumulator::SumDouble(Some(later))) => {
                *sum = Some(sum.map_or(Ok(*later), |sum| finite(sum + later))?);
            }
            (Accumulator::Avg { sum, count }, Accumulator::Avg { sum: later, count: of_later }) => {
                *sum = if *count == 0 { *later } else { finite(*sum + later)? };
                *count += of_later;
            }
            (Accumulator::Moments(moments), Accumulator::Moments(later)) => {
                **moments = moments.and(later).finite()?;
            }
            (Accumulator::Extreme(best), Accumulator::Extreme(Some(later)))
                if best.as_ref().is_none_or(|best| is_better(function, &later.slot(), &best.slot())) =>
            {
                *best = Some(later.clone());
            }
            // What came later is not of a later time if panes are of so many rows.
            (Accumulator::Timed(timed), Accumulator::Timed(Some(later)))
                if timed.as_ref().is_none_or(|timed| timed.is_replaced_by(function, later.time_ms)) =>
            {
                *timed = Some(later.clone());
            }
            (Accumulator::Best(best), Accumulator::Best(Some(later)))
                if best
                    .as_ref()
                    .is_none_or(|best| best.is_replaced_by(function, &later.by.slot(), later.time_ms)) =>
            {
                *best = Some(later.clone());
            }
            (Accumulator::Distinct(distinct), Accumulator::Distinct(later)) => {
                distinct.merge(later, bounds)?
            }
            (Accumulator::HyperLogLog(sketch), Accumulator::HyperLogLog(later)) => sketch.merge(later),
            (Accumulator::DdSketch(sketch), Accumulator::DdSketch(later)) => sketch.merge(later),
            (Accumulator::Collected(collected), Accumulator::Collected(later)) => {
                collected.merge(later, bounds)?
            }
            (Accumulator::Top(top), Accumulator::Top(later)) => top.merge(later, bounds)?,
            // Both are of the same kind: `later` holds nothing, or nothing better.
            _ => {}
        }
        Ok(())
    }

    /// The aggregate's result.
    pub(super) fn result<'b>(&self, plan: &AggregatePlan, arena: &'b Bump) -> Slot<'b> {
        let held = |held: Option<&Held>| held.map_or(Slot::Null, |held| held.result(plan.ty, arena));
        let double = |value: Option<f64>| value.map_or(Slot::Null, Slot::Double);
        match self {
            Accumulator::Count(count) => Slot::Int(*count),
            Accumulator::SumInt(sum) => sum.map_or(Slot::Null, Slot::Int),
            Accumulator::SumDouble(sum) => double(*sum),
            Accumulator::Avg { count: 0, .. } => Slot::Null,
            Accumulator::Avg { sum, count } => Slot::Double(*sum / *count as f64),
            Accumulator::Moments(moments) => double(moments.result(plan.function)),
            Accumulator::Extreme(best) => held(best.as_ref()),
            Accumulator::Timed(timed) => held(timed.as_ref().map(|timed| &timed.value)),
            Accumulator::Best(best) => held(best.as_ref().and_then(|best| best.value.as_ref())),
            Accumulator::Distinct(distinct) => Slot::Int(distinct.len() as i64),
            Accumulator::HyperLogLog(sketch) => Slot::Int(sketch.estimate()),
            Accumulator::DdSketch(sketch) => match plan.parameter {
                Parameter::Quantile(q) => double(sketch.quantile(q)),
                Parameter::None | Parameter::Max(_) | Parameter::Number(_) => Slot::Null,
            },
            Accumulator::Collected(collected) if collected.values().is_empty() => Slot::Null,
            Accumulator::Collected(collected) => list(collected.values().iter().map(Some), plan.ty, arena),
            Accumulator::Told(_) => Slot::Null,
            Accumulator::Top(top) if top.rows().is_empty() => Slot::Null,
            Accumulator::Top(top) => list(top.rows().iter().map(|row| row.value.as_ref()), plan.ty, arena),
        }
    }

    /// Bytes outside itself.
    pub(super) fn heap_bytes(&self) -> usize {
        let held = |held: Option<&Held>| held.map_or(0, Held::heap_bytes);
        match self {
            Accumulator::Extreme(best) => held(best.as_ref()),
            Accumulator::Moments(_) => size_of::<Moments>(),
            Accumulator::Timed(Some(timed)) => size_of::<Timed>() + timed.value.heap_bytes(),
            Accumulator::Best(Some(best)) => {
                size_of::<Best>() + best.by.heap_bytes() + held(best.value.as_ref())
            }
            Accumulator::Distinct(distinct) => size_of::<Distinct>() + distinct.heap_bytes(),
            Accumulator::HyperLogLog(sketch) => size_of::<HyperLogLog>() + sketch.heap_bytes(),
            Accumulator::DdSketch(sketch) => size_of::<DdSketch>() + sketch.heap_bytes(),
            Accumulator::Collected(collected) => size_of::<Collected>() + collected.heap_bytes(),
            Accumulator::Top(top) => size_of::<Top>() + top.heap_bytes(),
            Accumulator::Told(Some(kept)) => {
                size_of::<KeptTold>() + kept.told.row().map_or(0, |(_, value)| heap_bytes(value))
            }
            _ => 0,
        }
    }
}

/// Bytes that accumulators hold outside themselves.
pub(super) fn heap_bytes(value: &Accumulators) -> usize {
    let held: usize = value.iter().map(Accumulator::heap_bytes).sum();
    held + if value.spilled() { value.capacity() * size_of::<Accumulator>() } else { 0 }
}

/// Whether an aggregate's argument is text or bytes.
pub(super) fn of_texts(plan: &AggregatePlan) -> bool {
    plan.argument.as_ref().is_some_and(|argument| is_text(argument.ty()))
}

/// Whether values of a type have no bound of their own.
pub(super) fn is_text(ty: Type) -> bool {
    matches!(ty, Type::String | Type::Bytes | Type::List(_))
}

impl Timed {
    /// Whether the value of a row of `time_ms` takes its place. Of rows with the same event time the first that came is
    /// the first, the last that came the last.
    fn is_replaced_by(&self, function: AggregateFunction, time_ms: i64) -> bool {
        match function {
            AggregateFunction::First => time_ms < self.time_ms,
            _ => time_ms >= self.time_ms,
        }
    }
}

impl Best {
    /// Whether a row of `time_ms` in which `by` is compared takes its place.
    pub(super) fn is_replaced_by(&self, function: AggregateFunction, by: &Slot<'_>, time_ms: i64) -> bool {
        let best = self.by.slot();
        !by.is_null()
            && (is_better(function, by, &best) || order(by, &best).is_eq() && time_ms < self.time_ms)
    }
}
