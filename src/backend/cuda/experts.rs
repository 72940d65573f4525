//! Layers with experts: the router's choice, each row's products with the matrices of its expert, their weighted sum.
//!
//! Which expert a row has is known on the card alone, so a product gets the addresses of all experts' matrices.

use super::params::{ExpertProduct, ExpertSum, Gate, MOST_SLOTS, Router};
use super::tensor::{CudaTensor, CudaWeight};
use super::work::Work;
use super::{CudaBackend, count, misplaced, missing};
use crate::backend::Batch;
use crate::error::{Error, Result};
use crate::graph::{Operation, Site};
use crate::model::TensorType;
use std::collections::BTreeSet;

impl CudaBackend {
    /// Operations of a router and of what it chose.
    pub(super) fn route(
        &mut self,
        site: &Site,
        inputs: &[&CudaTensor],
        weights: &[&CudaWeight],
        batch: Batch<'_>,
    ) -> Result<CudaTensor> {
        let out = self.tensor(site, batch)?;
        let input = |index: usize| inputs.get(index).copied().ok_or_else(|| missing(site, "input"));
        let (x, rows) = (input(0)?, count(batch.tokens.len())?);
        match site.operation {
            Operation::RowSoftmax => {
                let experts = count(x.width()?)?;
                let params = Router { x: x.address(), out: out.address(), experts, ..Router::default() };
                self.submit(Work::RowSoftmax { rows, params })?;
            }
            Operation::TopK { count: used } => {
                let experts = count(x.width()?)?;
                if used > experts || out.width()? != used as usize {
                    return Err(Error::internal(format!("`{}` cannot choose {used} of {experts}", site.point)));
                }
                let params = Router { x: x.address(), out: out.address(), experts, used, ..Router::default() };
                self.submit(Work::TopK { rows, params })?;
            }
            Operation::ExpertWeights { normalised } => {
                let chosen = input(1)?;
                let params = Router {
                    x: x.address(),
                    chosen: chosen.address(),
                    out: out.address(),
                    experts: count(x.width()?)?,
                    used: count(chosen.width()?)?,
                    normalised: u32::from(normalised),
                    unused: 0,
                };
                self.submit(Work::ExpertWeights { rows, params })?;
            }
            Operation::ExpertMatMul { slot } => self.expert_product(site, (x, input(1)?, slot), weights, &out)?,
            Operation::ExpertSum => self.expert_sum(x, inputs.get(1..).unwrap_or_default(), &out)?,
            _ => return Err(misplaced(site)),
        }
        Ok(out)
    }

    /// `x W^T`, W being the matrix of the expert in a slot of the chosen: one launch for each type of matrix.
    fn expert_product(
        &mut self,
        site: &Site,
        (x, chosen, slot): (&CudaTensor, &CudaTensor, u32),
        weights: &[&CudaWeight],
        out: &CudaTensor,
    ) -> Result<()> {
        let (columns, outputs, used) = (x.width()?, out.width()?, count(chosen.width()?)?);
        let fit = weights.iter().all(|weight| (weight.rows, weight.columns) == (outputs, columns));
        if weights.is_empty() || !fit || slot >= used {
            return Err(Error::internal(format!("`{}` has matrices of other shapes than its rows", site.point)));
        }
        let types: BTreeSet<TensorType> = weights.iter().map(|weight| weight.tensor_type).collect();
        for tensor_type in types {
            let params = ExpertProduct {
                table: self.table(weights, tensor_type)?,
                chosen: chosen.address(),
                x: x.address(),
                y: out.address(),
                rows: count(outputs)?,
                columns: count(columns)?,
                experts: count(weights.len())?,
                used,
                slot,
                unused: 0,
            };
            self.submit(Work::Experts { tensor_type, rows: count(x.rows)?, params })?;
        }
        Ok(())
    }

    /// The addresses of the matrices of `tensor_type` on the card, 0 for those of other types; one table serves all
    /// slots and steps.
    fn table(&mut self, weights: &[&CudaWeight], tensor_type: TensorType) -> Result<u64> {
        let address = |weight: &&CudaWeight| match weight.tensor_type == tensor_type {
            true => weight.matrix(),
            false => Ok(0),
        };
        let matrices = weights.iter().map(address).collect::<Result<Vec<u64>>>()?;
        if let Some(table) = self.tables.get(&matrices) {
            return Ok(table.address());
        }
        let bytes: Vec<u8> = matrices.iter().flat_map(|address| address.to_le_bytes()).collect();
        let memory = self.device.alloc(bytes.len(), "the addresses of experts")?;
        self.device.upload(&memory, 0, &bytes)?;
        let address = memory.address();
        self.tables.insert(matrices, memory);
        Ok(address)
    }

    /// `w[0] * x_0 + w[1] * x_1 + ...`; several launches where there are many slots.
    fn expert_sum(&mut self, weights: &CudaTensor, slots: &[&CudaTensor], out: &CudaTensor) -> Result<()> {
        let (width, used) = (out.width()?, weights.width()?);
        if slots.is_empty() || slots.len() != used || slots.iter().any(|slot| slot.width().ok() != Some(width)) {
            return Err(Error::internal("a weighted sum of slots that do not fit their weights"));
        }
        for (number, part) in slots.chunks(MOST_SLOTS).enumerate() {
            let mut params = ExpertSum {
                weights: weights.address(),
                out: out.address(),
                width: count(width)?,
                used: count(used)?,
                first: count(number * MOST_SLOTS)?,
                count: count(part.len())?,
                ..ExpertSum::default()
            };
            params.slots.iter_mut().zip(part).for_each(|(address, slot)| *address = slot.address());
            self.submit(Work::ExpertSum { rows: count(out.rows)?, params })?;
        }
        Ok(())
    }

    /// `x W^T * sigmoid(gated . g)`.
    pub(super) fn gated_product(
        &mut self,
        site: &Site,
        [x, gated]: [&CudaTensor; 2],
        [matrix, gate]: [&CudaWeight; 2],
        batch: Batch<'_>,
    ) -> Result<CudaTensor> {
        let (product, out) = (self.tensor(site, batch)?, self.tensor(site, batch)?);
        self.product(x, matrix, &product)?;
        let columns = gated.width()?;
        let params = Gate {
            x: product.address(),
            gated: gated.address(),
            gate: gate.vector(columns)?,
            out: out.address(),
            width: count(out.width()?)?,
            columns: count(columns)?,
        };
        self.submit(Work::Gate { rows: count(out.rows)?, params })?;
        Ok(out)
    }
}
