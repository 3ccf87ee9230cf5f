//! Running tasks: checkpoints, sweeps, flushes, cuts, bounded ends.

use super::*;
use crate::format::key::encode_state_key;
use crate::operator::OperatorError;
use crate::record::{Slot, TopicPartition};
use crate::state::codec::{RecordHeader, read_header};
use crate::state::key::{STATE_KEY_BYTES_MAX, STATE_TEXT_BYTES_MAX};
use crate::state::{Header, THIS_CHECKPOINT};
use crate::topology::plan::Start;
use crate::worker::tests::topology::{changelog, out, record};

/// The deltas' first headers in the changelog, with their offsets.
fn headers(cluster: &Cluster) -> Vec<(i64, Header)> {
    let records = cluster.content().committed(&changelog(0));
    let headers = records.into_iter().filter_map(|(offset, record)| match read_header(&record).unwrap() {
        RecordHeader::Delta(header) if header.part == 0 => Some((offset, header)),
        _ => None,
    });
    headers.collect()
}

fn append(cluster: &Cluster, key: &str, value: i64, time_ms: i64) {
    cluster.content().append(&source(0), &record(key, value, time_ms));
}

#[test]
fn checkpoints_are_numbered_and_say_where_the_task_stood() {
    let (cluster, stores) = (Cluster::default(), MemoryStores::new());
    let mut number = 0;
    for _ in 0..3 {
        let mut task = task(&cluster, &stores);
        for _ in 0..3 {
            number += 1;
            append(&cluster, "a", number, 1_000 * number);
            drain(&cluster, &mut task);
        }
    }
    let headers = headers(&cluster);
    assert_eq!(headers.len(), 9);
    let (operators, _) = stage(|text| text);
    for (place, (_, header)) in headers.iter().enumerate() {
        let count = place as i64 + 1;
        assert_eq!(header.checkpoint, count as u64);
        let position = &header.sources[0];
        assert_eq!((position.topic.as_str(), position.partition, position.next_offset), ("in", 0, count));
        assert_eq!((position.max_event_time_ms, position.end_offset), (Some(1_000 * count), None));
        assert_eq!(header.watermark_ms, Some(1_000 * count - 2_000));
        let saved = &header.operators[0];
        assert_eq!((&saved.id, &saved.fingerprint), (&operators[0].0, &operators[0].1));
        assert!(!header.finished);
    }
}

#[test]
fn restore_points_and_sweeps_name_the_offset_at_which_they_began() {
    let (cluster, stores) = (Cluster::default(), MemoryStores::new());
    let mut task = task(&cluster, &stores);
    for number in 0..60 {
        append(&cluster, &format!("k{}", number % 20), number, 1_000);
        drain(&cluster, &mut task);
        if number % 7 == 0 {
            flush(&mut task);
        }
    }
    let headers = headers(&cluster);
    let offsets: Vec<i64> = headers.iter().map(|(offset, _)| *offset).collect();
    let (mut began, mut complete, mut sweeps) = (None, 0, 0);
    for (offset, header) in headers {
        let mut resolved = header.clone();
        resolved.resolve(offset);
        let first = began.unwrap_or(offset);
        match &resolved.sweep {
            Some(sweep) => {
                assert_eq!(sweep.first_offset, first);
                assert_eq!(header.sweep.unwrap().first_offset == THIS_CHECKPOINT, began.is_none());
                began = Some(first);
            }
            None => {
                (complete, began) = (first, None);
                sweeps += 1;
            }
        }
        assert_eq!(resolved.restore_point, complete);
        assert!(complete == 0 || offsets.contains(&complete));
    }
    assert!(sweeps > 3, "{sweeps}");
    assert!(began.is_some() || task.cut_job().is_some());
}

#[test]
fn after_a_sweep_there_is_none_before_the_changes_are_a_share_of_it_and_the_floor() {
    for (rest_percent, rest_bytes_min) in [(0, 0), (100, 0), (50, 2_000)] {
        let (cluster, stores) = (Cluster::default(), MemoryStores::new());
        let bounds = TaskLimits { rest_percent, rest_bytes_min, ..limits() };
        let mut task = task_within(bounds, &cluster, &stores, task_spec(0), |text| text).unwrap();
        for number in 0..300 {
            append(&cluster, &format!("k{}", number % 20), number, 1_000);
            drain(&cluster, &mut task);
        }
        // Bytes of changes and of the chunk of each checkpoint, and whether no sweep is under way after it.
        let mut checkpoints: Vec<(usize, usize, bool)> = Vec::new();
        for (_, record) in cluster.content().committed(&changelog(0)) {
            match (read_header(&record).unwrap(), checkpoints.last_mut()) {
                (RecordHeader::Delta(header), _) if header.part == 0 => {
                    checkpoints.push((record.len(), 0, header.sweep.is_none()));
                }
                (RecordHeader::Delta(_), Some((changes, ..))) => *changes += record.len(),
                (RecordHeader::Chunk(_), Some((_, chunk, _))) => *chunk += record.len(),
                (_, None) => panic!("the log begins with a delta"),
            }
        }
        let (mut left, mut swept, mut rests) = (0, 0, 0);
        for (changes, chunk, complete) in checkpoints {
            if left > 0 {
                assert_eq!((chunk, complete), (0, true), "{left} bytes are left to rest");
                left = usize::saturating_sub(left, changes);
            } else {
                assert!(chunk > 0 || complete, "it is time to sweep");
                swept += chunk;
                if complete {
                    (left, swept, rests) = ((swept * rest_percent / 100).max(rest_bytes_min), 0, rests + 1);
                }
            }
        }
        assert!(rests > 3, "{rests}");
        // Whoever comes next does not know of the rest.
        drop(task);
        let bounds = TaskLimits { rest_bytes_min: 1 << 20, ..limits() };
        let mut heir = task_within(bounds, &cluster, &stores, task_spec(0), |text| text).unwrap();
        append(&cluster, "k0", 1, 1_000);
        drain(&cluster, &mut heir);
        let (_, last) = cluster.content().committed(&changelog(0)).pop().unwrap();
        assert!(matches!(read_header(&last).unwrap(), RecordHeader::Chunk(_)));
    }
}

#[test]
fn the_log_is_cut_neither_past_the_restore_point_nor_past_what_is_flushed() {
    let (cluster, stores) = (Cluster::default(), MemoryStores::new());
    let mut owner = task(&cluster, &stores);
    let mut cuts = 0;
    for number in 0..120 {
        append(&cluster, &format!("k{}", number % 9), 1, 1_000);
        drain(&cluster, &mut owner);
        let before = owner.changelog_offsets().unwrap().1;
        if number % 5 == 0 {
            flush(&mut owner);
        }
        let (log_start, flushed) = owner.changelog_offsets().unwrap();
        assert!(flushed >= before);
        let (at, mut last) = headers(&cluster).pop().unwrap();
        last.resolve(at);
        if let Some((partition, offset)) = owner.cut_job() {
            assert!(offset > log_start && offset <= flushed && offset <= last.restore_point);
            assert!(owner.cut_job().is_none(), "one cut at a time");
            if number % 3 == 0 {
                owner.cut(&partition, None);
                assert_eq!(owner.changelog_offsets().unwrap().0, log_start, "a failed cut is forgotten");
                assert_eq!(owner.cut_job(), Some((partition.clone(), offset)));
            }
            let log_start = cluster.content().cut(&partition, offset);
            owner.cut(&partition, Some(log_start));
            cuts += 1;
            // Whoever comes with an empty disk finds everything.
            drop(restore_with(&cluster, &MemoryStores::new(), task_spec(0)).unwrap());
        }
    }
    assert!(cuts > 5, "{cuts}");
    let mut heir = task(&cluster, &MemoryStores::new());
    append(&cluster, "k0", 1, 1_000);
    drain(&cluster, &mut heir);
    let last = String::from_utf8(cluster.content().committed(&out()).pop().unwrap().1).unwrap();
    assert!(last.contains("\"n\":15,"), "{last}");
}

#[test]
fn state_survives_flush_and_eviction() {
    let (cluster, stores) = (Cluster::default(), MemoryStores::new());
    let mut task = task(&cluster, &stores);
    for round in 1..=4 {
        for key in 0..10 {
            append(&cluster, &format!("k{key}"), 1, 1_000);
        }
        drain(&cluster, &mut task);
        let before = task.memory();
        flush(&mut task);
        let after = task.memory();
        assert!(after.total < before.total && after.pinned < before.pinned, "the cache holds nothing");
        let last = String::from_utf8(cluster.content().committed(&out()).pop().unwrap().1).unwrap();
        assert!(last.contains(&format!("\"n\":{round},")), "{last}");
    }
}

#[test]
fn one_flush_at_a_time_and_only_when_due() {
    let (cluster, stores) = (Cluster::default(), MemoryStores::new());
    let mut task = task(&cluster, &stores);
    assert!(task.flush_job(10_000, true).is_none(), "nothing is committed");
    append(&cluster, "a", 1, 1_000);
    drain(&cluster, &mut task);
    assert!(task.flush_job(399, false).is_none());
    let job = task.flush_job(400, false).unwrap();
    append(&cluster, "b", 1, 1_000);
    drain(&cluster, &mut task);
    assert!(task.flush_job(10_000, true).is_none(), "one is running");
    let flushed = job.run(&|| ()).unwrap();
    task.flushed(flushed);
    let job = task.flush_job(10_000, true).unwrap();
    let flushed = job.run(&|| ()).unwrap();
    task.flushed(flushed);
    assert!(task.flush_job(10_000, true).is_none());
    for number in 0..30 {
        append(&cluster, &format!("key {number}"), 1, 1_000);
    }
    drain(&cluster, &mut task);
    assert!(task.flush_job(0, false).is_some(), "there is much to flush");
}

#[test]
fn a_task_without_news_contributes_nothing() {
    let (cluster, stores) = (Cluster::default(), MemoryStores::new());
    let mut task = task(&cluster, &stores);
    assert!(!task.is_dirty(0) && !commit(&cluster, &mut task));
    append(&cluster, "a", 1, 1_000);
    feed(&cluster, &mut task);
    assert!(!task.is_dirty(0), "a queued record is no news");
    assert_eq!(task.run(10).unwrap(), 1);
    assert!(task.is_dirty(0));
    assert!(commit(&cluster, &mut task));
    assert!(!task.is_dirty(0) && !commit(&cluster, &mut task));
}

#[test]
fn the_log_never_goes_back() {
    let (cluster, stores) = (Cluster::default(), MemoryStores::new());
    let mut task = task(&cluster, &stores);
    let batch = |offsets: &[i64]| {
        let records = offsets.iter().map(|offset| (*offset, record("a", 1, 1_000)));
        Batch::of(&source(0), records.collect())
    };
    task.enqueue(batch(&[0, 1, 5])).unwrap();
    let error = task.enqueue(batch(&[5, 6])).unwrap_err();
    assert!(matches!(&error, OperatorError::Broken(message) if message.contains("offset 5")), "{error}");
    task.enqueue(batch(&[6])).unwrap();
    assert_eq!(task.queued_records(), 4);
    assert_eq!((task.run(100).unwrap(), task.next_offset()), (4, 7));
}

#[test]
fn a_full_checkpoint_stops_the_task() {
    let (cluster, stores) = (Cluster::default(), MemoryStores::new());
    let mut task = task(&cluster, &stores);
    for key in 0..10 {
        append(&cluster, &format!("k{key}"), 1, 1_000);
    }
    feed(&cluster, &mut task);
    assert_eq!(task.run(100).unwrap(), 4);
    assert!(task.is_full());
    assert_eq!(task.run(100).unwrap(), 0);
    assert!(commit(&cluster, &mut task) && !task.is_full());
    while task.run(100).unwrap() > 0 {
        commit(&cluster, &mut task);
    }
    // Ten windows close at once, four rows a checkpoint; a new task goes on in the middle.
    append(&cluster, "z", 1, 50_000);
    feed(&cluster, &mut task);
    while !task.is_full() {
        task.run(100).unwrap();
    }
    commit(&cluster, &mut task);
    drop(task);
    let mut task = self::task(&cluster, &stores);
    drain(&cluster, &mut task);
    let rows = cluster.content().committed(&out());
    let finals = rows.iter().filter(|(_, row)| String::from_utf8_lossy(row).contains("\"final\":true"));
    assert_eq!((finals.count(), rows.len()), (10, 21));
}

fn bounded(cluster: &Cluster, stores: &MemoryStores) -> Task {
    task_of(cluster, stores, TaskSpec { bounded: true, ..task_spec(0) }, |text| text).unwrap()
}

#[test]
fn a_bounded_run_ends_at_its_end() {
    let (cluster, stores) = (Cluster::default(), MemoryStores::new());
    append(&cluster, "a", 1, 1_000);
    append(&cluster, "b", 2, 1_000);
    let mut task = bounded(&cluster, &stores);
    append(&cluster, "c", 3, 1_000);
    feed(&cluster, &mut task);
    task.run(100).unwrap();
    assert_eq!((task.next_offset(), task.queued_records()), (2, 0), "the third record lies past the end");
    while task.run(100).unwrap() > 0 || commit(&cluster, &mut task) {}
    assert!(task.is_finished());
    let rows = cluster.content().committed(&out());
    assert_eq!(rows.len(), 4, "two updates, two last rows");
    assert!(headers(&cluster).pop().unwrap().1.finished);
    drop(task);
    let mut task = bounded(&cluster, &stores);
    assert!(task.is_finished() && !task.is_dirty(0));
    assert_eq!(task.run(10).unwrap(), 0);
}

#[test]
fn a_bounded_run_ends_behind_a_marker() {
    let (cluster, stores) = (Cluster::default(), MemoryStores::new());
    append(&cluster, "a", 1, 1_000);
    cluster.content().append_marker(&source(0));
    let mut task = bounded(&cluster, &stores);
    feed(&cluster, &mut task);
    task.source_read_up_to(2);
    task.run(100).unwrap();
    commit(&cluster, &mut task);
    assert!(!task.is_finished(), "a record was waiting when the end was told");
    task.source_read_up_to(1);
    task.run(100).unwrap();
    assert!(!task.is_dirty(0), "one offset is missing");
    task.source_read_up_to(2);
    task.run(100).unwrap();
    assert!(task.is_dirty(0) && !task.is_finished(), "it is not committed yet");
    commit(&cluster, &mut task);
    assert!(task.is_finished());
}

#[test]
fn an_empty_bounded_run_is_committed_as_finished() {
    let (cluster, stores) = (Cluster::default(), MemoryStores::new());
    let mut task = bounded(&cluster, &stores);
    task.run(1).unwrap();
    assert!(task.is_dirty(0) && !task.is_finished());
    assert!(commit(&cluster, &mut task));
    assert!(task.is_finished() && !task.is_dirty(0));
    assert_eq!(cluster.content().group.get(&source(0)), Some(&0));
}

#[test]
fn what_a_bounded_run_left_is_not_gone_on_with_without_bounds() {
    let (cluster, stores) = (Cluster::default(), MemoryStores::new());
    append(&cluster, "a", 1, 1_000);
    let mut task = bounded(&cluster, &stores);
    assert!(commit(&cluster, &mut task), "stopped in the middle: only the end is committed");
    drop(task);
    let refused = task_of(&cluster, &stores, task_spec(0), |text| text).err();
    assert!(matches!(refused, Some(RestoreError::Changed(why)) if why.contains("--bounded")));
}

#[test]
fn where_a_start_at_the_end_lies_is_committed_before_anything_is_read() {
    let (cluster, stores) = (Cluster::default(), MemoryStores::new());
    append(&cluster, "a", 1, 1_000);
    let latest = || TaskSpec { start: Start::Latest, ..task_spec(0) };
    let mut task = task_of(&cluster, &stores, latest(), |text| text).unwrap();
    append(&cluster, "b", 2, 1_000);
    feed(&cluster, &mut task);
    assert_eq!(task.run(10).unwrap(), 0, "a crash now would find a later end and skip the record");
    assert!(commit(&cluster, &mut task));
    assert_eq!(cluster.content().group.get(&source(0)), Some(&1));
    assert_eq!(task.run(10).unwrap(), 1);
    drop(task);
    let mut task = task_of(&cluster, &stores, latest(), |text| text).unwrap();
    feed(&cluster, &mut task);
    assert_eq!(task.run(10).unwrap(), 1, "it goes on from where it once started");
}

#[test]
fn a_cut_that_a_former_owner_missed_is_due_at_once() {
    let (cluster, stores) = (Cluster::default(), MemoryStores::new());
    let mut first = task(&cluster, &stores);
    for number in 0..60 {
        append(&cluster, &format!("k{}", number % 20), number, 1_000);
        drain(&cluster, &mut first);
    }
    flush(&mut first);
    let (partition, offset) = first.cut_job().unwrap();
    drop(first);
    let (again, at_least) = task(&cluster, &stores).cut_job().unwrap();
    assert!(again == partition && at_least >= offset, "{at_least} < {offset}");
}

/// The texts of a topic.
fn texts(cluster: &Cluster, topic: &str) -> Vec<String> {
    let records = cluster.content().committed(&TopicPartition::new(topic, 0));
    records.into_iter().map(|(_, value)| String::from_utf8(value).unwrap()).collect()
}

/// What windows cannot take goes to the topic `dead`.
fn with_dead_letters(text: String) -> String {
    text.replace("    emit:", "    on_error: { dead_letter: dead }\n    emit:")
}

#[test]
fn a_key_at_its_limit_is_state_and_one_beyond_it_a_dead_letter() {
    let (cluster, stores) = (Cluster::default(), MemoryStores::new());
    let mut encoded = Vec::new();
    encode_state_key(&[Slot::String("")], &mut encoded);
    let longest = "k".repeat(STATE_KEY_BYTES_MAX - encoded.len());
    let beyond = format!("{longest}k");
    let stranger = MemoryStores::new();
    // The second one goes on from its store, the third from an empty disk.
    for (count, stores) in [(1, &stores), (2, &stores), (3, &stranger)] {
        let mut task = task_of(&cluster, stores, task_spec(0), with_dead_letters).unwrap();
        for key in [&longest, &beyond, "short"] {
            append(&cluster, key, 1, 1_000);
        }
        drain(&cluster, &mut task);
        flush(&mut task);
        let rows = texts(&cluster, "out");
        for (row, key) in rows.iter().rev().take(2).rev().zip([&longest[..], "short"]) {
            assert!(row.contains(&format!("\"{key}\"")) && row.contains(&format!("\"n\":{count},")));
        }
        assert_eq!((rows.len(), texts(&cluster, "dead").len()), (2 * count, count));
    }
    let sent = record(&beyond, 1, 1_000);
    assert!(texts(&cluster, "dead").iter().all(|letter| letter.as_bytes() == sent));
}

#[test]
fn texts_at_their_limit_are_state_and_those_beyond_it_dead_letters() {
    let greatest = |text: String| {
        with_dead_letters(text)
            .replace("v: int", "v: string")
            .replace("'sum(v)'", "'max(v)', least: 'min(v)'")
    };
    let (cluster, stores) = (Cluster::default(), MemoryStores::new());
    let text = |first: char, bytes: usize| first.to_string() + &"x".repeat(bytes - 1);
    let append = |value: &str| {
        let json = format!(r#"{{"k":"a","v":"{value}","t":1000}}"#);
        cluster.content().append(&source(0), json.as_bytes());
        json
    };
    let (least, most) = (text('a', STATE_TEXT_BYTES_MAX), text('z', STATE_TEXT_BYTES_MAX));
    let beyond = text('b', STATE_TEXT_BYTES_MAX + 1);
    let stranger = MemoryStores::new();
    for (count, stores) in [(1, &stores), (2, &stores), (3, &stranger)] {
        let mut task = task_of(&cluster, stores, task_spec(0), greatest).unwrap();
        if count == 1 {
            append(&least);
            append(&most);
        }
        let sent = append(&beyond);
        append(&text('m', 100));
        drain(&cluster, &mut task);
        flush(&mut task);
        let row = texts(&cluster, "out").pop().unwrap();
        assert!(row.contains(&format!("\"n\":{},", count + 2)), "the record beyond is not counted");
        assert!(row.contains(&format!("\"total\":\"{most}\"")), "the greatest is kept");
        assert!(row.contains(&format!("\"least\":\"{}\"", least)));
        let dead = texts(&cluster, "dead");
        assert_eq!((dead.len(), dead.last()), (count, Some(&sent)));
    }
}

#[test]
fn what_is_late_before_a_restart_is_late_after_it() {
    let late = |text: String| text.replace("    emit:", "    late: { topic: late }\n    emit:");
    let (cluster, stores) = (Cluster::default(), MemoryStores::new());
    let mut first = task_of(&cluster, &stores, task_spec(0), late).unwrap();
    append(&cluster, "a", 1, 1_000);
    // The watermark is at 13 s: the window up to 10 s, which takes late records for 3 s, closes.
    append(&cluster, "b", 1, 15_000);
    append(&cluster, "a", 2, 2_000);
    drain(&cluster, &mut first);
    assert_eq!((texts(&cluster, "out").len(), texts(&cluster, "late").len()), (3, 1));
    flush(&mut first);
    drop(first);
    // Two restarts with the store, one on an empty disk; the late record is the first that comes.
    let stranger = MemoryStores::new();
    for (restart, stores) in [(1, &stores), (2, &stores), (3, &stranger)] {
        let mut task = task_of(&cluster, stores, task_spec(0), late).unwrap();
        assert_eq!(task.watermark_ms(), Some(13_000), "restart {restart}");
        append(&cluster, "a", 3, 3_000);
        drain(&cluster, &mut task);
        assert_eq!((texts(&cluster, "out").len(), texts(&cluster, "late").len()), (3, 1 + restart));
        assert_eq!(task.watermark_ms(), Some(13_000), "a late record moves no time");
    }
}

#[test]
fn what_has_fired_behind_a_window_stays_so_after_a_restart() {
    let two = |text: String| {
        text.replace("sinks:\n", TWICE)
            .replace("input: per_window, topic: out", "input: again, topic: out")
            .replace("on_update", "on_close")
    };
    let (cluster, stores) = (Cluster::default(), MemoryStores::new());
    let mut first = task_of(&cluster, &stores, task_spec(0), two).unwrap();
    append(&cluster, "a", 1, 1_000);
    append(&cluster, "a", 1, 19_000);
    // At 21 s the window up to 20 s still takes late records for 2 s, and its row is not made yet: the
    // time behind it stands 3 s earlier.
    append(&cluster, "b", 1, 23_000);
    append(&cluster, "b", 1, 25_000);
    drain(&cluster, &mut first);
    let rows = texts(&cluster, "out");
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert!(rows[0].contains("\"rows\":2"), "both rows were in time: {rows:?}");
    drop(first);
    for number in 1..=2 {
        let mut task = task_of(&cluster, &stores, task_spec(0), two).unwrap();
        // Late for the first window and for the second: nothing that has fired opens again.
        append(&cluster, "a", 1, 9_000);
        append(&cluster, "c", 1, 24_000 + number);
        drain(&cluster, &mut task);
        assert_eq!(texts(&cluster, "out"), rows);
    }
    let mut last = task_of(&cluster, &stores, task_spec(0), two).unwrap();
    append(&cluster, "z", 1, 90_000);
    drain(&cluster, &mut last);
    let mut counts: Vec<_> = texts(&cluster, "out").split_off(1);
    counts.sort();
    assert_eq!(counts.len(), 2, "b and c, once each: {counts:?}");
}

/// A second window behind the first.
const TWICE: &str = "  again:
    type: window
    input: per_window
    key_by: [k]
    window: { type: tumbling, size: 20s }
    aggregate: { rows: 'count()' }
sinks:
";

/// The windows are of another size: another fingerprint.
fn changed(text: String) -> String {
    text.replace("size: 10s", "size: 20s")
}

#[test]
fn a_changed_operator_whose_state_is_given_up_starts_empty_and_keeps_its_new_state() {
    let (cluster, stores) = (Cluster::default(), MemoryStores::new());
    let mut old = task(&cluster, &stores);
    for key in ["a", "b"] {
        append(&cluster, key, 1, 19_500);
    }
    drain(&cluster, &mut old);
    flush(&mut old);
    drop(old);
    let last = || String::from_utf8(cluster.content().committed(&out()).pop().unwrap().1).unwrap();
    let spec = || TaskSpec { drop_state: vec!["per_window".into()], ..task_spec(0) };
    for count in 1..=4 {
        // The second and later ones are restarts with the same flag, the last one on an empty disk.
        let empty = MemoryStores::new();
        let stores = if count == 4 { &empty } else { &stores };
        let mut task = task_of(&cluster, stores, spec(), changed).unwrap();
        append(&cluster, "b", 1, 19_500);
        drain(&cluster, &mut task);
        assert!(
            last().contains(&format!("\"window_start\":0,\"window_end\":20000,\"n\":{count},")),
            "{}",
            last()
        );
        append(&cluster, &format!("other {count}"), 1, 19_500);
        drain(&cluster, &mut task);
        flush(&mut task);
    }
    let before = cluster.content().committed(&out()).len();
    let mut task = task_of(&cluster, &MemoryStores::new(), task_spec(0), changed).unwrap();
    append(&cluster, "z", 1, 50_000);
    drain(&cluster, &mut task);
    let rows = cluster.content().committed(&out()).len() - before;
    assert_eq!(rows, 1 + 5, "b and the four others close, a does not");
}

#[test]
fn the_state_of_a_vanished_operator_that_is_given_up_is_deleted() {
    let (cluster, stores) = (Cluster::default(), MemoryStores::new());
    let mut old = task(&cluster, &stores);
    append(&cluster, "a", 1, 9_000);
    drain(&cluster, &mut old);
    flush(&mut old);
    assert!(old.store_bytes() > 0);
    drop(old);
    let renamed = |text: String| text.replace("per_window", "other");
    let spec = TaskSpec { drop_state: vec!["per_window".into()], ..task_spec(0) };
    let mut new = task_of(&cluster, &stores, spec, renamed).unwrap();
    cluster.content().append(&source(0), &record("a", 1, -100_000));
    drain(&cluster, &mut new);
    flush(&mut new);
    assert_eq!(new.store_bytes(), 0, "only a late record came since");
    drop(new);
    let again = task_of(&cluster, &stores, task_spec(0), renamed).unwrap();
    assert_eq!(again.next_offset(), 2, "the flag is needed once");
}

/// Rows of a window that closes are counted by a second one, and dropped by a filter.
fn with_readers_that_write_nothing(text: String) -> String {
    let (operators, _) = text.split_once("sinks:").unwrap();
    let operators = operators.replace("    emit: on_update\n", "");
    operators
        + "  none: { type: filter, input: per_window, where: 'n > 1' }
  per_hour:
    type: window
    input: per_window
    key_by: [k]
    window: { type: tumbling, size: 1h }
    aggregate: { rows: 'count()' }
sinks:
  hours: { input: per_hour, topic: out, key: [k], format: { type: json } }
  nothing: { input: none, topic: late, key: [k], format: { type: json } }
"
}

#[test]
fn a_window_whose_rows_nobody_writes_closes_in_pieces() {
    const KEYS: usize = 24_000;
    let (cluster, stores) = (Cluster::default(), MemoryStores::new());
    let task = || {
        let limits = TaskLimits { staged_records_max: 5_000, changelog_part_bytes: 1 << 20, ..limits() };
        task_within(limits, &cluster, &stores, task_spec(0), with_readers_that_write_nothing).unwrap()
    };
    let mut running = task();
    for number in 0..KEYS {
        append(&cluster, &format!("k{number:05}"), 1, 1_000);
    }
    feed(&cluster, &mut running);
    while running.run(1_000).unwrap() > 0 {
        commit(&cluster, &mut running);
    }
    append(&cluster, "k00000", 1, 100_000);
    feed(&cluster, &mut running);
    assert_eq!(running.run(10).unwrap(), 1);
    commit(&cluster, &mut running);
    let mut calls = 1;
    while running.is_going_on() {
        assert_eq!(running.run(10).unwrap(), 0, "no record is taken before the window is closed");
        // The source's position is where it was: what the second window got is a change all the same.
        assert!(running.is_dirty(0) && running.memory().dirty < KEYS / 2 * 200);
        assert!(commit(&cluster, &mut running));
        calls += 1;
    }
    assert_eq!(calls, KEYS / 5_000 + 1);
    drop(running);

    // Another one goes on from the middle of such a closing as well.
    let mut running = task();
    append(&cluster, "k00000", 1, 4_000_000);
    append(&cluster, "k00000", 1, 8_000_000);
    drain(&cluster, &mut running);
    let rows = cluster.content().committed(&out()).len();
    assert_eq!(rows, KEYS + 1, "a row of each key in the first hour, and one of the second");
}

#[test]
fn a_bounded_run_of_an_application_that_ran_before_commits_its_end_first() {
    let (cluster, stores) = (Cluster::default(), MemoryStores::new());
    append(&cluster, "a", 1, 1_000);
    drain(&cluster, &mut task(&cluster, &stores));
    append(&cluster, "b", 1, 1_000);
    let mut running = bounded(&cluster, &stores);
    assert!(running.is_dirty(0) && commit(&cluster, &mut running), "a crash now would find a later end");
    assert!(!running.is_dirty(0));
    append(&cluster, "c", 1, 1_000);
    drop(running);
    let mut running = bounded(&cluster, &stores);
    drain(&cluster, &mut running);
    assert!(running.is_finished());
    assert_eq!(running.next_offset(), 2, "the third record came after the end was committed");
}

#[test]
fn a_run_of_records_may_begin_before_the_task_hold_malformed_ones_and_pass_the_end() {
    let (cluster, stores) = (Cluster::default(), MemoryStores::new());
    let dead = |text: String| {
        text.replace("    event_time:", "    on_error: { dead_letter: dead }\n    event_time:")
    };
    append(&cluster, "a", 1, 1_000);
    append(&cluster, "a", 2, 1_000);
    drain(&cluster, &mut task_of(&cluster, &stores, task_spec(0), dead).unwrap());
    for key in ["b", "c"] {
        cluster.content().append(&source(0), b"{");
        append(&cluster, key, 3, 1_000);
    }
    let spec = TaskSpec { bounded: true, ..task_spec(0) };
    let mut running = task_of(&cluster, &stores, spec, dead).unwrap();
    append(&cluster, "d", 4, 1_000);
    let all = cluster.content().committed(&source(0));
    running.enqueue(Batch::of(&source(0), all)).unwrap();
    while running.run(100).unwrap() > 0 || commit(&cluster, &mut running) {}
    assert!(running.is_finished());
    assert_eq!((running.next_offset(), texts(&cluster, "dead").len()), (6, 2));
    let last: Vec<String> =
        texts(&cluster, "out").into_iter().filter(|row| row.contains("\"final\":true")).collect();
    for (row, key) in last.iter().zip(["\"a\"", "\"b\"", "\"c\""]) {
        assert!(row.contains(key) && row.contains("\"total\":3"), "{row}");
    }
    assert_eq!(last.len(), 3);
}

#[test]
fn a_commit_without_an_offset_for_each_record_is_broken() {
    let (cluster, stores) = (Cluster::default(), MemoryStores::new());
    append(&cluster, "a", 1, 1_000);
    let mut running = task(&cluster, &stores);
    feed(&cluster, &mut running);
    running.run(10).unwrap();
    assert!(running.prepare(0).unwrap().is_some());
    assert!(matches!(running.committed(&[], 0), Err(OperatorError::Broken(_))));
}
