//! From settings to what the Kafka clients are configured with.

use super::identity::StateDir;
use crate::kafka::ConnectionSettings;
use crate::settings::Settings;

/// How many bytes of fetched records may wait in each worker's consumer.
const FETCH_QUEUE_BYTES_MAX: u64 = 4 << 20;

/// Whose connection it is.
#[derive(Clone, Copy, Debug)]
pub enum Member<'s> {
    /// A worker's, under the identity of its state directory.
    Worker {
        /// The directory.
        state: &'s StateDir,
        /// Its number, from 0.
        worker: usize,
        /// Whether it is one of a bounded run.
        bounded: bool,
    },
    /// One that is no member of the group and commits nothing: administration.
    None,
}

/// The connection of `member` of an application.
pub fn connection(settings: &Settings, application: &str, member: Member<'_>) -> ConnectionSettings {
    let kafka = &settings.kafka;
    let mut librdkafka: Vec<(String, String)> = kafka.librdkafka.clone().into_iter().collect();
    let client_id = kafka.client_id.clone().unwrap_or_else(|| format!("thalweg-{application}"));
    librdkafka.push(("client.id".into(), client_id));
    let (instance_id, transactional_id) = match member {
        Member::Worker { state, worker, bounded } => {
            (Some(state.instance_id(worker, bounded)), state.transactional_id(worker))
        }
        Member::None => (None, String::new()),
    };
    ConnectionSettings {
        bootstrap_servers: kafka.bootstrap_servers.clone(),
        librdkafka,
        group: application.to_owned(),
        instance_id,
        session_timeout_ms: kafka.session_timeout_ms,
        transactional_id,
        transaction_timeout_ms: kafka.transaction_timeout_ms,
        fetch_queue_bytes_max: FETCH_QUEUE_BYTES_MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_has_the_names_of_its_state_directory() {
        let temp = tempfile::tempdir().unwrap();
        let state = StateDir::open(temp.path(), "revenue").unwrap();
        let mut settings = Settings::default();
        settings.kafka.bootstrap_servers = "k1:9092,k2:9092".into();
        settings.kafka.librdkafka.insert("security.protocol".into(), "SSL".into());
        let of =
            connection(&settings, "revenue", Member::Worker { state: &state, worker: 2, bounded: false });
        assert_eq!((of.group.as_str(), of.bootstrap_servers.as_str()), ("revenue", "k1:9092,k2:9092"));
        assert_eq!(of.instance_id, Some(format!("{}-2", state.uuid())));
        assert_eq!(of.transactional_id, format!("revenue-{}-2", state.uuid()));
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(of.librdkafka, [pair("security.protocol", "SSL"), pair("client.id", "thalweg-revenue")]);

        settings.kafka.client_id = Some("mine".into());
        let of = connection(&settings, "revenue", Member::None);
        assert_eq!(of.instance_id, None);
        assert_eq!(of.librdkafka[1], pair("client.id", "mine"));
    }
}
