use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

/// Runs one ignored test of this binary in a process of its own: for code that ends the process.
pub(super) fn run_ignored_test(name: &str, environment: &[(&str, &str)]) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "--test-threads=1", name])
        .envs(environment.iter().copied())
        .output()
        .unwrap()
}

fn metrics() -> (Metrics, Arc<Health>, Arc<AtomicU64>) {
    let time = Arc::new(AtomicU64::new(1000));
    let clock = Arc::clone(&time);
    let now: Monotonic = Arc::new(move || clock.load(Ordering::Relaxed));
    let health = Arc::new(Health::new(1, Arc::clone(&now)));
    (Metrics::new(Arc::clone(&health), now), health, time)
}

/// The lines of a scrape that begin with `name`.
fn lines(metrics: &Metrics, name: &str) -> Vec<String> {
    metrics.encode().unwrap().lines().filter(|line| line.starts_with(name)).map(str::to_owned).collect()
}

#[test]
fn counters_and_gauges_show_what_was_set() {
    let (metrics, health, time) = metrics();
    let source = metrics.source("orders", 3);
    source.add_records_in(40);
    source.add_records_in(2);
    source.set_lag(7);
    assert_eq!(
        lines(&metrics, "thalweg_records_in_total"),
        [r#"thalweg_records_in_total{topic="orders",partition="3"} 42"#]
    );
    assert_eq!(
        lines(&metrics, "thalweg_lag_records{"),
        [r#"thalweg_lag_records{topic="orders",partition="3"} 7"#]
    );
    let worker = metrics.worker(0);
    time.store(4500, Ordering::Relaxed);
    assert_eq!(
        lines(&metrics, "thalweg_checkpoint_age_seconds{"),
        [r#"thalweg_checkpoint_age_seconds{worker="0"} 3.5"#]
    );
    worker.checkpoint_done(250);
    assert_eq!(
        lines(&metrics, "thalweg_checkpoint_age_seconds{"),
        [r#"thalweg_checkpoint_age_seconds{worker="0"} 0.0"#]
    );
    assert_eq!(lines(&metrics, "thalweg_checkpoints_total"), [r#"thalweg_checkpoints_total{worker="0"} 1"#]);
    assert_eq!(
        lines(&metrics, "thalweg_checkpoint_duration_seconds_sum"),
        ["thalweg_checkpoint_duration_seconds_sum 0.25"]
    );
    health.set(0, crate::worker::Phase::Running, "");
    assert_eq!(
        lines(&metrics, "thalweg_worker_state{"),
        [r#"thalweg_worker_state{worker="0",state="running"} 1"#]
    );
}

#[test]
fn an_unknown_value_is_not_shown() {
    let (metrics, ..) = metrics();
    let task = metrics.task("orders", 0);
    assert_eq!(lines(&metrics, "thalweg_watermark_ms{"), [""; 0]);
    task.set_watermark(crate::time::MIN_TIME_MS);
    assert_eq!(lines(&metrics, "thalweg_watermark_ms{"), [""; 0]);
    task.set_watermark(-5);
    assert_eq!(
        lines(&metrics, "thalweg_watermark_ms{"),
        [r#"thalweg_watermark_ms{stage="orders",partition="0"} -5"#]
    );
}

#[test]
fn series_vanish_when_the_partition_moves_away_and_not_before() {
    let (metrics, ..) = metrics();
    let losing = metrics.source("orders", 0);
    losing.add_records_in(5);
    // The partition moves to another worker of this process, which takes its handle before the first
    // one drops its own.
    let gaining = metrics.source("orders", 0);
    drop(losing);
    gaining.add_records_in(6);
    assert_eq!(
        lines(&metrics, "thalweg_records_in_total"),
        [r#"thalweg_records_in_total{topic="orders",partition="0"} 11"#]
    );
    drop(gaining);
    assert_eq!(lines(&metrics, "thalweg_records_in_total"), [""; 0]);
    let back = metrics.source("orders", 0);
    back.add_records_in(1);
    assert_eq!(
        lines(&metrics, "thalweg_records_in_total"),
        [r#"thalweg_records_in_total{topic="orders",partition="0"} 1"#]
    );
}

/// A scrape in which every metric has a value.
fn full_scrape() -> String {
    let (metrics, ..) = metrics();
    let source = metrics.source("orders", 0);
    source.set_lag(0);
    let task = metrics.task("orders", 0);
    task.set_watermark(0);
    task.set_alignment(Some(1_500), 2_250);
    task.add_restored(10, 0.5);
    task.set_state_bytes(1);
    task.set_cache_bytes(2);
    task.set_changelog_cut(1);
    task.set_flushed(1);
    let worker = metrics.worker(0);
    worker.checkpoint_done(3);
    metrics.records_out("revenue").inc();
    metrics.records_late("per_minute").inc();
    metrics.duplicates("once").inc();
    metrics.records_failed("orders").inc();
    metrics.dead_letters("orders-rejected").inc();
    metrics.encode().unwrap()
}

#[test]
fn a_scrape_looks_like_this() {
    insta::assert_snapshot!(full_scrape().replace(env!("CARGO_PKG_VERSION"), "VERSION"));
}

#[test]
fn every_metric_is_in_the_operations_guide_with_its_labels() {
    let guide = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md")).unwrap();
    let mut seen = 0;
    for line in full_scrape().lines().filter(|line| line.starts_with("thalweg_")) {
        let name = line.split(['{', ' ']).next().unwrap();
        let name =
            ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        let labels: Vec<&str> = line
            .split_once('{')
            .map(|(_, rest)| rest.split(',').filter_map(|label| Some(label.split_once('=')?.0)).collect())
            .unwrap_or_default();
        let row = guide.lines().find(|row| row.contains(&format!("| `{name}` |")));
        let row = row.unwrap_or_else(|| panic!("docs/operations.md has no row for {name}"));
        for label in labels.iter().filter(|label| **label != "le") {
            assert!(row.contains(label), "the row of {name} does not name its label {label}: {row}");
        }
        seen += 1;
    }
    assert!(seen > 20, "only {seen} series in the scrape");
}

#[test]
fn every_crash_point_is_in_the_operations_guide() {
    let guide = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md")).unwrap();
    for (name, _) in crash::POINTS {
        assert!(guide.contains(&format!("`{name}`")), "docs/operations.md does not name {name}");
    }
}

#[test]
fn the_clock_does_not_go_back() {
    let (first, second) = (monotonic(), monotonic());
    let (a, b) = (first(), second());
    assert!(a <= b && b <= first());
}
