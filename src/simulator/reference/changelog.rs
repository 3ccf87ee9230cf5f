//! Changelogs, row by row.

use super::evaluate::Failed;
use super::{KeyPart, Task, folded, object, result};
use crate::simulator::generate::formula::Value;
use crate::simulator::generate::{Operator, OperatorKind};

/// What was told of a key's window, by its end and start.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub place: (i64, Vec<KeyPart>),
    pub start_ms: i64,
    pub row: Vec<Value>,
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

    /// Tells what an open window holds, if a row has come since it was told, and takes back what was.
    pub(super) fn tell_changed(&mut self, index: usize, operator: &'g Operator, place: &(i64, Vec<KeyPart>)) {
        let OperatorKind::Window(window) = &operator.kind else { return };
        let Some(open) = self.windows[index].open.get_mut(place) else { return };
        if !std::mem::take(&mut open.changed) {
            return;
        }
        let (start_ms, row) = (open.start_ms, result(window, place, open, false));
        let now = row.clone().ok().map(|row| Told { place: place.clone(), start_ms, row });
        let mut told = std::mem::replace(&mut open.told, now);
        // What begins or ends elsewhere is another one.
        if let Some(other) = told.take_if(|told| (told.place.0, told.start_ms) != (place.0, start_ms)) {
            self.take_back(index, operator, other);
        }
        self.change(index, operator, told, (place, start_ms), row);
    }

    /// Notes what a window holds that tells at times which nobody knows.
    pub(super) fn hold(&mut self, index: usize, operator: &'g Operator, place: &(i64, Vec<KeyPart>)) {
        let OperatorKind::Window(window) = &operator.kind else { return };
        if !window.tells_by_time() {
            return;
        }
        let Some(open) = self.windows[index].open.get(place) else { return };
        if let Ok(row) = result(window, place, open, false) {
            let value = object(&operator.fields, &row);
            self.out.held.entry(index).or_default().extend(folded::without_op(&value));
        }
    }
}
