//! When a bounded run is over.
//!
//! A process that has done its own share may be needed still: another one may die for good, and when a
//! process leaves, partitions move. So all stay members of the group until every partition is finished,
//! which each task's last commit writes beside its offset ([`Transaction::finished`]).
//!
//! [`Transaction::finished`]: super::port::Transaction::finished

use std::collections::HashSet;

use crate::planted::{Bug, is_planted};
use crate::record::TopicPartition;
use crate::worker::port::{LogAdmin, LogError};

/// How often a process that has done its share asks whether the others have.
pub const LOOK_INTERVAL_MS: u64 = 1_000;

/// Those of `sources` that nobody in `group` has finished yet, in their order.
pub fn unfinished(
    admin: &mut dyn LogAdmin,
    group: &str,
    sources: &[TopicPartition],
) -> Result<Vec<TopicPartition>, LogError> {
    if is_planted(Bug::BoundedRunEndsAlone) {
        return Ok(Vec::new());
    }
    let finished: HashSet<TopicPartition> = admin.finished_partitions(group)?.into_iter().collect();
    Ok(sources.iter().filter(|source| !finished.contains(source)).cloned().collect())
}
