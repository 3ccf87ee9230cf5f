//! A producer without transactions, for what is written to topics that no application owns yet: the events
//! of a benchmark. It is idempotent and hears of every record's fate, so that what it has flushed is there,
//! each record once and in order.

use std::sync::Arc;

use rdkafka::types::RDKafkaErrorCode as Code;

use crate::kafka::notice::Notices;
use crate::kafka::raw::{Client, Event, Failure, Outgoing, Queue, Topic};
use crate::kafka::settings::{Compression, ConnectionSettings, Role};
use crate::worker::port::LogError;

/// How long one wait for an event lasts.
const WAIT_MS: u64 = 100;

/// The producer. See the module's documentation.
pub struct KafkaWriter {
    // Before the client, which must go last.
    topics: Vec<(String, Topic)>,
    events: Queue,
    client: Arc<Client>,
    /// Records without a delivery yet.
    outstanding: u64,
    acknowledged: u64,
    /// The first delivery that failed, or the fatal error of the client.
    failure: Option<Failure>,
    notices: Notices,
}

impl KafkaWriter {
    /// A producer for these topics. It connects by itself. If `paced`, records come one by one and are sent
    /// within a millisecond, else they come as fast as possible and are sent in large batches.
    ///
    /// # Errors
    /// When a setting is wrong.
    pub fn new(
        settings: &ConnectionSettings,
        topics: &[String],
        compression: Compression,
        paced: bool,
    ) -> Result<KafkaWriter, LogError> {
        let role = Role::Writer { compression, paced };
        let client = Client::new(role.kind(), &settings.of(role))
            .map_err(|text| LogError::Stop(format!("creating the producer: {text}")))?;
        let handle = |topic: &String| match client.topic(topic) {
            Ok(handle) => Ok((topic.clone(), handle)),
            Err(failure) => Err(failure.during(&format!("writing to {topic}"))),
        };
        Ok(KafkaWriter {
            topics: topics.iter().map(handle).collect::<Result<_, LogError>>()?,
            events: client.events(),
            client,
            outstanding: 0,
            acknowledged: 0,
            failure: None,
            notices: Notices::new("producer"),
        })
    }

    /// Hands a record over, to the topic of this place; waits while the producer's queue is full.
    ///
    /// # Errors
    /// When this or an earlier record could not be written.
    pub fn write(&mut self, topic: usize, record: &Outgoing<'_>) -> Result<(), LogError> {
        loop {
            let (name, handle) = &self.topics[topic];
            match handle.produce(record) {
                Ok(()) => {
                    self.outstanding += 1;
                    return Ok(());
                }
                Err(failure) if failure.code == Code::QueueFull => self.serve(WAIT_MS)?,
                Err(failure) => {
                    let cause = self.client.fatal().unwrap_or(failure);
                    return Err(cause.during(&format!("writing to {name}[{}]", record.partition)));
                }
            }
        }
    }

    /// Hears of what was written, waiting up to `timeout_ms` for the first news.
    ///
    /// # Errors
    /// When a record could not be written.
    pub fn serve(&mut self, timeout_ms: u64) -> Result<(), LogError> {
        let mut wait_ms = timeout_ms;
        while let Some(event) = self.events.poll(wait_ms) {
            wait_ms = 0;
            match event {
                Event::Delivered(deliveries) => {
                    for delivery in deliveries {
                        self.outstanding = self.outstanding.saturating_sub(1);
                        match delivery.offset {
                            Ok(_) => self.acknowledged += 1,
                            Err(failure) => {
                                self.failure.get_or_insert(failure);
                            }
                        }
                    }
                }
                Event::Error(failure) if failure.fatal => {
                    let cause = self.client.fatal().unwrap_or(failure);
                    self.failure.get_or_insert(cause);
                }
                event => self.notices.event(&event),
            }
        }
        match &self.failure {
            None => Ok(()),
            Some(failure) => {
                let tried = format!("writing records, of which {} are acknowledged", self.acknowledged);
                Err(failure.during(&tried))
            }
        }
    }

    /// Returns when all records are acknowledged.
    ///
    /// # Errors
    /// When one could not be written.
    pub fn flush(&mut self) -> Result<(), LogError> {
        // Each gets an answer of some kind within the time-out of its delivery.
        while self.outstanding > 0 {
            self.serve(WAIT_MS)?;
        }
        self.serve(0)
    }
}
