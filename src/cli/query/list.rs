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
        print(&named::all()?.iter().map(describe).collect::<Vec<_>>().join("\n"))?;
        Ok(0)
    }
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
        let text: Vec<String> = named::all().unwrap().iter().map(describe).collect();
        insta::assert_snapshot!(text.join("\n"));
    }
}
