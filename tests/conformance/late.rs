//! Processes die with requests on their way, which arrive when somebody else is at work, and requests that
//! are sent twice.

use thalweg::worker::port::{ChangelogReader, LogAdmin};

use crate::common::{ends, read, single, values};
use crate::world::{Call, Class, Lab, Steps, Who};

/// Whose producer `who` was, and what it was about to commit: a record "old" and the offset 9.
fn open<L: Lab>(lab: &L, log: &thalweg::record::TopicPartition, who: &Who) -> L::Steps {
    let mut old = lab.steps(who);
    old.init().unwrap();
    old.begin().unwrap();
    old.write(log, "old").unwrap();
    old.send_offsets_as_nobody(&who.group, &[(log.clone(), 9)]).unwrap();
    old
}

pub fn a_commit_that_comes_after_a_new_owner_is_refused<L: Lab>(lab: &L) {
    let log = single(lab, "log");
    let who = Who::of(&lab.unique("late"), "0");
    let old = open(lab, &log, &who);
    lab.dies_in(old, Call::Commit, 1_000);
    let mut new = lab.steps(&who);
    new.init().unwrap();
    new.begin().unwrap();
    new.write(&log, "new").unwrap();
    lab.pass(1_500);
    let mut reader = lab.reader(&who.group);
    assert_eq!(ends(&mut reader, &log), [0, 2, 3], "what the new one has open is not touched either");
    new.send_offsets_as_nobody(&who.group, &[(log.clone(), 1)]).unwrap();
    new.commit().unwrap();
    lab.until_is([0, 4, 4], || ends(&mut reader, &log));
    assert_eq!(read(&mut reader, &log, 0, 4).unwrap(), values(&[(2, "new")]));
    assert_eq!(reader.committed_offsets(std::slice::from_ref(&log), 10_000).unwrap(), [Some(1)]);
}

pub fn a_commit_that_comes_before_a_new_owner_counts_whole<L: Lab>(lab: &L) {
    let log = single(lab, "log");
    let who = Who::of(&lab.unique("early"), "0");
    let old = open(lab, &log, &who);
    let mut reader = lab.reader(&who.group);
    lab.dies_in(old, Call::Commit, 1_500);
    let unstable = reader.committed_offsets(std::slice::from_ref(&log), 300);
    assert!(unstable.is_err(), "{unstable:?}");
    assert_eq!(ends(&mut reader, &log), [0, 0, 1]);
    // Whoever asks for stable offsets hears of it.
    assert_eq!(reader.committed_offsets(std::slice::from_ref(&log), 20_000).unwrap(), [Some(9)]);
    lab.steps(&who).init().unwrap();
    lab.until_is([0, 2, 2], || ends(&mut reader, &log));
    assert_eq!(read(&mut reader, &log, 0, 2).unwrap(), values(&[(0, "old")]));
}

/// Into a partition of the transaction, and into one that was added and not written to yet.
pub fn records_that_come_after_a_new_owner_are_refused<L: Lab>(lab: &L) {
    for first in [false, true] {
        let (log, other) = (single(lab, "log"), single(lab, "log"));
        let who = Who::of(&lab.unique("records"), "0");
        let old = open(lab, &log, &who);
        let target = if first { other.clone() } else { log.clone() };
        lab.dies_in(old, Call::Write(target, "zombie".into()), 1_000);
        let mut new = lab.steps(&who);
        new.init().unwrap();
        lab.pass(1_500);
        let mut reader = lab.reader(&who.group);
        // A marker in each partition of the transaction.
        lab.until_is([0, 2, 2], || ends(&mut reader, &log));
        lab.until_is(if first { [0, 1, 1] } else { [0, 0, 0] }, || ends(&mut reader, &other));
        new.begin().unwrap();
        new.write(&other, "new").unwrap();
        new.commit().unwrap();
        assert_eq!(reader.committed_offsets(std::slice::from_ref(&log), 10_000).unwrap(), [None]);
    }
}

pub fn offsets_that_come_after_a_new_owner_are_refused_and_hold_nothing<L: Lab>(lab: &L) {
    let log = single(lab, "log");
    let who = Who::of(&lab.unique("offsets"), "0");
    let mut old = lab.steps(&who);
    old.init().unwrap();
    old.begin().unwrap();
    old.write(&log, "old").unwrap();
    lab.dies_in(old, Call::Offsets(who.group.clone(), vec![(log.clone(), 9)]), 1_000);
    let mut new = lab.steps(&who);
    new.init().unwrap();
    lab.pass(1_500);
    let mut reader = lab.reader(&who.group);
    assert_eq!(reader.committed_offsets(std::slice::from_ref(&log), 2_000).unwrap(), [None]);
    new.begin().unwrap();
    new.send_offsets_as_nobody(&who.group, &[(log.clone(), 1)]).unwrap();
    new.commit().unwrap();
    assert_eq!(reader.committed_offsets(std::slice::from_ref(&log), 10_000).unwrap(), [Some(1)]);
    lab.until_is([(log, 1)].to_vec(), || lab.admin().group_offsets(&who.group).unwrap());
}

/// The same epoch is all that the coordinator has to tell them apart: why a producer is replaced after a
/// request that was not answered in time.
pub fn a_copy_of_a_commit_ends_the_next_transaction_of_the_same_producer<L: Lab>(lab: &L) {
    let log = single(lab, "log");
    let who = Who::of(&lab.unique("copy"), "0");
    let mut producer = lab.impatient(&who);
    producer.init().unwrap();
    producer.begin().unwrap();
    producer.write(&log, "whole").unwrap();
    lab.commits_twice(&mut producer, 1_000).unwrap();
    let mut reader = lab.reader(&who.group);
    lab.until_is([0, 2, 2], || ends(&mut reader, &log));
    producer.begin().unwrap();
    producer.write(&log, "half").unwrap();
    assert_eq!(ends(&mut reader, &log), [0, 2, 3]);
    lab.pass(1_500);
    lab.until_is([0, 4, 4], || ends(&mut reader, &log));
    assert_eq!(read(&mut reader, &log, 0, 4).unwrap(), values(&[(0, "whole"), (2, "half")]));
    assert!(producer.write(&log, "other half").is_err(), "it is in no transaction any more");
}

pub fn a_copy_of_a_commit_is_refused_once_the_producer_is_replaced<L: Lab>(lab: &L) {
    let log = single(lab, "log");
    let who = Who::of(&lab.unique("replaced"), "0");
    let mut producer = lab.impatient(&who);
    producer.init().unwrap();
    producer.begin().unwrap();
    producer.write(&log, "whole").unwrap();
    lab.commits_twice(&mut producer, 1_000).unwrap();
    let mut next = lab.steps(&who);
    next.init().unwrap();
    next.begin().unwrap();
    next.write(&log, "half").unwrap();
    lab.pass(1_500);
    let mut reader = lab.reader(&who.group);
    assert_eq!(ends(&mut reader, &log), [0, 2, 3], "open as before");
    next.write(&log, "other half").unwrap();
    next.commit().unwrap();
    lab.until_is([0, 5, 5], || ends(&mut reader, &log));
    assert_eq!(producer.begin().and_then(|()| producer.write(&log, "zombie")), Err(Class::Fatal));
}
