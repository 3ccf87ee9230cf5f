//! Services that are away, consumers that are cut off, rights, topics that change.

use crate::model::clients::{ModelAdmin, ModelLog, ModelReader, ModelTransactionLog};
use crate::model::producer::Producer;
use crate::model::tests::{cluster, settings};
use crate::model::{Cluster, Code, Mishap, Operation, Resource, Service};
use crate::record::TopicPartition;
use crate::worker::port::{
    ChangelogReader, CommitError, Log, LogAdmin, LogError, LogEvent, Member, Transaction, TransactionLog,
};

fn joined(cluster: &Cluster, worker: &str) -> (ModelLog, Member, usize) {
    let mut log = ModelLog::new(cluster, &settings(worker), &["t".into()]);
    let (member, owned) = assigned(&mut log);
    (log, member, owned)
}

fn assigned(log: &mut ModelLog) -> (Member, usize) {
    match log.poll().unwrap() {
        Some(LogEvent::Assigned { partitions, member }) => (member, partitions.len()),
        other => panic!("not assigned: {other:?}"),
    }
}

/// The next generation was not written down: it is given once more, maybe to others.
#[test]
fn a_rebalance_under_way_begins_anew_when_the_coordinator_moves() {
    let (cluster, _) = cluster(2);
    let (mut first, member, _) = joined(&cluster, "a");
    let mut second = ModelLog::new(&cluster, &settings("b"), &["t".into()]);
    cluster.advance(1_000);
    assert!(matches!(first.poll().unwrap(), Some(LogEvent::Revoked)));
    cluster.set_away(Service::Groups, 3_000);
    first.release().unwrap();
    cluster.advance(1_900);
    assert!(first.poll().unwrap().is_none() && second.poll().unwrap().is_none());
    assert_eq!(ModelAdmin::new(&cluster).group_members("g").unwrap(), std::slice::from_ref(&member.id));
    cluster.advance(5_000);
    let (one, two) = (assigned(&mut first), assigned(&mut second));
    assert_eq!((one.1, two.1), (1, 1));
    assert_eq!(one.0.id, member.id, "it is still known");
    assert!(one.0.generation > member.generation);
}

#[test]
fn sessions_start_anew_when_the_coordinator_is_back() {
    let (cluster, _) = cluster(2);
    let (mut log, member, _) = joined(&cluster, "a");
    let (gone, _, _) = {
        let mut other = ModelLog::new(&cluster, &settings("b"), &["t".into()]);
        cluster.advance(1_000);
        log.poll().unwrap();
        log.release().unwrap();
        assigned(&mut log);
        let (member, owned) = assigned(&mut other);
        (other, member, owned)
    };
    drop(gone);
    cluster.advance(4_000);
    cluster.set_away(Service::Groups, cluster.now_ms() + 3_000);
    cluster.advance(8_900);
    assert!(log.poll().unwrap().is_none(), "the dead one has a whole session more");
    cluster.advance(1_200);
    let told = log.poll().unwrap();
    assert!(matches!(told, Some(LogEvent::Revoked)), "{told:?}");
    assert_eq!(member.generation, 1);
}

/// Longer than a session: the member cannot know what has become of its partitions.
#[test]
fn a_member_without_a_coordinator_gives_up_after_its_session() {
    for cut_off in [false, true] {
        let (cluster, t) = cluster(1);
        let (mut log, member, _) = joined(&cluster, "a");
        let mut producer = ModelTransactionLog::new(&cluster, &settings("a"), &log);
        producer.init(0).unwrap();
        match cut_off {
            true => cluster.cut_off(log.consumer(), 20_000),
            false => cluster.set_away(Service::Groups, 20_000),
        }
        cluster.advance(5_000);
        assert!(log.poll().unwrap().is_none());
        cluster.advance(2_000);
        let transaction = Transaction { offsets: vec![(t.clone(), 1).into()], ..Transaction::default() };
        let refused = producer.commit(transaction, &member);
        assert!(matches!(refused, Err(CommitError::NotOwner(_))), "{refused:?}");
        assert!(matches!(log.poll().unwrap(), Some(LogEvent::Lost)));
        log.release().unwrap();
        cluster.advance(10_000);
        assert!(log.poll().unwrap().is_none(), "nobody is there to join");
        cluster.advance(5_000);
        let (now, owned) = assigned(&mut log);
        assert!(owned == 1 && now != member, "{now:?}");
        // It is told nothing of a leave that nobody hears of.
        match cut_off {
            true => cluster.cut_off(log.consumer(), u64::MAX),
            false => cluster.set_away(Service::Groups, u64::MAX),
        }
        let left = log.leave(100);
        assert!(matches!(left, Err(LogError::Retry(_))), "{left:?}");
    }
}

/// Whichever request it is and whatever happens to it, the member has its partitions in the end.
#[test]
fn a_request_to_the_group_that_goes_wrong_is_made_again() {
    let refused =
        [Code::NotCoordinator, Code::UnknownMemberId, Code::IllegalGeneration, Code::RebalanceInProgress];
    let mishaps = refused.map(Mishap::Refused).into_iter().chain([Mishap::Lost, Mishap::Unanswered]);
    for (mishap, request) in
        mishaps.flat_map(|mishap| [(mishap, "join"), (mishap, "sync"), (mishap, "heartbeat")])
    {
        let (cluster, _) = cluster(2);
        let (mut first, ..) = joined(&cluster, "a");
        if request == "join" {
            // It cannot have asked yet.
            cluster.set_away(Service::Groups, 500);
        }
        let mut second = ModelLog::new(&cluster, &settings("b"), &["t".into()]);
        match request {
            "join" => cluster.disturb(second.consumer(), mishap),
            "heartbeat" => cluster.disturb(first.consumer(), mishap),
            _ => {
                // It has asked to join; the group waits for the first one.
                assert!(second.poll().unwrap().is_none());
                cluster.disturb(second.consumer(), mishap);
            }
        }
        let mut owned = [0, 0];
        let mut heard = 0;
        for _ in 0..400 {
            for (consumer, owned) in [&mut first, &mut second].into_iter().zip(&mut owned) {
                match consumer.poll().unwrap() {
                    Some(LogEvent::Assigned { partitions, .. }) => *owned = partitions.len(),
                    Some(LogEvent::Revoked | LogEvent::Lost) => consumer.release().unwrap(),
                    None => continue,
                }
                heard += 1;
            }
            cluster.advance(100);
        }
        assert_eq!(owned, [1, 1], "{mishap:?} of a {request}, after {heard} events");
    }
}

#[test]
fn markers_wait_for_the_leader_of_their_partition() {
    let (cluster, t) = cluster(2);
    let other = TopicPartition::new("t", 1);
    let mut producer = Producer::new(&cluster, &settings("p"));
    producer.init(0).unwrap();
    producer.begin().unwrap();
    producer.write_value(&t, b"a").unwrap();
    producer.write_value(&other, b"b").unwrap();
    cluster.set_away(Service::Leader(other.clone()), 700);
    producer.commit().unwrap();
    assert_eq!(cluster.now_ms(), 0, "the coordinator is there");
    assert_eq!(cluster.seen(&t, true).len(), 1, "its leader is there");
    cluster.advance(699);
    assert_eq!(cluster.seen(&other, true), []);
    cluster.advance(1);
    assert_eq!((cluster.seen(&t, true).len(), cluster.seen(&other, true).len()), (1, 1));
    // A new transaction waits for both, and for the leader.
    cluster.set_away(Service::Leader(other.clone()), 1_000);
    producer.begin().unwrap();
    producer.write_value(&other, b"c").unwrap();
    assert_eq!(cluster.now_ms(), 1_000);
}

#[test]
fn a_transaction_does_not_time_out_while_its_coordinator_is_away() {
    let (cluster, t) = cluster(1);
    let mut producer = Producer::new(&cluster, &settings("p"));
    producer.init(0).unwrap();
    producer.begin().unwrap();
    producer.write_value(&t, b"a").unwrap();
    cluster.set_away(Service::Transactions, 40_000);
    cluster.advance(39_999);
    let mut reader = ModelReader::new(&cluster, "g");
    assert_eq!(reader.last_stable_offset(&t).unwrap(), 0);
    cluster.advance(1);
    assert_eq!(reader.last_stable_offset(&t).unwrap(), 2, "then it has");
    assert_eq!(producer.commit(), Err(Code::ProducerFenced));
}

#[test]
fn what_is_deleted_comes_back_when_the_log_start_moves_back() {
    let (cluster, t) = cluster(1);
    for value in [b"a", b"b"] {
        cluster.append(&t, None, Some(value)).unwrap();
    }
    ModelAdmin::new(&cluster).delete_records(&t, 2).unwrap();
    assert_eq!(cluster.move_log_start_back(&t, 1), Some(1));
    assert_eq!(cluster.seen(&t, true).len(), 1);
    assert_eq!(cluster.move_log_start_back(&t, 2), Some(1), "only back");
    assert_eq!(cluster.move_log_start_back(&TopicPartition::new("t", 7), 0), None);
}

#[test]
fn a_right_that_is_given_back_counts_again() {
    let (cluster, t) = cluster(1);
    let mut reader = ModelReader::new(&cluster, "g");
    let right = || (Resource::Topic("t".into()), Operation::Describe);
    cluster.deny(right().0, right().1, true);
    let refused = reader.log_start(&t);
    assert!(matches!(refused, Err(LogError::Stop(_))), "{refused:?}");
    cluster.deny(right().0, right().1, false);
    assert_eq!(reader.log_start(&t).unwrap(), 0);
}
