//! Looks up and reads what a restore needs.
//!
//! Two clients, since librdkafka ties what a look-up may see to the client's `isolation.level`: one that
//! is read_committed and in the application's group (it never joins; it may ask for the group's
//! offsets), and one that is read_uncommitted. In librdkafka 2.12.1 the end that
//! `rd_kafka_query_watermark_offsets` finds is the last stable offset for the first and the high
//! watermark for the second, and `rd_kafka_committed` waits for stable offsets with the first only.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::types::RDKafkaErrorCode as Code;

use crate::kafka::failure::Remedy;
use crate::kafka::notice::Notices;
use crate::kafka::raw::{Client, Event, Failure, Queue};
use crate::kafka::settings::{ConnectionSettings, Role};
use crate::record::{Records, TopicPartition};
use crate::worker::port::{Apply, ChangelogReader, LogError};

/// How long one look-up may take.
const LOOKUP_MS: u64 = 10_000;
/// How many records are taken at once.
const BATCH_RECORDS_MAX: usize = 1_000;
/// How long one wait for records lasts before errors and time are looked at again.
const WAIT_MS: u64 = 100;
/// Between two questions for offsets that a transaction still holds.
const UNSTABLE_WAIT_MS: u64 = 20;

/// Reads changelogs and the group's offsets for one restore. See the module's documentation.
pub struct KafkaChangelogReader {
    group: String,
    committed: Side,
    uncommitted: Side,
    notices: Notices,
}

/// A client and what it tells.
struct Side {
    events: Queue,
    client: Arc<Client>,
}

impl Side {
    fn new(settings: &ConnectionSettings, role: Role) -> Result<Side, LogError> {
        let client = Client::new(role.kind(), &settings.of(role))
            .map_err(|text| LogError::Stop(format!("creating the reader of changelogs: {text}")))?;
        Ok(Side { events: client.events(), client })
    }
}

impl KafkaChangelogReader {
    /// Creates a reader. Connects when it is first asked for something.
    pub fn new(settings: &ConnectionSettings) -> Result<KafkaChangelogReader, LogError> {
        Ok(KafkaChangelogReader {
            group: settings.group.clone(),
            committed: Side::new(settings, Role::Committed)?,
            uncommitted: Side::new(settings, Role::Uncommitted)?,
            notices: Notices::new("reader"),
        })
    }

    /// Writes down what the clients tell; an error among it that a restore cannot get over is returned.
    fn serve(&mut self, tried: &str) -> Result<(), LogError> {
        for side in [&self.committed, &self.uncommitted] {
            while let Some(event) = side.events.poll(0) {
                match &event {
                    Event::Error(failure) if failure.remedy() != Remedy::Retry => {
                        return Err(failure.during(tried));
                    }
                    event => self.notices.event(event),
                }
            }
        }
        Ok(())
    }

    fn watermarks(&mut self, committed: bool, partition: &TopicPartition) -> Result<(i64, i64), LogError> {
        let tried = format!("looking up the ends of {partition}");
        let side = if committed { &self.committed } else { &self.uncommitted };
        let found = side.client.watermarks(partition, LOOKUP_MS);
        self.serve(&tried)?;
        found.map_err(|failure| failure.during(&tried))
    }

    /// Reads from an assignment that stands; see [`ChangelogReader::read`].
    fn read_from(
        &mut self,
        queue: &Queue,
        wanted: &Wanted<'_>,
        apply: &mut Apply<'_>,
    ) -> Result<(), LogError> {
        let (partition, stall) = (wanted.partition, Duration::from_millis(wanted.stall_ms));
        let mut position = wanted.from;
        let mut moved = Instant::now();
        while position < wanted.to {
            let known = std::slice::from_ref(partition);
            let arrived = queue.consume(BATCH_RECORDS_MAX, WAIT_MS.min(wanted.stall_ms), known);
            let before = position;
            for batch in &arrived.batches {
                for index in 0..batch.len() {
                    let record = batch.record(index);
                    // Below `from` nothing is asked for; at `to` the end is reached.
                    if record.offset >= position && record.offset < wanted.to {
                        let value = record.value.unwrap_or_default();
                        apply(record.offset, value).map_err(|error| {
                            LogError::Stop(format!(
                                "applying {partition} at offset {}: {error}",
                                record.offset
                            ))
                        })?;
                    }
                }
                position = position.max(batch.next_offset());
            }
            // The end of a partition lies behind its last marker or aborted record.
            position = arrived.ends.iter().fold(position, |position, (_, end)| position.max(*end));
            for (_, offset, failure) in &arrived.failures {
                match failure.remedy() {
                    Remedy::Retry => self.notices.error(failure),
                    _ => return Err(failure.during(&format!("reading {partition} at offset {offset}"))),
                }
            }
            self.serve(&format!("reading {partition} at offset {position}"))?;
            if position > before {
                moved = Instant::now();
            } else if moved.elapsed() >= stall {
                return Err(LogError::Retry(format!(
                    "reading {partition} from offset {} to {}: nothing has come after {position} for {} ms; is \
                     its leader there?",
                    wanted.from, wanted.to, wanted.stall_ms
                )));
            }
        }
        Ok(())
    }
}

/// What a read is asked for.
struct Wanted<'a> {
    partition: &'a TopicPartition,
    from: i64,
    to: i64,
    stall_ms: u64,
}

impl ChangelogReader for KafkaChangelogReader {
    fn committed_offsets(
        &mut self,
        partitions: &[TopicPartition],
        limit_ms: u64,
    ) -> Result<Vec<Option<i64>>, LogError> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let tried = format!("reading the committed offsets of group {}", self.group);
        let deadline = Instant::now() + Duration::from_millis(limit_ms);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX).clamp(1, LOOKUP_MS);
            let found = self.committed.client.committed(partitions, left_ms);
            self.serve(&tried)?;
            let failure =
                match found.and_then(|found| found.into_iter().collect::<Result<Vec<i64>, Failure>>()) {
                    Ok(found) => {
                        return Ok(found.into_iter().map(|offset| (offset >= 0).then_some(offset)).collect());
                    }
                    Err(failure) => failure,
                };
            if failure.remedy() != Remedy::Retry || Instant::now() >= deadline {
                // librdkafka asks again by itself while a transaction holds them, until its time is up.
                let unstable = if matches!(failure.code, Code::UnstableOffsetCommit | Code::OperationTimedOut)
                {
                    "; if the broker answers, a transaction on them is still open and holds them until it ends \
                     or times out; one that outlives its transaction.timeout.ms has lost its end in a crash of a \
                     broker: `kafka-transactions.sh find-hanging`, then `abort`, on topic __consumer_offsets"
                } else {
                    ""
                };
                return Err(failure.during(&format!("{tried} within {limit_ms} ms{unstable}")));
            }
            std::thread::sleep(Duration::from_millis(UNSTABLE_WAIT_MS));
        }
    }

    fn log_start(&mut self, partition: &TopicPartition) -> Result<i64, LogError> {
        self.watermarks(false, partition).map(|(start, _)| start)
    }

    fn high_watermark(&mut self, partition: &TopicPartition) -> Result<i64, LogError> {
        self.watermarks(false, partition).map(|(_, end)| end)
    }

    fn last_stable_offset(&mut self, partition: &TopicPartition) -> Result<i64, LogError> {
        self.watermarks(true, partition).map(|(_, end)| end)
    }

    /// Always empty: librdkafka cannot ask for a partition's producers.
    fn open_transactions(&mut self, _: &TopicPartition) -> Vec<i64> {
        Vec::new()
    }

    fn read(
        &mut self,
        partition: &TopicPartition,
        from: i64,
        to: i64,
        stall_ms: u64,
        apply: &mut Apply<'_>,
    ) -> Result<(), LogError> {
        if from >= to {
            return Ok(());
        }
        let tried = format!("reading {partition} from offset {from}");
        let client = self.committed.client.clone();
        let queue = client.queue();
        // What an assignment before this one stops must be stopped before its queue is forwarded anew.
        let assigned = client
            .settle()
            .and_then(|()| client.forward(partition, &queue))
            .and_then(|()| client.assign(Some(&[(partition.clone(), from)])));
        assigned.map_err(|failure| failure.during(&tried))?;
        let read = self.read_from(&queue, &Wanted { partition, from, to, stall_ms }, apply);
        let stopped = client.assign(None).map_err(|failure| failure.during(&tried));
        read.and(stopped)
    }
}
