//! What a simulated disk really holds: stores in memory, or RocksDB in a temporary folder.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Error, ErrorKind};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::rocks::{RocksSettings, RocksStore, RocksStores};
use crate::simulator::scenario::Scenario;
use crate::state::memory::MemoryStores;
use crate::state::store::{Store, StoreError, StoreFactory};

/// Where memory is a file system.
const MEMORY_DIR: &str = "/dev/shm";
/// What the name of each temporary folder begins with.
const FOLDER_PREFIX: &str = "thalweg-simulated-";

/// What the disks of a history are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Stores in memory.
    Memory,
    /// RocksDB, where four points at once pass the write buffer by, and are synced; what is less stays in it.
    Rocks,
    /// RocksDB with buffers that are full at once: each write has the one before written out.
    RocksWithoutBuffers,
}

impl Kind {
    /// As the scenario says; what buffers RocksDB has is left to chance.
    pub fn of(scenario: &Scenario) -> Kind {
        match (scenario.rocks, scenario.seed.is_multiple_of(2)) {
            (false, _) => Kind::Memory,
            (true, false) => Kind::Rocks,
            (true, true) => Kind::RocksWithoutBuffers,
        }
    }

    fn settings(self) -> RocksSettings {
        let usual = RocksSettings::default();
        match self {
            Kind::RocksWithoutBuffers => RocksSettings { write_buffer_bytes: 1, ..usual },
            Kind::Rocks => RocksSettings { table_points_min: 4, ..usual },
            Kind::Memory => usual,
        }
    }
}

/// The stores. Clones share them.
#[derive(Clone)]
pub enum Backing {
    /// In memory.
    Memory(MemoryStores),
    /// On RocksDB.
    Rocks(Arc<Folder>),
}

impl Backing {
    /// No store yet.
    pub fn new(kind: Kind) -> Result<Backing, StoreError> {
        match kind {
            Kind::Memory => Ok(Backing::Memory(MemoryStores::new())),
            Kind::Rocks | Kind::RocksWithoutBuffers => Folder::new(kind).map(Arc::new).map(Backing::Rocks),
        }
    }

    /// What a crash of the machine leaves, as a disk of its own: of each store what was synced, and the
    /// first `writes_max` writes after that. RocksDB keeps instead what it had written out by itself; if
    /// `writes_max` is not 0, it had done so with everything. Stores that are open stay as they are.
    pub fn after_crash(&self, writes_max: usize) -> Result<Backing, StoreError> {
        match self {
            Backing::Memory(stores) => {
                let stores = stores.copy();
                stores.crash_keeping(writes_max);
                Ok(Backing::Memory(stores))
            }
            Backing::Rocks(folder) => folder.after_crash(writes_max > 0).map(Arc::new).map(Backing::Rocks),
        }
    }

    /// The names of all stores, those set aside included, in ascending order.
    pub fn names(&self) -> Result<Vec<String>, StoreError> {
        match self {
            Backing::Memory(stores) => Ok(stores.names()),
            Backing::Rocks(folder) => names_in(&folder.dir),
        }
    }

    /// A store that is there and that nobody has open, to look into it.
    pub fn look_into(&self, name: &str) -> Result<Arc<dyn Store>, StoreError> {
        match self {
            Backing::Memory(stores) => stores.open(name),
            Backing::Rocks(folder) => Ok(Arc::new(folder.stores.look_into(name)?)),
        }
    }

    /// What opens and deletes them.
    pub fn stores(&self) -> &dyn StoreFactory {
        match self {
            Backing::Memory(stores) => stores,
            Backing::Rocks(folder) => &**folder,
        }
    }
}

/// A temporary folder with RocksDB in it; deleted when it is dropped.
pub struct Folder {
    kind: Kind,
    stores: RocksStores,
    open: Mutex<BTreeMap<String, Weak<RocksStore>>>,
    // Deleted after the stores are closed: each has a share in what they have in common.
    dir: TemporaryDir,
}

impl Folder {
    fn new(kind: Kind) -> Result<Folder, StoreError> {
        let dir = TemporaryDir::new().map_err(|error| refused("create a folder", &error))?;
        let stores = RocksStores::open(&dir, &kind.settings())?;
        Ok(Folder { kind, stores, open: Mutex::default(), dir })
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<String, Weak<RocksStore>>> {
        // A panic ends the history.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn after_crash(&self, written_out: bool) -> Result<Folder, StoreError> {
        for store in self.open().values().filter_map(Weak::upgrade) {
            if written_out {
                store.sync()?;
            }
            store.settle()?;
        }
        let left = Folder::new(self.kind)?;
        for name in names_in(&self.dir)? {
            copy(&self.dir.join(&name), &left.dir.join(&name))
                .map_err(|error| refused("copy a store", &error))?;
        }
        Ok(left)
    }
}

impl StoreFactory for Folder {
    fn open(&self, name: &str) -> Result<Arc<dyn Store>, StoreError> {
        let store = self.stores.open_store(name)?;
        self.open().insert(name.to_owned(), Arc::downgrade(&store));
        Ok(store)
    }

    fn set_aside(&self, name: &str, why: &str) -> Result<(), StoreError> {
        self.stores.set_aside(name, why)
    }

    fn destroy(&self, name: &str) -> Result<(), StoreError> {
        self.stores.destroy(name)
    }
}

fn names_in(dir: &Path) -> Result<Vec<String>, StoreError> {
    let read = || {
        let names = fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect::<Result<Vec<String>, Error>>()
    };
    let mut names = read().map_err(|error| refused("list a folder", &error))?;
    names.sort();
    Ok(names)
}

/// Copies a store whose files nobody changes at the moment.
fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

fn refused(what: &str, error: &Error) -> StoreError {
    let parent = parent();
    StoreError::Io(format!(
        "cannot {what} for a simulated disk in {}: {error}. Check that it has room and may be written",
        parent.display()
    ))
}

/// Where temporary folders are made: in memory, if there is a file system for that.
fn parent() -> PathBuf {
    let memory = PathBuf::from(MEMORY_DIR);
    if memory.is_dir() { memory } else { std::env::temp_dir() }
}

/// A folder that is deleted when this is dropped.
struct TemporaryDir(PathBuf);

impl TemporaryDir {
    fn new() -> Result<TemporaryDir, Error> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let dir = parent().join(format!("{FOLDER_PREFIX}{}-{number}", process::id()));
            match fs::create_dir(&dir) {
                // Left by a process of the same number that was killed.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                created => return created.map(|()| TemporaryDir(dir)),
            }
        }
    }
}

impl std::ops::Deref for TemporaryDir {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for TemporaryDir {
    fn drop(&mut self) {
        // What cannot be deleted is left to whoever cleans the machine.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A text without the names of temporary folders, which are others each time.
pub fn without_folders(text: &str) -> String {
    let begin = parent().join(FOLDER_PREFIX).to_string_lossy().into_owned();
    let mut parts = text.split(&begin);
    let mut clean = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        clean.push_str("DISK");
        clean.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit() || c == '-'));
    }
    clean
}
