//! A stream's records, one after the other, to whoever takes them.
//!
//! Without a schedule as fast as they are taken. With one, each record has an instant at which it is due, and
//! that instant is its event time. The schedule waits for nobody: if records are taken more slowly, they
//! are late, each counts with the time at which it should have been written, and what is missed is made up
//! for as fast as possible. Whoever measures a latency from the event time so measures what a producer that
//! does not wait would have seen (no coordinated omission), and how late the sender was is reported.

use std::time::Duration;

use crate::generator::{Record, Stream, Timeline};

/// Nobody sleeps for less: records that are due meanwhile are sent together, late by so much at most.
const WAIT_MIN: Duration = Duration::from_millis(1);

/// Who takes records.
pub trait Outlet {
    /// Why it takes no more.
    type Error;
    /// The time since any one moment.
    fn now(&self) -> Duration;
    /// Takes a record; waits while there is no room.
    fn write(&mut self, record: &Record) -> Result<(), Self::Error>;
    /// Lets about so much time pass.
    fn wait(&mut self, time: Duration) -> Result<(), Self::Error>;
    /// Returns when everything has arrived.
    fn flush(&mut self) -> Result<(), Self::Error>;
}

/// When records are due.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// When the first one is, on the outlet's clock.
    pub start: Duration,
    /// When the others are.
    pub timeline: Timeline,
}

/// What was sent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sent {
    /// How many records by topic, closing ones included.
    pub records: Vec<u64>,
    /// The bytes of their keys and values.
    pub bytes: u64,
    /// From the first record to the arrival of the last.
    pub time: Duration,
    /// How late the latest record was when its turn came to be handed over.
    pub lag_max: Duration,
}

/// Sends a stream to its end.
///
/// # Errors
/// The outlet's.
pub fn send<O: Outlet>(
    stream: &mut dyn Stream,
    schedule: Option<Schedule>,
    outlet: &mut O,
) -> Result<Sent, O::Error> {
    let (mut sent, mut record) = (Sent::default(), Record::default());
    let start = schedule.map_or_else(|| outlet.now(), |schedule| schedule.start);
    let mut index = 0;
    while stream.next(&mut record) {
        if let Some(schedule) = schedule {
            let due = start + Duration::from_nanos(schedule.timeline.due_ns(index));
            sent.lag_max = sent.lag_max.max(wait_until(due, outlet)?);
        }
        outlet.write(&record)?;
        index += 1;
        sent.bytes += (record.key.len() + record.value.len()) as u64;
        if sent.records.len() <= record.topic {
            sent.records.resize(record.topic + 1, 0);
        }
        sent.records[record.topic] += 1;
    }
    outlet.flush()?;
    sent.time = outlet.now().saturating_sub(start);
    Ok(sent)
}

/// Returns at that time, or at once if it is over; and how long it is over.
fn wait_until<O: Outlet>(due: Duration, outlet: &mut O) -> Result<Duration, O::Error> {
    loop {
        let now = outlet.now();
        match due.checked_sub(now) {
            Some(left) if !left.is_zero() => outlet.wait(left.max(WAIT_MIN))?,
            _ => return Ok(now - due),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes 10 µs for a record, and a second for the one of this number.
    #[derive(Default)]
    struct Slow {
        now: Duration,
        /// When each record came, and its event time.
        taken: Vec<(Duration, i64)>,
        stalls_at: Option<usize>,
        fails_at: Option<usize>,
    }

    impl Outlet for Slow {
        type Error = &'static str;

        fn now(&self) -> Duration {
            self.now
        }

        fn write(&mut self, record: &Record) -> Result<(), Self::Error> {
            self.taken.push((self.now, record.timestamp_ms));
            let index = self.taken.len() - 1;
            self.now += Duration::from_micros(10);
            if self.stalls_at == Some(index) {
                self.now += Duration::from_secs(1);
            }
            if self.fails_at == Some(index) { Err("no more") } else { Ok(()) }
        }

        fn wait(&mut self, time: Duration) -> Result<(), Self::Error> {
            self.now += time;
            Ok(())
        }

        fn flush(&mut self) -> Result<(), Self::Error> {
            self.now += Duration::from_millis(3);
            Ok(())
        }
    }

    /// Records of three bytes at the times of a timeline, in topics that take turns.
    struct Ticks(Timeline, u64);

    impl Stream for Ticks {
        fn next(&mut self, record: &mut Record) -> bool {
            if self.1 == self.0.records() {
                return false;
            }
            *record = Record {
                topic: (self.1 % 2) as usize,
                key: b"k".to_vec(),
                value: b"vv".to_vec(),
                timestamp_ms: self.0.at_ms(self.1),
                ..Record::default()
            };
            self.1 += 1;
            true
        }
    }

    /// 5,000 records, 1,000 a second, from an instant that is a second ahead.
    fn sent(outlet: &mut Slow) -> Sent {
        let timeline = Timeline::at_rate(70_000, 1_000, 5_000);
        outlet.now = Duration::from_secs(9);
        let schedule = Schedule { start: Duration::from_secs(10), timeline };
        send(&mut Ticks(timeline, 0), Some(schedule), outlet).unwrap()
    }

    #[test]
    fn records_leave_when_they_are_due() {
        let mut outlet = Slow::default();
        let sent = sent(&mut outlet);
        assert_eq!((sent.records.as_slice(), sent.bytes), (&[2_500, 2_500][..], 15_000));
        for (index, (taken, event_ms)) in outlet.taken.iter().enumerate() {
            let due = Duration::from_millis(10_000 + index as u64);
            assert!(*taken >= due && *taken - due <= WAIT_MIN, "record {index} at {taken:?}");
            assert_eq!(*event_ms, 70_000 + index as i64);
        }
        assert!(sent.lag_max <= WAIT_MIN, "{sent:?}");
        let from_first_to_flushed = Duration::from_millis(4_999 + 3);
        assert!(sent.time >= from_first_to_flushed && sent.time < from_first_to_flushed + 2 * WAIT_MIN);
    }

    #[test]
    fn a_stall_moves_no_event_time_and_is_made_up_for() {
        let mut smooth = Slow::default();
        sent(&mut smooth);
        let mut stalled = Slow { stalls_at: Some(1_000), ..Slow::default() };
        let sent = sent(&mut stalled);
        let times = |outlet: &Slow| outlet.taken.iter().map(|(_, event)| *event).collect::<Vec<_>>();
        assert_eq!(times(&stalled), times(&smooth));
        // The record after it is late by the stall, and soon none is.
        assert!(sent.lag_max > Duration::from_millis(990) && sent.lag_max < Duration::from_millis(1_010));
        let (taken, _) = stalled.taken[2_100];
        assert!(taken - Duration::from_millis(12_100) <= WAIT_MIN, "{taken:?}");
        assert!(sent.time < Duration::from_millis(5_010), "{sent:?}");
    }

    #[test]
    fn without_a_schedule_nothing_waits() {
        let timeline = Timeline::spanning(0, 600_000, 1_000);
        let mut outlet = Slow::default();
        let sent = send(&mut Ticks(timeline, 0), None, &mut outlet).unwrap();
        assert_eq!((sent.time, sent.lag_max), (Duration::from_millis(13), Duration::ZERO));
    }

    #[test]
    fn an_error_ends_it() {
        let timeline = Timeline::spanning(0, 600_000, 1_000);
        let mut outlet = Slow { fails_at: Some(3), ..Slow::default() };
        assert_eq!(send(&mut Ticks(timeline, 0), None, &mut outlet), Err("no more"));
        assert_eq!(outlet.taken.len(), 4);
    }
}
