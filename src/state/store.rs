//! The store port: where the flushed part of a task's state lies. RocksDB implements it in `rocks`.

use super::Header;
use super::points::Points;
use crate::record::TopicId;

/// How far a store has followed its changelog.
#[derive(Clone, Debug, PartialEq)]
pub struct StorePosition {
    /// The changelog topic's identity: a store of another topic's log is worthless.
    pub topic_id: TopicId,
    /// The offset of the next changelog record to apply. Only rises.
    pub next_offset: i64,
    /// The header of the last delta applied; `None` before the first.
    pub header: Option<Header>,
    /// A restore from the log start into an empty store has begun and not ended: what the store holds
    /// is no state of any checkpoint, and only that restore may go on with it.
    pub restoring: bool,
    /// The log start at which the restore that filled the store began: it holds what the log holds
    /// from there on. Meaningless unless the newest header's restore point is at or after it.
    pub restored_from: i64,
}

/// Writes to a store, merged: ranges first, then points.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreWrites {
    /// Ranges `from..to` of keys to delete. They hide nothing among `points`.
    pub ranges: Vec<(Vec<u8>, Vec<u8>)>,
    /// Keys in ascending order, each once, with their new value.
    pub points: Points,
}

/// What a store failed at.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// What it holds cannot be trusted: set it aside and restore from the changelog.
    #[error("{0}")]
    Corrupt(String),
    /// The machine refuses (disk full, rights, file handles): stop and tell the operator.
    #[error("{0}")]
    Io(String),
}

/// A key and its value.
pub type Entry = (Box<[u8]>, Box<[u8]>);

/// One task's store. All calls may block on the disk.
pub trait Store: Send + Sync {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;
    /// The entries of `from..to` in ascending order, as of this call.
    fn scan<'s>(
        &'s self,
        from: &[u8],
        to: &[u8],
    ) -> Result<Box<dyn Iterator<Item = Result<Entry, StoreError>> + 's>, StoreError>;
    /// How far it has followed the changelog; `None` if it is new.
    fn position(&self) -> Result<Option<StorePosition>, StoreError>;
    /// Applies writes and the position that they lead to, all or nothing.
    fn write(&self, writes: &StoreWrites, position: &StorePosition) -> Result<(), StoreError>;
    /// Makes everything written so far survive a crash of the machine.
    fn sync(&self) -> Result<(), StoreError>;
    /// Bytes on disk and in write buffers, roughly.
    fn bytes(&self) -> u64;
}

/// Opens the stores of a process. One handle per store at a time.
pub trait StoreFactory {
    /// Opens the store called `name`, creating it empty if there is none.
    fn open(&self, name: &str) -> Result<std::sync::Arc<dyn Store>, StoreError>;
    /// Moves the store called `name` out of the way, keeping its files for inspection (the newest one
    /// only), so that the next `open` creates an empty one. Its handles are closed.
    fn set_aside(&self, name: &str, why: &str) -> Result<(), StoreError>;
    /// Deletes the store called `name`. Its handles are closed.
    fn destroy(&self, name: &str) -> Result<(), StoreError>;
}
