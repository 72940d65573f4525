//! Q5_0 and Q5_1: like Q4_0 and Q4_1, with 32 fifth bits before the nibbles: bit `i` of a little-endian word belongs
//! to element `i`.

use super::{half_at, part, spread};

/// A parsed Q5_0 block, 22 bytes: f16 `d`, 4 bytes of fifth bits, 16 bytes of nibbles (`block_q5_0` in ggml-common.h).
///
/// Element `i` is `d * (q - 16)`, as `dequantize_row_q5_0` in ggml-quants.c has it.
#[derive(Debug, Clone, Copy)]
pub struct Q5_0<'a> {
    /// Scale of all elements.
    pub d: f32,
    /// Fifth bits.
    pub high: &'a [u8; 4],
    /// Nibbles.
    pub quants: &'a [u8; 16],
}

impl<'a> Q5_0<'a> {
    /// Names the parts of a block.
    #[inline(always)]
    pub fn parse(block: &'a [u8; 22]) -> Self {
        Q5_0 { d: half_at(block, 0), high: part(block, 2), quants: part(block, 6) }
    }

    /// Quants -16..16 in element order.
    #[inline(always)]
    pub fn unpack(&self) -> [i8; 32] {
        with_fifths(spread(self.quants), self.high).map(|quant| quant.cast_signed().wrapping_sub(16))
    }

    /// Converts to f32.
    pub fn dequantize(&self, out: &mut [f32; 32]) {
        *out = self.unpack().map(|quant| self.d * f32::from(quant));
    }
}

/// A parsed Q5_1 block, 24 bytes: f16 `d`, f16 `m`, 4 bytes of fifth bits, 16 bytes of nibbles (`block_q5_1` in
/// ggml-common.h).
///
/// Element `i` is `d * q + m`, as `dequantize_row_q5_1` in ggml-quants.c has it.
#[derive(Debug, Clone, Copy)]
pub struct Q5_1<'a> {
    /// Scale of all elements.
    pub d: f32,
    /// The least element; it is added.
    pub m: f32,
    /// Fifth bits.
    pub high: &'a [u8; 4],
    /// Nibbles.
    pub quants: &'a [u8; 16],
}

impl<'a> Q5_1<'a> {
    /// Names the parts of a block.
    #[inline(always)]
    pub fn parse(block: &'a [u8; 24]) -> Self {
        Q5_1 { d: half_at(block, 0), m: half_at(block, 2), high: part(block, 4), quants: part(block, 8) }
    }

    /// Quants 0..32 in element order.
    #[inline(always)]
    pub fn unpack(&self) -> [u8; 32] {
        with_fifths(spread(self.quants), self.high)
    }

    /// Converts to f32.
    pub fn dequantize(&self, out: &mut [f32; 32]) {
        *out = self.unpack().map(|quant| self.d * f32::from(quant) + self.m);
    }
}

/// Puts a fifth bit on top of each nibble. Byte `i / 8` of `high` has element `i`'s bit at `i % 8`.
#[inline(always)]
fn with_fifths(mut quants: [u8; 32], high: &[u8; 4]) -> [u8; 32] {
    for (quants, bits) in quants.as_chunks_mut::<8>().0.iter_mut().zip(high) {
        for (i, quant) in quants.iter_mut().enumerate() {
            // A comparison, not a shift by `i`: vectors of bytes have no shift.
            *quant |= if bits & (1 << i) == 0 { 0 } else { 16 };
        }
    }
    quants
}
