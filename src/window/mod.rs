//! Window assigners: which windows a record belongs to.

/// Windows of one length, one after the other, aligned to the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tumbling {
    size_ms: i64,
}

/// A window's range of event time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowRange {
    /// Its first instant, in milliseconds since the Unix epoch.
    pub start_ms: i64,
    /// The first instant after it.
    pub end_ms: i64,
}

impl Tumbling {
    /// Windows of `size_ms`; at least 1, which the topology's check guarantees (less counts as 1).
    pub fn new(size_ms: i64) -> Self {
        Tumbling { size_ms: size_ms.max(1) }
    }

    /// The window that an event time belongs to.
    ///
    /// ```
    /// use thalweg::window::{Tumbling, WindowRange};
    /// let minutes = Tumbling::new(60_000);
    /// assert_eq!(minutes.assign(61_000), WindowRange { start_ms: 60_000, end_ms: 120_000 });
    /// assert_eq!(minutes.assign(-1), WindowRange { start_ms: -60_000, end_ms: 0 });
    /// ```
    pub fn assign(&self, time_ms: i64) -> WindowRange {
        let start_ms = time_ms - time_ms.rem_euclid(self.size_ms);
        WindowRange { start_ms, end_ms: start_ms + self.size_ms }
    }

    /// The window that ends at `end_ms`.
    pub fn ending_at(&self, end_ms: i64) -> WindowRange {
        WindowRange { start_ms: end_ms - self.size_ms, end_ms }
    }
}
