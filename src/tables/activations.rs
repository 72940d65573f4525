//! `activations`: one row for each token row of each captured tensor.

use super::steps::Tokens;
use super::values::Values;
use super::{Rows, RunColumns, Table, Unit, column, unknown_column};
use crate::error::{Error, Result};
use crate::open::{StatsFrame, TraceSet};
use crate::record::ArchivedStatsV1;
use crate::stats::Moments;
use arrow::array::{ArrayRef, RecordBatch, UInt64Array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use rkyv::rend::{f64_le, u32_le};
use std::sync::{Arc, OnceLock};

/// Rows whose payload is decoded for one batch: one batch keeps one thread busy.
const ROWS_WITH_DATA: usize = 8;

/// The table.
#[derive(Debug)]
pub struct Activations {
    runs: Vec<Arc<RunColumns>>,
}

impl Activations {
    pub(super) fn new(runs: Vec<Arc<RunColumns>>) -> Self {
        Activations { runs }
    }
}

/// The columns that say where a row belongs.
pub(super) fn place_fields() -> Vec<Field> {
    vec![
        column::repeated("run"),
        column::repeated("label"),
        column::field("step", DataType::Int64),
        column::repeated("phase"),
        column::field("layer", DataType::Int32),
        column::repeated("point"),
        column::field("ordinal", DataType::Int64),
        column::field("occurrence", DataType::Int64),
    ]
}

/// The columns of statistics, in the order of the documentation.
pub(super) fn statistics_fields() -> Vec<Field> {
    let integer = |name| column::field(name, DataType::Int64);
    let float = |name| column::field(name, DataType::Float64);
    let mut fields = ["count", "nan", "pos_inf", "neg_inf", "zero", "subnormal"].map(integer).to_vec();
    fields.extend(["min", "max", "mean", "std", "rms", "absmax", "l1", "l2", "abs_smallest"].map(float));
    fields
}

impl Table for Activations {
    fn name(&self) -> &'static str {
        "activations"
    }

    fn schema(&self) -> SchemaRef {
        let mut fields = place_fields();
        fields.extend(["sequence", "position", "token_id"].map(|name| column::field(name, DataType::Int64)));
        fields.extend([
            column::field("prefix", DataType::UInt64),
            column::repeated("dtype"),
            column::field("width", DataType::Int64),
        ]);
        fields.extend(statistics_fields());
        fields.extend(["min_index", "max_index", "absmax_index"].map(|name| column::field(name, DataType::Int64)));
        fields.extend([
            column::field("fingerprint", DataType::UInt64),
            column::field("tensor", DataType::Utf8),
            column::list("data", DataType::Float32),
        ]);
        Arc::new(Schema::new(fields))
    }

    fn is_costly(&self, column: &str) -> bool {
        // A reference costs little, but a function of one decodes: no filter may ask for it before all others passed.
        matches!(column, "data" | "tensor")
    }

    fn units(&self, _set: &TraceSet) -> Result<Vec<Unit>> {
        frame_units(&self.runs)
    }

    fn open(&self, unit: &Unit) -> Result<Box<dyn Rows>> {
        Ok(Box::new(ActivationRows::open(unit)?))
    }
}

/// A unit for each statistics frame of `runs`.
pub(super) fn frame_units(runs: &[Arc<RunColumns>]) -> Result<Vec<Unit>> {
    let mut units = Vec::new();
    for run in runs {
        for step in run.steps() {
            units.extend(step.stats.iter().map(|frame| Unit {
                trace: Arc::clone(run.reference().trace()),
                run: Some(Arc::clone(run)),
                frames: vec![frame.clone()],
                commit: Some(step.commit.clone()),
                rows: frame.rows as usize,
                steps: Some((step.step, step.step)),
                sites: Some(frame.sites),
                positions: Some(frame.positions),
            }));
        }
    }
    Ok(units)
}

/// The rows of one statistics frame.
pub(super) struct ActivationRows {
    unit: Unit,
    run: Arc<RunColumns>,
    frame: StatsFrame,
    sites: Vec<u32>,
    finite: Vec<u32>,
    valid: Option<NullBuffer>,
    tokens: OnceLock<Tokens>,
}

impl ActivationRows {
    pub(super) fn open(unit: &Unit) -> Result<Self> {
        let (Some(run), [entry]) = (&unit.run, unit.frames.as_slice()) else {
            return Err(Error::internal("a unit of statistics is one frame of a run"));
        };
        let frame = unit.trace.stats(entry)?;
        let record = frame.record();
        let sites = native(&record.site);
        let finite = finite_counts(record);
        let valid = finite.contains(&0).then(|| finite.iter().map(|n| *n > 0).collect::<NullBuffer>());
        Ok(ActivationRows {
            unit: unit.clone(),
            run: Arc::clone(run),
            sites,
            finite,
            valid,
            tokens: OnceLock::new(),
            frame,
        })
    }

    pub(super) fn frame(&self) -> &StatsFrame {
        &self.frame
    }

    /// The site of each row.
    pub(super) fn sites(&self) -> &[u32] {
        &self.sites
    }

    /// Site, and sequence and position, of row `row`.
    pub(super) fn place_of(&self, row: u32) -> Result<(u32, (u32, u32))> {
        let (record, index) = (self.frame.record(), row as usize);
        match (self.sites.get(index), record.sequence.get(index), record.position.get(index)) {
            (Some(site), Some(sequence), Some(position)) => Ok((*site, (sequence.to_native(), position.to_native()))),
            _ => Err(Error::internal(format!("statistics have no row {row}"))),
        }
    }

    pub(super) fn values(&self) -> Values<'_> {
        Values::new(&self.unit.trace, self.frame.record())
    }

    fn tokens(&self) -> Result<&Tokens> {
        if let Some(tokens) = self.tokens.get() {
            return Ok(tokens);
        }
        let commit = self.unit.commit.as_ref().ok_or_else(|| Error::internal("statistics without their step"))?;
        let read = Tokens::read(&self.unit.trace, commit)?;
        Ok(self.tokens.get_or_init(|| read))
    }

    fn places(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        let record = self.frame.record();
        record.sequence.iter().zip(record.position.iter()).map(|(s, p)| (s.to_native(), p.to_native()))
    }

    fn direct(&self, values: &[f64_le]) -> Result<ArrayRef> {
        column::floats_in_place(&self.frame, values, self.valid.clone())
    }

    fn derived(&self, value: fn(Moments) -> Option<f64>) -> Result<ArrayRef> {
        let record = self.frame.record();
        let columns = record.mean.iter().zip(record.m2.iter()).zip(&self.finite);
        let moments =
            columns.map(|((mean, m2), n)| Moments { count: u64::from(*n), mean: mean.to_native(), m2: m2.to_native() });
        column::floats(moments.map(|moments| value(moments).unwrap_or_default()).collect(), self.valid.clone())
    }

    fn place(&self, name: &str) -> Result<Option<ArrayRef>> {
        if let Some(array) = self.run.column(name, self.len())? {
            return Ok(Some(array));
        }
        if let Some(array) = self.run.site_column(name, &self.sites)? {
            return Ok(Some(array));
        }
        let record = self.frame.record();
        Ok(Some(match name {
            "step" => column::integers(vec![record.step.to_native(); self.len()]),
            "phase" => column::constant_text(self.tokens()?.phase(), self.len())?,
            "sequence" => integers(&record.sequence),
            "position" => integers(&record.position),
            "token_id" => {
                let ids = self.tokens()?.ids(self.places());
                column::long_integers(ids.into_iter().map(|id| id.map_or(u64::MAX, u64::from)))
            }
            "prefix" => Arc::new(UInt64Array::from(self.tokens()?.prefixes(self.places()))),
            "width" => integers(&record.count),
            _ => return Ok(None),
        }))
    }

    fn statistic(&self, name: &str) -> Result<Option<ArrayRef>> {
        let record = self.frame.record();
        Ok(Some(match name {
            "count" => integers(&record.count),
            "nan" => integers(&record.nan),
            "pos_inf" => integers(&record.pos_inf),
            "neg_inf" => integers(&record.neg_inf),
            "zero" => integers(&record.zero),
            "subnormal" => integers(&record.subnormal),
            "min" => self.direct(&record.min)?,
            "max" => self.direct(&record.max)?,
            "absmax" => self.direct(&record.absmax)?,
            "mean" => self.direct(&record.mean)?,
            "l1" => self.direct(&record.l1)?,
            "std" => self.derived(Moments::std)?,
            "rms" => self.derived(Moments::rms)?,
            "l2" => self.derived(Moments::l2)?,
            "abs_smallest" => {
                let smallest: Vec<f64> = record.abs_smallest.iter().map(|value| value.to_native()).collect();
                let found = smallest.iter().map(|value| *value > 0.0).collect();
                column::floats(smallest, Some(found))?
            }
            "min_index" => self.indices(&record.min_index),
            "max_index" => self.indices(&record.max_index),
            "absmax_index" => self.indices(&record.absmax_index),
            "fingerprint" => column::words_in_place(&self.frame, &record.fingerprint)?,
            _ => return Ok(None),
        }))
    }

    fn indices(&self, values: &[u32_le]) -> ArrayRef {
        let known =
            values.iter().zip(&self.finite).map(|(index, n)| if *n == 0 { u64::MAX } else { index.to_native().into() });
        column::long_integers(known)
    }
}

impl Rows for ActivationRows {
    fn len(&self) -> usize {
        self.sites.len()
    }

    fn column(&self, name: &str) -> Result<ArrayRef> {
        if let Some(array) = self.place(name)? {
            return Ok(array);
        }
        self.statistic(name)?.ok_or_else(|| unknown_column("activations", name))
    }

    fn rows_per_batch(&self, schema: &Schema) -> usize {
        if schema.field_with_name("data").is_ok() { ROWS_WITH_DATA } else { self.len().max(1) }
    }

    fn finish(&self, schema: &SchemaRef, cheap: RecordBatch, rows: &[u32]) -> Result<RecordBatch> {
        if schema.fields().len() == cheap.num_columns() {
            return Ok(cheap);
        }
        let column = |name: &String| match (cheap.column_by_name(name), name.as_str()) {
            (Some(column), _) => Ok(Arc::clone(column)),
            (None, "data") => self.values().lists(rows),
            (None, "tensor") => self.values().references(rows),
            (None, name) => Err(unknown_column("activations", name)),
        };
        let columns = schema.fields().iter().map(|field| column(field.name())).collect::<Result<Vec<_>>>()?;
        RecordBatch::try_new(Arc::clone(schema), columns)
            .map_err(|cause| Error::internal("values do not fit their rows").because(cause))
    }
}

fn native(values: &[u32_le]) -> Vec<u32> {
    values.iter().map(|value| value.to_native()).collect()
}

fn integers(values: &[u32_le]) -> ArrayRef {
    column::integers(values.iter().map(|value| value.to_native()))
}

/// Elements of each row that are neither NaN nor infinite.
pub(super) fn finite_counts(record: &ArchivedStatsV1) -> Vec<u32> {
    let rows = record.count.iter().zip(record.nan.iter()).zip(record.pos_inf.iter().zip(record.neg_inf.iter()));
    rows.map(|((count, nan), (above, below))| {
        let lost = nan.to_native().saturating_add(above.to_native()).saturating_add(below.to_native());
        count.to_native().saturating_sub(lost)
    })
    .collect()
}
