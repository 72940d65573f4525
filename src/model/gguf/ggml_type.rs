//! Numbers of ggml's element types.

use crate::error::{Error, Result};
use crate::model::TensorType;

/// No number of a type is larger.
const LARGEST: u32 = 64;

/// The type with a number.
///
/// # Errors
/// Unsupported, naming the type, where it is not built; malformed where there is no such type.
pub(super) fn supported(number: u32) -> Result<TensorType> {
    built(number).ok_or_else(|| refuse(number))
}

fn built(number: u32) -> Option<TensorType> {
    Some(match number {
        0 => TensorType::F32,
        1 => TensorType::F16,
        2 => TensorType::Q4_0,
        3 => TensorType::Q4_1,
        6 => TensorType::Q5_0,
        7 => TensorType::Q5_1,
        8 => TensorType::Q8_0,
        10 => TensorType::Q2K,
        11 => TensorType::Q3K,
        12 => TensorType::Q4K,
        13 => TensorType::Q5K,
        14 => TensorType::Q6K,
        20 => TensorType::Iq4Nl,
        23 => TensorType::Iq4Xs,
        30 => TensorType::Bf16,
        39 => TensorType::Mxfp4,
        _ => return None,
    })
}

/// The number of a type.
///
/// # Errors
/// Unsupported where ggml has no such type.
pub(super) fn number(tensor_type: TensorType) -> Result<u32> {
    (0..=LARGEST)
        .find(|number| built(*number) == Some(tensor_type))
        .ok_or_else(|| Error::unsupported(format!("GGUF files cannot hold {}", tensor_type.name())))
}

fn refuse(number: u32) -> Error {
    let known = TensorType::ALL.into_iter().filter(|known| self::number(*known).is_ok());
    let known = known.map(TensorType::name).collect::<Vec<_>>().join(", ");
    match name(number) {
        Some(name) => Error::unsupported(format!("element type {name} is not supported; known are {known}")),
        None => Error::malformed(format!("{number} is no element type of ggml; known are {known}")),
    }
}

/// Names of the types that exist and are not built. Gaps are types that ggml dropped.
fn name(number: u32) -> Option<&'static str> {
    Some(match number {
        4 => "q4_2 (dropped by ggml)",
        5 => "q4_3 (dropped by ggml)",
        9 => "q8_1",
        15 => "q8_k",
        16 => "iq2_xxs",
        17 => "iq2_xs",
        18 => "iq3_xxs",
        19 => "iq1_s",
        21 => "iq3_s",
        22 => "iq2_s",
        24 => "i8",
        25 => "i16",
        26 => "i32",
        27 => "i64",
        28 => "f64",
        29 => "iq1_m",
        31..=33 => "q4_0 repacked (dropped by ggml)",
        34 => "tq1_0",
        35 => "tq2_0",
        36..=38 => "iq4_nl repacked (dropped by ggml)",
        40 => "nvfp4",
        41 => "q1_0",
        _ => return None,
    })
}
