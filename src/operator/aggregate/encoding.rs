//! How accumulators are stored.
//!
//! They are one protobuf message: aggregate number i has the fields 4i + 1 (a whole number), 4i + 2 (a double),
//! 4i + 3 (text, or a message) and 4i + 4 (a count), of which it writes those that it needs. Readers skip fields that
//! they do not know.

use prost::Message;
use prost::bytes::Buf;
use prost::encoding::{
    DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, skip_field,
};

use super::accumulator::{Accumulator, Accumulators, Best, Held, Moments, Timed, heap_bytes};
use super::collected::{Collected, Top};
use super::ddsketch::{Buckets, DdSketch};
use super::distinct::{Distinct, Texts};
use super::hyperloglog::{HASHES_MAX, HyperLogLog, RANK_MAX};
use super::told::KeptTold;
use super::{Aggregator, RowAggregates, Told};
use crate::planted::{Bug, is_planted};
use crate::state::ValueCodec;
use crate::window::WindowRange;

const WHOLE: u32 = 1;
const DOUBLE: u32 = 2;
const TEXT: u32 = 3;
const COUNT: u32 = 4;
const FIELDS_PER_AGGREGATE: u32 = 4;

/// [`Moments`].
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct MomentsMessage {
    #[prost(int64, tag = "1")]
    count: i64,
    #[prost(double, tag = "2")]
    mean: f64,
    #[prost(double, tag = "3")]
    squares: f64,
}

/// [`Timed`], and [`Best`] with `by`.
#[derive(Clone, PartialEq, prost::Message)]
struct TimedMessage {
    #[prost(sint64, tag = "1")]
    time_ms: i64,
    #[prost(message, optional, tag = "2")]
    value: Option<HeldMessage>,
    #[prost(message, optional, tag = "3")]
    by: Option<HeldMessage>,
}

/// [`Held`].
#[derive(Clone, PartialEq, prost::Message)]
struct HeldMessage {
    #[prost(oneof = "HeldValue", tags = "1, 2, 3, 4, 5, 6")]
    value: Option<HeldValue>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum HeldValue {
    #[prost(sint64, tag = "1")]
    Whole(i64),
    #[prost(double, tag = "2")]
    Double(f64),
    #[prost(string, tag = "3")]
    Text(String),
    #[prost(bool, tag = "4")]
    Bool(bool),
    #[prost(bytes = "vec", tag = "5")]
    Bytes(Vec<u8>),
    #[prost(message, tag = "6")]
    List(HeldsMessage),
}

/// [`Distinct`]: in ascending order, so that equal sets have equal bytes.
#[derive(Clone, PartialEq, prost::Message)]
struct DistinctMessage {
    /// The first number, and how much greater each is than the one before.
    #[prost(uint64, repeated, tag = "1")]
    numbers: Vec<u64>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    texts: Vec<Vec<u8>>,
}

/// [`HyperLogLog`]: one of the two.
#[derive(Clone, PartialEq, prost::Message)]
struct HyperLogLogMessage {
    /// In ascending order.
    #[prost(fixed64, repeated, tag = "1")]
    hashes: Vec<u64>,
    /// A byte each, of which the changelog's compression makes some three bits.
    #[prost(bytes = "vec", tag = "2")]
    registers: Vec<u8>,
}

/// [`DdSketch`]: buckets as [`Buckets::numbers`] gives them.
#[derive(Clone, PartialEq, prost::Message)]
struct DdSketchMessage {
    #[prost(uint64, tag = "1")]
    zeros: u64,
    #[prost(uint64, repeated, tag = "2")]
    positive: Vec<u64>,
    #[prost(uint64, repeated, tag = "3")]
    negative: Vec<u64>,
}

impl From<&Distinct> for DistinctMessage {
    fn from(distinct: &Distinct) -> DistinctMessage {
        match distinct {
            Distinct::Numbers(numbers) => {
                let mut before = 0;
                let distance = |number: &u64| number - std::mem::replace(&mut before, *number);
                DistinctMessage { numbers: numbers.iter().map(distance).collect(), texts: Vec::new() }
            }
            Distinct::Texts(texts) => {
                let texts = texts.sorted().iter().map(|text| text.to_vec()).collect();
                DistinctMessage { numbers: Vec::new(), texts }
            }
        }
    }
}

impl DistinctMessage {
    /// Sets `distinct`, which knows what it holds.
    fn set(self, distinct: &mut Distinct) -> Option<()> {
        match distinct {
            Distinct::Numbers(numbers) => {
                let mut sum = 0_u64;
                let mut number = |(place, distance): (usize, &u64)| {
                    sum = sum.checked_add(*distance)?;
                    (place == 0 || *distance > 0).then_some(sum)
                };
                *numbers = self.numbers.iter().enumerate().map(&mut number).collect::<Option<_>>()?;
            }
            Distinct::Texts(texts) => {
                *texts = Texts::of(self.texts.into_iter().map(Vec::into_boxed_slice).collect())?;
            }
        }
        Some(())
    }
}

impl From<&HyperLogLog> for HyperLogLogMessage {
    fn from(sketch: &HyperLogLog) -> HyperLogLogMessage {
        let (hashes, registers) = match sketch {
            HyperLogLog::Hashes(hashes) => (hashes.clone(), Vec::new()),
            HyperLogLog::Registers(registers) => (Vec::new(), registers.to_vec()),
        };
        HyperLogLogMessage { hashes, registers }
    }
}

impl HyperLogLogMessage {
    fn sketch(self) -> Option<HyperLogLog> {
        if self.registers.is_empty() {
            let hashes = self.hashes;
            let sound = hashes.len() <= HASHES_MAX && hashes.is_sorted_by(|a, b| a < b);
            return sound.then_some(HyperLogLog::Hashes(hashes));
        }
        let registers: Box<[u8; _]> = self.registers.into_boxed_slice().try_into().ok()?;
        let sound = self.hashes.is_empty() && registers.iter().all(|rank| *rank <= RANK_MAX);
        sound.then_some(HyperLogLog::Registers(registers))
    }
}

impl From<&DdSketch> for DdSketchMessage {
    fn from(sketch: &DdSketch) -> DdSketchMessage {
        let (positive, negative) = (sketch.positive.numbers(), sketch.negative.numbers());
        DdSketchMessage { zeros: sketch.zeros, positive, negative }
    }
}

impl DdSketchMessage {
    fn sketch(self) -> Option<DdSketch> {
        let (positive, negative) = (Buckets::of(&self.positive)?, Buckets::of(&self.negative)?);
        Some(DdSketch { zeros: self.zeros, positive, negative })
    }
}

impl From<&Held> for HeldMessage {
    fn from(held: &Held) -> HeldMessage {
        let value = match held {
            Held::Whole(value) => HeldValue::Whole(*value),
            Held::Double(value) => HeldValue::Double(*value),
            Held::Text(text) => HeldValue::Text(text.to_string()),
            Held::Bool(value) => HeldValue::Bool(*value),
            Held::Bytes(bytes) => HeldValue::Bytes(bytes.to_vec()),
            Held::List(elements) => HeldValue::List(HeldsMessage::of(elements)),
        };
        HeldMessage { value: Some(value) }
    }
}

impl HeldMessage {
    fn held(self) -> Option<Held> {
        Some(match self.value? {
            HeldValue::Whole(value) => Held::Whole(value),
            HeldValue::Double(value) => Held::Double(value),
            HeldValue::Text(text) => Held::Text(text.into()),
            HeldValue::Bool(value) => Held::Bool(value),
            HeldValue::Bytes(bytes) => Held::Bytes(bytes.into()),
            HeldValue::List(list) => Held::List(list.values.into_iter().map(HeldMessage::held).collect()),
        })
    }
}

/// Values by themselves, or of a list.
#[derive(Clone, PartialEq, prost::Message)]
struct HeldsMessage {
    /// One without a value is null.
    #[prost(message, repeated, tag = "1")]
    values: Vec<HeldMessage>,
}

impl HeldsMessage {
    fn of(values: &[Option<Held>]) -> HeldsMessage {
        let message = |held: &Option<Held>| held.as_ref().map(HeldMessage::from).unwrap_or_default();
        HeldsMessage { values: values.iter().map(message).collect() }
    }
}

/// [`Top`].
#[derive(Clone, PartialEq, prost::Message)]
struct TopMessage {
    /// From the greatest on.
    #[prost(message, repeated, tag = "1")]
    rows: Vec<TimedMessage>,
}

impl TimedMessage {
    fn of(best: &Best) -> TimedMessage {
        let value = best.value.as_ref().map(HeldMessage::from);
        TimedMessage { time_ms: best.time_ms, value, by: Some(HeldMessage::from(&best.by)) }
    }

    fn best(self) -> Option<Best> {
        let (value, time_ms) = (self.value.and_then(HeldMessage::held), self.time_ms);
        self.by.and_then(HeldMessage::held).map(|by| Best { by, time_ms, value })
    }
}

/// Appends values that are kept by themselves, in their order; `None` is null.
pub(in crate::operator) fn encode_held(values: &[Option<Held>], bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&HeldsMessage::of(values).encode_to_vec());
}

/// The values of bytes that `encode_held` wrote.
pub(in crate::operator) fn decode_held(bytes: &[u8]) -> Result<Box<[Option<Held>]>, String> {
    let message: HeldsMessage = decode_message(bytes)?;
    Ok(message.values.into_iter().map(HeldMessage::held).collect())
}

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

fn put_text(field: u32, text: &[u8], bytes: &mut Vec<u8>) {
    encode_key(field, WireType::LengthDelimited, bytes);
    encode_varint(text.len() as u64, bytes);
    bytes.extend_from_slice(text);
}

fn put_message(field: u32, message: &impl Message, bytes: &mut Vec<u8>) {
    put_text(field, &message.encode_to_vec(), bytes);
}

fn put(accumulator: &Accumulator, base: u32, bytes: &mut Vec<u8>) {
    match accumulator {
        Accumulator::Count(count) => put_count(base + COUNT, *count, bytes),
        Accumulator::SumInt(Some(sum)) => put_whole(base + WHOLE, *sum, bytes),
        Accumulator::SumDouble(Some(sum)) => put_double(base + DOUBLE, *sum, bytes),
        Accumulator::Avg { sum, count } => {
            put_double(base + DOUBLE, *sum, bytes);
            put_count(base + COUNT, *count, bytes);
        }
        Accumulator::Extreme(Some(Held::Whole(value))) => put_whole(base + WHOLE, *value, bytes),
        Accumulator::Extreme(Some(Held::Double(value))) => put_double(base + DOUBLE, *value, bytes),
        Accumulator::Extreme(Some(Held::Text(text))) => put_text(base + TEXT, text.as_bytes(), bytes),
        Accumulator::Moments(moments) => {
            let Moments { count, mean, squares } = **moments;
            put_message(base + TEXT, &MomentsMessage { count, mean, squares }, bytes);
        }
        Accumulator::Timed(Some(timed)) => {
            let value = Some(HeldMessage::from(&timed.value));
            put_message(base + TEXT, &TimedMessage { time_ms: timed.time_ms, value, by: None }, bytes);
        }
        Accumulator::Best(Some(best)) => {
            put_message(base + TEXT, &TimedMessage::of(best), bytes);
        }
        Accumulator::Distinct(distinct) => {
            put_message(base + TEXT, &DistinctMessage::from(&**distinct), bytes)
        }
        Accumulator::HyperLogLog(sketch) => {
            put_message(base + TEXT, &HyperLogLogMessage::from(&**sketch), bytes)
        }
        Accumulator::DdSketch(sketch) => put_message(base + TEXT, &DdSketchMessage::from(&**sketch), bytes),
        Accumulator::Collected(collected) => {
            let values = collected.values().iter().map(HeldMessage::from).collect();
            put_message(base + TEXT, &HeldsMessage { values }, bytes);
        }
        Accumulator::Top(top) => {
            let rows = top.rows().iter().map(TimedMessage::of).collect();
            put_message(base + TEXT, &TopMessage { rows }, bytes);
        }
        // What is told is written by those who know how accumulators are.
        Accumulator::Told(_)
        // Over nothing. No order is defined for bools and bytes, so that they are no extremes.
        | Accumulator::SumInt(None)
        | Accumulator::SumDouble(None)
        | Accumulator::Extreme(_)
        | Accumulator::Timed(None)
        | Accumulator::Best(None) => {}
    }
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

/// Sets the accumulator from a field of it. A field that it does not know is left alone.
fn set(accumulator: &mut Accumulator, field: u32, value: Stored<'_>) -> Result<(), String> {
    match (accumulator, field, value) {
        (Accumulator::Count(count), COUNT, Stored::Varint(value)) => *count = value as i64,
        (Accumulator::SumInt(sum), WHOLE, Stored::Varint(value)) => *sum = Some(zigzag(value)),
        (Accumulator::SumDouble(sum), DOUBLE, Stored::Double(value)) => *sum = Some(value),
        (Accumulator::Avg { sum, .. }, DOUBLE, Stored::Double(value)) => *sum = value,
        (Accumulator::Avg { count, .. }, COUNT, Stored::Varint(value)) => *count = value as i64,
        (Accumulator::Extreme(best), WHOLE, Stored::Varint(value)) => {
            *best = Some(Held::Whole(zigzag(value)))
        }
        (Accumulator::Extreme(best), DOUBLE, Stored::Double(value)) => *best = Some(Held::Double(value)),
        (Accumulator::Extreme(best), TEXT, Stored::Text(value)) => {
            let text = std::str::from_utf8(value).map_err(|error| error.to_string())?;
            *best = Some(Held::Text(text.into()));
        }
        (Accumulator::Moments(moments), TEXT, Stored::Text(value)) => {
            let MomentsMessage { count, mean, squares } = decode_message(value)?;
            **moments = Moments { count, mean, squares };
        }
        (Accumulator::Timed(timed), TEXT, Stored::Text(value)) => {
            let message: TimedMessage = decode_message(value)?;
            let value = message.value.and_then(HeldMessage::held);
            *timed = value.map(|value| Box::new(Timed { time_ms: message.time_ms, value }));
        }
        (Accumulator::Best(best), TEXT, Stored::Text(value)) => {
            let message: TimedMessage = decode_message(value)?;
            *best = message.best().map(Box::new);
        }
        (Accumulator::Distinct(distinct), TEXT, Stored::Text(value)) => {
            let message: DistinctMessage = decode_message(value)?;
            message.set(distinct).ok_or("different values are not in their order")?;
        }
        (Accumulator::HyperLogLog(sketch), TEXT, Stored::Text(value)) => {
            let message: HyperLogLogMessage = decode_message(value)?;
            **sketch = message.sketch().ok_or("a HyperLogLog is damaged")?;
        }
        (Accumulator::DdSketch(sketch), TEXT, Stored::Text(value)) => {
            let message: DdSketchMessage = decode_message(value)?;
            **sketch = message.sketch().ok_or("a DDSketch is damaged")?;
        }
        (Accumulator::Collected(collected), TEXT, Stored::Text(value)) => {
            let message: HeldsMessage = decode_message(value)?;
            let values = message.values.into_iter().map(HeldMessage::held).collect::<Option<Vec<_>>>();
            **collected = Collected::of(values.ok_or("a collected value is none")?);
        }
        (Accumulator::Top(top), TEXT, Stored::Text(value)) => {
            let message: TopMessage = decode_message(value)?;
            let rows = message.rows.into_iter().map(TimedMessage::best).collect::<Option<Vec<_>>>();
            **top = rows.and_then(Top::of).ok_or("the greatest are not in their order")?;
        }
        _ => {}
    }
    Ok(())
}

fn decode_message<M: Message + Default>(bytes: &[u8]) -> Result<M, String> {
    M::decode(bytes).map_err(|error| error.to_string())
}

impl ValueCodec for RowAggregates {
    type Value = Accumulators;

    fn encode(&self, value: &Accumulators, bytes: &mut Vec<u8>) {
        for (index, accumulator) in value.iter().enumerate() {
            let base = index as u32 * FIELDS_PER_AGGREGATE;
            match accumulator {
                Accumulator::Told(Some(_)) if is_planted(Bug::ToldNotStored) => {}
                Accumulator::Told(Some(kept)) => put_message(base + TEXT, &self.told_message(kept), bytes),
                accumulator => put(accumulator, base, bytes),
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
            let field = tag - index * FIELDS_PER_AGGREGATE;
            match (value.get_mut(index as usize), stored) {
                (Some(Accumulator::Told(kept)), Stored::Text(bytes)) if field == TEXT => {
                    *kept = self.kept_told(decode_message(bytes)?)?.kept();
                }
                (Some(accumulator), stored) => set(accumulator, field, stored)?,
                (None, _) => {}
            }
        }
        Ok(value)
    }

    fn heap_bytes(&self, value: &Accumulators) -> usize {
        heap_bytes(value)
    }
}

/// [`KeptTold`]: `is_current` and `before` are two kinds of [`Told`], and without both it is the third.
#[derive(Clone, PartialEq, prost::Message)]
struct ToldMessage {
    #[prost(bool, tag = "1")]
    is_hollow: bool,
    #[prost(bool, tag = "2")]
    is_current: bool,
    #[prost(message, optional, tag = "3")]
    before: Option<BeforeMessage>,
}

/// [`Told::Before`].
#[derive(Clone, PartialEq, prost::Message)]
struct BeforeMessage {
    #[prost(bool, tag = "1")]
    has_fired: bool,
    #[prost(message, optional, tag = "2")]
    row: Option<ToldRowMessage>,
}

/// A window, and its accumulators as they are stored.
#[derive(Clone, PartialEq, prost::Message)]
struct ToldRowMessage {
    #[prost(sint64, tag = "1")]
    start_ms: i64,
    #[prost(int64, tag = "2")]
    length_ms: i64,
    #[prost(bytes = "vec", tag = "3")]
    value: Vec<u8>,
}

impl RowAggregates {
    fn told_message(&self, kept: &KeptTold) -> ToldMessage {
        let row = kept.told.row().map(|(window, value)| {
            let mut bytes = Vec::new();
            self.encode(value, &mut bytes);
            let WindowRange { start_ms, end_ms } = window;
            ToldRowMessage { start_ms, length_ms: end_ms - start_ms, value: bytes }
        });
        let before = match kept.told {
            Told::Before { has_fired, .. } => Some(BeforeMessage { has_fired, row }),
            Told::WithFiring | Told::Current => None,
        };
        let is_current = matches!(kept.told, Told::Current);
        ToldMessage { is_hollow: kept.is_hollow, is_current, before }
    }

    fn kept_told(&self, message: ToldMessage) -> Result<KeptTold, String> {
        let ToldMessage { is_hollow, is_current, before } = message;
        let told = match before {
            Some(BeforeMessage { has_fired, row }) => {
                let row = row.map(|ToldRowMessage { start_ms, length_ms, value }| {
                    let end_ms =
                        start_ms.checked_add(length_ms).ok_or("a window that was told is out of range")?;
                    Ok::<_, String>((WindowRange { start_ms, end_ms }, self.decode(&value)?))
                });
                Told::Before { row: row.transpose()?, has_fired }
            }
            None if is_current => Told::Current,
            None => Told::WithFiring,
        };
        Ok(KeptTold { is_hollow, told })
    }
}
