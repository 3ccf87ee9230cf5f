//! Joining, sharing, leaving, being thrown out.

use std::collections::BTreeMap;

use thalweg::record::TopicPartition;
use thalweg::worker::port::{
    ChangelogReader, Log, LogAdmin, LogEvent, Member, TopicSpec, Transaction, TransactionLog,
};

use crate::common::{INIT_MS, Pair, assigned, class, commit_class, create, single, start};
use crate::world::{Who, World};

type Given = (Vec<TopicPartition>, Member);

/// Polls all until each has been assigned something in the same generation.
fn all_assigned<W: World>(world: &W, logs: &mut [&mut W::Log]) -> Vec<Given> {
    let mut given: BTreeMap<usize, Given> = BTreeMap::new();
    world.until("everybody's assignment", || {
        for (index, log) in logs.iter_mut().enumerate() {
            match log.poll().unwrap() {
                Some(LogEvent::Assigned { partitions, member }) => {
                    given.insert(index, (partitions, member));
                }
                Some(_) => log.release().unwrap(),
                None => {}
            }
        }
        let mut generations: Vec<i32> = given.values().map(|(_, member)| member.generation).collect();
        generations.dedup();
        (given.len() == logs.len() && generations.len() == 1).then_some(())
    });
    given.into_values().collect()
}

fn sorted(mut partitions: Vec<TopicPartition>) -> Vec<TopicPartition> {
    partitions.sort();
    partitions
}

pub fn two_consumers_share_and_a_static_member_leaves_at_once<W: World>(world: &W) {
    let topic = create(world, "shared", 4);
    let group = world.unique("rebalance");
    let mut first = world.log(&Who::of(&group, "0"), std::slice::from_ref(&topic));
    let (all, before) = assigned(world, &mut first);
    assert_eq!(all.len(), 4);
    start(&mut first, &all);
    let mut second = world.log(&Who::of(&group, "1"), std::slice::from_ref(&topic));
    world.until("the revocation", || {
        assert!(second.poll().unwrap().is_none(), "nothing is given away before it is released");
        match first.poll().unwrap() {
            Some(LogEvent::Revoked) => Some(()),
            other => {
                assert!(other.is_none(), "{other:?}");
                None
            }
        }
    });
    let refused = first.start(&[]);
    assert_eq!(class(&refused), "retry", "the group waits: {refused:?}");
    first.release().unwrap();
    let given = all_assigned(world, &mut [&mut first, &mut second]);
    let [one, two] = &given[..] else { panic!("{given:?}") };
    let of = |numbers: [i32; 2]| numbers.map(|number| TopicPartition::new(&topic, number)).to_vec();
    assert_eq!(sorted(one.0.clone()), of([0, 1]));
    assert_eq!(sorted(two.0.clone()), of([2, 3]));
    assert_eq!(one.1.generation, before.generation + 1);
    assert_eq!(one.1.id, before.id);
    second.leave(10_000).unwrap();
    let members = world.admin().group_members(&group).unwrap();
    assert_eq!(members.len(), 1, "at once, without waiting for a session's end");
    let (all, last) = assigned(world, &mut first);
    assert_eq!((all.len(), last.generation), (4, before.generation + 2));
    first.leave(10_000).unwrap();
    assert_eq!(world.admin().group_members(&group).unwrap(), [] as [String; 0]);
}

pub fn range_gives_each_topic_to_its_own_subscribers<W: World>(world: &W) {
    let (a, b) = (create(world, "a", 5), create(world, "b", 3));
    let group = world.unique("range");
    let both = [a.clone(), b.clone()];
    let mut logs = [
        world.log(&Who::of(&group, "1"), &both),
        world.log(&Who::of(&group, "0"), std::slice::from_ref(&a)),
        world.log(&Who::of(&group, "2"), &both),
    ];
    let [one, zero, two] = &mut logs;
    // Once more after everybody is there.
    let given = world.until("an assignment of all", || {
        let given = all_assigned(world, &mut [&mut *zero, &mut *one, &mut *two]);
        let count: usize = given.iter().map(|(partitions, _)| partitions.len()).sum();
        (count == 8).then_some(given)
    });
    let of = |topic: &str, numbers: &[i32]| {
        numbers.iter().map(|number| TopicPartition::new(topic, *number)).collect::<Vec<_>>()
    };
    // By the names of the static members, whoever came first; the first ones get more.
    assert_eq!(sorted(given[0].0.clone()), of(&a, &[0, 1]));
    assert_eq!(sorted(given[1].0.clone()), sorted([of(&a, &[2, 3]), of(&b, &[0, 1])].concat()));
    assert_eq!(sorted(given[2].0.clone()), sorted([of(&a, &[4]), of(&b, &[2])].concat()));
}

pub fn a_static_member_that_restarts_gets_its_partitions_back_without_a_rebalance<W: World>(world: &W) {
    let topic = create(world, "static", 2);
    let group = world.unique("static");
    let names = std::slice::from_ref(&topic);
    let mut stays = world.log(&Who::of(&group, "0"), names);
    assigned(world, &mut stays);
    let mut goes = world.log(&Who::of(&group, "1"), names);
    let given = all_assigned(world, &mut [&mut stays, &mut goes]);
    drop(goes);
    let mut back = world.log(&Who::of(&group, "1"), names);
    let (partitions, member) = assigned(world, &mut back);
    assert_eq!(partitions, given[1].0);
    assert_eq!(member.generation, given[1].1.generation);
    assert_ne!(member.id, given[1].1.id);
    // For longer than a heartbeat takes to tell.
    for _ in 0..30 {
        world.pass(100);
        assert!(stays.poll().unwrap().is_none() && back.poll().unwrap().is_none());
    }
    assert_eq!(world.admin().group_members(&group).unwrap().len(), 2);
}

pub fn a_member_that_falls_silent_keeps_its_partitions_for_a_session<W: World>(world: &W) {
    let topic = create(world, "silent", 2);
    let group = world.unique("silent");
    let names = std::slice::from_ref(&topic);
    let mut stays = world.log(&Who::of(&group, "0"), names);
    assigned(world, &mut stays);
    let mut dies = world.log(&Who::of(&group, "1"), names);
    let given = all_assigned(world, &mut [&mut stays, &mut dies]);
    drop(dies);
    let died_ms = world.now_ms();
    while world.now_ms() < died_ms + 4_000 {
        world.pass(100);
        assert!(stays.poll().unwrap().is_none(), "its session has not ended");
    }
    let (partitions, member) = assigned(world, &mut stays);
    assert_eq!(partitions.len(), 2);
    assert_eq!(member.generation, given[0].1.generation + 1);
}

pub fn a_restore_may_last_longer_than_a_session<W: World>(world: &W) {
    let mut pair = Pair::new(world, "restore");
    let end_ms = world.now_ms() + pair.who.session_timeout_ms + 2_000;
    while world.now_ms() < end_ms {
        assert!(pair.log.poll().unwrap().is_none());
        world.pass(500);
    }
    pair.commit(pair.transaction(5));
    assert_eq!(pair.committed(), Some(5));
}

/// A user that does not call its consumer loses its partitions: static and dynamic members.
pub fn partitions_that_were_lost_are_told_and_committed_no_more<W: World>(world: &W) {
    for is_static in [true, false] {
        let source = single(world, "lost");
        let mut who = Who { max_poll_interval_ms: 6_000, ..Who::of(&world.unique("lost"), "0") };
        who.instance = who.instance.filter(|_| is_static);
        let mut log = world.log(&who, &[source.topic.to_string()]);
        let (partitions, member) = assigned(world, &mut log);
        let mut producer = world.producer(&who, &log);
        producer.init(INIT_MS).unwrap();
        start(&mut log, &partitions);
        world.pass(8_000);
        let transaction =
            || Transaction { offsets: vec![(source.clone(), 3).into()], ..Transaction::default() };
        let refused = producer.commit(transaction(), &member);
        assert_eq!(commit_class(&refused), "not owner", "{refused:?}");
        world.until("the loss", || match log.poll().unwrap() {
            Some(LogEvent::Lost) => Some(()),
            other => {
                assert!(other.is_none(), "{other:?}");
                None
            }
        });
        log.release().unwrap();
        let (again, now) = assigned(world, &mut log);
        assert_eq!(again, partitions);
        assert_ne!(now, member);
        producer.init(INIT_MS).unwrap();
        producer.commit(transaction(), &now).unwrap();
        world.until_is(vec![(source.clone(), 3)], || world.admin().group_offsets(&who.group).unwrap());
    }
}

pub fn a_second_process_with_the_instance_id_fences_the_first<W: World>(world: &W) {
    let mut pair = Pair::new(world, "instance");
    let mut second = world.log(&pair.who, &[pair.source.topic.to_string()]);
    let (partitions, member) = assigned(world, &mut second);
    assert_eq!(partitions, std::slice::from_ref(&pair.source));
    assert_ne!(member.id, pair.member.id);
    assert_eq!(member.generation, pair.member.generation);
    let error = world.until("the fencing", || {
        let polled = pair.log.poll();
        polled.is_err().then_some(polled)
    });
    assert_eq!(class(&error), "fenced", "{error:?}");
    let refused = pair.producer.commit(pair.transaction(1), &pair.member);
    assert!(refused.is_err(), "a fenced member's commit");
    assert_eq!(pair.committed(), None);
    second.leave(10_000).unwrap();
}

/// The fenced process does not know yet, and its producer has not been fenced.
pub fn a_commit_under_a_member_id_that_was_replaced_is_in_doubt<W: World>(world: &W) {
    let mut pair = Pair::new(world, "replaced");
    let mut second = world.log(&pair.who, &[pair.source.topic.to_string()]);
    let (_, member) = assigned(world, &mut second);
    let late = pair.producer.commit(pair.transaction(1), &pair.member);
    assert!(["doubt", "not owner"].contains(&commit_class(&late)), "{late:?}");
    let mut producer = world.producer(&pair.who, &second);
    producer.init(INIT_MS).unwrap();
    producer.commit(pair.transaction(2), &member).unwrap();
    assert_eq!(pair.committed(), Some(2));
}

pub fn leaving_in_the_middle_of_the_first_join_leaves_nothing_behind<W: World>(world: &W) {
    let topic = create(world, "join", 1);
    for steps in 0..5 {
        let group = world.unique("join");
        let mut log = world.log(&Who::of(&group, "0"), std::slice::from_ref(&topic));
        for _ in 0..steps {
            log.poll().unwrap();
            world.pass(7);
        }
        log.leave(10_000).unwrap();
        assert_eq!(world.admin().group_members(&group).unwrap(), [] as [String; 0], "after {steps} steps");
    }
}

pub fn a_topic_that_was_created_again_has_another_id<W: World>(world: &W) {
    let topic = create(world, "again", 3);
    let mut admin = world.admin();
    let names = [topic.clone(), world.unique("missing")];
    let first = admin.describe(&names).unwrap();
    assert_eq!(first[1], None);
    let first = first[0].clone().unwrap();
    assert_eq!(first.partitions, 3);
    let of = |name: &str| first.config[name].clone();
    assert_eq!((of("max.message.bytes"), of("cleanup.policy")), ("1048588".into(), "delete".into()));
    assert_ne!(first.id, [0; 16]);
    // Created again while it exists: no error, no change.
    let spec = TopicSpec { name: topic.clone(), partitions: 2, replication: 1, config: Vec::new() };
    admin.create(&spec).unwrap();
    assert_eq!(admin.describe(&names).unwrap()[0].clone().unwrap(), first);
    assert_eq!(admin.list(&topic).unwrap(), std::slice::from_ref(&topic));
    admin.delete(std::slice::from_ref(&topic)).unwrap();
    admin.delete(std::slice::from_ref(&topic)).unwrap();
    world.until("the topic's end", || admin.describe(&names).unwrap()[0].is_none().then_some(()));
    admin.create(&spec).unwrap();
    let second = admin.describe(&names).unwrap()[0].clone().unwrap();
    assert_ne!(second.id, first.id);
    assert_eq!(second.partitions, 2);
    let spec = |partitions, replication| {
        let name = world.unique("refused");
        TopicSpec { name, partitions, replication, config: Vec::new() }
    };
    let refused = admin.create(&spec(1, 99));
    assert_eq!(class(&refused), "stop", "{refused:?}");
}

/// The group waits for a member no longer than its `max.poll.interval.ms`, however alive it is.
pub fn a_member_that_does_not_give_back_in_time_is_out<W: World>(world: &W) {
    let topic = create(world, "keeps", 2);
    let group = world.unique("keeps");
    let who = |worker: &str| Who { instance: None, max_poll_interval_ms: 6_000, ..Who::of(&group, worker) };
    let names = std::slice::from_ref(&topic);
    let mut keeps = world.log(&who("0"), names);
    let (partitions, member) = assigned(world, &mut keeps);
    let mut producer = world.producer(&who("0"), &keeps);
    producer.init(INIT_MS).unwrap();
    let mut other = world.log(&who("1"), names);
    world.until("the revocation", || {
        assert!(other.poll().unwrap().is_none());
        keeps.poll().unwrap().map(|event| assert!(matches!(event, LogEvent::Revoked), "{event:?}"))
    });
    let (all, _) = world.until("all partitions", || {
        assert!(keeps.poll().unwrap().is_none(), "it is told once");
        match other.poll().unwrap() {
            Some(LogEvent::Assigned { partitions, member }) => Some((partitions, member)),
            event => {
                assert!(event.is_none(), "{event:?}");
                None
            }
        }
    });
    assert_eq!(sorted(all), sorted(partitions));
    // Its heartbeats tell it, and it has nothing more to give back.
    for _ in 0..30 {
        world.pass(100);
        assert!(keeps.poll().unwrap().is_none() && other.poll().unwrap().is_none());
    }
    let offsets = vec![(TopicPartition::new(&topic, 0), 1).into()];
    let late = producer.commit(Transaction { offsets, ..Transaction::default() }, &member);
    assert_eq!(commit_class(&late), "not owner", "{late:?}");
    assert_eq!(world.admin().group_offsets(&group).unwrap(), []);
    keeps.release().unwrap();
    let given = all_assigned(world, &mut [&mut keeps, &mut other]);
    assert_eq!(given.iter().map(|(partitions, _)| partitions.len()).collect::<Vec<_>>(), [1, 1]);
}

pub fn settings_that_the_brokers_do_not_take_stop_the_client<W: World>(world: &W) {
    let topic = create(world, "in", 1);
    let short = Who { session_timeout_ms: 500, ..Who::of(&world.unique("short"), "0") };
    let mut log = world.log(&short, std::slice::from_ref(&topic));
    let error = world.until("the refusal", || {
        let polled = log.poll();
        polled.is_err().then_some(polled)
    });
    assert_eq!(class(&error), "stop", "{error:?}");
    let long = Who { transaction_timeout_ms: 1_000_000, ..Who::of(&world.unique("long"), "0") };
    let log = world.log(&long, &[topic]);
    let refused = world.producer(&long, &log).init(INIT_MS);
    assert_eq!(class(&refused), "stop", "{refused:?}");
}

pub fn what_is_asked_about_a_missing_topic_stops_and_reading_it_waits<W: World>(world: &W) {
    let nowhere = TopicPartition::new(&world.unique("nowhere"), 0);
    let beyond = TopicPartition { partition: 1, ..single(world, "one") };
    for partition in [nowhere, beyond] {
        let mut reader = world.reader("none");
        let found = reader.log_start(&partition);
        assert_eq!(class(&found), "stop", "{partition}: {found:?}");
        let found = reader.last_stable_offset(&partition);
        assert_eq!(class(&found), "stop", "{partition}: {found:?}");
        // librdkafka waits for the topic to come.
        let found = reader.read(&partition, 0, 1, 1_000, &mut |_, _| Ok(()));
        assert_eq!(class(&found), "retry", "{partition}: {found:?}");
        let found = reader.committed_offsets(std::slice::from_ref(&partition), 10_000).unwrap();
        assert_eq!(found, [None], "{partition}");
    }
}

pub fn a_dynamic_member_leaves_at_once<W: World>(world: &W) {
    let topic = create(world, "dynamic", 2);
    let group = world.unique("dynamic");
    let who = |worker: &str| Who { instance: None, ..Who::of(&group, worker) };
    let names = std::slice::from_ref(&topic);
    let mut first = world.log(&who("0"), names);
    let (_, before) = assigned(world, &mut first);
    let mut second = world.log(&who("1"), names);
    all_assigned(world, &mut [&mut first, &mut second]);
    first.leave(10_000).unwrap();
    let (all, now) = assigned(world, &mut second);
    assert_eq!((all.len(), now.generation), (2, before.generation + 2));
    let members = world.admin().group_members(&group).unwrap();
    assert!(members.len() == 1 && members[0].starts_with(&now.id), "{members:?}");
}

pub fn two_groups_share_nothing<W: World>(world: &W) {
    let topic = create(world, "both", 2);
    let names = std::slice::from_ref(&topic);
    let groups = ["a", "b"].map(|name| world.unique(name));
    let mut first = world.log(&Who::of(&groups[0], "0"), names);
    let (one, member) = assigned(world, &mut first);
    let who = Who::of(&groups[1], "0");
    let mut second = world.log(&who, names);
    let (other, _) = assigned(world, &mut second);
    assert_eq!((one.len(), other.len()), (2, 2));
    // A membership is worth nothing in another group.
    let mut producer = world.producer(&who, &second);
    producer.init(INIT_MS).unwrap();
    let offsets = vec![(TopicPartition::new(&topic, 0), 1).into()];
    let refused = producer.commit(Transaction { offsets, ..Transaction::default() }, &member);
    assert_eq!(commit_class(&refused), "not owner", "{refused:?}");
    second.leave(10_000).unwrap();
    for _ in 0..15 {
        world.pass(100);
        assert!(first.poll().unwrap().is_none());
    }
    let members = world.admin().group_members(&groups[0]).unwrap();
    assert!(members.len() == 1 && members[0].starts_with(&member.id), "{members:?}");
}

pub fn a_static_member_that_left_comes_back_as_another<W: World>(world: &W) {
    let topic = create(world, "back", 2);
    let group = world.unique("back");
    let names = std::slice::from_ref(&topic);
    let mut log = world.log(&Who::of(&group, "0"), names);
    let (_, before) = assigned(world, &mut log);
    log.leave(10_000).unwrap();
    let mut log = world.log(&Who::of(&group, "0"), names);
    let (all, now) = assigned(world, &mut log);
    assert_eq!(all.len(), 2);
    assert_ne!(now.id, before.id);
    assert_eq!(now.generation, before.generation + 2, "the empty group had one of its own");
}

pub fn a_third_member_takes_its_share_and_gives_it_back<W: World>(world: &W) {
    let topic = create(world, "third", 6);
    let group = world.unique("third");
    let names = std::slice::from_ref(&topic);
    let mut logs = ["0", "1"].map(|worker| world.log(&Who::of(&group, worker), names));
    let shares = |given: &[Given]| given.iter().map(|(partitions, _)| partitions.len()).collect::<Vec<_>>();
    let [zero, one] = &mut logs;
    world.until("two shares", || {
        let given = all_assigned(world, &mut [&mut *zero, &mut *one]);
        (shares(&given) == [3, 3]).then_some(())
    });
    let mut two = world.log(&Who::of(&group, "2"), names);
    let given = all_assigned(world, &mut [&mut *zero, &mut *one, &mut two]);
    assert_eq!(shares(&given), [2, 2, 2]);
    let before = given[0].1.generation;
    two.leave(10_000).unwrap();
    let given = all_assigned(world, &mut [&mut *zero, &mut *one]);
    assert_eq!(shares(&given), [3, 3]);
    assert_eq!(given[0].1.generation, before + 1);
}

/// The members notice by looking at their topics now and then.
pub fn a_topic_that_grows_is_shared_anew<W: World>(world: &W) {
    let topic = create(world, "grows", 1);
    let who = Who::of(&world.unique("grows"), "0");
    let mut log = world.log(&who, std::slice::from_ref(&topic));
    let (one, before) = assigned(world, &mut log);
    assert_eq!(one.len(), 1);
    world.grow(&topic, 3);
    world.until("the revocation", || match log.poll().unwrap() {
        Some(LogEvent::Revoked) => Some(()),
        other => {
            assert!(other.is_none(), "{other:?}");
            None
        }
    });
    log.release().unwrap();
    let (all, now) = assigned(world, &mut log);
    assert_eq!((all.len(), now.generation), (3, before.generation + 1));
}

pub fn a_missing_topic_is_told_and_joined_when_it_comes<W: World>(world: &W) {
    let topic = world.unique("comes");
    let who = Who::of(&world.unique("comes"), "0");
    let mut log = world.log(&who, std::slice::from_ref(&topic));
    let told = world.until("the error", || {
        let polled = log.poll();
        polled.is_err().then_some(polled)
    });
    assert_eq!(class(&told), "stop", "{told:?}");
    assert_eq!(world.admin().group_members(&who.group).unwrap(), [] as [String; 0], "nothing to join for");
    world.admin().create(&TopicSpec { name: topic, partitions: 2, replication: 1, config: vec![] }).unwrap();
    let (all, _) = assigned(world, &mut log);
    assert_eq!(all.len(), 2);
}

pub fn a_topic_that_is_deleted_is_told_to_its_reader<W: World>(world: &W) {
    let mut pair = Pair::new(world, "deleted");
    start(&mut pair.log, std::slice::from_ref(&pair.source));
    world.append(&pair.source, "x");
    crate::common::fetch(world, &mut pair.log, 1);
    world.admin().delete(&[pair.source.topic.to_string()]).unwrap();
    let told = world.until("the error", || {
        let told = match pair.log.poll() {
            Ok(Some(_)) => pair.log.release(),
            Ok(None) => pair.log.fetch(10).map(drop),
            Err(error) => Err(error),
        };
        told.is_err().then_some(told)
    });
    assert_eq!(class(&told), "stop", "{told:?}");
}

/// It wakes in the belief that nothing has happened.
pub fn a_process_that_was_stopped_commits_nothing_after_its_session<W: World>(world: &W) {
    let source = single(world, "zombie");
    let group = world.unique("zombie");
    let names = [source.topic.to_string()];
    let mut owner = None;
    let [commit, told] = world.zombie(&Who::of(&group, "0"), &source, &mut || {
        let who = Who::of(&group, "1");
        let mut log = world.log(&who, &names);
        // It is the second by name: nothing is its own before the session of the first is over.
        let member = world.until("the partition", || match log.poll().unwrap() {
            Some(LogEvent::Assigned { partitions, member }) if !partitions.is_empty() => Some(member),
            Some(LogEvent::Revoked) => log.release().map(|()| None).unwrap(),
            _ => None,
        });
        let mut producer = world.producer(&who, &log);
        producer.init(INIT_MS).unwrap();
        producer.commit(crate::common::offset(&source, 5), &member).unwrap();
        owner = Some((log, producer, member));
    });
    assert!(["doubt", "not owner"].contains(&&*commit), "{commit}");
    assert_eq!(told, "lost");
    let (_log, mut producer, member) = owner.unwrap();
    let mut reader = world.reader(&group);
    let mut committed = || reader.committed_offsets(std::slice::from_ref(&source), 10_000).unwrap();
    assert_eq!(committed(), [Some(5)]);
    producer.commit(crate::common::offset(&source, 6), &member).unwrap();
    assert_eq!(committed(), [Some(6)]);
}
