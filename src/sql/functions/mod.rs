//! Functions over tensors: over `data`, or over references, which they decode themselves. docs/functions.md has them all.

mod channel;
mod choice;
mod difference;
mod distribution;
mod element;
mod elementwise;
mod function;
mod output;
mod pair;
mod statistics;
mod tensors;

use crate::open::TraceSet;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF};
use std::sync::Arc;

/// Every scalar function; references lead into `set`.
pub fn scalars(set: &Arc<TraceSet>) -> Vec<ScalarUDF> {
    let mut functions = pair::functions(set);
    functions.extend(difference::functions(set));
    functions.extend(statistics::functions(set));
    functions.extend(distribution::functions(set));
    functions.extend(choice::functions(set));
    functions.extend(elementwise::functions(set));
    functions.push(element::at(set));
    functions
}

/// Every aggregate function.
pub fn aggregates(set: &Arc<TraceSet>) -> Vec<AggregateUDF> {
    vec![channel::channel(Arc::new(element::at(set)))]
}
