//! The ways in which a case is played.

use std::fmt;

use crate::simulator::{CommitPoint, Faults, Outcome, Pace};
use crate::topology::Plan;
use crate::topology::case::Case;
use crate::topology::plan::{Emit, GlobalWindowPlan, LagPlan, OperatorKind, OperatorPlan, WindowPlan};
use crate::window::{EarlyFiring, TimeDomain};

/// The variant that is played first: if it fails, the others tell nothing.
pub(super) const PLAIN: &str = "one-by-one";

/// Variants that every case has, beside [`PLAIN`].
const CALM: [&str; 4] = ["all-at-once", "mixed", "workers", "processes"];

const POINTS: [(&str, CommitPoint); 3] = [
    ("before", CommitPoint::Before),
    ("written", CommitPoint::Written),
    ("committed", CommitPoint::Committed),
];

/// In how many commits of a case there are crashes, at most; of more, these are spread evenly.
const CRASHES_MAX: u64 = 100;
/// With how many seeds there are random faults.
const FAULT_SEEDS: u64 = 5;
/// The variant in which a case is split into several partitions.
const SPLIT_NAME: &str = "partitions";
/// In how many partitions a case is split that leaves their number open.
const SPLIT: i32 = 4;

/// A way in which a case is played.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    /// Its name, by which it can be played alone.
    pub name: String,
    /// How the records follow each other.
    pub pace: Pace,
    /// How many processes run.
    pub processes: usize,
    /// How many workers each has.
    pub workers: usize,
    /// How many partitions each topic has.
    pub partitions: i32,
    /// What goes wrong.
    pub faults: Faults,
    /// What decides about the rest.
    pub seed: u64,
}

impl Variant {
    /// The variant called `name`, of a case whose topics have so many partitions.
    pub fn named(name: &str, partitions: i32) -> Option<Variant> {
        let variant = |pace, processes, workers, seed| Variant {
            name: name.to_owned(),
            pace,
            processes,
            workers,
            partitions,
            faults: Faults::None,
            seed,
        };
        Some(match name {
            PLAIN => variant(Pace::OneByOne, 1, 1, 0),
            "all-at-once" => variant(Pace::AllAtOnce, 1, 1, 0),
            "mixed" => variant(Pace::Mixed, 1, 1, 1),
            "workers" => variant(Pace::Mixed, 1, 3, 2),
            "processes" => variant(Pace::Mixed, 2, 2, 3),
            SPLIT_NAME => Variant { partitions: SPLIT, ..variant(Pace::Mixed, 2, 2, 4) },
            _ => {
                if let Some(seed) = name.strip_prefix("faults-") {
                    let variant = variant(Pace::Mixed, 2, 2, seed.parse().ok()?);
                    return Some(Variant { faults: Faults::Seeded, ..variant });
                }
                let (point, commit) = name.strip_prefix("crash-")?.split_once('-')?;
                let (_, point) = *POINTS.iter().find(|(known, _)| *known == point)?;
                let faults = Faults::CrashAt { commit: commit.parse().ok()?, point };
                Variant { faults, ..variant(Pace::OneByOne, 1, 1, 0) }
            }
        })
    }

    /// All variants of a case but the plain one, which ended as `plain`.
    pub(super) fn others(plan: &Plan, case: &Case, plain: &Outcome) -> Vec<Variant> {
        let mut names: Vec<String> = CALM.iter().map(|name| (*name).to_owned()).collect();
        names.push(SPLIT_NAME.to_owned());
        for commit in spread(plain.commits) {
            names.extend(POINTS.iter().map(|(point, _)| format!("crash-{point}-{commit}")));
        }
        names.extend((1..=FAULT_SEEDS).map(|seed| format!("faults-{seed}")));
        let partitions = case.partitions.unwrap_or(1);
        let variants = names.iter().filter_map(|name| Variant::named(name, partitions));
        variants.filter(|variant| variant.fits(plan, case, plain).is_ok()).collect()
    }

    /// Whether it shows anything in a case whose plain variant ended as `plain`; if not, why.
    pub(super) fn fits(&self, plan: &Plan, case: &Case, plain: &Outcome) -> Result<(), String> {
        let emits_early = |window: &WindowPlan| {
            matches!(window.early, Some(EarlyFiring::EveryMs(..))) || window.refine_every_ms.is_some()
        };
        let by_clock = Some(TimeDomain::Processing);
        let goes_by_clock = |window: &WindowPlan| {
            window.time == TimeDomain::Processing
                || early_time(window) == by_clock
                || window.refine_every_ms.is_some()
        };
        if let Some(id) = window_that(plan, goes_by_clock).filter(|_| self.pace != Pace::OneByOne) {
            return Err(format!(
                "its window `{id}` goes by the clock, which shows what `advance` says only if each record is committed \
                 before the next one comes"
            ));
        }
        if let Some(id) = early_by_what_is_sent(plan).filter(|_| self.pace != Pace::OneByOne) {
            return Err(format!(
                "it depends on when watermarks are sent there which early rows its window `{id}` makes, behind a change \
                 of keys"
            ));
        }
        // Partitions may move to processes and workers that come later.
        let may_start = self.faults != Faults::None || self.processes > 1 || self.workers > 1;
        if let Some(id) = window_that(plan, emits_early).filter(|_| may_start) {
            return Err(format!("its window `{id}` makes rows of all that is open after a start"));
        }
        match self.faults {
            Faults::None if self.name == SPLIT_NAME => can_be_split(plan, case, plain),
            Faults::None => Ok(()),
            Faults::CrashAt { .. } | Faults::Seeded if !case.crashes => {
                Err("it says `crashes: false`".to_owned())
            }
            Faults::CrashAt { commit, .. } if commit >= plain.commits => {
                Err(format!("nothing crashes, since it has {} commits, numbered from 0", plain.commits))
            }
            Faults::CrashAt { .. } | Faults::Seeded => Ok(()),
        }
    }
}

/// The numbers of the commits in which a process dies, of so many.
fn spread(commits: u64) -> impl Iterator<Item = u64> {
    let taken = commits.min(CRASHES_MAX);
    (0..taken).map(move |i| i * commits / taken)
}

/// Whether a case must give the same on more partitions; if not, why. Each partition has a watermark of
/// its own, which decides when windows close and what is late, unless it decides nothing: there is no
/// window, or the end of the input closes them all, none of them shows when, and nothing was late.
fn can_be_split(plan: &Plan, case: &Case, plain: &Outcome) -> Result<(), String> {
    if let Some(partitions) = case.partitions {
        return Err(format!("it says `partitions: {partitions}` itself"));
    }
    for operator in &plan.operators {
        let emit = match &operator.kind {
            OperatorKind::Window(window) => window.emit,
            OperatorKind::Deduplicate(_)
            | OperatorKind::Lag(LagPlan { ttl_ms: Some(_), .. })
            | OperatorKind::GlobalWindow(GlobalWindowPlan { ttl_ms: Some(_), .. }) => {
                return Err(format!(
                    "it has `{}`, and it depends on the records of each partition when entries of it expire",
                    operator.id
                ));
            }
            OperatorKind::GlobalWindow(_) if behind_a_change_of_keys(plan, operator) => {
                return Err(format!(
                    "it has `{}` behind a change of keys, and it depends on which partition is read first which of \
                     its rows come together",
                    operator.id
                ));
            }
            _ => continue,
        };
        let because = if !case.bounded {
            "without `bounded: true` it depends on the records of each partition when its windows close"
        } else if !plain.counters.late.is_empty() {
            "it depends on the records of each partition what comes late"
        } else if emit != Emit::OnClose {
            "its updates depend on which partition is read first"
        } else {
            continue;
        };
        return Err(format!("it has the window `{}`, and {because}", operator.id));
    }
    Ok(())
}

/// Whose time the early rows of a window go by, if it is a time.
fn early_time(window: &WindowPlan) -> Option<TimeDomain> {
    match window.early {
        Some(EarlyFiring::EveryMs(_, time)) => Some(time),
        _ => None,
    }
}

/// The id of a window that makes early rows by the watermarks that other stages send.
fn early_by_what_is_sent(plan: &Plan) -> Option<&str> {
    let mut operators = plan.operators.iter();
    let found = operators.find(|operator| match &operator.kind {
        OperatorKind::Window(window) => {
            early_time(window) == Some(TimeDomain::Event) && behind_a_change_of_keys(plan, operator)
        }
        _ => false,
    });
    found.map(|operator| operator.id.as_str())
}

fn behind_a_change_of_keys(plan: &Plan, operator: &OperatorPlan) -> bool {
    let mut routes = operator.inputs.iter().flat_map(|input| plan.routes(*input));
    routes.any(|route| route.stage >= plan.sources.len())
}

/// The first window operator of this kind.
fn window_that(plan: &Plan, is_one: impl Fn(&WindowPlan) -> bool) -> Option<&str> {
    let mut operators = plan.operators.iter();
    let found = operators.find(|operator| match &operator.kind {
        OperatorKind::Window(window) => is_one(window),
        _ => false,
    });
    found.map(|operator| operator.id.as_str())
}

/// What to say about a name that no variant has.
pub(super) fn unknown(name: &str) -> String {
    let calm = CALM.join(", ");
    format!(
        "there is no variant `{name}`; there are {PLAIN}, {calm}, {SPLIT_NAME}, \
         crash-before-N, crash-written-N and crash-committed-N for the commit number N, and faults-SEED"
    )
}

/// What is played, in words.
impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.pace {
            Pace::OneByOne => "each record committed before the next one comes",
            Pace::AllAtOnce => "all records there from the start",
            Pace::Mixed => "records coming while others are processed",
        })?;
        if (self.processes, self.workers) != (1, 1) {
            write!(f, ", {} of {}", counted(self.processes, "process", "processes"), {
                counted(self.workers, "worker", "workers")
            })?;
        }
        if self.partitions > 1 {
            write!(f, ", {} partitions", self.partitions)?;
        }
        match self.faults {
            Faults::None => Ok(()),
            Faults::Seeded => write!(f, ", random faults of seed {}", self.seed),
            Faults::CrashAt { commit, point } => {
                let place = match point {
                    CommitPoint::Before => "before anything of it is sent",
                    CommitPoint::Written => "when everything is written and nothing committed",
                    CommitPoint::Committed => "when it is committed and the process does not know it",
                };
                write!(f, ", a crash in commit {commit} {place}")
            }
        }
    }
}

fn counted(count: usize, one: &str, several: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { several })
}
