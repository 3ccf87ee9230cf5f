//! A task's state outside the operators' memory: how it is written to the changelog, how it comes back.
//!
//! The changelog is the database; a store is a cache of its front. Everything that reaches a store went
//! through a committed changelog record first:
//!
//! - [`key`]: the layout of keys; byte order is the order of (operator, window end, user key).
//! - [`Header`] and [`codec`]: the records of the changelog, deltas and chunks.
//! - [`merge`]: many records into one set of writes; the last record of a key wins.
//! - [`apply`]: the one path from the log into a store, for flush, restart and restore.
//! - [`store`]: the port that a store implements; [`memory`]: the store that needs no disk.

pub mod apply;
pub mod codec;
#[cfg(test)]
pub(crate) mod conformance;
pub mod header;
pub mod key;
pub mod memory;
pub mod merge;
pub mod points;
mod prefix;
mod stateful;
pub mod store;
mod table;

pub use header::{
    ChunkHeader, FORMAT_VERSION, Header, OperatorState, SourcePosition, Sweep, THIS_CHECKPOINT,
};
pub use stateful::{MemoryUse, PutEntry, Stateful};
pub use table::{BLOCK_ENTRIES, EntryRef, ValueCodec, WindowTable};
