//! Experts: which are chosen, their products, and how their rows are added.

use super::product::product;
use super::{Call, CpuBackend};
use crate::error::{Error, Result};
use crate::graph::Operation;
use crate::tensor::Rows;

impl CpuBackend {
    /// Operations of routers and experts.
    pub(super) fn route(&self, call: &Call<'_>) -> Result<Rows> {
        let rows = call.rows();
        let values = match call.site.operation {
            Operation::TopK { count } => {
                let x = call.input(0)?;
                self.rows(rows, count as usize, |row, out| top_k(x.row(row), out))
            }
            Operation::ExpertWeights { normalised } => {
                let (all, chosen, width) = (call.input(0)?, call.input(1)?, call.width()?);
                let mut out = vec![0f32; rows * width];
                for (row, out) in out.chunks_exact_mut(width).enumerate() {
                    weights(all.row(row), chosen.row(row), normalised, out)?;
                }
                out
            }
            Operation::ExpertMatMul { slot } => self.expert_product(call, slot as usize)?,
            Operation::ExpertSum => {
                let (factors, slots) = call.inputs.split_first().ok_or_else(|| call.missing("input"))?;
                self.rows(rows, call.width()?, |row, out| {
                    let slots: Vec<&[f32]> = slots.iter().map(|slot| slot.row(row)).collect();
                    weighted(factors.row(row), &slots, out);
                })
            }
            _ => return Err(call.misplaced()),
        };
        call.made(values)
    }

    /// `x W^T` of every row with the matrix of the expert in slot `slot` of its chosen; rows of one expert together.
    fn expert_product(&self, call: &Call<'_>, slot: usize) -> Result<Vec<f32>> {
        let (x, chosen, width) = (call.input(0)?, call.input(1)?, call.width()?);
        let mut rows: Vec<Vec<usize>> = vec![Vec::new(); call.weights.len()];
        for row in 0..call.rows() {
            let number = chosen.row(row).get(slot).ok_or_else(|| call.missing("expert"))?;
            rows[expert(*number, call.weights.len())?].push(row);
        }
        let mut out = vec![0f32; call.rows() * width];
        for (weight, rows) in call.weights.iter().zip(rows).filter(|(_, rows)| !rows.is_empty()) {
            let gathered: Vec<f32> = rows.iter().flat_map(|row| x.row(*row)).copied().collect();
            let made = product(self.kernels, &self.pool, self.semantics, &gathered, weight)?;
            for (row, made) in rows.iter().zip(made.chunks_exact(width)) {
                out[row * width..][..width].copy_from_slice(made);
            }
        }
        Ok(out)
    }
}

/// The numbers of the largest elements of `x`, as many as `out` takes, in ascending order. Of equals the lowest number
/// is taken; NaN is less than everything.
fn top_k(x: &[f32], out: &mut [f32]) {
    let mut numbers: Vec<usize> = (0..x.len()).collect();
    let rank = |number: &usize| if x[*number].is_nan() { None } else { Some(x[*number]) };
    // A stable sort keeps equals in the order of their numbers; `None` is less than any number.
    numbers.sort_by(|a, b| rank(b).partial_cmp(&rank(a)).unwrap_or(std::cmp::Ordering::Equal));
    numbers.truncate(out.len());
    numbers.sort_unstable();
    for (out, number) in out.iter_mut().zip(numbers) {
        *out = number as f32;
    }
}

/// The expert that an element of a row of the chosen names.
fn expert(number: f32, experts: usize) -> Result<usize> {
    let expert = number as usize;
    match expert < experts && expert as f32 == number {
        true => Ok(expert),
        false => Err(Error::internal(format!("{number} is none of {experts} experts"))),
    }
}

/// The probabilities of the chosen; divided by their sum where `normalised`.
fn weights(probabilities: &[f32], chosen: &[f32], normalised: bool, out: &mut [f32]) -> Result<()> {
    for (out, number) in out.iter_mut().zip(chosen) {
        *out = probabilities[expert(*number, probabilities.len())?];
    }
    if normalised {
        let sum = out.iter().fold(0.0, |sum, weight| sum + weight);
        out.iter_mut().for_each(|weight| *weight /= sum);
    }
    Ok(())
}

/// `w[0] * x_0 + w[1] * x_1 + ...` of one row.
fn weighted(weights: &[f32], slots: &[&[f32]], out: &mut [f32]) {
    for (index, (weight, slot)) in weights.iter().zip(slots).enumerate() {
        for (out, x) in out.iter_mut().zip(*slot) {
            *out = if index == 0 { weight * x } else { *out + weight * x };
        }
    }
}

/// `sigmoid(x . gate)`.
pub(super) fn gate(x: &[f32], gate: &[f32]) -> f32 {
    let dot: f64 = x.iter().zip(gate).map(|(x, gate)| f64::from(x * gate)).sum();
    1.0 / (1.0 + (-(dot as f32)).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chosen_are_a_set_in_ascending_order() {
        let mut out = [0.0; 2];
        top_k(&[0.1, 0.4, 0.2, 0.3], &mut out);
        assert_eq!(out, [1.0, 3.0]);
        top_k(&[0.25, 0.25, 0.25, 0.25], &mut out);
        assert_eq!(out, [0.0, 1.0], "of equals the lowest number");
        top_k(&[f32::NAN, f32::NEG_INFINITY, 0.5, f32::NAN], &mut out);
        assert_eq!(out, [1.0, 2.0], "NaN is never chosen before a number");
        top_k(&[f32::NAN; 3], &mut out);
        assert_eq!(out, [0.0, 1.0]);
    }

    #[test]
    fn weights_are_those_of_the_chosen() {
        let mut out = [0.0; 2];
        weights(&[0.5, 0.25, 0.125, 0.125], &[0.0, 2.0], false, &mut out).unwrap();
        assert_eq!(out, [0.5, 0.125]);
        weights(&[0.5, 0.25, 0.125, 0.125], &[0.0, 2.0], true, &mut out).unwrap();
        assert_eq!(out, [0.8, 0.2]);
        assert!(weights(&[1.0], &[1.0, 0.0], false, &mut out).is_err());
    }

    #[test]
    fn slots_are_added_by_weight() {
        let mut out = [f32::NAN; 2];
        weighted(&[0.5, 2.0], &[&[2.0, 4.0], &[1.0, -1.0]], &mut out);
        assert_eq!(out, [3.0, 0.0]);
        assert!((gate(&[1.0, 2.0], &[0.5, -0.25]) - 0.5).abs() < 1e-7);
    }
}
