//! Generated unions.

use super::{Maker, OperatorKind, Stream};
use crate::record::Field;

impl Maker<'_> {
    /// Another stream whose rows may come together with those of the one at `place`, if there is one and chance wants it.
    pub(super) fn other(&mut self, place: usize) -> Option<usize> {
        let stream = &self.streams[place];
        let names = |stream: &Stream| -> Vec<Field> {
            stream.fields.iter().map(|field| Field { nullable: false, ..field.clone() }).collect()
        };
        let fits = |other: &Stream| {
            !other.idles && !other.of_clock && other.calm == stream.calm && names(other) == names(stream)
        };
        let others = (0..self.streams.len()).filter(|at| *at != place && fits(&self.streams[*at]));
        let others: Vec<usize> = others.collect();
        let wanted =
            !stream.idles && !stream.of_clock && !others.is_empty() && self.random.fork("union").one_in(4);
        wanted.then(|| *self.random.fork("other").pick(&others))
    }

    pub(super) fn union(&mut self, input: &Stream, other: usize) -> (OperatorKind, Stream) {
        self.streams[other].readers += 1;
        let other = &self.streams[other];
        let pairs = input.fields.iter().zip(&other.fields);
        let fields = pairs.map(|(one, two)| Field { nullable: one.nullable || two.nullable, ..one.clone() });
        let made = Stream {
            fields: fields.collect(),
            meta: input.meta && other.meta,
            carried: Vec::new(),
            rekeyed: input.rekeyed || other.rekeyed,
            size_ms: input.size_ms.max(other.size_ms),
            ..input.clone()
        };
        (OperatorKind::Union(other.at), made)
    }
}
