//! `losses`: one row for each thing that a run dropped, or that a recovery could not save.

use super::{Rows, RunColumns, Table, Unit, column, unknown_column};
use crate::error::{Error, Result};
use crate::open::TraceSet;
use crate::record::LossV1;
use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use std::sync::Arc;

/// The table.
#[derive(Debug)]
pub struct Losses {
    runs: Vec<Arc<RunColumns>>,
}

impl Losses {
    pub(super) fn new(runs: Vec<Arc<RunColumns>>) -> Self {
        Losses { runs }
    }
}

impl Table for Losses {
    fn name(&self) -> &'static str {
        "losses"
    }

    fn schema(&self) -> SchemaRef {
        let mut fields = ["run", "label"].map(column::repeated).to_vec();
        fields.push(column::field("what", DataType::Utf8));
        fields.push(column::field("rows", DataType::Int64));
        fields.push(column::field("why", DataType::Utf8));
        Arc::new(Schema::new(fields))
    }

    fn units(&self, _set: &TraceSet) -> Result<Vec<Unit>> {
        Ok(self.runs.iter().map(|run| Unit::of_run(run, run.view().losses())).collect())
    }

    fn open(&self, unit: &Unit) -> Result<Box<dyn Rows>> {
        let run = unit.run.clone().ok_or_else(|| Error::internal("losses without their run"))?;
        let records = unit.trace.losses(run.view())?;
        Ok(Box::new(LossRows { run, records }))
    }
}

struct LossRows {
    run: Arc<RunColumns>,
    records: Vec<LossV1>,
}

impl Rows for LossRows {
    fn len(&self) -> usize {
        self.records.len()
    }

    fn column(&self, name: &str) -> Result<ArrayRef> {
        if let Some(array) = self.run.column(name, self.len())? {
            return Ok(array);
        }
        Ok(match name {
            "what" => column::text(self.records.iter().map(|loss| Some(&loss.what))),
            "rows" => column::long_integers(self.records.iter().map(|loss| loss.rows)),
            "why" => column::text(self.records.iter().map(|loss| Some(&loss.why))),
            _ => return Err(unknown_column("losses", name)),
        })
    }
}
