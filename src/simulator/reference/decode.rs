//! Records of sources.

use super::RFC3339_MS;
use super::Source;
use super::Value;
use super::json::{Json, parse_rfc3339};
use crate::record::{Field, FieldForm, Type};
use crate::simulator::Input;

/// A record's row and event time; `None` if it is an error of the source.
pub(super) fn decode(source: &Source, input: &Input) -> Option<(Vec<Value>, i64)> {
    let json = Json::parse(input.value.as_deref()?)?;
    if !matches!(json, Json::Object(_)) {
        return None;
    }
    let mut row = Vec::with_capacity(source.fields.len());
    for (field, path) in &source.fields {
        let mut value = Some(&json);
        for (depth, name) in path.iter().enumerate() {
            value = match value {
                Some(object @ Json::Object(_)) => object.member(name),
                None | Some(Json::Null) => None,
                // Inside of what is no object.
                Some(_) if depth > 0 => return None,
                Some(_) => None,
            };
        }
        let value = match value {
            None | Some(Json::Null) => Value::Null,
            Some(value) => value_of(field, value)?,
        };
        if value == Value::Null && !field.nullable {
            return None;
        }
        row.push(value);
    }
    let time_ms = match source.time {
        None => input.timestamp_ms,
        Some(slot) => match row[slot] {
            Value::Timestamp(time_ms) => {
                let time_ms = time_ms.checked_add(source.shift_ms)?;
                (time_ms.saturating_sub(input.timestamp_ms) <= source.max_ahead_ms).then_some(time_ms)?
            }
            _ => return None,
        },
    };
    RFC3339_MS.contains(&time_ms).then_some((row, time_ms))
}

/// The value of a field that is not null; `None` if it is of another type.
fn value_of(field: &Field, json: &Json<'_>) -> Option<Value> {
    // A double below 2^53 is the integer that was written.
    let int = |text: &str| {
        text.parse().ok().or_else(|| {
            let value: f64 = text.parse().ok()?;
            let exact = text.contains(['.', 'e', 'E'])
                && value.fract() == 0.0
                && value.abs() < 9_007_199_254_740_992.0;
            exact.then_some(value as i64)
        })
    };
    match (field.ty, field.form, json) {
        (Type::String, _, Json::Text(text)) => Some(Value::Text((**text).into())),
        (Type::Bool, _, Json::Bool(value)) => Some(Value::Bool(*value)),
        (Type::Int, _, Json::Number(text)) => int(text).map(Value::Int),
        (Type::Double, _, Json::Number(text)) => {
            text.parse().ok().filter(|value: &f64| value.is_finite()).map(Value::Double)
        }
        (Type::Timestamp, FieldForm::Plain, Json::Number(text)) => int(text).map(Value::Timestamp),
        (Type::Timestamp, FieldForm::Rfc3339, Json::Text(text)) => parse_rfc3339(text).map(Value::Timestamp),
        _ => None,
    }
}
