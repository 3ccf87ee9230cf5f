//! Which entry has which hash: a hash table that grows a part at a time.
//!
//! A table that doubles moves all it holds at once, and computes the hash of each key for that. Here it is many tables
//! by linear hashing (W. Litwin, 1980): as the number of entries grows, one table after the other is split in two.

use hashbrown::HashTable;

/// So many entries a part has on average, at most: those that are to be split next have twice as many, somewhat less
/// than a table of 32,768 places takes.
const PART_ENTRIES: usize = 12_288;

/// Numbers of entries by the hashes of their keys.
pub(super) struct Index {
    /// The hash's bits choose one; those behind the last power of two come from splits of those before.
    parts: Vec<HashTable<u32>>,
    entries: usize,
}

impl Index {
    pub fn new() -> Index {
        Index { parts: vec![HashTable::new()], entries: 0 }
    }

    pub fn len(&self) -> usize {
        self.entries
    }

    /// The entry with this hash of which `is_it` holds.
    pub fn find(&self, hash: u64, is_it: impl FnMut(&u32) -> bool) -> Option<u32> {
        self.parts[self.part(hash)].find(hash, is_it).copied()
    }

    /// Adds an entry; `hash_of` gives the hash of any.
    pub fn insert(&mut self, hash: u64, entry: u32, hash_of: impl Fn(&u32) -> u64) {
        let part = self.part(hash);
        self.parts[part].insert_unique(hash, entry, &hash_of);
        self.entries += 1;
        if self.entries > self.parts.len() * PART_ENTRIES {
            self.split(hash_of);
        }
    }

    /// Removes an entry.
    pub fn remove(&mut self, hash: u64, entry: u32) {
        let part = self.part(hash);
        if let Ok(found) = self.parts[part].find_entry(hash, |other| *other == entry) {
            found.remove();
            self.entries -= 1;
        }
    }

    /// Forgets all entries and keeps the buffers.
    pub fn clear(&mut self) {
        self.parts.iter_mut().for_each(HashTable::clear);
        self.entries = 0;
    }

    /// The tables themselves go by the hash's first and last bits.
    fn part(&self, hash: u64) -> usize {
        let mask = self.parts.len().next_power_of_two() - 1;
        let part = (hash >> 24) as usize & mask;
        if part < self.parts.len() { part } else { part & (mask >> 1) }
    }

    /// Splits the part whose turn it is.
    fn split(&mut self, hash_of: impl Fn(&u32) -> u64) {
        let count = self.parts.len();
        let halves = if count.is_power_of_two() { count } else { count.next_power_of_two() / 2 };
        // It will not grow before its own turn comes: many would grow at once.
        let half = || HashTable::with_capacity(2 * PART_ENTRIES);
        let whole = std::mem::replace(&mut self.parts[count - halves], half());
        self.parts.push(half());
        for entry in whole {
            let hash = hash_of(&entry);
            let part = self.part(hash);
            self.parts[part].insert_unique(hash, entry, &hash_of);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn what_is_inserted_is_found_in_however_many_parts() {
        let mut random = Random::new(1);
        let hashes: Vec<u64> = (0..11 * PART_ENTRIES).map(|_| random.bits()).collect();
        let mut index = Index::new();
        let mut sizes = Vec::new();
        for round in 0..2 {
            for (entry, hash) in hashes.iter().enumerate() {
                index.insert(*hash, entry as u32, |other| hashes[*other as usize]);
                let earlier = entry / 2;
                let found = index.find(hashes[earlier], |other| *other == earlier as u32);
                assert_eq!(found, Some(earlier as u32), "round {round}");
            }
            assert_eq!(index.len(), hashes.len());
            for (entry, hash) in hashes.iter().enumerate() {
                assert_eq!(index.find(*hash, |other| *other == entry as u32), Some(entry as u32));
                assert_eq!(index.find(!*hash, |other| *other == entry as u32), None);
            }
            sizes = index.parts.iter().map(HashTable::len).collect();
            index.clear();
            assert_eq!(index.find(hashes[0], |_| true), None);
        }
        assert_eq!(sizes.len(), 11);
        let largest = sizes.iter().max().copied().unwrap_or_default();
        assert!(largest < 3 * PART_ENTRIES, "none is much larger than its share: {sizes:?}");
    }

    #[test]
    fn what_is_removed_is_gone() {
        let mut index = Index::new();
        index.insert(7, 1, |_| 7);
        index.insert(7, 2, |_| 7);
        index.remove(7, 1);
        assert_eq!((index.len(), index.find(7, |_| true)), (1, Some(2)));
    }
}
