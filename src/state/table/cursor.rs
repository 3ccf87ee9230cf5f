//! A walk through the entries of one window, in memory and in the store.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

use super::window::{Segment, Window};
use super::{ValueCodec, decode};
use crate::state::prefix::head;
use crate::state::store::{Entry, Store, StoreError};

/// Yields a window's entries in key order. What is in memory is newer than what the store holds of the same key.
///
/// What the store holds is read in blocks, so that many walks can be under way without an open scan each. A flush may
/// write to it between two of them: whatever that changes is pinned in memory until the table is told, and hides it.
pub(super) struct Cursor<'t, C: ValueCodec> {
    codec: &'t C,
    /// What is in memory.
    merged: Merged<'t, C::Value>,
    /// Where more entries are; `None` if there are none.
    store: Option<&'t dyn Store>,
    /// The keys that have not been read from the store.
    from: Vec<u8>,
    to: Vec<u8>,
    /// How many bytes of the store's keys come before the user key.
    prefix_bytes: usize,
    /// How many entries are read at once.
    block_entries: usize,
    block: std::vec::IntoIter<Entry>,
    /// The next of the store's entries that is not in memory: its whole key and value.
    stored: Option<Entry>,
    /// The value of `stored`, if that comes next.
    value: Option<C::Value>,
}

impl<'t, C: ValueCodec> Cursor<'t, C> {
    /// Stands at the first entry at or after the user key `from`. `start` and `to` are the range of the window's keys.
    /// The window must be sorted.
    pub fn new(
        codec: &'t C,
        window: &'t Window<C::Value>,
        store: Option<&'t dyn Store>,
        (start, to): (&[u8], Vec<u8>),
        from: &[u8],
        block_entries: usize,
    ) -> Result<Self, StoreError> {
        let mut cursor = Cursor {
            codec,
            merged: Merged::new(window, from),
            store: store.filter(|_| !window.complete),
            from: [start, from].concat(),
            to,
            prefix_bytes: start.len(),
            block_entries,
            block: Vec::new().into_iter(),
            stored: None,
            value: None,
        };
        cursor.settle()?;
        Ok(cursor)
    }

    /// The entry at which it stands: its user key and value; `None` at the end.
    pub fn entry(&self) -> Option<(&[u8], &C::Value)> {
        if let (Some((key, _)), Some(value)) = (&self.stored, &self.value) {
            return Some((&key[self.prefix_bytes..], value));
        }
        let run = self.merged.next.as_ref()?;
        Some((run.key, self.merged.value(run)))
    }

    /// Moves to the next entry.
    pub fn advance(&mut self) -> Result<(), StoreError> {
        if self.value.take().is_some() {
            self.stored = None;
        } else {
            self.merged.advance();
        }
        self.settle()
    }

    /// Finds the next of the store's entries that is not in memory, and reads its value if it comes next.
    fn settle(&mut self) -> Result<(), StoreError> {
        let in_memory = self.merged.next.as_ref().map(|run| run.key);
        loop {
            if self.stored.is_none() {
                self.stored = self.next_stored()?;
            }
            let Some((key, bytes)) = &self.stored else { return Ok(()) };
            match in_memory.map(|in_memory| key[self.prefix_bytes..].cmp(in_memory)) {
                Some(Ordering::Equal) => self.stored = None,
                Some(Ordering::Greater) => return Ok(()),
                Some(Ordering::Less) | None => {
                    self.value = Some(decode(self.codec, key, bytes)?);
                    return Ok(());
                }
            }
        }
    }

    /// The next of the store's entries.
    fn next_stored(&mut self) -> Result<Option<Entry>, StoreError> {
        if let Some(entry) = self.block.next() {
            return Ok(Some(entry));
        }
        let Some(store) = self.store else { return Ok(None) };
        let scan = store.scan(&self.from, &self.to)?;
        let block = scan.take(self.block_entries).collect::<Result<Vec<Entry>, StoreError>>()?;
        match block.last() {
            Some((last, _)) if block.len() == self.block_entries => self.from = [&last[..], &[0]].concat(),
            _ => self.store = None,
        }
        self.block = block.into_iter();
        Ok(self.block.next())
    }
}

/// A walk through the entries in memory: the segments of a window, each in its order, merged.
struct Merged<'t, V> {
    window: &'t Window<V>,
    /// Where the next entry is.
    next: Option<Run<'t>>,
    /// Where those of the other segments are.
    others: BinaryHeap<Reverse<Run<'t>>>,
}

/// The next entry of a segment. Most comparisons are decided by what follows the prefix that all keys share.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Run<'t> {
    head: u64,
    key: &'t [u8],
    segment: usize,
    /// The place in the segment's order.
    at: usize,
}

impl<'t, V> Merged<'t, V> {
    /// Stands at the first entry at or after `from`.
    fn new(window: &'t Window<V>, from: &[u8]) -> Self {
        let mut merged = Merged { window, next: None, others: BinaryHeap::new() };
        let first = |(place, segment): (usize, &Segment<V>)| {
            let at = segment.order.partition_point(|entry| segment.key_at(*entry) < from);
            merged.run(place, at)
        };
        let runs: Vec<_> = window.segments().iter().enumerate().filter_map(first).map(Reverse).collect();
        merged.others = BinaryHeap::from(runs);
        merged.next = merged.others.pop().map(|Reverse(run)| run);
        merged
    }

    fn run(&self, segment: usize, at: usize) -> Option<Run<'t>> {
        let Segment { entries, order } = &self.window.segments()[segment];
        let key = &entries[*order.get(at)? as usize].key[..];
        Some(Run { head: head(&key[self.window.shared..]), key, segment, at })
    }

    fn value(&self, run: &Run<'_>) -> &'t V {
        let Segment { entries, order } = &self.window.segments()[run.segment];
        &entries[order[run.at] as usize].value
    }

    fn advance(&mut self) {
        let following = self.next.take().and_then(|run| self.run(run.segment, run.at + 1));
        self.next = match (following, self.others.peek_mut()) {
            (Some(run), Some(mut least)) if least.0 < run => {
                Some(std::mem::replace(&mut *least, Reverse(run)).0)
            }
            (None, Some(least)) => Some(PeekMut::pop(least).0),
            (following, _) => following,
        };
    }
}
