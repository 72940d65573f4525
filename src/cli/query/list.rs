//! `actrace-query list`: the named queries.

use crate::cli::print;
use crate::error::Result;
use crate::sql::named::{self, ParameterKind, Query};
use std::fmt::Write;

/// List the named queries
#[derive(Debug, clap::Args)]
#[command(before_help = "Example:\n  actrace-query list")]
pub struct List {}

impl List {
    /// Runs the command.
    pub fn answer(&self) -> Result<u8> {
        print(&listing(&named::all()?))?;
        Ok(0)
    }
}

/// What stands below the named queries.
const COMPARE: &str = "In `actrace-query sql`, two runs side by side are a table:
    SELECT * FROM compare('REFERENCE', 'TARGET')
    A run is a label or the first digits of its id.
";

fn listing(queries: &[Query]) -> String {
    let parts = queries.iter().map(describe).chain([COMPARE.to_owned()]);
    parts.collect::<Vec<_>>().join("\n")
}

fn describe(query: &Query) -> String {
    let mut text = format!("{}\n    {}\n", query.name, query.question);
    for parameter in &query.parameters {
        let kind = match &parameter.kind {
            ParameterKind::Run => "run".to_owned(),
            ParameterKind::Text => "text".to_owned(),
            ParameterKind::Number => "number".to_owned(),
            ParameterKind::OneOf(choices) => choices.join("|"),
        };
        let default = parameter.default.as_ref().map(|default| format!(" = {default}")).unwrap_or_default();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "    -p {} ({kind}{default}): {}", parameter.name, parameter.description);
    }
    let _ = writeln!(text, "    columns: {}", query.columns);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_says_question_parameters_and_columns() {
        insta::assert_snapshot!(listing(&named::all().unwrap()));
    }
}
