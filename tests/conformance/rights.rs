//! What is refused to an application that lacks a right.

use thalweg::record::TopicPartition;
use thalweg::worker::port::{ChangelogReader, Log, LogAdmin, SourceOffset, Transaction, TransactionLog};

use crate::common::{INIT_MS, assigned, class, commit_class, output, single, start};
use crate::world::{Lab, Operation, Resource, Who};

/// An application's names.
struct Names {
    source: TopicPartition,
    sink: TopicPartition,
    who: Who,
}

impl Names {
    fn new(lab: &impl Lab) -> Names {
        let (source, sink) = (single(lab, "in"), single(lab, "out"));
        Names { source, sink, who: Who::of(&lab.unique("app"), "0") }
    }

    /// As the application, without one right.
    fn without<L: Lab>(&self, lab: &L, missing: (Resource<'_>, Operation)) -> L {
        let all = [
            Resource::Topic(&self.source.topic),
            Resource::Topic(&self.sink.topic),
            Resource::Group(&self.who.group),
            Resource::TransactionalId(&self.who.transactional_id),
        ];
        let restricted = lab.restricted(&all, missing);
        // What is granted counts a moment later.
        lab.pass(1_000);
        restricted
    }

    fn joined<L: Lab>(&self, lab: &L) -> (L::Log, thalweg::worker::port::Member) {
        let mut log = lab.log(&self.who, &[self.source.topic.to_string()]);
        let (_, member) = assigned(lab, &mut log);
        (log, member)
    }
}

pub fn without_the_right_to_write_a_commit_stops<L: Lab>(lab: &L) {
    let names = Names::new(lab);
    let app = names.without(lab, (Resource::Topic(&names.sink.topic), Operation::Write));
    let (log, member) = names.joined(&app);
    let mut producer = app.producer(&names.who, &log);
    producer.init(INIT_MS).unwrap();
    let offsets = vec![SourceOffset::from((names.source.clone(), 1))];
    let outputs = vec![output(&names.sink, "x")];
    let transaction = Transaction { outputs, offsets: offsets.clone(), ..Transaction::default() };
    let stopped = producer.commit(transaction, &member);
    assert_eq!(commit_class(&stopped), "stop", "{stopped:?}");
    producer.init(INIT_MS).unwrap();
    assert_eq!(lab.admin().group_offsets(&names.who.group).unwrap(), []);
    // Without the output it goes.
    producer.commit(Transaction { offsets, ..Transaction::default() }, &member).unwrap();
    lab.until_is(vec![(names.source.clone(), 1)], || lab.admin().group_offsets(&names.who.group).unwrap());
}

pub fn without_the_right_to_the_group_a_member_stops<L: Lab>(lab: &L) {
    let names = Names::new(lab);
    let app = names.without(lab, (Resource::Group(&names.who.group), Operation::Read));
    let mut log = app.log(&names.who, &[names.source.topic.to_string()]);
    let told = lab.until("the refusal", || {
        let polled = log.poll();
        polled.is_err().then_some(polled)
    });
    assert_eq!(class(&told), "stop", "{told:?}");
    assert_eq!(lab.admin().group_members(&names.who.group).unwrap(), [] as [String; 0]);
}

pub fn without_the_right_to_the_transactional_id_a_producer_stops<L: Lab>(lab: &L) {
    let names = Names::new(lab);
    let missing = (Resource::TransactionalId(&names.who.transactional_id), Operation::Write);
    let app = names.without(lab, missing);
    let (log, _) = names.joined(&app);
    let refused = app.producer(&names.who, &log).init(INIT_MS);
    assert_eq!(class(&refused), "stop", "{refused:?}");
}

pub fn without_the_right_to_read_a_restore_stops<L: Lab>(lab: &L) {
    let names = Names::new(lab);
    lab.append(&names.sink, "x");
    let app = names.without(lab, (Resource::Topic(&names.sink.topic), Operation::Read));
    let mut reader = app.reader(&names.who.group);
    assert_eq!(reader.high_watermark(&names.sink).unwrap(), 1, "it may look it up");
    let refused = reader.read(&names.sink, 0, 1, 10_000, &mut |_, _| Ok(()));
    assert_eq!(class(&refused), "stop", "{refused:?}");
    assert_eq!(lab.uncommitted(&names.sink).len(), 1);
}

pub fn without_the_right_to_read_a_member_is_told<L: Lab>(lab: &L) {
    let names = Names::new(lab);
    lab.append(&names.source, "x");
    let app = names.without(lab, (Resource::Topic(&names.source.topic), Operation::Read));
    let (mut log, _) = names.joined(&app);
    start(&mut log, std::slice::from_ref(&names.source));
    let told = lab.until("the refusal", || {
        let told = log.poll().and_then(|_| log.fetch(10)).map(|fetched| assert!(fetched.is_empty()));
        told.is_err().then_some(told)
    });
    assert_eq!(class(&told), "stop", "{told:?}");
}

pub fn without_the_right_to_delete_records_stay<L: Lab>(lab: &L) {
    let names = Names::new(lab);
    lab.append(&names.sink, "x");
    let app = names.without(lab, (Resource::Topic(&names.sink.topic), Operation::Delete));
    let refused = app.admin().delete_records(&names.sink, 1);
    assert_eq!(class(&refused), "stop", "{refused:?}");
    assert_eq!(lab.reader("none").log_start(&names.sink).unwrap(), 0);
}
