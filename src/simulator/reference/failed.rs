//! Dead letters.

use super::evaluate::Origin;
use super::{ERROR, OPERATOR, Row, Task, provenance};
use crate::topology::plan::OnError;

impl<'g> Task<'_, 'g> {
    /// A record that failed. `derived` is that of a row which comes from no record.
    pub(super) fn failed(
        &mut self,
        id: &'g str,
        on_error: &'g OnError,
        origin: Option<Origin<'_>>,
        derived: impl FnOnce() -> Vec<u8>,
    ) {
        *self.out.failed.entry(id.to_owned()).or_default() += 1;
        let OnError::DeadLetter(topic) = on_error else { return };
        // Several rows of one record have one dead letter of an operator.
        if let Some(Origin { offset, input }) = origin {
            let record = (input.partition.clone(), offset);
            if self.refused.insert(id, record.clone()) == Some(record) {
                return;
            }
        }
        let key = origin.and_then(|origin| origin.input.key.clone());
        let mut headers = origin.map(provenance).unwrap_or_default();
        headers.push((ERROR.to_owned(), None));
        headers.push((OPERATOR.to_owned(), Some(id.as_bytes().to_vec())));
        let row = Row {
            partition: self.partition_by(topic, origin),
            key,
            value: origin.map_or_else(|| Some(derived()), |origin| origin.input.value.clone()),
            headers,
            timestamp_ms: origin.map(|origin| origin.input.timestamp_ms),
        };
        self.put(topic, id, row);
    }
}
