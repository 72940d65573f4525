//! `compare_weights('reference', 'target')`: one row for each weight that either of two runs has.
//!
//! Hashes tell the state; figures read the values of what differs, a payload of either side at a time.

use super::{Rows, Table, Unit, column, unknown_column};
use crate::compare::{Sums, WeightDifference, WeightPair, WeightPairing};
use crate::error::{Error, Result};
use crate::open::TraceSet;
use crate::record::WeightV1;
use arrow::array::{ArrayRef, Float64Array, RecordBatch};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use std::ops::Range;
use std::sync::Arc;

/// Weights of one unit: the work of one partition at a time.
const WEIGHTS_PER_UNIT: usize = 4;

/// A figure of two weights.
type Figure = fn(&WeightDifference) -> Option<f64>;

/// A whole number of two weights.
type Number = fn(&WeightDifference) -> Option<u64>;

/// Columns that need the values, whole numbers first.
const WHOLE: [(&str, Number); 4] = [
    ("compared", |difference| Some(difference.sums.count)),
    ("disagreeing", |difference| Some(difference.sums.disagreeing)),
    ("first_difference", |difference| difference.first),
    ("max_abs_diff_index", |difference| difference.worst.map(|(index, _)| index)),
];
const FIGURES: [(&str, Figure); 7] = [
    ("reference_value", |difference| difference.worst.map(|(_, worst)| worst.reference)),
    ("target_value", |difference| difference.worst.map(|(_, worst)| worst.target)),
    ("max_abs_diff", |difference| difference.sums.max_abs_diff()),
    ("rel_l2", |difference| Sums::rel_l2(&difference.sums)),
    ("cosine", |difference| Sums::cosine(&difference.sums)),
    ("slope", |difference| Sums::slope(&difference.sums)),
    ("max_over_step", WeightDifference::over_step),
];

/// The weights of two runs, compared.
#[derive(Debug)]
pub struct CompareWeights {
    pairing: Arc<WeightPairing>,
}

impl CompareWeights {
    /// The table over `pairing`.
    pub fn new(pairing: Arc<WeightPairing>) -> Self {
        CompareWeights { pairing }
    }

    /// All columns.
    pub fn columns() -> SchemaRef {
        let text = |name| column::field(name, DataType::Utf8);
        let mut fields = vec![column::field("ordinal", DataType::Int64), column::field("layer", DataType::Int32)];
        fields.extend(["weight", "role", "shape", "reference_dtype", "target_dtype", "state"].map(text));
        fields.push(column::field("rel_l2_at_least", DataType::Float64));
        fields.extend(WHOLE.map(|(name, _)| column::field(name, DataType::Int64)));
        fields.extend(FIGURES.map(|(name, _)| column::field(name, DataType::Float64)));
        Arc::new(Schema::new(fields))
    }
}

fn is_figure(name: &str) -> bool {
    WHOLE.iter().any(|(known, _)| *known == name) || FIGURES.iter().any(|(known, _)| *known == name)
}

impl Table for CompareWeights {
    fn name(&self) -> &'static str {
        "compare_weights"
    }

    fn schema(&self) -> SchemaRef {
        Self::columns()
    }

    fn is_costly(&self, name: &str) -> bool {
        is_figure(name)
    }

    fn units(&self, _set: &TraceSet) -> Result<Vec<Unit>> {
        let pairs = self.pairing.pairs.len();
        let unit = |start: usize| {
            let end = pairs.min(start + WEIGHTS_PER_UNIT);
            Unit {
                trace: Arc::clone(self.pairing.reference.trace()),
                run: None,
                frames: Vec::new(),
                commit: None,
                rows: end - start,
                steps: None,
                // Within a pairing: the numbers of its pairs.
                sites: Some((start as u32, end as u32)),
                positions: None,
            }
        };
        Ok((0..pairs).step_by(WEIGHTS_PER_UNIT).map(unit).collect())
    }

    fn open(&self, unit: &Unit) -> Result<Box<dyn Rows>> {
        let (start, end) = unit.sites.ok_or_else(|| Error::internal("a unit without its rows"))?;
        Ok(Box::new(PairRows { pairing: Arc::clone(&self.pairing), rows: start as usize..end as usize }))
    }
}

struct PairRows {
    pairing: Arc<WeightPairing>,
    rows: Range<usize>,
}

impl PairRows {
    fn pairs(&self) -> Result<&[WeightPair]> {
        self.pairing.pairs.get(self.rows.clone()).ok_or_else(|| Error::internal("a unit of another pairing"))
    }
}

impl Rows for PairRows {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn column(&self, name: &str) -> Result<ArrayRef> {
        let pairs = self.pairs()?;
        let texts = |of: fn(&WeightPair) -> Option<String>| column::text(pairs.iter().map(of));
        let dtype = |side: &Option<WeightV1>| side.as_ref().map(|record| record.weight.dtype.clone());
        Ok(match name {
            "ordinal" => column::long_integers(self.rows.clone().map(|ordinal| ordinal as u64)),
            "layer" => column::layers(pairs.iter().map(|pair| pair.weight().map_or(-1, |weight| weight.layer))),
            "weight" => texts(|pair| pair.weight().map(|weight| weight.canonical_name.clone())),
            "role" => texts(|pair| pair.weight().map(|weight| weight.role.clone())),
            "shape" => texts(|pair| pair.weight().map(|weight| format!("{:?}", weight.shape))),
            "reference_dtype" => column::text(pairs.iter().map(|pair| dtype(&pair.reference))),
            "target_dtype" => column::text(pairs.iter().map(|pair| dtype(&pair.target))),
            "state" => texts(|pair| Some(pair.state.name().to_owned())),
            "rel_l2_at_least" => Arc::new(Float64Array::from_iter(pairs.iter().map(WeightPair::rel_l2_at_least))),
            _ => return Err(unknown_column("compare_weights", name)),
        })
    }

    fn rows_per_batch(&self, _schema: &Schema) -> usize {
        1
    }

    fn finish(&self, schema: &SchemaRef, cheap: RecordBatch, rows: &[u32]) -> Result<RecordBatch> {
        if !schema.fields().iter().any(|field| is_figure(field.name())) {
            return Ok(cheap);
        }
        let pairs = self.pairs()?;
        let pairs = rows.iter().filter_map(|row| pairs.get(*row as usize));
        let compared = pairs.map(|pair| self.pairing.compare(pair)).collect::<Result<Vec<_>>>()?;
        let column = |name: &String| match cheap.column_by_name(name) {
            Some(column) => Ok(Arc::clone(column)),
            None => figure(name, &compared),
        };
        let columns = schema.fields().iter().map(|field| column(field.name())).collect::<Result<Vec<_>>>()?;
        RecordBatch::try_new(Arc::clone(schema), columns)
            .map_err(|cause| Error::internal("a comparison does not fit its columns").because(cause))
    }
}

fn figure(name: &str, compared: &[Option<WeightDifference>]) -> Result<ArrayRef> {
    if let Some((_, of)) = WHOLE.iter().find(|(known, _)| *known == name) {
        let value = |difference: &Option<WeightDifference>| difference.as_ref().and_then(of).unwrap_or(u64::MAX);
        return Ok(column::long_integers(compared.iter().map(value)));
    }
    let (_, of) =
        FIGURES.iter().find(|(known, _)| *known == name).ok_or_else(|| unknown_column("compare_weights", name))?;
    Ok(Arc::new(Float64Array::from_iter(compared.iter().map(|difference| difference.as_ref().and_then(of)))))
}
