//! The port for restores.

use std::sync::Arc;

use crate::model::cluster::Cluster;
use crate::model::error::Code;
use crate::model::link::{Direct, Link, Linked};
use crate::model::partition::{Found, Isolation};
use crate::model::request::{End, Request, Response};
use crate::record::TopicPartition;
use crate::worker::port::{Apply, ChangelogReader, LogError};

/// How long one look-up may take, in milliseconds.
const LOOKUP_MS: u64 = 10_000;
/// How many records are taken at once: few, so that others come in between.
const BATCH_RECORDS_MAX: usize = 20;
/// How long a reader waits for more before it asks again, in milliseconds.
const FETCH_WAIT_MS: u64 = 100;

/// Reads what a restore needs.
pub struct ModelReader {
    cluster: Cluster,
    group: Arc<str>,
}

impl ModelReader {
    /// A reader of this group's offsets and of any changelog.
    pub fn new(cluster: &Cluster, group: &str) -> ModelReader {
        ModelReader { cluster: cluster.clone(), group: group.into() }
    }

    /// This client, over a link.
    pub fn over<'l>(&'l mut self, link: &'l dyn Link) -> Linked<'l, ModelReader> {
        Linked { client: self, link }
    }

    fn direct(&self) -> Direct {
        Direct::new(&self.cluster)
    }

    /// [`ChangelogReader::committed_offsets`] over a link.
    pub fn committed_offsets_over(
        &mut self,
        link: &dyn Link,
        partitions: &[TopicPartition],
        limit_ms: u64,
    ) -> Result<Vec<Option<i64>>, LogError> {
        let tried = || format!("reading the committed offsets of group {} within {limit_ms} ms", self.group);
        let request = Request::OffsetFetch { group: self.group.clone(), partitions: partitions.into() };
        let end_ms = self.cluster.now_ms().saturating_add(limit_ms);
        match self.cluster.ask(link, &request, end_ms).answer {
            Ok(Response::Offsets(offsets)) => Ok(offsets),
            Ok(_) => Err(Code::State.during(&tried())),
            Err(code) => Err(code.during(&tried())),
        }
    }

    /// [`ChangelogReader::log_start`], [`high_watermark`](ChangelogReader::high_watermark) and
    /// [`last_stable_offset`](ChangelogReader::last_stable_offset) over a link.
    pub fn end_over(
        &mut self,
        link: &dyn Link,
        partition: &TopicPartition,
        end: End,
    ) -> Result<i64, LogError> {
        let request = Request::ListOffsets { partition: partition.clone(), end };
        let end_ms = self.cluster.now_ms() + LOOKUP_MS;
        let found = self.cluster.ask(link, &request, end_ms).answer.and_then(Response::offset);
        found.map_err(|code| code.during(&format!("looking up the ends of {partition}")))
    }

    /// [`ChangelogReader::read`] over a link.
    pub fn read_over(
        &mut self,
        link: &dyn Link,
        partition: &TopicPartition,
        (from, to): (i64, i64),
        stall_ms: u64,
        apply: &mut Apply<'_>,
    ) -> Result<(), LogError> {
        let mut position = from;
        let mut stalled_ms = self.cluster.now_ms() + stall_ms;
        while position < to {
            let found = self.fetch(link, partition, (position, to), stalled_ms)?;
            let now_ms = self.cluster.now_ms();
            if found.next > position {
                position = found.next;
                stalled_ms = now_ms + stall_ms;
            } else if now_ms < stalled_ms {
                link.pause(stalled_ms.min(now_ms + FETCH_WAIT_MS));
            } else {
                return Err(LogError::Retry(format!(
                    "reading {partition} from offset {from} to {to}: nothing has come after {position} for \
                     {stall_ms} ms"
                )));
            }
            for (offset, record) in found.records {
                apply(offset, record.value.as_deref().unwrap_or_default()).map_err(|error| {
                    LogError::Stop(format!("applying {partition} at offset {offset}: {error}"))
                })?;
            }
        }
        Ok(())
    }

    /// What is there; nothing if that cannot be found out by `end_ms`.
    fn fetch(
        &self,
        link: &dyn Link,
        partition: &TopicPartition,
        (from, to): (i64, i64),
        end_ms: u64,
    ) -> Result<Found, LogError> {
        let (isolation, records_max) = (Isolation::Committed, BATCH_RECORDS_MAX);
        let request = Request::Fetch { partition: partition.clone(), from, to, records_max, isolation };
        match self.cluster.ask(link, &request, end_ms).answer {
            Ok(Response::Records(found)) => Ok(found),
            // librdkafka waits for the topic to come, and for its leader.
            Ok(_) | Err(Code::UnknownTopicOrPartition | Code::TimedOut) => {
                Ok(Found { records: Vec::new(), next: from })
            }
            Err(code) if code.passes() => Ok(Found { records: Vec::new(), next: from }),
            Err(code) => Err(code.during(&format!("reading {partition} at offset {from}"))),
        }
    }
}

impl ChangelogReader for ModelReader {
    fn committed_offsets(
        &mut self,
        partitions: &[TopicPartition],
        limit_ms: u64,
    ) -> Result<Vec<Option<i64>>, LogError> {
        let direct = self.direct();
        self.over(&direct).committed_offsets(partitions, limit_ms)
    }

    fn log_start(&mut self, partition: &TopicPartition) -> Result<i64, LogError> {
        let direct = self.direct();
        self.over(&direct).log_start(partition)
    }

    fn high_watermark(&mut self, partition: &TopicPartition) -> Result<i64, LogError> {
        let direct = self.direct();
        self.over(&direct).high_watermark(partition)
    }

    fn last_stable_offset(&mut self, partition: &TopicPartition) -> Result<i64, LogError> {
        let direct = self.direct();
        self.over(&direct).last_stable_offset(partition)
    }

    /// Told, where the client on librdkafka cannot.
    fn open_transactions(&mut self, partition: &TopicPartition) -> Vec<i64> {
        let mut state = self.cluster.state();
        state.settle();
        state.partition(partition).map(|found| found.open_transactions()).unwrap_or_default()
    }

    fn read(
        &mut self,
        partition: &TopicPartition,
        from: i64,
        to: i64,
        stall_ms: u64,
        apply: &mut Apply<'_>,
    ) -> Result<(), LogError> {
        let direct = self.direct();
        self.read_over(&direct, partition, (from, to), stall_ms, apply)
    }
}

impl ChangelogReader for Linked<'_, ModelReader> {
    fn committed_offsets(
        &mut self,
        partitions: &[TopicPartition],
        limit_ms: u64,
    ) -> Result<Vec<Option<i64>>, LogError> {
        self.client.committed_offsets_over(self.link, partitions, limit_ms)
    }

    fn log_start(&mut self, partition: &TopicPartition) -> Result<i64, LogError> {
        self.client.end_over(self.link, partition, End::LogStart)
    }

    fn high_watermark(&mut self, partition: &TopicPartition) -> Result<i64, LogError> {
        self.client.end_over(self.link, partition, End::HighWatermark)
    }

    fn last_stable_offset(&mut self, partition: &TopicPartition) -> Result<i64, LogError> {
        self.client.end_over(self.link, partition, End::LastStable)
    }

    fn open_transactions(&mut self, partition: &TopicPartition) -> Vec<i64> {
        self.client.open_transactions(partition)
    }

    fn read(
        &mut self,
        partition: &TopicPartition,
        from: i64,
        to: i64,
        stall_ms: u64,
        apply: &mut Apply<'_>,
    ) -> Result<(), LogError> {
        self.client.read_over(self.link, partition, (from, to), stall_ms, apply)
    }
}
