//! Weights as the yardstick reads them: where they are mapped, one row at a time.

use crate::error::{Error, Result};
use crate::model::{TensorType, Weight};

/// A weight of the yardstick: dequantised row by row, as the model reads it.
#[derive(Debug, Clone)]
pub struct ReferenceWeight {
    weight: Weight,
    vector: Vec<f32>,
}

impl ReferenceWeight {
    pub(super) fn new(weight: &Weight) -> Result<Self> {
        if weight.rows == 0 || weight.columns == 0 {
            return Err(Error::malformed("a weight without elements").of(&weight.stored_name));
        }
        let mut vector = Vec::new();
        if !weight.key.role.is_matrix() {
            vector = vec![0f32; weight.columns];
            weight.dequantize_row(0, &mut vector)?;
        }
        Ok(ReferenceWeight { weight: weight.clone(), vector })
    }

    /// The values of a vector; nothing for a matrix.
    pub(super) fn vector(&self) -> &[f32] {
        &self.vector
    }

    pub(super) fn rows(&self) -> usize {
        self.weight.rows
    }

    pub(super) fn columns(&self) -> usize {
        self.weight.columns
    }

    pub(super) fn tensor_type(&self) -> TensorType {
        self.weight.tensor_type
    }

    /// Row `row` of a matrix, with [`ReferenceWeight::columns`] elements.
    pub(super) fn row(&self, row: usize, out: &mut [f32]) -> Result<()> {
        if row >= self.weight.rows {
            let message = format!("row {row} is asked of a weight of {} rows", self.weight.rows);
            return Err(Error::malformed(message).of(&self.weight.stored_name));
        }
        self.weight.dequantize_row(row, out)
    }

    /// The minima of the blocks of row `row`, for types with one minimum in f16 for each block of 32 (Q4_1, Q5_1: after
    /// the f16 scale, `block_q4_1` in ggml-common.h); nothing for other types.
    pub(super) fn minima(&self, row: usize) -> Vec<f64> {
        let has_minima = matches!(self.tensor_type(), TensorType::Q4_1 | TensorType::Q5_1);
        let bytes = self.weight.row_bytes(row).filter(|_| has_minima).unwrap_or_default();
        let block = self.tensor_type().block_bytes();
        let minimum = |block: &[u8]| match block {
            [_, _, low, high, ..] => half::f16::from_le_bytes([*low, *high]).to_f64(),
            _ => 0.0,
        };
        bytes.chunks_exact(block).map(minimum).collect()
    }
}
