use std::fs;

use clap::CommandFactory;

use super::*;
use crate::generator::kafka::{Events, Request, Times};
use crate::generator::nexmark::Kind;
use crate::kafka::Compression;

/// What a command wrote and how it ended.
struct Said {
    exit: Exit,
    out: String,
    err: String,
}

fn say(arguments: &[&str], environment: &[(&str, &str)]) -> Said {
    say_with_input(arguments, environment, "")
}

fn say_with_input(arguments: &[&str], environment: &[(&str, &str)], input: &str) -> Said {
    let arguments = Arguments::try_parse_from(["thalweg"].iter().chain(arguments)).unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let environment = environment.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    let (environment, input) = (environment.collect(), &mut input.as_bytes());
    let mut shell = Shell { environment, input, out: &mut out, err: &mut err };
    let exit = shell.execute(arguments).unwrap();
    Said { exit, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
}

const COPY: &str = "
version: 1
name: ${NAME:-copy}
sources:
  orders: { topic: orders, format: { type: json }, schema: { customer: string } }
sinks:
  copies: { input: orders, topic: copies, format: { type: json } }
";

#[test]
fn the_arguments_are_consistent() {
    Arguments::command().debug_assert();
}

#[test]
fn every_command_has_examples_in_its_help() {
    let mut command = Arguments::command();
    assert!(command.render_long_help().to_string().contains("Examples:"));
    for command in command.get_subcommands_mut().filter(|command| command.get_name() != "help") {
        let help = command.render_long_help().to_string();
        assert!(help.contains(&format!("  thalweg {}", command.get_name())), "{help}");
    }
}

#[test]
fn every_example_of_the_help_can_be_parsed() {
    fn add_help(command: &mut clap::Command, help: &mut String) {
        help.push_str(&command.render_long_help().to_string());
        command.get_subcommands_mut().for_each(|command| add_help(command, help));
    }
    let mut help = String::new();
    add_help(&mut Arguments::command(), &mut help);
    let mut seen = 0;
    for line in help.lines().filter(|line| line.starts_with("  thalweg ")) {
        // What follows several spaces explains the example.
        let example = line.trim().split("   ").next().unwrap();
        let words = example.split_whitespace().take_while(|word| *word != ">");
        Arguments::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
        seen += 1;
    }
    assert!(seen >= 15, "only {seen} examples");
}

#[test]
fn flags_become_settings_and_set_comes_last() {
    let arguments = [
        "thalweg",
        "--log",
        "debug",
        "run",
        "a.yaml",
        "--bootstrap-servers=k:1",
        "--state-dir=/s",
        "--workers=3",
        "--commit-interval=1s",
        "--listen=off",
        "--log-format=json",
        "--set",
        "kafka.librdkafka.sasl.password=a=b",
        "--set=run.workers=4",
    ];
    let arguments = Arguments::try_parse_from(arguments).unwrap();
    let pairs = arguments.settings.pairs();
    let pairs: Vec<(&str, &str)> = pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(
        pairs,
        [
            ("kafka.bootstrap_servers", "k:1"),
            ("state.dir", "/s"),
            ("run.workers", "3"),
            ("run.commit_interval", "1s"),
            ("http.listen", "off"),
            ("log.format", "json"),
            ("log.filter", "debug"),
            ("kafka.librdkafka.sasl.password", "a=b"),
            ("run.workers", "4"),
        ]
    );
    Settings::load(None, std::iter::empty(), &arguments.settings.pairs()).unwrap();
    let error = Arguments::try_parse_from(["thalweg", "settings", "--set", "run.workers"]).unwrap_err();
    assert!(error.to_string().contains("SECTION.KEY=VALUE, such as"), "{error}");
}

#[test]
fn settings_come_from_file_environment_and_flags() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("s.yaml");
    fs::write(&file, "run: { workers: 2, commit_interval: 7s }\nkafka: { client_id: file }\n").unwrap();
    let file = file.to_str().unwrap();
    let environment = [("THALWEG__RUN__WORKERS", "3"), ("THALWEG__KAFKA__CLIENT_ID", "environment")];
    let said = say(&["settings", "--settings", file, "--workers", "4"], &environment);
    assert_eq!((said.exit, said.err.as_str()), (Exit::Done, ""));
    for line in ["workers: 4", "client_id: \"environment\"", "commit_interval: \"7s\""] {
        assert!(said.out.contains(line), "{line}: {}", said.out);
    }

    let said = say(&["settings", "--set", "run.wrkers=4", "--set", "http.lsten=off"], &[]);
    assert_eq!((said.exit, said.out.as_str()), (Exit::Wrong, ""));
    assert_eq!(said.err.lines().filter(|line| line.starts_with("error: ")).count(), 2, "{}", said.err);
    assert!(said.err.contains("run.workers"), "{}", said.err);
}

#[test]
fn validate_shows_all_findings_of_all_files() {
    let temp = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = temp.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let good = write("good.yaml", COPY);
    let unused = "operators:\n  idle: { type: filter, input: orders, where: 'true' }\n";
    let warned = write("warned.yaml", &format!("{COPY}{unused}"));
    let bad =
        write("bad.yaml", &COPY.replace("input: orders", "input: ordrs").replace("version: 1", "vrsion: 1"));
    let missing = temp.path().join("missing.yaml").to_str().unwrap().to_owned();

    let said = say(&["validate", &good, &warned], &[("NAME", "renamed")]);
    assert_eq!(said.exit, Exit::Done, "{}", said.err);
    assert!(
        said.out.contains("good.yaml: renamed is valid: 1 source, 0 operators, 1 sink, 0 tests\n"),
        "{}",
        said.out
    );
    assert!(said.err.contains("warning") && said.err.contains("warned.yaml:"), "{}", said.err);

    let said = say(&["validate", &bad, &missing, &good], &[]);
    assert_eq!(said.exit, Exit::Wrong);
    for finding in ["ordrs", "vrsion", "missing.yaml"] {
        assert!(said.err.contains(finding), "{finding}: {}", said.err);
    }
    assert!(said.out.contains("good.yaml: copy is valid"), "{}", said.out);

    assert_eq!(say(&["graph", &bad], &[]).exit, Exit::Wrong);
    let said = say(&["graph", &good], &[]);
    assert_eq!(said.exit, Exit::Done);
    assert!(said.out.starts_with("flowchart"), "{}", said.out);
}

const TESTED: &str = "
tests:
  - name: it copies
    input: [{ value: { customer: ann } }, { value: { customer: bob } }]
    expect: { copies: [{ customer: ann }, { customer: bob }] }
  - name: it invents
    input: [{ value: { customer: ann } }]
    expect: { copies: [{ customer: eve }] }
";

#[test]
fn tests_of_files_are_run_and_reported() {
    let temp = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = temp.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let tested = write("tested.yaml", &format!("{COPY}{TESTED}"));
    let none = write("none.yaml", COPY);
    let bad = write("bad.yaml", &format!("{COPY}{TESTED}").replace("expect: { copies", "expect: { cpies"));

    let said = say(&["test", &tested, &none], &[]);
    assert_eq!((said.exit, said.err.as_str()), (Exit::Failed, ""));
    for part in [
        "ok      it copies (",
        "FAILED  it invents (1 variant, ",
        "1 of 2 tests failed",
        "none.yaml: it has no tests",
    ] {
        assert!(said.out.contains(part), "{part}: {}", said.out);
    }
    let said = say(&["test", &tested, "--only", "copies"], &[]);
    assert_eq!(said.exit, Exit::Done, "{}", said.out);
    assert!(said.out.contains("1 test passed") && !said.out.contains("invents"), "{}", said.out);

    let said = say(&["test", &tested, "--only", "it", "--variant", "crash-committed-0"], &[]);
    assert_eq!(said.exit, Exit::Failed);
    assert!(
        said.out.contains("(1 variant, ") && said.out.contains("--variant crash-committed-0"),
        "{}",
        said.out
    );

    let said = say(&["test", &tested, "--only", "deletes"], &[]);
    assert_eq!(said.exit, Exit::Wrong);
    assert!(said.err.contains("`deletes`") && said.err.contains("it copies; it invents"), "{}", said.err);
    assert_eq!(say(&["test", &tested, "--variant", "upside-down"], &[]).exit, Exit::Wrong);
    assert_eq!(say(&["test", &none], &[]).exit, Exit::Done);

    let said = say(&["test", &bad, &tested], &[]);
    assert_eq!(said.exit, Exit::Wrong);
    assert!(said.err.contains("dead-letter topic or late topic `cpies`"), "{}", said.err);
    assert!(said.err.contains("did you mean `copies`?") && said.err.contains("bad.yaml:12:"), "{}", said.err);
    assert!(said.out.contains("it copies"), "{}", said.out);
    assert_eq!(say(&["validate", &bad], &[]).exit, Exit::Wrong);
    let said = say(&["test", &bad, "--format", "junit"], &[]);
    assert_eq!(said.exit, Exit::Wrong);
    assert!(said.out.contains("errors=\"1\"") && said.out.contains("`cpies`"), "{}", said.out);
}

#[test]
fn reports_of_tests_are_for_machines_too() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("t.yaml");
    fs::write(&file, format!("{COPY}{TESTED}")).unwrap();
    let file = file.to_str().unwrap();
    let said = say(&["test", file, "--format", "junit"], &[]);
    assert_eq!(said.exit, Exit::Failed);
    assert!(
        said.out.contains("<testcase name=\"it copies\"") && said.out.contains("failures=\"1\""),
        "{}",
        said.out
    );
    let said = say(&["test", file, "--format", "json"], &[]);
    let report: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(report["files"][0]["tests"][1]["passed"], false);
    assert_eq!(report["files"][0]["tests"][1]["failure"]["differences"][0]["line"], 15);
}

#[test]
fn an_embedded_run_needs_no_kafka() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("t.yaml");
    fs::write(&file, COPY).unwrap();
    let file = file.to_str().unwrap();
    let input = "{\"customer\":\"ann\"}\n{\"customer\":\"bob\"}\n";
    let said = say_with_input(&["run", file, "--embedded"], &[], input);
    assert_eq!(said.exit, Exit::Done, "{}", said.err);
    assert!(
        said.err.contains("copy runs without Kafka") && said.err.contains("nothing is durable"),
        "{}",
        said.err
    );
    assert_eq!(
        said.out,
        "{\"sink\":\"copies\",\"key\":null,\"timestamp\":1,\"value\":{\"customer\":\"ann\"}}\n\
         {\"sink\":\"copies\",\"key\":null,\"timestamp\":1,\"value\":{\"customer\":\"bob\"}}\n"
    );
    let lines = temp.path().join("in.jsonl");
    fs::write(&lines, input).unwrap();
    let from_file = say(&["run", file, "--embedded", "--input", lines.to_str().unwrap()], &[]);
    assert_eq!((from_file.exit, from_file.out), (Exit::Done, said.out));

    let said = say(&["run", file, "--embedded", "--input", "/nowhere/at.all"], &[]);
    assert_eq!(said.exit, Exit::Wrong);
    assert!(said.err.contains("cannot read /nowhere/at.all"), "{}", said.err);
    let said = say_with_input(&["run", file, "--embedded"], &[], "{\"customer\":7}");
    assert_eq!(said.exit, Exit::Failed);
    assert!(said.err.contains("orders[0] at offset 0") && said.err.contains("customer"), "{}", said.err);
    for wrong in [&["run", file, "--embedded", "--bounded"][..], &["run", file, "--input", "x"]] {
        assert!(Arguments::try_parse_from(["thalweg"].iter().chain(wrong)).is_err(), "{wrong:?}");
    }
}

/// The files in a folder of their own, as paths.
fn written<const N: usize>(temp: &tempfile::TempDir, files: [(&str, String); N]) -> [String; N] {
    files.map(|(name, text)| {
        let path = temp.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    })
}

#[test]
fn a_variant_that_does_not_apply_is_not_said_to_have_passed() {
    let temp = tempfile::tempdir().unwrap();
    let fixed = TESTED.replace("it copies\n", "it copies\n    partitions: 1\n    crashes: false\n");
    let [fixed, free] = written(
        &temp,
        [
            ("fixed.yaml", format!("{COPY}{fixed}")),
            ("free.yaml", format!("{COPY}{}", TESTED.replace("eve", "ann"))),
        ],
    );
    for (variant, why) in [
        ("partitions", "it says `partitions: 1` itself"),
        ("crash-before-0", "it says `crashes: false`"),
        ("faults-3", "it says `crashes: false`"),
    ] {
        let said = say(&["test", &fixed, "--only", "copies", "--variant", variant], &[]);
        assert_eq!(said.exit, Exit::Wrong, "{}{}", said.out, said.err);
        let line = format!("  n/a     it copies (variant {variant} is not for this test: {why})\n");
        assert!(said.out.contains(&line) && !said.out.contains("passed"), "{}", said.out);
        assert!(said.out.ends_with("no test was run; 1 not applicable\n"), "{}", said.out);
        assert!(
            said.err.contains(&format!("nothing was run: variant `{variant}` is for no test")),
            "{}",
            said.err
        );
    }
    let said = say(&["test", &free, "--only", "invents", "--variant", "crash-written-99"], &[]);
    assert_eq!(said.exit, Exit::Wrong, "{}", said.out);
    assert!(said.out.contains("commits, numbered from 0)") && said.out.contains("  n/a "), "{}", said.out);

    // What applies to one test at least has been run.
    let arguments = ["test", &fixed, &free, "--only", "copies", "--variant", "partitions"];
    let said = say(&arguments, &[]);
    assert_eq!((said.exit, said.err.as_str()), (Exit::Done, ""), "{}", said.out);
    assert!(
        said.out.contains("  n/a     it copies (") && said.out.contains("  ok      it copies ("),
        "{}",
        said.out
    );
    assert!(said.out.ends_with("1 test passed; 1 not applicable\n"), "{}", said.out);
    let said = say(&[&arguments[..], &["--format", "junit"]].concat(), &[]);
    assert!(said.out.contains("failures=\"0\" errors=\"0\" skipped=\"1\""), "{}", said.out);
    assert!(said.out.contains("<skipped message=\"variant partitions is not for this test"), "{}", said.out);
    let said = say(&[&arguments[..], &["--format", "json"]].concat(), &[]);
    let report: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let [skipped, played] = [0, 1].map(|file| &report["files"][file]["tests"][0]);
    assert!(skipped["passed"].is_null() && skipped["not_applicable"].is_string(), "{skipped}");
    assert!(played["passed"] == true && played["not_applicable"].is_null(), "{played}");

    // A name that no variant has is wrong, whether there are tests or not.
    let [none] = written(&temp, [("none.yaml", COPY.to_owned())]);
    let said = say(&["test", &none, "--variant", "upside-down"], &[]);
    assert_eq!(said.exit, Exit::Wrong);
    assert!(said.err.contains("there is no variant `upside-down`"), "{}", said.err);
}

#[test]
fn only_chooses_among_the_tests_of_all_files() {
    let temp = tempfile::tempdir().unwrap();
    let [one, two, none] = written(
        &temp,
        [
            ("one.yaml", format!("{COPY}{TESTED}")),
            ("two.yaml", format!("{COPY}{}", TESTED.replace("it copies", "it copies everything"))),
            ("none.yaml", COPY.to_owned()),
        ],
    );
    let said = say(&["test", &one, &two, &none, "--only", "everything"], &[]);
    assert_eq!((said.exit, said.err.as_str()), (Exit::Done, ""), "{}", said.out);
    assert!(said.out.contains("one.yaml: none of its 2 tests was chosen\n"), "{}", said.out);
    assert!(said.out.contains("none.yaml: it has no tests\n"), "{}", said.out);
    assert!(said.out.ends_with("1 test passed\n"), "{}", said.out);
    // A whole name, wherever it stands, is that test's alone.
    let said = say(&["test", &two, &one, "--only", "it copies"], &[]);
    assert_eq!(said.exit, Exit::Done, "{}", said.out);
    assert!(said.out.contains("two.yaml: none of its 2 tests was chosen\n"), "{}", said.out);
    assert!(said.out.ends_with("1 test passed\n"), "{}", said.out);
    let said = say(&["test", &one, &two, "--only", "deletes"], &[]);
    assert_eq!(said.exit, Exit::Wrong);
    assert!(
        said.err.contains("`deletes`") && said.err.contains("it copies; it invents; it copies everything")
    );
    assert!(!said.out.contains("no tests\n"), "{}", said.out);
}

#[test]
fn files_without_tests_say_so_and_are_no_failure() {
    let temp = tempfile::tempdir().unwrap();
    let [none, empty] =
        written(&temp, [("none.yaml", COPY.to_owned()), ("empty.yaml", format!("{COPY}tests: []\n"))]);
    let said = say(&["test", &none, &empty], &[]);
    assert_eq!((said.exit, said.err.as_str()), (Exit::Done, ""));
    let (none, empty) = (format!("{none}: it has no tests\n"), format!("{empty}: it has no tests\n"));
    assert_eq!(said.out, format!("{none}{empty}no test was run\n"));
}

#[test]
fn a_test_that_expects_nothing_at_all_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    for nothing in ["expect: {}", "expect: {}\n    late: {}\n    failed: {}\n    state: {}", "late: {}"] {
        let case = format!("tests:\n  - name: idle\n    input: []\n    {nothing}\n");
        let [file] = written(&temp, [("t.yaml", format!("{COPY}{case}"))]);
        let said = say(&["test", &file], &[]);
        assert_eq!(said.exit, Exit::Wrong, "{nothing}: {}", said.out);
        assert!(said.err.contains("the test `idle` expects nothing"), "{}", said.err);
        assert!(said.err.contains("add `expect: { copies: [{ … }] }`"), "{}", said.err);
    }
    let case = "tests:\n  - name: idle\n    input: []\n    expect: { copies: [] }\n    late: {}\n";
    let [file] = written(&temp, [("t.yaml", format!("{COPY}{case}"))]);
    assert_eq!(say(&["test", &file], &[]).exit, Exit::Done);
}

#[test]
fn what_only_records_can_have_is_pointed_to_records() {
    let temp = tempfile::tempdir().unwrap();
    for key in ["where: 'customer != \"\"'", "key: ann", "headers: { a: b }"] {
        let case = format!(
            "tests:\n  - name: one\n    input: []\n    expect:\n      copies:\n        - {{ customer: ann, {key} }}\n"
        );
        let [file] = written(&temp, [("t.yaml", format!("{COPY}{case}"))]);
        let said = say(&["test", &file], &[]);
        let key = key.split(':').next().unwrap();
        assert_eq!(said.exit, Exit::Wrong, "{key}: {}", said.out);
        assert!(said.err.contains(&format!("have no field `{key}`")), "{}", said.err);
        let help = format!(
            "`{key}` is for records: `records: [{{ value: {{ … }}, {key}: … }}]` in place of the list"
        );
        assert!(said.err.contains(&help), "{}", said.err);
    }
}

const COUNTED: &str = "
version: 1
name: counted
sources:
  in:
    topic: in
    partitioned_by: [k]
    format: { type: json }
    schema: { k: string, v: int, t: timestamp_ms }
    event_time: { field: t, max_out_of_orderness: 0s }
    on_error: { dead_letter: dead }
operators:
  halved: { type: map, input: in, set: { v: 'v / (v - 7)' }, on_error: skip }
  w:
    type: window
    input: halved
    key_by: [k]
    window: { type: tumbling, size: 10s }
    aggregate: { n: count() }
sinks:
  out: { input: w, topic: sums, key: [k], format: { type: json } }
";

#[test]
fn an_embedded_run_counts_what_it_did_not_write() {
    let temp = tempfile::tempdir().unwrap();
    let [file] = written(&temp, [("t.yaml", COUNTED.to_owned())]);
    let input = "{\"k\":\"a\",\"v\":1,\"t\":0}\n{\"k\":\"a\",\"v\":7,\"t\":1}\n{\"k\":\"a\",\"v\":1,\"t\":20000}\n\
                 broken\n{\"k\":\"a\",\"v\":1,\"t\":2}\n{\"k\":\"a\",\"v\":1,\"t\":3}\n";
    let said = say_with_input(&["run", &file, "--embedded"], &[], input);
    assert_eq!(said.exit, Exit::Done, "{}", said.err);
    assert_eq!(said.out.lines().count(), 3, "{}", said.out);
    let (_, summary) = said.err.split_once("nothing is durable\n").unwrap();
    assert_eq!(
        summary,
        "6 records in: in 6\n\
         2 records out: out 2\n\
         1 dead letter: dead 1\n\
         2 records came late: w 2\n\
         2 records failed: halved 1, in 1\n"
    );
}

#[test]
fn an_embedded_run_ends_with_the_codes_of_any_run() {
    let temp = tempfile::tempdir().unwrap();
    let [file] = written(&temp, [("t.yaml", COPY.to_owned())]);
    let payments = concat!(env!("CARGO_MANIFEST_DIR"), "/topologies/payments_overview.yaml");
    // The input is as wrong as a file would be: to run it again changes nothing.
    let said = say_with_input(&["run", payments, "--embedded"], &[], "{\"source\":\"logns\",\"value\":{}}");
    assert_eq!(said.exit, Exit::Wrong, "{}", said.err);
    let said = say_with_input(&["run", payments, "--embedded"], &[], "{\"source\":\"logins\",\"value\":{}}");
    assert_eq!(said.exit, Exit::Failed, "{}", said.err);
    let large = " ".repeat((64 << 20) + 1);
    let said = say_with_input(&["run", &file, "--embedded"], &[], &large);
    assert_eq!(said.exit, Exit::Wrong);
    assert!(said.err.contains("standard input is larger than 64 MiB"), "{}", said.err);
    let help = Arguments::command().find_subcommand_mut("run").unwrap().render_long_help().to_string();
    for part in ["64 MiB", "Exit codes: 0 done, 1 failed while running, 2 "] {
        assert!(help.contains(part), "{help}");
    }
}

/// The first code block of a kind.
fn block(text: &str, kind: &str) -> String {
    let (_, text) = text.split_once(&format!("```{kind}\n")).unwrap();
    text.split_once("```").unwrap().0.to_owned()
}

#[test]
fn the_summary_of_the_documentation_is_a_real_one() {
    let page = include_str!("../../docs/topology-files.md");
    let temp = tempfile::tempdir().unwrap();
    let [file] = written(&temp, [("orders.yaml", block(page, "yaml"))]);
    let order = |customer: &str, at: &str| {
        format!("{{\"customer\":\"{customer}\",\"amount\":1,\"status\":\"paid\",\"created_at\":{at}}}\n")
    };
    let orders = [("ann", "0"), ("ann", "1"), ("bob", "95000"), ("bob", "95001"), ("ann", "2"), ("bob", "x")];
    let input = orders.map(|(customer, at)| order(customer, at)).concat();
    let said = say_with_input(&["run", &file, "--embedded"], &[], &input);
    let (_, summary) = said.err.split_once("nothing is durable\n").unwrap();
    let (_, chapter) = page.split_once("To try a topology by hand").unwrap();
    assert_eq!(block(chapter, "text"), summary, "docs/topology-files.md");
}

/// The report of the documentation is what the command says of the tests above it, once a number in one
/// of them is changed; only the times differ.
#[test]
fn the_report_of_the_documentation_is_a_real_one() {
    let page = include_str!("../../docs/topology-files.md");
    let (before, chapter) = page.split_once("## Tests\n").unwrap();
    let tests = block(chapter, "yaml").replace("orders: 1, revenue: 1.0 }", "orders: 1, revenue: 3.0 }");
    let temp = tempfile::tempdir().unwrap();
    let [file] = written(&temp, [("orders.yaml", block(before, "yaml") + &tests)]);
    let said = say(&["test", &file], &[]);
    let timeless = |text: &str| {
        let lines = text.lines().map(|line| match line.rsplit_once(", ") {
            Some((line, end)) if end.ends_with(" ms)") => format!("{line}, … ms)"),
            _ => line.to_owned(),
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    let report = said.out.replace(&file, "orders.yaml");
    assert_eq!(timeless(&block(chapter, "text")), timeless(&report), "docs/topology-files.md");
}

/// What the generator is asked for by `thalweg bench generate`.
fn generated(arguments: &[&str]) -> Result<Request, String> {
    let arguments = ["thalweg", "bench", "generate"].iter().chain(arguments);
    let parsed = Arguments::try_parse_from(arguments).map_err(|error| error.to_string())?;
    let Command::Bench { command: arguments::BenchCommand::Generate { events } } = parsed.command else {
        panic!("another command")
    };
    Ok(events.request())
}

#[test]
fn orders_are_asked_for_with_defaults_or_without() {
    let request = generated(&["orders", "--topic", "o"]).unwrap();
    let orders = |disorder_ms| Events::Orders { keys: 100_000, zipf: 0.0, disorder_ms, size_bytes: 200 };
    assert_eq!(request.events, orders(4_000));
    assert_eq!(request.times, Times::Spanning { start_ms: 1_700_000_000_000, span_ms: 600_000 });
    assert_eq!((request.topic.as_str(), request.records, request.seed), ("o", 1_000_000, 1));
    assert_eq!((request.partitions, request.create, request.close), (None, false, true));
    assert_eq!(request.compression, Compression::None);

    let all = "orders --topic o --records 7 --keys 9 --zipf 1.1 --disorder 250ms --span 1h --start 5 --size 300 \
               --seed 8 --partitions 3 --create --no-close --compression lz4";
    let request = generated(&all.split_whitespace().collect::<Vec<_>>()).unwrap();
    assert_eq!(request.events, Events::Orders { keys: 9, zipf: 1.1, disorder_ms: 250, size_bytes: 300 });
    assert_eq!(request.times, Times::Spanning { start_ms: 5, span_ms: 3_600_000 });
    assert_eq!((request.records, request.seed), (7, 8));
    assert_eq!((request.partitions, request.create, request.close), (Some(3), true, false));
    assert_eq!(request.compression, Compression::Lz4);

    // By the clock, orders are in order, unless disorder is wanted.
    let request = generated(&["orders", "--topic", "o", "--rate", "50"]).unwrap();
    assert!(matches!(request.times, Times::Rate(rate) if rate.get() == 50), "{:?}", request.times);
    assert_eq!(request.events, orders(0));
    let request = generated(&["orders", "--topic", "o", "--rate", "50", "--disorder", "1s"]).unwrap();
    assert_eq!(request.events, orders(1_000));
}

#[test]
fn events_of_nexmark_are_asked_for_by_kind() {
    assert_eq!(generated(&["nexmark", "--topic", "n"]).unwrap().events, Events::Nexmark { only: None });
    for (name, kind) in [("persons", Kind::Person), ("auctions", Kind::Auction), ("bids", Kind::Bid)] {
        let request = generated(&["nexmark", "--topic", "n", "--only", name]).unwrap();
        assert_eq!(request.events, Events::Nexmark { only: Some(kind) });
    }
}

#[test]
fn what_cannot_be_generated_is_refused() {
    for (wrong, why) in [
        ("orders", "--topic"),
        ("orders --topic o --records 0", "0"),
        ("orders --topic o --keys 0", "0"),
        ("orders --topic o --zipf -1", "-1"),
        ("orders --topic o --zipf NaN", "not within 0 and 10"),
        ("orders --topic o --span 5", "has no unit"),
        ("orders --topic o --disorder 101d1ns", "finer than a millisecond"),
        ("orders --topic o --span 40000d", "more than a hundred years"),
        ("orders --topic o --rate 0", "0"),
        ("orders --topic o --rate 5 --span 1h", "cannot be used with"),
        ("orders --topic o --rate 5 --start 1", "cannot be used with"),
        ("orders --topic o --partitions 0", "0"),
        ("orders --topic o --size 2000000", "2000000"),
        ("nexmark --topic n --only offers", "bids"),
        ("nexmark --topic n --keys 5", "--keys"),
        ("payments --topic p", "payments"),
    ] {
        let error = generated(&wrong.split_whitespace().collect::<Vec<_>>()).unwrap_err();
        assert!(error.contains(why), "{wrong}: {error}");
    }
    // Before a broker is asked for anything.
    let said = say(&["bench", "generate", "orders", "--topic", "o", "--size", "100"], &[]);
    assert_eq!((said.exit, said.out.as_str()), (Exit::Wrong, ""));
    assert!(said.err.contains("a size of 100 bytes: these orders take 1"), "{}", said.err);
}
