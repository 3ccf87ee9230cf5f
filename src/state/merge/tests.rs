use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use super::super::codec::{DeltaWriter, read_record};
use super::super::header::Header;
use super::*;

type Content = BTreeMap<Vec<u8>, Vec<u8>>;
/// Ranges, then points.
type Delta = (Vec<(Vec<u8>, Vec<u8>)>, BTreeMap<Vec<u8>, Option<Vec<u8>>>);

/// Keys that often meet.
fn key() -> impl Strategy<Value = Vec<u8>> {
    vec(1u8..4, 1..4)
}

fn delta() -> impl Strategy<Value = Delta> {
    let range = (key(), key()).prop_filter("a range holds something", |(from, to)| from < to);
    (vec(range, 0..3), btree_map(key(), option::weighted(0.7, vec(any::<u8>(), 0..3)), 0..12))
}

fn apply(content: &mut Content, (ranges, points): &Delta) {
    for (from, to) in ranges {
        content.retain(|key, _| !(from..to).contains(&key));
    }
    for (key, value) in points {
        match value {
            Some(value) => content.insert(key.clone(), value.clone()),
            None => content.remove(key),
        };
    }
}

fn delta_of(writes: &StoreWrites) -> Delta {
    let points = writes.points.iter().map(|(key, value)| (key.to_vec(), value.map(<[u8]>::to_vec)));
    (writes.ranges.clone(), points.collect())
}

fn records((ranges, points): &Delta) -> Vec<Record> {
    let mut writer = DeltaWriter::new(30);
    ranges.iter().for_each(|(from, to)| writer.delete_range(from, to));
    for (key, value) in points {
        match value {
            Some(value) => writer.put(key, value),
            None => writer.delete(key),
        }
    }
    writer.finish(&Header::default()).iter().map(|bytes| read_record(bytes).unwrap()).collect()
}

proptest! {
    #[test]
    fn a_merge_does_what_its_records_do_one_after_the_other(before in delta(), deltas in vec(delta(), 0..8)) {
        let mut content = Content::new();
        apply(&mut content, &before);
        let mut merged = content.clone();
        let mut merge = Merge::new();
        for delta in &deltas {
            apply(&mut content, delta);
            records(delta).into_iter().for_each(|record| merge.add(record));
        }
        let writes = merge.finish();
        prop_assert!(writes.points.iter().is_sorted_by(|a, b| a.0 < b.0), "ascending, each once");
        prop_assert!(writes.ranges.is_sorted_by(|a, b| a.1 < b.0), "ascending, disjoint, not adjacent");
        apply(&mut merged, &delta_of(&writes));
        prop_assert_eq!(merged, content);
        for (key, value) in writes.points.iter() {
            let within = writes.ranges.iter().any(|(from, to)| (&from[..]..&to[..]).contains(&key));
            prop_assert!(value.is_some() || !within, "a range deletes the key already");
        }
    }

    #[test]
    fn the_last_range_over_a_key_is_found(ranges in vec((key(), key()), 0..12), keys in vec(key(), 1..20)) {
        let mut set = RangeSet::default();
        for (sequence, (from, to)) in (0..).zip(&ranges) {
            set.insert(from, to, sequence);
        }
        for key in keys {
            let last = (0..).zip(&ranges).filter(|(_, (from, to))| (from..to).contains(&&key)).last();
            prop_assert_eq!(set.deleted_at(&key), last.map(|(sequence, _)| sequence));
        }
        prop_assert_eq!(set.is_empty(), ranges.iter().all(|(from, to)| from >= to));
        let parts: Vec<_> = set.iter().collect();
        prop_assert!(parts.is_sorted_by(|a, b| a.1 <= b.0), "ascending and disjoint");
    }
}

#[test]
fn records_are_accounted_for_by_what_they_take_and_not_kept_for_their_headers() {
    let mut merge = Merge::new();
    let empty: Delta = (vec![], BTreeMap::new());
    (0..1_000).flat_map(|_| records(&empty)).for_each(|record| merge.add(record));
    assert_eq!((merge.records.len(), merge.bytes()), (0, 0));
    let one: Delta = (vec![], [(vec![1, 2, 3], Some(vec![4]))].into());
    (0..100).flat_map(|_| records(&one)).for_each(|record| merge.add(record));
    assert_eq!(merge.records.len(), 100);
    // Key, value, lengths, place and half of it; what they came in: a range's end, three lengths, key and value.
    assert_eq!(merge.bytes(), 100 * (4 + 8 + 16 + 8 + 40 + 8));
}

#[test]
fn a_window_that_opened_and_closed_leaves_only_its_range() {
    let mut merge = Merge::new();
    let put: Delta = (vec![], (1..100).map(|n| (vec![5, n], Some(vec![n]))).collect());
    let close: Delta = (vec![(vec![5], vec![6])], BTreeMap::new());
    [put, close].iter().flat_map(records).for_each(|record| merge.add(record));
    assert_eq!(merge.finish(), StoreWrites { ranges: vec![(vec![5], vec![6])], points: Points::default() });
}

/// What a store of the keys 1 to 8 holds after `deltas`, merged.
fn left_of_eight(deltas: &[Delta]) -> (StoreWrites, Vec<u8>) {
    let mut merge = Merge::new();
    deltas.iter().flat_map(records).for_each(|record| merge.add(record));
    let writes = merge.finish();
    let mut content: Content = (1..=8).map(|key| (vec![key], vec![key])).collect();
    apply(&mut content, &delta_of(&writes));
    let keys = content.into_keys().map(|key| key[0]).collect();
    (writes, keys)
}

#[test]
fn ranges_that_touch_or_overlap_are_written_as_one() {
    let range = |from: u8, to: u8| (vec![from], vec![to]);
    let put = |key: u8| (vec![key], Some(vec![key]));
    for (second, union, left) in [
        (range(3, 5), range(1, 5), vec![5, 6, 7, 8]),
        (range(2, 4), range(1, 4), vec![4, 5, 6, 7, 8]),
        (range(1, 2), range(1, 3), vec![3, 4, 5, 6, 7, 8]),
    ] {
        let deltas: [Delta; 2] =
            [(vec![range(1, 3)], BTreeMap::new()), (vec![second.clone()], BTreeMap::new())];
        let (writes, keys) = left_of_eight(&deltas);
        assert_eq!((writes.ranges, keys), (vec![union.clone()], left.clone()));
        // Both in one delta, and the other way round.
        for ranges in [vec![range(1, 3), second.clone()], vec![second.clone(), range(1, 3)]] {
            let (writes, keys) = left_of_eight(&[(ranges, BTreeMap::new())]);
            assert_eq!((writes.ranges, keys), (vec![union.clone()], left.clone()));
        }
    }
    // A key put between two ranges that cover it lives as long as the later one does not.
    let deltas: [Delta; 3] = [
        (vec![range(1, 4)], [put(2), put(3)].into()),
        (vec![range(3, 6)], BTreeMap::new()),
        (vec![range(7, 8)], [put(4)].into()),
    ];
    let (writes, keys) = left_of_eight(&deltas);
    assert_eq!(writes.ranges, [range(1, 6), range(7, 8)]);
    assert_eq!(writes.points, [put(2), put(4)].into_iter().collect());
    assert_eq!(keys, [2, 4, 6, 8]);
}
