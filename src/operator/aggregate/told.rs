//! What was told of a window, kept beside its aggregates.

use super::Accumulators;
use crate::operator::window::Told;

/// What the last one of accumulators keeps that is no result.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KeptTold {
    /// No row has been added to the others.
    pub is_hollow: bool,
    /// What was told.
    pub told: Told<Accumulators>,
}

impl KeptTold {
    /// What takes no place; as it is stored, too.
    fn is_nothing(&self) -> bool {
        !self.is_hollow && matches!(self.told, Told::WithFiring)
    }

    /// As it is kept.
    pub fn kept(self) -> Option<Box<KeptTold>> {
        (!self.is_nothing()).then(|| Box::new(self))
    }
}
