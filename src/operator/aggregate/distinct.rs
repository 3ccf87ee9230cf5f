//! Different values, all of them kept.

use crate::format::key::state_key_number;
use crate::record::Slot;

/// What tells a value from others of its type: equal for values that are equal as keys, and only for them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Identity<'b> {
    Number(u64),
    Text(&'b [u8]),
}

impl<'b> Identity<'b> {
    /// Of a slot; `None` for null.
    pub fn of(slot: &Slot<'b>) -> Option<Identity<'b>> {
        match slot {
            Slot::String(text) => Some(Identity::Text(text.as_bytes())),
            Slot::Bytes(bytes) => Some(Identity::Text(bytes)),
            number => state_key_number(number).map(Identity::Number),
        }
    }
}

/// How much may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// So many values.
    pub values: usize,
    /// Of so many bytes together, if they are texts.
    pub bytes: usize,
}

impl Bounds {
    /// What is said where a value more or longer ones would be.
    fn exceeded(&self, values: usize) -> String {
        match values > self.values {
            true => format!("more than {} different values", self.values),
            false => format!("different values of more than {} bytes together", self.bytes),
        }
    }
}

/// A text takes so many bytes beside its own where it is stored: a field's key and a length.
const TEXT_BYTES: usize = 4;

/// Different values of one type, in ascending order.
#[derive(Clone, Debug, PartialEq)]
pub enum Distinct {
    /// Bools, ints, doubles, timestamps or durations, as numbers that tell them apart.
    Numbers(Vec<u64>),
    /// Strings or bytes.
    Texts(Texts),
}

/// Different texts, in ascending order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Texts {
    sorted: Vec<Box<[u8]>>,
    /// Their lengths together.
    bytes: usize,
}

impl Distinct {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Distinct::Numbers(numbers) => numbers.len(),
            Distinct::Texts(texts) => texts.sorted.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a value has room, or is there already; the error says why not.
    pub(super) fn check(&self, value: Identity<'_>, bounds: Bounds) -> Result<(), String> {
        let (is_new, bytes) = match (self, value) {
            (Distinct::Numbers(numbers), Identity::Number(number)) => {
                (numbers.binary_search(&number).is_err(), 0)
            }
            (Distinct::Texts(texts), Identity::Text(text)) => {
                (texts.find(text).is_err(), texts.stored_bytes() + text.len() + TEXT_BYTES)
            }
            _ => (false, 0),
        };
        let values = self.len() + 1;
        if is_new && (values > bounds.values || bytes > bounds.bytes) {
            return Err(bounds.exceeded(values));
        }
        Ok(())
    }

    /// Adds a value.
    pub(super) fn add(&mut self, value: Identity<'_>) {
        match (self, value) {
            (Distinct::Numbers(numbers), Identity::Number(number)) => {
                if let Err(place) = numbers.binary_search(&number) {
                    numbers.insert(place, number);
                }
            }
            (Distinct::Texts(texts), Identity::Text(text)) => {
                if let Err(place) = texts.find(text) {
                    texts.sorted.insert(place, text.into());
                    texts.bytes += text.len();
                }
            }
            // A plan gives an aggregate values of one type.
            _ => {}
        }
    }

    /// Adds the values of `later`. On an error it holds more than it may.
    pub(super) fn merge(&mut self, later: &Distinct, bounds: Bounds) -> Result<(), String> {
        // A copy of what was within bounds when it was added is none of its own concern.
        if self.is_empty() {
            self.clone_from(later);
            return Ok(());
        }
        let bytes = match (&mut *self, later) {
            (Distinct::Numbers(numbers), Distinct::Numbers(later)) => {
                numbers.extend_from_slice(later);
                // Two ascending runs: the stable sort finds them and merges.
                numbers.sort();
                numbers.dedup();
                0
            }
            (Distinct::Texts(texts), Distinct::Texts(later)) => {
                texts.sorted.extend_from_slice(&later.sorted);
                texts.sorted.sort();
                texts.sorted.dedup();
                texts.bytes = texts.sorted.iter().map(|text| text.len()).sum();
                texts.stored_bytes()
            }
            _ => 0,
        };
        match self.len() > bounds.values || bytes > bounds.bytes {
            true => Err(bounds.exceeded(self.len())),
            false => Ok(()),
        }
    }

    /// Bytes outside itself.
    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            Distinct::Numbers(numbers) => numbers.capacity() * size_of::<u64>(),
            Distinct::Texts(texts) => texts.sorted.capacity() * size_of::<Box<[u8]>>() + texts.bytes,
        }
    }
}

impl Texts {
    /// Of texts that ascend; `None` if they do not.
    pub(super) fn of(sorted: Vec<Box<[u8]>>) -> Option<Texts> {
        let bytes = sorted.iter().map(|text| text.len()).sum();
        sorted.is_sorted_by(|a, b| a < b).then_some(Texts { sorted, bytes })
    }

    /// The texts, in ascending order.
    pub(super) fn sorted(&self) -> &[Box<[u8]>] {
        &self.sorted
    }

    fn find(&self, text: &[u8]) -> Result<usize, usize> {
        self.sorted.binary_search_by(|held| (**held).cmp(text))
    }

    fn stored_bytes(&self) -> usize {
        self.bytes + self.sorted.len() * TEXT_BYTES
    }
}
