//! `approx_count_distinct` and `approx_quantile`.

use super::super::accumulator::Accumulator;
use super::super::ddsketch::{BUCKETS_MAX, DdSketch};
use super::super::distinct::Identity::{Number, Text};
use super::super::hyperloglog::{HASHES_MAX, HyperLogLog, REGISTERS};
use super::*;

/// Of numbers in a range.
fn counted(numbers: std::ops::Range<u64>) -> HyperLogLog {
    let mut sketch = HyperLogLog::default();
    numbers.for_each(|number| sketch.add(Number(number)));
    sketch
}

/// How far a number is from another, relative to it.
fn error(found: f64, exact: f64) -> f64 {
    if found == exact { 0.0 } else { ((found - exact) / exact).abs() }
}

#[test]
fn few_different_values_are_counted_exactly() {
    for count in [0, 1, 2, 100, HASHES_MAX as u64] {
        assert_eq!(counted(0..count).estimate(), count as i64);
    }
    let mut texts = HyperLogLog::default();
    for text in ["a", "b", "", "a", "ab"] {
        texts.add(Text(text.as_bytes()));
    }
    assert_eq!(texts.estimate(), 4);
}

#[test]
fn the_standard_error_of_many_different_values_is_the_stated_one() {
    for (count, sets) in [(513, 200), (2_000, 200), (10_000, 100), (100_000, 40), (1_000_000, 4)] {
        let errors = (0..sets).map(|set| {
            let sketch = counted(set << 32..(set << 32) + count);
            (sketch.estimate() - count as i64) as f64 / count as f64
        });
        let errors: Vec<f64> = errors.collect();
        let of = errors.len() as f64;
        let mean = errors.iter().sum::<f64>() / of;
        let standard = (errors.iter().map(|error| error * error).sum::<f64>() / of).sqrt();
        let most = errors.iter().fold(0.0_f64, |most, error| most.max(error.abs()));
        assert!(standard < 0.0185, "{count}: {standard}");
        assert!(mean.abs() < 0.017 * 3.0 / of.sqrt(), "{count}: on the average {mean}");
        assert!(most < 0.0163 * 4.0, "{count}: {most}");
    }
}

#[test]
fn the_estimate_of_registers_as_they_come_from_disk_is_a_number() {
    assert_eq!(HyperLogLog::Registers(Box::new([0; REGISTERS])).estimate(), 0);
    assert_eq!(HyperLogLog::Registers(Box::new([53; REGISTERS])).estimate(), i64::MAX);
}

#[test]
fn quantiles_are_within_a_percent() {
    let mut sketch = DdSketch::default();
    assert_eq!(sketch.quantile(0.5), None);
    let mut values: Vec<f64> = Vec::new();
    // Of every size, of both signs, and some zeros.
    for number in 0..10_000_i64 {
        let value = match number % 10 {
            0 => 0.0,
            1..4 => -(number as f64).powi(3) / 7.0,
            4 => 1e-9 * number as f64,
            _ => number as f64 / 3.0,
        };
        sketch.add(value);
        values.push(value);
    }
    values.sort_by(f64::total_cmp);
    for part in 0..=1_000 {
        let q = f64::from(part) / 1_000.0;
        let exact = values[(q * (values.len() - 1) as f64) as usize];
        let found = sketch.quantile(q).unwrap();
        assert!(error(found, exact) <= 0.01, "{q}: {found} instead of {exact}");
    }
}

#[test]
fn no_double_and_no_int_is_too_large_or_too_small() {
    let normal = [f64::MIN_POSITIVE, 1e-300, 1.0, 1.02, 1.999_999_999_999_999_8, 2.0, 1e300, f64::MAX];
    let ints = [1, 2, 3, i64::MAX].map(|int| int as f64);
    for value in normal.into_iter().chain(ints).flat_map(|value| [value, -value]) {
        let mut sketch = DdSketch::default();
        sketch.add(value);
        let found = sketch.quantile(1.0).unwrap();
        assert!(found.is_finite() && error(found, value) <= 1.0 / 101.0 + 1e-15, "{value}: {found}");
    }
    let mut sketch = DdSketch::default();
    for value in [0.0, -0.0, f64::MIN_POSITIVE / 2.0, -5e-324] {
        sketch.add(value);
        assert_eq!(sketch.quantile(0.5), Some(0.0), "{value}");
    }
}

#[test]
fn beyond_the_bound_the_least_values_lose_their_places() {
    // One value in each bucket of more octaves than there is room for.
    let of_octaves = |octaves: u32| {
        let mut values = Vec::new();
        for bucket in 0..octaves * 50 {
            let part = f64::from(bucket % 50) / 50.0 + 0.01;
            values.push((1.0 + part) * 2_f64.powi((bucket / 50) as i32));
        }
        values
    };
    let values = of_octaves(60);
    let mut sketch = DdSketch::default();
    values.iter().for_each(|value| sketch.add(*value));
    let kept = &values[values.len() - BUCKETS_MAX..];
    assert!(error(sketch.quantile(0.0).unwrap(), kept[0]) <= 0.01, "with the least that is kept");
    for place in values.len() - BUCKETS_MAX..values.len() {
        let q = (place as f64 + 0.5) / (values.len() - 1) as f64;
        let exact = values[place.min(values.len() - 1)];
        assert!(error(sketch.quantile(q.min(1.0)).unwrap(), exact) <= 0.01, "{place}");
    }
    // In another order, and in parts, it comes to the same.
    let mut parts = [(); 3].map(|()| DdSketch::default());
    values.iter().rev().enumerate().for_each(|(place, value)| parts[place % 3].add(*value));
    let [mut merged, second, third] = parts;
    merged.merge(&third);
    merged.merge(&second);
    assert_eq!(merged, sketch);
    // Negative ones have a bound of their own: it is the ones near zero that lose theirs.
    let mut negative = DdSketch::default();
    values.iter().for_each(|value| negative.add(-value));
    assert!(error(negative.quantile(0.0).unwrap(), -values[values.len() - 1]) <= 0.01);
    assert!(error(negative.quantile(1.0).unwrap(), -kept[0]) <= 0.01);
}

/// Bytes that the parts of a value take in memory, by looking.
fn heap_of(accumulator: &Accumulator) -> usize {
    match accumulator {
        Accumulator::Distinct(distinct) => match &**distinct {
            super::super::distinct::Distinct::Numbers(numbers) => {
                size_of_val(&**distinct) + size_of_val(&numbers[..]).max(numbers.capacity() * 8)
            }
            super::super::distinct::Distinct::Texts(texts) => {
                let texts = texts.sorted();
                size_of_val(&**distinct)
                    + size_of_val(texts)
                    + texts.iter().map(|text| text.len()).sum::<usize>()
            }
        },
        Accumulator::HyperLogLog(sketch) => match &**sketch {
            HyperLogLog::Hashes(hashes) => size_of_val(&**sketch) + hashes.capacity() * 8,
            HyperLogLog::Registers(registers) => size_of_val(&**sketch) + size_of_val(&**registers),
        },
        Accumulator::DdSketch(sketch) => {
            let buckets = sketch.positive.numbers().len() / 2 + sketch.negative.numbers().len() / 2;
            size_of_val(&**sketch) + 16 * buckets
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn memory_is_counted() {
    let aggregates = sets();
    let mut value = aggregates.create();
    for number in 0..1_000 {
        let row = (Some(number), Some(number as f64), Some(number), Some(format!("{number:050}")));
        add(&aggregates, &mut value, &row).unwrap();
        let (said, held) = (aggregates.heap_bytes(&value), value.iter().map(heap_of).sum::<usize>());
        let accumulators = value.capacity() * size_of::<Accumulator>();
        // A vector may have room for as many again as are in it.
        assert!((held + accumulators..2 * held + accumulators + 1_000).contains(&said), "{said} of {held}");
    }
}

#[test]
fn stored_sketches_never_change_their_meaning() {
    let schema = schema();
    use AggregateFunction::{ApproxCountDistinct, ApproxQuantile};
    let about = |of: &str| aggregate(&schema, "about", ApproxCountDistinct, Some(of), Type::Int);
    let quantile = AggregatePlan {
        parameter: Parameter::Quantile(0.5),
        ..aggregate(&schema, "quantile", ApproxQuantile, Some("d"), Type::Double)
    };
    let aggregates = RowAggregates::new(vec![about("i"), about("s"), quantile]);
    let mut value = aggregates.create();
    // The hashes are XXH64 of 0x8000000000000001, little endian, and of "a".
    add(&aggregates, &mut value, &(Some(1), Some(1.0), None, Some("a".into()))).unwrap();
    for d in [0.0, -1.5, 1.0, 2.0] {
        add(&aggregates, &mut value, &(None, Some(d), None, None)).unwrap();
    }
    let expected = [
        &[0x1a, 10, 0x0a, 8][..],
        &0x044e_434d_0c94_f9c4_u64.to_le_bytes(),
        &[0x3a, 10, 0x0a, 8],
        &0xd24e_c4f1_a98c_6e5b_u64.to_le_bytes(),
        // One zero; two in bucket 1023 × 50, one 50 behind it; one in 1023 × 50 + 25 of the negative ones.
        &[0x5a, 16, 8, 1, 0x12, 6, 0xce, 0x8f, 3, 2, 50, 1, 0x1a, 4, 0xe7, 0x8f, 3, 1],
    ]
    .concat();
    assert_eq!(encoded(&aggregates, &value), expected);
    assert_eq!(aggregates.decode(&expected), Ok(value));
}

#[test]
fn damaged_sketches_are_an_error() {
    let schema = schema();
    use AggregateFunction::{ApproxCountDistinct, ApproxQuantile};
    let aggregates = RowAggregates::new(vec![
        aggregate(&schema, "about", ApproxCountDistinct, Some("i"), Type::Int),
        aggregate(&schema, "quantile", ApproxQuantile, Some("d"), Type::Double),
    ]);
    let field = |tag: u32, message: &[u8]| {
        let mut bytes = Vec::new();
        encode_key(tag, WireType::LengthDelimited, &mut bytes);
        encode_varint(message.len() as u64, &mut bytes);
        [&bytes[..], message].concat()
    };
    let twice = [7_u64, 7].map(u64::to_le_bytes).concat();
    let many: Vec<u8> = (0..=HASHES_MAX as u64).flat_map(u64::to_le_bytes).collect();
    for (damaged, why) in [
        (field(3, &field(1, &twice)), "a hash twice"),
        (field(3, &field(1, &many)), "more hashes than there may be"),
        (field(3, &field(2, &[1; 10])), "too few registers"),
        (field(3, &field(2, &[54; REGISTERS])), "a rank that no hash has"),
        (field(7, &field(2, &[50])), "a bucket without a count"),
        (field(7, &field(2, &[50, 1, 0, 1])), "a bucket twice"),
        (field(7, &field(3, &[50, 0])), "a bucket with nothing in it"),
        (field(7, &field(2, &[0xff, 0xff, 0xff, 0x7f, 1])), "a bucket beyond all doubles"),
    ] {
        assert!(aggregates.decode(&damaged).is_err(), "{why}");
    }
}

/// Doubles of every size.
fn doubles() -> impl Strategy<Value = f64> {
    let any = any::<f64>().prop_filter("rows hold no others", |double| double.is_finite());
    prop_oneof![4 => any, 2 => -100.0..100.0_f64, 1 => Just(0.0), 1 => Just(-0.0)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Whatever their order, and however parts of them are merged, equal sets of values have equal bytes.
    #[test]
    fn what_is_stored_follows_from_the_values_alone(
        rows in proptest::collection::vec((0..3_000_i64, doubles(), 0..4_usize), 0..5_000),
        backwards in any::<bool>(),
    ) {
        let aggregates = RowAggregates::new(sets().aggregates.into_iter().map(|plan| match plan.parameter {
            Parameter::Max(_) => AggregatePlan { parameter: Parameter::Max(4_000), ..plan },
            _ => plan,
        }).collect());
        let (mut whole, mut parts) = (aggregates.create(), [(); 4].map(|()| aggregates.create()));
        for (number, double, part) in &rows {
            let row = (Some(*number), Some(*double), Some(number % 700), Some(format!("{}", number % 600)));
            add(&aggregates, &mut whole, &row).unwrap();
            add(&aggregates, &mut parts[*part], &row).unwrap();
        }
        if backwards {
            parts.reverse();
        }
        let [mut merged, second, mut third, fourth] = parts;
        aggregates.merge(&mut merged, &second).unwrap();
        aggregates.merge(&mut third, &fourth).unwrap();
        aggregates.merge(&mut merged, &third).unwrap();
        prop_assert!(encoded(&aggregates, &whole) == encoded(&aggregates, &merged));
        prop_assert!(whole == merged);
        let exact = rows.iter().map(|(number, ..)| number).collect::<std::collections::BTreeSet<_>>().len();
        prop_assert_eq!(&results(&aggregates, &whole)[0], &format!("Int({exact})"));
    }

    #[test]
    fn quantiles_are_within_a_percent_of_the_exact_ones(
        mut values in proptest::collection::vec(doubles(), 1..300),
        q in 0.0..=1.0_f64,
    ) {
        let mut sketch = DdSketch::default();
        values.iter().for_each(|value| sketch.add(*value));
        values.sort_by(f64::total_cmp);
        let exact = values[(q * (values.len() - 1) as f64) as usize];
        let found = sketch.quantile(q).unwrap();
        let is_zero = exact.abs() < f64::MIN_POSITIVE && found == 0.0;
        prop_assert!(is_zero || error(found, exact) <= 0.01, "{} instead of {}", found, exact);
    }
}
