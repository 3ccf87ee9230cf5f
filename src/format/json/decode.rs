//! The decoder, and its second tier: sonic-rs, driven by serde seeds that know the layout.

use std::fmt;

use bumpalo::Bump;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use super::guess;
use super::layout::{Array, Kind, LIST_VALUES_MAX, Layout, Target};
use crate::ablation::{Part, is_off};
use crate::format::DecodeError;
use crate::record::{Slot, SourceSchema};
use crate::time;

/// How deep a record may be nested. sonic-rs passes over undeclared values by recursion without a limit;
/// a record must not be able to exhaust the stack.
const DEPTH_MAX: usize = 128;
/// A double below this is the integer that was written; above, another one may have been rounded to it.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
/// How many characters of a text that was found instead of something else a message shows.
const SHOWN_CHARS_MAX: usize = 40;

/// Reads JSON objects into rows.
///
/// An integer field takes an integer in range, also written as a double (`3.0`; then below 2^53); a
/// double field any finite number; a timestamp milliseconds since the Unix epoch or RFC 3339 text, as
/// declared. A list takes an array of such values, or what its path leads to in the objects of an array; lists of one
/// array are equally long, and those of a record hold 2^20 values at most, all together. A field that may be null may be
/// absent, and so may the object that it lies in. Undeclared keys are ignored, but the record must be JSON to its end. Of
/// a key that comes twice the last value counts.
///
/// ```
/// use bumpalo::Bump;
/// use thalweg::format::json::Decoder;
/// use thalweg::record::{Field, FieldForm, Slot, SourceField, SourceSchema, Type};
///
/// let field = Field { name: "temp".into(), ty: Type::Double, nullable: false, form: FieldForm::Plain };
/// let path = vec!["body".to_string(), "temp".to_string()];
/// let mut decoder = Decoder::new(&SourceSchema { fields: vec![SourceField { field, path }] });
///
/// let (arena, mut slots) = (Bump::new(), [Slot::Null]);
/// decoder.decode(br#"{"id": 7, "body": {"temp": 21}}"#, &arena, &mut slots).unwrap();
/// assert_eq!(slots, [Slot::Double(21.0)]);
///
/// let error = decoder.decode(br#"{"body": {"temp": "hot"}}"#, &arena, &mut slots).unwrap_err();
/// assert_eq!(error.message, r#"field body.temp: expected a double, found the string "hot""#);
/// ```
pub struct Decoder {
    pub(super) layout: Layout,
    /// Whether the first tier is asked; the tests switch it off to compare the two.
    guesses: bool,
}

impl Decoder {
    /// A decoder of records with these fields.
    pub fn new(schema: &SourceSchema) -> Self {
        Decoder { layout: Layout::new(schema), guesses: !is_off(Part::Template) }
    }

    /// Only the second tier.
    #[cfg(test)]
    pub(super) fn without_guesses(schema: &SourceSchema) -> Self {
        Decoder { layout: Layout::new(schema), guesses: false }
    }

    /// Reads one record. `slots` has one element per field of the schema; all are overwritten, with
    /// anything if it fails. Text is borrowed from `value`, or from `arena` if it had escapes.
    pub fn decode<'b>(
        &mut self,
        value: &'b [u8],
        arena: &'b Bump,
        slots: &mut [Slot<'b>],
    ) -> Result<(), DecodeError> {
        debug_assert_eq!(slots.len(), self.layout.fields.len());
        let text = utf8(value)?;
        slots.fill(Slot::Null);
        if self.guesses && guess::read(&mut self.layout, text, arena, slots).is_some() {
            return Ok(());
        }
        slots.fill(Slot::Null);
        self.read(text, arena, slots)
    }

    /// The second tier.
    fn read<'b>(
        &mut self,
        text: &'b str,
        arena: &'b Bump,
        slots: &mut [Slot<'b>],
    ) -> Result<(), DecodeError> {
        check_undeclared(text.as_bytes())?;
        self.layout.list_values_left = LIST_VALUES_MAX;
        let mut reading =
            Reading { layout: &mut self.layout, arena, slots, mistakes: Vec::new(), root: None };
        let mut deserializer = sonic_rs::Deserializer::from_str(text);
        let seed = Value { reading: &mut reading, target: Target::Object(0) };
        seed.deserialize(&mut deserializer).and_then(|()| deserializer.end()).map_err(invalid)?;
        reading.finish()
    }
}

/// Reads a JSON value into a type of the user's. The value must be JSON to its end, and is nested as deep
/// as a row's record may be.
///
/// ```
/// let prices: Vec<f64> = thalweg::format::json::decode_value(b"[1, 2.5]").unwrap();
/// assert_eq!(prices, [1.0, 2.5]);
/// assert!(thalweg::format::json::decode_value::<Vec<f64>>(b"[1, 2.5").is_err());
/// ```
pub fn decode_value<T: DeserializeOwned>(value: &[u8]) -> Result<T, DecodeError> {
    let text = utf8(value)?;
    check_undeclared(text.as_bytes())?;
    sonic_rs::from_str(text).map_err(invalid)
}

fn utf8(value: &[u8]) -> Result<&str, DecodeError> {
    // The compat flavour, which tells where the error is, costs a little more.
    simdutf8::basic::from_utf8(value).map_err(|_| {
        let valid = simdutf8::compat::from_utf8(value).map_or_else(|error| error.valid_up_to(), str::len);
        DecodeError::new(format!("invalid UTF-8 after byte {valid} of the record"))
    })
}

fn invalid(error: sonic_rs::Error) -> DecodeError {
    // The rest of sonic-rs's text quotes the record over several lines.
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or(&text);
    DecodeError::new(format!("invalid JSON at byte {}: {what}", error.offset()))
}

/// Checks what sonic-rs does not when it passes over an undeclared value: how deep it is nested, and the
/// digits of `\u` escapes (it takes any four bytes for them, also the closing quote). Exact for JSON, and
/// for anything else as far as it is the beginning of JSON, which is how far a parser goes.
fn check_undeclared(bytes: &[u8]) -> Result<(), DecodeError> {
    let (mut at, mut depth, mut in_string) = (0, 0_usize, false);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => in_string = !in_string,
            b'\\' if in_string => {
                at += 1;
                let digits = bytes.get(at + 1..at + 5);
                if bytes.get(at) == Some(&b'u')
                    && !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
                {
                    return Err(DecodeError::new(format!("invalid JSON at byte {at}: Invalid escape")));
                }
            }
            b'{' | b'[' if !in_string => depth += 1,
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_MAX {
            return Err(DecodeError::new(format!("nested deeper than {DEPTH_MAX} levels")));
        }
        at += 1;
    }
    Ok(())
}

/// A record being read by the second tier.
struct Reading<'r, 'b> {
    layout: &'r mut Layout,
    arena: &'b Bump,
    slots: &'r mut [Slot<'b>],
    /// Per slot that got a value of the wrong kind: what was expected and found. Kept back until the
    /// record has been read, since a later value of the same key may replace it.
    mistakes: Vec<(usize, String)>,
    /// What the whole record is instead of an object.
    root: Option<String>,
}

/// A value other than an object.
#[derive(Clone, Copy)]
enum Scalar<'b> {
    Null,
    Bool(bool),
    Int(i64),
    /// An integer above the range of `Int`.
    Large(u64),
    Double(f64),
    String(&'b str),
    Array,
    Object,
}

impl<'b> Reading<'_, 'b> {
    /// Whether the target is an object, or leads to one besides other things.
    fn object_of(&self, target: Target) -> Option<usize> {
        match target {
            Target::Object(object) => Some(object),
            Target::Several(several) => {
                self.layout.several[several].iter().find_map(|target| self.object_of(*target))
            }
            Target::Ignored | Target::Slot(_) | Target::Array(_) => None,
        }
    }

    /// Gives a value to all that its key leads to, in place of what an earlier one gave.
    fn put(&mut self, target: Target, value: Scalar<'b>) {
        match target {
            Target::Ignored => {}
            Target::Slot(slot) => {
                self.clear(slot);
                match slot_of(self.layout.fields[slot].kind, value) {
                    Some(value) => self.slots[slot] = value,
                    None => {
                        let expected = self.layout.fields[slot].expected;
                        self.mistakes.push((slot, format!("expected {expected}, found {value}")));
                    }
                }
            }
            Target::Object(0) => {
                self.root = (!matches!(value, Scalar::Object)).then(|| value.to_string());
            }
            Target::Object(object) => {
                for slot in self.layout.objects[object].slots.clone() {
                    self.clear(slot);
                    if !matches!(value, Scalar::Null | Scalar::Object) {
                        let path = &self.layout.objects[object].path;
                        self.mistakes.push((slot, format!("expected an object at {path}, found {value}")));
                    }
                }
            }
            Target::Array(array) => {
                for slot in self.layout.arrays[array].slots.clone() {
                    self.clear(slot);
                    if !matches!(value, Scalar::Null) {
                        let expected = self.layout.fields[slot].expected;
                        self.mistakes.push((slot, format!("expected {expected}, found {value}")));
                    }
                }
            }
            Target::Several(several) => {
                for target in self.layout.several[several].clone() {
                    self.put(target, value);
                }
            }
        }
    }

    fn clear(&mut self, slot: usize) {
        self.slots[slot] = Slot::Null;
        self.mistakes.retain(|(mistaken, _)| *mistaken != slot);
    }

    fn finish(mut self) -> Result<(), DecodeError> {
        match self.mistake() {
            None => Ok(()),
            Some((None, what)) => Err(DecodeError::new(what)),
            Some((Some(slot), what)) => {
                Err(DecodeError::new(format!("field {}: {what}", self.layout.fields[slot].path)))
            }
        }
    }

    /// The first mistake, and the slot that it is of; of none if the record is no object.
    fn mistake(&mut self) -> Option<(Option<usize>, String)> {
        if let Some(found) = &self.root {
            return Some((None, format!("expected an object, found {found}")));
        }
        self.mistakes.sort();
        let missing = self.layout.required.iter().find(|slot| self.slots[**slot].is_null());
        match (self.mistakes.first(), missing) {
            (Some((slot, what)), _) => Some((Some(*slot), what.clone())),
            (None, Some(slot)) => {
                Some((Some(*slot), format!("missing, expected {}", self.layout.fields[*slot].expected)))
            }
            (None, None) => None,
        }
    }

    /// Reads the lists of an array.
    fn read_array<A: SeqAccess<'b>>(&mut self, number: usize, mut elements: A) -> Result<(), A::Error> {
        let Layout { arrays, list_values_left: left, .. } = &mut *self.layout;
        let Array { slots, layout, element } = &mut arrays[number];
        let mut values = bumpalo::collections::Vec::new_in(self.arena);
        let mut mistake = None;
        for place in 0.. {
            let start = values.len();
            values.resize(start + slots.len(), Slot::Null);
            let (arena, mistakes, root) = (self.arena, Vec::new(), None);
            let layout = &mut *layout;
            let mut reading = Reading { layout, arena, slots: &mut values[start..], mistakes, root };
            let seed = Value { reading: &mut reading, target: *element };
            if elements.next_element_seed(seed)?.is_none() {
                values.truncate(start);
                break;
            }
            if mistake.is_none() {
                let first = reading.mistake();
                mistake = first.map(|(list, what)| (list.unwrap_or(0), format!("element {place}: {what}")));
            }
            let Some(fewer) = left.checked_sub(slots.len()) else {
                let what = || (0, format!("the record's lists hold more than {LIST_VALUES_MAX} values"));
                mistake = mistake.or_else(|| Some(what()));
                while elements.next_element::<IgnoredAny>()?.is_some() {}
                break;
            };
            *left = fewer;
        }
        for slot in self.layout.arrays[number].slots.clone() {
            self.clear(slot);
        }
        let array = &self.layout.arrays[number];
        match mistake {
            Some((list, what)) => self.mistakes.push((array.slots[list], what)),
            None => array.put(values, self.arena, self.slots),
        }
        Ok(())
    }
}

impl Kind {
    pub(super) fn expected(self) -> &'static str {
        match self {
            Kind::String => "a string",
            Kind::Bool => "a bool",
            Kind::Int => "an int",
            Kind::Double => "a double",
            Kind::TimestampMs => "a timestamp as an integer of milliseconds",
            Kind::TimestampText => "a timestamp as RFC 3339 text",
            Kind::DurationMs => "a duration as an integer of milliseconds",
            Kind::Bytes => "bytes, which JSON does not have",
        }
    }
}

/// The value as a field of this kind holds it; `None` if it is of another kind.
fn slot_of<'b>(kind: Kind, value: Scalar<'b>) -> Option<Slot<'b>> {
    let int = match value {
        Scalar::Int(int) => Some(int),
        Scalar::Double(double) if double.fract() == 0.0 && double.abs() < EXACT_MAX => Some(double as i64),
        _ => None,
    };
    match (kind, value) {
        (_, Scalar::Null) => Some(Slot::Null),
        (Kind::String, Scalar::String(text)) => Some(Slot::String(text)),
        (Kind::Bool, Scalar::Bool(value)) => Some(Slot::Bool(value)),
        (Kind::Int, _) => int.map(Slot::Int),
        (Kind::Double, Scalar::Int(value)) => Some(Slot::Double(value as f64)),
        (Kind::Double, Scalar::Large(value)) => Some(Slot::Double(value as f64)),
        (Kind::Double, Scalar::Double(value)) => Some(Slot::Double(value)),
        (Kind::TimestampMs, _) => int.map(Slot::Timestamp),
        (Kind::TimestampText, Scalar::String(text)) => time::parse_rfc3339_ms(text).map(Slot::Timestamp),
        (Kind::DurationMs, _) => int.map(Slot::Duration),
        _ => None,
    }
}

impl fmt::Display for Scalar<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scalar::Null => f.write_str("null"),
            Scalar::Bool(value) => write!(f, "{value}"),
            Scalar::Int(value) => write!(f, "the number {value}"),
            Scalar::Large(value) => write!(f, "the number {value}"),
            Scalar::Double(value) => write!(f, "the number {value:?}"),
            Scalar::String(text) => match text.char_indices().nth(SHOWN_CHARS_MAX) {
                Some((end, _)) => write!(f, "the string {:?}...", &text[..end]),
                None => write!(f, "the string {text:?}"),
            },
            Scalar::Array => f.write_str("an array"),
            Scalar::Object => f.write_str("an object"),
        }
    }
}

/// Reads a value into a target.
struct Value<'a, 'r, 'b> {
    reading: &'a mut Reading<'r, 'b>,
    target: Target,
}

impl<'b> DeserializeSeed<'b> for Value<'_, '_, 'b> {
    type Value = ();

    fn deserialize<D: Deserializer<'b>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.target {
            Target::Ignored => deserializer.deserialize_ignored_any(IgnoredAny).map(drop),
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl<'b> Visitor<'b> for Value<'_, '_, 'b> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.reading.put(self.target, Scalar::Null);
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.reading.put(self.target, Scalar::Bool(value));
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.reading.put(self.target, Scalar::Int(value));
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.reading.put(self.target, i64::try_from(value).map_or(Scalar::Large(value), Scalar::Int));
        Ok(())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.reading.put(self.target, Scalar::Double(value));
        Ok(())
    }

    fn visit_borrowed_str<E: Error>(self, text: &'b str) -> Result<(), E> {
        self.reading.put(self.target, Scalar::String(text));
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        let text = self.reading.arena.alloc_str(text);
        self.visit_borrowed_str(text)
    }

    fn visit_seq<A: SeqAccess<'b>>(self, mut elements: A) -> Result<(), A::Error> {
        if let Target::Array(number) = self.target {
            return self.reading.read_array(number, elements);
        }
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        self.reading.put(self.target, Scalar::Array);
        Ok(())
    }

    fn visit_map<A: MapAccess<'b>>(self, mut members: A) -> Result<(), A::Error> {
        self.reading.put(self.target, Scalar::Object);
        let Some(object) = self.reading.object_of(self.target) else {
            while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(());
        };
        let mut guess = 0;
        while let Some(target) =
            members.next_key_seed(Key { layout: self.reading.layout, object, guess: &mut guess })?
        {
            members.next_value_seed(Value { reading: self.reading, target })?;
        }
        Ok(())
    }
}

/// Reads a key of an object and finds what it leads to.
struct Key<'a> {
    layout: &'a mut Layout,
    object: usize,
    guess: &'a mut usize,
}

impl<'b> DeserializeSeed<'b> for Key<'_> {
    type Value = Target;

    fn deserialize<D: Deserializer<'b>>(self, deserializer: D) -> Result<Target, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Target;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Target, E> {
        Ok(self.layout.objects[self.object].find_key(name, self.guess))
    }
}
