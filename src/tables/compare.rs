//! `compare('reference', 'target')`: one row for each pair of rows that two runs have in common.
//!
//! What statistics tell is cheap; error metrics decode each payload once and come from one pass over both rows.

use super::{Rows, Table, Unit, column, unknown_column};
use crate::compare::{
    Allclose, Detail, Evidence, METRICS, Metric, Needs, Pairing, Reading, RowComparer, RowComparison, RowPair,
    SitePair, ratio,
};
use crate::error::{Error, Result};
use crate::open::TraceSet;
use crate::stats::Moments;
use arrow::array::{ArrayRef, BooleanArray, Float64Array, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use std::sync::Arc;

/// Rows of one unit: the work of one partition at a time.
const ROWS_PER_UNIT: usize = 1024;

/// Rows whose payloads are decoded for one batch.
const ROWS_PER_BATCH: usize = 64;

/// Columns that statistics tell.
const CHEAP: [(&str, DataType); 13] = [
    ("ordinal", DataType::Int64),
    ("layer", DataType::Int32),
    ("occurrence", DataType::Int64),
    ("position", DataType::Int64),
    ("token_id", DataType::Int64),
    ("reference_step", DataType::Int64),
    ("target_step", DataType::Int64),
    ("width", DataType::Int64),
    ("bit_equal", DataType::Boolean),
    ("ratio_std", DataType::Float64),
    ("ratio_rms", DataType::Float64),
    ("ratio_absmax", DataType::Float64),
    ("rel_l2_at_least", DataType::Float64),
];

/// The rows that two runs have in common, compared.
#[derive(Debug)]
pub struct Compare {
    pairing: Arc<Pairing>,
    rule: Allclose,
}

impl Compare {
    /// The table over `pairing`; `rule` counts mismatches.
    pub fn new(pairing: Arc<Pairing>, rule: Allclose) -> Self {
        Compare { pairing, rule }
    }

    /// All columns.
    pub fn columns() -> SchemaRef {
        let kind = |metric: &Metric| match metric.reading {
            Reading::Float(_) => DataType::Float64,
            Reading::Count(_) => DataType::Int64,
            Reading::Flag(_) => DataType::Boolean,
        };
        let mut fields: Vec<_> = CHEAP.iter().map(|(name, kind)| column::field(name, kind.clone())).collect();
        fields.insert(2, column::repeated("point"));
        fields.insert(9, column::repeated("evidence"));
        fields.extend(METRICS.iter().map(|metric| column::field(metric.name, kind(metric))));
        Arc::new(Schema::new(fields))
    }
}

impl Table for Compare {
    fn name(&self) -> &'static str {
        "compare"
    }

    fn schema(&self) -> SchemaRef {
        Self::columns()
    }

    fn is_costly(&self, name: &str) -> bool {
        is_costly(name)
    }

    fn units(&self, _set: &TraceSet) -> Result<Vec<Unit>> {
        let mut units = Vec::new();
        for (number, site) in self.pairing.sites.iter().enumerate() {
            for start in (0..site.rows.len()).step_by(ROWS_PER_UNIT) {
                let end = site.rows.len().min(start + ROWS_PER_UNIT);
                units.push(Unit {
                    trace: Arc::clone(self.pairing.reference.trace()),
                    run: None,
                    frames: Vec::new(),
                    commit: None,
                    rows: end - start,
                    steps: None,
                    // Within a pairing: the place's number, and the numbers of its rows.
                    sites: Some((number as u32, number as u32)),
                    positions: Some((start as u32, end as u32)),
                });
            }
        }
        Ok(units)
    }

    fn open(&self, unit: &Unit) -> Result<Box<dyn Rows>> {
        let (site, rows) = unit.sites.zip(unit.positions).ok_or_else(|| Error::internal("a unit without its rows"))?;
        Ok(Box::new(PairRows {
            pairing: Arc::clone(&self.pairing),
            rule: self.rule,
            site: site.0 as usize,
            rows: rows.0 as usize..rows.1 as usize,
        }))
    }
}

fn is_costly(name: &str) -> bool {
    !(name == "point" || name == "evidence" || CHEAP.iter().any(|(cheap, _)| *cheap == name))
}

struct PairRows {
    pairing: Arc<Pairing>,
    rule: Allclose,
    site: usize,
    rows: std::ops::Range<usize>,
}

impl PairRows {
    fn site(&self) -> Result<&SitePair> {
        self.pairing.sites.get(self.site).ok_or_else(|| Error::internal("a unit of another pairing"))
    }

    fn pairs(&self) -> Result<&[RowPair]> {
        self.site()?.rows.get(self.rows.clone()).ok_or_else(|| Error::internal("a unit of another pairing"))
    }

    fn compare(&self, schema: &Schema, rows: &[u32]) -> Result<Vec<RowComparison>> {
        let asked = |metric: &Metric| schema.field_with_name(metric.name).is_ok();
        let wants = |needs| METRICS.iter().any(|metric| metric.needs == needs && asked(metric));
        let detail = Detail { rule: self.rule, quantiles: wants(Needs::Quantiles), logits: wants(Needs::Logits) };
        let (site, pairs) = (self.site()?, self.pairs()?);
        let mut comparer = RowComparer::new(&self.pairing, detail);
        rows.iter().filter_map(|row| pairs.get(*row as usize)).map(|pair| comparer.compare(site, pair)).collect()
    }
}

impl Rows for PairRows {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn column(&self, name: &str) -> Result<ArrayRef> {
        let (site, pairs) = (self.site()?, self.pairs()?);
        let floats =
            |of: fn(&RowPair) -> Option<f64>| -> ArrayRef { Arc::new(Float64Array::from_iter(pairs.iter().map(of))) };
        Ok(match name {
            "ordinal" => column::integers(pairs.iter().map(|_| site.ordinal)),
            "layer" => column::layers(pairs.iter().map(|_| site.layer)),
            "point" => column::constant_text(&site.point, pairs.len())?,
            "evidence" => column::few_texts(pairs.iter().map(|pair| Some(evidence(pair).name()))),
            "occurrence" => column::integers(pairs.iter().map(|_| site.occurrence)),
            "position" => column::integers(pairs.iter().map(|pair| pair.position)),
            "token_id" => column::integers(pairs.iter().map(|pair| pair.token)),
            "reference_step" => column::integers(pairs.iter().map(|pair| pair.reference.step)),
            "target_step" => column::integers(pairs.iter().map(|pair| pair.target.step)),
            "width" => column::integers(pairs.iter().map(|pair| pair.reference.count)),
            "bit_equal" => Arc::new(BooleanArray::from_iter(
                pairs.iter().map(|pair| Some(pair.reference.fingerprint == pair.target.fingerprint)),
            )),
            "ratio_std" => floats(|pair| ratio_of(pair, Moments::std)),
            "ratio_rms" => floats(|pair| ratio_of(pair, Moments::rms)),
            "ratio_absmax" => floats(|pair| ratio(pair.target.absmax?, pair.reference.absmax?)),
            "rel_l2_at_least" => floats(RowComparison::rel_l2_at_least),
            _ => return Err(unknown_column("compare", name)),
        })
    }

    fn rows_per_batch(&self, schema: &Schema) -> usize {
        let costly = schema.fields().iter().any(|field| is_costly(field.name()));
        let kept = |pair: &RowPair| pair.reference.payload != 0 && pair.target.payload != 0;
        let decodes = costly && self.pairs().is_ok_and(|pairs| pairs.iter().any(kept));
        if decodes { ROWS_PER_BATCH } else { ROWS_PER_UNIT }
    }

    fn finish(&self, schema: &SchemaRef, cheap: RecordBatch, rows: &[u32]) -> Result<RecordBatch> {
        if schema.fields().len() == cheap.num_columns() {
            return Ok(cheap);
        }
        let compared = self.compare(schema, rows)?;
        let column = |name: &String| match cheap.column_by_name(name) {
            Some(column) => Ok(Arc::clone(column)),
            None => costly(name, &compared),
        };
        let columns = schema.fields().iter().map(|field| column(field.name())).collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
            .map_err(|cause| Error::internal("a comparison does not fit its columns").because(cause))
    }
}

fn costly(name: &str, compared: &[RowComparison]) -> Result<ArrayRef> {
    let metric = METRICS.iter().find(|metric| metric.name == name).ok_or_else(|| unknown_column("compare", name))?;
    Ok(match metric.reading {
        Reading::Float(of) => Arc::new(Float64Array::from_iter(compared.iter().map(of))),
        Reading::Count(of) => column::long_integers(compared.iter().map(|row| of(row).unwrap_or(u64::MAX))),
        Reading::Flag(of) => Arc::new(BooleanArray::from_iter(compared.iter().map(of))),
    })
}

fn evidence(pair: &RowPair) -> Evidence {
    if pair.reference.fingerprint == pair.target.fingerprint {
        Evidence::Fingerprint
    } else if pair.reference.payload != 0 && pair.target.payload != 0 {
        Evidence::Tensor
    } else {
        Evidence::Statistics
    }
}

fn ratio_of(pair: &RowPair, of: fn(Moments) -> Option<f64>) -> Option<f64> {
    ratio(of(pair.target.moments)?, of(pair.reference.moments)?)
}
