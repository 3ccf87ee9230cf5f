//! Expressions: CEL, type-checked against a schema and compiled to closures over row slots.

use bumpalo::Bump;

use crate::record::{Schema, Slot, SourceRecord, Type};

/// What an expression may name.
#[derive(Clone, Copy)]
pub struct Scope<'s> {
    /// The fields of the stream.
    pub schema: &'s Schema,
    /// Whether `meta` may be used: not behind a window, whose rows come from no single record.
    pub meta: bool,
}

/// What an expression is evaluated on.
#[derive(Clone, Copy)]
pub struct Environment<'e, 'b> {
    /// The row; laid out as the scope's schema.
    pub row: &'e [Slot<'b>],
    /// The record that it came from; present whenever the scope allowed `meta`.
    pub source: Option<SourceRecord<'b>>,
    /// Where text that an expression makes is kept.
    pub arena: &'b Bump,
}

/// A mistake in an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpressionError {
    /// What is wrong and, where it is known, what would be right.
    pub message: String,
    /// Where it begins, in characters from the start of the expression.
    pub start: usize,
    /// Where it ends (exclusive), in characters.
    pub end: usize,
    /// The nearest known name, where a name is not known.
    pub suggestion: Option<String>,
}

/// Why an expression has no value for a row.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EvaluationError {
    /// What went wrong, with the values that made it go wrong.
    pub message: String,
}

/// Placeholder.
#[derive(Debug)]
pub struct Expression;
