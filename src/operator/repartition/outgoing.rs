//! Blocks on their way out of a task.

use std::sync::Arc;

use super::upstream::Mark;
use crate::format::block::{BlockHeader, BlockRows, Carried};
use crate::operator::OutputTarget;
use crate::planted::{Bug, is_planted};
use crate::record::{OutputRecord, SourceRecord};
use crate::time::MIN_TIME_MS;

/// A block is closed at so many rows: the reader takes it as one record, whose rows it cannot leave off in the middle
/// of.
const ROWS_MAX: u32 = 64;
/// Rows that share a record, which would have to be sent again, are so many at most.
const ROWS_SHARING_MAX: u32 = 1_024;
/// What goes with the rows of one record of the source takes at most so many bytes, in all blocks together: a checkpoint
/// holds them all. Once it may always go.
const CARRIED_BYTES_MAX: usize = 64 << 20;
/// And is closed when its rows and the records that go with them take so many bytes.
const BYTES_MAX: usize = 16 << 10;
/// What a row takes in a block beside its fields, at most: its event time, and where its record is that of the row before.
const ROW_OVERHEAD_BYTES: usize = 11;
/// What a block's header takes beside the stream's id and the layout, at most.
const HEADER_BYTES: usize = 64;

/// A way from one stage to the next: a stream that is written into a repartition topic.
#[derive(Debug)]
pub struct Exchange {
    /// The topic.
    pub target: Arc<OutputTarget>,
    /// The id of the stream: by it and by partition numbers readers tell the tasks apart that write the topic.
    pub stream: Arc<str>,
    /// That of its records.
    pub layout: Arc<[u8]>,
    /// What of the source's records goes with them.
    pub carried: Carried,
}

impl Exchange {
    /// Whether a block can hold a row of this size, or why not. `carried_bytes` is the record that goes with it.
    pub fn fits(&self, row_bytes: usize, carried_bytes: usize) -> Result<(), String> {
        let bytes = row_bytes + carried_bytes + self.header_bytes();
        let OutputTarget { topic, record_bytes_max: limit, .. } = &*self.target;
        if bytes <= *limit {
            return Ok(());
        }
        let with = match carried_bytes {
            0 => String::new(),
            carried_bytes => format!(", {carried_bytes} of them for its record of the source,"),
        };
        Err(format!(
            "the row of {bytes} bytes{with} is larger than the {limit} bytes that topic {topic} takes"
        ))
    }

    /// Whether the record that its rows come from may go with so many of them, which take so many bytes, or why not: by no
    /// more than they are, since where blocks begin is by chance.
    pub fn may_carry(&self, carried_bytes: usize, rows: usize, row_bytes: usize) -> Result<(), String> {
        let blocks = self.blocks_of(carried_bytes, rows, row_bytes);
        if blocks <= 1 || carried_bytes.saturating_mul(blocks) <= CARRIED_BYTES_MAX {
            return Ok(());
        }
        Err(format!(
            "its record of the source, of {carried_bytes} bytes, would go with its {rows} rows into some {blocks} blocks of topic \
             {}, and may take {CARRIED_BYTES_MAX} bytes there",
            self.target.topic
        ))
    }

    /// In how many blocks a record goes at most with so many rows, which take so many bytes. Two blocks after one another hold
    /// more than there is room for in one.
    fn blocks_of(&self, carried_bytes: usize, rows: usize, row_bytes: usize) -> usize {
        let partitions = usize::try_from(self.target.partitions).unwrap_or(1);
        let record_bytes_max = self.target.record_bytes_max;
        let beside = record_bytes_max.saturating_sub(self.header_bytes() + carried_bytes);
        let room = BYTES_MAX.min(record_bytes_max / 2).min(beside).max(1);
        let row_bytes = row_bytes + rows * ROW_OVERHEAD_BYTES;
        rows.min(partitions.min(rows) + rows / ROWS_SHARING_MAX as usize + 2 * row_bytes / room)
    }

    fn header_bytes(&self) -> usize {
        self.layout.len() + self.stream.len() + HEADER_BYTES
    }
}

/// A row on its way out.
#[derive(Clone, Copy)]
pub struct OutgoingRow<'r> {
    /// Its event time.
    pub time_ms: i64,
    /// Its fields.
    pub bytes: &'r [u8],
    /// The record that it comes from.
    pub source: Option<&'r SourceRecord<'r>>,
    /// How much of that goes with it, at most.
    pub carried_bytes: usize,
}

/// What a task sends through an exchange, and what it has told each of its readers.
///
/// A block carries the task's mark as it is behind the block's rows. So that a reader without rows hears of it
/// as well, every partition is told now and then, in the same transactions as everything else.
#[derive(Debug)]
pub struct Outgoing {
    exchange: Arc<Exchange>,
    /// The number of the task's partition.
    task: i32,
    /// The block of each partition that is being filled.
    blocks: Vec<BlockRows>,
    mark: Mark,
    /// What each partition was told last.
    told: Vec<Mark>,
    /// When all were told; `None`: not yet.
    told_ms: Option<u64>,
}

impl Outgoing {
    /// Nothing yet, of the task with this partition number.
    pub fn new(exchange: Arc<Exchange>, task: i32) -> Outgoing {
        let partitions = usize::try_from(exchange.target.partitions).unwrap_or_default();
        let carried = exchange.carried;
        Outgoing {
            exchange,
            task,
            blocks: std::iter::repeat_with(|| BlockRows::carrying(carried)).take(partitions).collect(),
            mark: Mark::NONE,
            told: vec![Mark::NONE; partitions],
            told_ms: None,
        }
    }

    /// The topic.
    pub fn topic(&self) -> &Arc<str> {
        &self.exchange.target.topic
    }

    /// Adds a row for a partition. Returns how many bytes it takes in its block, and the block that has to leave before
    /// it, if there is one.
    pub fn push(&mut self, partition: i32, row: OutgoingRow<'_>) -> (usize, Option<OutputRecord>) {
        let place = usize::try_from(partition).unwrap_or_default();
        let record_bytes_max = self.exchange.target.record_bytes_max;
        let limit = BYTES_MAX.min(record_bytes_max / 2);
        let block = &self.blocks[place];
        // Rows of one record share it, however large it is, if the topic takes them together.
        let (bytes, limit, rows_max) = match block.bytes_held_of(row.source) {
            Some(held) => {
                let most = record_bytes_max.saturating_sub(self.exchange.header_bytes());
                (row.bytes.len(), (limit + held).min(most), ROWS_SHARING_MAX)
            }
            None => (row.bytes.len() + row.carried_bytes, limit, ROWS_MAX),
        };
        let full = block.len() >= rows_max || (!block.is_empty() && block.bytes() + bytes > limit);
        let sealed = full.then(|| self.seal(place));
        let bytes = if full { row.bytes.len() + row.carried_bytes } else { bytes };
        self.blocks[place].push(row.time_ms, row.source, |out| out.extend_from_slice(row.bytes));
        (bytes, sealed)
    }

    /// The task's watermark has come to here.
    pub fn advance(&mut self, watermark_ms: i64) {
        self.mark.watermark_ms = self.mark.watermark_ms.max(watermark_ms);
    }

    /// The task expects nothing for now, or does again.
    pub fn set_idle(&mut self, idle: bool) {
        self.mark.idle = idle;
    }

    /// The task has come to the end of its bounded run.
    pub fn end(&mut self) {
        self.mark.ended = true;
    }

    /// The task came to that end before, and has told everybody.
    pub fn has_ended(&mut self) {
        self.end();
        self.told.fill(self.mark);
    }

    /// Whether there is something to send: rows, or a mark that it is time to tell.
    pub fn is_due(&self, now_ms: u64, interval_ms: u64) -> bool {
        self.blocks.iter().any(|block| !block.is_empty()) || self.is_mark_due(now_ms, interval_ms)
    }

    /// A watermark is told at intervals; that there is none to wait for, or is again, at once. Behind the end there is
    /// nothing more to say: its readers may have gone.
    fn is_mark_due(&self, now_ms: u64, interval_ms: u64) -> bool {
        let Mark { idle, ended, .. } = self.mark;
        self.told.iter().any(|told| !told.ended && *told != self.mark)
            && (self.told_ms.is_none_or(|told_ms| now_ms >= told_ms.saturating_add(interval_ms))
                || self.told.iter().any(|told| (told.idle, told.ended) != (idle, ended)))
    }

    /// Hands over all blocks that are begun, and one without rows for each partition that has to be told.
    pub fn take(&mut self, now_ms: u64, interval_ms: u64, mut put: impl FnMut(OutputRecord)) {
        let tells = self.is_mark_due(now_ms, interval_ms);
        let keeps_rows = tells && is_planted(Bug::MarkBeforeRows);
        for place in 0..self.blocks.len() {
            let kept =
                if keeps_rows { std::mem::take(&mut self.blocks[place]) } else { BlockRows::default() };
            if !self.blocks[place].is_empty() || (tells && self.told[place] != self.mark) {
                put(self.seal(place));
            }
            if keeps_rows {
                self.blocks[place] = kept;
            }
        }
        if tells {
            self.told_ms = Some(now_ms);
        }
    }

    fn seal(&mut self, place: usize) -> OutputRecord {
        let block = &mut self.blocks[place];
        let Mark { watermark_ms, idle, ended } = self.mark;
        self.told[place] = self.mark;
        let Exchange { target, stream, layout, .. } = &*self.exchange;
        let header = BlockHeader {
            stream: stream.to_string(),
            partition: self.task,
            watermark_ms: (watermark_ms > MIN_TIME_MS).then_some(watermark_ms),
            idle,
            ended,
            layout: if block.is_empty() { Vec::new() } else { layout.to_vec() },
            ..BlockHeader::default()
        };
        OutputRecord {
            topic: target.topic.clone(),
            // It is one of `i32` partitions.
            partition: place as i32,
            key: None,
            value: Some(block.take(header)),
            headers: Vec::new(),
            timestamp_ms: -1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::block::Block;
    use crate::record::{Records, TopicPartition};

    const INTERVAL_MS: u64 = 1_000;

    fn outgoing() -> Outgoing {
        let target = OutputTarget { topic: "t".into(), partitions: 2, record_bytes_max: 1 << 20 };
        Outgoing::new(
            Arc::new(Exchange {
                target: target.into(),
                stream: "s".into(),
                layout: [7; 1].into(),
                carried: Carried::Nothing,
            }),
            5,
        )
    }

    fn push(outgoing: &mut Outgoing, partition: i32, time_ms: i64, bytes: &[u8]) -> Option<OutputRecord> {
        outgoing.push(partition, OutgoingRow { time_ms, bytes, source: None, carried_bytes: 0 }).1
    }

    /// Partition, rows, watermark, idle, ended.
    type Seen = (i32, u32, Option<i64>, bool, bool);

    fn seen(record: &OutputRecord) -> Seen {
        let header = Block::read(record.value.as_deref().unwrap()).unwrap().header;
        assert_eq!((&*header.stream, header.partition), ("s", 5));
        assert_eq!(header.layout.is_empty(), header.rows == 0);
        (record.partition, header.rows, header.watermark_ms, header.idle, header.ended)
    }

    fn taken(outgoing: &mut Outgoing, now_ms: u64) -> Vec<Seen> {
        let due = outgoing.is_due(now_ms, INTERVAL_MS);
        let mut taken = Vec::new();
        outgoing.take(now_ms, INTERVAL_MS, |record| taken.push(seen(&record)));
        assert_eq!(due, !taken.is_empty());
        taken
    }

    #[test]
    fn every_partition_is_told_the_watermark_at_intervals() {
        let mut outgoing = outgoing();
        assert!(taken(&mut outgoing, 0).is_empty(), "there is nothing to say");
        outgoing.advance(10);
        assert_eq!(
            taken(&mut outgoing, 100),
            [(0, 0, Some(10), false, false), (1, 0, Some(10), false, false)]
        );
        assert!(taken(&mut outgoing, 9_000).is_empty(), "all know it");
        outgoing.advance(20);
        outgoing.advance(15);
        assert_eq!(
            taken(&mut outgoing, 9_000),
            [(0, 0, Some(20), false, false), (1, 0, Some(20), false, false)]
        );
        outgoing.advance(30);
        assert!(taken(&mut outgoing, 9_999).is_empty(), "the interval is not over");
        assert!(push(&mut outgoing, 1, 35, b"row").is_none());
        assert_eq!(
            taken(&mut outgoing, 9_999),
            [(1, 1, Some(30), false, false)],
            "who gets rows hears it with them"
        );
        assert_eq!(taken(&mut outgoing, 10_000), [(0, 0, Some(30), false, false)]);
    }

    #[test]
    fn being_idle_and_ended_is_told_at_once() {
        let mut outgoing = outgoing();
        outgoing.advance(10);
        assert_eq!(taken(&mut outgoing, 0).len(), 2);
        outgoing.set_idle(true);
        assert_eq!(taken(&mut outgoing, 1), [(0, 0, Some(10), true, false), (1, 0, Some(10), true, false)]);
        outgoing.set_idle(false);
        assert!(push(&mut outgoing, 1, 35, b"row").is_none());
        assert_eq!(taken(&mut outgoing, 2), [(0, 0, Some(10), false, false), (1, 1, Some(10), false, false)]);
        outgoing.end();
        assert_eq!(taken(&mut outgoing, 3), [(0, 0, Some(10), false, true), (1, 0, Some(10), false, true)]);
        outgoing.set_idle(true);
        outgoing.advance(20);
        assert!(taken(&mut outgoing, 9_999).is_empty(), "whoever has ended says nothing more");
    }

    #[test]
    fn a_task_that_ended_before_its_restart_says_nothing() {
        let mut outgoing = outgoing();
        outgoing.has_ended();
        outgoing.advance(20);
        assert!(taken(&mut outgoing, 0).is_empty());
    }

    #[test]
    fn an_idle_task_that_never_had_a_record_says_so() {
        let mut outgoing = outgoing();
        outgoing.set_idle(true);
        assert_eq!(taken(&mut outgoing, 0), [(0, 0, None, true, false), (1, 0, None, true, false)]);
    }

    fn exchange(partitions: i32, record_bytes_max: usize) -> Exchange {
        let target = OutputTarget { topic: "t".into(), partitions, record_bytes_max };
        let (stream, layout) = ("s".into(), [7; 1].into());
        Exchange { target: target.into(), stream, layout, carried: Carried::Whole }
    }

    #[test]
    fn what_goes_with_the_rows_of_one_record_is_bounded() {
        let (one, many, mib) = (exchange(1, 1 << 27), exchange(16, 1 << 27), 1 << 20);
        assert!(many.may_carry(70 * mib, 1, 10).is_ok(), "once it may go");
        assert!(many.may_carry(2 * mib, 1, 2 * mib).is_ok(), "with whatever row");
        assert!(many.may_carry(mib / 2, 5, 5 * mib / 2).is_ok(), "no more often than there are rows");
        assert!(many.may_carry(5 * mib, 12, 100).is_ok());
        let refused = many.may_carry(5 * mib, 13, 100).unwrap_err();
        assert!(refused.contains("13 rows") && refused.contains("13 blocks of topic t"), "{refused}");
        assert!(one.may_carry(30 * mib, 500, 1_000).is_ok());
        assert!(one.may_carry(30 * mib, 3 * 1_024, 0).is_err(), "a block holds some");
        assert!(one.may_carry(30 * mib, 1_000, 2 * BYTES_MAX).is_err(), "of some length");
    }

    /// A record without a key, which lies in a batch of its own.
    struct Alone(TopicPartition, Vec<u8>);

    impl Records for Alone {
        fn topic_partition(&self) -> &TopicPartition {
            &self.0
        }
        fn len(&self) -> usize {
            1
        }
        fn bytes(&self) -> usize {
            self.1.len()
        }
        fn record(&self, index: usize) -> SourceRecord<'_> {
            SourceRecord { offset: 7, timestamp_ms: 8, key: None, value: Some(&self.1), records: self, index }
        }
        fn headers<'b>(&'b self, _: usize, _: &mut dyn FnMut(&'b str, Option<&'b [u8]>)) {}
    }

    #[test]
    fn a_record_goes_in_no_more_blocks_than_are_reckoned_with() {
        for (record, row, rows, record_bytes_max) in [
            (40_000, 10, 3_000, 1 << 20),
            (40_000, 100, 3_000, 1 << 20),
            (40_000, 20_000, 50, 1 << 20),
            (40_000, 60, 2_000, 40_900),
            (40_000, 100, 300, 40_300),
            (100, 9_000, 100, 20_000),
            (100, 1, 2_500, 900),
        ] {
            let exchange = Arc::new(exchange(1, record_bytes_max));
            let alone = Alone(TopicPartition::new("of", 3), vec![7; record]);
            let source = alone.record(0);
            let carried_bytes = Carried::Whole.bytes_of(&source);
            exchange.fits(row, carried_bytes).unwrap();
            let mut outgoing = Outgoing::new(exchange.clone(), 0);
            let bytes = vec![7; row];
            let sealed = (0..rows).filter(|time_ms| {
                let row =
                    OutgoingRow { time_ms: *time_ms, bytes: &bytes, source: Some(&source), carried_bytes };
                outgoing.push(0, row).1.is_some()
            });
            let blocks = sealed.count() + 1;
            let most = exchange.blocks_of(carried_bytes, rows as usize, rows as usize * row);
            assert!(blocks <= most && most <= 8 * blocks, "{blocks} of {most}: {record} {row} {rows}");
        }
    }

    #[test]
    fn blocks_are_bounded() {
        let mut outgoing = outgoing();
        let mut sealed = Vec::new();
        for time_ms in 0..150 {
            sealed.extend(push(&mut outgoing, 0, time_ms, b"row"));
            outgoing.advance(time_ms);
        }
        let seen: Vec<Seen> = sealed.iter().map(seen).collect();
        assert_eq!(seen, [(0, 64, Some(63), false, false), (0, 64, Some(127), false, false)]);
        assert_eq!(taken(&mut outgoing, 0)[0], (0, 22, Some(149), false, false));

        let large = vec![0; BYTES_MAX * 3 / 4];
        assert!(push(&mut outgoing, 1, 1, &large).is_none());
        assert!(push(&mut outgoing, 1, 1, &large).is_some());
    }
}
