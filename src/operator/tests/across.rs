//! Changes of keys, in one step and in two: what comes out behind them is what a window makes that sees all rows, however
//! the senders' checkpoints are cut and their blocks mixed, and whoever dies in between.

use proptest::collection::vec;
use proptest::prelude::*;

use super::two_phase::{between, local};
use super::*;
use crate::format::block::Carried;

const TASKS: usize = 2;
const PARTITIONS: i32 = 2;
/// No record of a task lies further behind another one before it.
const DISORDER_MS: i64 = 20;

/// What is sent and how it is put together.
#[derive(Clone)]
struct Across {
    window: Windowed,
    two_phase: bool,
}

impl Across {
    /// The rows between the stages.
    fn sent(&self) -> Schema {
        if self.two_phase { between() } else { orders() }
    }

    fn sender(&self) -> Box<dyn Pipeline> {
        let schema = self.sent();
        let rows = RowTransfer::new(&schema);
        let target =
            OutputTarget { topic: "between".into(), partitions: PARTITIONS, record_bytes_max: 1 << 20 };
        let (target, layout) = (target.into(), rows.layout().clone());
        let exchange =
            Arc::new(Exchange { target, stream: "orders".into(), layout, carried: Carried::Nothing });
        let sender = Repartition::new(exchange.clone(), 0, first_field(&schema), rows, rejected("between"));
        let mut reader: Reader = Box::new(sender);
        if self.two_phase {
            reader = local(&self.window.windows, &self.window.aggregates, reader);
        }
        let timing =
            Timing { max_out_of_orderness_ms: DISORDER_MS, punctuated: false, max_ahead_ms: 1 << 40 };
        let json = JsonRows::new(&source_schema(), EventTime::Field(3), None);
        let pipeline =
            Source::<Dynamic, _>::new(json, timing, rejected("orders"), Readers::new(vec![reader]));
        Box::new(pipeline.with_exchanges(vec![exchange]))
    }

    fn receiver(&self) -> Box<dyn Pipeline> {
        let schema = self.sent();
        let window = Windowed { merges: self.two_phase, ..self.window.clone() };
        let readers = Readers::new(vec![window.reads(&schema, vec![sink(&window.schema(&schema), "out")])]);
        let streams = [("orders".into(), TASKS as i32)];
        Box::new(RepartitionSource::<Dynamic, _>::new(RowTransfer::new(&schema), &streams, readers, vec![]))
    }

    /// The rows behind the change of keys, sorted; who receives them dies behind its block of the number `crash`.
    fn results(&self, steps: &[Step], crash: usize) -> Vec<String> {
        let mut topic = vec![Vec::new(); PARTITIONS as usize];
        let mut senders: Vec<Sender> = (0..TASKS).map(|task| Sender::new(self, task)).collect();
        for step in steps {
            match step {
                Step::Record(task, order) => senders[*task].process(vec![order.clone()]),
                Step::Checkpoint(task) => senders[*task].checkpoint(&mut topic),
                Step::Crash(task) => senders[*task].crash(self),
            }
        }
        for sender in &mut senders {
            let _ = sender.pipeline.finish(&Bump::new(), &mut sender.staged).unwrap();
            sender.checkpoint(&mut topic);
        }
        let mut rows = Vec::new();
        for blocks in topic {
            let mut receiver = self.receiver();
            start(&mut *receiver);
            for (place, block) in blocks.into_iter().enumerate() {
                let input = Input { offset: place as i64, value: Some(block), ..Input::default() };
                rows.extend(written(&go_on(&mut *receiver, vec![input]).unwrap(), "out"));
                if crash == place {
                    let mut other = self.receiver();
                    hand_over(&mut *receiver, &mut *other, |_| ());
                    receiver = other;
                }
            }
            assert!(receiver.has_ended());
            let mut staged = Staged::new(usize::MAX, usize::MAX);
            let _ = receiver.finish(&Bump::new(), &mut staged).unwrap();
            assert!(staged.counters.late.is_empty());
            rows.extend(written(&staged, "out"));
        }
        rows.sort();
        rows
    }

    /// Those of a window that sees all of them, sorted.
    fn expected(&self, steps: &[Step]) -> Vec<String> {
        let orders_of = |step: &Step| match step {
            Step::Record(_, order) => Some(order.clone()),
            _ => None,
        };
        let schema = orders();
        let readers = vec![self.window.reads(&schema, vec![sink(&self.window.schema(&schema), "out")])];
        let mut pipeline = source(1 << 40, readers);
        start(&mut *pipeline);
        let mut staged = go_on(&mut *pipeline, steps.iter().filter_map(orders_of).collect()).unwrap();
        let _ = pipeline.finish(&Bump::new(), &mut staged).unwrap();
        let mut rows = written(&staged, "out");
        rows.sort();
        rows
    }
}

/// What happens to a task before the change of keys.
#[derive(Clone, Debug)]
enum Step {
    Record(usize, Input),
    Checkpoint(usize),
    /// What came since its last checkpoint comes again.
    Crash(usize),
}

struct Sender {
    pipeline: Box<dyn Pipeline>,
    staged: Staged,
    task: i32,
    time: StageTime,
    since: Vec<Input>,
}

impl Sender {
    fn new(across: &Across, task: usize) -> Sender {
        let (pipeline, task) = (across.sender(), task as i32);
        let staged = Sender::nothing(&*pipeline, task);
        let time = pipeline.time();
        Sender { pipeline, staged, task, time, since: Vec::new() }
    }

    fn nothing(pipeline: &dyn Pipeline, task: i32) -> Staged {
        let staged = Staged::new(usize::MAX, usize::MAX).of_partition(task);
        staged.with_exchanges(pipeline.exchanges())
    }

    fn process(&mut self, inputs: Vec<Input>) {
        let batch = Batch::new(inputs.clone());
        for index in 0..batch.len() {
            let progress =
                self.pipeline.process(batch.record(index), &Bump::new(), &mut self.staged).unwrap();
            assert_eq!(progress, Progress::Done);
        }
        self.since.extend(inputs);
    }

    fn checkpoint(&mut self, topic: &mut [Vec<Vec<u8>>]) {
        self.pipeline.hand_on(&Bump::new(), &mut self.staged).unwrap();
        self.staged.has_handed_on();
        self.staged.send_due(0, 0);
        let (outputs, counters) = self.staged.take();
        assert!(counters.failed.is_empty());
        for block in outputs {
            topic[block.partition as usize].extend(block.value);
        }
        self.time = self.pipeline.time();
        self.since.clear();
    }

    fn crash(&mut self, across: &Across) {
        self.pipeline = across.sender();
        self.pipeline.restore_time(self.time.clone());
        self.staged = Sender::nothing(&*self.pipeline, self.task);
        let again = std::mem::take(&mut self.since);
        self.process(again);
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let record = (0..TASKS, "[a-e]", -9..9_i64, 0..DISORDER_MS);
    let step = prop_oneof![
        8 => record.prop_map(|record| (Some(record), 0)),
        1 => (0..TASKS).prop_map(|task| (None, task)),
        1 => (0..TASKS).prop_map(|task| (None, TASKS + task)),
    ];
    vec(step, 0..120).prop_map(|steps| {
        let dated = steps.into_iter().zip(0..).map(|(step, place)| match step {
            (Some((task, customer, amount, behind_ms)), _) => {
                Step::Record(task, order(&customer, &amount.to_string(), 3 * place + DISORDER_MS - behind_ms))
            }
            (None, task) if task < TASKS => Step::Checkpoint(task),
            (None, task) => Step::Crash(task - TASKS),
        });
        dated.collect()
    })
}

fn aggregates() -> Vec<AggregatePlan> {
    use AggregateFunction::{ApproxCountDistinct, Count, CountDistinct, Max, Sum};
    let schema = orders();
    vec![
        aggregate(&schema, "rows", Count, None, Type::Int),
        aggregate(&schema, "total", Sum, Some("amount"), Type::Int),
        aggregate(&schema, "most", Max, Some("amount"), Type::Int),
        aggregate(&schema, "amounts", CountDistinct, Some("amount"), Type::Int),
        aggregate(&schema, "about", ApproxCountDistinct, Some("amount"), Type::Int),
    ]
}

proptest! {
    #[test]
    fn rows_behind_a_change_of_keys_are_those_of_one_window_over_all(
        steps in steps(),
        crash in 0..20_usize,
        windows in prop_oneof![Just(tumbling(10)), Just(sliding(30, 10)), Just(sliding(10, 30)), Just(sliding(25, 10))],
        two_phase in any::<bool>(),
    ) {
        let window = Windowed { windows, aggregates: aggregates(), ..Windowed::new("totals") };
        let across = Across { window, two_phase };
        prop_assert_eq!(across.results(&steps, crash), across.expected(&steps));
    }
}
