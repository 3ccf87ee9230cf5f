//! The first tier of the decoder: records as expected, or nothing.

use bumpalo::Bump;

use super::layout::{Array, Kind, LIST_VALUES_MAX, Layout, Target};
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
pub(super) fn read<'b>(
    layout: &mut Layout,
    text: &'b str,
    arena: &'b Bump,
    slots: &mut [Slot<'b>],
) -> Option<()> {
    let mut cursor = Cursor { text, at: 0 };
    cursor.space();
    layout.list_values_left = LIST_VALUES_MAX;
    cursor.at = object(text, cursor.at, arena, layout, 0, slots)?;
    cursor.space();
    let complete = cursor.at == text.len() && layout.required.iter().all(|slot| !slots[*slot].is_null());
    complete.then_some(())
}

/// Reads the object of this number, which begins at `at`. Returns where it ends.
fn object<'b>(
    text: &'b str,
    at: usize,
    arena: &'b Bump,
    layout: &mut Layout,
    number: usize,
    slots: &mut [Slot<'b>],
) -> Option<usize> {
    let mut cursor = Cursor { text, at };
    cursor.expect(b'{')?;
    if cursor.token(b'}') {
        return Some(cursor.at);
    }
    let mut guess = 0;
    loop {
        cursor.token(b'"').then_some(())?;
        let target = match layout.objects[number].match_key(cursor.rest(), guess) {
            Some(found) => {
                cursor.at += found.length;
                guess = found.guess;
                found.target
            }
            None => {
                let target = layout.objects[number].find_key(cursor.string()?, &mut guess);
                cursor.token(b':').then_some(())?;
                target
            }
        };
        cursor.space();
        match target {
            Target::Slot(slot) => slots[slot] = cursor.value(layout.fields[slot].kind, arena)?,
            Target::Ignored => cursor.at = skip_value(text, cursor.at, 0)?,
            Target::Object(below) => {
                // The object may have come before; only its last appearance counts.
                layout.objects[below].slots.iter().for_each(|slot| slots[*slot] = Slot::Null);
                if !cursor.literal(b"null") {
                    cursor.at = object(text, cursor.at, arena, layout, below, slots)?;
                }
            }
            Target::Array(number) => {
                let (array, left) = (&mut layout.arrays[number], &mut layout.list_values_left);
                cursor.at = lists(text, cursor.at, arena, array, left, slots)?;
            }
            Target::Several(_) => return None,
        }
        if !cursor.token(b',') {
            cursor.expect(b'}')?;
            return Some(cursor.at);
        }
    }
}

/// Reads the lists of the array that begins at `at`, which take their values off those that are `left`. Returns where it
/// ends.
#[inline(never)]
fn lists<'b>(
    text: &'b str,
    at: usize,
    arena: &'b Bump,
    array: &mut Array,
    left: &mut usize,
    slots: &mut [Slot<'b>],
) -> Option<usize> {
    let mut cursor = Cursor { text, at };
    if cursor.literal(b"null") {
        // The array may have come before.
        array.slots.iter().for_each(|slot| slots[*slot] = Slot::Null);
        return Some(cursor.at);
    }
    cursor.expect(b'[')?;
    let mut values = bumpalo::collections::Vec::new_in(arena);
    let mut is_over = cursor.token(b']');
    while !is_over {
        cursor.space();
        let start = values.len();
        *left = left.checked_sub(array.slots.len())?;
        values.resize(start + array.slots.len(), Slot::Null);
        let element = &mut values[start..];
        match array.element {
            Target::Object(root) => {
                cursor.at = object(text, cursor.at, arena, &mut array.layout, root, element)?;
            }
            _ => element[0] = cursor.value(array.layout.fields[0].kind, arena)?,
        }
        array.layout.required.iter().all(|slot| !element[*slot].is_null()).then_some(())?;
        if !cursor.token(b',') {
            cursor.expect(b']')?;
            is_over = true;
        }
    }
    array.put(values, arena, slots);
    Some(cursor.at)
}

/// Passes over a value of any kind, which begins at `at`. Returns where it ends.
fn skip_value(text: &str, at: usize, depth: usize) -> Option<usize> {
    let mut cursor = Cursor { text, at };
    match cursor.peek() {
        b'"' => {
            cursor.at += 1;
            cursor.at = string_end(text, cursor.at)? + 1;
        }
        b'-' | b'0'..=b'9' => {
            cursor.number()?;
        }
        b'{' | b'[' if depth == DEPTH_MAX => return None,
        b'{' => return skip_members(text, at, depth, b'}', true),
        b'[' => return skip_members(text, at, depth, b']', false),
        _ => {
            let literal = cursor.literal(b"null") || cursor.literal(b"true") || cursor.literal(b"false");
            literal.then_some(())?;
        }
    }
    Some(cursor.at)
}

/// Passes over an object (which has keys) or an array, up to its `end`.
fn skip_members(text: &str, at: usize, depth: usize, end: u8, keys: bool) -> Option<usize> {
    let mut cursor = Cursor { text, at: at + 1 };
    if cursor.token(end) {
        return Some(cursor.at);
    }
    loop {
        if keys {
            cursor.token(b'"').then_some(())?;
            cursor.string()?;
            cursor.token(b':').then_some(())?;
        }
        cursor.space();
        cursor.at = skip_value(text, cursor.at, depth + 1)?;
        if !cursor.token(b',') {
            cursor.expect(end)?;
            return Some(cursor.at);
        }
    }
}

/// A place in a record's text. It never leaves the function that made it, and its methods are always
/// inlined, so that the place stays in a register: through memory each step would wait for the one
/// before (a third of the time of a record).
struct Cursor<'b> {
    text: &'b str,
    at: usize,
}

/// A number, as it is written: `mantissa` / 10^`fraction` if `plain`.
struct Number {
    negative: bool,
    mantissa: u64,
    fraction: usize,
    /// There is no exponent and the mantissa has at most 18 digits.
    plain: bool,
}

impl<'b> Cursor<'b> {
    #[inline(always)]
    fn rest(&self) -> &'b [u8] {
        &self.text.as_bytes()[self.at..]
    }

    /// The next byte; 0, which is no part of JSON, at the end.
    #[inline(always)]
    fn peek(&self) -> u8 {
        self.text.as_bytes().get(self.at).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn eat(&mut self, byte: u8) -> bool {
        if self.peek() != byte {
            return false;
        }
        self.at += 1;
        true
    }

    #[inline(always)]
    fn expect(&mut self, byte: u8) -> Option<()> {
        self.eat(byte).then_some(())
    }

    /// As `eat`, perhaps behind space; the space is passed over in any case.
    #[inline(always)]
    fn token(&mut self, byte: u8) -> bool {
        if self.eat(byte) {
            return true;
        }
        self.space();
        self.eat(byte)
    }

    #[inline(always)]
    fn space(&mut self) {
        while let b' ' | b'\n' | b'\r' | b'\t' = self.peek() {
            self.at += 1;
        }
    }

    #[inline(always)]
    fn literal(&mut self, literal: &[u8]) -> bool {
        let found = self.peek() == literal[0] && self.rest().starts_with(literal);
        if found {
            self.at += literal.len();
        }
        found
    }

    /// A value of a declared field.
    #[inline(always)]
    fn value(&mut self, kind: Kind, arena: &'b Bump) -> Option<Slot<'b>> {
        if self.literal(b"null") {
            return Some(Slot::Null);
        }
        match kind {
            Kind::String => {
                self.expect(b'"')?;
                self.text(arena).map(Slot::String)
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
    #[inline(always)]
    fn string(&mut self) -> Option<&'b str> {
        let start = self.at;
        let end = start + special(self.rest())?;
        self.at = end;
        self.expect(b'"')?;
        self.text.get(start..end)
    }

    /// As `string`; text with escapes goes to the arena.
    #[inline(always)]
    fn text(&mut self, arena: &'b Bump) -> Option<&'b str> {
        let start = self.at;
        if let Some(text) = self.string() {
            return Some(text);
        }
        let (unescaped, end) = escaped(self.text, start, arena)?;
        self.at = end;
        Some(unescaped)
    }

    #[inline(always)]
    fn int(&mut self) -> Option<i64> {
        let number = self.number()?;
        if !number.plain || number.fraction > 0 {
            return None;
        }
        // At most 18 digits.
        let value = number.mantissa as i64;
        Some(if number.negative { -value } else { value })
    }

    #[inline(always)]
    fn double(&mut self) -> Option<f64> {
        let start = self.at;
        let number = self.number()?;
        if number.plain && number.mantissa < EXACT_MAX {
            // Both are exact, so the quotient is rounded once (Clinger 1990).
            let value = number.mantissa as f64 / POWERS_OF_TEN[number.fraction];
            return Some(if number.negative { -value } else { value });
        }
        self.text.get(start..self.at)?.parse().ok().filter(|value: &f64| value.is_finite())
    }

    #[inline(always)]
    fn number(&mut self) -> Option<Number> {
        let negative = self.eat(b'-');
        let zero = self.peek() == b'0';
        let (mut mantissa, whole) = self.digits(0)?;
        if zero && whole > 1 {
            return None;
        }
        let mut fraction = 0;
        if self.eat(b'.') {
            (mantissa, fraction) = self.digits(mantissa)?;
        }
        let exponent = self.eat(b'e') || self.eat(b'E');
        if exponent {
            let _signed = self.eat(b'-') || self.eat(b'+');
            self.digits(0)?;
        }
        Some(Number { negative, mantissa, fraction, plain: !exponent && whole + fraction <= 18 })
    }

    /// Appends the digits that follow to `number`, which wraps at too many of them. The result and how
    /// many there were, at least one.
    #[inline(always)]
    fn digits(&mut self, mut number: u64) -> Option<(u64, usize)> {
        let mut count = 0;
        for byte in self.rest() {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                break;
            }
            number = number.wrapping_mul(10).wrapping_add(u64::from(digit));
            count += 1;
        }
        self.at += count;
        (count > 0).then_some((number, count))
    }
}

/// The text of the string that begins behind the quote before `start`, and where it ends.
#[inline(never)]
fn escaped<'b>(text: &str, start: usize, arena: &'b Bump) -> Option<(&'b str, usize)> {
    let end = string_end(text, start)?;
    let mut rest = text.get(start..end)?;
    let mut unescaped = bumpalo::collections::String::with_capacity_in(rest.len(), arena);
    while let Some((before, escape)) = rest.split_once('\\') {
        unescaped.push_str(before);
        unescaped.push(match escape.bytes().next()? {
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                // Perhaps one of two that make a character; rare enough for the general way.
                let unescaped: String = sonic_rs::from_str(text.get(start - 1..=end)?).ok()?;
                return Some((arena.alloc_str(&unescaped), end + 1));
            }
            itself => char::from(itself),
        });
        rest = &escape[1..];
    }
    unescaped.push_str(rest);
    Some((unescaped.into_bump_str(), end + 1))
}

/// Where the closing quote stands of the string whose text begins at `start`.
#[inline(always)]
fn string_end(text: &str, start: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut end = start;
    loop {
        end += special(bytes.get(end..)?)?;
        if bytes[end] == b'"' {
            return Some(end);
        }
        end += match bytes.get(end..end + 2)? {
            [b'\\', b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't'] => 2,
            b"\\u" if bytes.get(end + 2..end + 6)?.iter().all(u8::is_ascii_hexdigit) => 6,
            _ => return None,
        };
    }
}

/// Where the first quote, backslash or control character stands. Eight bytes at a time: a byte is zero
/// if subtracting one borrows; above the first hit a borrow may mark a wrong byte, so only the first
/// counts.
#[inline(always)]
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
