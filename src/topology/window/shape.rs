//! Which windows an operator of a topology file has.

use std::sync::Arc;

use crate::expression::Expression;
use crate::record::Type;
use crate::topology::diagnostic::{Span, nearest};
use crate::topology::fingerprint::line;
use crate::topology::global::{GlobalWindows, read_count, read_global};
use crate::topology::plan::{WindowPlan, Windows};
use crate::topology::reader::{Fields, Reader};
use crate::topology::stream::Stream;
use crate::topology::yaml::{Data, Entry, Node};
use crate::window::{
    AlignedWindows, Calendar, CalendarUnit, PanedWindows, SessionWindows, TimeDomain, WindowKind,
};

/// The kinds of windows, and what they are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Tumbling,
    Sliding,
    Cumulative,
    Calendar,
    Session,
    Count,
    Global,
}

const SHAPES: [(&str, Shape); 7] = [
    ("tumbling", Shape::Tumbling),
    ("sliding", Shape::Sliding),
    ("cumulative", Shape::Cumulative),
    ("calendar", Shape::Calendar),
    ("session", Shape::Session),
    ("count", Shape::Count),
    ("global", Shape::Global),
];

const UNITS: [(&str, CalendarUnit); 5] = [
    ("day", CalendarUnit::Day),
    ("week", CalendarUnit::Week),
    ("month", CalendarUnit::Month),
    ("quarter", CalendarUnit::Quarter),
    ("year", CalendarUnit::Year),
];

/// A row belongs to at most so many windows: each is made of as many parts.
const OVERLAP_MAX: i64 = 1_440;

/// What `window` says.
pub(super) enum ReadWindows {
    /// A time closes them.
    OfTime(OfTime),
    /// None does.
    OfNoTime(GlobalWindows),
}

/// What it says of windows that a time closes.
pub(super) struct OfTime {
    pub windows: Windows,
    pub gap: Option<Arc<Expression>>,
    pub time: TimeDomain,
    pub allowed_lateness_ms: i64,
}

/// Whose time something goes by.
pub(in crate::topology) const TIMES: [(&str, TimeDomain); 2] =
    [("event", TimeDomain::Event), ("processing", TimeDomain::Processing)];

/// Reads `window`.
pub(super) fn read_windows(fields: &Fields, input: &Stream, reader: &mut Reader) -> Option<ReadWindows> {
    let help = "as in `window: { type: tumbling, size: 1m }`";
    let node = reader.required(fields, "window", help)?;
    let owner = fields.entry("window").map_or(fields.owner, |entry| entry.key_span);
    let inner = reader.fields(node, &format!("`window` of {}", fields.what), owner)?;
    let ty = reader
        .required(&inner, "type", "add `type: tumbling`")
        .and_then(|node| reader.choice(node, "a window's type", &SHAPES, &[]));
    match ty {
        Some(Shape::Session) => return read_sessions(&inner, input, reader).map(ReadWindows::OfTime),
        Some(Shape::Calendar) => return read_calendar(&inner, reader).map(ReadWindows::OfTime),
        Some(Shape::Count) => return Some(ReadWindows::OfNoTime(read_count(&inner, reader))),
        Some(Shape::Global) => return Some(ReadWindows::OfNoTime(read_global(&inner, reader))),
        _ => {}
    }
    let interval = match ty {
        Some(Shape::Sliding) => Some(("slide", "say how often a window begins, as in `slide: 10s`")),
        Some(Shape::Cumulative) => Some(("step", "say how much longer each window is, as in `step: 10s`")),
        _ => None,
    };
    let mut known = vec!["type", "time", "size", "offset", "allowed_lateness"];
    match ty {
        None => known.extend(["slide", "step", "gap", "unit", "time_zone"]),
        Some(_) => known.extend(interval.map(|(key, _)| key)),
    }
    reader.check_keys(&inner, &known);
    // Without the type nobody knows what else is missing.
    let ty = ty?;
    let size = read_length(&inner, "size", "give the window's length, as in `size: 1m`", reader);
    let interval = match interval {
        Some((key, help)) => read_length(&inner, key, help, reader).map(Some),
        None => Some(None),
    };
    let offset = match inner.get("offset") {
        Some(node) => reader.duration(node, "`offset`"),
        None => Some(0),
    };
    let within = read_time(&inner, reader);
    let (size, interval) = (size?, interval?);
    let windows = match (ty, interval) {
        (Shape::Sliding, Some(slide)) => AlignedWindows::sliding(size, slide),
        (Shape::Cumulative, Some(step)) => AlignedWindows::cumulative(size, step),
        _ => AlignedWindows::tumbling(size),
    };
    let offset = offset?;
    check_lengths(&inner, &windows, offset, reader)?;
    let (time, allowed_lateness_ms) = within?;
    let windows = Windows::Aligned(windows.with_offset(offset));
    Some(ReadWindows::OfTime(OfTime { windows, gap: None, time, allowed_lateness_ms }))
}

fn read_sessions(fields: &Fields, input: &Stream, reader: &mut Reader) -> Option<OfTime> {
    reader.check_keys(fields, &["type", "time", "gap", "allowed_lateness"]);
    let help = "say after which time without rows a session ends, as in `gap: 30m`";
    let within = read_time(fields, reader);
    let (least, gap) = match fields.entry("gap") {
        Some(entry) if matches!(entry.value.data, Data::Mapping(_)) => read_gaps(entry, input, reader)?,
        _ => (read_length(fields, "gap", help, reader)?, None),
    };
    let (time, allowed_lateness_ms) = within?;
    let windows = Windows::Session(SessionWindows::new(least));
    Some(OfTime { windows, gap, time, allowed_lateness_ms })
}

/// `{ of: …, min: 10s }`: gaps that rows have of their own, and the least that there can be, in milliseconds.
fn read_gaps(entry: &Entry, input: &Stream, reader: &mut Reader) -> Option<(i64, Option<Arc<Expression>>)> {
    let what = "a window's `gap`";
    let fields = reader.fields(&entry.value, what, entry.key_span)?;
    reader.check_keys(&fields, &["of", "min"]);
    let help = "as in `gap: { of: 'pause', min: 10s }`";
    let least = reader
        .required(&fields, "min", "say how long a gap is at least, as in `min: 10s`")
        .and_then(|node| reader.length(node, "the least gap", help));
    let of = reader.required(&fields, "of", help)?;
    let text = reader.code(of, "`of` of a window's `gap` must be an expression")?;
    let gap = input.compile_all(&text, reader)?;
    if gap.ty() != Type::Duration {
        let message = format!("{what} is of type {}, not duration", gap.ty());
        reader
            .problems
            .error(text.part(0, text.value.trim_end().chars().count()), message)
            .help("convert it, as in `duration(\"10m\")`");
        return None;
    }
    Some((least?, Some(Arc::new(gap))))
}

fn read_calendar(fields: &Fields, reader: &mut Reader) -> Option<OfTime> {
    reader.check_keys(fields, &["type", "time", "unit", "time_zone", "allowed_lateness"]);
    let unit = reader.required(fields, "unit", "say what a window is, as in `unit: day`");
    let unit = unit.and_then(|node| reader.choice(node, "a window's unit", &UNITS, &[]));
    let zone = match fields.get("time_zone") {
        Some(node) => read_time_zone(node, reader),
        None => Some("UTC".to_owned()),
    };
    let (time, allowed_lateness_ms) = read_time(fields, reader)?;
    let calendar = Calendar::new(unit?, &zone?)?;
    Some(OfTime { windows: Windows::Calendar(calendar), gap: None, time, allowed_lateness_ms })
}

/// The name of a time zone.
fn read_time_zone(node: &Node, reader: &mut Reader) -> Option<String> {
    let zone = reader.text(node, "a time zone")?;
    if Calendar::time_zones().any(|known| known == zone.value) {
        return Some(zone.value);
    }
    let help = match nearest(&zone.value, Calendar::time_zones()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "zones have the names of the IANA time zone database, as in `Europe/Berlin`".to_owned(),
    };
    reader.problems.error(zone.span, format!("there is no time zone `{}`", zone.value)).help(help);
    None
}

/// Whose time windows are cut from, and the allowed lateness in milliseconds.
fn read_time(fields: &Fields, reader: &mut Reader) -> Option<(TimeDomain, i64)> {
    let time = match fields.get("time") {
        Some(node) => reader.choice(node, "a window's time", &TIMES, &[]),
        None => Some(TimeDomain::default()),
    };
    let Some(node) = fields.get("allowed_lateness") else { return Some((time?, 0)) };
    let lateness = reader.duration(node, "`allowed_lateness`");
    if time == Some(TimeDomain::Processing) {
        refuse_in_processing_time("`allowed_lateness`", node.span, reader);
        return None;
    }
    Some((time?, lateness?))
}

/// Reports what only event time has.
pub(super) fn refuse_in_processing_time(what: &str, span: Span, reader: &mut Reader) {
    reader
        .problems
        .error(span, format!("{what} means nothing in processing time"))
        .help("a row happens when it is processed, so none comes late");
}

/// A length of more than 0, in milliseconds.
fn read_length(fields: &Fields, key: &str, help: &str, reader: &mut Reader) -> Option<i64> {
    let node = reader.required(fields, key, help)?;
    reader.length(node, &format!("a window's {key}"), help)
}

/// Whether the lengths of a window fit one another; reports it if not.
fn check_lengths(
    fields: &Fields,
    windows: &AlignedWindows,
    offset_ms: i64,
    reader: &mut Reader,
) -> Option<()> {
    let span = |key: &str| fields.get(key).map_or(fields.owner, |node| node.span);
    let (size_ms, period) = match windows.kind() {
        WindowKind::Tumbling { size_ms } => (size_ms, ("size", size_ms)),
        WindowKind::Sliding { size_ms, slide_ms } => (size_ms, ("slide", slide_ms)),
        WindowKind::Cumulative { size_ms, .. } => (size_ms, ("size", size_ms)),
    };
    if let WindowKind::Cumulative { size_ms, step_ms } = windows.kind()
        && size_ms % step_ms != 0
    {
        let (size, step) = (duration(size_ms), duration(step_ms));
        reader
            .problems
            .error(span("step"), format!("`size` ({size}) is not a multiple of `step` ({step})"))
            .help("the last of the growing windows must be as long as `size`");
        return None;
    }
    if windows.overlap() > OVERLAP_MAX {
        let overlap = windows.overlap();
        reader
            .problems
            .error(
                fields.owner,
                format!("each row would belong to {overlap} windows, more than {OVERLAP_MAX}"),
            )
            .help(format!("let windows of {} begin less often", duration(size_ms)));
        return None;
    }
    if offset_ms >= period.1 {
        let length = duration(period.1);
        reader
            .problems
            .error(span("offset"), format!("`offset` must be less than `{}` ({length})", period.0))
            .help("windows recur, so a larger offset is the same as a smaller one");
        return None;
    }
    Some(())
}

/// Windows as text, for people and for fingerprints: its form never changes.
pub(in crate::topology) fn description(window: &WindowPlan) -> String {
    let mut text = match &window.windows {
        Windows::Aligned(windows) => aligned_description(windows),
        Windows::Calendar(calendar) => calendar_description(calendar),
        Windows::Session(windows) => format!("session {}", duration(windows.gap_ms())),
    };
    if let Some(gap) = &window.gap {
        text.push_str(&format!(" at least, by {}", line(gap)));
    }
    if window.time == TimeDomain::Processing {
        text.push_str(" of processing time");
    }
    text
}

fn aligned_description(windows: &AlignedWindows) -> String {
    let mut text = match windows.kind() {
        WindowKind::Tumbling { size_ms } => format!("tumbling {}", duration(size_ms)),
        WindowKind::Sliding { size_ms, slide_ms } => {
            format!("sliding {} every {}", duration(size_ms), duration(slide_ms))
        }
        WindowKind::Cumulative { size_ms, step_ms } => {
            format!("cumulative {} by {}", duration(size_ms), duration(step_ms))
        }
    };
    if windows.offset_ms() != 0 {
        text.push_str(&format!(" offset {}", duration(windows.offset_ms())));
    }
    text
}

fn calendar_description(calendar: &Calendar) -> String {
    let unit = UNITS.iter().find(|(_, unit)| *unit == calendar.unit()).map_or("", |(name, _)| name);
    format!("calendar {unit} in {}", calendar.time_zone())
}

/// A duration in the largest unit that takes a whole number of it.
pub(in crate::topology) fn duration(ms: i64) -> String {
    const UNITS: [(i64, &str); 4] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    match UNITS.iter().find(|(unit, _)| ms != 0 && ms % unit == 0) {
        Some((unit, name)) => format!("{}{name}", ms / unit),
        None => format!("{ms}ms"),
    }
}
