//! Windows: those that are aligned to the clock, with the panes that they share, those of a calendar, sessions, and those
//! that count records.

mod calendar;
mod count;
#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;

pub use calendar::{Calendar, CalendarUnit, CalendarWindows};
pub use count::{CountWindows, PaneOf};

/// A window's range of event time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowRange {
    /// Its first instant, in milliseconds since the Unix epoch.
    pub start_ms: i64,
    /// The first instant after it.
    pub end_ms: i64,
}

/// Whose time windows are cut from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TimeDomain {
    /// That of the records: windows close when the watermark says so.
    #[default]
    Event,
    /// That of the process's clock, on which a record happens when it is processed.
    Processing,
}

/// When a window that is not over makes a row of what it has so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EarlyFiring {
    /// So often, in milliseconds, by the watermark or by the process's clock, if something has changed.
    EveryMs(i64, TimeDomain),
    /// Whenever so many more records have come.
    EveryRows(i64),
    /// After each record of which a condition holds.
    When,
}

/// Windows that are known before any record comes: each is a row of panes, the longest stretches of time that no window
/// cuts.
///
/// A window is known by its end; of two windows the one that ends first begins no later. What is said of a pane holds for
/// those that [`pane_end`](PanedWindows::pane_end) names.
pub trait PanedWindows {
    /// How many windows an instant belongs to at most.
    fn overlap(&self) -> i64;

    /// The end of the pane that an event time belongs to.
    fn pane_end(&self, time_ms: i64) -> i64;

    /// Where the ends of a window's panes lie.
    fn panes(&self, window: WindowRange) -> RangeInclusive<i64>;

    /// The end of the last window that has the pane which ends at `pane_end_ms`; `None` if the pane lies in a gap
    /// between windows.
    fn last_end(&self, pane_end_ms: i64) -> Option<i64>;

    /// The end of the first window after `after_ms` that has the pane which ends at `pane_end_ms`; `None` if there
    /// is none.
    fn next_end(&self, pane_end_ms: i64, after_ms: i64) -> Option<i64>;

    /// The first instant after `after_ms` at which a window ends. [`i64::MAX`] if that is out of range.
    fn next_end_after(&self, after_ms: i64) -> i64;

    /// The ends of all windows that have the pane which ends at `pane_end_ms` and end after `after_ms`, in ascending
    /// order.
    fn ends_after(&self, pane_end_ms: i64, after_ms: i64) -> impl Iterator<Item = i64>;

    /// The ends of all windows that have the pane which ends at `pane_end_ms`, in ascending order.
    fn ends(&self, pane_end_ms: i64) -> impl Iterator<Item = i64> {
        self.ends_after(pane_end_ms, i64::MIN)
    }

    /// The window that ends at `end_ms`, the end of one.
    fn ending_at(&self, end_ms: i64) -> WindowRange;
}

/// The kinds of windows that are aligned to the clock; all lengths in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowKind {
    /// One after the other.
    Tumbling {
        /// The length of each.
        size_ms: i64,
    },
    /// One begins every so often. They overlap, or leave gaps if they begin less often than they last.
    Sliding {
        /// The length of each.
        size_ms: i64,
        /// From the start of one to that of the next.
        slide_ms: i64,
    },
    /// Within each stretch of `size_ms`, windows that begin where it begins and are longer and longer, up to all
    /// of it.
    Cumulative {
        /// The length of the longest: a multiple of `step_ms`.
        size_ms: i64,
        /// How much longer each is than the one before.
        step_ms: i64,
    },
}

/// Windows aligned to the Unix epoch, or to an offset from it.
///
/// Time is cut into panes, the longest stretches that no window cuts: each window is a row of panes. What is
/// aggregated per pane costs one update per record, however many windows the record belongs to. Of sliding windows there
/// are two panes for each slide, or one if the size is a multiple of it (S. Krishnamurthy, C. Wu, M. Franklin: On-the-fly
/// sharing for streamed aggregation, SIGMOD 2006, calls them paired windows). A window is known by its end; of two
/// windows the one that ends first begins no later.
///
/// Event times and lengths are those of a checked topology: their sums do not overflow.
///
/// ```
/// use thalweg::window::{AlignedWindows, PanedWindows, WindowRange};
/// let minutes = AlignedWindows::tumbling(60_000);
/// assert_eq!(minutes.pane_end(61_000), 120_000);
/// assert_eq!(minutes.ending_at(120_000), WindowRange { start_ms: 60_000, end_ms: 120_000 });
///
/// // Ten minutes, every four: panes of two minutes.
/// let sliding = AlignedWindows::sliding(600_000, 240_000);
/// assert_eq!(sliding.pane_end(610_000), 720_000);
/// let ends: Vec<i64> = sliding.ends(720_000).collect();
/// assert_eq!(ends, [840_000, 1_080_000], "those from 240,000 and 480,000 on");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlignedWindows {
    kind: WindowKind,
    offset_ms: i64,
    /// From one window's end to the next one's.
    step_ms: i64,
    /// How far behind the begin of each step its first pane ends; the second one, if there is one, ends with the step.
    cut_ms: i64,
    /// An instant at which windows end if they go on for ever.
    origin_ms: i64,
}

impl AlignedWindows {
    /// Windows of `size_ms`, one after the other.
    pub fn tumbling(size_ms: i64) -> Self {
        AlignedWindows::new(WindowKind::Tumbling { size_ms: size_ms.max(1) })
    }

    /// Windows of `size_ms`, one every `slide_ms`.
    pub fn sliding(size_ms: i64, slide_ms: i64) -> Self {
        AlignedWindows::new(WindowKind::Sliding { size_ms: size_ms.max(1), slide_ms: slide_ms.max(1) })
    }

    /// Windows that grow by `step_ms`, a divisor of `size_ms`, up to `size_ms`, and begin anew.
    pub fn cumulative(size_ms: i64, step_ms: i64) -> Self {
        AlignedWindows::new(WindowKind::Cumulative { size_ms: size_ms.max(1), step_ms: step_ms.max(1) })
    }

    /// Lengths are at least 1, which the topology's check guarantees (its constructors take less for 1).
    fn new(kind: WindowKind) -> Self {
        let (step_ms, cut_ms, origin_ms) = match kind {
            WindowKind::Tumbling { size_ms } => (size_ms, size_ms, 0),
            WindowKind::Sliding { size_ms, slide_ms } if size_ms < slide_ms => (slide_ms, size_ms, size_ms),
            WindowKind::Sliding { size_ms, slide_ms } => match size_ms % slide_ms {
                0 => (slide_ms, slide_ms, 0),
                behind_ms => (slide_ms, behind_ms, size_ms),
            },
            WindowKind::Cumulative { step_ms, .. } => (step_ms, step_ms, 0),
        };
        AlignedWindows { kind, offset_ms: 0, step_ms, cut_ms, origin_ms }
    }

    /// The same windows, later by `offset_ms`.
    pub fn with_offset(mut self, offset_ms: i64) -> Self {
        self.origin_ms += offset_ms - self.offset_ms;
        self.offset_ms = offset_ms;
        self
    }

    /// What they are.
    pub fn kind(&self) -> WindowKind {
        self.kind
    }

    /// How much later than the epoch's they are.
    pub fn offset_ms(&self) -> i64 {
        self.offset_ms
    }

    /// From one window's end to the next one's.
    pub fn step_ms(&self) -> i64 {
        self.step_ms
    }

    fn size_ms(&self) -> i64 {
        match self.kind {
            WindowKind::Tumbling { size_ms }
            | WindowKind::Sliding { size_ms, .. }
            | WindowKind::Cumulative { size_ms, .. } => size_ms,
        }
    }

    /// The begin of the pane that ends at `pane_end_ms`.
    fn pane_start(&self, pane_end_ms: i64) -> i64 {
        let last_ms = pane_end_ms - 1;
        let within_ms = (last_ms - self.offset_ms).rem_euclid(self.step_ms);
        let start_ms = if within_ms < self.cut_ms { 0 } else { self.cut_ms };
        last_ms - within_ms + start_ms
    }
}

impl PanedWindows for AlignedWindows {
    fn overlap(&self) -> i64 {
        (self.size_ms() + self.step_ms - 1) / self.step_ms
    }

    fn pane_end(&self, time_ms: i64) -> i64 {
        let within_ms = (time_ms - self.offset_ms).rem_euclid(self.step_ms);
        let end_ms = if within_ms < self.cut_ms { self.cut_ms } else { self.step_ms };
        time_ms - within_ms + end_ms
    }

    fn panes(&self, window: WindowRange) -> RangeInclusive<i64> {
        self.pane_end(window.start_ms)..=window.end_ms
    }

    fn last_end(&self, pane_end_ms: i64) -> Option<i64> {
        match self.kind {
            WindowKind::Tumbling { .. } => Some(pane_end_ms),
            WindowKind::Sliding { size_ms, .. } => {
                let latest_ms = self.pane_start(pane_end_ms) + size_ms;
                let end_ms = latest_ms - (latest_ms - self.origin_ms).rem_euclid(self.step_ms);
                (end_ms >= pane_end_ms).then_some(end_ms)
            }
            WindowKind::Cumulative { .. } => {
                let start_ms = self.pane_start(pane_end_ms);
                Some(start_ms - (start_ms - self.offset_ms).rem_euclid(self.size_ms()) + self.size_ms())
            }
        }
    }

    fn next_end(&self, pane_end_ms: i64, after_ms: i64) -> Option<i64> {
        let last_ms = self.last_end(pane_end_ms)?;
        if after_ms >= last_ms {
            return None;
        }
        Some(self.next_end_after(after_ms.max(pane_end_ms - 1)))
    }

    fn next_end_after(&self, after_ms: i64) -> i64 {
        let past_ms =
            (i128::from(after_ms) - i128::from(self.origin_ms)).rem_euclid(i128::from(self.step_ms));
        after_ms.saturating_add(self.step_ms - past_ms as i64)
    }

    fn ends_after(&self, pane_end_ms: i64, after_ms: i64) -> impl Iterator<Item = i64> {
        let (first_ms, last_ms) = (self.next_end(pane_end_ms, after_ms), self.last_end(pane_end_ms));
        let step_ms = self.step_ms;
        std::iter::successors(first_ms, move |end_ms| {
            Some(end_ms + step_ms).filter(|end_ms| Some(*end_ms) <= last_ms)
        })
    }

    fn ending_at(&self, end_ms: i64) -> WindowRange {
        let start_ms = match self.kind {
            WindowKind::Tumbling { .. } | WindowKind::Sliding { .. } => end_ms - self.size_ms(),
            WindowKind::Cumulative { .. } => {
                end_ms - 1 - (end_ms - 1 - self.offset_ms).rem_euclid(self.size_ms())
            }
        };
        WindowRange { start_ms, end_ms }
    }
}

/// Windows that last as long as records follow one another: a session begins with a record and ends when for a gap none
/// has come. Records may have gaps of their own, none of them less than this one.
///
/// Each record is a window of its own, from its event time to its gap behind it; windows that overlap or touch are one
/// session (Akidau et al., "The Dataflow Model", VLDB 2015, merge them in the same way).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionWindows {
    gap_ms: i64,
}

impl SessionWindows {
    /// Sessions that end when nothing has come for `gap_ms`; at least 1, which the topology's check guarantees (less
    /// counts as 1).
    pub fn new(gap_ms: i64) -> Self {
        SessionWindows { gap_ms: gap_ms.max(1) }
    }

    /// The gap; if records have gaps of their own, the least that there can be.
    pub fn gap_ms(&self) -> i64 {
        self.gap_ms
    }

    /// The end of the bucket in which a session that ends at `end_ms` lies. Buckets are as long as the least gap, and no
    /// session is shorter: of sessions of a key that do not touch at most one ends in each.
    pub fn bucket_end(&self, end_ms: i64) -> i64 {
        end_ms.saturating_add((self.gap_ms - end_ms.rem_euclid(self.gap_ms)) % self.gap_ms)
    }

    /// The end of the bucket before the one that ends at `bucket_end_ms`: every session in that ends later.
    pub fn bucket_start(&self, bucket_end_ms: i64) -> i64 {
        bucket_end_ms - self.gap_ms
    }
}

impl WindowRange {
    /// Whether an instant lies within.
    pub fn contains(&self, time_ms: i64) -> bool {
        (self.start_ms..self.end_ms).contains(&time_ms)
    }

    /// Whether two windows overlap or touch.
    pub fn touches(&self, other: &WindowRange) -> bool {
        self.start_ms <= other.end_ms && other.start_ms <= self.end_ms
    }

    /// The window from the earlier start to the later end.
    #[must_use]
    pub fn cover(&self, other: &WindowRange) -> WindowRange {
        WindowRange { start_ms: self.start_ms.min(other.start_ms), end_ms: self.end_ms.max(other.end_ms) }
    }
}
