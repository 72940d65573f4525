//! Operations that make each element or row from the same row alone. Norms add in f64, in ggml's order of rounding.

use super::{Call, CpuBackend};
use crate::error::Result;
use crate::graph::Operation;
use crate::model::Activation;
use crate::tensor::Rows;

impl CpuBackend {
    /// Operations of elements.
    pub(super) fn by_element(&self, call: &Call<'_>) -> Result<Rows> {
        let x = call.x(0)?;
        let each = |f: &(dyn Fn(f32) -> f32 + Sync)| {
            self.elements(x, |at, out| out.iter_mut().zip(&x[at]).for_each(|(out, x)| *out = f(*x)))
        };
        let values = match call.site.operation {
            Operation::Scale { factor } => each(&|x| x * factor),
            Operation::SoftCap { cap } => each(&|x| soft_cap(x, cap)),
            Operation::Activate(activation) => self.elements(x, |at, out| activate(activation, &x[at], out)),
            Operation::Add | Operation::Sum => {
                let others = call.inputs.iter().skip(1).map(|rows| rows.values()).collect::<Vec<_>>();
                self.elements(x, |at, out| {
                    out.copy_from_slice(&x[at.clone()]);
                    for other in &others {
                        out.iter_mut().zip(&other[at.clone()]).for_each(|(out, x)| *out += x);
                    }
                })
            }
            Operation::Multiply => {
                let y = call.x(1)?;
                self.elements(x, |at, out| zip(out, &x[at.clone()], &y[at], |x, y| x * y))
            }
            Operation::Bias => self.biased(call, x, call.weight(0)?.vector())?,
            _ => return Err(call.misplaced()),
        };
        call.made(values)
    }

    /// A row of biases added to every row.
    pub(super) fn biased(&self, call: &Call<'_>, x: &[f32], bias: &[f32]) -> Result<Vec<f32>> {
        let width = call.width()?;
        Ok(self.rows(call.rows(), width, |row, out| zip(out, &x[row * width..], bias, |x, b| x + b)))
    }

    /// Operations of rows and heads.
    pub(super) fn by_row(&self, call: &Call<'_>) -> Result<Rows> {
        let (x, rows, width) = (call.x(0)?, call.rows(), call.width()?);
        let values = match call.site.operation {
            Operation::RmsNorm { epsilon, weight_offset, groups } => {
                let groups = (groups as usize).max(1);
                let (gain, width) = (call.weight(0)?.vector_plus(weight_offset), width / groups);
                self.rows(rows * groups, width, |row, out| {
                    rms_norm(&x[row * width..][..width], &gain, epsilon, out);
                })
            }
            Operation::LayerNorm { epsilon } => {
                let (gain, bias) = (call.weight(0)?.vector(), call.weight(1)?.vector());
                self.rows(rows, width, |row, out| {
                    layer_norm(&x[row * width..][..width], gain, bias, epsilon, out);
                })
            }
            Operation::Rope { head_dim, rope: parameters, .. } => {
                let stored = call.weights.first().map_or(&[][..], |factors| factors.vector());
                let frequencies = parameters.frequencies(stored);
                self.rows(rows, width, |row, out| {
                    let position = call.batch.first_position + row;
                    rope(&x[row * width..][..width], head_dim as usize, &frequencies, position, out);
                })
            }
            Operation::RowSoftmax => self.rows(rows, width, |row, out| softmax(&x[row * width..][..width], out)),
            _ => return Err(call.misplaced()),
        };
        call.made(values)
    }
}

fn zip(out: &mut [f32], a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) {
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        *out = f(*a, *b);
    }
}

/// `x / sqrt(mean(x^2) + epsilon) * weight`.
fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    let squares: f64 = x.iter().map(|x| f64::from(x * x)).sum();
    let scale = inverse_root(squares, x.len(), epsilon);
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = x * scale * weight;
    }
}

/// `(x - mean) / sqrt(var + epsilon) * weight + bias`, with the population's variance.
fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], epsilon: f32, out: &mut [f32]) {
    let mean = (x.iter().map(|x| f64::from(*x)).sum::<f64>() / x.len() as f64) as f32;
    let scale = inverse_root(squared_distances(x, mean), x.len(), epsilon);
    for (((out, x), weight), bias) in out.iter_mut().zip(x).zip(weight).zip(bias) {
        *out = (x - mean) * scale * weight + bias;
    }
}

/// Sum of `(x - mean)^2`: eight squares at a time are added in f32, in the order of an AVX register's halves, and
/// those sums in f64.
fn squared_distances(x: &[f32], mean: f32) -> f64 {
    let (eights, rest) = x.as_chunks::<8>();
    let square = |x: f32| (x - mean) * (x - mean);
    let eight = |x: &[f32; 8]| {
        let half: [f32; 4] = std::array::from_fn(|i| square(x[i + 4]) + square(x[i]));
        f64::from((half[0] + half[2]) + (half[1] + half[3]))
    };
    eights.iter().map(eight).sum::<f64>() + rest.iter().map(|x| f64::from(square(*x))).sum::<f64>()
}

/// `1 / sqrt(sum / count + epsilon)`, rounded to f32 at each step.
fn inverse_root(sum: f64, count: usize, epsilon: f32) -> f32 {
    1.0 / ((sum / count as f64) as f32 + epsilon).sqrt()
}

/// Turns element `i` of each head with element `i + n`, by `position` times frequency `i` of `n`.
///
/// Angles are f64: at position 10^5 an f32 angle would be off by more than the tolerance of a product.
fn rope(x: &[f32], head_dim: usize, frequencies: &[f64], position: usize, out: &mut [f32]) {
    out.copy_from_slice(x);
    let turn = |frequency: &f64| {
        let angle = position as f64 * frequency;
        (angle.cos() as f32, angle.sin() as f32)
    };
    let turns: Vec<(f32, f32)> = frequencies.iter().map(turn).collect();
    for head in out.chunks_exact_mut(head_dim.max(1)) {
        let (first, second) = head.split_at_mut(turns.len());
        for ((a, b), (cos, sin)) in first.iter_mut().zip(second).zip(&turns) {
            (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
        }
    }
}

/// `cap * tanh(x / cap)`.
pub(super) fn soft_cap(x: f32, cap: f32) -> f32 {
    (x / cap).tanh() * cap
}

/// Softmax of a whole row, the largest taken away first; added in f64.
fn softmax(x: &[f32], out: &mut [f32]) {
    let largest = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for (out, x) in out.iter_mut().zip(x) {
        *out = (x - largest).exp();
    }
    let sum: f64 = out.iter().map(|x| f64::from(*x)).sum();
    out.iter_mut().for_each(|out| *out = (f64::from(*out) / sum) as f32);
}

/// The activation function, element by element.
fn activate(activation: Activation, x: &[f32], out: &mut [f32]) {
    let function = match activation {
        Activation::Silu => |x: f32| x / (1.0 + (-x).exp()),
        Activation::GeluTanh => |x: f32| {
            let inner = (2.0 / std::f32::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
            0.5 * x * (1.0 + inner.tanh())
        },
        Activation::GeluErf => |x: f32| 0.5 * x * (1.0 + libm::erff(x * std::f32::consts::FRAC_1_SQRT_2)),
        Activation::GeluQuick => |x: f32| x / (1.0 + (-1.702 * x).exp()),
    };
    for (out, x) in out.iter_mut().zip(x) {
        *out = function(*x);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn norms_match_hand_values() {
        let mut out = [0.0; 2];
        rms_norm(&[3.0, 4.0], &[1.0, 2.0], 0.0, &mut out);
        let root = 12.5f32.sqrt();
        assert!((out[0] - 3.0 / root).abs() < 1e-6 && (out[1] - 8.0 / root).abs() < 1e-6);
        layer_norm(&[1.0, 3.0], &[2.0, 2.0], &[0.5, 0.5], 0.0, &mut out);
        assert_eq!(out, [-1.5, 2.5]);
    }

    #[test]
    fn rope_turns_halves_and_leaves_the_rest_and_position_zero() {
        let x = [1.0, 2.0, 3.0, 4.0, 5.0];
        let mut out = [0.0; 5];
        rope(&x, 5, &[1.0, 0.1], 0, &mut out);
        assert_eq!(out, x);
        rope(&x, 5, &[1.0, 0.1], 3, &mut out);
        let (a, b) = (3.0f32, 0.3f32);
        let expected = [
            a.cos() - 3.0 * a.sin(),
            2.0 * b.cos() - 4.0 * b.sin(),
            a.sin() + 3.0 * a.cos(),
            2.0 * b.sin() + 4.0 * b.cos(),
            5.0,
        ];
        assert!(out.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{out:?} {expected:?}");
    }

    #[test]
    fn activations_match_published_values() {
        let mut out = [0.0; 3];
        activate(Activation::Silu, &[0.0, 1.0, -2.0], &mut out);
        assert!((out[1] - 0.731_058_6).abs() < 1e-6 && (out[2] + 0.238_405_84).abs() < 1e-6);
        activate(Activation::GeluTanh, &[0.0, 1.0, -2.0], &mut out);
        assert!((out[1] - 0.841_192).abs() < 1e-6 && (out[2] + 0.045_402_3).abs() < 1e-6);
        activate(Activation::GeluErf, &[0.0, 1.0, -2.0], &mut out);
        assert!((out[1] - 0.841_344_7).abs() < 1e-6 && (out[2] + 0.045_500_26).abs() < 1e-6);
        activate(Activation::GeluQuick, &[0.0, 1.0, -2.0], &mut out);
        assert!((out[1] - 0.845_795_7).abs() < 1e-6 && (out[2] + 0.064_341_3).abs() < 1e-5);
    }

    #[test]
    fn caps_and_softmax_match_hand_values() {
        assert_eq!(soft_cap(0.0, 30.0), 0.0);
        assert!((soft_cap(30.0, 30.0) - 30.0 * 1f32.tanh()).abs() < 1e-6 && soft_cap(1e30, 30.0) == 30.0);
        let mut out = [0.0; 3];
        softmax(&[1e30, 1e30, f32::NEG_INFINITY], &mut out);
        assert_eq!(out, [0.5, 0.5, 0.0]);
        softmax(&[0.0, f32::NAN, 1.0], &mut out);
        assert!(out.iter().all(|p| p.is_nan()));
    }
}
