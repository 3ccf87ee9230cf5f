//! Records as the log takes them.

use std::sync::Arc;

/// One record to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputRecord {
    /// Where to.
    pub topic: Arc<str>,
    /// Which partition of it.
    pub partition: i32,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// The headers, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// The timestamp in milliseconds since the Unix epoch; -1: the time of sending.
    pub timestamp_ms: i64,
}
