//! Against the mock cluster that librdkafka has inside: answers that no broker of today gives.
//!
//! Safety: the mock cluster belongs to the client that it was made for, whose handle is live; the names
//! and arrays that are passed in live over the call, which copies them.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::bindings as rd;
use rdkafka::types::RDKafkaErrorCode as Code;

use super::*;
use crate::record::{Records, TopicPartition};
use crate::worker::port::SourceOffset;

/// A code that brokers have (INCONSISTENT_TOPIC_ID) and the bindings do not.
const UNNAMED: c_int = 103;

// Requests, by their numbers in Kafka's protocol.
const PRODUCE: i16 = 0;
const FETCH: i16 = 1;
const LIST_OFFSETS: i16 = 2;
const OFFSET_FETCH: i16 = 9;

/// A client with a cluster of its own inside.
fn client(kind: Kind, settings: &[(&str, &str)]) -> Arc<Client> {
    let fixed = [("test.mock.num.brokers", "1"), ("log.queue", "true")];
    let all = fixed.iter().chain(settings).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Client::new(kind, &all.collect::<Vec<_>>()).unwrap()
}

/// A client of the cluster that `other` has inside.
fn client_of(other: &Client, kind: Kind, settings: &[(&str, &str)]) -> Arc<Client> {
    // SAFETY: a string that the live cluster lends, copied.
    let brokers = unsafe { error::string(rd::rd_kafka_mock_cluster_bootstraps(cluster(other))) };
    let fixed = [("bootstrap.servers", &*brokers), ("log.queue", "true")];
    let all = fixed.iter().chain(settings).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Client::new(kind, &all.collect::<Vec<_>>()).unwrap()
}

fn consumer() -> Arc<Client> {
    client(Kind::Consumer, &[("group.id", "group"), ("enable.auto.commit", "false")])
}

fn cluster(client: &Client) -> *mut rd::rd_kafka_mock_cluster_t {
    // SAFETY: a live client, made with a mock cluster.
    unsafe { rd::rd_kafka_handle_mock_cluster(client.ptr()) }
}

/// Makes the cluster answer the next requests of a kind with the code.
fn answer(client: &Client, request: i16, code: c_int) {
    let codes = [code; 20];
    // SAFETY: the function only copies the numbers.
    unsafe {
        rd::rd_kafka_mock_push_request_errors_array(
            cluster(client),
            request,
            codes.len(),
            codes.as_ptr().cast(),
        )
    }
}

fn topic(client: &Client) -> TopicPartition {
    // SAFETY: a name.
    unsafe { rd::rd_kafka_mock_topic_create(cluster(client), c"topic".as_ptr(), 1, 1) };
    TopicPartition::new("topic", 0)
}

fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "nothing came");
    }
}

/// Writes a record and returns its delivery.
fn write(producer: &Arc<Client>, headers: &[(String, Option<Vec<u8>>)]) -> Delivery {
    let events = producer.events();
    let topic = producer.topic("topic").unwrap();
    let (key, value) = (Some(&b"key"[..]), Some(&b""[..]));
    topic.produce(&Outgoing { partition: 0, key, value, headers, timestamp_ms: 7, tag: 5 }).unwrap();
    until(|| match events.poll(100) {
        Some(Event::Delivered(mut deliveries)) => deliveries.pop(),
        _ => None,
    })
}

#[track_caller]
fn assert_unnamed(failure: &Failure) {
    assert_eq!(failure.code, Code::Unknown, "{failure:?}");
    assert!(failure.text.contains("103"), "{failure:?}");
}

#[test]
fn a_code_that_the_bindings_do_not_name_is_told_as_a_number() {
    assert_unnamed(&Failure::of_code(UNNAMED));
    let named = Failure::of_code(3);
    assert_eq!(named.code, Code::UnknownTopicOrPartition);
    assert!(named.text.contains("Unknown topic"), "{named:?}");
}

#[test]
fn a_look_up_that_is_answered_by_an_unnamed_code_fails_by_it() {
    let client = consumer();
    let partition = topic(&client);
    assert_eq!(client.watermarks(&partition, 10_000).unwrap(), (0, 0));
    answer(&client, LIST_OFFSETS, UNNAMED);
    assert_unnamed(&client.watermarks(&partition, 10_000).unwrap_err());
    answer(&client, OFFSET_FETCH, UNNAMED);
    assert_unnamed(&client.committed(&[partition], 10_000).unwrap_err());
}

#[test]
fn a_fetch_that_is_answered_by_an_unnamed_code_fails_by_it() {
    let client = consumer();
    let partition = topic(&client);
    let queue = client.queue();
    answer(&client, FETCH, UNNAMED);
    client.forward(&partition, &queue).unwrap();
    client.assign(Some(&[(partition.clone(), 0)])).unwrap();
    let known = [partition.clone()];
    let (found, offset, failure) = until(|| queue.consume(10, 100, &known).failures.pop());
    assert_eq!((found, offset), (partition, 0));
    assert_unnamed(&failure);
}

#[test]
fn a_record_that_is_refused_by_an_unnamed_code_is_delivered_with_it() {
    let producer = client(Kind::Producer, &[]);
    topic(&producer);
    answer(&producer, PRODUCE, UNNAMED);
    let delivery = write(&producer, &[]);
    assert_eq!(delivery.tag, 5);
    assert_unnamed(&delivery.offset.unwrap_err());
}

#[test]
fn records_outlive_their_queue_their_assignment_and_every_other_owner_of_their_client() {
    let client = consumer();
    let partition = topic(&client);
    let producer = client_of(&client, Kind::Producer, &[]);
    let headers = [("name".to_owned(), Some(b"value".to_vec())), ("null".to_owned(), None)];
    assert_eq!(write(&producer, &headers).offset.unwrap(), 0);

    let queue = client.queue();
    client.forward(&partition, &queue).unwrap();
    client.assign(Some(&[(partition.clone(), 0)])).unwrap();
    let batch = until(|| queue.consume(10, 100, &[]).batches.pop());
    client.assign(None).unwrap();
    client.settle().unwrap();
    drop((queue, client));

    std::thread::spawn(move || {
        assert_eq!(batch.topic_partition(), &partition);
        let record = batch.record(0);
        assert_eq!((record.key, record.value), (Some(&b"key"[..]), Some(&b""[..])), "empty is not null");
        assert_eq!((record.offset, record.timestamp_ms), (0, 7));
        for _ in 0..2 {
            let mut seen = Vec::new();
            batch.headers(0, &mut |name, value| seen.push((name, value)));
            assert_eq!(seen, [("name", Some(&b"value"[..])), ("null", None)]);
        }
    })
    .join()
    .unwrap();
}

/// librdkafka itself does not come back: it keeps no time limit while the group's coordinator is away.
#[test]
fn sending_offsets_ends_in_time_while_the_coordinator_of_the_group_is_away() {
    let producer = client(Kind::Producer, &[("test.mock.num.brokers", "2"), ("transactional.id", "id")]);
    // SAFETY: names; a type of coordinator that the mock cluster knows.
    unsafe {
        rd::rd_kafka_mock_topic_create(cluster(&producer), c"topic".as_ptr(), 1, 1);
        rd::rd_kafka_mock_partition_set_leader(cluster(&producer), c"topic".as_ptr(), 0, 1);
        rd::rd_kafka_mock_coordinator_set(cluster(&producer), c"transaction".as_ptr(), c"id".as_ptr(), 1);
        rd::rd_kafka_mock_coordinator_set(cluster(&producer), c"group".as_ptr(), c"group".as_ptr(), 2);
    }
    let member = client_of(&producer, Kind::Consumer, &[("group.id", "group")]);
    member.subscribe(&["topic".to_owned()]).unwrap();
    let events = member.events();
    until(|| match events.poll(100) {
        Some(Event::Assign(_)) => {
            member.assign(Some(&[])).unwrap();
            Some(())
        }
        _ => None,
    });
    let membership = Arc::new(member.membership().unwrap());

    producer.init_transactions(30_000).unwrap();
    producer.begin().unwrap();
    // SAFETY: the number of a broker that is there.
    unsafe { rd::rd_kafka_mock_broker_set_down(cluster(&producer), 2) };
    let offsets = [SourceOffset::from((TopicPartition::new("topic", 0), 1))];
    let failure = producer.send_offsets(&offsets, |_| None, &membership, 2_000).unwrap_err();
    assert_eq!(failure.code, Code::OperationTimedOut, "{failure:?}");
    assert!(
        failure.text.contains("did not come back"),
        "if librdkafka does now, it needs no thread: {failure:?}"
    );
    // What was left behind comes back when the coordinator does, and is freed.
    // SAFETY: as above.
    unsafe { rd::rd_kafka_mock_broker_set_up(cluster(&producer), 2) };
    until(|| (Arc::strong_count(&membership) == 1).then_some(()));
}

#[test]
#[should_panic = "belongs to its client"]
fn the_records_of_one_client_cannot_go_to_the_queue_of_another() {
    let (one, other) = (consumer(), consumer());
    let _ = one.forward(&TopicPartition::new("topic", 0), &other.queue());
}

#[test]
fn a_queue_lets_go_of_a_wake_that_is_replaced_and_of_its_last_when_it_is_dropped() {
    let client = consumer();
    let wake = || -> Arc<Wake> { Arc::new(Box::new(|| {})) };
    let (first, second) = (wake(), wake());
    let mut queue = client.queue();
    queue.set_wake(first.clone());
    queue.set_wake(second.clone());
    assert_eq!((Arc::strong_count(&first), Arc::strong_count(&second)), (1, 2));
    drop(queue);
    assert_eq!(Arc::strong_count(&second), 1);
}
