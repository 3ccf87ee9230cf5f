//! Watermark alignment: a partition whose watermark is too far ahead of the least one of its group waits.
//!
//! The processes of an application hear of one another by what they commit: a checkpoint commits, as the metadata of
//! each aligned partition's offset, how far its watermark is ([`Standing`]). The workers of one process tell one another
//! ([`Neighbours`](super::neighbours::Neighbours)). See `docs/adr/0015-alignment.md`.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::planted::{Bug, is_planted};
use crate::topology::plan::Alignment;

/// How far a partition has come, as others hear of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its watermark, in milliseconds since the Unix epoch.
    pub watermark_ms: i64,
    /// It has nothing to read: nobody waits for it.
    pub idle: bool,
}

/// The metadata's first word, and the number of its form.
const MARK: [&str; 2] = ["watermark", "1"];
/// Behind the watermark of a partition that is idle.
const IDLE: &str = "idle";

impl Standing {
    /// As the metadata of a committed offset: `watermark 1 1767225600000`, `watermark 1 1767225600000 idle`.
    pub fn to_metadata(self) -> String {
        let idle = if self.idle { format!(" {IDLE}") } else { String::new() };
        format!("{} {} {}{idle}", MARK[0], MARK[1], self.watermark_ms)
    }

    /// What an offset's metadata says; `None` if it is something else, or of a form that a later version writes.
    pub fn from_metadata(metadata: &[u8]) -> Option<Standing> {
        let words: Vec<&str> = std::str::from_utf8(metadata).ok()?.split(' ').collect();
        let (watermark, idle) = match words[..] {
            [mark, form, watermark] if [mark, form] == MARK => (watermark, false),
            [mark, form, watermark, IDLE] if [mark, form] == MARK => (watermark, true),
            _ => return None,
        };
        Some(Standing { watermark_ms: watermark.parse().ok()?, idle })
    }

    /// The watermark that others wait for; `None` while they do not.
    pub fn awaited_ms(self) -> Option<i64> {
        let left_out = self.idle && !is_planted(Bug::IdleHoldsBack);
        (!left_out).then_some(self.watermark_ms)
    }
}

/// The least watermark of each group, of those partitions that are waited for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Least(BTreeMap<Arc<str>, i64>);

impl Least {
    /// That of one group.
    pub fn of_one(group: &str, watermark_ms: i64) -> Self {
        Least(BTreeMap::from([(group.into(), watermark_ms)]))
    }

    /// The least of a group; `None` while nobody is waited for.
    pub fn of(&self, group: &str) -> Option<i64> {
        self.0.get(group).copied()
    }

    /// Adds a partition, if others wait for it.
    pub fn add(&mut self, alignment: &Alignment, standing: Standing) {
        if let Some(watermark_ms) = standing.awaited_ms() {
            self.add_one(&alignment.group, watermark_ms);
        }
    }

    /// Adds what was found of other partitions.
    pub fn add_all(&mut self, other: &Least) {
        other.0.iter().for_each(|(group, watermark_ms)| self.add_one(group, *watermark_ms));
    }

    fn add_one(&mut self, group: &Arc<str>, watermark_ms: i64) {
        let least_ms = self.0.entry(group.clone()).or_insert(watermark_ms);
        let greatest = is_planted(Bug::AlignedWithGreatest);
        *least_ms = if greatest { watermark_ms.max(*least_ms) } else { watermark_ms.min(*least_ms) };
    }
}

impl Alignment {
    /// Whether a partition with this watermark is not to be read on, where `least_ms` is the least of its group, its
    /// own included; `None` of one that is not known. Who has the least is never held back.
    pub fn holds_back(&self, watermark_ms: Option<i64>, least_ms: Option<i64>) -> bool {
        let (Some(watermark_ms), Some(least_ms)) = (watermark_ms, least_ms) else { return false };
        watermark_ms > least_ms.saturating_add(self.max_drift_ms)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn alignment(max_drift_ms: i64) -> Alignment {
        Alignment { group: "g".into(), max_drift_ms }
    }

    #[test]
    fn it_is_written_as_metadata() {
        let standing = Standing { watermark_ms: 1_767_225_600_000, idle: false };
        assert_eq!(standing.to_metadata(), "watermark 1 1767225600000");
        assert_eq!(Standing { watermark_ms: -5, idle: true }.to_metadata(), "watermark 1 -5 idle");
    }

    #[test]
    fn what_is_not_understood_is_not_known() {
        let other = [
            "",
            "finished",
            "watermark",
            "watermark 1",
            "watermark 1 x",
            "watermark 2 7",
            "watermark 1 7 busy",
        ];
        for metadata in
            other.into_iter().chain(["watermark 1 7 idle since", "Watermark 1 7", "watermark  1 7"])
        {
            assert_eq!(Standing::from_metadata(metadata.as_bytes()), None, "{metadata}");
        }
        assert_eq!(Standing::from_metadata(b"watermark 1 7\xff"), None);
    }

    #[test]
    fn a_partition_is_held_back_above_the_drift_and_not_at_it() {
        let alignment = alignment(10);
        assert!(!alignment.holds_back(Some(110), Some(100)));
        assert!(alignment.holds_back(Some(111), Some(100)));
        assert!(!alignment.holds_back(Some(i64::MAX), None), "nobody is waited for");
        assert!(!alignment.holds_back(None, Some(100)), "it has not had a record");
        assert!(!alignment.holds_back(Some(i64::MAX), Some(i64::MAX - 1)), "the sum does not overflow");
    }

    fn standings() -> impl Strategy<Value = Vec<Option<Standing>>> {
        let standing =
            (-100_i64..100, any::<bool>()).prop_map(|(watermark_ms, idle)| Standing { watermark_ms, idle });
        proptest::collection::vec(proptest::option::of(standing), 1..8)
    }

    fn least(standings: &[Option<Standing>]) -> Option<i64> {
        standings.iter().flatten().filter_map(|standing| standing.awaited_ms()).min()
    }

    proptest! {
        #[test]
        fn a_standing_is_read_as_it_was_written(watermark_ms: i64, idle: bool) {
            let standing = Standing { watermark_ms, idle };
            prop_assert_eq!(Standing::from_metadata(standing.to_metadata().as_bytes()), Some(standing));
        }

        /// Liveness: of those that are waited for, one is read on.
        #[test]
        fn somebody_is_read(standings in standings(), max_drift_ms in 0_i64..50) {
            let least_ms = least(&standings);
            let is_read = |one: Standing| !alignment(max_drift_ms).holds_back(Some(one.watermark_ms), least_ms);
            let awaited: Vec<Standing> = standings.iter().flatten().copied().filter(|one| !one.idle).collect();
            prop_assert!(awaited.is_empty() || awaited.into_iter().any(is_read));
        }

        /// Safety: who knows older watermarks of the others holds back whatever who knows newer ones does.
        #[test]
        fn what_is_stale_lets_nobody_go_early(
            standings in standings(), behind in proptest::collection::vec(0_i64..50, 8), own_ms in -100_i64..100
        ) {
            let stale = |(one, behind): (&Option<Standing>, &i64)| {
                one.map(|one| Standing { watermark_ms: one.watermark_ms - behind, ..one })
            };
            let stale: Vec<Option<Standing>> = standings.iter().zip(&behind).map(stale).collect();
            let held = |others: &[Option<Standing>]| {
                let least_ms = Some(least(others).map_or(own_ms, |others| others.min(own_ms)));
                alignment(10).holds_back(Some(own_ms), least_ms)
            };
            prop_assert!(held(&stale) || !held(&standings));
        }
    }
}
