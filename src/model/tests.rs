//! What the conformance suite cannot reach: time, and what only the model can hold.

use crate::model::clients::{ModelAdmin, ModelLog, ModelReader, ModelTransactionLog};
use crate::model::group::OFFSETS_RETENTION_MS;
use crate::model::group::{Group, Identity, Join};
use crate::model::producer::Producer;
use crate::model::{ClientSettings, Cluster, Code, Writer};
use crate::record::TopicPartition;
use crate::worker::port::{
    ChangelogReader, Log, LogAdmin, LogError, LogEvent, TopicSpec, Transaction, TransactionLog,
};

pub(super) fn settings(worker: &str) -> ClientSettings {
    ClientSettings {
        group: "g".into(),
        instance_id: Some(worker.into()),
        session_timeout_ms: 6_000,
        max_poll_interval_ms: 300_000,
        transactional_id: worker.into(),
        transaction_timeout_ms: 10_000,
    }
}

pub(super) fn cluster(partitions: i32) -> (Cluster, TopicPartition) {
    let cluster = Cluster::new();
    let spec = TopicSpec { name: "t".into(), partitions, replication: 1, config: vec![] };
    ModelAdmin::new(&cluster).create(&spec).unwrap();
    (cluster, TopicPartition::new("t", 0))
}

fn open(cluster: &Cluster, id: &str) -> Producer {
    let mut producer = Producer::new(cluster, &settings(id));
    producer.init(0).unwrap();
    producer.begin().unwrap();
    producer
}

#[test]
fn markers_that_come_late_hold_readers_and_the_next_transaction() {
    let (cluster, t) = cluster(1);
    cluster.set_marker_delay_ms(50);
    let mut producer = open(&cluster, "p");
    producer.write_value(&t, b"a").unwrap();
    producer.send_offsets_as_nobody("g", &[(t.clone(), 1)]).unwrap();
    producer.commit().unwrap();
    assert_eq!(cluster.now_ms(), 0, "answered when it is decided");
    let mut reader = ModelReader::new(&cluster, "g");
    assert_eq!(reader.last_stable_offset(&t).unwrap(), 0);
    let unstable = reader.committed_offsets(std::slice::from_ref(&t), 49);
    assert!(matches!(unstable, Err(LogError::Retry(_))), "{unstable:?}");
    assert_eq!(cluster.now_ms(), 49, "it has waited as long as it may");
    // The next transaction waits for the markers of the one before.
    producer.begin().unwrap();
    producer.write_value(&t, b"b").unwrap();
    assert_eq!(cluster.now_ms(), 50);
    assert_eq!(reader.last_stable_offset(&t).unwrap(), 2);
    assert_eq!(reader.committed_offsets(std::slice::from_ref(&t), 0).unwrap(), [Some(1)]);
    assert_eq!(reader.open_transactions(&t).len(), 1);
}

#[test]
fn a_new_producer_waits_at_most_its_limit_for_the_abort_of_the_old_one() {
    let (cluster, t) = cluster(1);
    cluster.set_marker_delay_ms(100);
    let mut old = open(&cluster, "p");
    old.write_value(&t, b"a").unwrap();
    let mut new = Producer::new(&cluster, &settings("p"));
    assert_eq!(new.init(99), Err(Code::ConcurrentTransactions));
    // The leader of a partition knows of a fencing by the marker alone, the coordinator at once.
    old.write_value(&t, b"zombie").unwrap();
    assert_eq!(old.commit(), Err(Code::ProducerFenced));
    let mut new = Producer::new(&cluster, &settings("p"));
    new.init(1).unwrap();
    assert_eq!(cluster.now_ms(), 100);
    assert_eq!(cluster.seen(&t, true), []);
    assert_eq!(cluster.seen(&t, false).len(), 2);
}

#[test]
fn the_epochs_of_a_producer_id_end_and_another_one_takes_over() {
    let (cluster, t) = cluster(1);
    let mut first = open(&cluster, "p");
    for _ in 0..40_000 {
        Producer::new(&cluster, &settings("p")).init(0).unwrap();
    }
    assert_eq!(first.write_value(&t, b"zombie"), Err(Code::InvalidProducerIdMapping));
    let mut last = open(&cluster, "p");
    last.write_value(&t, b"a").unwrap();
    last.commit().unwrap();
    assert_eq!(cluster.seen(&t, true).len(), 1);
}

#[test]
fn the_offsets_of_a_group_without_members_expire() {
    let (cluster, t) = cluster(1);
    let mut log = ModelLog::new(&cluster, &settings("a"), &["t".into()]);
    let Some(LogEvent::Assigned { member, .. }) = log.poll().unwrap() else { panic!("not assigned") };
    let mut producer = ModelTransactionLog::new(&cluster, &settings("a"), &log);
    producer.init(0).unwrap();
    let transaction = Transaction { offsets: vec![(t.clone(), 5).into()], ..Transaction::default() };
    producer.commit(transaction, &member).unwrap();
    let mut reader = ModelReader::new(&cluster, "g");
    let mut offset = || reader.committed_offsets(std::slice::from_ref(&t), 0).unwrap()[0];
    for _ in 0..10 * 24 * 60 {
        cluster.advance(60_000);
        assert!(log.poll().unwrap().is_none());
    }
    assert_eq!(offset(), Some(5), "it has a member");
    log.leave(0).unwrap();
    cluster.advance(OFFSETS_RETENTION_MS - 1);
    assert_eq!(offset(), Some(5));
    cluster.advance(600_000);
    assert_eq!(offset(), None);
}

#[test]
fn the_same_calls_give_the_same_history() {
    let run = || {
        let (cluster, _) = cluster(5);
        let mut logs: Vec<_> = ["a", "b", "c"]
            .into_iter()
            .map(|worker| ModelLog::new(&cluster, &settings(worker), &["t".into()]))
            .collect();
        let mut story = String::new();
        for step in 0..400 {
            cluster.advance(77);
            if step == 200 {
                logs.remove(1);
            }
            for (index, log) in logs.iter_mut().enumerate() {
                match log.poll().unwrap() {
                    Some(LogEvent::Revoked | LogEvent::Lost) => {
                        log.release().unwrap();
                        story += &format!("{} {index} gives back\n", cluster.now_ms());
                    }
                    Some(event) => story += &format!("{} {index} {event:?}\n", cluster.now_ms()),
                    None => {}
                }
            }
        }
        story
    };
    let story = run();
    assert!(story.contains("gives back"), "{story}");
    assert_eq!(story, run());
}

/// No client on librdkafka stays in this phase for long enough to look at it.
/// A dynamic member asks to join.
fn join(member: &str) -> Join {
    Join {
        member: member.into(),
        instance: None,
        topics: vec!["t".into()],
        session_ms: 6_000,
        rebalance_ms: 30_000,
    }
}

#[test]
fn a_group_that_completes_a_rebalance_takes_transactional_offsets() {
    let t = TopicPartition::new("t", 0);
    let writer = |producer| Writer { producer, epoch: 0 };
    let mut group = Group::new(0);
    let leader = group.join(join(""), "a".into(), 0).unwrap();
    let of = |member: &str, generation| Identity { generation, member: member.into(), instance: None };
    let all = group.range(&|_| 1);
    assert_eq!(group.sync(&of(&leader, 1), Some(all), 0).unwrap(), Some(vec![t.clone()]));
    let other = group.join(join(""), "b".into(), 0).unwrap();
    assert_eq!(group.heartbeat(&of(&leader, 1), 0), Err(Code::RebalanceInProgress));
    // The group prepares: the old generation still counts.
    group.commit_pending(&of(&leader, 1), writer(1), &[(t.clone(), 1).into()]).unwrap();
    group.join(join(&leader), String::new(), 0).unwrap();
    assert_eq!(group.sync(&of(&other, 2), None, 0).unwrap(), None, "the leader has not spoken");
    // It completes: the new one counts, before anybody knows who owns what.
    group.commit_pending(&of(&other, 2), writer(2), &[(t.clone(), 2).into()]).unwrap();
    let late = group.commit_pending(&of(&leader, 1), writer(3), &[(t.clone(), 3).into()]);
    assert_eq!(late, Err(Code::IllegalGeneration));
    group.end_transaction(writer(1), true);
    assert_eq!(group.committed(&t, true), Err(Code::UnstableOffsetCommit));
    group.end_transaction(writer(2), true);
    assert_eq!(group.committed(&t, true), Ok(Some(2)));
    // A leader that never speaks is out, and so is everybody who has not asked.
    group.tick(30_000);
    assert_eq!(group.members(), std::slice::from_ref(&other));
    assert_eq!(group.joined(&of(&other, 2)), Ok(Some(2)), "it is to join again");
    assert_eq!(group.heartbeat(&of(&other, 2), 30_000), Err(Code::RebalanceInProgress));
}

/// A copy of a request that its sender got answered meanwhile, and gave its partitions back.
#[test]
fn a_late_copy_of_an_owners_offsets_is_nobody_elses_commit() {
    let t = TopicPartition::new("t", 0);
    let mut group = Group::new(0);
    let owner = group.join(join(""), "a".into(), 0).unwrap();
    let who = Identity { generation: 1, member: owner.clone(), instance: None };
    let all = group.range(&|_| 1);
    group.sync(&who, Some(all), 0).unwrap();
    let writer = Writer { producer: 1, epoch: 0 };
    group.commit_pending(&who, writer, &[(t.clone(), 1).into()]).unwrap();
    // Two join: the first one's generation stays while the second has not answered.
    let other = group.join(join(""), "b".into(), 0).unwrap();
    group.join(join(&owner), String::new(), 0).unwrap();
    let who = Identity { generation: 2, member: owner.clone(), instance: None };
    let all = group.range(&|_| 1);
    group.sync(&who, Some(all), 0).unwrap();
    group.join(join(""), "c".into(), 0).unwrap();
    group.join(join(&owner), String::new(), 0).unwrap();
    assert!(!group.owns(&owner, &t) && group.members().contains(&other));
    group.commit_pending(&who, writer, &[(t.clone(), 1).into()]).unwrap();
    group.end_transaction(writer, true);
    assert_eq!(group.foreign_commits(), [] as [String; 0]);
    group.commit_pending(&who, writer, &[(t.clone(), 2).into()]).unwrap();
    group.end_transaction(writer, true);
    assert_eq!(group.foreign_commits().len(), 1, "what it did not send as the owner still counts");
}
