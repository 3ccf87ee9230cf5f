//! The records of a changelog: deltas and chunks.
//!
//! ```text
//! record  = magic (1 byte), kind (1 byte), header length (varint), header (protobuf),
//!           body length (varint), body (one zstd frame; nothing if the length is 0)
//! body    = ranges, points
//! ranges  = { from length (varint, never 0), from, to length (varint), to }, 0
//! points  = { shared (varint), suffix length (varint), suffix, value length + 1 (varint), value }
//!           a deletion has 0 for value length + 1 and no value
//! ```
//!
//! A key is the first `shared` bytes of the key before it in the same record, then the suffix. Only the
//! first record of a delta has ranges; chunks have neither ranges nor deletions. There is no checksum
//! here: Kafka's record batches have one, checked by the consumer.
//!
//! Format version 1 compressed a body as one lz4 block. The entries of a delta differ in their last digits
//! and in numbers, which have few matches for lz4 and few distinct bytes: zstd's entropy coding took a
//! quarter off the changelog of windowed counts, for some 30 ns per entry.

use std::cell::RefCell;
use std::ops::Range;

use lz4_flex::block;
use prost::Message;
use zstd_safe::{CCtx, CParameter, DCtx, compress_bound};

use super::header::{ChunkHeader, FORMAT_VERSION, Header};
use super::prefix::shared_prefix;

/// The first byte of every record. Another one stands for another framing.
pub const MAGIC: u8 = 0xd1;

/// What the lengths of an entry take in a body at most, beside its key and value.
const ENTRY_OVERHEAD_BYTES: usize = 15;
/// Of zstd's levels that which costs least per byte that it saves here.
const ZSTD_LEVEL: i32 = 1;
/// The format versions whose bodies are lz4 blocks.
const LZ4_VERSION_MAX: u32 = 1;
/// No lz4 block decompresses to more than this many times its length.
const LZ4_RATIO_MAX: usize = 255;
/// Nor does a zstd frame: a block of four bytes may stand for 128 KiB.
const ZSTD_RATIO_MAX: usize = 32 << 10;

/// The kinds of changelog records, by their second byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RecordKind {
    /// All state changes of one task in one checkpoint, or a part of them.
    Delta = 1,
    /// The entries of one key range as of one checkpoint, or a part of them.
    Chunk = 2,
}

/// A record that cannot be read. The changelog was damaged, or another version wrote it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Not a changelog record at all.
    #[error(
        "the record begins with the bytes {0:02x?}, so it is no changelog record of this version; another \
         application may write to this topic"
    )]
    Unknown(Vec<u8>),
    /// Written by a later version.
    #[error(
        "the record has format version {found}; this version of thalweg reads up to {FORMAT_VERSION}: \
         run the version that wrote it, or a later one"
    )]
    Newer {
        /// The record's version.
        found: u32,
    },
    /// Its inside contradicts itself.
    #[error("the record is damaged: {0}")]
    Damaged(&'static str),
}

/// A record's header.
#[derive(Clone, Debug, PartialEq)]
pub enum RecordHeader {
    /// Of a delta.
    Delta(Header),
    /// Of a chunk.
    Chunk(ChunkHeader),
}

impl RecordHeader {
    /// The checkpoint that the record belongs to.
    pub fn checkpoint(&self) -> u64 {
        match self {
            RecordHeader::Delta(header) => header.checkpoint,
            RecordHeader::Chunk(header) => header.checkpoint,
        }
    }

    fn format_version(&self) -> u32 {
        match self {
            RecordHeader::Delta(header) => header.format_version,
            RecordHeader::Chunk(header) => header.format_version,
        }
    }

    fn check(self) -> Result<RecordHeader, CodecError> {
        let (part, parts) = match &self {
            RecordHeader::Delta(header) => (header.part, header.parts),
            RecordHeader::Chunk(header) => (header.part, header.parts),
        };
        let version = self.format_version();
        if version > FORMAT_VERSION {
            return Err(CodecError::Newer { found: version });
        }
        if version == 0 || part >= parts {
            return Err(CodecError::Damaged("the header has no version, or a part beyond the last"));
        }
        Ok(self)
    }
}

/// Writes deltas. One instance serves a task for ever: [`finish`](DeltaWriter::finish) leaves it empty
/// and keeps its buffers.
///
/// First the ranges, then the points in ascending order of keys, each key once; the points survive the
/// ranges. Adding one costs some 30 ns.
pub struct DeltaWriter(BodyWriter);

impl DeltaWriter {
    /// A record's body has at most `part_bytes_max` bytes before compression, with two exceptions: an
    /// entry that is larger by itself has a record of its own, and all ranges stand in the first
    /// record. So the caller sees to it that an entry's key and value, and the sum of a checkpoint's
    /// ranges, stay below what the topic takes (`max.message.bytes`) less 10 % for what framing adds
    /// to bytes that cannot be compressed and less the header.
    pub fn new(part_bytes_max: usize) -> DeltaWriter {
        DeltaWriter(BodyWriter::new(part_bytes_max))
    }

    /// Deletes the keys of `from..to` that were there before this checkpoint. Before all points.
    pub fn delete_range(&mut self, from: &[u8], to: &[u8]) {
        self.0.range(from, to);
    }

    /// Sets a key. Keys come in ascending order.
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        self.0.point(key, Some(value));
    }

    /// Deletes a key. Keys come in ascending order.
    pub fn delete(&mut self, key: &[u8]) {
        self.0.point(key, None);
    }

    /// The bytes of bodies so far, before compression.
    pub fn body_bytes(&self) -> usize {
        self.0.bodies.len()
    }

    /// The delta's records, in the order in which they go to the log; at least one. `header` gives
    /// everything but `format_version`, `part` and `parts`.
    pub fn finish(&mut self, header: &Header) -> Vec<Vec<u8>> {
        self.0.finish(RecordKind::Delta, |part, parts, out| {
            let format_version = FORMAT_VERSION;
            let (header, checkpoint) = match part {
                0 => (header.clone(), header.checkpoint),
                _ => (Header::default(), header.checkpoint),
            };
            encode_message(&Header { format_version, checkpoint, part, parts, ..header }, out);
        })
    }
}

/// Writes chunks. One instance serves a task for ever, as a [`DeltaWriter`] does.
pub struct ChunkWriter(BodyWriter);

impl ChunkWriter {
    /// The limit is that of [`DeltaWriter::new`].
    pub fn new(part_bytes_max: usize) -> ChunkWriter {
        ChunkWriter(BodyWriter::new(part_bytes_max))
    }

    /// Adds an entry. Keys come in ascending order, within the range that `finish` is given.
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        self.0.point(key, Some(value));
    }

    /// The bytes of bodies so far, before compression.
    pub fn body_bytes(&self) -> usize {
        self.0.bodies.len()
    }

    /// The records of the chunk that holds all entries of `from..to` as of `checkpoint`, in the order
    /// in which they go to the log, right after the delta's; at least one.
    pub fn finish(&mut self, checkpoint: u64, from: &[u8], to: &[u8]) -> Vec<Vec<u8>> {
        debug_assert!(from <= to && (self.0.key.is_empty() || &self.0.key[..] < to));
        self.0.finish(RecordKind::Chunk, |part, parts, out| {
            let (from, to) = (from.to_vec(), to.to_vec());
            encode_message(
                &ChunkHeader { format_version: FORMAT_VERSION, checkpoint, part, parts, from, to },
                out,
            );
        })
    }
}

/// Collects the bodies of a delta's or chunk's records, one after the other in one buffer.
struct BodyWriter {
    part_bytes_max: usize,
    bodies: Vec<u8>,
    /// Where each body before the last ends.
    ends: Vec<usize>,
    /// Where the last body begins.
    start: usize,
    /// The last body's ranges are ended: points may follow.
    ranges_ended: bool,
    /// The key before, over all bodies.
    key: Vec<u8>,
    /// The last body has a point, so that the next key shares a prefix with `key`.
    has_point: bool,
    header: Vec<u8>,
}

impl BodyWriter {
    fn new(part_bytes_max: usize) -> BodyWriter {
        BodyWriter {
            part_bytes_max,
            bodies: Vec::new(),
            ends: Vec::new(),
            start: 0,
            ranges_ended: false,
            key: Vec::new(),
            has_point: false,
            header: Vec::new(),
        }
    }

    fn range(&mut self, from: &[u8], to: &[u8]) {
        debug_assert!(!self.ranges_ended, "ranges stand before points");
        debug_assert!(!from.is_empty() && from < to, "a range holds something: {from:?}..{to:?}");
        put_bytes(&mut self.bodies, from);
        put_bytes(&mut self.bodies, to);
    }

    fn point(&mut self, key: &[u8], value: Option<&[u8]>) {
        debug_assert!(&self.key[..] < key, "keys ascend: {:?} before {key:?}", self.key);
        if !self.ranges_ended {
            self.bodies.push(0);
            self.ranges_ended = true;
        }
        let entry_bytes = key.len() + value.map_or(0, <[u8]>::len) + ENTRY_OVERHEAD_BYTES;
        let part_bytes = self.bodies.len() - self.start;
        if part_bytes > 1 && part_bytes + entry_bytes > self.part_bytes_max {
            self.ends.push(self.bodies.len());
            self.start = self.bodies.len();
            self.bodies.push(0);
            self.has_point = false;
        }
        let shared = if self.has_point { shared_prefix(&self.key, key) } else { 0 };
        let suffix = &key[shared..];
        put_varint(&mut self.bodies, shared);
        put_bytes(&mut self.bodies, suffix);
        match value {
            Some(value) => {
                put_varint(&mut self.bodies, value.len() + 1);
                self.bodies.extend_from_slice(value);
            }
            None => self.bodies.push(0),
        }
        self.key.truncate(shared);
        self.key.extend_from_slice(suffix);
        self.has_point = true;
    }

    /// Compresses the bodies into records, whose headers `header` writes, given part and parts.
    fn finish(&mut self, kind: RecordKind, header: impl Fn(u32, u32, &mut Vec<u8>)) -> Vec<Vec<u8>> {
        self.ends.push(self.bodies.len());
        let parts = self.ends.len() as u32;
        let mut records = Vec::with_capacity(self.ends.len());
        let mut start = 0;
        for (part, &end) in self.ends.iter().enumerate() {
            header(part as u32, parts, &mut self.header);
            records.push(write_record(kind, &self.header, &self.bodies[start..end]));
            start = end;
        }
        self.clear();
        records
    }

    fn clear(&mut self) {
        self.bodies.clear();
        self.ends.clear();
        self.start = 0;
        self.ranges_ended = false;
        self.key.clear();
        self.has_point = false;
    }
}

fn encode_message(message: &impl Message, out: &mut Vec<u8>) {
    out.clear();
    // Infallible: a Vec grows.
    let _ = message.encode(out);
}

thread_local! {
    /// What zstd needs, up to some 700 KiB: once per thread, however many tasks it has.
    static ZSTD: RefCell<Zstd> = RefCell::new(Zstd::new());
}

struct Zstd {
    writing: CCtx<'static>,
    reading: DCtx<'static>,
    /// As large as the largest frame so far may have been.
    frame: Vec<u8>,
}

impl Zstd {
    fn new() -> Zstd {
        let mut writing = CCtx::create();
        // The body's length stands before the frame.
        for parameter in [CParameter::CompressionLevel(ZSTD_LEVEL), CParameter::ContentSizeFlag(false)] {
            let set = writing.set_parameter(parameter);
            debug_assert!(set.is_ok(), "zstd has these parameters");
        }
        Zstd { writing, reading: DCtx::create(), frame: Vec::new() }
    }

    fn compress(&mut self, body: &[u8]) -> &[u8] {
        let frame_bytes_max = compress_bound(body.len());
        if self.frame.len() < frame_bytes_max {
            self.frame.resize(frame_bytes_max, 0);
        }
        match self.writing.compress2(&mut self.frame[..], body) {
            Ok(bytes) => &self.frame[..bytes],
            // The output has the size that zstd asks for, so only memory can be missing: as for a Vec.
            Err(code) => panic!("zstd: {}", zstd_safe::get_error_name(code)),
        }
    }
}

fn write_record(kind: RecordKind, header: &[u8], body: &[u8]) -> Vec<u8> {
    ZSTD.with_borrow_mut(|zstd| {
        let frame = if body.is_empty() { &[] } else { zstd.compress(body) };
        let mut record = Vec::with_capacity(2 + 20 + header.len() + frame.len());
        record.extend_from_slice(&[MAGIC, kind as u8]);
        put_bytes(&mut record, header);
        put_varint(&mut record, body.len());
        record.extend_from_slice(frame);
        record
    })
}

/// A changelog record, decompressed and checked.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its header.
    pub header: RecordHeader,
    body: Vec<u8>,
    /// Where the ranges' bounds lie in the body.
    ranges: Vec<(Range<usize>, Range<usize>)>,
    points_start: usize,
    size: Size,
}

/// What the points of a record come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// How many there are.
    pub points: usize,
    /// The bytes of their keys, each in full, and of their values.
    pub bytes: usize,
}

impl Record {
    /// The range deletions, in the order in which they were written. They come before the points.
    pub fn ranges(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.ranges.iter().map(|(from, to)| (&self.body[from.clone()], &self.body[to.clone()]))
    }

    /// The points, in ascending order of keys.
    pub fn points(&self) -> PointCursor<'_> {
        PointCursor { rest: &self.body[self.points_start..], key: Vec::new() }
    }

    /// What the points come to.
    pub fn size(&self) -> Size {
        self.size
    }

    /// Its points alone, for later.
    pub fn into_points(self) -> RecordPoints {
        RecordPoints { body: self.body, start: self.points_start }
    }
}

/// The points of a [`Record`] without the rest.
#[derive(Clone, Debug)]
pub struct RecordPoints {
    body: Vec<u8>,
    start: usize,
}

impl RecordPoints {
    /// The memory that they take.
    pub fn body_bytes(&self) -> usize {
        self.body.capacity()
    }

    /// As [`Record::points`].
    pub fn points(&self) -> PointCursor<'_> {
        PointCursor { rest: &self.body[self.start..], key: Vec::new() }
    }
}

/// A point of a record: a key and its new value; `None` deletes it. The key is valid until the next
/// point, the value as long as the record.
pub type Point<'p, 'r> = (&'p [u8], Option<&'r [u8]>);

/// Goes through the points of a [`Record`].
pub struct PointCursor<'r> {
    rest: &'r [u8],
    key: Vec<u8>,
}

impl<'r> PointCursor<'r> {
    /// The next point; `None` after the last.
    // Not an Iterator: the key lives in a buffer that the next point overwrites.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Option<Point<'_, 'r>> {
        if self.rest.is_empty() {
            return None;
        }
        let point = take_point(&mut self.rest, self.key.len());
        debug_assert!(point.is_ok(), "`read_record` has checked all of them");
        let (shared, suffix, value) = point.ok()?;
        self.key.truncate(shared);
        self.key.extend_from_slice(suffix);
        Some((&self.key, value))
    }
}

/// Reads and decompresses a record, and checks all of it.
pub fn read_record(record: &[u8]) -> Result<Record, CodecError> {
    let (header, mut compressed) = split_record(record)?;
    let body_bytes = take_varint(&mut compressed)?;
    if u32::try_from(body_bytes).is_err() {
        return Err(CodecError::Damaged("the body has 4 GiB or more"));
    }
    let body = decompress(header.format_version(), compressed, body_bytes)
        .ok_or(CodecError::Damaged("the body does not decompress to its length"))?;
    let (ranges, points_start) = read_ranges(&body)?;
    let may_have_ranges = matches!(&header, RecordHeader::Delta(header) if header.part == 0);
    if !ranges.is_empty() && !may_have_ranges {
        return Err(CodecError::Damaged("ranges outside the first record of a delta"));
    }
    let may_delete = matches!(&header, RecordHeader::Delta(_));
    let size = check_points(&body[points_start..], may_delete)?;
    Ok(Record { header, body, ranges, points_start, size })
}

/// A body of a given length; `None` if it is none of the version's, or has another length.
fn decompress(version: u32, compressed: &[u8], body_bytes: usize) -> Option<Vec<u8>> {
    let is_lz4 = version <= LZ4_VERSION_MAX;
    let ratio_max = if is_lz4 { LZ4_RATIO_MAX } else { ZSTD_RATIO_MAX };
    if body_bytes > compressed.len().saturating_mul(ratio_max) {
        return None;
    }
    let mut body = vec![0; body_bytes];
    let bytes = match is_lz4 {
        _ if body.is_empty() => 0,
        true => block::decompress_into(compressed, &mut body).ok()?,
        false => ZSTD.with_borrow_mut(|zstd| zstd.reading.decompress(&mut body[..], compressed)).ok()?,
    };
    (bytes == body_bytes).then_some(body)
}

/// Reads a record's header only.
pub fn read_header(record: &[u8]) -> Result<RecordHeader, CodecError> {
    split_record(record).map(|(header, _)| header)
}

/// The header, and what follows it.
fn split_record(record: &[u8]) -> Result<(RecordHeader, &[u8]), CodecError> {
    let unknown = || CodecError::Unknown(record[..record.len().min(2)].to_vec());
    let [MAGIC, kind, rest @ ..] = record else { return Err(unknown()) };
    let mut rest = rest;
    let bytes = take_bytes(&mut rest)?;
    let damaged = |_| CodecError::Damaged("the header is no message of its kind");
    let header = if *kind == RecordKind::Delta as u8 {
        RecordHeader::Delta(Header::decode(bytes).map_err(damaged)?)
    } else if *kind == RecordKind::Chunk as u8 {
        RecordHeader::Chunk(ChunkHeader::decode(bytes).map_err(damaged)?)
    } else {
        return Err(unknown());
    };
    Ok((header.check()?, rest))
}

type BodyRange = Range<usize>;

/// The places of the ranges' bounds in a body, and where its points start.
fn read_ranges(body: &[u8]) -> Result<(Vec<(BodyRange, BodyRange)>, usize), CodecError> {
    let mut ranges = Vec::new();
    let mut rest = body;
    let place = |slice: &[u8], rest: &[u8]| {
        let end = body.len() - rest.len();
        end - slice.len()..end
    };
    // A body of ranges alone, or of nothing, need not end them.
    while !rest.is_empty() {
        let from = take_bytes(&mut rest)?;
        let from_place = place(from, rest);
        if from.is_empty() {
            break;
        }
        let to = take_bytes(&mut rest)?;
        if from >= to {
            return Err(CodecError::Damaged("a range ends before it begins"));
        }
        ranges.push((from_place, place(to, rest)));
    }
    Ok((ranges, body.len() - rest.len()))
}

/// What the points of a body come to; an error if they are not as they must be.
fn check_points(mut points: &[u8], may_delete: bool) -> Result<Size, CodecError> {
    let (mut size, mut key) = (Size::default(), Vec::new());
    while !points.is_empty() {
        let (shared, suffix, value) = take_point(&mut points, key.len())?;
        if size.points > 0 && *suffix <= key[shared..] {
            return Err(CodecError::Damaged("its keys do not ascend"));
        }
        if value.is_none() && !may_delete {
            return Err(CodecError::Damaged("a chunk deletes a key"));
        }
        key.truncate(shared);
        key.extend_from_slice(suffix);
        size.points += 1;
        size.bytes += key.len() + value.map_or(0, <[u8]>::len);
    }
    Ok(size)
}

/// A point as it is stored: how much its key shares with the one before it; the key's suffix; the value.
type StoredPoint<'r> = (usize, &'r [u8], Option<&'r [u8]>);

/// The next point, after one whose key has `key_bytes`.
#[inline]
fn take_point<'r>(rest: &mut &'r [u8], key_bytes: usize) -> Result<StoredPoint<'r>, CodecError> {
    let shared = take_varint(rest)?;
    let suffix = take_bytes(rest)?;
    if shared > key_bytes {
        return Err(CodecError::Damaged("a key shares more than the key before it has"));
    }
    let value = match take_varint(rest)? {
        0 => None,
        length => Some(take(rest, length - 1)?),
    };
    Ok((shared, suffix, value))
}

fn put_varint(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn take_varint(rest: &mut &[u8]) -> Result<usize, CodecError> {
    let mut value = 0u64;
    for shift in (0..=63).step_by(7) {
        let (&byte, tail) = rest.split_first().ok_or(CodecError::Damaged("it ends within a number"))?;
        *rest = tail;
        if shift == 63 && byte > 1 {
            break;
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return usize::try_from(value).map_err(|_| CodecError::Damaged("a number is too large"));
        }
    }
    Err(CodecError::Damaged("a number is too large"))
}

fn take<'r>(rest: &mut &'r [u8], length: usize) -> Result<&'r [u8], CodecError> {
    let (bytes, tail) =
        rest.split_at_checked(length).ok_or(CodecError::Damaged("it ends within a key or value"))?;
    *rest = tail;
    Ok(bytes)
}

fn take_bytes<'r>(rest: &mut &'r [u8]) -> Result<&'r [u8], CodecError> {
    let length = take_varint(rest)?;
    take(rest, length)
}

#[cfg(test)]
mod tests;
