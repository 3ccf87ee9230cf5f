//! The whole engine in one thread, on the [`model`](crate::model) of Kafka, with a virtual clock.
//!
//! A [`Scenario`] says what runs: a topology, its input, how many processes with how many workers, and
//! what goes wrong. [`run`] plays it to its end and hands back what was committed.

mod scenario;

pub use scenario::{CommitPoint, Failure, Faults, Input, Outcome, Pace, Scenario, Step, Written};
