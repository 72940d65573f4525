//! Which experts a token goes to, and what comes back.

use super::Call;
use super::ProductRounding;
use crate::error::{Error, Result};
use crate::graph::Operation;
use crate::tensor::Rows;

/// The choice of experts, their weights and their sum.
pub(super) fn route(call: &Call<'_>) -> Result<Rows> {
    let first = call.input(0)?;
    let mut out = Vec::with_capacity(call.rows() * call.width()?);
    for row in 0..call.rows() {
        match call.site.operation {
            Operation::TopK { count } => out.extend(top(first.row(row), count as usize)),
            Operation::ExpertWeights { normalised } => {
                let chosen = call.input(1)?.row(row);
                out.extend(weights(call, first.row(row), chosen, normalised)?);
            }
            Operation::ExpertSum => {
                let mut sum = vec![0f64; call.width()?];
                for (weight, slot) in first.row(row).iter().zip(call.inputs.iter().skip(1)) {
                    let weighted = slot.row(row).iter().map(|x| f64::from(*weight) * f64::from(*x));
                    sum.iter_mut().zip(weighted).for_each(|(sum, x)| *sum += x);
                }
                out.extend(sum.into_iter().map(|x| x as f32));
            }
            _ => return Err(call.misplaced()),
        }
    }
    call.made(out)
}

/// The product with the matrix of the expert that each row's slot names.
pub(super) fn product(call: &Call<'_>, slot: u32, rounding: ProductRounding) -> Result<Rows> {
    let (x, chosen) = (call.input(0)?, call.input(1)?);
    let mut out = Vec::with_capacity(call.rows() * call.width()?);
    for row in 0..call.rows() {
        let number = chosen.row(row).get(slot as usize).copied().unwrap_or(f32::NAN);
        let weight = call.weight(expert(number, call.weights.len())?)?;
        out.extend(super::product::product(x.row(row), weight, rounding)?);
    }
    call.made(out)
}

/// Numbers of the `count` largest, ascending; of equals the lowest number, NaN after everything.
fn top(x: &[f32], count: usize) -> Vec<f32> {
    let mut chosen: Vec<usize> = Vec::with_capacity(count);
    for _ in 0..count.min(x.len()) {
        let free = (0..x.len()).filter(|number| !chosen.contains(number));
        let better = |a: usize, b: usize| x[b] > x[a] || x[a].is_nan() && !x[b].is_nan();
        chosen.extend(free.reduce(|best, number| if better(best, number) { number } else { best }));
    }
    chosen.sort_unstable();
    chosen.into_iter().map(|number| number as f32).collect()
}

fn weights(call: &Call<'_>, probabilities: &[f32], chosen: &[f32], normalised: bool) -> Result<Vec<f32>> {
    let of = |number: &f32| expert(*number, probabilities.len()).map(|expert| f64::from(probabilities[expert]));
    let weights = chosen.iter().map(of).collect::<Result<Vec<f64>>>().map_err(|error| error.of(call.site.point))?;
    let sum: f64 = if normalised { weights.iter().sum() } else { 1.0 };
    Ok(weights.into_iter().map(|weight| (weight / sum) as f32).collect())
}

/// The expert that an element of a row of the chosen names.
fn expert(number: f32, experts: usize) -> Result<usize> {
    let expert = number as usize;
    match expert < experts && expert as f32 == number {
        true => Ok(expert),
        false => Err(Error::damaged(format!("{number} is none of {experts} experts"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chosen_are_a_set_in_ascending_order() {
        assert_eq!(top(&[0.1, 0.4, 0.2, 0.3], 2), [1.0, 3.0]);
        assert_eq!(top(&[0.25; 4], 2), [0.0, 1.0]);
        assert_eq!(top(&[f32::NAN, f32::NEG_INFINITY, 0.5, f32::NAN], 2), [1.0, 2.0]);
        assert_eq!(top(&[f32::NAN; 3], 2), [0.0, 1.0]);
    }

    #[test]
    fn only_whole_numbers_name_experts() {
        assert_eq!(expert(3.0, 4).unwrap(), 3);
        assert!(expert(4.0, 4).is_err() && expert(0.5, 4).is_err() && expert(f32::NAN, 4).is_err());
    }
}
