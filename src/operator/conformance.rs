//! What holds for every operator: its results depend neither on how its input is cut into checkpoints,
//! nor on where a checkpoint is full, nor on how often it is restored or what is evicted meanwhile.

mod by_time;

use std::sync::Arc;

use bumpalo::Bump;
use proptest::collection::vec;
use proptest::prelude::*;

use super::tests::*;
use super::*;
use crate::record::{OutputRecord, Records, Schema, Type};
use crate::state::apply::Applier;
use crate::state::codec::DeltaWriter;
use crate::state::header::{Header, OperatorState};
use crate::state::memory::MemoryStores;
use crate::state::store::{Store, StoreFactory};
use crate::topology::plan::{AggregateFunction, AggregatePlan, FiresPlan, Parameter, TriggerPlan, Windows};
use crate::window::{AlignedWindows, CountWindows, EarlyFiring};

/// How a run is cut.
#[derive(Clone, Copy, Debug)]
struct Cut {
    /// A checkpoint follows after so many records.
    records: usize,
    /// So many records are handed over at once.
    together: usize,
    /// A checkpoint is full with so many outputs.
    rows: usize,
    /// A call ends with so many rows that were made by themselves.
    rows_per_call: usize,
    after: After,
}

/// What follows a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
enum After {
    Nothing,
    /// It is flushed, and all that the store holds is evicted.
    Eviction,
    /// The process dies, and another goes on.
    Restore,
}

const WHOLE: Cut = Cut {
    records: usize::MAX,
    together: 1,
    rows: usize::MAX,
    rows_per_call: usize::MAX,
    after: After::Nothing,
};
/// No run needs more: one that does goes round in circles.
const CHECKPOINTS_MAX: usize = 2_000;
/// How long a record takes by the clock.
const RECORD_MS: i64 = 10;
const TOPIC: [u8; 16] = [9; 16];

type Make = dyn Fn() -> Box<dyn Pipeline>;

/// A pipeline between its checkpoints, with all that lies outside its memory.
struct Run<'m> {
    make: &'m Make,
    cut: Cut,
    pipeline: Box<dyn Pipeline>,
    staged: Staged,
    store: Arc<dyn Store>,
    log: Vec<Vec<u8>>,
    outputs: Vec<OutputRecord>,
    /// Of late, failed and repeated records.
    counts: [u64; 3],
    calls: usize,
}

impl Run<'_> {
    fn new(make: &Make, cut: Cut) -> Run<'_> {
        let store = MemoryStores::new().open("task").unwrap();
        let staged = Staged::new(cut.rows, usize::MAX).of_partition(1).with_rows_per_call(cut.rows_per_call);
        let mut pipeline = make();
        pipeline.visit(&mut |operator| operator.restore(store.clone(), None, 0).unwrap());
        Run {
            make,
            cut,
            pipeline,
            staged,
            store,
            log: Vec::new(),
            outputs: Vec::new(),
            counts: [0; 3],
            calls: 0,
        }
    }

    fn checkpoint(&mut self) {
        let checkpoint = self.log.len() as u64 + 1;
        assert!(self.log.len() < CHECKPOINTS_MAX, "it makes the same rows again and again");
        let (outputs, counters) = self.staged.take();
        self.outputs.extend(outputs);
        let counted = [counters.late, counters.failed, counters.duplicates];
        for (sum, counts) in self.counts.iter_mut().zip(counted) {
            *sum += counts.values().sum::<u64>();
        }
        let mut delta = DeltaWriter::new(1 << 20);
        let mut operators: Vec<OperatorState> = Vec::new();
        let mut ids = Vec::new();
        self.pipeline.visit(&mut |operator| {
            operators.push(operator.saved());
            operator.collect_ranges(&mut delta);
            ids.push((operator.key_range(), operator.id().to_owned()));
        });
        ids.sort();
        for (_, id) in ids {
            self.pipeline.visit(&mut |operator| {
                if operator.id() == id {
                    operator.collect_points(checkpoint, &mut delta);
                }
            });
        }
        self.log.extend(delta.finish(&Header { checkpoint, ..Header::default() }));
        if self.cut.after == After::Nothing {
            return;
        }
        let mut applier = Applier::new(self.store.clone(), TOPIC, 0, usize::MAX).unwrap();
        for offset in applier.from()..self.log.len() as i64 {
            applier.push(offset, &self.log[offset as usize]).unwrap();
        }
        applier.finish(self.log.len() as i64).unwrap();
        if self.cut.after == After::Eviction {
            self.pipeline.visit(&mut |operator| {
                operator.flushed(checkpoint);
                operator.evict(usize::MAX / 2);
                assert_eq!(operator.memory().total, 0);
            });
            return;
        }
        let time = self.pipeline.time();
        self.pipeline = (self.make)();
        self.pipeline.restore_time(time);
        self.pipeline.visit(&mut |operator| {
            let saved = operators.iter().find(|saved| saved.id == operator.id());
            operator.restore(self.store.clone(), saved, checkpoint).unwrap();
        });
    }

    /// Takes the checkpoint that is due, and goes on until nothing is left over.
    fn settle(&mut self, mut progress: Progress) {
        while progress == Progress::Full || self.staged.is_full() {
            self.calls += 1;
            assert!(self.calls < CHECKPOINTS_MAX, "it makes the same rows again and again");
            // A call may end in the middle of a checkpoint, too.
            if self.staged.is_full() || self.calls.is_multiple_of(2) {
                self.checkpoint();
            }
            progress = self.pipeline.resume(&Bump::new(), &mut self.staged).unwrap();
        }
    }

    fn run(mut self, inputs: &[Input]) -> (Vec<OutputRecord>, [u64; 3]) {
        let batch = Batch::new(inputs.to_vec());
        let mut next = 0;
        while next < batch.len() {
            let until_checkpoint = self.cut.records - next % self.cut.records;
            let run: Vec<_> = (next..batch.len())
                .take(self.cut.together.min(until_checkpoint))
                .map(|index| batch.record(index))
                .collect();
            let (taken, progress) = self.pipeline.process_run(&run, &Bump::new(), &mut self.staged).unwrap();
            next += taken;
            self.settle(progress);
            if self.staged.tell_time(next as i64 * RECORD_MS) {
                let progress = self.pipeline.resume(&Bump::new(), &mut self.staged).unwrap();
                self.settle(progress);
            }
            if next % self.cut.records == 0 {
                self.checkpoint();
                let progress = self.pipeline.resume(&Bump::new(), &mut self.staged).unwrap();
                self.settle(progress);
            }
        }
        while self.pipeline.finish(&Bump::new(), &mut self.staged).unwrap() == Progress::Full {
            self.checkpoint();
        }
        self.checkpoint();
        assert_eq!(self.pipeline.finish(&Bump::new(), &mut self.staged).unwrap(), Progress::Done);
        self.checkpoint();
        let mut bytes = 0;
        self.pipeline.visit(&mut |operator| {
            // Buffers that are kept for the next window.
            operator.evict(usize::MAX);
            bytes += operator.memory().total;
        });
        assert_eq!(bytes, 0, "nothing is left in memory at the end");
        if self.cut.after != After::Nothing {
            assert_eq!(self.store.bytes(), 0, "nothing is left in the store at the end");
        }
        (self.outputs, self.counts)
    }
}

/// All ways in which a run is cut.
fn cuts() -> Vec<Cut> {
    let mut cuts = Vec::new();
    for records in [usize::MAX, 1, 3] {
        for (rows, rows_per_call) in
            [(usize::MAX, usize::MAX), (1, usize::MAX), (2, usize::MAX), (usize::MAX, 1), (3, 2)]
        {
            for after in [After::Nothing, After::Eviction, After::Restore] {
                let cut = |together| Cut { records, together, rows, rows_per_call, after };
                cuts.extend([1, 5].map(cut));
            }
        }
    }
    cuts
}

/// The results are those of a run in one piece, however it is cut; returns them.
fn conforms(make: &Make, inputs: Vec<Input>) -> (Vec<OutputRecord>, [u64; 3]) {
    let inputs = numbered(inputs);
    let expected = Run::new(make, WHOLE).run(&inputs);
    for cut in cuts() {
        assert_eq!(Run::new(make, cut).run(&inputs), expected, "{cut:?} of {inputs:?}");
    }
    expected
}

fn numbered(inputs: Vec<Input>) -> Vec<Input> {
    inputs.into_iter().zip(0..).map(|(input, offset)| Input { offset, ..input }).collect()
}

fn all_aggregates() -> Vec<AggregatePlan> {
    let schema = orders();
    use AggregateFunction::{
        ApproxCountDistinct, ApproxQuantile, Avg, Collect, Count, CountDistinct, First, Last, Max, Min,
        MinBy, Stddev, Sum, TopN, Variance,
    };
    let told = |parameter: Parameter, plan: AggregatePlan| AggregatePlan { parameter, ..plan };
    let least = aggregate(&schema, "cheapest", MinBy, Some("customer"), Type::String);
    let paid = aggregate(&schema, "paid", Count, None, Type::Int);
    vec![
        aggregate(&schema, "rows", Count, None, Type::Int),
        aggregate(&schema, "sum", Sum, Some("amount"), Type::Int),
        aggregate(&schema, "least", Min, Some("customer"), Type::String),
        aggregate(&schema, "last", Max, Some("at"), Type::Timestamp),
        aggregate(&schema, "mean", Avg, Some("amount"), Type::Double),
        aggregate(&schema, "variance", Variance, Some("amount"), Type::Double),
        aggregate(&schema, "spread", Stddev, Some("amount"), Type::Double),
        aggregate(&schema, "first", First, Some("amount"), Type::Int),
        aggregate(&schema, "newest", Last, Some("customer"), Type::String),
        AggregatePlan { by: Some(expression(&schema, "amount")), ..least },
        AggregatePlan { condition: Some(expression(&schema, "amount > 0")), ..paid },
        // A sixth amount of a key is an error.
        told(Parameter::Max(5), aggregate(&schema, "amounts", CountDistinct, Some("amount"), Type::Int)),
        aggregate(&schema, "about", ApproxCountDistinct, Some("amount"), Type::Int),
        told(
            Parameter::Quantile(0.5),
            aggregate(&schema, "median", ApproxQuantile, Some("amount"), Type::Double),
        ),
        // A seventh customer is an error.
        told(
            Parameter::Max(6),
            aggregate(&schema, "customers", Collect, Some("customer"), list(Type::String, false)),
        ),
        told(
            Parameter::Number(2),
            AggregatePlan {
                by: Some(expression(&schema, "amount")),
                ..aggregate(&schema, "largest", TopN, Some("at"), list(Type::Timestamp, false))
            },
        ),
        aggregate(&schema, "some", First, Some("[amount, 1]"), list(Type::Int, true)),
    ]
}

fn window(emit: EmitRows) -> Windowed {
    Windowed {
        allowed_lateness_ms: 3,
        emit,
        late: LateRecords::Write(target("late")),
        aggregates: all_aggregates(),
        ..Windowed::new("window")
    }
}

fn filtered() -> Box<dyn Pipeline> {
    let schema = orders();
    source(4, vec![filter(&schema, "12 / amount > 2", rejected("large"), vec![sink(&schema, "out")])])
}

fn mapped() -> Box<dyn Pipeline> {
    let schema = orders();
    source(4, vec![map_amount(&schema, "12 / amount", vec![sink(&schema, "out")])])
}

fn written_twice() -> Box<dyn Pipeline> {
    let schema = orders();
    let small = Arc::new(OutputTarget { topic: "small".into(), partitions: 2, record_bytes_max: 51 });
    source(4, vec![sink(&schema, "out"), sink_to(&schema, small, rejected("small"))])
}

fn windowed(emit: EmitRows) -> Box<dyn Pipeline> {
    windowed_by(tumbling(10), emit)
}

fn windowed_by(windows: Windows, emit: EmitRows) -> Box<dyn Pipeline> {
    windowed_as(&Windowed { windows, ..window(emit) })
}

fn windowed_as(window: &Windowed) -> Box<dyn Pipeline> {
    let schema = orders();
    source(4, vec![window.reads(&schema, vec![sink(&window.schema(&schema), "out")])])
}

fn deduplicated() -> Box<dyn Pipeline> {
    let schema = orders();
    let late = LateRecords::Write(target("late"));
    source(4, vec![deduplicate(&schema, 7, late, vec![sink(&schema, "out")])])
}

fn lagging(ttl_ms: Option<i64>) -> Box<dyn Pipeline> {
    let values = ["12 / amount", "customer", "at", "[amount, 3]"];
    source(4, vec![lag(&orders(), ttl_ms, &values, |rows| vec![sink(rows, "out")])])
}

/// Elements, some of them behind a window.
fn flattened() -> Box<dyn Pipeline> {
    let lists = ["[amount, 12 / amount]", "split(customer + \" x\", \" \")"];
    let behind = |rows: &Schema| {
        let total = aggregate(rows, "total", AggregateFunction::Sum, Some("e0"), Type::Int);
        let words =
            aggregate(rows, "words", AggregateFunction::Collect, Some("e1"), list(Type::String, false));
        let words = AggregatePlan { parameter: Parameter::Max(9), ..words };
        let window = Windowed { aggregates: vec![total, words], ..Windowed::new("window") };
        vec![sink(rows, "out"), window.reads(rows, vec![sink(&window.schema(rows), "total")])]
    };
    source(4, vec![each_of(&orders(), &lists, true, false, behind)])
}

fn list(element: Type, nullable: bool) -> Type {
    element.list(nullable).unwrap()
}

fn gathered(gathered: &Gathered) -> Box<dyn Pipeline> {
    let schema = orders();
    source(4, vec![gathered.reads(&schema, vec![sink(&gathered.schema(&schema), "out")])])
}

fn split() -> Box<dyn Pipeline> {
    source(4, vec![branches(&orders(), &["amount > 6", "12 / amount > 2"], true)])
}

/// Two windows on one stream, behind one of them a filter and another window.
fn chained() -> Box<dyn Pipeline> {
    let schema = orders();
    let first = window(EmitRows::OnClose);
    let rows = first.schema(&schema);
    let total = aggregate(&rows, "total", AggregateFunction::Sum, Some("rows"), Type::Int);
    let second = Windowed { windows: tumbling(25), aggregates: vec![total], ..Windowed::new("behind") };
    let behind = second.reads(&rows, vec![sink(&second.schema(&rows), "total")]);
    let some = filter(&rows, "6 / sum > 0", rejected("some"), vec![behind, sink(&rows, "out")]);
    let updates = Windowed { windows: tumbling(7), emit: EmitRows::OnUpdate, ..Windowed::new("beside") };
    let beside = updates.reads(&schema, vec![sink(&updates.schema(&schema), "beside")]);
    source(4, vec![first.reads(&schema, vec![some]), beside])
}

fn input() -> impl Strategy<Value = Input> {
    input_at(|time| time)
}

/// An hour, where others have a millisecond; from 2024-03-29T00:00Z on, before clocks are put forward in Berlin.
fn hour(number: i64) -> i64 {
    1_711_670_400_000 + number * 3_600_000
}

fn input_at(at: fn(i64) -> i64) -> impl Strategy<Value = Input> {
    let amount = prop_oneof![6 => (-3..9_i64).prop_map(|amount| amount.to_string()),
        1 => Just("null".to_string()), 1 => Just(i64::MAX.to_string()), 1 => Just("\"much\"".to_string())];
    let time = prop_oneof![12 => 0..60_i64, 1 => 60..500_i64];
    let customer = prop_oneof![4 => "[a-c]", 1 => Just("\u{e9}\u{0}".replace('\u{0}', "\\u0000"))];
    prop_oneof![
        20 => (customer, amount, time).prop_map(move |(customer, amount, time)| order(&customer, &amount, at(time))),
        1 => Just(Input { value: None, ..order("a", "1", at(5)) }),
        1 => Just(Input { value: Some(format!(r#"{{"at":{}}}"#, at(20)).into_bytes()), key: None, ..order("a", "1", at(5)) }),
    ]
}

fn triggers() -> impl Strategy<Value = FiresPlan> {
    let rows = Gathered::global(FiresPlan::EveryRows(1), false);
    let made = Gathered { aggregates: all_aggregates(), ..rows }.schema(&orders());
    let when = expression(&orders(), "12 / amount > 2");
    let having = expression(&made, "6 / sum > 0 && rows > 1");
    prop_oneof![
        (1..4_i64).prop_map(FiresPlan::EveryRows),
        Just(FiresPlan::When(when)),
        Just(FiresPlan::Having(having)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn filter_conforms(inputs in vec(input(), 0..30)) {
        conforms(&filtered, inputs);
    }

    #[test]
    fn map_conforms(inputs in vec(input(), 0..30)) {
        conforms(&mapped, inputs);
    }

    #[test]
    fn sink_conforms(inputs in vec(input(), 0..30)) {
        conforms(&written_twice, inputs);
    }

    #[test]
    fn window_on_close_conforms(inputs in vec(input(), 0..40)) {
        conforms(&|| windowed(EmitRows::OnClose), inputs);
    }

    #[test]
    fn window_on_update_conforms(inputs in vec(input(), 0..40)) {
        conforms(&|| windowed(EmitRows::OnUpdate), inputs);
    }

    #[test]
    fn window_on_time_conforms(inputs in vec(input(), 0..40)) {
        conforms(&|| windowed(EmitRows::OnTime), inputs);
    }

    #[test]
    fn other_windows_conform(
        windows in prop_oneof![
            Just(sliding(12, 4)),
            Just(Windows::Aligned(AlignedWindows::sliding(10, 4).with_offset(3))),
            Just(sliding(6, 10)),
            Just(Windows::Aligned(AlignedWindows::cumulative(15, 5).with_offset(2))),
            Just(session(3)),
            Just(session(10)),
        ],
        emit in prop_oneof![Just(EmitRows::OnClose), Just(EmitRows::OnTime), Just(EmitRows::OnUpdate)],
        inputs in vec(input(), 0..30),
    ) {
        conforms(&move || windowed_by(windows.clone(), emit), inputs);
    }

    #[test]
    fn days_conform(
        emit in prop_oneof![Just(EmitRows::OnClose), Just(EmitRows::OnTime), Just(EmitRows::OnUpdate)],
        inputs in vec(input_at(hour), 0..30),
    ) {
        conforms(&move || windowed_by(days("Europe/Berlin"), emit), inputs);
    }

    #[test]
    fn windows_with_early_rows_by_their_number_conform(
        windows in prop_oneof![Just(tumbling(10)), Just(sliding(12, 4)), Just(session(4))],
        rows in 1..4_i64,
        emit in prop_oneof![Just(EmitRows::OnClose), Just(EmitRows::OnTime)],
        inputs in vec(input(), 0..40),
    ) {
        let window = Windowed { early: Some(EarlyFiring::EveryRows(rows)), windows, ..window(emit) };
        conforms(&move || windowed_as(&window), inputs);
    }

    #[test]
    fn windows_that_begin_anew_conform(
        windows in prop_oneof![Just(tumbling(10)), Just(session(4))],
        rows in prop_oneof![Just(None), (1..4_i64).prop_map(Some)],
        emit in prop_oneof![Just(EmitRows::OnClose), Just(EmitRows::OnTime)],
        inputs in vec(input(), 0..40),
    ) {
        let early = Some(rows.map_or(EarlyFiring::When, EarlyFiring::EveryRows));
        let early_when = rows.is_none().then(|| expression(&orders(), "12 / amount > 2"));
        let window = Windowed { early, early_when, purge: true, windows, ..window(emit) };
        conforms(&move || windowed_as(&window), inputs);
    }

    #[test]
    fn changelogs_conform(
        windows in prop_oneof![Just(tumbling(10)), Just(sliding(12, 4)), Just(session(4)), Just(session(10))],
        emit in prop_oneof![Just(EmitRows::OnTime), Just(EmitRows::OnUpdate)],
        inputs in vec(input(), 0..30),
    ) {
        let window = Windowed { changelog: true, windows, ..window(emit) };
        conforms(&move || windowed_as(&window), inputs);
    }

    #[test]
    fn changelogs_of_early_rows_by_their_number_conform(
        windows in prop_oneof![Just(tumbling(10)), Just(session(4)), Just(session(10))],
        rows in prop_oneof![Just(None), (1..4_i64).prop_map(Some)],
        emit in prop_oneof![Just(EmitRows::OnClose), Just(EmitRows::OnTime)],
        inputs in vec(input(), 0..40),
    ) {
        let early = Some(rows.map_or(EarlyFiring::When, EarlyFiring::EveryRows));
        let early_when = rows.is_none().then(|| expression(&orders(), "12 / amount > 2"));
        let window = Windowed { early, early_when, changelog: true, windows, ..window(emit) };
        conforms(&move || windowed_as(&window), inputs);
    }

    #[test]
    fn sessions_of_rows_with_their_own_gaps_conform(
        emit in prop_oneof![Just(EmitRows::OnClose), Just(EmitRows::OnTime), Just(EmitRows::OnUpdate)],
        changelog in any::<bool>(),
        inputs in vec(input(), 0..30),
    ) {
        let gap = expression(&orders(), "duration(amount * 4)");
        let changelog = changelog && emit != EmitRows::OnClose;
        let window = Windowed { gap: Some(gap), windows: session(5), changelog, ..window(emit) };
        conforms(&move || windowed_as(&window), inputs);
    }

    #[test]
    fn deduplicate_conforms(inputs in vec(input(), 0..40)) {
        conforms(&deduplicated, inputs);
    }

    #[test]
    fn lag_conforms(ttl_ms in prop_oneof![Just(None), Just(Some(7))], inputs in vec(input(), 0..40)) {
        conforms(&move || lagging(ttl_ms), inputs);
    }

    #[test]
    fn flat_map_conforms(inputs in vec(input(), 0..30)) {
        conforms(&flattened, inputs);
    }

    #[test]
    fn windows_that_no_time_closes_conform(
        trigger in prop_oneof![
            (1..5_i64, 1..5_i64).prop_map(|(size, slide)| TriggerPlan::Count(CountWindows::sliding(size, slide))),
            (triggers(), any::<bool>()).prop_map(|(fires, purge)| TriggerPlan::Global { fires, purge }),
            Just(TriggerPlan::Changelog),
        ],
        ttl_ms in prop_oneof![Just(None), Just(Some(7))],
        inputs in vec(input(), 0..40),
    ) {
        let window = Gathered { ttl_ms, aggregates: all_aggregates(), ..Gathered::new(trigger) };
        conforms(&move || gathered(&window), inputs);
    }

    #[test]
    fn branch_conforms(inputs in vec(input(), 0..30)) {
        conforms(&split, inputs);
    }

    #[test]
    fn windows_behind_and_beside_windows_conform(inputs in vec(input(), 0..40)) {
        let (outputs, ..) = conforms(&chained, inputs);
        prop_assert!(outputs.iter().all(|record| &*record.topic != "behind"));
    }

    #[test]
    fn operators_on_rust_types_conform(numbers in vec(0..200_i64, 0..30)) {
        conforms(&super::tests::numbers, numbers.into_iter().map(super::tests::number).collect());
    }
}

#[test]
fn the_inputs_reach_every_outcome() {
    let inputs = vec![
        order("a", "2", 1),
        order("b", "null", 2),
        order("a", "\"much\"", 3),
        order("a", "3", 40),
        order("c", "1", 5),
        order("b", "9", 20),
    ];
    let (outputs, [late, failed, _]) = conforms(&|| windowed(EmitRows::OnClose), inputs);
    let topics: std::collections::BTreeSet<&str> = outputs.iter().map(|record| &*record.topic).collect();
    assert_eq!(Vec::from_iter(topics), ["late", "out", "rejected"]);
    assert_eq!((late, failed), (2, 1));
}
