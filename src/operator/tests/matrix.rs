//! All assigners, triggers and latenesses together, beside windows in the simplest way: each keeps its rows.

use proptest::collection::vec;
use proptest::prelude::*;

use super::processing::{Clocked, pipeline};
use super::*;
use crate::window::PanedWindows;

/// A window of a key.
#[derive(Clone, Debug)]
struct Open {
    key: String,
    start_ms: i64,
    end_ms: i64,
    /// The amounts of its rows, since it has begun anew.
    amounts: Vec<i64>,
    /// It has made its row on time.
    fired: bool,
    /// A row has come since its last early one.
    changed: bool,
}

/// A row of the input: whose it is, its amount and its time.
type Order = (String, i64, i64);

/// The windows of one operator.
struct Naive<'w> {
    window: &'w Windowed,
    open: Vec<Open>,
    watermark_ms: Option<i64>,
    late: u64,
    made: Vec<String>,
}

/// Early rows by a condition come after rows with an amount like this.
fn is_urgent(amount: i64) -> bool {
    amount > 4
}

impl Naive<'_> {
    /// The windows of a row, as if it were alone.
    fn alone(&self, amount: i64, at_ms: i64) -> Vec<(i64, i64)> {
        match &self.window.windows {
            Windows::Session(_) if self.window.gap.is_some() => vec![(at_ms, at_ms + 4 * amount)],
            Windows::Session(sessions) => vec![(at_ms, at_ms + sessions.gap_ms())],
            Windows::Aligned(windows) => (at_ms + 1..at_ms + 50)
                .filter(|end_ms| windows.next_end_after(end_ms - 1) == *end_ms)
                .map(|end_ms| (windows.ending_at(end_ms).start_ms, end_ms))
                .filter(|(start_ms, _)| *start_ms <= at_ms)
                .collect(),
            Windows::Calendar(_) => unreachable!("there are none here"),
        }
    }

    fn is_over(&self, end_ms: i64) -> bool {
        self.watermark_ms.is_some_and(|watermark_ms| end_ms <= watermark_ms)
    }

    fn is_closed(&self, end_ms: i64) -> bool {
        self.is_over(end_ms + self.window.allowed_lateness_ms)
    }

    /// Makes a row; the window begins anew if it is one of those.
    fn make(&mut self, open: &mut Open, early: bool, mark: bool) {
        let Open { key, start_ms, end_ms, amounts, .. } = open;
        let (rows, total) = (amounts.len(), amounts.iter().sum::<i64>());
        let total = if amounts.is_empty() { "null".to_owned() } else { total.to_string() };
        let early = self.window.early.map_or(String::new(), |_| format!(r#","early":{early}"#));
        let mark = match self.window.emit {
            EmitRows::OnClose => String::new(),
            EmitRows::OnTime | EmitRows::OnUpdate => format!(r#","mark":{mark}"#),
        };
        self.made.push(format!(
            r#"{{"customer":"{key}","window_start":{start_ms},"window_end":{end_ms},"rows":{rows},"total":{total}{early}{mark}}}"#
        ));
        if self.window.purge {
            open.amounts.clear();
        }
    }

    /// What a row makes, and the watermark behind it.
    fn process(&mut self, (key, amount, at_ms): &Order) -> Vec<String> {
        let alone = self.alone(*amount, *at_ms);
        let (mut counts, is_session) = (false, matches!(self.window.windows, Windows::Session(_)));
        for (start_ms, end_ms) in &alone {
            let joins = |open: &Open| {
                let touches = open.start_ms <= *end_ms && *start_ms <= open.end_ms;
                let is_same = (open.start_ms, open.end_ms) == (*start_ms, *end_ms);
                open.key == *key && if is_session { touches } else { is_same }
            };
            let (joined, others): (Vec<Open>, Vec<Open>) = self.open.drain(..).partition(joins);
            self.open = others;
            let end_ms = joined.iter().map(|open| open.end_ms).chain([*end_ms]).max().unwrap();
            if self.is_closed(end_ms) {
                continue;
            }
            counts = true;
            let before = joined.iter().map(|open| open.amounts.len()).max().unwrap_or(0);
            let amounts = joined.iter().flat_map(|open| open.amounts.iter().copied()).chain([*amount]);
            let mut whole = Open {
                key: key.clone(),
                start_ms: joined.iter().map(|open| open.start_ms).chain([*start_ms]).min().unwrap(),
                end_ms,
                amounts: amounts.collect(),
                fired: self.is_over(end_ms),
                changed: true,
            };
            let is_early = match self.window.early {
                Some(EarlyFiring::EveryRows(every)) => {
                    whole.amounts.len() / every as usize > before / every as usize
                }
                Some(EarlyFiring::When) => is_urgent(*amount),
                Some(EarlyFiring::EveryMs(..)) | None => false,
            };
            match self.window.emit {
                EmitRows::OnUpdate => self.make(&mut whole, false, false),
                EmitRows::OnTime if whole.fired => self.make(&mut whole, false, true),
                EmitRows::OnTime | EmitRows::OnClose if is_early => self.make(&mut whole, true, false),
                EmitRows::OnTime | EmitRows::OnClose => {}
            }
            self.open.push(whole);
        }
        self.late += u64::from(!counts && !alone.is_empty());
        let before_ms = self.watermark_ms;
        self.watermark_ms = before_ms.max(Some(*at_ms));
        self.fire();
        if let Some(EarlyFiring::EveryMs(every_ms, _)) = self.window.early
            && before_ms.is_some_and(|before_ms| before_ms.div_euclid(every_ms) < at_ms.div_euclid(every_ms))
        {
            self.each(|naive, open| {
                let may_be = naive.window.emit == EmitRows::OnClose || !open.fired;
                if may_be && open.changed && !open.amounts.is_empty() {
                    naive.make(open, true, false);
                }
                open.changed = false;
            });
        }
        self.take()
    }

    fn each(&mut self, mut visit: impl FnMut(&mut Self, &mut Open)) {
        let mut open = std::mem::take(&mut self.open);
        open.iter_mut().for_each(|open| visit(self, open));
        self.open = open;
    }

    /// Fires what is due, and closes what has ended long enough ago.
    fn fire(&mut self) {
        self.each(|naive, open| {
            let on_time = naive.window.emit == EmitRows::OnTime;
            let is_due = if on_time {
                naive.is_over(open.end_ms) && !open.fired
            } else {
                naive.is_closed(open.end_ms)
            };
            if is_due && !(naive.window.purge && open.amounts.is_empty()) {
                naive.make(open, false, !on_time);
            }
            open.fired |= is_due;
        });
        let closed: Vec<i64> =
            self.open.iter().map(|open| open.end_ms).filter(|end_ms| self.is_closed(*end_ms)).collect();
        self.open.retain(|open| !closed.contains(&open.end_ms));
    }

    fn take(&mut self) -> Vec<String> {
        let mut made = std::mem::take(&mut self.made);
        made.sort();
        made
    }
}

/// The triggers, and which of them there are for windows that overlap.
fn triggers() -> Vec<(Windowed, bool)> {
    let on = |emit| Windowed { emit, ..Windowed::new("w") };
    let mut triggers =
        vec![(on(EmitRows::OnClose), true), (on(EmitRows::OnTime), true), (on(EmitRows::OnUpdate), true)];
    triggers.push((Windowed { purge: true, ..on(EmitRows::OnTime) }, false));
    for early in [EarlyFiring::EveryMs(5, TimeDomain::Event), EarlyFiring::EveryRows(2), EarlyFiring::When] {
        for emit in [EmitRows::OnClose, EmitRows::OnTime] {
            let early_when = (early == EarlyFiring::When).then(|| expression(&orders(), "amount > 4"));
            let window = Windowed { early: Some(early), early_when, ..on(emit) };
            triggers.push((Windowed { purge: true, ..window.clone() }, false));
            triggers.push((window, true));
        }
    }
    triggers
}

/// The assigners, and whether their windows overlap.
fn assigners() -> Vec<(Windows, Option<&'static str>, bool)> {
    let aligned = |windows: AlignedWindows| Windows::Aligned(windows);
    vec![
        (tumbling(10), None, false),
        (aligned(AlignedWindows::tumbling(10).with_offset(3)), None, false),
        (sliding(12, 4), None, true),
        (aligned(AlignedWindows::sliding(10, 4).with_offset(3)), None, true),
        (sliding(6, 10), None, false),
        (aligned(AlignedWindows::cumulative(15, 5).with_offset(2)), None, true),
        (session(3), None, false),
        (session(10), None, false),
        (session(5), Some("duration(amount * 4)"), false),
    ]
}

fn assigned() -> impl Strategy<Value = Windowed> {
    let window = (proptest::sample::select(assigners()), proptest::sample::select(triggers()), 0..4_usize);
    window.prop_filter_map("windows that overlap do not begin anew", |(assigner, trigger, lateness)| {
        let ((windows, gap, overlaps), (window, may_overlap)) = (assigner, trigger);
        let gap = gap.map(|gap| expression(&orders(), gap));
        let allowed_lateness_ms = [0, 1, 7, 100][lateness];
        let mut aggregates = window.aggregates.clone();
        aggregates.push(aggregate(&orders(), "total", AggregateFunction::Sum, Some("amount"), Type::Int));
        (may_overlap || !overlaps).then_some(Windowed {
            windows,
            gap,
            allowed_lateness_ms,
            aggregates,
            ..window
        })
    })
}

/// Rows whose times go on, and some that come late.
fn orders_in_disorder() -> impl Strategy<Value = Vec<Order>> {
    let order = ("[a-c]", 2..7_i64, 0..6_i64, prop_oneof![4 => 0..4_i64, 1 => 0..40_i64]);
    vec(order, 0..60).prop_map(|steps| {
        let mut time_ms = 20;
        let dated = steps.into_iter().map(|(key, amount, ahead_ms, behind_ms)| {
            time_ms += ahead_ms;
            (key, amount, time_ms - behind_ms)
        });
        dated.collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn rows_are_those_of_windows_that_keep_their_rows(
        window in assigned(),
        orders in orders_in_disorder(),
        crash in 0..60_usize,
    ) {
        let mut naive = Naive { window: &window, open: Vec::new(), watermark_ms: None, late: 0, made: Vec::new() };
        let mut clocked = Clocked::new(&window);
        // Early rows by a time come of all windows behind a crash, changed or not.
        let may_crash = !matches!(window.early, Some(EarlyFiring::EveryMs(..)));
        let mut late = 0;
        for (place, (key, amount, at_ms)) in orders.iter().enumerate() {
            if may_crash && place == crash {
                let mut other = pipeline(&window);
                hand_over(&mut *clocked.pipeline, &mut *other, |_| {});
                clocked.pipeline = other;
            }
            let batch = Batch::new(vec![super::order(key, &amount.to_string(), *at_ms)]);
            let Clocked { pipeline, staged } = &mut clocked;
            prop_assert_eq!(pipeline.process(batch.record(0), &Bump::new(), staged).unwrap(), Progress::Done);
            late += staged.counters.late.get("w").copied().unwrap_or(0);
            let mut rows = clocked.written();
            rows.sort();
            prop_assert_eq!(rows, naive.process(&(key.clone(), *amount, *at_ms)), "{} of {} at {}", place, key, at_ms);
        }
        prop_assert_eq!(late, naive.late);
        naive.watermark_ms = Some(1 << 40);
        naive.fire();
        prop_assert_eq!(clocked.pipeline.finish(&Bump::new(), &mut clocked.staged).unwrap(), Progress::Done);
        let mut rows = clocked.written();
        rows.sort();
        prop_assert_eq!(rows, naive.take());
    }
}
