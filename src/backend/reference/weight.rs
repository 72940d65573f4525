//! Weights as the yardstick reads them: where they are mapped, one row at a time.

use super::product::Matrix;
use super::rounding::{in_bf16, in_f16};
use crate::error::{Error, Result};
use crate::model::{TensorType, Weight};

/// A weight of the yardstick: dequantised row by row, as the model reads it.
#[derive(Debug, Clone)]
pub struct ReferenceWeight {
    weight: Weight,
    vector: Vec<f32>,
    read_as: TensorType,
}

impl ReferenceWeight {
    /// Ready to be read.
    ///
    /// # Errors
    /// Malformed for a weight without elements.
    pub fn new(weight: &Weight) -> Result<Self> {
        if weight.rows == 0 || weight.columns == 0 {
            return Err(Error::malformed("a weight without elements").of(&weight.stored_name));
        }
        let mut vector = Vec::new();
        if !weight.key.role.is_matrix() {
            vector = vec![0f32; weight.columns];
            weight.dequantize_row(0, &mut vector)?;
        }
        Ok(ReferenceWeight { weight: weight.clone(), vector, read_as: weight.tensor_type })
    }

    /// The weight as a file of another type holds it: plain elements are rounded to the nearest of that type. Blocks are
    /// not made: elements stay as they are, and products round their other operand as they do for such blocks.
    #[must_use]
    pub fn read_as(mut self, tensor_type: TensorType) -> Self {
        self.read_as = tensor_type;
        round(tensor_type, &mut self.vector);
        self
    }

    /// The values of a vector; nothing for a matrix.
    pub(crate) fn vector(&self) -> &[f32] {
        &self.vector
    }

    pub(super) fn tensor_type(&self) -> TensorType {
        self.read_as
    }
}

impl Matrix for ReferenceWeight {
    fn rows(&self) -> usize {
        self.weight.rows
    }

    fn columns(&self) -> usize {
        self.weight.columns
    }

    fn row(&self, row: usize, out: &mut [f32]) -> Result<()> {
        if row >= self.weight.rows {
            let message = format!("row {row} is asked of a weight of {} rows", self.weight.rows);
            return Err(Error::malformed(message).of(&self.weight.stored_name));
        }
        self.weight.dequantize_row(row, out)?;
        if self.read_as != self.weight.tensor_type {
            round(self.read_as, out);
        }
        Ok(())
    }

    /// The minima of the blocks of row `row`, for types with one minimum in f16 for each block of 32 (Q4_1, Q5_1: after
    /// the f16 scale, `block_q4_1` in ggml-common.h); nothing for other types.
    fn minima(&self, row: usize) -> Vec<f64> {
        let has_minima = matches!(self.weight.tensor_type, TensorType::Q4_1 | TensorType::Q5_1);
        let has_minima = has_minima && self.read_as == self.weight.tensor_type;
        let bytes = self.weight.row_bytes(row).filter(|_| has_minima).unwrap_or_default();
        let block = self.weight.tensor_type.block_bytes();
        let minimum = |block: &[u8]| match block {
            [_, _, low, high, ..] => half::f16::from_le_bytes([*low, *high]).to_f64(),
            _ => 0.0,
        };
        bytes.chunks_exact(block).map(minimum).collect()
    }
}

fn round(tensor_type: TensorType, values: &mut [f32]) {
    match tensor_type {
        TensorType::F16 => values.iter_mut().for_each(|x| *x = in_f16(*x)),
        TensorType::Bf16 => values.iter_mut().for_each(|x| *x = in_bf16(*x)),
        _ => {}
    }
}
