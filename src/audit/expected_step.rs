//! The steps that a type of blocks gives to weights that were not quantised yet.

use crate::model::TensorType;
use crate::model::quant::{scale_elements, step};

/// The smallest f16 number: no scale is smaller, but 0.
const LEAST_SCALE: f32 = 1.0 / (1u32 << 24) as f32;

/// The step of each element of a row whose scales are the plain ones: extreme or range over the largest code. Searches
/// come to 0.9 to 1.1 times that. Plain types have no steps: zeros.
pub(super) fn expected_steps(kind: TensorType, row: &[f32], out: &mut [f32]) {
    let Some(shared) = scale_elements(kind) else {
        out.fill(0.0);
        return;
    };
    let blocks = row.chunks(kind.block_elements()).zip(out.chunks_mut(kind.block_elements()));
    for (values, out) in blocks {
        let largest = values.chunks(shared).map(|group| scale(kind, group)).fold(0f32, f32::max);
        // A sub-block's scale is a whole number of units.
        let least = LEAST_SCALE.max(largest / scale_numbers(kind));
        for (values, out) in values.chunks(shared).zip(out.chunks_mut(shared)) {
            let scale = scale(kind, values).max(least);
            values.iter().zip(out).for_each(|(value, out)| *out = step(kind, scale, *value));
        }
    }
}

/// The scale of elements that share one.
fn scale(kind: TensorType, values: &[f32]) -> f32 {
    let (mut least, mut most) = (f32::INFINITY, f32::NEG_INFINITY);
    values.iter().for_each(|value| (least, most) = (least.min(*value), most.max(*value)));
    let extreme = least.abs().max(most.abs());
    // A minimum of K-quants is 0 or below.
    let range = most.max(0.0) - least.min(0.0);
    match kind {
        TensorType::Q8_0 | TensorType::Iq4Nl | TensorType::Iq4Xs => extreme / 127.0,
        TensorType::Q4_0 => extreme / 8.0,
        TensorType::Q5_0 => extreme / 16.0,
        TensorType::Q4_1 => (most - least) / 15.0,
        TensorType::Q5_1 => (most - least) / 31.0,
        TensorType::Q2K => range / 3.0,
        TensorType::Q3K => extreme / 4.0,
        TensorType::Q4K => range / 15.0,
        TensorType::Q5K => range / 31.0,
        TensorType::Q6K => extreme / 32.0,
        // The largest magnitude is below 8 units of a power of two, and values are halves of them.
        TensorType::Mxfp4 => extreme.log2().floor().max(-120.0).exp2() / 8.0,
        TensorType::F32 | TensorType::F16 | TensorType::Bf16 | TensorType::F8E4M3 => 0.0,
    }
}

/// Units of the largest scale among the sub-blocks of a block.
fn scale_numbers(kind: TensorType) -> f32 {
    match kind {
        TensorType::Q2K => 15.0,
        TensorType::Q3K | TensorType::Iq4Xs => 32.0,
        TensorType::Q4K | TensorType::Q5K => 63.0,
        TensorType::Q6K => 128.0,
        _ => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_follow_the_extreme_or_the_range_of_their_block() {
        let mut row = vec![0.25f32; 256];
        (row[0], row[1], row[32]) = (-1.27, 0.63, 2.54);
        let mut out = vec![0.0; 256];
        expected_steps(TensorType::Q8_0, &row, &mut out);
        assert!((out[5] - 0.01).abs() < 1e-7 && (out[40] - 0.02).abs() < 1e-7);
        expected_steps(TensorType::Q4K, &row, &mut out);
        assert!((out[5] - 1.9 / 15.0).abs() < 1e-6 && (out[40] - 2.54 / 15.0).abs() < 1e-6);
        expected_steps(TensorType::F16, &row, &mut out);
        assert_eq!(out, [0.0; 256]);
    }
}
