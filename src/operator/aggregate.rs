//! The aggregates of topology files, and how their accumulators are stored.
//!
//! An accumulator is stored as protobuf: aggregate number i has the fields 4i + 1 (a whole number),
//! 4i + 2 (a double), 4i + 3 (text) and 4i + 4 (a count), of which it writes those that it needs.
//! Readers skip fields that they do not know.

use bumpalo::Bump;
use prost::bytes::Buf;
use prost::encoding::{
    DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, skip_field,
};
use smallvec::SmallVec;

use super::window::Aggregator;
use crate::expression::{Environment, EvaluationError};
use crate::record::{Dynamic, Event, Slot, Type};
use crate::state::ValueCodec;
use crate::state::key::{STATE_TEXT_BYTES_MAX, STATE_TEXTS_BYTES_MAX};
use crate::topology::plan::{AggregateFunction, AggregatePlan};

/// The accumulators of one key and window, in the order of the aggregates.
pub type Accumulators = SmallVec<[Accumulator; 2]>;

/// What an aggregate remembers.
#[derive(Clone, Debug, PartialEq)]
pub enum Accumulator {
    /// Rows counted.
    Count(i64),
    /// The exact sum of ints; `None` over nothing.
    SumInt(Option<i64>),
    /// The sum of doubles, in the order in which they came.
    SumDouble(Option<f64>),
    /// The least or greatest value so far.
    Extreme(Option<Extreme>),
    /// What an average is made of.
    Avg {
        /// The sum, as a double.
        sum: f64,
        /// Of how many values.
        count: i64,
    },
}

/// A least or greatest value.
#[derive(Clone, Debug, PartialEq)]
pub enum Extreme {
    /// An int, a timestamp or a duration.
    Whole(i64),
    /// A double.
    Double(f64),
    /// Text.
    Text(Box<str>),
}

/// The aggregates of a window.
pub struct RowAggregates {
    aggregates: Vec<AggregatePlan>,
    /// The longest text that one of them keeps.
    text_bytes_max: usize,
}

impl RowAggregates {
    /// Computes these.
    pub fn new(aggregates: Vec<AggregatePlan>) -> Self {
        let keeps_text = |plan: &&AggregatePlan| plan.ty == Type::String;
        let texts = aggregates.iter().filter(keeps_text).count().max(1);
        RowAggregates { aggregates, text_bytes_max: STATE_TEXT_BYTES_MAX.min(STATE_TEXTS_BYTES_MAX / texts) }
    }

    /// Writes the results of `value` to the first slots of `results`, in order.
    pub fn results<'b>(&self, value: &Accumulators, results: &mut [Slot<'b>], arena: &'b Bump) {
        for ((accumulator, plan), slot) in value.iter().zip(&self.aggregates).zip(results) {
            *slot = match accumulator {
                Accumulator::Count(count) => Slot::Int(*count),
                Accumulator::SumInt(sum) => sum.map_or(Slot::Null, Slot::Int),
                Accumulator::SumDouble(sum) => sum.map_or(Slot::Null, Slot::Double),
                Accumulator::Avg { count: 0, .. } => Slot::Null,
                Accumulator::Avg { sum, count } => Slot::Double(*sum / *count as f64),
                Accumulator::Extreme(None) => Slot::Null,
                Accumulator::Extreme(Some(Extreme::Double(value))) => Slot::Double(*value),
                Accumulator::Extreme(Some(Extreme::Text(text))) => Slot::String(arena.alloc_str(text)),
                Accumulator::Extreme(Some(Extreme::Whole(value))) => match plan.ty {
                    Type::Timestamp => Slot::Timestamp(*value),
                    Type::Duration => Slot::Duration(*value),
                    _ => Slot::Int(*value),
                },
            };
        }
    }

    fn failed(&self, index: usize, what: &str) -> EvaluationError {
        EvaluationError { message: format!("aggregate `{}`: {what}", self.aggregates[index].name) }
    }
}

fn empty(plan: &AggregatePlan) -> Accumulator {
    match (plan.function, plan.ty) {
        (AggregateFunction::Count, _) => Accumulator::Count(0),
        (AggregateFunction::Sum, Type::Int) => Accumulator::SumInt(None),
        (AggregateFunction::Sum, _) => Accumulator::SumDouble(None),
        (AggregateFunction::Min | AggregateFunction::Max, _) => Accumulator::Extreme(None),
        (AggregateFunction::Avg, _) => Accumulator::Avg { sum: 0.0, count: 0 },
    }
}

/// A number as a double; ints are promoted.
fn double(slot: &Slot<'_>) -> f64 {
    match slot {
        Slot::Int(value) => *value as f64,
        Slot::Double(value) => *value,
        _ => 0.0,
    }
}

/// The accumulator after `input`, or what is wrong with it.
fn next(accumulator: &Accumulator, input: &Slot<'_>) -> Result<Option<f64>, &'static str> {
    let sum = match (accumulator, input) {
        (Accumulator::SumInt(Some(sum)), Slot::Int(value)) => {
            return if sum.checked_add(*value).is_some() {
                Ok(None)
            } else {
                Err("the sum overflows an int")
            };
        }
        (Accumulator::SumDouble(sum), value) => sum.unwrap_or(0.0) + double(value),
        (Accumulator::Avg { sum, .. }, value) => sum + double(value),
        _ => return Ok(None),
    };
    if sum.is_finite() { Ok(Some(sum)) } else { Err("the sum overflows a double") }
}

fn replaces(best: Option<&Extreme>, input: &Slot<'_>, function: AggregateFunction) -> bool {
    let order = match (best, input) {
        (None, _) => return true,
        (Some(Extreme::Whole(best)), Slot::Int(value) | Slot::Timestamp(value) | Slot::Duration(value)) => {
            value.cmp(best)
        }
        (Some(Extreme::Double(best)), value) => double(value).total_cmp(best),
        (Some(Extreme::Text(best)), Slot::String(value)) => (*value).cmp(best),
        _ => return false,
    };
    if function == AggregateFunction::Min { order.is_lt() } else { order.is_gt() }
}

fn extreme(input: &Slot<'_>) -> Option<Extreme> {
    match input {
        Slot::Int(value) | Slot::Timestamp(value) | Slot::Duration(value) => Some(Extreme::Whole(*value)),
        Slot::Double(value) => Some(Extreme::Double(*value)),
        Slot::String(text) => Some(Extreme::Text((*text).into())),
        _ => None,
    }
}

impl Aggregator<Dynamic> for RowAggregates {
    /// The arguments' values; `Null` adds nothing.
    type Input<'b> = &'b [Slot<'b>];

    fn input<'b>(
        &self,
        event: &Event<'b, Dynamic>,
        arena: &'b Bump,
    ) -> Result<Self::Input<'b>, EvaluationError> {
        let environment = Environment { row: event.record, source: event.source, arena };
        let inputs = arena.alloc_slice_fill_copy(self.aggregates.len(), Slot::Bool(true));
        for (input, plan) in inputs.iter_mut().zip(&self.aggregates) {
            if let Some(argument) = &plan.argument {
                *input = argument.eval(&environment)?;
                if let Slot::String(text) = input
                    && matches!(plan.function, AggregateFunction::Min | AggregateFunction::Max)
                    && text.len() > self.text_bytes_max
                {
                    return Err(EvaluationError {
                        message: format!(
                            "aggregate `{}`: a text of {} bytes, more than {}",
                            plan.name,
                            text.len(),
                            self.text_bytes_max
                        ),
                    });
                }
            }
        }
        Ok(inputs)
    }

    fn create(&self) -> Accumulators {
        self.aggregates.iter().map(empty).collect()
    }

    fn add(&self, value: &mut Accumulators, inputs: &[Slot<'_>]) -> Result<(), EvaluationError> {
        // First what can fail, for all of them; only then is anything changed.
        let mut sums: SmallVec<[Option<f64>; 4]> = SmallVec::new();
        for (index, (accumulator, input)) in value.iter().zip(inputs).enumerate() {
            let sum = if input.is_null() { Ok(None) } else { next(accumulator, input) };
            sums.push(sum.map_err(|what| self.failed(index, what))?);
        }
        for (index, (accumulator, input)) in value.iter_mut().zip(inputs).enumerate() {
            match (accumulator, input) {
                (_, Slot::Null) => {}
                (Accumulator::Count(count), _) => *count += 1,
                (Accumulator::SumInt(sum), Slot::Int(value)) => *sum = Some(sum.unwrap_or(0) + value),
                (Accumulator::SumInt(_), _) => {}
                (Accumulator::SumDouble(sum), _) => *sum = sums[index],
                (Accumulator::Avg { sum, count }, _) => {
                    *sum = sums[index].unwrap_or(*sum);
                    *count += 1;
                }
                (Accumulator::Extreme(best), input) => {
                    if replaces(best.as_ref(), input, self.aggregates[index].function) {
                        *best = extreme(input);
                    }
                }
            }
        }
        Ok(())
    }
}

const WHOLE: u32 = 1;
const DOUBLE: u32 = 2;
const TEXT: u32 = 3;
const COUNT: u32 = 4;
const FIELDS_PER_AGGREGATE: u32 = 4;

fn put_whole(field: u32, value: i64, bytes: &mut Vec<u8>) {
    encode_key(field, WireType::Varint, bytes);
    encode_varint(((value << 1) ^ (value >> 63)) as u64, bytes);
}

fn put_double(field: u32, value: f64, bytes: &mut Vec<u8>) {
    encode_key(field, WireType::SixtyFourBit, bytes);
    bytes.extend_from_slice(&value.to_bits().to_le_bytes());
}

fn put_count(field: u32, value: i64, bytes: &mut Vec<u8>) {
    encode_key(field, WireType::Varint, bytes);
    encode_varint(value as u64, bytes);
}

/// Sets the accumulator from a field of it. A field that it does not know is left alone.
fn set(accumulator: &mut Accumulator, field: u32, value: Stored<'_>) -> Result<(), String> {
    match (accumulator, field, value) {
        (Accumulator::Count(count), COUNT, Stored::Varint(value)) => *count = value as i64,
        (Accumulator::SumInt(sum), WHOLE, Stored::Varint(value)) => *sum = Some(zigzag(value)),
        (Accumulator::SumDouble(sum), DOUBLE, Stored::Double(value)) => *sum = Some(value),
        (Accumulator::Avg { sum, .. }, DOUBLE, Stored::Double(value)) => *sum = value,
        (Accumulator::Avg { count, .. }, COUNT, Stored::Varint(value)) => *count = value as i64,
        (Accumulator::Extreme(best), WHOLE, Stored::Varint(value)) => {
            *best = Some(Extreme::Whole(zigzag(value)))
        }
        (Accumulator::Extreme(best), DOUBLE, Stored::Double(value)) => *best = Some(Extreme::Double(value)),
        (Accumulator::Extreme(best), TEXT, Stored::Text(value)) => {
            let text = std::str::from_utf8(value).map_err(|error| error.to_string())?;
            *best = Some(Extreme::Text(text.into()));
        }
        _ => {}
    }
    Ok(())
}

enum Stored<'v> {
    Varint(u64),
    Double(f64),
    /// Not UTF-8 perhaps, if the field is not known.
    Text(&'v [u8]),
}

fn zigzag(value: u64) -> i64 {
    ((value >> 1) as i64) ^ -((value & 1) as i64)
}

impl ValueCodec for RowAggregates {
    type Value = Accumulators;

    fn encode(&self, value: &Accumulators, bytes: &mut Vec<u8>) {
        for (index, accumulator) in value.iter().enumerate() {
            let base = index as u32 * FIELDS_PER_AGGREGATE;
            match accumulator {
                Accumulator::Count(count) => put_count(base + COUNT, *count, bytes),
                Accumulator::SumInt(Some(sum)) => put_whole(base + WHOLE, *sum, bytes),
                Accumulator::SumDouble(Some(sum)) => put_double(base + DOUBLE, *sum, bytes),
                Accumulator::Avg { sum, count } => {
                    put_double(base + DOUBLE, *sum, bytes);
                    put_count(base + COUNT, *count, bytes);
                }
                Accumulator::Extreme(Some(Extreme::Whole(value))) => put_whole(base + WHOLE, *value, bytes),
                Accumulator::Extreme(Some(Extreme::Double(value))) => {
                    put_double(base + DOUBLE, *value, bytes)
                }
                Accumulator::Extreme(Some(Extreme::Text(text))) => {
                    encode_key(base + TEXT, WireType::LengthDelimited, bytes);
                    encode_varint(text.len() as u64, bytes);
                    bytes.extend_from_slice(text.as_bytes());
                }
                Accumulator::SumInt(None) | Accumulator::SumDouble(None) | Accumulator::Extreme(None) => {}
            }
        }
    }

    fn decode(&self, mut bytes: &[u8]) -> Result<Accumulators, String> {
        let mut value = self.create();
        while !bytes.is_empty() {
            let (tag, wire) = decode_key(&mut bytes).map_err(|error| error.to_string())?;
            let stored = match wire {
                WireType::Varint => {
                    Stored::Varint(decode_varint(&mut bytes).map_err(|error| error.to_string())?)
                }
                WireType::SixtyFourBit if bytes.len() >= 8 => {
                    Stored::Double(f64::from_bits(bytes.get_u64_le()))
                }
                WireType::LengthDelimited => {
                    let length = decode_varint(&mut bytes).map_err(|error| error.to_string())? as usize;
                    let (text, rest) = bytes.split_at_checked(length).ok_or("a text is cut off")?;
                    bytes = rest;
                    Stored::Text(text)
                }
                _ => {
                    skip_field(wire, tag, &mut bytes, DecodeContext::default())
                        .map_err(|error| error.to_string())?;
                    continue;
                }
            };
            let index = (tag - 1) / FIELDS_PER_AGGREGATE;
            if let Some(accumulator) = value.get_mut(index as usize) {
                set(accumulator, tag - index * FIELDS_PER_AGGREGATE, stored)?;
            }
        }
        Ok(value)
    }

    fn heap_bytes(&self, value: &Accumulators) -> usize {
        let texts: usize = value
            .iter()
            .map(|accumulator| match accumulator {
                Accumulator::Extreme(Some(Extreme::Text(text))) => text.len(),
                _ => 0,
            })
            .sum();
        texts + if value.spilled() { value.capacity() * size_of::<Accumulator>() } else { 0 }
    }
}

#[cfg(test)]
mod tests;
