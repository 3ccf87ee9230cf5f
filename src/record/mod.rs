//! What flows through a topology: values, schemas, rows and the source records that they came from.
//!
//! Everything here borrows from the batch it was read in (`'b`): a string of a [`Row`] is a range of
//! the bytes that the log handed over, so a row is copied by copying two pointers.

mod output;
mod schema;
mod source;
mod value;

pub use output::OutputRecord;
pub use schema::{EACH, Field, FieldForm, Schema, SourceField, SourceSchema, shown_path};
pub use source::{Records, SourceRecord, TopicId, TopicPartition};
pub use value::{Element, ListType, Slot, Type};

/// The kind of record that a stream carries: a row of a topology file, or a type of the user's.
///
/// Operators are generic over it. The lifetime is that of the batch, so that a record may point into
/// the batch's bytes instead of owning memory.
pub trait RecordType: 'static {
    /// The record itself, valid as long as the batch it belongs to. Copied once per branch of the
    /// topology that reads the stream.
    type Of<'b>: Clone;
}

/// The records of a topology file: a row of slots whose layout is a [`Schema`].
pub struct Dynamic;

impl RecordType for Dynamic {
    type Of<'b> = Row<'b>;
}

/// Records of a Rust type that owns its data.
pub struct Owned<T>(std::marker::PhantomData<T>);

impl<T: Clone + 'static> RecordType for Owned<T> {
    type Of<'b> = T;
}

/// A row: one slot per field of its stream's [`Schema`], in that order.
pub type Row<'b> = &'b [Slot<'b>];

/// A record on its way through the operators.
pub struct Event<'b, R: RecordType> {
    /// The record.
    pub record: R::Of<'b>,
    /// Its event time, in milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// The source record that it was decoded from; `None` for a record that a window made.
    pub source: Option<SourceRecord<'b>>,
}

impl<'b, R: RecordType> Clone for Event<'b, R> {
    fn clone(&self) -> Self {
        Event { record: self.record.clone(), time_ms: self.time_ms, source: self.source }
    }
}
