//! Expressions on rows.

use std::hint::black_box;
use std::sync::Arc;

use bumpalo::Bump;
use criterion::Criterion;
use thalweg::expression::{Environment, Expression};
use thalweg::format::json::{Decoder, Encoder};
use thalweg::operator::{MapFunction, RowMap};
use thalweg::record::{Dynamic, Event, Row, Slot};
use thalweg::topology::Plan;
use thalweg::topology::plan::OperatorKind;

use crate::input::{ORDER_BYTES, orders, plan};

/// How many different rows take turns.
const ROWS: usize = 10_000;

const TOPOLOGY: &str = r#"
version: 1
name: expressions
sources:
  orders:
    topic: orders
    format: { type: json }
    schema: { order_id: string, customer: string, amount: int, status: string, created_at: timestamp_ms }
    event_time: { field: created_at, max_out_of_orderness: 4s }
operators:
  large: { type: filter, input: orders, where: 'status == "paid" && amount > 50000' }
  euros: { type: map, input: large, set: { euros: 'double(amount) / 100.0' }, drop: [amount, status] }
sinks:
  out: { input: euros, topic: out, format: { type: json } }
"#;

pub fn benchmarks(criterion: &mut Criterion) {
    let plan = plan(TOPOLOGY);
    let (arena, values) = (Bump::new(), orders(ROWS, ORDER_BYTES, false));
    let mut decoder = Decoder::new(&plan.sources[0].schema);
    let mut rows: Vec<Row<'_>> = Vec::new();
    for order in &values {
        let slots = arena.alloc_slice_fill_copy(plan.sources[0].schema.fields.len(), Slot::Null);
        decoder.decode(&order.value, &arena, slots).expect("an order");
        rows.push(slots);
    }
    filter(criterion, &plan, &rows);
    projection(criterion, &plan, &rows);
}

/// One operation tests `status == "paid" && amount > 50000` on a row; a quarter of them passes.
fn filter(criterion: &mut Criterion, plan: &Plan, rows: &[Row<'_>]) {
    let OperatorKind::Filter { predicate } = &plan.operators[0].kind else { unreachable!("it is a filter") };
    let arena = Bump::new();
    let test = |predicate: &Expression, row: Row<'_>| {
        predicate.test(&Environment::new(row, None, &arena)).expect("true or false")
    };
    let is_large = |row: Row<'_>| row[3] == Slot::String("paid") && matches!(row[2], Slot::Int(50_001..));
    let passed = rows.iter().filter(|row| test(predicate, row)).count();
    assert_eq!(passed, rows.iter().filter(|row| is_large(row)).count());
    assert!((ROWS / 5..ROWS / 3).contains(&passed), "{passed}");
    let mut rows = rows.iter().cycle();
    criterion.bench_function("expression/filter", |bencher| {
        bencher.iter(|| test(predicate, black_box(rows.next().expect("a cycle has no end"))))
    });
}

/// One operation makes a row of four fields from one of five: three copied, one `double(amount) / 100.0`.
fn projection(criterion: &mut Criterion, plan: &Plan, rows: &[Row<'_>]) {
    let OperatorKind::Map { slots } = &plan.operators[1].kind else { unreachable!("it is a map") };
    let schema = plan.stream_schema(plan.operators[1].inputs[0]);
    let map = RowMap { slots: slots.clone(), encoder: Arc::new(Encoder::new(&schema)) };
    let mut arena = Bump::new();
    let euros = plan.operators[1].schema.position("euros").expect("a field of the map");
    for row in rows {
        let event = Event::<Dynamic> { record: *row, time_ms: 0, source: None };
        let made = map.apply(&event, &arena).expect("a row");
        let Slot::Int(cents) = row[2] else { panic!("an amount: {row:?}") };
        assert_eq!((made.len(), made[euros]), (4, Slot::Double(cents as f64 / 100.0)));
    }
    let mut rows = rows.iter().cycle();
    criterion.bench_function("expression/projection", |bencher| {
        bencher.iter(|| {
            arena.reset();
            let record = *black_box(rows.next().expect("a cycle has no end"));
            let event = Event::<Dynamic> { record, time_ms: 0, source: None };
            black_box(map.apply(&event, &arena).expect("a row"));
        })
    });
}
