//! Placeholder.

pub mod identity;
pub mod reset;
