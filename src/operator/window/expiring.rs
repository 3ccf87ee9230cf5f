//! Entries that are kept for a length of event time: what operators remember of a key that make no windows.
//!
//! An entry lies in the bucket in which it expires, as a session lies in the one in which it ends: what expires
//! together is one range to delete, and no entry has to be looked at for that. Buckets are as long as entries are
//! kept, so an entry stays on the disk for at most twice as long as it counts, and of a key at most one that counts
//! lies in a bucket if those of a key are that far apart. Whether an entry counts is decided by its own time: buckets
//! do not show.

use std::ops::{ControlFlow, RangeInclusive};
use std::sync::Arc;

use super::state::{Derived, WindowState};
use super::{EmitRows, KeySelector, LateRecords, WindowSpec, prefetch};
use crate::operator::{Context, ErrorPolicy, OperatorError};
use crate::planted::{Bug, is_planted};
use crate::record::{Event, RecordType};
use crate::state::store::StoreError;
use crate::state::{Stateful, ValueCodec};
use crate::window::TimeDomain;

/// How long entries are kept after their event time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::operator) struct Retention {
    /// `None`: for ever.
    length_ms: Option<i64>,
}

impl Retention {
    /// For so long; at least 1, which the topology's check guarantees (less counts as 1).
    pub fn of_ms(length_ms: i64) -> Self {
        Retention { length_ms: Some(length_ms.max(1)) }
    }

    /// For ever: all entries lie in one bucket, which never ends.
    pub fn for_ever() -> Self {
        Retention { length_ms: None }
    }

    /// When an entry of this event time expires.
    pub fn end(&self, time_ms: i64) -> i64 {
        self.length_ms.map_or(i64::MAX, |length_ms| time_ms.saturating_add(length_ms))
    }

    /// The end of the bucket in which what expires then lies.
    fn bucket_end(&self, end_ms: i64) -> i64 {
        let Some(length_ms) = self.length_ms else { return i64::MAX };
        end_ms.saturating_add((length_ms - end_ms.rem_euclid(length_ms)) % length_ms)
    }
}

/// What an operator is told that keeps such entries.
#[derive(Clone, Debug)]
pub(in crate::operator) struct ExpiringSpec {
    /// The operator's id.
    pub id: Arc<str>,
    /// What its state depends on.
    pub fingerprint: String,
    /// How long entries are kept.
    pub retention: Retention,
    /// What becomes of late records, if it calls any so.
    pub late: LateRecords,
}

impl Derived for () {
    fn bytes(&self) -> usize {
        0
    }
}

/// The entries of an operator, and the watermark by which they expire, which is part of the state.
pub(in crate::operator) struct Expiring<C: ValueCodec> {
    state: WindowState<Retention, C, ()>,
}

impl<C: ValueCodec> Expiring<C> {
    /// No entries, to be restored before use. `late` is for operators that call records late.
    pub fn new(spec: ExpiringSpec, codec: C) -> Self {
        let ExpiringSpec { id, fingerprint, retention, late } = spec;
        let spec = WindowSpec {
            id,
            fingerprint,
            windows: retention,
            time: TimeDomain::Event,
            allowed_lateness_ms: 0,
            emit: EmitRows::OnClose,
            changelog: false,
            early: None,
            late,
        };
        Expiring { state: WindowState::new(spec, codec, false) }
    }

    /// What writes the entries.
    pub fn codec(&self) -> &C {
        self.state.table.codec()
    }

    /// When an entry of this event time expires.
    pub fn end(&self, time_ms: i64) -> i64 {
        self.state.spec.windows.end(time_ms)
    }

    /// Whether two entries that expire then lie in one bucket.
    pub fn lie_together(&self, end_ms: i64, other_ms: i64) -> bool {
        let retention = &self.state.spec.windows;
        retention.bucket_end(end_ms) == retention.bucket_end(other_ms)
    }

    /// Whether what expires then has.
    pub fn is_expired(&self, end_ms: i64) -> bool {
        self.state.is_closed(end_ms)
    }

    /// Whether an entry that expires then counts.
    pub fn counts(&self, end_ms: i64) -> bool {
        !self.is_expired(end_ms) || is_planted(Bug::ExpiredEntryCounts)
    }

    /// When the first of the entries expire that count, at the earliest.
    pub fn first_end(&self) -> i64 {
        self.state.closed_ms().saturating_add(1)
    }

    /// Shows `visit` the entries of `key` in the buckets of what expires within `ends`, until it breaks: perhaps
    /// others as well, and some that do not count any more.
    pub fn visit(
        &self,
        ends: RangeInclusive<i64>,
        key: &[u8],
        mut visit: impl FnMut(&C::Value) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let retention = &self.state.spec.windows;
        let buckets = retention.bucket_end(*ends.start())..=retention.bucket_end(*ends.end());
        self.state.table.visit_key(buckets, key, |_, value| visit(value))
    }

    /// Changes the key's entry in the bucket of what expires at `end_ms`; `create` makes it if there is none. Returns what
    /// `change` does.
    pub fn change<T>(
        &mut self,
        end_ms: i64,
        key: &[u8],
        create: impl FnOnce(&C) -> C::Value,
        change: impl FnOnce(&C, &mut C::Value) -> T,
    ) -> Result<T, StoreError> {
        let bucket_end_ms = self.state.spec.windows.bucket_end(end_ms);
        let entry = self.state.table.entry(bucket_end_ms, key, create)?;
        let (codec, value) = self.state.table.value_mut(entry);
        let heap_before = codec.heap_bytes(value);
        let changed = change(codec, value);
        self.state.table.heap_changed(entry, heap_before);
        Ok(changed)
    }

    /// Looks for what records are likely to change: the entries of their keys that expire when ones of their event
    /// times do.
    pub fn prefetch<R: RecordType>(
        &mut self,
        keys: &impl KeySelector<R>,
        key: &mut Vec<u8>,
        events: &[Event<'_, R>],
    ) {
        let retention = self.state.spec.windows;
        let bucket_of = |time_ms| retention.bucket_end(retention.end(time_ms));
        prefetch(&mut self.state.table, keys, key, events, bucket_of);
    }

    /// Learns the watermark: buckets that end with it or before go.
    pub fn advance(&mut self, watermark_ms: i64) {
        let fired = &mut self.state.fired;
        fired.watermark_ms = fired.watermark_ms.max(watermark_ms);
        fired.end_ms = fired.watermark_ms;
        while self.state.table.first_end_ms().is_some_and(|end_ms| self.state.is_closed(end_ms)) {
            self.state.table.remove_first();
        }
    }

    /// Removes all entries, at the end of a bounded run.
    pub fn clear(&mut self) {
        while self.state.table.first_end_ms().is_some() {
            self.state.table.remove_first();
        }
    }

    /// Counts a late record and writes it where it belongs.
    pub fn put_late<R: RecordType>(
        &self,
        event: &Event<'_, R>,
        keys: &impl KeySelector<R>,
        errors: &ErrorPolicy,
        context: &mut Context<'_, '_>,
    ) -> Result<(), OperatorError> {
        self.state.spec.put_late(event, 1, keys, errors, context)
    }

    /// The operator's id.
    pub fn id(&self) -> &Arc<str> {
        &self.state.spec.id
    }

    /// The state, as its task sees it.
    pub fn stateful(&mut self) -> &mut dyn Stateful
    where
        C: 'static,
    {
        &mut self.state
    }
}
