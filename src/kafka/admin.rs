//! Administration: topics, groups, cutting a changelog.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{Offset, TopicPartitionList};

use crate::kafka::FINISHED;
use crate::kafka::failure::Remedy;
use crate::kafka::notice::Notices;
use crate::kafka::raw::{self, Client, Event, Failure, Queue};
use crate::kafka::settings::{ConnectionSettings, Role};
use crate::record::TopicPartition;
use crate::worker::alignment::Standing;
use crate::worker::port::{LogAdmin, LogError, TopicDescription, TopicSpec};

/// How long a call may take.
const LIMIT: Duration = Duration::from_secs(30);
/// How long one look-up of topics waits before what the client tells is heard.
const LOOK_UP_MS: u64 = 3_000;
/// How often it is looked whether a new topic has its leaders.
const LOOK: Duration = Duration::from_millis(20);

/// The admin client. What `rdkafka` has goes through its own; topic ids and a group's offsets it does
/// not have.
pub struct KafkaAdmin {
    admin: AdminClient<Quiet>,
    events: Queue,
    client: Arc<Client>,
    notices: Notices,
}

/// `rdkafka`'s client tells nothing: the other one, on the same brokers, tells the same.
struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: KafkaError, _: &str) {}
}

impl KafkaAdmin {
    /// Creates an admin client. Connects by itself.
    pub fn new(settings: &ConnectionSettings) -> Result<KafkaAdmin, LogError> {
        let failed = |text: String| LogError::Stop(format!("creating the admin client: {text}"));
        // A client with a group, though not for the group's sake: without one librdkafka crashes when it
        // is answered NOT_COORDINATOR to a request for a group's offsets (seen with 2.12.1).
        let role = Role::Committed;
        let client = Client::new(role.kind(), &settings.of(role)).map_err(failed)?;
        let mut config: ClientConfig = settings.of(Role::Admin).into_iter().collect();
        config.set_log_level(RDKafkaLogLevel::Critical);
        let admin = config.create_with_context(Quiet).map_err(|error| failed(error.to_string()))?;
        Ok(KafkaAdmin { admin, events: client.events(), client, notices: Notices::new("admin") })
    }

    fn options() -> AdminOptions {
        AdminOptions::new().request_timeout(Some(LIMIT)).operation_timeout(Some(LIMIT))
    }

    fn limit_ms() -> u64 {
        u64::try_from(LIMIT.as_millis()).unwrap_or(u64::MAX)
    }

    /// Writes down what the client has told since the last call. Returns what an operator has to mend,
    /// such as a refused login: librdkafka itself goes on trying, and its calls only time out.
    fn serve(&mut self) -> Option<Failure> {
        let mut cause = None;
        while let Some(event) = self.events.poll(0) {
            match event {
                Event::Error(failure) if failure.remedy() == Remedy::Stop => cause = cause.or(Some(failure)),
                event => self.notices.event(&event),
            }
        }
        cause
    }

    /// Looks topics up, again and again while no broker answers, so that what keeps them from answering is
    /// heard of soon.
    fn look_up(&mut self, topics: &[String]) -> Result<Vec<raw::TopicFound>, Failure> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let found = raw::describe_topics(&self.client, topics, LOOK_UP_MS);
            let told = self.serve();
            match (found, told) {
                (Err(_), Some(cause)) => return Err(cause),
                (Err(failure), None) if failure.is_transient() && Instant::now() < deadline => {}
                (found, _) => return found,
            }
        }
    }

    fn configs(&self, topics: &[&str]) -> Result<Vec<Vec<(String, String)>>, LogError> {
        let tried = format!("reading the settings of {}", topics.join(", "));
        let wanted = topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect::<Vec<_>>();
        let found = block_on(self.admin.describe_configs(&wanted, &Self::options()));
        let mut configs = Vec::new();
        for topic in found.map_err(|error| of_error(&error).during(&tried))? {
            let topic = topic.map_err(|code| of_code(code).during(&tried))?;
            let entries = topic.entries.into_iter();
            configs.push(entries.filter_map(|entry| Some((entry.name, entry.value?))).collect());
        }
        Ok(configs)
    }

    /// Whether all partitions of a topic have leaders.
    fn has_leaders(&self, topic: &TopicSpec) -> Result<bool, Failure> {
        let found = self.admin.inner().fetch_metadata(Some(&topic.name), Duration::from_secs(5));
        let found = found.map_err(|error| of_error(&error))?;
        let found = found.topics().iter().find(|found| found.name() == topic.name && found.error().is_none());
        Ok(found.is_some_and(|found| {
            !found.partitions().is_empty()
                && found
                    .partitions()
                    .iter()
                    .all(|partition| partition.leader() >= 0 && partition.error().is_none())
        }))
    }

    /// All committed offsets of a group, with their metadata.
    fn committed(&mut self, group: &str) -> Result<Vec<raw::Element>, LogError> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let found = raw::group_offsets(&self.client, group, Self::limit_ms());
            self.serve();
            match found {
                Err(failure) if failure.code == Code::GroupIdNotFound => return Ok(Vec::new()),
                // The first request for any group makes the cluster create the topic of all groups.
                Err(failure) if failure.is_transient() && Instant::now() < deadline => {
                    std::thread::sleep(LOOK)
                }
                found => {
                    let tried = format!("reading the committed offsets of group {group}");
                    return found.map_err(|failure| failure.during(&tried));
                }
            }
        }
    }
}

fn of_code(code: Code) -> Failure {
    Failure { code, text: code.to_string(), fatal: false, retriable: false }
}

fn of_error(error: &KafkaError) -> Failure {
    let code = match error {
        // `rdkafka_error_code` does not tell this one's.
        KafkaError::AdminOp(code) => *code,
        error => error.rdkafka_error_code().unwrap_or(Code::Fail),
    };
    Failure { text: error.to_string(), ..of_code(code) }
}

impl LogAdmin for KafkaAdmin {
    fn list(&mut self, prefix: &str) -> Result<Vec<String>, LogError> {
        let found = self.admin.inner().fetch_metadata(None, LIMIT);
        self.serve();
        let found = found.map_err(|error| of_error(&error).during("listing the topics"))?;
        let names = found.topics().iter().map(|topic| topic.name());
        let mut names: Vec<String> =
            names.filter(|name| name.starts_with(prefix)).map(str::to_owned).collect();
        names.sort();
        Ok(names)
    }

    fn describe(&mut self, topics: &[String]) -> Result<Vec<Option<TopicDescription>>, LogError> {
        if topics.is_empty() {
            return Ok(Vec::new());
        }
        let tried = format!("looking up topics {}", topics.join(", "));
        let mut found = self
            .look_up(topics)
            .map_err(|failure| failure.during(&tried))?
            .into_iter()
            .zip(topics)
            .map(|(found, topic)| match found {
                Ok((id, partitions)) => {
                    Ok(Some(TopicDescription { id, partitions, config: Default::default() }))
                }
                Err(failure) if failure.code == Code::UnknownTopicOrPartition => Ok(None),
                Err(failure) => Err(failure.during(&format!("looking up topic {topic}"))),
            })
            .collect::<Result<Vec<_>, _>>()?;
        let there = topics.iter().zip(&found).filter(|(_, found)| found.is_some());
        let there = there.map(|(topic, _)| topic.as_str()).collect::<Vec<_>>();
        if !there.is_empty() {
            let configs = self.configs(&there)?;
            for (description, config) in found.iter_mut().flatten().zip(configs) {
                description.config = config.into_iter().collect();
            }
        }
        Ok(found)
    }

    fn create(&mut self, topic: &TopicSpec) -> Result<(), LogError> {
        let tried = format!(
            "creating topic {} with {} partitions and {} replicas",
            topic.name, topic.partitions, topic.replication
        );
        let mut wanted =
            NewTopic::new(&topic.name, topic.partitions, TopicReplication::Fixed(topic.replication));
        for (name, value) in &topic.config {
            wanted = wanted.set(name, value);
        }
        let deadline = Instant::now() + LIMIT;
        let created = block_on(self.admin.create_topics([&wanted], &Self::options()));
        self.serve();
        for result in created.map_err(|error| of_error(&error).during(&tried))? {
            match result {
                Ok(_) | Err((_, Code::TopicAlreadyExists)) => {}
                Err((_, code)) => return Err(of_code(code).during(&tried)),
            }
        }
        loop {
            let result = self.has_leaders(topic);
            self.serve();
            match result {
                Ok(true) => return Ok(()),
                Err(failure) if !failure.is_transient() => return Err(failure.during(&tried)),
                _ if Instant::now() >= deadline => {
                    return Err(LogError::Retry(format!("{tried}: it had no leaders after {LIMIT:?}")));
                }
                _ => std::thread::sleep(LOOK),
            }
        }
    }

    fn delete(&mut self, topics: &[String]) -> Result<(), LogError> {
        if topics.is_empty() {
            return Ok(());
        }
        let tried = format!("deleting topics {}", topics.join(", "));
        let names = topics.iter().map(String::as_str).collect::<Vec<_>>();
        let deleted = block_on(self.admin.delete_topics(&names, &Self::options()));
        self.serve();
        for result in deleted.map_err(|error| of_error(&error).during(&tried))? {
            match result {
                Ok(_) | Err((_, Code::UnknownTopicOrPartition)) => {}
                Err((topic, code)) => return Err(of_code(code).during(&format!("deleting topic {topic}"))),
            }
        }
        Ok(())
    }

    fn delete_records(&mut self, partition: &TopicPartition, offset: i64) -> Result<i64, LogError> {
        let tried = format!("deleting the records of {partition} before offset {offset}");
        let mut wanted = TopicPartitionList::with_capacity(1);
        wanted
            .add_partition_offset(&partition.topic, partition.partition, Offset::Offset(offset))
            .map_err(|error| LogError::Client(format!("{tried}: {error}")))?;
        let deleted = block_on(self.admin.delete_records(&wanted, &Self::options()));
        self.serve();
        let deleted = deleted.map_err(|error| of_error(&error).during(&tried))?;
        let elements = deleted.elements();
        let Some(element) = elements.first() else {
            return Err(LogError::Client(format!("{tried}: the answer names no partition")));
        };
        element.error().map_err(|error| of_error(&error).during(&tried))?;
        match element.offset() {
            Offset::Offset(start) => Ok(start),
            other => Err(LogError::Client(format!("{tried}: the answer is {other:?}"))),
        }
    }

    fn group_offsets(&mut self, group: &str) -> Result<Vec<(TopicPartition, i64)>, LogError> {
        let found = self.committed(group)?;
        Ok(found.into_iter().map(|found| (found.partition, found.offset)).collect())
    }

    fn finished_partitions(&mut self, group: &str) -> Result<Vec<TopicPartition>, LogError> {
        let found = self.committed(group)?.into_iter();
        let finished = found.filter(|found| found.metadata == FINISHED.as_bytes());
        Ok(finished.map(|found| found.partition).collect())
    }

    fn standings(&mut self, group: &str) -> Result<Vec<(TopicPartition, Standing)>, LogError> {
        let found = self.committed(group)?.into_iter();
        Ok(found
            .filter_map(|found| Some((found.partition, Standing::from_metadata(&found.metadata)?)))
            .collect())
    }

    fn group_members(&mut self, group: &str) -> Result<Vec<String>, LogError> {
        let found = self.admin.inner().fetch_group_list(Some(group), LIMIT);
        self.serve();
        let found = found
            .map_err(|error| of_error(&error).during(&format!("listing the members of group {group}")))?;
        let members = found.groups().iter().filter(|found| found.name() == group).flat_map(|group| {
            group.members().iter().map(|member| format!("{} at {}", member.id(), member.client_host()))
        });
        Ok(members.collect())
    }

    fn delete_group(&mut self, group: &str) -> Result<(), LogError> {
        let tried = format!("deleting group {group}");
        let deleted = block_on(self.admin.delete_groups(&[group], &Self::options()));
        self.serve();
        for result in deleted.map_err(|error| of_error(&error).during(&tried))? {
            match result {
                Ok(_) | Err((_, Code::GroupIdNotFound)) => {}
                Err((_, Code::NonEmptyGroup)) => {
                    return Err(LogError::Stop(format!(
                        "{tried}: it has members; stop the application everywhere and try again"
                    )));
                }
                Err((_, code)) => return Err(of_code(code).during(&tried)),
            }
        }
        Ok(())
    }
}

/// Waits for an admin future. librdkafka ends each within its request time-out.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_the_connection_broke_under_may_be_made_again() {
        let broken = KafkaError::AdminOp(Code::BrokerTransportFailure);
        assert_eq!(of_error(&broken).remedy(), Remedy::Retry);
        let refused = KafkaError::AdminOp(Code::ClusterAuthorizationFailed);
        assert_eq!(of_error(&refused).remedy(), Remedy::Stop);
    }
}
