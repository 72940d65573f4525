//! `actrace-query audit`: every operation of a run, judged on its own inputs.

use super::block_on;
use super::output::Output;
use crate::audit::{
    Finding, Verdict, audit_files, audit_kernels, audit_precision, audit_replay, save_case, together, verdict,
};
use crate::cli::{json, note, print, progress};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::model::Model;
use crate::open::{RunRef, TraceSet};
use crate::replay::{Emulation, Recorded, overrides};
use crate::report::{audit_json, audit_text};
use crate::sql::Answer;
use crate::sql::output::Format;
use crate::tables;
use std::path::{Path, PathBuf};

/// Judge every operation of a run on its own recorded inputs, and name the first that is wrong
#[derive(Debug, clap::Args)]
#[command(
    before_help = "Example:\n  actrace-query audit runs.actrace --run gpu --model model.gguf --original model-folder",
    after_help = "Exit status: 0 right, by whatever known rounding; 1 an operation is wrong; 2 usage or environment; 3 \
                  undecided."
)]
pub struct Audit {
    /// Trace files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Label or id of the run
    #[arg(long, value_name = "RUN")]
    run: String,
    /// The model that the run used: every operation is made again from its recorded inputs with its weights
    #[arg(long, value_name = "PATH", required_unless_present_any = ["replay", "original"])]
    model: Option<PathBuf>,
    /// The model that it should be, in any format or precision: with --model the run's file is judged by it too; alone,
    /// operations are judged by its weights, as far as rounding lets one see
    #[arg(long, value_name = "PATH")]
    original: Option<PathBuf>,
    /// A replay of the run in one of the files, in place of making it again
    #[arg(long, value_name = "RUN", conflicts_with_all = ["model", "original"])]
    replay: Option<String>,
    /// Writes the culprit's input, weights, expected and recorded output as .npy files, and a script that reads them
    #[arg(long, value_name = "DIR", requires = "model")]
    save_case: Option<PathBuf>,
    /// How the answer is written: table is a page with the verdict, json an object with it; the others are the rows of
    /// operations alone
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Audit {
    /// Runs the command.
    pub fn answer(&self) -> Result<u8> {
        let output = Output::stdout(self.format);
        output.check(&[])?;
        let set = super::open(&self.files)?;
        let run = set.resolve(&self.run)?;
        let (basis, findings) = match (&self.model, &self.original, &self.replay) {
            (Some(model), ..) => self.by_model(&run, model)?,
            (None, Some(original), _) => by_original(&run, original)?,
            (None, None, Some(replay)) => by_replay(&set, &run, replay)?,
            (None, None, None) => {
                return Err(Error::usage("nothing to audit by: give --model, --original or --replay"));
            }
        };
        let (verdict, _) = verdict(&findings);
        match self.format {
            Format::Table => print(&audit_text(&run, &basis, &findings))?,
            Format::Json => print(&json(&audit_json(&run, &basis, &findings))?)?,
            _ => {
                note(&format!("verdict: {}", verdict.name()));
                block_on(output.write(Answer::ready(tables::audit(&findings)?)))?;
            }
        }
        Ok(match verdict {
            Verdict::Right | Verdict::Rounding => 0,
            Verdict::Wrong => 1,
            Verdict::Undecided => 3,
        })
    }

    fn by_model(&self, run: &RunRef, path: &Path) -> Result<(String, Vec<Finding>)> {
        let identity = &run.view().identity;
        let model = Model::open_with(path, &overrides(identity)?)?;
        check_own(run, &model)?;
        let graph = Graph::of(&model)?;
        let emulation = Emulation::of(identity, "recorded")?;
        let recorded = Recorded::read(run.clone(), &graph)?;
        let bar = progress::operations("auditing", graph.sites.iter().filter(|site| recorded.has(site.id)).count());
        let findings = audit_kernels(&model, &graph, &recorded, &emulation, &|| bar.inc(1));
        bar.finish_and_clear();
        let mut findings = findings?;
        let mut basis =
            format!("made again from recorded inputs with {}, semantics {}", path.display(), emulation.name);
        let original = self.original.as_deref().map(Model::open).transpose()?;
        if let Some(original) = &original {
            basis += &format!("; the file judged by {}", original.path().display());
            findings = together(findings, file_by(&model, &graph, original)?);
        }
        if let (Some(folder), (_, Some(_))) = (&self.save_case, verdict(&findings)) {
            save_case(folder, &model, &graph, &recorded, &emulation, &findings, original.as_ref())?;
            note(&format!("the culprit's case is in {}", folder.display()));
        }
        Ok((basis, findings))
    }
}

/// Part C: only weights of another precision are at hand.
fn by_original(run: &RunRef, path: &Path) -> Result<(String, Vec<Finding>)> {
    let original = Model::open(path)?;
    let graph = Graph::of(&original)?;
    let emulation = Emulation::of(&run.view().identity, "recorded")?;
    let recorded = Recorded::read(run.clone(), &graph)?;
    let bar = progress::operations("auditing", graph.sites.iter().filter(|site| recorded.has(site.id)).count());
    let findings = audit_precision(&original, &graph, &recorded, &emulation, &|| bar.inc(1));
    bar.finish_and_clear();
    let basis = format!("judged by the weights of {}, whose rounding to the run's types is estimated", path.display());
    Ok((basis, findings?))
}

/// Part B: the run's file.
fn file_by(model: &Model, graph: &Graph, original: &Model) -> Result<Vec<Finding>> {
    let other = Graph::of(original)?;
    let bar = progress::operations("judging the file", graph.sites.len());
    let findings = audit_files(model, graph, original, &other, &|| bar.inc(1));
    bar.finish_and_clear();
    findings
}

fn by_replay(set: &TraceSet, run: &RunRef, replay: &str) -> Result<(String, Vec<Finding>)> {
    let replay = set.resolve(replay)?;
    let identity = &replay.view().identity;
    let basis = format!("replay {} with {}, semantics {}", identity.label, identity.model_path, identity.semantics);
    Ok((basis, audit_replay(run, &replay, &|| ())?))
}

/// The kernel is judged by the run's own file: with another one, a broken file would be a broken kernel.
fn check_own(run: &RunRef, model: &Model) -> Result<()> {
    let identity = &run.view().identity;
    if identity.model_hash == [0; 32] {
        note("note: the run does not say which model file it used");
        return Ok(());
    }
    if identity.model_hash == model.hash()?.model {
        return Ok(());
    }
    let message = format!("this is not the model that `{}` used ({})", identity.label, identity.model_path);
    Err(Error::usage(message).in_file(model.path()))
}
