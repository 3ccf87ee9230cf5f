//! A change of keys from end to end: rows to blocks, blocks to rows, and the windows behind.

use super::*;
use crate::format::block::{Block, BlockHeader, BlockRows};

fn by_customer(schema: &Schema) -> RowKey {
    RowKey { fields: vec![("customer".into(), 0)], encoder: Arc::new(Encoder::new(schema)) }
}

/// Sends orders through a topic of this many partitions, whose records take so many bytes.
fn sending(partitions: i32, record_bytes_max: usize) -> Box<dyn Pipeline> {
    let schema = source_schema();
    let rows = RowTransfer::new(&orders());
    let target = OutputTarget { topic: "between".into(), partitions, record_bytes_max };
    let exchange = Exchange { target: target.into(), stream: "orders".into(), layout: rows.layout().clone() };
    let exchange = Arc::new(exchange);
    let keys = by_customer(&orders());
    let sender = Repartition::new(exchange.clone(), 0, keys, rows, rejected("by_customer"));
    let timing = Timing { max_out_of_orderness_ms: 0, punctuated: false, max_ahead_ms: 1_000 };
    let json = JsonRows::new(&schema, EventTime::Field(3), None);
    let readers = Readers::new(vec![Box::new(sender) as Reader]);
    let pipeline = Source::<Dynamic, _>::new(json, timing, rejected("orders"), readers);
    Box::new(pipeline.with_exchanges(vec![exchange]))
}

/// Counts what two tasks send it.
fn receiving() -> Box<dyn Pipeline> {
    let window = Windowed::new("counts");
    let sink = sink(&window.schema(&orders()), "out");
    let readers = Readers::new(vec![window.reads(&orders(), vec![sink])]);
    let rows = RowTransfer::new(&orders());
    let mut pipeline = RepartitionSource::<Dynamic, _>::new(rows, &[("orders".into(), 2)], readers, vec![]);
    start(&mut pipeline);
    Box::new(pipeline)
}

/// What the task of a partition makes of these orders.
fn send(mut pipeline: Box<dyn Pipeline>, task: i32, inputs: Vec<Input>) -> Staged {
    let staged = Staged::new(usize::MAX, usize::MAX).of_partition(task);
    let mut staged = staged.with_exchanges(pipeline.exchanges());
    let batch = Batch::new(inputs);
    for index in 0..batch.len() {
        let progress = pipeline.process(batch.record(index), &Bump::new(), &mut staged).unwrap();
        assert_eq!(progress, Progress::Done);
    }
    staged.send_due(0, 0);
    staged
}

/// The blocks for a partition, as they lie in its topic from `offset` on.
fn blocks(staged: &Staged, partition: i32, offset: i64) -> Vec<Input> {
    let of = |record: &&OutputRecord| &*record.topic == "between" && record.partition == partition;
    let blocks = staged.outputs.iter().filter(of).zip(offset..);
    blocks.map(|(record, offset)| Input { offset, value: record.value.clone(), ..Input::default() }).collect()
}

#[test]
fn rows_of_a_key_meet_and_wait_for_the_slowest_task() {
    let one = send(sending(1, 1 << 20), 0, vec![order("a", "1", 1), order("b", "1", 2), order("a", "1", 30)]);
    let two = send(sending(1, 1 << 20), 1, vec![order("a", "1", 5), order("a", "1", 12)]);
    let mut receiver = receiving();
    let staged = go_on(&mut *receiver, blocks(&one, 0, 0)).unwrap();
    assert_eq!((written(&staged, "out").len(), receiver.watermark_ms()), (0, None));
    assert_eq!(staged.counters.records_in, 3, "rows, not blocks");

    let mut other = receiving();
    hand_over(&mut *receiver, &mut *other, |_| ());
    let staged = go_on(&mut *other, blocks(&two, 0, 1)).unwrap();
    let rows = written(&staged, "out");
    assert_eq!(
        rows,
        [
            r#"{"customer":"a","window_start":0,"window_end":10,"rows":2}"#,
            r#"{"customer":"b","window_start":0,"window_end":10,"rows":1}"#
        ],
        "what it heard is part of its state"
    );
    assert_eq!(other.watermark_ms(), Some(12));
}

#[test]
fn rows_go_where_kafkas_partitioner_puts_their_keys() {
    let customers = ["ann", "bob", "eve", "joe", "sue"];
    let staged = send(sending(4, 1 << 20), 0, customers.map(|customer| order(customer, "1", 1)).to_vec());
    let mut seen = 0;
    for partition in 0..4 {
        for block in blocks(&staged, partition, 0) {
            let (arena, mut rows) = (Bump::new(), RowTransfer::new(&orders()));
            let mut block = Block::read(block.value.as_deref().unwrap()).unwrap();
            if block.header.rows == 0 {
                continue; // it tells the watermark
            }
            rows.expect(&block.header.layout).unwrap();
            while let Some((time_ms, bytes)) = block.next_row().unwrap() {
                let row = rows.get(time_ms, bytes, &arena).unwrap();
                let mut key = Vec::new();
                by_customer(&orders()).select(&row, &mut key).unwrap();
                assert_eq!(crate::format::key::partition(Some(&key), 4), Some(partition));
                seen += 1;
            }
        }
    }
    assert_eq!(seen, customers.len());
}

#[test]
fn rows_that_cannot_be_sent_go_to_on_error() {
    let nobody = Input { value: Some(br#"{"customer":null,"at":1}"#.to_vec()), ..order("", "1", 1) };
    let large = order(&"x".repeat(400), "1", 2);
    let staged = send(sending(1, 300), 0, vec![nobody, large, order("a", "1", 3)]);
    let letters: Vec<&OutputRecord> =
        staged.outputs.iter().filter(|record| &*record.topic == "rejected").collect();
    let errors: Vec<String> = letters.iter().map(|letter| header(letter, "thalweg.error").unwrap()).collect();
    assert_eq!(errors[0], "the key field `customer` is null");
    assert!(errors[1].ends_with("is larger than the 300 bytes that topic between takes"), "{}", errors[1]);
    assert!(
        letters.iter().all(|letter| header(letter, "thalweg.operator").as_deref() == Some("by_customer"))
    );
    assert_eq!(Block::read(blocks(&staged, 0, 0)[0].value.as_deref().unwrap()).unwrap().header.rows, 1);
}

#[test]
fn rows_on_their_way_count_for_the_checkpoint() {
    let mut pipeline = sending(1, 1 << 20);
    let mut staged = Staged::new(usize::MAX, 200).with_exchanges(pipeline.exchanges());
    let batch = Batch::new((0..20).map(|at_ms| order("somebody", "1", at_ms)).collect());
    let records: Vec<SourceRecord<'_>> = (0..20).map(|index| batch.record(index)).collect();
    let (taken, _) = pipeline.process_run(&records, &Bump::new(), &mut staged).unwrap();
    assert!(staged.outputs.is_empty() && staged.is_full() && taken < 20, "{taken} were taken");
}

#[test]
fn a_damaged_block_stops_the_task_and_says_where_it_lies() {
    let failed = |value: Vec<u8>| {
        let input = Input { offset: 7, value: Some(value), ..Input::default() };
        go_on(&mut *receiving(), vec![input]).unwrap_err().to_string()
    };
    let whole =
        blocks(&send(sending(1, 1 << 20), 0, vec![order("a", "1", 1)]), 0, 0).remove(0).value.unwrap();
    assert!(failed(whole[..whole.len() - 1].to_vec()).starts_with("orders[1] at offset 7: "));
    assert!(failed(b"no block".to_vec()).starts_with("orders[1] at offset 7: the block's header: "));

    let mut other = RowTransfer::new(&Schema { fields: vec![field("customer", Type::String, false)] });
    let mut rows = BlockRows::default();
    rows.push(1, |out| other.put(&&[crate::record::Slot::String("a")][..], 1, out));
    let header =
        BlockHeader { stream: "orders".into(), layout: other.layout().to_vec(), ..Default::default() };
    assert!(other.expect(&header.layout).is_ok());
    assert!(
        failed(rows.take(header))
            .contains("the rows have no field `at`. They were sent by an earlier version")
    );
}
