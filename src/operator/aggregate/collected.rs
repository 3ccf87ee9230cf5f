//! Values that are kept in an order: as they came, or the best.

use super::accumulator::{Best, Held, Sample};
use super::distinct::Bounds;
use crate::record::Slot;
use crate::topology::plan::AggregateFunction;

/// A text takes so many bytes beside its own where it is stored: of a message and a text each a key and a length.
const TEXT_BYTES: usize = 8;

/// Values in the order in which they came.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Collected {
    values: Vec<Held>,
    /// What the texts among them take together.
    bytes: usize,
}

impl Collected {
    /// Of values in this order.
    pub(super) fn of(values: Vec<Held>) -> Collected {
        let bytes = values.iter().map(stored_bytes).sum();
        Collected { values, bytes }
    }

    /// The values.
    pub fn values(&self) -> &[Held] {
        &self.values
    }

    /// Whether one more has room; the error says why not.
    pub(super) fn check(&self, value: &Slot<'_>, bounds: Bounds) -> Result<(), String> {
        self.bounded(1, slot_bytes(value), bounds)
    }

    fn bounded(&self, values: usize, bytes: usize, bounds: Bounds) -> Result<(), String> {
        if self.values.len() + values > bounds.values {
            return Err(format!("more than {} values", bounds.values));
        }
        if self.bytes + bytes > bounds.bytes {
            return Err(format!("values of more than {} bytes together", bounds.bytes));
        }
        Ok(())
    }

    /// Adds a value; null is none.
    pub(super) fn add(&mut self, value: &Slot<'_>) {
        if let Some(value) = Held::of(value) {
            self.bytes += stored_bytes(&value);
            self.values.push(value);
        }
    }

    /// Adds what came later.
    pub(super) fn merge(&mut self, later: &Collected, bounds: Bounds) -> Result<(), String> {
        // A copy of what was within bounds when it was added is none of its own concern.
        if !self.values.is_empty() {
            self.bounded(later.values.len(), later.bytes, bounds)?;
        }
        self.values.extend_from_slice(&later.values);
        self.bytes += later.bytes;
        Ok(())
    }

    /// Bytes outside itself.
    pub(super) fn heap_bytes(&self) -> usize {
        self.values.capacity() * size_of::<Held>() + self.bytes
    }
}

/// The rows in which a value was the greatest, from the greatest on. Of equal ones the row of the least event time is
/// before the others, of those the one that came first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Top {
    rows: Vec<Best>,
    /// What the texts among them take together.
    bytes: usize,
}

impl Top {
    /// Of rows in this order; `None` if it is another one.
    pub(super) fn of(rows: Vec<Best>) -> Option<Top> {
        let is_behind = |row: &Best, next: &Best| {
            !row.is_replaced_by(AggregateFunction::MaxBy, &next.by.slot(), next.time_ms)
        };
        let bytes = rows.iter().map(row_bytes).sum();
        rows.is_sorted_by(is_behind).then_some(Top { rows, bytes })
    }

    /// The rows.
    pub fn rows(&self) -> &[Best] {
        &self.rows
    }

    /// Where a row comes among the others; `None` if `most` others are before it, or if it has nothing to be compared.
    fn place(&self, by: &Slot<'_>, time_ms: i64, most: usize) -> Option<usize> {
        let is_behind = |row: &Best| !row.is_replaced_by(AggregateFunction::MaxBy, by, time_ms);
        let place = self.rows.partition_point(is_behind);
        (place < most && !by.is_null()).then_some(place)
    }

    /// Whether a row has room; the error says why not.
    pub(super) fn check(&self, sample: &Sample<'_>, bounds: Bounds) -> Result<(), String> {
        if self.place(&sample.by, sample.time_ms, bounds.values).is_none() {
            return Ok(());
        }
        let leave: usize = self.rows.iter().skip(bounds.values - 1).map(row_bytes).sum();
        match self.bytes - leave + slot_bytes(&sample.argument) + slot_bytes(&sample.by) > bounds.bytes {
            true => Err(format!("values of more than {} bytes together", bounds.bytes)),
            false => Ok(()),
        }
    }

    /// Adds a row, of at most `most`.
    pub(super) fn add(&mut self, sample: &Sample<'_>, most: usize) {
        let place = self.place(&sample.by, sample.time_ms, most);
        if let Some((place, by)) = place.zip(Held::of(&sample.by)) {
            let value = Held::of(&sample.argument);
            self.put(place, Best { by, time_ms: sample.time_ms, value }, most);
        }
    }

    fn put(&mut self, place: usize, row: Best, most: usize) {
        self.bytes += row_bytes(&row);
        self.rows.insert(place, row);
        self.bytes -= self.rows.iter().skip(most).map(row_bytes).sum::<usize>();
        self.rows.truncate(most);
    }

    /// Adds the rows of a later pane.
    pub(super) fn merge(&mut self, later: &Top, bounds: Bounds) -> Result<(), String> {
        if self.rows.is_empty() {
            self.rows.extend_from_slice(&later.rows[..later.rows.len().min(bounds.values)]);
            self.bytes = self.rows.iter().map(row_bytes).sum();
            return Ok(());
        }
        for row in &later.rows {
            // Those behind it come behind it here, too.
            let Some(place) = self.place(&row.by.slot(), row.time_ms, bounds.values) else { break };
            self.put(place, row.clone(), bounds.values);
        }
        match self.bytes > bounds.bytes {
            true => Err(format!("values of more than {} bytes together", bounds.bytes)),
            false => Ok(()),
        }
    }

    /// Bytes outside itself.
    pub(super) fn heap_bytes(&self) -> usize {
        self.rows.capacity() * size_of::<Best>() + self.bytes
    }
}

fn row_bytes(row: &Best) -> usize {
    stored_bytes(&row.by) + row.value.as_ref().map_or(0, stored_bytes)
}

/// What a text takes where it is stored; 0 of anything that is of a few bytes in any case.
fn stored_bytes(value: &Held) -> usize {
    match value {
        Held::Text(text) => text.len() + TEXT_BYTES,
        Held::Bytes(bytes) => bytes.len() + TEXT_BYTES,
        _ => 0,
    }
}

fn slot_bytes(value: &Slot<'_>) -> usize {
    match value {
        Slot::String(text) => text.len() + TEXT_BYTES,
        Slot::Bytes(bytes) => bytes.len() + TEXT_BYTES,
        _ => 0,
    }
}
