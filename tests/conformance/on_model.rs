//! The model as a world.

use std::cell::Cell;
use std::rc::Rc;

use thalweg::model::clients::{ModelAdmin, ModelLog, ModelReader, ModelTransactionLog};
use thalweg::model::link::{Direct, Fate, Link};
use thalweg::model::producer::{Membership, Producer};
use thalweg::model::request::Request;
use thalweg::model::{self, ClientSettings, Cluster, Code, Service, Severity};
use thalweg::record::TopicPartition;
use thalweg::worker::port::{Log, LogEvent, TransactionLog};

use crate::common;

use crate::world::{Call, Class, Lab, Operation, Plain, Resource, Steps, Who, World};

/// A cluster of its own.
pub struct OnModel {
    cluster: Cluster,
    names: Rc<Cell<usize>>,
}

impl Default for OnModel {
    fn default() -> Self {
        let cluster = Cluster::new();
        cluster.set_metadata_refresh_ms(1_000);
        OnModel { cluster, names: Rc::default() }
    }
}

fn settings(who: &Who) -> ClientSettings {
    ClientSettings {
        group: who.group.clone(),
        instance_id: who.instance.clone(),
        session_timeout_ms: who.session_timeout_ms,
        max_poll_interval_ms: who.max_poll_interval_ms,
        transactional_id: who.transactional_id.clone(),
        transaction_timeout_ms: who.transaction_timeout_ms,
    }
}

impl World for OnModel {
    type Log = ModelLog;
    type Producer = ModelTransactionLog;
    type Membership = Membership;
    type Steps = ModelSteps;
    type Plain = ModelPlain;
    type Reader = ModelReader;
    type Admin = ModelAdmin;

    fn unique(&self, what: &str) -> String {
        self.names.set(self.names.get() + 1);
        format!("{what}-{}", self.names.get())
    }

    fn log(&self, who: &Who, topics: &[String]) -> ModelLog {
        ModelLog::new(&self.cluster, &settings(who), topics)
    }

    fn producer(&self, who: &Who, log: &ModelLog) -> ModelTransactionLog {
        ModelTransactionLog::new(&self.cluster, &settings(who), log)
    }

    fn steps(&self, who: &Who) -> ModelSteps {
        ModelSteps(Producer::new(&self.cluster, &settings(who)))
    }

    fn plain(&self, who: &Who, topics: &[String]) -> ModelPlain {
        let (cluster, group) = (self.cluster.clone(), who.group.clone());
        ModelPlain { cluster, group, log: self.log(who, topics), owned: 0 }
    }

    fn reader(&self, group: &str) -> ModelReader {
        ModelReader::new(&self.cluster, group)
    }

    fn admin(&self) -> ModelAdmin {
        ModelAdmin::new(&self.cluster)
    }

    fn append(&self, partition: &TopicPartition, value: &str) {
        self.cluster.append(partition, None, Some(value.as_bytes())).unwrap();
    }

    fn grow(&self, topic: &str, partitions: usize) {
        self.cluster.grow(topic, partitions);
    }

    fn commit_as_nobody(&self, group: &str, offsets: &[(TopicPartition, i64)]) -> bool {
        self.cluster.commit_offsets(group, None, offsets).is_ok()
    }

    fn zombie(&self, who: &Who, source: &TopicPartition, meanwhile: &mut dyn FnMut()) -> [String; 2] {
        let mut log = self.log(who, &[source.topic.to_string()]);
        let (_, member) = common::assigned(self, &mut log);
        let mut producer = self.producer(who, &log);
        producer.init(common::INIT_MS).unwrap();
        producer.commit(common::offset(source, 1), &member).unwrap();
        self.cluster.freeze(log.consumer(), true);
        meanwhile();
        self.cluster.freeze(log.consumer(), false);
        let late = producer.commit(common::offset(source, 99), &member);
        [common::commit_class(&late).into(), common::told(self, &mut log)]
    }

    fn uncommitted(&self, partition: &TopicPartition) -> Vec<(i64, String)> {
        let seen = self.cluster.seen(partition, false).into_iter();
        seen.map(|(offset, value)| (offset, String::from_utf8(value.unwrap()).unwrap())).collect()
    }

    fn pass(&self, ms: u64) {
        self.cluster.advance(ms);
    }

    fn now_ms(&self) -> u64 {
        self.cluster.now_ms()
    }
}

/// Requests of one kind come so late.
struct Late {
    direct: Direct,
    name: &'static str,
    after_ms: u64,
    done: Cell<bool>,
}

impl Link for Late {
    fn send(&self, request: &Request) -> Fate {
        let late = request.name() == self.name && !self.done.replace(request.name() == self.name);
        if late { Fate::Late(self.after_ms) } else { Fate::Arrives }
    }

    fn pause(&self, until_ms: u64) {
        self.direct.pause(until_ms);
    }
}

impl OnModel {
    fn late(&self, name: &'static str, after_ms: u64) -> Late {
        Late { direct: Direct::new(&self.cluster), name, after_ms, done: Cell::new(false) }
    }

    /// All services are away for so long.
    fn away(&self, ms: u64) {
        let until_ms = self.cluster.now_ms() + ms;
        for partition in self.cluster.all_partitions() {
            self.cluster.set_away(Service::Leader(partition), until_ms);
        }
        self.cluster.set_away(Service::Groups, until_ms);
        self.cluster.set_away(Service::Transactions, until_ms);
    }
}

fn resource(resource: Resource<'_>) -> model::Resource {
    match resource {
        Resource::Topic(name) => model::Resource::Topic(name.into()),
        Resource::Group(name) => model::Resource::Group(name.into()),
        Resource::TransactionalId(name) => model::Resource::TransactionalId(name.into()),
    }
}

impl Lab for OnModel {
    fn dies_in(&self, mut steps: ModelSteps, call: Call, after_ms: u64) {
        let producer = &mut steps.0;
        let unheard = match call {
            Call::Write(partition, value) => producer
                .write_value_over(&self.late("Produce", after_ms), &partition, value.as_bytes(), 0)
                .map(drop),
            Call::Offsets(group, offsets) => {
                let late = self.late("TxnOffsetCommit", after_ms);
                producer.send_offsets_as_nobody_over(&late, &group, &offsets, 0)
            }
            Call::Commit => producer.commit_over(&self.late("EndTxn(commit)", after_ms), 0),
        };
        assert_eq!(unheard, Err(Code::TimedOut));
    }

    fn impatient(&self, who: &Who) -> ModelSteps {
        self.steps(who)
    }

    fn commits_twice(&self, steps: &mut ModelSteps, after_ms: u64) -> Result<(), Class> {
        // The client asks again after a second.
        let late = self.late("EndTxn(commit)", 1_000 + after_ms);
        steps.0.commit_over(&late, self.cluster.now_ms() + 10_000).map_err(class)
    }

    fn restart(&self) {
        self.away(5_000);
        self.pass(5_000);
    }

    fn crash(&self) {
        for partition in self.cluster.all_partitions() {
            self.cluster.move_log_start_back(&partition, 0);
        }
        self.restart();
    }

    fn pause(&self, ms: u64) {
        self.away(ms);
    }

    fn restricted(&self, _: &[Resource<'_>], missing: (Resource<'_>, Operation)) -> OnModel {
        let operation = match missing.1 {
            Operation::Read => model::Operation::Read,
            Operation::Write => model::Operation::Write,
            Operation::Delete => model::Operation::Delete,
        };
        self.cluster.deny(resource(missing.0), operation, true);
        OnModel { cluster: self.cluster.clone(), names: self.names.clone() }
    }
}

pub struct ModelPlain {
    cluster: Cluster,
    group: String,
    log: ModelLog,
    owned: usize,
}

impl Plain for ModelPlain {
    type Membership = Membership;

    fn serve(&mut self) -> usize {
        match self.log.poll().unwrap() {
            Some(LogEvent::Assigned { partitions, .. }) => self.owned = partitions.len(),
            Some(LogEvent::Revoked | LogEvent::Lost) => {
                self.owned = 0;
                self.log.release().unwrap();
            }
            None => {}
        }
        self.owned
    }

    fn membership(&self) -> Membership {
        self.log.membership().unwrap()
    }

    fn commit(&self, offsets: &[(TopicPartition, i64)]) -> bool {
        self.cluster.commit_offsets(&self.group, Some(&self.membership()), offsets).is_ok()
    }

    fn leave(mut self) {
        self.log.leave(10_000).unwrap();
    }
}

pub struct ModelSteps(Producer);

fn class(code: Code) -> Class {
    match code.severity() {
        Severity::Retry => Class::Retry,
        Severity::Abort => Class::Abort,
        Severity::Fatal => Class::Fatal,
    }
}

impl Steps for ModelSteps {
    type Membership = Membership;

    fn send_offsets(&mut self, under: &Membership, offsets: &[(TopicPartition, i64)]) -> Result<(), Class> {
        self.0.send_offsets_as(under, offsets).map_err(class)
    }

    fn init(&mut self) -> Result<(), Class> {
        self.0.init(30_000).map_err(class)
    }

    fn begin(&mut self) -> Result<(), Class> {
        self.0.begin().map_err(class)
    }

    fn write(&mut self, partition: &TopicPartition, value: &str) -> Result<(), Class> {
        self.0.write_value(partition, value.as_bytes()).map(drop).map_err(class)
    }

    fn send_offsets_as_nobody(
        &mut self,
        group: &str,
        offsets: &[(TopicPartition, i64)],
    ) -> Result<(), Class> {
        self.0.send_offsets_as_nobody(group, offsets).map_err(class)
    }

    fn commit(&mut self) -> Result<(), Class> {
        self.0.commit().map_err(class)
    }

    fn abort(&mut self) -> Result<(), Class> {
        self.0.abort().map_err(class)
    }
}
