//! The first tier of the decoder: records as expected, or nothing.

use super::layout::{Kind, Layout, Target};
use crate::record::Slot;
use crate::time;

/// How deep an undeclared value may be nested here.
const DEPTH_MAX: usize = 16;
/// The largest integer below which a double holds every integer.
const EXACT_MAX: u64 = 1 << 53;
/// The powers of ten that a double holds exactly.
const POWERS_OF_TEN: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];

/// Reads `text` into `slots`, which must all be null. `None` says nothing about `text`: it may be wrong,
/// or only unusual; the slots then hold anything.
pub(super) fn read<'b>(layout: &mut Layout, text: &'b str, slots: &mut [Slot<'b>]) -> Option<()> {
    let mut cursor = Cursor { text, at: 0 };
    cursor.space();
    object(&mut cursor, layout, 0, slots)?;
    cursor.space();
    let complete = cursor.at == text.len() && layout.required.iter().all(|slot| !slots[*slot].is_null());
    complete.then_some(())
}

fn object<'b>(
    cursor: &mut Cursor<'b>,
    layout: &mut Layout,
    number: usize,
    slots: &mut [Slot<'b>],
) -> Option<()> {
    cursor.expect(b'{')?;
    cursor.space();
    if cursor.eat(b'}') {
        return Some(());
    }
    let mut guess = 0;
    loop {
        cursor.expect(b'"')?;
        let target = match layout.objects[number].match_key(cursor.rest(), &mut guess) {
            Some((target, length)) => {
                cursor.at += length;
                target
            }
            None => layout.objects[number].find_key(cursor.string()?, &mut guess),
        };
        cursor.space();
        cursor.expect(b':')?;
        cursor.space();
        match target {
            Target::Slot(slot) => slots[slot] = cursor.value(layout.fields[slot].kind)?,
            Target::Ignored => cursor.skip_value(0)?,
            Target::Object(below) => {
                // The object may have come before; only its last appearance counts.
                layout.objects[below].slots.iter().for_each(|slot| slots[*slot] = Slot::Null);
                if !cursor.null() {
                    object(cursor, layout, below, slots)?;
                }
            }
            Target::Several(_) => return None,
        }
        cursor.space();
        if cursor.eat(b'}') {
            return Some(());
        }
        cursor.expect(b',')?;
        cursor.space();
    }
}

/// A place in a record's text.
struct Cursor<'b> {
    text: &'b str,
    at: usize,
}

/// A number, as it is written: `mantissa` / 10^`fraction` if `plain`.
struct Number<'b> {
    text: &'b str,
    negative: bool,
    mantissa: u64,
    fraction: usize,
    /// There is no exponent and the mantissa fits 18 digits.
    plain: bool,
}

impl<'b> Cursor<'b> {
    fn rest(&self) -> &'b [u8] {
        &self.text.as_bytes()[self.at..]
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        self.eat(byte).then_some(())
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    fn literal(&mut self, literal: &[u8]) -> bool {
        let found = self.rest().starts_with(literal);
        self.at += if found { literal.len() } else { 0 };
        found
    }

    fn null(&mut self) -> bool {
        self.literal(b"null")
    }

    /// A value of a declared field.
    fn value(&mut self, kind: Kind) -> Option<Slot<'b>> {
        if self.null() {
            return Some(Slot::Null);
        }
        match kind {
            Kind::String => {
                self.expect(b'"')?;
                self.string().map(Slot::String)
            }
            Kind::Bool => match self.literal(b"true") {
                true => Some(Slot::Bool(true)),
                false => self.literal(b"false").then_some(Slot::Bool(false)),
            },
            Kind::Int => self.int().map(Slot::Int),
            Kind::Double => self.double().map(Slot::Double),
            Kind::TimestampMs => self.int().map(Slot::Timestamp),
            Kind::TimestampText => {
                self.expect(b'"')?;
                time::parse_rfc3339_ms(self.string()?).map(Slot::Timestamp)
            }
            Kind::DurationMs => self.int().map(Slot::Duration),
            Kind::Bytes => None,
        }
    }

    /// The rest of a string behind its opening quote, and its closing quote; `None` if it has escapes.
    fn string(&mut self) -> Option<&'b str> {
        let start = self.at;
        let end = start + special(self.rest())?;
        self.at = end;
        self.expect(b'"')?;
        self.text.get(start..end)
    }

    fn int(&mut self) -> Option<i64> {
        let number = self.number()?;
        if !number.plain || number.fraction > 0 {
            return None;
        }
        // At most 18 digits.
        let value = number.mantissa as i64;
        Some(if number.negative { -value } else { value })
    }

    fn double(&mut self) -> Option<f64> {
        let number = self.number()?;
        if number.plain && number.mantissa < EXACT_MAX {
            // Both are exact, so the quotient is rounded once (Clinger 1990).
            let value = number.mantissa as f64 / POWERS_OF_TEN[number.fraction];
            return Some(if number.negative { -value } else { value });
        }
        number.text.parse().ok().filter(|value: &f64| value.is_finite())
    }

    fn number(&mut self) -> Option<Number<'b>> {
        let start = self.at;
        let negative = self.eat(b'-');
        let mut mantissa = 0;
        let zero = self.peek() == Some(b'0');
        let whole = self.digits(&mut mantissa)?;
        if zero && whole > 1 {
            return None;
        }
        let fraction = if self.eat(b'.') { self.digits(&mut mantissa)? } else { 0 };
        let exponent = self.eat(b'e') || self.eat(b'E');
        if exponent {
            let _signed = self.eat(b'-') || self.eat(b'+');
            self.digits(&mut 0)?;
        }
        let text = self.text.get(start..self.at)?;
        Some(Number { text, negative, mantissa, fraction, plain: !exponent && whole + fraction <= 18 })
    }

    /// Adds digits to `number`, which wraps at too many of them. How many there are, at least one.
    fn digits(&mut self, number: &mut u64) -> Option<usize> {
        let start = self.at;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            *number = number.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
            self.at += 1;
        }
        (self.at > start).then_some(self.at - start)
    }

    /// Passes over a value of any kind.
    fn skip_value(&mut self, depth: usize) -> Option<()> {
        match self.peek()? {
            b'"' => {
                self.at += 1;
                self.string().map(drop)
            }
            b'-' | b'0'..=b'9' => self.number().map(drop),
            b'{' | b'[' if depth == DEPTH_MAX => None,
            b'{' => self.skip_members(depth, b'}', true),
            b'[' => self.skip_members(depth, b']', false),
            _ => (self.null() || self.literal(b"true") || self.literal(b"false")).then_some(()),
        }
    }

    /// Passes over an object or an array, up to its `end`.
    fn skip_members(&mut self, depth: usize, end: u8, keys: bool) -> Option<()> {
        self.at += 1;
        self.space();
        if self.eat(end) {
            return Some(());
        }
        loop {
            if keys {
                self.expect(b'"')?;
                self.string()?;
                self.space();
                self.expect(b':')?;
                self.space();
            }
            self.skip_value(depth + 1)?;
            self.space();
            if self.eat(end) {
                return Some(());
            }
            self.expect(b',')?;
            self.space();
        }
    }
}

/// Where the first quote, backslash or control character stands. Eight bytes at a time: a byte is zero
/// if subtracting one borrows; above the first hit a borrow may mark a wrong byte, so only the first
/// counts.
fn special(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let (words, tail) = bytes.as_chunks::<8>();
    for (place, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let quote = word ^ (ONES * u64::from(b'"'));
        let escape = word ^ (ONES * u64::from(b'\\'));
        let hits = ((quote.wrapping_sub(ONES) & !quote)
            | (escape.wrapping_sub(ONES) & !escape)
            | (word.wrapping_sub(ONES * 0x20) & !word))
            & HIGH;
        if hits != 0 {
            return Some(place * 8 + hits.trailing_zeros() as usize / 8);
        }
    }
    let place = tail.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20))?;
    Some(words.len() * 8 + place)
}
