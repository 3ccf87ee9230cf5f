//! Tests of the worker, and the small cluster that they and the tests of tasks run on.

mod aligned;
pub(crate) mod cluster;
mod rig;
mod scripted;
pub(crate) mod topology;
