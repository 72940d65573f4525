//! Where answers go: stdout, or a file that appears when it is whole.

use crate::error::{Error, Result};
use crate::sql::Answer;
use crate::sql::output::{Format, write};
use clap::builder::PossibleValue;
use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Options about the answer.
#[derive(Debug, clap::Args)]
pub struct Output {
    /// How the answer is written
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Write to this file instead of stdout
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Answer again while the files are being written
    ///
    /// The files are looked at about twice a second, and opened anew when one of them was written to. The query is
    /// answered again, over all finished steps, when a step was finished, a run began or ended, or a file changed its
    /// state; the first answer waits for the first finished step, also where a file is still empty. A terminal is
    /// cleared before each answer; on a pipe they follow each other, each in full. It ends when every file is sealed
    /// (or damaged), by Ctrl-C, or at the first answer that nobody reads; an error ends it too. Formats: table, csv,
    /// json, ndjson, markdown; not with --output.
    #[arg(long)]
    follow: bool,
}

/// What became of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// All of it was written: so many rows.
    Rows(u64),
    /// Its reader went away, having seen enough.
    ReaderGone,
}

impl clap::ValueEnum for Format {
    fn value_variants<'a>() -> &'a [Self] {
        &Format::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()))
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Output {
    /// One answer as `format` to stdout.
    pub fn stdout(format: Format) -> Self {
        Output { format, output: None, follow: false }
    }

    /// Refuses what would spoil an input or a terminal, before any work is done.
    pub fn check(&self, inputs: &[PathBuf]) -> Result<()> {
        if self.follow && self.format.is_binary() {
            let name = self.format.name();
            return Err(Error::usage(format!(
                "--follow writes answer after answer, and {name} holds one: give a text format"
            )));
        }
        if self.follow && self.output.is_some() {
            return Err(Error::usage("--follow writes answer after answer to stdout: leave --output out"));
        }
        let Some(output) = &self.output else {
            if self.format.is_binary() && std::io::stdout().is_terminal() {
                let name = self.format.name();
                return Err(Error::usage(format!("a terminal cannot show {name}: give --output FILE")));
            }
            return Ok(());
        };
        let Ok(target) = output.canonicalize() else {
            return Ok(());
        };
        if inputs.iter().any(|input| input.canonicalize().is_ok_and(|input| input == target)) {
            return Err(Error::usage("--output names a trace that is being read: name another file").in_file(output));
        }
        Ok(())
    }

    /// Whether the query is answered again and again.
    pub fn follows(&self) -> bool {
        self.follow
    }

    /// Writes `answer`.
    pub async fn write(&self, answer: Answer) -> Result<Written> {
        match &self.output {
            Some(path) => into_file(answer, self.format, path).await.map(Written::Rows),
            None => into_stdout(answer, self.format).await,
        }
    }
}

async fn into_stdout(answer: Answer, format: Format) -> Result<Written> {
    let gone = Arc::new(AtomicBool::new(false));
    let pipe = Pipe { out: std::io::stdout(), gone: Arc::clone(&gone) };
    match write(answer, format, Box::new(BufWriter::new(pipe))).await {
        Err(_) if gone.load(Ordering::Relaxed) => Ok(Written::ReaderGone),
        result => result.map(Written::Rows),
    }
}

/// Writes beside `path` and renames: a failed query leaves no half answer.
async fn into_file(answer: Answer, format: Format, path: &Path) -> Result<u64> {
    let special = std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file());
    if special {
        let file = File::options().write(true).open(path).map_err(|cause| Error::io("open", path, cause))?;
        return write(answer, format, Box::new(BufWriter::new(file))).await;
    }
    let mut name = path.file_name().ok_or_else(|| Error::usage("--output names no file").in_file(path))?.to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = path.with_file_name(name);
    let file = File::create_new(&part).map_err(|cause| Error::io("create", &part, cause))?;
    let written = write(answer, format, Box::new(BufWriter::new(file))).await;
    let kept = written.and_then(|rows| {
        std::fs::rename(&part, path).map_err(|cause| Error::io("create", path, cause))?;
        Ok(rows)
    });
    if kept.is_err() {
        // The first error is the one to tell.
        let _ = std::fs::remove_file(&part);
    }
    kept.map_err(|error| error.in_file(path))
}

/// A writer that remembers that its reader went away.
struct Pipe<W> {
    out: W,
    gone: Arc<AtomicBool>,
}

impl<W> Pipe<W> {
    fn seen<T>(&self, result: std::io::Result<T>) -> std::io::Result<T> {
        if result.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe) {
            self.gone.store(true, Ordering::Relaxed);
        }
        result
    }
}

impl<W: Write> Write for Pipe<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let result = self.out.write(bytes);
        self.seen(result)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let result = self.out.flush();
        self.seen(result)
    }
}
