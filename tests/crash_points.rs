//! A process that dies at each of the named points of a checkpoint, a flush, a cut, a restore and a
//! revocation, and the results that come out all the same.

#![allow(clippy::disallowed_methods, reason = "tests live in real time; the engine does not")]

mod support;

use std::time::Duration;

use support::application::{Application, SHARED};
use support::broker::shared;
use support::kafka::{Admin, Writer};
use support::orders::{Generator, Orders, close_windows, produce};
use support::thalweg::{CRASH_POINTS, CRASHED, Start, Thalweg};
use support::unique;

const LIMIT: Duration = Duration::from_secs(90);

/// An application with some input, and more to come.
struct Scene {
    application: Application,
    writer: Writer,
    orders: Generator,
    _dir: support::Folder,
}

impl Scene {
    fn new(seed: u64) -> Scene {
        Scene::with_keys(seed, 200)
    }

    fn with_keys(seed: u64, keys: u64) -> Scene {
        let bootstrap = shared();
        let dir = support::Folder::new();
        let input = unique("orders");
        Admin::new(&bootstrap).create(&[(&input, 2)]);
        let spec = Orders { seed, keys, partitions: 2, step_ms: 25.0, ..Orders::default() };
        let application = Application::new(&SHARED, &bootstrap, &input, dir.path());
        let mut scene =
            Scene { application, writer: Writer::new(&bootstrap), orders: Generator::new(spec), _dir: dir };
        scene.produce(3_000);
        scene
    }

    fn produce(&mut self, count: u64) {
        produce(&self.writer, &self.application.input, &mut self.orders, count);
    }

    fn start(&self, state: &str) -> Start {
        self.application.start(state).busy_state().session_of_6_s()
    }

    /// Lets orders arrive until the process is dead, which must be at its crash point.
    fn until_it_crashes(&mut self, process: &mut Thalweg) {
        let start = std::time::Instant::now();
        while process.ended().is_none() {
            assert!(start.elapsed() < LIMIT, "it never came to its crash point; its log:\n{}", process.log());
            self.produce(200);
            std::thread::sleep(Duration::from_millis(50));
        }
        let code = process.exit_code(LIMIT);
        assert!(CRASHED.contains(&code), "it ended with {code}; its log:\n{}", process.log());
    }

    /// Runs on without faults, and compares.
    fn finish(&mut self, state: &str) {
        self.produce(2_000);
        close_windows(&self.writer, &self.application.input, &self.orders, 3_600_000);
        let mut process = self.start(state).spawn();
        let expected = self.application.expected(false);
        self.application.wait_for_outputs(&expected, LIMIT);
        process.stop(Duration::from_secs(10));
        self.application.check(&expected);
    }

    /// Runs until something was committed and flushed, then kills it.
    fn past(&mut self, state: &str) {
        let mut process = self.start(state).spawn();
        process.ready(LIMIT);
        support::wait_for("checkpoints", LIMIT, || {
            self.produce(200);
            (process.metric("thalweg_checkpoints_total") >= 5.0).then_some(())
        });
        process.kill();
    }
}

/// For the points that a process comes to by working.
fn dies_at(point: &str, nth: u32, seed: u64) {
    let mut scene = Scene::new(seed);
    let mut process = scene.start("state").crash_at(point, nth).spawn();
    scene.until_it_crashes(&mut process);
    scene.finish("state");
}

#[test]
fn every_point_has_a_test() {
    let source = include_str!("crash_points.rs");
    for point in CRASH_POINTS {
        assert!(source.contains(&format!("\"{point}\"")), "{point} has no test here");
    }
}

#[test]
fn offsets_sent_and_no_commit() {
    dies_at("offsets_sent", 3, 21);
}

#[test]
fn commit_sent_and_not_acknowledged() {
    dies_at("commit_sent", 3, 22);
}

#[test]
fn committed_and_not_noted() {
    dies_at("committed", 3, 23);
}

#[test]
fn committed_and_not_flushed() {
    dies_at("before_flush", 2, 24);
}

#[test]
fn in_the_middle_of_a_flush() {
    dies_at("during_flush", 2, 25);
}

#[test]
fn between_the_chunks_of_a_sweep() {
    // Enough state that a sweep takes several checkpoints.
    let mut scene = Scene::with_keys(26, 20_000);
    scene.produce(30_000);
    let mut process = scene.start("state").crash_at("between_chunks", 2).spawn();
    scene.until_it_crashes(&mut process);
    scene.finish("state");
}

#[test]
fn before_the_log_is_cut() {
    dies_at("before_delete_records", 2, 27);
}

#[test]
fn after_the_log_was_cut() {
    dies_at("after_delete_records", 2, 28);
}

#[test]
fn in_the_middle_of_a_restore() {
    let mut scene = Scene::new(29);
    scene.past("state");
    // Another state directory: an empty one.
    let mut process = scene.start("restored").crash_at("during_restore", 1).spawn();
    scene.until_it_crashes(&mut process);
    scene.finish("restored");
}

#[test]
fn in_the_middle_of_a_revocation() {
    let mut scene = Scene::new(30);
    let mut first = scene.start("state").crash_at("during_revoke", 1).spawn();
    first.ready(LIMIT);
    // A second member makes the group rebalance; it dies then, too, once the first is gone.
    let mut second = scene.start("other").spawn();
    scene.until_it_crashes(&mut first);
    second.ready(LIMIT);
    second.kill();
    scene.finish("state");
}
