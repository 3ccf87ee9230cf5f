//! Rows as JSON objects.

use crate::record::{FieldForm, Schema, Slot};
use crate::time;

/// Writes rows as JSON objects without spaces, fields in schema order, null fields included.
///
/// Timestamps are milliseconds since the Unix epoch or RFC 3339 text, as declared; durations
/// milliseconds; bytes base64 text (RFC 4648, padded); a list an array of its elements in the field's form. A
/// double is written with the fewest digits that read back as the same one, and never as an integer (`2.0`).
pub struct Encoder {
    fields: Vec<EncodedField>,
}

struct EncodedField {
    /// What stands before the value: a brace or a comma, the name, a colon.
    prefix: Box<[u8]>,
    form: FieldForm,
}

impl Encoder {
    /// An encoder of rows of this schema.
    pub fn new(schema: &Schema) -> Self {
        let mut fields = Vec::with_capacity(schema.fields.len());
        for (place, field) in schema.fields.iter().enumerate() {
            let mut prefix = vec![if place == 0 { b'{' } else { b',' }];
            write_string(&field.name, &mut prefix);
            prefix.push(b':');
            fields.push(EncodedField { prefix: prefix.into(), form: field.form });
        }
        Encoder { fields }
    }

    /// A row as JSON, in memory of its own.
    pub fn to_vec(&self, slots: &[Slot<'_>]) -> Vec<u8> {
        let mut out = Vec::with_capacity(32 * (slots.len() + 1));
        self.encode(slots, &mut out);
        out
    }

    /// Appends a row, which has one slot per field of the schema, as one JSON object.
    pub fn encode(&self, slots: &[Slot<'_>], out: &mut Vec<u8>) {
        debug_assert_eq!(slots.len(), self.fields.len());
        if self.fields.is_empty() {
            out.push(b'{');
        }
        for (field, slot) in self.fields.iter().zip(slots) {
            out.extend_from_slice(&field.prefix);
            write_value(slot, field.form, out);
        }
        out.push(b'}');
    }
}

/// Appends a value as JSON text.
pub(crate) fn write_value(slot: &Slot<'_>, form: FieldForm, out: &mut Vec<u8>) {
    match *slot {
        Slot::Null => out.extend_from_slice(b"null"),
        Slot::Bool(value) => out.extend_from_slice(if value { b"true" } else { b"false" }),
        Slot::Int(value) | Slot::Duration(value) => write_json(&value, out),
        Slot::Double(value) => write_json(&value, out),
        Slot::Timestamp(ms) => write_timestamp(ms, form, out),
        Slot::String(text) => write_string(text, out),
        Slot::Bytes(bytes) => write_base64(bytes, out),
        Slot::List(elements) => {
            out.push(b'[');
            for (place, element) in elements.iter().enumerate() {
                if place > 0 {
                    out.push(b',');
                }
                write_value(element, form, out);
            }
            out.push(b']');
        }
    }
}

/// Appends text as a JSON string.
pub(crate) fn write_string(text: &str, out: &mut Vec<u8>) {
    write_json(text, out);
}

fn write_json<T: serde::Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    // Numbers and text can be written, and a vector takes them.
    let written = serde_json::to_writer(out, value);
    debug_assert!(written.is_ok());
}

/// Text is for the years 0000 to 9999 only; an instant outside of them is written in milliseconds.
fn write_timestamp(ms: i64, form: FieldForm, out: &mut Vec<u8>) {
    if form == FieldForm::Rfc3339 {
        let mut text = String::with_capacity(26);
        if time::format_rfc3339_ms(ms, &mut text) {
            out.push(b'"');
            out.extend_from_slice(text.as_bytes());
            out.push(b'"');
            return;
        }
    }
    write_json(&ms, out);
}

fn write_base64(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    out.push(b'"');
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for digit in 0..4 {
            let padding = digit > group.len();
            out.push(if padding { b'=' } else { DIGITS[(bits >> (18 - 6 * digit)) as usize & 63] });
        }
    }
    out.push(b'"');
}
