//! A process that runs a topology: its identity, its workers, their actors.

mod connection;
pub mod identity;
pub mod reset;

use crate::settings::Settings;
use crate::telemetry::crash::CrashPoints;
use crate::topology::Plan;

pub use connection::{Member, connection};

/// How a topology is run.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// To the present end of its input, instead of until it is told to stop.
    pub bounded: bool,
    /// Ids of stateful operators that the topology no longer has and whose state may be dropped.
    pub drop_state: Vec<String>,
    /// Where a test lets the process die.
    pub crash_points: CrashPoints,
}

/// How a run ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was told to stop, and everything is committed.
    Stopped,
    /// A bounded run came to the end of its input.
    Finished,
    /// A bounded run found that it had been finished before, and did nothing.
    AlreadyFinished,
}

/// Why a run ended badly.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// The surroundings or the input do not let it go on: exit code 1.
    #[error("{0}")]
    Failed(String),
    /// The topology does not fit the state that it finds: exit code 2.
    #[error("{0}")]
    Refused(String),
}

/// Runs a topology until it is told to stop (SIGTERM, SIGINT), or to the end of its input.
pub fn run(_plan: Plan, _settings: Settings, _options: RunOptions) -> Result<Outcome, RunError> {
    // SEAM: the coordinator and its workers come here.
    Err(RunError::Failed("this build cannot run topologies yet".into()))
}
