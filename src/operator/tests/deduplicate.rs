//! Deduplications.

use proptest::collection::vec;
use proptest::prelude::*;

use super::window::at;
use super::*;
use crate::planted::{Bug, plant};

/// What passes of these records of customers and times within ten milliseconds; the watermark is the greatest time.
fn passed(inputs: Vec<Input>) -> (Vec<String>, Staged) {
    let schema = orders();
    let reader = deduplicate(&schema, 10, LateRecords::Drop, vec![sink(&schema, "out")]);
    let staged = run(source(0, vec![reader]), inputs).unwrap();
    let rows = written(&staged, "out").into_iter();
    let rows = rows.map(|row| row.split_once(r#""price":null,"#).unwrap().1.replace('}', "")).collect();
    (rows, staged)
}

fn times(times: &[i64]) -> Vec<String> {
    times.iter().map(|at_ms| format!(r#""at":{at_ms}"#)).collect()
}

#[test]
fn a_record_that_repeats_one_that_passed_is_dropped() {
    let (rows, staged) = passed(at(&[5, 6, 14, 15, 30]));
    // 14 is less than ten away from 5; 15 is not, and passes; 24 would repeat that.
    assert_eq!(rows, times(&[5, 15, 30]));
    assert_eq!(staged.counters.duplicates, [("once".into(), 2)].into());
    assert!(staged.counters.late.is_empty() && staged.counters.failed.is_empty());
}

#[test]
fn what_was_dropped_repeats_nothing() {
    // 9 is dropped: 18 is as far from 0 as it has to be, although 9 is nearer.
    assert_eq!(passed(at(&[0, 9, 18])).0, times(&[0, 18]));
}

#[test]
fn an_earlier_record_repeats_a_later_one_that_passed_before_it() {
    let schema = orders();
    let reader = deduplicate(&schema, 10, LateRecords::Drop, vec![sink(&schema, "out")]);
    // 11 is too near to 20, and 10 is not, nor to 0.
    let staged = run(source(10, vec![reader]), at(&[0, 20, 11, 10, 30])).unwrap();
    let passed: Vec<i64> = staged.outputs.iter().map(|record| record.timestamp_ms).collect();
    assert_eq!(passed, [0, 20, 10, 30]);
}

#[test]
fn keys_have_nothing_to_do_with_one_another() {
    let (rows, _) = passed(vec![order("a", "1", 5), order("b", "1", 5), order("a", "2", 6)]);
    assert_eq!(rows, times(&[5, 5]));
}

#[test]
fn a_record_whose_own_entry_would_have_expired_is_late() {
    // With 15 the entry of 5 expires: 5 again is late, 6 is not, and what it may repeat is forgotten.
    let (rows, staged) =
        passed(vec![order("a", "1", 5), order("b", "1", 15), order("a", "1", 5), order("a", "1", 6)]);
    assert_eq!(rows, times(&[5, 15, 6]));
    assert_eq!(staged.counters.late, [("once".into(), 1)].into());
}

#[test]
fn a_late_record_is_written_with_where_it_came_from() {
    let schema = orders();
    let late = LateRecords::Write(target("late"));
    let reader = deduplicate(&schema, 10, late, vec![sink(&schema, "out")]);
    let staged = run(source(0, vec![reader]), at(&[5, 15, 5])).unwrap();
    assert_eq!(written(&staged, "late"), [r#"{"customer":"a","amount":1,"price":null,"at":5}"#]);
    let late = staged.outputs.iter().find(|record| &*record.topic == "late").unwrap();
    assert_eq!(header(late, "thalweg.topic").as_deref(), Some("orders"));
}

#[test]
fn a_record_without_a_key_goes_where_errors_go() {
    let nobody = Input { value: Some(br#"{"at":5}"#.to_vec()), ..order("a", "1", 5) };
    let (rows, staged) = passed(vec![nobody, order("a", "1", 5)]);
    assert_eq!(rows, times(&[5]));
    let letter = staged.outputs.iter().find(|record| &*record.topic == "rejected").unwrap();
    assert_eq!(header(letter, "thalweg.error").as_deref(), Some("the key field `customer` is null"));
    assert_eq!(header(letter, "thalweg.operator").as_deref(), Some("once"));
}

#[test]
fn rows_keep_the_record_that_they_come_from() {
    let schema = orders();
    let failing = filter(&schema, "1 / (amount - amount) > 0", rejected("behind"), vec![]);
    let reader = deduplicate(&schema, 10, LateRecords::Drop, vec![failing]);
    let staged = run(source(0, vec![reader]), at(&[5])).unwrap();
    assert_eq!(header(&staged.outputs[0], "thalweg.topic").as_deref(), Some("orders"));
}

#[test]
fn another_process_knows_what_passed_and_what_is_late() {
    let make = || {
        let schema = orders();
        source(0, vec![deduplicate(&schema, 10, LateRecords::Drop, vec![sink(&schema, "out")])])
    };
    let (mut first, mut second) = (make(), make());
    start(&mut *first);
    go_on(&mut *first, vec![order("a", "1", 5), order("b", "1", 14)]).unwrap();
    hand_over(&mut *first, &mut *second, |_| {});
    let staged =
        go_on(&mut *second, vec![order("a", "1", 4), order("a", "1", 14), order("b", "1", 5)]).unwrap();
    assert!(staged.outputs.is_empty());
    // 5 of b would still repeat 14.
    assert_eq!(staged.counters.late, [("once".into(), 1)].into());
    assert_eq!(staged.counters.duplicates, [("once".into(), 2)].into());
}

#[test]
fn what_has_expired_is_not_kept() {
    let schema = orders();
    let mut pipeline = source(0, vec![deduplicate(&schema, 10, LateRecords::Drop, vec![])]);
    start(&mut *pipeline);
    let entries = |pipeline: &mut dyn Pipeline| {
        let mut entries = 0;
        pipeline
            .visit(&mut |operator| drop(operator.chunk(&[], usize::MAX, &mut |_, _| entries += 1).unwrap()));
        entries
    };
    go_on(&mut *pipeline, at(&(0..100).map(|step| step * 10).collect::<Vec<_>>())).unwrap();
    assert_eq!(entries(&mut *pipeline), 1, "two at most: the one that counts, and its bucket's other");
}

/// The definition, as a list of all that has passed.
fn expected(rows: &[(String, i64)], within_ms: i64, max_out_of_orderness_ms: i64) -> (Vec<i64>, u64, u64) {
    let (mut passed, mut late, mut duplicates) = (Vec::<(&str, i64)>::new(), 0, 0);
    let mut watermark_ms = i64::MIN;
    for (customer, at_ms) in rows {
        let repeats = |(other, other_ms): &(&str, i64)| {
            other == customer && (at_ms - other_ms).abs() < within_ms && watermark_ms < other_ms + within_ms
        };
        if watermark_ms >= at_ms + within_ms {
            late += 1;
        } else if passed.iter().any(repeats) {
            duplicates += 1;
        } else {
            passed.push((customer, *at_ms));
        }
        watermark_ms = watermark_ms.max(at_ms - max_out_of_orderness_ms);
    }
    (passed.into_iter().map(|(_, at_ms)| at_ms).collect(), late, duplicates)
}

fn differs(rows: &[(String, i64)], within_ms: i64, max_out_of_orderness_ms: i64) -> bool {
    let schema = orders();
    let reader = deduplicate(&schema, within_ms, LateRecords::Drop, vec![sink(&schema, "out")]);
    let inputs = rows.iter().map(|(customer, at_ms)| order(customer, "1", *at_ms)).collect();
    let staged = run(source(max_out_of_orderness_ms, vec![reader]), inputs).unwrap();
    let passed: Vec<i64> = staged.outputs.iter().map(|record| record.timestamp_ms).collect();
    let count = |counts: &std::collections::BTreeMap<Arc<str>, u64>| counts.values().sum::<u64>();
    let found = (passed, count(&staged.counters.late), count(&staged.counters.duplicates));
    found != expected(rows, within_ms, max_out_of_orderness_ms)
}

proptest! {
    #[test]
    fn what_passes_follows_from_the_definition(
        rows in vec(("[ab]", 0..80_i64), 0..60),
        within_ms in 1..30_i64,
        max_out_of_orderness_ms in 0..40_i64,
    ) {
        prop_assert!(!differs(&rows, within_ms, max_out_of_orderness_ms));
    }
}

#[test]
fn a_duplicate_in_the_next_bucket_is_found() {
    let rows: Vec<(String, i64)> = [5, 25, 11, 12, 3].map(|at_ms| ("a".to_owned(), at_ms)).into();
    assert!(!differs(&rows, 10, 40));
    let _planted = plant(Bug::NeighbourBucketForgotten);
    assert!(differs(&rows, 10, 40));
}

#[test]
fn an_entry_that_has_expired_does_not_count_although_its_bucket_is_there() {
    // With 16 the entry of 5 expires, in the bucket up to 20, and 7 is not late.
    let rows: Vec<(String, i64)> =
        [("a", 5), ("b", 16), ("a", 7)].map(|(name, at_ms)| (name.to_owned(), at_ms)).into();
    assert!(!differs(&rows, 10, 0));
    let _planted = plant(Bug::ExpiredEntryCounts);
    assert!(differs(&rows, 10, 0));
}
