//! Changelogs of windows that tell at times which nobody knows: what they take back was told, what they tell their windows
//! have held, and together they come to what these hold.

use std::collections::{BTreeMap, BTreeSet};

use super::json::Json;
use super::{Row, Writer};
use crate::simulator::Written;
use crate::simulator::generate::{Generated, OperatorKind, Shape, Sink, Window};
use crate::topology::plan::{Emit, OP_FIELD, StreamRef};

/// What is known of one.
#[derive(Clone, Debug)]
pub struct Folded {
    /// The fields that tell the key and the window.
    names: Vec<String>,
    /// Rows that windows have held, without what they do; `None`: they depend on an order that nobody knows.
    held: Option<BTreeSet<String>>,
    /// A row that takes back another one may go to another partition than that.
    scatters: bool,
    /// Whether nothing else is there in the end than what the reference tells.
    all_closed: bool,
    /// Whether all of that is.
    all_told: bool,
}

/// What a row says, and what it does.
fn split_op(value: &[u8]) -> Option<(String, String)> {
    let text = std::str::from_utf8(value).ok()?;
    let (row, op) = text.rsplit_once(",\"op\":\"")?;
    Some((row.to_owned(), op.strip_suffix("\"}")?.to_owned()))
}

/// What a row says.
pub(super) fn without_op(value: &[u8]) -> Option<String> {
    split_op(value).map(|(row, _)| row)
}

/// Whether an operator takes rows in an order that nobody knows.
fn is_unordered(generated: &Generated, operator: usize) -> bool {
    let of_input = |input: StreamRef| match input {
        StreamRef::Operator(input) => is_unordered(generated, input),
        StreamRef::Source(_) | StreamRef::Repartition(_) => false,
    };
    generated.rekeys(operator) || generated.inputs(operator).any(of_input)
}

/// Rows that are there, by their partitions unless these do not matter.
type There = BTreeMap<(i32, String), i64>;

impl Folded {
    /// That of a sink, if it writes such a changelog.
    pub(super) fn of(
        generated: &Generated,
        sink: &Sink,
        window: &Window,
        held: Option<&BTreeSet<String>>,
    ) -> Option<Folded> {
        let StreamRef::Operator(index) = sink.input else { return None };
        if !window.tells_by_time() {
            return None;
        }
        let fields = &generated.operators[index].fields;
        debug_assert!(matches!(generated.operators[index].kind, OperatorKind::Window(_)));
        let names = fields.iter().take(window.key.len() + 2).map(|field| field.name.clone()).collect();
        let held = held.cloned().unwrap_or_default();
        // What was told on time of a session that has grown since may have been told early as what it is now.
        let stays = window.shape != Shape::Session || window.emit == Emit::OnClose;
        Some(Folded {
            names,
            held: (!is_unordered(generated, index)).then_some(held),
            scatters: sink.key.iter().any(|slot| fields[*slot].name == OP_FIELD),
            all_closed: generated.bounded,
            all_told: generated.bounded || (window.refine_every_ms.is_none() && stays),
        })
    }

    /// Whether that is what was written.
    pub(super) fn check(
        &self,
        topic: &str,
        writers: &BTreeMap<Writer, Vec<Row>>,
        rows: Vec<&Written>,
    ) -> Result<(), String> {
        let mut expected = There::new();
        for row in writers.values().flatten() {
            let value = row.value.as_deref().unwrap_or_default();
            self.apply(&mut expected, row.partition, value, false)
                .map_err(|why| format!("{topic}: {why}"))?;
        }
        let mut in_order = rows;
        in_order.sort_by_key(|row| (row.partition, row.offset));
        let mut there = There::new();
        for row in in_order {
            let value = row.value.as_deref().unwrap_or_default();
            let applied = self.apply(&mut there, row.partition, value, !self.scatters);
            applied.map_err(|why| format!("{topic}[{}]: at offset {} {why}", row.partition, row.offset))?;
        }
        if let Some(((_, row), _)) = there.iter().find(|(_, count)| **count < 0) {
            return Err(format!("{topic}: what was not told is taken back: {row}"));
        }
        expected.retain(|_, count| *count != 0);
        there.retain(|_, count| *count != 0);
        if let Some((_, row)) = expected.keys().find(|row| self.all_told && !there.contains_key(row)) {
            return Err(format!("{topic}: a window holds what is not told: {row}"));
        }
        let mut windows: BTreeSet<Vec<String>> = BTreeSet::new();
        for (row, count) in &there {
            let window =
                self.window(&row.1).ok_or_else(|| format!("{topic}: {} is no row of a window", row.1))?;
            let is_known = expected.contains_key(row);
            if *count > 1 || !windows.insert(window) || (self.all_closed && !is_known) {
                return Err(format!("{topic}: a row is left that was to be taken back: {}", row.1));
            }
        }
        Ok(())
    }

    /// Does what a row says. `in_order`: what it takes back is there.
    fn apply(&self, there: &mut There, partition: i32, value: &[u8], in_order: bool) -> Result<(), String> {
        let shown = || String::from_utf8_lossy(value).into_owned();
        let (row, op) = split_op(value).ok_or_else(|| format!("{} is no row of a changelog", shown()))?;
        let tells = matches!(&*op, "insert" | "update_after");
        if in_order && tells && self.held.as_ref().is_some_and(|held| !held.contains(&row)) {
            return Err(format!("a row tells what no window held: {}", shown()));
        }
        let partition = if self.scatters { 0 } else { partition };
        let count = there.entry((partition, row)).or_default();
        *count += if tells { 1 } else { -1 };
        if in_order && *count < 0 {
            return Err(format!("a row takes back what was not told: {}", shown()));
        }
        Ok(())
    }

    /// The key and the window of a row.
    fn window(&self, row: &str) -> Option<Vec<String>> {
        let text = format!("{row}}}");
        let json = Json::parse(text.as_bytes())?;
        self.names.iter().map(|name| Some(format!("{:?}", json.member(name)?))).collect()
    }
}
