//! Windows of processing time, and early rows.

use super::window::{at, range, run_window};
use super::*;

fn processing(windows: Windows) -> Windowed {
    Windowed { windows, time: TimeDomain::Processing, ..Windowed::new("w") }
}

/// A pipeline and what the clock shows it.
pub(super) struct Clocked {
    pub pipeline: Box<dyn Pipeline>,
    pub staged: Staged,
}

pub(super) fn pipeline(window: &Windowed) -> Box<dyn Pipeline> {
    let schema = orders();
    source(0, vec![window.reads(&schema, vec![sink(&window.schema(&schema), "out")])])
}

impl Clocked {
    pub fn new(window: &Windowed) -> Clocked {
        let mut pipeline = pipeline(window);
        start(&mut *pipeline);
        Clocked { pipeline, staged: Staged::new(usize::MAX, usize::MAX) }
    }

    /// The clock shows this; what is due happens.
    pub fn at(&mut self, clock_ms: i64) -> &mut Clocked {
        if self.staged.tell_time(clock_ms) {
            assert_eq!(self.pipeline.resume(&Bump::new(), &mut self.staged).unwrap(), Progress::Done);
        }
        self
    }

    /// Rows of a customer come, with an event time that is of no account.
    fn rows(&mut self, customer: &str, rows: usize) -> &mut Clocked {
        let batch = Batch::new((0..rows).map(|_| order(customer, "1", 7)).collect());
        for index in 0..rows {
            let record = batch.record(index);
            let progress = self.pipeline.process(record, &Bump::new(), &mut self.staged).unwrap();
            assert_eq!(progress, Progress::Done);
        }
        self
    }

    /// Rows of a customer come with event times.
    pub fn rows_at(&mut self, customer: &str, times: &[i64]) -> &mut Clocked {
        let batch = Batch::new(times.iter().map(|at_ms| order(customer, "1", *at_ms)).collect());
        for index in 0..times.len() {
            let record = batch.record(index);
            let progress = self.pipeline.process(record, &Bump::new(), &mut self.staged).unwrap();
            assert_eq!(progress, Progress::Done);
        }
        self
    }

    pub fn written(&mut self) -> Vec<String> {
        let written = written(&self.staged, "out");
        self.staged.take();
        written
    }
}

#[test]
fn rows_belong_to_the_window_in_which_they_are_processed() {
    let mut clocked = Clocked::new(&processing(tumbling(10)));
    clocked.at(101).rows("a", 2).at(108).rows("a", 1).rows("b", 1);
    assert!(clocked.written().is_empty());
    assert!(clocked.at(109).written().is_empty(), "the window is not over");
    assert_eq!(clocked.at(110).written(), [range(100, 110, 3, None), of_b(range(100, 110, 1, None))]);
    clocked.rows("a", 1).at(119);
    assert!(clocked.written().is_empty());
    assert_eq!(clocked.at(140).written(), [range(110, 120, 1, None)]);
    assert_eq!(clocked.staged.counters.late, [].into());
}

pub(super) fn of_b(row: String) -> String {
    row.replace("\"a\"", "\"b\"")
}

#[test]
fn a_clock_that_is_set_back_stands_until_it_has_caught_up() {
    let mut clocked = Clocked::new(&processing(tumbling(10)));
    clocked.at(105).rows("a", 1).at(112);
    assert_eq!(clocked.written(), [range(100, 110, 1, None)]);
    clocked.at(50).rows("a", 1).at(100).rows("a", 1);
    assert_eq!(clocked.at(130).written(), [range(110, 120, 2, None)]);
}

#[test]
fn what_became_due_while_nobody_ran_is_made_first() {
    for windows in [tumbling(10), session(8)] {
        let window = processing(windows.clone());
        let mut clocked = Clocked::new(&window);
        clocked.at(101).rows("a", 2);
        let mut next = Clocked::new(&window);
        hand_over(&mut *clocked.pipeline, &mut *next.pipeline, |_| ());
        // As a task does that starts.
        next.staged.tell_time(1_000);
        assert_eq!(next.pipeline.resume(&Bump::new(), &mut next.staged).unwrap(), Progress::Done);
        let (start_ms, end_ms) = if windows == tumbling(10) { (100, 110) } else { (101, 109) };
        assert_eq!(next.written(), [range(start_ms, end_ms, 2, None)]);
    }
}

#[test]
fn sessions_end_when_nothing_was_processed_for_a_gap() {
    let mut clocked = Clocked::new(&processing(session(10)));
    clocked.at(3).rows("a", 1).at(9).rows("a", 1).at(12).rows("b", 1);
    assert!(clocked.at(18).written().is_empty());
    assert_eq!(clocked.at(19).written(), [range(3, 19, 2, None)]);
    assert_eq!(clocked.at(22).written(), [of_b(range(12, 22, 1, None))]);
    assert!(clocked.at(5_000).written().is_empty());
}

#[test]
fn sliding_windows_and_updates_are_those_of_the_clock() {
    let mut clocked = Clocked::new(&processing(sliding(10, 5)));
    clocked.at(6).rows("a", 1).at(12).rows("a", 1).at(40);
    let expected = [range(0, 10, 1, None), range(5, 15, 2, None), range(10, 20, 1, None)];
    assert_eq!(clocked.written(), expected);

    let mut clocked = Clocked::new(&Windowed { emit: EmitRows::OnUpdate, ..processing(tumbling(10)) });
    clocked.at(6).rows("a", 2);
    assert_eq!(clocked.written(), [range(0, 10, 1, Some(false)), range(0, 10, 2, Some(false))]);
    assert_eq!(clocked.at(10).written(), [range(0, 10, 2, Some(true))]);
}

#[test]
fn behind_processing_time_the_clock_is_the_watermark() {
    let schema = orders();
    let inner = processing(tumbling(10));
    let rows = inner.schema(&schema);
    let aggregates = vec![aggregate(&rows, "rows", AggregateFunction::Sum, Some("rows"), Type::Int)];
    let outer = Windowed { id: "outer", windows: tumbling(1_000), aggregates, ..Windowed::new("outer") };
    let reader = outer.reads(&rows, vec![sink(&outer.schema(&rows), "out")]);
    let mut pipeline = source(0, vec![inner.reads(&schema, vec![reader])]);
    start(&mut *pipeline);
    let mut clocked = Clocked { pipeline, staged: Staged::new(usize::MAX, usize::MAX) };
    clocked.at(105).rows("a", 2).at(205).rows("a", 1);
    for clock_ms in (300..1_000).step_by(50) {
        assert!(clocked.at(clock_ms).written().is_empty());
    }
    // Nothing is open in the first window any more: it tells the time all the same.
    clocked.at(2_500);
    assert_eq!(clocked.written(), [range(0, 1_000, 3, None)]);
}

#[test]
fn the_end_of_a_bounded_run_ends_them() {
    let mut clocked = Clocked::new(&processing(tumbling(10)));
    clocked.at(6).rows("a", 1);
    let progress = clocked.pipeline.finish(&Bump::new(), &mut clocked.staged).unwrap();
    assert_eq!(progress, Progress::Done);
    assert_eq!(clocked.written(), [range(0, 10, 1, None)]);
}

fn early(windows: Windows) -> Windowed {
    Windowed { windows, early: Some(EarlyFiring::EveryMs(100, TimeDomain::Processing)), ..Windowed::new("w") }
}

pub(super) fn marked(start_ms: i64, end_ms: i64, rows: i64, early: bool) -> String {
    range(start_ms, end_ms, rows, Some(early)).replace("mark", "early")
}

#[test]
fn early_rows_are_of_what_has_changed() {
    let mut clocked = Clocked::new(&early(tumbling(10)));
    clocked.at(1_000);
    clocked.rows_at("a", &[1, 2]);
    clocked.rows_at("b", &[3]);
    assert!(clocked.at(1_099).written().is_empty());
    assert_eq!(clocked.at(1_100).written(), [marked(0, 10, 2, true), of_b(marked(0, 10, 1, true))]);
    assert!(clocked.at(1_250).written().is_empty(), "nothing has changed");
    clocked.rows_at("a", &[4]);
    assert_eq!(clocked.at(1_300).written(), [marked(0, 10, 3, true)]);
    // When the window is over its row is made as ever, and no early one.
    clocked.rows_at("a", &[5, 12]);
    assert_eq!(clocked.written(), [marked(0, 10, 4, false), of_b(marked(0, 10, 1, false))]);
    assert_eq!(clocked.at(1_400).written(), [marked(10, 20, 1, true)]);
}

#[test]
fn early_rows_of_sessions_are_those_of_what_they_have_become() {
    let mut clocked = Clocked::new(&early(session(10)));
    clocked.at(1_000);
    clocked.rows_at("a", &[1, 9]);
    clocked.rows_at("b", &[2]);
    // Nothing is known at first of what has changed, so all come, by their keys.
    assert_eq!(clocked.at(1_100).written(), [marked(1, 19, 2, true), of_b(marked(2, 12, 1, true))]);
    clocked.rows_at("a", &[18]);
    assert_eq!(clocked.written(), [of_b(marked(2, 12, 1, false))]);
    assert_eq!(clocked.at(1_200).written(), [marked(1, 28, 3, true)]);
}

#[test]
fn early_rows_behind_a_restart_are_of_all_that_is_open() {
    for windows in [tumbling(10), session(8)] {
        let window = early(windows.clone());
        let mut clocked = Clocked::new(&window);
        clocked.at(1_000);
        clocked.rows_at("a", &[1]);
        clocked.rows_at("b", &[1]);
        assert_eq!(clocked.at(1_100).written().len(), 2);
        clocked.rows_at("b", &[2]);
        let mut next = Clocked::new(&window);
        hand_over(&mut *clocked.pipeline, &mut *next.pipeline, |_| ());
        next.staged.tell_time(1_150);
        // A row at a time, as a full checkpoint has it.
        let mut pieces = Vec::new();
        next.staged = Staged::new(1, usize::MAX);
        next.staged.tell_time(1_150);
        assert_eq!(next.pipeline.resume(&Bump::new(), &mut next.staged).unwrap(), Progress::Done);
        assert!(next.staged.tell_time(1_200));
        while next.pipeline.resume(&Bump::new(), &mut next.staged).unwrap() == Progress::Full {
            pieces.extend(next.written());
        }
        pieces.extend(next.written());
        let end_of = |at_ms: i64| if windows == tumbling(10) { 10 } else { at_ms + 8 };
        let start_ms = if windows == tumbling(10) { 0 } else { 1 };
        let expected = [marked(start_ms, end_of(1), 1, true), of_b(marked(start_ms, end_of(2), 2, true))];
        assert_eq!(pieces, expected);
    }
}

fn by_number(windows: Windows, rows: i64) -> Windowed {
    Windowed { windows, early: Some(EarlyFiring::EveryRows(rows)), ..Windowed::new("w") }
}

#[test]
fn early_rows_come_whenever_so_many_rows_have_come() {
    let staged = run_window(&by_number(tumbling(10), 2), at(&[1, 2, 3, 4, 5, 12, 13, 20]));
    let expected = [
        marked(0, 10, 2, true),
        marked(0, 10, 4, true),
        marked(0, 10, 5, false),
        marked(10, 20, 2, true),
        marked(10, 20, 2, false),
    ];
    assert_eq!(written(&staged, "out"), expected);

    // Two sessions of two rows, which a fifth joins: three is passed by then.
    let sessions = Windowed { allowed_lateness_ms: 1_000, ..by_number(session(10), 3) };
    let staged = run_window(&sessions, at(&[1, 2, 20, 21, 11, 22, 2_000]));
    let expected = [marked(1, 31, 5, true), marked(1, 32, 6, true), marked(1, 32, 6, false)];
    assert_eq!(written(&staged, "out"), expected);
}

#[test]
fn how_many_rows_have_come_is_part_of_the_state() {
    let window = by_number(tumbling(10), 3);
    let (mut before, mut behind) = (pipeline(&window), pipeline(&window));
    start(&mut *before);
    assert!(written(&go_on(&mut *before, at(&[1, 2])).unwrap(), "out").is_empty());
    hand_over(&mut *before, &mut *behind, |_| ());
    assert_eq!(written(&go_on(&mut *behind, at(&[3])).unwrap(), "out"), [marked(0, 10, 3, true)]);
}

#[test]
fn days_of_the_clock_begin_and_end_with_those_of_the_zone() {
    // 2024-03-31T00:00Z; clocks are put forward at one.
    let (march_ms, hour_ms) = (1_711_843_200_000, 3_600_000);
    let mut clocked = Clocked::new(&processing(days("Europe/Berlin")));
    clocked.at(march_ms - hour_ms - 1).rows("a", 1);
    let before = range(march_ms - 25 * hour_ms, march_ms - hour_ms, 1, None);
    assert_eq!(clocked.at(march_ms - hour_ms).written(), [before]);
    clocked.rows("a", 2).at(march_ms + 22 * hour_ms - 1).rows("a", 1);
    assert!(clocked.written().is_empty());
    let day = range(march_ms - hour_ms, march_ms + 22 * hour_ms, 3, None);
    assert_eq!(clocked.at(march_ms + 22 * hour_ms).written(), [day]);
}

#[test]
fn early_rows_of_days_are_those_of_days() {
    let mut clocked = Clocked::new(&early(days("UTC")));
    clocked.at(1_000);
    clocked.rows_at("a", &[1, 2]);
    assert_eq!(clocked.at(1_100).written(), [marked(0, 86_400_000, 2, true)]);
    clocked.rows_at("a", &[3]);
    assert_eq!(clocked.at(1_200).written(), [marked(0, 86_400_000, 3, true)]);
    clocked.rows_at("a", &[86_400_000]);
    assert_eq!(clocked.written(), [marked(0, 86_400_000, 3, false)]);
}

#[test]
fn a_window_that_is_firing_makes_no_early_rows() {
    let mut clocked = Clocked::new(&early(tumbling(10)));
    clocked.at(1_000);
    clocked.rows_at("a", &[1]);
    clocked.at(1_100).written();
    clocked.rows_at("a", &[2]);
    clocked.rows_at("b", &[2]);
    let Clocked { pipeline, staged } = &mut clocked;
    // A row a call: the end of a bounded run comes to its first key, then it is time for early rows.
    *staged = Staged::new(usize::MAX, usize::MAX).with_rows_per_call(1);
    staged.tell_time(1_150);
    assert_eq!(pipeline.finish(&Bump::new(), staged).unwrap(), Progress::Full);
    staged.tell_time(1_200);
    assert_eq!(pipeline.resume(&Bump::new(), staged).unwrap(), Progress::Done);
    while pipeline.finish(&Bump::new(), staged).unwrap() == Progress::Full {}
    assert_eq!(clocked.written(), [marked(0, 10, 2, false), of_b(marked(0, 10, 1, false))]);
}

#[test]
fn the_time_is_told_each_second_however_often_records_come() {
    let mut staged = Staged::new(usize::MAX, usize::MAX);
    assert!(!staged.tell_time(1_000), "nobody has asked");
    for clock_ms in (1_000..2_000).step_by(100) {
        assert!(!staged.tell_time(clock_ms));
        staged.wake_at(None);
    }
    assert!(staged.tell_time(2_000));
    assert!(!staged.tell_time(9_000), "nobody has asked again");
    // A clock that was ahead is set back.
    staged.wake_at(None);
    assert!(!staged.tell_time(3_000));
    staged.wake_at(Some(3_500));
    assert!(!staged.tell_time(3_499) && staged.tell_time(3_500));
    staged.wake_at(None);
    assert!(staged.tell_time(4_500));
}

#[test]
fn early_rows_of_windows_that_begin_anew_add_up() {
    for windows in [tumbling(10), session(10)] {
        let window = Windowed { purge: true, ..by_number(windows, 2) };
        let inputs = [1, 2, 3, 4, 5].map(|at_ms| order("a", "1", at_ms));
        let mut all = inputs.to_vec();
        all.push(order("b", "1", 40));
        let staged = run(pipeline(&window), all).unwrap();
        let rows: Vec<String> = written(&staged, "out").into_iter().map(|row| tail(&row)).collect();
        assert_eq!(
            rows,
            [r#""rows":2,"early":true}"#, r#""rows":2,"early":true}"#, r#""rows":1,"early":false}"#]
        );
        // One that has taken none since its last early row makes no other one.
        let mut even = inputs[..4].to_vec();
        even.push(order("b", "1", 40));
        let staged = run(pipeline(&window), even).unwrap();
        assert_eq!(written(&staged, "out").len(), 2);
    }
}

fn tail(row: &str) -> String {
    row[row.find(r#""rows""#).unwrap()..].to_owned()
}

#[test]
fn early_rows_come_after_rows_of_which_a_condition_holds() {
    for (windows, purge) in
        [(tumbling(10), false), (tumbling(10), true), (session(10), false), (session(10), true)]
    {
        let when = Some(expression(&orders(), "12 / amount > 3"));
        let early = Some(EarlyFiring::When);
        let window = Windowed { windows, early, early_when: when, purge, ..Windowed::new("w") };
        let inputs = [("9", 1), ("2", 2), ("0", 3), ("3", 4), ("9", 5), ("9", 40), ("1", 4)];
        let staged = run(pipeline(&window), inputs.map(|(n, at_ms)| order("a", n, at_ms)).into()).unwrap();
        let rows: Vec<String> = written(&staged, "out").into_iter().map(|row| tail(&row)).collect();
        let [first, second, third] = if purge { [2, 1, 1] } else { [2, 3, 4] };
        let row = |rows: i64, early: bool| format!(r#""rows":{rows},"early":{early}}}"#);
        assert_eq!(rows, [row(first, true), row(second, true), row(third, false)]);
        // A division by zero fails, and the last row is late: nobody asks it.
        assert_eq!(staged.counters.failed, [("w".into(), 1)].into());
        assert_eq!(staged.counters.late, [("w".into(), 1)].into());
    }
}

#[test]
fn windows_that_begin_anew_by_the_clock_make_each_row_count_once() {
    for windows in [tumbling(10), session(10)] {
        let window = Windowed { purge: true, ..early(windows) };
        let mut clocked = Clocked::new(&window);
        let sum = |rows: Vec<String>| -> (usize, i64) {
            let count = |row: &String| -> i64 {
                let rest = row.split_once(r#""rows":"#).unwrap().1;
                rest.split(',').next().unwrap().parse().unwrap()
            };
            (rows.len(), rows.iter().map(count).sum())
        };
        clocked.at(0).rows("a", 2).rows("b", 1).at(100);
        assert_eq!(sum(clocked.written()), (2, 3));
        assert_eq!(sum(clocked.at(200).written()), (0, 0), "nothing has come since");
        clocked.rows("a", 3).at(300);
        assert_eq!(sum(clocked.written()), (1, 3));
        clocked.rows("b", 4);
        // Another process does not know what has changed, and need not.
        let mut other = pipeline(&window);
        hand_over(&mut *clocked.pipeline, &mut *other, |_| {});
        clocked.pipeline = other;
        clocked.rows("b", 1).at(400).at(500);
        assert_eq!(sum(clocked.written()), (1, 5));
        clocked.rows("a", 1);
        assert_eq!(clocked.pipeline.finish(&Bump::new(), &mut clocked.staged).unwrap(), Progress::Done);
        assert_eq!(sum(clocked.written()), (1, 1), "of b nothing is left");
    }
}

#[test]
fn all_windows_that_are_open_begin_anew_behind_a_restart() {
    for windows in [tumbling(10), session(5)] {
        let window = Windowed { purge: true, ..early(windows) };
        let schema = orders();
        let make = || source(100, vec![window.reads(&schema, vec![sink(&window.schema(&schema), "out")])]);
        let mut pipelines = [make(), make()];
        start(&mut *pipelines[0]);
        // Three windows of 300 keys each.
        let keys = (0..900).map(|number| order(&format!("k{}", number % 300), "1", number / 300 * 10 + 3));
        go_on(&mut *pipelines[0], keys.collect()).unwrap();
        let [mut first, second] = pipelines;
        let mut clocked = Clocked { pipeline: second, staged: Staged::new(usize::MAX, usize::MAX) };
        hand_over(&mut *first, &mut *clocked.pipeline, |_| {});
        clocked.staged.tell_time(50);
        assert_eq!(clocked.pipeline.resume(&Bump::new(), &mut clocked.staged).unwrap(), Progress::Done);
        let mut rows = 0;
        for clock_ms in [100, 200] {
            let mut is_due = clocked.staged.tell_time(clock_ms);
            while is_due {
                is_due =
                    clocked.pipeline.resume(&Bump::new(), &mut clocked.staged).unwrap() == Progress::Full;
                rows += clocked.written().len();
            }
        }
        assert_eq!(rows, 900);
    }
}

#[test]
fn windows_of_which_there_is_nothing_to_tell_are_not_touched() {
    for windows in [tumbling(10), session(5)] {
        let window = Windowed { purge: true, ..early(windows) };
        let mut clocked = Clocked::new(&window);
        clocked.at(0).rows("a", 1).rows("b", 1).at(100);
        assert_eq!(clocked.written().len(), 2);
        // Another process has to look at all of them.
        let mut other = pipeline(&window);
        hand_over(&mut *clocked.pipeline, &mut *other, |_| {});
        clocked.pipeline = other;
        clocked.at(200).at(300);
        assert_eq!(clocked.written().len(), 0);
        let mut dirty = 0;
        clocked.pipeline.visit(&mut |operator| dirty += operator.memory().dirty);
        assert_eq!(dirty, 0, "nothing has changed");
    }
}

#[test]
fn a_session_of_a_changelog_wakes_nobody_before_it_ends() {
    let window = Windowed { emit: EmitRows::OnUpdate, changelog: true, ..processing(session(10)) };
    let mut clocked = Clocked::new(&window);
    clocked.at(105).rows("a", 1);
    assert_eq!(clocked.staged.due_ms(), Some(115));
    // What is due then is told the time meanwhile as well.
    clocked.staged.tell_time(112);
    assert_eq!(clocked.pipeline.resume(&Bump::new(), &mut clocked.staged).unwrap(), Progress::Done);
    assert!(clocked.staged.due_ms().is_none_or(|due_ms| due_ms > 112), "{:?}", clocked.staged.due_ms());
    clocked.at(115).rows("a", 1);
    let rows = clocked.written();
    assert_eq!(rows.iter().filter(|row| row.contains("insert")).count(), 2, "{rows:?}");
}
