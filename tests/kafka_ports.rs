//! The Kafka ports against a real broker, whose address is in `THALWEG_TEST_BOOTSTRAP`. Without one
//! these tests fail; they never skip. Each uses topics, groups and ids of its own.
#![allow(clippy::disallowed_methods, reason = "tests live in real time; the engine does not")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use thalweg::kafka::{
    ConnectionSettings, CrashPoint, KafkaAdmin, KafkaChangelogReader, KafkaLog, KafkaTransactionLog,
};
use thalweg::record::{Records, TopicPartition};
use thalweg::runtime::reset::{Reset, ResetError};
use thalweg::topology::Plan;
use thalweg::worker::port::{
    ChangelogReader, CommitError, Log, LogAdmin, LogError, LogEvent, Member, OutputRecord, TopicSpec,
    Transaction, TransactionLog,
};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);
const INIT_MS: u64 = 30_000;

fn bootstrap() -> String {
    std::env::var("THALWEG_TEST_BOOTSTRAP")
        .expect("THALWEG_TEST_BOOTSTRAP must hold the address of a Kafka broker, e.g. 127.0.0.1:9092")
}

fn unique(what: &str) -> String {
    static COUNTER: AtomicUsize = AtomicUsize::new(0);
    let started = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    format!("test-{what}-{started}-{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed))
}

fn settings(group: &str, worker: &str) -> ConnectionSettings {
    ConnectionSettings {
        bootstrap_servers: bootstrap(),
        librdkafka: Vec::new(),
        group: group.into(),
        instance_id: Some(format!("{group}-{worker}")),
        session_timeout_ms: 6_000,
        transactional_id: format!("{group}-{worker}"),
        transaction_timeout_ms: 10_000,
        fetch_queue_bytes_max: 64 << 20,
    }
}

fn admin() -> KafkaAdmin {
    KafkaAdmin::new(&settings("admin", "0")).unwrap()
}

fn create(what: &str, partitions: i32) -> String {
    let name = unique(what);
    let config = vec![("max.message.bytes".into(), "2000000".into())];
    admin().create(&TopicSpec { name: name.clone(), partitions, replication: 1, config }).unwrap();
    name
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Polls until the log is assigned something.
fn assigned(log: &mut KafkaLog) -> (Vec<TopicPartition>, Member) {
    until("an assignment", || match log.poll().unwrap() {
        Some(LogEvent::Assigned { partitions, member }) => Some((partitions, member)),
        Some(LogEvent::Revoked | LogEvent::Lost) => {
            log.release().unwrap();
            None
        }
        None => None,
    })
}

type Seen = (TopicPartition, i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(String, Option<Vec<u8>>)>, i64);

fn seen(records: &dyn Records) -> Vec<Seen> {
    (0..records.len())
        .map(|index| {
            let record = records.record(index);
            let mut headers = Vec::new();
            records.headers(index, &mut |name, value| headers.push((name.into(), value.map(<[u8]>::to_vec))));
            (
                records.topic_partition().clone(),
                record.offset,
                record.key.map(<[u8]>::to_vec),
                record.value.map(<[u8]>::to_vec),
                headers,
                record.timestamp_ms,
            )
        })
        .collect()
}

/// Fetches until there are `count` records.
fn fetch(log: &mut KafkaLog, count: usize) -> Vec<Seen> {
    let mut all = Vec::new();
    until("records", || {
        assert!(log.poll().unwrap().is_none());
        for batch in log.fetch(1_000).unwrap() {
            all.extend(seen(&*batch));
        }
        (all.len() >= count).then_some(())
    });
    all
}

/// A consumer that owns the one partition of `topic`, and a producer that commits for it.
struct Pair {
    log: KafkaLog,
    producer: KafkaTransactionLog,
    member: Member,
    source: TopicPartition,
    settings: ConnectionSettings,
}

impl Pair {
    fn new(what: &str) -> Pair {
        Pair::with(what, None)
    }

    fn with(what: &str, crash_point: Option<CrashPoint>) -> Pair {
        let topic = create(&format!("{what}-in"), 1);
        let settings = settings(&unique(what), "0");
        let mut log = KafkaLog::new(&settings, std::slice::from_ref(&topic)).unwrap();
        let (partitions, member) = assigned(&mut log);
        let source = TopicPartition::new(&topic, 0);
        assert_eq!(partitions, std::slice::from_ref(&source));
        let mut producer = KafkaTransactionLog::new(&settings, &log, crash_point);
        producer.init(INIT_MS).unwrap();
        Pair { log, producer, member, source, settings }
    }

    fn transaction(&self, offset: i64) -> Transaction {
        Transaction { offsets: vec![(self.source.clone(), offset).into()], ..Transaction::default() }
    }

    fn changing(&self, changelog: &TopicPartition, values: &[&str], offset: i64) -> Transaction {
        let values = values.iter().map(|value| value.as_bytes().to_vec().into()).collect();
        Transaction { changes: vec![(changelog.clone(), values)], ..self.transaction(offset) }
    }

    fn reader(&self) -> KafkaChangelogReader {
        KafkaChangelogReader::new(&self.settings).unwrap()
    }
}

fn output(partition: &TopicPartition, value: &str) -> OutputRecord {
    OutputRecord {
        topic: partition.topic.clone(),
        partition: partition.partition,
        key: None,
        value: Some(value.as_bytes().to_vec()),
        headers: Vec::new(),
        timestamp_ms: -1,
    }
}

fn read_all(
    reader: &mut KafkaChangelogReader,
    partition: &TopicPartition,
    from: i64,
    to: i64,
) -> Result<Vec<(i64, String)>, LogError> {
    let mut all = Vec::new();
    reader.read(partition, from, to, 10_000, &mut |offset, value| {
        all.push((offset, String::from_utf8(value.to_vec()).unwrap()));
        Ok(())
    })?;
    Ok(all)
}

/// A transaction that stands open on the broker: offsets are sent, and the commit waits in the crash
/// point until `go` is dropped.
fn hold_at(
    point: &'static str,
) -> (CrashPoint, std::sync::mpsc::SyncSender<()>, std::sync::mpsc::Receiver<()>) {
    let (go, wait) = std::sync::mpsc::sync_channel::<()>(0);
    let (tell, reached) = std::sync::mpsc::sync_channel::<()>(1);
    let wait = Mutex::new(wait);
    let hook = Arc::new(move |name: &str| {
        if name == point {
            let _ = tell.try_send(());
            let _ = wait.lock().unwrap().recv();
        }
    });
    (hook, go, reached)
}

#[test]
fn reading_goes_past_markers_and_aborted_records() {
    let mut pair = Pair::new("markers");
    let changelog = TopicPartition::new(&create("log", 1), 0);
    pair.producer.commit(pair.changing(&changelog, &["kept"], 1), &pair.member).unwrap();
    // Offset 0 and its marker are there. Now one that a fencing aborts.
    let (hook, go, reached) = hold_at("offsets_sent");
    let mut doomed = KafkaTransactionLog::new(&pair.settings, &pair.log, Some(hook));
    doomed.init(INIT_MS).unwrap();
    let transaction = pair.changing(&changelog, &["aborted", "aborted"], 2);
    let member = pair.member.clone();
    std::thread::scope(|scope| {
        let commit = scope.spawn(move || doomed.commit(transaction, &member));
        reached.recv().unwrap();
        let mut reader = pair.reader();
        until("the records of the open transaction", || {
            (reader.high_watermark(&changelog).unwrap() == 4).then_some(())
        });
        assert_eq!(reader.last_stable_offset(&changelog).unwrap(), 2, "held by the open transaction");
        pair.producer.init(INIT_MS).unwrap();
        drop(go);
        assert!(matches!(commit.join().unwrap(), Err(CommitError::Doubt(_))));
    });
    let mut reader = pair.reader();
    until("the abort's marker", || (reader.last_stable_offset(&changelog).unwrap() == 5).then_some(()));
    for _ in 0..2 {
        assert_eq!(read_all(&mut reader, &changelog, 0, 5).unwrap(), [(0, "kept".to_string())]);
        assert_eq!(read_all(&mut reader, &changelog, 1, 5).unwrap(), []);
        assert_eq!(read_all(&mut reader, &changelog, 0, 1).unwrap(), [(0, "kept".to_string())]);
    }
    // Past the end there is nothing to wait for.
    let mut stalled = pair.reader();
    let stalled = stalled.read(&changelog, 0, 6, 500, &mut |_, _| Ok(()));
    assert!(matches!(stalled, Err(LogError::Retry(_))), "{stalled:?}");
    // The consumer sees the end behind the markers, too.
    let mut transaction = pair.transaction(3);
    transaction.outputs.push(output(&pair.source, "in"));
    pair.producer.commit(transaction, &pair.member).unwrap();
    pair.log.start(&[(pair.source.clone(), 0)]).unwrap();
    assert_eq!(fetch(&mut pair.log, 1)[0].1, 0);
    until("the position behind the marker", || {
        pair.log.poll().unwrap();
        pair.log.fetch(10).unwrap();
        (pair.log.read_up_to(&pair.source) == Some(2) && pair.log.end_offset(&pair.source) == Some(2))
            .then_some(())
    });
}

#[test]
fn deleted_records_move_the_log_start_and_are_out_of_range() {
    let mut pair = Pair::new("cut");
    let changelog = TopicPartition::new(&create("log", 1), 0);
    pair.producer.commit(pair.changing(&changelog, &["a", "b", "c"], 1), &pair.member).unwrap();
    assert_eq!(admin().delete_records(&changelog, 2).unwrap(), 2);
    assert_eq!(admin().delete_records(&changelog, 1).unwrap(), 2, "a lower cut does nothing");
    let mut reader = pair.reader();
    assert_eq!(reader.log_start(&changelog).unwrap(), 2);
    for from in [0, 1] {
        let out = read_all(&mut reader, &changelog, from, 4);
        assert!(matches!(out, Err(LogError::OutOfRange(_))), "{out:?}");
    }
    let beyond = read_all(&mut reader, &changelog, 100, 200);
    assert!(matches!(beyond, Err(LogError::OutOfRange(_))), "{beyond:?}");
    assert_eq!(read_all(&mut reader, &changelog, 2, 4).unwrap(), [(2, "c".to_string())]);

    let mut transaction = pair.transaction(1);
    transaction.outputs.push(output(&pair.source, "in"));
    pair.producer.commit(transaction, &pair.member).unwrap();
    pair.log.start(&[(pair.source.clone(), 77)]).unwrap();
    let error = until("the error of the fetch", || {
        pair.log.poll().unwrap();
        pair.log.fetch(10).err()
    });
    assert!(matches!(error, LogError::OutOfRange(_)), "{error:?}");
}

#[test]
fn a_topic_that_was_created_again_has_another_id() {
    let topic = create("again", 3);
    let mut admin = admin();
    let names = [topic.clone(), unique("missing")];
    let first = admin.describe(&names).unwrap();
    assert_eq!(first[1], None);
    let first = first[0].clone().unwrap();
    assert_eq!(first.partitions, 3);
    assert_eq!(first.config["max.message.bytes"], "2000000");
    assert_ne!(first.id, [0; 16]);
    // Created again while it exists: no error, no change.
    let spec = TopicSpec { name: topic.clone(), partitions: 3, replication: 1, config: Vec::new() };
    admin.create(&spec).unwrap();
    assert_eq!(admin.describe(&names).unwrap()[0].clone().unwrap().id, first.id);
    admin.delete(std::slice::from_ref(&topic)).unwrap();
    admin.delete(std::slice::from_ref(&topic)).unwrap();
    until("the topic's end", || admin.describe(&names).unwrap()[0].is_none().then_some(()));
    admin.create(&spec).unwrap();
    let second = admin.describe(&names).unwrap()[0].clone().unwrap();
    assert_ne!(second.id, first.id);
    let too_many = TopicSpec { name: unique("replicas"), partitions: 1, replication: 99, config: Vec::new() };
    let refused = admin.create(&too_many);
    assert!(matches!(refused, Err(LogError::Stop(_))), "{refused:?}");
}

#[test]
fn a_reset_removes_the_group_and_the_topics_of_an_application() {
    let mut pair = Pair::new("reset");
    let application = pair.settings.group.clone();
    let (ours, other) =
        (format!("thalweg.{application}.a.changelog"), format!("thalweg.{application}x.a.changelog"));
    let mut admin = admin();
    for name in [&ours, &other] {
        let spec = TopicSpec { name: name.clone(), partitions: 2, replication: 1, config: Vec::new() };
        admin.create(&spec).unwrap();
    }
    let transaction = pair.transaction(12);
    pair.producer.commit(transaction, &pair.member).unwrap();
    let plan =
        Plan { name: application, sources: vec![], operators: vec![], repartitions: vec![], sinks: vec![] };
    let running = Reset::find(&mut admin, &plan, None).unwrap_err();
    assert!(matches!(running, ResetError::Running { .. }), "{running}");
    pair.log.leave(10_000).unwrap();

    let reset = Reset::find(&mut admin, &plan, None).unwrap();
    assert_eq!(reset.offsets, [(pair.source.clone(), 12)]);
    assert_eq!(reset.topics, std::slice::from_ref(&ours));
    reset.carry_out(&mut admin, None).unwrap();
    let prefix = format!("thalweg.{}", plan.name);
    until("the topic's end", || (admin.list(&prefix).unwrap() == [other.clone()]).then_some(()));
    assert!(Reset::find(&mut admin, &plan, None).unwrap().is_empty());
}

#[test]
fn headers_tombstones_and_times_come_through() {
    let mut pair = Pair::new("shape");
    let headers = vec![
        ("a".to_string(), Some(b"1".to_vec())),
        ("a".to_string(), None),
        ("\u{fc}".to_string(), Some(Vec::new())),
    ];
    let mut transaction = pair.transaction(1);
    let record = OutputRecord {
        key: Some(b"k".to_vec()),
        value: None,
        headers: headers.clone(),
        timestamp_ms: 1_234_567_890_123,
        ..output(&pair.source, "")
    };
    let empty = OutputRecord { key: Some(Vec::new()), timestamp_ms: 0, ..output(&pair.source, "") };
    transaction.outputs.extend([record, empty]);
    pair.producer.commit(transaction, &pair.member).unwrap();
    pair.log.start(&[(pair.source.clone(), 0)]).unwrap();
    let all = fetch(&mut pair.log, 2);
    let partition = pair.source.clone();
    assert_eq!(all[0], (partition.clone(), 0, Some(b"k".to_vec()), None, headers, 1_234_567_890_123));
    assert_eq!(all[1], (partition, 1, Some(Vec::new()), Some(Vec::new()), Vec::new(), 1));
}

#[test]
fn starting_again_reads_from_the_new_positions_and_drops_what_had_arrived() {
    let mut pair = Pair::new("restart");
    for round in 0..5 {
        let mut transaction = pair.transaction(round);
        transaction.outputs.extend((0..20).map(|n| output(&pair.source, &format!("{round} {n}"))));
        pair.producer.commit(transaction, &pair.member).unwrap();
    }
    let mut kept = Vec::new();
    for _ in 0..20 {
        pair.log.start(&[(pair.source.clone(), 0)]).unwrap();
        let first = until("the first record", || pair.log.fetch(1).unwrap().into_iter().next());
        assert_eq!(first.record(0).offset, 0);
        kept.push(first);
        // Right away, while fetches are under way, with and without giving up in between.
        pair.log.start(&[(pair.source.clone(), 50)]).unwrap();
        assert_eq!(fetch(&mut pair.log, 1)[0].1, 50);
        pair.log.release().unwrap();
        assert!(pair.log.fetch(1).unwrap().is_empty());
    }
    // Batches outlive their assignment and their consumer, and may be dropped anywhere.
    pair.log.leave(10_000).unwrap();
    drop(pair.log);
    std::thread::spawn(move || assert!(kept.iter().all(|batch| batch.record(0).value == Some(b"0 0"))))
        .join()
        .unwrap();
}

#[test]
fn two_consumers_share_and_a_static_member_leaves_at_once() {
    let topic = create("shared", 4);
    let group = unique("rebalance");
    let start = |log: &mut KafkaLog, partitions: &[TopicPartition]| {
        log.start(&partitions.iter().map(|p| (p.clone(), 0)).collect::<Vec<_>>()).unwrap();
    };
    let mut first = KafkaLog::new(&settings(&group, "0"), std::slice::from_ref(&topic)).unwrap();
    let (all, before) = assigned(&mut first);
    assert_eq!(all.len(), 4);
    start(&mut first, &all);

    let mut second = KafkaLog::new(&settings(&group, "1"), std::slice::from_ref(&topic)).unwrap();
    until("the revocation", || {
        assert!(second.poll().unwrap().is_none(), "nothing is given away before it is released");
        match first.poll().unwrap() {
            Some(LogEvent::Revoked) => Some(()),
            other => {
                assert!(other.is_none(), "{other:?}");
                first.fetch(100).unwrap();
                None
            }
        }
    });
    assert!(first.start(&[]).is_err(), "the group waits");
    first.release().unwrap();
    let mut both = [None, None];
    until("both assignments", || {
        for (log, got) in [&mut first, &mut second].into_iter().zip(&mut both) {
            if let Some(LogEvent::Assigned { partitions, member }) = log.poll().unwrap() {
                *got = Some((partitions, member));
            }
        }
        both.iter().all(Option::is_some).then_some(())
    });
    let [one, two] = both.map(Option::unwrap);
    assert_eq!((one.0.len(), two.0.len()), (2, 2));
    assert!(one.1.generation > before.generation);
    assert_eq!(one.1.generation, two.1.generation);
    start(&mut first, &one.0);
    start(&mut second, &two.0);

    // A long restore: no start, only polls, for longer than a session; the group stays as it is.
    let quiet = Instant::now() + Duration::from_secs(8);
    let mut members = admin();
    while Instant::now() < quiet {
        assert!(first.poll().unwrap().is_none() && second.poll().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(members.group_members(&group).unwrap().len(), 2);

    second.leave(10_000).unwrap();
    assert_eq!(
        members.group_members(&group).unwrap().len(),
        1,
        "at once, without waiting for a session's end"
    );
    until("the whole topic again", || match first.poll().unwrap() {
        Some(LogEvent::Revoked) => {
            first.release().unwrap();
            None
        }
        Some(LogEvent::Assigned { partitions, .. }) => (partitions.len() == 4).then_some(()),
        _ => None,
    });
    let refused = members.delete_group(&group);
    assert!(matches!(refused, Err(LogError::Stop(_))), "{refused:?}");
    first.leave(10_000).unwrap();
    assert_eq!(members.group_members(&group).unwrap(), [] as [String; 0]);
    members.delete_group(&group).unwrap();
    members.delete_group(&group).unwrap();
    assert_eq!(members.group_offsets(&group).unwrap(), []);
}

#[test]
fn leaving_in_the_middle_of_the_first_join_leaves_nothing_behind() {
    let topic = create("join", 1);
    let mut members = admin();
    for steps in 0..20 {
        let group = unique("join");
        let mut log = KafkaLog::new(&settings(&group, "0"), std::slice::from_ref(&topic)).unwrap();
        let stop = Instant::now() + Duration::from_millis(2 * steps);
        while Instant::now() < stop {
            log.poll().unwrap();
        }
        log.leave(10_000).unwrap();
        assert_eq!(members.group_members(&group).unwrap(), [] as [String; 0], "after {} ms", 2 * steps);
    }
}

#[test]
fn a_consumer_may_be_dropped_in_any_state() {
    let topic = create("drop", 2);
    let join = |group: &str, worker: &str| {
        KafkaLog::new(&settings(group, worker), std::slice::from_ref(&topic)).unwrap()
    };
    let limit = |what: &str, log: KafkaLog| {
        let began = Instant::now();
        drop(log);
        assert!(began.elapsed() < Duration::from_secs(20), "{what}: dropping took {:?}", began.elapsed());
    };
    let group = unique("drop");
    limit("new", join(&group, "0"));
    let mut reading = join(&unique("drop"), "0");
    let (partitions, _) = assigned(&mut reading);
    reading.start(&partitions.iter().map(|p| (p.clone(), 0)).collect::<Vec<_>>()).unwrap();
    limit("reading", reading);
    let mut hurried = join(&unique("drop"), "0");
    assigned(&mut hurried);
    assert!(hurried.leave(0).is_err(), "no time to leave");
    limit("not left", hurried);
    let group = unique("drop");
    let mut revoking = join(&group, "0");
    assigned(&mut revoking);
    let mut other = join(&group, "1");
    until("the revocation", || {
        other.poll().unwrap();
        matches!(revoking.poll().unwrap(), Some(LogEvent::Revoked)).then_some(())
    });
    limit("revocation not answered", revoking);
    limit("waiting for the group", other);
}

#[test]
fn unstable_offsets_are_waited_out() {
    let (hook, go, reached) = hold_at("offsets_sent");
    let mut pair = Pair::with("unstable", Some(hook));
    let (source, settings) = (pair.source.clone(), pair.settings.clone());
    let (transaction, member) = (pair.transaction(7), pair.member.clone());
    std::thread::scope(|scope| {
        let commit = scope.spawn(move || pair.producer.commit(transaction, &member).map(|_| pair));
        reached.recv().unwrap();
        let mut reader = KafkaChangelogReader::new(&settings).unwrap();
        let unstable = reader.committed_offsets(std::slice::from_ref(&source), 300);
        let says = |error: &LogError| error.to_string().contains("kafka-transactions.sh");
        assert!(matches!(&unstable, Err(error @ LogError::Retry(_)) if says(error)), "{unstable:?}");
        let waiting = scope.spawn(move || reader.committed_offsets(std::slice::from_ref(&source), 30_000));
        drop(go);
        assert_eq!(waiting.join().unwrap().unwrap(), [Some(7)]);
        commit.join().unwrap().unwrap();
    });
}

#[test]
fn the_crash_points_come_in_their_order() {
    let points = Arc::new(Mutex::new(Vec::new()));
    let hook: CrashPoint = {
        let points = points.clone();
        Arc::new(move |point: &str| points.lock().unwrap().push(point.to_string()))
    };
    let mut pair = Pair::with("points", Some(hook));
    let changelog = TopicPartition::new(&create("log", 1), 0);
    pair.producer.commit(pair.changing(&changelog, &["a"], 1), &pair.member).unwrap();
    assert_eq!(*points.lock().unwrap(), ["offsets_sent", "commit_sent", "committed"]);
}

#[test]
fn the_worker_is_woken_when_something_arrives() {
    let mut pair = Pair::new("wake");
    let (tell, told) = std::sync::mpsc::sync_channel::<()>(1);
    pair.log.set_wake(Box::new(move || {
        let _ = tell.try_send(());
    }));
    pair.log.start(&[(pair.source.clone(), 0)]).unwrap();
    let mut transaction = pair.transaction(1);
    transaction.outputs.push(output(&pair.source, "in"));
    pair.producer.commit(transaction, &pair.member).unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        told.recv_timeout(left).expect("woken when the record comes");
        pair.log.poll().unwrap();
        if !pair.log.fetch(10).unwrap().is_empty() {
            break;
        }
    }
}

#[test]
fn many_records_of_many_partitions_come_in_order() {
    let topic = create("many", 4);
    let group = unique("many");
    let settings = settings(&group, "0");
    let mut log = KafkaLog::new(&settings, std::slice::from_ref(&topic)).unwrap();
    let (partitions, member) = assigned(&mut log);
    let mut producer = KafkaTransactionLog::new(&settings, &log, None);
    producer.init(INIT_MS).unwrap();
    let outputs = (0..40_000).map(|n| output(&partitions[n % 4], &n.to_string())).collect();
    let offsets = vec![(partitions[0].clone(), 0).into()];
    producer.commit(Transaction { outputs, offsets, ..Transaction::default() }, &member).unwrap();
    log.start(&partitions.iter().map(|p| (p.clone(), 0)).collect::<Vec<_>>()).unwrap();
    let mut next = BTreeMap::new();
    for (partition, offset, _, value, ..) in fetch(&mut log, 40_000) {
        let expected = next.entry(partition.clone()).or_insert(0);
        assert_eq!(offset, *expected, "{partition}");
        let n: i64 = String::from_utf8(value.unwrap()).unwrap().parse().unwrap();
        assert_eq!(n, 4 * offset + i64::from(partition.partition), "{partition}");
        *expected += 1;
    }
    assert!(next.values().all(|next| *next == 10_000));
}

#[test]
fn an_unreachable_broker_is_waited_for_and_dropping_does_not_hang() {
    let mut nowhere = settings(&unique("nowhere"), "0");
    nowhere.bootstrap_servers = "127.0.0.1:1".into();
    let mut log = KafkaLog::new(&nowhere, &["t".into()]).unwrap();
    assert!(log.poll().unwrap().is_none());
    let mut producer = KafkaTransactionLog::new(&nowhere, &log, None);
    let refused = producer.init(300);
    assert!(matches!(refused, Err(LogError::Retry(_))), "{refused:?}");
    let mut reader = KafkaChangelogReader::new(&nowhere).unwrap();
    let refused = reader.committed_offsets(&[TopicPartition::new("t", 0)], 300);
    assert!(matches!(refused, Err(LogError::Retry(_))), "{refused:?}");
    // Never a member, so there is nothing to leave; it must come back all the same.
    let _ = log.leave(500);
    drop((producer, log, reader));
}
