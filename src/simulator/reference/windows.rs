//! Which windows there are, by their definitions.

use crate::simulator::generate::{Shape, Window};

/// The ends of the windows that an instant lies in, in ascending order.
pub(super) fn ends(window: &Window, time_ms: i64) -> Vec<i64> {
    let (size_ms, since_ms) = (window.size_ms, time_ms - window.offset_ms);
    let ends = match window.shape {
        Shape::Tumbling => vec![since_ms.div_euclid(size_ms) * size_ms + size_ms],
        Shape::Sliding { slide_ms } => {
            let mut ends = Vec::new();
            // The last that begins before or at the instant, and those before it.
            let mut start_ms = since_ms.div_euclid(slide_ms) * slide_ms;
            while start_ms + size_ms > since_ms {
                ends.insert(0, start_ms + size_ms);
                start_ms -= slide_ms;
            }
            ends
        }
        Shape::Cumulative { step_ms } => {
            let start_ms = since_ms.div_euclid(size_ms) * size_ms;
            let ends = (1..=size_ms / step_ms).map(|step| start_ms + step * step_ms);
            ends.filter(|end_ms| *end_ms > since_ms).collect()
        }
        Shape::Session => Vec::new(),
    };
    ends.into_iter().map(|end_ms| end_ms + window.offset_ms).collect()
}

/// The begin of the window that ends at `end_ms`.
pub(super) fn start(window: &Window, end_ms: i64) -> i64 {
    match window.shape {
        Shape::Tumbling | Shape::Sliding { .. } | Shape::Session => end_ms - window.size_ms,
        Shape::Cumulative { .. } => {
            let last_ms = end_ms - 1 - window.offset_ms;
            last_ms.div_euclid(window.size_ms) * window.size_ms + window.offset_ms
        }
    }
}

/// The number of the part of time that an instant lies in: no window begins or ends within one.
pub(super) fn part(window: &Window, time_ms: i64) -> i64 {
    let since_ms = time_ms - window.offset_ms;
    match window.shape {
        Shape::Tumbling | Shape::Session => since_ms.div_euclid(window.size_ms),
        // How many have begun, and how many have ended.
        Shape::Sliding { slide_ms } => {
            since_ms.div_euclid(slide_ms) + (since_ms - window.size_ms).div_euclid(slide_ms)
        }
        Shape::Cumulative { step_ms } => since_ms.div_euclid(step_ms),
    }
}
