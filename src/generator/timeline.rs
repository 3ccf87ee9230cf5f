//! When records happen.

/// How far behind the last record the closing ones are: they close every window that ends within an hour.
const CLOSING_MS: i64 = 3_600_000;

/// The event times of a stream's records before disorder: evenly spaced.
#[derive(Clone, Copy, Debug)]
pub struct Timeline {
    start_ms: i64,
    records: u64,
    /// Between two records lie this many milliseconds …
    step_ms: u64,
    /// … divided by this.
    per: u64,
}

impl Timeline {
    /// `records` of them, which is not 0, of which the last happens `span_ms` after the first.
    pub fn spanning(start_ms: i64, span_ms: u64, records: u64) -> Timeline {
        Timeline { start_ms, records, step_ms: span_ms, per: records.saturating_sub(1).max(1) }
    }

    /// `records` of them, `rate` a second. Neither is 0.
    pub fn at_rate(start_ms: i64, rate: u64, records: u64) -> Timeline {
        Timeline { start_ms, records, step_ms: 1_000, per: rate.max(1) }
    }

    /// How many records there are, closing ones not counted.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// The event time of the first record: none is earlier.
    pub fn start_ms(&self) -> i64 {
        self.start_ms
    }

    /// The event time of a record, by its number from 0. The stream may be thought to go on after the last.
    pub fn at_ms(&self, record: u64) -> i64 {
        self.start_ms.saturating_add(self.after(record, 1))
    }

    /// When a record is due, in nanoseconds from the first one's instant; closing ones are with the last.
    pub fn due_ns(&self, record: u64) -> u64 {
        self.after(record.min(self.records.saturating_sub(1)), 1_000_000).unsigned_abs()
    }

    /// The event time of the last record.
    pub fn last_ms(&self) -> i64 {
        self.at_ms(self.records.saturating_sub(1))
    }

    /// The event time of closing records.
    pub fn closing_ms(&self) -> i64 {
        self.last_ms().saturating_add(CLOSING_MS)
    }

    /// How long after the start a record happens, in parts of a millisecond.
    fn after(&self, record: u64, parts: u64) -> i64 {
        let after = u128::from(record) * u128::from(self.step_ms) * u128::from(parts) / u128::from(self.per);
        i64::try_from(after).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_span_lies_between_the_first_and_the_last_record() {
        let timeline = Timeline::spanning(1_000, 600_000, 20_000_001);
        assert_eq!((timeline.at_ms(0), timeline.at_ms(10_000_000)), (1_000, 301_000));
        assert_eq!((timeline.last_ms(), timeline.closing_ms()), (601_000, 4_201_000));
        assert_eq!(Timeline::spanning(7, 600_000, 1).last_ms(), 7);
    }

    #[test]
    fn a_rate_makes_a_schedule() {
        let timeline = Timeline::at_rate(5_000, 3, 10);
        let due = [0, 1, 2, 3].map(|record| (timeline.at_ms(record), timeline.due_ns(record)));
        assert_eq!(due, [(5_000, 0), (5_333, 333_333_333), (5_666, 666_666_666), (6_000, 1_000_000_000)]);
        assert_eq!(timeline.due_ns(12), timeline.due_ns(9), "closing records wait for nothing");
    }
}
