//! Changes of keys.

use super::*;

#[test]
fn a_source_that_does_not_say_how_it_is_partitioned_is_repartitioned() {
    let text = around(
        "type: window\ninput: s\nkey_by: [k]\nwindow: { type: tumbling, size: 1m }\naggregate: { c: count() }",
    );
    assert!(plan_of(&text).repartitions.is_empty());
    let plan = plan_of(&text.replace("partitioned_by: [k]", "start: latest"));
    let RepartitionPlan { id, input, key, partitions, on_error, .. } = &plan.repartitions[0];
    assert_eq!((id.as_str(), input, &key[..], partitions), ("o", &StreamRef::Source(0), &[0][..], &None));
    assert_eq!(on_error, &OnError::Fail);
    assert!(plan.is_of_stage(StreamRef::Operator(0), 1) && !plan.is_of_stage(StreamRef::Operator(0), 0));
    let stages: Vec<&str> = plan.stages().map(StageInput::id).collect();
    assert_eq!(stages, ["s", "o"]);
    assert_eq!(plan.repartition_topic(&plan.repartitions[0]), "thalweg.around.o.repartition");
}

#[test]
fn a_repartition_by_itself_has_the_rows_of_its_input() {
    let text = around(
        "type: window\ninput: r\nkey_by: [n, k]\nwindow: { type: tumbling, size: 1m }\naggregate: { c: count() }",
    );
    let with = |repartition: &str| text.replace("operators:\n", &format!("operators:\n  r: {repartition}\n"));
    let plan = plan_of(&with("{ type: repartition, input: s, key_by: [n], partitions: 12 }"));
    assert_eq!(plan.operators.len(), 1, "no operator stands for it");
    assert_eq!(plan.operators[0].inputs, [StreamRef::Repartition(0)]);
    assert_eq!((plan.repartitions.len(), plan.repartitions[0].partitions), (1, Some(12)));
    assert_eq!(plan.stream_schema(StreamRef::Repartition(0)), plan.stream_schema(StreamRef::Source(0)));

    let findings = |repartition: &str| -> Vec<String> {
        check(&with(repartition)).unwrap_err().into_iter().map(|finding| finding.message).collect()
    };
    assert_eq!(
        findings("{ type: repartition, input: s, key_by: [nix] }"),
        ["`key_by`: there is no field `nix`"]
    );
    assert_eq!(findings("{ type: repartition, input: s, key_by: [] }"), ["`key_by` is empty"]);
    assert_eq!(
        findings("{ type: repartition, input: s, key_by: [n], partitions: 0 }"),
        ["`partitions` must be an int from 1 to 10000, found an int (`0`)"]
    );
}

#[test]
fn behind_a_change_of_keys_there_is_no_record_to_ask_about() {
    let window = |key: &str| {
        around(&format!(
            "type: window\ninput: s\nkey_by: [{key}]\nwindow: {{ type: tumbling, size: 1m }}\naggregate: {{ c: \
             max(meta.offset) }}"
        ))
    };
    plan_of(&window("k"));
    let findings = check(&window("n")).unwrap_err();
    assert_eq!(findings[0].message, "`meta` may not be used here: these rows come from no single record");
}

/// A file with two sources and a union of what these operators make of them.
fn united(operators: &str) -> String {
    let source = |id: &str, schema: &str| {
        format!(
            "  {id}:\n    topic: {id}\n    partitioned_by: [k]\n    format: {{ type: json }}\n    schema: {{ {schema} }}\n"
        )
    };
    let (one, two) = (source("a", "k: string, n: int"), source("b", "n: int?, k: string, x: double"));
    format!(
        "version: 1\nname: united\nsources:\n{one}{two}operators:\n{operators}sinks:\n  s: {{ input: u, topic: s, \
         format: {{ type: json }} }}\n"
    )
}

#[test]
fn a_union_has_the_fields_of_its_inputs_in_the_order_of_the_first() {
    let plan = plan_of(&united(
        "  u: { type: union, inputs: [a, m] }\n  m: { type: map, input: b, drop: [x] }\n  f: { type: filter, input: u, \
         where: 'n > 1' }\n",
    )
    .replace("input: u, topic", "input: f, topic"));
    let union = plan.operators.iter().find(|operator| operator.id == "u").unwrap();
    assert_eq!(union.inputs, [StreamRef::Source(0), StreamRef::Operator(0)]);
    let OperatorKind::Union { slots } = &union.kind else { panic!("{:?}", union.kind) };
    assert_eq!(slots, &[vec![0, 1], vec![1, 0]]);
    let fields: Vec<_> =
        union.schema.fields.iter().map(|field| (field.name.as_str(), field.nullable)).collect();
    assert_eq!(fields, [("k", false), ("n", true)], "null where one of them may be");
    let names =
        |stream| plan.routes(stream).into_iter().map(|route| (route.stage, route.name)).collect::<Vec<_>>();
    assert_eq!(names(plan.sinks[0].input), [(0, "a/a".to_owned()), (1, "b/m".to_owned())]);
}

#[test]
fn rows_of_a_key_have_to_be_brought_together_behind_a_union() {
    let text = united(
        "  m: { type: map, input: b, drop: [x] }\n  u: { type: union, inputs: [a, m] }\n  w: { type: window, input: u, \
         key_by: [k], window: { type: tumbling, size: 1m }, aggregate: { c: count() } }\n",
    );
    let plan = plan_of(&text.replace("input: u, topic", "input: w, topic"));
    assert_eq!(plan.repartitions.len(), 1, "although both topics are partitioned by it");
    assert_eq!(plan.partitions_of(&plan.repartitions[0], &[3, 8]), 8);
}

#[test]
fn a_union_of_different_rows_is_refused() {
    let findings = |operators: &str| -> Vec<String> {
        let findings = check(&united(operators)).unwrap_err().into_iter();
        findings
            .filter(|finding| finding.severity == Severity::Error)
            .map(|finding| finding.message)
            .collect()
    };
    assert_eq!(findings("  u: { type: union, inputs: [a, b] }\n"), ["`b` has `x`, and `a` has not"]);
    assert_eq!(
        findings(
            "  m: { type: map, input: b, set: { n: 'x' }, drop: [x] }\n  u: { type: union, inputs: [a, m] }\n"
        ),
        ["`n` is of type int in `a` and of type double in `m`"]
    );
    assert_eq!(findings("  u: { type: union, inputs: [a] }\n"), ["a union has at least two `inputs`"]);
    assert_eq!(findings("  u: { type: union, inputs: [a, a] }\n"), ["`a` stands twice in `inputs`"]);
    assert_eq!(
        findings("  u: { type: union, inputs: [a, v] }\n  v: { type: union, inputs: [u, a] }\n"),
        ["these operators read each other in a cycle: u → v → u"]
    );
    assert_eq!(findings("  u: { type: union, input: a }\n"), ["unknown key `input` in operator `u`"]);
}

#[test]
fn one_group_takes_two_steps_by_itself_unless_an_aggregate_has_a_bound() {
    let operators = |aggregate: &str, two_phase: &str| {
        let window = "window: { type: tumbling, size: 1m }";
        let text = format!(
            "type: window\ninput: s\nkey_by: []\n{two_phase}{window}\naggregate:\n  n: count()\n  a: {aggregate}"
        );
        plan_of(&around(&text)).operators.len()
    };
    for (aggregate, by_itself) in [
        ("sum(n)", 2),
        ("approx_count_distinct(k)", 2),
        ("{ top_n: { of: k, by: n, n: 3 } }", 2),
        ("collect(k)", 1),
        ("'collect (k, 18000)'", 1),
        ("${NONE:-collect(k)}", 1),
        ("{ collect: { of: k, where: n > 1 } }", 1),
        ("'count_distinct(k, 5)'", 1),
        ("{ count_distinct: { of: k } }", 1),
    ] {
        assert_eq!(operators(aggregate, ""), by_itself, "{aggregate}");
        assert_eq!(operators(aggregate, "two_phase: true\n"), 2, "{aggregate}");
    }
}
