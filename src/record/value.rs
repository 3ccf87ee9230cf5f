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
    /// Values of one of the other types, in an order.
    List(ListType),
}

/// The type of a list's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListType {
    /// What an element is.
    pub element: Element,
    /// Whether elements may be null.
    pub nullable: bool,
}

/// The types that elements of a list may have: there are no lists of lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Element {
    /// See [`Type::String`].
    String,
    /// See [`Type::Bool`].
    Bool,
    /// See [`Type::Int`].
    Int,
    /// See [`Type::Double`].
    Double,
    /// See [`Type::Timestamp`].
    Timestamp,
    /// See [`Type::Duration`].
    Duration,
    /// See [`Type::Bytes`].
    Bytes,
}

impl Element {
    /// An element of this type; `None` for a list.
    pub fn of(ty: Type) -> Option<Element> {
        Some(match ty {
            Type::String => Element::String,
            Type::Bool => Element::Bool,
            Type::Int => Element::Int,
            Type::Double => Element::Double,
            Type::Timestamp => Element::Timestamp,
            Type::Duration => Element::Duration,
            Type::Bytes => Element::Bytes,
            Type::List(_) => return None,
        })
    }

    /// Its type.
    pub fn ty(self) -> Type {
        match self {
            Element::String => Type::String,
            Element::Bool => Type::Bool,
            Element::Int => Type::Int,
            Element::Double => Type::Double,
            Element::Timestamp => Type::Timestamp,
            Element::Duration => Type::Duration,
            Element::Bytes => Type::Bytes,
        }
    }
}

impl Type {
    /// A list of values of this type; `None` if it is one itself.
    pub fn list(self, nullable: bool) -> Option<Type> {
        Element::of(self).map(|element| Type::List(ListType { element, nullable }))
    }

    /// Whether it is a list.
    pub fn is_list(self) -> bool {
        matches!(self, Type::List(_))
    }

    /// The type that values of both have: the same, or a list whose elements may be null if they may in one of both.
    pub fn common(self, other: Type) -> Option<Type> {
        match (self, other) {
            (Type::List(one), Type::List(two)) if one.element == two.element => {
                Some(Type::List(ListType { nullable: one.nullable || two.nullable, ..one }))
            }
            _ => (self == other).then_some(self),
        }
    }
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
            Type::List(list) => {
                return write!(f, "[{}{}]", list.element.ty(), if list.nullable { "?" } else { "" });
            }
        })
    }
}

/// One value of a row. Sixteen bytes of payload and a tag; text, bytes and lists borrow from the batch.
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
    /// See [`Type::List`]. No element is a list.
    List(&'b [Slot<'b>]),
}

impl Slot<'_> {
    /// Whether there is no value.
    pub fn is_null(&self) -> bool {
        matches!(self, Slot::Null)
    }
}
