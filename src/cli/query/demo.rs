//! `actrace-query demo`: the whole road on the model that the repository ships.

use super::compare::plain;
use crate::cli::Recorder;
use crate::cli::print;
use crate::error::{Error, ErrorKind, Result};
use crate::open::TraceSet;
use clap::Parser;
use std::path::{Path, PathBuf};

/// Record the shipped model in two formats and compare the runs
#[derive(Debug, clap::Args)]
pub struct Demo {
    /// Folder of the shipped model
    #[arg(long, value_name = "FOLDER", default_value = "models/tiny-qwen2")]
    model: PathBuf,
    /// Keep the trace here instead of a temporary file
    #[arg(long, value_name = "FILE.actrace")]
    out: Option<PathBuf>,
}

const PROMPT: &str = "The ownership rules of Rust let the compiler";

impl Demo {
    /// Runs the command.
    pub fn answer(&self) -> Result<u8> {
        if !self.model.join("config.json").exists() {
            return Err(Error::new(
                ErrorKind::Environment,
                "the shipped model is not here: run the demo from the repository's top folder, or name it with --model",
            )
            .in_file(&self.model));
        }
        let out = self.out.clone().unwrap_or_else(temporary);
        let shown = self.record_and_compare(&out);
        if self.out.is_none() {
            // A demo that worked is not spoiled by a temporary file that stays.
            let _ = std::fs::remove_file(&out);
        }
        shown
    }

    fn record_and_compare(&self, out: &Path) -> Result<u8> {
        let gguf = self.model.join("tiny-qwen2.q4_k_m.gguf");
        record(&self.model, &self.model, "safetensors", out)?;
        record(&gguf, &self.model, "gguf", out)?;
        print("$ actrace-query compare demo.actrace --reference safetensors --target gguf\n")?;
        let set = TraceSet::open(&[out.to_path_buf()])?;
        // What the two formats differ in is what the demo shows, not a failure of it.
        plain(&set, &set.resolve("safetensors")?, &set.resolve("gguf")?)?;
        Ok(0)
    }
}

fn record(model: &Path, folder: &Path, label: &str, out: &Path) -> Result<()> {
    let model = model.display().to_string();
    let tokenizer = folder.join("tokenizer.json").display().to_string();
    let out_text = out.display().to_string();
    print(&format!(
        "$ actrace record --model {model} --tokenizer {tokenizer} --prompt \"{PROMPT}\" --generate 8 --label {label} \
         --out demo.actrace\n"
    ))?;
    let line = [
        "actrace",
        "record",
        "--model",
        &model,
        "--tokenizer",
        &tokenizer,
        "--prompt",
        PROMPT,
        "--generate",
        "8",
        "--label",
        label,
        "--out",
        &out_text,
    ];
    let recorder = Recorder::try_parse_from(line)
        .map_err(|cause| Error::internal("the demo's own command line is wrong").because(cause.to_string()))?;
    recorder.run().map(|_| ())
}

fn temporary() -> PathBuf {
    std::env::temp_dir().join(format!("actrace-demo-{}.actrace", std::process::id()))
}
