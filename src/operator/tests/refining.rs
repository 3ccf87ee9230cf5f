//! Refinements by the clock.

use super::window::range;
use super::*;

/// Windows of ten milliseconds that take rows until 30 behind their ends.
fn refined() -> Windowed {
    let (emit, refine_every_ms) = (EmitRows::OnTime, Some(100));
    Windowed { emit, refine_every_ms, allowed_lateness_ms: 30, ..Windowed::new("w") }
}

/// A pipeline, and what the clock shows it.
struct Clocked {
    pipeline: Box<dyn Pipeline>,
    staged: Staged,
}

fn pipeline(window: &Windowed) -> Box<dyn Pipeline> {
    let schema = orders();
    source(0, vec![window.reads(&schema, vec![sink(&window.schema(&schema), "out")])])
}

impl Clocked {
    fn new(window: &Windowed) -> Clocked {
        let mut pipeline = pipeline(window);
        start(&mut *pipeline);
        let mut staged = Staged::new(usize::MAX, usize::MAX);
        staged.tell_time(1_000);
        Clocked { pipeline, staged }
    }

    fn at(&mut self, clock_ms: i64) -> &mut Clocked {
        let mut is_due = self.staged.tell_time(clock_ms);
        while is_due {
            is_due = self.pipeline.resume(&Bump::new(), &mut self.staged).unwrap() == Progress::Full;
        }
        self
    }

    /// Rows of a customer come.
    fn rows(&mut self, customer: &str, times: &[i64]) -> &mut Clocked {
        let batch = Batch::new(times.iter().map(|at_ms| order(customer, "1", *at_ms)).collect());
        for index in 0..times.len() {
            let record = batch.record(index);
            assert_eq!(
                self.pipeline.process(record, &Bump::new(), &mut self.staged).unwrap(),
                Progress::Done
            );
        }
        self
    }

    fn written(&mut self) -> Vec<String> {
        let written = written(&self.staged, "out");
        self.staged.take();
        written
    }
}

#[test]
fn refinements_are_made_by_the_clock_of_what_has_changed() {
    let mut clocked = Clocked::new(&refined());
    clocked.rows("a", &[1, 2, 12]);
    assert_eq!(clocked.written(), [range(0, 10, 2, Some(false))], "on time");
    clocked.rows("a", &[3, 4]).at(1_099);
    assert!(clocked.written().is_empty(), "not yet");
    assert_eq!(clocked.at(1_100).written(), [range(0, 10, 4, Some(true))]);
    assert!(clocked.at(1_300).written().is_empty(), "nothing has come since");
    clocked.rows("a", &[5, 6]).at(1_400);
    assert_eq!(clocked.written(), [range(0, 10, 6, Some(true))]);
}

#[test]
fn what_is_outstanding_is_made_before_the_window_closes() {
    let mut clocked = Clocked::new(&refined());
    clocked.rows("a", &[1, 12, 2]);
    assert_eq!(clocked.written(), [range(0, 10, 1, Some(false))]);
    clocked.rows("b", &[39]);
    assert_eq!(clocked.written(), [range(10, 20, 1, Some(false))], "it still takes rows");
    clocked.rows("b", &[40]);
    assert_eq!(
        clocked.written(),
        [range(0, 10, 2, Some(true)), range(30, 40, 1, Some(false)).replace("\"a\"", "\"b\"")]
    );
    clocked.rows("a", &[3]);
    assert_eq!(clocked.staged.counters.late, [("w".into(), 1)].into());
    assert!(clocked.at(1_100).written().is_empty());
    // The end of a bounded run closes all.
    clocked.rows("a", &[13]);
    assert_eq!(clocked.pipeline.finish(&Bump::new(), &mut clocked.staged).unwrap(), Progress::Done);
    let rows = clocked.written();
    assert_eq!(rows[0], range(10, 20, 2, Some(true)));
    assert_eq!(rows.len(), 2, "that of b until 50 is on time: {rows:?}");
}

#[test]
fn a_process_that_does_not_know_what_has_changed_makes_refinements_of_all_that_has_fired() {
    let window = refined();
    let restarted = || {
        let mut clocked = Clocked::new(&window);
        clocked.rows("a", &[1, 12, 2]).rows("b", &[11, 15]);
        assert_eq!(clocked.written(), [range(0, 10, 1, Some(false))]);
        let mut other = pipeline(&window);
        hand_over(&mut *clocked.pipeline, &mut *other, |_| {});
        let mut staged = Staged::new(usize::MAX, usize::MAX);
        staged.tell_time(1_050);
        assert_eq!(other.resume(&Bump::new(), &mut staged).unwrap(), Progress::Done);
        Clocked { pipeline: other, staged }
    };
    let mut other = restarted();
    assert_eq!(other.at(1_100).written(), [range(0, 10, 2, Some(true))], "not of those that have not fired");
    assert!(other.at(1_200).written().is_empty());
    let mut other = restarted();
    other.rows("a", &[40]);
    let rows = other.written();
    assert_eq!(rows[0], range(0, 10, 2, Some(true)), "before it closes: {rows:?}");
    assert_eq!(rows.len(), 3, "and those that are on time: {rows:?}");
}

#[test]
fn where_too_much_has_changed_all_that_has_fired_makes_one() {
    let mut clocked = Clocked::new(&refined());
    clocked.rows("a", &[1, 12]);
    assert_eq!(clocked.written().len(), 1);
    let keys = 16_400;
    for key in 0..keys {
        clocked.rows(&format!("k{key}"), &[2]);
    }
    assert!(clocked.written().is_empty());
    assert_eq!(clocked.at(1_100).written().len(), keys + 1, "that of a as well");
    assert!(clocked.at(1_200).written().is_empty());
}
