//! SQL over traces: read-only, with the tables of [`crate::tables`] and the queries of `queries/`.

mod arguments;
mod compare;
mod error;
mod filter;
pub mod functions;
pub mod named;
pub mod output;
mod parameter;
mod points;
mod provider;
mod scan;

pub use error::unknown_name;
pub use parameter::Value;

use crate::error::{Error, ErrorKind, Result};
use crate::open::TraceSet;
use crate::tables;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::ParamValues;
use datafusion::dataframe::DataFrame;
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SendableRecordBatchStream, SessionStateBuilder};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::{SQLOptions, SessionConfig, SessionContext};
use futures::StreamExt;
use std::sync::Arc;

/// Memory that a query may use unless told otherwise: 2 GiB.
pub const DEFAULT_MEMORY: usize = 2 << 30;

/// Rows up to which one side of a join is collected once. The other side then stays in the order of the scan, so that
/// a function of references finds the rows of a payload on one thread; dealt out by hash, every thread would decode it.
const COLLECTED_ROWS: (&str, usize) = ("datafusion.optimizer.hash_join_single_partition_threshold_rows", 1 << 20);

/// A SQL session over a set of traces.
pub struct Session {
    context: SessionContext,
    set: Arc<TraceSet>,
    tables: Vec<String>,
}

/// The answer to a query, batch by batch.
pub struct Answer {
    stream: SendableRecordBatchStream,
    tables: Vec<String>,
}

impl Session {
    /// A session over `set` whose queries use at most `memory` bytes for joins, groups and sorts.
    ///
    /// # Errors
    ///
    /// `Malformed` where a plan contradicts itself; `Environment` where there is no room to spill to.
    pub fn new(set: TraceSet, memory: usize) -> Result<Self> {
        Session::with_config(set, memory, SessionConfig::new())
    }

    /// The same, `rows` rows at a time: for SQL that makes tensors of tensors, of which a batch is held at once.
    ///
    /// # Errors
    ///
    /// As [`Session::new`].
    pub fn in_batches_of(rows: usize, set: TraceSet, memory: usize) -> Result<Self> {
        Session::with_config(set, memory, SessionConfig::new().with_batch_size(rows))
    }

    fn with_config(set: TraceSet, memory: usize, config: SessionConfig) -> Result<Self> {
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(FairSpillPool::new(memory)))
            .build_arc()
            .map_err(|error| error::from_datafusion(error, &[]))?;
        let config = config.with_information_schema(true).set_usize(COLLECTED_ROWS.0, COLLECTED_ROWS.1);
        let state =
            SessionStateBuilder::new().with_config(config).with_runtime_env(runtime).with_default_features().build();
        let mut session =
            Session { context: SessionContext::new_with_state(state), set: Arc::new(set), tables: Vec::new() };
        for table in tables::all(&session.set)? {
            let name = table.name();
            let provider = provider::Provider::new(table, Arc::clone(&session.set));
            session.context.register_table(name, Arc::new(provider)).map_err(|error| session.error(error))?;
            session.tables.push(name.to_owned());
        }
        let compare = compare::CompareFunction::new(Arc::clone(&session.set));
        session.context.register_udtf("compare", Arc::new(compare));
        let weights = compare::WeightsFunction::new(Arc::clone(&session.set));
        session.context.register_udtf("compare_weights", Arc::new(weights));
        for function in functions::scalars(&session.set) {
            session.context.register_udf(function);
        }
        for function in functions::aggregates(&session.set) {
            session.context.register_udaf(function);
        }
        Ok(session)
    }

    /// A session that plans and has nothing to read: tables are empty, and so is every comparison of whatever runs.
    ///
    /// # Errors
    ///
    /// As [`Session::new`].
    pub fn without_traces() -> Result<Self> {
        let session = Session::new(TraceSet::default(), DEFAULT_MEMORY)?;
        session.context.register_udtf("compare", Arc::new(compare::NoRuns::new(tables::Compare::columns())));
        let weights = compare::NoRuns::new(tables::CompareWeights::columns());
        session.context.register_udtf("compare_weights", Arc::new(weights));
        Ok(session)
    }

    /// The traces that it asks.
    pub fn set(&self) -> &Arc<TraceSet> {
        &self.set
    }

    /// DataFusion's own session, for functions that are added to it.
    pub fn context(&self) -> &SessionContext {
        &self.context
    }

    /// Answers `sql`, with values for its `$name` parameters.
    ///
    /// # Errors
    ///
    /// `Usage` for SQL that makes no sense, names what is not there, or would write.
    pub async fn query(&self, sql: &str, parameters: &[(String, Value)]) -> Result<Answer> {
        let frame = self.plan(sql, parameters).await?;
        let stream = frame.execute_stream().await.map_err(|error| self.error(error))?;
        Ok(Answer { stream, tables: self.tables.clone() })
    }

    /// The names of the columns that `sql` would answer with, planned and not run.
    ///
    /// # Errors
    ///
    /// As [`Session::query`].
    pub async fn columns(&self, sql: &str, parameters: &[(String, Value)]) -> Result<Vec<String>> {
        let frame = self.plan(sql, parameters).await?;
        let plan = frame.create_physical_plan().await.map_err(|error| self.error(error))?;
        Ok(plan.schema().fields().iter().map(|field| field.name().clone()).collect())
    }

    async fn plan(&self, sql: &str, parameters: &[(String, Value)]) -> Result<DataFrame> {
        let state = self.context.state();
        let dialect = state.config().options().sql_parser.dialect;
        let mut statement = state.sql_to_statement(sql, &dialect).map_err(|error| self.error(error))?;
        arguments::bind(&mut statement, parameters);
        let plan = state.statement_to_plan(statement).await.map_err(|error| self.error(error))?;
        read_only().verify_plan(&plan).map_err(|error| writing(&error))?;
        points::check(&plan, &self.set)?;
        let frame = DataFrame::new(state, plan);
        if parameters.is_empty() {
            return Ok(frame);
        }
        let values = parameters.iter().map(|(name, value)| (name.clone(), value.scalar()));
        let values = ParamValues::from(values.collect::<std::collections::HashMap<_, _>>());
        frame.with_param_values(values).map_err(|error| self.error(error))
    }

    fn error(&self, error: DataFusionError) -> Error {
        error::from_datafusion(error, &self.tables)
    }
}

/// Nothing that creates, changes, copies or sets anything.
fn read_only() -> SQLOptions {
    SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false)
}

fn writing(error: &DataFusionError) -> Error {
    let what = error.strip_backtrace();
    let what = what.rsplit(": ").next().unwrap_or_default();
    Error::new(ErrorKind::Usage, format!("SQL here only reads; refused: {what}"))
}

impl Answer {
    /// An answer that is already there, in one batch.
    pub fn ready(batch: RecordBatch) -> Self {
        let schema = batch.schema();
        let stream = RecordBatchStreamAdapter::new(schema, futures::stream::iter([Ok(batch)]));
        Answer { stream: Box::pin(stream), tables: Vec::new() }
    }

    /// Columns of the answer.
    pub fn schema(&self) -> SchemaRef {
        self.stream.schema()
    }

    /// The next batch; `None` after the last.
    ///
    /// # Errors
    ///
    /// Whatever reading the traces or working out the answer says.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>> {
        let batch = self.stream.next().await.transpose();
        batch.map_err(|error| error::from_datafusion(error, &self.tables))
    }

    /// All batches.
    ///
    /// # Errors
    ///
    /// As [`Answer::next`].
    pub async fn collect(mut self) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::new();
        while let Some(batch) = self.next().await? {
            batches.push(batch);
        }
        Ok(batches)
    }
}
