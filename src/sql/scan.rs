//! The leaf of every plan: reads units, in parallel partitions, in batches small enough for payloads.

use super::error::external;
use super::filter::{Filters, cheap};
use crate::tables::{Rows, Table, Unit};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{filter, prep_null_mask_filter, take};
use arrow::datatypes::SchemaRef;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Statistics, plan_err};
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// Scan of one table.
#[derive(Debug)]
pub struct Scan {
    table: Arc<dyn Table>,
    partitions: Vec<Vec<Unit>>,
    filters: Filters,
    output: SchemaRef,
    limit: Option<usize>,
    properties: Arc<PlanProperties>,
}

impl Scan {
    /// A scan of `units` that yields the columns `output` of the rows that pass `filters`, at most `limit` of them
    /// from each of about `partitions` partitions.
    pub fn new(
        table: Arc<dyn Table>,
        units: Vec<Unit>,
        filters: Filters,
        output: SchemaRef,
        partitions: usize,
        limit: Option<usize>,
    ) -> Self {
        let partitions = split(units, partitions);
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&output)),
            Partitioning::UnknownPartitioning(partitions.len()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Scan { table, partitions, filters, output, limit, properties: Arc::new(properties) }
    }
}

/// Cuts `units` into at most `partitions` stretches of about as many rows each.
fn split(units: Vec<Unit>, partitions: usize) -> Vec<Vec<Unit>> {
    let total: usize = units.iter().map(|unit| unit.rows.max(1)).sum();
    let share = total.div_ceil(partitions.max(1)).max(1);
    let mut stretches: Vec<Vec<Unit>> = vec![Vec::new()];
    let mut before = 0;
    for unit in units {
        if before >= share * stretches.len() {
            stretches.push(Vec::new());
        }
        before += unit.rows.max(1);
        if let Some(stretch) = stretches.last_mut() {
            stretch.push(unit);
        }
    }
    stretches
}

impl DisplayAs for Scan {
    fn fmt_as(&self, _kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns: Vec<_> = self.output.fields().iter().map(|field| field.name().as_str()).collect();
        let units: usize = self.partitions.iter().map(Vec::len).sum();
        write!(f, "Scan: {} columns=[{}] units={units}", self.table.name(), columns.join(", "))?;
        if !self.filters.is_empty() {
            write!(f, " filter=[{}]", self.filters.describe())?;
        }
        self.limit.map_or(Ok(()), |limit| write!(f, " limit={limit}"))
    }
}

impl ExecutionPlan for Scan {
    fn name(&self) -> &str {
        "Scan"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        if children.is_empty() { Ok(self) } else { plan_err!("a scan reads files and no other plan") }
    }

    fn execute(&self, partition: usize, _context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let Some(units) = self.partitions.get(partition) else {
            return plan_err!("a scan has no partition {partition}");
        };
        let reading = Reading {
            table: Arc::clone(&self.table),
            units: units.clone().into_iter(),
            filters: self.filters.clone(),
            output: Arc::clone(&self.output),
            cheap: cheap(&self.output, |name| self.table.is_costly(name)),
            left: self.limit.unwrap_or(usize::MAX),
            current: None,
        };
        let stream = futures::stream::iter(reading);
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.output), stream)))
    }

    fn statistics_from_inputs(&self, _inputs: &[Arc<Statistics>], args: &StatisticsArgs) -> Result<Arc<Statistics>> {
        let mut statistics = Statistics::new_unknown(&self.output);
        let units = self.partitions.iter().enumerate();
        let units = units.filter(|(number, _)| args.partition().is_none_or(|partition| partition == *number));
        let rows = units.flat_map(|(_, units)| units).map(|unit| unit.rows).sum::<usize>();
        // The index says so; only reading makes it certain.
        statistics.num_rows = Precision::Inexact(rows);
        Ok(Arc::new(statistics))
    }
}

/// A filter's answer as a selection: only what is true passes.
fn nulls_do_not_pass(passing: BooleanArray) -> BooleanArray {
    if passing.null_count() > 0 { prep_null_mask_filter(&passing) } else { passing }
}

/// A partition that is being read.
struct Reading {
    table: Arc<dyn Table>,
    units: std::vec::IntoIter<Unit>,
    filters: Filters,
    output: SchemaRef,
    cheap: SchemaRef,
    left: usize,
    current: Option<Opened>,
}

/// A unit whose cheap columns are built and filtered.
struct Opened {
    rows: Box<dyn Rows>,
    cheap: RecordBatch,
    numbers: UInt32Array,
    done: usize,
    batch: usize,
}

impl Iterator for Reading {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.left > 0 {
            if self.current.is_none() {
                let unit = self.units.next()?;
                match self.open(&unit) {
                    Ok(opened) => self.current = Some(opened),
                    Err(error) => return Some(self.fail(error)),
                }
            }
            let batch = self.current.as_mut().and_then(|opened| opened.next(&self.output));
            match batch {
                Some(Ok(batch)) if batch.num_rows() == 0 => {}
                Some(Ok(batch)) => return Some(Ok(self.within_limit(batch))),
                Some(Err(error)) => return Some(self.fail(error)),
                None => self.current = None,
            }
        }
        None
    }
}

impl Reading {
    fn open(&self, unit: &Unit) -> Result<Opened> {
        let rows = self.table.open(unit).map_err(external)?;
        let mut built: HashMap<String, ArrayRef> = HashMap::new();
        let passing = self.filters.passing(rows.as_ref(), &mut built)?.map(nulls_do_not_pass);
        let length = u32::try_from(rows.len()).map_err(|_| external(crate::Error::malformed("a unit is too long")))?;
        let mut numbers = UInt32Array::from_iter_values(0..length);
        if let Some(passing) = &passing {
            numbers = filter(&numbers, passing)?.as_primitive().clone();
        }
        let mut columns = Vec::with_capacity(self.cheap.fields().len());
        if !numbers.is_empty() {
            for field in self.cheap.fields() {
                let array = match built.remove(field.name()) {
                    Some(array) => array,
                    None => rows.column(field.name()).map_err(external)?,
                };
                columns.push(match &passing {
                    Some(_) => take(&array, &numbers, None)?,
                    None => array,
                });
            }
        } else {
            columns.extend(self.cheap.fields().iter().map(|field| arrow::array::new_empty_array(field.data_type())));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(numbers.len()));
        let cheap = RecordBatch::try_new_with_options(Arc::clone(&self.cheap), columns, &options)?;
        let batch = rows.rows_per_batch(&self.output).max(1);
        Ok(Opened { rows, cheap, numbers, done: 0, batch })
    }

    fn within_limit(&mut self, batch: RecordBatch) -> RecordBatch {
        let taken = batch.num_rows().min(self.left);
        self.left -= taken;
        if taken < batch.num_rows() { batch.slice(0, taken) } else { batch }
    }

    /// Nothing follows an error.
    fn fail(&mut self, error: datafusion::error::DataFusionError) -> Result<RecordBatch> {
        self.left = 0;
        Err(error)
    }
}

impl Opened {
    fn next(&mut self, output: &SchemaRef) -> Option<Result<RecordBatch>> {
        let count = (self.numbers.len() - self.done).min(self.batch);
        if count == 0 {
            return None;
        }
        let numbers = self.numbers.values().get(self.done..self.done + count)?;
        let cheap = self.cheap.slice(self.done, count);
        self.done += count;
        Some(self.rows.finish(output, cheap, numbers).map_err(external))
    }
}
