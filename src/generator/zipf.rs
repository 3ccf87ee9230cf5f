//! Numbers that are distributed as Zipf has it: the `k`th most frequent of `n` comes with a probability
//! proportional to `1 / k^exponent`.
//!
//! By rejection-inversion (W. Hörmann and G. Derflinger, "Rejection-inversion to generate variates from
//! monotone discrete distributions", ACM TOMACS 6(3), 1996): the area below a continuous hat is inverted
//! and rounded, and what lies above the distribution's own steps is rejected, which happens less than once
//! in three draws. A draw takes the same time, and no memory, whatever `n` is; a table would take some
//! megabytes that the caches have a better use for. The crates that have it bring traits and a second
//! family of generators; here it is a page.

use crate::random::Random;

/// A Zipf distribution.
#[derive(Clone, Debug)]
pub struct Zipf {
    n: f64,
    exponent: f64,
    /// The area below the hat, from its left end to one half above 1 less the first step …
    area_first: f64,
    /// … and to one half above `n`.
    area_last: f64,
    /// A draw so close below its number is taken without another look.
    shortcut: f64,
}

impl Zipf {
    /// Of the numbers 1 to `n`, which is not 0. An exponent of 0 is the uniform distribution; it must
    /// not be negative.
    pub fn new(n: u64, exponent: f64) -> Zipf {
        let mut zipf = Zipf { n: n as f64, exponent, area_first: 0.0, area_last: 0.0, shortcut: 0.0 };
        zipf.area_first = zipf.area(1.5) - 1.0;
        zipf.area_last = zipf.area(zipf.n + 0.5);
        zipf.shortcut = 2.0 - zipf.inverse(zipf.area(2.5) - zipf.hat(2.0));
        zipf
    }

    /// The next number.
    pub fn draw(&self, random: &mut Random) -> u64 {
        loop {
            let area = self.area_last + random.unit() * (self.area_first - self.area_last);
            let x = self.inverse(area);
            // Rounding errors may lead out of the range by a hair.
            let k = (x + 0.5).floor().clamp(1.0, self.n);
            if k - x <= self.shortcut || area >= self.area(k + 0.5) - self.hat(k) {
                return k as u64;
            }
        }
    }

    /// The hat: `x^-exponent`.
    fn hat(&self, x: f64) -> f64 {
        (-self.exponent * x.ln()).exp()
    }

    /// Its integral, `(x^(1 - exponent) - 1) / (1 - exponent)`, or `ln x` where the exponent is 1, in a
    /// form that loses nothing near 1.
    fn area(&self, x: f64) -> f64 {
        let ln = x.ln();
        let t = (1.0 - self.exponent) * ln;
        if t.abs() < 1e-8 { ln * (1.0 + t / 2.0) } else { ln * t.exp_m1() / t }
    }

    /// The `x` up to which the area is this.
    fn inverse(&self, area: f64) -> f64 {
        // Below -1 only by rounding.
        let t = (area * (1.0 - self.exponent)).max(-1.0);
        if t.abs() < 1e-8 { (area * (1.0 - t / 2.0)).exp() } else { (area * t.ln_1p() / t).exp() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Draws, and compares how often each of the first numbers, and all others together, came.
    fn check(n: u64, exponent: f64) {
        const DRAWS: u64 = 300_000;
        let (zipf, mut random) = (Zipf::new(n, exponent), Random::new(7));
        let mut counts = vec![0_u64; n as usize];
        for _ in 0..DRAWS {
            counts[zipf.draw(&mut random) as usize - 1] += 1;
        }
        let weight = |k: u64| (k as f64).powf(-exponent);
        let total: f64 = (1..=n).map(weight).sum();
        let first = 10.min(n);
        let rest = |from: u64| (from..=n).map(weight).sum::<f64>();
        let expected = (1..=first).map(weight).chain([rest(first + 1)]).map(|w| w / total * DRAWS as f64);
        let seen = counts[..first as usize].iter().copied().chain([counts[first as usize..].iter().sum()]);
        for (place, (expected, seen)) in expected.zip(seen).enumerate() {
            // Six standard deviations.
            let room = 6.0 * expected.sqrt() + 1.0;
            assert!(
                (seen as f64 - expected).abs() < room,
                "number {} of {n}, exponent {exponent}: {seen} times, not {expected:.0}",
                place + 1
            );
        }
    }

    #[test]
    fn frequencies_are_those_of_the_theory() {
        for n in [1, 2, 10, 1_000, 100_000] {
            for exponent in [0.0, 0.5, 0.99, 1.0, 1.0 + 1e-12, 1.2, 2.0] {
                check(n, exponent);
            }
        }
    }
}
