//! Operators of their own definitions: what they remember of keys (everything is kept, and looked through each time),
//! and where they send rows.

use super::evaluate::{Environment, Failed};
use super::group::key_of;
use super::{Event, Task};
use crate::record::Field;
use crate::simulator::generate::formula::Value;
use crate::simulator::generate::{Branch, Deduplicate, Lag, Operator, OperatorKind};
use crate::topology::plan::StreamRef;

impl<'g> Task<'_, 'g> {
    /// A row passes unless one of its key has passed that is too near, and that counts still.
    pub(super) fn deduplicate(
        &mut self,
        index: usize,
        operator: &'g Operator,
        deduplicate: &'g Deduplicate,
        fields: &[Field],
        event: &Event<'_>,
    ) -> Result<(), Failed> {
        let (within_ms, watermark_ms) = (deduplicate.within_ms, self.windows[index].watermark_ms);
        let has_expired =
            |time_ms: i64| watermark_ms.is_some_and(|watermark_ms| watermark_ms >= time_ms + within_ms);
        if has_expired(event.time_ms) {
            self.late(&operator.id, deduplicate.late.as_ref(), fields, event);
            return Ok(());
        }
        let key = key_of(&deduplicate.key, event)?;
        let passed = &mut self.windows[index].passed;
        let is_near = |time_ms: i64| time_ms.abs_diff(event.time_ms) < within_ms as u64;
        if passed.iter().any(|(other, time_ms)| *other == key && is_near(*time_ms) && !has_expired(*time_ms))
        {
            *self.out.duplicates.entry(operator.id.clone()).or_default() += 1;
            return Ok(());
        }
        passed.push((key, event.time_ms));
        self.process(StreamRef::Operator(index), event);
        Ok(())
    }

    /// A row goes to the first branch whose condition is true.
    pub(super) fn split(&mut self, index: usize, branch: &Branch, event: &Event<'_>) -> Result<(), Failed> {
        let environment = Environment { row: event.row, origin: event.origin };
        let mut number = branch.conditions.len();
        for (place, (_, condition)) in branch.conditions.iter().enumerate() {
            if environment.evaluate(condition)? == Value::Bool(true) {
                number = place;
                break;
            }
        }
        let of_branch = |output: &Operator| {
            output.input == StreamRef::Operator(index)
                && matches!(output.kind, OperatorKind::Output(other) if other == number)
        };
        if let Some(output) = self.generated.operators.iter().position(of_branch) {
            self.process(StreamRef::Operator(output), event);
        }
        Ok(())
    }

    /// A row gets what the one of its key had that came before it, unless that is forgotten.
    pub(super) fn lag(&mut self, index: usize, lag: &Lag, event: &Event<'_>) -> Result<(), Failed> {
        let key = key_of(&lag.key, event)?;
        let environment = Environment { row: event.row, origin: event.origin };
        let values = lag.set.iter().map(|(_, formula)| environment.evaluate(formula));
        let values: Vec<Value> = values.collect::<Result<_, Failed>>()?;
        // What is longer is an error.
        let most = (512 << 10) / values.len().max(8);
        if values.iter().any(|value| matches!(value, Value::Text(text) if text.len() > most)) {
            return Err(Failed);
        }
        let state = &mut self.windows[index];
        let is_forgotten = |time_ms: i64| match (lag.ttl_ms, state.watermark_ms) {
            (Some(ttl_ms), Some(watermark_ms)) => watermark_ms >= time_ms + ttl_ms,
            _ => false,
        };
        let before = state.left.remove(&key).filter(|(newest_ms, _)| !is_forgotten(*newest_ms));
        let newest_ms = before.as_ref().map_or(event.time_ms, |(newest_ms, _)| event.time_ms.max(*newest_ms));
        if !is_forgotten(newest_ms) {
            state.left.insert(key, (newest_ms, values.clone()));
        }
        let previous = before.map_or(vec![Value::Null; values.len()], |(_, values)| values);
        let row = [event.row, &previous].concat();
        self.process(StreamRef::Operator(index), &Event { row: &row, ..*event });
        Ok(())
    }
}
