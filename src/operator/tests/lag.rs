//! Lags.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::operator::LagFunction;
use crate::planted::{Bug, plant};
use crate::record::Slot;
use crate::state::ValueCodec;
use crate::state::key::STATE_TEXT_BYTES_MAX;

/// What the rows of these records have of the ones before: the amount and the customer.
fn previous(ttl_ms: Option<i64>, max_out_of_orderness_ms: i64, inputs: Vec<Input>) -> (Vec<String>, Staged) {
    let schema = orders();
    let reader = lag(&schema, ttl_ms, &["amount"], |rows| vec![sink(rows, "out")]);
    let staged = run(source(max_out_of_orderness_ms, vec![reader]), inputs).unwrap();
    (amounts(&staged), staged)
}

fn amounts(staged: &Staged) -> Vec<String> {
    let rows = written(staged, "out").into_iter();
    rows.map(|row| row.split_once(r#""before0":"#).unwrap().1.replace('}', "")).collect()
}

#[test]
fn a_row_has_what_the_one_before_it_in_its_key_had() {
    let inputs = vec![
        order("a", "1", 5),
        order("b", "10", 6),
        order("a", "2", 7),
        order("a", "null", 8),
        order("a", "4", 9),
        order("b", "20", 9),
    ];
    let (rows, staged) = previous(None, 0, inputs);
    assert_eq!(rows, ["null", "null", "1", "2", "null", "10"]);
    let first = r#"{"customer":"a","amount":1,"price":null,"at":5,"before0":null}"#;
    assert_eq!(written(&staged, "out")[0], first);
    assert_eq!(staged.outputs[2].timestamp_ms, 7);
}

#[test]
fn a_list_is_left_with_its_nulls_and_is_as_long_as_a_text_may_be() {
    let reader = lag(&orders(), None, &["[amount, 7]"], |rows| vec![sink(rows, "out")]);
    let inputs = vec![order("a", "null", 1), order("a", "2", 2), order("a", "3", 3)];
    let staged = run(source(0, vec![reader]), inputs).unwrap();
    assert_eq!(amounts(&staged), ["null", "[null,7]", "[2,7]"]);

    let elements = row_lag(&orders(), &["split(customer, \"\")"]);
    let leave = |count: usize| {
        let (text, arena) = ("x".repeat(count), Bump::new());
        let record = [Slot::String(&text), Slot::Null, Slot::Null, Slot::Timestamp(1)];
        elements.leave(&Event { record: &record[..], time_ms: 1, source: None }, &arena)
    };
    // Each has a byte, and fourteen beside it.
    let most = STATE_TEXT_BYTES_MAX / 15;
    let left = leave(most).unwrap();
    let mut bytes = Vec::new();
    elements.encode(&left, &mut bytes);
    assert!(bytes.len() < STATE_TEXT_BYTES_MAX, "{}", bytes.len());
    assert_eq!(elements.decode(&bytes), Ok(left));
    let error = leave(most + 1).unwrap_err();
    assert_eq!(error.message, "`before0`: a list of 65550 bytes, more than 65536");
}

#[test]
fn the_one_before_is_the_one_that_came_before_whatever_its_time() {
    let inputs = [(1, 50), (2, 20), (3, 30)].map(|(amount, at_ms)| order("a", &amount.to_string(), at_ms));
    assert_eq!(previous(Some(100), 0, inputs.into()).0, ["null", "1", "2"]);
}

#[test]
fn a_key_is_forgotten_when_its_newest_row_has_expired() {
    let inputs =
        |at_ms| vec![order("a", "1", 5), order("a", "2", 3), order("b", "1", at_ms), order("a", "3", 4)];
    assert_eq!(previous(Some(10), 0, inputs(14)).0, ["null", "1", "null", "2"]);
    assert_eq!(previous(Some(10), 0, inputs(15)).0, ["null", "1", "null", "null"]);
    assert_eq!(previous(None, 0, inputs(900)).0, ["null", "1", "null", "2"]);
}

#[test]
fn a_row_that_comes_too_late_leaves_nothing() {
    let inputs = vec![order("b", "1", 30), order("a", "1", 20), order("a", "2", 21), order("a", "3", 22)];
    assert_eq!(previous(Some(10), 0, inputs).0, ["null", "null", "null", "2"]);
}

#[test]
fn a_row_that_fails_leaves_nothing() {
    let schema = orders();
    let reader = lag(&schema, None, &["12 / amount"], |rows| vec![sink(rows, "out")]);
    let nobody = Input { value: Some(br#"{"at":5}"#.to_vec()), ..order("a", "1", 5) };
    let inputs = vec![order("a", "3", 5), order("a", "0", 6), nobody, order("a", "6", 7)];
    let staged = run(source(0, vec![reader]), inputs).unwrap();
    assert_eq!(amounts(&staged), ["null", "4"]);
    let letters = staged.outputs.iter().filter(|record| &*record.topic == "rejected");
    let errors: Vec<_> = letters.filter_map(|letter| header(letter, "thalweg.error")).collect();
    assert!(errors[0].contains("by zero") && errors[1] == "the key field `customer` is null", "{errors:?}");
    assert_eq!(staged.counters.failed, [("before".into(), 2)].into());
}

#[test]
fn a_text_that_is_too_long_to_be_kept_is_an_error() {
    let long = "x".repeat(STATE_TEXT_BYTES_MAX + 1);
    let schema = orders();
    let reader = lag(&schema, None, &["customer + \"\""], |rows| vec![sink(rows, "out")]);
    let staged = run(source(0, vec![reader]), vec![order(&long[1..], "1", 5), order(&long, "1", 6)]).unwrap();
    // A key of that length is none, either.
    assert_eq!(staged.counters.failed, [("before".into(), 2)].into());
    let function = row_lag(&schema, &["customer"]);
    let row = [Slot::String(&long), Slot::Null, Slot::Null, Slot::Null];
    let event = Event { record: &row[..], time_ms: 5, source: None };
    let error = function.leave(&event, &Bump::new()).unwrap_err();
    assert_eq!(error.message, "`before0`: a text of 65537 bytes, more than 65536");
}

#[test]
fn another_process_knows_what_came_before() {
    let make = || {
        let schema = orders();
        source(0, vec![lag(&schema, Some(10), &["amount"], |rows| vec![sink(rows, "out")])])
    };
    let (mut first, mut second) = (make(), make());
    start(&mut *first);
    // The 3 of a moves to a later bucket.
    go_on(&mut *first, [(1, 5), (3, 9), (3, 12)].map(|(n, at)| order("a", &n.to_string(), at)).into())
        .unwrap();
    go_on(&mut *first, vec![order("b", "7", 1)]).unwrap();
    hand_over(&mut *first, &mut *second, |_| {});
    let staged =
        go_on(&mut *second, vec![order("a", "5", 13), order("b", "8", 1), order("b", "9", 20)]).unwrap();
    // 1 of b had expired with the 12 of a.
    assert_eq!(amounts(&staged), ["3", "null", "null"]);
}

#[test]
fn values_are_stored_like_this() {
    let schema = orders();
    let function = row_lag(&schema, &["amount", "customer", "price", "at", "amount > 1", "amount"]);
    let row = [Slot::String("ann"), Slot::Int(-3), Slot::Double(1.5), Slot::Timestamp(7)];
    let event = Event { record: &row[..], time_ms: 5, source: None };
    let values = function.leave(&event, &Bump::new()).unwrap();
    let mut bytes = Vec::new();
    function.encode(&values, &mut bytes);
    assert_eq!(
        bytes,
        b"\x0a\x02\x08\x05\x0a\x05\x1a\x03ann\x0a\x09\x11\0\0\0\0\0\0\xf8\x3f\x0a\x02\x08\x0e\x0a\x02\x20\x00\x0a\x02\x08\x05"
    );
    assert_eq!(function.decode(&bytes).unwrap(), values);
    let nothing = [Slot::Null, Slot::Null, Slot::Null, Slot::Timestamp(7)];
    let values = function.leave(&Event { record: &nothing[..], ..event }, &Bump::new()).unwrap();
    bytes.clear();
    function.encode(&values, &mut bytes);
    assert_eq!(function.decode(&bytes).unwrap(), values);
    assert_eq!(values.iter().flatten().count(), 1);
    assert!(function.decode(b"\x0a\x09\x08").is_err());
}

/// The definition, as a list of what each key left last.
fn expected(rows: &[(String, i64)], ttl_ms: Option<i64>, max_out_of_orderness_ms: i64) -> Vec<String> {
    let mut left = std::collections::BTreeMap::<&str, (i64, usize)>::new();
    let (mut watermark_ms, mut made) = (i64::MIN, Vec::new());
    for (number, (customer, at_ms)) in rows.iter().enumerate() {
        let counts = |newest_ms: i64| ttl_ms.is_none_or(|ttl_ms| newest_ms + ttl_ms > watermark_ms);
        let before = left.remove(customer.as_str()).filter(|(newest_ms, _)| counts(*newest_ms));
        made.push(before.map_or("null".to_owned(), |(_, number)| number.to_string()));
        let newest_ms = before.map_or(*at_ms, |(newest_ms, _)| newest_ms.max(*at_ms));
        if counts(newest_ms) {
            left.insert(customer, (newest_ms, number));
        }
        watermark_ms = watermark_ms.max(at_ms - max_out_of_orderness_ms);
    }
    made
}

fn differs(rows: &[(String, i64)], ttl_ms: Option<i64>, max_out_of_orderness_ms: i64) -> bool {
    let inputs = rows.iter().enumerate();
    let inputs = inputs.map(|(number, (customer, at_ms))| order(customer, &number.to_string(), *at_ms));
    let (found, _) = previous(ttl_ms, max_out_of_orderness_ms, inputs.collect());
    found != expected(rows, ttl_ms, max_out_of_orderness_ms)
}

proptest! {
    #[test]
    fn what_rows_get_follows_from_the_definition(
        rows in vec(("[ab]", 0..80_i64), 0..60),
        ttl_ms in prop_oneof![Just(None), (1..30_i64).prop_map(Some)],
        max_out_of_orderness_ms in 0..40_i64,
    ) {
        prop_assert!(!differs(&rows, ttl_ms, max_out_of_orderness_ms));
    }
}

#[test]
fn what_a_key_left_moves_on_with_its_newest_row() {
    let rows: Vec<(String, i64)> =
        [("a", 5), ("a", 14), ("b", 22), ("a", 15)].map(|(name, at_ms)| (name.to_owned(), at_ms)).into();
    assert!(!differs(&rows, Some(10), 0));
    let _planted = plant(Bug::LagNotMoved);
    assert!(differs(&rows, Some(10), 0));
}

#[test]
fn what_has_expired_does_not_count_although_its_bucket_is_there() {
    let rows: Vec<(String, i64)> =
        [("a", 5), ("b", 16), ("a", 17)].map(|(name, at_ms)| (name.to_owned(), at_ms)).into();
    assert!(!differs(&rows, Some(10), 0));
    let _planted = plant(Bug::ExpiredEntryCounts);
    assert!(differs(&rows, Some(10), 0));
}
