//! Micro benchmarks of the hot path, by criterion: what a record, a changed entry and a result cost, without Kafka.
//!
//! ```text
//! cargo bench                  # all of them, some two minutes
//! cargo bench -- delta         # those with `delta` in their names
//! cargo bench -- --test        # each once, to see that it runs
//! ```
//!
//! Each time printed is that of one operation; the comment at each benchmark says what that is. Inputs are the
//! same in every run. What a benchmark has made is checked, its time is not.
#![allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]

mod changelog;
mod close;
mod expression;
mod input;
mod json;
mod measure;
mod record;
mod store;
mod table;
mod update;

use std::time::Duration;

use criterion::Criterion;

/// As thalweg's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    #[cfg(target_os = "linux")]
    let _refused = rustix::thread::disable_transparent_huge_pages(true);
    let mut criterion = Criterion::default()
        .sample_size(15)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(5))
        .nresamples(20_000)
        .without_plots()
        .configure_from_args();
    for benchmarks in [
        json::benchmarks,
        expression::benchmarks,
        update::benchmarks,
        record::benchmarks,
        close::benchmarks,
        changelog::benchmarks,
        store::benchmarks,
    ] {
        benchmarks(&mut criterion);
    }
    criterion.final_summary();
}
