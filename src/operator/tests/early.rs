//! Early rows by the watermark.

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

#[test]
fn windows_that_overlap_make_early_rows_of_those_that_have_changed() {
    // Of 20, every 10.
    let mut clocked = Clocked::new(&early(sliding(20, 10)));
    let rows = clocked.rows_at("a", &[1, 2, 11]).written();
    assert_eq!(rows, [marked(-10, 10, 2, false), marked(0, 20, 3, true), marked(10, 30, 1, true)]);
    let rows = clocked.rows_at("b", &[12, 15]).written();
    assert_eq!(rows, [of_b(marked(0, 20, 2, true)), of_b(marked(10, 30, 2, true))]);
    // A late row changes what is in panes of windows that have ended, and of others.
    let rows = clocked.rows_at("a", &[3]).rows_at("b", &[20]).written();
    assert_eq!(rows[..2], [marked(0, 20, 4, false), of_b(marked(0, 20, 2, false))]);
    assert_eq!(rows[2..], [of_b(marked(10, 30, 3, true)), of_b(marked(20, 40, 1, true))]);
    let rows = clocked.rows_at("a", &[13]).rows_at("b", &[25]).written();
    assert_eq!(
        rows[..],
        [marked(10, 30, 2, true), of_b(marked(10, 30, 4, true)), of_b(marked(20, 40, 2, true))]
    );
}

#[test]
fn a_window_with_several_panes_that_have_changed_makes_one_early_row() {
    let mut clocked = Clocked::new(&early(sliding(40, 10)));
    clocked.rows_at("a", &[1, 6, 11]).written();
    let rows = clocked.rows_at("a", &[9, 12]).rows_at("b", &[15]).written();
    let of_a =
        [(20, 5), (30, 5), (40, 5), (50, 2)].map(|(end_ms, rows)| marked(end_ms - 40, end_ms, rows, true));
    let of_b = [20, 30, 40, 50].map(|end_ms| of_b(marked(end_ms - 40, end_ms, 1, true)));
    assert_eq!(rows, [of_a, of_b].concat());
}

#[test]
fn a_call_that_is_full_goes_on_with_the_next_window_that_overlaps() {
    for knows in [true, false] {
        let mut clocked = Clocked::new(&early(sliding(40, 10)));
        if knows {
            // Behind the first multiple.
            clocked.rows_at("c", &[-1, 0]).written();
        }
        clocked.staged = Staged::new(usize::MAX, usize::MAX).with_rows_per_call(1);
        clocked.rows_at("a", &[1, 3]).rows_at("b", &[4]);
        let batch = Batch::new(vec![order("b", "1", 5)]);
        let Clocked { pipeline, staged } = &mut clocked;
        let mut progress = pipeline.process(batch.record(0), &Bump::new(), staged).unwrap();
        let mut calls = 1;
        while progress == Progress::Full {
            progress = pipeline.resume(&Bump::new(), staged).unwrap();
            calls += 1;
        }
        let mut rows = clocked.written();
        assert!(calls >= rows.len(), "each in a call of its own");
        let ends = [10, 20, 30, 40];
        let of = |end_ms, key: fn(String) -> String| key(marked(end_ms - 40, end_ms, 2, true));
        let mut expected: Vec<String> =
            ends.iter().flat_map(|end_ms| [of(*end_ms, |row| row), of(*end_ms, of_b)]).collect();
        rows.sort();
        expected.sort();
        assert_eq!(rows, expected);
    }
}

#[test]
fn each_of_windows_that_overlap_counts_its_own_rows() {
    let early = Some(EarlyFiring::EveryRows(3));
    let window = Windowed { windows: sliding(20, 10), early, ..Windowed::new("w") };
    let mut clocked = Clocked::new(&window);
    assert!(clocked.rows_at("a", &[1, 11]).rows_at("b", &[3]).written().len() == 1, "until 10, at its end");
    assert_eq!(clocked.rows_at("a", &[2]).written(), [marked(0, 20, 3, true)]);
    assert_eq!(clocked.rows_at("a", &[12, 13]).written(), [marked(10, 30, 3, true)]);
    assert_eq!(clocked.rows_at("a", &[14]).written(), [marked(0, 20, 6, true)]);
}

#[test]
fn a_row_after_which_early_rows_come_makes_one_of_each_of_its_windows() {
    let when = Some(expression(&orders(), "amount > 3"));
    let (early, windows) = (Some(EarlyFiring::When), sliding(20, 10));
    let window = Windowed { windows, early, early_when: when, emit: EmitRows::OnTime, ..Windowed::new("w") };
    let window = Windowed { allowed_lateness_ms: 30, ..window };
    let inputs = [("1", 1), ("9", 12), ("1", 25), ("9", 13)];
    let staged = run(pipeline(&window), inputs.map(|(n, at_ms)| order("a", n, at_ms)).into()).unwrap();
    let row = |start_ms, rows, early: bool, refinement: bool| {
        let row = marked(start_ms, start_ms + 20, rows, early);
        row.replace('}', &format!(r#","mark":{refinement}}}"#))
    };
    let early = [row(0, 2, true, false), row(10, 1, true, false)];
    let on_time = [row(-10, 1, false, false), row(0, 2, false, false)];
    // The last one comes behind the end of the first of its windows: of that it is a refinement.
    let late = [row(0, 3, false, true), row(10, 3, true, false)];
    let rows = written(&staged, "out");
    assert_eq!(rows.len(), 6, "{rows:?}");
    assert_eq!(rows, [&early[..], &on_time, &late].concat());
}
