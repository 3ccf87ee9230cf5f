//! The applier on its own; [`histories`] runs it through the whole protocol.

mod histories;

use super::super::codec::{ChunkWriter, DeltaWriter};
use super::super::key::{END, START};
use super::super::memory::MemoryStores;
use super::super::store::StoreFactory;
use super::*;

const TOPIC: TopicId = [7; 16];

/// A delta's records: `keys` set to the checkpoint's number, one record each.
fn delta(checkpoint: u64, keys: &[u8], restore_point: i64) -> Vec<Vec<u8>> {
    let mut writer = DeltaWriter::new(0);
    keys.iter().for_each(|key| writer.put(&[1, *key], &checkpoint.to_be_bytes()));
    writer.finish(&Header { checkpoint, restore_point, ..Header::default() })
}

/// A chunk's records, one for each key.
fn chunk(checkpoint: u64, keys: &[u8]) -> Vec<Vec<u8>> {
    let mut writer = ChunkWriter::new(0);
    keys.iter().for_each(|key| writer.put(&[1, *key], b"chunk"));
    writer.finish(checkpoint, START, END)
}

/// The keys of the store.
fn keys(store: &dyn Store) -> Vec<u8> {
    store.scan(START, END).unwrap().map(|entry| entry.unwrap().0[1]).collect()
}

fn store() -> Arc<dyn Store> {
    MemoryStores::new().open("task").unwrap()
}

fn applier(store: &Arc<dyn Store>, log_start: i64) -> Applier {
    Applier::new(store.clone(), TOPIC, log_start, 0).unwrap()
}

/// Pushes records at consecutive offsets.
fn push(applier: &mut Applier, from: i64, records: &[Vec<u8>]) -> Result<(), ApplyError> {
    (from..).zip(records).try_for_each(|(offset, record)| applier.push(offset, record))
}

/// Fills a new store from `log_start`.
fn fill(log_start: i64, records: &[Vec<u8>]) -> Result<(Arc<dyn Store>, Applied), ApplyError> {
    let store = store();
    let mut applier = applier(&store, log_start);
    push(&mut applier, log_start, records)?;
    let end = log_start + records.len() as i64;
    Ok((store, applier.finish(end)?))
}

#[test]
fn a_store_stops_only_between_checkpoints() {
    let store = store();
    let mut applier = applier(&store, 0);
    let stands_at = || store.position().unwrap().map(|position| (position.next_offset, position.restoring));
    push(&mut applier, 0, &[delta(1, &[1, 2, 3], 0), chunk(1, &[4, 5])].concat()).unwrap();
    assert_eq!(stands_at(), None, "nothing is written before the checkpoint is known to be complete");
    push(&mut applier, 10, &delta(2, &[6, 7], 0)[..1]).unwrap();
    assert_eq!((stands_at(), keys(&*store)), (Some((10, true)), vec![1, 2, 3, 4, 5]));
    push(&mut applier, 11, &delta(2, &[6, 7], 0)[1..]).unwrap();
    let applied = applier.finish(20).unwrap();
    assert_eq!((stands_at(), keys(&*store)), (Some((20, false)), vec![1, 2, 3, 4, 5, 6, 7]));
    assert_eq!(applied.records, 7);
    assert_eq!(applied.position.header.unwrap().checkpoint, 2);
}

#[test]
fn a_buffer_is_written_when_it_is_full_and_not_before() {
    let store = store();
    let mut applier = Applier::new(store.clone(), TOPIC, 0, 1 << 20).unwrap();
    push(&mut applier, 0, &[delta(1, &[1], 0), delta(2, &[2], 0), delta(3, &[3], 0)].concat()).unwrap();
    assert_eq!(store.position().unwrap(), None);
    applier.finish(3).unwrap();
    assert_eq!(keys(&*store), [1, 2, 3]);
}

#[test]
fn an_empty_log_makes_a_whole_store() {
    let (store, applied) = fill(0, &[]).unwrap();
    assert!(!applied.position.restoring && applied.position.header.is_none());
    let mut applier = applier(&store, 0);
    push(&mut applier, 0, &delta(1, &[1], 0)).unwrap();
    applier.finish(1).unwrap();
    assert_eq!(keys(&*store), [1]);
}

#[test]
fn offsets_of_this_checkpoint_are_resolved() {
    let (_, applied) = fill(0, &[delta(1, &[1], 0), delta(2, &[2, 3], -1)].concat()).unwrap();
    assert_eq!(applied.position.header.unwrap().restore_point, 1);
}

#[test]
fn a_whole_store_leaves_chunks_alone_wherever_it_stopped() {
    let (store, _) = fill(0, &delta(1, &[1], 0)).unwrap();
    let mut applier = applier(&store, 0);
    // Its first part was behind the store's position, perhaps.
    push(&mut applier, 2, &chunk(1, &[8, 9])[1..]).unwrap();
    push(&mut applier, 4, &delta(2, &[2], 0)).unwrap();
    applier.finish(5).unwrap();
    assert_eq!(keys(&*store), [1, 2]);
}

#[test]
fn what_a_cut_left_of_a_checkpoint_is_skipped() {
    let records = [&delta(4, &[1, 2, 3], 0)[1..], &chunk(4, &[5]), &delta(5, &[6], 103)].concat();
    let (store, applied) = fill(100, &records).unwrap();
    assert_eq!(keys(&*store), [6]);
    assert_eq!(applied.position.restored_from, 100);
}

#[test]
fn a_restore_that_was_interrupted_goes_on_and_is_checked_from_where_it_began() {
    for (restore_point, good) in [(100, true), (99, false)] {
        let store = store();
        let mut first = applier(&store, 100);
        push(&mut first, 100, &[delta(4, &[1], 0), delta(5, &[2], 0)].concat()).unwrap();
        drop(first);
        let position = store.position().unwrap().unwrap();
        assert_eq!((position.next_offset, position.restoring), (101, true));
        // The log start has moved back meanwhile.
        assert_eq!(start(Some(&position), TOPIC, 50, 200), Start::Continue(101));
        let mut second = applier(&store, 50);
        assert_eq!(second.from(), 101);
        push(&mut second, 101, &[delta(5, &[2], 0), chunk(5, &[3]), delta(6, &[4], restore_point)].concat())
            .unwrap();
        match second.finish(110) {
            Ok(applied) => assert!(good && !applied.position.restoring),
            Err(error) => {
                assert!(!good && matches!(error, ApplyError::Cut { log_start: 100, .. }), "{error}")
            }
        }
    }
}

#[test]
fn a_log_cut_above_the_restore_point_is_refused() {
    let error = fill(100, &delta(9, &[1], 99)).err().unwrap();
    insta::assert_snapshot!(error);
    let error = fill(100, &[]).err().unwrap();
    insta::assert_snapshot!(error);
}

#[test]
fn a_broken_chain_is_refused() {
    let broken = |records: &[&[Vec<u8>]]| match fill(0, &records.concat()) {
        Err(error @ ApplyError::BrokenChain { .. }) => error.to_string(),
        other => panic!("not refused as a broken chain: {:?}", other.map(|(_, applied)| applied)),
    };
    let first = &delta(1, &[1, 2, 3], 0);
    let (second, third) = (&delta(2, &[4], 0)[..], &delta(3, &[5], 0)[..]);
    insta::assert_snapshot!(broken(&[first, third]));
    for records in [
        // The log's beginning is gone although it begins at 0; a checkpoint twice; one from before.
        &[second][..],
        &[&first[1..]],
        &[&chunk(1, &[1])],
        &[first, first],
        &[first, second, first],
        // A delta's parts: one missing, one twice, another checkpoint's.
        &[&first[..2]],
        &[&first[..2], second],
        &[&first[..1], &first[2..]],
        &[&first[..2], &first[1..]],
        &[&first[..1], &delta(2, &[1, 2, 3], 0)[1..]],
        // A chunk's: the same, within the delta, of another checkpoint, two of them.
        &[first, &chunk(1, &[1, 2])[..1]],
        &[first, &chunk(1, &[1, 2])[..1], second],
        &[first, &chunk(1, &[1, 2])[1..]],
        &[&first[..1], &chunk(1, &[1]), &first[1..]],
        &[first, &chunk(2, &[1])],
        &[first, &chunk(1, &[1]), &chunk(1, &[2])],
    ] {
        broken(records);
    }
}

#[test]
fn offsets_that_go_back_are_refused() {
    let (store, _) = fill(0, &delta(1, &[1], 0)).unwrap();
    let mut back = applier(&store, 0);
    assert!(matches!(back.push(0, &delta(2, &[2], 0)[0]), Err(ApplyError::BrokenChain { .. })));
    assert!(matches!(applier(&store, 0).finish(0), Err(ApplyError::Foreign(_))));
}

#[test]
fn a_record_that_cannot_be_read_is_named_by_its_offset() {
    let error = fill(0, &[b"{}".to_vec()]).err().unwrap();
    insta::assert_snapshot!(error);
}

#[test]
fn only_a_store_of_this_log_within_its_bounds_goes_on() {
    let (store, applied) = fill(0, &delta(1, &[1], 0)).unwrap();
    let position = Some(&applied.position);
    assert_eq!(start(None, TOPIC, 5, 9), Start::Fill(5));
    assert_eq!(start(position, TOPIC, 0, 1), Start::Continue(1));
    assert_eq!(start(position, TOPIC, 1, 9), Start::Continue(1));
    for useless in
        [start(position, TOPIC, 2, 9), start(position, TOPIC, 0, 0), start(position, [8; 16], 0, 9)]
    {
        assert!(matches!(useless, Start::Useless(_)), "{useless:?}");
    }
    assert!(matches!(Applier::new(store, [8; 16], 0, 0), Err(ApplyError::Foreign(_))));
}
