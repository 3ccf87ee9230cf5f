//! What a process tells the outside: metrics, health, logs; and how it ends when something breaks.
//!
//! The engine knows nothing of this module. The runtime counts on its behalf, once per batch or per
//! checkpoint, never once per record.

pub mod crash;
pub mod health;
mod logging;
pub mod metrics;
mod series;

pub use health::Health;
pub use logging::{end_process_on_panic, init_logging};
pub use metrics::Metrics;

use std::sync::Arc;

/// A clock for ages and time-outs: milliseconds since an arbitrary start; never goes back.
pub type Monotonic = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The process's [`Monotonic`] clock. All of them count from the same start, the first call.
pub fn monotonic() -> Monotonic {
    Arc::new(|| {
        static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
        #[expect(clippy::disallowed_methods, reason = "the runtime is where time comes from")]
        let (start, now) = (START.get_or_init(std::time::Instant::now), std::time::Instant::now());
        now.saturating_duration_since(*start).as_millis() as u64
    })
}

/// What the machine's clock shows, in milliseconds since the Unix epoch. It may be set back.
pub fn clock_ms() -> i64 {
    #[expect(clippy::disallowed_methods, reason = "the runtime is where time comes from")]
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

#[cfg(test)]
mod tests;
