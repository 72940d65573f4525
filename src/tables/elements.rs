//! `elements`: one row for each element of each kept tensor row. For scans and filters, not for joining runs.

use super::activations::{ActivationRows, frame_units, place_fields};
use super::{Rows, RunColumns, Table, Unit, column};
use crate::error::{Error, Result};
use crate::open::TraceSet;
use arrow::array::{ArrayRef, Float32Array, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use std::sync::Arc;

/// Elements that a batch should hold.
const ELEMENTS_PER_BATCH: usize = 1 << 16;

/// The table.
#[derive(Debug)]
pub struct Elements {
    runs: Vec<Arc<RunColumns>>,
}

impl Elements {
    pub(super) fn new(runs: Vec<Arc<RunColumns>>) -> Self {
        Elements { runs }
    }
}

impl Table for Elements {
    fn name(&self) -> &'static str {
        "elements"
    }

    fn schema(&self) -> SchemaRef {
        let mut fields = place_fields();
        fields.extend(["sequence", "position", "token_id", "index"].map(|name| column::field(name, DataType::Int64)));
        fields.push(column::field("value", DataType::Float32));
        Arc::new(Schema::new(fields))
    }

    fn is_costly(&self, column: &str) -> bool {
        matches!(column, "index" | "value")
    }

    fn units(&self, _set: &TraceSet) -> Result<Vec<Unit>> {
        frame_units(&self.runs)
    }

    fn open(&self, unit: &Unit) -> Result<Box<dyn Rows>> {
        Ok(Box::new(ElementRows(ActivationRows::open(unit)?)))
    }
}

struct ElementRows(ActivationRows);

impl Rows for ElementRows {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn column(&self, name: &str) -> Result<ArrayRef> {
        self.0.column(name)
    }

    fn rows_per_batch(&self, _schema: &Schema) -> usize {
        let widest = self.0.frame().record().count.iter().map(|count| count.to_native()).max().unwrap_or(1);
        (ELEMENTS_PER_BATCH / (widest.max(1) as usize)).max(1)
    }

    fn finish(&self, schema: &SchemaRef, cheap: RecordBatch, rows: &[u32]) -> Result<RecordBatch> {
        let mut parts = Parts::default();
        if schema.field_with_name("value").is_ok() {
            let mut source = 0;
            self.0.values().each(rows, |_, values| {
                let values = values.unwrap_or_default();
                parts.indices(source, values.len())?;
                parts.values.extend_from_slice(values);
                source += 1;
                Ok(())
            })?;
        } else {
            // Without values, the statistics tell how many elements there are.
            for (source, &row) in (0..).zip(rows) {
                let count = self.0.frame().record().count.get(row as usize).map_or(0, |count| count.to_native());
                let kept = self.0.values().kept(row)?;
                parts.indices(source, if kept { count as usize } else { 0 })?;
            }
        }
        parts.batch(schema, &cheap)
    }
}

/// Columns of a batch under construction.
#[derive(Default)]
struct Parts {
    source: Vec<u32>,
    index: Vec<u32>,
    values: Vec<f32>,
}

impl Parts {
    fn indices(&mut self, source: u32, count: usize) -> Result<()> {
        let count = u32::try_from(count).map_err(|_| Error::malformed("a row has more elements than 32 bits count"))?;
        self.source.extend(std::iter::repeat_n(source, count as usize));
        self.index.extend(0..count);
        Ok(())
    }

    fn batch(self, schema: &SchemaRef, cheap: &RecordBatch) -> Result<RecordBatch> {
        let internal = |cause| Error::internal("elements do not fit their rows").because(cause);
        let options = RecordBatchOptions::new().with_row_count(Some(self.source.len()));
        let source = UInt32Array::from(self.source);
        let mut values = Some(self.values);
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
        for field in schema.fields() {
            columns.push(match field.name().as_str() {
                "index" => column::integers(self.index.iter().copied()),
                "value" => Arc::new(Float32Array::from(values.take().unwrap_or_default())),
                name => {
                    let array = cheap.column_by_name(name);
                    let array = array.ok_or_else(|| Error::internal(format!("elements lack the column {name}")))?;
                    take(array, &source, None).map_err(internal)?
                }
            });
        }
        RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options).map_err(internal)
    }
}
