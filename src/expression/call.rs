//! Operators and functions: which overload the types of the arguments choose.

use bumpalo::Bump;
use cel::IdedExpr;
use cel::common::ast::{CallExpr, Expr, LiteralValue, operators as names};

use super::Environment;
use super::check::{Checked, Checker};
use super::compile::{self, Constant, Operand, binary, binary_test, null_or_fail, unary, unary_test};
use super::functions::{self, Body, FUNCTIONS, Function, Style};
use super::list::Macro;
use super::operators::{self, Arithmetic, Comparison};
use super::parse::Span;
use crate::record::{Slot, Type};

impl Checker<'_> {
    /// An operator, `has` or a function: to the parser all of them are calls.
    pub(super) fn call(&mut self, id: u64, call: &CallExpr) -> Option<Checked> {
        let token = self.text.token(id);
        match (call.func_name.as_str(), call.args.as_slice()) {
            (names::LOGICAL_AND, [left, right]) => self.logic(left, right, false),
            (names::LOGICAL_OR, [left, right]) => self.logic(left, right, true),
            (names::LOGICAL_NOT, [operand]) => self.not(token, operand),
            (names::NEGATE, [operand]) => self.negate(token, operand),
            (names::CONDITIONAL, [condition, yes, no]) => self.conditional(token, condition, yes, no),
            (names::INDEX, [target, index]) => self.index(token, target, index),
            (names::IN, [needle, list]) => self.contains(token, needle, list),
            (names::HAS, [argument]) if call.target.is_none() => self.has(argument),
            (name, [left, right]) if arithmetic(name).is_some() || comparison(name).is_some() => {
                self.binary(token, name, left, right)
            }
            _ => self.function(id, call),
        }
    }

    fn logic(&mut self, left: &IdedExpr, right: &IdedExpr, decisive: bool) -> Option<Checked> {
        let op = if decisive { "||" } else { "&&" };
        let left = self.bool(op, left);
        let right = self.bool(op, right);
        let (left, right) = (left?, right?);
        let (nullable, span) = (left.nullable || right.nullable, left.span.to(right.span));
        let operand = match decisive {
            false => compile::logic::<false>(left.operand, right.operand),
            true => compile::logic::<true>(left.operand, right.operand),
        };
        Some(Checked { operand, ty: Type::Bool, nullable, span })
    }

    /// An operand that must be of type bool.
    fn bool(&mut self, op: &str, node: &IdedExpr) -> Option<Checked> {
        let checked = self.check(node)?;
        match checked.ty {
            Type::Bool => Some(checked),
            ty => self.fail(checked.span, format!("`{op}` takes a bool, found {}", a(ty))),
        }
    }

    fn not(&mut self, token: Span, operand: &IdedExpr) -> Option<Checked> {
        let operand = self.bool("!", operand)?;
        let (nullable, span) = (operand.nullable, token.to(operand.span));
        let known = is_constant(&operand);
        self.finish(compile::not(operand.operand), known, Type::Bool, nullable, span)
    }

    fn negate(&mut self, token: Span, operand: &IdedExpr) -> Option<Checked> {
        let operand = self.check(operand)?;
        let (ty, nullable, span) = (operand.ty, operand.nullable, token.to(operand.span));
        if !matches!(ty, Type::Int | Type::Double) {
            return self.fail(operand.span, format!("`-` takes an int or a double, found {}", a(ty)));
        }
        let known = is_constant(&operand);
        self.finish(operators::negate(operand.operand), known, ty, nullable, span)
    }

    fn conditional(
        &mut self,
        token: Span,
        condition: &IdedExpr,
        yes: &IdedExpr,
        no: &IdedExpr,
    ) -> Option<Checked> {
        let condition = self.bool("?", condition);
        let null_branch = is_null(yes) || is_null(no);
        let branch = |checker: &mut Self, node| match is_null(node) {
            true => Some(None),
            false => checker.check(node).map(Some),
        };
        let yes = branch(self, yes);
        let no = branch(self, no);
        let (condition, yes, no) = (condition?, yes?, no?);
        let types = (yes.as_ref().map(|yes| yes.ty), no.as_ref().map(|no| no.ty));
        let ty = match types {
            (Some(ty), None) | (None, Some(ty)) => ty,
            (Some(yes), Some(no)) if yes.common(no).is_some() => yes.common(no)?,
            (Some(Type::Int | Type::Double), Some(Type::Int | Type::Double)) => Type::Double,
            (Some(yes), Some(no)) => {
                let message = format!("the branches of ? : differ in type: {yes} and {no}");
                return self.fail(token, message);
            }
            (None, None) => return self.fail(token, "both branches are null, which has no type"),
        };
        let nullable = null_branch || [&yes, &no].into_iter().flatten().any(|branch| branch.nullable);
        let span =
            [&yes, &no].into_iter().flatten().fold(condition.span, |span, branch| span.to(branch.span));
        let operand = |branch: Option<Checked>| match branch {
            None => Operand::Constant(Constant::Null),
            Some(branch) if branch.ty == Type::Int && ty == Type::Double => compile::promote(branch.operand),
            Some(branch) => branch.operand,
        };
        Some(Checked {
            operand: compile::conditional(condition.operand, operand(yes), operand(no)),
            ty,
            nullable: nullable || condition.nullable,
            span,
        })
    }

    /// `meta.headers["name"]`, or an element of a list.
    fn index(&mut self, token: Span, target: &IdedExpr, index: &IdedExpr) -> Option<Checked> {
        match &target.expr {
            Expr::Select(select) if self.is_headers(select) => {
                let root = self.text.token(select.operand.id);
                let index = self.check(index)?;
                let span = self.text.with_bracket(root.to(index.span));
                match index.ty {
                    Type::String => self.header(span, index.operand),
                    ty => self.fail(index.span, format!("a header's name is a string, found {}", a(ty))),
                }
            }
            _ => {
                let index = self.check(index);
                let target = self.check(target)?;
                self.element(token, target, index?)
            }
        }
    }

    fn contains(&mut self, token: Span, needle: &IdedExpr, list: &IdedExpr) -> Option<Checked> {
        let needle = self.check(needle);
        let Expr::List(list) = &list.expr else {
            let list = self.check(list)?;
            return self.is_element(token, needle?, list);
        };
        let elements: Vec<_> = list.elements.iter().map(|element| self.check(element)).collect();
        let needle = needle?;
        let mut operands = Vec::with_capacity(elements.len());
        let (mut span, mut nullable, mut mixed, mut complete) =
            (needle.span.to(token), needle.nullable, false, true);
        for element in elements {
            let Some(element) = element else {
                complete = false;
                continue;
            };
            if !operators::comparable(needle.ty, element.ty) {
                let message = format!("`in` cannot compare {} with {}", a(needle.ty), a(element.ty));
                complete = self.fail::<()>(element.span, message).is_some();
            }
            mixed |= needle.ty != element.ty;
            nullable |= element.nullable;
            span = span.to(element.span);
            operands.push(element.operand);
        }
        if !complete {
            return None;
        }
        let known = needle.operand.constant().is_some() && operands.iter().all(|o| o.constant().is_some());
        let span = self.text.with_bracket(span);
        self.finish(operators::contains(needle.operand, operands, mixed), known, Type::Bool, nullable, span)
    }

    /// `has(x)`: whether a field, a header or a part of `meta` is not null.
    fn has(&mut self, argument: &IdedExpr) -> Option<Checked> {
        let selects = match &argument.expr {
            Expr::Ident(_) | Expr::Select(_) => true,
            Expr::Call(call) if call.func_name == names::INDEX => {
                let indexed = call.args.first().map(|target| &target.expr);
                matches!(indexed, Some(Expr::Select(select)) if self.is_headers(select))
            }
            _ => false,
        };
        if !selects {
            let span = self.check(argument)?.span;
            return self.fail(span, "`has` takes a field; compare anything else with `!= null`");
        }
        let argument = self.check(argument)?;
        Some(null_test(argument, false))
    }

    fn binary(&mut self, token: Span, name: &str, left: &IdedExpr, right: &IdedExpr) -> Option<Checked> {
        let comparison = comparison(name);
        if let Some(op @ (Comparison::Equal | Comparison::NotEqual)) = comparison {
            let operand = match (is_null(left), is_null(right)) {
                (true, true) => return Some(known_bool(op == Comparison::Equal, token)),
                (true, false) => Some(right),
                (false, true) => Some(left),
                (false, false) => None,
            };
            if let Some(operand) = operand {
                let span = self.text.token(left.id).to(self.text.token(right.id));
                let test = null_test(self.check(operand)?, op == Comparison::Equal);
                return Some(Checked { span: test.span.to(span), ..test });
            }
        }
        let left = self.check(left);
        let right = self.check(right);
        let (left, right) = (left?, right?);
        let (nullable, span) = (left.nullable || right.nullable, left.span.to(right.span));
        let known = is_constant(&left) && is_constant(&right);
        let types = (left.ty, right.ty);
        if let Some(op) = comparison {
            let has_order = matches!(op, Comparison::Equal | Comparison::NotEqual) || !left.ty.is_list();
            if !operators::comparable(left.ty, right.ty) || !has_order {
                let hint = comparison_hint(types);
                return self
                    .fail(token, format!("`{op}` cannot compare {} with {}{hint}", a(left.ty), a(right.ty)));
            }
            let code = operators::comparison(op, types, left.operand, right.operand);
            return self.finish(code, known, Type::Bool, nullable, span);
        }
        let op = arithmetic(name)?;
        match operators::arithmetic_type(op, left.ty, right.ty) {
            Some(ty) => {
                let code = operators::arithmetic(op, ty, left.operand, right.operand);
                self.finish(code, known, ty, nullable, span)
            }
            None => {
                let hint = match (op, types) {
                    (Arithmetic::Add, (Type::String, _) | (_, Type::String)) => "; convert it with string(x)",
                    (Arithmetic::Remainder, (Type::Double, _) | (_, Type::Double)) => "; it is for ints",
                    _ => "",
                };
                self.fail(token, format!("`{op}` is not defined for {} and {}{hint}", a(types.0), a(types.1)))
            }
        }
    }

    fn function(&mut self, id: u64, call: &CallExpr) -> Option<Checked> {
        let name = call.func_name.as_str();
        let span = self.text.call_name(id, name);
        if let Some(of_elements) = Macro::named(name) {
            return self.of_elements(span, of_elements, call);
        }
        if name == "exists_one" {
            // Its variable is no field; there is no more to say of its arguments.
            return self.unknown_function(span, name);
        }
        let arguments: Vec<_> = call
            .target
            .as_deref()
            .into_iter()
            .chain(&call.args)
            .map(|argument| self.check(argument))
            .collect();
        let overloads: Vec<&Function> = FUNCTIONS.iter().filter(|function| function.name == name).collect();
        let Some(first) = overloads.first() else {
            return self.unknown_function(span, name);
        };
        let receiver = call.target.is_some();
        match first.style {
            Style::Global if receiver => return self.fail(span, format!("`{name}` is called as {name}(x)")),
            Style::Receiver if !receiver => {
                let rest = if first.parameters.len() > 1 { "y" } else { "" };
                return self.fail(span, format!("`{name}` is called as x.{name}({rest})"));
            }
            _ => {}
        }
        let arguments = arguments.into_iter().collect::<Option<Vec<Checked>>>()?;
        if arguments.len() != first.parameters.len() {
            let extra = usize::from(receiver);
            let wanted = first.parameters.len().saturating_sub(extra);
            let found = arguments.len() - extra;
            let hint = if name.starts_with("get") { "; it is always in UTC" } else { "" };
            return self.fail(span, format!("`{name}` takes {} here, found {found}{hint}", count(wanted)));
        }
        let fits = |function: &&&Function| function.takes(arguments.iter().map(|argument| &argument.ty));
        match (overloads.iter().find(fits), &arguments[..]) {
            (Some(function), _) => self.apply(span, function, arguments),
            // Of any elements.
            (None, [list]) if name == "size" && list.ty.is_list() => self.apply(span, first, arguments),
            (None, _) => self.wrong_types(name, &overloads, &arguments),
        }
    }

    fn unknown_function(&mut self, span: Span, name: &str) -> Option<Checked> {
        if name == names::HAS {
            return self.fail(span, "`has` is called as has(field)");
        }
        if name == "exists_one" {
            return self.fail(span, "there is no `exists_one`; write size(list.filter(x, condition)) == 1");
        }
        let mut known: Vec<&str> = FUNCTIONS.iter().map(|function| function.name).collect();
        known.dedup();
        known.push(names::HAS);
        self.fail_unknown(span, "function", name, &known)
    }

    /// Points at the first argument that no overload takes.
    fn wrong_types(&mut self, name: &str, overloads: &[&Function], arguments: &[Checked]) -> Option<Checked> {
        for (place, argument) in arguments.iter().enumerate() {
            let wanted: Vec<Type> =
                overloads.iter().filter_map(|f| f.parameters.get(place).copied()).collect();
            if wanted.iter().all(|ty| ty.common(argument.ty).is_none()) {
                let wanted: Vec<String> = wanted.into_iter().map(a).collect();
                let mut wanted = wanted;
                wanted.dedup();
                let message =
                    format!("`{name}` takes {} here, found {}", wanted.join(" or "), a(argument.ty));
                return self.fail(argument.span, message);
            }
        }
        None
    }

    fn apply(&mut self, name: Span, function: &Function, mut arguments: Vec<Checked>) -> Option<Checked> {
        let nullable = arguments.iter().any(|argument| argument.nullable);
        let known = arguments.iter().all(is_constant);
        let span =
            self.text.with_bracket(arguments.iter().fold(name, |span, argument| span.to(argument.span)));
        let (last, first) = (arguments.pop()?, arguments.pop());
        let code = match (function.body, first) {
            (Body::Identity, _) => return Some(Checked { span, ..last }),
            (Body::Unary(f), _) => {
                if let Some(Constant::String(text)) = last.operand.constant()
                    && function.result == Type::Timestamp
                    && functions::finer_than_ms(text)
                {
                    let message = "timestamps are in milliseconds; this one is finer";
                    return self.fail(last.span, message);
                }
                unary(last.operand, f)
            }
            (Body::Test(f), Some(first)) => binary_test(first.operand, last.operand, f),
            (Body::Binary(f), Some(first)) => binary(first.operand, last.operand, f),
            (Body::Matches, Some(first)) => self.matches(first, last)?,
            // These kinds have two parameters.
            (Body::Test(_) | Body::Binary(_) | Body::Matches, None) => return None,
        };
        self.finish(code, known, function.result, nullable, span)
    }

    fn matches(&mut self, text: Checked, pattern: Checked) -> Option<Operand> {
        let Some(Constant::String(source)) = pattern.operand.constant() else {
            return self.fail(pattern.span, "the pattern of `matches` must be a constant string");
        };
        match regex::Regex::new(source) {
            Ok(regex) => Some(unary_test(text.operand, move |text| match text {
                Slot::String(text) => Ok(Some(regex.is_match(text))),
                other => null_or_fail(&[other]),
            })),
            Err(error) => {
                // The crate draws the pattern with a marker over several lines; the reason comes last.
                let error = error.to_string();
                let reason = error.rsplit("error: ").next().unwrap_or_default().trim().replace('\n', " ");
                self.fail(pattern.span, format!("not a regular expression: {reason}"))
            }
        }
    }

    /// The operation's value instead of the operation, if its operands are constants.
    pub(super) fn finish(
        &mut self,
        operand: Operand,
        known: bool,
        ty: Type,
        nullable: bool,
        span: Span,
    ) -> Option<Checked> {
        if !known {
            return Some(Checked { operand, ty, nullable, span });
        }
        let arena = Bump::new();
        match operand.eval(&Environment::new(&[], None, &arena)) {
            Ok(slot) => {
                let operand = Constant::of(slot).map_or(operand, Operand::Constant);
                Some(Checked { operand, ty, nullable, span })
            }
            Err(error) => self.fail(span, error.message),
        }
    }
}

fn arithmetic(name: &str) -> Option<Arithmetic> {
    match name {
        names::ADD => Some(Arithmetic::Add),
        names::SUBSTRACT => Some(Arithmetic::Subtract),
        names::MULTIPLY => Some(Arithmetic::Multiply),
        names::DIVIDE => Some(Arithmetic::Divide),
        names::MODULO => Some(Arithmetic::Remainder),
        _ => None,
    }
}

fn comparison(name: &str) -> Option<Comparison> {
    match name {
        names::EQUALS => Some(Comparison::Equal),
        names::NOT_EQUALS => Some(Comparison::NotEqual),
        names::LESS => Some(Comparison::Less),
        names::LESS_EQUALS => Some(Comparison::LessOrEqual),
        names::GREATER => Some(Comparison::Greater),
        names::GREATER_EQUALS => Some(Comparison::GreaterOrEqual),
        _ => None,
    }
}

fn is_null(node: &IdedExpr) -> bool {
    matches!(node.expr, Expr::Literal(LiteralValue::Null))
}

pub(super) fn is_constant(checked: &Checked) -> bool {
    checked.operand.constant().is_some()
}

fn known_bool(value: bool, span: Span) -> Checked {
    Checked { operand: Operand::Constant(Constant::Bool(value)), ty: Type::Bool, nullable: false, span }
}

/// Whether the operand is null, compared with `expected`: known already where it cannot be null, unless
/// its evaluation may fail.
fn null_test(operand: Checked, expected: bool) -> Checked {
    let span = operand.span;
    match operand.operand {
        Operand::Constant(constant) => known_bool((constant == Constant::Null) == expected, span),
        Operand::Field(_) if !operand.nullable => known_bool(!expected, span),
        code => Checked { operand: compile::is_null(code, expected), ty: Type::Bool, nullable: false, span },
    }
}

fn comparison_hint(types: (Type, Type)) -> &'static str {
    match types {
        (Type::Timestamp, Type::String | Type::Int) | (Type::String | Type::Int, Type::Timestamp) => {
            "; convert it with timestamp(x)"
        }
        (Type::Duration, Type::String | Type::Int) | (Type::String | Type::Int, Type::Duration) => {
            "; convert it with duration(x)"
        }
        (Type::String, _) | (_, Type::String) => "; convert one of them",
        _ => "",
    }
}

/// The type with its article.
pub(super) fn a(ty: Type) -> String {
    match ty {
        Type::Int => format!("an {ty}"),
        Type::Bytes => ty.to_string(),
        Type::List(_) => format!("a list {ty}"),
        _ => format!("a {ty}"),
    }
}

fn count(arguments: usize) -> String {
    match arguments {
        0 => "no arguments".into(),
        1 => "1 argument".into(),
        more => format!("{more} arguments"),
    }
}
