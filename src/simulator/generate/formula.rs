//! Expressions as a structure: made by chance, written as CEL, evaluated by the reference.

use std::fmt::Write;
use std::sync::Arc;

use crate::random::Random;
use crate::record::{Field, FieldForm, Type};

/// A value of a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// No value.
    Null,
    /// A bool.
    Bool(bool),
    /// An int.
    Int(i64),
    /// A double, never NaN nor infinite.
    Double(f64),
    /// Text.
    Text(Arc<str>),
    /// Milliseconds since the Unix epoch.
    Timestamp(i64),
    /// Milliseconds.
    Duration(i64),
    /// Values of one type, or null.
    List(Arc<[Value]>),
}

/// A part of the record that a row came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meta {
    /// Null if there is none or it is not UTF-8.
    Key,
    /// The record's timestamp.
    Timestamp,
    /// The topic.
    Topic,
    /// The partition's number.
    Partition,
    /// The offset.
    Offset,
    /// The last header of the name [`HEADER`].
    Header,
}

/// The header that expressions ask for.
pub const HEADER: &str = "h";

/// An operator of two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "as CEL calls them")]
pub enum Binary {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "as CEL calls them")]
pub enum Function {
    Size,
    Contains,
    StartsWith,
    EndsWith,
    LowerAscii,
    UpperAscii,
    Int,
    Double,
    String,
    GetHours,
    GetSeconds,
    GetMilliseconds,
    Split,
    Join,
}

/// What is asked of the elements of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "as CEL calls them")]
pub enum OfElements {
    All,
    Exists,
    Filter,
    Map,
}

/// An expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Formula {
    /// A constant.
    Literal(Value),
    /// The slot of a field.
    Field(usize),
    /// A part of the source record.
    Meta(Meta),
    /// `-x`
    Negate(Box<Formula>),
    /// `!x`
    Not(Box<Formula>),
    /// `x op y`
    Binary(Binary, Box<Formula>, Box<Formula>),
    /// `x && y`
    And(Box<Formula>, Box<Formula>),
    /// `x || y`
    Or(Box<Formula>, Box<Formula>),
    /// `x == null`, or `x != null` if false.
    IsNull(Box<Formula>, bool),
    /// `has(x)` of a field or a part of `meta`.
    Has(Box<Formula>),
    /// `x in [...]`
    In(Box<Formula>, Vec<Formula>),
    /// `c ? x : y`; a double if `promoted`.
    Choose {
        /// The condition.
        condition: Box<Formula>,
        /// If it is true.
        then: Box<Formula>,
        /// If it is false.
        otherwise: Box<Formula>,
        /// Whether an int becomes a double.
        promoted: bool,
    },
    /// `[x, y]`
    List(Vec<Formula>),
    /// `x in list`
    IsElement(Box<Formula>, Box<Formula>),
    /// `list[x]`
    Element(Box<Formula>, Box<Formula>),
    /// `list.exists(v, x)` and the like: `v` is the field behind those of the row.
    OfElements(OfElements, Box<Formula>, Box<Formula>),
    /// A function of one value or two.
    Call(Function, Vec<Formula>),
}

const TEXTS: [&str; 8] = ["a", "12", "-7", "", "q\"uo'te\\", "é\u{1f3c1}", "Ab c", "x\ny"];
const INTS: [i64; 8] = [0, 1, -1, 2, 7, 100, 1 << 40, i64::MAX];
const DOUBLES: [f64; 6] = [0.5, 1.0, -2.25, 100.0, 1e300, 0.1];

/// What expressions are made of.
pub struct Scope<'g> {
    /// The fields of the stream.
    pub fields: &'g [Field],
    /// Whether its rows come from one record each.
    pub meta: bool,
}

impl Scope<'_> {
    /// An expression of type `ty`, at most `depth` operators deep. It has no constant part that fails.
    pub fn formula(&self, ty: Type, depth: u32, random: &mut Random) -> Formula {
        if depth == 0 || random.one_in(4) {
            return self.leaf(ty, random);
        }
        match random.below(8) {
            0 => return self.choose(ty, depth, random),
            1 if matches!(ty, Type::Int | Type::Double) => {
                let operand = self.formula(ty, depth - 1, random);
                // A constant is written with its sign.
                return if is_constant(&operand) { operand } else { Formula::Negate(operand.into()) };
            }
            _ => {}
        }
        match ty {
            Type::Bool => self.condition(depth - 1, random),
            Type::Int => self.int(depth - 1, random),
            Type::Double => self.double(depth - 1, random),
            Type::String => self.text(depth - 1, random),
            Type::Timestamp => {
                let timestamp = self.leaf(Type::Timestamp, random);
                let op = *random.pick(&[Binary::Add, Binary::Subtract]);
                let duration = Formula::Literal(Value::Duration(*random.pick(&[250, 1_000, 90_000])));
                binary(op, timestamp, duration)
            }
            Type::Duration => {
                let (left, right) = (self.leaf(Type::Timestamp, random), self.leaf(Type::Timestamp, random));
                binary(Binary::Subtract, left, right)
            }
            Type::Bytes => self.leaf(ty, random),
            Type::List(of) => self.list(of.element.ty(), depth - 1, random),
        }
    }

    fn choose(&self, ty: Type, depth: u32, random: &mut Random) -> Formula {
        let condition = self.condition(depth - 1, random).into();
        let then = self.formula(ty, depth - 1, random);
        let otherwise = match random.below(4) {
            0 => Formula::Literal(Value::Null),
            1 if ty == Type::Double => self.formula(Type::Int, depth - 1, random),
            _ => self.formula(ty, depth - 1, random),
        };
        let promoted = ty == Type::Double;
        Formula::Choose { condition, then: then.into(), otherwise: otherwise.into(), promoted }
    }

    /// A field or a part of `meta`; a constant if there is none.
    pub(super) fn leaf(&self, ty: Type, random: &mut Random) -> Formula {
        if self.meta && random.one_in(6) {
            let parts: &[Meta] = match ty {
                Type::String => &[Meta::Key, Meta::Topic, Meta::Header, Meta::Header],
                Type::Int => &[Meta::Partition, Meta::Offset],
                Type::Timestamp => &[Meta::Timestamp],
                _ => &[],
            };
            if !parts.is_empty() {
                return Formula::Meta(*random.pick(parts));
            }
        }
        let count = self.fields.iter().filter(|field| field.ty == ty).count() as u64;
        let place = random.below(count) as usize;
        let mut fields = self.fields.iter().enumerate().filter(|(_, field)| field.ty == ty);
        match fields.nth(place) {
            Some((slot, _)) => Formula::Field(slot),
            None => literal(ty, random),
        }
    }

    fn condition(&self, depth: u32, random: &mut Random) -> Formula {
        if self.asks_for_lists(random) {
            return self.of_list(random);
        }
        let inner = |random: &mut Random| -> Box<Formula> {
            Box::new(if depth == 0 { self.comparison(random) } else { self.condition(depth - 1, random) })
        };
        match random.below(10) {
            0 => Formula::Not(inner(random)),
            1 => Formula::And(inner(random), inner(random)),
            2 => Formula::Or(inner(random), inner(random)),
            3 => {
                let ty = *random.pick(&[Type::Int, Type::Double, Type::String, Type::Bool]);
                let tested = self.leaf(ty, random);
                match tested {
                    Formula::Literal(_) => self.comparison(random),
                    _ if random.one_in(2) => Formula::Has(tested.into()),
                    _ => Formula::IsNull(tested.into(), random.one_in(2)),
                }
            }
            4 => {
                let ty = *random.pick(&[Type::Int, Type::String]);
                let elements = (0..1 + random.below(6)).map(|_| match random.below(4) {
                    0 => self.leaf(ty, random),
                    _ => literal(ty, random),
                });
                let elements = elements.collect();
                Formula::In(self.leaf(ty, random).into(), elements)
            }
            5 => {
                let function = *random.pick(&[Function::Contains, Function::StartsWith, Function::EndsWith]);
                let text = self.formula(Type::String, depth.min(1), random);
                Formula::Call(function, vec![text, literal(Type::String, random)])
            }
            6 => match self.leaf(Type::Bool, random) {
                Formula::Literal(_) => self.comparison(random),
                flag => flag,
            },
            _ if depth > 0 => {
                let ty = *random.pick(&[Type::Int, Type::Double, Type::String]);
                let other = if ty == Type::Int && random.one_in(3) { Type::Double } else { ty };
                let left = self.formula(ty, depth, random);
                binary(comparison(random), left, self.formula(other, depth - 1, random))
            }
            _ => self.comparison(random),
        }
    }

    /// A comparison of a field with a constant.
    fn comparison(&self, random: &mut Random) -> Formula {
        let slot = random.below(self.fields.len() as u64) as usize;
        let ty = match self.fields[slot].ty {
            Type::Int if random.one_in(4) => Type::Double,
            Type::List(_) => {
                let size = Formula::Call(Function::Size, vec![Formula::Field(slot)]);
                return binary(comparison(random), size, literal(Type::Int, random));
            }
            ty => ty,
        };
        binary(comparison(random), Formula::Field(slot), literal(ty, random))
    }

    fn int(&self, depth: u32, random: &mut Random) -> Formula {
        if self.asks_for_lists(random) {
            return self.of_lists(Type::Int, random);
        }
        let call = |function: Function, argument: Formula| Formula::Call(function, vec![argument]);
        match random.below(8) {
            0 => call(Function::Size, self.formula(Type::String, depth, random)),
            1 => self.converted(Function::Int, Type::Double, depth, random),
            2 => self.converted(Function::Int, Type::String, depth, random),
            3 => {
                let parts = [Function::GetHours, Function::GetSeconds, Function::GetMilliseconds];
                self.converted(*random.pick(&parts), Type::Timestamp, 0, random)
            }
            _ => {
                let op = [Binary::Add, Binary::Subtract, Binary::Multiply, Binary::Divide, Binary::Remainder];
                self.arithmetic(*random.pick(&op), (Type::Int, Type::Int), depth, random)
            }
        }
    }

    fn double(&self, depth: u32, random: &mut Random) -> Formula {
        if random.one_in(6) {
            return self.converted(Function::Double, Type::Int, depth, random);
        }
        let types = [(Type::Double, Type::Double), (Type::Int, Type::Double), (Type::Double, Type::Int)];
        let op = [Binary::Add, Binary::Subtract, Binary::Multiply, Binary::Divide];
        self.arithmetic(*random.pick(&op), *random.pick(&types), depth, random)
    }

    fn text(&self, depth: u32, random: &mut Random) -> Formula {
        if self.asks_for_lists(random) {
            return self.of_lists(Type::String, random);
        }
        match random.below(4) {
            0 => self.converted(Function::LowerAscii, Type::String, depth, random),
            1 => self.converted(Function::UpperAscii, Type::String, depth, random),
            2 => self.converted(Function::String, Type::Int, depth, random),
            _ => self.arithmetic(Binary::Add, (Type::String, Type::String), depth, random),
        }
    }

    /// A function of one value, which is not constant: the call may fail.
    fn converted(&self, function: Function, from: Type, depth: u32, random: &mut Random) -> Formula {
        let argument = self.formula(from, depth, random);
        if is_constant(&argument) {
            let to = match function {
                Function::Double => Type::Double,
                Function::String | Function::LowerAscii | Function::UpperAscii => Type::String,
                _ => Type::Int,
            };
            return literal(to, random);
        }
        Formula::Call(function, vec![argument])
    }

    /// An operator of which the left side is not constant: it may fail.
    fn arithmetic(&self, op: Binary, types: (Type, Type), depth: u32, random: &mut Random) -> Formula {
        let left = self.formula(types.0, depth, random);
        let double = types.0 == Type::Double || types.1 == Type::Double;
        if is_constant(&left) {
            return literal(if double { Type::Double } else { types.0 }, random);
        }
        let right = match random.below(2) {
            0 => literal(types.1, random),
            _ => self.formula(types.1, depth, random),
        };
        binary(op, left, right)
    }
}

pub(super) fn binary(op: Binary, left: Formula, right: Formula) -> Formula {
    Formula::Binary(op, left.into(), right.into())
}

pub(super) fn comparison(random: &mut Random) -> Binary {
    const COMPARISONS: [Binary; 6] = [
        Binary::Equal,
        Binary::NotEqual,
        Binary::Less,
        Binary::LessOrEqual,
        Binary::Greater,
        Binary::GreaterOrEqual,
    ];
    *random.pick(&COMPARISONS)
}

/// A constant.
pub fn literal(ty: Type, random: &mut Random) -> Formula {
    Formula::Literal(match ty {
        Type::Bool => Value::Bool(random.one_in(2)),
        Type::Int => Value::Int(*random.pick(&INTS)),
        Type::Double => Value::Double(*random.pick(&DOUBLES)),
        Type::String | Type::Bytes => Value::Text((*random.pick(&TEXTS)).into()),
        // 2023-11-14T22:13:20Z: where the generated inputs begin.
        Type::Timestamp => Value::Timestamp(1_700_000_000_000 + random.below(100) as i64 * 500),
        Type::Duration => Value::Duration(random.below(100) as i64 * 500),
        Type::List(of) => return Formula::List(vec![literal(of.element.ty(), random)]),
    })
}

/// Whether the engine may find, before any row comes, that it is one value: what fails on that would be a
/// mistake of the file. Null fails nowhere.
fn is_constant(formula: &Formula) -> bool {
    match formula {
        Formula::Literal(value) => *value != Value::Null,
        Formula::Field(_) | Formula::Meta(_) => false,
        Formula::Negate(x) | Formula::Not(x) => is_constant(x),
        Formula::Binary(_, x, y) => is_constant(x) && is_constant(y),
        // Nothing that may fail takes a bool.
        Formula::And(..) | Formula::Or(..) | Formula::IsNull(..) | Formula::Has(_) | Formula::In(..) => true,
        // The condition may be constant.
        Formula::Choose { then, otherwise, .. } => is_constant(then) || is_constant(otherwise),
        // Those of lists are not found.
        Formula::List(_) | Formula::IsElement(..) | Formula::Element(..) | Formula::OfElements(..) => false,
        Formula::Call(_, arguments) => arguments.iter().all(is_constant),
    }
}

impl Formula {
    /// Appends it as CEL. Writing to text cannot fail.
    pub fn render(&self, fields: &[Field], out: &mut String) {
        match self {
            Formula::Literal(value) => render_literal(value, out),
            Formula::Field(slot) => out.push_str(&fields[*slot].name),
            Formula::Meta(part) => out.push_str(match part {
                Meta::Key => "meta.key",
                Meta::Timestamp => "meta.timestamp",
                Meta::Topic => "meta.topic",
                Meta::Partition => "meta.partition",
                Meta::Offset => "meta.offset",
                Meta::Header => "meta.headers[\"h\"]",
            }),
            Formula::Negate(x) => render_parts(out, fields, &["-(", ")"], &[x]),
            Formula::Not(x) => render_parts(out, fields, &["!(", ")"], &[x]),
            Formula::Has(x) => render_parts(out, fields, &["has(", ")"], &[x]),
            Formula::IsNull(x, true) => render_parts(out, fields, &["(", " == null)"], &[x]),
            Formula::IsNull(x, false) => render_parts(out, fields, &["(", " != null)"], &[x]),
            Formula::And(x, y) => render_parts(out, fields, &["(", " && ", ")"], &[x, y]),
            Formula::Or(x, y) => render_parts(out, fields, &["(", " || ", ")"], &[x, y]),
            Formula::Binary(op, x, y) => render_parts(out, fields, &["(", op.text(), ")"], &[x, y]),
            Formula::Choose { condition, then, otherwise, .. } => {
                render_parts(out, fields, &["(", " ? ", " : ", ")"], &[condition, then, otherwise]);
            }
            Formula::In(x, elements) => {
                render_parts(out, fields, &["(", " in "], &[x]);
                render_list("[", elements, "])", fields, out);
            }
            Formula::List(elements) => render_list("[", elements, "]", fields, out),
            Formula::IsElement(x, list) => render_parts(out, fields, &["(", " in ", ")"], &[x, list]),
            Formula::Element(list, place) => render_parts(out, fields, &["(", ")[", "]"], &[list, place]),
            Formula::OfElements(what, list, body) => {
                render_parts(out, fields, &["(", ")."], &[list]);
                let name = format!("v{}", fields.len());
                let _ = write!(out, "{}({name}, ", what.text());
                let variable = Field { name, ..fields.first().cloned().unwrap_or_else(unnamed) };
                body.render(&[fields, &[variable]].concat(), out);
                out.push(')');
            }
            Formula::Call(function, arguments) => {
                let (name, of_receiver) = function.text();
                let (receiver, others) = arguments.split_at(usize::from(of_receiver));
                if let Some(receiver) = receiver.first() {
                    render_parts(out, fields, &["(", ")."], &[receiver]);
                }
                out.push_str(name);
                render_list("(", others, ")", fields, out);
            }
        }
    }
}

impl Binary {
    fn text(self) -> &'static str {
        match self {
            Binary::Add => " + ",
            Binary::Subtract => " - ",
            Binary::Multiply => " * ",
            Binary::Divide => " / ",
            Binary::Remainder => " % ",
            Binary::Equal => " == ",
            Binary::NotEqual => " != ",
            Binary::Less => " < ",
            Binary::LessOrEqual => " <= ",
            Binary::Greater => " > ",
            Binary::GreaterOrEqual => " >= ",
        }
    }
}

impl Function {
    /// The name, and whether it stands behind its first argument.
    fn text(self) -> (&'static str, bool) {
        match self {
            Function::Size => ("size", false),
            Function::Contains => ("contains", true),
            Function::StartsWith => ("startsWith", true),
            Function::EndsWith => ("endsWith", true),
            Function::LowerAscii => ("lowerAscii", true),
            Function::UpperAscii => ("upperAscii", true),
            Function::Int => ("int", false),
            Function::Double => ("double", false),
            Function::String => ("string", false),
            Function::GetHours => ("getHours", true),
            Function::GetSeconds => ("getSeconds", true),
            Function::GetMilliseconds => ("getMilliseconds", true),
            Function::Split => ("split", false),
            Function::Join => ("join", false),
        }
    }
}

impl OfElements {
    fn text(self) -> &'static str {
        match self {
            OfElements::All => "all",
            OfElements::Exists => "exists",
            OfElements::Filter => "filter",
            OfElements::Map => "map",
        }
    }
}

fn unnamed() -> Field {
    Field { name: String::new(), ty: Type::Int, nullable: true, form: FieldForm::Plain }
}

fn render_list(open: &str, elements: &[Formula], close: &str, fields: &[Field], out: &mut String) {
    out.push_str(open);
    for (place, element) in elements.iter().enumerate() {
        out.push_str(if place == 0 { "" } else { ", " });
        element.render(fields, out);
    }
    out.push_str(close);
}

/// Appends texts with expressions between them.
fn render_parts(out: &mut String, fields: &[Field], texts: &[&str], parts: &[&Formula]) {
    for (place, text) in texts.iter().enumerate() {
        out.push_str(text);
        if let Some(part) = parts.get(place) {
            part.render(fields, out);
        }
    }
}

fn render_literal(value: &Value, out: &mut String) {
    let _ = match value {
        Value::Null => write!(out, "null"),
        Value::Bool(value) => write!(out, "{value}"),
        Value::Int(value) => write!(out, "{value}"),
        Value::Double(value) => write!(out, "{value:?}"),
        Value::Timestamp(ms) => write!(out, "timestamp({ms})"),
        Value::Duration(ms) => write!(out, "duration(\"{ms}ms\")"),
        Value::Text(text) => {
            out.push('"');
            for character in text.chars() {
                match character {
                    '"' | '\\' => out.extend(['\\', character]),
                    '\n' => out.push_str("\\n"),
                    _ => out.push(character),
                }
            }
            write!(out, "\"")
        }
        Value::List(_) => Ok(()), // a formula makes it
    };
}
