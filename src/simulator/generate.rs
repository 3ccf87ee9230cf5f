//! Topologies by seed: as a structure, which the [`reference`](super::reference) understands, and as the
//! text of a topology file, which the engine does.

mod aggregate;
mod branch;
mod change;
mod flat_map;
pub mod formula;
mod global;
mod keyed;
mod lists;
mod map;
mod source;
mod text;
mod union;
mod window;

use std::collections::{BTreeMap, BTreeSet};

use crate::random::Random;
use crate::record::{Field, FieldForm, Type};
use crate::topology::plan::{Emit, OnError, Start, StreamRef};
use crate::window::{CalendarUnit, EarlyFiring, TimeDomain};
use formula::{Formula, Scope};
use window::groupable;

pub use aggregate::Aggregate;
pub use change::Changed;
pub use global::{GlobalWindow, Trigger};

/// A topology. Whatever may fail has an `on_error` of skip or dead letter.
#[derive(Clone, Debug)]
pub struct Generated {
    /// The application.
    pub name: String,
    /// Whether it is to run to the end of its input, and close its windows there.
    pub bounded: bool,
    /// At least one.
    pub sources: Vec<Source>,
    /// Each after its input.
    pub operators: Vec<Operator>,
    /// At least one for each stream that nothing else reads.
    pub sinks: Vec<Sink>,
    /// The number of partitions of each topic that it reads or writes.
    partitions: BTreeMap<String, i32>,
    /// The topics among them that it creates.
    created: BTreeSet<String>,
}

/// A source.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its id.
    pub id: String,
    /// Its topic.
    pub topic: String,
    /// The fields of its records, and the keys that lead to each.
    pub fields: Vec<(Field, Vec<String>)>,
    /// The slots of the fields that decide a record's partition; empty: nothing is known.
    pub partitioned_by: Vec<usize>,
    /// The slot of the event time; `None`: the record's timestamp.
    pub time: Option<usize>,
    /// How much later than that.
    pub shift_ms: i64,
    /// Only records for which it is true advance the watermark; `None`: all do.
    pub punctuated: Option<Formula>,
    /// How far its watermark stays behind.
    pub max_out_of_orderness_ms: i64,
    /// An event time further after the record's timestamp is an error.
    pub max_ahead_ms: i64,
    /// What becomes of records that cannot be read.
    pub on_error: OnError,
    /// Where it begins.
    pub start: Start,
    /// No record of it comes behind its partition's watermark: behind it keys may change.
    pub calm: bool,
    /// When a partition has had nothing for so long, it is not waited for. It may come late then.
    pub idle_timeout_ms: Option<i64>,
    /// The group that its partitions are aligned in, and how far they may be apart. Of those that might have to be
    /// waited for at the end for ever there is none.
    pub alignment: Option<(String, i64)>,
}

/// An operator.
#[derive(Clone, Debug)]
pub struct Operator {
    /// Its id.
    pub id: String,
    /// What it reads.
    pub input: StreamRef,
    /// The rows that it makes.
    pub fields: Vec<Field>,
    /// What becomes of rows that it fails on.
    pub on_error: OnError,
    /// What it does.
    pub kind: OperatorKind,
}

/// What an operator does.
#[derive(Clone, Debug)]
pub enum OperatorKind {
    /// Passes rows.
    Filter(Formula),
    /// Makes rows of rows.
    Map(Map),
    /// Makes rows of elements.
    FlatMap(FlatMap),
    /// Brings rows of a key together.
    Repartition(Repartition),
    /// Brings the rows of this stream, which have the same fields, to those of the input.
    Union(StreamRef),
    /// Groups rows.
    Window(Window),
    /// Groups rows by their number, or another condition.
    GlobalWindow(GlobalWindow),
    /// Drops rows that repeat others.
    Deduplicate(Deduplicate),
    /// Adds what the row before had.
    Lag(Lag),
    /// Splits rows. Its outputs follow it, each an operator that reads it.
    Branch(Branch),
    /// The rows of a branch, by its number.
    Output(usize),
}

/// What makes rows of elements.
#[derive(Clone, Debug)]
pub struct FlatMap {
    /// New fields, by name, and the lists whose elements they are.
    pub each: Vec<(String, Formula)>,
    /// Which of the input's fields stay.
    pub choice: Choice,
    /// Their slots.
    pub kept: Vec<usize>,
    /// The field of an element's place.
    pub position: Option<String>,
    /// Whether a row without elements makes one, too.
    pub outer: bool,
}

/// What splits rows.
#[derive(Clone, Debug)]
pub struct Branch {
    /// The names of the branches, and which rows go there that go to none before.
    pub conditions: Vec<(String, Formula)>,
    /// The name of the one for all others.
    pub otherwise: Option<String>,
}

/// A lag.
#[derive(Clone, Debug)]
pub struct Lag {
    /// The input's slots of its key, by which rows lie together.
    pub key: Vec<usize>,
    /// New fields, by name: of the row before.
    pub set: Vec<(String, Formula)>,
    /// How long a key is remembered; `None`: for ever.
    pub ttl_ms: Option<i64>,
}

/// A deduplication.
#[derive(Clone, Debug)]
pub struct Deduplicate {
    /// The input's slots of its key, by which rows lie together.
    pub key: Vec<usize>,
    /// How far apart rows are at least.
    pub within_ms: i64,
    /// Where late rows go; `None`: nowhere.
    pub late: Option<String>,
}

/// A change of keys by itself.
#[derive(Clone, Debug)]
pub struct Repartition {
    /// The input's slots of the key.
    pub key: Vec<usize>,
    /// How many partitions its topic has, if it says.
    pub partitions: Option<i32>,
}

/// A map.
#[derive(Clone, Debug)]
pub struct Map {
    /// New fields, or new values of fields, by name.
    pub set: Vec<(String, Formula)>,
    /// Which of the input's fields stay beside them.
    pub choice: Choice,
    /// How each field of its rows is made.
    pub slots: Vec<Formula>,
}

/// Which fields a map leaves.
#[derive(Clone, Debug)]
pub enum Choice {
    /// All.
    All,
    /// These.
    Keep(Vec<String>),
    /// All but these.
    Drop(Vec<String>),
}

/// Which windows there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One after the other.
    Tumbling,
    /// One begins every so often.
    Sliding {
        /// From the begin of one to that of the next.
        slide_ms: i64,
    },
    /// Each longer than the one before it, up to the whole length.
    Cumulative {
        /// By so much.
        step_ms: i64,
    },
    /// A unit of the calendar of a zone, by its number among [`ZONES`]; the length means nothing.
    Calendar {
        /// The unit.
        unit: CalendarUnit,
        /// The zone.
        zone: usize,
    },
    /// As long as rows follow one another; the length is that of the gap.
    Session,
}

/// The time zones of generated windows. In the first two a day begins in the range of the event times.
pub const ZONES: [&str; 4] = ["Europe/Berlin", "Africa/Lagos", "UTC", "Asia/Kathmandu"];

/// A keyed window.
#[derive(Clone, Debug)]
pub struct Window {
    /// The input's slots of its key.
    pub key: Vec<usize>,
    /// Rows of one key lie in several partitions: they are brought together first.
    pub rekeys: bool,
    /// Whether what a task's rows come to is brought together in place of them, if the file says.
    pub two_phase: Option<bool>,
    /// Which windows there are.
    pub shape: Shape,
    /// Whose time they are cut from.
    pub time: TimeDomain,
    /// The length of the longest; of sessions of rows with their own gaps the least gap.
    pub size_ms: i64,
    /// The gap that a row has of its own.
    pub gap: Option<Formula>,
    /// How much later than the epoch they begin.
    pub offset_ms: i64,
    /// How long after its end it takes rows.
    pub allowed_lateness_ms: i64,
    /// When it makes rows.
    pub emit: Emit,
    /// Whether they are a changelog.
    pub changelog: bool,
    /// When early ones.
    pub early: Option<EarlyFiring>,
    /// After which rows, if it is for those to say.
    pub early_when: Option<Formula>,
    /// Whether it begins anew with each of them.
    pub purge: bool,
    /// How often by the clock it makes refinements; `None`: after each row.
    pub refine_every_ms: Option<i64>,
    /// Where late rows go; `None`: nowhere.
    pub late: Option<String>,
    /// What it computes.
    pub aggregates: Vec<Aggregate>,
}

/// A sink.
#[derive(Clone, Debug)]
pub struct Sink {
    /// Its id.
    pub id: String,
    /// What it writes.
    pub input: StreamRef,
    /// Its topic.
    pub topic: String,
    /// The slots of its key.
    pub key: Vec<usize>,
}

impl Generated {
    /// The topics that must exist before it starts, with their number of partitions.
    pub fn topics(&self) -> BTreeMap<String, i32> {
        let existing = self.partitions.iter().filter(|(topic, _)| !self.created.contains(*topic));
        existing.map(|(topic, partitions)| (topic.clone(), *partitions)).collect()
    }

    /// How many partitions a topic that it reads or writes has; 1 if it is none of them.
    pub fn partitions(&self, topic: &str) -> i32 {
        self.partitions.get(topic).copied().unwrap_or(1)
    }

    /// Whether the rows of an operator's input have to be brought together by other keys first.
    pub fn rekeys(&self, operator: usize) -> bool {
        match &self.operators[operator].kind {
            OperatorKind::Repartition(_) => true,
            OperatorKind::Window(window) => window.rekeys,
            _ => false,
        }
    }

    /// Whether rows of elements have come to a stream.
    fn is_behind_flat_map(&self, stream: StreamRef) -> bool {
        let StreamRef::Operator(operator) = stream else { return false };
        matches!(self.operators[operator].kind, OperatorKind::FlatMap(_))
            || self.inputs(operator).any(|input| self.is_behind_flat_map(input))
    }

    /// What an operator reads.
    pub fn inputs(&self, operator: usize) -> impl Iterator<Item = StreamRef> {
        let Operator { input, kind, .. } = &self.operators[operator];
        let other = if let OperatorKind::Union(other) = kind { Some(*other) } else { None };
        std::iter::once(*input).chain(other)
    }

    /// The sources, and the operators that change keys, from which the rows that an operator reads have come without
    /// another change of keys.
    pub fn heads_of(&self, operator: usize) -> BTreeSet<usize> {
        let mut heads = BTreeSet::new();
        for input in self.inputs(operator) {
            match input {
                StreamRef::Operator(input) if !self.rekeys(input) => heads.extend(self.heads_of(input)),
                StreamRef::Operator(input) => drop(heads.insert(self.sources.len() + input)),
                StreamRef::Source(source) => drop(heads.insert(source)),
                StreamRef::Repartition(_) => unreachable!("a file names operators"),
            }
        }
        heads
    }

    /// Whether an operator reads what comes from a source that may be idle.
    pub fn may_be_idle(&self, operator: usize) -> bool {
        // The generator has no key changed twice behind such a source.
        let mut sources = self.heads_of(operator).into_iter().filter_map(|head| self.sources.get(head));
        sources.any(|source| source.idle_timeout_ms.is_some())
    }

    /// Whether it creates a topic itself.
    pub(super) fn creates(&self, topic: &str) -> bool {
        self.created.contains(topic)
    }

    /// The rows of a stream.
    pub fn fields(&self, stream: StreamRef) -> Vec<Field> {
        match stream {
            StreamRef::Source(i) => self.sources[i].fields.iter().map(|(field, _)| field.clone()).collect(),
            StreamRef::Operator(i) => self.operators[i].fields.clone(),
            StreamRef::Repartition(_) => unreachable!("a file names operators"),
        }
    }
}

/// A topology by chance.
pub fn generate(random: &mut Random) -> Generated {
    let generated = Generated {
        name: "app".into(),
        bounded: random.one_in(4),
        sources: Vec::new(),
        operators: Vec::new(),
        sinks: Vec::new(),
        partitions: BTreeMap::new(),
        created: BTreeSet::new(),
    };
    let mut maker =
        Maker { generated, streams: Vec::new(), random, shared_letters: None, calm: false, idles: false };
    let sources = 1 + u64::from(maker.random.one_in(4));
    for number in 0..sources as usize {
        maker.source(number);
        let first = maker.streams.len() - 1;
        for _ in 0..*maker.random.pick(&[0, 1, 1, 2, 2, 2, 3, 3]) {
            maker.operator(first);
        }
        maker.sinks(first);
    }
    maker.generated
}

/// A stream that may be read.
#[derive(Clone)]
struct Stream {
    at: StreamRef,
    fields: Vec<Field>,
    /// Whether its rows come from one record each.
    meta: bool,
    /// For each field of the source's `partitioned_by` the slots that hold its value unchanged.
    carried: Vec<Vec<usize>>,
    /// Keys were changed before it.
    rekeyed: bool,
    /// Its rows depend on what the clock showed.
    of_clock: bool,
    /// All of its sources are calm.
    calm: bool,
    /// One of its sources may be idle.
    idles: bool,
    /// The length of the last window before it.
    size_ms: Option<i64>,
    readers: usize,
}

struct Maker<'r> {
    generated: Generated,
    /// All streams so far.
    streams: Vec<Stream>,
    random: &'r mut Random,
    /// A dead-letter topic that there is already.
    shared_letters: Option<String>,
    /// The source that is being made is calm.
    calm: bool,
    /// And may be idle.
    idles: bool,
}

/// The fields that windows add to their key and aggregates.
const OF_WINDOWS: [&str; 6] = ["window_start", "window_end", "early", "refinement", "final", "op"];

fn field(name: &str, ty: Type, nullable: bool) -> Field {
    Field { name: name.to_owned(), ty, nullable, form: FieldForm::Plain }
}

/// What kind of operator is made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Filter,
    FlatMap,
    Map,
    Repartition,
    Union,
    Window,
    GlobalWindow,
    Deduplicate,
    Lag,
    Branch,
}

/// The kinds that remember something of each key, whatever the time.
const KEYED: [Kind; 3] = [Kind::Deduplicate, Kind::Lag, Kind::GlobalWindow];

impl Kind {
    fn letter(self) -> &'static str {
        match self {
            Kind::Filter => "f",
            Kind::FlatMap => "e",
            Kind::Map => "m",
            Kind::Repartition => "r",
            Kind::Union => "u",
            Kind::Window => "w",
            Kind::GlobalWindow => "g",
            Kind::Deduplicate => "d",
            Kind::Lag => "l",
            Kind::Branch => "b",
        }
    }
}

impl Maker<'_> {
    /// Declares a topic.
    fn topic(&mut self, name: &str, partitions_max: u64) -> String {
        let partitions = 1 + self.random.below(partitions_max) as i32;
        self.generated.partitions.insert(name.to_owned(), partitions);
        name.to_owned()
    }

    fn on_error(&mut self, id: &str) -> OnError {
        match self.random.below(4) {
            0 => OnError::Skip,
            1 if self.shared_letters.is_some() => {
                OnError::DeadLetter(self.shared_letters.clone().unwrap_or_default())
            }
            _ => {
                let topic = self.topic(&format!("{id}-dead"), 2);
                self.shared_letters = Some(topic.clone());
                OnError::DeadLetter(topic)
            }
        }
    }

    /// Adds an operator behind one of the streams from `first` on, mostly behind the last one.
    fn operator(&mut self, first: usize) {
        let last = self.streams.len() - 1;
        let place = if self.random.one_in(4) {
            first + self.random.below((last - first + 1) as u64) as usize
        } else {
            last
        };
        // What becomes of rows that may have come late is not followed any further.
        let place = if self.idles && self.streams[place].rekeyed { first } else { place };
        // Nor what a clock has grouped.
        let place = if self.streams[place].of_clock { first } else { place };
        let input = self.streams[place].clone();
        let number = self.generated.operators.len();
        let can_group = !input.carried.is_empty() && input.carried.iter().all(|slots| !slots.is_empty());
        let rekeys = input.calm && self.random.one_in(3) && !groupable(&input.fields).is_empty();
        let other = self.other(place);
        // Behind a change of keys the order of rows would show.
        let keyed = can_group && !input.rekeyed && self.random.fork("keyed").one_in(4);
        // They multiply: how many rows of a chain are too many is not followed.
        let flattens = !self.generated.is_behind_flat_map(input.at)
            && input.fields.iter().any(|field| field.ty.is_list())
            && self.random.fork("flat").one_in(3);
        let kind = match self.random.below(8) {
            _ if other.is_some() => Kind::Union,
            _ if keyed => *self.random.fork("kind").pick(&KEYED),
            _ if !rekeys && input.rekeyed && input.meta && self.random.fork("carried").one_in(2) => Kind::Map,
            _ if rekeys && self.idles => Kind::Window,
            0..=2 if rekeys => Kind::Repartition,
            _ if !rekeys && self.random.fork("branch").one_in(8) => Kind::Branch,
            _ if !rekeys && flattens => Kind::FlatMap,
            _ if rekeys => Kind::Window,
            0 | 1 => Kind::Filter,
            4.. if can_group => Kind::Window,
            _ => Kind::Map,
        };
        let id = format!("{}{number}", kind.letter());
        // A row that comes from no record goes, without a key, to the partition of its task's number, which nobody knows there.
        let is_behind = input.rekeyed || (rekeys && kind == Kind::Window);
        let is_lost = is_behind && (!input.meta || self.random.fork("lost").one_in(3));
        let on_error = match kind {
            Kind::Union => OnError::Fail, // it does nothing that could fail
            _ if is_lost => OnError::Skip,
            _ => self.on_error(&id),
        };
        let (kind, mut made) = match kind {
            Kind::Filter => {
                let scope = Scope { fields: &input.fields, meta: input.meta };
                let depth = 1 + self.random.below(3) as u32;
                (OperatorKind::Filter(scope.formula(Type::Bool, depth, self.random)), input.clone())
            }
            Kind::FlatMap => self.flat_map(&input, number),
            Kind::Map => self.map(&input, number),
            Kind::Repartition => self.repartition(&input),
            Kind::Union => self.union(&input, other.unwrap_or(place)),
            Kind::Window => self.window(&input, &id, number, rekeys),
            Kind::GlobalWindow => self.global_window(&input, number),
            Kind::Deduplicate => self.deduplicate(&input, &id),
            Kind::Lag => self.lag(&input, number),
            Kind::Branch => self.branch(&input),
        };
        if let OperatorKind::Branch(branch) = &kind {
            let branch = branch.clone();
            let fields = made.fields.clone();
            self.generated.operators.push(Operator {
                id: id.clone(),
                input: input.at,
                fields,
                on_error,
                kind,
            });
            self.streams[place].readers += 1;
            return self.outputs(&branch, &id, number, &made);
        }
        made.at = StreamRef::Operator(number);
        made.readers = 0;
        let fields = made.fields.clone();
        self.generated.operators.push(Operator { id, input: input.at, fields, on_error, kind });
        self.streams[place].readers += 1;
        self.streams.push(made);
    }

    /// Sinks for the streams from `first` on.
    fn sinks(&mut self, first: usize) {
        for place in first..self.streams.len() {
            let unread = self.streams[place].readers == 0;
            let count = u64::from(unread) + u64::from(self.random.one_in(if unread { 5 } else { 3 }));
            for _ in 0..count {
                self.sink(place);
            }
        }
    }

    fn sink(&mut self, place: usize) {
        let stream = self.streams[place].clone();
        let number = self.generated.sinks.len();
        let topic = self.topic(&format!("out{number}"), 3);
        if self.random.one_in(5) {
            self.generated.created.insert(topic.clone());
        }
        let plain = (0..stream.fields.len()).filter(|slot| !stream.fields[*slot].ty.is_list());
        let plain: Vec<usize> = plain.collect();
        let mut key: Vec<usize> = match self.random.below(5) {
            _ if plain.is_empty() => Vec::new(),
            0 if !stream.rekeyed => Vec::new(),
            1 => vec![*self.random.pick(&plain)],
            _ => stream.carried.iter().filter_map(|slots| slots.first().copied()).collect(),
        };
        if key.is_empty() && stream.rekeyed && !plain.is_empty() {
            key.push(*self.random.pick(&plain));
        }
        if !key.is_empty() && self.random.one_in(5) {
            key.push(*self.random.pick(&plain));
            key.dedup();
            if key.len() > 1 && key[..key.len() - 1].contains(&key[key.len() - 1]) {
                key.pop();
            }
        }
        self.generated.sinks.push(Sink { id: format!("s{number}"), input: stream.at, topic, key });
    }
}
