//! Orders in, result rows out.

use std::hint::black_box;

use bumpalo::Bump;
use criterion::{Bencher, Criterion, Throughput};
use thalweg::format::json::{Decoder, Encoder};
use thalweg::random::Random;
use thalweg::record::{Slot, SourceSchema};

use crate::input::{END_MS, ORDER_BYTES, START_MS, WINDOW, orders, plan, shuffle};

/// How many different orders take turns.
const ORDERS: usize = 10_000;

pub fn benchmarks(criterion: &mut Criterion) {
    decode(criterion);
    encode(criterion);
}

/// One operation decodes an order of 200 bytes, all seven fields of it, into a row.
///
/// - `same_order`: fields come in the order of the record before.
/// - `other_order`: in another order each time; the first tier finds them by name.
/// - `second_tier`: the amount is written as `1234.0`, which the first tier leaves to the second.
fn decode(criterion: &mut Criterion) {
    let schema = plan(WINDOW).sources.remove(0).schema;
    let same: Vec<Vec<u8>> =
        orders(ORDERS, ORDER_BYTES, false).into_iter().map(|order| order.value).collect();
    let mut random = Random::new(1);
    let other: Vec<Vec<u8>> = same.iter().map(|value| reordered(value, &mut random)).collect();
    let unusual: Vec<Vec<u8>> =
        orders(ORDERS, ORDER_BYTES - 2, false).iter().map(|order| with_fraction(&order.value)).collect();
    let expected = amounts(&schema, &same);
    assert!(expected > 0);
    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Bytes(ORDER_BYTES as u64));
    for (name, values) in [("same_order", same), ("other_order", other), ("second_tier", unusual)] {
        assert!(values.iter().all(|value| value.len() == ORDER_BYTES), "{name}");
        assert_eq!(amounts(&schema, &values), expected, "{name}");
        group.bench_function(name, |bencher| decode_all(bencher, &schema, &values));
    }
    group.finish();
}

fn decode_all(bencher: &mut Bencher<'_>, schema: &SourceSchema, values: &[Vec<u8>]) {
    let (mut decoder, mut arena) = (Decoder::new(schema), Bump::new());
    let mut values = values.iter().cycle();
    bencher.iter(|| {
        arena.reset();
        let slots = arena.alloc_slice_fill_copy(schema.fields.len(), Slot::Null);
        let value = values.next().expect("a cycle has no end");
        decoder.decode(value, &arena, slots).expect("an order");
        black_box(&*slots);
    });
}

/// The sum of the amounts, as decoded.
fn amounts(schema: &SourceSchema, values: &[Vec<u8>]) -> i64 {
    let amount = schema.schema().position("amount").expect("a field of orders");
    let (mut decoder, arena) = (Decoder::new(schema), Bump::new());
    let mut slots = vec![Slot::Null; schema.fields.len()];
    let mut sum = 0;
    for value in values {
        decoder.decode(value, &arena, &mut slots).expect("an order");
        let Slot::Int(amount) = slots[amount] else { panic!("an amount: {slots:?}") };
        sum += amount;
    }
    sum
}

/// The same order with its fields in a random order.
fn reordered(value: &[u8], random: &mut Random) -> Vec<u8> {
    let text = std::str::from_utf8(value).expect("UTF-8");
    // No note has a comma before a quote.
    let mut members: Vec<&str> = text[2..text.len() - 1].split(",\"").collect();
    shuffle(&mut members, random);
    format!("{{\"{}}}", members.join(",\"")).into_bytes()
}

/// The same order with a fraction of zero behind its amount.
fn with_fraction(value: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(value).expect("UTF-8");
    text.replacen(",\"status\"", ".0,\"status\"", 1).into_bytes()
}

/// One operation encodes a result row (customer, start and end of the window, two ints) into memory of its own.
fn encode(criterion: &mut Criterion) {
    let encoder = Encoder::new(&plan(WINDOW).operators[0].schema);
    let row = |customer: &'static str| {
        [
            Slot::String(customer),
            Slot::Timestamp(START_MS),
            Slot::Timestamp(END_MS),
            Slot::Int(12),
            Slot::Int(345_678),
        ]
    };
    let written = String::from_utf8(encoder.to_vec(&row("customer-000042"))).expect("UTF-8");
    let expected = format!(
        r#"{{"customer":"customer-000042","window_start":{START_MS},"window_end":{END_MS},"orders":12,"amount":345678}}"#
    );
    assert_eq!(written, expected);
    let mut group = criterion.benchmark_group("encode");
    group.throughput(Throughput::Bytes(written.len() as u64));
    group
        .bench_function("row", |bencher| bencher.iter(|| encoder.to_vec(black_box(&row("customer-000042")))));
    group.finish();
}
