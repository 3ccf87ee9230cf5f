mod collected;
mod distinct;
mod sketches;

use proptest::prelude::*;
use prost::encoding::{WireType, encode_key, encode_varint};

use super::*;
use crate::operator::tests::aggregate;
use crate::operator::tests::expression;
use crate::record::{Field, FieldForm, Schema, Type};
use crate::state::ValueCodec;

/// Every function on every type that it takes: of fields `i`, `d`, `t`, `s`.
fn all() -> RowAggregates {
    let schema = schema();
    use AggregateFunction::{Avg, Count, Max, Min, Sum};
    RowAggregates::new(vec![
        aggregate(&schema, "rows", Count, None, Type::Int),
        aggregate(&schema, "count", Count, Some("s"), Type::Int),
        aggregate(&schema, "sum_i", Sum, Some("i"), Type::Int),
        aggregate(&schema, "sum_d", Sum, Some("d"), Type::Double),
        aggregate(&schema, "min_i", Min, Some("i"), Type::Int),
        aggregate(&schema, "max_d", Max, Some("d"), Type::Double),
        aggregate(&schema, "min_t", Min, Some("t"), Type::Timestamp),
        aggregate(&schema, "max_s", Max, Some("s"), Type::String),
        aggregate(&schema, "avg_i", Avg, Some("i"), Type::Double),
    ])
}

fn schema() -> Schema {
    let field = |name: &str, ty| Field { name: name.into(), ty, nullable: true, form: FieldForm::Plain };
    Schema {
        fields: vec![
            field("i", Type::Int),
            field("d", Type::Double),
            field("t", Type::Timestamp),
            field("s", Type::String),
        ],
    }
}

/// The other functions, on the same fields.
fn others() -> RowAggregates {
    let schema = schema();
    use AggregateFunction::{
        Count, First, Last, MaxBy, MinBy, Stddev, StddevPop, Sum, Variance, VariancePop,
    };
    let by = |plan: AggregatePlan, by: &str| AggregatePlan { by: Some(expression(&schema, by)), ..plan };
    let on = |plan: AggregatePlan| AggregatePlan { condition: Some(expression(&schema, "i > 0")), ..plan };
    RowAggregates::new(vec![
        aggregate(&schema, "variance", Variance, Some("i"), Type::Double),
        aggregate(&schema, "variance_pop", VariancePop, Some("i"), Type::Double),
        aggregate(&schema, "stddev", Stddev, Some("d"), Type::Double),
        aggregate(&schema, "stddev_pop", StddevPop, Some("d"), Type::Double),
        aggregate(&schema, "first", First, Some("s"), Type::String),
        aggregate(&schema, "last", Last, Some("i"), Type::Int),
        by(aggregate(&schema, "min_by", MinBy, Some("s"), Type::String), "i"),
        by(aggregate(&schema, "max_by", MaxBy, Some("t"), Type::Timestamp), "s"),
        on(aggregate(&schema, "positive", Count, None, Type::Int)),
        on(aggregate(&schema, "sum", Sum, Some("i"), Type::Int)),
    ])
}

/// Those that count different values, and quantiles.
fn sets() -> RowAggregates {
    let schema = schema();
    use AggregateFunction::{ApproxCountDistinct, ApproxQuantile};
    let distinct = |name: &str, of: &str| distinct_of(&schema, name, of, Parameter::MAX_DEFAULT);
    let quantile = |of: &str, q: f64| AggregatePlan {
        parameter: Parameter::Quantile(q),
        ..aggregate(&schema, "quantile", ApproxQuantile, Some(of), Type::Double)
    };
    RowAggregates::new(vec![
        distinct("ints", "i"),
        distinct("doubles", "d"),
        distinct("times", "t"),
        distinct("texts", "s"),
        aggregate(&schema, "about_ints", ApproxCountDistinct, Some("i"), Type::Int),
        aggregate(&schema, "about_texts", ApproxCountDistinct, Some("s"), Type::Int),
        quantile("i", 0.5),
        quantile("d", 0.9),
    ])
}

/// A `count_distinct` of at most `max` values.
fn distinct_of(schema: &Schema, name: &str, of: &str, max: usize) -> AggregatePlan {
    let plan = aggregate(schema, name, AggregateFunction::CountDistinct, Some(of), Type::Int);
    AggregatePlan { parameter: Parameter::Max(max), ..plan }
}

/// One of the above.
fn some_of(number: usize) -> RowAggregates {
    [all, others, sets, collected::lists][number]()
}

type Values = (Option<i64>, Option<f64>, Option<i64>, Option<String>);

fn add(aggregates: &RowAggregates, value: &mut Accumulators, row: &Values) -> Result<(), EvaluationError> {
    add_at(aggregates, value, row, 0)
}

fn add_at(
    aggregates: &RowAggregates,
    value: &mut Accumulators,
    row: &Values,
    time_ms: i64,
) -> Result<(), EvaluationError> {
    let arena = Bump::new();
    let slots = [
        row.0.map_or(Slot::Null, Slot::Int),
        row.1.map_or(Slot::Null, Slot::Double),
        row.2.map_or(Slot::Null, Slot::Timestamp),
        row.3.as_deref().map_or(Slot::Null, Slot::String),
    ];
    let record: &[Slot<'_>] = arena.alloc_slice_copy(&slots.map(|slot| slot));
    let event = Event::<Dynamic> { record, time_ms, source: None };
    let input = aggregates.input(&event, &arena)?;
    aggregates.add(value, input)
}

fn results(aggregates: &RowAggregates, value: &Accumulators) -> Vec<String> {
    let arena = Bump::new();
    let mut slots = vec![Slot::Null; value.len()];
    aggregates.results(value, &mut slots, &arena);
    slots.iter().map(|slot| format!("{slot:?}")).collect()
}

fn encoded(aggregates: &RowAggregates, value: &Accumulators) -> Vec<u8> {
    let mut bytes = Vec::new();
    aggregates.encode(value, &mut bytes);
    bytes
}

fn values() -> impl Strategy<Value = Values> {
    let double = prop_oneof![-1e9..1e9_f64, Just(0.0), Just(1e308)];
    let int = prop_oneof![-9..9_i64, any::<i64>()];
    (
        proptest::option::of(int),
        proptest::option::of(double),
        proptest::option::of(any::<i64>()),
        proptest::option::of("[a-c\u{e9}]{0,5}"),
    )
}

#[test]
fn null_adds_nothing_except_to_a_count_of_rows() {
    let aggregates = all();
    let mut value = aggregates.create();
    let nothing = ["Int(0)", "Int(0)", "Null", "Null", "Null", "Null", "Null", "Null", "Null"];
    assert_eq!(results(&aggregates, &value), nothing);
    add(&aggregates, &mut value, &(None, None, None, None)).unwrap();
    assert_eq!(results(&aggregates, &value)[..2], ["Int(1)", "Int(0)"]);
    assert_eq!(results(&aggregates, &value)[2..], nothing[2..]);
    add(&aggregates, &mut value, &(Some(-3), Some(0.5), Some(7), Some("b".into()))).unwrap();
    add(&aggregates, &mut value, &(Some(4), Some(0.25), Some(9), Some("a".into()))).unwrap();
    add(&aggregates, &mut value, &(None, None, None, None)).unwrap();
    let expected = [
        "Int(4)",
        "Int(2)",
        "Int(1)",
        "Double(0.75)",
        "Int(-3)",
        "Double(0.5)",
        "Timestamp(7)",
        "String(\"b\")",
        "Double(0.5)",
    ];
    assert_eq!(results(&aggregates, &value), expected);
}

#[test]
fn however_many_texts_an_entry_keeps_it_fits_a_changelog_record() {
    for texts in [1, 8, 9, 40] {
        let schema = Schema {
            fields: vec![Field {
                name: "s".into(),
                ty: Type::String,
                nullable: true,
                form: FieldForm::Plain,
            }],
        };
        // Each keeps a text, those that compare another one keep two.
        use AggregateFunction::{First, Last, Max, MaxBy, Min, MinBy};
        let functions = [Max, First, Min, Last];
        let most = |number: usize| {
            let function = functions[number % functions.len()];
            aggregate(&schema, &format!("most {number}"), function, Some("s"), Type::String)
        };
        let two = |function| AggregatePlan {
            by: Some(expression(&schema, "s")),
            ..aggregate(&schema, "two", function, Some("s"), Type::String)
        };
        let mut plans: Vec<AggregatePlan> = (0..texts).map(most).collect();
        if texts > 8 {
            plans.truncate(texts - 4);
            plans.extend([two(MinBy), two(MaxBy)]);
        }
        let aggregates = RowAggregates::new(plans);
        let longest = STATE_TEXT_BYTES_MAX.min(STATE_TEXTS_BYTES_MAX / texts);
        let mut value = aggregates.create();
        let mut try_with = |bytes: usize| {
            let (arena, text) = (Bump::new(), "x".repeat(bytes));
            let event = Event::<Dynamic> { record: &[Slot::String(&text)], time_ms: 0, source: None };
            aggregates.input(&event, &arena).and_then(|input| aggregates.add(&mut value, input))
        };
        assert!(try_with(longest + 1).unwrap_err().message.contains("`most 0`: a text of"));
        assert_eq!(try_with(longest), Ok(()));
        // The least record limit is that of the producer, 1 MB, less what framing may add, the key and headers.
        let bytes = encoded(&aggregates, &value).len();
        assert!(bytes < 600_000, "{texts} texts take {bytes} bytes");
        assert!(texts == 1 || bytes > 500_000, "the limit is no narrower than it must be: {bytes}");
    }
}

#[test]
fn an_overflow_changes_nothing() {
    let aggregates = all();
    let mut value = aggregates.create();
    add(&aggregates, &mut value, &(Some(i64::MAX), Some(f64::MAX), None, None)).unwrap();
    let before = value.clone();
    let error = add(&aggregates, &mut value, &(Some(1), Some(1.0), Some(1), Some("x".into()))).unwrap_err();
    assert!(error.message.contains("`sum_i`") && error.message.contains("overflows an int"), "{error}");
    assert_eq!(value, before);
    let error =
        add(&aggregates, &mut value, &(Some(0), Some(f64::MAX), Some(1), Some("x".into()))).unwrap_err();
    assert!(error.message.contains("`sum_d`") && error.message.contains("overflows a double"), "{error}");
    assert_eq!(value, before);
}

#[test]
fn a_sum_takes_what_brings_it_back() {
    let aggregates = all();
    let mut value = aggregates.create();
    add(&aggregates, &mut value, &(Some(i64::MIN), None, None, None)).unwrap();
    add(&aggregates, &mut value, &(Some(i64::MAX), None, None, None)).unwrap();
    assert_eq!(results(&aggregates, &value)[2], "Int(-1)");
}

#[test]
fn stored_bytes_never_change_their_meaning() {
    let aggregates = all();
    let mut value = aggregates.create();
    add(&aggregates, &mut value, &(Some(-1), Some(1.5), Some(300), Some("z".into()))).unwrap();
    let expected = [
        &[4 << 3, 1][..],
        &[8 << 3, 1],
        &[9 << 3, 1],
        &[14 << 3 | 1, 0, 0, 0, 0, 0, 0, 0xf8, 0x3f],
        &[0x88, 1, 1],
        &[0xb1, 1, 0, 0, 0, 0, 0, 0, 0xf8, 0x3f],
        &[0xc8, 1, 0xd8, 4],
        &[0xfa, 1, 1, b'z'],
        &[0x91, 2, 0, 0, 0, 0, 0, 0, 0xf0, 0xbf],
        &[0xa0, 2, 1],
    ]
    .concat();
    assert_eq!(encoded(&aggregates, &value), expected);
}

#[test]
fn fields_that_it_does_not_know_are_skipped() {
    let aggregates = all();
    let mut value = aggregates.create();
    add(&aggregates, &mut value, &(Some(5), Some(1.5), Some(300), Some("z".into()))).unwrap();
    let mut bytes = encoded(&aggregates, &value);
    for unknown in [1, 2, 97, 98, 99, 100] {
        encode_key(unknown, WireType::Varint, &mut bytes);
        encode_varint(7, &mut bytes);
        encode_key(unknown, WireType::SixtyFourBit, &mut bytes);
        bytes.extend([1; 8]);
        encode_key(unknown, WireType::ThirtyTwoBit, &mut bytes);
        bytes.extend([1; 4]);
        encode_key(unknown, WireType::LengthDelimited, &mut bytes);
        bytes.extend([2, 0xff, 0xfe]);
    }
    assert_eq!(aggregates.decode(&bytes), Ok(value));
}

#[test]
fn variances_are_what_their_definition_gives() {
    let aggregates = others();
    let mut value = aggregates.create();
    assert_eq!(results(&aggregates, &value)[..4], ["Null"; 4]);
    add(&aggregates, &mut value, &(Some(3), Some(1e9), None, None)).unwrap();
    assert_eq!(results(&aggregates, &value)[..4], ["Null", "Double(0.0)", "Null", "Double(0.0)"]);
    // Means 6 and 1e9 + 1, squared distances 9 + 1 + 4 + 16 + 0, 1 + 1 + 4 + 0 + 4.
    for (i, d) in [(5, 2.0), (8, -1.0), (10, 1.0), (4, 3.0)] {
        add(&aggregates, &mut value, &(Some(i), Some(1e9 + d), None, None)).unwrap();
    }
    let expected = [34.0 / 4.0, 34.0 / 5.0, (10.0_f64 / 4.0).sqrt(), (10.0_f64 / 5.0).sqrt()];
    let found = results(&aggregates, &value);
    for (found, expected) in found.iter().zip(expected) {
        let digits = found.trim_start_matches("Double(").trim_end_matches(')');
        let found: f64 = digits.parse().unwrap();
        assert!((found - expected).abs() < 1e-6, "{found} instead of {expected}");
    }
    let error = add(&aggregates, &mut value, &(Some(1), Some(f64::MAX), None, None)).unwrap_err();
    assert!(error.message.contains("`stddev`"), "{error}");
}

#[test]
fn first_and_last_go_by_event_time_and_the_best_by_another_value() {
    let aggregates = others();
    let mut value = aggregates.create();
    let rows = [
        (5, (Some(2), None, Some(50), Some("m"))),
        (3, (Some(7), None, Some(30), Some("a"))),
        (9, (Some(2), None, None, Some("z"))),
        (9, (Some(-4), None, Some(91), None)),
        (3, (None, None, Some(31), Some("later"))),
        (2, (None, None, Some(20), None)),
        (4, (Some(2), None, Some(40), Some("z"))),
        (9, (Some(-4), None, Some(92), Some("second"))),
    ];
    for (time_ms, (i, d, t, s)) in rows {
        add_at(&aggregates, &mut value, &(i, d, t, s.map(str::to_owned)), time_ms).unwrap();
    }
    let expected = [
        // Of those at 3 the one that came first; that at 2 is null.
        "String(\"a\")",
        "Int(-4)",
        // -4 twice, at the same time: the one that came first, whose text is null.
        "Null",
        // \"z\" twice: the earlier one.
        "Timestamp(40)",
        "Int(4)",
        "Int(13)",
    ];
    assert_eq!(results(&aggregates, &value)[4..], expected);
}

#[test]
fn stored_messages_never_change_their_meaning() {
    let aggregates = others();
    let mut value = aggregates.create();
    add_at(&aggregates, &mut value, &(Some(-1), Some(1.5), Some(300), Some("z".into())), 7).unwrap();
    let moments = |value: f64| [&[8, 1, 0x11][..], &value.to_le_bytes()].concat();
    let field = |tag: u32, message: &[u8]| {
        let mut bytes = Vec::new();
        encode_key(tag, WireType::LengthDelimited, &mut bytes);
        encode_varint(message.len() as u64, &mut bytes);
        [&bytes[..], message].concat()
    };
    let expected = [
        field(3, &moments(-1.0)),
        field(7, &moments(-1.0)),
        field(11, &moments(1.5)),
        field(15, &moments(1.5)),
        field(19, &[8, 14, 0x12, 3, 0x1a, 1, b'z']),
        field(23, &[8, 14, 0x12, 2, 8, 1]),
        field(27, &[8, 14, 0x12, 3, 0x1a, 1, b'z', 0x1a, 2, 8, 1]),
        field(31, &[8, 14, 0x12, 3, 8, 0xd8, 4, 0x1a, 3, 0x1a, 1, b'z']),
        vec![0xa0, 2, 0],
    ];
    assert_eq!(encoded(&aggregates, &value), expected.concat());
    assert_eq!(aggregates.decode(&expected.concat()), Ok(value));
}

#[test]
fn damaged_bytes_are_an_error() {
    let aggregates = all();
    let mut value = aggregates.create();
    add(&aggregates, &mut value, &(Some(5), Some(1.5), Some(300), Some("zz".into()))).unwrap();
    let bytes = encoded(&aggregates, &value);
    let text = bytes.windows(2).position(|pair| pair == b"zz").unwrap();
    assert!(aggregates.decode(&bytes[..text + 1]).is_err(), "cut within the text");
    let mut invalid = bytes.clone();
    invalid[text] = 0xff;
    assert!(aggregates.decode(&invalid).is_err(), "text that is not UTF-8");
    assert!(aggregates.decode(&bytes[..bytes.len() - 1]).is_err(), "cut within a number");
}

proptest! {
    #[test]
    fn what_is_stored_is_read_back(
        rows in proptest::collection::vec(values(), 0..8),
        after in values(),
        some in 0..4_usize,
    ) {
        let aggregates = some_of(some);
        let mut value = aggregates.create();
        for row in &rows {
            let before = value.clone();
            if add(&aggregates, &mut value, row).is_err() {
                prop_assert_eq!(&value, &before, "a failing row changes nothing");
            }
        }
        let mut read = aggregates.decode(&encoded(&aggregates, &value)).unwrap();
        prop_assert_eq!(&read, &value);
        prop_assert_eq!(add(&aggregates, &mut read, &after), add(&aggregates, &mut value, &after));
        prop_assert_eq!(&read, &value);
        prop_assert_eq!(results(&aggregates, &read), results(&aggregates, &value));
    }

    #[test]
    fn merged_parts_are_the_whole(
        rows in proptest::collection::vec((0..40_i64, values()), 0..20),
        part_ms in 1..20_i64,
    ) {
        for aggregates in [all(), others(), sets(), collected::best()] {
            let mut whole = aggregates.create();
            let mut parts: std::collections::BTreeMap<i64, Accumulators> = Default::default();
            for (time_ms, (i, _, t, s)) in &rows {
                // Small whole numbers, of which each function is exact.
                let row = (i.map(|i| i % 1_000), i.map(|i| (i % 1_000) as f64), *t, s.clone());
                add_at(&aggregates, &mut whole, &row, *time_ms).unwrap();
                let part = parts.entry(time_ms / part_ms).or_insert_with(|| aggregates.create());
                add_at(&aggregates, part, &row, *time_ms).unwrap();
            }
            let mut merged = aggregates.create();
            for part in parts.values() {
                aggregates.merge(&mut merged, part).unwrap();
            }
            let (whole, merged) = (results(&aggregates, &whole), results(&aggregates, &merged));
            for (whole, merged) in whole.iter().zip(&merged) {
                let number = |text: &str| {
                    text.strip_prefix("Double(").and_then(|text| text.trim_end_matches(')').parse::<f64>().ok())
                };
                match (number(whole), number(merged)) {
                    // The order of additions shows in the last digits of a variance.
                    (Some(whole), Some(merged)) => {
                        prop_assert!((whole - merged).abs() <= 1e-9 * whole.abs().max(1.0), "{} {}", whole, merged);
                    }
                    _ => prop_assert_eq!(whole, merged),
                }
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40), some in 0..4_usize) {
        let aggregates = some_of(some);
        if let Ok(value) = aggregates.decode(&bytes) {
            prop_assert_eq!(aggregates.decode(&encoded(&aggregates, &value)).map(|read| format!("{read:?}")), Ok(format!("{value:?}")));
        }
    }
}
