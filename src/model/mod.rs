//! An in-process, in-memory, deterministic model of Kafka behind the ports of [`worker`](crate::worker).
//!
//! A [`Cluster`] holds topics, the transaction coordinator and the group coordinator; the clients in
//! [`clients`] and [`producer`] are what the ports are served by. It reads no clock and no randomness and
//! starts no thread: virtual time moves when somebody moves it ([`Cluster::advance`]).
//!
//! What a client asks for is a value, a [`Request`](request::Request), and goes over a [`Link`](link::Link),
//! which decides whether it arrives, and which is called while the client waits. So one thread can play many
//! clients, each a coroutine of its own that is switched away from in its link. A client that is used
//! directly is alone: where a port documents that a call blocks, it moves virtual time itself, step by step
//! from one due event to the next, until it has what it waits for or its limit is reached. Requests that
//! arrive take no time.
//!
//! What it models, and what a real broker was seen to do in the same scenario (`tests/conformance.rs`):
//!
//! - partitions: offsets that control markers take as well, the two isolation levels, the last stable offset,
//!   log starts, records outside of transactions, batches that come twice (`partition`);
//! - transactions: producer ids, epochs, fencing, time-outs, markers that come late, the question of a
//!   leader whether a transaction has begun (`transactions`);
//! - groups: the classic protocol with static members, sessions and rebalances; offsets in transactions with
//!   the coordinator's lax checks, and without one with its strict ones (`group`); librdkafka's side of a
//!   membership, with topics that are missing, come, grow and go (`consumer`);
//! - requests that come late or twice, when another process is at work ([`link`]);
//! - brokers that are away, that start again, and that crash, with log starts that move back; rights that are
//!   missing (`faults`).
//!
//! What it models besides, which a real broker is not brought to do on demand: requests that are lost or
//! whose answer is, at any moment ([`link`]); a single partition's leader or a single coordinator that moves;
//! consumers that are cut off from their group or lose single requests to it, and processes that are
//! stopped and wake as zombies (`faults`); the expiry of a group's offsets.
//!
//! What it does not model: replication, so that nothing that was acknowledged is ever lost; more than one
//! broker; more than one user; the rights to create topics and to look at their settings; compression;
//! retention of records by time and size, and compaction; quotas; what a topic's id does for a consumer that
//! reads on while its topic is deleted and created again; the new group protocol. A consumer's own fetches
//! are not lost one by one. Each file says where it is simpler than Kafka.

mod admin;
mod broker;
pub mod clients;
mod cluster;
mod committer;
mod consumer;
mod error;
mod faults;
mod group;
pub mod link;
mod look;
mod partition;
pub mod producer;
mod reader;
pub mod request;
mod transactions;

pub use cluster::{ClientSettings, Cluster, ConsumerId};
pub use consumer::Mishap;
pub use error::{Code, Severity};
pub use faults::{Operation, Resource, Service};
pub use group::Identity;
pub use partition::{Found, Isolation, Record};
pub use transactions::Writer;

#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod link_tests;
#[cfg(test)]
mod tests;
