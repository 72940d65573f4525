//! `actrace-query list`: the named queries.

use super::folders::Folders;
use crate::cli::{json, print, printable};
use crate::error::Result;
use crate::sql::named::{Parameter, Query};
use std::fmt::Write;

/// List the named queries
#[derive(Debug, clap::Args)]
#[command(before_help = "Example:\n  actrace-query list\n  actrace-query list --queries mine --json")]
pub struct List {
    #[command(flatten)]
    folders: Folders,
    /// As JSON, for programs
    #[arg(long)]
    json: bool,
}

impl List {
    /// Runs the command.
    pub fn answer(&self) -> Result<u8> {
        let queries = self.folders.catalogue()?.all()?;
        print(&if self.json { json(&queries.iter().map(query_json).collect::<Vec<_>>())? } else { listing(&queries) })?;
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
    let text = parts.collect::<Vec<_>>().join("\n");
    text.lines().map(|line| printable(line) + "\n").collect()
}

fn describe(query: &Query) -> String {
    let mut text = format!("{}\n    {}\n", query.name, query.question);
    for Parameter { name, kind, default, description } in &query.parameters {
        let default = default.as_ref().map(|default| format!(" = {default}")).unwrap_or_default();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "    -p {name} ({}{default}): {description}", kind.name());
    }
    let _ = writeln!(text, "    columns: {}", query.columns);
    text
}

fn query_json(query: &Query) -> serde_json::Value {
    let parameter = |Parameter { name, kind, default, description }: &Parameter| serde_json::json!({ "name": name, "type": kind.name(), "default": default, "description": description });
    serde_json::json!({
        "name": query.name,
        "question": query.question,
        "parameters": query.parameters.iter().map(parameter).collect::<Vec<_>>(),
        "columns": query.columns,
        "empty": query.empty,
        "sql": query.sql,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::named::Catalogue;

    #[test]
    fn the_list_says_question_parameters_and_columns() {
        insta::assert_snapshot!(listing(&Catalogue::shipped().all().unwrap()));
    }

    #[test]
    fn the_same_in_json() {
        let query = Catalogue::shipped().find("weights").unwrap();
        let value = query_json(&query);
        assert_eq!((value["name"].as_str(), value["empty"].is_null()), (Some("weights"), true));
        assert_eq!((&value["question"], &value["columns"]), (&query.question.into(), &query.columns.into()));
        let show = &value["parameters"][2];
        assert_eq!((show["name"].as_str(), show["type"].as_str()), (Some("show"), Some("all|unequal")));
        assert_eq!((show["default"].as_str(), show["description"].as_str()), (Some("all"), Some("which weights")));
    }
}
