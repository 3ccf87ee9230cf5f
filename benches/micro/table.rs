//! The state that the benchmarks work on: orders and their sum by customer, in one window, and its changelog.

use std::ops::ControlFlow;

use thalweg::operator::{Accumulators, Aggregator, RowAggregates, RowInput};
use thalweg::record::{Dynamic, Slot};
use thalweg::state::codec::{ChunkWriter, DeltaWriter};
use thalweg::state::store::StoreError;
use thalweg::state::{Header, ValueCodec, WindowTable};
use thalweg::topology::plan::OperatorKind;

use crate::input::{END_MS, Key, WINDOW, keys, plan};

/// The operator's id.
const OPERATOR: &str = "per_minute";
/// As the runtime has it.
const PART_BYTES_MAX: usize = 512 << 10;

/// The state of a window operator.
pub type Table = WindowTable<RowAggregates>;

/// A table without entries.
pub fn empty_table() -> Table {
    let plan = plan(WINDOW);
    let OperatorKind::Window(window) = &plan.operators[0].kind else { unreachable!("it is a window") };
    Table::new(OPERATOR, RowAggregates::new(window.aggregates.clone()))
}

/// Adds an order to its customer's entry, as the window operator does.
pub fn add(table: &mut Table, key: &[u8], amount: i64) {
    let entry =
        table.entry(END_MS, key, <RowAggregates as Aggregator<Dynamic>>::create).expect("a store that works");
    let (aggregates, value) = table.value_mut(entry);
    let heap_before = aggregates.heap_bytes(value);
    // A count has no argument, which counts as true.
    let arguments = [Slot::Bool(true), Slot::Int(amount)];
    let input = RowInput { arguments: &arguments, by: &[], time_ms: END_MS - 1 };
    <RowAggregates as Aggregator<Dynamic>>::add(aggregates, value, input).expect("a sum within range");
    table.heap_changed(entry, heap_before);
}

/// The entries of the window, in key order.
pub fn entries(table: &mut Table) -> Vec<(Vec<u8>, Accumulators)> {
    let mut entries = Vec::new();
    let visited = table.visit::<StoreError>(i64::MIN..=i64::MAX, &[], &mut |_, key, values| {
        entries.push((key.to_vec(), values[0].clone()));
        Ok(ControlFlow::Continue(()))
    });
    visited.map(|_| entries).expect("a store that works")
}

/// A table, the checkpoints that it makes, and where they stand in the log.
pub struct Changelog {
    /// One window with an entry for each of `keys`.
    pub table: Table,
    pub keys: Vec<Key>,
    /// The key that changes next.
    next: usize,
    delta: DeltaWriter,
    chunk: ChunkWriter,
    /// The number of the last checkpoint.
    pub checkpoint: u64,
    /// The offset of the next record.
    pub offset: i64,
}

/// A record of the log, at its offset.
pub type Placed = (i64, Vec<u8>);

impl Changelog {
    /// All keys have an entry, and no checkpoint has been taken.
    pub fn new() -> Changelog {
        let mut changelog = Changelog {
            table: empty_table(),
            keys: keys(),
            next: 0,
            delta: DeltaWriter::new(PART_BYTES_MAX),
            chunk: ChunkWriter::new(PART_BYTES_MAX),
            checkpoint: 0,
            offset: 0,
        };
        changelog.change(changelog.keys.len());
        changelog
    }

    /// Changes as many entries, others than the last time.
    pub fn change(&mut self, entries: usize) {
        for _ in 0..entries {
            add(&mut self.table, &self.keys[self.next], 1_234);
            self.next = (self.next + 1) % self.keys.len();
        }
    }

    /// The delta of the next checkpoint.
    pub fn delta(&mut self, restore_point: i64) -> Vec<Vec<u8>> {
        self.checkpoint += 1;
        self.table.collect_ranges(&mut self.delta);
        self.table.collect_points(self.checkpoint, &mut self.delta);
        self.delta.finish(&Header { checkpoint: self.checkpoint, restore_point, ..Header::default() })
    }

    /// A chunk of about as many bytes, from the key `from` on, and where the next one begins.
    pub fn chunk(&mut self, from: &[u8], bytes_max: usize) -> (Vec<Vec<u8>>, Option<Vec<u8>>) {
        let chunk = &mut self.chunk;
        let next = self.table.chunk(from, bytes_max, &mut |key, value| chunk.put(key, value));
        let next = next.expect("a store that works");
        let to = next.clone().unwrap_or_else(|| self.table.key_range().1);
        (self.chunk.finish(self.checkpoint, from, &to), next)
    }

    /// Puts records at the end of the log.
    pub fn place(&mut self, records: Vec<Vec<u8>>) -> Vec<Placed> {
        let first = self.offset;
        self.offset += records.len() as i64;
        (first..).zip(records).collect()
    }
}
