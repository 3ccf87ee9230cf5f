//! Histories by the thousand: each from one seed, with a topology, an input and faults of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::operator::Counters;
use crate::random::Random;
use crate::record::TopicPartition;
use crate::simulator::disk::without_folders;
use crate::simulator::generate::{Changed, Generated, generate};
use crate::simulator::input::inputs;
use crate::simulator::reference::{self, Expected};
use crate::simulator::scenario::{Faults, Input, Outcome, Pace, Scenario, Step};
use crate::simulator::world::{Change, World};
use crate::topology;
use crate::topology::plan::{Plan, Start};

/// Seeds whose histories failed once: of the engine, or of the simulator that told so. What a seed plays
/// changes with the generators; what was found in the engine has a test of its own as well.
pub const ONCE_FAILED: [u64; 18] = [
    93, 95, 218, 3_842, 4_706, 5_423, 7_634, 9_110, 10_084, 23_528, 1_006_668, 1_043_605, 1_051_758,
    1_063_929, 1_066_617, 1_068_267, 1_071_634, 1_212_126,
];

/// The histories of seeds that are multiples of this run on RocksDB. One takes some 85 ms, and
/// one in memory 5 (both in the dev profile): they take less than a quarter of a campaign's time as long as
/// one in memory takes more than 1 ms.
pub const ROCKS_ONE_IN: u64 = 250;

/// What a history leaves out of what its seed says, to make a failure smaller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Numbers of faults.
    pub faults: BTreeSet<u64>,
    /// Numbers of steps of the input.
    pub steps: BTreeSet<usize>,
}

/// What came of a history.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// What is wrong, if something is.
    pub failure: Option<String>,
    /// A hash of all that happened: the same for the same seed, on every machine.
    pub digest: u64,
    /// How often each thing happened.
    pub counts: BTreeMap<&'static str, u64>,
    /// What happened, line by line, if that was asked for.
    pub story: Vec<String>,
    /// How many faults there were.
    pub faults: u64,
    /// How many steps the input has.
    pub steps: usize,
}

/// Plays the history of a seed.
pub fn history(seed: u64, left_out: &LeftOut, story: bool) -> History {
    let mut history = History::default();
    let played = caught(|| play(seed, left_out, story, &mut history));
    history.failure = played.err().map(|why| without_folders(&why));
    history
}

/// A panic is a failure like others.
fn caught(play: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(play)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        Err(format!("panic: {}", text.unwrap_or_default()))
    })
}

fn play(seed: u64, left_out: &LeftOut, story: bool, history: &mut History) -> Result<(), String> {
    let mut random = Random::new(seed);
    let generated = generate(&mut random.fork("topology"));
    let scenario = scenario(seed, &generated, &mut random, left_out)?;
    history.steps = scenario.steps.len() + left_out.steps.len();
    let mut world = World::new(&scenario, left_out.faults.clone(), story)?;
    let changed = changed(seed, &generated, &scenario);
    if let Some(changed) = &changed {
        let (plan, steps) = (plan(&changed.generated)?, scenario.steps.len());
        let drop_state = vec![changed.generated.operators[changed.operator].id.clone()];
        let after = Random::new(seed).fork("change").place(steps.max(1));
        world.change_later(Change { plan, drop_state, after });
    }
    let played = caught(|| {
        world.play()?;
        let outcome = world.outcome()?;
        compare(&generated, changed.as_ref(), &world, &outcome)
    });
    let trace = world.shared().trace.borrow();
    history.digest = trace.digest();
    history.counts = trace.counts().clone();
    history.faults = world.shared().faults.borrow().struck();
    if story {
        history.story = generated.text().lines().map(str::to_owned).collect();
        history.story.extend(trace.story().iter().map(|line| without_folders(line)));
    }
    played
}

/// One history in so many goes on with another topology.
const CHANGED_ONE_IN: u64 = 12;

/// The topology that takes the place of the first one, if one does.
fn changed(seed: u64, generated: &Generated, scenario: &Scenario) -> Option<Changed> {
    let mut random = Random::new(seed).fork("changed");
    let may_change = !scenario.bounded && scenario.faults == Faults::Seeded;
    if may_change && random.one_in(CHANGED_ONE_IN) { generated.changed(&mut random) } else { None }
}

fn plan(generated: &Generated) -> Result<Arc<Plan>, String> {
    let text = generated.text();
    let checked = topology::parse(&text, "generated.yaml", &|_| Err("no files".into()), &|_| None);
    let checked =
        checked.map_err(|findings| format!("the generated topology is wrong: {findings:?}\n{text}"))?;
    Ok(Arc::new(checked.plan))
}

fn scenario(
    seed: u64,
    generated: &Generated,
    random: &mut Random,
    left_out: &LeftOut,
) -> Result<Scenario, String> {
    let count = 20 + random.below(280) as usize;
    let records = inputs(generated, &mut random.fork("input"), count);
    let steps = records.into_iter().map(Step::Append).enumerate();
    Ok(Scenario {
        plan: plan(generated)?,
        topics: generated.topics(),
        steps: steps.filter(|(at, _)| !left_out.steps.contains(at)).map(|(_, step)| step).collect(),
        pace: Pace::Mixed,
        bounded: generated.bounded,
        after_the_end: random.place(10),
        until_idle: true,
        processes: 1 + random.below(3) as usize,
        workers: 1 + random.below(2) as usize,
        faults: if random.one_in(20) { Faults::None } else { Faults::Seeded },
        rocks: seed.is_multiple_of(ROCKS_ONE_IN),
        seed: random.bits(),
    })
}

fn compare(
    generated: &Generated,
    changed: Option<&Changed>,
    world: &World,
    outcome: &Outcome,
) -> Result<(), String> {
    let (mut partitions, mut ends) = (BTreeMap::new(), BTreeMap::new());
    for source in &generated.sources {
        for number in 0..world.partitions(&source.topic) {
            let partition = TopicPartition::new(&source.topic, number);
            let begin = if source.start == Start::Latest { world.anchor(&partition)? } else { 0 };
            let log = world.shared().cluster.log(&partition);
            let read = log.into_iter().filter(|(offset, _)| *offset >= begin);
            let records = read.map(|(offset, record)| {
                let input = Input {
                    partition: partition.clone(),
                    key: record.key.clone(),
                    value: record.value.clone(),
                    headers: record.headers.clone(),
                    timestamp_ms: record.timestamp_ms,
                };
                (offset, Arc::new(input))
            });
            let records: Vec<(i64, Arc<Input>)> = records.collect();
            let end = world.end_offset(&partition);
            ends.insert(
                partition.clone(),
                end.unwrap_or_else(|| world.shared().cluster.high_watermark(&partition)),
            );
            partitions.insert(partition, records);
        }
    }
    let ends = generated.bounded.then_some(&ends);
    // If it did not come to that, nothing changed.
    let change = changed.filter(|_| !world.changed_at.is_empty()).map(|changed| (changed, &world.changed_at));
    let expected = reference::expected(generated, &partitions, ends, change);
    reference::compare(&expected, &outcome.topics)?;
    // After a fault, what an unheard commit had counted is missing.
    if world.scenario.faults == Faults::None { counts(&expected, &outcome.counters) } else { Ok(()) }
}

/// Late and failing records are counted.
fn counts(expected: &Expected, counted: &Counters) -> Result<(), String> {
    let by_name = |counts: &BTreeMap<Arc<str>, u64>| -> BTreeMap<String, u64> {
        let counts = counts.iter().filter(|(_, count)| **count > 0);
        counts.map(|(name, count)| (name.to_string(), *count)).collect()
    };
    let positive = |counts: &BTreeMap<String, u64>| -> BTreeMap<String, u64> {
        counts.iter().filter(|(_, count)| **count > 0).map(|(name, count)| (name.clone(), *count)).collect()
    };
    let (late, failed) = (by_name(&counted.late), by_name(&counted.failed));
    // What comes late behind sources that may be idle is not known.
    if expected.kept.is_empty() && late != positive(&expected.late) {
        return Err(format!("late records: {late:?} are counted instead of {:?}", expected.late));
    }
    let duplicates = by_name(&counted.duplicates);
    if duplicates != positive(&expected.duplicates) {
        return Err(format!("duplicates: {duplicates:?} are counted instead of {:?}", expected.duplicates));
    }
    if failed != positive(&expected.failed) {
        return Err(format!("failed records: {failed:?} are counted instead of {:?}", expected.failed));
    }
    let records = expected.records..=expected.records + expected.put_together;
    if !records.contains(&counted.records_in) {
        return Err(format!("{} records are counted instead of {records:?}", counted.records_in));
    }
    Ok(())
}

/// How many histories a reduction plays at most.
const ATTEMPTS_MAX: usize = 600;

/// Makes a failing history smaller: faults, then steps of the input, are left out, many at once at
/// first, while it still fails.
pub fn reduce(seed: u64) -> (LeftOut, History) {
    let mut left_out = LeftOut::default();
    let mut failed = history(seed, &left_out, false);
    let wanted = failed.failure.as_deref().map(kind);
    let mut attempts = 0;
    for what in [Part::Faults, Part::Steps, Part::Faults] {
        let all = match what {
            Part::Faults => failed.faults as usize,
            Part::Steps => failed.steps,
        };
        let mut size = all.max(1).next_power_of_two();
        while size >= 1 && attempts < ATTEMPTS_MAX {
            for begin in (0..all).step_by(size) {
                let mut fewer = left_out.clone();
                what.leave_out(&mut fewer, begin..all.min(begin + size));
                if fewer == left_out || attempts >= ATTEMPTS_MAX {
                    continue;
                }
                attempts += 1;
                let attempt = history(seed, &fewer, false);
                if attempt.failure.as_deref().map(kind) == wanted {
                    (left_out, failed) = (fewer, attempt);
                }
            }
            size /= 2;
        }
    }
    let told = history(seed, &left_out, true);
    (left_out, told)
}

/// What a failure is about: its first line, without what may be part of a number.
fn kind(failure: &str) -> String {
    let first = failure.lines().next().unwrap_or_default();
    first.chars().filter(|c| !c.is_ascii_hexdigit()).take(KIND_CHARS).collect()
}

/// Enough to tell failures apart, and not who failed where.
const KIND_CHARS: usize = 100;

#[derive(Clone, Copy)]
enum Part {
    Faults,
    Steps,
}

impl Part {
    fn leave_out(self, from: &mut LeftOut, range: std::ops::Range<usize>) {
        match self {
            Part::Faults => from.faults.extend(range.map(|number| number as u64)),
            Part::Steps => from.steps.extend(range),
        }
    }
}
