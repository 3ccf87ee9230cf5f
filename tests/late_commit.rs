//! A process dies, or is stopped, in the middle of a commit, and the broker hears of the rest only while a
//! new owner is taking over. The new owner must see it either not at all or whole: offsets, state and
//! outputs.

#![allow(clippy::disallowed_methods, reason = "tests live in real time; the engine does not")]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use support::application::{Application, SHARED};
use support::broker::Broker;
use support::kafka::{Admin, Isolation, Reader, Writer};
use support::orders::{Generator, Orders, close_windows, produce};
use support::proxy::Proxy;
use support::thalweg::{Start, Thalweg, signal};
use support::{unique, wait_for};

const LIMIT: Duration = Duration::from_secs(60);

fn places(reader: &mut Reader) -> BTreeSet<(i32, i64)> {
    reader.read_to_end();
    reader.records.iter().map(|r| (r.partition, r.offset)).collect()
}

#[test]
fn a_dying_owners_commit_lands_between_the_new_owners_lookups() {
    let dir = support::Folder::new();
    let (broker, proxy) = Broker::start_with_proxy(dir.path());
    let bootstrap = broker.bootstrap();
    let input = unique("orders");
    Admin::new(&bootstrap).create(&[(&input, 2)]);
    let writer = Writer::new(&bootstrap);
    let mut orders = Generator::new(Orders { seed: 51, partitions: 2, step_ms: 25.0, ..Orders::default() });
    let application = Application::new(&SHARED, &bootstrap, &input, dir.path());
    // The group gives the dead owner up long before the broker gives its transaction up.
    let start = |state: &str, bootstrap: &str| {
        let start = Start { bootstrap: bootstrap.to_string(), ..application.start(state) };
        start
            .busy_state()
            .set("kafka.session_timeout", "2s")
            .set("kafka.transaction_timeout", "30s")
            .set("run.restore_stall", "60s")
    };
    let copies = application.copies();
    let mut committed = Reader::new(&bootstrap, copies, Isolation::Committed);
    let mut all = Reader::new(&bootstrap, copies, Isolation::Uncommitted);

    // The commit lands before the new owner has anything, in the middle of its look-ups, and late in them.
    for (round, delay_ms) in [(0, 200), (1, 3_500), (2, 6_000)] {
        let mut old = start(&format!("old{round}"), &proxy.bootstrap()).spawn();
        old.ready(LIMIT);
        produce(&writer, &input, &mut orders, 1_000);
        let goal = old.metric("thalweg_checkpoints_total") + 3.0;
        wait_for("checkpoints", LIMIT, || {
            produce(&writer, &input, &mut orders, 100);
            (old.metric("thalweg_checkpoints_total") >= goal).then_some(())
        });
        // A transaction of what is behind a change of keys, or of marks, takes no orders.
        let undecided: BTreeSet<_> = wait_for("a commit of orders", LIMIT, || {
            proxy.hold_next_end();
            produce(&writer, &input, &mut orders, 1_000);
            proxy.holds(LIMIT);
            let undecided: BTreeSet<_> =
                places(&mut all).difference(&places(&mut committed)).copied().collect();
            if undecided.is_empty() {
                proxy.release();
                return None;
            }
            Some(undecided)
        });
        old.kill();

        let mut new = start(&format!("new{round}"), &bootstrap).spawn();
        std::thread::sleep(Duration::from_millis(delay_ms));
        let ready = matches!(new.get("/readyz"), Some((200, _)));
        assert!(!ready, "it consumes, and whether its predecessor committed is undecided");
        proxy.release();
        new.ready(LIMIT);
        wait_for("the late commit", LIMIT, || places(&mut committed).is_superset(&undecided).then_some(()));
        produce(&writer, &input, &mut orders, 500);
        new.stop(Duration::from_secs(10));
    }

    close_windows(&writer, &input, &orders, 3_600_000);
    let mut last = start("last", &bootstrap).spawn();
    let expected = application.expected(false);
    application.wait_for_outputs(&expected, LIMIT);
    last.stop(Duration::from_secs(10));
    application.check(&expected);
}

/// An application whose first owner, behind a proxy, has made some checkpoints.
struct Handover {
    application: Application,
    input: String,
    writer: Writer,
    orders: Generator,
    old: Thalweg,
    proxy: Proxy,
    broker: Broker,
    _dir: support::Folder,
}

impl Handover {
    fn new(seed: u64) -> Handover {
        let dir = support::Folder::new();
        let (broker, proxy) = Broker::start_with_proxy(dir.path());
        let bootstrap = broker.bootstrap();
        let input = unique("orders");
        Admin::new(&bootstrap).create(&[(&input, 1)]);
        let writer = Writer::new(&bootstrap);
        let mut orders = Generator::new(Orders { seed, partitions: 1, step_ms: 25.0, ..Orders::default() });
        let application = Application::new(&SHARED, &bootstrap, &input, dir.path());
        let mut old = start_of(&application, "old", &proxy.bootstrap()).spawn();
        old.ready(LIMIT);
        wait_for("checkpoints", LIMIT, || {
            produce(&writer, &input, &mut orders, 100);
            (old.metric("thalweg_checkpoints_total") >= 2.0).then_some(())
        });
        Handover { application, input, writer, orders, old, proxy, broker, _dir: dir }
    }

    fn produce(&mut self, count: u64) {
        produce(&self.writer, &self.input, &mut self.orders, count);
    }

    /// Stops the first owner and starts a second one; returns when the group has given it the partition.
    fn hand_over(&mut self) -> Thalweg {
        signal(self.old.pid(), "STOP");
        let new = start_of(&self.application, "new", &self.broker.bootstrap()).spawn();
        wait_for("the assignment", LIMIT, || new.log().contains("partitions assigned").then_some(()));
        new
    }

    /// Lets the first owner finish what it had begun and hear that it is no member any more. As one again
    /// it would only make the second one begin anew.
    fn wake_the_old(&self) {
        self.proxy.hold_next_join();
        signal(self.old.pid(), "CONT");
    }

    fn finish(mut self, mut new: Thalweg) {
        self.old.kill();
        new.ready(LIMIT);
        self.produce(500);
        close_windows(&self.writer, &self.input, &self.orders, 3_600_000);
        let expected = self.application.expected(false);
        self.application.wait_for_outputs(&expected, LIMIT);
        new.stop(Duration::from_secs(10));
        self.application.check(&expected);
    }
}

fn start_of(application: &Application, state: &str, bootstrap: &str) -> Start {
    let start = Start { bootstrap: bootstrap.to_string(), ..application.start(state) };
    start
        .set("kafka.session_timeout", "2s")
        .set("kafka.transaction_timeout", "30s")
        .set("run.restore_stall", "60s")
        // The offsets go out before the records, which wait for the flush behind them.
        .set("kafka.librdkafka.linger.ms", 500)
}

#[test]
fn the_records_of_a_stopped_owner_land_after_the_new_owners_first_lookups() {
    let mut scene = Handover::new(52);
    let bootstrap = scene.broker.bootstrap();
    // Its offsets are sent; its records, changelog and all, are under way. Another one takes no orders.
    wait_for("a transaction of orders", LIMIT, || {
        scene.proxy.hold_next_records();
        scene.produce(1_000);
        scene.proxy.holds(LIMIT);
        let (group, input) = (&scene.application.name, &scene.input);
        let is_of_orders = (0..4).any(|_| Admin::offsets_are_undecided(&bootstrap, group, input, 1));
        if !is_of_orders {
            scene.proxy.release();
        }
        is_of_orders.then_some(())
    });
    let new = scene.hand_over();
    // It must wait for these offsets before it looks where the changelog ends.
    std::thread::sleep(Duration::from_secs(1));
    let ready = matches!(new.get("/readyz"), Some((200, _)));
    assert!(!ready, "it consumes, and whether its predecessor committed is undecided");
    let copies = scene.application.copies();
    let mut committed = Reader::new(&bootstrap, copies, Isolation::Committed);
    let mut all = Reader::new(&bootstrap, copies, Isolation::Uncommitted);
    let before = places(&mut all);
    scene.proxy.release();
    let landed = wait_for("the records", LIMIT, || {
        let landed: BTreeSet<_> = places(&mut all).difference(&before).copied().collect();
        (!landed.is_empty()).then_some(landed)
    });
    scene.wake_the_old();
    wait_for("the late commit", LIMIT, || places(&mut committed).is_superset(&landed).then_some(()));
    scene.finish(new);
}

#[test]
fn the_offsets_of_a_stopped_owner_are_refused() {
    let mut scene = Handover::new(53);
    // It has looked whether it is a member, and was. When the broker hears of it, it is none.
    scene.proxy.hold_next_offsets();
    scene.produce(1_000);
    scene.proxy.holds(LIMIT);
    let new = scene.hand_over();
    scene.proxy.release();
    scene.wake_the_old();
    wait_for("the old owner's commit to fail", LIMIT, || {
        scene.old.log().contains("starting over from the last checkpoint").then_some(())
    });
    scene.finish(new);
}
