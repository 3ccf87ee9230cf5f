//! What the checker knows about a stream while it walks the topology.

use crate::expression::{Expression, Scope};
use crate::record::{Field, FieldForm, Schema, Type};

use super::diagnostic::{Span, known_names};
use super::reader::{Reader, Text};

/// A stream, perhaps one whose declaration has mistakes. What a mistake hides is not complained about
/// a second time downstream.
#[derive(Clone, Debug, Default)]
pub(super) struct Stream {
    /// The fields that are known.
    pub schema: Schema,
    /// The fields whose type is not known because of a mistake.
    pub broken: Vec<String>,
    /// Nothing is known because of a mistake: nothing about its fields can be wrong.
    pub opaque: bool,
    /// Whether each row comes from one source record, so that `meta` means something.
    pub meta: bool,
    /// The source's id.
    pub source: String,
    /// For each field of the source's `partitioned_by`: its name there, and the names under which its
    /// value is still in the rows, unchanged.
    pub partitioned_by: Vec<(String, Vec<String>)>,
    /// On how many ways rows come to it through unions; 0 counts as 1.
    pub ways: usize,
    /// Nothing is known about the partitioning because of a mistake.
    pub partitioning_broken: bool,
}

impl Stream {
    /// A stream of which nothing is known.
    pub fn opaque() -> Stream {
        Stream { opaque: true, meta: true, partitioning_broken: true, ..Stream::default() }
    }

    /// Whether all rows that have the same values in these fields lie in one partition.
    pub fn is_covered_by(&self, key: &[String]) -> bool {
        let in_key = |names: &Vec<String>| names.iter().any(|name| key.contains(name));
        self.opaque
            || self.partitioning_broken
            || (!self.partitioned_by.is_empty() && self.partitioned_by.iter().all(|(_, names)| in_key(names)))
    }

    /// The same rows as they come out of a topic that is partitioned by these fields.
    pub fn repartitioned(&self, key: &[String]) -> Stream {
        Stream {
            ways: 1,
            partitioned_by: key.iter().map(|name| (name.clone(), vec![name.clone()])).collect(),
            ..self.clone()
        }
    }

    /// Whether a name may be that of a field: then its absence from the schema is no mistake here.
    pub fn may_have(&self, name: &str) -> bool {
        self.opaque || self.broken.iter().any(|broken| broken == name)
    }

    /// Adds a field, or a broken one (`None`); reports a name that is taken.
    pub fn add(&mut self, name: &str, field: Option<Field>, span: Span, what: &str, reader: &mut Reader) {
        if self.names().contains(&name) {
            reader
                .problems
                .error(span, format!("{what}: its rows would have two fields `{name}`"))
                .help("give one of them another name; a map in front of it can rename its input");
            return;
        }
        match field {
            Some(field) => self.schema.fields.push(field),
            None => self.broken.push(name.to_owned()),
        }
    }

    /// The slot of a field; reports a name that is not known.
    pub fn slot(&self, name: &Text, what: &str, reader: &mut Reader) -> Option<usize> {
        let slot = self.schema.position(&name.value);
        if slot.is_none() && !self.may_have(&name.value) {
            let message = format!("{what}: there is no field `{}`", name.value);
            reader.problems.error(name.span, message).help(known_names(&name.value, &self.names()));
        }
        slot
    }

    /// The slot of a field of a key, which can be no list.
    pub fn key_slot(&self, name: &Text, what: &str, reader: &mut Reader) -> Option<usize> {
        let slot = self.slot(name, what, reader)?;
        let ty = self.schema.fields[slot].ty;
        if ty.is_list() {
            let message = format!("{what}: `{}` is of type {ty}, and a list is no part of a key", name.value);
            let help = "a text can be made of it in a map before, as in `join(tags, \",\")`";
            reader.problems.error(name.span, message).help(help);
            return None;
        }
        Some(slot)
    }

    /// The names of all fields.
    pub fn names(&self) -> Vec<&str> {
        let known = self.schema.fields.iter().map(|field| field.name.as_str());
        known.chain(self.broken.iter().map(String::as_str)).collect()
    }

    /// Compiles an expression on this stream's rows; reports its mistakes. `part` is the range of
    /// characters of `text` that holds it.
    pub fn compile(&self, text: &Text, part: (usize, usize), reader: &mut Reader) -> Option<Expression> {
        let source: String = text.value.chars().skip(part.0).take(part.1 - part.0).collect();
        if self.opaque || self.broken.iter().any(|name| mentions(&source, name)) {
            return None;
        }
        // The broken fields are there to be suggested; no expression that names one gets here.
        let mut schema = self.schema.clone();
        schema.fields.extend(self.broken.iter().map(|name| Field {
            name: name.clone(),
            ty: Type::String,
            nullable: true,
            form: FieldForm::Plain,
        }));
        let errors = match Expression::compile(&source, &Scope { schema: &schema, meta: self.meta }) {
            Ok(expression) => return Some(expression),
            Err(errors) => errors,
        };
        for error in errors {
            let span = text.part(part.0 + error.start, part.0 + error.end);
            let problem = reader.problems.error(span, error.message);
            if let Some(suggestion) = error.suggestion {
                problem.help(format!("did you mean `{suggestion}`?"));
            }
        }
        None
    }

    /// Compiles an expression that takes up all of `text`.
    pub fn compile_all(&self, text: &Text, reader: &mut Reader) -> Option<Expression> {
        self.compile(text, (0, text.value.chars().count()), reader)
    }
}

/// Whether an expression has the word `name` anywhere.
fn mentions(expression: &str, name: &str) -> bool {
    expression.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|word| word == name)
}

/// Checks a field's name: a word that expressions can use.
pub(super) fn check_field_name(name: &str, span: Span, help: &str, reader: &mut Reader) {
    // The words that CEL keeps for itself.
    const RESERVED: [&str; 21] = [
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ];
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if name == "meta" {
        reader
            .problems
            .error(span, "a field cannot be called `meta`: that is the record's metadata in expressions")
            .help(help);
    } else if !starts_well
        || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        || RESERVED.contains(&name)
    {
        reader
            .problems
            .error(span, format!("`{name}` cannot be a field's name: expressions could not name it"))
            .help(format!("use letters, digits and `_`, no digit first; {help}"));
    }
}
