//! `operations`: the rows of `activations`, each with references to the rows that its operation read at the same position:
//! what an operation made and what it made it from, without a join.

use super::activations::{ActivationRows, frame_units, place_fields};
use super::values::Values;
use super::{Rows, RunColumns, Table, Unit, column};
use crate::error::{Error, Result};
use crate::open::{StatsFrame, StepFrames, TensorReference, Trace, TraceSet};
use arrow::array::{ArrayRef, ListBuilder, RecordBatch, RecordBatchOptions, StringBuilder};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

/// The table.
#[derive(Debug)]
pub struct Operations {
    runs: Vec<Arc<RunColumns>>,
}

impl Operations {
    pub(super) fn new(runs: Vec<Arc<RunColumns>>) -> Self {
        Operations { runs }
    }
}

impl Table for Operations {
    fn name(&self) -> &'static str {
        "operations"
    }

    fn schema(&self) -> SchemaRef {
        let mut fields = place_fields();
        fields.extend(["sequence", "position", "token_id"].map(|name| column::field(name, DataType::Int64)));
        fields.push(column::repeated("dtype"));
        fields.push(column::field("width", DataType::Int64));
        fields.push(column::repeated("operation"));
        fields.push(column::field("heads", DataType::Int64));
        fields.push(column::list("input_points", DataType::Utf8));
        fields.push(column::list("weights", DataType::Utf8));
        fields.push(column::field("tensor", DataType::Utf8));
        fields.push(column::list("inputs", DataType::Utf8));
        Arc::new(Schema::new(fields))
    }

    fn is_costly(&self, column: &str) -> bool {
        // As in `activations`: no filter may decode before all others passed.
        matches!(column, "tensor" | "inputs")
    }

    fn units(&self, _set: &TraceSet) -> Result<Vec<Unit>> {
        frame_units(&self.runs)
    }

    fn open(&self, unit: &Unit) -> Result<Box<dyn Rows>> {
        let run = unit.run.clone().ok_or_else(|| Error::internal("an operation without its run"))?;
        let step = unit.steps.and_then(|(step, _)| run.steps().iter().find(|frames| frames.step == step).cloned());
        let step = step.ok_or_else(|| Error::internal("an operation without its step"))?;
        let rows = ActivationRows::open(unit)?;
        let inputs = RefCell::new(Inputs {
            trace: Arc::clone(&unit.trace),
            step,
            opened: HashMap::new(),
            found: HashMap::new(),
        });
        Ok(Box::new(OperationRows { run, rows, inputs }))
    }
}

struct OperationRows {
    run: Arc<RunColumns>,
    rows: ActivationRows,
    inputs: RefCell<Inputs>,
}

impl OperationRows {
    /// For each of `rows` the references to what its operation read; NULL for an input whose values were not kept.
    fn inputs(&self, rows: &[u32]) -> Result<ArrayRef> {
        let mut lists = ListBuilder::new(StringBuilder::new());
        let mut inputs = self.inputs.borrow_mut();
        for row in rows {
            let (site, place) = self.rows.place_of(*row)?;
            for input in &self.run.site(site)?.inputs {
                lists.values().append_option(inputs.reference(*input, place)?.map(|reference| reference.to_string()));
            }
            lists.append(true);
        }
        Ok(Arc::new(lists.finish()))
    }
}

/// Where a row stands: sequence and position.
type Place = (u32, u32);

/// Rows that operations of one step read, found when they are first asked for.
struct Inputs {
    trace: Arc<Trace>,
    step: StepFrames,
    opened: HashMap<usize, StatsFrame>,
    /// For each site, the frame (its index in the step) and row of each place.
    found: HashMap<u32, HashMap<Place, (usize, u32)>>,
}

impl Inputs {
    /// The values that `site` has at `place`; `None` where it has none there, or none were kept.
    fn reference(&mut self, site: u32, place: Place) -> Result<Option<TensorReference>> {
        if !self.found.contains_key(&site) {
            let rows = self.find(site)?;
            self.found.insert(site, rows);
        }
        let known = self.found.get(&site).and_then(|rows| rows.get(&place));
        match known.and_then(|(frame, row)| Some((self.opened.get(frame)?, *row))) {
            Some((frame, row)) => Values::new(&self.trace, frame.record()).reference(row),
            None => Ok(None),
        }
    }

    fn find(&mut self, site: u32) -> Result<HashMap<Place, (usize, u32)>> {
        let mut rows = HashMap::new();
        for (number, entry) in self.step.stats.iter().enumerate() {
            if !(entry.sites.0..=entry.sites.1).contains(&site) {
                continue;
            }
            if !self.opened.contains_key(&number) {
                self.opened.insert(number, self.trace.stats(entry)?);
            }
            let Some(record) = self.opened.get(&number).map(StatsFrame::record) else { continue };
            let places = record.sequence.iter().zip(record.position.iter());
            for ((row, of), (sequence, position)) in (0..).zip(record.site.iter()).zip(places) {
                if of.to_native() == site {
                    rows.insert((sequence.to_native(), position.to_native()), (number, row));
                }
            }
        }
        Ok(rows)
    }
}

impl Rows for OperationRows {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn column(&self, name: &str) -> Result<ArrayRef> {
        match self.run.site_column(name, self.rows.sites())? {
            Some(array) => Ok(array),
            None => self.rows.column(name),
        }
    }

    fn finish(&self, schema: &SchemaRef, cheap: RecordBatch, rows: &[u32]) -> Result<RecordBatch> {
        let mut columns = Vec::with_capacity(schema.fields().len());
        let mut given = cheap.columns().iter();
        for field in schema.fields() {
            columns.push(match field.name().as_str() {
                "tensor" => self.rows.values().references(rows)?,
                "inputs" => self.inputs(rows)?,
                name => Arc::clone(given.next().ok_or_else(|| Error::internal(format!("operations lack {name}")))?),
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
            .map_err(|cause| Error::internal("values do not fit their rows").because(cause))
    }
}
