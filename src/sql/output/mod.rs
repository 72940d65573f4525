//! Answers as text for people (table, markdown) and for programs (csv, json, ndjson, arrow, parquet).
//!
//! In json, ndjson and csv, NaN and infinities are the strings `NaN`, `Infinity`, `-Infinity`; null means that there is
//! no value.

mod binary;
mod cell;
mod csv;
mod json;
mod text;

pub use cell::{Detail, cell};
pub use json::objects;

use super::Answer;
use crate::error::{Error, ErrorKind, Result};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use std::io::Write;

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Aligned columns.
    #[default]
    Table,
    /// Comma-separated values, a header line first.
    Csv,
    /// One array of objects.
    Json,
    /// An object a line.
    Ndjson,
    /// A markdown table.
    Markdown,
    /// Arrow's IPC stream.
    Arrow,
    /// A Parquet file.
    Parquet,
}

impl Format {
    /// Every format.
    pub const ALL: [Format; 7] =
        [Format::Table, Format::Csv, Format::Json, Format::Ndjson, Format::Markdown, Format::Arrow, Format::Parquet];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Format::Table => "table",
            Format::Csv => "csv",
            Format::Json => "json",
            Format::Ndjson => "ndjson",
            Format::Markdown => "markdown",
            Format::Arrow => "arrow",
            Format::Parquet => "parquet",
        }
    }

    /// Whether terminals cannot show it.
    pub fn is_binary(self) -> bool {
        matches!(self, Format::Arrow | Format::Parquet)
    }
}

/// One format at work: batches go in, bytes come out.
trait Sink {
    /// Writes a batch.
    fn write(&mut self, batch: &RecordBatch) -> Result<()>;
    /// Writes whatever ends the output.
    fn finish(self: Box<Self>) -> Result<()>;
}

/// Writes `answer` as `format` to `out`, batch by batch, and gives the number of rows.
///
/// # Errors
///
/// Whatever the query says while it runs; `Environment` where `out` does not take the bytes.
pub async fn write(mut answer: Answer, format: Format, out: Box<dyn Write + Send>) -> Result<u64> {
    let mut sink = sink(format, answer.schema(), out)?;
    let mut rows = 0;
    while let Some(batch) = answer.next().await? {
        rows += batch.num_rows() as u64;
        sink.write(&batch)?;
    }
    sink.finish()?;
    Ok(rows)
}

fn sink(format: Format, schema: SchemaRef, out: Box<dyn Write + Send>) -> Result<Box<dyn Sink>> {
    Ok(match format {
        Format::Table => Box::new(text::Text::new(schema, out, text::Style::Aligned)),
        Format::Markdown => Box::new(text::Text::new(schema, out, text::Style::Markdown)),
        Format::Csv => Box::new(csv::Csv::new(&schema, out)?),
        Format::Json => Box::new(json::array(out)),
        Format::Ndjson => Box::new(json::lines(out)),
        Format::Arrow => Box::new(binary::ipc(&schema, out)?),
        Format::Parquet => Box::new(binary::parquet(schema, out)?),
    })
}

/// An output that does not take what is written.
fn refused(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(ErrorKind::Environment, "cannot write the answer").because(cause)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{
        ArrayRef, DictionaryArray, Float32Builder, Float64Array, Int32Array, ListBuilder, StringArray, UInt64Array,
    };
    use arrow::datatypes::Int32Type;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn batch() -> RecordBatch {
        let mut data = ListBuilder::new(Float32Builder::new());
        data.append_value([Some(1.5), Some(f32::NAN)]);
        data.append_null();
        data.append_value([Some(f32::NEG_INFINITY)]);
        RecordBatch::try_from_iter([
            (
                "point",
                Arc::new(DictionaryArray::<Int32Type>::from_iter(["ffn_act", "a|b,\"c\"", "es\u{1b}[2Jc"])) as ArrayRef,
            ),
            ("note", Arc::new(StringArray::from(vec![Some("two\nlines"), None, Some("")]))),
            ("layer", Arc::new(Int32Array::from(vec![Some(3), None, Some(-1)]))),
            ("std", Arc::new(Float64Array::from(vec![1.0 / 3.0, f64::NAN, f64::INFINITY]))),
            ("fingerprint", Arc::new(UInt64Array::from(vec![u64::MAX, 0, 1]))),
            ("data", Arc::new(data.finish())),
        ])
        .unwrap()
    }

    fn bytes(format: Format, batches: &[RecordBatch]) -> Vec<u8> {
        let out = Shared::default();
        let mut sink = sink(format, batch().schema(), Box::new(out.clone())).unwrap();
        for batch in batches {
            sink.write(batch).unwrap();
        }
        sink.finish().unwrap();
        let bytes = out.0.lock().unwrap();
        bytes.clone()
    }

    fn text(format: Format) -> String {
        String::from_utf8(bytes(format, &[batch()])).unwrap()
    }

    #[test]
    fn table_aligns_columns_and_strips_control_bytes() {
        insta::assert_snapshot!(text(Format::Table));
    }

    #[test]
    fn markdown_escapes_its_bars() {
        insta::assert_snapshot!(text(Format::Markdown));
    }

    #[test]
    fn csv_quotes_and_names_what_is_not_finite() {
        insta::assert_snapshot!(text(Format::Csv));
    }

    #[test]
    fn json_is_one_array_and_names_what_is_not_finite() {
        let value: serde_json::Value = serde_json::from_str(&text(Format::Json)).unwrap();
        assert_eq!(value[0]["std"], serde_json::json!(1.0 / 3.0));
        assert_eq!(value[1]["std"], "NaN");
        assert_eq!(value[2]["std"], "Infinity");
        assert_eq!(value[0]["data"], serde_json::json!([1.5, "NaN"]));
        assert_eq!(value[1]["data"], serde_json::Value::Null);
        assert_eq!(value[2]["data"], serde_json::json!(["-Infinity"]));
        assert_eq!(value[1]["note"], serde_json::Value::Null);
        assert_eq!(value[0]["fingerprint"], u64::MAX);
        assert!(value[1].as_object().unwrap().contains_key("layer"), "null is said, not left out");
    }

    #[test]
    fn ndjson_is_an_object_a_line() {
        let text = text(Format::Ndjson);
        assert_eq!(text.lines().count(), 3);
        assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).unwrap().is_object()));
    }

    #[test]
    fn no_rows_are_still_a_whole_answer() {
        assert_eq!(bytes(Format::Json, &[]), b"[]\n");
        assert_eq!(bytes(Format::Csv, &[]), b"point,note,layer,std,fingerprint,data\n");
        assert_eq!(bytes(Format::Ndjson, &[]), b"");
        assert!(String::from_utf8(bytes(Format::Table, &[])).unwrap().starts_with("point"));
    }

    #[test]
    fn arrow_and_parquet_give_back_the_same_batch() {
        let stream = bytes(Format::Arrow, &[batch()]);
        let mut reader = arrow::ipc::reader::StreamReader::try_new(stream.as_slice(), None).unwrap();
        assert_eq!(format!("{:?}", reader.next().unwrap().unwrap()), format!("{:?}", batch()));
        let file = bytes::Bytes::from(bytes(Format::Parquet, &[batch()]));
        let mut reader = parquet::arrow::arrow_reader::ParquetRecordBatchReader::try_new(file, 10).unwrap();
        assert_eq!(format!("{:?}", reader.next().unwrap().unwrap()), format!("{:?}", batch()));
    }
}
