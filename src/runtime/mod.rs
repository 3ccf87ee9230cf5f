//! The deployed service: actors around the engine.
//!
//! A [`Coordinator`](coordinator::Coordinator) starts one [`WorkerActor`](worker::WorkerActor) per
//! worker, each on an arbiter (an OS thread) of its own. A worker actor steps its worker's state machine
//! and runs the jobs that block on a pool of threads.

mod connection;
mod coordinator;
mod crashing;
pub mod identity;
mod jobs;
pub mod leases;
pub mod reset;
mod worker;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::prelude::*;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use coordinator::{Coordinator, MakeParts, Stop, Unfinished};
use identity::{StateDir, is_of_bounded_run};
use jobs::Shared;
use leases::Leases;
use worker::Parts;

use crate::ablation::{Part, is_off};
use crate::kafka::{ConnectionSettings, KafkaAdmin, KafkaChangelogReader, KafkaLog, KafkaTransactionLog};
use crate::record::TopicPartition;
use crate::rocks::{RocksSettings, RocksStores};
use crate::service;
use crate::settings::{Listen, Settings};
use crate::task::TaskLimits;
use crate::telemetry::crash::CrashPoints;
use crate::telemetry::{Health, Metrics, Monotonic, monotonic};
use crate::topology::plan::Plan;
use crate::worker::neighbours::Neighbours;
use crate::worker::port::{LogAdmin, LogError};
use crate::worker::topics::{self, TopicError, Topics};
use crate::worker::{WorkerSpec, bounded};

pub use connection::{Member, connection};

/// What a run is told beside its topology and settings.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// End when everything that is there now has been read.
    pub bounded: bool,
    /// Operators whose state is given up.
    pub drop_state: Vec<String>,
    /// Where tests crash the process.
    pub crash_points: CrashPoints,
}

/// How a run ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was told to stop, and everything is committed.
    Stopped,
    /// A bounded run came to the end of its input.
    Finished,
    /// A bounded run found that it had been finished before, and did nothing.
    AlreadyFinished,
}

/// Why a run ended badly.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// Exit code 1.
    #[error("{0}")]
    Failed(String),
    /// The topology does not fit the state that is there: exit code 2.
    #[error("{0}")]
    Refused(String),
}

fn failed(error: impl ToString) -> RunError {
    RunError::Failed(error.to_string())
}

/// Runs a topology until it is told to stop by SIGTERM or SIGINT, or until a bounded run is over.
///
/// # Errors
/// If the process cannot go on; what is committed stays valid, and another run goes on from there.
pub fn run(plan: Plan, settings: &Settings, options: RunOptions) -> Result<Outcome, RunError> {
    let state_dir = StateDir::open(&settings.state.dir, &plan.name).map_err(failed)?;
    let workers = match settings.run.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        workers => workers,
    };
    let plan = Arc::new(plan);
    let now = monotonic();
    let health = Arc::new(Health::new(workers, now.clone()));
    let metrics = Arc::new(Metrics::new(health.clone(), now.clone()));
    let server = match &settings.http.listen {
        Listen::At(address) => {
            Some(service::serve(&address.to_string(), metrics.clone(), health.clone()).map_err(failed)?)
        }
        Listen::Off => None,
    };
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        topology = plan.name,
        workers,
        bounded = options.bounded,
        brokers = settings.kafka.bootstrap_servers,
        state = %settings.state.dir.display(),
        http = server.as_ref().map(|server| server.address().to_string()),
        "starting"
    );
    let process = Process { plan, settings, options, state_dir, workers, health, metrics, now };
    let ended = actix::System::new().block_on(process.run());
    if let Some(server) = server {
        server.stop();
    }
    ended
}

/// What was found of the cluster, and who can be asked for more.
type Seen = Result<(KafkaAdmin, Topics), RunError>;

/// What a process knows before it has seen the cluster.
struct Process<'s> {
    plan: Arc<Plan>,
    settings: &'s Settings,
    options: RunOptions,
    state_dir: StateDir,
    workers: usize,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    now: Monotonic,
}

impl Process<'_> {
    async fn run(self) -> Result<Outcome, RunError> {
        let mut signals = StopSignals::new()?;
        let (admin, topics) = tokio::select! {
            seen = self.look_at_cluster()? => seen.unwrap_or_else(|_| Err(failed("nobody looks at the cluster")))?,
            name = signals.next() => {
                tracing::info!("{name}: stopping before anything was begun");
                return Ok(Outcome::Stopped);
            }
        };
        let stop_limit = Duration::from_millis(self.settings.run.shutdown_limit_ms);
        let workers = self.workers;
        let admin = Arc::new(Mutex::new(admin));
        let unfinished = unfinished(admin.clone(), &self.plan.name, topics.sources.clone());
        supervise(self.parts_maker(admin, topics)?, unfinished, workers, stop_limit, signals).await
    }

    /// Looks at the cluster, and creates topics, on a thread of its own: an answer may take long, and a
    /// signal is obeyed meanwhile. The process ends without that thread then.
    fn look_at_cluster(&self) -> Result<oneshot::Receiver<Seen>, RunError> {
        let Process { settings, options, .. } = self;
        let connection = connection(settings, &self.plan.name, Member::None);
        let record_bytes_max =
            settings.kafka.librdkafka.get("message.max.bytes").and_then(|value| value.parse().ok());
        let (plan, bounded, replication) = (self.plan.clone(), options.bounded, settings.kafka.replication);
        let now = self.now.clone();
        let (tell, told) = oneshot::channel();
        let look = move || {
            // Nothing is connected yet: what fails here is what librdkafka was told.
            let mut admin = KafkaAdmin::new(&connection)
                .map_err(|error| RunError::Refused(format!("kafka.librdkafka: {error}")))?;
            let brokers = &connection.bootstrap_servers;
            let unanswered = |error: TopicError| match error {
                TopicError::Log(error) => failed(format!("{error} (kafka.bootstrap_servers: {brokers})")),
                unfit => failed(unfit),
            };
            let topics = ask_again(&now, || {
                topics::prepare(&mut admin, &plan, bounded, replication, record_bytes_max)
            })
            .map_err(unanswered)?;
            let members = || Ok(members_of_other_kind(&mut admin, &plan.name, bounded)?);
            let others = ask_again(&now, members).map_err(unanswered)?;
            if !others.is_empty() {
                return Err(RunError::Refused(other_kind(&plan.name, bounded, &others)));
            }
            Ok((admin, topics))
        };
        let thread = std::thread::Builder::new().name("cluster".into());
        // Nobody listens any more if the process was stopped meanwhile.
        thread.spawn(move || drop(tell.send(look()))).map_err(failed)?;
        Ok(told)
    }

    /// Gets ready to make workers.
    fn parts_maker(self, admin: Arc<Mutex<KafkaAdmin>>, topics: Topics) -> Result<MakeParts, RunError> {
        let Process { plan, settings, options, state_dir, workers, health, metrics, now } = self;
        let spec = Arc::new(worker_spec(&plan, settings, &options, &topics, workers)?);
        let stores =
            RocksStores::open(&state_dir.stores_path(), &rocks_settings(settings)).map_err(failed)?;
        let shared = Arc::new(Shared {
            stores: Leases::new(Box::new(stores)),
            admin,
            neighbours: Neighbours::default(),
            metrics,
            crash: options.crash_points.clone(),
            now,
        });
        let connections: Vec<ConnectionSettings> = (0..workers)
            .map(|worker| {
                let member = Member::Worker { state: &state_dir, worker, bounded: options.bounded };
                let mut connection = connection(settings, &plan.name, member);
                if topics.batch_bytes_max < PRODUCER_BATCH_BYTES {
                    // Before what the settings file says, which wins.
                    connection
                        .librdkafka
                        .insert(0, ("batch.size".into(), topics.batch_bytes_max.to_string()));
                }
                connection
            })
            .collect();
        let sources: Vec<String> = plan.stages().map(|stage| plan.topic_of(stage)).collect();
        Ok(Box::new(move |index, coordinator| {
            // The directory stays locked for as long as workers may be made.
            let _locked = &state_dir;
            let connection = &connections[index];
            let log = KafkaLog::new(connection, &sources)?;
            let crash = shared.crash.clone();
            let crash_point = crash.armed().then(|| Arc::new(move |name: &str| crash.hit(name)) as Arc<_>);
            Ok(Parts {
                index,
                spec: spec.clone(),
                transactions: KafkaTransactionLog::new(connection, &log, crash_point),
                log,
                reader: KafkaChangelogReader::new(connection)?,
                shared: shared.clone(),
                health: health.clone(),
                coordinator,
            })
        }))
    }
}

/// What asks which partitions of `sources` a bounded run of the application has not finished yet.
fn unfinished(admin: Arc<Mutex<KafkaAdmin>>, application: &str, sources: Vec<TopicPartition>) -> Unfinished {
    let application = application.to_owned();
    Arc::new(move || {
        let mut admin = admin.lock().unwrap_or_else(PoisonError::into_inner);
        bounded::unfinished(&mut *admin, &application, &sources)
    })
}

/// How long a cluster is asked that does not answer: about as long as brokers take that start anew, or a
/// group's coordinator that moves.
const ANSWER_LIMIT_MS: u64 = 30_000;

/// Asks until there is an answer, or an error that waiting does not mend.
fn ask_again<T>(now: &Monotonic, mut ask: impl FnMut() -> Result<T, TopicError>) -> Result<T, TopicError> {
    let give_up = now() + ANSWER_LIMIT_MS;
    loop {
        match ask() {
            Err(TopicError::Log(LogError::Retry(message))) if now() < give_up => {
                tracing::warn!("{message}");
            }
            answer => return answer,
        }
        #[expect(clippy::disallowed_methods, reason = "a thread of its own that has nothing else to do")]
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// The members of an application's group that belong to the other kind of run. A bounded and an unbounded
/// run of one application would end each other, since each refuses the state of the other's kind.
fn members_of_other_kind(
    admin: &mut dyn LogAdmin,
    application: &str,
    bounded: bool,
) -> Result<Vec<String>, LogError> {
    let members = admin.group_members(application)?;
    Ok(members.into_iter().filter(|member| is_of_bounded_run(member) != bounded).collect())
}

fn other_kind(application: &str, bounded: bool, members: &[String]) -> String {
    let (theirs, ours) = if bounded { ("without", "with") } else { ("with", "without") };
    format!(
        "{application} is running {theirs} --bounded and cannot be run {ours} it beside that; its group has the \
         members {}. Stop those first; one that was killed is a member until its session ends \
         (kafka.session_timeout)",
        members.join(", ")
    )
}

/// The signals that end the process in order.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn new() -> Result<StopSignals, RunError> {
        let listen = |kind| signal(kind).map_err(failed);
        let (terminate, interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
        Ok(StopSignals { terminate, interrupt })
    }

    /// The name of the next one.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

async fn supervise(
    make_parts: MakeParts,
    unfinished: Unfinished,
    workers: usize,
    stop_limit: Duration,
    mut signals: StopSignals,
) -> Result<Outcome, RunError> {
    let (done, mut ended) = oneshot::channel();
    let arbiters: Vec<Arbiter> = (0..workers).map(|_| Arbiter::new()).collect();
    let handles = arbiters.iter().map(Arbiter::handle).collect();
    let coordinator = Coordinator::new(make_parts, handles, unfinished, stop_limit, done).start();
    loop {
        tokio::select! {
            ended = &mut ended => {
                join(arbiters).await;
                return ended.unwrap_or_else(|_| Err(failed("the coordinator is gone")));
            }
            name = signals.next() => tracing::info!("{name}: committing, leaving the group, stopping"),
        }
        coordinator.do_send(Stop);
    }
}

/// How long the workers' threads may take to end once the workers have.
const JOIN_LIMIT: Duration = Duration::from_secs(2);

/// Waits until the workers' threads have ended and let go of the stores: RocksDB must be closed before
/// the process runs its exit handlers.
async fn join(arbiters: Vec<Arbiter>) {
    let joined = actix_rt::task::spawn_blocking(move || {
        for arbiter in arbiters {
            arbiter.stop();
            // It can only fail if the thread panicked, which ends the process before.
            let _ended = arbiter.join();
        }
    });
    if actix_rt::time::timeout(JOIN_LIMIT, joined).await.is_err() {
        tracing::warn!("a worker's thread does not end");
    }
}

/// librdkafka's own `batch.size`. A batch that a topic does not take is not split by it.
const PRODUCER_BATCH_BYTES: usize = 1_000_000;
/// A checkpoint's changelog records are about this large before compression.
const CHANGELOG_PART_BYTES: usize = 512 << 10;

/// A restore never merges more before it writes: more saves little, and a merge is not interrupted.
const RESTORE_BUFFER_BYTES_MAX: usize = 64 << 20;

/// A repartition topic is cut behind its reader so often: each cut is a request, and frees whole segments only.
const REPARTITION_CUT_INTERVAL_MS: u64 = 10_000;

fn worker_spec(
    plan: &Arc<Plan>,
    settings: &Settings,
    options: &RunOptions,
    topics: &Topics,
    workers: usize,
) -> Result<WorkerSpec, RunError> {
    let share = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX) / workers;
    let cache_bytes_max = share(settings.state.cache_bytes_max);
    Ok(WorkerSpec {
        application: plan.name.clone(),
        stages: topics::stages(plan, topics).map_err(failed)?,
        bounded: options.bounded,
        drop_state: options.drop_state.clone(),
        commit_interval_ms: settings.run.commit_interval_ms,
        batch_records_max: if is_off(Part::Batches) { 1 } else { settings.run.batch_records_max },
        batch_bytes_max: usize::try_from(settings.run.batch_bytes_max).unwrap_or(usize::MAX),
        pinned_bytes_max: cache_bytes_max,
        stall_ms: settings.run.restore_stall_ms,
        // While a task is restored its worker has no other state in memory.
        restore_buffer_bytes: (cache_bytes_max / 2).min(RESTORE_BUFFER_BYTES_MAX),
        leave_limit_ms: settings.run.shutdown_limit_ms / 2,
        limits: TaskLimits {
            staged_records_max: settings.run.checkpoint_records_max / workers,
            staged_bytes_max: share(settings.run.checkpoint_bytes_max),
            changelog_part_bytes: if is_off(Part::PackedDelta) { 0 } else { CHANGELOG_PART_BYTES },
            chunk_bytes_min: usize::try_from(settings.state.chunk_bytes_floor).unwrap_or(usize::MAX),
            rest_percent: settings.state.changelog_growth_percent,
            rest_bytes_min: usize::try_from(settings.state.changelog_growth_floor).unwrap_or(usize::MAX),
            flush_bytes: if is_off(Part::WriteBehind) { 0 } else { share(settings.state.flush_bytes) },
            flush_interval_ms: settings.state.flush_interval_ms,
            cache_bytes_max,
            watermark_interval_ms: settings.run.watermark_interval_ms,
            cut_interval_ms: REPARTITION_CUT_INTERVAL_MS,
        },
    })
}

fn rocks_settings(settings: &Settings) -> RocksSettings {
    let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    RocksSettings {
        block_cache_bytes: bytes(settings.state.rocksdb_block_cache_bytes),
        write_buffer_bytes: bytes(settings.state.rocksdb_write_buffer_bytes),
        ..RocksSettings::default()
    }
}
