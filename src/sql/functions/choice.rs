//! What a row of logits chooses: its largest values, and their probabilities.

use super::function::{Call, Function};
use super::output::{Many, Record, counts};
use super::tensors::Values;
use crate::compare::top1_gap;
use crate::error::Result;
use crate::open::TraceSet;
use crate::stats::{softmax, top};
use crate::tensor::Element;
use arrow::array::{ArrayRef, Float64Array};
use arrow::datatypes::{DataType, Field};
use datafusion::logical_expr::ScalarUDF;
use std::sync::Arc;

/// The functions over `set`; a nonfinite value leaves them without an answer.
pub fn functions(set: &Arc<TraceSet>) -> Vec<ScalarUDF> {
    let gap = |call: &Call<'_>| {
        Ok(match call.tensor(0) {
            Values::Single(values) => top1_gap(values),
            Values::Double(values) => top1_gap(values),
        })
    };
    let probabilities = |call: &Call<'_>| {
        Ok(finite(call).map(|values| match values {
            Values::Single(values) => softmax(values),
            Values::Double(values) => softmax(values),
        }))
    };
    vec![
        Function::new(set, "argmax", 1, |call| Ok(largest(call, 1).and_then(first))).udf(),
        Function::new(set, "topk", 1, |call| Ok(largest(call, call.count(0)?))).with_numbers(&["k"], 0).udf(),
        Function::new(set, "top1_gap", 1, gap).udf(),
        Function::new(set, "softmax", 1, probabilities).udf(),
    ]
}

/// An element of a tensor.
struct Placed {
    index: u64,
    value: f64,
}

fn first(largest: Many<Placed>) -> Option<i64> {
    i64::try_from(largest.0.first()?.index).ok()
}

fn finite<'a>(call: &'a Call<'_>) -> Option<Values<'a>> {
    let values = call.tensor(0);
    let finite = match values {
        Values::Single(values) => values.iter().all(|value| value.is_finite()),
        Values::Double(values) => values.iter().all(|value| value.is_finite()),
    };
    finite.then_some(values)
}

fn largest(call: &Call<'_>, k: usize) -> Option<Many<Placed>> {
    fn of<E: Element>(values: &[E], k: usize) -> Vec<Placed> {
        let placed = |index: usize| Some(Placed { index: index as u64, value: values.get(index)?.wide() });
        top(values, k).into_iter().filter_map(placed).collect()
    }
    Some(Many(match finite(call)? {
        Values::Single(values) => of(values, k),
        Values::Double(values) => of(values, k),
    }))
}

impl Record for Placed {
    fn fields() -> Vec<Field> {
        vec![Field::new("index", DataType::Int64, true), Field::new("value", DataType::Float64, true)]
    }

    fn columns(records: &[Option<Self>]) -> Result<Vec<ArrayRef>> {
        let value = Float64Array::from_iter(records.iter().map(|record| record.as_ref().map(|placed| placed.value)));
        Ok(vec![counts(records.iter().map(|record| record.as_ref().map(|placed| placed.index))), Arc::new(value)])
    }
}
