//! SQL over traces.

use std::process::ExitCode;

fn main() -> ExitCode {
    actrace::cli::query::main()
}
