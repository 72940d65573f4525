//! `events`: the log itself, frame by frame. Every other table is a fold over it.

use super::{Rows, Table, Unit, column, unknown_column};
use crate::error::Result;
use crate::open::{FrameEntry, TraceSet};
use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use std::collections::HashMap;
use std::sync::Arc;

/// The table.
#[derive(Debug)]
pub struct Events;

impl Table for Events {
    fn name(&self) -> &'static str {
        "events"
    }

    fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(vec![
            column::repeated("file"),
            column::field("seq", DataType::Int64),
            column::repeated("kind"),
            column::field("version", DataType::Int64),
            column::field("offset", DataType::Int64),
            column::field("stored_bytes", DataType::Int64),
            column::field("raw_bytes", DataType::Int64),
            column::repeated("run"),
            column::field("step", DataType::Int64),
        ]))
    }

    fn units(&self, set: &TraceSet) -> Result<Vec<Unit>> {
        Ok(set
            .traces()
            .iter()
            .map(|trace| Unit {
                trace: Arc::clone(trace),
                run: None,
                frames: Vec::new(),
                commit: None,
                rows: 1,
                steps: None,
                sites: None,
                positions: None,
            })
            .collect())
    }

    fn open(&self, unit: &Unit) -> Result<Box<dyn Rows>> {
        let ids = unit.trace.runs().iter().map(|run| (run.ordinal, run.id())).collect();
        let file = unit.trace.path().to_string_lossy().into_owned();
        Ok(Box::new(EventRows { file, frames: unit.trace.frames()?, ids }))
    }
}

struct EventRows {
    file: String,
    frames: Vec<FrameEntry>,
    ids: HashMap<u32, String>,
}

impl Rows for EventRows {
    fn len(&self) -> usize {
        self.frames.len()
    }

    fn column(&self, name: &str) -> Result<ArrayRef> {
        let frames = self.frames.iter();
        Ok(match name {
            "file" => column::constant_text(&self.file, self.len())?,
            "seq" => column::long_integers(frames.map(|frame| frame.seq)),
            "kind" => column::few_texts(frames.map(|frame| Some(frame.kind.name()))),
            "version" => column::integers(frames.map(|frame| u32::from(frame.version))),
            "offset" => column::long_integers(frames.map(|frame| frame.offset)),
            "stored_bytes" => column::integers(frames.map(|frame| frame.stored_length)),
            "raw_bytes" => column::integers(frames.map(|frame| frame.raw_length)),
            "run" => {
                column::few_texts(frames.map(|frame| frame.run.and_then(|run| self.ids.get(&run)).map(String::as_str)))
            }
            "step" => column::integers(frames.map(|frame| frame.step)),
            _ => return Err(unknown_column("events", name)),
        })
    }
}
