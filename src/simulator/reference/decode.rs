//! Records of sources.

use super::Source;
use super::Value;
use super::json::RFC3339_MS;
use super::json::{Json, parse_rfc3339};
use crate::record::{EACH, Field, FieldForm, ListType, Type};
use crate::simulator::Input;

/// A record's row and event time; `None` if it is an error of the source.
pub(super) fn decode(source: &Source, input: &Input) -> Option<(Vec<Value>, i64)> {
    let json = Json::parse(input.value.as_deref()?)?;
    if !matches!(json, Json::Object(_)) {
        return None;
    }
    let mut row = Vec::with_capacity(source.fields.len());
    for (field, path) in &source.fields {
        row.push(match field.ty {
            Type::List(of) => list(field, of, path, &json)?,
            _ => value_at(field, path, &json)?,
        });
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

/// What stands there, perhaps nothing; `None`: inside of what is no object.
fn find<'j, 't>(path: &[String], json: &'j Json<'t>) -> Option<Option<&'j Json<'t>>> {
    let mut value = Some(json);
    for name in path {
        value = match value {
            Some(object @ Json::Object(_)) => object.member(name),
            None | Some(Json::Null) => None,
            Some(_) => return None,
        };
    }
    Some(value.filter(|value| **value != Json::Null))
}

/// The value of a field; `None` if it is an error.
fn value_at(field: &Field, path: &[String], json: &Json<'_>) -> Option<Value> {
    match find(path, json)? {
        None => field.nullable.then_some(Value::Null),
        Some(value) => value_of(field, value),
    }
}

/// The value of a field that is a list: of what stands there, or in the objects there.
fn list(field: &Field, of: ListType, path: &[String], json: &Json<'_>) -> Option<Value> {
    let each = path.iter().position(|name| name == EACH);
    let inner = each.map_or(&[][..], |each| &path[each + 1..]);
    let elements = match find(&path[..each.unwrap_or(path.len())], json)? {
        None => return field.nullable.then_some(Value::Null),
        Some(Json::List(elements)) => elements,
        Some(_) => return None,
    };
    let element = Field { ty: of.element.ty(), nullable: of.nullable, ..field.clone() };
    let value = |json: &Json<'_>| match (each, json) {
        (Some(_), Json::Object(_)) | (None, _) => value_at(&element, inner, json),
        _ => None,
    };
    Some(Value::List(elements.iter().map(value).collect::<Option<Vec<Value>>>()?.into()))
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
