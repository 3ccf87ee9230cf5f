//! How sessions are stored.

use prost::encoding::{decode_varint, encode_varint};

use crate::state::ValueCodec;
use crate::window::WindowRange;

/// A session of a key.
pub struct Session<V> {
    /// From its first record to where the gap of the last one ends.
    pub range: WindowRange,
    /// Its value.
    pub value: V,
}

/// How sessions are stored: the start (zigzag), the length and then the value's bytes, the first two as protobuf
/// writes whole numbers. No bytes: no session.
pub struct SessionCodec<A>(pub(super) A);

impl<A: ValueCodec> SessionCodec<A> {
    /// Of sessions whose values `values` writes.
    pub fn new(values: A) -> Self {
        SessionCodec(values)
    }
}

impl<A: ValueCodec> ValueCodec for SessionCodec<A> {
    /// The session of a key that ends in a bucket. Two that are open cannot: they would touch. One that has closed
    /// makes room for the next.
    type Value = Option<Session<A::Value>>;

    fn encode(&self, session: &Option<Session<A::Value>>, bytes: &mut Vec<u8>) {
        let Some(Session { range, value }) = session else { return };
        encode_varint(((range.start_ms << 1) ^ (range.start_ms >> 63)) as u64, bytes);
        encode_varint((range.end_ms - range.start_ms) as u64, bytes);
        self.0.encode(value, bytes);
    }

    fn decode(&self, mut bytes: &[u8]) -> Result<Option<Session<A::Value>>, String> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let mut number = || decode_varint(&mut bytes).map_err(|error| error.to_string());
        let (start, length_ms) = (number()?, number()?);
        let start_ms = ((start >> 1) as i64) ^ -((start & 1) as i64);
        let end_ms = i64::try_from(length_ms).ok().and_then(|length_ms| start_ms.checked_add(length_ms));
        let range = WindowRange { start_ms, end_ms: end_ms.ok_or("a session's length is out of range")? };
        Ok(Some(Session { range, value: self.0.decode(bytes)? }))
    }

    fn heap_bytes(&self, session: &Option<Session<A::Value>>) -> usize {
        session.as_ref().map_or(0, |session| self.0.heap_bytes(&session.value))
    }
}
