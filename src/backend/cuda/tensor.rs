//! Tensors and weights in device memory.

use super::device::{Device, DeviceMemory};
use super::limits;
use super::work::{FORMATS, Part};
use crate::backend::Batch;
use crate::error::{Error, Result};
use crate::model::{Role, TensorType, Weight};
use crate::tensor::Extent;
use std::ops::Range;
use std::sync::Arc;

/// The elements of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// As many in every row.
    Width(usize),
    /// One for each head and visible key: those up to the row's position, the last `window` of them.
    Keys { heads: usize, window: u32 },
}

/// f32 rows in device memory.
#[derive(Clone)]
pub struct CudaTensor {
    /// Keeps the memory; a slice and an alias share it.
    memory: Arc<DeviceMemory>,
    address: u64,
    pub(super) rows: usize,
    pub(super) shape: Shape,
    /// Row of the batch that row 0 is.
    pub(super) first_row: u32,
    /// Position of row 0.
    pub(super) first_position: usize,
}

impl CudaTensor {
    pub(super) fn new(memory: Arc<DeviceMemory>, address: u64, shape: Shape, batch: Batch<'_>, first_row: u32) -> Self {
        let (rows, first_position) = (batch.tokens.len(), batch.first_position);
        CudaTensor { memory, address, rows, shape, first_row, first_position }
    }

    pub(super) fn address(&self) -> u64 {
        self.address
    }

    pub(super) fn memory(&self) -> &Arc<DeviceMemory> {
        &self.memory
    }

    /// The width of rows that share one.
    pub(super) fn width(&self) -> Result<usize> {
        match self.shape {
            Shape::Width(width) => Ok(width),
            Shape::Keys { .. } => Err(Error::internal("ragged rows where rows of one width belong")),
        }
    }

    /// Elements of all rows.
    pub(super) fn elements(&self) -> usize {
        self.before(self.rows)
    }

    /// Elements before row `row`.
    fn before(&self, row: usize) -> usize {
        match self.shape {
            Shape::Width(width) => row * width,
            Shape::Keys { heads, window } => {
                let (all, window) = (self.first_position + 1, window as usize);
                let growing = row.min(window.saturating_sub(all));
                heads * (growing * all + growing * growing.saturating_sub(1) / 2 + (row - growing) * window)
            }
        }
    }

    /// Elements of the longest row.
    pub(super) fn longest(&self) -> usize {
        self.elements() - self.before(self.rows.saturating_sub(1))
    }

    /// Where rows begin and end.
    pub(super) fn extent(&self) -> Extent {
        match self.shape {
            Shape::Width(width) => Extent::Width(width),
            Shape::Keys { .. } => Extent::Offsets((0..=self.rows).map(|row| self.before(row)).collect()),
        }
    }

    /// The rows `rows` alone.
    pub(super) fn slice(&self, rows: Range<usize>) -> Result<Self> {
        let inside = rows.start <= rows.end && rows.end <= self.rows;
        let first_row = u32::try_from(rows.start).ok().filter(|_| inside);
        let first_row =
            first_row.ok_or_else(|| Error::internal(format!("rows {rows:?} of a tensor of {} rows", self.rows)))?;
        Ok(CudaTensor {
            memory: Arc::clone(&self.memory),
            address: self.address + (self.before(rows.start) * size_of::<f32>()) as u64,
            rows: rows.len(),
            shape: self.shape,
            first_row: self.first_row + first_row,
            first_position: self.first_position + rows.start,
        })
    }
}

/// A weight in device memory: the stored blocks of a matrix in canonical order; the f32 values of a vector, and of a matrix
/// that kernels do not read as it is stored.
pub struct CudaWeight {
    memory: Arc<DeviceMemory>,
    pub(super) tensor_type: TensorType,
    pub(super) rows: usize,
    pub(super) columns: usize,
    is_matrix: bool,
    /// The values of RoPE's factors, which the host reads; nothing otherwise.
    pub(super) factors: Vec<f32>,
    stored_name: String,
}

impl CudaWeight {
    /// Copies a weight to the card.
    pub(super) fn new(device: &Arc<Device>, weight: &Weight) -> Result<Self> {
        let is_matrix = weight.key.role.is_matrix();
        if weight.rows == 0 || weight.columns == 0 {
            return Err(Error::malformed("a weight without elements").of(&weight.stored_name));
        }
        limits::check_weight(weight)?;
        let as_stored = is_matrix && weight.scales.is_none() && FORMATS.contains(&weight.tensor_type);
        let tensor_type = if as_stored { weight.tensor_type } else { TensorType::F32 };
        if is_matrix {
            let in_expert = weight.key.expert.is_some();
            device.prepare(if in_expert { Part::Experts(tensor_type) } else { Part::Type(tensor_type) })?;
        }
        let bytes = if as_stored { weight.canonical_bytes()? } else { values(weight)?.into() };
        let memory = device.alloc(bytes.len(), &format!("weight {}", weight.stored_name))?;
        device.upload(&memory, 0, &bytes)?;
        let mut factors = Vec::new();
        if weight.key.role == Role::RopeFactors {
            factors.resize(weight.columns, 0.0);
            weight.dequantize_row(0, &mut factors)?;
        }
        Ok(CudaWeight {
            memory,
            tensor_type,
            rows: weight.rows,
            columns: weight.columns,
            is_matrix,
            factors,
            stored_name: weight.stored_name.clone(),
        })
    }

    /// The address of a matrix's first row.
    pub(super) fn matrix(&self) -> Result<u64> {
        if self.is_matrix {
            Ok(self.memory.address())
        } else {
            Err(Error::malformed("a vector where a matrix belongs").of(&self.stored_name))
        }
    }

    /// The address of a vector of `width` elements.
    pub(super) fn vector(&self, width: usize) -> Result<u64> {
        if !self.is_matrix && self.columns == width {
            Ok(self.memory.address())
        } else {
            Err(Error::malformed(format!("not a vector of {width} elements")).of(&self.stored_name))
        }
    }
}

/// The values of a weight, row after row, as little-endian f32.
fn values(weight: &Weight) -> Result<Vec<u8>> {
    let elements = weight.rows.checked_mul(weight.columns);
    let size = elements.and_then(|elements| elements.checked_mul(size_of::<f32>()));
    let size = size.ok_or_else(|| Error::malformed("more elements than memory can hold").of(&weight.stored_name))?;
    let (mut bytes, mut row) = (Vec::with_capacity(size), vec![0f32; weight.columns]);
    for number in 0..weight.rows {
        weight.dequantize_row(number, &mut row)?;
        bytes.extend(row.iter().flat_map(|value| value.to_le_bytes()));
    }
    Ok(bytes)
}
