//! The formulas of operations on one row, in f64.

use crate::model::Activation;

/// The activation functions; GELU after Hendrycks and Gimpel (2016) with erf, its tanh approximation, and its sigmoid
/// approximation (`quick`).
pub fn activate(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::GeluTanh => gelu_tanh(x),
        Activation::GeluErf => 0.5 * x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2)),
        Activation::GeluQuick => x / (1.0 + (-1.702 * x).exp()),
    }
}

pub(super) fn gelu_tanh(x: f64) -> f64 {
    let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
    0.5 * x * (1.0 + inner.tanh())
}

fn wide<T: Copy + Into<f64>>(x: &[T]) -> impl Iterator<Item = f64> + '_ {
    x.iter().map(|x| (*x).into())
}

/// `x / sqrt(mean(x^2) + epsilon)`: RMSNorm without its weight.
pub fn rms_normed<T: Copy + Into<f64>>(x: &[T], epsilon: f64) -> impl Iterator<Item = f64> + '_ {
    let mean = wide(x).map(|x| x * x).sum::<f64>() / x.len() as f64;
    let scale = 1.0 / (mean + epsilon).sqrt();
    wide(x).map(move |x| x * scale)
}

/// `(x - mean) / sqrt(var + epsilon)` with the population's variance: LayerNorm without its weight and bias.
pub fn layer_normed<T: Copy + Into<f64>>(x: &[T], epsilon: f64) -> impl Iterator<Item = f64> + '_ {
    let count = x.len() as f64;
    let mean = wide(x).sum::<f64>() / count;
    let variance = wide(x).map(|x| (x - mean) * (x - mean)).sum::<f64>() / count;
    let scale = 1.0 / (variance + epsilon).sqrt();
    wide(x).map(move |x| (x - mean) * scale)
}

/// Softmax of a row, the largest taken away first.
pub fn softmax<T: Copy + Into<f64>>(x: &[T]) -> Vec<f64> {
    let largest = wide(x).fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = wide(x).map(|x| (x - largest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: &[f64], expected: &[f64]) -> bool {
        found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9)
    }

    #[test]
    fn activations_match_published_values() {
        let values = |activation| [1.0, -2.0].map(|x| activate(activation, x));
        assert!(near(&values(Activation::Silu), &[0.731_058_578_630, -0.238_405_844_044]));
        assert!(near(&values(Activation::GeluErf), &[0.841_344_746_069, -0.045_500_263_896]));
        assert!((gelu_tanh(1.0) - 0.841_191_990_6).abs() < 1e-9);
    }

    #[test]
    fn softmax_of_equals_is_even_and_nan_stays() {
        assert!(near(&softmax(&[1e30f32, 1e30, f32::NEG_INFINITY]), &[0.5, 0.5, 0.0]));
        assert!(softmax(&[0.0, f32::NAN]).iter().all(|p| p.is_nan()));
    }
}
