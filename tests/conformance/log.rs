//! What stands in a log, and who sees what of it.

use thalweg::record::TopicPartition;
use thalweg::worker::port::{ChangelogReader, Log, LogAdmin, OutputRecord, TransactionLog};

use crate::common::{Pair, assigned, class, create, ends, fetch, output, read, seen, single, start, values};
use crate::world::{Steps, Who, World};

pub fn a_commit_is_seen_whole_with_its_offsets<W: World>(world: &W) {
    let mut pair = Pair::new(world, "commit");
    let (sink, changelog) = (TopicPartition::new(&create(world, "out", 2), 1), single(world, "log"));
    assert_eq!(pair.committed(), None);
    for round in 0..3 {
        let mut transaction = pair.changing(&changelog, &["a", "b"], 10 + round);
        transaction.outputs.push(output(&sink, &format!("out {round}")));
        let receipt = pair.producer.commit(transaction, &pair.member).unwrap();
        // Two records and a marker a round.
        assert_eq!(receipt.change_offsets, [[3 * round, 3 * round + 1]]);
        assert_eq!(pair.committed(), Some(10 + round));
    }
    let mut reader = pair.reader();
    world.until_is([0, 9, 9], || ends(&mut reader, &changelog));
    assert_eq!(read(&mut reader, &changelog, 0, 9).unwrap().len(), 6);
    let out = read(&mut reader, &sink, 0, 6).unwrap();
    assert_eq!(out, values(&[(0, "out 0"), (2, "out 1"), (4, "out 2")]));
    assert_eq!(world.admin().group_offsets(&pair.who.group).unwrap(), [(pair.source.clone(), 12)]);
    // Offsets alone write nothing into the source.
    assert_eq!(ends(&mut reader, &pair.source), [0, 0, 0]);
    pair.log.leave(10_000).unwrap();
}

pub fn an_open_transaction_holds_the_last_stable_offset<W: World>(world: &W) {
    let log = single(world, "log");
    let mut producer = world.steps(&Who::of(&world.unique("open"), "0"));
    let mut reader = world.reader("none");
    producer.init().unwrap();
    producer.begin().unwrap();
    assert_eq!(ends(&mut reader, &log), [0, 0, 0]);
    producer.write(&log, "a").unwrap();
    producer.write(&log, "b").unwrap();
    assert_eq!(ends(&mut reader, &log), [0, 0, 2]);
    assert_eq!(world.uncommitted(&log), values(&[(0, "a"), (1, "b")]));
    // There is something to read, and it does not come before the transaction ends.
    let stalled = reader.read(&log, 0, 2, 500, &mut |_, _| Err("it is not decided".into()));
    assert_eq!(class(&stalled), "retry", "{stalled:?}");
    // A position behind the last stable offset is within the log.
    let stalled = reader.read(&log, 2, 3, 500, &mut |_, _| Ok(()));
    assert_eq!(class(&stalled), "retry", "{stalled:?}");
    producer.commit().unwrap();
    world.until("the marker", || (ends(&mut reader, &log) == [0, 3, 3]).then_some(()));
    assert_eq!(read(&mut reader, &log, 0, 3).unwrap(), values(&[(0, "a"), (1, "b")]));
    assert_eq!(read(&mut reader, &log, 1, 3).unwrap(), values(&[(1, "b")]));
    assert_eq!(read(&mut reader, &log, 0, 1).unwrap(), values(&[(0, "a")]));
    assert_eq!(read(&mut reader, &log, 2, 3).unwrap(), []);
    assert_eq!(read(&mut reader, &log, 77, 77).unwrap(), [], "nothing is asked for");
}

pub fn aborted_records_are_seen_by_read_uncommitted_alone<W: World>(world: &W) {
    let log = single(world, "log");
    let mut producer = world.steps(&Who::of(&world.unique("abort"), "0"));
    let mut reader = world.reader("none");
    producer.init().unwrap();
    for (value, commit) in [("a", true), ("b", false), ("c", false), ("d", true)] {
        producer.begin().unwrap();
        producer.write(&log, value).unwrap();
        if commit { producer.commit().unwrap() } else { producer.abort().unwrap() }
    }
    world.until("the markers", || (ends(&mut reader, &log) == [0, 8, 8]).then_some(()));
    assert_eq!(read(&mut reader, &log, 0, 8).unwrap(), values(&[(0, "a"), (6, "d")]));
    assert_eq!(read(&mut reader, &log, 1, 6).unwrap(), []);
    assert_eq!(read(&mut reader, &log, 3, 7).unwrap(), values(&[(6, "d")]), "from among aborted ones");
    assert_eq!(world.uncommitted(&log), values(&[(0, "a"), (2, "b"), (4, "c"), (6, "d")]));
}

pub fn the_oldest_of_two_open_transactions_holds_what_the_other_committed<W: World>(world: &W) {
    let log = single(world, "log");
    let mut producers = ["0", "1"].map(|worker| world.steps(&Who::of(&world.unique("two"), worker)));
    let mut reader = world.reader("none");
    for (producer, value) in producers.iter_mut().zip(["old", "young"]) {
        producer.init().unwrap();
        producer.begin().unwrap();
        producer.write(&log, value).unwrap();
    }
    let [old, young] = &mut producers;
    young.commit().unwrap();
    world.until("its marker", || (ends(&mut reader, &log) == [0, 0, 3]).then_some(()));
    // A second one of the young producer, aborted in the shadow of the old one.
    young.begin().unwrap();
    young.write(&log, "younger").unwrap();
    young.abort().unwrap();
    world.until("its marker", || (ends(&mut reader, &log) == [0, 0, 5]).then_some(()));
    old.write(&log, "old again").unwrap();
    let stalled = reader.read(&log, 0, 5, 500, &mut |_, _| Err("it is not decided".into()));
    assert_eq!(class(&stalled), "retry", "{stalled:?}");
    old.commit().unwrap();
    world.until("the last marker", || (ends(&mut reader, &log) == [0, 7, 7]).then_some(()));
    let expected = values(&[(0, "old"), (1, "young"), (5, "old again")]);
    assert_eq!(read(&mut reader, &log, 0, 7).unwrap(), expected);
}

pub fn every_partition_of_a_transaction_gets_a_marker<W: World>(world: &W) {
    let topic = create(world, "log", 3);
    let partitions = [0, 1, 2].map(|partition| TopicPartition::new(&topic, partition));
    let mut producer = world.steps(&Who::of(&world.unique("markers"), "0"));
    let mut reader = world.reader("none");
    producer.init().unwrap();
    // A transaction with nothing in it asks nobody and writes nothing.
    producer.begin().unwrap();
    producer.commit().unwrap();
    producer.begin().unwrap();
    producer.write(&partitions[0], "a").unwrap();
    producer.write(&partitions[2], "b").unwrap();
    producer.commit().unwrap();
    world.until("the markers", || (ends(&mut reader, &partitions[2]) == [0, 2, 2]).then_some(()));
    world.until("the markers", || (ends(&mut reader, &partitions[0]) == [0, 2, 2]).then_some(()));
    assert_eq!(ends(&mut reader, &partitions[1]), [0, 0, 0]);
}

pub fn deleted_records_are_out_of_range<W: World>(world: &W) {
    let mut pair = Pair::new(world, "cut");
    let changelog = single(world, "log");
    pair.commit(pair.changing(&changelog, &["a", "b", "c"], 1));
    let mut reader = pair.reader();
    world.until_is([0, 4, 4], || ends(&mut reader, &changelog));
    assert_eq!(world.admin().delete_records(&changelog, 2).unwrap(), 2);
    assert_eq!(world.admin().delete_records(&changelog, 1).unwrap(), 2, "a lower cut does nothing");
    assert_eq!(ends(&mut reader, &changelog), [2, 4, 4]);
    for (from, to) in [(0, 4), (1, 4), (100, 200)] {
        let out = read(&mut reader, &changelog, from, to);
        assert_eq!(class(&out), "out of range", "{out:?}");
    }
    assert_eq!(read(&mut reader, &changelog, 2, 4).unwrap(), values(&[(2, "c")]));
    assert_eq!(world.uncommitted(&changelog), values(&[(2, "c")]));
    assert_eq!(world.admin().delete_records(&changelog, 4).unwrap(), 4, "everything, the marker, too");
    assert_eq!(ends(&mut reader, &changelog), [4, 4, 4]);
    pair.commit(pair.changing(&changelog, &["d"], 2));
    assert_eq!(read(&mut reader, &changelog, 4, 6).unwrap(), values(&[(4, "d")]));
}

pub fn a_cut_through_an_open_transaction_moves_the_last_stable_offset<W: World>(world: &W) {
    let log = single(world, "log");
    let mut producer = world.steps(&Who::of(&world.unique("cut-open"), "0"));
    let mut reader = world.reader("none");
    producer.init().unwrap();
    producer.begin().unwrap();
    for value in ["a", "b", "c"] {
        producer.write(&log, value).unwrap();
    }
    assert_eq!(ends(&mut reader, &log), [0, 0, 3]);
    assert_eq!(world.admin().delete_records(&log, 2).unwrap(), 2);
    assert_eq!(ends(&mut reader, &log), [2, 2, 3]);
    producer.commit().unwrap();
    world.until("the marker", || (ends(&mut reader, &log) == [2, 4, 4]).then_some(()));
    assert_eq!(read(&mut reader, &log, 2, 4).unwrap(), values(&[(2, "c")]));
}

pub fn what_cannot_be_cut<W: World>(world: &W) {
    let log = single(world, "log");
    let mut admin = world.admin();
    let beyond = admin.delete_records(&log, 1);
    assert_eq!(class(&beyond), "out of range", "{beyond:?}");
    let nowhere = TopicPartition::new(&world.unique("nowhere"), 0);
    let missing = admin.delete_records(&nowhere, 0);
    // librdkafka finds no leader to ask, and has no other word for it than "failed".
    assert_eq!(class(&missing), "client", "{missing:?}");
}

pub fn a_record_that_cannot_be_applied_ends_the_read<W: World>(world: &W) {
    let mut pair = Pair::new(world, "apply");
    let changelog = single(world, "log");
    pair.commit(pair.changing(&changelog, &["a", "b"], 1));
    let mut reader = pair.reader();
    let refused = reader.read(&changelog, 0, 3, 10_000, &mut |offset, _| {
        if offset == 1 { Err("no room".into()) } else { Ok(()) }
    });
    assert_eq!(class(&refused), "stop", "{refused:?}");
    assert!(refused.unwrap_err().to_string().contains("no room"));
    assert_eq!(read(&mut reader, &changelog, 0, 3).unwrap().len(), 2, "the next one is not disturbed");
}

pub fn keys_headers_tombstones_and_times_come_through<W: World>(world: &W) {
    let mut pair = Pair::new(world, "shape");
    let headers = vec![
        ("a".to_string(), Some(b"1".to_vec())),
        ("a".to_string(), None),
        ("\u{fc}".to_string(), Some(Vec::new())),
    ];
    let record = OutputRecord {
        key: Some(b"k".to_vec()),
        value: None,
        headers: headers.clone(),
        timestamp_ms: 1_234_567_890_123,
        ..output(&pair.source, "")
    };
    let empty = OutputRecord { key: Some(Vec::new()), timestamp_ms: 0, ..output(&pair.source, "") };
    let mut transaction = pair.transaction(1);
    transaction.outputs.extend([record, empty]);
    pair.commit(transaction);
    pair.log.start(&[(pair.source.clone(), 0)]).unwrap();
    let all = fetch(world, &mut pair.log, 2);
    assert_eq!((all[0].offset, all[0].key.as_deref(), &all[0].value), (0, Some(&b"k"[..]), &None));
    assert_eq!((&all[0].headers, all[0].timestamp_ms), (&headers, 1_234_567_890_123));
    assert_eq!((all[1].offset, all[1].timestamp_ms), (1, 1), "the first time that can be written");
    assert_eq!((&all[1].key, &all[1].value), (&Some(Vec::new()), &Some(Vec::new())));
}

pub fn a_position_outside_the_log_is_told_by_the_fetch<W: World>(world: &W) {
    let mut pair = Pair::new(world, "outside");
    let mut transaction = pair.transaction(1);
    transaction.outputs.extend(["a", "b"].map(|value| output(&pair.source, value)));
    pair.commit(transaction);
    world.admin().delete_records(&pair.source, 1).unwrap();
    for position in [0, 77] {
        pair.log.start(&[(pair.source.clone(), position)]).unwrap();
        let error = world.until("the error of the fetch", || {
            assert!(pair.log.poll().unwrap().is_none());
            let fetched = pair.log.fetch(10).map(|fetched| fetched.len());
            fetched.is_err().then_some(fetched)
        });
        assert_eq!(class(&error), "out of range", "{error:?}");
    }
    // A position within it mends that.
    pair.log.start(&[(pair.source.clone(), 1)]).unwrap();
    assert_eq!(fetch(world, &mut pair.log, 1)[0].offset, 1);
}

pub fn the_consumers_position_goes_past_markers<W: World>(world: &W) {
    let mut pair = Pair::new(world, "position");
    let mut other = world.steps(&Who::of(&world.unique("position"), "other"));
    other.init().unwrap();
    for abort in [true, false] {
        other.begin().unwrap();
        other.write(&pair.source, "other").unwrap();
        if abort {
            other.abort().unwrap();
        }
    }
    // An aborted record, its marker, and a record that is open.
    pair.log.start(&[(pair.source.clone(), 0)]).unwrap();
    assert_eq!(pair.log.read_up_to(&pair.source), None);
    let known = |log: &mut W::Log, source: &TopicPartition, position: i64| {
        world.until("the position", || {
            assert!(log.poll().unwrap().is_none());
            let count = log.fetch(10).unwrap().iter().map(|batch| batch.len()).sum::<usize>();
            let known = log.read_up_to(source) == Some(position) && log.end_offset(source) == Some(position);
            assert!(count == 0 || position > 2, "nothing to be seen yet");
            known.then_some(())
        });
    };
    known(&mut pair.log, &pair.source, 2);
    other.commit().unwrap();
    known(&mut pair.log, &pair.source, 4);
}

pub fn starting_again_reads_from_the_new_position<W: World>(world: &W) {
    let mut pair = Pair::new(world, "restart");
    for round in 0..5 {
        let mut transaction = pair.transaction(round);
        transaction.outputs.extend((0..20).map(|n| output(&pair.source, &format!("{round} {n}"))));
        pair.commit(transaction);
    }
    for _ in 0..5 {
        pair.log.start(&[(pair.source.clone(), 0)]).unwrap();
        let first = world.until("the first record", || pair.log.fetch(1).unwrap().into_iter().next());
        assert_eq!(seen(&*first)[0].offset, 0);
        // Right away, while fetches are under way, with and without giving up in between.
        pair.log.start(&[(pair.source.clone(), 50)]).unwrap();
        assert_eq!(fetch(world, &mut pair.log, 1)[0].offset, 50);
        pair.log.release().unwrap();
        assert!(pair.log.fetch(1).unwrap().is_empty());
        assert_eq!(pair.log.read_up_to(&pair.source), None);
    }
    pair.log.leave(10_000).unwrap();
    assert!(pair.log.poll().unwrap().is_none() && pair.log.fetch(1).unwrap().is_empty());
}

pub fn records_outside_of_transactions_wait_behind_an_open_one<W: World>(world: &W) {
    let log = single(world, "log");
    let mut producer = world.steps(&Who::of(&world.unique("mixed"), "0"));
    let mut reader = world.reader("none");
    producer.init().unwrap();
    world.append(&log, "before");
    assert_eq!(ends(&mut reader, &log), [0, 1, 1], "decided at once, without a marker");
    producer.begin().unwrap();
    producer.write(&log, "open").unwrap();
    world.append(&log, "behind");
    assert_eq!(ends(&mut reader, &log), [0, 1, 3]);
    assert_eq!(read(&mut reader, &log, 0, 1).unwrap(), values(&[(0, "before")]));
    let stalled = reader.read(&log, 0, 3, 500, &mut |_, _| Ok(()));
    assert_eq!(class(&stalled), "retry", "{stalled:?}");
    producer.abort().unwrap();
    world.until_is([0, 4, 4], || ends(&mut reader, &log));
    assert_eq!(read(&mut reader, &log, 0, 4).unwrap(), values(&[(0, "before"), (2, "behind")]));
}

pub fn a_transaction_outlives_one_of_its_topics<W: World>(world: &W) {
    let (stays, goes) = (single(world, "stays"), single(world, "goes"));
    let who = Who::of(&world.unique("outlives"), "0");
    let mut producer = world.steps(&who);
    let mut reader = world.reader("none");
    producer.init().unwrap();
    producer.begin().unwrap();
    producer.write(&goes, "gone").unwrap();
    producer.write(&stays, "kept").unwrap();
    let mut admin = world.admin();
    admin.delete(&[goes.topic.to_string()]).unwrap();
    world.until("the topic's end", || {
        admin.describe(&[goes.topic.to_string()]).unwrap()[0].is_none().then_some(())
    });
    producer.commit().unwrap();
    world.until_is([0, 2, 2], || ends(&mut reader, &stays));
    assert_eq!(read(&mut reader, &stays, 0, 2).unwrap(), values(&[(0, "kept")]));
    // The transaction is over: another one of the same producer begins.
    producer.begin().unwrap();
    producer.write(&stays, "next").unwrap();
    producer.commit().unwrap();
    world.until_is([0, 4, 4], || ends(&mut reader, &stays));
}

pub fn a_cut_at_the_end_leaves_an_empty_log_that_goes_on<W: World>(world: &W) {
    let mut pair = Pair::new(world, "empty");
    let changelog = single(world, "log");
    pair.commit(pair.changing(&changelog, &["a", "b"], 1));
    let mut reader = pair.reader();
    world.until_is([0, 3, 3], || ends(&mut reader, &changelog));
    assert_eq!(world.admin().delete_records(&changelog, 3).unwrap(), 3);
    assert_eq!(ends(&mut reader, &changelog), [3, 3, 3]);
    assert_eq!(read(&mut reader, &changelog, 3, 3).unwrap(), []);
    let receipt = pair.producer.commit(pair.changing(&changelog, &["c"], 2), &pair.member).unwrap();
    assert_eq!(receipt.change_offsets, [[3]]);
    world.until_is([3, 5, 5], || ends(&mut reader, &changelog));
    assert_eq!(read(&mut reader, &changelog, 3, 5).unwrap(), values(&[(3, "c")]));
}

pub fn outputs_and_changes_of_one_partition_keep_their_order<W: World>(world: &W) {
    let mut pair = Pair::new(world, "order");
    let log = single(world, "log");
    for round in 0..2 {
        let mut transaction = pair.changing(&log, &["c", "d", "e"], round);
        transaction.outputs.extend(["a", "b"].map(|value| output(&log, value)));
        let receipt = pair.producer.commit(transaction, &pair.member).unwrap();
        let first = 6 * round + 2;
        assert_eq!(receipt.change_offsets, [[first, first + 1, first + 2]]);
    }
    let mut reader = pair.reader();
    world.until_is([0, 12, 12], || ends(&mut reader, &log));
    let seen = read(&mut reader, &log, 0, 6).unwrap();
    assert_eq!(seen, values(&[(0, "a"), (1, "b"), (2, "c"), (3, "d"), (4, "e")]));
}

pub fn a_partition_that_was_paused_goes_on_behind_what_was_fetched<W: World>(world: &W) {
    let topic = create(world, "pause", 2);
    let [paused, other] = [0, 1].map(|partition| TopicPartition::new(&topic, partition));
    let who = Who::of(&world.unique("pause"), "0");
    let mut log = world.log(&who, std::slice::from_ref(&topic));
    assigned(world, &mut log);
    let mut producer = world.steps(&Who::of(&world.unique("pause"), "writer"));
    producer.init().unwrap();
    let mut written = 0;
    let mut write = |count: usize| {
        producer.begin().unwrap();
        for _ in 0..count {
            producer.write(&paused, &written.to_string()).unwrap();
            producer.write(&other, &written.to_string()).unwrap();
            written += 1;
        }
        producer.commit().unwrap();
        written
    };
    write(20);
    start(&mut log, &[paused.clone(), other.clone()]);
    let mut found = [Vec::new(), Vec::new()];
    for round in 0..6 {
        // Some are fetched, and the consumer has the others.
        let before = found[0].len();
        world.until("records", || {
            assert!(log.poll().unwrap().is_none());
            take(&mut log, 3, &mut found);
            (found[0].len() > before).then_some(())
        });
        log.pause(&paused, true).unwrap();
        let (held, all) = (found[0].len(), write(5 + round));
        world.until("those of the other partition", || {
            assert!(log.poll().unwrap().is_none());
            take(&mut log, 1_000, &mut found);
            (found[1].len() >= all).then_some(())
        });
        assert_eq!(found[0].len(), held, "nothing comes of a partition that is paused");
        log.pause(&paused, false).unwrap();
    }
    let all = write(1);
    world.until("all that was paused", || {
        assert!(log.poll().unwrap().is_none());
        take(&mut log, 1_000, &mut found);
        (found[0].len() >= all).then_some(())
    });
    let expected: Vec<String> = (0..all).map(|value| value.to_string()).collect();
    assert_eq!(found[0], expected);
    // A new start forgets it.
    log.pause(&paused, true).unwrap();
    start(&mut log, std::slice::from_ref(&paused));
    let mut again = [Vec::new(), Vec::new()];
    world.until("all once more", || {
        take(&mut log, 1_000, &mut again);
        (again[0].len() >= all).then_some(())
    });
    assert_eq!(again[0], expected);
}

/// Adds the values of what has arrived, by partition.
fn take(log: &mut impl Log, records_max: usize, found: &mut [Vec<String>; 2]) {
    for batch in log.fetch(records_max).unwrap() {
        for record in seen(&*batch) {
            let value = String::from_utf8(record.value.unwrap()).unwrap();
            found[record.partition.partition as usize].push(value);
        }
    }
}
