//! Functions of two tensors: every metric of [`METRICS`], under its name.

use super::function::{Call, Function};
use super::tensors::Values;
use crate::compare::{Allclose, Detail, METRICS, Metric, Needs, Reading, RowComparison};
use crate::error::{Error, ErrorKind, Result};
use crate::open::TraceSet;
use datafusion::logical_expr::ScalarUDF;
use std::borrow::Cow;
use std::sync::Arc;

/// The functions over `set`.
pub fn functions(set: &Arc<TraceSet>) -> Vec<ScalarUDF> {
    METRICS.iter().map(|metric| function(set, metric)).collect()
}

/// The name of a metric's function: `rank` is SQL's own.
fn name(metric: &Metric) -> &'static str {
    if metric.name == "rank" { "top1_rank" } else { metric.name }
}

fn function(set: &Arc<TraceSet>, metric: &Metric) -> ScalarUDF {
    let (name, needs) = (name(metric), metric.needs);
    match metric.reading {
        Reading::Float(of) => Function::new(set, name, 2, move |call| Ok(of(&compared(call, needs)?))).udf(),
        Reading::Flag(of) => Function::new(set, name, 2, move |call| Ok(of(&compared(call, needs)?))).udf(),
        Reading::Count(of) => {
            let count = move |call: &Call<'_>| Ok(of(&compared(call, needs)?).and_then(|n| i64::try_from(n).ok()));
            let function = Function::new(set, name, 2, count);
            // Only the count of mismatches depends on a rule.
            if name == "mismatches" { function.with_numbers(&["atol", "rtol"], 2).udf() } else { function.udf() }
        }
    }
}

fn compared(call: &Call<'_>, needs: Needs) -> Result<RowComparison> {
    let detail = Detail { rule: rule(call)?, quantiles: needs == Needs::Quantiles, logits: needs == Needs::Logits };
    Ok(match pair(call)? {
        Pair::Single(reference, target) => RowComparison::of(reference, target, detail),
        Pair::Double(reference, target) => RowComparison::of(&reference, &target, detail),
    })
}

fn rule(call: &Call<'_>) -> Result<Allclose> {
    match (call.number(0), call.number(1)) {
        (Some(absolute), Some(relative)) if absolute >= 0.0 && relative >= 0.0 => Ok(Allclose { absolute, relative }),
        (None, None) => Ok(Allclose::default()),
        _ => Err(call.usage("a tolerance is 0 or more")),
    }
}

/// The values of two tensors of one length, in one type: f32 where both are.
pub enum Pair<'a> {
    /// In f32.
    Single(&'a [f32], &'a [f32]),
    /// In f64.
    Double(Cow<'a, [f64]>, Cow<'a, [f64]>),
}

/// The first two tensors of `call`, reference and target.
///
/// # Errors
///
/// `NotComparable` where their lengths differ.
pub fn pair<'a>(call: &'a Call<'_>) -> Result<Pair<'a>> {
    let (reference, target) = (call.tensor(0), call.tensor(1));
    if reference.len() != target.len() {
        let what = format!("{}: one tensor has {} elements, the other {}", call.name(), reference.len(), target.len());
        return Err(Error::new(ErrorKind::NotComparable, what));
    }
    Ok(match (reference, target) {
        (Values::Single(reference), Values::Single(target)) => Pair::Single(reference, target),
        (reference, target) => Pair::Double(reference.wide(), target.wide()),
    })
}
