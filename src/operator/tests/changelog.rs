//! Rows that say what they do to those before them.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::window::{Small, at, range, run_window};
use super::*;
use crate::operator::typed::{Custom, Json, WindowValue};
use crate::record::Owned;

fn changelog(windows: Windows, emit: EmitRows) -> Windowed {
    Windowed { windows, emit, changelog: true, ..Windowed::new("w") }
}

/// A row of a count of the key `a`.
pub(super) fn change(op: &str, start_ms: i64, end_ms: i64, rows: i64) -> String {
    with_op(&range(start_ms, end_ms, rows, None), op)
}

pub(super) fn with_op(row: &str, op: &str) -> String {
    row.replace('}', &format!(r#","op":"{op}"}}"#))
}

/// What a row does, and the row without that.
fn split_op(row: &str) -> (&str, String) {
    let (row, op) = row.split_once(r#","op":""#).unwrap();
    (op.strip_suffix(r#""}"#).unwrap(), format!("{row}}}"))
}

fn customer(row: &str) -> &str {
    row.split('"').nth(3).unwrap()
}

/// The rows that are there after a changelog: each one that it takes back is there before, and what takes its place follows.
pub(in crate::operator) fn applied(changelog: &[String]) -> BTreeMap<String, usize> {
    let mut there = BTreeMap::<String, usize>::new();
    let mut replaced = None;
    for change in changelog {
        let (op, row) = split_op(change);
        match (op, replaced.take()) {
            ("update_after", Some(before)) => assert_eq!(customer(&row), customer(before), "{changelog:#?}"),
            (op, None) if op != "update_after" => {}
            _ => panic!("{change} is out of place: {changelog:#?}"),
        }
        match op {
            "insert" | "update_after" => *there.entry(row).or_default() += 1,
            "update_before" | "delete" => {
                let count = there.get_mut(&row);
                let count =
                    count.unwrap_or_else(|| panic!("{change} takes back what is not there: {changelog:#?}"));
                *count -= 1;
                if *count == 0 {
                    there.remove(&row);
                }
                replaced = (op == "update_before").then_some(change);
            }
            _ => panic!("{change}"),
        }
    }
    assert_eq!(replaced, None, "{changelog:#?}");
    there
}

pub(in crate::operator) fn counted(rows: impl IntoIterator<Item = String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    rows.into_iter().for_each(|row| *counts.entry(row).or_default() += 1);
    counts
}

#[test]
fn an_update_takes_back_what_was_told_and_tells_what_holds() {
    let staged = run_window(&changelog(tumbling(10), EmitRows::OnUpdate), at(&[5, 6, 10, 40]));
    let expected = [
        change("insert", 0, 10, 1),
        change("update_before", 0, 10, 1),
        change("update_after", 0, 10, 2),
        // Windows close, and nothing changes.
        change("insert", 10, 20, 1),
        change("insert", 40, 50, 1),
    ];
    assert_eq!(written(&staged, "out"), expected);
    assert_eq!(staged.outputs[1].timestamp_ms, 9);
}

#[test]
fn refinements_take_back_what_was_told_on_time() {
    let window = Windowed { allowed_lateness_ms: 9, ..changelog(tumbling(10), EmitRows::OnTime) };
    let mut inputs = at(&[3, 11, 4, 5]);
    // The first row of b comes late.
    inputs.extend(["b", "b"].map(|customer| order(customer, "1", 6)));
    let staged = run_window(&window, inputs);
    let of_b = |op, rows| change(op, 0, 10, rows).replace("\"a\"", "\"b\"");
    let expected = [
        change("insert", 0, 10, 1),
        change("update_before", 0, 10, 1),
        change("update_after", 0, 10, 2),
        change("update_before", 0, 10, 2),
        change("update_after", 0, 10, 3),
        of_b("insert", 1),
        of_b("update_before", 1),
        of_b("update_after", 2),
    ];
    assert_eq!(written(&staged, "out"), expected);
}

#[test]
fn the_rows_of_each_of_windows_that_overlap_stand_together() {
    let staged = run_window(&changelog(sliding(10, 5), EmitRows::OnUpdate), at(&[3, 8]));
    let expected = [
        change("insert", -5, 5, 1),
        change("insert", 0, 10, 1),
        // The pane from 5 on is new, and the window from 0 on has another one.
        change("update_before", 0, 10, 1),
        change("update_after", 0, 10, 2),
        change("insert", 5, 15, 1),
    ];
    assert_eq!(written(&staged, "out"), expected);
}

#[test]
fn of_windows_that_overlap_those_that_have_fired_take_something_back() {
    let window = Windowed { allowed_lateness_ms: 5, ..changelog(sliding(10, 5), EmitRows::OnTime) };
    // With 11 the window 0..10 has ended; 8 is in it and in 5..15, which has not.
    let staged = run_window(&window, at(&[6, 11, 8, 16]));
    let expected = [
        change("insert", 0, 10, 1),
        change("update_before", 0, 10, 1),
        change("update_after", 0, 10, 2),
        change("insert", 5, 15, 3),
    ];
    assert_eq!(written(&staged, "out"), expected);
}

#[test]
fn a_session_takes_the_place_of_those_that_it_was() {
    let window = Windowed { allowed_lateness_ms: 100, ..changelog(session(10), EmitRows::OnUpdate) };
    // 1 lies within 0..12; 22 joins no other, and 12 both.
    let staged = run_window(&window, at(&[0, 2, 1, 22, 12]));
    let expected = [
        change("insert", 0, 10, 1),
        change("delete", 0, 10, 1),
        change("insert", 0, 12, 2),
        change("update_before", 0, 12, 2),
        change("update_after", 0, 12, 3),
        change("insert", 22, 32, 1),
        change("delete", 0, 12, 3),
        change("delete", 22, 32, 1),
        change("insert", 0, 32, 5),
    ];
    assert_eq!(written(&staged, "out"), expected);
    let ends: Vec<i64> = staged.outputs.iter().map(|output| output.timestamp_ms).collect();
    assert_eq!(ends[6..], [11, 31, 31], "each has its own event time");
}

#[test]
fn a_session_that_has_fired_and_lasts_longer_is_taken_back_at_once() {
    let window = Windowed { allowed_lateness_ms: 20, ..changelog(session(10), EmitRows::OnTime) };
    // At 15 the session 0..10 fires; 4 has it end at 14, which is over; 9 at 19, when it fires again.
    let mut inputs = at(&[0]);
    inputs.push(order("b", "1", 15));
    inputs.extend(at(&[4, 3, 9]));
    let staged = run_window(&window, inputs);
    let expected = [
        change("insert", 0, 10, 1),
        change("delete", 0, 10, 1),
        change("insert", 0, 14, 2),
        change("update_before", 0, 14, 2),
        change("update_after", 0, 14, 3),
        change("delete", 0, 14, 3),
    ];
    assert_eq!(written(&staged, "out"), expected);
}

#[test]
fn a_global_window_takes_back_its_last_row() {
    let schema = orders();
    let window = Gathered::new(TriggerPlan::Changelog);
    let reader = window.reads(&schema, vec![sink(&window.schema(&schema), "out")]);
    let staged = run(source(0, vec![reader]), at(&[5, 3, 300])).unwrap();
    let expected = [
        change("insert", 5, 6, 1),
        change("update_before", 5, 6, 1),
        change("update_after", 3, 6, 2),
        change("update_before", 3, 6, 2),
        change("update_after", 3, 301, 3),
    ];
    assert_eq!(written(&staged, "out"), expected);
}

#[test]
fn a_global_window_that_was_forgotten_begins_anew() {
    let schema = orders();
    let window = Gathered { ttl_ms: Some(100), ..Gathered::new(TriggerPlan::Changelog) };
    let reader = window.reads(&schema, vec![sink(&window.schema(&schema), "out")]);
    let inputs = vec![order("a", "1", 5), order("b", "1", 300), order("a", "1", 301)];
    let staged = run(source(0, vec![reader]), inputs).unwrap();
    let of_a: Vec<String> = written(&staged, "out").into_iter().filter(|row| customer(row) == "a").collect();
    assert_eq!(of_a, [change("insert", 5, 6, 1), change("insert", 301, 302, 1)]);
}

#[test]
fn what_cannot_be_told_takes_back_what_was() {
    let sum = aggregate(&orders(), "sum", AggregateFunction::Sum, Some("amount"), Type::Int);
    let window = Windowed { aggregates: vec![sum], ..changelog(sliding(10, 5), EmitRows::OnUpdate) };
    let most = i64::MAX.to_string();
    // In 0..10 the panes of 3 and 7 are too much together, until the second one is below nothing.
    let inputs = [("3", most.as_str()), ("7", "1"), ("7", "1"), ("7", "-9")];
    let inputs = inputs.map(|(at_ms, amount)| order("a", amount, at_ms.parse().unwrap()));
    let staged = run_window(&window, inputs.into());
    let change = |op: &str, start_ms: i64, sum: i64| {
        let row = range(start_ms, start_ms + 10, 0, None).replace(r#""rows":0"#, &format!(r#""sum":{sum}"#));
        with_op(&row, op)
    };
    let expected = [
        change("insert", -5, i64::MAX),
        change("insert", 0, i64::MAX),
        change("delete", 0, i64::MAX),
        change("insert", 5, 1),
        change("update_before", 5, 1),
        change("update_after", 5, 2),
        change("insert", 0, i64::MAX - 7),
        change("update_before", 5, 2),
        change("update_after", 5, -7),
    ];
    assert_eq!(written(&staged, "out"), expected);
    // Once for each value that there cannot be.
    assert_eq!(staged.counters.failed, [("w".into(), 2)].into());
}

#[test]
fn what_cannot_be_made_was_not_told_and_is_no_error_a_second_time() {
    let spec = WindowSpec {
        time: TimeDomain::Event,
        id: "sums".into(),
        fingerprint: String::new(),
        windows: AlignedWindows::tumbling(10),
        allowed_lateness_ms: 0,
        emit: EmitRows::OnUpdate,
        changelog: true,
        early: None,
        late: LateRecords::Drop,
    };
    let row = |window: WindowValue<'_, i64>| match (*window.value, window.firing) {
        (sum @ ..10, Firing::Changelog(kind)) => Ok(format!("{} {sum}", kind.name())),
        (sum, _) => Err(format!("{sum} is too much")),
    };
    let keyless = Json::<String, _>::new(|_: &String| None);
    let window = WindowOperator::<Owned<i64>, Owned<String>, _, _, _>::new(
        spec,
        |_: &i64| "",
        Custom::new(Small),
        row,
        rejected("sums"),
        Readers::new(vec![Box::new(Sink::new(keyless, target("out"), rejected("out")))]),
    );
    let timing = Timing { max_out_of_orderness_ms: 0, punctuated: false, max_ahead_ms: 1_000 };
    let json = Json::<i64, _>::new(|_: &i64| 5);
    let readers = Readers::new(vec![Box::new(window) as Box<_>]);
    let source = Source::<Owned<i64>, _>::new(json, timing, rejected("numbers"), readers);
    let staged = run(Box::new(source), [3, 4, 8, 1, -9].map(number).into()).unwrap();
    let expected = ["insert 3", "update_before 3", "update_after 7", "delete 7", "insert 7"];
    assert_eq!(written(&staged, "out"), expected.map(|row| format!("\"{row}\"")));
    assert_eq!(staged.counters.failed, [("sums".into(), 2)].into());
}

#[test]
fn a_window_that_is_open_when_the_changelog_begins_takes_back_what_it_held() {
    let window = Windowed { changelog: false, ..changelog(tumbling(10), EmitRows::OnUpdate) };
    let pipeline = |window: &Windowed| {
        let schema = orders();
        source(0, vec![window.reads(&schema, vec![sink(&window.schema(&schema), "out")])])
    };
    let mut first = pipeline(&window);
    let mut second = pipeline(&Windowed { changelog: true, ..window });
    start(&mut *first);
    assert_eq!(written(&go_on(&mut *first, at(&[5])).unwrap(), "out"), [range(0, 10, 1, Some(false))]);
    hand_over(&mut *first, &mut *second, |_| ());
    let rows = written(&go_on(&mut *second, at(&[6])).unwrap(), "out");
    assert_eq!(rows, [change("update_before", 0, 10, 1), change("update_after", 0, 10, 2)]);
}

/// Sums that may overflow, doubles, what has an order, lists.
pub(super) fn aggregates() -> Vec<AggregatePlan> {
    use AggregateFunction::{Avg, Collect, Count, Last, Max, Stddev, Sum};
    let schema = orders();
    let of =
        |name: &str, function, argument: Option<&str>, ty| aggregate(&schema, name, function, argument, ty);
    let all = of("all", Collect, Some("at"), Type::Timestamp.list(false).unwrap());
    vec![
        of("rows", Count, None, Type::Int),
        of("sum", Sum, Some("amount"), Type::Int),
        of("mean", Avg, Some("amount"), Type::Double),
        of("spread", Stddev, Some("amount"), Type::Double),
        of("newest", Last, Some("amount"), Type::Int),
        of("most", Max, Some("amount / 2.0"), Type::Double),
        AggregatePlan { parameter: Parameter::Max(9), ..all },
    ]
}

pub(super) fn inputs() -> impl Strategy<Value = Vec<Input>> {
    let amount = prop_oneof![9 => (-3..9_i64).prop_map(|amount| amount.to_string()),
        2 => Just(i64::MAX.to_string()), 1 => Just(i64::MIN.to_string()), 1 => Just("null".to_owned())];
    let time = prop_oneof![9 => 0..60_i64, 1 => 60..200_i64];
    vec(("[a-c]", amount, time).prop_map(|(customer, amount, at)| order(&customer, &amount, at)), 0..60)
}

/// All rows, those of the end included.
pub(super) fn made(reader: Reader, inputs: &[Input]) -> Vec<String> {
    let mut pipeline = source(4, vec![reader]);
    start(&mut *pipeline);
    let mut staged = go_on(&mut *pipeline, inputs.to_vec()).unwrap();
    assert_eq!(pipeline.finish(&Bump::new(), &mut staged).unwrap(), Progress::Done);
    written(&staged, "out")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn what_a_changelog_comes_to_is_what_windows_hold_in_the_end(
        windows in prop_oneof![
            Just(tumbling(10)),
            Just(sliding(12, 4)),
            Just(sliding(10, 7)),
            Just(Windows::Aligned(AlignedWindows::cumulative(15, 5))),
            Just(session(3)),
            Just(session(8)),
        ],
        emit in prop_oneof![Just(EmitRows::OnTime), Just(EmitRows::OnUpdate)],
        allowed_lateness_ms in prop_oneof![Just(0), Just(5), Just(50)],
        inputs in inputs(),
    ) {
        let window = Windowed { windows, allowed_lateness_ms, aggregates: aggregates(), ..Windowed::new("w") };
        let rows = |window: &Windowed| {
            let schema = orders();
            made(window.reads(&schema, vec![sink(&window.schema(&schema), "out")]), &inputs)
        };
        let changelog = rows(&Windowed { emit, changelog: true, ..window.clone() });
        prop_assert_eq!(applied(&changelog), counted(rows(&window)), "{:#?}", changelog);
        let updates = rows(&Windowed { emit: EmitRows::OnUpdate, ..window });
        let last = updates.into_iter().filter_map(|row| Some(row.strip_suffix(r#","mark":true}"#)?.to_owned() + "}"));
        prop_assert_eq!(applied(&changelog), counted(last));
    }

    #[test]
    fn what_the_changelog_of_a_global_window_comes_to_is_what_it_tells_last(inputs in inputs()) {
        let rows = |trigger: TriggerPlan| {
            let schema = orders();
            let window = Gathered { aggregates: aggregates(), ..Gathered::new(trigger) };
            made(window.reads(&schema, vec![sink(&window.schema(&schema), "out")]), &inputs)
        };
        let changelog = rows(TriggerPlan::Changelog);
        let told = rows(TriggerPlan::Global { fires: FiresPlan::EveryRows(1), purge: false });
        let last: BTreeMap<String, String> = told.into_iter().map(|row| (customer(&row).to_owned(), row)).collect();
        prop_assert_eq!(applied(&changelog), counted(last.into_values()));
    }
}
