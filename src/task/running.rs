//! A running task: takes records, keeps its state, contributes to checkpoints.

mod aligned;
mod checkpoint;
mod idle;
mod upkeep;

use std::collections::VecDeque;
use std::sync::Arc;

use bumpalo::Bump;
use smallvec::SmallVec;

use super::TaskSpec;
use super::restore::Restored;
use super::sweep::{SweepPace, SweepState, operators_in_key_order};
use super::unflushed::Unflushed;
use crate::operator::{Counters, OperatorError, Pipeline, Progress, StageTime, Staged};
use crate::planted::{Bug, is_planted};
use crate::record::{Records, SourceRecord, TopicPartition};
use crate::state::codec::{ChunkWriter, DeltaWriter};
use crate::state::header::Header;
use crate::state::key;
use crate::state::store::{Store, StoreError};
use crate::topology::plan::Start;
use crate::worker::alignment::Standing;
use crate::worker::port::{OutputRecord, TopicId};

/// The bounds that a task keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskLimits {
    /// A checkpoint is due when this many records are staged.
    pub staged_records_max: usize,
    /// A checkpoint is due when this many bytes are staged.
    pub staged_bytes_max: usize,
    /// A changelog record's size, about, before compression.
    pub changelog_part_bytes: usize,
    /// A chunk has at least this many bytes, if there is so much state.
    pub chunk_bytes_min: usize,
    /// Between two sweeps the changes come to at least this percentage of the bytes that the first one wrote
    /// since the task was restored.
    pub rest_percent: usize,
    /// Between two sweeps the changes come to at least this many bytes.
    pub rest_bytes_min: usize,
    /// Committed changes are flushed to the store when they are this many bytes.
    pub flush_bytes: usize,
    /// Committed changes are flushed to the store when the oldest is this old.
    pub flush_interval_ms: u64,
    /// What the task's cache may take; above it, what the store holds as well is evicted.
    pub cache_bytes_max: usize,
    /// How often the next stages are told the watermark where they get no rows.
    pub watermark_interval_ms: u64,
    /// How often a repartition topic is cut behind its reader.
    pub cut_interval_ms: u64,
}

impl TaskLimits {
    /// The bounds of each of `tasks` tasks that share these.
    pub fn shared_among(&self, tasks: usize) -> TaskLimits {
        let tasks = tasks.max(1);
        TaskLimits {
            staged_records_max: (self.staged_records_max / tasks).max(1),
            staged_bytes_max: (self.staged_bytes_max / tasks).max(1),
            flush_bytes: (self.flush_bytes / tasks).max(1),
            cache_bytes_max: self.cache_bytes_max / tasks,
            ..self.clone()
        }
    }
}

/// How many records the operators are handed at once: what they keep of them is fetched from memory together.
const RUN_RECORDS_MAX: usize = 16;
/// And how many bytes of values, unless it is one record: they are decoded together.
const RUN_BYTES_MAX: usize = 64 << 10;
/// What the arena has from the start.
const ARENA_BYTES: usize = 16 << 10;
/// An arena that has grown beyond this is given back.
const ARENA_BYTES_KEPT_MAX: usize = 1 << 20;

/// What a task adds to a checkpoint's transaction.
#[derive(Debug)]
pub struct Contribution {
    /// Its outputs and dead letters.
    pub outputs: Vec<OutputRecord>,
    /// Its changelog records, in order; empty for a task without state. The task keeps them, too, until
    /// they are in its store.
    pub changes: Vec<Arc<Vec<u8>>>,
    /// The partition that it reads.
    pub source: TopicPartition,
    /// The offset of the next record to read.
    pub next_offset: i64,
    /// Whether a bounded run is over for this task with this checkpoint.
    pub finished: bool,
    /// How far it is, for those that it is aligned with.
    pub standing: Option<Standing>,
}

/// The part of a task that only a task with state has.
struct Durable {
    store: Arc<dyn Store>,
    topic_id: TopicId,
    changelog: TopicPartition,
    /// The number of the last committed checkpoint.
    checkpoint: u64,
    sweep: SweepState,
    pace: SweepPace,
    delta: DeltaWriter,
    chunk: ChunkWriter,
    /// Committed and not in the store yet.
    unflushed: Unflushed,
    flushed_offset: i64,
    cut_offset: i64,
    cutting: bool,
    /// The last header names state that has been given up, or not the end of this bounded run: the next one
    /// must not wait for records.
    header_stale: bool,
    /// Key ranges of operators whose state is given up, until the next delta deletes them.
    dropped: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Where a repartition topic is cut behind its reader.
#[derive(Default)]
struct SourceCuts {
    /// The oldest offset, as far as is known.
    offset: i64,
    running: bool,
    last_ms: u64,
}

/// What was prepared and waits for its commit.
struct Pending {
    next_offset: i64,
    standing: Option<Standing>,
    counters: Counters,
    /// Of a task with state.
    changes: Option<Changes>,
}

/// The changelog records of a checkpoint, and what holds once they are committed.
struct Changes {
    records: Vec<Arc<Vec<u8>>>,
    header: Header,
    sweep: SweepState,
    pace: SweepPace,
}

struct Queued {
    records: Box<dyn Records>,
    next: usize,
}

/// The task. What it does for a checkpoint stands in `checkpoint`, what for its store in `upkeep`.
pub struct Task {
    spec: Arc<TaskSpec>,
    limits: Arc<TaskLimits>,
    pipeline: Box<dyn Pipeline>,
    durable: Option<Durable>,
    cuts: SourceCuts,
    drained: idle::Drained,
    idle: bool,
    aligned: aligned::Aligned,
    queue: VecDeque<Queued>,
    queued_records: usize,
    arena: Bump,
    staged: Staged,
    /// The offset of the next record to process.
    next_offset: i64,
    committed_offset: i64,
    end_offset: Option<i64>,
    /// The source has been read up to `end_offset`.
    ended: bool,
    finished: bool,
    committed_finished: bool,
    /// Something due was left over: it comes before the next record.
    resume: bool,
    /// Where to start is not committed yet, and would be another place next time: nothing is processed
    /// before it is.
    anchor_due: bool,
    pending: Option<Pending>,
}

impl Task {
    /// A task that goes on from what was restored.
    pub fn new(
        spec: Arc<TaskSpec>,
        limits: Arc<TaskLimits>,
        mut pipeline: Box<dyn Pipeline>,
        restored: Restored,
    ) -> Result<Task, StoreError> {
        let header = restored.header;
        let position = header.as_ref().and_then(|header| header.sources.first());
        pipeline.restore_time(StageTime {
            max_event_time_ms: position.and_then(|position| position.max_event_time_ms),
            watermark_ms: header.as_ref().and_then(|header| header.watermark_ms),
            upstreams: position.map_or_else(Vec::new, |position| position.upstreams.clone()),
        });
        let finished = header.as_ref().is_some_and(|header| header.finished);
        let mut staged = Staged::new(limits.staged_records_max, limits.staged_bytes_max)
            .of_partition(spec.id.partition)
            .with_exchanges(pipeline.exchanges());
        if finished {
            staged.has_ended();
        }
        let anchor_due =
            restored.unanchored && spec.start == Start::Latest && !is_planted(Bug::StartNotAnchored);
        let durable = match (&spec.changelog, restored.store) {
            (Some(changelog), Some(store)) => {
                let checkpoint = header.as_ref().map_or(0, |header| header.checkpoint);
                restore_operators(&mut *pipeline, &store, header.as_ref(), checkpoint)?;
                let part_bytes = limits.changelog_part_bytes.min(changelog.record_bytes_max / 2);
                Some(Durable {
                    store,
                    topic_id: changelog.topic_id,
                    changelog: changelog.partition.clone(),
                    checkpoint,
                    sweep: SweepState {
                        under_way: header.as_ref().and_then(|header| header.sweep.clone()),
                        restore_point: header.as_ref().map_or(0, |header| header.restore_point),
                    },
                    pace: SweepPace::Sweeping { swept: 0 },
                    delta: DeltaWriter::new(part_bytes),
                    chunk: ChunkWriter::new(part_bytes),
                    unflushed: Unflushed::default(),
                    flushed_offset: restored.synced_offset,
                    cut_offset: restored.log_start,
                    cutting: false,
                    header_stale: (!spec.drop_state.is_empty() && header.is_some())
                        || position.is_some_and(|position| position.end_offset != restored.end_offset),
                    dropped: vanished_operators(&mut *pipeline, header.as_ref()),
                })
            }
            _ => None,
        };
        Ok(Task {
            staged,
            cuts: SourceCuts::default(),
            drained: idle::Drained::default(),
            idle: false,
            aligned: aligned::Aligned::default(),
            spec,
            limits,
            pipeline,
            durable,
            queue: VecDeque::new(),
            queued_records: 0,
            arena: Bump::with_capacity(ARENA_BYTES),
            next_offset: restored.next_offset,
            committed_offset: restored.next_offset,
            end_offset: restored.end_offset,
            ended: restored.end_offset.is_some_and(|end| restored.next_offset >= end),
            finished,
            committed_finished: finished,
            resume: true,
            anchor_due,
            pending: None,
        })
    }

    /// What the task is.
    pub fn spec(&self) -> &Arc<TaskSpec> {
        &self.spec
    }

    /// The offset of the next record to process.
    pub fn next_offset(&self) -> i64 {
        self.next_offset
    }

    /// The watermark, in milliseconds since the Unix epoch; `None` before the first record.
    pub fn watermark_ms(&self) -> Option<i64> {
        self.pipeline.watermark_ms()
    }

    /// Whether the stages behind a change of keys do not wait for the task's watermark; `None` if it sends to none.
    pub fn is_idle(&self) -> Option<bool> {
        self.staged.has_exchanges().then_some(self.idle)
    }

    /// Behind a change of keys: how many of the tasks that write the topic have not told a watermark yet, and are not
    /// idle.
    pub fn upstream_tasks_unheard(&self) -> Option<usize> {
        self.pipeline.upstream_tasks_unheard()
    }

    /// Whether a bounded run is over for this task, and committed as such.
    pub fn is_finished(&self) -> bool {
        self.committed_finished
    }

    /// Marks its offset as finished once more, with its next checkpoint, if it is finished: a tool that has set
    /// the group's offset took the mark away.
    pub fn mark_again(&mut self) {
        self.committed_finished &= !self.finished;
    }

    /// How many records wait to be processed.
    pub fn queued_records(&self) -> usize {
        self.queued_records
    }

    /// Bytes of the batches of which records wait to be processed.
    pub fn queued_bytes(&self) -> usize {
        self.queue.iter().map(|queued| queued.records.bytes()).sum()
    }

    /// Takes records that the log handed over.
    ///
    /// # Errors
    /// When they do not follow what came before: records may be missing (compaction, aborted
    /// transactions, markers), but the log never goes back.
    pub fn enqueue(&mut self, records: Box<dyn Records>) -> Result<(), OperatorError> {
        if let (Some(last), Some(back)) = (self.last_queued_offset(), first_offset(&*records))
            && back <= last
        {
            return Err(OperatorError::Broken(format!(
                "{}: offset {back} came after offset {last}",
                self.spec.source
            )));
        }
        self.queued_records += records.len();
        self.queue.push_back(Queued { records, next: 0 });
        Ok(())
    }

    fn last_queued_offset(&self) -> Option<i64> {
        self.queue.back().map(|queued| {
            let records = &queued.records;
            records.record(records.len() - 1).offset
        })
    }

    /// Learns that the log has no record of the source before `offset` any more.
    pub fn source_read_up_to(&mut self, offset: i64) {
        if self.end_offset.is_some_and(|end| offset >= end) && self.queue.is_empty() {
            self.ended = true;
        }
    }

    /// Learns what the clock shows, in milliseconds since the Unix epoch.
    pub fn tell_time(&mut self, clock_ms: i64) {
        self.resume |= self.staged.tell_time(clock_ms);
    }

    /// When something is due by the clock, whether records come or not.
    pub fn due_ms(&self) -> Option<i64> {
        self.staged.due_ms()
    }

    /// Processes up to `records_max` queued records; stops early when a checkpoint is due. Returns how
    /// many records it took.
    pub fn run(&mut self, records_max: usize) -> Result<usize, OperatorError> {
        let mut taken = 0;
        if self.anchor_due {
            return Ok(0);
        }
        if self.resume && !self.go_on()? {
            return Ok(0);
        }
        while taken < records_max && !self.resume && !self.staged.is_full() {
            if self.queue.is_empty() || self.is_held_back() {
                break;
            }
            let done = self.process_some(records_max - taken)?;
            taken += done;
            self.queued_records -= done;
        }
        if self.end_offset.is_some_and(|end| self.next_offset >= end) || self.pipeline.has_ended() {
            self.ended = true;
        }
        if self.ended && !self.finished && !self.resume {
            empty(&mut self.arena);
            self.finished = self.pipeline.finish(&self.arena, &mut self.staged)? == Progress::Done;
        }
        Ok(taken)
    }

    /// Processes up to `records_max` records of the first queued batch, and takes them off the queue; returns how
    /// many. If the end comes first, the queue is emptied.
    fn process_some(&mut self, records_max: usize) -> Result<usize, OperatorError> {
        let Some(queued) = self.queue.front_mut() else { return Ok(0) };
        let last = queued.records.len().min(queued.next + records_max.min(RUN_RECORDS_MAX));
        let mut bytes = 0;
        let run: SmallVec<[SourceRecord<'_>; RUN_RECORDS_MAX]> = (queued.next..last)
            .map(|index| queued.records.record(index))
            .take_while(|record| {
                let first = bytes == 0;
                bytes += record.value.map_or(0, <[u8]>::len);
                first || bytes <= RUN_BYTES_MAX
            })
            .collect();
        let passed = run.iter().take_while(|record| record.offset < self.next_offset).count();
        let end_offset = self.end_offset.filter(|_| !is_planted(Bug::BoundedRunsOn));
        let within = |record: &&SourceRecord<'_>| end_offset.is_none_or(|end| record.offset < end);
        let due = run[passed..].iter().take_while(within).count();
        if due == 0 && passed < run.len() {
            self.ended = true;
            drop(run);
            self.queue.clear();
            return Ok(self.queued_records);
        }
        let mut done = passed;
        if due > 0 {
            empty(&mut self.arena);
            let due = &run[passed..passed + due];
            let (processed, progress) = self.pipeline.process_run(due, &self.arena, &mut self.staged)?;
            self.resume = progress == Progress::Full;
            self.next_offset = due[processed - 1].offset + 1;
            done += processed;
        }
        drop(run);
        queued.next += done;
        if queued.next == queued.records.len() {
            self.queue.pop_front();
        }
        Ok(done)
    }

    /// Goes on with what was left over; whether that is done.
    fn go_on(&mut self) -> Result<bool, OperatorError> {
        if self.staged.is_full() {
            return Ok(false);
        }
        empty(&mut self.arena);
        self.resume = self.pipeline.resume(&self.arena, &mut self.staged)? == Progress::Full;
        Ok(!self.resume)
    }

    /// Whether there is something to do that needs no further record.
    pub fn is_going_on(&self) -> bool {
        (self.resume && !self.anchor_due) || (self.ended && !self.finished)
    }

    /// Whether a checkpoint would change anything.
    pub fn is_dirty(&mut self, now_ms: u64) -> bool {
        self.next_offset != self.committed_offset
            || self.anchor_due
            || !self.staged.outputs.is_empty()
            || self.staged.holds_back()
            || self.staged.is_sending_due(now_ms, self.limits.watermark_interval_ms)
            || self.dirty_bytes() > 0
            || self.finished != self.committed_finished
            || self.standing() != self.aligned.committed
            || self.durable.as_ref().is_some_and(|durable| durable.header_stale)
            || (self.end_offset.is_some()
                && self.durable.as_ref().is_some_and(|durable| durable.checkpoint == 0))
    }

    /// Whether a checkpoint is due before anything more can be processed.
    pub fn is_full(&self) -> bool {
        self.staged.is_full()
    }

    /// Whether so much state has changed that a checkpoint is due, to keep it bounded.
    pub fn has_much_to_commit(&mut self) -> bool {
        self.dirty_bytes() >= self.limits.staged_bytes_max
    }

    fn dirty_bytes(&mut self) -> usize {
        let mut dirty = 0;
        self.pipeline.visit(&mut |operator| dirty += operator.memory().dirty);
        dirty
    }
}

/// Empties an arena. It would keep its largest chunk for ever.
fn empty(arena: &mut Bump) {
    if arena.allocated_bytes() > ARENA_BYTES_KEPT_MAX {
        *arena = Bump::with_capacity(ARENA_BYTES);
    }
    arena.reset();
}

fn first_offset(records: &dyn Records) -> Option<i64> {
    (!records.is_empty()).then(|| records.record(0).offset)
}

/// The key ranges of the operators that have state and are not in the topology any more. The restore
/// lets a task pass only if their state is given up.
fn vanished_operators(pipeline: &mut dyn Pipeline, header: Option<&Header>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let present = operators_in_key_order(pipeline);
    let saved = header.into_iter().flat_map(|header| &header.operators);
    saved.filter(|saved| !present.contains(&saved.id)).map(|saved| operator_range(&saved.id)).collect()
}

fn operator_range(id: &str) -> (Vec<u8>, Vec<u8>) {
    let prefix = key::window_prefix(id);
    let end = key::next_prefix(&prefix);
    (prefix, end)
}

fn restore_operators(
    pipeline: &mut dyn Pipeline,
    store: &Arc<dyn Store>,
    header: Option<&Header>,
    checkpoint: u64,
) -> Result<(), StoreError> {
    let mut result = Ok(());
    pipeline.visit(&mut |operator| {
        // Another fingerprint: the restore let it pass because its state is given up. It starts empty.
        let saved = header.and_then(|header| {
            let mut saved = header.operators.iter();
            saved.find(|saved| saved.id == operator.id() && saved.fingerprint == operator.fingerprint())
        });
        if result.is_ok() {
            result = operator.restore(store.clone(), saved, checkpoint);
        }
    });
    result
}
