//! Who may write and commit, and who not any more.

use thalweg::record::TopicPartition;
use thalweg::worker::port::{ChangelogReader, Log, LogAdmin, Member, Transaction, TransactionLog};

use crate::common::{INIT_MS, Pair, commit_class, create_with, ends, output, read, single, values};
use crate::world::{Class, Steps, Who, World};

pub fn a_second_producer_of_the_id_fences_the_first<W: World>(world: &W) {
    let mut pair = Pair::new(world, "fence");
    let changelog = single(world, "log");
    let mut second = world.producer(&pair.who, &pair.log);
    second.init(INIT_MS).unwrap();
    let zombie = pair.producer.commit(pair.changing(&changelog, &["zombie"], 1), &pair.member);
    assert_eq!(commit_class(&zombie), "doubt", "{zombie:?}");
    let unusable = pair.producer.commit(pair.transaction(1), &pair.member);
    assert_eq!(commit_class(&unusable), "doubt", "{unusable:?}");
    second.commit(pair.changing(&changelog, &["owner"], 2), &pair.member).unwrap();
    let mut reader = pair.reader();
    world.until_is(vec!["owner".to_string()], || {
        let end = reader.last_stable_offset(&changelog).unwrap();
        let seen = read(&mut reader, &changelog, 0, end).unwrap();
        seen.into_iter().map(|(_, value)| value).collect()
    });
    assert_eq!(pair.committed(), Some(2));
    // A new one fences in its turn.
    pair.producer.init(INIT_MS).unwrap();
    pair.commit(pair.transaction(3));
    let fenced = second.commit(pair.transaction(4), &pair.member);
    assert_eq!(commit_class(&fenced), "doubt", "{fenced:?}");
    assert_eq!(pair.committed(), Some(3));
}

pub fn a_new_producer_aborts_what_the_old_one_left_open<W: World>(world: &W) {
    let mut pair = Pair::new(world, "left-open");
    let changelog = single(world, "log");
    pair.commit(pair.changing(&changelog, &["kept"], 1));
    let mut doomed = world.steps(&pair.who);
    doomed.init().unwrap();
    doomed.begin().unwrap();
    doomed.write(&changelog, "aborted").unwrap();
    doomed.send_offsets_as_nobody(&pair.who.group, &[(pair.source.clone(), 99)]).unwrap();
    let mut reader = pair.reader();
    assert_eq!(ends(&mut reader, &changelog), [0, 2, 3]);
    pair.producer.init(INIT_MS).unwrap();
    world.until("the abort's marker", || (ends(&mut reader, &changelog) == [0, 4, 4]).then_some(()));
    assert_eq!(doomed.commit(), Err(Class::Fatal));
    assert_eq!(pair.committed(), Some(1), "its offsets are gone with it");
    pair.commit(pair.changing(&changelog, &["next"], 2));
    world.until_is([0, 6, 6], || ends(&mut reader, &changelog));
    assert_eq!(read(&mut reader, &changelog, 0, 6).unwrap(), values(&[(0, "kept"), (4, "next")]));
}

pub fn each_call_of_a_fenced_producer_is_fatal<W: World>(world: &W) {
    let log = single(world, "log");
    let other = single(world, "log");
    let group = world.unique("fenced");
    let who = Who::of(&group, "0");
    type Call<S> = (&'static str, fn(&mut S, &TopicPartition, &str) -> Result<(), Class>);
    let calls: [Call<W::Steps>; 4] = [
        ("a record to a partition of the transaction", |old, log, _| old.write(log, "zombie")),
        ("offsets", |old, log, group| old.send_offsets_as_nobody(group, &[(log.clone(), 1)])),
        ("the commit", |old, _, _| old.commit()),
        ("the abort", |old, _, _| old.abort()),
    ];
    for (what, call) in calls {
        let mut old = world.steps(&who);
        old.init().unwrap();
        old.begin().unwrap();
        old.write(&log, "open").unwrap();
        let mut new = world.steps(&who);
        new.init().unwrap();
        assert_eq!(call(&mut old, &log, &group), Err(Class::Fatal), "{what}");
        assert_eq!(old.begin(), Err(Class::Fatal), "{what}, and the next transaction");
    }
    // In its first transaction after the fencing, where nothing is open.
    let mut old = world.steps(&who);
    old.init().unwrap();
    world.steps(&who).init().unwrap();
    old.begin().unwrap();
    assert_eq!(old.write(&other, "zombie"), Err(Class::Fatal));
    assert_eq!(ends(&mut world.reader(&group), &other), [0, 0, 0]);
    assert_eq!(world.admin().group_offsets(&group).unwrap(), []);
}

pub fn a_transaction_that_lasts_too_long_is_aborted_and_fenced<W: World>(world: &W) {
    let log = single(world, "log");
    let group = world.unique("slow");
    let who = Who { transaction_timeout_ms: 1_000, ..Who::of(&group, "0") };
    let mut slow = world.steps(&who);
    slow.init().unwrap();
    slow.begin().unwrap();
    slow.write(&log, "slow").unwrap();
    slow.send_offsets_as_nobody(&group, &[(log.clone(), 7)]).unwrap();
    let mut reader = world.reader(&group);
    world.pass(500);
    assert_eq!(ends(&mut reader, &log), [0, 0, 1], "its time is not up");
    world.until("the abort", || (ends(&mut reader, &log) == [0, 2, 2]).then_some(()));
    // Its epoch is over: a record that comes now would stand in no transaction.
    assert_eq!(slow.write(&log, "late"), Err(Class::Fatal));
    assert_eq!(slow.commit(), Err(Class::Fatal));
    assert_eq!(ends(&mut reader, &log), [0, 2, 2]);
    assert_eq!(read(&mut reader, &log, 0, 2).unwrap(), []);
    assert_eq!(reader.committed_offsets(std::slice::from_ref(&log), 10_000).unwrap(), [None]);
    // A new one goes on.
    let mut next = world.steps(&who);
    next.init().unwrap();
    next.begin().unwrap();
    next.write(&log, "next").unwrap();
    next.commit().unwrap();
    assert_eq!(read(&mut reader, &log, 0, 3).unwrap(), values(&[(2, "next")]));
}

pub fn another_generation_another_member_and_a_member_that_left_are_refused<W: World>(world: &W) {
    let mut pair = Pair::new(world, "owner");
    let others = [
        Member { generation: pair.member.generation + 1, ..pair.member.clone() },
        Member { generation: -1, id: String::new() },
        Member { generation: pair.member.generation, id: String::new() },
        Member { generation: pair.member.generation, id: "somebody".into() },
    ];
    for other in others {
        let refused = pair.producer.commit(pair.transaction(1), &other);
        assert_eq!(commit_class(&refused), "not owner", "{other:?}: {refused:?}");
        pair.producer.init(INIT_MS).unwrap();
    }
    pair.log.leave(10_000).unwrap();
    let empty = Member { generation: -1, id: String::new() };
    for member in [pair.member.clone(), empty] {
        let refused = pair.producer.commit(pair.transaction(1), &member);
        assert_eq!(commit_class(&refused), "not owner", "{member:?}: {refused:?}");
        pair.producer.init(INIT_MS).unwrap();
    }
    assert_eq!(pair.committed(), None);
}

pub fn a_transaction_without_offsets_is_refused<W: World>(world: &W) {
    let mut pair = Pair::new(world, "empty");
    let refused = pair.producer.commit(Transaction::default(), &pair.member);
    assert_eq!(commit_class(&refused), "doubt", "{refused:?}");
}

pub fn what_an_operator_must_mend_stops_the_commit<W: World>(world: &W) {
    let mut pair = Pair::new(world, "stop");
    let sink = single(world, "out");
    let narrow = TopicPartition::new(&create_with(world, "narrow", 1, &[("max.message.bytes", "1000")]), 0);
    let nowhere = TopicPartition::new(&world.unique("nowhere"), 0);
    let beyond = TopicPartition { partition: 1, ..sink.clone() };
    // Nothing that a compression could make small.
    let text = |bytes: usize| {
        let mut seed = 1_u64;
        let mut next = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(b' ' + u8::try_from((seed >> 33) % 90).unwrap())
        };
        (0..bytes).map(|_| next()).collect::<String>()
    };
    let records = [
        ("larger than a client takes", output(&sink, &text(3_000_000))),
        ("larger than the topic takes", output(&narrow, &text(5_000))),
        ("to a topic that is missing", output(&nowhere, "x")),
        ("to a partition that is missing", output(&beyond, "x")),
    ];
    for (what, record) in records {
        let mut transaction = pair.transaction(1);
        transaction.outputs.push(record);
        let stopped = pair.producer.commit(transaction, &pair.member);
        assert_eq!(commit_class(&stopped), "stop", "{what}: {stopped:?}");
        pair.producer.init(INIT_MS).unwrap();
    }
    assert_eq!(world.admin().describe(&[nowhere.topic.to_string()]).unwrap(), [None], "none came by itself");
    assert_eq!(pair.committed(), None);
    let mut fitting = pair.transaction(1);
    fitting.outputs.push(output(&narrow, &text(500)));
    pair.commit(fitting);
    assert_eq!(pair.committed(), Some(1));
}

pub fn calls_out_of_order_are_refused<W: World>(world: &W) {
    let log = single(world, "log");
    let who = Who::of(&world.unique("order"), "0");
    let offsets = [(log.clone(), 1)];
    let mut producer = world.steps(&who);
    assert_eq!(producer.begin(), Err(Class::Abort), "not initialised");
    assert_eq!(producer.commit(), Err(Class::Abort));
    producer.init().unwrap();
    assert_eq!(producer.write(&log, "x"), Err(Class::Abort), "no transaction has begun");
    assert_eq!(producer.send_offsets_as_nobody(&who.group, &offsets), Err(Class::Abort));
    assert_eq!(producer.commit(), Err(Class::Abort));
    producer.begin().unwrap();
    assert_eq!(producer.begin(), Err(Class::Abort), "one has begun");
    producer.write(&log, "a").unwrap();
    producer.commit().unwrap();
    assert_eq!(producer.commit(), Err(Class::Abort), "it has ended");
    let mut reader = world.reader("none");
    world.until_is([0, 2, 2], || ends(&mut reader, &log));
}

pub fn after_a_write_that_failed_there_is_nothing_but_to_abort<W: World>(world: &W) {
    let log = single(world, "log");
    let beyond = TopicPartition { partition: 1, ..log.clone() };
    let who = Who::of(&world.unique("failed"), "0");
    let mut producer = world.steps(&who);
    producer.init().unwrap();
    producer.begin().unwrap();
    producer.write(&log, "dropped").unwrap();
    assert_eq!(producer.write(&beyond, "nowhere"), Err(Class::Abort));
    producer.abort().unwrap();
    producer.begin().unwrap();
    producer.write(&log, "kept").unwrap();
    producer.commit().unwrap();
    let mut reader = world.reader("none");
    world.until_is([0, 4, 4], || ends(&mut reader, &log));
    assert_eq!(read(&mut reader, &log, 0, 4).unwrap(), values(&[(2, "kept")]));
}

pub fn producers_of_different_ids_do_not_fence_each_other<W: World>(world: &W) {
    let log = single(world, "log");
    let group = world.unique("peaceful");
    let mut producers = ["0", "1"].map(|worker| world.steps(&Who::of(&group, worker)));
    for producer in &mut producers {
        producer.init().unwrap();
        producer.begin().unwrap();
        producer.write(&log, "x").unwrap();
    }
    for producer in &mut producers {
        producer.commit().unwrap();
    }
    let mut reader = world.reader("none");
    world.until_is([0, 4, 4], || ends(&mut reader, &log));
    assert_eq!(read(&mut reader, &log, 0, 4).unwrap().len(), 2);
}
