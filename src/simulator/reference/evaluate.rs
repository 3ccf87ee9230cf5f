//! The value of an expression, as docs/expressions.md says.

use std::sync::Arc;

use super::json::RFC3339_MS;
use crate::simulator::Input;
use crate::simulator::generate::formula::{Binary, Formula, Function, HEADER, Meta, OfElements, Value};

/// It has no value: the record goes to `on_error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed;

/// A source record and its place.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'i> {
    /// The record.
    pub input: &'i Arc<Input>,
    /// Its offset.
    pub offset: i64,
}

/// A row and the record that it came from, if it is one.
#[derive(Clone, Copy)]
pub struct Environment<'r> {
    /// Its values.
    pub row: &'r [Value],
    /// `None` behind a window.
    pub origin: Option<Origin<'r>>,
}

impl Environment<'_> {
    /// The value of an expression.
    pub fn evaluate(&self, formula: &Formula) -> Result<Value, Failed> {
        Ok(match formula {
            Formula::Literal(value) => value.clone(),
            Formula::Field(slot) => self.row[*slot].clone(),
            Formula::Meta(part) => self.meta(*part),
            Formula::Negate(x) => match self.evaluate(x)? {
                Value::Int(value) => Value::Int(value.checked_neg().ok_or(Failed)?),
                Value::Double(value) => Value::Double(-value),
                other => other,
            },
            Formula::Not(x) => match self.evaluate(x)? {
                Value::Bool(value) => Value::Bool(!value),
                other => other,
            },
            Formula::And(x, y) => return self.decide(x, y, false),
            Formula::Or(x, y) => return self.decide(x, y, true),
            Formula::IsNull(x, expected) => Value::Bool((self.evaluate(x)? == Value::Null) == *expected),
            Formula::Has(x) => Value::Bool(self.evaluate(x)? != Value::Null),
            Formula::Binary(op, x, y) => {
                // Both sides are asked: an error is stronger than null.
                let (left, right) = (self.evaluate(x)?, self.evaluate(y)?);
                return binary(*op, &left, &right);
            }
            Formula::In(x, elements) => return self.is_in(x, elements),
            Formula::Choose { condition, then, otherwise, promoted } => {
                let value = match self.evaluate(condition)? {
                    Value::Bool(true) => self.evaluate(then)?,
                    Value::Bool(false) => self.evaluate(otherwise)?,
                    _ => Value::Null,
                };
                match value {
                    Value::Int(value) if *promoted => Value::Double(value as f64),
                    value => value,
                }
            }
            Formula::List(elements) => {
                let values = elements.iter().map(|element| self.evaluate(element));
                Value::List(values.collect::<Result<Vec<Value>, Failed>>()?.into())
            }
            Formula::IsElement(x, list) => {
                let (needle, list) = (self.evaluate(x)?, self.evaluate(list)?);
                let Value::List(elements) = list else { return Ok(Value::Null) };
                return find(&needle, elements.iter().cloned().map(Ok));
            }
            Formula::Element(list, place) => match (self.evaluate(list)?, self.evaluate(place)?) {
                (Value::List(elements), Value::Int(place)) => {
                    let place = usize::try_from(place).map_err(|_| Failed)?;
                    elements.get(place).ok_or(Failed)?.clone()
                }
                _ => Value::Null,
            },
            Formula::OfElements(what, list, body) => match self.evaluate(list)? {
                Value::List(elements) => return self.of_elements(*what, &elements, body),
                _ => Value::Null,
            },
            Formula::Call(function, arguments) => {
                let values: Result<Vec<Value>, Failed> =
                    arguments.iter().map(|argument| self.evaluate(argument)).collect();
                let values = values?;
                if values.contains(&Value::Null) {
                    return Ok(Value::Null);
                }
                return call(*function, &values);
            }
        })
    }

    fn meta(&self, part: Meta) -> Value {
        let Some(Origin { input, offset }) = self.origin else { return Value::Null };
        let text = |bytes: Option<&[u8]>| match bytes.map(std::str::from_utf8) {
            Some(Ok(text)) => Value::Text(text.into()),
            _ => Value::Null,
        };
        match part {
            Meta::Key => text(input.key.as_deref()),
            Meta::Timestamp if input.timestamp_ms < 0 => Value::Null,
            Meta::Timestamp => Value::Timestamp(input.timestamp_ms),
            Meta::Topic => Value::Text(input.partition.topic.clone()),
            Meta::Partition => Value::Int(i64::from(input.partition.partition)),
            Meta::Offset => Value::Int(offset),
            Meta::Header => {
                let last = input.headers.iter().rev().find(|(name, _)| name == HEADER);
                text(last.and_then(|(_, value)| value.as_deref()))
            }
        }
    }

    /// `x && y` if one false decides, `x || y` if one true does: first that, then errors, then null.
    fn decide(&self, x: &Formula, y: &Formula, decides: bool) -> Result<Value, Failed> {
        let (left, right) = (self.evaluate(x), self.evaluate(y));
        if left == Ok(Value::Bool(decides)) || right == Ok(Value::Bool(decides)) {
            return Ok(Value::Bool(decides));
        }
        match (left?, right?) {
            (Value::Null, _) | (_, Value::Null) => Ok(Value::Null),
            _ => Ok(Value::Bool(!decides)),
        }
    }

    fn is_in(&self, x: &Formula, elements: &[Formula]) -> Result<Value, Failed> {
        let needle = self.evaluate(x)?;
        find(&needle, elements.iter().map(|element| self.evaluate(element)))
    }

    /// What is asked of elements: each stands behind the row.
    fn of_elements(&self, what: OfElements, elements: &[Value], body: &Formula) -> Result<Value, Failed> {
        let mut row = self.row.to_vec();
        let mut values = Vec::new();
        for element in elements {
            row.push(element.clone());
            values.push(Environment { row: &row, origin: self.origin }.evaluate(body));
            row.pop();
        }
        let decided = |decides: bool| {
            if values.contains(&Ok(Value::Bool(decides))) {
                return Ok(Value::Bool(decides));
            }
            let values = values.iter().cloned().collect::<Result<Vec<Value>, Failed>>()?;
            Ok(if values.contains(&Value::Null) { Value::Null } else { Value::Bool(!decides) })
        };
        match what {
            OfElements::All => decided(false),
            OfElements::Exists => decided(true),
            OfElements::Map => {
                Ok(Value::List(values.into_iter().collect::<Result<Vec<Value>, Failed>>()?.into()))
            }
            OfElements::Filter => {
                let values = values.into_iter().collect::<Result<Vec<Value>, Failed>>()?;
                let kept = elements.iter().zip(values).filter(|(_, value)| *value == Value::Bool(true));
                Ok(Value::List(kept.map(|(element, _)| element.clone()).collect()))
            }
        }
    }
}

/// Whether a value is among others.
fn find(needle: &Value, elements: impl Iterator<Item = Result<Value, Failed>>) -> Result<Value, Failed> {
    let mut unknown = *needle == Value::Null;
    for element in elements {
        match binary(Binary::Equal, needle, &element?)? {
            Value::Bool(true) => return Ok(Value::Bool(true)),
            Value::Null => unknown = true,
            _ => {}
        }
    }
    Ok(if unknown { Value::Null } else { Value::Bool(false) })
}

/// A number as a double.
pub fn double(value: &Value) -> Option<f64> {
    match value {
        Value::Int(value) => Some(*value as f64),
        Value::Double(value) => Some(*value),
        _ => None,
    }
}

/// A double that is none if it is not finite.
pub fn finite(value: f64) -> Result<f64, Failed> {
    if value.is_finite() { Ok(value) } else { Err(Failed) }
}

fn binary(op: Binary, left: &Value, right: &Value) -> Result<Value, Failed> {
    if *left == Value::Null || *right == Value::Null {
        return Ok(Value::Null);
    }
    match op {
        Binary::Add | Binary::Subtract | Binary::Multiply | Binary::Divide | Binary::Remainder => {
            arithmetic(op, left, right)
        }
        _ => {
            use std::cmp::Ordering::{Equal, Greater, Less};
            let order = compare(left, right).ok_or(Failed)?;
            Ok(Value::Bool(match op {
                Binary::Equal => order == Equal,
                Binary::NotEqual => order != Equal,
                Binary::Less => order == Less,
                Binary::LessOrEqual => order != Greater,
                Binary::Greater => order == Greater,
                _ => order != Less,
            }))
        }
    }
}

/// The order of two values of one type, or of two numbers.
fn compare(left: &Value, right: &Value) -> Option<std::cmp::Ordering> {
    match (left, right) {
        (Value::Int(a), Value::Int(b))
        | (Value::Timestamp(a), Value::Timestamp(b))
        | (Value::Duration(a), Value::Duration(b)) => Some(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        // UTF-8 keeps the order of the code points.
        (Value::Text(a), Value::Text(b)) => Some(a.cmp(b)),
        _ => double(left)?.partial_cmp(&double(right)?),
    }
}

fn arithmetic(op: Binary, left: &Value, right: &Value) -> Result<Value, Failed> {
    let whole = |a: i64, b: i64| {
        let value = match op {
            Binary::Add => a.checked_add(b),
            Binary::Subtract => a.checked_sub(b),
            Binary::Multiply => a.checked_mul(b),
            Binary::Divide => a.checked_div(b),
            _ => a.checked_rem(b),
        };
        value.ok_or(Failed)
    };
    match (left, right) {
        (Value::Int(a), Value::Int(b)) => whole(*a, *b).map(Value::Int),
        (Value::Timestamp(a), Value::Duration(b)) | (Value::Duration(a), Value::Timestamp(b)) => {
            whole(*a, *b).map(Value::Timestamp)
        }
        (Value::Timestamp(a), Value::Timestamp(b)) | (Value::Duration(a), Value::Duration(b)) => {
            whole(*a, *b).map(Value::Duration)
        }
        (Value::Text(a), Value::Text(b)) => Ok(Value::Text(format!("{a}{b}").into())),
        _ => {
            let (a, b) = (double(left).ok_or(Failed)?, double(right).ok_or(Failed)?);
            let value = match op {
                Binary::Add => a + b,
                Binary::Subtract => a - b,
                Binary::Multiply => a * b,
                _ => a / b,
            };
            finite(value).map(Value::Double)
        }
    }
}

fn call(function: Function, values: &[Value]) -> Result<Value, Failed> {
    let part = |unit_ms: i64, count: i64| match values {
        [Value::Timestamp(ms)] if RFC3339_MS.contains(ms) => {
            Ok(Value::Int(ms.div_euclid(unit_ms).rem_euclid(count)))
        }
        _ => Err(Failed),
    };
    match (function, values) {
        (Function::GetHours, _) => part(3_600_000, 24),
        (Function::GetSeconds, _) => part(1_000, 60),
        (Function::GetMilliseconds, _) => part(1, 1_000),
        (Function::Size, [Value::List(elements)]) => Ok(Value::Int(elements.len() as i64)),
        (Function::Split, [Value::Text(text), Value::Text(separator)]) => {
            let parts: Vec<String> = match separator.is_empty() {
                true => text.chars().map(String::from).collect(),
                false => text.split(&**separator).map(String::from).collect(),
            };
            Ok(Value::List(parts.into_iter().map(|part| Value::Text(part.into())).collect()))
        }
        (Function::Join, [Value::List(elements), Value::Text(separator)]) => {
            let texts = elements.iter().filter_map(|element| match element {
                Value::Text(text) => Some(&**text),
                _ => None,
            });
            Ok(Value::Text(texts.collect::<Vec<&str>>().join(separator).into()))
        }
        (Function::Size, [Value::Text(text)]) => Ok(Value::Int(text.chars().count() as i64)),
        (Function::Contains, [Value::Text(text), Value::Text(inner)]) => {
            Ok(Value::Bool(text.contains(&**inner)))
        }
        (Function::StartsWith, [Value::Text(text), Value::Text(start)]) => {
            Ok(Value::Bool(text.starts_with(&**start)))
        }
        (Function::EndsWith, [Value::Text(text), Value::Text(end)]) => {
            Ok(Value::Bool(text.ends_with(&**end)))
        }
        (Function::LowerAscii, [Value::Text(text)]) => Ok(Value::Text(text.to_ascii_lowercase().into())),
        (Function::UpperAscii, [Value::Text(text)]) => Ok(Value::Text(text.to_ascii_uppercase().into())),
        (Function::Int, [Value::Double(value)]) => {
            // Both ends are powers of two, which doubles hold exactly.
            let (value, end) = (value.trunc(), 9_223_372_036_854_775_808.0);
            if (-end..end).contains(&value) { Ok(Value::Int(value as i64)) } else { Err(Failed) }
        }
        (Function::Int, [Value::Text(text)]) => text.parse().map(Value::Int).map_err(|_| Failed),
        (Function::Double, [Value::Int(value)]) => Ok(Value::Double(*value as f64)),
        (Function::String, [Value::Int(value)]) => Ok(Value::Text(value.to_string().into())),
        _ => Err(Failed),
    }
}
