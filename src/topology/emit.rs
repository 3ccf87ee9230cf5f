//! When windows that a time closes emit rows.

use std::sync::Arc;

use crate::expression::Expression;
use crate::window::{EarlyFiring, TimeDomain};

use super::operator::check_condition;
use super::plan::Emit;
use super::reader::{Fields, Reader};
use super::stream::Stream;
use super::window::TIMES;
use super::yaml::{Data, Entry};

/// What `emit` says.
#[derive(Default)]
pub(super) struct ReadEmit {
    pub emit: Emit,
    pub early: Option<EarlyFiring>,
    pub early_when: Option<Arc<Expression>>,
    pub purge: bool,
    pub refine_every_ms: Option<i64>,
}

const EMITS: [(&str, Emit); 3] =
    [("on_close", Emit::OnClose), ("on_time", Emit::OnTime), ("on_update", Emit::OnUpdate)];

/// `on_close | on_time | on_update`, or
/// `{ early: { every: 10s }, then: on_close | on_time, purge: true, refinements: { every: 10s } }`.
pub(super) fn read_emit(fields: &Fields, input: &Stream, reader: &mut Reader) -> Option<ReadEmit> {
    let Some(entry) = fields.entry("emit") else { return Some(ReadEmit::default()) };
    if !matches!(entry.value.data, Data::Mapping(_)) {
        let emit = reader.choice(&entry.value, "`emit`", &EMITS, &["{ early: … }"])?;
        return Some(ReadEmit { emit, ..ReadEmit::default() });
    }
    let inner = reader.fields(&entry.value, &format!("`emit` of {}", fields.what), entry.key_span)?;
    reader.check_keys(&inner, &["early", "then", "purge", "refinements"]);
    let then = match inner.get("then") {
        // Rows on update are early enough.
        Some(node) => reader.choice(node, "`then`", &EMITS[..2], &[]),
        None => Some(Emit::default()),
    };
    let purge = match inner.get("purge") {
        Some(node) => reader.bool(node, "`purge`"),
        None => Some(false),
    };
    let help = "as in `emit: { early: { every: 10s } }`, `{ early: { rows: 100 } }`, or `{ early: { when: 'urgent' } }`";
    let refine_every_ms = match inner.entry("refinements") {
        Some(entry) => read_refinements(entry, then, reader).map(Some),
        None => Some(None),
    };
    // Late rows make some as well.
    let refines = purge == Some(true) && then == Some(Emit::OnTime);
    let early = match inner.entry("refinements") {
        None if !refines => Some(reader.required(&inner, "early", help)?),
        _ => inner.get("early"),
    };
    let (early, early_when) = match early {
        Some(early) => {
            let early = reader.fields(early, &format!("`early` of {}", fields.what), entry.key_span)?;
            let (early, when) = read_early(&early, help, input, reader)?;
            (Some(early), when)
        }
        None => (None, None),
    };
    let (purge, refine_every_ms) = (purge?, refine_every_ms?);
    Some(ReadEmit { emit: then?, early, early_when, purge, refine_every_ms })
}

/// `refinements: { every: 10s }`, in milliseconds.
fn read_refinements(entry: &Entry, then: Option<Emit>, reader: &mut Reader) -> Option<i64> {
    let help = "as in `refinements: { every: 10s }`";
    let fields = reader.fields(&entry.value, "`refinements`", entry.key_span)?;
    reader.check_keys(&fields, &["every"]);
    if then == Some(Emit::OnClose) {
        let message = "`refinements` are made after the rows of `then: on_time`";
        reader.problems.error(entry.key_span, message).help("add `then: on_time`");
    }
    let every = reader.required(&fields, "every", help)?;
    reader.length(every, "`every`", help)
}

/// `{ every: 10s, time: processing | event }`, `{ rows: 100 }` or `{ when: … }`
fn read_early(
    fields: &Fields,
    help: &str,
    input: &Stream,
    reader: &mut Reader,
) -> Option<(EarlyFiring, Option<Arc<Expression>>)> {
    reader.check_keys(fields, &["every", "rows", "when", "time"]);
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
    if let Some(time) = fields.entry("time").filter(|_| said.key != "every") {
        let message = format!("early rows by `{}` go by no time", said.key);
        reader.problems.error(time.key_span, message).help("`time` is that of `every`");
        return None;
    }
    Some(match said.key.as_str() {
        "every" => {
            let time = match fields.get("time") {
                Some(node) => reader.choice(node, "`time`", &TIMES, &[]),
                None => Some(TimeDomain::Processing),
            };
            let every_ms = reader.length(&said.value, "`every`", help)?;
            (EarlyFiring::EveryMs(every_ms, time?), None)
        }
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
