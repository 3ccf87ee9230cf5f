//! Operands and the closures over them.
//!
//! An operation is written once, as a function of slots, and built for the kinds of its operands (a
//! field, a constant, any expression) by [`binary`] and [`unary`]: `status == "paid"` is one closure that
//! reads the slot and compares, with no call in between.

use bumpalo::Bump;

use super::{Environment, EvaluationError};
use crate::record::Slot;

/// A value, or why there is none.
pub(super) type Evaluated<'b> = Result<Slot<'b>, EvaluationError>;

/// A compiled operation.
pub(super) type Code = Box<dyn for<'e, 'b> Fn(&Environment<'e, 'b>) -> Evaluated<'b> + Send + Sync>;

/// Boxes a closure; its parameter types tell the compiler the closure's lifetimes.
pub(super) fn code<F>(f: F) -> Code
where
    F: for<'e, 'b> Fn(&Environment<'e, 'b>) -> Evaluated<'b> + Send + Sync + 'static,
{
    Box::new(f)
}

/// A compiled expression.
pub(super) enum Operand {
    /// The field in this slot.
    Field(usize),
    /// A value that is known already.
    Constant(Constant),
    /// Everything else.
    Code(Code),
}

/// A slot that owns its text.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Constant {
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    Timestamp(i64),
    Duration(i64),
    String(Box<str>),
    Bytes(Box<[u8]>),
}

impl Constant {
    /// The value, borrowed from the constant.
    pub fn slot(&self) -> Slot<'_> {
        match self {
            Constant::Null => Slot::Null,
            Constant::Bool(value) => Slot::Bool(*value),
            Constant::Int(value) => Slot::Int(*value),
            Constant::Double(value) => Slot::Double(*value),
            Constant::Timestamp(value) => Slot::Timestamp(*value),
            Constant::Duration(value) => Slot::Duration(*value),
            Constant::String(value) => Slot::String(value),
            Constant::Bytes(value) => Slot::Bytes(value),
        }
    }
}

impl From<Slot<'_>> for Constant {
    fn from(slot: Slot<'_>) -> Self {
        match slot {
            Slot::Null => Constant::Null,
            Slot::Bool(value) => Constant::Bool(value),
            Slot::Int(value) => Constant::Int(value),
            Slot::Double(value) => Constant::Double(value),
            Slot::Timestamp(value) => Constant::Timestamp(value),
            Slot::Duration(value) => Constant::Duration(value),
            Slot::String(value) => Constant::String(value.into()),
            Slot::Bytes(value) => Constant::Bytes(value.into()),
        }
    }
}

impl Operand {
    /// The constant that it is.
    pub fn constant(&self) -> Option<&Constant> {
        match self {
            Operand::Constant(constant) => Some(constant),
            _ => None,
        }
    }

    /// The value for as long as the batch lives: a constant's text is copied into the arena.
    pub fn eval<'b>(&self, environment: &Environment<'_, 'b>) -> Evaluated<'b> {
        match self {
            Operand::Field(index) => field(environment, *index),
            Operand::Constant(Constant::String(text)) => Ok(Slot::String(environment.arena.alloc_str(text))),
            Operand::Constant(Constant::Bytes(bytes)) => {
                Ok(Slot::Bytes(environment.arena.alloc_slice_copy(bytes)))
            }
            Operand::Constant(Constant::Null) => Ok(Slot::Null),
            Operand::Constant(Constant::Bool(value)) => Ok(Slot::Bool(*value)),
            Operand::Constant(Constant::Int(value)) => Ok(Slot::Int(*value)),
            Operand::Constant(Constant::Double(value)) => Ok(Slot::Double(*value)),
            Operand::Constant(Constant::Timestamp(value)) => Ok(Slot::Timestamp(*value)),
            Operand::Constant(Constant::Duration(value)) => Ok(Slot::Duration(*value)),
            Operand::Code(code) => code(environment),
        }
    }
}

/// Where an operation gets an argument from; the value need not outlive the operation.
trait Input: Send + Sync + 'static {
    fn get<'x, 'b: 'x>(&'x self, environment: &Environment<'_, 'b>) -> Evaluated<'x>;
}

struct Field(usize);

impl Input for Field {
    #[inline]
    fn get<'x, 'b: 'x>(&'x self, environment: &Environment<'_, 'b>) -> Evaluated<'x> {
        field(environment, self.0)
    }
}

impl Input for Constant {
    #[inline]
    fn get<'x, 'b: 'x>(&'x self, _: &Environment<'_, 'b>) -> Evaluated<'x> {
        Ok(self.slot())
    }
}

impl Input for Code {
    #[inline]
    fn get<'x, 'b: 'x>(&'x self, environment: &Environment<'_, 'b>) -> Evaluated<'x> {
        self(environment)
    }
}

impl Input for Operand {
    fn get<'x, 'b: 'x>(&'x self, environment: &Environment<'_, 'b>) -> Evaluated<'x> {
        match self {
            Operand::Field(index) => field(environment, *index),
            Operand::Constant(constant) => Ok(constant.slot()),
            Operand::Code(code) => code(environment),
        }
    }
}

#[inline]
fn field<'b>(environment: &Environment<'_, 'b>, index: usize) -> Evaluated<'b> {
    match environment.row.get(index) {
        Some(slot) => Ok(*slot),
        None => Err(no_such_slot(environment.row.len(), index)),
    }
}

#[cold]
fn no_such_slot(length: usize, index: usize) -> EvaluationError {
    let message = format!("the row has {length} slots and the expression names slot {index}: not its schema");
    EvaluationError { message }
}

/// The closure for an operation on two operands. `f` gets nulls as well.
pub(super) fn binary<F>(left: Operand, right: Operand, f: F) -> Code
where
    F: for<'x, 'b> Fn(Slot<'x>, Slot<'x>, &'b Bump) -> Evaluated<'b> + Send + Sync + 'static,
{
    fn join<L: Input, R: Input, F>(left: L, right: R, f: F) -> Code
    where
        F: for<'x, 'b> Fn(Slot<'x>, Slot<'x>, &'b Bump) -> Evaluated<'b> + Send + Sync + 'static,
    {
        code(move |environment| f(left.get(environment)?, right.get(environment)?, environment.arena))
    }
    match (left, right) {
        (Operand::Field(left), Operand::Constant(right)) => join(Field(left), right, f),
        (Operand::Field(left), Operand::Field(right)) => join(Field(left), Field(right), f),
        (Operand::Code(left), Operand::Constant(right)) => join(left, right, f),
        (left, right) => join(left, right, f),
    }
}

/// The closure for an operation on one operand. `f` gets nulls as well.
pub(super) fn unary<F>(operand: Operand, f: F) -> Code
where
    F: for<'x, 'b> Fn(Slot<'x>, &'b Bump) -> Evaluated<'b> + Send + Sync + 'static,
{
    match operand {
        Operand::Field(index) => {
            code(move |environment| f(Field(index).get(environment)?, environment.arena))
        }
        operand => code(move |environment| f(operand.get(environment)?, environment.arena)),
    }
}

/// `condition ? when_true : when_false`: one branch is evaluated, none for null.
pub(super) fn conditional(condition: Operand, when_true: Operand, when_false: Operand) -> Operand {
    match condition {
        Operand::Constant(Constant::Bool(true)) => when_true,
        Operand::Constant(Constant::Bool(false)) => when_false,
        condition => Operand::Code(code(move |environment| match condition.get(environment)? {
            Slot::Bool(true) => when_true.eval(environment),
            Slot::Bool(false) => when_false.eval(environment),
            other => null_or_mismatch(&[other]),
        })),
    }
}

/// `left && right` (`decisive` false) or `left || right` (`decisive` true).
///
/// The decisive value wins over everything, also over an error on the other side; then an error, then
/// null.
pub(super) fn logic(left: Operand, right: Operand, decisive: bool) -> Operand {
    match (left, right) {
        (Operand::Constant(Constant::Bool(known)), other)
        | (other, Operand::Constant(Constant::Bool(known))) => match known == decisive {
            true => Operand::Constant(Constant::Bool(decisive)),
            false => other,
        },
        (left, right) => Operand::Code(code(move |environment| match left.get(environment) {
            Ok(Slot::Bool(value)) if value == decisive => return Ok(Slot::Bool(decisive)),
            Ok(Slot::Bool(_)) => return bool_or_null(right.get(environment)?),
            Ok(Slot::Null) => match right.get(environment)? {
                Slot::Bool(value) if value == decisive => Ok(Slot::Bool(decisive)),
                other => bool_or_null(other).map(|_| Slot::Null),
            },
            Ok(other) => Err(mismatch(&[other])),
            Err(error) => match right.get(environment) {
                Ok(Slot::Bool(value)) if value == decisive => Ok(Slot::Bool(decisive)),
                _ => Err(error),
            },
        })),
    }
}

/// A bool or null, whose lifetime then does not matter.
#[inline]
fn bool_or_null<'b>(slot: Slot<'_>) -> Evaluated<'b> {
    match slot {
        Slot::Bool(value) => Ok(Slot::Bool(value)),
        other => null_or_mismatch(&[other]),
    }
}

/// `operand == null`, or with `expected` false `operand != null`.
pub(super) fn is_null(operand: Operand, expected: bool) -> Code {
    unary(operand, move |slot, _| Ok(Slot::Bool(slot.is_null() == expected)))
}

/// An int where a double is wanted.
pub(super) fn promote(operand: Operand) -> Operand {
    match operand {
        Operand::Constant(Constant::Int(value)) => Operand::Constant(Constant::Double(value as f64)),
        Operand::Constant(Constant::Null) => Operand::Constant(Constant::Null),
        operand => Operand::Code(unary(operand, |slot, _| match slot {
            Slot::Int(value) => Ok(Slot::Double(value as f64)),
            other => null_or_mismatch(&[other]),
        })),
    }
}

/// What an operation gives whose arguments are not of its types: null if one of them is null. Anything
/// else the checker has ruled out, unless the row is not laid out as its schema says.
pub(super) fn null_or_mismatch<'b>(slots: &[Slot<'_>]) -> Evaluated<'b> {
    if slots.iter().any(Slot::is_null) { Ok(Slot::Null) } else { Err(mismatch(slots)) }
}

/// The error for a row that is not laid out as its schema says.
#[cold]
pub(super) fn mismatch(slots: &[Slot<'_>]) -> EvaluationError {
    let found: Vec<String> = slots.iter().map(|slot| show(*slot)).collect();
    EvaluationError {
        message: format!("found {}: the row is not laid out as its schema says", found.join(", ")),
    }
}

/// Characters of a text that an error message shows.
const SHOWN_MAX: usize = 60;

/// A value as an error message shows it.
#[cold]
pub(super) fn show(slot: Slot<'_>) -> String {
    match slot {
        Slot::Null => "null".into(),
        Slot::Bool(value) => value.to_string(),
        Slot::Int(value) => value.to_string(),
        Slot::Double(value) => format!("{value:?}"),
        Slot::Timestamp(ms) => {
            let mut text = String::new();
            match crate::time::format_rfc3339_ms(ms, &mut text) {
                true => format!("timestamp(\"{text}\")"),
                false => format!("timestamp({ms})"),
            }
        }
        Slot::Duration(ms) => format!("duration(\"{ms}ms\")"),
        Slot::String(text) => match text.char_indices().nth(SHOWN_MAX) {
            Some((end, _)) => format!("{:?}…", &text[..end]),
            None => format!("{text:?}"),
        },
        Slot::Bytes(bytes) => format!("{} bytes", bytes.len()),
    }
}
