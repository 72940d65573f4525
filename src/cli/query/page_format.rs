//! Formats of answers that are a page for people, an object for programs and a check for CI systems, beside rows.

use crate::sql::output::Format;
use clap::builder::PossibleValue;

/// How a judgement is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PageFormat {
    /// A page, under the name of tables.
    #[default]
    Page,
    /// An object.
    Json,
    /// JUnit XML.
    Junit,
    /// Rows alone.
    Rows(Format),
}

impl PageFormat {
    /// The format of rows that goes with it: a page is text, and needs nothing of a terminal that a table does not.
    pub fn of_rows(self) -> Format {
        match self {
            PageFormat::Rows(format) => format,
            PageFormat::Page | PageFormat::Json | PageFormat::Junit => Format::Table,
        }
    }

    fn name(self) -> &'static str {
        match self {
            PageFormat::Page => Format::Table.name(),
            PageFormat::Json => Format::Json.name(),
            PageFormat::Junit => "junit",
            PageFormat::Rows(format) => format.name(),
        }
    }
}

impl clap::ValueEnum for PageFormat {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: [PageFormat; 8] = [
            PageFormat::Page,
            PageFormat::Json,
            PageFormat::Junit,
            PageFormat::Rows(Format::Csv),
            PageFormat::Rows(Format::Ndjson),
            PageFormat::Rows(Format::Markdown),
            PageFormat::Rows(Format::Arrow),
            PageFormat::Rows(Format::Parquet),
        ];
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()))
    }
}
