//! Finding out where a task stands and bringing its store there: at every assignment and recovery.
//!
//! The order of the look-ups matters. First the group's committed offsets, stable, so that no commit is
//! under way; then the changelog's high watermark, so that it covers that commit; then the wait until
//! everything below it is decided; then the replay. The other way round, the last commit of a dying
//! owner could land between the look-ups: its offsets would be seen, its state changes missed.

use std::sync::Arc;

use super::{Changelog, TaskId, TaskSpec};
use crate::planted::{Bug, is_planted};
use crate::record::TopicPartition;
use crate::state::Header;
use crate::state::apply::{self, Applier, ApplyError};
use crate::state::store::{Store, StoreError, StoreFactory};
use crate::topology::plan::Start;
use crate::worker::port::{ChangelogReader, LogError};

/// What a restore is told.
#[derive(Clone, Debug)]
pub struct RestoreRequest {
    /// The task.
    pub spec: Arc<TaskSpec>,
    /// The stateful operators' ids and fingerprints, as the topology has them now.
    pub operators: Vec<(String, String)>,
    /// What was found wrong with the store while it was in use: it is set aside.
    pub corrupt: Option<String>,
    /// How long it waits for something that makes no progress.
    pub stall_ms: u64,
    /// How many bytes of changes are merged before they are written.
    pub buffer_bytes_max: usize,
}

/// What a restore needs from outside. Called on its blocking thread.
pub trait RestoreHost {
    /// Waits a little.
    fn pause(&self, ms: u64);
    /// Whether nobody waits for the restore any more.
    fn is_cancelled(&self) -> bool;
    /// Tells how far it is: the offset reached, of how many; records read so far.
    fn progress(&self, task: &TaskId, from: i64, at: i64, to: i64, records: u64);
    /// A place where tests may crash the process.
    fn crash_point(&self, name: &str);
}

/// A restored task's starting point.
pub struct Restored {
    /// The store, at the end of the changelog; `None` for a task without state.
    pub store: Option<Arc<dyn Store>>,
    /// The header of the last checkpoint; `None` before the first.
    pub header: Option<Header>,
    /// The offset of the next record of the source to process.
    pub next_offset: i64,
    /// The group has no committed offset: this one comes from where the source says to start.
    pub unanchored: bool,
    /// Where a bounded run ends.
    pub end_offset: Option<i64>,
    /// The changelog offset that the store has reached, safe on the disk.
    pub synced_offset: i64,
    /// The oldest offset of the changelog.
    pub log_start: i64,
    /// Changelog records read.
    pub records_read: u64,
}

/// Why a restore failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RestoreError {
    /// Try again: a broker is away, or the log moved meanwhile.
    #[error("{0}")]
    Retry(String),
    /// The client that reads is broken; a new one may do better.
    #[error("{0}")]
    Broken(String),
    /// Nobody waits for it any more.
    #[error("the restore was called off")]
    Cancelled,
    /// The topology does not fit the state.
    #[error("{0}")]
    Changed(String),
    /// It will not work without an operator.
    #[error("{0}")]
    Refused(String),
}

impl From<LogError> for RestoreError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Retry(message) | LogError::OutOfRange(message) => RestoreError::Retry(message),
            LogError::Client(message) => RestoreError::Broken(message),
            LogError::Fenced(message) | LogError::Stop(message) => RestoreError::Refused(message),
        }
    }
}

/// Restores a task. Blocks on the log and on the disk.
pub fn restore(
    request: &RestoreRequest,
    reader: &mut dyn ChangelogReader,
    stores: &dyn StoreFactory,
    host: &dyn RestoreHost,
) -> Result<Restored, RestoreError> {
    let spec = &*request.spec;
    if let Some(why) = &request.corrupt {
        // Before anything that may fail: the next attempt does not know of it any more.
        set_aside(spec, stores, why)?;
    }
    let early = spec.changelog.as_ref().filter(|_| is_high_watermark_first());
    let early_end = early.map(|changelog| reader.high_watermark(&changelog.partition)).transpose()?;
    let committed = reader
        .committed_offsets(std::slice::from_ref(&spec.source), request.stall_ms)?
        .into_iter()
        .next()
        .flatten();
    let Some(changelog) = &spec.changelog else {
        let next_offset = match committed {
            Some(offset) => offset,
            None => first_offset(spec, reader)?,
        };
        return Ok(Restored {
            store: None,
            header: None,
            next_offset,
            unanchored: committed.is_none(),
            end_offset: None,
            synced_offset: 0,
            log_start: 0,
            records_read: 0,
        });
    };
    let end = match early_end {
        Some(end) => end,
        None if is_planted(Bug::RestoreToLastStable) => reader.last_stable_offset(&changelog.partition)?,
        None => reader.high_watermark(&changelog.partition)?,
    };
    wait_until_decided(request, &changelog.partition, end, reader, host)?;
    let mut attempt = Attempt { request, changelog, end, reader: &mut *reader, stores, host };
    match attempt.restore(committed) {
        // What was found is wrong only if it is still so.
        Err(RestoreError::Refused(_)) if has_moved(request, changelog, committed, end, reader)? => {
            Err(RestoreError::Retry(format!(
                "task {}: its log or its offsets moved during the restore: somebody else owns it",
                spec.id
            )))
        }
        restored => restored,
    }
}

fn first_offset(spec: &TaskSpec, reader: &mut dyn ChangelogReader) -> Result<i64, LogError> {
    match spec.start {
        Start::Earliest => reader.log_start(&spec.source),
        Start::Latest => reader.last_stable_offset(&spec.source),
    }
}

/// How long to wait before looking again whether the log has moved.
const PAUSE_MS: u64 = 20;

/// Waits until everything before `end` is committed or aborted.
fn wait_until_decided(
    request: &RestoreRequest,
    partition: &TopicPartition,
    end: i64,
    reader: &mut dyn ChangelogReader,
    host: &dyn RestoreHost,
) -> Result<(), RestoreError> {
    let mut seen = i64::MIN;
    let mut waited_ms = 0;
    loop {
        let stable = reader.last_stable_offset(partition)?;
        if stable >= end {
            return Ok(());
        }
        if host.is_cancelled() {
            return Err(RestoreError::Cancelled);
        }
        if stable > seen {
            (seen, waited_ms) = (stable, 0);
        } else if waited_ms >= request.stall_ms {
            let producers = reader.open_transactions(partition);
            let producers = if producers.is_empty() {
                format!(
                    "`kafka-transactions.sh describe-producers --topic {} --partition {}` names its producer id",
                    partition.topic, partition.partition
                )
            } else {
                format!("its producer id is among {producers:?}")
            };
            return Err(RestoreError::Retry(format!(
                "{partition}: the last stable offset stays at {stable}, below the high watermark {end}, for \
                 {waited_ms} ms: a transaction is open ({producers}); it ends by itself after its \
                 transaction.timeout.ms, or is ended by `kafka-transactions.sh abort`"
            )));
        }
        host.pause(PAUSE_MS);
        waited_ms += PAUSE_MS;
    }
}

fn is_high_watermark_first() -> bool {
    is_planted(Bug::HighWatermarkFirst) || is_planted(Bug::HighWatermarkFirstNotCompared)
}

fn is_comparison_left_out() -> bool {
    is_planted(Bug::OffsetsNotCompared) || is_planted(Bug::HighWatermarkFirstNotCompared)
}

/// The group's offset and the state's are committed together: they are equal or something is lost.
fn agree(spec: &TaskSpec, header: Option<&Header>, committed: Option<i64>) -> Result<i64, RestoreError> {
    let stored = header.and_then(|header| header.sources.first()).map(|source| source.next_offset);
    let source = &spec.source;
    let task = &spec.id;
    match (stored, committed) {
        (Some(stored), Some(committed)) if stored == committed => Ok(stored),
        (_, Some(committed)) if is_comparison_left_out() => Ok(committed),
        (Some(stored), Some(committed)) => Err(RestoreError::Refused(format!(
            "task {task}: its state is that of offset {stored} of {source}, but the group's committed offset is \
             {committed}. Somebody changed the group's offsets or the changelog. Set the group's offset to \
             {stored}, or start anew with `thalweg reset`"
        ))),
        (Some(stored), None) => Err(RestoreError::Refused(format!(
            "task {task}: its state is that of offset {stored} of {source}, but the group has no committed offset: \
             it expired (offsets.retention.minutes of the brokers) or was deleted. Set the group's offset to \
             {stored}, or start anew with `thalweg reset`"
        ))),
        (None, _) => Err(RestoreError::Refused(format!(
            "task {task}: the group's committed offset of {source} is {}, but the changelog is empty: it was deleted, \
             or the topology had no state before. Start anew with `thalweg reset`",
            committed.unwrap_or_default()
        ))),
    }
}

/// Whether somebody has committed since the look-ups. An owner goes on and cuts its log while a member that
/// does not know yet that it is none any more restores beside it: what that one reads does not fit together,
/// and nobody did anything wrong.
fn has_moved(
    request: &RestoreRequest,
    changelog: &Changelog,
    committed: Option<i64>,
    end: i64,
    reader: &mut dyn ChangelogReader,
) -> Result<bool, LogError> {
    let source = std::slice::from_ref(&request.spec.source);
    Ok(reader.high_watermark(&changelog.partition)? != end
        || reader.committed_offsets(source, request.stall_ms)? != [committed])
}

/// A bounded run closes its windows without regard to the time; what would come after it would open them
/// again.
fn check_bounded(spec: &TaskSpec, header: Option<&Header>) -> Result<(), RestoreError> {
    let ends = |header: &Header| header.finished || header.sources.iter().any(|s| s.end_offset.is_some());
    if !spec.bounded && header.is_some_and(ends) {
        return Err(RestoreError::Changed(format!(
            "task {}: its state is that of a bounded run: go on with `--bounded`, or start anew with \
             `thalweg reset`",
            spec.id
        )));
    }
    // A task that is done reads nothing more: what came for a later stage that is new is gone, and its end untold.
    if let Some(ended) = header.filter(|header| header.finished)
        && let Some(topic) = spec.sends_to.iter().find(|topic| !ended.ended_to.contains(topic))
    {
        return Err(RestoreError::Changed(format!(
            "task {}: its bounded run was over before the topology sent its rows on through {topic}: start anew with \
             `thalweg reset`",
            spec.id
        )));
    }
    Ok(())
}

/// Rows that were spread by another key lie in other partitions, and so does their state.
fn check_key(spec: &TaskSpec, header: Option<&Header>) -> Result<(), RestoreError> {
    let stored = header.and_then(|header| header.sources.first()).map(|source| source.key.as_str());
    match (stored, &spec.repartitioned_by) {
        (Some(stored), Some(now)) if stored != now => Err(RestoreError::Changed(format!(
            "stage `{}` was repartitioned by {stored}, and is to be by {now} now: rows and state of a key would lie in \
             several partitions. Change it back, give the operator another id, or start anew with `thalweg reset`",
            spec.id.stage
        ))),
        _ => Ok(()),
    }
}

/// State that was made by another operator than the topology has now is refused.
fn check_operators(
    spec: &TaskSpec,
    operators: &[(String, String)],
    header: Option<&Header>,
) -> Result<(), RestoreError> {
    let Some(header) = header else { return Ok(()) };
    for saved in &header.operators {
        match operators.iter().find(|(id, _)| *id == saved.id) {
            Some((_, fingerprint)) if *fingerprint == saved.fingerprint => {}
            _ if spec.drop_state.contains(&saved.id) => {}
            Some((id, fingerprint)) => {
                return Err(RestoreError::Changed(format!(
                    "operator `{id}` has changed, and its state cannot be read by the new one.\n  state: {}\n  \
                     topology: {fingerprint}\nChange it back, give the new one another id, or give the state up \
                     with `--drop-state {id}`",
                    saved.fingerprint
                )));
            }
            None => {
                return Err(RestoreError::Changed(format!(
                    "operator `{}` has state but is not in the topology any more. Put it back, or give its state up \
                     with `--drop-state {}`",
                    saved.id, saved.id
                )));
            }
        }
    }
    Ok(())
}

fn set_aside(spec: &TaskSpec, stores: &dyn StoreFactory, why: &str) -> Result<(), RestoreError> {
    let task = &spec.id;
    tracing::error!(%task, "local state is corrupt; it is set aside and restored from the changelog: {why}");
    stores.set_aside(&task.to_string(), why).map_err(|error| store_refused(spec, &error))
}

fn store_refused(spec: &TaskSpec, error: &StoreError) -> RestoreError {
    RestoreError::Refused(format!("task {}: {error}", spec.id))
}

/// How often a restore begins again when the log moves away under it.
const ATTEMPTS_MAX: usize = 5;

/// A store at the end of the changelog, synced.
struct Filled {
    store: Arc<dyn Store>,
    header: Option<Header>,
    log_start: i64,
    records_read: u64,
}

struct Attempt<'r> {
    request: &'r RestoreRequest,
    changelog: &'r Changelog,
    end: i64,
    reader: &'r mut dyn ChangelogReader,
    stores: &'r dyn StoreFactory,
    host: &'r dyn RestoreHost,
}

impl Attempt<'_> {
    /// Restores the task at the end of the changelog, as of these offsets of the group.
    fn restore(&mut self, committed: Option<i64>) -> Result<Restored, RestoreError> {
        let spec = &*self.request.spec;
        let filled = self.fill()?;
        let next_offset = match (filled.header.as_ref(), committed) {
            (None, None) => first_offset(spec, self.reader)?,
            (header, committed) => agree(spec, header, committed)?,
        };
        let ends = spec.bounded && spec.repartitioned_by.is_none();
        let end_offset = match (&filled.header, ends) {
            (_, false) => None,
            (Some(header), true) => match header.sources.first().and_then(|source| source.end_offset) {
                Some(end_offset) => Some(end_offset),
                None => Some(self.reader.last_stable_offset(&spec.source)?),
            },
            (None, true) => Some(self.reader.last_stable_offset(&spec.source)?),
        };
        check_key(spec, filled.header.as_ref())?;
        check_operators(spec, &self.request.operators, filled.header.as_ref())?;
        check_bounded(spec, filled.header.as_ref())?;
        Ok(Restored {
            store: Some(filled.store),
            header: filled.header,
            next_offset,
            unanchored: committed.is_none(),
            end_offset,
            synced_offset: self.end,
            log_start: filled.log_start,
            records_read: filled.records_read,
        })
    }

    /// Brings the store to the end of the changelog.
    fn fill(&mut self) -> Result<Filled, RestoreError> {
        let name = self.request.spec.id.to_string();
        for _ in 0..ATTEMPTS_MAX {
            match self.try_fill(&name) {
                Ok(filled) => return Ok(filled),
                Err(FillError::Useless(why)) => {
                    self.host.crash_point("during_restore");
                    self.stores.destroy(&name).map_err(|error| store_refused(&self.request.spec, &error))?;
                    tracing::warn!(task = %self.request.spec.id, "local state is dropped and restored: {why}");
                }
                Err(FillError::Corrupt(why)) => set_aside(&self.request.spec, self.stores, &why)?,
                Err(FillError::Restore(error)) => return Err(error),
            }
        }
        Err(RestoreError::Retry(format!(
            "task {}: the restore began {ATTEMPTS_MAX} times and never reached the end",
            self.request.spec.id
        )))
    }

    fn try_fill(&mut self, name: &str) -> Result<Filled, FillError> {
        let partition = &self.changelog.partition;
        let store = self.stores.open(name)?;
        let log_start = self.reader.log_start(partition).map_err(RestoreError::from)?;
        let position = store.position()?;
        if let apply::Start::Useless(why) =
            apply::start(position.as_ref(), self.changelog.topic_id, log_start, self.end)
        {
            return Err(FillError::Useless(why));
        }
        let mut applier =
            Applier::new(store.clone(), self.changelog.topic_id, log_start, self.request.buffer_bytes_max)
                .map_err(|error| self.apply_failed(error))?;
        let from = applier.from();
        self.read(from, &mut applier)?;
        let applied = applier.finish(self.end).map_err(|error| self.apply_failed(error))?;
        store.sync()?;
        Ok(Filled { store, header: applied.position.header, log_start, records_read: applied.records })
    }

    fn read(&mut self, from: i64, applier: &mut Applier) -> Result<(), FillError> {
        let (task, end, host) = (&self.request.spec.id, self.end, self.host);
        let mut failed = None;
        host.progress(task, from, from, end, 0);
        let read = self.reader.read(
            &self.changelog.partition,
            from,
            end,
            self.request.stall_ms,
            &mut |offset, record| {
                host.crash_point("during_restore");
                if host.is_cancelled() {
                    failed = Some(FillError::Restore(RestoreError::Cancelled));
                    return Err("called off".to_owned());
                }
                host.progress(task, from, offset, end, applier.progress().0 + 1);
                applier.push(offset, record).map_err(|error| {
                    let message = error.to_string();
                    failed = Some(apply_error(task, &self.changelog.partition, error));
                    message
                })
            },
        );
        match (failed, read) {
            (Some(error), _) => Err(error),
            (None, Err(LogError::OutOfRange(_))) if is_planted(Bug::AutomaticReset) => Ok(()),
            (None, Err(LogError::OutOfRange(why))) => Err(FillError::Useless(why)),
            (None, Err(error)) => Err(RestoreError::from(error).into()),
            (None, Ok(())) => {
                host.progress(task, from, end, end, applier.progress().0);
                Ok(())
            }
        }
    }

    fn apply_failed(&self, error: ApplyError) -> FillError {
        apply_error(&self.request.spec.id, &self.changelog.partition, error)
    }
}

enum FillError {
    /// The store cannot be brought up to date: begin with an empty one.
    Useless(String),
    /// The store cannot be trusted: set it aside.
    Corrupt(String),
    /// The restore failed.
    Restore(RestoreError),
}

impl From<RestoreError> for FillError {
    fn from(error: RestoreError) -> Self {
        FillError::Restore(error)
    }
}

impl From<StoreError> for FillError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Corrupt(why) => FillError::Corrupt(why),
            StoreError::Io(why) => FillError::Restore(RestoreError::Refused(why)),
        }
    }
}

fn apply_error(task: &TaskId, partition: &TopicPartition, error: ApplyError) -> FillError {
    match error {
        ApplyError::Store(error) => error.into(),
        ApplyError::Foreign(why) => FillError::Useless(why),
        error => FillError::Restore(RestoreError::Refused(format!("task {task}, {partition}: {error}"))),
    }
}
