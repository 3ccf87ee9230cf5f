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

/// Whether what windows of time tell can be taken back; reports it if not.
pub(super) fn check_changelog(span: Option<Span>, emits: &ReadEmit, reader: &mut Reader) -> Option<()> {
    let Some(span) = span else { return Some(()) };
    let (message, help) = match emits.emit {
        _ if emits.purge => (
            "windows that begin anew with early rows make no changelog",
            "their rows add up, so that none is taken back; without `purge` each takes the place of the one before",
        ),
        Emit::OnClose if emits.early.is_none() => (
            "with `emit: on_close` each row is made once, and there is nothing to take back",
            "say `emit: on_update` or `emit: on_time`, or leave `changelog` out",
        ),
        Emit::OnClose | Emit::OnTime | Emit::OnUpdate => return Some(()),
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
