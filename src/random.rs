//! What is left to chance: a small seeded generator.

/// A sequence of numbers (SplitMix64, Steele, Lea and Flood 2014): the same seed gives the same one on every
/// machine.
#[derive(Clone, Debug)]
pub struct Random(u64);

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Random {
    /// Starts the sequence of `seed`.
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mix(self.0)
    }

    /// A number below `bound`; 0 if that is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }

    /// A number from 0 on and below 1, of 53 bits.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// A place in a list of this length, which is not 0.
    pub fn place(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }

    /// One of them. There must be one.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }

    /// An independent sequence: of this one's state and `label`. This one stays where it is, so that what
    /// is drawn from the other moves nothing here.
    pub fn fork(&self, label: &str) -> Random {
        // FNV-1a of the label, from the state on.
        let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        Random(mix(label.as_bytes().iter().fold(self.0 ^ 0xcbf2_9ce4_8422_2325, step)))
    }

    /// The `n`th of as many independent sequences as are wanted, of this one's state. This one stays where it is.
    pub fn fork_nth(&self, n: u64) -> Random {
        Random(mix(self.0 ^ mix(n)))
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_that_of_split_mix_64() {
        // The first outputs of the published generator for the seed 1234567.
        let mut random = Random::new(1_234_567);
        assert_eq!(random.bits(), 6_457_827_717_110_365_317);
        assert_eq!(random.bits(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn a_fork_is_another_sequence_and_moves_nothing() {
        let mut random = Random::new(7);
        let (mut input, mut faults) = (random.fork("input"), random.fork("faults"));
        assert_eq!(random.fork("input").bits(), input.clone().bits());
        assert_ne!(input.bits(), faults.bits());
        assert_eq!(random.bits(), Random::new(7).bits());
        random.bits();
        assert_ne!(random.fork("faults").bits(), Random::new(7).fork("faults").bits());

        let before = random.clone().bits();
        let firsts: std::collections::BTreeSet<u64> = (0..1_000).map(|n| random.fork_nth(n).bits()).collect();
        assert_eq!((firsts.len(), random.bits()), (1_000, before));
    }

    #[test]
    fn numbers_stay_below_their_bound() {
        let mut random = Random::new(1);
        let mut seen = [0; 5];
        for _ in 0..1_000 {
            seen[random.below(5) as usize] += 1;
        }
        assert!(seen.iter().all(|count| (150..250).contains(count)), "{seen:?}");
        assert!(random.one_in(1) && random.below(0) == 0);
        assert!((0..1_000).all(|_| (0.0..1.0).contains(&random.unit())));
    }
}
