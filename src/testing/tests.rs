//! Tests of the runner. Here the operators run in one piece (`driver`); that the whole engine gives the
//! same is what `thalweg test` itself shows, on `topologies/`.

mod driver;

use std::cell::RefCell;
use std::path::Path;

use super::*;
use crate::simulator::CommitPoint;
use crate::topology::case::CaseStep;
use crate::topology::{Checked, load, parse, render as render_findings};
use driver::play;

const WINDOWS: &str = "
version: 1
name: windows
sources:
  in:
    topic: in
    partitioned_by: [k]
    format: { type: json }
    schema: { k: string, v: double, t: timestamp_ms }
    event_time: { field: t, max_out_of_orderness: 0s }
    on_error: { dead_letter: dead }
operators:
  w:
    type: window
    input: in
    key_by: [k]
    window: { type: tumbling, size: 10s }
    aggregate: { n: count(), total: sum(v) }
sinks:
  out: { input: w, topic: sums, key: [k], format: { type: json } }
tests:
";

/// The topology with these tests.
fn checked(cases: &str) -> (Arc<Plan>, Vec<Case>) {
    let text = format!("{WINDOWS}{cases}");
    let checked = parse(&text, "w.yaml", &|_| Err("no files".into()), &|_| None);
    let Checked { plan, cases, warnings } =
        checked.unwrap_or_else(|findings| panic!("{}", render_findings(&findings, &text)));
    assert_eq!(warnings, []);
    (prepare(plan), cases)
}

/// The input that most cases have, and what a case expects.
fn case(expected: &str) -> String {
    format!(
        "  - name: a case
    bounded: true
    input:
      - value: {{ k: a, v: 1.5, t: 0 }}
      - value: {{ k: b, v: 2, t: 1 }}
      - value: {{ k: a, v: 0.1, t: 9999 }}
      - value: {{ k: a, v: 0.2, t: 10000 }}
{expected}"
    )
}

const RIGHT: &str = "    expect:
      out:
        - { k: b, window_start: 0, window_end: 10000, n: 1, total: 2 }
        - { k: a, window_start: 0, window_end: 10000, n: 2, total: 1.6 }
        - { k: a, window_start: 10000, window_end: 20000, n: 1, total: 0.2 }
";

/// What is said about one case.
fn text_of(cases: &str) -> String {
    let (plan, cases) = checked(cases);
    let report = run_case(&plan, &cases[0], None, &play).unwrap();
    let file = FileReport { tests: 1, file: "w.yaml".into(), cases: vec![(report, 3)], wrong: None };
    render(&[file], Format::Text)
}

#[test]
fn the_tests_of_all_example_topologies_pass() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("topologies");
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let Checked { plan, cases, .. } = load(&path, &|_| None).unwrap();
        assert!(cases.len() >= 2, "{} has {} tests", path.display(), cases.len());
        let plan = prepare(plan);
        // The driver has no clock: those cases are played on the simulator only, by `make test`.
        let advances = |case: &&Case| case.steps.iter().any(|step| matches!(step, CaseStep::Advance(_)));
        let cases = cases.iter().filter(|case| !advances(case));
        let reports = cases.map(|case| (run_case(&plan, case, None, &play).unwrap(), 0)).collect();
        let report = FileReport { tests: 1, file: path.display().to_string(), cases: reports, wrong: None };
        let failed = report.cases.iter().any(|(case, _)| case.failure.is_some());
        assert!(!failed, "{}", render(&[report], Format::Text));
    }
}

#[test]
fn the_tests_of_the_documentation_pass() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/topology-files.md");
    let page = std::fs::read_to_string(page).unwrap();
    let example =
        |part: &str| part.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap().to_owned();
    let (before, chapter) = page.split_once("## Tests\n").unwrap();
    let text = example(before) + &example(chapter);
    let checked = parse(&text, "docs.yaml", &|_| Err("no files".into()), &|_| None);
    let Checked { plan, cases, .. } =
        checked.unwrap_or_else(|findings| panic!("{}", render_findings(&findings, &text)));
    let plan = prepare(plan);
    assert_eq!(cases.len(), 2);
    let reports = cases.iter().map(|case| (run_case(&plan, case, None, &play).unwrap(), 0)).collect();
    let report = FileReport { tests: 1, file: "docs.yaml".to_owned(), cases: reports, wrong: None };
    let shown = render(&[report], Format::Text);
    assert!(shown.contains("2 tests passed"), "{shown}");
}

#[test]
fn a_case_is_played_in_every_variant() {
    let (plan, cases) = checked(&case(RIGHT));
    let played = RefCell::new(Vec::new());
    let report = run_case(&plan, &cases[0], None, &|scenario| {
        played.borrow_mut().push(scenario.clone());
        play(scenario)
    });
    assert!(report.as_ref().is_ok_and(|report| report.failure.is_none()), "{report:?}");
    let played = played.into_inner();
    // Plain, four calm ones, split, three crashes in each of four commits, five seeds.
    assert_eq!((played.len(), report.unwrap().variants), (23, 23));
    assert!(played.iter().all(|scenario| scenario.bounded));
    let crashes: Vec<Faults> = played
        .iter()
        .map(|scenario| scenario.faults)
        .filter(|faults| matches!(faults, Faults::CrashAt { .. }))
        .collect();
    assert_eq!(crashes.len(), 12);
    assert!(crashes.contains(&Faults::CrashAt { commit: 3, point: CommitPoint::Committed }));
    assert_eq!(played.iter().filter(|scenario| scenario.faults == Faults::Seeded).count(), 5);
    assert!(played.iter().any(|scenario| scenario.topics["in"] == 4 && scenario.topics["sums"] == 4));
    assert!(played.iter().any(|scenario| (scenario.processes, scenario.workers) == (2, 2)));
}

#[test]
fn crashes_can_be_switched_off_and_partitions_be_fixed() {
    let right = RIGHT.replace("    expect", "    crashes: false\n    partitions: 3\n    expect");
    let (plan, cases) = checked(&case(&right));
    let report = run_case(&plan, &cases[0], None, &|scenario| {
        assert_eq!((scenario.topics["in"], scenario.faults), (3, Faults::None));
        play(scenario)
    });
    assert_eq!(report.map(|report| (report.variants, report.failure.is_none())), Ok((5, true)));
}

#[test]
fn every_variant_can_be_played_alone_by_its_name() {
    let (plan, cases) = checked(&case(RIGHT));
    let outcome = play_plain(&plan, &cases[0]);
    let variants = Variant::others(&plan, &cases[0], &outcome);
    for variant in &variants {
        assert_eq!(Variant::named(&variant.name, 1).as_ref(), Some(variant));
    }
    for name in ["", "crash", "crash-before", "crash-now-1", "crash-before-x", "faults-", "Mixed"] {
        assert_eq!(Variant::named(name, 1), None, "{name}");
    }
    let error = run_case(&plan, &cases[0], Some("crash-now-1"), &play).unwrap_err();
    assert!(error.contains("`crash-now-1`") && error.contains("crash-written-N"), "{error}");
    let report = run_case(&plan, &cases[0], Some("crash-before-3"), &play).unwrap();
    assert_eq!((report.variants, report.not_applicable), (1, None));
    let report = run_case(&plan, &cases[0], Some("crash-before-4"), &play).unwrap();
    assert_eq!((report.variants, report.failure.is_none()), (0, true));
    let why = report.not_applicable.unwrap();
    assert!(why.contains("nothing crashes") && why.contains("4 commits"), "{why}");
}

#[test]
fn partitions_do_not_apply_where_they_decide_what_comes_out() {
    let late = "      - value: { k: a, v: 1, t: 0 }\n    late: { w: 1 }\n";
    for (cases, why) in [
        (case(RIGHT).replace("    bounded: true\n", ""), Some("without `bounded: true` it depends")),
        (case(late), Some("what comes late")),
        (case(RIGHT).replace("true\n", "true\n    partitions: 2\n"), Some("`partitions: 2` itself")),
        (case(RIGHT), None),
    ] {
        let (plan, cases) = checked(&cases);
        let report = run_case(&plan, &cases[0], Some("partitions"), &play).unwrap();
        assert_eq!(report.variants, usize::from(why.is_none()));
        match (report.not_applicable, why) {
            (None, None) => {}
            (Some(found), Some(why)) => assert!(found.contains(why), "{found}"),
            (found, _) => panic!("expected {why:?}, found {found:?}"),
        }
    }
}

#[test]
fn a_record_for_a_partition_needs_the_number_of_partitions() {
    let placed = case(RIGHT).replace("value: { k: b", "partition: 0\n        value: { k: b");
    let found = parse(&format!("{WINDOWS}{placed}"), "w.yaml", &|_| Err("no files".into()), &|_| None);
    let findings = found.unwrap_err();
    assert!(findings[0].message.contains("does not say how many there are"), "{findings:?}");
    let counted = placed.replace("    bounded: true", "    bounded: true\n    partitions: 2");
    checked(&counted);
}

fn play_plain(plan: &Arc<Plan>, case: &Case) -> Outcome {
    let mut report =
        CaseReport { name: String::new(), line: 0, variants: 0, not_applicable: None, failure: None };
    let plain = Variant::named(PLAIN, 1).unwrap();
    play_variant(plan, case, plain, &play, &mut report).unwrap()
}

#[test]
fn crashes_are_spread_over_many_commits() {
    let (plan, mut cases) = checked(&case(RIGHT));
    cases[0].partitions = Some(1);
    let plain = Outcome { commits: 1000, ..Outcome::default() };
    let names: Vec<String> =
        Variant::others(&plan, &cases[0], &plain).into_iter().map(|variant| variant.name).collect();
    assert_eq!(names.iter().filter(|name| name.starts_with("crash-written-")).count(), 100);
    assert!(names.contains(&"crash-written-0".to_owned()) && names.contains(&"crash-written-990".to_owned()));
}

#[test]
fn what_differs_is_shown_with_its_line_and_how_to_run_it_alone() {
    for (name, wrong) in [
        ("a_field", RIGHT.replace("total: 1.6", "total: 1.7")),
        (
            "lost_and_found",
            RIGHT
                .replace("k: b", "k: c")
                .replace("start: 0", "start: 1")
                .replace("end: 10000, n: 1, total: 2 ", "end: 9, n: 9, total: 9 "),
        ),
        ("a_left_out_field", RIGHT.replace(", total: 2 ", " ")),
        ("nothing", "    expect: { out: [] }\n".to_owned()),
        ("order", reversed()),
        (
            "keys_and_conditions",
            "    expect:
      out:
        records:
          - { value: { k: b, window_start: 0, window_end: 10000, n: 1, total: 2 }, key: c, timestamp: 1 }
          - { value: { k: a, window_start: 0, window_end: 10000, n: 2, total: 1.6 }, where: total > 1.6 }
          - { value: { k: a, window_start: 10000, window_end: 20000, n: 1, total: 0.2 }, headers: { h: x } }
"
            .to_owned(),
        ),
        (
            "headers",
            "    expect:
      out: { fields: some, rows: [{ k: b }, { n: 2 }, { n: 1 }] }
      dead:
        records:
          - { raw: x, headers: { thalweg.partition: 3 } }
          - { raw: y, headers: { thalweg.source: in } }
"
            .to_owned(),
        ),
        (
            "state",
            "    state: { w: [{ k: a, window_start: 0, window_end: 10000, n: 2, total: 1.6 }] }\n".to_owned(),
        ),
        ("counts", "    late: { w: 2 }\n    failed: { in: 1 }\n".to_owned()),
    ] {
        let mut input = case(&wrong);
        if name == "headers" {
            input = input.replace("    expect:", "      - raw: x\n      - raw: z\n    expect:");
        }
        insta::assert_snapshot!(name, text_of(&input));
    }
}

#[test]
fn a_pane_that_is_there_for_what_was_told_is_no_window() {
    let told = WINDOWS
        .replace("type: tumbling, size: 10s", "type: sliding, size: 20s, slide: 10s, allowed_lateness: 30s")
        .replace(
            "    aggregate:",
            "    emit: { then: on_time, refinements: { every: 1h } }\n    changelog: true\n    aggregate:",
        );
    let case = "  - name: a case
    input:
      - value: { k: a, v: 1, t: 5000 }
      - value: { k: b, v: 1, t: 22000 }
      - value: { k: a, v: 1, t: 6000 }
    state:
      w:
        - { k: a, window_start: -10000, window_end: 10000, n: 2, total: 2 }
        - { k: a, window_start: 0, window_end: 20000, n: 2, total: 2 }
        - { k: b, window_start: 10000, window_end: 30000, n: 1, total: 1 }
        - { k: b, window_start: 20000, window_end: 40000, n: 1, total: 1 }
";
    let text = format!("{told}{case}");
    let checked = parse(&text, "w.yaml", &|_| Err("no files".into()), &|_| None);
    let Checked { plan, cases, .. } =
        checked.unwrap_or_else(|findings| panic!("{}", render_findings(&findings, &text)));
    let report = run_case(&prepare(plan), &cases[0], None, &play).unwrap();
    assert!(report.failure.is_none(), "{:?}", report.failure);
}

/// The two windows of `a` the wrong way round.
fn reversed() -> String {
    let lines: Vec<&str> = RIGHT.lines().collect();
    [lines[0], lines[1], lines[4], lines[3], lines[2], ""].join("\n")
}

#[test]
fn a_missing_row_of_an_open_window_is_explained() {
    let open = case(RIGHT).replace("    bounded: true\n", "");
    insta::assert_snapshot!("open_windows", text_of(&open));
}

#[test]
fn unexpected_dead_letters_and_late_records_fail_a_case() {
    let bad = case(RIGHT).replace("    expect:", "      - value: { k: a, v: x, t: 0 }\n    expect:");
    insta::assert_snapshot!("dead_letter", text_of(&bad));
    let late = case(RIGHT).replace("    expect:", "      - value: { k: a, v: 1, t: 0 }\n    expect:");
    insta::assert_snapshot!("late", text_of(&late));
}

#[test]
fn a_difference_only_under_faults_names_the_variant() {
    let (plan, cases) = checked(&case(RIGHT));
    let report = run_case(&plan, &cases[0], None, &|scenario| {
        let mut outcome = play(scenario)?;
        if let Faults::CrashAt { commit: 2, point: CommitPoint::Written } = scenario.faults {
            let topic = outcome.topics.get_mut("sums").unwrap();
            topic.push(topic[0].clone());
            // Counts die with their process: they are not looked at.
            outcome.counters = Default::default();
        }
        Ok(outcome)
    });
    let file =
        FileReport { tests: 1, file: "a b.yaml".into(), cases: vec![(report.unwrap(), 3)], wrong: None };
    insta::assert_snapshot!("only_in_a_crash", render(std::slice::from_ref(&file), Format::Text));
    insta::assert_snapshot!("junit", render(std::slice::from_ref(&file), Format::Junit));
    let json: serde_json::Value = serde_json::from_str(&render(&[file], Format::Json)).unwrap();
    let case = &json["files"][0]["tests"][0];
    assert_eq!((&case["passed"], &case["failure"]["variant"]), (&false.into(), &"crash-written-2".into()));
}

#[test]
fn a_run_that_stops_fails_the_case() {
    let (plan, cases) = checked(&case(RIGHT));
    let report = run_case(&plan, &cases[0], None, &|_| Err(Failure { what: "all is lost".into() })).unwrap();
    let failure = report.failure.unwrap();
    assert_eq!((failure.variant.name.as_str(), failure.differences[0].line), ("one-by-one", 22));
    assert!(failure.differences[0].text.contains("all is lost"), "{failure:?}");
}

#[test]
fn expectations_can_be_loose() {
    for right in [
        reversed().replace("out:", "out:\n        order: any\n        rows:"),
        RIGHT.replace("out:", "out:\n        tolerance: 0.01\n        rows:").replace("total: 1.6", "total: 1.605"),
        "    expect: { out: { fields: some, rows: [{ n: 2 }, { k: b }, { n: 1 }] } }\n".to_owned(),
        // The first condition could take either row; only one way round leaves none over.
        "    expect: { out: { records: [{ where: total > 1.0 }, { where: total < 1.7 }, { where: n == 1 }] } }\n"
            .to_owned(),
        "    expect: { out: { order: any, records: [{ where: n > 0 }, { where: n == 1 }, { where: n == 2 }] } }\n"
            .to_owned(),
        "    expect: { out: { records: [{ key: b }, { key: a, timestamp: 9999 }, { timestamp: 1970-01-01T00:00:19.999Z }] } }\n".to_owned(),
        "    state: { w: [] }\n".to_owned(),
        "    late: {}\n    failed: { in: 0 }\n".to_owned(),
    ] {
        let text = text_of(&case(&right));
        assert!(text.contains("1 test passed"), "{right}{text}");
    }
}

#[test]
fn counts_are_compared_only_without_faults() {
    let late =
        case("    late: { w: 1 }\n").replace("    late:", "      - value: { k: a, v: 1, t: 0 }\n    late:");
    let (plan, cases) = checked(&late);
    let report = run_case(&plan, &cases[0], None, &|scenario| {
        let mut outcome = play(scenario)?;
        if scenario.faults != Faults::None {
            outcome.counters = Default::default();
        }
        Ok(outcome)
    });
    assert!(report.unwrap().failure.is_none());
}

#[test]
fn records_get_key_partition_and_timestamp_of_their_fields() {
    let (plan, mut cases) = checked(
        "  - name: a case
    partitions: 7
    input:
      - value: { k: foobar, v: 1, t: 5 }
      - { value: { k: foobar, v: wrong, t: 6 }, key: other, timestamp: 7 }
      - { value: { k: foobar }, partition: 2, key: null }
      - { raw: broken }
      - advance: 3s
      - { value: null }
    expect: { out: [] }
",
    );
    let case = cases.remove(0);
    let inputs: Vec<_> = input::steps(&plan, &case, 7)
        .into_iter()
        .map(|step| match step {
            crate::simulator::Step::Append(input) => {
                let key = input.key.map(|key| String::from_utf8(key).unwrap());
                (key, input.partition.partition, input.timestamp_ms, input.value.is_some())
            }
            crate::simulator::Step::Advance(ms) => (None, -1, ms as i64, false),
        })
        .collect();
    let partition = |key: &str| crate::format::key::partition(Some(key.as_bytes()), 7).unwrap();
    let key = |key: &str| Some(key.to_owned());
    assert_eq!(
        inputs,
        [
            (key("foobar"), partition("foobar"), 5, true),
            (key("other"), partition("other"), 7, true),
            (None, 2, 0, true),
            (None, 0, 0, true),
            (None, -1, 3000, false),
            (None, 0, 3000, false),
        ]
    );
}

#[test]
fn an_embedded_run_prints_its_sinks_and_dead_letters() {
    let (plan, _) = checked("  []");
    let input = "{\"k\":\"a\",\"v\":1,\"t\":0}\n\n{\"k\":\"b\",\"v\":2.5,\"t\":0}\nbroken\n";
    let embedded::Printed { lines, summary } = embedded::run(&plan, input, &play).unwrap();
    assert_eq!(
        summary,
        "3 records in: in 3\n2 records out: out 2\n1 dead letter: dead 1\n0 records came late\n1 record failed: in 1\n"
    );
    assert_eq!(
        lines,
        "{\"topic\":\"dead\",\"key\":null,\"timestamp\":0,\"value\":\"broken\",\"error\":\"invalid JSON at byte 0: \
         Invalid JSON value\",\"operator\":\"in\"}\n\
         {\"sink\":\"out\",\"key\":\"a\",\"timestamp\":9999,\"value\":{\"k\":\"a\",\"window_start\":0,\"window_end\":10000,\
         \"n\":1,\"total\":1.0}}\n\
         {\"sink\":\"out\",\"key\":\"b\",\"timestamp\":9999,\"value\":{\"k\":\"b\",\"window_start\":0,\"window_end\":10000,\
         \"n\":1,\"total\":2.5}}\n"
    );
}

#[test]
fn an_embedded_run_of_several_sources_takes_records() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("topologies/payments_overview.yaml");
    let plan = prepare(load(&path, &|_| None).unwrap().plan);
    let login =
        r#"{"source":"logins","value":{"account":7,"ip":"1.2.3.4","ok":false},"key":7,"timestamp":5}"#;
    assert_eq!(
        embedded::run(&plan, login, &play).unwrap().lines,
        "{\"sink\":\"suspicious_logins\",\"key\":null,\"timestamp\":5,\"value\":{\"account\":7,\"ip\":\"1.2.3.4\",\"ok\":false}}\n"
    );
    for (line, error) in [
        (
            r#"{"source":"logns","value":{}}"#,
            "line 1 of the input: there is no source `logns`; there are payments, logins",
        ),
        (r#"{"account":7}"#, "write {\"source\": …, \"value\": {…}}"),
        (r#"{"source":"logins","value":{},"timestamp":"noon"}"#, "the timestamp \"noon\" is neither"),
    ] {
        let found = embedded::run(&plan, line, &play).unwrap_err().to_string();
        assert!(found.contains(error), "{line}: {found}");
    }
    let failing = r#"{"source":"logins","value":{}}"#;
    assert!(embedded::run(&plan, failing, &play).unwrap_err().to_string().contains("logins[0] at offset 0"));
}
