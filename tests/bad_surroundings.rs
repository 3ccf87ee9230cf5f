//! Surroundings that fail under a running application: a full disk, refused rights, topics that change, a
//! broker that is away, a second process with the same identity. Each ends in waiting or in exit code 1
//! with what to do, and nothing is lost.

#![allow(clippy::disallowed_methods, reason = "tests live in real time; the engine does not")]

mod support;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use support::application::{Application, COPY, REVENUE, SHARED};
use support::broker::{Broker, PASSWORD, shared};
use support::kafka::{Admin, Reader};
use support::orders::{Orders, close_windows};
use support::random::Random;
use support::rights::{Operation, Resource, Rule, grant};
use support::scene::{LIMIT, STOP, Scene, stops_and_says};
use support::thalweg::Start;
use support::{unix_ms, wait_for};

/// A small disk of its own, seen by nobody else: mounted in the namespaces of a process that ends with
/// this one, and reached through that.
struct Disk {
    holder: Child,
    path: PathBuf,
}

impl Disk {
    fn mount(at: &Path, megabytes: u32) -> Disk {
        std::fs::create_dir_all(at).expect("a folder");
        let script =
            format!("mount -t tmpfs -o size={megabytes}m tmpfs '{}' && echo ready && cat", at.display());
        let mut holder = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare starts");
        let mut line = String::new();
        BufReader::new(holder.stdout.as_mut().expect("a pipe")).read_line(&mut line).expect("a line");
        assert_eq!(
            line.trim(),
            "ready",
            "no disk could be mounted; where the kernel keeps users from making namespaces, allow them (sysctl \
             kernel.apparmor_restrict_unprivileged_userns=0) or run the tests as root"
        );
        let path = PathBuf::from(format!("/proc/{}/root{}", holder.id(), at.display()));
        Disk { holder, path }
    }

    /// Writes a file until there is no room; returns it.
    fn fill(&self) -> PathBuf {
        let ballast = self.path.join("ballast");
        let mut file = std::fs::File::options().create(true).append(true).open(&ballast).expect("a file");
        let full = std::io::copy(&mut std::io::repeat(1), &mut file).expect_err("the disk has a size");
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
        ballast
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.holder.kill().expect("SIGKILL");
        self.holder.wait().expect("its end");
    }
}

#[test]
fn a_full_disk_stops_it_and_room_is_all_that_it_takes_to_go_on() {
    let mut scene =
        Scene::new(&shared(), &SHARED, Orders { seed: 61, keys: 2_000, step_ms: 40.0, ..Orders::default() });
    let disk = Disk::mount(&scene.dir().join("disk"), 192);
    let mut start = scene.application.start("state").busy_state();
    start.state_dir = disk.path.join("state");
    start.log = Some(scene.dir().join("full.log"));
    let mut process = scene.flushed(&start);
    let ballast = disk.fill();
    wait_for("the process's end", LIMIT, || {
        scene.produce(500);
        process.ended()
    });
    let state_dir = start.state_dir.display().to_string();
    stops_and_says(&mut process, &["No space left", &state_dir, "Check that the disk has room"]);
    // Without room another start ends as the first, or where it writes for the first time.
    disk.fill();
    let mut process = start.spawn();
    wait_for("the process's end", LIMIT, || {
        scene.produce(500);
        process.ended()
    });
    stops_and_says(&mut process, &["No space left", "Check that the disk has room"]);
    std::fs::remove_file(ballast).expect("room is made");
    let mut process = start.spawn();
    process.ready(LIMIT);
    scene.finish(&mut [&mut process]);
}

const USERS: [&str; 7] =
    ["full", "no_read", "no_write", "no_delete", "no_create", "no_transaction", "no_group"];

/// The rights that docs/kafka.md lists, but for each user that which its name says.
fn rules() -> Vec<Rule> {
    use Operation::*;
    let topics = |prefix: &str, operations: &[Operation]| {
        operations
            .iter()
            .map(|operation| (Resource::Topic, prefix.to_string(), *operation))
            .collect::<Vec<_>>()
    };
    let mut listed = topics("orders-", &[Read, Describe, DescribeConfigs]);
    listed.extend(topics("revenue-", &[Write, Describe, DescribeConfigs]));
    listed.extend(topics("thalweg.", &[Create, Read, Write, Describe, DescribeConfigs, Delete]));
    listed.extend([Read, Describe].map(|operation| (Resource::Group, "revenue-".to_string(), operation)));
    listed.extend(
        [Write, Describe].map(|operation| (Resource::Transaction, "revenue-".to_string(), operation)),
    );
    let refused = |user: &str, resource: Resource, prefix: &str, operation: Operation| match user {
        "no_read" => prefix == "orders-" && operation == Read,
        "no_write" => matches!(resource, Resource::Topic) && prefix == "revenue-" && operation == Write,
        "no_delete" => operation == Delete,
        "no_create" => operation == Create,
        "no_transaction" => matches!(resource, Resource::Transaction),
        "no_group" => matches!(resource, Resource::Group),
        _ => false,
    };
    let mut rules = Vec::new();
    for user in USERS {
        for (resource, prefix, operation) in &listed {
            if !refused(user, *resource, prefix, *operation) {
                let (user, prefix) = (user.to_string(), prefix.clone());
                rules.push(Rule { user, resource: *resource, prefix, operation: *operation });
            }
        }
    }
    rules
}

/// Starts as a user of the broker's restricted listener.
fn as_user(application: &Application, restricted: &str, user: &str, password: &str) -> Start {
    let mut start = application
        .start("state")
        .busy_state()
        .set("kafka.librdkafka.security.protocol", "SASL_PLAINTEXT")
        .set("kafka.librdkafka.sasl.mechanism", "PLAIN")
        .set("kafka.librdkafka.sasl.username", user)
        .set("kafka.librdkafka.sasl.password", password);
    start.bootstrap = restricted.to_string();
    start
}

#[test]
fn a_refused_right_is_named() {
    let folder = support::Folder::new();
    let (broker, restricted) = Broker::start_with_rights(folder.path(), &USERS);
    let bootstrap = broker.bootstrap();
    grant(&bootstrap, &rules());
    let mut scene = Scene::revenue(&bootstrap, 62);
    close_windows(&scene.writer, &scene.application.input, &scene.orders, 3_600_000);

    // With all that is listed and nothing else it works; the rules are in force once it does.
    let start = as_user(&scene.application, &restricted, "full", PASSWORD);
    start.run_bounded(LIMIT);
    scene.application.check(&scene.application.expected(true));

    let input = scene.application.input.clone();
    let another = || Application::new(&REVENUE, &bootstrap, &input, scene.dir());
    let refused = |user: &str, application: &Application, password: &str, what: &[&str]| {
        let mut process = as_user(application, &restricted, user, password).spawn();
        stops_and_says(&mut process, what);
    };
    let application = another();
    refused("full", &application, "wrong", &["sasl.*"]);
    refused("no_read", &application, PASSWORD, &["reading", &input, "Read on a source"]);
    let application = another();
    refused("no_create", &application, PASSWORD, &["creating", &application.changelog(), "Create"]);
    let application = another();
    refused("no_write", &application, PASSWORD, &["error: ", &application.dead, "Write on a sink"]);
    refused("no_transaction", &another(), PASSWORD, &["Write and Describe on the transactional id"]);
    refused("no_group", &another(), PASSWORD, &["Read and Describe on the consumer group"]);

    // The changelog cannot be cut: it says so and goes on.
    scene.application = another();
    let start = as_user(&scene.application, &restricted, "no_delete", PASSWORD);
    let mut process = start.spawn();
    wait_for("a cut that is refused", LIMIT, || {
        scene.produce(200);
        assert!(process.ended().is_none(), "it ended");
        process.log().contains("only grows").then_some(())
    });
    scene.produce(1_000);
    scene.finish(&mut [&mut process]);
    let starts = Admin::new(&bootstrap).bounds(&scene.application.changelog());
    assert!(starts.iter().all(|(start, _)| *start == 0), "somebody cut the changelog: {starts:?}");
}

#[test]
fn a_source_with_more_partitions_than_before_is_refused() {
    let mut scene = Scene::revenue(&shared(), 63);
    let admin = Admin::new(&shared());
    let (input, changelog) = (scene.application.input.clone(), scene.application.changelog());
    let what = [input.as_str(), &changelog, "number of partitions", "thalweg reset"];
    let start = scene
        .application
        .start("state")
        .set("kafka.librdkafka.topic.metadata.refresh.interval.ms", 500)
        .set("kafka.librdkafka.metadata.max.age.ms", 1_500);
    let mut process = start.spawn();
    process.ready(LIMIT);
    wait_for("a checkpoint", LIMIT, || {
        scene.produce(100);
        (process.metric("thalweg_checkpoints_total") > 0.0).then_some(())
    });
    // While it runs, and after it.
    admin.raise_partitions(&input, 6);
    stops_and_says(&mut process, &what);
    stops_and_says(&mut start.spawn(), &what);
}

/// Writes an order whose copy has more than 6,000 bytes; its offset in partition 1 and its value.
fn large(scene: &Scene) -> (i64, String) {
    let (input, at) = (&scene.application.input, unix_ms());
    let mut random = Random::new(3);
    // Of nothing that repeats, since its compressed size is what the broker looks at.
    let customer: String = (0..400).map(|_| format!("{:08x}", random.below(1 << 32))).collect();
    let value = format!(
        "{{\"order_id\":\"large\",\"customer\":\"{customer}\",\"amount\":2.5,\"status\":\"paid\",\
         \"created_at\":{at},\"currency\":\"EUR\"}}"
    );
    scene.writer.send(input, 1, Some(b"large"), Some(value.as_bytes()), at);
    scene.writer.flush();
    (Admin::new(&shared()).bounds(input)[1].1 - 1, value)
}

const SMALL: (&str, &str) = ("max.message.bytes", "3000");

#[test]
fn a_result_that_its_topic_does_not_take_stops_or_is_a_dead_letter() {
    let mut scene = Scene::new(&shared(), &COPY, Orders { seed: 64, ..Orders::default() });
    let admin = Admin::new(&shared());
    let (input, output) = (scene.application.input.clone(), scene.application.outputs[0].clone());
    admin.set(&output, SMALL.0, SMALL.1);
    scene.produce(500);
    let (offset, value) = large(&scene);
    let start = scene.application.start("state");
    // By default it stops, and stops again: the record is not passed over.
    for _ in 0..2 {
        stops_and_says(&mut start.spawn(), &[&input, &offset.to_string(), &output, "larger", "on_error"]);
    }
    let dead = scene.application.dead.clone();
    scene.edit("sinks:\n  copies: {", &format!("sinks:\n  copies: {{ on_error: {{ dead_letter: {dead} }},"));
    let mut process = start.spawn();
    let letters = wait_for("its dead letter", LIMIT, || {
        let letters = Reader::all(&shared(), &dead);
        letters.iter().any(|letter| letter.source() == (1, offset)).then_some(letters)
    });
    let letter = letters.iter().find(|letter| letter.source() == (1, offset)).expect("just seen");
    assert_eq!(letter.value.as_deref(), Some(value.as_bytes()));
    assert_eq!(letter.header("thalweg.operator"), Some("copies"));
    // All others come out.
    scene.produce(500);
    let mut expected = scene.application.expected(false);
    expected.rows[0].retain(|customer, _| customer.starts_with("customer"));
    expected.folded.rejected.insert((1, offset));
    scene.application.wait_for_outputs(&expected, LIMIT);
    process.stop(STOP);
    scene.application.check(&expected);
}

#[test]
fn a_topic_that_takes_less_than_at_the_start_stops_it() {
    let mut scene = Scene::new(&shared(), &COPY, Orders { seed: 65, ..Orders::default() });
    let admin = Admin::new(&shared());
    let output = scene.application.outputs[0].clone();
    let start = scene.application.start("state");
    let mut process = start.spawn();
    process.ready(LIMIT);
    admin.set(&output, SMALL.0, SMALL.1);
    large(&scene);
    stops_and_says(&mut process, &[&output, "max.message.bytes"]);
    // Once it takes more, nothing is missing.
    admin.set(&output, SMALL.0, "1048588");
    scene.produce(500);
    let mut process = start.spawn();
    scene.finish(&mut [&mut process]);
}

#[test]
fn a_broker_that_does_not_answer_for_20_s_is_waited_for() {
    let folder = support::Folder::new();
    let broker = Broker::start(folder.path());
    let mut scene = Scene::revenue(&broker.bootstrap(), 66);
    let start = scene.application.start("state").busy_state().session_of_6_s();
    let mut process = scene.flushed(&start);
    scene.produce(2_000); // in the middle of work
    broker.pause();
    std::thread::sleep(Duration::from_secs(20));
    assert!(process.ended().is_none(), "it did not wait; its log:\n{}", process.log());
    broker.go_on();
    scene.produce(2_000);
    scene.finish(&mut [&mut process]);
}

#[test]
fn a_broker_that_goes_away_while_it_is_asked_at_the_start_is_asked_again() {
    let folder = support::Folder::new();
    let (broker, proxy) = Broker::start_with_proxy(folder.path());
    let mut scene = Scene::revenue(&broker.bootstrap(), 68);
    let mut start = scene.application.start("state");
    start.bootstrap = proxy.bootstrap();
    proxy.cut_next_settings();
    let mut process = start.spawn();
    process.ready(LIMIT);
    assert!(proxy.is_open(), "void: nothing was cut");
    scene.finish(&mut [&mut process]);
}

#[test]
fn a_second_member_with_the_same_name_ends_the_first() {
    let mut scene = Scene::revenue(&shared(), 67);
    let start = scene.application.start("state");
    let mut process = start.spawn();
    process.ready(LIMIT);
    let identity = std::fs::read_to_string(start.state_dir.join("identity.json")).expect("the identity");
    let identity: serde_json::Value = serde_json::from_str(&identity).expect("JSON");
    let instance = format!("{}-0", identity["uuid"].as_str().expect("a uuid"));
    let twin: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", shared())
        .set("group.id", &scene.application.name)
        .set("group.instance.id", &instance)
        .set("session.timeout.ms", "6000")
        .set("partition.assignment.strategy", "range")
        .set("enable.auto.commit", "false")
        .create()
        .expect("a consumer");
    twin.subscribe(&[&scene.application.input]).expect("a subscription");
    wait_for("the first one's end", LIMIT, || {
        drop(twin.poll(Duration::from_millis(100)));
        process.ended()
    });
    stops_and_says(&mut process, &["another process", "state directory of its own"]);
    twin.unsubscribe();
    drop(twin);
    let mut process = start.spawn();
    scene.finish(&mut [&mut process]);
}
