//! Placeholder.

pub mod port;
