//! Early rows by the watermark.

use proptest::collection::vec;
use proptest::prelude::*;

use super::processing::{Clocked, marked, of_b, pipeline};
use super::*;

/// An early row whenever the watermark comes to, or beyond, a multiple of five.
fn early(windows: Windows) -> Windowed {
    Windowed { windows, early: Some(EarlyFiring::EveryMs(5, TimeDomain::Event)), ..Windowed::new("w") }
}

#[test]
fn early_rows_come_when_the_watermark_comes_to_a_multiple() {
    let mut clocked = Clocked::new(&early(tumbling(20)));
    clocked.rows_at("a", &[1, 2]).rows_at("b", &[3, 4]);
    assert!(clocked.written().is_empty());
    assert_eq!(clocked.rows_at("a", &[5]).written(), [marked(0, 20, 3, true), of_b(marked(0, 20, 2, true))]);
    assert!(clocked.rows_at("b", &[3, 9]).written().is_empty());
    // Beyond the next multiple, and beyond several at once. What has not changed makes none.
    assert_eq!(clocked.rows_at("b", &[11]).written(), [of_b(marked(0, 20, 5, true))]);
    assert!(clocked.rows_at("a", &[14]).written().is_empty());
    clocked.rows_at("b", &[21]);
    // The window is over: its own rows come, and no others.
    let closed = [marked(0, 20, 4, false), of_b(marked(0, 20, 5, false))];
    assert_eq!(clocked.written(), [&closed[..], &[of_b(marked(20, 40, 1, true))]].concat());
    assert_eq!(
        clocked.rows_at("b", &[39]).written(),
        [of_b(marked(20, 40, 2, true))],
        "25, 30 and 35 at once"
    );
}

#[test]
fn the_clock_has_no_part_in_early_rows_by_the_watermark() {
    let mut clocked = Clocked::new(&early(tumbling(20)));
    clocked.at(1_000).rows_at("a", &[1, 2]);
    assert!(clocked.at(100_000).written().is_empty());
    assert_eq!(clocked.staged.due_ms(), None, "nobody waits for it");
    assert!(!clocked.staged.tell_time(200_000), "nor is anybody told the time");
}

#[test]
fn before_there_is_a_watermark_there_are_no_early_rows() {
    // What comes first says where time is: it has passed nothing.
    let mut clocked = Clocked::new(&early(session(20)));
    assert!(clocked.rows_at("a", &[7]).written().is_empty());
    assert_eq!(clocked.rows_at("a", &[10]).written(), [marked(7, 30, 2, true)]);
    assert_eq!(clocked.rows_at("a", &[29]).written(), [marked(7, 49, 3, true)], "as it has become");
}

#[test]
fn early_rows_are_made_while_late_rows_may_come_and_not_behind_those_on_time() {
    let window = Windowed { allowed_lateness_ms: 10, ..early(tumbling(10)) };
    let mut clocked = Clocked::new(&window);
    clocked.rows_at("a", &[3, 6]);
    assert_eq!(clocked.written(), [marked(0, 10, 2, true)]);
    assert_eq!(clocked.rows_at("a", &[12]).written(), [marked(10, 20, 1, true)]);
    assert_eq!(clocked.rows_at("a", &[4, 16]).written(), [marked(0, 10, 3, true), marked(10, 20, 2, true)]);
    assert_eq!(
        clocked.rows_at("b", &[20]).written(),
        [marked(0, 10, 3, false), of_b(marked(20, 30, 1, true))]
    );

    let on_time = Windowed { emit: EmitRows::OnTime, ..window };
    let rows = |rows, early, refinement: bool| {
        marked(0, 10, rows, early).replace('}', &format!(r#","mark":{refinement}}}"#))
    };
    let mut clocked = Clocked::new(&on_time);
    clocked.rows_at("a", &[3, 6]);
    assert_eq!(clocked.written(), [rows(2, true, false)]);
    assert_eq!(clocked.rows_at("a", &[10]).written()[0], rows(2, false, false));
    assert_eq!(clocked.rows_at("a", &[4]).written(), [rows(3, false, true)]);
    assert!(clocked.rows_at("b", &[14]).written().is_empty());
    assert!(clocked.rows_at("b", &[15]).written().iter().all(|row| row.contains("\"window_start\":10")));
}

#[test]
fn who_does_not_know_what_has_changed_makes_early_rows_of_all_that_is_open() {
    for windows in [tumbling(100), session(90)] {
        let window = early(windows.clone());
        let end_of = |at_ms: i64| if windows == tumbling(100) { 100 } else { at_ms + 90 };
        let start_ms = if windows == tumbling(100) { 0 } else { 1 };
        let expected = [marked(start_ms, end_of(1), 1, true), of_b(marked(start_ms, end_of(6), 2, true))];
        let begun = || {
            let mut clocked = Clocked::new(&window);
            clocked.rows_at("a", &[1]).rows_at("b", &[1, 6]);
            assert_eq!(clocked.written(), expected);
            clocked
        };
        // Another process.
        let mut clocked = begun();
        let mut other = pipeline(&window);
        hand_over(&mut *clocked.pipeline, &mut *other, |_| ());
        let mut other = Clocked { pipeline: other, staged: Staged::new(usize::MAX, usize::MAX) };
        assert_eq!(other.pipeline.resume(&Bump::new(), &mut other.staged).unwrap(), Progress::Done);
        assert!(other.rows_at("c", &[9]).written().is_empty());
        let rows = other.rows_at("c", &[10]).written();
        assert_eq!(rows[..2], expected);
        assert_eq!(rows.len(), 3);
        // The same one, when memory is short.
        let mut clocked = begun();
        clocked.rows_at("b", &[7]).pipeline.visit(&mut |operator| operator.evict(usize::MAX / 2));
        assert_eq!(clocked.rows_at("c", &[10]).written().len(), 3);
        assert!(clocked.rows_at("d", &[14]).written().is_empty());
    }
}

#[test]
fn a_call_that_is_full_goes_on_with_early_rows_and_a_bounded_run_ends_them() {
    let mut clocked = Clocked::new(&early(tumbling(20)));
    clocked.staged = Staged::new(usize::MAX, usize::MAX).with_rows_per_call(1);
    clocked.rows_at("a", &[1]).rows_at("b", &[1]);
    let batch = Batch::new(vec![order("c", "1", 5)]);
    let Clocked { pipeline, staged } = &mut clocked;
    let mut progress = pipeline.process(batch.record(0), &Bump::new(), staged).unwrap();
    let mut calls = 0;
    while progress == Progress::Full {
        progress = pipeline.resume(&Bump::new(), staged).unwrap();
        calls += 1;
    }
    assert_eq!((calls, clocked.written().len()), (3, 3));
    clocked.rows_at("a", &[2]);
    while clocked.pipeline.finish(&Bump::new(), &mut clocked.staged).unwrap() == Progress::Full {}
    let rows = clocked.written();
    assert_eq!(rows.len(), 3);
    assert!(rows.iter().all(|row| row.contains("\"early\":false")), "{rows:?}");
}

#[test]
fn windows_that_begin_anew_by_the_watermark_add_up() {
    for windows in [tumbling(20), session(15)] {
        let window = Windowed { purge: true, ..early(windows) };
        let mut clocked = Clocked::new(&window);
        let counts = |rows: Vec<String>| -> Vec<String> {
            rows.iter().map(|row| row[row.find(r#""rows""#).unwrap()..].to_owned()).collect()
        };
        clocked.rows_at("a", &[1, 2, 5]);
        assert_eq!(counts(clocked.written()), [r#""rows":3,"early":true}"#]);
        clocked.rows_at("b", &[10]);
        assert_eq!(counts(clocked.written()), [r#""rows":1,"early":true}"#], "of a there is nothing new");
        clocked.rows_at("a", &[11, 12]).rows_at("b", &[40]);
        let rows = counts(clocked.written());
        assert_eq!(rows[..], [r#""rows":2,"early":false}"#, r#""rows":1,"early":true}"#]);
    }
}

/// A key's window, in the simplest way.
#[derive(Clone)]
struct Open {
    key: String,
    start_ms: i64,
    end_ms: i64,
    rows: i64,
    changed: bool,
}

/// What each row of the input makes.
fn naive(windows: &Windows, lateness_ms: i64, inputs: &[(String, i64)]) -> Vec<Vec<String>> {
    let (mut open, mut watermark_ms) = (Vec::<Open>::new(), None);
    let made = inputs.iter().map(|(key, at_ms)| {
        let (start_ms, end_ms) = match windows {
            Windows::Session(sessions) => (*at_ms, at_ms + sessions.gap_ms()),
            _ => (at_ms - at_ms.rem_euclid(10), at_ms - at_ms.rem_euclid(10) + 10),
        };
        let is_session = matches!(windows, Windows::Session(_));
        let joins = |other: &Open| {
            let touches = other.start_ms <= end_ms && start_ms <= other.end_ms;
            other.key == *key && if is_session { touches } else { other.start_ms == start_ms }
        };
        let joined: Vec<Open> = open.iter().filter(|other| joins(other)).cloned().collect();
        let whole = joined.iter().fold((start_ms, end_ms, 1), |(start_ms, end_ms, rows), other| {
            (start_ms.min(other.start_ms), end_ms.max(other.end_ms), rows + other.rows)
        });
        if watermark_ms.is_none_or(|watermark_ms| whole.1 + lateness_ms > watermark_ms) {
            open.retain(|other| !joins(other));
            let (start_ms, end_ms, rows) = whole;
            open.push(Open { key: key.clone(), start_ms, end_ms, rows, changed: true });
        }
        let before_ms = watermark_ms.filter(|before_ms| before_ms < at_ms);
        watermark_ms = watermark_ms.max(Some(*at_ms));
        let row = |open: &Open, early| {
            marked(open.start_ms, open.end_ms, open.rows, early).replace("\"a\"", &format!("{:?}", open.key))
        };
        let is_closed = |open: &Open| Some(open.end_ms + lateness_ms) <= watermark_ms;
        let mut rows: Vec<String> =
            open.iter().filter(|open| is_closed(open)).map(|open| row(open, false)).collect();
        open.retain(|open| !is_closed(open));
        if before_ms.is_some_and(|before_ms| before_ms.div_euclid(5) < at_ms.div_euclid(5)) {
            rows.extend(open.iter().filter(|open| open.changed).map(|open| row(open, true)));
            open.iter_mut().for_each(|open| open.changed = false);
        }
        rows.sort();
        rows
    });
    made.collect()
}

proptest! {
    #[test]
    fn early_rows_by_the_watermark_are_those_of_a_plain_fold(
        windows in prop_oneof![Just(tumbling(10)), Just(session(3)), Just(session(8))],
        lateness_ms in prop_oneof![Just(0), Just(7)],
        inputs in vec(("[a-c]", 0..80_i64), 0..40),
    ) {
        let window = Windowed { allowed_lateness_ms: lateness_ms, ..early(windows.clone()) };
        let mut clocked = Clocked::new(&window);
        for ((key, at_ms), expected) in inputs.iter().zip(naive(&windows, lateness_ms, &inputs)) {
            let mut rows = clocked.rows_at(key, &[*at_ms]).written();
            rows.sort();
            prop_assert_eq!(rows, expected, "of {} at {}", key, at_ms);
        }
    }
}
