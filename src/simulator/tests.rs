//! The simulator itself: what it plays is the same each time, and what fails is made smaller.

use super::campaign::{LeftOut, ROCKS_ONE_IN, history};

#[test]
fn the_same_seed_is_the_same_history() {
    for seed in 1..=20 {
        let (first, second) =
            (history(seed, &LeftOut::default(), false), history(seed, &LeftOut::default(), true));
        assert_eq!(first.failure, None, "seed {seed}");
        assert_eq!((first.digest, first.counts), (second.digest, second.counts), "seed {seed}");
        assert!(first.story.is_empty() && !second.story.is_empty());
    }
}

#[test]
fn another_seed_is_another_history() {
    let digests: std::collections::BTreeSet<u64> =
        (1..=20).map(|seed| history(seed, &LeftOut::default(), false).digest).collect();
    assert_eq!(digests.len(), 20);
}

#[test]
fn a_fault_that_is_left_out_does_not_strike() {
    let seed = 1;
    let whole = history(seed, &LeftOut::default(), false);
    assert!(whole.faults > 2, "{}", whole.faults);
    let none = LeftOut { faults: (0..10_000).collect(), ..LeftOut::default() };
    let calm = history(seed, &none, false);
    assert_eq!(calm.failure, None);
    assert!(!calm.counts.contains_key("crash"), "{:?}", calm.counts);
}

#[test]
fn histories_on_rocksdb_are_the_same_each_time() {
    let mut compared = 0;
    for seed in (1..=10).map(|number| number * ROCKS_ONE_IN) {
        let (first, second) =
            (history(seed, &LeftOut::default(), false), history(seed, &LeftOut::default(), false));
        assert_eq!(first.failure, None, "seed {seed}");
        assert_eq!(first.counts.get("history on RocksDB"), Some(&1), "seed {seed}");
        assert_eq!((first.digest, &first.counts), (second.digest, &second.counts), "seed {seed}");
        compared += first.counts.get("store compared with its changelog").copied().unwrap_or_default();
    }
    assert!(compared > 0);
}
