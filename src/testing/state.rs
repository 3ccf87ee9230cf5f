//! The state of window operators as rows.

use bumpalo::Bump;

use crate::format::json::Encoder;
use crate::operator::{RowAggregates, RowResults, WindowResult};
use crate::record::Schema;
use crate::simulator::Outcome;
use crate::state::ValueCodec;
use crate::state::key::split;
use crate::topology::Plan;
use crate::topology::plan::{Emit, OperatorKind, OperatorPlan, WindowPlan};
use crate::window::Tumbling;

use std::sync::Arc;

/// The open windows of an operator as JSON rows: what it would emit now, without the mark of the last row.
/// The error names an entry that cannot be read.
pub(super) fn rows(plan: &Plan, operator: &str, outcome: &Outcome) -> Result<Vec<Vec<u8>>, String> {
    let found = plan.operators.iter().find(|plan| plan.id == operator);
    let Some((plan, window)) = found.and_then(|plan| match &plan.kind {
        OperatorKind::Window(window) => Some((plan, window)),
        _ => None,
    }) else {
        return Ok(Vec::new());
    };
    let reader = StateReader::new(plan, window);
    let mut rows = Vec::new();
    for (key, value) in outcome.state.values().flatten() {
        let Some(entry) = split(key).filter(|entry| entry.operator_id == operator) else { continue };
        rows.push(
            reader
                .row(entry.key, entry.window_end_ms, value)
                .map_err(|error| format!("an entry of the state of `{operator}` cannot be read: {error}"))?,
        );
    }
    Ok(rows)
}

struct StateReader {
    codec: RowAggregates,
    results: RowResults,
    windows: Tumbling,
    encoder: Encoder,
}

impl StateReader {
    fn new(operator: &OperatorPlan, window: &WindowPlan) -> StateReader {
        let marks_last = window.emit == Emit::OnUpdate;
        let row_fields = operator.schema.fields.len() - usize::from(marks_last);
        let schema = Schema { fields: operator.schema.fields[..row_fields].to_vec() };
        let aggregates = || RowAggregates::new(window.aggregates.clone());
        StateReader {
            codec: aggregates(),
            results: RowResults {
                key_fields: window.key.len(),
                aggregates: Arc::new(aggregates()),
                marks_last: false,
                row_fields,
            },
            windows: Tumbling::new(window.size_ms),
            encoder: Encoder::new(&schema),
        }
    }

    fn row(&self, key: &[u8], window_end_ms: i64, value: &[u8]) -> Result<Vec<u8>, String> {
        let arena = Bump::new();
        let value = self.codec.decode(value)?;
        let window = self.windows.ending_at(window_end_ms);
        let row = self.results.make(key, window, &value, true, &arena).map_err(|error| error.to_string())?;
        Ok(self.encoder.to_vec(row))
    }
}
