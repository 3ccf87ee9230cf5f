//! Operators that remember something of each key: deduplications and lags.

use std::sync::Arc;

use crate::record::{Field, FieldForm};

use super::diagnostic::Span;
use super::operator::{RepartitionDraft, check_key_by};
use super::plan::{DeduplicatePlan, LagPlan, OperatorKind};
use super::reader::{Fields, Reader};
use super::stream::{Stream, check_field_name};
use super::window::read_late;

/// A keyed operator as it was checked.
pub(super) struct KeyedDraft {
    /// `None` if a mistake leaves nothing to build.
    pub kind: Option<OperatorKind>,
    /// The rows that it emits.
    pub stream: Stream,
    /// The key by which its input has to be repartitioned first; `None`: all rows of a key lie in one partition.
    pub repartition: Option<RepartitionDraft>,
    /// Where its late topic stands.
    pub late_span: Option<Span>,
}

/// Checks a deduplication.
pub(super) fn check_deduplicate(fields: &Fields, input: &Stream, reader: &mut Reader) -> KeyedDraft {
    let help = "name the fields in which duplicates are equal, as in `key_by: [order_id]`";
    let (key, repartition, stream) = check_key(fields, input, help, reader);
    let help = "say how far apart in event time rows are that repeat one another, as in `within: 1h`";
    let within = reader.required(fields, "within", help);
    let within = within.and_then(|node| reader.length(node, "`within`", help));
    let (late, late_span) = read_late(fields, reader);
    let plan = (|| Some(DeduplicatePlan { key: key?, within_ms: within?, late }))();
    KeyedDraft { kind: plan.map(OperatorKind::Deduplicate), stream, repartition, late_span }
}

/// Checks a lag.
pub(super) fn check_lag(fields: &Fields, input: &Stream, reader: &mut Reader) -> KeyedDraft {
    let help = "name the fields of which rows are compared with the one before, as in `key_by: [sensor]`";
    let (key, repartition, mut stream) = check_key(fields, input, help, reader);
    let help = "name new fields and what they had in the row before, as in `set: { previous: temperature }`";
    let mut values = Some(Vec::new());
    let rows = stream.clone();
    let entries = reader.required(fields, "set", help).and_then(|node| {
        let entries = reader.entries(node, "`set`")?;
        if entries.is_empty() {
            reader.problems.error(node.span, "`set` is empty").help(help);
        }
        Some(entries)
    });
    for entry in entries.unwrap_or_default() {
        check_field_name(&entry.key, entry.key_span, "choose another name", reader);
        let text = reader.code(&entry.value, &format!("`{}` must be an expression", entry.key));
        let expression = text.and_then(|text| rows.compile_all(&text, reader));
        // What is only a field is written in the form in which that was declared.
        let field = expression.as_ref().map(|expression| Field {
            name: entry.key.clone(),
            ty: expression.ty(),
            nullable: true,
            form: expression.as_field().map_or(FieldForm::Plain, |slot| rows.schema.fields[slot].form),
        });
        stream.add(&entry.key, field, entry.key_span, &fields.what, reader);
        match (expression, &mut values) {
            (Some(expression), Some(values)) => values.push(Arc::new(expression)),
            _ => values = None,
        }
    }
    let help = "say for how long a key is remembered, as in `ttl: 1d`, or leave it out: for ever";
    let ttl = match fields.get("ttl") {
        Some(node) => reader.length(node, "`ttl`", help).map(Some),
        None => Some(None),
    };
    let values = values.filter(|values| !values.is_empty());
    let plan = (|| Some(LagPlan { key: key?, values: values?, ttl_ms: ttl? }))();
    KeyedDraft { kind: plan.map(OperatorKind::Lag), stream, repartition, late_span: None }
}

/// The slots of the key, and the rows as they come to the operator: through a change of keys if those of a key may lie
/// in several partitions.
fn check_key(
    fields: &Fields,
    input: &Stream,
    help: &str,
    reader: &mut Reader,
) -> (Option<Vec<usize>>, Option<RepartitionDraft>, Stream) {
    let (slots, names) = check_key_by(fields, input, help, reader);
    let slots: Option<Vec<usize>> = slots.into_iter().collect();
    let Some(slots) = slots.filter(|slots| !slots.is_empty()) else {
        return (None, None, Stream { partitioning_broken: true, ..input.clone() });
    };
    let names: Vec<String> = names.into_iter().map(|name| name.value).collect();
    if input.is_covered_by(&names) {
        return (Some(slots), None, input.clone());
    }
    let repartition = RepartitionDraft { key: slots.clone(), partitions: None };
    (Some(slots), Some(repartition), input.repartitioned(&names))
}
