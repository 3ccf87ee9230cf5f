//! The window operator.

use super::*;
use crate::operator::typed::{Aggregate, Custom, Json, WindowValue};
use crate::record::Owned;

fn row(customer: &str, start_ms: i64, rows: i64) -> String {
    format!(
        r#"{{"customer":"{customer}","window_start":{start_ms},"window_end":{},"rows":{rows}}}"#,
        start_ms + 10
    )
}

pub(super) fn run_window(window: &Windowed, inputs: Vec<Input>) -> Staged {
    let schema = orders();
    let rows = sink(&window.schema(&schema), "out");
    run(source(0, vec![window.reads(&schema, vec![rows])]), inputs).unwrap()
}

pub(super) fn at(times: &[i64]) -> Vec<Input> {
    times.iter().map(|at_ms| order("a", "1", *at_ms)).collect()
}

#[test]
fn a_record_is_late_by_the_watermark_before_it() {
    let window = Windowed::new("w");
    // 9 is in time until 10 has been seen; 10 itself is judged by the watermark before it.
    let staged = run_window(&window, at(&[5, 9, 10, 9, 19, 20]));
    assert_eq!(written(&staged, "out"), [row("a", 0, 2), row("a", 10, 2)]);
    assert_eq!(staged.counters.late, [("w".into(), 1)].into());
    let staged = run_window(&window, at(&[5, 1_000, 999]));
    assert_eq!(staged.counters.late.len(), 1, "999 is late: the watermark is at the end of its window");
    let staged = run_window(&window, at(&[5, 999, 998, 991]));
    assert!(staged.counters.late.is_empty(), "their window is open");
}

#[test]
fn allowed_lateness_keeps_a_window_open() {
    let window = Windowed { allowed_lateness_ms: 5, ..Windowed::new("w") };
    let staged = run_window(&window, at(&[5, 14, 6, 15, 7]));
    assert_eq!(written(&staged, "out"), [row("a", 0, 2)]);
    assert_eq!(staged.counters.late, [("w".into(), 1)].into());
}

#[test]
fn a_late_record_is_written_with_where_it_came_from() {
    let window = Windowed { late: LateRecords::Write(target("late")), ..Windowed::new("w") };
    let mut inputs = at(&[5, 30, 6]);
    inputs[2].offset = 2;
    inputs[2].headers = vec![("trace".into(), Some(b"t1".to_vec()))];
    let staged = run_window(&window, inputs.clone());
    assert_eq!(written(&staged, "late"), [r#"{"customer":"a","amount":1,"price":null,"at":6}"#]);
    let late = staged.outputs.iter().find(|record| &*record.topic == "late").unwrap();
    assert_eq!((&late.key, late.timestamp_ms), (&inputs[2].key, 6));
    assert_eq!(header(late, "trace").as_deref(), Some("t1"));
    let coordinates =
        ["topic", "partition", "offset", "timestamp"].map(|name| header(late, &format!("thalweg.{name}")));
    assert_eq!(coordinates, ["orders", "1", "2", "6"].map(|text| Some(text.to_string())));
    assert_eq!(staged.counters.late, [("w".into(), 1)].into());
}

#[test]
fn a_late_record_too_large_for_its_topic_goes_to_on_error() {
    let small = Arc::new(OutputTarget { topic: "late".into(), partitions: 3, record_bytes_max: 20 });
    let window = Windowed { late: LateRecords::Write(small), ..Windowed::new("w") };
    let staged = run_window(&window, at(&[5, 30, 6]));
    assert_eq!(written(&staged, "late"), Vec::<String>::new());
    assert_eq!(written(&staged, "rejected").len(), 1);
    assert_eq!(staged.counters.late, [("w".into(), 1)].into());
}

#[test]
fn windows_are_closed_in_the_order_of_their_ends_and_keys() {
    let window = Windowed::new("w");
    let mut inputs = vec![order("b", "1", 25), order("c", "1", 3), order("a", "1", 25), order("b", "1", 3)];
    inputs.truncate(4);
    let schema = orders();
    let rows = sink(&window.schema(&schema), "out");
    inputs.push(order("z", "1", 1_000));
    let staged = run(source(500, vec![window.reads(&schema, vec![rows])]), inputs).unwrap();
    let expected = [row("b", 0, 1), row("c", 0, 1), row("a", 20, 1), row("b", 20, 1)];
    assert_eq!(written(&staged, "out"), expected);
    let result = &staged.outputs[0];
    assert_eq!(
        (result.key.as_deref(), result.timestamp_ms),
        (Some(&b"b"[..]), 9),
        "the window's last instant"
    );
}

#[test]
fn on_update_makes_a_row_for_each_record_and_a_final_one() {
    let window = Windowed { emit: EmitRows::OnUpdate, ..Windowed::new("w") };
    let staged = run_window(&window, at(&[5, 6, 10]));
    let marked =
        |start_ms, rows, last: bool| row("a", start_ms, rows).replace('}', &format!(r#","mark":{last}}}"#));
    let expected = [marked(0, 1, false), marked(0, 2, false), marked(10, 1, false), marked(0, 2, true)];
    assert_eq!(written(&staged, "out"), expected);
}

/// A row as it is written, with the mark if there is one.
pub(super) fn range(start_ms: i64, end_ms: i64, rows: i64, mark: Option<bool>) -> String {
    let mark = mark.map(|mark| format!(r#","mark":{mark}"#)).unwrap_or_default();
    format!(r#"{{"customer":"a","window_start":{start_ms},"window_end":{end_ms},"rows":{rows}{mark}}}"#)
}

#[test]
fn a_call_is_bounded_in_the_parts_that_it_puts_together() {
    let window = Windowed { windows: sliding(20, 5), ..Windowed::new("w") };
    let schema = orders();
    let mut pipeline = source(0, vec![window.reads(&schema, vec![sink(&window.schema(&schema), "out")])]);
    start(&mut *pipeline);
    let mut staged = Staged::new(usize::MAX, usize::MAX).with_rows_per_call(5);
    let rows = [("a", 1), ("b", 1), ("c", 1), ("b", 7), ("c", 7), ("a", 100)];
    let batch = Batch::new(rows.map(|(customer, at_ms)| order(customer, "1", at_ms)).to_vec());
    let progress: Vec<Progress> = (0..batch.len())
        .map(|index| pipeline.process(batch.record(index), &Bump::new(), &mut staged).unwrap())
        .collect();
    // At 7 the first window is over: three rows. Then one row of one part and two of two.
    assert_eq!((progress.last(), written(&staged, "out").len()), (Some(&Progress::Full), 3 + 3));
}

#[test]
fn a_record_counts_in_every_window_that_overlaps_it() {
    let window = Windowed { windows: sliding(10, 4), ..Windowed::new("w") };
    let staged = run_window(&window, at(&[1, 3, 4, 9, 30]));
    // Those from -8, -4, 0, 4 and 8 on.
    let expected = [(-8, 2, 1), (-4, 6, 3), (0, 10, 4), (4, 14, 2), (8, 18, 1)]
        .map(|(from, to, n)| range(from, to, n, None));
    assert_eq!(written(&staged, "out"), expected);
    assert!(staged.counters.late.is_empty());
}

#[test]
fn a_record_is_late_only_if_it_is_for_all_of_its_windows() {
    let window = Windowed { windows: sliding(10, 5), ..Windowed::new("w") };
    // At 12 the window 0..10 has closed; 8 still counts in 5..15, and 3 in none.
    let staged = run_window(&window, at(&[6, 12, 8, 3, 30]));
    let expected = [range(0, 10, 1, None), range(5, 15, 3, None), range(10, 20, 1, None)];
    assert_eq!(written(&staged, "out"), expected);
    assert_eq!(staged.counters.late, [("w".into(), 1)].into());
}

#[test]
fn a_record_between_windows_belongs_to_none() {
    let window = Windowed { windows: sliding(5, 10), ..Windowed::new("w") };
    let staged = run_window(&window, at(&[4, 5, 9, 10, 7, 30]));
    assert_eq!(written(&staged, "out"), [range(0, 5, 1, None), range(10, 15, 1, None)]);
    assert!(staged.counters.late.is_empty());
}

#[test]
fn cumulative_windows_grow() {
    let windows = Windows::Aligned(AlignedWindows::cumulative(15, 5).with_offset(2));
    let window = Windowed { windows, ..Windowed::new("w") };
    let staged = run_window(&window, at(&[2, 8, 16, 17, 50]));
    let expected = [(2, 7, 1), (2, 12, 2), (2, 17, 3), (17, 22, 1), (17, 27, 1), (17, 32, 1)];
    assert_eq!(written(&staged, "out"), expected.map(|(from, to, n)| range(from, to, n, None)));
}

#[test]
fn on_time_rows_come_with_the_watermark_and_are_refined() {
    let window = Windowed { emit: EmitRows::OnTime, allowed_lateness_ms: 5, ..Windowed::new("w") };
    // Its row comes with 10; 7 and, the last time, 8 are in time for refinements. With 15 it closes.
    let staged = run_window(&window, at(&[3, 10, 7, 14, 8, 15, 9, 30]));
    let expected = [
        range(0, 10, 1, Some(false)),
        range(0, 10, 2, Some(true)),
        range(0, 10, 3, Some(true)),
        range(10, 20, 3, Some(false)),
    ];
    assert_eq!(written(&staged, "out"), expected);
    assert_eq!(staged.counters.late, [("w".into(), 1)].into());
}

#[test]
fn refinements_are_those_of_the_windows_that_have_ended() {
    let windows = sliding(10, 5);
    let window = Windowed { windows, emit: EmitRows::OnTime, allowed_lateness_ms: 5, ..Windowed::new("w") };
    // With 11 the window 0..10 has ended; 8 is in it and in 5..15, which has not.
    let staged = run_window(&window, at(&[6, 11, 8, 16]));
    let expected = [range(0, 10, 1, Some(false)), range(0, 10, 2, Some(true)), range(5, 15, 3, Some(false))];
    assert_eq!(written(&staged, "out"), expected);
}

#[test]
fn a_window_whose_panes_cannot_be_added_goes_to_on_error() {
    let sum = aggregate(&orders(), "sum", AggregateFunction::Sum, Some("amount"), Type::Int);
    let windows = sliding(10, 5);
    let window = Windowed { windows, aggregates: vec![sum], ..Windowed::new("w") };
    let most = i64::MAX.to_string();
    let staged = run_window(&window, vec![order("a", &most, 3), order("a", "1", 7), order("b", "2", 30)]);
    let letter = staged.outputs.iter().find(|record| &*record.topic == "rejected").unwrap();
    assert_eq!(letter.value.as_deref(), Some(&br#"{"customer":"a","window_start":0,"window_end":10}"#[..]));
    assert_eq!(header(letter, "thalweg.error").unwrap(), "aggregate `sum`: the sum overflows an int");
    // The windows on both sides have one pane of it each.
    assert_eq!(written(&staged, "out").len(), 2);
}

/// A window of the customers, whose rows are written.
fn made(window: &Windowed) -> Box<dyn Pipeline> {
    let schema = orders();
    source(0, vec![window.reads(&schema, vec![sink(&window.schema(&schema), "out")])])
}

#[test]
fn a_restored_window_goes_on_where_it_was_cut() {
    // Also if an older version cut it, which did not save which window it was: there was the first one only.
    for (windows, is_old) in [(sliding(10, 5), false), (tumbling(10), false), (tumbling(10), true)] {
        let window = Windowed { windows: windows.clone(), ..Windowed::new("w") };
        let mut pipeline = made(&window);
        start(&mut *pipeline);
        let inputs = ["a", "b", "c"].map(|customer| order(customer, "1", 6));
        let batch = Batch::new([&inputs[..], &[order("a", "1", 20)]].concat());
        // Of the sliding windows 0..10 has three rows; of 5..15 one still fits.
        let rows_max = if windows == tumbling(10) { 1 } else { 4 };
        let mut staged = Staged::new(rows_max, usize::MAX);
        for index in 0..4 {
            let progress = pipeline.process(batch.record(index), &Bump::new(), &mut staged).unwrap();
            assert_eq!(progress, if index == 3 { Progress::Full } else { Progress::Done });
        }
        let mut next = made(&window);
        hand_over(&mut *pipeline, &mut *next, |saved| {
            assert!(!saved.firing_cursor.is_empty() && saved.fired_watermark_ms == Some(20));
            if is_old {
                saved.fired_end_ms = None;
            }
        });
        let mut staged = Staged::new(usize::MAX, usize::MAX);
        assert_eq!(next.resume(&Bump::new(), &mut staged).unwrap(), Progress::Done);
        let start_ms = if windows == tumbling(10) { 0 } else { 5 };
        let of = |customer| range(start_ms, start_ms + 10, 1, None).replace("\"a\"", customer);
        assert_eq!(written(&staged, "out"), [of("\"b\""), of("\"c\"")], "{windows:?} {is_old}");
    }
}

#[test]
fn windows_that_are_open_when_emit_changes_make_their_rows() {
    let window = |emit| Windowed { emit, allowed_lateness_ms: 5, ..Windowed::new("w") };
    // With 12 the window 0..10 has ended, with 15 it closes.
    let (mut first, mut second) = (made(&window(EmitRows::OnClose)), made(&window(EmitRows::OnTime)));
    start(&mut *first);
    assert!(go_on(&mut *first, at(&[3, 12])).unwrap().outputs.is_empty());
    hand_over(&mut *first, &mut *second, |_| ());
    let rows = written(&go_on(&mut *second, at(&[13, 4])).unwrap(), "out");
    assert_eq!(rows, [range(0, 10, 1, Some(false)), range(0, 10, 2, Some(true))]);
    let mut third = made(&window(EmitRows::OnClose));
    hand_over(&mut *second, &mut *third, |_| ());
    assert_eq!(written(&go_on(&mut *third, at(&[14, 15])).unwrap(), "out"), [range(0, 10, 2, None)]);
}

#[test]
fn windows_that_begin_at_other_times_than_others_end_have_two_panes_for_each() {
    let window = Windowed { windows: sliding(10, 7), emit: EmitRows::OnUpdate, ..Windowed::new("w") };
    // 8 belongs to 0..10 and 7..17.
    let staged = run_window(&window, at(&[1, 8, 20]));
    let expected = [
        range(-7, 3, 1, Some(false)),
        range(0, 10, 1, Some(false)),
        // With 8 the window -7..3 closes.
        range(0, 10, 2, Some(false)),
        range(7, 17, 1, Some(false)),
        range(-7, 3, 1, Some(true)),
        range(14, 24, 1, Some(false)),
        range(0, 10, 2, Some(true)),
        range(7, 17, 1, Some(true)),
    ];
    assert_eq!(written(&staged, "out"), expected);
}

#[test]
fn a_null_key_goes_to_on_error() {
    let null = Input { value: Some(br#"{"at":5}"#.to_vec()), ..Input::default() };
    let staged = run_window(&Windowed::new("w"), vec![null]);
    let error = header(&staged.outputs[0], "thalweg.error").unwrap();
    assert!(error.contains("`customer` is null"), "{error}");
}

#[test]
fn a_window_behind_a_window_sees_no_late_rows_when_time_jumps() {
    let schema = orders();
    let first = Windowed { allowed_lateness_ms: 7, ..Windowed::new("first") };
    let rows = first.schema(&schema);
    let total = vec![aggregate(&rows, "rows", AggregateFunction::Sum, Some("rows"), Type::Int)];
    let second = Windowed { windows: tumbling(20), aggregates: total, ..Windowed::new("second") };
    let reader = second.reads(&rows, vec![sink(&second.schema(&rows), "out")]);
    let inputs = at(&[1, 11, 2, 25, 37, 1_000, 1_003, 2_000, 3_000]);
    let staged = run(source(15, vec![first.reads(&schema, vec![reader])]), inputs).unwrap();
    assert!(staged.counters.late.is_empty(), "{:?}", staged.counters.late);
    let counts: Vec<_> =
        written(&staged, "out").iter().map(|row| row.split("rows\":").nth(1).unwrap().to_string()).collect();
    assert_eq!(counts, ["3}", "2}", "2}", "1}"]);
}

#[test]
fn a_restored_window_remembers_what_it_fired() {
    let schema = orders();
    let mut pipeline = source(0, vec![Windowed::new("w").reads(&schema, vec![])]);
    let store = MemoryStores::new().open("task").unwrap();
    pipeline.visit(&mut |operator| {
        let saved = OperatorState { fired_watermark_ms: Some(10), ..operator.saved() };
        operator.restore(store.clone(), Some(&saved), 1).unwrap();
    });
    let (batch, mut staged) = (Batch::new(at(&[5])), Staged::new(usize::MAX, usize::MAX));
    assert_eq!(pipeline.process(batch.record(0), &Bump::new(), &mut staged).unwrap(), Progress::Done);
    assert_eq!(staged.counters.late, [("w".into(), 1)].into());
}

#[test]
fn finish_closes_what_is_open() {
    let window = Windowed::new("w");
    let schema = orders();
    let mut pipeline = source(0, vec![window.reads(&schema, vec![sink(&window.schema(&schema), "out")])]);
    start(&mut *pipeline);
    let batch = Batch::new(at(&[5, 6]));
    let mut staged = Staged::new(usize::MAX, usize::MAX);
    for index in 0..2 {
        assert_eq!(pipeline.process(batch.record(index), &Bump::new(), &mut staged).unwrap(), Progress::Done);
    }
    assert_eq!(pipeline.finish(&Bump::new(), &mut staged).unwrap(), Progress::Done);
    assert_eq!(written(&staged, "out"), [row("a", 0, 2)]);
}

#[test]
fn a_closing_that_a_checkpoint_cuts_is_part_of_the_state() {
    let window = Windowed::new("w");
    let schema = orders();
    let mut pipeline = source(0, vec![window.reads(&schema, vec![sink(&window.schema(&schema), "out")])]);
    start(&mut *pipeline);
    let inputs = vec![order("a", "1", 1), order("b", "1", 2), order("c", "1", 3), order("a", "1", 10)];
    let batch = Batch::new(inputs);
    let mut staged = Staged::new(2, usize::MAX);
    let progress: Vec<_> = (0..4)
        .map(|index| pipeline.process(batch.record(index), &Bump::new(), &mut staged).unwrap())
        .collect();
    assert_eq!(progress, [Progress::Done, Progress::Done, Progress::Done, Progress::Full]);
    assert_eq!(written(&staged, "out"), [row("a", 0, 1), row("b", 0, 1)]);
    let mut saved = Vec::new();
    pipeline.visit(&mut |operator| saved.push(operator.saved()));
    assert!(!saved[0].firing_cursor.is_empty());
    assert_eq!(saved[0].fired_watermark_ms, Some(10));
    staged.take();
    assert_eq!(pipeline.resume(&Bump::new(), &mut staged).unwrap(), Progress::Done);
    assert_eq!(written(&staged, "out"), [row("c", 0, 1)]);
    let mut saved = Vec::new();
    pipeline.visit(&mut |operator| saved.push(operator.saved()));
    assert!(saved[0].firing_cursor.is_empty());
}

/// Adds up amounts below a hundred.
pub(super) struct Small;

impl Aggregate<i64> for Small {
    type Value = i64;
    type Input = i64;

    fn input(&self, record: &i64) -> Result<i64, String> {
        Ok(*record)
    }
    fn create(&self) -> i64 {
        0
    }
    fn add(&self, sum: &mut i64, input: i64) -> Result<(), String> {
        if input >= 100 {
            return Err(format!("{input} is not small"));
        }
        *sum += input;
        Ok(())
    }
    fn merge(&self, sum: &mut i64, later: &i64) -> Result<(), String> {
        *sum += later;
        Ok(())
    }
    fn encode(&self, sum: &i64, bytes: &mut Vec<u8>) {
        bytes.extend(sum.to_le_bytes());
    }
    fn decode(&self, bytes: &[u8]) -> Result<i64, String> {
        Ok(i64::from_le_bytes(bytes.try_into().map_err(|_| "not eight bytes")?))
    }
}

/// Sums of numbers in tens, by an empty key for even numbers and `odd` for the others; the key of millions
/// has as many bytes as they have thousands.
pub(in crate::operator) fn numbers() -> Box<dyn Pipeline> {
    numbers_by(AlignedWindows::tumbling(10))
}

pub(in crate::operator) fn numbers_by(windows: AlignedWindows) -> Box<dyn Pipeline> {
    let spec = WindowSpec {
        time: TimeDomain::Event,
        id: "sums".into(),
        fingerprint: String::new(),
        windows,
        allowed_lateness_ms: 0,
        emit: EmitRows::OnClose,
        changelog: false,
        early: None,
        late: LateRecords::Drop,
    };
    let window = WindowOperator::<Owned<i64>, Owned<i64>, _, _, _>::new(
        spec,
        |number: &i64| match number {
            1_000_000.. => "x".repeat(*number as usize / 1_000),
            _ if number % 2 == 0 => String::new(),
            _ => "odd".to_owned(),
        },
        Custom::new(Small),
        |window: WindowValue<'_, i64>| Ok(*window.value),
        rejected("sums"),
        Readers::new(vec![Box::new(Sink::new(
            Json::<i64, _>::new(|_: &i64| None),
            target("out"),
            rejected("out"),
        ))]),
    );
    let timing = Timing { max_out_of_orderness_ms: 0, punctuated: false, max_ahead_ms: 1_000_000 };
    let json = Json::<i64, _>::new(|number: &i64| number % 1_000);
    Box::new(Source::<Owned<i64>, _>::new(
        json,
        timing,
        rejected("numbers"),
        Readers::new(vec![Box::new(window)]),
    ))
}

pub(in crate::operator) fn number(number: i64) -> Input {
    Input { value: Some(number.to_string().into_bytes()), ..Input::default() }
}

#[test]
fn a_record_that_an_aggregate_refuses_leaves_no_trace() {
    // 1005 at 5 is not small: there is no row for its key, which nothing else has.
    let staged = run(numbers(), vec![number(2), number(1_005), number(10)]).unwrap();
    assert_eq!(written(&staged, "out"), ["2"]);
    assert_eq!(written(&staged, "rejected"), ["1005"]);
}

#[test]
fn aggregates_of_ones_own_are_merged() {
    let staged =
        run(numbers_by(AlignedWindows::sliding(10, 5)), vec![number(2), number(8), number(50)]).unwrap();
    assert_eq!(written(&staged, "out"), ["2", "10", "8"]);
}

#[test]
fn a_typed_key_has_the_limit_of_all_keys() {
    let staged = run(numbers(), vec![number(65_536_005), number(65_537_005)]).unwrap();
    let errors: Vec<_> = staged.outputs.iter().filter_map(|letter| header(letter, "thalweg.error")).collect();
    assert_eq!(errors, ["65536005 is not small", "the key takes 65537 bytes, more than 65536"]);
}

#[test]
fn a_cursor_after_an_empty_key_is_a_cursor() {
    let mut pipeline = numbers();
    let store = MemoryStores::new().open("task").unwrap();
    pipeline.visit(&mut |operator| operator.restore(store.clone(), None, 0).unwrap());
    let batch = Batch::new(vec![number(2), number(3), number(10)]);
    let mut staged = Staged::new(1, usize::MAX);
    let progress: Vec<_> = (0..3)
        .map(|index| pipeline.process(batch.record(index), &Bump::new(), &mut staged).unwrap())
        .collect();
    assert_eq!(progress, [Progress::Done, Progress::Done, Progress::Full]);
    pipeline.visit(&mut |operator| {
        assert!(!operator.saved().firing_cursor.is_empty(), "a restore goes on behind the empty key");
    });
}
