//! Windows of so many records of a key, whatever their time.

/// Windows of the last so many records of a key, one after every so many.
///
/// Records are aggregated in panes, the longest rows of them that all windows hold or leave out as a whole (J. Li et al.:
/// No pane, no gain, SIGMOD Record 34(1), 2005): of windows that overlap those of the greatest common divisor of size and
/// slide, else the window's own.
///
/// ```
/// use thalweg::window::{CountWindows, PaneOf};
/// // Of six records, after every four: panes of two.
/// let windows = CountWindows::sliding(6, 4);
/// assert_eq!((windows.pane_rows(), windows.panes(), windows.panes_kept()), (2, 3, 1));
/// // Of two records, after every three: the first of three is in none.
/// let apart = CountWindows::sliding(2, 3);
/// assert_eq!([0, 1, 2].map(|rows| apart.pane_of(rows)), [PaneOf::Neither, PaneOf::Next, PaneOf::Last]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountWindows {
    size: i64,
    slide: i64,
}

/// Where a record belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PaneOf {
    /// It lies between two windows.
    Neither,
    /// It begins a pane.
    Next,
    /// To the pane that was begun last.
    Last,
}

impl CountWindows {
    /// Windows of `size` records, one after the other; at least 1, which the topology's check guarantees (less counts
    /// as 1).
    pub fn tumbling(size: i64) -> Self {
        CountWindows::sliding(size, size)
    }

    /// Windows of the last `size` records, after every `slide`; each at least 1, likewise. They overlap, or leave gaps
    /// if `slide` is more than `size`.
    pub fn sliding(size: i64, slide: i64) -> Self {
        CountWindows { size: size.max(1), slide: slide.max(1) }
    }

    /// How many records a window is of.
    pub fn size(&self) -> i64 {
        self.size
    }

    /// After how many records comes the next window.
    pub fn slide(&self) -> i64 {
        self.slide
    }

    /// How many records a pane is of.
    pub fn pane_rows(&self) -> i64 {
        if self.slide >= self.size { self.size } else { greatest_common_divisor(self.size, self.slide) }
    }

    /// How many panes a window is of.
    pub fn panes(&self) -> i64 {
        self.size / self.pane_rows()
    }

    /// How many of them, the last ones, belong to the next window as well.
    pub fn panes_kept(&self) -> i64 {
        (self.size - self.slide).max(0) / self.pane_rows()
    }

    /// Where the next record belongs if `rows` have come since the last window.
    pub fn pane_of(&self, rows: i64) -> PaneOf {
        match rows - (self.slide - self.size).max(0) {
            place if place < 0 => PaneOf::Neither,
            place if place % self.pane_rows() == 0 => PaneOf::Next,
            _ => PaneOf::Last,
        }
    }
}

fn greatest_common_divisor(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_window_is_of_the_last_rows(size in 1..12_i64, slide in 1..12_i64, rows in 0..80_i64) {
            let windows = CountWindows::sliding(size, slide);
            let (mut panes, mut since) = (Vec::<Vec<i64>>::new(), 0);
            for row in 0..rows {
                match windows.pane_of(since) {
                    PaneOf::Neither => {}
                    PaneOf::Next => panes.push(vec![row]),
                    PaneOf::Last => panes.last_mut().unwrap().push(row),
                }
                since += 1;
                prop_assert!(panes.len() as i64 <= windows.panes());
                prop_assert!(panes.iter().all(|pane| pane.len() as i64 <= windows.pane_rows()));
                if since == slide {
                    let last: Vec<i64> = ((row + 1 - size).max(0)..=row).collect();
                    prop_assert_eq!(panes.concat(), last);
                    panes.drain(..panes.len().saturating_sub(windows.panes_kept() as usize));
                    since = 0;
                }
            }
        }
    }
}
