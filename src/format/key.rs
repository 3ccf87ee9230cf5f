//! Keys: of records in a topic, and of entries in keyed state.

use bumpalo::Bump;

use super::DecodeError;
use super::json::{write_string, write_value};
use crate::record::{FieldForm, Slot};

/// Appends the key of a sink record made of `fields` (name, form and value, in declared order): of one
/// string its UTF-8 bytes, of one value of another type (or null) its JSON text, of several fields a JSON
/// object. Without fields there is no key, and nothing is appended.
pub fn encode_sink_key(fields: &[(&str, FieldForm, Slot<'_>)], out: &mut Vec<u8>) {
    match fields {
        [] => {}
        [(_, _, Slot::String(text))] => out.extend_from_slice(text.as_bytes()),
        [(_, form, slot)] => write_value(slot, *form, out),
        _ => {
            for (place, (name, form, slot)) in fields.iter().enumerate() {
                out.push(if place == 0 { b'{' } else { b',' });
                write_string(name, out);
                out.push(b':');
                write_value(slot, *form, out);
            }
            out.push(b'}');
        }
    }
}

/// The partition, of `partitions` ones, that the Java client's default partitioner puts a key on; `None`
/// for a record without a key (the Java client then takes any) and if there are no partitions.
///
/// ```
/// # use thalweg::format::key::partition;
/// assert_eq!(partition(Some(b"foobar"), 10), Some(6));
/// assert_eq!(partition(None, 10), None);
/// ```
pub fn partition(key: Option<&[u8]>, partitions: i32) -> Option<i32> {
    // Utils.toPositive of the Java client: it drops the sign, it does not negate.
    let positive = (murmur2(key?) & 0x7fff_ffff) as i32;
    positive.checked_rem(partitions)
}

/// MurmurHash2 of 32 bits with the Java client's seed (org.apache.kafka.common.utils.Utils.murmur2).
fn murmur2(bytes: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    // The length enters with 32 bits; no key is that long.
    let mut hash = SEED ^ bytes.len() as u32;
    let (words, tail) = bytes.as_chunks::<4>();
    for word in words {
        let mut word = u32::from_le_bytes(*word).wrapping_mul(M);
        word ^= word >> 24;
        hash = hash.wrapping_mul(M) ^ word.wrapping_mul(M);
    }
    if !tail.is_empty() {
        hash ^= tail.iter().rev().fold(0, |rest, byte| rest << 8 | u32::from(*byte));
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ hash >> 15
}

// The first byte of each value in a state key. They are part of what is stored: never change or reuse
// one. Zero ends text and bytes, so it is no tag, and neither is 0xff, which follows an escaped zero.
const TAG_NULL: u8 = 1;
const TAG_FALSE: u8 = 2;
const TAG_TRUE: u8 = 3;
const TAG_INT: u8 = 4;
const TAG_DOUBLE: u8 = 5;
const TAG_TIMESTAMP: u8 = 6;
const TAG_DURATION: u8 = 7;
const TAG_STRING: u8 = 8;
const TAG_BYTES: u8 = 9;

const END: u8 = 0;
/// After a zero byte: it belongs to the text.
const ESCAPED: u8 = 0xff;
const SIGN: u64 = 1 << 63;

/// Appends the key of keyed state that is made of `slots`, of which none is a list.
///
/// Equal keys, by value and type, have equal bytes, and only they (-0.0 and 0.0 are equal). The order of
/// the bytes is the order of the keys, field by field: by type, then by value; whatever else follows in a
/// longer key must not begin with 255. Each value is a tag and: eight bytes, big endian, for numbers
/// (the sign flipped; a negative double inverted), or the bytes of text with 0 written as 0 255 and an
/// end of 0 (the tuple layer of FoundationDB).
pub fn encode_state_key(slots: &[Slot<'_>], out: &mut Vec<u8>) {
    for slot in slots {
        match *slot {
            Slot::Null => out.push(TAG_NULL),
            Slot::Bool(false) => out.push(TAG_FALSE),
            Slot::Bool(true) => out.push(TAG_TRUE),
            Slot::Int(value) => push_number(TAG_INT, value as u64 ^ SIGN, out),
            Slot::Double(value) => push_number(TAG_DOUBLE, ordered_bits(value), out),
            Slot::Timestamp(ms) => push_number(TAG_TIMESTAMP, ms as u64 ^ SIGN, out),
            Slot::Duration(ms) => push_number(TAG_DURATION, ms as u64 ^ SIGN, out),
            Slot::String(text) => push_bytes(TAG_STRING, text.as_bytes(), out),
            Slot::Bytes(bytes) => push_bytes(TAG_BYTES, bytes, out),
            Slot::List(_) => {} // a topology's check refuses it
        }
    }
}

/// The number that a value has in a state key behind its tag: equal for equal values of a type and in their order. `None`
/// for null, text, bytes and lists.
pub fn state_key_number(slot: &Slot<'_>) -> Option<u64> {
    Some(match *slot {
        Slot::Bool(value) => u64::from(value),
        Slot::Int(value) | Slot::Timestamp(value) | Slot::Duration(value) => value as u64 ^ SIGN,
        Slot::Double(value) => ordered_bits(value),
        Slot::Null | Slot::String(_) | Slot::Bytes(_) | Slot::List(_) => return None,
    })
}

fn push_number(tag: u8, bits: u64, out: &mut Vec<u8>) {
    out.push(tag);
    out.extend_from_slice(&bits.to_be_bytes());
}

/// The bits of a double in an order that is that of the values.
fn ordered_bits(value: f64) -> u64 {
    let bits = if value == 0.0 { 0 } else { value.to_bits() };
    if bits & SIGN == 0 { bits | SIGN } else { !bits }
}

fn push_bytes(tag: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    for (place, piece) in bytes.split(|byte| *byte == 0).enumerate() {
        if place > 0 {
            out.extend_from_slice(&[0, ESCAPED]);
        }
        out.extend_from_slice(piece);
    }
    out.push(END);
}

/// Reads what [`encode_state_key`] wrote of as many slots as there are in `slots`. Text and bytes are
/// borrowed from `key`, or from `arena` if there are zeros in them. Anything else is an error, also bytes
/// that follow.
pub fn decode_state_key<'b>(
    key: &'b [u8],
    arena: &'b Bump,
    slots: &mut [Slot<'b>],
) -> Result<(), DecodeError> {
    let mut rest = key;
    for (place, slot) in slots.iter_mut().enumerate() {
        *slot = take_slot(&mut rest, arena)
            .ok_or_else(|| DecodeError::new(format!("value {place} of the state key {key:?} is invalid")))?;
    }
    match rest.len() {
        0 => Ok(()),
        left => Err(DecodeError::new(format!("{left} bytes too many in the state key {key:?}"))),
    }
}

fn take_slot<'b>(rest: &mut &'b [u8], arena: &'b Bump) -> Option<Slot<'b>> {
    let tag = *rest.split_off_first()?;
    Some(match tag {
        TAG_NULL => Slot::Null,
        TAG_FALSE => Slot::Bool(false),
        TAG_TRUE => Slot::Bool(true),
        TAG_INT => Slot::Int(take_int(rest)?),
        TAG_DOUBLE => {
            let bits = take_bits(rest)?;
            Slot::Double(f64::from_bits(if bits & SIGN == 0 { !bits } else { bits ^ SIGN }))
        }
        TAG_TIMESTAMP => Slot::Timestamp(take_int(rest)?),
        TAG_DURATION => Slot::Duration(take_int(rest)?),
        TAG_STRING => Slot::String(std::str::from_utf8(take_bytes(rest, arena)?).ok()?),
        TAG_BYTES => Slot::Bytes(take_bytes(rest, arena)?),
        _ => return None,
    })
}

fn take_bits(rest: &mut &[u8]) -> Option<u64> {
    let (bits, after) = rest.split_first_chunk::<8>()?;
    *rest = after;
    Some(u64::from_be_bytes(*bits))
}

fn take_int(rest: &mut &[u8]) -> Option<i64> {
    Some((take_bits(rest)? ^ SIGN) as i64)
}

fn take_bytes<'b>(rest: &mut &'b [u8], arena: &'b Bump) -> Option<&'b [u8]> {
    let mut end = zero(rest, 0)?;
    if rest.get(end + 1) != Some(&ESCAPED) {
        let bytes = &rest[..end];
        *rest = &rest[end + 1..];
        return Some(bytes);
    }
    let mut bytes = bumpalo::collections::Vec::new_in(arena);
    let mut start = 0;
    while rest.get(end + 1) == Some(&ESCAPED) {
        bytes.extend_from_slice(&rest[start..=end]);
        start = end + 2;
        end = zero(rest, start)?;
    }
    bytes.extend_from_slice(&rest[start..end]);
    *rest = &rest[end + 1..];
    Some(bytes.into_bump_slice())
}

/// Where the first zero from `from` on stands.
fn zero(bytes: &[u8], from: usize) -> Option<usize> {
    Some(from + bytes.get(from..)?.iter().position(|byte| *byte == 0)?)
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use proptest::prelude::*;

    use super::*;

    /// From UtilsTest.testMurmur2 of Apache Kafka.
    #[test]
    fn murmur2_is_that_of_the_java_client() {
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key}");
            assert_eq!(partition(Some(key.as_bytes()), 7), Some((hash & i32::MAX) % 7), "{key}");
        }
        assert_eq!(partition(Some(b""), 1), Some(0));
        assert_eq!(partition(Some(b"a"), 0), None);
        assert_eq!(partition(None, 4), None);
    }

    #[test]
    fn sink_keys_are_text_json_or_an_object() {
        let key = |fields: &[(&str, FieldForm, Slot<'_>)]| {
            let mut out = Vec::new();
            encode_sink_key(fields, &mut out);
            String::from_utf8(out).unwrap()
        };
        let (plain, text) = (FieldForm::Plain, FieldForm::Rfc3339);
        assert_eq!(key(&[]), "");
        assert_eq!(key(&[("a", plain, Slot::String("x\"y"))]), "x\"y");
        assert_eq!(key(&[("a", plain, Slot::Int(7))]), "7");
        assert_eq!(key(&[("a", plain, Slot::Double(7.0))]), "7.0");
        assert_eq!(key(&[("a", plain, Slot::Null)]), "null");
        assert_eq!(key(&[("a", text, Slot::Timestamp(0))]), r#""1970-01-01T00:00:00Z""#);
        assert_eq!(
            key(&[("b\"", plain, Slot::String("x")), ("a", plain, Slot::Timestamp(5))]),
            r#"{"b\"":"x","a":5}"#
        );
    }

    fn state_key(slots: &[Slot<'_>]) -> Vec<u8> {
        let mut out = Vec::new();
        encode_state_key(slots, &mut out);
        out
    }

    #[test]
    fn the_bytes_of_state_keys_stay_as_they_are() {
        for (slot, bytes) in [
            (Slot::Null, &[1][..]),
            (Slot::Bool(false), &[2]),
            (Slot::Bool(true), &[3]),
            (Slot::Int(-1), &[4, 0x7f, 255, 255, 255, 255, 255, 255, 255]),
            (Slot::Double(1.0), &[5, 0xbf, 0xf0, 0, 0, 0, 0, 0, 0]),
            (Slot::Double(-1.0), &[5, 0x40, 0x0f, 255, 255, 255, 255, 255, 255]),
            (Slot::Timestamp(1), &[6, 0x80, 0, 0, 0, 0, 0, 0, 1]),
            (Slot::Duration(1), &[7, 0x80, 0, 0, 0, 0, 0, 0, 1]),
            (Slot::String("a\0b"), &[8, b'a', 0, 255, b'b', 0]),
            (Slot::Bytes(&[0]), &[9, 0, 255, 0]),
        ] {
            assert_eq!(state_key(&[slot]), bytes, "{slot:?}");
        }
        assert_eq!(state_key(&[Slot::Double(-0.0)]), state_key(&[Slot::Double(0.0)]));
        assert_ne!(state_key(&[Slot::Int(1)]), state_key(&[Slot::Double(1.0)]));
    }

    #[test]
    fn damaged_state_keys_are_refused() {
        let arena = Bump::new();
        for key in [
            &[][..],
            &[0],
            &[10],
            &[4, 0, 0],
            &[8],
            &[8, b'a'],
            &[8, b'a', 0, 255],
            &[8, 0xff, 0],
            &[1, 1],
            &[8, b'a', 0, 0],
        ] {
            assert!(decode_state_key(key, &arena, &mut [Slot::Null]).is_err(), "{key:?}");
        }
    }

    /// An owned value to make slots of.
    #[derive(Clone, Debug)]
    enum Owned {
        Null,
        Bool(bool),
        Int(i64),
        Double(f64),
        Timestamp(i64),
        Duration(i64),
        String(String),
        Bytes(Vec<u8>),
    }

    impl Owned {
        fn slot(&self) -> Slot<'_> {
            match self {
                Owned::Null => Slot::Null,
                Owned::Bool(value) => Slot::Bool(*value),
                Owned::Int(value) => Slot::Int(*value),
                Owned::Double(value) => Slot::Double(*value),
                Owned::Timestamp(value) => Slot::Timestamp(*value),
                Owned::Duration(value) => Slot::Duration(*value),
                Owned::String(value) => Slot::String(value),
                Owned::Bytes(value) => Slot::Bytes(value),
            }
        }
    }

    fn value() -> impl Strategy<Value = Owned> {
        let small_text = prop::collection::vec(prop::sample::select(vec!['\0', '\u{1}', 'a', 'ÿ']), 0..4);
        let small_bytes = prop::collection::vec(prop::sample::select(vec![0, 1, 8, 254, 255]), 0..4);
        prop_oneof![
            Just(Owned::Null),
            any::<bool>().prop_map(Owned::Bool),
            any::<i64>().prop_map(Owned::Int),
            (-2_i64..3).prop_map(Owned::Int),
            any::<f64>().prop_filter("no NaN", |value| !value.is_nan()).prop_map(Owned::Double),
            (-2_i64..3).prop_map(|value| Owned::Double(value as f64)),
            any::<i64>().prop_map(Owned::Timestamp),
            any::<i64>().prop_map(Owned::Duration),
            any::<String>().prop_map(Owned::String),
            small_text.prop_map(|text| Owned::String(text.into_iter().collect())),
            small_bytes.prop_map(Owned::Bytes),
        ]
    }

    fn compare(a: &Slot<'_>, b: &Slot<'_>) -> Ordering {
        let rank = |slot: &Slot<'_>| state_key(&[*slot])[0];
        match (a, b) {
            (Slot::Int(a), Slot::Int(b)) => a.cmp(b),
            (Slot::Double(a), Slot::Double(b)) => a.partial_cmp(b).unwrap(),
            (Slot::Timestamp(a), Slot::Timestamp(b)) => a.cmp(b),
            (Slot::Duration(a), Slot::Duration(b)) => a.cmp(b),
            (Slot::String(a), Slot::String(b)) => a.cmp(b),
            (Slot::Bytes(a), Slot::Bytes(b)) => a.cmp(b),
            _ => rank(a).cmp(&rank(b)),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn state_keys_are_read_back(values in prop::collection::vec(value(), 0..5)) {
            let slots: Vec<Slot> = values.iter().map(Owned::slot).collect();
            let (key, arena) = (state_key(&slots), Bump::new());
            let mut read = vec![Slot::Null; slots.len()];
            decode_state_key(&key, &arena, &mut read).unwrap();
            prop_assert_eq!(read, slots);
        }

        #[test]
        fn any_bytes_are_a_state_key_or_refused(key in prop::collection::vec(0_u8..12, 0..20)) {
            let arena = Bump::new();
            let mut slots = [Slot::Null; 2];
            if decode_state_key(&key, &arena, &mut slots).is_ok() {
                prop_assert_eq!(state_key(&slots), key);
            }
        }

        /// In pairs of equal length, which differ in few fields, so that each field decides some time.
        #[test]
        fn state_keys_are_ordered_as_their_values(
            pairs in prop::collection::vec((value(), prop::option::of(value())), 1..4),
            tails in (0_u8..255, 0_u8..255),
        ) {
            let a: Vec<Slot> = pairs.iter().map(|(value, _)| value.slot()).collect();
            let b: Vec<Slot> = pairs.iter().map(|(value, other)| other.as_ref().unwrap_or(value).slot()).collect();
            let order = a.iter().zip(&b).map(|(a, b)| compare(a, b)).find(|order| order.is_ne());
            let (key_a, key_b) = (state_key(&a), state_key(&b));
            prop_assert_eq!(key_a.cmp(&key_b), order.unwrap_or(Ordering::Equal));
            if let Some(order) = order {
                prop_assert_eq!([&key_a[..], &[tails.0]].concat().cmp(&[&key_b[..], &[tails.1]].concat()), order);
            }
        }
    }
}
