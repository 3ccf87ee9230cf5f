//! Window operators of a topology file.

mod shape;

use crate::record::{Field, FieldForm, Type};
use crate::window::{EarlyFiring, PanedWindows, TimeDomain};

use super::aggregate::{check_aggregates, has_bounded_aggregate};
use super::changelog::{add_op, check_changelog, read_changelog};
use super::diagnostic::Span;
use super::emit::{ReadEmit, read_emit};
use super::global::check_global_window;
use super::operator::{RepartitionDraft, check_key_by};
use super::plan::{Emit, Late, OperatorKind, Phase, WindowPlan, Windows, marks};
use super::reader::{Fields, Reader};
use super::stream::Stream;
use super::two_phase::{LocalDraft, check_two_phase, split};
use super::yaml::Data;
use shape::{OfTime, ReadWindows, read_windows, refuse_in_processing_time};
pub(super) use shape::{TIMES, description, duration};

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
    let changelog = read_changelog(fields, reader);
    let two_phase = match (&windows, &of_time, &key) {
        (Some(windows), of_time, Some(key)) => {
            let against = match changelog {
                Some(_) => Some("what was told is made of all rows of a key"),
                None => against_two_phase(windows, of_time.as_ref(), repartition.is_some()),
            };
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
    let rows = if two_phase { rows } else { input };
    let emits = of_time.as_ref().and_then(|of_time| of_time.emits.as_ref());
    let keeps_told = changelog.is_some()
        && emits.is_some_and(|emits| emits.early.is_some() || emits.refine_every_ms.is_some());
    let aggregates = check_aggregates(fields, rows, keeps_told, &mut stream, reader);
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
        check_early(fields, (&windows, time), (early, purge, changelog), reader)?;
        check_updates(fields, &windows, (emit, early, changelog), allowed_lateness_ms, reader)?;
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

/// Whether a row may make as many rows as it does when windows emit on update or, after their ends, on time; reports
/// it if not.
fn check_updates(
    fields: &Fields,
    windows: &Windows,
    (emit, early, changelog): (Emit, Option<EarlyFiring>, bool),
    allowed_lateness_ms: i64,
    reader: &mut Reader,
) -> Option<()> {
    let Windows::Aligned(windows) = windows else { return Some(()) };
    let of_rows = matches!(early, Some(EarlyFiring::EveryRows(_) | EarlyFiring::When));
    let rows = match emit {
        // Of those that have ended, the ones that are not closed, and of all others.
        Emit::OnTime | Emit::OnClose if of_rows => windows.overlap(),
        Emit::OnClose => 0,
        Emit::OnTime => windows.overlap().min(allowed_lateness_ms / windows.step_ms() + 1),
        Emit::OnUpdate => windows.overlap(),
    };
    // Of a changelog one takes back what was told.
    let (rows, each, or) = match changelog {
        true => (2 * rows, "two", "leave `changelog` out"),
        false if of_rows => (rows, "one", "emit early rows by time"),
        false if early.is_some() => (rows, "one", "leave `then: on_time` out"),
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

/// Whether windows can emit early rows, and begin anew; reports it if not.
fn check_early(
    fields: &Fields,
    (windows, time): (&Windows, TimeDomain),
    (early, purge, changelog): (Option<EarlyFiring>, bool, bool),
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
        Windows::Aligned(windows) if purge && windows.overlap() > 1 => {
            let span = fields.entry("emit").map_or(fields.owner, |entry| entry.value.span);
            reader
                .problems
                .error(span, "windows that overlap do not begin anew: they share what they hold")
                .help("leave `purge` out");
            None
        }
        Windows::Aligned(windows) if early.is_some() && changelog && windows.overlap() > 1 => {
            let span = fields.entry("changelog").map_or(fields.owner, |entry| entry.value.span);
            reader
                .problems
                .error(span, "windows that overlap make no changelog of early rows")
                .help("what an early row of one of them told is not kept; leave `early` or `changelog` out");
            None
        }
        _ => Some(()),
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
