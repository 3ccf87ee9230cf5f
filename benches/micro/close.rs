//! Windows that close.

use std::ops::ControlFlow;

use bumpalo::Bump;
use criterion::Criterion;
use thalweg::operator::{Pipeline, Progress, Staged};
use thalweg::record::Records;
use thalweg::state::store::StoreError;

use crate::input::{Batch, KEYS, pipeline, pipeline_of};
use crate::measure::{per_element, rounds};
use crate::table::Changelog;

/// One operation is a row of a window of 100,000 keys that closes, all in memory.
///
/// - `visit`: the table alone sorts and visits its entries and removes them.
/// - `rows`: a record makes the watermark pass; rows are made, encoded, given a key and a partition, and staged.
/// - `sliding`: the same of a window of an hour of which one begins every minute, with 1,000 keys that have an entry in
///   each of its sixty panes.
pub fn benchmarks(criterion: &mut Criterion) {
    visit(criterion);
    rows(criterion);
    sliding(criterion);
}

fn visit(criterion: &mut Criterion) {
    let mut state = None;
    rounds(criterion, "close").bench_function("visit", |bencher| {
        let state: &mut Changelog = state.get_or_insert_with(Changelog::new);
        per_element(
            bencher,
            state,
            KEYS,
            |state| {
                state.table.remove_first();
                state.change(KEYS);
            },
            |state, ()| {
                let mut rows = 0;
                let ends = i64::MIN..=i64::MAX;
                let visited = state.table.visit::<StoreError>(ends, &[], &mut |_, _, _| {
                    rows += 1;
                    Ok(ControlFlow::Continue(()))
                });
                assert!(visited.is_ok());
                state.table.remove_first();
                rows
            },
            |state, rows| assert_eq!((rows, state.table.first_end_ms()), (KEYS, None)),
        );
    });
}

fn rows(criterion: &mut Criterion) {
    let mut batch = None;
    rounds(criterion, "close").bench_function("rows", |bencher| {
        let batch: &mut Batch = batch.get_or_insert_with(Batch::one_order_each);
        per_element(
            bencher,
            batch,
            KEYS,
            |batch| {
                let (mut pipeline, mut staged) = (pipeline(), Staged::new(usize::MAX, usize::MAX));
                let mut arena = Bump::new();
                for place in 0..KEYS {
                    arena.reset();
                    let progress =
                        pipeline.process(batch.record(place), &arena, &mut staged).expect("an order");
                    assert_eq!(progress, Progress::Done);
                }
                (pipeline, staged, arena)
            },
            |batch, (mut pipeline, mut staged, mut arena)| {
                let mut progress = pipeline.process(batch.record(KEYS), &arena, &mut staged);
                while progress.expect("rows that can be made") == Progress::Full {
                    arena.reset();
                    progress = pipeline.resume(&arena, &mut staged);
                }
                (pipeline, staged, arena)
            },
            |_, (_, staged, _)| assert_eq!(staged.outputs.len(), KEYS),
        );
    });
}

/// The customers of the sliding window.
const FEW: usize = 1_000;
/// The minutes in it.
const MINUTES: usize = 60;

fn sliding(criterion: &mut Criterion) {
    let mut batch = None;
    rounds(criterion, "close").bench_function("sliding", |bencher| {
        let batch: &mut Batch = batch.get_or_insert_with(|| Batch::every_minute(FEW, MINUTES));
        per_element(
            bencher,
            batch,
            FEW,
            |batch| {
                let mut pipeline = pipeline_of("{ type: sliding, size: 1h, slide: 1m }");
                let (mut staged, mut arena) = (Staged::new(usize::MAX, usize::MAX), Bump::new());
                for place in 0..MINUTES * FEW {
                    let mut progress = pipeline.process(batch.record(place), &arena, &mut staged);
                    while progress.expect("rows that can be made") == Progress::Full {
                        arena.reset();
                        progress = pipeline.resume(&arena, &mut staged);
                    }
                    arena.reset();
                }
                staged.take();
                (pipeline, staged, arena)
            },
            |batch, (mut pipeline, mut staged, mut arena)| {
                let mut progress = pipeline.process(batch.record(MINUTES * FEW), &arena, &mut staged);
                while progress.expect("rows that can be made") == Progress::Full {
                    arena.reset();
                    progress = pipeline.resume(&arena, &mut staged);
                }
                (pipeline, staged, arena)
            },
            |_, (_, staged, _)| assert_eq!(staged.outputs.len(), FEW),
        );
    });
}

/// Ends the stream, so that all windows close. Returns the rows that are staged then.
pub fn finish(pipeline: &mut dyn Pipeline, arena: &mut Bump, staged: &mut Staged) -> usize {
    while pipeline.finish(arena, staged).expect("rows that can be made") == Progress::Full {
        arena.reset();
    }
    staged.outputs.len()
}
