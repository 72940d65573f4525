//! Statistics of one token row, and how rows merge.
//!
//! Everything is accumulated in f64, over eight lanes in a fixed order, so that every machine gives the same bits.

use super::row_fingerprint;

const LANES: usize = 8;

/// Statistics of one row of f32 values. Moments are over the finite values; the rest is counted beside them.
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
    /// Subnormals of the captured type.
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
    pub fn of(row: &[f32]) -> Self {
        let counts = Counts::of(row);
        let finite = counts.finite(row.len());
        let sums = Sums::of(row);
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
            abs_smallest: (sums.abs_smallest < f32::INFINITY).then(|| f64::from(sums.abs_smallest)),
            moments: Moments { count: u64::from(finite), mean, m2 },
            l1: sums.l1,
            fingerprint: row_fingerprint(row),
        }
    }
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
    fn of(row: &[f32]) -> Self {
        const INF: u32 = 0x7F80_0000;
        let mut counts = Counts::default();
        for value in row {
            let (bits, magnitude) = (value.to_bits(), value.to_bits() & 0x7FFF_FFFF);
            counts.nan += u32::from(magnitude > INF);
            counts.pos_inf += u32::from(bits == INF);
            counts.neg_inf += u32::from(bits == INF | 0x8000_0000);
            counts.zero += u32::from(magnitude == 0);
            counts.subnormal += u32::from(magnitude.wrapping_sub(1) < 0x007F_FFFF);
        }
        counts
    }

    fn finite(&self, length: usize) -> u32 {
        length as u32 - self.nan - self.pos_inf - self.neg_inf
    }
}

struct Sums {
    sum: f64,
    l1: f64,
    min: f32,
    max: f32,
    abs_smallest: f32,
}

impl Sums {
    fn of(row: &[f32]) -> Self {
        let mut sum = [0.0; LANES];
        let mut l1 = [0.0; LANES];
        let mut min = [f32::INFINITY; LANES];
        let mut max = [f32::NEG_INFINITY; LANES];
        let mut smallest = [f32::INFINITY; LANES];
        for chunk in row.chunks(LANES) {
            for (lane, value) in chunk.iter().enumerate() {
                let finite = value.is_finite();
                let kept = if finite { *value } else { 0.0 };
                sum[lane] += f64::from(kept);
                l1[lane] += f64::from(kept.abs());
                min[lane] = min[lane].min(if finite { *value } else { f32::INFINITY });
                max[lane] = max[lane].max(if finite { *value } else { f32::NEG_INFINITY });
                smallest[lane] = smallest[lane].min(if kept == 0.0 { f32::INFINITY } else { kept.abs() });
            }
        }
        Sums {
            sum: sum.iter().sum(),
            l1: l1.iter().sum(),
            min: min.into_iter().fold(f32::INFINITY, f32::min),
            max: max.into_iter().fold(f32::NEG_INFINITY, f32::max),
            abs_smallest: smallest.into_iter().fold(f32::INFINITY, f32::min),
        }
    }

    fn extremes(&self, row: &[f32]) -> Extremes {
        let first = |wanted: &dyn Fn(f32) -> bool| row.iter().position(|value| wanted(*value)).unwrap_or(0) as u32;
        let absmax = self.max.abs().max(self.min.abs());
        Extremes {
            min: (f64::from(self.min), first(&|value| value == self.min)),
            max: (f64::from(self.max), first(&|value| value == self.max)),
            absmax: (f64::from(absmax), first(&|value| value.abs() == absmax)),
        }
    }
}

fn squared_distances(row: &[f32], mean: f64) -> f64 {
    let mut lanes = [0.0; LANES];
    for chunk in row.chunks(LANES) {
        for (lane, value) in chunk.iter().enumerate() {
            let distance = if value.is_finite() { f64::from(*value) - mean } else { 0.0 };
            lanes[lane] += distance * distance;
        }
    }
    lanes.iter().sum()
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

    proptest! {
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
