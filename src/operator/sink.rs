//! Writes a stream to a topic, with the next checkpoint.

use std::sync::Arc;

use super::{Context, ErrorPolicy, Operator, OperatorError, OutputTarget, Progress};
use crate::expression::EvaluationError;
use crate::format::json::Encoder;
use crate::format::key::{encode_sink_key, partition};
use crate::record::{Dynamic, Event, FieldForm, OutputRecord, RecordType, Row, Slot};
use crate::state::Stateful;

/// The bytes of a record.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Its key, if it has one.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Vec<u8>,
}

/// How records become bytes.
pub trait RecordWriter<R: RecordType> {
    /// Key and value of a record, or why it cannot be written.
    fn write(&self, record: &R::Of<'_>) -> Result<Written, EvaluationError>;
}

/// The operator.
pub struct Sink<W> {
    writer: W,
    target: Arc<OutputTarget>,
    errors: ErrorPolicy,
}

impl<W> Sink<W> {
    /// Writes to `target` what `writer` makes of the records.
    pub fn new(writer: W, target: Arc<OutputTarget>, errors: ErrorPolicy) -> Self {
        Sink { writer, target, errors }
    }
}

impl<R: RecordType, W: RecordWriter<R>> Operator<R> for Sink<W> {
    fn process<'b>(
        &mut self,
        event: Event<'b, R>,
        context: &mut Context<'_, 'b>,
    ) -> Result<(), OperatorError> {
        let Written { key, value } = match self.writer.write(&event.record) {
            Ok(written) => written,
            Err(error) => {
                return self.errors.refuse(&error.message, &event, Vec::new, context);
            }
        };
        let partition = partition(key.as_deref(), self.target.partitions)
            .unwrap_or_else(|| context.staged.unkeyed_partition(self.target.partitions));
        let record = OutputRecord {
            topic: self.target.topic.clone(),
            partition,
            key,
            value: Some(value),
            headers: Vec::new(),
            timestamp_ms: event.time_ms,
        };
        if let Some(message) = self.target.refuses(&record) {
            let value = record.value.unwrap_or_default();
            return self.errors.refuse(&message, &event, || value, context);
        }
        context.staged.push(record);
        Ok(())
    }

    fn advance<'b>(
        &mut self,
        _watermark_ms: i64,
        _: &mut Context<'_, 'b>,
    ) -> Result<Progress, OperatorError> {
        Ok(Progress::Done)
    }

    fn finish<'b>(&mut self, _: &mut Context<'_, 'b>) -> Result<Progress, OperatorError> {
        Ok(Progress::Done)
    }

    fn hand_on<'b>(&mut self, _context: &mut Context<'_, 'b>) -> Result<(), OperatorError> {
        Ok(())
    }

    fn visit(&mut self, _: &mut dyn FnMut(&mut dyn Stateful)) {}
}

/// Writes rows as JSON.
pub struct RowWriter {
    /// Encodes the value.
    pub encoder: Arc<Encoder>,
    /// The key's fields: name, form and slot; empty for records without a key.
    pub key: Vec<(String, FieldForm, usize)>,
}

impl RecordWriter<Dynamic> for RowWriter {
    fn write(&self, record: &Row<'_>) -> Result<Written, EvaluationError> {
        let key = (!self.key.is_empty()).then(|| {
            let fields: Vec<(&str, FieldForm, Slot<'_>)> =
                self.key.iter().map(|(name, form, slot)| (name.as_str(), *form, record[*slot])).collect();
            let mut key = Vec::with_capacity(32);
            encode_sink_key(&fields, &mut key);
            key
        });
        Ok(Written { key, value: self.encoder.to_vec(record) })
    }
}
