//! The layout of keys.
//!
//! A key is never empty. Its first byte is a [`KeyKind`], or is reserved: 0 for what a store keeps about
//! itself, 255 for the end of the key space. Byte order is the order of (kind, operator, window end,
//! user key), so that a window is a range, windows lie in the order in which they close, and the layout
//! is the timer index.
//!
//! Window entries:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | [`KeyKind::Window`] |
//! | 1 | length of the operator's id |
//! | 1 to 255 | the operator's id, UTF-8 |
//! | 8 | the window's end in milliseconds, big endian, sign bit flipped |
//! | rest | the user key, as the operator encodes it |
//!
//! Of windows that share panes the end is the pane's, of sessions that of the bucket in which they end, of what else
//! operators remember of a key that of the bucket in which it expires.

/// What a key's first byte says. A number is never given to another kind, nor reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum KeyKind {
    /// An entry of a window operator: its key and window's accumulator.
    Window = 1,
}

/// The first byte of the keys in which a store keeps what it knows about itself.
pub const STORE_KIND: u8 = 0;
/// The start of the key space: no key sorts before it.
pub const START: &[u8] = &[1];
/// The end of the key space, exclusive: every key sorts before it.
pub const END: &[u8] = &[0xff];

/// A user key is at most this long, in bytes, so that an entry always fits a changelog record.
pub const STATE_KEY_BYTES_MAX: usize = 64 << 10;
/// A text kept in an entry is at most this long, in bytes, for the same reason.
pub const STATE_TEXT_BYTES_MAX: usize = 64 << 10;
/// The texts of an entry are at most this long together, in bytes; they share it evenly.
pub const STATE_TEXTS_BYTES_MAX: usize = 512 << 10;
/// What an entry's aggregates keep at most beside texts, in bytes. It is taken from what texts have.
pub const STATE_RESERVED_BYTES_MAX: usize = 256 << 10;

/// An operator's id is at most this long, in bytes.
pub const OPERATOR_ID_BYTES_MAX: usize = 255;

const WINDOW_END_BYTES: usize = 8;

/// The parts of a window entry's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowKey<'k> {
    /// The operator's id.
    pub operator_id: &'k str,
    /// The window's end, in milliseconds since the Unix epoch.
    pub window_end_ms: i64,
    /// The user key.
    pub key: &'k [u8],
}

/// What all keys of a window operator begin with. `operator_id` is 1 to [`OPERATOR_ID_BYTES_MAX`] bytes
/// long, which the topology's check guarantees.
pub fn window_prefix(operator_id: &str) -> Vec<u8> {
    debug_assert!((1..=OPERATOR_ID_BYTES_MAX).contains(&operator_id.len()));
    let mut prefix = Vec::with_capacity(2 + operator_id.len());
    prefix.extend_from_slice(&[KeyKind::Window as u8, operator_id.len() as u8]);
    prefix.extend_from_slice(operator_id.as_bytes());
    prefix
}

/// What all keys of one window begin with; `prefix` is the operator's [`window_prefix`].
pub fn window_end_prefix(prefix: &[u8], window_end_ms: i64) -> Vec<u8> {
    window_key(prefix, window_end_ms, &[])
}

/// The key of a window's entry; `prefix` is the operator's [`window_prefix`].
pub fn window_key(prefix: &[u8], window_end_ms: i64, key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(prefix.len() + WINDOW_END_BYTES + key.len());
    write_window_key(&mut out, prefix, window_end_ms, key);
    out
}

/// As [`window_key`], into a buffer that is reused: what it held is dropped.
pub fn write_window_key(out: &mut Vec<u8>, prefix: &[u8], window_end_ms: i64, key: &[u8]) {
    out.clear();
    out.extend_from_slice(prefix);
    out.extend_from_slice(&((window_end_ms as u64) ^ (1 << 63)).to_be_bytes());
    out.extend_from_slice(key);
}

/// Takes a window entry's key apart; `None` if it is none.
pub fn split(key: &[u8]) -> Option<WindowKey<'_>> {
    let (&kind, rest) = key.split_first()?;
    if kind != KeyKind::Window as u8 {
        return None;
    }
    let (&id_bytes, rest) = rest.split_first()?;
    let (id, rest) = rest.split_at_checked(usize::from(id_bytes))?;
    let (end, key) = rest.split_first_chunk::<WINDOW_END_BYTES>()?;
    Some(WindowKey {
        operator_id: std::str::from_utf8(id).ok()?,
        window_end_ms: (u64::from_be_bytes(*end) ^ (1 << 63)) as i64,
        key,
    })
}

/// The end of the range of all keys that begin with `prefix`: the range is
/// `prefix..next_prefix(prefix)`. [`END`] for the empty prefix.
pub fn next_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut next = prefix.to_vec();
    while let Some(last) = next.pop() {
        if last < 0xff {
            next.push(last + 1);
            return next;
        }
    }
    END.to_vec()
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_layout_never_changes() {
        let key = window_key(&window_prefix("per_minute"), -1, b"k");
        assert_eq!(key, b"\x01\x0aper_minute\x7f\xff\xff\xff\xff\xff\xff\xffk");
    }

    #[test]
    fn what_is_no_window_key_is_not_split() {
        let key = window_key(&window_prefix("op"), 5, b"");
        for cut in 0..key.len() {
            assert_eq!(split(&key[..cut]), None, "cut at {cut}");
        }
        assert_eq!(split(&[STORE_KIND]), None);
        assert_eq!(split(b"\x01\x01\xff12345678"), None, "an id that is not UTF-8");
    }

    proptest! {
        #[test]
        fn split_undoes_window_key(id in "[a-zA-Z0-9._-]{1,100}", end in any::<i64>(), user in vec(any::<u8>(), 0..20)) {
            let key = window_key(&window_prefix(&id), end, &user);
            prop_assert_eq!(split(&key), Some(WindowKey { operator_id: &id, window_end_ms: end, key: &user }));
            prop_assert!(START <= &key[..] && &key[..] < END);
        }

        #[test]
        fn byte_order_is_the_order_of_window_end_and_key(
            a in (any::<i64>(), vec(any::<u8>(), 0..4)),
            b in (any::<i64>(), vec(any::<u8>(), 0..4)),
        ) {
            let prefix = window_prefix("op");
            let (x, y) = (window_key(&prefix, a.0, &a.1), window_key(&prefix, b.0, &b.1));
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
        }

        #[test]
        fn a_prefix_range_holds_the_keys_of_the_prefix_and_no_others(
            prefix in vec(prop_oneof![Just(0xffu8), any::<u8>()], 0..4),
            key in vec(prop_oneof![Just(0xffu8), any::<u8>()], 0..6),
        ) {
            prop_assume!(key.first() != Some(&0xff) && prefix.first() != Some(&0xff));
            let within = prefix <= key && key < next_prefix(&prefix);
            prop_assert_eq!(within, key.starts_with(&prefix));
        }
    }
}
