//! `plan`: how each expected capture point of each run is made, and from what.

use super::{Rows, RunColumns, Table, Unit, column, unknown_column};
use crate::capture::Status;
use crate::error::{Error, Result};
use crate::open::TraceSet;
use crate::record::SiteV1;
use arrow::array::{ArrayRef, BooleanArray};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use std::sync::Arc;

/// The table.
#[derive(Debug)]
pub struct Plan {
    runs: Vec<Arc<RunColumns>>,
}

impl Plan {
    pub(super) fn new(runs: Vec<Arc<RunColumns>>) -> Self {
        Plan { runs }
    }
}

impl Table for Plan {
    fn name(&self) -> &'static str {
        "plan"
    }

    fn schema(&self) -> SchemaRef {
        let integer = |name| column::field(name, DataType::Int64);
        Arc::new(Schema::new(vec![
            column::repeated("run"),
            column::repeated("label"),
            integer("site"),
            column::field("layer", DataType::Int32),
            column::repeated("point"),
            integer("ordinal"),
            integer("occurrence"),
            column::repeated("operation"),
            column::list("inputs", DataType::Int64),
            column::list("input_points", DataType::Utf8),
            column::list("weights", DataType::Utf8),
            column::repeated("dtype"),
            column::repeated("axes"),
            integer("width"),
            integer("heads"),
            column::repeated("status"),
            column::repeated("reason"),
            column::field("tensor", DataType::Boolean),
            column::repeated("source_name"),
            integer("confidence"),
        ]))
    }

    fn units(&self, _set: &TraceSet) -> Result<Vec<Unit>> {
        Ok(self.runs.iter().map(|run| Unit::of_run(run, run.view().plan.sites.len())).collect())
    }

    fn open(&self, unit: &Unit) -> Result<Box<dyn Rows>> {
        let run = unit.run.clone().ok_or_else(|| Error::internal("a plan without its run"))?;
        let sites = run.view().plan.sites.iter().map(|site| site.site).collect();
        Ok(Box::new(PlanRows { run, sites }))
    }
}

struct PlanRows {
    run: Arc<RunColumns>,
    sites: Vec<u32>,
}

impl PlanRows {
    fn plan(&self) -> &[SiteV1] {
        &self.run.view().plan.sites
    }

    fn texts<'a>(&'a self, of: impl Fn(&'a SiteV1) -> &'a str) -> ArrayRef {
        column::few_texts(self.plan().iter().map(of).map(|text| Some(text).filter(|text| !text.is_empty())))
    }
}

impl Rows for PlanRows {
    fn len(&self) -> usize {
        self.sites.len()
    }

    fn column(&self, name: &str) -> Result<ArrayRef> {
        if let Some(array) = self.run.column(name, self.len())? {
            return Ok(array);
        }
        let plan = self.plan();
        Ok(match name {
            "dtype" => self.texts(|site| &site.dtype),
            "site" => column::integers(self.sites.iter().copied()),
            "inputs" => column::integer_lists(plan.iter().map(|site| site.inputs.iter().copied())),
            "axes" => self.texts(|site| &site.axes),
            // A ragged row has no width of its own: NULL.
            "width" => column::long_integers(plan.iter().map(|site| match site.width {
                0 => u64::MAX,
                width => width.into(),
            })),
            "status" => {
                let name = |site: &SiteV1| Some(Status::from_code(site.status).map_or("unknown", Status::name));
                column::few_texts(plan.iter().map(name))
            }
            "reason" => self.texts(|site| &site.reason),
            "tensor" => Arc::new(BooleanArray::from_iter(plan.iter().map(|site| Some(site.tensor)))),
            "source_name" => self.texts(|site| &site.source_name),
            "confidence" => column::integers(plan.iter().map(|site| site.confidence.into())),
            _ => self.run.site_column(name, &self.sites)?.ok_or_else(|| unknown_column("plan", name))?,
        })
    }
}
