//! What the results must be: a fold over the input topic as it stands on the broker, from the first
//! record to the last, with none of the engine's code. It keeps every order of every window, so it is
//! slow and plain.

use std::collections::{BTreeMap, BTreeSet};

use super::kafka::Record;

/// A decoded order.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the fields of the JSON")]
pub struct Order {
    pub order_id: String,
    pub customer: String,
    pub amount: f64,
    pub status: String,
    pub created_at: i64,
    pub currency: String,
    pub note: Option<String>,
    /// Where it was read.
    pub partition: i32,
    /// Where it was read.
    pub offset: i64,
}

/// An event time further after the Kafka timestamp than this is an error, by default.
const MAX_AHEAD_MS: i64 = 86_400_000;

/// Decodes an order, or says why it is none.
pub fn decode(record: &Record) -> Result<Order, String> {
    let value = record.value.as_deref().ok_or("no value")?;
    let json: serde_json::Value = serde_json::from_slice(value).map_err(|e| e.to_string())?;
    let object = json.as_object().ok_or("no object")?;
    let text = |name: &str| match object.get(name) {
        Some(serde_json::Value::String(text)) => Ok(text.clone()),
        other => Err(format!("{name} is {other:?}")),
    };
    let created_at = match object.get("created_at") {
        Some(serde_json::Value::Number(n)) => n.as_i64().ok_or("created_at is no integer")?,
        other => return Err(format!("created_at is {other:?}")),
    };
    if created_at > record.timestamp_ms + MAX_AHEAD_MS {
        return Err("created_at is too far ahead".to_string());
    }
    Ok(Order {
        order_id: text("order_id")?,
        customer: text("customer")?,
        amount: match object.get("amount") {
            Some(serde_json::Value::Number(n)) => n.as_f64().ok_or("amount is no double")?,
            other => return Err(format!("amount is {other:?}")),
        },
        status: text("status")?,
        created_at,
        currency: text("currency")?,
        note: match object.get("note") {
            None | Some(serde_json::Value::Null) => None,
            Some(serde_json::Value::String(text)) => Some(text.clone()),
            other => return Err(format!("note is {other:?}")),
        },
        partition: record.partition,
        offset: record.offset,
    })
}

/// A keyed tumbling window behind a filter.
#[derive(Clone, Copy)]
pub struct Windows {
    /// Which orders reach it.
    pub keep: fn(&Order) -> bool,
    /// What they are grouped by.
    pub key: fn(&Order) -> String,
    /// Its length.
    pub size_ms: i64,
    /// How long after its end it takes records.
    pub lateness_ms: i64,
    /// How far the source's watermark stays behind.
    pub disorder_ms: i64,
}

/// A window: its key and its start.
pub type WindowId = (String, i64);

/// The orders that a window took, in offset order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Window {
    /// The orders.
    pub orders: Vec<Order>,
    /// Whether the watermark has closed it.
    pub closed: bool,
}

/// What comes out.
#[derive(Debug, Default)]
pub struct Folded {
    /// Every window that took an order.
    pub windows: BTreeMap<WindowId, Window>,
    /// Orders too late for their window: partition and offset.
    pub late: BTreeSet<(i32, i64)>,
    /// Records that are no orders: partition and offset.
    pub rejected: BTreeSet<(i32, i64)>,
    /// All that are.
    pub orders: Vec<Order>,
}

/// Folds the records of an input topic. `bounded`: the end of the input closes all windows.
pub fn fold(input: &[Record], windows: Windows, bounded: bool) -> Folded {
    let mut by_partition: BTreeMap<i32, Vec<&Record>> = BTreeMap::new();
    for record in input {
        by_partition.entry(record.partition).or_default().push(record);
    }
    let mut folded = Folded::default();
    for records in by_partition.values_mut() {
        records.sort_by_key(|r| r.offset);
        fold_partition(records, windows, bounded, &mut folded);
    }
    folded
}

fn fold_partition(records: &[&Record], windows: Windows, bounded: bool, folded: &mut Folded) {
    let mut watermark_ms = i64::MIN;
    let mut opened = BTreeSet::new();
    for record in records {
        let order = match decode(record) {
            Ok(order) => order,
            Err(_) => {
                folded.rejected.insert((record.partition, record.offset));
                continue;
            }
        };
        folded.orders.push(order.clone());
        let before_ms = watermark_ms;
        watermark_ms = watermark_ms.max(order.created_at - windows.disorder_ms);
        if !(windows.keep)(&order) {
            continue;
        }
        let start_ms = order.created_at.div_euclid(windows.size_ms) * windows.size_ms;
        if before_ms >= start_ms + windows.size_ms + windows.lateness_ms {
            folded.late.insert((record.partition, record.offset));
            continue;
        }
        let id = ((windows.key)(&order), start_ms);
        folded.windows.entry(id.clone()).or_default().orders.push(order);
        opened.insert(id);
    }
    for id in opened {
        let closes_ms = id.1 + windows.size_ms + windows.lateness_ms;
        let window = folded.windows.get_mut(&id).expect("it was opened above");
        window.closed = bounded || watermark_ms >= closes_ms;
    }
}

/// An order that reaches a window operator.
pub struct Arrival {
    /// The order.
    pub order: Order,
    /// The watermark before it.
    pub watermark_ms: i64,
    /// The watermark behind the last order of its partition; all of time if the end of the input closes all windows.
    pub last_watermark_ms: i64,
}

/// The orders that `windows` keeps, in the order of their partitions and offsets.
pub fn arrivals(input: &[Record], windows: Windows, bounded: bool) -> Vec<Arrival> {
    let mut by_partition: BTreeMap<i32, Vec<&Record>> = BTreeMap::new();
    for record in input {
        by_partition.entry(record.partition).or_default().push(record);
    }
    let mut all = Vec::new();
    for records in by_partition.values_mut() {
        records.sort_by_key(|record| record.offset);
        let (mut watermark_ms, begin) = (i64::MIN, all.len());
        for order in records.iter().filter_map(|record| decode(record).ok()) {
            let before_ms = watermark_ms;
            watermark_ms = watermark_ms.max(order.created_at - windows.disorder_ms);
            if (windows.keep)(&order) {
                all.push(Arrival { order, watermark_ms: before_ms, last_watermark_ms: 0 });
            }
        }
        let last_ms = if bounded { i64::MAX } else { watermark_ms };
        all[begin..].iter_mut().for_each(|arrival| arrival.last_watermark_ms = last_ms);
    }
    all
}

/// A session of a customer, by definition: orders that follow one another within a gap.
pub struct Session {
    /// Its first order's time.
    pub start_ms: i64,
    /// A gap behind its last order's time.
    pub end_ms: i64,
    /// Its orders as they came.
    pub orders: Vec<Order>,
    /// Whether the watermark has reached its end.
    pub closed: bool,
}

/// The sessions of all customers.
pub fn sessions(
    input: &[Record],
    windows: Windows,
    gap_ms: i64,
    bounded: bool,
) -> BTreeMap<String, Vec<Session>> {
    let mut all: BTreeMap<String, Vec<Session>> = BTreeMap::new();
    for Arrival { order, watermark_ms, last_watermark_ms } in arrivals(input, windows, bounded) {
        let sessions = all.entry((windows.key)(&order)).or_default();
        let at_ms = order.created_at;
        let joins = |session: &Session| {
            session.end_ms > watermark_ms && session.start_ms <= at_ms + gap_ms && session.end_ms >= at_ms
        };
        let (joined, mut others): (Vec<_>, Vec<_>) = std::mem::take(sessions).into_iter().partition(joins);
        let mut whole =
            Session { start_ms: at_ms, end_ms: at_ms + gap_ms, orders: Vec::new(), closed: false };
        for session in joined {
            whole.start_ms = whole.start_ms.min(session.start_ms);
            whole.end_ms = whole.end_ms.max(session.end_ms);
            whole.orders.extend(session.orders);
        }
        if whole.end_ms > watermark_ms {
            whole.orders.push(order);
            whole.closed = last_watermark_ms >= whole.end_ms;
            others.push(whole);
        }
        *sessions = others;
    }
    all
}

/// The Java client's partition of a key (murmur2, as in `org.apache.kafka.common.utils.Utils`).
pub fn partition_of(key: &[u8], partitions: i32) -> i32 {
    const M: u32 = 0x5bd1_e995;
    let mut h = 0x9747_b28c ^ key.len() as u32;
    let mut chunks = key.chunks_exact(4);
    for chunk in &mut chunks {
        let mut k = u32::from_le_bytes(chunk.try_into().expect("4 bytes")).wrapping_mul(M);
        k ^= k >> 24;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        for (i, byte) in rest.iter().enumerate() {
            h ^= u32::from(*byte) << (8 * i);
        }
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^= h >> 15;
    (h & 0x7fff_ffff) as i32 % partitions
}
