//! `weights`: one row for each recorded weight of each run.

use super::activations::statistics_fields;
use super::{Rows, RunColumns, Table, Unit, column, unknown_column};
use crate::error::{Error, Result};
use crate::open::{Trace, TraceSet, hex};
use crate::record::WeightV1;
use crate::stats::Moments;
use arrow::array::{ArrayRef, Float32Builder, Float64Array, ListBuilder, RecordBatch};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use std::sync::Arc;

/// Records that are read together.
const WEIGHTS_PER_UNIT: usize = 64;

/// Values that a list of Arrow can hold.
const MOST_IN_A_LIST: u64 = i32::MAX as u64;

/// The table.
#[derive(Debug)]
pub struct Weights {
    runs: Vec<Arc<RunColumns>>,
}

impl Weights {
    pub(super) fn new(runs: Vec<Arc<RunColumns>>) -> Self {
        Weights { runs }
    }
}

impl Table for Weights {
    fn name(&self) -> &'static str {
        "weights"
    }

    fn schema(&self) -> SchemaRef {
        let text = |name| column::field(name, DataType::Utf8);
        let integer = |name| column::field(name, DataType::Int64);
        let mut fields = vec![column::repeated("run"), column::repeated("label")];
        fields.push(column::field("layer", DataType::Int32));
        fields.extend(["weight", "role", "stored_name", "dtype", "layout", "shape", "file"].map(text));
        fields.extend(["offset", "bytes"].map(integer));
        fields.push(column::field("added", DataType::Float64));
        fields.extend(["stored_blake3", "values_blake3"].map(text));
        fields.extend(statistics_fields());
        fields.extend(["min_index", "max_index", "absmax_index", "scale_elements"].map(integer));
        fields.push(column::list("data", DataType::Float32));
        Arc::new(Schema::new(fields))
    }

    fn is_costly(&self, column: &str) -> bool {
        column == "data"
    }

    fn units(&self, _set: &TraceSet) -> Result<Vec<Unit>> {
        let mut units = Vec::new();
        for run in &self.runs {
            units.extend(run.view().weights.chunks(WEIGHTS_PER_UNIT).map(|frames| Unit {
                trace: Arc::clone(run.reference().trace()),
                run: Some(Arc::clone(run)),
                frames: frames.to_vec(),
                commit: None,
                rows: frames.len(),
                steps: None,
                sites: None,
                positions: None,
            }));
        }
        Ok(units)
    }

    fn open(&self, unit: &Unit) -> Result<Box<dyn Rows>> {
        let run = unit.run.clone().ok_or_else(|| Error::internal("weights without their run"))?;
        let records = unit.frames.iter().map(|frame| unit.trace.weight(frame)).collect::<Result<_>>()?;
        Ok(Box::new(WeightRows { trace: Arc::clone(&unit.trace), run, records }))
    }
}

struct WeightRows {
    trace: Arc<Trace>,
    run: Arc<RunColumns>,
    records: Vec<WeightV1>,
}

impl WeightRows {
    fn text(&self, of: impl Fn(&WeightV1) -> Option<String>) -> ArrayRef {
        column::text(self.records.iter().map(of))
    }

    fn place(&self, name: &str) -> Result<Option<ArrayRef>> {
        if let Some(array) = self.run.column(name, self.len())? {
            return Ok(Some(array));
        }
        let files = &self.run.view().identity.model_files;
        Ok(Some(match name {
            "layer" => column::layers(self.records.iter().map(|record| record.weight.layer)),
            "weight" => self.text(|record| Some(record.weight.canonical_name.clone())),
            "role" => self.text(|record| Some(record.weight.role.clone())),
            "stored_name" => self.text(|record| Some(record.weight.stored_name.clone())),
            "dtype" => self.text(|record| Some(record.weight.dtype.clone())),
            "layout" => self.text(|record| Some(record.weight.layout.clone())),
            "shape" => self.text(|record| Some(format!("{:?}", record.weight.shape))),
            "file" => self.text(|record| files.get(record.weight.file as usize).map(|file| file.name.clone())),
            "offset" => column::long_integers(self.records.iter().map(|record| record.weight.offset)),
            "bytes" => column::long_integers(self.records.iter().map(|record| record.weight.bytes)),
            "added" => Arc::new(Float64Array::from_iter_values(self.records.iter().map(|record| record.added.into()))),
            "stored_blake3" => self.text(|record| Some(hex(&record.stored_blake3))),
            "values_blake3" => self.text(|record| Some(hex(&record.values_blake3))),
            _ => return Ok(None),
        }))
    }

    fn statistic(&self, name: &str) -> Option<ArrayRef> {
        let counts = |of: fn(&WeightV1) -> u64| column::long_integers(self.records.iter().map(of));
        // Of nothing finite there is no statistic.
        let indices = |of: fn(&WeightV1) -> u64| {
            column::long_integers(
                self.records.iter().map(|record| if record.finite() == 0 { u64::MAX } else { of(record) }),
            )
        };
        let floats = |of: fn(&WeightV1) -> f64| -> ArrayRef {
            let known = |record: &WeightV1| (record.finite() > 0).then(|| of(record));
            Arc::new(Float64Array::from_iter(self.records.iter().map(known)))
        };
        let derived = |of: fn(Moments) -> Option<f64>| -> ArrayRef {
            let moments = |r: &WeightV1| Moments { count: r.finite(), mean: r.mean, m2: r.m2 };
            Arc::new(Float64Array::from_iter(self.records.iter().map(|record| of(moments(record)))))
        };
        Some(match name {
            "count" => counts(|record| record.count),
            "nan" => counts(|record| record.nan),
            "pos_inf" => counts(|record| record.pos_inf),
            "neg_inf" => counts(|record| record.neg_inf),
            "zero" => counts(|record| record.zero),
            "subnormal" => counts(|record| record.subnormal),
            "min" => floats(|record| record.min),
            "max" => floats(|record| record.max),
            "mean" => floats(|record| record.mean),
            "std" => derived(Moments::std),
            "rms" => derived(Moments::rms),
            "absmax" => floats(|record| record.absmax),
            "l1" => floats(|record| record.l1),
            "l2" => derived(Moments::l2),
            "abs_smallest" => {
                let found = |record: &WeightV1| Some(record.abs_smallest).filter(|value| *value > 0.0);
                Arc::new(Float64Array::from_iter(self.records.iter().map(found)))
            }
            "min_index" => indices(|record| record.min_index),
            "max_index" => indices(|record| record.max_index),
            "absmax_index" => indices(|record| record.absmax_index),
            "scale_elements" => column::long_integers(self.records.iter().map(|record| match record.scale_elements {
                0 => u64::MAX,
                shared => shared.into(),
            })),
            _ => return None,
        })
    }

    /// The values of `rows` as lists; NULL where they were not kept.
    fn lists(&self, rows: &[u32]) -> Result<ArrayRef> {
        let mut lists = ListBuilder::new(Float32Builder::new());
        for record in rows.iter().filter_map(|row| self.records.get(*row as usize)) {
            self.append(record, lists.values()).map_err(|error| error.of(&record.weight.canonical_name))?;
            lists.append(!record.payloads.is_empty());
        }
        Ok(Arc::new(lists.finish()))
    }

    fn append(&self, record: &WeightV1, values: &mut Float32Builder) -> Result<()> {
        if record.count > MOST_IN_A_LIST && !record.payloads.is_empty() {
            let message = format!("{} values are more than a list may hold; leave `data` out", record.count);
            return Err(Error::unsupported(message));
        }
        let wrong = || Error::damaged(format!("its payloads do not hold {} values", record.count));
        let mut left = record.count;
        for number in &record.payloads {
            let payload = self.trace.payload(*number)?;
            let row = payload.row(0).unwrap_or_default();
            left = left.checked_sub(row.len() as u64).filter(|_| !row.is_empty()).ok_or_else(wrong)?;
            values.append_slice(row);
        }
        if left > 0 && !record.payloads.is_empty() { Err(wrong()) } else { Ok(()) }
    }
}

impl Rows for WeightRows {
    fn len(&self) -> usize {
        self.records.len()
    }

    fn column(&self, name: &str) -> Result<ArrayRef> {
        if let Some(array) = self.place(name)? {
            return Ok(array);
        }
        self.statistic(name).ok_or_else(|| unknown_column("weights", name))
    }

    fn rows_per_batch(&self, schema: &Schema) -> usize {
        if schema.field_with_name("data").is_ok() { 1 } else { self.len().max(1) }
    }

    fn finish(&self, schema: &SchemaRef, cheap: RecordBatch, rows: &[u32]) -> Result<RecordBatch> {
        let Ok(data) = schema.index_of("data") else {
            return Ok(cheap);
        };
        let mut columns = cheap.columns().to_vec();
        columns.insert(data.min(columns.len()), self.lists(rows)?);
        RecordBatch::try_new(Arc::clone(schema), columns)
            .map_err(|cause| Error::internal("data does not fit its rows").because(cause))
    }
}
