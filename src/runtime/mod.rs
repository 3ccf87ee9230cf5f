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
pub mod topics;
mod worker;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::prelude::*;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use coordinator::{Coordinator, MakeParts, Stop};
use identity::StateDir;
use jobs::Shared;
use leases::Leases;
use topics::{Topics, stateful_operators};
use worker::Parts;

use crate::kafka::{ConnectionSettings, KafkaAdmin, KafkaChangelogReader, KafkaLog, KafkaTransactionLog};
use crate::rocks::{RocksSettings, RocksStores};
use crate::service;
use crate::settings::{Listen, Settings};
use crate::task::{TaskLimits, pipeline_factory};
use crate::telemetry::crash::CrashPoints;
use crate::telemetry::{Health, Metrics, monotonic};
use crate::topology::plan::Plan;
use crate::worker::{StageSpec, WorkerSpec};

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
    let mut admin = KafkaAdmin::new(&connection(settings, &plan.name, Member::None)).map_err(failed)?;
    let record_bytes_max =
        settings.kafka.librdkafka.get("message.max.bytes").and_then(|value| value.parse().ok());
    let topics =
        topics::prepare(&mut admin, &plan, options.bounded, settings.kafka.replication, record_bytes_max)
            .map_err(failed)?;
    let spec = Arc::new(worker_spec(&plan, settings, &options, &topics, workers)?);
    let stores = RocksStores::open(&state_dir.stores_path(), &rocks_settings(settings)).map_err(failed)?;
    let shared = Arc::new(Shared {
        stores: Leases::new(Box::new(stores)),
        admin: Mutex::new(admin),
        metrics,
        crash: options.crash_points.clone(),
        now,
    });
    let connections: Vec<ConnectionSettings> = (0..workers)
        .map(|index| {
            let mut connection = connection(settings, &plan.name, Member::Worker(&state_dir, index));
            if topics.batch_bytes_max < PRODUCER_BATCH_BYTES {
                // Before what the settings file says, which wins.
                connection.librdkafka.insert(0, ("batch.size".into(), topics.batch_bytes_max.to_string()));
            }
            connection
        })
        .collect();
    let sources: Vec<String> = plan.sources.iter().map(|source| source.topic.clone()).collect();
    let make_parts: MakeParts = Box::new(move |index, coordinator| {
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
    });
    let stop_limit = Duration::from_millis(settings.run.shutdown_limit_ms);
    let ended = actix::System::new().block_on(supervise(make_parts, workers, stop_limit));
    if let Some(server) = server {
        server.stop();
    }
    ended
}

async fn supervise(make_parts: MakeParts, workers: usize, stop_limit: Duration) -> Result<Outcome, RunError> {
    let (done, mut ended) = oneshot::channel();
    let arbiters: Vec<Arbiter> = (0..workers).map(|_| Arbiter::new()).collect();
    let handles = arbiters.iter().map(Arbiter::handle).collect();
    let coordinator = Coordinator::new(make_parts, handles, stop_limit, done).start();
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    loop {
        tokio::select! {
            ended = &mut ended => {
                join(arbiters).await;
                return ended.unwrap_or_else(|_| Err(failed("the coordinator is gone")));
            }
            _ = terminate.recv() => tracing::info!("SIGTERM: committing, leaving the group, stopping"),
            _ = interrupt.recv() => tracing::info!("SIGINT: committing, leaving the group, stopping"),
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
/// A restore merges this much before it writes.
const RESTORE_BUFFER_BYTES: usize = 16 << 20;

fn worker_spec(
    plan: &Arc<Plan>,
    settings: &Settings,
    options: &RunOptions,
    topics: &Topics,
    workers: usize,
) -> Result<WorkerSpec, RunError> {
    let mut stages = Vec::new();
    for (stage, source) in plan.sources.iter().enumerate() {
        stages.push(StageSpec {
            id: source.id.as_str().into(),
            topic: source.topic.clone(),
            start: source.start,
            changelog: topics.changelogs[stage]
                .as_ref()
                .map(|changelog| (changelog.name.clone(), changelog.id, changelog.record_bytes_max)),
            operators: stateful_operators(plan, stage),
            pipelines: pipeline_factory(plan.clone(), stage, topics.targets.clone()).map_err(failed)?,
        });
    }
    let share = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX) / workers;
    let cache_bytes_max = share(settings.state.cache_bytes_max);
    Ok(WorkerSpec {
        stages,
        bounded: options.bounded,
        drop_state: options.drop_state.clone(),
        commit_interval_ms: settings.run.commit_interval_ms,
        batch_records_max: settings.run.batch_records_max,
        batch_bytes_max: usize::try_from(settings.run.batch_bytes_max).unwrap_or(usize::MAX),
        pinned_bytes_max: cache_bytes_max,
        stall_ms: settings.run.restore_stall_ms,
        restore_buffer_bytes: RESTORE_BUFFER_BYTES,
        leave_limit_ms: settings.run.shutdown_limit_ms / 2,
        limits: TaskLimits {
            staged_records_max: settings.run.checkpoint_records_max / workers,
            staged_bytes_max: share(settings.run.checkpoint_bytes_max),
            changelog_part_bytes: CHANGELOG_PART_BYTES,
            chunk_bytes_min: usize::try_from(settings.state.chunk_bytes_floor).unwrap_or(usize::MAX),
            flush_bytes: share(settings.state.flush_bytes),
            flush_interval_ms: settings.state.flush_interval_ms,
            cache_bytes_max,
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
