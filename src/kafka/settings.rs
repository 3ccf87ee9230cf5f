//! What a client is configured with.

use crate::kafka::raw::Kind;

/// How to reach Kafka, and as whom.
#[derive(Clone, Debug)]
pub struct ConnectionSettings {
    /// Brokers to ask first: `host:port`, comma-separated.
    pub bootstrap_servers: String,
    /// librdkafka settings passed through as they are, by their own names. What the engine owns
    /// ([`ENGINE_OWNED`]) is set after them and wins.
    pub librdkafka: Vec<(String, String)>,
    /// The consumer group: the application's name.
    pub group: String,
    /// The static member's name in it, the same over restarts, different for each worker; `None` is a
    /// dynamic member.
    pub instance_id: Option<String>,
    /// How long a member may be silent before its partitions go to others. Also how long a dead static
    /// member keeps them. Within the broker's `group.min.session.timeout.ms` (6 s by default) and `max`.
    pub session_timeout_ms: u64,
    /// The producer's identity, the same over restarts, different for each worker.
    pub transactional_id: String,
    /// How long a transaction may stay open; a dead process holds up readers for so long. At least
    /// 1 s, at most the broker's `transaction.max.timeout.ms` (15 min by default).
    pub transaction_timeout_ms: u64,
    /// How many bytes of fetched records may wait in the consumer, for all its partitions together.
    /// One fetch more than that can arrive.
    pub fetch_queue_bytes_max: u64,
}

/// The librdkafka settings that the engine sets itself, each with the reason. Settings files should
/// refuse them.
pub const ENGINE_OWNED: &[(&str, &str)] = &[
    ("bootstrap.servers", "kafka.bootstrap_servers sets it"),
    ("metadata.broker.list", "kafka.bootstrap_servers sets it"),
    ("group.id", "it is the topology's name"),
    ("group.instance.id", "it is kept in the state directory, so that a restart gets its partitions back"),
    ("group.protocol", "the new consumer protocol is not sound in this librdkafka"),
    ("group.remote.assignor", "it belongs to the new consumer protocol"),
    ("partition.assignment.strategy", "co-partitioned topics need `range`"),
    ("session.timeout.ms", "kafka.session_timeout sets it"),
    ("heartbeat.interval.ms", "it follows from kafka.session_timeout"),
    ("transactional.id", "it is kept in the state directory, so that a restart fences what it was before"),
    ("transaction.timeout.ms", "kafka.transaction_timeout sets it"),
    ("message.timeout.ms", "it follows from kafka.transaction_timeout"),
    ("delivery.timeout.ms", "it follows from kafka.transaction_timeout"),
    ("enable.idempotence", "exactly-once needs it on"),
    ("acks", "exactly-once needs all replicas"),
    ("request.required.acks", "exactly-once needs all replicas"),
    ("max.in.flight", "the idempotent producer sets it"),
    ("max.in.flight.requests.per.connection", "the idempotent producer sets it"),
    ("queue.buffering.max.messages", "a checkpoint's own bound limits it"),
    ("queue.buffering.max.kbytes", "a checkpoint's own bound limits it"),
    ("topic.metadata.propagation.max.ms", "it follows from kafka.transaction_timeout"),
    ("retry.backoff.ms", "sending offsets would be slow with more than 1 ms"),
    ("isolation.level", "aborted records must not be read"),
    ("enable.auto.commit", "offsets are committed in transactions"),
    ("enable.auto.offset.store", "offsets are committed in transactions"),
    ("auto.offset.reset", "skipping or repeating records in silence is what exactly-once forbids"),
    ("enable.partition.eof", "it tells where the end of a partition is, behind markers"),
    ("check.crcs", "a corrupt record must be noticed"),
    ("queued.min.messages", "a fast reader would stall with fewer"),
    ("queued.max.messages.kbytes", "a worker bounds what waits in its queue"),
    ("fetch.queue.backoff.ms", "a fast reader would stall with more than 1 ms"),
    ("allow.auto.create.topics", "a mistyped topic must be an error"),
    ("statistics.interval.ms", "the lag comes from the statistics"),
    ("log.queue", "logs go through the engine's own"),
    ("log_level", "logs go through the engine's own"),
    ("log.thread.name", "logs go through the engine's own"),
    ("plugin.library.paths", "code from elsewhere does not belong into the process"),
    ("sasl.kerberos.kinit.cmd", "a setting must not start a program"),
];

/// How a producer compresses batches of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// By LZ4.
    Lz4,
}

impl Compression {
    fn codec(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Lz4 => "lz4",
        }
    }
}

/// How long a record may be on its way, with all attempts, before it counts as lost.
const WRITER_TIMEOUT_MS: u64 = 60_000;
/// What a writer holds at most.
const WRITER_QUEUE_RECORDS_MAX: u64 = 400_000;
/// The same, in units of 1,024 bytes of keys and values.
const WRITER_QUEUE_KIB_MAX: u64 = 128 << 10;

/// What a client is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The member of the group.
    Member,
    /// The transactional producer; with crash points it logs its requests.
    Producer { crash_points: bool },
    /// The producer without transactions; if it is paced, records must not wait for one another.
    Writer { compression: Compression, paced: bool },
    /// Reads changelogs and committed offsets, as of what is committed.
    Committed,
    /// Looks up ends of logs, open transactions included.
    Uncommitted,
    /// Administration.
    Admin,
}

impl Role {
    pub(super) fn kind(self) -> Kind {
        match self {
            Role::Member | Role::Committed | Role::Uncommitted => Kind::Consumer,
            Role::Producer { .. } | Role::Writer { .. } | Role::Admin => Kind::Producer,
        }
    }
}

impl ConnectionSettings {
    /// The librdkafka settings of a client, in the order in which they are to be set: defaults, what
    /// the user passes through, what the engine owns.
    pub(super) fn of(&self, role: Role) -> Vec<(String, String)> {
        let mut all = Vec::new();
        let set = |all: &mut Vec<(String, String)>, name: &str, value: &dyn ToString| {
            all.push((name.into(), value.to_string()));
        };
        set(&mut all, "client.id", &"thalweg");
        set(&mut all, "reconnect.backoff.max.ms", &1_000);
        if matches!(role, Role::Producer { .. }) {
            set(&mut all, "compression.codec", &"lz4");
            set(&mut all, "linger.ms", &1);
            set(&mut all, "batch.num.messages", &100_000);
        }
        if let Role::Writer { compression, paced } = role {
            set(&mut all, "compression.codec", &compression.codec());
            set(&mut all, "linger.ms", &if paced { 1 } else { 100 });
            set(&mut all, "batch.num.messages", &100_000);
        }
        all.extend(self.librdkafka.iter().filter(|(name, _)| applies(name, role)).cloned());
        set(&mut all, "bootstrap.servers", &self.bootstrap_servers);
        set(&mut all, "allow.auto.create.topics", &false);
        set(&mut all, "log.queue", &true);
        set(&mut all, "log.thread.name", &false);
        match role {
            Role::Member | Role::Committed | Role::Uncommitted => self.set_consumer(&mut all, role),
            Role::Producer { crash_points } => {
                set(&mut all, "transactional.id", &self.transactional_id);
                set(&mut all, "transaction.timeout.ms", &self.transaction_timeout_ms);
                set(&mut all, "message.timeout.ms", &self.transaction_timeout_ms);
                set(&mut all, "enable.idempotence", &true);
                // A topic that is missing must be told before the transaction times out.
                set(
                    &mut all,
                    "topic.metadata.propagation.max.ms",
                    &(self.transaction_timeout_ms / 3).min(30_000),
                );
                set(&mut all, "queue.buffering.max.messages", &0);
                set(&mut all, "queue.buffering.max.kbytes", &i32::MAX);
                set(&mut all, "retry.backoff.ms", &1);
                if crash_points {
                    set(&mut all, "debug", &"protocol");
                    set(&mut all, "log_level", &7);
                }
            }
            Role::Writer { .. } => {
                set(&mut all, "enable.idempotence", &true);
                set(&mut all, "message.timeout.ms", &WRITER_TIMEOUT_MS);
                set(&mut all, "queue.buffering.max.messages", &WRITER_QUEUE_RECORDS_MAX);
                set(&mut all, "queue.buffering.max.kbytes", &WRITER_QUEUE_KIB_MAX);
            }
            Role::Admin => {}
        }
        all
    }

    fn set_consumer(&self, all: &mut Vec<(String, String)>, role: Role) {
        let mut set = |name: &str, value: &dyn ToString| all.push((name.into(), value.to_string()));
        set(
            "isolation.level",
            &if role == Role::Uncommitted { "read_uncommitted" } else { "read_committed" },
        );
        set("enable.auto.commit", &false);
        set("enable.auto.offset.store", &false);
        set("auto.offset.reset", &"error");
        set("enable.partition.eof", &true);
        set("check.crcs", &true);
        set("queued.min.messages", &2_000_000);
        set("queued.max.messages.kbytes", &(self.fetch_queue_bytes_max / 1_024).clamp(1, 2_097_151));
        set("fetch.queue.backoff.ms", &1);
        // Idle connections that the broker closes are nothing to talk about.
        set("log.connection.close", &false);
        match role {
            Role::Member => {
                set("group.id", &self.group);
                if let Some(instance) = &self.instance_id {
                    set("group.instance.id", instance);
                }
                set("group.protocol", &"classic");
                set("partition.assignment.strategy", &"range");
                set("session.timeout.ms", &self.session_timeout_ms);
                // The interval is also how late a member hears of a rebalance.
                set("heartbeat.interval.ms", &(self.session_timeout_ms / 6).clamp(100, 1_000));
                set("statistics.interval.ms", &1_000);
            }
            // The same group, for its offsets; it never subscribes, so it never joins.
            Role::Committed => {
                set("group.id", &self.group);
                // A restore that reaches the end waits for one more, empty, fetch.
                set("fetch.wait.max.ms", &10);
            }
            _ => {}
        }
    }
}

/// Whether a setting that the user passes through means anything to a client of this role; librdkafka
/// warns about a producer's setting at a consumer and the other way round.
fn applies(name: &str, role: Role) -> bool {
    const CONSUMER: &[&str] =
        &["fetch.", "max.partition.fetch", "max.poll.interval", "queued.", "receive.message"];
    const PRODUCER: &[&str] = &[
        "batch.",
        "compression.",
        "linger.",
        "queue.buffering",
        "message.max",
        "message.send.max",
        "retries",
        "sticky.partitioning",
        "partitioner",
    ];
    let is = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    match role {
        Role::Producer { .. } | Role::Writer { .. } => !is(CONSUMER) || name.starts_with("receive.message"),
        Role::Admin => !is(CONSUMER) && !is(PRODUCER),
        _ => !is(PRODUCER),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> ConnectionSettings {
        ConnectionSettings {
            bootstrap_servers: "127.0.0.1:1".into(),
            librdkafka: vec![("linger.ms".into(), "7".into()), ("auto.offset.reset".into(), "latest".into())],
            group: "g".into(),
            instance_id: Some("i".into()),
            session_timeout_ms: 6_000,
            transactional_id: "t".into(),
            transaction_timeout_ms: 10_000,
            fetch_queue_bytes_max: 64 << 20,
        }
    }

    const WRITER: Role = Role::Writer { compression: Compression::Lz4, paced: false };

    fn last<'a>(all: &'a [(String, String)], name: &str) -> Option<&'a str> {
        all.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    #[test]
    fn what_the_engine_owns_wins_and_what_it_only_suggests_loses() {
        let member = settings().of(Role::Member);
        assert_eq!(last(&member, "auto.offset.reset"), Some("error"));
        assert_eq!(last(&member, "linger.ms"), None);
        let producer = settings().of(Role::Producer { crash_points: false });
        assert_eq!(last(&producer, "linger.ms"), Some("7"));
    }

    #[test]
    fn every_role_is_accepted_by_librdkafka() {
        use crate::kafka::raw::Client;
        let roles = [
            Role::Member,
            Role::Producer { crash_points: false },
            Role::Producer { crash_points: true },
            WRITER,
            Role::Committed,
            Role::Uncommitted,
            Role::Admin,
        ];
        for role in roles {
            assert!(Client::new(role.kind(), &settings().of(role)).is_ok(), "{role:?}");
        }
        let mut wrong = settings();
        wrong.librdkafka = vec![("no.such.setting".into(), "1".into())];
        let told = Client::new(Kind::Consumer, &wrong.of(Role::Member)).err();
        assert!(told.as_deref().is_some_and(|text| text.contains("no.such.setting")), "{told:?}");
    }

    #[test]
    fn whatever_the_engine_sets_over_the_users_settings_is_declared_its_own() {
        let producer = Role::Producer { crash_points: false };
        for role in [Role::Member, producer, WRITER, Role::Committed, Role::Uncommitted] {
            let mut theirs = settings();
            theirs.librdkafka = vec![("metadata.max.age.ms".into(), "1000".into())];
            let all = theirs.of(role);
            let own = all.iter().skip_while(|(name, _)| name != "metadata.max.age.ms").skip(1);
            for (name, _) in
                own.filter(|(name, _)| name != "log.connection.close" && name != "fetch.wait.max.ms")
            {
                assert!(ENGINE_OWNED.iter().any(|(owned, _)| owned == name), "{name} of {role:?}");
            }
        }
    }
}
