//! Quantised dots without vector kernels of their own: integers block by block, one code for every processor, so that
//! all kernel paths give the same bits.
//!
//! Integer sums are exact. What is f32 is multiplied and added in the order of ggml's generic dots (`vec_dot_*_generic`
//! in ggml-cpu/quants.c), never fused: blocks from first to last onto one running sum, with the type's order inside a
//! block as stated beside it in [`tile`].

use super::quants::Quantised;
use crate::model::TensorType;
use crate::model::quant::{Iq4Nl, Iq4Xs, Mxfp4, Q2K, Q3K, Q4_0, Q4_1, Q5_0, Q5_1};

/// Dots of one stored quantised row with the rows `first..first + M` of quantised activations.
///
/// `X` stands for the scale of a block of activations, `dot` for an integer dot.
#[inline(always)]
pub(super) fn tile<const M: usize>(w: &[u8], tensor_type: TensorType, x: &Quantised, first: usize) -> [f32; M] {
    match tensor_type {
        // (dot * d) * X
        TensorType::Q4_0 => fold(w, x, first, |block| {
            let w = Q4_0::parse(block);
            let quants = w.unpack();
            move |sum, at| *sum += dot(&quants, x.block_of(at)) as f32 * w.d * x.scales[at]
        }),
        // (d * X) * dot + m * total
        TensorType::Q4_1 => fold(w, x, first, |block| {
            let w = Q4_1::parse(block);
            with_minimum(w.d, w.m, w.unpack(), x)
        }),
        // (d * X) * dot, and so for the two tables of values
        TensorType::Q5_0 => fold(w, x, first, |block| {
            let w = Q5_0::parse(block);
            scaled(w.d, w.unpack(), x)
        }),
        TensorType::Q5_1 => fold(w, x, first, |block| {
            let w = Q5_1::parse(block);
            with_minimum(w.d, w.m, w.unpack(), x)
        }),
        TensorType::Iq4Nl => fold(w, x, first, |block| {
            let w = Iq4Nl::parse(block);
            scaled(w.d, w.unpack(), x)
        }),
        TensorType::Mxfp4 => fold(w, x, first, |block| {
            let w = Mxfp4::parse(block);
            scaled(w.d, w.unpack(), x)
        }),
        TensorType::Q2K => fold(w, x, first, |block| q2_k(Q2K::parse(block), x)),
        TensorType::Iq4Xs => fold(w, x, first, |block| iq4_xs(Iq4Xs::parse(block), x)),
        // Lane `l` of eight has the elements `l`, `l + 8`, .. of all blocks; the lanes are added from first to last.
        TensorType::Q3K => fold(w, x, first, |block| q3_k(Q3K::parse(block), x))
            .map(|lanes: [f32; 8]| lanes.into_iter().fold(0.0, |sum, lane| sum + lane)),
        // Plain elements, and types with kernels of their own: `Kernels::quantised_tile` does not ask for them.
        TensorType::F32 | TensorType::F16 | TensorType::Bf16 | TensorType::F8E4M3 => [f32::NAN; M],
        TensorType::Q8_0 | TensorType::Q4K | TensorType::Q5K | TensorType::Q6K => [f32::NAN; M],
    }
}

/// Adds the blocks of `w` up, for `M` rows of activations: `block` unpacks one, and what it returns adds the dot with
/// the activations' block of a number to a running sum.
#[inline(always)]
fn fold<'a, const BYTES: usize, const M: usize, S: Copy + Default, F: Fn(&mut S, usize)>(
    w: &'a [u8],
    x: &Quantised,
    first: usize,
    block: impl Fn(&'a [u8; BYTES]) -> F,
) -> [S; M] {
    let blocks = x.columns / x.block;
    let mut sums = [S::default(); M];
    for (b, packed) in w.as_chunks::<BYTES>().0.iter().take(blocks).enumerate() {
        let add = block(packed);
        for (i, sum) in sums.iter_mut().enumerate() {
            add(sum, (first + i) * blocks + b);
        }
    }
    sums
}

#[inline(always)]
fn scaled(d: f32, quants: [i8; 32], x: &Quantised) -> impl Fn(&mut f32, usize) {
    move |sum, at| *sum += d * x.scales[at] * dot(&quants, x.block_of(at)) as f32
}

#[inline(always)]
fn with_minimum(d: f32, m: f32, quants: [u8; 32], x: &Quantised) -> impl Fn(&mut f32, usize) {
    move |sum, at| *sum += d * x.scales[at] * dot(&quants, x.block_of(at)) as f32 + m * x.totals[at]
}

/// `(X * d) * sum of scale * dot - (X * dmin) * sum of min * x`, the sums over sixteens in integers.
#[inline(always)]
fn q2_k(w: Q2K<'_>, x: &Quantised) -> impl Fn(&mut f32, usize) {
    let quants = w.unpack();
    move |sum, at| {
        let parts = quants.as_chunks::<16>().0.iter().zip(x.block_of::<256>(at).as_chunks::<16>().0);
        let (mut dots, mut mins) = (0i32, 0i32);
        for (((w_part, x_part), scales), x_sum) in parts.zip(w.scales).zip(x.sums_of(at)) {
            dots += i32::from(scales & 15) * dot(w_part, x_part);
            mins += i32::from(scales >> 4) * i32::from(*x_sum);
        }
        *sum += x.scales[at] * w.d * dots as f32 - x.scales[at] * w.dmin * mins as f32;
    }
}

/// `(d * X) * sum of scale * dot` in each lane, the sum over sixteens in integers.
#[inline(always)]
fn q3_k(w: Q3K<'_>, x: &Quantised) -> impl Fn(&mut [f32; 8], usize) {
    let (quants, scales) = (w.unpack(), w.scales());
    move |sums, at| {
        let parts = quants.as_chunks::<16>().0.iter().zip(x.block_of::<256>(at).as_chunks::<16>().0);
        let mut lanes = [0i32; 8];
        for ((w_part, x_part), scale) in parts.zip(scales) {
            for (l, lane) in lanes.iter_mut().enumerate() {
                let low = i32::from(w_part[l]).wrapping_mul(x_part[l].into());
                let high = i32::from(w_part[l + 8]).wrapping_mul(x_part[l + 8].into());
                *lane = lane.wrapping_add(i32::from(scale).wrapping_mul(low.wrapping_add(high)));
            }
        }
        let d = w.d * x.scales[at];
        for (sum, lane) in sums.iter_mut().zip(lanes) {
            *sum += d * lane as f32;
        }
    }
}

/// `((d * X) * scale) * dot`, the eight sub-blocks one after the other onto the running sum.
#[inline(always)]
fn iq4_xs(w: Iq4Xs<'_>, x: &Quantised) -> impl Fn(&mut f32, usize) {
    let (quants, scales) = (w.unpack(), w.scales());
    move |sum, at| {
        let parts = quants.as_chunks::<32>().0.iter().zip(x.block_of::<256>(at).as_chunks::<32>().0);
        let d = w.d * x.scales[at];
        for ((w_part, x_part), scale) in parts.zip(scales) {
            *sum += d * f32::from(scale) * dot(w_part, x_part) as f32;
        }
    }
}

/// At most 32 * 128 * 128 in magnitude, and a super-block's scaled sums at most 2^27: nothing wraps. Checks for it would
/// keep the loop from becoming vectors; inlined, it is mixed with the loop over rows and several rows take half as long
/// again.
#[inline(never)]
fn dot<const N: usize, T: Copy + Into<i32>>(w: &[T; N], x: &[i8; N]) -> i32 {
    w.iter().zip(x).fold(0i32, |sum, (w, x)| sum.wrapping_add((*w).into().wrapping_mul(i32::from(*x))))
}

#[cfg(test)]
mod tests {
    use super::super::Kernels;
    use super::*;

    macro_rules! fixture {
        ($tensor_type:ident, $name:literal) => {
            (
                TensorType::$tensor_type,
                include_bytes!(concat!("../../../../tests/fixtures/dots/", $name, ".weights")).as_slice(),
                include_bytes!(concat!("../../../../tests/fixtures/dots/", $name, ".dots")).as_slice(),
            )
        };
    }

    fn floats(bytes: &[u8]) -> Vec<f32> {
        bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    #[test]
    fn dots_are_those_of_ggmls_generic_code_bit_for_bit() {
        const COLUMNS: usize = 512;
        let x = floats(include_bytes!("../../../../tests/fixtures/dots/activations.f32"));
        for (tensor_type, weights, expected) in [
            fixture!(Q4_0, "q4_0"),
            fixture!(Q4_1, "q4_1"),
            fixture!(Q5_0, "q5_0"),
            fixture!(Q5_1, "q5_1"),
            fixture!(Iq4Nl, "iq4_nl"),
            fixture!(Mxfp4, "mxfp4"),
            fixture!(Q2K, "q2_k"),
            fixture!(Q3K, "q3_k"),
            fixture!(Iq4Xs, "iq4_xs"),
        ] {
            let x = Quantised::new(&x, COLUMNS, tensor_type).unwrap();
            let rows: Vec<&[u8]> = weights.chunks_exact(tensor_type.row_bytes(COLUMNS).unwrap()).collect();
            let expected: Vec<u32> = floats(expected).into_iter().map(f32::to_bits).collect();
            for kernels in [Kernels::detect(), Kernels::Scalar] {
                let mut out = vec![0f32; expected.len()];
                kernels.quantised_products(&x, 6, &rows, tensor_type, &mut out);
                let out: Vec<u32> = out.into_iter().map(f32::to_bits).collect();
                assert_eq!(out, expected, "{tensor_type:?} {kernels:?}");
            }
        }
    }
}
