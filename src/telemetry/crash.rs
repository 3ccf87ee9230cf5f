//! Named places at which a test lets the process die.
//!
//! `THALWEG_CRASH_POINT=commit_sent` ends the process the first time that it comes to that place,
//! `commit_sent:3` the third time. Without the variable a crash point is one comparison.
//!
//! The end is `abort`: SIGABRT, whose default action the kernel carries out at once on all threads.
//! No destructor, no exit handler, no other thread runs on, sockets and file locks are given back by
//! the kernel: exactly what SIGKILL does. (`exit` would run exit handlers while librdkafka's threads
//! go on sending, and starting `kill -9` takes milliseconds in which they could.) That the signal is
//! another one is of use: a test sees that the process died here and of nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The environment variable.
pub const VARIABLE: &str = "THALWEG_CRASH_POINT";

/// The places, in the order in which a checkpoint and a life come by them.
pub const POINTS: [(&str, &str); 10] = [
    ("offsets_sent", "the offsets are part of the transaction, the commit was not asked for"),
    ("commit_sent", "the commit was asked for and is not acknowledged"),
    ("committed", "the commit is acknowledged, nothing in memory says so yet"),
    ("between_chunks", "a transaction with a chunk is committed, the sweep is not complete"),
    ("before_flush", "committed deltas are merged, the store has seen nothing of them"),
    ("during_flush", "the store was written to and not synced"),
    ("before_delete_records", "the changelog is about to be cut"),
    ("after_delete_records", "the changelog is cut, nothing in memory says so yet"),
    ("during_restore", "a part of the changelog is in the store"),
    ("during_revoke", "the group wants the partitions back and is not answered yet"),
];

/// The crash point of this process, if it has one. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct CrashPoints(Option<Arc<Armed>>);

#[derive(Debug)]
struct Armed {
    name: &'static str,
    hits_left: AtomicU64,
}

impl CrashPoints {
    /// Reads the value of [`VARIABLE`]: `name`, or `name:n` for the n-th time (from 1). An unknown
    /// name is an error, so that a test cannot wait for a place that does not exist.
    pub fn from_environment(value: Option<&str>) -> Result<CrashPoints, String> {
        let Some(value) = value.filter(|value| !value.is_empty()) else {
            return Ok(CrashPoints::default());
        };
        let (name, nth) = value.split_once(':').unwrap_or((value, "1"));
        let Some((name, _)) = POINTS.iter().find(|(known, _)| *known == name) else {
            let known: Vec<&str> = POINTS.iter().map(|(name, _)| *name).collect();
            return Err(format!(
                "{VARIABLE}: there is no crash point {name:?}; there are {}",
                known.join(", ")
            ));
        };
        match nth.parse() {
            Ok(nth @ 1..) => Ok(CrashPoints(Some(Arc::new(Armed { name, hits_left: AtomicU64::new(nth) })))),
            _ => Err(format!("{VARIABLE}: {nth:?} in {value:?} is not a number from 1")),
        }
    }

    /// Whether this process is to die at some place.
    pub fn armed(&self) -> bool {
        self.0.is_some()
    }

    /// The execution has come to the place called `name`: ends the process if it is the armed one and
    /// its time has come.
    pub fn hit(&self, name: &str) {
        debug_assert!(POINTS.iter().any(|(known, _)| *known == name), "unknown crash point {name:?}");
        if let Some(armed) = self.0.as_deref()
            && armed.name == name
            && armed.hits_left.fetch_sub(1, Ordering::Relaxed) == 1
        {
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;
    use crate::telemetry::tests::run_ignored_test;

    #[test]
    fn the_process_dies_at_the_nth_hit_of_its_point_and_nowhere_else() {
        let output = run_ignored_test(
            "telemetry::crash::tests::comes_by_several_points",
            &[(VARIABLE, "committed:3")],
        );
        assert_eq!(output.status.signal(), Some(libc::SIGABRT));
        let text = String::from_utf8_lossy(&output.stderr);
        let rounds: Vec<&str> = text.lines().filter(|line| line.starts_with("round")).collect();
        assert_eq!(rounds, ["round 1", "round 2", "round 3"]);
    }

    #[test]
    #[ignore = "the other half of the_process_dies_at_the_nth_hit_of_its_point_and_nowhere_else"]
    fn comes_by_several_points() {
        let points = CrashPoints::from_environment(std::env::var(VARIABLE).ok().as_deref()).unwrap();
        for round in 1..=9 {
            eprintln!("round {round}");
            points.hit("commit_sent");
            points.hit("committed");
        }
    }

    #[test]
    fn no_point_is_hit_without_the_variable() {
        for value in [None, Some("")] {
            let points = CrashPoints::from_environment(value).unwrap();
            assert!(!points.armed());
            POINTS.iter().for_each(|(name, _)| points.hit(name));
        }
    }

    #[test]
    fn unknown_names_and_numbers_are_refused() {
        let error = CrashPoints::from_environment(Some("comitted")).unwrap_err();
        assert!(error.contains("\"comitted\"") && error.contains("committed, "), "{error}");
        for value in ["committed:0", "committed:", "committed:x", "committed:-1"] {
            let error = CrashPoints::from_environment(Some(value)).unwrap_err();
            assert!(error.contains(value), "{error}");
        }
    }
}
