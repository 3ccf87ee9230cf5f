//! The topics of an application: checked, and created where that was asked for, before anything runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::operator::OutputTarget;
use crate::record::{TopicId, TopicPartition};
use crate::state::key::{STATE_KEY_BYTES_MAX, STATE_TEXTS_BYTES_MAX};
use crate::task::{BuildError, Targets, pipeline_factory};
use crate::topology::plan::{
    CreateTopic, OperatorPlan, Plan, RepartitionPlan, SourcePlan, StageInput, Start, StreamRef,
};
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
const SEGMENT_BYTES: &str = "52428800";

/// What repartition topics must look like.
const REPARTITION_CONFIG: &[(&str, &str, &str)] = &[
    (
        "cleanup.policy",
        "delete",
        "the engine cuts it behind its reader; rows have no keys to be compacted by",
    ),
    ("retention.ms", "-1", "the brokers would delete rows that nobody has read"),
    ("retention.bytes", "-1", "the brokers would delete rows that nobody has read"),
];
/// A block with a row of some size must fit into a record.
const REPARTITION_RECORD_BYTES_MIN: usize = 64 << 10;

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
    /// All partitions that are read, of sources and of repartition topics.
    pub sources: Vec<TopicPartition>,
    /// The number of partitions that each stage reads: so many tasks it has.
    pub tasks: Arc<[i32]>,
    /// For each stage, its changelog; `None` if it keeps nothing.
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
    // First whatever speaks against a start: a run that is refused leaves no topics behind.
    find(admin, plan, bounded, record_bytes_max)?.complete(admin, replication, record_bytes_max)
}

/// What there is, and what is to be created.
struct Wanted {
    /// The topics that the topology names.
    named: Vec<(TopicUse, Option<TopicDescription>)>,
    /// The number of tasks of each stage.
    tasks: Vec<i32>,
    repartitions: Vec<OwnedTopic>,
    /// By stage.
    changelogs: Vec<Option<OwnedTopic>>,
}

/// Looks at all topics, and refuses what does not fit.
fn find(
    admin: &mut dyn LogAdmin,
    plan: &Plan,
    bounded: bool,
    record_bytes_max: usize,
) -> Result<Wanted, TopicError> {
    let uses = topics(plan);
    let names: Vec<String> = uses.iter().map(|topic| topic.topic.clone()).collect();
    let found = admin.describe(&names)?;
    let missing: Vec<&TopicUse> = uses
        .iter()
        .zip(&found)
        .filter_map(|(topic, found)| (found.is_none() && topic.create.is_none()).then_some(topic))
        .collect();
    if !missing.is_empty() {
        return Err(TopicError::Unfit(describe_missing(&missing)));
    }
    refuse_vanished_stages(admin, plan)?;
    let partitions: BTreeMap<&str, i32> = uses.iter().zip(&found).filter_map(partitions_of).collect();
    let of_source = |source: &SourcePlan| partitions.get(source.topic.as_str()).copied().unwrap_or_default();
    let mut tasks: Vec<i32> = plan.sources.iter().map(of_source).collect();
    let mut repartitions = Vec::new();
    for repartition in &plan.repartitions {
        let partitions = plan.partitions_of(repartition, &tasks);
        let wanted = find_repartition(admin, plan, repartition, partitions, record_bytes_max)?;
        tasks.push(wanted.found.as_ref().map_or(wanted.partitions, |found| found.partitions));
        repartitions.push(wanted);
    }
    let mut changelogs = Vec::new();
    for (stage, tasks) in tasks.iter().enumerate() {
        // A stage that has had one goes on with it: what it says of the offsets must stay true.
        let name = changelog_name(&plan.name, plan.stream_id(plan.head_of(stage)));
        changelogs.push(match keeps_state(plan, stage, bounded) || describe(admin, &name)?.is_some() {
            true => Some(find_changelog(admin, plan, stage, *tasks, record_bytes_max)?),
            false => None,
        });
    }
    Ok(Wanted { named: uses.into_iter().zip(found).collect(), tasks, repartitions, changelogs })
}

impl Wanted {
    /// Creates what is missing.
    fn complete(
        self,
        admin: &mut dyn LogAdmin,
        replication: i32,
        record_bytes_max: usize,
    ) -> Result<Topics, TopicError> {
        let mut sources = Vec::new();
        let mut targets = Targets::new();
        let mut batch_bytes_max = usize::MAX;
        let mut write = |topic: &str, description: &TopicDescription| {
            batch_bytes_max = batch_bytes_max.min(topic_limit(description));
            let target = OutputTarget {
                topic: topic.into(),
                partitions: description.partitions,
                record_bytes_max: record_limit(description, record_bytes_max),
            };
            targets.insert(topic.to_owned(), Arc::new(target));
        };
        let mut read = |topic: &str, partitions: i32| {
            let name: Arc<str> = topic.into();
            sources
                .extend((0..partitions).map(|partition| TopicPartition { topic: name.clone(), partition }));
        };
        for (topic, found) in self.named {
            let description = match (found, topic.create) {
                (None, Some(CreateTopic { partitions, replication, config })) => {
                    create(admin, TopicSpec { name: topic.topic.clone(), partitions, replication, config })?
                }
                (Some(found), _) => found,
                (None, None) => continue,
            };
            match topic.role {
                TopicRole::Source => read(&topic.topic, description.partitions),
                _ => write(&topic.topic, &description),
            }
        }
        for wanted in self.repartitions {
            let name = wanted.name.clone();
            let description = wanted.prepare(admin, replication, record_bytes_max)?;
            read(&name, description.partitions);
            write(&name, &description);
        }
        let mut changelogs = Vec::new();
        for wanted in self.changelogs {
            let prepare = |wanted: OwnedTopic| {
                let name = wanted.name.clone();
                let found = wanted.prepare(admin, replication, record_bytes_max)?;
                Ok::<_, TopicError>(ChangelogTopic {
                    name,
                    id: found.id,
                    record_bytes_max: record_limit(&found, record_bytes_max),
                    batch_bytes_max: topic_limit(&found),
                })
            };
            changelogs.push(wanted.map(prepare).transpose()?);
        }
        let of_changelogs = changelogs.iter().flatten().map(|changelog| changelog.batch_bytes_max);
        let batch_bytes_max = of_changelogs.fold(batch_bytes_max, usize::min);
        let (targets, tasks) = (Arc::new(targets), self.tasks.into());
        Ok(Topics { sources, targets, tasks, changelogs, batch_bytes_max })
    }
}

/// Whether a stage has a changelog. Before a change of keys it keeps its watermark, which it may not have told all
/// readers yet and may have no record to make again; behind one, what was heard of the tasks before it.
fn keeps_state(plan: &Plan, stage: usize, bounded: bool) -> bool {
    let is_repartition = matches!(plan.head_of(stage), StreamRef::Repartition(_));
    let sends = plan.sends_of(stage).next().is_some();
    bounded || is_repartition || sends || !stateful_operators(plan, stage).is_empty()
}

/// How many partitions a topic has, or will have.
fn partitions_of<'t>((topic, found): (&'t TopicUse, &Option<TopicDescription>)) -> Option<(&'t str, i32)> {
    let to_be = topic.create.as_ref().map(|create| create.partitions);
    Some((&topic.topic, found.as_ref().map(|found| found.partitions).or(to_be)?))
}

/// The stages of `plan` on these topics, as a worker is told.
pub fn stages(plan: &Arc<Plan>, topics: &Topics) -> Result<Vec<StageSpec>, BuildError> {
    let mut stages = Vec::new();
    for (number, (stage, changelog)) in plan.stages().zip(&topics.changelogs).enumerate() {
        let (start, idle_timeout_ms) = match stage {
            StageInput::Source(source) => (source.start, source.event_time.idle_timeout_ms),
            StageInput::Repartition(_) => (Start::Earliest, None),
        };
        stages.push(StageSpec {
            id: stage.id().into(),
            topic: plan.topic_of(stage),
            repartitioned_by: match stage {
                StageInput::Source(_) => None,
                StageInput::Repartition(repartition) => Some(repartition.key_text()),
            },
            start,
            idle_timeout_ms: idle_timeout_ms.and_then(|ms| u64::try_from(ms).ok()),
            alignment: match stage {
                StageInput::Source(source) => source.alignment.clone(),
                StageInput::Repartition(_) => None,
            },
            sends_to: plan.sends_of(number).map(|repartition| plan.repartition_topic(repartition)).collect(),
            changelog: changelog.as_ref().map(|log| (log.name.clone(), log.id, log.record_bytes_max)),
            operators: stateful_operators(plan, number),
            pipelines: pipeline_factory(plan.clone(), number, topics.targets.clone(), topics.tasks.clone())?,
        });
    }
    Ok(stages)
}

/// Ids and fingerprints of a stage's stateful operators.
fn stateful_operators(plan: &Plan, stage: usize) -> Vec<(String, String)> {
    let of_stage =
        |operator: &OperatorPlan| operator.inputs.iter().any(|input| plan.is_of_stage(*input, stage));
    let stateful = |operator: &OperatorPlan| Some((operator.id.clone(), operator.fingerprint()?));
    plan.operators.iter().filter(|operator| of_stage(operator)).filter_map(stateful).collect()
}

/// The name of a stage's changelog topic.
pub fn changelog_name(application: &str, stage: &str) -> String {
    format!("thalweg.{application}.{stage}.changelog")
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

/// A topic of the engine's own.
struct OwnedTopic {
    name: String,
    /// How many partitions it gets if it is created.
    partitions: i32,
    /// Settings that it must have, with the reasons.
    config: &'static [(&'static str, &'static str, &'static str)],
    /// What a record of it must be able to hold.
    record_bytes_min: usize,
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
) -> Result<OwnedTopic, TopicError> {
    let head = plan.stream_id(plan.head_of(stage));
    let name = changelog_name(&plan.name, head);
    let found = describe(admin, &name)?;
    let source = plan.stages().nth(stage).map_or_else(String::new, |stage| plan.topic_of(stage));
    if let Some(found) = found.as_ref().filter(|found| found.partitions != partitions) {
        return Err(TopicError::Unfit(format!(
            "topic `{source}` has {partitions} partitions, but its changelog `{name}` has {}: the number of \
             partitions was changed, and keys have moved away from what is known of them. Start anew with `thalweg reset`",
            found.partitions
        )));
    }
    if found.is_none() {
        refuse_lost(
            admin,
            &plan.name,
            &source,
            &name,
            "the state was deleted, or the topology had none before",
        )?;
    }
    let (config, record_bytes_min) = (CHANGELOG_CONFIG, CHANGELOG_RECORD_BYTES_MIN);
    OwnedTopic { name, partitions, config, record_bytes_min, found }.checked(record_bytes_max)
}

/// Looks for a repartition topic and refuses one that does not fit. It gets so many partitions if it is missing.
fn find_repartition(
    admin: &mut dyn LogAdmin,
    plan: &Plan,
    repartition: &RepartitionPlan,
    partitions: i32,
    record_bytes_max: usize,
) -> Result<OwnedTopic, TopicError> {
    let name = plan.repartition_topic(repartition);
    let found = describe(admin, &name)?;
    if let (Some(found), Some(wanted)) = (&found, repartition.partitions)
        && found.partitions != wanted
    {
        return Err(TopicError::Unfit(format!(
            "operator `{}` wants {wanted} partitions, but topic `{name}` has {}: keys would move away from their \
             state. Write `partitions: {}`, or start anew with `thalweg reset`",
            repartition.id, found.partitions, found.partitions
        )));
    }
    if found.is_none() {
        refuse_lost(admin, &plan.name, &name, &name, "rows that were on their way were deleted with it")?;
    }
    let (config, record_bytes_min) = (REPARTITION_CONFIG, REPARTITION_RECORD_BYTES_MIN);
    OwnedTopic { name, partitions, config, record_bytes_min, found }.checked(record_bytes_max)
}

impl OwnedTopic {
    /// Itself, if what was found fits, or nothing was.
    fn checked(self, record_bytes_max: usize) -> Result<OwnedTopic, TopicError> {
        match &self.found {
            Some(found) => self.check(found, record_bytes_max)?,
            None => self.check_record_limit(record_bytes_max.saturating_sub(RECORD_OVERHEAD_BYTES))?,
        }
        Ok(self)
    }

    /// Creates it if need be.
    fn prepare(
        self,
        admin: &mut dyn LogAdmin,
        replication: i32,
        record_bytes_max: usize,
    ) -> Result<TopicDescription, TopicError> {
        if let Some(found) = self.found {
            return Ok(found);
        }
        let config = self.config.iter().map(|(key, value, _)| (*key, *value));
        let config = config.chain([("segment.bytes", SEGMENT_BYTES)]);
        let config = config.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let (name, partitions) = (self.name.clone(), self.partitions);
        let created = create(admin, TopicSpec { name, partitions, replication, config })?;
        // The brokers' defaults may not suit, or another process may have been faster.
        if created.partitions != self.partitions {
            return Err(TopicError::Unfit(format!(
                "topic `{}` was created with {} partitions instead of {}: another process had it otherwise",
                self.name, created.partitions, self.partitions
            )));
        }
        self.check(&created, record_bytes_max)?;
        Ok(created)
    }

    fn check(&self, found: &TopicDescription, record_bytes_max: usize) -> Result<(), TopicError> {
        let name = &self.name;
        for (key, wanted, why) in self.config {
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
        if record_bytes_max >= self.record_bytes_min {
            return Ok(());
        }
        Err(TopicError::Unfit(format!(
            "a record of topic `{}` may have {record_bytes_max} bytes, but can need {}: raise its \
             max.message.bytes, and `message.max.bytes` in kafka.librdkafka if that is set",
            self.name, self.record_bytes_min
        )))
    }
}

/// State of a stage that the topology does not have any more, or rows on their way to it, are not left behind in
/// silence. A topic whose id has a dot may be another application's, and does not count.
fn refuse_vanished_stages(admin: &mut dyn LogAdmin, plan: &Plan) -> Result<(), TopicError> {
    let prefix = format!("thalweg.{}.", plan.name);
    for topic in admin.list(&prefix)? {
        let Some(rest) = topic.strip_prefix(&prefix) else { continue };
        let (kind, id) = match (rest.strip_suffix(".changelog"), rest.strip_suffix(".repartition")) {
            (Some(id), _) => ("has state", id),
            (_, Some(id)) => ("has rows on their way to it", id),
            _ => continue,
        };
        let is_known = match kind {
            "has state" => plan.stages().any(|stage| stage.id() == id),
            _ => plan.repartitions.iter().any(|repartition| repartition.id == id),
        };
        if !id.contains('.') && !is_known {
            return Err(TopicError::Unfit(format!(
                "stage `{id}` {kind} in topic `{topic}` but is not in the topology any more. Put it back; or \
                 delete the topic to give that up; or start anew with `thalweg reset`"
            )));
        }
    }
    Ok(())
}

/// Who has committed offsets of a topic that is read, and not the topic that goes with them, has lost something.
/// Creating an empty one would only make the message that follows less clear.
fn refuse_lost(
    admin: &mut dyn LogAdmin,
    group: &str,
    source: &str,
    lost: &str,
    why: &str,
) -> Result<(), TopicError> {
    let committed = admin.group_offsets(group)?;
    if committed.iter().any(|(partition, _)| *partition.topic == *source) {
        return Err(TopicError::Unfit(format!(
            "group `{group}` has committed offsets of topic `{source}`, but the topic `{lost}` does not exist: {why}. \
             Start anew with `thalweg reset`"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
