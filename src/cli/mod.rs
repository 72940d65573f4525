//! The command line: one file per verb. Results go to stdout, everything else to stderr.

mod exit;
#[cfg(feature = "query")]
pub mod query;

pub use exit::exit_code;
