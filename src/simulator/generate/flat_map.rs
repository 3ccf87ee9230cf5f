//! Generated operators that make rows of elements.

use std::collections::BTreeSet;

use super::formula::{Formula, Scope};
use super::{Choice, FlatMap, Generated, Maker, OperatorKind, Stream, field};
use crate::record::{Field, Type};
use crate::topology::plan::StreamRef;

impl Generated {
    /// The operators to which several rows of one record may come, apart from one another.
    pub fn repeated(&self) -> BTreeSet<String> {
        let of = |index: &usize| {
            let before = self.operators_before(*index);
            let mut kinds = before.iter().map(|index| &self.operators[*index].kind);
            let repeats = kinds.any(|kind| matches!(kind, OperatorKind::FlatMap(_) | OperatorKind::Union(_)));
            repeats && (self.rekeys(*index) || before.iter().any(|index| self.rekeys(*index)))
        };
        let repeated = (0..self.operators.len()).filter(of);
        repeated.map(|index| self.operators[index].id.clone()).collect()
    }

    fn operators_before(&self, operator: usize) -> BTreeSet<usize> {
        let mut before = BTreeSet::new();
        for input in self.inputs(operator) {
            let StreamRef::Operator(input) = input else { continue };
            before.insert(input);
            before.append(&mut self.operators_before(input));
        }
        before
    }
}

impl Maker<'_> {
    pub(super) fn flat_map(&mut self, input: &Stream, number: usize) -> (OperatorKind, Stream) {
        let choice = self.choice(input, &[]);
        let random = &mut *self.random;
        let is_list = |slot: &usize| input.fields[*slot].ty.is_list();
        let lists: Vec<usize> = (0..input.fields.len()).filter(is_list).collect();
        let element = |ty: Type| if let Type::List(of) = ty { of.element.ty() } else { ty };
        let mut each: Vec<(Field, Formula)> = Vec::new();
        let first = *random.pick(&lists);
        // Mostly of one array, so that they are equally long.
        let others = lists.iter().copied().filter(|other| input.fields[*other].name.starts_with("i"));
        let others: Vec<usize> = others.filter(|other| *other != first).collect();
        let is_column = input.fields[first].name.starts_with("i");
        let second = match random.below(3) {
            0 if is_column && !others.is_empty() => Some(*random.pick(&others)),
            1 if random.one_in(4) => Some(*random.pick(&lists)),
            _ => None,
        };
        for (part, slot) in [Some(first), second].into_iter().flatten().enumerate() {
            let of = &input.fields[slot];
            let made = Field { form: of.form, ..field(&format!("e{number}_{part}"), element(of.ty), true) };
            each.push((made, Formula::Field(slot)));
        }
        if random.one_in(4) {
            let ty = *random.pick(&[Type::Int, Type::String]);
            let scope = Scope { fields: &input.fields, meta: input.meta };
            each = vec![(field(&format!("e{number}_0"), ty, true), scope.list(ty, 1, random))];
        }
        let stays = |field: &Field| match &choice {
            Choice::All => true,
            Choice::Keep(names) => names.contains(&field.name),
            Choice::Drop(names) => !names.contains(&field.name),
        };
        let kept: Vec<usize> = (0..input.fields.len()).filter(|slot| stays(&input.fields[*slot])).collect();
        let place = |slot: &usize| kept.iter().position(|kept| kept == slot);
        let carried = input.carried.iter().map(|slots| slots.iter().filter_map(place).collect()).collect();
        let mut fields: Vec<Field> = kept.iter().map(|slot| input.fields[*slot].clone()).collect();
        fields.extend(each.iter().map(|(made, _)| made.clone()));
        let position = random.one_in(3).then(|| format!("p{number}"));
        fields.extend(position.iter().map(|name| field(name, Type::Int, true)));
        let each = each.into_iter().map(|(made, formula)| (made.name, formula)).collect();
        let outer = random.one_in(3);
        let made = Stream { fields, carried, ..input.clone() };
        (OperatorKind::FlatMap(FlatMap { each, choice, kept, position, outer }), made)
    }
}
