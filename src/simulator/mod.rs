//! The whole engine in one thread, on the [`model`](crate::model) of Kafka, with a virtual clock.
//!
//! A [`Scenario`] says what runs: a topology, its input, how many processes with how many workers, and
//! what goes wrong. [`run`] plays it to its end, checks what must hold in every history, and hands back
//! what was committed.
//!
//! What runs is the production state machine of each [`worker`](crate::worker) with its production tasks,
//! operators, cache, deltas, flushes, chunks and restores. Their jobs are coroutines, which give way to
//! others at each request, pause, write and sync; chance decides who goes on. What is simulated instead:
//! the cluster and its clients ([`model`](crate::model)), the disk (`disk`), and the shell around the
//! workers (`process`, in place of [`runtime`](crate::runtime)).
//!
//! What must hold: committed offsets are those of their owners; every store equals the fold of the
//! committed changelog up to its position, at each crash and at the end; so does what a new owner
//! restores from the log alone; checkpoints, offsets and watermarks only rise (`oracle`). Once nothing
//! goes wrong any more, everything is done within a bounded time.

pub mod campaign;
mod disk;
pub mod generate;
pub mod input;
mod job;
mod oracle;
mod outcome;
pub mod paths;
#[cfg(any(test, feature = "planted-bugs"))]
pub mod planted;
mod process;
pub mod reference;
mod scenario;
mod settings;
mod shared;
#[cfg(test)]
mod tests;
mod trace;
mod world;

pub use scenario::{CommitPoint, Failure, Faults, Input, Outcome, Pace, Scenario, Step, Written};

use std::collections::BTreeSet;

use world::World;

/// Plays a scenario.
///
/// # Errors
/// When it does not come to its end, or something does not hold that must.
pub fn run(scenario: &Scenario) -> Result<Outcome, Failure> {
    let failure = |what| Failure { what };
    let mut world = World::new(scenario, BTreeSet::new(), false).map_err(failure)?;
    world.play().map_err(failure)?;
    world.outcome().map_err(failure)
}
