//! A walk through the entries of one window, in memory and in the store.

use std::cmp::Ordering;

use super::window::Window;
use super::{ValueCodec, decode};
use crate::state::store::{Entry, Store, StoreError};

/// Yields a window's entries in key order. What is in memory is newer than what the store holds of the same key.
///
/// What the store holds is read in blocks, so that many walks can be under way without an open scan each. A flush may
/// write to it between two of them: whatever that changes is pinned in memory until the table is told, and hides it.
pub(super) struct Cursor<'t, C: ValueCodec> {
    codec: &'t C,
    window: &'t Window<C::Value>,
    /// The place in the window's order of the next entry in memory.
    at: usize,
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
            window,
            at: window.order.partition_point(|index| window.key_at(*index) < from),
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
        let index = self.window.order.get(self.at)?;
        let entry = &self.window.entries[*index as usize];
        Some((&entry.key, &entry.value))
    }

    /// Moves to the next entry.
    pub fn advance(&mut self) -> Result<(), StoreError> {
        if self.value.take().is_some() {
            self.stored = None;
        } else {
            self.at += 1;
        }
        self.settle()
    }

    /// Finds the next of the store's entries that is not in memory, and reads its value if it comes next.
    fn settle(&mut self) -> Result<(), StoreError> {
        let in_memory = self.window.order.get(self.at).map(|index| self.window.key_at(*index));
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
