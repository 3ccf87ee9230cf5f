//! The declared fields as a tree of JSON objects, with the order in which their keys were last seen.

use bumpalo::Bump;

use super::encode::write_string;
use crate::record::{EACH, Field, FieldForm, Slot, SourceField, SourceSchema, Type, shown_path};

/// How many undeclared keys an object remembers; more are looked up in vain each time.
const IGNORED_KEYS_MAX: usize = 32;

/// How many values the lists of a record hold at most, all together. An element of an array has one in each list that is
/// made of the array, also where the record says nothing of it.
pub(super) const LIST_VALUES_MAX: usize = 1 << 20;

/// How many bytes of a key are compared at once.
const HEAD_BYTES: usize = 16;

/// A schema as the decoder uses it.
pub(super) struct Layout {
    /// The root is number 0.
    pub objects: Vec<Object>,
    /// One per slot.
    pub fields: Vec<FieldPlan>,
    /// The slots that must not be null.
    pub required: Vec<usize>,
    /// What the keys with several targets lead to: at most one object, slots, and arrays, which are not read then.
    pub several: Vec<Vec<Target>>,
    /// The arrays that lists are read from.
    pub arrays: Vec<Array>,
    /// How many more values the lists of the record at hand may hold.
    pub list_values_left: usize,
}

/// An array of which lists are made, each of what one path leads to in its elements.
pub(super) struct Array {
    /// The slots of the lists.
    pub slots: Vec<usize>,
    /// What an element must be: a field for each of the lists.
    pub layout: Layout,
    /// What an element is read into: an object with these fields, or the only one of them.
    pub element: Target,
}

/// What a field's value must be.
pub(super) struct FieldPlan {
    /// Of a list that of its elements.
    pub kind: Kind,
    /// In words, for messages.
    pub expected: &'static str,
    /// Its full path, for messages.
    pub path: String,
}

/// The JSON form of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    String,
    Bool,
    Int,
    Double,
    TimestampMs,
    TimestampText,
    DurationMs,
    /// JSON has no bytes; no such field can be declared.
    Bytes,
}

impl Kind {
    fn of(ty: Type, form: FieldForm) -> Kind {
        match (ty, form) {
            (Type::String, _) => Kind::String,
            (Type::Bool, _) => Kind::Bool,
            (Type::Int, _) => Kind::Int,
            (Type::Double, _) => Kind::Double,
            (Type::Timestamp, FieldForm::Plain) => Kind::TimestampMs,
            (Type::Timestamp, FieldForm::Rfc3339) => Kind::TimestampText,
            (Type::Duration, _) => Kind::DurationMs,
            (Type::Bytes, _) => Kind::Bytes,
            (Type::List(list), form) => Kind::of(list.element.ty(), form),
        }
    }
}

/// An object on the way to a field.
pub(super) struct Object {
    /// Its path, for messages; empty for the root.
    pub path: String,
    /// The slots whose path leads through it.
    pub slots: Vec<usize>,
    /// The declared keys, and undeclared ones that were seen, in the order of the last records.
    keys: Vec<Key>,
    /// How many of the keys are undeclared.
    ignored: usize,
}

struct Key {
    name: Box<str>,
    /// The name as JSON text without the opening quote, with the closing one and the colon.
    raw: Box<[u8]>,
    /// The first bytes of `raw`, and which of them count: one comparison decides about most keys.
    head: u128,
    mask: u128,
    target: Target,
}

/// What a key leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Nothing that was declared.
    Ignored,
    /// The slot of this number.
    Slot(usize),
    /// The object of this number, on the way to other fields.
    Object(usize),
    /// The array of this number, which lists are read from.
    Array(usize),
    /// All that this element of [`Layout::several`] names: fields may share a path, and a field may
    /// want text where another one leads further down.
    Several(usize),
}

/// A key in a record's text.
pub(super) struct Found {
    /// What it leads to.
    pub target: Target,
    /// Its length in bytes, with the closing quote and the colon.
    pub length: usize,
    /// Where the next one is expected.
    pub guess: usize,
}

impl Layout {
    pub fn new(schema: &SourceSchema) -> Self {
        let fields = &schema.fields;
        let mut layout = Layout {
            objects: Vec::new(),
            fields: fields.iter().map(FieldPlan::new).collect(),
            required: (0..fields.len()).filter(|slot| !fields[*slot].field.nullable).collect(),
            several: Vec::new(),
            arrays: Vec::new(),
            list_values_left: LIST_VALUES_MAX,
        };
        layout.add_object(schema, String::new(), 0, (0..fields.len()).collect());
        layout
    }

    /// How many keys are remembered.
    #[cfg(test)]
    pub fn keys(&self) -> usize {
        self.objects.iter().map(|object| object.keys.len()).sum()
    }

    /// Adds the object at `path`, `depth` keys below the root, through which the paths of `slots` lead,
    /// and everything below it. Returns its number.
    fn add_object(&mut self, schema: &SourceSchema, path: String, depth: usize, slots: Vec<usize>) -> usize {
        let number = self.objects.len();
        let name_of = |slot: usize| schema.fields[slot].path.get(depth).map(String::as_str);
        let mut names: Vec<&str> = Vec::new();
        for name in slots.iter().filter_map(|slot| name_of(*slot)) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        self.objects.push(Object { path: path.clone(), slots: slots.clone(), keys: Vec::new(), ignored: 0 });
        for name in names {
            let (ending, passing): (Vec<usize>, Vec<usize>) = slots
                .iter()
                .filter(|slot| name_of(**slot) == Some(name))
                .partition(|slot| schema.fields[**slot].path.len() == depth + 1);
            let step = |slot: usize| schema.fields[slot].path.get(depth + 1).map(String::as_str);
            let (each, passing): (Vec<usize>, Vec<usize>) =
                passing.into_iter().partition(|slot| step(*slot) == Some(EACH));
            let mut targets = Vec::with_capacity(1);
            for slot in ending {
                targets.push(match schema.fields[slot].field.ty {
                    Type::List(_) => self.add_array(schema, depth + 1, vec![slot]),
                    _ => Target::Slot(slot),
                });
            }
            if !each.is_empty() {
                targets.push(self.add_array(schema, depth + 2, each));
            }
            if !passing.is_empty() {
                let path = if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
                targets.push(Target::Object(self.add_object(schema, path, depth + 1, passing)));
            }
            let target = match targets[..] {
                [target] => target,
                _ => {
                    self.several.push(targets);
                    Target::Several(self.several.len() - 1)
                }
            };
            self.objects[number].keys.push(Key::new(name, target));
        }
        number
    }

    /// Adds the array whose elements are what the paths of `slots` lead to from the key at `depth` on.
    fn add_array(&mut self, schema: &SourceSchema, depth: usize, slots: Vec<usize>) -> Target {
        let element = |slot: &usize| {
            let SourceField { field, path } = &schema.fields[*slot];
            let (ty, nullable) = match field.ty {
                Type::List(list) => (list.element.ty(), list.nullable),
                ty => (ty, false),
            };
            let field = Field { ty, nullable, ..field.clone() };
            SourceField { field, path: path.get(depth..).unwrap_or_default().to_vec() }
        };
        let fields: Vec<SourceField> = slots.iter().map(element).collect();
        let is_object = fields.iter().all(|field| !field.path.is_empty());
        let layout = Layout::new(&SourceSchema { fields });
        let element = if is_object { Target::Object(0) } else { Target::Slot(0) };
        self.arrays.push(Array { slots, layout, element });
        Target::Array(self.arrays.len() - 1)
    }
}

impl FieldPlan {
    fn new(SourceField { field, path }: &SourceField) -> FieldPlan {
        let kind = Kind::of(field.ty, field.form);
        let expected = match field.ty {
            Type::List(_) if path.iter().any(|key| key == EACH) => "an array of objects",
            Type::List(_) => "an array",
            _ => kind.expected(),
        };
        FieldPlan { kind, expected, path: shown_path(path) }
    }
}

impl Array {
    /// Makes the lists of the elements' values, element by element.
    pub fn put<'b>(
        &self,
        values: bumpalo::collections::Vec<'b, Slot<'b>>,
        arena: &'b Bump,
        slots: &mut [Slot<'b>],
    ) {
        if let [slot] = self.slots[..] {
            slots[slot] = Slot::List(values.into_bump_slice());
            return;
        }
        let lists = self.slots.len();
        for (list, slot) in self.slots.iter().enumerate() {
            let elements = values[..].chunks_exact(lists).map(|element| element[list]);
            slots[*slot] = Slot::List(arena.alloc_slice_fill_iter(elements));
        }
    }
}

impl Key {
    fn new(name: &str, target: Target) -> Self {
        let mut raw = Vec::with_capacity(name.len() + 3);
        write_string(name, &mut raw);
        raw.remove(0);
        raw.push(b':');
        let head = u128::from_le_bytes(first_bytes(&raw));
        let mask = u128::MAX >> (8 * HEAD_BYTES.saturating_sub(raw.len()));
        Key { name: name.into(), raw: raw.into(), head, mask, target }
    }

    /// Whether `rest`, whose first bytes are `head`, begins with this key.
    fn begins(&self, rest: &[u8], head: u128) -> bool {
        head & self.mask == self.head && (self.raw.len() <= HEAD_BYTES || rest.starts_with(&self.raw))
    }
}

/// The first bytes, with zeros behind if there are fewer; no key in JSON text has a zero.
fn first_bytes(bytes: &[u8]) -> [u8; HEAD_BYTES] {
    let mut first = [0; HEAD_BYTES];
    let length = bytes.len().min(HEAD_BYTES);
    first[..length].copy_from_slice(&bytes[..length]);
    first
}

impl Object {
    /// The key, and its colon, that `rest` begins with, if it is the one expected at `guess` or another known one.
    pub fn match_key(&mut self, rest: &[u8], guess: usize) -> Option<Found> {
        let head = match rest.first_chunk() {
            Some(head) => *head,
            None => first_bytes(rest),
        };
        let head = u128::from_le_bytes(head);
        let place = self.position(guess, |key| key.begins(rest, head))?;
        let length = self.keys[place].raw.len();
        let (target, guess) = self.visit(place, guess);
        Some(Found { target, length, guess })
    }

    /// What the key called `name` leads to. An unknown one is remembered, so that it is expected in its
    /// place from now on.
    pub fn find_key(&mut self, name: &str, guess: &mut usize) -> Target {
        if let Some(place) = self.position(*guess, |key| *key.name == *name) {
            let (target, next) = self.visit(place, *guess);
            *guess = next;
            return target;
        }
        if self.ignored < IGNORED_KEYS_MAX {
            self.ignored += 1;
            self.keys.insert(*guess, Key::new(name, Target::Ignored));
            *guess += 1;
        }
        Target::Ignored
    }

    /// The first key from `guess` on, and round to it again, that fits.
    fn position(&self, guess: usize, fits: impl Fn(&Key) -> bool) -> Option<usize> {
        let (before, after) = self.keys.split_at(guess);
        let ahead = after.iter().position(&fits).map(|place| guess + place);
        ahead.or_else(|| before.iter().position(&fits))
    }

    /// Notes that the key at `place` came where the one at `guess` was expected. What it leads to, and
    /// the next guess.
    fn visit(&mut self, place: usize, guess: usize) -> (Target, usize) {
        let target = self.keys[place].target;
        if place >= guess {
            // The keys between are absent this time: leave them where they are.
            return (target, place + 1);
        }
        self.keys[place..guess].rotate_left(1);
        (target, guess)
    }
}
