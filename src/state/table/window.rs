//! The entries of one window in memory, together.

use ahash::RandomState;
use hashbrown::HashTable;
use smallvec::SmallVec;

use super::super::prefix::{head, shared_prefix};

/// What an entry costs beside its own size and what it holds elsewhere: its places in the index, with
/// hashbrown's load factor, in the order and among the dirty ones.
const INDEX_BYTES: usize = 16;
/// Keys up to this length lie within their entry, so that an update finds key and value in one place.
const INLINE_KEY_BYTES: usize = 24;

/// Entries that are new are inserted into the order if they are at most this part of all; a search for a place costs
/// as much as sorting some ten entries.
const INSERTED_SHARE: usize = 32;

/// The entries of one window that are in memory.
pub(super) struct Window<V> {
    pub end_ms: i64,
    pub index: HashTable<u32>,
    pub entries: Vec<Entry<V>>,
    /// Entries changed since the last collect.
    pub dirty: Vec<u32>,
    /// Entries in ascending key order; up to date if it names every entry.
    pub order: Vec<u32>,
    /// No entry of this window is in the store only.
    pub complete: bool,
    /// A delta or the store may hold entries of this window.
    pub persisted: bool,
    /// What keys and values hold outside the entries.
    pub heap_bytes: usize,
    /// How many entries the store does not hold in their newest form.
    pub pinned: usize,
    /// All keys begin with so many bytes of the first one's.
    pub shared: usize,
}

/// A key and its value.
pub(super) struct Entry<V> {
    pub key: SmallVec<[u8; INLINE_KEY_BYTES]>,
    /// The last checkpoint that changed it; the current one if it is dirty.
    pub changed_at: u64,
    pub value: V,
}

impl<V> Entry<V> {
    pub fn new(key: &[u8], value: V) -> Self {
        Entry { key: SmallVec::from_slice(key), changed_at: 0, value }
    }

    /// What the key holds outside the entry.
    pub fn key_heap_bytes(&self) -> usize {
        if self.key.spilled() { self.key.capacity() } else { 0 }
    }
}

impl<V> Window<V> {
    pub fn new(end_ms: i64, complete: bool) -> Self {
        Window {
            end_ms,
            index: HashTable::new(),
            entries: Vec::new(),
            dirty: Vec::new(),
            order: Vec::new(),
            complete,
            persisted: !complete,
            heap_bytes: 0,
            pinned: 0,
            shared: 0,
        }
    }

    /// Makes room for so many more entries.
    pub fn reserve(&mut self, entries: usize, hasher: &RandomState) {
        let Window { index, entries: held, .. } = self;
        held.reserve(entries);
        index.reserve(entries, |other| hasher.hash_one(&held[*other as usize].key[..]));
    }

    pub fn key_at(&self, index: u32) -> &[u8] {
        &self.entries[index as usize].key
    }

    /// Adds an entry whose value holds `heap_bytes` bytes outside itself. Returns its place.
    pub fn insert(&mut self, hash: u64, entry: Entry<V>, heap_bytes: usize, hasher: &RandomState) -> usize {
        let index = self.entries.len();
        self.shared = match self.entries.first() {
            None => entry.key.len(),
            Some(first) => shared_prefix(&first.key[..self.shared], &entry.key),
        };
        self.heap_bytes += heap_bytes + entry.key_heap_bytes();
        self.entries.push(entry);
        let entries = &self.entries;
        let rehash = |other: &u32| hasher.hash_one(&entries[*other as usize].key[..]);
        self.index.insert_unique(hash, index as u32, rehash);
        index
    }

    /// Forgets all entries and keeps the buffers.
    pub fn clear(&mut self) {
        self.index.clear();
        self.entries.clear();
        self.dirty.clear();
        self.order.clear();
        (self.heap_bytes, self.pinned, self.shared) = (0, 0, 0);
    }

    /// What the buffers hold or could hold.
    pub fn buffer_bytes(&self) -> usize {
        self.entries.capacity() * (size_of::<Entry<V>>() + INDEX_BYTES)
    }

    pub fn bytes(&self) -> usize {
        self.entries.len() * (size_of::<Entry<V>>() + INDEX_BYTES) + self.heap_bytes
    }

    /// Brings `order` up to date. While a window grows that happens often, with few entries that are new: they
    /// are inserted, which costs a search each.
    pub fn sort(&mut self) {
        let (sorted, all) = (self.order.len(), self.entries.len());
        if sorted == all {
            return;
        }
        let mut order = std::mem::take(&mut self.order);
        if all - sorted > all / INSERTED_SHARE {
            order.clear();
            order.extend(0..all as u32);
            sort_by_key(self, &mut order);
        } else {
            let mut added: Vec<u32> = (sorted as u32..all as u32).collect();
            sort_by_key(self, &mut added);
            order.resize(all, 0);
            // From the last on, what lies behind each moves up by as many places as are still to be inserted.
            let mut end = sorted;
            for (before, index) in added.iter().enumerate().rev() {
                let key = self.key_at(*index);
                let at = order[..end].partition_point(|other| self.key_at(*other) < key);
                order.copy_within(at..end, at + before + 1);
                order[at + before] = *index;
                end = at;
            }
        }
        self.order = order;
    }
}

/// Sorts entries by their keys. Most comparisons are decided by eight bytes after the prefix that all
/// keys share, which are gathered first, so that they need no look at the keys themselves; entries that are
/// equal in those come next.
pub(super) fn sort_by_key<V>(window: &Window<V>, indexes: &mut [u32]) {
    let mut keyed: Vec<(u64, u32)> =
        indexes.iter().map(|index| (head(&window.key_at(*index)[window.shared..]), *index)).collect();
    keyed.sort_unstable_by_key(|(head, _)| *head);
    for equal in keyed.chunk_by_mut(|left, right| left.0 == right.0).filter(|equal| equal.len() > 1) {
        equal.sort_unstable_by(|left, right| window.key_at(left.1).cmp(window.key_at(right.1)));
    }
    for (place, (_, index)) in indexes.iter_mut().zip(keyed) {
        *place = index;
    }
}
