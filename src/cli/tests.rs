use std::fs;

use clap::CommandFactory;

use super::*;

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
    let mut command = Arguments::command();
    let mut help = command.render_long_help().to_string();
    for command in command.get_subcommands_mut() {
        help.push_str(&command.render_long_help().to_string());
    }
    let mut seen = 0;
    for line in help.lines().filter(|line| line.starts_with("  thalweg ")) {
        // What follows several spaces explains the example.
        let example = line.trim().split("   ").next().unwrap();
        let words = example.split_whitespace().take_while(|word| *word != ">");
        Arguments::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
        seen += 1;
    }
    assert!(seen >= 10, "only {seen} examples");
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
        "none.yaml: there are no tests",
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
