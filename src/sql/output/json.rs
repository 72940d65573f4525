//! JSON: an array of objects, or an object a line.

use super::cell::nonfinite;
use super::{Sink, refused};
use crate::error::Result;
use arrow::array::{Array, AsArray, PrimitiveArray, RecordBatch};
use arrow::datatypes::{ArrowPrimitiveType, DataType, FieldRef, Float32Type, Float64Type};
use arrow::error::ArrowError;
use arrow::json::writer::{JsonArray, JsonFormat, LineDelimited, NullableEncoder, Writer, WriterBuilder};
use arrow::json::{Encoder, EncoderFactory, EncoderOptions};
use serde::Serialize;
use std::io::Write;
use std::sync::Arc;

/// A JSON text.
pub struct Json<F: JsonFormat> {
    writer: Writer<Box<dyn Write + Send>, F>,
    end: &'static [u8],
}

/// One array.
pub fn array(out: Box<dyn Write + Send>) -> Json<JsonArray> {
    Json { writer: builder().build(out), end: b"\n" }
}

/// An object a line.
pub fn lines(out: Box<dyn Write + Send>) -> Json<LineDelimited> {
    Json { writer: builder().build(out), end: b"" }
}

/// The rows of `batch` as objects.
///
/// # Errors
/// Environment, where a value has no JSON.
pub fn objects(batch: &RecordBatch) -> Result<Vec<serde_json::Value>> {
    let mut writer = builder().build::<_, JsonArray>(Vec::new());
    writer.write(batch).and_then(|()| writer.finish()).map_err(refused)?;
    serde_json::from_slice(&writer.into_inner()).map_err(refused)
}

fn builder() -> WriterBuilder {
    WriterBuilder::new().with_explicit_nulls(true).with_encoder_factory(Arc::new(Floats))
}

impl<F: JsonFormat> Sink for Json<F> {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.writer.write(batch).map_err(refused)
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.writer.finish().map_err(refused)?;
        let mut out = self.writer.into_inner();
        out.write_all(self.end).and_then(|()| out.flush()).map_err(refused)
    }
}

/// Floats, with names for what JSON has no number for.
#[derive(Debug)]
struct Floats;

impl EncoderFactory for Floats {
    fn make_default_encoder<'a>(
        &self,
        _field: &'a FieldRef,
        array: &'a dyn Array,
        _options: &'a EncoderOptions,
    ) -> std::result::Result<Option<NullableEncoder<'a>>, ArrowError> {
        let nulls = array.nulls().cloned();
        Ok(match array.data_type() {
            DataType::Float64 => {
                Some(NullableEncoder::new(Box::new(Float(array.as_primitive::<Float64Type>())), nulls))
            }
            DataType::Float32 => {
                Some(NullableEncoder::new(Box::new(Float(array.as_primitive::<Float32Type>())), nulls))
            }
            _ => None,
        })
    }
}

struct Float<'a, T: ArrowPrimitiveType>(&'a PrimitiveArray<T>);

impl<T: ArrowPrimitiveType<Native: Serialize + Into<f64>>> Encoder for Float<'_, T> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        let value = self.0.value(row);
        // Writing to a vector cannot fail.
        let _ = match nonfinite(value.into()) {
            Some(name) => serde_json::to_writer(out, name),
            None => serde_json::to_writer(out, &value),
        };
    }
}
