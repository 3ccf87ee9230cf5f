//! An in-process, in-memory, deterministic model of Kafka behind the ports of [`worker`](crate::worker).
//!
//! A [`Cluster`] holds topics, the transaction coordinator and the group coordinator; the clients in
//! [`clients`] and [`producer`] are what the ports are served by. It reads no clock and no randomness and
//! starts no thread: virtual time moves when the caller moves it ([`Cluster::advance`]). Where a port
//! documents that a call blocks, there is nobody to wait for in one thread: such a call moves virtual
//! time itself, step by step from one due event to the next, until it has what it waits for or its limit
//! is reached. Requests take no time.
//!
//! What it models, and what a real broker was seen to do in the same scenario (`tests/conformance.rs`):
//! offsets taken by control markers, the two isolation levels, the last stable offset, log starts
//! (`partition`); producer ids, epochs, fencing, time-outs, markers that come late (`transactions`);
//! the classic group protocol with static members, sessions and rebalances, and transactional offset
//! commits with the coordinator's lax checks (`group`); librdkafka's side of a membership (`consumer`).
//!
//! What it does not model yet: requests that are lost, repeated, late or answered by an error by choice;
//! brokers that are away or crash (and log starts that move back by that); rights; replication; a
//! non-transactional producer or commit; produce sequence numbers; compression; retention of records;
//! compacted topics; topics with more partitions than at their creation. Each file says where it is
//! simpler than Kafka.

pub mod clients;
mod cluster;
mod consumer;
mod error;
mod group;
pub mod link;
mod partition;
pub mod producer;
mod transactions;

pub use cluster::{ClientSettings, Cluster};
pub use error::{Code, Severity};

#[cfg(test)]
mod tests;
