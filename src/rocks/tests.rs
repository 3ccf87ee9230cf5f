use std::fs;

use tempfile::TempDir;

use super::store::{FIRST_LEVEL_TABLES_MAX, TABLE_FILE};
use super::*;
use crate::state::conformance;
use crate::state::key::{END, START};
use crate::state::points::Points;
use crate::state::store::{StorePosition, StoreWrites};

fn stores(dir: &Path, write_buffer_bytes: usize) -> RocksStores {
    RocksStores::open(dir, &RocksSettings { write_buffer_bytes, ..RocksSettings::default() }).unwrap()
}

/// The same, but writes of two points and more go past the write buffer.
fn ingesting(dir: &Path, write_buffer_bytes: usize) -> RocksStores {
    let settings = RocksSettings { write_buffer_bytes, table_points_min: 2, ..RocksSettings::default() };
    RocksStores::open(dir, &settings).unwrap()
}

fn position(next_offset: i64) -> StorePosition {
    StorePosition { topic_id: [1; 16], next_offset, header: None, restoring: false, restored_from: 0 }
}

/// Writes 4,000 entries and closes the store.
fn fill(stores: &RocksStores) {
    let store = stores.open("task").unwrap();
    let entry =
        |n: u32| ([&[1], &n.to_be_bytes()[..]].concat(), Some(n.wrapping_mul(0x9e37_79b9).to_string()));
    store
        .write(&StoreWrites { ranges: vec![], points: (0..4000).map(entry).collect() }, &position(9))
        .unwrap();
    store.sync().unwrap();
}

/// Everything that can be read: the entries, or the first error.
fn read_all(
    stores: &RocksStores,
) -> Result<(Option<StorePosition>, Vec<crate::state::store::Entry>), StoreError> {
    let store = stores.open("task")?;
    let position = store.position()?;
    let entries = store.scan(START, END)?.collect::<Result<Vec<_>, _>>()?;
    Ok((position, entries))
}

fn files(dir: &Path, prefix: &str, suffix: &str) -> Vec<PathBuf> {
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    let mut paths: Vec<_> =
        paths.filter(|path| name(path).starts_with(prefix) && name(path).ends_with(suffix)).collect();
    paths.sort();
    paths
}

#[test]
fn it_is_a_store() {
    let dir = TempDir::new().unwrap();
    conformance::conforms(&stores(dir.path(), 64 << 20));
    let dir = TempDir::new().unwrap();
    conformance::conforms(&ingesting(dir.path(), 64 << 20));
}

/// Stores that delete no file, so that a manifest that was copied finds its tables.
struct Keeping(RocksStores);

impl StoreFactory for Keeping {
    fn open(&self, name: &str) -> Result<Arc<dyn Store>, StoreError> {
        let store = RocksStore::open(self.0.path(name)?, &self.0.shared)?;
        store.db.disable_file_deletions().unwrap();
        Ok(Arc::new(store))
    }
    fn set_aside(&self, name: &str, why: &str) -> Result<(), StoreError> {
        self.0.set_aside(name, why)
    }
    fn destroy(&self, name: &str) -> Result<(), StoreError> {
        self.0.destroy(name)
    }
}

/// What lies on the disk at an instant is what a crash leaves. RocksDB writes out when it likes, here
/// about every fifth write, and on its own threads.
#[test]
fn whatever_a_crash_keeps_is_consistent() {
    let dir = TempDir::new().unwrap();
    survives_crashes(dir.path(), stores(dir.path(), 0));
}

#[test]
fn whatever_a_crash_keeps_is_consistent_if_some_writes_pass_the_buffer_by() {
    for write_buffer_bytes in [0, 64 << 20] {
        let dir = TempDir::new().unwrap();
        survives_crashes(dir.path(), ingesting(dir.path(), write_buffer_bytes));
    }
}

fn survives_crashes(dir: &Path, factory: RocksStores) {
    let mut crashes = 0;
    conformance::survives_crashes(Keeping(factory), 100_000, |_, _| {
        crashes += 1;
        let (from, copy) = (dir.join("task"), dir.join(format!("crash {crashes}")));
        let to = copy.join("task");
        let lying = || {
            let names = [files(&from, "CURRENT", ""), files(&from, "MANIFEST", ""), files(&from, "", ".sst")];
            let paths = names.concat();
            let sized = |path: PathBuf| (fs::metadata(&path).map_or(0, |file| file.len()), path);
            paths.into_iter().map(sized).collect::<Vec<_>>()
        };
        loop {
            let before = lying();
            fs::create_dir_all(&to).unwrap();
            let mut copies =
                before.iter().map(|(_, path)| fs::copy(path, to.join(path.file_name().unwrap())));
            // What changes while it is copied was not there at one instant.
            if copies.all(|copied| copied.is_ok()) && lying() == before {
                break;
            }
            fs::remove_dir_all(&to).unwrap();
        }
        Arc::new(stores(&copy, 0))
    });
}

#[test]
fn a_flipped_byte_is_corruption_or_harmless() {
    let dir = TempDir::new().unwrap();
    let stores = stores(dir.path(), 64 << 20);
    fill(&stores);
    let whole = read_all(&stores).unwrap();
    let [table] = &files(&dir.path().join("task"), "", ".sst")[..] else { panic!("one table was written") };
    let bytes = fs::read(table).unwrap();
    let mut found = 0;
    for place in 0..64 {
        let mut flipped = bytes.clone();
        flipped[place * bytes.len() / 64] ^= 0x10;
        fs::write(table, flipped).unwrap();
        match read_all(&stores) {
            Err(StoreError::Corrupt(_)) => found += 1,
            Ok(read) => assert!(read == whole, "flipped at {place}/64, wrong entries were read"),
            Err(other) => panic!("not reported as corrupt: {other:?}"),
        }
    }
    // Data blocks, where entries and position are, make most of the file.
    assert!(found > 40, "only {found} of 64");
    fs::write(table, &bytes).unwrap();
    assert!(read_all(&stores).unwrap() == whole);
}

#[test]
fn corruption_found_by_a_later_read_is_reported_and_can_be_set_aside() {
    let dir = TempDir::new().unwrap();
    let stores = stores(dir.path(), 64 << 20);
    fill(&stores);
    let path = dir.path().join("task");
    let [table] = &files(&path, "", ".sst")[..] else { panic!("one table was written") };
    let mut bytes = fs::read(table).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(table, bytes).unwrap();

    let store = stores.open("task").unwrap();
    assert_eq!(store.position().unwrap(), Some(position(9)), "the damage is elsewhere");
    let errors: Vec<_> = store.scan(START, END).unwrap().filter_map(Result::err).collect();
    assert!(matches!(&errors[..], [StoreError::Corrupt(_)]), "{errors:?}");
    drop(store);

    stores.set_aside("task", "a test flipped a bit").unwrap();
    assert_eq!(read_all(&stores).unwrap(), (None, vec![]));
    let why = fs::read_to_string(dir.path().join("task.corrupt/WHY-SET-ASIDE.txt")).unwrap();
    assert_eq!(why, "a test flipped a bit\n");
}

#[test]
fn missing_and_mangled_files_are_corruption_or_a_new_store() {
    for (name, mangle) in [
        ("table gone", (|path| fs::remove_file(&files(path, "", ".sst")[0]).unwrap()) as fn(&Path)),
        ("table cut", |path| fs::write(&files(path, "", ".sst")[0], b"short").unwrap()),
        ("manifest gone", |path| fs::remove_file(&files(path, "MANIFEST", "")[0]).unwrap()),
        ("manifest mangled", |path| fs::write(&files(path, "MANIFEST", "")[0], [7; 500]).unwrap()),
        ("manifest empty", |path| fs::write(&files(path, "MANIFEST", "")[0], b"").unwrap()),
        ("current mangled", |path| fs::write(path.join("CURRENT"), b"nonsense").unwrap()),
        ("current empty", |path| fs::write(path.join("CURRENT"), b"").unwrap()),
        ("current gone", |path| fs::remove_file(path.join("CURRENT")).unwrap()),
    ] {
        let dir = TempDir::new().unwrap();
        let stores = stores(dir.path(), 64 << 20);
        fill(&stores);
        mangle(&dir.path().join("task"));
        match read_all(&stores) {
            Err(StoreError::Corrupt(_)) => {}
            Ok(read) => assert_eq!(read, (None, vec![]), "{name}"),
            Err(other) => panic!("{name}: not reported as corrupt: {other:?}"),
        }
    }
}

#[test]
fn a_store_in_use_and_a_directory_that_is_a_file_say_what_to_do() {
    let dir = TempDir::new().unwrap();
    let stores = stores(dir.path(), 64 << 20);
    let _open = stores.open("task").unwrap();
    let Err(StoreError::Io(message)) = stores.open("task").map(|_| ()) else { panic!("opened twice") };
    assert!(message.contains("Another process uses this state directory"), "{message}");

    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    let Err(StoreError::Io(message)) = RocksStores::open(&file, &RocksSettings::default()).map(|_| ()) else {
        panic!("opened a file as a directory")
    };
    assert!(message.contains("Check that"), "{message}");
    assert!(matches!(stores.open("../elsewhere").map(|_| ()), Err(StoreError::Io(_))));
}

#[test]
fn many_points_pass_the_write_buffer_by_and_leave_a_table_each() {
    let dir = TempDir::new().unwrap();
    let stores = ingesting(dir.path(), 64 << 20);
    let path = dir.path().join("task");
    let entry = |key: u8, value: u8| ([1, key], Some([value]));
    let write = |position: StorePosition, points: Points, ranges| {
        let store = stores.open("task").unwrap();
        store.write(&StoreWrites { ranges, points }, &position).unwrap();
    };
    write(position(3), (1..100).map(|key| entry(key, 1)).collect(), vec![]);
    assert_eq!(files(&path, "", ".sst").len(), 1);
    // However a crash left the file of the next one: half made, or another name of a table in use.
    for leave in
        [(|path: &Path, _: &Path| fs::write(path, b"half").unwrap()) as fn(&Path, &Path), |path, table| {
            fs::hard_link(table, path).unwrap()
        }]
    {
        leave(&path.join(TABLE_FILE), &files(&path, "", ".sst")[0]);
        let ranges = vec![(vec![1, 50], vec![1, 200])];
        write(position(9), (2..4).map(|key| entry(key, 2)).chain([entry(60, 2)]).collect(), ranges);
        assert_eq!(files(&path, "", TABLE_FILE).len(), 0, "it is deleted");
        let (at, entries) = read_all(&stores).unwrap();
        assert_eq!(at, Some(position(9)));
        let expected = (1..50).map(|key| entry(key, if (2..4).contains(&key) { 2 } else { 1 }));
        let expected = expected.chain([entry(60, 2)]);
        let expected: Vec<_> = expected.map(|(key, value)| (key.into(), value.unwrap().into())).collect();
        assert!(entries == expected, "a range does not delete the points beside it");
    }
}

/// RocksDB compacts by itself, but would take table after table meanwhile.
#[test]
fn a_table_waits_while_the_first_level_is_full() {
    let dir = TempDir::new().unwrap();
    let stores = ingesting(dir.path(), 64 << 20);
    let store = stores.open_store("task").unwrap();
    let write = |offset: u8, value: &[u8]| {
        let points = [([1, offset, 1], Some(value)), ([1, offset, 2], Some(value))].into_iter().collect();
        store.write(&StoreWrites { ranges: vec![], points }, &position(offset.into())).unwrap();
    };
    // So large that compacting takes longer than the write that must wait for it.
    let large: Vec<u8> = (0..1_500_000u32).map(|n| (n.wrapping_mul(0x9e37_79b9) >> 13) as u8).collect();
    let first_level = || {
        let property = rocksdb::properties::num_files_at_level(0);
        store.db.property_int_value(property).unwrap().unwrap()
    };
    store.db.set_options(&[("disable_auto_compactions", "true")]).unwrap();
    let mut offset = 0;
    while first_level() < FIRST_LEVEL_TABLES_MAX {
        offset += 1;
        write(offset, &large);
    }
    store.db.set_options(&[("disable_auto_compactions", "false")]).unwrap();
    write(offset + 1, b"small");
    assert!(first_level() < FIRST_LEVEL_TABLES_MAX / 2, "{}: it was compacted first", first_level());
}

#[test]
fn a_table_that_cannot_be_taken_over_leaves_nothing() {
    let dir = TempDir::new().unwrap();
    let stores = ingesting(dir.path(), 64 << 20);
    let store = stores.open("task").unwrap();
    let points = || [([1, 1], Some([1])), ([1, 2], Some([1]))].into_iter().collect();
    // A table that is not in order is refused in its middle.
    let descending = [([1, 2], Some([1])), ([1, 1], Some([1]))].into_iter().collect();
    assert!(store.write(&StoreWrites { ranges: vec![], points: descending }, &position(1)).is_err());
    assert_eq!(files(&dir.path().join("task"), "", TABLE_FILE).len(), 0);
    store.write(&StoreWrites { ranges: vec![], points: points() }, &position(2)).unwrap();
    assert_eq!(store.position().unwrap(), Some(position(2)));
}

#[test]
fn a_range_without_entries_leaves_no_tombstone() {
    let dir = TempDir::new().unwrap();
    let stores = stores(dir.path(), 64 << 20);
    let store = RocksStore::open(dir.path().join("task"), &stores.shared).unwrap();
    // Each write adds one for the position.
    let written = |writes: &StoreWrites| {
        store.write(writes, &position(1)).unwrap();
        store.db.property_int_value(rocksdb::properties::NUM_ENTRIES_ACTIVE_MEM_TABLE).unwrap().unwrap()
    };
    let range = StoreWrites { ranges: vec![(vec![1], vec![2])], points: Points::default() };
    let point = StoreWrites { ranges: vec![], points: [([1, 1], Some([]))].into_iter().collect() };
    assert_eq!(written(&range), 1);
    assert_eq!(written(&point), 3);
    assert_eq!(written(&range), 5);
    assert_eq!(written(&range), 6);
}
