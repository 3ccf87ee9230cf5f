//! What happens to the brokers and to the clients' processes: services that are away and move, log starts
//! that move back, rights that are missing, processes that are stopped or cut off.

use crate::model::cluster::{Cluster, ConsumerId, State};
use crate::model::consumer::Mishap;
use crate::model::error::Code;
use crate::model::request::Request;
use crate::record::TopicPartition;

/// Something that a broker does for clients.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// Leads a partition.
    Leader(TopicPartition),
    /// Coordinates groups.
    Groups,
    /// Coordinates transactions.
    Transactions,
}

/// What a right is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// A topic.
    Topic(String),
    /// A consumer group.
    Group(String),
    /// A transactional id.
    TransactionalId(String),
}

/// What a right allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// To read, and to commit offsets.
    Read,
    /// To write.
    Write,
    /// To look up.
    Describe,
    /// To delete records.
    Delete,
}

impl State {
    /// When a service is back; `None` if it is there.
    pub fn away_until(&self, service: &Service) -> Option<u64> {
        self.away.get(service).copied().filter(|until_ms| *until_ms > self.now_ms)
    }

    /// When a partition's leader is back; `None` if it is there.
    pub fn leader_away_until(&self, partition: &TopicPartition) -> Option<u64> {
        if self.away.is_empty() { None } else { self.away_until(&Service::Leader(partition.clone())) }
    }

    /// Whether the user may do this.
    pub fn may(&self, resource: impl FnOnce() -> Resource, operation: Operation) -> bool {
        self.denied.is_empty() || !self.denied.contains(&(resource(), operation))
    }

    /// Why a request is refused before anybody looks into it.
    pub fn check(&self, request: &Request) -> Result<(), Code> {
        if !self.away.is_empty() {
            self.check_service(request)?;
        }
        if !self.denied.is_empty() {
            self.check_rights(request)?;
        }
        Ok(())
    }

    fn check_service(&self, request: &Request) -> Result<(), Code> {
        let (service, code) = match request {
            Request::InitProducerId { .. }
            | Request::AddPartitions { .. }
            | Request::AddOffsets { .. }
            | Request::EndTxn { .. } => (Service::Transactions, Code::NotCoordinator),
            Request::TxnOffsetCommit { .. } | Request::OffsetFetch { .. } => {
                (Service::Groups, Code::NotCoordinator)
            }
            Request::Produce { partition, .. }
            | Request::ListOffsets { partition, .. }
            | Request::Fetch { partition, .. }
            | Request::DeleteRecords { partition, .. } => {
                (Service::Leader(partition.clone()), Code::NotLeader)
            }
        };
        if self.away_until(&service).is_some() { Err(code) } else { Ok(()) }
    }

    fn check_rights(&self, request: &Request) -> Result<(), Code> {
        let topic = |partition: &TopicPartition, operation| match self
            .may(|| Resource::Topic(partition.topic.to_string()), operation)
        {
            true => Ok(()),
            false => Err(Code::TopicAuthorizationFailed),
        };
        let group = |group: &str, operation| match self.may(|| Resource::Group(group.into()), operation) {
            true => Ok(()),
            false => Err(Code::GroupAuthorizationFailed),
        };
        let writes = |id: &str| match self.may(|| Resource::TransactionalId(id.into()), Operation::Write) {
            true => Ok(()),
            false => Err(Code::TransactionalIdAuthorizationFailed),
        };
        match request {
            Request::InitProducerId { id, .. } | Request::EndTxn { id, .. } => writes(id),
            Request::AddPartitions { id, partitions, .. } => {
                writes(id)?;
                partitions.iter().try_for_each(|partition| topic(partition, Operation::Write))
            }
            Request::Produce { id, partition, .. } => {
                writes(id)?;
                topic(partition, Operation::Write)
            }
            Request::AddOffsets { id, group: name, .. } => {
                writes(id)?;
                group(name, Operation::Read)
            }
            Request::TxnOffsetCommit { id, group: name, offsets, .. } => {
                writes(id)?;
                group(name, Operation::Read)?;
                offsets.iter().try_for_each(|offset| topic(&offset.partition, Operation::Read))
            }
            Request::OffsetFetch { group: name, partitions } => {
                group(name, Operation::Describe)?;
                partitions.iter().try_for_each(|partition| topic(partition, Operation::Describe))
            }
            Request::ListOffsets { partition, .. } => topic(partition, Operation::Describe),
            Request::Fetch { partition, .. } => topic(partition, Operation::Read),
            Request::DeleteRecords { partition, .. } => topic(partition, Operation::Delete),
        }
    }

    fn set_away(&mut self, service: Service, until_ms: u64) {
        if service == Service::Groups {
            self.consumers.values_mut().for_each(|consumer| consumer.interrupted());
            self.groups.values_mut().for_each(|group| group.reload(until_ms));
        }
        self.away.insert(service, until_ms);
    }
}

impl Cluster {
    /// Makes a service refuse everything until `until_ms`, since its broker is away or it moves to another
    /// one. That of groups remembers then what it had written down: offsets, and the members of the last
    /// generation that was complete, whose sessions start anew. That of transactions times none out
    /// meanwhile and writes no markers. Requests that are to get no answer at all are the link's business.
    pub fn set_away(&self, service: Service, until_ms: u64) {
        let mut state = self.state();
        state.settle();
        state.set_away(service, until_ms);
    }

    /// Moves the log start of a partition back, at most to `to`: brokers write it down every minute only, and
    /// after a crash what was deleted since is there again. Returns the log start; `None` if there is no such
    /// partition.
    pub fn move_log_start_back(&self, partition: &TopicPartition, to: i64) -> Option<i64> {
        self.state().partition(partition).ok().map(|found| found.move_log_start_back(to))
    }

    /// Takes a right away from everybody, or gives it back. All clients are the same user.
    pub fn deny(&self, resource: Resource, operation: Operation, denied: bool) {
        let mut state = self.state();
        if denied {
            state.denied.insert((resource, operation));
        } else {
            state.denied.remove(&(resource, operation));
        }
    }

    /// Adds partitions to a topic, so that it has so many. A topic that is missing, or has them, is left as
    /// it is.
    pub fn grow(&self, topic: &str, partitions: usize) {
        let mut state = self.state();
        if let Some(topic) = state.topics.get_mut(topic) {
            let partitions = partitions.max(topic.partitions.len());
            topic.partitions.resize_with(partitions, Default::default);
        }
    }

    /// How often consumers look at their topics, to join again when they have changed
    /// (`topic.metadata.refresh.interval.ms`); five minutes at first. Holds from their next look on.
    pub fn set_metadata_refresh_ms(&self, ms: u64) {
        self.state().metadata_refresh_ms = Some(ms);
    }

    /// Stops the process of a consumer, or lets it go on: meanwhile the consumer beats no heart and takes no
    /// step, and its user is not to call it. Woken after its session it has lost its partitions, also where
    /// nobody has taken its place. A consumer that is gone is nothing to stop.
    pub fn freeze(&self, consumer: ConsumerId, frozen: bool) {
        let mut state = self.state();
        if let Some(consumer) = state.consumers.get_mut(&consumer.0) {
            consumer.frozen = frozen;
        }
        state.tick_consumers();
        state.settle();
    }

    /// What happens to a consumer's next request to its group.
    pub fn disturb(&self, consumer: ConsumerId, mishap: Mishap) {
        if let Some(consumer) = self.state().consumers.get_mut(&consumer.0) {
            consumer.mishap = Some(mishap);
        }
    }

    /// Lets nothing through between a consumer and its group until `until_ms`; what it reads still arrives.
    /// After its session without an answer it knows that it has lost its partitions.
    pub fn cut_off(&self, consumer: ConsumerId, until_ms: u64) {
        if let Some(consumer) = self.state().consumers.get_mut(&consumer.0) {
            consumer.cut_off_ms = until_ms;
        }
    }
}
