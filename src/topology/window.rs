//! Window operators of a topology file.

use std::sync::Arc;

use crate::expression::Expression;
use crate::record::{Field, FieldForm, Type};
use crate::window::{
    AlignedWindows, Calendar, CalendarUnit, EarlyFiring, PanedWindows, SessionWindows, TimeDomain, WindowKind,
};

use super::aggregate::{check_aggregates, has_bounded_aggregate};
use super::changelog::{add_op, check_changelog, read_changelog};
use super::diagnostic::{Span, nearest};
use super::emit::{ReadEmit, read_emit};
use super::fingerprint::line;
use super::global::{GlobalWindows, check_global_window, read_count, read_global};
use super::operator::{RepartitionDraft, check_key_by};
use super::plan::{Emit, Late, OperatorKind, Phase, WindowPlan, Windows, marks};
use super::reader::{Fields, Reader};
use super::stream::Stream;
use super::two_phase::{LocalDraft, check_two_phase, split};
use super::yaml::{Data, Entry, Node};

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

/// With rows on update a row of the input makes at most so many: a checkpoint holds them all.
const UPDATES_MAX: i64 = 100;

/// A window operator as it was checked.
pub(super) struct WindowDraft {
    /// `None` if a mistake leaves nothing to build.
    pub kind: Option<OperatorKind>,
    /// The rows that it emits.
    pub stream: Stream,
    /// The key by which its input has to be repartitioned first; `None`: all rows of a key lie in one partition.
    pub repartition: Option<RepartitionDraft>,
    /// The step before that, if there are two.
    pub local: Option<LocalDraft>,
    /// Where its late topic stands.
    pub late_span: Option<Span>,
}

/// Checks a window operator.
pub(super) fn check_window(fields: &Fields, input: &Stream, reader: &mut Reader) -> WindowDraft {
    let mut stream = Stream { source: input.source.clone(), partitioning_broken: true, ..Stream::default() };
    let key = check_key(fields, input, &mut stream, reader);
    let mut repartition = None;
    let repartitioned;
    let rows = input;
    let mut input = input;
    if let Some((slots, names)) = &key {
        if !input.is_covered_by(names) {
            let partitions = names.is_empty().then_some(1);
            repartition = Some(RepartitionDraft { key: slots.clone(), partitions });
            repartitioned = input.repartitioned(names);
            input = &repartitioned;
        }
        stream.partitioning_broken = input.partitioning_broken;
        stream.partitioned_by = input.partitioned_by.clone();
        for (_, carried) in &mut stream.partitioned_by {
            carried.retain(|name| names.contains(name));
        }
    }
    let key_schema = stream.schema.clone();
    let key = key.map(|(slots, _)| slots);
    let windows = read_windows(fields, input, reader);
    let of_time = match &windows {
        Some(ReadWindows::OfNoTime(_)) => None,
        _ => Some(OfWhen { emits: read_emit(fields, input, reader), late: read_late(fields, reader) }),
    };
    let two_phase = match (&windows, &of_time, &key) {
        (Some(windows), of_time, Some(key)) => {
            let against = against_two_phase(windows, of_time.as_ref(), repartition.is_some());
            let by_itself = key.is_empty() && !has_bounded_aggregate(fields, reader);
            check_two_phase(fields, by_itself, against, reader)
        }
        _ => false,
    };
    for name in ["window_start", "window_end"] {
        let field = plain(name, Type::Timestamp, false);
        stream.add(name, Some(field), fields.owner, &fields.what, reader);
    }
    // The first of two steps sees rows as they are before they change keys.
    let aggregates = check_aggregates(fields, if two_phase { rows } else { input }, &mut stream, reader);
    let changelog = read_changelog(fields, reader);
    let windows = match windows {
        Some(ReadWindows::OfTime(windows)) => Some(windows),
        Some(ReadWindows::OfNoTime(windows)) => {
            let kind =
                check_global_window(fields, (key, windows, aggregates), changelog, input, &stream, reader);
            if let Some(span) = changelog {
                add_op(fields, span, &mut stream, reader);
            }
            return WindowDraft { kind, stream, repartition, local: None, late_span: None };
        }
        None => None,
    };
    if let Some(entry) = fields.entry("ttl").filter(|_| windows.is_some()) {
        let message = "`ttl` is of count and global windows";
        reader.problems.error(entry.key_span, message).help("a window of time goes when it has closed");
    }
    let OfWhen { emits, late: (late, late_span) } = of_time.unwrap_or_default();
    if let Some(span) = changelog {
        add_op(fields, span, &mut stream, reader);
    }
    let marked = emits.iter().filter(|_| changelog.is_none());
    for (mark, ty) in marked.flat_map(|ReadEmit { emit, early, .. }| marks(*emit, *early, false)) {
        let span = fields.entry("emit").map_or(fields.owner, |entry| entry.value.span);
        stream.add(mark, Some(plain(mark, ty, false)), span, &fields.what, reader);
    }
    let plan = (|| {
        let OfTime { windows, gap, time, allowed_lateness_ms } = windows?;
        let emits = emits?;
        check_changelog(changelog, &emits, reader)?;
        let (ReadEmit { emit, early, early_when, purge, refine_every_ms }, changelog) =
            (emits, changelog.is_some());
        check_time(fields, time, emit, reader)?;
        check_early(fields, (&windows, time), early, reader)?;
        check_updates(fields, &windows, (emit, changelog), allowed_lateness_ms, reader)?;
        Some(WindowPlan {
            key: key?,
            windows,
            gap,
            time,
            allowed_lateness_ms,
            aggregates: aggregates?,
            emit,
            changelog,
            early,
            early_when,
            purge,
            refine_every_ms,
            late,
            phase: Phase::Whole,
        })
    })();
    let (plan, local) = match (plan, &mut repartition) {
        (Some(plan), Some(repartition)) if two_phase => {
            let (first, second) = split(plan, key_schema, repartition);
            (Some(second), Some(first))
        }
        (plan, _) => (plan, None),
    };
    WindowDraft { kind: plan.map(OperatorKind::Window), stream, repartition, local, late_span }
}

/// What is said beside windows that a time closes: when they emit rows, and where late ones go.
#[derive(Default)]
struct OfWhen {
    emits: Option<ReadEmit>,
    late: (Late, Option<Span>),
}

/// What stands against two steps, if anything does. `of_time` is what is said of windows that a time closes.
fn against_two_phase(windows: &ReadWindows, of_time: Option<&OfWhen>, rekeys: bool) -> Option<&'static str> {
    let (ReadWindows::OfTime(windows), Some(OfWhen { emits, late: (late, _) })) = (windows, of_time) else {
        return Some("such windows take rows one by one");
    };
    // A refinement is of a row, unless they come by the clock.
    let sees_rows = |emits: &ReadEmit| match emits.emit {
        Emit::OnTime if emits.refine_every_ms.is_none() => true,
        emit => emit == Emit::OnUpdate || emits.early.is_some(),
    };
    match windows.windows {
        _ if !rekeys => Some("all rows of a key lie in one partition already"),
        Windows::Session(_) => Some("sessions depend on all rows of a key"),
        _ if windows.time == TimeDomain::Processing => Some("rows happen when they arrive"),
        _ if emits.as_ref().is_some_and(sees_rows) => Some("rows are to come when each row does"),
        _ if *late != Late::Drop => Some("late rows are to be written, and are not there any more"),
        _ => None,
    }
}

/// A field that is computed.
pub(super) fn plain(name: &str, ty: Type, nullable: bool) -> Field {
    Field { name: name.to_owned(), ty, nullable, form: FieldForm::Plain }
}

/// The key's slots. Its fields become the first of the window's rows; they are never null there.
fn check_key(
    fields: &Fields,
    input: &Stream,
    stream: &mut Stream,
    reader: &mut Reader,
) -> Option<(Vec<usize>, Vec<String>)> {
    let help =
        "name the fields by which rows are grouped, as in `key_by: [customer]`; `[]`: all rows are one group";
    let key_by = fields.get("key_by").map(|node| &node.data);
    if matches!(key_by, Some(Data::Sequence(items)) if items.is_empty()) {
        return Some((Vec::new(), Vec::new()));
    }
    let (slots, names) = check_key_by(fields, input, help, reader);
    for (name, slot) in names.iter().zip(&slots) {
        let field = slot.map(|slot| Field { nullable: false, ..input.schema.fields[slot].clone() });
        stream.add(&name.value, field, name.span, &fields.what, reader);
    }
    let slots: Option<Vec<usize>> = slots.into_iter().collect();
    let slots = slots.filter(|slots| !slots.is_empty())?;
    Some((slots, names.into_iter().map(|name| name.value).collect()))
}

/// What `window` says.
enum ReadWindows {
    /// A time closes them.
    OfTime(OfTime),
    /// None does.
    OfNoTime(GlobalWindows),
}

/// What it says of windows that a time closes.
struct OfTime {
    windows: Windows,
    gap: Option<Arc<Expression>>,
    time: TimeDomain,
    allowed_lateness_ms: i64,
}

/// Whose time something goes by.
pub(super) const TIMES: [(&str, TimeDomain); 2] =
    [("event", TimeDomain::Event), ("processing", TimeDomain::Processing)];

fn read_windows(fields: &Fields, input: &Stream, reader: &mut Reader) -> Option<ReadWindows> {
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

/// Whether what is said beside `window` can be of its time; reports it if not.
fn check_time(fields: &Fields, time: TimeDomain, emit: Emit, reader: &mut Reader) -> Option<()> {
    if time == TimeDomain::Event {
        return Some(());
    }
    if let Some(node) = fields.get("late") {
        refuse_in_processing_time("`late`", node.span, reader);
        return None;
    }
    if let Some(node) = fields.get("emit").filter(|_| emit == Emit::OnTime) {
        refuse_in_processing_time("`emit: on_time`", node.span, reader);
        return None;
    }
    Some(())
}

fn refuse_in_processing_time(what: &str, span: Span, reader: &mut Reader) {
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

/// Whether a row may make as many rows as it does when windows emit on update or, after their ends, on time; reports
/// it if not.
fn check_updates(
    fields: &Fields,
    windows: &Windows,
    (emit, changelog): (Emit, bool),
    allowed_lateness_ms: i64,
    reader: &mut Reader,
) -> Option<()> {
    let Windows::Aligned(windows) = windows else { return Some(()) };
    let rows = match emit {
        Emit::OnClose => 0,
        // Of those that have ended, the ones that are not closed.
        Emit::OnTime => windows.overlap().min(allowed_lateness_ms / windows.step_ms() + 1),
        Emit::OnUpdate => windows.overlap(),
    };
    // Of a changelog one takes back what was told.
    let (rows, each, or) = match changelog {
        true => (2 * rows, "two", "leave `changelog` out"),
        false => (rows, "one", "emit `on_close`"),
    };
    if rows <= UPDATES_MAX {
        return Some(());
    }
    let span = fields.entry("emit").map_or(fields.owner, |entry| entry.value.span);
    reader
        .problems
        .error(
            span,
            format!("a row could make {rows} rows at once, {each} for each window, more than {UPDATES_MAX}"),
        )
        .help(format!("let windows begin less often, or {or}"));
    None
}

/// Whether windows can emit early rows; reports it if not.
fn check_early(
    fields: &Fields,
    (windows, time): (&Windows, TimeDomain),
    early: Option<EarlyFiring>,
    reader: &mut Reader,
) -> Option<()> {
    match windows {
        _ if time == TimeDomain::Processing
            && matches!(early, Some(EarlyFiring::EveryMs(_, TimeDomain::Event))) =>
        {
            let span = fields.entry("emit").map_or(fields.owner, |entry| entry.value.span);
            let message = "`early` by event time means nothing in processing time";
            reader
                .problems
                .error(span, message)
                .help("leave `time: event` out: the clock is the watermark there");
            None
        }
        Windows::Aligned(windows) if early.is_some() && windows.overlap() > 1 => {
            let span = fields.entry("emit").map_or(fields.owner, |entry| entry.value.span);
            reader
                .problems
                .error(span, "windows that overlap emit no early rows")
                .help("a row of the input belongs to several; let a window begin, or a step end, more often");
            None
        }
        _ => Some(()),
    }
}

/// Windows as text, for people and for fingerprints: its form never changes.
pub(super) fn description(window: &WindowPlan) -> String {
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
pub(super) fn duration(ms: i64) -> String {
    const UNITS: [(i64, &str); 4] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    match UNITS.iter().find(|(unit, _)| ms != 0 && ms % unit == 0) {
        Some((unit, name)) => format!("{}{name}", ms / unit),
        None => format!("{ms}ms"),
    }
}

/// `late: drop | { topic: … }`, and where the topic stands.
pub(super) fn read_late(fields: &Fields, reader: &mut Reader) -> (Late, Option<Span>) {
    let Some(entry) = fields.entry("late") else { return (Late::Drop, None) };
    if !matches!(entry.value.data, Data::Mapping(_)) {
        reader.choice(&entry.value, "`late`", &[("drop", ()), ("{ topic: … }", ())], &[]);
        return (Late::Drop, None);
    }
    let what = format!("`late` of {}", fields.what);
    let Some(inner) = reader.fields(&entry.value, &what, entry.key_span) else { return (Late::Drop, None) };
    reader.check_keys(&inner, &["topic"]);
    let topic = reader.required(&inner, "topic", "name the topic that takes late records");
    match topic.and_then(|node| reader.topic(node)) {
        Some(topic) => (Late::Topic(topic.value), Some(topic.span)),
        None => (Late::Drop, None),
    }
}
