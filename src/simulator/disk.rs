//! A process's disk: stores in memory that keep what RocksDB without its log would keep, or those of RocksDB
//! itself. They fail as disks do.

mod backing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::state::key::{END, START};
use crate::state::store::{Entry, Store, StoreError, StoreFactory, StorePosition, StoreWrites};

pub use backing::{Kind, without_folders};

use backing::Backing;

/// How often a restore looks whether a store was given back.
const LOOK_MS: u64 = 10;

/// The message of a full disk.
pub const FULL: &str = "no space left on the simulated disk";

#[derive(Default)]
struct State {
    full: bool,
    /// Damaged stores: the key that cannot be read, or nothing of it can.
    corrupt: BTreeMap<String, Option<Vec<u8>>>,
    /// All that were ever damaged.
    were_corrupt: BTreeSet<String>,
    leased: BTreeSet<String>,
    /// What a store was asked that it must not be asked.
    violations: Vec<String>,
}

/// What one store holds.
pub struct Content {
    /// Its position; `None` for a new one.
    pub position: Option<StorePosition>,
    /// Its entries.
    pub entries: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// A disk. Clones share it.
#[derive(Clone)]
pub struct Disk {
    stores: Backing,
    state: Arc<Mutex<State>>,
}

impl Disk {
    /// An empty one.
    pub fn new(kind: Kind) -> Result<Disk, String> {
        let stores = Backing::new(kind).map_err(|error| error.to_string())?;
        Ok(Disk { stores, state: Arc::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic ends the history.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a crash of the machine leaves: the first `writes_max` writes of each store since its last sync
    /// and everything before; see [`Backing::after_crash`]. Whoever still has the old disk does not reach
    /// the new one.
    pub fn after_crash(&self, writes_max: usize) -> Result<Disk, String> {
        let stores = self.stores.after_crash(writes_max).map_err(|error| error.to_string())?;
        let State { full, corrupt, were_corrupt, violations, .. } = &*self.state();
        let state = State {
            full: *full,
            corrupt: corrupt.clone(),
            were_corrupt: were_corrupt.clone(),
            violations: violations.clone(),
            ..State::default()
        };
        Ok(Disk { stores, state: Arc::new(Mutex::new(state)) })
    }

    /// From now on every write fails, or none does.
    pub fn set_full(&self, full: bool) {
        self.state().full = full;
    }

    /// Whether every write fails.
    pub fn is_full(&self) -> bool {
        self.state().full
    }

    /// Damages a store, in one of its entries if it has an even number of them: whoever reads that notices,
    /// by its checksums.
    pub fn corrupt(&self, name: &str) -> Result<(), String> {
        let entries = self.after_crash(usize::MAX)?.content(name).map(|content| content.entries);
        let entries = entries.unwrap_or_default();
        let single = entries.len() > 1 && entries.len().is_multiple_of(2);
        let key = entries.into_keys().next_back().filter(|_| single);
        let mut state = self.state();
        state.corrupt.insert(name.to_owned(), key);
        state.were_corrupt.insert(name.to_owned());
        Ok(())
    }

    /// What was done to a store that must not be done.
    pub fn violation(&self) -> Option<String> {
        self.state().violations.first().cloned()
    }

    /// The names of the stores that are there and not damaged.
    pub fn names(&self) -> Result<Vec<String>, String> {
        let corrupt = self.state().corrupt.clone();
        let is_sound = |name: &String| !corrupt.contains_key(name) && !name.ends_with(".corrupt");
        let names = self.stores.names().map_err(|error| error.to_string())?;
        Ok(names.into_iter().filter(is_sound).collect())
    }

    /// What a store holds that nobody has open.
    pub fn content(&self, name: &str) -> Result<Content, StoreError> {
        let store = self.stores.look_into(name)?;
        let mut entries = BTreeMap::new();
        for entry in store.scan(START, END)? {
            let (key, value) = entry?;
            entries.insert(key.into_vec(), value.into_vec());
        }
        Ok(Content { position: store.position()?, entries })
    }

    /// For one restore, as a process's leases do: what it opens is leased to it. It waits by `pause` until
    /// nobody else holds the store, or until it is called off. What it does to a store's files is told by
    /// `note`.
    pub fn lessee<'l>(
        &self,
        pause: &'l dyn Fn(u64),
        note: &'l dyn Fn(&'static str),
        cancelled: &'l AtomicBool,
    ) -> Lessee<'l> {
        Lessee { disk: self.clone(), pause, note, cancelled }
    }
}

/// See [`Disk::lessee`].
pub struct Lessee<'l> {
    disk: Disk,
    pause: &'l dyn Fn(u64),
    note: &'l dyn Fn(&'static str),
    cancelled: &'l AtomicBool,
}

impl Lessee<'_> {
    fn lease(&self, name: &str) -> Result<Lease, StoreError> {
        while self.disk.state().leased.contains(name) {
            if self.cancelled.load(Ordering::Relaxed) {
                return Err(StoreError::Io(format!("store {name}: the restore was called off")));
            }
            (self.pause)(LOOK_MS);
        }
        self.disk.state().leased.insert(name.to_owned());
        Ok(Lease { disk: self.disk.clone(), name: name.to_owned() })
    }
}

impl StoreFactory for Lessee<'_> {
    fn open(&self, name: &str) -> Result<Arc<dyn Store>, StoreError> {
        let lease = self.lease(name)?;
        lease.check_readable()?;
        let inner = self.disk.stores.stores().open(name)?;
        Ok(Arc::new(Leased { inner, lease }))
    }

    fn set_aside(&self, name: &str, why: &str) -> Result<(), StoreError> {
        let lease = self.lease(name)?;
        {
            let mut state = lease.disk.state();
            state.corrupt.remove(name);
            if !state.were_corrupt.contains(name) {
                state.violations.push(format!("store {name} is sound and was set aside: {why}"));
            }
        }
        (self.note)("store set aside");
        lease.disk.stores.stores().set_aside(name, why)
    }

    fn destroy(&self, name: &str) -> Result<(), StoreError> {
        let lease = self.lease(name)?;
        lease.disk.state().corrupt.remove(name);
        (self.note)("store dropped");
        lease.disk.stores.stores().destroy(name)
    }
}

/// The right to a store's name; given back when it is dropped.
struct Lease {
    disk: Disk,
    name: String,
}

impl Lease {
    fn check_readable(&self) -> Result<(), StoreError> {
        match self.disk.state().corrupt.get(&self.name) {
            Some(None) => Err(self.damaged()),
            _ => Ok(()),
        }
    }

    /// The one key that cannot be read, if it is one.
    fn damaged_key(&self) -> Option<Vec<u8>> {
        self.disk.state().corrupt.get(&self.name).cloned().flatten()
    }

    fn damaged(&self) -> StoreError {
        StoreError::Corrupt(format!("store {}: a block's checksum is wrong", self.name))
    }

    fn check_writable(&self) -> Result<(), StoreError> {
        self.check_readable()?;
        if self.disk.is_full() {
            return Err(StoreError::Io(format!("store {}: {FULL}", self.name)));
        }
        Ok(())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.disk.state().leased.remove(&self.name);
    }
}

struct Leased {
    inner: Arc<dyn Store>,
    // Dropped after the store: its handle is closed when the name is free again.
    lease: Lease,
}

impl Store for Leased {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.lease.check_readable()?;
        if self.lease.damaged_key().is_some_and(|damaged| damaged == key) {
            return Err(self.lease.damaged());
        }
        self.inner.get(key)
    }

    fn scan<'s>(
        &'s self,
        from: &[u8],
        to: &[u8],
    ) -> Result<Box<dyn Iterator<Item = Result<Entry, StoreError>> + 's>, StoreError> {
        self.lease.check_readable()?;
        let Some(damaged) = self.lease.damaged_key() else { return self.inner.scan(from, to) };
        let entries = self.inner.scan(from, to)?.map(move |entry| match entry {
            Ok((key, _)) if *key == *damaged => Err(self.lease.damaged()),
            entry => entry,
        });
        Ok(Box::new(entries))
    }

    fn position(&self) -> Result<Option<StorePosition>, StoreError> {
        self.lease.check_readable()?;
        self.inner.position()
    }

    fn write(&self, writes: &StoreWrites, position: &StorePosition) -> Result<(), StoreError> {
        self.lease.check_writable()?;
        let before = self.inner.position()?.map(|before| before.next_offset);
        if before.is_some_and(|before| position.next_offset < before) {
            let name = &self.lease.name;
            let back = format!("store {name} went back from {before:?} to {}", position.next_offset);
            self.lease.disk.state().violations.push(back);
        }
        // What is written over can be read again.
        if self.lease.damaged_key().is_some_and(|damaged| replaces(writes, &damaged)) {
            self.lease.disk.state().corrupt.remove(&self.lease.name);
        }
        self.inner.write(writes, position)
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.lease.check_writable()?;
        self.inner.sync()
    }

    fn bytes(&self) -> u64 {
        self.inner.bytes()
    }
}

fn replaces(writes: &StoreWrites, damaged: &[u8]) -> bool {
    writes.points.iter().any(|(key, _)| key == damaged)
        || writes.ranges.iter().any(|(from, to)| (&from[..]..&to[..]).contains(&damaged))
}
