//! The headers of changelog records: protobuf messages whose field numbers are never reused.

/// The version of the changelog's format: the body's layout, the key layout, the fields' meaning. A
/// reader reads earlier ones and refuses records of a later one.
pub const FORMAT_VERSION: u32 = 2;

/// In [`Sweep::first_offset`] and [`Header::restore_point`]: the offset of the first record of the
/// checkpoint that this header belongs to. Its writer does not know it yet; who reads the record from
/// the log puts it in ([`Header::resolve`]).
pub const THIS_CHECKPOINT: i64 = -1;

/// The header of a delta: where a task stood at a checkpoint.
///
/// Every part of a delta has one; parts after the first carry `format_version`, `checkpoint`, `part`
/// and `parts` only.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Header {
    /// [`FORMAT_VERSION`] of the writer. Set when the delta is written.
    #[prost(uint32, tag = "1")]
    pub format_version: u32,
    /// The number of the checkpoint: 1 for a task's first, then one more each time.
    #[prost(uint64, tag = "2")]
    pub checkpoint: u64,
    /// The number of this record within the delta, from 0. Set when the delta is written.
    #[prost(uint32, tag = "3")]
    pub part: u32,
    /// How many records the delta has. Set when the delta is written.
    #[prost(uint32, tag = "4")]
    pub parts: u32,
    /// Where the task stood in each source partition that it reads.
    #[prost(message, repeated, tag = "5")]
    pub sources: Vec<SourcePosition>,
    /// The task's watermark, in milliseconds since the Unix epoch; absent before the first.
    #[prost(sint64, optional, tag = "6")]
    pub watermark_ms: Option<i64>,
    /// What each stateful operator keeps beside its entries.
    #[prost(message, repeated, tag = "7")]
    pub operators: Vec<OperatorState>,
    /// The sweep under way, as of the end of this checkpoint; absent before the first chunk.
    #[prost(message, optional, tag = "8")]
    pub sweep: Option<Sweep>,
    /// The first offset of the last complete sweep: a restore that begins at or before it finds the
    /// whole state. 0, the log's beginning, before the first complete sweep; [`THIS_CHECKPOINT`] if
    /// a single checkpoint swept all.
    #[prost(int64, tag = "9")]
    pub restore_point: i64,
    /// The task is done: a bounded run has read and closed everything.
    #[prost(bool, tag = "10")]
    pub finished: bool,
    /// Of a task that is done: the topics through which it sends to later stages, all of whose readers it has told so.
    #[prost(string, repeated, tag = "11")]
    pub ended_to: Vec<String>,
}

/// How far a task has read a source partition.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SourcePosition {
    /// The source's topic.
    #[prost(string, tag = "1")]
    pub topic: String,
    /// The partition.
    #[prost(int32, tag = "2")]
    pub partition: i32,
    /// The offset of the next record to read: what the same transaction commits for the group.
    #[prost(int64, tag = "3")]
    pub next_offset: i64,
    /// The greatest event time seen, in milliseconds since the Unix epoch; absent before the first.
    #[prost(sint64, optional, tag = "4")]
    pub max_event_time_ms: Option<i64>,
    /// Where a bounded run ends; absent in an unbounded one.
    #[prost(int64, optional, tag = "5")]
    pub end_offset: Option<i64>,
    /// Of a repartition topic: how far the tasks have come that write it.
    #[prost(message, repeated, tag = "6")]
    pub upstreams: Vec<UpstreamPosition>,
    /// Of a repartition topic: the fields by which rows are spread over its partitions, as text, so that a difference
    /// can be shown.
    #[prost(string, tag = "7")]
    pub key: String,
}

/// How far the tasks have come that write a stream into a repartition topic, as a reader of it has heard.
#[derive(Clone, PartialEq, prost::Message)]
pub struct UpstreamPosition {
    /// The id of the stream.
    #[prost(string, tag = "1")]
    pub stream: String,
    /// The watermark of each task by its partition number, in milliseconds since the Unix epoch; the least number
    /// that there is, if none was heard.
    #[prost(sint64, repeated, tag = "2")]
    pub watermarks_ms: Vec<i64>,
    /// The tasks that are idle.
    #[prost(uint32, repeated, tag = "3")]
    pub idle: Vec<u32>,
    /// The tasks that are done with their bounded run.
    #[prost(uint32, repeated, tag = "4")]
    pub ended: Vec<u32>,
}

/// What a stateful operator keeps beside its entries.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OperatorState {
    /// The operator's id in the topology: the identity of its state.
    #[prost(string, tag = "1")]
    pub id: String,
    /// What its entries depend on (kind, key, window, aggregates and their types), as text, so that
    /// a difference can be shown.
    #[prost(string, tag = "2")]
    pub fingerprint: String,
    /// A window that is being fired goes on at this key; empty when none is.
    #[prost(bytes = "vec", tag = "3")]
    pub firing_cursor: Vec<u8>,
    /// The watermark up to which windows have fired, in milliseconds since the Unix epoch.
    #[prost(sint64, optional, tag = "4")]
    pub fired_watermark_ms: Option<i64>,
    /// The windows that end at or before this instant have fired, in milliseconds since the Unix epoch; absent before
    /// the first.
    #[prost(sint64, optional, tag = "5")]
    pub fired_end_ms: Option<i64>,
    /// Windows fire when the watermark reaches their ends, not when they close.
    #[prost(bool, tag = "6")]
    pub fired_on_time: bool,
}

/// A sweep under way: chunks from the start of the key space to its end.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Sweep {
    /// The key at which the next chunk begins; empty when it begins a new sweep.
    #[prost(bytes = "vec", tag = "1")]
    pub cursor: Vec<u8>,
    /// The offset of the first record of the checkpoint in which the sweep began, or
    /// [`THIS_CHECKPOINT`].
    #[prost(int64, tag = "2")]
    pub first_offset: i64,
}

/// The header of a chunk: all entries of a key range as of a checkpoint, in one or more records.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ChunkHeader {
    /// [`FORMAT_VERSION`] of the writer.
    #[prost(uint32, tag = "1")]
    pub format_version: u32,
    /// The checkpoint whose state the entries are; its delta stands right before the chunk.
    #[prost(uint64, tag = "2")]
    pub checkpoint: u64,
    /// The number of this record within the chunk, from 0.
    #[prost(uint32, tag = "3")]
    pub part: u32,
    /// How many records the chunk has.
    #[prost(uint32, tag = "4")]
    pub parts: u32,
    /// The first key of the chunk's range (of the whole chunk, in every part).
    #[prost(bytes = "vec", tag = "5")]
    pub from: Vec<u8>,
    /// The end of the chunk's range, exclusive.
    #[prost(bytes = "vec", tag = "6")]
    pub to: Vec<u8>,
}

impl Header {
    /// Replaces [`THIS_CHECKPOINT`] by the offset at which the delta's first record stands.
    pub fn resolve(&mut self, first_offset: i64) {
        if self.restore_point == THIS_CHECKPOINT {
            self.restore_point = first_offset;
        }
        if let Some(sweep) = self.sweep.as_mut().filter(|sweep| sweep.first_offset == THIS_CHECKPOINT) {
            sweep.first_offset = first_offset;
        }
    }
}
