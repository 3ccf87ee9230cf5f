//! What the benchmarks work on: orders as `thalweg bench generate` makes them, on the topology of `make bench`.

use std::sync::Arc;

use thalweg::format::key::encode_state_key;
use thalweg::generator::orders::{Orders, Spec};
use thalweg::generator::{Record, Stream, Timeline};
use thalweg::operator::{OutputTarget, Pipeline};
use thalweg::random::Random;
use thalweg::record::{Records, Slot, SourceRecord, TopicPartition};
use thalweg::state::memory::MemoryStores;
use thalweg::state::store::StoreFactory;
use thalweg::task::{Targets, pipeline_factory};
use thalweg::topology::{self, Plan};

/// The customers, and so the entries of a window.
pub const KEYS: usize = 100_000;
/// The length of an order.
pub const ORDER_BYTES: usize = 200;
/// The minute in which all orders lie.
pub const START_MS: i64 = 1_700_000_040_000;
/// Its end.
pub const END_MS: i64 = START_MS + 60_000;
/// Orders and their sum per customer and minute, of all fields of an order.
pub const WINDOW: &str = include_str!("../compare/topologies/window.yaml");

const SEED: u64 = 1;
const DISORDER_MS: u64 = 4_000;
/// Shorter than the window by the disorder, so that it stays open.
const SPAN_MS: u64 = 55_000;

/// A state key of a customer: a tag, 15 letters, an end.
pub type Key = [u8; 17];

/// A checked topology file.
pub fn plan(text: &str) -> Plan {
    let environment = |name: &str| ["ID", "INPUT", "OUTPUT"].contains(&name).then(|| name.to_lowercase());
    let no_file = |_: &str| Err("there are no files here".to_owned());
    topology::parse(text, "bench.yaml", &no_file, &environment).expect("a topology without mistakes").plan
}

/// The operators of [`WINDOW`], with empty state.
pub fn pipeline() -> Box<dyn Pipeline> {
    pipeline_of(TUMBLING)
}

/// The windows of [`WINDOW`].
const TUMBLING: &str = "{ type: tumbling, size: '${WINDOW:-1m}' }";

/// The operators of [`WINDOW`] with other windows, with empty state.
pub fn pipeline_of(windows: &str) -> Box<dyn Pipeline> {
    assert!(WINDOW.contains(TUMBLING));
    let target = OutputTarget { topic: "output".into(), partitions: 4, record_bytes_max: 1 << 20 };
    let targets = Targets::from([("output".to_owned(), Arc::new(target))]);
    let plan = Arc::new(plan(&WINDOW.replace(TUMBLING, windows)));
    let factory = pipeline_factory(plan, 0, Arc::new(targets), Arc::new([4])).expect("all targets");
    let mut pipeline = factory();
    let store = MemoryStores::new().open("task").expect("a store in memory");
    pipeline.visit(&mut |operator| operator.restore(store.clone(), None, 0).expect("nothing to restore"));
    pipeline
}

/// Orders of this length, then, if `close`, one that closes their window.
pub fn orders(count: usize, size_bytes: usize, close: bool) -> Vec<Record> {
    let spec = Spec {
        seed: SEED,
        keys: KEYS as u64,
        zipf: 0.0,
        disorder_ms: DISORDER_MS,
        size_bytes,
        partitions: 1,
        close,
    };
    let timeline = Timeline::spanning(START_MS, SPAN_MS, count as u64);
    let mut orders = Orders::new(spec, timeline).expect("a size that orders can have");
    let (mut record, mut all) = (Record::default(), Vec::new());
    while orders.next(&mut record) {
        all.push(record.clone());
    }
    all
}

/// The keys of all customers, in random order.
pub fn keys() -> Vec<Key> {
    customers().iter().map(|customer| state_key(customer)).collect()
}

/// The state key of a customer.
pub fn state_key(customer: &str) -> Key {
    let mut key = Vec::new();
    encode_state_key(&[Slot::String(customer)], &mut key);
    key.try_into().expect("the length of a customer's key")
}

/// All customers, in random order.
fn customers() -> Vec<String> {
    let mut customers: Vec<String> = (0..KEYS).map(|customer| format!("customer-{customer:06}")).collect();
    shuffle(&mut customers, &mut Random::new(SEED));
    customers
}

/// Puts `items` into a random order (Fisher and Yates).
pub fn shuffle<T>(items: &mut [T], random: &mut Random) {
    for place in (1..items.len()).rev() {
        items.swap(place, random.place(place + 1));
    }
}

/// Records as the log hands them over.
pub struct Batch {
    partition: TopicPartition,
    records: Vec<Record>,
}

impl Batch {
    /// An order of each customer, in random order of customers, then one that closes their window.
    pub fn one_order_each() -> Batch {
        let mut records = orders(KEYS, ORDER_BYTES, true);
        for (record, customer) in records.iter_mut().zip(customers()) {
            let old = std::mem::replace(&mut record.key, customer.into_bytes());
            let place = record.value.windows(old.len()).position(|text| *text == *old);
            let start = place.expect("an order names its customer");
            record.value[start..start + old.len()].copy_from_slice(&record.key);
        }
        Batch { partition: TopicPartition::new("input", 0), records }
    }

    /// An order of each of some customers in the middle of each minute, then one of the minute after them.
    pub fn every_minute(customers_count: usize, minutes: usize) -> Batch {
        let order = |place: usize| {
            let created_at_ms = START_MS + (place / customers_count) as i64 * 60_000 + 30_000;
            let mut record = Record { timestamp_ms: created_at_ms, ..Record::default() };
            let key = format!("customer-{:06}", place % customers_count);
            let value = format!(
                "{{\"order_id\":\"order-{place}\",\"customer\":\"{key}\",\"amount\":1234,\"status\":\"paid\",\
                 \"created_at\":{created_at_ms},\"currency\":\"EUR\",\"note\":\"\"}}"
            );
            (record.key, record.value) = (key.into_bytes(), value.into_bytes());
            record
        };
        let records = (0..=customers_count * minutes).map(order).collect();
        Batch { partition: TopicPartition::new("input", 0), records }
    }
}

impl Records for Batch {
    fn topic_partition(&self) -> &TopicPartition {
        &self.partition
    }

    fn len(&self) -> usize {
        self.records.len()
    }

    fn bytes(&self) -> usize {
        self.records.iter().map(|record| record.key.len() + record.value.len()).sum()
    }

    fn record(&self, index: usize) -> SourceRecord<'_> {
        let record = &self.records[index];
        SourceRecord {
            offset: index as i64,
            timestamp_ms: record.timestamp_ms,
            key: record.key(),
            value: Some(&record.value),
            records: self,
            index,
        }
    }

    fn headers<'b>(&'b self, _index: usize, _visit: &mut dyn FnMut(&'b str, Option<&'b [u8]>)) {}
}
