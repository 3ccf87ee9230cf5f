//! Random histories of the changelog protocol: deltas, chunks, sweeps, cuts, aborts, flushes, crashes and
//! restores, through the real codec, merge and applier. Whatever happens, a restore gives the committed
//! state. The planted errors show that the test would notice.

use std::collections::BTreeMap;

use super::super::super::header::{Sweep, THIS_CHECKPOINT};
use super::super::super::key::{window_key, window_prefix};
use super::super::super::points::Points;
use super::super::super::store::{Entry, StoreError, StoreWrites};
use super::*;

/// Keys are numbered 0 to `KEYS` - 1; ranges are `a..b` of those numbers.
const KEYS: u64 = 40;

/// An error built in on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plant {
    None,
    /// The log is cut where the sweep under way began.
    CutAtSweep,
    /// A header gives the sweep under way for a complete one.
    RestorePointEarly,
    /// A chunk holds the state before its checkpoint's delta.
    ChunkBeforeDelta,
    /// A store applies a delta's points, then its ranges.
    RangesAfterPoints,
    /// The log is cut at what the store holds but has not synced.
    CutUnsynced,
    /// The log is cut above what the store holds.
    CutAboveStore,
    /// A store's position runs ahead of its entries: the last write loses its points.
    PositionAhead,
    /// A range of a delta does not reach the log.
    RangeLost,
}

/// splitmix64: the same seed, the same history.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

type State = BTreeMap<Vec<u8>, Vec<u8>>;

/// The bytes of key number `k`; of `KEYS`: the end of the key space.
fn key(k: u64) -> Vec<u8> {
    match k {
        KEYS => END.to_vec(),
        _ => window_key(
            &window_prefix(if k < KEYS / 2 { "first" } else { "second" }),
            (k / 4) as i64,
            &[k as u8],
        ),
    }
}

/// A store with the planted errors of stores.
struct Planted(Arc<dyn Store>, Plant);

impl Store for Planted {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.get(key)
    }
    fn scan<'s>(
        &'s self,
        from: &[u8],
        to: &[u8],
    ) -> Result<Box<dyn Iterator<Item = Result<Entry, StoreError>> + 's>, StoreError> {
        self.0.scan(from, to)
    }
    fn position(&self) -> Result<Option<StorePosition>, StoreError> {
        self.0.position()
    }
    fn write(&self, writes: &StoreWrites, position: &StorePosition) -> Result<(), StoreError> {
        let ranges = StoreWrites { ranges: writes.ranges.clone(), points: Points::default() };
        let points = StoreWrites { ranges: vec![], points: writes.points.clone() };
        match self.1 {
            Plant::RangesAfterPoints => {
                self.0.write(&points, position)?;
                self.0.write(&ranges, position)
            }
            Plant::PositionAhead => self.0.write(&ranges, position),
            _ => self.0.write(writes, position),
        }
    }
    fn sync(&self) -> Result<(), StoreError> {
        self.0.sync()
    }
    fn bytes(&self) -> u64 {
        self.0.bytes()
    }
}

/// The log: an aborted record or a marker is `None`.
#[derive(Default)]
struct Log {
    records: Vec<Option<Vec<u8>>>,
    start: i64,
    /// The log start that survives a crash of the broker.
    persisted_start: i64,
}

impl Log {
    fn end(&self) -> i64 {
        self.records.len() as i64
    }

    fn committed(&self, from: i64) -> impl Iterator<Item = (i64, &[u8])> {
        let records = (from..).zip(&self.records[from as usize..]);
        records.filter_map(|(offset, record)| Some((offset, record.as_deref()?)))
    }
}

/// What the task's owner keeps of the sweep.
#[derive(Clone, Copy, Default)]
struct Sweeping {
    cursor: u64,
    first_offset: i64,
    restore_point: i64,
}

struct History {
    plant: Plant,
    random: Random,
    log: Log,
    state: State,
    checkpoint: u64,
    sweep: Sweeping,
    /// The local store's directory.
    local: MemoryStores,
    restores: u64,
    deltas: DeltaWriter,
    chunks: ChunkWriter,
}

impl History {
    fn new(seed: u64, plant: Plant) -> History {
        let mut random = Random(seed);
        let part_bytes_max = [0, 40, 100, 1 << 20][random.below(4) as usize];
        History {
            plant,
            random,
            log: Log::default(),
            state: State::new(),
            checkpoint: 0,
            sweep: Sweeping::default(),
            local: MemoryStores::new(),
            restores: 0,
            deltas: DeltaWriter::new(part_bytes_max),
            chunks: ChunkWriter::new(part_bytes_max),
        }
    }

    fn run(&mut self) -> Result<(), String> {
        for _ in 0..20 + self.random.below(100) {
            self.commit();
            if self.random.percent(25) {
                self.flush()?;
            }
            if self.random.percent(30) {
                self.cut()?;
            }
            if self.random.percent(10) {
                // The broker crashed; its segments may reach below what was cut.
                let lost = (self.log.start - self.log.persisted_start) as u64;
                self.log.start -= self.random.below(lost + 1) as i64;
            }
            if self.random.percent(25) {
                self.restore_on_an_empty_disk()?;
            }
            if self.random.percent(20) {
                self.crash()?;
            }
        }
        Ok(())
    }

    /// One checkpoint: a delta, perhaps a chunk; perhaps aborted.
    fn commit(&mut self) {
        let (mut new, mut ranges, mut points) = (self.state.clone(), vec![], BTreeMap::new());
        let checkpoint = self.checkpoint + 1;
        for _ in 0..self.random.below(6) {
            if self.random.percent(20) {
                let a = self.random.below(KEYS);
                let (from, to) = (key(a), key(KEYS.min(a + 1 + self.random.below(9))));
                new.retain(|key, _| !(&from..&to).contains(&key));
                points.retain(|key, _| !(&from..&to).contains(&key));
                ranges.push((from, to));
            } else {
                let key = key(self.random.below(KEYS));
                let value = format!("{checkpoint} {}", self.random.below(1000)).into_bytes();
                let value = (!self.random.percent(20)).then_some(value);
                match &value {
                    Some(value) => new.insert(key.clone(), value.clone()),
                    None => new.remove(&key),
                };
                points.insert(key, value);
            }
        }
        let mut sweep = self.sweep;
        let chunk = self.chunk(checkpoint, &new, &mut sweep);
        let lost_range = usize::from(self.plant == Plant::RangeLost);
        ranges.iter().skip(lost_range).for_each(|(from, to)| self.deltas.delete_range(from, to));
        for (key, value) in &points {
            match value {
                Some(value) => self.deltas.put(key, value),
                None => self.deltas.delete(key),
            }
        }
        let cursor = if sweep.cursor == 0 { vec![] } else { key(sweep.cursor) };
        let mut records = self.deltas.finish(&Header {
            checkpoint,
            sweep: Some(Sweep { cursor, first_offset: sweep.first_offset }),
            restore_point: sweep.restore_point,
            ..Header::default()
        });
        records.extend(chunk);
        if self.random.percent(15) {
            let aborted = records.len() + 1;
            self.log.records.extend(std::iter::repeat_n(None, aborted));
            return;
        }
        let this_checkpoint = self.log.end();
        for offset in [&mut sweep.first_offset, &mut sweep.restore_point] {
            if *offset == THIS_CHECKPOINT {
                *offset = this_checkpoint;
            }
        }
        self.log.records.extend(records.into_iter().map(Some).chain([None]));
        (self.state, self.sweep, self.checkpoint) = (new, sweep, checkpoint);
    }

    fn chunk(&mut self, checkpoint: u64, new: &State, sweep: &mut Sweeping) -> Vec<Vec<u8>> {
        if !self.random.percent(80) {
            return vec![];
        }
        let end = KEYS.min(sweep.cursor + 1 + self.random.below(11));
        if sweep.cursor == 0 {
            sweep.first_offset = THIS_CHECKPOINT;
        }
        let content = if self.plant == Plant::ChunkBeforeDelta { &self.state } else { new };
        let (from, to) =
            if sweep.cursor == 0 { (START.to_vec(), key(end)) } else { (key(sweep.cursor), key(end)) };
        content.range(from.clone()..to.clone()).for_each(|(key, value)| self.chunks.put(key, value));
        sweep.cursor = end % KEYS;
        if sweep.cursor == 0 || self.plant == Plant::RestorePointEarly {
            sweep.restore_point = sweep.first_offset;
        }
        self.chunks.finish(checkpoint, &from, &to)
    }

    /// The local store, planted errors and all.
    fn open(&self, stores: &MemoryStores) -> Arc<dyn Store> {
        Arc::new(Planted(stores.open("task").unwrap(), self.plant))
    }

    fn applier(&mut self, store: &Arc<dyn Store>) -> Result<Applier, String> {
        let buffer_bytes_max = [0, 200, 1 << 20][self.random.below(3) as usize];
        Applier::new(store.clone(), TOPIC, self.log.start, buffer_bytes_max)
            .map_err(|error| error.to_string())
    }

    /// Brings a store to the log's end, or only some of the way.
    fn apply(&mut self, store: &Arc<dyn Store>, all: bool) -> Result<(), String> {
        let mut applier = self.applier(store)?;
        let from = applier.from();
        let records_max = if all { usize::MAX } else { self.random.below(30) as usize };
        for (offset, record) in self.log.committed(from).take(records_max) {
            applier.push(offset, record).map_err(|error| error.to_string())?;
        }
        if !all {
            return Ok(());
        }
        applier.finish(self.log.end()).map(|_| ()).map_err(|error| error.to_string())
    }

    /// The local store follows the log; it may die on the way, or die before it syncs.
    fn flush(&mut self) -> Result<(), String> {
        let store = self.open(&self.local.clone());
        let all = self.random.percent(80);
        self.apply(&store, all)?;
        if self.random.percent(50) {
            store.sync().unwrap();
        }
        Ok(())
    }

    fn cut(&mut self) -> Result<(), String> {
        let store = self.open(&self.local.clone());
        if self.plant != Plant::CutUnsynced {
            store.sync().unwrap();
        }
        let mut cut =
            if self.plant == Plant::CutAtSweep { self.sweep.first_offset } else { self.sweep.restore_point };
        if self.plant != Plant::CutAboveStore {
            cut = cut.min(store.position().unwrap().map_or(0, |position| position.next_offset));
        }
        self.log.start = self.log.start.max(cut);
        if self.random.percent(30) {
            self.log.persisted_start = self.log.start;
        }
        Ok(())
    }

    /// A new owner without a store takes the task over; the restore may be interrupted by crashes.
    fn restore_on_an_empty_disk(&mut self) -> Result<(), String> {
        if self.checkpoint == 0 {
            return Ok(());
        }
        let stores = MemoryStores::new();
        while self.random.percent(30) {
            self.apply(&self.open(&stores), false)?;
            stores.crash_keeping(self.random.below(4) as usize);
        }
        let store = self.open(&stores);
        self.apply(&store, true)?;
        self.compare("a restore on an empty disk", &*store)?;
        // The new owner goes on with the sweep from the header.
        let header = store.position().unwrap().and_then(|position| position.header).unwrap_or_default();
        let sweep = header.sweep.unwrap_or_default();
        self.sweep = Sweeping {
            cursor: (0..KEYS).find(|k| key(*k) == sweep.cursor).unwrap_or(0),
            first_offset: sweep.first_offset,
            restore_point: header.restore_point,
        };
        Ok(())
    }

    /// The machine crashes: the local store falls back, at most to what was synced, and follows again.
    fn crash(&mut self) -> Result<(), String> {
        let writes_kept = self.random.below(4) as usize;
        self.local.crash_keeping(writes_kept);
        let store = self.open(&self.local.clone());
        let position = store.position().unwrap();
        match start(position.as_ref(), TOPIC, self.log.start, self.log.end()) {
            Start::Useless(why) => return Err(format!("a mere crash wipes the store: {why}")),
            Start::Fill(_) | Start::Continue(_) => self.apply(&store, true)?,
        }
        self.compare("a restart", &*store)
    }

    fn compare(&mut self, what: &str, store: &dyn Store) -> Result<(), String> {
        self.restores += 1;
        let entries = store.scan(START, END).unwrap().map(|entry| entry.unwrap());
        let found: State = entries.map(|(key, value)| (key.into_vec(), value.into_vec())).collect();
        let position = store.position().unwrap();
        let header = position.as_ref().and_then(|position| position.header.as_ref());
        let checkpoint = header.map_or(0, |header| header.checkpoint);
        if position.is_none_or(|position| position.restoring) {
            return Err(format!("after {what} the store is not whole"));
        }
        if (checkpoint, &found) != (self.checkpoint, &self.state) {
            return Err(format!("after {what} the store differs from checkpoint {}", self.checkpoint));
        }
        Ok(())
    }
}

/// Runs histories until one goes wrong; the restores compared, and what went wrong.
fn histories(count: u64, plant: Plant) -> (u64, Option<String>) {
    let mut restores = 0;
    for seed in 0..count {
        let mut history = History::new(seed, plant);
        let result = history.run();
        restores += history.restores;
        if let Err(error) = result {
            return (restores, Some(format!("seed {seed}: {error}")));
        }
    }
    (restores, None)
}

#[test]
fn every_restore_gives_the_committed_state() {
    let (restores, error) = histories(1000, Plant::None);
    assert_eq!(error, None, "after {restores} restores");
    assert!(restores > 10_000, "the histories restore: {restores}");
}

#[test]
fn planted_errors_are_noticed() {
    for (plant, expected) in [
        (Plant::CutAtSweep, "the state cannot be restored"),
        (Plant::RestorePointEarly, "after a restore on an empty disk the store differs"),
        (Plant::ChunkBeforeDelta, "after a restore on an empty disk the store differs"),
        (Plant::RangesAfterPoints, "the store differs"),
        (Plant::CutUnsynced, "a mere crash wipes the store"),
        (Plant::CutAboveStore, "a mere crash wipes the store"),
        (Plant::PositionAhead, "the store differs"),
        (Plant::RangeLost, "the store differs"),
    ] {
        let (_, error) = histories(1000, plant);
        let error = error.unwrap_or_else(|| panic!("{plant:?} was not noticed"));
        assert!(error.contains(expected), "{plant:?} was noticed otherwise: {error}");
    }
}
