//! Weights as the CPU reads them: matrices where they are mapped, vectors as f32.

use crate::error::{Error, Result};
use crate::model::{Layout, TensorType, Weight};
use std::borrow::Cow;

/// A weight made ready for the CPU.
#[derive(Debug, Clone)]
pub struct CpuWeight {
    weight: Weight,
    /// The values of a vector; empty for a matrix.
    vector: Vec<f32>,
}

impl CpuWeight {
    /// Vectors are converted; matrices stay mapped, but for transposed ones: their dots would stride through
    /// the whole file for every output, so they are turned once, in their stored type.
    pub(super) fn new(weight: &Weight, pool: &rayon::ThreadPool) -> Result<Self> {
        let mut weight = weight.clone();
        if weight.rows == 0 || weight.columns == 0 {
            return Err(Error::malformed("a weight without elements").of(&weight.stored_name));
        }
        let mut vector = Vec::new();
        if !weight.key.role.is_matrix() {
            vector = vec![0f32; weight.columns];
            weight.dequantize_row(0, &mut vector)?;
        } else if matches!(weight.layout, Layout::Columns { .. }) {
            weight.data = pool.install(|| weight.canonical_bytes())?;
            weight.layout = Layout::Rows { first: 0 };
        }
        Ok(CpuWeight { weight, vector })
    }

    /// The values of a vector.
    pub(super) fn vector(&self) -> &[f32] {
        &self.vector
    }

    /// The values of a vector with `offset` added to each.
    pub(super) fn vector_plus(&self, offset: f32) -> Cow<'_, [f32]> {
        match offset {
            0.0 => Cow::Borrowed(&self.vector),
            offset => self.vector.iter().map(|weight| weight + offset).collect(),
        }
    }

    /// The weight as a matrix.
    pub(super) fn matrix(&self) -> Result<Matrix<'_>> {
        if self.weight.key.role.is_matrix() {
            Ok(Matrix(&self.weight))
        } else {
            Err(Error::malformed("a vector where a matrix belongs").of(&self.weight.stored_name))
        }
    }
}

/// A matrix whose canonical rows can be read.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a>(&'a Weight);

impl<'a> Matrix<'a> {
    pub(super) fn rows(self) -> usize {
        self.0.rows
    }

    pub(super) fn columns(self) -> usize {
        self.0.columns
    }

    pub(super) fn tensor_type(self) -> TensorType {
        self.0.tensor_type
    }

    /// The stored bytes of row `row`.
    pub(super) fn row(self, row: usize) -> Result<&'a [u8]> {
        self.0.row_bytes(row).ok_or_else(|| {
            Error::malformed(format!("row {row} lies outside of the stored tensor")).of(&self.0.stored_name)
        })
    }

    /// Row `row` in f32.
    pub(super) fn values(self, row: usize, out: &mut [f32]) -> Result<()> {
        self.0.dequantize_row(row, out)
    }
}
