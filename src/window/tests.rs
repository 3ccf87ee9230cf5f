//! Windows against their definitions, instant by instant.

use proptest::prelude::*;

use super::*;

/// All windows around the epoch that begin before `to_ms` and end after `from_ms`, by definition.
fn by_definition(kind: WindowKind, offset_ms: i64, from_ms: i64, to_ms: i64) -> Vec<WindowRange> {
    let mut windows = Vec::new();
    for number in -200..200_i64 {
        match kind {
            WindowKind::Tumbling { size_ms: size } => {
                let start_ms = number * size + offset_ms;
                windows.push(WindowRange { start_ms, end_ms: start_ms + size });
            }
            WindowKind::Sliding { size_ms, slide_ms } => {
                let start_ms = number * slide_ms + offset_ms;
                windows.push(WindowRange { start_ms, end_ms: start_ms + size_ms });
            }
            WindowKind::Cumulative { size_ms, step_ms } => {
                let start_ms = number * size_ms + offset_ms;
                let ends = (1..=size_ms / step_ms).map(|steps| start_ms + steps * step_ms);
                windows.extend(ends.map(|end_ms| WindowRange { start_ms, end_ms }));
            }
        }
    }
    windows.retain(|window| window.start_ms < to_ms && window.end_ms > from_ms);
    windows.sort_by_key(|window| window.end_ms);
    windows
}

fn kind() -> impl Strategy<Value = WindowKind> {
    prop_oneof![
        (1..12_i64).prop_map(|size_ms| WindowKind::Tumbling { size_ms }),
        (1..12_i64, 1..12_i64).prop_map(|(size_ms, slide_ms)| WindowKind::Sliding { size_ms, slide_ms }),
        (1..6_i64, 1..4_i64)
            .prop_map(|(steps, step_ms)| WindowKind::Cumulative { size_ms: steps * step_ms, step_ms }),
    ]
}

proptest! {
    #[test]
    fn a_time_belongs_to_the_windows_of_its_pane(kind in kind(), offset_ms in -5..15_i64, time_ms in -60..60_i64) {
        let windows = AlignedWindows::new(kind).with_offset(offset_ms);
        prop_assert!(by_definition(kind, offset_ms, time_ms, time_ms + 1).len() as i64 <= windows.overlap());
        let pane_end_ms = windows.pane_end(time_ms);
        prop_assert!((windows.pane_start(pane_end_ms)..pane_end_ms).contains(&time_ms));
        let found: Vec<WindowRange> =
            windows.ends(pane_end_ms).map(|end_ms| windows.ending_at(end_ms)).collect();
        let expected = by_definition(kind, offset_ms, time_ms, time_ms + 1);
        prop_assert_eq!(&found, &expected);
        prop_assert_eq!(windows.last_end(pane_end_ms), expected.last().map(|window| window.end_ms));
        for after_ms in time_ms - 30..time_ms + 30 {
            let next = expected.iter().map(|window| window.end_ms).find(|end_ms| *end_ms > after_ms);
            prop_assert_eq!(windows.next_end(pane_end_ms, after_ms), next);
            let after = expected.iter().map(|window| window.end_ms).filter(|end_ms| *end_ms > after_ms);
            prop_assert_eq!(windows.ends_after(pane_end_ms, after_ms).collect::<Vec<_>>(), after.collect::<Vec<_>>());
        }
    }

    #[test]
    fn panes_are_the_longest_stretches_that_no_window_cuts(kind in kind(), offset_ms in 0..5_i64) {
        let windows = AlignedWindows::new(kind).with_offset(offset_ms);
        let around = by_definition(kind, offset_ms, -60, 60);
        for time_ms in -30..30 {
            let belongs = |time_ms: i64| {
                let has = |window: &&WindowRange| (window.start_ms..window.end_ms).contains(&time_ms);
                around.iter().filter(has).collect::<Vec<_>>()
            };
            let is_cut = belongs(time_ms) != belongs(time_ms - 1);
            let one_pane = windows.pane_end(time_ms) == windows.pane_end(time_ms - 1);
            // Between windows of one step there may be nothing; cumulative windows begin anew.
            prop_assert!(!(is_cut && one_pane), "{} is cut from the instant before", time_ms);
            if !is_cut && !one_pane {
                let touches = |window: &WindowRange| window.end_ms == time_ms || window.start_ms == time_ms;
                prop_assert!(around.iter().any(touches), "{} is another pane for nothing", time_ms);
            }
        }
    }

    #[test]
    fn of_two_windows_the_one_that_ends_first_begins_no_later(kind in kind(), offset_ms in 0..5_i64) {
        let windows = AlignedWindows::new(kind).with_offset(offset_ms);
        let mut end_ms = windows.next_end_after(-50);
        let mut starts = Vec::new();
        while end_ms < 50 {
            starts.push(windows.ending_at(end_ms).start_ms);
            end_ms = windows.next_end_after(end_ms);
        }
        prop_assert!(starts.is_sorted());
    }
}

#[test]
fn times_before_the_epoch_belong_to_windows_like_all_others() {
    let minutes = AlignedWindows::tumbling(60_000);
    assert_eq!(minutes.pane_end(-1), 0);
    assert_eq!(minutes.ending_at(0), WindowRange { start_ms: -60_000, end_ms: 0 });
}

#[test]
fn between_windows_there_are_gaps_if_they_begin_less_often_than_they_last() {
    let windows = AlignedWindows::sliding(10, 15);
    assert_eq!(windows.pane_end(12), 15);
    assert_eq!(windows.pane_end(7), 10);
    assert_eq!(windows.last_end(15), None);
    assert_eq!(windows.next_end(15, i64::MIN), None);
    assert_eq!(windows.ends(windows.pane_end(3)).collect::<Vec<_>>(), [10]);
}
