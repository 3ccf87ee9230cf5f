//! The topologies that the tests run, each with what its outputs must be according to the reference
//! fold.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::kafka::{Admin, Isolation, Reader, Record};
use super::reference::{Folded, Order, Window, Windows, arrivals, decode, fold, sessions};
use super::thalweg::Start;
use super::unique;

/// The rows of an output topic by what is compared as a sequence: a key, or a key's window.
pub type Rows = BTreeMap<String, Vec<Value>>;

/// A topology and its meaning.
pub struct Case {
    /// Its name, for messages.
    pub name: &'static str,
    /// Its operators and sinks: the part of the file below the source. `OUT0`, `OUT1`… and `LATE` stand
    /// for topics.
    pub yaml: &'static str,
    /// What the window operators see. Where a topology has several windows, that with the late topic.
    pub windows: Windows,
    /// Whether late records go to the late topic.
    pub late_topic: bool,
    /// One per output topic, in their order.
    pub outputs: &'static [Output],
}

/// An output topic.
pub struct Output {
    /// What must be in it.
    pub expect: fn(&Expectation) -> Rows,
    /// The fields that make its record key.
    pub key: &'static [&'static str],
    /// The fields in the order in which they are written.
    pub fields: &'static [&'static str],
}

/// What an [`Output`] is computed from.
pub struct Expectation<'a> {
    /// The input topic.
    pub input: &'a [Record],
    /// The fold of [`Case::windows`].
    pub folded: &'a Folded,
    /// How many partitions the input topic has.
    pub partitions: i32,
    /// Whether the end of the input closes all windows.
    pub bounded: bool,
}

fn paid(order: &Order) -> bool {
    order.status == "paid" && order.amount > 0.0
}

fn sum(orders: &[Order]) -> f64 {
    orders.iter().fold(0.0, |sum, order| sum + order.amount)
}

/// The rows of closed windows, one for each.
fn on_close(folded: &Folded, row: impl Fn(&Window, i64) -> Value) -> Rows {
    let closed = folded.windows.iter().filter(|(_, window)| window.closed);
    closed.map(|((key, start), window)| (format!("{key} {start}"), vec![row(window, *start)])).collect()
}

const MINUTE: Windows = Windows {
    keep: paid,
    key: |order| order.customer.clone(),
    size_ms: 60_000,
    lateness_ms: 30_000,
    disorder_ms: 5_000,
};

fn revenue(window: &Window, start: i64, size_ms: i64) -> Value {
    let orders = &window.orders;
    json!({
        "customer": orders[0].customer, "window_start": start, "window_end": start + size_ms,
        "orders": orders.len(), "revenue": sum(orders),
    })
}

const REVENUE_FIELDS: &[&str] = &["customer", "window_start", "window_end", "orders", "revenue"];

/// Counts and sums per customer and minute.
pub const REVENUE: Case = Case {
    name: "revenue",
    yaml: r#"
operators:
  paid: { type: filter, input: orders, where: 'status == "paid" && amount > 0.0' }
  per_minute:
    type: window
    input: paid
    key_by: [customer]
    window: { type: tumbling, size: 1m, allowed_lateness: 30s }
    aggregate: { orders: 'count()', revenue: 'sum(amount)' }
sinks:
  revenue: { input: per_minute, topic: OUT0, key: [customer], format: { type: json } }
"#,
    windows: MINUTE,
    late_topic: false,
    outputs: &[Output {
        expect: |e| on_close(e.folded, |w, start| revenue(w, start, 60_000)),
        key: &["customer"],
        fields: REVENUE_FIELDS,
    }],
};

fn statistics(window: &Window, start: i64) -> Value {
    let orders = &window.orders;
    let amounts = || orders.iter().map(|o| o.amount);
    json!({
        "customer": orders[0].customer, "currency": orders[0].currency,
        "window_start": start, "window_end": start + 10_000,
        "n": orders.len(),
        "notes": orders.iter().filter(|o| o.note.is_some()).count(),
        "total": sum(orders),
        "least": amounts().reduce(f64::min),
        "most": amounts().reduce(f64::max),
        "mean": sum(orders) / orders.len() as f64,
        "first_id": orders.iter().map(|o| &o.order_id).min(),
        "newest": orders.iter().map(|o| o.created_at).max(),
        "letters": orders.iter().map(|o| o.order_id.len()).sum::<usize>(),
        "last_note": orders.iter().filter_map(|o| o.note.as_ref()).max(),
    })
}

/// All aggregates, a key of two fields, a late topic, no allowed lateness.
pub const STATISTICS: Case = Case {
    name: "statistics",
    yaml: r#"
operators:
  per_currency:
    type: window
    input: orders
    key_by: [customer, currency]
    window: { type: tumbling, size: 10s }
    aggregate:
      n: 'count()'
      notes: 'count(note)'
      total: 'sum(amount)'
      least: 'min(amount)'
      most: 'max(amount)'
      mean: 'avg(amount)'
      first_id: 'min(order_id)'
      newest: 'max(created_at)'
      letters: 'sum(size(order_id))'
      last_note: 'max(note)'
    late: { topic: LATE }
sinks:
  statistics: { input: per_currency, topic: OUT0, key: [customer, currency], format: { type: json } }
"#,
    windows: Windows {
        keep: |_| true,
        key: |order| format!("{} {}", order.customer, order.currency),
        size_ms: 10_000,
        lateness_ms: 0,
        disorder_ms: 5_000,
    },
    late_topic: true,
    outputs: &[Output {
        expect: |e| on_close(e.folded, statistics),
        key: &["customer", "currency"],
        fields: &[
            "customer",
            "currency",
            "window_start",
            "window_end",
            "n",
            "notes",
            "total",
            "least",
            "most",
            "mean",
            "first_id",
            "newest",
            "letters",
            "last_note",
        ],
    }],
};

fn copies(e: &Expectation) -> Rows {
    let mut rows = Rows::new();
    for order in e.folded.orders.iter().filter(|o| paid(o)) {
        rows.entry(order.customer.clone()).or_default().push(json!({
            "order_id": order.order_id, "customer": order.customer,
            "gross": order.amount * 1.2,
            "size": if order.amount >= 250.0 { "large" } else { "small" },
            "at": order.offset,
        }));
    }
    rows
}

/// No state at all: each paid order once, in order.
pub const COPY: Case = Case {
    name: "copy",
    yaml: r#"
operators:
  paid: { type: filter, input: orders, where: 'status == "paid" && amount > 0.0' }
  gross:
    type: map
    input: paid
    keep: [order_id, customer]
    set: { gross: 'amount * 1.2', size: 'amount >= 250.0 ? "large" : "small"', at: 'meta.offset' }
sinks:
  copies: { input: gross, topic: OUT0, key: [customer], format: { type: json } }
"#,
    windows: MINUTE,
    late_topic: false,
    outputs: &[Output {
        expect: copies,
        key: &["customer"],
        fields: &["order_id", "customer", "gross", "size", "at"],
    }],
};

fn updates(e: &Expectation) -> Rows {
    let mut rows = Rows::new();
    for ((key, start), window) in &e.folded.windows {
        let row = |orders: &[Order], last: bool| {
            json!({
                "customer": key, "window_start": start, "window_end": start + 60_000,
                "orders": orders.len(), "revenue": sum(orders), "final": last,
            })
        };
        let rows = rows.entry(format!("{key} {start}")).or_default();
        rows.extend((1..=window.orders.len()).map(|n| row(&window.orders[..n], false)));
        if window.closed {
            rows.push(row(&window.orders, true));
        }
    }
    rows
}

/// A row for each update, and the final one.
pub const UPDATES: Case = Case {
    name: "updates",
    yaml: r#"
operators:
  paid: { type: filter, input: orders, where: 'status == "paid" && amount > 0.0' }
  per_minute:
    type: window
    input: paid
    key_by: [customer]
    window: { type: tumbling, size: 1m, allowed_lateness: 30s }
    aggregate: { orders: 'count()', revenue: 'sum(amount)' }
    emit: on_update
sinks:
  revenue: { input: per_minute, topic: OUT0, key: [customer], format: { type: json } }
"#,
    windows: MINUTE,
    late_topic: false,
    outputs: &[Output {
        expect: updates,
        key: &["customer"],
        fields: &["customer", "window_start", "window_end", "orders", "revenue", "final"],
    }],
};

fn five_minutes(e: &Expectation) -> Rows {
    let windows = Windows { size_ms: 300_000, lateness_ms: 0, ..MINUTE };
    let folded = fold(e.input, windows, e.bounded);
    on_close(&folded, |w, start| revenue(w, start, 300_000))
}

const SLIDING: (i64, i64) = (150_000, 60_000);

/// Two and a half minutes every minute: the count, the largest order and the newest.
fn sliding(e: &Expectation) -> Rows {
    let (size_ms, slide_ms) = SLIDING;
    let mut windows: BTreeMap<(String, i64), (Vec<Order>, bool)> = BTreeMap::new();
    for arrival in arrivals(e.input, MINUTE, e.bounded) {
        let at_ms = arrival.order.created_at;
        let mut start_ms = at_ms.div_euclid(slide_ms) * slide_ms;
        while start_ms + size_ms > at_ms {
            if start_ms + size_ms > arrival.watermark_ms {
                let window = windows.entry((arrival.order.customer.clone(), start_ms)).or_default();
                window.0.push(arrival.order.clone());
                window.1 = arrival.last_watermark_ms >= start_ms + size_ms;
            }
            start_ms -= slide_ms;
        }
    }
    let closed = windows.into_iter().filter(|(_, (_, closed))| *closed);
    let row = |((customer, start_ms), (orders, _)): ((String, i64), (Vec<Order>, bool))| {
        // Of equally new ones the last.
        let newest = orders.iter().max_by_key(|order| order.created_at).expect("an order");
        let largest = orders.iter().fold(0.0, |largest: f64, order| largest.max(order.amount));
        let row = json!({
            "customer": customer, "window_start": start_ms, "window_end": start_ms + size_ms,
            "orders": orders.len(), "largest": largest, "newest": newest.order_id,
        });
        (format!("{customer} {start_ms}"), vec![row])
    };
    closed.map(row).collect()
}

/// Sessions that end after twenty seconds: the count, and the first order.
fn visits(e: &Expectation) -> Rows {
    let mut rows = Rows::new();
    for (customer, sessions) in sessions(e.input, MINUTE, 20_000, e.bounded) {
        for session in sessions.iter().filter(|session| session.closed) {
            // Of equally old ones the first.
            let first = session.orders.iter().min_by_key(|order| order.created_at).expect("an order");
            let row = json!({
                "customer": customer, "window_start": session.start_ms, "window_end": session.end_ms,
                "orders": session.orders.len(), "first": first.order_id,
            });
            rows.entry(format!("{customer} {}", session.start_ms)).or_default().push(row);
        }
    }
    rows
}

/// The watermark behind the minutes, of all partitions together: that of the slowest.
fn watermark_of_minutes(e: &Expectation) -> i64 {
    let last_ms = |partition| {
        let of_partition = e.folded.orders.iter().filter(|order| order.partition == partition);
        of_partition.map(|order| order.created_at - MINUTE.disorder_ms).max().unwrap_or(i64::MIN)
    };
    let least_ms = (0..e.partitions).map(last_ms).min().unwrap_or(i64::MIN);
    if e.bounded { i64::MAX } else { least_ms.saturating_sub(MINUTE.lateness_ms) }
}

/// How many customers had so many orders in a minute, every five minutes: a key that lies in all partitions.
fn busy(e: &Expectation) -> BTreeMap<(i64, i64), (i64, f64)> {
    let mut windows: BTreeMap<(i64, i64), (i64, f64)> = BTreeMap::new();
    for ((_, start_ms), window) in e.folded.windows.iter().filter(|(_, window)| window.closed) {
        let at_ms = start_ms + MINUTE.size_ms - 1;
        let place = (at_ms.div_euclid(300_000) * 300_000, window.orders.len() as i64);
        let (customers, most) = windows.entry(place).or_insert((0, f64::MIN));
        (*customers, *most) = (*customers + 1, most.max(sum(&window.orders)));
    }
    let watermark_ms = watermark_of_minutes(e);
    windows.retain(|(start_ms, _), _| start_ms + 300_000 <= watermark_ms);
    windows
}

fn busy_rows(e: &Expectation) -> Rows {
    let row = |((start, orders), (customers, most)): ((i64, i64), (i64, f64))| {
        let row = json!({
            "orders": orders, "window_start": start, "window_end": start + 300_000, "customers": customers,
            "most": most,
        });
        (format!("{orders} {start}"), vec![row])
    };
    busy(e).into_iter().map(row).collect()
}

/// The minutes of all customers, every five minutes.
fn everybody(e: &Expectation) -> Rows {
    let mut windows: BTreeMap<i64, (usize, usize)> = BTreeMap::new();
    for ((_, start_ms), window) in e.folded.windows.iter().filter(|(_, window)| window.closed) {
        let at_ms = start_ms + MINUTE.size_ms - 1;
        let (rows, orders) = windows.entry(at_ms.div_euclid(300_000) * 300_000).or_default();
        (*rows, *orders) = (*rows + 1, *orders + window.orders.len());
    }
    let watermark_ms = watermark_of_minutes(e);
    let closed = windows.into_iter().filter(|(start, _)| start + 300_000 <= watermark_ms);
    let row = |(start, (rows, orders)): (i64, (usize, usize))| {
        let row =
            json!({ "window_start": start, "window_end": start + 300_000, "rows": rows, "orders": orders });
        (format!("{start} {start}"), vec![row])
    };
    closed.map(row).collect()
}

/// For how long equally many customers came to some number of orders: sessions of another key that lies anywhere.
fn rushes(e: &Expectation) -> Rows {
    const GAP_MS: i64 = 600_000;
    let mut times: BTreeMap<i64, Vec<(i64, i64)>> = BTreeMap::new();
    for ((start_ms, orders), (customers, _)) in busy(e) {
        times.entry(customers).or_default().push((start_ms + 299_999, orders));
    }
    let watermark_ms = watermark_of_minutes(e);
    let mut rows = Rows::new();
    for (customers, mut times) in times {
        times.sort();
        for session in times.chunk_by(|before, after| after.0 <= before.0 + GAP_MS) {
            let (first, last) = (session.first().expect("one").0, session.last().expect("one").0 + GAP_MS);
            if last <= watermark_ms {
                let least = session.iter().map(|(_, orders)| orders).min();
                let row = json!({
                    "customers": customers, "window_start": first, "window_end": last, "times": session.len(),
                    "least": least,
                });
                rows.entry(format!("{customers} {first}")).or_default().push(row);
            }
        }
    }
    rows
}

/// One stream read by windows of several kinds and a sink, and by windows whose keys lie in all of its partitions.
pub const SHARED: Case = Case {
    name: "shared",
    yaml: r#"
operators:
  paid: { type: filter, input: orders, where: 'status == "paid" && amount > 0.0' }
  gross:
    type: map
    input: paid
    keep: [order_id, customer]
    set: { gross: 'amount * 1.2', size: 'amount >= 250.0 ? "large" : "small"', at: 'meta.offset' }
  per_minute:
    type: window
    input: paid
    key_by: [customer]
    window: { type: tumbling, size: 1m, allowed_lateness: 30s }
    aggregate: { orders: 'count()', revenue: 'sum(amount)' }
    late: { topic: LATE }
  per_five:
    type: window
    input: paid
    key_by: [customer]
    window: { type: tumbling, size: 5m }
    aggregate: { orders: 'count()', revenue: 'sum(amount)' }
  lately:
    type: window
    input: paid
    key_by: [customer]
    window: { type: sliding, size: 150s, slide: 60s }
    aggregate: { orders: 'count()', largest: 'max(amount)', newest: 'last(order_id)' }
  visits:
    type: window
    input: paid
    key_by: [customer]
    window: { type: session, gap: 20s }
    aggregate: { orders: 'count()', first: 'first(order_id)' }
  busy:
    type: window
    input: per_minute
    key_by: [orders]
    two_phase: true
    window: { type: tumbling, size: 5m }
    aggregate: { customers: 'count()', most: 'max(revenue)' }
  rushes:
    type: window
    input: busy
    key_by: [customers]
    window: { type: session, gap: 10m }
    aggregate: { times: 'count()', least: 'min(orders)' }
  everybody:
    type: window
    input: per_minute
    key_by: []
    window: { type: tumbling, size: 5m }
    aggregate: { rows: 'count()', orders: 'sum(orders)' }
  changes:
    type: window
    input: paid
    key_by: [customer]
    window: { type: tumbling, size: 1m, allowed_lateness: 30s }
    aggregate: { orders: 'count()' }
    emit: { early: { rows: 2 }, then: on_time }
    changelog: true
  signed: { type: map, input: changes, set: { sign: 'op == "insert" || op == "update_after" ? 1 : -1' } }
  settled:
    type: window
    input: signed
    key_by: [customer]
    window: { type: tumbling, size: 1m }
    aggregate: { rows: 'sum(sign)', orders: 'sum(sign * orders)' }
sinks:
  minutes: { input: per_minute, topic: OUT0, key: [customer], format: { type: json } }
  fives: { input: per_five, topic: OUT1, key: [customer], format: { type: json } }
  copies: { input: gross, topic: OUT2, key: [customer], format: { type: json } }
  sliding: { input: lately, topic: OUT3, key: [customer], format: { type: json } }
  sessions: { input: visits, topic: OUT4, key: [customer], format: { type: json } }
  busy_times: { input: busy, topic: OUT5, key: [orders], format: { type: json } }
  rush_times: { input: rushes, topic: OUT6, key: [customers], format: { type: json } }
  totals: { input: everybody, topic: OUT7, key: [window_start], format: { type: json } }
  balances: { input: settled, topic: OUT8, key: [customer], format: { type: json } }
"#,
    windows: MINUTE,
    late_topic: true,
    outputs: &[
        Output {
            expect: |e| on_close(e.folded, |w, start| revenue(w, start, 60_000)),
            key: &["customer"],
            fields: REVENUE_FIELDS,
        },
        Output { expect: five_minutes, key: &["customer"], fields: REVENUE_FIELDS },
        Output {
            expect: copies,
            key: &["customer"],
            fields: &["order_id", "customer", "gross", "size", "at"],
        },
        Output {
            expect: sliding,
            key: &["customer"],
            fields: &["customer", "window_start", "window_end", "orders", "largest", "newest"],
        },
        Output {
            expect: visits,
            key: &["customer"],
            fields: &["customer", "window_start", "window_end", "orders", "first"],
        },
        Output {
            expect: busy_rows,
            key: &["orders"],
            fields: &["orders", "window_start", "window_end", "customers", "most"],
        },
        Output {
            expect: rushes,
            key: &["customers"],
            fields: &["customers", "window_start", "window_end", "times", "least"],
        },
        Output {
            expect: everybody,
            key: &["window_start"],
            fields: &["window_start", "window_end", "rows", "orders"],
        },
        Output {
            expect: |e| on_close(e.folded, balance),
            key: &["customer"],
            fields: &["customer", "window_start", "window_end", "rows", "orders"],
        },
    ],
};

/// What the changelog of a window comes to: one row, of all of its orders.
fn balance(window: &Window, start: i64) -> Value {
    let orders = &window.orders;
    json!({
        "customer": orders[0].customer, "window_start": start, "window_end": start + 60_000,
        "rows": 1, "orders": orders.len(),
    })
}

const SOURCE: &str = r#"version: 1
name: NAME
sources:
  orders:
    topic: IN
    partitioned_by: [customer]
    format: { type: json }
    schema:
      order_id: string
      customer: string
      amount: double
      status: string
      created_at: timestamp_ms
      currency: string
      note: string?
    event_time: { field: created_at, max_out_of_orderness: 5s }
    on_error: { dead_letter: DEAD }
"#;

const OUTPUT_PARTITIONS: i32 = 3;

/// A case with topics of its own on a broker.
pub struct Application {
    /// What it does.
    pub case: &'static Case,
    /// Its name: the consumer group.
    pub name: String,
    /// The broker.
    pub bootstrap: String,
    /// The input topic.
    pub input: String,
    /// The output topics.
    pub outputs: Vec<String>,
    /// The dead-letter topic.
    pub dead: String,
    /// The late topic.
    pub late: String,
    /// Its file.
    pub file: PathBuf,
    dir: PathBuf,
}

impl Application {
    /// Writes the topology file under `dir` and creates all topics but the input.
    pub fn new(case: &'static Case, bootstrap: &str, input: &str, dir: &Path) -> Application {
        let name = unique(case.name);
        let outputs: Vec<String> = (0..case.outputs.len()).map(|i| format!("{name}-out{i}")).collect();
        let (dead, late) = (format!("{name}-rejected"), format!("{name}-late"));
        let mut topics: Vec<(&str, i32)> = vec![(&dead, 2), (&late, 2)];
        topics.extend(outputs.iter().map(|topic| (topic.as_str(), OUTPUT_PARTITIONS)));
        Admin::new(bootstrap).create(&topics);
        let mut yaml = SOURCE.replace("NAME", &name).replace("IN", input).replace("DEAD", &dead);
        yaml += &case.yaml.replace("LATE", &late);
        for (i, topic) in outputs.iter().enumerate() {
            yaml = yaml.replace(&format!("OUT{i}"), topic);
        }
        let file = dir.join(format!("{name}.yaml"));
        std::fs::write(&file, yaml).expect("the topology file");
        Application {
            case,
            name,
            bootstrap: bootstrap.to_string(),
            input: input.to_string(),
            outputs,
            dead,
            late,
            file,
            dir: dir.to_path_buf(),
        }
    }

    /// With the partitions of its source no further apart than `max_drift`.
    pub fn aligned(self, max_drift: &str) -> Application {
        let aligned = format!("5s, alignment: {{ group: orders, max_drift: {max_drift} }} }}");
        let yaml = std::fs::read_to_string(&self.file).expect("the topology file");
        std::fs::write(&self.file, yaml.replacen("5s }", &aligned, 1)).expect("the topology file");
        self
    }

    /// The changelog topic of its source's stage.
    pub fn changelog(&self) -> String {
        format!("thalweg.{}.orders.changelog", self.name)
    }

    /// The output that has a row for each order: any transaction that takes orders writes to it.
    pub fn copies(&self) -> &String {
        let of_orders = |output: &Output| output.fields.contains(&"order_id");
        &self.outputs[self.case.outputs.iter().position(of_orders).expect("an output of orders")]
    }

    /// How to start it with a state directory called `state` beside its file.
    pub fn start(&self, state: &str) -> Start {
        Start::new(&self.file, &self.bootstrap, &self.dir.join(format!("{}-{state}", self.name)))
    }

    /// The fold of the input as it stands now.
    pub fn expected(&self, bounded: bool) -> Expected {
        let input = Reader::all(&self.bootstrap, &self.input);
        let folded = fold(&input, self.case.windows, bounded);
        let partitions = Admin::new(&self.bootstrap).bounds(&self.input).len() as i32;
        let expectation = Expectation { input: &input, folded: &folded, partitions, bounded };
        let rows = self.case.outputs.iter().map(|output| (output.expect)(&expectation)).collect();
        Expected { input, folded, rows }
    }

    /// Waits until every output holds as many records as it must.
    pub fn wait_for_outputs(&self, expected: &Expected, limit: Duration) {
        let reader = |topic: &String| Reader::new(&self.bootstrap, topic, Isolation::Committed);
        for (topic, rows) in self.outputs.iter().zip(&expected.rows) {
            reader(topic).read_until(rows.values().map(Vec::len).sum(), limit);
        }
        reader(&self.dead).read_until(expected.folded.rejected.len(), limit);
        if self.case.late_topic {
            reader(&self.late).read_until(expected.folded.late.len(), limit);
        }
    }

    /// Compares everything that was committed with what must be; panics at a difference.
    pub fn check(&self, expected: &Expected) {
        for (i, output) in self.case.outputs.iter().enumerate() {
            let records = Reader::all(&self.bootstrap, &self.outputs[i]);
            for record in &records {
                check_form(record, output);
            }
            let windowed = output.fields.contains(&"window_start");
            let actual = group(&records, output.key, windowed);
            compare(&self.outputs[i], &expected.rows[i], &actual);
        }
        let dead = Reader::all(&self.bootstrap, &self.dead);
        check_sources("dead letters", &expected.input, &dead, &expected.folded.rejected, true);
        let late = Reader::all(&self.bootstrap, &self.late);
        let none = BTreeSet::new();
        let expected_late = if self.case.late_topic { &expected.folded.late } else { &none };
        check_sources("late records", &expected.input, &late, expected_late, false);
    }
}

/// What an application's topics must hold.
pub struct Expected {
    /// The input that it follows from.
    pub input: Vec<Record>,
    /// Its fold.
    pub folded: Folded,
    /// Per output topic.
    pub rows: Vec<Rows>,
}

/// A record's key, partition, timestamp and order of fields.
fn check_form(record: &Record, output: &Output) {
    let json = record.json();
    let key = match output.key {
        [field] => text_of(&json[*field]),
        fields => {
            let field = |name: &&str| format!("{}:{}", json!(name), json[*name]);
            format!("{{{}}}", fields.iter().map(field).collect::<Vec<_>>().join(","))
        }
    };
    assert_eq!(record.key_text(), key, "the key of {json}");
    let partition = super::reference::partition_of(key.as_bytes(), OUTPUT_PARTITIONS);
    assert_eq!(record.partition, partition, "the partition of key {key}");
    if let Some(end) = json.get("window_end") {
        assert_eq!(record.timestamp_ms, end.as_i64().expect("milliseconds") - 1, "the timestamp of {json}");
    }
    let text = std::str::from_utf8(record.value.as_deref().expect("a value")).expect("JSON is text");
    let places: Vec<_> = output.fields.iter().map(|f| text.find(&format!("\"{f}\":"))).collect();
    assert!(places.is_sorted() && places.iter().all(Option::is_some), "fields of {text}");
    assert_eq!(json.as_object().expect("an object").len(), output.fields.len(), "fields of {text}");
}

/// A value as a key has it.
pub fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_string)
}

fn group(records: &[Record], key: &[&str], windowed: bool) -> Rows {
    let mut rows = Rows::new();
    for record in records {
        let json = record.json();
        let mut id: Vec<String> = key.iter().map(|f| text_of(&json[*f])).collect();
        if windowed {
            id.push(json["window_start"].to_string());
        }
        rows.entry(id.join(" ")).or_default().push(json);
    }
    rows
}

/// Numbers are compared by value: 3 and 3.0 are the same amount.
fn by_value(json: &Value) -> Value {
    match json {
        Value::Number(n) => json!(n.as_f64()),
        Value::Object(fields) => fields.iter().map(|(k, v)| (k.clone(), by_value(v))).collect(),
        other => other.clone(),
    }
}

/// Panics with the first differences between what must be in a topic and what is.
pub fn compare(topic: &str, expected: &Rows, actual: &Rows) {
    let mut differences = Vec::new();
    let ids: BTreeSet<_> = expected.keys().chain(actual.keys()).collect();
    for id in ids {
        let normal =
            |rows: &Rows| -> Vec<Value> { rows.get(id).into_iter().flatten().map(by_value).collect() };
        let (must, is) = (normal(expected), normal(actual));
        if must == is {
            continue;
        }
        let at = must.iter().zip(&is).take_while(|(a, b)| a == b).count();
        differences.push(format!(
            "{id}: {} rows instead of {}; row {at} must be {} and is {}",
            is.len(),
            must.len(),
            must.get(at).map_or("missing".to_string(), Value::to_string),
            is.get(at).map_or("missing".to_string(), Value::to_string),
        ));
    }
    let shown = differences.iter().take(5).cloned().collect::<Vec<_>>().join("\n");
    assert!(differences.is_empty(), "{topic} differs at {} of its keys:\n{shown}", differences.len());
}

/// Dead letters or late records: each source record that must be there is there once.
fn check_sources(
    what: &str,
    input: &[Record],
    actual: &[Record],
    expected: &BTreeSet<(i32, i64)>,
    identical: bool,
) {
    let by_place: BTreeMap<_, _> = input.iter().map(|r| ((r.partition, r.offset), r)).collect();
    let mut seen = BTreeSet::new();
    for record in actual {
        let place = record.source();
        assert!(expected.contains(&place), "{what}: {place:?} must not be there: {record:?}");
        assert!(seen.insert(place), "{what}: {place:?} is there twice");
        let source = by_place[&place];
        assert!(record.header("thalweg.topic").is_some(), "{what}: {record:?}");
        if identical {
            assert_eq!((&record.key, &record.value), (&source.key, &source.value), "{what}: {place:?}");
            assert_ne!(record.header("thalweg.error").unwrap_or_default(), "", "{what}: {record:?}");
            let timestamp = record.header("thalweg.timestamp").map(str::to_string);
            assert_eq!(timestamp, Some(source.timestamp_ms.to_string()), "{what}: {place:?}");
        } else {
            let order = decode(source).expect("a late record is an order");
            assert_eq!(record.json()["order_id"], json!(order.order_id), "{what}: {place:?}");
        }
    }
    let missing: Vec<_> = expected.difference(&seen).take(5).collect();
    assert!(missing.is_empty(), "{what}: {} missing, such as {missing:?}", expected.len() - seen.len());
}
