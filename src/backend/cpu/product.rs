//! Products with weights, spread over threads by blocks of outputs.

use super::experts::gate;
use super::kernels::{Kernels, Quantised};
use super::weight::{CpuWeight, Matrix};
use super::{Call, CpuBackend};
use crate::backend::Semantics;
use crate::error::Result;
use crate::graph::Operation;
use crate::model::TensorType;
use crate::tensor::Rows;
use half::{bf16, f16};
use rayon::prelude::*;
use std::borrow::Cow;

/// Bytes of converted weights that one thread keeps at hand: they should stay in its L2 cache.
const SCRATCH: usize = 256 << 10;
/// Multiplications below which a second thread costs more than it brings.
const SMALL: usize = 1 << 17;

/// Rows of activations, as a product takes them.
enum Activations<'a> {
    Float(Cow<'a, [f32]>),
    Quantised(Quantised),
}

impl CpuBackend {
    /// Products, and what is done to them at once.
    pub(super) fn project(&self, call: &Call<'_>) -> Result<Rows> {
        let mut values = product(self.kernels, &self.pool, self.semantics, call.x(0)?, call.weight(0)?)?;
        match call.site.operation {
            Operation::MatMul => {}
            Operation::Linear => values = self.biased(call, &values, call.weight(1)?.vector())?,
            Operation::GatedMatMul => {
                let (gated, weight) = (call.input(1)?, call.weight(1)?.vector());
                for (row, out) in values.chunks_exact_mut(call.width()?).enumerate() {
                    let factor = gate(gated.row(row), weight);
                    out.iter_mut().for_each(|out| *out *= factor);
                }
            }
            _ => return Err(call.misplaced()),
        }
        call.made(values)
    }
}

/// `x W^T`: rows of `k` elements to rows of as many elements as the weight has rows.
pub(super) fn product(
    kernels: Kernels,
    pool: &rayon::ThreadPool,
    semantics: Semantics,
    x: &[f32],
    weight: &CpuWeight,
) -> Result<Vec<f32>> {
    let matrix = weight.matrix()?;
    let (n, k) = (matrix.rows(), matrix.columns());
    let m = x.len() / k;
    let activations = round(semantics, x, k, matrix.tensor_type());
    let job = Job { kernels, matrix, activations: &activations, m, k };
    let mut by_output = vec![0f32; m * n];
    let block = job.block(n, pool.current_num_threads());
    let run = |(index, out): (usize, &mut [f32])| job.outputs(index * block, out);
    if m * n * k <= SMALL {
        by_output.chunks_mut(block * m).enumerate().try_for_each(run)?;
    } else {
        pool.install(|| by_output.par_chunks_mut(block * m).enumerate().try_for_each(run))?;
    }
    Ok(if m == 1 { by_output } else { transposed(pool, &by_output, m, n) })
}

/// The activations in the type that the semantics ask for.
fn round(semantics: Semantics, x: &[f32], k: usize, tensor_type: TensorType) -> Activations<'_> {
    if semantics == Semantics::DequantizeF32 {
        return Activations::Float(Cow::Borrowed(x));
    }
    match tensor_type {
        TensorType::F16 => Activations::Float(x.iter().map(|x| f16::from_f32(*x).to_f32()).collect::<Vec<_>>().into()),
        TensorType::Bf16 => {
            Activations::Float(x.iter().map(|x| bf16::from_f32(*x).to_f32()).collect::<Vec<_>>().into())
        }
        _ => match Quantised::new(x, k, tensor_type) {
            Some(quantised) => Activations::Quantised(quantised),
            None => Activations::Float(Cow::Borrowed(x)),
        },
    }
}

struct Job<'a> {
    kernels: Kernels,
    matrix: Matrix<'a>,
    activations: &'a Activations<'a>,
    m: usize,
    k: usize,
}

impl Job<'_> {
    /// Outputs that one task makes: a multiple of eight, so that tiles are whole, and enough tasks for all threads.
    fn block(&self, n: usize, threads: usize) -> usize {
        let in_scratch = (SCRATCH / 4 / self.k).clamp(8, 64);
        let fair = n.div_ceil(threads * 4).max(8);
        in_scratch.min(fair).next_multiple_of(8)
    }

    /// `out[j * m + i]` = row `i` . weight row `first + j`.
    fn outputs(&self, first: usize, out: &mut [f32]) -> Result<()> {
        let (kernels, tensor_type, m, k) = (self.kernels, self.matrix.tensor_type(), self.m, self.k);
        let rows = first..first + out.len() / m;
        let stored = || rows.clone().map(|row| self.matrix.row(row)).collect::<Result<Vec<_>>>();
        match self.activations {
            Activations::Quantised(x) => kernels.quantised_products(x, m, &stored()?, tensor_type, out),
            Activations::Float(x) => {
                let x: Vec<&[f32]> = x.chunks_exact(k).collect();
                let plain = matches!(tensor_type, TensorType::F32 | TensorType::F16 | TensorType::Bf16);
                if tensor_type == TensorType::F16 || plain && m == 1 {
                    // Each weight is used once: convert on the way into the dot. F16 has an order of its own there.
                    kernels.float_products(&x, &stored()?, tensor_type, k, out);
                } else {
                    let mut scratch = vec![0f32; rows.len() * k];
                    for (row, values) in rows.zip(scratch.chunks_exact_mut(k)) {
                        self.matrix.values(row, values)?;
                    }
                    let w: Vec<&[f32]> = scratch.chunks_exact(k).collect();
                    kernels.products(&x, &w, k, out);
                }
            }
        }
        Ok(())
    }
}

/// `[n, m]` to `[m, n]`, in tiles that fit the cache.
fn transposed(pool: &rayon::ThreadPool, by_output: &[f32], m: usize, n: usize) -> Vec<f32> {
    const TILE: usize = 16;
    let mut by_row = vec![0f32; m * n];
    let run = |(index, rows): (usize, &mut [f32])| {
        let first = index * TILE;
        for (start, outputs) in by_output.chunks(TILE * m).enumerate() {
            for (i, row) in rows.chunks_exact_mut(n).enumerate() {
                let columns = outputs.chunks_exact(m).map(|output| output[first + i]);
                row[start * TILE..].iter_mut().zip(columns).for_each(|(to, from)| *to = from);
            }
        }
    };
    if m * n <= SMALL {
        by_row.chunks_mut(TILE * n).enumerate().for_each(run);
    } else {
        pool.install(|| by_row.par_chunks_mut(TILE * n).enumerate().for_each(run));
    }
    by_row
}
