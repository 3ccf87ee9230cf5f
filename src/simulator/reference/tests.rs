//! Generated topologies on the engine's pipelines, without a log, a store on disk or a fault, beside the
//! reference.

use std::collections::BTreeMap;
use std::sync::Arc;

use bumpalo::Bump;

use super::*;
use crate::operator::{Counters, OutputTarget, Pipeline, Progress, Staged};
use crate::random::Random;
use crate::record::{OutputRecord, Records, SourceRecord};
use crate::simulator::Written;
use crate::simulator::generate::formula::Formula;
use crate::simulator::generate::{Map, Operator, generate};
use crate::simulator::input::inputs;
use crate::state::memory::MemoryStores;
use crate::state::store::StoreFactory;
use crate::task::pipeline_factory;
use crate::topology::plan::Plan;

/// The records of a partition, by offset.
type Partitions = BTreeMap<TopicPartition, Vec<(i64, Arc<Input>)>>;

struct Batch(TopicPartition, Vec<(i64, Arc<Input>)>);

impl Records for Batch {
    fn topic_partition(&self) -> &TopicPartition {
        &self.0
    }
    fn len(&self) -> usize {
        self.1.len()
    }
    fn bytes(&self) -> usize {
        0
    }
    fn record(&self, index: usize) -> SourceRecord<'_> {
        let (offset, input) = &self.1[index];
        SourceRecord {
            offset: *offset,
            timestamp_ms: input.timestamp_ms,
            key: input.key.as_deref(),
            value: input.value.as_deref(),
            records: self,
            index,
        }
    }
    fn headers<'b>(&'b self, index: usize, visit: &mut dyn FnMut(&'b str, Option<&'b [u8]>)) {
        self.1[index].1.headers.iter().for_each(|(name, value)| visit(name, value.as_deref()));
    }
}

fn plan(text: &str) -> Arc<Plan> {
    let checked = crate::topology::parse(text, "generated.yaml", &|_| Err("no files".into()), &|_| None);
    Arc::new(checked.unwrap_or_else(|findings| panic!("{findings:#?}\n{text}")).plan)
}

fn partitions(generated: &Generated, inputs: Vec<Input>) -> Partitions {
    let of_source = |topic: &str| -> Vec<TopicPartition> {
        (0..generated.partitions(topic)).map(|number| TopicPartition::new(topic, number)).collect()
    };
    let all = generated.sources.iter().flat_map(|source| of_source(&source.topic));
    let mut partitions: Partitions = all.map(|partition| (partition, Vec::new())).collect();
    for input in inputs {
        let records = partitions.entry(input.partition.clone()).or_default();
        records.push((records.len() as i64, Arc::new(input)));
    }
    partitions
}

/// What the engine writes.
#[derive(Default)]
struct Engine {
    written: BTreeMap<String, Vec<Written>>,
    late: BTreeMap<String, u64>,
    duplicates: BTreeMap<String, u64>,
    failed: BTreeMap<String, u64>,
}

impl Engine {
    fn run(generated: &Generated, records: &Partitions) -> Engine {
        let plan = plan(&generated.text());
        let targets = crate::topology::topics(&plan).into_iter().map(|used| {
            let partitions = generated.partitions(&used.topic);
            let target =
                OutputTarget { topic: used.topic.as_str().into(), partitions, record_bytes_max: 1 << 20 };
            (used.topic, Arc::new(target))
        });
        let mut targets: BTreeMap<String, Arc<OutputTarget>> = targets.collect();
        let mut tasks: Vec<i32> =
            generated.sources.iter().map(|one| generated.partitions(&one.topic)).collect();
        for repartition in &plan.repartitions {
            let partitions = plan.partitions_of(repartition, &tasks);
            tasks.push(partitions);
            let topic = plan.repartition_topic(repartition);
            let target = OutputTarget { topic: topic.as_str().into(), partitions, record_bytes_max: 1 << 20 };
            targets.insert(topic, Arc::new(target));
        }
        let (targets, tasks): (_, Arc<[i32]>) = (Arc::new(targets), tasks.into());
        let mut engine = Engine::default();
        for (number, stage) in plan.stages().enumerate() {
            let make = pipeline_factory(plan.clone(), number, Arc::clone(&targets), tasks.clone()).unwrap();
            let topic = plan.topic_of(stage);
            let sent = engine.written.remove(&topic).unwrap_or_default();
            for partition in 0..tasks[number] {
                let partition = TopicPartition::new(&topic, partition);
                let of = partition.partition;
                let blocks = sent.iter().filter(|block| block.partition == of);
                let blocks = blocks.map(|block| Input {
                    partition: partition.clone(),
                    key: None,
                    value: block.value.clone(),
                    headers: Vec::new(),
                    timestamp_ms: -1,
                });
                let blocks = (0..).zip(blocks.map(Arc::new));
                let records = records.get(&partition).cloned().unwrap_or_default();
                let records = records.into_iter().chain(blocks).collect();
                let batch = Batch(partition.clone(), records);
                let source = generated.sources.get(number);
                let idles = source.is_some_and(|source| source.idle_timeout_ms.is_some());
                engine.task(&mut *make(), batch, generated.bounded, idles);
            }
        }
        engine
    }

    fn task(&mut self, pipeline: &mut dyn Pipeline, batch: Batch, bounded: bool, idles: bool) {
        let store = MemoryStores::new().open("task").unwrap();
        pipeline.visit(&mut |operator| operator.restore(store.clone(), None, 0).unwrap());
        let staged = Staged::new(3, 1 << 20).of_partition(batch.0.partition);
        let mut staged = staged.with_exchanges(pipeline.exchanges());
        let mut arena = Bump::new();
        for index in 0..batch.len() {
            arena.reset();
            let mut progress = pipeline.process(batch.record(index), &arena, &mut staged).unwrap();
            self.take(pipeline, &mut staged);
            while progress == Progress::Full {
                progress = pipeline.resume(&arena, &mut staged).unwrap();
                self.take(pipeline, &mut staged);
            }
        }
        if idles {
            staged.set_idle(true);
        }
        // At the end of time.
        let mut is_due = staged.tell_time(crate::simulator::shared::CLOCK_BEGIN_MS);
        while is_due && pipeline.resume(&arena, &mut staged).unwrap() == Progress::Full {
            self.take(pipeline, &mut staged);
            is_due = true;
        }
        while bounded && pipeline.finish(&arena, &mut staged).unwrap() == Progress::Full {
            self.take(pipeline, &mut staged);
        }
        self.take(pipeline, &mut staged);
    }

    /// A checkpoint.
    fn take(&mut self, pipeline: &mut dyn Pipeline, staged: &mut Staged) {
        if staged.holds_back() {
            pipeline.hand_on(&Bump::new(), staged).unwrap();
            staged.has_handed_on();
        }
        staged.send_due(0, 0);
        let (outputs, Counters { late, duplicates, failed, .. }) = staged.take();
        for OutputRecord { topic, partition, key, value, headers, timestamp_ms } in outputs {
            let rows = self.written.entry(topic.to_string()).or_default();
            let offset = rows.len() as i64;
            rows.push(Written { partition, offset, key, value, headers, timestamp_ms });
        }
        late.iter().for_each(|(id, count)| *self.late.entry(id.to_string()).or_default() += count);
        failed.iter().for_each(|(id, count)| *self.failed.entry(id.to_string()).or_default() += count);
        let counted = duplicates.iter();
        counted.for_each(|(id, count)| *self.duplicates.entry(id.to_string()).or_default() += count);
    }
}

fn ends(records: &Partitions) -> BTreeMap<TopicPartition, i64> {
    records.iter().map(|(partition, records)| (partition.clone(), records.len() as i64)).collect()
}

/// The difference between the engine and the reference for a seed.
fn differs(seed: u64, records: usize) -> Result<(Generated, Expected), String> {
    let mut random = Random::new(seed);
    let generated = generate(&mut random.fork("topology"));
    let records = partitions(&generated, inputs(&generated, &mut random.fork("input"), records));
    random.bits();
    let ends = generated.bounded.then(|| ends(&records));
    let expected = expected(&generated, &records, ends.as_ref(), None);
    let engine = Engine::run(&generated, &records);
    compare(&expected, &engine.written)
        .and_then(|()| {
            let counted = (&engine.late, &engine.failed, &engine.duplicates);
            let counts = (&expected.late, &expected.failed, &expected.duplicates);
            match counted == counts {
                true => Ok(()),
                false => Err(format!(
                    "counts of late, failed and repeated records: {counted:?}, expected {counts:?}"
                )),
            }
        })
        .map_err(|difference| format!("seed {seed}: {difference}\n{}", generated.text()))?;
    Ok((generated, expected))
}

/// Counts what happens in a history.
fn count(generated: &Generated, expected: &Expected, seen: &mut BTreeMap<&'static str, u64>) {
    let mut see = |what: &'static str, count: u64| *seen.entry(what).or_default() += count;
    let kind = |at: StreamRef| match at {
        StreamRef::Source(_) => "source",
        StreamRef::Repartition(_) => "repartition",
        StreamRef::Operator(index) => match generated.operators[index].kind {
            OperatorKind::Filter(_) => "filter",
            OperatorKind::FlatMap(_) => "flat map",
            OperatorKind::Map(_) => "map",
            OperatorKind::Repartition(_) => "repartition",
            OperatorKind::Union(_) => "union",
            OperatorKind::Window(_) => "window",
            OperatorKind::GlobalWindow(_) => "global window",
            OperatorKind::Deduplicate(_) => "deduplicate",
            OperatorKind::Lag(_) => "lag",
            OperatorKind::Branch(_) => "branch",
            OperatorKind::Output(_) => "output",
        },
    };
    let windows = generated.operators.iter().filter(|operator| kind_is_window(operator)).count();
    see("a bounded run", u64::from(generated.bounded));
    see("windows of sources that may be idle", expected.kept.len() as u64);
    see("two sources", u64::from(generated.sources.len() > 1));
    see("without a window", u64::from(windows == 0));
    see("without an operator", u64::from(generated.operators.is_empty()));
    see("by the record's timestamp", u64::from(generated.sources[0].time.is_none()));
    let all: Vec<StreamRef> = generated.sinks.iter().map(|sink| sink.input).collect();
    see("two sinks of a stream", u64::from((1..all.len()).any(|at| all[..at].contains(&all[at]))));
    for sink in &generated.sinks {
        let rows = expected.topics.get(&sink.topic).map_or(0, |writers| writers.values().map(Vec::len).sum());
        let what = match kind(sink.input) {
            "source" => "a row as it came",
            "filter" => "a row behind a filter",
            "map" => "a row behind a map",
            "flat map" => "a row of an element",
            "deduplicate" => "a row that repeats none",
            "lag" => "a row with values of the one before",
            "output" => "a row of a branch",
            "global window" => "a row of a window that no time closes",
            _ => "a row behind a window",
        };
        see(what, rows as u64);
        if let StreamRef::Operator(index) = sink.input
            && let OperatorKind::Window(window) = &generated.operators[index].kind
        {
            let what = match window.shape {
                WindowShape::Tumbling => "a row of a tumbling window",
                WindowShape::Sliding { .. } => "a row of a sliding window",
                WindowShape::Cumulative { .. } => "a row of a cumulative window",
                WindowShape::Calendar { .. } => "a row of a calendar window",
                WindowShape::Session => "a row of a session",
            };
            see(what, rows as u64);
            let rows = expected.topics.get(&sink.topic).into_iter().flat_map(BTreeMap::values).flatten();
            let texts = rows.filter_map(|row| std::str::from_utf8(row.value.as_deref()?).ok());
            see("a refinement", texts.filter(|text| text.contains(r#""refinement":true"#)).count() as u64);
        }
        if let StreamRef::Operator(index) = sink.input {
            let changes = generated.changes_of_keys(index);
            see("a row behind a change of keys", if changes == 1 { rows as u64 } else { 0 });
            see("a row behind two changes of keys", if changes > 1 { rows as u64 } else { 0 });
            let is_union = matches!(generated.operators[index].kind, OperatorKind::Union(_));
            see("a row of a union", if is_union { rows as u64 } else { 0 });
            let heads = generated.heads_of(index).len();
            see("a row from two sources", if heads > 1 { rows as u64 } else { 0 });
        }
        if let StreamRef::Operator(index) = sink.input
            && generated.stateful_behind(index)
        {
            see("a row of a window behind a window", rows as u64);
        }
    }
    let failed = |id: &String| expected.failed.get(id).copied().unwrap_or(0);
    for source in &generated.sources {
        see("a record that cannot be read", failed(&source.id));
    }
    for (index, operator) in generated.operators.iter().enumerate() {
        let what = match kind(StreamRef::Operator(index)) {
            "filter" => "a filter that failed",
            "map" => "a map that failed",
            "flat map" => "a flat map that failed",
            "deduplicate" => "a deduplication that failed",
            "lag" => "a lag that failed",
            "global window" => "a window that no time closes that failed",
            "branch" => "a branch that failed",
            _ => "a window that failed",
        };
        see(what, failed(&operator.id));
        if let OperatorKind::Window(window) = &operator.kind {
            let late = expected.late.get(&operator.id).copied().unwrap_or(0);
            see(
                if window.late.is_some() { "a late record to a topic" } else { "a late record dropped" },
                late,
            );
        }
        if let OperatorKind::Deduplicate(_) = &operator.kind {
            see("a row late for a deduplication", expected.late.get(&operator.id).copied().unwrap_or(0));
            see("a duplicate", expected.duplicates.get(&operator.id).copied().unwrap_or(0));
        }
    }
    let carried = |index: &usize| {
        let has_meta = |map: &Map| map.slots.iter().any(|slot| matches!(slot, Formula::Meta(_)));
        let is_such = matches!(&generated.operators[*index].kind, OperatorKind::Map(map) if has_meta(map));
        is_such && generated.changes_of_keys(*index) > 0
    };
    for sink in &generated.sinks {
        let is_carried = matches!(sink.input, StreamRef::Operator(index) if carried(&index));
        let rows = expected.topics.get(&sink.topic).map_or(0, |writers| writers.values().map(Vec::len).sum());
        see("a row with metadata behind a change of keys", if is_carried { rows as u64 } else { 0 });
    }
    for (writer, rows) in expected.topics.values().flatten() {
        let is_behind = writer.task.topic.starts_with("behind ");
        let of_record = rows.iter().filter(|row| row.headers.iter().any(|(name, _)| name == "thalweg.topic"));
        see(
            "a dead letter of a record behind a change of keys",
            (of_record.count() * usize::from(is_behind)) as u64,
        );
    }
    for rows in expected.topics.values().flat_map(BTreeMap::values).flatten() {
        let names: Vec<&str> = rows.headers.iter().map(|(name, _)| name.as_str()).collect();
        let is_letter = names.contains(&ERROR);
        see("a dead letter", u64::from(is_letter));
        see("a dead letter of no record", u64::from(is_letter && !names.contains(&"thalweg.topic")));
        see("a row without a key", u64::from(rows.key.is_none()));
        let text = String::from_utf8_lossy(rows.value.as_deref().unwrap_or_default());
        let takes_back = |op: &str| text.contains(&format!(r#""op":"{op}""#));
        see("a row that takes another's place", u64::from(takes_back("update_after")));
        see("a row that takes another back", u64::from(takes_back("delete")));
    }
}

fn kind_is_window(operator: &Operator) -> bool {
    matches!(operator.kind, OperatorKind::Window(_))
}

impl Generated {
    /// How often keys have changed before the rows of an operator, at most.
    fn changes_of_keys(&self, index: usize) -> usize {
        let before =
            |input| if let StreamRef::Operator(input) = input { self.changes_of_keys(input) } else { 0 };
        self.inputs(index).map(before).max().unwrap_or(0) + usize::from(self.rekeys(index))
    }

    /// Whether an operator is a window behind a window.
    fn stateful_behind(&self, index: usize) -> bool {
        let mut at = self.operators[index].input;
        while let StreamRef::Operator(index) = at {
            if kind_is_window(&self.operators[index]) {
                return true;
            }
            at = self.operators[index].input;
        }
        false
    }
}

const SEEDS: u64 = 2_000;

#[test]
fn the_engine_writes_what_the_reference_expects() {
    let mut seen = BTreeMap::new();
    for seed in 0..SEEDS {
        match differs(seed, 150) {
            Ok((generated, expected)) => count(&generated, &expected, &mut seen),
            Err(difference) => panic!("{difference}"),
        }
    }
    println!("{seen:#?}");
    let rare: Vec<_> = seen.iter().filter(|(_, count)| **count < SEEDS / 40).collect();
    assert!(seen.len() == 47 && rare.is_empty(), "too rare in {SEEDS} histories: {rare:?}");
}

#[test]
fn the_same_seed_makes_the_same() {
    let made = |seed| {
        let mut random = Random::new(seed);
        let generated = generate(&mut random);
        let inputs = inputs(&generated, &mut random, 40);
        (generated.text(), inputs)
    };
    assert_eq!(made(11), made(11));
    assert_ne!(made(11).0, made(12).0);
}

/// A written row of each of two writers, and two of a third one.
fn letters() -> (Expected, Vec<Written>) {
    let mut expected = Expected::default();
    let writers = expected.topics.entry("out".into()).or_default();
    let mut written = Vec::new();
    for (id, values) in [("a", &["1"][..]), ("b", &["1"]), ("c", &["2", "3"])] {
        let writer = Writer { id: id.into(), task: TopicPartition::new("in", 0) };
        for value in values {
            let headers = |error: Option<&str>| {
                let error = error.map(|error| error.as_bytes().to_vec());
                vec![("h".to_owned(), None), (ERROR.to_owned(), error)]
            };
            let value = Some(value.as_bytes().to_vec());
            let timestamp_ms = (id != "c").then_some(7);
            let row =
                Row { partition: 0, key: None, value: value.clone(), headers: headers(None), timestamp_ms };
            writers.entry(writer.clone()).or_default().push(row);
            written.push(Written {
                partition: 0,
                offset: written.len() as i64 * 2,
                key: None,
                value,
                headers: headers(Some("any text")),
                timestamp_ms: 7,
            });
        }
    }
    (expected, written)
}

#[test]
fn a_difference_is_told_as_what_it_is() {
    let told = |change: &dyn Fn(&mut Vec<Written>)| {
        let (expected, mut written) = letters();
        change(&mut written);
        compare(&expected, &BTreeMap::from([("out".to_owned(), written)]))
    };
    let error = |change: &dyn Fn(&mut Vec<Written>)| told(change).unwrap_err();
    assert_eq!(told(&|_| {}), Ok(()));
    assert_eq!(told(&|rows| rows.swap(0, 3)), Ok(()), "offsets decide, not places");
    let swap = |rows: &mut Vec<Written>, a: usize, b: usize| {
        let offset = rows[a].offset;
        rows[a].offset = rows[b].offset;
        rows[b].offset = offset;
    };
    assert_eq!(
        told(&|rows| swap(rows, 0, 3)),
        Err("out[0]: row 1 of c in the task of in[0] is written \
        before one that comes before it: key null, value 3, h: null, thalweg.error: null"
            .into())
    );
    assert_eq!(told(&|rows| swap(rows, 0, 2)), Ok(()), "those of several writers are mixed in any way");
    assert!(error(&|rows| drop(rows.pop())).contains("missing: row 1 of c in the task of in[0], key null"));
    assert!(error(&|rows| rows.push(rows[2].clone())).contains("twice: at offset 4, key null, value 2"));
    assert!(error(&|rows| rows[0].value = None).contains("unexpected: at offset 0, key null, value null"));
    assert!(error(&|rows| rows[0].timestamp_ms = 8).contains("timestamp 8"));
    assert_eq!(told(&|rows| rows[3].timestamp_ms = 8), Ok(()), "that of sending is free");
    assert!(error(&|rows| rows[0].headers[1].1 = None).contains("unexpected"), "an error has a text");
    assert!(error(&|rows| rows[0].headers[0].1 = Some(Vec::new())).contains("unexpected"));
    assert!(error(&|rows| rows[0].partition = 1).contains("out[0]: of 4 rows 1 are missing"));
    let (expected, written) = letters();
    let elsewhere = BTreeMap::from([("else".to_owned(), written)]);
    assert!(compare(&expected, &elsewhere).unwrap_err().starts_with("else[0]: of 0 rows"));
    assert!(compare(&expected, &BTreeMap::new()).unwrap_err().contains("of 4 rows 4 are missing"));
}

#[test]
fn where_two_writers_write_the_same_any_of_them_may_come_first() {
    let (mut expected, mut written) = letters();
    // The rows 1, 2 of one writer and 1 of another, where the second one came first.
    let writers = expected.topics.get_mut("out").unwrap();
    let two: Vec<Row> = writers.values().flatten().skip(1).take(2).cloned().collect();
    let mut names = writers.keys().cloned().collect::<Vec<_>>().into_iter();
    let (a, b) = (names.next().unwrap(), names.next().unwrap());
    *writers = BTreeMap::from([(a, two.clone()), (b, vec![two[0].clone(), two[0].clone()])]);
    written.truncate(3);
    written.insert(0, Written { offset: -1, ..written[0].clone() });
    assert_eq!(compare(&expected, &BTreeMap::from([("out".to_owned(), written)])), Ok(()));
}
