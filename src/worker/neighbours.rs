//! The workers of one process, as far as alignment goes: each tells the others at once how far its partitions are, where
//! other processes hear of it by what it commits.
//!
//! ```
//! use thalweg::record::TopicPartition;
//! use thalweg::worker::alignment::Least;
//! use thalweg::worker::neighbours::{Neighbours, Others};
//!
//! let process = Neighbours::default();
//! let (slow, fast) = (process.join(), process.join());
//! slow.begin(vec![TopicPartition::new("orders", 0)], Least::of_one("all", 1_000));
//! let (mut others, mut least) = (Others::default(), Least::default());
//! assert!(fast.hear(&mut others, &mut least), "somebody has begun to tell");
//! assert_eq!(least.of("all"), Some(1_000));
//! ```

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::planted::{Bug, is_planted};
use crate::record::TopicPartition;
use crate::worker::alignment::Least;

/// The workers of a process. A clone is the same.
#[derive(Clone, Default)]
pub struct Neighbours(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    /// What is told, by the place of who tells it.
    told: BTreeMap<u64, Told>,
    places: u64,
    /// Rises when somebody begins to tell of partitions, and when somebody ends.
    changes: u64,
}

struct Told {
    partitions: Vec<TopicPartition>,
    least: Least,
}

/// A worker's place among its neighbours; what it told is gone with it.
pub struct Neighbour {
    neighbours: Neighbours,
    place: u64,
}

/// What a worker knows of its neighbours.
#[derive(Default)]
pub struct Others {
    /// The partitions that they tell of.
    pub partitions: HashSet<TopicPartition>,
    changes: u64,
}

impl Neighbours {
    /// A place for one more worker.
    pub fn join(&self) -> Neighbour {
        let mut table = self.table();
        table.places += 1;
        Neighbour { neighbours: self.clone(), place: table.places }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Neighbour {
    /// Tells of these partitions from now on: nobody here needs to know what is committed of them.
    pub fn begin(&self, partitions: Vec<TopicPartition>, least: Least) {
        let mut table = self.neighbours.table();
        table.told.insert(self.place, Told { partitions, least });
        table.changes += 1;
    }

    /// Tells how far they are now, if it has [begun](Neighbour::begin) to.
    pub fn tell(&self, least: Least) {
        if let Some(told) = self.neighbours.table().told.get_mut(&self.place) {
            told.least = least;
        }
    }

    /// They are not its own any more, or it is in doubt how far they are: what is committed of them counts again.
    pub fn end(&self) {
        if !is_planted(Bug::NeighbourKept) {
            self.withdraw();
        }
    }

    fn withdraw(&self) {
        let mut table = self.neighbours.table();
        table.changes += u64::from(table.told.remove(&self.place).is_some());
    }

    /// Whether it tells.
    pub fn tells(&self) -> bool {
        self.neighbours.table().told.contains_key(&self.place)
    }

    /// Adds what the others tell to `least`. Returns whether they tell of other partitions than `others` says, which
    /// then says that.
    pub fn hear(&self, others: &mut Others, least: &mut Least) -> bool {
        let table = self.neighbours.table();
        let told = || table.told.iter().filter(|(place, _)| **place != self.place).map(|(_, told)| told);
        told().for_each(|told| least.add_all(&told.least));
        let changed = table.changes != others.changes;
        if changed {
            others.changes = table.changes;
            others.partitions = told().flat_map(|told| told.partitions.iter().cloned()).collect();
        }
        changed
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.withdraw();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(number: i32) -> TopicPartition {
        TopicPartition::new("in", number)
    }

    /// What one hears: the least, and of which partitions.
    fn heard(by: &Neighbour, others: &mut Others) -> (Option<i64>, Vec<i32>) {
        let mut least = Least::default();
        by.hear(others, &mut least);
        let mut partitions: Vec<i32> = others.partitions.iter().map(|known| known.partition).collect();
        partitions.sort_unstable();
        (least.of("g"), partitions)
    }

    #[test]
    fn one_hears_the_others_and_not_itself_until_they_end() {
        let process = Neighbours::default();
        let [one, two, three] = [process.join(), process.join(), process.join()];
        let mut others = Others::default();
        assert_eq!(heard(&one, &mut others), (None, vec![]));
        one.begin(vec![partition(0)], Least::of_one("g", 1));
        assert_eq!(heard(&one, &mut others), (None, vec![]));
        two.begin(vec![partition(1)], Least::of_one("g", 20));
        three.begin(vec![partition(2), partition(3)], Least::of_one("g", 10));
        assert_eq!(heard(&one, &mut others), (Some(10), vec![1, 2, 3]));
        three.tell(Least::of_one("g", 30));
        assert_eq!(heard(&one, &mut others), (Some(20), vec![1, 2, 3]));
        two.end();
        assert_eq!(heard(&one, &mut others), (Some(30), vec![2, 3]));
        two.tell(Least::of_one("g", 5));
        assert_eq!(heard(&one, &mut others), (Some(30), vec![2, 3]), "who has ended tells nothing");
        drop(three);
        assert_eq!(heard(&one, &mut others), (None, vec![]));
        assert!(one.tells() && !two.tells());
    }

    #[test]
    fn it_is_said_once_that_somebody_begins_or_ends() {
        let process = Neighbours::default();
        let (one, two) = (process.join(), process.join());
        let mut others = Others::default();
        let mut hears = || one.hear(&mut others, &mut Least::default());
        assert!(!hears());
        two.begin(vec![partition(1)], Least::default());
        assert!(hears() && !hears());
        two.tell(Least::of_one("g", 1));
        assert!(!hears(), "their partitions are the same");
        two.end();
        two.end();
        assert!(hears() && !hears());
    }
}
