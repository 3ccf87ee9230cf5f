//! Requests that are lost, repeated, late and refused; processes that are stopped; what the oracles see.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use crate::model::clients::{ModelAdmin, ModelLog, ModelReader, ModelTransactionLog};
use crate::model::link::{Direct, Fate, Link, REQUEST_TIME_OUT_MS};
use crate::model::producer::Producer;
use crate::model::request::Request;
use crate::model::tests::{cluster, settings};
use crate::model::{Cluster, Code};
use crate::record::TopicPartition;
use crate::worker::port::{
    ChangelogReader, CommitError, Log, LogAdmin, LogError, LogEvent, Member, Transaction, TransactionLog,
};

/// Decides by name and number: the n-th request of that name meets this fate, others arrive.
struct Script {
    direct: Direct,
    fates: RefCell<Vec<(&'static str, Fate)>>,
    sent: RefCell<Vec<&'static str>>,
    pauses: Cell<usize>,
}

impl Script {
    fn new(cluster: &Cluster, fates: &[(&'static str, Fate)]) -> Script {
        let (direct, fates) = (Direct::new(cluster), RefCell::new(fates.to_vec()));
        Script { direct, fates, sent: RefCell::default(), pauses: Cell::new(0) }
    }

    fn sent(&self, name: &str) -> usize {
        self.sent.borrow().iter().filter(|sent| **sent == name).count()
    }
}

impl Link for Script {
    fn send(&self, request: &Request) -> Fate {
        self.sent.borrow_mut().push(request.name());
        let mut fates = self.fates.borrow_mut();
        match fates.iter().position(|(name, _)| *name == request.name()) {
            Some(place) => fates.remove(place).1,
            None => Fate::Arrives,
        }
    }

    fn pause(&self, until_ms: u64) {
        self.pauses.set(self.pauses.get() + 1);
        self.direct.pause(until_ms);
    }
}

struct Scene {
    cluster: Cluster,
    t: TopicPartition,
    log: ModelLog,
    producer: ModelTransactionLog,
    member: Member,
}

impl Scene {
    fn new() -> Scene {
        let (cluster, t) = cluster(1);
        let mut log = ModelLog::new(&cluster, &settings("a"), &["t".into()]);
        let Some(LogEvent::Assigned { member, .. }) = log.poll().unwrap() else { panic!("not assigned") };
        let mut producer = ModelTransactionLog::new(&cluster, &settings("a"), &log);
        producer.init(0).unwrap();
        Scene { cluster, t, log, producer, member }
    }

    fn transaction(&self, values: &[&str], offset: i64) -> Transaction {
        let values = values.iter().map(|value| Arc::new(value.as_bytes().to_vec())).collect();
        Transaction {
            changes: vec![(self.t.clone(), values)],
            offsets: vec![(self.t.clone(), offset).into()],
            ..Transaction::default()
        }
    }

    fn commit(
        &mut self,
        link: &dyn Link,
        values: &[&str],
        offset: i64,
    ) -> Result<Vec<Vec<i64>>, CommitError> {
        let transaction = self.transaction(values, offset);
        let member = self.member.clone();
        self.producer.over(link).commit(transaction, &member).map(|receipt| receipt.change_offsets)
    }

    fn committed(&self) -> Vec<(i64, String)> {
        let records = self.cluster.log(&self.t).into_iter();
        records
            .map(|(offset, record)| (offset, String::from_utf8(record.value.clone().unwrap()).unwrap()))
            .collect()
    }

    fn offset(&self) -> Option<i64> {
        self.cluster.committed_offset("g", &self.t)
    }
}

const EACH: [&str; 5] =
    ["AddPartitionsToTxn", "Produce", "AddOffsetsToTxn", "TxnOffsetCommit", "EndTxn(commit)"];

/// Whatever happens to one request, a commit that returns well has happened once.
#[test]
fn a_commit_gets_over_each_fate_of_each_of_its_requests() {
    let refused = Fate::Refused(Code::NotCoordinator);
    for name in EACH {
        for fate in [Fate::Lost, Fate::AnswerLost, Fate::Repeated, Fate::Late(300), refused] {
            let mut scene = Scene::new();
            let link = Script::new(&scene.cluster, &[(name, fate)]);
            let offsets = scene.commit(&link, &["a", "b"], 7).unwrap();
            assert_eq!(offsets, [[0, 1]], "{name} {fate:?}");
            assert_eq!(scene.committed(), [(0, "a".into()), (1, "b".into())], "{name} {fate:?}");
            assert_eq!(scene.offset(), Some(7), "{name} {fate:?}");
            assert_eq!(scene.cluster.seen(&scene.t, false).len(), 2, "{name} {fate:?}");
            let unheard = matches!(fate, Fate::Lost | Fate::AnswerLost | Fate::Late(_));
            assert_eq!(link.sent(name), if fate == Fate::Repeated { 1 } else { 2 }, "{name} {fate:?}");
            let waited_ms = if unheard { REQUEST_TIME_OUT_MS } else { 0 };
            assert!(scene.cluster.now_ms() >= waited_ms, "{name} {fate:?}");
            // What may still be on its way must not meet the next transaction.
            let next = Script::new(&scene.cluster, &[]);
            assert_eq!(scene.commit(&next, &["c"], 8).unwrap(), [[3]]);
            assert_eq!(next.sent("InitProducerId"), usize::from(fate != refused), "{name} {fate:?}");
        }
    }
}

#[test]
fn a_commit_that_hears_nothing_until_its_time_is_up_is_in_doubt_and_may_have_happened() {
    for (fate, happened) in [(Fate::Lost, false), (Fate::AnswerLost, true)] {
        let mut scene = Scene::new();
        let fates = vec![("EndTxn(commit)", fate); 20];
        let link = Script::new(&scene.cluster, &fates);
        let doubt = scene.commit(&link, &["a"], 7);
        assert!(matches!(doubt, Err(CommitError::Doubt(_))), "{doubt:?}");
        assert_eq!(scene.cluster.now_ms(), 10_000, "as long as a transaction may last");
        assert_eq!(scene.offset().is_some(), happened);
        scene.producer.init(1_000).unwrap();
        assert_eq!(scene.committed().len(), usize::from(happened));
        assert_eq!(scene.cluster.seen(&scene.t, false).len(), 1);
    }
}

#[test]
fn a_restore_gets_over_lost_requests_and_gives_up_in_time() {
    let mut scene = Scene::new();
    let direct = Direct::new(&scene.cluster);
    scene.commit(&direct, &["a", "b"], 7).unwrap();
    let names = ["OffsetFetch", "ListOffsets", "Fetch", "DeleteRecords"];
    let fates: Vec<_> = names.iter().map(|name| (*name, Fate::Lost)).collect();
    let link = Script::new(&scene.cluster, &fates);
    let mut reader = ModelReader::new(&scene.cluster, "g");
    let mut reader = reader.over(&link);
    let t = std::slice::from_ref(&scene.t);
    assert_eq!(reader.committed_offsets(t, 5_000).unwrap(), [Some(7)]);
    assert_eq!(reader.high_watermark(&scene.t).unwrap(), 3);
    let mut seen = Vec::new();
    let read = reader.read(&scene.t, 0, 3, 5_000, &mut |offset, _| {
        seen.push(offset);
        Ok(())
    });
    read.unwrap();
    assert_eq!(seen, [0, 1]);
    let mut admin = ModelAdmin::new(&scene.cluster);
    assert_eq!(admin.over(&link).delete_records(&scene.t, 1).unwrap(), 1);
    for name in names {
        assert_eq!(link.sent(name), 2, "{name}");
    }
    assert_eq!(scene.cluster.now_ms(), 4 * REQUEST_TIME_OUT_MS);
    assert_eq!(scene.committed().len(), 2, "what is deleted is not forgotten");

    let link = Script::new(&scene.cluster, &[("OffsetFetch", Fate::Lost), ("Fetch", Fate::AnswerLost)]);
    let mut reader = ModelReader::new(&scene.cluster, "g");
    let mut reader = reader.over(&link);
    let late = reader.committed_offsets(t, 700);
    assert!(matches!(late, Err(LogError::Retry(_))), "{late:?}");
    let late = reader.read(&scene.t, 1, 3, 700, &mut |_, _| Ok(()));
    assert!(matches!(late, Err(LogError::Retry(_))), "{late:?}");
    assert_eq!(scene.cluster.now_ms(), 4 * REQUEST_TIME_OUT_MS + 1_400);
}

/// Why a producer is replaced after an answer that was missing.
#[test]
fn a_late_end_ends_the_next_transaction_of_a_producer_that_was_not_replaced() {
    let (cluster, t) = cluster(1);
    let link = Script::new(&cluster, &[("EndTxn(commit)", Fate::Late(5_000))]);
    let mut producer = Producer::new(&cluster, &settings("p"));
    producer.init(0).unwrap();
    producer.begin().unwrap();
    producer.write_value(&t, b"a").unwrap();
    producer.commit_over(&link, 10_000).unwrap();
    assert_eq!((cluster.now_ms(), cluster.seen(&t, true).len()), (1_000, 1));
    producer.begin().unwrap();
    producer.write_value(&t, b"half").unwrap();
    cluster.advance(5_000);
    assert_eq!(cluster.seen(&t, true).len(), 2, "the copy has committed it");
    // Nobody would notice.
    producer.write_value(&t, b"other half").unwrap_err();
}

#[test]
fn what_comes_late_of_a_producer_that_was_replaced_is_refused() {
    for name in EACH {
        let mut scene = Scene::new();
        let fates = vec![(name, Fate::Late(15_000)); 20];
        let link = Script::new(&scene.cluster, &fates);
        let doubt = scene.commit(&link, &["zombie"], 99);
        assert!(matches!(doubt, Err(CommitError::Doubt(_))), "{doubt:?}");
        scene.log.poll().unwrap();
        scene.producer.init(1_000).unwrap();
        let direct = Direct::new(&scene.cluster);
        scene.commit(&direct, &["owner"], 1).unwrap();
        scene.cluster.advance(30_000);
        let committed: Vec<String> = scene.committed().into_iter().map(|(_, value)| value).collect();
        assert_eq!((committed, scene.offset()), (vec!["owner".to_string()], Some(1)), "{name}");
        // And nothing is left open.
        let mut reader = ModelReader::new(&scene.cluster, "g");
        let end = reader.high_watermark(&scene.t).unwrap();
        assert_eq!(reader.last_stable_offset(&scene.t).unwrap(), end, "{name}");
        let t = std::slice::from_ref(&scene.t);
        assert_eq!(reader.committed_offsets(t, 0).unwrap(), [Some(1)], "{name}");
    }
}

/// The coordinator cannot tell an old process from a new one.
#[test]
fn an_initialisation_that_comes_late_fences_the_new_owner() {
    let mut scene = Scene::new();
    let link = Script::new(&scene.cluster, &[("InitProducerId", Fate::Late(500))]);
    let given_up = scene.producer.over(&link).init(400);
    assert!(matches!(given_up, Err(LogError::Retry(_))), "{given_up:?}");
    scene.producer.init(0).unwrap();
    scene.cluster.advance(200);
    let direct = Direct::new(&scene.cluster);
    let fenced = scene.commit(&direct, &["a"], 1);
    assert!(matches!(fenced, Err(CommitError::Doubt(_))), "{fenced:?}");
}

#[test]
fn a_gap_in_a_producers_batches_is_noticed() {
    use crate::model::Writer;
    use crate::model::partition::{Partition, Record};
    let record = Record { key: None, value: None, headers: Vec::new(), timestamp_ms: 0 };
    let record = [Arc::new(record)];
    let mut partition = Partition::default();
    let of = |epoch| Writer { producer: 1, epoch };
    assert_eq!(partition.append_open(of(0), 0, &record), Ok(0));
    assert_eq!(partition.append_open(of(0), 2, &record), Err(Code::OutOfOrderSequence));
    assert_eq!(partition.append_open(of(0), 1, &record), Ok(1));
    assert_eq!(partition.append_open(of(0), 0, &record), Ok(0), "known from before");
    assert_eq!(
        partition.append_open(of(1), 2, &record),
        Err(Code::OutOfOrderSequence),
        "a new one begins anew"
    );
    assert_eq!(partition.append_open(of(1), 0, &record), Ok(2));
    assert_eq!(partition.append_open(of(0), 2, &record), Err(Code::InvalidProducerEpoch));
}

#[test]
fn a_process_that_was_stopped_for_longer_than_its_session_has_lost_its_partitions() {
    for others in [false, true] {
        let mut scene = Scene::new();
        scene.cluster.advance(500);
        scene.cluster.freeze(scene.log.consumer(), true);
        let mut other = others.then(|| ModelLog::new(&scene.cluster, &settings("b"), &["t".into()]));
        scene.cluster.advance(20_000);
        if let Some(other) = &mut other {
            let given = other.poll().unwrap();
            assert!(matches!(given, Some(LogEvent::Assigned { .. })), "{given:?}");
        }
        scene.cluster.freeze(scene.log.consumer(), false);
        let direct = Direct::new(&scene.cluster);
        let refused = scene.commit(&direct, &["zombie"], 9);
        assert!(matches!(refused, Err(CommitError::NotOwner(_))), "{refused:?}");
        let told = scene.log.poll().unwrap();
        assert!(matches!(told, Some(LogEvent::Lost)), "{told:?}");
        assert!(scene.log.poll().unwrap().is_none(), "once");
        scene.log.release().unwrap();
        if let Some(other) = &mut other {
            scene.cluster.advance(1_000);
            other.poll().unwrap();
            other.release().unwrap();
        }
        let again = scene.log.poll().unwrap();
        assert!(matches!(again, Some(LogEvent::Assigned { .. })), "{again:?}");
    }
}

#[test]
fn a_short_stop_is_not_noticed() {
    let mut scene = Scene::new();
    scene.cluster.freeze(scene.log.consumer(), true);
    scene.cluster.advance(5_900);
    scene.cluster.freeze(scene.log.consumer(), false);
    scene.cluster.advance(10_000);
    assert!(scene.log.poll().unwrap().is_none());
    let direct = Direct::new(&scene.cluster);
    scene.commit(&direct, &["a"], 1).unwrap();
}

#[test]
fn offsets_of_others_partitions_are_noticed_when_they_are_committed() {
    let mut scene = Scene::new();
    let direct = Direct::new(&scene.cluster);
    scene.commit(&direct, &["a"], 1).unwrap();
    assert_eq!(scene.cluster.foreign_commits(), [] as [String; 0]);
    let spec =
        crate::worker::port::TopicSpec { name: "u".into(), partitions: 1, replication: 1, config: vec![] };
    ModelAdmin::new(&scene.cluster).create(&spec).unwrap();
    let offsets = vec![(scene.t.clone(), 2).into(), (TopicPartition::new("u", 0), 3).into()];
    let transaction = Transaction { offsets, ..Transaction::default() };
    scene.producer.commit(transaction, &scene.member).unwrap();
    let found = scene.cluster.foreign_commits();
    assert!(found.len() == 1 && found[0].contains("offset 3 of u"), "{found:?}");
    // Those of nobody, if they count.
    let mut nobody = Producer::new(&scene.cluster, &settings("n"));
    nobody.init(0).unwrap();
    for commit in [false, true] {
        nobody.begin().unwrap();
        nobody.send_offsets_as_nobody("g", &[(scene.t.clone(), 4)]).unwrap();
        if commit {
            nobody.commit().unwrap()
        } else {
            nobody.abort().unwrap()
        }
        assert_eq!(scene.cluster.foreign_commits().len(), if commit { 2 } else { 1 });
    }
    // In an empty group they are a tool's.
    scene.log.leave(0).unwrap();
    nobody.begin().unwrap();
    nobody.send_offsets_as_nobody("g", &[(scene.t.clone(), 5)]).unwrap();
    nobody.commit().unwrap();
    assert_eq!(scene.cluster.foreign_commits().len(), 2);
}
