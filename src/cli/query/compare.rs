//! `actrace-query compare`: two runs, layer by layer, with a verdict.

use super::block_on;
use super::judging::Judging;
use super::output::Output;
use crate::cli::{json, note, print};
use crate::compare::{Comparison, Verdict};
use crate::error::{Error, Result};
use crate::open::{RunRef, TraceSet};
use crate::report::{comparison_json, comparison_text};
use crate::sql::Answer;
use crate::sql::output::Format;
use crate::tables;
use std::path::PathBuf;

/// Compare two runs, layer by layer, and say where they part
#[derive(Debug, clap::Args)]
#[command(
    before_help = "Example:\n  actrace-query compare runs.actrace --reference before --target after",
    after_help = "Exit status: 0 equal or within tolerance, 1 diverged, 2 usage or environment, 3 not \
                  comparable or undecided."
)]
pub struct Compare {
    /// Trace files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Label or id of the run to compare with
    #[arg(long, value_name = "RUN")]
    reference: String,
    /// Label or id of the run that is asked about
    #[arg(long, value_name = "RUN")]
    target: String,
    /// Largest rel_l2 that is no divergence, whatever the runs are
    #[arg(long, value_name = "NUMBER", value_parser = tolerance)]
    rtol: Option<f64>,
    /// Refuse to compare where any row has to be left out
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    judging: Judging,
    /// How the answer is written: table is a page with the verdict, json an object with it; the others are the rows of
    /// layers and points alone
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Compare {
    /// Runs the command.
    pub fn answer(&self) -> Result<u8> {
        let set = super::open(&self.files)?;
        let (reference, target) = (set.resolve(&self.reference)?, set.resolve(&self.target)?);
        Output::stdout(self.format).check(&[])?;
        let comparison = self.judging.compare(&set, (&reference, &target), self.rtol, self.strict)?;
        show((&reference, &target), &comparison, self.format)
    }
}

/// Compares two runs of `set` as without options, and prints; gives the exit status.
pub fn plain(set: &TraceSet, reference: &RunRef, target: &RunRef, format: Format) -> Result<u8> {
    let comparison = Judging::default().compare(set, (reference, target), None, false)?;
    show((reference, target), &comparison, format)
}

/// Prints a comparison; gives the exit status.
fn show((reference, target): (&RunRef, &RunRef), comparison: &Comparison, format: Format) -> Result<u8> {
    match format {
        Format::Table => print(&comparison_text(reference, target, comparison))?,
        Format::Json => print(&json(&comparison_json(reference, target, comparison))?)?,
        _ => {
            note(&format!("{}: {}", comparison.verdict.name(), comparison.reason));
            block_on(Output::stdout(format).write(Answer::ready(tables::comparison(comparison)?)))?;
        }
    }
    Ok(match comparison.verdict {
        Verdict::Equal | Verdict::WithinTolerance => 0,
        Verdict::Diverged => 1,
        Verdict::NotComparable | Verdict::Undecided => 3,
    })
}

fn tolerance(text: &str) -> std::result::Result<f64, String> {
    let wrong = || Error::usage(format!("`{text}` is no tolerance: a number from 0 on")).to_string();
    text.parse::<f64>().ok().filter(|value| *value >= 0.0 && value.is_finite()).ok_or_else(wrong)
}
