//! When a bounded run is over: who may say so, and for how long.

use super::*;

type Ended = oneshot::Receiver<Result<Outcome, RunError>>;

/// Runs `test` with a coordinator of two workers that were never started.
fn with_two_workers(test: impl FnOnce(&mut Coordinator, &mut Ended)) {
    System::new().block_on(async {
        let (done, mut ended) = oneshot::channel();
        let make_parts: MakeParts = Box::new(|_, _| Err(LogError::Stop("no worker is started".into())));
        let arbiters = vec![Arbiter::current(), Arbiter::current()];
        let nobody_asked: Unfinished = Arc::new(|| Err(LogError::Retry("the test answers itself".into())));
        let limit = Duration::from_secs(60);
        let mut coordinator = Coordinator::new(make_parts, arbiters, nobody_asked, limit, done);
        test(&mut coordinator, &mut ended);
    });
}

/// A worker tells its share; worker 0 has the partition 10 and worker 1 the partition 11.
fn tell(coordinator: &mut Coordinator, index: usize, share: Option<Share>) {
    let source = TopicPartition::new("t", 10 + i32::try_from(index).unwrap());
    let share = share.map(|share| (share, vec![source]));
    coordinator.handle(WorkerFinished { index, share }, &mut Context::new());
}

/// The answer to a look at the cluster comes: so many partitions are not finished.
fn answer(coordinator: &mut Coordinator, unfinished: i32) {
    let unfinished = (0..unfinished).map(|partition| TopicPartition::new("t", partition)).collect();
    coordinator.looked(Ok(unfinished), &mut Context::new());
}

#[test]
fn a_bounded_run_is_over_when_all_workers_and_all_other_processes_are_done() {
    for second in [Share::Nothing, Share::DoneBefore, Share::Done] {
        with_two_workers(|coordinator, ended| {
            tell(coordinator, 0, Some(Share::Done));
            assert!(!coordinator.looking, "the second worker has not spoken");
            tell(coordinator, 1, Some(second));
            assert!(coordinator.looking);
            answer(coordinator, 2);
            assert!(ended.try_recv().is_err(), "another process has something to do");
            // The marks of the last commits are not seen yet.
            coordinator.looked(Ok(vec![TopicPartition::new("t", 10)]), &mut Context::new());
            assert_eq!(ended.try_recv(), Ok(Ok(Outcome::Finished)));
        });
    }
}

#[test]
fn a_run_that_was_over_when_the_process_came_was_finished_before() {
    for second in [Share::Nothing, Share::DoneBefore] {
        with_two_workers(|coordinator, ended| {
            tell(coordinator, 0, Some(Share::Nothing));
            tell(coordinator, 1, Some(second));
            answer(coordinator, 0);
            assert_eq!(ended.try_recv(), Ok(Ok(Outcome::AlreadyFinished)));
        });
    }
    with_two_workers(|coordinator, ended| {
        tell(coordinator, 0, Some(Share::Nothing));
        tell(coordinator, 1, Some(Share::Nothing));
        answer(coordinator, 1);
        answer(coordinator, 0);
        assert_eq!(ended.try_recv(), Ok(Ok(Outcome::Finished)), "others finished it meanwhile");
    });
}

#[test]
fn a_cluster_that_does_not_answer_is_asked_again_and_one_that_refuses_ends_the_run() {
    with_two_workers(|coordinator, ended| {
        tell(coordinator, 0, Some(Share::Done));
        tell(coordinator, 1, Some(Share::Done));
        coordinator.looked(Err(LogError::Client("no broker".into())), &mut Context::new());
        assert!(ended.try_recv().is_err() && coordinator.next_look.is_some());
        coordinator.looked(Err(LogError::Stop("no right".into())), &mut Context::new());
        assert_eq!(ended.try_recv(), Ok(Err(RunError::Failed("no right".into()))));
    });
}

#[test]
fn a_share_that_moves_away_is_withdrawn() {
    with_two_workers(|coordinator, ended| {
        tell(coordinator, 0, Some(Share::Done));
        // A rebalance: the first worker gets what the second had begun.
        tell(coordinator, 0, None);
        tell(coordinator, 1, Some(Share::Nothing));
        assert!(!coordinator.looking, "the first worker has something to do again");
        tell(coordinator, 0, Some(Share::Done));
        answer(coordinator, 0);
        assert_eq!(ended.try_recv(), Ok(Ok(Outcome::Finished)));
    });
}

/// Those who end leave their partitions to those who have not heard yet that it is over.
#[test]
fn a_run_that_is_over_is_over_for_a_process_that_was_given_something_meanwhile() {
    with_two_workers(|coordinator, ended| {
        tell(coordinator, 0, Some(Share::Done));
        tell(coordinator, 1, Some(Share::Done));
        answer(coordinator, 1);
        tell(coordinator, 0, None);
        coordinator.look(&mut Context::new());
        assert!(coordinator.looking, "it goes on asking");
        answer(coordinator, 0);
        assert_eq!(ended.try_recv(), Ok(Ok(Outcome::Finished)));
    });
}

#[test]
fn a_worker_that_is_made_anew_has_not_done_its_share_yet() {
    with_two_workers(|coordinator, ended| {
        tell(coordinator, 0, Some(Share::Done));
        let broken =
            WorkerEnded { index: 0, exit: Exit::Rebuild("its consumer broke".into()), was_assigned: true };
        coordinator.handle(broken, &mut Context::new());
        // A new worker tells nothing before it is done with what the group gives it.
        tell(coordinator, 1, Some(Share::Nothing));
        assert!(!coordinator.looking, "nobody knows what the new worker has to do");
        tell(coordinator, 0, Some(Share::DoneBefore));
        answer(coordinator, 0);
        assert_eq!(ended.try_recv(), Ok(Ok(Outcome::Finished)), "the worker that was replaced did it");
    });
}

#[test]
fn a_worker_that_never_gets_partitions_is_made_anew_a_few_times_only() {
    with_two_workers(|coordinator, ended| {
        let mut breaks = 0;
        while !coordinator.stopping {
            let exit = Exit::Rebuild("fenced".into());
            coordinator.handle(WorkerEnded { index: 0, exit, was_assigned: false }, &mut Context::new());
            breaks += 1;
        }
        assert_eq!((breaks, ended.try_recv()), (6, Ok(Err(RunError::Failed("fenced".into())))));
    });
}
