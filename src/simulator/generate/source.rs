//! Generated sources.

use super::formula::Scope;
use super::{Maker, Source, Stream, field};
use crate::record::{Field, FieldForm, Type};
use crate::topology::plan::{Start, StreamRef};

impl Maker<'_> {
    pub(super) fn source(&mut self, number: usize) {
        let id = ["orders", "visits"][number % 2].to_owned();
        let topic = self.topic(&format!("in{number}"), 4);
        let on_error = self.on_error(&id);
        self.calm = self.random.fork("calm").one_in(3);
        self.idles = self.calm && self.random.fork("idles").one_in(3);
        let alignment = self.alignment(&id);
        // Where no key changes behind it nothing depends on whether it is idle.
        let idles = self.idles || (alignment.is_some() && !self.generated.bounded);
        let idle_timeout_ms = idles.then(|| 50 + self.random.fork("idle timeout").below(3_000) as i64);
        let latest = self.random.fork("start").one_in(8) && !self.calm;
        let start = if latest { Start::Latest } else { Start::Earliest };
        let random = &mut *self.random;
        let like = self.generated.sources.first().filter(|_| random.fork("like").one_in(2)).cloned();
        let mut fields = vec![(field("k", Type::String, random.one_in(3)), vec!["k".to_owned()])];
        let extra =
            [("g", Type::Int), ("v", Type::Int), ("x", Type::Double), ("s", Type::String), ("b", Type::Bool)];
        for (name, ty) in extra {
            if random.below(5) < 4 {
                let path = if random.one_in(6) {
                    vec!["deep".to_owned(), name.to_owned()]
                } else {
                    vec![name.to_owned()]
                };
                fields.push((field(name, ty, random.one_in(2)), path));
            }
        }
        let form = if random.one_in(3) { FieldForm::Rfc3339 } else { FieldForm::Plain };
        let place = random.below(fields.len() as u64 + 1) as usize;
        fields.insert(place, (Field { form, ..field("t", Type::Timestamp, false) }, vec!["at".to_owned()]));
        let mut chance = random.fork("lists");
        let list = |ty: Type, nullable: bool| ty.list(nullable).unwrap_or(ty);
        let keys = |path: &str| -> Vec<String> { path.split('.').map(str::to_owned).collect() };
        if chance.one_in(3) {
            let ty = list(*chance.pick(&[Type::Int, Type::String]), chance.one_in(3));
            fields.push((field("l", ty, chance.one_in(3)), keys("l")));
        }
        if chance.one_in(3) {
            let (first, second) = (list(Type::String, chance.one_in(3)), list(Type::Int, chance.one_in(3)));
            let path = *chance.pick(&["i.[]", "deep.i.[]"]);
            fields.push((field("ia", first, chance.one_in(3)), keys(&format!("{path}.a"))));
            fields.push((field("ib", second, chance.one_in(3)), keys(&format!("{path}.in.b"))));
        }
        if let Some(like) = like {
            fields = like.fields; // so that both may come together
        }
        let slot = |name: &str| fields.iter().position(|(field, _)| field.name == name);
        let partitioned_by = match (random.below(8), slot("k"), slot("g")) {
            (0, _, _) => Vec::new(),
            (1, Some(k), Some(g)) => vec![k, g],
            (2, _, Some(g)) => vec![g],
            (_, k, _) => k.into_iter().collect(),
        };
        let time = if random.one_in(4) { None } else { slot("t") };
        let mut chance = random.fork("time");
        let shifted = time.is_some() && chance.one_in(5);
        let shift_ms = if shifted { 1 + chance.below(3_000) as i64 } else { 0 };
        let rows: Vec<Field> = fields.iter().map(|(field, _)| field.clone()).collect();
        let scope = Scope { fields: &rows, meta: true };
        let depth = 1 + chance.below(2) as u32;
        let punctuated = chance.one_in(8).then(|| scope.formula(Type::Bool, depth, &mut chance));
        let source = Source {
            topic,
            time,
            shift_ms,
            punctuated,
            max_out_of_orderness_ms: *random.pick(&[0, 500, 2_000, 5_000]),
            max_ahead_ms: *random.pick(&[3_600_000, 86_400_000]),
            on_error,
            start,
            calm: self.calm,
            idle_timeout_ms,
            alignment,
            partitioned_by,
            fields,
            id,
        };
        self.generated.sources.push(source);
        let source = &self.generated.sources[number];
        self.streams.push(Stream {
            at: StreamRef::Source(number),
            fields: source.fields.iter().map(|(field, _)| field.clone()).collect(),
            meta: true,
            carried: source.partitioned_by.iter().map(|slot| vec![*slot]).collect(),
            rekeyed: false,
            of_clock: false,
            calm: self.calm,
            idles: self.idles,
            size_ms: None,
            readers: 0,
        });
    }

    /// How a source is aligned. What never ends and is never idle would hold back others for ever; and behind a source
    /// that may be idle all is less exactly known where keys change.
    fn alignment(&self, id: &str) -> Option<(String, i64)> {
        let mut random = self.random.fork("alignment");
        let may_be = self.generated.bounded || self.idles || !self.calm;
        let group = if random.one_in(4) { id } else { "all" };
        let max_drift_ms = *random.pick(&[1, 700, 4_000]);
        (may_be && random.one_in(2)).then(|| (group.to_owned(), max_drift_ms))
    }
}
