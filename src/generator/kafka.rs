//! Streams written to Kafka: their topics, and the clock.

use std::num::NonZeroU64;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::generator::nexmark::{self, Kind, Nexmark};
use crate::generator::orders::{self, Orders};
use crate::generator::send::{Outlet, Schedule, Sent, send};
use crate::generator::{Record, Stream, Timeline};
use crate::kafka::{Compression, ConnectionSettings, KafkaAdmin, KafkaWriter, Outgoing};
use crate::worker::port::{LogAdmin, LogError, TopicSpec};

/// With a rate the first record is due so long after everything is ready: the producer has its connections
/// by then.
const LEAD: Duration = Duration::from_secs(1);
/// How many records are written between two looks at what has become of the others.
const SERVE_EVERY: u32 = 1_024;
/// The broker decides.
const DEFAULT_REPLICATION: i32 = -1;
/// Of a new topic, if nothing else is asked for.
const DEFAULT_PARTITIONS: i32 = 4;

/// What is to be written.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which events.
    pub events: Events,
    /// The topic; of Nexmark's events, what the topics' names begin with.
    pub topic: String,
    /// How many partitions a new topic gets, 4 if that is not said. One that exists must have as many.
    pub partitions: Option<i32>,
    /// Whether topics that do not exist are created.
    pub create: bool,
    /// How many records, closing ones not counted. Not 0.
    pub records: u64,
    /// When.
    pub times: Times,
    /// The same seed, the same records.
    pub seed: u64,
    /// Whether closing records follow.
    pub close: bool,
    /// How the producer compresses batches.
    pub compression: Compression,
}

/// Which events.
#[derive(Clone, Debug, PartialEq)]
pub enum Events {
    /// See [`orders`].
    Orders {
        /// How many customers. Not 0.
        keys: u64,
        /// The exponent of Zipf's law, or 0.
        zipf: f64,
        /// How late an order may be.
        disorder_ms: u64,
        /// The length of a value.
        size_bytes: usize,
    },
    /// See [`nexmark`].
    Nexmark {
        /// Only those of this kind.
        only: Option<Kind>,
    },
}

/// When the events happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// At given times, written as fast as possible.
    Spanning {
        /// The event time of the first.
        start_ms: i64,
        /// That of the last, from there.
        span_ms: u64,
    },
    /// So many a second, from now on.
    Rate(NonZeroU64),
}

/// What has been written.
#[derive(Clone, Debug)]
pub struct Report {
    /// The topics, each with its number of partitions and of records, closing ones included.
    pub topics: Vec<(String, i32, u64)>,
    /// The event times of the first and the last record, closing ones not counted, before disorder.
    pub event_ms: (i64, i64),
    /// How much, how fast, how late.
    pub sent: Sent,
}

/// Why it was not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// Something in the request is wrong. No record was written.
    Refused(String),
    /// Kafka failed. Some of it may have been written.
    Failed(String),
}

impl From<LogError> for Error {
    fn from(error: LogError) -> Error {
        Error::Failed(error.to_string())
    }
}

/// Writes what is requested. Returns when every record is acknowledged by all replicas, each exactly once.
///
/// # Errors
/// See [`Error`].
pub fn write(request: &Request, settings: &ConnectionSettings) -> Result<Report, Error> {
    // A client that cannot be made has a wrong setting.
    let wrong = |error: LogError| Error::Refused(error.to_string());
    let mut admin = KafkaAdmin::new(settings).map_err(wrong)?;
    let partitions = prepare_topics(request, &mut admin)?;
    let topics = request.topics();
    let paced = matches!(request.times, Times::Rate(_));
    let mut producer = Producer {
        writer: KafkaWriter::new(settings, &topics, request.compression, paced).map_err(wrong)?,
        begun: Instant::now(),
        written: 0,
    };
    let start = producer.now() + if paced { LEAD } else { Duration::ZERO };
    let timeline = request.timeline(unix_ms() + LEAD.as_millis() as i64);
    let mut stream = request.stream(&partitions, timeline).map_err(Error::Refused)?;
    let schedule = paced.then_some(Schedule { start, timeline });
    let sent = send(&mut *stream, schedule, &mut producer)?;
    let written = topics.into_iter().zip(partitions).enumerate().map(|(place, (topic, partitions))| {
        (topic, partitions, sent.records.get(place).copied().unwrap_or(0))
    });
    let event_ms = (timeline.start_ms(), timeline.last_ms());
    Ok(Report { topics: written.collect(), event_ms, sent })
}

impl Request {
    /// What can be said without Kafka.
    ///
    /// # Errors
    /// When a value cannot be as short or as long as is asked for.
    pub fn check(&self) -> Result<(), String> {
        let partitions = vec![self.partitions.unwrap_or(DEFAULT_PARTITIONS); self.topics().len()];
        self.stream(&partitions, self.timeline(unix_ms())).map(|_| ())
    }

    /// The topics, in the order in which the stream counts them.
    fn topics(&self) -> Vec<String> {
        match self.events {
            Events::Orders { .. } => vec![self.topic.clone()],
            Events::Nexmark { only } => {
                let kinds = nexmark::Spec::kinds(only).into_iter();
                kinds.map(|kind| format!("{}-{}", self.topic, kind.plural())).collect()
            }
        }
    }

    /// `soon_ms`: when the first record is due if that is not given.
    fn timeline(&self, soon_ms: i64) -> Timeline {
        match self.times {
            Times::Spanning { start_ms, span_ms } => Timeline::spanning(start_ms, span_ms, self.records),
            Times::Rate(rate) => Timeline::at_rate(soon_ms, rate.get(), self.records),
        }
    }

    fn stream(&self, partitions: &[i32], timeline: Timeline) -> Result<Box<dyn Stream>, String> {
        let (seed, close) = (self.seed, self.close);
        Ok(match self.events {
            Events::Orders { keys, zipf, disorder_ms, size_bytes } => {
                let partitions = partitions.first().copied().unwrap_or(1);
                let spec = orders::Spec { seed, keys, zipf, disorder_ms, size_bytes, partitions, close };
                Box::new(Orders::new(spec, timeline)?)
            }
            Events::Nexmark { only } => {
                let spec = nexmark::Spec { seed, only, partitions: partitions.to_vec(), close };
                Box::new(Nexmark::new(spec, timeline))
            }
        })
    }
}

/// Finds or creates the topics; returns their numbers of partitions.
fn prepare_topics(request: &Request, admin: &mut dyn LogAdmin) -> Result<Vec<i32>, Error> {
    let topics = request.topics();
    let found = admin.describe(&topics)?;
    let mut all = Vec::new();
    // First all checks, then all creations.
    for (topic, found) in topics.iter().zip(&found) {
        all.push(match (found, request.partitions) {
            (Some(found), Some(wanted)) if found.partitions != wanted => {
                return Err(Error::Refused(format!(
                    "topic {topic} has {} partitions, not {wanted}: leave --partitions out, or delete the topic",
                    found.partitions
                )));
            }
            (Some(found), _) => found.partitions,
            (None, wanted) if request.create => wanted.unwrap_or(DEFAULT_PARTITIONS),
            (None, _) => {
                return Err(Error::Refused(format!("topic {topic} does not exist; --create creates it")));
            }
        });
    }
    let missing = topics.iter().zip(&all).zip(&found).filter(|(_, found)| found.is_none());
    for ((name, partitions), _) in missing {
        let (name, partitions, config) = (name.clone(), *partitions, Vec::new());
        admin.create(&TopicSpec { name, partitions, replication: DEFAULT_REPLICATION, config })?;
    }
    Ok(all)
}

/// The producer, and the clock by which its records are due.
struct Producer {
    writer: KafkaWriter,
    begun: Instant,
    written: u32,
}

impl Outlet for Producer {
    type Error = LogError;

    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    fn write(&mut self, record: &Record) -> Result<(), LogError> {
        self.written = self.written.wrapping_add(1);
        if self.written.is_multiple_of(SERVE_EVERY) {
            self.writer.serve(0)?;
        }
        self.writer.write(
            record.topic,
            &Outgoing {
                partition: record.partition,
                key: record.key(),
                value: Some(&record.value),
                headers: &[],
                timestamp_ms: record.timestamp_ms,
                tag: 0,
            },
        )
    }

    fn wait(&mut self, time: Duration) -> Result<(), LogError> {
        self.writer.serve(0)?;
        thread::sleep(time.min(Duration::from_millis(100)));
        Ok(())
    }

    fn flush(&mut self) -> Result<(), LogError> {
        self.writer.flush()
    }
}

fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
