//! Plants bugs and looks for them with the simulator: all of them, or the one called `PLANTED`. Prints how
//! many histories each took, how long that was, and what found it. Ends with exit code 1 if one was not
//! found among `SEEDS` histories from `SEED_FROM` on.

#![allow(clippy::disallowed_methods, reason = "it says how long the search took")]

use std::process::ExitCode;
use std::time::Instant;

use thalweg::planted::Bug;
use thalweg::simulator::planted::find;

fn number(name: &str, otherwise: u64) -> u64 {
    let text = std::env::var(name).unwrap_or_default();
    if text.is_empty() {
        return otherwise;
    }
    text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number"))
}

fn main() -> ExitCode {
    let (from, seeds_max) = (number("SEED_FROM", 1), number("SEEDS", 2_000));
    let wanted = std::env::var("PLANTED").unwrap_or_default();
    let is_wanted = |bug: &Bug| wanted.is_empty() || wanted == bug.name();
    let bugs: Vec<Bug> = Bug::ALL.iter().copied().filter(is_wanted).collect();
    assert!(!bugs.is_empty(), "PLANTED={wanted}: there is no such bug");
    // What panics in a history is part of its outcome.
    std::panic::set_hook(Box::new(|_| ()));
    println!("{:<32} {:>9} {:>8}  found by", "bug", "histories", "seconds");
    let mut missed = Vec::new();
    for bug in bugs {
        let began = Instant::now();
        let found = find(bug, from, seeds_max);
        let seconds = began.elapsed().as_secs_f64();
        let (histories, what) = match &found {
            Some((seed, played)) => (seed - from + 1, played.failure.as_deref().unwrap_or_default()),
            None => (seeds_max, "NOT FOUND"),
        };
        let first: String = what.lines().next().unwrap_or_default().chars().take(90).collect();
        println!("{:<32} {histories:>9} {seconds:>8.2}  {first}", bug.name());
        if found.is_none() {
            missed.push(bug.name());
        }
    }
    if missed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("not found within {seeds_max} histories: {}", missed.join(", "));
    println!(
        "(docs/simulation.md says how many the rare ones need, and which no history can show; SEEDS= is how many)"
    );
    ExitCode::FAILURE
}
