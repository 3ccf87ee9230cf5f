//! Passes the records for which a predicate holds.

use std::sync::Arc;

use super::{Context, ErrorPolicy, Operator, OperatorError, Progress, Readers};
use crate::expression::{Environment, EvaluationError, Expression};
use crate::format::json::Encoder;
use crate::record::{Dynamic, Event, RecordType};
use crate::state::Stateful;

/// Decides whether a record passes.
pub trait Predicate<R: RecordType> {
    /// Whether it passes.
    fn test(&self, event: &Event<'_, R>, arena: &bumpalo::Bump) -> Result<bool, EvaluationError>;
    /// The record as text, for a dead letter.
    fn render(&self, record: &R::Of<'_>) -> Vec<u8>;
}

/// The operator.
pub struct Filter<R: RecordType, P> {
    predicate: P,
    errors: ErrorPolicy,
    readers: Readers<R>,
}

impl<R: RecordType, P: Predicate<R>> Filter<R, P> {
    /// Passes to `readers` what `predicate` lets through.
    pub fn new(predicate: P, errors: ErrorPolicy, readers: Readers<R>) -> Self {
        Filter { predicate, errors, readers }
    }
}

impl<R: RecordType, P: Predicate<R>> Operator<R> for Filter<R, P> {
    fn process<'b>(
        &mut self,
        event: Event<'b, R>,
        context: &mut Context<'_, 'b>,
    ) -> Result<(), OperatorError> {
        match self.predicate.test(&event, context.arena) {
            Ok(true) => self.readers.process(event, context),
            Ok(false) => Ok(()),
            Err(error) => {
                let render = || self.predicate.render(&event.record);
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

/// A predicate on rows: an expression; null does not pass.
pub struct RowFilter {
    /// Of type bool.
    pub predicate: Arc<Expression>,
    /// Renders rows of the stream.
    pub encoder: Arc<Encoder>,
}

impl Predicate<Dynamic> for RowFilter {
    fn test(&self, event: &Event<'_, Dynamic>, arena: &bumpalo::Bump) -> Result<bool, EvaluationError> {
        self.predicate.test(&Environment::new(event.record, event.source, arena))
    }

    fn render(&self, record: &&[crate::record::Slot<'_>]) -> Vec<u8> {
        self.encoder.to_vec(record)
    }
}
