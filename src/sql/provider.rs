//! A table as DataFusion sees it: which filters it takes over, and the plan that scans it.

use super::error::external;
use super::filter::Filters;
use super::scan::Scan;
use crate::open::TraceSet;
use crate::tables::Table;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::TreeNode;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use std::sync::Arc;

/// Provider of one table over a set of traces.
#[derive(Debug)]
pub struct Provider {
    table: Arc<dyn Table>,
    set: Arc<TraceSet>,
    schema: SchemaRef,
}

impl Provider {
    /// The provider of `table`.
    pub fn new(table: Arc<dyn Table>, set: Arc<TraceSet>) -> Self {
        Provider { schema: table.schema(), table, set }
    }

    /// Whether a filter can be decided for each row without decoding anything.
    fn decides(&self, filter: &Expr) -> bool {
        let cheap = filter.column_refs().iter().all(|column| !self.table.is_costly(&column.name));
        let foreign = filter.exists(|part| {
            Ok(matches!(
                part,
                Expr::ScalarSubquery(_)
                    | Expr::Exists(_)
                    | Expr::InSubquery(_)
                    | Expr::SetComparison(_)
                    | Expr::OuterReferenceColumn(..)
                    | Expr::Placeholder(_)
            ))
        });
        cheap && !filter.is_volatile() && !foreign.unwrap_or(true)
    }
}

#[async_trait]
impl TableProvider for Provider {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let support = |filter: &&Expr| match self.decides(filter) {
            true => TableProviderFilterPushDown::Exact,
            false => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(support).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let filters = Filters::compile(state, &self.schema, filters)?;
        let units = filters.prune(self.table.units(&self.set).map_err(external)?)?;
        let output = match projection {
            Some(columns) => Arc::new(self.schema.project(columns)?),
            None => Arc::clone(&self.schema),
        };
        let partitions = state.config().target_partitions();
        Ok(Arc::new(Scan::new(Arc::clone(&self.table), units, filters, output, partitions, limit)))
    }
}
