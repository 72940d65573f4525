//! Formats for other programs: Arrow's IPC stream, Parquet.

use super::{Sink, refused};
use crate::error::Result;
use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::ipc::writer::StreamWriter;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use std::io::Write;

/// An IPC stream.
pub struct Ipc(StreamWriter<Box<dyn Write + Send>>);

/// Begins an IPC stream.
pub fn ipc(schema: &Schema, out: Box<dyn Write + Send>) -> Result<Ipc> {
    Ok(Ipc(StreamWriter::try_new(out, schema).map_err(refused)?))
}

impl Sink for Ipc {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.0.write(batch).map_err(refused)
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.0.finish().map_err(refused)?;
        self.0.get_mut().flush().map_err(refused)
    }
}

/// A Parquet file.
pub struct Parquet(ArrowWriter<Box<dyn Write + Send>>);

/// Begins a Parquet file, compressed with zstd.
pub fn parquet(schema: SchemaRef, out: Box<dyn Write + Send>) -> Result<Parquet> {
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
    Ok(Parquet(ArrowWriter::try_new(out, schema, Some(properties)).map_err(refused)?))
}

impl Sink for Parquet {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.0.write(batch).map_err(refused)
    }

    fn finish(self: Box<Self>) -> Result<()> {
        let mut out = self.0.into_inner().map_err(refused)?;
        out.flush().map_err(refused)
    }
}
