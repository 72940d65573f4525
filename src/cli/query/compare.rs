//! `actrace-query compare`: runs beside a reference, layer by layer, with a verdict.

use super::block_on;
use super::judging::Judging;
use super::output::Output;
use super::page_format::PageFormat;
use crate::cli::{json, note, print};
use crate::compare::{Assessment, Rules, Standing, Warning};
use crate::error::{Error, Result};
use crate::open::{RunRef, TraceSet};
use crate::report::{comparisons_json, comparisons_junit, comparisons_text};
use crate::sql::Answer;
use crate::tables;
use std::path::PathBuf;

/// Compare runs with a reference, layer by layer, and say where they part
#[derive(Debug, clap::Args)]
#[command(
    before_help = "Example:\n  actrace-query compare runs.actrace --reference before --target after\n  \
                   actrace-query compare runs.actrace --reference f32 --target q8_0 --target q4_k --rules rules.toml \
                   --format junit",
    after_help = "Exit status, of the worst target: 0 equal or within tolerance, 1 diverged or a rule failed, 2 usage or \
                  environment, 3 not comparable or undecided. A rule's warning is shown and changes no status."
)]
pub struct Compare {
    /// Trace files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Label or id of the run to compare with; the first where the files hold exactly two
    #[arg(long, value_name = "RUN", requires = "target")]
    reference: Option<String>,
    /// Label or id of a run that is asked about; may be given several times; the second where the files hold exactly two
    #[arg(long, value_name = "RUN", requires = "reference")]
    target: Vec<String>,
    /// Largest rel_l2 that is no divergence, whatever the runs are
    #[arg(long, value_name = "NUMBER", value_parser = tolerance)]
    rtol: Option<f64>,
    /// Limits for metrics by layer and point, and what more than that comes to (docs/comparing.md)
    #[arg(long, value_name = "FILE.toml")]
    rules: Option<PathBuf>,
    /// Refuse to compare where any row has to be left out
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    judging: Judging,
    /// How the answer is written: table is a page with the verdict, json an object with everything, junit what CI systems
    /// read; the others are the rows of layers and points alone
    #[arg(long, value_enum, default_value_t)]
    format: PageFormat,
}

impl Compare {
    /// Runs the command.
    pub fn answer(&self) -> Result<u8> {
        let rules = self.rules.as_deref().map(Rules::open).transpose()?;
        let set = super::open(&self.files)?;
        let (reference, targets) = self.runs(&set)?;
        if targets.len() > 1 {
            self.judging.check_several()?;
        }
        Output::stdout(self.format.of_rows()).check(&[])?;
        let warnings = Warning::of(&reference)?;
        let assess = |target: &RunRef| {
            let comparison = self.judging.compare(&set, (&reference, target), self.rtol, self.strict)?;
            Assessment::of(&reference, target, comparison, &warnings, rules.as_ref())
        };
        show(&targets.iter().map(assess).collect::<Result<Vec<_>>>()?, self.format)
    }

    /// The runs that were named; or both, where there are two.
    fn runs(&self, set: &TraceSet) -> Result<(RunRef, Vec<RunRef>)> {
        if let Some(reference) = &self.reference {
            let targets: Vec<RunRef> = self.target.iter().map(|name| set.resolve(name)).collect::<Result<_>>()?;
            let twice = targets.iter().enumerate().find(|(at, run)| targets[..*at].iter().any(|o| o.id() == run.id()));
            if let Some((_, run)) = twice {
                return Err(Error::usage(format!("--target names the run {} twice", run.view().identity.label)));
            }
            return Ok((set.resolve(reference)?, targets));
        }
        let runs: Vec<RunRef> = set.runs().collect();
        match runs.as_slice() {
            [reference, target] => Ok((reference.clone(), vec![target.clone()])),
            _ => Err(Error::usage(format!("which runs? give --reference and --target; there are {}", set.listing()))),
        }
    }
}

/// Compares two runs of `set` as without options, and prints; gives the exit status.
pub fn plain(set: &TraceSet, reference: &RunRef, target: &RunRef) -> Result<u8> {
    let comparison = Judging::default().compare(set, (reference, target), None, false)?;
    let assessment = Assessment::of(reference, target, comparison, &Warning::of(reference)?, None)?;
    show(&[assessment], PageFormat::Page)
}

/// Prints comparisons; gives the exit status.
fn show(assessments: &[Assessment], format: PageFormat) -> Result<u8> {
    match format {
        PageFormat::Page => print(&comparisons_text(assessments))?,
        PageFormat::Json => print(&json(&comparisons_json(assessments))?)?,
        PageFormat::Junit => print(&comparisons_junit(assessments)?)?,
        PageFormat::Rows(format) => {
            for Assessment { comparison, .. } in assessments {
                note(&format!("{}: {}", comparison.verdict.name(), comparison.reason));
            }
            block_on(Output::stdout(format).write(Answer::ready(tables::comparisons(assessments)?)))?;
        }
    }
    let worst = assessments.iter().map(Assessment::standing).max().unwrap_or(Standing::Passed);
    Ok(match worst {
        Standing::Passed => 0,
        Standing::Failed => 1,
        Standing::Undecided => 3,
    })
}

fn tolerance(text: &str) -> std::result::Result<f64, String> {
    let wrong = || Error::usage(format!("`{text}` is no tolerance: a number from 0 on")).to_string();
    text.parse::<f64>().ok().filter(|value| *value >= 0.0 && value.is_finite()).ok_or_else(wrong)
}
