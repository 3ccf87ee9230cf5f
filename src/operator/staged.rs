//! What a task has made since its last checkpoint.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::flat_map::Unfolded;
use super::repartition::{Exchange, Outgoing, OutgoingRow};
use crate::format::key;
use crate::record::{OutputRecord, SourceRecord};

/// A topic that the application writes to.
#[derive(Debug)]
pub struct OutputTarget {
    /// Its name.
    pub topic: Arc<str>,
    /// How many partitions it has.
    pub partitions: i32,
    /// The largest record that it takes, key, value and headers together, in bytes.
    pub record_bytes_max: usize,
}

impl OutputTarget {
    /// Why the topic does not take a record, if it is too large.
    pub fn refuses(&self, record: &OutputRecord) -> Option<String> {
        let bytes = record_bytes(record);
        (bytes > self.record_bytes_max).then(|| {
            let (limit, topic) = (self.record_bytes_max, &self.topic);
            format!("the record of {bytes} bytes is larger than the {limit} bytes that topic {topic} takes")
        })
    }
}

/// Counts since the last checkpoint; published once it is committed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Records read.
    pub records_in: u64,
    /// Records written, per topic.
    pub records_out: BTreeMap<Arc<str>, u64>,
    /// Late records, per operator that calls records late.
    pub late: BTreeMap<Arc<str>, u64>,
    /// Records that were dropped because they repeat others, per operator.
    pub duplicates: BTreeMap<Arc<str>, u64>,
    /// Records that a source or an operator failed on, by its id.
    pub failed: BTreeMap<Arc<str>, u64>,
    /// Dead letters, per topic.
    pub dead_letters: BTreeMap<Arc<str>, u64>,
}

impl Counters {
    /// Adds what was counted elsewhere, or later.
    pub fn add(&mut self, other: &Counters) {
        let add = |these: &mut BTreeMap<Arc<str>, u64>, more: &BTreeMap<Arc<str>, u64>| {
            more.iter().for_each(|(name, count)| *these.entry(name.clone()).or_default() += count);
        };
        self.records_in += other.records_in;
        add(&mut self.records_out, &other.records_out);
        add(&mut self.late, &other.late);
        add(&mut self.duplicates, &other.duplicates);
        add(&mut self.failed, &other.failed);
        add(&mut self.dead_letters, &other.dead_letters);
    }
}

/// Outputs that wait for the checkpoint.
#[derive(Debug)]
pub struct Staged {
    /// The records, in the order in which they were made.
    pub outputs: Vec<OutputRecord>,
    /// What happened meanwhile.
    pub counters: Counters,
    /// What goes to other stages.
    outgoing: Vec<Outgoing>,
    /// What the clock shows.
    clock_ms: i64,
    /// When an operator has something due by the clock.
    due_ms: Option<i64>,
    /// When those that go by the clock are told the time if nothing is due before.
    tick_ms: Option<i64>,
    /// Whether an operator holds something back until the checkpoint.
    holds_back: bool,
    /// How many of the source's records have begun.
    records: u64,
    /// The operators that the source's record at hand has a dead letter of.
    refused: Vec<Arc<str>>,
    /// What flat maps have made of the row at hand.
    unfolded: Unfolded,
    /// The number of the task's partition.
    partition: i32,
    bytes: usize,
    records_max: usize,
    bytes_max: usize,
    rows_per_call: usize,
}

/// How often operators that go by the clock are told the time.
const TICK_MS: i64 = 1_000;
/// How many rows operators make by themselves in one call of a pipeline, at most. What they take is in docs/benchmarks.md, under
/// pauses.
const ROWS_PER_CALL_MAX: usize = 5_000;
/// What a record costs in memory beside its bytes.
const RECORD_OVERHEAD_BYTES: usize = 128;
/// What a row takes in a block beside its bytes, at most.
const ROW_OVERHEAD_BYTES: usize = 10;

impl Staged {
    /// Nothing yet; full at `records_max` records or `bytes_max` bytes, whichever comes first.
    pub fn new(records_max: usize, bytes_max: usize) -> Self {
        Staged {
            outputs: Vec::new(),
            counters: Counters::default(),
            outgoing: Vec::new(),
            clock_ms: 0,
            due_ms: None,
            tick_ms: None,
            holds_back: false,
            records: 0,
            refused: Vec::new(),
            unfolded: Unfolded::default(),
            partition: 0,
            bytes: 0,
            records_max,
            bytes_max,
            rows_per_call: ROWS_PER_CALL_MAX,
        }
    }

    /// With another limit for the rows that operators make by themselves in one call.
    #[cfg(test)]
    pub fn with_rows_per_call(self, rows_per_call: usize) -> Self {
        Staged { rows_per_call, ..self }
    }

    pub(super) fn rows_per_call(&self) -> usize {
        self.rows_per_call
    }

    /// For the task of this partition number.
    pub fn of_partition(self, partition: i32) -> Self {
        Staged { partition, ..self }
    }

    /// With these ways to other stages.
    pub fn with_exchanges(self, exchanges: &[Arc<Exchange>]) -> Self {
        let outgoing = |exchange: &Arc<Exchange>| Outgoing::new(exchange.clone(), self.partition);
        Staged { outgoing: exchanges.iter().map(outgoing).collect(), ..self }
    }

    /// Where records without a key go: to the number of the task's own partition, so that all records of
    /// a task keep their order.
    pub fn unkeyed_partition(&self, partitions: i32) -> i32 {
        self.partition % partitions
    }

    /// Where a record goes that tells of one of the source: by the key of that; without one to the number of its
    /// partition, or if there is no such record to that of the task's.
    pub(super) fn partition_by(&self, source: Option<&SourceRecord<'_>>, partitions: i32) -> i32 {
        let by_key = key::partition(source.and_then(|source| source.key), partitions);
        let of_source = source.map(|source| source.records.topic_partition().partition % partitions);
        by_key.or(of_source).unwrap_or_else(|| self.unkeyed_partition(partitions))
    }

    /// Whether the checkpoint should be taken before more is made. Only what can stop anywhere asks.
    pub fn is_full(&self) -> bool {
        self.outputs.len() >= self.records_max || self.bytes >= self.bytes_max
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Stages a result or a late record.
    pub fn push(&mut self, record: OutputRecord) {
        count(&mut self.counters.records_out, &record.topic);
        self.hold(record);
    }

    /// The rows of another record of the source follow: as the source hands it over, or as they come through a change of
    /// keys.
    pub(super) fn begin_record(&mut self) {
        self.records += 1;
        self.refused.clear();
    }

    /// The number of the source's record at hand: of rows that come one after the other it is the same if, and only if, they
    /// come from the same record, for all that come from one.
    pub(super) fn record(&self) -> u64 {
        self.records
    }

    /// Notes that an operator fails on a row of the record at hand. Returns whether it is the first one.
    pub(super) fn refuse_first(&mut self, operator: &Arc<str>) -> bool {
        let is_first = !self.refused.contains(operator);
        if is_first {
            self.refused.push(operator.clone());
        }
        is_first
    }

    /// What flat maps have made of the row at hand.
    pub(super) fn unfolded(&mut self) -> &mut Unfolded {
        &mut self.unfolded
    }

    /// Stages a dead letter.
    pub fn push_dead_letter(&mut self, record: OutputRecord) {
        count(&mut self.counters.dead_letters, &record.topic);
        self.hold(record);
    }

    /// Stages a row that goes to a partition of the exchange at `place`.
    pub(super) fn send(&mut self, place: usize, partition: i32, row: OutgoingRow<'_>) {
        let outgoing = &mut self.outgoing[place];
        let (bytes, sealed) = outgoing.push(partition, row);
        count(&mut self.counters.records_out, outgoing.topic());
        self.bytes += bytes + ROW_OVERHEAD_BYTES;
        self.outputs.extend(sealed);
    }

    /// What goes through the exchange at `place`.
    pub(super) fn outgoing(&mut self, place: usize) -> &mut Outgoing {
        &mut self.outgoing[place]
    }

    /// What the clock shows, in milliseconds since the Unix epoch.
    pub fn clock_ms(&self) -> i64 {
        self.clock_ms
    }

    /// Learns what the clock shows. Returns whether it is time to tell the operators, who will
    /// [ask](Staged::wake_at) anew for the next time.
    pub fn tell_time(&mut self, clock_ms: i64) -> bool {
        self.clock_ms = clock_ms;
        let is_due = self.due_ms.into_iter().chain(self.tick_ms).any(|due_ms| due_ms <= clock_ms);
        if is_due {
            (self.due_ms, self.tick_ms) = (None, None);
        }
        is_due
    }

    /// An operator has something due by the clock at `due_ms`, if at all. It is told the time then, and now and then
    /// meanwhile.
    pub(super) fn wake_at(&mut self, due_ms: Option<i64>) {
        self.due_ms = self.due_ms.into_iter().chain(due_ms).min();
        // Records may come more often than that; and a clock that was ahead may have been set back.
        let next_ms = self.clock_ms.saturating_add(TICK_MS);
        self.tick_ms = self.tick_ms.filter(|tick_ms| *tick_ms <= next_ms).or(Some(next_ms));
    }

    /// When an operator has something due by the clock, if any has.
    pub fn due_ms(&self) -> Option<i64> {
        self.due_ms
    }

    /// An operator holds something back that is no state: the checkpoint has it [handed on](super::Operator::hand_on).
    pub(super) fn hold_back(&mut self) {
        self.holds_back = true;
    }

    /// Whether an operator does.
    pub fn holds_back(&self) -> bool {
        self.holds_back
    }

    /// All that was held back has been handed on.
    pub fn has_handed_on(&mut self) {
        self.holds_back = false;
    }

    /// Whether anything goes to other stages.
    pub fn has_exchanges(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Tells the next stages whether they are to wait for the task's watermark.
    pub fn set_idle(&mut self, idle: bool) {
        self.outgoing.iter_mut().for_each(|outgoing| outgoing.set_idle(idle));
    }

    /// The next stages were told before that a bounded run of the task is over.
    pub fn has_ended(&mut self) {
        self.outgoing.iter_mut().for_each(Outgoing::has_ended);
    }

    /// Whether something is to be sent to other stages: rows, or a watermark that is not told yet `interval_ms` after
    /// the last one.
    pub fn is_sending_due(&self, now_ms: u64, interval_ms: u64) -> bool {
        self.outgoing.iter().any(|outgoing| outgoing.is_due(now_ms, interval_ms))
    }

    /// Stages what is to be sent to other stages now.
    pub fn send_due(&mut self, now_ms: u64, interval_ms: u64) {
        for outgoing in &mut self.outgoing {
            outgoing.take(now_ms, interval_ms, |block| self.outputs.push(block));
        }
    }

    fn hold(&mut self, record: OutputRecord) {
        self.bytes += record_bytes(&record) + RECORD_OVERHEAD_BYTES;
        self.outputs.push(record);
    }

    /// Takes all that is staged and leaves nothing.
    pub fn take(&mut self) -> (Vec<OutputRecord>, Counters) {
        self.bytes = 0;
        (std::mem::take(&mut self.outputs), std::mem::take(&mut self.counters))
    }
}

/// Adds one.
pub(super) fn count(counts: &mut BTreeMap<Arc<str>, u64>, name: &Arc<str>) {
    add(counts, name, 1);
}

/// Adds so many; a name costs an allocation only the first time.
pub(super) fn add(counts: &mut BTreeMap<Arc<str>, u64>, name: &Arc<str>, more: u64) {
    match counts.get_mut(name) {
        Some(count) => *count += more,
        None => {
            counts.insert(name.clone(), more);
        }
    }
}

/// Key, value and headers of a record, in bytes.
pub(super) fn record_bytes(record: &OutputRecord) -> usize {
    let headers: usize =
        record.headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len)).sum();
    record.key.as_ref().map_or(0, Vec::len) + record.value.as_ref().map_or(0, Vec::len) + headers
}

/// The original headers of a record, and where it came from: what dead letters and late records carry.
pub(super) fn provenance(source: &SourceRecord<'_>) -> Vec<(String, Option<Vec<u8>>)> {
    let mut headers = Vec::new();
    source.records.headers(source.index, &mut |name, value| {
        headers.push((name.to_owned(), value.map(<[u8]>::to_vec)));
    });
    let partition = source.records.topic_partition();
    for (name, value) in [
        ("thalweg.topic", partition.topic.to_string()),
        ("thalweg.partition", partition.partition.to_string()),
        ("thalweg.offset", source.offset.to_string()),
        ("thalweg.timestamp", source.timestamp_ms.to_string()),
    ] {
        headers.push((name.to_owned(), Some(value.into_bytes())));
    }
    headers
}
