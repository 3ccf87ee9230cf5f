//! What a generated topology must write: a plain fold over the records of each source partition, by
//! SEMANTICS and the documents alone. It shares no code with the engine's operators, formats, expressions
//! and windows.

mod changelog;
mod compare;
mod decode;
mod evaluate;
mod failed;
mod flat;
mod fold;
mod folded;
mod global;
mod group;
pub mod json;
mod kept;
mod keyed;
mod refined;
mod rekeyed;
mod sums;
#[cfg(test)]
mod tests;
mod windows;
mod written;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Input;
use super::generate::formula::Value;
use super::generate::{Changed, Generated, OperatorKind, Shape as WindowShape, Sink, Source, Window};
use crate::record::{Field, TopicPartition};
use crate::topology::plan::{Emit, StreamRef};
use crate::window::{EarlyFiring, TimeDomain};
use decode::decode;
use evaluate::{Environment, Failed, Origin};
use fold::Fold;
use folded::Folded;
use group::result;
use kept::Kept;
use refined::Refined;
use rekeyed::{Sent, SentRow};
use sums::Sums;
use written::{object, provenance};

pub use compare::compare;
use compare::{EarlyRows, States};

/// What must be written.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// For each topic what each writer writes to it, in its order. A topic of another name gets nothing.
    pub topics: BTreeMap<String, BTreeMap<Writer, Vec<Row>>>,
    /// Late records by operator.
    pub late: BTreeMap<String, u64>,
    /// Records that repeat others, by operator.
    pub duplicates: BTreeMap<String, u64>,
    /// Records that a source or operator failed on, by its id.
    pub failed: BTreeMap<String, u64>,
    /// Records read.
    pub records: u64,
    /// Rows that are put together before they are read: how many of what they come to are read depends on when
    /// checkpoints are.
    pub put_together: u64,
    /// Of topics of which only this is known.
    pub kept: Vec<Kept>,
    /// Topics of windows that make early rows by a time as well: how many of these come depends on the clock, or on what is
    /// restored.
    pub with_early: BTreeMap<String, EarlyRows>,
    /// Topics of windows that begin anew with rows that they make by a time: how many rows all of them are of is known.
    pub sums: BTreeMap<String, Sums>,
    /// Topics of windows that make refinements by the clock.
    pub refined: BTreeMap<String, Refined>,
    /// Operators that may write several dead letters of a record.
    pub repeated: BTreeSet<String>,
    /// Topics of changelogs of windows that tell by a time what has changed.
    pub folded: BTreeMap<String, Folded>,
    /// What these windows have held, by operator, while they are made.
    held: BTreeMap<usize, BTreeSet<String>>,
    /// Sums and what is known of early rows by operator, while they are made.
    tallies: BTreeMap<usize, Sums>,
    early: BTreeMap<usize, EarlyRows>,
}

/// Who writes: the rows of one are written in order. Of several they may be mixed in any way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Writer {
    /// The id of the source, operator or sink.
    pub id: String,
    /// The partition that its task reads.
    pub task: TopicPartition,
}

/// A record to be written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    /// The partition.
    pub partition: i32,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value.
    pub value: Option<Vec<u8>>,
    /// The headers in order. The text of `thalweg.error` is free, and stands here as `None`.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// The timestamp in milliseconds; `None`: that of sending.
    pub timestamp_ms: Option<i64>,
}

/// The header whose text is free.
const ERROR: &str = "thalweg.error";
/// That which tells who failed.
const OPERATOR: &str = "thalweg.operator";

/// What `generated` must write of these records, which stand in the order of their offsets.
///
/// `ends` are those of a bounded run: what lies at or behind the end of its partition is not read, and all
/// windows close there. Without them only the watermark closes windows. `change` is the topology that takes
/// the place of `generated`, and from which offset of each partition on.
pub fn expected(
    generated: &Generated,
    records: &BTreeMap<TopicPartition, Vec<(i64, Arc<Input>)>>,
    ends: Option<&BTreeMap<TopicPartition, i64>>,
    change: Option<(&Changed, &BTreeMap<TopicPartition, i64>)>,
) -> Expected {
    let mut expected = Expected { repeated: generated.repeated(), ..Expected::default() };
    let shape = Shape::new(generated);
    let changed = change.map(|(changed, _)| (changed, Shape::new(&changed.generated)));
    let mut sent = Sent::default();
    let mut by_clock = ByClock::new();
    for (partition, records) in records {
        let Some(index) =
            generated.sources.iter().position(|source| source.topic.as_str() == &*partition.topic)
        else {
            continue;
        };
        let windows = generated.operators.iter().map(|_| OpenWindows::default()).collect();
        let mut task = Task {
            generated,
            shape: &shape,
            partition,
            windows,
            max_time_ms: None,
            rows: BTreeMap::new(),
            told_ms: BTreeMap::new(),
            passing_ms: BTreeMap::new(),
            refused: BTreeMap::new(),
            is_in_order: true,
            sent: &mut sent,
            by_clock: &mut by_clock,
            out: &mut expected,
        };
        let end = ends.map(|ends| ends.get(partition).copied().unwrap_or(0));
        let mut next = changed.as_ref();
        let from = change.and_then(|(_, from)| from.get(partition)).copied().unwrap_or(0);
        for (offset, input) in records.iter().filter(|(offset, _)| end.is_none_or(|end| *offset < end)) {
            if let Some((changed, shape)) = next.take_if(|_| *offset >= from) {
                (task.generated, task.shape) = (&changed.generated, shape);
                task.windows[changed.operator].open.clear();
            }
            task.record(index, Origin { input, offset: *offset });
        }
        if ends.is_some() {
            task.advance(StreamRef::Source(index), i64::MAX);
            task.arrived();
        }
        task.tell(index);
        task.end();
    }
    rekeyed::behind(generated, &shape, &mut sent, &mut by_clock, &mut expected);
    let tallies = std::mem::take(&mut expected.tallies);
    let of_clock = by_clock.iter().filter_map(|(index, rows)| kept::kept(generated, *index, rows, &[]));
    expected.kept.extend(of_clock.flatten());
    for sink in &generated.sinks {
        let StreamRef::Operator(index) = sink.input else { continue };
        let OperatorKind::Window(window) = &generated.operators[index].kind else { continue };
        if window.changelog {
            let folded = Folded::of(generated, sink, window, expected.held.get(&index));
            expected.folded.extend(folded.map(|folded| (sink.topic.clone(), folded)));
            continue;
        }
        if window.refine_every_ms.is_some() {
            let refined = Refined::of(window, &generated.operators[index].fields, generated.bounded);
            expected.refined.insert(sink.topic.clone(), refined);
        }
        if let Some(sums) = tallies.get(&index) {
            expected.sums.insert(sink.topic.clone(), sums.clone());
        } else if matches!(window.early, Some(EarlyFiring::EveryMs(..))) {
            // Where no window has taken a row there is none.
            let none = || EarlyRows { states: Some(States::default()), ..EarlyRows::default() };
            let early = expected.early.get(&index).cloned().unwrap_or_else(none);
            expected.with_early.insert(sink.topic.clone(), early);
        }
    }
    expected
}

/// Who reads what, and the fields of each stream.
struct Shape<'g> {
    sources: Vec<Stream<'g>>,
    operators: Vec<Stream<'g>>,
}

#[derive(Default)]
struct Stream<'g> {
    fields: Vec<Field>,
    operators: Vec<usize>,
    sinks: Vec<&'g Sink>,
}

impl<'g> Shape<'g> {
    fn new(generated: &'g Generated) -> Shape<'g> {
        let stream = |at: StreamRef| {
            let operators = generated.operators.iter().enumerate();
            Stream {
                fields: generated.fields(at),
                operators: operators
                    .map(|(index, _)| index)
                    .filter(|index| generated.inputs(*index).any(|input| input == at))
                    .collect(),
                sinks: generated.sinks.iter().filter(|sink| sink.input == at).collect(),
            }
        };
        Shape {
            sources: (0..generated.sources.len()).map(|index| stream(StreamRef::Source(index))).collect(),
            operators: (0..generated.operators.len())
                .map(|index| stream(StreamRef::Operator(index)))
                .collect(),
        }
    }

    fn stream(&self, at: StreamRef) -> &Stream<'g> {
        match at {
            StreamRef::Source(index) => &self.sources[index],
            StreamRef::Operator(index) => &self.operators[index],
            StreamRef::Repartition(_) => unreachable!("a file names operators"),
        }
    }
}

/// What an operator keeps.
#[derive(Default)]
struct OpenWindows {
    watermark_ms: Option<i64>,
    /// Of a deduplication: what passed, ever.
    passed: Vec<(Vec<KeyPart>, i64)>,
    /// Of a lag: the greatest event time of each key's rows, and what the last of them had.
    left: BTreeMap<Vec<KeyPart>, (i64, Vec<Value>)>,
    /// Of a window that no time closes.
    rows: BTreeMap<Vec<KeyPart>, global::Rows>,
    /// By end and key, which is the order in which they close.
    open: BTreeMap<(i64, Vec<KeyPart>), OpenWindow>,
}

/// A window of a key.
#[derive(Default)]
struct OpenWindow {
    start_ms: i64,
    /// It has made its row.
    fired: bool,
    /// How many rows it has taken.
    rows: i64,
    /// What was told last of it, or of what it was, if its rows are a changelog.
    told: Option<changelog::Told>,
    /// It has taken a row since.
    changed: bool,
    /// The aggregates over each stretch of time that no window cuts, by its number: a sum over the window is a sum of
    /// such sums.
    parts: BTreeMap<i64, Vec<Fold>>,
}

/// A value of a key, in the order of the values.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum KeyPart {
    Bool(bool),
    Int(i64),
    Text(Arc<str>),
}

/// A row on its way.
struct Event<'r> {
    row: &'r [Value],
    time_ms: i64,
    origin: Option<Origin<'r>>,
}

/// The rows that windows of processing time take, with their event times, by their operators.
type ByClock = BTreeMap<usize, Vec<SentRow>>;

/// One source partition.
struct Task<'t, 'g> {
    generated: &'g Generated,
    shape: &'t Shape<'g>,
    partition: &'t TopicPartition,
    windows: Vec<OpenWindows>,
    /// Of the records that advance the watermark.
    max_time_ms: Option<i64>,
    /// What is written, by topic and writer.
    rows: BTreeMap<(&'g str, &'g str), Vec<Row>>,
    /// The last watermark that came to each operator that changes keys.
    told_ms: BTreeMap<usize, i64>,
    /// That of the one on its way.
    passing_ms: BTreeMap<usize, i64>,
    /// Of which record each operator has written its last dead letter.
    refused: BTreeMap<&'g str, (TopicPartition, i64)>,
    /// Rows come in the order in which they are here.
    is_in_order: bool,
    sent: &'t mut Sent,
    by_clock: &'t mut ByClock,
    out: &'t mut Expected,
}

impl<'t, 'g> Task<'t, 'g> {
    fn record(&mut self, index: usize, origin: Origin<'_>) {
        self.out.records += 1;
        let source = &self.generated.sources[index];
        let Some((row, time_ms)) = decode(source, origin.input) else {
            return self.failed(&source.id, &source.on_error, Some(origin), Vec::new);
        };
        let environment = Environment { row: &row, origin: Some(origin) };
        let advances = match source.punctuated.as_ref().map(|condition| environment.evaluate(condition)) {
            None => true,
            Some(Ok(marked)) => marked == Value::Bool(true),
            Some(Err(Failed)) => return self.failed(&source.id, &source.on_error, Some(origin), Vec::new),
        };
        let at = StreamRef::Source(index);
        self.process(at, &Event { row: &row, time_ms, origin: Some(origin) });
        if advances && self.max_time_ms.is_none_or(|max| time_ms > max) {
            self.max_time_ms = Some(time_ms);
            self.advance(at, time_ms - source.max_out_of_orderness_ms);
            self.arrived();
        }
    }

    /// Hands a row to all that read a stream.
    fn process(&mut self, at: StreamRef, event: &Event<'_>) {
        let shape = self.shape;
        let stream = shape.stream(at);
        for index in &stream.operators {
            self.operate(*index, &stream.fields, event);
        }
        for sink in &stream.sinks {
            self.write(sink, &stream.fields, event);
        }
    }

    fn operate(&mut self, index: usize, fields: &[Field], event: &Event<'_>) {
        let operator = &self.generated.operators[index];
        let environment = Environment { row: event.row, origin: event.origin };
        let result = match &operator.kind {
            OperatorKind::Filter(predicate) => match environment.evaluate(predicate) {
                Ok(Value::Bool(true)) => {
                    self.process(StreamRef::Operator(index), event);
                    Ok(())
                }
                other => other.map(drop),
            },
            OperatorKind::Map(map) => {
                let row: Result<Vec<Value>, Failed> =
                    map.slots.iter().map(|formula| environment.evaluate(formula)).collect();
                row.map(|row| self.process(StreamRef::Operator(index), &Event { row: &row, ..*event }))
            }
            OperatorKind::FlatMap(flat_map) => self.flatten(index, flat_map, event),
            OperatorKind::Branch(branch) => self.split(index, branch, event),
            OperatorKind::Union(_) | OperatorKind::Output(_) => {
                self.process(StreamRef::Operator(index), event);
                Ok(())
            }
            OperatorKind::Repartition(repartition) => self.send(index, &repartition.key, event),
            OperatorKind::Window(window) if window.time == TimeDomain::Processing => {
                self.count(index, window, event)
            }
            OperatorKind::Window(window) if window.rekeys => self.send(index, &window.key, event),
            OperatorKind::Window(window) if window.shape == WindowShape::Session => {
                self.follow(index, operator, window, fields, event)
            }
            OperatorKind::Window(window) => self.group(index, operator, window, fields, event),
            OperatorKind::GlobalWindow(window) => self.gather(index, operator, window, event),
            OperatorKind::Deduplicate(deduplicate) => {
                self.deduplicate(index, operator, deduplicate, fields, event)
            }
            OperatorKind::Lag(lag) => self.lag(index, lag, event),
        };
        if result.is_err() {
            self.failed(&operator.id, &operator.on_error, event.origin, || object(fields, event.row));
        }
    }

    /// A row of a window of processing time.
    fn count(&mut self, index: usize, window: &Window, event: &Event<'_>) -> Result<(), Failed> {
        if window.key.iter().any(|slot| event.row[*slot] == Value::Null) {
            return Err(Failed);
        }
        self.by_clock.entry(index).or_default().push(SentRow::of(event));
        Ok(())
    }

    /// No earlier row is expected on a stream any more.
    fn advance(&mut self, at: StreamRef, watermark_ms: i64) {
        let shape = self.shape;
        for index in &shape.stream(at).operators {
            match self.generated.rekeys(*index) {
                // Of several ways to it the slowest counts.
                true => {
                    let told_ms = self.passing_ms.entry(*index).or_insert(watermark_ms);
                    *told_ms = watermark_ms.min(*told_ms);
                }
                false => self.advance_operator(*index, watermark_ms),
            }
        }
    }

    fn advance_operator(&mut self, index: usize, watermark_ms: i64) {
        let mut behind_ms = watermark_ms;
        let operator = &self.generated.operators[index];
        self.windows[index].watermark_ms = Some(watermark_ms);
        if let OperatorKind::Window(window) = &operator.kind {
            let waits_ms = if window.emit == Emit::OnTime { 0 } else { window.allowed_lateness_ms };
            let due: Vec<(i64, Vec<KeyPart>)> = self.windows[index]
                .open
                .iter()
                .take_while(|(place, _)| place.0.saturating_add(waits_ms) <= watermark_ms)
                .filter(|(_, open)| window.emit != Emit::OnTime || !open.fired)
                .map(|(place, _)| place.clone())
                .collect();
            for place in due {
                let Some(open) = self.windows[index].open.get_mut(&place) else { continue };
                open.fired = true;
                if window.changelog {
                    self.tell_changed(index, operator, &place);
                    continue;
                }
                if window.purge && open.rows == 0 {
                    continue;
                }
                let row = result(window, &place, open, window.emit != Emit::OnTime);
                let (start_ms, rows) = (open.start_ms, open.rows);
                if window.purge {
                    (open.parts, open.rows) = (BTreeMap::new(), 0);
                }
                self.told_of(index, &place, rows);
                self.fire(index, operator, &place, start_ms, row);
            }
            let is_open = |end_ms: i64| end_ms.saturating_add(window.allowed_lateness_ms) > watermark_ms;
            let closed = self.windows[index].open.iter().filter(|(place, _)| !is_open(place.0));
            // What is outstanding is told before.
            let closed: Vec<_> = closed.map(|(place, open)| (place.clone(), open.rows)).collect();
            if window.purge {
                closed.iter().for_each(|(place, rows)| self.told_of(index, place, *rows));
            }
            self.windows[index].open.retain(|place, _| is_open(place.0));
            // Its rows of windows that are still open lie behind this instant.
            if watermark_ms < i64::MAX {
                behind_ms -= window.allowed_lateness_ms;
            }
        }
        self.advance(StreamRef::Operator(index), behind_ms);
    }
}

fn key_part(value: &Value) -> Result<KeyPart, Failed> {
    match value {
        Value::Bool(value) => Ok(KeyPart::Bool(*value)),
        Value::Int(value) => Ok(KeyPart::Int(*value)),
        Value::Text(text) => Ok(KeyPart::Text(text.clone())),
        // Null. The generator groups by no other type.
        _ => Err(Failed),
    }
}
