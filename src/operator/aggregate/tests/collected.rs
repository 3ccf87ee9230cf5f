//! `collect` and `top_n`, and lists as a whole.

use super::super::collected::{Collected, Top};
use super::super::distinct::Bounds;
use super::*;

fn list(element: Type, nullable: bool) -> Type {
    element.list(nullable).unwrap()
}

/// At most `max` values of `of`.
fn collect(name: &str, of: &str, ty: Type, max: usize) -> AggregatePlan {
    let plan = aggregate(&schema(), name, AggregateFunction::Collect, Some(of), list(ty, false));
    AggregatePlan { parameter: Parameter::Max(max), ..plan }
}

/// The values of `of` in the `n` rows of the greatest `by`.
fn top(name: &str, of: &str, ty: Type, by: &str, n: usize) -> AggregatePlan {
    let plan = aggregate(&schema(), name, AggregateFunction::TopN, Some(of), list(ty, true));
    AggregatePlan { by: Some(expression(&schema(), by)), parameter: Parameter::Number(n), ..plan }
}

pub(super) fn lists() -> RowAggregates {
    use AggregateFunction::{First, MaxBy};
    let of_best = aggregate(&schema(), "of_best", MaxBy, Some("[s]"), list(Type::String, true));
    RowAggregates::new(vec![
        collect("ints", "i", Type::Int, 3),
        collect("texts", "s", Type::String, 100),
        collect("doubles", "d", Type::Double, 100),
        top("large", "s", Type::String, "i", 3),
        top("texts_by", "t", Type::Timestamp, "s", 2),
        aggregate(&schema(), "first", First, Some("[i, 1]"), list(Type::Int, true)),
        AggregatePlan { by: Some(expression(&schema(), "i")), ..of_best },
    ])
}

/// What is the same however rows are cut into parts.
pub(super) fn best() -> RowAggregates {
    RowAggregates::new(vec![
        top("large", "s", Type::String, "i", 3),
        top("one", "i", Type::Int, "d", 1),
        top("texts_by", "t", Type::Timestamp, "s", 10),
    ])
}

#[test]
fn values_are_collected_as_they_come_and_nulls_are_not() {
    let aggregates = lists();
    let mut value = aggregates.create();
    assert_eq!(results(&aggregates, &value), ["Null"; 7]);
    let rows = [(Some(5), Some(0.5), Some("b")), (None, None, None), (Some(-1), None, Some("a"))];
    for (i, d, s) in rows {
        add(&aggregates, &mut value, &(i, d, None, s.map(str::to_owned))).unwrap();
    }
    add(&aggregates, &mut value, &(Some(5), None, None, None)).unwrap();
    let expected =
        ["List([Int(5), Int(-1), Int(5)])", "List([String(\"b\"), String(\"a\")])", "List([Double(0.5)])"];
    assert_eq!(results(&aggregates, &value)[..3], expected);
    let before = value.clone();
    let error = add(&aggregates, &mut value, &(Some(9), None, None, Some("c".into()))).unwrap_err();
    assert_eq!(error.message, "aggregate `ints`: more than 3 values");
    assert_eq!(value, before);
    assert_eq!(add(&aggregates, &mut value, &(None, None, None, Some("c".into()))), Ok(()));
}

#[test]
fn parts_are_put_one_behind_the_other() {
    let aggregates = RowAggregates::new(vec![collect("ints", "i", Type::Int, 3)]);
    let of = |numbers: &[i64]| {
        let mut value = aggregates.create();
        numbers.iter().for_each(|i| add(&aggregates, &mut value, &(Some(*i), None, None, None)).unwrap());
        value
    };
    let mut whole = aggregates.create();
    for part in [of(&[9]), of(&[]), of(&[2, 4])] {
        aggregates.merge(&mut whole, &part).unwrap();
    }
    assert_eq!(results(&aggregates, &whole), ["List([Int(9), Int(2), Int(4)])"]);
    let error = aggregates.merge(&mut whole, &of(&[1])).unwrap_err();
    assert_eq!(error.message, "aggregate `ints`: more than 3 values");
}

#[test]
fn the_greatest_are_in_order_and_of_equal_ones_the_earlier() {
    let aggregates = best();
    let mut value = aggregates.create();
    let rows = [
        (7, Some(4), Some("late four")),
        (1, None, Some("none")),
        (5, Some(4), Some("early four")),
        (5, Some(4), Some("second")),
        (2, Some(-9), Some("least")),
        (3, Some(11), None),
    ];
    let large = |aggregates: &RowAggregates, value: &Accumulators| results(aggregates, value)[0].clone();
    for (place, (time_ms, i, s)) in rows.iter().enumerate() {
        add_at(&aggregates, &mut value, &(*i, None, None, s.map(str::to_owned)), *time_ms).unwrap();
        if place == 4 {
            let expected = r#"List([String("early four"), String("second"), String("late four")])"#;
            assert_eq!(large(&aggregates, &value), expected);
        }
    }
    // The value of the greatest row is null.
    let expected = r#"List([Null, String("early four"), String("second")])"#;
    assert_eq!(large(&aggregates, &value), expected);
}

/// All rows, sorted as the documents say.
fn sorted(mut rows: Vec<(i64, i64, usize)>, n: usize) -> Vec<usize> {
    rows.sort_by_key(|(by, time_ms, place)| (-by, *time_ms, *place));
    rows.into_iter().take(n).map(|(_, _, place)| place).collect()
}

proptest! {
    #[test]
    fn the_greatest_are_those_that_a_sort_puts_first(
        rows in proptest::collection::vec((0..5_i64, 0..5_i64), 0..30),
        n in 1..6_usize,
    ) {
        let aggregates = RowAggregates::new(vec![top("top", "t", Type::Timestamp, "i", n)]);
        let mut value = aggregates.create();
        for (place, (by, time_ms)) in rows.iter().enumerate() {
            let row = (Some(*by), None, Some(place as i64), None);
            add_at(&aggregates, &mut value, &row, *time_ms).unwrap();
        }
        let numbered = rows.iter().enumerate().map(|(place, (by, time_ms))| (*by, *time_ms, place)).collect();
        let expected: Vec<String> =
            sorted(numbered, n).iter().map(|place| format!("Timestamp({place})")).collect();
        let expected = match expected.is_empty() {
            true => "Null".to_owned(),
            false => format!("List([{}])", expected.join(", ")),
        };
        prop_assert_eq!(results(&aggregates, &value), [expected]);
    }
}

#[test]
fn texts_have_a_bound_of_bytes() {
    let bounds = Bounds { values: 9, bytes: 30 };
    let mut collected = Collected::default();
    // Each counts eight bytes more than it has.
    for text in ["0123456", "01234"] {
        assert_eq!(collected.check(&Slot::String(text), bounds), Ok(()));
        collected.add(&Slot::String(text));
    }
    let error = Err("values of more than 30 bytes together".to_owned());
    assert_eq!(collected.check(&Slot::String(""), bounds), error);
    let sample = |by: i64, text: &'static str| super::super::accumulator::Sample {
        argument: Slot::String(text),
        by: Slot::Int(by),
        time_ms: 0,
    };
    let (mut top, bounds) = (Top::default(), Bounds { values: 2, bytes: 30 });
    for (by, text) in [(5, "0123456"), (4, "01234")] {
        assert_eq!(top.check(&sample(by, text), bounds), Ok(()));
        top.add(&sample(by, text), bounds.values);
    }
    // What takes the place of the least row may be as long as that, and a little more.
    assert_eq!(top.check(&sample(6, "0123456"), bounds), Ok(()));
    assert_eq!(top.check(&sample(6, "01234567"), bounds), error);
    assert_eq!(top.check(&sample(3, "x".repeat(99).leak()), bounds), Ok(()), "it does not get in");
    // What it says to hold is what its rows hold, whichever left.
    let anew = |top: &Top| Top::of(top.rows().to_vec()).unwrap();
    top.add(&sample(6, "0123456"), bounds.values);
    assert_eq!(top, anew(&top));
    let mut merged = Top::default();
    merged.merge(&top, bounds).unwrap();
    merged.add(&sample(7, ""), bounds.values);
    merged.merge(&top, bounds).unwrap();
    assert_eq!(merged, anew(&merged));
}

#[test]
fn an_entry_of_many_values_fits_a_changelog_record() {
    let aggregates = RowAggregates::new(vec![
        collect("ints", "t", Type::Timestamp, 15_000),
        top("top", "t", Type::Timestamp, "d", 900),
        collect("texts", "s", Type::String, 100),
    ]);
    let reserved: usize = aggregates.aggregates.iter().map(reserved_bytes).sum();
    assert!(reserved < crate::state::key::STATE_RESERVED_BYTES_MAX, "{reserved}");
    let mut value = aggregates.create();
    for number in 0..15_000 {
        let row = (None, Some(f64::from(number)), Some(i64::MIN), None);
        add_at(&aggregates, &mut value, &row, i64::MAX).unwrap();
    }
    while add(&aggregates, &mut value, &(None, None, None, Some("x".repeat(9_000)))).is_ok() {}
    let bytes = encoded(&aggregates, &value).len();
    // The least record limit is that of the producer, 1 MB, less what framing may add, the key and headers.
    assert!((400_000..600_000).contains(&bytes), "{bytes}");
}

#[test]
fn stored_lists_never_change_their_meaning() {
    let aggregates = RowAggregates::new(vec![
        collect("ints", "i", Type::Int, 9),
        collect("texts", "s", Type::String, 9),
        top("top", "s", Type::String, "i", 2),
        aggregate(&schema(), "first", AggregateFunction::First, Some("[i, 1]"), list(Type::Int, true)),
    ]);
    let mut value = aggregates.create();
    add_at(&aggregates, &mut value, &(Some(-1), None, None, Some("b".into())), 7).unwrap();
    add_at(&aggregates, &mut value, &(None, None, None, Some("a".into())), 8).unwrap();
    let expected = [
        &[0x1a, 4, 0x0a, 2, 8, 1][..],
        &[0x3a, 10, 0x0a, 3, 0x1a, 1, b'b', 0x0a, 3, 0x1a, 1, b'a'],
        // The time, the value, what is compared.
        &[0x5a, 13, 0x0a, 11, 8, 14, 0x12, 3, 0x1a, 1, b'b', 0x1a, 2, 8, 1],
        // A list of -1 and 1.
        &[0x7a, 14, 8, 14, 0x12, 10, 0x32, 8, 0x0a, 2, 8, 1, 0x0a, 2, 8, 2],
    ]
    .concat();
    assert_eq!(encoded(&aggregates, &value), expected);
    assert_eq!(aggregates.decode(&expected), Ok(value));
    let unordered =
        [&[0x5a, 16][..], &[0x0a, 6, 8, 2, 0x1a, 2, 8, 1], &[0x0a, 6, 8, 2, 0x1a, 2, 8, 2]].concat();
    assert!(aggregates.decode(&unordered).is_err(), "the lesser one stands first");
    assert!(aggregates.decode(&[0x1a, 2, 0x0a, 0]).is_err(), "a collected value is none");
}
