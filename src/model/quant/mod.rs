//! Block formats: parsers that name the parts of a block, conversion to f32, and from f32 to the plain ones.
//!
//! Conversion rounds in the order of the ggml project's reference: scales first (`d * sc`), then the quant, then
//! the minimum; every step in f32 and without fused multiply-add. So values agree bit for bit with the PyPI
//! package `gguf`.
//!
//! Quants are a few bits and cannot overflow; where an offset is taken from them it is by `wrapping_sub`, because a check
//! for each element would keep the loops from becoming vectors.

mod codebook;
mod encode;
mod float;
mod k;
mod k_low;
mod q4;
mod q5;
mod q8;
mod step;

pub use codebook::{Iq4Nl, Iq4Xs, Mxfp4};
pub use encode::{ENCODED, encode};
pub use k::{K_BLOCK, Q4K, Q5K, Q6K, ScaleMin, pack_scale_mins, scale_mins};
pub use k_low::{Q2K, Q3K};
pub use q4::{Q4_0, Q4_1};
pub use q5::{Q5_0, Q5_1};
pub use q8::{Q8_0, Q8_BLOCK};
pub use step::{scale_elements, scales, step, steps};

use super::TensorType;
use crate::error::{Error, Result};

/// Converts whole blocks (or plain elements) to f32; `out` has exactly the elements of `packed`.
///
/// # Errors
/// Internal where the lengths do not agree.
pub fn dequantize(tensor_type: TensorType, packed: &[u8], out: &mut [f32]) -> Result<()> {
    if tensor_type.row_bytes(out.len())? != packed.len() {
        return Err(Error::internal(format!(
            "{} bytes of {} do not hold {} elements",
            packed.len(),
            tensor_type.name(),
            out.len()
        )));
    }
    match tensor_type {
        TensorType::F32 => float::f32s(packed, out),
        TensorType::F16 => float::f16s(packed, out),
        TensorType::Bf16 => float::bf16s(packed, out),
        TensorType::F8E4M3 => float::f8_e4m3s(packed, out),
        TensorType::Q4_0 => blocks(packed, out, |block, out| Q4_0::parse(block).dequantize(out)),
        TensorType::Q4_1 => blocks(packed, out, |block, out| Q4_1::parse(block).dequantize(out)),
        TensorType::Q5_0 => blocks(packed, out, |block, out| Q5_0::parse(block).dequantize(out)),
        TensorType::Q5_1 => blocks(packed, out, |block, out| Q5_1::parse(block).dequantize(out)),
        TensorType::Q8_0 => blocks(packed, out, |block, out| Q8_0::parse(block).dequantize(out)),
        TensorType::Q2K => blocks(packed, out, |block, out| Q2K::parse(block).dequantize(out)),
        TensorType::Q3K => blocks(packed, out, |block, out| Q3K::parse(block).dequantize(out)),
        TensorType::Q4K => blocks(packed, out, |block, out| Q4K::parse(block).dequantize(out)),
        TensorType::Q5K => blocks(packed, out, |block, out| Q5K::parse(block).dequantize(out)),
        TensorType::Q6K => blocks(packed, out, |block, out| Q6K::parse(block).dequantize(out)),
        TensorType::Iq4Nl => blocks(packed, out, |block, out| Iq4Nl::parse(block).dequantize(out)),
        TensorType::Iq4Xs => blocks(packed, out, |block, out| Iq4Xs::parse(block).dequantize(out)),
        TensorType::Mxfp4 => blocks(packed, out, |block, out| Mxfp4::parse(block).dequantize(out)),
    }
    Ok(())
}

fn blocks<const BYTES: usize, const ELEMENTS: usize>(
    packed: &[u8],
    out: &mut [f32],
    convert: impl Fn(&[u8; BYTES], &mut [f32; ELEMENTS]),
) {
    let (blocks, _) = packed.as_chunks::<BYTES>();
    let (out, _) = out.as_chunks_mut::<ELEMENTS>();
    for (block, out) in blocks.iter().zip(out) {
        convert(block, out);
    }
}

/// The `N` bytes of a block from `start`.
#[inline(always)]
fn part<const N: usize>(block: &[u8], start: usize) -> &[u8; N] {
    let (head, _) = block[start..].as_chunks::<N>();
    &head[0]
}

/// The binary16 at `start`, as f32.
#[inline(always)]
fn half_at(block: &[u8], start: usize) -> f32 {
    half::f16::from_le_bytes(*part(block, start)).to_f32()
}

/// Spreads the nibbles of a block of 32: the low halves of all bytes, then the high ones.
#[inline(always)]
fn spread(packed: &[u8; 16]) -> [u8; 32] {
    let mut out = [0; 32];
    for (l, byte) in packed.iter().enumerate() {
        out[l] = byte & 15;
        out[l + 16] = byte >> 4;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    macro_rules! fixture {
        ($name:literal) => {
            (
                include_bytes!(concat!("../../../tests/fixtures/quant/", $name, ".blocks")).as_slice(),
                include_bytes!(concat!("../../../tests/fixtures/quant/", $name, ".f32")).as_slice(),
            )
        };
    }

    /// Packed blocks, and their values as little-endian f32.
    type Fixture = (&'static [u8], &'static [u8]);

    fn agrees(tensor_type: TensorType, (packed, expected): Fixture) {
        let expected: Vec<u32> = expected.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
        let mut values = vec![f32::NAN; expected.len()];
        dequantize(tensor_type, packed, &mut values).unwrap();
        let values: Vec<u32> = values.into_iter().map(f32::to_bits).collect();
        assert_eq!(values, expected, "{}", tensor_type.name());
    }

    #[test]
    fn every_e4m3_converts_bit_for_bit_as_torch_does() {
        agrees(TensorType::F8E4M3, fixture!("f8_e4m3"));
    }

    #[test]
    fn random_blocks_convert_bit_for_bit_as_the_gguf_package_does() {
        let fixtures: [(TensorType, Fixture); 15] = [
            (TensorType::F16, fixture!("f16")),
            (TensorType::Bf16, fixture!("bf16")),
            (TensorType::Q4_0, fixture!("q4_0")),
            (TensorType::Q4_1, fixture!("q4_1")),
            (TensorType::Q5_0, fixture!("q5_0")),
            (TensorType::Q5_1, fixture!("q5_1")),
            (TensorType::Q8_0, fixture!("q8_0")),
            (TensorType::Q2K, fixture!("q2_k")),
            (TensorType::Q3K, fixture!("q3_k")),
            (TensorType::Q4K, fixture!("q4_k")),
            (TensorType::Q5K, fixture!("q5_k")),
            (TensorType::Q6K, fixture!("q6_k")),
            (TensorType::Iq4Nl, fixture!("iq4_nl")),
            (TensorType::Iq4Xs, fixture!("iq4_xs")),
            (TensorType::Mxfp4, fixture!("mxfp4")),
        ];
        // F32 has no conversion.
        assert_eq!(fixtures.len() + 2, TensorType::ALL.len(), "F32 needs no conversion, and ggml has no E4M3");
        for (tensor_type, fixture) in fixtures {
            assert!(fixture.0.len() >= 4 * tensor_type.block_bytes());
            agrees(tensor_type, fixture);
        }
    }

    #[test]
    fn lengths_that_do_not_agree_are_refused() {
        assert!(dequantize(TensorType::Q4K, &[0; 144], &mut [0.0; 512]).is_err());
        assert!(dequantize(TensorType::Q4K, &[0; 144], &mut [0.0; 255]).is_err());
    }
}
