//! Text to fill records with, and numbers as text.

use crate::random::Random;

/// As long as no record is.
const LENGTH: usize = 1 << 20;

/// Random small letters, of which pieces are taken: drawing each letter anew would be most of the work.
pub(super) struct Letters(Vec<u8>);

impl Letters {
    pub fn new(random: &mut Random) -> Letters {
        Letters((0..LENGTH).map(|_| letter(random)).collect())
    }

    /// Appends as many letters, less than a megabyte.
    pub fn push(&self, length: usize, random: &mut Random, out: &mut Vec<u8>) {
        let start = random.place(LENGTH - length);
        out.extend_from_slice(&self.0[start..start + length]);
    }
}

/// A small letter.
pub(super) fn letter(random: &mut Random) -> u8 {
    // Below 26, so the cast loses nothing.
    b'a' + random.below(26) as u8
}

/// Appends a number.
pub(super) fn push_int(value: impl itoa::Integer, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Appends a number with zeros before it, to this width.
pub(super) fn push_padded(value: u64, width: usize, out: &mut Vec<u8>) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(value).as_bytes();
    let zeros = width.saturating_sub(digits.len());
    out.extend(std::iter::repeat_n(b'0', zeros));
    out.extend_from_slice(digits);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_padded_and_never_cut() {
        let padded = |value| {
            let mut out = Vec::new();
            push_padded(value, 6, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!([0, 42, 999_999, 1_000_000].map(padded), ["000000", "000042", "999999", "1000000"]);
    }

    #[test]
    fn letters_are_as_many_as_asked_for() {
        let mut random = Random::new(1);
        let letters = Letters::new(&mut random);
        for length in [0, 1, 60, LENGTH - 1] {
            let mut out = Vec::new();
            letters.push(length, &mut random, &mut out);
            assert!(out.len() == length && out.iter().all(u8::is_ascii_lowercase), "{length}");
        }
    }
}
