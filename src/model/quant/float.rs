//! Plain elements: F32, F16, BF16, little-endian.

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
