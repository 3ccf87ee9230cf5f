//! Windows of a calendar.

use super::window::{at, range, run_window};
use super::*;
use crate::window::{Calendar, CalendarUnit};

const HOUR_MS: i64 = 3_600_000;
/// 2024-03-31T00:00Z; in Berlin clocks are put forward at one.
const MARCH_MS: i64 = 1_711_843_200_000;
/// 2024-07-01T00:00Z.
const JULY_MS: i64 = 1_719_792_000_000;

pub(in crate::operator) fn days(zone: &str) -> Windows {
    Windows::Calendar(Calendar::new(CalendarUnit::Day, zone).unwrap())
}

fn hours(from_ms: i64, hours: &[i64]) -> Vec<i64> {
    hours.iter().map(|hour| from_ms + hour * HOUR_MS).collect()
}

#[test]
fn a_day_may_have_23_hours() {
    let window = Windowed { windows: days("Europe/Berlin"), ..Windowed::new("w") };
    let staged = run_window(&window, at(&hours(MARCH_MS, &[-2, -1, 0, 21, 22, 45, 46])));
    let bounds = hours(MARCH_MS, &[-25, -1, 22, 46]);
    let expected =
        [(0, 1), (1, 3), (2, 2)].map(|(day, rows)| range(bounds[day], bounds[day + 1], rows, None));
    assert_eq!(written(&staged, "out"), expected);
}

#[test]
fn a_day_takes_late_rows_and_refines_its_own() {
    let windows = days("Europe/Berlin");
    let late = LateRecords::Write(target("late"));
    let allowed_lateness_ms = HOUR_MS;
    let window =
        Windowed { windows, emit: EmitRows::OnTime, allowed_lateness_ms, late, ..Windowed::new("w") };
    let mut times = hours(MARCH_MS, &[0, 22, 21, 23, 21]);
    times[3] -= 1;
    times.extend(hours(MARCH_MS, &[23, 20]));
    let staged = run_window(&window, at(&times));
    let day = |rows, refined| range(MARCH_MS - HOUR_MS, MARCH_MS + 22 * HOUR_MS, rows, Some(refined));
    assert_eq!(written(&staged, "out"), [day(1, false), day(2, true), day(3, true)]);
    assert_eq!(staged.counters.late, [("w".into(), 1)].into());
}

/// Days of a zone that come to end an hour before or after they did, as they would with another version of the database
/// of time zones: what counted before fires where it was to, what comes counts by the new ends.
#[test]
fn days_that_end_at_other_times_than_they_did_lose_nothing_and_count_nothing_twice() {
    for (zone, end) in [("Europe/Athens", 21), ("Europe/London", 23)] {
        for (emit, mark) in [(EmitRows::OnClose, None), (EmitRows::OnTime, Some(false))] {
            let window = |zone| Windowed { windows: days(zone), emit, ..Windowed::new("w") };
            let made = |window: &Windowed| {
                let schema = orders();
                source(0, vec![window.reads(&schema, vec![sink(&window.schema(&schema), "out")])])
            };
            let (mut before, mut after) = (made(&window("Europe/Berlin")), made(&window(zone)));
            start(&mut *before);
            let staged = go_on(&mut *before, at(&hours(JULY_MS, &[12, 20]))).unwrap();
            assert!(written(&staged, "out").is_empty());
            hand_over(&mut *before, &mut *after, |_| ());
            let mut rows_after = |hour| {
                let staged = go_on(&mut *after, at(&hours(JULY_MS, &[hour]))).unwrap();
                assert!(staged.counters.late.is_empty());
                written(&staged, "out")
            };
            let day =
                |end: i64, rows| range(JULY_MS + (end - 24) * HOUR_MS, JULY_MS + end * HOUR_MS, rows, mark);
            let old = {
                let (start_ms, end_ms) = (JULY_MS + (end - 24) * HOUR_MS, JULY_MS + 22 * HOUR_MS);
                range(start_ms, end_ms, 2, mark)
            };
            assert!(rows_after(20).is_empty());
            let (at_21, at_22, at_23) = (rows_after(21), rows_after(22), rows_after(23));
            assert_eq!(at_22, [old], "{zone}");
            if end == 21 {
                assert_eq!((at_21, at_23), (vec![day(21, 1)], vec![]));
                assert_eq!(rows_after(45), [day(45, 3)]);
            } else {
                assert_eq!((at_21, at_23), (vec![], vec![day(23, 3)]));
                assert_eq!(rows_after(47), [day(47, 1)]);
            }
        }
    }
}
