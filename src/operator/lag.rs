//! Gives each record what the one before it in its key left.
//!
//! The record before is the one that came before, whatever its event time. What it left is kept until the watermark is
//! a length behind the greatest event time of the key's records; each of them prolongs it. It lies where it expires,
//! as a session does, and moves on with it; what it leaves behind is an empty entry that goes with its bucket. A record
//! looks into the buckets that have not ended: one and as many more as there are lengths between the watermark and the
//! newest record.

use std::ops::ControlFlow;
use std::sync::Arc;

use bumpalo::Bump;
use prost::encoding::{decode_varint, encode_varint};

use super::aggregate::{Held, decode_held, encode_held, text_bytes, text_bytes_max, text_kind};
use super::window::{Expiring, ExpiringSpec, Retention, select};
use super::{Context, ErrorPolicy, KeySelector, LateRecords, Operator, OperatorError, Progress, Readers};
use crate::expression::{Environment, EvaluationError, Expression};
use crate::planted::{Bug, is_planted};
use crate::record::{Dynamic, Event, RecordType, Row, Slot, Type};
use crate::state::store::StoreError;
use crate::state::{Stateful, ValueCodec};

/// What a record leaves for the next one of its key.
pub trait LagFunction<I: RecordType, O: RecordType>: ValueCodec {
    /// What `event` leaves, or why it cannot be processed.
    fn leave(&self, event: &Event<'_, I>, arena: &Bump) -> Result<Self::Value, EvaluationError>;
    /// A record with what the one before it left; `None` if there was none.
    fn join<'b>(&self, record: &I::Of<'b>, previous: Option<&Self::Value>, arena: &'b Bump) -> O::Of<'b>;
}

/// What a lag is told beside its functions.
#[derive(Clone, Debug)]
pub struct LagSpec {
    /// The operator's id.
    pub id: Arc<str>,
    /// What its state depends on.
    pub fingerprint: String,
    /// How long what a record leaves is kept after the greatest event time of its key's; `None`: for ever.
    pub ttl_ms: Option<i64>,
}

/// What the last record of a key left.
struct Left<V> {
    /// The greatest event time of the key's records.
    newest_ms: i64,
    value: V,
}

/// How that is stored: the event time (zigzag), as protobuf writes whole numbers, and then the value's bytes. No bytes:
/// it has moved on.
struct LeftCodec<F>(F);

impl<F: ValueCodec> ValueCodec for LeftCodec<F> {
    type Value = Option<Left<F::Value>>;

    fn encode(&self, left: &Self::Value, bytes: &mut Vec<u8>) {
        let Some(Left { newest_ms, value }) = left else { return };
        encode_varint(((newest_ms << 1) ^ (newest_ms >> 63)) as u64, bytes);
        self.0.encode(value, bytes);
    }

    fn decode(&self, mut bytes: &[u8]) -> Result<Self::Value, String> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let newest = decode_varint(&mut bytes).map_err(|error| error.to_string())?;
        let newest_ms = ((newest >> 1) as i64) ^ -((newest & 1) as i64);
        Ok(Some(Left { newest_ms, value: self.0.decode(bytes)? }))
    }

    fn heap_bytes(&self, left: &Self::Value) -> usize {
        left.as_ref().map_or(0, |left| self.0.heap_bytes(&left.value))
    }
}

/// The operator. `K` selects keys, `F` says what records leave.
pub struct Lag<I: RecordType, O: RecordType, K, F: ValueCodec> {
    left: Expiring<LeftCodec<F>>,
    keys: K,
    errors: ErrorPolicy,
    readers: Readers<O>,
    key: Vec<u8>,
    input: std::marker::PhantomData<I>,
}

impl<I, O, K, F> Lag<I, O, K, F>
where
    I: RecordType,
    O: RecordType,
    K: KeySelector<I>,
    F: LagFunction<I, O>,
{
    /// An operator without state, to be restored before use.
    pub fn new(spec: LagSpec, keys: K, function: F, errors: ErrorPolicy, readers: Readers<O>) -> Self {
        let LagSpec { id, fingerprint, ttl_ms } = spec;
        let retention = ttl_ms.map_or(Retention::for_ever(), Retention::of_ms);
        let spec = ExpiringSpec { id, fingerprint, retention, late: LateRecords::Drop };
        let left = Expiring::new(spec, LeftCodec(function));
        Lag { left, keys, errors, readers, key: Vec::new(), input: std::marker::PhantomData }
    }

    /// The record with what the one before it left, and the greatest event time before it.
    fn join<'b>(&self, record: &I::Of<'b>, arena: &'b Bump) -> Result<(O::Of<'b>, Option<i64>), StoreError> {
        let function = &self.left.codec().0;
        let mut joined = None;
        self.left.visit(self.left.first_end()..=i64::MAX, &self.key, |left| match left {
            // At most one counts.
            Some(left) if self.left.counts(self.left.end(left.newest_ms)) => {
                let record = function.join(record, Some(&left.value), arena);
                joined = Some((record, Some(left.newest_ms)));
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        })?;
        Ok(joined.unwrap_or_else(|| (function.join(record, None, arena), None)))
    }

    /// Keeps what a record left in place of what the one before it did.
    fn keep(&mut self, value: F::Value, time_ms: i64, before_ms: Option<i64>) -> Result<(), StoreError> {
        let newest_ms = before_ms.map_or(time_ms, |before_ms| before_ms.max(time_ms));
        let end_ms = match before_ms {
            Some(before_ms) if is_planted(Bug::LagNotMoved) => self.left.end(before_ms),
            _ => self.left.end(newest_ms),
        };
        if self.left.is_expired(end_ms) {
            return Ok(()); // of a record that comes so late nothing is left
        }
        let was_at_ms = before_ms.map(|before_ms| self.left.end(before_ms));
        let moved_from_ms = was_at_ms.filter(|was_at_ms| !self.left.lie_together(*was_at_ms, end_ms));
        if let Some(moved_from_ms) = moved_from_ms {
            self.left.change(moved_from_ms, &self.key, |_| None, |_, left| *left = None)?;
        }
        let left = Some(Left { newest_ms, value });
        self.left.change(end_ms, &self.key, |_| None, |_, kept| *kept = left)
    }
}

impl<I, O, K, F> Operator<I> for Lag<I, O, K, F>
where
    I: RecordType,
    O: RecordType,
    K: KeySelector<I> + 'static,
    F: LagFunction<I, O> + 'static,
{
    fn process<'b>(
        &mut self,
        event: Event<'b, I>,
        context: &mut Context<'_, 'b>,
    ) -> Result<(), OperatorError> {
        let left = select(&self.keys, &event.record, &mut self.key)
            .and_then(|()| self.left.codec().0.leave(&event, context.arena));
        let left = match left {
            Ok(left) => left,
            Err(error) => {
                let render = || self.keys.render(&event.record);
                return self.errors.refuse(&error.message, &event, render, context);
            }
        };
        let (record, before_ms) = self.join(&event.record, context.arena)?;
        self.keep(left, event.time_ms, before_ms)?;
        self.readers.process(Event { record, time_ms: event.time_ms, source: event.source }, context)
    }

    fn prefetch(&mut self, events: &[Event<'_, I>]) {
        self.left.prefetch(&self.keys, &mut self.key, events);
    }

    fn advance<'b>(
        &mut self,
        watermark_ms: i64,
        context: &mut Context<'_, 'b>,
    ) -> Result<Progress, OperatorError> {
        self.left.advance(watermark_ms);
        self.readers.advance(watermark_ms, context)
    }

    fn finish<'b>(&mut self, context: &mut Context<'_, 'b>) -> Result<Progress, OperatorError> {
        self.left.clear();
        self.readers.finish(context)
    }

    fn hand_on<'b>(&mut self, context: &mut Context<'_, 'b>) -> Result<(), OperatorError> {
        self.readers.hand_on(context)
    }

    fn visit(&mut self, visit: &mut dyn FnMut(&mut dyn Stateful)) {
        visit(self.left.stateful());
        self.readers.visit(visit);
    }
}

/// A lag of rows: the input's slots, then what expressions had in the row before.
pub struct RowLag {
    values: Vec<(String, Arc<Expression>)>,
    /// The longest text that is kept.
    text_bytes_max: usize,
}

impl RowLag {
    /// Of these expressions, with the names of their fields.
    pub fn new(values: Vec<(String, Arc<Expression>)>) -> Self {
        let is_text = |ty| matches!(ty, Type::String | Type::Bytes | Type::List(_));
        let texts = values.iter().filter(|(_, expression)| is_text(expression.ty())).count();
        RowLag { values, text_bytes_max: text_bytes_max(texts) }
    }
}

impl LagFunction<Dynamic, Dynamic> for RowLag {
    fn leave(&self, event: &Event<'_, Dynamic>, arena: &Bump) -> Result<Self::Value, EvaluationError> {
        let environment = Environment::new(event.record, event.source, arena);
        let value = |(name, expression): &(String, Arc<Expression>)| {
            let value = expression.eval(&environment)?;
            let (bytes, most) = (text_bytes(&value), self.text_bytes_max);
            if bytes > most {
                let what = text_kind(&value);
                let message = format!("`{name}`: {what} of {bytes} bytes, more than {most}");
                return Err(EvaluationError { message });
            }
            Ok(Held::of(&value))
        };
        self.values.iter().map(value).collect()
    }

    fn join<'b>(&self, record: &Row<'b>, previous: Option<&Self::Value>, arena: &'b Bump) -> Row<'b> {
        let row = arena.alloc_slice_fill_copy(record.len() + self.values.len(), Slot::Null);
        let (same, new) = row.split_at_mut(record.len());
        same.copy_from_slice(record);
        for ((slot, (_, expression)), held) in
            new.iter_mut().zip(&self.values).zip(previous.into_iter().flatten())
        {
            *slot = held.as_ref().map_or(Slot::Null, |held| held.result(expression.ty(), arena));
        }
        row
    }
}

impl ValueCodec for RowLag {
    /// In the order of the expressions.
    type Value = Box<[Option<Held>]>;

    fn encode(&self, values: &Self::Value, bytes: &mut Vec<u8>) {
        encode_held(values, bytes);
    }

    fn decode(&self, bytes: &[u8]) -> Result<Self::Value, String> {
        decode_held(bytes)
    }

    fn heap_bytes(&self, values: &Self::Value) -> usize {
        size_of_val(&values[..]) + values.iter().flatten().map(Held::heap_bytes).sum::<usize>()
    }
}
