//! What the integration tests, the demo and the benchmarks share. It looks at Thalweg from outside: it
//! starts the binary and reads topics, and uses none of the engine's code.
#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(clippy::disallowed_methods, reason = "tests live in real time; the engine does not")]

pub mod application;
pub mod broker;
pub mod kafka;
pub mod orders;
pub mod proxy;
pub mod random;
pub mod reference;
pub mod rights;
pub mod scene;
pub mod thalweg;

use std::time::{Duration, Instant};

/// Calls `check` until it gives a value; panics with what `what` says when `limit` is over.
pub fn wait_for<T>(what: &str, limit: Duration, mut check: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} in vain for: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A port of 127.0.0.1 that nothing listens on, below the range from which the kernel takes ports for
/// clients, so that a broker finds it free again after a restart. No port is given out twice.
pub fn free_port() -> u16 {
    static GIVEN: std::sync::Mutex<std::collections::BTreeSet<u16>> =
        std::sync::Mutex::new(std::collections::BTreeSet::new());
    let mut given = GIVEN.lock().expect("not poisoned");
    let mut random = random::Random::new(u64::from(std::process::id()) ^ (unix_ms() as u64) << 20);
    for _ in 0..1000 {
        let port = 20_000 + random.below(10_000) as u16;
        if !given.contains(&port) && std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            given.insert(port);
            return port;
        }
    }
    panic!("no port between 20000 and 29999 is free");
}

/// Milliseconds since the Unix epoch.
pub fn unix_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.expect("the clock is after 1970").as_millis() as i64
}

/// A setting from the environment, or its default. A value that does not parse is an error, not the
/// default.
pub fn env_or<T: std::str::FromStr>(name: &str, default: T) -> T {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")),
        Err(_) => default,
    }
}

/// A name that no other test and no earlier run has used on the broker.
pub fn unique(name: &str) -> String {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let n = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    format!("{name}-{}-{}-{n}", unix_ms(), std::process::id())
}

/// The end of a long text, for messages.
pub fn tail(text: &str, bytes: usize) -> &str {
    let mut from = text.len().saturating_sub(bytes);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    &text[from..]
}

/// A temporary folder that goes with the test, unless that fails: then it stays, for its logs.
pub struct Folder(Option<tempfile::TempDir>);

impl Folder {
    /// Creates one.
    #[allow(clippy::new_without_default, reason = "it does more than a default value")]
    pub fn new() -> Folder {
        Folder(Some(tempfile::tempdir().expect("a temporary folder")))
    }

    /// Where it is.
    pub fn path(&self) -> &std::path::Path {
        self.0.as_ref().expect("it is there until it is dropped").path()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Some(dir) = self.0.take().filter(|_| std::thread::panicking()) {
            eprintln!("its files stay in {}", dir.keep().display());
        }
    }
}
