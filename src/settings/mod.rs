//! Settings: defaults, then a file, then the environment, then flags; the later one wins.
//!
//! `docs/settings.md` lists them for operators, with the trade-off of each; a test holds it to the keys
//! and defaults of this module.

mod layers;
mod librdkafka;
#[cfg(test)]
mod tests;
mod text;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use text::{count, duration, size, word};

/// All settings of a process.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The cluster and the clients that talk to it.
    pub kafka: Kafka,
    /// State on disk and in memory.
    pub state: State,
    /// How work is cut up.
    pub run: Run,
    /// The HTTP server.
    pub http: Http,
    /// Logging.
    pub log: Log,
}

/// See [`Settings::kafka`].
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Kafka {
    /// The first brokers to ask, `HOST:PORT`, separated by commas.
    pub bootstrap_servers: String,
    /// What the clients call themselves; `None`: the topology's name decides.
    pub client_id: Option<String>,
    /// After this long without a heartbeat a worker counts as dead and others get its partitions. Short:
    /// work goes on sooner after a crash. Long: pauses (a stalled disk, a busy machine) cause no rebalance.
    #[serde(rename = "session_timeout", with = "duration")]
    pub session_timeout_ms: u64,
    /// After this long the broker aborts the open transaction of a dead process. Until then nobody reads
    /// past it, so a restart may wait this long; a checkpoint that takes longer fails.
    #[serde(rename = "transaction_timeout", with = "duration")]
    pub transaction_timeout_ms: u64,
    /// Replicas of the topics that the engine owns; -1: what the broker does by default.
    #[serde(with = "count")]
    pub replication: i32,
    /// Further properties of librdkafka, by its names; none of those that the engine owns.
    pub librdkafka: BTreeMap<String, String>,
}

/// See [`Settings::state`].
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct State {
    /// The directory of this process's state; no other process may use it.
    pub dir: PathBuf,
    /// The limit of all cached, dirty and unflushed state in memory, for the process.
    #[serde(with = "size")]
    pub cache_bytes_max: u64,
    /// Committed changes go to RocksDB at the latest after this long.
    #[serde(rename = "flush_interval", with = "duration")]
    pub flush_interval_ms: u64,
    /// Committed changes of a task go to RocksDB when there are this many bytes of them.
    #[serde(with = "size")]
    pub flush_bytes: u64,
    /// A checkpoint with changes rewrites at least this much of the state into the changelog, while a sweep is
    /// under way.
    #[serde(with = "size")]
    pub chunk_bytes_floor: u64,
    /// The state is not rewritten again before the changes come to this percentage of the bytes that the last time
    /// took.
    #[serde(with = "count")]
    pub changelog_growth_percent: usize,
    /// The state is not rewritten again before the changes of a partition come to this much.
    #[serde(with = "size")]
    pub changelog_growth_floor: u64,
    /// RocksDB's block cache, for the process.
    #[serde(with = "size")]
    pub rocksdb_block_cache_bytes: u64,
    /// RocksDB's write buffers together, for the process.
    #[serde(with = "size")]
    pub rocksdb_write_buffer_bytes: u64,
}

/// See [`Settings::run`].
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Run {
    /// How many worker threads; 0: as many as there are cores.
    #[serde(with = "count")]
    pub workers: usize,
    /// How often a worker commits. Short: results are seen sooner. Long: fewer transactions, and several
    /// changes of a key become one.
    #[serde(rename = "commit_interval", with = "duration")]
    pub commit_interval_ms: u64,
    /// How often the stages behind a change of keys are told a watermark where they get no rows.
    #[serde(rename = "watermark_interval", with = "duration")]
    pub watermark_interval_ms: u64,
    /// The limit of a batch, in records.
    #[serde(with = "count")]
    pub batch_records_max: usize,
    /// The limit of a batch, in bytes of keys and values.
    #[serde(with = "size")]
    pub batch_bytes_max: u64,
    /// The limit of what one checkpoint writes, in records.
    #[serde(with = "count")]
    pub checkpoint_records_max: usize,
    /// The limit of what one checkpoint writes, in bytes.
    #[serde(with = "size")]
    pub checkpoint_bytes_max: u64,
    /// A restore that gets no further for this long starts over, with a message.
    #[serde(rename = "restore_stall", with = "duration")]
    pub restore_stall_ms: u64,
    /// A shutdown ends within this time, finished or not.
    #[serde(rename = "shutdown_limit", with = "duration")]
    pub shutdown_limit_ms: u64,
}

/// See [`Settings::http`].
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Where the server listens.
    #[serde(with = "word")]
    pub listen: Listen,
}

/// See [`Settings::log`].
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// For people or for machines.
    #[serde(with = "word")]
    pub format: LogFormat,
    /// What is logged, in the language of `tracing_subscriber`'s `EnvFilter`: `info`, or
    /// `info,thalweg::worker=debug`.
    pub filter: String,
}

/// Where the HTTP server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// At this `HOST:PORT`; port 0 takes a free one.
    At(String),
    /// There is none.
    Off,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

impl Default for Kafka {
    fn default() -> Self {
        Kafka {
            bootstrap_servers: "127.0.0.1:9092".to_string(),
            client_id: None,
            session_timeout_ms: 10_000,
            transaction_timeout_ms: 10_000,
            replication: -1,
            librdkafka: BTreeMap::new(),
        }
    }
}

impl Default for State {
    fn default() -> Self {
        State {
            dir: PathBuf::from("./thalweg-state"),
            cache_bytes_max: 256 * MIB,
            flush_interval_ms: 10_000,
            flush_bytes: 6 * MIB,
            chunk_bytes_floor: 16 << 10,
            changelog_growth_percent: 100,
            changelog_growth_floor: MIB,
            rocksdb_block_cache_bytes: 64 * MIB,
            rocksdb_write_buffer_bytes: 32 * MIB,
        }
    }
}

impl Default for Run {
    fn default() -> Self {
        Run {
            workers: 0,
            commit_interval_ms: 100,
            watermark_interval_ms: 1_000,
            batch_records_max: 1000,
            batch_bytes_max: 4 * MIB,
            checkpoint_records_max: 100_000,
            checkpoint_bytes_max: 24 * MIB,
            restore_stall_ms: 30_000,
            shutdown_limit_ms: 10_000,
        }
    }
}

impl Default for Http {
    fn default() -> Self {
        Http { listen: Listen::At("127.0.0.1:8080".to_string()) }
    }
}

impl Default for Log {
    fn default() -> Self {
        // What the HTTP server says about its own coming and going is no news, nor is what strangers send it.
        Log { format: LogFormat::Text, filter: "info,actix_server=warn,actix_http=off".to_string() }
    }
}

/// Why there are no settings: every mistake that was found, with where it was made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", problems.join("\n"))]
pub struct SettingsError {
    /// One line each.
    pub problems: Vec<String>,
}

impl Settings {
    /// The effective settings: the defaults, what `file` (YAML or TOML, by its extension) says, what the
    /// variables of `environment` whose names begin with `THALWEG__` say, and what `flags` (dotted keys
    /// and their values) say; the later one wins. The environment's other variables are not looked at.
    ///
    /// ```
    /// # use thalweg::settings::Settings;
    /// let environment = [("THALWEG__RUN__COMMIT_INTERVAL".to_string(), "1s".to_string())];
    /// let flags = [("run.workers".to_string(), "2".to_string())];
    /// let settings = Settings::load(None, environment.into_iter(), &flags)?;
    /// assert_eq!((settings.run.commit_interval_ms, settings.run.workers), (1000, 2));
    /// # Ok::<(), thalweg::settings::SettingsError>(())
    /// ```
    pub fn load(
        file: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
        flags: &[(String, String)],
    ) -> Result<Settings, SettingsError> {
        let settings = layers::load(file, environment, flags)?;
        let problems = settings.problems();
        if problems.is_empty() { Ok(settings) } else { Err(SettingsError { problems }) }
    }

    /// All settings as YAML, with the values of secrets hidden.
    pub fn render(&self) -> String {
        let mut out = String::new();
        let sections = layers::tree(self);
        for (section, settings) in &sections {
            out.push_str(&format!("{section}:\n"));
            for (name, value) in settings.as_object().into_iter().flatten() {
                match value.as_object() {
                    Some(properties) if !properties.is_empty() => {
                        out.push_str(&format!("  {name}:\n"));
                        for (property, value) in properties {
                            let hidden = serde_json::Value::from("********");
                            let value = if librdkafka::is_secret(property) { &hidden } else { value };
                            out.push_str(&format!("    {property}: {value}\n"));
                        }
                    }
                    // JSON text of a scalar is YAML as well.
                    _ => out.push_str(&format!("  {name}: {value}\n")),
                }
            }
        }
        out
    }

    /// What is wrong with values that are right on their own, or out of bounds.
    fn problems(&self) -> Vec<String> {
        let Settings { kafka, state, run, .. } = self;
        let mut problems = Vec::new();
        let mut check = |holds: bool, problem: &str| {
            if !holds {
                problems.push(problem.to_string());
            }
        };
        check(
            !kafka.bootstrap_servers.trim().is_empty(),
            "kafka.bootstrap_servers is empty: write HOST:PORT",
        );
        check(kafka.client_id.as_deref() != Some(""), "kafka.client_id is empty: leave it out instead");
        check(
            (1000..=1_800_000).contains(&kafka.session_timeout_ms),
            "kafka.session_timeout must be between 1s and 30m (and within what the brokers allow)",
        );
        check(
            (1000..=900_000).contains(&kafka.transaction_timeout_ms),
            "kafka.transaction_timeout must be between 1s and 15m (and within what the brokers allow)",
        );
        check(
            kafka.replication == -1 || (1..=i32::from(i16::MAX)).contains(&kafka.replication),
            "kafka.replication must be at least 1, or -1 for the brokers' default",
        );
        check(
            kafka.transaction_timeout_ms > run.commit_interval_ms,
            "kafka.transaction_timeout must be longer than run.commit_interval",
        );
        check(
            run.restore_stall_ms > kafka.transaction_timeout_ms,
            "run.restore_stall must be longer than kafka.transaction_timeout: a restore waits until the \
             broker has aborted what a dead process left open",
        );
        check(!state.dir.as_os_str().is_empty(), "state.dir is empty: write the path of a directory");
        check(run.workers <= 1024, "run.workers must be at most 1024");
        for (key, value) in [
            ("run.commit_interval", run.commit_interval_ms),
            ("run.watermark_interval", run.watermark_interval_ms),
            ("run.shutdown_limit", run.shutdown_limit_ms),
            ("state.flush_interval", state.flush_interval_ms),
        ] {
            check(value > 0, &format!("{key} must be at least 1ms"));
        }
        for (key, value) in [
            ("run.batch_records_max", run.batch_records_max as u64),
            ("run.batch_bytes_max", run.batch_bytes_max),
            ("state.cache_bytes_max", state.cache_bytes_max),
            ("state.flush_bytes", state.flush_bytes),
            ("state.chunk_bytes_floor", state.chunk_bytes_floor),
            ("state.rocksdb_block_cache_bytes", state.rocksdb_block_cache_bytes),
            ("state.rocksdb_write_buffer_bytes", state.rocksdb_write_buffer_bytes),
        ] {
            check(value > 0, &format!("{key} must be above 0"));
        }
        check(
            state.changelog_growth_percent <= 1000,
            "state.changelog_growth_percent must be at most 1000: the changelog would grow without need",
        );
        check(
            state.changelog_growth_floor <= GIB,
            "state.changelog_growth_floor must be at most 1GiB: the changelog of each partition may grow by that",
        );
        check(
            run.checkpoint_records_max >= run.batch_records_max,
            "run.checkpoint_records_max must be at least run.batch_records_max",
        );
        check(
            run.checkpoint_bytes_max >= run.batch_bytes_max,
            "run.checkpoint_bytes_max must be at least run.batch_bytes_max",
        );
        problems
    }
}

/// Without secrets, as [`Settings::render`].
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render())
    }
}
