//! When a bounded run is over: who may say so, and for how long.

use super::*;

type Ended = oneshot::Receiver<Result<Outcome, RunError>>;

/// Runs `test` with a coordinator of two workers that were never started.
fn with_two_workers(test: impl FnOnce(&mut Coordinator, &mut Ended)) {
    System::new().block_on(async {
        let (done, mut ended) = oneshot::channel();
        let make_parts: MakeParts = Box::new(|_, _| Err(LogError::Stop("no worker is started".into())));
        let arbiters = vec![Arbiter::current(), Arbiter::current()];
        let mut coordinator = Coordinator::new(make_parts, arbiters, Duration::from_secs(60), done);
        test(&mut coordinator, &mut ended);
    });
}

fn tell(coordinator: &mut Coordinator, index: usize, share: Option<Share>) {
    coordinator.handle(WorkerFinished { index, share }, &mut Context::new());
}

#[test]
fn a_bounded_run_is_over_when_all_shares_are_done() {
    for (second, outcome) in [
        (Share::Nothing, Outcome::Finished),
        (Share::DoneBefore, Outcome::Finished),
        (Share::Done, Outcome::Finished),
    ] {
        with_two_workers(|coordinator, ended| {
            tell(coordinator, 0, Some(Share::Done));
            assert!(ended.try_recv().is_err(), "the second worker has not spoken");
            tell(coordinator, 1, Some(second));
            assert_eq!(ended.try_recv(), Ok(Ok(outcome)));
        });
    }
    with_two_workers(|coordinator, ended| {
        tell(coordinator, 0, Some(Share::Nothing));
        tell(coordinator, 1, Some(Share::Nothing));
        assert!(ended.try_recv().is_err(), "whoever has the partitions is not done, perhaps");
        tell(coordinator, 0, Some(Share::DoneBefore));
        assert_eq!(ended.try_recv(), Ok(Ok(Outcome::AlreadyFinished)));
    });
}

#[test]
fn a_share_that_moves_away_is_withdrawn() {
    with_two_workers(|coordinator, ended| {
        tell(coordinator, 0, Some(Share::Done));
        // A rebalance: the first worker gets what the second had begun, and the second nothing.
        tell(coordinator, 0, None);
        tell(coordinator, 1, Some(Share::Nothing));
        assert!(ended.try_recv().is_err(), "the first worker has something to do again");
        tell(coordinator, 0, Some(Share::Done));
        assert_eq!(ended.try_recv(), Ok(Ok(Outcome::Finished)));
    });
}

#[test]
fn a_worker_that_is_made_anew_has_not_done_its_share_yet() {
    with_two_workers(|coordinator, ended| {
        tell(coordinator, 0, Some(Share::Done));
        let broken = WorkerEnded { index: 0, exit: Exit::Rebuild("its consumer broke".into()) };
        coordinator.handle(broken, &mut Context::new());
        // A new worker tells nothing before it is done with what the group gives it.
        tell(coordinator, 1, Some(Share::Done));
        assert!(ended.try_recv().is_err(), "nobody knows what the new worker has to do");
        tell(coordinator, 0, Some(Share::DoneBefore));
        assert_eq!(ended.try_recv(), Ok(Ok(Outcome::Finished)));
    });
}
