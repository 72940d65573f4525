//! Tables over traces: every one is a fold from records to Arrow batches.
//!
//! A table is cut into [`Unit`]s (a statistics frame, a step, a run, a file) that are read on their own, so that a
//! query skips whole units and reads the rest in parallel. Opening a unit never touches a payload: only
//! [`Rows::finish`] does, for the rows that passed every filter, and only when a costly column is asked for.

mod activations;
mod audit;
mod column;
mod compare;
mod compare_weights;
mod comparison;
mod coverage;
mod elements;
mod events;
mod hyper_parameters;
mod losses;
mod operations;
mod plan;
mod run;
mod runs;
mod site;
mod steps;
mod tensors;
mod values;
mod weights;

pub use audit::audit;
pub use compare::Compare;
pub use compare_weights::CompareWeights;
pub use comparison::comparisons;
pub use run::RunColumns;
pub use site::SiteRows;

use crate::error::{Error, Result};
use crate::open::{FrameEntry, Trace, TraceSet};
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef};
use std::fmt::Debug;
use std::sync::Arc;

/// A part of a table that is read on its own.
#[derive(Debug, Clone)]
pub struct Unit {
    /// The file.
    pub trace: Arc<Trace>,
    /// The run, for tables that know runs.
    pub run: Option<Arc<RunColumns>>,
    /// Statistics frames, STEP frames: what is read.
    pub frames: Vec<FrameEntry>,
    /// The commit frame of the step that the statistics belong to.
    pub commit: Option<FrameEntry>,
    /// How many rows it has, as far as the index knows.
    pub rows: usize,
    /// Smallest and largest step.
    pub steps: Option<(u32, u32)>,
    /// Smallest and largest site.
    pub sites: Option<(u32, u32)>,
    /// Smallest and largest position.
    pub positions: Option<(u32, u32)>,
}

impl Unit {
    /// What a run says of itself, `rows` rows of it, read from its identity and plan and no frame of statistics.
    fn of_run(run: &Arc<RunColumns>, rows: usize) -> Self {
        Unit {
            trace: Arc::clone(run.reference().trace()),
            run: Some(Arc::clone(run)),
            frames: Vec::new(),
            commit: None,
            rows,
            steps: None,
            sites: None,
            positions: None,
        }
    }
}

/// One SQL table.
pub trait Table: Debug + Send + Sync {
    /// The name in SQL.
    fn name(&self) -> &'static str;

    /// All columns.
    fn schema(&self) -> SchemaRef;

    /// Whether a column can only be known by decoding payloads or taking rows apart; such columns come from
    /// [`Rows::finish`], all others from [`Rows::column`].
    fn is_costly(&self, _column: &str) -> bool {
        false
    }

    /// Everything there is to read.
    ///
    /// # Errors
    ///
    /// Whatever reading the log's directory says.
    fn units(&self, set: &TraceSet) -> Result<Vec<Unit>>;

    /// Opens a unit; no payload byte is read.
    ///
    /// # Errors
    ///
    /// Whatever reading the unit's records says.
    fn open(&self, unit: &Unit) -> Result<Box<dyn Rows>>;
}

/// The rows of an open [`Unit`].
pub trait Rows: Send {
    /// How many rows there are before filters.
    fn len(&self) -> usize;

    /// Whether there is no row.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All values of the cheap column `name`.
    ///
    /// # Errors
    ///
    /// `Internal` for a column that the table does not have; whatever reading says.
    fn column(&self, name: &str) -> Result<ArrayRef>;

    /// How many rows [`Rows::finish`] should get at a time for the columns `schema`.
    fn rows_per_batch(&self, _schema: &Schema) -> usize {
        self.len().max(1)
    }

    /// Adds the costly columns of `schema` to `cheap`, which holds the cheap ones for the rows with numbers `rows`.
    ///
    /// # Errors
    ///
    /// Whatever decoding payloads says.
    fn finish(&self, _schema: &SchemaRef, cheap: RecordBatch, _rows: &[u32]) -> Result<RecordBatch> {
        Ok(cheap)
    }
}

/// Every table, in the order of the documentation.
///
/// # Errors
///
/// `Malformed` where a run's plan contradicts itself.
pub fn all(set: &TraceSet) -> Result<Vec<Arc<dyn Table>>> {
    let runs = RunColumns::of(set)?;
    Ok(vec![
        Arc::new(runs::Runs::new(runs.clone())),
        Arc::new(steps::Steps::new(runs.clone())),
        Arc::new(activations::Activations::new(runs.clone())),
        Arc::new(tensors::Tensors::new(runs.clone())),
        Arc::new(elements::Elements::new(runs.clone())),
        Arc::new(operations::Operations::new(runs.clone())),
        Arc::new(coverage::Coverage::new(runs.clone())),
        Arc::new(plan::Plan::new(runs.clone())),
        Arc::new(hyper_parameters::HyperParameters::new(runs.clone())),
        Arc::new(losses::Losses::new(runs.clone())),
        Arc::new(weights::Weights::new(runs)),
        Arc::new(events::Events),
    ])
}

/// One row for each site that may be in `unit`, known from the plan without reading the unit; `None` where the unit
/// is not about sites, or is damaged.
pub fn candidates(unit: &Unit) -> Option<SiteRows> {
    let (run, (first, last)) = (unit.run.as_ref()?, unit.sites?);
    SiteRows::new(Arc::clone(run), first, last)
}

fn unknown_column(table: &str, name: &str) -> Error {
    Error::internal(format!("table {table} has no column {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_and_column_names_need_no_quotes_in_sql() {
        for table in all(&TraceSet::default()).unwrap() {
            for field in table.schema().fields() {
                let plain = field.name().chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
                assert!(plain, "{}.{}", table.name(), field.name());
            }
        }
    }
}
