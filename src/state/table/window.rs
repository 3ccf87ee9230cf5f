//! The entries of one window in memory, together.

use std::cmp::Ordering;

use ahash::RandomState;
use hashbrown::HashTable;

/// What an entry costs beside its key and its own size: the index, with hashbrown's load factor.
const INDEX_BYTES: usize = 8;

/// The entries of one window that are in memory.
pub(super) struct Window<V> {
    pub end_ms: i64,
    pub index: HashTable<u32>,
    pub entries: Vec<Entry<V>>,
    /// The bytes of all keys, one after the other.
    pub keys: Vec<u8>,
    /// Entries changed since the last collect.
    pub dirty: Vec<u32>,
    /// Entries in ascending key order; up to date if it names every entry.
    pub order: Vec<u32>,
    /// No entry of this window is in the store only.
    pub complete: bool,
    /// A delta or the store may hold entries of this window.
    pub persisted: bool,
    pub heap_bytes: usize,
    /// How many entries the store does not hold in their newest form.
    pub pinned: usize,
}

/// A key and its value.
pub(super) struct Entry<V> {
    pub key_at: u32,
    pub key_len: u32,
    /// The last checkpoint that changed it; the current one if it is dirty.
    pub changed_at: u64,
    pub value: V,
}

impl<V> Window<V> {
    pub fn new(end_ms: i64, complete: bool) -> Self {
        Window {
            end_ms,
            index: HashTable::new(),
            entries: Vec::new(),
            keys: Vec::new(),
            dirty: Vec::new(),
            order: Vec::new(),
            complete,
            persisted: !complete,
            heap_bytes: 0,
            pinned: 0,
        }
    }

    pub fn key(&self, entry: &Entry<V>) -> &[u8] {
        &self.keys[entry.key_at as usize..(entry.key_at + entry.key_len) as usize]
    }

    pub fn key_at(&self, index: u32) -> &[u8] {
        self.key(&self.entries[index as usize])
    }

    pub fn insert(&mut self, hash: u64, key: &[u8], value: V, hasher: &RandomState) -> usize {
        let index = self.entries.len();
        let key_at = self.keys.len() as u32;
        self.keys.extend_from_slice(key);
        self.entries.push(Entry { key_at, key_len: key.len() as u32, changed_at: 0, value });
        let (entries, keys) = (&self.entries, &self.keys);
        self.index.insert_unique(hash, index as u32, |other| {
            let entry = &entries[*other as usize];
            hasher.hash_one(&keys[entry.key_at as usize..(entry.key_at + entry.key_len) as usize])
        });
        index
    }

    /// Forgets all entries and keeps the buffers.
    pub fn clear(&mut self) {
        self.index.clear();
        self.entries.clear();
        self.keys.clear();
        self.dirty.clear();
        self.order.clear();
        (self.heap_bytes, self.pinned) = (0, 0);
    }

    /// What the buffers hold or could hold.
    pub fn buffer_bytes(&self) -> usize {
        self.keys.capacity() + self.entries.capacity() * (size_of::<Entry<V>>() + INDEX_BYTES)
    }

    pub fn bytes(&self) -> usize {
        self.keys.len() + self.entries.len() * (size_of::<Entry<V>>() + INDEX_BYTES) + self.heap_bytes
    }

    /// Brings `order` up to date.
    pub fn sort(&mut self) {
        if self.order.len() != self.entries.len() {
            let mut order: Vec<u32> = (0..self.entries.len() as u32).collect();
            sort_by_key(self, &mut order);
            self.order = order;
        }
    }
}

/// Sorts entries by their keys. Most comparisons are decided by eight bytes after the prefix that all
/// keys share, which are gathered first, so that they need no look at the keys themselves.
pub(super) fn sort_by_key<V>(window: &Window<V>, indexes: &mut [u32]) {
    let Some(first) = indexes.first() else { return };
    let first = window.key_at(*first);
    let shared = indexes.iter().fold(first.len(), |shared, index| {
        let key = window.key_at(*index);
        let limit = shared.min(key.len());
        (0..limit).find(|at| key[*at] != first[*at]).unwrap_or(limit)
    });
    let mut keyed: Vec<(u64, u32)> = indexes
        .iter()
        .map(|index| {
            let tail = &window.key_at(*index)[shared..];
            let mut head = [0; 8];
            let len = tail.len().min(8);
            head[..len].copy_from_slice(&tail[..len]);
            (u64::from_be_bytes(head), *index)
        })
        .collect();
    keyed.sort_unstable_by(|left, right| match left.0.cmp(&right.0) {
        Ordering::Equal => window.key_at(left.1).cmp(window.key_at(right.1)),
        order => order,
    });
    for (place, (_, index)) in indexes.iter_mut().zip(keyed) {
        *place = index;
    }
}
