//! Activations rounded to 8 bits, as ggml rounds them before an integer dot.

use crate::model::TensorType;
use crate::model::quant::{K_BLOCK, Q8_BLOCK};

/// Rows of activations in 8-bit blocks: Q8_0 for Q8_0 weights, Q8_K for K-quants.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Quantised {
    /// Elements of a block.
    pub(crate) block: usize,
    /// Elements of a row.
    pub(crate) columns: usize,
    /// `[rows, columns]`.
    pub(crate) quants: Vec<i8>,
    /// `[rows, columns / block]`; a block with a value that is not finite has scale NaN.
    pub(crate) scales: Vec<f32>,
    /// Sums of 16 quants each, `[rows, columns / 16]`; empty for Q8_0.
    pub(crate) sums: Vec<i16>,
}

impl Quantised {
    /// Rounds rows of `columns` elements for a product with weights of `tensor_type`; `None` where that
    /// type's products take no 8-bit activations or `columns` is no multiple of the block.
    pub(crate) fn new(values: &[f32], columns: usize, tensor_type: TensorType) -> Option<Self> {
        let block = match tensor_type {
            TensorType::Q8_0 => Q8_BLOCK,
            TensorType::Q4K | TensorType::Q5K | TensorType::Q6K => K_BLOCK,
            TensorType::F32 | TensorType::F16 | TensorType::Bf16 => return None,
        };
        if columns == 0 || !columns.is_multiple_of(block) || !values.len().is_multiple_of(columns) {
            return None;
        }
        let mut quants = vec![0i8; values.len()];
        let mut scales = Vec::with_capacity(values.len() / block);
        for (values, quants) in values.chunks_exact(block).zip(quants.chunks_exact_mut(block)) {
            scales.push(if block == Q8_BLOCK { round_q8_0(values, quants) } else { round_q8_k(values, quants) });
        }
        let sums = if block == K_BLOCK {
            quants.as_chunks::<16>().0.iter().map(|part| part.iter().map(|q| i16::from(*q)).sum()).collect()
        } else {
            Vec::new()
        };
        Some(Quantised { block, columns, quants, scales, sums })
    }
}

/// To the nearest integer, ties to even, for magnitudes below 2^22: adding 1.5 * 2^23 leaves no bit for a
/// fraction.
fn nearest(x: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0;
    (x + SHIFT) - SHIFT
}

/// ggml's Q8_0 as its AVX2 code has it: `q = round(x * (127 / absmax))`, scale `f16(absmax / 127)`.
fn round_q8_0(values: &[f32], quants: &mut [i8]) -> f32 {
    if values.iter().any(|x| !x.is_finite()) {
        return f32::NAN;
    }
    let absmax = values.iter().fold(0f32, |max, x| max.max(x.abs()));
    if absmax == 0.0 {
        return 0.0;
    }
    let inverse = 127.0 / absmax;
    for (quant, x) in quants.iter_mut().zip(values) {
        *quant = nearest(x * inverse) as i8;
    }
    half::f16::from_f32(absmax / 127.0).to_f32()
}

/// ggml's Q8_K: the element of largest magnitude becomes -127; scale in f32.
fn round_q8_k(values: &[f32], quants: &mut [i8]) -> f32 {
    if values.iter().any(|x| !x.is_finite()) {
        return f32::NAN;
    }
    let extreme = values.iter().fold(0f32, |max, x| if x.abs() > max.abs() { *x } else { max });
    if extreme == 0.0 {
        return 0.0;
    }
    let inverse = -127.0 / extreme;
    for (quant, x) in quants.iter_mut().zip(values) {
        *quant = nearest(x * inverse).min(127.0) as i8;
    }
    1.0 / inverse
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q8_0_rounds_ties_to_even_with_a_half_precision_scale() {
        // absmax 254: one quant is two, so odd values are ties.
        let mut row = [0f32; 32];
        row[..5].copy_from_slice(&[254.0, 1.0, 3.0, -5.0, -254.0]);
        let rounded = Quantised::new(&row, 32, TensorType::Q8_0).unwrap();
        assert_eq!(&rounded.quants[..6], &[127, 0, 2, -2, -127, 0]);
        assert_eq!(rounded.scales, [2.0]);
        row[0] = 127.0 * 1.0001;
        row[4] = 0.0;
        let scale = Quantised::new(&row, 32, TensorType::Q8_0).unwrap().scales[0];
        assert_eq!(scale, half::f16::from_f32(scale).to_f32());
    }

    #[test]
    fn q8_k_turns_the_extreme_into_minus_127_and_sums_sixteens() {
        let row: Vec<f32> = (0..256).map(|i| if i == 40 { 12.7 } else { -0.1 * (i % 3) as f32 }).collect();
        let rounded = Quantised::new(&row, 256, TensorType::Q6K).unwrap();
        assert_eq!((rounded.quants[40], rounded.quants[1], rounded.quants[2]), (-127, 1, 2));
        assert!((rounded.scales[0] + 0.1).abs() < 1e-7);
        let sixteen: i16 = rounded.quants[32..48].iter().map(|q| i16::from(*q)).sum();
        assert_eq!((rounded.sums.len(), rounded.sums[2]), (16, sixteen));
    }

    #[test]
    fn a_value_that_is_not_finite_poisons_its_block_alone() {
        let mut row = [1f32; 64];
        row[3] = f32::NAN;
        let scales = Quantised::new(&row, 32, TensorType::Q8_0).unwrap().scales;
        assert!(scales[0].is_nan() && scales[1].is_finite());
    }

    #[test]
    fn columns_that_are_no_whole_blocks_are_refused() {
        assert_eq!(Quantised::new(&[0.0; 100], 100, TensorType::Q4K), None);
        assert_eq!(Quantised::new(&[0.0; 256], 256, TensorType::F16), None);
    }
}
