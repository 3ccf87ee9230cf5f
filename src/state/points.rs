//! Keys with their new values, in one piece of memory.

use std::fmt;

use super::prefix::{head, shared_prefix};

/// What stands before a key in the arena: its length, and that of its value plus one, 0 for none.
const LENGTHS_BYTES: usize = 8;

/// Keys with their new values, `None` deletes, in the order in which they were pushed until they are sorted.
///
/// Memory: each key and value, and [`POINT_BYTES`](Self::POINT_BYTES).
#[derive(Clone, Default)]
pub struct Points {
    /// For each point the lengths of its key and its value, then both.
    arena: Vec<u8>,
    places: Vec<Place>,
}

/// A point in the arena.
#[derive(Clone, Copy)]
struct Place {
    /// Where it begins.
    start: usize,
    /// Of its key, behind what all keys share. Only while they are sorted.
    head: u64,
}

impl Place {
    fn key<'a>(&self, arena: &'a [u8]) -> &'a [u8] {
        let [key_bytes, _] = self.lengths(arena);
        &arena[self.start + LENGTHS_BYTES..][..key_bytes]
    }

    fn value<'a>(&self, arena: &'a [u8]) -> Option<&'a [u8]> {
        let [key_bytes, value_code] = self.lengths(arena);
        let start = self.start + LENGTHS_BYTES + key_bytes;
        value_code.checked_sub(1).map(|value_bytes| &arena[start..][..value_bytes])
    }

    fn lengths(&self, arena: &[u8]) -> [usize; 2] {
        let length = |start: usize| {
            let mut bytes = [0; 4];
            bytes.copy_from_slice(&arena[start..][..4]);
            u32::from_ne_bytes(bytes) as usize
        };
        [length(self.start), length(self.start + 4)]
    }
}

impl Points {
    /// What a point takes beside its key and value.
    pub const POINT_BYTES: usize = LENGTHS_BYTES + size_of::<Place>();

    /// Adds a point. Its key and value come from one changelog record: together they have less than 4 GiB.
    pub fn push(&mut self, key: &[u8], value: Option<&[u8]>) {
        self.places.push(Place { start: self.arena.len(), head: 0 });
        let value_code = value.map_or(0, |value| value.len() + 1);
        self.arena.extend_from_slice(&(key.len() as u32).to_ne_bytes());
        self.arena.extend_from_slice(&(value_code as u32).to_ne_bytes());
        self.arena.extend_from_slice(key);
        self.arena.extend_from_slice(value.unwrap_or_default());
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The points, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.places.iter().map(|place| (place.key(&self.arena), place.value(&self.arena)))
    }

    /// Puts them into ascending order of keys; those of the same key keep theirs.
    ///
    /// Both sorts are stable, and what was pushed in order, as the points of a record, is a run that they only
    /// merge. Heads decide most comparisons without a look at the keys, which lie all over the memory.
    pub fn sort(&mut self) {
        let arena = &self.arena;
        let Some(first) = self.places.first().map(|place| place.key(arena)) else { return };
        let shared = self
            .places
            .iter()
            .fold(first.len(), |shared, place| shared_prefix(&first[..shared], place.key(arena)));
        for place in &mut self.places {
            place.head = head(&place.key(arena)[shared..]);
        }
        self.places.sort_by_key(|place| place.head);
        for equal in self.places.chunk_by_mut(|a, b| a.head == b.head).filter(|equal| equal.len() > 1) {
            equal.sort_by(|a, b| a.key(arena)[shared..].cmp(&b.key(arena)[shared..]));
        }
    }

    /// Keeps one of the points with the same key, which stand beside each other: the last, or the first.
    pub fn keep_one_of_each(&mut self, last: bool) {
        let arena = &self.arena;
        self.places.dedup_by(|later, kept| {
            let same = later.key(arena) == kept.key(arena);
            if same && last {
                *kept = *later;
            }
            same
        });
    }

    /// Keeps those that are `wanted`.
    pub fn retain(&mut self, wanted: impl Fn(&[u8], Option<&[u8]>) -> bool) {
        let arena = &self.arena;
        self.places.retain(|place| wanted(place.key(arena), place.value(arena)));
    }
}

impl<K: AsRef<[u8]>, V: AsRef<[u8]>> FromIterator<(K, Option<V>)> for Points {
    fn from_iter<I: IntoIterator<Item = (K, Option<V>)>>(points: I) -> Self {
        let mut all = Points::default();
        points.into_iter().for_each(|(key, value)| all.push(key.as_ref(), value.as_ref().map(AsRef::as_ref)));
        all
    }
}

impl PartialEq for Points {
    fn eq(&self, other: &Points) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Points {}

impl fmt::Debug for Points {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn they_are_sorted_as_a_list_is(
            prefix in vec(any::<u8>(), 0..12),
            points in vec((vec(0u8..3, 0..12), option::of(vec(any::<u8>(), 0..3))), 0..60),
        ) {
            let mut list: Vec<_> =
                points.into_iter().map(|(key, value)| ([&prefix[..], &key].concat(), value)).collect();
            let mut sorted: Points = list.iter().cloned().collect();
            sorted.sort();
            list.sort_by(|a, b| a.0.cmp(&b.0));
            prop_assert_eq!(&sorted, &list.iter().cloned().collect());
            for last in [true, false] {
                let mut one: Points = sorted.clone();
                one.keep_one_of_each(last);
                let same = list.chunk_by(|a, b| a.0 == b.0);
                let expected = same.filter_map(|same| if last { same.last() } else { same.first() });
                prop_assert_eq!(one, expected.cloned().collect());
            }
        }
    }
}
