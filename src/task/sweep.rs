//! The sweep: a task's state is rewritten into its changelog, a little with each checkpoint, so that
//! the log can be cut and stays in proportion to the state. After a sweep comes a rest ([`SweepPace`]).

use crate::operator::Pipeline;
use crate::planted::{Bug, is_planted};
use crate::state::codec::ChunkWriter;
use crate::state::header::{Sweep, THIS_CHECKPOINT};
use crate::state::key;
use crate::state::store::StoreError;
use crate::task::TaskLimits;

/// How far the sweep is. Offsets are absolute, except within the checkpoint being written, whose
/// offsets nobody knows yet ([`THIS_CHECKPOINT`]).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SweepState {
    /// The sweep under way; `None` between sweeps.
    pub under_way: Option<Sweep>,
    /// The first offset of the last complete sweep.
    pub restore_point: i64,
}

/// When the next sweep begins: when the changes since the last one are a share of what that wrote, in bytes,
/// or a floor if that is more. (By two numbers like these Redis decides when to rewrite its append-only file.)
///
/// In memory only: a task that was just restored does not know how much was swept, nor how long it has rested,
/// and sweeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SweepPace {
    /// A sweep is under way, or due.
    Sweeping {
        /// Bytes of its chunks.
        swept: usize,
    },
    /// None is.
    Resting {
        /// Bytes of changes that are to come before the next one; above 0.
        left: usize,
    },
}

impl SweepPace {
    /// After a checkpoint with so many bytes of changes and of its chunk. `complete`: no sweep is under way.
    pub fn after(self, changes: usize, chunk: usize, complete: bool, limits: &TaskLimits) -> SweepPace {
        let (swept, left) = match self {
            SweepPace::Sweeping { swept } if complete => {
                let share = (swept + chunk).saturating_mul(limits.rest_percent) / 100;
                (0, share.max(limits.rest_bytes_min))
            }
            SweepPace::Sweeping { swept } => (swept + chunk, 0),
            SweepPace::Resting { left } => (0, left.saturating_sub(changes)),
        };
        if left > 0 { SweepPace::Resting { left } } else { SweepPace::Sweeping { swept } }
    }
}

/// A chunk: the entries of a key range.
pub struct Chunk {
    /// The first key of the range.
    pub from: Vec<u8>,
    /// The end of the range, exclusive.
    pub to: Vec<u8>,
    /// How many entries it holds.
    pub entries: usize,
}

impl SweepState {
    /// The state after a chunk of about `bytes_max` bytes, whose entries are put into `writer`.
    pub fn advance(
        &self,
        pipeline: &mut dyn Pipeline,
        bytes_max: usize,
        writer: &mut ChunkWriter,
    ) -> Result<(SweepState, Chunk), StoreError> {
        let (from, first_offset) = match &self.under_way {
            Some(sweep) => (sweep.cursor.clone(), sweep.first_offset),
            None => (key::START.to_vec(), THIS_CHECKPOINT),
        };
        let mut entries = 0;
        let next = fill(pipeline, &from, bytes_max, &mut |key, value| {
            entries += 1;
            writer.put(key, value);
        })?;
        let state = match &next {
            Some(cursor) => SweepState {
                under_way: Some(Sweep { cursor: cursor.clone(), first_offset }),
                restore_point: match is_planted(Bug::RestorePointUnderWay) {
                    true => first_offset,
                    false => self.restore_point,
                },
            },
            None => SweepState { under_way: None, restore_point: first_offset },
        };
        Ok((state, Chunk { from, to: next.unwrap_or_else(|| key::END.to_vec()), entries }))
    }

    /// The state once the checkpoint's first record is known to stand at `offset`.
    pub fn resolve(&mut self, offset: i64) {
        if self.restore_point == THIS_CHECKPOINT {
            self.restore_point = offset;
        }
        if let Some(sweep) = self.under_way.as_mut().filter(|sweep| sweep.first_offset == THIS_CHECKPOINT) {
            sweep.first_offset = offset;
        }
    }
}

/// Puts entries from `from` on, in key order, operator by operator; returns where to go on.
fn fill(
    pipeline: &mut dyn Pipeline,
    from: &[u8],
    bytes_max: usize,
    put: &mut dyn FnMut(&[u8], &[u8]),
) -> Result<Option<Vec<u8>>, StoreError> {
    let mut bytes = 0;
    for id in operators_in_key_order(pipeline) {
        let mut result = Ok(None);
        pipeline.visit(&mut |operator| {
            let (start, end) = operator.key_range();
            if operator.id() == id && end.as_slice() > from {
                let start = if start.as_slice() > from { start.as_slice() } else { from };
                result = operator.chunk(start, bytes_max.saturating_sub(bytes), &mut |key, value| {
                    bytes += key.len() + value.len();
                    put(key, value);
                });
            }
        });
        if let Some(next) = result? {
            return Ok(Some(next));
        }
    }
    Ok(None)
}

/// The ids of the stateful operators, in the order of their keys.
pub fn operators_in_key_order(pipeline: &mut dyn Pipeline) -> Vec<String> {
    let mut ids = Vec::new();
    pipeline.visit(&mut |operator| ids.push((operator.key_range().0, operator.id().to_owned())));
    ids.sort();
    ids.into_iter().map(|(_, id)| id).collect()
}
