//! What the workers of a simulation are told.

use crate::random::Random;
use crate::simulator::scenario::Pace;
use crate::task::TaskLimits;
use crate::worker::WorkerSpec;

/// Bounds that make everything happen often.
pub fn small_spec(chance: &mut Random) -> WorkerSpec {
    let cache_bytes_max = if chance.one_in(2) { 0 } else { chance.below(4_000) as usize };
    WorkerSpec {
        commit_interval_ms: 20 + chance.below(150),
        batch_records_max: 1 + chance.below(24) as usize,
        batch_bytes_max: 200 + chance.below(4_000) as usize,
        pinned_bytes_max: 2_000 + chance.below(20_000) as usize,
        stall_ms: 100 + chance.below(400),
        restore_buffer_bytes: 1 + chance.below(600) as usize,
        limits: TaskLimits {
            staged_records_max: 2 + chance.below(12) as usize,
            staged_bytes_max: 1 << 20,
            changelog_part_bytes: 40 + chance.below(300) as usize,
            chunk_bytes_min: chance.below(150) as usize,
            flush_bytes: 1 + chance.below(1_500) as usize,
            flush_interval_ms: chance.below(800),
            cache_bytes_max,
            watermark_interval_ms: chance.fork("watermarks").below(1_500),
            cut_interval_ms: chance.fork("cuts").below(1_500),
            rest_percent: if chance.one_in(2) { 0 } else { chance.below(150) as usize },
            rest_bytes_min: if chance.one_in(2) { 0 } else { chance.below(500) as usize },
        },
        ..plain_spec(Pace::Mixed)
    }
}

/// About what a service has; of records that come one by one, each is a checkpoint of its own.
pub fn plain_spec(pace: Pace) -> WorkerSpec {
    let one_by_one = pace == Pace::OneByOne;
    WorkerSpec {
        application: String::new(),
        stages: Vec::new(),
        bounded: false,
        drop_state: Vec::new(),
        commit_interval_ms: if one_by_one { 0 } else { 100 },
        batch_records_max: if one_by_one { 1 } else { 500 },
        batch_bytes_max: 1 << 20,
        pinned_bytes_max: 64 << 20,
        stall_ms: 10_000,
        restore_buffer_bytes: 1 << 20,
        leave_limit_ms: 10_000,
        limits: TaskLimits {
            staged_records_max: 10_000,
            staged_bytes_max: 16 << 20,
            changelog_part_bytes: 512 << 10,
            chunk_bytes_min: 4 << 10,
            rest_percent: 100,
            rest_bytes_min: 4 << 10,
            flush_bytes: 1 << 20,
            flush_interval_ms: 1_000,
            cache_bytes_max: 64 << 20,
            watermark_interval_ms: if one_by_one { 0 } else { 1_000 },
            cut_interval_ms: if one_by_one { 0 } else { 10_000 },
        },
    }
}
