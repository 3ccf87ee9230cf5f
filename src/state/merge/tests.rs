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
            records(delta).iter().for_each(|record| merge.add(record).unwrap());
        }
        let writes = merge.finish();
        prop_assert!(writes.points.is_sorted_by(|a, b| a.0 < b.0), "ascending, each once");
        prop_assert!(writes.ranges.is_sorted_by(|a, b| a.1 < b.0), "ascending, disjoint, not adjacent");
        apply(&mut merged, &(writes.ranges.clone(), writes.points.iter().cloned().collect()));
        prop_assert_eq!(merged, content);
        for (key, value) in &writes.points {
            let within = writes.ranges.iter().any(|(from, to)| (from..to).contains(&key));
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
fn a_window_that_opened_and_closed_leaves_only_its_range() {
    let mut merge = Merge::new();
    let put: Delta = (vec![], (1..100).map(|n| (vec![5, n], Some(vec![n]))).collect());
    let close: Delta = (vec![(vec![5], vec![6])], BTreeMap::new());
    [put, close].iter().flat_map(records).for_each(|record| merge.add(&record).unwrap());
    assert_eq!(merge.finish(), StoreWrites { ranges: vec![(vec![5], vec![6])], points: vec![] });
}
