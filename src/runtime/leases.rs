//! One open handle per store in a process.
//!
//! A task may move from one worker of a process to another while a flush of the old one is still
//! running, and stores are opened at every assignment. The lease makes the new one wait for the old
//! one, and keeps the store open in between.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::state::store::{Entry, Store, StoreError, StoreFactory, StorePosition, StoreWrites};

/// A store factory whose stores are leased: `open` waits (without limit: what holds a lease is a flush
/// or a restore that was called off, and both end) until nobody else holds the store.
#[derive(Clone)]
pub struct Leases(Arc<Shared>);

struct Shared {
    factory: Box<dyn StoreFactory>,
    stores: Mutex<HashMap<String, Slot>>,
    returned: Condvar,
}

#[derive(Default)]
struct Slot {
    store: Option<Arc<dyn Store>>,
    leased: bool,
}

/// A leased store; returned when its last clone is dropped.
struct Leased {
    store: Arc<dyn Store>,
    name: String,
    shared: Arc<Shared>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Slot>> {
        // A panic ends the process, so nobody sees what a panicking holder left.
        self.stores.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_until_returned(&self, name: &str) -> MutexGuard<'_, HashMap<String, Slot>> {
        let mut stores = self.lock();
        while stores.get(name).is_some_and(|slot| slot.leased) {
            stores = self.returned.wait(stores).unwrap_or_else(PoisonError::into_inner);
        }
        stores
    }
}

impl Leases {
    /// Leases the stores of `factory`.
    pub fn new(factory: Box<dyn StoreFactory>) -> Self {
        Leases(Arc::new(Shared { factory, stores: Mutex::default(), returned: Condvar::new() }))
    }

    /// Closes a store that nobody holds, then does something to its files.
    fn close_and(
        &self,
        name: &str,
        then: impl FnOnce(&dyn StoreFactory) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut stores = self.0.wait_until_returned(name);
        stores.remove(name);
        then(&*self.0.factory)
    }
}

impl StoreFactory for Leases {
    fn open(&self, name: &str) -> Result<Arc<dyn Store>, StoreError> {
        let mut stores = self.0.wait_until_returned(name);
        let slot = stores.entry(name.to_owned()).or_default();
        let store = match &slot.store {
            Some(store) => store.clone(),
            None => slot.store.insert(self.0.factory.open(name)?).clone(),
        };
        slot.leased = true;
        Ok(Arc::new(Leased { store, name: name.to_owned(), shared: self.0.clone() }))
    }

    fn set_aside(&self, name: &str, why: &str) -> Result<(), StoreError> {
        self.close_and(name, |factory| factory.set_aside(name, why))
    }

    fn destroy(&self, name: &str) -> Result<(), StoreError> {
        self.close_and(name, |factory| factory.destroy(name))
    }
}

impl Drop for Leased {
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
    use super::*;
    use crate::state::memory::MemoryStores;

    #[test]
    fn a_second_holder_waits_for_the_first() {
        let leases = Leases::new(Box::new(MemoryStores::default()));
        let first = leases.open("orders-0").unwrap();
        let (sent, opened) = std::sync::mpsc::sync_channel(1);
        let second = {
            let leases = leases.clone();
            std::thread::spawn(move || {
                let store = leases.open("orders-0").unwrap();
                sent.send(()).unwrap();
                drop(store);
            })
        };
        assert!(opened.try_recv().is_err(), "nobody else may hold the store while the first does");
        leases.open("orders-1").expect("another store is free");
        drop(first);
        opened.recv().unwrap();
        second.join().unwrap();
        leases.destroy("orders-0").expect("nobody holds it any more");
    }
}
