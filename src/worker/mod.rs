//! The worker: one consumer, one transactional producer, the tasks of the assigned partitions. The unit
//! of commit.
//!
//! [`Worker`] is a state machine without threads, sockets or clock. Its shell calls
//! [`step`](Worker::step) again and again, runs the [`Job`]s that come back on blocking threads, and
//! hands their [`JobDone`] back. Whatever the order in which they come, the worker keeps what exactly-once
//! needs: it commits only under the membership that its assignment came with, gives partitions back only
//! when no commit is running, and on any doubt drops everything in memory and starts over from what is
//! committed.

pub mod alignment;
pub mod bounded;
mod job;
mod machine;
pub mod neighbours;
mod phase;
pub mod port;
mod rebuilds;
#[cfg(test)]
pub(crate) mod tests;
pub mod topics;

pub use job::{Exit, Job, JobDone, WorkerEvent};
pub use machine::{StageSpec, Step, Worker, WorkerSpec};
pub use phase::Phase;
pub use rebuilds::Rebuilds;
