//! `runs`: one row for each run, with everything of its identity that may explain a difference.

use super::{Rows, RunColumns, Table, Unit, column, unknown_column};
use crate::error::{Error, Result};
use crate::open::{TraceSet, hex};
use crate::record::{EndV1, PairV1, RunV1};
use arrow::array::{ArrayRef, BooleanArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Schema, SchemaRef, TimeUnit};
use std::sync::Arc;

/// Time zone of times: they are stored as microseconds since 1970-01-01 UTC.
const UTC: &str = "+00:00";

/// The table.
#[derive(Debug)]
pub struct Runs {
    runs: Vec<Arc<RunColumns>>,
}

impl Runs {
    pub(super) fn new(runs: Vec<Arc<RunColumns>>) -> Self {
        Runs { runs }
    }
}

const TEXTS_FIRST: [&str; 11] = [
    "run",
    "label",
    "kind",
    "model",
    "model_hash",
    "architecture",
    "format",
    "weight_type",
    "device",
    "semantics",
    "prompt",
];
const TEXTS_LATER: [&str; 14] = [
    "error",
    "cpu",
    "instruction_set",
    "device_name",
    "driver",
    "cuda",
    "kernel_path",
    "compute_type",
    "kv_type",
    "attention",
    "engine",
    "engine_version",
    "tokenizer_hash",
    "vocabulary_hash",
];
const LISTS: [&str; 7] = ["argv", "parents", "model_files", "hyper_parameters", "fused", "selection", "extra"];
const INTEGERS: [&str; 7] = ["pid", "threads", "generate", "steps", "rows", "payloads", "tensor_bytes"];

impl Table for Runs {
    fn name(&self) -> &'static str {
        "runs"
    }

    fn schema(&self) -> SchemaRef {
        let text = |name| column::field(name, DataType::Utf8);
        let time = |name| column::field(name, DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())));
        let mut fields = TEXTS_FIRST.map(text).to_vec();
        fields.extend([column::list("tokens", DataType::Int64), time("started"), time("finished")]);
        fields.extend(["status", "tool_version", "host", "file"].map(text));
        fields.extend(TEXTS_LATER.map(text));
        fields.extend(["content_root", "untraced"].map(text));
        fields.push(column::field("prompt_redacted", DataType::Boolean));
        fields.extend(INTEGERS.map(|name| column::field(name, DataType::Int64)));
        fields.extend(LISTS.map(|name| column::list(name, DataType::Utf8)));
        Arc::new(Schema::new(fields))
    }

    fn units(&self, _set: &TraceSet) -> Result<Vec<Unit>> {
        Ok(self.runs.iter().map(|run| Unit::of_run(run, 1)).collect())
    }

    fn open(&self, unit: &Unit) -> Result<Box<dyn Rows>> {
        let run = unit.run.clone().ok_or_else(|| Error::internal("a row of runs without its run"))?;
        Ok(Box::new(RunRow { run }))
    }
}

struct RunRow {
    run: Arc<RunColumns>,
}

impl RunRow {
    fn text(&self, name: &str) -> Result<Option<String>> {
        let view = self.run.view();
        let identity: &RunV1 = &view.identity;
        let text = match name {
            "run" => self.run.id().to_owned(),
            "label" => identity.label.clone(),
            "kind" => identity.kind.clone(),
            "model" => identity.model_path.clone(),
            "model_hash" => hash(&identity.model_hash),
            "architecture" => identity.architecture.clone(),
            "format" => identity.model_format.clone(),
            "weight_type" => identity.weight_type.clone(),
            "device" => identity.device_kind.clone(),
            "semantics" => identity.semantics.clone(),
            "prompt" => identity.prompt.clone(),
            "tool_version" => identity.tool_version.clone(),
            "host" => identity.host.clone(),
            "file" => self.run.reference().trace().path().to_string_lossy().into_owned(),
            "status" => view.end.as_ref().map_or("incomplete", status).to_owned(),
            "error" => view.end.as_ref().map(|end| end.error.clone()).unwrap_or_default(),
            "content_root" => view.end.as_ref().map(|end| hash(&end.content_root)).unwrap_or_default(),
            "untraced" => view.end.as_ref().map_or("not_compared", untraced).to_owned(),
            "cpu" => identity.cpu.clone(),
            "instruction_set" => identity.instruction_set.clone(),
            "device_name" => identity.device_name.clone(),
            "driver" => identity.driver.clone(),
            "cuda" => identity.cuda.clone(),
            "kernel_path" => identity.kernel_path.clone(),
            "compute_type" => identity.compute_type.clone(),
            "kv_type" => identity.kv_type.clone(),
            "attention" => identity.attention.clone(),
            "engine" => identity.engine.clone(),
            "engine_version" => identity.engine_version.clone(),
            "tokenizer_hash" => hash(&identity.tokenizer_hash),
            "vocabulary_hash" => hash(&identity.vocabulary_hash),
            _ => return Ok(None),
        };
        Ok(Some(text))
    }

    fn integer(&self, name: &str) -> Result<Option<Option<u64>>> {
        let view = self.run.view();
        let end = view.end.as_ref();
        Ok(Some(match name {
            "pid" => Some(u64::from(view.identity.pid)),
            "threads" => Some(u64::from(view.identity.threads)),
            "generate" => Some(u64::from(view.identity.generate)),
            "steps" => Some(view.steps.len() as u64),
            "rows" => Some(view.steps.iter().flat_map(|step| &step.stats).map(|frame| u64::from(frame.rows)).sum()),
            "payloads" => end.map(|end| end.payloads),
            "tensor_bytes" => end.map(|end| end.tensor_bytes),
            _ => return Ok(None),
        }))
    }

    fn list(&self, name: &str) -> Result<Option<Vec<String>>> {
        let identity = &self.run.view().identity;
        Ok(Some(match name {
            "argv" => identity.argv.clone(),
            "fused" => identity.fused.clone(),
            "parents" => {
                identity.parents.iter().map(|parent| format!("{} {}", parent.role, hex(&parent.run_id))).collect()
            }
            "model_files" => {
                let files = identity.model_files.iter();
                files.map(|file| format!("{} {} {}", file.name, file.size, hex(&file.blake3))).collect()
            }
            "hyper_parameters" => pairs(&identity.hyper_parameters),
            "selection" => pairs(&identity.selection),
            "extra" => pairs(&identity.extra),
            _ => return Ok(None),
        }))
    }
}

impl Rows for RunRow {
    fn len(&self) -> usize {
        1
    }

    fn column(&self, name: &str) -> Result<ArrayRef> {
        if let Some(text) = self.text(name)? {
            return Ok(column::text([Some(text).filter(|text| !text.is_empty())]));
        }
        if let Some(integer) = self.integer(name)? {
            return Ok(column::long_integers([integer.unwrap_or(u64::MAX)]));
        }
        if let Some(list) = self.list(name)? {
            return Ok(column::text_lists([list.iter().map(String::as_str)]));
        }
        let view = self.run.view();
        Ok(match name {
            "tokens" => column::integer_lists([view.identity.prompt_tokens.iter().copied()]),
            "started" => time(Some(view.identity.started_us)),
            "finished" => time(view.end.as_ref().map(|end| end.finished_us)),
            "prompt_redacted" => Arc::new(BooleanArray::from(vec![view.identity.prompt_redacted])),
            _ => return Err(unknown_column("runs", name)),
        })
    }
}

fn time(microseconds: Option<i64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from(vec![microseconds]).with_timezone(UTC))
}

/// A hash as text; empty where it is all zeros, which stands for "there was none".
fn hash(bytes: &[u8]) -> String {
    if bytes.iter().all(|byte| *byte == 0) { String::new() } else { hex(bytes) }
}

fn pairs(pairs: &[PairV1]) -> Vec<String> {
    let show = |pair: &PairV1| match pair.source.as_str() {
        "" => format!("{}={}", pair.key, pair.value),
        source => format!("{}={} ({source})", pair.key, pair.value),
    };
    pairs.iter().map(show).collect()
}

fn status(end: &EndV1) -> &'static str {
    match end.status {
        0 => "finished",
        1 => "interrupted",
        2 => "failed",
        _ => "unknown",
    }
}

fn untraced(end: &EndV1) -> &'static str {
    match end.untraced {
        0 => "not_compared",
        1 => "equal",
        2 => "different",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_of_the_schema_is_one_that_a_row_can_give() {
        let fields = Runs::new(Vec::new()).schema();
        let mut names: Vec<_> = fields.fields().iter().map(|field| field.name()).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), fields.fields().len());
    }

    #[test]
    fn a_hash_of_zeros_stands_for_none() {
        assert_eq!(hash(&[0; 32]), "");
        assert_eq!(hash(&[1, 0]), "0100");
    }
}
