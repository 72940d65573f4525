//! Functions over tensors: over `data`, or over references, which they decode themselves.

mod element;
mod elementwise;
mod function;
mod output;
mod pair;
mod tensors;

use crate::open::TraceSet;
use datafusion::logical_expr::ScalarUDF;
use std::sync::Arc;

/// Every scalar function over tensors; references lead into `set`.
pub fn scalars(set: &Arc<TraceSet>) -> Vec<ScalarUDF> {
    let mut functions = pair::functions(set);
    functions.extend(elementwise::functions(set));
    functions.push(element::at(set));
    functions
}
