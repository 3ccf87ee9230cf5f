//! A pipeline of Rust types runs through the same operators, state and checkpoints as a topology file:
//! a struct by serde, closures for filter, key and event time, an aggregate of one's own; killed and
//! restored at every kind of moment, its results are those of a fold.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use thalweg::operator::typed::{Aggregate, Custom, Json, WindowValue};
use thalweg::operator::{
    EmitRows, ErrorPolicy, Filter, LateRecords, Map, OutputTarget, Pipeline, Readers, Sink, Source, Timing,
    WindowOperator, WindowSpec,
};
use thalweg::record::{Owned, Records, SourceRecord, TopicPartition};
use thalweg::state::apply::Applier;
use thalweg::state::memory::MemoryStores;
use thalweg::state::store::StoreFactory;
use thalweg::task::{Changelog, Restored, Task, TaskId, TaskLimits, TaskSpec};
use thalweg::topology::plan::Start;
use thalweg::window::{AlignedWindows, TimeDomain};

const WINDOW_MS: i64 = 10;
const OUT_OF_ORDER_MS: i64 = 4;
const TOPIC_ID: [u8; 16] = [1; 16];

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Order {
    customer: String,
    cents: i64,
    at_ms: i64,
}

/// An order as its window takes it.
#[derive(Clone, Serialize)]
struct Sale {
    customer: String,
    cents: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Spread {
    customer: String,
    start_ms: i64,
    least: u64,
    greatest: u64,
}

/// The least and the greatest sale.
struct LeastAndGreatest;

impl Aggregate<Sale> for LeastAndGreatest {
    type Value = (u64, u64);
    type Input = u64;

    fn input(&self, sale: &Sale) -> Result<u64, String> {
        Ok(sale.cents)
    }
    fn create(&self) -> (u64, u64) {
        (u64::MAX, 0)
    }
    fn add(&self, (least, greatest): &mut (u64, u64), cents: u64) -> Result<(), String> {
        (*least, *greatest) = (cents.min(*least), cents.max(*greatest));
        Ok(())
    }
    fn merge(&self, spread: &mut (u64, u64), (least, greatest): &(u64, u64)) -> Result<(), String> {
        *spread = (spread.0.min(*least), spread.1.max(*greatest));
        Ok(())
    }
    fn encode(&self, (least, greatest): &(u64, u64), bytes: &mut Vec<u8>) {
        bytes.extend(least.to_le_bytes());
        bytes.extend(greatest.to_le_bytes());
    }
    fn decode(&self, bytes: &[u8]) -> Result<(u64, u64), String> {
        let numbers = bytes.as_chunks().0;
        let [least, greatest] = numbers else { return Err(format!("{} bytes instead of 16", bytes.len())) };
        Ok((u64::from_le_bytes(*least), u64::from_le_bytes(*greatest)))
    }
}

fn target(topic: &str) -> Arc<OutputTarget> {
    Arc::new(OutputTarget { topic: topic.into(), partitions: 1, record_bytes_max: 1 << 20 })
}

fn pipeline() -> Box<dyn Pipeline> {
    let rejected = |id| ErrorPolicy::dead_letter(id, target("rejected"));
    let key = |spread: &Spread| Some(spread.customer.clone().into_bytes());
    let sink = Sink::new(Json::<Spread, _>::new(key), target("spreads"), rejected("spreads"));
    let spec = WindowSpec {
        time: TimeDomain::Event,
        id: "spread".into(),
        fingerprint: "least and greatest sale by customer".into(),
        windows: AlignedWindows::tumbling(WINDOW_MS),
        allowed_lateness_ms: 0,
        emit: EmitRows::OnClose,
        changelog: false,
        early: None,
        late: LateRecords::Write(target("late")),
    };
    let spread = |window: WindowValue<'_, (u64, u64)>| {
        let customer = String::from_utf8(window.key.to_vec()).map_err(|error| error.to_string())?;
        let (least, greatest) = *window.value;
        Ok(Spread { customer, start_ms: window.range.start_ms, least, greatest })
    };
    let window = WindowOperator::<Owned<Sale>, Owned<Spread>, _, _, _>::new(
        spec,
        |sale: &Sale| sale.customer.clone(),
        Custom::new(LeastAndGreatest),
        spread,
        rejected("spread"),
        Readers::new(vec![Box::new(sink)]),
    );
    let sale = |order: &Order| match u64::try_from(order.cents) {
        Ok(cents) => Ok(Sale { customer: order.customer.clone(), cents }),
        Err(_) => Err(format!("{} cents are no price", order.cents)),
    };
    let sales = Map::<Owned<Order>, Owned<Sale>, _>::new(
        sale,
        rejected("sales"),
        Readers::new(vec![Box::new(window)]),
    );
    let paid = Filter::<Owned<Order>, _>::new(
        |order: &Order| order.cents != 0,
        rejected("paid"),
        Readers::new(vec![Box::new(sales)]),
    );
    let timing = Timing { max_out_of_orderness_ms: OUT_OF_ORDER_MS, punctuated: false, max_ahead_ms: 1_000 };
    let json = Json::<Order, _>::new(|order: &Order| order.at_ms);
    Box::new(Source::<Owned<Order>, _>::new(
        json,
        timing,
        rejected("orders"),
        Readers::new(vec![Box::new(paid)]),
    ))
}

/// Records of the source from some offset on.
struct Batch {
    partition: TopicPartition,
    first_offset: i64,
    values: Vec<Vec<u8>>,
}

impl Records for Batch {
    fn topic_partition(&self) -> &TopicPartition {
        &self.partition
    }
    fn len(&self) -> usize {
        self.values.len()
    }
    fn bytes(&self) -> usize {
        self.values.iter().map(Vec::len).sum()
    }
    fn record(&self, index: usize) -> SourceRecord<'_> {
        let offset = self.first_offset + index as i64;
        SourceRecord {
            offset,
            timestamp_ms: 0,
            key: None,
            value: Some(&self.values[index]),
            records: self,
            index,
        }
    }
    fn headers<'b>(&'b self, _: usize, _: &mut dyn FnMut(&'b str, Option<&'b [u8]>)) {}
}

/// What is committed: the log of changes, the outputs, and where the source was left.
struct Committed {
    stores: MemoryStores,
    changes: Vec<Arc<Vec<u8>>>,
    outputs: Vec<(String, Vec<u8>)>,
    next_offset: i64,
}

/// How the task is run.
#[derive(Clone, Copy, Debug)]
struct Course {
    /// So many records, at most, to a checkpoint.
    records: usize,
    /// So many outputs fill a checkpoint.
    rows: usize,
    /// A flush follows every so many checkpoints; what the store holds is evicted then.
    flush_every: usize,
    /// The process dies after so many checkpoints, before the next is committed.
    checkpoints: usize,
    /// It starts again with an empty disk.
    disk_lost: bool,
}

impl Committed {
    /// A task where the last one left off, restored from the log of changes.
    fn task(&self, course: &Course, end_offset: i64) -> Task {
        let store = self.stores.open("spread-0").unwrap();
        let mut applier = Applier::new(store.clone(), TOPIC_ID, 0, 1 << 10).unwrap();
        for offset in applier.from()..self.changes.len() as i64 {
            applier.push(offset, &self.changes[offset as usize]).unwrap();
        }
        let position = applier.finish(self.changes.len() as i64).unwrap().position;
        let source = TopicPartition::new("orders", 0);
        let stored = position.header.as_ref().map_or(0, |header| header.sources[0].next_offset);
        assert_eq!(stored, self.next_offset, "the state is that of the committed offset");
        let changelog = Changelog {
            partition: TopicPartition::new("changelog", 0),
            topic_id: TOPIC_ID,
            record_bytes_max: 1 << 20,
        };
        let spec = TaskSpec {
            id: TaskId { stage: "orders".into(), partition: 0 },
            source,
            start: Start::Earliest,
            changelog: Some(changelog),
            bounded: true,
            drop_state: Vec::new(),
            repartitioned_by: None,
            idle_timeout_ms: None,
            alignment: None,
            sends_to: Vec::new(),
        };
        let limits = TaskLimits {
            staged_records_max: course.rows,
            staged_bytes_max: 1 << 20,
            changelog_part_bytes: 64,
            chunk_bytes_min: 32,
            rest_percent: 0,
            rest_bytes_min: 0,
            flush_bytes: usize::MAX,
            flush_interval_ms: u64::MAX,
            cache_bytes_max: 0,
            watermark_interval_ms: 1_000,
            cut_interval_ms: 10_000,
        };
        let restored = Restored {
            store: Some(store),
            header: position.header,
            next_offset: self.next_offset,
            end_offset: Some(end_offset),
            synced_offset: self.changes.len() as i64,
            log_start: 0,
            records_read: 0,
            unanchored: false,
        };
        Task::new(Arc::new(spec), Arc::new(limits), pipeline(), restored).unwrap()
    }

    /// One life of the process; whether the task was finished.
    fn live(&mut self, course: &Course, input: &[Vec<u8>]) -> bool {
        if course.disk_lost {
            self.stores = MemoryStores::new();
        }
        let mut task = self.task(course, input.len() as i64);
        let first_offset = self.next_offset;
        let values = input[first_offset as usize..].to_vec();
        if !values.is_empty() {
            let partition = TopicPartition::new("orders", 0);
            task.enqueue(Box::new(Batch { partition, first_offset, values })).unwrap();
        }
        for checkpoint in 1..=course.checkpoints {
            task.run(course.records).unwrap();
            self.commit(&mut task);
            if task.is_finished() {
                return true;
            }
            if checkpoint % course.flush_every == 0
                && let Some(job) = task.flush_job(0, true)
            {
                task.flushed(job.run(&|| ()).unwrap());
            }
        }
        // What is done now, and prepared, is lost.
        task.run(course.records).unwrap();
        task.prepare(0).unwrap();
        false
    }

    fn commit(&mut self, task: &mut Task) {
        let Some(contribution) = task.prepare(0).unwrap() else { return };
        let first = self.changes.len() as i64;
        self.changes.extend(contribution.changes);
        let offsets: Vec<i64> = (first..self.changes.len() as i64).collect();
        for output in contribution.outputs {
            self.outputs.push((output.topic.to_string(), output.value.unwrap()));
        }
        self.next_offset = contribution.next_offset;
        task.committed(&offsets, 0).unwrap();
    }

    fn of(&self, topic: &str) -> Vec<&[u8]> {
        self.outputs.iter().filter(|(name, _)| name == topic).map(|(_, value)| &value[..]).collect()
    }
}

/// What the pipeline should make: the spreads, and how many orders are late or rejected.
fn fold(input: &[Vec<u8>]) -> (Vec<Spread>, usize, usize) {
    let mut spreads: BTreeMap<(String, i64), Spread> = BTreeMap::new();
    let (mut watermark_ms, mut late, mut rejected) = (i64::MIN, 0, 0);
    for value in input {
        let Ok(order) = serde_json::from_slice::<Order>(value) else {
            rejected += 1;
            continue;
        };
        let start_ms = order.at_ms.div_euclid(WINDOW_MS) * WINDOW_MS;
        match u64::try_from(order.cents) {
            Ok(0) => {}
            Err(_) => rejected += 1,
            Ok(_) if watermark_ms >= start_ms + WINDOW_MS => late += 1,
            Ok(cents) => {
                let key = (order.customer.clone(), start_ms);
                let customer = order.customer.clone();
                let new = Spread { customer, start_ms, least: cents, greatest: cents };
                let spread = spreads.entry(key).or_insert(new);
                spread.least = spread.least.min(cents);
                spread.greatest = spread.greatest.max(cents);
            }
        }
        watermark_ms = watermark_ms.max(order.at_ms - OUT_OF_ORDER_MS);
    }
    let mut spreads: Vec<_> = spreads.into_values().collect();
    spreads.sort();
    (spreads, late, rejected)
}

fn order() -> impl Strategy<Value = Vec<u8>> {
    let order = ("[ab]?", -1..9_i64, 0..80_i64)
        .prop_map(|(customer, cents, at_ms)| serde_json::to_vec(&Order { customer, cents, at_ms }).unwrap());
    prop_oneof![12 => order, 1 => Just(b"{\"customer\": 3}".to_vec())]
}

fn course() -> impl Strategy<Value = Course> {
    (1..9_usize, 1..6_usize, 1..4_usize, 0..6_usize, any::<bool>()).prop_map(
        |(records, rows, flush_every, checkpoints, disk_lost)| Course {
            records,
            rows,
            flush_every,
            checkpoints,
            disk_lost,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn however_often_it_dies_its_results_are_those_of_a_fold(
        input in vec(order(), 0..60),
        lives in vec(course(), 0..6),
    ) {
        let mut committed =
            Committed { stores: MemoryStores::new(), changes: Vec::new(), outputs: Vec::new(), next_offset: 0 };
        for course in &lives {
            if committed.live(course, &input) {
                break;
            }
        }
        let last = Course { records: 7, rows: 3, flush_every: 2, checkpoints: 1_000, disk_lost: false };
        prop_assert!(committed.live(&last, &input), "the last life is long enough");
        let (spreads, late, rejected) = fold(&input);
        let mut found: Vec<Spread> =
            committed.of("spreads").iter().map(|value| serde_json::from_slice(value).unwrap()).collect();
        found.sort();
        prop_assert_eq!(found, spreads);
        prop_assert_eq!(committed.of("late").len(), late);
        prop_assert_eq!(committed.of("rejected").len(), rejected);
    }
}
