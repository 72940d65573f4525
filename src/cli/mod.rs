//! The command line: one file per verb. Results go to stdout, everything else to stderr.

mod convert;
mod destination;
mod device;
mod exit;
mod identity;
mod import;
mod info;
mod interrupt;
mod progress;
mod prompt;
#[cfg(feature = "query")]
pub mod query;
mod record;
mod recording;
mod recover;
mod replay;
mod space;
mod synth;
mod verify;
mod watched;
mod weights;

pub use exit::exit_code;

use crate::error::{Error, Result};
use clap::{Parser, Subcommand};
use std::io::Write;

/// Record what happens inside a model, and look after the files.
#[derive(Debug, Parser)]
#[command(
    name = "actrace",
    version,
    before_help = "Example:\n  actrace record --model models/tiny-qwen2 --prompt \"The ownership rules\" --out runs.actrace",
    after_help = "Exit status: 0 fine, 1 damage or failure, 2 usage or environment, 3 done with loss."
)]
pub struct Recorder {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run a model and append what happened to a trace file
    Record(Box<record::Record>),
    /// Record the weights of a model, without running it
    Weights(weights::Weights),
    /// Make a run of the tensors that another engine dumped
    Import(Box<import::Import>),
    /// Say what trace files hold
    Info(info::Info),
    /// Check every byte of trace files
    Verify(verify::Verify),
    /// Copy everything whole of a torn or damaged trace into a new, sealed file
    Recover(recover::Recover),
    /// Make every operation of a recorded run again, each from its own recorded inputs
    Replay(Box<replay::Replay>),
    /// Write a model as a GGUF file of another element type
    Convert(convert::Convert),
    /// Write a GGUF model of a known shape with random weights, for benchmarks
    Synth(synth::Synth),
}

impl Recorder {
    /// Runs the command; gives the exit status of a job that was done.
    pub fn run(&self) -> Result<u8> {
        match &self.verb {
            Verb::Record(record) => record.run(),
            Verb::Weights(weights) => weights.run(),
            Verb::Import(import) => import.run(),
            Verb::Info(info) => info.run(),
            Verb::Verify(verify) => verify.run(),
            Verb::Recover(recover) => recover.run(),
            Verb::Replay(replay) => replay.run(),
            Verb::Convert(convert) => convert.run(),
            Verb::Synth(synth) => synth.run(),
        }
    }
}

/// Writes a result to stdout. A reader that went away is no error: the rest is not wanted.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::new(crate::ErrorKind::Environment, "cannot write to stdout").because(error))
        }
        _ => Ok(()),
    }
}

/// Writes a line to stderr. Where that cannot be written either, there is nobody left to tell.
pub fn note(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", printable(line));
}

/// A value as indented JSON with a final line break.
pub(crate) fn json(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string_pretty(value)
        .map(|text| text + "\n")
        .map_err(|cause| Error::internal("cannot write JSON").because(cause))
}

/// Text whose control characters, which a terminal would obey, are written as escapes.
pub(crate) fn printable(text: &str) -> String {
    let visible = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(visible).collect()
}
