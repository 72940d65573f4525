//! Products with weights: f64 dots, weights dequantised four rows at a time.

use super::Call;
use super::rounding::{Rounded, in_bf16, in_f16};
use super::{ProductRounding, ReferenceWeight};
use crate::error::Result;
use crate::graph::Operation;
use crate::model::TensorType;
use crate::tensor::Rows;
use rayon::prelude::*;

/// Weight rows that are held in f64 at a time.
const TILE: usize = 4;

/// A matrix that is read one row at a time.
pub(crate) trait Matrix: Sync {
    /// Outputs.
    fn rows(&self) -> usize;

    /// Inputs.
    fn columns(&self) -> usize;

    /// Row `row`, with [`Matrix::columns`] elements.
    fn row(&self, row: usize, out: &mut [f32]) -> Result<()>;

    /// The minima of the blocks of row `row`, for types whose minima ggml multiplies apart; nothing for others.
    fn minima(&self, _row: usize) -> Vec<f64> {
        Vec::new()
    }
}

/// `x W^T` with nothing rounded but the result, row after row.
pub(crate) fn exact_product(x: &[f32], matrix: &impl Matrix) -> Result<Vec<f32>> {
    of_matrix(x, matrix, TensorType::F32, ProductRounding::None)
}

/// Products, and what is done to them at once.
pub(super) fn project(call: &Call<'_>, rounding: ProductRounding) -> Result<Rows> {
    let mut values = product(call.x(0)?, call.weight(0)?, rounding)?;
    let width = call.width()?;
    match call.site.operation {
        Operation::Linear => {
            let bias = call.weight(1)?.vector();
            for row in values.chunks_exact_mut(width) {
                row.iter_mut().zip(bias).for_each(|(x, bias)| *x += bias);
            }
        }
        Operation::GatedMatMul => {
            let (gated, gate) = (call.input(1)?, call.weight(1)?.vector());
            for (row, out) in values.chunks_exact_mut(width).enumerate() {
                let dot: f64 = gated.row(row).iter().zip(gate).map(|(x, g)| f64::from(*x) * f64::from(*g)).sum();
                let factor = 1.0 / (1.0 + (-dot).exp());
                out.iter_mut().for_each(|x| *x = (f64::from(*x) * factor) as f32);
            }
        }
        _ => {}
    }
    call.made(values)
}

/// `x W^T`, row after row: rows of as many elements as the weight has columns to rows of as many as it has rows.
pub(super) fn product(x: &[f32], weight: &ReferenceWeight, rounding: ProductRounding) -> Result<Vec<f32>> {
    of_matrix(x, weight, weight.tensor_type(), rounding)
}

fn of_matrix(x: &[f32], weight: &impl Matrix, kind: TensorType, rounding: ProductRounding) -> Result<Vec<f32>> {
    let (n, k) = (weight.rows(), weight.columns());
    let m = x.len() / k;
    let rounded = Rounded::new(x, k, kind, rounding);
    let mut by_output = vec![0f32; m * n];
    by_output
        .par_chunks_mut(TILE * m)
        .enumerate()
        .try_for_each(|(tile, out)| outputs(&rounded, weight, rounding, tile * TILE, m, out))?;
    Ok(turned(&by_output, m, n))
}

/// `out[j * m + i]` = row `i` . weight row `first + j`.
fn outputs(
    x: &Rounded,
    weight: &impl Matrix,
    rounding: ProductRounding,
    first: usize,
    m: usize,
    out: &mut [f32],
) -> Result<()> {
    let k = weight.columns();
    let mut stored = vec![0f32; k];
    // Rows past the last stay zero: their products are not kept.
    let mut tile = vec![0f64; TILE * k];
    let mut minima = Vec::with_capacity(TILE);
    for (j, row) in tile.chunks_exact_mut(k).take(out.len() / m).enumerate() {
        weight.row(first + j, &mut stored)?;
        for (wide, x) in row.iter_mut().zip(&stored) {
            *wide = f64::from(match rounding {
                ProductRounding::F16Operands => in_f16(*x),
                ProductRounding::Bf16Operands => in_bf16(*x),
                _ => *x,
            });
        }
        minima.push(if x.excess.is_empty() { Vec::new() } else { weight.minima(first + j) });
    }
    for (i, x_row) in x.values.chunks_exact(k).enumerate() {
        let sums = dots(x_row, &tile);
        let blocks = x.excess.len() / m;
        let excess = &x.excess[i * blocks..(i + 1) * blocks];
        for (j, minima) in minima.iter().enumerate() {
            let correction: f64 = minima.iter().zip(excess).map(|(minimum, excess)| minimum * excess).sum();
            out[j * m + i] = (sums[j] + correction) as f32;
        }
    }
    Ok(())
}

/// Dots of `x` with the [`TILE`] rows of `tile`, each added in four strands.
fn dots(x: &[f64], tile: &[f64]) -> [f64; TILE] {
    let k = x.len();
    let (a, rest) = tile.split_at(k);
    let (b, rest) = rest.split_at(k);
    let (c, d) = rest.split_at(k);
    let mut sums = [[0f64; 4]; TILE];
    let whole = x.as_chunks::<4>().0.iter();
    let tiles = a.as_chunks::<4>().0.iter().zip(b.as_chunks::<4>().0);
    let tiles = tiles.zip(c.as_chunks::<4>().0.iter().zip(d.as_chunks::<4>().0));
    for (x, ((a, b), (c, d))) in whole.zip(tiles) {
        for lane in 0..4 {
            sums[0][lane] += x[lane] * a[lane];
            sums[1][lane] += x[lane] * b[lane];
            sums[2][lane] += x[lane] * c[lane];
            sums[3][lane] += x[lane] * d[lane];
        }
    }
    let tail = k - k % 4;
    let rest = |row: &[f64]| -> f64 { x[tail..].iter().zip(&row[tail..]).map(|(x, w)| x * w).sum() };
    let rests = [rest(a), rest(b), rest(c), rest(d)];
    std::array::from_fn(|row| sums[row].iter().sum::<f64>() + rests[row])
}

/// `[n, m]` to `[m, n]`.
fn turned(by_output: &[f32], m: usize, n: usize) -> Vec<f32> {
    if m == 1 {
        return by_output.to_vec();
    }
    let mut by_row = vec![0f32; m * n];
    by_row.par_chunks_mut(n).enumerate().for_each(|(i, row)| {
        let column = by_output[i..].iter().step_by(m);
        row.iter_mut().zip(column).for_each(|(to, from)| *to = *from);
    });
    by_row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_add_whole_fours_and_the_rest() {
        let x: Vec<f64> = (1..=6u8).map(f64::from).collect();
        let tile: Vec<f64> = (0..24u8).map(|i| f64::from(i % 6) + f64::from(i / 6)).collect();
        // Sum of x is 21, of x * i is 70.
        assert_eq!(dots(&x, &tile), [70.0, 91.0, 112.0, 133.0]);
    }

    #[test]
    fn a_matrix_is_turned() {
        assert_eq!(turned(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2, 3), [1.0, 3.0, 5.0, 2.0, 4.0, 6.0]);
    }
}
