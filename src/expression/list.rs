//! Lists: literals, elements, and the macros that go through them.

use bumpalo::collections::Vec as ArenaVec;
use cel::IdedExpr;
use cel::common::ast::{CallExpr, Expr, ListExpr};

use super::ELEMENT_BYTES;
use super::Scope;
use super::call::a;
use super::check::{Checked, Checker};
use super::compile::{Operand, code, failure, mismatch, promote, truth_slot};
use super::operators::{comparable, scan};
use super::parse::Span;
use crate::record::{Element, Field, FieldForm, ListType, Slot, Type};

/// CEL's macros, which go through the elements of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Macro {
    /// Whether a condition is true of all.
    All,
    /// Whether it is of one of them at least.
    Exists,
    /// Those of which it is.
    Filter,
    /// What an expression makes of each.
    Map,
}

impl Macro {
    /// The macro of this name.
    pub fn named(name: &str) -> Option<Macro> {
        Some(match name {
            "all" => Macro::All,
            "exists" => Macro::Exists,
            "filter" => Macro::Filter,
            "map" => Macro::Map,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Macro::All => "all",
            Macro::Exists => "exists",
            Macro::Filter => "filter",
            Macro::Map => "map",
        }
    }
}

impl Checker<'_> {
    /// `[x, y]`: of one type, or of ints and doubles.
    pub(super) fn list(&mut self, span: Span, list: &ListExpr) -> Option<Checked> {
        if list.elements.is_empty() {
            return self.fail(span, "an empty list has no type");
        }
        let elements: Vec<_> = list.elements.iter().map(|element| self.check(element)).collect();
        let elements = elements.into_iter().collect::<Option<Vec<Checked>>>()?;
        let mut ty = elements.first()?.ty;
        for element in &elements {
            if element.ty.is_list() {
                return self.fail(element.span, "there are no lists of lists");
            }
            ty = match (ty, element.ty) {
                (Type::Int | Type::Double, Type::Int | Type::Double) if ty != element.ty => Type::Double,
                (ty, other) if ty == other => ty,
                (ty, other) => {
                    let message = format!("the elements of a list differ in type: {ty} and {other}");
                    return self.fail(element.span, message);
                }
            };
        }
        let nullable = elements.iter().any(|element| element.nullable);
        let ends = elements.iter().fold(span, |span, element| span.to(element.span));
        let operand = |element: Checked| match element.ty == ty {
            true => element.operand,
            false => promote(element.operand),
        };
        let operands: Vec<Operand> = elements.into_iter().map(operand).collect();
        let operand = code(move |environment| {
            let made = environment.list(operands.len())?;
            for (slot, operand) in made.iter_mut().zip(&operands) {
                *slot = operand.eval(environment)?;
            }
            Ok(Slot::List(made))
        });
        Some(Checked { operand, ty: ty.list(nullable)?, nullable: false, span: self.text.with_bracket(ends) })
    }

    /// `list[index]`
    pub(super) fn element(&mut self, token: Span, list: Checked, index: Checked) -> Option<Checked> {
        let Type::List(ListType { element, nullable }) = list.ty else {
            let message =
                format!("{} has no elements; only lists and meta.headers[\"name\"] have", a(list.ty));
            return self.fail(token, message);
        };
        if index.ty != Type::Int {
            return self.fail(index.span, format!("the place in a list is an int, found {}", a(index.ty)));
        }
        let span = self.text.with_bracket(list.span.to(index.span));
        let nullable = nullable || list.nullable || index.nullable;
        let operand = code(move |environment| {
            match (list.operand.eval(environment)?, index.operand.eval(environment)?) {
                (Slot::List(elements), Slot::Int(at)) => {
                    let element = usize::try_from(at).ok().and_then(|at| elements.get(at));
                    let outside = || failure(format!("there is no [{at}] in a list of {}", elements.len()));
                    element.copied().ok_or_else(outside)
                }
                (list, index) if list.is_null() || index.is_null() => Ok(Slot::Null),
                (list, index) => Err(mismatch(&[list, index])),
            }
        });
        Some(Checked { operand, ty: element.ty(), nullable, span })
    }

    /// `needle in list`, of a list that is no literal.
    pub(super) fn is_element(&mut self, token: Span, needle: Checked, list: Checked) -> Option<Checked> {
        let Type::List(of) = list.ty else {
            return self.fail(list.span, "`in` takes a list on its right, like [1, 2, 3]");
        };
        if !comparable(needle.ty, of.element.ty()) {
            let message = format!("`in` cannot compare {} with {}", a(needle.ty), a(of.element.ty()));
            return self.fail(token, message);
        }
        let nullable = needle.nullable || list.nullable || of.nullable;
        let span = needle.span.to(list.span);
        let operand = code(move |environment| {
            let needle = needle.operand.eval(environment)?;
            match list.operand.eval(environment)? {
                Slot::List(elements) => {
                    let look = |element: &_| environment.spend(1).map(|()| *element);
                    scan(needle, elements.iter().map(look)).map(truth_slot)
                }
                Slot::Null => Ok(Slot::Null),
                other => Err(mismatch(&[other])),
            }
        });
        Some(Checked { operand, ty: Type::Bool, nullable, span })
    }

    /// `list.exists(x, condition)` and the other macros. The variable is one more field behind those of the scope.
    pub(super) fn of_elements(&mut self, name: Span, of: Macro, call: &CallExpr) -> Option<Checked> {
        let word = of.name();
        let (Some(list), [variable, body]) = (call.target.as_deref(), &call.args[..]) else {
            return self.fail(name, format!("`{word}` is called as list.{word}(x, expression of x)"));
        };
        let list = self.check(list);
        let place = self.text.token(variable.id);
        let Expr::Ident(variable) = &variable.expr else {
            return self.fail(place, format!("the first argument of `{word}` is a name for the elements"));
        };
        if self.scope.schema.position(variable).is_some() || variable == "meta" {
            return self
                .fail(place, format!("`{variable}` is known already; call the elements something else"));
        }
        let list = list?;
        let Type::List(ListType { element, nullable }) = list.ty else {
            return self.fail(list.span, format!("`{word}` takes a list, found {}", a(list.ty)));
        };
        let body = self.with_variable(variable, element, nullable, body)?;
        if of != Macro::Map && body.ty != Type::Bool {
            let message = format!("`{word}` takes a condition, found {}", a(body.ty));
            return self.fail(body.span, message);
        }
        let ty = match of {
            Macro::All | Macro::Exists => Type::Bool,
            Macro::Filter => list.ty,
            Macro::Map => match body.ty.list(body.nullable) {
                Some(ty) => ty,
                None => return self.fail(body.span, "there are no lists of lists"),
            },
        };
        let nullable = list.nullable || (ty == Type::Bool && body.nullable);
        let span = self.text.with_bracket(list.span.to(body.span));
        Some(Checked { operand: through(of, list.operand, body.operand), ty, nullable, span })
    }

    fn with_variable(
        &mut self,
        name: &str,
        element: Element,
        nullable: bool,
        body: &IdedExpr,
    ) -> Option<Checked> {
        let mut schema = self.scope.schema.clone();
        let slot = schema.fields.len();
        let (name, ty, form) = (name.to_owned(), element.ty(), FieldForm::Plain);
        schema.fields.push(Field { name, ty, nullable, form });
        let mut inner = Checker {
            scope: &Scope { schema: &schema, meta: self.scope.meta },
            text: self.text,
            errors: std::mem::take(&mut self.errors),
            fields: std::mem::take(&mut self.fields),
            meta: self.meta,
        };
        let body = inner.check(body);
        (self.errors, self.fields, self.meta) = (inner.errors, inner.fields, inner.meta);
        self.fields.remove(&slot);
        body
    }
}

/// Evaluates `body` for each element of a list, which it finds behind the slots of the row.
fn through(of: Macro, list: Operand, body: Operand) -> Operand {
    code(move |environment| {
        let elements = match list.eval(environment)? {
            Slot::List(elements) => elements,
            Slot::Null => return Ok(Slot::Null),
            other => return Err(mismatch(&[other])),
        };
        let last = environment.row.len();
        let mut row = environment.row.to_vec();
        row.push(Slot::Null);
        match of {
            Macro::All | Macro::Exists => {
                let decisive = of == Macro::Exists;
                let (mut unknown, mut failed) = (false, None);
                for element in elements {
                    environment.spend(1)?;
                    row[last] = *element;
                    match environment.with_row(&row, |inner| body.truth(inner)) {
                        Ok(Some(value)) if value == decisive => return Ok(Slot::Bool(decisive)),
                        Ok(Some(_)) => {}
                        Ok(None) => unknown = true,
                        Err(failure) => failed = failed.or(Some(failure)),
                    }
                }
                match failed {
                    Some(failure) => Err(failure),
                    None => Ok(if unknown { Slot::Null } else { Slot::Bool(!decisive) }),
                }
            }
            Macro::Filter => {
                let mut kept = ArenaVec::new_in(environment.arena);
                for element in elements {
                    environment.spend(1)?;
                    row[last] = *element;
                    if environment.with_row(&row, |inner| body.truth(inner))? == Some(true) {
                        environment.spend(ELEMENT_BYTES)?;
                        kept.push(*element);
                    }
                }
                Ok(Slot::List(kept.into_bump_slice()))
            }
            Macro::Map => {
                let made = environment.list(elements.len())?;
                for (slot, element) in made.iter_mut().zip(elements) {
                    environment.spend(1)?;
                    row[last] = *element;
                    *slot = environment.with_row(&row, |inner| body.eval(inner))?;
                }
                Ok(Slot::List(made))
            }
        }
    })
}
