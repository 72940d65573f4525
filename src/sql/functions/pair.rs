//! Functions of two tensors: every metric of [`METRICS`] under its name, ratios of statistics, equality of bits.

use super::function::{Call, Function};
use super::tensors::Values;
use crate::compare::{Allclose, Detail, METRICS, Metric, Needs, Reading, RowComparison, ratio, topk_overlap};
use crate::error::{Error, ErrorKind, Result};
use crate::open::TraceSet;
use crate::stats::RowStatistics;
use datafusion::logical_expr::ScalarUDF;
use std::borrow::Cow;
use std::sync::Arc;

/// A statistic that two tensors are set in ratio by.
type Statistic = fn(&RowStatistics) -> Option<f64>;

const RATIOS: [(&str, Statistic); 3] = [
    ("ratio_std", |row| row.moments.std()),
    ("ratio_rms", |row| row.moments.rms()),
    ("ratio_absmax", |row| Some(row.extremes?.absmax.0)),
];

/// The functions over `set`.
pub fn functions(set: &Arc<TraceSet>) -> Vec<ScalarUDF> {
    let mut functions: Vec<ScalarUDF> = METRICS.iter().map(|metric| metric_function(set, metric)).collect();
    functions.extend(RATIOS.iter().map(|(name, of)| {
        let ratio = |call: &Call<'_>| ratio_of(call, *of);
        Function::new(set, name, 2, ratio).udf()
    }));
    functions.push(Function::new(set, "bit_equal", 2, |call| Ok(Some(bit_equal(call)))).udf());
    functions.push(Function::new(set, "topk_overlap", 2, overlap).with_numbers(&["k"], 0).udf());
    functions
}

/// The name of a metric's function: `rank` is SQL's own.
fn name(metric: &Metric) -> &'static str {
    if metric.name == "rank" { "top1_rank" } else { metric.name }
}

fn metric_function(set: &Arc<TraceSet>, metric: &Metric) -> ScalarUDF {
    let (name, needs) = (name(metric), metric.needs);
    let compared = move |call: &Call<'_>| {
        let detail = Detail { rule: rule(call)?, quantiles: needs == Needs::Quantiles, logits: needs == Needs::Logits };
        compare(call, detail)
    };
    match metric.reading {
        Reading::Float(of) => Function::new(set, name, 2, move |call| Ok(of(&compared(call)?))).udf(),
        Reading::Flag(of) => Function::new(set, name, 2, move |call| Ok(of(&compared(call)?))).udf(),
        Reading::Count(of) => {
            let count = move |call: &Call<'_>| Ok(of(&compared(call)?).and_then(|n| i64::try_from(n).ok()));
            let function = Function::new(set, name, 2, count);
            // Only the count of mismatches depends on a rule.
            if name == "mismatches" { function.with_numbers(&["atol", "rtol"], 2).udf() } else { function.udf() }
        }
    }
}

/// The first two tensors of `call`, compared.
///
/// # Errors
///
/// As [`pair`].
pub fn compare(call: &Call<'_>, detail: Detail) -> Result<RowComparison> {
    Ok(match pair(call)? {
        Pair::Single(reference, target) => RowComparison::of(reference, target, detail),
        Pair::Double(reference, target) => RowComparison::of(&reference, &target, detail),
    })
}

/// The rule that the first two numbers of `call` give, or the usual one.
///
/// # Errors
///
/// `Usage` for a tolerance below 0.
pub fn rule(call: &Call<'_>) -> Result<Allclose> {
    match (call.number(0), call.number(1)) {
        (Some(absolute), Some(relative)) if absolute >= 0.0 && relative >= 0.0 => Ok(Allclose { absolute, relative }),
        (None, None) => Ok(Allclose::default()),
        _ => Err(call.usage("a tolerance is 0 or more")),
    }
}

fn ratio_of(call: &Call<'_>, of: Statistic) -> Result<Option<f64>> {
    let (reference, target) = match pair(call)? {
        Pair::Single(reference, target) => (RowStatistics::of(reference), RowStatistics::of(target)),
        Pair::Double(reference, target) => (RowStatistics::of(&reference), RowStatistics::of(&target)),
    };
    Ok(of(&target).zip(of(&reference)).and_then(|(target, reference)| ratio(target, reference)))
}

/// Unlike lengths and unlike types are unequal, as fingerprints of them are.
fn bit_equal(call: &Call<'_>) -> bool {
    match (call.tensor(0), call.tensor(1)) {
        (Values::Single(a), Values::Single(b)) => {
            a.iter().map(|value| value.to_bits()).eq(b.iter().map(|value| value.to_bits()))
        }
        (Values::Double(a), Values::Double(b)) => {
            a.iter().map(|value| value.to_bits()).eq(b.iter().map(|value| value.to_bits()))
        }
        _ => false,
    }
}

fn overlap(call: &Call<'_>) -> Result<Option<f64>> {
    let k = call.count(0)?;
    Ok(match pair(call)? {
        Pair::Single(reference, target) => topk_overlap(reference, target, k),
        Pair::Double(reference, target) => topk_overlap(&reference, &target, k),
    })
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
