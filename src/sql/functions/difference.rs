//! Several answers about two tensors at once: each is decoded and passed over once.

use super::function::{Call, Function};
use super::output::{Many, One, Record, counts};
use super::pair::{Pair, compare, pair, rule};
use crate::compare::{Detail, ElementDifference, METRICS, Metric, Needs, Reading, RowComparison, top_differences};
use crate::error::Result;
use crate::open::TraceSet;
use arrow::array::{ArrayRef, BooleanArray, Float64Array};
use arrow::datatypes::{DataType, Field};
use datafusion::logical_expr::ScalarUDF;
use std::sync::Arc;

/// The functions over `set`.
pub fn functions(set: &Arc<TraceSet>) -> Vec<ScalarUDF> {
    let difference = |call: &Call<'_>| {
        let detail = Detail { rule: rule(call)?, ..Detail::default() };
        Ok(Some(One(Difference(compare(call, detail)?))))
    };
    let logits = |call: &Call<'_>| {
        let detail = Detail { logits: true, ..Detail::default() };
        Ok(Some(One(LogitsDifference(compare(call, detail)?))))
    };
    vec![
        Function::new(set, "difference", 2, difference).with_numbers(&["atol", "rtol"], 2).udf(),
        Function::new(set, "logits_difference", 2, logits).udf(),
        Function::new(set, "top_differences", 2, top).with_numbers(&["k"], 0).udf(),
    ]
}

/// Every metric that one pass over any two tensors gives; percentiles take several times as long.
struct Difference(RowComparison);

/// What a difference of logits means.
struct LogitsDifference(RowComparison);

impl Record for Difference {
    fn fields() -> Vec<Field> {
        metrics(Needs::Sums).map(field).collect()
    }

    fn columns(records: &[Option<Self>]) -> Result<Vec<ArrayRef>> {
        let compared: Vec<_> = records.iter().map(|record| record.as_ref().map(|record| record.0)).collect();
        Ok(metrics(Needs::Sums).map(|metric| column(metric, &compared)).collect())
    }
}

impl Record for LogitsDifference {
    fn fields() -> Vec<Field> {
        metrics(Needs::Logits).map(field).collect()
    }

    fn columns(records: &[Option<Self>]) -> Result<Vec<ArrayRef>> {
        let compared: Vec<_> = records.iter().map(|record| record.as_ref().map(|record| record.0)).collect();
        Ok(metrics(Needs::Logits).map(|metric| column(metric, &compared)).collect())
    }
}

/// The metrics that are worked out from `needs`.
fn metrics(needs: Needs) -> impl Iterator<Item = &'static Metric> {
    METRICS.iter().filter(move |metric| metric.needs == needs)
}

fn field(metric: &Metric) -> Field {
    let kind = match metric.reading {
        Reading::Float(_) => DataType::Float64,
        Reading::Count(_) => DataType::Int64,
        Reading::Flag(_) => DataType::Boolean,
    };
    Field::new(metric.name, kind, true)
}

fn column(metric: &Metric, compared: &[Option<RowComparison>]) -> ArrayRef {
    let rows = compared.iter().map(Option::as_ref);
    match metric.reading {
        Reading::Float(of) => Arc::new(Float64Array::from_iter(rows.map(|row| of(row?)))),
        Reading::Count(of) => counts(rows.map(|row| of(row?))),
        Reading::Flag(of) => Arc::new(BooleanArray::from_iter(rows.map(|row| of(row?)))),
    }
}

fn top(call: &Call<'_>) -> Result<Option<Many<ElementDifference>>> {
    let k = call.count(0)?;
    Ok(Some(Many(match pair(call)? {
        Pair::Single(reference, target) => top_differences(reference, target, k),
        Pair::Double(reference, target) => top_differences(&reference, &target, k),
    })))
}

impl Record for ElementDifference {
    fn fields() -> Vec<Field> {
        let float = |name| Field::new(name, DataType::Float64, true);
        let mut fields = vec![Field::new("index", DataType::Int64, true)];
        fields.extend(["reference", "target", "difference"].map(float));
        fields
    }

    fn columns(records: &[Option<Self>]) -> Result<Vec<ArrayRef>> {
        let float = |of: fn(&Self) -> Option<f64>| -> ArrayRef {
            Arc::new(Float64Array::from_iter(records.iter().map(|record| of(record.as_ref()?))))
        };
        Ok(vec![
            counts(records.iter().map(|record| Some(u64::from(record.as_ref()?.index)))),
            float(|record| Some(record.reference)),
            float(|record| Some(record.target)),
            float(|record| record.difference),
        ])
    }
}
