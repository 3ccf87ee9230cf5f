//! The state of window operators as rows.

use std::collections::{BTreeMap, BTreeSet};

use bumpalo::Bump;

use crate::format::json::Encoder;
use crate::operator::{
    Accumulators, Aggregator, Firing, KeptCodec, RowAggregates, RowResults, Session, SessionCodec,
    WindowResult,
};
use crate::record::Schema;
use crate::simulator::Outcome;
use crate::state::ValueCodec;
use crate::state::key::{WindowKey, split};
use crate::topology::Plan;
use crate::topology::plan::{OperatorKind, OperatorPlan, Phase, Windows};
use crate::window::{CalendarWindows, PanedWindows, WindowRange};

/// The open windows of an operator as JSON rows: what it would emit now, without the mark.
/// The error names an entry that cannot be read.
pub(super) fn rows(plan: &Plan, operator: &str, outcome: &Outcome) -> Result<Vec<Vec<u8>>, String> {
    let mut found = plan.operators.iter().filter(|plan| plan.id == operator);
    let Some((reader, windows)) = found.find_map(|plan| match &plan.kind {
        OperatorKind::Window(window) if window.phase != Phase::Local => {
            let aggregates = || RowAggregates::of(window);
            let reader = StateReader::new(plan, window.key.len(), window.marks().count(), &aggregates);
            let (allowed_lateness_ms, purges) = (window.allowed_lateness_ms, window.purge);
            Some((StateReader { allowed_lateness_ms, purges, ..reader }, Some(window)))
        }
        OperatorKind::GlobalWindow(window) => {
            let aggregates = || RowAggregates::new(window.aggregates.clone()).in_panes(window.panes());
            let reader = StateReader::new(plan, window.key.len(), window.marks(), &aggregates);
            Some((StateReader { ttl_ms: window.ttl_ms, ..reader }, None))
        }
        _ => None,
    }) else {
        return Ok(Vec::new());
    };
    let mut rows = Vec::new();
    for (task, entries) in &outcome.state {
        let entries = entries.iter().filter_map(|(key, value)| Some((split(key)?, value)));
        let entries = entries.filter(|(key, _)| key.operator_id == operator);
        let saved = outcome.operators.get(task).into_iter().flatten().find(|saved| saved.id == operator);
        let watermark_ms = saved.and_then(|saved| saved.fired_watermark_ms);
        let of_task = match windows.map(|window| (&window.windows, window)) {
            Some((Windows::Aligned(windows), _)) => reader.paned(windows, entries, watermark_ms),
            Some((Windows::Calendar(calendar), _)) => {
                reader.paned(&CalendarWindows::new(calendar.clone()), entries, watermark_ms)
            }
            Some((Windows::Session(_), window)) => {
                reader.sessions(RowAggregates::of(window), entries, watermark_ms)
            }
            None => reader.kept(entries, watermark_ms),
        };
        let unreadable = |error| format!("an entry of the state of `{operator}` cannot be read: {error}");
        rows.extend(of_task.map_err(unreadable)?);
    }
    Ok(rows)
}

struct StateReader {
    allowed_lateness_ms: i64,
    /// Whether windows begin anew with the rows that they make.
    purges: bool,
    ttl_ms: Option<i64>,
    /// Of values by themselves.
    codec: RowAggregates,
    /// Of keys whose windows no time closes.
    kept: KeptCodec<RowAggregates>,
    results: RowResults,
    encoder: Encoder,
}

impl StateReader {
    fn new(
        operator: &OperatorPlan,
        key_fields: usize,
        marks: usize,
        aggregates: &dyn Fn() -> RowAggregates,
    ) -> StateReader {
        let row_fields = operator.schema.fields.len() - marks;
        let schema = Schema { fields: operator.schema.fields[..row_fields].to_vec() };
        StateReader {
            allowed_lateness_ms: 0,
            purges: false,
            ttl_ms: None,
            codec: aggregates(),
            kept: KeptCodec::new(aggregates()),
            results: RowResults::new(&schema, key_fields, aggregates(), Vec::new()),
            encoder: Encoder::new(&schema),
        }
    }

    /// Whether a window has taken no row since it began anew.
    fn is_purged(&self, value: &Accumulators) -> bool {
        self.purges && self.codec.rows(value) == 0
    }

    fn is_open(&self, end_ms: i64, watermark_ms: Option<i64>) -> bool {
        watermark_ms.is_none_or(|watermark_ms| watermark_ms < end_ms + self.allowed_lateness_ms)
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
            if self.is_purged(&value) || self.codec.is_hollow(&value) {
                continue;
            }
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

    /// What is kept of keys of which no window of time is.
    fn kept<'e>(
        &self,
        entries: impl Iterator<Item = (WindowKey<'e>, &'e Vec<u8>)>,
        watermark_ms: Option<i64>,
    ) -> Result<Vec<Vec<u8>>, String> {
        let is_forgotten = |newest_ms: i64| match (self.ttl_ms, watermark_ms) {
            (Some(ttl_ms), Some(watermark_ms)) => watermark_ms >= newest_ms + ttl_ms,
            _ => false,
        };
        let mut rows = Vec::new();
        for (key, value) in entries {
            let kept = self.kept.decode(value)?.filter(|kept| !is_forgotten(kept.newest_ms));
            let Some((kept, window)) = kept.and_then(|kept| kept.range().map(|window| (kept, window))) else {
                continue;
            };
            let mut merged = self.codec.create();
            let sum = kept.panes.iter().try_for_each(|pane| self.codec.merge(&mut merged, &pane.value));
            sum.map_err(|error| error.to_string())?;
            rows.push(self.row(key.key, window, &merged)?);
        }
        Ok(rows)
    }

    fn sessions<'e>(
        &self,
        aggregates: RowAggregates,
        entries: impl Iterator<Item = (WindowKey<'e>, &'e Vec<u8>)>,
        watermark_ms: Option<i64>,
    ) -> Result<Vec<Vec<u8>>, String> {
        let codec = SessionCodec::new(aggregates);
        let mut rows = Vec::new();
        for (key, value) in entries {
            let session = codec.decode(value)?;
            let is_shown = |session: &Session<Accumulators>| {
                self.is_open(session.range.end_ms, watermark_ms) && !self.is_purged(&session.value)
            };
            if let Some(session) = session.filter(is_shown) {
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
