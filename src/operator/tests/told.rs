//! Changelogs whose rows are not made after each update: what was told is kept.

use super::changelog::{change, with_op};
use super::processing::{Clocked, of_b, pipeline};
use super::window::{at, range, run_window};
use super::*;

/// An early row of a changelog whenever a window has taken so many rows more.
fn counting(windows: Windows, rows: i64) -> Windowed {
    Windowed { windows, early: Some(EarlyFiring::EveryRows(rows)), changelog: true, ..Windowed::new("w") }
}

/// The same by the clock, every hundred milliseconds.
fn clocked(windows: Windows) -> Windowed {
    Windowed { early: Some(EarlyFiring::EveryMs(100, TimeDomain::Processing)), ..counting(windows, 1) }
}

/// Windows that take rows until 30 behind their ends, with refinements by the clock.
fn refined(windows: Windows) -> Windowed {
    let (emit, refine_every_ms) = (EmitRows::OnTime, Some(100));
    Windowed { emit, early: None, refine_every_ms, allowed_lateness_ms: 30, ..counting(windows, 1) }
}

fn begun(window: &Windowed) -> Clocked {
    let mut clocked = Clocked::new(window);
    clocked.staged.tell_time(1_000);
    clocked
}

/// Another process goes on, at a time by the clock, or the same one with less memory.
fn restarted(window: &Windowed, clocked: &mut Clocked, clock_ms: i64) -> Clocked {
    let mut other = pipeline(window);
    hand_over(&mut *clocked.pipeline, &mut *other, |_| {});
    let mut staged = Staged::new(usize::MAX, usize::MAX);
    staged.tell_time(clock_ms);
    assert_eq!(other.resume(&Bump::new(), &mut staged).unwrap(), Progress::Done);
    Clocked { pipeline: other, staged }
}

fn update(start_ms: i64, end_ms: i64, before: i64, after: i64) -> [String; 2] {
    [change("update_before", start_ms, end_ms, before), change("update_after", start_ms, end_ms, after)]
}

#[test]
fn an_early_row_takes_back_the_one_before_and_the_last_row_that() {
    let staged = run_window(&counting(tumbling(10), 2), at(&[1, 2, 3, 4, 5, 10]));
    let expected = [&[change("insert", 0, 10, 2)][..], &update(0, 10, 2, 4), &update(0, 10, 4, 5)].concat();
    assert_eq!(written(&staged, "out"), expected);
    assert_eq!(staged.outputs[1].timestamp_ms, 9);
}

#[test]
fn a_window_that_has_taken_nothing_since_it_was_told_tells_nothing() {
    for windows in [tumbling(10), session(5)] {
        let staged = run_window(&counting(windows.clone(), 2), at(&[1, 2, 20]));
        let end_ms = if windows == tumbling(10) { 10 } else { 7 };
        let start_ms = if windows == tumbling(10) { 0 } else { 1 };
        assert_eq!(written(&staged, "out"), [change("insert", start_ms, end_ms, 2)]);
    }
}

#[test]
fn a_window_of_which_nothing_was_told_is_inserted_at_its_end() {
    let staged = run_window(&counting(tumbling(10), 3), at(&[1, 2, 20]));
    assert_eq!(written(&staged, "out"), [change("insert", 0, 10, 2)]);
}

#[test]
fn behind_early_rows_late_ones_take_back_what_was_told_on_time() {
    let window = Windowed { emit: EmitRows::OnTime, allowed_lateness_ms: 30, ..counting(tumbling(10), 2) };
    // One row of b comes on time, and the first of c late.
    let mut inputs = at(&[1, 2, 3]);
    inputs.push(order("b", "1", 10));
    inputs.extend(at(&[4, 5]));
    inputs.extend([order("c", "1", 6), order("c", "1", 7)]);
    let of_c = |row: String| row.replace("\"a\"", "\"c\"");
    let expected = [
        &[change("insert", 0, 10, 2)][..],
        &update(0, 10, 2, 3),
        &update(0, 10, 3, 4),
        &update(0, 10, 4, 5),
        &[of_c(change("insert", 0, 10, 1))],
        &update(0, 10, 1, 2).map(of_c),
    ];
    assert_eq!(written(&run_window(&window, inputs), "out"), expected.concat());
}

#[test]
fn who_does_not_know_what_has_changed_tells_what_differs() {
    for windows in [tumbling(1_000), session(999)] {
        let window = clocked(windows.clone());
        let end = |at_ms: i64| if windows == tumbling(1_000) { 1_000 } else { at_ms + 999 };
        let mut clocked = begun(&window);
        let start_ms = i64::from(windows != tumbling(1_000));
        clocked.rows_at("a", &[1]).rows_at("b", &[1]).at(1_100);
        let inserts = [change("insert", start_ms, end(1), 1), of_b(change("insert", start_ms, end(1), 1))];
        assert_eq!(clocked.written(), inserts);
        clocked.rows_at("b", &[1]);
        let updates = update(start_ms, end(1), 1, 2).map(of_b);
        assert_eq!(restarted(&window, &mut clocked, 1_150).at(1_200).written(), updates);
        clocked.pipeline.visit(&mut |operator| operator.evict(usize::MAX / 2));
        assert_eq!(clocked.at(1_200).written(), updates);
        assert!(restarted(&window, &mut clocked, 1_250).at(1_300).written().is_empty());
    }
}

#[test]
fn a_session_that_ends_later_than_it_was_told_is_taken_back_at_once() {
    for is_restarted in [false, true] {
        let window = clocked(session(10));
        let mut clocked = begun(&window);
        clocked.rows_at("a", &[0]).at(1_100);
        assert_eq!(clocked.written(), [change("insert", 0, 10, 1)]);
        // Within its bucket, and beyond.
        clocked.rows_at("a", &[1, 9]);
        assert_eq!(clocked.written(), [change("delete", 0, 10, 1)]);
        if is_restarted {
            clocked = restarted(&window, &mut clocked, 1_150);
        }
        assert_eq!(clocked.at(1_200).written(), [change("insert", 0, 19, 3)]);
        // It ends without having grown, and another one as it was told.
        clocked.rows_at("a", &[2]).rows_at("b", &[3]).at(1_300);
        let told = [&update(0, 19, 3, 4)[..], &[of_b(change("insert", 3, 13, 1))]].concat();
        let mut written = clocked.written();
        written.sort();
        let mut sorted = told;
        sorted.sort();
        assert_eq!(written, sorted);
        assert!(clocked.rows_at("c", &[30]).written().is_empty());
    }
}

#[test]
fn a_session_that_begins_earlier_is_taken_back_when_it_is_told_again() {
    let window = Windowed { allowed_lateness_ms: 100, ..clocked(session(10)) };
    let mut clocked = begun(&window);
    clocked.rows_at("a", &[20]).at(1_100);
    assert_eq!(clocked.written(), [change("insert", 20, 30, 1)]);
    assert!(clocked.rows_at("a", &[15]).written().is_empty());
    clocked = restarted(&window, &mut clocked, 1_150);
    assert_eq!(clocked.at(1_200).written(), [change("delete", 20, 30, 1), change("insert", 15, 30, 2)]);
}

#[test]
fn what_sessions_take_back_is_late_for_no_window_behind() {
    let schema = orders();
    let sessions = counting(session(10), 2);
    let rows = sessions.schema(&schema);
    let signed = signed(&rows);
    let sum = aggregate(&signed, "sum", AggregateFunction::Sum, Some("n"), Type::Int);
    let behind =
        Windowed { id: "behind", windows: tumbling(1), aggregates: vec![sum], ..Windowed::new("behind") };
    let behind = vec![behind.reads(&signed, vec![sink(&behind.schema(&signed), "out")])];
    let mut pipeline = source(0, vec![sessions.reads(&schema, vec![sign(&rows, behind)])]);
    start(&mut *pipeline);
    let inputs = [("a", 0), ("a", 1), ("a", 9), ("b", 15), ("b", 19), ("b", 100)];
    let inputs = inputs.map(|(customer, at_ms)| order(customer, "1", at_ms)).into();
    let staged = go_on(&mut *pipeline, inputs).unwrap();
    assert!(staged.counters.late.is_empty(), "{:?}", staged.counters.late);
    let of_a: Vec<String> = written(&staged, "out").into_iter().filter(|row| row.contains("\"a\"")).collect();
    let row = |start_ms: i64, sum: i64| {
        range(start_ms, start_ms + 1, 0, None).replace(r#""rows":0"#, &format!(r#""sum":{sum}"#))
    };
    assert_eq!(of_a, [row(10, 0), row(18, 1)], "told until 11 and taken back, and told until 19");
}

/// The rows of a changelog with a field `n`: what each adds.
fn signed(rows: &Schema) -> Schema {
    let mut signed = rows.clone();
    signed.fields.push(field("n", Type::Int, false));
    signed
}

/// Adds that field.
fn sign(rows: &Schema, readers: Vec<Reader>) -> Reader {
    let n = expression(rows, "op == 'insert' || op == 'update_after' ? 1 : -1");
    let slots = (0..rows.fields.len()).map(MapSlot::Input).chain([MapSlot::Expression(n)]).collect();
    let map = RowMap { slots, encoder: Arc::new(Encoder::new(rows)) };
    Box::new(Map::<Dynamic, Dynamic, _>::new(map, rejected("signed"), Readers::new(readers)))
}

#[test]
fn of_sessions_that_become_one_that_which_ends_as_it_is_taken_back_when_that_is_told() {
    let window = Windowed { allowed_lateness_ms: 100, ..clocked(session(10)) };
    let mut clocked = begun(&window);
    clocked.rows_at("a", &[20, 0]).at(1_100);
    assert_eq!(clocked.written(), [change("insert", 0, 10, 1), change("insert", 20, 30, 1)]);
    clocked.rows_at("a", &[10]);
    assert_eq!(clocked.written(), [change("delete", 0, 10, 1)]);
    clocked = restarted(&window, &mut clocked, 1_150);
    assert_eq!(clocked.at(1_200).written(), [change("delete", 20, 30, 1), change("insert", 0, 30, 3)]);
}

#[test]
fn refinements_by_the_clock_take_back_what_was_told_before() {
    let window = refined(tumbling(10));
    let mut clocked = begun(&window);
    clocked.rows_at("a", &[1, 12]);
    assert_eq!(clocked.written(), [change("insert", 0, 10, 1)]);
    clocked.rows_at("a", &[2, 3]).rows_at("b", &[4]).at(1_100);
    let told = [&update(0, 10, 1, 3)[..], &[of_b(change("insert", 0, 10, 1))]].concat();
    assert_eq!(clocked.written(), told);
    clocked.rows_at("a", &[5]);
    let mut other = restarted(&window, &mut clocked, 1_150);
    assert_eq!(other.at(1_200).written(), update(0, 10, 3, 4), "and nothing of b");
    assert!(other.at(1_300).written().is_empty());
    // What is outstanding is told before the window closes.
    clocked.rows_at("b", &[40]);
    assert_eq!(clocked.written()[..2], update(0, 10, 3, 4));
}

#[test]
fn each_of_windows_that_overlap_takes_back_what_it_told() {
    let window = refined(sliding(20, 10));
    for is_restarted in [false, true] {
        let mut clocked = begun(&window);
        clocked.rows_at("a", &[5]).rows_at("b", &[12]);
        assert_eq!(clocked.written(), [change("insert", -10, 10, 1)]);
        // The window until 20 has not fired, and takes the row with it. No row of a lies in its last pane.
        clocked.rows_at("a", &[6]).rows_at("b", &[22]);
        assert_eq!(clocked.written()[0], change("insert", 0, 20, 2));
        clocked.rows_at("a", &[7]);
        if is_restarted {
            clocked = restarted(&window, &mut clocked, 1_050);
        }
        let told = [update(-10, 10, 1, 3), update(0, 20, 2, 3)].concat();
        assert_eq!(clocked.at(1_100).written(), told);
        assert!(clocked.at(1_200).written().is_empty());
        // Its first row in a pane that is there for what was told.
        clocked.rows_at("a", &[15]).at(1_300);
        assert_eq!(clocked.written(), update(0, 20, 3, 4));
        clocked.rows_at("b", &[39, 70]);
        let of_a: Vec<String> = clocked.written().into_iter().filter(|row| row.contains("\"a\"")).collect();
        assert_eq!(of_a, [change("insert", 10, 30, 1)], "a pane without rows makes no row");
    }
}

#[test]
fn a_pane_that_is_there_for_what_was_told_makes_no_row() {
    let mut clocked = begun(&refined(sliding(20, 10)));
    clocked.rows_at("a", &[5]).rows_at("b", &[22]);
    assert_eq!(clocked.written()[..2], [change("insert", -10, 10, 1), change("insert", 0, 20, 1)]);
    // No row of a lies in the last pane of the window until 20, which is also the first one of that until 30.
    clocked.rows_at("a", &[6]).rows_at("b", &[32]);
    assert!(clocked.written().iter().all(|row| row.contains("\"b\"")));
    let told = [update(-10, 10, 1, 2), update(0, 20, 1, 2)].concat();
    assert_eq!(clocked.at(1_100).written(), told);
}

#[test]
fn a_session_that_was_told_on_time_is_taken_back_when_it_is_told_again() {
    let mut clocked = begun(&Windowed { allowed_lateness_ms: 20, ..refined(session(10)) });
    clocked.rows_at("a", &[0]).rows_at("b", &[15]);
    assert_eq!(clocked.written(), [change("insert", 0, 10, 1)]);
    clocked.rows_at("a", &[1]);
    assert_eq!(clocked.at(1_100).written(), [change("delete", 0, 10, 1), change("insert", 0, 11, 2)]);
    // It has not fired as it is now.
    clocked.rows_at("a", &[9]);
    assert_eq!(clocked.at(1_200).written(), [change("delete", 0, 11, 2)]);
    clocked.rows_at("b", &[19]);
    assert_eq!(clocked.written(), [change("insert", 0, 19, 3)]);
    clocked.rows_at("a", &[2]);
    assert_eq!(clocked.at(1_300).written(), update(0, 19, 3, 4));
}

#[test]
fn what_cannot_be_told_takes_back_what_was_told_once() {
    let sum = aggregate(&orders(), "sum", AggregateFunction::Sum, Some("amount"), Type::Int);
    let window = Windowed { aggregates: vec![sum], ..refined(sliding(20, 10)) };
    let mut clocked = begun(&window);
    let mut take = |rows: &[(&str, &str, i64)], clock_ms: i64| {
        let inputs = rows.iter().map(|(customer, amount, at_ms)| order(customer, amount, *at_ms)).collect();
        let batch = Batch::new(inputs);
        for index in 0..batch.len() {
            let progress =
                clocked.pipeline.process(batch.record(index), &Bump::new(), &mut clocked.staged).unwrap();
            assert_eq!(progress, Progress::Done);
        }
        clocked.at(clock_ms);
        let failed = clocked.staged.counters.failed.values().sum::<u64>();
        let rows = clocked.written();
        (rows.into_iter().filter(|row| row.contains("\"window_start\":0,")).collect::<Vec<_>>(), failed)
    };
    let of = |op: &str, sum: i64| {
        with_op(&range(0, 20, 0, None).replace(r#""rows":0"#, &format!(r#""sum":{sum}"#)), op)
    };
    let most = i64::MAX.to_string();
    assert_eq!(take(&[("a", &most, 5), ("b", "1", 25)], 1_000), (vec![of("insert", i64::MAX)], 0));
    // The panes until 10 and 20 are too much together.
    assert_eq!(take(&[("a", "1", 15)], 1_100), (vec![of("delete", i64::MAX)], 1));
    assert_eq!(take(&[("a", "1", 15)], 1_200), (vec![], 1));
    assert_eq!(take(&[("a", "-3", 15)], 1_300), (vec![of("insert", i64::MAX - 1)], 0));
}

#[test]
fn a_row_that_joins_too_many_sessions_of_a_changelog_is_refused() {
    let gap = Some(expression(&orders(), "duration(amount)"));
    let rejects = |sessions: i64, changelog| {
        let (windows, emit, allowed_lateness_ms) = (session(1), EmitRows::OnUpdate, 10_000);
        let window = Windowed {
            windows,
            emit,
            allowed_lateness_ms,
            changelog,
            gap: gap.clone(),
            ..Windowed::new("w")
        };
        let mut inputs: Vec<Input> = (0..sessions).map(|number| order("a", "1", number * 3)).collect();
        inputs.push(order("a", "900", 0));
        let staged = run_window(&window, inputs);
        (written(&staged, "out").len(), staged.counters.failed.values().sum::<u64>())
    };
    assert_eq!(rejects(98, true), (98 + 98 + 1, 0));
    assert_eq!(rejects(99, true), (99, 1));
    assert_eq!(rejects(99, false), (100, 0));
}

#[test]
fn a_window_that_was_open_when_the_changelog_began_is_inserted() {
    let window = clocked(tumbling(1_000));
    let mut before = begun(&Windowed { changelog: false, ..window.clone() });
    before.rows_at("a", &[1]).at(1_100);
    assert_eq!(before.written().len(), 1);
    let mut next = restarted(&window, &mut before, 1_150);
    assert_eq!(next.rows_at("a", &[2]).at(1_200).written(), [change("insert", 0, 1_000, 2)]);
    // And back: what is kept does not matter any more.
    let mut last = restarted(&Windowed { changelog: false, ..window.clone() }, &mut next, 1_250);
    let written = last.rows_at("a", &[3]).at(1_300).written();
    assert!(written.len() == 1 && written[0].contains(r#""rows":3,"early":true"#), "{written:?}");
}
