//! When windows that a time closes emit rows.

use std::sync::Arc;

use crate::expression::Expression;
use crate::window::EarlyFiring;

use super::operator::check_condition;
use super::plan::Emit;
use super::reader::{Fields, Reader};
use super::stream::Stream;
use super::yaml::{Data, Entry};

/// What `emit` says.
#[derive(Default)]
pub(super) struct ReadEmit {
    pub emit: Emit,
    pub early: Option<EarlyFiring>,
    pub early_when: Option<Arc<Expression>>,
    pub purge: bool,
}

const EMITS: [(&str, Emit); 3] =
    [("on_close", Emit::OnClose), ("on_time", Emit::OnTime), ("on_update", Emit::OnUpdate)];

/// `on_close | on_time | on_update | { early: { every: 10s }, then: on_close | on_time, purge: true }`.
pub(super) fn read_emit(fields: &Fields, input: &Stream, reader: &mut Reader) -> Option<ReadEmit> {
    let Some(entry) = fields.entry("emit") else { return Some(ReadEmit::default()) };
    if !matches!(entry.value.data, Data::Mapping(_)) {
        let emit = reader.choice(&entry.value, "`emit`", &EMITS, &["{ early: … }"])?;
        return Some(ReadEmit { emit, ..ReadEmit::default() });
    }
    let inner = reader.fields(&entry.value, &format!("`emit` of {}", fields.what), entry.key_span)?;
    reader.check_keys(&inner, &["early", "then", "purge"]);
    let then = match inner.get("then") {
        // Rows on update are early enough.
        Some(node) => reader.choice(node, "`then`", &EMITS[..2], &[]),
        None => Some(Emit::default()),
    };
    let purge = match inner.entry("purge") {
        Some(entry) => read_purge(entry, then, reader),
        None => Some(false),
    };
    let help = "as in `emit: { early: { every: 10s } }`, `{ early: { rows: 100 } }`, or `{ early: { when: 'urgent' } }`";
    let early = reader.required(&inner, "early", help)?;
    let early = reader.fields(early, &format!("`early` of {}", fields.what), entry.key_span)?;
    let (early, early_when) = read_early(&early, help, input, reader)?;
    Some(ReadEmit { emit: then?, early: Some(early), early_when, purge: purge? })
}

fn read_purge(entry: &Entry, then: Option<Emit>, reader: &mut Reader) -> Option<bool> {
    let purge = reader.bool(&entry.value, "`purge`")?;
    if purge && then == Some(Emit::OnTime) {
        reader
            .problems
            .error(
                entry.key_span,
                "windows that begin anew with early rows make their last one when they close",
            )
            .help("leave `then` out, which is `on_close`; or `purge`");
    }
    Some(purge)
}

/// `{ every: 10s | rows: 100 | when: … }`
fn read_early(
    fields: &Fields,
    help: &str,
    input: &Stream,
    reader: &mut Reader,
) -> Option<(EarlyFiring, Option<Arc<Expression>>)> {
    reader.check_keys(fields, &["every", "rows", "when"]);
    let said: Vec<&Entry> = ["every", "rows", "when"].iter().filter_map(|key| fields.entry(key)).collect();
    let [said] = said[..] else {
        match said.get(1) {
            Some(second) => {
                let message = format!("{} has both `{}` and `{}`", fields.what, said[0].key, second.key);
                let help = "early rows come by time, by number or by a condition";
                reader.problems.error(second.key_span, message).help(help);
            }
            None => drop(reader.required(fields, "every", help)),
        }
        return None;
    };
    Some(match said.key.as_str() {
        "every" => (EarlyFiring::EveryMs(reader.length(&said.value, "`every`", help)?), None),
        "rows" => {
            let rows = reader.int(&said.value, "`rows`", 1..=i32::MAX)?;
            (EarlyFiring::EveryRows(rows.into()), None)
        }
        _ => {
            let when = check_condition(&said.value, "`when`", input, reader)?;
            (EarlyFiring::When, Some(Arc::new(when)))
        }
    })
}
