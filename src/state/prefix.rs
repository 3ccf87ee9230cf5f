//! Keys that share a prefix: how long it is, and how to compare what follows fast.

/// How many bytes both begin with.
pub(super) fn shared_prefix(a: &[u8], b: &[u8]) -> usize {
    // Eight bytes at a time: neighbouring keys share their operator, window and much of the user key.
    let mut shared = 0;
    for (x, y) in a.chunks_exact(8).zip(b.chunks_exact(8)) {
        if x != y {
            break;
        }
        shared += 8;
    }
    shared + a[shared..].iter().zip(&b[shared..]).take_while(|(x, y)| x == y).count()
}

/// The first eight bytes of a key, as a number that compares as they do. Keys whose heads differ are in the
/// order of their heads; whose heads are equal, in any. A key of less than eight bytes may have the head of a
/// longer one.
pub(super) fn head(key: &[u8]) -> u64 {
    let mut head = [0; 8];
    let bytes = key.len().min(8);
    head[..bytes].copy_from_slice(&key[..bytes]);
    u64::from_be_bytes(head)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn shared_prefixes_are_longest(
            a in vec(0u8..2, 0..40),
            b in vec(0u8..2, 0..40),
            common in vec(any::<u8>(), 0..40),
        ) {
            let (a, b) = ([&common[..], &a].concat(), [&common[..], &b].concat());
            let shared = shared_prefix(&a, &b);
            prop_assert_eq!(&a[..shared], &b[..shared]);
            prop_assert!(a.get(shared) != b.get(shared) || a.len() == shared || b.len() == shared);
        }

        #[test]
        fn heads_that_differ_are_in_the_order_of_their_keys(a in vec(0u8..3, 0..12), b in vec(0u8..3, 0..12)) {
            prop_assert!(head(&a) == head(&b) || head(&a).cmp(&head(&b)) == a.cmp(&b));
        }
    }
}
