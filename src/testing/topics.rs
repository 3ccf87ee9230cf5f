//! The topics of a test.

use std::collections::BTreeMap;

use crate::topology::{Plan, topics};

/// All topics that a topology names, with so many partitions each.
pub(super) fn all(plan: &Plan, partitions: i32) -> BTreeMap<String, i32> {
    topics(plan).into_iter().map(|topic| (topic.topic, partitions)).collect()
}
