//! Single behaviours of the worker, step by step.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::cluster::Fate;
use super::topology::{record, source, stage};
use crate::state::apply::ApplyError;
use crate::state::store::StoreError;
use crate::task::{RestoreError, TaskId, TaskLimits, restore};
use crate::worker::port::{CommitError, LogError, LogEvent, Member};
use crate::worker::{Exit, Job, JobDone, Phase, WorkerEvent};

use super::rig::{Host, Rig};
fn corrupt() -> Result<crate::task::Flushed, ApplyError> {
    Err(ApplyError::Store(StoreError::Corrupt("a bad block".into())))
}

#[test]
fn it_starts_with_a_producer_then_restores_then_reads() {
    let mut rig = Rig::new(|_| ());
    rig.step();
    rig.step();
    assert_eq!((rig.worker.phase(), rig.jobs.len()), (Phase::Starting, 1));
    rig.assign(1, vec![source(0), source(1)]);
    rig.step();
    assert_eq!(rig.worker.phase(), Phase::Starting);
    let init = rig.take(|job| matches!(job, Job::Init));
    rig.done(JobDone::Init(Err(LogError::Retry("no broker".into()))));
    drop(init);
    rig.step();
    assert!(rig.jobs.is_empty(), "not at once");
    rig.now_ms += 500;
    rig.step();
    let init = rig.take(|job| matches!(job, Job::Init));
    rig.run(init);
    assert_eq!(rig.worker.phase(), Phase::Restoring);
    for partition in 0..2 {
        rig.step();
        rig.step();
        assert_eq!(rig.jobs.len(), 1, "one restore at a time");
        assert_eq!(rig.worker.tasks_mut().count(), 0);
        let job = rig.take(|job| matches!(job, Job::Restore { .. }));
        assert!(matches!(&job, Job::Restore { request, .. } if request.spec.source == source(partition)));
        rig.run(job);
    }
    assert_eq!(rig.log.consumer().positions.len(), 0);
    rig.step();
    assert_eq!(rig.worker.phase(), Phase::Running);
    assert_eq!(rig.log.consumer().positions.len(), 2);
}

#[test]
fn it_commits_under_the_member_of_its_assignment() {
    let mut rig = Rig::committing();
    // The group has gone on; the worker has not heard of it.
    rig.cluster.content().members = vec![Member { generation: 2, id: "me".into() }];
    let job = rig.commit_job();
    assert!(matches!(&job, Job::Commit { member, .. } if member.generation == 1));
    rig.run(job);
    assert!(rig.saw(|event| matches!(event, WorkerEvent::Fenced(_))));
    assert_eq!((rig.worker.phase(), rig.rows()), (Phase::Starting, 0));
}

#[test]
fn a_revocation_during_a_commit_is_answered_after_it() {
    for fate in [Fate::Good, Fate::FailsBefore, Fate::FailsAfter] {
        for event in [LogEvent::Revoked, LogEvent::Lost] {
            let mut rig = Rig::committing();
            rig.log.consumer().committing = true;
            rig.tell(event);
            rig.step();
            rig.step();
            assert_eq!((rig.worker.phase(), rig.log.consumer().released), (Phase::Committing, 0));
            let job = rig.commit_job();
            rig.producer.fate = fate;
            rig.log.consumer().committing = false;
            rig.run(job);
            assert_eq!(rig.log.consumer().released, 1);
            let phase = if fate == Fate::Good { Phase::Idle } else { Phase::Starting };
            assert_eq!((rig.worker.phase(), rig.worker.tasks_mut().count()), (phase, 0));
            rig.assign(2, vec![source(0)]);
            rig.settle();
            rig.now_ms += 1_000;
            rig.settle();
            assert_eq!((rig.worker.phase(), rig.rows()), (Phase::Running, 1), "{fate:?}");
        }
    }
}

#[test]
fn lost_partitions_are_dropped_with_what_was_read() {
    for event in [LogEvent::Revoked, LogEvent::Lost] {
        let mut rig = Rig::running(|_| ());
        rig.append(1);
        rig.step();
        let lost = matches!(event, LogEvent::Lost);
        rig.tell(event);
        rig.now_ms += 1_000;
        rig.step();
        assert_eq!((rig.worker.phase(), rig.log.consumer().released), (Phase::Idle, 1));
        assert!(!rig.jobs.iter().any(|job| matches!(job, Job::Commit { .. })));
        assert_eq!(rig.saw(|event| matches!(event, WorkerEvent::Fenced(_))), lost);
        rig.step();
        assert_eq!((rig.worker.phase(), rig.worker.sources().len()), (Phase::Idle, 0));
    }
}

#[test]
fn what_was_queued_before_a_rebalance_is_not_processed_after_it() {
    let mut rig = Rig::running(|spec| spec.batch_records_max = 8);
    for value in 0..6 {
        rig.append(value);
    }
    rig.step();
    assert!(rig.worker.tasks_mut().any(|task| task.queued_records() > 0));
    rig.tell(LogEvent::Revoked);
    rig.assign(2, vec![source(0)]);
    rig.settle();
    rig.now_ms += 1_000;
    rig.settle();
    rig.now_ms += 1_000;
    rig.settle();
    assert_eq!(rig.rows(), 6);
}

#[test]
fn a_doubt_drops_everything_and_restores() {
    for fate in [Fate::FailsBefore, Fate::StaysOpen, Fate::Prepared, Fate::FailsAfter] {
        let mut rig = Rig::committing();
        let job = rig.commit_job();
        rig.producer.fate = fate;
        rig.run(job);
        assert_eq!((rig.worker.phase(), rig.worker.tasks_mut().count()), (Phase::Starting, 0));
        assert!(rig.saw(|event| matches!(event, WorkerEvent::Aborted(_))));
        assert_eq!(rig.log.consumer().released, 0, "the partitions are kept");
        rig.step();
        let init = rig.take(|job| matches!(job, Job::Init));
        assert!(rig.jobs.is_empty(), "nothing is restored before the producer is new");
        rig.run(init);
        rig.settle();
        rig.now_ms += 1_000;
        rig.settle();
        assert_eq!((rig.worker.phase(), rig.rows()), (Phase::Running, 1), "{fate:?}");
    }
}

#[test]
fn a_commit_that_cannot_succeed_ends_the_process() {
    let mut rig = Rig::committing();
    rig.done(JobDone::Committed(Err(CommitError::Stop("too large".into()))));
    assert_eq!(rig.exit, Some(Exit::Failed("too large".into())));
}

#[test]
fn the_restore_of_an_old_assignment_is_called_off_and_dropped() {
    let mut rig = Rig::new(|_| ());
    rig.assign(1, vec![source(0)]);
    rig.step();
    let init = rig.take(|job| matches!(job, Job::Init));
    rig.run(init);
    rig.step();
    let Job::Restore { epoch, request, cancelled } = rig.take(|job| matches!(job, Job::Restore { .. }))
    else {
        unreachable!()
    };
    rig.tell(LogEvent::Revoked);
    rig.assign(2, vec![source(1)]);
    rig.step();
    assert!(cancelled.load(Ordering::Relaxed));
    rig.step();
    assert!(rig.jobs.is_empty(), "the old one is still running");
    let result = restore(&request, &mut rig.cluster, &rig.stores, &Host);
    rig.done(JobDone::Restored { epoch, task: request.spec.id.clone(), result });
    assert!(!rig.saw(|event| matches!(event, WorkerEvent::Restored { .. })));
    rig.settle();
    assert_eq!(rig.worker.sources().into_iter().map(|(_, source)| source).collect::<Vec<_>>(), [source(1)]);
}

/// A worker that has its producer, and restores.
fn restoring() -> Rig {
    let mut rig = Rig::new(|_| ());
    rig.assign(1, vec![source(0)]);
    rig.step();
    let init = rig.take(|job| matches!(job, Job::Init));
    rig.run(init);
    rig
}

/// The next restore fails.
fn fail(rig: &mut Rig, error: RestoreError) {
    rig.step();
    let job = rig.take(|job| matches!(job, Job::Restore { .. }));
    let Job::Restore { epoch, request, .. } = job else { unreachable!() };
    rig.done(JobDone::Restored { epoch, task: request.spec.id.clone(), result: Err(error) });
}

#[test]
fn a_restore_is_tried_again_or_ends_the_process() {
    let mut rig = restoring();
    fail(&mut rig, RestoreError::Retry("no broker".into()));
    rig.step();
    assert!(rig.jobs.is_empty(), "not at once");
    rig.now_ms += 500;
    fail(&mut rig, RestoreError::Broken("gone".into()));
    assert_eq!(rig.exit.take(), Some(Exit::Rebuild("gone".into())));
    fail(&mut rig, RestoreError::Refused("offsets".into()));
    assert_eq!(rig.exit, Some(Exit::Failed("offsets".into())));
    assert!(!rig.log.consumer().left, "it may be started again, and keeps its name");
}

#[test]
fn a_worker_that_is_refused_leaves_its_group() {
    let mut rig = restoring();
    fail(&mut rig, RestoreError::Changed("another window".into()));
    assert_eq!(rig.exit, Some(Exit::Refused("another window".into())));
    assert!(rig.log.consumer().left, "nobody starts it again as it is");
}

#[test]
fn a_restore_whose_client_is_broken_asks_for_a_new_worker() {
    for name in ["committed", "high watermark", "last stable", "log start", "read"] {
        let mut rig = Rig::committing();
        let job = rig.commit_job();
        rig.run(job);
        rig.tell(LogEvent::Revoked);
        rig.assign(2, vec![source(0)]);
        rig.cluster.content().fails = Some((name, LogError::Client("gone".into())));
        rig.settle();
        assert_eq!(rig.exit, Some(Exit::Rebuild("gone".into())), "{name}");
    }
}

#[test]
fn a_stop_commits_then_leaves_then_flushes() {
    let mut rig = Rig::running(|_| ());
    rig.append(1);
    rig.step();
    rig.worker.stop();
    rig.step();
    assert_eq!((rig.worker.phase(), rig.log.consumer().left), (Phase::Committing, false));
    rig.step();
    assert_eq!(rig.worker.phase(), Phase::Committing);
    let job = rig.commit_job();
    rig.run(job);
    rig.step();
    assert_eq!((rig.worker.phase(), rig.log.consumer().left), (Phase::Leaving, true));
    rig.step();
    assert!(rig.exit.is_none(), "the flush is running");
    let job = rig.take(|job| matches!(job, Job::Flush { .. }));
    rig.run(job);
    rig.step();
    assert_eq!((rig.exit.clone(), rig.rows()), (Some(Exit::Stopped), 1));
    assert_eq!(rig.worker.phase(), Phase::Stopped);
    let restored = crate::task::tests::restored(&rig.cluster, &rig.stores);
    assert_eq!(restored.records_read, 0, "the store holds everything");
}

#[test]
fn a_stop_ends_every_phase() {
    let mut starting = Rig::new(|_| ());
    starting.step();
    let mut idle = Rig::new(|_| ());
    idle.settle();
    let mut restoring = Rig::new(|_| ());
    restoring.assign(1, vec![source(0)]);
    restoring.step();
    let init = restoring.take(|job| matches!(job, Job::Init));
    restoring.run(init);
    restoring.step();
    let mut doubtful = Rig::committing();
    doubtful.producer.fate = Fate::FailsBefore;
    let phases = [Phase::Starting, Phase::Idle, Phase::Restoring, Phase::Committing];
    for (mut rig, phase) in [starting, idle, restoring, doubtful].into_iter().zip(phases) {
        assert_eq!(rig.worker.phase(), phase);
        rig.worker.stop();
        rig.settle();
        assert_eq!(rig.exit, Some(Exit::Stopped), "{phase:?}");
    }
}

#[test]
fn a_worker_that_cannot_leave_ends_all_the_same() {
    for error in [
        LogError::Retry("slow".into()),
        LogError::Client("gone".into()),
        LogError::Fenced("another".into()),
        LogError::Stop("no right".into()),
    ] {
        let mut rig = flushing();
        rig.jobs.clear();
        rig.append(2);
        rig.step();
        rig.worker.stop();
        rig.step();
        let job = rig.commit_job();
        rig.run(job);
        rig.log.consumer().leave_fails = Some(error.clone());
        rig.step();
        assert_eq!((rig.worker.phase(), rig.log.consumer().left), (Phase::Leaving, true), "{error:?}");
        assert_eq!(rig.exit, None, "what is committed is being flushed");
        // A consumer that could not leave is not asked any more.
        rig.log.consumer().fails = Some(LogError::Client("closed".into()));
        rig.tell(LogEvent::Lost);
        rig.step();
        assert_eq!((rig.worker.phase(), rig.exit.clone()), (Phase::Leaving, None), "{error:?}");
        rig.jobs.clear();
        let task = TaskId { stage: "in".into(), partition: 0 };
        rig.done(JobDone::Flushed { epoch: 0, task, result: corrupt() });
        rig.step();
        assert_eq!(
            (rig.worker.phase(), rig.exit.clone()),
            (Phase::Stopped, Some(Exit::Stopped)),
            "{error:?}"
        );
        assert_eq!(rig.rows(), 2);
    }
}

#[test]
fn a_failing_record_ends_the_process() {
    let mut rig = Rig::running(|_| ());
    rig.cluster.content().append(&source(0), b"no json");
    rig.step();
    assert!(matches!(&rig.exit, Some(Exit::Failed(_))), "{:?}", rig.exit);
}

/// Something is committed and its flush asked for.
fn flushing() -> Rig {
    let mut rig = Rig::committing();
    let job = rig.commit_job();
    rig.run(job);
    rig.now_ms += 400;
    rig.step();
    rig
}

#[test]
fn a_store_that_is_found_corrupt_is_restored() {
    let mut rig = flushing();
    let (epoch, task) = rig.flush_job();
    rig.done(JobDone::Flushed { epoch, task, result: corrupt() });
    assert_eq!(rig.worker.phase(), Phase::Starting);
    rig.step();
    let init = rig.take(|job| matches!(job, Job::Init));
    rig.run(init);
    rig.step();
    let restore = rig.take(|job| matches!(job, Job::Restore { .. }));
    assert!(
        matches!(&restore, Job::Restore { request, .. } if request.corrupt.as_deref() == Some("a bad block"))
    );
    rig.run(restore);
    rig.append(2);
    rig.settle();
    rig.now_ms += 1_000;
    rig.settle();
    assert_eq!((rig.worker.phase(), rig.rows()), (Phase::Running, 2));
}

#[test]
fn a_store_found_corrupt_during_a_commit_is_restored_after_it() {
    let mut rig = flushing();
    let (epoch, task) = rig.flush_job();
    rig.append(2);
    rig.step();
    rig.now_ms += 1_000;
    rig.step();
    rig.done(JobDone::Flushed { epoch, task, result: corrupt() });
    assert_eq!(rig.worker.phase(), Phase::Committing);
    let job = rig.commit_job();
    rig.run(job);
    assert_eq!((rig.worker.phase(), rig.rows()), (Phase::Starting, 2));
}

#[test]
fn a_corrupt_store_of_a_task_that_went_elsewhere_hinders_nobody() {
    let mut rig = flushing();
    let (epoch, task) = rig.flush_job();
    rig.append(2);
    rig.step();
    rig.now_ms += 1_000;
    rig.step();
    rig.done(JobDone::Flushed { epoch, task, result: corrupt() });
    rig.tell(LogEvent::Revoked);
    rig.step();
    let job = rig.commit_job();
    rig.run(job);
    assert_eq!(rig.worker.phase(), Phase::Idle);
    rig.assign(2, vec![source(1)]);
    rig.settle();
    rig.events.clear();
    rig.cluster.content().append(&source(1), &record("b", 1, 1_000));
    rig.settle();
    rig.now_ms += 1_000;
    rig.settle();
    assert!(rig.saw(|event| matches!(event, WorkerEvent::Committed { .. })));
    assert!(!rig.saw(|event| matches!(event, WorkerEvent::Aborted(_))), "{:?}", rig.events);
    // When it comes back, its store is set aside.
    rig.tell(LogEvent::Revoked);
    rig.assign(3, vec![source(0)]);
    rig.step();
    rig.step();
    let restore = rig.take(|job| matches!(job, Job::Restore { .. }));
    assert!(matches!(&restore, Job::Restore { request, .. } if request.corrupt.is_some()));
}

#[test]
fn a_disk_that_refuses_ends_the_process() {
    let mut rig = flushing();
    let (epoch, task) = rig.flush_job();
    let result = Err(ApplyError::Store(StoreError::Io("no space left".into())));
    rig.done(JobDone::Flushed { epoch, task, result });
    assert_eq!(rig.exit, Some(Exit::Failed("no space left".into())));
}

#[test]
fn the_flush_of_an_old_assignment_is_ignored() {
    let mut rig = flushing();
    let (epoch, task) = rig.flush_job();
    rig.tell(LogEvent::Revoked);
    rig.assign(2, vec![source(0)]);
    rig.step();
    rig.done(JobDone::Flushed { epoch, task, result: corrupt() });
    assert_eq!(rig.worker.phase(), Phase::Restoring);
    rig.settle();
    assert_eq!(rig.worker.phase(), Phase::Running);
}

#[test]
fn a_late_answer_of_an_old_flush_changes_nothing() {
    let mut rig = flushing();
    let Job::Flush { epoch, task, job } = rig.take(|job| matches!(job, Job::Flush { .. })) else {
        unreachable!()
    };
    let old = JobDone::Flushed { epoch, task, result: job.run(&|| ()) };
    rig.tell(LogEvent::Revoked);
    rig.assign(2, vec![source(0)]);
    rig.append(2);
    rig.settle();
    rig.now_ms += 1_000;
    rig.settle();
    let flushed = |rig: &mut Rig| rig.worker.tasks_mut().next().unwrap().changelog_offsets().unwrap().1;
    let before = flushed(&mut rig);
    rig.done(old);
    assert_eq!(flushed(&mut rig), before);
}

#[test]
fn too_many_recoveries_in_a_row_end_the_process() {
    let mut rig = Rig::running(|_| ());
    rig.append(1);
    for recovery in 1..=21 {
        rig.producer.fate = Fate::FailsBefore;
        rig.settle();
        rig.now_ms += 1_000;
        assert!(rig.exit.is_none(), "recovery {recovery}");
        rig.step();
        let job = rig.commit_job();
        rig.run(job);
        if recovery == 10 {
            // A success in between starts the count again.
            rig.settle();
            rig.now_ms += 1_000;
            rig.settle();
            rig.append(2);
            rig.settle();
        }
    }
    assert!(rig.exit.is_none(), "{:?}", rig.exit);
    for _ in 12..=21 {
        rig.producer.fate = Fate::FailsBefore;
        rig.settle();
        rig.now_ms += 1_000;
        rig.step();
        let job = rig.commit_job();
        rig.run(job);
    }
    assert!(matches!(&rig.exit, Some(Exit::Failed(why)) if why.contains("20 times")), "{:?}", rig.exit);
}

#[test]
fn nothing_is_read_while_too_much_is_pinned() {
    let mut rig = Rig::running(|spec| spec.pinned_bytes_max = 1);
    rig.append(1);
    rig.step();
    let fetches = rig.log.consumer().fetches;
    rig.append(2);
    rig.step();
    assert_eq!(rig.log.consumer().fetches, fetches);
    // The commit does not wait for its interval: only what is committed can be flushed.
    let job = rig.commit_job();
    rig.run(job);
    rig.step();
    assert_eq!(rig.log.consumer().fetches, fetches);
    let job = rig.take(|job| matches!(job, Job::Flush { .. }));
    rig.run(job);
    rig.step();
    assert!(rig.log.consumer().fetches > fetches);
}

#[test]
fn much_changed_state_is_committed_before_its_time() {
    // Rows are made when windows close: nothing but the state grows.
    let (operators, pipelines) = stage(|text| text.replace("on_update", "on_close"));
    let mut rig = Rig::running(|spec| {
        spec.commit_interval_ms = 1_000_000;
        spec.limits = TaskLimits { staged_bytes_max: 4_096, ..spec.limits.clone() };
        (spec.stages[0].operators, spec.stages[0].pipelines) = (operators, pipelines);
    });
    let mut committed_at = 0;
    for number in 1..=100 {
        rig.cluster.content().append(&source(0), &record(&format!("key {number}"), 1, 1_000));
        rig.step();
        let dirty: usize = rig.worker.tasks_mut().map(|task| task.memory().dirty).sum();
        assert!(dirty < 2 * 4_096, "{dirty} bytes are changed and not committed");
        if rig.worker.phase() == Phase::Committing {
            committed_at = number;
            break;
        }
    }
    assert!(committed_at > 10, "a little is not worth a commit: {committed_at}");
    let job = rig.commit_job();
    rig.run(job);
    rig.step();
    assert_eq!(rig.worker.phase(), Phase::Running, "what is committed is not changed any more");
}

#[test]
fn a_worker_whose_partitions_move_is_not_finished_any_more() {
    let mut rig = Rig::running(|spec| spec.bounded = true);
    rig.now_ms += 1_000;
    rig.settle();
    assert!(rig.worker.is_finished(), "its partition is empty");
    rig.tell(LogEvent::Revoked);
    rig.step();
    assert!(!rig.worker.is_finished(), "it has no partition, and does not know who has which");
    rig.cluster.content().append(&source(1), &record("a", 1, 1_000));
    rig.assign(2, vec![source(1)]);
    for _ in 0..3 {
        assert!(!rig.worker.is_finished(), "another partition, another end");
        rig.step();
    }
    rig.settle();
    for _ in 0..3 {
        rig.now_ms += 1_000;
        rig.settle();
    }
    assert!(rig.worker.is_finished());
    assert_eq!(rig.rows(), 2);
}

#[test]
fn a_bounded_run_is_finished_when_that_is_committed() {
    let mut rig = Rig::new(|spec| spec.bounded = true);
    rig.append(1);
    rig.cluster.content().append_marker(&source(0));
    rig.assign(1, vec![source(0), source(1)]);
    rig.settle();
    assert!(!rig.worker.is_finished());
    rig.append(2);
    for _ in 0..4 {
        rig.now_ms += 1_000;
        rig.settle();
    }
    assert!(rig.worker.is_finished());
    assert_eq!(rig.rows(), 2, "an update and the last row; the second record came too late");
    rig.tell(LogEvent::Revoked);
    rig.assign(2, vec![source(0), source(1)]);
    rig.settle();
    assert!(rig.worker.is_finished(), "a new assignment finds it finished");

    rig.worker.mark_again(&[source(1)]);
    assert!(!rig.worker.is_finished());
    rig.now_ms += 1_000;
    rig.step();
    let marks = rig.take(|job| matches!(job, Job::Commit { .. }));
    let Job::Commit { transaction, .. } = &marks else { unreachable!() };
    let sent = transaction.offsets.iter().map(|offset| (offset.partition.clone(), offset.finished));
    assert_eq!(sent.collect::<Vec<_>>(), [(source(1), true)]);
    rig.run(marks);
    assert!(rig.worker.is_finished());
}

#[test]
fn a_log_that_is_broken_asks_for_a_new_worker() {
    let mut rig = Rig::running(|_| ());
    rig.log.consumer().fails = Some(LogError::Client("gone".into()));
    rig.step();
    assert_eq!(rig.exit.take(), Some(Exit::Rebuild("gone".into())));
    rig.log.consumer().fails = Some(LogError::Retry("slow".into()));
    rig.step();
    assert_eq!(rig.exit, None);
    rig.log.consumer().fails = Some(LogError::Stop("no right".into()));
    rig.step();
    assert_eq!(rig.exit, Some(Exit::Failed("no right".into())));
}

/// A worker that is none any more may hear that its repartition topic was cut before it hears of its successor.
#[test]
fn records_that_are_gone_start_the_reader_of_a_repartition_topic_over() {
    let gone = || Some(LogError::OutOfRange("cut".into()));
    let mut rig = Rig::running(|spec| spec.stages[0].repartitioned_by = Some("v: int".into()));
    rig.log.consumer().fetch_fails = gone();
    rig.step();
    assert_eq!((&rig.exit, rig.worker.phase()), (&None, Phase::Starting));
    rig.settle();
    assert_eq!(rig.worker.phase(), Phase::Running);

    let mut rig = Rig::running(|_| ());
    rig.log.consumer().fetch_fails = gone();
    rig.step();
    assert_eq!(rig.exit, Some(Exit::Failed("cut".into())), "nobody should have deleted what was not read");
}

#[test]
fn an_exit_calls_off_what_is_running() {
    let mut rig = Rig::new(|_| ());
    rig.assign(1, vec![source(0)]);
    rig.step();
    let init = rig.take(|job| matches!(job, Job::Init));
    rig.run(init);
    rig.step();
    let cancelled: Arc<AtomicBool> = match rig.take(|job| matches!(job, Job::Restore { .. })) {
        Job::Restore { cancelled, .. } => cancelled,
        _ => unreachable!(),
    };
    assert!(!cancelled.load(Ordering::Relaxed));
    rig.log.consumer().fails = Some(LogError::Stop("no right".into()));
    rig.step();
    assert!(cancelled.load(Ordering::Relaxed));
}

#[test]
fn a_checkpoint_that_was_due_with_nothing_to_commit_is_told() {
    let mut rig = Rig::running(|_| ());
    rig.events.clear();
    rig.step();
    assert!(!rig.saw(|event| matches!(event, WorkerEvent::NothingToCommit)), "it is not due yet");
    rig.now_ms += 1_000;
    rig.step();
    assert!(rig.saw(|event| matches!(event, WorkerEvent::NothingToCommit)));
    assert_eq!(rig.worker.phase(), Phase::Running);
}

#[test]
fn what_is_queued_waits_as_well_while_too_much_is_pinned() {
    fn queued(rig: &mut Rig) -> usize {
        rig.worker.tasks_mut().map(|task| task.queued_records()).sum()
    }
    let mut rig = Rig::running(|spec| spec.pinned_bytes_max = 1);
    (1..=8).for_each(|value| rig.append(value));
    rig.step();
    let left = queued(&mut rig);
    assert!(left > 0, "a checkpoint is full before all records are processed");
    rig.step();
    let job = rig.commit_job();
    rig.run(job);
    rig.step();
    assert_eq!(queued(&mut rig), left, "what is committed is pinned until it is in the store");
    let job = rig.take(|job| matches!(job, Job::Flush { .. }));
    rig.run(job);
    rig.step();
    assert!(queued(&mut rig) < left);
}
