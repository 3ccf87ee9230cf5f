//! A history: processes on a cluster, and chance that lets one or the other go on. What goes wrong stands in
//! `faults`, how processes come and go in `lives`, how everything comes to its end in `ending`.

mod ending;
mod faults;
mod lives;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use crate::model::clients::ModelAdmin;
use crate::model::{Cluster, Record};
use crate::operator::Counters;
use crate::random::Random;
use crate::record::TopicPartition;
use crate::simulator::disk::{Disk, FULL, Kind};
use crate::simulator::process::{Common, Process, Told};
use crate::simulator::scenario::{Faults, Pace, Scenario, Step};
use crate::simulator::settings::{plain_spec, small_spec};
use crate::simulator::shared::{FaultSource, Shared};
use crate::simulator::trace::{Trace, Who};
use crate::topology::plan::{Plan, Start};
use crate::worker::port::{LogAdmin, TopicSpec};
use crate::worker::topics::{self, Topics};
use crate::worker::{Exit, StageSpec, WorkerEvent, WorkerSpec};

/// Replicas are not modelled: topologies may ask for as many as they like.
const BROKERS: i32 = 100;
/// A process that ended by a failure starts again after this long.
const RESTART_MS: u64 = 500;
/// Records come once in so many turns.
const TURNS_PER_INPUT: u64 = 16;
/// Histories differ in how fast time goes by, beside what happens.
const TURN_MS: [u64; 4] = [20, 60, 300, 1_000];
/// Histories differ in how slow their disks are: so many milliseconds for a write, at most.
const DISK_MS: [u64; 8] = [0, 0, 0, 0, 0, 100, 1_000, 6_000];
/// How many records may be there before a source starts that begins at the newest.
const BEFORE_MAX: u64 = 20;
/// A fault strikes once in so many turns.
const TURNS_PER_FAULT: u64 = 120;

/// A process that is not running.
struct Down {
    identity: usize,
    disk: Disk,
    restart_ms: u64,
}

/// A simulation under way.
pub struct World {
    pub(super) scenario: Scenario,
    pub(super) common: Common,
    random: Random,
    /// How much time passes at once in a turn, at most.
    turn_ms: u64,
    processes: Vec<Process>,
    down: Vec<Down>,
    /// Process numbers and identities given so far.
    started: usize,
    identities: usize,
    /// Identities that two processes had at once: one of them is fenced.
    contested: BTreeSet<usize>,
    /// The coordinator of groups has moved: it may have forgotten that a static member came back as a new
    /// client, and fences that one.
    groups_moved: bool,
    /// The next step of the scenario.
    next: usize,
    /// All has come and nothing goes wrong any more: it ends when sources that can be idle are.
    over_soon: bool,
    /// Processes that stop are not started any more.
    over: bool,
    /// How much time passed in the last round of the end.
    idle_ms: u64,
    pub(super) counters: Counters,
    /// The disks of processes that stopped in order, for the last comparison, with their identities.
    pub(super) disks: Vec<(usize, Disk)>,
    /// What takes the place of the topology later.
    change: Option<Change>,
    /// From which offset of each source partition on it did.
    pub(super) changed_at: BTreeMap<TopicPartition, i64>,
    /// Where each source partition ended when the processes began.
    pub(super) began_at: BTreeMap<TopicPartition, i64>,
}

/// A topology that takes the place of another one in the middle of a history: all processes stop in order,
/// and start with it.
pub struct Change {
    /// The topology.
    pub plan: Arc<Plan>,
    /// The operators whose state is given up.
    pub drop_state: Vec<String>,
    /// After how many steps of the input.
    pub after: usize,
}

/// The stages of a plan. Where nobody waits until sources are idle, partitions are not aligned: one that has no more
/// records would hold the others back for ever.
fn stages(scenario: &Scenario, plan: &Arc<Plan>, topics: &Topics) -> Result<Vec<StageSpec>, String> {
    let mut stages = topics::stages(plan, topics).map_err(|error| error.to_string())?;
    if !scenario.until_idle {
        stages.iter_mut().for_each(|stage| stage.alignment = None);
    }
    Ok(stages)
}

impl World {
    /// Prepares a scenario. `left_out` are the numbers of faults that do not strike; with `story`, all is
    /// told.
    pub fn new(scenario: &Scenario, left_out: BTreeSet<u64>, story: bool) -> Result<World, String> {
        let cluster = Cluster::of_brokers(BROKERS);
        let mut admin = ModelAdmin::new(&cluster);
        for (name, partitions) in &scenario.topics {
            let (name, partitions) = (name.clone(), *partitions);
            let spec = TopicSpec { name, partitions, replication: 1, config: Vec::new() };
            admin.create(&spec).map_err(|error| error.to_string())?;
        }
        let plan = &scenario.plan;
        let topics = topics::prepare(&mut admin, plan, scenario.bounded, 1, None)
            .map_err(|error| error.to_string())?;
        let random = Random::new(scenario.seed).fork("turns");
        let seeded = scenario.faults == Faults::Seeded;
        let fault_seed = random.fork("faults").bits();
        let mut chance = random.fork("settings");
        let spec = WorkerSpec {
            application: plan.name.clone(),
            stages: stages(scenario, plan, &topics)?,
            bounded: scenario.bounded,
            ..if seeded { small_spec(&mut chance) } else { plain_spec(scenario.pace) }
        };
        let faults = FaultSource::new(fault_seed, seeded, left_out);
        let shared = Rc::new(Shared::new(cluster, faults, Trace::new(story)));
        if scenario.pace == Pace::OneByOne {
            shared.stop_clock();
        }
        if let Faults::CrashAt { commit, point } = scenario.faults {
            shared.crash_at.set(Some((commit, point)));
        }
        let common = Common {
            shared,
            spec: Arc::new(spec),
            sources: plan.stages().map(|stage| plan.topic_of(stage)).collect(),
            source_partitions: topics.sources,
            application: plan.name.clone(),
            session_timeout_ms: 6_000 + chance.below(4) * 1_000,
            transaction_timeout_ms: 10_000 + chance.below(4) * 10_000,
        };
        let mut world = World {
            scenario: scenario.clone(),
            common,
            turn_ms: *chance.pick(&TURN_MS),
            random,
            processes: Vec::new(),
            down: Vec::new(),
            started: 0,
            identities: 0,
            contested: BTreeSet::new(),
            groups_moved: false,
            next: 0,
            over_soon: false,
            over: false,
            idle_ms: 1,
            counters: Counters::default(),
            disks: Vec::new(),
            change: None,
            changed_at: BTreeMap::new(),
            began_at: BTreeMap::new(),
        };
        let slow_ms = *chance.fork("disks").pick(&DISK_MS);
        if seeded && slow_ms > 0 {
            world.note(Who::World, "slow disks", || format!("up to {slow_ms} ms a write"));
            world.shared().slow_disks(slow_ms, chance.fork("writes"));
        }
        if scenario.rocks {
            world.note(Who::World, "history on RocksDB", || format!("{:?}", Kind::of(scenario)));
        }
        for _ in 0..scenario.processes.max(1) {
            world.start_new()?;
        }
        Ok(world)
    }

    /// Plays it to its end: all steps, then everything that is to follow from them, then an orderly stop.
    pub fn play(&mut self) -> Result<(), String> {
        match self.scenario.pace {
            // A bounded run ends where the input ends when it starts; what comes then is none of its business.
            _ if self.scenario.bounded => {
                let later = self.scenario.after_the_end;
                while self.next + later < self.scenario.steps.len() && self.take_input(false)? {}
            }
            Pace::AllAtOnce => while self.take_input(false)? {},
            Pace::OneByOne => {
                while self.take_input(true)? {
                    self.settle()?;
                }
            }
            // So that it shows what a source skips that starts at the newest record.
            Pace::Mixed if self.scenario.plan.sources.iter().any(|source| source.start == Start::Latest) => {
                for _ in 0..self.random.fork("before").below(BEFORE_MAX) {
                    self.take_input(true)?;
                }
            }
            Pace::Mixed => {}
        }
        self.began_at = self.source_ends();
        if self.shared().faults.borrow().on {
            self.turns()?;
        }
        while self.take_input(true)? {
            self.turn()?;
        }
        self.shared().faults.borrow_mut().on = false;
        self.mend();
        self.over_soon = self.scenario.until_idle;
        self.settle()?;
        self.stop()
    }

    /// Everything in any order, while things go wrong.
    fn turns(&mut self) -> Result<(), String> {
        let mut left = 200 + self.random.below(600);
        while self.next < self.scenario.steps.len() || left > 0 {
            if let Some(change) = self.change.take_if(|change| change.after <= self.next) {
                self.change_topology(change)?;
            }
            self.turn()?;
            if self.random.one_in(TURNS_PER_INPUT) {
                for _ in 0..=self.random.below(8) {
                    self.take_input(true)?;
                }
            }
            if self.next == self.scenario.steps.len() {
                left = left.saturating_sub(1);
            }
        }
        Ok(())
    }

    pub(super) fn shared(&self) -> &Rc<Shared> {
        &self.common.shared
    }

    fn now_ms(&self) -> u64 {
        self.common.shared.now_ms()
    }

    fn note(&self, who: Who, what: &'static str, detail: impl FnOnce() -> String) {
        self.common.shared.note(who, what, detail);
    }

    // ---- the input ----

    /// Takes the next step of the scenario; whether there was one. `passing`: time passes as it says.
    fn take_input(&mut self, passing: bool) -> Result<bool, String> {
        let Some(step) = self.scenario.steps.get(self.next) else { return Ok(false) };
        self.next += 1;
        match step {
            Step::Append(input) => {
                let record = Record {
                    key: input.key.clone(),
                    value: input.value.clone(),
                    headers: input.headers.clone(),
                    timestamp_ms: input.timestamp_ms,
                };
                let appended = self.common.shared.cluster.append_record(&input.partition, record);
                appended.ok_or_else(|| {
                    format!("a record of the input is for {}, which does not exist", input.partition)
                })?;
            }
            Step::Advance(ms) if passing => {
                // Of records one by one it shows what time does, and not what becomes of a process that stands still.
                match self.scenario.pace {
                    Pace::OneByOne => self.common.shared.cluster.advance_polling(*ms),
                    Pace::AllAtOnce | Pace::Mixed => self.common.shared.cluster.advance(*ms),
                }
                self.common.shared.turn_clock(*ms);
            }
            Step::Advance(_) => {}
        }
        Ok(true)
    }

    // ---- one turn ----

    fn turn(&mut self) -> Result<(), String> {
        self.bury_the_dying()?;
        if let Some(chance) = self.common.shared.strike(TURNS_PER_FAULT) {
            self.go_wrong(chance)?;
        }
        self.wake()?;
        if self.processes.is_empty() {
            let ms = 1 + self.random.below(200);
            self.advance(ms);
            return Ok(());
        }
        let at = self.random.place(self.processes.len());
        if self.processes[at].frozen_until_ms.is_some() {
            let ms = 1 + self.random.below(100);
            self.advance(ms);
            return Ok(());
        }
        let seat = self.random.place(self.processes[at].seats.len());
        match self.random.below(100) {
            0..44 => self.step(at, seat).map(drop),
            44..90 => self.go_on(at, seat).map(drop),
            90..92 => {
                let shared = self.common.shared.clone();
                self.processes[at].go_on_orphan(&shared);
                Ok(())
            }
            _ => {
                let ms = 1 + self.random.below(self.turn_ms);
                self.advance(ms);
                Ok(())
            }
        }
    }

    fn advance(&self, ms: u64) {
        self.common.shared.cluster.advance(ms);
    }

    /// Whether there is more to do at once.
    fn step(&mut self, at: usize, seat: usize) -> Result<bool, String> {
        let process = &mut self.processes[at];
        if process.seats[seat].stopped {
            return Ok(false);
        }
        let told = process.step(&self.common, seat)?;
        let busy = told.busy;
        self.hear(at, seat, told)?;
        Ok(busy)
    }

    /// Whether there was a job that could go on.
    fn go_on(&mut self, at: usize, seat: usize) -> Result<bool, String> {
        let World { processes, common, random, .. } = self;
        let Process { seats, disk, .. } = &mut processes[at];
        match seats[seat].go_on(common, disk, |choices| random.place(choices))? {
            Some(told) => self.hear(at, seat, told).map(|()| true),
            None => Ok(false),
        }
    }

    fn hear(&mut self, at: usize, seat: usize, told: Told) -> Result<(), String> {
        let who = self.processes[at].seats[seat].who;
        for event in told.events {
            match event {
                WorkerEvent::Committed { counters, .. } => {
                    counters.iter().for_each(|(_, counters)| self.counters.add(counters));
                    self.processes[at].was_frozen &= self.processes[at].frozen_until_ms.is_some();
                }
                WorkerEvent::Fenced(why) if self.processes[at].was_frozen => {
                    self.processes[at].was_frozen = false;
                    self.note(who, "zombie fenced", || why);
                }
                WorkerEvent::Aborted(why) => self.note(who, "starting over", || why),
                _ => {}
            }
        }
        let Some(exit) = told.exit else { return Ok(()) };
        match exit {
            Exit::Stopped => {
                self.processes[at].seats[seat].stopped = true;
                self.note(who, "stopped", String::new);
            }
            Exit::Rebuild(why) if !self.processes[at].may_rebuild(seat) => {
                if !self.is_excused(at, &why) {
                    return Err(format!("{who} was replaced too often: {why}"));
                }
                self.note(who, "process gave up", || why);
                self.crash(at, usize::MAX, RESTART_MS)?;
            }
            Exit::Rebuild(why) => {
                self.note(who, "worker replaced", || why);
                self.processes[at].rebuild(&self.common, seat);
            }
            Exit::Failed(why) => {
                if !self.is_excused(at, &why) {
                    return Err(format!("{who} failed: {why}"));
                }
                self.note(who, "process gave up", || why);
                self.crash(at, usize::MAX, RESTART_MS)?;
            }
            Exit::Refused(why) => return Err(format!("{who} refused its state: {why}")),
        }
        Ok(())
    }

    /// Whether a process may end with this message, since something went wrong that it cannot mend.
    fn is_excused(&self, at: usize, why: &str) -> bool {
        let process = &self.processes[at];
        let is_contested = self.contested.contains(&process.identity);
        self.scenario.faults == Faults::Seeded
            && (self.common.shared.is_answered(process.number, why)
                || why.contains("without a single commit")
                || why.contains(FULL)
                || (is_contested && why.contains("Fenced"))
                || (self.groups_moved && why.contains("FencedInstanceId")))
    }
}
