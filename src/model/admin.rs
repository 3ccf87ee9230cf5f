//! The port for administration.

use crate::model::cluster::Cluster;
use crate::model::error::Code;
use crate::model::faults::Service;
use crate::model::group::Group;
use crate::model::link::{Direct, Link, Linked};
use crate::model::request::{Request, Response};
use crate::record::TopicPartition;
use crate::worker::alignment::Standing;
use crate::worker::port::{LogAdmin, LogError, TopicDescription, TopicSpec};

/// How long a call may take, in milliseconds.
const TIME_OUT_MS: u64 = 30_000;

/// Administration.
pub struct ModelAdmin {
    cluster: Cluster,
}

impl ModelAdmin {
    /// An admin client.
    pub fn new(cluster: &Cluster) -> ModelAdmin {
        ModelAdmin { cluster: cluster.clone() }
    }

    /// This client, over a link; only the deletion of records uses it.
    pub fn over<'l>(&'l mut self, link: &'l dyn Link) -> Linked<'l, ModelAdmin> {
        Linked { client: self, link }
    }

    /// [`LogAdmin::delete_records`] over a link.
    pub fn delete_records_over(
        &mut self,
        link: &dyn Link,
        partition: &TopicPartition,
        offset: i64,
    ) -> Result<i64, LogError> {
        let request = Request::DeleteRecords { partition: partition.clone(), offset };
        let end_ms = self.cluster.now_ms() + TIME_OUT_MS;
        let deleted = self.cluster.ask(link, &request, end_ms).answer.and_then(Response::offset);
        let tried = format!("deleting the records of {partition} before offset {offset}");
        deleted.map_err(|code| match code {
            // librdkafka finds no leader to ask, and has no other word for it than "failed".
            Code::UnknownTopicOrPartition => LogError::Client(format!("{tried}: the model says {code:?}")),
            code => code.during(&tried),
        })
    }
}

impl LogAdmin for ModelAdmin {
    fn list(&mut self, prefix: &str) -> Result<Vec<String>, LogError> {
        let state = self.cluster.state();
        Ok(state.topics.keys().filter(|name| name.starts_with(prefix)).cloned().collect())
    }

    fn describe(&mut self, topics: &[String]) -> Result<Vec<Option<TopicDescription>>, LogError> {
        let state = self.cluster.state();
        Ok(topics.iter().map(|topic| state.describe(topic)).collect())
    }

    fn create(&mut self, topic: &TopicSpec) -> Result<(), LogError> {
        let created = self.cluster.state().create(topic);
        created.map_err(|code| code.during(&format!("creating topic {}", topic.name)))
    }

    fn delete(&mut self, topics: &[String]) -> Result<(), LogError> {
        let mut state = self.cluster.state();
        topics.iter().for_each(|topic| state.delete(topic));
        Ok(())
    }

    fn delete_records(&mut self, partition: &TopicPartition, offset: i64) -> Result<i64, LogError> {
        let direct = Direct::new(&self.cluster);
        self.delete_records_over(&direct, partition, offset)
    }

    fn group_offsets(&mut self, group: &str) -> Result<Vec<(TopicPartition, i64)>, LogError> {
        let mut state = self.cluster.state();
        state.settle();
        Ok(state.groups.get(group).map(Group::all_committed).unwrap_or_default())
    }

    fn finished_partitions(&mut self, group: &str) -> Result<Vec<TopicPartition>, LogError> {
        let mut state = self.cluster.state();
        state.settle();
        Ok(state.groups.get(group).map(Group::finished).unwrap_or_default())
    }

    fn standings(&mut self, group: &str) -> Result<Vec<(TopicPartition, Standing)>, LogError> {
        let mut state = self.cluster.state();
        state.settle();
        if state.away_until(&Service::Groups).is_some() {
            let tried = format!("reading the committed offsets of group {group}");
            return Err(Code::CoordinatorNotAvailable.during(&tried));
        }
        Ok(state.groups.get(group).map(Group::standings).unwrap_or_default())
    }

    fn group_members(&mut self, group: &str) -> Result<Vec<String>, LogError> {
        let mut state = self.cluster.state();
        state.settle();
        Ok(state.groups.get(group).map(Group::members).unwrap_or_default())
    }

    fn delete_group(&mut self, group: &str) -> Result<(), LogError> {
        let mut state = self.cluster.state();
        if state.groups.get(group).is_some_and(|found| !found.members().is_empty()) {
            return Err(Code::NonEmptyGroup.during(&format!("deleting group {group}")));
        }
        state.groups.remove(group);
        Ok(())
    }
}

impl LogAdmin for Linked<'_, ModelAdmin> {
    fn list(&mut self, prefix: &str) -> Result<Vec<String>, LogError> {
        self.client.list(prefix)
    }

    fn describe(&mut self, topics: &[String]) -> Result<Vec<Option<TopicDescription>>, LogError> {
        self.client.describe(topics)
    }

    fn create(&mut self, topic: &TopicSpec) -> Result<(), LogError> {
        self.client.create(topic)
    }

    fn delete(&mut self, topics: &[String]) -> Result<(), LogError> {
        self.client.delete(topics)
    }

    fn delete_records(&mut self, partition: &TopicPartition, offset: i64) -> Result<i64, LogError> {
        self.client.delete_records_over(self.link, partition, offset)
    }

    fn group_offsets(&mut self, group: &str) -> Result<Vec<(TopicPartition, i64)>, LogError> {
        self.client.group_offsets(group)
    }

    fn finished_partitions(&mut self, group: &str) -> Result<Vec<TopicPartition>, LogError> {
        self.client.finished_partitions(group)
    }

    fn standings(&mut self, group: &str) -> Result<Vec<(TopicPartition, Standing)>, LogError> {
        self.client.standings(group)
    }

    fn group_members(&mut self, group: &str) -> Result<Vec<String>, LogError> {
        self.client.group_members(group)
    }

    fn delete_group(&mut self, group: &str) -> Result<(), LogError> {
        self.client.delete_group(group)
    }
}
