//! Restores.

use super::*;
use crate::record::TopicPartition;
use crate::state::store::StoreFactory;
use crate::topology::plan::Start;
use crate::worker::port::LogError;
use crate::worker::tests::topology::{changelog, record};

/// A cluster on which a task has committed `checkpoints` of one record each.
fn after_checkpoints(checkpoints: i64) -> (Cluster, MemoryStores) {
    let (cluster, stores) = (Cluster::default(), MemoryStores::new());
    let mut task = task(&cluster, &stores);
    for number in 0..checkpoints {
        cluster.content().append(&source(0), &record("a", number, 1_000));
        drain(&cluster, &mut task);
    }
    (cluster, stores)
}

/// One more record, and the transaction that a dying owner has made of it and not sent yet.
fn last_words(cluster: &Cluster) -> Transaction {
    let mut task = task(cluster, &MemoryStores::new());
    cluster.content().append(&source(0), &record("a", 100, 1_000));
    feed(cluster, &mut task);
    task.run(10).unwrap();
    transaction(&mut task).unwrap()
}

fn refused(result: Result<Restored, RestoreError>) -> String {
    match result {
        Err(RestoreError::Refused(message)) => message,
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("restored"),
    }
}

#[test]
fn a_commit_that_lands_during_the_lookups_is_not_lost() {
    for moment in ["committed", "high watermark"] {
        let (cluster, stores) = after_checkpoints(2);
        let last = last_words(&cluster);
        let mut last = Some(last);
        cluster.content().lookups.clear();
        // A commit is over when the group's offsets have been looked up; so the second moment is one
        // at which only the markers of a decided transaction can still come.
        if moment == "high watermark" {
            let mut content = cluster.content();
            content.write(0, &last.take().unwrap());
            content.prepare(0);
            content.land_offsets(0);
        }
        cluster.hook(move |content, name| {
            if name == moment {
                if let Some(last) = last.take() {
                    content.write(0, &last);
                }
                content.prepare(0);
                content.land(0);
            }
        });
        let restored = restore_with(&cluster, &stores, task_spec(0)).unwrap();
        assert_eq!(restored.next_offset, 3);
        assert_eq!(restored.header.unwrap().checkpoint, 3, "{moment}");
        assert_eq!(cluster.content().lookups[..3], ["committed", "high watermark", "last stable"]);
    }
}

#[test]
fn an_open_transaction_is_waited_for() {
    let (cluster, stores) = after_checkpoints(1);
    let last = last_words(&cluster);
    let mut content = cluster.content();
    content.write(0, &last);
    content.prepare(0);
    content.land_offsets(0);
    drop(content);
    let mut lookups = 0;
    cluster.hook(move |content, name| {
        lookups += u32::from(name == "last stable");
        if lookups == 3 {
            content.land(0);
        }
    });
    let host = Host::default();
    let restored = restore(&request(task_spec(0)), &mut cluster.clone(), &stores, &host).unwrap();
    assert_eq!((restored.next_offset, host.pauses.get()), (2, 2));
}

#[test]
fn waiting_ends_and_names_the_producer() {
    let (cluster, stores) = after_checkpoints(1);
    let stuck =
        Transaction { changes: vec![(changelog(0), vec![b"x".to_vec().into()])], ..Transaction::default() };
    cluster.content().write(4711, &stuck);
    let host = Host::default();
    let error = restore(&request(task_spec(0)), &mut cluster.clone(), &stores, &host).err().unwrap();
    assert!(matches!(&error, RestoreError::Retry(message) if message.contains("4711")), "{error}");
    assert_eq!(host.pauses.get(), 5);
    let host = Host { cancelled_after: Some(2), ..Host::default() };
    let error = restore(&request(task_spec(0)), &mut cluster.clone(), &stores, &host).err().unwrap();
    assert!(matches!(error, RestoreError::Cancelled), "{error}");
    assert_eq!(host.pauses.get(), 2);
}

#[test]
fn waiting_goes_on_while_the_log_moves() {
    let (cluster, stores) = after_checkpoints(1);
    let stuck =
        Transaction { changes: vec![(changelog(0), vec![b"x".to_vec().into()])], ..Transaction::default() };
    for producer in 10..20 {
        cluster.content().write(producer, &stuck);
    }
    let (mut lookups, mut next) = (0, 10);
    cluster.hook(move |content, name| {
        lookups += u32::from(name == "last stable");
        if lookups == 4 {
            (lookups, next) = (0, next + 1);
            content.end(next - 1, false);
        }
    });
    let host = Host::default();
    let restored = restore(&request(task_spec(0)), &mut cluster.clone(), &stores, &host).unwrap();
    assert_eq!(restored.next_offset, 1);
    assert!(host.pauses.get() > 20, "{}", host.pauses.get());
}

/// A member that has lost its partitions and does not know yet restores beside their new owner.
#[test]
fn an_owner_that_goes_on_during_a_restore_is_no_reason_to_refuse() {
    let (cluster, stores) = after_checkpoints(2);
    let mut next = Some(last_words(&cluster));
    cluster.hook(move |content, name| {
        if let Some(next) = next.take_if(|_| name == "high watermark") {
            content.write(0, &next);
            content.end(0, true);
        }
    });
    let error = restore_with(&cluster, &stores, task_spec(0)).err().unwrap();
    assert!(matches!(&error, RestoreError::Retry(why) if why.contains("somebody else owns it")), "{error}");
    assert_eq!(restore_with(&cluster, &stores, task_spec(0)).unwrap().next_offset, 3);
}

/// Its owner has cut the log meanwhile, where a sweep began that this restore does not see.
#[test]
fn an_owner_that_cuts_the_log_during_a_restore_is_no_reason_to_refuse() {
    let (cluster, _) = after_checkpoints(3);
    let mut next = Some(last_words(&cluster));
    cluster.hook(move |content, name| {
        if let Some(next) = next.take_if(|_| name == "log start") {
            // Up to the last record that the restore means to read: it is of no sweep that the log has.
            let end = content.high_watermark(&changelog(0));
            content.write(0, &next);
            content.end(0, true);
            content.cut(&changelog(0), end - 1);
        }
    });
    let error = restore_with(&cluster, &MemoryStores::new(), task_spec(0)).err().unwrap();
    assert!(matches!(&error, RestoreError::Retry(why) if why.contains("somebody else owns it")), "{error}");
}

#[test]
fn offsets_that_disagree_are_refused() {
    let (cluster, stores) = after_checkpoints(2);
    cluster.content().group.insert(source(0), 1);
    let message = refused(restore_with(&cluster, &stores, task_spec(0)));
    assert!(message.contains("offset 2") && message.contains("offset is 1"), "{message}");
    cluster.content().group.clear();
    let message = refused(restore_with(&cluster, &stores, task_spec(0)));
    assert!(message.contains("no committed offset") && message.contains("to 2"), "{message}");
}

#[test]
fn an_empty_changelog_with_a_committed_offset_is_refused() {
    let cluster = Cluster::default();
    cluster.content().group.insert(source(0), 5);
    let message = refused(restore_with(&cluster, &MemoryStores::new(), task_spec(0)));
    assert!(message.contains("is 5") && message.contains("changelog is empty"), "{message}");
}

#[test]
fn a_changed_or_vanished_operator_is_refused_unless_its_state_is_given_up() {
    let (cluster, stores) = after_checkpoints(2);
    let try_with = |operators: Vec<(String, String)>, drop_state: Vec<String>| {
        let request = RestoreRequest { operators, ..request(TaskSpec { drop_state, ..task_spec(0) }) };
        restore(&request, &mut cluster.clone(), &stores, &Host::default())
            .map(|restored| restored.next_offset)
    };
    let changed = vec![("per_window".to_owned(), "kind: other".to_owned())];
    let given_up = vec!["per_window".to_owned()];
    for (operators, says) in [(changed, "has changed"), (Vec::new(), "not in the topology")] {
        let error = try_with(operators.clone(), Vec::new()).unwrap_err();
        assert!(matches!(&error, RestoreError::Changed(message) if message.contains(says)), "{error:?}");
        assert!(error.to_string().contains("--drop-state per_window"), "{error}");
        assert_eq!(try_with(operators, given_up.clone()).unwrap(), 2);
    }
}

#[test]
fn a_cut_in_the_middle_of_a_restore_begins_it_again() {
    let (cluster, stores) = (Cluster::default(), MemoryStores::new());
    let mut owner = task(&cluster, &stores);
    for number in 0..30 {
        cluster.content().append(&source(0), &record("a", number, 1_000));
        drain(&cluster, &mut owner);
        flush(&mut owner);
    }
    let (partition, cut) = owner.cut_job().unwrap();
    assert!(cut > 10, "{cut}");
    let mut reads = 0;
    cluster.hook(move |content, name| {
        reads += u32::from(name == "read");
        if reads == 5 {
            content.cut(&partition, cut);
        }
    });
    let restored = restore_with(&cluster, &MemoryStores::new(), task_spec(0)).unwrap();
    assert_eq!((restored.next_offset, restored.log_start), (30, cut));
    let starts = cluster.content().lookups.iter().filter(|name| *name == "log start").count();
    assert!(starts >= 3, "the log start is looked up again: {starts}");
}

#[test]
fn a_log_that_is_cut_too_far_is_refused() {
    let (cluster, stores) = after_checkpoints(4);
    let end = cluster.content().high_watermark(&changelog(0));
    cluster.content().cut(&changelog(0), end);
    let message = refused(restore_with(&cluster, &MemoryStores::new(), task_spec(0)));
    assert!(message.contains("cannot be restored"), "{message}");
    assert!(restore_with(&cluster, &stores, task_spec(0)).is_err(), "the store was never flushed");
}

#[test]
fn a_corrupt_store_is_set_aside_even_if_the_lookups_fail_at_first() {
    let (cluster, stores) = after_checkpoints(3);
    drop(restore_with(&cluster, &stores, task_spec(0)).unwrap());
    let stuck = Transaction { offsets: vec![(source(0), 9).into()], ..Transaction::default() };
    cluster.content().write(5, &stuck);
    let corrupt = RestoreRequest { corrupt: Some("a bad block".into()), ..request(task_spec(0)) };
    assert!(restore(&corrupt, &mut cluster.clone(), &stores, &Host::default()).is_err());
    cluster.content().end(5, false);
    let restored = restore_with(&cluster, &stores, task_spec(0)).unwrap();
    assert!(restored.records_read >= 3, "all is read again: {}", restored.records_read);
    let aside = stores.open("in-0.corrupt").unwrap();
    assert!(aside.position().unwrap().is_some());
}

#[test]
fn a_store_of_another_topic_is_dropped() {
    let (cluster, stores) = after_checkpoints(3);
    drop(restore_with(&cluster, &stores, task_spec(0)).unwrap());
    let again = restore_with(&cluster, &stores, task_spec(0)).unwrap();
    assert_eq!(again.records_read, 0);
    drop(again);
    let mut spec = task_spec(0);
    spec.changelog.as_mut().unwrap().topic_id = [8; 16];
    let restored = restore_with(&cluster, &stores, spec).unwrap();
    assert!(restored.records_read >= 3);
    assert_eq!(restored.next_offset, 3);
}

#[test]
fn a_restore_that_is_called_off_goes_on_later() {
    let (cluster, stores) = after_checkpoints(6);
    let host = Host { cancelled_after: Some(0), ..Host::default() };
    let error = restore(&request(task_spec(0)), &mut cluster.clone(), &stores, &host).err().unwrap();
    assert!(matches!(error, RestoreError::Cancelled), "{error}");
    assert_eq!(restore_with(&cluster, &stores, task_spec(0)).unwrap().next_offset, 6);
}

#[test]
fn what_a_lookup_fails_with_decides_what_comes_next() {
    let (cluster, _) = after_checkpoints(2);
    for name in ["committed", "high watermark", "last stable", "log start", "read"] {
        let fails_with = |error: LogError| {
            cluster.content().fails = Some((name, error));
            let result = restore_with(&cluster, &MemoryStores::new(), task_spec(0));
            assert!(cluster.content().fails.is_none(), "{name} was not looked up");
            result.map(|restored| restored.next_offset).map_err(|error| format!("{error:?}"))
        };
        let kinds = [
            (LogError::Retry("x".into()), "Retry"),
            (LogError::Client("x".into()), "Broken"),
            (LogError::Fenced("x".into()), "Refused"),
            (LogError::Stop("x".into()), "Refused"),
        ];
        for (error, kind) in kinds {
            assert_eq!(fails_with(error), Err(format!("{kind}(\"x\")")), "{name}");
        }
        // Where the log has moved away under the replay, it begins again at once.
        let moved = if name == "read" { Ok(2) } else { Err("Retry(\"x\")".to_owned()) };
        assert_eq!(fails_with(LogError::OutOfRange("x".into())), moved, "{name}");
    }
}

#[test]
fn it_starts_where_the_topology_says() {
    let cluster = Cluster::default();
    for number in 0..5 {
        cluster.content().append(&source(0), &record("a", number, 1_000));
    }
    cluster.content().cut(&source(0), 2);
    let start = |start| {
        let spec = TaskSpec { start, ..task_spec(0) };
        restore_with(&cluster, &MemoryStores::new(), spec.clone()).unwrap().next_offset
    };
    assert_eq!((start(Start::Earliest), start(Start::Latest)), (2, 5));
    let stateless = TaskSpec { changelog: None, start: Start::Latest, ..task_spec(0) };
    assert_eq!(restore_with(&cluster, &MemoryStores::new(), stateless.clone()).unwrap().next_offset, 5);
    cluster.content().group.insert(source(0), 3);
    assert_eq!(restore_with(&cluster, &MemoryStores::new(), stateless).unwrap().next_offset, 3);
}

#[test]
fn a_bounded_run_keeps_its_end() {
    let (cluster, stores) = (Cluster::default(), MemoryStores::new());
    let bounded = || TaskSpec { bounded: true, ..task_spec(0) };
    cluster.content().append(&source(0), &record("a", 1, 1_000));
    cluster.content().append(&source(0), &record("a", 1, 1_000));
    let open = Transaction { outputs: vec![out_of_source()], ..Transaction::default() };
    cluster.content().write(3, &open);
    let mut first = task_of(&cluster, &stores, bounded(), |text| text).unwrap();
    assert!(commit(&cluster, &mut first), "the end is committed at once");
    drop(first);
    cluster.content().end(3, true);
    let restored = restore_with(&cluster, &stores, bounded()).unwrap();
    assert_eq!(restored.end_offset, Some(2));
}

/// An output that goes to the source's partition.
fn out_of_source() -> crate::worker::port::OutputRecord {
    let TopicPartition { topic, partition } = source(0);
    let value = Some(record("a", 1, 1_000));
    crate::worker::port::OutputRecord {
        topic,
        partition,
        key: None,
        value,
        headers: Vec::new(),
        timestamp_ms: -1,
    }
}
