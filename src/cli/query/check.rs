//! `actrace-query check`: contracts over runs.

use super::{Opening, block_on};
use crate::cli::{json, print};
use crate::contract::{Counts, check, find, shipped};
use crate::error::Result;
use crate::report::{contracts_json, contracts_junit, contracts_text};
use crate::sql::{DEFAULT_MEMORY, Session};

/// Rows that falsifiers look at together: 128 rows of 20,000 elements are 20 MB in f64, and a falsifier makes a few such.
const BATCH: usize = 128;

/// Check contracts: promises about runs, each broken by counterexamples
#[derive(Debug, clap::Args)]
#[command(
    before_help = "Example:\n  actrace-query check runs.actrace --contract residual-algebra --contract my/contract.yaml",
    after_help = "Exit status: 0 nothing is broken (warnings and unmeasured obligations are shown), 1 an obligation is broken \
                  or reads what is damaged, 2 usage, environment or a bad contract, 3 nothing was measured. With --strict a broken warning is 1, and \
                  anything unmeasured is 3."
)]
pub struct Check {
    #[command(flatten)]
    opening: Opening,
    /// A contract: a shipped one by name, or a file (with a `/`, or ending with .yaml); may be repeated [default: all that
    /// are shipped]
    #[arg(long = "contract", value_name = "NAME|FILE")]
    contracts: Vec<String>,
    /// Counterexamples shown of each obligation; all are counted
    #[arg(long, value_name = "N", default_value_t = 3)]
    show: usize,
    /// Let warnings and what is unmeasured count
    #[arg(long)]
    strict: bool,
    /// How the answer is written
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// How the answer is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// A page
    #[default]
    Text,
    /// An object with every contract, obligation and run
    Json,
    /// JUnit XML
    Junit,
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Format::Text => "text",
            Format::Json => "json",
            Format::Junit => "junit",
        })
    }
}

impl Check {
    /// Runs the command.
    pub fn answer(&self) -> Result<u8> {
        let contracts = match self.contracts.as_slice() {
            [] => shipped()?,
            names => names.iter().map(|name| find(name)).collect::<Result<_>>()?,
        };
        let memory = self.opening.memory.unwrap_or(DEFAULT_MEMORY);
        let session = Session::in_batches_of(BATCH, self.opening.open()?, memory)?;
        let checked = block_on(check(&session, &contracts, self.show))?;
        print(&match self.format {
            Format::Text => contracts_text(&checked)?,
            Format::Json => json(&contracts_json(&checked)?)?,
            Format::Junit => contracts_junit(&checked, self.strict)?,
        })?;
        Ok(status(Counts::of(&checked), self.strict))
    }
}

fn status(counts: Counts, strict: bool) -> u8 {
    let Counts { held, broken, warnings, unmeasured, errors, .. } = counts;
    if broken + errors > 0 || strict && warnings > 0 {
        1
    } else if held + warnings == 0 || strict && unmeasured > 0 {
        3
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_measured_is_never_fine_by_itself() {
        let counts =
            |held, broken, warnings, unmeasured| Counts { held, broken, warnings, unmeasured, ..Counts::default() };
        let cases = [
            (counts(1, 0, 0, 0), 0, 0),
            (counts(1, 0, 0, 1), 0, 3),
            (counts(1, 0, 1, 0), 0, 1),
            (counts(9, 1, 0, 9), 1, 1),
            (counts(0, 0, 0, 5), 3, 3),
            (counts(0, 0, 0, 0), 3, 3),
            (Counts { errors: 1, ..counts(9, 0, 0, 9) }, 1, 1),
        ];
        for (counts, lenient, strict) in cases {
            assert_eq!((status(counts, false), status(counts, true)), (lenient, strict), "{counts:?}");
        }
    }
}
