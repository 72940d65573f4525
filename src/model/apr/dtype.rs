//! Numbers of element types. Most are ggml's.

use crate::error::{Error, Result};
use crate::model::TensorType;

/// The type with a number.
///
/// # Errors
/// Unsupported, naming the type, where it is not built; malformed where there is no such type.
pub(super) fn supported(number: u8) -> Result<TensorType> {
    let unbuilt = match number {
        0 => return Ok(TensorType::F32),
        1 => return Ok(TensorType::F16),
        12 => return Ok(TensorType::Q4K),
        14 => return Ok(TensorType::Q6K),
        30 => return Ok(TensorType::Bf16),
        3 => "f64",
        4 => "i32",
        5 => "i64",
        6 => "i8",
        7 => "u8",
        128 => "apr_q4",
        129 => "apr_q8",
        _ => {
            return Err(Error::malformed(format!(
                "{number} is no known element type of .apr files; known are f32, f16, bf16, q4_k, q6_k"
            )));
        }
    };
    Err(Error::unsupported(format!(
        "element type {unbuilt} is not supported in .apr files; known are f32, f16, bf16, q4_k, q6_k"
    )))
}
