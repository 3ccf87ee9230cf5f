//! `thalweg bench generate` on a real broker: what it says it has written is there, where Kafka's own
//! partitioner would have put it, and the same again with the same seed.

#![allow(clippy::disallowed_methods, reason = "tests live in real time; the engine does not")]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use support::broker::shared;
use support::kafka::{Admin, Reader, Record};
use support::thalweg::run_to_end;
use support::{unique, unix_ms};

/// Runs `thalweg bench generate` with the words of `arguments`; returns its exit code, the line that it printed
/// and its complaint.
fn generate(arguments: &str) -> (Option<i32>, Value, String) {
    let bootstrap = shared();
    let mut words = vec!["bench", "generate"];
    words.extend(arguments.split_whitespace());
    words.extend(["--bootstrap-servers", &bootstrap]);
    let output = run_to_end(&words);
    let line = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code(), line, String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The partitions of a topic, each with its records in order.
fn partitions(topic: &str) -> BTreeMap<i32, Vec<Record>> {
    let mut all = BTreeMap::new();
    for record in Reader::all(&shared(), topic) {
        all.entry(record.partition).or_insert_with(Vec::new).push(record);
    }
    all
}

#[test]
fn orders_are_where_they_belong_and_the_same_again() {
    let topics = [unique("generated"), unique("generated")];
    let mut written = Vec::new();
    for topic in &topics {
        let options =
            "--create --partitions 3 --records 30000 --keys 500 --zipf 1.0 --size 220 --span 5m --seed 9";
        let (code, line, error) = generate(&format!("orders --topic {topic} {options}"));
        assert_eq!(code, Some(0), "{error}");
        assert_eq!(
            (&line["records"], &line["topics"][0]["partitions"]),
            (&30_003.into(), &3.into()),
            "{line}"
        );
        assert_eq!(line["last_event_ms"].as_i64(), Some(1_700_000_300_000), "{line}");
        assert!(line["seconds"].as_f64() > Some(0.0) && line["records_per_s"].as_f64() > Some(0.0), "{line}");
        let partitions = partitions(topic);
        let bytes = |record: &Record| {
            record.key.as_ref().map_or(0, Vec::len) + record.value.as_ref().map_or(0, Vec::len)
        };
        let bytes: usize = partitions.values().flatten().map(bytes).sum();
        assert_eq!(line["bytes"], bytes);
        written.push(partitions);
    }
    assert_eq!(written[0], written[1], "the same seed");

    let partitions = &written[0];
    assert_eq!(partitions.keys().copied().collect::<Vec<_>>(), [0, 1, 2]);
    let mut orders = BTreeSet::new();
    for (partition, records) in partitions {
        for record in records {
            // What Kafka's partitioner does is tested with its own vectors where this function is.
            let place = thalweg::format::key::partition(record.key.as_deref(), 3);
            assert_eq!(place, Some(*partition), "{}", record.key_text());
            let order = record.json();
            assert_eq!(order["customer"], record.key_text());
            assert_eq!(order["created_at"], record.timestamp_ms);
            assert_eq!(record.value.as_ref().map(Vec::len), Some(220));
            orders.insert(order["order_id"].as_str().expect("an id").to_owned());
        }
        let (closing, before) = records.split_last().expect("records");
        assert_eq!(
            (closing.timestamp_ms, &closing.json()["status"]),
            (1_700_003_900_000, &"cancelled".into())
        );
        assert!(before.iter().all(|record| record.timestamp_ms <= 1_700_000_300_000));
        assert!(before.iter().all(|record| record.key != closing.key));
    }
    assert_eq!(orders.len(), 30_003, "each order once");
}

#[test]
fn bids_alone_go_to_a_topic_that_is_there() {
    let prefix = unique("nexmark");
    let bids = format!("{prefix}-bids");
    Admin::new(&shared()).create(&[(&bids, 2)]);
    let arguments =
        format!("nexmark --topic {prefix} --only bids --records 5000 --no-close --compression lz4");
    let (code, line, error) = generate(&arguments);
    assert_eq!(code, Some(0), "{error}");
    assert_eq!(
        (&line["topics"][0]["topic"], &line["records"]),
        (&bids.as_str().into(), &5_000.into()),
        "{line}"
    );
    let partitions = partitions(&bids);
    assert_eq!(partitions.values().map(Vec::len).collect::<Vec<_>>(), [2_500, 2_500]);
    assert!(
        partitions.values().flatten().all(|record| record.key.is_none() && record.json()["price"].is_u64())
    );
}

#[test]
fn a_rate_is_kept_by_the_clock() {
    let topic = unique("paced");
    let before_ms = unix_ms();
    let options = "--create --partitions 1 --records 3000 --rate 1500 --no-close";
    let (code, line, error) = generate(&format!("orders --topic {topic} {options}"));
    let after_ms = unix_ms();
    assert_eq!(code, Some(0), "{error}");
    let seconds = line["seconds"].as_f64().expect("seconds");
    // The last record is due 2999/1500 s after the first.
    assert!(seconds >= 1.999, "{line}");
    assert!(line["lag_max_ms"].as_f64() > Some(0.0), "{line}");
    let times: Vec<i64> = Reader::all(&shared(), &topic).iter().map(|record| record.timestamp_ms).collect();
    let start_ms = line["first_event_ms"].as_i64().expect("a time");
    assert!(before_ms <= start_ms && times[2_999] <= after_ms, "{line}");
    let due: Vec<i64> = (0..3_000).map(|index| start_ms + index * 1_000 / 1_500).collect();
    assert_eq!(times, due, "the schedule, whatever the sender did");
}

#[test]
fn what_is_missing_or_does_not_fit_is_refused() {
    let topic = unique("refused");
    let (code, line, error) = generate(&format!("orders --topic {topic} --records 10"));
    assert_eq!((code, line), (Some(2), Value::Null), "{error}");
    assert!(error.contains(&format!("topic {topic} does not exist; --create creates it")), "{error}");
    Admin::new(&shared()).create(&[(&topic, 2)]);
    let (code, _, error) = generate(&format!("orders --topic {topic} --records 10 --create --partitions 3"));
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("has 2 partitions, not 3"), "{error}");
    let (code, _, error) = generate(&format!("orders --topic {topic} --set kafka.librdkafka.no.such=1"));
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("No such configuration property"), "{error}");
    // A value that the broker does not take is no success.
    let options = "--create --records 10 --size 900000 --set kafka.librdkafka.message.max.bytes=1000000000";
    let tight = unique("tight");
    let new = rdkafka::admin::NewTopic::new(&tight, 1, rdkafka::admin::TopicReplication::Fixed(1));
    Admin::new(&shared()).create_topics(&[new.set("max.message.bytes", "500000")]);
    let (code, line, error) = generate(&format!("orders --topic {tight} {options}"));
    assert_eq!((code, line), (Some(1), Value::Null), "{error}");
    assert!(error.contains("MessageSizeTooLarge"), "{error}");
}
