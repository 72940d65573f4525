//! Nibbles that name a value of a fixed table: IQ4_NL, IQ4_XS, MXFP4.

use super::{K_BLOCK, half_at, part, spread};

/// The 16 values of IQ4_NL and IQ4_XS: `kvalues_iq4nl` in ggml-common.h.
pub(super) const NON_LINEAR: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// The 16 values of E2M1 (sign, two bits of exponent, one of mantissa), doubled so that they are integers:
/// `kvalues_mxfp4` in ggml-common.h, after the OCP Microscaling Formats specification 1.0, section 5.3.3.
pub(super) const E2M1_DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// A parsed IQ4_NL block, 18 bytes: f16 `d`, 16 bytes of nibbles laid out as in [`super::Q4_0`] (`block_iq4_nl` in
/// ggml-common.h).
///
/// Element `i` is `d * table[nibble]`, as `dequantize_row_iq4_nl` in ggml-quants.c has it.
#[derive(Debug, Clone, Copy)]
pub struct Iq4Nl<'a> {
    /// Scale of all elements.
    pub d: f32,
    /// Nibbles.
    pub quants: &'a [u8; 16],
}

impl<'a> Iq4Nl<'a> {
    /// Names the parts of a block.
    #[inline(always)]
    pub fn parse(block: &'a [u8; 18]) -> Self {
        Iq4Nl { d: half_at(block, 0), quants: part(block, 2) }
    }

    /// Values -127..=113 of the table in element order.
    #[inline(always)]
    pub fn unpack(&self) -> [i8; 32] {
        looked_up(&NON_LINEAR, self.quants)
    }

    /// Converts to f32.
    pub fn dequantize(&self, out: &mut [f32; 32]) {
        *out = self.unpack().map(|value| self.d * f32::from(value));
    }
}

/// A parsed IQ4_XS super-block, 136 bytes: f16 `d`, a little-endian u16 with the upper bit pairs of eight scales, 4
/// bytes with their low nibbles, 128 bytes of nibbles (`block_iq4_xs` in ggml-common.h).
///
/// Element `32 s + l` of sub-block `s` is `d * scale[s] * table[nibble]`, as `dequantize_row_iq4_xs` in ggml-quants.c
/// has it; the sub-block's nibbles are 16 bytes laid out as in [`super::Q4_0`].
#[derive(Debug, Clone, Copy)]
pub struct Iq4Xs<'a> {
    /// Factor of the scales.
    pub d: f32,
    /// Upper bit pairs of the scales, sub-block 0 in the lowest bits.
    pub scales_high: u16,
    /// Low nibbles of the scales, sub-block 0 in the low half of the first byte.
    pub scales_low: &'a [u8; 4],
    /// Nibbles.
    pub quants: &'a [u8; 128],
}

impl<'a> Iq4Xs<'a> {
    /// Names the parts of a super-block.
    #[inline(always)]
    pub fn parse(block: &'a [u8; 136]) -> Self {
        Iq4Xs {
            d: half_at(block, 0),
            scales_high: u16::from_le_bytes(*part(block, 2)),
            scales_low: part(block, 4),
            quants: part(block, 8),
        }
    }

    /// Scales -32..32 of the eight sub-blocks.
    #[inline(always)]
    pub fn scales(&self) -> [i8; 8] {
        std::array::from_fn(|s| {
            let low = (self.scales_low[s / 2] >> (4 * (s % 2))) & 15;
            let high = (self.scales_high >> (2 * s)) as u8 & 3;
            (low | (high << 4)).cast_signed() - 32
        })
    }

    /// Values -127..=113 of the table in element order.
    #[inline(always)]
    pub fn unpack(&self) -> [i8; K_BLOCK] {
        let mut out = [0; K_BLOCK];
        for (packed, out) in self.quants.as_chunks::<16>().0.iter().zip(out.as_chunks_mut::<32>().0) {
            *out = looked_up(&NON_LINEAR, packed);
        }
        out
    }

    /// Converts to f32.
    pub fn dequantize(&self, out: &mut [f32; K_BLOCK]) {
        let values = self.unpack();
        let subs = values.as_chunks::<32>().0.iter().zip(out.as_chunks_mut::<32>().0);
        for ((values, out), scale) in subs.zip(self.scales()) {
            let scale = self.d * f32::from(scale);
            *out = values.map(|value| scale * f32::from(value));
        }
    }
}

/// A parsed MXFP4 block, 17 bytes: an E8M0 exponent, 16 bytes of nibbles laid out as in [`super::Q4_0`] (`block_mxfp4`
/// in ggml-common.h; the format is of the OCP Microscaling Formats specification 1.0).
///
/// Element `i` is `d * table[nibble]`, as `dequantize_row_mxfp4` in ggml-quants.c has it: the table is twice E2M1, so
/// `d` is half of the exponent's power of two. Unlike the specification ggml gives exponent 255 no NaN.
#[derive(Debug, Clone, Copy)]
pub struct Mxfp4<'a> {
    /// Half of `2^(exponent - 127)`.
    pub d: f32,
    /// Nibbles.
    pub quants: &'a [u8; 16],
}

impl<'a> Mxfp4<'a> {
    /// Names the parts of a block.
    #[inline(always)]
    pub fn parse(block: &'a [u8; 17]) -> Self {
        Mxfp4 { d: half_power(block[0]), quants: part(block, 1) }
    }

    /// Values -12..=12 of the table in element order.
    #[inline(always)]
    pub fn unpack(&self) -> [i8; 32] {
        looked_up(&E2M1_DOUBLED, self.quants)
    }

    /// Converts to f32.
    pub fn dequantize(&self, out: &mut [f32; 32]) {
        *out = self.unpack().map(|value| self.d * f32::from(value));
    }
}

/// `2^(exponent - 128)`; the first two are subnormal in f32.
#[inline(always)]
fn half_power(exponent: u8) -> f32 {
    let exponent = u32::from(exponent);
    f32::from_bits(if exponent < 2 { 0x0020_0000 << exponent } else { (exponent - 1) << 23 })
}

#[inline(always)]
fn looked_up(table: &[i8; 16], packed: &[u8; 16]) -> [i8; 32] {
    spread(packed).map(|nibble| table[usize::from(nibble & 15)])
}
