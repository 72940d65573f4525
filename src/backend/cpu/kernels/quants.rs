//! Activations rounded to 8 bits, as ggml rounds them before an integer dot.

use crate::model::TensorType;
use crate::model::quant::{K_BLOCK, Q8_BLOCK};

/// The 8-bit types that activations are rounded to, after the table of ggml's types in ggml-cpu.c (`vec_dot_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rounding {
    /// Blocks of 32 under an f16 scale.
    Q8_0,
    /// Q8_0 with the block's sum beside its scale, for weights with a minimum.
    Q8_1,
    /// Blocks of 256 under an f32 scale, with sums of 16 quants each.
    Q8K,
}

impl Rounding {
    /// What ggml pairs with weights of a type; `None` for plain elements.
    fn paired(tensor_type: TensorType) -> Option<Self> {
        Some(match tensor_type {
            TensorType::F32 | TensorType::F16 | TensorType::Bf16 | TensorType::F8E4M3 => return None,
            TensorType::Q4_0 | TensorType::Q5_0 | TensorType::Q8_0 => Rounding::Q8_0,
            TensorType::Iq4Nl | TensorType::Mxfp4 => Rounding::Q8_0,
            TensorType::Q4_1 | TensorType::Q5_1 => Rounding::Q8_1,
            TensorType::Q2K | TensorType::Q3K | TensorType::Q4K | TensorType::Q5K | TensorType::Q6K => Rounding::Q8K,
            TensorType::Iq4Xs => Rounding::Q8K,
        })
    }

    fn block(self) -> usize {
        match self {
            Rounding::Q8_0 | Rounding::Q8_1 => Q8_BLOCK,
            Rounding::Q8K => K_BLOCK,
        }
    }
}

/// Rows of activations in 8-bit blocks, rounded as ggml pairs them with a type of weights.
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
    /// Sums of 16 quants each, `[rows, columns / 16]`; empty but for Q8_K.
    pub(crate) sums: Vec<i16>,
    /// Sums of the blocks' rounded values, `[rows, columns / block]`, themselves rounded to f16; empty but for Q8_1.
    pub(crate) totals: Vec<f32>,
}

impl Quantised {
    /// Rounds rows of `columns` elements for a product with weights of `tensor_type`; `None` where that
    /// type's products take no 8-bit activations or `columns` is no multiple of the block.
    pub(crate) fn new(values: &[f32], columns: usize, tensor_type: TensorType) -> Option<Self> {
        let rounding = Rounding::paired(tensor_type)?;
        let block = rounding.block();
        if columns == 0 || !columns.is_multiple_of(block) || !values.len().is_multiple_of(columns) {
            return None;
        }
        let mut rows =
            Quantised { block, columns, quants: vec![0i8; values.len()], scales: vec![], sums: vec![], totals: vec![] };
        for (values, quants) in values.chunks_exact(block).zip(rows.quants.chunks_exact_mut(block)) {
            let scale = match rounding {
                Rounding::Q8_0 | Rounding::Q8_1 => round_q8_0(values, quants),
                Rounding::Q8K => round_q8_k(values, quants),
            };
            match rounding {
                Rounding::Q8_0 => rows.scales.push(to_half(scale)),
                Rounding::Q8_1 => {
                    // The sum is of the scale before it is rounded to f16: `quantize_row_q8_1` in ggml.
                    let sum: i32 = quants.iter().map(|quant| i32::from(*quant)).sum();
                    rows.totals.push(to_half(scale * sum as f32));
                    rows.scales.push(to_half(scale));
                }
                Rounding::Q8K => {
                    let parts = quants.as_chunks::<16>().0.iter();
                    rows.sums.extend(parts.map(|part| part.iter().map(|q| i16::from(*q)).sum::<i16>()));
                    rows.scales.push(scale);
                }
            }
        }
        Some(rows)
    }

    /// The quants of block `at`, counted over all rows; `N` is [`Quantised::block`].
    #[inline(always)]
    pub(super) fn block_of<const N: usize>(&self, at: usize) -> &[i8; N] {
        &self.quants.as_chunks::<N>().0[at]
    }

    /// The sums of a Q8_K block, 16 quants each.
    #[inline(always)]
    pub(super) fn sums_of(&self, at: usize) -> &[i16; 16] {
        &self.sums.as_chunks::<16>().0[at]
    }
}

/// To the nearest integer, ties to even, for magnitudes below 2^22: adding 1.5 * 2^23 leaves no bit for a
/// fraction.
fn nearest(x: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0;
    (x + SHIFT) - SHIFT
}

/// ggml's Q8_0 and Q8_1 as its AVX2 code has them: `q = round(x * (127 / absmax))`. Returns the scale, `absmax / 127`,
/// before it is rounded to f16.
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
    absmax / 127.0
}

fn to_half(x: f32) -> f32 {
    half::f16::from_f32(x).to_f32()
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
    fn q8_1_is_q8_0_with_the_sum_of_each_block() {
        let row: Vec<f32> = (0..64).map(|i| if i < 32 { (i * i) as f32 * 0.37 - 40.0 } else { 0.0 }).collect();
        let rounded = Quantised::new(&row, 64, TensorType::Q5_1).unwrap();
        let plain = Quantised::new(&row, 64, TensorType::Q5_0).unwrap();
        assert_eq!((&rounded.quants, &rounded.scales), (&plain.quants, &plain.scales));
        assert!(plain.totals.is_empty() && rounded.sums.is_empty());
        let sum: i32 = rounded.quants.iter().map(|quant| i32::from(*quant)).sum();
        let exact = f64::from(row[31]) / 127.0 * f64::from(sum);
        // One rounding to 11 bits, and one to 24 before it.
        assert!((f64::from(rounded.totals[0]) / exact - 1.0).abs() < 2f64.powi(-11) + 2f64.powi(-23));
        assert_eq!(rounded.totals[1], 0.0);
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
        let totals = Quantised::new(&row, 32, TensorType::Q4_1).unwrap().totals;
        assert!(totals[0].is_nan() && totals[1].is_finite());
    }

    #[test]
    fn columns_that_are_no_whole_blocks_are_refused() {
        assert_eq!(Quantised::new(&[0.0; 100], 100, TensorType::Q4K), None);
        assert_eq!(Quantised::new(&[0.0; 256], 256, TensorType::F16), None);
    }
}
