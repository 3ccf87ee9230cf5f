//! The head of a stage behind a change of keys.

use std::marker::PhantomData;
use std::sync::Arc;

use bumpalo::Bump;

use super::upstream::Upstreams;
use super::{Exchange, Transfer};
use crate::format::block::{Block, Origin};
use crate::operator::{Context, OperatorError, Pipeline, Progress, Readers, StageTime, Staged};
use crate::planted::{Bug, is_planted};
use crate::record::{Event, RecordType, Records, SourceRecord};
use crate::state::Stateful;
use crate::time::MIN_TIME_MS;

/// How many rows the operators are handed at once, as a source's records are.
const RUN_ROWS_MAX: usize = 16;

/// The pipeline of a repartition topic that holds records of `R`, as `T` makes them.
pub struct RepartitionSource<R: RecordType, T> {
    transfer: T,
    upstreams: Upstreams,
    exchanges: Vec<Arc<Exchange>>,
    readers: Readers<R>,
    needs_records: bool,
    record: PhantomData<R>,
}

impl<R: RecordType, T: Transfer<R>> RepartitionSource<R, T> {
    /// Of the topic that the tasks of these streams write, so many each. `exchanges` are those of the readers.
    pub fn new(
        transfer: T,
        streams: &[(Arc<str>, i32)],
        readers: Readers<R>,
        exchanges: Vec<Arc<Exchange>>,
    ) -> Self {
        let upstreams = Upstreams::new(streams);
        RepartitionSource {
            transfer,
            upstreams,
            exchanges,
            readers,
            needs_records: false,
            record: PhantomData,
        }
    }

    /// Refuses rows that come without their record of the source, if the readers cannot do without.
    pub fn needing_records(self, needs_records: bool) -> Self {
        RepartitionSource { needs_records, ..self }
    }

    /// Takes the rows of a block, then hears what its sender says behind them. Returns whether the watermark rose.
    fn take_block(
        &mut self,
        source: &SourceRecord<'_>,
        arena: &Bump,
        staged: &mut Staged,
    ) -> Result<bool, OperatorError> {
        let damaged = |why: &str| {
            let partition = source.records.topic_partition();
            OperatorError::Fail(format!("{partition} at offset {}: {why}", source.offset))
        };
        let value = source.value.ok_or_else(|| damaged("the record has no value"))?;
        let mut block = Block::read(value).map_err(|error| damaged(&error.message))?;
        let outdated = |why: &str| {
            damaged(&format!(
                "{why}. They were sent by an earlier version of the topology: run that one until they are \
                 read, or start anew with `thalweg reset`"
            ))
        };
        if block.header.rows > 0 {
            self.transfer.expect(&block.header.layout).map_err(|why| outdated(&why))?;
        }
        let partitions = block.partitions();
        let mut origin: Option<SourceRecord<'_>> = None;
        let mut begun: Option<SourceRecord<'_>> = None;
        let mut events = bumpalo::collections::Vec::with_capacity_in(RUN_ROWS_MAX, arena);
        loop {
            while events.len() < RUN_ROWS_MAX
                && let Some(row) = block.next_row(&partitions).map_err(|error| damaged(&error.message))?
            {
                origin = match row.origin {
                    Origin::None => None,
                    Origin::SameRecord => origin,
                    Origin::Record(record) => Some(arena.alloc(record).record(0)),
                };
                if self.needs_records && origin.is_none() {
                    return Err(outdated(
                        "the rows come without their records of the source, which `meta` is asked for",
                    ));
                }
                let time_ms = row.time_ms;
                let record = self.transfer.get(time_ms, row.bytes, arena).map_err(|why| damaged(&why))?;
                events.push(Event { record, time_ms, source: origin });
            }
            if events.is_empty() {
                break;
            }
            staged.counters.records_in += events.len() as u64;
            self.readers.prefetch(&events);
            for event in events.drain(..) {
                if !is_same_record(event.source.as_ref(), begun.as_ref()) {
                    staged.begin_record();
                    begun = event.source;
                }
                self.readers.process(event, &mut Context::new(arena, staged))?;
            }
        }
        let before = self.upstreams.watermark_ms();
        self.upstreams.hear(&block.header).map_err(|why| damaged(&why))?;
        Ok(self.upstreams.watermark_ms() > before)
    }
}

/// Whether rows of a block come from one record: they stand next to each other and share it. Where the block ends
/// depends on when checkpoints were.
fn is_same_record(one: Option<&SourceRecord<'_>>, other: Option<&SourceRecord<'_>>) -> bool {
    one.zip(other).is_some_and(|(one, other)| std::ptr::addr_eq(one.records, other.records))
}

impl<R: RecordType, T: Transfer<R>> Pipeline for RepartitionSource<R, T> {
    fn process_run(
        &mut self,
        sources: &[SourceRecord<'_>],
        arena: &Bump,
        staged: &mut Staged,
    ) -> Result<(usize, Progress), OperatorError> {
        for (place, source) in sources.iter().enumerate() {
            if place > 0 && staged.is_full() {
                return Ok((place, Progress::Done));
            }
            if self.take_block(source, arena, staged)? && self.resume(arena, staged)? == Progress::Full {
                return Ok((place + 1, Progress::Full));
            }
        }
        Ok((sources.len(), Progress::Done))
    }

    fn resume(&mut self, arena: &Bump, staged: &mut Staged) -> Result<Progress, OperatorError> {
        // Without a watermark there may be something due all the same, by the clock.
        let watermark_ms = self.upstreams.watermark_ms().unwrap_or(MIN_TIME_MS);
        self.readers.advance(watermark_ms, &mut Context::new(arena, staged))
    }

    fn finish(&mut self, arena: &Bump, staged: &mut Staged) -> Result<Progress, OperatorError> {
        self.readers.finish(&mut Context::new(arena, staged))
    }

    fn hand_on(&mut self, arena: &Bump, staged: &mut Staged) -> Result<(), OperatorError> {
        self.readers.hand_on(&mut Context::new(arena, staged))
    }

    fn time(&self) -> StageTime {
        StageTime {
            max_event_time_ms: None,
            watermark_ms: self.upstreams.watermark_ms(),
            upstreams: self.upstreams.saved(),
        }
    }

    fn watermark_ms(&self) -> Option<i64> {
        self.upstreams.watermark_ms()
    }

    fn restore_time(&mut self, time: StageTime) {
        if !is_planted(Bug::UpstreamsNotRestored) {
            self.upstreams.restore(&time.upstreams, time.watermark_ms);
        }
    }

    fn is_idle(&self) -> bool {
        self.upstreams.is_idle()
    }

    fn has_ended(&self) -> bool {
        self.upstreams.has_ended()
    }

    fn upstream_tasks_unheard(&self) -> Option<usize> {
        Some(self.upstreams.unheard())
    }

    fn exchanges(&self) -> &[Arc<Exchange>] {
        &self.exchanges
    }

    fn visit(&mut self, visit: &mut dyn FnMut(&mut dyn Stateful)) {
        self.readers.visit(visit);
    }
}
