//! `actrace-query`: SQL over what was recorded.

mod audit;
mod check;
mod compare;
mod demo;
mod folders;
mod follow;
mod judging;
mod list;
mod output;
mod page_format;
mod run;
mod sql;

use crate::cli::{exit_code, note};
use crate::error::{Error, ErrorKind, Result};
use crate::open::{State, Trace, TraceSet};
use crate::sql::{DEFAULT_MEMORY, Session};
use clap::error::ErrorKind as ClapKind;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Ask trace files, in SQL.
#[derive(Debug, Parser)]
#[command(
    name = "actrace-query",
    version,
    before_help = "Example:\n  actrace-query run ratio-by-layer runs.actrace -p reference=gguf -p target=apr\n  \
                   actrace-query sql \"SELECT layer, point, max(absmax) FROM activations GROUP BY ALL\" runs.actrace",
    after_help = "Tables: runs, steps, activations, tensors, elements, operations, coverage, plan, hyper_parameters, losses,\n\
                  weights, events, compare('reference', 'target'),\n\
                  compare_weights('reference', 'target').\n\
                  Exit status: 0 fine, 1 a difference or damage, 2 usage or environment, 3 not comparable."
)]
struct Query {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Answer a SQL query
    Sql(sql::Sql),
    /// Answer a named query
    Run(run::Run),
    /// List the named queries
    List(list::List),
    /// Compare runs with a reference, layer by layer, and say where they part
    Compare(compare::Compare),
    /// Judge every operation of a run on its own recorded inputs, and name the first that is wrong
    Audit(audit::Audit),
    /// Check contracts: promises about runs, each broken by counterexamples
    Check(check::Check),
    /// Record the shipped model in two formats and compare the runs
    Demo(demo::Demo),
}

/// Options of every verb that opens traces.
#[derive(Debug, Args)]
struct Opening {
    /// Trace files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Memory for joins, groups and sorts: bytes, or with K, M or G (powers of 1024) behind; 2G if not given
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory: Option<usize>,
}

impl Opening {
    /// Opens the files; those that are not sealed get a note.
    fn open(&self) -> Result<TraceSet> {
        open(&self.files)
    }

    /// A session over open files.
    fn session(&self, set: TraceSet) -> Result<Session> {
        Session::new(set, self.memory.unwrap_or(DEFAULT_MEMORY))
    }
}

/// Opens traces; those that are not sealed get a note.
fn open(files: &[PathBuf]) -> Result<TraceSet> {
    let set = TraceSet::open(files)?;
    set.unsealed().for_each(|trace| note_state(trace));
    Ok(set)
}

/// Says on stderr in which state a file is that is not sealed, and what that means for the answer.
fn note_state(trace: &Trace) {
    let file = trace.path().display();
    let meaning = match trace.state() {
        State::Sealed => return,
        State::Torn => "no seal ends this file; every whole frame of it is read".to_owned(),
        State::TailLost => "bytes that were not synced yet are lost; every whole frame is read".to_owned(),
        State::Damaged => format!("bytes of it changed; what is whole is read, and `actrace verify {file}` says more"),
    };
    note(&format!("note: {file}: {}: {meaning}", trace.state().name()));
}

/// Parses the command line, runs it, and says how it went.
pub fn main() -> ExitCode {
    let query = match Query::try_parse() {
        Ok(query) => query,
        Err(error) => return misused(&error),
    };
    match query.verb.answer() {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            note(&format!("error: {error}"));
            ExitCode::from(exit_code(&error))
        }
    }
}

impl Verb {
    fn answer(&self) -> Result<u8> {
        match self {
            Verb::Sql(sql) => sql.answer(),
            Verb::Run(run) => run.answer(),
            Verb::List(list) => list.answer(),
            Verb::Compare(compare) => compare.answer(),
            Verb::Audit(audit) => audit.answer(),
            Verb::Check(check) => check.answer(),
            Verb::Demo(demo) => demo.answer(),
        }
    }
}

/// Help and version are answers; anything else is one line and status 2.
fn misused(error: &clap::Error) -> ExitCode {
    let asked = matches!(
        error.kind(),
        ClapKind::DisplayHelp | ClapKind::DisplayVersion | ClapKind::DisplayHelpOnMissingArgumentOrSubcommand
    );
    if asked {
        // Help that nobody reads to the end is no failure.
        let _ = error.print();
        return ExitCode::from(u8::from(!matches!(error.kind(), ClapKind::DisplayHelp | ClapKind::DisplayVersion)) * 2);
    }
    let text = error.to_string();
    let lines = text.split("\n\n").filter(|part| !part.starts_with("Usage:") && !part.starts_with("For more"));
    let line = lines.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ");
    note(&line);
    ExitCode::from(exit_code(&Error::usage("")))
}

/// Runs `work` on every core.
fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|cause| Error::new(ErrorKind::Environment, "cannot start threads").because(cause))?;
    runtime.block_on(work)
}

/// Reads `512M`, `2G`, `1000000`.
fn size(text: &str) -> std::result::Result<usize, String> {
    let (digits, shift) = match text.strip_suffix(['K', 'M', 'G', 'k', 'm', 'g']) {
        None => (text, 0),
        Some(digits) if text.ends_with(['K', 'k']) => (digits, 10),
        Some(digits) if text.ends_with(['M', 'm']) => (digits, 20),
        Some(digits) => (digits, 30),
    };
    let number: usize =
        digits.parse().map_err(|_| "a size is a number, with K, M or G behind if need be".to_owned())?;
    number.checked_mul(1 << shift).filter(|size| *size > 0).ok_or_else(|| "this size is out of range".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn sizes_have_units() {
        assert_eq!((size("512M"), size("2g"), size("7")), (Ok(512 << 20), Ok(2 << 30), Ok(7)));
        assert!(size("0").is_err() && size("1T").is_err() && size("99999999999G").is_err());
    }

    #[test]
    fn help_opens_with_an_example() {
        Query::command().debug_assert();
        assert!(Query::command().render_help().to_string().starts_with("Example:"));
    }
}
