//! Filters on cheap columns: compiled once, evaluated on plans and ranges to skip units, then on rows.

use super::error::external;
use crate::tables::{Rows, SiteRows, Unit, candidates};
use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, UInt64Array};
use arrow::compute::{and_kleene, cast};
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::Session;
use datafusion::common::{Column, DFSchema, ScalarValue, pruning::PruningStatistics};
use datafusion::error::Result;
use datafusion::logical_expr::Expr;
use datafusion::physical_expr::utils::{collect_columns, reassign_expr_columns};
use datafusion::physical_expr::{PhysicalExpr, conjunction};
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// A conjunction of filters over the columns of one table.
#[derive(Debug, Clone)]
pub struct Filters {
    schema: SchemaRef,
    parts: Vec<Part>,
}

/// One filter, and the columns it reads: its expression numbers columns by `schema`.
#[derive(Debug, Clone)]
struct Part {
    expression: Arc<dyn PhysicalExpr>,
    schema: SchemaRef,
}

impl Filters {
    /// Compiles `filters` against the columns `schema`.
    pub fn compile(state: &dyn Session, schema: &SchemaRef, filters: &[Expr]) -> Result<Self> {
        let named = DFSchema::try_from(Arc::clone(schema))?;
        let compile = |filter: &Expr| {
            let expression = state.create_physical_expr(unqualified(filter)?, &named)?;
            let columns: HashSet<usize> = collect_columns(&expression).iter().map(|column| column.index()).collect();
            let mut columns: Vec<usize> = columns.into_iter().collect();
            columns.sort_unstable();
            let schema = Arc::new(schema.project(&columns)?);
            Ok(Part { expression: reassign_expr_columns(expression, &schema)?, schema })
        };
        let parts = filters.iter().map(compile).collect::<Result<Vec<_>>>()?;
        Ok(Filters { schema: Arc::clone(schema), parts })
    }

    /// Whether every row passes.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The filters as text.
    pub fn describe(&self) -> String {
        self.parts.iter().map(|part| part.expression.to_string()).collect::<Vec<_>>().join(" AND ")
    }

    /// Leaves out units that cannot hold a row that passes.
    pub fn prune(&self, units: Vec<Unit>) -> Result<Vec<Unit>> {
        if self.is_empty() {
            return Ok(units);
        }
        let in_range = self.in_range(&units)?;
        let mut answers: HashMap<(String, Option<u32>, Option<u32>), bool> = HashMap::new();
        let mut kept = Vec::new();
        for (unit, in_range) in units.into_iter().zip(in_range) {
            if in_range && self.may_hold(&unit, &mut answers)? {
                kept.push(unit);
            }
        }
        Ok(kept)
    }

    /// The rows of `rows` that pass; `None` for all of them. Columns that were built for it end up in `built`.
    pub fn passing(&self, rows: &dyn Rows, built: &mut HashMap<String, ArrayRef>) -> Result<Option<BooleanArray>> {
        let mut passing = None;
        for part in &self.parts {
            let mut columns = Vec::with_capacity(part.schema.fields().len());
            for field in part.schema.fields() {
                let array = match built.get(field.name()) {
                    Some(array) => Arc::clone(array),
                    None => rows.column(field.name()).map_err(external)?,
                };
                built.insert(field.name().clone(), Arc::clone(&array));
                columns.push(array);
            }
            passing = Some(both(passing, part.evaluate(columns, rows.len())?)?);
        }
        Ok(passing)
    }

    /// Evaluates the filters that only read what the plan tells on the sites of a unit.
    fn may_hold(&self, unit: &Unit, answers: &mut HashMap<(String, Option<u32>, Option<u32>), bool>) -> Result<bool> {
        let Some(sites) = candidates(unit) else {
            return self.run_may_hold(unit);
        };
        if let Some(answer) = answers.get(&sites.key()) {
            return Ok(*answer);
        }
        let mut passing = None;
        for part in self.parts.iter().filter(|part| part.reads_only(SiteRows::knows)) {
            let columns = part.schema.fields().iter().map(|field| sites.column(field.name()).map_err(external));
            passing = Some(both(passing, part.evaluate(columns.collect::<Result<_>>()?, sites.count())?)?);
        }
        let answer = passing.is_none_or(|passing| passing.true_count() > 0);
        answers.insert(sites.key(), answer);
        Ok(answer)
    }

    /// The same for units that only know their run.
    fn run_may_hold(&self, unit: &Unit) -> Result<bool> {
        let Some(run) = &unit.run else {
            return Ok(true);
        };
        // A table may give a name of the plan another type: `runs` has plain text.
        let known = |name: &str| matches!(name, "run" | "label");
        for part in self.parts.iter().filter(|part| part.reads_only(known)) {
            let mut columns = Vec::new();
            for field in part.schema.fields() {
                let array = run.column(field.name(), 1).map_err(external)?;
                let array = array.ok_or_else(|| external(crate::Error::internal("a run without its name")))?;
                columns.push(cast(&array, field.data_type())?);
            }
            if part.evaluate(columns, 1)?.true_count() == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether the ranges of steps and positions of each unit leave room for a row that passes.
    fn in_range(&self, units: &[Unit]) -> Result<Vec<bool>> {
        let ranged = |name: &str| matches!(name, "step" | "position");
        let parts = self.parts.iter().filter(|part| part.reads_only(ranged) && !part.schema.fields().is_empty());
        let mut expressions = Vec::new();
        for part in parts {
            expressions.push(reassign_expr_columns(Arc::clone(&part.expression), &self.schema)?);
        }
        if expressions.is_empty() {
            return Ok(vec![true; units.len()]);
        }
        let builder = PruningPredicateBuilder::new().with_file_schema(Arc::clone(&self.schema));
        builder.try_build(conjunction(expressions))?.prune(&Ranges(units))
    }
}

impl Part {
    fn reads_only(&self, known: impl Fn(&str) -> bool) -> bool {
        self.schema.fields().iter().all(|field| known(field.name()))
    }

    fn evaluate(&self, columns: Vec<ArrayRef>, rows: usize) -> Result<BooleanArray> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?;
        let array = self.expression.evaluate(&batch)?.into_array(rows)?;
        Ok(datafusion::common::cast::as_boolean_array(&array)?.clone())
    }
}

fn both(left: Option<BooleanArray>, right: BooleanArray) -> Result<BooleanArray> {
    Ok(match left {
        Some(left) => and_kleene(&left, &right)?,
        None => right,
    })
}

/// Filters name columns with or without their table; the compiled schema has no table.
fn unqualified(filter: &Expr) -> Result<Expr> {
    use datafusion::common::tree_node::{Transformed, TreeNode};
    let strip = |part: Expr| {
        Ok(match part {
            Expr::Column(column) => Transformed::yes(Expr::Column(Column::new_unqualified(column.name))),
            other => Transformed::no(other),
        })
    };
    Ok(filter.clone().transform(strip)?.data)
}

/// Ranges of steps and positions, a container a unit.
struct Ranges<'a>(&'a [Unit]);

impl Ranges<'_> {
    fn bounds(&self, column: &Column, bound: fn((u32, u32)) -> u32) -> Option<ArrayRef> {
        let range: fn(&Unit) -> Option<(u32, u32)> = match column.name.as_str() {
            "step" => |unit| unit.steps,
            "position" => |unit| unit.positions,
            _ => return None,
        };
        Some(Arc::new(Int64Array::from_iter(
            self.0.iter().map(|unit| range(unit).map(|range| i64::from(bound(range)))),
        )))
    }
}

impl PruningStatistics for Ranges<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column, |range| range.0)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bounds(column, |range| range.1)
    }

    fn num_containers(&self) -> usize {
        self.0.len()
    }

    fn null_counts(&self, _column: &Column) -> Option<ArrayRef> {
        Some(Arc::new(UInt64Array::from(vec![0; self.0.len()])))
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        None
    }

    fn contained(&self, _column: &Column, _values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}

/// The columns that `schema` and a table's cheap columns share.
pub fn cheap(schema: &SchemaRef, is_costly: impl Fn(&str) -> bool) -> SchemaRef {
    let fields: Vec<_> = schema.fields().iter().filter(|field| !is_costly(field.name())).cloned().collect();
    Arc::new(Schema::new(fields))
}
