//! `count_distinct`.

use super::super::distinct::{Bounds, Distinct};
use super::*;

const BOUNDS: Bounds = Bounds { values: 3, bytes: 30 };

/// At most three different ints, and three different texts.
fn three() -> RowAggregates {
    let schema = schema();
    RowAggregates::new(vec![distinct_of(&schema, "ints", "i", 3), distinct_of(&schema, "texts", "s", 3)])
}

fn int(i: i64) -> Values {
    (Some(i), None, None, None)
}

fn text(s: &str) -> Values {
    (None, None, None, Some(s.to_owned()))
}

#[test]
fn equal_values_count_once_and_nulls_do_not() {
    let aggregates = sets();
    let mut value = aggregates.create();
    assert_eq!(results(&aggregates, &value)[..4], ["Int(0)"; 4]);
    let rows = [
        (Some(1), Some(0.0), Some(1), Some("a")),
        // Zero is one value with either sign, as in a key.
        (Some(-1), Some(-0.0), Some(1), Some("A")),
        (None, None, None, None),
        (Some(1), Some(1.5), Some(2), Some("")),
        (Some(i64::MIN), Some(f64::MAX), Some(3), Some("a")),
        (Some(i64::MAX), Some(-1.5), Some(-3), Some("\u{e9}")),
    ];
    for (i, d, t, s) in rows {
        add(&aggregates, &mut value, &(i, d, t, s.map(str::to_owned))).unwrap();
    }
    assert_eq!(results(&aggregates, &value)[..4], ["Int(4)", "Int(4)", "Int(4)", "Int(4)"]);
}

#[test]
fn every_type_that_a_key_may_have_counts() {
    use Slot::{Bool, Bytes, Double, Duration, Int, String, Timestamp};
    let of = |slots: &[Slot<'_>]| {
        let is_text = matches!(slots[0], String(_) | Bytes(_));
        let mut distinct =
            if is_text { Distinct::Texts(Default::default()) } else { Distinct::Numbers(vec![]) };
        for slot in slots {
            distinct.add(super::super::distinct::Identity::of(slot).unwrap());
        }
        distinct.len()
    };
    assert_eq!(of(&[Bool(true), Bool(false), Bool(true)]), 2);
    assert_eq!(of(&[Int(-1), Int(0), Int(-1)]), 2);
    assert_eq!(of(&[Double(-0.0), Double(0.0), Double(f64::MIN_POSITIVE)]), 2);
    assert_eq!(of(&[Timestamp(5), Timestamp(-5), Timestamp(5)]), 2);
    assert_eq!(of(&[Duration(5), Duration(6), Duration(6)]), 2);
    assert_eq!(of(&[String("a"), String("ab"), String("a")]), 2);
    assert_eq!(of(&[Bytes(&[0]), Bytes(&[]), Bytes(&[0])]), 2);
}

#[test]
fn one_value_too_many_is_refused_and_changes_nothing() {
    let aggregates = three();
    let mut value = aggregates.create();
    for row in [int(1), int(2), int(3), text("a"), text("b"), text("c")] {
        add(&aggregates, &mut value, &row).unwrap();
    }
    let before = value.clone();
    let error = add(&aggregates, &mut value, &int(4)).unwrap_err();
    assert_eq!(error.message, "aggregate `ints`: more than 3 different values");
    let error = add(&aggregates, &mut value, &(Some(1), None, None, Some("d".into()))).unwrap_err();
    assert_eq!(error.message, "aggregate `texts`: more than 3 different values");
    assert_eq!(value, before);
    for row in [int(3), int(1), text("c")] {
        add(&aggregates, &mut value, &row).unwrap();
    }
    assert_eq!(value, before, "values that are there already are no more");
}

#[test]
fn parts_with_too_many_values_together_are_an_error() {
    let aggregates = three();
    let of = |rows: &[Values]| {
        let mut value = aggregates.create();
        rows.iter().for_each(|row| add(&aggregates, &mut value, row).unwrap());
        value
    };
    let mut whole = of(&[int(1), int(2), text("a")]);
    aggregates.merge(&mut whole, &of(&[int(2), int(3), text("a")])).unwrap();
    assert_eq!(results(&aggregates, &whole), ["Int(3)", "Int(1)"]);
    let error = aggregates.merge(&mut whole, &of(&[int(3), int(4)])).unwrap_err();
    assert_eq!(error.message, "aggregate `ints`: more than 3 different values");
    let mut whole = of(&[text("a"), text("b")]);
    let error = aggregates.merge(&mut whole, &of(&[text("c"), text("d")])).unwrap_err();
    assert_eq!(error.message, "aggregate `texts`: more than 3 different values");
}

#[test]
fn texts_have_a_bound_of_bytes_too() {
    use super::super::distinct::Identity::Text;
    let mut distinct = Distinct::Texts(Default::default());
    // Each counts four bytes more than it has.
    for text in [&b"0123456789"[..], b"01234567"] {
        assert_eq!(distinct.check(Text(text), BOUNDS), Ok(()));
        distinct.add(Text(text));
    }
    let error = Err("different values of more than 30 bytes together".to_owned());
    assert_eq!(distinct.check(Text(b"x"), BOUNDS), error);
    assert_eq!(distinct.check(Text(b"01234567"), BOUNDS), Ok(()), "it is there already");
    let mut other = Distinct::Texts(Default::default());
    other.add(Text(b"x"));
    assert_eq!(distinct.merge(&other, BOUNDS), error);
}

/// Of so many values, all as long as can be in their encoding.
fn scattered(number: i64) -> i64 {
    number.wrapping_mul(0x1e37_79b9_7f4a_7c15)
}

#[test]
fn an_entry_of_many_values_fits_a_changelog_record() {
    let schema = schema();
    use AggregateFunction::{ApproxCountDistinct, ApproxQuantile, Max};
    let aggregates = RowAggregates::new(vec![
        distinct_of(&schema, "ints", "i", 19_000),
        aggregate(&schema, "about", ApproxCountDistinct, Some("i"), Type::Int),
        AggregatePlan {
            parameter: Parameter::Quantile(0.5),
            ..aggregate(&schema, "quantile", ApproxQuantile, Some("d"), Type::Double)
        },
        distinct_of(&schema, "texts", "s", 3_000),
        aggregate(&schema, "most", Max, Some("s"), Type::String),
    ]);
    let reserved: usize = aggregates.aggregates.iter().map(reserved_bytes).sum();
    assert!(reserved < crate::state::key::STATE_RESERVED_BYTES_MAX, "{reserved}");
    let mut value = aggregates.create();
    for number in 0..19_000 {
        // Doubles of every size, of either sign: all buckets, each with some rows.
        let magnitude = f64::from_bits((1_000 << 52) + ((number as u64) << 42));
        let double = if number % 2 == 0 { magnitude } else { -magnitude };
        add(&aggregates, &mut value, &(Some(scattered(number)), Some(double), None, None)).unwrap();
    }
    let mut texts = 0;
    while add(&aggregates, &mut value, &text(&format!("{texts:0100}"))).is_ok() {
        texts += 1;
    }
    assert!(texts > 1_000, "{texts}");
    let error = add(&aggregates, &mut value, &text(&"x".repeat(64 << 10))).unwrap_err();
    assert!(error.message.contains("aggregate `texts`: different values of more than"), "{error}");
    let bytes = encoded(&aggregates, &value).len();
    // The least record limit is that of the producer, 1 MB, less what framing may add, the key and headers.
    assert!((250_000..600_000).contains(&bytes), "{bytes}");
}

#[test]
fn many_aggregates_of_sets_leave_texts_their_share() {
    let schema = schema();
    let plan = |name: &str| distinct_of(&schema, name, "s", 100);
    let bytes = |plans: Vec<AggregatePlan>| RowAggregates::new(plans).distinct_bytes_max;
    assert_eq!(bytes(vec![plan("a")]), STATE_TEXTS_BYTES_MAX - 1_000);
    assert_eq!(bytes(vec![plan("a"), plan("b")]), STATE_TEXTS_BYTES_MAX / 2 - 1_000);
}

#[test]
fn stored_sets_never_change_their_meaning() {
    let schema = schema();
    let distinct = |of: &str| distinct_of(&schema, of, of, 9);
    let aggregates = RowAggregates::new(vec![distinct("i"), distinct("d"), distinct("s")]);
    let mut value = aggregates.create();
    add(&aggregates, &mut value, &(Some(1), Some(1.0), None, Some("b".into()))).unwrap();
    add(&aggregates, &mut value, &(Some(-1), None, None, Some("a".into()))).unwrap();
    let expected = [
        // -1 is 2^63 - 1 in the order of unsigned numbers, and 1 two more.
        &[0x1a, 12, 0x0a, 10][..],
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 2],
        // The bits of 1.0 with the sign set.
        &[0x3a, 12, 0x0a, 10],
        &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0xf8, 0xbf, 1],
        &[0x5a, 6, 0x12, 1, b'a', 0x12, 1, b'b'],
    ]
    .concat();
    assert_eq!(encoded(&aggregates, &value), expected);
    assert_eq!(aggregates.decode(&expected), Ok(value));
    for damaged in [&[0x1a, 4, 0x0a, 2, 1, 0][..], &[0x5a, 6, 0x12, 1, b'b', 0x12, 1, b'a']] {
        assert!(aggregates.decode(damaged).is_err(), "values that do not ascend: {damaged:?}");
    }
}
