//! Values and their types.

use std::fmt;

/// The type of a field or of an expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    /// UTF-8 text.
    String,
    /// True or false.
    Bool,
    /// A signed integer of 64 bits.
    Int,
    /// An IEEE 754 double that is never NaN nor infinite.
    Double,
    /// An instant, in milliseconds since the Unix epoch.
    Timestamp,
    /// A span of time in milliseconds.
    Duration,
    /// Bytes without a meaning of their own.
    Bytes,
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Type::String => "string",
            Type::Bool => "bool",
            Type::Int => "int",
            Type::Double => "double",
            Type::Timestamp => "timestamp",
            Type::Duration => "duration",
            Type::Bytes => "bytes",
        })
    }
}

/// One value of a row. Sixteen bytes of payload and a tag; text and bytes borrow from the batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Slot<'b> {
    /// No value: the field is declared with `?` and is absent or null.
    Null,
    /// See [`Type::Bool`].
    Bool(bool),
    /// See [`Type::Int`].
    Int(i64),
    /// See [`Type::Double`].
    Double(f64),
    /// See [`Type::Timestamp`].
    Timestamp(i64),
    /// See [`Type::Duration`].
    Duration(i64),
    /// See [`Type::String`].
    String(&'b str),
    /// See [`Type::Bytes`].
    Bytes(&'b [u8]),
}

impl Slot<'_> {
    /// Whether there is no value.
    pub fn is_null(&self) -> bool {
        matches!(self, Slot::Null)
    }
}
