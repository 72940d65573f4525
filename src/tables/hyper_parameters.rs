//! `hyper_parameters`: one row for each hyper-parameter of each run.

use super::{Rows, RunColumns, Table, Unit, column, unknown_column};
use crate::error::{Error, Result};
use crate::open::TraceSet;
use crate::record::PairV1;
use arrow::array::{ArrayRef, Float64Array};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use std::sync::Arc;

/// The table.
#[derive(Debug)]
pub struct HyperParameters {
    runs: Vec<Arc<RunColumns>>,
}

impl HyperParameters {
    pub(super) fn new(runs: Vec<Arc<RunColumns>>) -> Self {
        HyperParameters { runs }
    }
}

impl Table for HyperParameters {
    fn name(&self) -> &'static str {
        "hyper_parameters"
    }

    fn schema(&self) -> SchemaRef {
        let mut fields = ["run", "label", "key", "value"].map(column::repeated).to_vec();
        fields.push(column::field("number", DataType::Float64));
        fields.push(column::repeated("source"));
        Arc::new(Schema::new(fields))
    }

    fn units(&self, _set: &TraceSet) -> Result<Vec<Unit>> {
        let pairs = |run: &Arc<RunColumns>| run.view().identity.hyper_parameters.len();
        Ok(self.runs.iter().map(|run| Unit::of_run(run, pairs(run))).collect())
    }

    fn open(&self, unit: &Unit) -> Result<Box<dyn Rows>> {
        let run = unit.run.clone().ok_or_else(|| Error::internal("hyper-parameters without their run"))?;
        Ok(Box::new(Pairs { run }))
    }
}

struct Pairs {
    run: Arc<RunColumns>,
}

impl Pairs {
    fn pairs(&self) -> &[PairV1] {
        &self.run.view().identity.hyper_parameters
    }
}

impl Rows for Pairs {
    fn len(&self) -> usize {
        self.pairs().len()
    }

    fn column(&self, name: &str) -> Result<ArrayRef> {
        if let Some(array) = self.run.column(name, self.len())? {
            return Ok(array);
        }
        Ok(match name {
            "key" => column::few_texts(self.pairs().iter().map(|pair| Some(pair.key.as_str()))),
            "value" => column::few_texts(self.pairs().iter().map(|pair| Some(pair.value.as_str()))),
            "number" => Arc::new(Float64Array::from_iter(self.pairs().iter().map(|pair| pair.value.parse().ok()))),
            "source" => column::few_texts(self.pairs().iter().map(|pair| Some(pair.source.as_str()))),
            _ => return Err(unknown_column("hyper_parameters", name)),
        })
    }
}
