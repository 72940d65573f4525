//! Operations that make each element or row from the same row alone.

use super::ActivationFormula;
use super::Call;
use super::formula::{activate, gelu_tanh, layer_normed, rms_normed, softmax};
use super::product::Matrix;
use super::rounding::in_f16;
use crate::error::Result;
use crate::graph::Operation;
use crate::tensor::Rows;
use rayon::prelude::*;

/// Rows of the weight by number.
pub(super) fn embedding(call: &Call<'_>, indices: impl ExactSizeIterator<Item = usize>) -> Result<Rows> {
    let (weight, width) = (call.weight(0)?, call.width()?);
    let mut out = vec![0f32; indices.len() * width];
    for (index, row) in indices.zip(out.chunks_exact_mut(width)) {
        weight.row(index, row)?;
    }
    call.made(out)
}

/// Operations of elements.
pub(super) fn by_element(call: &Call<'_>, formula: ActivationFormula) -> Result<Rows> {
    let x = call.x(0)?;
    let each = |f: &(dyn Fn(f64) -> f64 + Sync)| x.par_iter().map(|x| f(f64::from(*x)) as f32).collect::<Vec<f32>>();
    let values = match call.site.operation {
        Operation::Scale { factor } => each(&|x| x * f64::from(factor)),
        Operation::SoftCap { cap } => each(&|x| soft_cap(x, f64::from(cap))),
        Operation::Activate(named) => match formula {
            ActivationFormula::Named => each(&|x| activate(named, x)),
            ActivationFormula::Other(other) => each(&|x| activate(other, x)),
            ActivationFormula::GeluTable => each(&gelu_table),
        },
        // Two f32 addends are added exactly in f64 or rounded where f32 rounds as well: each sum is the f32 sum.
        Operation::Add | Operation::Sum => {
            let mut sum = x.to_vec();
            for other in call.inputs.iter().skip(1) {
                sum.iter_mut().zip(other.values()).for_each(|(sum, x)| *sum += x);
            }
            sum
        }
        Operation::Multiply => {
            let y = call.x(1)?;
            x.iter().zip(y).map(|(x, y)| (f64::from(*x) * f64::from(*y)) as f32).collect()
        }
        Operation::Bias => {
            let (bias, width) = (call.weight(0)?.vector(), call.width()?);
            let biased = |row: &[f32]| row.iter().zip(bias).map(|(x, bias)| x + bias).collect::<Vec<f32>>();
            x.chunks_exact(width).flat_map(biased).collect()
        }
        _ => return Err(call.misplaced()),
    };
    call.made(values)
}

/// Operations of rows and heads.
pub(super) fn by_row(call: &Call<'_>) -> Result<Rows> {
    let (x, width) = (call.x(0)?, call.width()?);
    let each = |width: usize, f: &(dyn Fn(usize, &[f32]) -> Vec<f64> + Sync)| -> Vec<f32> {
        let rows = x.par_chunks_exact(width).enumerate();
        rows.flat_map_iter(|(row, x)| f(row, x)).map(|x| x as f32).collect()
    };
    let values = match call.site.operation {
        Operation::RmsNorm { epsilon, weight_offset, groups } => {
            let gain: Vec<f64> = call.weight(0)?.vector().iter().map(|w| f64::from(w + weight_offset)).collect();
            each(width / (groups as usize).max(1), &|_, x| rms_norm(x, &gain, f64::from(epsilon)))
        }
        Operation::LayerNorm { epsilon } => {
            let (gain, bias) = (call.weight(0)?.vector(), call.weight(1)?.vector());
            each(width, &|_, x| layer_norm(x, gain, bias, f64::from(epsilon)))
        }
        Operation::Rope { head_dim, rope, .. } => {
            let stored = call.weights.first().map_or(&[][..], |factors| factors.vector());
            let frequencies = rope.frequencies(stored);
            let first = call.batch.first_position;
            each(width, &|row, x| turn(x, head_dim as usize, &frequencies, first + row))
        }
        Operation::RowSoftmax => each(width, &|_, x| softmax(x)),
        _ => return Err(call.misplaced()),
    };
    call.made(values)
}

fn wide(x: &[f32]) -> impl Iterator<Item = f64> + '_ {
    x.iter().map(|x| f64::from(*x))
}

/// `x / sqrt(mean(x^2) + epsilon) * gain`.
fn rms_norm(x: &[f32], gain: &[f64], epsilon: f64) -> Vec<f64> {
    rms_normed(x, epsilon).zip(gain).map(|(x, gain)| x * gain).collect()
}

/// `(x - mean) / sqrt(var + epsilon) * gain + bias`, with the population's variance.
fn layer_norm(x: &[f32], gain: &[f32], bias: &[f32], epsilon: f64) -> Vec<f64> {
    layer_normed(x, epsilon).zip(wide(gain).zip(wide(bias))).map(|(x, (gain, bias))| x * gain + bias).collect()
}

/// Turns element `i` of each head with element `i + n`, by `position` times frequency `i` of `n`.
fn turn(x: &[f32], head_dim: usize, frequencies: &[f64], position: usize) -> Vec<f64> {
    let half = frequencies.len();
    let turned = |head: &[f32]| {
        let mut out: Vec<f64> = wide(head).collect();
        for (i, frequency) in frequencies.iter().enumerate() {
            let (sin, cos) = (position as f64 * frequency).sin_cos();
            if let (Some(a), Some(b)) = (head.get(i), head.get(i + half)) {
                let (a, b) = (f64::from(*a), f64::from(*b));
                (out[i], out[i + half]) = (a * cos - b * sin, a * sin + b * cos);
            }
        }
        out
    };
    x.chunks(head_dim.max(1)).flat_map(turned).collect()
}

/// `cap * tanh(x / cap)`.
pub(super) fn soft_cap(x: f64, cap: f64) -> f64 {
    cap * (x / cap).tanh()
}

/// [`ActivationFormula::GeluTable`].
fn gelu_table(x: f64) -> f64 {
    if x <= -10.0 {
        0.0
    } else if x >= 10.0 {
        x
    } else {
        f64::from(in_f16(gelu_tanh(f64::from(in_f16(x as f32))) as f32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: &[f64], expected: &[f64]) -> bool {
        found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9)
    }

    #[test]
    fn norms_match_hand_values() {
        let root = 12.5f64.sqrt();
        assert!(near(&rms_norm(&[3.0, 4.0], &[1.0, 2.0], 0.0), &[3.0 / root, 8.0 / root]));
        assert!(near(&layer_norm(&[1.0, 3.0], &[2.0, 2.0], &[0.5, 0.5], 0.0), &[-1.5, 2.5]));
    }

    #[test]
    fn a_turn_keeps_lengths_and_position_zero_keeps_all() {
        let x = [1.0, 2.0, 3.0, 4.0, 5.0];
        assert!(near(&turn(&x, 5, &[1.0, 0.1], 0), &[1.0, 2.0, 3.0, 4.0, 5.0]));
        let turned = turn(&x, 5, &[1.0, 0.1], 3);
        assert!((turned[0].hypot(turned[2]) - 10f64.sqrt()).abs() < 1e-12 && turned[4] == 5.0);
        assert!((turned[0] - (3f64.cos() - 3.0 * 3f64.sin())).abs() < 1e-12);
    }

    #[test]
    fn the_table_is_gelu_in_f16() {
        assert_eq!((gelu_table(-11.0), gelu_table(11.0)), (0.0, 11.0));
        assert!((gelu_table(1.0) - 0.841_191_990_6).abs() < 3e-4);
    }

    #[test]
    fn a_cap_bounds() {
        assert!((soft_cap(1e30, 30.0) - 30.0).abs() < 1e-12);
    }
}
