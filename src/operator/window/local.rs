//! The first of two steps of an aggregation: a task's own rows, put together before they change keys.
//!
//! Between two checkpoints the rows of a key and pane become one value, and what is sent is that: however many rows
//! there are, a checkpoint sends one for each key and pane. The second step merges what comes from all tasks. This one
//! keeps nothing beyond the checkpoint and knows of no watermark: what comes late is decided where the values arrive,
//! behind the same marks as rows would.

use std::marker::PhantomData;

use ahash::RandomState;
use hashbrown::HashTable;

use super::{Aggregator, KeySelector, select};
use crate::expression::EvaluationError;
use crate::operator::{Context, ErrorPolicy, Operator, OperatorError, Progress, Readers};
use crate::planted::{Bug, is_planted};
use crate::record::{Event, RecordType};
use crate::state::Stateful;
use crate::time::MIN_TIME_MS;
use crate::window::PanedWindows;

/// With so many keys and panes all are handed on.
const HELD_MAX: usize = 8_192;
/// With so many bytes, about, of keys and of what values hold outside themselves, too.
const HELD_BYTES_MAX: usize = 4 << 20;

/// Makes a record of what a task's rows of a key and pane came to.
pub trait PartialResult<V, O: RecordType> {
    /// The record.
    fn make<'b>(&self, key: &[u8], value: &V, arena: &'b bumpalo::Bump)
    -> Result<O::Of<'b>, EvaluationError>;
    /// A made record as text, for messages about it.
    fn describe(&self, key: &[u8]) -> Vec<u8>;
}

/// What a task's rows of a key and pane came to.
struct Held<V> {
    pane_end_ms: i64,
    key: Box<[u8]>,
    value: V,
}

/// The operator. `W` are the windows, `K` selects keys, `A` aggregates, `F` makes records of values.
pub struct LocalAggregate<R: RecordType, O: RecordType, W, K, A: Aggregator<R>, F> {
    windows: W,
    keys: K,
    aggregator: A,
    results: F,
    errors: ErrorPolicy,
    readers: Readers<O>,
    hasher: RandomState,
    /// In the order in which their first rows came.
    held: Vec<Held<A::Value>>,
    index: HashTable<u32>,
    bytes: usize,
    /// What the readers are told behind what is held.
    watermark_ms: i64,
    key: Vec<u8>,
    input: PhantomData<R>,
}

impl<R, O, W, K, A, F> LocalAggregate<R, O, W, K, A, F>
where
    R: RecordType,
    O: RecordType,
    W: PanedWindows,
    K: KeySelector<R>,
    A: Aggregator<R>,
    F: PartialResult<A::Value, O>,
{
    /// Holding nothing.
    pub fn new(
        windows: W,
        keys: K,
        aggregator: A,
        results: F,
        errors: ErrorPolicy,
        readers: Readers<O>,
    ) -> Self {
        LocalAggregate {
            windows,
            keys,
            aggregator,
            results,
            errors,
            readers,
            // Fixed seeds: the order of the table never shows, and a run can be repeated exactly.
            hasher: RandomState::with_seeds(0x6c6f, 0x6361, 0x6c20, 0x6167),
            held: Vec::new(),
            index: HashTable::new(),
            bytes: 0,
            watermark_ms: MIN_TIME_MS,
            key: Vec::new(),
            input: PhantomData,
        }
    }

    /// Adds a record to what is held of its key and pane.
    fn add(&mut self, pane_end_ms: i64, input: A::Input<'_>) -> Result<(), EvaluationError> {
        let hash = self.hasher.hash_one((pane_end_ms, &self.key[..]));
        let held = &self.held;
        let is_same = |index: &u32| {
            let held = &held[*index as usize];
            held.pane_end_ms == pane_end_ms && *held.key == self.key[..]
        };
        if let Some(index) = self.index.find(hash, is_same) {
            let value = &mut self.held[*index as usize].value;
            let before = self.aggregator.heap_bytes(value);
            self.aggregator.add(value, input)?;
            self.bytes = self.bytes + self.aggregator.heap_bytes(value) - before;
            return Ok(());
        }
        let mut value = self.aggregator.create();
        self.aggregator.add(&mut value, input)?;
        self.bytes += self.key.len() + self.aggregator.heap_bytes(&value);
        // There are `HELD_MAX` at most.
        let index = self.held.len() as u32;
        self.held.push(Held { pane_end_ms, key: self.key[..].into(), value });
        let (hasher, held) = (&self.hasher, &self.held);
        let hash_of = |index: &u32| {
            let held = &held[*index as usize];
            hasher.hash_one((held.pane_end_ms, &held.key[..]))
        };
        self.index.insert_unique(hash, index, hash_of);
        Ok(())
    }

    /// Hands on all that is held, and then how far time has come: a record behind that might be late.
    fn send(&mut self, context: &mut Context<'_, '_>) -> Result<Progress, OperatorError> {
        self.index.clear();
        self.bytes = 0;
        for Held { pane_end_ms, key, value } in self.held.drain(..) {
            match self.results.make(&key, &value, context.arena) {
                Ok(record) => {
                    let event = Event { record, time_ms: pane_end_ms - 1, source: None };
                    self.readers.process(event, context)?;
                }
                Err(error) => {
                    let describe = || self.results.describe(&key);
                    self.errors.handle(&error.message, None, describe, context.staged)?;
                }
            }
        }
        if self.watermark_ms > MIN_TIME_MS {
            return self.readers.advance(self.watermark_ms, context);
        }
        Ok(Progress::Done)
    }
}

impl<R, O, W, K, A, F> Operator<R> for LocalAggregate<R, O, W, K, A, F>
where
    R: RecordType,
    O: RecordType,
    W: PanedWindows,
    K: KeySelector<R>,
    A: Aggregator<R>,
    F: PartialResult<A::Value, O>,
{
    fn process<'b>(
        &mut self,
        event: Event<'b, R>,
        context: &mut Context<'_, 'b>,
    ) -> Result<(), OperatorError> {
        let selected = select(&self.keys, &event.record, &mut self.key);
        let pane_end_ms = self.windows.pane_end(event.time_ms);
        if selected.is_ok() && self.windows.last_end(pane_end_ms).is_none() {
            return Ok(()); // between windows a record belongs to none
        }
        let input = selected.and_then(|()| self.aggregator.input(&event, context.arena));
        if let Err(error) = input.and_then(|input| self.add(pane_end_ms, input)) {
            let render = || self.keys.render(&event.record);
            return self.errors.refuse(&error.message, &event, render, context);
        }
        context.staged.hold_back();
        if self.held.len() >= HELD_MAX || self.bytes >= HELD_BYTES_MAX {
            // Its readers send, which is never too much.
            let _ = self.send(context)?;
        }
        Ok(())
    }

    fn advance<'b>(
        &mut self,
        watermark_ms: i64,
        context: &mut Context<'_, 'b>,
    ) -> Result<Progress, OperatorError> {
        self.watermark_ms = self.watermark_ms.max(watermark_ms);
        if !self.held.is_empty() && !is_planted(Bug::WatermarkBeforeParts) {
            return Ok(Progress::Done);
        }
        self.readers.advance(watermark_ms, context)
    }

    fn finish<'b>(&mut self, context: &mut Context<'_, 'b>) -> Result<Progress, OperatorError> {
        if self.send(context)? == Progress::Full {
            return Ok(Progress::Full);
        }
        self.readers.finish(context)
    }

    fn hand_on<'b>(&mut self, context: &mut Context<'_, 'b>) -> Result<(), OperatorError> {
        // Its readers send, which is never too much.
        let _ = self.send(context)?;
        self.readers.hand_on(context)
    }

    fn visit(&mut self, visit: &mut dyn FnMut(&mut dyn Stateful)) {
        self.readers.visit(visit);
    }
}
