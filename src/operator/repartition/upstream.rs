//! The tasks that write a repartition topic, as a reader of it knows them.
//!
//! Which tasks there are is fixed: the reader's watermark is the least of theirs, and one of which nothing was heard
//! holds it back for good. Only a task that says that it is idle is left out, until it says otherwise, and one that
//! has ended. When nobody is left the watermark is the greatest of theirs, so that it does not matter who fell idle
//! first (Flink's StatusWatermarkValve does the same). Which process runs a task does not matter: what it says comes in the
//! transactions in which its rows do.

use std::sync::Arc;

use crate::format::block::BlockHeader;
use crate::planted::{Bug, is_planted};
use crate::state::header::UpstreamPosition;
use crate::time::MIN_TIME_MS;

/// What a task says of the rows that it will send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// None has an event time before this one, but late ones.
    pub watermark_ms: i64,
    /// It expects none for now.
    pub idle: bool,
    /// There will be none.
    pub ended: bool,
}

impl Mark {
    /// Nothing is known.
    pub const NONE: Mark = Mark { watermark_ms: MIN_TIME_MS, idle: false, ended: false };
}

/// A stream that is written into the topic, and its tasks by partition number.
#[derive(Clone, Debug)]
struct Stream {
    id: Arc<str>,
    tasks: Vec<Mark>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Upstreams {
    streams: Vec<Stream>,
    /// The least of the tasks' watermarks; never falls.
    watermark_ms: i64,
}

impl Upstreams {
    /// The tasks of these streams, of each so many; nothing was heard of any.
    pub fn new(streams: &[(Arc<str>, i32)]) -> Upstreams {
        let stream = |(id, tasks): &(Arc<str>, i32)| Stream {
            id: id.clone(),
            tasks: vec![Mark::NONE; usize::try_from(*tasks).unwrap_or_default()],
        };
        Upstreams { streams: streams.iter().map(stream).collect(), watermark_ms: MIN_TIME_MS }
    }

    /// Learns what a task says behind a block of its rows. A stream that is none of these has been taken out of the
    /// topology: nobody waits for it.
    ///
    /// # Errors
    /// If the stream has no such task.
    pub fn hear(&mut self, block: &BlockHeader) -> Result<(), String> {
        let BlockHeader { stream, partition, .. } = block;
        let Some(known) = self.streams.iter_mut().find(|known| *known.id == **stream) else { return Ok(()) };
        let mark = usize::try_from(*partition).ok().and_then(|number| known.tasks.get_mut(number));
        let mark = mark.ok_or_else(|| format!("{stream} has no task {partition}"))?;
        mark.watermark_ms = mark.watermark_ms.max(block.watermark_ms.unwrap_or(MIN_TIME_MS));
        mark.idle = block.idle || (mark.idle && is_planted(Bug::IdleNotWithdrawn));
        mark.ended |= block.ended;
        let waited_for = self.marks().filter(|mark| !mark.idle && !mark.ended).map(|mark| mark.watermark_ms);
        let reached = waited_for.min().or_else(|| self.marks().map(|mark| mark.watermark_ms).max());
        self.watermark_ms = self.watermark_ms.max(reached.unwrap_or(MIN_TIME_MS));
        Ok(())
    }

    fn marks(&self) -> impl Iterator<Item = &Mark> {
        let marks = self.streams.iter().flat_map(|stream| &stream.tasks);
        marks.filter(|mark| **mark != Mark::NONE || !is_planted(Bug::UpstreamForgotten))
    }

    /// The watermark; `None` while some task has not said enough.
    pub fn watermark_ms(&self) -> Option<i64> {
        (self.watermark_ms > MIN_TIME_MS).then_some(self.watermark_ms)
    }

    /// Whether no task expects anything for now, but not all have ended.
    pub fn is_idle(&self) -> bool {
        self.marks().all(|mark| mark.idle || mark.ended) && !self.has_ended()
    }

    /// Whether all tasks have ended.
    pub fn has_ended(&self) -> bool {
        self.marks().all(|mark| mark.ended)
    }

    /// How many tasks that are waited for have not told a watermark.
    pub fn unheard(&self) -> usize {
        let unheard = |mark: &&Mark| mark.watermark_ms == MIN_TIME_MS && !mark.idle && !mark.ended;
        self.streams.iter().flat_map(|stream| &stream.tasks).filter(unheard).count()
    }

    /// As they are kept with the state.
    pub fn saved(&self) -> Vec<UpstreamPosition> {
        let numbers = |tasks: &[Mark], is: fn(&Mark) -> bool| {
            tasks.iter().zip(0..).filter(|(mark, _)| is(mark)).map(|(_, number)| number).collect()
        };
        let saved = |Stream { id, tasks }: &Stream| UpstreamPosition {
            stream: id.to_string(),
            watermarks_ms: tasks.iter().map(|mark| mark.watermark_ms).collect(),
            idle: numbers(tasks, |mark| mark.idle),
            ended: numbers(tasks, |mark| mark.ended),
        };
        self.streams.iter().map(saved).collect()
    }

    /// Goes on from what was kept, with the watermark that was reached. Streams that have come since have not been
    /// heard of, and hold the watermark back until they are.
    pub fn restore(&mut self, saved: &[UpstreamPosition], watermark_ms: Option<i64>) {
        self.watermark_ms = watermark_ms.unwrap_or(MIN_TIME_MS);
        for stream in &mut self.streams {
            let Some(saved) = saved.iter().find(|saved| *saved.stream == *stream.id) else { continue };
            for ((mark, watermark_ms), number) in
                stream.tasks.iter_mut().zip(&saved.watermarks_ms).zip(0_u32..)
            {
                *mark = Mark {
                    watermark_ms: *watermark_ms,
                    idle: saved.idle.contains(&number),
                    ended: saved.ended.contains(&number),
                };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(stream: &str, partition: i32, watermark_ms: Option<i64>) -> BlockHeader {
        BlockHeader { stream: stream.into(), partition, watermark_ms, ..BlockHeader::default() }
    }

    fn idle(stream: &str, partition: i32) -> BlockHeader {
        BlockHeader { idle: true, ..block(stream, partition, None) }
    }

    fn ended(stream: &str, partition: i32) -> BlockHeader {
        BlockHeader { ended: true, ..block(stream, partition, None) }
    }

    fn two() -> Upstreams {
        Upstreams::new(&[("a".into(), 2), ("b".into(), 1)])
    }

    fn after(blocks: &[BlockHeader]) -> Upstreams {
        let mut upstreams = two();
        blocks.iter().for_each(|block| upstreams.hear(block).unwrap());
        upstreams
    }

    #[test]
    fn the_watermark_is_the_least_of_all_tasks() {
        let mut upstreams = after(&[block("a", 0, Some(50)), block("b", 0, Some(70))]);
        assert_eq!((upstreams.watermark_ms(), upstreams.unheard()), (None, 1), "of a-1 nothing was heard");
        upstreams.hear(&block("a", 1, Some(60))).unwrap();
        assert_eq!((upstreams.watermark_ms(), upstreams.unheard()), (Some(50), 0));
        upstreams.hear(&block("a", 0, Some(90))).unwrap();
        assert_eq!(upstreams.watermark_ms(), Some(60));
        upstreams.hear(&block("a", 0, None)).unwrap();
        upstreams.hear(&block("b", 0, Some(10))).unwrap();
        assert_eq!(upstreams.watermark_ms(), Some(60), "what was said once holds");
        upstreams.hear(&block("c", 0, Some(10))).unwrap();
        assert_eq!(upstreams.watermark_ms(), Some(60));
        assert_eq!(upstreams.hear(&block("a", 2, None)).unwrap_err(), "a has no task 2");
        assert_eq!(upstreams.hear(&block("a", -1, None)).unwrap_err(), "a has no task -1");
    }

    #[test]
    fn idle_tasks_are_left_out_until_they_go_on() {
        let mut upstreams = after(&[block("a", 0, Some(50)), block("a", 1, Some(80)), idle("b", 0)]);
        assert_eq!(upstreams.watermark_ms(), Some(50));
        upstreams.hear(&idle("a", 0)).unwrap();
        assert_eq!(upstreams.watermark_ms(), Some(80));
        assert!(!upstreams.is_idle());
        upstreams.hear(&idle("a", 1)).unwrap();
        assert_eq!((upstreams.watermark_ms(), upstreams.is_idle()), (Some(80), true));
        upstreams.hear(&block("a", 0, Some(60))).unwrap();
        upstreams.hear(&block("a", 1, Some(200))).unwrap();
        assert_eq!((upstreams.watermark_ms(), upstreams.is_idle()), (Some(80), false), "a-0 is behind");
        upstreams.hear(&block("a", 0, Some(150))).unwrap();
        assert_eq!(upstreams.watermark_ms(), Some(150));
    }

    #[test]
    fn who_falls_idle_first_does_not_matter() {
        let begin = [block("a", 0, Some(50)), block("a", 1, Some(80)), block("b", 0, Some(70))];
        for order in [[("a", 0), ("a", 1), ("b", 0)], [("b", 0), ("a", 1), ("a", 0)]] {
            let mut upstreams = after(&begin);
            order.iter().for_each(|(stream, task)| upstreams.hear(&idle(stream, *task)).unwrap());
            assert_eq!(upstreams.watermark_ms(), Some(80));
        }
    }

    #[test]
    fn all_have_to_end() {
        let mut upstreams = after(&[block("a", 0, Some(50)), ended("a", 1), idle("b", 0)]);
        assert_eq!((upstreams.watermark_ms(), upstreams.has_ended()), (Some(50), false));
        upstreams.hear(&ended("a", 0)).unwrap();
        assert!(!upstreams.has_ended() && upstreams.is_idle());
        assert_eq!(upstreams.watermark_ms(), Some(50));
        upstreams.hear(&ended("b", 0)).unwrap();
        assert!(upstreams.has_ended() && !upstreams.is_idle());
    }

    #[test]
    fn what_was_saved_is_restored() {
        let upstreams = after(&[block("a", 1, Some(80)), idle("b", 0), ended("a", 0)]);
        let mut restored = two();
        restored.restore(&upstreams.saved(), upstreams.watermark_ms());
        assert_eq!(restored.saved(), upstreams.saved());
        assert_eq!(restored.watermark_ms(), Some(80));
        assert_eq!(two().watermark_ms(), None);

        let mut more = Upstreams::new(&[("a".into(), 2), ("c".into(), 1)]);
        more.restore(&upstreams.saved(), upstreams.watermark_ms());
        more.hear(&block("a", 1, Some(100))).unwrap();
        assert_eq!(more.watermark_ms(), Some(80), "c was not heard of");
    }
}
