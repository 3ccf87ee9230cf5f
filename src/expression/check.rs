//! Types and names: each node of the parser's tree becomes an operand with a type, or an error.

use std::collections::BTreeSet;

use cel::IdedExpr;
use cel::common::ast::{Expr, LiteralValue, SelectExpr};

use super::call::a;
use super::compile::{Constant, Failure, Operand, code, failure};
use super::parse::{Span, Text};
use super::{Environment, ExpressionError, Scope};
use crate::record::{Slot, SourceRecord, Type};

/// An operand and what is known of its value.
pub(super) struct Checked {
    pub operand: Operand,
    pub ty: Type,
    pub nullable: bool,
    pub span: Span,
}

/// What an expression names.
pub(super) struct Names {
    /// The slots of fields, in ascending order.
    pub fields: Vec<usize>,
    /// Anything of `meta`.
    pub meta: bool,
}

/// Checks and compiles `root`; also what it names.
pub(super) fn check(
    root: &IdedExpr,
    text: &Text<'_>,
    scope: &Scope<'_>,
) -> Result<(Checked, Names), Vec<ExpressionError>> {
    let mut checker = Checker { scope, text, errors: Vec::new(), fields: BTreeSet::new(), meta: false };
    match checker.check(root) {
        Some(checked) if checker.errors.is_empty() => {
            Ok((checked, Names { fields: checker.fields.into_iter().collect(), meta: checker.meta }))
        }
        _ => {
            checker.errors.sort_by_key(|error| (error.start, error.end));
            Err(checker.errors)
        }
    }
}

/// How many known names an error lists.
const LISTED_MAX: usize = 20;

const META_NAMES: [&str; 6] = ["key", "timestamp", "topic", "partition", "offset", "headers"];

/// The check of one expression; its operators and functions are in `call.rs`.
pub(super) struct Checker<'c> {
    pub scope: &'c Scope<'c>,
    pub text: &'c Text<'c>,
    pub errors: Vec<ExpressionError>,
    pub fields: BTreeSet<usize>,
    pub meta: bool,
}

/// Its methods give `None` after they have added an error, so that the caller goes on to look for more.
impl Checker<'_> {
    pub(super) fn fail<T>(&mut self, span: Span, message: impl Into<String>) -> Option<T> {
        self.errors.push(self.text.error(span, message.into()));
        None
    }

    /// A name that is not known: the nearest known one, or else a list of them.
    pub(super) fn fail_unknown<T>(
        &mut self,
        span: Span,
        what: &str,
        name: &str,
        known: &[&str],
    ) -> Option<T> {
        let suggestion = nearest(name, known);
        let list = match suggestion {
            Some(_) => String::new(),
            None if known.len() > LISTED_MAX => format!("; there are {}, …", known[..LISTED_MAX].join(", ")),
            None => format!("; there are {}", known.join(", ")),
        };
        let message = format!("unknown {what} `{name}`{list}");
        self.errors.push(ExpressionError { suggestion, ..self.text.error(span, message) });
        None
    }

    pub(super) fn check(&mut self, node: &IdedExpr) -> Option<Checked> {
        let span = self.text.token(node.id);
        match &node.expr {
            Expr::Literal(literal) => self.literal(span, literal),
            Expr::Ident(name) => self.field(span, name),
            Expr::Select(select) => self.select(node.id, select),
            Expr::Call(call) => self.call(node.id, call),
            Expr::List(list) => self.list(span, list),
            Expr::Map(_) => self.fail(span, "maps are not part of the language"),
            Expr::Struct(_) => self.fail(span, "messages are not part of the language"),
            Expr::Comprehension(_) | Expr::Unspecified => self.fail(span, "this is not part of the language"),
        }
    }

    fn literal(&mut self, span: Span, literal: &LiteralValue) -> Option<Checked> {
        let (constant, ty) = match literal {
            LiteralValue::Boolean(value) => (Constant::Bool(*value.inner()), Type::Bool),
            LiteralValue::Int(value) => (Constant::Int(*value.inner()), Type::Int),
            LiteralValue::Double(value) => (Constant::Double(*value.inner()), Type::Double),
            LiteralValue::String(value) => (Constant::String(value.inner().into()), Type::String),
            LiteralValue::Bytes(value) => (Constant::Bytes(value.inner().into()), Type::Bytes),
            LiteralValue::UInt(_) => {
                return self.fail(span, "there are no unsigned ints; leave out the `u`");
            }
            LiteralValue::Null => {
                return self.fail(
                    span,
                    "null has no type here: it may be compared by == and != and be a branch of ? :",
                );
            }
        };
        Some(Checked { operand: Operand::Constant(constant), ty, nullable: false, span })
    }

    fn field(&mut self, span: Span, name: &str) -> Option<Checked> {
        let schema = self.scope.schema;
        if let Some(index) = schema.position(name) {
            self.fields.insert(index);
            let field = &schema.fields[index];
            return Some(Checked {
                operand: Operand::Field(index),
                ty: field.ty,
                nullable: field.nullable,
                span,
            });
        }
        if name == "meta" {
            let names = META_NAMES.map(|name| format!("meta.{name}")).join(", ");
            return self.fail(span, format!("`meta` is no value itself; there are {names}"));
        }
        let known: Vec<&str> = schema.fields.iter().map(|field| field.name.as_str()).collect();
        self.fail_unknown(span, "field", name, &known)
    }

    fn select(&mut self, id: u64, select: &SelectExpr) -> Option<Checked> {
        let name = select.field.as_str();
        let span = self.text.selected_name(id, name);
        match &select.operand.expr {
            Expr::Ident(root) if self.is_meta(root) => {
                let span = self.text.token(select.operand.id).to(span);
                self.meta(span, name)
            }
            Expr::Select(headers) if self.is_headers(headers) => {
                let key = Operand::Constant(Constant::String(name.into()));
                self.header(self.text.token(select.operand.id).to(span), key)
            }
            _ => {
                let operand = self.check(&select.operand)?;
                let message = format!(
                    "{} has no `.{name}`; a nested value needs a field of its own in the schema, with a `path`",
                    a(operand.ty)
                );
                self.fail(span, message)
            }
        }
    }

    pub(super) fn is_meta(&self, name: &str) -> bool {
        name == "meta" && self.scope.schema.position("meta").is_none()
    }

    pub(super) fn is_headers(&self, select: &SelectExpr) -> bool {
        select.field == "headers" && matches!(&select.operand.expr, Expr::Ident(root) if self.is_meta(root))
    }

    fn meta_allowed(&mut self, span: Span) -> Option<()> {
        self.meta = true;
        match self.scope.meta {
            true => Some(()),
            false => self.fail(span, "`meta` may not be used here: these rows come from no single record"),
        }
    }

    fn meta(&mut self, span: Span, name: &str) -> Option<Checked> {
        self.meta_allowed(span)?;
        let (operand, ty, nullable) = match name {
            "key" => (meta(|record| text_slot(record.key)), Type::String, true),
            "timestamp" => (
                meta(|record| match record.timestamp_ms {
                    -1 => Slot::Null,
                    ms => Slot::Timestamp(ms),
                }),
                Type::Timestamp,
                true,
            ),
            "topic" => {
                (meta(|record| Slot::String(&record.records.topic_partition().topic)), Type::String, false)
            }
            "partition" => (
                meta(|record| Slot::Int(record.records.topic_partition().partition.into())),
                Type::Int,
                false,
            ),
            "offset" => (meta(|record| Slot::Int(record.offset)), Type::Int, false),
            "headers" => {
                return self.fail(span, "`meta.headers` is no value itself; write meta.headers[\"name\"]");
            }
            _ => {
                return self.fail_unknown(span, "metadata", name, &META_NAMES);
            }
        };
        Some(Checked { operand, ty, nullable, span })
    }

    /// The last header of that name, null if there is none or it is not text.
    pub(super) fn header(&mut self, span: Span, name: Operand) -> Option<Checked> {
        self.meta_allowed(span)?;
        let operand = code(move |environment| {
            let record = source(environment)?;
            let Slot::String(name) = name.eval(environment)? else {
                return Ok(Slot::Null);
            };
            let mut value = None;
            record.records.headers(record.index, &mut |header, bytes| {
                if header == name {
                    value = bytes;
                }
            });
            Ok(text_slot(value))
        });
        Some(Checked { operand, ty: Type::String, nullable: true, span })
    }
}

/// The closure of a part of the source record.
fn meta<F>(part: F) -> Operand
where
    F: for<'b> Fn(SourceRecord<'b>) -> Slot<'b> + Send + Sync + 'static,
{
    code(move |environment| source(environment).map(&part))
}

fn source<'b>(environment: &Environment<'_, 'b>) -> Result<SourceRecord<'b>, Failure> {
    environment
        .source
        .ok_or_else(|| failure("`meta` has no value: the row comes from no single record".into()))
}

/// Bytes as text; null if there are none or they are not UTF-8.
fn text_slot(bytes: Option<&[u8]>) -> Slot<'_> {
    bytes.and_then(|bytes| std::str::from_utf8(bytes).ok()).map_or(Slot::Null, Slot::String)
}

/// The known name that `name` was most likely meant to be, if one is near enough.
fn nearest(name: &str, known: &[&str]) -> Option<String> {
    let name = name.to_lowercase();
    known
        .iter()
        .map(|known| (strsim::osa_distance(&name, &known.to_lowercase()), known))
        .filter(|(distance, known)| *distance <= (known.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| (*known).to_owned())
}
