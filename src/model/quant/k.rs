//! The K-quants: super-blocks of 256 elements whose sub-blocks carry small integer scales (and minima) under f16
//! factors.

use super::{half_at, part};

/// Elements of a super-block.
pub const K_BLOCK: usize = 256;

/// The 6-bit scale and minimum of a sub-block of 32 elements (Q4_K, Q5_K).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScaleMin {
    /// Scale, 0..64.
    pub scale: u8,
    /// Minimum, 0..64; it is subtracted.
    pub min: u8,
}

/// Unpacks eight pairs of 6-bit numbers: the first four have a byte each, the other four a nibble in bytes 8..12
/// and their upper two bits on top of the first eight bytes.
#[inline(always)]
pub fn scale_mins(packed: &[u8; 12]) -> [ScaleMin; 8] {
    let mut pairs = [ScaleMin::default(); 8];
    for j in 0..4 {
        let (a, b, c) = (packed[j], packed[j + 4], packed[j + 8]);
        pairs[j] = ScaleMin { scale: a & 63, min: b & 63 };
        pairs[j + 4] = ScaleMin { scale: (c & 15) | ((a >> 6) << 4), min: (c >> 4) | ((b >> 6) << 4) };
    }
    pairs
}

/// Packs eight pairs as [`scale_mins`] reads them; only the lower six bits of each number count.
#[inline(always)]
pub fn pack_scale_mins(pairs: &[ScaleMin; 8]) -> [u8; 12] {
    let mut packed = [0; 12];
    for j in 0..4 {
        let (first, second) = (pairs[j], pairs[j + 4]);
        packed[j] = (first.scale & 63) | (second.scale >> 4 << 6);
        packed[j + 4] = (first.min & 63) | (second.min >> 4 << 6);
        packed[j + 8] = (second.scale & 15) | (second.min << 4);
    }
    packed
}

/// A parsed Q4_K super-block, 144 bytes: f16 `d`, f16 `dmin`, 12 bytes of scales and minima, 128 bytes of nibbles.
///
/// Element `32 s + l` of sub-block `s` is `d * scale * q - dmin * min`; `q` is byte `32 (s / 2) + l`'s low nibble
/// for even `s`, its high nibble for odd `s`.
#[derive(Debug, Clone, Copy)]
pub struct Q4K<'a> {
    /// Factor of the scales.
    pub d: f32,
    /// Factor of the minima.
    pub dmin: f32,
    /// Packed scales and minima, see [`scale_mins`].
    pub scales: &'a [u8; 12],
    /// Nibbles.
    pub quants: &'a [u8; 128],
}

impl<'a> Q4K<'a> {
    /// Names the parts of a super-block.
    #[inline(always)]
    pub fn parse(block: &'a [u8; 144]) -> Self {
        Q4K { d: half_at(block, 0), dmin: half_at(block, 2), scales: part(block, 4), quants: part(block, 16) }
    }

    /// Quants 0..16 in element order.
    pub fn unpack(&self) -> [u8; K_BLOCK] {
        let mut out = [0; K_BLOCK];
        nibbles(self.quants, &mut out);
        out
    }

    /// Converts to f32.
    pub fn dequantize(&self, out: &mut [f32; K_BLOCK]) {
        scaled(self.d, self.dmin, self.scales, &self.unpack(), out);
    }
}

/// A parsed Q5_K super-block, 176 bytes: like [`Q4K`], with 32 bytes of fifth bits before the nibbles.
///
/// Bit `s` of `high[l]` is the fifth bit of element `32 s + l`.
#[derive(Debug, Clone, Copy)]
pub struct Q5K<'a> {
    /// Factor of the scales.
    pub d: f32,
    /// Factor of the minima.
    pub dmin: f32,
    /// Packed scales and minima, see [`scale_mins`].
    pub scales: &'a [u8; 12],
    /// Fifth bits.
    pub high: &'a [u8; 32],
    /// Nibbles, laid out as in [`Q4K`].
    pub quants: &'a [u8; 128],
}

impl<'a> Q5K<'a> {
    /// Names the parts of a super-block.
    #[inline(always)]
    pub fn parse(block: &'a [u8; 176]) -> Self {
        Q5K {
            d: half_at(block, 0),
            dmin: half_at(block, 2),
            scales: part(block, 4),
            high: part(block, 16),
            quants: part(block, 48),
        }
    }

    /// Quants 0..32 in element order.
    pub fn unpack(&self) -> [u8; K_BLOCK] {
        let mut out = [0; K_BLOCK];
        nibbles(self.quants, &mut out);
        // One bit a turn: vectors of bytes shift by a constant, but not by the number of the sub-block.
        let mut high = *self.high;
        for sub in out.as_chunks_mut::<32>().0 {
            for (quant, high) in sub.iter_mut().zip(&mut high) {
                *quant |= (*high & 1) << 4;
                *high >>= 1;
            }
        }
        out
    }

    /// Converts to f32.
    pub fn dequantize(&self, out: &mut [f32; K_BLOCK]) {
        scaled(self.d, self.dmin, self.scales, &self.unpack(), out);
    }
}

/// A parsed Q6_K super-block, 210 bytes: 128 bytes of low nibbles, 64 bytes of upper bit pairs, 16 x i8 scales, f16
/// `d`.
///
/// Element `i` is `d * scales[i / 16] * q`, `q` in -32..32. Each half of 128 elements has its own 64 low and 32 high
/// bytes: element `32 g + l` of a half takes low byte `32 (g % 2) + l` (low nibble for `g < 2`, else high) and bits
/// `2 g` and `2 g + 1` of high byte `l`.
#[derive(Debug, Clone, Copy)]
pub struct Q6K<'a> {
    /// Low nibbles.
    pub low: &'a [u8; 128],
    /// Upper bit pairs.
    pub high: &'a [u8; 64],
    /// Scales of 16 elements each, as stored: two's complement bytes.
    pub scales: &'a [u8; 16],
    /// Factor of the scales.
    pub d: f32,
}

impl<'a> Q6K<'a> {
    /// Names the parts of a super-block.
    #[inline(always)]
    pub fn parse(block: &'a [u8; 210]) -> Self {
        Q6K { low: part(block, 0), high: part(block, 128), scales: part(block, 192), d: half_at(block, 208) }
    }

    /// Quants -32..32 in element order.
    pub fn unpack(&self) -> [i8; K_BLOCK] {
        let mut out = [0; K_BLOCK];
        let halves = self.low.as_chunks::<64>().0.iter().zip(self.high.as_chunks::<32>().0);
        for ((low, high), out) in halves.zip(out.as_chunks_mut::<128>().0) {
            for (g, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
                for l in 0..32 {
                    let nibble = (low[32 * (g % 2) + l] >> (4 * (g / 2))) & 15;
                    let pair = (high[l] >> (2 * g)) & 3;
                    out[l] = (nibble | (pair << 4)).cast_signed() - 32;
                }
            }
        }
        out
    }

    /// Converts to f32.
    pub fn dequantize(&self, out: &mut [f32; K_BLOCK]) {
        let quants = self.unpack();
        let groups = quants.as_chunks::<16>().0.iter().zip(out.as_chunks_mut::<16>().0);
        for ((quants, out), scale) in groups.zip(self.scales) {
            let scale = self.d * f32::from(scale.cast_signed());
            for (value, quant) in out.iter_mut().zip(quants) {
                *value = scale * f32::from(*quant);
            }
        }
    }
}

/// Spreads nibbles: each 32 bytes hold 32 elements in their low and the next 32 in their high halves.
fn nibbles(packed: &[u8; 128], out: &mut [u8; K_BLOCK]) {
    for (packed, out) in packed.as_chunks::<32>().0.iter().zip(out.as_chunks_mut::<64>().0) {
        for (l, byte) in packed.iter().enumerate() {
            out[l] = byte & 15;
            out[l + 32] = byte >> 4;
        }
    }
}

/// `d * scale * q - dmin * min` for each sub-block of 32.
fn scaled(d: f32, dmin: f32, packed: &[u8; 12], quants: &[u8; K_BLOCK], out: &mut [f32; K_BLOCK]) {
    let subs = quants.as_chunks::<32>().0.iter().zip(out.as_chunks_mut::<32>().0);
    for ((quants, out), ScaleMin { scale, min }) in subs.zip(scale_mins(packed)) {
        stepped(d * f32::from(scale), dmin * f32::from(min), quants, out);
    }
}

/// `step * q - min`. Inlined, the compiler gathers vectors from different sub-blocks, byte by byte, and takes nearly
/// twice as long.
#[inline(never)]
fn stepped(step: f32, min: f32, quants: &[u8; 32], out: &mut [f32; 32]) {
    for (value, quant) in out.iter_mut().zip(quants) {
        *value = step * f32::from(*quant) - min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn packing_turns_unpacking_round(packed in any::<[u8; 12]>()) {
            prop_assert_eq!(pack_scale_mins(&scale_mins(&packed)), packed);
        }
    }
}
