//! Values in memory seen as the bytes that stored weights are.
#![allow(unsafe_code)]

/// The bytes of `values`, in the order of this machine (little-endian, as model files are).
pub(super) fn of(values: &[f32]) -> &[u8] {
    // SAFETY: every f32 is four initialised bytes, u8 has no alignment, and the length is that of the slice.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), std::mem::size_of_val(values)) }
}
