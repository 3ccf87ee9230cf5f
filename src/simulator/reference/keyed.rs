//! What operators remember of keys, by their definitions: everything is kept, and looked through each time.

use super::evaluate::Failed;
use super::group::key_of;
use super::{Event, Task};
use crate::record::Field;
use crate::simulator::generate::{Deduplicate, Operator};
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
}
