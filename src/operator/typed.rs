//! Operators on Rust types: closures as their functions, serde for JSON, aggregates of one's own.
//!
//! The records are [`Owned<T>`]; the operators, their state and their checkpoints are those of topology
//! files. A pipeline is built from its end: first the sinks, then what hands records to them.
//!
//! | part of an operator | what can be it |
//! |---|---|
//! | [`Decode`] | [`Json`], which dates records by a closure `Fn(&T) -> i64` |
//! | [`Predicate`] | a closure `Fn(&T) -> bool` |
//! | [`MapFunction`] | a closure `Fn(&T) -> Result<U, String>` |
//! | [`FlatMapFunction`] | a closure `Fn(&T) -> Result<Vec<U>, String>` |
//! | [`KeySelector`] | a closure `Fn(&T) -> K`, where `K` is bytes: a `String`, a `[u8; N]` |
//! | [`Aggregator`] | [`Custom`], around an [`Aggregate`] |
//! | [`WindowResult`] | a closure `Fn(WindowValue<'_, V>) -> Result<U, String>` |
//! | [`RecordWriter`] | [`Json`], which takes the key by a closure `Fn(&T) -> Option<Vec<u8>>` |
//!
//! A closure's error is the record's: it goes where the operator's `ErrorPolicy` says. So that a record
//! can be shown there, types implement [`Serialize`].
//!
//! ```
//! use std::sync::Arc;
//! use serde::{Deserialize, Serialize};
//! use thalweg::operator::typed::{Aggregate, Custom, Json, WindowValue};
//! use thalweg::operator::*;
//! use thalweg::record::Owned;
//! use thalweg::window::{AlignedWindows, TimeDomain};
//!
//! #[derive(Clone, Serialize, Deserialize)]
//! struct Order { customer: String, cents: i64, at_ms: i64 }
//!
//! #[derive(Clone, Serialize)]
//! struct Largest { customer: String, minute_ms: i64, cents: i64 }
//!
//! /// The largest order.
//! struct Max;
//!
//! impl Aggregate<Order> for Max {
//!     type Value = i64;
//!     type Input = i64;
//!     fn input(&self, order: &Order) -> Result<i64, String> { Ok(order.cents) }
//!     fn create(&self) -> i64 { 0 }
//!     fn add(&self, largest: &mut i64, cents: i64) -> Result<(), String> {
//!         *largest = cents.max(*largest);
//!         Ok(())
//!     }
//!     fn merge(&self, largest: &mut i64, later: &i64) -> Result<(), String> {
//!         *largest = *later.max(largest);
//!         Ok(())
//!     }
//!     fn encode(&self, largest: &i64, bytes: &mut Vec<u8>) { bytes.extend(largest.to_le_bytes()) }
//!     fn decode(&self, bytes: &[u8]) -> Result<i64, String> {
//!         Ok(i64::from_le_bytes(bytes.try_into().map_err(|_| "not eight bytes".to_string())?))
//!     }
//! }
//!
//! fn pipeline(topic: Arc<OutputTarget>) -> Box<dyn Pipeline> {
//!     let key = |row: &Largest| Some(row.customer.clone().into_bytes());
//!     let sink = Sink::new(Json::<Largest, _>::new(key), topic, ErrorPolicy::fail("largest"));
//!     let spec = WindowSpec {
//!         time: TimeDomain::Event,
//!         id: "per_minute".into(),
//!         fingerprint: "largest order by customer, minutes, i64".into(),
//!         windows: AlignedWindows::tumbling(60_000),
//!         allowed_lateness_ms: 0,
//!         emit: EmitRows::OnClose,
//!         changelog: false,
//!         early: None,
//!         late: LateRecords::Drop,
//!     };
//!     let row = |window: WindowValue<'_, i64>| Ok(Largest {
//!         customer: String::from_utf8_lossy(window.key).into_owned(),
//!         minute_ms: window.range.start_ms,
//!         cents: *window.value,
//!     });
//!     let window = WindowOperator::<Owned<Order>, Owned<Largest>, _, _, _>::new(
//!         spec,
//!         |order: &Order| order.customer.clone(),
//!         Custom::new(Max),
//!         row,
//!         ErrorPolicy::fail("per_minute"),
//!         Readers::new(vec![Box::new(sink)]),
//!     );
//!     let paid = Filter::<Owned<Order>, _>::new(
//!         |order: &Order| order.cents > 0,
//!         ErrorPolicy::fail("paid"),
//!         Readers::new(vec![Box::new(window)]),
//!     );
//!     Box::new(Source::<Owned<Order>, _>::new(
//!         Json::<Order, _>::new(|order: &Order| order.at_ms),
//!         Timing { max_out_of_orderness_ms: 5_000, punctuated: false, max_ahead_ms: 86_400_000 },
//!         ErrorPolicy::fail("orders"),
//!         Readers::new(vec![Box::new(paid)]),
//!     ))
//! }
//!
//! let topic = OutputTarget { topic: "largest".into(), partitions: 4, record_bytes_max: 1 << 20 };
//! let topic = Arc::new(topic);
//! // Each task gets a pipeline of its own.
//! let factory: PipelineFactory = Arc::new(move || pipeline(topic.clone()));
//! let mut stateful = Vec::new();
//! factory().visit(&mut |operator| stateful.push(operator.id().to_string()));
//! assert_eq!(stateful, ["per_minute"]);
//! ```

use std::marker::PhantomData;

use bumpalo::Bump;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{
    Aggregator, Decode, Decoded, Firing, FlatMapFunction, KeySelector, MapFunction, Predicate, RecordWriter,
    Unfolded, WindowResult, Written,
};
use crate::expression::EvaluationError;
use crate::format::json;
use crate::record::{Event, Owned, SourceRecord};
use crate::state::ValueCodec;
use crate::window::WindowRange;

/// A record as JSON, for dead letters; empty if serde cannot write it.
fn render<T: Serialize>(record: &T) -> Vec<u8> {
    sonic_rs::to_vec(record).unwrap_or_default()
}

fn failed(message: String) -> EvaluationError {
    EvaluationError { message }
}

/// JSON by serde: decodes a source's records or writes a sink's.
///
/// For a source the closure gives the event time, in milliseconds since the Unix epoch: `Fn(&T) -> i64`.
/// For a sink it gives the key: `Fn(&T) -> Option<Vec<u8>>`.
pub struct Json<T, F> {
    closure: F,
    record: PhantomData<fn(&T)>,
}

impl<T, F> Json<T, F> {
    /// JSON of `T`.
    pub fn new(closure: F) -> Self {
        Json { closure, record: PhantomData }
    }
}

impl<T, F> Decode<Owned<T>> for Json<T, F>
where
    T: DeserializeOwned + Clone + 'static,
    F: Fn(&T) -> i64,
{
    fn decode<'b>(
        &mut self,
        source: &SourceRecord<'b>,
        _: &'b Bump,
    ) -> Result<Decoded<'b, Owned<T>>, String> {
        let value = source.value.ok_or("the value is null (a tombstone), JSON is expected")?;
        let record: T = json::decode_value(value).map_err(|error| error.to_string())?;
        let time_ms = (self.closure)(&record);
        Ok(Decoded { record, time_ms, is_punctuation: false })
    }
}

impl<T, F> RecordWriter<Owned<T>> for Json<T, F>
where
    T: Serialize + Clone + 'static,
    F: Fn(&T) -> Option<Vec<u8>>,
{
    fn write(&self, record: &T) -> Result<Written, EvaluationError> {
        let value = sonic_rs::to_vec(record)
            .map_err(|error| failed(format!("the record cannot be written as JSON: {error}")))?;
        Ok(Written { key: (self.closure)(record), value })
    }
}

impl<T, F> Predicate<Owned<T>> for F
where
    T: Serialize + Clone + 'static,
    F: Fn(&T) -> bool,
{
    fn test(&self, event: &Event<'_, Owned<T>>, _: &Bump) -> Result<bool, EvaluationError> {
        Ok(self(&event.record))
    }

    fn render(&self, record: &T) -> Vec<u8> {
        render(record)
    }
}

impl<T, U, F> MapFunction<Owned<T>, Owned<U>> for F
where
    T: Serialize + Clone + 'static,
    U: Clone + 'static,
    F: Fn(&T) -> Result<U, String>,
{
    fn apply<'b>(&self, event: &Event<'b, Owned<T>>, _: &'b Bump) -> Result<U, EvaluationError> {
        self(&event.record).map_err(failed)
    }

    fn render(&self, record: &T) -> Vec<u8> {
        render(record)
    }
}

impl<T, U, F> FlatMapFunction<Owned<T>, Owned<U>> for F
where
    T: Serialize + Clone + 'static,
    U: Clone + 'static,
    F: Fn(&T) -> Result<Vec<U>, String>,
{
    fn apply<'b>(
        &self,
        event: &Event<'b, Owned<T>>,
        _: &mut Unfolded,
        arena: &'b Bump,
    ) -> Result<bumpalo::collections::Vec<'b, U>, EvaluationError> {
        let made = self(&event.record).map_err(failed)?;
        Ok(bumpalo::collections::Vec::from_iter_in(made, arena))
    }

    fn render(&self, record: &T) -> Vec<u8> {
        render(record)
    }
}

impl<T, K, F> KeySelector<Owned<T>> for F
where
    T: Serialize + Clone + 'static,
    K: AsRef<[u8]>,
    F: Fn(&T) -> K,
{
    fn select(&self, record: &T, key: &mut Vec<u8>) -> Result<(), EvaluationError> {
        key.extend_from_slice(self(record).as_ref());
        Ok(())
    }

    fn render(&self, record: &T) -> Vec<u8> {
        render(record)
    }
}

/// What a window makes a record of.
#[derive(Clone, Copy, Debug)]
pub struct WindowValue<'w, V> {
    /// The key's bytes.
    pub key: &'w [u8],
    /// The window.
    pub range: WindowRange,
    /// The aggregate's value.
    pub value: &'w V,
    /// Why a record is made.
    pub firing: Firing,
}

impl<V, U, F> WindowResult<V, Owned<U>> for F
where
    U: Clone + 'static,
    F: Fn(WindowValue<'_, V>) -> Result<U, String>,
{
    fn make(
        &self,
        key: &[u8],
        range: WindowRange,
        value: &V,
        firing: Firing,
        _: &Bump,
    ) -> Result<U, EvaluationError> {
        self(WindowValue { key, range, value, firing }).map_err(failed)
    }

    fn describe(&self, key: &[u8], range: WindowRange) -> Vec<u8> {
        #[derive(Serialize)]
        struct Described {
            window_start: i64,
            window_end: i64,
            key: String,
        }
        let key = String::from_utf8_lossy(key).into_owned();
        render(&Described { window_start: range.start_ms, window_end: range.end_ms, key })
    }
}

/// An aggregate over records of type `T`: a value per key and window, updated record by record, kept in
/// the operator's state between checkpoints, restarts and versions of the program.
///
/// It is called on the task's thread and must depend on its arguments only, so that a replay gives the
/// same.
pub trait Aggregate<T> {
    /// What is remembered. Not larger than a changelog record may be.
    type Value: 'static;
    /// What a record adds.
    type Input;
    /// What `record` adds; the error says why it adds nothing.
    fn input(&self, record: &T) -> Result<Self::Input, String>;
    /// The value over no records.
    fn create(&self) -> Self::Value;
    /// Adds to the value. On an error the value must be as before.
    fn add(&self, value: &mut Self::Value, input: Self::Input) -> Result<(), String>;
    /// Adds to `value`, which is over earlier records, what `later` is over later ones: windows that overlap share
    /// parts. On an error the value does not matter any more.
    fn merge(&self, value: &mut Self::Value, later: &Self::Value) -> Result<(), String>;
    /// Appends the value's bytes to `bytes`.
    fn encode(&self, value: &Self::Value, bytes: &mut Vec<u8>);
    /// The value of bytes that `encode` wrote, now or in an earlier version of the program; the error
    /// says what is wrong with them.
    fn decode(&self, bytes: &[u8]) -> Result<Self::Value, String>;
    /// Bytes that the value holds outside itself: the cache's limit counts them.
    fn heap_bytes(&self, _value: &Self::Value) -> usize {
        0
    }
}

/// An [`Aggregate`] of one's own as a window's [`Aggregator`].
pub struct Custom<T, A> {
    aggregate: A,
    record: PhantomData<fn(&T)>,
}

impl<T, A: Aggregate<T>> Custom<T, A> {
    /// Computes `aggregate`.
    pub fn new(aggregate: A) -> Self {
        Custom { aggregate, record: PhantomData }
    }
}

impl<T, A: Aggregate<T>> ValueCodec for Custom<T, A> {
    type Value = A::Value;

    fn encode(&self, value: &A::Value, bytes: &mut Vec<u8>) {
        self.aggregate.encode(value, bytes);
    }

    fn decode(&self, bytes: &[u8]) -> Result<A::Value, String> {
        self.aggregate.decode(bytes)
    }

    fn heap_bytes(&self, value: &A::Value) -> usize {
        self.aggregate.heap_bytes(value)
    }
}

impl<T: Clone + 'static, A: Aggregate<T>> Aggregator<Owned<T>> for Custom<T, A> {
    type Input<'b> = A::Input;

    fn input<'b>(&self, event: &Event<'b, Owned<T>>, _: &'b Bump) -> Result<A::Input, EvaluationError> {
        self.aggregate.input(&event.record).map_err(failed)
    }

    fn create(&self) -> A::Value {
        self.aggregate.create()
    }

    fn add(&self, value: &mut A::Value, input: A::Input) -> Result<(), EvaluationError> {
        self.aggregate.add(value, input).map_err(failed)
    }

    fn merge(&self, value: &mut A::Value, later: &A::Value) -> Result<(), EvaluationError> {
        self.aggregate.merge(value, later).map_err(failed)
    }
}
