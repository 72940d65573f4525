//! What people and programs read.

mod audit;
mod comparison;
#[cfg(feature = "query")]
mod contracts;
#[cfg(feature = "query")]
pub mod junit;

pub use audit::{audit_json, audit_text};
#[cfg(feature = "query")]
pub use comparison::comparisons_junit;
pub use comparison::{comparisons_json, comparisons_text};
#[cfg(feature = "query")]
pub use contracts::{contracts_json, contracts_junit, contracts_text};

use serde_json::{Value, json};

/// A number, `null` where there is none, and the words of the documentation where JSON has no number.
fn number(value: Option<f64>) -> Value {
    match value {
        None => Value::Null,
        Some(value) if value.is_finite() => json!(value),
        Some(value) if value.is_nan() => json!("NaN"),
        Some(value) => json!(if value > 0.0 { "Infinity" } else { "-Infinity" }),
    }
}
