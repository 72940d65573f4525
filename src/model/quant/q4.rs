//! Q4_0 and Q4_1: 32 nibbles under one scale. Byte `l` of the nibbles holds element `l` in its low and element
//! `l + 16` in its high half.

use super::{half_at, part, spread};

/// A parsed Q4_0 block, 18 bytes: f16 `d`, 16 bytes of nibbles (`block_q4_0` in ggml-common.h).
///
/// Element `i` is `d * (nibble - 8)`, as `dequantize_row_q4_0` in ggml-quants.c has it.
#[derive(Debug, Clone, Copy)]
pub struct Q4_0<'a> {
    /// Scale of all elements.
    pub d: f32,
    /// Nibbles.
    pub quants: &'a [u8; 16],
}

impl<'a> Q4_0<'a> {
    /// Names the parts of a block.
    #[inline(always)]
    pub fn parse(block: &'a [u8; 18]) -> Self {
        Q4_0 { d: half_at(block, 0), quants: part(block, 2) }
    }

    /// Quants -8..8 in element order.
    #[inline(always)]
    pub fn unpack(&self) -> [i8; 32] {
        spread(self.quants).map(|quant| quant.cast_signed().wrapping_sub(8))
    }

    /// Converts to f32.
    pub fn dequantize(&self, out: &mut [f32; 32]) {
        *out = self.unpack().map(|quant| self.d * f32::from(quant));
    }
}

/// A parsed Q4_1 block, 20 bytes: f16 `d`, f16 `m`, 16 bytes of nibbles (`block_q4_1` in ggml-common.h).
///
/// Element `i` is `d * nibble + m`, as `dequantize_row_q4_1` in ggml-quants.c has it.
#[derive(Debug, Clone, Copy)]
pub struct Q4_1<'a> {
    /// Scale of all elements.
    pub d: f32,
    /// The least element; it is added.
    pub m: f32,
    /// Nibbles.
    pub quants: &'a [u8; 16],
}

impl<'a> Q4_1<'a> {
    /// Names the parts of a block.
    #[inline(always)]
    pub fn parse(block: &'a [u8; 20]) -> Self {
        Q4_1 { d: half_at(block, 0), m: half_at(block, 2), quants: part(block, 4) }
    }

    /// Quants 0..16 in element order.
    #[inline(always)]
    pub fn unpack(&self) -> [u8; 32] {
        spread(self.quants)
    }

    /// Converts to f32.
    pub fn dequantize(&self, out: &mut [f32; 32]) {
        *out = self.unpack().map(|quant| self.d * f32::from(quant) + self.m);
    }
}
