//! What every store does, as tests: [`conforms`] and [`survives_crashes`] run on each implementation.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::header::{Header, Sweep};
use super::key::{END, START};
use super::points::Points;
use super::store::{Store, StoreError, StoreFactory, StorePosition, StoreWrites};

type Content = BTreeMap<Vec<u8>, Vec<u8>>;

fn position(next_offset: i64) -> StorePosition {
    let sweep = Some(Sweep { cursor: b"\x01k".to_vec(), first_offset: 3 });
    let header = Header { checkpoint: next_offset as u64, sweep, restore_point: 2, ..Header::default() };
    let restoring = next_offset % 2 == 1;
    StorePosition { topic_id: [9; 16], next_offset, header: Some(header), restoring, restored_from: 1 }
}

fn puts(points: &[(&[u8], &[u8])]) -> StoreWrites {
    let points = points.iter().map(|&(key, value)| (key, Some(value))).collect();
    StoreWrites { ranges: vec![], points }
}

fn content_of(store: &dyn Store, from: &[u8], to: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let entries = store.scan(from, to).unwrap().map(|entry| entry.unwrap());
    entries.map(|(key, value)| (key.into_vec(), value.into_vec())).collect()
}

fn apply(content: &mut Content, writes: &StoreWrites) {
    for (from, to) in &writes.ranges {
        content.retain(|key, _| !(from..to).contains(&key));
    }
    for (key, value) in writes.points.iter() {
        match value {
            Some(value) => content.insert(key.to_vec(), value.to_vec()),
            None => content.remove(key),
        };
    }
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    vec(1u8..5, 1..4)
}

/// Writes as a merge makes them: disjoint ranges, ascending points.
fn writes() -> impl Strategy<Value = StoreWrites> {
    let range = (key(), key()).prop_filter("a range holds something", |(from, to)| from < to);
    let points = btree_map(key(), option::weighted(0.7, vec(any::<u8>(), 0..40)), 0..12);
    (vec(range, 0..2), points)
        .prop_map(|(ranges, points)| StoreWrites { ranges, points: points.into_iter().collect() })
}

/// All that the port promises while nothing crashes.
pub(crate) fn conforms(factory: &dyn StoreFactory) {
    a_new_store_is_empty(factory);
    ranges_come_before_points(factory);
    a_scan_keeps_to_its_bounds_and_its_instant(factory);
    a_store_has_one_handle(factory);
    what_is_set_aside_or_destroyed_is_gone(factory);
    random_writes_give_what_a_map_gives(factory);
}

fn a_new_store_is_empty(factory: &dyn StoreFactory) {
    let store = factory.open("new").unwrap();
    assert_eq!(store.position().unwrap(), None);
    assert_eq!(store.get(b"\x01").unwrap(), None);
    assert_eq!(content_of(&*store, START, END), []);
    store.sync().unwrap();
    drop(store);
    assert_eq!(factory.open("new").unwrap().position().unwrap(), None);
}

fn ranges_come_before_points(factory: &dyn StoreFactory) {
    let store = factory.open("ranges").unwrap();
    store.write(&puts(&[(b"\x01a", b"1"), (b"\x01b", b"1"), (b"\x01c", b"1")]), &position(1)).unwrap();
    let mut writes = puts(&[(b"\x01a", b"2")]);
    writes.ranges.push((b"\x01a".to_vec(), b"\x01c".to_vec()));
    store.write(&writes, &position(2)).unwrap();
    let expected = [(b"\x01a".to_vec(), b"2".to_vec()), (b"\x01c".to_vec(), b"1".to_vec())];
    assert_eq!(content_of(&*store, START, END), expected);
    assert_eq!(store.get(b"\x01b").unwrap(), None);
    assert_eq!(store.position().unwrap(), Some(position(2)), "and what it says comes back whole");
    assert!(store.bytes() > 0);
}

fn a_scan_keeps_to_its_bounds_and_its_instant(factory: &dyn StoreFactory) {
    let store = factory.open("scans").unwrap();
    store.write(&puts(&[(b"\x01a", b""), (b"\x01b", b"1"), (b"\x02", b"1")]), &position(1)).unwrap();
    let keys = |from: &[u8], to: &[u8]| -> Vec<Vec<u8>> {
        content_of(&*store, from, to).into_iter().map(|(key, _)| key).collect()
    };
    assert_eq!(keys(b"\x01a", b"\x01b"), [b"\x01a"]);
    assert_eq!(keys(b"\x01a\0", b"\x02"), [b"\x01b"]);
    assert_eq!(keys(b"\x02", b"\x01"), [b""; 0]);
    assert_eq!(keys(b"\x01b", b"\x01b"), [b""; 0]);
    assert_eq!(keys(b"", b"\xff\xff"), [&b"\x01a"[..], b"\x01b", b"\x02"], "the position is no entry");
    let scan = store.scan(START, END).unwrap();
    let all = StoreWrites { ranges: vec![(START.to_vec(), END.to_vec())], points: Points::default() };
    store.write(&all, &position(2)).unwrap();
    assert_eq!(scan.filter(Result::is_ok).count(), 3);
    assert_eq!(keys(START, END), [b""; 0]);
}

fn a_store_has_one_handle(factory: &dyn StoreFactory) {
    let store = factory.open("lease").unwrap();
    assert!(matches!(factory.open("lease").map(|_| ()), Err(StoreError::Io(_))));
    store.write(&puts(&[(b"\x01", b"1")]), &position(4)).unwrap();
    store.sync().unwrap();
    drop(store);
    let store = factory.open("lease").unwrap();
    assert_eq!(store.get(b"\x01").unwrap(), Some(b"1".to_vec()));
    assert_eq!(store.position().unwrap(), Some(position(4)));
}

fn what_is_set_aside_or_destroyed_is_gone(factory: &dyn StoreFactory) {
    let fill = || {
        let store = factory.open("gone").unwrap();
        assert_eq!(store.position().unwrap(), None);
        store.write(&puts(&[(b"\x01", b"1")]), &position(1)).unwrap();
    };
    fill();
    factory.set_aside("gone", "a test").unwrap();
    // An older one that was set aside is replaced.
    fill();
    factory.set_aside("gone", "a test").unwrap();
    fill();
    factory.destroy("gone").unwrap();
    fill();
    factory.set_aside("never there", "a test").unwrap();
    factory.destroy("never there").unwrap();
}

fn random_writes_give_what_a_map_gives(factory: &dyn StoreFactory) {
    let mut runner = TestRunner::new(Config { failure_persistence: None, cases: 12, ..Config::default() });
    let steps = vec((writes(), 0..10u8), 1..20);
    let result = runner.run(&(steps, vec((key(), key()), 5)), |(steps, ranges)| {
        factory.destroy("random").unwrap();
        let mut store = factory.open("random").unwrap();
        let mut content = Content::new();
        for (offset, (writes, action)) in (1..).zip(&steps) {
            apply(&mut content, writes);
            store.write(writes, &position(offset)).unwrap();
            match action {
                0 => store.sync().unwrap(),
                1 => {
                    drop(store);
                    store = factory.open("random").unwrap();
                }
                _ => {}
            }
        }
        for (from, to) in ranges {
            let expected = content.range(from.clone()..to.clone().max(from.clone()));
            let expected: Vec<_> = expected.map(|(key, value)| (key.clone(), value.clone())).collect();
            prop_assert_eq!(content_of(&*store, &from, &to), expected);
            prop_assert_eq!(store.get(&from).unwrap(), content.get(&from).cloned());
        }
        prop_assert_eq!(store.position().unwrap(), Some(position(steps.len() as i64)));
        Ok(())
    });
    result.unwrap();
}

/// Whatever a crash leaves of the writes since the last sync, it is all writes up to the position that
/// comes with it, and at least what was synced. `crash` is given the stores and how many writes were
/// made since then; it gives the stores as a crash leaves them.
pub(crate) fn survives_crashes<F: StoreFactory>(
    factory: F,
    value_bytes: usize,
    mut crash: impl FnMut(&F, u64) -> Arc<dyn StoreFactory>,
) {
    let store = factory.open("task").unwrap();
    let (mut content, mut history, mut synced) = (Content::new(), BTreeMap::new(), 0);
    history.insert(0, content.clone());
    let (mut lost, mut kept) = (0, 0);
    for offset in 1..=60i64 {
        // Each write moves a key on and closes what is five steps back, so that no two states are equal. Every third
        // has a point less: a store may treat small writes otherwise.
        let step = offset as u8;
        let ranges = (step > 5).then(|| (vec![1, step - 5], vec![1, step - 4])).into_iter().collect();
        let value =
            |salt: u8| -> Vec<u8> { (0..value_bytes).map(|i| (i as u8).wrapping_mul(step) ^ salt).collect() };
        let mut points = vec![(vec![1, step], Some(value(0)))];
        if !step.is_multiple_of(3) {
            points.push((vec![2], Some(value(1))));
        }
        let points = points.into_iter().collect();
        let writes = StoreWrites { ranges, points };
        apply(&mut content, &writes);
        store.write(&writes, &position(offset)).unwrap();
        history.insert(offset, content.clone());
        if offset % 20 == 0 {
            store.sync().unwrap();
            synced = offset;
        }
        let left = crash(&factory, (offset - synced) as u64);
        let left = left.open("task").unwrap();
        let stands_at = left.position().unwrap().map_or(0, |position| position.next_offset);
        assert!((synced..=offset).contains(&stands_at), "at {stands_at}, synced to {synced} of {offset}");
        let found: Content = content_of(&*left, START, END).into_iter().collect();
        assert!(found == history[&stands_at], "after write {offset} the state is not that of {stands_at}");
        lost += offset - stands_at;
        kept += stands_at - synced;
    }
    assert!(lost > 0 && kept > 0, "crashes lost {lost} writes and kept {kept} that were not synced");
}
