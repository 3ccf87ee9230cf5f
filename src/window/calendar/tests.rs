//! Units of calendars against the days of their zones, walked minute by minute.

use proptest::prelude::*;

use super::*;
use CalendarUnit::{Day, Month, Quarter, Week, Year};

const MINUTE_MS: i64 = 60_000;
const UNITS: [CalendarUnit; 5] = [Day, Week, Month, Quarter, Year];
/// With ordinary and with odd changes of their clocks.
const ZONES: [&str; 12] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo",
    "America/St_Johns",
    "America/Havana",
    "Asia/Kathmandu",
    "Asia/Beirut",
    "Africa/Cairo",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Pacific/Kiritimati",
];

fn calendar(unit: CalendarUnit, zone: &str) -> Calendar {
    Calendar::new(unit, zone).unwrap()
}

fn ms(instant: &str) -> i64 {
    instant.parse::<Timestamp>().unwrap().as_millisecond()
}

/// The first minute of a day, or of the first one after it that a zone has.
fn first_minute(zone: &TimeZone, day: Date) -> i64 {
    let utc_ms = TimeZone::UTC.to_timestamp(day.to_datetime(Time::midnight())).unwrap().as_millisecond();
    let minutes = (-30 * 60..30 * 60).map(|minute| utc_ms + minute * MINUTE_MS);
    let mut reached =
        minutes.filter(|at_ms| zone.to_datetime(Timestamp::from_millisecond(*at_ms).unwrap()).date() >= day);
    reached.next().unwrap()
}

/// What days of one unit have in common.
fn label(unit: CalendarUnit, day: Date) -> (i16, i8, i8) {
    match unit {
        Day => (day.year(), day.month(), day.day()),
        Week => (day.iso_week_date().year(), day.iso_week_date().week(), 0),
        Month => (day.year(), day.month(), 0),
        Quarter => (day.year(), (day.month() + 2) / 3, 0),
        Year => (day.year(), 0, 0),
    }
}

fn by_walking(unit: CalendarUnit, zone: &TimeZone, time_ms: i64) -> WindowRange {
    let mut day = zone.to_datetime(Timestamp::from_millisecond(time_ms).unwrap()).date();
    loop {
        let (mut first, mut next) = (day, day.tomorrow().unwrap());
        while label(unit, first.yesterday().unwrap()) == label(unit, day) {
            first = first.yesterday().unwrap();
        }
        while label(unit, next) == label(unit, day) {
            next = next.tomorrow().unwrap();
        }
        let range = WindowRange { start_ms: first_minute(zone, first), end_ms: first_minute(zone, next) };
        if range.contains(time_ms) {
            return range;
        }
        day = next;
    }
}

proptest! {
    #[test]
    fn units_are_those_of_the_zones_days(
        unit in prop::sample::select(&UNITS[..]),
        zone in prop::sample::select(&ZONES[..]),
        time_ms in ms("1973-01-01T00:00:00Z")..ms("2060-01-01T00:00:00Z"),
    ) {
        let calendar = calendar(unit, zone);
        prop_assert_eq!(calendar.range(time_ms), by_walking(unit, &calendar.zone, time_ms));
        // Around where clocks are changed, too.
        let at = Timestamp::from_millisecond(time_ms).unwrap();
        let change_ms = calendar.zone.following(at).next().map(|change| change.timestamp().as_millisecond());
        let around = change_ms.filter(|change_ms| *change_ms < ms("2060-01-01T00:00:00Z"));
        for near_ms in around.into_iter().flat_map(|at_ms| [-1_500, -1, 0, 30, 1_500].map(|by| at_ms + by * MINUTE_MS)) {
            prop_assert_eq!(calendar.range(near_ms), by_walking(unit, &calendar.zone, near_ms));
        }
    }

    #[test]
    fn what_is_remembered_is_what_the_calendar_says(
        days in prop::collection::vec((-30..30_i64, -2..2_i64), 1..60),
    ) {
        let windows = CalendarWindows::new(calendar(Day, "Europe/Berlin"));
        for (days, millis) in days {
            let time_ms = ms("2024-03-31T22:00:00Z") + days * 24 * 60 * MINUTE_MS + millis;
            let expected = windows.calendar.range(time_ms);
            prop_assert_eq!(windows.pane_end(time_ms), expected.end_ms);
            prop_assert_eq!(windows.next_end_after(time_ms), expected.end_ms);
            prop_assert_eq!(windows.ending_at(expected.end_ms), expected);
            prop_assert_eq!(windows.panes(expected), expected.end_ms..=expected.end_ms);
            prop_assert_eq!(windows.ends(expected.end_ms).collect::<Vec<_>>(), [expected.end_ms]);
            prop_assert_eq!(windows.next_end(expected.end_ms, expected.end_ms), None);
        }
    }
}

#[test]
fn units_begin_with_their_first_instant() {
    let cases = [
        // Of 23 and of 25 hours.
        (Day, "Europe/Berlin", "2024-03-31T12:00:00Z", "2024-03-30T23:00:00Z", "2024-03-31T22:00:00Z"),
        (Day, "Europe/Berlin", "2024-10-27T12:00:00Z", "2024-10-26T22:00:00Z", "2024-10-27T23:00:00Z"),
        // Without midnight, and with two.
        (Day, "America/Sao_Paulo", "2018-11-04T12:00:00Z", "2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z"),
        (Day, "America/Havana", "2024-11-03T12:00:00Z", "2024-11-03T04:00:00Z", "2024-11-04T05:00:00Z"),
        // Clocks are put forward from half past eleven to half past twelve.
        (Day, "America/Toronto", "1919-03-31T12:00:00Z", "1919-03-31T04:30:00Z", "1919-04-01T04:00:00Z"),
        // From midnight they are put back to eleven, to a day that is not over then.
        (Day, "America/Sao_Paulo", "2018-02-18T02:30:00Z", "2018-02-17T02:00:00Z", "2018-02-18T03:00:00Z"),
        // From a minute past midnight, to a day that is over.
        (Day, "America/St_Johns", "2006-10-29T02:29:00Z", "2006-10-28T02:30:00Z", "2006-10-29T02:30:00Z"),
        (Day, "America/St_Johns", "2006-10-29T02:45:00Z", "2006-10-29T02:30:00Z", "2006-10-30T03:30:00Z"),
        // The 29th and the 31st: there is no day between them.
        (Day, "Pacific/Apia", "2011-12-30T09:59:59Z", "2011-12-29T10:00:00Z", "2011-12-30T10:00:00Z"),
        (Day, "Pacific/Apia", "2011-12-30T10:00:00Z", "2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z"),
        (Week, "Europe/Berlin", "2024-12-31T12:00:00Z", "2024-12-29T23:00:00Z", "2025-01-05T23:00:00Z"),
        (Month, "Asia/Kolkata", "2024-02-29T12:00:00Z", "2024-01-31T18:30:00Z", "2024-02-29T18:30:00Z"),
        (Quarter, "America/New_York", "2024-03-10T12:00:00Z", "2024-01-01T05:00:00Z", "2024-04-01T04:00:00Z"),
        (Year, "Pacific/Auckland", "2023-12-31T12:00:00Z", "2023-12-31T11:00:00Z", "2024-12-31T11:00:00Z"),
        (Year, "UTC", "1969-12-31T23:59:59.999Z", "1969-01-01T00:00:00Z", "1970-01-01T00:00:00Z"),
    ];
    for (unit, zone, at, start, end) in cases {
        let range = calendar(unit, zone).range(ms(at));
        let expected = WindowRange { start_ms: ms(start), end_ms: ms(end) };
        assert_eq!(range, expected, "{unit:?} in {zone} at {at}");
    }
}

#[test]
fn every_instant_has_a_unit() {
    for (unit, zone) in UNITS.iter().flat_map(|unit| ZONES.iter().map(move |zone| (unit, zone))) {
        let calendar = calendar(*unit, zone);
        let millennium_ms = 31_556_952_000_000;
        let times = (-12..12).map(|number| number * millennium_ms);
        let edges =
            [i64::MIN, Timestamp::MIN.as_millisecond(), Timestamp::MAX.as_millisecond(), END_MS - 1, END_MS];
        for time_ms in times.chain(edges) {
            let range = calendar.range(time_ms);
            assert!(range.contains(time_ms), "{unit:?} in {zone}: {range:?} at {time_ms}");
            assert!(range.end_ms >= END_MS || !calendar.range(range.end_ms).contains(range.end_ms - 1));
        }
        let last_ms = calendar.range(END_MS - 1).start_ms;
        assert!(last_ms < END_MS && last_ms > END_MS - 367 * 24 * 60 * MINUTE_MS, "{unit:?} in {zone}");
    }
}

#[test]
fn an_end_that_is_none_any_more_is_that_of_the_window_whose_end_is_nearest() {
    let windows = CalendarWindows::new(calendar(Day, "Europe/Berlin"));
    let day = |end: &str| windows.ending_at(ms(end)).start_ms;
    let (start_ms, hours) = (ms("2024-07-01T22:00:00Z"), ["21:00", "22:00", "23:00"]);
    for hour in hours {
        assert_eq!(day(&format!("2024-07-02T{hour}:00Z")), start_ms, "{hour}");
    }
}

#[test]
fn all_zones_are_known_by_their_exact_names() {
    for zone in Calendar::time_zones() {
        assert_eq!(calendar(Day, zone).time_zone(), zone);
    }
    assert!(["Europe/berlin", "Europe/Bonn", ""].iter().all(|zone| Calendar::new(Day, zone).is_none()));
}

#[test]
fn the_documentation_names_the_version_of_the_database() {
    let version = format!("`{}`", Calendar::database_version());
    let docs = std::fs::read_to_string("docs/topology-files.md").unwrap();
    assert!(docs.contains(&version), "it is {version}");
}
