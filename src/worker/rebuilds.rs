//! How often a worker whose client broke is made anew.

/// How often in a row a worker is made anew that the group has given nothing. Two processes of one name would
/// otherwise throw each other out of the group for ever.
const IN_A_ROW_MAX: u32 = 5;

/// How often one worker was made anew since it was last assigned partitions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rebuilds(u32);

impl Rebuilds {
    /// Whether it may be made anew once more; `was_assigned` says whether the group had answered the one that
    /// broke.
    pub fn again(&mut self, was_assigned: bool) -> bool {
        self.0 = if was_assigned { 1 } else { self.0 + 1 };
        self.0 <= IN_A_ROW_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_were_assigned_nothing_count_in_a_row() {
        let mut rebuilds = Rebuilds::default();
        assert!((0..5).all(|_| rebuilds.again(false)));
        assert!(!rebuilds.again(false));
        assert!((0..10).all(|_| rebuilds.again(true)));
        assert!((0..4).all(|_| rebuilds.again(false)));
        assert!(!rebuilds.again(false));
    }
}
