//! Quantiles, about: DDSketch (C. Masson, J. Rim, H. Lee, PVLDB 12(12), 2019).
//!
//! Values are counted in buckets whose bounds grow with them, so that the middle of a bucket is near, relative to it, to
//! all that lie there. Within each power of two the bounds lie evenly (the paper's linear interpolation of the logarithm):
//! 50 buckets for each, instead of 35, for which whole numbers do all of the work. A logarithm of the machine's library
//! could differ in its last bit and put a value elsewhere.
//!
//! The state follows from the values alone: not from their order, nor from how parts were merged. That and the bounded,
//! versioned form in which it is stored are why this is not the crate `sketches-ddsketch`, whose buckets come by `ln` and
//! whose state is private.

/// So many buckets for each power of two: the middle of one is within 1/101 of all that lie in it. It is part of what is
/// stored: another number needs fields of its own.
const BUCKETS_PER_OCTAVE: u32 = 50;
/// So many buckets of positive values, and of negative ones, are kept apart.
pub(super) const BUCKETS_MAX: usize = 2_048;
/// No bucket has a greater number: the last of the greatest doubles.
const NUMBER_MAX: u64 = 2_047 * BUCKETS_PER_OCTAVE as u64 - 1;

const FRACTION_BITS: u32 = f64::MANTISSA_DIGITS - 1;

/// How many values there were in each bucket.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DdSketch {
    /// Zeros, and values that are too small to be normal doubles.
    pub(super) zeros: u64,
    pub(super) positive: Buckets,
    /// By their absolute values.
    pub(super) negative: Buckets,
}

/// The buckets of positive values that have any, in ascending order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Buckets(Vec<Bucket>);

#[derive(Clone, Copy, Debug, PartialEq)]
struct Bucket {
    number: u32,
    count: u64,
}

impl DdSketch {
    /// Adds a value, which is finite.
    pub(super) fn add(&mut self, value: f64) {
        if value.abs() < f64::MIN_POSITIVE {
            self.zeros += 1;
        } else {
            let buckets = if value > 0.0 { &mut self.positive } else { &mut self.negative };
            buckets.add(number_of(value.abs()));
        }
    }

    /// Adds what was added to `other`.
    pub(super) fn merge(&mut self, other: &DdSketch) {
        self.zeros = self.zeros.saturating_add(other.zeros);
        self.positive.merge(&other.positive);
        self.negative.merge(&other.negative);
    }

    /// About the value that has a share `q` of all others, from 0 to 1, before it in their order. `None` over nothing.
    pub(super) fn quantile(&self, q: f64) -> Option<f64> {
        let values = [self.negative.count(), self.zeros, self.positive.count()];
        let others = values.into_iter().fold(0, u64::saturating_add).checked_sub(1)?;
        let mut before = (q * others as f64) as u64;
        let negative = self.negative.0.iter().rev().map(|bucket| (-middle(bucket.number), bucket.count));
        let positive = self.positive.0.iter().map(|bucket| (middle(bucket.number), bucket.count));
        let mut last = None;
        for (middle, count) in negative.chain([(0.0, self.zeros)]).chain(positive) {
            if before < count {
                return Some(middle);
            }
            before -= count;
            last = if count > 0 { Some(middle) } else { last };
        }
        // A count beyond 2^53 may be rounded up.
        last
    }

    /// Bytes outside itself.
    pub(super) fn heap_bytes(&self) -> usize {
        (self.positive.0.capacity() + self.negative.0.capacity()) * size_of::<Bucket>()
    }
}

impl Buckets {
    fn count(&self) -> u64 {
        self.0.iter().map(|bucket| bucket.count).fold(0, u64::saturating_add)
    }

    fn add(&mut self, number: u32) {
        match self.0.binary_search_by_key(&number, |bucket| bucket.number) {
            Ok(place) => self.0[place].count += 1,
            // What is less than all of as many as may be counts with the least of them.
            Err(0) if self.0.len() == BUCKETS_MAX => self.0[0].count += 1,
            Err(place) => {
                self.0.insert(place, Bucket { number, count: 1 });
                self.collapse();
            }
        }
    }

    fn merge(&mut self, other: &Buckets) {
        self.0.extend_from_slice(&other.0);
        // Two ascending runs: the stable sort finds them and merges.
        self.0.sort_by_key(|bucket| bucket.number);
        self.0.dedup_by(|later, kept| {
            let same = later.number == kept.number;
            kept.count = if same { kept.count.saturating_add(later.count) } else { kept.count };
            same
        });
        self.collapse();
    }

    /// Counts what is less than the greatest buckets with the least of those. Since it is always the greatest ones that
    /// stay, the order in which values come does not matter.
    fn collapse(&mut self) {
        let too_many = self.0.len().saturating_sub(BUCKETS_MAX);
        let collapsed = self.0.drain(..too_many).map(|bucket| bucket.count).fold(0, u64::saturating_add);
        if let Some(least) = self.0.first_mut() {
            least.count = least.count.saturating_add(collapsed);
        }
    }

    /// As whole numbers: of each bucket how much its number is greater than that of the one before, and its count.
    pub(super) fn numbers(&self) -> Vec<u64> {
        let mut before = 0;
        let pair = |bucket: &Bucket| {
            let distance = bucket.number - std::mem::replace(&mut before, bucket.number);
            [u64::from(distance), bucket.count]
        };
        self.0.iter().flat_map(pair).collect()
    }

    /// Of what [`numbers`](Buckets::numbers) gave; `None` if it did not.
    pub(super) fn of(numbers: &[u64]) -> Option<Buckets> {
        let (pairs, rest) = numbers.as_chunks::<2>();
        let mut number = 0_u64;
        let mut bucket = |[distance, count]: &[u64; 2]| {
            number = number.checked_add(*distance).filter(|number| *number <= NUMBER_MAX)?;
            (*distance > 0 && *count > 0).then_some(Bucket { number: number as u32, count: *count })
        };
        let buckets: Option<Vec<Bucket>> = pairs.iter().map(&mut bucket).collect();
        buckets.filter(|buckets| rest.is_empty() && buckets.len() <= BUCKETS_MAX).map(Buckets)
    }
}

/// The number of a positive normal double's bucket, which is never 0.
fn number_of(value: f64) -> u32 {
    let bits = value.to_bits();
    let (exponent, fraction) = (bits >> FRACTION_BITS, bits & ((1 << FRACTION_BITS) - 1));
    let within = (fraction * u64::from(BUCKETS_PER_OCTAVE)) >> FRACTION_BITS;
    exponent as u32 * BUCKETS_PER_OCTAVE + within as u32
}

/// A bucket's middle: that of whose bounds it is equally far, relative to them.
fn middle(number: u32) -> f64 {
    let (exponent, within) = (number / BUCKETS_PER_OCTAVE, number % BUCKETS_PER_OCTAVE);
    let lower = BUCKETS_PER_OCTAVE + within;
    let power = f64::from_bits(u64::from(exponent) << FRACTION_BITS);
    // 2 l u / (l + u) of the bounds in parts of the power of two: whole numbers, and one rounding.
    power * (f64::from(2 * lower * (lower + 1)) / f64::from((2 * lower + 1) * BUCKETS_PER_OCTAVE))
}
