//! `actrace info`: what trace files hold.

use super::space::bytes_text;
use super::{json, print, printable};
use crate::error::Result;
use crate::open::{RunView, State, Trace, hex};
use crate::record::RunV1;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Say what trace files hold
#[derive(Debug, clap::Args)]
#[command(before_help = "Example:\n  actrace info runs.actrace")]
pub struct Info {
    /// Trace files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

/// Frames of one kind.
#[derive(Default, Clone, Copy)]
struct Tally {
    frames: u64,
    stored: u64,
    raw: u64,
}

impl Info {
    /// Runs the command.
    pub fn run(&self) -> Result<u8> {
        let traces = self.files.iter().map(|file| Trace::open(file)).collect::<Result<Vec<_>>>()?;
        if self.json {
            let files = traces.iter().map(|trace| file_json(trace)).collect::<Result<Vec<_>>>()?;
            print(&json(&json!({ "files": files }))?)?;
        } else {
            for trace in &traces {
                print(&file_text(trace)?)?;
            }
        }
        Ok(u8::from(traces.iter().any(|trace| trace.state() == State::Damaged)))
    }
}

fn tallies(trace: &Trace) -> Result<BTreeMap<&'static str, Tally>> {
    let mut tallies: BTreeMap<&'static str, Tally> = BTreeMap::new();
    for frame in trace.frames()? {
        let tally = tallies.entry(frame.kind.name()).or_default();
        tally.frames += 1;
        tally.stored += u64::from(frame.stored_length);
        tally.raw += u64::from(frame.raw_length);
    }
    Ok(tallies)
}

/// How a run ended, in one word.
fn run_status(run: &RunView) -> &'static str {
    match run.end.as_ref().map(|end| end.status) {
        Some(0) => "finished",
        Some(1) => "interrupted",
        Some(_) => "failed",
        None => "incomplete",
    }
}

/// What a run says of itself: `; qwen2 gguf q4_k, ggml, cpu`. An import does not know everything.
fn identity_text(run: &RunV1) -> String {
    let said = |parts: &[&str], between: &str| {
        let parts = parts.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>();
        printable(&parts.join(between))
    };
    let model = said(&[&run.architecture, &run.model_format, &run.weight_type], " ");
    let origin = if run.kind == "record" { String::new() } else { said(&[&run.kind, &run.engine], " of ") };
    let parts = [origin, said(&[&model, &run.semantics, &run.device_kind], ", ")];
    parts.iter().filter(|part| !part.is_empty()).map(|part| format!("; {part}")).collect()
}

fn file_text(trace: &Trace) -> Result<String> {
    let mut text = format!("{}: {}, {}\n", trace.path().display(), trace.state().name(), bytes_text(trace.end()));
    for (start, end) in trace.holes() {
        text += &format!("  bytes {start} to {end} hold no whole frame\n");
    }
    for run in trace.runs() {
        text += &format!(
            "  run {} ({}): {}, {} steps{}\n",
            printable(&run.identity.label),
            run.id(),
            run_status(run),
            run.steps.len(),
            identity_text(&run.identity),
        );
        if let Some(end) = &run.end {
            let weights =
                if run.weights.is_empty() { String::new() } else { format!("{} weights, ", run.weights.len()) };
            text += &format!("    {} rows, {weights}{} of values", end.rows, bytes_text(end.tensor_bytes));
            text += &if end.error.is_empty() { "\n".to_owned() } else { format!("; {}\n", printable(&end.error)) };
        }
        for loss in trace.losses(run)? {
            text += &format!("    lost {}, {} rows: {}\n", printable(&loss.what), loss.rows, printable(&loss.why));
        }
    }
    text += "  kind             frames      stored         raw\n";
    for (kind, tally) in tallies(trace)? {
        text += &format!(
            "  {kind:14} {:>8} {:>11} {:>11}\n",
            tally.frames,
            bytes_text(tally.stored),
            bytes_text(tally.raw)
        );
    }
    Ok(text)
}

fn file_json(trace: &Trace) -> Result<Value> {
    let runs = trace.runs().iter().map(|run| run_json(trace, run)).collect::<Result<Vec<_>>>()?;
    let frames: BTreeMap<&str, Value> = tallies(trace)?
        .into_iter()
        .map(|(kind, tally)| {
            (kind, json!({ "frames": tally.frames, "stored_bytes": tally.stored, "raw_bytes": tally.raw }))
        })
        .collect();
    Ok(json!({
        "file": trace.path().display().to_string(),
        "state": trace.state().name(),
        "uuid": hex(&trace.header().uuid),
        "bytes": trace.end(),
        "holes": trace.holes(),
        "runs": runs,
        "frames": frames,
    }))
}

fn run_json(trace: &Trace, run: &RunView) -> Result<Value> {
    let id = &run.identity;
    let losses = trace.losses(run)?;
    let losses: Vec<Value> =
        losses.iter().map(|loss| json!({ "what": loss.what, "rows": loss.rows, "why": loss.why })).collect();
    Ok(json!({
        "run": run.id(),
        "label": id.label,
        "kind": id.kind,
        "status": run_status(run),
        "steps": run.steps.len(),
        "weights": run.weights.len(),
        "architecture": id.architecture,
        "format": id.model_format,
        "weight_type": id.weight_type,
        "semantics": id.semantics,
        "device": id.device_kind,
        "model_hash": hex(&id.model_hash),
        "rows": run.end.as_ref().map(|end| end.rows),
        "tensor_bytes": run.end.as_ref().map(|end| end.tensor_bytes),
        "content_root": run.end.as_ref().map(|end| hex(&end.content_root)),
        "error": run.end.as_ref().map(|end| end.error.clone()),
        "losses": losses,
    }))
}
