//! Names and types of a row's slots.

use super::Type;

/// How a timestamp is written in text formats; a computed timestamp is written in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum FieldForm {
    /// The type's own form; for a timestamp, milliseconds since the Unix epoch as a number.
    #[default]
    Plain,
    /// A timestamp as RFC 3339 text.
    Rfc3339,
}

/// One field of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Field {
    /// Its name, unique in the schema.
    pub name: String,
    /// Its type.
    pub ty: Type,
    /// Whether it may be null.
    pub nullable: bool,
    /// How it is written.
    pub form: FieldForm,
}

/// The fields of a stream's rows, in slot order.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Schema {
    /// The fields; a row has one slot for each.
    pub fields: Vec<Field>,
}

impl Schema {
    /// The slot of the field called `name`.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.name == name)
    }
}

/// In a field's path, behind the key of an array: what follows is sought in each of its elements.
pub const EACH: &str = "[]";

/// A path as text: `items[].sku`.
pub fn shown_path(path: &[String]) -> String {
    path.join(".").replace(".[]", EACH)
}

/// A field of a source: where a decoder finds it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SourceField {
    /// Name, type, nullability and form.
    pub field: Field,
    /// The keys that lead to it from the record's root; one element unless it is nested. A list may have [`EACH`] among
    /// them, once and not at the end: it holds what the path leads to in each object of an array. Single values may share a
    /// path. A list shares its array with other lists of the objects' values and nothing else: no other field has its path,
    /// or records are refused.
    pub path: Vec<String>,
}

/// What a source's records must look like.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct SourceSchema {
    /// The declared fields, in slot order. Whatever else a record holds is ignored.
    pub fields: Vec<SourceField>,
}

impl SourceSchema {
    /// The schema of the rows that a decoder makes.
    pub fn schema(&self) -> Schema {
        Schema { fields: self.fields.iter().map(|source| source.field.clone()).collect() }
    }
}
