//! Functions that make a tensor of tensors: the operations of a forward pass on one row, as definitions in f64.

use super::function::{Call, Function};
use super::pair::{Pair, pair};
use super::tensors::Values;
use crate::backend::formula::{activate, layer_normed, rms_normed, softmax};
use crate::error::Result;
use crate::model::Activation;
use crate::open::TraceSet;
use datafusion::logical_expr::ScalarUDF;
use std::sync::Arc;

/// The functions over `set`.
pub fn functions(set: &Arc<TraceSet>) -> Vec<ScalarUDF> {
    let rms = |call: &Call<'_>| {
        let epsilon = call.number(1).unwrap_or_default();
        of_parts(call, |part| rms_normed(part, epsilon).collect())
    };
    let layer = |call: &Call<'_>| {
        let epsilon = call.number(0).unwrap_or_default();
        Ok(Some(layer_normed(&call.tensor(0).wide(), epsilon).collect::<Vec<f64>>()))
    };
    vec![
        rounded(set, "add", |a, b| a + b),
        rounded(set, "subtract", |a, b| a - b),
        rounded(set, "multiply", |a, b| a * b),
        activation(set, "silu", Activation::Silu),
        activation(set, "gelu_tanh", Activation::GeluTanh),
        activation(set, "gelu_erf", Activation::GeluErf),
        activation(set, "gelu_quick", Activation::GeluQuick),
        Function::new(set, "rms_normed", 1, rms).with_numbers(&["parts", "epsilon"], 0).udf(),
        Function::new(set, "layer_normed", 1, layer).with_numbers(&["epsilon"], 0).udf(),
        Function::new(set, "softmax_parts", 1, |call| of_parts(call, softmax)).with_numbers(&["parts"], 0).udf(),
        Function::new(set, "sum_parts", 1, |call| of_parts(call, |part| vec![part.iter().sum()]))
            .with_numbers(&["parts"], 0)
            .udf(),
    ]
}

/// `f` of both tensors, element by element, rounded to f32 once: the sum, difference or product that f32 has, since two
/// f32 numbers are worked out in f64 exactly, or rounded where f32 rounds as well.
fn rounded(set: &Arc<TraceSet>, name: &'static str, f: fn(f64, f64) -> f64) -> ScalarUDF {
    let both = move |call: &Call<'_>| {
        Ok(Some(match pair(call)? {
            Pair::Single(a, b) => a.iter().zip(b).map(|(a, b)| f(f64::from(*a), f64::from(*b)) as f32).collect(),
            Pair::Double(a, b) => a.iter().zip(b.iter()).map(|(a, b)| f(*a, *b) as f32).collect::<Vec<f32>>(),
        }))
    };
    Function::new(set, name, 2, both).udf()
}

fn activation(set: &Arc<TraceSet>, name: &'static str, activation: Activation) -> ScalarUDF {
    let each = move |call: &Call<'_>| {
        let of = |x: f64| activate(activation, x);
        Ok(Some(match call.tensor(0) {
            Values::Single(values) => values.iter().map(|x| of(f64::from(*x))).collect(),
            Values::Double(values) => values.iter().map(|x| of(*x)).collect::<Vec<f64>>(),
        }))
    };
    Function::new(set, name, 1, each).udf()
}

/// `f` of each of the equal parts (heads) that number 0 counts, one behind the other.
///
/// # Errors
///
/// `Usage` for a count that does not divide the tensor.
fn of_parts(call: &Call<'_>, f: impl Fn(&[f64]) -> Vec<f64>) -> Result<Option<Vec<f64>>> {
    let values = call.tensor(0).wide();
    let parts = call.count(0)?;
    if !values.len().is_multiple_of(parts) || parts == 0 {
        return Err(call.usage(&format!("{} elements have no {parts} equal parts", values.len())));
    }
    let width = values.len() / parts;
    Ok(Some(if width == 0 { Vec::new() } else { values.chunks_exact(width).flat_map(f).collect() }))
}
