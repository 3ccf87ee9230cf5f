//! Orders of customers: the input of keyed windows.
//!
//! A value is one line, all in this order, always of the same length:
//!
//! ```json
//! {"order_id":"order-0000000123","customer":"customer-000042","amount":1234,"status":"paid",
//!  "created_at":1700000000123,"currency":"EUR","note":"…"}
//! ```
//!
//! - `order_id` counts from 0.
//! - `customer` is also the key; the partition is that of Kafka's default partitioner (murmur2 of the key).
//!   All customers are equally frequent, or, by Zipf's law, `customer-000000` is the most frequent one.
//! - `amount`: cents, 1 to 100,000, equally distributed.
//! - `status`: paid 1/2, pending 1/4, cancelled 1/4.
//! - `created_at`: the event time in milliseconds, and the record's timestamp. Each order is late by 0 up to
//!   the disorder, equally distributed, so none is further behind an earlier one than that; none is
//!   before the start.
//! - `note`: letters, as many as the size asks for. One in fifty has escapes or characters beyond ASCII, so
//!   that readers meet them.
//!
//! After the orders come closing records, one a partition, of customers that have no other order: cancelled,
//! amount 0, an hour after the last order.

use crate::format::key;
use crate::generator::text::{Letters, push_int, push_padded};
use crate::generator::zipf::Zipf;
use crate::generator::{Record, Stream, Timeline};
use crate::random::Random;

/// The largest value: a producer sends 1,000,000 bytes by default, key and framing included.
pub const SIZE_BYTES_MAX: usize = 999_000;

/// How many of the notes are odd: one in so many.
const ODD_ONE_IN: u64 = 50;
/// A note has room for the longest of them.
const ODD: [&str; 8] = [
    r#"said \"now\""#,
    r"C:\\tmp\\a",
    r"two\nlines",
    r"tab\tand\/",
    r"\u00fcber",
    r"\ud83d\ude80 go",
    "Grüße, København",
    "日本 🚀",
];

const AMOUNT_MAX: u64 = 100_000;
/// Two random bits choose.
const STATUS: [&str; 4] = ["paid", "paid", "pending", CANCELLED];
const CANCELLED: &str = "cancelled";

/// Which orders.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// The same seed, the same orders.
    pub seed: u64,
    /// How many customers. Not 0.
    pub keys: u64,
    /// The exponent of Zipf's law; 0: all customers are equally frequent.
    pub zipf: f64,
    /// How late an order may be.
    pub disorder_ms: u64,
    /// The length of each value.
    pub size_bytes: usize,
    /// Of the topic. Above 0.
    pub partitions: i32,
    /// Whether closing records follow.
    pub close: bool,
}

/// The stream of orders.
pub struct Orders {
    spec: Spec,
    timeline: Timeline,
    random: Random,
    zipf: Option<Zipf>,
    letters: Letters,
    next: u64,
    /// By partition, a customer without orders.
    closing: Vec<u64>,
}

impl Orders {
    /// Starts the stream.
    ///
    /// # Errors
    /// When the size is too small or too large for a value, or there are too many keys or partitions.
    pub fn new(spec: Spec, timeline: Timeline) -> Result<Orders, String> {
        let random = Random::new(spec.seed);
        let orders = Orders {
            zipf: (spec.zipf > 0.0).then(|| Zipf::new(spec.keys, spec.zipf)),
            letters: Letters::new(&mut random.fork("letters")),
            next: 0,
            closing: closing_customers(spec.keys, spec.partitions),
            random,
            timeline,
            spec,
        };
        orders.check_size()?;
        Ok(orders)
    }

    fn check_size(&self) -> Result<(), String> {
        let (mut longest, size) = (Record::default(), self.spec.size_bytes);
        let customer = self.closing.iter().copied().max().unwrap_or(0);
        let last = self.timeline.records().saturating_add(self.closing.len() as u64);
        self.write_fields(last, customer, AMOUNT_MAX, CANCELLED, self.timeline.closing_ms(), &mut longest);
        let odd = ODD.iter().map(|note| note.len()).max().unwrap_or(0);
        let least = longest.value.len() + odd + END.len();
        if !(least..=SIZE_BYTES_MAX).contains(&size) {
            return Err(format!("a size of {size} bytes: these orders take {least} to {SIZE_BYTES_MAX}"));
        }
        Ok(())
    }

    fn order(&mut self, record: &mut Record) {
        let customer = match &self.zipf {
            Some(zipf) => zipf.draw(&mut self.random) - 1,
            None => self.random.below(self.spec.keys),
        };
        let bits = self.random.bits();
        let status = STATUS[(bits >> 62) as usize];
        let amount = 1 + self.random.below(AMOUNT_MAX);
        let late_ms = self.random.below(self.spec.disorder_ms.saturating_add(1));
        let at_ms = self.timeline.at_ms(self.next).saturating_sub_unsigned(late_ms);
        self.write_fields(self.next, customer, amount, status, at_ms.max(self.timeline.start_ms()), record);
        let odd = self.random.one_in(ODD_ONE_IN).then(|| *self.random.pick(&ODD));
        self.write_note(odd.unwrap_or(""), record);
        record.partition = key::partition(Some(&record.key), self.spec.partitions).unwrap_or(0);
    }

    /// Key, timestamp and value up to where the note begins.
    fn write_fields(
        &self,
        order: u64,
        customer: u64,
        amount: u64,
        status: &str,
        at_ms: i64,
        record: &mut Record,
    ) {
        (record.topic, record.timestamp_ms) = (0, at_ms);
        write_customer(customer, &mut record.key);
        let value = &mut record.value;
        value.clear();
        value.extend_from_slice(b"{\"order_id\":\"order-");
        push_padded(order, 10, value);
        value.extend_from_slice(b"\",\"customer\":\"");
        value.extend_from_slice(&record.key);
        value.extend_from_slice(b"\",\"amount\":");
        push_int(amount, value);
        value.extend_from_slice(b",\"status\":\"");
        value.extend_from_slice(status.as_bytes());
        value.extend_from_slice(b"\",\"created_at\":");
        push_int(at_ms, value);
        value.extend_from_slice(b",\"currency\":\"EUR\",\"note\":\"");
    }

    /// The rest of the value.
    fn write_note(&mut self, odd: &str, record: &mut Record) {
        record.value.extend_from_slice(odd.as_bytes());
        let letters = self.spec.size_bytes - record.value.len() - END.len();
        self.letters.push(letters, &mut self.random, &mut record.value);
        record.value.extend_from_slice(END);
    }
}

/// Behind the note.
const END: &[u8] = b"\"}";

impl Stream for Orders {
    fn next(&mut self, record: &mut Record) -> bool {
        let after = self.next.checked_sub(self.timeline.records());
        match after {
            None => self.order(record),
            Some(place) => {
                let customer = self.closing.get(place as usize).filter(|_| self.spec.close);
                let Some(customer) = customer.copied() else { return false };
                self.write_fields(self.next, customer, 0, CANCELLED, self.timeline.closing_ms(), record);
                self.write_note("", record);
                record.partition = place as i32;
            }
        }
        self.next += 1;
        true
    }
}

fn write_customer(customer: u64, key: &mut Vec<u8>) {
    key.clear();
    key.extend_from_slice(b"customer-");
    push_padded(customer, 6, key);
}

/// For each partition the first customer, from `keys` on, that belongs there.
fn closing_customers(keys: u64, partitions: i32) -> Vec<u64> {
    let mut found: Vec<Option<u64>> = vec![None; usize::try_from(partitions).unwrap_or(0)];
    let (mut missing, mut key) = (found.len(), Vec::new());
    let mut customers = keys..u64::MAX;
    while let Some(customer) = customers.next().filter(|_| missing > 0) {
        write_customer(customer, &mut key);
        let place =
            key::partition(Some(&key), partitions).and_then(|p| found.get_mut(usize::try_from(p).ok()?));
        if let Some(place) = place.filter(|place| place.is_none()) {
            *place = Some(customer);
            missing -= 1;
        }
    }
    found.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests;
