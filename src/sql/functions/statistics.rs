//! Statistics of one tensor: each as `tensor_` and its name, all at once as `statistics`.

use super::function::{Call, Function};
use super::output::{One, Record, counts};
use super::tensors::Values;
use crate::error::Result;
use crate::open::TraceSet;
use crate::stats::{Figure, STATISTICS, TensorStatistics};
use arrow::array::{ArrayRef, Float64Array, UInt64Array};
use arrow::datatypes::{DataType, Field};
use datafusion::logical_expr::ScalarUDF;
use std::sync::Arc;

/// Names of the functions, in the order of [`STATISTICS`]: `count`, `min` and others alone are SQL's own.
const NAMES: [&str; STATISTICS.len()] = [
    "tensor_count",
    "tensor_nan",
    "tensor_pos_inf",
    "tensor_neg_inf",
    "tensor_zero",
    "tensor_subnormal",
    "tensor_min",
    "tensor_max",
    "tensor_mean",
    "tensor_std",
    "tensor_std_sample",
    "tensor_rms",
    "tensor_absmax",
    "tensor_l1",
    "tensor_l2",
    "tensor_abs_smallest",
    "tensor_dynamic_range",
    "tensor_skew",
    "tensor_kurtosis",
    "tensor_min_index",
    "tensor_max_index",
    "tensor_absmax_index",
    "tensor_fingerprint",
];

/// The functions over `set`.
pub fn functions(set: &Arc<TraceSet>) -> Vec<ScalarUDF> {
    let mut functions: Vec<ScalarUDF> =
        NAMES.into_iter().zip(&STATISTICS).map(|(name, (_, figure))| function(set, name, *figure)).collect();
    functions.push(Function::new(set, "statistics", 1, |call| Ok(Some(One(statistics(call))))).udf());
    functions
}

fn function(set: &Arc<TraceSet>, name: &'static str, figure: Figure) -> ScalarUDF {
    match figure {
        Figure::Float(of) => Function::new(set, name, 1, move |call| Ok(of(&statistics(call)))).udf(),
        Figure::Count(of) => Function::new(set, name, 1, move |call| Ok(of(&statistics(call)).map(i64::from))).udf(),
        Figure::Word(of) => Function::new(set, name, 1, move |call| Ok(Some(of(&statistics(call))))).udf(),
    }
}

fn statistics(call: &Call<'_>) -> TensorStatistics {
    match call.tensor(0) {
        Values::Single(values) => TensorStatistics::of(values),
        Values::Double(values) => TensorStatistics::of(values),
    }
}

impl Record for TensorStatistics {
    fn fields() -> Vec<Field> {
        let kind = |figure: &Figure| match figure {
            Figure::Float(_) => DataType::Float64,
            Figure::Count(_) => DataType::Int64,
            Figure::Word(_) => DataType::UInt64,
        };
        STATISTICS.iter().map(|(name, figure)| Field::new(*name, kind(figure), true)).collect()
    }

    fn columns(records: &[Option<Self>]) -> Result<Vec<ArrayRef>> {
        let rows = || records.iter().map(Option::as_ref);
        let column = |figure: &Figure| -> ArrayRef {
            match *figure {
                Figure::Float(of) => Arc::new(Float64Array::from_iter(rows().map(|row| of(row?)))),
                Figure::Count(of) => counts(rows().map(|row| of(row?).map(u64::from))),
                Figure::Word(of) => Arc::new(UInt64Array::from_iter(rows().map(|row| row.map(of)))),
            }
        };
        Ok(STATISTICS.iter().map(|(_, figure)| column(figure)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_that_of_its_statistic() {
        for (function, (statistic, _)) in NAMES.iter().zip(&STATISTICS) {
            assert_eq!(function.strip_prefix("tensor_"), Some(*statistic));
        }
    }
}
