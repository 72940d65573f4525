//! From f32 to the types that converted files have: F32, F16, BF16, Q8_0.
//!
//! Rounding is that of numpy (F16) and of the PyPI package `gguf` (BF16, Q8_0), bit for bit. What a type cannot hold is
//! refused, where those go on with infinities or with whatever a cast of NaN gives.

use super::Q8_BLOCK;
use crate::error::{Error, Result};
use crate::model::TensorType;
use half::{bf16, f16};

/// Types that [`encode`] knows.
pub const ENCODED: [TensorType; 4] = [TensorType::F32, TensorType::F16, TensorType::Bf16, TensorType::Q8_0];

/// Converts a row of f32 to the bytes of `tensor_type`; `packed` has exactly the bytes of `values`.
///
/// Infinities and NaN stay what they are in F32, F16 and BF16.
///
/// # Errors
/// Unsupported for another type, for finite values that it would make infinite, and for infinities and NaN in blocks;
/// internal where the lengths do not agree.
pub fn encode(tensor_type: TensorType, values: &[f32], packed: &mut [u8]) -> Result<()> {
    if tensor_type.row_bytes(values.len())? != packed.len() {
        let (elements, bytes) = (values.len(), packed.len());
        return Err(Error::internal(format!("{elements} elements are not {bytes} bytes of {}", tensor_type.name())));
    }
    match tensor_type {
        TensorType::F32 => plain(values, packed, |x| (x.to_le_bytes(), true)),
        TensorType::F16 => plain(values, packed, |x| {
            let half = f16::from_f32(x);
            (half.to_le_bytes(), !half.is_infinite())
        }),
        TensorType::Bf16 => plain(values, packed, |x| {
            let half = bf16::from_f32(x);
            (half.to_le_bytes(), !half.is_infinite())
        }),
        TensorType::Q8_0 => q8_0(values, packed),
        other => return Err(Error::unsupported(format!("values are not converted to {}", other.name()))),
    }
    .map_err(|element| cannot_hold(tensor_type, values, element))
}

/// `convert` gives the bytes, and whether they stand for something finite or NaN. Fails with the element that is finite
/// and would not be.
fn plain<const N: usize>(
    values: &[f32],
    packed: &mut [u8],
    convert: impl Fn(f32) -> ([u8; N], bool),
) -> Result<(), usize> {
    let (packed, _) = packed.as_chunks_mut::<N>();
    for (element, (value, packed)) in values.iter().zip(packed).enumerate() {
        let (bytes, held) = convert(*value);
        if !held && value.is_finite() {
            return Err(element);
        }
        *packed = bytes;
    }
    Ok(())
}

/// Each block's scale is its largest magnitude over 127, rounded to f16 only where it is stored; halves round away from
/// zero.
fn q8_0(values: &[f32], packed: &mut [u8]) -> Result<(), usize> {
    let (values, _) = values.as_chunks::<Q8_BLOCK>();
    let (packed, _) = packed.as_chunks_mut::<34>();
    for (block, (values, packed)) in values.iter().zip(packed).enumerate() {
        // NaN is never the larger of two, so it is looked for by itself.
        let (largest, magnitude) = values.iter().enumerate().fold((0, 0f32), |(at, max), (i, x)| {
            if x.abs() > max || x.is_nan() && !max.is_nan() { (i, x.abs()) } else { (at, max) }
        });
        let step = magnitude / 127.0;
        let scale = f16::from_f32(step);
        if !scale.is_finite() {
            return Err(block * Q8_BLOCK + largest);
        }
        // Steps that have no inverse are far below the least scale: the block is zero whatever its quants are.
        let inverse = Some(1.0 / step).filter(|inverse| inverse.is_finite()).unwrap_or(0.0);
        let (head, quants) = packed.split_at_mut(2);
        head.copy_from_slice(&scale.to_le_bytes());
        for (quant, value) in quants.iter_mut().zip(values) {
            *quant = ((value * inverse).round() as i8).cast_unsigned();
        }
    }
    Ok(())
}

fn cannot_hold(tensor_type: TensorType, values: &[f32], element: usize) -> Error {
    let value = values.get(element).copied().unwrap_or(f32::NAN);
    let others = match (tensor_type, value.is_finite()) {
        (TensorType::F16, _) => "bf16 or f32",
        (TensorType::Bf16, _) => "f32",
        (_, true) => "bf16 or f32",
        (_, false) => "f16, bf16 or f32",
    };
    Error::unsupported(format!(
        "element {element} is {value}, which {} cannot hold: choose {others}",
        tensor_type.name()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    macro_rules! fixture {
        ($name:literal) => {
            include_bytes!(concat!("../../../tests/fixtures/quant/encoded.", $name)).as_slice()
        };
    }

    fn values() -> Vec<f32> {
        fixture!("f32").as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    /// The last block of the fixture has infinities and NaN, which Q8_0 has not.
    #[test]
    fn random_and_special_values_get_the_bytes_of_numpy_and_the_gguf_package() {
        let values = values();
        let finite = &values[..values.len() - Q8_BLOCK];
        assert!(finite.iter().all(|value| value.is_finite()));
        for (tensor_type, values, expected) in [
            (TensorType::F32, &values[..], fixture!("f32")),
            (TensorType::F16, &values, fixture!("f16")),
            (TensorType::Bf16, &values, fixture!("bf16")),
            (TensorType::Q8_0, finite, fixture!("q8_0")),
        ] {
            let mut packed = vec![0xAA; expected.len()];
            encode(tensor_type, values, &mut packed).unwrap();
            let size = tensor_type.block_bytes();
            let differs = packed.chunks(size).zip(expected.chunks(size)).position(|(ours, theirs)| ours != theirs);
            assert_eq!(differs, None, "{}", tensor_type.name());
        }
    }

    #[test]
    fn what_a_type_cannot_hold_is_refused() {
        let mut row = [1f32; 64];
        let mut check = |tensor_type: TensorType, value: f32, words: Option<&str>| {
            row[40] = value;
            let mut packed = vec![0; tensor_type.row_bytes(row.len()).unwrap()];
            let result = encode(tensor_type, &row, &mut packed).map_err(|error| error.to_string());
            match words {
                None => assert_eq!(result, Ok(()), "{} {value}", tensor_type.name()),
                Some(words) => assert!(
                    result.as_ref().is_err_and(|error| error.contains("element 40 is") && error.contains(words)),
                    "{} {value}: {result:?}",
                    tensor_type.name()
                ),
            }
        };
        // Halfway from the largest finite binary16, 65504, to what would come next.
        check(TensorType::F16, 65519.996, None);
        check(TensorType::F16, -65520.0, Some("f16 cannot hold: choose bf16 or f32"));
        check(TensorType::Bf16, f32::MAX, Some("bf16 cannot hold: choose f32"));
        check(TensorType::Q8_0, 65504.0 * 127.0, None);
        check(TensorType::Q8_0, 65520.0 * 127.0, Some("q8_0 cannot hold: choose bf16 or f32"));
        for value in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
            check(TensorType::Q8_0, value, Some("q8_0 cannot hold: choose f16, bf16 or f32"));
            check(TensorType::F16, value, None);
            check(TensorType::Bf16, value, None);
        }
        assert!(encode(TensorType::Q4K, &[0.0; 256], &mut [0; 144]).is_err());
        assert!(encode(TensorType::Q8_0, &[0.0; 32], &mut [0; 35]).is_err());
        assert!(encode(TensorType::Q8_0, &[0.0; 33], &mut [0; 34]).is_err());
    }
}
