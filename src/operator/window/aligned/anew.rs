//! Windows that begin anew with the records that they make. They do not overlap, so that each is a pane.

use std::ops::ControlFlow;

use super::WindowOperator;
use crate::operator::window::early::Place;
use crate::operator::window::{Aggregator, Firing, KeySelector, WindowResult, behind};
use crate::operator::{Context, OperatorError};
use crate::record::RecordType;
use crate::state::EntryRef;
use crate::window::PanedWindows;

impl<R, O, K, A, F, W> WindowOperator<R, O, K, A, F, W>
where
    R: RecordType,
    O: RecordType,
    K: KeySelector<R>,
    A: Aggregator<R>,
    F: WindowResult<A::Value, O>,
    W: PanedWindows,
{
    /// Has a window begin anew, in an entry that has been marked as changed.
    pub(super) fn purge(&mut self, entry: EntryRef) {
        let (aggregator, value) = self.state.table.value_mut(entry);
        let heap_before = aggregator.heap_bytes(value);
        *value = aggregator.create();
        self.state.table.heap_changed(entry, heap_before);
    }

    /// Makes the record of a key's window, which begins anew, unless there is nothing to tell: then the entry stays
    /// as it is, unchanged. Returns whether there is one.
    pub(in crate::operator::window) fn fire_anew(
        &mut self,
        end_ms: i64,
        key: &[u8],
        firing: Firing,
        context: &mut Context<'_, '_>,
    ) -> Result<bool, OperatorError> {
        let (table, early, mut is_empty) = (&self.state.table, &self.early, true);
        table.visit_key(end_ms..=end_ms, key, |_, value| {
            is_empty = early.is_empty(table.codec(), value);
            ControlFlow::Break(())
        })?;
        if is_empty {
            return Ok(false);
        }
        let entry = self.state.table.entry(end_ms, key, A::create)?;
        let value = self.state.table.value(entry);
        let window = self.state.spec.windows.ending_at(end_ms);
        self.outlet.emit((key, window, Ok(value), firing), context)?;
        self.purge(entry);
        Ok(true)
    }

    /// The same of all keys of a window, from one on. Returns at which there may be more when a call's limit is reached.
    pub(super) fn fire_all_anew(
        &mut self,
        end_ms: i64,
        from: &[u8],
        firing: Firing,
        context: &mut Context<'_, '_>,
    ) -> Result<Option<Vec<u8>>, OperatorError> {
        let mut next = Some(Place { end_ms, from: from.to_vec() });
        while let Some(place) = next.take() {
            let (mut found, more) = self.state.keys_within(end_ms..=end_ms, place, |_| None)?;
            next = more;
            while let Some((_, key)) = found.pop() {
                self.fire_anew(end_ms, &key, firing, context)?;
                if context.made_row() {
                    return Ok(Some(behind(&key)));
                }
            }
        }
        Ok(None)
    }
}
