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
