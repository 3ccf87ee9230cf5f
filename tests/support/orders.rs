//! A seeded generator of orders: JSON of some 200 bytes, out of order within a bound, some late, some
//! malformed in every way a source knows, some null.

use super::kafka::Writer;
use super::random::Random;

/// What to generate. Shares are probabilities per record.
#[derive(Clone, Debug)]
pub struct Orders {
    /// The same seed gives the same orders.
    pub seed: u64,
    /// How many customers.
    pub keys: u64,
    /// The partitions of the topic; a customer's orders all go to one of them.
    pub partitions: i32,
    /// The event time of the first order.
    pub start_ms: i64,
    /// Event time between one order and the next.
    pub step_ms: f64,
    /// An order may be this much older than the newest one.
    pub disorder_ms: i64,
    /// Older than any window would wait for.
    pub late_share: f64,
    /// How much older.
    pub late_ms: i64,
    /// Records that cannot be decoded.
    pub malformed_share: f64,
    /// Records without a value.
    pub null_share: f64,
    /// Orders that are good and unusual: other forms of numbers, unknown, repeated and missing fields.
    pub odd_share: f64,
}

impl Default for Orders {
    fn default() -> Self {
        Orders {
            seed: 1,
            keys: 100,
            partitions: 4,
            start_ms: 1_700_000_000_000,
            step_ms: 10.0,
            disorder_ms: 4_000,
            late_share: 0.01,
            late_ms: 300_000,
            malformed_share: 0.01,
            null_share: 0.003,
            odd_share: 0.3,
        }
    }
}

/// A record to be written.
#[derive(Clone, Debug, Default)]
pub struct Generated {
    /// Where to.
    pub partition: i32,
    /// The customer.
    pub key: Vec<u8>,
    /// The order; empty and `null` set: none.
    pub value: Vec<u8>,
    /// Whether the record has no value.
    pub null: bool,
    /// Its Kafka timestamp, near its event time.
    pub timestamp_ms: i64,
}

/// An endless sequence of records.
pub struct Generator {
    spec: Orders,
    random: Random,
    count: u64,
}

const STATUS: [&str; 4] = ["paid", "paid", "pending", "cancelled"];
const CURRENCY: [&str; 3] = ["EUR", "USD", "CHF"];
const NOTE: [&str; 5] = [
    "leave it at the door, please",
    "gift wrap: \\u201cfor Zo\\u00eb\\u201d",
    "caf\u{e9} au coin, \u{1f3c1} deuxi\u{e8}me \u{e9}tage",
    "say \\\"hello\\\" \\\\ ring twice",
    "",
];

impl Generator {
    /// Starts the sequence.
    pub fn new(spec: Orders) -> Generator {
        let random = Random::new(spec.seed);
        Generator { spec, random, count: 0 }
    }

    /// The event time that the sequence has reached.
    pub fn now_ms(&self) -> i64 {
        self.spec.start_ms + (self.count as f64 * self.spec.step_ms) as i64
    }

    /// Makes the next record in place.
    pub fn next(&mut self, record: &mut Generated) {
        let now_ms = self.now_ms();
        let number = self.count;
        self.count += 1;
        let customer = self.random.below(self.spec.keys);
        let mut created_ms = now_ms - self.random.below(self.spec.disorder_ms as u64 + 1) as i64;
        if self.random.chance(self.spec.late_share) {
            created_ms -= self.spec.late_ms;
        }
        record.partition = (customer % self.spec.partitions as u64) as i32;
        record.timestamp_ms = now_ms;
        record.null = self.random.chance(self.spec.null_share);
        record.key.clear();
        record.value.clear();
        write(&mut record.key, format_args!("customer-{customer:06}"));
        if record.null {
            return;
        }
        if self.random.chance(self.spec.malformed_share) {
            self.malformed(number, customer, created_ms, &mut record.value);
        } else {
            self.order(number, customer, created_ms, &mut record.value);
        }
    }

    fn order(&mut self, number: u64, customer: u64, created_ms: i64, value: &mut Vec<u8>) {
        let odd = self.random.chance(self.spec.odd_share);
        let random = &mut self.random;
        let (status, currency, note) = (random.pick(&STATUS), random.pick(&CURRENCY), random.pick(&NOTE));
        let (whole, cents) = (random.below(500), random.below(100));
        write(
            value,
            format_args!("{{\"order_id\":\"order-{number:010}\",\"customer\":\"customer-{customer:06}\""),
        );
        match if odd { random.below(8) } else { 8 } {
            0 => write(value, format_args!(",\"amount\":{whole}")),
            1 => write(value, format_args!(",\"amount\":-{whole}.5")),
            2 => write(value, format_args!(",\"amount\":\"nothing\",\"amount\":{cents}e-2")),
            _ => write(value, format_args!(",\"amount\":{whole}.{cents:02}")),
        }
        write(
            value,
            format_args!(",\"status\":\"{status}\",\"created_at\":{created_ms},\"currency\":\"{currency}\""),
        );
        match if odd { random.below(4) } else { 4 } {
            0 => {}
            1 => write(value, format_args!(",\"note\":null")),
            2 => write(value, format_args!(",\"items\":[{{\"sku\":\"a\"}},2],\"note\":\"{note}\"")),
            _ => write(value, format_args!(",\"note\":\"{note}\"")),
        }
        value.push(b'}');
    }

    fn malformed(&mut self, number: u64, customer: u64, created_ms: i64, value: &mut Vec<u8>) {
        self.order(number, customer, created_ms, value);
        let whole = String::from_utf8(std::mem::take(value)).expect("JSON is text");
        let created = format!("\"created_at\":{created_ms}");
        let broken = match self.random.below(9) {
            0 => whole.split_inclusive("\"status\":").next().expect("a first part").to_string(),
            1 => whole.replace("\"status\":", "\"stat\":"),
            2 => whole.replace("\"amount\":", "\"amount\":true,\"_\":"),
            3 => whole.replace(&created, "\"created_at\":\"yesterday\""),
            4 => whole.replace(&created, &format!("\"created_at\":{}", created_ms + 400 * 86_400_000)),
            5 => whole.replace("\"currency\":", "\"currency\":null,\"_\":"),
            6 => format!("[{whole}]"),
            7 => String::new(),
            _ => {
                *value = whole.into_bytes();
                value[14] = 0xff; // not UTF-8, in the order's id
                return;
            }
        };
        *value = broken.into_bytes();
    }
}

fn write(to: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    use std::io::Write;
    to.write_fmt(text).expect("a Vec takes everything");
}

/// Generates `count` records into a topic, and waits until they are written.
pub fn produce(writer: &Writer, topic: &str, generator: &mut Generator, count: u64) {
    let mut record = Generated::default();
    for _ in 0..count {
        generator.next(&mut record);
        let value = (!record.null).then_some(record.value.as_slice());
        writer.send(topic, record.partition, Some(&record.key), value, record.timestamp_ms);
    }
    writer.flush();
}

/// Writes to each partition an order that no filter passes and that is `ahead_ms` younger than all
/// others: it closes every window before it.
pub fn close_windows(writer: &Writer, topic: &str, generator: &Generator, ahead_ms: i64) {
    let created_ms = generator.now_ms() + ahead_ms;
    for partition in 0..generator.spec.partitions {
        let value = format!(
            "{{\"order_id\":\"last-{partition}\",\"customer\":\"customer-{partition:06}\",\"amount\":1.0,\
             \"status\":\"cancelled\",\"created_at\":{created_ms},\"currency\":\"EUR\"}}"
        );
        let key = format!("customer-{partition:06}");
        writer.send(topic, partition, Some(key.as_bytes()), Some(value.as_bytes()), created_ms);
    }
    writer.flush();
}
