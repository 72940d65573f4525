//! Products of many rows: the weight is converted, piece by piece, and cuBLAS multiplies.

use super::count;
use super::device::{ComputeType, Device, DeviceMemory, Gemm};
use super::params::{Cast, Dequantize};
use super::tensor::{CudaTensor, CudaWeight};
use super::work::Work;
use crate::error::Result;
use crate::model::TensorType;
use std::sync::Arc;

/// Bytes of converted weights at a time.
const SCRATCH: usize = 256 << 20;

/// Products of many rows, in one compute type.
pub(super) struct Products {
    compute: ComputeType,
    scratch: Option<Arc<DeviceMemory>>,
}

impl Products {
    pub(super) fn new(compute: ComputeType) -> Self {
        Products { compute, scratch: None }
    }

    pub(super) fn compute(&self) -> ComputeType {
        self.compute
    }

    /// `out = x W^T`.
    pub(super) fn product(&mut self, device: &Arc<Device>, x: &CudaTensor, w: &CudaWeight, out: u64) -> Result<()> {
        let (m, n, k) = (x.rows, w.rows, w.columns);
        let rounded = self.rounded(device, x)?;
        let x = rounded.as_ref().map_or(x.address(), |memory| memory.address());
        let gemm = |w: u64, first: usize, n_part: usize| {
            let y = out + (first * size_of::<f32>()) as u64;
            device.gemm(&Gemm { x, w, y, m, n: n_part, k, stride: n, compute: self.compute })
        };
        if stored_as(w.tensor_type) == Some(self.compute) {
            return gemm(w.matrix()?, 0, n);
        }
        let row = k * self.compute.size();
        let piece = (SCRATCH / row).clamp(1, n);
        let scratch = match &self.scratch {
            Some(scratch) if scratch.bytes() >= piece * row => Arc::clone(scratch),
            _ => Arc::clone(self.scratch.insert(device.alloc((piece * row).max(SCRATCH), "converted weights")?)),
        };
        let stored_row = w.tensor_type.row_bytes(k)?;
        for first in (0..n).step_by(piece) {
            let rows = piece.min(n - first);
            let params = Dequantize {
                weight: w.matrix()? + (first * stored_row) as u64,
                out: scratch.address(),
                rows: rows as u64,
                columns: count(k)?,
                compute_type: self.compute as u32,
            };
            device.launch(&Work::Dequantize { tensor_type: w.tensor_type, params }, false)?;
            gemm(scratch.address(), first, rows)?;
        }
        Ok(())
    }

    /// The rows of `x` in the compute type; `None` where they are in it already.
    fn rounded(&self, device: &Arc<Device>, x: &CudaTensor) -> Result<Option<Arc<DeviceMemory>>> {
        if self.compute == ComputeType::F32 {
            return Ok(None);
        }
        let memory = device.alloc(x.elements() * self.compute.size(), "rounded activations")?;
        let params = Cast {
            x: x.address(),
            out: memory.address(),
            count: x.elements() as u64,
            compute_type: self.compute as u32,
            unused: 0,
        };
        device.launch(&Work::Cast(params), false)?;
        Ok(Some(memory))
    }
}

/// The compute type whose operands a stored type is as it stands.
fn stored_as(tensor_type: TensorType) -> Option<ComputeType> {
    match tensor_type {
        TensorType::F32 => Some(ComputeType::F32),
        TensorType::F16 => Some(ComputeType::F16),
        TensorType::Bf16 => Some(ComputeType::Bf16),
        _ => None,
    }
}
