//! `compare('reference', 'target' [, atol, rtol])` and `compare_weights('reference', 'target')` as table functions: they
//! line two runs up, then scan their pairs.

use super::error::external;
use super::provider::Provider;
use crate::compare::{Allclose, Pairing, RunRows, WeightPairing};
use crate::error::Error;
use crate::open::TraceSet;
use crate::tables::{Compare, CompareWeights};
use arrow::datatypes::SchemaRef;
use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::ScalarValue;
use datafusion::datasource::empty::EmptyTable;
use datafusion::error::Result;
use datafusion::logical_expr::Expr;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// The function over a set of traces.
#[derive(Debug)]
pub struct CompareFunction {
    set: Arc<TraceSet>,
    /// Rows of runs that were compared: a query that compares three runs with each other reads each once.
    known: Mutex<HashMap<String, Arc<RunRows>>>,
}

impl CompareFunction {
    /// The function over `set`.
    pub fn new(set: Arc<TraceSet>) -> Self {
        CompareFunction { set, known: Mutex::default() }
    }

    fn rows(&self, run: &str) -> crate::Result<Arc<RunRows>> {
        let run = self.set.resolve(run)?;
        let locked = || self.known.lock().map_err(|_| Error::internal("a comparison broke off"));
        if let Some(rows) = locked()?.get(&run.id()) {
            return Ok(Arc::clone(rows));
        }
        let id = run.id();
        let rows = Arc::new(RunRows::read(run)?);
        locked()?.insert(id, Arc::clone(&rows));
        Ok(rows)
    }

    fn table(&self, arguments: &[Expr]) -> crate::Result<Compare> {
        let (reference, target, rule) = match arguments {
            [reference, target] => (text(reference)?, text(target)?, Allclose::default()),
            [reference, target, absolute, relative] => {
                let rule = Allclose { absolute: number(absolute)?, relative: number(relative)? };
                (text(reference)?, text(target)?, rule)
            }
            other => return Err(usage(&format!("it has {} arguments", other.len()))),
        };
        let (reference, target) = rayon::join(|| self.rows(reference), || self.rows(target));
        let pairing = Pairing::of(&*reference?, &*target?)?;
        Ok(Compare::new(Arc::new(pairing), rule))
    }
}

impl TableFunctionImpl for CompareFunction {
    fn call_with_args(&self, arguments: TableFunctionArgs<'_, '_>) -> Result<Arc<dyn TableProvider>> {
        let table = self.table(arguments.exprs()).map_err(external)?;
        Ok(Arc::new(Provider::new(Arc::new(table), Arc::clone(&self.set))))
    }
}

/// The function of weights over a set of traces.
#[derive(Debug)]
pub struct WeightsFunction {
    set: Arc<TraceSet>,
}

impl WeightsFunction {
    /// The function over `set`.
    pub fn new(set: Arc<TraceSet>) -> Self {
        WeightsFunction { set }
    }

    fn table(&self, arguments: &[Expr]) -> crate::Result<CompareWeights> {
        let [reference, target] = arguments else {
            let count = arguments.len();
            return Err(Error::usage(format!("compare_weights('reference', 'target') takes two runs, not {count}")));
        };
        let pairing = WeightPairing::new(self.set.resolve(text(reference)?)?, self.set.resolve(text(target)?)?)?;
        Ok(CompareWeights::new(Arc::new(pairing)))
    }
}

impl TableFunctionImpl for WeightsFunction {
    fn call_with_args(&self, arguments: TableFunctionArgs<'_, '_>) -> Result<Arc<dyn TableProvider>> {
        let table = self.table(arguments.exprs()).map_err(external)?;
        Ok(Arc::new(Provider::new(Arc::new(table), Arc::clone(&self.set))))
    }
}

/// A comparison in a session without traces: whatever its arguments, it has columns and no rows.
#[derive(Debug)]
pub struct NoRuns {
    columns: SchemaRef,
}

impl NoRuns {
    /// The function that yields `columns`.
    pub fn new(columns: SchemaRef) -> Self {
        NoRuns { columns }
    }
}

impl TableFunctionImpl for NoRuns {
    fn call_with_args(&self, _arguments: TableFunctionArgs<'_, '_>) -> Result<Arc<dyn TableProvider>> {
        Ok(Arc::new(EmptyTable::new(Arc::clone(&self.columns))))
    }
}

fn usage(what: &str) -> Error {
    Error::usage(format!("compare('reference', 'target' [, atol, rtol]) takes two runs and two numbers: {what}"))
}

fn text(argument: &Expr) -> crate::Result<&str> {
    match argument {
        Expr::Literal(ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)), _) => Ok(text),
        other => Err(Error::usage(format!("{other} is no run's label or id"))),
    }
}

fn number(argument: &Expr) -> crate::Result<f64> {
    let number = match argument {
        Expr::Literal(value, _) => value.cast_to(&arrow::datatypes::DataType::Float64).ok(),
        _ => None,
    };
    match number {
        Some(ScalarValue::Float64(Some(number))) if number >= 0.0 => Ok(number),
        _ => Err(usage(&format!("{argument} is no tolerance"))),
    }
}
