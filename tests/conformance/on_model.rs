//! The model as a world.

use std::cell::Cell;

use thalweg::model::clients::{ModelAdmin, ModelLog, ModelReader, ModelTransactionLog};
use thalweg::model::producer::{Membership, Producer};
use thalweg::model::{ClientSettings, Cluster, Code, Severity};
use thalweg::record::TopicPartition;
use thalweg::worker::port::{Log, LogEvent};

use crate::world::{Class, Plain, Steps, Who, World};

/// A cluster of its own.
#[derive(Default)]
pub struct OnModel {
    cluster: Cluster,
    names: Cell<usize>,
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
        ModelPlain { log: self.log(who, topics), owned: 0 }
    }

    fn reader(&self, group: &str) -> ModelReader {
        ModelReader::new(&self.cluster, group)
    }

    fn admin(&self) -> ModelAdmin {
        ModelAdmin::new(&self.cluster)
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

pub struct ModelPlain {
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
