//! Blocks whose rows carry their records.

use super::*;
use crate::record::{Records, SourceRecord, TopicPartition};

/// A record that lies somewhere.
#[derive(Clone, Debug, PartialEq)]
struct Lying {
    at: TopicPartition,
    offset: i64,
    timestamp_ms: i64,
    key: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
    value: Option<Vec<u8>>,
}

impl Records for Lying {
    fn topic_partition(&self) -> &TopicPartition {
        &self.at
    }
    fn len(&self) -> usize {
        1
    }
    fn bytes(&self) -> usize {
        0
    }
    fn record(&self, index: usize) -> SourceRecord<'_> {
        let (offset, timestamp_ms) = (self.offset, self.timestamp_ms);
        let (key, value) = (self.key.as_deref(), self.value.as_deref());
        SourceRecord { offset, timestamp_ms, key, value, records: self, index }
    }
    fn headers<'b>(&'b self, _: usize, visit: &mut dyn FnMut(&'b str, Option<&'b [u8]>)) {
        self.headers.iter().for_each(|(name, value)| visit(name, value.as_deref()));
    }
}

fn copy(record: &SourceRecord<'_>) -> Lying {
    let mut headers = Vec::new();
    record.records.headers(record.index, &mut |name, value| {
        headers.push((name.to_owned(), value.map(<[u8]>::to_vec)));
    });
    Lying {
        at: record.records.topic_partition().clone(),
        offset: record.offset,
        timestamp_ms: record.timestamp_ms,
        key: record.key.map(<[u8]>::to_vec),
        headers,
        value: record.value.map(<[u8]>::to_vec),
    }
}

fn lying(topic: &str, offset: i64) -> Lying {
    Lying {
        at: TopicPartition::new(topic, 3),
        offset,
        timestamp_ms: 990,
        key: Some(b"\x00k".to_vec()),
        headers: vec![("h".into(), Some(b"1".to_vec())), ("h".into(), None), (String::new(), Some(vec![]))],
        value: Some(b"{}".to_vec()),
    }
}

/// A block of a row of each of these records.
fn carrying(carried: Carried, records: &[Option<&Lying>]) -> Vec<u8> {
    let encoder = RowEncoder::new(&schema());
    let mut block = BlockRows::carrying(carried);
    for (time_ms, record) in (1_000..).zip(records) {
        let record = record.map(|record| record.record(0));
        block.push(time_ms, record.as_ref(), |out| encoder.put(&row("ab", time_ms), time_ms, out));
    }
    block.take(BlockHeader {
        stream: "s".into(),
        partition: 3,
        layout: encoder.layout().to_vec(),
        ..Default::default()
    })
}

/// The records of its rows, and whether each is that of the row before.
fn read(bytes: &[u8]) -> Result<Vec<(Option<Lying>, bool)>, DecodeError> {
    let (arena, mut decoder, mut block) = (Bump::new(), RowDecoder::new(&schema()), Block::read(bytes)?);
    decoder.expect(&block.header.layout)?;
    let partitions = block.partitions();
    let (mut records, mut last) = (Vec::new(), None);
    while let Some(BlockRow { time_ms, origin, bytes }) = block.next_row(&partitions)? {
        let is_same = matches!(origin, Origin::SameRecord);
        match origin {
            Origin::None => last = None,
            Origin::SameRecord => {}
            Origin::Record(record) => last = Some(copy(&record.record(0))),
        }
        decoder.get(time_ms, bytes, &arena)?;
        records.push((last.clone(), is_same));
    }
    Ok(records)
}

fn record() -> impl Strategy<Value = Lying> {
    let bytes = || prop::option::of(prop::collection::vec(any::<u8>(), 0..5));
    let at = ("[ab]", 0..3_i32).prop_map(|(topic, number)| TopicPartition::new(&topic, number));
    let headers = prop::collection::vec((".{0,3}", bytes()), 0..3);
    (at, any::<i64>(), any::<i64>(), bytes(), headers, bytes()).prop_map(
        |(at, offset, timestamp_ms, key, headers, value)| Lying {
            at,
            offset,
            timestamp_ms,
            key,
            headers,
            value,
        },
    )
}

proptest! {
    #[test]
    fn records_come_back_as_they_were(
        given in prop::collection::vec(record(), 1..5),
        of in prop::collection::vec(prop::option::weighted(0.8, 0..5_usize), 0..12),
        whole in any::<bool>(),
    ) {
        let of: Vec<Option<&Lying>> = of.iter().map(|of| of.map(|of| &given[of % given.len()])).collect();
        let carried = if whole { Carried::Whole } else { Carried::Meta };
        let read = read(&carrying(carried, &of)).unwrap();
        prop_assert_eq!(read.len(), of.len());
        for (place, (record, is_same)) in read.into_iter().enumerate() {
            let expected = of[place].map(|record| Lying {
                value: record.value.clone().filter(|_| whole),
                ..record.clone()
            });
            prop_assert_eq!(&record, &expected);
            // By where it lies: no two records lie in one place.
            let before = place.checked_sub(1).and_then(|before| of[before]);
            let lies = |of: Option<&Lying>| of.map(|of| (of.at.clone(), of.offset));
            prop_assert_eq!(is_same, expected.is_some() && lies(before) == lies(of[place]));
        }
    }

    #[test]
    fn damaged_records_are_an_error_or_others(at in 0..200_usize, with in any::<u8>(), cut in 0..200_usize) {
        let (one, other) = (lying("t", 7), lying("u", i64::MAX));
        let mut bytes = carrying(Carried::Whole, &[Some(&one), Some(&one), None, Some(&other)]);
        let place = at % bytes.len();
        bytes[place] = with;
        bytes.truncate(bytes.len() - cut % bytes.len());
        let _ = read(&bytes);
    }
}

/// What was written once must be read for ever.
#[test]
fn the_bytes_of_records_never_change() {
    let (one, other) = (lying("t", 7), lying("u", 9));
    let text = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let records = [Some(&one), Some(&one), None, Some(&other)];
    let [meta, whole] = [Carried::Meta, Carried::Whole].map(|carried| text(carrying(carried, &records)));
    insta::assert_snapshot!(format!("{meta}\n{whole}"));
}

#[test]
fn only_a_block_that_carries_records_needs_a_program_that_knows_of_them() {
    let one = lying("t", 7);
    let version = |bytes: &[u8]| Block::read(bytes).unwrap().header.version;
    let plain = carrying(Carried::Nothing, &[Some(&one), None]);
    assert_eq!(
        (plain.clone(), version(&plain)),
        (block(&[(1_000, row("ab", 1_000)), (1_001, row("ab", 1_001))]), 1)
    );
    assert_eq!(version(&carrying(Carried::Meta, &[])), 1, "it has no rows");
    assert_eq!(version(&carrying(Carried::Meta, &[Some(&one)])), 2);
}

#[test]
fn a_record_without_its_value_says_so() {
    let one = lying("t", 7);
    for (carried, known) in [(Carried::Meta, false), (Carried::Whole, true)] {
        let bytes = carrying(carried, &[Some(&one)]);
        let mut block = Block::read(&bytes).unwrap();
        let partitions = block.partitions();
        let Some(BlockRow { origin: Origin::Record(record), .. }) = block.next_row(&partitions).unwrap()
        else {
            panic!("there is a record")
        };
        assert_eq!(record.has_values(), known);
    }
}
