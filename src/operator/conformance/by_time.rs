//! Windows that make some rows now and then: which they make depends on what a process knows, what they tell in the end does
//! not.

use std::collections::{BTreeMap, BTreeSet};

use super::super::tests::changelog::{applied, counted};
use super::*;
use crate::window::{PanedWindows, TimeDomain};

fn text(row: &OutputRecord) -> String {
    String::from_utf8(row.value.clone().unwrap_or_default()).unwrap()
}

/// The same of windows with early rows by the watermark: a process that does not know what has changed makes more of these.
fn conforms_but_for_early(make: &Make, inputs: Vec<Input>) {
    let inputs = numbered(inputs);
    let expected = Run::new(make, WHOLE).run(&inputs);
    let without_early = |(mut rows, counts): (Vec<OutputRecord>, [u64; 3])| {
        rows.retain(|row| !text(row).contains("\"early\":true"));
        (rows, counts)
    };
    for cut in cuts() {
        // What is being made is kept in memory.
        if cut.after == After::Eviction && cut.rows.min(cut.rows_per_call) < usize::MAX {
            continue;
        }
        let found = Run::new(make, cut).run(&inputs);
        if cut.after == After::Nothing {
            assert_eq!(found, expected, "{cut:?} of {inputs:?}");
        } else {
            let [found, expected] = [found, expected.clone()].map(without_early);
            assert_eq!(found, expected, "{cut:?} of {inputs:?}");
        }
    }
}

/// What windows with refinements tell.
#[derive(Debug, PartialEq)]
struct Told {
    /// What they make on time, and late rows, in their order.
    others: Vec<OutputRecord>,
    late: u64,
    /// The last row of each key and window, whether it is a refinement or not.
    last: BTreeMap<Kept, String>,
}

/// A key, the begin and the end of a window.
type Kept = (String, i64, i64);

const REFINEMENT: &str = ",\"mark\":true}";

/// Of a run's results, and the refinements. `join`: windows become parts of others, whose rows tell of them.
fn told((rows, [late, ..]): (Vec<OutputRecord>, [u64; 3]), join: bool) -> (Told, BTreeSet<String>) {
    let mut told = Told { others: Vec::new(), late, last: BTreeMap::new() };
    let mut refinements = BTreeSet::new();
    for row in rows {
        let value = text(&row);
        if &*row.topic == "out" {
            let json: serde_json::Value = serde_json::from_str(&value).unwrap();
            let number = |name: &str| json[name].as_i64().unwrap();
            let window = (json["customer"].to_string(), number("window_start"), number("window_end"));
            let is_part = |(key, start_ms, end_ms): &Kept| {
                *key == window.0 && *start_ms >= window.1 && *end_ms <= window.2
            };
            told.last.retain(|part, _| !join || !is_part(part));
            told.last.insert(window, value.replace(REFINEMENT, ",\"mark\":false}"));
        }
        if value.ends_with(REFINEMENT) {
            refinements.insert(value);
        } else {
            told.others.push(row);
        }
    }
    (told, refinements)
}

/// Windows that make refinements by the clock tell what those tell in the end that make one after each late row, and each
/// tells what its window held at some time.
fn refines(window: &Windowed, refine_every_ms: i64, inputs: Vec<Input>) {
    let inputs = numbered(inputs);
    let join = matches!(window.windows, Windows::Session(_));
    let makes = |window: Windowed| move || windowed_as(&window);
    let (expected, each) = told(Run::new(&makes(window.clone()), WHOLE).run(&inputs), join);
    let on_time = expected.others.iter().map(|row| text(row).replace(",\"mark\":false}", REFINEMENT));
    let allowed: BTreeSet<String> = each.into_iter().chain(on_time).collect();
    let make = makes(Windowed { refine_every_ms: Some(refine_every_ms), ..window.clone() });
    for cut in cuts() {
        // Who dies with each row, and does not know which it has made, comes to no end.
        if cut.after == After::Restore && cut.rows.min(cut.rows_per_call) < usize::MAX {
            continue;
        }
        let (found, refinements) = told(Run::new(&make, cut).run(&inputs), join);
        assert_eq!(found, expected, "{cut:?} of {inputs:?}");
        let other: Vec<&String> = refinements.difference(&allowed).collect();
        assert!(other.is_empty(), "{other:?} of what no window held: {cut:?} of {inputs:?}");
    }
}

/// A changelog that tells at times what has changed comes to what its windows hold in the end, however it is cut; and tells of each
/// what it held at some time.
fn comes_to_what_windows_hold(window: &Windowed, inputs: Vec<Input>) {
    let inputs = numbered(inputs);
    let written = |window: &Windowed, cut: Cut| -> Vec<String> {
        let make = {
            let window = window.clone();
            move || windowed_as(&window)
        };
        let (rows, _) = Run::new(&make, cut).run(&inputs);
        rows.iter().filter(|row| &*row.topic == "out").map(text).collect()
    };
    let plain = Windowed { changelog: false, early: None, refine_every_ms: None, ..window.clone() };
    let last = counted(written(&Windowed { emit: EmitRows::OnClose, ..plain.clone() }, WHOLE));
    let updates = written(&Windowed { emit: EmitRows::OnUpdate, ..plain }, WHOLE);
    let held: BTreeSet<&str> = updates.iter().map(|row| row.rsplit_once(",\"mark\"").unwrap().0).collect();
    for cut in cuts() {
        let in_parts = cut.rows.min(cut.rows_per_call) < usize::MAX;
        match cut.after {
            // Who dies with each window that is looked at never comes to the last one.
            After::Restore if in_parts && window.refine_every_ms.is_some() => continue,
            // What is being made is kept in memory.
            After::Eviction if in_parts && window.early.is_some() => continue,
            _ => {}
        }
        let changelog = written(window, cut);
        assert_eq!(applied(&changelog), last, "{cut:?} of {inputs:?}: {changelog:#?}");
        let told = changelog.iter().map(|row| row.rsplit_once(",\"op\"").unwrap().0);
        told.for_each(|row| assert!(held.contains(row), "{row} of {cut:?} of {inputs:?}"));
    }
}

/// Aggregates that take any value, and in any parts.
fn safe_aggregates() -> Vec<AggregatePlan> {
    let is_safe =
        |plan: &AggregatePlan| ["rows", "least", "last", "first", "newest", "about"].contains(&&*plan.name);
    all_aggregates().into_iter().filter(is_safe).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn windows_with_early_rows_by_the_watermark_conform(
        windows in prop_oneof![Just(tumbling(10)), Just(session(4))],
        every_ms in 1..20_i64,
        emit in prop_oneof![Just(EmitRows::OnClose), Just(EmitRows::OnTime)],
        inputs in vec(input(), 0..40),
    ) {
        let early = Some(EarlyFiring::EveryMs(every_ms, TimeDomain::Event));
        let window = Windowed { early, windows, ..window(emit) };
        conforms_but_for_early(&move || windowed_as(&window), inputs);
    }

    #[test]
    fn windows_with_refinements_by_the_clock_conform(
        windows in prop_oneof![
            Just(tumbling(10)),
            Just(sliding(12, 4)),
            Just(Windows::Aligned(AlignedWindows::sliding(10, 4).with_offset(3))),
            Just(Windows::Aligned(AlignedWindows::cumulative(15, 5).with_offset(2))),
            Just(session(3)),
            Just(session(10)),
        ],
        every_ms in 1..100_i64,
        allowed_lateness_ms in prop_oneof![Just(3), Just(12), Just(25)],
        inputs in vec(input(), 0..40),
    ) {
        let aggregates = safe_aggregates();
        let window = Windowed { windows, allowed_lateness_ms, aggregates, ..window(EmitRows::OnTime) };
        refines(&window, every_ms, inputs);
    }

    #[test]
    fn changelogs_of_early_rows_and_refinements_by_time_come_to_what_windows_hold(
        (windows, gap) in prop_oneof![
            Just((tumbling(10), None)),
            Just((sliding(12, 4), None)),
            Just((Windows::Aligned(AlignedWindows::sliding(10, 4).with_offset(3)), None)),
            Just((Windows::Aligned(AlignedWindows::cumulative(15, 5).with_offset(2)), None)),
            Just((session(3), None)),
            Just((session(10), None)),
            Just((session(3), Some("duration(3 + int(at) % 20)"))),
        ],
        early in prop_oneof![
            Just(None),
            (1..20_i64).prop_map(|every_ms| Some(EarlyFiring::EveryMs(every_ms, TimeDomain::Event))),
            (1..60_i64).prop_map(|every_ms| Some(EarlyFiring::EveryMs(every_ms, TimeDomain::Processing))),
            (1..4_i64).prop_map(|rows| Some(EarlyFiring::EveryRows(rows))),
        ],
        on_time in any::<bool>(),
        refine_every_ms in prop_oneof![Just(None), (1..100_i64).prop_map(Some)],
        allowed_lateness_ms in prop_oneof![Just(3), Just(12), Just(25)],
        inputs in vec(input(), 0..40),
    ) {
        let overlaps = matches!(&windows, Windows::Aligned(windows) if windows.overlap() > 1);
        let early = early.filter(|_| !overlaps);
        // Something has to be told, and taken back.
        let on_time = on_time || early.is_none();
        let refine_every_ms = refine_every_ms.or(early.is_none().then_some(40)).filter(|_| on_time);
        let emit = if on_time { EmitRows::OnTime } else { EmitRows::OnClose };
        let (gap, aggregates) = (gap.map(|gap| expression(&orders(), gap)), safe_aggregates());
        let changelog = true;
        let window = Windowed { windows, gap, early, refine_every_ms, changelog, allowed_lateness_ms, aggregates, ..window(emit) };
        comes_to_what_windows_hold(&window, inputs);
    }
}
