//! Before a change of keys: what a task tells the stages behind it.

use super::*;
use crate::format::block::{Block, BlockHeader};
use crate::topology::plan::Alignment;
use crate::worker::tests::topology::record;

const TIMEOUT_MS: u64 = 1_000;

fn sender(cluster: &Cluster, stores: &MemoryStores) -> Task {
    let spec = TaskSpec { idle_timeout_ms: Some(TIMEOUT_MS), ..task_spec(0) };
    task_of(cluster, stores, spec, rekeyed).unwrap()
}

/// Commits what the task has now, and returns the blocks among it.
fn sent(cluster: &Cluster, task: &mut Task, now_ms: u64) -> Vec<BlockHeader> {
    let Some(transaction) = transaction_at(task, now_ms) else { return Vec::new() };
    commit_of(cluster, task, &transaction);
    let blocks = transaction.outputs.iter().filter(|record| record.topic.ends_with(".repartition"));
    let blocks = blocks.map(|record| record.value.as_deref().unwrap());
    blocks.map(|block| Block::read(block).unwrap().header).collect()
}

fn processed(cluster: &Cluster, task: &mut Task, time_ms: i64) {
    cluster.content().append(&source(0), &record("a", 1, time_ms));
    feed(cluster, task);
    assert_eq!(task.run(10).unwrap(), 1);
}

#[test]
fn a_block_carries_the_watermark_behind_its_rows() {
    let (cluster, stores) = (Cluster::default(), MemoryStores::new());
    let mut task = sender(&cluster, &stores);
    assert!(sent(&cluster, &mut task, 0).is_empty(), "there is nothing to tell");
    processed(&cluster, &mut task, 10_000);
    processed(&cluster, &mut task, 12_000);
    let blocks = sent(&cluster, &mut task, 0);
    let seen: Vec<_> = blocks.iter().map(|block| (&*block.stream, block.rows, block.watermark_ms)).collect();
    assert_eq!(seen, [("in", 2, Some(10_000))]);
}

#[test]
fn a_restored_task_tells_its_watermark_again() {
    let (cluster, stores) = (Cluster::default(), MemoryStores::new());
    let mut task = sender(&cluster, &stores);
    processed(&cluster, &mut task, 10_000);
    sent(&cluster, &mut task, 0);
    drop(task);
    let mut restored = sender(&cluster, &stores);
    restored.run(10).unwrap();
    let blocks = sent(&cluster, &mut restored, 0);
    let seen: Vec<_> = blocks.iter().map(|block| (block.rows, block.watermark_ms)).collect();
    assert_eq!(seen, [(0, Some(8_000))], "some reader may not have heard it");
    assert!(sent(&cluster, &mut restored, 9_999).is_empty());
}

#[test]
fn a_source_is_idle_when_its_broker_says_that_there_is_nothing() {
    let (cluster, stores) = (Cluster::default(), MemoryStores::new());
    let mut task = sender(&cluster, &stores);
    let drained = |task: &mut Task, now_ms| {
        task.source_drained(true, now_ms);
        task.may_be_idle(now_ms)
    };
    task.run(10).unwrap();
    assert!(!drained(&mut task, 100) && !drained(&mut task, 1_099));
    assert!(drained(&mut task, 1_100));
    assert_eq!(task.is_idle(), Some(false), "nobody was asked yet");
    task.looked(false, 1_100);
    assert!(!drained(&mut task, 1_200) && !drained(&mut task, 2_199), "the time begins anew");
    assert!(drained(&mut task, 2_200));
    task.looked(true, 2_200);
    assert!(!drained(&mut task, 2_300), "it need not be asked again");
    assert_eq!(task.is_idle(), Some(true));
    assert!(sent(&cluster, &mut task, 2_300)[0].idle);

    // A record waits: it is not idle, however long it waits.
    cluster.content().append(&source(0), &record("a", 1, 10_000));
    feed(&cluster, &mut task);
    assert!(!drained(&mut task, 2_400) && !drained(&mut task, 99_000));
    assert_eq!(task.is_idle(), Some(false));
    let blocks = sent(&cluster, &mut task, 99_000);
    assert!(!blocks[0].idle && blocks[0].rows == 0, "it says so before its next rows");
    task.run(10).unwrap();
    assert_eq!(sent(&cluster, &mut task, 99_000)[0].rows, 1);
    // Who was asked before that answers now.
    assert!(!drained(&mut task, 99_100));
    task.looked(true, 99_100);
    assert!(!drained(&mut task, 99_200));
    assert_eq!(task.is_idle(), Some(false), "it has had nothing for a tenth of a second");
}

#[test]
fn rows_that_were_spread_by_another_key_are_refused() {
    let (cluster, stores) = (Cluster::default(), MemoryStores::new());
    let by = |key: &str| TaskSpec { repartitioned_by: Some(key.to_owned()), ..task_spec(0) };
    let mut task = task_of(&cluster, &stores, by("a: int, b: int"), |text| text).unwrap();
    processed(&cluster, &mut task, 10_000);
    sent(&cluster, &mut task, 0);
    drop(task);
    assert!(restore_with(&cluster, &stores, by("a: int, b: int")).is_ok());
    let refused = restore_with(&cluster, &stores, by("b: int, a: int")).err().unwrap();
    assert!(
        matches!(&refused, RestoreError::Changed(why) if why.contains("by a: int, b: int, and")),
        "{refused}"
    );
}

#[test]
fn a_repartition_topic_is_cut_behind_what_is_committed() {
    let (cluster, stores) = (Cluster::default(), MemoryStores::new());
    let mut task = task_of(
        &cluster,
        &stores,
        TaskSpec { repartitioned_by: Some("v: int".into()), ..task_spec(0) },
        |text| text,
    )
    .unwrap();
    assert_eq!(task.cut_source_job(20_000), None, "there is nothing to cut");
    processed(&cluster, &mut task, 10_000);
    assert_eq!(task.cut_source_job(20_000), None, "it is not committed");
    sent(&cluster, &mut task, 20_000);
    assert_eq!(task.cut_source_job(20_000), Some((source(0), 1)));
    assert_eq!(task.cut_source_job(99_000), None, "one is under way");
    task.cut(&source(0), Some(1));
    processed(&cluster, &mut task, 11_000);
    sent(&cluster, &mut task, 20_000);
    assert_eq!(task.cut_source_job(29_999), None, "the interval is not over");
    assert_eq!(task.cut_source_job(30_000), Some((source(0), 2)));
    task.cut(&source(0), None);
    assert_eq!(task.cut_source_job(40_000), Some((source(0), 2)), "it failed, and is tried again");
}

/// Another stage beside what there was.
fn with_another_stage(text: String) -> String {
    text.replace("operators:\n", "operators:\n  r: { type: repartition, input: in, key_by: [v] }\n")
        .replace("sinks:\n", "sinks:\n  again: { input: r, topic: late, key: [k], format: { type: json } }\n")
}

/// A bounded run.
fn bounded(
    cluster: &Cluster,
    stores: &MemoryStores,
    change: fn(String) -> String,
) -> Result<Task, RestoreError> {
    let pipeline = stage(change).1();
    let sends_to = pipeline.exchanges().iter().map(|exchange| exchange.target.topic.to_string()).collect();
    task_of(cluster, stores, TaskSpec { bounded: true, sends_to, ..task_spec(0) }, change)
}

#[test]
fn a_stage_that_is_new_when_a_bounded_run_is_over_is_refused() {
    for (before, refused) in [((|text| text) as fn(String) -> String, true), (with_another_stage, false)] {
        let (cluster, stores) = (Cluster::default(), MemoryStores::new());
        cluster.content().append(&source(0), &record("a", 1, 1_000));
        let mut task = bounded(&cluster, &stores, before).unwrap();
        feed(&cluster, &mut task);
        task.run(10).unwrap();
        sent(&cluster, &mut task, 0);
        assert!(task.is_finished());
        drop(task);
        assert!(bounded(&cluster, &stores, before).unwrap().is_finished());
        match bounded(&cluster, &stores, with_another_stage) {
            Ok(task) => assert!(task.is_finished() && !refused),
            Err(RestoreError::Changed(why)) => {
                assert!(refused && why.contains("r.repartition") && why.contains("reset"), "{why}");
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// A window that goes by the clock before a change of keys.
fn by_the_clock(text: String) -> String {
    let operators = "operators:\n  w:\n    type: window\n    input: in\n    key_by: [k]\n    \
                     window: { type: tumbling, size: 10s, time: processing }\n    aggregate: { n: count() }\n  \
                     r: { type: repartition, input: w, key_by: [n] }\n";
    text.replace("operators:\n", operators)
        .replace("sinks:\n", "sinks:\n  again: { input: r, topic: late, key: [k], format: { type: json } }\n")
}

#[test]
fn a_source_is_not_idle_while_its_rows_are_due_by_the_clock() {
    let (cluster, stores) = (Cluster::default(), MemoryStores::new());
    let spec = TaskSpec { idle_timeout_ms: Some(TIMEOUT_MS), ..task_spec(0) };
    let mut task = task_of(&cluster, &stores, spec, by_the_clock).unwrap();
    task.tell_time(5_000);
    processed(&cluster, &mut task, 1_000);
    sent(&cluster, &mut task, 5_000);
    let is_idle = |task: &mut Task, now_ms| {
        task.source_drained(true, now_ms);
        task.looked(true, now_ms);
        task.source_drained(true, now_ms);
        task.is_idle() == Some(true)
    };
    assert!(!is_idle(&mut task, 5_000) && !is_idle(&mut task, 9_000), "a row of the window is to come");
    task.tell_time(10_000);
    assert_eq!(task.run(10).unwrap(), 0);
    let blocks = sent(&cluster, &mut task, 10_000);
    assert_eq!(blocks.iter().map(|block| block.rows).sum::<u32>(), 1);
    assert!(!is_idle(&mut task, 10_000) && is_idle(&mut task, 11_000));
}

/// Those that are aligned with its source get no rows: they wait only while it has something to read.
#[test]
fn what_is_due_by_the_clock_holds_up_no_aligned_partition() {
    let (cluster, stores) = (Cluster::default(), MemoryStores::new());
    let alignment = Some(Alignment { group: "g".into(), max_drift_ms: 0 });
    let spec = TaskSpec { idle_timeout_ms: Some(TIMEOUT_MS), alignment, ..task_spec(0) };
    let mut task = task_of(&cluster, &stores, spec, by_the_clock).unwrap();
    task.tell_time(5_000);
    processed(&cluster, &mut task, 1_000);
    sent(&cluster, &mut task, 5_000);
    let is_idle = |task: &mut Task, now_ms| {
        task.source_drained(true, now_ms);
        if task.may_be_idle(now_ms) {
            task.looked(true, now_ms);
            task.source_drained(true, now_ms);
        }
        (task.is_idle(), task.standing().map(|standing| standing.idle))
    };
    assert_eq!(is_idle(&mut task, 5_000), (Some(false), Some(false)));
    assert_eq!(is_idle(&mut task, 6_000), (Some(false), Some(true)), "a row of the window is to come");
    task.tell_time(10_000);
    task.run(10).unwrap();
    sent(&cluster, &mut task, 10_000);
    assert_eq!(is_idle(&mut task, 10_000), (Some(false), Some(true)));
    assert_eq!(is_idle(&mut task, 11_000), (Some(true), Some(true)));
}
