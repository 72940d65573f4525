//! How the values of one tensor spread: percentiles and histograms.

use super::function::{Call, Function};
use super::output::{Many, Record, counts};
use super::tensors::Values;
use crate::error::Result;
use crate::open::TraceSet;
use crate::stats::{Bin, RowStatistics, histogram, percentile};
use arrow::array::{ArrayRef, Float64Array};
use arrow::datatypes::{DataType, Field};
use datafusion::logical_expr::ScalarUDF;
use std::sync::Arc;

/// Bins of a histogram at most. The bins of a whole batch are held at once: of 8192 rows, twice 200 MB at this bound, as
/// records and as columns.
const MOST_BINS: usize = 1 << 10;

/// The functions over `set`.
pub fn functions(set: &Arc<TraceSet>) -> Vec<ScalarUDF> {
    vec![
        Function::new(set, "percentile", 1, at_percent).with_numbers(&["p"], 0).udf(),
        Function::new(set, "histogram", 1, bins).with_numbers(&["bins", "low", "high"], 2).udf(),
    ]
}

fn at_percent(call: &Call<'_>) -> Result<Option<f64>> {
    let percent = call.number(0).filter(|percent| (0.0..=100.0).contains(percent));
    let percent = percent.ok_or_else(|| call.usage("p is a percentage, 0 to 100"))?;
    Ok(match call.tensor(0) {
        Values::Single(values) => percentile(values, percent),
        Values::Double(values) => percentile(values, percent),
    })
}

fn bins(call: &Call<'_>) -> Result<Option<Many<Bin>>> {
    let bins = call.count(0)?;
    if bins == 0 || bins > MOST_BINS {
        return Err(call.usage(&format!("bins is 1 to {MOST_BINS}")));
    }
    let Some((low, high)) = range(call)? else { return Ok(None) };
    Ok(Some(Many(match call.tensor(0) {
        Values::Single(values) => histogram(values, bins, low, high),
        Values::Double(values) => histogram(values, bins, low, high),
    })))
}

/// The range that is given, or that of the finite values; half a unit about the only one, as numpy has it. `None` where
/// there is none, or f64 has no number for its width.
fn range(call: &Call<'_>) -> Result<Option<(f64, f64)>> {
    let has_width = |(low, high): &(f64, f64)| low < high && (high - low).is_finite();
    if let (Some(low), Some(high)) = (call.number(1), call.number(2)) {
        let given = Some((low, high)).filter(has_width);
        return given.map(Some).ok_or_else(|| call.usage("low is below high, and both are finite"));
    }
    let extremes = match call.tensor(0) {
        Values::Single(values) => RowStatistics::of(values).extremes,
        Values::Double(values) => RowStatistics::of(values).extremes,
    };
    let found = extremes.map(|extremes| match (extremes.min.0, extremes.max.0) {
        (low, high) if low < high => (low, high),
        (only, _) => (only - 0.5, only + 0.5),
    });
    Ok(found.filter(has_width))
}

impl Record for Bin {
    fn fields() -> Vec<Field> {
        let float = |name| Field::new(name, DataType::Float64, true);
        vec![float("low"), float("high"), Field::new("count", DataType::Int64, true)]
    }

    fn columns(records: &[Option<Self>]) -> Result<Vec<ArrayRef>> {
        let float = |of: fn(&Bin) -> f64| -> ArrayRef {
            Arc::new(Float64Array::from_iter(records.iter().map(|record| record.as_ref().map(of))))
        };
        let count = counts(records.iter().map(|record| record.as_ref().map(|bin| bin.count)));
        Ok(vec![float(|bin| bin.low), float(|bin| bin.high), count])
    }
}
