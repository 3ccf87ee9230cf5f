//! Runs the tests of a topology file, and topologies by hand, with no Kafka at all.
//!
//! A case (`tests:` in the file, read by [`topology::case`](crate::topology::case)) is played on the
//! simulator in many [variants](Variant): record by record and all at once, with several workers and
//! processes, with a crash at every commit point and with random faults. What comes out must be what the
//! case expects, in each of them. [`embedded`] plays a whole input once.

mod compare;
pub mod embedded;
mod input;
mod report;
mod rows;
mod state;
#[cfg(test)]
mod tests;
mod topics;
mod variant;

use std::sync::Arc;

pub use report::{FileReport, Format, render};
pub use variant::Variant;

use crate::simulator::{Failure, Faults, Outcome, Scenario};
use crate::topology::Plan;
use crate::topology::case::Case;
use crate::topology::plan::Start;
use variant::PLAIN;

/// Plays a scenario: the simulator's `run`.
pub type Play<'p> = dyn Fn(&Scenario) -> Result<Outcome, Failure> + 'p;

/// How a case went.
#[derive(Clone, Debug)]
pub struct CaseReport {
    /// Its name.
    pub name: String,
    /// The line of the file on which it begins.
    pub line: usize,
    /// In how many variants it was played.
    pub variants: usize,
    /// What differs, in the first variant in which anything does.
    pub failure: Option<CaseFailure>,
}

/// What differs from what a case expects.
#[derive(Clone, Debug)]
pub struct CaseFailure {
    /// Where it was seen.
    pub variant: Variant,
    /// At least one.
    pub differences: Vec<Difference>,
    /// What may explain them.
    pub notes: Vec<String>,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The line of the file on which the expectation stands.
    pub line: usize,
    /// What differs; of several lines perhaps.
    pub text: String,
    /// Whether something is not there that is expected.
    pub missing: bool,
}

/// A topology as tests run it: every source is read from its first record, for a record that comes before
/// the first process has started is part of a test's input, too.
pub fn prepare(mut plan: Plan) -> Arc<Plan> {
    for source in &mut plan.sources {
        source.start = Start::Earliest;
    }
    Arc::new(plan)
}

/// Plays a case in all variants that it has, or in the one called `only`, up to the first in which
/// anything differs. `plan` is what [`prepare`] made.
///
/// # Errors
/// If no variant is called `only`, or its commit never comes; the text says which there are.
pub fn run_case(
    plan: &Arc<Plan>,
    case: &Case,
    only: Option<&str>,
    play: &Play<'_>,
) -> Result<CaseReport, String> {
    let mut report = CaseReport { name: case.name.clone(), line: case.line, variants: 0, failure: None };
    let partitions = case.partitions.unwrap_or(1);
    if let Some(name) = only {
        let variant = Variant::named(name, partitions).ok_or_else(|| variant::unknown(name))?;
        let faults = variant.faults;
        let outcome = play_variant(plan, case, variant, play, &mut report);
        if let (Faults::CrashAt { commit, .. }, Some(Outcome { commits, .. })) = (faults, outcome)
            && commits <= commit
        {
            return Err(format!(
                "nothing crashes in variant `{name}`: the test has {commits} commits, numbered from 0"
            ));
        }
        return Ok(report);
    }
    let plain = Variant::named(PLAIN, partitions).ok_or_else(|| variant::unknown(PLAIN))?;
    let Some(outcome) = play_variant(plan, case, plain, play, &mut report) else { return Ok(report) };
    for variant in Variant::others(plan, case, &outcome) {
        if play_variant(plan, case, variant, play, &mut report).is_none() {
            break;
        }
    }
    Ok(report)
}

/// Plays one variant and notes what differs; `None` if anything does.
fn play_variant(
    plan: &Arc<Plan>,
    case: &Case,
    variant: Variant,
    play: &Play<'_>,
    report: &mut CaseReport,
) -> Option<Outcome> {
    report.variants += 1;
    let partitions = variant.partitions;
    let scenario = Scenario {
        plan: plan.clone(),
        topics: topics::all(plan, partitions),
        steps: input::steps(plan, case, partitions),
        pace: variant.pace,
        bounded: case.bounded,
        processes: variant.processes,
        workers: variant.workers,
        faults: variant.faults,
        after_the_end: 0,
        rocks: false,
        seed: variant.seed,
    };
    let failure = match play(&scenario) {
        Ok(outcome) => {
            let differences = compare::differences(plan, case, &outcome, variant.faults == Faults::None);
            if differences.is_empty() {
                return Some(outcome);
            }
            let missing = differences.iter().any(|difference| difference.missing);
            let notes = if missing { compare::notes(plan, case, &outcome) } else { Vec::new() };
            CaseFailure { variant, differences, notes }
        }
        Err(failure) => {
            let text = format!("the run did not come to its end: {failure}");
            CaseFailure {
                variant,
                differences: vec![Difference { line: case.line, text, missing: false }],
                notes: Vec::new(),
            }
        }
    };
    report.failure = Some(failure);
    None
}
