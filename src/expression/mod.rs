//! Expressions: CEL, type-checked against a schema and compiled to closures over row slots.
//!
//! [`Expression::compile`] reads the text with the `cel` crate's parser, checks every type against the
//! fields of a stream and makes one closure per operation; [`Expression::eval`] then does no look-up by
//! name and no dispatch on types. The language, its null rules and its errors are described in
//! `docs/expressions.md`.

mod call;
mod check;
mod compile;
mod functions;
mod list;
mod operators;
mod parse;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::cell::Cell;

use bumpalo::Bump;

use crate::record::{Schema, Slot, SourceRecord, Type};
use compile::{Failure, Operand, failure};

/// What an expression may name.
#[derive(Clone, Copy)]
pub struct Scope<'s> {
    /// The fields of the stream.
    pub schema: &'s Schema,
    /// Whether `meta` may be used: not behind a window, whose rows come from no single record.
    pub meta: bool,
}

/// What the expressions of an operator may make and look at for one row, so that work and memory stay in proportion to
/// it: one for each element that is looked at, [`ELEMENT_BYTES`] for each of a list that is made, and the bytes of texts
/// that are made. It is counted, not measured: the same row gives the same value or error everywhere.
const BUDGET: usize = 64 << 20;

/// What an element of a list takes.
const ELEMENT_BYTES: usize = size_of::<Slot<'_>>();

/// What an expression is evaluated on.
pub struct Environment<'e, 'b> {
    /// The row; laid out as the scope's schema.
    pub row: &'e [Slot<'b>],
    /// The record that it came from; present whenever the scope allowed `meta`.
    pub source: Option<SourceRecord<'b>>,
    /// Where text that an expression makes is kept.
    pub arena: &'b Bump,
    /// What is left of [`BUDGET`].
    budget: Cell<usize>,
}

impl<'e, 'b> Environment<'e, 'b> {
    /// For one row, with all of its budget.
    pub fn new(row: &'e [Slot<'b>], source: Option<SourceRecord<'b>>, arena: &'b Bump) -> Self {
        Environment { row, source, arena, budget: Cell::new(BUDGET) }
    }

    /// Takes from the budget before something is made or looked at. Fails when it does not suffice, and always from
    /// then on.
    fn spend(&self, units: usize) -> Result<(), Failure> {
        match self.budget.get().checked_sub(units) {
            Some(left) => {
                self.budget.set(left);
                Ok(())
            }
            None => {
                self.budget.set(0);
                Err(too_much())
            }
        }
    }

    /// Room for a list of so many elements, all of them null as yet.
    fn list(&self, elements: usize) -> Result<&'b mut [Slot<'b>], Failure> {
        self.spend(elements.saturating_mul(ELEMENT_BYTES))?;
        Ok(self.arena.alloc_slice_fill_copy(elements, Slot::Null))
    }

    /// A text in the arena.
    fn text(&self, text: &str) -> Result<&'b mut str, Failure> {
        self.spend(text.len())?;
        Ok(self.arena.alloc_str(text))
    }

    /// Bytes in the arena.
    fn bytes(&self, bytes: &[u8]) -> Result<&'b [u8], Failure> {
        self.spend(bytes.len())?;
        Ok(self.arena.alloc_slice_copy(bytes))
    }

    /// What `f` gives for another row, out of the same budget.
    fn with_row<T>(&self, row: &[Slot<'b>], f: impl FnOnce(&Environment<'_, 'b>) -> T) -> T {
        let inner = Environment { row, source: self.source, arena: self.arena, budget: self.budget.clone() };
        let value = f(&inner);
        self.budget.set(inner.budget.get());
        value
    }
}

#[cold]
fn too_much() -> Failure {
    failure(format!(
        "the expression makes or looks at too much: elements of lists and bytes of texts come to more than {BUDGET} for \
         one row"
    ))
}

/// A mistake in an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpressionError {
    /// What is wrong and, where it is known, what would be right.
    pub message: String,
    /// Where it begins, in characters from the start of the expression.
    pub start: usize,
    /// Where it ends (exclusive), in characters; equal to `start` where the text ends too early.
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

/// A compiled expression.
///
/// ```
/// use bumpalo::Bump;
/// use thalweg::expression::{Environment, Expression, Scope};
/// use thalweg::record::{Field, FieldForm, Schema, Slot, Type};
///
/// let field = |name: &str, ty| Field { name: name.into(), ty, nullable: false, form: FieldForm::Plain };
/// let schema = Schema { fields: vec![field("status", Type::String), field("amount", Type::Double)] };
/// let scope = Scope { schema: &schema, meta: false };
///
/// let paid = Expression::compile(r#"status == "paid" && amount > 0.0"#, &scope).unwrap();
/// assert_eq!(paid.ty(), Type::Bool);
/// let arena = Bump::new();
/// let row = [Slot::String("paid"), Slot::Double(9.5)];
/// assert_eq!(paid.test(&Environment::new(&row, None, &arena)), Ok(true));
///
/// let errors = Expression::compile("amont > 0.0", &scope).unwrap_err();
/// assert_eq!((errors[0].start, errors[0].end), (0, 5));
/// assert_eq!(errors[0].suggestion.as_deref(), Some("amount"));
/// ```
pub struct Expression {
    source: String,
    /// It is written as a name, perhaps in parentheses.
    is_name: bool,
    code: Operand,
    ty: Type,
    nullable: bool,
    names: check::Names,
}

impl Expression {
    /// Compiles `source` for rows of `scope`.
    ///
    /// The errors are all that could be found, in the order of their places: after a mistake in the
    /// grammar only mistakes in the grammar; otherwise every unknown name, wrong type, invalid pattern
    /// and constant that has no value (`1 / 0`).
    pub fn compile(source: &str, scope: &Scope<'_>) -> Result<Expression, Vec<ExpressionError>> {
        let (root, text) = parse::parse(source)?;
        let (checked, names) = check::check(&root, &text, scope)?;
        Ok(Expression {
            source: source.to_owned(),
            is_name: parse::is_name(&root),
            code: checked.operand,
            ty: checked.ty,
            nullable: checked.nullable,
            names,
        })
    }

    /// The type of its value.
    pub fn ty(&self) -> Type {
        self.ty
    }

    /// Whether its value may be null.
    pub fn nullable(&self) -> bool {
        self.nullable
    }

    /// The text that it was compiled from.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The slots of the fields that it names, in ascending order, each once.
    pub fn fields(&self) -> &[usize] {
        &self.names.fields
    }

    /// Whether it names anything of `meta`.
    pub fn uses_meta(&self) -> bool {
        self.names.meta
    }

    /// The slot that it copies, if it is written as the name of one field and nothing else. What only comes
    /// to that (`true ? t : t`) is no copy: whether it does must not be seen in the output.
    pub fn as_field(&self) -> Option<usize> {
        match self.code {
            Operand::Field(index) if self.is_name => Some(index),
            _ => None,
        }
    }

    /// Its value for a row: of its [type](Expression::ty), or [`Slot::Null`] if it is
    /// [nullable](Expression::nullable).
    ///
    /// The error names the operation and the values that it failed on: an overflow, a division by zero,
    /// a failed conversion, or a row that is not laid out as the schema says.
    pub fn eval<'b>(&self, environment: &Environment<'_, 'b>) -> Result<Slot<'b>, EvaluationError> {
        self.code.eval(environment).map_err(|failure| *failure)
    }

    /// Whether its value for a row is true, for a filter: null counts as false. Fails as
    /// [`eval`](Expression::eval) does, and for an expression that is not of type bool.
    pub fn test(&self, environment: &Environment<'_, '_>) -> Result<bool, EvaluationError> {
        match self.code.truth(environment) {
            Ok(truth) => Ok(truth == Some(true)),
            Err(failure) => Err(*failure),
        }
    }
}

impl std::fmt::Debug for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Expression").field(&self.source).finish()
    }
}
