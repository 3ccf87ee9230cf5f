//! Generated expressions of lists.

use super::formula::{Binary, Formula, Function, OfElements, Scope, Value, binary, comparison, literal};
use crate::random::Random;
use crate::record::{Field, Type};

impl Scope<'_> {
    /// A list of ints or strings.
    pub fn list(&self, element: Type, depth: u32, random: &mut Random) -> Formula {
        let is_such = |field: &Field| matches!(field.ty, Type::List(of) if of.element.ty() == element);
        let slots: Vec<usize> = (0..self.fields.len()).filter(|slot| is_such(&self.fields[*slot])).collect();
        let field = match slots.is_empty() {
            true => None,
            false => Some(Formula::Field(*random.pick(&slots))),
        };
        match random.below(6) {
            0 if depth > 0 => {
                let list = self.list(element, depth - 1, random);
                let what = *random.pick(&[OfElements::Filter, OfElements::Map]);
                let body = match what {
                    OfElements::Map => self.of_element(element, element, random),
                    _ => self.of_element(element, Type::Bool, random),
                };
                Formula::OfElements(what, list.into(), body.into())
            }
            1 if element == Type::String => {
                let separator = Formula::Literal(Value::Text((*random.pick(&["", "a", " "])).into()));
                Formula::Call(Function::Split, vec![self.leaf(Type::String, random), separator])
            }
            2.. if field.is_some() => field.unwrap_or(Formula::Literal(Value::Null)),
            _ => Formula::List((0..1 + random.below(3)).map(|_| self.leaf(element, random)).collect()),
        }
    }

    /// What is asked of an element, which is the field behind all others.
    fn of_element(&self, element: Type, ty: Type, random: &mut Random) -> Formula {
        let variable = || Formula::Field(self.fields.len());
        match ty {
            Type::Bool => binary(comparison(random), variable(), literal(element, random)),
            Type::String => binary(Binary::Add, variable(), self.leaf(ty, random)),
            _ => {
                let op = *random.pick(&[Binary::Add, Binary::Multiply, Binary::Divide]);
                binary(op, variable(), self.leaf(ty, random))
            }
        }
    }

    /// A condition on a list.
    pub(super) fn of_list(&self, random: &mut Random) -> Formula {
        let element = *random.pick(&[Type::Int, Type::String]);
        let list = self.list(element, 1, random).into();
        match random.below(3) {
            0 => Formula::IsElement(self.leaf(element, random).into(), list),
            _ => {
                let body = self.of_element(element, Type::Bool, random);
                let what = *random.pick(&[OfElements::All, OfElements::Exists]);
                Formula::OfElements(what, list, body.into())
            }
        }
    }

    /// An element of a list, or what is made of it.
    pub(super) fn of_lists(&self, ty: Type, random: &mut Random) -> Formula {
        let list = self.list(ty, 1, random);
        let place = match random.below(3) {
            0 => self.leaf(Type::Int, random),
            _ => Formula::Literal(Value::Int(random.below(3) as i64)),
        };
        match (ty, random.below(2)) {
            (Type::Int, 0) => {
                let element = *random.pick(&[Type::Int, Type::String]);
                Formula::Call(Function::Size, vec![self.list(element, 1, random)])
            }
            (Type::String, 0) => Formula::Call(Function::Join, vec![list, literal(Type::String, random)]),
            _ => Formula::Element(list.into(), place.into()),
        }
    }

    /// Whether chance asks for lists, which it does more often where there are some.
    pub(super) fn asks_for_lists(&self, random: &Random) -> bool {
        let one_in = if self.fields.iter().any(|field| field.ty.is_list()) { 5 } else { 40 };
        random.fork("lists").one_in(one_in)
    }
}
