//! Capture points in SQL text: a name that no model can have is a slip, not an empty answer.

use super::error::unknown_name;
use crate::error::{Error, Result};
use crate::open::TraceSet;
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator};
use std::collections::BTreeSet;

/// Checks every text that `plan` compares with a column `point`.
///
/// # Errors
///
/// `Usage` for a name that is neither in the vocabulary nor in the plan of any run.
pub fn check(plan: &LogicalPlan, set: &TraceSet) -> Result<()> {
    let mut asked = BTreeSet::new();
    let visited = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expression| {
            expression.apply(|part| {
                compared(part, &mut asked);
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    visited.map_err(|error| super::error::from_datafusion(error, &[]))?;
    if asked.is_empty() {
        return Ok(());
    }
    let known = known(set);
    asked.iter().try_for_each(|name| check_among(name, &known))
}

/// Checks one name.
///
/// # Errors
///
/// As [`check`].
pub fn check_name(name: &str, set: &TraceSet) -> Result<()> {
    check_among(name, &known(set))
}

fn check_among(name: &str, known: &BTreeSet<String>) -> Result<()> {
    match known.contains(name) {
        true => Ok(()),
        false => Err(Error::usage(unknown_name("capture point", name, known.iter().map(String::as_str)))),
    }
}

/// Every point of the vocabulary, and every point that a run of `set` plans (imports may know more).
fn known(set: &TraceSet) -> BTreeSet<String> {
    let mut known: BTreeSet<String> = crate::capture::vocabulary().iter().map(|point| point.name.clone()).collect();
    for run in set.runs() {
        known.extend(run.view().plan.sites.iter().map(|site| site.point.clone()));
    }
    known
}

fn compared(expression: &Expr, asked: &mut BTreeSet<String>) {
    match expression {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq | Operator::NotEq, right }) => {
            if is_point(left) {
                asked.extend(text(right));
            } else if is_point(right) {
                asked.extend(text(left));
            }
        }
        Expr::InList(list) if is_point(&list.expr) => asked.extend(list.list.iter().filter_map(text)),
        _ => {}
    }
}

fn is_point(expression: &Expr) -> bool {
    match expression {
        Expr::Column(column) => column.name == "point",
        Expr::Cast(cast) => is_point(&cast.expr),
        _ => false,
    }
}

fn text(expression: &Expr) -> Option<String> {
    match expression {
        Expr::Literal(ScalarValue::Dictionary(_, value), _) => value.try_as_str().flatten().map(str::to_owned),
        Expr::Literal(value, _) => value.try_as_str().flatten().map(str::to_owned),
        Expr::Cast(cast) => text(&cast.expr),
        _ => None,
    }
}
