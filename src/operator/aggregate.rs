//! The aggregates of topology files.

mod accumulator;
mod collected;
mod ddsketch;
mod distinct;
mod encoding;
mod hyperloglog;
mod partial;
mod told;

use std::sync::Arc;

use bumpalo::Bump;

use super::window::{Aggregator, Told};
use crate::expression::{Environment, EvaluationError, Expression};
use crate::record::{Dynamic, Event, Slot, Type};
use crate::state::key::{STATE_TEXT_BYTES_MAX, STATE_TEXTS_BYTES_MAX};
use crate::topology::plan::{AggregateFunction, AggregatePlan, Parameter, WindowPlan};
pub use accumulator::{Accumulator, Accumulators, Held};
use accumulator::{Refusal, Sample, is_text, of_texts};
use distinct::Bounds;
pub(super) use encoding::{decode_held, encode_held};
pub use partial::{MergedRows, PartialRows};
pub use told::KeptTold;

/// The aggregates of a window.
pub struct RowAggregates {
    aggregates: Vec<AggregatePlan>,
    /// The longest text that one of them keeps.
    text_bytes_max: usize,
    /// How long the different texts may be together that one of them keeps.
    distinct_bytes_max: usize,
    /// Whether one of them compares something else than its argument.
    compares: bool,
    /// Whether the last one counts rows, and is no result.
    counts_rows: bool,
    /// In how many panes an entry keeps them, which share what texts have.
    panes: usize,
    /// Whether what was told of a window is kept behind the others.
    keeps_told: bool,
}

impl RowAggregates {
    /// What an operator of a topology file keeps.
    pub fn of(window: &WindowPlan) -> Self {
        let mut aggregates = RowAggregates::new(window.aggregates.clone());
        if window.counts_rows() {
            aggregates = aggregates.counting_rows();
        }
        if window.tells_later() { aggregates.keeping_told() } else { aggregates }
    }

    /// In entries that keep so many panes together, at least 1. What [they take](pane_bytes) together, if there are several,
    /// must not be more than aggregates may reserve.
    pub fn in_panes(self, panes: usize) -> Self {
        if panes <= 1 {
            return self;
        }
        let RowAggregates { aggregates, .. } = self;
        let reserved = panes * pane_bytes(&aggregates);
        let keepers: usize = aggregates.iter().map(text_keepers).sum();
        let distinct_bytes_max = STATE_TEXTS_BYTES_MAX.saturating_sub(reserved) / keepers.max(1);
        let text_bytes_max = STATE_TEXT_BYTES_MAX.min(distinct_bytes_max / panes);
        RowAggregates { text_bytes_max, distinct_bytes_max, panes, ..RowAggregates::new(aggregates) }
    }

    /// With the number of rows beside them.
    pub fn counting_rows(mut self) -> Self {
        let (name, function, ty) = (String::new(), AggregateFunction::Count, Type::Int);
        let (argument, by, condition, parameter) = (None, None, None, Parameter::None);
        self.aggregates.push(AggregatePlan { name, function, argument, by, condition, parameter, ty });
        RowAggregates { counts_rows: true, ..self }
    }

    /// With what was told of their window, which takes as much as they do.
    pub fn keeping_told(self) -> Self {
        let keepers: usize = self.aggregates.iter().map(text_keepers).sum();
        let reserved: usize = self.aggregates.iter().map(reserved_bytes).sum();
        let share = STATE_TEXTS_BYTES_MAX.saturating_sub(2 * reserved) / keepers.max(1) / 2;
        let text_bytes_max = STATE_TEXT_BYTES_MAX.min(share);
        RowAggregates { text_bytes_max, distinct_bytes_max: share, keeps_told: true, ..self }
    }

    /// Computes these. Together they [reserve](reserved_bytes) at most
    /// [`STATE_RESERVED_BYTES_MAX`](crate::state::key::STATE_RESERVED_BYTES_MAX), which a topology's check sees to.
    pub fn new(aggregates: Vec<AggregatePlan>) -> Self {
        let keepers: usize = aggregates.iter().map(text_keepers).sum();
        let reserved: usize = aggregates.iter().map(reserved_bytes).sum();
        let share = STATE_TEXTS_BYTES_MAX.saturating_sub(reserved) / keepers.max(1);
        let compares = aggregates.iter().any(|plan| plan.by.is_some());
        let text_bytes_max = STATE_TEXT_BYTES_MAX.min(share);
        let (distinct_bytes_max, counts_rows, panes, keeps_told) = (share, false, 1, false);
        RowAggregates {
            aggregates,
            text_bytes_max,
            distinct_bytes_max,
            compares,
            counts_rows,
            panes,
            keeps_told,
        }
    }

    /// Writes the results of `value` to the first slots of `results`, in order.
    pub fn results<'b>(&self, value: &Accumulators, results: &mut [Slot<'b>], arena: &'b Bump) {
        let shown = self.aggregates.len() - usize::from(self.counts_rows);
        for ((accumulator, plan), slot) in value.iter().zip(&self.aggregates[..shown]).zip(results) {
            *slot = accumulator.result(plan, arena);
        }
    }

    /// A row has been added.
    fn fill(&self, value: &mut Accumulators) {
        if self.keeps_told
            && let Some(Accumulator::Told(kept)) = value.last_mut()
            && let Some(told) = kept.take_if(|kept| kept.is_hollow)
        {
            *kept = KeptTold { is_hollow: false, ..*told }.kept();
        }
    }

    fn failed(&self, index: usize, what: Refusal) -> EvaluationError {
        EvaluationError { message: format!("aggregate `{}`: {what}", self.aggregates[index].name) }
    }

    /// What an aggregate may keep of one of so many panes.
    fn bounds(&self, index: usize, panes: usize) -> Bounds {
        let values = match self.aggregates[index].parameter {
            Parameter::Max(values) | Parameter::Number(values) => values,
            Parameter::None | Parameter::Quantile(_) => Parameter::MAX_DEFAULT,
        };
        Bounds { values, bytes: self.distinct_bytes_max / panes }
    }

    /// The value of an aggregate's expression, which may be kept.
    fn evaluate<'b>(
        &self,
        plan: &AggregatePlan,
        expression: &Arc<Expression>,
        environment: &Environment<'_, 'b>,
    ) -> Result<Slot<'b>, EvaluationError> {
        let value = expression.eval(environment)?;
        let bytes = text_bytes(&value);
        if bytes > self.text_bytes_max && keeps_argument(plan.function) {
            let (name, most) = (&plan.name, self.text_bytes_max);
            let what = text_kind(&value);
            let message = format!("aggregate `{name}`: {what} of {bytes} bytes, more than {most}");
            return Err(EvaluationError { message });
        }
        Ok(value)
    }
}

/// The longest text, in bytes, of so many that are kept in an entry.
pub(super) fn text_bytes_max(texts: usize) -> usize {
    STATE_TEXT_BYTES_MAX.min(STATE_TEXTS_BYTES_MAX / texts.max(1))
}

/// What an element of a list takes beside its text where it is stored, in bytes at most.
const ELEMENT_BYTES: usize = 14;

/// The length of a text or bytes, in bytes, and what a list takes; 0 of anything else.
pub(super) fn text_bytes(value: &Slot<'_>) -> usize {
    match value {
        Slot::List(elements) => elements.iter().map(|element| ELEMENT_BYTES + text_bytes(element)).sum(),
        Slot::String(text) => text.len(),
        Slot::Bytes(bytes) => bytes.len(),
        _ => 0,
    }
}

/// What has that length, for a message.
pub(super) fn text_kind(value: &Slot<'_>) -> &'static str {
    if matches!(value, Slot::List(_)) { "a list" } else { "a text" }
}

/// Whether a function's accumulator holds an argument as it came.
fn keeps_argument(function: AggregateFunction) -> bool {
    use AggregateFunction::{First, Last, Max, MaxBy, Min, MinBy};
    matches!(function, Min | Max | First | Last | MinBy | MaxBy)
}

/// How many shares of an entry's texts an aggregate takes.
fn text_keepers(plan: &AggregatePlan) -> usize {
    let argument = match plan.function {
        AggregateFunction::CountDistinct | AggregateFunction::Collect | AggregateFunction::TopN => {
            of_texts(plan)
        }
        function => keeps_argument(function) && is_text(plan.ty),
    };
    usize::from(argument) + usize::from(plan.by.as_ref().is_some_and(|by| is_text(by.ty())))
}

/// What an aggregate may keep beside texts, in bytes as they are stored. What is of a few bytes does not count.
pub fn reserved_bytes(plan: &AggregatePlan) -> usize {
    match (plan.function, plan.parameter) {
        // Of texts, which share what texts have, it is as many keys of fields and lengths.
        (AggregateFunction::CountDistinct, Parameter::Max(values)) => values * VARINT_BYTES_MAX,
        (AggregateFunction::Collect, Parameter::Max(values)) => values * ELEMENT_BYTES,
        (AggregateFunction::TopN, Parameter::Number(rows)) => rows * TOP_ROW_BYTES,
        (AggregateFunction::ApproxCountDistinct, _) => hyperloglog::REGISTERS,
        (AggregateFunction::ApproxQuantile, _) => 2 * ddsketch::BUCKETS_MAX * BUCKET_BYTES,
        _ => 0,
    }
}

/// A row of the greatest: its event time and two values, each with keys and lengths.
const TOP_ROW_BYTES: usize = 48;

/// What a pane takes beside texts where an entry keeps several, in bytes as they are stored: somewhat more than that.
pub fn pane_bytes(aggregates: &[AggregatePlan]) -> usize {
    PANE_BYTES + aggregates.iter().map(|plan| AGGREGATE_BYTES + reserved_bytes(plan)).sum::<usize>()
}

/// For a pane's range, and for an aggregate's numbers.
const PANE_BYTES: usize = 32;
const AGGREGATE_BYTES: usize = 48;

/// What protobuf needs at most for a whole number of 64 bits.
const VARINT_BYTES_MAX: usize = 10;
/// About what a bucket of a sketch takes at most: a byte or two for its number, the rest for its count, of 2^42 rows.
const BUCKET_BYTES: usize = 8;

/// What a row adds to the aggregates of a window.
#[derive(Clone, Copy, Debug)]
pub struct RowInput<'b> {
    /// The arguments' values; `Null` adds nothing, whatever the function.
    pub arguments: &'b [Slot<'b>],
    /// What `min_by`, `max_by` and `top_n` compare; empty if there is none of them.
    pub by: &'b [Slot<'b>],
    /// The event time.
    pub time_ms: i64,
}

impl<'b> RowInput<'b> {
    fn sample(&self, index: usize) -> Sample<'b> {
        let by = self.by.get(index).copied().unwrap_or(Slot::Null);
        Sample { argument: self.arguments[index], by, time_ms: self.time_ms }
    }
}

impl Aggregator<Dynamic> for RowAggregates {
    type Input<'b> = RowInput<'b>;

    fn input<'b>(
        &self,
        event: &Event<'b, Dynamic>,
        arena: &'b Bump,
    ) -> Result<RowInput<'b>, EvaluationError> {
        let environment = Environment::new(event.record, event.source, arena);
        let count = self.aggregates.len();
        let arguments = arena.alloc_slice_fill_copy(count, Slot::Bool(true));
        let by = arena.alloc_slice_fill_copy(if self.compares { count } else { 0 }, Slot::Null);
        for (index, plan) in self.aggregates.iter().enumerate() {
            if let Some(condition) = &plan.condition
                && condition.eval(&environment)? != Slot::Bool(true)
            {
                arguments[index] = Slot::Null;
                continue;
            }
            if let Some(argument) = &plan.argument {
                arguments[index] = self.evaluate(plan, argument, &environment)?;
            }
            if let Some(compared) = &plan.by {
                by[index] = self.evaluate(plan, compared, &environment)?;
            }
        }
        Ok(RowInput { arguments, by, time_ms: event.time_ms })
    }

    fn create(&self) -> Accumulators {
        let told = self.keeps_told.then_some(Accumulator::Told(None));
        self.aggregates.iter().map(Accumulator::new).chain(told).collect()
    }

    fn add(&self, value: &mut Accumulators, input: RowInput<'_>) -> Result<(), EvaluationError> {
        // First what can fail, for all of them; only then is anything changed.
        for (index, accumulator) in value.iter().take(self.aggregates.len()).enumerate() {
            let checked = accumulator.check(&input.sample(index), self.bounds(index, self.panes));
            checked.map_err(|what| self.failed(index, what))?;
        }
        for (index, (accumulator, plan)) in value.iter_mut().zip(&self.aggregates).enumerate() {
            accumulator.add(plan.function, input.sample(index), self.bounds(index, self.panes));
        }
        self.fill(value);
        Ok(())
    }

    fn rows(&self, value: &Accumulators) -> i64 {
        match value.get(self.aggregates.len().saturating_sub(1)) {
            Some(Accumulator::Count(rows)) if self.counts_rows => *rows,
            _ => 0,
        }
    }

    fn merge(&self, value: &mut Accumulators, later: &Accumulators) -> Result<(), EvaluationError> {
        let all = value.iter_mut().zip(later).take(self.aggregates.len());
        for (index, (accumulator, later)) in all.enumerate() {
            let function = self.aggregates[index].function;
            let merged = accumulator.merge(function, later, self.bounds(index, 1));
            merged.map_err(|what| self.failed(index, what))?;
        }
        Ok(())
    }

    fn copied(&self, value: &Accumulators) -> Result<Accumulators, EvaluationError> {
        let told = self.keeps_told.then_some(Accumulator::Told(None));
        Ok(value.iter().take(self.aggregates.len()).cloned().chain(told).collect())
    }

    fn keeps_told(&self) -> bool {
        self.keeps_told
    }

    fn told<'v>(&self, value: &'v Accumulators) -> &'v Told<Accumulators> {
        match value.last() {
            Some(Accumulator::Told(Some(kept))) => &kept.told,
            _ => &Told::WithFiring,
        }
    }

    fn set_told(&self, value: &mut Accumulators, told: Told<Accumulators>) -> Told<Accumulators> {
        let Some(Accumulator::Told(kept)) = value.last_mut() else { return Told::WithFiring };
        let mut changed = kept.take().map_or_else(KeptTold::default, |kept| *kept);
        let before = std::mem::replace(&mut changed.told, told);
        *kept = changed.kept();
        before
    }

    fn hollow(&self) -> Accumulators {
        let mut value = self.create();
        if let Some(Accumulator::Told(kept)) = value.last_mut() {
            *kept = KeptTold { is_hollow: true, ..KeptTold::default() }.kept();
        }
        value
    }

    fn is_hollow(&self, value: &Accumulators) -> bool {
        matches!(value.last(), Some(Accumulator::Told(Some(kept))) if kept.is_hollow)
    }
}

#[cfg(test)]
mod tests;
