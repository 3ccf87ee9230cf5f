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

    /// Bugs that no history shows, since something else stands before them; `docs/simulation.md` says why.
    const NEVER_FOUND: [Bug; 4] = [
        Bug::MembershipNotCompared,
        Bug::OffsetsNotCompared,
        Bug::HighWatermarkFirst,
        Bug::WatermarkBeforeParts,
    ];

    /// Bugs that take longer than this test has, with the first seed from 1 on that shows them:
    /// `make planted SEEDS=35000` finds it.
    const RARE: [(Bug, u64); 4] = [
        (Bug::HighWatermarkFirstNotCompared, 16_873),
        (Bug::ProducerKept, 5_005),
        (Bug::RestoreToLastStable, 4_743),
        (Bug::BoundedRunEndsAlone, 9_709),
    ];

    /// How many histories the test plays for another bug at most.
    const SEEDS_MAX: u64 = 5_000;

    #[test]
    fn planted_bugs_are_found() {
        let wanted = Bug::ALL.iter().filter(|bug| !NEVER_FOUND.contains(bug));
        let missed = wanted.filter(|bug| match RARE.iter().find(|(rare, _)| rare == *bug) {
            Some((_, seed)) => find(**bug, *seed, 1).is_none(),
            None => find(**bug, 1, SEEDS_MAX).is_none(),
        });
        let missed: Vec<&str> = missed.map(|bug| bug.name()).collect();
        assert!(missed.is_empty(), "not found within {SEEDS_MAX} histories, or by their seed: {missed:?}");
    }
}
