//! `channel(a, i ORDER BY ...)`: one element of every row, as a tensor of its own.

use super::tensors::coerced;
use crate::error::Error;
use crate::sql::error::external;
use arrow::datatypes::{DataType, Field};
use datafusion::error::Result;
use datafusion::functions_aggregate::array_agg::array_agg_udaf;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::function::{AccumulatorArgs, AggregateFunctionSimplification};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Expr, ScalarUDF, Signature, Volatility};
use std::sync::Arc;

/// The aggregate; `at` gives the element of a row.
pub fn channel(at: Arc<ScalarUDF>) -> AggregateUDF {
    AggregateUDF::from(Channel { at, signature: Signature::user_defined(Volatility::Stable) })
}

/// Becomes `array_agg(at(a, i) ORDER BY ...)` when a query is planned.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Channel {
    at: Arc<ScalarUDF>,
    signature: Signature,
}

impl AggregateUDFImpl for Channel {
    fn name(&self) -> &str {
        "channel"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, given: &[DataType]) -> Result<Vec<DataType>> {
        let [tensor, index] = given else {
            return Err(external(usage(&format!("it is given {} arguments", given.len()))));
        };
        if !index.is_numeric() {
            return Err(external(usage(&format!("{index} is no index"))));
        }
        let tensor = coerced(tensor).ok_or_else(|| external(usage(&format!("{tensor} is no tensor"))))?;
        Ok(vec![tensor, DataType::Float64])
    }

    fn return_type(&self, _given: &[DataType]) -> Result<DataType> {
        Ok(DataType::List(Arc::new(Field::new_list_field(DataType::Float64, true))))
    }

    fn accumulator(&self, _arguments: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Err(external(usage("it is no window function")))
    }

    fn simplify(&self) -> Option<AggregateFunctionSimplification> {
        let at = Arc::clone(&self.at);
        Some(Box::new(move |call: AggregateFunction, _| {
            if call.params.order_by.is_empty() {
                return Err(external(usage("rows without an order make no channel")));
            }
            let mut params = call.params;
            params.args = vec![at.call(params.args)];
            Ok(Expr::AggregateFunction(AggregateFunction { func: array_agg_udaf(), params }))
        }))
    }
}

fn usage(what: &str) -> Error {
    Error::usage(format!("channel(a, i ORDER BY position): {what}"))
}
