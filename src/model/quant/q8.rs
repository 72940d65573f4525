//! Q8_0: 32 signed bytes under one scale. 34 bytes: f16 scale, 32 x i8.

use super::{half_at, part};

/// Elements of a Q8_0 block.
pub const Q8_BLOCK: usize = 32;

/// A parsed Q8_0 block: element `i` is `scale * quants[i]`.
#[derive(Debug, Clone, Copy)]
pub struct Q8_0<'a> {
    /// Scale of all elements.
    pub scale: f32,
    /// Quants as stored: two's complement bytes.
    pub quants: &'a [u8; Q8_BLOCK],
}

impl<'a> Q8_0<'a> {
    /// Names the parts of a block.
    #[inline(always)]
    pub fn parse(block: &'a [u8; 34]) -> Self {
        Q8_0 { scale: half_at(block, 0), quants: part(block, 2) }
    }

    /// Converts to f32.
    pub fn dequantize(&self, out: &mut [f32; Q8_BLOCK]) {
        for (value, quant) in out.iter_mut().zip(self.quants) {
            *value = self.scale * f32::from(quant.cast_signed());
        }
    }
}
