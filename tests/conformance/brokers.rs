//! Brokers that stop, crash, and are away for a while.

use thalweg::worker::port::{ChangelogReader, Log, LogAdmin, LogEvent, TransactionLog};

use crate::common::{INIT_MS, Pair, class, commit_class, ends, read, single, start, values};
use crate::world::{Lab, Steps, Who};

/// Members and their generation, offsets, open transactions: a restart takes nothing.
pub fn a_restart_is_not_noticed_in_the_group_and_in_transactions<L: Lab>(lab: &L) {
    let source = single(lab, "in");
    let who = Who {
        session_timeout_ms: 60_000,
        transaction_timeout_ms: 60_000,
        ..Who::of(&lab.unique("restart"), "0")
    };
    let mut log = lab.log(&who, &[source.topic.to_string()]);
    let (partitions, member) = crate::common::assigned(lab, &mut log);
    let mut producer = lab.producer(&who, &log);
    producer.init(INIT_MS).unwrap();
    start(&mut log, &partitions);
    let changelog = single(lab, "log");
    let transaction = |value: &str, offset| thalweg::worker::port::Transaction {
        changes: vec![(changelog.clone(), vec![value.as_bytes().to_vec().into()])],
        offsets: vec![(source.clone(), offset).into()],
        ..Default::default()
    };
    producer.commit(transaction("before", 1), &member).unwrap();
    let other = Who { transaction_timeout_ms: 60_000, ..Who::of(&lab.unique("restart"), "open") };
    let mut open = lab.steps(&other);
    open.init().unwrap();
    open.begin().unwrap();
    open.write(&changelog, "open").unwrap();
    open.send_offsets_as_nobody(&other.group, &[(source.clone(), 7)]).unwrap();
    lab.restart();
    for _ in 0..20 {
        lab.pass(100);
        assert!(log.poll().unwrap().is_none(), "the member is who it was");
    }
    producer.commit(transaction("after", 2), &member).unwrap();
    let mut reader = lab.reader(&who.group);
    lab.until_is([0, 2, 5], || ends(&mut reader, &changelog));
    open.commit().unwrap();
    lab.until_is([0, 6, 6], || ends(&mut reader, &changelog));
    let expected = values(&[(0, "before"), (2, "open"), (3, "after")]);
    assert_eq!(read(&mut reader, &changelog, 0, 6).unwrap(), expected);
    assert_eq!(reader.committed_offsets(std::slice::from_ref(&source), 10_000).unwrap(), [Some(2)]);
    let mut reader = lab.reader(&other.group);
    assert_eq!(reader.committed_offsets(std::slice::from_ref(&source), 10_000).unwrap(), [Some(7)]);
}

/// It is written down every minute only.
pub fn after_a_crash_the_log_start_may_have_moved_back<L: Lab>(lab: &L) {
    let log = single(lab, "log");
    for value in ["a", "b", "c"] {
        lab.append(&log, value);
    }
    assert_eq!(lab.admin().delete_records(&log, 2).unwrap(), 2);
    let mut reader = lab.reader("none");
    assert_eq!(ends(&mut reader, &log), [2, 3, 3]);
    lab.crash();
    let mut reader = lab.reader("none");
    lab.until("the broker", || reader.log_start(&log).ok());
    assert_eq!(ends(&mut reader, &log), [0, 3, 3]);
    assert_eq!(read(&mut reader, &log, 0, 3).unwrap(), values(&[(0, "a"), (1, "b"), (2, "c")]));
    assert_eq!(lab.admin().delete_records(&log, 1).unwrap(), 1, "a lower cut does something again");
}

/// It goes on beating its heart until it has given back what it lost, under its name but as no member; a
/// coordinator that was away as well still knows the name and takes it for another's.
pub fn a_member_that_holds_on_to_what_it_lost_is_fenced_by_its_own_past<L: Lab>(lab: &L) {
    let source = single(lab, "in");
    let who = Who::of(&lab.unique("past"), "0");
    let topics = [source.topic.to_string()];
    let mut log = lab.log(&who, &topics);
    crate::common::assigned(lab, &mut log);
    lab.pause(60_000);
    let lost = lab.until("the end of its session", || log.poll().unwrap());
    assert!(matches!(lost, LogEvent::Lost), "{lost:?}");
    lab.crash();
    let fenced = lab.until("the fence", || log.poll().map(|none| assert!(none.is_none())).err());
    assert_eq!(class(&Err::<(), _>(fenced)), "client", "no other has its name: a new client mends it");
    let mut log = lab.log(&who, &topics);
    crate::common::assigned(lab, &mut log);
}

pub fn a_commit_waits_for_brokers_that_are_away<L: Lab>(lab: &L) {
    let mut pair = Pair::new(lab, "waits");
    let changelog = single(lab, "log");
    pair.commit(pair.transaction(1));
    let began_ms = lab.now_ms();
    lab.pause(2_000);
    let receipt = pair.producer.commit(pair.changing(&changelog, &["a"], 2), &pair.member).unwrap();
    assert!(lab.now_ms() >= began_ms + 1_500, "nobody was there");
    assert_eq!(receipt.change_offsets, [[0]]);
    assert_eq!(pair.committed(), Some(2));
    // It was shorter than a session.
    assert!(pair.log.poll().unwrap().is_none());
    pair.commit(pair.changing(&changelog, &["b"], 3));
    let mut reader = pair.reader();
    lab.until_is([0, 4, 4], || ends(&mut reader, &changelog));
}

pub fn a_commit_that_cannot_end_in_its_time_is_in_doubt<L: Lab>(lab: &L) {
    let source = single(lab, "in");
    let who = Who {
        session_timeout_ms: 30_000,
        transaction_timeout_ms: 2_000,
        ..Who::of(&lab.unique("doubt"), "0")
    };
    let mut log = lab.log(&who, &[source.topic.to_string()]);
    let (_, member) = crate::common::assigned(lab, &mut log);
    let mut producer = lab.producer(&who, &log);
    producer.init(INIT_MS).unwrap();
    let transaction = |offset| thalweg::worker::port::Transaction {
        offsets: vec![(source.clone(), offset).into()],
        ..Default::default()
    };
    producer.commit(transaction(1), &member).unwrap();
    lab.pause(4_000);
    let doubt = producer.commit(transaction(2), &member);
    assert_eq!(commit_class(&doubt), "doubt", "{doubt:?}");
    producer.init(INIT_MS).unwrap();
    let mut reader = lab.reader(&who.group);
    let found = reader.committed_offsets(std::slice::from_ref(&source), 30_000).unwrap();
    assert!([Some(1), Some(2)].contains(&found[0]), "whole or not at all: {found:?}");
    producer.commit(transaction(3), &member).unwrap();
    assert_eq!(reader.committed_offsets(std::slice::from_ref(&source), 30_000).unwrap(), [Some(3)]);
}

pub fn a_restore_waits_for_brokers_that_are_away<L: Lab>(lab: &L) {
    let log = single(lab, "log");
    for value in ["a", "b"] {
        lab.append(&log, value);
    }
    let mut reader = lab.reader("none");
    assert_eq!(read(&mut reader, &log, 0, 2).unwrap().len(), 2);
    lab.pause(2_500);
    let stalled = reader.read(&log, 0, 2, 1_000, &mut |_, _| Ok(()));
    assert_eq!(class(&stalled), "retry", "{stalled:?}");
    assert_eq!(read(&mut reader, &log, 0, 2).unwrap(), values(&[(0, "a"), (1, "b")]));
    assert_eq!(reader.high_watermark(&log).unwrap(), 2);
}
