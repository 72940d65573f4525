//! A piece of a weight: its canonical values, their statistics, and the payloads that keep them.

use crate::codec::Encoder;
use crate::error::{Error, Result};
use crate::model::{TensorType, Weight};
use crate::record::{PayloadV1, Shape};
use crate::stats::RowStatistics;
use crate::tensor::Dtype;
use half::{bf16, f16};
use std::ops::Range;
use zerocopy::IntoBytes;

/// Elements of a payload, and of what a thread dequantises at a time (one row at least): 1 MiB of f32. A multiple of
/// every block, so that no scale belongs to two payloads.
pub const PIECE: usize = 1 << 18;

/// The type that holds every canonical value of a weight, and nothing wider.
pub fn kept_type(weight: &Weight, added: f32) -> Dtype {
    match weight.tensor_type {
        TensorType::F16 if added == 0.0 => Dtype::F16,
        TensorType::Bf16 if added == 0.0 => Dtype::Bf16,
        _ => Dtype::F32,
    }
}

/// Consecutive rows of a weight.
pub struct Piece {
    /// Canonical values.
    pub values: Vec<f32>,
    /// Of each [`PIECE`] elements of them.
    pub statistics: Vec<RowStatistics>,
    /// The same stretches, where values are kept.
    pub kept: Vec<Kept>,
}

impl Piece {
    /// The rows `rows` of `weight` with `added` to each value; with an `encoder`, values are kept.
    pub fn of(weight: &Weight, added: f32, rows: Range<usize>, encoder: Option<&mut Option<Encoder>>) -> Result<Self> {
        let mut values = vec![0.0; rows.len() * weight.columns];
        for (row, out) in rows.clone().zip(values.chunks_exact_mut(weight.columns.max(1))) {
            weight.dequantize_row(row, out)?;
        }
        if added != 0.0 {
            values.iter_mut().for_each(|value| *value += added);
        }
        let statistics = values.chunks(PIECE).map(RowStatistics::of).collect();
        let kept = match encoder {
            Some(encoder) => kept(weight, added, rows, &values, reused(encoder)?)?,
            None => Vec::new(),
        };
        Ok(Piece { values, statistics, kept })
    }
}

fn reused(slot: &mut Option<Encoder>) -> Result<&mut Encoder> {
    match slot {
        Some(encoder) => Ok(encoder),
        None => Ok(slot.insert(Encoder::new()?)),
    }
}

/// One payload of values, with the payload of their scales.
pub struct Kept {
    /// The values.
    pub values: PayloadV1,
    /// The scale of every stretch of them that shares one; `None` where elements are plain.
    pub scales: Option<PayloadV1>,
}

fn kept(weight: &Weight, added: f32, rows: Range<usize>, values: &[f32], encoder: &mut Encoder) -> Result<Vec<Kept>> {
    let shared = weight.scale_elements();
    let mut scales = vec![0.0; shared.map_or(0, |shared| values.len() / shared)];
    if let Some(shared) = shared {
        for (row, out) in rows.zip(scales.chunks_exact_mut((weight.columns / shared).max(1))) {
            weight.scales_row(row, out)?;
        }
    }
    let mut scales = scales.chunks(PIECE / shared.unwrap_or(1));
    let kept = |values: &[f32]| {
        let values = match kept_type(weight, added) {
            Dtype::F32 => payload(Dtype::F32, values.as_bytes(), encoder)?,
            Dtype::F16 => payload(Dtype::F16, &narrow(values, |x| f16::from_f32(x).to_le_bytes()), encoder)?,
            Dtype::Bf16 => payload(Dtype::Bf16, &narrow(values, |x| bf16::from_f32(x).to_le_bytes()), encoder)?,
        };
        let scales = scales.next().map(|scales| payload(Dtype::F32, scales.as_bytes(), encoder));
        Ok(Kept { values, scales: scales.transpose()? })
    };
    values.chunks(PIECE).map(kept).collect()
}

/// Values as the type that they were stored in, which loses nothing.
fn narrow(values: &[f32], convert: impl Fn(f32) -> [u8; 2]) -> Vec<u8> {
    values.iter().flat_map(|value| convert(*value)).collect()
}

/// A payload of one row.
fn payload(dtype: Dtype, raw: &[u8], encoder: &mut Encoder) -> Result<PayloadV1> {
    let width = u32::try_from(raw.len() / dtype.size()).map_err(|_| Error::internal("a piece outgrew its payload"))?;
    let mut bytes = Vec::new();
    let planes = encoder.encode(dtype, raw, &mut bytes)?;
    Ok(PayloadV1 {
        payload: 0,
        rows: 1,
        width,
        offsets: Vec::new(),
        captured_dtype: dtype as u8,
        stored_dtype: dtype as u8,
        planes,
        raw_length: raw.len() as u64,
        blake3: Shape { captured: dtype, stored: dtype, rows: 1, width, offsets: &[] }.content_hash(raw),
        bytes,
    })
}
