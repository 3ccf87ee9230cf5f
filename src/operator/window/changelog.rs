//! Changelogs: rows that say what they do to those before them, as Flink's row kinds do.
//!
//! A row is made after each update. So what was told last of a key and window is made of what it held before the next one,
//! and to take it back needs nothing beside the state: whatever cannot be made of that was never told.

use bumpalo::Bump;

use super::{Firing, Outlet, WindowResult};
use crate::expression::EvaluationError;
use crate::operator::{Context, OperatorError};
use crate::record::{Event, RecordType};
use crate::window::WindowRange;

/// What a row of a changelog does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowKind {
    /// It is new.
    Insert,
    /// It takes back an earlier row, and the one that takes its place follows.
    UpdateBefore,
    /// It takes the place of the row that was taken back before it.
    UpdateAfter,
    /// It takes back an earlier row.
    Delete,
}

impl RowKind {
    /// What it is called in rows.
    pub fn name(self) -> &'static str {
        match self {
            RowKind::Insert => "insert",
            RowKind::UpdateBefore => "update_before",
            RowKind::UpdateAfter => "update_after",
            RowKind::Delete => "delete",
        }
    }
}

impl<O: RecordType, F> Outlet<O, F> {
    /// The record of a window's value.
    fn change<'b, V>(
        &self,
        key: &[u8],
        (window, value): (WindowRange, &V),
        kind: RowKind,
        arena: &'b Bump,
    ) -> Result<Event<'b, O>, EvaluationError>
    where
        F: WindowResult<V, O>,
    {
        let record = self.results.make(key, window, value, Firing::Changelog(kind), arena)?;
        Ok(Event { record, time_ms: window.end_ms - 1, source: None })
    }

    /// Takes back what was told of a key's value in a window.
    pub(super) fn retract<V>(
        &mut self,
        key: &[u8],
        told: (WindowRange, &V),
        context: &mut Context<'_, '_>,
    ) -> Result<(), OperatorError>
    where
        F: WindowResult<V, O>,
    {
        match self.change(key, told, RowKind::Delete, context.arena) {
            Ok(event) => self.readers.process(event, context),
            Err(_) => Ok(()),
        }
    }

    /// Makes the records that lead from what was told of a key to what holds now. If there can be none of that, what was told
    /// is taken back all the same.
    pub(super) fn emit_change<V>(
        &mut self,
        key: &[u8],
        told: Option<(WindowRange, &V)>,
        (window, value): (WindowRange, Result<&V, EvaluationError>),
        context: &mut Context<'_, '_>,
    ) -> Result<(), OperatorError>
    where
        F: WindowResult<V, O>,
    {
        let arena = context.arena;
        let before = told.and_then(|told| self.change(key, told, RowKind::UpdateBefore, arena).ok());
        let kind = if before.is_some() { RowKind::UpdateAfter } else { RowKind::Insert };
        match value.and_then(|value| self.change(key, (window, value), kind, arena)) {
            Ok(after) => {
                if let Some(before) = before {
                    self.readers.process(before, context)?;
                }
                self.readers.process(after, context)
            }
            Err(error) => {
                if let Some(told) = told.filter(|_| before.is_some()) {
                    self.retract(key, told, context)?;
                }
                self.emit((key, window, Err(error), Firing::Changelog(kind)), context)
            }
        }
    }
}
