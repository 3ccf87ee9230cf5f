//! Keyed tumbling windows over event time.

use std::ops::ControlFlow;
use std::sync::Arc;

use bumpalo::Bump;

use super::staged::{count, provenance};
use super::{Context, ErrorPolicy, Operator, OperatorError, OutputTarget, Progress, Readers};
use crate::expression::EvaluationError;
use crate::format::json::Encoder;
use crate::format::key::{decode_state_key, encode_state_key, partition};
use crate::operator::aggregate::{Accumulators, RowAggregates};
use crate::planted::{Bug, is_planted};
use crate::record::{Dynamic, Event, OutputRecord, RecordType, Row, Slot};
use crate::state::codec::DeltaWriter;
use crate::state::header::OperatorState;
use crate::state::key::STATE_KEY_BYTES_MAX;
use crate::state::store::{Store, StoreError};
use crate::state::{EntryRef, MemoryUse, PutEntry, Stateful, ValueCodec, WindowTable};
use crate::time::MIN_TIME_MS;
use crate::window::{Tumbling, WindowRange};

/// Takes a record's key, as bytes.
pub trait KeySelector<R: RecordType> {
    /// Appends the key to `key`; two records belong together if and only if their bytes are equal.
    fn select(&self, record: &R::Of<'_>, key: &mut Vec<u8>) -> Result<(), EvaluationError>;
    /// The record as text, for dead letters and late records.
    fn render(&self, record: &R::Of<'_>) -> Vec<u8>;
}

/// An aggregate that is updated record by record; its value is kept per key and window.
pub trait Aggregator<R: RecordType>: ValueCodec {
    /// What one record adds.
    type Input<'b>;
    /// What `event` adds, or why it adds nothing.
    fn input<'b>(&self, event: &Event<'b, R>, arena: &'b Bump) -> Result<Self::Input<'b>, EvaluationError>;
    /// The value over no records.
    fn create(&self) -> Self::Value;
    /// Adds to the value. On an error the value is as before.
    fn add(&self, value: &mut Self::Value, input: Self::Input<'_>) -> Result<(), EvaluationError>;
}

/// Makes a record of a window's value.
pub trait WindowResult<V, O: RecordType> {
    /// The record. `last` tells that the window is closed and no further record follows.
    fn make<'b>(
        &self,
        key: &[u8],
        window: WindowRange,
        value: &V,
        last: bool,
        arena: &'b Bump,
    ) -> Result<O::Of<'b>, EvaluationError>;
    /// A made record as text, for messages about it.
    fn describe(&self, key: &[u8], window: WindowRange) -> Vec<u8>;
}

/// When a window makes records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmitRows {
    /// Once, when it closes.
    OnClose,
    /// After every record, and when it closes.
    OnUpdate,
}

/// What becomes of late records, which are counted in any case.
#[derive(Clone, Debug)]
pub enum LateRecords {
    /// Left out.
    Drop,
    /// Written here.
    Write(Arc<OutputTarget>),
}

/// What a window operator is told beside its functions.
#[derive(Clone, Debug)]
pub struct WindowSpec {
    /// The operator's id.
    pub id: Arc<str>,
    /// What its state depends on.
    pub fingerprint: String,
    /// How records are assigned to windows.
    pub assigner: Tumbling,
    /// How long after its end a window still takes records.
    pub allowed_lateness_ms: i64,
    /// When it makes records.
    pub emit: EmitRows,
    /// What becomes of late records.
    pub late: LateRecords,
}

/// The operator. `K` selects keys, `A` aggregates, `F` makes the results.
pub struct WindowOperator<R: RecordType, O: RecordType, K, A: ValueCodec, F> {
    spec: WindowSpec,
    keys: K,
    results: F,
    errors: ErrorPolicy,
    readers: Readers<O>,
    table: WindowTable<A>,
    /// Up to here windows have fired and records are late.
    watermark_ms: i64,
    /// The key at which the closing of the first window goes on; empty if it has not begun.
    closing_from: Vec<u8>,
    key: Vec<u8>,
    input: std::marker::PhantomData<R>,
}

impl<R, O, K, A, F> WindowOperator<R, O, K, A, F>
where
    R: RecordType,
    O: RecordType,
    K: KeySelector<R>,
    A: Aggregator<R>,
    F: WindowResult<A::Value, O>,
{
    /// An operator without state, to be restored before use.
    pub fn new(
        spec: WindowSpec,
        keys: K,
        aggregator: A,
        results: F,
        errors: ErrorPolicy,
        readers: Readers<O>,
    ) -> Self {
        WindowOperator {
            table: WindowTable::new(&spec.id, aggregator),
            spec,
            keys,
            results,
            errors,
            readers,
            watermark_ms: MIN_TIME_MS,
            closing_from: Vec::new(),
            key: Vec::new(),
            input: std::marker::PhantomData,
        }
    }

    fn closes_at_ms(&self, end_ms: i64) -> i64 {
        end_ms.saturating_add(self.spec.allowed_lateness_ms)
    }

    fn late(&self, event: &Event<'_, R>, context: &mut Context<'_, '_>) -> Result<(), OperatorError> {
        count(&mut context.staged.counters.late, &self.spec.id);
        let LateRecords::Write(target) = &self.spec.late else { return Ok(()) };
        let key = event.source.and_then(|source| source.key).map(<[u8]>::to_vec);
        let record = OutputRecord {
            topic: target.topic.clone(),
            partition: partition(key.as_deref(), target.partitions)
                .unwrap_or_else(|| context.staged.unkeyed_partition(target.partitions)),
            key,
            value: Some(self.keys.render(&event.record)),
            headers: event.source.as_ref().map(provenance).unwrap_or_default(),
            timestamp_ms: event.time_ms,
        };
        if let Some(message) = target.refuses(&record) {
            let value = record.value.unwrap_or_default();
            return self.errors.handle(&message, event.source.as_ref(), || value, context.staged);
        }
        context.staged.push(record);
        Ok(())
    }

    /// Adds a record to its window; the error says why it cannot be.
    fn add<'b>(
        &mut self,
        event: &Event<'b, R>,
        window: WindowRange,
        context: &Context<'_, 'b>,
    ) -> Result<Result<EntryRef, EvaluationError>, OperatorError> {
        self.key.clear();
        let selected = self.keys.select(&event.record, &mut self.key).and_then(|()| fits(&self.key));
        let input = match selected.and_then(|()| self.table.codec().input(event, context.arena)) {
            Ok(input) => input,
            Err(error) => return Ok(Err(error)),
        };
        let entry = self.table.entry(window.end_ms, &self.key, A::create)?;
        let (aggregator, value) = self.table.value_mut(entry);
        let heap_before = aggregator.heap_bytes(value);
        if let Err(error) = aggregator.add(value, input) {
            self.table.take_back(entry);
            return Ok(Err(error));
        }
        self.table.heap_changed(entry, heap_before);
        Ok(Ok(entry))
    }

    /// Closes the first window, from where it was left.
    fn close_first<'b>(
        &mut self,
        end_ms: i64,
        context: &mut Context<'_, 'b>,
    ) -> Result<Progress, OperatorError> {
        let window = self.spec.assigner.ending_at(end_ms);
        let (results, errors, readers) = (&self.results, &self.errors, &mut self.readers);
        let from = std::mem::take(&mut self.closing_from);
        let mut next = Vec::new();
        let flow = self.table.visit_first::<OperatorError>(&from, &mut |_, key, value| {
            emit(results, errors, readers, (key, window, value, true), context)?;
            if context.made_row() {
                // The least key behind this one; never empty, as a key may be.
                next = [key, &[0]].concat();
                return Ok(ControlFlow::Break(()));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        if flow.is_break() {
            self.closing_from = next;
            return Ok(Progress::Full);
        }
        self.table.remove_first();
        Ok(Progress::Done)
    }
}

impl<R, O, K, A, F> Operator<R> for WindowOperator<R, O, K, A, F>
where
    R: RecordType,
    O: RecordType,
    K: KeySelector<R> + 'static,
    A: Aggregator<R> + 'static,
    F: WindowResult<A::Value, O> + 'static,
{
    fn process<'b>(
        &mut self,
        event: Event<'b, R>,
        context: &mut Context<'_, 'b>,
    ) -> Result<(), OperatorError> {
        let window = self.spec.assigner.assign(event.time_ms);
        if self.watermark_ms >= self.closes_at_ms(window.end_ms) {
            return self.late(&event, context);
        }
        match self.add(&event, window, context)? {
            Ok(_) if self.spec.emit == EmitRows::OnClose => Ok(()),
            Ok(entry) => {
                let row = (&self.key[..], window, self.table.value(entry), false);
                emit(&self.results, &self.errors, &mut self.readers, row, context)
            }
            Err(error) => self.errors.handle(
                &error.message,
                event.source.as_ref(),
                || self.keys.render(&event.record),
                context.staged,
            ),
        }
    }

    fn prefetch(&mut self, events: &[Event<'_, R>]) {
        for event in events {
            self.key.clear();
            if self.keys.select(&event.record, &mut self.key).is_ok() {
                self.table.prefetch_later(self.spec.assigner.assign(event.time_ms).end_ms, &self.key);
            }
        }
        self.table.prefetch();
    }

    fn advance<'b>(
        &mut self,
        watermark_ms: i64,
        context: &mut Context<'_, 'b>,
    ) -> Result<Progress, OperatorError> {
        self.watermark_ms = self.watermark_ms.max(watermark_ms);
        while let Some(end_ms) = self.table.first_end_ms()
            && self.watermark_ms >= self.closes_at_ms(end_ms)
        {
            if self.close_first(end_ms, context)? == Progress::Full {
                return Ok(Progress::Full);
            }
        }
        // Rows of windows that are still open lie at or after this instant: behind this operator,
        // time stands as far back as the lateness that it allows.
        let behind_ms = self.watermark_ms.saturating_sub(self.spec.allowed_lateness_ms);
        self.readers.advance(behind_ms, context)
    }

    fn finish<'b>(&mut self, context: &mut Context<'_, 'b>) -> Result<Progress, OperatorError> {
        while let Some(end_ms) = self.table.first_end_ms() {
            if self.close_first(end_ms, context)? == Progress::Full {
                return Ok(Progress::Full);
            }
        }
        self.readers.finish(context)
    }

    fn visit(&mut self, visit: &mut dyn FnMut(&mut dyn Stateful)) {
        visit(self);
        self.readers.visit(visit);
    }
}

impl<R: RecordType, O: RecordType, K, A: ValueCodec, F> Stateful for WindowOperator<R, O, K, A, F> {
    fn id(&self) -> &str {
        &self.spec.id
    }

    fn fingerprint(&self) -> &str {
        &self.spec.fingerprint
    }

    fn key_range(&self) -> (Vec<u8>, Vec<u8>) {
        self.table.key_range()
    }

    fn saved(&self) -> OperatorState {
        OperatorState {
            id: self.spec.id.to_string(),
            fingerprint: self.spec.fingerprint.clone(),
            closing_cursor: self.closing_from.clone(),
            fired_watermark_ms: (self.watermark_ms > MIN_TIME_MS).then_some(self.watermark_ms),
        }
    }

    fn restore(
        &mut self,
        store: Arc<dyn Store>,
        saved: Option<&OperatorState>,
        checkpoint: u64,
    ) -> Result<(), StoreError> {
        self.table.restore(store, checkpoint)?;
        if saved.is_none() {
            // What the store holds under this id is another operator's; the next delta deletes it.
            while self.table.first_end_ms().is_some() {
                self.table.remove_first();
            }
        }
        self.watermark_ms = saved.and_then(|saved| saved.fired_watermark_ms).unwrap_or(MIN_TIME_MS);
        let saved = saved.filter(|_| !is_planted(Bug::CursorNotRestored));
        self.closing_from = saved.map(|saved| saved.closing_cursor.clone()).unwrap_or_default();
        Ok(())
    }

    fn collect_ranges(&mut self, delta: &mut DeltaWriter) {
        self.table.collect_ranges(delta);
    }

    fn collect_points(&mut self, checkpoint: u64, delta: &mut DeltaWriter) {
        self.table.collect_points(checkpoint, delta);
    }

    fn chunk(
        &mut self,
        from: &[u8],
        bytes_max: usize,
        put: &mut PutEntry<'_>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.table.chunk(from, bytes_max, put)
    }

    fn flushed(&mut self, checkpoint: u64) {
        self.table.flushed(checkpoint);
    }

    fn memory(&self) -> MemoryUse {
        self.table.memory()
    }

    fn evict(&mut self, bytes: usize) {
        self.table.evict(bytes);
    }
}

/// A key that is too long would make an entry that fits no changelog record.
fn fits(key: &[u8]) -> Result<(), EvaluationError> {
    if key.len() > STATE_KEY_BYTES_MAX {
        return Err(EvaluationError {
            message: format!("the key takes {} bytes, more than {STATE_KEY_BYTES_MAX}", key.len()),
        });
    }
    Ok(())
}

/// Makes a record of a key's value in a window and hands it on. One that cannot be made is an error of
/// that record, not of the one that changed the value: that counts.
fn emit<V, O: RecordType>(
    results: &impl WindowResult<V, O>,
    errors: &ErrorPolicy,
    readers: &mut Readers<O>,
    (key, window, value, last): (&[u8], WindowRange, &V, bool),
    context: &mut Context<'_, '_>,
) -> Result<(), OperatorError> {
    match results.make(key, window, value, last, context.arena) {
        Ok(record) => readers.process(Event { record, time_ms: window.end_ms - 1, source: None }, context),
        Err(error) => errors.handle(&error.message, None, || results.describe(key, window), context.staged),
    }
}

/// Takes the key of a row: some of its slots.
pub struct RowKey {
    /// The slots, in declared order, with the fields' names.
    pub fields: Vec<(String, usize)>,
    /// Renders rows of the stream.
    pub encoder: Arc<Encoder>,
}

impl KeySelector<Dynamic> for RowKey {
    fn select(&self, record: &Row<'_>, key: &mut Vec<u8>) -> Result<(), EvaluationError> {
        for (name, slot) in &self.fields {
            if record[*slot].is_null() {
                return Err(EvaluationError { message: format!("the key field `{name}` is null") });
            }
            encode_state_key(&[record[*slot]], key);
        }
        Ok(())
    }

    fn render(&self, record: &Row<'_>) -> Vec<u8> {
        self.encoder.to_vec(record)
    }
}

/// Makes rows: the key's fields, the window's start and end, the aggregates, and, if rows are made on
/// update, whether it is the last.
pub struct RowResults {
    /// How many fields the key has.
    pub key_fields: usize,
    /// The aggregates.
    pub aggregates: Arc<RowAggregates>,
    /// Whether rows end with a bool that tells the last one.
    pub marks_last: bool,
    /// How many fields a row has.
    pub row_fields: usize,
}

impl WindowResult<Accumulators, Dynamic> for RowResults {
    fn make<'b>(
        &self,
        key: &[u8],
        window: WindowRange,
        value: &Accumulators,
        last: bool,
        arena: &'b Bump,
    ) -> Result<Row<'b>, EvaluationError> {
        let row = arena.alloc_slice_fill_copy(self.row_fields, Slot::Null);
        let key: &'b [u8] = arena.alloc_slice_copy(key);
        decode_state_key(key, arena, &mut row[..self.key_fields])
            .map_err(|error| EvaluationError { message: format!("the key {key:02x?}: {error}") })?;
        row[self.key_fields] = Slot::Timestamp(window.start_ms);
        row[self.key_fields + 1] = Slot::Timestamp(window.end_ms);
        let results = &mut row[self.key_fields + 2..];
        self.aggregates.results(value, results, arena);
        if self.marks_last
            && let Some(mark) = results.last_mut()
        {
            *mark = Slot::Bool(last);
        }
        Ok(row)
    }

    fn describe(&self, key: &[u8], window: WindowRange) -> Vec<u8> {
        format!(
            "{{\"window_start\":{},\"window_end\":{},\"key\":\"{key:02x?}\"}}",
            window.start_ms, window.end_ms
        )
        .into_bytes()
    }
}
