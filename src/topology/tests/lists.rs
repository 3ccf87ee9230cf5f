//! Lists: fields of them, and what makes rows of their elements.

use super::*;

fn fields(plan: &Plan, operator: usize) -> String {
    let fields = plan.operators[operator].schema.fields.iter();
    let text = |f: &Field| {
        format!("{}: {}{} {:?}", f.name, f.ty, if f.nullable { "?" } else { "" }, f.form)
            .replace(" Plain", "")
    };
    fields.map(text).collect::<Vec<_>>().join(", ")
}

/// A topology around one operator, of a source with lists.
fn with_lists(operator: &str) -> String {
    let lists = "l: [string], x: { type: [int?], nullable: true, path: 'o.i[].n' }, y: { type: [timestamp], path: \
                 'o.i[].at' }, z: { type: ['double'], path: [a.b, '[]'] }, m: timestamp_ms";
    around(operator).replace("m: timestamp_ms", lists)
}

#[test]
fn a_list_has_a_type_of_its_elements_and_a_path() {
    let plan = plan_of(&with_lists("type: filter\ninput: s\nwhere: size(l) > n"));
    let fields = plan.sources[0].schema.fields.iter().skip(5).map(|source| {
        let (field, null) = (&source.field, if source.field.nullable { "?" } else { "" });
        format!("{}: {}{null} at {}, {:?}", field.name, field.ty, source.path.join("|"), field.form)
    });
    let expected = [
        "l: [string] at l, Plain",
        "x: [int?]? at o|i|[]|n, Plain",
        "y: [timestamp] at o|i|[]|at, Rfc3339",
        "z: [double] at a.b, Plain",
    ];
    assert_eq!(fields.take(4).collect::<Vec<_>>(), expected);
}

#[test]
fn a_flat_map_has_the_fields_that_it_keeps_and_one_for_each_list() {
    let each =
        "type: flat_map\ninput: s\neach: { word: l, at: y, number: 'x.map(v, v * 2)' }\nposition: place";
    let plan = plan_of(&with_lists(&format!("{each}\nkeep: [k, n]")));
    let made = "word: string, at: timestamp Rfc3339, number: int?, place: int";
    assert_eq!(fields(&plan, 0), format!("k: string, n: int, {made}"));
    assert_eq!(plan.operators[0].fingerprint(), None);
    assert!(graph(&plan).contains("flat_map<br/>each word, at, number, place"), "{}", graph(&plan));
    let outer = plan_of(&with_lists(&format!("{each}\nkeep: [k]\nouter: true")));
    let made = "word: string?, at: timestamp? Rfc3339, number: int?, place: int?";
    assert_eq!(fields(&outer, 0), format!("k: string, {made}"));
    let dropped =
        plan_of(&with_lists("type: flat_map\ninput: s\neach: { l: l }\ndrop: [l, x, y, z, r, d, m]"));
    assert_eq!(fields(&dropped, 0), "k: string, n: int, t: timestamp Rfc3339, l: string");
}

#[test]
fn rows_behind_a_flat_map_lie_where_their_keys_lay() {
    let behind = |each: &str| {
        let flat = format!("operators:\n  f: {{ type: flat_map, input: s, each: {{ e: l }}{each} }}\n");
        let window = "type: window\ninput: f\nkey_by: [k]\nwindow: { type: tumbling, size: 1m }\naggregate: { c: count() }";
        with_lists(window).replace("operators:\n", &flat)
    };
    assert!(plan_of(&behind("")).repartitions.is_empty());
    assert_eq!(plan_of(&behind("").replace("key_by: [k]", "key_by: [e]")).repartitions.len(), 1);
    // The record's own fields are known behind it, too.
    plan_of(&behind("").replace("c: count()", "c: max(meta.offset)"));
}

#[test]
fn lists_that_may_hold_nulls_come_together_with_those_that_may_not() {
    let both = "  a: { type: map, input: s, keep: [k, l] }\n  b: { type: map, input: s, set: { l: 'split(r, \",\").map(v, v \
                == \"\" ? null : v)' }, keep: [k] }\n";
    let plan = plan_of(
        &with_lists("type: union\ninputs: [a, b]").replace("operators:\n", &format!("operators:\n{both}")),
    );
    assert_eq!(fields(&plan, 2), "k: string, l: [string?]?");
}

#[test]
fn aggregates_make_lists() {
    let window = "type: window\ninput: s\nkey_by: [k]\nwindow: { type: tumbling, size: 1m }\naggregate: { a: collect(n), b: \
                  'collect(r, 5)', c: { top_n: { of: r, by: d, n: 3 } }, d: first(l), e: { top_n: { of: n, by: k, n: 1, \
                  where: n > 1 } } }";
    let plan = plan_of(&with_lists(window));
    assert_eq!(
        fields(&plan, 0).split_once("window_end: timestamp, ").map(|(_, made)| made),
        Some("a: [int]?, b: [string]?, c: [string?]?, d: [string]?, e: [int]?")
    );
    let fingerprint = plan.operators[0].fingerprint().expect("it has state");
    let aggregates = "aggregate a: collect(n) [int]\naggregate b: collect(r) [string]\naggregate c: top_n(r by d: double, 3) \
                      [string]\naggregate d: first(l) [string]\naggregate e: top_n(n by k: string, 1) [int] where n > 1\n";
    assert!(fingerprint.ends_with(aggregates), "{fingerprint}");
    let stored = |elements: &str| {
        let lag = "type: lag\ninput: s\nkey_by: [k]\nset: { before: l }";
        plan_of(&with_lists(lag).replace("l: [string]", elements)).operators[0].fingerprint()
    };
    assert!(stored("l: [string]").is_some_and(|text| text.ends_with("value before: l [string]\n")));
    assert_eq!(stored("l: [string?]"), stored("l: [string]"), "elements may be null from now on");
}
