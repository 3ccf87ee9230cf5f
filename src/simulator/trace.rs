//! What happened in a history: a hash of it, counts, and on demand its story.

use std::collections::BTreeMap;
use std::fmt;

/// Who did something, or to whom something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The cluster, or the world outside.
    World,
    /// A process, by its number.
    Process(usize),
    /// A worker of a process.
    Worker(usize, usize),
}

impl Who {
    /// The number of its process, if it is of one.
    pub fn process(self) -> Option<usize> {
        match self {
            Who::World => None,
            Who::Process(process) | Who::Worker(process, _) => Some(process),
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Who::World => "world".to_owned(),
            Who::Process(process) => format!("process {process}"),
            Who::Worker(process, worker) => format!("process {process}, worker {worker}"),
        };
        f.pad(&text)
    }
}

/// The record of a history.
pub struct Trace {
    hash: u64,
    counts: BTreeMap<&'static str, u64>,
    story: Option<Vec<String>>,
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01b3;

impl Trace {
    /// An empty one; with `story`, everything is told line by line.
    pub fn new(story: bool) -> Trace {
        Trace { hash: FNV_OFFSET, counts: BTreeMap::new(), story: story.then(Vec::new) }
    }

    /// Adds bytes to the hash (FNV-1a).
    pub fn hash(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME);
        }
    }

    /// Something happened, at a virtual time. `detail` is asked only when the story is told.
    pub fn note(&mut self, now_ms: u64, who: Who, what: &'static str, detail: impl FnOnce() -> String) {
        *self.counts.entry(what).or_default() += 1;
        let (process, worker) = match who {
            Who::World => (u8::MAX, u8::MAX),
            Who::Process(process) => (process as u8, u8::MAX),
            Who::Worker(process, worker) => (process as u8, worker as u8),
        };
        self.hash(what.as_bytes());
        self.hash(&[process, worker]);
        self.hash(&now_ms.to_le_bytes());
        if let Some(story) = &mut self.story {
            let detail = detail();
            let colon = if detail.is_empty() { "" } else { ": " };
            let (seconds, ms) = (now_ms / 1000, now_ms % 1000);
            story.push(format!("{seconds:>5}.{ms:03}  {who:<20} {what}{colon}{detail}"));
        }
    }

    /// A path was taken so many times, which is of interest only as a count.
    pub fn add(&mut self, what: &'static str, times: u64) {
        if times > 0 {
            *self.counts.entry(what).or_default() += times;
        }
    }

    /// The hash of all that happened so far, in its order.
    pub fn digest(&self) -> u64 {
        self.hash
    }

    /// How often each thing happened.
    pub fn counts(&self) -> &BTreeMap<&'static str, u64> {
        &self.counts
    }

    /// The story, if it was to be told.
    pub fn story(&self) -> &[String] {
        self.story.as_deref().unwrap_or_default()
    }
}
