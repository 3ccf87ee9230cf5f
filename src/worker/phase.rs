//! What a worker is doing.

/// The phases, and who leads from one to the next:
///
/// ```text
///            init done, no partitions          assigned
///  Starting ───────────────────────────▶ Idle ──────────▶ Restoring ─────▶ Running
///   ▲  │  │                               ▲ ▲    released   │    all done   │  ▲
///   │  │  │ init done, partitions         │ └──────────────┘               │  │ committed
///   │  │  └──────────────▶ Restoring      │          released              │  │
///   │  │                                  ├────────────────────────────────┤  │
///   │  │                                  │ committed, release due         ▼  │
///   │  │                                  └─────────────────────────── Committing
///   │  │                         doubt                                    │
///   └──┼───────────────────◀──────────────────────────────────────────────┘
///      │  doubt leads to Starting from Restoring and Running as well
///      ▼
///   Leaving ─▶ Stopped       a stop leads to Leaving from everywhere but Committing
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The producer is being made; partitions may be assigned meanwhile.
    Starting,
    /// No partitions.
    Idle,
    /// Partitions are assigned and their tasks are being restored.
    Restoring,
    /// Records are processed.
    Running,
    /// A transaction is under way; nothing is processed.
    Committing,
    /// The group has been left; what is committed is being flushed.
    Leaving,
    /// Nothing will happen any more.
    Stopped,
}

impl Phase {
    /// Whether the phase may be followed by `next`.
    pub fn may_become(self, next: Phase) -> bool {
        use Phase::{Committing, Idle, Leaving, Restoring, Running, Starting, Stopped};
        matches!(
            (self, next),
            (Starting, Idle | Restoring | Leaving)
                | (Idle, Restoring | Leaving | Starting)
                | (Restoring, Idle | Running | Starting | Leaving)
                | (Running, Idle | Committing | Starting | Leaving)
                | (Committing, Idle | Running | Starting)
                | (Leaving, Stopped)
        )
    }
}
