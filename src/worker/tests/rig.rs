//! A worker, step by step, on the small cluster.

use std::sync::Arc;

use super::cluster::{Cluster, TestLog, TestProducer};
use super::topology::{out, record, source, worker_spec};
use crate::record::TopicPartition;
use crate::state::memory::MemoryStores;
use crate::task::{RestoreHost, TaskId, restore};
use crate::worker::neighbours::Neighbours;
use crate::worker::port::{ChangelogReader, LogEvent, Member, TransactionLog};
use crate::worker::{Exit, Job, JobDone, Phase, Worker, WorkerEvent, WorkerSpec};

pub struct Host;

impl RestoreHost for Host {
    fn pause(&self, _ms: u64) {}

    fn is_cancelled(&self) -> bool {
        false
    }

    fn progress(&self, _: &TaskId, _: i64, _: i64, _: i64, _: u64) {}

    fn crash_point(&self, _: &str) {}
}

/// One worker, whose jobs wait until the test does them.
pub struct Rig {
    pub cluster: Cluster,
    pub log: TestLog,
    pub worker: Worker<TestLog>,
    pub producer: TestProducer,
    pub stores: MemoryStores,
    pub jobs: Vec<Job>,
    pub events: Vec<WorkerEvent>,
    pub exit: Option<Exit>,
    pub now_ms: u64,
}

impl Rig {
    pub fn new(change: impl FnOnce(&mut WorkerSpec)) -> Self {
        Rig::beside(&Neighbours::default(), change)
    }

    /// A worker of a process that may have others.
    pub fn beside(neighbours: &Neighbours, change: impl FnOnce(&mut WorkerSpec)) -> Self {
        let cluster = Cluster::default();
        let log = TestLog::new(&cluster);
        let mut spec = worker_spec();
        change(&mut spec);
        Rig {
            worker: Worker::new(Arc::new(spec), log.clone(), neighbours),
            producer: cluster.producer(1),
            cluster,
            log,
            stores: MemoryStores::new(),
            jobs: Vec::new(),
            events: Vec::new(),
            exit: None,
            now_ms: 0,
        }
    }

    /// A worker that is running on partition 0.
    pub fn running(change: impl FnOnce(&mut WorkerSpec)) -> Self {
        let mut rig = Rig::new(change);
        rig.assign(1, vec![source(0)]);
        rig.settle();
        assert_eq!(rig.worker.phase(), Phase::Running);
        rig
    }

    pub fn assign(&mut self, generation: i32, partitions: Vec<TopicPartition>) {
        let member = Member { generation, id: "me".into() };
        self.cluster.content().members = vec![member.clone()];
        self.log.consumer().events.push_back(LogEvent::Assigned { partitions, member });
    }

    pub fn tell(&mut self, event: LogEvent) {
        self.log.consumer().events.push_back(event);
    }

    pub fn append(&mut self, value: i64) {
        self.cluster.content().append(&source(0), &record("a", value, 1_000));
    }

    pub fn took(&mut self, step: super::super::Step) {
        self.jobs.extend(step.jobs);
        self.events.extend(step.events);
        self.exit = self.exit.take().or(step.exit);
    }

    pub fn step(&mut self) {
        let step = self.worker.step(self.now_ms, 0);
        self.took(step);
    }

    pub fn done(&mut self, done: JobDone) {
        let step = self.worker.job_done(done, self.now_ms);
        self.took(step);
    }

    /// Takes the first job that is asked for.
    pub fn take(&mut self, is: impl Fn(&Job) -> bool) -> Job {
        let place = self.jobs.iter().position(is);
        self.jobs.remove(place.expect("no such job was asked for"))
    }

    /// Does a job as it should be done.
    pub fn run(&mut self, job: Job) {
        let done = match job {
            Job::Init => JobDone::Init(self.producer.init(1)),
            Job::Restore { epoch, request, .. } => {
                let result = restore(&request, &mut self.cluster, &self.stores, &Host);
                JobDone::Restored { epoch, task: request.spec.id.clone(), result }
            }
            Job::Commit { transaction, member } => {
                JobDone::Committed(self.producer.commit(transaction, &member))
            }
            Job::Flush { epoch, task, job } => JobDone::Flushed { epoch, task, result: job.run(&|| ()) },
            Job::Look { epoch, task, partition } => {
                let result = ChangelogReader::last_stable_offset(&mut self.cluster, &partition);
                JobDone::Looked { epoch, task, result }
            }
            Job::Ask { epoch, application } => {
                assert_eq!(application, "sums");
                let result = Ok(self.cluster.content().standings.clone().into_iter().collect());
                JobDone::Asked { epoch, result }
            }
            Job::Cut { epoch, task, partition, offset } => {
                let result = Ok(self.cluster.content().cut(&partition, offset));
                JobDone::Cut { epoch, task, partition, result }
            }
        };
        self.done(done);
    }

    /// Steps and does jobs until there is nothing to do but to wait.
    pub fn settle(&mut self) {
        for _ in 0..20 {
            self.step();
            while !self.jobs.is_empty() {
                let job = self.jobs.remove(0);
                self.run(job);
            }
        }
    }

    /// A record is read, and its commit asked for.
    pub fn committing() -> Self {
        let mut rig = Rig::running(|_| ());
        rig.append(1);
        rig.step();
        rig.now_ms += 1_000;
        rig.step();
        assert_eq!(rig.worker.phase(), Phase::Committing);
        rig
    }

    pub fn commit_job(&mut self) -> Job {
        self.take(|job| matches!(job, Job::Commit { .. }))
    }

    pub fn flush_job(&mut self) -> (u64, TaskId) {
        match self.take(|job| matches!(job, Job::Flush { .. })) {
            Job::Flush { epoch, task, .. } => (epoch, task),
            _ => unreachable!(),
        }
    }

    pub fn rows(&self) -> usize {
        self.cluster.content().committed(&out()).len()
    }

    pub fn saw(&self, is: impl Fn(&WorkerEvent) -> bool) -> bool {
        self.events.iter().any(is)
    }
}
