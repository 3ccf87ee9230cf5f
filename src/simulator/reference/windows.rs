//! Which windows there are, by their definitions.

use crate::simulator::generate::{Shape, Window, ZONES};
use crate::window::CalendarUnit;

/// The ends of the windows that an instant lies in, in ascending order.
pub(super) fn ends(window: &Window, time_ms: i64) -> Vec<i64> {
    let (size_ms, since_ms) = (window.size_ms, time_ms - window.offset_ms);
    let ends = match window.shape {
        Shape::Tumbling => vec![since_ms.div_euclid(size_ms) * size_ms + size_ms],
        Shape::Sliding { slide_ms } => {
            let mut ends = Vec::new();
            // The last that begins before or at the instant, and those before it.
            let mut start_ms = since_ms.div_euclid(slide_ms) * slide_ms;
            while start_ms + size_ms > since_ms {
                ends.insert(0, start_ms + size_ms);
                start_ms -= slide_ms;
            }
            ends
        }
        Shape::Cumulative { step_ms } => {
            let start_ms = since_ms.div_euclid(size_ms) * size_ms;
            let ends = (1..=size_ms / step_ms).map(|step| start_ms + step * step_ms);
            ends.filter(|end_ms| *end_ms > since_ms).collect()
        }
        Shape::Calendar { unit, zone } => vec![units(unit, zone, time_ms).1],
        Shape::Session => Vec::new(),
    };
    ends.into_iter().map(|end_ms| end_ms + window.offset_ms).collect()
}

/// The begin of the window that ends at `end_ms`.
pub(super) fn start(window: &Window, end_ms: i64) -> i64 {
    match window.shape {
        Shape::Tumbling | Shape::Sliding { .. } | Shape::Session => end_ms - window.size_ms,
        Shape::Cumulative { .. } => {
            let last_ms = end_ms - 1 - window.offset_ms;
            last_ms.div_euclid(window.size_ms) * window.size_ms + window.offset_ms
        }
        Shape::Calendar { unit, zone } => units(unit, zone, end_ms - 1).0,
    }
}

/// The number of the part of time that an instant lies in: no window begins or ends within one.
pub(super) fn part(window: &Window, time_ms: i64) -> i64 {
    let since_ms = time_ms - window.offset_ms;
    match window.shape {
        Shape::Tumbling | Shape::Session => since_ms.div_euclid(window.size_ms),
        // How many have begun, and how many have ended.
        Shape::Sliding { slide_ms } => {
            since_ms.div_euclid(slide_ms) + (since_ms - window.size_ms).div_euclid(slide_ms)
        }
        Shape::Cumulative { step_ms } => since_ms.div_euclid(step_ms),
        Shape::Calendar { unit, zone } => units(unit, zone, time_ms).0,
    }
}

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// How far the zones of generated windows are ahead of UTC, in the same order.
const AHEAD_MS: [i64; ZONES.len()] = [HOUR_MS, HOUR_MS, 0, 5 * HOUR_MS + 45 * 60_000];

/// When clocks in Berlin are an hour further ahead: the only ones that are changed. No day begins with a change.
const SUMMERS_MS: [(i64, i64); 3] = [
    (1_679_792_400_000, 1_698_541_200_000),
    (1_711_846_800_000, 1_729_990_800_000),
    (1_743_296_400_000, 1_761_440_400_000),
];

fn summer_ms(zone: usize, time_ms: i64) -> i64 {
    let is_summer = SUMMERS_MS.iter().any(|(from_ms, to_ms)| (*from_ms..*to_ms).contains(&time_ms));
    if ZONES[zone] == "Europe/Berlin" && is_summer { HOUR_MS } else { 0 }
}

/// The begin and the end of the unit that an instant lies in.
fn units(unit: CalendarUnit, zone: usize, time_ms: i64) -> (i64, i64) {
    let day = (time_ms + AHEAD_MS[zone] + summer_ms(zone, time_ms)).div_euclid(DAY_MS);
    let begin_ms = |day: i64| {
        let winter_ms = day * DAY_MS - AHEAD_MS[zone];
        winter_ms - summer_ms(zone, winter_ms - HOUR_MS)
    };
    let (first, next) = unit_of(unit, day);
    (begin_ms(first), begin_ms(next))
}

/// The first day of the unit that has a day, and that of the next one; days are counted from 1970-01-01, a Thursday.
fn unit_of(unit: CalendarUnit, day: i64) -> (i64, i64) {
    let months = match unit {
        CalendarUnit::Day => return (day, day + 1),
        CalendarUnit::Week => {
            let monday = day - (day + 3).rem_euclid(7);
            return (monday, monday + 7);
        }
        CalendarUnit::Month => 1,
        CalendarUnit::Quarter => 3,
        CalendarUnit::Year => 12,
    };
    let (mut first, mut month) = (0, 0);
    loop {
        let next = first + (month..month + months).map(days_of_month).sum::<i64>();
        if day < next {
            return (first, next);
        }
        (first, month) = (next, month + months);
    }
}

/// Of the month with this number since January 1970; years that are divisible by four are leap years until 2100.
fn days_of_month(month: i64) -> i64 {
    match month % 12 {
        1 if (1970 + month / 12) % 4 == 0 => 29,
        1 => 28,
        3 | 5 | 8 | 10 => 30,
        _ => 31,
    }
}
