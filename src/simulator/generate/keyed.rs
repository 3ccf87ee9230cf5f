//! Generated operators that remember something of each key.

use super::{Deduplicate, Maker, OperatorKind, Stream};

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
}
