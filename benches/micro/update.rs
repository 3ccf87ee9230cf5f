//! Updates of keyed state.

use std::sync::Arc;

use bumpalo::Bump;
use criterion::Criterion;
use thalweg::record::Slot;
use thalweg::state::memory::MemoryStores;
use thalweg::state::store::{Store, StoreFactory};

use crate::input::KEYS;
use crate::measure::{per_element, rounds};
use crate::store::{Disk, apply};
use crate::table::{Changelog, Table, add, empty_table, entries};

/// How many entries are read from the store before all are forgotten again.
const MISSES: usize = 20_000;

/// One operation looks an entry up, or makes it, and adds an order to its count and sum; in one window of
/// 100,000 keys, which come in random order.
///
/// - `hit`: the entry is in memory.
/// - `new`: it is neither in memory nor in the store; the table has had a window of that size before.
/// - `miss_memory`, `miss_rocksdb`: it is in the store alone: a sorted map, or RocksDB, whose block cache has room for
///   all entries.
pub fn benchmarks(criterion: &mut Criterion) {
    hit(criterion);
    new(criterion);
    let in_memory = || MemoryStores::new().open("task").expect("a store in memory");
    miss(criterion, "miss_memory", in_memory);
    let mut disk = None;
    miss(criterion, "miss_rocksdb", || disk.get_or_insert_with(Disk::new).open().1);
}

fn hit(criterion: &mut Criterion) {
    let mut state = None;
    let mut updates = KEYS;
    criterion.bench_function("update/hit", |bencher| {
        let Changelog { table, keys, .. } = state.get_or_insert_with(Changelog::new);
        let mut keys = keys.iter().cycle();
        bencher.iter(|| {
            add(table, keys.next().expect("a cycle has no end"), 1_234);
            updates += 1;
        });
    });
    let Some(mut state) = state else { return };
    let counts = counts(&mut state.table);
    assert_eq!((counts.len(), counts.iter().sum::<i64>()), (KEYS, updates as i64));
}

fn new(criterion: &mut Criterion) {
    let mut state = None;
    rounds(criterion, "update").bench_function("new", |bencher| {
        let state: &mut Changelog = state.get_or_insert_with(Changelog::new);
        per_element(
            bencher,
            state,
            KEYS,
            |state| state.table.remove_first(),
            |state, ()| state.change(KEYS),
            |state, ()| assert_eq!(entries(&mut state.table).len(), KEYS),
        );
    });
}

fn miss(criterion: &mut Criterion, name: &str, mut open: impl FnMut() -> Arc<dyn Store>) {
    let mut state = None;
    rounds(criterion, "update").bench_function(name, |bencher| {
        let (changelog, store) = state.get_or_insert_with(|| {
            let (mut changelog, store) = (Changelog::new(), open());
            let delta = changelog.delta(0);
            let records = changelog.place(delta);
            apply(&store, &records, 0, changelog.offset);
            (changelog, store)
        });
        per_element(
            bencher,
            changelog,
            MISSES,
            |changelog| {
                let mut table = empty_table();
                table.restore(store.clone(), changelog.checkpoint).expect("a store that works");
                table
            },
            |changelog, mut table| {
                changelog.keys[..MISSES].iter().for_each(|key| add(&mut table, key, 1_234));
                table
            },
            |_, mut table| {
                // What was read and what was added.
                let twice = counts(&mut table).iter().filter(|count| **count == 2).count();
                assert_eq!(twice, MISSES);
            },
        );
    });
}

/// How many orders each entry counts.
fn counts(table: &mut Table) -> Vec<i64> {
    let (entries, arena) = (entries(table), Bump::new());
    let count = |value| {
        let mut results = [Slot::Null; 2];
        table.codec().results(value, &mut results, &arena);
        let Slot::Int(count) = results[0] else { panic!("a count: {results:?}") };
        count
    };
    entries.iter().map(|(_, value)| count(value)).collect()
}
