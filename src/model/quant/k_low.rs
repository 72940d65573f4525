//! The K-quants of 2 and 3 bits: super-blocks of 256 elements in sub-blocks of 16.
//!
//! Both keep two bits of an element alike: each half of 128 elements has 32 bytes, and element `32 g + l` of a half is
//! bits `2 g` and `2 g + 1` of byte `l`.

use super::{K_BLOCK, half_at, part};

/// A parsed Q2_K super-block, 84 bytes: 16 bytes of scales and minima, 64 bytes of bit pairs, f16 `d`, f16 `dmin`
/// (`block_q2_K` in ggml-common.h).
///
/// Element `i` is `d * scale * q - dmin * min`, as `dequantize_row_q2_K` in ggml-quants.c has it; byte `i / 16` of the
/// scales holds `scale` in its low and `min` in its high half.
#[derive(Debug, Clone, Copy)]
pub struct Q2K<'a> {
    /// Scales (low nibbles) and minima (high nibbles) of 16 elements each.
    pub scales: &'a [u8; 16],
    /// Bit pairs.
    pub quants: &'a [u8; 64],
    /// Factor of the scales.
    pub d: f32,
    /// Factor of the minima.
    pub dmin: f32,
}

impl<'a> Q2K<'a> {
    /// Names the parts of a super-block.
    #[inline(always)]
    pub fn parse(block: &'a [u8; 84]) -> Self {
        Q2K { scales: part(block, 0), quants: part(block, 16), d: half_at(block, 80), dmin: half_at(block, 82) }
    }

    /// Quants 0..4 in element order.
    #[inline(always)]
    pub fn unpack(&self) -> [u8; K_BLOCK] {
        bit_pairs(self.quants)
    }

    /// Converts to f32.
    pub fn dequantize(&self, out: &mut [f32; K_BLOCK]) {
        let quants = self.unpack();
        let subs = quants.as_chunks::<16>().0.iter().zip(out.as_chunks_mut::<16>().0);
        for ((quants, out), scales) in subs.zip(self.scales) {
            let (scale, min) = (self.d * f32::from(scales & 15), self.dmin * f32::from(scales >> 4));
            *out = quants.map(|quant| scale * f32::from(quant) - min);
        }
    }
}

/// A parsed Q3_K super-block, 110 bytes: 32 bytes of third bits, 64 bytes of bit pairs, 12 bytes of scales, f16 `d`
/// (`block_q3_K` in ggml-common.h).
///
/// Element `i` is `d * scale[i / 16] * q`, as `dequantize_row_q3_K` in ggml-quants.c has it. `q` is the bit pair where
/// bit `i / 32` of `high[i % 32]` is set, and 4 less where it is not.
#[derive(Debug, Clone, Copy)]
pub struct Q3K<'a> {
    /// Third bits.
    pub high: &'a [u8; 32],
    /// Bit pairs.
    pub quants: &'a [u8; 64],
    /// Packed scales, see [`Q3K::scales`].
    pub packed_scales: &'a [u8; 12],
    /// Factor of the scales.
    pub d: f32,
}

impl<'a> Q3K<'a> {
    /// Names the parts of a super-block.
    #[inline(always)]
    pub fn parse(block: &'a [u8; 110]) -> Self {
        Q3K { high: part(block, 0), quants: part(block, 32), packed_scales: part(block, 96), d: half_at(block, 108) }
    }

    /// Scales -32..32 of 16 elements each. Scale `k` has its low nibble in byte `k % 8` (high half from 8 on), and its
    /// upper two bits in byte `8 + k % 4` at bit `2 (k / 4)`.
    #[inline(always)]
    pub fn scales(&self) -> [i8; 16] {
        std::array::from_fn(|k| {
            let low = (self.packed_scales[k % 8] >> (4 * (k / 8))) & 15;
            let high = (self.packed_scales[8 + k % 4] >> (2 * (k / 4))) & 3;
            (low | (high << 4)).cast_signed() - 32
        })
    }

    /// Quants -4..4 in element order.
    #[inline(always)]
    pub fn unpack(&self) -> [i8; K_BLOCK] {
        let mut out = bit_pairs(self.quants).map(u8::cast_signed);
        for (s, sub) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let bit = 1u8 << s;
            for (quant, high) in sub.iter_mut().zip(self.high) {
                *quant = quant.wrapping_sub(if high & bit == 0 { 4 } else { 0 });
            }
        }
        out
    }

    /// Converts to f32.
    pub fn dequantize(&self, out: &mut [f32; K_BLOCK]) {
        let quants = self.unpack();
        let subs = quants.as_chunks::<16>().0.iter().zip(out.as_chunks_mut::<16>().0);
        for ((quants, out), scale) in subs.zip(self.scales()) {
            let scale = self.d * f32::from(scale);
            *out = quants.map(|quant| scale * f32::from(quant));
        }
    }
}

/// Two bits of each element, see the module's text.
#[inline(always)]
fn bit_pairs(packed: &[u8; 64]) -> [u8; K_BLOCK] {
    let mut out = [0; K_BLOCK];
    for (packed, out) in packed.as_chunks::<32>().0.iter().zip(out.as_chunks_mut::<128>().0) {
        for (l, byte) in packed.iter().enumerate() {
            out[l] = byte & 3;
            out[l + 32] = (byte >> 2) & 3;
            out[l + 64] = (byte >> 4) & 3;
            out[l + 96] = byte >> 6;
        }
    }
    out
}
