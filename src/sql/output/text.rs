//! Tables for people.

use super::cell::{Detail, cell};
use super::{Sink, refused};
use crate::error::Result;
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use std::io::Write;

/// Rows that decide how wide columns are; later ones may stick out. So memory stays bounded for any answer.
const ROWS_FOR_WIDTHS: usize = 1000;

/// Which sort of table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Columns of equal width.
    Aligned,
    /// Bars around cells.
    Markdown,
}

/// A table as text.
pub struct Text {
    schema: SchemaRef,
    out: Box<dyn Write + Send>,
    style: Style,
    waiting: Vec<Vec<String>>,
    widths: Option<Vec<usize>>,
}

impl Text {
    /// A table with the columns `schema`.
    pub fn new(schema: SchemaRef, out: Box<dyn Write + Send>, style: Style) -> Self {
        Text { schema, out, style, waiting: Vec::new(), widths: None }
    }

    /// Fixes the widths, and writes the head and whatever waited for it.
    fn begin(&mut self) -> Result<Vec<usize>> {
        if let Some(widths) = &self.widths {
            return Ok(widths.clone());
        }
        let names: Vec<String> = self.schema.fields().iter().map(|field| self.escaped(field.name().clone())).collect();
        let mut widths: Vec<usize> = names.iter().map(|name| name.chars().count()).collect();
        for row in &self.waiting {
            for (width, text) in widths.iter_mut().zip(row) {
                *width = (*width).max(text.chars().count());
            }
        }
        self.line(&names, &widths)?;
        let rule: Vec<String> = widths.iter().enumerate().map(|(column, width)| self.rule(column, *width)).collect();
        self.line(&rule, &widths)?;
        for row in std::mem::take(&mut self.waiting) {
            self.line(&row, &widths)?;
        }
        self.widths = Some(widths.clone());
        Ok(widths)
    }

    fn rule(&self, column: usize, width: usize) -> String {
        match (self.style, self.is_right(column)) {
            (Style::Markdown, true) => format!("{}:", "-".repeat(width.saturating_sub(1).max(2))),
            (Style::Markdown, false) => "-".repeat(width.max(3)),
            (Style::Aligned, _) => "-".repeat(width),
        }
    }

    fn is_right(&self, column: usize) -> bool {
        self.schema.fields().get(column).is_some_and(|field| field.data_type().is_numeric())
    }

    fn escaped(&self, text: String) -> String {
        if self.style == Style::Markdown { text.replace('\\', "\\\\").replace('|', "\\|") } else { text }
    }

    fn line(&mut self, cells: &[String], widths: &[usize]) -> Result<()> {
        let mut padded = Vec::with_capacity(cells.len());
        for (column, (text, width)) in cells.iter().zip(widths).enumerate() {
            padded.push(if self.is_right(column) { format!("{text:>width$}") } else { format!("{text:<width$}") });
        }
        match self.style {
            Style::Aligned => writeln!(self.out, "{}", padded.join("  ").trim_end()),
            Style::Markdown => writeln!(self.out, "| {} |", padded.join(" | ")),
        }
        .map_err(refused)
    }
}

impl Sink for Text {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        for row in 0..batch.num_rows() {
            let mut cells = Vec::with_capacity(batch.num_columns());
            for column in batch.columns() {
                let null = if *column.data_type() == DataType::Null { None } else { cell(column, row, Detail::Short)? };
                cells.push(self.escaped(null.unwrap_or_default()));
            }
            match self.widths.clone() {
                Some(widths) => self.line(&cells, &widths)?,
                None => self.waiting.push(cells),
            }
            if self.waiting.len() >= ROWS_FOR_WIDTHS {
                self.begin()?;
            }
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.begin()?;
        self.out.flush().map_err(refused)
    }
}
