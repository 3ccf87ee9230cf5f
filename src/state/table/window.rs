//! The entries of one window in memory, together.
//!
//! However many there are, nothing is done to all of them at once, which would take long: they lie in segments, each of
//! which is in order when the next one begins. Whoever visits them in order merges the segments.

use std::collections::VecDeque;

use ahash::RandomState;
use smallvec::SmallVec;

use super::super::prefix::{head, shared_prefix};
use super::index::Index;

/// What an entry costs beside its own size and what it holds elsewhere: its places in the index, with
/// hashbrown's load factor, in the order and among the dirty ones.
const INDEX_BYTES: usize = 16;
/// Keys up to this length lie within their entry, so that an update finds key and value in one place.
const INLINE_KEY_BYTES: usize = 24;

/// How many entries a segment has: few enough that it is sorted or dropped in some ten milliseconds, and so many that
/// most windows have one, whose entries need not be merged with those of others.
#[cfg(not(test))]
pub(super) const SEGMENT_ENTRIES: usize = 65_536;
/// In tests, so that small windows have several.
#[cfg(test)]
pub(super) const SEGMENT_ENTRIES: usize = 4;

/// Entries that are new are inserted into the order if they are at most this part of all; a search for a place costs
/// as much as sorting some ten entries.
const INSERTED_SHARE: usize = 32;

/// The entries of one window that are in memory.
pub(super) struct Window<V> {
    pub end_ms: i64,
    pub index: Index,
    /// All that have entries are full but the last of these; empty ones may follow.
    segments: Vec<Segment<V>>,
    len: usize,
    /// Entries changed since the last collect.
    pub dirty: Vec<u32>,
    /// No entry of this window is in the store only.
    pub complete: bool,
    /// A delta or the store may hold entries of this window.
    pub persisted: bool,
    /// What keys and values hold outside the entries.
    pub heap_bytes: usize,
    /// How many entries the store does not hold in their newest form.
    pub pinned: usize,
    /// How many of these were last changed by which checkpoint, in ascending order.
    pinned_by: VecDeque<(u64, usize)>,
    /// All keys begin with so many bytes of the first one's.
    pub shared: usize,
}

/// Entries that came one after the other.
pub(super) struct Segment<V> {
    pub entries: Vec<Entry<V>>,
    /// Their places in ascending key order; up to date if it names every entry.
    pub order: Vec<u32>,
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
            index: Index::new(),
            segments: Vec::new(),
            len: 0,
            dirty: Vec::new(),
            complete,
            persisted: !complete,
            heap_bytes: 0,
            pinned: 0,
            pinned_by: VecDeque::new(),
            shared: 0,
        }
    }

    /// An empty window's buffers for a window that is new.
    pub fn reopened(self, end_ms: i64) -> Self {
        Window { end_ms, complete: true, persisted: false, ..self }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The segments that have entries.
    pub fn segments(&self) -> &[Segment<V>] {
        &self.segments[..self.len.div_ceil(SEGMENT_ENTRIES)]
    }

    /// All entries, as they came.
    pub fn entries(&self) -> impl Iterator<Item = &Entry<V>> {
        self.segments().iter().flat_map(|segment| &segment.entries)
    }

    pub fn entry(&self, index: usize) -> &Entry<V> {
        &self.segments[index / SEGMENT_ENTRIES].entries[index % SEGMENT_ENTRIES]
    }

    pub fn entry_mut(&mut self, index: usize) -> &mut Entry<V> {
        &mut self.segments[index / SEGMENT_ENTRIES].entries[index % SEGMENT_ENTRIES]
    }

    pub fn key_at(&self, index: u32) -> &[u8] {
        &self.entry(index as usize).key
    }

    /// Adds an entry whose value holds `heap_bytes` bytes outside itself. Returns its place.
    pub fn insert(&mut self, hash: u64, entry: Entry<V>, heap_bytes: usize, hasher: &RandomState) -> usize {
        let (index, place) = (self.len, self.len / SEGMENT_ENTRIES);
        self.shared = match self.segments().first().and_then(|segment| segment.entries.first()) {
            None => entry.key.len(),
            Some(first) => shared_prefix(&first.key[..self.shared], &entry.key),
        };
        self.heap_bytes += heap_bytes + entry.key_heap_bytes();
        if index.is_multiple_of(SEGMENT_ENTRIES) {
            self.begin_segment(place);
        }
        self.segments[place].entries.push(entry);
        self.len += 1;
        let segments = &self.segments;
        let key_at = |index: usize| &segments[index / SEGMENT_ENTRIES].entries[index % SEGMENT_ENTRIES].key;
        self.index.insert(hash, index as u32, |other| hasher.hash_one(&key_at(*other as usize)[..]));
        index
    }

    /// Makes room at `place`, which comes after the last entry.
    fn begin_segment(&mut self, place: usize) {
        // The newest entry may be taken back, so a segment is full for good only now.
        if let Some(full) = place.checked_sub(1) {
            self.segments[full].sort(self.shared);
        }
        if self.segments.len() == place {
            // The first one grows, since most windows are small.
            let capacity = if place == 0 { 0 } else { SEGMENT_ENTRIES };
            self.segments.push(Segment { entries: Vec::with_capacity(capacity), order: Vec::new() });
        }
    }

    /// Removes the newest entry, which is among the dirty ones.
    pub fn pop(&mut self, hash: u64) -> Option<Entry<V>> {
        let index = self.len.checked_sub(1)?;
        self.index.remove(hash, index as u32);
        let removed = self.segments[index / SEGMENT_ENTRIES].entries.pop()?;
        self.len = index;
        self.dirty.pop();
        self.unpin(removed.changed_at);
        Some(removed)
    }

    /// An entry that was last changed by checkpoint `before` is pinned as changed by `now`.
    pub fn pin(&mut self, before: u64, now: u64) {
        self.unpin(before);
        self.pinned += 1;
        match self.pinned_by.back_mut() {
            Some((last, count)) if *last == now => *count += 1,
            Some((last, _)) if *last > now => match self.pinned_place(now) {
                Ok(place) => self.pinned_by[place].1 += 1,
                Err(place) => self.pinned_by.insert(place, (now, 1)),
            },
            _ => self.pinned_by.push_back((now, 1)),
        }
    }

    /// An entry that was last changed by `checkpoint` is not pinned any more, if it was.
    fn unpin(&mut self, checkpoint: u64) {
        if self.pinned_by.front().is_some_and(|(first, _)| *first <= checkpoint)
            && let Ok(place) = self.pinned_place(checkpoint)
        {
            self.pinned_by[place].1 -= 1;
            self.pinned -= 1;
        }
    }

    fn pinned_place(&self, checkpoint: u64) -> Result<usize, usize> {
        self.pinned_by.binary_search_by_key(&checkpoint, |(checkpoint, _)| *checkpoint)
    }

    /// The store holds everything up to checkpoint `flushed`.
    pub fn flushed(&mut self, flushed: u64) {
        while let Some((checkpoint, count)) = self.pinned_by.front()
            && *checkpoint <= flushed
        {
            self.pinned -= count;
            self.pinned_by.pop_front();
        }
    }

    /// Forgets how many entries are pinned, and then all of them, a segment with each call; the buffers are kept. Whether
    /// that is done.
    pub fn clear_some(&mut self) -> bool {
        if self.index.len() > 0 {
            self.index.clear();
            self.dirty.clear();
            self.pinned_by.clear();
            (self.heap_bytes, self.pinned, self.shared) = (0, 0, 0);
        }
        if let Some(last) = self.len.checked_sub(1) {
            let place = last / SEGMENT_ENTRIES;
            self.segments[place].entries.clear();
            self.segments[place].order.clear();
            self.len = place * SEGMENT_ENTRIES;
        }
        self.len == 0
    }

    /// Whether the entries are not few for the buffers.
    pub fn is_well_used(&self) -> bool {
        self.len >= self.capacity() / 4
    }

    fn capacity(&self) -> usize {
        self.segments.iter().map(|segment| segment.entries.capacity()).sum()
    }

    /// What the buffers hold or could hold.
    pub fn buffer_bytes(&self) -> usize {
        self.capacity() * (size_of::<Entry<V>>() + INDEX_BYTES)
    }

    pub fn bytes(&self) -> usize {
        self.len * (size_of::<Entry<V>>() + INDEX_BYTES) + self.heap_bytes
    }

    /// Takes all entries out.
    pub fn into_entries(self) -> impl Iterator<Item = Entry<V>> {
        self.segments.into_iter().flat_map(|segment| segment.entries)
    }

    /// Brings each segment's order up to date: all but the last one's are.
    pub fn sort(&mut self) {
        let shared = self.shared;
        if let Some(last) = self.segments().len().checked_sub(1) {
            self.segments[last].sort(shared);
        }
    }
}

impl<V> Segment<V> {
    pub fn key_at(&self, place: u32) -> &[u8] {
        &self.entries[place as usize].key
    }

    /// Brings `order` up to date; all keys share so many bytes. While a window grows that happens often, with few
    /// entries that are new: they are inserted, which costs a search each.
    pub fn sort(&mut self, shared: usize) {
        let (sorted, all) = (self.order.len(), self.entries.len());
        if sorted == all {
            return;
        }
        let mut order = std::mem::take(&mut self.order);
        if all - sorted > all / INSERTED_SHARE {
            order.clear();
            order.extend(0..all as u32);
            sort_by_key(&mut order, shared, |place| self.key_at(place));
        } else {
            let mut added: Vec<u32> = (sorted as u32..all as u32).collect();
            sort_by_key(&mut added, shared, |place| self.key_at(place));
            order.resize(all, 0);
            // From the last on, what lies behind each moves up by as many places as are still to be inserted.
            let mut end = sorted;
            for (before, place) in added.iter().enumerate().rev() {
                let key = self.key_at(*place);
                let at = order[..end].partition_point(|other| self.key_at(*other) < key);
                order.copy_within(at..end, at + before + 1);
                order[at + before] = *place;
                end = at;
            }
        }
        self.order = order;
    }
}

/// Sorts entries by their keys, all of which share so many bytes. Most comparisons are decided by the eight bytes after
/// these, which are gathered first, so that they need no look at the keys themselves; entries that are equal in those
/// come next.
pub(super) fn sort_by_key<'k>(places: &mut [u32], shared: usize, key_at: impl Fn(u32) -> &'k [u8]) {
    let mut keyed: Vec<(u64, u32)> =
        places.iter().map(|place| (head(&key_at(*place)[shared..]), *place)).collect();
    keyed.sort_unstable_by_key(|(head, _)| *head);
    for equal in keyed.chunk_by_mut(|left, right| left.0 == right.0).filter(|equal| equal.len() > 1) {
        equal.sort_unstable_by(|left, right| key_at(left.1).cmp(key_at(right.1)));
    }
    for (place, (_, sorted)) in places.iter_mut().zip(keyed) {
        *place = sorted;
    }
}
