//! What tasks write, as bytes and in its place.

use super::evaluate::Origin;
use super::json::{RFC3339_MS, push_int, push_rfc3339, push_text};
use super::{Event, Row, Task, Writer};
use crate::record::{Field, FieldForm};
use crate::simulator::generate::Sink;
use crate::simulator::generate::formula::Value;

impl<'g> Task<'_, 'g> {
    pub(super) fn write(&mut self, sink: &'g Sink, fields: &[Field], event: &Event<'_>) {
        let key = sink_key(sink, fields, event.row);
        let partition = self.partition_of(&sink.topic, key.as_deref());
        let (value, timestamp_ms) = (Some(object(fields, event.row)), Some(event.time_ms));
        self.put(&sink.topic, &sink.id, Row { partition, key, value, headers: Vec::new(), timestamp_ms });
    }

    pub(super) fn late(
        &mut self,
        id: &'g str,
        topic: Option<&'g String>,
        fields: &[Field],
        event: &Event<'_>,
    ) {
        *self.out.late.entry(id.to_owned()).or_default() += 1;
        let Some(topic) = topic else { return };
        let partitions = self.generated.partitions(topic);
        self.put(topic, id, late_row(event, fields, self.partition.partition, partitions));
    }

    /// Without a key: the number of the task's own partition, so that its rows keep their order.
    fn partition_of(&self, topic: &str, key: Option<&[u8]>) -> i32 {
        partition_of(key, self.partition.partition, self.generated.partitions(topic))
    }

    /// The same of what tells of a record: that of its partition.
    pub(super) fn partition_by(&self, topic: &str, origin: Option<Origin<'_>>) -> i32 {
        partition_by(origin, self.partition.partition, self.generated.partitions(topic))
    }

    pub(super) fn put(&mut self, topic: &'g str, id: &'g str, row: Row) {
        self.rows.entry((topic, id)).or_default().push(row);
    }

    /// Hands over what was written.
    pub(super) fn end(self) {
        for ((topic, id), rows) in self.rows {
            let writer = Writer { id: id.to_owned(), task: self.partition.clone() };
            self.out.topics.entry(topic.to_owned()).or_default().insert(writer, rows);
        }
    }
}

fn partition_of(key: Option<&[u8]>, number: i32, partitions: i32) -> i32 {
    match key {
        Some(key) => (murmur2(key) & 0x7fff_ffff) as i32 % partitions,
        None => number % partitions,
    }
}

pub(super) fn partition_by(origin: Option<Origin<'_>>, number: i32, partitions: i32) -> i32 {
    let key = origin.and_then(|origin| origin.input.key.as_deref());
    partition_of(key, origin.map_or(number, |origin| origin.input.partition.partition), partitions)
}

/// A row that came late, in the task of this partition; its topic has so many.
pub(super) fn late_row(event: &Event<'_>, fields: &[Field], number: i32, partitions: i32) -> Row {
    Row {
        partition: partition_by(event.origin, number, partitions),
        key: event.origin.and_then(|origin| origin.input.key.clone()),
        value: Some(object(fields, event.row)),
        headers: event.origin.map(provenance).unwrap_or_default(),
        timestamp_ms: Some(event.time_ms),
    }
}

/// A record's headers, and where it stood.
pub(super) fn provenance(origin: Origin<'_>) -> Vec<(String, Option<Vec<u8>>)> {
    let Origin { input, offset } = origin;
    let mut headers = input.headers.clone();
    headers.extend([
        ("thalweg.topic".to_owned(), Some(input.partition.topic.as_bytes().to_vec())),
        ("thalweg.partition".to_owned(), Some(input.partition.partition.to_string().into_bytes())),
        ("thalweg.offset".to_owned(), Some(offset.to_string().into_bytes())),
        ("thalweg.timestamp".to_owned(), Some(input.timestamp_ms.to_string().into_bytes())),
    ]);
    headers
}

/// The key of a sink's record: a text as it is, another value as JSON, several as an object.
fn sink_key(sink: &Sink, fields: &[Field], row: &[Value]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    match &sink.key[..] {
        [] => return None,
        [slot] => match &row[*slot] {
            Value::Text(text) => out.extend_from_slice(text.as_bytes()),
            value => push_value(&fields[*slot], value, &mut out),
        },
        slots => push_object(slots.iter().map(|slot| (&fields[*slot], &row[*slot])), &mut out),
    }
    Some(out)
}

/// A row as JSON.
pub(super) fn object(fields: &[Field], row: &[Value]) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    push_object(fields.iter().zip(row), &mut out);
    out
}

fn push_object<'r>(members: impl Iterator<Item = (&'r Field, &'r Value)>, out: &mut Vec<u8>) {
    for (place, (field, value)) in members.enumerate() {
        out.push(if place == 0 { b'{' } else { b',' });
        push_text(&field.name, out);
        out.push(b':');
        push_value(field, value, out);
    }
    out.push(b'}');
}

fn push_value(field: &Field, value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
        Value::Int(value) | Value::Duration(value) => push_int(*value, out),
        Value::Timestamp(ms) if field.form == FieldForm::Rfc3339 && RFC3339_MS.contains(ms) => {
            push_rfc3339(*ms, out);
        }
        Value::Timestamp(ms) => push_int(*ms, out),
        Value::Text(text) => push_text(text, out),
        Value::List(elements) => {
            out.push(b'[');
            for (place, element) in elements.iter().enumerate() {
                out.extend_from_slice(if place > 0 { b"," } else { b"" });
                push_value(field, element, out);
            }
            out.push(b']');
        }
        Value::Double(value) => {
            // The shortest digits; their layout is that of the library. Writing to memory cannot fail.
            let written = serde_json::to_writer(out, value);
            debug_assert!(written.is_ok());
        }
    }
}

/// The hash of the Java client's partitioner (org.apache.kafka.common.utils.Utils.murmur2).
fn murmur2(key: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ key.len() as u32;
    let mut chunks = key.chunks_exact(4);
    for chunk in &mut chunks {
        let word = chunk.iter().rev().fold(0_u32, |word, byte| (word << 8) | u32::from(*byte));
        let word = word.wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ (word ^ (word >> 24)).wrapping_mul(M);
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        for (place, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * place);
        }
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}
