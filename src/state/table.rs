//! The typed cache of a window operator: (window end, key) → accumulator. What it calls a window may be a pane of
//! several, or a bucket of sessions.
//!
//! Values are updated in memory. An entry that the store does not hold yet in its newest form is
//! pinned; the others may be evicted and are read again on a miss. The entries of one window lie
//! together, so that closing it needs no scan of others, and a window that was opened in memory and
//! never evicted from needs no store at all.

mod cursor;
mod window;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::{ControlFlow, Range, RangeInclusive};
use std::sync::Arc;

use ahash::RandomState;
use smallvec::SmallVec;

use super::codec::DeltaWriter;
use super::key::{self, WindowKey};
use super::stateful::{MemoryUse, PutEntry};
use super::store::{Store, StoreError};
use crate::planted::{Bug, is_planted};
use cursor::Cursor;
use window::{Entry, Window, sort_by_key};

/// How values become bytes. The bytes are versioned: a newer codec reads what an older one wrote.
pub trait ValueCodec {
    /// The value in memory.
    type Value;
    /// Appends the value's bytes to `bytes`.
    fn encode(&self, value: &Self::Value, bytes: &mut Vec<u8>);
    /// The value of bytes that `encode` wrote; the error says what is wrong with them.
    fn decode(&self, bytes: &[u8]) -> Result<Self::Value, String>;
    /// Bytes that the value holds outside itself.
    fn heap_bytes(&self, value: &Self::Value) -> usize;
}

/// Sees keys in ascending order: the codec, the key, its values, one for each of the windows in which it has one, in the
/// order of their ends; breaks when it has seen enough.
pub type Visit<'v, C, E> =
    dyn FnMut(&C, &[u8], &[&<C as ValueCodec>::Value]) -> Result<ControlFlow<()>, E> + 'v;

/// So many entries of the store are read at once, of all windows that are visited together.
pub const BLOCK_ENTRIES: usize = 4_096;
/// And of each of them at least so many.
const BLOCK_ENTRIES_MIN: usize = 16;

/// The value of bytes that lie under a key.
fn decode<C: ValueCodec>(codec: &C, full_key: &[u8], bytes: &[u8]) -> Result<C::Value, StoreError> {
    codec
        .decode(bytes)
        .map_err(|error| StoreError::Corrupt(format!("the value of key {full_key:02x?}: {error}")))
}

/// Keys and values of one operator, by window.
pub struct WindowTable<C: ValueCodec> {
    codec: C,
    prefix: Vec<u8>,
    hasher: RandomState,
    store: Option<Arc<dyn Store>>,
    /// In ascending order of their ends.
    windows: Vec<Window<C::Value>>,
    /// The last window removed, emptied: the next one takes its buffers over, which are mapped already and
    /// likely of the right size.
    spare: Option<Window<C::Value>>,
    /// Windows removed since the last collect of which the log or the store may hold entries.
    closed: Vec<i64>,
    /// The checkpoint that the changes being made now will be part of.
    checkpoint: u64,
    /// Everything up to this checkpoint is in the store.
    flushed: u64,
    scratch: Vec<u8>,
    /// What [`prefetch`](WindowTable::prefetch) will look for: windows' places and hashes of keys.
    expected: Vec<(usize, u64)>,
}

/// Where an entry stands; valid until the table changes its set of entries.
#[derive(Clone, Copy, Debug)]
pub struct EntryRef {
    window: usize,
    entry: usize,
    /// It was neither in memory nor in the store.
    created: bool,
}

impl EntryRef {
    /// Whether there was none before.
    pub fn is_new(self) -> bool {
        self.created
    }
}

impl<C: ValueCodec> WindowTable<C> {
    /// An empty table of the operator called `id`, to be [restored](WindowTable::restore) before use.
    pub fn new(id: &str, codec: C) -> Self {
        WindowTable {
            codec,
            prefix: key::window_prefix(id),
            // Fixed seeds: the order of a hash table never shows, and a run can be repeated exactly.
            hasher: RandomState::with_seeds(0x7468, 0x616c, 0x7765, 0x6720),
            store: None,
            windows: Vec::new(),
            spare: None,
            closed: Vec::new(),
            checkpoint: 1,
            flushed: 0,
            scratch: Vec::new(),
            expected: Vec::new(),
        }
    }

    /// The codec, which is also what computes the values.
    pub fn codec(&self) -> &C {
        &self.codec
    }

    /// The range `from..to` of the table's keys.
    pub fn key_range(&self) -> (Vec<u8>, Vec<u8>) {
        (self.prefix.clone(), key::next_prefix(&self.prefix))
    }

    /// Forgets everything and goes on from `checkpoint` as `store` holds it.
    pub fn restore(&mut self, store: Arc<dyn Store>, checkpoint: u64) -> Result<(), StoreError> {
        self.windows.clear();
        self.closed.clear();
        self.checkpoint = checkpoint + 1;
        self.flushed = checkpoint;
        let (mut from, to) = self.key_range();
        loop {
            let Some(entry) = store.scan(&from, &to)?.next() else { break };
            let (found, _) = entry?;
            let Some(WindowKey { window_end_ms: end_ms, .. }) = key::split(&found) else {
                return Err(StoreError::Corrupt(format!(
                    "a key that no window operator writes: {found:02x?}"
                )));
            };
            self.windows.push(Window::new(end_ms, false));
            let Some(next) = end_ms.checked_add(1) else { break };
            from = self.window_start_key(next);
        }
        self.store = Some(store);
        Ok(())
    }

    /// Has the next [`prefetch`](WindowTable::prefetch), which must come before any window is opened or removed,
    /// look for an entry as well.
    pub fn prefetch_later(&mut self, end_ms: i64, key: &[u8]) {
        if let Ok(place) = self.place(end_ms) {
            self.expected.push((place, self.hasher.hash_one(key)));
        }
    }

    /// Brings entries that will be asked for into the processor's caches. One after the other, [`entry`]
    /// waits for the index and then for the entry of each; here the processor waits for those of all at once.
    ///
    /// [`entry`]: WindowTable::entry
    pub fn prefetch(&mut self) {
        for (place, hash) in &mut self.expected {
            // The first whose hash looks like it; for its key it would have to wait.
            let found = self.windows[*place].index.find(*hash, |_| true);
            *hash = found.map_or(u64::MAX, |index| u64::from(*index));
        }
        let mut touched = 0_usize;
        for (place, index) in self.expected.drain(..) {
            if let Some(entry) = self.windows[place].entries.get(index as usize) {
                touched ^= entry.key.len() ^ self.codec.heap_bytes(&entry.value) ^ entry.changed_at as usize;
            }
        }
        // Nobody needs it, but the loads must be made.
        std::hint::black_box(touched);
    }

    /// The entry of `key` in the window that ends at `end_ms`, made by `create` if there is none, and
    /// marked as changed.
    pub fn entry(
        &mut self,
        end_ms: i64,
        key: &[u8],
        create: impl FnOnce(&C) -> C::Value,
    ) -> Result<EntryRef, StoreError> {
        let place = self.window(end_ms);
        let hash = self.hasher.hash_one(key);
        let window = &self.windows[place];
        let found = window.index.find(hash, |index| window.key_at(*index) == key).copied();
        let mut created = false;
        let index = match found {
            Some(index) => index as usize,
            None => {
                let loaded = self.load(&self.windows[place], key)?;
                created = loaded.is_none();
                let value = loaded.unwrap_or_else(|| create(&self.codec));
                let heap = self.codec.heap_bytes(&value);
                self.windows[place].insert(hash, Entry::new(key, value), heap, &self.hasher)
            }
        };
        let window = &mut self.windows[place];
        let entry = &mut window.entries[index];
        if entry.changed_at != self.checkpoint {
            window.pinned += usize::from(entry.changed_at <= self.flushed);
            entry.changed_at = self.checkpoint;
            window.dirty.push(index as u32);
        }
        Ok(EntryRef { window: place, entry: index, created })
    }

    /// Removes an entry again if [`entry`](WindowTable::entry) created it; nothing but
    /// [`value_mut`](WindowTable::value_mut) may have been called since, and the value's heap bytes be
    /// as they were.
    pub fn take_back(&mut self, entry: EntryRef) {
        let window = &mut self.windows[entry.window];
        if !entry.created {
            return;
        }
        debug_assert_eq!(entry.entry + 1, window.entries.len(), "it is the newest");
        let hash = self.hasher.hash_one(window.key_at(entry.entry as u32));
        if let Ok(found) = window.index.find_entry(hash, |index| *index as usize == entry.entry) {
            found.remove();
        }
        window.dirty.pop();
        window.pinned -= 1;
        if let Some(removed) = window.entries.pop() {
            window.heap_bytes -= self.codec.heap_bytes(&removed.value) + removed.key_heap_bytes();
        }
    }

    /// The codec and the value of an entry, to change it.
    pub fn value_mut(&mut self, entry: EntryRef) -> (&C, &mut C::Value) {
        (&self.codec, &mut self.windows[entry.window].entries[entry.entry].value)
    }

    /// The value of an entry.
    pub fn value(&self, entry: EntryRef) -> &C::Value {
        &self.windows[entry.window].entries[entry.entry].value
    }

    /// Replaces how many bytes an entry's value holds outside itself, after a change.
    pub fn heap_changed(&mut self, entry: EntryRef, before: usize) {
        let window = &mut self.windows[entry.window];
        let now = self.codec.heap_bytes(&window.entries[entry.entry].value);
        window.heap_bytes = window.heap_bytes + now - before;
    }

    /// The end of the first window, if there is one.
    pub fn first_end_ms(&self) -> Option<i64> {
        self.windows.first().map(|window| window.end_ms)
    }

    /// The end of the first window of which `is_wanted` holds. It must hold of all windows behind one of which it holds.
    pub fn first_end_where(&self, is_wanted: impl Fn(i64) -> bool) -> Option<i64> {
        let place = self.windows.partition_point(|window| !is_wanted(window.end_ms));
        self.windows.get(place).map(|window| window.end_ms)
    }

    /// Visits the keys at and after `from` of the windows whose ends lie within `ends`, until `visit` breaks.
    pub fn visit<E: From<StoreError>>(
        &mut self,
        ends: RangeInclusive<i64>,
        from: &[u8],
        visit: &mut Visit<'_, C, E>,
    ) -> Result<ControlFlow<()>, E> {
        let places = self.places(&ends);
        self.windows[places.clone()].iter_mut().for_each(Window::sort);
        if places.len() == 1 {
            return self.visit_one(places.start, from, visit);
        }
        let block_entries = (BLOCK_ENTRIES / places.len().max(1)).max(BLOCK_ENTRIES_MIN);
        let mut cursors = Vec::with_capacity(places.len());
        let mut heads = BinaryHeap::with_capacity(places.len());
        let head = |cursor: &Cursor<'_, C>, place: usize| {
            cursor.entry().map(|(key, _)| Reverse((SmallVec::<[u8; 24]>::from_slice(key), place)))
        };
        for place in places {
            let cursor = self.cursor(place, from, block_entries)?;
            heads.extend(head(&cursor, cursors.len()));
            cursors.push(cursor);
        }
        let mut found = Vec::with_capacity(cursors.len());
        while let Some(Reverse((least, place))) = heads.pop() {
            found.push(place);
            while heads.peek().is_some_and(|Reverse((key, _))| *key == least)
                && let Some(Reverse((_, place))) = heads.pop()
            {
                found.push(place);
            }
            let entries = found.iter().filter_map(|place| cursors[*place].entry());
            let values: SmallVec<[&C::Value; 64]> = entries.map(|(_, value)| value).collect();
            if visit(&self.codec, &least, &values)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            drop(values);
            for place in found.drain(..) {
                cursors[place].advance()?;
                heads.extend(head(&cursors[place], place));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Shows `visit` the values of `key` in the windows whose ends lie within `ends`, each with its window's end, in the
    /// order of these, until it breaks. A value that is not in memory is read from the store and not kept.
    pub fn visit_key(
        &self,
        ends: RangeInclusive<i64>,
        key: &[u8],
        mut visit: impl FnMut(i64, &C::Value) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let hash = self.hasher.hash_one(key);
        for window in &self.windows[self.places(&ends)] {
            let flow = match window.index.find(hash, |index| window.key_at(*index) == key) {
                Some(index) => visit(window.end_ms, &window.entries[*index as usize].value),
                None => match self.load(window, key)? {
                    Some(value) => visit(window.end_ms, &value),
                    None => ControlFlow::Continue(()),
                },
            };
            if flow.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Removes the first window and all its entries.
    pub fn remove_first(&mut self) {
        if !self.windows.is_empty() {
            let mut window = self.windows.remove(0);
            if window.persisted && !is_planted(Bug::FiredAgain) {
                self.closed.push(window.end_ms);
            }
            // The buffers of one large window are not kept for many small ones.
            let well_used = window.entries.len() >= window.entries.capacity() / 4;
            window.clear();
            self.spare = well_used.then_some(window);
        }
    }

    /// See [`Stateful::collect_ranges`](super::Stateful::collect_ranges).
    pub fn collect_ranges(&mut self, delta: &mut DeltaWriter) {
        // Windows close in the order of their ends, and none opens before one that has closed: what
        // closed since the last time is one range, however many windows it is.
        if let (Some(first), Some(last)) = (self.closed.iter().min(), self.closed.iter().max()) {
            delta.delete_range(&self.window_start_key(*first), &self.window_end_key(*last));
            self.closed.clear();
        }
    }

    /// See [`Stateful::collect_points`](super::Stateful::collect_points).
    pub fn collect_points(&mut self, checkpoint: u64, delta: &mut DeltaWriter) {
        let mut full_key = std::mem::take(&mut self.scratch);
        let mut value = Vec::with_capacity(64);
        for window in &mut self.windows {
            if window.dirty.is_empty() {
                continue;
            }
            let mut dirty = std::mem::take(&mut window.dirty);
            sort_by_key(window, &mut dirty);
            key::write_window_key(&mut full_key, &self.prefix, window.end_ms, &[]);
            let start = full_key.len();
            for index in &dirty {
                let entry = &window.entries[*index as usize];
                full_key.truncate(start);
                full_key.extend_from_slice(&entry.key);
                value.clear();
                self.codec.encode(&entry.value, &mut value);
                delta.put(&full_key, &value);
            }
            window.persisted = true;
            dirty.clear();
            window.dirty = dirty;
        }
        self.scratch = full_key;
        self.checkpoint = checkpoint + 1;
    }

    /// See [`Stateful::chunk`](super::Stateful::chunk).
    pub fn chunk(
        &mut self,
        from: &[u8],
        bytes_max: usize,
        put: &mut PutEntry<'_>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let mut bytes = 0;
        let mut value_bytes = Vec::new();
        for place in 0..self.windows.len() {
            let end_ms = self.windows[place].end_ms;
            if self.window_end_key(end_ms).as_slice() <= from {
                continue;
            }
            self.windows[place].sort();
            let mut full_key = self.window_start_key(end_ms);
            let start = full_key.len();
            let key_from = if from > full_key.as_slice() { from[start..].to_vec() } else { Vec::new() };
            let flow = self.visit_one::<StoreError>(place, &key_from, &mut |codec, key, values| {
                full_key.truncate(start);
                full_key.extend_from_slice(key);
                value_bytes.clear();
                codec.encode(values[0], &mut value_bytes);
                if is_planted(Bug::StaleChunk) {
                    let stored = self.store.as_ref().map(|store| store.get(&full_key)).transpose()?;
                    value_bytes = stored.flatten().unwrap_or_else(|| std::mem::take(&mut value_bytes));
                }
                put(&full_key, &value_bytes);
                bytes += full_key.len() + value_bytes.len();
                Ok(if bytes >= bytes_max { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })?;
            if flow.is_break() {
                full_key.push(0);
                return Ok(Some(full_key));
            }
        }
        Ok(None)
    }

    /// See [`Stateful::flushed`](super::Stateful::flushed).
    pub fn flushed(&mut self, checkpoint: u64) {
        self.flushed = self.flushed.max(checkpoint);
        for window in &mut self.windows {
            window.pinned = window.entries.iter().filter(|entry| entry.changed_at > self.flushed).count();
        }
    }

    /// Memory in use.
    pub fn memory(&self) -> MemoryUse {
        let spare = self.spare.as_ref().map_or(0, Window::buffer_bytes);
        let mut memory = MemoryUse { total: spare, ..MemoryUse::default() };
        for window in &self.windows {
            let bytes = window.bytes();
            memory.total += bytes;
            if window.pinned > 0 {
                memory.pinned += bytes / window.entries.len() * window.pinned;
                memory.dirty += bytes / window.entries.len() * window.dirty.len();
            }
        }
        memory
    }

    /// See [`Stateful::evict`](super::Stateful::evict).
    pub fn evict(&mut self, bytes: usize) {
        let spare = self.spare.take().map_or(0, |window| window.buffer_bytes());
        let bytes = bytes.saturating_sub(spare);
        if bytes == 0 {
            return;
        }
        let mut ages: Vec<u64> = self
            .windows
            .iter()
            .flat_map(|window| window.entries.iter().map(|entry| entry.changed_at))
            .filter(|changed_at| *changed_at <= self.evictable_up_to())
            .collect();
        if ages.is_empty() {
            return;
        }
        let total: usize = self.windows.iter().map(Window::bytes).sum();
        let entries: usize = self.windows.iter().map(|window| window.entries.len()).sum();
        let wanted = (bytes / (total / entries).max(1) + 1).min(ages.len());
        let (_, newest_evicted, _) = ages.select_nth_unstable(wanted - 1);
        let cutoff = *newest_evicted;
        for place in 0..self.windows.len() {
            self.evict_from(place, cutoff);
        }
    }

    /// The last checkpoint whose changes may be evicted.
    fn evictable_up_to(&self) -> u64 {
        if is_planted(Bug::UnflushedEvicted) { self.checkpoint - 1 } else { self.flushed }
    }

    /// Drops the entries of a window that have not changed after checkpoint `cutoff`.
    fn evict_from(&mut self, place: usize, cutoff: u64) {
        let window = &mut self.windows[place];
        let staying = window.entries.iter().filter(|entry| entry.changed_at > cutoff).count();
        if staying == window.entries.len() {
            return;
        }
        let mut kept = Window::new(window.end_ms, false);
        kept.reserve(staying, &self.hasher);
        for entry in window.entries.drain(..) {
            if entry.changed_at > cutoff {
                let (hash, heap) =
                    (self.hasher.hash_one(&entry.key[..]), self.codec.heap_bytes(&entry.value));
                let changed_at = entry.changed_at;
                let index = kept.insert(hash, entry, heap, &self.hasher);
                kept.pinned += usize::from(changed_at > self.flushed);
                if changed_at == self.checkpoint {
                    kept.dirty.push(index as u32);
                }
            }
        }
        self.windows[place] = kept;
    }

    /// Visits a window's entries at and after the key `from` in key order. The window must be sorted.
    fn visit_one<E: From<StoreError>>(
        &self,
        place: usize,
        from: &[u8],
        visit: &mut Visit<'_, C, E>,
    ) -> Result<ControlFlow<()>, E> {
        let mut cursor = self.cursor(place, from, BLOCK_ENTRIES)?;
        while let Some((key, value)) = cursor.entry() {
            if visit(&self.codec, key, &[value])?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            cursor.advance()?;
        }
        Ok(ControlFlow::Continue(()))
    }

    /// A walk through a window's entries at and after the key `from`. The window must be sorted.
    fn cursor(&self, place: usize, from: &[u8], block_entries: usize) -> Result<Cursor<'_, C>, StoreError> {
        let window = &self.windows[place];
        let start = self.window_start_key(window.end_ms);
        let range = (&start[..], self.window_end_key(window.end_ms));
        Cursor::new(&self.codec, window, self.store.as_deref(), range, from, block_entries)
    }

    /// The places of the windows whose ends lie within `ends`.
    fn places(&self, ends: &RangeInclusive<i64>) -> Range<usize> {
        let first = self.windows.partition_point(|window| window.end_ms < *ends.start());
        let end = self.windows.partition_point(|window| window.end_ms <= *ends.end());
        first..end.max(first)
    }

    /// The place of the window that ends at `end_ms`, or where it would be. The newest is asked first.
    fn place(&self, end_ms: i64) -> Result<usize, usize> {
        match self.windows.last() {
            Some(last) if last.end_ms == end_ms => Ok(self.windows.len() - 1),
            _ => self.windows.binary_search_by_key(&end_ms, |window| window.end_ms),
        }
    }

    /// The place of the window that ends at `end_ms`, opened if need be.
    fn window(&mut self, end_ms: i64) -> usize {
        match self.place(end_ms) {
            Ok(place) => place,
            Err(place) => {
                let window = match self.spare.take() {
                    Some(spare) => Window { end_ms, complete: true, persisted: false, ..spare },
                    None => Window::new(end_ms, true),
                };
                self.windows.insert(place, window);
                place
            }
        }
    }

    /// The value of a key that is not in memory.
    fn load(&self, window: &Window<C::Value>, key: &[u8]) -> Result<Option<C::Value>, StoreError> {
        let Some(store) = self.store.as_ref().filter(|_| !window.complete) else { return Ok(None) };
        let full_key = key::window_key(&self.prefix, window.end_ms, key);
        let found = match store.get(&full_key) {
            Err(StoreError::Corrupt(_)) if is_planted(Bug::CorruptEntryForgotten) => None,
            found => found?,
        };
        found.map(|bytes| decode(&self.codec, &full_key, &bytes)).transpose()
    }

    fn window_start_key(&self, end_ms: i64) -> Vec<u8> {
        key::window_end_prefix(&self.prefix, end_ms)
    }

    /// The end of the range of a window's keys.
    fn window_end_key(&self, end_ms: i64) -> Vec<u8> {
        key::next_prefix(&self.window_start_key(end_ms))
    }
}

#[cfg(test)]
mod tests;
