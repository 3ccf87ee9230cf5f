//! Changelogs, row by row.

use super::evaluate::Failed;
use super::{KeyPart, OpenWindow, Task, result};
use crate::simulator::generate::formula::Value;
use crate::simulator::generate::{Operator, Window};
use crate::topology::plan::Emit;

/// What was told of a key's window, by its end and start.
pub(super) struct Told {
    pub place: (i64, Vec<KeyPart>),
    pub start_ms: i64,
    pub row: Vec<Value>,
}

/// What was told last of an open window, if its rows are a changelog; nothing of what cannot be.
pub(super) fn told(window: &Window, place: &(i64, Vec<KeyPart>), open: &OpenWindow) -> Option<Told> {
    if !window.changelog || (window.emit == Emit::OnTime && !open.fired) {
        return None;
    }
    let row = result(window, place, open, false).ok()?;
    Some(Told { place: place.clone(), start_ms: open.start_ms, row })
}

/// A row that does this.
fn with_op(mut row: Vec<Value>, op: &str) -> Vec<Value> {
    if let Some(last) = row.last_mut() {
        *last = Value::Text(op.into());
    }
    row
}

impl<'g> Task<'_, 'g> {
    /// Takes back what was told.
    pub(super) fn take_back(&mut self, index: usize, operator: &'g Operator, told: Told) {
        self.fire(index, operator, &told.place, told.start_ms, Ok(with_op(told.row, "delete")));
    }

    /// Hands on a row, and before it what it takes the place of.
    pub(super) fn change(
        &mut self,
        index: usize,
        operator: &'g Operator,
        told: Option<Told>,
        (place, start_ms): (&(i64, Vec<KeyPart>), i64),
        row: Result<Vec<Value>, Failed>,
    ) {
        match (told, row) {
            (Some(Told { place: before, start_ms: from_ms, row }), Ok(after)) => {
                self.fire(index, operator, &before, from_ms, Ok(with_op(row, "update_before")));
                self.fire(index, operator, place, start_ms, Ok(with_op(after, "update_after")));
            }
            (told, row) => {
                if let Some(told) = told {
                    self.take_back(index, operator, told);
                }
                self.fire(index, operator, place, start_ms, row);
            }
        }
    }
}
