//! Whether an output is right: an independent fold of the input, and the hash of what both hold.

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use serde::Deserialize;

use crate::cluster::Cluster;
use crate::workload::Job;

const STALL: Duration = Duration::from_secs(60);

/// The content of a set of rows, in any order: how many, and the sum of the hashes of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// How many rows.
    pub rows: u64,
    /// The sum of their hashes, modulo 2^64.
    pub hash: u64,
}

impl Content {
    fn add(&mut self, row: &impl Hash) {
        // Fixed keys: the same in each run.
        let mut hasher = DefaultHasher::new();
        row.hash(&mut hasher);
        self.rows += 1;
        self.hash = self.hash.wrapping_add(hasher.finish());
    }
}

#[derive(Deserialize)]
struct Order<'a> {
    order_id: &'a str,
    customer: &'a str,
    amount: i64,
    status: &'a str,
    created_at: i64,
}

#[derive(Deserialize)]
struct Bid<'a> {
    auction: i64,
    bidder: i64,
    price: i64,
    channel: &'a str,
    url: &'a str,
    date_time: i64,
    extra: &'a str,
}

/// What `job` must write for the records of `topic`.
pub fn expected(cluster: &Cluster, job: Job, topic: &str) -> Content {
    let mut content = Content::default();
    // Per customer and minute: how many orders, and their sum. Names are kept once.
    let mut names: HashMap<Box<str>, u32> = HashMap::new();
    let mut windows: HashMap<(u32, i64), (u64, i64)> = HashMap::new();
    let mut latest_ms = i64::MIN;
    let window_ms = job.window_ms().unwrap_or(1);
    read(cluster, topic, &mut |value| match job {
        Job::Window | Job::Day => {
            let order: Order<'_> = parse(value);
            let number = match names.get(order.customer) {
                Some(number) => *number,
                None => {
                    let number = names.len() as u32;
                    names.insert(order.customer.into(), number);
                    number
                }
            };
            let window = windows.entry((number, order.created_at.div_euclid(window_ms))).or_default();
            *window = (window.0 + 1, window.1 + order.amount);
            latest_ms = latest_ms.max(order.created_at);
        }
        Job::Project => {
            let order: Order<'_> = parse(value);
            if order.status == "paid" {
                content.add(&(order.order_id, order.customer, order.amount, order.created_at));
            }
        }
        Job::Q0 | Job::Q1 => {
            let bid: Bid<'_> = parse(value);
            let price = if job == Job::Q0 { bid.price as f64 } else { 0.908 * bid.price as f64 };
            content.add(&(
                bid.auction,
                bid.bidder,
                price.to_bits(),
                bid.channel,
                bid.url,
                bid.date_time,
                bid.extra,
            ));
        }
        Job::Q2 => {
            let bid: Bid<'_> = parse(value);
            if bid.auction % 123 == 0 {
                content.add(&(bid.auction, bid.price));
            }
        }
    });
    let mut by_number = vec![""; names.len()];
    names.iter().for_each(|(name, number)| by_number[*number as usize] = name);
    // The window of the closing records stays open.
    let last = latest_ms.div_euclid(window_ms);
    for ((number, window), (orders, amount)) in windows.iter().filter(|((_, window), _)| *window < last) {
        content.add(&(by_number[*number as usize], window * window_ms, *orders, *amount));
    }
    content
}

#[derive(Deserialize)]
struct WindowRow<'a> {
    customer: &'a str,
    window_start: i64,
    orders: u64,
    amount: i64,
}

#[derive(Deserialize)]
struct ProjectRow<'a> {
    order_id: &'a str,
    customer: &'a str,
    amount: i64,
    created_at: i64,
}

#[derive(Deserialize)]
struct BidRow<'a> {
    auction: i64,
    bidder: i64,
    price: f64,
    channel: &'a str,
    url: &'a str,
    date_time: i64,
    extra: &'a str,
}

#[derive(Deserialize)]
struct SomeRow {
    auction: i64,
    price: i64,
}

/// What `topic` holds of what `job` writes, committed records only.
pub fn observed(cluster: &Cluster, job: Job, topic: &str) -> Content {
    let mut content = Content::default();
    read(cluster, topic, &mut |value| match job {
        Job::Window | Job::Day => {
            let row: WindowRow<'_> = parse(value);
            content.add(&(row.customer, row.window_start, row.orders, row.amount));
        }
        Job::Project => {
            let row: ProjectRow<'_> = parse(value);
            content.add(&(row.order_id, row.customer, row.amount, row.created_at));
        }
        Job::Q0 | Job::Q1 => {
            let row: BidRow<'_> = parse(value);
            content.add(&(
                row.auction,
                row.bidder,
                row.price.to_bits(),
                row.channel,
                row.url,
                row.date_time,
                row.extra,
            ));
        }
        Job::Q2 => {
            let row: SomeRow = parse(value);
            content.add(&(row.auction, row.price));
        }
    });
    content
}

fn parse<'a, T: Deserialize<'a>>(value: &'a [u8]) -> T {
    serde_json::from_slice(value).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(value)))
}

/// Calls `each` with the value of every committed record that a topic holds now.
pub fn read(cluster: &Cluster, topic: &str, each: &mut dyn FnMut(&[u8])) {
    let consumer = cluster.reader(topic);
    let partitions = cluster.admin().partitions(topic).expect("the topic is there");
    let mut ended = BTreeSet::new();
    let mut heard = Instant::now();
    while ended.len() < partitions as usize {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => each(message.payload().expect("a value")),
            Some(Err(KafkaError::PartitionEOF(partition))) => drop(ended.insert(partition)),
            Some(Err(error)) => panic!("reading {topic}: {error}"),
            None => {
                assert!(heard.elapsed() < STALL, "reading {topic}: nothing comes any more");
                continue;
            }
        }
        heard = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(rows: &[(&str, i64)]) -> Content {
        let mut content = Content::default();
        rows.iter().for_each(|row| content.add(row));
        content
    }

    #[test]
    fn a_lost_a_doubled_and_a_changed_row_are_noticed_and_another_order_is_not() {
        let right = content(&[("a", 1), ("b", 2), ("c", 3)]);
        assert_eq!(content(&[("c", 3), ("a", 1), ("b", 2)]), right);
        assert_ne!(content(&[("a", 1), ("b", 2)]), right, "lost");
        assert_ne!(content(&[("a", 1), ("b", 2), ("c", 3), ("c", 3)]), right, "twice");
        assert_ne!(content(&[("a", 1), ("b", 2), ("b", 2)]), right, "one lost, one twice");
        assert_ne!(content(&[("a", 1), ("b", 2), ("c", 4)]), right, "changed");
    }
}
