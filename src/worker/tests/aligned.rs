//! Partitions that are aligned: who is ahead waits, and nobody waits for ever.

use super::rig::Rig;
use super::topology::{out, record, rekeyed, source, stage};
use crate::record::TopicPartition;
use crate::topology::plan::Alignment;
use crate::worker::alignment::Standing;
use crate::worker::neighbours::Neighbours;
use crate::worker::port::{LogError, LogEvent, SourceOffset};
use crate::worker::{Exit, Job, JobDone, Phase, WorkerSpec};

const DRIFT_MS: i64 = 5_000;
/// How far a watermark stays behind in the topology of the tests.
const BEHIND_MS: i64 = 2_000;
/// A task that begins below its limit takes at most one run of records beyond it.
const RUN_RECORDS_MAX: i64 = 16;

fn align(spec: &mut WorkerSpec) {
    spec.stages[0].alignment = Some(Alignment { group: "g".into(), max_drift_ms: DRIFT_MS });
}

/// A worker that is running on these partitions.
fn running(partitions: &[i32], change: impl FnOnce(&mut WorkerSpec)) -> Rig {
    running_beside(&Neighbours::default(), partitions, change)
}

fn running_beside(neighbours: &Neighbours, partitions: &[i32], change: impl FnOnce(&mut WorkerSpec)) -> Rig {
    let mut rig = Rig::beside(neighbours, |spec| {
        align(spec);
        change(spec);
    });
    rig.assign(1, partitions.iter().copied().map(source).collect());
    rig
}

/// Records of each of these seconds.
fn append(rig: &Rig, partition: i32, seconds: std::ops::Range<i64>) {
    for second in seconds {
        rig.cluster.content().append(&source(partition), &record("a", 1, second * 1_000));
    }
}

/// Another process has come so far with a partition.
fn told(rig: &Rig, partition: i32, watermark_ms: i64, idle: bool) {
    rig.cluster.content().standings.insert(source(partition), Standing { watermark_ms, idle });
}

/// Time passes, and all is done that can be.
fn pass(rig: &mut Rig, ms: u64) {
    for _ in 0..ms / 100 {
        rig.now_ms += 100;
        rig.settle();
    }
}

fn next_offset(rig: &mut Rig, partition: i32) -> i64 {
    let mut tasks = rig.worker.tasks_mut();
    tasks.find(|task| task.spec().source == source(partition)).expect("it is here").next_offset()
}

/// The rows so far, in any order.
fn rows(rig: &Rig) -> Vec<Vec<u8>> {
    let mut rows: Vec<Vec<u8>> =
        rig.cluster.content().committed(&out()).into_iter().map(|(_, row)| row).collect();
    rows.sort();
    rows
}

/// The rows of these records where nobody waits.
fn rows_without(of_0: std::ops::Range<i64>, of_1: std::ops::Range<i64>) -> Vec<Vec<u8>> {
    let mut rig = running(&[0, 1], |spec| spec.stages[0].alignment = None);
    append(&rig, 0, of_0);
    append(&rig, 1, of_1);
    pass(&mut rig, 5_000);
    rows(&rig)
}

fn is_paused(rig: &Rig, partition: i32) -> bool {
    rig.log.consumer().paused.contains(&source(partition))
}

#[test]
fn who_is_ahead_waits_takes_nobodys_place_and_goes_on() {
    let mut rig = running(&[0, 1], |_| ());
    append(&rig, 0, 10..11);
    append(&rig, 1, 100..200);
    pass(&mut rig, 2_000);
    let waited_at = next_offset(&mut rig, 1);
    assert!((1..=RUN_RECORDS_MAX).contains(&waited_at), "{waited_at}");
    assert!(is_paused(&rig, 1) && !is_paused(&rig, 0));
    let waiting: usize = rig.worker.tasks_mut().map(|task| task.queued_records()).sum();
    assert!((1..16).contains(&waiting), "{waiting} wait, with batches of 8");
    // The other one is read as if there were nothing to wait.
    append(&rig, 0, 11..131);
    pass(&mut rig, 3_000);
    assert_eq!(next_offset(&mut rig, 0), 121);
    let at_most = 130 + DRIFT_MS / 1_000 - 100 + 1 + RUN_RECORDS_MAX;
    let went_on_to = next_offset(&mut rig, 1);
    assert!((30..=at_most).contains(&went_on_to), "{went_on_to}, at most {at_most}");
    append(&rig, 0, 131..200);
    pass(&mut rig, 3_000);
    assert_eq!(next_offset(&mut rig, 1), 100);
    assert!(!is_paused(&rig, 1));
    assert_eq!(rows(&rig), rows_without(10..200, 100..200), "nothing is lost, nothing comes twice");
}

#[test]
fn one_waits_for_what_others_have_told() {
    let mut rig = running(&[1], |_| ());
    told(&rig, 0, 10_000, false);
    append(&rig, 1, 100..140);
    pass(&mut rig, 2_000);
    let waited_at = next_offset(&mut rig, 1);
    assert!((1..=RUN_RECORDS_MAX).contains(&waited_at), "{waited_at}");
    let waiting: usize = rig.worker.tasks_mut().map(|task| task.queued_records()).sum();
    assert!((8..16).contains(&waiting), "{waiting} wait, with batches of 8");
    assert!(!is_paused(&rig, 1), "it takes nobody's place");
    told(&rig, 0, 110_000, false);
    // While something waits, others are asked ten times as often.
    pass(&mut rig, 300);
    let went_on_to = next_offset(&mut rig, 1);
    let at_most = 110 + (DRIFT_MS + BEHIND_MS) / 1_000 - 100 + 1 + RUN_RECORDS_MAX;
    assert!(went_on_to > waited_at && went_on_to <= at_most, "{went_on_to}, at most {at_most}");
    told(&rig, 0, 200_000, false);
    pass(&mut rig, 2_000);
    assert_eq!(next_offset(&mut rig, 1), 40);
}

#[test]
fn nobody_waits_for_what_is_idle_empty_or_of_no_group() {
    for others in ["idle", "empty", "of no group"] {
        let mut rig = running(&[1], |_| ());
        match others {
            "idle" => told(&rig, 0, 10_000, true),
            "of no group" => {
                let standing = Standing { watermark_ms: 10_000, idle: false };
                rig.cluster.content().standings.insert(TopicPartition::new("other", 0), standing);
            }
            _ => {}
        }
        append(&rig, 1, 100..140);
        pass(&mut rig, 2_000);
        assert_eq!(next_offset(&mut rig, 1), 40, "{others}");
    }
}

#[test]
fn nothing_is_read_before_the_first_answer_good_or_bad() {
    for answer in [Ok(Vec::new()), Err(LogError::Retry("no coordinator".into()))] {
        let mut rig = running(&[1], |_| ());
        append(&rig, 1, 100..140);
        rig.step();
        let init = rig.take(|job| matches!(job, Job::Init));
        rig.run(init);
        rig.step();
        let restore = rig.take(|job| matches!(job, Job::Restore { .. }));
        rig.run(restore);
        for _ in 0..5 {
            rig.step();
        }
        assert_eq!(next_offset(&mut rig, 1), 0);
        assert_eq!(rig.jobs.iter().filter(|job| matches!(job, Job::Ask { .. })).count(), 1);
        let Job::Ask { epoch, .. } = rig.take(|job| matches!(job, Job::Ask { .. })) else { unreachable!() };
        rig.done(JobDone::Asked { epoch, result: answer });
        rig.settle();
        assert!(next_offset(&mut rig, 1) > 0);
    }
}

#[test]
fn the_last_answer_stands_when_no_other_comes() {
    let mut rig = running(&[1], |_| ());
    told(&rig, 0, 10_000, false);
    append(&rig, 1, 100..140);
    pass(&mut rig, 2_000);
    let waited_at = next_offset(&mut rig, 1);
    for _ in 0..50 {
        rig.now_ms += 1_000;
        rig.step();
        while let Some(at) = rig.jobs.iter().position(|job| !matches!(job, Job::Ask { .. })) {
            let job = rig.jobs.remove(at);
            rig.run(job);
        }
        if !rig.jobs.is_empty() {
            let Job::Ask { epoch, .. } = rig.jobs.remove(0) else { unreachable!() };
            let result = Err(LogError::Retry("no coordinator".into()));
            rig.done(JobDone::Asked { epoch, result });
        }
    }
    assert_eq!((next_offset(&mut rig, 1), &rig.exit), (waited_at, &None));
    told(&rig, 0, 200_000, false);
    pass(&mut rig, 2_000);
    assert_eq!(next_offset(&mut rig, 1), 40);
}

/// The process that had the slowest partition is gone. Somebody gets that.
#[test]
fn the_slowest_partition_of_a_process_that_crashed_is_read_on_by_another() {
    let mut rig = running(&[1], |_| ());
    told(&rig, 0, 10_000, false);
    append(&rig, 0, 10..200);
    append(&rig, 1, 100..200);
    pass(&mut rig, 10_000);
    assert!(next_offset(&mut rig, 1) <= RUN_RECORDS_MAX);
    rig.tell(LogEvent::Revoked);
    rig.assign(2, vec![source(0), source(1)]);
    pass(&mut rig, 10_000);
    assert_eq!((next_offset(&mut rig, 0), next_offset(&mut rig, 1)), (190, 100));
    assert_eq!(rows(&rig), rows_without(10..200, 100..200));
}

/// Steps, without anything that was asked for being done.
fn steps(rig: &mut Rig) {
    (0..20).for_each(|_| rig.step());
}

/// Two workers of one process, each on a cluster of its own: what one commits the other cannot see. The first one has a
/// record of second 10, the second one, which has come as far as it may, has others from second 100 on.
fn neighbours() -> (Rig, Rig) {
    let process = Neighbours::default();
    let mut slow = running_beside(&process, &[0], |_| ());
    append(&slow, 0, 10..11);
    pass(&mut slow, 1_000);
    let mut fast = running_beside(&process, &[1], |_| ());
    append(&fast, 1, 100..140);
    pass(&mut fast, 2_000);
    let waited_at = next_offset(&mut fast, 1);
    assert!((1..=RUN_RECORDS_MAX).contains(&waited_at), "{waited_at}");
    (slow, fast)
}

#[test]
fn workers_of_one_process_know_of_one_another_at_once() {
    let (mut slow, mut fast) = neighbours();
    let (waited_at, now_ms) = (next_offset(&mut fast, 1), fast.now_ms);
    append(&slow, 0, 110..111);
    steps(&mut slow);
    assert!(slow.cluster.content().standings[&source(0)].watermark_ms < 100_000, "it is not committed yet");
    steps(&mut fast);
    let went_on_to = next_offset(&mut fast, 1);
    assert!(went_on_to > waited_at && fast.now_ms == now_ms, "from {waited_at} to {went_on_to}");
    append(&slow, 0, 200..201);
    steps(&mut slow);
    pass(&mut fast, 1_000);
    assert_eq!(next_offset(&mut fast, 1), 40);
}

/// What is committed of a partition, however old, does not count while it is told.
#[test]
fn a_neighbour_knows_better_than_what_is_committed() {
    let (mut slow, mut fast) = neighbours();
    told(&fast, 0, 20_000, false);
    append(&slow, 0, 200..201);
    steps(&mut slow);
    pass(&mut fast, 2_000);
    assert_eq!(next_offset(&mut fast, 1), 40);
    slow.tell(LogEvent::Revoked);
    steps(&mut slow);
    append(&fast, 1, 140..180);
    pass(&mut fast, 2_000);
    assert!(next_offset(&mut fast, 1) <= 40, "and counts again");
}

/// Its partitions go to another process, which has committed nothing here.
#[test]
fn nobody_waits_for_a_neighbour_that_has_no_partitions_any_more() {
    type End = fn(&mut Rig);
    let ends: [(&str, End); 4] = [
        ("revoked", |slow| {
            slow.tell(LogEvent::Revoked);
            steps(slow);
        }),
        ("lost in the middle of a commit", |slow| {
            append(slow, 0, 11..12);
            slow.step();
            slow.now_ms += 1_000;
            slow.step();
            assert_eq!(slow.worker.phase(), Phase::Committing);
            slow.tell(LogEvent::Lost);
            slow.step();
            assert_eq!(slow.worker.phase(), Phase::Committing);
        }),
        ("broken", |slow| {
            slow.log.consumer().fails = Some(LogError::Client("broken".into()));
            slow.step();
            assert!(matches!(slow.exit, Some(Exit::Rebuild(_))));
        }),
        ("stopped", |slow| {
            slow.worker.stop();
            pass(slow, 1_000);
            assert_eq!(slow.exit, Some(Exit::Stopped));
        }),
    ];
    for (how, end) in ends {
        let (mut slow, mut fast) = neighbours();
        end(&mut slow);
        pass(&mut fast, 1_000);
        assert_eq!(next_offset(&mut fast, 1), 40, "{how}");
    }
    let (slow, mut fast) = neighbours();
    drop(slow);
    pass(&mut fast, 1_000);
    assert_eq!(next_offset(&mut fast, 1), 40);
}

/// An answer to a question of before the assignment says nothing of it.
#[test]
fn an_answer_from_before_an_assignment_does_not_count() {
    let mut rig = running(&[1], |_| ());
    append(&rig, 1, 100..140);
    for _ in 0..6 {
        rig.step();
        while let Some(at) = rig.jobs.iter().position(|job| !matches!(job, Job::Ask { .. })) {
            let job = rig.jobs.remove(at);
            rig.run(job);
        }
    }
    let Job::Ask { epoch: before, .. } = rig.take(|job| matches!(job, Job::Ask { .. })) else {
        unreachable!()
    };
    rig.tell(LogEvent::Revoked);
    rig.assign(2, vec![source(1)]);
    for _ in 0..6 {
        rig.step();
        while let Some(at) = rig.jobs.iter().position(|job| !matches!(job, Job::Ask { .. })) {
            let job = rig.jobs.remove(at);
            rig.run(job);
        }
    }
    assert!(rig.jobs.is_empty(), "one question at a time");
    rig.done(JobDone::Asked { epoch: before, result: Ok(Vec::new()) });
    steps(&mut rig);
    assert_eq!(next_offset(&mut rig, 1), 0);
    told(&rig, 0, 10_000, false);
    rig.settle();
    assert!((1..=RUN_RECORDS_MAX).contains(&next_offset(&mut rig, 1)));
}

/// What the next commit says of the partitions.
fn commit(rig: &mut Rig) -> Vec<SourceOffset> {
    rig.step();
    rig.now_ms += 1_000;
    rig.step();
    let job = rig.commit_job();
    let Job::Commit { transaction, .. } = &job else { unreachable!() };
    let offsets = transaction.offsets.clone();
    rig.run(job);
    offsets
}

#[test]
fn a_commit_tells_how_far_a_partition_is_and_that_it_is_idle() {
    let mut rig = running(&[1], |spec| spec.stages[0].idle_timeout_ms = Some(3_000));
    rig.settle();
    append(&rig, 1, 100..101);
    let offsets = commit(&mut rig);
    let standing = |idle| Some(Standing { watermark_ms: 98_000, idle });
    assert_eq!(offsets, [SourceOffset { standing: standing(false), ..(source(1), 1).into() }]);
    pass(&mut rig, 2_000);
    assert_eq!(rig.cluster.content().standings.get(&source(1)).copied(), standing(false));
    pass(&mut rig, 3_000);
    assert_eq!(rig.cluster.content().standings.get(&source(1)).copied(), standing(true));
    append(&rig, 1, 101..102);
    pass(&mut rig, 1_000);
    let again = Some(Standing { watermark_ms: 99_000, idle: false });
    assert_eq!(rig.cluster.content().standings.get(&source(1)).copied(), again);
}

#[test]
fn who_is_held_back_is_not_idle_however_long_that_takes() {
    let mut rig = running(&[1], |spec| spec.stages[0].idle_timeout_ms = Some(3_000));
    told(&rig, 0, 10_000, false);
    append(&rig, 1, 100..101);
    pass(&mut rig, 20_000);
    let standing = |rig: &Rig| rig.cluster.content().standings.get(&source(1)).copied();
    assert_eq!(next_offset(&mut rig, 1), 1, "all that there is was read");
    assert_eq!(standing(&rig).map(|standing| standing.idle), Some(false));
    told(&rig, 0, 100_000, false);
    pass(&mut rig, 2_000);
    assert_eq!(standing(&rig).map(|standing| standing.idle), Some(false), "the time begins only now");
    pass(&mut rig, 4_000);
    assert_eq!(standing(&rig).map(|standing| standing.idle), Some(true));
}

#[test]
fn a_restored_task_tells_how_far_it_is_once() {
    let mut rig = running(&[1], |_| ());
    append(&rig, 1, 100..101);
    pass(&mut rig, 1_000);
    rig.tell(LogEvent::Revoked);
    rig.assign(2, vec![source(1)]);
    rig.cluster.content().standings.clear();
    pass(&mut rig, 1_000);
    let told = Standing { watermark_ms: 98_000, idle: false };
    assert_eq!(rig.cluster.content().standings.get(&source(1)), Some(&told));
    rig.now_ms += 10_000;
    rig.step();
    assert!(!rig.jobs.iter().any(|job| matches!(job, Job::Commit { .. })), "there is nothing new");
}

/// A stage without state restores no watermark, and somebody may be waiting for the one that its partition had.
#[test]
fn a_task_without_state_goes_on_from_what_its_partition_had_committed() {
    let mut rig = running(&[1], |spec| {
        let (operators, pipelines) = stage(rekeyed);
        let stage = &mut spec.stages[0];
        (stage.operators, stage.pipelines, stage.changelog) = (operators, pipelines, None);
        stage.idle_timeout_ms = Some(3_000);
    });
    told(&rig, 1, 50_000, false);
    pass(&mut rig, 1_000);
    let standing = |rig: &Rig| rig.cluster.content().standings.get(&source(1)).copied();
    assert_eq!(standing(&rig), Some(Standing { watermark_ms: 50_000, idle: false }));
    pass(&mut rig, 6_000);
    assert_eq!(standing(&rig), Some(Standing { watermark_ms: 50_000, idle: true }));
    append(&rig, 1, 40..41);
    pass(&mut rig, 1_000);
    assert_eq!(standing(&rig), Some(Standing { watermark_ms: 38_000, idle: false }));
}

#[test]
fn a_bounded_run_ends_whoever_waited() {
    let mut rig = running(&[0, 1], |spec| spec.bounded = true);
    append(&rig, 0, 10..12);
    append(&rig, 1, 100..140);
    pass(&mut rig, 5_000);
    assert!(rig.worker.is_finished());
    assert!(rig.cluster.content().standings.is_empty(), "nobody waits for those that are done");
}

#[test]
fn without_alignment_nobody_asks_or_tells() {
    let mut rig = Rig::running(|_| ());
    rig.append(1);
    rig.step();
    let offsets = commit(&mut rig);
    assert_eq!(offsets, [(source(0), 1).into()]);
    rig.now_ms += 10_000;
    rig.step();
    assert!(!rig.jobs.iter().any(|job| matches!(job, Job::Ask { .. })));
}
