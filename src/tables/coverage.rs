//! `coverage`: what each run was expected to capture, what it has, and why anything is missing.

use super::{Rows, RunColumns, Table, Unit, column, unknown_column};
use crate::capture::Status;
use crate::error::{Error, Result};
use crate::open::TraceSet;
use crate::record::CoverageV1;
use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use std::sync::Arc;

/// The table.
#[derive(Debug)]
pub struct Coverage {
    runs: Vec<Arc<RunColumns>>,
}

impl Coverage {
    pub(super) fn new(runs: Vec<Arc<RunColumns>>) -> Self {
        Coverage { runs }
    }
}

impl Table for Coverage {
    fn name(&self) -> &'static str {
        "coverage"
    }

    fn schema(&self) -> SchemaRef {
        let mut fields = vec![
            column::repeated("run"),
            column::repeated("label"),
            column::field("layer", DataType::Int32),
            column::repeated("point"),
            column::field("ordinal", DataType::Int64),
            column::field("occurrence", DataType::Int64),
            column::repeated("status"),
            column::repeated("reason"),
        ];
        let counts = ["rows_expected", "rows_captured", "rows_with_tensor"];
        fields.extend(counts.map(|name| column::field(name, DataType::Int64)));
        Arc::new(Schema::new(fields))
    }

    fn units(&self, _set: &TraceSet) -> Result<Vec<Unit>> {
        self.runs
            .iter()
            .map(|run| {
                let sites = run.view().plan.sites.len();
                let last = u32::try_from(sites).unwrap_or(u32::MAX).checked_sub(1);
                Ok(Unit { sites: last.map(|last| (0, last)), ..Unit::of_run(run, sites) })
            })
            .collect()
    }

    fn open(&self, unit: &Unit) -> Result<Box<dyn Rows>> {
        let run = unit.run.clone().ok_or_else(|| Error::internal("coverage without a run"))?;
        let record = unit.trace.coverage(run.view())?;
        Ok(Box::new(CoverageRows { run, record }))
    }
}

struct CoverageRows {
    run: Arc<RunColumns>,
    record: CoverageV1,
}

impl Rows for CoverageRows {
    fn len(&self) -> usize {
        self.record.site.len()
    }

    fn column(&self, name: &str) -> Result<ArrayRef> {
        if let Some(array) = self.run.column(name, self.len())? {
            return Ok(array);
        }
        if let Some(array) = self.run.site_column(name, &self.record.site)? {
            return Ok(array);
        }
        let record = &self.record;
        Ok(match name {
            "status" => column::few_texts(
                record.status.iter().map(|status| Some(Status::from_code(*status).map_or("unknown", Status::name))),
            ),
            "reason" => {
                column::few_texts(record.reason.iter().map(|text| Some(text.as_str()).filter(|text| !text.is_empty())))
            }
            "rows_expected" => column::long_integers(record.rows_expected.iter().copied()),
            "rows_captured" => column::long_integers(record.rows_captured.iter().copied()),
            "rows_with_tensor" => column::long_integers(record.rows_with_tensor.iter().copied()),
            _ => return Err(unknown_column("coverage", name)),
        })
    }
}
