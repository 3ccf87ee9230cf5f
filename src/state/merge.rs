//! Many changelog records into one set of writes: the last record of a key wins.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included, Unbounded};

use super::codec::{Record, RecordPoints, Size};
use super::points::Points;
use super::store::StoreWrites;
use crate::planted::{Bug, is_planted};

/// Merges records, given in log order, into what they make of a store.
///
/// Nothing is done to a point before all ranges are known: most of those of short windows are deleted by a
/// later record, and cost no more than a look.
#[derive(Default)]
pub struct Merge {
    /// How many records were added: the number of the next one.
    added: usize,
    /// Those that have points, in log order, with their numbers.
    records: Vec<(usize, RecordPoints)>,
    /// The ranges of all records, each with its record's number.
    ranges: RangeSet,
    /// What the points of all `records` come to.
    size: Size,
    /// The memory of `records`.
    record_bytes: usize,
}

impl Merge {
    /// Nothing merged yet.
    pub fn new() -> Merge {
        Merge::default()
    }

    /// Adds the next record.
    pub fn add(&mut self, record: Record) {
        let number = self.added;
        self.added += 1;
        for (from, to) in record.ranges() {
            self.ranges.insert(from, to, number);
        }
        let size = record.size();
        if size.points > 0 {
            self.size.points += size.points;
            self.size.bytes += size.bytes;
            let points = record.into_points();
            self.record_bytes += size_of::<(usize, RecordPoints)>() + points.body_bytes();
            self.records.push((number, points));
        }
    }

    /// The memory that it takes at most, which is when it is finished.
    pub fn bytes(&self) -> usize {
        let points_bytes = self.size.bytes + self.size.points * Points::POINT_BYTES;
        points_bytes + self.record_bytes + self.ranges.bytes
    }

    /// The writes that lead a store past all records added.
    pub fn finish(self) -> StoreWrites {
        let Merge { records, ranges, size, .. } = self;
        // As much as there can be at most: what is not needed is never touched, and takes no memory.
        let mut survivors = Points::with_capacity(size.points, size.bytes);
        for (number, record) in records {
            // Keys ascend: the range at or after the key is sought when they leave the one before.
            let mut range = ranges.iter().next();
            let mut points = record.points();
            while let Some((key, value)) = points.next() {
                if range.is_some_and(|(_, to, _)| to <= key) {
                    range = ranges.at_or_after(key);
                }
                if !range.is_some_and(|(from, _, of)| from <= key && hides(of, number)) {
                    survivors.push(key, value);
                }
            }
        }
        survivors.sort();
        survivors.keep_last_of_each();
        // A deletion within a range is done by the range, which goes to the store as well.
        survivors.retain(|key, value| value.is_some() || ranges.deleted_at(key).is_none());
        StoreWrites { ranges: ranges.union(), points: survivors }
    }
}

/// Whether a range of one record hides the points of another, given their numbers.
fn hides(range: usize, points: usize) -> bool {
    match range.cmp(&points) {
        Ordering::Greater => !is_planted(Bug::RangeSparesUnflushed),
        Ordering::Equal => is_planted(Bug::RangeAfterPoints),
        Ordering::Less => false,
    }
}

/// Range deletions in log order: which was the last to delete a key?
///
/// Few ranges, many keys: adding a range costs two allocations, asking for a key a search.
#[derive(Clone, Debug, Default)]
pub struct RangeSet {
    /// Disjoint: a range's start → its end, and the sequence number of the last range that covers it.
    ranges: BTreeMap<Vec<u8>, (Vec<u8>, usize)>,
    /// Bytes of keys in `ranges`, and what a node takes, roughly; never lower than it is.
    bytes: usize,
}

impl RangeSet {
    /// Adds `from..to`. Sequence numbers never fall from one call to the next.
    pub fn insert(&mut self, from: &[u8], to: &[u8], sequence: usize) {
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
    pub fn deleted_at(&self, key: &[u8]) -> Option<usize> {
        let (_, (end, sequence)) = self.ranges.range::<[u8], _>((Unbounded, Included(key))).next_back()?;
        (key < &end[..]).then_some(*sequence)
    }

    /// The range that covers `key`, or the first one after it.
    fn at_or_after(&self, key: &[u8]) -> Option<(&[u8], &[u8], usize)> {
        let before = self.ranges.range::<[u8], _>((Unbounded, Included(key))).next_back();
        let covers = before.filter(|(_, (to, _))| key < &to[..]);
        let found = covers.or_else(|| self.ranges.range::<[u8], _>((Excluded(key), Unbounded)).next());
        found.map(|(from, (to, sequence))| (&from[..], &to[..], *sequence))
    }

    /// There is no range.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Disjoint ranges in ascending order, each with the sequence number of the last that covers it.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8], usize)> {
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
