//! Tests of whole files: the examples, a table of broken ones, positions, properties.

mod keyed;
mod keys;
mod lists;

use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;
use crate::format::block::Carried;
use crate::record::{Field, FieldForm};
use crate::window::{AlignedWindows, EarlyFiring, TimeDomain};
use plan::*;

fn no_environment(_: &str) -> Option<String> {
    None
}

fn no_files(name: &str) -> Result<String, String> {
    Err(format!("there is no {name}"))
}

fn check(text: &str) -> Result<Checked, Vec<Diagnostic>> {
    parse(text, "test.yaml", &no_files, &no_environment)
}

/// The plan of a text without any finding.
#[track_caller]
fn plan_of(text: &str) -> Plan {
    let checked = check(text).unwrap_or_else(|findings| panic!("{}", render(&findings, text)));
    assert_eq!(render(&checked.warnings, text), "");
    checked.plan
}

fn yaml_files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = std::fs::read_dir(&folder).expect("the folder is there");
    let paths = entries.map(|entry| entry.expect("it can be listed").path());
    let mut files: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "yaml")).collect();
    files.sort();
    files
}

#[test]
fn all_example_topologies_are_valid() {
    let files = yaml_files("topologies");
    assert!(files.len() >= 5, "{files:?}");
    for path in files {
        let name = path.file_stem().expect("a file").to_string_lossy().into_owned();
        let checked = load(&path, &no_environment).unwrap_or_else(|findings| {
            panic!("{}", render(&findings, &std::fs::read_to_string(&path).expect("it was read before")))
        });
        assert_eq!(checked.warnings, [], "{name}");
        insta::assert_snapshot!(format!("graph_of_{name}"), graph(&checked.plan));
        insta::assert_snapshot!(format!("plan_of_{name}"), describe(&checked.plan));
    }
}

/// What a plan says, without its compiled expressions.
fn describe(plan: &Plan) -> String {
    use std::fmt::Write;
    let fields = |fields: &[Field]| {
        let fields = fields.iter().map(|field| {
            let nullable = if field.nullable { "?" } else { "" };
            let form = if field.form == FieldForm::Rfc3339 { " as RFC 3339" } else { "" };
            format!("{}: {}{nullable}{form}", field.name, field.ty)
        });
        fields.collect::<Vec<_>>().join(", ")
    };
    let mut out = format!("{}\n", plan.name);
    for (i, source) in plan.sources.iter().enumerate() {
        let schema = plan.stream_schema(StreamRef::Source(i));
        let _ = writeln!(out, "source {} <- {}: {}", source.id, source.topic, fields(&schema.fields));
        let _ = writeln!(
            out,
            "  {:?}, start {:?}, on error {:?}",
            source.event_time, source.start, source.on_error
        );
        let _ = writeln!(out, "  partitioned by {:?}, create {:?}", source.partitioned_by, source.create);
    }
    for repartition in &plan.repartitions {
        let RepartitionPlan { id, input, schema, key, partitions, on_error } = repartition;
        let _ = writeln!(out, "repartition {id} <- {input:?}: {}", fields(&schema.fields));
        let _ = writeln!(out, "  key slots {key:?}, partitions {partitions:?}, on error {on_error:?}");
    }
    for operator in &plan.operators {
        let _ = writeln!(
            out,
            "operator {} <- {}: {}",
            operator.id,
            operator.inputs.iter().map(|input| format!("{input:?}")).collect::<Vec<_>>().join(", "),
            fields(&operator.schema.fields)
        );
        let _ = writeln!(out, "  on error {:?}", operator.on_error);
        if let OperatorKind::Window(window) = &operator.kind {
            let changelog = if window.changelog { " as a changelog" } else { "" };
            let WindowPlan { key, emit, late, .. } = window;
            let _ = writeln!(out, "  key slots {key:?}, emit {emit:?}{changelog}, late {late:?}");
        }
        for line in operator.fingerprint().unwrap_or_default().lines() {
            let _ = writeln!(out, "  {line}");
        }
    }
    for sink in &plan.sinks {
        let _ =
            writeln!(out, "sink {} <- {:?} -> {} by slots {:?}", sink.id, sink.input, sink.topic, sink.key);
        let _ = writeln!(out, "  on error {:?}, create {:?}", sink.on_error, sink.create);
    }
    for topic in topics(plan) {
        let _ = writeln!(out, "topic {} ({}): {}", topic.topic, topic.role.name(), topic.users.join(", "));
    }
    out
}

#[test]
fn broken_files_are_explained() {
    let files = yaml_files("src/topology/broken");
    assert!(files.len() >= 10, "{files:?}");
    for path in files {
        let name = path.file_stem().expect("a file").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).expect("it can be read");
        let findings = match parse(&text, &format!("{name}.yaml"), &no_files, &no_environment) {
            Ok(checked) => checked.warnings,
            Err(findings) => findings,
        };
        assert!(!findings.is_empty(), "{name} has a mistake");
        insta::assert_snapshot!(name, render(&findings, &text));
    }
}

/// A topology around one operator between a source and a sink, in block style.
fn around(operator: &str) -> String {
    let indented: String = operator.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "version: 1\nname: around\nsources:\n  s:\n    topic: in\n    partitioned_by: [k]\n    format: {{ type: json }}\n    \
         schema: {{ k: string, r: string?, n: int, d: double?, t: timestamp, m: timestamp_ms }}\n\
         operators:\n  o:\n{indented}sinks:\n  out: {{ input: o, topic: out, format: {{ type: json }} }}\n"
    )
}

/// The text that a finding points at.
fn pointed_at(finding: &Diagnostic, text: &str) -> String {
    let line = text.lines().nth(finding.line - 1).expect("the line is there");
    line.chars().skip(finding.column - 1).take(finding.length).collect()
}

#[test]
fn findings_point_at_the_characters_that_are_meant() {
    for (condition, what) in [
        (r#"'"größe→" == k && nn > 1'"#, "nn"),
        (r#""\"größe\" == k && nn > 1""#, "nn"),
        (r#"'"it''s" == k && nn > 1'"#, "nn"),
        ("  n > 1 && nn > 1", "nn"),
        ("|\n  \"größe\" == k\n\n    && nn > 1\n", "nn"),
        (">-  # a comment\n  \"größe\" == k\n  && nn > 1\n", "nn"),
        ("k == \"größe\"\n  && nn > 1", "nn"),
        ("n > 1 && größe > 1", "ö"),
    ] {
        let text = around(&format!("type: filter\ninput: s\nwhere: {condition}"));
        let findings = check(&text).expect_err("`nn` is not known");
        assert_eq!(pointed_at(&findings[0], &text), what, "{condition}");
    }
}

#[test]
fn line_ends_and_byte_order_marks_do_not_shift_positions() {
    let unix = around("type: filter\ninput: s\n# größe\nwhere: 'k == \"é\" && nn > 1'");
    let expected = check(&unix).expect_err("`nn` is not known");
    for text in [unix.replace('\n', "\r\n"), format!("\u{feff}{unix}"), unix.replace('\n', "\r")] {
        let findings = check(&text).expect_err("`nn` is not known");
        assert_eq!(findings, expected);
        assert!(
            render(&findings, &text).contains("where: 'k == \"é\" && nn > 1'\n"),
            "{}",
            render(&findings, &text)
        );
    }
}

#[test]
fn a_position_that_escapes_hide_falls_back_to_the_scalar() {
    let text = around("type: filter\ninput: s\nwhere: \"k == '\\u0041' && nn > 1\"");
    let findings = check(&text).expect_err("`nn` is not known");
    assert_eq!(pointed_at(&findings[0], &text), "\"k == '\\u0041' && nn > 1\"");
}

#[test]
fn findings_are_sorted_and_all_there() {
    let text =
        around("type: filtr\ninput: x\nwhere: 1").replace("version: 1", "version: 3").replace("json", "jsn");
    let findings = check(&text).expect_err("much is wrong");
    let places: Vec<_> = findings.iter().map(|finding| (finding.line, finding.column)).collect();
    assert_eq!(places.len(), 5, "{}", render(&findings, &text));
    assert!(places.is_sorted());
}

#[test]
fn a_map_keeps_the_order_of_its_input_and_appends_new_fields() {
    let plan = plan_of(&around(
        "type: map\ninput: s\nset: { new: 'n + 1', n: 'd', copy: t, computed: 't + duration(\"1s\")' }\nkeep: [new, t, k]",
    ));
    let operator = &plan.operators[0];
    let fields: Vec<_> = operator
        .schema
        .fields
        .iter()
        .map(|f| format!("{} {}{} {:?}", f.name, f.ty, f.nullable, f.form))
        .collect();
    assert_eq!(
        fields,
        [
            "k stringfalse Plain",
            "n doubletrue Plain",
            "t timestampfalse Rfc3339",
            "new intfalse Plain",
            "copy timestampfalse Rfc3339",
            "computed timestampfalse Plain",
        ]
    );
    let OperatorKind::Map { slots } = &operator.kind else { panic!("it is a map") };
    let slots: Vec<_> = slots
        .iter()
        .map(|slot| match slot {
            MapSlot::Input(i) => format!("input {i}"),
            MapSlot::Expression(expression) => expression.source().to_owned(),
        })
        .collect();
    assert_eq!(slots, ["input 0", "input 3", "input 4", "n + 1", "input 4", "t + duration(\"1s\")"]);
}

#[test]
fn a_partition_key_is_followed_through_renames_and_windows() {
    let text = |map: &str, key: &str, second: &str| {
        let maps = format!(
            "  m: {{ type: map, input: s, {map} }}\n  w:\n    type: window\n    input: m\n    key_by: {key}\n    \
             window: {{ type: tumbling, size: 1m }}\n    aggregate: {{ c: count() }}\n"
        );
        around(&format!(
            "type: window\ninput: w\nkey_by: {second}\nwindow: {{ type: tumbling, size: 1h }}\naggregate: {{ c: sum(c) }}"
        ))
        .replace("operators:\n", &format!("operators:\n{maps}"))
    };
    for (map, key, second) in [
        ("set: { z: k }", "[z]", "[z]"),
        ("set: { z: k }", "[k]", "[k]"),
        ("set: { z: k }, drop: [k]", "[n, z]", "[z]"),
        ("set: { z: ' k ' }, keep: [n]", "[z, n]", "[n, z]"),
        ("set: { z: k, k: n }", "[z]", "[z]"),
    ] {
        plan_of(&text(map, key, second));
    }
    for (map, key, second, changes) in [
        ("set: { z: k, k: n }", "[k]", "[k]", &["w"][..]),
        ("set: { k: 'k + k' }", "[k]", "[k]", &["w"]),
        ("set: { z: k }", "[z, n]", "[n]", &["o"]),
        ("set: { z: k }", "[n]", "[n]", &["w"]), // the second window's key is the first one's
        ("set: { z: k }", "[n, z]", "[n, z]", &[]),
        ("set: { z: n }", "[n, z]", "[z]", &["w", "o"]),
    ] {
        let text = text(map, key, second);
        let checked = check(&text).unwrap_or_else(|findings| panic!("{}", render(&findings, &text)));
        let ids: Vec<&str> = checked.plan.repartitions.iter().map(|one| one.id.as_str()).collect();
        assert_eq!(ids, changes, "{map} {key} {second}");
        for (place, repartition) in checked.plan.repartitions.iter().enumerate() {
            let reader =
                checked.plan.operators.iter().find(|one| one.inputs == [StreamRef::Repartition(place)]);
            assert_eq!(reader.map(|one| &one.id), Some(&repartition.id));
        }
    }
}

#[test]
fn a_windows_rows_are_its_key_its_bounds_and_its_aggregates() {
    let plan = plan_of(&around(
        "type: window\ninput: s\nkey_by: [r, k, t]\nwindow: { type: tumbling, size: 90s }\naggregate: { a: count(), \
         b: count(d), c: sum(n), d: 'sum( d * 2.0 )', e: avg(n), f: max(k), g: min(t) }\nemit: on_update\nlate: { topic: \
         l }",
    ));
    let operator = &plan.operators[0];
    let fields: Vec<_> = operator
        .schema
        .fields
        .iter()
        .map(|f| format!("{}: {}{}", f.name, f.ty, if f.nullable { "?" } else { "" }))
        .collect();
    assert_eq!(
        fields.join(", "),
        "r: string, k: string, t: timestamp, window_start: timestamp, window_end: timestamp, a: int, b: int, c: int?, \
         d: double?, e: double?, f: string?, g: timestamp?, final: bool"
    );
    assert_eq!(operator.schema.fields[2].form, FieldForm::Rfc3339);
    assert_eq!(operator.schema.fields[11].form, FieldForm::Plain);
    let OperatorKind::Window(window) = &operator.kind else { panic!("it is a window") };
    let expected = (&Windows::Aligned(AlignedWindows::tumbling(90_000)), 0, &vec![1, 0, 4]);
    assert_eq!((&window.windows, window.allowed_lateness_ms, &window.key), expected);
    assert_eq!(window.late, Late::Topic("l".to_owned()));
}

#[test]
fn operators_come_after_their_input_and_else_as_in_the_file() {
    let text = around("type: filter\ninput: b\nwhere: n > 0").replace(
        "operators:\n",
        "operators:\n  c: { type: filter, input: a, where: n > 1 }\n  b: { type: filter, input: a, where: n > 1 }\n  a: { \
         type: filter, input: s, where: n > 1 }\n",
    );
    let checked = check(&text).expect("it is right");
    let order: Vec<_> = checked.plan.operators.iter().map(|operator| operator.id.as_str()).collect();
    assert_eq!(order, ["a", "c", "b", "o"]);
    assert_eq!(checked.plan.operators[3].inputs, [StreamRef::Operator(2)]);
    assert_eq!(checked.plan.sinks[0].input, StreamRef::Operator(3));
    assert_eq!(checked.warnings.len(), 1, "`c` is unused");
}

#[test]
fn early_rows_go_by_the_time_that_is_said_and_refinements_are_of_all_windows() {
    let window = |kind: &str, emit: &str| {
        let operator = format!(
            "type: window\ninput: s\nkey_by: [k]\nwindow: {{ {kind}, allowed_lateness: 1h }}\naggregate: {{ a: count() }}\nemit: \
             {emit}"
        );
        let mut plan = plan_of(&around(&operator));
        match plan.operators.remove(0).kind {
            OperatorKind::Window(window) => (window.early, window.emit, window.refine_every_ms),
            other => panic!("{other:?}"),
        }
    };
    for (time, expected) in [
        ("", TimeDomain::Processing),
        (", time: processing", TimeDomain::Processing),
        (", time: event", TimeDomain::Event),
    ] {
        let (early, ..) =
            window("type: session, gap: 1m", &format!("{{ early: {{ every: 10s{time} }}, then: on_time }}"));
        assert_eq!(early, Some(EarlyFiring::EveryMs(10_000, expected)));
    }
    // A row of 1,440 windows makes none of them at once.
    for kind in ["type: session, gap: 1m", "type: sliding, size: 1d, slide: 1m"] {
        let made = window(kind, "{ then: on_time, refinements: { every: 10s } }");
        assert_eq!(made, (None, Emit::OnTime, Some(10_000)));
    }
}

#[test]
fn fingerprints_tell_what_differs() {
    let fingerprint = |operator: &str| {
        plan_of(&around(&format!("type: window\ninput: s\n{operator}"))).operators[0]
            .fingerprint()
            .expect("it has state")
    };
    let base =
        "key_by: [k, n]\nwindow: { type: tumbling, size: 60s }\naggregate: { a: count(), b: sum( n ) }";
    let was = fingerprint(base);
    assert_eq!(
        was,
        "kind: window\nkey k: string\nkey n: int\nwindow: tumbling 1m\nallowed_lateness: 0ms\naggregate a: count() \
         int\naggregate b: sum(n) int\n"
    );
    let same = fingerprint(&base.replace("60s", "1m").replace("sum( n )", "sum(n)"));
    assert_eq!(fingerprint_difference(&was, &same), None);
    let by_clock = fingerprint(&format!("{base}\nemit: {{ early: {{ every: 10s }} }}"));
    assert_eq!(fingerprint_difference(&was, &by_clock), None);
    assert_eq!(
        fingerprint_difference(&was, &fingerprint(&format!("{base}\nemit: on_update\nlate: {{ topic: l }}"))),
        None
    );
    for (old, new, difference) in [
        ("60s", "5m", "window: tumbling 1m is now tumbling 5m"),
        ("sum( n )", "sum(d)", "aggregate b: sum(n) int is now sum(d) double"),
        ("[k, n]", "[k, m]", "key n: int is gone; key m: timestamp is new"),
        ("[k, n]", "[n, k]", "the order of its keys or aggregates differs"),
        ("size: 60s", "size: 60s, offset: 10s", "window: tumbling 1m is now tumbling 1m offset 10s"),
        (
            "tumbling, size: 60s",
            "sliding, size: 90s, slide: 1m",
            "window: tumbling 1m is now sliding 90s every 1m",
        ),
        (
            "tumbling, size: 60s",
            "cumulative, size: 2m, step: 1m",
            "window: tumbling 1m is now cumulative 2m by 1m",
        ),
        ("tumbling, size: 60s", "session, gap: 60s", "window: tumbling 1m is now session 1m"),
        (
            "tumbling, size: 60s",
            "session, gap: { of: 'duration( n )', min: 1m }",
            "window: tumbling 1m is now session 1m at least, by duration( n )",
        ),
        (
            "size: 60s",
            "size: 60s, time: processing",
            "window: tumbling 1m is now tumbling 1m of processing time",
        ),
        ("aggregate:", "emit: { early: { rows: 7 } }\naggregate:", "early: by number of rows is new"),
        (
            "tumbling, size: 60s",
            "calendar, unit: week, time_zone: Europe/Berlin",
            "window: tumbling 1m is now calendar week in Europe/Berlin",
        ),
        (
            "tumbling, size: 60s",
            "calendar, unit: day, time: processing",
            "window: tumbling 1m is now calendar day in UTC of processing time",
        ),
        (
            "sum( n )",
            "{ sum: { of: 'n', where: 'n > 0' } }",
            "aggregate b: sum(n) int is now sum(n) int where n > 0",
        ),
        (
            "sum( n )",
            "{ min_by: { of: k, by: ' n' } }",
            "aggregate b: sum(n) int is now min_by(k by n: int) string",
        ),
        ("sum( n )", "count_distinct(k)", "aggregate b: sum(n) int is now count_distinct(k: string) int"),
    ] {
        let now = fingerprint(&base.replace(old, new));
        assert_eq!(fingerprint_difference(&was, &now).as_deref(), Some(difference), "{old} → {new}");
    }
}

#[test]
fn a_fingerprint_tells_what_values_sets_are_of_and_ignores_what_results_they_give() {
    let fingerprint = |aggregate: &str| {
        let window = "type: window\ninput: s\nkey_by: [k]\nwindow: { type: tumbling, size: 60s }";
        let plan = plan_of(&around(&format!("{window}\naggregate: {{ b: {aggregate} }}")));
        plan.operators[0].fingerprint().expect("it has state")
    };
    let short = fingerprint("'count_distinct(n)'");
    assert!(short.ends_with("aggregate b: count_distinct(n: int) int\n"), "{short}");
    // Another bound, or another quantile, goes on with the same state.
    assert_eq!(fingerprint("{ count_distinct: { of: n, max: 20000 } }"), short);
    assert_ne!(fingerprint("'count_distinct(d)'"), short);
    assert_ne!(fingerprint("'approx_count_distinct(n)'"), fingerprint("'approx_count_distinct(d)'"));
    let median = fingerprint("'approx_quantile(n, 0.5)'");
    assert!(median.ends_with("aggregate b: approx_quantile(n) double\n"), "{median}");
    assert_eq!(fingerprint("{ approx_quantile: { of: n, q: 1 } }"), median);
}

#[test]
fn a_second_argument_is_a_parameter() {
    let parameters = |aggregates: &str| {
        let window = "type: window\ninput: s\nkey_by: [k]\nwindow: { type: tumbling, size: 60s }";
        let plan = plan_of(&around(&format!("{window}\naggregate: {{ {aggregates} }}")));
        let OperatorKind::Window(window) = &plan.operators[0].kind else { panic!("it is a window") };
        let of = |aggregate: &AggregatePlan| {
            let argument = aggregate.argument.as_ref().expect("it has one").source().trim().to_owned();
            (argument, aggregate.parameter)
        };
        window.aggregates.iter().map(of).collect::<Vec<_>>()
    };
    let found = parameters(
        "a: count_distinct(k), b: 'count_distinct( k , 7 )', c: { count_distinct: { of: k, max: 9999 } }, \
         d: 'approx_quantile(d in [1.0, 2.0] ? d : 1.0, 0.99)', e: { approx_quantile: { of: n, q: 0 } }, f: sum(n)",
    );
    let expected = [
        ("k", Parameter::Max(1_000)),
        ("k", Parameter::Max(7)),
        ("k", Parameter::Max(9_999)),
        ("d in [1.0, 2.0] ? d : 1.0", Parameter::Quantile(0.99)),
        ("n", Parameter::Quantile(0.0)),
        ("n", Parameter::None),
    ];
    assert_eq!(found, expected.map(|(argument, parameter)| (argument.to_owned(), parameter)));
}

#[test]
fn a_fingerprint_ignores_what_a_map_in_front_is_called() {
    let filter = plan_of(&around("type: filter\ninput: s\nwhere: n > 0"));
    assert_eq!(filter.operators[0].fingerprint(), None);
}

#[test]
fn defaults_are_those_of_the_documentation() {
    let plan = plan_of(&around("type: filter\ninput: s\nwhere: n > 0"));
    let source = &plan.sources[0];
    assert_eq!((source.start, &source.on_error, &source.create), (Start::Earliest, &OnError::Fail, &None));
    let EventTimePlan { time, punctuated, max_out_of_orderness_ms, max_ahead_ms, idle_timeout_ms } =
        &source.event_time;
    assert!(matches!(time, EventTime::Record) && punctuated.is_none());
    assert_eq!((*max_out_of_orderness_ms, *max_ahead_ms, *idle_timeout_ms), (5_000, 86_400_000, None));
}

#[test]
fn a_file_that_cannot_be_read_is_a_finding() {
    let findings =
        load(Path::new("/nowhere/at/all.yaml"), &no_environment).expect_err("there is no such file");
    let shown = render(&findings, "");
    assert!(shown.starts_with("error: cannot read the topology file: "), "{shown}");
    assert!(shown.contains("--> /nowhere/at/all.yaml:1:1"), "{shown}");
}

#[test]
fn files_are_read_beside_the_topology() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("t.yaml");
    let text =
        around("type: filter\ninput: s\nwhere: n > 0").replace("topic: in", "topic: ${file:secrets/topic}");
    std::fs::write(&path, &text).expect("it can be written");
    std::fs::create_dir(folder.path().join("secrets")).expect("it can be made");
    std::fs::write(folder.path().join("secrets/topic"), "kept-in-a-file\n").expect("it can be written");
    let checked =
        load(&path, &no_environment).unwrap_or_else(|findings| panic!("{}", render(&findings, &text)));
    assert_eq!(checked.plan.sources[0].topic, "kept-in-a-file");
}

#[test]
fn long_lines_are_shown_around_the_marker() {
    let text = around(&format!("type: filter\ninput: s\nwhere: n > 0 {} && nn > 0", "&& n > 1 ".repeat(60)));
    let shown = render(&check(&text).expect_err("`nn` is not known"), &text);
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines.iter().all(|line| line.chars().count() < 140), "{shown}");
    let at = lines[4].chars().position(|c| c == '^').expect("a marker");
    assert_eq!(lines[3].chars().skip(at).take(2).collect::<String>(), "nn", "{shown}");
}

#[test]
fn deep_and_repeated_nodes_are_refused_or_shared() {
    let deep = format!("a: {}1{}", "[".repeat(200), "]".repeat(200));
    assert!(check(&deep).expect_err("too deep")[0].message.contains("levels deep"));
    let mut laughs = String::from("a0: &a0 [x, x]\n");
    for i in 1..40 {
        laughs.push_str(&format!("a{i}: &a{i} [*a{}, *a{}]\n", i - 1, i - 1));
    }
    assert!(!check(&laughs).expect_err("no topology").is_empty());
    laughs.push_str("tests: [{ name: x, input: [{ value: *a39 }], expect: {} }]\n");
    let findings = check(&laughs).expect_err("no topology");
    assert!(
        findings.iter().any(|finding| finding.message.contains("more than 1000000 values")),
        "{findings:?}"
    );
}

/// Pieces that together look like topology files more often than characters do.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(
            [
                "version: 1\n",
                "name: n\n",
                "sources:\n",
                "operators:\n",
                "sinks:\n",
                "  s:\n",
                "    topic: t\n",
                "    format: { type: json }\n",
                "    schema: { a: int, b: 'string?' }\n",
                "    input: s\n",
                "    type: window\n",
                "    type: map\n",
                "    type: filter\n",
                "    where: a > 1\n",
                "    key_by: [a]\n",
                "    set: { é: 'a + \"ü\"' }\n",
                "    aggregate: { x: 'sum(a', y: 'count()' }\n",
                "    keep: [a]\n",
                "    window: { type: tumbling, size: 1m }\n",
                "    partitioned_by: [a]\n",
                "  o: &x\n",
                "*x",
                "? ",
                ": ",
                "- ",
                "|\n",
                ">\n",
                "${A:-b}",
                "$${",
                "${",
                "}",
                "{",
                "[",
                "]",
                "'",
                "\"",
                "\\",
                "#",
                "!t ",
                "---\n",
                "\r\n",
                "\t",
                "\u{feff}",
                "é",
                "\u{2028}",
                "\0",
            ]
            .as_slice()
        )
        .prop_map(str::to_owned),
        "\\PC{0,4}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_text_makes_it_panic(pieces in prop::collection::vec(piece(), 0..40)) {
        let text = pieces.concat();
        if let Err(findings) = check(&text) {
            prop_assert!(!findings.is_empty());
            prop_assert!(findings.iter().any(|finding| finding.severity == Severity::Error));
            render(&findings, &text);
        }
    }

    #[test]
    fn no_change_of_a_valid_file_makes_it_panic(
        file in 0..5usize, cut in 0.0..1.0f64, length in 0..30usize, pieces in prop::collection::vec(piece(), 0..3)
    ) {
        let text = std::fs::read_to_string(&yaml_files("topologies")[file]).expect("it can be read");
        let characters: Vec<char> = text.chars().collect();
        let from = (cut * characters.len() as f64) as usize;
        let to = (from + length).min(characters.len());
        let mut changed: String = characters[..from].iter().collect();
        changed.push_str(&pieces.concat());
        changed.extend(&characters[to..]);
        if let Err(findings) = check(&changed) {
            render(&findings, &changed);
            for finding in findings {
                prop_assert!(finding.length >= 1 && finding.line >= 1 && finding.column >= 1);
            }
        }
    }
}

#[test]
fn every_name_that_a_field_may_have_can_be_used_in_expressions() {
    let words = "as break const continue else for function if import let loop package namespace return var void \
                 while has all exists map filter size int double string bool bytes timestamp duration type null \
                 true false in meta final window_start _x x1 X dyn list matches contains getHours";
    for word in words.split_whitespace() {
        let text = around("type: map\ninput: s\nset: { y: 'NAME' }")
            .replace("n: int", "NAME: int")
            .replace("NAME", word);
        if let Err(findings) = check(&text) {
            let refused = findings.iter().any(|finding| finding.line == 8);
            assert!(refused, "`{word}` is taken as a field's name:\n{}", render(&findings, &text));
        }
    }
}

#[test]
fn the_example_of_the_documentation_is_valid_and_its_defaults_are_true() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/topology-files.md"))
        .expect("the page is there");
    let example =
        page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    plan_of(example);
}
