//! Parts of the hot path that can be switched off, to measure what each is worth, and for nothing else.
//!
//! Compiled in by the feature `ablations` alone. Results stay the same.

/// A part of the hot path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// State that was written to disk stays in memory. Without: it is dropped when it has been written.
    Cache,
    /// Many entries in one changelog record. Without: a record for each.
    PackedDelta,
    /// Changes are written to disk seconds after their commit. Without: at once, one commit or more at a time.
    WriteBehind,
    /// JSON is read as a record like the one before. Without: by the second tier of the decoder alone.
    Template,
    /// Many records are handled at once. Without: one.
    Batches,
}

#[cfg(not(feature = "ablations"))]
pub(crate) const fn is_off(_: Part) -> bool {
    false
}

#[cfg(feature = "ablations")]
pub(crate) use compiled_in::is_off;
#[cfg(feature = "ablations")]
pub use compiled_in::switch_off;

#[cfg(feature = "ablations")]
mod compiled_in {
    use std::sync::OnceLock;

    use super::Part;

    const NAMES: [(&str, Part); 5] = [
        ("cache", Part::Cache),
        ("packed-delta", Part::PackedDelta),
        ("write-behind", Part::WriteBehind),
        ("template", Part::Template),
        ("batches", Part::Batches),
    ];

    static OFF: OnceLock<Vec<Part>> = OnceLock::new();

    /// Switches off the parts with these names, separated by commas, for the whole process. Once, before anything
    /// else; panics at a name that is none.
    pub fn switch_off(names: &str) {
        let part = |name: &str| {
            let known = NAMES.iter().find(|(known, _)| *known == name);
            known.unwrap_or_else(|| panic!("there is no part {name:?}, only {NAMES:?}")).1
        };
        let parts = names.split(',').filter(|name| !name.is_empty()).map(part).collect();
        assert!(OFF.set(parts).is_ok(), "parts are switched off once");
    }

    pub(crate) fn is_off(part: Part) -> bool {
        OFF.get().is_some_and(|off| off.contains(&part))
    }
}
