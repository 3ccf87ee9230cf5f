//! Compares a dead process's RocksDB with the fold of the committed changelog. It reads records by the
//! engine's codec, since their bytes are the engine's own; the fold is its own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use thalweg::state::codec::read_record;
use thalweg::state::key::{START, STORE_KIND};

use crate::support::kafka::Record;

/// What the store says about itself; the other fields of the message are of no interest here.
#[derive(Clone, PartialEq, prost::Message)]
struct Position {
    #[prost(int64, tag = "3")]
    next_offset: i64,
    #[prost(bool, tag = "5")]
    restoring: bool,
}

/// The databases of a stage below a state directory, with the partition in their names. Those set aside are left
/// out.
pub fn stores(state_dir: &Path, stage: &str) -> Vec<(PathBuf, i32)> {
    let prefix = format!("{stage}-");
    let (mut found, mut folders) = (Vec::new(), vec![state_dir.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        let name = folder.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if !folder.join("CURRENT").exists() {
            let entries = std::fs::read_dir(&folder).into_iter().flatten();
            folders.extend(entries.map(|e| e.expect("an entry").path()).filter(|path| path.is_dir()));
        } else if let Some(Ok(partition)) = name.strip_prefix(&prefix).map(str::parse) {
            found.push((folder, partition));
        }
    }
    found
}

/// What became of a key in the log.
#[derive(Default)]
struct Fold {
    points: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    ranges: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Fold {
    /// A record's range deletions come before its points.
    fn apply(&mut self, record: &[u8]) {
        let record = read_record(record).expect("a changelog record");
        for (from, to) in record.ranges() {
            for (_, value) in self.points.range_mut(from.to_vec()..to.to_vec()) {
                *value = None;
            }
            self.ranges.push((from.to_vec(), to.to_vec()));
        }
        let mut points = record.points();
        while let Some((key, value)) = points.next() {
            self.points.insert(key.to_vec(), value.map(<[u8]>::to_vec));
        }
    }

    fn deletes(&self, key: &[u8]) -> bool {
        self.ranges.iter().any(|(from, to)| from.as_slice() <= key && key < to.as_slice())
    }
}

/// Compares the store of a partition with its committed changelog from the log start on; panics at a
/// difference. False if there is nothing to compare: a store that is new, in the middle of a restore, or
/// damaged before.
///
/// Where the log was cut, it may not hold what the store got before the cut; every key that the log does
/// mention is compared.
pub fn equals_the_changelog(store: &Path, changelog: &[&Record], log_start: i64) -> bool {
    let options = rocksdb::Options::default();
    let Ok(db) = rocksdb::DB::open_for_read_only(&options, store, false) else { return false };
    let Ok(Some(position)) = db.get([STORE_KIND]) else { return false };
    let position: Position = prost::Message::decode(position.as_slice()).expect("a position");
    if position.restoring || position.next_offset < log_start {
        return false;
    }
    let mut fold = Fold::default();
    for record in changelog.iter().filter(|record| record.offset < position.next_offset) {
        fold.apply(record.value.as_deref().expect("a changelog record"));
    }
    let mut seen = BTreeSet::new();
    let at = format!("{} at changelog offset {}", store.display(), position.next_offset);
    for entry in db.iterator(rocksdb::IteratorMode::From(START, rocksdb::Direction::Forward)) {
        let Ok((key, value)) = entry else { return false };
        match fold.points.get(&*key) {
            Some(expected) => assert_eq!(expected.as_deref(), Some(&*value), "key {key:?} of {at}"),
            None => assert!(log_start > 0 && !fold.deletes(&key), "key {key:?} of {at} is not in the log"),
        }
        seen.insert(key.to_vec());
    }
    let live = fold.points.iter().filter(|(_, value)| value.is_some());
    let missing = live.filter(|(key, _)| !seen.contains(*key)).count();
    assert_eq!(missing, 0, "keys of the changelog that are missing in {at}");
    true
}
