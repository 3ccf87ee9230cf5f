//! Offsets that are committed in transactions, with the checks of the coordinator and without.

use thalweg::record::TopicPartition;
use thalweg::worker::alignment::Standing;
use thalweg::worker::port::{ChangelogReader, Log, LogAdmin, SourceOffset, Transaction, TransactionLog};

use crate::common::{Pair, class, commit_class, create, single};
use crate::world::{Class, Plain, Steps, Who, World};

pub fn unstable_offsets_are_waited_out<W: World>(world: &W) {
    let mut pair = Pair::new(world, "unstable");
    pair.commit(pair.transaction(1));
    assert_eq!(pair.committed(), Some(1));
    let other = single(world, "other");
    let mut open = world.steps(&Who::of(&world.unique("unstable"), "other"));
    open.init().unwrap();
    open.begin().unwrap();
    open.send_offsets_as_nobody(&pair.who.group, &[(pair.source.clone(), 7)]).unwrap();
    let mut reader = pair.reader();
    let source = std::slice::from_ref(&pair.source);
    let unstable = reader.committed_offsets(source, 300);
    assert_eq!(class(&unstable), "retry", "{unstable:?}");
    let elsewhere = reader.committed_offsets(std::slice::from_ref(&other), 10_000).unwrap();
    assert_eq!(elsewhere, [None], "the transaction is on another partition");
    // Who does not ask for stable ones sees the former.
    let group = &pair.who.group;
    assert_eq!(world.admin().group_offsets(group).unwrap(), [(pair.source.clone(), 1)]);
    open.commit().unwrap();
    assert_eq!(reader.committed_offsets(source, 30_000).unwrap(), [Some(7)]);
}

/// Commits of a bounded run: the mark counts once its transaction is committed, and as long as no later
/// commit of the partition is without it.
pub fn a_partition_is_marked_as_finished_by_the_commit_of_its_offset<W: World>(world: &W) {
    let mut pair = Pair::new(world, "finished");
    let other = single(world, "other");
    let group = pair.who.group.clone();
    let finished = || {
        let mut found = world.admin().finished_partitions(&group).unwrap();
        found.sort();
        found
    };
    let source = pair.source.clone();
    let marked = vec![source.clone()];
    let with_marks = |of: &[TopicPartition]| {
        let all = [(other.clone(), 5), (source.clone(), 1)].map(|(partition, next_offset)| {
            let finished = of.contains(&partition);
            SourceOffset { finished, ..SourceOffset::from((partition, next_offset)) }
        });
        Transaction { offsets: all.to_vec(), ..Transaction::default() }
    };
    assert_eq!(finished(), [], "an unknown group");
    pair.commit(with_marks(&marked));
    world.until_is(marked.clone(), finished);
    // What another producer has not committed yet, or aborts, is not seen.
    let mut open = world.steps(&Who::of(&world.unique("finished"), "other"));
    open.init().unwrap();
    open.begin().unwrap();
    open.send_offsets_as_nobody(&group, &[(pair.source.clone(), 7)]).unwrap();
    assert_eq!(finished(), marked);
    open.abort().unwrap();
    let mut both = vec![other.clone(), pair.source.clone()];
    both.sort();
    pair.commit(with_marks(&both));
    world.until_is(both.clone(), finished);
    both.retain(|partition| *partition != pair.source);
    pair.commit(pair.transaction(2));
    world.until_is(both, finished);
}

/// It counts once its transaction is committed, until a later commit of the partition says something else or nothing.
pub fn how_far_a_partition_is_comes_with_its_offset<W: World>(world: &W) {
    let mut pair = Pair::new(world, "standing");
    let (group, source) = (pair.who.group.clone(), pair.source.clone());
    let told = || world.admin().standings(&group).unwrap();
    assert_eq!(told(), [], "an unknown group");
    let transaction = |next_offset, standing, finished| {
        let offset = SourceOffset { standing, finished, ..(source.clone(), next_offset).into() };
        Transaction { offsets: vec![offset], ..Transaction::default() }
    };
    for (next_offset, idle) in [(1, false), (1, true), (2, false)] {
        let standing = Standing { watermark_ms: 1_767_225_600_000 + next_offset, idle };
        pair.commit(transaction(next_offset, Some(standing), false));
        world.until_is(vec![(source.clone(), standing)], told);
    }
    pair.commit(pair.transaction(3));
    world.until_is(Vec::new(), told);
    let standing = Some(Standing { watermark_ms: -1, idle: false });
    pair.commit(transaction(4, standing, false));
    world.until_is(1, || told().len());
    pair.commit(transaction(4, standing, true));
    world.until_is(Vec::new(), told);
    assert_eq!(world.admin().finished_partitions(&group).unwrap(), std::slice::from_ref(&source));
}

/// The coordinator checks nothing for somebody without a generation and a member id: the ports must
/// never let that happen.
pub fn the_offsets_of_nobody_are_taken_whoever_the_members_are<W: World>(world: &W) {
    let mut pair = Pair::new(world, "nobody");
    pair.commit(pair.transaction(1));
    let mut nobody = world.steps(&Who::of(&world.unique("nobody"), "other"));
    nobody.init().unwrap();
    nobody.begin().unwrap();
    nobody.send_offsets_as_nobody(&pair.who.group, &[(pair.source.clone(), 99)]).unwrap();
    nobody.commit().unwrap();
    assert_eq!(pair.committed(), Some(99));
    assert!(pair.log.poll().unwrap().is_none(), "the member hears nothing of it");
    pair.commit(pair.transaction(2));
    assert_eq!(pair.committed(), Some(2), "an offset may go back");
}

/// The coordinator checks who the member is, not what it owns.
pub fn a_member_may_commit_what_is_not_its_own<W: World>(world: &W) {
    let mut pair = Pair::new(world, "not-own");
    let other = single(world, "other");
    let offsets = vec![(other.clone(), 5).into(), (pair.source.clone(), 1).into()];
    pair.commit(Transaction { offsets, ..Transaction::default() });
    let mut expected = [(other, 5), (pair.source.clone(), 1)];
    expected.sort();
    world.until_is(expected.to_vec(), || {
        let mut found = world.admin().group_offsets(&pair.who.group).unwrap();
        found.sort();
        found
    });
}

pub fn the_offsets_of_an_aborted_transaction_are_dropped<W: World>(world: &W) {
    let mut pair = Pair::new(world, "dropped");
    pair.commit(pair.transaction(1));
    let mut other = world.steps(&Who::of(&world.unique("dropped"), "other"));
    other.init().unwrap();
    for commit in [false, true] {
        other.begin().unwrap();
        other.send_offsets_as_nobody(&pair.who.group, &[(pair.source.clone(), 7)]).unwrap();
        if commit {
            other.commit().unwrap()
        } else {
            other.abort().unwrap()
        }
        assert_eq!(pair.committed(), Some(if commit { 7 } else { 1 }));
    }
}

pub fn a_deleted_topic_takes_its_offsets_with_it<W: World>(world: &W) {
    let mut pair = Pair::new(world, "deleted");
    let other = single(world, "other");
    let offsets = vec![(other.clone(), 5).into(), (pair.source.clone(), 1).into()];
    pair.commit(Transaction { offsets, ..Transaction::default() });
    let mut admin = world.admin();
    admin.delete(&[other.topic.to_string()]).unwrap();
    world.until("the offsets' end", || {
        (admin.group_offsets(&pair.who.group).unwrap() == [(pair.source.clone(), 1)]).then_some(())
    });
}

pub fn a_group_is_deleted_when_nobody_is_in_it<W: World>(world: &W) {
    let mut pair = Pair::new(world, "group");
    let group = pair.who.group.clone();
    pair.commit(pair.transaction(3));
    assert_eq!(pair.committed(), Some(3));
    let mut admin = world.admin();
    assert_eq!(admin.group_members(&group).unwrap().len(), 1);
    let refused = admin.delete_group(&group);
    assert_eq!(class(&refused), "stop", "{refused:?}");
    pair.log.leave(10_000).unwrap();
    assert_eq!(admin.group_members(&group).unwrap(), [] as [String; 0]);
    assert_eq!(admin.group_offsets(&group).unwrap(), [(pair.source.clone(), 3)], "they outlive the members");
    admin.delete_group(&group).unwrap();
    admin.delete_group(&group).unwrap();
    assert_eq!(admin.group_offsets(&group).unwrap(), []);
    assert_eq!(admin.group_members(&group).unwrap(), [] as [String; 0]);
    assert_eq!(pair.committed(), None);
}

/// Between the group's wish and the member's answer the member is still who it was.
pub fn a_member_commits_while_the_group_waits_for_it<W: World>(world: &W) {
    let mut pair = Pair::new(world, "waits");
    let who = Who::of(&pair.who.group, "1");
    let mut second = world.log(&who, &[pair.source.topic.to_string()]);
    world.until("the revocation", || {
        assert!(second.poll().unwrap().is_none());
        pair.log.poll().unwrap()
    });
    pair.commit(pair.transaction(4));
    assert_eq!(pair.committed(), Some(4));
    pair.log.release().unwrap();
    let (_, member) = crate::common::assigned(world, &mut pair.log);
    assert!(member.generation > pair.member.generation);
    let late = pair.producer.commit(pair.transaction(5), &pair.member);
    assert_eq!(commit_class(&late), "not owner", "{late:?}");
    assert_eq!(pair.committed(), Some(4));
}

/// The coordinator's own check, which the ports come before.
pub fn the_coordinator_refuses_a_generation_that_is_over<W: World>(world: &W) {
    let topic = create(world, "in", 2);
    let (group, names) = (world.unique("over"), std::slice::from_ref(&topic));
    let partition = TopicPartition::new(&topic, 1);
    let offsets = |offset| [(partition.clone(), offset)];
    let mut producer = world.steps(&Who::of(&group, "0"));
    producer.init().unwrap();
    let mut first = world.plain(&Who::of(&group, "0"), names);
    world.until("the assignment", || (first.serve() == 2).then_some(()));
    let before = first.membership();
    producer.begin().unwrap();
    producer.send_offsets(&before, &offsets(1)).unwrap();
    producer.commit().unwrap();
    let mut second = world.plain(&Who::of(&group, "1"), names);
    world.until("both assignments", || (first.serve() == 1 && second.serve() == 1).then_some(()));
    producer.begin().unwrap();
    assert_eq!(producer.send_offsets(&before, &offsets(2)), Err(Class::Abort));
    assert_eq!(producer.commit(), Err(Class::Abort), "nothing but to abort");
    producer.abort().unwrap();
    // The member that lost the partition may commit it under what it is now.
    producer.begin().unwrap();
    producer.send_offsets(&first.membership(), &offsets(3)).unwrap();
    producer.commit().unwrap();
    let mut reader = world.reader(&group);
    assert_eq!(reader.committed_offsets(std::slice::from_ref(&partition), 10_000).unwrap(), [Some(3)]);
}

pub fn the_coordinator_refuses_a_member_that_left_and_one_that_was_replaced<W: World>(world: &W) {
    let topic = create(world, "in", 1);
    let names = std::slice::from_ref(&topic);
    let offsets = [(TopicPartition::new(&topic, 0), 1)];
    for is_static in [false, true] {
        let mut who = Who::of(&world.unique("gone"), "0");
        who.instance = who.instance.filter(|_| is_static);
        let mut member = world.plain(&who, names);
        world.until("the assignment", || (member.serve() == 1).then_some(()));
        let before = member.membership();
        let replaced = is_static.then(|| {
            let mut next = world.plain(&who, names);
            world.until("the assignment", || (next.serve() == 1).then_some(next.membership()))
        });
        if !is_static {
            member.leave();
            let mut admin = world.admin();
            world.until("the end of the membership", || {
                admin.group_members(&who.group).unwrap().is_empty().then_some(())
            });
        }
        let mut producer = world.steps(&who);
        producer.init().unwrap();
        producer.begin().unwrap();
        assert_eq!(producer.send_offsets(&before, &offsets), Err(Class::Abort), "static: {is_static}");
        producer.abort().unwrap();
        assert_eq!(world.admin().group_offsets(&who.group).unwrap(), []);
        drop(replaced);
    }
}

/// An empty group takes the offsets of nobody: that is how a tool sets them.
pub fn an_empty_group_takes_the_offsets_of_nobody<W: World>(world: &W) {
    let source = single(world, "in");
    let group = world.unique("tool");
    let mut tool = world.steps(&Who::of(&group, "tool"));
    tool.init().unwrap();
    tool.begin().unwrap();
    tool.send_offsets_as_nobody(&group, &[(source.clone(), 42)]).unwrap();
    tool.commit().unwrap();
    let mut reader = world.reader(&group);
    assert_eq!(reader.committed_offsets(std::slice::from_ref(&source), 10_000).unwrap(), [Some(42)]);
}

/// Of two open transactions that hold offsets of one partition those count that came later, whichever
/// transaction ends first.
pub fn the_offsets_that_came_later_count_whichever_transaction_ends_first<W: World>(world: &W) {
    for late_first in [false, true] {
        let source = single(world, "in");
        let group = world.unique("both");
        let mut producers = ["early", "late"].map(|worker| world.steps(&Who::of(&group, worker)));
        for (producer, offset) in producers.iter_mut().zip([10, 5]) {
            producer.init().unwrap();
            producer.begin().unwrap();
            producer.send_offsets_as_nobody(&group, &[(source.clone(), offset)]).unwrap();
        }
        let mut reader = world.reader(&group);
        let source = std::slice::from_ref(&source);
        let [early, late] = &mut producers;
        let (first, second) = if late_first { (late, early) } else { (early, late) };
        first.commit().unwrap();
        let unstable = reader.committed_offsets(source, 300);
        assert_eq!(class(&unstable), "retry", "the other one is open: {unstable:?}");
        second.commit().unwrap();
        assert_eq!(reader.committed_offsets(source, 10_000).unwrap(), [Some(5)], "{late_first}");
    }
}

/// Without a transaction the coordinator checks more.
pub fn who_commits_without_a_transaction_is_checked<W: World>(world: &W) {
    let topic = create(world, "in", 2);
    let group = world.unique("plain");
    let partition = TopicPartition::new(&topic, 0);
    let at = |offset| [(partition.clone(), offset)];
    let mut reader = world.reader(&group);
    let mut committed = || reader.committed_offsets(std::slice::from_ref(&partition), 10_000).unwrap()[0];
    assert!(world.commit_as_nobody(&group, &at(1)), "the group is empty");
    assert_eq!(committed(), Some(1));
    let mut member = world.plain(&Who::of(&group, "0"), std::slice::from_ref(&topic));
    world.until("the assignment", || (member.serve() == 2).then_some(()));
    assert!(!world.commit_as_nobody(&group, &at(2)), "it has a member");
    assert_eq!(committed(), Some(1));
    assert!(member.commit(&at(3)));
    assert_eq!(committed(), Some(3));
    // Not only what is its own.
    let other = single(world, "other");
    assert!(member.commit(&[(other, 1)]));
}

pub fn a_plain_commit_stays_that_came_after_those_of_an_open_transaction<W: World>(world: &W) {
    let source = single(world, "in");
    let group = world.unique("after");
    let mut producer = world.steps(&Who::of(&group, "0"));
    producer.init().unwrap();
    producer.begin().unwrap();
    producer.send_offsets_as_nobody(&group, &[(source.clone(), 10)]).unwrap();
    assert!(world.commit_as_nobody(&group, &[(source.clone(), 7)]));
    let mut reader = world.reader(&group);
    let unstable = reader.committed_offsets(std::slice::from_ref(&source), 300);
    assert_eq!(class(&unstable), "retry", "{unstable:?}");
    assert_eq!(world.admin().group_offsets(&group).unwrap(), [(source.clone(), 7)]);
    producer.commit().unwrap();
    assert_eq!(reader.committed_offsets(std::slice::from_ref(&source), 10_000).unwrap(), [Some(7)]);
}

pub fn one_transaction_commits_for_two_groups<W: World>(world: &W) {
    let source = single(world, "in");
    let groups = ["a", "b"].map(|name| world.unique(name));
    let mut producer = world.steps(&Who::of(&groups[0], "0"));
    producer.init().unwrap();
    for (commit, offset) in [(false, 1), (true, 2)] {
        producer.begin().unwrap();
        for group in &groups {
            producer.send_offsets_as_nobody(group, &[(source.clone(), offset)]).unwrap();
        }
        if commit { producer.commit().unwrap() } else { producer.abort().unwrap() }
    }
    for group in &groups {
        let found = world.reader(group).committed_offsets(std::slice::from_ref(&source), 10_000).unwrap();
        assert_eq!(found, [Some(2)], "{group}");
    }
}

/// The newer offset within one transaction counts.
pub fn offsets_sent_twice_in_a_transaction_count_once<W: World>(world: &W) {
    let source = single(world, "in");
    let group = world.unique("twice");
    let mut producer = world.steps(&Who::of(&group, "0"));
    producer.init().unwrap();
    producer.begin().unwrap();
    for offset in [9, 4] {
        producer.send_offsets_as_nobody(&group, &[(source.clone(), offset)]).unwrap();
    }
    producer.commit().unwrap();
    let found = world.reader(&group).committed_offsets(std::slice::from_ref(&source), 10_000).unwrap();
    assert_eq!(found, [Some(4)]);
}
