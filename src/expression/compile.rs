//! Operands and the closures over them.
//!
//! An operation is written once, as a function of slots, and built for the kinds of its operands (a
//! field, a constant, any expression) by [`binary`] and [`unary`]: `status == "paid"` is one closure that
//! reads the slot and compares, with no call in between.

use super::{Environment, EvaluationError};
use crate::record::Slot;

/// An error on its way out: boxed, so that results are small.
pub(super) type Failure = Box<EvaluationError>;

/// A value, or why there is none.
pub(super) type Evaluated<'b> = Result<Slot<'b>, Failure>;

/// A bool or null, or why there is neither: two registers.
pub(super) type Truth = Result<Option<bool>, Failure>;

/// A compiled operation.
pub(super) type Code = Box<dyn for<'e, 'b> Fn(&Environment<'e, 'b>) -> Evaluated<'b> + Send + Sync>;

/// A compiled operation whose result is a bool.
pub(super) type Test = Box<dyn for<'e, 'b> Fn(&Environment<'e, 'b>) -> Truth + Send + Sync>;

/// Boxes a closure; its parameter types tell the compiler the closure's lifetimes.
pub(super) fn code<F>(f: F) -> Operand
where
    F: for<'e, 'b> Fn(&Environment<'e, 'b>) -> Evaluated<'b> + Send + Sync + 'static,
{
    Operand::Code(Box::new(f))
}

/// As [`code`].
pub(super) fn test<F>(f: F) -> Operand
where
    F: for<'e, 'b> Fn(&Environment<'e, 'b>) -> Truth + Send + Sync + 'static,
{
    Operand::Test(Box::new(f))
}

/// A compiled expression.
pub(super) enum Operand {
    /// The field in this slot.
    Field(usize),
    /// A value that is known already.
    Constant(Constant),
    /// An operation whose result is a bool.
    Test(Test),
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

impl Constant {
    /// The value by itself; `None` for a list, which is made anew for each row.
    pub fn of(slot: Slot<'_>) -> Option<Constant> {
        Some(match slot {
            Slot::Null => Constant::Null,
            Slot::Bool(value) => Constant::Bool(value),
            Slot::Int(value) => Constant::Int(value),
            Slot::Double(value) => Constant::Double(value),
            Slot::Timestamp(value) => Constant::Timestamp(value),
            Slot::Duration(value) => Constant::Duration(value),
            Slot::String(value) => Constant::String(value.into()),
            Slot::Bytes(value) => Constant::Bytes(value.into()),
            Slot::List(_) => return None,
        })
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
            Operand::Constant(Constant::String(text)) => Ok(Slot::String(environment.text(text)?)),
            Operand::Constant(Constant::Bytes(bytes)) => Ok(Slot::Bytes(environment.bytes(bytes)?)),
            Operand::Constant(Constant::Null) => Ok(Slot::Null),
            Operand::Constant(Constant::Bool(value)) => Ok(Slot::Bool(*value)),
            Operand::Constant(Constant::Int(value)) => Ok(Slot::Int(*value)),
            Operand::Constant(Constant::Double(value)) => Ok(Slot::Double(*value)),
            Operand::Constant(Constant::Timestamp(value)) => Ok(Slot::Timestamp(*value)),
            Operand::Constant(Constant::Duration(value)) => Ok(Slot::Duration(*value)),
            Operand::Test(test) => test(environment).map(truth_slot),
            Operand::Code(code) => code(environment),
        }
    }

    /// The value of an operand of type bool.
    #[inline]
    pub fn truth(&self, environment: &Environment<'_, '_>) -> Truth {
        match self {
            Operand::Test(test) => test(environment),
            other => match other.get(environment)? {
                Slot::Bool(value) => Ok(Some(value)),
                slot => null_or_fail(&[slot]),
            },
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
            Operand::Test(test) => test(environment).map(truth_slot),
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
fn no_such_slot(length: usize, index: usize) -> Failure {
    failure(format!("the row has {length} slots and the expression names slot {index}: not its schema"))
}

/// An error with this message.
#[cold]
pub(super) fn failure(message: String) -> Failure {
    Box::new(EvaluationError { message })
}

pub(super) fn truth_slot(truth: Option<bool>) -> Slot<'static> {
    truth.map_or(Slot::Null, Slot::Bool)
}

/// Builds a closure of two operands for each of the common kinds of them.
macro_rules! by_kind {
    ($build:ident, $left:ident, $right:ident, $f:ident) => {
        match ($left, $right) {
            (Operand::Field(left), Operand::Constant(right)) => $build(Field(left), right, $f),
            (Operand::Field(left), Operand::Field(right)) => $build(Field(left), Field(right), $f),
            (Operand::Code(left), Operand::Constant(right)) => $build(left, right, $f),
            (left, right) => $build(left, right, $f),
        }
    };
}

/// An operation on two operands. `f` gets nulls as well.
pub(super) fn binary<F>(left: Operand, right: Operand, f: F) -> Operand
where
    F: for<'x, 'b> Fn(Slot<'x>, Slot<'x>, &Environment<'_, 'b>) -> Evaluated<'b> + Send + Sync + 'static,
{
    fn build<L: Input, R: Input, F>(left: L, right: R, f: F) -> Operand
    where
        F: for<'x, 'b> Fn(Slot<'x>, Slot<'x>, &Environment<'_, 'b>) -> Evaluated<'b> + Send + Sync + 'static,
    {
        code(move |environment| f(left.get(environment)?, right.get(environment)?, environment))
    }
    by_kind!(build, left, right, f)
}

/// A test of two operands. `f` gets nulls as well.
pub(super) fn binary_test<F>(left: Operand, right: Operand, f: F) -> Operand
where
    F: for<'x> Fn(Slot<'x>, Slot<'x>) -> Truth + Send + Sync + 'static,
{
    fn build<L: Input, R: Input, F>(left: L, right: R, f: F) -> Operand
    where
        F: for<'x> Fn(Slot<'x>, Slot<'x>) -> Truth + Send + Sync + 'static,
    {
        test(move |environment| f(left.get(environment)?, right.get(environment)?))
    }
    by_kind!(build, left, right, f)
}

/// An operation on one operand. `f` gets nulls as well.
pub(super) fn unary<F>(operand: Operand, f: F) -> Operand
where
    F: for<'x, 'b> Fn(Slot<'x>, &Environment<'_, 'b>) -> Evaluated<'b> + Send + Sync + 'static,
{
    match operand {
        Operand::Field(index) => code(move |environment| f(field(environment, index)?, environment)),
        operand => code(move |environment| f(operand.get(environment)?, environment)),
    }
}

/// A test of one operand. `f` gets nulls as well.
pub(super) fn unary_test<F>(operand: Operand, f: F) -> Operand
where
    F: for<'x> Fn(Slot<'x>) -> Truth + Send + Sync + 'static,
{
    match operand {
        Operand::Field(index) => test(move |environment| f(field(environment, index)?)),
        operand => test(move |environment| f(operand.get(environment)?)),
    }
}

/// `condition ? when_true : when_false`: one branch is evaluated, none for null.
pub(super) fn conditional(condition: Operand, when_true: Operand, when_false: Operand) -> Operand {
    match condition {
        Operand::Constant(Constant::Bool(true)) => when_true,
        Operand::Constant(Constant::Bool(false)) => when_false,
        condition => code(move |environment| match condition.truth(environment)? {
            Some(true) => when_true.eval(environment),
            Some(false) => when_false.eval(environment),
            None => Ok(Slot::Null),
        }),
    }
}

/// `left && right` (`DECISIVE` false) or `left || right` (`DECISIVE` true).
///
/// The decisive value wins over everything, also over an error on the other side; then an error, then
/// null.
pub(super) fn logic<const DECISIVE: bool>(left: Operand, right: Operand) -> Operand {
    match (left, right) {
        (Operand::Constant(Constant::Bool(known)), other)
        | (other, Operand::Constant(Constant::Bool(known))) => {
            if known == DECISIVE {
                Operand::Constant(Constant::Bool(DECISIVE))
            } else {
                other
            }
        }
        (Operand::Test(left), Operand::Test(right)) => {
            test(move |environment| decide::<DECISIVE>(left(environment), || right(environment)))
        }
        (left, right) => {
            test(move |environment| decide::<DECISIVE>(left.truth(environment), || right.truth(environment)))
        }
    }
}

#[inline]
fn decide<const DECISIVE: bool>(left: Truth, right: impl FnOnce() -> Truth) -> Truth {
    if let Ok(Some(left)) = left {
        return if left == DECISIVE { Ok(Some(DECISIVE)) } else { right() };
    }
    match (left, right()) {
        (_, Ok(Some(right))) if right == DECISIVE => Ok(Some(DECISIVE)),
        (Err(error), _) | (_, Err(error)) => Err(error),
        _ => Ok(None),
    }
}

/// `!operand`
pub(super) fn not(operand: Operand) -> Operand {
    test(move |environment| Ok(operand.truth(environment)?.map(|value| !value)))
}

/// `operand == null`, or with `expected` false `operand != null`.
pub(super) fn is_null(operand: Operand, expected: bool) -> Operand {
    unary_test(operand, move |slot| Ok(Some(slot.is_null() == expected)))
}

/// An int where a double is wanted.
pub(super) fn promote(operand: Operand) -> Operand {
    match operand {
        Operand::Constant(Constant::Int(value)) => Operand::Constant(Constant::Double(value as f64)),
        Operand::Constant(Constant::Null) => Operand::Constant(Constant::Null),
        operand => unary(operand, |slot, _| match slot {
            Slot::Int(value) => Ok(Slot::Double(value as f64)),
            other => null_or_fail(&[other]),
        }),
    }
}

/// What an operation gives that got other arguments than values of its types: null if one of them is
/// null. Anything else the checker has ruled out, unless the row is not laid out as its schema says.
#[inline(never)]
pub(super) fn null_or_fail<T: Nothing>(slots: &[Slot<'_>]) -> Result<T, Failure> {
    if slots.iter().any(Slot::is_null) { Ok(T::NOTHING) } else { Err(mismatch(slots)) }
}

/// A result that may be null.
pub(super) trait Nothing {
    const NOTHING: Self;
}

impl Nothing for Slot<'_> {
    const NOTHING: Self = Slot::Null;
}

impl Nothing for Option<bool> {
    const NOTHING: Self = None;
}

/// The error for a row that is not laid out as its schema says.
#[cold]
pub(super) fn mismatch(slots: &[Slot<'_>]) -> Failure {
    let found: Vec<String> = slots.iter().map(|slot| show(*slot)).collect();
    failure(format!("found {}: the row is not laid out as its schema says", found.join(", ")))
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
        Slot::List(elements) => format!("a list of {}", elements.len()),
    }
}
