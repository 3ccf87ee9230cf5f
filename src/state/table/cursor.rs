//! A walk through the entries of one window, in memory and in the store.

use super::window::Window;
use super::{ValueCodec, decode};
use crate::state::store::{Entry, Store, StoreError};

/// What a store's scan yields.
type Scan<'t> = Box<dyn Iterator<Item = Result<Entry, StoreError>> + 't>;

/// Yields a window's entries in key order. What is in memory is newer than what the store holds of the same key.
pub(super) struct Cursor<'t, C: ValueCodec> {
    codec: &'t C,
    window: &'t Window<C::Value>,
    /// The place in the window's order of the next entry in memory.
    at: usize,
    /// What only the store may hold; `None` if that is nothing.
    scan: Option<Scan<'t>>,
    /// How many bytes of the store's keys come before the user key.
    prefix_bytes: usize,
    /// The next of the store's entries that is not in memory: its whole key and value.
    stored: Option<Entry>,
    /// The value of `stored`, if that comes next.
    value: Option<C::Value>,
}

impl<'t, C: ValueCodec> Cursor<'t, C> {
    /// Stands at the first entry at or after the user key `from`. `start` and `end` are the range of the window's keys.
    /// The window must be sorted.
    pub fn new(
        codec: &'t C,
        window: &'t Window<C::Value>,
        store: Option<&'t dyn Store>,
        (start, end): (&[u8], &[u8]),
        from: &[u8],
    ) -> Result<Self, StoreError> {
        let scan = match store.filter(|_| !window.complete) {
            Some(store) => Some(store.scan(&[start, from].concat(), end)?),
            None => None,
        };
        let at = window.order.partition_point(|index| window.key_at(*index) < from);
        let prefix_bytes = start.len();
        let mut cursor = Cursor { codec, window, at, scan, prefix_bytes, stored: None, value: None };
        cursor.fetch()?;
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
        if self.scan.is_some() { self.fetch() } else { Ok(()) }
    }

    /// Finds the next of the store's entries that is not in memory, and reads its value if it comes next.
    fn fetch(&mut self) -> Result<(), StoreError> {
        let Some(scan) = &mut self.scan else { return Ok(()) };
        let in_memory = self.window.order.get(self.at).map(|index| self.window.key_at(*index));
        loop {
            if self.stored.is_none() {
                self.stored = scan.next().transpose()?;
            }
            let Some((key, bytes)) = &self.stored else {
                self.scan = None;
                return Ok(());
            };
            let order = in_memory.map(|in_memory| key[self.prefix_bytes..].cmp(in_memory));
            match order {
                Some(std::cmp::Ordering::Equal) => self.stored = None,
                Some(std::cmp::Ordering::Greater) => return Ok(()),
                Some(std::cmp::Ordering::Less) | None => {
                    self.value = Some(decode(self.codec, key, bytes)?);
                    return Ok(());
                }
            }
        }
    }
}
