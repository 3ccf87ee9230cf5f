//! The one room with unsafe code: librdkafka's C interface, as far as `rdkafka` has no safe way to it.
//! One file per reason, each with its own part of the safety argument:
//!
//! - `client`: the handle, made and destroyed.
//! - `code`, `error`, `list`: error codes that the bindings cannot hold, error objects, lists.
//! - `queue`, `event`: one queue for all that a client tells, and a call when it is no longer empty.
//! - `records`: batches of fetched records without a copy.
//! - `group`: membership, an assignment that is answered when the worker is ready, leaving for good.
//! - `produce`, `transaction`: records with a number to know their offsets by; a transaction's errors.
//! - `lookup`, `admin`: offsets and ends of the log; topic ids and a group's offsets.
//!
//! What they have in common:
//!
//! 1. librdkafka is thread-safe: every function called here may be called from any thread at any time
//!    on a live handle (`rdkafka.h`, "Thread safety").
//! 2. Lifetimes. [`Client`] owns its `rd_kafka_t` and destroys it once, when the last `Arc` goes.
//!    Everything that librdkafka wants gone before that (queues, topics, messages, group metadata) is
//!    owned by a type here that frees it in `drop` and holds an `Arc<Client>`, so it is always freed
//!    first, on whichever thread: a value's `drop` runs before its fields are dropped.
//! 3. What librdkafka lends (the strings and lists of an event, the bytes of a message, the headers) is
//!    copied before its owner is freed, or borrowed from the Rust owner.
//! 4. Every string passed in is a `CString`, every list a `TopicPartitionList`, that lives over the call;
//!    librdkafka copies it.
//! 5. librdkafka calls back into this crate at one place only, the wake-up of a [`Queue`]. It has no
//!    other callbacks: everything comes as events that the caller polls for.
#![deny(clippy::undocumented_unsafe_blocks)]

mod admin;
mod client;
mod code;
mod error;
mod event;
mod group;
mod list;
mod lookup;
mod produce;
mod queue;
mod records;
#[cfg(test)]
mod tests;
mod transaction;

pub(super) use admin::{TopicFound, describe_topics, group_offsets};
pub(super) use client::{Client, Kind};
pub(super) use error::Failure;
pub(super) use event::{Delivery, Event};
pub(super) use group::Membership;
pub(super) use list::Element;
pub use produce::Outgoing;
pub(super) use produce::Topic;
pub(super) use queue::{Queue, Wake};

use std::ffi::{CString, c_int};

/// A C string of a name. No name of Kafka's contains a NUL; one that does is cut there, and then is
/// the name of nothing.
fn c_string(text: &str) -> CString {
    let bytes = text.bytes().take_while(|byte| *byte != 0).collect::<Vec<u8>>();
    CString::new(bytes).unwrap_or_default()
}

/// Milliseconds as librdkafka takes them.
fn timeout(ms: u64) -> c_int {
    c_int::try_from(ms).unwrap_or(c_int::MAX)
}
