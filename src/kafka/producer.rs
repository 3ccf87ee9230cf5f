//! The transactional producer: one checkpoint, one transaction.
//!
//! A commit runs through `begin → produce → send offsets → take deliveries → commit`, in that order. The
//! deliveries are taken here, by waiting for the next event, since librdkafka's own flush looks for them
//! only every 100 ms.
//!
//! librdkafka does not implement the second part of KIP-890: it may repeat a commit request under the
//! same epoch, and a copy that the network held back could end the next transaction. So after any error,
//! and after a commit during which a connection broke or a request timed out, the producer is replaced
//! before the next transaction begins: a new one has a new epoch, and the copy is refused.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::types::RDKafkaErrorCode as Code;

use crate::kafka::consumer::KafkaLog;
use crate::kafka::metadata;
use crate::kafka::notice::Notices;
use crate::kafka::raw::{Client, Delivery, Event, Failure, Membership, Outgoing, Queue, Topic};
use crate::kafka::settings::{ConnectionSettings, Role};
use crate::worker::port::{CommitError, LogError, Member, Receipt, Transaction, TransactionLog};

/// Called with the name of each point of a commit at which tests end the process: `offsets_sent`,
/// `commit_sent` (the request is on its way, no answer has come), `committed`. Installing one makes
/// librdkafka log every request, so production has none.
pub type CrashPoint = Arc<dyn Fn(&str) + Send + Sync>;

/// The delivery of a record whose offset nobody wants. Others carry their number, counted from 1.
const NO_TAG: usize = 0;

/// How long one wait for an event lasts before time is looked at again.
const WAIT_MS: u64 = 100;

/// Before a call that may be made again is: some fail at once while a broker is away.
const RETRY_WAIT: Duration = Duration::from_millis(10);

/// The transactional producer of one worker. See the module's documentation.
pub struct KafkaTransactionLog {
    settings: ConnectionSettings,
    /// The consumer whose membership the commits are made under.
    consumer: Arc<Client>,
    crash_point: Option<CrashPoint>,
    /// `None` before the first `init` and after an error.
    producer: Option<Producer>,
    notices: Notices,
}

/// A producer whose transactions are initialised.
struct Producer {
    // Before the client, which must go last.
    topics: hashbrown::HashMap<Arc<str>, Topic, ahash::RandomState>,
    events: Queue,
    client: Arc<Client>,
    /// A connection broke or a request timed out during the last commit.
    suspect: bool,
}

/// The transaction under way.
struct Progress {
    deadline: Instant,
    /// Records without a delivery yet.
    outstanding: usize,
    /// By number, the offset of each change.
    offsets: Vec<i64>,
    /// The first delivery that failed, or the fatal error of the client.
    failure: Option<Failure>,
}

impl Progress {
    /// Every change must have its offset: restores count on it. A record that the broker knew already
    /// (a duplicate after a retry) is acknowledged without one.
    fn check_placed(&self) -> Result<(), CommitError> {
        match self.offsets.iter().all(|offset| *offset >= 0) {
            true => Ok(()),
            false => Err(CommitError::Doubt(
                "writing the records of a transaction: one was acknowledged without its offset".into(),
            )),
        }
    }

    fn remaining_ms(&self) -> u64 {
        let left = self.deadline.saturating_duration_since(Instant::now());
        u64::try_from(left.as_millis()).unwrap_or(u64::MAX)
    }

    fn delivered(&mut self, delivery: Delivery) {
        self.outstanding = self.outstanding.saturating_sub(1);
        match delivery.offset {
            Ok(_) if delivery.tag == NO_TAG => {}
            Ok(offset) => self.offsets[delivery.tag - 1] = offset,
            Err(failure) => {
                self.failure.get_or_insert(failure);
            }
        }
    }
}

impl KafkaTransactionLog {
    /// A producer that commits for `log`. Nothing is connected before
    /// [`init`](TransactionLog::init). When `log` is replaced this has to be as well.
    pub fn new(settings: &ConnectionSettings, log: &KafkaLog, crash_point: Option<CrashPoint>) -> Self {
        KafkaTransactionLog {
            settings: settings.clone(),
            consumer: log.client().clone(),
            crash_point,
            producer: None,
            notices: Notices::new("producer"),
        }
    }

    fn create(&mut self, limit_ms: u64) -> Result<Producer, LogError> {
        // The former one goes first, with whatever it still had to send, unless a call was left behind in it: then
        // the new one fences it.
        self.producer = None;
        let id = &self.settings.transactional_id;
        let role = Role::Producer { crash_points: self.crash_point.is_some() };
        let client = Client::new(role.kind(), &self.settings.of(role))
            .map_err(|text| LogError::Stop(format!("creating the producer {id}: {text}")))?;
        let events = client.events();
        let deadline = Instant::now() + Duration::from_millis(limit_ms);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let result = client.init_transactions(u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
            while let Some(event) = events.poll(0) {
                self.notices.event(&event);
            }
            match result {
                Ok(()) => return Ok(Producer { topics: Default::default(), events, client, suspect: false }),
                Err(failure) if failure.retriable && Instant::now() < deadline => thread::sleep(RETRY_WAIT),
                Err(failure) => {
                    let failure = client.fatal().unwrap_or(failure);
                    return Err(failure.during(&format!("initialising the transactions of {id}")));
                }
            }
        }
    }

    /// The membership that the offsets are sent under, if it is still the given one.
    fn membership(&self, member: &Member) -> Result<Arc<Membership>, CommitError> {
        let group = &self.settings.group;
        match self.consumer.membership() {
            Some(now) if now.member == *member => Ok(Arc::new(now)),
            Some(now) => Err(CommitError::NotOwner(format!(
                "committing for member {} of generation {} of group {group}: the consumer is member {} of \
                 generation {} now; nothing was sent",
                member.id, member.generation, now.member.id, now.member.generation
            ))),
            None => Err(CommitError::NotOwner(format!(
                "committing for member {} of generation {} of group {group}: the consumer is no member any \
                 more; nothing was sent",
                member.id, member.generation
            ))),
        }
    }

    fn run(
        &mut self,
        producer: &mut Producer,
        transaction: &Transaction,
        membership: &Arc<Membership>,
    ) -> Result<Receipt, CommitError> {
        let limit = Duration::from_millis(self.settings.transaction_timeout_ms);
        let changes = transaction.changes.iter().map(|(_, records)| records.len()).sum();
        let mut progress = Progress {
            deadline: Instant::now() + limit,
            outstanding: 0,
            offsets: vec![-1; changes],
            failure: None,
        };
        producer.serve(&mut progress, 0, &mut self.notices);
        producer.suspect = false;

        producer.client.begin().map_err(|failure| producer.error("beginning a transaction", failure))?;
        producer.produce_all(transaction, &mut progress, &mut self.notices)?;
        producer.send_offsets(transaction, membership, &progress)?;
        self.reached("offsets_sent");
        producer.take_deliveries(&mut progress, &mut self.notices)?;
        producer.end(&mut progress, self.crash_point.as_ref(), &mut self.notices)?;
        self.reached("committed");

        let mut offsets = progress.offsets.into_iter();
        let receipt =
            transaction.changes.iter().map(|(_, records)| offsets.by_ref().take(records.len()).collect());
        Ok(Receipt { change_offsets: receipt.collect() })
    }

    fn reached(&self, point: &str) {
        if let Some(crash_point) = &self.crash_point {
            crash_point(point);
        }
    }
}

impl TransactionLog for KafkaTransactionLog {
    fn init(&mut self, limit_ms: u64) -> Result<(), LogError> {
        let producer = self.create(limit_ms)?;
        self.producer = Some(producer);
        Ok(())
    }

    fn commit(&mut self, transaction: Transaction, member: &Member) -> Result<Receipt, CommitError> {
        // Taken out, so that an error on the way leaves none behind.
        let Some(mut producer) = self.producer.take() else {
            return Err(CommitError::Doubt(
                "committing: the producer is not initialised; nothing was sent".into(),
            ));
        };
        if transaction.offsets.is_empty() {
            // Nothing would fence it.
            return Err(CommitError::Doubt("committing: no offsets were given; nothing was sent".into()));
        }
        if producer.suspect {
            drop(producer);
            let limit_ms = self.settings.transaction_timeout_ms;
            producer = self.create(limit_ms).map_err(|error| match error {
                LogError::Stop(text) => CommitError::Stop(text),
                other => CommitError::Doubt(other.to_string()),
            })?;
        }
        // The very metadata that was compared goes to the coordinator, which refuses it if the group has
        // moved on in the meantime.
        let membership = self.membership(member)?;
        let receipt = self.run(&mut producer, &transaction, &membership)?;
        self.producer = Some(producer);
        Ok(receipt)
    }
}

impl Producer {
    /// Serves the events that are there, waiting up to `timeout_ms` for the first.
    fn serve(&mut self, progress: &mut Progress, timeout_ms: u64, notices: &mut Notices) {
        let mut wait_ms = timeout_ms;
        while let Some(event) = self.events.poll(wait_ms) {
            wait_ms = 0;
            match event {
                Event::Delivered(deliveries) => deliveries.into_iter().for_each(|d| progress.delivered(d)),
                Event::Error(failure) if failure.fatal => {
                    let cause = self.client.fatal().unwrap_or(failure);
                    progress.failure.get_or_insert(cause);
                }
                Event::Error(failure) => {
                    self.suspect = true;
                    notices.error(&failure);
                }
                Event::Log(level, facility, text) => {
                    self.suspect |= facility == "REQTMOUT" || facility == "FAIL";
                    notices.log(level, &facility, &text);
                }
                _ => {}
            }
        }
    }

    /// The error of a commit. Behind a fatal one librdkafka keeps its cause, and behind one that leaves
    /// nothing but to abort.
    fn error(&self, tried: &str, failure: Failure) -> CommitError {
        let mut cause = self.client.fatal().or_else(|| self.aborted()).unwrap_or(failure);
        if cause.code == Code::TopicAuthorizationFailed {
            // The cause does not say which.
            let mut topics: Vec<&str> = self.topics.keys().map(|topic| &**topic).collect();
            topics.sort_unstable();
            cause.text = format!("{} (writing to {})", cause.text, topics.join(", "));
        }
        cause.during_commit(tried)
    }

    /// Why the transaction can only be aborted; `None` if that is not so. What fails after the cause, such
    /// as deliveries and offsets, says only that it fails. A transaction that has failed refuses to begin
    /// another one with what made it fail, and librdkafka has no other way to ask. One in which a call was left
    /// behind refuses because of that. This producer is not used again in any case.
    fn aborted(&self) -> Option<Failure> {
        self.client.begin().err().filter(|failure| !matches!(failure.code, Code::State | Code::Conflict))
    }

    fn produce_all(
        &mut self,
        transaction: &Transaction,
        progress: &mut Progress,
        notices: &mut Notices,
    ) -> Result<(), CommitError> {
        for record in &transaction.outputs {
            let outgoing = Outgoing {
                partition: record.partition,
                key: record.key.as_deref(),
                value: record.value.as_deref(),
                headers: &record.headers,
                timestamp_ms: on_the_wire(record.timestamp_ms),
                tag: NO_TAG,
            };
            self.produce(&record.topic, &outgoing, progress, notices)?;
        }
        let mut tag = NO_TAG;
        for (partition, records) in &transaction.changes {
            for value in records {
                tag += 1;
                let outgoing = Outgoing {
                    partition: partition.partition,
                    key: None,
                    value: Some(value),
                    headers: &[],
                    timestamp_ms: 0,
                    tag,
                };
                self.produce(&partition.topic, &outgoing, progress, notices)?;
            }
        }
        Ok(())
    }

    fn produce(
        &mut self,
        topic: &Arc<str>,
        record: &Outgoing<'_>,
        progress: &mut Progress,
        notices: &mut Notices,
    ) -> Result<(), CommitError> {
        let tried = || format!("writing {} bytes to {topic}[{}]", record.bytes(), record.partition);
        if !self.topics.contains_key(topic) {
            let handle = self.client.topic(topic).map_err(|failure| self.error(&tried(), failure))?;
            self.topics.insert(topic.clone(), handle);
        }
        loop {
            match self.topics[topic].produce(record) {
                Ok(()) => {
                    progress.outstanding += 1;
                    return Ok(());
                }
                Err(failure) if failure.code == Code::QueueFull && progress.remaining_ms() > 0 => {
                    self.serve(progress, WAIT_MS, notices);
                }
                Err(failure) => return Err(self.error(&tried(), failure)),
            }
        }
    }

    fn send_offsets(
        &self,
        transaction: &Transaction,
        membership: &Arc<Membership>,
        progress: &Progress,
    ) -> Result<(), CommitError> {
        loop {
            let left_ms = progress.remaining_ms();
            match self.client.send_offsets(&transaction.offsets, metadata, membership, left_ms) {
                Ok(()) => return Ok(()),
                Err(failure) if failure.retriable && progress.remaining_ms() > 0 => thread::sleep(RETRY_WAIT),
                Err(failure) => return Err(self.error("sending the offsets of a transaction", failure)),
            }
        }
    }

    fn take_deliveries(&mut self, progress: &mut Progress, notices: &mut Notices) -> Result<(), CommitError> {
        loop {
            if let Some(failure) = progress.failure.take() {
                return Err(self.error("writing the records of a transaction", failure));
            }
            if progress.outstanding == 0 {
                return progress.check_placed();
            }
            let left = progress.remaining_ms();
            if left == 0 {
                return Err(CommitError::Doubt(format!(
                    "writing the records of a transaction: {} of them were not acknowledged in time",
                    progress.outstanding
                )));
            }
            self.serve(progress, WAIT_MS.min(left), notices);
        }
    }

    /// Sends the commit and waits for its answer.
    fn end(
        &mut self,
        progress: &mut Progress,
        crash_point: Option<&CrashPoint>,
        notices: &mut Notices,
    ) -> Result<(), CommitError> {
        loop {
            let limit_ms = progress.remaining_ms();
            let result = match crash_point {
                None => self.client.commit(limit_ms),
                Some(crash_point) => self.commit_watched(limit_ms, crash_point),
            };
            // What happened on the way decides whether this producer may be used again.
            self.serve(progress, 0, notices);
            match result {
                Ok(()) => return Ok(()),
                Err(failure) if failure.retriable && progress.remaining_ms() > 0 => {
                    self.suspect = true;
                    thread::sleep(RETRY_WAIT);
                }
                Err(failure) => return Err(self.error("committing a transaction", failure)),
            }
        }
    }

    /// Commits on another thread, and reads librdkafka's log of its requests meanwhile to see the
    /// commit leave.
    fn commit_watched(&mut self, limit_ms: u64, crash_point: &CrashPoint) -> Result<(), Failure> {
        let (client, events) = (&self.client, &self.events);
        thread::scope(|scope| {
            let commit = scope.spawn(|| client.commit(limit_ms));
            while !commit.is_finished() {
                match events.poll(1) {
                    Some(Event::Log(_, _, text)) if text.contains("Sent EndTxnRequest") => {
                        crash_point("commit_sent");
                    }
                    _ => {}
                }
            }
            commit.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Outgoing<'_> {
    fn bytes(&self) -> usize {
        self.key.map_or(0, <[u8]>::len) + self.value.map_or(0, <[u8]>::len)
    }
}

/// librdkafka takes 0 for "now", and brokers refuse times before the epoch: such records are written
/// with the first time that can be written.
fn on_the_wire(timestamp_ms: i64) -> i64 {
    if timestamp_ms == -1 { 0 } else { timestamp_ms.max(1) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::raw::Kind;

    /// What comes of a transaction with two changes whose deliveries are these: tag and offset.
    fn taken(deliveries: [(usize, i64); 3]) -> Result<Vec<i64>, CommitError> {
        let settings = [("bootstrap.servers", "127.0.0.1:1"), ("log.queue", "true")];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let client = Client::new(Kind::Producer, &settings).unwrap();
        let (topics, events) = (Default::default(), client.events());
        let mut producer = Producer { topics, events, client, suspect: false };
        let deadline = Instant::now() + Duration::from_secs(30);
        let (outstanding, offsets) = (deliveries.len(), vec![-1; 2]);
        let mut progress = Progress { deadline, outstanding, offsets, failure: None };
        for (tag, offset) in deliveries {
            progress.delivered(Delivery { tag, offset: Ok(offset) });
        }
        producer.take_deliveries(&mut progress, &mut Notices::new("test"))?;
        Ok(progress.offsets)
    }

    #[test]
    fn a_change_that_was_acknowledged_without_its_offset_leaves_the_commit_in_doubt() {
        // librdkafka reports a duplicate, known to the broker from before a retry, with this offset.
        const INVALID: i64 = -1001;
        for deliveries in [[(NO_TAG, 7), (1, 8), (2, INVALID)], [(1, INVALID), (2, 9), (NO_TAG, 7)]] {
            let doubt = taken(deliveries);
            let Err(CommitError::Doubt(why)) = doubt else { panic!("{deliveries:?}: {doubt:?}") };
            assert!(why.contains("without its offset"), "{why}");
        }
        // Nobody asks for an output's.
        assert_eq!(taken([(NO_TAG, INVALID), (2, 9), (1, 8)]).unwrap(), [8, 9]);
    }

    #[test]
    fn a_time_that_cannot_be_written_is_not_taken_for_now() {
        assert_eq!(on_the_wire(-1), 0, "now");
        assert_eq!(on_the_wire(0), 1);
        assert_eq!(on_the_wire(-86_400_000), 1);
        assert_eq!(on_the_wire(1_700_000_000_000), 1_700_000_000_000);
    }
}
