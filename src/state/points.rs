//! Keys with their new values, in one piece of memory.

use std::fmt;

use super::prefix::{head, shared_prefix};
use crate::planted::{Bug, is_planted};

/// What stands before a key in the arena: its length, and that of its value plus one, 0 for none.
const LENGTHS_BYTES: usize = 8;

/// Keys with their new values, `None` deletes, in the order in which they were pushed until they are sorted.
///
/// Memory: the bytes of each key and value, and [`POINT_BYTES`](Self::POINT_BYTES).
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
    /// What a point takes beside its key and value, and half as much of its place again while they are sorted.
    pub const POINT_BYTES: usize = LENGTHS_BYTES + size_of::<Place>() + size_of::<Place>() / 2;

    /// Room for so many points, whose keys and values come to so many bytes.
    pub fn with_capacity(points: usize, bytes: usize) -> Points {
        Points {
            arena: Vec::with_capacity(points * LENGTHS_BYTES + bytes),
            places: Vec::with_capacity(points),
        }
    }

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

    /// Keeps the last of the points with the same key, which stand beside each other.
    pub fn keep_last_of_each(&mut self) {
        let arena = &self.arena;
        self.places.dedup_by(|later, kept| {
            let same = later.key(arena) == kept.key(arena);
            if same && !is_planted(Bug::DeltaTwice) {
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
            sorted.keep_last_of_each();
            let last = list.chunk_by(|a, b| a.0 == b.0).filter_map(<[_]>::last);
            prop_assert_eq!(sorted, last.cloned().collect());
        }
    }

    /// Short lists are sorted by insertion, whatever is asked for, which keeps equals in order.
    #[test]
    fn many_points_of_equal_heads_keep_their_order() {
        let keys: [&[u8]; 3] = [b"key-0000-a", b"key-0000-b", b"key-0000-c"];
        let value = |n: u32| Some(n.to_be_bytes());
        let mut points: Points = (0..300).map(|n| (keys[n as usize % 3], value(n))).collect();
        points.push(b"a shorter prefix", None);
        points.sort();
        let expected = (0..3).flat_map(|key| (0..100).map(move |n| n * 3 + key));
        let expected = expected.map(|n| (keys[n as usize % 3], value(n)));
        let shorter = (&b"a shorter prefix"[..], None);
        assert_eq!(points, std::iter::once(shorter).chain(expected).collect());
    }
}
