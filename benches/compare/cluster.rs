//! The cluster that everything runs on: a broker of our own, or one that is there.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::support::broker::Broker;
use crate::support::kafka::Admin;

const LIMIT: Duration = Duration::from_secs(30);

/// A cluster.
pub struct Cluster {
    broker: Option<Broker>,
    bootstrap: String,
}

impl Cluster {
    /// The one at `bootstrap`, or else a broker that is started with its data under `dir`.
    pub fn new(bootstrap: Option<String>, dir: &Path) -> Cluster {
        match bootstrap {
            Some(bootstrap) => Cluster { broker: None, bootstrap },
            None => {
                let broker = Broker::start(&dir.join("kafka"));
                Cluster { bootstrap: broker.bootstrap(), broker: Some(broker) }
            }
        }
    }

    /// Its address.
    pub fn bootstrap(&self) -> String {
        self.bootstrap.clone()
    }

    /// Its administration.
    pub fn admin(&self) -> Admin {
        Admin::new(&self.bootstrap)
    }

    /// The process id of our broker.
    pub fn broker_pid(&self) -> Option<u32> {
        self.broker.as_ref().and_then(Broker::pid)
    }

    /// The folder of our broker's data.
    pub fn data(&self) -> Option<PathBuf> {
        self.broker.as_ref().map(Broker::data)
    }

    /// Deletes the topics and the group of an application that has stopped: all whose names hold its id.
    pub fn forget(&self, id: &str) {
        let admin = self.admin();
        let topics = admin.topics();
        topics.iter().filter(|topic| topic.contains(id)).for_each(|topic| admin.delete(topic));
        // A group whose last member has not left yet goes by its retention.
        admin.try_delete_group(id);
    }

    /// A consumer at the begin of all of a topic's partitions, which sees committed records only and hears of
    /// their ends.
    pub fn reader(&self, topic: &str) -> BaseConsumer {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.bootstrap())
            .set("group.id", "bench-that-commits-nothing")
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("fetch.wait.max.ms", "5")
            .set("fetch.queue.backoff.ms", "1")
            .create()
            .expect("a consumer");
        let mut assignment = TopicPartitionList::new();
        for partition in 0..self.admin().partitions(topic).expect("the topic is there") {
            assignment.add_partition_offset(topic, partition, Offset::Beginning).expect("a partition");
        }
        consumer.assign(&assignment).expect("an assignment");
        consumer
    }

    /// How many records a topic holds.
    pub fn records(&self, topic: &str) -> u64 {
        self.admin().bounds(topic).iter().map(|(low, high)| (high - low) as u64).sum()
    }
}

/// Follows what a consumer group has committed of a topic.
pub struct Progress {
    consumer: BaseConsumer,
    topic: String,
    partitions: i32,
}

impl Progress {
    /// Of `group` on `topic`, which is not deleted from and so begins at offset 0.
    pub fn new(cluster: &Cluster, group: &str, topic: &str) -> Progress {
        let consumer = ClientConfig::new()
            .set("bootstrap.servers", cluster.bootstrap())
            .set("group.id", group)
            .set("isolation.level", "read_uncommitted")
            .create()
            .expect("a consumer");
        let partitions = cluster.admin().partitions(topic).expect("the topic is there");
        Progress { consumer, topic: topic.to_owned(), partitions }
    }

    /// How many records it has committed so far; `None` if the cluster does not answer.
    pub fn committed(&self) -> Option<u64> {
        let mut asked = TopicPartitionList::new();
        asked.add_partition_range(&self.topic, 0, self.partitions - 1);
        let found = self.consumer.committed_offsets(asked, LIMIT).ok()?;
        let offset = |offset| if let Offset::Offset(offset) = offset { offset as u64 } else { 0 };
        Some(found.elements().iter().map(|element| offset(element.offset())).sum())
    }
}
