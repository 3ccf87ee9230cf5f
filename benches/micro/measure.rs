//! Times per element of what is done to many at once.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{Bencher, BenchmarkGroup, Criterion, SamplingMode};

/// Benchmarks whose rounds may be long: each sample has as many.
pub fn rounds<'c>(criterion: &'c mut Criterion, name: &str) -> BenchmarkGroup<'c, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.sampling_mode(SamplingMode::Flat);
    group
}

/// Measures `routine`, which does something to `elements` of them, so that criterion prints the time of one.
/// `setup` before it and `check` behind it, which also drops what it made, take no part.
pub fn per_element<S, I, O>(
    bencher: &mut Bencher<'_>,
    state: &mut S,
    elements: usize,
    mut setup: impl FnMut(&mut S) -> I,
    mut routine: impl FnMut(&mut S, I) -> O,
    mut check: impl FnMut(&mut S, O),
) {
    bencher.iter_custom(|iterations| {
        // Whole rounds, however few elements are asked for.
        let rounds = iterations.div_ceil(elements as u64);
        let mut spent = Duration::ZERO;
        for _ in 0..rounds {
            let input = setup(state);
            let began = Instant::now();
            let output = black_box(routine(state, input));
            spent += began.elapsed();
            check(state, output);
        }
        spent.mul_f64(iterations as f64 / (rounds * elements as u64) as f64)
    });
}
