//! `actrace verify`: check every byte.

use super::space::bytes_text;
use super::{exit_code, json, note, print, printable};
use crate::error::{Error, ErrorKind, Result};
use crate::open::{Fault, Input, State, Verification, hex, verify};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Check every byte of trace files
#[derive(Debug, clap::Args)]
#[command(
    before_help = "Example:\n  actrace verify runs.actrace",
    after_help = "Exit status: 0 sealed and every frame right, 1 torn, damaged or of another root, 3 tail lost (bytes that were not \
synced yet), 2 no trace or not readable; of several files the worst: 1 before 2 before 3."
)]
pub struct Verify {
    /// Trace files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Root that the one file must have: a file that was cut at an earlier seal is whole, and has another
    #[arg(long, value_name = "HEX", value_parser = root)]
    root: Option<Root>,
    /// Print as JSON
    #[arg(long)]
    json: bool,
}

/// Root of a seal.
type Root = [u8; 32];

fn root(digits: &str) -> std::result::Result<Root, String> {
    let digits: Option<Vec<u8>> =
        digits.chars().map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let bytes: Option<Vec<u8>> = digits
        .filter(|digits| digits.len().is_multiple_of(2))
        .map(|digits| digits.as_chunks::<2>().0.iter().map(|[high, low]| high << 4 | low).collect());
    bytes
        .and_then(|bytes| Root::try_from(bytes).ok())
        .ok_or_else(|| "a root is 64 hexadecimal digits, as `actrace verify` prints it".to_owned())
}

impl Verify {
    /// Runs the command.
    pub fn run(&self) -> Result<u8> {
        if self.root.is_some() && self.files.len() > 1 {
            return Err(Error::usage("--root says what one file must be: give one file"));
        }
        let mut reports = Vec::new();
        let mut statuses = Vec::new();
        for file in &self.files {
            match verify_with_progress(file) {
                Ok(found) => {
                    statuses.push(if self.is_another(&found) { 1 } else { exit_status(found.state) });
                    if self.json { reports.push(report(file, &found)) } else { self.print(file, &found)? }
                }
                // Every other file is checked all the same.
                Err(error) => {
                    note(&format!("error: {error}"));
                    statuses.push(exit_code(&error));
                    reports.push(refused(file, &error));
                }
            }
        }
        if self.json {
            print(&json(&json!({ "files": reports }))?)?;
        }
        Ok([1, 2, 3].into_iter().find(|status| statuses.contains(status)).unwrap_or(0))
    }

    fn print(&self, file: &Path, found: &Verification) -> Result<()> {
        print(&text(file, found))?;
        if self.is_another(found) {
            print("  this is not the root that --root asks for: another file, or this one cut or gone on with\n")?;
        }
        Ok(())
    }

    /// Whether a root is asked for and this is not it.
    fn is_another(&self, found: &Verification) -> bool {
        self.root.is_some() && found.root != self.root
    }
}

fn exit_status(state: State) -> u8 {
    match state {
        State::Sealed => 0,
        State::Torn | State::Damaged => 1,
        State::TailLost => 3,
    }
}

/// The report of a file that is no trace, or whose header is damaged.
fn refused(file: &Path, error: &Error) -> Value {
    let state = match error.kind() {
        ErrorKind::Foreign => "foreign",
        ErrorKind::Damaged => "damaged",
        _ => "unreadable",
    };
    json!({ "file": file.display().to_string(), "state": state, "error": error.to_string() })
}

fn verify_with_progress(file: &Path) -> Result<Verification> {
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("verifying {bar:30} {bytes}/{total_bytes} {bytes_per_sec}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let found = verify(&Input::open(file)?, |done, of| {
        bar.set_length(of);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    found
}

fn text(file: &Path, found: &Verification) -> String {
    let mut text =
        format!("{}: {}, {} frames, {}\n", file.display(), found.state.name(), found.frames, bytes_text(found.bytes));
    if let Some(root) = &found.root {
        text += &format!("  root {}\n", hex(root));
    }
    if found.loose_bytes > 0 {
        text += &format!("  {} bytes at the end are the beginning of a frame\n", found.loose_bytes);
    }
    for fault in &found.faults {
        text += &format!("  byte {}: {}{}\n", fault.offset, fault_frame(fault), fault.what);
    }
    text
}

fn fault_frame(fault: &Fault) -> String {
    let run = fault.run.map_or_else(String::new, |run| format!(" of run {run}"));
    let points =
        if fault.points.is_empty() { String::new() } else { format!("; {}", printable(&fault.points.join(", "))) };
    match (fault.seq, fault.kind) {
        (Some(seq), Some(kind)) => format!("frame {seq} ({kind}{run}{points}): "),
        (Some(seq), None) => format!("before frame {seq}{points}: "),
        _ => String::new(),
    }
}

fn report(file: &Path, found: &Verification) -> Value {
    let fault = |fault: &Fault| json!({ "seq": fault.seq, "offset": fault.offset, "kind": fault.kind, "run": fault.run, "points": fault.points, "cause": fault.cause.name(), "what": fault.what });
    json!({
        "file": file.display().to_string(),
        "state": found.state.name(),
        "frames": found.frames,
        "bytes": found.bytes,
        "durable_to": found.durable_to,
        "loose_bytes": found.loose_bytes,
        "root": found.root.map(|root| hex(&root)),
        "faults": found.faults.iter().map(fault).collect::<Vec<_>>(),
    })
}
