//! The coordinator: starts the workers of a process, watches over them, ends the process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::oneshot;

use super::worker::{Parts, StopWorker, Unmarked, WorkerActor};
use super::{Outcome, RunError};
use crate::record::TopicPartition;
use crate::worker::bounded::LOOK_INTERVAL_MS;
use crate::worker::port::LogError;
use crate::worker::{Exit, Rebuilds};

/// How long to wait before a worker whose consumer broke is made anew.
const REBUILD_DELAY: Duration = Duration::from_secs(1);

/// Asks which partitions of a bounded run are not finished yet. Blocks.
pub type Unfinished = Arc<dyn Fn() -> Result<Vec<TopicPartition>, LogError> + Send + Sync>;

/// Makes the parts of the worker of a number.
pub type MakeParts = Box<dyn Fn(usize, Addr<Coordinator>) -> Result<Parts, LogError>>;

/// The actor.
pub struct Coordinator {
    make_parts: MakeParts,
    /// One for each worker.
    arbiters: Vec<ArbiterHandle>,
    workers: BTreeMap<usize, Addr<WorkerActor>>,
    /// The workers that have nothing left to do, each with its sources.
    finished: BTreeMap<usize, Vec<TopicPartition>>,
    rebuilds: BTreeMap<usize, Rebuilds>,
    unfinished: Unfinished,
    /// The cluster is being asked.
    looking: bool,
    next_look: Option<SpawnHandle>,
    /// A worker of it, perhaps one that was replaced, has done something.
    did_something: bool,
    /// There was something to do for others when this process had done its share.
    waited: bool,
    /// Nobody has anything left to do.
    is_over: bool,
    stopping: bool,
    stop_limit: Duration,
    failure: Option<RunError>,
    done: Option<oneshot::Sender<Result<Outcome, RunError>>>,
}

/// Commit, leave the group, end.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Stop;

/// A worker has ended.
#[derive(Message)]
#[rtype(result = "()")]
pub struct WorkerEnded {
    /// Which.
    pub index: usize,
    /// Why.
    pub exit: Exit,
    /// Whether the group has ever told it its partitions.
    pub was_assigned: bool,
}

/// A worker's share of a bounded run, once it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// It has no partitions.
    Nothing,
    /// It was done already when the worker came.
    DoneBefore,
    /// The worker did it, or some of it.
    Done,
}

/// How a worker stands in a bounded run.
#[derive(Message)]
#[rtype(result = "()")]
pub struct WorkerFinished {
    /// Which.
    pub index: usize,
    /// Its share, with the partitions that it has finished; `None` if there is something left to do.
    pub share: Option<(Share, Vec<TopicPartition>)>,
}

/// A worker is to be made anew.
#[derive(Message)]
#[rtype(result = "()")]
struct Rebuild(usize);

impl Coordinator {
    /// Of one worker on each of `arbiters`; tells `done` how it ended. A bounded run ends when nothing is
    /// `unfinished`. A stop takes at most `stop_limit`.
    pub fn new(
        make_parts: MakeParts,
        arbiters: Vec<ArbiterHandle>,
        unfinished: Unfinished,
        stop_limit: Duration,
        done: oneshot::Sender<Result<Outcome, RunError>>,
    ) -> Self {
        Coordinator {
            make_parts,
            arbiters,
            workers: BTreeMap::new(),
            finished: BTreeMap::new(),
            rebuilds: BTreeMap::new(),
            unfinished,
            looking: false,
            next_look: None,
            did_something: false,
            waited: false,
            is_over: false,
            stopping: false,
            stop_limit,
            failure: None,
            done: Some(done),
        }
    }

    fn start_worker(&mut self, index: usize, context: &mut Context<Self>) {
        match (self.make_parts)(index, context.address()) {
            Ok(parts) => {
                let worker = WorkerActor::start_in_arbiter(&self.arbiters[index], move |context| {
                    WorkerActor::new(parts, context)
                });
                self.workers.insert(index, worker);
            }
            Err(error) => self.fail(RunError::Failed(error.to_string()), context),
        }
    }

    fn fail(&mut self, error: RunError, context: &mut Context<Self>) {
        self.failure.get_or_insert(error);
        self.stop(context);
    }

    /// Stops all workers; the process ends when they have, or when time is up.
    fn stop(&mut self, context: &mut Context<Self>) {
        if !self.stopping {
            self.stopping = true;
            for worker in self.workers.values() {
                worker.do_send(StopWorker);
            }
            context.run_later(self.stop_limit, |coordinator, _| {
                tracing::error!(
                    "the workers did not stop in time; what they had not committed is done again"
                );
                coordinator
                    .failure
                    .get_or_insert(RunError::Failed("the workers did not stop in time".into()));
                coordinator.end();
            });
        }
        if self.workers.is_empty() {
            self.end();
        }
    }

    /// Whether none of its own workers has anything left to do.
    fn has_done_its_share(&self) -> bool {
        self.finished.len() == self.arbiters.len()
    }

    /// Whether one of its workers has finished a partition: the mark of a commit is seen only a moment later.
    fn has_finished(&self, partition: &TopicPartition) -> bool {
        self.finished.values().any(|finished| finished.contains(partition))
    }

    /// Asks what is left for anybody to do, once this process has done its share; from then on also while it
    /// has something to do again, since that may be over without it.
    fn look(&mut self, context: &mut Context<Self>) {
        if self.looking || self.stopping || !(self.waited || self.has_done_its_share()) {
            return;
        }
        if let Some(next) = self.next_look.take() {
            context.cancel_future(next);
        }
        self.looking = true;
        let (tell, told) = oneshot::channel();
        let unfinished = self.unfinished.clone();
        // A thread of its own: an answer may take long, and the process ends without it. Nobody listens then.
        let thread = std::thread::Builder::new().name("look".into());
        if let Err(error) = thread.spawn(move || drop(tell.send(unfinished()))) {
            return self.fail(RunError::Failed(format!("no thread to ask the cluster on: {error}")), context);
        }
        context.spawn(told.into_actor(self).map(|looked, coordinator, context| {
            // A panic ends the process in the panic hook, before it could be seen here.
            let Ok(looked) = looked else { return };
            coordinator.looked(looked, context);
        }));
    }

    fn looked(&mut self, looked: Result<Vec<TopicPartition>, LogError>, context: &mut Context<Self>) {
        self.looking = false;
        match looked {
            _ if self.stopping => return,
            // For good, whatever this process has been given meanwhile.
            Ok(unfinished) if unfinished.iter().all(|partition| self.has_finished(partition)) => {
                tracing::info!("the bounded run is finished");
                self.is_over = true;
                return self.stop(context);
            }
            Ok(unfinished) => {
                if self.waited {
                    // What it had just committed the first time has come through by now.
                    self.workers.values().for_each(|worker| worker.do_send(Unmarked(unfinished.clone())));
                } else {
                    self.waited = true;
                    tracing::info!("this process has done its share, and waits until the others have");
                }
            }
            Err(LogError::Stop(message)) => return self.fail(RunError::Failed(message), context),
            Err(error) => tracing::warn!("asking what is finished: {error}"),
        }
        self.next_look = Some(context.run_later(Duration::from_millis(LOOK_INTERVAL_MS), Coordinator::look));
    }

    fn end(&mut self) {
        let ended = if !self.is_over {
            Outcome::Stopped
        } else if self.waited || self.did_something {
            Outcome::Finished
        } else {
            Outcome::AlreadyFinished
        };
        if let Some(done) = self.done.take() {
            // The receiver waits for this as long as the process runs.
            let _gone = done.send(self.failure.take().map_or(Ok(ended), Err));
        }
    }
}

impl Actor for Coordinator {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        for index in 0..self.arbiters.len() {
            self.start_worker(index, context);
        }
    }
}

impl Handler<Stop> for Coordinator {
    type Result = ();

    fn handle(&mut self, _: Stop, context: &mut Self::Context) {
        self.stop(context);
    }
}

impl Handler<WorkerEnded> for Coordinator {
    type Result = ();

    fn handle(&mut self, ended: WorkerEnded, context: &mut Self::Context) {
        self.workers.remove(&ended.index);
        match ended.exit {
            Exit::Stopped => {}
            Exit::Failed(message) => self.fail(RunError::Failed(message), context),
            Exit::Refused(message) => self.fail(RunError::Refused(message), context),
            Exit::Rebuild(message)
                if !self.rebuilds.entry(ended.index).or_default().again(ended.was_assigned) =>
            {
                self.fail(RunError::Failed(message), context);
            }
            Exit::Rebuild(message) => {
                tracing::error!(worker = ended.index, "the consumer is replaced: {message}");
                if !self.stopping {
                    // Nobody knows yet what the group will give to the new one.
                    self.finished.remove(&ended.index);
                    context.notify_later(Rebuild(ended.index), REBUILD_DELAY);
                }
            }
        }
        if self.stopping && self.workers.is_empty() {
            self.end();
        }
    }
}

impl Handler<WorkerFinished> for Coordinator {
    type Result = ();

    fn handle(&mut self, finished: WorkerFinished, context: &mut Self::Context) {
        if self.stopping {
            return;
        }
        match finished.share {
            Some((share, sources)) => {
                self.did_something |= share == Share::Done;
                self.finished.insert(finished.index, sources);
            }
            None => drop(self.finished.remove(&finished.index)),
        }
        self.look(context);
    }
}

impl Handler<Rebuild> for Coordinator {
    type Result = ();

    fn handle(&mut self, rebuild: Rebuild, context: &mut Self::Context) {
        if !self.stopping {
            self.start_worker(rebuild.0, context);
        }
    }
}

#[cfg(test)]
mod tests;
