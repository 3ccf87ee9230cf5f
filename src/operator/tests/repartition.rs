//! A change of keys from end to end: rows to blocks, blocks to rows, and the windows behind.

use super::*;
use crate::format::block::{Block, BlockHeader, BlockRow, BlockRows, Carried};
use crate::record::Slot;

fn by_customer(schema: &Schema) -> RowKey {
    RowKey { fields: vec![("customer".into(), 0)], encoder: Arc::new(Encoder::new(schema)) }
}

/// Sends orders through a topic of this many partitions, whose records take so many bytes.
fn sending(partitions: i32, record_bytes_max: usize) -> Box<dyn Pipeline> {
    carrying(Carried::Nothing, 1, partitions, record_bytes_max)
}

/// The same with so much of their records, each row so many times.
fn carrying(carried: Carried, times: usize, partitions: i32, record_bytes_max: usize) -> Box<dyn Pipeline> {
    let target = OutputTarget { topic: "between".into(), partitions, record_bytes_max };
    let layout = RowTransfer::new(&orders()).layout().clone();
    let exchange = Exchange { target: target.into(), stream: "orders".into(), layout, carried };
    let exchange = Arc::new(exchange);
    let sender = || -> Reader {
        let (keys, rows) = (by_customer(&orders()), RowTransfer::new(&orders()));
        Box::new(Repartition::new(exchange.clone(), 0, keys, rows, rejected("by_customer")))
    };
    let timing = Timing { max_out_of_orderness_ms: 0, punctuated: false, max_ahead_ms: 1_000 };
    let json = JsonRows::new(&source_schema(), EventTime::Field(3), None);
    let readers = Readers::new((0..times).map(|_| sender()).collect());
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

/// Fails on amounts of 0, and calls late what repeats nothing any more. Of one task.
fn failing() -> RepartitionSource<Dynamic, RowTransfer> {
    let schema = orders();
    let late = LateRecords::Write(target("late"));
    let once = deduplicate(&schema, 10, late, vec![]);
    let fails = filter(&schema, "10 / amount > 0", rejected("fails"), vec![]);
    let rows = RowTransfer::new(&schema);
    let mut pipeline =
        RepartitionSource::new(rows, &[("orders".into(), 1)], Readers::new(vec![once, fails]), vec![]);
    start(&mut pipeline);
    pipeline
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
            while let Some(BlockRow { time_ms, bytes, .. }) = block.next_row(&[]).unwrap() {
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
    rows.push(1, None, |out| other.put(&&[crate::record::Slot::String("a")][..], 1, out));
    let header =
        BlockHeader { stream: "orders".into(), layout: other.layout().to_vec(), ..Default::default() };
    assert!(other.expect(&header.layout).is_ok());
    assert!(
        failed(rows.take(header))
            .contains("the rows have no field `at`. They were sent by an earlier version")
    );
}

/// Two orders that a division fails on, the first of them at a time for which the second one's block is late.
fn two() -> [Input; 2] {
    let headers = vec![("trace".into(), Some(b"\xff".to_vec())), ("trace".into(), None)];
    let value = br#" {"customer": "a", "amount":0, "at":1 }"#.to_vec();
    let one = Input { offset: 42, timestamp_ms: 7, headers, value: Some(value), ..order("a", "0", 1) };
    let two = Input { offset: 43, timestamp_ms: 8, key: None, ..order("a", "0", 90) };
    [one, two]
}

/// What is written behind a change of keys of two blocks with these orders, of which the later one comes first.
fn behind(carried: Carried, times: usize) -> Staged {
    let [one, two] = two();
    let sent = |input: Input| send(carrying(carried, times, 1, 1 << 20), 0, vec![input]);
    let blocks = [blocks(&sent(two), 0, 0), blocks(&sent(one), 0, 1)].concat();
    // Of another number than the task of the source.
    let mut staged = Staged::new(usize::MAX, usize::MAX).of_partition(0);
    let (batch, mut pipeline) = (Batch::new(blocks), failing());
    for index in 0..batch.len() {
        let progress = pipeline.process(batch.record(index), &Bump::new(), &mut staged).unwrap();
        assert_eq!(progress, Progress::Done);
    }
    staged
}

fn of_topic<'s>(staged: &'s Staged, topic: &str) -> Vec<&'s OutputRecord> {
    staged.outputs.iter().filter(|record| &*record.topic == topic).collect()
}

#[test]
fn behind_it_dead_letters_and_late_records_are_what_they_would_be_before() {
    let [one, two] = two();
    let staged = behind(Carried::Whole, 1);
    let letters = of_topic(&staged, "rejected");
    let expected = |offset: &str, input: &Input| {
        let headers = ["orders", "1", offset].map(|value| Some(value.as_bytes().to_vec()));
        let names = ["thalweg.topic", "thalweg.partition", "thalweg.offset"].map(str::to_owned);
        let timestamp = Some(input.timestamp_ms.to_string().into_bytes());
        let own = names.into_iter().zip(headers).chain([("thalweg.timestamp".to_owned(), timestamp)]);
        input.headers.iter().cloned().chain(own).collect::<Vec<_>>()
    };
    assert_eq!(letters.len(), 2);
    for (letter, (offset, input)) in letters.iter().zip([("43", &two), ("42", &one)]) {
        assert_eq!((&letter.key, &letter.value), (&input.key, &input.value), "byte for byte");
        assert_eq!(letter.timestamp_ms, input.timestamp_ms);
        assert_eq!(letter.headers[..letter.headers.len() - 2], expected(offset, input));
        assert_eq!(header(letter, "thalweg.operator").as_deref(), Some("fails"));
        let partition = crate::format::key::partition(input.key.as_deref(), 3);
        assert_eq!(letter.partition, partition.unwrap_or(1), "without a key that of the source's partition");
    }
    for carried in [Carried::Whole, Carried::Meta] {
        let staged = behind(carried, 1);
        let late = of_topic(&staged, "late");
        assert_eq!((late.len(), &late[0].key, &late[0].headers), (1, &one.key, &expected("42", &one)));
        assert_eq!(late[0].timestamp_ms, 1, "the row's event time");
    }
}

#[test]
fn without_the_record_or_its_value_a_dead_letter_is_the_row() {
    for carried in [Carried::Nothing, Carried::Meta] {
        let staged = behind(carried, 1);
        let letters = of_topic(&staged, "rejected");
        let names: Vec<&str> = letters[0].headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!((names, letters.len()), (vec!["thalweg.error", "thalweg.operator"], 2));
        assert_eq!((&letters[0].key, letters[0].timestamp_ms, letters[0].partition), (&None, -1, 0));
        let row = r#"{"customer":"a","amount":0,"price":null,"at":90}"#;
        assert_eq!(letters[0].value.as_deref(), Some(row.as_bytes()));
    }
    let staged = behind(Carried::Nothing, 1);
    let late = of_topic(&staged, "late");
    assert_eq!((late.len(), &late[0].key, late[0].headers.len()), (1, &None, 0));
}

#[test]
fn rows_of_a_record_that_stand_together_share_it_and_its_dead_letter() {
    let staged = behind(Carried::Whole, 3);
    assert_eq!(of_topic(&staged, "rejected").len(), 2, "one of each record");
    assert_eq!(staged.counters.failed, [("fails".into(), 6)].into());
    assert_eq!(of_topic(&behind(Carried::Nothing, 3), "rejected").len(), 6, "of no record");

    // However large it is, up to what the topic takes; and then once more in the next block.
    let large = Input { value: Some(large_value(40_000)), ..order("a", "1", 1) };
    let lengths = |times, record_bytes_max| -> Vec<(u32, usize)> {
        let staged = send(carrying(Carried::Whole, times, 1, record_bytes_max), 0, vec![large.clone()]);
        let blocks = blocks(&staged, 0, 0).into_iter().map(|block| block.value.unwrap());
        blocks.map(|block| (Block::read(&block).unwrap().header.rows, block.len())).collect()
    };
    let many = lengths(1_100, 1 << 20);
    assert_eq!(many.iter().map(|(rows, _)| *rows).sum::<u32>(), 1_100);
    assert!(many.len() <= 3, "not one for 64 rows: {many:?}");
    assert!(many.iter().all(|(_, bytes)| *bytes < 60_000), "{many:?}");
    let bounded = lengths(100, 40_500);
    assert!(bounded.len() > 2 && bounded.iter().all(|(_, bytes)| *bytes <= 40_500), "{bounded:?}");
}

/// An order with something beside its fields.
fn large_value(bytes: usize) -> Vec<u8> {
    format!(r#"{{"customer":"a","amount":1,"at":1,"other":"{}"}}"#, "x".repeat(bytes)).into_bytes()
}

#[test]
fn a_row_whose_record_is_too_large_goes_to_on_error() {
    let sent = |carried| {
        let large = Input { value: Some(large_value(400)), ..order("a", "1", 1) };
        send(carrying(carried, 1, 1, 400), 0, vec![large])
    };
    assert!(of_topic(&sent(Carried::Nothing), "rejected").is_empty());
    assert!(of_topic(&sent(Carried::Meta), "rejected").is_empty());
    let staged = sent(Carried::Whole);
    let letter = of_topic(&staged, "rejected")[0];
    assert_eq!(letter.value, Some(large_value(400)));
    let error = header(letter, "thalweg.error").unwrap();
    assert!(error.contains(" of them for its record of the source, is larger than the 400 bytes"), "{error}");
}

#[test]
fn rows_with_which_a_record_would_go_too_often_go_to_on_error() {
    const ROWS: u64 = 2_000;
    let target = OutputTarget { topic: "between".into(), partitions: 1, record_bytes_max: 1 << 26 };
    let layout = RowTransfer::new(&orders()).layout().clone();
    let carried = Carried::Whole;
    let exchange = Arc::new(Exchange { target: target.into(), stream: "orders".into(), layout, carried });
    let (keys, rows) = (by_customer(&orders()), RowTransfer::new(&orders()));
    let errors = ErrorPolicy::skip("by_customer");
    let mut sender: Reader = Box::new(Repartition::new(exchange.clone(), 0, keys, rows, errors));
    let mut staged = Staged::new(usize::MAX, usize::MAX).with_exchanges(&[exchange]);
    let batch = Batch::new(vec![Input { value: Some(large_value(20 << 20)), ..order("a", "1", 1) }]);
    let (arena, source) = (Bump::new(), Some(batch.record(0)));
    let row: &[Slot<'_>] = &[Slot::String("a"), Slot::Int(1), Slot::Null, Slot::Timestamp(1)];
    staged.begin_record();
    for _ in 0..ROWS {
        let event = Event { record: row, time_ms: 1, source };
        sender.process(event, &mut Context::new(&arena, &mut staged)).unwrap();
    }
    let (failed, sent) = (staged.counters.failed["by_customer"], staged.counters.records_out["between"]);
    assert!(failed > 0 && sent > 0 && failed + sent == ROWS, "{failed} and {sent}");
    staged.send_due(0, 0);
    let bytes: usize = staged.outputs.iter().flat_map(|block| &block.value).map(Vec::len).sum();
    assert!((20 << 20..64 << 20).contains(&bytes), "{bytes}");
    // Another record begins anew.
    staged.begin_record();
    let event = Event { record: row, time_ms: 1, source };
    sender.process(event, &mut Context::new(&arena, &mut staged)).unwrap();
    assert_eq!(staged.counters.failed["by_customer"], failed);
}

#[test]
fn what_is_carried_counts_for_the_checkpoint() {
    let mut pipeline = carrying(Carried::Whole, 1, 1, 1 << 20);
    let mut staged = Staged::new(usize::MAX, 50_000).with_exchanges(pipeline.exchanges());
    let batch = Batch::new(vec![Input { value: Some(large_value(50_000)), ..order("a", "1", 1) }]);
    let progress = pipeline.process(batch.record(0), &Bump::new(), &mut staged).unwrap();
    assert!(progress == Progress::Done && staged.is_full());
}

#[test]
fn rows_without_the_records_that_are_asked_for_are_refused() {
    let needing = |carried| {
        let staged = send(carrying(carried, 1, 1, 1 << 20), 0, vec![order("a", "1", 1)]);
        go_on(&mut failing().needing_records(true), blocks(&staged, 0, 7)).map(drop)
    };
    assert!(needing(Carried::Meta).is_ok());
    assert_eq!(
        needing(Carried::Nothing).unwrap_err().to_string(),
        "orders[1] at offset 7: the rows come without their records of the source, which `meta` is asked for. They were sent \
         by an earlier version of the topology: run that one until they are read, or start anew with `thalweg reset`"
    );
}
