//! Kafka behind the ports of the worker (`worker::port`): the consumer, the transactional producer,
//! the reader of changelogs and the admin client, all on librdkafka.
//!
//! - [`KafkaLog`]: a member of the application's group, static, classic protocol, `range`.
//! - [`KafkaTransactionLog`]: one checkpoint, one transaction.
//! - [`KafkaWriter`]: records without a transaction, for benchmarks.
//! - [`KafkaChangelogReader`]: what a restore looks up and reads.
//! - [`KafkaAdmin`]: topics, groups, cutting a changelog.
//!
//! Unsafe code stands in `raw` alone. `docs/kafka.md` tells operators which rights and settings all
//! this needs.
#![allow(
    clippy::disallowed_methods,
    reason = "this is the outside: sockets have time-outs, by the wall clock"
)]

mod admin;
mod consumer;
mod failure;
mod notice;
mod producer;
mod raw;
mod reader;
mod settings;
mod writer;

use crate::worker::alignment::Standing;
use crate::worker::port::SourceOffset;

/// The metadata of the offset of a partition that a bounded run has finished.
const FINISHED: &str = "finished";

/// What is committed with an offset.
fn metadata(offset: &SourceOffset) -> Option<String> {
    if offset.finished {
        return Some(FINISHED.to_owned());
    }
    offset.standing.map(Standing::to_metadata)
}

pub use admin::KafkaAdmin;
pub use consumer::KafkaLog;
pub use producer::{CrashPoint, KafkaTransactionLog};
pub use raw::Outgoing;
pub use reader::KafkaChangelogReader;
pub use settings::{Compression, ConnectionSettings, ENGINE_OWNED};
pub use writer::KafkaWriter;
