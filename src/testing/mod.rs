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
    /// Why it was not played in the variant that was asked for, which shows nothing in this case.
    pub not_applicable: Option<String>,
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

/// Whether some case may have a variant of this name.
///
/// # Errors
/// If there is none; the text says which there are.
pub fn check_variant(name: &str) -> Result<(), String> {
    Variant::named(name, 1).map(drop).ok_or_else(|| variant::unknown(name))
}

/// Plays a case in all variants that it has, or in the one called `only` if it has that one, up to the
/// first in which anything differs. `plan` is what [`prepare`] made.
///
/// # Errors
/// If no variant is called `only`; the text says which there are.
pub fn run_case(
    plan: &Arc<Plan>,
    case: &Case,
    only: Option<&str>,
    play: &Play<'_>,
) -> Result<CaseReport, String> {
    let (name, line) = (case.name.clone(), case.line);
    let mut report = CaseReport { name, line, variants: 0, not_applicable: None, failure: None };
    let partitions = case.partitions.unwrap_or(1);
    let plain = Variant::named(PLAIN, partitions).ok_or_else(|| variant::unknown(PLAIN))?;
    if let Some(name) = only {
        let variant = Variant::named(name, partitions).ok_or_else(|| variant::unknown(name))?;
        // Whether it applies is seen on the plain variant, whatever the case expects of that. If that one
        // does not end, nor will this one, and says why.
        let applies =
            play(&scenario(plan, case, &plain)).map_or(Ok(()), |plain| variant.fits(plan, case, &plain));
        match applies {
            Ok(()) => drop(play_variant(plan, case, variant, play, &mut report)),
            Err(why) => report.not_applicable = Some(format!("variant {name} is not for this test: {why}")),
        }
        return Ok(report);
    }
    let Some(outcome) = play_variant(plan, case, plain, play, &mut report) else { return Ok(report) };
    for variant in Variant::others(plan, case, &outcome) {
        if play_variant(plan, case, variant, play, &mut report).is_none() {
            break;
        }
    }
    Ok(report)
}

fn scenario(plan: &Arc<Plan>, case: &Case, variant: &Variant) -> Scenario {
    let partitions = variant.partitions;
    Scenario {
        plan: plan.clone(),
        topics: topics::all(plan, partitions),
        steps: input::steps(plan, case, partitions),
        pace: variant.pace,
        bounded: case.bounded,
        processes: variant.processes,
        workers: variant.workers,
        faults: variant.faults,
        after_the_end: 0,
        until_idle: false,
        rocks: false,
        seed: variant.seed,
    }
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
    let failure = match play(&scenario(plan, case, &variant)) {
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
