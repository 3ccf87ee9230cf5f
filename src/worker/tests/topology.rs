//! One topology for the tests: sums per key and window, a row after each record.

use std::sync::Arc;

use crate::operator::{OutputTarget, PipelineFactory};
use crate::record::TopicPartition;
use crate::task::{Changelog, TaskId, TaskLimits, TaskSpec, pipeline_factory};
use crate::topology::plan::{Plan, Start};
use crate::worker::{StageSpec, WorkerSpec};

const SUMS: &str = "
version: 1
name: sums
sources:
  in:
    topic: in
    partitioned_by: [k]
    format: { type: json }
    schema: { k: string, v: int, t: timestamp_ms }
    event_time: { field: t, max_out_of_orderness: 2s }
operators:
  per_window:
    type: window
    input: in
    key_by: [k]
    window: { type: tumbling, size: 10s, allowed_lateness: 3s }
    emit: on_update
    aggregate: { n: 'count()', total: 'sum(v)' }
sinks:
  out: { input: per_window, topic: out, key: [k], format: { type: json } }
";

/// The id of the changelog topic.
pub const TOPIC_ID: [u8; 16] = [7; 16];

/// Partition `number` of the source.
pub fn source(number: i32) -> TopicPartition {
    TopicPartition::new("in", number)
}

/// Partition `number` of the changelog.
pub fn changelog(number: i32) -> TopicPartition {
    TopicPartition::new("log", number)
}

/// The partition that results go to.
pub fn out() -> TopicPartition {
    TopicPartition::new("out", 0)
}

fn plan(text: &str) -> Arc<Plan> {
    let checked = crate::topology::parse(text, "sums.yaml", &|_| Err("no files".into()), &|_| None);
    Arc::new(checked.unwrap_or_else(|findings| panic!("{findings:?}")).plan)
}

/// With another key, so that the stage of the source is a change of keys and nothing else.
pub fn rekeyed(text: String) -> String {
    let by_value = "operators:\n  r: { type: repartition, input: in, key_by: [v] }\n";
    text.replace("operators:\n", by_value)
        .replace("input: in\n    key_by: [k]", "input: r\n    key_by: [v, k]")
}

/// The operators' ids and fingerprints, and what makes their pipeline; `change` edits the topology's text.
pub fn stage(change: impl Fn(String) -> String) -> (Vec<(String, String)>, PipelineFactory) {
    let plan = plan(&change(SUMS.to_owned()));
    let topics = ["out", "dead", "late", "thalweg.sums.r.repartition"].map(|topic| {
        let target = OutputTarget { topic: topic.into(), partitions: 1, record_bytes_max: 1 << 20 };
        (topic.to_owned(), Arc::new(target))
    });
    let targets = Arc::new(topics.into());
    let operators = plan.operators.iter();
    let operators = operators.filter_map(|operator| Some((operator.id.clone(), operator.fingerprint()?)));
    (operators.collect(), pipeline_factory(plan.clone(), 0, targets, Arc::new([1])).unwrap())
}

/// Bounds that make everything happen often.
pub fn limits() -> TaskLimits {
    TaskLimits {
        staged_records_max: 4,
        staged_bytes_max: 1 << 20,
        changelog_part_bytes: 200,
        chunk_bytes_min: 60,
        rest_percent: 0,
        rest_bytes_min: 0,
        flush_bytes: 600,
        flush_interval_ms: 400,
        cache_bytes_max: 0,
        watermark_interval_ms: 1_000,
        cut_interval_ms: 10_000,
    }
}

/// A task with state on partition `number`.
pub fn task_spec(number: i32) -> TaskSpec {
    TaskSpec {
        id: TaskId { stage: "in".into(), partition: number },
        source: source(number),
        start: Start::Earliest,
        changelog: Some(Changelog {
            partition: changelog(number),
            topic_id: TOPIC_ID,
            record_bytes_max: 1 << 20,
        }),
        bounded: false,
        drop_state: Vec::new(),
        repartitioned_by: None,
        idle_timeout_ms: None,
        alignment: None,
        sends_to: Vec::new(),
    }
}

/// A worker of the topology.
pub fn worker_spec() -> WorkerSpec {
    let (operators, pipelines) = stage(|text| text);
    WorkerSpec {
        application: "sums".into(),
        stages: vec![StageSpec {
            id: "in".into(),
            topic: "in".into(),
            repartitioned_by: None,
            start: Start::Earliest,
            idle_timeout_ms: None,
            alignment: None,
            sends_to: Vec::new(),
            changelog: Some(("log".into(), TOPIC_ID, 1 << 20)),
            operators,
            pipelines,
        }],
        bounded: false,
        drop_state: Vec::new(),
        commit_interval_ms: 100,
        batch_records_max: 8,
        batch_bytes_max: 1 << 20,
        pinned_bytes_max: 1 << 20,
        stall_ms: 100,
        restore_buffer_bytes: 300,
        leave_limit_ms: 10,
        limits: limits(),
    }
}

/// A record of the source.
pub fn record(key: &str, value: i64, time_ms: i64) -> Vec<u8> {
    format!(r#"{{"k":"{key}","v":{value},"t":{time_ms}}}"#).into_bytes()
}
