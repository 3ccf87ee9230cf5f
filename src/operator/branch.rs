//! Splits a stream: each record goes to the first branch whose condition holds.

use std::sync::Arc;

use bumpalo::Bump;

use super::{Context, ErrorPolicy, Operator, OperatorError, Progress, Readers};
use crate::expression::{Environment, EvaluationError, Expression};
use crate::format::json::Encoder;
use crate::record::{Dynamic, Event, RecordType, Row};
use crate::state::Stateful;

/// Chooses a branch for each record.
pub trait Choose<R: RecordType> {
    /// The number of the branch; `None` if the record goes to none.
    fn choose(&self, event: &Event<'_, R>, arena: &Bump) -> Result<Option<usize>, EvaluationError>;
    /// The record as text, for a dead letter.
    fn render(&self, record: &R::Of<'_>) -> Vec<u8>;
}

/// The operator.
pub struct Branch<R: RecordType, C> {
    choice: C,
    errors: ErrorPolicy,
    branches: Vec<Readers<R>>,
}

impl<R: RecordType, C: Choose<R>> Branch<R, C> {
    /// Hands each record to the readers of the branch that `choice` names.
    pub fn new(choice: C, errors: ErrorPolicy, branches: Vec<Readers<R>>) -> Self {
        Branch { choice, errors, branches }
    }
}

impl<R: RecordType, C: Choose<R>> Operator<R> for Branch<R, C> {
    fn process<'b>(
        &mut self,
        event: Event<'b, R>,
        context: &mut Context<'_, 'b>,
    ) -> Result<(), OperatorError> {
        match self.choice.choose(&event, context.arena) {
            Ok(Some(branch)) => self.branches[branch].process(event, context),
            Ok(None) => Ok(()),
            Err(error) => {
                let render = || self.choice.render(&event.record);
                self.errors.refuse(&error.message, &event, render, context)
            }
        }
    }

    fn advance<'b>(
        &mut self,
        watermark_ms: i64,
        context: &mut Context<'_, 'b>,
    ) -> Result<Progress, OperatorError> {
        // As of several readers of one stream: one that was done already is told again, which changes nothing.
        for branch in &mut self.branches {
            if branch.advance(watermark_ms, context)? == Progress::Full {
                return Ok(Progress::Full);
            }
        }
        Ok(Progress::Done)
    }

    fn finish<'b>(&mut self, context: &mut Context<'_, 'b>) -> Result<Progress, OperatorError> {
        for branch in &mut self.branches {
            if branch.finish(context)? == Progress::Full {
                return Ok(Progress::Full);
            }
        }
        Ok(Progress::Done)
    }

    fn hand_on<'b>(&mut self, context: &mut Context<'_, 'b>) -> Result<(), OperatorError> {
        self.branches.iter_mut().try_for_each(|branch| branch.hand_on(context))
    }

    fn visit(&mut self, visit: &mut dyn FnMut(&mut dyn Stateful)) {
        self.branches.iter_mut().for_each(|branch| branch.visit(visit));
    }
}

/// Branches of rows: expressions; null is no.
pub struct RowChoice {
    /// Of type bool, one for each branch, in their order.
    pub conditions: Vec<Arc<Expression>>,
    /// Whether there is one more branch, for rows of which no condition holds.
    pub otherwise: bool,
    /// Renders rows of the stream.
    pub encoder: Arc<Encoder>,
}

impl Choose<Dynamic> for RowChoice {
    fn choose(&self, event: &Event<'_, Dynamic>, arena: &Bump) -> Result<Option<usize>, EvaluationError> {
        let environment = Environment::new(event.record, event.source, arena);
        for (branch, condition) in self.conditions.iter().enumerate() {
            if condition.test(&environment)? {
                return Ok(Some(branch));
            }
        }
        Ok(self.otherwise.then_some(self.conditions.len()))
    }

    fn render(&self, record: &Row<'_>) -> Vec<u8> {
        self.encoder.to_vec(record)
    }
}
