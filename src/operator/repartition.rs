//! Changes of keys: rows are sent through a topic of the engine's own, so that all rows of a key meet in one task.
//!
//! - [`Repartition`], at the end of a stage: puts each row into a block for the partition of its key.
//! - [`Outgoing`]: a task's blocks. They leave with the checkpoint, each with the task's watermark behind it.
//! - [`RepartitionSource`], at the head of the next stage: takes blocks apart; its watermark is the least of all
//!   tasks that write the topic ([`Upstreams`](upstream::Upstreams)).
//!
//! What is asked for behind it of the record that a row comes from goes with it ([`Carried`](crate::format::block::Carried)).

mod outgoing;
mod source;
mod upstream;

use std::sync::Arc;

use bumpalo::Bump;

use super::window::select;
use super::{Context, ErrorPolicy, KeySelector, Operator, OperatorError, Progress};
use crate::format::block::{Carried, RowDecoder, RowEncoder};
use crate::format::key::partition;
use crate::record::{Dynamic, Event, RecordType, Row, Schema, SourceRecord};
use crate::state::Stateful;

pub use outgoing::Exchange;
pub(super) use outgoing::{Outgoing, OutgoingRow};
pub use source::RepartitionSource;

/// How records become bytes between two stages, and records again.
pub trait Transfer<R: RecordType> {
    /// What the receiver is told of records that are [put](Transfer::put).
    fn layout(&self) -> &Arc<[u8]>;
    /// Appends a record.
    fn put(&self, record: &R::Of<'_>, time_ms: i64, out: &mut Vec<u8>);
    /// Gets ready for records of this layout, perhaps that of an earlier version of the application; or says why
    /// they cannot be read.
    fn expect(&mut self, layout: &[u8]) -> Result<(), String>;
    /// Takes a record off `bytes`.
    fn get<'b>(&self, time_ms: i64, bytes: &mut &'b [u8], arena: &'b Bump) -> Result<R::Of<'b>, String>;
}

/// Rows between two stages.
pub struct RowTransfer {
    encoder: RowEncoder,
    decoder: RowDecoder,
}

impl RowTransfer {
    /// Of rows with these fields.
    pub fn new(schema: &Schema) -> RowTransfer {
        RowTransfer { encoder: RowEncoder::new(schema), decoder: RowDecoder::new(schema) }
    }
}

impl Transfer<Dynamic> for RowTransfer {
    fn layout(&self) -> &Arc<[u8]> {
        self.encoder.layout()
    }

    fn put(&self, record: &Row<'_>, time_ms: i64, out: &mut Vec<u8>) {
        self.encoder.put(record, time_ms, out);
    }

    fn expect(&mut self, layout: &[u8]) -> Result<(), String> {
        self.decoder.expect(layout).map_err(|error| error.message)
    }

    fn get<'b>(&self, time_ms: i64, bytes: &mut &'b [u8], arena: &'b Bump) -> Result<Row<'b>, String> {
        self.decoder.get(time_ms, bytes, arena).map_err(|error| error.message)
    }
}

/// Sends records to the tasks of their keys. `K` selects keys, `T` makes bytes.
pub struct Repartition<K, T> {
    exchange: Arc<Exchange>,
    /// Its place among the pipeline's exchanges.
    place: usize,
    keys: K,
    transfer: T,
    errors: ErrorPolicy,
    key: Vec<u8>,
    bytes: Vec<u8>,
    of_record: OfRecord,
}

/// What has been sent of the rows of one record of the source.
#[derive(Default)]
struct OfRecord {
    /// Its [number](super::Staged::record); `None`: none has come.
    number: Option<u64>,
    /// What of it goes with a row, in bytes, at most.
    carried_bytes: usize,
    rows: usize,
    row_bytes: usize,
}

impl<K, T> Repartition<K, T> {
    /// Sends records through `exchange`, the one at `place` among those of the [pipeline](super::Pipeline::exchanges).
    pub fn new(exchange: Arc<Exchange>, place: usize, keys: K, transfer: T, errors: ErrorPolicy) -> Self {
        let (key, bytes, of_record) = (Vec::new(), Vec::new(), OfRecord::default());
        Repartition { exchange, place, keys, transfer, errors, key, bytes, of_record }
    }

    /// What of its record goes with the row that is to be sent, in bytes, at most, or why it cannot be sent.
    fn carried_bytes(&mut self, source: Option<&SourceRecord<'_>>, number: u64) -> Result<usize, String> {
        let (exchange, row_bytes) = (&self.exchange, self.bytes.len());
        let Some(source) = source.filter(|_| exchange.carried > Carried::Nothing) else {
            return exchange.fits(row_bytes, 0).map(|()| 0);
        };
        if self.of_record.number != Some(number) {
            let carried_bytes = exchange.carried.bytes_of(source);
            self.of_record = OfRecord { number: Some(number), carried_bytes, ..OfRecord::default() };
        }
        let OfRecord { carried_bytes, rows, row_bytes: sent, .. } = self.of_record;
        exchange.fits(row_bytes, carried_bytes)?;
        exchange.may_carry(carried_bytes, rows + 1, sent + row_bytes)?;
        (self.of_record.rows, self.of_record.row_bytes) = (rows + 1, sent + row_bytes);
        Ok(carried_bytes)
    }
}

impl<R: RecordType, K: KeySelector<R>, T: Transfer<R>> Operator<R> for Repartition<K, T> {
    fn process<'b>(
        &mut self,
        event: Event<'b, R>,
        context: &mut Context<'_, 'b>,
    ) -> Result<(), OperatorError> {
        self.bytes.clear();
        let selected = select(&self.keys, &event.record, &mut self.key).map_err(|error| error.message);
        let put = selected.and_then(|()| {
            self.transfer.put(&event.record, event.time_ms, &mut self.bytes);
            self.carried_bytes(event.source.as_ref(), context.staged.record())
        });
        let carried_bytes = match put {
            Ok(carried_bytes) => carried_bytes,
            Err(message) => {
                let render = || self.keys.render(&event.record);
                return self.errors.refuse(&message, &event, render, context);
            }
        };
        // A topic has partitions.
        let partition = partition(Some(&self.key), self.exchange.target.partitions).unwrap_or_default();
        let Event { time_ms, ref source, .. } = event;
        let row = OutgoingRow { time_ms, bytes: &self.bytes, source: source.as_ref(), carried_bytes };
        context.staged.send(self.place, partition, row);
        Ok(())
    }

    fn advance<'b>(
        &mut self,
        watermark_ms: i64,
        context: &mut Context<'_, 'b>,
    ) -> Result<Progress, OperatorError> {
        context.staged.outgoing(self.place).advance(watermark_ms);
        Ok(Progress::Done)
    }

    fn finish<'b>(&mut self, context: &mut Context<'_, 'b>) -> Result<Progress, OperatorError> {
        context.staged.outgoing(self.place).end();
        Ok(Progress::Done)
    }

    fn hand_on<'b>(&mut self, _context: &mut Context<'_, 'b>) -> Result<(), OperatorError> {
        Ok(())
    }

    fn visit(&mut self, _: &mut dyn FnMut(&mut dyn Stateful)) {}
}
