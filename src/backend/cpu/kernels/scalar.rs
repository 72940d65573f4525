//! Kernels in plain Rust, for processors without AVX2. Eight lanes sum in turn, as in the vector kernels,
//! but without fused products: the last bits differ from theirs.

use super::quants::Quantised;
use crate::model::TensorType;
use crate::model::quant::{K_BLOCK, Q4K, Q5K, Q6K, Q8_0, Q8_BLOCK, scale_mins};
use half::{bf16, f16};

/// Dots of `M` rows of f32 with `N` stored rows.
pub(super) fn float_tile<const M: usize, const N: usize>(
    x: [&[f32]; M],
    w: [&[u8]; N],
    tensor_type: TensorType,
    k: usize,
) -> [[f32; N]; M] {
    x.map(|x| w.map(|w| float_dot(&x[..k], w, tensor_type)))
}

fn float_dot(x: &[f32], w: &[u8], tensor_type: TensorType) -> f32 {
    match tensor_type {
        TensorType::F16 => {
            let w = w.as_chunks::<2>().0.iter();
            dot(x, w.map(|bytes| f16::from_le_bytes(*bytes).to_f32()))
        }
        TensorType::Bf16 => {
            let w = w.as_chunks::<2>().0.iter();
            dot(x, w.map(|bytes| bf16::from_le_bytes(*bytes).to_f32()))
        }
        _ => dot(x, w.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes))),
    }
}

fn dot(x: &[f32], w: impl Iterator<Item = f32>) -> f32 {
    let mut lanes = [0f32; 8];
    for (at, (x, w)) in x.iter().zip(w).enumerate() {
        lanes[at % 8] += x * w;
    }
    sum_lanes(lanes)
}

fn sum_lanes(lanes: [f32; 8]) -> f32 {
    let four: [f32; 4] = std::array::from_fn(|i| lanes[i] + lanes[i + 4]);
    (four[0] + four[2]) + (four[1] + four[3])
}

/// Dots of one stored quantised row with the rows `first..first + M` of quantised activations.
pub(super) fn quantised_tile<const M: usize>(
    w: &[u8],
    tensor_type: TensorType,
    x: &Quantised,
    first: usize,
) -> [f32; M] {
    let blocks = x.columns / x.block;
    std::array::from_fn(|i| {
        let quants = &x.quants[(first + i) * x.columns..][..x.columns];
        let scales = &x.scales[(first + i) * blocks..][..blocks];
        match tensor_type {
            TensorType::Q4K => row_dot(w, quants, scales, |w, x| {
                let w = Q4K::parse(w);
                scaled_dot(w.d, w.dmin, w.scales, &w.unpack(), x)
            }),
            TensorType::Q5K => row_dot(w, quants, scales, |w, x| {
                let w = Q5K::parse(w);
                scaled_dot(w.d, w.dmin, w.scales, &w.unpack(), x)
            }),
            TensorType::Q6K => row_dot(w, quants, scales, |w, x: &[i8; K_BLOCK]| {
                let w = Q6K::parse(w);
                let parts = w.unpack();
                let parts = parts.as_chunks::<16>().0.iter().zip(x.as_chunks::<16>().0).zip(w.scales);
                w.d * parts.map(|((w, x), s)| i32::from(*s as i8) * integer_dot(w, x)).sum::<i32>() as f32
            }),
            _ => row_dot(w, quants, scales, |w, x: &[i8; Q8_BLOCK]| {
                let w = Q8_0::parse(w);
                w.scale * integer_dot(&w.quants.map(|q| q as i8), x) as f32
            }),
        }
    })
}

/// Sum of the blocks' dots, each times the scale of its activations.
fn row_dot<const BYTES: usize, const ELEMENTS: usize>(
    w: &[u8],
    x: &[i8],
    scales: &[f32],
    block_dot: impl Fn(&[u8; BYTES], &[i8; ELEMENTS]) -> f32,
) -> f32 {
    let blocks = w.as_chunks::<BYTES>().0.iter().zip(x.as_chunks::<ELEMENTS>().0);
    blocks.zip(scales).map(|((w, x), scale)| scale * block_dot(w, x)).sum()
}

/// `d * sum of scale * q . x - dmin * sum of min * x` over the eight sub-blocks of Q4_K and Q5_K.
fn scaled_dot(d: f32, dmin: f32, packed: &[u8; 12], quants: &[u8; K_BLOCK], x: &[i8; K_BLOCK]) -> f32 {
    let (mut dots, mut mins) = (0i32, 0i32);
    let parts = quants.as_chunks::<32>().0.iter().zip(x.as_chunks::<32>().0);
    for ((quants, x), pair) in parts.zip(scale_mins(packed)) {
        dots += i32::from(pair.scale) * integer_dot(quants, x);
        mins += i32::from(pair.min) * x.iter().map(|x| i32::from(*x)).sum::<i32>();
    }
    d * dots as f32 - dmin * mins as f32
}

fn integer_dot<T: Copy + Into<i32>>(w: &[T], x: &[i8]) -> i32 {
    w.iter().zip(x).map(|(w, x)| (*w).into() * i32::from(*x)).sum()
}
