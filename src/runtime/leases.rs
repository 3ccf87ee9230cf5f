//! One open handle per store in a process.
//!
//! A task may move from one worker of a process to another while a flush of the old one is still
//! running, and stores are opened at every assignment. The lease makes the new one wait for the old
//! one, and keeps the store open in between.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::state::store::{Entry, Store, StoreError, StoreFactory, StorePosition, StoreWrites};

/// How often a waiting restore looks whether it was called off.
const LOOK: Duration = Duration::from_millis(50);

/// The stores of a process, to be leased.
#[derive(Clone)]
pub struct Leases(Arc<Shared>);

struct Shared {
    factory: Box<dyn StoreFactory + Send + Sync>,
    stores: Mutex<HashMap<String, Slot>>,
    returned: Condvar,
}

#[derive(Default)]
struct Slot {
    store: Option<Arc<dyn Store>>,
    /// Somebody holds the store, or is opening or removing it.
    leased: bool,
}

/// A leased store; returned when its last clone is dropped.
struct Leased {
    store: Arc<dyn Store>,
    _lease: Lease,
}

/// The right to a store's name.
struct Lease {
    name: String,
    shared: Arc<Shared>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Slot>> {
        // A panic ends the process, so nobody sees what a panicking holder left.
        self.stores.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A store factory for one restore: what it opens is leased. It waits until nobody else holds the store
/// (another worker's task, a flush, a restore that was called off), or until it is called off itself.
pub struct Lessee<'l> {
    leases: &'l Leases,
    cancelled: &'l AtomicBool,
}

impl Leases {
    /// Leases the stores of `factory`.
    pub fn new(factory: Box<dyn StoreFactory + Send + Sync>) -> Self {
        Leases(Arc::new(Shared { factory, stores: Mutex::default(), returned: Condvar::new() }))
    }

    /// For a restore that is called off by `cancelled`.
    pub fn lessee<'l>(&'l self, cancelled: &'l AtomicBool) -> Lessee<'l> {
        Lessee { leases: self, cancelled }
    }
}

impl Lessee<'_> {
    /// Waits for the store, and takes what is open of it.
    fn lease(&self, name: &str) -> Result<(Lease, Option<Arc<dyn Store>>), StoreError> {
        let shared = &self.leases.0;
        let mut stores = shared.lock();
        while stores.get(name).is_some_and(|slot| slot.leased) {
            if self.cancelled.load(Ordering::Relaxed) {
                return Err(StoreError::Io(format!("store {name}: the restore was called off")));
            }
            let waited = shared.returned.wait_timeout(stores, LOOK);
            stores = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let slot = stores.entry(name.to_owned()).or_default();
        slot.leased = true;
        Ok((Lease { name: name.to_owned(), shared: shared.clone() }, slot.store.clone()))
    }

    /// Closes a store that nobody holds, then does something to its files. The lock is not held while
    /// the disk is busy: workers return other stores meanwhile.
    fn close_and(
        &self,
        name: &str,
        then: impl FnOnce(&dyn StoreFactory) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let (lease, store) = self.lease(name)?;
        let shared = &lease.shared;
        drop(store);
        if let Some(slot) = shared.lock().get_mut(name) {
            slot.store = None;
        }
        then(&*shared.factory)
    }
}

impl StoreFactory for Lessee<'_> {
    fn open(&self, name: &str) -> Result<Arc<dyn Store>, StoreError> {
        let (lease, store) = self.lease(name)?;
        let store = match store {
            Some(store) => store,
            None => {
                let store = lease.shared.factory.open(name)?;
                if let Some(slot) = lease.shared.lock().get_mut(name) {
                    slot.store = Some(store.clone());
                }
                store
            }
        };
        Ok(Arc::new(Leased { store, _lease: lease }))
    }

    fn set_aside(&self, name: &str, why: &str) -> Result<(), StoreError> {
        self.close_and(name, |factory| factory.set_aside(name, why))
    }

    fn destroy(&self, name: &str) -> Result<(), StoreError> {
        self.close_and(name, |factory| factory.destroy(name))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(slot) = self.shared.lock().get_mut(&self.name) {
            slot.leased = false;
        }
        self.shared.returned.notify_all();
    }
}

impl Store for Leased {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.get(key)
    }

    fn scan<'s>(
        &'s self,
        from: &[u8],
        to: &[u8],
    ) -> Result<Box<dyn Iterator<Item = Result<Entry, StoreError>> + 's>, StoreError> {
        self.store.scan(from, to)
    }

    fn position(&self) -> Result<Option<StorePosition>, StoreError> {
        self.store.position()
    }

    fn write(&self, writes: &StoreWrites, position: &StorePosition) -> Result<(), StoreError> {
        self.store.write(writes, position)
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.store.sync()
    }

    fn bytes(&self) -> u64 {
        self.store.bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;
    use crate::state::memory::MemoryStores;

    fn leases() -> Leases {
        Leases::new(Box::new(MemoryStores::default()))
    }

    #[test]
    fn a_second_holder_waits_for_the_first() {
        let (leases, never) = (leases(), AtomicBool::new(false));
        let first = leases.lessee(&never).open("orders-0").unwrap();
        let (sent, opened) = sync_channel(1);
        let second = {
            let leases = leases.clone();
            std::thread::spawn(move || {
                let store = leases.lessee(&AtomicBool::new(false)).open("orders-0").unwrap();
                sent.send(()).unwrap();
                drop(store);
            })
        };
        assert!(opened.try_recv().is_err(), "nobody else may hold the store while the first does");
        leases.lessee(&never).open("orders-1").expect("another store is free");
        drop(first);
        opened.recv().unwrap();
        second.join().unwrap();
        leases.lessee(&never).destroy("orders-0").expect("nobody holds it any more");
    }

    #[test]
    fn a_restore_that_was_called_off_waits_no_longer() {
        let leases = leases();
        let _held = leases.lessee(&AtomicBool::new(false)).open("orders-0").unwrap();
        let cancelled = Arc::new(AtomicBool::new(false));
        let waiting = {
            let (leases, cancelled) = (leases.clone(), cancelled.clone());
            std::thread::spawn(move || leases.lessee(&cancelled).open("orders-0").err())
        };
        cancelled.store(true, Ordering::Relaxed);
        assert!(matches!(waiting.join().unwrap(), Some(StoreError::Io(why)) if why.contains("called off")));
    }
}
