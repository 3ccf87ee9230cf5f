//! Windows whose rows are aggregated in two steps, before they change keys and behind that.

use super::operator::RepartitionDraft;
use super::plan::{Emit, Late, Phase, WindowPlan};
use super::reader::{Fields, Reader};
use super::window::plain;
use crate::record::{Schema, Type};

/// The first step.
pub(super) struct LocalDraft {
    pub plan: WindowPlan,
    /// The rows that it sends; the last field is yet to be [named](LocalDraft::schema_of).
    schema: Schema,
}

impl LocalDraft {
    /// The rows that it sends to a second step of this fingerprint. The name of the field that holds the accumulators
    /// says what they are of: others, of an earlier or later version of the application, are not taken for them. No
    /// other field can be called so.
    pub fn schema_of(&self, fingerprint: &str) -> Schema {
        // FNV-1a, of 64 bits (G. Fowler, L. C. Noll, K.-P. Vo).
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        let hash = fingerprint.bytes().fold(0xcbf2_9ce4_8422_2325, step);
        let mut schema = self.schema.clone();
        schema
            .fields
            .iter_mut()
            .rev()
            .take(1)
            .for_each(|last| last.name = format!("<accumulators {hash:016x}>"));
        schema
    }
}

/// Whether there are two steps: if the file says so, or `by_itself` if nothing stands against it. Reports what does if the
/// file asks for it.
pub(super) fn check_two_phase(
    fields: &Fields,
    by_itself: bool,
    against: Option<&str>,
    reader: &mut Reader,
) -> bool {
    let Some(node) = fields.get("two_phase") else { return by_itself && against.is_none() };
    match (reader.bool(node, "`two_phase`"), against) {
        (Some(true), Some(against)) => {
            let message = format!("{} cannot aggregate in two steps: {against}", fields.what);
            reader.problems.error(node.span, message).help("leave `two_phase` out");
            false
        }
        (asked, _) => asked.unwrap_or(false),
    }
}

/// A window in two steps, the second of which keeps its id and its state. `key_schema` are the key's fields, which come
/// first in the rows between them.
pub(super) fn split(
    mut window: WindowPlan,
    key_schema: Schema,
    repartition: &mut RepartitionDraft,
) -> (LocalDraft, WindowPlan) {
    let mut schema = key_schema;
    schema.fields.push(plain("", Type::Bytes, false));
    let key = (0..window.key.len()).collect();
    let first = WindowPlan {
        key: std::mem::replace(&mut window.key, key),
        windows: window.windows.clone(),
        aggregates: window.aggregates.clone(),
        gap: None,
        early_when: None,
        late: Late::Drop,
        emit: Emit::OnClose,
        phase: Phase::Local,
        ..window
    };
    window.phase = Phase::Global;
    repartition.key = window.key.clone();
    (LocalDraft { plan: first, schema }, window)
}
