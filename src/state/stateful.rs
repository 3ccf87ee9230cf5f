//! What a checkpoint needs of an operator with state.

use std::sync::Arc;

use super::codec::DeltaWriter;
use super::header::OperatorState;
use super::store::{Store, StoreError};

/// Memory that an operator's state takes, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// All of it.
    pub total: usize,
    /// What cannot be evicted: the store does not hold it yet in its newest form.
    pub pinned: usize,
    /// What changed since the last collect: what the next delta will hold, about.
    pub dirty: usize,
}

/// Receives entries in ascending key order: the whole key and the encoded value.
pub type PutEntry<'p> = dyn FnMut(&[u8], &[u8]) + 'p;

/// An operator's state, as its task sees it. Checkpoints are numbered from 1; checkpoint n holds every
/// change made after n - 1 was collected.
pub trait Stateful {
    /// The operator's id: the identity of its state.
    fn id(&self) -> &str;
    /// What the state's layout and meaning depend on, as text: see `OperatorPlan::fingerprint`.
    fn fingerprint(&self) -> &str;
    /// The range `from..to` of the keys that are this operator's.
    fn key_range(&self) -> (Vec<u8>, Vec<u8>);
    /// What of it stands in a checkpoint's header.
    fn saved(&self) -> OperatorState;
    /// Forgets everything and goes on from checkpoint `checkpoint` as it lies in `store` and `saved`
    /// (`None`: the operator is new and starts empty).
    fn restore(
        &mut self,
        store: Arc<dyn Store>,
        saved: Option<&OperatorState>,
        checkpoint: u64,
    ) -> Result<(), StoreError>;
    /// Writes the ranges of keys deleted since the last call. In a delta the ranges of all operators
    /// stand before the points of any.
    fn collect_ranges(&mut self, delta: &mut DeltaWriter);
    /// Writes the entries changed since the last call, in ascending key order. Afterwards all changes
    /// so far count as part of checkpoint `checkpoint`.
    fn collect_points(&mut self, checkpoint: u64, delta: &mut DeltaWriter);
    /// Puts the entries at and after the key `from` until some `bytes_max` bytes are put, as of the
    /// last `collect_points`. Returns the key to go on from, or `None` at the end of the operator's keys.
    fn chunk(
        &mut self,
        from: &[u8],
        bytes_max: usize,
        put: &mut PutEntry<'_>,
    ) -> Result<Option<Vec<u8>>, StoreError>;
    /// The store holds everything up to and including checkpoint `checkpoint`.
    fn flushed(&mut self, checkpoint: u64);
    /// Memory in use.
    fn memory(&self) -> MemoryUse;
    /// Frees about `bytes` of what the store holds as well, the longest unchanged first.
    fn evict(&mut self, bytes: usize);
}
