//! The recorder: runs a model and appends what it saw to a trace.

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    match actrace::cli::Recorder::parse().run() {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            actrace::cli::note(&format!("error: {error}"));
            ExitCode::from(actrace::cli::exit_code(&error))
        }
    }
}
