//! Early rows: what windows that are not over have so far, made now and then, by the clock or by the watermark.
//!
//! What has changed since the last time is remembered, but no part of the state: an operator that does not know it,
//! since it has just been restored or too much has changed, makes a row of every window that is not over.

use std::collections::BTreeMap;

use ahash::RandomState;
use bumpalo::Bump;
use hashbrown::HashSet;

use super::{Aggregator, Condition, Firing};
use crate::expression::EvaluationError;
use crate::operator::Context;
use crate::planted::{Bug, is_planted};
use crate::record::{Event, RecordType};
use crate::state::BLOCK_ENTRIES;
use crate::time::MIN_TIME_MS;
use crate::window::{EarlyFiring, TimeDomain};

/// So many keys and windows that have changed are remembered.
pub(super) const CHANGED_MAX: usize = 16_384;
/// Of so many bytes.
pub(super) const CHANGED_BYTES_MAX: usize = 4 << 20;
/// What one takes beside its key, about.
pub(super) const CHANGED_BYTES: usize = 40;

/// What windows know of early records beside how often they come.
pub struct EarlyRecords<R: RecordType> {
    /// After which records they come, if it is for those to say.
    pub when: Option<Box<dyn Condition<R>>>,
    /// A window begins anew with each of them, and with the one at its end if there are refinements behind that, and each of
    /// those: so its records add up. It makes no other one if it has taken none since. Not of windows that overlap.
    pub purge: bool,
}

impl<R: RecordType> EarlyRecords<R> {
    /// Each of all that its window holds.
    pub(super) fn of_all() -> Self {
        EarlyRecords { when: None, purge: false }
    }

    /// Whether one comes after `event`, if that is for it to say.
    pub(super) fn is_due(&self, event: &Event<'_, R>, arena: &Bump) -> Result<bool, EvaluationError> {
        self.when.as_ref().map_or(Ok(false), |when| when.holds(event, arena))
    }

    /// Whether a window begins anew with such a record: behind the last one it is over.
    pub(super) fn begins_anew(&self, firing: Firing) -> bool {
        let is_kept = firing == Firing::Refinement && is_planted(Bug::RefinementNotPurged);
        self.purge && firing != Firing::Close && !is_kept
    }

    /// Whether a window makes no record: it has begun anew, and taken none since.
    pub(super) fn is_empty<A: Aggregator<R>>(&self, aggregator: &A, value: &A::Value) -> bool {
        self.purge && aggregator.rows(value) == 0
    }
}

/// So many keys are looked for at once whose entries are changed one by one: as many as a table reads together.
pub(super) const KEYS_AT_ONCE: usize = BLOCK_ENTRIES;

/// What early rows are due of.
pub(super) struct Early {
    every_ms: i64,
    /// Whose time they go by.
    time: TimeDomain,
    /// Windows overlap: what changes are panes, and those of a key are told of together.
    of_panes: bool,
    /// When the next are due; `None`: nothing has changed.
    due_ms: Option<i64>,
    /// The keys that have changed, by the ends of their windows, or panes.
    changed: BTreeMap<i64, HashSet<Box<[u8]>, RandomState>>,
    count: usize,
    bytes: usize,
    /// Whatever has changed is not known.
    all: bool,
    round: Option<Round>,
}

/// Windows' or panes' ends and keys, the next one last.
pub(super) type Changed = Vec<(i64, Box<[u8]>)>;

/// The rows that are being made.
pub(super) enum Round {
    /// Of these.
    Changed(Changed),
    /// Of the windows that have these panes; those of the first key that end at `told_ms` or before have made theirs.
    OfPanes { changed: Changed, told_ms: i64 },
    /// Of all windows that are not over, from here on.
    All(Place),
}

/// A window's end and a key.
pub(super) struct Place {
    /// The end; of sessions that of their bucket.
    pub end_ms: i64,
    /// The key.
    pub from: Vec<u8>,
}

/// When something is due that is so every so often, and perhaps at `due_ms` already: at multiples of the interval, that of
/// all keys at once. A clock that was ahead may have been set back.
pub(super) fn next_due(every_ms: i64, due_ms: Option<i64>, now_ms: i64) -> i64 {
    let next_ms = now_ms - now_ms.rem_euclid(every_ms) + every_ms;
    due_ms.filter(|due_ms| *due_ms < next_ms).unwrap_or(next_ms)
}

impl Early {
    /// What is needed of it, if it goes by a time.
    pub fn of(firing: Option<EarlyFiring>) -> Option<Early> {
        match firing {
            Some(EarlyFiring::EveryMs(every_ms, time)) => Some(Early::new(every_ms.max(1), time, false)),
            Some(EarlyFiring::EveryRows(_) | EarlyFiring::When) | None => None,
        }
    }

    /// Every so often; nothing is known of what has changed.
    fn new(every_ms: i64, time: TimeDomain, of_panes: bool) -> Early {
        let changed = BTreeMap::new();
        Early { every_ms, time, of_panes, due_ms: None, changed, count: 0, bytes: 0, all: true, round: None }
    }

    /// The same of windows that overlap.
    pub fn of_panes(self) -> Early {
        Early { of_panes: true, ..self }
    }

    /// What it is by the time that these rows go by.
    pub fn now_ms(&self, watermark_ms: i64, context: &Context<'_, '_>) -> i64 {
        match self.time {
            TimeDomain::Event => watermark_ms,
            TimeDomain::Processing => context.clock_ms,
        }
    }

    /// Asks to be told the time when rows are due. A watermark comes by itself.
    pub fn wake(&self, context: &mut Context<'_, '_>) {
        if self.time == TimeDomain::Processing {
            context.staged.wake_at(self.due_ms);
        }
    }

    /// A key has changed in the window, or the pane, that ends at `end_ms`.
    pub fn note(&mut self, end_ms: i64, key: &[u8], now_ms: i64) {
        if !self.all {
            // Fixed seeds: the order of the set never shows, and a run can be repeated exactly.
            let seeded = || HashSet::with_hasher(RandomState::with_seeds(0x6561, 0x726c, 0x7920, 0x726f));
            let keys = self.changed.entry(end_ms).or_insert_with(seeded);
            if !keys.contains(key) {
                keys.insert(key.into());
                self.count += 1;
                self.bytes += CHANGED_BYTES + key.len();
            }
            if self.count > CHANGED_MAX || self.bytes > CHANGED_BYTES_MAX {
                self.forget();
            }
        }
        self.set_due(now_ms);
    }

    /// The window of a key that ended at `end_ms` has become a part of another one.
    pub fn forget_one(&mut self, end_ms: i64, key: &[u8]) {
        if let Some(keys) = self.changed.get_mut(&end_ms)
            && keys.remove(key)
        {
            self.count -= 1;
            self.bytes -= CHANGED_BYTES + key.len();
            if keys.is_empty() {
                self.changed.remove(&end_ms);
            }
        }
    }

    /// As it is in the beginning.
    fn anew(&self) -> Early {
        Early::new(self.every_ms, self.time, self.of_panes)
    }

    /// Nothing is known of what has changed any more.
    pub fn forget(&mut self) {
        *self = Early { due_ms: self.due_ms, round: self.round.take(), ..self.anew() };
    }

    /// As in the beginning.
    pub fn restart(&mut self) {
        *self = self.anew();
    }

    /// Before there is a watermark nobody knows which multiple of the interval comes next.
    fn set_due(&mut self, now_ms: i64) {
        if now_ms > MIN_TIME_MS {
            self.due_ms = Some(next_due(self.every_ms, self.due_ms, now_ms));
        }
    }

    /// What is to be made now that it is so late. It is given [back](Early::go_on_with) if it is left in the middle.
    pub fn round(&mut self, now_ms: i64) -> Option<Round> {
        if let Some(round) = self.round.take() {
            return Some(round);
        }
        if self.due_ms.is_none() && self.all {
            self.set_due(now_ms);
        }
        self.due_ms.take_if(|due_ms| *due_ms <= now_ms)?;
        let anew = self.anew();
        let Early { changed, all, .. } = std::mem::replace(self, anew);
        self.all = false;
        if all {
            return Some(Round::All(Place { end_ms: i64::MIN, from: Vec::new() }));
        }
        let of_window = |(end_ms, keys): (i64, HashSet<Box<[u8]>, RandomState>)| {
            keys.into_iter().map(move |key| (end_ms, key))
        };
        let mut changed: Changed = changed.into_iter().flat_map(of_window).collect();
        if self.of_panes {
            changed
                .sort_unstable_by(|(end_ms, key), (other_ms, other)| (other, other_ms).cmp(&(key, end_ms)));
            return Some(Round::OfPanes { changed, told_ms: i64::MIN });
        }
        changed.sort_unstable_by(|one, other| other.cmp(one));
        Some(Round::Changed(changed))
    }

    /// Goes on with this the next time.
    pub fn go_on_with(&mut self, round: Round) {
        self.round = Some(round);
    }

    /// Memory in use, about.
    pub fn bytes(&self) -> usize {
        let round = match &self.round {
            Some(Round::Changed(changed) | Round::OfPanes { changed, .. }) => {
                changed.iter().map(|(_, key)| CHANGED_BYTES + key.len()).sum()
            }
            _ => 0,
        };
        self.bytes + round
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(round: Option<Round>) -> Vec<(i64, Vec<u8>)> {
        match round {
            Some(Round::Changed(changed)) => {
                changed.into_iter().rev().map(|(end_ms, key)| (end_ms, key.to_vec())).collect()
            }
            _ => panic!("something else"),
        }
    }

    #[test]
    fn nothing_is_known_at_first_and_what_has_changed_later() {
        let mut early = Early::new(10, TimeDomain::Processing, false);
        assert!(early.round(103).is_none());
        assert_eq!(early.due_ms, Some(110));
        assert!(matches!(early.round(110), Some(Round::All(Place { end_ms: i64::MIN, .. }))));
        assert_eq!(early.due_ms, None);
        early.note(7, b"b", 112);
        assert_eq!(early.due_ms, Some(120));
        early.note(5, b"c", 113);
        early.note(7, b"a", 114);
        early.note(7, b"b", 131);
        assert!(early.round(119).is_none());
        let expected = [(5, b"c".to_vec()), (7, b"a".to_vec()), (7, b"b".to_vec())];
        assert_eq!(changed(early.round(133)), expected);
        assert!(early.round(200).is_none());
        assert_eq!(early.bytes(), 0);
    }

    #[test]
    fn what_has_become_a_part_of_another_is_forgotten() {
        let mut early = Early::new(10, TimeDomain::Processing, false);
        assert!(early.round(0).is_none() && early.round(10).is_some());
        early.note(5, b"a", 11);
        early.forget_one(5, b"a");
        early.forget_one(6, b"a");
        early.note(8, b"a", 12);
        assert_eq!(changed(early.round(20)), [(8, b"a".to_vec())]);
    }

    #[test]
    fn a_clock_that_was_ahead_is_followed_back() {
        let mut early = Early::new(10, TimeDomain::Processing, false);
        assert!(early.round(0).is_none() && early.round(10).is_some());
        early.note(5, b"a", 1_000_001);
        assert_eq!(early.due_ms, Some(1_000_010));
        early.note(5, b"a", 21);
        assert_eq!(early.due_ms, Some(30));
        assert_eq!(changed(early.round(30)).len(), 1);
    }

    #[test]
    fn before_there_is_a_watermark_nothing_is_due() {
        let mut early = Early::new(10, TimeDomain::Event, false);
        early.note(5, b"a", MIN_TIME_MS);
        assert!(early.round(MIN_TIME_MS).is_none());
        assert!(early.round(23).is_none(), "nobody knows whether that is the first time behind 20");
        assert!(early.round(29).is_none());
        assert!(matches!(early.round(57), Some(Round::All(_))));
        assert!(early.round(90).is_none());
    }

    #[test]
    fn memory_is_bounded() {
        let mut early = Early::new(10, TimeDomain::Processing, false);
        early.round(0);
        early.round(10);
        for key in 0..2 * CHANGED_MAX {
            early.note(0, &key.to_be_bytes(), 11);
        }
        assert_eq!(early.bytes(), 0);
        assert!(matches!(early.round(20), Some(Round::All(_))));
    }
}
