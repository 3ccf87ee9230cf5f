//! From the changelog into a store.

use std::sync::Arc;

use criterion::Criterion;
use tempfile::TempDir;
use thalweg::rocks::{RocksSettings, RocksStores};
use thalweg::state::Header;
use thalweg::state::apply::{Applied, Applier};
use thalweg::state::codec::{DeltaWriter, read_record};
use thalweg::state::key::{END, START};
use thalweg::state::merge::Merge;
use thalweg::state::store::{Store, StoreFactory, StoreWrites};

use crate::changelog::{committed, points};
use crate::input::KEYS;
use crate::measure::{per_element, rounds};
use crate::table::{Changelog, Placed};

/// The changelog topic's identity.
const TOPIC_ID: [u8; 16] = [7; 16];
/// A flush takes so many checkpoints …
const DELTAS: usize = 10;
/// … of so many changed entries.
const CHANGED: usize = 5_000;
/// A restored log's chunks: about as many entries as the deltas have.
const CHUNK_BYTES: usize = 224 << 10;
/// As the runtime has it.
const RESTORE_BUFFER_BYTES: usize = 16 << 20;

pub fn benchmarks(criterion: &mut Criterion) {
    merge(criterion);
    closed(criterion);
    flush(criterion);
    restore(criterion);
}

/// RocksDB in a temporary folder, with the settings that are the product's default.
pub struct Disk {
    stores: RocksStores,
    opened: usize,
    _folder: TempDir,
}

impl Disk {
    pub fn new() -> Disk {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let settings = RocksSettings { write_buffer_bytes: 32 << 20, ..RocksSettings::default() };
        let stores = RocksStores::open(folder.path(), &settings).expect("RocksDB");
        Disk { stores, opened: 0, _folder: folder }
    }

    /// A new store and its name.
    pub fn open(&mut self) -> (String, Arc<dyn Store>) {
        self.opened += 1;
        let name = format!("task-{}", self.opened);
        let store = self.stores.open(&name).expect("RocksDB");
        (name, store)
    }
}

/// Brings a store to the end of the log, which begins at `log_start`, and syncs it.
pub fn apply(store: &Arc<dyn Store>, records: &[Placed], log_start: i64, end: i64) -> Applied {
    let mut applier =
        Applier::new(store.clone(), TOPIC_ID, log_start, RESTORE_BUFFER_BYTES).expect("a store of this log");
    for (offset, record) in records {
        applier.push(*offset, record).expect("the next record");
    }
    let applied = applier.finish(end).expect("the end of the log");
    store.sync().expect("a store that works");
    applied
}

/// A changelog whose first checkpoint has all entries, and a store in RocksDB that holds it.
fn flushed() -> (Changelog, Arc<dyn Store>, Disk) {
    let mut disk = Disk::new();
    let (mut changelog, (_, store)) = (Changelog::new(), disk.open());
    let delta = changelog.delta(0);
    let records = changelog.place(delta);
    apply(&store, &records, 0, changelog.offset);
    (changelog, store, disk)
}

/// The deltas of one flush.
fn deltas(changelog: &mut Changelog) -> Vec<Placed> {
    let mut records = Vec::new();
    for _ in 0..DELTAS {
        changelog.change(CHANGED);
        let delta = changelog.delta(0);
        records.extend(changelog.place(delta));
    }
    records
}

/// One operation is an entry of ten deltas of 5,000 entries each, no key twice, that are read and merged into what a
/// store is to write: a flush without its store.
fn merge(criterion: &mut Criterion) {
    let mut state = None;
    rounds(criterion, "flush").bench_function("merge", |bencher| {
        per_element(
            bencher,
            state.get_or_insert_with(committed),
            DELTAS * CHANGED,
            deltas,
            |_, records| merged(&records),
            |_, writes| assert_eq!(writes.points.len(), DELTAS * CHANGED),
        );
    });
}

/// One operation is an entry of the same deltas, behind which comes one that deletes all that they hold: the window was
/// closed before the flush.
fn closed(criterion: &mut Criterion) {
    let mut state = None;
    rounds(criterion, "flush").bench_function("closed", |bencher| {
        per_element(
            bencher,
            state.get_or_insert_with(committed),
            DELTAS * CHANGED,
            |changelog| {
                let mut records = deltas(changelog);
                let (from, to) = changelog.table.key_range();
                let mut delta = DeltaWriter::new(1 << 20);
                delta.delete_range(&from, &to);
                records.extend(changelog.place(delta.finish(&Header::default())));
                records
            },
            |_, records| merged(&records),
            |_, writes| assert_eq!((writes.ranges.len(), writes.points.len()), (1, 0)),
        );
    });
}

fn merged(records: &[Placed]) -> StoreWrites {
    let mut merge = Merge::new();
    for (_, record) in records {
        merge.add(read_record(record).expect("a delta"));
    }
    merge.finish()
}

/// One operation is an entry of ten deltas of 5,000 entries each, no key twice, that are read, merged, written to
/// RocksDB, which holds all 100,000 entries already, and synced.
fn flush(criterion: &mut Criterion) {
    let mut state = None;
    rounds(criterion, "flush").bench_function("rocksdb", |bencher| {
        per_element(
            bencher,
            state.get_or_insert_with(flushed),
            DELTAS * CHANGED,
            |(changelog, ..)| deltas(changelog),
            |(changelog, store, _), records| apply(store, &records, 0, changelog.offset),
            |(changelog, ..), applied| {
                let header = applied.position.header.expect("a checkpoint");
                assert_eq!((applied.records, header.checkpoint), (DELTAS as u64, changelog.checkpoint));
            },
        );
    });
    if let Some((_, store, _)) = state {
        assert_eq!(stored(&store), KEYS);
    }
}

/// One operation is an entry of a log: one sweep in chunks of some 5,000 entries, each beside a delta of as many, applied
/// to an empty store of RocksDB and synced; 100,000 entries are there in the end.
fn restore(criterion: &mut Criterion) {
    let mut state = None;
    rounds(criterion, "restore").bench_function("rocksdb", |bencher| {
        let (records, disk) = state.get_or_insert_with(|| (swept(), Disk::new()));
        let entries = records.iter().map(|(_, record)| points(std::slice::from_ref(record))).sum();
        let (log_start, end) = (records[0].0, records[records.len() - 1].0 + 1);
        per_element(
            bencher,
            disk,
            entries,
            Disk::open,
            |_, (name, store)| {
                apply(&store, records, log_start, end);
                (name, store)
            },
            |disk, (name, store)| {
                assert_eq!(stored(&store), KEYS);
                drop(store);
                disk.stores.destroy(&name).expect("a store that is closed");
            },
        );
    });
}

/// A log that was cut at the beginning of the sweep that it holds.
fn swept() -> Vec<Placed> {
    let mut changelog = Changelog::new();
    let all = changelog.delta(0);
    changelog.place(all);
    let log_start = changelog.offset;
    let (mut records, mut from) = (Vec::new(), Some(changelog.table.key_range().0));
    while let Some(key) = from {
        changelog.change(CHANGED);
        let mut checkpoint = changelog.delta(log_start);
        let (chunk, next) = changelog.chunk(&key, CHUNK_BYTES);
        checkpoint.extend(chunk);
        records.extend(changelog.place(checkpoint));
        from = next;
    }
    records
}

/// How many entries a store has.
fn stored(store: &Arc<dyn Store>) -> usize {
    let entries = store.scan(START, END).expect("a store that works");
    entries.filter(Result::is_ok).count()
}
