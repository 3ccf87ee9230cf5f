//! Blocks: rows on their way between the stages of an application, many in one record.
//!
//! ```text
//! block  = header length (varint), header (protobuf), rows
//! row    = event time after that of the row before (zigzag varint), its record of the source if the block carries
//!          them (see `carried`), its fields in the order of the layout
//! field  = 1 byte if it may be null: 0 if it is, and nothing else; value
//! value  = bool: 1 byte | int, duration: zigzag varint | timestamp: zigzag varint, after the event time
//!        | double: 8 bytes, little-endian | string, bytes: length (varint), bytes
//!        | list: length (varint), its elements as fields
//! ```
//!
//! A block says what its rows look like, so that those that are on their way when a topology changes are still
//! read: a field that has come since is null, one that has gone is passed over. Its version tells programs apart that
//! know of records with the rows: a block without them has the first one.

mod carried;

use std::sync::Arc;

use bumpalo::Bump;
use prost::Message;
use prost::encoding::{decode_varint, encode_varint};

use super::DecodeError;
use crate::record::{ListType, Row, Schema, Slot, SourceRecord, TopicPartition, Type};

use carried::{RecordDecoder, RecordEncoder};

pub use carried::{Carried, CarriedRecord, Origin, SourcePartition};

/// The latest version of the format, that of blocks that carry records of the source. A reader refuses later ones.
pub const BLOCK_VERSION: u32 = 2;
/// That of blocks whose rows carry none.
const VERSION_WITHOUT_RECORDS: u32 = 1;

/// What a block says of itself and of the task that sent it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BlockHeader {
    /// The first version of the format in which it can be read.
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// The id of the stream that the rows belong to.
    #[prost(string, tag = "2")]
    pub stream: String,
    /// The partition number of the task that sent it.
    #[prost(int32, tag = "3")]
    pub partition: i32,
    /// The task's watermark behind the block, in milliseconds since the Unix epoch; absent before the first.
    #[prost(sint64, optional, tag = "4")]
    pub watermark_ms: Option<i64>,
    /// The task expects nothing for now, and nobody is to wait for its watermark.
    #[prost(bool, tag = "5")]
    pub idle: bool,
    /// Nothing follows: a bounded run of the task is over.
    #[prost(bool, tag = "6")]
    pub ended: bool,
    /// How many rows there are.
    #[prost(uint32, tag = "7")]
    pub rows: u32,
    /// A [`Layout`]; empty if there are no rows.
    #[prost(bytes = "vec", tag = "8")]
    pub layout: Vec<u8>,
    /// What of the source's records goes with the rows, as the number of a [`Carried`].
    #[prost(uint32, tag = "9")]
    pub records: u32,
    /// In which partitions those lie.
    #[prost(message, repeated, tag = "10")]
    pub partitions: Vec<SourcePartition>,
}

/// The fields of a block's rows.
#[derive(Clone, PartialEq, prost::Message)]
struct Layout {
    #[prost(message, repeated, tag = "1")]
    fields: Vec<LayoutField>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LayoutField {
    #[prost(string, tag = "1")]
    name: String,
    /// A number of [`TYPES`], or of [a list](LIST).
    #[prost(uint32, tag = "2")]
    ty: u32,
    #[prost(bool, tag = "3")]
    nullable: bool,
}

/// The types by their numbers in a layout, which never change.
const TYPES: [Type; 7] =
    [Type::String, Type::Bool, Type::Int, Type::Double, Type::Timestamp, Type::Duration, Type::Bytes];

/// The number of a list: this, twice that of its elements, and one if they may be null. Programs that know no lists refuse
/// it.
const LIST: u32 = 16;

fn number_of(ty: Type) -> u32 {
    match ty {
        Type::List(list) => LIST + 2 * number_of(list.element.ty()) + u32::from(list.nullable),
        ty => TYPES.iter().position(|known| *known == ty).unwrap_or_default() as u32,
    }
}

fn type_of(number: u32) -> Option<Type> {
    match number.checked_sub(LIST) {
        None => TYPES.get(number as usize).copied(),
        Some(list) => TYPES.get(list as usize / 2)?.list(list % 2 == 1),
    }
}

/// Writes rows of a schema.
#[derive(Clone, Debug)]
pub struct RowEncoder {
    /// Type, and whether it may be null, of each field.
    fields: Arc<[(Type, bool)]>,
    layout: Arc<[u8]>,
}

impl RowEncoder {
    /// Of rows with these fields.
    pub fn new(schema: &Schema) -> RowEncoder {
        let field = |field: &crate::record::Field| LayoutField {
            name: field.name.clone(),
            ty: number_of(field.ty),
            nullable: field.nullable,
        };
        let layout = Layout { fields: schema.fields.iter().map(field).collect() };
        RowEncoder {
            fields: schema.fields.iter().map(|field| (field.ty, field.nullable)).collect(),
            layout: layout.encode_to_vec().into(),
        }
    }

    /// What the blocks of these rows have as their layout.
    pub fn layout(&self) -> &Arc<[u8]> {
        &self.layout
    }

    /// Appends the fields of a row with this event time.
    pub fn put(&self, row: Row<'_>, time_ms: i64, out: &mut Vec<u8>) {
        for ((ty, nullable), slot) in self.fields.iter().zip(row) {
            put_field(slot, *ty, *nullable, time_ms, out);
        }
    }
}

#[inline]
fn put_field(slot: &Slot<'_>, ty: Type, nullable: bool, time_ms: i64, out: &mut Vec<u8>) {
    if nullable {
        out.push(u8::from(!slot.is_null()));
    }
    match *slot {
        Slot::Null => {}
        Slot::Bool(value) => out.push(u8::from(value)),
        Slot::Int(value) | Slot::Duration(value) => encode_varint(zigzag(value), out),
        // No two instants are that far apart; wrapping is undone by the reader.
        Slot::Timestamp(value) => encode_varint(zigzag(value.wrapping_sub(time_ms)), out),
        Slot::Double(value) => out.extend_from_slice(&value.to_le_bytes()),
        Slot::String(text) => put_bytes(text.as_bytes(), out),
        Slot::Bytes(bytes) => put_bytes(bytes, out),
        Slot::List(elements) => put_list(elements, ty, time_ms, out),
    }
}

fn put_list(elements: &[Slot<'_>], ty: Type, time_ms: i64, out: &mut Vec<u8>) {
    let Type::List(list) = ty else { return };
    encode_varint(elements.len() as u64, out);
    elements.iter().for_each(|element| put_field(element, list.element.ty(), list.nullable, time_ms, out));
}

/// A buffer that a large row has made larger than this is given back.
const BYTES_KEPT_MAX: usize = 64 << 10;

/// The rows of a block while it grows.
#[derive(Debug, Default)]
pub struct BlockRows {
    carried: Carried,
    records: RecordEncoder,
    bytes: Vec<u8>,
    rows: u32,
    last_ms: i64,
}

impl BlockRows {
    /// None yet; so much of the records that they come from will go with them.
    pub fn carrying(carried: Carried) -> BlockRows {
        BlockRows { carried, ..BlockRows::default() }
    }

    /// Appends a row that comes from this record; `put` appends its fields.
    pub fn push(&mut self, time_ms: i64, source: Option<&SourceRecord<'_>>, put: impl FnOnce(&mut Vec<u8>)) {
        encode_varint(zigzag(time_ms.wrapping_sub(self.last_ms)), &mut self.bytes);
        if self.carried > Carried::Nothing {
            self.records.put(self.carried, source, time_ms, &mut self.bytes);
        }
        put(&mut self.bytes);
        (self.rows, self.last_ms) = (self.rows + 1, time_ms);
    }

    /// How many there are.
    pub fn len(&self) -> u32 {
        self.rows
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// How many bytes they take, with what goes with them.
    pub fn bytes(&self) -> usize {
        self.bytes.len() + self.records.partition_bytes()
    }

    /// The bytes of this record, if the last row carries it: one more row of it takes only its own.
    pub fn bytes_held_of(&self, source: Option<&SourceRecord<'_>>) -> Option<usize> {
        source.filter(|source| self.records.holds(source)).map(|_| self.records.last_bytes())
    }

    /// The block, whose number of rows, version and records are filled in; leaves nothing.
    pub fn take(&mut self, header: BlockHeader) -> Vec<u8> {
        let carried = if self.is_empty() { Carried::Nothing } else { self.carried };
        let version = if carried == Carried::Nothing { VERSION_WITHOUT_RECORDS } else { BLOCK_VERSION };
        let partitions = self.records.take_partitions();
        let header = BlockHeader { version, rows: self.rows, records: carried as u32, partitions, ..header };
        let header = header.encode_length_delimited_to_vec();
        let block = [&header[..], &self.bytes].concat();
        if self.bytes.capacity() > BYTES_KEPT_MAX {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
        (self.rows, self.last_ms) = (0, 0);
        block
    }
}

/// A block that was read.
pub struct Block<'b> {
    /// What it says of itself.
    pub header: BlockHeader,
    rest: &'b [u8],
    left: u32,
    last_ms: i64,
    records: RecordDecoder,
}

/// A row of a block.
pub struct BlockRow<'r, 'b> {
    /// Its event time.
    pub time_ms: i64,
    /// Its record of the source.
    pub origin: Origin<'b>,
    /// Its fields, which the caller takes off.
    pub bytes: &'r mut &'b [u8],
}

impl<'b> Block<'b> {
    /// Of these bytes.
    ///
    /// # Errors
    /// If they begin with no header, or with one of a later version.
    pub fn read(mut bytes: &'b [u8]) -> Result<Block<'b>, DecodeError> {
        let header = BlockHeader::decode_length_delimited(&mut bytes)
            .map_err(|error| DecodeError::new(format!("the block's header: {error}")))?;
        if header.version > BLOCK_VERSION {
            return Err(DecodeError::new(format!(
                "the block has version {}, this program reads up to {BLOCK_VERSION}: a newer one wrote it",
                header.version
            )));
        }
        let carried = Carried::of(header.records);
        let carried = carried.ok_or_else(|| DecodeError::new("it carries what is not known".to_owned()))?;
        let records = RecordDecoder::new(carried);
        Ok(Block { left: header.rows, header, rest: bytes, last_ms: 0, records })
    }

    /// The partitions in which the records of its rows lie.
    pub fn partitions(&self) -> Vec<TopicPartition> {
        let partitions = self.header.partitions.iter();
        partitions.map(|of| TopicPartition::new(&of.topic, of.partition)).collect()
    }

    /// The next row, whose record lies in one of the block's [partitions](Block::partitions); `None` behind the last
    /// one.
    ///
    /// # Errors
    /// If the block is damaged.
    pub fn next_row(
        &mut self,
        partitions: &'b [TopicPartition],
    ) -> Result<Option<BlockRow<'_, 'b>>, DecodeError> {
        if self.left == 0 {
            return match self.rest {
                [] => Ok(None),
                rest => Err(DecodeError::new(format!("{} bytes follow the block's last row", rest.len()))),
            };
        }
        self.left -= 1;
        self.last_ms = self.last_ms.wrapping_add(take_zigzag(&mut self.rest)?);
        let origin = self.records.take(self.last_ms, &mut self.rest, partitions)?;
        Ok(Some(BlockRow { time_ms: self.last_ms, origin, bytes: &mut self.rest }))
    }
}

/// Where a field of a block goes.
struct Place {
    ty: Type,
    nullable: bool,
    /// The slot of the row; `None` if the rows do not have the field any more.
    slot: Option<usize>,
}

/// Reads rows into those of a schema.
pub struct RowDecoder {
    schema: Schema,
    /// That of the last block, and what it means.
    layout: Vec<u8>,
    places: Vec<Place>,
}

impl RowDecoder {
    /// Of rows with these fields.
    pub fn new(schema: &Schema) -> RowDecoder {
        RowDecoder { schema: schema.clone(), layout: Vec::new(), places: Vec::new() }
    }

    /// Gets ready for rows of this layout.
    ///
    /// # Errors
    /// If such rows cannot be rows of the schema.
    pub fn expect(&mut self, layout: &[u8]) -> Result<(), DecodeError> {
        if self.layout == layout {
            return Ok(());
        }
        let fields = Layout::decode(layout)
            .map_err(|error| DecodeError::new(format!("the layout of the rows: {error}")))?
            .fields;
        let mut places = Vec::with_capacity(fields.len());
        for field in &fields {
            let ty = type_of(field.ty);
            let ty = ty.ok_or_else(|| DecodeError::new(format!("there is no type {}", field.ty)))?;
            let slot = self.schema.position(&field.name);
            if let Some(slot) = slot {
                self.fits(field, ty, slot)?;
            } else if field.name.starts_with('<') {
                // No field of a topology: what the engine put there cannot be left out.
                return Err(DecodeError::new(format!("the rows have a field `{}`", field.name)));
            }
            places.push(Place { ty, nullable: field.nullable, slot });
        }
        let missing = self
            .schema
            .fields
            .iter()
            .find(|field| !field.nullable && fields.iter().all(|sent| sent.name != field.name));
        if let Some(missing) = missing {
            return Err(DecodeError::new(format!("the rows have no field `{}`", missing.name)));
        }
        (self.layout, self.places) = (layout.to_vec(), places);
        Ok(())
    }

    fn fits(&self, sent: &LayoutField, ty: Type, slot: usize) -> Result<(), DecodeError> {
        let wanted = &self.schema.fields[slot];
        if wanted.ty.common(ty) == Some(wanted.ty) && (wanted.nullable || !sent.nullable) {
            return Ok(());
        }
        let null = |nullable: bool| if nullable { "?" } else { "" };
        Err(DecodeError::new(format!(
            "the rows' field `{}` is of type {ty}{}, not {}{}",
            sent.name,
            null(sent.nullable),
            wanted.ty,
            null(wanted.nullable)
        )))
    }

    /// Takes a row of the layout off `bytes`; its text stays where it is.
    ///
    /// # Errors
    /// If the bytes are damaged.
    pub fn get<'b>(
        &self,
        time_ms: i64,
        bytes: &mut &'b [u8],
        arena: &'b Bump,
    ) -> Result<Row<'b>, DecodeError> {
        let row = arena.alloc_slice_fill_copy(self.schema.fields.len(), Slot::Null);
        for place in &self.places {
            let value = take_field(place.ty, place.nullable, time_ms, bytes, arena)?;
            if let Some(slot) = place.slot {
                row[slot] = value;
            }
        }
        Ok(row)
    }
}

#[inline]
fn take_field<'b>(
    ty: Type,
    nullable: bool,
    time_ms: i64,
    bytes: &mut &'b [u8],
    arena: &'b Bump,
) -> Result<Slot<'b>, DecodeError> {
    if nullable && take(bytes, 1)? == [0] {
        return Ok(Slot::Null);
    }
    Ok(match ty {
        Type::Bool => Slot::Bool(take(bytes, 1)? != [0]),
        Type::Int => Slot::Int(take_zigzag(bytes)?),
        Type::Duration => Slot::Duration(take_zigzag(bytes)?),
        Type::Timestamp => Slot::Timestamp(time_ms.wrapping_add(take_zigzag(bytes)?)),
        Type::Double => {
            let mut value = [0; 8];
            value.copy_from_slice(take(bytes, 8)?);
            Slot::Double(f64::from_le_bytes(value))
        }
        Type::String => {
            let text = std::str::from_utf8(take_bytes(bytes)?);
            Slot::String(text.map_err(|error| DecodeError::new(format!("text: {error}")))?)
        }
        Type::Bytes => Slot::Bytes(take_bytes(bytes)?),
        Type::List(list) => Slot::List(take_list(list, time_ms, bytes, arena)?),
    })
}

fn take_list<'b>(
    list: ListType,
    time_ms: i64,
    bytes: &mut &'b [u8],
    arena: &'b Bump,
) -> Result<&'b [Slot<'b>], DecodeError> {
    let length = usize::try_from(take_varint(bytes)?).unwrap_or(usize::MAX);
    // An element takes a byte at least.
    if length > bytes.len() {
        return Err(DecodeError::new(format!("{length} elements are missing or too many")));
    }
    let elements = arena.alloc_slice_fill_copy(length, Slot::Null);
    for element in elements.iter_mut() {
        *element = take_field(list.element.ty(), list.nullable, time_ms, bytes, arena)?;
    }
    Ok(elements)
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn take_zigzag(bytes: &mut &[u8]) -> Result<i64, DecodeError> {
    let value = take_varint(bytes)?;
    Ok((value >> 1) as i64 ^ -((value & 1) as i64))
}

fn take_varint(bytes: &mut &[u8]) -> Result<u64, DecodeError> {
    decode_varint(bytes).map_err(|error| DecodeError::new(format!("a number: {error}")))
}

fn take_bytes<'b>(bytes: &mut &'b [u8]) -> Result<&'b [u8], DecodeError> {
    let length = take_varint(bytes)?;
    take(bytes, usize::try_from(length).unwrap_or(usize::MAX))
}

fn take<'b>(bytes: &mut &'b [u8], length: usize) -> Result<&'b [u8], DecodeError> {
    let (taken, rest) = bytes
        .split_at_checked(length)
        .ok_or_else(|| DecodeError::new(format!("{length} bytes are missing or too many")))?;
    *bytes = rest;
    Ok(taken)
}

#[cfg(test)]
mod tests;
