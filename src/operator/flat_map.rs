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
    /// their number that is the function's own.
    fn apply<'b>(
        &self,
        event: &Event<'b, I>,
        arena: &'b Bump,
    ) -> Result<ArenaVec<'b, O::Of<'b>>, EvaluationError>;
    /// An input as text, for a dead letter.
    fn render(&self, record: &I::Of<'_>) -> Vec<u8>;
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
        match self.function.apply(&event, context.arena) {
            Ok(records) => {
                let (time_ms, source) = (event.time_ms, event.source);
                for record in records {
                    self.readers.process(Event { record, time_ms, source }, context)?;
                }
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

/// A row of lists makes at most so many rows: they leave with one checkpoint.
const ROWS_MAX: usize = 10_000;
/// And what they keep of it has at most so many bytes, each time that it is kept.
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

    fn check(&self, row: Row<'_>, rows: usize) -> Result<(), EvaluationError> {
        let kept: usize = self.plan.kept.iter().map(|slot| text_bytes(&row[*slot])).sum();
        let message = match rows {
            rows if rows > ROWS_MAX => format!("{rows} elements, more than {ROWS_MAX}"),
            rows if rows.saturating_mul(kept) > KEPT_BYTES_MAX => {
                format!("{rows} rows that each keep {kept} bytes, more than {KEPT_BYTES_MAX} together")
            }
            _ => return Ok(()),
        };
        Err(EvaluationError { message })
    }
}

impl FlatMapFunction<Dynamic, Dynamic> for RowFlatMap {
    fn apply<'b>(
        &self,
        event: &Event<'b, Dynamic>,
        arena: &'b Bump,
    ) -> Result<ArenaVec<'b, Row<'b>>, EvaluationError> {
        let FlatMapPlan { kept, position, outer, .. } = &self.plan;
        let lists = self.lists(&Environment::new(event.record, event.source, arena))?;
        let elements = lists.first().map_or(0, |list| list.len());
        self.check(event.record, elements)?;
        let rows = if *outer { elements.max(1) } else { elements };
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
