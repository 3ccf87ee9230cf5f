//! The results of a topology equal the reference fold, however many workers run it, however often they
//! commit, and whether the input ends or not.

mod support;

use std::time::Duration;

use support::application::{Application, COPY, Case, REVENUE, SHARED, STATISTICS, UPDATES};
use support::broker::shared;
use support::kafka::{Admin, Writer};
use support::orders::{Generator, Orders, close_windows, produce};
use support::unique;

const RECORDS: u64 = 20_000;
const LIMIT: Duration = Duration::from_secs(90);

fn equals_the_reference_fold(case: &'static Case, seed: u64) {
    let bootstrap = shared();
    let dir = support::Folder::new();
    let input = unique("orders");
    Admin::new(&bootstrap).create(&[(&input, 4)]);
    let writer = Writer::new(&bootstrap);
    // Some 13 minutes of event time.
    let mut orders = Generator::new(Orders { seed, keys: 200, step_ms: 40.0, ..Orders::default() });
    produce(&writer, &input, &mut orders, RECORDS / 2);

    // The first run meets half of its input when it starts, and the other half while it runs.
    let live = Application::new(case, &bootstrap, &input, dir.path());
    let mut process = live.start("state").workers(3).commit_interval("20ms").spawn();
    process.ready(LIMIT);
    produce(&writer, &input, &mut orders, RECORDS / 2);
    close_windows(&writer, &input, &orders, 3_600_000);
    let expected = live.expected(false);
    assert!(
        !expected.folded.rejected.is_empty() && !expected.folded.late.is_empty(),
        "the input tests nothing"
    );
    live.wait_for_outputs(&expected, LIMIT);
    process.stop(Duration::from_secs(10));
    live.check(&expected);

    let unbounded = Application::new(case, &bootstrap, &input, dir.path());
    let mut process = unbounded.start("state").workers(1).commit_interval("1s").spawn();
    unbounded.wait_for_outputs(&expected, LIMIT);
    process.stop(Duration::from_secs(10));
    unbounded.check(&expected);

    for (workers, interval) in [(1, "20ms"), (3, "1s")] {
        let bounded = Application::new(case, &bootstrap, &input, dir.path());
        let start = bounded.start("state").workers(workers).commit_interval(interval);
        start.run_bounded(LIMIT);
        let expected = bounded.expected(true);
        bounded.check(&expected);
        // A finished topology says so, and does nothing.
        let again = start.run_bounded(LIMIT);
        assert!(again.log().contains("finished"), "{}", again.log());
        bounded.check(&expected);
    }
}

#[test]
fn counts_and_sums_per_minute() {
    equals_the_reference_fold(&REVENUE, 11);
}

#[test]
fn every_aggregate_and_late_records() {
    equals_the_reference_fold(&STATISTICS, 12);
}

#[test]
fn a_topology_without_state() {
    equals_the_reference_fold(&COPY, 13);
}

#[test]
fn a_row_for_every_update() {
    equals_the_reference_fold(&UPDATES, 14);
}

#[test]
fn one_stream_read_by_windows_of_all_kinds_and_a_sink() {
    equals_the_reference_fold(&SHARED, 15);
}

/// Some twenty minutes of orders: half a minute is soon read.
#[test]
fn partitions_that_wait_for_one_another() {
    let bootstrap = shared();
    let dir = support::Folder::new();
    let input = unique("orders");
    Admin::new(&bootstrap).create(&[(&input, 4)]);
    let writer = Writer::new(&bootstrap);
    let mut orders = Generator::new(Orders { seed: 16, keys: 200, step_ms: 60.0, ..Orders::default() });
    produce(&writer, &input, &mut orders, RECORDS);
    close_windows(&writer, &input, &orders, 3_600_000);
    let mut held_seconds = 0.0;
    for (processes, workers) in [(1, 1), (1, 3), (2, 1)] {
        let aligned = Application::new(&STATISTICS, &bootstrap, &input, dir.path()).aligned("30s");
        let expected = aligned.expected(false);
        let start =
            |number: usize| aligned.start(&format!("state{number}")).workers(workers).session_of_6_s();
        let mut running: Vec<_> = (0..processes).map(|number| start(number).spawn()).collect();
        aligned.wait_for_outputs(&expected, LIMIT);
        let held = running.iter().map(|process| process.metric("thalweg_alignment_held_seconds_total"));
        held_seconds += held.sum::<f64>();
        running.iter_mut().for_each(|process| process.stop(Duration::from_secs(20)));
        aligned.check(&expected);
    }
    // Of several workers one may have read everything before the others came, and what it waited went with its partitions.
    assert!(held_seconds > 0.0, "void: nobody has waited");
    let bounded = Application::new(&STATISTICS, &bootstrap, &input, dir.path()).aligned("30s");
    bounded.start("state").workers(2).run_bounded(LIMIT);
    bounded.check(&bounded.expected(true));
}
