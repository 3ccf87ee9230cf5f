//! A backlog: what piles up while the store is slow.

use super::*;
use crate::state::codec::DeltaWriter;
use crate::state::header::Header;
use crate::state::key::{END, START};
use crate::state::memory::MemoryStores;
use crate::state::store::StoreFactory;

const TOPIC: TopicId = [3; 16];

/// The delta of a checkpoint: it sets a key of its own and one that every checkpoint sets.
fn delta(checkpoint: u64) -> Arc<Vec<u8>> {
    let mut delta = DeltaWriter::new(1 << 20);
    delta.put(&[1, b'a', checkpoint as u8], &checkpoint.to_be_bytes());
    delta.put(&[1, b'z'], &checkpoint.to_be_bytes());
    Arc::new(delta.finish(&Header { checkpoint, ..Header::default() }).remove(0))
}

#[test]
fn a_backlog_is_flushed_in_several_jobs_in_log_order() {
    let store = MemoryStores::new().open("task").unwrap();
    let mut unflushed = Unflushed::default();
    for checkpoint in 1..=10 {
        // Between two checkpoints lies a marker.
        unflushed.push(vec![(2 * checkpoint as i64, delta(checkpoint))], 0);
    }
    let one = delta(1).len();
    // A job takes checkpoints until it has this much: three.
    let bytes_max = 2 * one + 1;
    let mut seen = Vec::new();
    while let Some(job) = unflushed.job(&store, TOPIC, bytes_max, u64::MAX, 0, false) {
        assert!(unflushed.job(&store, TOPIC, bytes_max, 0, 1, true).is_none(), "one at a time");
        let bytes: usize = job.records.iter().map(|(_, record)| record.len()).sum();
        assert!((bytes_max..bytes_max + one).contains(&bytes), "{bytes} of {bytes_max}");
        let before = unflushed.bytes();
        let flushed = job.run(&|| ()).unwrap();
        unflushed.flushed();
        assert_eq!(unflushed.bytes(), before - bytes);
        let position = store.position().unwrap().unwrap();
        assert_eq!(position.next_offset, flushed.next_offset);
        assert_eq!(position.header.unwrap().checkpoint, flushed.checkpoint);
        seen.push((flushed.checkpoint, flushed.next_offset));
    }
    assert_eq!(seen, [(3, 7), (6, 13), (9, 19)], "what is left is too little for a job");
    let job = unflushed.job(&store, TOPIC, bytes_max, u64::MAX, 0, true).unwrap();
    assert_eq!(job.run(&|| ()).unwrap(), Flushed { checkpoint: 10, next_offset: 21 });
    unflushed.flushed();
    assert_eq!(unflushed.bytes(), 0);
    assert!(unflushed.job(&store, TOPIC, bytes_max, 0, 1, true).is_none());
    let held: Vec<_> = store.scan(START, END).unwrap().map(|entry| entry.unwrap().1.to_vec()).collect();
    let expected: Vec<_> =
        (1..=10_u64).chain([10]).map(|checkpoint| checkpoint.to_be_bytes().to_vec()).collect();
    assert_eq!(held, expected);
}

#[test]
fn a_checkpoint_larger_than_a_job_is_a_job_of_its_own() {
    let store = MemoryStores::new().open("task").unwrap();
    let mut unflushed = Unflushed::default();
    for checkpoint in 1..=3 {
        unflushed.push(vec![(checkpoint as i64, delta(checkpoint))], 0);
    }
    for checkpoint in 1..=3 {
        let job = unflushed.job(&store, TOPIC, 1, u64::MAX, 0, false).unwrap();
        let next_offset = checkpoint as i64 + 1;
        assert_eq!(job.run(&|| ()).unwrap(), Flushed { checkpoint, next_offset });
        unflushed.flushed();
    }
    assert!(unflushed.job(&store, TOPIC, 1, u64::MAX, 0, true).is_none());
}
