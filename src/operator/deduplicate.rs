//! Drops the records that repeat another one of their key.
//!
//! A record passes at once unless one of its key has passed whose event time is less than a length away, before or
//! behind it. What has passed is kept until the watermark is that length behind its event time. A record whose own
//! entry would have expired is late: what it may repeat is not known any more. A record looks into three buckets at
//! most.

use std::ops::ControlFlow;
use std::sync::Arc;

use prost::Message;

use super::staged::count;
use super::window::{Expiring, ExpiringSpec, Retention, select};
use super::{Context, ErrorPolicy, KeySelector, LateRecords, Operator, OperatorError, Progress, Readers};
use crate::planted::{Bug, is_planted};
use crate::record::{Event, RecordType};
use crate::state::store::StoreError;
use crate::state::{Stateful, ValueCodec};

/// What a deduplication is told beside its functions.
#[derive(Clone, Debug)]
pub struct DeduplicateSpec {
    /// The operator's id.
    pub id: Arc<str>,
    /// What its state depends on.
    pub fingerprint: String,
    /// Records of a key that are less than this apart in event time repeat one another; more than 0.
    pub within_ms: i64,
    /// What becomes of late records.
    pub late: LateRecords,
}

/// How the event time of a record that has passed is stored: as a protobuf message.
struct PassedCodec;

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct PassedMessage {
    #[prost(sint64, tag = "1")]
    time_ms: i64,
}

impl ValueCodec for PassedCodec {
    /// The event time of the record of a key that expires in a bucket. Of two that count at most one does: they are
    /// as far apart as buckets are long. One that has expired makes room for the next.
    type Value = i64;

    fn encode(&self, time_ms: &i64, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&PassedMessage { time_ms: *time_ms }.encode_to_vec());
    }

    fn decode(&self, bytes: &[u8]) -> Result<i64, String> {
        PassedMessage::decode(bytes).map(|passed| passed.time_ms).map_err(|error| error.to_string())
    }

    fn heap_bytes(&self, _: &i64) -> usize {
        0
    }
}

/// The operator. `K` selects keys.
pub struct Deduplicate<R: RecordType, K> {
    passed: Expiring<PassedCodec>,
    within_ms: i64,
    keys: K,
    errors: ErrorPolicy,
    readers: Readers<R>,
    key: Vec<u8>,
}

impl<R: RecordType, K: KeySelector<R>> Deduplicate<R, K> {
    /// An operator without state, to be restored before use.
    pub fn new(spec: DeduplicateSpec, keys: K, errors: ErrorPolicy, readers: Readers<R>) -> Self {
        let DeduplicateSpec { id, fingerprint, within_ms, late } = spec;
        let retention = Retention::of_ms(within_ms);
        let passed = Expiring::new(ExpiringSpec { id, fingerprint, retention, late }, PassedCodec);
        Deduplicate { passed, within_ms, keys, errors, readers, key: Vec::new() }
    }

    /// Whether a record of this event time repeats one of its key.
    fn is_duplicate(&self, time_ms: i64) -> Result<bool, StoreError> {
        let (end_ms, less_ms) = (self.passed.end(time_ms), self.within_ms - 1);
        let near = match is_planted(Bug::NeighbourBucketForgotten) {
            true => end_ms..=end_ms,
            false => end_ms - less_ms..=end_ms + less_ms,
        };
        let mut repeats = false;
        self.passed.visit(near, &self.key, |passed_ms| {
            repeats =
                (time_ms - passed_ms).abs() <= less_ms && self.passed.counts(self.passed.end(*passed_ms));
            if repeats { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(repeats)
    }
}

impl<R: RecordType, K: KeySelector<R> + 'static> Operator<R> for Deduplicate<R, K> {
    fn process<'b>(
        &mut self,
        event: Event<'b, R>,
        context: &mut Context<'_, 'b>,
    ) -> Result<(), OperatorError> {
        let end_ms = self.passed.end(event.time_ms);
        if self.passed.is_expired(end_ms) {
            return self.passed.put_late(&event, &self.keys, &self.errors, context);
        }
        if let Err(error) = select(&self.keys, &event.record, &mut self.key) {
            let render = || self.keys.render(&event.record);
            return self.errors.refuse(&error.message, &event, render, context);
        }
        if self.is_duplicate(event.time_ms)? {
            count(&mut context.staged.counters.duplicates, self.passed.id());
            return Ok(());
        }
        let time_ms = event.time_ms;
        self.passed.change(end_ms, &self.key, |_| time_ms, |_, passed_ms| *passed_ms = time_ms)?;
        self.readers.process(event, context)
    }

    fn prefetch(&mut self, events: &[Event<'_, R>]) {
        self.passed.prefetch(&self.keys, &mut self.key, events);
    }

    fn advance<'b>(
        &mut self,
        watermark_ms: i64,
        context: &mut Context<'_, 'b>,
    ) -> Result<Progress, OperatorError> {
        self.passed.advance(watermark_ms);
        self.readers.advance(watermark_ms, context)
    }

    fn finish<'b>(&mut self, context: &mut Context<'_, 'b>) -> Result<Progress, OperatorError> {
        self.passed.clear();
        self.readers.finish(context)
    }

    fn hand_on<'b>(&mut self, context: &mut Context<'_, 'b>) -> Result<(), OperatorError> {
        self.readers.hand_on(context)
    }

    fn visit(&mut self, visit: &mut dyn FnMut(&mut dyn Stateful)) {
        visit(self.passed.stateful());
        self.readers.visit(visit);
    }
}
