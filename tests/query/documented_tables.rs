//! schema/tables.md says what the code has: every table, every column, in order, with its type.

use actrace::open::TraceSet;
use actrace::tables::{self, Compare, CompareWeights};
use arrow::datatypes::{DataType, SchemaRef};

/// The page's word for a type.
fn word(kind: &DataType) -> String {
    match kind {
        DataType::Utf8 | DataType::Dictionary(..) => "text".to_owned(),
        DataType::Int32 | DataType::Int64 => "integer".to_owned(),
        DataType::UInt64 => "unsigned".to_owned(),
        DataType::Float32 | DataType::Float64 => "float".to_owned(),
        DataType::Boolean => "boolean".to_owned(),
        DataType::Timestamp(..) => "timestamp".to_owned(),
        DataType::List(item) => format!("list of {}", word(item.data_type())),
        other => format!("{other}"),
    }
}

fn documented(page: &str, table: &str) -> Vec<(String, String)> {
    let section = page.split("\n## ").find(|section| section.lines().next() == Some(table));
    let section = section.unwrap_or_else(|| panic!("schema/tables.md has no section `{table}`"));
    let rows = section.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| column"));
    rows.map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        assert!(!cells[3].is_empty(), "{table}.{} is not explained", cells[1]);
        (cells[1].to_owned(), cells[2].to_owned())
    })
    .collect()
}

#[test]
fn every_column_is_explained() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/schema/tables.md")).unwrap();
    let set = TraceSet::default();
    let mut schemas: Vec<(&str, SchemaRef)> =
        tables::all(&set).unwrap().iter().map(|table| (table.name(), table.schema())).collect();
    schemas.push(("compare", Compare::columns()));
    schemas.push(("compare_weights", CompareWeights::columns()));
    for (table, schema) in &schemas {
        let columns: Vec<_> = schema.fields().iter().map(|f| (f.name().clone(), word(f.data_type()))).collect();
        assert_eq!(documented(&page, table), columns, "table {table}");
    }
    assert_eq!(page.matches("\n## ").count(), schemas.len(), "a section for each table and no other");
}
