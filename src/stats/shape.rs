//! The shape of a distribution: what the third and fourth moments say.

use super::Moments;
use crate::tensor::Element;

/// Third and fourth central moments of finite values, with the moments that they are taken around.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    moments: Moments,
    m3: f64,
    m4: f64,
}

impl Shape {
    /// The shape of the finite values of `row`, whose moments are `moments`.
    pub fn of<E: Element>(row: &[E], moments: Moments) -> Self {
        let (mut m3, mut m4) = (0.0, 0.0);
        for value in row.iter().map(|value| value.wide()).filter(|value| value.is_finite()) {
            let distance = value - moments.mean;
            m3 += distance.powi(3);
            m4 += distance.powi(4);
        }
        Shape { moments, m3, m4 }
    }

    /// Skewness, `mean((x - mean)^3) / std^3`; `None` where the values are one, up to rounding.
    pub fn skew(&self) -> Option<f64> {
        let (n, variance) = self.spread()?;
        Some(self.m3 / n / variance.powf(1.5))
    }

    /// Excess kurtosis, `mean((x - mean)^4) / std^4 - 3`; `None` where the values are one, up to rounding.
    pub fn kurtosis(&self) -> Option<f64> {
        let (n, variance) = self.spread()?;
        Some(self.m4 / n / (variance * variance) - 3.0)
    }

    /// Count and variance, where the variance is more than the rounding of the mean: scipy's rule.
    fn spread(&self) -> Option<(f64, f64)> {
        let n = self.moments.count as f64;
        let variance = self.moments.m2 / n;
        (self.moments.count > 0 && variance > (f64::EPSILON * self.moments.mean).powi(2)).then_some((n, variance))
    }
}
