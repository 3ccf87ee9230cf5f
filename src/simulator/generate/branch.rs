//! Generated operators that split rows.

use super::formula::Scope;
use super::{Branch, Maker, Operator, OperatorKind, Stream};
use crate::record::Type;
use crate::topology::plan::{OnError, StreamRef};

impl Maker<'_> {
    pub(super) fn branch(&mut self, input: &Stream) -> (OperatorKind, Stream) {
        let random = &mut *self.random;
        let scope = Scope { fields: &input.fields, meta: input.meta };
        let conditions = (0..1 + random.below(2)).map(|number| {
            (format!("x{number}"), scope.formula(Type::Bool, 1 + random.below(2) as u32, random))
        });
        let conditions = conditions.collect();
        let otherwise = random.one_in(2).then(|| "rest".to_owned());
        (OperatorKind::Branch(Branch { conditions, otherwise }), input.clone())
    }

    /// The outputs of the operator with this id and number, whose rows are those of `rows`.
    pub(super) fn outputs(&mut self, branch: &Branch, id: &str, number: usize, rows: &Stream) {
        let names = branch.conditions.iter().map(|(name, _)| name).chain(&branch.otherwise);
        for (place, name) in names.enumerate() {
            let at = StreamRef::Operator(self.generated.operators.len());
            self.generated.operators.push(Operator {
                id: format!("{id}/{name}"),
                input: StreamRef::Operator(number),
                fields: rows.fields.clone(),
                on_error: OnError::Fail, // it does nothing that could fail
                kind: OperatorKind::Output(place),
            });
            self.streams.push(Stream { at, readers: 0, ..rows.clone() });
        }
    }
}
