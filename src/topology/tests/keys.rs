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

/// What goes with the rows of each change of keys.
fn carried(text: &str) -> Vec<Carried> {
    let plan = plan_of(text);
    (0..plan.repartitions.len()).map(|repartition| plan.carried_by(repartition).carried).collect()
}

/// Two changes of keys; these are the operator behind them, and the sink's `on_error`.
fn rekeyed(operator: &str, sink: &str) -> String {
    around(operator)
        .replace(
            "operators:\n",
            "operators:\n  r: { type: repartition, input: s, key_by: [n] }\n  q: { type: repartition, input: r, key_by: \
             [r] }\n",
        )
        .replace("topic: out,", &format!("topic: out, on_error: {sink},"))
}

#[test]
fn what_is_asked_for_behind_changes_of_keys_goes_with_the_rows() {
    use Carried::{Meta, Nothing, Whole};
    let plain = "type: filter\ninput: q\nwhere: n > 1";
    let asks = "type: filter\ninput: q\nwhere: '[1].exists(x, x > meta.offset)'";
    assert_eq!(carried(&rekeyed(plain, "skip")), [Nothing, Nothing]);
    assert_eq!(carried(&rekeyed(asks, "skip")), [Meta, Meta]);
    assert!(graph(&plan_of(&rekeyed(asks, "skip"))).contains("repartitioned by n<br/>with meta"));
    assert_eq!(carried(&rekeyed(asks, "{ dead_letter: dead }")), [Whole, Whole]);
    assert_eq!(
        carried(&rekeyed(&format!("{plain}\non_error: {{ dead_letter: dead }}"), "skip")),
        [Whole, Whole]
    );
    // That of a change of keys is one for the rows of the topic before.
    let refused =
        rekeyed(plain, "skip").replace("key_by: [r] }", "key_by: [r], on_error: { dead_letter: dead } }");
    assert_eq!(carried(&refused), [Whole, Nothing]);
    let before =
        rekeyed(plain, "skip").replace("key_by: [n] }", "key_by: [n], on_error: { dead_letter: dead } }");
    assert_eq!(carried(&before), [Nothing, Nothing]);
    let once = "type: deduplicate\ninput: q\nkey_by: [r]\nwithin: 1m";
    assert_eq!(carried(&rekeyed(once, "skip")), [Nothing, Nothing]);
    assert_eq!(carried(&rekeyed(&format!("{once}\nlate: {{ topic: late }}"), "skip")), [Meta, Meta]);
}

#[test]
fn behind_a_window_no_record_is_asked_for() {
    use Carried::{Meta, Nothing, Whole};
    let window = |argument: &str, more: &str| {
        format!(
            "type: window\ninput: q\nkey_by: [r]\nwindow: {{ type: tumbling, size: 1m }}\naggregate: {{ c: \
             {argument} }}{more}"
        )
    };
    // Its own rows come from none.
    assert_eq!(carried(&rekeyed(&window("count()", ""), "{ dead_letter: dead }")), [Nothing, Nothing]);
    assert_eq!(carried(&rekeyed(&window("max(meta.offset)", ""), "skip")), [Meta, Meta]);
    assert_eq!(carried(&rekeyed(&window("{ count: { where: has(meta.key) } }", ""), "skip")), [Meta, Meta]);
    let letters = window("count()", "\non_error: { dead_letter: dead }");
    assert_eq!(carried(&rekeyed(&letters, "skip")), [Whole, Whole]);
    // Parts come from none either, and are made before.
    let parts = letters.replace("[r]", "[]").replace("count()", "max(meta.offset)");
    assert_eq!(carried(&rekeyed(&parts, "skip")), [Whole, Whole, Nothing]);
    let findings = check(
        &rekeyed(&window("count()", ""), "skip")
            .replace("sinks:\n", "  f: { type: filter, input: o, where: meta.offset > 1 }\nsinks:\n"),
    );
    let messages: Vec<String> = findings.unwrap_err().into_iter().map(|finding| finding.message).collect();
    assert!(
        messages.contains(&"`meta` may not be used here: these rows come from no single record".to_owned())
    );
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
