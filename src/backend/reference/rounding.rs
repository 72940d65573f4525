//! Activations as a product sees them.

use super::ProductRounding;
use crate::model::TensorType;
use half::{bf16, f16};

/// Rows of activations after their rounding, in f64.
pub(super) struct Rounded {
    /// `[rows, columns]`.
    pub(super) values: Vec<f64>,
    /// For Q8_1 the f16 sum of each block less the sum of its values, `[rows, columns / 32]`: what a weight's minimum is
    /// multiplied with beside them. Empty otherwise.
    pub(super) excess: Vec<f64>,
}

impl Rounded {
    /// Rows of `columns` elements, rounded for a product with weights of `tensor_type`.
    pub(super) fn new(x: &[f32], columns: usize, tensor_type: TensorType, rounding: ProductRounding) -> Self {
        let mut excess = Vec::new();
        let values = match (rounding, blocks(tensor_type)) {
            (ProductRounding::F16 | ProductRounding::F16Operands, _) => plain(x, in_f16),
            (ProductRounding::Bf16 | ProductRounding::Bf16Operands, _) => plain(x, in_bf16),
            (ProductRounding::Paired | ProductRounding::Repacked, _) if tensor_type == TensorType::F16 => {
                plain(x, in_f16)
            }
            (ProductRounding::Paired | ProductRounding::Repacked, _) if tensor_type == TensorType::Bf16 => {
                plain(x, in_bf16)
            }
            (ProductRounding::Paired | ProductRounding::Repacked, Some(block))
                if columns.is_multiple_of(block.elements) =>
            {
                let pieces = x.chunks_exact(block.elements).map(|x| block.round(x, rounding));
                let mut values = Vec::with_capacity(x.len());
                for piece in pieces {
                    let sum: f64 = piece.values.iter().sum();
                    excess.extend(piece.sum.map(|rounded| rounded - sum));
                    values.extend(piece.values);
                }
                values
            }
            _ => plain(x, |x| x),
        };
        Rounded { values, excess }
    }
}

fn plain(x: &[f32], round: impl Fn(f32) -> f32) -> Vec<f64> {
    x.iter().map(|x| f64::from(round(*x))).collect()
}

pub(super) fn in_f16(x: f32) -> f32 {
    f16::from_f32(x).to_f32()
}

pub(super) fn in_bf16(x: f32) -> f32 {
    bf16::from_f32(x).to_f32()
}

/// Blocks of 8 bits that ggml rounds activations to.
#[derive(Clone, Copy)]
struct Block {
    elements: usize,
    /// Whether the scale is stored in f16, as in Q8_0 and Q8_1; Q8_K has f32.
    half_scale: bool,
    /// Whether the block keeps its sum in f16 (Q8_1).
    sum: bool,
}

/// What ggml pairs with weights of a type; `None` for plain elements.
fn blocks(tensor_type: TensorType) -> Option<Block> {
    Some(match tensor_type {
        TensorType::F32 | TensorType::F16 | TensorType::Bf16 | TensorType::F8E4M3 => return None,
        TensorType::Q4_1 | TensorType::Q5_1 => Block { elements: 32, half_scale: true, sum: true },
        TensorType::Q4_0 | TensorType::Q5_0 | TensorType::Q8_0 | TensorType::Iq4Nl | TensorType::Mxfp4 => {
            Block { elements: 32, half_scale: true, sum: false }
        }
        TensorType::Q2K | TensorType::Q3K | TensorType::Q4K | TensorType::Q5K | TensorType::Q6K | TensorType::Iq4Xs => {
            Block { elements: 256, half_scale: false, sum: false }
        }
    })
}

struct Piece {
    values: Vec<f64>,
    sum: Option<f64>,
}

impl Block {
    /// Scale and inverse are f32 as ggml has them, because which of two integers a value becomes hangs on their last bit.
    fn round(self, x: &[f32], rounding: ProductRounding) -> Piece {
        let extreme = x.iter().fold(0f32, |most, x| if x.abs() > most.abs() { *x } else { most });
        if x.iter().any(|x| !x.is_finite()) {
            return Piece { values: vec![f64::NAN; x.len()], sum: self.sum.then_some(f64::NAN) };
        }
        if extreme == 0.0 {
            return Piece { values: vec![0.0; x.len()], sum: self.sum.then_some(0.0) };
        }
        let signed = !self.half_scale && rounding == ProductRounding::Paired;
        let (scale, inverse) = match signed {
            true => (1.0 / (-127.0 / extreme), -127.0 / extreme),
            false => (extreme.abs() / 127.0, 127.0 / extreme.abs()),
        };
        let quants: Vec<f64> = x.iter().map(|x| f64::from((x * inverse).round_ties_even().min(127.0))).collect();
        let stored = f64::from(if self.half_scale { in_f16(scale) } else { scale });
        // ggml multiplies the sum with the scale before that is rounded to f16.
        let sum = self.sum.then(|| f64::from(in_f16(scale * quants.iter().sum::<f64>() as f32)));
        Piece { values: quants.into_iter().map(|quant| quant * stored).collect(), sum }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(x: &[f32], tensor_type: TensorType, rounding: ProductRounding) -> Vec<f64> {
        Rounded::new(x, x.len(), tensor_type, rounding).values
    }

    #[test]
    fn blocks_of_8_bits_keep_their_extreme_and_round_ties_to_even() {
        let mut x = [0f32; 32];
        x[..4].copy_from_slice(&[254.0, 1.0, 3.0, -254.0]);
        assert_eq!(values(&x, TensorType::Q8_0, ProductRounding::Paired)[..4], [254.0, 0.0, 4.0, -254.0]);
        let mut x = [0f32; 256];
        x[..3].copy_from_slice(&[-12.7, 0.05, 12.7]);
        let signed = values(&x, TensorType::Q4K, ProductRounding::Paired);
        assert!((signed[0] + 12.7).abs() < 1e-6 && (signed[2] - 12.7).abs() < 1e-6);
    }

    #[test]
    fn a_sum_of_a_block_is_kept_in_f16() {
        let x: Vec<f32> = (0..32).map(|i| i as f32 * 0.37 - 3.0).collect();
        let rounded = Rounded::new(&x, 32, TensorType::Q4_1, ProductRounding::Paired);
        let sum: f64 = rounded.values.iter().sum();
        assert!(rounded.excess[0] != 0.0 && rounded.excess[0].abs() < sum.abs() * 1e-3);
        assert!(Rounded::new(&x, 32, TensorType::Q4_0, ProductRounding::Paired).excess.is_empty());
    }

    #[test]
    fn nothing_is_rounded_where_nothing_is_to_be() {
        let x = [0.1f32, -3.7e-5, 1e9, 0.0];
        let plain: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
        assert_eq!(values(&x, TensorType::Q4K, ProductRounding::None), plain);
        assert_eq!(values(&x, TensorType::F32, ProductRounding::Paired), plain);
        assert_ne!(values(&x, TensorType::F16, ProductRounding::Paired), plain);
    }

    #[test]
    fn a_value_that_is_not_finite_poisons_its_block_alone() {
        let mut x = [1f32; 64];
        x[3] = f32::INFINITY;
        let rounded = Rounded::new(&x, 64, TensorType::Q8_0, ProductRounding::Paired).values;
        assert!(rounded[..32].iter().all(|x| x.is_nan()) && rounded[32..].iter().all(|x| x.is_finite()));
    }
}
