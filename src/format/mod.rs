//! Bytes to rows and back: record values as JSON, sink keys, state keys, blocks between stages.

pub mod block;
pub mod json;
pub mod key;

/// Why bytes are no row.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct DecodeError {
    /// What is wrong and where: for a field its full path, what was expected and what was found; for
    /// malformed input the position in bytes.
    pub message: String,
}

impl DecodeError {
    fn new(message: impl Into<String>) -> Self {
        DecodeError { message: message.into() }
    }
}
