//! DataFusion's errors as this crate's: one line, with the nearest known name.

use crate::error::{Error, ErrorKind, nearest};
use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;

/// Wraps an error of this crate for its way through DataFusion.
pub fn external(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// Unwraps what DataFusion says; `tables` are the names that SQL may use.
pub fn from_datafusion(error: DataFusionError, tables: &[String]) -> Error {
    match error {
        DataFusionError::External(inner) => match inner.downcast::<Error>() {
            Ok(ours) => *ours,
            Err(other) => Error::internal(one_line(&other.to_string())),
        },
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => from_datafusion(*inner, tables),
        DataFusionError::Collection(errors) => match errors.into_iter().next() {
            Some(first) => from_datafusion(first, tables),
            None => Error::internal("a query failed without an error"),
        },
        DataFusionError::ArrowError(inner, _) => from_arrow(*inner, tables),
        other => described(&other, tables),
    }
}

/// Arrow carries errors of streams that it reads from.
fn from_arrow(error: arrow::error::ArrowError, tables: &[String]) -> Error {
    match error {
        arrow::error::ArrowError::ExternalError(inner) => match inner.downcast::<DataFusionError>() {
            Ok(inner) => from_datafusion(*inner, tables),
            Err(other) => Error::usage(one_line(&other.to_string())),
        },
        other => Error::usage(one_line(&other.to_string())),
    }
}

/// An error that can only be looked at: DataFusion shares some between partitions.
fn described(error: &DataFusionError, tables: &[String]) -> Error {
    let root = error.find_root();
    match root {
        DataFusionError::External(inner) => match inner.downcast_ref::<Error>() {
            Some(ours) => Error::new(ours.kind(), ours.to_string()),
            None => Error::internal(one_line(&inner.to_string())),
        },
        DataFusionError::SchemaError(schema, _) => Error::usage(schema_text(schema)),
        DataFusionError::Plan(text) => Error::usage(plan_text(text, tables)),
        DataFusionError::SQL(parser, _) => Error::usage(format!("SQL: {}", parser_text(parser))),
        DataFusionError::ResourcesExhausted(text) => Error::new(
            ErrorKind::Environment,
            format!("the query needs more memory than --memory allows: {}", one_line(text)),
        ),
        DataFusionError::IoError(cause) => Error::new(ErrorKind::Environment, cause.to_string()),
        DataFusionError::NotImplemented(text) => Error::unsupported(one_line(text)),
        DataFusionError::Internal(text) => Error::internal(one_line(text)),
        DataFusionError::ExecutionJoin(cause) => Error::internal(one_line(&cause.to_string())),
        other => Error::usage(one_line(&other.strip_backtrace())),
    }
}

fn schema_text(error: &SchemaError) -> String {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let known = valid_fields.iter().map(|column| column.name.as_str());
            let mut columns: Vec<&str> = known.clone().collect();
            columns.dedup();
            let hint = match nearest(&field.name, known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the columns are {}", columns.join(", ")),
            };
            format!("unknown column `{}`; {hint}", field.flat_name())
        }
        other => one_line(&other.to_string()),
    }
}

fn plan_text(text: &str, tables: &[String]) -> String {
    let missing = text.strip_prefix("table '").and_then(|rest| rest.strip_suffix("' not found"));
    if let Some(missing) = missing {
        let name = missing.rsplit('.').next().unwrap_or(missing);
        return unknown_name("table", name, tables.iter().map(String::as_str));
    }
    one_line(text)
}

fn parser_text(error: &datafusion::logical_expr::sqlparser::parser::ParserError) -> String {
    one_line(error.to_string().trim_start_matches("sql parser error: "))
}

/// "unknown WHAT `name`", with the nearest of `known`, or all of them.
pub fn unknown_name<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    match nearest(name, known.clone()) {
        Some(near) => format!("unknown {what} `{name}`; did you mean `{near}`?"),
        None => format!("unknown {what} `{name}`; known: {}", known.collect::<Vec<_>>().join(", ")),
    }
}

/// Text of several lines in one.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::common::Column;
    use std::sync::Arc;

    fn tables() -> Vec<String> {
        ["runs", "activations"].map(str::to_owned).to_vec()
    }

    #[test]
    fn an_unknown_table_suggests_the_near_one() {
        let error = DataFusionError::Plan("table 'datafusion.public.activation' not found".into());
        let error = from_datafusion(error, &tables());
        assert_eq!(error.to_string(), "unknown table `activation`; did you mean `activations`?");
        assert_eq!(error.kind(), ErrorKind::Usage);
    }

    #[test]
    fn an_unknown_column_suggests_the_near_one() {
        let schema = SchemaError::FieldNotFound {
            field: Box::new(Column::new_unqualified("absmaxx")),
            valid_fields: vec![Column::new_unqualified("absmax"), Column::new_unqualified("mean")],
        };
        let error = from_datafusion(DataFusionError::SchemaError(Box::new(schema), Box::new(None)), &tables());
        assert_eq!(error.to_string(), "unknown column `absmaxx`; did you mean `absmax`?");
    }

    #[test]
    fn our_own_errors_keep_their_kind_even_when_shared() {
        let damaged = || external(Error::damaged("a frame changed"));
        assert_eq!(from_datafusion(damaged(), &[]).kind(), ErrorKind::Damaged);
        let shared = DataFusionError::Shared(Arc::new(damaged().context("while scanning")));
        assert_eq!(from_datafusion(shared, &[]).kind(), ErrorKind::Damaged);
    }
}
