//! From librdkafka's errors to those of the ports: what to do about them.

use rdkafka::types::RDKafkaErrorCode as Code;

use crate::kafka::raw::Failure;
use crate::worker::port::{CommitError, LogError};

/// What a failure asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Try again.
    Retry,
    /// The position is outside the log.
    OutOfRange,
    /// Somebody else has this identity.
    Fenced,
    /// An operator has to do something.
    Stop,
    /// A new client.
    Client,
}

impl Failure {
    /// What to do about it.
    pub fn remedy(&self) -> Remedy {
        match self.code {
            Code::FencedInstanceId | Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch => {
                Remedy::Fenced
            }
            Code::AutoOffsetReset | Code::OffsetOutOfRange => Remedy::OutOfRange,
            _ if self.advice().is_some() => Remedy::Stop,
            _ if self.fatal => Remedy::Client,
            _ if self.retriable || self.is_transient() => Remedy::Retry,
            _ => Remedy::Client,
        }
    }

    /// Whether it passes by itself.
    pub fn is_transient(&self) -> bool {
        matches!(
            self.code,
            Code::BrokerTransportFailure
                | Code::AllBrokersDown
                | Code::Resolve
                | Code::OperationTimedOut
                | Code::TimedOutQueue
                | Code::MessageTimedOut
                | Code::RequestTimedOut
                | Code::WaitingForCoordinator
                | Code::WaitCache
                | Code::InProgress
                | Code::Retry
                | Code::LeaderNotAvailable
                | Code::NotLeaderForPartition
                | Code::ReplicaNotAvailable
                | Code::BrokerNotAvailable
                | Code::NetworkException
                | Code::CoordinatorLoadInProgress
                | Code::CoordinatorNotAvailable
                | Code::NotCoordinator
                | Code::NotController
                | Code::RebalanceInProgress
                | Code::ConcurrentTransactions
                | Code::UnstableOffsetCommit
                | Code::OffsetNotAvailable
                | Code::FencedLeaderEpoch
                | Code::UnknownLeaderEpoch
                | Code::NotEnoughReplicas
                | Code::NotEnoughReplicasAfterAppend
                | Code::KafkaStorageError
                | Code::ThrottlingQuotaExceeded
        )
    }

    /// What an operator has to do; `None` if that is not what it takes.
    pub fn advice(&self) -> Option<&'static str> {
        Some(match self.code {
            Code::TopicAuthorizationFailed => {
                "grant the application's user its rights on the topic: Read on a source, Write on a sink or dead-letter \
                 topic, Create, Read, Write and Delete on its own topics, Describe and DescribeConfigs on all of \
                 them (docs/kafka.md)"
            }
            Code::GroupAuthorizationFailed => {
                "grant the application's user Read and Describe on the consumer group (docs/kafka.md)"
            }
            Code::TransactionalIdAuthorizationFailed => {
                "grant the application's user Write and Describe on the transactional id (docs/kafka.md)"
            }
            Code::ClusterAuthorizationFailed => {
                "grant the application's user the rights that docs/kafka.md lists for the cluster"
            }
            Code::Authentication | Code::SaslAuthenticationFailed | Code::IllegalSASLState => {
                "correct the user, the password or the mechanism under kafka.librdkafka (sasl.*)"
            }
            Code::SSL => "correct the certificates and names under kafka.librdkafka (ssl.*)",
            Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownTopicId => {
                "create the topic, or correct its name; if it was deleted and created again, run `thalweg reset`"
            }
            Code::UnknownPartition => {
                "the topic has fewer partitions than are wanted of it. If the number of partitions of a source was \
                 changed, keys have moved away from their state, and its changelog does not fit any more: start \
                 anew with `thalweg reset`"
            }
            Code::AutoOffsetReset | Code::OffsetOutOfRange => {
                "the topic does not have this offset any more (its retention deleted records that were not read \
                 yet) or not yet; raise its retention, and start anew with `thalweg reset`, or set the group's \
                 offset to accept the gap"
            }
            Code::MessageSizeTooLarge => {
                "raise the topic's max.message.bytes and kafka.librdkafka message.max.bytes, or write less"
            }
            Code::InvalidTransactionTimeout => {
                "lower kafka.transaction_timeout, or raise the broker's transaction.max.timeout.ms"
            }
            Code::InvalidSessionTimeout => {
                "choose kafka.session_timeout within the broker's group.min/max.session.timeout.ms"
            }
            Code::InconsistentGroupProtocol => {
                "the group has members of another application or protocol: give one of them another name"
            }
            Code::InvalidReplicationFactor => "lower the replication factor, or add brokers",
            Code::PolicyViolation => {
                "the cluster's policy forbids it: create the topic by hand, or change the policy"
            }
            Code::UnsupportedVersion | Code::UnsupportedFeature => {
                "upgrade the brokers to Kafka 2.5 or later"
            }
            _ => return None,
        })
    }

    /// The error of a port, saying what was tried.
    pub fn during(&self, tried: &str) -> LogError {
        let text = self.explain(tried);
        match self.remedy() {
            Remedy::Retry => LogError::Retry(text),
            Remedy::OutOfRange => LogError::OutOfRange(text),
            Remedy::Fenced => LogError::Fenced(text),
            Remedy::Stop => LogError::Stop(text),
            Remedy::Client => LogError::Client(text),
        }
    }

    /// The error of a commit, saying what was tried.
    pub fn during_commit(&self, tried: &str) -> CommitError {
        let text = self.explain(tried);
        match self.remedy() {
            Remedy::Stop => CommitError::Stop(text),
            _ => CommitError::Doubt(text),
        }
    }

    fn explain(&self, tried: &str) -> String {
        let advice = match self.remedy() {
            Remedy::Fenced if self.code == Code::FencedInstanceId => Some(
                "another process is a member under this instance id: give each process a state directory of \
                 its own",
            ),
            Remedy::Fenced => {
                Some("the transaction had timed out, or another process has this transactional id now")
            }
            _ => self.advice(),
        };
        let what = if self.text.is_empty() { self.code.to_string() } else { self.text.clone() };
        match advice {
            Some(advice) => format!("{tried}: {what} ({:?}): {advice}", self.code),
            None => format!("{tried}: {what} ({:?})", self.code),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: Code) -> Failure {
        Failure { code, text: "told".into(), fatal: false, retriable: false }
    }

    #[test]
    fn each_kind_of_failure_has_its_remedy() {
        let cases = [
            (Code::FencedInstanceId, Remedy::Fenced),
            (Code::AutoOffsetReset, Remedy::OutOfRange),
            (Code::TopicAuthorizationFailed, Remedy::Stop),
            (Code::UnknownTopicOrPartition, Remedy::Stop),
            (Code::UnknownPartition, Remedy::Stop),
            (Code::BrokerTransportFailure, Remedy::Retry),
            (Code::BadMessage, Remedy::Client),
        ];
        for (code, remedy) in cases {
            assert_eq!(failure(code).remedy(), remedy, "{code:?}");
        }
        let fenced = Failure { fatal: true, ..failure(Code::FencedInstanceId) };
        assert_eq!(fenced.remedy(), Remedy::Fenced, "fatal, but not for a new client to mend");
        let fatal = Failure { fatal: true, ..failure(Code::OperationTimedOut) };
        assert_eq!(fatal.remedy(), Remedy::Client);
    }

    #[test]
    fn a_message_says_what_was_tried_what_was_found_and_what_to_do() {
        let told =
            failure(Code::GroupAuthorizationFailed).during("reading the offsets of group app").to_string();
        assert!(told.starts_with("reading the offsets of group app: told"), "{told}");
        assert!(told.contains("grant"), "{told}");
    }

    #[test]
    fn a_commit_that_an_operator_must_mend_stops_and_any_other_is_in_doubt() {
        let stop = failure(Code::MessageSizeTooLarge).during_commit("writing");
        assert!(matches!(stop, CommitError::Stop(_)), "{stop}");
        let doubt = failure(Code::ProducerFenced).during_commit("committing");
        assert!(matches!(doubt, CommitError::Doubt(_)), "{doubt}");
    }
}
