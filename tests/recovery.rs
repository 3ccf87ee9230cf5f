//! What a restart costs and what a changelog may grow to.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use support::application::{Application, Case, REVENUE};
use support::broker::shared;
use support::kafka::{Admin, Isolation, Reader, Writer};
use support::orders::{Generator, Orders, close_windows, produce};
use support::thalweg::{CRASHED, Metrics, Start, Thalweg};
use support::{unique, wait_for};

const LIMIT: Duration = Duration::from_secs(90);
const PARTITIONS: i32 = 2;

struct Scene {
    application: Application,
    admin: Admin,
    writer: Writer,
    orders: Generator,
    _dir: support::Folder,
}

impl Scene {
    fn new(case: &'static Case, spec: Orders) -> Scene {
        let bootstrap = shared();
        let dir = support::Folder::new();
        let input = unique("orders");
        let admin = Admin::new(&bootstrap);
        admin.create(&[(&input, PARTITIONS)]);
        let orders = Generator::new(Orders { partitions: PARTITIONS, ..spec });
        let application = Application::new(case, &bootstrap, &input, dir.path());
        Scene { application, admin, writer: Writer::new(&bootstrap), orders, _dir: dir }
    }

    fn produce(&mut self, count: u64) {
        produce(&self.writer, &self.application.input, &mut self.orders, count);
    }

    fn start(&self, state: &str) -> Start {
        self.application.start(state).busy_state().session_of_6_s()
    }

    /// Lets orders arrive until `reached`.
    fn work_until<T>(
        &mut self,
        what: &str,
        process: &mut Thalweg,
        reached: impl Fn(&Metrics) -> Option<T>,
    ) -> T {
        wait_for(what, LIMIT, || {
            assert!(process.ended().is_none(), "it ended; its log:\n{}", process.log());
            self.produce(300);
            reached(&process.metrics()?)
        })
    }

    fn finish(&mut self, process: &mut Thalweg) {
        close_windows(&self.writer, &self.application.input, &self.orders, 3_600_000);
        let expected = self.application.expected(false);
        self.application.wait_for_outputs(&expected, LIMIT);
        process.stop(Duration::from_secs(10));
        self.application.check(&expected);
    }

    /// Live changelog records per partition: offsets and bytes.
    fn changelog(&self) -> BTreeMap<i32, Vec<(i64, usize)>> {
        let mut reader =
            Reader::new(&self.application.bootstrap, &self.application.changelog(), Isolation::Committed);
        reader.read_to_end();
        let mut by_partition = BTreeMap::<i32, Vec<(i64, usize)>>::new();
        for record in &reader.records {
            let bytes = record.value.as_ref().map_or(0, Vec::len);
            by_partition.entry(record.partition).or_default().push((record.offset, bytes));
        }
        by_partition
    }
}

/// A metric of each partition of the only stage.
fn per_partition(metrics: &Metrics, name: &str) -> BTreeMap<i32, f64> {
    let partition = |labels: &str| {
        let (_, rest) = labels.split_once("partition=\"")?;
        rest.split('"').next()?.parse().ok()
    };
    metrics.of(name).filter_map(|(labels, value)| Some((partition(labels)?, value))).collect()
}

/// All partitions have this metric, and it is above 0.
fn all_above_zero(metrics: &Metrics, name: &str) -> Option<BTreeMap<i32, f64>> {
    let values = per_partition(metrics, name);
    (values.len() == PARTITIONS as usize && values.values().all(|v| *v > 0.0)).then_some(values)
}

#[test]
fn after_a_kill_only_what_was_not_flushed_is_read_again() {
    let mut scene = Scene::new(&REVENUE, Orders { seed: 31, keys: 20_000, ..Orders::default() });
    // Small chunks of much state: a sweep takes longer than a flush, so that the log is not cut up to
    // where the store is.
    let mut process = scene.start("state").set("state.chunk_bytes_floor", "1B").spawn();
    process.ready(LIMIT);
    scene.work_until("a first flush", &mut process, |m| all_above_zero(m, "thalweg_flushed_offset"));
    // Some more, so that there is something behind the flushed offset and something before it.
    let goal = process.metric("thalweg_checkpoints_total") + 10.0;
    let flushed = scene.work_until("more checkpoints", &mut process, |m| {
        (m.sum("thalweg_checkpoints_total") >= goal).then(|| per_partition(m, "thalweg_flushed_offset"))
    });
    process.kill();
    let live = scene.changelog();
    let records_from = |partition: &i32, offset: f64| {
        live[partition].iter().filter(|(o, _)| *o as f64 >= offset).count() as f64
    };

    let mut process = scene.start("state").spawn();
    process.ready(LIMIT);
    let metrics = process.metrics().expect("metrics");
    let read = per_partition(&metrics, "thalweg_restore_records_total");
    let mut spared = 0.0;
    for (partition, flushed) in &flushed {
        let read = read.get(partition).copied().unwrap_or(0.0);
        // The store may have flushed once more between the scrape and the kill, never less.
        let unflushed = records_from(partition, *flushed);
        assert!(
            read <= unflushed,
            "partition {partition}: {read} records read, {unflushed} were not flushed"
        );
        spared += records_from(partition, 0.0) - unflushed;
    }
    assert!(spared > 0.0, "this shows nothing: the log holds no record that was flushed");
    process.kill();

    // The same on an empty disk reads all of them: the counter counts.
    let mut process = scene.start("empty").spawn();
    process.ready(LIMIT);
    let read = per_partition(&process.metrics().expect("metrics"), "thalweg_restore_records_total");
    for (partition, records) in scene.changelog() {
        assert!(read[&partition] >= records.len() as f64 / 2.0, "partition {partition}: {read:?}");
    }
    scene.finish(&mut process);
}

#[test]
fn the_log_start_moves_and_an_empty_disk_is_restored_from_there() {
    let mut scene =
        Scene::new(&REVENUE, Orders { seed: 32, keys: 20_000, step_ms: 1.0, ..Orders::default() });
    // So much state that a sweep takes many checkpoints, and a flush comes before its end.
    scene.produce(20_000);
    let mut process = scene.start("state").spawn();
    process.ready(LIMIT);
    scene
        .work_until("the log to be cut", &mut process, |m| all_above_zero(m, "thalweg_changelog_cut_offset"));
    process.kill();
    let bounds = scene.admin.bounds(&scene.application.changelog());
    assert!(bounds.iter().all(|(start, end)| 0 < *start && start <= end), "{bounds:?}");
    let mut process = scene.start("empty").spawn();
    process.ready(LIMIT);
    scene.produce(1_000);
    scene.finish(&mut process);
}

/// A window that stays open over the whole test: its state is updated again and again.
static DAYS: Case = Case {
    name: "days",
    yaml: r#"
operators:
  per_day:
    type: window
    input: orders
    key_by: [customer]
    window: { type: tumbling, size: 24h }
    aggregate: { orders: 'count()', revenue: 'sum(amount)' }
sinks:
  days: { input: per_day, topic: OUT0, key: [customer], format: { type: json } }
"#,
    ..REVENUE
};

#[test]
fn a_changelog_stays_small_however_long_its_state_is_updated() {
    let spec = Orders { seed: 33, keys: 2_000, step_ms: 0.1, ..Orders::default() };
    let mut scene = Scene::new(&DAYS, spec);
    let mut process = scene.start("state").spawn();
    process.ready(LIMIT);
    // Every key has been seen; one sweep of chunks shows what the state weighs in the log. Many more must
    // not weigh more.
    scene.produce(20_000);
    scene
        .work_until("the log to be cut", &mut process, |m| all_above_zero(m, "thalweg_changelog_cut_offset"));
    let bytes =
        |scene: &Scene| -> usize { scene.changelog().values().flatten().map(|(_, bytes)| bytes).sum() };
    let first = bytes(&scene);
    let end = |scene: &Scene| -> i64 {
        scene.admin.bounds(&scene.application.changelog()).iter().map(|b| b.1).sum()
    };
    let first_end = end(&scene);
    wait_for("the log to become ten times as long", LIMIT, || {
        scene.produce(1_000);
        (end(&scene) > 10 * first_end).then_some(())
    });
    // Between two cuts it holds what was not flushed yet as well; behind one it is small again.
    wait_for("the changelog to be about as small as it was", LIMIT, || {
        scene.produce(200);
        (bytes(&scene) < 4 * first).then_some(())
    });
    process.stop(Duration::from_secs(10));
}

/// The process that has done its share stays a member until the others have done theirs, and takes over what
/// one leaves that dies for good.
#[test]
fn a_bounded_run_is_finished_by_those_who_are_left() {
    let mut scene = Scene::new(&REVENUE, Orders { seed: 36, ..Orders::default() });
    scene.produce(3_000);
    let start = |state| scene.start(state).workers(1).bounded();
    // It commits late, so that the other one gets a partition before, and dies in its first commit.
    let mut dying = start("dies").commit_interval("8s").crash_at("offsets_sent", 1).spawn();
    wait_for("a member", LIMIT, || (scene.admin.group_members(&scene.application.name) > 0).then_some(()));
    let mut left = start("is-left").commit_interval("20ms").spawn();
    assert!(CRASHED.contains(&dying.exit_code(LIMIT)), "its log:\n{}", dying.log());
    assert_eq!(left.exit_code(LIMIT), 0, "its log:\n{}", left.log());
    assert!(left.log().contains("waits until the others have"), "void: it did all; its log:\n{}", left.log());
    scene.application.check(&scene.application.expected(true));
}
