//! What the tests of bad surroundings share.

use std::path::Path;
use std::time::Duration;

use super::application::{Application, Case, REVENUE};
use super::kafka::{Admin, Writer};
use super::orders::{Generator, Orders, close_windows, produce};
use super::thalweg::{Start, Thalweg};
use super::{Folder, unique, wait_for};

/// How long anything may take.
pub const LIMIT: Duration = Duration::from_secs(90);
/// How long an end in order may take.
pub const STOP: Duration = Duration::from_secs(10);

/// An application with an input of its own, and what the tests of surroundings do with it.
pub struct Scene {
    /// The application.
    pub application: Application,
    /// Writes to its input.
    pub writer: Writer,
    /// What was written, and what comes next.
    pub orders: Generator,
    dir: Folder,
}

impl Scene {
    /// A topology on a broker, with an empty input.
    pub fn new(bootstrap: &str, case: &'static Case, orders: Orders) -> Scene {
        let dir = Folder::new();
        let input = unique("orders");
        Admin::new(bootstrap).create(&[(&input, orders.partitions)]);
        let application = Application::new(case, bootstrap, &input, dir.path());
        Scene { application, writer: Writer::new(bootstrap), orders: Generator::new(orders), dir }
    }

    /// The topology `revenue` with two minutes of orders.
    pub fn revenue(bootstrap: &str, seed: u64) -> Scene {
        let mut scene = Scene::new(bootstrap, &REVENUE, Orders { seed, step_ms: 40.0, ..Orders::default() });
        scene.produce(3_000);
        scene
    }

    /// The folder of its files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Writes more orders.
    pub fn produce(&mut self, count: u64) {
        produce(&self.writer, &self.application.input, &mut self.orders, count);
    }

    /// Replaces text in the topology file.
    pub fn edit(&self, from: &str, to: &str) {
        let yaml = std::fs::read_to_string(&self.application.file).expect("the topology");
        assert!(yaml.contains(from), "{from} is not in the topology");
        std::fs::write(&self.application.file, yaml.replace(from, to)).expect("the topology");
    }

    /// Closes all windows, waits for the results, stops the processes and compares everything with the
    /// reference fold.
    pub fn finish(&mut self, processes: &mut [&mut Thalweg]) {
        close_windows(&self.writer, &self.application.input, &self.orders, 3_600_000);
        let expected = self.application.expected(false);
        self.application.wait_for_outputs(&expected, LIMIT);
        processes.iter_mut().for_each(|p| p.stop(STOP));
        self.application.check(&expected);
    }

    /// Runs until it has flushed something.
    pub fn flushed(&mut self, start: &Start) -> Thalweg {
        let mut process = start.spawn();
        process.ready(LIMIT);
        wait_for("a flush", LIMIT, || {
            self.produce(200);
            let metrics = process.metrics()?;
            (metrics.sum("thalweg_flushed_offset") > 0.0).then_some(())
        });
        process
    }
}

/// The process ends by itself with exit code 1, and its log names all of `what`.
pub fn stops_and_says(process: &mut Thalweg, what: &[&str]) {
    let code = process.exit_code(LIMIT);
    let log = process.log();
    assert_eq!(code, 1, "its log:\n{log}");
    for what in what {
        assert!(log.contains(what), "its log does not say {what:?}:\n{log}");
    }
}
