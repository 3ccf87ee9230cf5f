//! Rows of elements.

use std::sync::Arc;

use super::evaluate::{Environment, Failed};
use super::{Event, Task};
use crate::simulator::generate::FlatMap;
use crate::simulator::generate::formula::Value;
use crate::topology::plan::StreamRef;

impl Task<'_, '_> {
    /// A row for each element of lists that are equally long.
    pub(super) fn flatten(
        &mut self,
        index: usize,
        flat_map: &FlatMap,
        event: &Event<'_>,
    ) -> Result<(), Failed> {
        let environment = Environment { row: event.row, origin: event.origin };
        let mut lists: Vec<Arc<[Value]>> = Vec::new();
        for (_, formula) in &flat_map.each {
            lists.push(match environment.evaluate(formula)? {
                Value::List(elements) => elements,
                _ => Arc::new([]),
            });
        }
        let length = lists[0].len();
        if lists.iter().any(|list| list.len() != length) {
            return Err(Failed);
        }
        let kept: Vec<Value> = flat_map.kept.iter().map(|slot| event.row[*slot].clone()).collect();
        let made = if flat_map.outer { length.max(1) } else { length };
        if made > ROWS_MAX || made * kept.iter().map(bytes_of).sum::<usize>() > KEPT_BYTES_MAX {
            return Err(Failed);
        }
        let mut rows = Vec::new();
        for place in 0..length {
            let position = flat_map.position.iter().map(|_| Value::Int(place as i64));
            let elements = lists.iter().map(|list| list[place].clone());
            rows.push(kept.iter().cloned().chain(elements).chain(position).collect::<Vec<Value>>());
        }
        if rows.is_empty() && flat_map.outer {
            let nulls = lists.len() + usize::from(flat_map.position.is_some());
            rows.push(kept.iter().cloned().chain(vec![Value::Null; nulls]).collect());
        }
        for row in rows {
            self.process(StreamRef::Operator(index), &Event { row: &row, ..*event });
        }
        Ok(())
    }
}

/// A row makes at most so many rows.
const ROWS_MAX: usize = 10_000;
/// And what they keep has at most so many bytes, each time that it is kept.
const KEPT_BYTES_MAX: usize = 64 << 20;

/// The length of a text in bytes, and what a list takes.
fn bytes_of(value: &Value) -> usize {
    match value {
        Value::Text(text) => text.len(),
        Value::List(elements) => elements.iter().map(|element| 14 + bytes_of(element)).sum(),
        _ => 0,
    }
}
