//! What librdkafka has to say, in the log: not more often than anyone wants to read it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::kafka::raw::{Event, Failure};

/// One line of a kind in so much time.
const INTERVAL: Duration = Duration::from_secs(10);

/// Writes a client's errors and log lines through `tracing`, one of a kind every 10 s.
pub(super) struct Notices {
    client: &'static str,
    said: HashMap<String, (Instant, u64)>,
}

impl Notices {
    /// `client` says whose they are.
    pub fn new(client: &'static str) -> Notices {
        Notices { client, said: HashMap::new() }
    }

    /// An error that the client mends by itself.
    pub fn error(&mut self, failure: &Failure) {
        if let Some(repeated) = self.due(format!("{:?}", failure.code)) {
            let (client, code, text) = (self.client, failure.code, &failure.text);
            tracing::warn!(
                client,
                ?code,
                repeated,
                "{text}. Trying again by itself; if it lasts, check the brokers and kafka.bootstrap_servers"
            );
        }
    }

    /// A line of librdkafka's own log. Its levels are syslog's: up to 3 are errors, 4 warnings.
    pub fn log(&mut self, level: i32, facility: &str, text: &str) {
        // Settings of the other half of librdkafka, and what debugging prints.
        if level >= 7 || facility == "CONFWARN" {
            return;
        }
        let Some(repeated) = self.due(facility.to_owned()) else { return };
        let client = self.client;
        match level {
            ..=4 => tracing::warn!(client, facility, repeated, "librdkafka: {text}"),
            _ => tracing::info!(client, facility, repeated, "librdkafka: {text}"),
        }
    }

    /// Passes on whatever an event says that is no concern of the caller's.
    pub fn event(&mut self, event: &Event) {
        match event {
            Event::Error(failure) => self.error(failure),
            Event::Log(level, facility, text) => self.log(*level, facility, text),
            _ => {}
        }
    }

    /// Whether a notice of this kind is due; if so, how many were kept back since the last.
    fn due(&mut self, kind: String) -> Option<u64> {
        let now = Instant::now();
        match self.said.get_mut(&kind) {
            Some((at, kept_back)) if now.duration_since(*at) < INTERVAL => {
                *kept_back += 1;
                None
            }
            Some((at, kept_back)) => {
                *at = now;
                Some(std::mem::take(kept_back))
            }
            None => {
                self.said.insert(kind, (now, 0));
                Some(0)
            }
        }
    }
}
