//! The state of window operators as rows.

use std::collections::{BTreeMap, BTreeSet};

use bumpalo::Bump;

use crate::format::json::Encoder;
use crate::operator::{
    Accumulators, Aggregator, Firing, RowAggregates, RowResults, SessionCodec, WindowResult,
};
use crate::record::Schema;
use crate::simulator::Outcome;
use crate::state::ValueCodec;
use crate::state::key::{WindowKey, split};
use crate::topology::Plan;
use crate::topology::plan::{OperatorKind, OperatorPlan, Phase, WindowPlan, Windows};
use crate::window::{CalendarWindows, PanedWindows, WindowRange};

/// The open windows of an operator as JSON rows: what it would emit now, without the mark.
/// The error names an entry that cannot be read.
pub(super) fn rows(plan: &Plan, operator: &str, outcome: &Outcome) -> Result<Vec<Vec<u8>>, String> {
    let mut found = plan.operators.iter().filter(|plan| plan.id == operator);
    let Some((plan, window)) = found.find_map(|plan| match &plan.kind {
        OperatorKind::Window(window) if window.phase != Phase::Local => Some((plan, window)),
        _ => None,
    }) else {
        return Ok(Vec::new());
    };
    let reader = StateReader::new(plan, window);
    let mut rows = Vec::new();
    for (task, entries) in &outcome.state {
        let entries = entries.iter().filter_map(|(key, value)| Some((split(key)?, value)));
        let entries = entries.filter(|(key, _)| key.operator_id == operator);
        let saved = outcome.operators.get(task).into_iter().flatten().find(|saved| saved.id == operator);
        let watermark_ms = saved.and_then(|saved| saved.fired_watermark_ms);
        let of_task = match &window.windows {
            Windows::Aligned(windows) => reader.paned(windows, entries, watermark_ms),
            Windows::Calendar(calendar) => {
                reader.paned(&CalendarWindows::new(calendar.clone()), entries, watermark_ms)
            }
            Windows::Session(_) => reader.sessions(entries, watermark_ms),
        };
        let unreadable = |error| format!("an entry of the state of `{operator}` cannot be read: {error}");
        rows.extend(of_task.map_err(unreadable)?);
    }
    Ok(rows)
}

struct StateReader<'p> {
    window: &'p WindowPlan,
    codec: RowAggregates,
    results: RowResults,
    encoder: Encoder,
}

impl StateReader<'_> {
    fn new<'p>(operator: &OperatorPlan, window: &'p WindowPlan) -> StateReader<'p> {
        let row_fields = operator.schema.fields.len() - window.marks().count();
        let schema = Schema { fields: operator.schema.fields[..row_fields].to_vec() };
        let aggregates = || RowAggregates::of(window);
        StateReader {
            window,
            codec: aggregates(),
            results: RowResults::new(&schema, window.key.len(), aggregates(), Vec::new()),
            encoder: Encoder::new(&schema),
        }
    }

    fn is_open(&self, end_ms: i64, watermark_ms: Option<i64>) -> bool {
        watermark_ms.is_none_or(|watermark_ms| watermark_ms < end_ms + self.window.allowed_lateness_ms)
    }

    fn paned<'e>(
        &self,
        windows: &impl PanedWindows,
        entries: impl Iterator<Item = (WindowKey<'e>, &'e Vec<u8>)>,
        watermark_ms: Option<i64>,
    ) -> Result<Vec<Vec<u8>>, String> {
        let mut keys: BTreeMap<&[u8], BTreeMap<i64, Accumulators>> = BTreeMap::new();
        for (key, value) in entries {
            let value = self.codec.decode(value)?;
            keys.entry(key.key).or_default().insert(key.window_end_ms, value);
        }
        let mut rows = Vec::new();
        for (key, panes) in keys {
            let ends = panes.keys().flat_map(|pane_end_ms| windows.ends(*pane_end_ms));
            for end_ms in ends.filter(|end_ms| self.is_open(*end_ms, watermark_ms)).collect::<BTreeSet<i64>>()
            {
                let window = windows.ending_at(end_ms);
                let mut merged = self.codec.create();
                let mut panes = panes.range(windows.panes(window));
                let sum = panes.try_for_each(|(_, value)| self.codec.merge(&mut merged, value));
                sum.map_err(|error| error.to_string())?;
                rows.push(self.row(key, window, &merged)?);
            }
        }
        Ok(rows)
    }

    fn sessions<'e>(
        &self,
        entries: impl Iterator<Item = (WindowKey<'e>, &'e Vec<u8>)>,
        watermark_ms: Option<i64>,
    ) -> Result<Vec<Vec<u8>>, String> {
        let codec = SessionCodec::new(RowAggregates::of(self.window));
        let mut rows = Vec::new();
        for (key, value) in entries {
            let session = codec.decode(value)?;
            if let Some(session) = session.filter(|session| self.is_open(session.range.end_ms, watermark_ms))
            {
                rows.push(self.row(key.key, session.range, &session.value)?);
            }
        }
        Ok(rows)
    }

    fn row(&self, key: &[u8], window: WindowRange, value: &Accumulators) -> Result<Vec<u8>, String> {
        let arena = Bump::new();
        let row = self.results.make(key, window, value, Firing::Close, &arena);
        Ok(self.encoder.to_vec(row.map_err(|error| error.to_string())?))
    }
}
