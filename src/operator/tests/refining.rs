//! Refinements by the clock.

use super::processing::{Clocked, of_b, pipeline};
use super::window::range;
use super::*;

/// Windows of ten milliseconds that take rows until 30 behind their ends.
fn refined() -> Windowed {
    let (emit, refine_every_ms) = (EmitRows::OnTime, Some(100));
    Windowed { emit, refine_every_ms, allowed_lateness_ms: 30, ..Windowed::new("w") }
}

fn begun(window: &Windowed) -> Clocked {
    let mut clocked = Clocked::new(window);
    clocked.staged.tell_time(1_000);
    clocked
}

#[test]
fn refinements_are_made_by_the_clock_of_what_has_changed() {
    let mut clocked = begun(&refined());
    clocked.rows_at("a", &[1, 2, 12]);
    assert_eq!(clocked.written(), [range(0, 10, 2, Some(false))], "on time");
    clocked.rows_at("a", &[3, 4]).at(1_099);
    assert!(clocked.written().is_empty(), "not yet");
    assert_eq!(clocked.at(1_100).written(), [range(0, 10, 4, Some(true))]);
    assert!(clocked.at(1_300).written().is_empty(), "nothing has come since");
    clocked.rows_at("a", &[5, 6]).at(1_400);
    assert_eq!(clocked.written(), [range(0, 10, 6, Some(true))]);
}

#[test]
fn what_is_outstanding_is_made_before_the_window_closes() {
    let mut clocked = begun(&refined());
    clocked.rows_at("a", &[1, 12, 2]);
    assert_eq!(clocked.written(), [range(0, 10, 1, Some(false))]);
    clocked.rows_at("b", &[39]);
    assert_eq!(clocked.written(), [range(10, 20, 1, Some(false))], "it still takes rows");
    clocked.rows_at("b", &[40]);
    assert_eq!(
        clocked.written(),
        [range(0, 10, 2, Some(true)), range(30, 40, 1, Some(false)).replace("\"a\"", "\"b\"")]
    );
    clocked.rows_at("a", &[3]);
    assert_eq!(clocked.staged.counters.late, [("w".into(), 1)].into());
    assert!(clocked.at(1_100).written().is_empty());
    // The end of a bounded run closes all.
    clocked.rows_at("a", &[13]);
    assert_eq!(clocked.pipeline.finish(&Bump::new(), &mut clocked.staged).unwrap(), Progress::Done);
    let rows = clocked.written();
    assert_eq!(rows[0], range(10, 20, 2, Some(true)));
    assert_eq!(rows.len(), 2, "that of b until 50 is on time: {rows:?}");
}

#[test]
fn a_process_that_does_not_know_what_has_changed_makes_refinements_of_all_that_has_fired() {
    let window = refined();
    let restarted = || {
        let mut clocked = begun(&window);
        clocked.rows_at("a", &[1, 12, 2]).rows_at("b", &[11, 15]);
        assert_eq!(clocked.written(), [range(0, 10, 1, Some(false))]);
        let mut other = pipeline(&window);
        hand_over(&mut *clocked.pipeline, &mut *other, |_| {});
        let mut staged = Staged::new(usize::MAX, usize::MAX);
        staged.tell_time(1_050);
        assert_eq!(other.resume(&Bump::new(), &mut staged).unwrap(), Progress::Done);
        Clocked { pipeline: other, staged }
    };
    let mut other = restarted();
    assert_eq!(other.at(1_100).written(), [range(0, 10, 2, Some(true))], "not of those that have not fired");
    assert!(other.at(1_200).written().is_empty());
    let mut other = restarted();
    other.rows_at("a", &[40]);
    let rows = other.written();
    assert_eq!(rows[0], range(0, 10, 2, Some(true)), "before it closes: {rows:?}");
    assert_eq!(rows.len(), 3, "and those that are on time: {rows:?}");
}

#[test]
fn where_too_much_has_changed_all_that_has_fired_makes_one() {
    let mut clocked = begun(&refined());
    clocked.rows_at("a", &[1, 12]);
    assert_eq!(clocked.written().len(), 1);
    let keys = 16_400;
    for key in 0..keys {
        clocked.rows_at(&format!("k{key}"), &[2]);
    }
    assert!(clocked.written().is_empty());
    // More than one call makes.
    assert!(clocked.staged.tell_time(1_100));
    while clocked.pipeline.resume(&Bump::new(), &mut clocked.staged).unwrap() == Progress::Full {}
    assert_eq!(clocked.written().len(), keys + 1, "that of a as well");
    assert!(clocked.at(1_200).written().is_empty());
}

/// Another process goes on, told this by the clock.
fn restarted(window: &Windowed, clocked: &mut Clocked, rows_per_call: usize, clock_ms: i64) -> Clocked {
    let mut other = pipeline(window);
    hand_over(&mut *clocked.pipeline, &mut *other, |_| {});
    let mut staged = Staged::new(usize::MAX, usize::MAX).with_rows_per_call(rows_per_call);
    staged.tell_time(clock_ms);
    Clocked { pipeline: other, staged }
}

/// Windows of twenty milliseconds every ten.
fn overlapping() -> Windowed {
    Windowed { windows: sliding(20, 10), ..refined() }
}

#[test]
fn a_late_row_refines_each_of_the_windows_that_overlap_and_have_fired() {
    let mut clocked = begun(&overlapping());
    clocked.rows_at("a", &[5, 15]).rows_at("b", &[25]);
    assert_eq!(clocked.written(), [range(-10, 10, 1, Some(false)), range(0, 20, 2, Some(false))]);
    clocked.rows_at("a", &[16, 6]).at(1_050);
    assert!(clocked.written().is_empty());
    assert_eq!(
        clocked.at(1_100).written(),
        [range(-10, 10, 2, Some(true)), range(0, 20, 4, Some(true))],
        "that of 10 to 30 has not fired"
    );
    assert!(clocked.at(1_200).written().is_empty());
    // What is outstanding of a window is made when that closes, and no other one of its key.
    clocked.rows_at("a", &[7]).rows_at("b", &[39]);
    clocked.written();
    clocked.rows_at("b", &[40]);
    let rows = clocked.written();
    assert_eq!(rows[0], range(-10, 10, 3, Some(true)), "{rows:?}");
    assert!(rows[1..].iter().all(|row| row.contains("\"mark\":false")), "{rows:?}");
    assert_eq!(clocked.at(1_300).written(), [range(0, 20, 5, Some(true))]);
}

#[test]
fn a_window_that_overlaps_others_makes_one_row_of_a_key_whose_changes_are_not_known() {
    let window = overlapping();
    for is_short in [false, true] {
        let mut clocked = begun(&window);
        clocked.rows_at("a", &[5, 15, 25]).rows_at("b", &[25]);
        clocked.written();
        clocked.rows_at("a", &[6, 16]);
        if is_short {
            clocked.pipeline.visit(&mut |operator| operator.evict(usize::MAX / 2));
        } else {
            clocked = restarted(&window, &mut clocked, usize::MAX, 1_050);
            assert_eq!(clocked.pipeline.resume(&Bump::new(), &mut clocked.staged).unwrap(), Progress::Done);
        }
        let expected = [range(-10, 10, 2, Some(true)), range(0, 20, 4, Some(true))];
        assert_eq!(clocked.at(1_100).written(), expected);
        assert!(clocked.at(1_200).written().is_empty());
        clocked.rows_at("a", &[7]);
        assert_eq!(clocked.at(1_300).written().len(), 2, "what changes from then on is known");
    }
}

#[test]
fn a_closing_that_is_cut_makes_its_refinements_of_whole_windows_after_a_restart() {
    let window = overlapping();
    let mut clocked = begun(&window);
    clocked.rows_at("a", &[-5, 5, 15]).rows_at("b", &[-5, 5, 15, 25]);
    clocked.written();
    clocked.rows_at("a", &[-4, 6]).rows_at("b", &[6]);
    // A row a call: with this one several windows close at once.
    clocked.staged = Staged::new(usize::MAX, usize::MAX).with_rows_per_call(1);
    clocked.staged.tell_time(1_000);
    let batch = Batch::new(vec![order("c", "1", 50)]);
    let progress = clocked.pipeline.process(batch.record(0), &Bump::new(), &mut clocked.staged).unwrap();
    assert_eq!(progress, Progress::Full);
    assert_eq!(clocked.written(), [range(-20, 0, 2, Some(true))]);
    let mut other = restarted(&window, &mut clocked, usize::MAX, 1_000);
    assert_eq!(other.pipeline.resume(&Bump::new(), &mut other.staged).unwrap(), Progress::Done);
    let rows = other.written();
    let refinements: Vec<&String> = rows.iter().filter(|row| row.contains("\"mark\":true")).collect();
    let of = |start_ms, a, b| {
        let end_ms = start_ms + 20;
        [range(start_ms, end_ms, a, Some(true)), of_b(range(start_ms, end_ms, b, Some(true)))]
    };
    assert_eq!(
        refinements,
        [of(-20, 2, 1), of(-10, 4, 3), of(0, 3, 3)].as_flattened().iter().collect::<Vec<_>>()
    );
}

#[test]
fn the_end_of_a_bounded_run_that_is_cut_makes_refinements_of_whole_windows_after_a_restart() {
    // The run stops with the first row of the last window.
    for (windows, calls) in [(sliding(20, 10), 3), (session(10), 1)] {
        let window = Windowed { windows, ..refined() };
        let mut clocked = begun(&window);
        clocked.rows_at("a", &[-5]).rows_at("b", &[-5]).rows_at("a", &[5]).rows_at("b", &[5]);
        let mut all = clocked.written();
        clocked.staged = Staged::new(usize::MAX, usize::MAX).with_rows_per_call(1);
        for _ in 0..calls {
            assert_eq!(clocked.pipeline.finish(&Bump::new(), &mut clocked.staged).unwrap(), Progress::Full);
        }
        all.extend(clocked.written());
        let mut other = restarted(&window, &mut clocked, usize::MAX, 1_000);
        assert_eq!(other.pipeline.resume(&Bump::new(), &mut other.staged).unwrap(), Progress::Done);
        assert_eq!(other.pipeline.finish(&Bump::new(), &mut other.staged).unwrap(), Progress::Done);
        all.extend(other.written());
        let (refinements, on_time): (Vec<String>, Vec<String>) =
            all.into_iter().partition(|row| row.contains("\"mark\":true"));
        for row in refinements {
            assert!(on_time.contains(&row.replace("true", "false")), "{row} beside {on_time:?}");
        }
    }
}

#[test]
fn the_end_of_a_bounded_run_goes_on_where_it_was_when_the_clock_has_gone_on() {
    for windows in [tumbling(10), sliding(20, 10), session(10)] {
        let window = Windowed { windows, ..refined() };
        let mut clocked = begun(&window);
        for key in ["a", "b", "c"] {
            clocked.rows_at(key, &[5]);
        }
        clocked.rows_at("d", &[25]);
        let mut other = restarted(&window, &mut clocked, 1, 1_000);
        let mut rows = Vec::new();
        while other.pipeline.finish(&Bump::new(), &mut other.staged).unwrap() == Progress::Full {
            rows.extend(other.written());
            other.staged.tell_time(1_001);
            assert_eq!(other.pipeline.resume(&Bump::new(), &mut other.staged).unwrap(), Progress::Done);
            assert!(rows.len() < 100, "{rows:?}");
        }
        rows.extend(other.written());
        let all = rows.len();
        rows.sort();
        rows.dedup();
        assert_eq!(rows.len(), all, "{rows:?}");
    }
}

/// Sessions with a gap of ten milliseconds that take rows until 20 behind their ends.
fn sessions() -> Windowed {
    Windowed { windows: session(10), allowed_lateness_ms: 20, ..refined() }
}

#[test]
fn a_session_that_has_fired_is_refined_as_what_it_has_become() {
    let mut clocked = begun(&sessions());
    clocked.rows_at("a", &[1, 3]).rows_at("b", &[18]);
    assert_eq!(clocked.written(), [range(1, 13, 2, Some(false))]);
    // It grows within what has fired, twice: the last one counts.
    clocked.rows_at("a", &[4, 7]);
    assert_eq!(clocked.at(1_100).written(), [range(1, 17, 4, Some(true))]);
    assert!(clocked.at(1_200).written().is_empty());
    // It grows beyond: it is due again by itself, and nothing is outstanding.
    clocked.rows_at("a", &[2, 14]);
    assert!(clocked.at(1_300).written().is_empty());
    clocked.rows_at("b", &[24]);
    assert_eq!(clocked.written(), [range(1, 24, 6, Some(false))]);
    clocked.rows_at("a", &[2]);
    assert_eq!(clocked.at(1_400).written(), [range(1, 24, 7, Some(true))]);
}

#[test]
fn a_row_that_joins_sessions_that_have_fired_refines_the_one_that_they_are() {
    let mut clocked = begun(&sessions());
    clocked.rows_at("a", &[1, 18]).rows_at("b", &[28]);
    assert_eq!(clocked.written(), [range(1, 11, 1, Some(false)), range(18, 28, 1, Some(false))]);
    clocked.rows_at("a", &[2, 19, 10]);
    // All of it ends at 29: it is due then.
    assert!(clocked.at(1_100).written().is_empty());
    clocked.rows_at("b", &[29]);
    assert_eq!(clocked.written(), [range(1, 29, 5, Some(false))]);
    let mut clocked = begun(&sessions());
    clocked.rows_at("a", &[1, 18]).rows_at("b", &[28]);
    clocked.written();
    clocked.rows_at("a", &[2, 10]);
    assert_eq!(clocked.at(1_100).written(), [range(1, 28, 4, Some(true))], "and none of those that it was");
}

#[test]
fn a_session_closes_with_all_its_rows_told_whatever_lies_with_it() {
    let window = Windowed { allowed_lateness_ms: 5, ..sessions() };
    for is_restarted in [false, true] {
        let mut clocked = begun(&window);
        // All lie between 10 and 20: a ends at 12, b at 14, c at 19.
        clocked.rows_at("a", &[1]).rows_at("b", &[3]).rows_at("c", &[9]).rows_at("d", &[15]);
        clocked.written();
        clocked.rows_at("a", &[2]).rows_at("b", &[4]);
        if is_restarted {
            clocked = restarted(&window, &mut clocked, usize::MAX, 1_050);
            assert_eq!(clocked.pipeline.resume(&Bump::new(), &mut clocked.staged).unwrap(), Progress::Done);
        }
        let (of_a, of_b) = (range(1, 12, 2, Some(true)), of_b(range(3, 14, 2, Some(true))));
        clocked.rows_at("d", &[16]);
        clocked.rows_at("d", &[17]);
        let rows = clocked.written();
        // Who does not know makes them of all that lies there at once.
        assert_eq!(rows[..], [of_a, of_b.clone()][..1 + usize::from(is_restarted)]);
        clocked.rows_at("b", &[3]);
        clocked.rows_at("d", &[19]);
        let rows = clocked.written();
        assert_eq!(rows[0], of_b.replace("\"rows\":2", "\"rows\":3"), "{rows:?}");
        assert_eq!(rows.len(), 2, "and c on time: {rows:?}");
    }
}

#[test]
fn a_session_that_has_closed_is_not_told_of_again() {
    let window = Windowed { allowed_lateness_ms: 5, ..sessions() };
    let mut clocked = begun(&window);
    // Both lie between 10 and 20, and that of a has closed.
    clocked.rows_at("a", &[1]).rows_at("b", &[3]).rows_at("c", &[16]);
    assert_eq!(clocked.written().len(), 2);
    let mut other = restarted(&window, &mut clocked, usize::MAX, 1_050);
    assert_eq!(other.pipeline.resume(&Bump::new(), &mut other.staged).unwrap(), Progress::Done);
    assert_eq!(other.at(1_100).written(), [of_b(range(3, 13, 1, Some(true)))]);
}

#[test]
fn a_session_that_grows_and_grows_is_noted_once() {
    let window = Windowed { allowed_lateness_ms: 100_000, ..sessions() };
    let mut clocked = begun(&window);
    clocked.rows_at("a", &[1]).rows_at("b", &[1]).rows_at("c", &[50_000]);
    assert_eq!(clocked.written().len(), 2);
    // More often than is remembered.
    let times: Vec<i64> = (2..16_500).collect();
    clocked.rows_at("a", &times);
    assert_eq!(clocked.at(1_100).written(), [range(1, 16_509, 16_499, Some(true))], "and none of b");
}
