//! Windows whose rows are a changelog.

use super::diagnostic::Span;
use super::emit::ReadEmit;
use super::plan::{Emit, FiresPlan, OP_FIELD, TriggerPlan};
use super::reader::{Fields, Reader};
use super::stream::Stream;
use super::window::plain;
use crate::record::Type;

/// `changelog: true`, and where that stands.
pub(super) fn read_changelog(fields: &Fields, reader: &mut Reader) -> Option<Span> {
    let entry = fields.entry("changelog")?;
    reader.bool(&entry.value, "`changelog`").filter(|says| *says).map(|_| entry.key_span)
}

/// Adds the field that says what a row does.
pub(super) fn add_op(fields: &Fields, span: Span, stream: &mut Stream, reader: &mut Reader) {
    stream.add(OP_FIELD, Some(plain(OP_FIELD, Type::String, false)), span, &fields.what, reader);
}

/// Whether what windows of time tell can be taken back; reports it if not. `joins_any`: a row may join any number of sessions.
pub(super) fn check_changelog(
    span: Option<Span>,
    emits: &ReadEmit,
    joins_any: bool,
    reader: &mut Reader,
) -> Option<()> {
    let Some(span) = span else { return Some(()) };
    let (message, help) = match emits.emit {
        _ if emits.early.is_some() => (
            "windows with early rows make no changelog",
            "what an early row told is not kept, so that it cannot be taken back; `emit: on_update` makes a row after each",
        ),
        _ if emits.refine_every_ms.is_some() => (
            "windows with refinements by the clock make no changelog",
            "what the last one told is not kept, so that it cannot be taken back; `emit: on_time` makes one after each late row",
        ),
        Emit::OnClose => (
            "with `emit: on_close` each row is made once, and there is nothing to take back",
            "say `emit: on_update` or `emit: on_time`, or leave `changelog` out",
        ),
        _ if joins_any => (
            "sessions of rows with their own gaps make no changelog",
            "a row may join any number of them, whose rows would all be taken back at once; with one gap for all it joins two",
        ),
        Emit::OnTime | Emit::OnUpdate => return Some(()),
    };
    reader.problems.error(span, message).help(help);
    None
}

/// When a window makes rows that no time closes and whose rows are a changelog; reports it if they cannot be.
pub(super) fn changelog_trigger(
    trigger: TriggerPlan,
    span: Option<Span>,
    reader: &mut Reader,
) -> Option<TriggerPlan> {
    let Some(span) = span else { return Some(trigger) };
    let (message, help) = match trigger {
        TriggerPlan::Global { fires: FiresPlan::EveryRows(1), purge: false } | TriggerPlan::Changelog => {
            return Some(TriggerPlan::Changelog);
        }
        TriggerPlan::Global { purge: true, .. } => (
            "a global window that is purged makes no changelog",
            "its rows add up, so that none is taken back; `emit: on_update` makes rows that replace one another",
        ),
        TriggerPlan::Global { purge: false, .. } => (
            "a global window makes a changelog only with a row after each one",
            "what it told last is not kept, so that it cannot be taken back; say `emit: on_update`",
        ),
        TriggerPlan::Count(_) => (
            "count windows make no changelog",
            "each row is of other rows and made once, so that none is taken back",
        ),
    };
    reader.problems.error(span, message).help(help);
    None
}
