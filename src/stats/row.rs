//! Statistics of one token row, and how rows merge.
//!
//! Everything is accumulated in f64, over eight lanes in a fixed order, so that every machine gives the same bits. The
//! same loops are compiled a second time for AVX2, without fused multiplication, which would round once less.

#![allow(unsafe_code)]

use super::number::{Number, Word};

const LANES: usize = 8;

/// Statistics of one row of values, in f32 as traces hold them or in f64. Moments are over the finite values; the rest is counted beside them.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct RowStatistics {
    /// Elements.
    pub count: u32,
    /// NaN elements.
    pub nan: u32,
    /// Positive infinities.
    pub pos_inf: u32,
    /// Negative infinities.
    pub neg_inf: u32,
    /// Zeros of either sign.
    pub zero: u32,
    /// Subnormals of the row's type.
    pub subnormal: u32,
    /// Extremes of the finite values; `None` where there is none.
    pub extremes: Option<Extremes>,
    /// Smallest nonzero finite absolute value; `None` where there is none.
    pub abs_smallest: Option<f64>,
    /// Mean and squared distances of the finite values.
    pub moments: Moments,
    /// Sum of the finite absolute values.
    pub l1: f64,
    /// Fingerprint of the bits, nonfinite ones included.
    pub fingerprint: u64,
}

/// Smallest, largest and absolutely largest finite value, each with the first index where it stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Extremes {
    /// Smallest value.
    pub min: (f64, u32),
    /// Largest value.
    pub max: (f64, u32),
    /// Largest absolute value.
    pub absmax: (f64, u32),
}

impl Extremes {
    /// The extremes of a row whose smallest and largest values first stand at these indices: the largest absolute
    /// value is one of both, or both.
    pub fn of(min: (f64, u32), max: (f64, u32)) -> Self {
        let absmax = match min.0.abs().total_cmp(&max.0.abs()) {
            std::cmp::Ordering::Less => max,
            std::cmp::Ordering::Equal => (max.0, min.1.min(max.1)),
            std::cmp::Ordering::Greater => min,
        };
        Extremes { min, max, absmax: (absmax.0.abs(), absmax.1) }
    }
}

/// Count, mean and sum of squared distances from the mean: mergeable, and safe where the mean is large.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Moments {
    /// Values.
    pub count: u64,
    /// Their mean; 0 where there is none.
    pub mean: f64,
    /// Sum of squared distances from the mean.
    pub m2: f64,
}

impl Moments {
    /// Moments of both sets together (Chan, Golub and LeVeque 1979).
    #[must_use]
    pub fn merge(self, other: Moments) -> Moments {
        if self.count == 0 || other.count == 0 {
            return if self.count == 0 { other } else { self };
        }
        let (a, b) = (self.count as f64, other.count as f64);
        let delta = other.mean - self.mean;
        Moments {
            count: self.count + other.count,
            mean: self.mean + delta * (b / (a + b)),
            m2: self.m2 + other.m2 + delta * delta * (a * b / (a + b)),
        }
    }

    /// Population standard deviation, `sqrt(m2 / n)`; `None` of nothing.
    pub fn std(self) -> Option<f64> {
        (self.count > 0).then(|| (self.m2 / self.count as f64).sqrt())
    }

    /// Standard deviation of a sample, `sqrt(m2 / (n - 1))`; `None` of fewer than two.
    pub fn std_sample(self) -> Option<f64> {
        (self.count > 1).then(|| (self.m2 / (self.count - 1) as f64).sqrt())
    }

    /// Root of the mean square, `sqrt(mean^2 + m2 / n)`; `None` of nothing.
    pub fn rms(self) -> Option<f64> {
        (self.count > 0).then(|| (self.mean * self.mean + self.m2 / self.count as f64).sqrt())
    }

    /// Euclidean norm, `sqrt(n * mean^2 + m2)`; `None` of nothing.
    pub fn l2(self) -> Option<f64> {
        (self.count > 0).then(|| (self.count as f64 * self.mean * self.mean + self.m2).sqrt())
    }
}

impl RowStatistics {
    /// The statistics of `row`.
    pub fn of<E: Number>(row: &[E]) -> Self {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the processor was just found to have AVX2.
            return unsafe { of_avx2(row) };
        }
        Self::by_lanes(row)
    }

    #[inline(always)]
    fn by_lanes<E: Number>(row: &[E]) -> Self {
        let sums = Sums::of(row);
        let counts = if sums.normal { Counts::default() } else { Counts::of(row) };
        let finite = counts.finite(row.len());
        let mean = if finite > 0 { sums.sum / f64::from(finite) } else { 0.0 };
        let m2 = squared_distances(row, mean);
        RowStatistics {
            count: row.len() as u32,
            nan: counts.nan,
            pos_inf: counts.pos_inf,
            neg_inf: counts.neg_inf,
            zero: counts.zero,
            subnormal: counts.subnormal,
            extremes: (finite > 0).then(|| sums.extremes(row)),
            abs_smallest: sums.abs_smallest(),
            moments: Moments { count: u64::from(finite), mean, m2 },
            l1: sums.l1,
            fingerprint: E::fingerprint(row),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn of_avx2<E: Number>(row: &[E]) -> RowStatistics {
    RowStatistics::by_lanes(row)
}

#[derive(Default)]
struct Counts {
    nan: u32,
    pos_inf: u32,
    neg_inf: u32,
    zero: u32,
    subnormal: u32,
}

impl Counts {
    #[inline(always)]
    fn of<E: Number>(row: &[E]) -> Self {
        let mut counts = Counts::default();
        for value in row {
            let (bits, magnitude) = (value.bits(), value.magnitude());
            counts.nan += u32::from(magnitude > E::INFINITE);
            counts.pos_inf += u32::from(bits == E::INFINITE);
            counts.neg_inf += u32::from(bits == E::MINUS_INFINITE);
            counts.zero += u32::from(magnitude == E::Bits::ZERO);
            counts.subnormal += u32::from(magnitude.less(E::Bits::ONE) < E::SUBNORMALS);
        }
        counts
    }

    fn finite(&self, length: usize) -> u32 {
        length as u32 - self.nan - self.pos_inf - self.neg_inf
    }
}

/// What is left of a row behind its whole chunks, filled up with `fill`; `None` where nothing is left.
#[inline(always)]
fn filled<E: Number>(rest: &[E], fill: E) -> Option<[E; LANES]> {
    let mut last = [fill; LANES];
    last[..rest.len()].copy_from_slice(rest);
    (!rest.is_empty()).then_some(last)
}

/// The smaller of two numbers that are no NaN; unlike `f32::min` it says which of two zeros.
#[inline(always)]
fn smaller<E: Number>(a: E, b: E) -> E {
    if b < a { b } else { a }
}

#[inline(always)]
fn larger<E: Number>(a: E, b: E) -> E {
    if b > a { b } else { a }
}

/// Sums of finite values, lane by lane.
#[derive(Default)]
struct LaneSums {
    sum: [f64; LANES],
    l1: [f64; LANES],
}

impl LaneSums {
    #[inline(always)]
    fn add<E: Number>(&mut self, chunk: &[E; LANES]) {
        for (lane, value) in chunk.iter().enumerate() {
            let kept = if value.is_finite() { *value } else { E::ZERO };
            self.sum[lane] += kept.wide();
            self.l1[lane] += kept.wide().abs();
        }
    }
}

/// Extremes lane by lane; those of magnitudes as bits, whose order is that of the numbers.
struct LaneExtremes<E: Number> {
    min: [E; LANES],
    max: [E; LANES],
    /// The smallest magnitude less one: zero wraps around and is the largest.
    smallest: [E::Bits; LANES],
    /// The largest magnitude less that of the smallest normal number: zeros and subnormals wrap around, so that one
    /// bound tells a row of normal numbers from all others.
    abnormal: [E::Bits; LANES],
}

impl<E: Number> LaneExtremes<E> {
    #[inline(always)]
    fn add(&mut self, chunk: &[E; LANES]) {
        for (lane, value) in chunk.iter().copied().enumerate() {
            let finite = value.is_finite();
            self.min[lane] = smaller(self.min[lane], if finite { value } else { E::INFINITY });
            self.max[lane] = larger(self.max[lane], if finite { value } else { E::NEG_INFINITY });
        }
    }

    #[inline(always)]
    fn add_magnitudes(&mut self, chunk: &[E; LANES]) {
        for (lane, value) in chunk.iter().enumerate() {
            let magnitude = value.magnitude();
            self.smallest[lane] = self.smallest[lane].min(magnitude.less(E::Bits::ONE));
            self.abnormal[lane] = self.abnormal[lane].max(magnitude.less(E::SMALLEST_NORMAL));
        }
    }
}

struct Sums<E: Number> {
    sum: f64,
    l1: f64,
    min: E,
    max: E,
    /// Bits of the smallest nonzero finite magnitude, less one; above those of every finite number where there is none.
    smallest: E::Bits,
    /// Whether every element is a normal number: most rows are, and need no counting.
    normal: bool,
}

impl<E: Number> Sums<E> {
    #[inline(always)]
    fn of(row: &[E]) -> Self {
        let (chunks, rest) = row.as_chunks::<LANES>();
        let mut sums = LaneSums::default();
        for chunk in chunks {
            sums.add(chunk);
        }
        let (min, max) = ([E::INFINITY; LANES], [E::NEG_INFINITY; LANES]);
        let mut extremes = LaneExtremes { min, max, smallest: [E::Bits::MAX; LANES], abnormal: [E::Bits::ZERO; LANES] };
        for chunk in chunks {
            extremes.add(chunk);
        }
        for chunk in chunks {
            extremes.add_magnitudes(chunk);
        }
        // No sum takes in a NaN, and no extreme changes by one more of an element that is there.
        if let Some(last) = filled(rest, E::NAN) {
            sums.add(&last);
        }
        if let Some(last) = rest.first().and_then(|first| filled(rest, *first)) {
            extremes.add(&last);
            extremes.add_magnitudes(&last);
        }
        Sums {
            sum: sums.sum.iter().sum(),
            l1: sums.l1.iter().sum(),
            min: extremes.min.into_iter().fold(E::INFINITY, smaller),
            max: extremes.max.into_iter().fold(E::NEG_INFINITY, larger),
            smallest: extremes.smallest.into_iter().fold(E::Bits::MAX, E::Bits::min),
            normal: extremes.abnormal.into_iter().fold(E::Bits::ZERO, E::Bits::max)
                < E::INFINITE.less(E::SMALLEST_NORMAL),
        }
    }

    #[inline(always)]
    fn extremes(&self, row: &[E]) -> Extremes {
        // Adding zero makes one zero of both, whichever lane came first.
        let place = |value: E| (value.wide() + 0.0, first(row, value));
        Extremes::of(place(self.min), place(self.max))
    }

    #[inline(always)]
    fn abs_smallest(&self) -> Option<f64> {
        let found = self.smallest < E::INFINITE.less(E::Bits::ONE);
        found.then(|| E::of_magnitude(self.smallest.less(E::Bits::MAX)).wide())
    }
}

/// The first index at which `value` stands.
#[inline(always)]
fn first<E: Number>(row: &[E], value: E) -> u32 {
    const BLOCK: usize = 64;
    for (number, block) in row.chunks(BLOCK).enumerate() {
        // Without an early exit the comparison of a block is a few vector instructions.
        if block.iter().fold(false, |found, element| found | (*element == value)) {
            let within = block.iter().position(|element| *element == value).unwrap_or(0);
            return (number * BLOCK + within) as u32;
        }
    }
    0
}

#[inline(always)]
fn squared_distances<E: Number>(row: &[E], mean: f64) -> f64 {
    let (chunks, rest) = row.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for chunk in chunks {
        add_squared_distances(&mut lanes, chunk, mean);
    }
    if let Some(last) = filled(rest, E::NAN) {
        add_squared_distances(&mut lanes, &last, mean);
    }
    lanes.iter().sum()
}

#[inline(always)]
fn add_squared_distances<E: Number>(lanes: &mut [f64; LANES], chunk: &[E; LANES], mean: f64) {
    for (lane, value) in chunk.iter().copied().enumerate() {
        let distance = if value.is_finite() { value.wide() - mean } else { 0.0 };
        lanes[lane] += distance * distance;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definitions of the documentation, one value at a time.
    fn oracle(row: &[f32]) -> (u64, f64, f64, f64) {
        let finite: Vec<f64> = row.iter().filter(|v| v.is_finite()).map(|v| f64::from(*v)).collect();
        let n = finite.len() as f64;
        let mean = if finite.is_empty() { 0.0 } else { finite.iter().sum::<f64>() / n };
        let m2 = finite.iter().map(|v| (v - mean).powi(2)).sum();
        (finite.len() as u64, mean, m2, finite.iter().map(|v| v.abs()).sum())
    }

    /// f64 sums of at most a few hundred f32 values in another order: a handful of roundings of the largest partial sum.
    fn close(a: f64, b: f64, scale: f64) -> bool {
        (a - b).abs() <= 1e-12 * scale.max(f64::MIN_POSITIVE)
    }

    /// The bits of everything, so that two NaN or two zeros do not pass for each other.
    fn bits(stats: &RowStatistics) -> Vec<u64> {
        let extremes = stats.extremes.map(|e| [e.min, e.max, e.absmax]).into_iter().flatten();
        let mut bits: Vec<u64> = extremes.flat_map(|(value, index)| [value.to_bits(), u64::from(index)]).collect();
        let counts = [stats.count, stats.nan, stats.pos_inf, stats.neg_inf, stats.zero, stats.subnormal];
        bits.extend(counts.map(u64::from));
        bits.extend([stats.moments.mean, stats.moments.m2, stats.l1].map(f64::to_bits));
        bits.extend([stats.moments.count, stats.fingerprint, stats.abs_smallest.map_or(0, f64::to_bits)]);
        bits
    }

    proptest! {
        #[test]
        fn the_processor_s_own_path_gives_the_bits_of_the_plain_one(
            words in prop::collection::vec(any::<u32>(), 0..300), row in prop::collection::vec(-1e3f32..1e3, 0..300),
        ) {
            let wild: Vec<f32> = words.iter().map(|word| f32::from_bits(*word)).collect();
            for row in [wild, row] {
                prop_assert_eq!(bits(&RowStatistics::of(&row)), bits(&RowStatistics::by_lanes(&row)));
            }
        }

        #[test]
        fn any_bits_agree_with_the_definitions(bits in prop::collection::vec(any::<u32>(), 0..200)) {
            let row: Vec<f32> = bits.iter().map(|b| f32::from_bits(*b)).collect();
            let stats = RowStatistics::of(&row);
            let (count, mean, m2, l1) = oracle(&row);
            prop_assert_eq!(stats.moments.count, count);
            prop_assert!(close(stats.moments.mean, mean, l1));
            prop_assert!(close(stats.moments.m2, m2, l1 * l1));
            prop_assert!(close(stats.l1, l1, l1));
            prop_assert_eq!(stats.nan as usize, row.iter().filter(|v| v.is_nan()).count());
            prop_assert_eq!(stats.subnormal as usize, row.iter().filter(|v| v.is_subnormal()).count());
        }

        #[test]
        fn merged_halves_are_the_whole(row in prop::collection::vec(-1e3f32..1e3, 2..200), cut in 0usize..200) {
            let cut = cut.min(row.len());
            let whole = RowStatistics::of(&row).moments;
            let halves = RowStatistics::of(&row[..cut]).moments.merge(RowStatistics::of(&row[cut..]).moments);
            prop_assert_eq!(whole.count, halves.count);
            prop_assert!(close(whole.mean, halves.mean, 1e3));
            prop_assert!(close(whole.m2, halves.m2, 1e6 * row.len() as f64));
        }
    }

    #[test]
    fn extremes_take_the_first_index_and_skip_nonfinite_values() {
        let row = [f32::NAN, 2.0, -3.0, f32::INFINITY, 2.0, 3.0, -0.0, 1e-40];
        let stats = RowStatistics::of(&row);
        let extremes = stats.extremes.unwrap();
        assert_eq!(extremes.min, (-3.0, 2));
        assert_eq!(extremes.max, (3.0, 5));
        assert_eq!(extremes.absmax, (3.0, 2));
        assert_eq!((stats.nan, stats.pos_inf, stats.neg_inf, stats.zero, stats.subnormal), (1, 1, 0, 1, 1));
        assert_eq!(stats.abs_smallest, Some(f64::from(1e-40f32)));
    }

    #[test]
    fn no_finite_value_gives_none_and_not_zero() {
        let stats = RowStatistics::of(&[f32::NAN, f32::NEG_INFINITY]);
        assert_eq!((stats.extremes, stats.abs_smallest), (None, None));
        assert_eq!((stats.moments.std(), stats.moments.rms(), stats.moments.l2()), (None, None, None));
    }

    #[test]
    fn a_large_mean_does_not_swallow_the_spread() {
        let row: Vec<f32> = (0..1000).map(|i| 8192.0 + (i % 2) as f32).collect();
        assert_eq!(RowStatistics::of(&row).moments.std(), Some(0.5));
    }
}
