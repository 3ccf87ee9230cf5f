//! The table against a sorted map: whatever is updated, collected, flushed, evicted, closed and restored
//! in whatever order.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::apply::Applier;
use super::super::codec::read_record;
use super::super::header::Header;
use super::super::key::{END, START};
use super::super::memory::MemoryStores;
use super::super::store::{Entry as StoreEntry, StoreFactory, StorePosition, StoreWrites};
use super::*;
use crate::random::Random;

/// Values are bytes; a change appends one.
struct Bytes;

impl ValueCodec for Bytes {
    type Value = Vec<u8>;

    fn encode(&self, value: &Vec<u8>, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(value);
    }

    fn decode(&self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        if bytes == b"damaged" { Err("it is damaged".into()) } else { Ok(bytes.to_vec()) }
    }

    fn heap_bytes(&self, value: &Vec<u8>) -> usize {
        value.len()
    }
}

type Reference = BTreeMap<(i64, Vec<u8>), Vec<u8>>;

const TOPIC: [u8; 16] = [3; 16];

/// A table, its store and the log between them, and what they should hold.
struct Rig {
    store: Arc<dyn Store>,
    table: WindowTable<Bytes>,
    checkpoint: u64,
    log: Vec<Vec<u8>>,
    /// With every change.
    now: Reference,
    /// As of the last checkpoint.
    committed: Reference,
}

impl Rig {
    fn new() -> Rig {
        let store = MemoryStores::new().open("task").unwrap();
        let mut table = WindowTable::new("op", Bytes);
        table.restore(store.clone(), 0).unwrap();
        let (now, committed) = (Reference::new(), Reference::new());
        Rig { store, table, checkpoint: 0, log: Vec::new(), now, committed }
    }

    fn update(&mut self, end_ms: i64, key: &[u8], byte: u8) {
        for (end_ms, key) in [(end_ms, key), (end_ms, b"never written"), (i64::MAX, key)] {
            self.table.prefetch_later(end_ms, key);
        }
        self.table.prefetch();
        let entry = self.table.entry(end_ms, key, |_| Vec::new()).unwrap();
        let expected = self.now.entry((end_ms, key.to_vec())).or_default();
        assert_eq!(self.table.value(entry), expected, "what {key:?} of {end_ms} was before");
        let (_, value) = self.table.value_mut(entry);
        let before = value.len();
        value.push(byte);
        self.table.heap_changed(entry, before);
        expected.push(byte);
    }

    /// Begins an update that fails.
    fn fail(&mut self, end_ms: i64, key: &[u8]) {
        let entry = self.table.entry(end_ms, key, |_| b"new".to_vec()).unwrap();
        self.table.take_back(entry);
    }

    /// Takes a checkpoint; returns its ranges and points.
    fn collect(&mut self) -> (usize, usize) {
        self.checkpoint += 1;
        let mut delta = DeltaWriter::new(1 << 20);
        self.table.collect_ranges(&mut delta);
        self.table.collect_points(self.checkpoint, &mut delta);
        let records = delta.finish(&Header { checkpoint: self.checkpoint, ..Header::default() });
        assert_eq!(records.len(), 1);
        self.committed = self.now.clone();
        let record = read_record(&records[0]).unwrap();
        let (ranges, count) = (record.ranges().count(), record.size().points);
        self.log.extend(records);
        (ranges, count)
    }

    /// Brings the store to the end of the log.
    fn apply(&mut self) {
        let mut applier = Applier::new(self.store.clone(), TOPIC, 0, usize::MAX).unwrap();
        for offset in applier.from()..self.log.len() as i64 {
            applier.push(offset, &self.log[offset as usize]).unwrap();
        }
        applier.finish(self.log.len() as i64).unwrap();
        assert_eq!(self.stored(), self.committed);
    }

    fn flush(&mut self) {
        self.apply();
        self.table.flushed(self.checkpoint);
    }

    /// The process dies and another goes on.
    fn restore(&mut self) {
        self.apply();
        self.table = WindowTable::new("op", Bytes);
        self.table.restore(self.store.clone(), self.checkpoint).unwrap();
        self.now = self.committed.clone();
    }

    fn close_first(&mut self) {
        if let Some(end_ms) = self.table.first_end_ms() {
            self.table.remove_first();
            self.now.retain(|(end, _), _| *end != end_ms);
        }
    }

    fn stored(&self) -> Reference {
        self.store.scan(START, END).unwrap().map(|entry| parts(&entry.unwrap())).collect()
    }

    /// The keys of some windows with their values, visited anew after every `step` keys.
    fn visited(&mut self, ends: RangeInclusive<i64>, step: usize) -> Vec<(Vec<u8>, Vec<Vec<u8>>)> {
        let mut seen: Vec<(Vec<u8>, Vec<Vec<u8>>)> = Vec::new();
        loop {
            let from = seen.last().map(|(key, _)| [&key[..], &[0]].concat()).unwrap_or_default();
            let mut left = step;
            let flow = self.table.visit::<StoreError>(ends.clone(), &from, &mut |_, key, values| {
                seen.push((key.to_vec(), values.iter().map(|value| value.to_vec()).collect()));
                left -= 1;
                Ok(if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            });
            if flow.unwrap().is_continue() {
                return seen;
            }
        }
    }

    fn check_windows(&mut self, ends: RangeInclusive<i64>, step: usize) {
        let mut expected: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
        for ((_, key), value) in self.now.iter().filter(|((end, _), _)| ends.contains(end)) {
            expected.entry(key.clone()).or_default().push(value.clone());
        }
        let expected: Vec<_> = expected.into_iter().collect();
        assert_eq!(self.visited(ends.clone(), step), expected);
        for place in self.table.places(&ends) {
            let end_ms = self.table.windows[place].end_ms;
            let window = self.now.iter().filter(|((end, _), _)| *end == end_ms);
            let window: Vec<_> = window.map(|((_, key), value)| (key.clone(), value.clone())).collect();
            for block_entries in [1, 2, 3] {
                let mut cursor = self.table.cursor(place, &[], block_entries).unwrap();
                let mut walked = Vec::new();
                while let Some((key, value)) = cursor.entry() {
                    walked.push((key.to_vec(), value.clone()));
                    cursor.advance().unwrap();
                }
                assert_eq!(walked, window, "in blocks of {block_entries}");
            }
        }
        for (key, values) in expected.iter().chain([&(b"never written".to_vec(), Vec::new())]) {
            let mut found = Vec::new();
            let mut last_ms = None;
            let visit = |end_ms: i64, value: &Vec<u8>| {
                assert!(last_ms.replace(end_ms).is_none_or(|last_ms| last_ms < end_ms));
                assert_eq!(self.now[&(end_ms, key.clone())], *value);
                found.push(value.clone());
                ControlFlow::Continue(())
            };
            self.table.visit_key(ends.clone(), key, visit).unwrap();
            assert_eq!(&found, values, "the values of {key:?}");
        }
    }

    fn check_first(&mut self, step: usize) {
        let first = self.now.keys().next().map(|(end, _)| *end);
        match self.table.first_end_ms() {
            Some(end_ms) => {
                assert!(first.is_none_or(|first| first >= end_ms), "{first:?} comes before {end_ms}");
                self.check_windows(end_ms..=end_ms, step);
            }
            None => assert_eq!(first, None),
        }
    }

    /// A sweep in chunks of `bytes_max`, right after a checkpoint: every entry, once, in order.
    fn check_sweep(&mut self, bytes_max: usize) {
        let (mut from, mut swept) = (START.to_vec(), Vec::new());
        loop {
            let mut put = 0;
            let next = self
                .table
                .chunk(&from, bytes_max, &mut |key, value| {
                    assert!(key >= from.as_slice(), "{key:?} before {from:?}");
                    put += key.len() + value.len();
                    swept.push(parts(&(key.into(), value.into())));
                })
                .unwrap();
            let Some(next) = next else { break };
            assert!(put >= bytes_max.max(1), "a chunk that is not the last is full");
            assert!(next > from);
            from = next;
        }
        let expected: Vec<_> = self.committed.clone().into_iter().collect();
        assert_eq!(swept, expected);
    }

    fn check_memory(&self) {
        let memory = self.table.memory();
        assert!(memory.pinned <= memory.total, "{memory:?}");
        for window in &self.table.windows {
            assert_eq!(window.index.len(), window.entries.len());
            let heap: usize = window.entries.iter().map(|entry| entry.value.len()).sum();
            assert_eq!(window.heap_bytes, heap, "heap bytes of window {}", window.end_ms);
            let pinned = window.entries.iter().filter(|entry| entry.changed_at > self.table.flushed).count();
            assert_eq!(window.pinned, pinned, "pinned entries of window {}", window.end_ms);
        }
    }
}

fn parts((key, value): &StoreEntry) -> ((i64, Vec<u8>), Vec<u8>) {
    let split = key::split(key).unwrap();
    assert_eq!(split.operator_id, "op");
    ((split.window_end_ms, split.key.to_vec()), value.to_vec())
}

#[derive(Clone, Debug)]
enum Step {
    Update(i64, Vec<u8>, u8),
    Fail(i64, Vec<u8>),
    Collect,
    Flush,
    Evict(usize),
    Close,
    Restore,
    Sweep(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let end = prop_oneof![8 => -2..4_i64, 1 => Just(i64::MIN + 1), 1 => Just(i64::MAX)];
    let key = prop_oneof![4 => vec(0..3_u8, 0..3), 1 => vec(prop_oneof![Just(0), Just(255_u8)], 0..12)];
    prop_oneof![
        2 => (end.clone(), key.clone()).prop_map(|(end, key)| Step::Fail(end, key)),
        12 => (end, key, any::<u8>()).prop_map(|(end, key, byte)| Step::Update(end, key, byte)),
        3 => Just(Step::Collect),
        2 => Just(Step::Flush),
        2 => (0..2_000_usize).prop_map(Step::Evict),
        2 => Just(Step::Close),
        1 => Just(Step::Restore),
        2 => (0..200_usize).prop_map(Step::Sweep),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn any_history_gives_the_reference(steps in vec(step(), 1..80), stride in 1..5_usize) {
        let mut rig = Rig::new();
        for step in steps {
            match step {
                Step::Update(end_ms, key, byte) => rig.update(end_ms, &key, byte),
                Step::Fail(end_ms, key) => rig.fail(end_ms, &key),
                Step::Collect => {
                    rig.collect();
                }
                Step::Flush => rig.flush(),
                Step::Evict(bytes) => rig.table.evict(bytes),
                Step::Close => rig.close_first(),
                Step::Restore => rig.restore(),
                Step::Sweep(bytes_max) => {
                    rig.collect();
                    rig.check_sweep(bytes_max);
                }
            }
            rig.check_first(stride);
            rig.check_windows(-1..=2, stride);
            rig.check_memory();
        }
        rig.collect();
        rig.check_sweep(1);
        rig.flush();
        prop_assert_eq!(rig.table.memory().pinned, 0);
        rig.restore();
        rig.check_first(stride);
        rig.check_sweep(usize::MAX);
    }
}

#[test]
fn entries_that_were_added_since_the_last_sort_find_their_places() {
    let hasher = RandomState::with_seeds(1, 2, 3, 4);
    let mut random = Random::new(7);
    let mut window = Window::new(0, true);
    let mut keys = Vec::new();
    for added in [1, 40, 1, 2, 5, 3, 1, 60, 7, 1, 1, 9] {
        for _ in 0..added {
            // Many share all that is compared first.
            let key = format!("key-{}-{}", "x".repeat(random.below(3) as usize * 9), random.below(1_000_000));
            let hash = hasher.hash_one(key.as_bytes());
            window.insert(hash, Entry::new(key.as_bytes(), ()), 0, &hasher);
            keys.push(key.into_bytes());
        }
        window.sort();
        keys.sort();
        let sorted: Vec<&[u8]> = window.order.iter().map(|index| window.key_at(*index)).collect();
        assert_eq!(sorted, keys);
    }
}

#[test]
fn evicted_entries_are_read_back_on_a_miss() {
    let mut rig = Rig::new();
    rig.update(10, b"a", 1);
    rig.update(10, b"b", 2);
    rig.collect();
    rig.flush();
    rig.table.evict(usize::MAX / 2);
    assert_eq!(rig.table.memory(), MemoryUse::default());
    rig.update(10, b"a", 3);
    assert_eq!(rig.now[&(10, b"a".to_vec())], [1, 3]);
    rig.check_first(1);
}

#[test]
fn only_the_longest_unchanged_is_evicted() {
    let mut rig = Rig::new();
    for key in [b"a", b"b"] {
        rig.update(10, key, 1);
        rig.collect();
    }
    rig.flush();
    let one = rig.table.memory().total / 2;
    rig.table.evict(one - 1);
    assert_eq!(rig.table.memory().total, one);
    let left = rig.table.windows[0].entries.first().map(|entry| &entry.key[..]);
    assert_eq!(left, Some(&b"b"[..]));
}

#[test]
fn what_the_store_does_not_hold_is_pinned_and_stays() {
    let mut rig = Rig::new();
    rig.update(10, b"a", 1);
    rig.collect();
    rig.update(10, b"b", 1);
    let MemoryUse { total, pinned, .. } = rig.table.memory();
    assert_eq!(total, pinned);
    rig.table.evict(usize::MAX / 2);
    assert_eq!(rig.table.memory().total, total, "nothing can be evicted yet");
    rig.flush();
    assert!(rig.table.memory().pinned < pinned, "a is in the store");
    assert_eq!(rig.table.memory().total, total);
    rig.table.evict(usize::MAX / 2);
    let MemoryUse { total: now, pinned, .. } = rig.table.memory();
    assert_eq!((now, pinned), (total / 2, total / 2));
}

#[test]
fn a_window_opened_and_closed_between_two_checkpoints_writes_nothing() {
    let mut rig = Rig::new();
    rig.update(10, b"a", 1);
    rig.close_first();
    assert_eq!(rig.collect(), (0, 0));
    rig.table.evict(usize::MAX);
    assert_eq!(rig.table.memory(), MemoryUse::default());
}

#[test]
fn the_buffers_of_a_closed_window_serve_the_next_and_are_the_first_to_go() {
    let mut rig = Rig::new();
    (0..50).for_each(|key| rig.update(10, &[key], 1));
    rig.collect();
    rig.flush();
    rig.close_first();
    let kept = rig.table.memory();
    assert!(kept.total > 50 && kept.pinned == 0, "{kept:?}");

    rig.update(20, b"a", 1);
    assert!(rig.table.memory().total < kept.total, "they are the new window's");
    assert_eq!(rig.collect(), (1, 1), "and nothing of the old one is in it");
    rig.flush();
    rig.update(30, b"b", 1);
    rig.close_first();
    rig.table.evict(1);
    assert_eq!(rig.table.memory().total, rig.table.memory().pinned, "only the spare one went");
}

#[test]
fn the_buffers_of_a_large_window_are_not_kept_for_small_ones() {
    let mut rig = Rig::new();
    (0..1_000u16).for_each(|key| rig.update(10, &key.to_be_bytes(), 1));
    rig.close_first();
    let large = rig.table.memory().total;
    rig.update(20, b"a", 1);
    rig.close_first();
    assert!(large > 0 && rig.table.memory().total == 0, "a window of one entry made bad use of them");
}

#[test]
fn a_closed_window_is_one_range_whatever_it_held() {
    let mut rig = Rig::new();
    (0..50).for_each(|key| rig.update(10, &[key], 1));
    rig.update(20, b"a", 1);
    assert_eq!(rig.collect(), (0, 51));
    rig.update(10, b"changed before it closes", 1);
    rig.close_first();
    assert_eq!(rig.collect(), (1, 0));
    assert_eq!(rig.collect(), (0, 0), "once");
    rig.flush();
    assert_eq!(rig.stored().len(), 1);
}

#[test]
fn a_window_restored_from_the_store_closes_with_a_range() {
    let mut rig = Rig::new();
    rig.update(10, b"a", 1);
    rig.collect();
    rig.restore();
    assert_eq!(rig.table.first_end_ms(), Some(10));
    rig.close_first();
    assert_eq!(rig.collect(), (1, 0));
    rig.flush();
    assert!(rig.stored().is_empty());
}

#[test]
fn only_changed_entries_are_collected_once_each() {
    let mut rig = Rig::new();
    rig.update(10, b"a", 1);
    rig.update(10, b"a", 2);
    rig.update(20, b"b", 1);
    assert_eq!(rig.collect(), (0, 2));
    assert_eq!(rig.collect(), (0, 0));
    rig.update(10, b"a", 3);
    assert_eq!(rig.collect(), (0, 1));
}

/// A store that must not be read.
struct Unread;

impl Store for Unread {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        panic!("asked for {key:?}");
    }
    fn scan<'s>(
        &'s self,
        from: &[u8],
        to: &[u8],
    ) -> Result<Box<dyn Iterator<Item = Result<StoreEntry, StoreError>> + 's>, StoreError> {
        assert_eq!(
            (from.to_vec(), to.to_vec()),
            WindowTable::new("op", Bytes).key_range(),
            "but for a restore"
        );
        Ok(Box::new(std::iter::empty()))
    }
    fn position(&self) -> Result<Option<StorePosition>, StoreError> {
        Ok(None)
    }
    fn write(&self, _: &StoreWrites, _: &StorePosition) -> Result<(), StoreError> {
        Ok(())
    }
    fn sync(&self) -> Result<(), StoreError> {
        Ok(())
    }
    fn bytes(&self) -> u64 {
        0
    }
}

#[test]
fn a_window_that_is_all_in_memory_does_not_ask_the_store() {
    let mut rig = Rig::new();
    rig.table.restore(Arc::new(Unread), 0).unwrap();
    rig.update(10, b"a", 1);
    rig.update(10, b"b", 1);
    rig.collect();
    rig.check_sweep(usize::MAX);
    rig.check_first(1);
}

#[test]
fn a_value_that_cannot_be_read_is_a_corrupt_store() {
    let mut rig = Rig::new();
    b"damaged".iter().for_each(|byte| rig.update(10, b"a", *byte));
    rig.collect();
    rig.restore();
    let error = rig.table.entry(10, b"a", |_| Vec::new()).unwrap_err();
    assert!(matches!(&error, StoreError::Corrupt(message) if message.contains("it is damaged")), "{error}");
}

#[test]
fn windows_that_close_together_are_one_range_that_spares_the_others() {
    let mut rig = Rig::new();
    for end_ms in [10, 20, 40, 50] {
        (0..3).for_each(|key| rig.update(end_ms, &[key], 1));
    }
    assert_eq!(rig.collect(), (0, 12));
    rig.flush();
    // Opened after the last checkpoint: nothing of it is in the log.
    rig.update(30, b"a", 1);
    rig.update(40, b"changed before it closes", 1);
    for end_ms in [10, 20, 30, 40] {
        assert_eq!(rig.table.first_end_ms(), Some(end_ms));
        rig.close_first();
    }
    rig.update(50, b"b", 1);
    rig.update(60, b"b", 1);
    assert_eq!(rig.collect(), (1, 2), "one range from 10 to 40, and what changed behind it");
    rig.flush();
    let ends: Vec<i64> = rig.stored().into_keys().map(|(end_ms, _)| end_ms).collect();
    assert_eq!(ends, [50, 50, 50, 50, 60]);
    rig.close_first();
    assert_eq!(rig.collect(), (1, 0), "what was closed before is not deleted again");
    rig.flush();
    assert_eq!(rig.stored().len(), 1);
}
