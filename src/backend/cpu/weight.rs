//! Weights as the CPU reads them: matrices where they are mapped, vectors as f32.

use crate::error::{Error, Result};
use crate::model::{Layout, TensorType, Weight, quant};
use half::{bf16, f16};
use rayon::prelude::*;
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
            weight.data = pool.install(|| turned(&weight))?.into();
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
        quant::dequantize(self.0.tensor_type, self.row(row)?, out)
    }
}

/// A transposed weight's bytes in canonical order. Plain elements survive the way through f32 bit for bit.
fn turned(weight: &Weight) -> Result<Vec<u8>> {
    let row_bytes = weight.tensor_type.row_bytes(weight.columns)?;
    let size = row_bytes.checked_mul(weight.rows).ok_or_else(|| too_long(weight))?;
    let mut bytes = vec![0u8; size];
    bytes.par_chunks_mut(row_bytes).enumerate().try_for_each_init(
        || vec![0f32; weight.columns],
        |values, (row, bytes)| {
            weight.dequantize_row(row, values)?;
            match weight.tensor_type {
                TensorType::F32 => store(bytes, values, f32::to_le_bytes),
                TensorType::F16 => store(bytes, values, |x| f16::from_f32(x).to_le_bytes()),
                TensorType::Bf16 => store(bytes, values, |x| bf16::from_f32(x).to_le_bytes()),
                blocks => {
                    let message = format!("blocks of {} cannot be stored transposed", blocks.name());
                    return Err(Error::unsupported(message).of(&weight.stored_name));
                }
            }
            Ok(())
        },
    )?;
    Ok(bytes)
}

fn too_long(weight: &Weight) -> Error {
    Error::malformed("more elements than memory can hold").of(&weight.stored_name)
}

fn store<const N: usize>(bytes: &mut [u8], values: &[f32], convert: impl Fn(f32) -> [u8; N]) {
    for (bytes, value) in bytes.as_chunks_mut::<N>().0.iter_mut().zip(values) {
        *bytes = convert(*value);
    }
}
