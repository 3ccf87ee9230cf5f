//! Bugs that can be planted on purpose, to show that the simulator finds each.
//!
//! At each place where the engine (or a client of the model, which does what that on librdkafka does) could go
//! wrong in a way that matters, the wrong variant stands beside the
//! right one behind [`is_planted`]. That is `false` at compile time, and the wrong variant is gone from
//! the binary, unless this crate is built for its own tests or with the feature `planted-bugs`. Even then
//! nothing is planted unless a thread asks for it (`plant`), and for that thread alone.
//!
//! Of the errors that the design rules out, one cannot be planted: a task that starts with half of its
//! inputs, since a task has one input.

/// Declares the bugs, each with its name, so that none is missing among [`Bug::ALL`].
macro_rules! bugs {
    ($($(#[$doc:meta])* $bug:ident = $name:literal,)+) => {
        /// A bug that can be planted. Each says what is done wrong, and what does not hold any more.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Bug {
            $($(#[$doc])* $bug,)+
        }

        impl Bug {
            /// All of them, in the order in which they are declared.
            pub const ALL: &[Bug] = &[$(Bug::$bug,)+];

            /// What it is called: a few words, joined by hyphens.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Bug::$bug => $name,)+
                }
            }
        }
    };
}

bugs! {
    // ---- commits ----
    /// The offsets of one of several tasks are left out of the transaction: what it commits does not hold
    /// all that belongs together.
    OffsetsOfOneTaskLeftOut = "offsets-of-one-task-left-out",
    /// A transaction now and then sends no offsets: nothing fences it, and its records are read again.
    OffsetsNotSent = "offsets-not-sent",
    /// A consumer that is no member of the group commits as nobody, generation -1, which the coordinator
    /// does not check: partitions that somebody else owns are committed.
    CommitAsNobody = "commit-as-nobody",
    /// A worker keeps its tasks when its partitions are revoked, and commits what they hold under its next
    /// membership: partitions that were lost in between are committed.
    CommitAsNewerMember = "commit-as-newer-member",
    /// The membership of a commit is not compared with the one that came with the assignment.
    MembershipNotCompared = "membership-not-compared",
    /// A commit of unknown outcome is taken as done: if it was aborted, its records are lost.
    DoubtTakenAsDone = "doubt-taken-as-done",
    /// A commit of unknown outcome is taken as failed and made again: if it was done, it is done twice.
    DoubtTakenAsFailed = "doubt-taken-as-failed",
    /// The producer is used on after a transaction end that may have been sent twice: a late copy ends the
    /// next transaction in its middle.
    ProducerKept = "producer-kept",
    /// What is in memory is kept when a transaction was aborted: its records change the state twice.
    CacheKept = "cache-kept",
    /// Reading goes on where it was before a recovery: records that come from the epoch before are
    /// applied, those between the checkpoint and them are not.
    OldBatchApplied = "old-batch-applied",
    /// Dead letters are written outside of the transaction: they stay when it is aborted.
    DeadLetterOutside = "dead-letter-outside",
    /// A checkpoint starts while the last commit is not acknowledged: two transactions at once.
    CommitDuringCommit = "commit-during-commit",
    /// Partitions are given back while a commit is running: their new owner may start before it ends.
    ReleaseDuringCommit = "release-during-commit",
    /// A worker commits once more after its partitions were revoked.
    CommitAfterRelease = "commit-after-release",

    // ---- restores ----
    /// A restore ends at the last stable offset instead of the high watermark: records that are committed
    /// behind an open transaction are missing.
    RestoreToLastStable = "restore-to-last-stable",
    /// The high watermark is read before the group's committed offsets: a commit in between is missing
    /// from the state and not from the offsets.
    HighWatermarkFirst = "high-watermark-first",
    /// The group's offset is not compared with that of the restored state.
    OffsetsNotCompared = "offsets-not-compared",
    /// Both of these: what the order of the look-ups prevents, and the comparison would notice.
    HighWatermarkFirstNotCompared = "high-watermark-first-not-compared",
    /// The group's committed offsets are read while a transaction on them is open: those that it commits
    /// are missed.
    UnstableOffsets = "unstable-offsets",
    /// A restore that nobody waits for any more counts for the assignment that has come since.
    OldRestoreApplied = "old-restore-applied",
    /// An offset that is gone from the changelog is passed over, as an automatic reset would: what stood
    /// there is missing.
    AutomaticReset = "automatic-reset",
    /// A restore that was interrupted counts as a whole store: what chunks hold is missing.
    RestoringForgotten = "restoring-forgotten",
    /// A restore leaves out all parts of a delta but the first.
    LaterPartsLost = "later-parts-lost",
    /// Where to start reading is not committed before anything is processed: after a crash the start at
    /// the newest record is another one, and records are missed.
    StartNotAnchored = "start-not-anchored",

    // ---- the store ----
    /// A checkpoint is written to the store before it is acknowledged: the store may run ahead of the
    /// changelog.
    StoreBeforeAck = "store-before-ack",
    /// A flush of an older epoch counts for the task of this one: it says what is in the store, and may
    /// be wrong; two flushes run at once.
    OldFlushApplied = "old-flush-applied",
    /// A delta is applied a second time, after a later one: older values replace newer ones.
    DeltaTwice = "delta-twice",
    /// The stored offset is one lower than what is stored: records are applied again.
    OffsetMovedBack = "offset-moved-back",
    /// A range deletion is applied after the points of its own delta and takes them away.
    RangeAfterPoints = "range-after-points",
    /// A range deletion does not hide older points that are flushed together with it: they come back.
    RangeSparesUnflushed = "range-spares-unflushed",
    /// Entries are evicted that the store does not hold yet in their newest form: older ones are read.
    UnflushedEvicted = "unflushed-evicted",
    /// A flush that failed is taken as done: what it was to write is not in the store, and is evicted and
    /// cut off the log.
    FailedFlushTakenAsDone = "failed-flush-taken-as-done",
    /// An entry that cannot be read because the store is damaged counts as one that never was.
    CorruptEntryForgotten = "corrupt-entry-forgotten",
    /// Intake goes on however much memory cannot be evicted.
    MemoryUnbounded = "memory-unbounded",

    // ---- the changelog ----
    /// The log is cut at the begin of the sweep under way: what was not swept yet is gone.
    CutAtSweepUnderWay = "cut-at-sweep-under-way",
    /// The log is cut although the store is not safe on the disk: after a crash it is behind the log.
    CutBeforeSync = "cut-before-sync",
    /// The restore point is the begin of the sweep under way: a restore from there lacks what was not
    /// swept yet.
    RestorePointUnderWay = "restore-point-under-way",
    /// A chunk stands before the delta of its checkpoint.
    ChunkBeforeDelta = "chunk-before-delta",
    /// A chunk holds what the store does, as of before its checkpoint: it puts older values into the log
    /// behind newer ones.
    StaleChunk = "stale-chunk",

    // ---- time and windows ----
    /// The watermark is not restored: records that were late are not any more.
    WatermarkNotRestored = "watermark-not-restored",
    /// A window that has fired is not deleted: it fires again after a restart.
    FiredAgain = "fired-again",
    /// How far a window has been closed is not restored: rows are written twice.
    CursorNotRestored = "cursor-not-restored",
    /// Which of the windows that overlap have fired is not restored in the middle of one: rows are written twice.
    FiredEndNotRestored = "fired-end-not-restored",
    /// A window is made of all of its panes but the oldest.
    PaneForgotten = "pane-forgotten",
    /// A window that begins anew keeps what a refinement of it has told: the next one tells it again.
    RefinementNotPurged = "refinement-not-purged",
    /// A record joins the first session that it finds, and leaves the next one as it is.
    SessionsNotJoined = "sessions-not-joined",
    /// A session that has closed takes records all the same.
    ClosedSessionJoined = "closed-session-joined",
    /// A session's end that is nearer than what was looked for is not noted: it fires with the next restart.
    SessionEndNotNoted = "session-end-not-noted",
    /// What was told of a window is no part of its entry: whoever reads that again takes it for what it holds, or for nothing.
    ToldNotStored = "told-not-stored",
    /// A window that has fired is taken for one that has told nothing since its last early row: that is taken back again.
    FiringNotTold = "firing-not-told",
    /// What was told of sessions that have become one, or end later now, is not taken back.
    PartNotTakenBack = "part-not-taken-back",
    /// A duplicate is looked for only among what expires in the same bucket as it would: what passed a little
    /// earlier or later is missed.
    NeighbourBucketForgotten = "neighbour-bucket-forgotten",
    /// What is remembered of a key counts until its bucket goes, and not only until it expires: what is a duplicate
    /// depends on where buckets end.
    ExpiredEntryCounts = "expired-entry-counts",
    /// What a record leaves for the next one stays where that of the one before it lay, and goes with that.
    LagNotMoved = "lag-not-moved",
    /// Lateness is judged by the batch instead of the record: it depends on how records are fetched.
    LateByBatch = "late-by-batch",
    /// The end of a bounded run is stored as a watermark: whoever goes on finds everything late.
    EndStoredAsWatermark = "end-stored-as-watermark",
    /// A bounded run does not stop at its end.
    BoundedRunsOn = "bounded-runs-on",
    /// A process of a bounded run ends when its own share is done: what another one leaves is not read.
    BoundedRunEndsAlone = "bounded-run-ends-alone",

    // ---- key changes ----
    /// What a task's rows came to is not sent with the checkpoint that their offsets are in: a crash loses it.
    PartsHeldBeyondCheckpoint = "parts-held-beyond-checkpoint",
    /// The watermark overtakes what a task's rows came to, which is late where it arrives.
    WatermarkBeforeParts = "watermark-before-parts",
    /// A task that has not said anything yet is not waited for: its records come late.
    UpstreamForgotten = "upstream-forgotten",
    /// A task that was idle and goes on is not waited for again.
    IdleNotWithdrawn = "idle-not-withdrawn",
    /// What was heard of the tasks that write a repartition topic is not restored.
    UpstreamsNotRestored = "upstreams-not-restored",
    /// A watermark is sent in a transaction before that of the rows that lie before it.
    MarkBeforeRows = "mark-before-rows",
    /// A repartition topic is cut behind what was processed and is not committed.
    SourceCutUncommitted = "source-cut-uncommitted",

    // ---- alignment ----
    /// A partition that is idle is waited for all the same: those that are ahead of it are not read any more.
    IdleHoldsBack = "idle-holds-back",
    /// Partitions wait for those that are ahead of all others, and so for nobody.
    AlignedWithGreatest = "aligned-with-greatest",
    /// What a worker told its neighbours stays when it gives its partitions back: they go by that, whoever has them.
    NeighbourKept = "neighbour-kept",
}

/// Whether this bug is planted: never, in production.
#[cfg(not(any(test, feature = "planted-bugs")))]
#[inline(always)]
pub const fn is_planted(_: Bug) -> bool {
    false
}

#[cfg(any(test, feature = "planted-bugs"))]
pub use switch::{Planted, is_planted, plant};

#[cfg(any(test, feature = "planted-bugs"))]
mod switch {
    use std::cell::Cell;
    use std::marker::PhantomData;

    use super::Bug;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Whether this bug is planted in this thread.
    pub fn is_planted(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }

    /// Plants a bug in this thread, until what is returned is dropped.
    pub fn plant(bug: Bug) -> Planted {
        Planted { before: PLANTED.replace(Some(bug)), of_this_thread: PhantomData }
    }

    /// A planted bug; dropping it restores what was planted before.
    #[must_use]
    pub struct Planted {
        before: Option<Bug>,
        of_this_thread: PhantomData<*const ()>,
    }

    impl Drop for Planted {
        fn drop(&mut self) {
            PLANTED.set(self.before);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_bug_has_a_name_of_its_own() {
        let names: BTreeSet<&str> = Bug::ALL.iter().map(|bug| bug.name()).collect();
        assert_eq!(names.len(), Bug::ALL.len());
        let is_name = |name: &str| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
        assert!(names.iter().all(|name| is_name(name)), "{names:?}");
    }

    #[test]
    fn a_bug_is_planted_in_one_thread_until_its_guard_is_dropped() {
        let planted = || Bug::ALL.iter().copied().filter(|bug| is_planted(*bug)).collect::<Vec<_>>();
        assert_eq!(planted(), []);
        let outer = plant(Bug::CacheKept);
        {
            let _inner = plant(Bug::StaleChunk);
            assert_eq!(planted(), [Bug::StaleChunk]);
            let elsewhere = std::thread::spawn(|| Bug::ALL.iter().any(|bug| is_planted(*bug)));
            assert!(!elsewhere.join().unwrap(), "another thread has none");
        }
        assert_eq!(planted(), [Bug::CacheKept]);
        drop(outer);
        assert_eq!(planted(), []);
    }

    #[test]
    fn a_panic_takes_the_bug_away() {
        let caught = std::panic::catch_unwind(|| {
            let _planted = plant(Bug::CacheKept);
            panic!("on purpose");
        });
        assert!(caught.is_err() && !is_planted(Bug::CacheKept));
    }
}
