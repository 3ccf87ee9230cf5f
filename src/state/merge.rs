//! Many changelog records into one set of writes: the last record of a key wins.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included, Unbounded};

use super::codec::{CodecError, Record};
use super::store::StoreWrites;
use crate::planted::{Bug, is_planted};

/// Merges records, given in log order, into what they make of a store.
///
/// Memory: each key and value once per record that has it, and 32 bytes.
#[derive(Default)]
pub struct Merge {
    /// The number of records added.
    records: u64,
    /// The keys and values of `points`, each key followed by its value.
    arena: Vec<u8>,
    points: Vec<PointRef>,
    ranges: RangeSet,
}

/// A point in the arena.
#[derive(Clone, Copy)]
struct PointRef {
    start: usize,
    key_bytes: u32,
    /// `None` deletes the key.
    value_bytes: Option<u32>,
    /// The number of its record.
    record: u64,
}

impl PointRef {
    fn key<'a>(&self, arena: &'a [u8]) -> &'a [u8] {
        &arena[self.start..][..self.key_bytes as usize]
    }

    fn value<'a>(&self, arena: &'a [u8]) -> Option<&'a [u8]> {
        self.value_bytes.map(|bytes| &arena[self.start + self.key_bytes as usize..][..bytes as usize])
    }
}

impl Merge {
    /// Nothing merged yet.
    pub fn new() -> Merge {
        Merge::default()
    }

    /// Adds the next record. After an error the merge is of no use.
    pub fn add(&mut self, record: &Record) -> Result<(), CodecError> {
        self.records += 1;
        for (from, to) in record.ranges() {
            self.ranges.insert(from, to, self.records);
        }
        let mut points = record.points();
        while let Some((key, value)) = points.next()? {
            let length = |bytes: &[u8]| {
                u32::try_from(bytes.len()).map_err(|_| CodecError::Damaged("a key or value beyond 4 GiB"))
            };
            self.points.push(PointRef {
                start: self.arena.len(),
                key_bytes: length(key)?,
                value_bytes: value.map(length).transpose()?,
                record: self.records,
            });
            self.arena.extend_from_slice(key);
            self.arena.extend_from_slice(value.unwrap_or_default());
        }
        Ok(())
    }

    /// The memory that it takes, and its writes roughly as much again.
    pub fn bytes(&self) -> usize {
        self.arena.len() + self.points.len() * size_of::<PointRef>() + self.ranges.bytes
    }

    /// The writes that lead a store past all records added.
    pub fn finish(mut self) -> StoreWrites {
        let arena = &self.arena;
        // Stable, so the last of a key stays the last; and each record is a sorted run, which this
        // sort only merges.
        self.points.sort_by(|a, b| a.key(arena).cmp(b.key(arena)));
        let mut points = Vec::new();
        let mut ranges = self.ranges.iter().peekable();
        for same_key in self.points.chunk_by(|a, b| a.key(arena) == b.key(arena)) {
            let newest = if is_planted(Bug::DeltaTwice) { same_key.first() } else { same_key.last() };
            let Some(point) = newest else { continue };
            let key = point.key(arena);
            while ranges.next_if(|(_, to, _)| *to <= key).is_some() {}
            let deleted = ranges.peek().filter(|(from, ..)| *from <= key).map(|(.., record)| *record);
            let value = point.value(arena);
            let hides = |range: u64| match range.cmp(&point.record) {
                Ordering::Greater => !is_planted(Bug::RangeSparesUnflushed),
                Ordering::Equal => is_planted(Bug::RangeAfterPoints),
                Ordering::Less => false,
            };
            // Hidden by a later range, or deleted by the range anyway: the range goes to the store.
            if deleted.is_some_and(|range| hides(range) || value.is_none()) {
                continue;
            }
            points.push((key.to_vec(), value.map(<[u8]>::to_vec)));
        }
        StoreWrites { ranges: self.ranges.union(), points }
    }
}

/// Range deletions in log order: which was the last to delete a key?
///
/// Few ranges, many keys: adding a range costs two allocations, asking for a key a search.
#[derive(Clone, Debug, Default)]
pub struct RangeSet {
    /// Disjoint: a range's start → its end, and the sequence number of the last range that covers it.
    ranges: BTreeMap<Vec<u8>, (Vec<u8>, u64)>,
    /// Bytes of keys in `ranges`, and what a node takes, roughly; never lower than it is.
    bytes: usize,
}

impl RangeSet {
    /// Adds `from..to`. Sequence numbers never fall from one call to the next.
    pub fn insert(&mut self, from: &[u8], to: &[u8], sequence: u64) {
        if from >= to {
            return;
        }
        let mut tail = None;
        if let Some((_, (end, sequence))) =
            self.ranges.range_mut::<[u8], _>((Unbounded, Excluded(from))).next_back()
            && &end[..] > from
        {
            let end = std::mem::replace(end, from.to_vec());
            tail = Some((end, *sequence));
        }
        while let Some((start, _)) = self.ranges.range::<[u8], _>((Included(from), Excluded(to))).next() {
            let start = start.clone();
            tail = self.ranges.remove(&start);
        }
        // What was cut off, or the last of what was removed, may reach beyond the new range.
        if let Some((end, sequence)) = tail.filter(|(end, _)| &end[..] > to) {
            self.ranges.insert(to.to_vec(), (end, sequence));
        }
        self.ranges.insert(from.to_vec(), (to.to_vec(), sequence));
        self.bytes += 2 * (from.len() + to.len()) + 64;
    }

    /// The sequence number of the last range that deletes `key`; what is older than it is hidden.
    pub fn deleted_at(&self, key: &[u8]) -> Option<u64> {
        let (_, (end, sequence)) = self.ranges.range::<[u8], _>((Unbounded, Included(key))).next_back()?;
        (key < &end[..]).then_some(*sequence)
    }

    /// There is no range.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Disjoint ranges in ascending order, each with the sequence number of the last that covers it.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8], u64)> {
        self.ranges.iter().map(|(from, (to, sequence))| (&from[..], &to[..], *sequence))
    }

    /// What all ranges cover, in as few ranges as possible, in ascending order.
    pub fn union(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut union: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for (from, to, _) in self.iter() {
            match union.last_mut() {
                Some((_, end)) if &end[..] == from => *end = to.to_vec(),
                _ => union.push((from.to_vec(), to.to_vec())),
            }
        }
        union
    }
}

#[cfg(test)]
mod tests;
