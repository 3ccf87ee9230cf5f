//! The least that a program can do with orders: librdkafka's batches, each record decoded into a struct, and
//! counted and summed per customer and minute in a hash map (`window`) or filtered (`project`). No guarantee, no
//! output, no state on disk. Thalweg is measured beside it.
//!
//! `bare_loop BOOTSTRAP TOPIC window|project` reads the topic to its present end and prints one line of JSON.
#![allow(unsafe_code, reason = "rdkafka has no safe call that returns a batch, and none for getrusage")]
#![allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]

use std::borrow::Cow;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use rdkafka::ClientConfig;
use rdkafka::bindings as rd;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde::Deserialize;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// All fields of an order, though only some are used: a topology declares them, too.
#[derive(Deserialize)]
#[allow(dead_code, reason = "decoding them is the point")]
struct Order<'a> {
    order_id: &'a str,
    customer: &'a str,
    amount: i64,
    status: &'a str,
    created_at: i64,
    currency: &'a str,
    #[serde(borrow)]
    note: Option<Cow<'a, str>>,
}

/// Per window, per customer: how many orders and their sum.
type Windows = HashMap<i64, HashMap<String, (u64, i64), ahash::RandomState>, ahash::RandomState>;

const BATCH_RECORDS_MAX: usize = 10_000;
const WINDOW_MS: i64 = 60_000;

fn main() {
    // As thalweg does: measured, it is faster so.
    #[cfg(target_os = "linux")]
    let _refused = rustix::thread::disable_transparent_huge_pages(true);
    let arguments: Vec<String> = std::env::args().collect();
    let (bootstrap, topic, windows_wanted) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..]
    {
        [_, bootstrap, topic, "window"] => (bootstrap, topic, true),
        [_, bootstrap, topic, "project"] => (bootstrap, topic, false),
        _ => {
            eprintln!("usage: bare_loop BOOTSTRAP TOPIC window|project");
            std::process::exit(2);
        }
    };
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "bare-loop")
        .set("enable.auto.commit", "false")
        .set("fetch.queue.backoff.ms", "1")
        .set("queued.min.messages", "1000000")
        .set("queued.max.messages.kbytes", "65536")
        .create()
        .expect("a consumer");
    let total = assign_all(&consumer, topic);
    let start = Instant::now();
    let mut windows = Windows::default();
    let (mut records, mut failed, mut paid) = (0u64, 0u64, 0usize);
    // Neither its start nor its end counts for the steady part.
    let (first, last) = (total as u64 / 5, total as u64 / 10 * 9);
    let mut marks = Vec::new();
    consume(&consumer, total, &mut |value| {
        records += 1;
        if records == first || records == last {
            marks.push((records, usage().0));
        }
        match sonic_rs::from_slice::<Order<'_>>(value) {
            Ok(order) if windows_wanted => add(&mut windows, &order),
            Ok(order) => paid += usize::from(order.status == "paid"),
            Err(_) => failed += 1,
        }
    });
    let usage = usage();
    let steady = match marks[..] {
        [(from, before_s), (to, after_s)] => (after_s - before_s) * 1e6 / (to - from) as f64,
        _ => usage.0 * 1e6 / records as f64,
    };
    let results = windows.values().map(HashMap::len).sum::<usize>() + paid;
    println!(
        "{{\"records\":{records},\"failed\":{failed},\"results\":{results},\"cpu_s\":{:.3},\
         \"steady_cpu_s_per_million\":{steady:.3},\"wall_s\":{:.3},\"rss_max_bytes\":{}}}",
        usage.0,
        start.elapsed().as_secs_f64(),
        usage.1
    );
}

fn add(windows: &mut Windows, order: &Order<'_>) {
    let window = windows.entry(order.created_at.div_euclid(WINDOW_MS)).or_default();
    let (count, sum) = window.entry_ref(order.customer).or_default();
    *count += 1;
    *sum += order.amount;
}

/// Assigns all partitions from their beginning; returns how many offsets there are up to now.
fn assign_all(consumer: &BaseConsumer, topic: &str) -> i64 {
    let limit = Duration::from_secs(30);
    let metadata = consumer.fetch_metadata(Some(topic), limit).expect("the topic's metadata");
    let partitions = metadata.topics()[0].partitions().len() as i32;
    let mut assignment = TopicPartitionList::new();
    let mut total = 0;
    for partition in 0..partitions {
        let (low, high) = consumer.fetch_watermarks(topic, partition, limit).expect("the partition's bounds");
        total += high - low;
        assignment.add_partition_offset(topic, partition, Offset::Beginning).expect("a partition");
    }
    consumer.assign(&assignment).expect("an assignment");
    total
}

/// Calls `each` with the value of every record until `total` have come.
fn consume(consumer: &BaseConsumer, total: i64, each: &mut dyn FnMut(&[u8])) {
    let client = consumer.client().native_ptr();
    // SAFETY: the consumer outlives this function, and so does the queue until it is given back below.
    let queue = unsafe { rd::rd_kafka_queue_get_consumer(client) };
    let mut messages = vec![std::ptr::null_mut(); BATCH_RECORDS_MAX];
    let mut seen = 0;
    while seen < total {
        // SAFETY: `messages` has room for as many pointers as are asked for.
        let count =
            unsafe { rd::rd_kafka_consume_batch_queue(queue, 100, messages.as_mut_ptr(), BATCH_RECORDS_MAX) };
        for message in &messages[..count.max(0) as usize] {
            // SAFETY: librdkafka handed over `count` valid messages, which are ours until destroyed; the
            // payload lives as long as its message.
            unsafe {
                let m = &**message;
                if m.err == rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                    seen += 1;
                    if !m.payload.is_null() {
                        each(std::slice::from_raw_parts(m.payload.cast(), m.len));
                    }
                }
                rd::rd_kafka_message_destroy(*message);
            }
        }
    }
    // SAFETY: got above, given back once.
    unsafe { rd::rd_kafka_queue_destroy(queue) };
}

/// User and system CPU seconds and the highest resident memory in bytes of this process.
fn usage() -> (f64, u64) {
    // SAFETY: getrusage fills the struct, which is plain data.
    let usage = unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        assert_eq!(libc::getrusage(libc::RUSAGE_SELF, &mut usage), 0, "getrusage");
        usage
    };
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
    (seconds(usage.ru_utime) + seconds(usage.ru_stime), usage.ru_maxrss as u64 * 1024)
}
