//! Operators that remember something of each key, and branches.

use super::*;

fn fields(plan: &Plan, operator: usize) -> String {
    let fields = plan.operators[operator].schema.fields.iter();
    let text = |f: &Field| {
        format!("{}: {}{} {:?}", f.name, f.ty, if f.nullable { "?" } else { "" }, f.form)
            .replace(" Plain", "")
    };
    fields.map(text).collect::<Vec<_>>().join(", ")
}

#[test]
fn a_deduplication_has_the_rows_of_its_input() {
    let text = around("type: deduplicate\ninput: s\nkey_by: [r, k]\nwithin: 60s\nlate: { topic: l }");
    let plan = plan_of(&text);
    let OperatorKind::Deduplicate(deduplicate) = &plan.operators[0].kind else { panic!("it is one") };
    assert_eq!((&deduplicate.key[..], deduplicate.within_ms), (&[1, 0][..], 60_000));
    assert_eq!(deduplicate.late, Late::Topic("l".to_owned()));
    assert_eq!(plan.operators[0].schema, plan.stream_schema(StreamRef::Source(0)));
    assert!(plan.repartitions.is_empty());
    let fingerprint = plan.operators[0].fingerprint();
    assert_eq!(fingerprint.as_deref(), Some("kind: deduplicate\nkey r: string\nkey k: string\nwithin: 1m\n"));
    let roles: Vec<_> = topics(&plan).iter().map(|topic| (topic.topic.clone(), topic.role)).collect();
    assert!(roles.contains(&("l".to_owned(), TopicRole::Late)), "{roles:?}");
}

#[test]
fn a_lag_adds_fields_that_may_be_null_and_keep_their_form() {
    let text = around(
        "type: lag\ninput: s\nkey_by: [k]\nttl: 1d\nset: { before: t, then: m, sum: n + 1, same: d }\non_error: skip",
    );
    let plan = plan_of(&text);
    assert_eq!(
        fields(&plan, 0),
        "k: string, r: string?, n: int, d: double?, t: timestamp Rfc3339, m: timestamp, before: timestamp? Rfc3339, \
         then: timestamp?, sum: int?, same: double?"
    );
    assert_eq!(
        plan.operators[0].fingerprint().as_deref(),
        Some(
            "kind: lag\nkey k: string\nttl: 1d\nvalue before: t timestamp\nvalue then: m timestamp\nvalue sum: n + 1 \
             int\nvalue same: d double\n"
        )
    );
    let for_ever = plan_of(&text.replace("ttl: 1d\n    ", ""));
    let fingerprint = for_ever.operators[0].fingerprint().expect("it has state");
    assert!(fingerprint.contains("ttl: none\n"), "{fingerprint}");
    assert!(graph(&for_ever).contains("lag<br/>by k, kept for ever"), "{}", graph(&for_ever));
    assert!(graph(&plan).contains("lag<br/>by k, kept for 1d"));
}

#[test]
fn rows_of_keys_that_do_not_lie_together_are_brought_together() {
    for operator in ["type: deduplicate\nwithin: 1m", "type: lag\nset: { before: n }"] {
        let text = around(&format!("{operator}\ninput: s\nkey_by: [n]"));
        let plan = plan_of(&text);
        let RepartitionPlan { id, input, key, partitions, .. } = &plan.repartitions[0];
        assert_eq!((id.as_str(), input, &key[..], partitions), ("o", &StreamRef::Source(0), &[2][..], &None));
        assert_eq!(plan.operators[0].inputs, [StreamRef::Repartition(0)]);
        let covered = text.replace("key_by: [n]", "key_by: [n, k]");
        assert!(plan_of(&covered).repartitions.is_empty());
        // Behind it rows lie by the new key, and come from their records as before.
        let behind = text.replace("input: o,", "input: behind,");
        let with = |where_: &str| {
            let filter = format!("operators:\n  behind: {{ type: filter, input: o, where: {where_} }}\n");
            behind.replace("operators:\n", &filter)
        };
        let asked = |where_: &str| plan_of(&with(where_)).carried_by(0);
        assert_eq!(asked("n > 1"), Asked::default());
        assert_eq!(asked("meta.offset > 1"), Asked { carried: Carried::Meta, by_expression: true });
    }
}

#[test]
fn branches_are_read_by_their_names() {
    let text = around("type: branch\ninput: s\nbranches: { a: n > 1, b.c: d > 1.0 }\notherwise: rest")
        .replace(
            "sinks:\n",
            "  both: { type: union, inputs: [o/rest, o/a] }\n\
         sinks:\n  two: { input: o/b.c, topic: two, format: { type: json } }\n",
        );
    let plan = plan_of(&text.replace("input: o,", "input: both,"));
    let ids: Vec<&str> = plan.operators.iter().map(|operator| operator.id.as_str()).collect();
    assert_eq!(ids, ["o", "o/a", "o/b.c", "o/rest", "both"]);
    assert_eq!((plan.operator_count(), plan.outputs(0)), (2, vec![1, 2, 3]));
    assert!(matches!(plan.operators[0].kind, OperatorKind::Branch { otherwise: true, .. }));
    assert_eq!(plan.operators[4].inputs, [StreamRef::Operator(3), StreamRef::Operator(1)]);
    assert_eq!(plan.sinks[0].input, StreamRef::Operator(2));
    let routes: Vec<String> =
        plan.routes(StreamRef::Operator(4)).into_iter().map(|route| route.name).collect();
    assert_eq!(routes, ["s/o/rest", "s/o/a"]);
    assert!(plan.operators.iter().all(|operator| operator.fingerprint().is_none()));
}

#[test]
fn a_branch_that_nobody_reads_is_no_mistake() {
    let text = around("type: branch\ninput: s\nbranches: { a: n > 1, b: n > 0 }")
        .replace("input: o,", "input: o/b,");
    let checked = check(&text).expect("it is right");
    assert_eq!(checked.warnings, []);
    let unread = check(&text.replace("input: o/b,", "input: s,")).expect("it is right");
    let warnings: Vec<_> = unread.warnings.iter().map(|warning| warning.message.as_str()).collect();
    assert_eq!(warnings, ["operator `o` is unused: no sink writes what becomes of its rows"]);
}

#[test]
fn an_operator_that_splits_is_not_read_itself() {
    let text = around("type: branch\ninput: s\nbranches: { a: n > 1 }\notherwise: b");
    let findings = check(&text).unwrap_err();
    let errors: Vec<_> = findings.iter().filter(|finding| finding.severity == Severity::Error).collect();
    assert_eq!(errors.len(), 1, "{findings:?}");
    assert_eq!(errors[0].message, "`o` is split: its rows are read branch by branch");
    assert_eq!(errors[0].help.as_deref(), Some("read one of `o/a`, `o/b`"));
}

#[test]
fn windows_of_no_time_have_the_rows_of_windows() {
    let text = around(
        "type: window\ninput: s\nkey_by: [r, k]\nwindow: { type: count, size: 60, slide: 40 }\n\
         aggregate: { n: count(), best: max(d) }\nttl: 1d",
    );
    let plan = plan_of(&text);
    let OperatorKind::GlobalWindow(window) = &plan.operators[0].kind else { panic!("it is one") };
    assert_eq!((&window.key[..], window.ttl_ms, window.panes()), (&[1, 0][..], Some(86_400_000), 3));
    let expected =
        "r: string, k: string, window_start: timestamp, window_end: timestamp, n: int, best: double?";
    assert_eq!(fields(&plan, 0), expected);
    let fingerprint = "kind: window\nkey r: string\nkey k: string\nwindow: count 60 every 40\nttl: 1d\n\
                       aggregate n: count() int\naggregate best: max(d) double\n";
    assert_eq!(plan.operators[0].fingerprint().as_deref(), Some(fingerprint));
    assert!(graph(&plan).contains("window<br/>count 60 every 40, by r, k, kept for 1d"), "{}", graph(&plan));
}

#[test]
fn when_a_global_window_makes_rows_does_not_matter_to_its_state() {
    let with = |emit: &str| {
        plan_of(&around(&format!(
            "type: window\ninput: s\nkey_by: [k]\nwindow: {{ type: global }}\naggregate: {{ n: count() }}\nemit: {emit}"
        )))
    };
    let expected = "kind: window\nkey k: string\nwindow: global\nttl: none\naggregate n: count() int\n";
    for (emit, told) in [
        ("on_update", "global, after each row, by k, kept for ever"),
        ("{ rows: 10 }", "global, after every 10 rows, by k, kept for ever"),
        ("{ when: d > 1.0, purge: true }", "global, when d &gt; 1.0, purged then, by k, kept for ever"),
        ("{ having: n > 1, purge: false }", "global, having n &gt; 1, by k, kept for ever"),
    ] {
        let plan = with(emit);
        assert_eq!(plan.operators[0].fingerprint().as_deref(), Some(expected));
        assert!(graph(&plan).contains(told), "{}", graph(&plan));
    }
}

#[test]
fn parts_of_rows_are_taken_for_what_they_are() {
    let sent = |aggregate: &str, size: &str| {
        let text = format!(
            "type: window\ninput: s\nkey_by: []\nwindow: {{ type: tumbling, size: {size} }}\n\
             aggregate: {{ n: {aggregate} }}"
        );
        let plan = plan_of(&around(&text));
        let [first, second] = &plan.operators[..] else { panic!("there are two steps") };
        assert_eq!((first.fingerprint(), first.schema.fields.len()), (None, 1));
        assert!(second.fingerprint().is_some_and(|text| !text.contains("early")));
        first.schema.fields[0].name.clone()
    };
    let minutes = sent("sum(d)", "1m");
    assert!(minutes.starts_with("<accumulators "), "{minutes}");
    assert_eq!(sent("sum(d)", "1m"), minutes);
    assert_ne!(sent("max(d)", "1m"), minutes);
    assert_ne!(sent("sum(d)", "5m"), minutes);
}
