//! How windows that no time closes are stored.

use prost::Message;

use super::{Kept, Pane};
use crate::state::ValueCodec;
use crate::window::WindowRange;

/// [`Kept`].
#[derive(Clone, PartialEq, prost::Message)]
struct KeptMessage {
    /// Always written, so that no bytes mean nothing.
    #[prost(sint64, optional, tag = "1")]
    newest_ms: Option<i64>,
    #[prost(int64, tag = "2")]
    rows: i64,
    #[prost(message, repeated, tag = "3")]
    panes: Vec<PaneMessage>,
}

/// [`Pane`].
#[derive(Clone, PartialEq, prost::Message)]
struct PaneMessage {
    #[prost(sint64, tag = "1")]
    start_ms: i64,
    #[prost(int64, tag = "2")]
    length_ms: i64,
    /// As its aggregates write it.
    #[prost(bytes = "vec", tag = "3")]
    value: Vec<u8>,
}

/// How what is kept of a key is stored: as a protobuf message, in which `A` writes the values. No bytes: nothing; it has
/// moved on.
pub struct KeptCodec<A>(pub(super) A);

impl<A: ValueCodec> KeptCodec<A> {
    /// Of keys whose values `values` writes.
    pub fn new(values: A) -> Self {
        KeptCodec(values)
    }
}

impl<A: ValueCodec> ValueCodec for KeptCodec<A> {
    type Value = Option<Kept<A::Value>>;

    fn encode(&self, kept: &Self::Value, bytes: &mut Vec<u8>) {
        let Some(Kept { newest_ms, rows, panes }) = kept else { return };
        let pane = |pane: &Pane<A::Value>| {
            let WindowRange { start_ms, end_ms } = pane.range;
            let mut value = Vec::new();
            self.0.encode(&pane.value, &mut value);
            PaneMessage { start_ms, length_ms: end_ms - start_ms, value }
        };
        let panes = panes.iter().map(pane).collect();
        let message = KeptMessage { newest_ms: Some(*newest_ms), rows: *rows, panes };
        bytes.extend_from_slice(&message.encode_to_vec());
    }

    fn decode(&self, bytes: &[u8]) -> Result<Self::Value, String> {
        let KeptMessage { newest_ms, rows, panes } =
            KeptMessage::decode(bytes).map_err(|error| error.to_string())?;
        let Some(newest_ms) = newest_ms else { return Ok(None) };
        let pane = |pane: PaneMessage| {
            let PaneMessage { start_ms, length_ms, value } = pane;
            let end_ms = start_ms.checked_add(length_ms).filter(|end_ms| *end_ms > start_ms);
            let end_ms = end_ms.ok_or("a window's length is out of range")?;
            Ok(Pane { range: WindowRange { start_ms, end_ms }, value: self.0.decode(&value)? })
        };
        let panes = panes.into_iter().map(pane).collect::<Result<_, String>>()?;
        Ok(Some(Kept { newest_ms, rows, panes }))
    }

    fn heap_bytes(&self, kept: &Self::Value) -> usize {
        let Some(kept) = kept else { return 0 };
        let values = kept.panes.iter().map(|pane| self.0.heap_bytes(&pane.value));
        kept.panes.capacity() * size_of::<Pane<A::Value>>() + values.sum::<usize>()
    }
}
