//! Values of `$name` parameters as arguments of table functions: such a function makes its table while a query is
//! planned, before DataFusion puts in the values of parameters.

use super::Value;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, TableFactor, Value as Literal, VisitMut, VisitorMut,
};
use std::ops::ControlFlow;

/// Puts the values of `parameters` in place of their names among the arguments of table functions.
pub fn bind(statement: &mut Statement, parameters: &[(String, Value)]) {
    match statement {
        Statement::Statement(statement) => {
            // Nothing here breaks off.
            let _ = statement.visit(&mut Binder(parameters));
        }
        Statement::Explain(explained) => bind(&mut explained.statement, parameters),
        _ => {}
    }
}

struct Binder<'a>(&'a [(String, Value)]);

impl VisitorMut for Binder<'_> {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { args: Some(function), .. } = factor {
            for argument in &mut function.args {
                if let FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(value))) = argument
                    && let Some(bound) = self.bound(&value.value)
                {
                    value.value = bound;
                }
            }
        }
        ControlFlow::Continue(())
    }
}

impl Binder<'_> {
    fn bound(&self, literal: &Literal) -> Option<Literal> {
        let Literal::Placeholder(placeholder) = literal else { return None };
        let name = placeholder.strip_prefix('$')?;
        let (_, value) = self.0.iter().find(|(known, _)| known == name)?;
        Some(match value {
            Value::Text(text) => Literal::SingleQuotedString(text.clone()),
            Value::Number(number) => Literal::Number(number.to_string(), false),
            Value::Missing => Literal::Null,
        })
    }
}
