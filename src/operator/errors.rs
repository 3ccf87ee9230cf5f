//! What becomes of a record that an operator fails on.

use std::sync::Arc;

use super::staged::{OutputTarget, Staged, add, count, provenance, record_bytes};
use super::{Context, OperatorError};
use crate::record::{Event, OutputRecord, RecordType, SourceRecord};

/// Where the failing records of one source or operator go.
#[derive(Clone, Debug)]
pub struct ErrorPolicy {
    operator: Arc<str>,
    action: Action,
}

#[derive(Clone, Debug)]
enum Action {
    Fail,
    Skip,
    DeadLetter(Arc<OutputTarget>),
}

impl ErrorPolicy {
    /// The first failing record stops the process.
    pub fn fail(operator: &str) -> Self {
        ErrorPolicy { operator: operator.into(), action: Action::Fail }
    }

    /// Failing records are counted and left out.
    pub fn skip(operator: &str) -> Self {
        ErrorPolicy { operator: operator.into(), action: Action::Skip }
    }

    /// Failing records are counted and written to `target`.
    pub fn dead_letter(operator: &str, target: Arc<OutputTarget>) -> Self {
        ErrorPolicy { operator: operator.into(), action: Action::DeadLetter(target) }
    }

    /// The source or operator that this is the policy of.
    pub fn operator(&self) -> &Arc<str> {
        &self.operator
    }

    /// Deals with a record that its operator failed on; `render` is called only if it comes from no single source record, or
    /// the value of that is not known.
    pub(super) fn refuse<R: RecordType>(
        &self,
        message: &str,
        event: &Event<'_, R>,
        render: impl FnOnce() -> Vec<u8>,
        context: &mut Context<'_, '_>,
    ) -> Result<(), OperatorError> {
        self.handle(message, event.source.as_ref(), render, context.staged)
    }

    /// Counts so many more records as failed: one that was [refused](ErrorPolicy::refuse) stood for them as well.
    pub(super) fn count_more(&self, records: u64, staged: &mut Staged) {
        if records > 0 {
            add(&mut staged.counters.failed, &self.operator, records);
        }
    }

    /// Deals with a record that failed with `message`. `derived` renders a record that comes from no
    /// single source record, or from one whose value is not known; it is called only then. A source record has one dead letter of
    /// an operator, however many rows of it fail there one after the other: those behind the first one are only counted. Rows
    /// without a record, or the value of theirs, have one each.
    ///
    /// # Errors
    /// If the policy is to fail, or the dead letter is larger than its topic takes.
    pub fn handle(
        &self,
        message: &str,
        source: Option<&SourceRecord<'_>>,
        derived: impl FnOnce() -> Vec<u8>,
        staged: &mut Staged,
    ) -> Result<(), OperatorError> {
        let place = || match source {
            Some(source) => format!("{} at offset {}", source.records.topic_partition(), source.offset),
            None => "a derived row".to_owned(),
        };
        count(&mut staged.counters.failed, &self.operator);
        let target = match &self.action {
            Action::Skip => return Ok(()),
            Action::Fail => {
                return Err(OperatorError::Fail(format!(
                    "{}: {}: {message}; correct the record or the topology, or give `{}` an on_error of \
                     skip or dead_letter",
                    self.operator,
                    place(),
                    self.operator
                )));
            }
            Action::DeadLetter(target) => target,
        };
        // One that has come without its value is not what it was.
        let source = source.filter(|source| source.records.has_values());
        if source.is_some() && !staged.refuse_first(&self.operator) {
            return Ok(());
        }
        let partition = staged.partition_by(source, target.partitions);
        let letter = self.letter(target, message, source, derived, partition);
        let bytes = record_bytes(&letter);
        if bytes > target.record_bytes_max {
            return Err(OperatorError::Fail(format!(
                "{}: {}: {message}; its dead letter of {bytes} bytes is larger than the {} bytes that topic \
                 {} takes: raise max.message.bytes of that topic",
                self.operator,
                place(),
                target.record_bytes_max,
                target.topic
            )));
        }
        staged.push_dead_letter(letter);
        Ok(())
    }

    fn letter(
        &self,
        target: &OutputTarget,
        message: &str,
        source: Option<&SourceRecord<'_>>,
        derived: impl FnOnce() -> Vec<u8>,
        partition: i32,
    ) -> OutputRecord {
        let (key, value, mut headers, timestamp_ms) = match source {
            Some(source) => (
                source.key.map(<[u8]>::to_vec),
                source.value.map(<[u8]>::to_vec),
                provenance(source),
                source.timestamp_ms,
            ),
            None => (None, Some(derived()), Vec::new(), -1),
        };
        headers.push(("thalweg.error".to_owned(), Some(message.as_bytes().to_vec())));
        headers.push(("thalweg.operator".to_owned(), Some(self.operator.as_bytes().to_vec())));
        OutputRecord { topic: target.topic.clone(), partition, key, value, headers, timestamp_ms }
    }
}
