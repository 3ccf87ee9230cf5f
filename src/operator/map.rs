//! Makes a record from each record.

use std::sync::Arc;

use bumpalo::Bump;

use super::{Context, ErrorPolicy, Operator, OperatorError, Progress, Readers};
use crate::expression::{Environment, EvaluationError};
use crate::format::json::Encoder;
use crate::record::{Dynamic, Event, RecordType, Row, Slot};
use crate::state::Stateful;
use crate::topology::plan::MapSlot;

/// How records are made from records. The event time stays.
pub trait MapFunction<I: RecordType, O: RecordType> {
    /// The output for an input.
    fn apply<'b>(&self, event: &Event<'b, I>, arena: &'b Bump) -> Result<O::Of<'b>, EvaluationError>;
    /// An input as text, for a dead letter.
    fn render(&self, record: &I::Of<'_>) -> Vec<u8>;
}

/// The operator.
pub struct Map<I: RecordType, O: RecordType, F> {
    function: F,
    errors: ErrorPolicy,
    readers: Readers<O>,
    input: std::marker::PhantomData<I>,
}

impl<I: RecordType, O: RecordType, F: MapFunction<I, O>> Map<I, O, F> {
    /// Hands what `function` makes to `readers`.
    pub fn new(function: F, errors: ErrorPolicy, readers: Readers<O>) -> Self {
        Map { function, errors, readers, input: std::marker::PhantomData }
    }
}

impl<I: RecordType, O: RecordType, F: MapFunction<I, O>> Operator<I> for Map<I, O, F> {
    fn process<'b>(
        &mut self,
        event: Event<'b, I>,
        context: &mut Context<'_, 'b>,
    ) -> Result<(), OperatorError> {
        match self.function.apply(&event, context.arena) {
            Ok(record) => {
                let made = Event { record, time_ms: event.time_ms, source: event.source };
                self.readers.process(made, context)
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

/// A map of rows: each output slot is an input slot or an expression's value.
pub struct RowMap {
    /// One for each output slot.
    pub slots: Vec<MapSlot>,
    /// Renders rows of the input stream.
    pub encoder: Arc<Encoder>,
}

impl MapFunction<Dynamic, Dynamic> for RowMap {
    fn apply<'b>(&self, event: &Event<'b, Dynamic>, arena: &'b Bump) -> Result<Row<'b>, EvaluationError> {
        let environment = Environment::new(event.record, event.source, arena);
        let made = arena.alloc_slice_fill_copy(self.slots.len(), Slot::Null);
        for (slot, how) in made.iter_mut().zip(&self.slots) {
            *slot = match how {
                MapSlot::Input(position) => event.record[*position],
                MapSlot::Expression(expression) => expression.eval(&environment)?,
            };
        }
        Ok(made)
    }

    fn render(&self, record: &Row<'_>) -> Vec<u8> {
        self.encoder.to_vec(record)
    }
}
