//! What a checkpoint writes to the changelog.

use criterion::Criterion;
use thalweg::state::codec::read_record;

use crate::input::{KEYS, state_key};
use crate::measure::{per_element, rounds};
use crate::table::{Changelog, add};

/// The deltas' numbers of entries.
const CHANGED: [usize; 2] = [1_000, 50_000];
/// About what the chunk beside a delta of 5,000 entries has.
const CHUNK_BYTES: usize = 64 << 10;

pub fn benchmarks(criterion: &mut Criterion) {
    for changed in CHANGED {
        delta(criterion, changed);
    }
    sweep(criterion);
    grown(criterion);
}

/// One operation is a changed entry of a delta: sorted, encoded and compressed. 1,000 or 50,000 entries of a window
/// of 100,000 have changed.
fn delta(criterion: &mut Criterion, changed: usize) {
    let mut state = None;
    rounds(criterion, "delta").bench_function(changed.to_string(), |bencher| {
        let state = state.get_or_insert_with(committed);
        per_element(
            bencher,
            state,
            changed,
            |state| state.change(changed),
            |state, ()| state.delta(0),
            |_, records| assert_eq!(points(&records), changed),
        );
    });
}

/// One operation is an entry of a chunk: encoded and compressed. The whole window of 100,000 is swept, in chunks of
/// 64 KiB, and is in order already.
fn sweep(criterion: &mut Criterion) {
    let mut state = None;
    rounds(criterion, "chunk").bench_function("sweep", |bencher| {
        let state = state.get_or_insert_with(committed);
        per_element(
            bencher,
            state,
            KEYS,
            |_| (),
            |state, ()| {
                let mut records = Vec::new();
                let mut from = Some(state.table.key_range().0);
                while let Some(key) = from {
                    let (chunk, next) = state.chunk(&key, CHUNK_BYTES);
                    records.extend(chunk);
                    from = next;
                }
                records
            },
            |_, records| assert_eq!(points(&records), KEYS),
        );
    });
}

/// One operation is a chunk of 64 KiB (some 1,500 entries) of a window of 100,000 that has got another entry since
/// the last one, behind all others, which is put into its place.
fn grown(criterion: &mut Criterion) {
    let (mut state, mut customers) = (None, KEYS..);
    rounds(criterion, "chunk").bench_function("grown", |bencher| {
        let state = state.get_or_insert_with(committed);
        per_element(
            bencher,
            state,
            1,
            |state| {
                let customer = format!("customer-{:06}", customers.next().unwrap_or_default());
                add(&mut state.table, &state_key(&customer), 1_234);
                assert_eq!(points(&state.delta(0)), 1);
                state.table.key_range().0
            },
            |state, from| state.chunk(&from, CHUNK_BYTES).0,
            |_, records| assert!((1_000..3_000).contains(&points(&records)), "{}", points(&records)),
        );
    });
}

/// A changelog whose first checkpoint has all entries.
pub fn committed() -> Changelog {
    let mut changelog = Changelog::new();
    assert_eq!(points(&changelog.delta(0)), KEYS);
    changelog
}

/// How many entries records have.
pub fn points(records: &[Vec<u8>]) -> usize {
    records.iter().map(|record| read_record(record).expect("a changelog record").size().points).sum()
}
