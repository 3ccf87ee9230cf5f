//! Refinements by the clock.

use super::processing::{Clocked, pipeline};
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
