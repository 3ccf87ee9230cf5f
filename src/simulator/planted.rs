//! Looks for histories in which a planted bug shows.

use crate::planted::{Bug, plant};
use crate::simulator::campaign::{History, LeftOut, history};

/// The first history that fails with a planted bug and not without it, among the `seeds_max` seeds from
/// `from` on, with its seed.
pub fn find(bug: Bug, from: u64, seeds_max: u64) -> Option<(u64, History)> {
    (from..from + seeds_max).find_map(|seed| {
        let with_bug = {
            let _planted = plant(bug);
            history(seed, &LeftOut::default(), false)
        };
        let fails = with_bug.failure.is_some();
        (fails && history(seed, &LeftOut::default(), false).failure.is_none()).then_some((seed, with_bug))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bugs that no history shows, since something else stands before them, and one that takes longer than this
    /// test has; `docs/simulation.md` says which and why.
    const BEYOND_THIS_TEST: [Bug; 4] = [
        Bug::MembershipNotCompared,
        Bug::HighWatermarkFirst,
        Bug::OffsetsNotCompared,
        Bug::HighWatermarkFirstNotCompared,
    ];

    /// How many histories the test plays for a bug at most.
    const SEEDS_MAX: u64 = 5_000;

    #[test]
    fn planted_bugs_are_found() {
        let wanted = Bug::ALL.iter().filter(|bug| !BEYOND_THIS_TEST.contains(bug));
        let missed: Vec<&str> =
            wanted.filter(|bug| find(**bug, 1, SEEDS_MAX).is_none()).map(|bug| bug.name()).collect();
        assert!(missed.is_empty(), "not found within {SEEDS_MAX} histories each: {missed:?}");
    }
}
