//! Which of librdkafka's properties are not for the operator to set, and which are secret.

use crate::kafka::ENGINE_OWNED;

/// Why a property is refused; `None` if it may be set.
pub(super) fn refusal(property: &str) -> Option<&'static str> {
    let reason = match property {
        "bootstrap.servers" | "metadata.broker.list" => "set kafka.bootstrap_servers instead",
        "client.id" => "set kafka.client_id instead",
        "session.timeout.ms" => "set kafka.session_timeout instead",
        "transaction.timeout.ms" => "set kafka.transaction_timeout instead",
        "transactional.id" => "it is how a process fences the one that it replaces",
        "partition.assignment.strategy" => "tasks need the partitions of equal number on one worker",
        "enable.idempotence"
        | "max.in.flight"
        | "max.in.flight.requests.per.connection"
        | "acks"
        | "request.required.acks"
        | "message.send.max.retries"
        | "retries"
        | "enable.gapless.guarantee" => "transactions depend on it",
        "isolation.level" => "aborted records must not be read",
        "enable.auto.commit" | "enable.auto.offset.store" => "offsets are committed in the transaction",
        "allow.auto.create.topics" => "a misspelt topic must be an error; `create` in the topology makes one",
        "enable.partition.eof" => "the engine finds the ends of partitions itself",
        "message.timeout.ms" | "delivery.timeout.ms" => "it follows from kafka.transaction_timeout",
        "partitioner" => "a key's partition must be that of the Java client",
        "delivery.report.only.error" => "a checkpoint needs the report of every record",
        "plugin.library.paths" | "ssl.engine.location" => "it loads foreign code into the process",
        "sasl.kerberos.kinit.cmd" => "it runs a shell command",
        "opaque" | "default_topic_conf" | "interceptors" => "it cannot be set as text",
        _ if property.starts_with("group.") => {
            "the topology's name is the consumer group, and its members have fixed identities"
        }
        _ if property.starts_with("auto.offset.") => {
            "a lost position must not be skipped over; a source's `start` says where it begins"
        }
        _ if property.starts_with("auto.commit.") || property.starts_with("offset.store.") => {
            "offsets are committed in the transaction"
        }
        _ if property.ends_with("_cb") => "it cannot be set as text",
        // What the clients set themselves, whatever is given.
        _ => return ENGINE_OWNED.iter().find(|(owned, _)| *owned == property).map(|(_, reason)| *reason),
    };
    Some(reason)
}

/// Whether the value of a property must not be shown.
pub(super) fn is_secret(property: &str) -> bool {
    ["password", "secret", "token", "key.pem"].iter().any(|part| property.contains(part))
        || property.starts_with("sasl.")
        || property.starts_with("ssl.key")
}
