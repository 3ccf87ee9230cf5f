//! Generated maps.

use super::formula::{Formula, Meta, Scope};
use super::{Choice, Maker, Map, OF_WINDOWS, OperatorKind, Stream, field};
use crate::record::{Field, FieldForm, Type};

impl Maker<'_> {
    pub(super) fn map(&mut self, input: &Stream, number: usize) -> (OperatorKind, Stream) {
        let random = &mut *self.random;
        let scope = Scope { fields: &input.fields, meta: input.meta };
        let mut set: Vec<(Field, Formula)> = Vec::new();
        for part in 0..1 + random.below(3) {
            if random.one_in(4) {
                // A copy; without the original it is a renaming.
                let slot = random.below(input.fields.len() as u64) as usize;
                let made = Field { name: format!("c{number}_{part}"), ..input.fields[slot].clone() };
                set.push((made, Formula::Field(slot)));
                continue;
            }
            let types = [
                Type::Int,
                Type::Int,
                Type::Double,
                Type::Double,
                Type::String,
                Type::Bool,
                Type::Timestamp,
                Type::Duration,
            ];
            let mut ty = *random.pick(&types);
            let depth = 1 + random.below(3) as u32;
            let mut formula = scope.formula(ty, depth, random);
            let mut chance = random.fork("list");
            if chance.one_in(8) {
                let element = *chance.pick(&[Type::Int, Type::String]);
                formula = scope.list(element, 1 + depth % 2, &mut chance);
                ty = element.list(true).unwrap_or(element);
            }
            // The value of a field that nothing is grouped by may be replaced.
            let replaced = random.below(input.fields.len() as u64) as usize;
            let is_key = input.carried.iter().any(|slots| slots.contains(&replaced));
            let old = input.fields[replaced].name.as_str();
            // A key of that name could be no window's: it has such a field already.
            let is_key = is_key || OF_WINDOWS.contains(&old);
            let name = match random.one_in(3) && !is_key {
                true => old.to_owned(),
                false => format!("m{number}_{part}"),
            };
            if set.iter().all(|(made, _)| made.name != name) {
                let form = match formula {
                    Formula::Field(slot) => input.fields[slot].form,
                    _ => FieldForm::Plain,
                };
                set.push((Field { form, ..field(&name, ty, true) }, formula));
            }
        }
        // What has come with the row through a change of keys.
        let mut chance = random.fork("carried");
        if input.rekeyed && input.meta && chance.one_in(2) {
            let (part, ty) = *chance.pick(&[
                (Meta::Key, Type::String),
                (Meta::Timestamp, Type::Timestamp),
                (Meta::Topic, Type::String),
                (Meta::Partition, Type::Int),
                (Meta::Offset, Type::Int),
                (Meta::Header, Type::String),
            ]);
            set.push((field(&format!("o{number}"), ty, true), Formula::Meta(part)));
        }
        let choice = self.choice(input, &set);
        (OperatorKind::Map(Map::new(&set, &choice, input)), Map::stream(&set, &choice, input))
    }

    /// Which fields stay: the last copy of a key always does.
    pub(super) fn choice(&mut self, input: &Stream, set: &[(Field, Formula)]) -> Choice {
        let is_set = |name: &str| set.iter().any(|(made, _)| made.name == name);
        let copied = |slot: usize| set.iter().any(|(_, formula)| *formula == Formula::Field(slot));
        let needed =
            |slot: usize| input.carried.iter().any(|slots| slots.first() == Some(&slot)) && !copied(slot);
        let random = &mut *self.random;
        let (some, keeps) = (random.one_in(2), random.one_in(2));
        let mut chosen = Vec::new();
        for (slot, field) in input.fields.iter().enumerate() {
            let stays = needed(slot) || random.one_in(2);
            if stays == keeps && !is_set(&field.name) {
                chosen.push(field.name.clone());
            }
        }
        match (some, keeps) {
            (false, _) => Choice::All,
            // An empty list is not what a user would write.
            (true, _) if chosen.is_empty() => Choice::All,
            (true, true) => Choice::Keep(chosen),
            (true, false) => Choice::Drop(chosen),
        }
    }
}

impl Map {
    fn new(set: &[(Field, Formula)], choice: &Choice, input: &Stream) -> Map {
        let slots = Map::rows(set, choice, input).into_iter().map(|(_, formula)| formula).collect();
        let set = set.iter().map(|(made, formula)| (made.name.clone(), formula.clone())).collect();
        Map { set, choice: choice.clone(), slots }
    }

    /// The fields of the rows in order: those of the input, then new ones.
    fn rows(set: &[(Field, Formula)], choice: &Choice, input: &Stream) -> Vec<(Field, Formula)> {
        let stays = |name: &String| match choice {
            Choice::All => true,
            Choice::Keep(names) => names.contains(name),
            Choice::Drop(names) => !names.contains(name),
        };
        let mut rows = Vec::new();
        for (slot, field) in input.fields.iter().enumerate() {
            match set.iter().find(|(made, _)| made.name == field.name) {
                Some(made) => rows.push(made.clone()),
                None if stays(&field.name) => rows.push((field.clone(), Formula::Field(slot))),
                None => {}
            }
        }
        let is_new = |made: &Field| input.fields.iter().all(|field| field.name != made.name);
        rows.extend(set.iter().filter(|(made, _)| is_new(made)).cloned());
        rows
    }

    fn stream(set: &[(Field, Formula)], choice: &Choice, input: &Stream) -> Stream {
        let rows = Map::rows(set, choice, input);
        let holds = |slots: &Vec<usize>| {
            let places = rows.iter().enumerate().filter(|(_, (_, formula))| match formula {
                Formula::Field(slot) => slots.contains(slot),
                _ => false,
            });
            places.map(|(place, _)| place).collect()
        };
        let carried = input.carried.iter().map(holds).collect();
        let fields = rows.into_iter().map(|(field, _)| field).collect();
        Stream { fields, carried, ..input.clone() }
    }
}
