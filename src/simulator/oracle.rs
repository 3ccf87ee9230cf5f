//! What must hold in every history, beside the outputs: what stores and changelogs hold.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::format::block::{Block, BlockHeader};
use crate::model::Record;
use crate::simulator::disk::Content;
use crate::state::codec::{RecordHeader, read_record};
use crate::state::header::{Header, OperatorState, UpstreamPosition};

/// The state of a task, as a plain fold of its changelog.
pub type State = BTreeMap<Vec<u8>, Vec<u8>>;

/// Folds the committed changelog up to an offset: each delta's range deletions, then its points. Chunks
/// repeat what is there: one that says otherwise is an error.
pub fn fold(records: &[(i64, Arc<Record>)], to: i64) -> Result<State, String> {
    let mut state = State::new();
    for (offset, record) in records.iter().filter(|(offset, _)| *offset < to) {
        let value = record.value.as_deref().unwrap_or_default();
        let record = read_record(value).map_err(|error| format!("changelog offset {offset}: {error}"))?;
        let is_chunk = matches!(record.header, RecordHeader::Chunk(_));
        for (from, low) in record.ranges() {
            let gone: Vec<Vec<u8>> =
                state.range(from.to_vec()..low.to_vec()).map(|(key, _)| key.clone()).collect();
            for key in gone {
                state.remove(&key);
            }
        }
        let mut points = record.points();
        while let Some((key, value)) = points.next() {
            let value = value.map(<[u8]>::to_vec);
            if is_chunk && state.get(key) != value.as_ref() {
                return Err(format!(
                    "the chunk at changelog offset {offset} is not the state: key {key:02x?}"
                ));
            }
            match value {
                Some(value) => state.insert(key.to_vec(), value),
                None => state.remove(key),
            };
        }
    }
    Ok(state)
}

/// A store equals the fold of the committed changelog up to its position, unless it is in the middle of a
/// restore. Says whether there was anything to compare.
pub fn store_equals_changelog(
    content: &Content,
    records: &[(i64, Arc<Record>)],
    high_watermark: i64,
) -> Result<bool, String> {
    let Some(position) = &content.position else {
        return match content.entries.len() {
            0 => Ok(false),
            entries => Err(format!("a store without a position has {entries} entries")),
        };
    };
    if position.next_offset > high_watermark {
        return Err(format!(
            "the store is at {}, the changelog ends at {high_watermark}",
            position.next_offset
        ));
    }
    if position.restoring {
        return Ok(false);
    }
    let expected = fold(records, position.next_offset)?;
    match difference(&content.entries, &expected) {
        None => Ok(true),
        Some(difference) => {
            Err(format!("the store at changelog offset {}: {difference}", position.next_offset))
        }
    }
}

/// The first key in which two states differ.
pub fn difference(found: &State, expected: &State) -> Option<String> {
    let keys = found.keys().chain(expected.keys());
    let key = keys.filter(|key| found.get(*key) != expected.get(*key)).min()?;
    Some(format!("key {key:02x?} is {:02x?} instead of {:02x?}", found.get(key), expected.get(key)))
}

/// Checkpoints follow each other one by one; offsets, watermarks and what has fired never go back. Returns
/// how many sweeps were completed.
pub fn headers_only_rise(records: &[(i64, Arc<Record>)]) -> Result<u64, String> {
    let mut sweeps = 0;
    let mut last: Option<Header> = None;
    for (offset, record) in records {
        let value = record.value.as_deref().unwrap_or_default();
        let record = read_record(value).map_err(|error| format!("changelog offset {offset}: {error}"))?;
        let RecordHeader::Delta(header) = record.header else { continue };
        if header.part > 0 {
            continue;
        }
        if let Some(last) = &last {
            follows(last, &header).map_err(|why| format!("changelog offset {offset}: {why}"))?;
            sweeps += u64::from(header.restore_point != last.restore_point);
        }
        let source = header.sources.first();
        let seen = source.and_then(|source| source.max_event_time_ms);
        // Behind a change of keys it comes from others.
        let is_own = source.is_some_and(|source| source.upstreams.is_empty());
        if is_own && header.watermark_ms > seen {
            let watermark = header.watermark_ms;
            return Err(format!("changelog offset {offset}: the watermark {watermark:?} is above {seen:?}"));
        }
        last = Some(header);
    }
    Ok(sweeps)
}

/// What a reader of a repartition topic has heard at each checkpoint is what the committed blocks before its offset
/// say. `changelog` is that of the reader.
pub fn upstreams_are_as_told(
    changelog: &[(i64, Arc<Record>)],
    blocks: &[(i64, Arc<Record>)],
) -> Result<(), String> {
    let mut told = Told::default();
    let mut blocks = blocks.iter().peekable();
    for header in changelog.iter().filter_map(|(_, record)| first_part(record)) {
        let Some(source) = header.sources.first() else { continue };
        while let Some((offset, record)) = blocks.next_if(|(offset, _)| *offset < source.next_offset) {
            let block = Block::read(record.value.as_deref().unwrap_or_default());
            told.hear(&block.map_err(|error| format!("offset {offset}: {error}"))?.header, &source.upstreams);
        }
        let expected = (told.watermark_ms > i64::MIN).then_some(told.watermark_ms);
        if header.watermark_ms != expected {
            let (number, heard) = (header.checkpoint, header.watermark_ms);
            return Err(format!("the watermark of checkpoint {number} is {heard:?} instead of {expected:?}"));
        }
        for stream in &source.upstreams {
            for (number, watermark_ms) in (0..).zip(&stream.watermarks_ms) {
                let heard = (*watermark_ms, stream.idle.contains(&number), stream.ended.contains(&number));
                let said = told.tasks.get(&(stream.stream.clone(), number)).copied().unwrap_or(NOTHING);
                if heard != said {
                    return Err(format!("{}-{number} said {said:?}, and {heard:?} was heard", stream.stream));
                }
            }
        }
    }
    Ok(())
}

/// The watermark of a task, whether it is idle, whether it has ended.
type Said = (i64, bool, bool);
const NOTHING: Said = (i64::MIN, false, false);

/// What the tasks of a repartition topic said: of each the greatest watermark, whether its last block calls it idle,
/// whether one called it ended; and the watermark that follows: at any time the least of those that were waited
/// for, or the greatest if nobody was.
struct Told {
    tasks: BTreeMap<(String, u32), Said>,
    watermark_ms: i64,
}

impl Default for Told {
    fn default() -> Told {
        Told { tasks: BTreeMap::new(), watermark_ms: i64::MIN }
    }
}

impl Told {
    fn hear(&mut self, block: &BlockHeader, upstreams: &[UpstreamPosition]) {
        for stream in upstreams {
            for number in 0..stream.watermarks_ms.len() as u32 {
                self.tasks.entry((stream.stream.clone(), number)).or_insert(NOTHING);
            }
        }
        let task = self.tasks.entry((block.stream.clone(), block.partition as u32)).or_insert(NOTHING);
        *task = (task.0.max(block.watermark_ms.unwrap_or(i64::MIN)), block.idle, task.2 || block.ended);
        let waited_for = self.tasks.values().filter(|(_, idle, ended)| !idle && !ended).map(|task| task.0);
        let reached = waited_for.min().or_else(|| self.tasks.values().map(|task| task.0).max());
        self.watermark_ms = self.watermark_ms.max(reached.unwrap_or(i64::MIN));
    }
}

/// The header of the last checkpoint.
pub fn last_header(records: &[(i64, Arc<Record>)]) -> Option<Header> {
    records.iter().rev().find_map(|(_, record)| first_part(record))
}

/// The header of a delta's first record; `None` of any other record.
fn first_part(record: &Record) -> Option<Header> {
    match read_record(record.value.as_deref()?).ok()?.header {
        RecordHeader::Delta(header) if header.part == 0 => Some(header),
        _ => None,
    }
}

fn follows(last: &Header, next: &Header) -> Result<(), String> {
    if next.checkpoint != last.checkpoint + 1 {
        return Err(format!("checkpoint {} follows checkpoint {}", next.checkpoint, last.checkpoint));
    }
    let at = |header: &Header| header.sources.first().map(|source| source.next_offset);
    if at(next) < at(last) {
        return Err(format!("the source's offset goes back from {:?} to {:?}", at(last), at(next)));
    }
    if next.watermark_ms < last.watermark_ms {
        return Err(format!(
            "the watermark goes back from {:?} to {:?}",
            last.watermark_ms, next.watermark_ms
        ));
    }
    for operator in &next.operators {
        // Another one of that name has no past: its state was given up.
        let is_same = |before: &&OperatorState| {
            (&before.id, &before.fingerprint) == (&operator.id, &operator.fingerprint)
        };
        let before = last.operators.iter().find(is_same);
        if let Some(before) = before.filter(|before| operator.fired_watermark_ms < before.fired_watermark_ms)
        {
            return Err(format!(
                "operator {} had fired up to {:?} and is back at {:?}",
                operator.id, before.fired_watermark_ms, operator.fired_watermark_ms
            ));
        }
    }
    Ok(())
}
