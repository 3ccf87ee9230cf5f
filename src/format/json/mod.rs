//! JSON objects in and out.
//!
//! Reading is the hottest code of the product, so it has two tiers. The first one ([`guess`]) expects a
//! record like the one before it, with the same keys in the same order, and no oddities. It either
//! understands a record completely or gives up without a word; then sonic-rs reads it from the start
//! ([`decode`]), which also finds the words for what is wrong. Both work on one [`layout`] of the declared
//! fields, and whatever the first accepts, the second reads as the same row.

mod decode;
mod encode;
mod guess;
mod layout;
#[cfg(test)]
mod tests;

pub use decode::{Decoder, decode_value};
pub use encode::Encoder;
pub(crate) use encode::{write_string, write_value};
