//! Plain elements: F32, F16, BF16, little-endian; E4M3.

use half::{bf16, f16};

pub(super) fn f32s(packed: &[u8], out: &mut [f32]) {
    for (bytes, value) in packed.as_chunks().0.iter().zip(out) {
        *value = f32::from_le_bytes(*bytes);
    }
}

pub(super) fn f16s(packed: &[u8], out: &mut [f32]) {
    for (bytes, value) in packed.as_chunks().0.iter().zip(out) {
        *value = f16::from_le_bytes(*bytes).to_f32();
    }
}

pub(super) fn bf16s(packed: &[u8], out: &mut [f32]) {
    for (bytes, value) in packed.as_chunks().0.iter().zip(out) {
        *value = bf16::from_le_bytes(*bytes).to_f32();
    }
}

/// Every E4M3, by its byte.
static F8_E4M3: [f32; 256] = {
    let mut values = [0.0; 256];
    let mut byte = 0;
    while byte < values.len() {
        values[byte] = f8_e4m3(byte as u32);
        byte += 1;
    }
    values
};

/// The value of an E4M3 as the OCP's "8-bit Floating Point Specification" has it: bias 7, subnormals, no infinities, and a
/// NaN where all bits but the sign are set.
const fn f8_e4m3(byte: u32) -> f32 {
    let (sign, exponent, mantissa) = (byte >> 7 << 31, byte >> 3 & 15, byte & 7);
    let magnitude = match (exponent, mantissa) {
        (15, 7) => f32::from_bits(0x7ff0_0000),
        (0, _) => mantissa as f32 / 512.0,
        _ => f32::from_bits((exponent + 120) << 23 | mantissa << 20),
    };
    f32::from_bits(sign | magnitude.to_bits())
}

pub(super) fn f8_e4m3s(packed: &[u8], out: &mut [f32]) {
    for (byte, value) in packed.iter().zip(out) {
        *value = F8_E4M3[usize::from(*byte)];
    }
}
