//! Plays histories of the simulator: `SEEDS` of them from `SEED_FROM` on, on all cores, or the one of
//! `SEED` with its whole story. Prints what happened how often; a failing history is made smaller and
//! told. Ends with exit code 1 if one failed, if a path was never taken, or if the digest of all is not
//! `DIGEST`, where that is given.

#![allow(clippy::disallowed_methods, reason = "it says how fast it was")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use thalweg::simulator::campaign::{History, LeftOut, ONCE_FAILED, history, reduce};
use thalweg::simulator::paths::PATHS;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How many histories a path may be missing from before that is a finding.
const SEEDS_FOR_ALL_PATHS: u64 = 20_000;
/// A campaign ends after so many failures.
const FAILURES_MAX: usize = 5;
/// A history in so many is played twice: it must be the same. A prime, since those on RocksDB are the dear
/// ones and come at multiples of 250.
const REPLAYED_ONE_IN: u64 = 101;

fn text(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

fn number(name: &str) -> Option<u64> {
    let text = text(name)?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

#[derive(Default)]
struct Totals {
    counts: BTreeMap<&'static str, u64>,
    failed: BTreeSet<u64>,
    digest: u64,
}

fn main() -> ExitCode {
    // What panics in a history is part of its outcome.
    std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    match number("SEED") {
        Some(seed) => tell(seed),
        None => campaign(number("SEED_FROM").unwrap_or(1), number("SEEDS").unwrap_or(2_000)),
    }
}

fn tell(seed: u64) -> ExitCode {
    let told = history(seed, &LeftOut::default(), true);
    println!("{}", told.story.join("\n"));
    println!("\nseed {seed}, digest {:016x}", told.digest);
    match told.failure {
        None => {
            println!("passed");
            ExitCode::SUCCESS
        }
        Some(failure) => {
            println!("failed: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn campaign(from: u64, seeds: u64) -> ExitCode {
    let began = Instant::now();
    // First those that failed once.
    let once_failed = ONCE_FAILED.len() as u64;
    let next = AtomicU64::new(0);
    let totals = Mutex::new(Totals::default());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= once_failed + seeds {
                        return;
                    }
                    let seed = match ONCE_FAILED.get(number as usize) {
                        Some(seed) => *seed,
                        None => from + number - once_failed,
                    };
                    let played = history(seed, &LeftOut::default(), false);
                    let again = seed.is_multiple_of(REPLAYED_ONE_IN)
                        && history(seed, &LeftOut::default(), false).digest != played.digest;
                    let mut totals = totals.lock().unwrap_or_else(PoisonError::into_inner);
                    totals.add(seed, &played, again);
                    if totals.failed.len() >= FAILURES_MAX {
                        return;
                    }
                }
            });
        }
    });
    let totals = totals.into_inner().unwrap_or_else(PoisonError::into_inner);
    let seconds = began.elapsed().as_secs_f64();
    totals.report(from, seeds, seconds, threads)
}

impl Totals {
    fn add(&mut self, seed: u64, played: &History, differs: bool) {
        for (what, times) in &played.counts {
            *self.counts.entry(what).or_default() += times;
        }
        self.digest = self.digest.wrapping_add(played.digest.rotate_left((seed % 64) as u32));
        if let Some(failure) = &played.failure {
            println!("seed {seed} failed: {failure}");
            self.failed.insert(seed);
        } else if differs {
            println!("seed {seed} was played twice and differed");
            self.failed.insert(seed);
        }
    }

    fn report(&self, from: u64, seeds: u64, seconds: f64, threads: usize) -> ExitCode {
        for (what, times) in &self.counts {
            println!("{times:>12}  {what}");
        }
        let missing: Vec<&str> =
            PATHS.iter().copied().filter(|path| !self.counts.contains_key(path)).collect();
        println!(
            "{seeds} histories from seed {from} in {seconds:.1} s on {threads} threads, {:.0} a second and thread; \
             digest {:016x}",
            seeds as f64 / seconds / threads as f64,
            self.digest
        );
        if let Some(seed) = self.failed.first() {
            explain(*seed);
            return ExitCode::FAILURE;
        }
        let digest = format!("{:016x}", self.digest);
        if let Some(before) = text("DIGEST").filter(|before| *before != digest) {
            println!("these are other histories than before: their digest is {digest}, it was {before}");
            return ExitCode::FAILURE;
        }
        if !missing.is_empty() {
            println!("all passed; never taken: {}", missing.join(", "));
            println!(
                "(rare paths: a campaign of {SEEDS_FOR_ALL_PATHS} histories or more must take all of them)"
            );
            return if seeds < SEEDS_FOR_ALL_PATHS { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
        println!("all passed, every path was taken");
        ExitCode::SUCCESS
    }
}

/// Makes a failing history smaller and tells it.
fn explain(seed: u64) {
    let (left_out, told) = reduce(seed);
    println!("\n{}", told.story.join("\n"));
    println!(
        "\nseed {seed}, made smaller: {} of {} faults and {} of {} steps of the input are left",
        told.faults.saturating_sub(left_out.faults.len() as u64),
        told.faults,
        told.steps.saturating_sub(left_out.steps.len()),
        told.steps
    );
    println!("failed: {}", told.failure.unwrap_or_default());
}
