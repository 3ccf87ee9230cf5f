//! What happens to a record between two checkpoints.

use std::time::Instant;

use bumpalo::Bump;
use criterion::Criterion;
use thalweg::operator::{Pipeline, Progress, Staged};
use thalweg::record::Records;

use crate::close::finish;
use crate::input::{Batch, KEYS, pipeline, pipeline_of};

/// How many records a task hands over at once.
const RUN_RECORDS: usize = 16;

/// One operation takes an order through source and window: decodes it, notes its time, takes its key and updates its
/// entry; sixteen are handed over at once. 100,000 customers in random order, within a minute; no commit.
///
/// - `window`: tumbling windows of a minute.
/// - `sliding`: windows of an hour, one every minute, so that an order belongs to sixty.
/// - `calendar`: days in Berlin.
/// - `session`: sessions that end after a minute without an order.
pub fn benchmarks(criterion: &mut Criterion) {
    record(criterion, "record/window", pipeline, true);
    record(criterion, "record/sliding", || pipeline_of("{ type: sliding, size: 1h, slide: 1m }"), false);
    let days = "{ type: calendar, unit: day, time_zone: Europe/Berlin }";
    record(criterion, "record/calendar", || pipeline_of(days), true);
    record(criterion, "record/session", || pipeline_of("{ type: session, gap: 1m }"), true);
}

/// With `rows` the rows at the end are counted: one for each customer that had an order.
fn record(criterion: &mut Criterion, name: &str, make: impl Fn() -> Box<dyn Pipeline>, rows: bool) {
    let mut state = None;
    criterion.bench_function(name, |bencher| {
        let (pipeline, staged, arena, batch) = state.get_or_insert_with(|| {
            (make(), Staged::new(usize::MAX, usize::MAX), Bump::new(), Batch::one_order_each())
        });
        // Without the one that closes the window.
        let mut places = (0..KEYS).cycle();
        bencher.iter_custom(|records| {
            let began = Instant::now();
            let mut left = usize::try_from(records).expect("a number of records");
            while left > 0 {
                arena.reset();
                let run: Vec<_> =
                    places.by_ref().take(left.min(RUN_RECORDS)).map(|place| batch.record(place)).collect();
                let taken = pipeline.process_run(&run, arena, staged).expect("orders");
                assert_eq!(taken, (run.len(), Progress::Done));
                left -= run.len();
            }
            began.elapsed()
        });
    });
    let Some((mut pipeline, mut staged, mut arena, _)) = state else { return };
    assert!(staged.outputs.is_empty() && staged.counters.late.is_empty(), "{:?}", staged.counters);
    if rows {
        let rows = finish(&mut *pipeline, &mut arena, &mut staged);
        // One call, as `--test` makes it, leaves one row.
        assert!((1..=KEYS).contains(&rows), "{rows}");
    }
}
