//! The topics of an application: checked, and created where that was asked for, before anything runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::operator::OutputTarget;
use crate::record::{TopicId, TopicPartition};
use crate::state::key::{STATE_KEY_BYTES_MAX, STATE_TEXTS_BYTES_MAX};
use crate::task::{BuildError, Targets, pipeline_factory};
use crate::topology::plan::{CreateTopic, Plan, StreamRef};
use crate::topology::{TopicRole, TopicUse, topics};
use crate::worker::StageSpec;
use crate::worker::port::{LogAdmin, LogError, TopicDescription, TopicSpec};

/// What a record costs in a topic beside its key, value and headers, at most, with its batch's header.
const RECORD_OVERHEAD_BYTES: usize = 1024;
/// Records larger than this are refused by the producer, unless its `message.max.bytes` is raised.
const PRODUCER_RECORD_BYTES_MAX: usize = 1_000_000;
/// Kafka's default for `max.message.bytes`.
const TOPIC_RECORD_BYTES_MAX: usize = 1_048_588;

/// What the engine-owned changelog topics must look like.
const CHANGELOG_CONFIG: &[(&str, &str, &str)] = &[
    ("cleanup.policy", "delete", "the engine cuts the log itself; compaction would tear holes into it"),
    ("retention.ms", "-1", "the brokers would delete state"),
    ("retention.bytes", "-1", "the brokers would delete state"),
];
/// The largest entry of a topology file's state must fit into a record, beside the two keys that the
/// header may hold and what framing adds at worst.
const CHANGELOG_RECORD_BYTES_MIN: usize = 3 * STATE_KEY_BYTES_MAX + STATE_TEXTS_BYTES_MAX + (64 << 10);
/// The active segment is never deleted, so segments are small.
const CHANGELOG_SEGMENT_BYTES: &str = "52428800";

/// Topics that do not fit the topology.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TopicError {
    /// The cluster.
    #[error(transparent)]
    Log(#[from] LogError),
    /// What is wrong with which topic, and what to do.
    #[error("{0}")]
    Unfit(String),
}

/// A stage's changelog topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangelogTopic {
    /// Its name.
    pub name: String,
    /// Its identity.
    pub id: TopicId,
    /// The largest record that it takes.
    pub record_bytes_max: usize,
    /// The largest batch that it takes.
    pub batch_bytes_max: usize,
}

/// What is known about the topics.
pub struct Topics {
    /// All that the topology writes to.
    pub targets: Arc<Targets>,
    /// All partitions that are read.
    pub sources: Vec<TopicPartition>,
    /// For each source, its changelog; `None` if its stage keeps nothing.
    pub changelogs: Vec<Option<ChangelogTopic>>,
    /// The least `max.message.bytes` of all that is written to. Brokers hold batches against it, not
    /// records.
    pub batch_bytes_max: usize,
}

/// Checks all topics of `plan` and creates those that are missing and may be created. `bounded` runs
/// keep where they end, so that all of their stages have a changelog.
pub fn prepare(
    admin: &mut dyn LogAdmin,
    plan: &Plan,
    bounded: bool,
    replication: i32,
    record_bytes_max: Option<usize>,
) -> Result<Topics, TopicError> {
    let record_bytes_max = record_bytes_max.unwrap_or(PRODUCER_RECORD_BYTES_MAX);
    let uses = topics(plan);
    let names: Vec<String> = uses.iter().map(|topic| topic.topic.clone()).collect();
    let found = admin.describe(&names)?;
    // First whatever speaks against a start: a run that is refused leaves no topics behind.
    let missing: Vec<&TopicUse> = uses
        .iter()
        .zip(&found)
        .filter_map(|(topic, found)| (found.is_none() && topic.create.is_none()).then_some(topic))
        .collect();
    if !missing.is_empty() {
        return Err(TopicError::Unfit(describe_missing(&missing)));
    }
    refuse_vanished_sources(admin, plan)?;
    let partitions: BTreeMap<&str, i32> = uses.iter().zip(&found).filter_map(partitions_of).collect();
    let mut wanted = Vec::new();
    for (stage, source) in plan.sources.iter().enumerate() {
        let keeps_state = bounded || !stateful_operators(plan, stage).is_empty();
        wanted.push(match partitions.get(source.topic.as_str()).filter(|_| keeps_state) {
            Some(partitions) => Some(find_changelog(admin, plan, stage, *partitions, record_bytes_max)?),
            None => None,
        });
    }

    let mut sources = Vec::new();
    let mut targets = Targets::new();
    let mut batch_bytes_max = usize::MAX;
    for (topic, found) in uses.into_iter().zip(found) {
        let description = match (found, topic.create) {
            (None, Some(CreateTopic { partitions, replication, config })) => {
                create(admin, TopicSpec { name: topic.topic.clone(), partitions, replication, config })?
            }
            (Some(found), _) => found,
            (None, None) => continue,
        };
        if topic.role == TopicRole::Source {
            let name: Arc<str> = topic.topic.as_str().into();
            let partition = |partition| TopicPartition { topic: name.clone(), partition };
            sources.extend((0..description.partitions).map(partition));
        } else {
            batch_bytes_max = batch_bytes_max.min(topic_limit(&description));
            let target = OutputTarget {
                topic: topic.topic.as_str().into(),
                partitions: description.partitions,
                record_bytes_max: record_limit(&description, record_bytes_max),
            };
            targets.insert(topic.topic, Arc::new(target));
        }
    }
    let mut changelogs = Vec::new();
    for wanted in wanted {
        changelogs.push(match wanted {
            Some(wanted) => Some(wanted.prepare(admin, replication, record_bytes_max)?),
            None => None,
        });
    }
    let of_changelogs = changelogs.iter().flatten().map(|changelog| changelog.batch_bytes_max);
    let batch_bytes_max = of_changelogs.fold(batch_bytes_max, usize::min);
    Ok(Topics { sources, targets: Arc::new(targets), changelogs, batch_bytes_max })
}

/// How many partitions a topic has, or will have.
fn partitions_of<'t>((topic, found): (&'t TopicUse, &Option<TopicDescription>)) -> Option<(&'t str, i32)> {
    let to_be = topic.create.as_ref().map(|create| create.partitions);
    Some((&topic.topic, found.as_ref().map(|found| found.partitions).or(to_be)?))
}

/// The stages of `plan` on these topics, as a worker is told.
pub fn stages(plan: &Arc<Plan>, topics: &Topics) -> Result<Vec<StageSpec>, BuildError> {
    let mut stages = Vec::new();
    for (stage, (source, changelog)) in plan.sources.iter().zip(&topics.changelogs).enumerate() {
        stages.push(StageSpec {
            id: source.id.as_str().into(),
            topic: source.topic.clone(),
            start: source.start,
            changelog: changelog.as_ref().map(|log| (log.name.clone(), log.id, log.record_bytes_max)),
            operators: stateful_operators(plan, stage),
            pipelines: pipeline_factory(plan.clone(), stage, topics.targets.clone())?,
        });
    }
    Ok(stages)
}

/// Ids and fingerprints of a stage's stateful operators.
fn stateful_operators(plan: &Plan, stage: usize) -> Vec<(String, String)> {
    let of_stage = |stream: StreamRef| plan.stage_of(stream) == stage;
    plan.operators
        .iter()
        .filter(|operator| of_stage(operator.input))
        .filter_map(|operator| Some((operator.id.clone(), operator.fingerprint()?)))
        .collect()
}

/// The name of a stage's changelog topic.
pub fn changelog_name(application: &str, source: &str) -> String {
    format!("thalweg.{application}.{source}.changelog")
}

fn describe(admin: &mut dyn LogAdmin, topic: &str) -> Result<Option<TopicDescription>, LogError> {
    Ok(admin.describe(&[topic.to_owned()])?.into_iter().next().flatten())
}

fn create(admin: &mut dyn LogAdmin, topic: TopicSpec) -> Result<TopicDescription, TopicError> {
    tracing::info!(topic = topic.name, partitions = topic.partitions, "creating the topic");
    admin.create(&topic)?;
    describe(admin, &topic.name)?
        .ok_or_else(|| TopicError::Unfit(format!("topic `{}` was created and is not there", topic.name)))
}

fn describe_missing(missing: &[&TopicUse]) -> String {
    let lines: Vec<String> = missing
        .iter()
        .map(|topic| format!("topic `{}` ({} of {})", topic.topic, topic.role.name(), topic.users.join(", ")))
        .collect();
    format!(
        "the cluster does not have {}; create it, correct its name, or let the topology create a source or sink \
         topic with `create: {{ partitions: … }}`",
        lines.join(", nor ")
    )
}

fn topic_limit(description: &TopicDescription) -> usize {
    let limit = description.config.get("max.message.bytes").and_then(|value| value.parse().ok());
    limit.unwrap_or(TOPIC_RECORD_BYTES_MAX)
}

fn record_limit(description: &TopicDescription, producer_max: usize) -> usize {
    topic_limit(description).min(producer_max).saturating_sub(RECORD_OVERHEAD_BYTES)
}

/// A changelog that a stage needs.
struct WantedChangelog {
    name: String,
    source: String,
    partitions: i32,
    /// `None`: it is to be created.
    found: Option<TopicDescription>,
}

/// Looks for a stage's changelog and refuses one that does not fit.
fn find_changelog(
    admin: &mut dyn LogAdmin,
    plan: &Plan,
    stage: usize,
    partitions: i32,
    record_bytes_max: usize,
) -> Result<WantedChangelog, TopicError> {
    let source = &plan.sources[stage];
    let name = changelog_name(&plan.name, &source.id);
    let found = describe(admin, &name)?;
    let wanted = WantedChangelog { name, source: source.topic.clone(), partitions, found };
    match &wanted.found {
        Some(found) => wanted.check(found, record_bytes_max)?,
        None => {
            refuse_lost_changelog(admin, plan, stage, &wanted.name)?;
            wanted.check_record_limit(record_bytes_max.saturating_sub(RECORD_OVERHEAD_BYTES))?;
        }
    }
    Ok(wanted)
}

impl WantedChangelog {
    /// Creates it if need be.
    fn prepare(
        self,
        admin: &mut dyn LogAdmin,
        replication: i32,
        record_bytes_max: usize,
    ) -> Result<ChangelogTopic, TopicError> {
        let found = match &self.found {
            Some(found) => found.clone(),
            None => {
                let config = CHANGELOG_CONFIG.iter().map(|(key, value, _)| (*key, *value));
                let config = config.chain([("segment.bytes", CHANGELOG_SEGMENT_BYTES)]);
                let config = config.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
                let (name, partitions) = (self.name.clone(), self.partitions);
                let created = create(admin, TopicSpec { name, partitions, replication, config })?;
                // The brokers' defaults may not suit, or another process may have been faster.
                self.check(&created, record_bytes_max)?;
                created
            }
        };
        Ok(ChangelogTopic {
            record_bytes_max: record_limit(&found, record_bytes_max),
            batch_bytes_max: topic_limit(&found),
            name: self.name,
            id: found.id,
        })
    }

    fn check(&self, found: &TopicDescription, record_bytes_max: usize) -> Result<(), TopicError> {
        let WantedChangelog { name, source, partitions, .. } = self;
        if found.partitions != *partitions {
            return Err(TopicError::Unfit(format!(
                "topic `{source}` has {partitions} partitions, but its changelog `{name}` has {}: the number of \
                 partitions was changed, and keys have moved away from their state. Start anew with `thalweg reset`",
                found.partitions
            )));
        }
        for (key, wanted, why) in CHANGELOG_CONFIG {
            match found.config.get(*key) {
                Some(value) if value == wanted => {}
                value => {
                    return Err(TopicError::Unfit(format!(
                        "topic `{name}` has {key}={}, but needs {key}={wanted} ({why}): \
                         kafka-configs.sh --alter --topic {name} --add-config {key}={wanted}",
                        value.map_or("(unknown)", String::as_str)
                    )));
                }
            }
        }
        self.check_record_limit(record_limit(found, record_bytes_max))
    }

    fn check_record_limit(&self, record_bytes_max: usize) -> Result<(), TopicError> {
        if record_bytes_max >= CHANGELOG_RECORD_BYTES_MIN {
            return Ok(());
        }
        Err(TopicError::Unfit(format!(
            "a record of topic `{}` may have {record_bytes_max} bytes, but state can need \
             {CHANGELOG_RECORD_BYTES_MIN}: raise its max.message.bytes, and `message.max.bytes` in \
             kafka.librdkafka if that is set",
            self.name
        )))
    }
}

/// State of a source that the topology does not have any more is not left behind in silence. A changelog
/// whose id has a dot may be another application's, and does not count.
fn refuse_vanished_sources(admin: &mut dyn LogAdmin, plan: &Plan) -> Result<(), TopicError> {
    let prefix = format!("thalweg.{}.", plan.name);
    for topic in admin.list(&prefix)? {
        let id = topic.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(".changelog"));
        let Some(id) = id.filter(|id| !id.contains('.')) else { continue };
        if !plan.sources.iter().any(|source| source.id == id) {
            return Err(TopicError::Unfit(format!(
                "source `{id}` has state in topic `{topic}` but is not in the topology any more. Put it back; or \
                 delete the topic to give its state up; or start anew with `thalweg reset`"
            )));
        }
    }
    Ok(())
}

/// Without its changelog, a stage that has committed offsets has lost its state. Creating an empty one
/// would only make the message that follows less clear.
fn refuse_lost_changelog(
    admin: &mut dyn LogAdmin,
    plan: &Plan,
    stage: usize,
    name: &str,
) -> Result<(), TopicError> {
    let source = &plan.sources[stage].topic;
    let committed = admin.group_offsets(&plan.name)?;
    if committed.iter().any(|(partition, _)| *partition.topic == **source) {
        return Err(TopicError::Unfit(format!(
            "group `{}` has committed offsets of topic `{source}`, but the changelog `{name}` does not exist: the \
             state was deleted, or the topology had none before. Start anew with `thalweg reset`",
            plan.name
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
