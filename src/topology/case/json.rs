//! YAML as JSON.

use std::fmt;

use crate::format::json::write_string;
use crate::topology::diagnostic::Span;
use crate::topology::reader::Reader;
use crate::topology::yaml::{Data, Kind, Node};

/// The values of all tests of a file together have at most so many parts: an alias that repeats an alias
/// would make any number of a few lines.
pub(in crate::topology) const PARTS_MAX: usize = 1_000_000;
/// So many bytes of a text count as one part.
const PART_BYTES: usize = 64;

/// A JSON value whose objects keep the order of their fields.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number without a fraction.
    Int(i64),
    /// Any other number; finite.
    Double(f64),
    /// A string.
    String(String),
    /// A list.
    List(Vec<Json>),
    /// An object. Each field has a name of its own.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// The bytes of a record's key: of text itself, of anything else as JSON; none for null.
    pub fn key_bytes(&self) -> Option<Vec<u8>> {
        match self {
            Json::Null => None,
            Json::String(text) => Some(text.clone().into_bytes()),
            other => Some(other.to_string().into_bytes()),
        }
    }

    /// As messages name its kind.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Json::Null => "nothing",
            Json::Bool(_) => "a bool",
            Json::Int(_) => "an int",
            Json::Double(_) => "a double",
            Json::String(_) => "a string",
            Json::List(_) => "a list",
            Json::Object(_) => "a mapping",
        }
    }
}

/// As JSON text without spaces.
impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Json::Null => f.write_str("null"),
            Json::Bool(value) => write!(f, "{value}"),
            Json::Int(value) => write!(f, "{value}"),
            // As serde_json writes it: it reads back as the same one, and never as an integer.
            Json::Double(value) => write!(f, "{}", serde_json::Value::from(*value)),
            Json::String(text) => write_text(text, f),
            Json::List(items) => {
                f.write_str("[")?;
                for (place, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if place == 0 { "" } else { "," })?;
                }
                f.write_str("]")
            }
            Json::Object(fields) => {
                f.write_str("{")?;
                for (place, (name, value)) in fields.iter().enumerate() {
                    f.write_str(if place == 0 { "" } else { "," })?;
                    write_text(name, f)?;
                    write!(f, ":{value}")?;
                }
                f.write_str("}")
            }
        }
    }
}

fn write_text(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut bytes = Vec::with_capacity(text.len() + 2);
    write_string(text, &mut bytes);
    f.write_str(&String::from_utf8_lossy(&bytes))
}

impl Reader<'_> {
    /// Counts a part of a test; `None`, and reported once, if there are too many.
    pub(super) fn count_part(&mut self, span: Span) -> Option<()> {
        self.parts += 1;
        if self.parts == PARTS_MAX {
            self.problems
                .error(span, format!("the tests of this file have more than {PARTS_MAX} values"))
                .help("do aliases repeat one another? Put large inputs into a file of their own");
        }
        (self.parts < PARTS_MAX).then_some(())
    }

    /// Any YAML as JSON. `what` is what it is for: a record's `value`.
    pub(super) fn json(&mut self, node: &Node, what: &str) -> Option<Json> {
        self.count_part(node.span)?;
        match &node.data {
            Data::Sequence(items) => {
                let items: Vec<_> = items.iter().map(|item| self.json(item, what)).collect();
                items.into_iter().collect::<Option<Vec<Json>>>().map(Json::List)
            }
            Data::Mapping(entries) => {
                let mut fields = Vec::new();
                for entry in entries {
                    let value = self.json(&entry.value, &format!("`{}`", entry.key));
                    fields.push(value.map(|value| (entry.key.clone(), value)));
                }
                fields.into_iter().collect::<Option<Vec<_>>>().map(Json::Object)
            }
            Data::Scalar { .. } => {
                let scalar = self.scalar(node, &format!("{what} must be a value"))?;
                let text = scalar.text.value;
                // A long text that aliases repeat counts by its length.
                self.parts = self.parts.saturating_add(text.len() / PART_BYTES).min(PARTS_MAX - 1);
                let value = match scalar.kind {
                    Kind::Null => Some(Json::Null),
                    Kind::Bool => Some(Json::Bool(text.eq_ignore_ascii_case("true"))),
                    Kind::Int => int(&text).map(Json::Int),
                    Kind::Double => {
                        text.parse().ok().filter(|value: &f64| value.is_finite()).map(Json::Double)
                    }
                    Kind::String => Some(Json::String(text.clone())),
                };
                if value.is_none() {
                    self.problems
                        .error(node.span, format!("{what}: `{text}` is no 64-bit int or finite double"))
                        .help(format!("quote it if it is meant as text: \"{text}\""));
                }
                value
            }
        }
    }
}

/// An int as YAML writes it.
fn int(text: &str) -> Option<i64> {
    let radix = |prefix: &str, radix| {
        text.strip_prefix(prefix).and_then(|digits| i64::from_str_radix(digits, radix).ok())
    };
    radix("0x", 16).or_else(|| radix("0o", 8)).or_else(|| text.parse().ok())
}
