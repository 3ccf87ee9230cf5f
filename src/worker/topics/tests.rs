//! What is found before anything runs.

use std::collections::BTreeMap;

use super::*;
use crate::record::TopicPartition;
use crate::worker::alignment::Standing;

/// A cluster as far as the checks see it.
#[derive(Default)]
struct Cluster {
    topics: BTreeMap<String, TopicDescription>,
    offsets: Vec<(TopicPartition, i64)>,
}

impl Cluster {
    fn with(topics: &[&str]) -> Cluster {
        let mut cluster = Cluster::default();
        for topic in topics {
            cluster.add(topic, 2, &[]);
        }
        cluster
    }

    fn add(&mut self, topic: &str, partitions: i32, config: &[(String, String)]) {
        let config = config.iter().cloned().collect();
        let id = [self.topics.len() as u8; 16];
        self.topics.insert(topic.to_owned(), TopicDescription { id, partitions, config });
    }
}

impl LogAdmin for Cluster {
    fn list(&mut self, prefix: &str) -> Result<Vec<String>, LogError> {
        Ok(self.topics.keys().filter(|topic| topic.starts_with(prefix)).cloned().collect())
    }
    fn describe(&mut self, topics: &[String]) -> Result<Vec<Option<TopicDescription>>, LogError> {
        Ok(topics.iter().map(|topic| self.topics.get(topic).cloned()).collect())
    }
    fn create(&mut self, topic: &TopicSpec) -> Result<(), LogError> {
        self.add(&topic.name, topic.partitions, &topic.config);
        Ok(())
    }
    fn delete(&mut self, _: &[String]) -> Result<(), LogError> {
        unreachable!("a start deletes no topics")
    }
    fn delete_records(&mut self, _: &TopicPartition, _: i64) -> Result<i64, LogError> {
        unreachable!("a start deletes no records")
    }
    fn group_offsets(&mut self, group: &str) -> Result<Vec<(TopicPartition, i64)>, LogError> {
        assert_eq!(group, "app");
        Ok(self.offsets.clone())
    }
    fn finished_partitions(&mut self, _: &str) -> Result<Vec<TopicPartition>, LogError> {
        unreachable!("a start does not ask what is finished")
    }
    fn standings(&mut self, _: &str) -> Result<Vec<(TopicPartition, Standing)>, LogError> {
        unreachable!("a start does not ask how far partitions are")
    }
    fn group_members(&mut self, _: &str) -> Result<Vec<String>, LogError> {
        unreachable!("a start asks for no members")
    }
    fn delete_group(&mut self, _: &str) -> Result<(), LogError> {
        unreachable!("a start deletes no group")
    }
}

/// An application that counts what each of these sources has.
fn plan(sources: &[&str]) -> Plan {
    let mut text = "version: 1\nname: app\nsources:\n".to_owned();
    for id in sources {
        text += &format!(
            "  {id}:\n    topic: {id}-topic\n    partitioned_by: [k]\n    format: {{ type: json }}\n    \
             schema: {{ k: string, t: timestamp_ms }}\n    \
             event_time: {{ field: t, max_out_of_orderness: 1s }}\n"
        );
    }
    text += "operators:\n";
    for id in sources {
        text += &format!(
            "  {id}-counts:\n    type: window\n    input: {id}\n    key_by: [k]\n    \
             window: {{ type: tumbling, size: 10s }}\n    aggregate: {{ n: 'count()' }}\n"
        );
    }
    text += "sinks:\n";
    for id in sources {
        text += &format!(
            "  {id}-out: {{ input: {id}-counts, topic: {id}-out, key: [k], format: {{ type: json }} }}\n"
        );
    }
    let checked = crate::topology::parse(&text, "app.yaml", &|_| Err("no files".into()), &|_| None);
    checked.unwrap_or_else(|findings| panic!("{findings:?}")).plan
}

fn prepared(cluster: &mut Cluster, plan: &Plan) -> Result<Topics, TopicError> {
    prepare(cluster, plan, false, 1, None)
}

#[test]
fn all_partitions_of_all_sources_are_read() {
    let mut cluster = Cluster::with(&["orders-topic", "orders-out", "users-out"]);
    cluster.add("users-topic", 3, &[]);
    let topics = prepared(&mut cluster, &plan(&["orders", "users"])).unwrap();
    let of = |topic, count| (0..count).map(move |partition| TopicPartition::new(topic, partition));
    let expected: Vec<TopicPartition> = of("orders-topic", 2).chain(of("users-topic", 3)).collect();
    assert_eq!(topics.sources, expected, "and none that is written to");
}

const ALL: &[&str] = &["orders-topic", "orders-out", "users-topic", "users-out"];

#[test]
fn the_state_of_a_source_that_vanished_is_refused_by_name() {
    let mut cluster = Cluster::with(ALL);
    let both = prepared(&mut cluster, &plan(&["orders", "users"])).unwrap();
    assert_eq!(both.changelogs.iter().flatten().count(), 2);
    let before = cluster.topics.clone();
    let error = prepared(&mut cluster, &plan(&["orders"])).err().unwrap().to_string();
    for part in ["stage `users`", "topic `thalweg.app.users.changelog`", "Put it back", "`thalweg reset`"] {
        assert!(error.contains(part), "{part} is not in: {error}");
    }
    assert_eq!(cluster.topics, before, "nothing was touched");
    prepared(&mut cluster, &plan(&["orders", "users"])).unwrap();
    cluster.topics.remove("thalweg.app.users.changelog");
    prepared(&mut cluster, &plan(&["orders"])).unwrap();
}

#[test]
fn the_state_of_other_applications_is_none_of_ours() {
    let mut cluster = Cluster::with(ALL);
    for topic in [
        "thalweg.app2.users.changelog",
        "thalweg.app.v2.users.changelog",
        "thalweg.app.v2.users.repartition",
        "thalweg.app.users",
    ] {
        cluster.add(topic, 2, &[]);
    }
    prepared(&mut cluster, &plan(&["orders"])).unwrap();
}

#[test]
fn rows_on_their_way_to_a_stage_that_vanished_are_refused_by_name() {
    let mut cluster = Cluster::with(ALL);
    cluster.add("thalweg.app.users.repartition", 2, &[]);
    let error = prepared(&mut cluster, &plan(&["orders"])).err().unwrap().to_string();
    assert!(error.contains("stage `users` has rows on their way to it"), "{error}");
}

#[test]
fn a_start_that_is_refused_creates_no_topic() {
    let mut plan = plan(&["orders"]);
    plan.sources[0].create = Some(CreateTopic { partitions: 2, replication: -1, config: Vec::new() });
    let mut cluster = Cluster::default();
    let error = prepared(&mut cluster, &plan).err().unwrap().to_string();
    assert!(error.contains("`orders-out`") && !error.contains("`orders-topic`"), "{error}");
    assert!(cluster.topics.is_empty(), "{:?}", cluster.topics);
    cluster.add("orders-out", 2, &[]);
    prepared(&mut cluster, &plan).unwrap();
    assert!(cluster.topics.contains_key("orders-topic"));
}

#[test]
fn a_changelog_that_cannot_take_the_largest_entry_is_refused() {
    let mut cluster = Cluster::with(ALL);
    prepared(&mut cluster, &plan(&["orders"])).unwrap();
    let changelog = cluster.topics.get_mut("thalweg.app.orders.changelog").unwrap();
    changelog.config.insert("max.message.bytes".into(), (512 << 10).to_string());
    let error = prepared(&mut cluster, &plan(&["orders"])).err().unwrap().to_string();
    assert!(error.contains("thalweg.app.orders.changelog") && error.contains("max.message.bytes"), "{error}");
    let (mut empty, mut plan) = (Cluster::default(), plan(&["orders"]));
    empty.add("orders-out", 2, &[]);
    plan.sources[0].create = Some(CreateTopic { partitions: 2, replication: -1, config: Vec::new() });
    let error = prepare(&mut empty, &plan, false, 1, Some(100_000)).err().unwrap().to_string();
    assert!(error.contains("message.max.bytes") && !error.contains("  "), "{error}");
    assert_eq!(empty.topics.len(), 1, "nothing was created");
}

/// An application that counts by another field than its topic is partitioned by.
fn rekeyed(partitions: Option<i32>) -> Plan {
    let mut plan = plan(&["orders"]);
    plan.repartitions.push(RepartitionPlan {
        id: "orders-counts".into(),
        input: StreamRef::Source(0),
        schema: plan.stream_schema(StreamRef::Source(0)),
        key: vec![0],
        partitions,
        on_error: crate::topology::plan::OnError::Fail,
    });
    plan.operators[0].inputs = vec![StreamRef::Repartition(0)];
    plan
}

#[test]
fn a_repartition_topic_is_created_with_a_changelog_of_its_stage() {
    let mut cluster = Cluster::with(ALL);
    let topics = prepared(&mut cluster, &rekeyed(None)).unwrap();
    let topic = "thalweg.app.orders-counts.repartition";
    assert_eq!(*topics.tasks, [2, 2]);
    assert_eq!(topics.sources.iter().filter(|partition| *partition.topic == *topic).count(), 2);
    assert_eq!(topics.targets[topic].partitions, 2);
    assert_eq!(cluster.topics[topic].config["cleanup.policy"], "delete");
    assert_eq!(cluster.topics[topic].config["retention.ms"], "-1");
    let changelogs: Vec<_> = topics.changelogs.iter().map(|log| log.as_ref().map(|log| &*log.name)).collect();
    let expected = ["thalweg.app.orders.changelog", "thalweg.app.orders-counts.changelog"].map(Some);
    assert_eq!(changelogs, expected, "the source keeps its watermark");

    // It keeps the number that it has, unless the topology wants another one.
    let mut wider = Cluster::with(ALL);
    wider.add(
        topic,
        3,
        &REPARTITION_CONFIG
            .iter()
            .map(|(key, value, _)| ((*key).into(), (*value).into()))
            .collect::<Vec<_>>(),
    );
    assert_eq!(*prepared(&mut wider, &rekeyed(None)).unwrap().tasks, [2, 3]);
    let error = prepared(&mut cluster, &rekeyed(Some(5))).err().unwrap().to_string();
    assert!(
        error.contains("wants 5 partitions, but topic `thalweg.app.orders-counts.repartition` has 2"),
        "{error}"
    );
    let mut fresh = Cluster::with(ALL);
    assert_eq!(*prepared(&mut fresh, &rekeyed(Some(5))).unwrap().tasks, [2, 5]);
}

#[test]
fn a_repartition_topic_that_would_lose_rows_is_refused() {
    let mut cluster = Cluster::with(ALL);
    prepared(&mut cluster, &rekeyed(None)).unwrap();
    let topic = "thalweg.app.orders-counts.repartition";
    let right = cluster.topics[topic].clone();
    cluster.topics.get_mut(topic).unwrap().config.insert("retention.ms".into(), "60000".into());
    let error = prepared(&mut cluster, &rekeyed(None)).err().unwrap().to_string();
    assert!(error.contains("has retention.ms=60000, but needs retention.ms=-1"), "{error}");
    cluster.topics.insert(topic.into(), right);
    prepared(&mut cluster, &rekeyed(None)).unwrap();

    cluster.topics.remove(topic);
    cluster.offsets = vec![(TopicPartition::new(topic, 0), 7)];
    let error = prepared(&mut cluster, &rekeyed(None)).err().unwrap().to_string();
    assert!(error.contains("does not exist: rows that were on their way were deleted with it"), "{error}");
}

/// What it says of the group's offsets would not be true when it is needed again.
#[test]
fn a_stage_that_needs_its_changelog_no_more_goes_on_with_it() {
    let mut cluster = Cluster::with(ALL);
    prepared(&mut cluster, &rekeyed(None)).unwrap();
    cluster.topics.retain(|topic, _| !topic.contains("orders-counts"));
    let mut plan = rekeyed(None);
    plan.repartitions.clear();
    plan.operators.clear();
    plan.sinks.iter_mut().for_each(|sink| sink.input = StreamRef::Source(0));
    let topics = prepared(&mut cluster, &plan).unwrap();
    assert_eq!(topics.changelogs[0].as_ref().map(|log| &*log.name), Some("thalweg.app.orders.changelog"));
    let fresh = prepared(&mut Cluster::with(ALL), &plan).unwrap();
    assert!(fresh.changelogs[0].is_none(), "without one it gets none");
}
