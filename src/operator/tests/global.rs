//! Windows that no time closes.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::state::ValueCodec;
use crate::state::key::STATE_TEXTS_BYTES_MAX;
use crate::window::{CountWindows, WindowRange};

fn count(size: i64, slide: i64) -> Gathered {
    Gathered::new(TriggerPlan::Count(CountWindows::sliding(size, slide)))
}

fn having(text: &str, purge: bool) -> Gathered {
    let made = Gathered::global(FiresPlan::EveryRows(1), false).schema(&orders());
    Gathered::global(FiresPlan::Having(expression(&made, text)), purge)
}

fn when(text: &str, purge: bool) -> Gathered {
    Gathered::global(FiresPlan::When(expression(&orders(), text)), purge)
}

fn pipeline(window: &Gathered, max_out_of_orderness_ms: i64) -> Box<dyn Pipeline> {
    let schema = orders();
    let reader = window.reads(&schema, vec![sink(&window.schema(&schema), "out")]);
    source(max_out_of_orderness_ms, vec![reader])
}

fn staged(window: &Gathered, inputs: Vec<Input>) -> Staged {
    run(pipeline(window, 0), inputs).unwrap()
}

/// The rows of a key `a` whose records come at these times: start, end and count.
fn of_times(window: &Gathered, times: &[i64]) -> Vec<[i64; 3]> {
    rows(&staged(window, times.iter().map(|at_ms| order("a", "1", *at_ms)).collect()))
}

fn rows(staged: &Staged) -> Vec<[i64; 3]> {
    let number = |row: &str, name: &str| -> i64 {
        let rest = row.split_once(&format!("\"{name}\":")).unwrap().1;
        rest.split([',', '}']).next().unwrap().parse().unwrap()
    };
    let row = |row: String| ["window_start", "window_end", "rows"].map(|name| number(&row, name));
    written(staged, "out").into_iter().map(row).collect()
}

#[test]
fn a_count_window_is_of_so_many_rows_of_a_key() {
    let inputs = [("a", 5), ("b", 6), ("a", 9), ("b", 3), ("a", 7), ("a", 8), ("a", 90)];
    let inputs = inputs.map(|(customer, at_ms)| order(customer, "1", at_ms));
    let staged = staged(&count(2, 2), inputs.into());
    assert_eq!(rows(&staged), [[5, 10, 2], [3, 7, 2], [7, 9, 2]], "the last row of a waits for another one");
    let first = r#"{"customer":"a","window_start":5,"window_end":10,"rows":2}"#;
    assert_eq!(written(&staged, "out")[0], first);
    assert_eq!(staged.outputs[0].timestamp_ms, 9, "the greatest event time of its rows");
    assert_eq!(staged.counters.late, [].into());
}

#[test]
fn a_sliding_count_window_makes_a_row_over_fewer_at_first() {
    assert_eq!(of_times(&count(3, 1), &[1, 2, 3, 4]), [[1, 2, 1], [1, 3, 2], [1, 4, 3], [2, 5, 3]]);
    assert_eq!(of_times(&count(4, 2), &[1, 2, 3, 4, 9, 6, 7]), [[1, 3, 2], [1, 5, 4], [3, 10, 4]]);
    // The first row of each four is in none.
    assert_eq!(of_times(&count(3, 4), &[1, 2, 3, 4, 5, 6, 7, 8]), [[2, 5, 3], [6, 9, 3]]);
}

#[test]
fn an_unfinished_window_makes_no_row_at_the_end() {
    let mut pipeline = pipeline(&count(2, 2), 0);
    start(&mut *pipeline);
    let inputs = [1, 2, 3].map(|at_ms| order("a", "1", at_ms));
    let mut staged = go_on(&mut *pipeline, inputs.into()).unwrap();
    assert_eq!(pipeline.finish(&Bump::new(), &mut staged).unwrap(), Progress::Done);
    assert_eq!(rows(&staged), [[1, 3, 2]]);
}

#[test]
fn a_global_window_makes_a_row_after_every_so_many() {
    let every = |rows, purge| Gathered::global(FiresPlan::EveryRows(rows), purge);
    assert_eq!(of_times(&every(2, false), &[5, 3, 9, 4, 1]), [[3, 6, 2], [3, 10, 4]]);
    assert_eq!(of_times(&every(2, true), &[5, 3, 9, 4, 1]), [[3, 6, 2], [4, 10, 2]]);
    assert_eq!(of_times(&every(1, false), &[5, 3]), [[5, 6, 1], [3, 6, 2]]);
}

#[test]
fn a_global_window_makes_a_row_when_something_holds() {
    let inputs = || {
        let amounts = ["1", "7", "null", "9", "2"];
        amounts.iter().zip(1..).map(|(amount, at_ms)| order("a", amount, at_ms)).collect::<Vec<_>>()
    };
    assert_eq!(rows(&staged(&when("amount > 6", false), inputs())), [[1, 3, 2], [1, 5, 4]]);
    assert_eq!(rows(&staged(&when("amount > 6", true), inputs())), [[1, 3, 2], [3, 5, 2]]);
    let all = [[1, 4, 3], [1, 5, 4], [1, 6, 5]];
    assert_eq!(rows(&staged(&having("rows > 2", false), inputs())), all, "as long as it holds");
    assert_eq!(rows(&staged(&having("rows > 2", true), inputs())), [[1, 4, 3]]);
    let long = having("window_end - window_start > duration(\"3ms\") && customer == \"a\"", true);
    assert_eq!(rows(&staged(&long, inputs())), [[1, 5, 4]]);
}

#[test]
fn a_condition_that_fails_is_an_error_of_what_it_is_on() {
    let inputs = || ["1", "0", "3"].map(|amount| order("a", amount, 5)).to_vec();
    let of_row = staged(&when("12 / amount > 3", false), inputs());
    assert_eq!(rows(&of_row), [[5, 6, 1], [5, 6, 2]], "the second row is not taken");
    assert_eq!(of_row.counters.failed, [("gathered".into(), 1)].into());
    let of_window = staged(&having("6 / (rows - 2) != 0", false), inputs());
    assert_eq!(rows(&of_window), [[5, 6, 1], [5, 6, 3]], "the second row counts");
    let letters = written(&of_window, "rejected");
    assert_eq!(letters, [r#"{"customer":"a","window_start":5,"window_end":6}"#]);
}

#[test]
fn a_key_is_forgotten_when_its_newest_row_has_expired() {
    let inputs = |at_ms| [("a", 5), ("a", 3), ("b", at_ms), ("a", 4)].map(|(c, at_ms)| order(c, "1", at_ms));
    let window = Gathered { ttl_ms: Some(10), ..count(3, 3) };
    assert_eq!(rows(&staged(&window, inputs(14).into())), [[3, 6, 3]]);
    assert!(rows(&staged(&window, inputs(15).into())).is_empty());
    assert_eq!(rows(&staged(&count(3, 3), inputs(900).into())), [[3, 6, 3]]);
    // That its window is over is no reason to forget a key.
    let inputs = [("a", 9), ("a", 1), ("b", 12), ("a", 2), ("a", 1)].map(|(c, at_ms)| order(c, "1", at_ms));
    let staged = staged(&Gathered { ttl_ms: Some(10), ..count(2, 2) }, inputs.into());
    assert_eq!(rows(&staged), [[1, 10, 2], [1, 3, 2]]);
}

#[test]
fn a_row_that_comes_too_late_is_taken_and_forgotten() {
    let inputs = [("b", 30), ("a", 5), ("a", 6)].map(|(c, at_ms)| order(c, "1", at_ms));
    let every = Gathered { ttl_ms: Some(10), ..Gathered::global(FiresPlan::EveryRows(1), false) };
    assert_eq!(rows(&staged(&every, inputs.clone().into())), [[30, 31, 1], [5, 6, 1], [6, 7, 1]]);
    assert!(rows(&staged(&Gathered { ttl_ms: Some(10), ..count(2, 2) }, inputs.into())).is_empty());
}

#[test]
fn first_and_last_go_by_time_in_whatever_order_rows_come() {
    use AggregateFunction::{First, Last};
    let schema = orders();
    let of = |name: &str, function| aggregate(&schema, name, function, Some("amount"), Type::Int);
    let aggregates = vec![of("first", First), of("last", Last)];
    let window = Gathered { aggregates, ..count(4, 1) };
    let inputs = [("1", 9), ("2", 7), ("3", 8), ("4", 7), ("5", 9)].map(|(n, at_ms)| order("a", n, at_ms));
    let made = written(&staged(&window, inputs.into()), "out");
    let tails: Vec<&str> = made.iter().map(|row| row.split_once(r#""first":"#).unwrap().1).collect();
    assert_eq!(
        tails,
        [r#"1,"last":1}"#, r#"2,"last":1}"#, r#"2,"last":1}"#, r#"2,"last":1}"#, r#"2,"last":5}"#]
    );
}

#[test]
fn the_texts_of_all_parts_share_an_entry() {
    let schema = orders();
    let least = aggregate(&schema, "least", AggregateFunction::Min, Some("customer"), Type::String);
    let most = STATE_TEXTS_BYTES_MAX / 100 - pane_bytes(std::slice::from_ref(&least));
    let window = Gathered { aggregates: vec![least], ..count(100, 1) };
    let inputs = [most, most + 1].map(|bytes| order(&"x".repeat(bytes), "1", 5));
    let staged = staged(&window, inputs.into());
    assert_eq!((written(&staged, "out").len(), written(&staged, "rejected").len()), (1, 1));
}

#[test]
fn another_process_knows_what_came_before() {
    let make = || pipeline(&Gathered { ttl_ms: Some(10), ..count(3, 2) }, 0);
    let (mut first, mut second) = (make(), make());
    start(&mut *first);
    // What is kept of a moves to a later bucket.
    let staged = go_on(&mut *first, [5, 9, 12].map(|at_ms| order("a", "1", at_ms)).into()).unwrap();
    assert_eq!(rows(&staged), [[5, 10, 2]]);
    hand_over(&mut *first, &mut *second, |_| {});
    let staged = go_on(&mut *second, [13, 14, 15].map(|at_ms| order("a", "1", at_ms)).into()).unwrap();
    assert_eq!(rows(&staged), [[9, 14, 3], [13, 16, 3]]);
}

#[test]
fn what_is_kept_is_stored_like_this() {
    let plan = aggregate(&orders(), "rows", AggregateFunction::Count, None, Type::Int);
    let codec = KeptCodec::new(RowAggregates::new(vec![plan]));
    let mut bytes = Vec::new();
    codec.encode(&None, &mut bytes);
    assert!(bytes.is_empty() && codec.decode(&bytes).unwrap().is_none());
    let nothing = Kept { newest_ms: 0, rows: 0, panes: Vec::new() };
    codec.encode(&Some(nothing), &mut bytes);
    assert_eq!(bytes, b"\x08\0");
    assert!(codec.decode(&bytes).unwrap().is_some_and(|kept| kept.range().is_none()));
    // Newest, rows, and two panes: start, length, value.
    let stored =
        b"\x08\x0e\x10\x05\x1a\x08\x08\x05\x10\x04\x1a\x02\x20\x03\x1a\x08\x08\x0c\x10\x02\x1a\x02\x20\x02";
    let kept = codec.decode(stored).unwrap();
    let ranges = kept.iter().flat_map(|kept| &kept.panes).map(|pane| pane.range);
    let range = |start_ms, end_ms| WindowRange { start_ms, end_ms };
    assert_eq!(ranges.collect::<Vec<_>>(), [range(-3, 1), range(6, 8)]);
    assert_eq!(kept.as_ref().map(|kept| (kept.newest_ms, kept.rows)), Some((7, 5)));
    assert_eq!(kept.as_ref().and_then(Kept::range), Some(range(-3, 8)));
    bytes.clear();
    codec.encode(&kept, &mut bytes);
    assert_eq!(bytes, stored);
    assert!(codec.decode(b"\x08\x0e\x1a\x02\x08\x05").is_err(), "a window of no length");
    assert!(codec.decode(b"\x08\x0e\x78\x01").unwrap().is_some(), "a field of a later version");
}

/// What must come of the rows of a key, by the definition: all of them are kept.
fn expected(rows: &[(String, i64)], window: &Gathered, lag_ms: i64) -> Vec<[i64; 3]> {
    let (mut keys, mut watermark_ms) = (BTreeMap::<&str, (Vec<i64>, usize, i64)>::new(), i64::MIN);
    let mut made = Vec::new();
    for (customer, at_ms) in rows {
        let expires = |newest_ms: i64| window.ttl_ms.is_some_and(|ttl_ms| newest_ms + ttl_ms <= watermark_ms);
        let of_key = keys.remove(customer.as_str()).filter(|(_, _, newest_ms)| !expires(*newest_ms));
        let (mut times, mut told, newest_ms) = of_key.unwrap_or((Vec::new(), 0, *at_ms));
        times.push(*at_ms);
        let since = (times.len() - told) as i64;
        let (size, fires, purge) = match &window.trigger {
            TriggerPlan::Count(windows) => (windows.size() as usize, since == windows.slide(), false),
            TriggerPlan::Global { fires: FiresPlan::EveryRows(rows), purge } => {
                (usize::MAX, since == *rows, *purge)
            }
            TriggerPlan::Global { purge, .. } => (usize::MAX, times.len() > 2, *purge),
            TriggerPlan::Changelog => (usize::MAX, true, false),
        };
        if fires {
            let last = &times[times.len().saturating_sub(size)..];
            let ends = (last.iter().min().unwrap(), last.iter().max().unwrap() + 1);
            made.push([*ends.0, ends.1, last.len() as i64]);
            told = times.len();
        }
        if fires && purge {
            (times, told) = (Vec::new(), 0);
        }
        let newest_ms = newest_ms.max(*at_ms);
        if !expires(newest_ms) {
            keys.insert(customer, (times, told, newest_ms));
        }
        watermark_ms = watermark_ms.max(at_ms - lag_ms);
    }
    made
}

proptest! {
    #[test]
    fn what_is_made_follows_from_the_definition(
        window in prop_oneof![
            (1..8_i64, 1..8_i64).prop_map(|(size, slide)| count(size, slide)),
            (1..5_i64, any::<bool>()).prop_map(|(rows, purge)| Gathered::global(FiresPlan::EveryRows(rows), purge)),
            any::<bool>().prop_map(|purge| having("rows > 2", purge)),
        ],
        rows_in in vec(("[ab]", 0..80_i64), 0..60),
        ttl_ms in prop_oneof![Just(None), (1..30_i64).prop_map(Some)],
        lag_ms in 0..40_i64,
    ) {
        let window = Gathered { ttl_ms, ..window };
        let inputs = rows_in.iter().map(|(customer, at_ms)| order(customer, "1", *at_ms)).collect();
        let staged = run(pipeline(&window, lag_ms), inputs).unwrap();
        prop_assert_eq!(rows(&staged), expected(&rows_in, &window, lag_ms));
    }
}
