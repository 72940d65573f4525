//! `at(a, i)`: one element.

use super::function::Function;
use crate::open::TraceSet;
use datafusion::logical_expr::ScalarUDF;
use std::sync::Arc;

/// `at` over `set`: element `i` from 0; NULL behind the last.
pub fn at(set: &Arc<TraceSet>) -> ScalarUDF {
    Function::<f64>::new(set, "at", 1, |call| Ok(call.tensor(0).get(call.count(0)?))).with_numbers(&["i"], 0).udf()
}
