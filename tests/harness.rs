//! Tests of what the other tests rely on: the generator, the reference fold, the broker, the reader.

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use serde_json::json;
use support::application::{Application, Expected, REVENUE, Rows, SHARED, compare, text_of};
use support::broker::{Broker, shared};
use support::kafka::{Admin, Isolation, Reader, Record, Writer, serves};
use support::orders::{Generated, Generator, Orders, close_windows, produce};
use support::reference::{decode, fold, partition_of};
use support::thalweg::Metrics;
use support::unique;

fn generate(spec: Orders, count: usize) -> Vec<Record> {
    let mut generator = Generator::new(spec.clone());
    let mut next = vec![0; spec.partitions as usize];
    let mut generated = Generated::default();
    let mut records = Vec::new();
    for _ in 0..count {
        generator.next(&mut generated);
        let offset = &mut next[generated.partition as usize];
        records.push(Record {
            partition: generated.partition,
            offset: *offset,
            key: Some(generated.key.clone()),
            value: (!generated.null).then(|| generated.value.clone()),
            timestamp_ms: generated.timestamp_ms,
            headers: Vec::new(),
        });
        *offset += 1;
    }
    records
}

fn order(offset: i64, customer: &str, amount: f64, created_at: i64) -> Record {
    let value = json!({
        "order_id": format!("o{offset}"), "customer": customer, "amount": amount, "status": "paid",
        "created_at": created_at, "currency": "EUR",
    });
    Record {
        partition: 0,
        offset,
        key: None,
        value: Some(value.to_string().into_bytes()),
        timestamp_ms: created_at,
        headers: Vec::new(),
    }
}

#[test]
fn the_same_seed_gives_the_same_orders_of_some_200_bytes() {
    let records = generate(Orders::default(), 5_000);
    assert_eq!(records, generate(Orders::default(), 5_000));
    assert_ne!(records, generate(Orders { seed: 2, ..Orders::default() }, 5_000));
    let bytes: usize = records.iter().filter_map(|r| r.value.as_ref()).map(Vec::len).sum();
    assert!((150..250).contains(&(bytes / records.len())), "{} bytes", bytes / records.len());
}

#[test]
fn the_shares_of_bad_records_are_as_asked_and_of_every_kind() {
    let spec = Orders { malformed_share: 0.1, null_share: 0.05, ..Orders::default() };
    let records = generate(spec, 20_000);
    let errors: Vec<_> = records.iter().filter_map(|r| decode(r).err()).collect();
    assert!((2_600..3_400).contains(&errors.len()), "{} bad records", errors.len());
    for kind in [
        "no value",
        "status is",
        "amount is",
        "created_at is Some",
        "too far ahead",
        "currency is",
        "no object",
    ] {
        assert!(errors.iter().any(|e| e.contains(kind)), "no record was bad as in: {kind}");
    }
    let clean = generate(Orders { malformed_share: 0.0, null_share: 0.0, ..Orders::default() }, 2_000);
    assert!(clean.iter().all(|r| decode(r).is_ok()));
}

#[test]
fn the_fold_counts_sums_and_closes_as_the_rules_say() {
    let input = [
        order(0, "a", 0.1, 10_000),
        order(1, "a", 0.2, 70_000),   // watermark 65 s
        order(2, "a", 0.3, 59_999),   // its window closes at 90 s
        order(3, "b", 1.0, 94_999),   // watermark 89,999
        order(4, "a", 0.4, 0),        // still in time
        order(5, "b", 1.0, 95_000),   // watermark 90 s: closes the first minute
        order(6, "a", 9.9, 59_999),   // late
        order(7, "b", -1.0, 200_000), // filtered, and moves the watermark to 195 s
    ];
    let folded = fold(&input, REVENUE.windows, false);
    let window = |key: &str, start| &folded.windows[&(key.to_string(), start)];
    let amounts: Vec<f64> = window("a", 0).orders.iter().map(|o| o.amount).collect();
    assert_eq!(amounts, [0.1, 0.3, 0.4]);
    assert!(window("a", 0).closed && window("a", 60_000).closed && window("b", 60_000).closed);
    assert_eq!(folded.late, BTreeSet::from([(0, 6)]));
    assert_eq!(folded.windows.len(), 3);

    let open = fold(&input[..5], REVENUE.windows, false);
    assert!(open.windows.values().all(|w| !w.closed), "89,999 is before the end and its lateness");
    assert!(fold(&input[..5], REVENUE.windows, true).windows.values().all(|w| w.closed));
}

#[test]
fn keys_go_to_the_partitions_of_the_java_client() {
    // From org.apache.kafka.common.utils.Utils.murmur2 of Apache Kafka 4.3.1 (its UtilsTest).
    let hash = |key: &str| partition_of(key.as_bytes(), i32::MAX);
    let of = |murmur: i32| (murmur & 0x7fff_ffff) % i32::MAX;
    assert_eq!(hash("21"), of(-973_932_308));
    assert_eq!(hash("foobar"), of(-790_332_482));
    assert_eq!(hash("a-little-bit-long-string"), of(-985_981_536));
    assert_eq!(hash("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8"), of(-58_897_971));
    assert_eq!(hash("abc"), of(479_470_107));
}

#[test]
fn a_difference_is_found() {
    let rows = |n: i64| Rows::from([("a".to_string(), vec![json!({"n": n})])]);
    compare("t", &rows(1), &Rows::from([("a".to_string(), vec![json!({"n": 1.0})])]));
    let differs = |a: Rows, b: Rows| std::panic::catch_unwind(move || compare("t", &a, &b)).is_err();
    assert!(differs(rows(1), rows(2)));
    assert!(differs(rows(1), Rows::new()));
    assert!(differs(Rows::new(), rows(1)));
    assert!(differs(rows(1), Rows::from([("a".to_string(), vec![json!({"n": 1}), json!({"n": 1})])])));
}

#[test]
fn metrics_are_read() {
    let text =
        "# HELP x y\nx_total{topic=\"a b\",partition=\"0\"} 2\nx_total{topic=\"c\"} 3.5\ny -1\n# EOF\n";
    let metrics = Metrics::parse(text);
    assert_eq!(metrics.sum("x_total"), 5.5);
    assert_eq!(metrics.min("y"), Some(-1.0));
    assert_eq!(metrics.min("z"), None);
    assert_eq!(metrics.of("x_total").next(), Some(("topic=\"a b\",partition=\"0\"", 2.0)));
}

#[test]
fn what_was_generated_is_read_back_and_closes_its_windows() {
    let bootstrap = shared();
    let topic = unique("harness-orders");
    Admin::new(&bootstrap).create(&[(&topic, 4)]);
    let writer = Writer::new(&bootstrap);
    let mut generator = Generator::new(Orders::default());
    let mut reader = Reader::new(&bootstrap, &topic, Isolation::Committed);
    assert_eq!(reader.read_to_end(), 0);
    produce(&writer, &topic, &mut generator, 3_000);
    assert_eq!(reader.read_to_end(), 3_000);
    produce(&writer, &topic, &mut generator, 3_000);
    close_windows(&writer, &topic, &generator, 3_600_000);
    assert_eq!(reader.read_to_end(), 3_004);
    assert_eq!(reader.read_to_end(), 0);

    let mut generated = generate(Orders::default(), 6_000);
    generated.sort_by_key(|r| (r.partition, r.offset));
    reader.records.sort_by_key(|r| (r.partition, r.offset));
    let written: Vec<_> = reader
        .records
        .iter()
        .filter(|r| decode(r).map_or(true, |o| !o.order_id.starts_with("last")))
        .collect();
    assert_eq!(written, generated.iter().collect::<Vec<_>>());
    let folded = fold(&reader.records, REVENUE.windows, false);
    assert!(folded.windows.len() > 100);
    assert!(folded.windows.values().all(|w| w.closed));
    assert!(!folded.late.is_empty() && !folded.rejected.is_empty());
}

#[test]
fn a_reader_of_committed_records_sees_no_others() {
    let bootstrap = shared();
    let topic = unique("harness-transactions");
    Admin::new(&bootstrap).create(&[(&topic, 1)]);
    let producer: ThreadedProducer<_> = ClientConfig::new()
        .set("bootstrap.servers", &bootstrap)
        .set("transactional.id", &topic)
        .create()
        .expect("a producer");
    let limit = Duration::from_secs(20);
    producer.init_transactions(limit).expect("init");
    let transaction = |value: &str| {
        producer.begin_transaction().expect("begin");
        producer.send(BaseRecord::<(), str>::to(&topic).payload(value)).map_err(|(e, _)| e).expect("send");
        producer.flush(limit).expect("flush");
    };
    let mut committed = Reader::new(&bootstrap, &topic, Isolation::Committed);
    let mut all = Reader::new(&bootstrap, &topic, Isolation::Uncommitted);
    transaction("kept");
    assert_eq!((committed.read_to_end(), all.read_to_end()), (0, 1), "while it is open");
    producer.commit_transaction(limit).expect("commit");
    committed.read_until(1, limit);
    transaction("dropped");
    producer.abort_transaction(limit).expect("abort");
    transaction("kept, too");
    producer.commit_transaction(limit).expect("commit");
    committed.read_until(2, limit);
    assert_eq!(committed.read_to_end(), 0);
    all.read_until(3, limit);
    let values: Vec<_> = committed.records.iter().map(|r| r.value.as_deref().expect("a value")).collect();
    assert_eq!(values, [b"kept".as_slice(), b"kept, too"]);
}

#[test]
fn a_broker_killed_and_started_again_has_what_it_had() {
    let dir = support::Folder::new();
    let mut broker = Broker::start(dir.path());
    let bootstrap = broker.bootstrap();
    Admin::new(&bootstrap).create(&[("kept", 2)]);
    let writer = Writer::new(&bootstrap);
    writer.send_with("kept", 1, Some(b"k"), Some(b"v"), 7, &[("h", "x")]);
    writer.flush();
    broker.kill();
    broker.restart();
    let records = Reader::all(&bootstrap, "kept");
    assert_eq!(records.len(), 1);
    assert_eq!((records[0].timestamp_ms, records[0].header("h")), (7, Some("x")));
    broker.stop();
    assert!(!serves(&bootstrap));
}

#[test]
fn a_commit_is_held_and_lands_though_its_sender_is_gone() {
    let dir = support::Folder::new();
    let (broker, proxy) = Broker::start_with_proxy(dir.path());
    Admin::new(&broker.bootstrap()).create(&[("late", 1)]);
    let producer: ThreadedProducer<_> = ClientConfig::new()
        .set("bootstrap.servers", proxy.bootstrap())
        .set("transactional.id", "late")
        .set("transaction.timeout.ms", "60000")
        .create()
        .expect("a producer");
    let limit = Duration::from_secs(20);
    producer.init_transactions(limit).expect("init");
    producer.begin_transaction().expect("begin");
    producer.send(BaseRecord::<(), str>::to("late").payload("x")).map_err(|(e, _)| e).expect("send");
    producer.flush(limit).expect("flush");
    proxy.hold_next_end();
    assert!(producer.commit_transaction(Duration::from_millis(500)).is_err(), "nobody acknowledges it");
    proxy.holds(limit);
    drop(producer);
    let mut reader = Reader::new(&broker.bootstrap(), "late", Isolation::Committed);
    assert_eq!(reader.read_to_end(), 0);
    proxy.release();
    reader.read_until(1, limit);
}

/// Writes what an application would write: its expected rows, dead letters and late records.
fn play(application: &Application, expected: &Expected, writer: &Writer) {
    for ((output, topic), rows) in
        application.case.outputs.iter().zip(&application.outputs).zip(&expected.rows)
    {
        for row in rows.values().flatten() {
            let key = text_of(&row[output.key[0]]);
            let at = row.get("window_end").map_or(0, |end| end.as_i64().expect("milliseconds") - 1);
            let fields: Vec<_> = output.fields.iter().map(|f| format!("{}:{}", json!(f), row[*f])).collect();
            let value = format!("{{{}}}", fields.join(","));
            let partition = partition_of(key.as_bytes(), 3);
            writer.send(topic, partition, Some(key.as_bytes()), Some(value.as_bytes()), at);
        }
    }
    let place = |r: &Record| (r.partition, r.offset);
    for source in &expected.input {
        let (partition, offset) = (source.partition.to_string(), source.offset.to_string());
        let at = source.timestamp_ms.to_string();
        let headers = [
            ("thalweg.error", "no order"),
            ("thalweg.operator", "orders"),
            ("thalweg.topic", application.input.as_str()),
            ("thalweg.partition", partition.as_str()),
            ("thalweg.offset", offset.as_str()),
            ("thalweg.timestamp", at.as_str()),
        ];
        let (key, value) = (source.key.as_deref(), source.value.as_deref());
        if expected.folded.rejected.contains(&place(source)) {
            writer.send_with(&application.dead, 0, key, value, 0, &headers);
        }
        if expected.folded.late.contains(&place(source)) {
            writer.send_with(&application.late, 0, key, value, 0, &headers);
        }
    }
    writer.flush();
}

#[test]
fn the_right_output_passes_the_check_and_no_other() {
    let bootstrap = shared();
    let dir = support::Folder::new();
    let input = unique("harness-input");
    Admin::new(&bootstrap).create(&[(&input, 4)]);
    let writer = Writer::new(&bootstrap);
    let mut generator = Generator::new(Orders { step_ms: 40.0, ..Orders::default() });
    produce(&writer, &input, &mut generator, 3_000);
    let played = |bounded| {
        let application = Application::new(&SHARED, &bootstrap, &input, dir.path());
        let expected = application.expected(bounded);
        play(&application, &expected, &writer);
        (application, expected)
    };
    let fails = |(application, expected): &(Application, Expected)| {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| application.check(expected))).is_err()
    };
    let right = played(true);
    right.0.wait_for_outputs(&right.1, Duration::from_secs(20));
    assert!(!fails(&right));

    let again = |topic: &str| {
        let record = Reader::all(&bootstrap, topic).pop().expect("a record");
        let headers: Vec<_> =
            record.headers.iter().map(|(n, _)| (n.as_str(), record.header(n).unwrap())).collect();
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        writer.send_with(topic, record.partition, key, value, record.timestamp_ms, &headers);
        writer.flush();
    };
    for topic in [&right.0.dead, &right.0.late, &right.0.outputs[0], &right.0.outputs[2]] {
        let repeated = played(true);
        let name = topic.strip_prefix(&right.0.name).expect("a topic of the application");
        again(&format!("{}{name}", repeated.0.name));
        assert!(fails(&repeated), "a repeated record in {name} was not noticed");
    }
    // The end of the input closes windows that would stay open without.
    let (application, _) = played(true);
    let open = application.expected(false);
    assert!(fails(&(application, open)), "windows that must be open were not noticed");
}
