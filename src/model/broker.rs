//! What the brokers do with requests.

use crate::model::cluster::State;
use crate::model::error::Code;
use crate::model::partition::Isolation;
use crate::model::request::{End, Request, Response};
use crate::model::transactions::Writer;
use crate::planted::{Bug, is_planted};
use crate::record::TopicPartition;

impl State {
    /// Takes a request that has arrived, and answers.
    pub fn handle(&mut self, request: &Request) -> Result<Response, Code> {
        self.settle();
        let answer = self.answer(request);
        self.settle();
        answer
    }

    /// As [`handle`](State::handle), in the middle of what is due.
    pub fn answer(&mut self, request: &Request) -> Result<Response, Code> {
        self.check(request)?;
        match request {
            Request::InitProducerId { id, time_out_ms } => {
                self.transactions.init(id, *time_out_ms, self.now_ms).map(Response::Writer)
            }
            Request::AddPartitions { id, writer, partitions } => self.add_partitions(id, *writer, partitions),
            Request::Produce { id, writer, partition, sequence, records } => {
                self.check_sizes(partition, records.iter().map(|record| record.batch_bytes()))?;
                if !self.partition(partition)?.is_open(writer.producer) {
                    self.transactions.verify(id, *writer, partition)?;
                }
                let found = self.partition(partition)?;
                found.append_open(*writer, *sequence, records).map(Response::Offset)
            }
            Request::AddOffsets { id, writer, group } => {
                let added = self.transactions.add_group(id, *writer, group, self.now_ms);
                added.map(|()| Response::Done)
            }
            Request::TxnOffsetCommit { id, writer, group, who, offsets } => {
                for offset in offsets.iter() {
                    self.partition(&offset.partition)?;
                }
                if !self.group(group).is_open(writer.producer) {
                    self.transactions.verify_group(id, *writer, group)?;
                }
                self.group(group).commit_pending(who, *writer, offsets).map(|()| Response::Done)
            }
            Request::EndTxn { id, writer, commit } => {
                self.transactions.end(id, *writer, *commit, self.now_ms).map(|()| Response::Done)
            }
            Request::OffsetFetch { group, partitions } => {
                // The client asks for it.
                let stable = !is_planted(Bug::UnstableOffsets);
                let group = self.group(group);
                let offsets = partitions.iter().map(|partition| group.committed(partition, stable));
                offsets.collect::<Result<_, _>>().map(Response::Offsets)
            }
            Request::ListOffsets { partition, end } => {
                let found = self.partition(partition)?;
                Ok(Response::Offset(match end {
                    End::LogStart => found.log_start(),
                    End::LastStable => found.end(Isolation::Committed),
                    End::HighWatermark => found.end(Isolation::Uncommitted),
                }))
            }
            Request::Fetch { partition, from, to, records_max, isolation } => {
                let found = self.partition(partition)?;
                found.read(*from, *to, *records_max, *isolation).map(Response::Records)
            }
            Request::DeleteRecords { partition, offset } => {
                self.partition(partition)?.delete_records(*offset).map(Response::Offset)
            }
        }
    }

    fn add_partitions(
        &mut self,
        id: &str,
        writer: Writer,
        partitions: &[TopicPartition],
    ) -> Result<Response, Code> {
        for partition in partitions {
            self.partition(partition)?;
        }
        for partition in partitions {
            self.transactions.add_partition(id, writer, partition, self.now_ms)?;
        }
        Ok(Response::Done)
    }

    /// Refuses batches that the topic does not take.
    fn check_sizes(
        &self,
        partition: &TopicPartition,
        mut sizes: impl Iterator<Item = usize>,
    ) -> Result<(), Code> {
        let topic = self.topics.get(&*partition.topic).ok_or(Code::UnknownTopicOrPartition)?;
        let bytes_max = topic.batch_bytes_max();
        if sizes.any(|bytes| bytes > bytes_max) { Err(Code::MessageTooLarge) } else { Ok(()) }
    }
}
