//! The head of a stage: decodes a source's records, dates them and hands them to the operators.

use std::sync::Arc;

use bumpalo::Bump;

use super::{Context, ErrorPolicy, Exchange, OperatorError, Progress, Readers, Staged};
use crate::expression::{Environment, Expression};
use crate::format::json::Decoder;
use crate::planted::{Bug, is_planted};
use crate::record::{Dynamic, Event, RecordType, Row, Slot, SourceRecord, SourceSchema};
use crate::state::Stateful;
use crate::state::header::UpstreamPosition;
use crate::time::MIN_TIME_MS;
use crate::topology::plan::EventTime;

/// A decoded record.
pub struct Decoded<'b, R: RecordType> {
    /// The record.
    pub record: R::Of<'b>,
    /// Its event time in milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// Whether the watermark advances with it, of a source whose watermarks are [punctuated](Timing::punctuated).
    pub is_punctuation: bool,
}

/// Makes records of bytes. May be asked for a record more than once: it is decoded again if the task stopped before
/// it was processed.
pub trait Decode<R: RecordType> {
    /// The record and its event time, or what is wrong with the bytes.
    fn decode<'b>(&mut self, source: &SourceRecord<'b>, arena: &'b Bump) -> Result<Decoded<'b, R>, String>;
}

/// How a source is dated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How far behind the newest event time the watermark stays; of punctuated ones, behind that of the record.
    pub max_out_of_orderness_ms: i64,
    /// The watermark advances only with records that [say so](Decoded::is_punctuation).
    pub punctuated: bool,
    /// An event time further after the record's Kafka timestamp than this is an error.
    pub max_ahead_ms: i64,
}

/// How far a stage has come in event time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StageTime {
    /// The greatest event time so far, in milliseconds since the Unix epoch; `None` before the first record, and
    /// behind a change of keys.
    pub max_event_time_ms: Option<i64>,
    /// The watermark; `None` before the first.
    pub watermark_ms: Option<i64>,
    /// Behind a change of keys: how far the tasks have come that the records come from.
    pub upstreams: Vec<UpstreamPosition>,
}

/// A stage's operators for one task, whatever its records are.
///
/// Called by the task. After [`Progress::Full`] nothing but [`resume`](Pipeline::resume) may be called
/// until that returns [`Progress::Done`].
pub trait Pipeline {
    /// Takes records of the source in their order, and lets the watermark advance after each. Stops behind one
    /// that leaves something over ([`Progress::Full`]), or with which the checkpoint is full. Returns how many it
    /// took, at least one of those that there are.
    fn process_run(
        &mut self,
        sources: &[SourceRecord<'_>],
        arena: &Bump,
        staged: &mut Staged,
    ) -> Result<(usize, Progress), OperatorError>;
    /// Takes one record of the source.
    fn process(
        &mut self,
        source: SourceRecord<'_>,
        arena: &Bump,
        staged: &mut Staged,
    ) -> Result<Progress, OperatorError> {
        self.process_run(&[source], arena, staged).map(|(_, progress)| progress)
    }
    /// Goes on with what the watermark made due.
    fn resume(&mut self, arena: &Bump, staged: &mut Staged) -> Result<Progress, OperatorError>;
    /// Ends the stream: everything still open is due.
    fn finish(&mut self, arena: &Bump, staged: &mut Staged) -> Result<Progress, OperatorError>;
    /// A checkpoint follows: what operators hold back, and is no state, is staged.
    fn hand_on(&mut self, arena: &Bump, staged: &mut Staged) -> Result<(), OperatorError>;
    /// How far it has come, as it is kept with the state.
    fn time(&self) -> StageTime;
    /// The watermark; `None` before the first record, and behind a change of keys until all that are waited for have
    /// told theirs.
    fn watermark_ms(&self) -> Option<i64>;
    /// Goes on from there.
    fn restore_time(&mut self, time: StageTime);
    /// Whether nothing is expected for now, as those say that the records come from.
    fn is_idle(&self) -> bool {
        false
    }
    /// Whether all of a bounded run has come, as those say that the records come from.
    fn has_ended(&self) -> bool {
        false
    }
    /// Behind a change of keys: how many of the tasks that are waited for have not told a watermark yet.
    fn upstream_tasks_unheard(&self) -> Option<usize> {
        None
    }
    /// The ways on which its operators send records to other stages.
    fn exchanges(&self) -> &[Arc<Exchange>];
    /// Shows the state of every operator to `visit`.
    fn visit(&mut self, visit: &mut dyn FnMut(&mut dyn Stateful));
}

/// Event times outside of the years 0 to 9999 are errors: they come from broken clocks, and one of them
/// would move the watermark for good.
const TIME_MS: std::ops::RangeInclusive<i64> = -62_167_219_200_000..=253_402_300_799_999;

/// The pipeline of a source of `R`, decoded by `D`.
pub struct Source<R: RecordType, D> {
    decoder: D,
    timing: Timing,
    errors: ErrorPolicy,
    readers: Readers<R>,
    exchanges: Vec<Arc<Exchange>>,
    max_event_time_ms: Option<i64>,
    watermark_ms: Option<i64>,
}

impl<R: RecordType, D: Decode<R>> Source<R, D> {
    /// A source that has read nothing yet.
    pub fn new(decoder: D, timing: Timing, errors: ErrorPolicy, readers: Readers<R>) -> Self {
        let (max_event_time_ms, watermark_ms) = (None, None);
        Source { decoder, timing, errors, readers, exchanges: Vec::new(), max_event_time_ms, watermark_ms }
    }

    /// With the ways on which its readers send records to other stages, in the order of their places.
    pub fn with_exchanges(self, exchanges: Vec<Arc<Exchange>>) -> Self {
        Source { exchanges, ..self }
    }

    fn decode<'b>(&mut self, source: &SourceRecord<'b>, arena: &'b Bump) -> Result<Decoded<'b, R>, String> {
        let decoded = self.decoder.decode(source, arena)?;
        let time_ms = decoded.time_ms;
        if !TIME_MS.contains(&time_ms) {
            return Err(format!("the event time {time_ms} ms lies outside of the years 0 to 9999"));
        }
        // A Kafka timestamp may be any number, so the difference may not fit.
        if source.timestamp_ms >= 0 && time_ms.saturating_sub(source.timestamp_ms) > self.timing.max_ahead_ms
        {
            return Err(format!(
                "the event time {time_ms} ms lies {} ms after the record's Kafka timestamp, which is more than \
                 max_ahead allows ({} ms)",
                time_ms - source.timestamp_ms,
                self.timing.max_ahead_ms
            ));
        }
        Ok(decoded)
    }

    /// Notes an event time; returns whether the watermark rose.
    fn observe(&mut self, time_ms: i64, is_punctuation: bool) -> bool {
        let is_newest = self.max_event_time_ms.is_none_or(|max| time_ms > max);
        if is_newest {
            self.max_event_time_ms = Some(time_ms);
        }
        if !(if self.timing.punctuated { is_punctuation } else { is_newest }) {
            return false;
        }
        let watermark_ms = time_ms.saturating_sub(self.timing.max_out_of_orderness_ms);
        let rose = self.watermark_ms.is_none_or(|watermark| watermark_ms > watermark);
        if rose {
            self.watermark_ms = Some(watermark_ms);
        }
        rose
    }
}

impl<R: RecordType, D: Decode<R>> Pipeline for Source<R, D> {
    fn process_run(
        &mut self,
        sources: &[SourceRecord<'_>],
        arena: &Bump,
        staged: &mut Staged,
    ) -> Result<(usize, Progress), OperatorError> {
        let mut events = bumpalo::collections::Vec::with_capacity_in(sources.len(), arena);
        let mut malformed = Vec::new();
        let mut punctuations = bumpalo::collections::Vec::with_capacity_in(sources.len(), arena);
        for (place, source) in sources.iter().enumerate() {
            match self.decode(source, arena) {
                Ok(Decoded { record, time_ms, is_punctuation }) => {
                    events.push(Event { record, time_ms, source: Some(*source) });
                    punctuations.push(is_punctuation);
                }
                Err(message) => malformed.push((place, message)),
            }
        }
        self.readers.prefetch(&events);
        let (mut events, mut malformed) =
            (events.into_iter().zip(punctuations), malformed.into_iter().peekable());
        for (place, source) in sources.iter().enumerate() {
            if place > 0 && staged.is_full() {
                return Ok((place, Progress::Done));
            }
            staged.counters.records_in += 1;
            staged.begin_record();
            if let Some((_, message)) = malformed.next_if(|(malformed, _)| *malformed == place) {
                self.errors.handle(&message, Some(source), Vec::new, staged)?;
                continue;
            }
            let Some((event, is_punctuation)) = events.next() else {
                return Err(OperatorError::Broken("a record was decoded to nothing".to_owned()));
            };
            let time_ms = event.time_ms;
            self.readers.process(event, &mut Context::new(arena, staged))?;
            let within_batch = is_planted(Bug::LateByBatch) && source.index + 1 < source.records.len();
            if self.observe(time_ms, is_punctuation)
                && !within_batch
                && self.resume(arena, staged)? == Progress::Full
            {
                return Ok((place + 1, Progress::Full));
            }
        }
        Ok((sources.len(), Progress::Done))
    }

    fn resume(&mut self, arena: &Bump, staged: &mut Staged) -> Result<Progress, OperatorError> {
        // Without a watermark there may be something due all the same, by the clock.
        let watermark_ms = self.watermark_ms.unwrap_or(MIN_TIME_MS);
        self.readers.advance(watermark_ms, &mut Context::new(arena, staged))
    }

    fn finish(&mut self, arena: &Bump, staged: &mut Staged) -> Result<Progress, OperatorError> {
        if is_planted(Bug::EndStoredAsWatermark) {
            self.watermark_ms = Some(i64::MAX);
        }
        self.readers.finish(&mut Context::new(arena, staged))
    }

    fn hand_on(&mut self, arena: &Bump, staged: &mut Staged) -> Result<(), OperatorError> {
        self.readers.hand_on(&mut Context::new(arena, staged))
    }

    fn time(&self) -> StageTime {
        let Source { max_event_time_ms, watermark_ms, .. } = *self;
        StageTime { max_event_time_ms, watermark_ms, upstreams: Vec::new() }
    }

    fn watermark_ms(&self) -> Option<i64> {
        self.watermark_ms
    }

    fn restore_time(&mut self, time: StageTime) {
        if is_planted(Bug::WatermarkNotRestored) {
            return;
        }
        let latest = time.max_event_time_ms;
        let computed = latest
            .filter(|_| !self.timing.punctuated)
            .map(|max| max.saturating_sub(self.timing.max_out_of_orderness_ms));
        self.max_event_time_ms = latest;
        self.watermark_ms = computed.max(time.watermark_ms);
    }

    fn exchanges(&self) -> &[Arc<Exchange>] {
        &self.exchanges
    }

    fn visit(&mut self, visit: &mut dyn FnMut(&mut dyn Stateful)) {
        self.readers.visit(visit);
    }
}

/// Decodes JSON to rows.
pub struct JsonRows {
    decoder: Decoder,
    fields: usize,
    time: EventTime,
    punctuated: Option<Arc<Expression>>,
}

impl JsonRows {
    /// Rows of `schema`, dated in this way. If they are punctuated, those for which the condition is true advance the
    /// watermark.
    pub fn new(schema: &SourceSchema, time: EventTime, punctuated: Option<Arc<Expression>>) -> Self {
        JsonRows { decoder: Decoder::new(schema), fields: schema.fields.len(), time, punctuated }
    }

    fn time_ms(&self, environment: &Environment<'_, '_>) -> Result<i64, String> {
        let slot = match &self.time {
            EventTime::Record => {
                let timestamp_ms = environment.source.map_or(-1, |source| source.timestamp_ms);
                let known = (timestamp_ms >= 0).then_some(timestamp_ms);
                return known.ok_or_else(|| {
                    "the record has no Kafka timestamp to take its event time from".to_owned()
                });
            }
            EventTime::Field(slot) => environment.row[*slot],
            EventTime::Expression(expression) => {
                expression.eval(environment).map_err(|error| format!("the event time: {error}"))?
            }
        };
        match slot {
            Slot::Timestamp(time_ms) => Ok(time_ms),
            _ => Err("the event time is null".to_owned()),
        }
    }
}

impl Decode<Dynamic> for JsonRows {
    fn decode<'b>(
        &mut self,
        source: &SourceRecord<'b>,
        arena: &'b Bump,
    ) -> Result<Decoded<'b, Dynamic>, String> {
        let value = source.value.ok_or("the value is null (a tombstone), a JSON object is expected")?;
        let slots = arena.alloc_slice_fill_copy(self.fields, Slot::Null);
        self.decoder.decode(value, arena, slots).map_err(|error| error.to_string())?;
        let record: Row<'b> = slots;
        let environment = Environment::new(record, Some(*source), arena);
        let time_ms = self.time_ms(&environment)?;
        let is_punctuation = match &self.punctuated {
            Some(condition) => {
                condition.test(&environment).map_err(|error| format!("punctuated: {error}"))?
            }
            None => false,
        };
        Ok(Decoded { record, time_ms, is_punctuation })
    }
}

/// What makes a task's pipeline; shared by the workers, so that each task gets its own.
pub type PipelineFactory = Arc<dyn Fn() -> Box<dyn Pipeline> + Send + Sync>;
