//! RocksDB behind the store port.
//!
//! One database per task in `dir/<name>`; the block cache, the limit on write buffers and the background
//! threads are shared by all of them. There is no write-ahead log: the changelog is the log. Every write holds
//! the store's position beside its entries, in one column family: either in the write buffer, which goes to disk as
//! one, or, if it is large, in a table of its own, before which the buffer goes to disk. So whatever prefix of the
//! writes RocksDB brings back after a crash is the state at the position that comes with it.

mod options;
mod store;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use options::RocksSettings;
use options::Shared;
pub(crate) use store::RocksStore;

use crate::state::store::{Store, StoreError, StoreFactory};

/// The stores of a process, in one directory.
pub struct RocksStores {
    dir: PathBuf,
    shared: Arc<Shared>,
}

impl RocksStores {
    /// Stores in `dir`, which is created if it is missing. The caller has locked it against other
    /// processes.
    pub fn open(dir: &Path, settings: &RocksSettings) -> Result<RocksStores, StoreError> {
        std::fs::create_dir_all(dir).map_err(|error| io_error("create the state directory", dir, &error))?;
        let shared = Shared::new(settings).map_err(|error| store::store_error("prepare", dir, error))?;
        Ok(RocksStores { dir: dir.to_path_buf(), shared: Arc::new(shared) })
    }

    /// Opens a store as [`open`](StoreFactory::open) does, for what only RocksDB has.
    pub(crate) fn open_store(&self, name: &str) -> Result<Arc<RocksStore>, StoreError> {
        RocksStore::open(self.path(name)?, &self.shared).map(Arc::new)
    }

    /// Opens a store that is there to look into it, which changes none of its files.
    pub(crate) fn look_into(&self, name: &str) -> Result<RocksStore, StoreError> {
        RocksStore::open_read_only(self.path(name)?, &self.shared)
    }

    /// Where the store called `name` lies.
    fn path(&self, name: &str) -> Result<PathBuf, StoreError> {
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\', '\0']) {
            return Err(StoreError::Io(format!(
                "a store cannot be called {name:?}: the name must be a file name (a defect of thalweg: report it)"
            )));
        }
        Ok(self.dir.join(name))
    }
}

impl StoreFactory for RocksStores {
    fn open(&self, name: &str) -> Result<Arc<dyn Store>, StoreError> {
        Ok(self.open_store(name)?)
    }

    fn set_aside(&self, name: &str, why: &str) -> Result<(), StoreError> {
        let path = self.path(name)?;
        if !path.exists() {
            return Ok(());
        }
        let aside = self.path(&format!("{name}.corrupt"))?;
        remove(&aside)?;
        // A note for whoever looks into the directory later; a full disk must not stop the rebuild.
        let _ = std::fs::write(path.join("WHY-SET-ASIDE.txt"), format!("{why}\n"));
        std::fs::rename(&path, &aside).map_err(|error| io_error("set aside the store in", &path, &error))
    }

    fn destroy(&self, name: &str) -> Result<(), StoreError> {
        remove(&self.path(name)?)
    }
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(io_error("delete the store in", path, &error))
        }
        _ => Ok(()),
    }
}

fn io_error(what: &str, path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::Io(format!(
        "cannot {what} {}: {error}. Check that the disk has room, that the directory may be written and that \
         it is on a local file system",
        path.display()
    ))
}
