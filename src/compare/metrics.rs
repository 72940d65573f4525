//! Error metrics between two rows, all computed in one pass, in f64. r is the reference, t the target, e = t - r.
//!
//! Nonfinite values at the same places on both sides agree, and metrics run over the others. Where one side alone is
//! nonfinite there is no number, only [`Sums::disagreeing`].

use super::joint::{JointMoments, JointSums};
use crate::stats::{Moments, nearest_rank};
use crate::tensor::Element;

/// The allclose rule: `|e| <= absolute + relative * |r|`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Allclose {
    /// Absolute tolerance.
    pub absolute: f64,
    /// Relative tolerance.
    pub relative: f64,
}

impl Default for Allclose {
    /// numpy's defaults.
    fn default() -> Self {
        Allclose { absolute: 1e-8, relative: 1e-5 }
    }
}

/// An element where two rows differ.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// Index in the row.
    pub index: u32,
    /// Value of the reference.
    pub reference: f64,
    /// Value of the target.
    pub target: f64,
}

/// Mergeable sums over element pairs, from which every norm-like metric follows.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Sums {
    /// Pairs of finite values.
    pub count: u64,
    /// Pairs of which one is nonfinite, or both in different ways.
    pub disagreeing: u64,
    /// How r and t vary about their means.
    pub joint: JointMoments,
    /// Sum of r^2.
    pub reference_squares: f64,
    /// Sum of t^2.
    pub target_squares: f64,
    /// Sum of r * t.
    pub products: f64,
    /// Sum of e^2.
    pub error_squares: f64,
    /// Sum of e * r.
    pub error_products: f64,
    /// Sum of |e|.
    pub error_absolutes: f64,
    /// Largest |e|.
    pub error_max: f64,
    /// Largest |r|.
    pub reference_max: f64,
    /// Pairs that break the allclose rule.
    pub mismatches: u64,
    /// Smallest relative tolerance that passes with no absolute one; infinite where r is 0 and e is not.
    pub required_rtol: f64,
    /// Pairs with |e| < 0.001 |r|, or e = 0.
    pub within_1e3: u64,
    /// Pairs with |e| < 0.005 |r|, or e = 0.
    pub within_5e3: u64,
    /// Largest distance in units in the last place of f32; f64 values are rounded to f32 for it.
    pub ulp_max: u64,
}

/// A number, or nothing where the rows hold disagreeing nonfinite values or the formula is undefined.
type Metric = Option<f64>;

impl Sums {
    /// Sums over `reference` and `target`, which have one length, and the place of the largest error.
    pub fn of<E: Element>(reference: &[E], target: &[E], rule: Allclose) -> (Self, Option<Difference>) {
        let (mut sums, mut joint) = (Sums::default(), JointSums::default());
        let mut worst: Option<Difference> = None;
        for (index, (r, t)) in reference.iter().zip(target).enumerate() {
            let ulp = ulps(*r, *t);
            let (r, t) = (r.wide(), t.wide());
            if !(r.is_finite() && t.is_finite()) {
                let agree = (r.is_nan() && t.is_nan()) || r == t;
                sums.disagreeing += u64::from(!agree);
                continue;
            }
            sums.ulp_max = sums.ulp_max.max(ulp);
            joint.add(r, t);
            if sums.add(r, t, rule) {
                worst = Some(Difference { index: index as u32, reference: r, target: t });
            }
        }
        sums.joint = joint.moments(sums.count);
        (sums, worst)
    }

    /// Sums over values and their equals, from the moments and the largest magnitude of the finite ones.
    pub fn equal(moments: Moments, absmax: Option<f64>) -> Self {
        let Moments { count, mean, m2 } = moments;
        let n = count as f64;
        let squares = n * mean * mean + m2;
        Sums {
            count,
            joint: JointMoments { count, means: (mean, mean), m2: (m2, m2), products: m2 },
            reference_squares: squares,
            target_squares: squares,
            products: squares,
            reference_max: absmax.unwrap_or(0.0),
            within_1e3: count,
            within_5e3: count,
            ..Sums::default()
        }
    }

    /// Adds a pair of finite values; says whether its error is the largest so far.
    #[inline]
    fn add(&mut self, r: f64, t: f64, rule: Allclose) -> bool {
        let e = t - r;
        let (error, size) = (e.abs(), r.abs());
        self.count += 1;
        self.reference_squares += r * r;
        self.target_squares += t * t;
        self.products += r * t;
        self.error_squares += e * e;
        self.error_products += e * r;
        self.error_absolutes += error;
        self.reference_max = self.reference_max.max(size);
        self.mismatches += u64::from(error > rule.absolute + rule.relative * size);
        self.within_1e3 += u64::from(error < 1e-3 * size || error == 0.0);
        self.within_5e3 += u64::from(error < 5e-3 * size || error == 0.0);
        if error > 0.0 {
            // x / 0 is infinite: no relative tolerance passes.
            self.required_rtol = self.required_rtol.max(error / size);
        }
        let largest = error > self.error_max;
        if largest {
            self.error_max = error;
        }
        largest
    }

    /// Sums over both.
    #[must_use]
    pub fn merge(self, other: Sums) -> Sums {
        Sums {
            count: self.count + other.count,
            disagreeing: self.disagreeing + other.disagreeing,
            joint: self.joint.merge(other.joint),
            reference_squares: self.reference_squares + other.reference_squares,
            target_squares: self.target_squares + other.target_squares,
            products: self.products + other.products,
            error_squares: self.error_squares + other.error_squares,
            error_products: self.error_products + other.error_products,
            error_absolutes: self.error_absolutes + other.error_absolutes,
            error_max: self.error_max.max(other.error_max),
            reference_max: self.reference_max.max(other.reference_max),
            mismatches: self.mismatches + other.mismatches,
            required_rtol: self.required_rtol.max(other.required_rtol),
            within_1e3: self.within_1e3 + other.within_1e3,
            within_5e3: self.within_5e3 + other.within_5e3,
            ulp_max: self.ulp_max.max(other.ulp_max),
        }
    }

    /// Whether no pair disagrees and there is one to compare: else no metric has a value.
    pub fn agree(&self) -> bool {
        self.disagreeing == 0 && self.count > 0
    }

    fn defined(&self, metric: f64) -> Metric {
        self.agree().then_some(metric)
    }

    fn n(&self) -> f64 {
        self.count as f64
    }

    /// Largest |e|; also the smallest absolute tolerance that passes with no relative one.
    pub fn max_abs_diff(&self) -> Metric {
        self.defined(self.error_max)
    }

    /// Mean |e|.
    pub fn mean_abs_diff(&self) -> Metric {
        self.defined(self.error_absolutes / self.n())
    }

    /// Mean e^2.
    pub fn mse(&self) -> Metric {
        self.defined(self.error_squares / self.n())
    }

    /// `sqrt(mse)`.
    pub fn rmse(&self) -> Metric {
        self.mse().map(f64::sqrt)
    }

    /// `norm(e) / norm(r)`; 0 where both are 0, infinite where only r is.
    pub fn rel_l2(&self) -> Metric {
        self.defined(quotient(self.error_squares.sqrt(), self.reference_squares.sqrt()))
    }

    /// `max |e| / max |r|`; 0 where both are 0, infinite where only r is.
    pub fn rel_linf(&self) -> Metric {
        self.defined(quotient(self.error_max, self.reference_max))
    }

    /// `r . t / (norm r * norm t)`; nothing where a norm is 0.
    pub fn cosine(&self) -> Metric {
        let norms = self.reference_squares.sqrt() * self.target_squares.sqrt();
        self.defined(self.products / norms).filter(|_| norms > 0.0).map(|cosine| cosine.clamp(-1.0, 1.0))
    }

    /// `1 - 2 r . t / (norm(r)^2 + norm(t)^2)`; 0 where both norms are.
    pub fn rel_diff(&self) -> Metric {
        let norms = self.reference_squares + self.target_squares;
        self.defined(if norms == 0.0 { 0.0 } else { 1.0 - 2.0 * self.products / norms })
    }

    /// `20 log10(norm r / norm e)`; infinite where e is 0.
    pub fn sqnr_db(&self) -> Metric {
        let (signal, noise) = (self.reference_squares.sqrt(), self.error_squares.sqrt());
        self.defined(if noise == 0.0 { f64::INFINITY } else { 20.0 * (signal / noise).log10() })
    }

    /// `mse / var(r)`; nothing where r is constant.
    pub fn nmse(&self) -> Metric {
        let variance = self.joint.m2.0 / self.n();
        self.mse().filter(|_| variance > 0.0).map(|mse| mse / variance)
    }

    /// Centred cosine; nothing where a side is constant.
    pub fn pearson(&self) -> Metric {
        let norms = self.joint.m2.0.sqrt() * self.joint.m2.1.sqrt();
        self.defined(self.joint.products / norms).filter(|_| norms > 0.0).map(|value| value.clamp(-1.0, 1.0))
    }

    /// `e . r / (r . r)`: finds errors of scale that the relative norm hides; nothing where r is 0.
    pub fn slope(&self) -> Metric {
        self.defined(self.error_products / self.reference_squares).filter(|_| self.reference_squares > 0.0)
    }

    /// Smallest relative tolerance that passes with no absolute one.
    pub fn required_rtol(&self) -> Metric {
        self.defined(self.required_rtol)
    }

    /// Largest distance in units in the last place of f32.
    pub fn ulp_max(&self) -> Option<u64> {
        self.agree().then_some(self.ulp_max)
    }

    /// Share of pairs with a relative error under 0.001.
    pub fn share_rel_1e3(&self) -> Metric {
        self.defined(self.within_1e3 as f64 / self.n())
    }

    /// Share of pairs with a relative error under 0.005.
    pub fn share_rel_5e3(&self) -> Metric {
        self.defined(self.within_5e3 as f64 / self.n())
    }
}

/// A statistic of the target over that of the reference; nothing where the reference's is 0.
pub fn ratio(target: f64, reference: f64) -> Option<f64> {
    (reference != 0.0).then(|| target / reference)
}

/// 0 / 0 is 0: two zero rows agree.
fn quotient(error: f64, reference: f64) -> f64 {
    if error == 0.0 { 0.0 } else { error / reference }
}

/// Distance in units in the last place of f32.
#[inline]
fn ulps<E: Element>(reference: E, target: E) -> u64 {
    ordered(reference.single()).abs_diff(ordered(target.single()))
}

/// The order-preserving image of f32 in the integers: neighbours differ by 1, and both zeros are 0.
fn ordered(value: f32) -> i64 {
    let magnitude = i64::from(value.to_bits() & 0x7FFF_FFFF);
    if value.is_sign_negative() { -magnitude } else { magnitude }
}

/// Percentiles 50 and 99 (nearest rank) of |e| and of the distance in ulp, over pairs of finite values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quantiles {
    /// Median |e|.
    pub error_p50: f64,
    /// 99th percentile of |e|.
    pub error_p99: f64,
    /// 99th percentile of the ulp distance.
    pub ulp_p99: u64,
}

impl Quantiles {
    /// The quantiles of a pair of rows; `None` where no pair is finite.
    pub fn of<E: Element>(reference: &[E], target: &[E]) -> Option<Self> {
        let pairs = || reference.iter().zip(target);
        let finite = || pairs().filter(|(r, t)| r.wide().is_finite() && t.wide().is_finite());
        let mut errors: Vec<f64> = finite().map(|(r, t)| (t.wide() - r.wide()).abs()).collect();
        let mut ulps: Vec<u64> = finite().map(|(r, t)| ulps(*r, *t)).collect();
        let (median, high) = (nearest_rank(0.5, errors.len()), nearest_rank(0.99, errors.len()));
        if errors.is_empty() {
            return None;
        }
        let error_p99 = *errors.select_nth_unstable_by(high, f64::total_cmp).1;
        let error_p50 = *errors.select_nth_unstable_by(median, f64::total_cmp).1;
        let ulp_p99 = *ulps.select_nth_unstable(high).1;
        Some(Quantiles { error_p50, error_p99, ulp_p99 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(reference: &[f32], target: &[f32]) -> Sums {
        Sums::of(reference, target, Allclose::default()).0
    }

    /// Values worked out by hand from the definitions: r = (3, 4), t = (3, 5), e = (0, 1).
    #[test]
    fn a_pair_by_hand() {
        let (sums, worst) = Sums::of(&[3.0, 4.0], &[3.0, 5.0], Allclose::default());
        assert_eq!(sums.max_abs_diff(), Some(1.0));
        assert_eq!(sums.mean_abs_diff(), Some(0.5));
        assert_eq!(sums.rel_l2(), Some(0.2));
        assert_eq!(sums.rel_linf(), Some(0.25));
        assert_eq!(sums.cosine(), Some(29.0 / (5.0 * 34f64.sqrt())));
        assert_eq!(sums.rel_diff(), Some(1.0 - 58.0 / 59.0));
        assert_eq!(sums.nmse(), Some(0.5 / 0.25));
        assert_eq!(sums.slope(), Some(4.0 / 25.0));
        assert_eq!(sums.required_rtol(), Some(0.25));
        assert_eq!((sums.mismatches, sums.share_rel_1e3()), (1, Some(0.5)));
        assert_eq!(worst, Some(Difference { index: 1, reference: 4.0, target: 5.0 }));
    }

    #[test]
    fn a_zero_norm_has_no_cosine_and_two_zero_rows_agree() {
        assert_eq!(sums(&[0.0, 0.0], &[0.0, -0.0]).rel_l2(), Some(0.0));
        assert_eq!(sums(&[0.0, 0.0], &[1.0, 0.0]).cosine(), None);
        assert_eq!(sums(&[0.0, 0.0], &[1.0, 0.0]).rel_l2(), Some(f64::INFINITY));
        assert_eq!(sums(&[1.0, 0.0], &[0.0, 0.0]).rel_l2(), Some(1.0));
    }

    #[test]
    fn nonfinite_on_one_side_gives_no_number_and_on_both_is_left_out() {
        let one_side = sums(&[1.0, f32::NAN], &[1.0, 2.0]);
        assert_eq!((one_side.disagreeing, one_side.rel_l2(), one_side.cosine()), (1, None, None));
        assert_eq!(sums(&[1.0, f32::INFINITY], &[1.0, f32::NEG_INFINITY]).disagreeing, 1);
        let both = sums(&[1.0, f32::NAN], &[1.0, f32::NAN]);
        assert_eq!((both.count, both.rel_l2()), (1, Some(0.0)));
    }

    #[test]
    fn ulps_count_representable_steps_across_zero() {
        assert_eq!(sums(&[1.0], &[1.0 + f32::EPSILON]).ulp_max, 1);
        assert_eq!(sums(&[f32::from_bits(1)], &[-f32::from_bits(1)]).ulp_max, 2);
        assert_eq!(sums(&[0.0], &[-0.0]).ulp_max, 0);
    }

    #[test]
    fn merged_rows_are_the_tensor() {
        let (r, t) = ([1.0, -2.0, 3.5, 0.25], [1.0, -2.5, 3.0, 0.25]);
        let (merged, whole) = (sums(&r[..2], &t[..2]).merge(sums(&r[2..], &t[2..])), sums(&r, &t));
        assert_eq!(Sums { joint: whole.joint, ..merged }, whole);
        // Four numbers near 1, each rounded a few times.
        assert!((merged.pearson().unwrap() - whole.pearson().unwrap()).abs() < 1e-14);
        assert!((merged.nmse().unwrap() - whole.nmse().unwrap()).abs() < 1e-14);
    }

    #[test]
    fn quantiles_are_nearest_ranks() {
        let reference = vec![0.0; 100];
        let target: Vec<f32> = (1..=100).map(|i| i as f32).collect();
        let quantiles = Quantiles::of(&reference, &target).unwrap();
        assert_eq!((quantiles.error_p50, quantiles.error_p99), (50.0, 99.0));
        assert_eq!(Quantiles::of(&[f32::NAN], &[1.0f32]), None);
    }
}
