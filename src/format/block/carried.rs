//! Records of the source on their way with the rows that come from them.
//!
//! ```text
//! record  = 0: none | 1: that of the row before | 2 + the place of its partition in the header (varint), offset after
//!           that of the record before it (zigzag varint), Kafka timestamp after the row's event time (zigzag varint),
//!           key, headers, value if the block has them
//! headers = each: length of its name + 1 (varint), name, value; then 0
//! key     = 0: null | length + 1 (varint), bytes; so is the value of a header
//! value   = 0: not known | 1: null | length + 2 (varint), bytes
//! ```

use prost::encoding::encode_varint;

use super::{take, take_varint, take_zigzag, zigzag};
use crate::format::DecodeError;
use crate::record::{Records, SourceRecord, TopicPartition};

/// What goes with rows of the record of the source that they come from. Each is more than the one before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Carried {
    /// Nothing.
    #[default]
    Nothing,
    /// Where it lies, its timestamp, its key and its headers.
    Meta,
    /// Its value as well.
    Whole,
}

/// By their numbers in a header, which never change.
const CARRIED: [Carried; 3] = [Carried::Nothing, Carried::Meta, Carried::Whole];

/// What a record takes beside its bytes and the name of its topic, at most.
const RECORD_OVERHEAD_BYTES: usize = 64;
/// What of that is its partition's, in the block's header.
const PARTITION_OVERHEAD_BYTES: usize = RECORD_OVERHEAD_BYTES / 2;
/// And a header beside its own.
const HEADER_OVERHEAD_BYTES: usize = 10;

impl Carried {
    pub(super) fn of(number: u32) -> Option<Carried> {
        CARRIED.get(number as usize).copied()
    }

    /// What of a record goes with a row, in bytes, at most.
    pub fn bytes_of(self, source: &SourceRecord<'_>) -> usize {
        let topic = source.records.topic_partition().topic.len();
        let mut bytes = topic + source.key.map_or(0, <[u8]>::len) + RECORD_OVERHEAD_BYTES;
        source.records.headers(source.index, &mut |name, value| {
            bytes += name.len() + value.map_or(0, <[u8]>::len) + HEADER_OVERHEAD_BYTES;
        });
        match self {
            Carried::Nothing => 0,
            Carried::Meta => bytes,
            Carried::Whole => bytes + source.value.map_or(0, <[u8]>::len),
        }
    }
}

/// A partition of a source's topic.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SourcePartition {
    /// The topic.
    #[prost(string, tag = "1")]
    pub topic: String,
    /// The number of the partition.
    #[prost(int32, tag = "2")]
    pub partition: i32,
}

/// The records of a block while it grows.
#[derive(Debug, Default)]
pub(super) struct RecordEncoder {
    partitions: Vec<TopicPartition>,
    /// The place of the partition, the offset and the bytes of that of the row before, if that has one.
    last: Option<(usize, i64, usize)>,
    last_offset: i64,
    partition_bytes: usize,
}

impl RecordEncoder {
    /// Whether the row before comes from this record.
    pub fn holds(&self, source: &SourceRecord<'_>) -> bool {
        self.last.is_some_and(|(place, offset, _)| {
            offset == source.offset && self.partitions[place] == *source.records.topic_partition()
        })
    }

    /// What the record of the row before takes.
    pub fn last_bytes(&self) -> usize {
        self.last.map_or(0, |(_, _, bytes)| bytes)
    }

    /// What their partitions take in the header, about.
    pub fn partition_bytes(&self) -> usize {
        self.partition_bytes
    }

    /// Their partitions; leaves nothing.
    pub fn take_partitions(&mut self) -> Vec<SourcePartition> {
        let partitions = std::mem::take(self).partitions.into_iter();
        partitions
            .map(|TopicPartition { topic, partition }| SourcePartition {
                topic: topic.to_string(),
                partition,
            })
            .collect()
    }

    /// Appends that of a row with this event time.
    pub fn put(
        &mut self,
        carried: Carried,
        source: Option<&SourceRecord<'_>>,
        time_ms: i64,
        out: &mut Vec<u8>,
    ) {
        let Some(source) = source else {
            self.last = None;
            return out.push(0);
        };
        if self.holds(source) {
            return out.push(1);
        }
        let before = out.len();
        let place = self.place(source.records.topic_partition());
        encode_varint(2 + place as u64, out);
        encode_varint(zigzag(source.offset.wrapping_sub(self.last_offset)), out);
        encode_varint(zigzag(source.timestamp_ms.wrapping_sub(time_ms)), out);
        put_optional(source.key, out);
        source.records.headers(source.index, &mut |name, value| {
            put_optional(Some(name.as_bytes()), out);
            put_optional(value, out);
        });
        out.push(0);
        if carried == Carried::Whole {
            match source.value {
                None => out.push(u8::from(source.records.has_values())),
                Some(value) => put_bytes(2, value, out),
            }
        }
        self.last = Some((place, source.offset, out.len() - before));
        self.last_offset = source.offset;
    }

    fn place(&mut self, partition: &TopicPartition) -> usize {
        self.partitions.iter().position(|known| known == partition).unwrap_or_else(|| {
            self.partitions.push(partition.clone());
            self.partition_bytes += partition.topic.len() + PARTITION_OVERHEAD_BYTES;
            self.partitions.len() - 1
        })
    }
}

/// Where a row of a block comes from.
pub enum Origin<'b> {
    /// From no record, or none that was sent.
    None,
    /// From that of the row before.
    SameRecord,
    /// From this one.
    Record(CarriedRecord<'b>),
}

/// A record that came with a row.
pub struct CarriedRecord<'b> {
    partition: &'b TopicPartition,
    offset: i64,
    timestamp_ms: i64,
    key: Option<&'b [u8]>,
    /// As they stand in the block.
    headers: &'b [u8],
    /// `None`: it is not known.
    value: Option<Option<&'b [u8]>>,
}

/// The records of a block that is being read.
pub(super) struct RecordDecoder {
    carried: Carried,
    has_last: bool,
    last_offset: i64,
}

impl RecordDecoder {
    pub fn new(carried: Carried) -> RecordDecoder {
        RecordDecoder { carried, has_last: false, last_offset: 0 }
    }

    /// Takes that of a row with this event time off `bytes`; they lie in these partitions.
    pub fn take<'b>(
        &mut self,
        time_ms: i64,
        bytes: &mut &'b [u8],
        partitions: &'b [TopicPartition],
    ) -> Result<Origin<'b>, DecodeError> {
        if self.carried == Carried::Nothing {
            return Ok(Origin::None);
        }
        let damaged = |what: &str| Err(DecodeError::new(what.to_owned()));
        let place = match take_varint(bytes)? {
            0 => {
                self.has_last = false;
                return Ok(Origin::None);
            }
            1 if self.has_last => return Ok(Origin::SameRecord),
            1 => return damaged("no record stands before that of a row"),
            place => place - 2,
        };
        let Some(partition) = usize::try_from(place).ok().and_then(|place| partitions.get(place)) else {
            return damaged("the partition of a row's record is missing");
        };
        self.last_offset = self.last_offset.wrapping_add(take_zigzag(bytes)?);
        let timestamp_ms = time_ms.wrapping_add(take_zigzag(bytes)?);
        let key = take_optional(bytes)?;
        let headers = *bytes;
        while take_header(bytes)?.is_some() {}
        let headers = &headers[..headers.len() - bytes.len()];
        let value = match self.carried {
            Carried::Whole => take_value(bytes)?,
            Carried::Nothing | Carried::Meta => None,
        };
        self.has_last = true;
        let offset = self.last_offset;
        Ok(Origin::Record(CarriedRecord { partition, offset, timestamp_ms, key, headers, value }))
    }
}

impl Records for CarriedRecord<'_> {
    fn topic_partition(&self) -> &TopicPartition {
        self.partition
    }

    fn len(&self) -> usize {
        1
    }

    fn bytes(&self) -> usize {
        self.key.map_or(0, <[u8]>::len) + self.value.flatten().map_or(0, <[u8]>::len)
    }

    fn record(&self, index: usize) -> SourceRecord<'_> {
        let CarriedRecord { offset, timestamp_ms, key, value, .. } = *self;
        SourceRecord { offset, timestamp_ms, key, value: value.flatten(), records: self, index }
    }

    fn headers<'b>(&'b self, _index: usize, visit: &mut dyn FnMut(&'b str, Option<&'b [u8]>)) {
        let mut bytes = self.headers;
        // They have been read before.
        while let Ok(Some((name, value))) = take_header(&mut bytes) {
            visit(name, value);
        }
    }

    fn has_values(&self) -> bool {
        self.value.is_some()
    }
}

fn put_optional(bytes: Option<&[u8]>, out: &mut Vec<u8>) {
    let Some(bytes) = bytes else { return out.push(0) };
    put_bytes(1, bytes, out);
}

/// With their length, `above` which other things have numbers.
fn put_bytes(above: u64, bytes: &[u8], out: &mut Vec<u8>) {
    encode_varint(above + bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn take_value<'b>(bytes: &mut &'b [u8]) -> Result<Option<Option<&'b [u8]>>, DecodeError> {
    match take_varint(bytes)? {
        0 => Ok(None),
        1 => Ok(Some(None)),
        length => {
            take(bytes, usize::try_from(length - 2).unwrap_or(usize::MAX)).map(|value| Some(Some(value)))
        }
    }
}

fn take_optional<'b>(bytes: &mut &'b [u8]) -> Result<Option<&'b [u8]>, DecodeError> {
    match take_varint(bytes)?.checked_sub(1) {
        None => Ok(None),
        Some(length) => take(bytes, usize::try_from(length).unwrap_or(usize::MAX)).map(Some),
    }
}

/// Name and value of a header.
type Header<'b> = (&'b str, Option<&'b [u8]>);

/// `None` behind the last one.
fn take_header<'b>(bytes: &mut &'b [u8]) -> Result<Option<Header<'b>>, DecodeError> {
    let Some(name) = take_optional(bytes)? else { return Ok(None) };
    let name = std::str::from_utf8(name)
        .map_err(|error| DecodeError::new(format!("the name of a header: {error}")))?;
    Ok(Some((name, take_optional(bytes)?)))
}
