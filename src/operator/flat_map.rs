//! Makes any number of records from each record.

use std::sync::Arc;

use bumpalo::Bump;
use bumpalo::collections::Vec as ArenaVec;

use super::aggregate::text_bytes;
use super::{Context, ErrorPolicy, Operator, OperatorError, Progress, Readers};
use crate::expression::{Environment, EvaluationError};
use crate::format::json::Encoder;
use crate::record::{Dynamic, Event, RecordType, Row, Slot};
use crate::state::Stateful;
use crate::topology::plan::FlatMapPlan;

/// How records are made from a record. The event time stays.
pub trait FlatMapFunction<I: RecordType, O: RecordType> {
    /// The outputs for an input, in their order. They leave with the checkpoint of their input, so there is a bound to
    /// their number that is the function's own; `unfolded` is what flat maps before it have made, to be added to.
    fn apply<'b>(
        &self,
        event: &Event<'b, I>,
        unfolded: &mut Unfolded,
        arena: &'b Bump,
    ) -> Result<ArenaVec<'b, O::Of<'b>>, EvaluationError>;
    /// An input as text, for a dead letter.
    fn render(&self, record: &I::Of<'_>) -> Vec<u8>;
}

/// What flat maps, one behind another, have made of the row that the first of them has taken. They multiply, and all of it
/// leaves with one checkpoint.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unfolded {
    /// How many of them the row at hand is in.
    depth: usize,
    rows: usize,
    /// What the rows keep, together.
    kept_bytes: usize,
}

impl Unfolded {
    /// Adds rows that each keep so many bytes.
    ///
    /// # Errors
    /// If that is more than a row may make; nothing is added then.
    pub fn add(&mut self, rows: usize, kept_bytes: usize) -> Result<(), String> {
        let (all_rows, bytes) = (self.rows.saturating_add(rows), rows.saturating_mul(kept_bytes));
        let all_bytes = self.kept_bytes.saturating_add(bytes);
        let before = |made: usize, what: &str| match made {
            0 => String::new(),
            made => format!(" behind flat maps that made {made} {what}"),
        };
        if all_rows > ROWS_MAX {
            let before = before(self.rows, "rows of the record");
            return Err(format!("{rows} elements{before}, more than {ROWS_MAX}"));
        }
        if all_bytes > KEPT_BYTES_MAX {
            let before = before(self.kept_bytes, "bytes of the record");
            return Err(format!(
                "{rows} rows that each keep {kept_bytes} bytes{before}, more than {KEPT_BYTES_MAX} together"
            ));
        }
        (self.rows, self.kept_bytes) = (all_rows, all_bytes);
        Ok(())
    }
}

/// The operator.
pub struct FlatMap<I: RecordType, O: RecordType, F> {
    function: F,
    errors: ErrorPolicy,
    readers: Readers<O>,
    input: std::marker::PhantomData<I>,
}

impl<I: RecordType, O: RecordType, F: FlatMapFunction<I, O>> FlatMap<I, O, F> {
    /// Hands what `function` makes to `readers`.
    pub fn new(function: F, errors: ErrorPolicy, readers: Readers<O>) -> Self {
        FlatMap { function, errors, readers, input: std::marker::PhantomData }
    }
}

impl<I: RecordType, O: RecordType, F: FlatMapFunction<I, O>> Operator<I> for FlatMap<I, O, F> {
    fn process<'b>(
        &mut self,
        event: Event<'b, I>,
        context: &mut Context<'_, 'b>,
    ) -> Result<(), OperatorError> {
        let unfolded = context.staged.unfolded();
        if unfolded.depth == 0 {
            *unfolded = Unfolded::default();
        }
        match self.function.apply(&event, unfolded, context.arena) {
            Ok(records) => {
                let (time_ms, source) = (event.time_ms, event.source);
                unfolded.depth += 1;
                for record in records {
                    self.readers.process(Event { record, time_ms, source }, context)?;
                }
                context.staged.unfolded().depth -= 1;
                Ok(())
            }
            Err(error) => {
                let render = || self.function.render(&event.record);
                self.errors.refuse(&error.message, &event, render, context)
            }
        }
    }

    fn advance<'b>(
        &mut self,
        watermark_ms: i64,
        context: &mut Context<'_, 'b>,
    ) -> Result<Progress, OperatorError> {
        self.readers.advance(watermark_ms, context)
    }

    fn finish<'b>(&mut self, context: &mut Context<'_, 'b>) -> Result<Progress, OperatorError> {
        self.readers.finish(context)
    }

    fn hand_on<'b>(&mut self, context: &mut Context<'_, 'b>) -> Result<(), OperatorError> {
        self.readers.hand_on(context)
    }

    fn visit(&mut self, visit: &mut dyn FnMut(&mut dyn Stateful)) {
        self.readers.visit(visit);
    }
}

/// A row makes at most so many rows, those of all flat maps in a chain counted: they leave with one checkpoint.
const ROWS_MAX: usize = 10_000;
/// And what they keep has at most so many bytes, each time that it is kept.
const KEPT_BYTES_MAX: usize = 64 << 20;

/// A row for each element of lists, which go in step.
pub struct RowFlatMap {
    plan: FlatMapPlan,
    /// The fields that the elements become.
    names: Vec<String>,
    encoder: Arc<Encoder>,
}

impl RowFlatMap {
    /// With the names of the fields that the elements become; `encoder` renders rows of the input stream.
    pub fn new(plan: FlatMapPlan, names: Vec<String>, encoder: Arc<Encoder>) -> Self {
        RowFlatMap { plan, names, encoder }
    }

    /// The lists of a row, all equally long. Null is an empty one.
    fn lists<'b>(
        &self,
        environment: &Environment<'_, 'b>,
    ) -> Result<ArenaVec<'b, &'b [Slot<'b>]>, EvaluationError> {
        let mut lists = ArenaVec::with_capacity_in(self.plan.each.len(), environment.arena);
        for expression in &self.plan.each {
            lists.push(match expression.eval(environment)? {
                Slot::List(elements) => elements,
                _ => &[],
            });
        }
        if lists.iter().any(|list| list.len() != lists[0].len()) {
            let lengths =
                self.names.iter().zip(&lists).map(|(name, list)| format!("`{name}` {}", list.len()));
            let lengths: Vec<String> = lengths.collect();
            let message = format!("the lists differ in length: {}", lengths.join(", "));
            return Err(EvaluationError { message });
        }
        Ok(lists)
    }
}

impl FlatMapFunction<Dynamic, Dynamic> for RowFlatMap {
    fn apply<'b>(
        &self,
        event: &Event<'b, Dynamic>,
        unfolded: &mut Unfolded,
        arena: &'b Bump,
    ) -> Result<ArenaVec<'b, Row<'b>>, EvaluationError> {
        let FlatMapPlan { kept, position, outer, .. } = &self.plan;
        let lists = self.lists(&Environment::new(event.record, event.source, arena))?;
        let elements = lists.first().map_or(0, |list| list.len());
        let rows = if *outer { elements.max(1) } else { elements };
        let kept_bytes = kept.iter().map(|slot| text_bytes(&event.record[*slot])).sum();
        unfolded.add(rows, kept_bytes).map_err(|message| EvaluationError { message })?;
        let mut made = ArenaVec::with_capacity_in(rows, arena);
        for place in 0..rows {
            let row =
                arena.alloc_slice_fill_copy(kept.len() + lists.len() + usize::from(*position), Slot::Null);
            let (same, new) = row.split_at_mut(kept.len());
            for (slot, input) in same.iter_mut().zip(kept) {
                *slot = event.record[*input];
            }
            // Without an element all that is new stays null.
            if place < elements {
                let values = lists.iter().map(|list| list[place]).chain([Slot::Int(place as i64)]);
                new.iter_mut().zip(values).for_each(|(slot, value)| *slot = value);
            }
            made.push(&*row);
        }
        Ok(made)
    }

    fn render(&self, record: &Row<'_>) -> Vec<u8> {
        self.encoder.to_vec(record)
    }
}
