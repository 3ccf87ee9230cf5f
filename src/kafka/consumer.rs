//! The consumer: a member of the application's group.
//!
//! A rebalance is taken note of in [`KafkaLog::poll`] and answered when the worker is ready:
//!
//! - Assign: answered at once with an empty assignment. That ends the join: the member is in the group,
//!   its heartbeats go on from librdkafka's own thread, and a revocation can reach it during a restore
//!   of any length. [`KafkaLog::start`] makes the real assignment, with explicit offsets.
//! - Revoke: left open until [`KafkaLog::release`]. The group waits for it (the broker as long as
//!   `max.poll.interval.ms`), heartbeats go on meanwhile.
//!
//! Records do not come through the consumer's queue but through one queue per start, into which each
//! partition's own is forwarded before anything is fetched. With the assignment that queue goes, and
//! with it all that was fetched: nothing of a former assignment can turn up in a later one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::kafka::failure::Remedy;
use crate::kafka::notice::Notices;
use crate::kafka::raw::{Client, Event, Failure, Queue, Wake};
use crate::kafka::settings::{ConnectionSettings, Role};
use crate::record::{Records, TopicPartition};
use crate::worker::port::{Log, LogError, LogEvent};

/// How many events one poll serves at most.
const EVENTS_PER_POLL_MAX: usize = 1_000;

/// How long leaving waits for a join that is under way.
const JOIN_WAIT: Duration = Duration::from_secs(2);

/// A consumer in the application's group. See the module's documentation.
pub struct KafkaLog {
    client: Arc<Client>,
    group: String,
    events: Queue,
    /// What arrives of the partitions that were started; `None` while nothing is read.
    arrivals: Option<Queue>,
    started: Vec<TopicPartition>,
    /// Those of them that are paused.
    paused: Vec<TopicPartition>,
    /// The last stable offset of each partition, as far as known.
    ends: HashMap<TopicPartition, i64>,
    /// How far each partition has been read, markers and aborted records included.
    positions: HashMap<TopicPartition, i64>,
    /// The group wants the partitions back and waits for `release`.
    revoking: bool,
    /// It was never given partitions, or has lost them since.
    is_out: bool,
    closed: bool,
    /// An error that came behind records; told by the next fetch.
    failed: Option<LogError>,
    wake: Option<Arc<Wake>>,
    notices: Notices,
}

impl KafkaLog {
    /// Creates a consumer that joins the group for `topics`. Does not wait for it.
    pub fn new(settings: &ConnectionSettings, topics: &[String]) -> Result<KafkaLog, LogError> {
        let role = Role::Member;
        let client = Client::new(role.kind(), &settings.of(role)).map_err(|text| {
            LogError::Stop(format!("creating the consumer of group {}: {text}", settings.group))
        })?;
        let events = client.events();
        client.subscribe(topics).map_err(|failure| {
            failure.during(&format!("joining group {} for {}", settings.group, topics.join(", ")))
        })?;
        Ok(KafkaLog {
            client,
            group: settings.group.clone(),
            events,
            arrivals: None,
            started: Vec::new(),
            paused: Vec::new(),
            ends: HashMap::new(),
            positions: HashMap::new(),
            revoking: false,
            is_out: true,
            closed: false,
            failed: None,
            wake: None,
            notices: Notices::new("consumer"),
        })
    }

    /// Has `wake` called, by one of librdkafka's threads, whenever records or events have arrived
    /// where there were none: what a fetch has left over wakes nobody. It must not call into this object,
    /// must return at once and not panic.
    pub fn set_wake(&mut self, wake: Box<dyn Fn() + Send + Sync>) {
        let wake = Arc::new(wake);
        self.events.set_wake(wake.clone());
        if let Some(arrivals) = &mut self.arrivals {
            arrivals.set_wake(wake.clone());
        }
        self.wake = Some(wake);
    }

    /// The consumer whose membership commits are made under.
    pub(super) fn client(&self) -> &Arc<Client> {
        &self.client
    }

    fn failed(&self, tried: &str, failure: &Failure) -> LogError {
        failure.during(&format!("{tried} (group {})", self.group))
    }

    /// The client is of no more use. Once its session has ended, librdkafka goes on beating its heart as
    /// a member without an id until the partitions are given back, and the coordinator takes that for another
    /// process of the same name; so it does with a member whose first join it forgot in a crash. Such a fence
    /// says nothing, and the worker joins again as a new client, a few times in a row.
    fn ended(&self, cause: &Failure) -> LogError {
        match cause.remedy() {
            Remedy::Fenced if self.is_out => LogError::Client(format!(
                "consuming (group {}): {} ({:?}) while it had no partitions; if this goes on, another process is a \
                 member under this instance id: give each process a state directory of its own",
                self.group, cause.text, cause.code
            )),
            _ => self.failed("consuming", cause),
        }
    }

    /// Stops reading, and waits until librdkafka has let go of the partitions' queues: a forwarding
    /// set up before that would be undone.
    fn stop(&mut self, answer: Option<&[(TopicPartition, i64)]>) -> Result<(), Failure> {
        self.arrivals = None;
        self.started.clear();
        self.positions.clear();
        self.failed = None;
        // librdkafka would keep them paused when they are assigned anew.
        let paused = std::mem::take(&mut self.paused);
        if !paused.is_empty() {
            self.client.pause(&paused, false)?;
        }
        self.client.assign(answer)?;
        self.client.settle()
    }

    /// Takes note of an event; some are for the worker.
    fn serve(&mut self, event: Event) -> Result<Option<LogEvent>, LogError> {
        match event {
            Event::Assign(partitions) => self.assigned(partitions),
            Event::Revoke => {
                self.revoking = true;
                let lost = self.client.assignment_lost();
                self.is_out |= lost;
                Ok(Some(if lost { LogEvent::Lost } else { LogEvent::Revoked }))
            }
            Event::Error(failure) => match failure.remedy() {
                _ if failure.fatal => {
                    let cause = self.client.fatal().unwrap_or(failure);
                    Err(self.ended(&cause))
                }
                Remedy::Stop | Remedy::Fenced => Err(self.failed("consuming", &failure)),
                _ => {
                    self.notices.error(&failure);
                    Ok(None)
                }
            },
            Event::Statistics(json) => {
                self.note_ends(&json);
                Ok(None)
            }
            // Would be a gap: no partition is read before its records go to `arrivals`.
            Event::Records => Err(LogError::Client(format!(
                "consuming (group {}): a record came by another way than the worker's queue; \
                 the consumer has to be replaced",
                self.group
            ))),
            other => {
                self.notices.event(&other);
                Ok(None)
            }
        }
    }

    fn assigned(&mut self, partitions: Vec<TopicPartition>) -> Result<Option<LogEvent>, LogError> {
        // While the answer is open the member does not rejoin, so who it is now is whom these
        // partitions were given to.
        let membership = self.client.membership();
        let stopped = self.stop(Some(&[]));
        stopped.map_err(|failure| self.failed("accepting an assignment", &failure))?;
        match membership {
            Some(membership) => {
                self.is_out = false;
                Ok(Some(LogEvent::Assigned { partitions, member: membership.member.clone() }))
            }
            None => {
                // Thrown out before it was served: the group gives the partitions again.
                tracing::warn!(group = self.group, "an assignment had lapsed before it was served");
                Ok(None)
            }
        }
    }

    fn note_ends(&mut self, json: &str) {
        match serde_json::from_str::<Statistics>(json) {
            Ok(statistics) => {
                for partition in &self.started {
                    let topic = statistics.topics.get(&*partition.topic);
                    let found =
                        topic.and_then(|topic| topic.partitions.get(&partition.partition.to_string()));
                    if let Some(found) = found.filter(|found| found.ls_offset >= 0) {
                        note(&mut self.ends, partition, found.ls_offset);
                    }
                }
            }
            Err(error) => tracing::warn!("librdkafka's statistics cannot be read, lag is not known: {error}"),
        }
    }

    /// Waits for events until `done`, answering every rebalance with "nothing". False: time is up.
    fn serve_until(&mut self, deadline: Instant, done: impl Fn(&Client) -> bool) -> Result<bool, Failure> {
        while !done(&self.client) {
            if Instant::now() >= deadline {
                return Ok(false);
            }
            match self.events.poll(10) {
                // An assignment is refused by taking none of it; `None` would leave it open.
                Some(Event::Assign(_)) => self.client.assign(Some(&[]))?,
                Some(Event::Revoke) => self.client.assign(None)?,
                Some(other) => self.notices.event(&other),
                None => {}
            }
        }
        Ok(true)
    }

    fn leave_and_close(&mut self, deadline: Instant) -> Result<bool, Failure> {
        let revoking = std::mem::take(&mut self.revoking);
        self.stop(if revoking { None } else { Some(&[]) })?;
        // A member whose first join is under way cannot leave yet: it does not know its id.
        let joined = deadline.min(Instant::now() + JOIN_WAIT);
        self.serve_until(joined, |client| !client.left())?;
        // A static member's close does not leave the group. Giving up the subscription does, once the
        // revocation is answered; it takes the member id away, and only then may the close begin.
        self.client.unsubscribe()?;
        if !self.serve_until(deadline, Client::left)? {
            // A close that has begun must be served to its end, or dropping the client waits for ever.
            return Ok(false);
        }
        self.client.close(&self.events)?;
        self.serve_until(deadline, Client::closed)
    }
}

/// Keeps the larger: an end never moves back.
fn note(ends: &mut HashMap<TopicPartition, i64>, partition: &TopicPartition, end: i64) {
    match ends.get_mut(partition) {
        Some(known) => *known = end.max(*known),
        None => {
            ends.insert(partition.clone(), end);
        }
    }
}

impl Log for KafkaLog {
    fn poll(&mut self) -> Result<Option<LogEvent>, LogError> {
        if self.closed {
            return Ok(None);
        }
        for _ in 0..EVENTS_PER_POLL_MAX {
            let Some(event) = self.events.poll(0) else { break };
            if let Some(event) = self.serve(event)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    fn start(&mut self, positions: &[(TopicPartition, i64)]) -> Result<(), LogError> {
        if self.revoking {
            return Err(LogError::Retry(format!(
                "starting to read (group {}): the group wants the partitions back; release them first",
                self.group
            )));
        }
        let started = (|| {
            self.stop(Some(&[]))?;
            let mut arrivals = self.client.queue();
            if let Some(wake) = &self.wake {
                arrivals.set_wake(wake.clone());
            }
            for (partition, _) in positions {
                self.client.forward(partition, &arrivals)?;
            }
            self.started = positions.iter().map(|(partition, _)| partition.clone()).collect();
            self.arrivals = Some(arrivals);
            self.client.assign(Some(positions))
        })();
        started.map_err(|failure: Failure| self.failed("starting to read", &failure))
    }

    fn pause(&mut self, partition: &TopicPartition, paused: bool) -> Result<(), LogError> {
        let tried = if paused { "pausing" } else { "resuming" };
        let done = self.client.pause(std::slice::from_ref(partition), paused);
        done.map_err(|failure| self.failed(&format!("{tried} {partition}"), &failure))?;
        self.paused.retain(|other| other != partition);
        if paused {
            self.paused.push(partition.clone());
        }
        Ok(())
    }

    fn release(&mut self) -> Result<(), LogError> {
        self.revoking = false;
        self.ends.clear();
        self.stop(None).map_err(|failure| self.failed("giving partitions back", &failure))
    }

    fn fetch(&mut self, records_max: usize) -> Result<Vec<Box<dyn Records>>, LogError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let Some(arrivals) = &self.arrivals else { return Ok(Vec::new()) };
        let arrived = arrivals.consume(records_max, 0, &self.started);
        for batch in &arrived.batches {
            note(&mut self.positions, batch.topic_partition(), batch.next_offset());
        }
        for (partition, end) in &arrived.ends {
            note(&mut self.positions, partition, *end);
            note(&mut self.ends, partition, *end);
        }
        for (partition, offset, failure) in &arrived.failures {
            match failure.remedy() {
                Remedy::Retry => self.notices.error(failure),
                _ => {
                    self.failed =
                        Some(self.failed(&format!("reading {partition} at offset {offset}"), failure));
                }
            }
        }
        match self.failed.take() {
            Some(error) if arrived.batches.is_empty() => Err(error),
            later => {
                self.failed = later;
                Ok(arrived.batches.into_iter().map(|batch| Box::new(batch) as Box<dyn Records>).collect())
            }
        }
    }

    fn read_up_to(&self, partition: &TopicPartition) -> Option<i64> {
        self.positions.get(partition).copied()
    }

    fn end_offset(&self, partition: &TopicPartition) -> Option<i64> {
        self.ends.get(partition).copied()
    }

    fn leave(&mut self, limit_ms: u64) -> Result<(), LogError> {
        if std::mem::replace(&mut self.closed, true) {
            return Ok(());
        }
        let deadline = Instant::now() + Duration::from_millis(limit_ms);
        match self.leave_and_close(deadline) {
            Ok(true) => Ok(()),
            Ok(false) => Err(LogError::Retry(format!(
                "leaving group {}: no answer within {limit_ms} ms; the group waits for this member until \
                 its session ends",
                self.group
            ))),
            Err(failure) => Err(self.failed("leaving the group", &failure)),
        }
    }
}

/// What we read of librdkafka's statistics.
#[derive(Deserialize)]
struct Statistics {
    #[serde(default)]
    topics: HashMap<String, TopicStatistics>,
}

#[derive(Deserialize)]
struct TopicStatistics {
    partitions: HashMap<String, PartitionStatistics>,
}

#[derive(Deserialize)]
struct PartitionStatistics {
    /// The last stable offset as of the last fetch; below 0: none yet.
    ls_offset: i64,
}
