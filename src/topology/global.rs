//! Windows that no time closes: of so many rows, and the one of all rows of a key.

use crate::operator::pane_bytes;
use crate::state::key::STATE_RESERVED_BYTES_MAX;
use crate::window::CountWindows;

use super::changelog::changelog_trigger;
use super::diagnostic::Span;
use super::fingerprint::line;
use super::operator::check_condition;
use super::plan::{AggregatePlan, FiresPlan, GlobalWindowPlan, OperatorKind, TriggerPlan};
use super::reader::{Fields, Reader};
use super::stream::Stream;
use super::window::duration;
use super::yaml::{Data, Entry};

/// What `window` says of such windows.
#[derive(Clone, Copy, Debug)]
pub(super) enum GlobalWindows {
    Count(CountWindows),
    Global,
}

impl GlobalWindows {
    /// What they are called in messages.
    fn name(self) -> &'static str {
        match self {
            GlobalWindows::Count(_) => "count windows",
            GlobalWindows::Global => "a global window",
        }
    }
}

/// `window: { type: count, size: 100, slide: 10 }`. What a mistake leaves open does not matter.
pub(super) fn read_count(fields: &Fields, reader: &mut Reader) -> GlobalWindows {
    check_window_keys(fields, "count windows", &["type", "size", "slide"], reader);
    let help = "say of how many rows a window is, as in `size: 100`";
    let size = reader.required(fields, "size", help);
    let size = size.and_then(|node| reader.int(node, "a count window's size", 1..=i32::MAX)).unwrap_or(1);
    let slide = fields.get("slide");
    let slide = slide.and_then(|node| reader.int(node, "a count window's slide", 1..=i32::MAX));
    GlobalWindows::Count(CountWindows::sliding(size.into(), slide.unwrap_or(size).into()))
}

/// `window: { type: global }`
pub(super) fn read_global(fields: &Fields, reader: &mut Reader) -> GlobalWindows {
    check_window_keys(fields, "a global window", &["type"], reader);
    GlobalWindows::Global
}

const NO_TIME: &str =
    "the rows of a key are taken in the order of their offsets, whatever their time: none comes late";

fn check_window_keys(fields: &Fields, name: &str, known: &[&str], reader: &mut Reader) {
    let of_time = ["time", "allowed_lateness"].into_iter().filter(|key| fields.get(key).is_some());
    let of_time: Vec<&str> = of_time.collect();
    of_time.iter().for_each(|key| refuse(fields.entry(key), name, NO_TIME, reader));
    reader.check_keys(fields, &[known, &of_time].concat());
}

/// Reports a key that such windows do not have.
fn refuse(entry: Option<&Entry>, name: &str, help: &str, reader: &mut Reader) {
    if let Some(entry) = entry {
        let message = format!("`{}` means nothing of {name}", entry.key);
        reader.problems.error(entry.key_span, message).help(help);
    }
}

/// Checks what is said beside `window`. `stream` has the rows that it makes.
pub(super) fn check_global_window(
    fields: &Fields,
    (key, windows, aggregates): (Option<Vec<usize>>, GlobalWindows, Option<Vec<AggregatePlan>>),
    changelog: Option<Span>,
    input: &Stream,
    stream: &Stream,
    reader: &mut Reader,
) -> Option<OperatorKind> {
    refuse(fields.entry("late"), windows.name(), NO_TIME, reader);
    let help = "say for how long a key is remembered, as in `ttl: 1d`, or leave it out: for ever";
    let ttl = match fields.get("ttl") {
        Some(node) => reader.length(node, "`ttl`", help).map(Some),
        None => Some(None),
    };
    let trigger = match windows {
        GlobalWindows::Count(windows) => {
            refuse(fields.entry("emit"), "count windows", "each makes a row when it is full", reader);
            check_panes(fields, &windows, aggregates.as_deref().unwrap_or_default(), reader);
            Some(TriggerPlan::Count(windows))
        }
        GlobalWindows::Global => read_trigger(fields, input, stream, reader),
    };
    let trigger = trigger.and_then(|trigger| changelog_trigger(trigger, changelog, reader));
    let (trigger, ttl_ms) = (trigger?, ttl?);
    let plan = GlobalWindowPlan { key: key?, trigger, aggregates: aggregates?, ttl_ms };
    Some(OperatorKind::GlobalWindow(plan))
}

/// Reports panes of a key that do not fit an entry.
fn check_panes(fields: &Fields, windows: &CountWindows, aggregates: &[AggregatePlan], reader: &mut Reader) {
    let (pane, panes) = (pane_bytes(aggregates), windows.panes());
    if windows.panes() == 1 || pane as i64 * panes <= STATE_RESERVED_BYTES_MAX as i64 {
        return;
    }
    let span = fields.entry("window").map_or(fields.owner, |entry| entry.value.span);
    let (rows, most) = (windows.pane_rows(), STATE_RESERVED_BYTES_MAX as i64 / pane as i64);
    let message = format!(
        "a window would be made of {panes} parts of {rows} {}, and with these aggregates there may be {most}",
        if rows == 1 { "row" } else { "rows" }
    );
    reader
        .problems
        .error(span, message)
        .help("a part is as many rows as divide `size` and `slide`: let that be more, or `size` less");
}

const EMIT_HELP: &str =
    "as in `emit: { rows: 100 }`, `{ when: 'status == \"done\"' }`, `{ having: 'total > 1000.0' }`";

/// `emit: on_update | { rows: 100 | when: … | having: …, purge: true }`
fn read_trigger(
    fields: &Fields,
    input: &Stream,
    stream: &Stream,
    reader: &mut Reader,
) -> Option<TriggerPlan> {
    reader.required(fields, "emit", &format!("say when it makes a row, {EMIT_HELP}"))?;
    let entry = fields.entry("emit")?;
    if !matches!(entry.value.data, Data::Mapping(_)) {
        // The others are mappings; here they only serve the help.
        let choices = ["on_update", "{ rows: … }", "{ when: … }", "{ having: … }"].map(|word| (word, ()));
        reader.choice(&entry.value, "`emit` of a global window", &choices, &[])?;
        return Some(TriggerPlan::Global { fires: FiresPlan::EveryRows(1), purge: false });
    }
    let inner = reader.fields(&entry.value, &format!("`emit` of {}", fields.what), entry.key_span)?;
    let mut known = vec!["rows", "when", "having", "purge"];
    for key in ["early", "then"].into_iter().filter(|key| inner.get(key).is_some()) {
        let no_end = "it has no end before which a row could be early";
        refuse(inner.entry(key), "a global window", no_end, reader);
        known.push(key);
    }
    reader.check_keys(&inner, &known);
    let purge = match inner.get("purge") {
        Some(node) => reader.bool(node, "`purge`"),
        None => Some(false),
    };
    let said: Vec<&Entry> = ["rows", "when", "having"].iter().filter_map(|key| inner.entry(key)).collect();
    let [said] = said[..] else {
        if let Some(second) = said.get(1) {
            let message = format!("{} has both `{}` and `{}`", inner.what, said[0].key, second.key);
            reader.problems.error(second.key_span, message).help("one of them says when it makes a row");
        } else if known.len() == 4 {
            let message = format!("{} does not say when", inner.what);
            reader.problems.error(inner.owner, message).help(EMIT_HELP);
        }
        return None;
    };
    let fires = match said.key.as_str() {
        "rows" => {
            let rows = reader.int(&said.value, "`rows`", 1..=i32::MAX);
            FiresPlan::EveryRows(rows?.into())
        }
        "when" => FiresPlan::When(check_condition(&said.value, "`when`", input, reader)?.into()),
        _ => FiresPlan::Having(check_condition(&said.value, "`having`", stream, reader)?.into()),
    };
    Some(TriggerPlan::Global { fires, purge: purge? })
}

/// Windows of rows as text, for people and for fingerprints: its form never changes.
pub(super) fn count_description(windows: &CountWindows) -> String {
    match (windows.size(), windows.slide()) {
        (size, slide) if size == slide => format!("count {size}"),
        (size, slide) => format!("count {size} every {slide}"),
    }
}

/// Such windows as text for people: what they are, when they make rows, how long keys are kept.
pub(super) fn global_description(window: &GlobalWindowPlan, key: &str) -> String {
    let (what, purge) = match &window.trigger {
        TriggerPlan::Count(windows) => (count_description(windows), false),
        TriggerPlan::Global { fires, purge } => {
            let fires = match fires {
                FiresPlan::EveryRows(1) => "after each row".to_owned(),
                FiresPlan::EveryRows(rows) => format!("after every {rows} rows"),
                FiresPlan::When(condition) => format!("when {}", line(condition)),
                FiresPlan::Having(condition) => format!("having {}", line(condition)),
            };
            (format!("global, {fires}"), *purge)
        }
        TriggerPlan::Changelog => ("global, a changelog after each row".to_owned(), false),
    };
    let purged = if purge { ", purged then" } else { "" };
    let kept = window.ttl_ms.map_or("for ever".to_owned(), |ttl_ms| format!("for {}", duration(ttl_ms)));
    let of = if key.is_empty() { "over all rows".to_owned() } else { format!("by {key}") };
    format!("{what}{purged}, {of}, kept {kept}")
}
