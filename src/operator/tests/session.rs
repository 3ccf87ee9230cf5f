//! Sessions.

use super::window::{at, range, run_window};
use super::*;
use crate::record::Slot;
use crate::state::ValueCodec;
use crate::window::WindowRange;

fn sessions(gap_ms: i64) -> Windowed {
    Windowed { windows: session(gap_ms), ..Windowed::new("w") }
}

#[test]
fn a_session_lasts_until_nothing_has_come_for_a_gap() {
    let staged = run_window(&sessions(10), at(&[1, 5, 14, 26, 60]));
    // 14 and 26 are further apart than the gap.
    assert_eq!(written(&staged, "out"), [range(1, 24, 3, None), range(26, 36, 1, None)]);
}

#[test]
fn records_as_far_apart_as_the_gap_are_one_session() {
    let staged = run_window(&sessions(10), at(&[0, 10, 21, 60]));
    assert_eq!(written(&staged, "out"), [range(0, 20, 2, None), range(21, 31, 1, None)]);
}

#[test]
fn a_record_between_two_sessions_joins_them() {
    let schema = orders();
    let window = Windowed { allowed_lateness_ms: 1_000, ..sessions(10) };
    let reader = window.reads(&schema, vec![sink(&window.schema(&schema), "out")]);
    let mut inputs = at(&[0, 18, 36, 9]);
    // Another key's sessions are left alone.
    inputs.insert(1, order("b", "1", 9));
    inputs.push(order("b", "1", 2_000));
    let staged = run(source(0, vec![reader]), inputs).unwrap();
    let others = range(9, 19, 1, None).replace("\"a\"", "\"b\"");
    assert_eq!(written(&staged, "out"), [others, range(0, 28, 3, None), range(36, 46, 1, None)]);
}

#[test]
fn a_record_is_late_if_the_session_that_it_joins_is() {
    // With 30 the session 0..10 has closed; 25 joins the one of 30, and 9 none.
    let staged = run_window(&sessions(10), at(&[0, 30, 25, 9, 60]));
    assert_eq!(written(&staged, "out"), [range(0, 10, 1, None), range(25, 40, 2, None)]);
    assert_eq!(staged.counters.late, [("w".into(), 1)].into());
}

#[test]
fn a_late_record_that_joins_an_open_session_is_in_time() {
    // By itself the window of 15 is over with 25.
    let staged = run_window(&sessions(10), at(&[16, 25, 15, 60]));
    assert_eq!(written(&staged, "out"), [range(15, 35, 3, None)]);
    assert!(staged.counters.late.is_empty());
}

#[test]
fn a_closed_session_is_not_joined() {
    // With the other key's 10 the session 0..10 closes; 8 begins another one, although they touch.
    let (a, b) = (|at_ms| order("a", "1", at_ms), |at_ms| order("b", "1", at_ms));
    let schema = orders();
    let window = sessions(10);
    let reader = window.reads(&schema, vec![sink(&window.schema(&schema), "out")]);
    let staged = run(source(0, vec![reader]), vec![a(0), b(10), a(8), b(60)]).unwrap();
    let rows = written(&staged, "out");
    let of_a: Vec<_> = rows.iter().filter(|row| row.contains("\"a\"")).collect();
    assert_eq!(of_a, [&range(0, 10, 1, None), &range(8, 18, 1, None)]);
}

#[test]
fn a_session_that_has_fired_fires_again_if_it_grows() {
    let window = Windowed { emit: EmitRows::OnTime, allowed_lateness_ms: 20, ..sessions(10) };
    // At 15 the session 0..10 fires; 4 refines it, and 9 has it end at 19, when it fires again.
    let mut inputs = at(&[0]);
    inputs.push(order("b", "1", 15));
    inputs.extend(at(&[4, 9]));
    inputs.push(order("b", "1", 22));
    let schema = orders();
    let reader = window.reads(&schema, vec![sink(&window.schema(&schema), "out")]);
    let staged = run(source(0, vec![reader]), inputs).unwrap();
    let expected = [range(0, 10, 1, Some(false)), range(0, 14, 2, Some(true)), range(0, 19, 3, Some(false))];
    assert_eq!(written(&staged, "out"), expected);
}

#[test]
fn each_update_of_a_session_makes_a_row() {
    let window = Windowed { emit: EmitRows::OnUpdate, ..sessions(10) };
    let staged = run_window(&window, at(&[0, 5, 30]));
    let expected = [
        range(0, 10, 1, Some(false)),
        range(0, 15, 2, Some(false)),
        range(30, 40, 1, Some(false)),
        range(0, 15, 2, Some(true)),
    ];
    assert_eq!(written(&staged, "out"), expected);
}

#[test]
fn sessions_fire_in_the_order_of_their_ends_and_keys() {
    let schema = orders();
    let window = sessions(10);
    let reader = window.reads(&schema, vec![sink(&window.schema(&schema), "out")]);
    let inputs = [("c", 4), ("b", 4), ("a", 5), ("d", 1), ("z", 100)];
    let inputs = inputs.map(|(customer, at_ms)| order(customer, "1", at_ms)).to_vec();
    let staged = run(source(50, vec![reader]), inputs).unwrap();
    let keys: Vec<_> = staged.outputs.iter().map(|output| output.key.clone().unwrap()).collect();
    assert_eq!(keys, [b"d", b"b", b"c", b"a"]);
}

#[test]
fn a_session_whose_parts_cannot_be_added_takes_no_record() {
    let sum = aggregate(&orders(), "sum", AggregateFunction::Sum, Some("amount"), Type::Int);
    let window = Windowed { aggregates: vec![sum], allowed_lateness_ms: 100, ..sessions(10) };
    let most = i64::MAX.to_string();
    // 9 would join the two, whose sum is too much: they stay what they are.
    let inputs = vec![order("a", &most, 0), order("a", "1", 18), order("a", "1", 9), order("b", "1", 500)];
    let schema = orders();
    let reader = window.reads(&schema, vec![sink(&window.schema(&schema), "out")]);
    let staged = run(source(0, vec![reader]), inputs).unwrap();
    assert_eq!(written(&staged, "rejected").len(), 1);
    let ends: Vec<_> = staged.outputs.iter().filter(|output| &*output.topic == "out").collect();
    assert_eq!(ends.iter().map(|output| output.timestamp_ms).collect::<Vec<_>>(), [9, 27]);
}

#[test]
fn stored_sessions_never_change_their_meaning() {
    let rows = aggregate(&orders(), "rows", AggregateFunction::Count, None, Type::Int);
    let aggregates = RowAggregates::new(vec![rows]);
    let mut value = Aggregator::<Dynamic>::create(&aggregates);
    let input = RowInput { arguments: &[Slot::Bool(true)], by: &[], time_ms: -3 };
    aggregates.add(&mut value, input).unwrap();
    let codec = SessionCodec::new(aggregates);
    let range = WindowRange { start_ms: -3, end_ms: 297 };
    let mut bytes = Vec::new();
    codec.encode(&Some(Session { range, value }), &mut bytes);
    assert_eq!(bytes, [5, 0xac, 2, 4 << 3, 1]);
    assert_eq!(codec.decode(&bytes).unwrap().map(|session| session.range), Some(range));
    assert!(codec.decode(&bytes[..2]).is_err(), "cut off");
    let mut nothing = Vec::new();
    codec.encode(&None, &mut nothing);
    assert!(nothing.is_empty() && codec.decode(&nothing).unwrap().is_none());
}

#[test]
fn a_session_that_lies_where_it_cannot_is_damage() {
    let schema = orders();
    let made = |gap_ms| {
        let window = sessions(gap_ms);
        source(0, vec![window.reads(&schema, vec![sink(&window.schema(&schema), "out")])])
    };
    // What sessions with another gap wrote; fingerprints tell that they did.
    let (mut first, mut second) = (made(10), made(7));
    start(&mut *first);
    go_on(&mut *first, vec![order("a", "1", 1)]).unwrap();
    hand_over(&mut *first, &mut *second, |_| ());
    let error = go_on(&mut *second, vec![order("a", "1", 2)]).err().map(|error| error.to_string());
    assert_eq!(error.as_deref(), Some("a session from 1 to 11 is not one of its bucket"));
}

#[test]
fn the_end_of_a_bounded_run_that_a_checkpoint_cuts_goes_on_where_it_was() {
    let schema = orders();
    let window = sessions(10);
    let reader = window.reads(&schema, vec![sink(&window.schema(&schema), "out")]);
    let mut pipeline = source(0, vec![reader]);
    start(&mut *pipeline);
    let batch = Batch::new(vec![order("a", "1", 1), order("b", "1", 2)]);
    let mut staged = Staged::new(1, usize::MAX);
    for index in 0..2 {
        assert_eq!(pipeline.process(batch.record(index), &Bump::new(), &mut staged).unwrap(), Progress::Done);
    }
    let saved = |pipeline: &mut Box<dyn Pipeline>| {
        let mut saved = Vec::new();
        pipeline.visit(&mut |operator| saved.push(operator.saved()));
        saved
    };
    assert_eq!(pipeline.finish(&Bump::new(), &mut staged).unwrap(), Progress::Full);
    assert_eq!(written(&staged, "out"), [range(1, 11, 1, None)]);
    let cut = saved(&mut pipeline);
    assert!(!cut[0].firing_cursor.is_empty());
    staged.take();
    // The watermark, which is where it was, is told again.
    assert_eq!(pipeline.resume(&Bump::new(), &mut staged).unwrap(), Progress::Done);
    assert_eq!(saved(&mut pipeline), cut);
    while pipeline.finish(&Bump::new(), &mut staged).unwrap() == Progress::Full {}
    assert_eq!(written(&staged, "out"), [range(2, 12, 1, None).replace("\"a\"", "\"b\"")]);
}

/// Sessions of rows that say in `amount`, in whole milliseconds, how long they keep theirs open.
fn of_their_own(min_ms: i64) -> Windowed {
    let gap = expression(&orders(), "duration(int(amount))");
    Windowed { gap: Some(gap), ..sessions(min_ms) }
}

#[test]
fn rows_with_gaps_of_their_own_keep_a_session_open_for_as_long() {
    let rows = [(1, "30"), (5, "10"), (31, "10"), (42, "10"), (90, "10")];
    let inputs = rows.map(|(at_ms, gap_ms)| order("a", gap_ms, at_ms));
    let staged = run_window(&of_their_own(10), inputs.to_vec());
    // The second one ends within the first, the third begins where that ends.
    assert_eq!(written(&staged, "out"), [range(1, 41, 3, None), range(42, 52, 1, None)]);
}

#[test]
fn a_gap_out_of_bounds_is_an_error_of_its_row() {
    let rows = [(1, "10"), (2, "9"), (3, "-4"), (4, "4000000000000"), (30, "10")];
    let inputs = rows.map(|(at_ms, gap_ms)| order("a", gap_ms, at_ms));
    let staged = run_window(&of_their_own(10), inputs.to_vec());
    assert_eq!(written(&staged, "out"), [range(1, 11, 1, None)]);
    assert_eq!(staged.counters.failed, [("w".into(), 3)].into());
    let letters = staged.outputs.iter().filter_map(|letter| header(letter, "thalweg.error"));
    assert_eq!(letters.count(), 3);
}
