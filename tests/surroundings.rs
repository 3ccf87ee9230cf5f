//! Bad input and bad surroundings: each ends in waiting, in a restore or in a clear stop, and nothing is
//! lost.

#![allow(clippy::disallowed_methods, reason = "tests live in real time; the engine does not")]

mod support;

use std::path::{Path, PathBuf};
use std::time::Duration;

use support::application::{COPY, SHARED};
use support::broker::shared;
use support::kafka::{Admin, Reader};
use support::orders::{Orders, close_windows};
use support::scene::{LIMIT, STOP, Scene, stops_and_says};
use support::thalweg::{run_to_end, signal};
use support::{free_port, unique, unix_ms, wait_for};

#[test]
fn a_missing_topic_is_named() {
    let scene = Scene::revenue(&shared(), 41);
    let missing = unique("missing");
    scene.edit(&format!("topic: {}\n", scene.application.input), &format!("topic: {missing}\n"));
    stops_and_says(&mut scene.application.start("state").spawn(), &[&missing]);
}

#[test]
fn a_missing_sink_topic_is_named() {
    let scene = Scene::revenue(&shared(), 42);
    let missing = unique("missing");
    scene.edit(&scene.application.outputs[0], &missing);
    stops_and_says(&mut scene.application.start("state").spawn(), &[&missing]);
    assert!(!Admin::new(&shared()).topics().contains(&missing), "a topic that nobody asked for was created");
}

#[test]
fn a_wrong_address_is_named() {
    let scene = Scene::revenue(&shared(), 43);
    let mut start = scene.application.start("state");
    start.bootstrap = format!("127.0.0.1:{}", free_port());
    stops_and_says(&mut start.spawn(), &[&start.bootstrap]);
}

#[test]
fn a_signal_is_obeyed_while_no_broker_answers() {
    let scene = Scene::revenue(&shared(), 54);
    let mut start = scene.application.start("state");
    start.bootstrap = format!("127.0.0.1:{}", free_port());
    let mut process = start.spawn();
    wait_for("its first line", LIMIT, || process.log().contains("starting").then_some(()));
    process.stop(STOP);
}

#[test]
fn a_setting_that_librdkafka_does_not_have_is_wrong() {
    let scene = Scene::revenue(&shared(), 55);
    let mut process = scene.application.start("state").set("kafka.librdkafka.no.such", 1).spawn();
    assert_eq!(process.exit_code(LIMIT), 2, "its log:\n{}", process.log());
    assert!(process.log().contains("no.such"), "its log:\n{}", process.log());
}

#[test]
fn a_bounded_run_does_not_join_an_unbounded_one() {
    let mut scene = Scene::revenue(&shared(), 56);
    let mut unbounded = scene.application.start("state").spawn();
    unbounded.ready(LIMIT);
    let mut bounded = scene.application.start("other-state").bounded().spawn();
    assert_eq!(bounded.exit_code(LIMIT), 2, "its log:\n{}", bounded.log());
    assert!(bounded.log().contains("without --bounded"), "its log:\n{}", bounded.log());
    scene.finish(&mut [&mut unbounded]);

    let scene = Scene::revenue(&shared(), 57);
    let mut bounded = scene.application.start("state").session_of_6_s().bounded().spawn();
    wait_for("a member", LIMIT, || {
        (Admin::new(&shared()).group_members(&scene.application.name) > 0).then_some(())
    });
    bounded.pause();
    let mut unbounded = scene.application.start("other-state").session_of_6_s().spawn();
    assert_eq!(unbounded.exit_code(LIMIT), 2, "its log:\n{}", unbounded.log());
    assert!(unbounded.log().contains("with --bounded"), "its log:\n{}", unbounded.log());
    bounded.kill();
}

#[test]
fn a_malformed_record_stops_a_topology_that_asks_for_it() {
    let mut scene =
        Scene::new(&shared(), &COPY, Orders { malformed_share: 0.0, null_share: 0.0, ..Orders::default() });
    scene.edit(&format!("on_error: {{ dead_letter: {} }}", scene.application.dead), "on_error: fail");
    scene.produce(1_000);
    let input = scene.application.input.clone();
    scene.writer.send(&input, 1, Some(b"k"), Some(b"{\"customer\":"), unix_ms());
    scene.writer.flush();
    let place = Admin::new(&shared()).bounds(&input)[1].1 - 1;
    let start = scene.application.start("state");
    stops_and_says(&mut start.spawn(), &[&input, &place.to_string()]);
    // Again: the record is neither lost nor passed over.
    stops_and_says(&mut start.spawn(), &[&input, &place.to_string()]);
}

#[test]
fn malformed_records_are_skipped_and_counted_where_the_file_says_so() {
    let spec = Orders { malformed_share: 0.05, null_share: 0.02, ..Orders::default() };
    let mut scene = Scene::new(&shared(), &COPY, spec);
    scene.edit(&format!("on_error: {{ dead_letter: {} }}", scene.application.dead), "on_error: skip");
    scene.produce(3_000);
    let mut expected = scene.application.expected(false);
    let bad = std::mem::take(&mut expected.folded.rejected).len();
    assert!(bad > 100, "the input tests nothing");
    let mut process = scene.application.start("state").spawn();
    scene.application.wait_for_outputs(&expected, LIMIT);
    wait_for("the count of failed records", LIMIT, || {
        (process.metric("thalweg_records_failed_total") == bad as f64).then_some(())
    });
    process.stop(STOP);
    scene.application.check(&expected);
}

#[test]
fn a_dead_letter_is_the_record_and_why() {
    let mut scene = Scene::new(&shared(), &COPY, Orders::default());
    let input = scene.application.input.clone();
    let (value, at) = (b"{\"amount\": \xff".as_slice(), unix_ms());
    scene.writer.send_with(
        &input,
        2,
        Some(b"\x00key"),
        Some(value),
        at,
        &[("trace", "abc"), ("trace", "def")],
    );
    scene.writer.send(&input, 2, None, None, at);
    scene.produce(100);
    let mut process = scene.application.start("state").spawn();
    scene.finish(&mut [&mut process]);
    let dead = Reader::all(&shared(), &scene.application.dead);
    let letter = dead.iter().find(|r| r.source() == (2, 0)).expect("the first record is a dead letter");
    assert_eq!((letter.key.as_deref(), letter.value.as_deref()), (Some(b"\x00key".as_slice()), Some(value)));
    let traces: Vec<_> = letter.headers.iter().filter(|(name, _)| name == "trace").collect();
    assert_eq!(traces.len(), 2, "the headers of {letter:?}");
    assert_eq!(letter.header("thalweg.topic"), Some(input.as_str()));
    assert_eq!(letter.header("thalweg.timestamp"), Some(at.to_string().as_str()));
    let tombstone = dead.iter().find(|r| r.source() == (2, 1)).expect("the null is a dead letter");
    assert_eq!((&tombstone.key, &tombstone.value), (&None, &None));
}

const BEHIND: &str = r#"version: 1
name: NAME
sources:
  orders:
    topic: IN
    format: { type: json }
    schema: { customer: string, amount: double, at: timestamp_ms }
    event_time: { field: at }
operators:
  by_customer: { type: repartition, input: orders, key_by: [customer], partitions: 3 }
  once: { type: deduplicate, input: by_customer, key_by: [customer], within: 1s, late: { topic: LATE } }
  by_amount: { type: repartition, input: once, key_by: [amount], partitions: 2 }
  shares:
    type: map
    input: by_amount
    set: { share: 1.0 / amount, tenant: 'meta.headers["tenant"]', from: meta.partition, key: meta.key }
    drop: [amount]
    on_error: { dead_letter: DEAD }
sinks:
  out: { input: shares, topic: OUT, key: [customer], format: { type: json } }
"#;

#[test]
fn behind_changes_of_keys_records_are_known() {
    let scene = Scene::new(&shared(), &COPY, Orders::default());
    let application = &scene.application;
    let yaml = BEHIND.replace("NAME", &application.name).replace("IN", &application.input);
    let yaml = yaml.replace("LATE", &application.late).replace("DEAD", &application.dead);
    std::fs::write(&application.file, yaml.replace("OUT", &application.outputs[0])).expect("the topology");
    let partitions = Admin::new(&shared()).bounds(&application.input).len() as i32;
    let at = unix_ms();
    let value = |customer: &str, amount: &str, at: i64| {
        format!(" {{\"customer\": \"{customer}\", \"amount\":{amount}, \"at\":{at} }}").into_bytes()
    };
    let headers = [("tenant", "a"), ("trace", "x"), ("tenant", "b")];
    let send = |partition: i32, key: Option<&[u8]>, value: &[u8], at: i64| {
        scene.writer.send_with(&application.input, partition, key, Some(value), at, &headers);
    };
    let (zero, keyless) = (value("zero", "0.0", at), value("keyless", "0.0", at));
    send(1, Some(b"\x00key"), &zero, at - 7);
    send(3, None, &keyless, at - 8);
    for partition in 0..partitions {
        send(partition, Some(b"till"), &value(&format!("c{partition}"), "4.0", at), at);
    }
    scene.writer.flush();
    let mut process = application.start("state").set("run.watermark_interval", "100ms").spawn();

    let read = |topic: &str| Reader::all(&shared(), topic);
    let known = wait_for("rows behind the changes of keys", LIMIT, || {
        let rows = read(&application.outputs[0]);
        (rows.len() >= partitions as usize).then_some(rows)
    });
    for row in known {
        let json = row.json();
        let of = json["customer"].as_str().and_then(|customer| customer[1..].parse::<i64>().ok());
        assert_eq!((json["from"].as_i64(), &json["tenant"], &json["key"]), (of, &"b".into(), &"till".into()));
    }

    let letters =
        wait_for("dead letters", LIMIT, || Some(read(&application.dead)).filter(|dead| dead.len() >= 2));
    assert_eq!(letters.len(), 2, "{letters:?}");
    let kept = |letter: &support::kafka::Record| -> Vec<(String, String)> {
        let text =
            |value: &Option<Vec<u8>>| String::from_utf8(value.clone().expect("a value")).expect("text");
        letter.headers.iter().map(|(name, value)| (name.clone(), text(value))).collect()
    };
    let came_from = |partition: i32, offset: i64, timestamp: i64| -> Vec<(String, String)> {
        let (partition, offset) = (partition.to_string(), offset.to_string());
        let own = [
            ("thalweg.topic", application.input.clone()),
            ("thalweg.partition", partition),
            ("thalweg.offset", offset),
            ("thalweg.timestamp", timestamp.to_string()),
        ];
        let given = headers.map(|(name, value)| (name, value.to_owned()));
        given.into_iter().chain(own).map(|(name, value)| (name.to_owned(), value)).collect()
    };
    for (partition, key, value, timestamp, goes_to) in
        [(1, Some(b"\x00key".to_vec()), zero, at - 7, None), (3, None, keyless, at - 8, Some(3 % 2))]
    {
        let letter = letters.iter().find(|letter| letter.source().0 == partition).expect("a dead letter");
        assert_eq!((&letter.key, &letter.value, letter.timestamp_ms), (&key, &Some(value), timestamp));
        let all = kept(letter);
        assert_eq!(all[..all.len() - 2], came_from(partition, 0, timestamp), "as before a change of keys");
        assert_eq!(letter.header("thalweg.operator"), Some("shares"));
        assert!(goes_to.is_none_or(|partition| partition == letter.partition), "{letter:?}");
    }

    // A row is late once all tasks have told how far they are.
    let mut sent = Vec::new();
    let late = wait_for("a late record", LIMIT, || {
        let value = value(&format!("l{}", sent.len()), "4.0", at - 60_000);
        send(2, Some(b"late\xff"), &value, at + 5);
        scene.writer.flush();
        sent.push(value);
        read(&application.late).into_iter().next()
    });
    process.stop(STOP);
    let (partition, offset) = late.source();
    let json: serde_json::Value =
        serde_json::from_slice(&sent[(offset - 1) as usize]).expect("the record is JSON");
    assert_eq!((partition, &late.key, late.json()), (2, &Some(b"late\xff".to_vec()), json));
    assert_eq!((late.timestamp_ms, kept(&late)), (at - 60_000, came_from(2, offset, at + 5)));
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![dir.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found
}

#[test]
fn a_corrupt_store_is_set_aside_and_rebuilt() {
    let mut scene = Scene::new(&shared(), &SHARED, Orders { seed: 44, step_ms: 40.0, ..Orders::default() });
    let start = scene.application.start("state").busy_state();
    let mut process = scene.flushed(&start);
    process.kill();
    let mut damaged = 0;
    for file in files(&start.state_dir) {
        let name = file.file_name().and_then(|n| n.to_str()).expect("a name");
        if name.ends_with(".sst") || name == "CURRENT" {
            let length = std::fs::metadata(&file).expect("a file").len() as usize;
            std::fs::write(&file, vec![0x5a; length]).expect("the damage is done");
            damaged += 1;
        }
    }
    assert!(damaged > 0, "no file of RocksDB under {}", start.state_dir.display());
    let mut process = start.spawn();
    process.ready(LIMIT);
    assert!(process.log().to_lowercase().contains("aside"), "it says nothing:\n{}", process.log());
    scene.finish(&mut [&mut process]);
}

#[test]
fn a_copied_state_directory_becomes_another_member() {
    let mut scene = Scene::revenue(&shared(), 45);
    let first = scene.application.start("state").busy_state();
    let mut one = scene.flushed(&first);
    one.stop(STOP);
    let second = scene.application.start("copied").busy_state();
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .args([&first.state_dir, &second.state_dir])
        .status()
        .expect("cp starts");
    assert!(copied.success());
    let (mut one, mut two) = (first.spawn(), second.spawn());
    one.ready(LIMIT);
    two.ready(LIMIT);
    scene.produce(1_000);
    assert!(one.ended().is_none() && two.ended().is_none(), "they fenced each other");
    scene.finish(&mut [&mut one, &mut two]);
}

#[test]
fn a_state_directory_has_one_process() {
    let mut scene = Scene::revenue(&shared(), 46);
    let start = scene.application.start("state");
    let mut first = start.spawn();
    first.ready(LIMIT);
    let state_dir = start.state_dir.display().to_string();
    stops_and_says(&mut start.spawn(), &[&state_dir]);
    scene.finish(&mut [&mut first]);
}

#[test]
fn sigterm_and_sigint_end_it_in_order_and_soon() {
    let mut scene = Scene::revenue(&shared(), 47);
    let start = scene.application.start("state");
    let mut process = start.spawn();
    process.ready(LIMIT);
    signal(process.pid(), "INT");
    assert_eq!(process.exit_code(STOP), 0, "its log:\n{}", process.log());
    // Also before it is ready.
    let mut process = start.spawn();
    std::thread::sleep(Duration::from_millis(300));
    process.stop(STOP);
    // It left the group, so that nobody need wait for its session's end.
    assert_eq!(Admin::new(&shared()).group_members(&scene.application.name), 0);
    let mut process = start.spawn();
    scene.finish(&mut [&mut process]);
}

#[test]
fn a_changed_operator_is_refused() {
    let mut scene = Scene::revenue(&shared(), 48);
    let start = scene.application.start("state");
    let mut process = start.spawn();
    process.ready(LIMIT);
    wait_for("a checkpoint", LIMIT, || {
        scene.produce(100);
        (process.metric("thalweg_checkpoints_total") > 0.0).then_some(())
    });
    process.stop(STOP);
    scene.edit("size: 1m", "size: 2m");
    let mut process = start.spawn();
    let code = process.exit_code(LIMIT);
    assert_eq!(code, 2, "its log:\n{}", process.log());
    assert!(process.log().contains("per_minute"), "its log:\n{}", process.log());
    // It has left the group: a reset need not wait until its session ends.
    let file = scene.application.file.to_str().expect("a path").to_string();
    let state_dir = start.state_dir.to_str().expect("a path");
    let reset =
        run_to_end(&["reset", &file, "--bootstrap-servers", &start.bootstrap, "--state-dir", state_dir]);
    assert_eq!(reset.status.code(), Some(0), "{}", String::from_utf8_lossy(&reset.stderr));
}

#[test]
fn a_changelog_that_was_created_anew_is_refused() {
    let mut scene = Scene::revenue(&shared(), 50);
    let start = scene.application.start("state");
    let mut process = start.spawn();
    process.ready(LIMIT);
    wait_for("a checkpoint", LIMIT, || {
        scene.produce(100);
        (process.metric("thalweg_checkpoints_total") > 0.0).then_some(())
    });
    process.stop(STOP);
    let changelog = scene.application.changelog();
    Admin::new(&shared()).delete(&changelog);
    // The offsets say that there must be state, and there is none: starting over would lose windows.
    stops_and_says(&mut start.spawn(), &[&changelog, "reset"]);
}

#[test]
fn offsets_that_disagree_with_the_state_are_refused() {
    let mut scene = Scene::revenue(&shared(), 52);
    let start = scene.application.start("state");
    let mut process = start.spawn();
    process.ready(LIMIT);
    wait_for("a checkpoint", LIMIT, || {
        scene.produce(100);
        (process.metric("thalweg_checkpoints_total") > 0.0).then_some(())
    });
    process.stop(STOP);
    let group = &scene.application.name;
    Admin::set_offset(&shared(), group, &scene.application.input, 0, 1_000_000);
    stops_and_says(&mut start.spawn(), &["committed offset is 1000000", "reset"]);
    // As if they had expired.
    wait_for("the group to be empty", LIMIT, || {
        (Admin::new(&shared()).group_members(group) == 0).then_some(())
    });
    Admin::new(&shared()).delete_group(group);
    stops_and_says(&mut start.spawn(), &["no committed offset", "reset"]);
}

#[test]
fn a_source_that_vanished_with_its_state_is_refused() {
    let scene = Scene::revenue(&shared(), 53);
    let start = scene.application.start("state");
    let changelog = scene.application.changelog();
    let mut process = start.spawn();
    process.ready(LIMIT);
    process.stop(STOP);
    // Under another name the source is another one, which would begin with nothing.
    let yaml = std::fs::read_to_string(&scene.application.file).expect("the topology");
    let renamed = yaml.replace("  orders:\n", "  purchases:\n").replace("input: orders", "input: purchases");
    std::fs::write(&scene.application.file, &renamed).expect("the topology");
    stops_and_says(&mut start.spawn(), &["stage `orders`", &changelog, "reset"]);
    std::fs::write(&scene.application.file, &yaml).expect("the topology");
    let mut process = start.spawn();
    process.ready(LIMIT);
    process.stop(STOP);
}

#[test]
fn reset_forgets_what_an_application_has_done() {
    let scene = Scene::revenue(&shared(), 49);
    let start = scene.application.start("state");
    close_windows(&scene.writer, &scene.application.input, &scene.orders, 3_600_000);
    start.run_bounded(LIMIT);
    let file = scene.application.file.to_str().expect("a path").to_string();
    let state_dir = start.state_dir.to_str().expect("a path");
    let arguments = ["reset", &file, "--bootstrap-servers", &start.bootstrap, "--state-dir", state_dir];
    let dry = run_to_end(&[&arguments[..], &["--dry-run"]].concat());
    let said = String::from_utf8_lossy(&dry.stdout).into_owned();
    assert_eq!(dry.status.code(), Some(0), "{said}{}", String::from_utf8_lossy(&dry.stderr));
    assert!(said.contains(&scene.application.changelog()), "{said}");
    let topics = Admin::new(&shared()).topics();
    assert!(topics.contains(&scene.application.changelog()), "a dry run deletes nothing");

    let done = run_to_end(&arguments);
    assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
    wait_for("the changelog to vanish", LIMIT, || {
        (!Admin::new(&shared()).topics().contains(&scene.application.changelog())).then_some(())
    });
    // From the beginning again: every window comes out a second time.
    let output = &scene.application.outputs[0];
    let before = Reader::all(&shared(), output).len();
    start.run_bounded(LIMIT);
    assert_eq!(Reader::all(&shared(), output).len(), 2 * before);
}

#[test]
fn exit_codes_of_the_commands() {
    let dir = support::Folder::new();
    let write = |name: &str, yaml: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, yaml).expect("a file");
        path.to_str().expect("a path").to_string()
    };
    let good = write(
        "good.yaml",
        "version: 1\nname: good\nsources:\n  a: { topic: a, format: { type: json }, schema: { x: int } }\n\
         sinks:\n  b: { input: a, topic: b, format: { type: json } }\n",
    );
    let bad = write("bad.yaml", "version: 1\nname: bad\nsorces: {}\n");
    let code = |arguments: &[&str]| run_to_end(arguments).status.code();
    assert_eq!(code(&["--help"]), Some(0));
    assert_eq!(code(&["validate", &good]), Some(0));
    assert_eq!(code(&["graph", &good]), Some(0));
    assert_eq!(code(&["settings"]), Some(0));
    assert_eq!(code(&["validate", &good, &bad]), Some(2));
    assert_eq!(code(&["validate", "/no/such/file.yaml"]), Some(2));
    assert_eq!(code(&["run"]), Some(2));
    assert_eq!(code(&["run", &bad]), Some(2));
    assert_eq!(code(&["run", &good, "--no-such-flag"]), Some(2));
    assert_eq!(code(&["run", &good, "--set", "kafka.no_such_key=1"]), Some(2));
    assert_eq!(code(&["settings", "--set", "kafka.librdkafka.group.id=x"]), Some(2));
    let said = run_to_end(&["validate", &bad]);
    let said = String::from_utf8_lossy(&said.stderr).into_owned() + &String::from_utf8_lossy(&said.stdout);
    assert!(said.contains("bad.yaml:3:1") && said.contains("sources"), "{said}");
}
