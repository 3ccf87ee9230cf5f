//! Aggregates in two steps: what rows came to where they are, and the same of all of these.

use bumpalo::Bump;

use super::{Accumulators, RowAggregates};
use crate::expression::EvaluationError;
use crate::format::json::Encoder;
use crate::operator::window::{Aggregator, PartialResult, begin_row};
use crate::record::{Dynamic, Event, Row, Schema, Slot};
use crate::state::ValueCodec;

/// Makes rows of what rows came to: the key's fields, and the accumulators as they are stored.
pub struct PartialRows {
    key_fields: usize,
    aggregates: RowAggregates,
    /// Writes the key's fields.
    head: Encoder,
}

impl PartialRows {
    /// Rows of `schema`, whose last field holds the accumulators; all before it are the key's.
    pub fn new(schema: &Schema, aggregates: RowAggregates) -> Self {
        let key_fields = schema.fields.len() - 1;
        let head = Encoder::new(&Schema { fields: schema.fields[..key_fields].to_vec() });
        PartialRows { key_fields, aggregates, head }
    }
}

impl PartialResult<Accumulators, Dynamic> for PartialRows {
    fn make<'b>(
        &self,
        key: &[u8],
        value: &Accumulators,
        arena: &'b Bump,
    ) -> Result<Row<'b>, EvaluationError> {
        let row = begin_row(key, self.key_fields, self.key_fields + 1, arena)?;
        let mut bytes = Vec::new();
        self.aggregates.encode(value, &mut bytes);
        row[self.key_fields] = Slot::Bytes(arena.alloc_slice_copy(&bytes));
        Ok(row)
    }

    fn describe(&self, key: &[u8]) -> Vec<u8> {
        match begin_row(key, self.key_fields, self.key_fields, &Bump::new()) {
            Ok(row) => self.head.to_vec(row),
            Err(error) => error.message.into_bytes(),
        }
    }
}

/// Merges the accumulators that [`PartialRows`] hold.
pub struct MergedRows(RowAggregates);

impl MergedRows {
    /// Of these aggregates, which count rows.
    pub fn new(aggregates: RowAggregates) -> Self {
        MergedRows(aggregates)
    }

    fn read(&self, record: &Row<'_>) -> Result<Accumulators, EvaluationError> {
        let bytes = match record.last() {
            Some(Slot::Bytes(bytes)) => bytes,
            _ => return Err(EvaluationError { message: "the row holds no accumulators".to_owned() }),
        };
        let unreadable = |error| EvaluationError { message: format!("accumulators that were sent: {error}") };
        self.0.decode(bytes).map_err(unreadable)
    }
}

impl ValueCodec for MergedRows {
    type Value = Accumulators;

    fn encode(&self, value: &Accumulators, bytes: &mut Vec<u8>) {
        self.0.encode(value, bytes);
    }

    fn decode(&self, bytes: &[u8]) -> Result<Accumulators, String> {
        self.0.decode(bytes)
    }

    fn heap_bytes(&self, value: &Accumulators) -> usize {
        self.0.heap_bytes(value)
    }
}

impl Aggregator<Dynamic> for MergedRows {
    type Input<'b> = Accumulators;

    fn input<'b>(
        &self,
        event: &Event<'b, Dynamic>,
        _arena: &'b Bump,
    ) -> Result<Accumulators, EvaluationError> {
        self.read(&event.record)
    }

    fn create(&self) -> Accumulators {
        self.0.create()
    }

    fn add(&self, value: &mut Accumulators, input: Accumulators) -> Result<(), EvaluationError> {
        let mut merged = value.clone();
        self.0.merge(&mut merged, &input)?;
        *value = merged;
        Ok(())
    }

    fn rows(&self, value: &Accumulators) -> i64 {
        self.0.rows(value)
    }

    fn rows_of(&self, event: &Event<'_, Dynamic>) -> u64 {
        self.read(&event.record).map_or(1, |value| self.0.rows(&value).max(1) as u64)
    }

    fn merge(&self, value: &mut Accumulators, later: &Accumulators) -> Result<(), EvaluationError> {
        self.0.merge(value, later)
    }

    fn copied(&self, value: &Accumulators) -> Result<Accumulators, EvaluationError> {
        self.0.copied(value)
    }
}
