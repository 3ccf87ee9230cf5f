//! Generated operators that remember something of each key.

use super::formula::{Formula, Scope};
use super::{Deduplicate, Lag, Maker, OperatorKind, Stream, field};
use crate::record::{Field, FieldForm, Type};

impl Maker<'_> {
    pub(super) fn deduplicate(&mut self, input: &Stream, id: &str) -> (OperatorKind, Stream) {
        let late = match self.random.one_in(2) {
            true => Some(self.topic(&format!("{id}-late"), 2)),
            false => None,
        };
        let key = self.covering_key(input);
        let within_ms = *self.random.pick(&[1, 500, 2_000, 5_000, 20_000]);
        (OperatorKind::Deduplicate(Deduplicate { key, within_ms, late }), input.clone())
    }

    pub(super) fn lag(&mut self, input: &Stream, number: usize) -> (OperatorKind, Stream) {
        let key = self.covering_key(input);
        let random = &mut *self.random;
        let ttl_ms = *random.pick(&[None, Some(1), Some(500), Some(2_000), Some(10_000)]);
        let scope = Scope { fields: &input.fields, meta: input.meta };
        let mut made = input.clone();
        let mut set = Vec::new();
        for part in 0..1 + random.below(3) {
            let slot = random.below(input.fields.len() as u64) as usize;
            let ty = *random.pick(&[Type::Int, Type::Double, Type::String, Type::Bool, Type::Duration]);
            let name = format!("l{number}_{part}");
            let (formula, ty, form) = match random.one_in(2) {
                true => (Formula::Field(slot), input.fields[slot].ty, input.fields[slot].form),
                false => (scope.formula(ty, 1 + random.below(2) as u32, random), ty, FieldForm::Plain),
            };
            made.fields.push(Field { form, ..field(&name, ty, true) });
            set.push((name, formula));
        }
        (OperatorKind::Lag(Lag { key, set, ttl_ms }), made)
    }
}
