//! What each operation launches.

use super::params::{ElementOperation, Embedding, MatvecJob, Norm, PointwiseJob};
use super::tensor::{CudaTensor, CudaWeight};
use super::work::Work;
use super::{CudaBackend, count, missing};
use crate::backend::Batch;
use crate::error::{Error, Result};
use crate::graph::{Operation, Site};
use crate::model::{Activation, RopeParameters};

impl CudaBackend {
    /// Launches the operation of `site`, or adds it to what is collected; every input has a row for each token.
    pub(super) fn run(
        &mut self,
        site: &Site,
        inputs: &[&CudaTensor],
        weights: &[&CudaWeight],
        batch: Batch<'_>,
    ) -> Result<CudaTensor> {
        let rows = batch.tokens.len();
        inputs.iter().for_each(|input| self.hold(input.memory()));
        let input = |index: usize| inputs.get(index).copied().ok_or_else(|| missing(site, "input"));
        let weight = |index: usize| weights.get(index).copied().ok_or_else(|| missing(site, "weight"));
        let step = self.step.address();
        match site.operation {
            Operation::Identity => input(0).cloned(),
            Operation::TokenEmbedding | Operation::PositionEmbedding => {
                let (w, out) = (weight(0)?, self.tensor(site, batch)?);
                let by_position = u32::from(site.operation == Operation::PositionEmbedding);
                let last = if by_position == 1 { batch.first_position + rows } else { largest(batch)? + 1 };
                if out.width()? != w.columns || last > w.rows {
                    return Err(Error::internal(format!("`{}` reads past its weight", site.point)));
                }
                let params = Embedding {
                    step,
                    weight: w.matrix()?,
                    out: out.address(),
                    columns: count(w.columns)?,
                    first_row: out.first_row,
                    by_position,
                    unused: 0,
                };
                self.submit(Work::Embedding { tensor_type: w.tensor_type, rows: rows as u32, params })?;
                Ok(out)
            }
            Operation::Add | Operation::Sum => self.sum(site, inputs, batch),
            Operation::Multiply => {
                let (x, y) = (input(0)?, input(1)?.address());
                self.elementwise(ElementOperation::Multiply, site, x, Operand::At(y), batch)
            }
            Operation::Scale { factor } => {
                self.elementwise(ElementOperation::Scale, site, input(0)?, Operand::Number(factor), batch)
            }
            Operation::SoftCap { cap } => {
                self.elementwise(ElementOperation::SoftCap, site, input(0)?, Operand::Number(cap), batch)
            }
            Operation::Activate(activation) => {
                let operation = match activation {
                    Activation::Silu => ElementOperation::Silu,
                    Activation::GeluTanh => ElementOperation::GeluTanh,
                    Activation::GeluErf => ElementOperation::GeluErf,
                    Activation::GeluQuick => ElementOperation::GeluQuick,
                };
                self.elementwise(operation, site, input(0)?, Operand::None, batch)
            }
            Operation::Bias => self.biased(site, input(0)?, weight(0)?, batch),
            Operation::RmsNorm { epsilon, weight_offset, groups } => {
                let gain = weight(0)?;
                self.normalised(site, input(0)?, (gain, weight_offset, groups), None, epsilon, batch)
            }
            Operation::LayerNorm { epsilon } => {
                let (gain, bias) = (weight(0)?, weight(1)?);
                self.normalised(site, input(0)?, (gain, 0.0, 1), Some(bias), epsilon, batch)
            }
            Operation::MatMul => {
                let out = self.tensor(site, batch)?;
                self.product(input(0)?, weight(0)?, &out)?;
                Ok(out)
            }
            Operation::Linear => {
                let product = self.tensor(site, batch)?;
                self.product(input(0)?, weight(0)?, &product)?;
                self.biased(site, &product, weight(1)?, batch)
            }
            Operation::GatedMatMul => self.gated_product(site, [input(0)?, input(1)?], [weight(0)?, weight(1)?], batch),
            Operation::Rope { head_dim, rope, .. } => {
                let (x, out) = (input(0)?, self.tensor(site, batch)?);
                let y = self.turns(rope, weights.first().map_or(&[], |factors| &factors.factors))?;
                let operation = ElementOperation::Rope;
                self.pointwise(PointwiseJob {
                    operation,
                    y,
                    out: out.address(),
                    head_dim,
                    rotary_dim: rope.rotary_dim,
                    ..job(x, out.first_row)?
                });
                Ok(out)
            }
            Operation::CacheStore => {
                let (x, first_row) = (input(0)?, self.first_row(batch)?);
                let cache = self.cache.get(&site.id).map(|memory| memory.address());
                let next_out =
                    cache.ok_or_else(|| Error::internal(format!("no cache was made for `{}`", site.point)))?;
                self.pointwise(PointwiseJob { operation: ElementOperation::Store, next_out, ..job(x, first_row)? });
                // What was stored is what came in: the point is the same rows under another name.
                Ok(x.clone())
            }
            Operation::AttnScores { .. } | Operation::Softmax { .. } | Operation::AttnContext { .. } => {
                self.attend(site, inputs, batch)
            }
            Operation::RowSoftmax
            | Operation::TopK { .. }
            | Operation::ExpertWeights { .. }
            | Operation::ExpertMatMul { .. }
            | Operation::ExpertSum => self.route(site, inputs, weights, batch),
        }
    }

    fn pointwise(&mut self, job: PointwiseJob) {
        self.queue.pointwise(self.step.address(), job);
    }

    /// `x W^T`: on the stored blocks for few rows, through cuBLAS for many.
    pub(super) fn product(&mut self, x: &CudaTensor, w: &CudaWeight, out: &CudaTensor) -> Result<()> {
        if x.width()? != w.columns || out.width()? != w.rows {
            return Err(Error::internal("a product of rows and a weight that do not fit"));
        }
        if !self.memory.repeats() {
            self.launch()?;
            return self.products.product(&self.device, x, w, out.address());
        }
        let job = MatvecJob {
            weight: w.matrix()?,
            x: x.address(),
            y: out.address(),
            rows: count(w.rows)?,
            columns: count(w.columns)?,
            ..MatvecJob::default()
        };
        self.queue.product(w.tensor_type, count(x.rows)?, job);
        Ok(())
    }

    /// Cosines and sines of every position, made on the host in f64 as the processor's backend does. `factors` are the
    /// stored divisors of the frequencies where the scaling asks for them.
    fn turns(&mut self, rope: RopeParameters, factors: &[f32]) -> Result<u64> {
        let known = self.turns.iter().find(|(known, with, _)| *known == rope && with == factors);
        if let Some((_, _, memory)) = known {
            return Ok(memory.address());
        }
        let frequencies = rope.frequencies(factors);
        let mut bytes = Vec::with_capacity(self.positions * frequencies.len() * 8);
        for position in 0..self.positions {
            for frequency in &frequencies {
                let angle = position as f64 * frequency;
                bytes.extend_from_slice(&(angle.cos() as f32).to_le_bytes());
                bytes.extend_from_slice(&(angle.sin() as f32).to_le_bytes());
            }
        }
        let memory = self.device.alloc(bytes.len(), "rotary angles")?;
        self.device.upload(&memory, 0, &bytes)?;
        let address = memory.address();
        self.turns.push((rope, factors.to_vec(), memory));
        Ok(address)
    }

    /// An element operation of `site` on `x` and what `operand` says.
    fn elementwise(
        &mut self,
        operation: ElementOperation,
        site: &Site,
        x: &CudaTensor,
        operand: Operand,
        batch: Batch<'_>,
    ) -> Result<CudaTensor> {
        let out = self.tensor(site, batch)?;
        if x.elements() != out.elements() {
            return Err(Error::internal(format!("`{}` has another width than its input", site.point)));
        }
        // The input may be of this operation alone, and the launch is put off.
        self.hold(x.memory());
        let (y, number) = match operand {
            Operand::None => (0, 0.0),
            Operand::At(address) => (address, 0.0),
            Operand::Number(number) => (0, number),
        };
        self.pointwise(PointwiseJob { operation, out: out.address(), y, number, ..job(x, out.first_row)? });
        Ok(out)
    }

    /// `x + bias`.
    fn biased(&mut self, site: &Site, x: &CudaTensor, bias: &CudaWeight, batch: Batch<'_>) -> Result<CudaTensor> {
        let bias = bias.vector(x.width()?)?;
        self.elementwise(ElementOperation::Bias, site, x, Operand::At(bias), batch)
    }

    /// A norm of each of `groups` parts of a row, with `offset` added to the gains; with a bias a LayerNorm.
    fn normalised(
        &mut self,
        site: &Site,
        x: &CudaTensor,
        (gain, gain_offset, groups): (&CudaWeight, f32, u32),
        bias: Option<&CudaWeight>,
        epsilon: f32,
        batch: Batch<'_>,
    ) -> Result<CudaTensor> {
        let (out, groups) = (self.tensor(site, batch)?, groups.max(1) as usize);
        let width = x.width()? / groups;
        let params = Norm {
            x: x.address(),
            gain: gain.vector(width)?,
            bias: bias.map_or(Ok(0), |bias| bias.vector(width))?,
            out: out.address(),
            width: count(width)?,
            epsilon,
            gain_offset,
            unused: 0,
        };
        self.submit(Work::Norm { rows: count(x.rows * groups)?, params })?;
        Ok(out)
    }

    /// Sum of two inputs or more, from the first to the last.
    fn sum(&mut self, site: &Site, inputs: &[&CudaTensor], batch: Batch<'_>) -> Result<CudaTensor> {
        let (first, others) = inputs.split_first().ok_or_else(|| missing(site, "input"))?;
        others.iter().try_fold((*first).clone(), |sum, other| {
            if other.elements() != sum.elements() {
                return Err(Error::internal(format!("`{}` adds rows of two widths", site.point)));
            }
            self.elementwise(ElementOperation::Add, site, &sum, Operand::At(other.address()), batch)
        })
    }
}

/// What an element operation reads beside its input.
#[derive(Clone, Copy)]
enum Operand {
    None,
    /// Rows as wide as the input's, or one row for all.
    At(u64),
    Number(f32),
}

/// What every element operation on `x` has in common; its row 0 is row `first_row` of the batch that began.
fn job(x: &CudaTensor, first_row: u32) -> Result<PointwiseJob> {
    Ok(PointwiseJob {
        x: x.address(),
        width: count(x.width()?)?,
        rows: count(x.rows)?,
        first_row,
        head_dim: 1,
        ..PointwiseJob::default()
    })
}

/// The largest token id of a batch.
fn largest(batch: Batch<'_>) -> Result<usize> {
    let largest = batch.tokens.iter().max().copied().ok_or_else(|| Error::internal("a batch without tokens"))?;
    Ok(largest as usize)
}
