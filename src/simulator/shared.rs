//! What everything in a simulation shares: the cluster with its clock, the faults, the trace.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use corosensei::stack::DefaultStack;

use crate::model::link::Fate;
use crate::model::request::Request;
use crate::model::{Cluster, Code};
use crate::random::Random;
use crate::record::TopicPartition;
use crate::simulator::scenario::CommitPoint;
use crate::simulator::trace::{Trace, Who};
use crate::task::TaskId;

/// Decides what goes wrong. Each fault has a number, in the order in which they strike, and its own
/// chance: leaving one out does not change what the others are.
pub struct FaultSource {
    seed: u64,
    random: Random,
    /// Whether anything goes wrong at all.
    pub on: bool,
    /// Histories differ in how often things go wrong: a fault's chance is so many quarters of the usual.
    quarters: u64,
    struck: u64,
    left_out: BTreeSet<u64>,
}

impl FaultSource {
    /// The faults of this seed, without those with these numbers.
    pub fn new(seed: u64, on: bool, left_out: BTreeSet<u64>) -> FaultSource {
        let mut random = Random::new(seed);
        let quarters = *random.pick(&[1, 2, 4, 8, 16]);
        FaultSource { seed, random, on, quarters, struck: 0, left_out }
    }

    /// Whether a fault strikes that has a chance of one in `bound` here; then, with what it decides its
    /// particulars by.
    pub fn strike(&mut self, bound: u64) -> Option<Random> {
        if !self.on || !self.random.one_in((bound * 4 / self.quarters).max(2)) {
            return None;
        }
        let number = self.struck;
        self.struck += 1;
        (!self.left_out.contains(&number)).then(|| Random::new(self.seed ^ (number + 1).rotate_left(32)))
    }

    /// How many have struck, those left out included: their numbers are below it.
    pub fn struck(&self) -> u64 {
        self.struck
    }
}

/// What a clock on the wall shows when the virtual time begins: 2025-01-01T00:00:00Z, when all usual windows begin.
pub(in crate::simulator) const CLOCK_BEGIN_MS: i64 = 1_735_689_600_000;
/// A request is lost, late, repeated or refused once in so many.
const REQUESTS_PER_FAULT: u64 = 50;
/// The same of the end of a transaction, on which the most depends.
const ENDS_PER_FAULT: u64 = 15;
/// The same of a cut of a changelog: that it meets the restore of the next owner is rare enough.
const CUTS_PER_FAULT: u64 = 5;
/// A request takes long once in so many.
const REQUESTS_PER_SLOW: u64 = 100;
/// The same of a restore's fetch: so the log may be cut between its look at the log's start and this.
const FETCHES_PER_SLOW: u64 = 8;
/// What a stack of a job has, in bytes.
const STACK_BYTES: usize = 256 << 10;

/// What brokers answer for other reasons than being away for a moment.
const REFUSALS: [Code; 7] = [
    Code::ConcurrentTransactions,
    Code::InvalidProducerEpoch,
    Code::InvalidTxnState,
    Code::InvalidProducerIdMapping,
    Code::IllegalGeneration,
    Code::UnknownMemberId,
    Code::RebalanceInProgress,
];

/// See the module.
pub struct Shared {
    /// The cluster; its virtual time is everybody's.
    pub cluster: Cluster,
    /// What goes wrong.
    pub faults: RefCell<FaultSource>,
    /// What happened.
    pub trace: RefCell<Trace>,
    /// The commit in which the process dies, if one is to.
    pub crash_at: Cell<Option<(u64, CommitPoint)>>,
    /// How many commits were begun.
    pub commits: Cell<u64>,
    /// The process that has come to where it dies.
    pub dying: Cell<Option<usize>>,
    /// Of a clock on the wall that does not go on by itself: for how long it has.
    stopped_clock_ms: Cell<Option<u64>>,
    /// What brokers answered that does not pass by itself, and to which process: it may end because of it.
    answers: RefCell<BTreeSet<(usize, String)>>,
    /// Who restored a task last.
    pub owners: RefCell<BTreeMap<TaskId, Who>>,
    /// Who cut a task's changelog last.
    pub cutters: RefCell<BTreeMap<TaskId, Who>>,
    /// Offsets whose commit ended in doubt.
    pub doubts: RefCell<BTreeMap<TopicPartition, i64>>,
    /// How long a disk may take for a write, at most, and what decides it.
    disk: RefCell<(u64, Random)>,
}

thread_local! {
    /// Stacks of jobs that have ended, for this history and the next ones: to map and unmap them costs more
    /// than most jobs.
    static STACKS: RefCell<Vec<DefaultStack>> = const { RefCell::new(Vec::new()) };
}

impl Shared {
    /// A new simulation.
    pub fn new(cluster: Cluster, faults: FaultSource, trace: Trace) -> Shared {
        Shared {
            cluster,
            faults: RefCell::new(faults),
            trace: RefCell::new(trace),
            crash_at: Cell::new(None),
            commits: Cell::new(0),
            dying: Cell::new(None),
            stopped_clock_ms: Cell::new(None),
            answers: RefCell::default(),
            owners: RefCell::default(),
            cutters: RefCell::default(),
            doubts: RefCell::default(),
            disk: RefCell::new((0, Random::new(0))),
        }
    }

    /// The virtual time.
    pub fn now_ms(&self) -> u64 {
        self.cluster.now_ms()
    }

    /// What a clock on the wall shows.
    pub fn clock_ms(&self) -> i64 {
        let since_ms = self.stopped_clock_ms.get().unwrap_or_else(|| self.now_ms());
        CLOCK_BEGIN_MS.saturating_add_unsigned(since_ms)
    }

    /// The clock on the wall goes on only when it is told to.
    pub fn stop_clock(&self) {
        self.stopped_clock_ms.set(Some(0));
    }

    /// Tells it to.
    pub fn turn_clock(&self, ms: u64) {
        self.stopped_clock_ms.set(self.stopped_clock_ms.get().map(|at_ms| at_ms + ms));
    }

    /// Notes what happened.
    pub fn note(&self, who: Who, what: &'static str, detail: impl FnOnce() -> String) {
        self.trace.borrow_mut().note(self.now_ms(), who, what, detail);
    }

    /// Whether a fault strikes.
    pub fn strike(&self, bound: u64) -> Option<Random> {
        self.faults.borrow_mut().strike(bound)
    }

    /// What becomes of a request.
    pub fn fate(&self, who: Who, request: &Request) -> Fate {
        let bound = match request {
            Request::EndTxn { .. } => ENDS_PER_FAULT,
            Request::DeleteRecords { .. } => CUTS_PER_FAULT,
            _ => REQUESTS_PER_FAULT,
        };
        let Some(mut chance) = self.strike(bound) else { return Fate::Arrives };
        let (fate, what) = match chance.below(12) {
            0..2 => (Fate::Lost, "request lost"),
            2..5 => (Fate::AnswerLost, "answer lost"),
            5..7 => (Fate::Repeated, "request repeated"),
            7..9 => (Fate::Late(chance.below(4) * chance.below(700)), "request late"),
            9 => (Fate::Late(chance.below(90_000)), "request very late"),
            _ => {
                let passing = request.passing_errors();
                let wrong = passing.is_empty() || chance.one_in(2);
                let code = *chance.pick(if wrong { &REFUSALS } else { passing });
                if wrong {
                    self.answered(who, code);
                }
                (Fate::Refused(code), "request refused")
            }
        };
        self.note(who, what, || format!("{} ({fate:?})", request.name()));
        fate
    }

    /// A broker answers a process with something that does not pass by itself.
    pub fn answered(&self, who: Who, code: Code) {
        self.answers.borrow_mut().extend(who.process().map(|process| (process, format!("{code:?}"))));
    }

    /// Whether a process may end with this message, since a broker answered it that.
    pub fn is_answered(&self, process: usize, message: &str) -> bool {
        let answers = self.answers.borrow();
        answers.iter().any(|(to, code)| *to == process && message.contains(&format!("says {code}")))
    }

    /// Until when a request is under way, if it takes long.
    pub fn slow(&self, who: Who, request: &Request) -> Option<u64> {
        let fetches = matches!(request, Request::Fetch { .. });
        let mut chance = self.strike(if fetches { FETCHES_PER_SLOW } else { REQUESTS_PER_SLOW })?;
        let ms = chance.below(4) * chance.below(4_000);
        self.note(who, "request slow", || format!("{}: {ms} ms", request.name()));
        Some(self.now_ms() + ms)
    }

    /// Disks are slow from now on: a write takes up to `ms_max`.
    pub fn slow_disks(&self, ms_max: u64, random: Random) {
        *self.disk.borrow_mut() = (ms_max, random);
    }

    /// Until when a disk is busy that is asked now; 0 if it is not slow, or nothing goes wrong any more.
    pub fn disk_busy_until_ms(&self) -> u64 {
        let (ms_max, random) = &mut *self.disk.borrow_mut();
        if *ms_max == 0 || !self.faults.borrow().on { 0 } else { self.now_ms() + random.below(*ms_max) }
    }
}

/// A stack for a job.
pub fn take_stack() -> std::io::Result<DefaultStack> {
    match STACKS.with_borrow_mut(Vec::pop) {
        Some(stack) => Ok(stack),
        None => DefaultStack::new(STACK_BYTES),
    }
}

/// A job has ended.
pub fn give_stack_back(stack: DefaultStack) {
    STACKS.with_borrow_mut(|stacks| stacks.push(stack));
}
