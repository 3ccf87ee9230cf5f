//! An aggregation in two steps: what the task of the first one sends.

use super::*;
use crate::format::block::{Block, BlockHeader};
use crate::operator::Counters;
use crate::worker::tests::topology::record;

/// One group of all rows.
fn all_rows(text: String) -> String {
    let text = text.replace("per_window", "r").replace("key: [k]", "key: [n]");
    text.replace("key_by: [k]", "key_by: []\n    on_error: skip").replace("    emit: on_update\n", "")
}

/// A task that makes checkpoints only when it is told to.
fn sender(cluster: &Cluster, change: fn(String) -> String) -> Task {
    let limits = TaskLimits { staged_records_max: 1_000, ..limits() };
    let spec = TaskSpec { idle_timeout_ms: Some(1_000), ..task_spec(0) };
    task_within(limits, cluster, &MemoryStores::new(), spec, change).unwrap()
}

fn processed(cluster: &Cluster, task: &mut Task, times_ms: impl Iterator<Item = i64>) {
    times_ms.for_each(|time_ms| cluster.content().append(&source(0), &record("a", 1, time_ms)));
    feed(cluster, task);
    while task.run(1_000).unwrap() > 0 {}
}

fn sent(cluster: &Cluster, task: &mut Task, now_ms: u64) -> (Vec<BlockHeader>, Counters) {
    let Some(transaction) = transaction_at(task, now_ms) else { return Default::default() };
    let offsets = cluster.content().write(0, &transaction);
    cluster.content().end(0, true);
    let counters = task.committed(offsets.first().map_or(&[], Vec::as_slice), now_ms).unwrap();
    let blocks = transaction.outputs.iter().map(|record| record.value.as_deref().unwrap());
    (blocks.map(|block| Block::read(block).unwrap().header).collect(), counters)
}

#[test]
fn a_checkpoint_sends_one_row_for_each_key_and_pane() {
    let cluster = Cluster::default();
    let mut task = sender(&cluster, all_rows);
    processed(&cluster, &mut task, (0..300).map(|number| number * 100));
    let (blocks, counters) = sent(&cluster, &mut task, 0);
    let seen: Vec<_> = blocks.iter().map(|block| (block.rows, block.watermark_ms)).collect();
    assert_eq!(seen, [(3, Some(27_900))], "300 rows lie in three windows of ten seconds");
    assert_eq!(counters.records_in, 300);
    assert!(!task.is_dirty(0) && sent(&cluster, &mut task, 9_999).0.is_empty(), "nothing is left");
}

#[test]
fn no_watermark_overtakes_what_is_held_back() {
    let cluster = Cluster::default();
    let mut task = sender(&cluster, all_rows);
    // More windows than rows fit into a block; the watermark is behind most of them when they are sent.
    processed(&cluster, &mut task, (0..150).map(|number| number * 10_000));
    let (blocks, _) = sent(&cluster, &mut task, 0);
    let seen: Vec<_> = blocks.iter().map(|block| (block.rows, block.watermark_ms)).collect();
    assert_eq!(seen, [(64, None), (64, None), (22, Some(1_488_000))]);
}

#[test]
fn a_task_that_holds_rows_back_is_not_idle() {
    let cluster = Cluster::default();
    let mut task = sender(&cluster, all_rows);
    processed(&cluster, &mut task, [1_000].into_iter());
    let drained = |task: &mut Task, now_ms| {
        task.source_drained(true, now_ms);
        task.may_be_idle(now_ms)
    };
    assert!(!drained(&mut task, 0) && !drained(&mut task, 9_999));
    assert_eq!(sent(&cluster, &mut task, 9_999).0.iter().map(|block| block.rows).sum::<u32>(), 1);
    assert!(!drained(&mut task, 10_000) && drained(&mut task, 11_000), "since the checkpoint");
}

#[test]
fn what_is_held_back_is_bounded() {
    let by_value = |text: String| all_rows(text).replace("key_by: []", "key_by: [v]\n    two_phase: true");
    let cluster = Cluster::default();
    let limits = TaskLimits { staged_records_max: 1_000_000, staged_bytes_max: 50_000, ..limits() };
    let mut task = task_within(limits, &cluster, &MemoryStores::new(), task_spec(0), by_value).unwrap();
    for value in 0..8_191 {
        cluster.content().append(&source(0), &record("a", value, 1_000));
    }
    feed(&cluster, &mut task);
    while task.run(1_000).unwrap() > 0 {}
    assert!(!task.is_full(), "nothing is sent yet");
    cluster.content().append(&source(0), &record("a", 8_191, 1_000));
    feed(&cluster, &mut task);
    assert_eq!(task.run(1_000).unwrap(), 1);
    assert!(task.is_full(), "they have been handed on before the checkpoint");
}

#[test]
fn a_row_that_cannot_be_added_is_refused_where_it_is() {
    let broken = |text: String| all_rows(text).replace("sum(v)", "sum(12 / v)");
    let cluster = Cluster::default();
    let mut task = sender(&cluster, broken);
    cluster.content().append(&source(0), &record("a", 0, 1_000));
    processed(&cluster, &mut task, [2_000].into_iter());
    let (blocks, counters) = sent(&cluster, &mut task, 0);
    assert_eq!(counters.failed.values().sum::<u64>(), 1);
    assert_eq!(blocks.iter().map(|block| block.rows).sum::<u32>(), 1);
}
