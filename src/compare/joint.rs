//! How two rows vary about their means, and with each other.

/// Means, sums of squared distances from them, and the sum of products of distances: mergeable, and safe where the
/// means are large against the spread.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct JointMoments {
    /// Pairs.
    pub count: u64,
    /// Means of the reference and the target; 0 where there is no pair.
    pub means: (f64, f64),
    /// Sums of squared distances from the means.
    pub m2: (f64, f64),
    /// Sum of products of both distances.
    pub products: f64,
}

impl JointMoments {
    /// Moments of both sets together (Chan, Golub and LeVeque 1979).
    #[must_use]
    pub fn merge(self, other: JointMoments) -> JointMoments {
        if self.count == 0 || other.count == 0 {
            return if self.count == 0 { other } else { self };
        }
        let (a, b) = (self.count as f64, other.count as f64);
        let (r, t) = (other.means.0 - self.means.0, other.means.1 - self.means.1);
        let (share, weight) = (b / (a + b), a * b / (a + b));
        JointMoments {
            count: self.count + other.count,
            means: (self.means.0 + r * share, self.means.1 + t * share),
            m2: (self.m2.0 + other.m2.0 + r * r * weight, self.m2.1 + other.m2.1 + t * t * weight),
            products: self.products + other.products + r * t * weight,
        }
    }
}

/// Sums of distances from the first pair, from which the moments follow. Those of a constant row are 0 exactly; in others
/// what is subtracted is at most n times what is left, as the first value is one of the row.
#[derive(Debug, Clone, Copy, Default)]
pub struct JointSums {
    origin: Option<(f64, f64)>,
    sums: (f64, f64),
    squares: (f64, f64),
    products: f64,
}

impl JointSums {
    /// Adds a pair of finite values.
    #[inline]
    pub fn add(&mut self, r: f64, t: f64) {
        let origin = *self.origin.get_or_insert((r, t));
        let (r, t) = (r - origin.0, t - origin.1);
        self.sums.0 += r;
        self.sums.1 += t;
        self.squares.0 += r * r;
        self.squares.1 += t * t;
        self.products += r * t;
    }

    /// The moments of `count` pairs.
    pub fn moments(&self, count: u64) -> JointMoments {
        let Some(origin) = self.origin else { return JointMoments::default() };
        let n = count as f64;
        let means = (self.sums.0 / n, self.sums.1 / n);
        let m2 = |squares: f64, sum: f64, mean: f64| (squares - sum * mean).max(0.0);
        JointMoments {
            count,
            means: (origin.0 + means.0, origin.1 + means.1),
            m2: (m2(self.squares.0, self.sums.0, means.0), m2(self.squares.1, self.sums.1, means.1)),
            products: self.products - self.sums.0 * means.1,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::compare::{Allclose, Sums};
    use crate::tensor::Element;

    fn sums<E: Element>(reference: &[E], target: &[E]) -> Sums {
        Sums::of(reference, target, Allclose::default()).0
    }

    #[test]
    fn a_constant_row_has_no_correlation_whatever_its_value() {
        let (constant, rising): (Vec<f32>, Vec<f32>) = (vec![0.3; 896], (0..896u16).map(f32::from).collect());
        for whole in [
            sums(&constant, &rising),
            sums(&constant[..100], &rising[..100]).merge(sums(&constant[100..], &rising[100..])),
        ] {
            assert_eq!((whole.pearson(), whole.nmse()), (None, None));
        }
        assert_eq!(sums(&rising, &constant).pearson(), None);
        assert_eq!((sums(&constant, &constant).pearson(), sums(&[0.3f64; 10], &[0.5; 10]).nmse()), (None, None));
    }

    /// Expected values in exact fractions by Python; numpy.corrcoef agrees to 8e-15, and var to 2e-14.
    #[test]
    fn a_large_mean_does_not_swallow_the_spread() {
        let row = |factor: u32, modulus: u32| -> Vec<f64> {
            (0..896u32).map(|i| 1e5 + 1e-4 * f64::from(i * factor % modulus) / f64::from(modulus)).collect()
        };
        let (reference, target) = (row(37, 101), row(53, 97));
        let whole = sums(&reference, &target);
        let merged = sums(&reference[..300], &target[..300]).merge(sums(&reference[300..], &target[300..]));
        // Distances of 1e-4 keep f64's rounding; the mean of a part is rounded at 1e5, which is 1e-7 of the spread.
        for (sums, rounding) in [(whole, 1e-12), (merged, 1e-6)] {
            let (pearson, nmse) = (sums.pearson().unwrap(), sums.nmse().unwrap());
            assert!((pearson - 0.0011303146804749712).abs() < rounding, "{pearson}");
            assert!((nmse - 1.998783541396542).abs() < rounding, "{nmse}");
        }
    }
}
