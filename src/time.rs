//! Instants, and the clock that the engine is given.

/// An event time or watermark before all others: nothing has been seen yet.
pub const MIN_TIME_MS: i64 = i64::MIN;

/// Where the engine takes the time from; it never reads the machine's clock itself.
pub trait Clock: Send {
    /// Milliseconds since an arbitrary start; never goes back. For intervals and deadlines.
    fn monotonic_ms(&self) -> u64;
    /// Milliseconds since the Unix epoch. May jump.
    fn wall_ms(&self) -> i64;
}
