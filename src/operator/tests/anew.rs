//! Windows that begin anew with the rows that they make on time and behind it.

use proptest::collection::vec;
use proptest::prelude::*;

use super::processing::{Clocked, pipeline};
use super::window::range;
use super::*;

/// Windows that take rows until 30 behind their ends, and begin anew with each of theirs.
fn anew(windows: Windows) -> Windowed {
    let emit = EmitRows::OnTime;
    Windowed { windows, emit, purge: true, allowed_lateness_ms: 30, ..Windowed::new("w") }
}

/// The same, but refinements come at multiples of a hundred of the clock.
fn by_clock(windows: Windows) -> Windowed {
    Windowed { refine_every_ms: Some(100), ..anew(windows) }
}

fn restarted(window: &Windowed, mut clocked: Clocked) -> Clocked {
    let mut other = pipeline(window);
    hand_over(&mut *clocked.pipeline, &mut *other, |_| {});
    Clocked { pipeline: other, staged: clocked.staged }
}

#[test]
fn a_refinement_is_of_what_came_late() {
    for windows in [tumbling(10), session(9)] {
        let window = anew(windows.clone());
        let mut clocked = Clocked::new(&window);
        let (start_ms, end_ms) = if windows == tumbling(10) { (0, 10) } else { (1, 11) };
        clocked.rows_at("a", &[1, 2]).rows_at("b", &[15]);
        assert_eq!(clocked.written(), [range(start_ms, end_ms, 2, Some(false))]);
        assert_eq!(clocked.rows_at("a", &[2]).written(), [range(start_ms, end_ms, 1, Some(true))]);
        let mut clocked = restarted(&window, clocked);
        assert_eq!(clocked.rows_at("a", &[1]).written(), [range(start_ms, end_ms, 1, Some(true))]);
        // It closes, and there is nothing more to tell.
        clocked.rows_at("c", &[100]);
        assert_eq!(clocked.written().len(), 1, "that of b");
    }
}

#[test]
fn a_session_that_has_begun_anew_goes_on_where_it_was() {
    let mut clocked = Clocked::new(&anew(session(10)));
    clocked.rows_at("a", &[1, 5]).rows_at("b", &[20]);
    assert_eq!(clocked.written(), [range(1, 15, 2, Some(false))]);
    // It lasts longer, and makes a row when it ends again: of what has come since.
    assert!(clocked.rows_at("a", &[12, 12]).written().is_empty());
    assert_eq!(clocked.rows_at("b", &[22]).written(), [range(1, 22, 2, Some(false))]);
    assert_eq!(clocked.rows_at("a", &[0]).written(), [range(0, 22, 1, Some(true))]);
}

#[test]
fn early_rows_on_time_rows_and_refinements_add_up() {
    for windows in [tumbling(20), session(19)] {
        let early = Some(EarlyFiring::EveryRows(2));
        let mut clocked = Clocked::new(&Windowed { early, ..anew(windows.clone()) });
        let counts = |rows: Vec<String>| -> Vec<String> {
            rows.iter().map(|row| row[row.find(r#""rows""#).unwrap()..].replace(r#""rows":"#, "")).collect()
        };
        clocked.rows_at("a", &[1, 1, 1]);
        assert_eq!(counts(clocked.written()), ["2,\"early\":true,\"mark\":false}"]);
        clocked.rows_at("b", &[20]);
        assert_eq!(counts(clocked.written()), ["1,\"early\":false,\"mark\":false}"]);
        clocked.rows_at("a", &[1, 1]);
        assert_eq!(counts(clocked.written()), ["1,\"early\":false,\"mark\":true}"; 2]);
        // Where all has been told early there is no row on time.
        clocked.rows_at("b", &[20]).written();
        assert!(clocked.rows_at("c", &[40]).written().is_empty());
    }
}

#[test]
fn refinements_by_the_clock_are_of_what_has_come_since() {
    for windows in [tumbling(10), session(9)] {
        let (window, start_ms, end_ms) = match windows {
            Windows::Session(_) => (by_clock(windows), 1, 11),
            _ => (by_clock(windows), 0, 10),
        };
        let row = |rows, refines| range(start_ms, end_ms, rows, Some(refines));
        let mut clocked = Clocked::new(&window);
        clocked.at(1_000).rows_at("a", &[1, 1]).rows_at("b", &[2, 15]);
        assert_eq!(clocked.written().len(), 2);
        clocked.rows_at("a", &[1, 2, 2]).at(1_099);
        assert!(clocked.written().is_empty());
        assert_eq!(clocked.at(1_100).written(), [row(3, true)]);
        clocked.rows_at("a", &[2]);
        // Another process makes one of what is outstanding, and of nothing else.
        let mut clocked = restarted(&window, clocked);
        clocked.staged.tell_time(1_150);
        assert_eq!(clocked.pipeline.resume(&Bump::new(), &mut clocked.staged).unwrap(), Progress::Done);
        assert_eq!(clocked.at(1_200).written(), [row(1, true)]);
        // So does a window that closes.
        clocked.rows_at("a", &[1]).rows_at("c", &[60]);
        let rows = clocked.written();
        assert_eq!(rows[0], row(1, true), "{rows:?}");
        assert!(rows.iter().all(|row| !row.contains("\"b\"") || row.contains(":false")), "{rows:?}");
    }
}

/// A row at a time, or the clock, or another process, which there is once: it goes on where a call was full, too.
#[derive(Clone, Debug)]
enum Step {
    Row(&'static str, i64),
    Clock,
    Restart { when_full: bool },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let row = (prop_oneof![Just("a"), Just("b")], 0..80_i64).prop_map(|(key, at_ms)| Step::Row(key, at_ms));
    vec(
        prop_oneof![6 => row, 2 => Just(Step::Clock), 1 => any::<bool>().prop_map(|when_full| Step::Restart { when_full })],
        0..50,
    )
}

proptest! {
    #[test]
    fn each_row_counts_once_whenever_its_window_begins_anew(
        windows in prop_oneof![Just(tumbling(10)), Just(session(3)), Just(session(8))],
        early in prop_oneof![
            Just(None),
            Just(Some(EarlyFiring::EveryRows(2))),
            Just(Some(EarlyFiring::EveryMs(5, TimeDomain::Event))),
            Just(Some(EarlyFiring::EveryMs(100, TimeDomain::Processing))),
        ],
        emit in prop_oneof![Just(EmitRows::OnClose), Just(EmitRows::OnTime)],
        refines in any::<bool>(),
        rows_per_call in 1..4_usize,
        steps in steps(),
    ) {
        let refine_every_ms = refines.then_some(100);
        let window = Windowed { early, emit, refine_every_ms, ..anew(windows) };
        let mut clocked = Clocked::new(&window);
        let (mut clock_ms, mut rows, mut counted, mut late) = (1_000, 0, 0, 0);
        let (mut is_first, mut dies_when_full) = (true, false);
        clocked.staged = Staged::new(usize::MAX, usize::MAX).with_rows_per_call(rows_per_call);
        clocked.staged.tell_time(clock_ms);
        let mut is_over = steps.is_empty();
        let mut steps = steps.into_iter();
        while !is_over {
            let progress = match steps.next() {
                Some(Step::Row(key, at_ms)) => {
                    rows += 1;
                    let batch = Batch::new(vec![order(key, "1", at_ms)]);
                    clocked.pipeline.process(batch.record(0), &Bump::new(), &mut clocked.staged)
                }
                Some(Step::Clock) => {
                    clock_ms += 60;
                    clocked.staged.tell_time(clock_ms);
                    clocked.pipeline.resume(&Bump::new(), &mut clocked.staged)
                }
                Some(Step::Restart { when_full }) => {
                    dies_when_full |= is_first && when_full;
                    if std::mem::take(&mut is_first) && !when_full {
                        clocked = restarted(&window, clocked);
                    }
                    clocked.pipeline.resume(&Bump::new(), &mut clocked.staged)
                }
                None => {
                    is_over = true;
                    clocked.pipeline.finish(&Bump::new(), &mut clocked.staged)
                }
            };
            let mut progress = progress.unwrap();
            while progress == Progress::Full {
                if std::mem::take(&mut dies_when_full) {
                    clocked = restarted(&window, clocked);
                }
                progress = match is_over {
                    true => clocked.pipeline.finish(&Bump::new(), &mut clocked.staged).unwrap(),
                    false => clocked.pipeline.resume(&Bump::new(), &mut clocked.staged).unwrap(),
                };
            }
            late += clocked.staged.counters.late.get("w").copied().unwrap_or(0);
            for row in clocked.written() {
                let count = row.split_once(r#""rows":"#).unwrap().1.split([',', '}']).next().unwrap();
                let count: u64 = count.parse().unwrap();
                prop_assert!(count > 0, "{row}");
                counted += count;
            }
        }
        prop_assert_eq!(counted + late, rows);
    }
}
