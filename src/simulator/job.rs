//! Jobs as coroutines: where one would block, or has sent a request, others go on.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult, Yielder};

use crate::model::clients::{ModelAdmin, ModelReader, ModelTransactionLog};
use crate::model::link::{Fate, Link};
use crate::model::request::Request;
use crate::simulator::disk::Disk;
use crate::simulator::paths;
use crate::simulator::scenario::CommitPoint;
use crate::simulator::shared::{Shared, give_stack_back, take_stack};
use crate::simulator::trace::Who;
use crate::task::{RestoreHost, TaskId, restore};
use crate::worker::port::{ChangelogReader, CommitError, LogAdmin};
use crate::worker::{Job, JobDone};

/// How long making a producer may take.
const INIT_LIMIT_MS: u64 = 30_000;
/// A job starts late once in so many, and its end is told late: the machine is busy.
const JOBS_PER_FAULT: u64 = 150;
/// So much, at most.
const LATE_MS: u64 = 20_000;

/// The clients of a worker that a job may use. Each is away while one does.
#[derive(Default)]
pub struct Clients {
    /// Of `Init` and `Commit`.
    pub producer: Option<ModelTransactionLog>,
    /// Of `Restore` and `Look`.
    pub reader: Option<ModelReader>,
}

/// A job's end, with what it used.
pub struct Finished {
    /// What the worker hears.
    pub done: JobDone,
    /// To be given back.
    pub clients: Clients,
}

/// A job under way.
pub struct Running {
    /// What it is, for the story.
    pub what: &'static str,
    /// The task whose changes it flushes, if it does.
    pub flushes: Option<TaskId>,
    /// Before this time there is nothing for it to do.
    pub resume_ms: u64,
    coroutine: Coroutine<(), u64, Finished, DefaultStack>,
}

impl Running {
    /// Lets it go on, to its next request or pause.
    pub fn resume(&mut self) -> Option<Finished> {
        match self.coroutine.resume(()) {
            CoroutineResult::Yield(resume_ms) => {
                self.resume_ms = resume_ms;
                None
            }
            CoroutineResult::Return(finished) => Some(finished),
        }
    }

    /// Ends it where it is (its process dies), or after its end, and gives its stack back.
    pub fn end(mut self) {
        self.coroutine.force_unwind();
        give_stack_back(self.coroutine.into_stack());
    }
}

/// What a job meets the cluster through.
struct JobLink<'y> {
    yielder: &'y Yielder<(), u64>,
    shared: Rc<Shared>,
    who: Who,
    /// The number of the commit that it is.
    commit: Option<u64>,
}

impl JobLink<'_> {
    /// The process dies here, if this is the commit and the place.
    fn come_by(&self, point: CommitPoint) {
        if let (Some(commit), Who::Worker(process, _)) = (self.commit, self.who)
            && self.shared.crash_at.get() == Some((commit, point))
        {
            self.shared.crash_at.set(None);
            self.shared.dying.set(Some(process));
            self.yielder.suspend(u64::MAX);
        }
    }
}

impl Link for JobLink<'_> {
    fn send(&self, request: &Request) -> Fate {
        if matches!(request, Request::EndTxn { .. }) {
            self.come_by(CommitPoint::Written);
        }
        self.yielder.suspend(0);
        if let Some(until_ms) = self.shared.slow(self.who, request) {
            self.yielder.suspend(until_ms);
        }
        paths::of_request(request, self.who, &self.shared);
        self.shared.fate(self.who, request)
    }

    fn pause(&self, until_ms: u64) {
        self.yielder.suspend(until_ms);
    }
}

/// What a restore asks of its process.
struct Host<'h> {
    link: &'h JobLink<'h>,
    cancelled: &'h AtomicBool,
    records: Cell<u64>,
}

impl RestoreHost for Host<'_> {
    fn pause(&self, ms: u64) {
        self.link.pause(self.link.shared.now_ms() + ms);
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    fn progress(&self, _: &TaskId, _: i64, _: i64, _: i64, _: u64) {}

    fn crash_point(&self, _: &str) {
        // Now and then, so that a restore is met in its middle.
        self.records.set(self.records.get() + 1);
        if self.records.get().is_multiple_of(8) {
            self.link.yielder.suspend(0);
        }
    }
}

/// Begins a job of a worker. `None` if a client that it needs is away: the worker has a bug.
pub fn begin(
    job: Job,
    who: Who,
    clients: &mut Clients,
    disk: &Disk,
    shared: &Rc<Shared>,
) -> Result<Running, &'static str> {
    let flushes = if let Job::Flush { task, .. } = &job { Some(task.clone()) } else { None };
    let stack = take_stack().map_err(|_| "no memory for a stack")?;
    let (coroutine, what): (_, &'static str) = match job {
        Job::Init => {
            let mut producer = clients.producer.take().ok_or("a producer was asked for twice")?;
            let run = move |link: &JobLink<'_>| {
                let done = JobDone::Init(producer.init_over(link, INIT_LIMIT_MS));
                Finished { done, clients: Clients { producer: Some(producer), reader: None } }
            };
            (coroutine(stack, shared, who, None, run), "init")
        }
        Job::Commit { transaction, member } => {
            let mut producer = clients.producer.take().ok_or("a producer was asked for twice")?;
            let number = shared.commits.get();
            shared.commits.set(number + 1);
            let run = move |link: &JobLink<'_>| {
                link.come_by(CommitPoint::Before);
                let sent = transaction.offsets.clone();
                let offsets = sent.into_iter().map(|sent| (sent.partition, sent.next_offset));
                let result = producer.commit_over(link, transaction, &member);
                match &result {
                    Ok(_) => link.come_by(CommitPoint::Committed),
                    Err(CommitError::Doubt(_)) => link.shared.doubts.borrow_mut().extend(offsets),
                    Err(_) => {}
                }
                let done = JobDone::Committed(result);
                Finished { done, clients: Clients { producer: Some(producer), reader: None } }
            };
            (coroutine(stack, shared, who, Some(number), run), "commit")
        }
        Job::Restore { epoch, request, cancelled } => {
            let mut reader = clients.reader.take().ok_or("a reader was asked for twice")?;
            let disk = disk.clone();
            let run = move |link: &JobLink<'_>| {
                let host = Host { link, cancelled: &cancelled, records: Cell::new(0) };
                let pause = |ms: u64| host.pause(ms);
                let note = |what: &'static str| link.shared.note(link.who, what, String::new);
                let stores = disk.lessee(&pause, &note, &cancelled);
                let result = restore(&request, &mut reader.over(link), &stores, &host);
                if let Ok(restored) = &result {
                    paths::of_restore(&request.spec, restored, link.who, &link.shared);
                }
                let task = request.spec.id.clone();
                let done = JobDone::Restored { epoch, task, result };
                Finished { done, clients: Clients { producer: None, reader: Some(reader) } }
            };
            (coroutine(stack, shared, who, None, run), "restore")
        }
        Job::Look { epoch, task, partition } => {
            let mut reader = clients.reader.take().ok_or("a reader was asked for twice")?;
            let run = move |link: &JobLink<'_>| {
                let result = reader.over(link).last_stable_offset(&partition);
                let done = JobDone::Looked { epoch, task, result };
                Finished { done, clients: Clients { producer: None, reader: Some(reader) } }
            };
            (coroutine(stack, shared, who, None, run), "look")
        }
        Job::Flush { epoch, task, job } => {
            let run = move |link: &JobLink<'_>| {
                link.pause(link.shared.disk_busy_until_ms());
                let result = job.run(&|| link.pause(link.shared.disk_busy_until_ms()));
                Finished { done: JobDone::Flushed { epoch, task, result }, clients: Clients::default() }
            };
            (coroutine(stack, shared, who, None, run), "flush")
        }
        Job::Ask { epoch, application } => {
            let cluster = shared.cluster.clone();
            let run = move |link: &JobLink<'_>| {
                link.pause(link.shared.now_ms());
                let result = ModelAdmin::new(&cluster).standings(&application);
                Finished { done: JobDone::Asked { epoch, result }, clients: Clients::default() }
            };
            (coroutine(stack, shared, who, None, run), "ask")
        }
        Job::Cut { epoch, task, partition, offset } => {
            let cluster = shared.cluster.clone();
            let run = move |link: &JobLink<'_>| {
                let result = ModelAdmin::new(&cluster).delete_records_over(link, &partition, offset);
                let done = JobDone::Cut { epoch, task, partition, result };
                Finished { done, clients: Clients::default() }
            };
            (coroutine(stack, shared, who, None, run), "cut")
        }
    };
    let resume_ms = shared.now_ms() + late_ms(shared, who, "job starts late");
    Ok(Running { what, flushes, resume_ms, coroutine })
}

/// How late something is that a machine does, if it is busy.
pub fn late_ms(shared: &Shared, who: Who, what: &'static str) -> u64 {
    let Some(mut chance) = shared.strike(JOBS_PER_FAULT) else { return 0 };
    let late_ms = chance.below(LATE_MS);
    shared.note(who, what, || format!("by {late_ms} ms"));
    late_ms
}

fn coroutine(
    stack: DefaultStack,
    shared: &Rc<Shared>,
    who: Who,
    commit: Option<u64>,
    run: impl FnOnce(&JobLink<'_>) -> Finished + 'static,
) -> Coroutine<(), u64, Finished, DefaultStack> {
    let shared = shared.clone();
    Coroutine::with_stack(stack, move |yielder, ()| run(&JobLink { yielder, shared, who, commit }))
}
