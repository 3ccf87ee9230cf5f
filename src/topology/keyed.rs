//! Operators that remember something of each key: deduplications.

use super::diagnostic::Span;
use super::operator::{RepartitionDraft, check_key_by};
use super::plan::{DeduplicatePlan, OperatorKind};
use super::reader::{Fields, Reader};
use super::stream::Stream;
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
