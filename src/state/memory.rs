//! A store in memory: for hermetic tests, and for runs whose state need not outlive the process.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as MapEntry;
use std::ops::Bound::{Excluded, Included};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::store::{Entry, Store, StoreError, StoreFactory, StorePosition, StoreWrites};

/// What a store holds at one instant.
#[derive(Clone, Default)]
struct Content {
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
    position: Option<StorePosition>,
}

impl Content {
    fn apply(&mut self, writes: &StoreWrites, position: &StorePosition) {
        for (from, to) in writes.ranges.iter().filter(|(from, to)| from < to) {
            // Closing a window deletes many neighbours: cut them out at once.
            let mut tail = self.entries.split_off(from);
            self.entries.append(&mut tail.split_off(to));
        }
        for (key, value) in writes.points.iter() {
            match value {
                Some(value) => self.entries.insert(key.to_vec(), value.to_vec()),
                None => self.entries.remove(key),
            };
        }
        self.position = Some(position.clone());
    }
}

/// A store's content, as it is and as a crash of the machine may leave it.
#[derive(Default)]
struct Disk {
    current: Content,
    synced: Content,
    unsynced: Vec<(StoreWrites, StorePosition)>,
}

/// A [`Store`] over a sorted map.
pub struct MemoryStore(Arc<Mutex<Disk>>);

/// A lock is never poisoned: nothing panics while it is held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(lock(&self.0).current.entries.get(key).cloned())
    }

    fn scan<'s>(
        &'s self,
        from: &[u8],
        to: &[u8],
    ) -> Result<Box<dyn Iterator<Item = Result<Entry, StoreError>> + 's>, StoreError> {
        if from >= to {
            return Ok(Box::new(std::iter::empty()));
        }
        let disk = lock(&self.0);
        let entries = disk.current.entries.range::<[u8], _>((Included(from), Excluded(to)));
        let entries: Vec<_> = entries.map(|(key, value)| Ok((key[..].into(), value[..].into()))).collect();
        Ok(Box::new(entries.into_iter()))
    }

    fn position(&self) -> Result<Option<StorePosition>, StoreError> {
        Ok(lock(&self.0).current.position.clone())
    }

    fn write(&self, writes: &StoreWrites, position: &StorePosition) -> Result<(), StoreError> {
        let mut disk = lock(&self.0);
        disk.current.apply(writes, position);
        disk.unsynced.push((writes.clone(), position.clone()));
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        let disk = &mut *lock(&self.0);
        for (writes, position) in disk.unsynced.drain(..) {
            disk.synced.apply(&writes, &position);
        }
        Ok(())
    }

    fn bytes(&self) -> u64 {
        lock(&self.0).current.entries.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum()
    }
}

/// Stores in memory. Clones share them.
#[derive(Clone, Default)]
pub struct MemoryStores(Arc<Mutex<BTreeMap<String, Slot>>>);

#[derive(Default)]
struct Slot {
    disk: Arc<Mutex<Disk>>,
    handle: Weak<MemoryStore>,
}

impl MemoryStores {
    /// No store yet.
    pub fn new() -> MemoryStores {
        MemoryStores::default()
    }

    /// The same stores once more, as a copied disk; none of them is open.
    pub fn copy(&self) -> MemoryStores {
        let copy = |slot: &Slot| {
            let disk = lock(&slot.disk);
            let (current, synced, unsynced) =
                (disk.current.clone(), disk.synced.clone(), disk.unsynced.clone());
            Slot { disk: Arc::new(Mutex::new(Disk { current, synced, unsynced })), handle: Weak::new() }
        };
        let slots = lock(&self.0).iter().map(|(name, slot)| (name.clone(), copy(slot))).collect();
        MemoryStores(Arc::new(Mutex::new(slots)))
    }

    /// The names of all stores, those set aside included, in ascending order.
    pub fn names(&self) -> Vec<String> {
        lock(&self.0).keys().cloned().collect()
    }

    /// The machine crashes: every store falls back to what was synced. Open handles see it, too; a
    /// test drops them.
    pub fn crash(&self) {
        self.crash_keeping(0);
    }

    /// As [`crash`](MemoryStores::crash), but the first `writes_max` writes after the last sync survive:
    /// a disk may have kept any prefix.
    pub fn crash_keeping(&self, writes_max: usize) {
        for slot in lock(&self.0).values() {
            let disk = &mut *lock(&slot.disk);
            for (writes, position) in disk.unsynced.drain(..).take(writes_max) {
                disk.synced.apply(&writes, &position);
            }
            disk.current = disk.synced.clone();
        }
    }
}

impl StoreFactory for MemoryStores {
    fn open(&self, name: &str) -> Result<Arc<dyn Store>, StoreError> {
        let mut slots = lock(&self.0);
        let slot = slots.entry(name.to_string()).or_default();
        if slot.handle.strong_count() > 0 {
            return Err(StoreError::Io(format!(
                "cannot open the store {name}: it is open already; close its handle first (a defect of thalweg: report it)"
            )));
        }
        let store = Arc::new(MemoryStore(slot.disk.clone()));
        slot.handle = Arc::downgrade(&store);
        Ok(store)
    }

    fn set_aside(&self, name: &str, _why: &str) -> Result<(), StoreError> {
        let mut slots = lock(&self.0);
        if let MapEntry::Occupied(slot) = slots.entry(name.to_string()) {
            let slot = slot.remove();
            slots.insert(format!("{name}.corrupt"), slot);
        }
        Ok(())
    }

    fn destroy(&self, name: &str) -> Result<(), StoreError> {
        lock(&self.0).remove(name);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::conformance;
    use super::*;

    #[test]
    fn it_is_a_store() {
        conformance::conforms(&MemoryStores::new());
    }

    #[test]
    fn whatever_a_crash_keeps_is_consistent() {
        let mut kept = 0;
        conformance::survives_crashes(MemoryStores::new(), 3, |stores, unsynced| {
            kept += 1;
            let left = stores.copy();
            left.crash_keeping(kept % (unsynced as usize + 1));
            Arc::new(left)
        });
    }
}
