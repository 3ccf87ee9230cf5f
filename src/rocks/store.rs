//! One RocksDB database as a store.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost::Message;
use rocksdb::properties::{CUR_SIZE_ALL_MEM_TABLES, LIVE_SST_FILES_SIZE, num_files_at_level};
use rocksdb::{
    DB, DBRawIterator, Error, ErrorKind, IngestExternalFileOptions, ReadOptions, SstFileWriter,
    WaitForCompactOptions, WriteBatch, WriteOptions,
};

use super::options::Shared;
use crate::state::Header;
use crate::state::key::{START, STORE_KIND};
use crate::state::points::Points;
use crate::state::store::{Entry, Store, StoreError, StorePosition, StoreWrites};

/// The key under which the position is kept. It sorts before [`START`], so that no scan shows it.
const POSITION_KEY: &[u8] = &[STORE_KIND];
/// How many tables RocksDB may have in its first level before another one is handed to it: from here on it slows
/// down writes that go through the write buffer (`level0_slowdown_writes_trigger`).
pub(super) const FIRST_LEVEL_TABLES_MAX: u64 = 20;
/// Under this name in a store's directory a table file is made before RocksDB takes it over.
pub(super) const TABLE_FILE: &str = "ingested.table";
/// The version of [`PositionRecord`] and of what the store's entries look like.
const POSITION_VERSION: u32 = 1;

/// A [`StorePosition`] as it is stored. Field numbers are never reused.
#[derive(Clone, PartialEq, prost::Message)]
struct PositionRecord {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(bytes = "vec", tag = "2")]
    topic_id: Vec<u8>,
    #[prost(int64, tag = "3")]
    next_offset: i64,
    #[prost(message, optional, tag = "4")]
    header: Option<Header>,
    #[prost(bool, tag = "5")]
    restoring: bool,
    #[prost(int64, tag = "6")]
    restored_from: i64,
}

impl PositionRecord {
    fn encode(position: &StorePosition) -> Vec<u8> {
        let record = PositionRecord {
            version: POSITION_VERSION,
            topic_id: position.topic_id.to_vec(),
            next_offset: position.next_offset,
            header: position.header.clone(),
            restoring: position.restoring,
            restored_from: position.restored_from,
        };
        record.encode_to_vec()
    }

    fn read(bytes: &[u8]) -> Result<StorePosition, String> {
        let record = PositionRecord::decode(bytes).map_err(|error| error.to_string())?;
        if record.version != POSITION_VERSION {
            return Err(format!("version {} instead of {POSITION_VERSION}", record.version));
        }
        let topic_id =
            record.topic_id.try_into().map_err(|_| "a topic id that has not 16 bytes".to_string())?;
        Ok(StorePosition {
            topic_id,
            next_offset: record.next_offset,
            header: record.header,
            restoring: record.restoring,
            restored_from: record.restored_from,
        })
    }
}

/// A task's store.
pub(crate) struct RocksStore {
    path: PathBuf,
    shared: Arc<Shared>,
    pub(super) db: DB,
}

impl RocksStore {
    pub(super) fn open(path: PathBuf, shared: &Arc<Shared>) -> Result<RocksStore, StoreError> {
        // What a crash left half made; RocksDB does not know its name.
        let _ = fs::remove_file(path.join(TABLE_FILE));
        let db = DB::open(shared.options(), &path).map_err(|error| store_error("open", &path, error))?;
        Ok(RocksStore { path, shared: shared.clone(), db })
    }

    /// Opens one to look into it: nothing in its directory changes.
    pub(super) fn open_read_only(path: PathBuf, shared: &Arc<Shared>) -> Result<RocksStore, StoreError> {
        let opened = DB::open_for_read_only(shared.options(), &path, false);
        let db = opened.map_err(|error| store_error("open", &path, error))?;
        Ok(RocksStore { path, shared: shared.clone(), db })
    }

    /// Waits until RocksDB has done all that it does by itself, on threads of its own: a copy of its files
    /// is what a crash at this instant would leave, the same each time.
    pub(crate) fn settle(&self) -> Result<(), StoreError> {
        let waited = self.db.wait_for_compact(&WaitForCompactOptions::default());
        waited.map_err(|error| self.error("wait for", error))
    }

    fn error(&self, doing: &str, error: Error) -> StoreError {
        store_error(doing, &self.path, error)
    }

    /// The entries of `from..to`, without what the store keeps about itself.
    fn iterator(&self, from: &[u8], to: &[u8]) -> DBRawIterator<'_> {
        let from = from.max(START);
        let mut options = ReadOptions::default();
        options.set_iterate_range(from..to.max(from));
        // What is scanned is not read again soon: a window that closes, a chunk of a sweep.
        options.fill_cache(false);
        let mut iterator = self.db.raw_iterator_opt(options);
        iterator.seek(from);
        iterator
    }

    /// Few writes go through the write buffer.
    fn write_batch(
        &self,
        ranges: &[&(Vec<u8>, Vec<u8>)],
        points: &Points,
        position: &[u8],
    ) -> Result<(), Error> {
        let mut batch = WriteBatch::default();
        for (from, to) in ranges {
            batch.delete_range(from, to);
        }
        for (key, value) in points.iter() {
            match value {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            }
        }
        batch.put(POSITION_KEY, position);
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.db.write_opt(batch, &options)
    }

    /// Many are sorted already, so they become a table file as they are, which RocksDB syncs and takes over.
    ///
    /// The position is in it as in every write before: so whatever is in the write buffer overlaps with it and
    /// is written out first, and what a crash leaves is a prefix of the writes here as well. In a table as in a
    /// batch ranges do not delete the points beside them.
    fn ingest(&self, ranges: &[&(Vec<u8>, Vec<u8>)], points: &Points, position: &[u8]) -> Result<(), Error> {
        self.wait_for_compaction()?;
        let file = self.path.join(TABLE_FILE);
        let made = self.make_table(&file, ranges, points, position);
        // RocksDB copies it. Moving it would be cheaper, but that is a hard link first: a crash in between would
        // leave two names of a file in use, and not every file system has them.
        let taken = made.and_then(|()| {
            self.db.ingest_external_file_opts(&IngestExternalFileOptions::default(), vec![&file])
        });
        // If it cannot be deleted it is overwritten by the next one, or deleted when the store is opened.
        let _ = fs::remove_file(&file);
        taken
    }

    fn make_table(
        &self,
        file: &Path,
        ranges: &[&(Vec<u8>, Vec<u8>)],
        points: &Points,
        position: &[u8],
    ) -> Result<(), Error> {
        let mut table = SstFileWriter::create(self.shared.options());
        table.open(file)?;
        for (from, to) in ranges {
            table.delete_range(from, to)?;
        }
        table.put(POSITION_KEY, position)?;
        for (key, value) in points.iter() {
            match value {
                Some(value) => table.put(key, value)?,
                None => table.delete(key)?,
            }
        }
        table.finish()
    }

    /// Batches are slowed down by RocksDB while its first level has too many tables; tables that it takes over are
    /// not.
    fn wait_for_compaction(&self) -> Result<(), Error> {
        match self.db.property_int_value(num_files_at_level(0))? {
            Some(tables) if tables >= FIRST_LEVEL_TABLES_MAX => {
                self.db.wait_for_compact(&WaitForCompactOptions::default())
            }
            _ => Ok(()),
        }
    }

    /// Whether there is any entry in `from..to`.
    fn has_any(&self, from: &[u8], to: &[u8]) -> Result<bool, Error> {
        let iterator = self.iterator(from, to);
        iterator.status().map(|()| iterator.valid())
    }
}

impl Store for RocksStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        debug_assert!(key >= START);
        self.db.get(key).map_err(|error| self.error("read from", error))
    }

    fn scan<'s>(
        &'s self,
        from: &[u8],
        to: &[u8],
    ) -> Result<Box<dyn Iterator<Item = Result<Entry, StoreError>> + 's>, StoreError> {
        Ok(Box::new(Scan { store: self, iterator: self.iterator(from, to), ended: false }))
    }

    fn position(&self) -> Result<Option<StorePosition>, StoreError> {
        let Some(bytes) = self.db.get(POSITION_KEY).map_err(|error| self.error("read from", error))? else {
            return Ok(None);
        };
        PositionRecord::read(&bytes).map(Some).map_err(|error| {
            let path = self.path.display();
            StoreError::Corrupt(format!("the store in {path} has a position that cannot be read: {error}"))
        })
    }

    fn write(&self, writes: &StoreWrites, position: &StorePosition) -> Result<(), StoreError> {
        let mut ranges = Vec::new();
        for range in &writes.ranges {
            debug_assert!(&range.0[..] >= START);
            // A range deletion slows every later read down until it is compacted away, and most windows
            // that close were never written.
            if self.has_any(&range.0, &range.1).map_err(|error| self.error("read from", error))? {
                ranges.push(range);
            }
        }
        debug_assert!(writes.points.iter().next().is_none_or(|(key, _)| key >= START));
        let position = PositionRecord::encode(position);
        let written = match writes.points.len() >= self.shared.table_points_min() {
            true => self.ingest(&ranges, &writes.points, &position),
            false => self.write_batch(&ranges, &writes.points, &position),
        };
        written.map_err(|error| self.error("write to", error))
    }

    fn sync(&self) -> Result<(), StoreError> {
        // Waits; the file and the manifest that names it are synced.
        self.db.flush().map_err(|error| self.error("sync", error))
    }

    fn bytes(&self) -> u64 {
        let property = |name| self.db.property_int_value(name).ok().flatten().unwrap_or(0);
        property(LIVE_SST_FILES_SIZE) + property(CUR_SIZE_ALL_MEM_TABLES)
    }
}

/// Entries in ascending order. It ends after an error.
struct Scan<'s> {
    store: &'s RocksStore,
    iterator: DBRawIterator<'s>,
    ended: bool,
}

impl Iterator for Scan<'_> {
    type Item = Result<Entry, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        if let Some((key, value)) = self.iterator.item() {
            let entry = (key.into(), value.into());
            self.iterator.next();
            return Some(Ok(entry));
        }
        self.ended = true;
        self.iterator.status().err().map(|error| Err(self.store.error("read from", error)))
    }
}

/// What an error of RocksDB means for the engine.
pub(super) fn store_error(doing: &str, path: &Path, error: Error) -> StoreError {
    let path = path.display();
    let what = format!("cannot {doing} the store in {path}: {error}");
    // A file that is gone is as bad as one that is damaged; every directory was created before.
    let file_is_gone = error.as_ref().contains("No such file");
    match error.kind() {
        ErrorKind::Corruption | ErrorKind::NotSupported | ErrorKind::InvalidArgument => {
            StoreError::Corrupt(what)
        }
        ErrorKind::IOError if file_is_gone => StoreError::Corrupt(what),
        ErrorKind::IOError if error.as_ref().contains("/LOCK") => StoreError::Io(format!(
            "{what}. Another process uses this state directory, or the store was not closed: give each \
             process its own (--state-dir)"
        )),
        _ => StoreError::Io(format!(
            "{what}. Check that the disk has room, that the files may be written and how many may be open \
             (ulimit -n), then start again: nothing that was committed is lost"
        )),
    }
}
