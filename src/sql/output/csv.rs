//! Comma-separated values (RFC 4180, lines end in LF).

use super::cell::{Detail, cell};
use super::{Sink, refused};
use crate::error::Result;
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema};
use std::io::Write;

/// A CSV file.
pub struct Csv {
    out: Box<dyn Write + Send>,
}

impl Csv {
    /// Writes the header line.
    pub fn new(schema: &Schema, out: Box<dyn Write + Send>) -> Result<Self> {
        let mut csv = Csv { out };
        let names = schema.fields().iter().map(|field| quoted(Some(field.name().clone())));
        let line = names.collect::<Vec<_>>().join(",");
        writeln!(csv.out, "{line}").map_err(refused)?;
        Ok(csv)
    }
}

/// Nothing stands for NULL, a pair of quotes for empty text.
fn quoted(text: Option<String>) -> String {
    match text {
        None => String::new(),
        Some(text) if text.is_empty() || text.contains([',', '"', '\n', '\r']) => {
            format!("\"{}\"", text.replace('"', "\"\""))
        }
        Some(text) => text,
    }
}

impl Sink for Csv {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        for row in 0..batch.num_rows() {
            let mut cells = Vec::with_capacity(batch.num_columns());
            for column in batch.columns() {
                let null = *column.data_type() == DataType::Null;
                cells.push(quoted(if null { None } else { cell(column, row, Detail::Exact)? }));
            }
            writeln!(self.out, "{}", cells.join(",")).map_err(refused)?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.out.flush().map_err(refused)
    }
}
